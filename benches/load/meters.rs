//! What a run of several instances is measured by: processor time, the metrics of each process, and the order of the calls in the ledger.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use amazon_pay_ipn::model::quota::Limit;
use amazon_pay_ipn::sandbox::{Ledger, Operation};
use anyhow::Context;
use redis::aio::MultiplexedConnection;

use crate::world::Service;

/// /proc counts in hundredths of a second, whatever the kernel.
const TICK: Duration = Duration::from_millis(10);

/// What processes have done and used since their start.
pub struct Meter {
    instances: Vec<Instance>,
    redis: Duration,
    ourselves: Duration,
}

#[derive(Clone, Copy)]
struct Instance {
    processor: Duration,
    reconciliations: u64,
    charges: u64,
    lapsed: u64,
}

/// The same between two moments.
pub struct Used {
    instances: Vec<Instance>,
    redis: Duration,
    /// This process: the local Amazon Pay.
    ourselves: Duration,
    pub lapsed: u64,
}

impl Meter {
    pub async fn read(
        services: &[Service],
        http: &reqwest::Client,
        redis: &mut MultiplexedConnection,
    ) -> anyhow::Result<Self> {
        let mut instances = Vec::new();
        for service in services {
            let text = http.get(format!("{}/metrics", service.internal)).send().await?.text().await?;
            instances.push(Instance {
                processor: processor(service.id())?,
                reconciliations: sum(&text, "amazon_pay_ipn_reconciliation_seconds_count"),
                charges: sum(&text, "amazon_pay_ipn_charges_sent_total"),
                lapsed: sum(&text, "amazon_pay_ipn_lease_lapsed_total"),
            });
        }
        let server: String = redis::cmd("INFO").arg("server").query_async(redis).await?;
        let id = server.lines().find_map(|line| line.strip_prefix("process_id:")).context("no process id")?;
        Ok(Self { instances, redis: processor(id.trim().parse()?)?, ourselves: processor(std::process::id())? })
    }

    pub fn since(&self, before: &Self) -> Used {
        let instances: Vec<Instance> = self
            .instances
            .iter()
            .zip(&before.instances)
            .map(|(now, then)| Instance {
                processor: now.processor.saturating_sub(then.processor),
                reconciliations: now.reconciliations - then.reconciliations,
                charges: now.charges - then.charges,
                lapsed: now.lapsed - then.lapsed,
            })
            .collect();
        let lapsed = instances.iter().map(|instance| instance.lapsed).sum();
        Used {
            instances,
            redis: self.redis.saturating_sub(before.redis),
            ourselves: self.ourselves.saturating_sub(before.ourselves),
            lapsed,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts")]
impl Used {
    /// `sent`: Create Charge requests that reached Amazon in that span.
    pub fn table(&self, sent: usize, span: Duration) -> String {
        let (seconds, reconciliations) = (span.as_secs_f64(), self.sum(|one| one.reconciliations));
        let processor: Duration = self.instances.iter().map(|one| one.processor).sum();
        let each = |span: Duration| span.as_secs_f64() * 1000.0 / reconciliations.max(1) as f64;
        let shares = |of: fn(&Instance) -> u64| {
            let all: Vec<u64> = self.instances.iter().map(of).collect();
            let (least, most) = (all.iter().min().copied().unwrap_or(0), all.iter().max().copied().unwrap_or(0));
            let parts: Vec<String> =
                all.iter().map(|one| format!("{:.1} %", 100.0 * *one as f64 / self.sum(of).max(1) as f64)).collect();
            format!("{} (least/most {:.2})", parts.join(", "), least as f64 / most.max(1) as f64)
        };
        format!(
            "    {reconciliations} reconciliations in {seconds:.1} s: {:.1}/s; {sent} sends: {:.1}/s\n    \
             processor time of a reconciliation: service {:.2} ms, Redis {:.2} ms; the local Amazon Pay {:.2} ms; cores busy with \
             these {:.2}\n    shares of the reconciliations: {}\n    shares of the sends: {}",
            reconciliations as f64 / seconds,
            sent as f64 / seconds,
            each(processor),
            each(self.redis),
            each(self.ourselves),
            (processor + self.redis + self.ourselves).as_secs_f64() / seconds,
            shares(|one| one.reconciliations),
            shares(|one| one.charges),
        )
    }

    fn sum(&self, of: fn(&Instance) -> u64) -> u64 {
        self.instances.iter().map(of).sum()
    }
}

/// The samples of a counter, of all its labels.
fn sum(metrics: &str, name: &str) -> u64 {
    let samples = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let samples = samples.filter(|rest| rest.starts_with([' ', '{']));
    samples.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

fn processor(process: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After the name, which stands in parentheses: the state, and 10 fields on the time in user mode and in the kernel.
    let rest = stat.rsplit_once(')').context("no name")?.1;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
}

/// From the first call to the last, by the clock of the local Amazon Pay.
pub fn span(ledger: &Ledger) -> Duration {
    let times = || ledger.requests.iter().map(|request| request.received_at);
    match (times().min(), times().max()) {
        (Some(first), Some(last)) => last.duration_since(first).unsigned_abs(),
        _ => Duration::ZERO,
    }
}

/// Calls of one operation beside a token bucket.
pub struct Spent {
    calls: usize,
    allowed: f64,
    /// Calls beyond what the bucket held when they came, at the worst moment.
    beyond: f64,
}

impl Spent {
    pub fn of(ledger: &Ledger, operation: Operation, limit: Limit) -> Self {
        let mut times: Vec<_> = ledger.requests_of(operation).iter().map(|request| request.received_at).collect();
        times.sort();
        let full = f64::from(limit.capacity);
        let (mut tokens, mut beyond, mut last) = (full, 0_f64, times.first().copied().unwrap_or_default());
        for at in &times {
            tokens = (tokens + limit.per_second * at.duration_since(last).as_secs_f64()).min(full) - 1.0;
            beyond = beyond.max(-tokens);
            last = *at;
        }
        let span = times.first().map_or(0.0, |first| last.duration_since(*first).as_secs_f64());
        Self { calls: times.len(), allowed: full + limit.per_second * span, beyond }
    }

    /// A token is taken a moment before its call arrives: up to a call of each kind may be on its way when the next token comes.
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    pub fn is_within(&self) -> bool {
        self.calls as f64 <= self.allowed + 1.0
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, allowed, beyond } = self;
        write!(f, "{calls} calls, allowed {allowed:.1}; at the worst moment {beyond:.2} before their token")
    }
}

/// Whether permissions take turns.
pub struct Turns {
    /// The most that one had when the last had its first.
    most: usize,
    /// When each permission had its first charge, as a part of the whole run: of the first, the median, the last.
    first: [f64; 3],
    permissions: usize,
}

impl Turns {
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    pub fn of(ledger: &Ledger, permissions: &[String]) -> Self {
        let sends = ledger.requests_of(Operation::CreateCharge);
        let (mut had, mut most, mut places) = (BTreeMap::<&str, usize>::new(), 0, Vec::new());
        for (place, send) in sends.iter().enumerate() {
            let Some(permission) = send.permission.as_deref() else { continue };
            let count = had.entry(permission).or_default();
            *count += 1;
            if *count == 1 {
                places.push(place);
                most = had.values().max().copied().unwrap_or(0);
            }
        }
        let part = |place: Option<&usize>| place.map_or(0.0, |place| *place as f64 / sends.len().max(1) as f64);
        let first = [places.first(), places.get(places.len() / 2), places.last()].map(part);
        Self { most, first, permissions: permissions.len() }
    }
}

impl fmt::Display for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, median, last] = self.first.map(|part| 100.0 * part);
        write!(
            f,
            "    turns of {} permissions: the first send of each lies at {first:.0} % of all sends (first), {median:.0} % (median), \
             {last:.0} % (last); when the last had its first, nobody had more than {}",
            self.permissions, self.most,
        )
    }
}
