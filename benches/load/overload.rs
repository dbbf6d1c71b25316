//! Twice the capacity and more, for minutes: what is acknowledged stays near the capacity, the rest is told 503 soon, memory stays flat,
//! and what was acknowledged is in the journal.
//!
//! How near is a matter of what refusals cost, because whoever refuses does not accept meanwhile. What keeps the goodput up is that
//! their number has a bound, however much is offered (`RequestLimits::line`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amazon_pay_ipn::clock::Stopwatch;
use hdrhistogram::Histogram;
use redis::AsyncCommands;
use redis::streams::{StreamReadOptions, StreamReadReply};
use tokio::task::JoinSet;

use crate::client::Connection;
use crate::messages::{self, Prepared};
use crate::world::{Holds, Time, World};

const POOL: usize = 60_000;
const PERMISSIONS: usize = 200;
/// SNS gives up after 15 s.
const PATIENCE: Duration = Duration::from_secs(15);
const CLOSED_LOOP: usize = 64;
/// A little less than the service lets in: what it does not take waits at the sender.
const OPEN_LOOP: usize = 4000;
const MEASURE: Duration = Duration::from_mins(1);
const SAMPLE: Duration = Duration::from_secs(10);

struct Pool {
    messages: Vec<Prepared>,
    ready: Mutex<VecDeque<usize>>,
    answered: Mutex<Vec<usize>>,
    /// How often each was acknowledged.
    acknowledged: Vec<AtomicU32>,
    over: AtomicBool,
}

impl Pool {
    fn take(&self) -> Option<usize> {
        self.ready.lock().expect("nobody panicked").pop_front()
    }
}

#[derive(Clone)]
struct Answers {
    taken: Histogram<u64>,
    refused: Histogram<u64>,
    other: u64,
    starved: u64,
}

impl Answers {
    fn new() -> Self {
        let histogram = || Histogram::new_with_bounds(1, 60_000_000, 2).expect("bounds");
        Self { taken: histogram(), refused: histogram(), other: 0, starved: 0 }
    }

    fn note(&mut self, status: Option<u16>, micros: u64) {
        match status {
            Some(200) => self.taken.saturating_record(micros),
            Some(503) => self.refused.saturating_record(micros),
            _ => self.other += 1,
        }
    }
}

/// How requests follow one another.
#[derive(Clone, Copy)]
enum Pace {
    /// Each connection sends the next when it has its answer.
    Closed,
    /// So many a second, whatever becomes of those before.
    Open(f64),
}

struct Phase {
    answers: Answers,
    span: Duration,
}

impl Phase {
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.span.as_secs_f64()
    }

    fn print(&self, name: &str) {
        let micros = |histogram: &Histogram<u64>, quantile: f64| {
            Duration::from_micros(if histogram.is_empty() { 0 } else { histogram.value_at_quantile(quantile) })
        };
        let Answers { taken, refused, other, starved } = &self.answers;
        println!(
            "{name}: 200 {:.0}/s (p50 {:?}, p99 {:?}, p99.9 {:?}); 503 {:.0}/s (p50 {:?}, p99 {:?}); other or none {other}; \
             no message ready {starved}",
            self.per_second(taken.len()),
            micros(taken, 0.5),
            micros(taken, 0.99),
            micros(taken, 0.999),
            self.per_second(refused.len()),
            micros(refused, 0.5),
            micros(refused, 0.99),
        );
    }
}

/// Runs it all, with so many times the capacity offered; whether every promise held.
pub async fn run(minutes: u64, times: u32) -> anyhow::Result<bool> {
    let world = World::start(Time::Real, &[]).await?;
    println!("{POOL} messages are being signed");
    // On all cores, before this process is bound to one.
    let signed = messages::sign(&world.sandbox, POOL, PERMISSIONS);
    let pinned = pin(&world).await?;
    let mut service = world.serve("serve", pinned.then_some("0"))?;
    let acknowledged = signed.iter().map(|_| AtomicU32::new(0)).collect();
    let pool = Arc::new(Pool {
        ready: Mutex::new((0..signed.len()).collect()),
        messages: signed,
        answered: Mutex::default(),
        acknowledged,
        over: AtomicBool::new(false),
    });
    let recycler = tokio::spawn(recycle(pool.clone(), world.connection().await?, world.key("seen:")));
    let reader = tokio::spawn(read_journal(pool.clone(), world.connection().await?, world.key("journal")));

    let load = |pace, connections, span| phase(pool.clone(), service.public, pace, connections, span);
    load(Pace::Closed, CLOSED_LOOP, MEASURE / 4).await?;
    let capacity = load(Pace::Closed, CLOSED_LOOP, MEASURE).await?;
    capacity.print("capacity (64 connections, each waits for its answer)");
    let rate = f64::from(times) * capacity.per_second(capacity.answers.taken.len());
    let span = Duration::from_secs(60 * minutes);
    println!("offered for {span:?}: {rate:.0}/s over at most {OPEN_LOOP} connections");
    let watched = tokio::spawn(watch(service.id(), span));
    let overload = load(Pace::Open(rate), OPEN_LOOP, span).await?;
    overload.print("overload");
    let samples = watched.await??;
    let after = load(Pace::Closed, CLOSED_LOOP, MEASURE).await?;
    after.print("afterwards, as at first");

    service = stop(service, &world, pinned).await?;
    pool.over.store(true, Ordering::SeqCst);
    recycler.await??;
    let journaled = reader.await??;
    drop(service);
    Ok(verdict(&pool, &journaled, [&capacity, &overload, &after], &samples))
}

/// The service ends in order and starts again: what it answered is written.
async fn stop(service: crate::world::Service, world: &World, pinned: bool) -> anyhow::Result<crate::world::Service> {
    service.terminate().await?;
    world.serve("serve", pinned.then_some("0"))
}

fn verdict(pool: &Pool, journaled: &[u32], [capacity, overload, after]: [&Phase; 3], samples: &[Holds]) -> bool {
    let acknowledged: u64 = pool.acknowledged.iter().map(|count| u64::from(count.load(Ordering::SeqCst))).sum();
    let written: u64 = journaled.iter().map(|count| u64::from(*count)).sum();
    let lost: u64 = pool
        .acknowledged
        .iter()
        .zip(journaled)
        .map(|(told, kept)| u64::from(told.load(Ordering::SeqCst).saturating_sub(*kept)))
        .sum();
    println!("acknowledged {acknowledged}, in the journal {written}, acknowledged and not there: {lost}");
    let quarter = (samples.len() / 4).max(1);
    let rss = |part: &[Holds]| part.iter().map(|held| held.rss_kib).max().unwrap_or(0);
    let (early, late) =
        (rss(&samples[quarter.min(samples.len())..][..quarter]), rss(&samples[samples.len() - quarter..]));
    let files = samples.iter().map(|held| held.files).max().unwrap_or(0);
    println!(
        "resident memory: at most {early} KiB in the second quarter, {late} KiB in the last; open files at most {files}"
    );
    let speed = |phase: &Phase| phase.per_second(phase.answers.taken.len());
    // A guest's core is not equally fast for ten minutes, so the capacity is what was measured before and after.
    let goodput = speed(overload) / f64::midpoint(speed(capacity), speed(after));
    println!(
        "goodput under the load: {goodput:.2} of the capacity, before and afterwards; afterwards {:.2} of before",
        speed(after) / speed(capacity)
    );
    let refused = &overload.answers.refused;
    let held = [
        ("nothing acknowledged is lost", lost == 0),
        ("goodput stays above 0.6 of the capacity", goodput > 0.6),
        ("the capacity is there again afterwards", speed(after) >= 0.8 * speed(capacity)),
        ("99 of 100 refusals come within a second", refused.is_empty() || refused.value_at_quantile(0.99) < 1_000_000),
        ("memory is flat", late <= early + early / 10),
    ];
    for (what, holds) in held {
        println!("{} {what}", if holds { "ok    " } else { "BROKEN" });
    }
    held.iter().all(|(_, holds)| *holds)
}

/// Service and Redis on one core, the load on the other, so that a load of twice the capacity can be made at all.
async fn pin(world: &World) -> anyhow::Result<bool> {
    if std::thread::available_parallelism()?.get() < 2 {
        return Ok(false);
    }
    let server: String = redis::cmd("INFO").arg("server").query_async(&mut world.connection().await?).await?;
    let redis = server.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap_or_default().trim().to_owned();
    for (cores, process) in [("0", redis), ("1", std::process::id().to_string())] {
        let done = std::process::Command::new("taskset").args(["-a", "-cp", cores, &process]).output()?;
        if !done.status.success() {
            return Ok(false);
        }
    }
    println!("service and Redis share core 0; the load and the local Amazon Pay are on core 1");
    Ok(true)
}

async fn phase(
    pool: Arc<Pool>,
    address: std::net::SocketAddr,
    pace: Pace,
    connections: usize,
    span: Duration,
) -> anyhow::Result<Phase> {
    let answers = Arc::new(Mutex::new(Answers::new()));
    let (arrival, started) = (Arc::new(AtomicU64::new(0)), Stopwatch::start());
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        senders.spawn(send(pool.clone(), address, pace, span, answers.clone(), arrival.clone(), started));
    }
    while let Some(sender) = senders.join_next().await {
        sender?;
    }
    let span = started.elapsed();
    let answers = answers.lock().expect("nobody panicked").clone();
    Ok(Phase { answers, span })
}

async fn send(
    pool: Arc<Pool>,
    address: std::net::SocketAddr,
    pace: Pace,
    span: Duration,
    answers: Arc<Mutex<Answers>>,
    arrival: Arc<AtomicU64>,
    started: Stopwatch,
) {
    let mut connection = None;
    loop {
        let due = match pace {
            Pace::Closed => started.elapsed(),
            #[expect(clippy::cast_precision_loss, reason = "a count")]
            Pace::Open(rate) => Duration::from_secs_f64(arrival.fetch_add(1, Ordering::Relaxed) as f64 / rate),
        };
        if due >= span || started.elapsed() >= span + PATIENCE {
            return;
        }
        tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        let Some(message) = pool.take() else {
            answers.lock().expect("nobody panicked").starved += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        let sent = Stopwatch::start();
        let answer = exchange(&mut connection, address, &pool.messages[message].bytes);
        let status = tokio::time::timeout(PATIENCE, answer).await.unwrap_or(None);
        if status.is_none() {
            connection = None;
        }
        // An acceptance counts from when it was due, also when no connection was free for it; a refusal from when it was asked for.
        let took = if status == Some(503) { sent.elapsed() } else { started.elapsed().saturating_sub(due) };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        answers.lock().expect("nobody panicked").note(status, micros);
        if status == Some(200) {
            pool.acknowledged[message].fetch_add(1, Ordering::SeqCst);
        }
        // Without an answer it may still be stored, now or later: such a message is not used again.
        if status.is_some() {
            pool.answered.lock().expect("nobody panicked").push(message);
        }
    }
}

async fn exchange(kept: &mut Option<Connection>, address: std::net::SocketAddr, bytes: &[u8]) -> Option<u16> {
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

/// Makes answered messages new again: without its `seen` key Redis has forgotten a message.
async fn recycle(pool: Arc<Pool>, mut redis: redis::aio::MultiplexedConnection, prefix: String) -> anyhow::Result<()> {
    while !pool.over.load(Ordering::SeqCst) {
        let answered = std::mem::take(&mut *pool.answered.lock().expect("nobody panicked"));
        for part in answered.chunks(500) {
            let keys: Vec<String> =
                part.iter().map(|place| format!("{prefix}{}", pool.messages[*place].message_id)).collect();
            let _: u64 = redis.unlink(keys).await?;
            pool.ready.lock().expect("nobody panicked").extend(part);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Reads the journal as it grows and trims what was read: how often each message is in it.
async fn read_journal(
    pool: Arc<Pool>,
    mut redis: redis::aio::MultiplexedConnection,
    key: String,
) -> anyhow::Result<Vec<u32>> {
    let places = messages::places(&pool.messages);
    let mut counts = vec![0; pool.messages.len()];
    let mut last = "0".to_owned();
    loop {
        let over = pool.over.load(Ordering::SeqCst);
        let options = StreamReadOptions::default().count(2000);
        let reply: Option<StreamReadReply> = redis.xread_options(&[&key], &[&last], &options).await?;
        let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids);
        let mut any = false;
        for entry in entries {
            any = true;
            if let Some(place) = entry.get::<String>("message_id").and_then(|id| places.get(&id).copied()) {
                counts[place] += 1;
            }
            last = entry.id;
        }
        if any {
            let _: u64 = redis::cmd("XTRIM").arg(&key).arg("MINID").arg("~").arg(&last).query_async(&mut redis).await?;
        } else if over {
            return Ok(counts);
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn watch(process: u32, span: Duration) -> anyhow::Result<Vec<Holds>> {
    let started = Stopwatch::start();
    let mut samples = Vec::new();
    while started.elapsed() < span {
        tokio::time::sleep(SAMPLE.min(span / 8)).await;
        samples.push(Holds::of(process)?);
    }
    Ok(samples)
}
