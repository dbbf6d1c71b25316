//! One, two and three processes of the service on one Redis: what they get done together, who gets how much of it, whether they keep to one
//! budget, and what becomes of the work of one that is killed.
//!
//! Three kinds of run. *Speed*: Amazon's quota is taken out of the way, the machine is the limit. *Budget*: the local Amazon Pay throttles as
//! documented, the service has half of that, and the clock goes ten times as fast. *Killed*: slow answers, and one of three processes is
//! ended with SIGKILL in the middle of its work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amazon_pay_ipn::clock::Stopwatch;
use amazon_pay_ipn::model::ids::Environment;
use amazon_pay_ipn::model::quota::{Limits, Operation as Called, Share};
use amazon_pay_ipn::sandbox::{
    DeclineCode, Fault, Ledger, Operation, Outcome, PermissionSpec, SignatureVersion, Throttle,
};
use anyhow::{Context, bail};
use jiff::Timestamp;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::books;
use crate::meters::{self, Meter, Used};
use crate::world::{Service, TOKEN, Time, World};

const MOST: usize = 3;
/// What is submitted is due this much later, all at once.
const LATER: Duration = Duration::from_hours(1);
/// Nothing is due and nobody waits for so long: that was all.
const QUIET: Duration = Duration::from_millis(1500);
/// Between two looks whether it is, and between two moves of a clock that goes faster.
const LOOK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_mins(5);
/// How much faster the clock goes.
const FAST: u32 = 10;
const LEASE: Duration = Duration::from_mins(3);
/// Whoever holds a lease for longer than this, by the moved clock, has died: it is several times what a reconciliation takes here.
const NOBODY_WORKS_SO_LONG: Duration = Duration::from_secs(90);
/// An idle worker looks every 500 ms, and then it has work to do; by the moved clock.
const TAKEN_UP_WITHIN: Duration = Duration::from_secs(30);
const SLOW_ANSWER: Duration = Duration::from_millis(400);
/// How long they work before one is killed; the others have done the rest before its leases end, so that what it held waits for nobody.
const WORKS_FOR: Duration = Duration::from_secs(1);
/// With four charges each, at full speed: enough for ten seconds or so.
const PERMISSIONS: usize = if cfg!(debug_assertions) { 100 } else { 1000 };
/// Submissions at a time.
const CALLERS: usize = 16;
const SETTLE_DAYS: u64 = 100;

/// A run of its own: a Redis, a local Amazon Pay, some processes, and their work.
struct Run {
    world: World,
    services: Vec<Service>,
    http: reqwest::Client,
    redis: MultiplexedConnection,
    permissions: Vec<String>,
    /// Charges that were taken, with their permissions.
    charges: Vec<(String, String)>,
    acknowledged: Vec<String>,
    /// When everything was due.
    begun: Timestamp,
}

/// Keeps the buckets of the quota full while it lives.
struct NoQuota(Arc<AtomicBool>);

impl Drop for NoQuota {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// All of them, or those of one name.
pub async fn run(only: Option<&str>) -> anyhow::Result<bool> {
    let wanted = |name| only.is_none_or(|only| only == name);
    let mut held = true;
    for instances in (1..=MOST).filter(|_| wanted("speed")) {
        held &= speed(instances).await.with_context(|| format!("speed, {instances}"))?;
    }
    for instances in (1..=MOST).filter(|_| wanted("budget")) {
        held &= budget(instances).await.with_context(|| format!("budget, {instances}"))?;
    }
    if wanted("killed") {
        held &= killed().await.context("killed")?;
    }
    Ok(held)
}

async fn speed(instances: usize) -> anyhow::Result<bool> {
    println!("\n{instances} at full speed: no quota in the way");
    let mut run = Run::start(instances, "1").await?;
    run.submit(PERMISSIONS, 4).await?;
    // One answer of thirty does not arrive.
    for _ in 0..PERMISSIONS / 3 {
        (0..29).for_each(|_| run.world.sandbox.inject(Operation::CreateCharge, Fault::Delay(Duration::ZERO)));
        run.world.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    }
    let no_quota = run.without_quota().await?;
    let before = run.begin().await?;
    run.until_quiet(1).await?;
    let used = run.meter().await?.since(&before);
    let held = vec![run.tell(&used, 1)];
    run.conclude(held, no_quota).await
}

async fn budget(instances: usize) -> anyhow::Result<bool> {
    println!(
        "\n{instances} on one budget: half of what Amazon's sandbox allows, which throttles; the clock {FAST} times as fast"
    );
    let mut run = Run::start(instances, "0.5").await?;
    run.submit(60, 2).await?;
    run.world.sandbox.set_throttle(Some(Throttle::sandbox()));
    let before = run.begin().await?;
    run.until_quiet(FAST).await?;
    let used = run.meter().await?.since(&before);
    let mut held = vec![run.tell(&used, FAST)];
    let ledger = run.ledger();
    let limits = Limits::of(Environment::Sandbox, "0.5".parse::<Share>()?);
    for (operation, called) in
        [(Operation::CreateCharge, Called::CreateCharge), (Operation::GetChargePermission, Called::GetChargePermission)]
    {
        let spent = meters::Spent::of(&ledger, operation, limits.get(called));
        held.push((format!("{operation}: {spent}"), spent.is_within()));
    }
    let throttled: u64 = Operation::ALL.iter().map(|operation| run.world.sandbox.answers(*operation, 429)).sum();
    held.push((format!("answers 429: {throttled}"), throttled == 0));
    run.world.sandbox.set_throttle(None);
    let no_quota = run.without_quota().await?;
    run.conclude(held, no_quota).await
}

async fn killed() -> anyhow::Result<bool> {
    println!("\n{MOST} at work, and one is killed: answers take {SLOW_ANSWER:?}; the clock {FAST} times as fast");
    let mut run = Run::start(MOST, "1").await?;
    run.submit(60, 1).await?;
    (0..1500).for_each(|_| run.world.sandbox.inject(Operation::CreateCharge, Fault::Delay(SLOW_ANSWER)));
    let no_quota = run.without_quota().await?;
    run.begin().await?;
    let started = Stopwatch::start();
    while started.elapsed() < WORKS_FOR {
        run.pass(FAST).await?;
    }
    let mut held = vec![run.kill().await?];
    run.until_quiet(FAST).await?;
    let lost = run.world.said("the lease was lost during a reconciliation")?;
    let unheard = run.world.sandbox.ledger().requests.iter().filter(|request| request.replayed).count();
    println!(
        "    charges that Amazon had made when their process was killed, found by asking again under their key: {unheard}"
    );
    println!("    reconciliations that lost their lease: {lost}");
    held.push(("somebody was killed in the call".to_owned(), unheard > 0));
    run.world.sandbox.clear_faults();
    run.conclude(held, no_quota).await
}

impl Run {
    async fn start(instances: usize, share: &str) -> anyhow::Result<Self> {
        let settings = [("QUOTA_SHARE", share), ("JOURNAL_RETENTION", "400d"), ("WORKERS", "4")];
        let world = World::start(Time::Movable, &settings).await?;
        let services = (0..instances).map(|place| world.serve(&name(place), None)).collect::<Result<_, _>>()?;
        Ok(Self {
            services,
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?,
            redis: world.connection().await?,
            begun: world.sandbox.now(),
            world,
            permissions: Vec::new(),
            charges: Vec::new(),
            acknowledged: Vec::new(),
        })
    }

    /// So many permissions with so many charges each, all due at one moment later on.
    async fn submit(&mut self, permissions: usize, each: usize) -> anyhow::Result<()> {
        let due = self.world.sandbox.now().saturating_add(LATER)?;
        let mut callers = JoinSet::<anyhow::Result<()>>::new();
        for place in 0..permissions {
            let permission = self.world.sandbox.create_permission(PermissionSpec::recurring("USD"));
            if let Some(decline) = decline_of(place) {
                self.world.sandbox.script_charge(&permission, Outcome::Decline(decline))?;
            }
            for charge in 0..each {
                let id = format!("instances-{place}-{charge}");
                let body = json!({
                    "id": id, "chargePermissionId": permission, "captureNow": true, "notBefore": due,
                    "chargeAmount": { "amount": "14.00", "currencyCode": "USD" },
                });
                let url = format!("{}/v1/charges", self.services[place % self.services.len()].internal);
                let request = self.http.post(url).bearer_auth(TOKEN).header("content-type", "application/json");
                if callers.len() >= CALLERS {
                    callers.join_next().await.context("a caller")???;
                }
                callers.spawn(async move {
                    let answer = request.body(body.to_string()).send().await?;
                    if answer.status() != 202 {
                        bail!("a submission was answered {}: {}", answer.status(), answer.text().await?);
                    }
                    Ok(())
                });
                self.charges.push((id, permission.clone()));
            }
            self.permissions.push(permission);
        }
        callers.join_all().await.into_iter().collect()
    }

    /// A bucket that is missing is full.
    async fn without_quota(&self) -> anyhow::Result<NoQuota> {
        let over = Arc::new(AtomicBool::new(false));
        let (key, mut redis, ends) = (self.world.key("quota"), self.world.connection().await?, Arc::clone(&over));
        tokio::spawn(async move {
            let buckets = Called::ALL.map(Called::as_str);
            while !ends.load(Ordering::SeqCst) {
                let _: Result<u64, _> = redis::cmd("HDEL").arg(&key).arg(&buckets).query_async(&mut redis).await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Ok(NoQuota(over))
    }

    /// A little time, by a clock that goes so many times as fast.
    async fn pass(&mut self, times: u32) -> anyhow::Result<()> {
        let started = Stopwatch::start();
        tokio::time::sleep(LOOK).await;
        if times > 1 {
            self.world.advance(started.elapsed() * (times - 1))?;
        }
        Ok(())
    }

    /// Until nothing is due or under way and nobody waits for quota.
    async fn until_quiet(&mut self, times: u32) -> anyhow::Result<()> {
        let (started, mut quiet) = (Stopwatch::start(), Stopwatch::start());
        while quiet.elapsed() < QUIET {
            self.pass(times).await?;
            let now = self.world.sandbox.now().as_millisecond();
            let (due, waiting): (u64, u64) = redis::pipe()
                .zcount(self.world.key("schedule"), "-inf", now)
                .zcard(self.world.key("waiting"))
                .query_async(&mut self.redis)
                .await?;
            if due + waiting > 0 || !self.leases().await?.is_empty() {
                quiet = Stopwatch::start();
            }
            if started.elapsed() > PATIENCE {
                bail!("{due} due, {waiting} wait, and it does not end");
            }
        }
        Ok(())
    }

    /// Everything is due at once.
    async fn begin(&mut self) -> anyhow::Result<Meter> {
        let meter = self.meter().await?;
        self.world.advance(LATER + Duration::from_secs(1))?;
        self.begun = self.world.sandbox.now();
        Ok(meter)
    }

    /// What came since then: at its submission each permission was looked at.
    fn ledger(&self) -> Ledger {
        let mut ledger = self.world.sandbox.ledger();
        ledger.requests.retain(|request| request.received_at >= self.begun);
        ledger
    }

    async fn meter(&mut self) -> anyhow::Result<Meter> {
        Meter::read(&self.services, &self.http, &mut self.redis).await
    }

    /// Prints what was used for what; whether nobody lost a lease, if the clock goes as it should.
    fn tell(&self, used: &Used, times: u32) -> (String, bool) {
        let ledger = self.ledger();
        let span = meters::span(&ledger) / times;
        let charges = ledger.requests_of(Operation::CreateCharge).len();
        println!("{}", used.table(charges, span));
        println!("{}", meters::Turns::of(&ledger, &self.permissions));
        let lost = used.lapsed + self.world.said("the lease was lost during a reconciliation").unwrap_or(u64::MAX);
        // By a faster clock it says how busy the machine is.
        (format!("leases lost or lapsed: {lost}"), lost == 0 || times > 1)
    }

    /// Kills one of them and looks how long what it held is held.
    async fn kill(&mut self) -> anyhow::Result<(String, bool)> {
        self.services.pop().context("somebody to kill")?.kill()?;
        let killed_at = self.world.sandbox.now();
        let mut held = self.leases().await?;
        let mut ends: Vec<Duration> = Vec::new();
        let patience = Stopwatch::start();
        while !held.is_empty() {
            self.pass(FAST).await?;
            let now = self.leases().await?;
            let since = self.world.sandbox.now().duration_since(killed_at).unsigned_abs();
            let before = held.len();
            held.retain(|permission, token| now.get(permission) == Some(token));
            ends.extend(std::iter::repeat_n(since, before - held.len()));
            if patience.elapsed() > PATIENCE {
                bail!("{} leases of the dead do not end", held.len());
            }
        }
        let of_the_dead: Vec<Duration> = ends.into_iter().filter(|end| *end > NOBODY_WORKS_SO_LONG).collect();
        let last = of_the_dead.iter().max().copied().unwrap_or_default();
        let text = format!(
            "one of {MOST} was killed holding {}; the others had taken up all of it {:.0} s later, by the moved clock (lease {} s)",
            of_the_dead.len(),
            last.as_secs_f64(),
            LEASE.as_secs(),
        );
        Ok((text, !of_the_dead.is_empty() && last <= LEASE + TAKEN_UP_WITHIN))
    }

    /// The token of each permission that is leased.
    async fn leases(&mut self) -> anyhow::Result<BTreeMap<usize, String>> {
        let mut pipe = redis::pipe();
        for permission in &self.permissions {
            pipe.hget(self.world.key(&format!("permission:{permission}")), "lease_token");
        }
        let tokens: Vec<Option<String>> = pipe.query_async(&mut self.redis).await?;
        Ok(tokens.into_iter().enumerate().filter_map(|(place, token)| Some((place, token?))).collect())
    }

    /// Days pass until every charge has ended, buyers mend their cards; then all books are compared.
    async fn conclude(mut self, mut held: Vec<(String, bool)>, no_quota: NoQuota) -> anyhow::Result<bool> {
        for day in 0..SETTLE_DAYS {
            if day % 5 == 1 {
                self.mend_cards()?;
                self.deliver().await?;
            }
            for _ in 0..4 {
                self.world.advance(Duration::from_hours(6))?;
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            if day % 10 == 9 && self.open().await?.is_empty() {
                break;
            }
        }
        self.deliver().await?;
        self.until_quiet(1).await?;
        drop(no_quota);
        let audit = books::Audit {
            ledger: self.world.sandbox.ledger(),
            charges: &self.charges,
            acknowledged: &self.acknowledged,
            http: &self.http,
            internal: &self.services[0].internal,
        };
        held.extend(audit.ends_and_journal(self.redis.clone(), &self.world.key("")).await?);
        for (what, holds) in &held {
            println!("{} {what}", if *holds { "ok    " } else { "BROKEN" });
        }
        for service in self.services {
            service.terminate().await?;
        }
        Ok(held.iter().all(|(_, holds)| *holds))
    }

    async fn open(&self) -> anyhow::Result<Vec<String>> {
        let mut open = Vec::new();
        for state in ["scheduled", "parked", "pending", "authorized", "held"] {
            let url = format!("{}/v1/charges?state={state}", self.services[0].internal);
            let list: Value = serde_json::from_str(&self.http.get(url).bearer_auth(TOKEN).send().await?.text().await?)?;
            let charges = list["charges"].as_array().with_context(|| format!("{list}"))?;
            open.extend(charges.iter().map(|charge| charge["id"].to_string()));
        }
        Ok(open)
    }

    fn mend_cards(&self) -> anyhow::Result<()> {
        for (place, permission) in self.permissions.iter().enumerate() {
            if decline_of(place) == Some(DeclineCode::HardDeclined) {
                self.world.sandbox.buyer_updates_instrument(permission, &format!("Visa ****{:04}", place % 10_000))?;
            }
        }
        Ok(())
    }

    async fn deliver(&mut self) -> anyhow::Result<()> {
        for (place, ipn) in self.world.sandbox.notifications().into_iter().enumerate() {
            let message = self.world.sandbox.sign(&ipn, SignatureVersion::V2);
            let url = format!("http://{}/ipn", self.services[place % self.services.len()].public);
            let request = self.http.post(url).body(message.body.clone());
            let request = message.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
            let status = request.send().await?.status();
            if status != 200 {
                bail!("a genuine notification was answered {status}");
            }
            self.acknowledged.push(message.message_id);
        }
        Ok(())
    }
}

fn name(place: usize) -> String {
    format!("instance-{}", place + 1)
}

/// What Amazon says to the first charge of a permission: seven of ten are captured.
fn decline_of(place: usize) -> Option<DeclineCode> {
    match place % 10 {
        3 => Some(DeclineCode::SoftDeclined),
        6 => Some(DeclineCode::HardDeclined),
        9 => Some(DeclineCode::ProcessingFailure),
        _ => None,
    }
}
