//! One run: prepared messages against one address, and what came of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amazon_pay_ipn::clock::Stopwatch;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::processes::{processor, processor_alone};
use crate::client::Connection;

pub const CONNECTIONS: usize = 64;
/// Before what counts.
const WARM_UP: Duration = Duration::from_millis(700);
const SPAN: Duration = Duration::from_secs(3);

/// Whose processor time is measured.
#[derive(Clone, Copy)]
pub struct Watched {
    pub server: u32,
    pub redis: u32,
}

/// How requests follow one another.
#[derive(Clone, Copy)]
pub enum Pace {
    /// Each connection sends the next when it has its answer.
    Closed,
    /// So many a second, whatever becomes of those before.
    Open(f64),
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Measured {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    pub p999: Duration,
    /// For each answer: the server, Redis, and whoever makes the load.
    pub server: Duration,
    pub redis: Duration,
    pub load: Duration,
    /// Answers with another status than expected, or none.
    pub wrong: u64,
}

struct Run {
    messages: Arc<Vec<Vec<u8>>>,
    next: AtomicUsize,
    started: Stopwatch,
    arrival: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
    wrong: AtomicU64,
}

/// Sends messages from `first` on, each once, until the time is over or none is left.
pub async fn drive(
    address: SocketAddr,
    messages: Arc<Vec<Vec<u8>>>,
    pace: Pace,
    expected: u16,
    watched: Watched,
) -> anyhow::Result<Measured> {
    let run = Arc::new(Run {
        messages,
        next: AtomicUsize::new(0),
        started: Stopwatch::start(),
        arrival: AtomicU64::new(0),
        latencies: Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3)?),
        wrong: AtomicU64::new(0),
    });
    let mut senders = JoinSet::new();
    for _ in 0..CONNECTIONS {
        senders.spawn(send(run.clone(), address, pace, expected));
    }
    tokio::time::sleep(WARM_UP).await;
    let used = || [processor(watched.server), processor(watched.redis), processor_alone(std::process::id())];
    let (before, began) = (used(), run.started.elapsed());
    run.latencies.lock().expect("nobody panicked").reset();
    // Until it is over, or nothing is left to be sent.
    let mut over = None;
    while run.started.elapsed() < WARM_UP + SPAN && over.is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        over = (run.next.load(Ordering::Relaxed) >= run.messages.len()).then_some(());
    }
    let (after, ended) = (used(), run.started.elapsed());
    let latencies = run.latencies.lock().expect("nobody panicked").clone();
    run.next.store(usize::MAX / 2, Ordering::Relaxed);
    while let Some(sender) = senders.join_next().await {
        sender?;
    }
    let count = latencies.len().max(1);
    let each = |place: usize| after[place].saturating_sub(before[place]).div_f64(to_f64(count));
    let micros = |quantile: f64| Duration::from_micros(latencies.value_at_quantile(quantile));
    Ok(Measured {
        per_second: to_f64(count) / ended.saturating_sub(began).as_secs_f64(),
        p50: micros(0.5),
        p99: micros(0.99),
        p999: micros(0.999),
        server: each(0),
        redis: each(1),
        load: each(2),
        wrong: run.wrong.load(Ordering::Relaxed),
    })
}

#[expect(clippy::cast_precision_loss, reason = "a count")]
pub fn to_f64(count: u64) -> f64 {
    count as f64
}

async fn send(all: Arc<Run>, address: SocketAddr, pace: Pace, expected: u16) {
    let mut connection = None;
    loop {
        let number = all.next.fetch_add(1, Ordering::Relaxed);
        let Some(message) = all.messages.get(number) else { return };
        let mut since = all.started.elapsed();
        if let Pace::Open(rate) = pace {
            let due = Duration::from_secs_f64(to_f64(all.arrival.fetch_add(1, Ordering::Relaxed)) / rate);
            // Who comes late because no connection was free has waited since it was due. Who was free is woken to the millisecond, which is
            // not the server's doing.
            if let Some(early) = due.checked_sub(since) {
                tokio::time::sleep(early).await;
                since = all.started.elapsed();
            } else {
                since = due;
            }
        }
        let status = exchange(&mut connection, address, message).await;
        let took = all.started.elapsed().saturating_sub(since);
        if status == Some(expected) {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            all.latencies.lock().expect("nobody panicked").saturating_record(micros);
        } else {
            all.wrong.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn exchange(kept: &mut Option<Connection>, address: SocketAddr, bytes: &[u8]) -> Option<u16> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(address).await.ok()?,
    };
    let (status, usable) = connection.exchange(bytes).await.ok()?;
    if usable {
        *kept = Some(connection);
    }
    Some(status)
}

/// The ceiling's script by itself, on one connection; or so many a second.
pub async fn scripts(
    connection: redis::aio::MultiplexedConnection,
    ids: &[String],
    body: &[u8],
    rate: Option<f64>,
    redis: u32,
) -> anyhow::Result<Measured> {
    let script = Arc::new(redis::Script::new(super::prototype::ACCEPT));
    let (ids, body): (Arc<[String]>, Arc<[u8]>) = (ids.into(), body.into());
    let (next, latencies) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?)));
    let (started, before) = (Stopwatch::start(), [processor(redis), processor_alone(std::process::id())]);
    let mut senders = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (script, ids, body) = (script.clone(), ids.clone(), body.clone());
        let (next, latencies, mut connection) = (next.clone(), latencies.clone(), connection.clone());
        senders.spawn(async move {
            while started.elapsed() < SPAN {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(id) = ids.get(place) else { return Ok(()) };
                if let Some(rate) = rate {
                    let due = Duration::from_secs_f64(to_f64(place as u64) / rate);
                    tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
                }
                let since = started.elapsed();
                let mut call = script.key(format!("bench:seen:{id}"));
                call.key("bench:journal").arg(id).arg(&body[..]).arg(super::prototype::SEEN_MS);
                call.invoke_async::<u8>(&mut connection).await?;
                let micros = u64::try_from(started.elapsed().saturating_sub(since).as_micros()).unwrap_or(u64::MAX);
                latencies.lock().expect("nobody panicked").saturating_record(micros);
            }
            anyhow::Ok(())
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    let (span, after) = (started.elapsed(), [processor(redis), processor_alone(std::process::id())]);
    let latencies = latencies.lock().expect("nobody panicked").clone();
    let count = latencies.len().max(1);
    let micros = |quantile: f64| Duration::from_micros(latencies.value_at_quantile(quantile));
    Ok(Measured {
        per_second: to_f64(count) / span.as_secs_f64(),
        p50: micros(0.5),
        p99: micros(0.99),
        p999: micros(0.999),
        server: Duration::ZERO,
        redis: after[0].saturating_sub(before[0]).div_f64(to_f64(count)),
        load: after[1].saturating_sub(before[1]).div_f64(to_f64(count)),
        wrong: 0,
    })
}
