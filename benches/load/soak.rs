//! Mixed traffic for a long time, with restarts, crashes and faults: memory, tasks, connections and keys do not grow, and in the end all
//! books agree.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use amazon_pay_ipn::clock::Stopwatch;
use amazon_pay_ipn::sandbox::{
    ChargeState, DeclineCode, Fault, Forgery, NotificationType, ObjectType, Operation, Outcome, PermissionSpec,
    SignatureVersion, SignedMessage,
};
use amazon_pay_ipn::telemetry::metric;
use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::books;
use crate::world::{Holds, Service, TOKEN, Time, World};

const ROUND: Duration = Duration::from_secs(5);
/// Shorter than a lease, so that work in hand is not overtaken by the clock.
const JUMP: Duration = Duration::from_secs(150);
const JUMPS_A_ROUND: u32 = 48;
const SUBMISSIONS_A_ROUND: usize = 12;
/// Rounds between two restarts of the restless instance, and of Redis.
const RESTART_EVERY: u64 = 17;
const CRASH_REDIS_EVERY: u64 = 53;
const SETTLE_DAYS: u64 = 75;

/// xorshift64*: the same choices in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

struct Soak {
    world: World,
    steady: Service,
    restless: Option<Service>,
    http: reqwest::Client,
    dice: Dice,
    /// Charges that were taken, with their permissions.
    charges: Vec<(String, String)>,
    /// Submissions without an answer: their caller repeats them.
    unanswered: Vec<Value>,
    undelivered: VecDeque<SignedMessage>,
    acknowledged: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

pub async fn run(minutes: u64) -> anyhow::Result<bool> {
    let quota = [("QUOTA_SHARE", "1"), ("JOURNAL_RETENTION", "400d"), ("WORKERS", "4")];
    let world = World::start(Time::Movable, &quota).await?;
    let steady = world.serve("steady", None)?;
    let restless = Some(world.serve("restless", None)?);
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
    let mut soak = Soak {
        world,
        steady,
        restless,
        http,
        dice: Dice(0x5eed),
        charges: Vec::new(),
        unanswered: Vec::new(),
        undelivered: VecDeque::new(),
        acknowledged: Vec::new(),
        counts: BTreeMap::new(),
    };
    let (started, span) = (Stopwatch::start(), Duration::from_secs(60 * minutes));
    let mut samples = Vec::new();
    let mut round = 0;
    while started.elapsed() < span {
        round += 1;
        let within = Stopwatch::start();
        soak.round(round).await.with_context(|| format!("round {round}"))?;
        tokio::time::sleep(ROUND.saturating_sub(within.elapsed())).await;
        if round % 12 == 0 {
            let sample = soak.sample().await?;
            println!(
                "{:>4.0} min, day {:>3}: {} KiB, {} tasks, {} files, {} threads; Redis {} clients, {} keys; {} charges, {} notifications",
                started.elapsed().as_secs_f64() / 60.0,
                soak.world.advanced().as_secs() / 86_400,
                sample.holds.rss_kib,
                sample.tasks,
                sample.holds.files,
                sample.holds.threads,
                sample.clients,
                sample.keys,
                soak.charges.len(),
                soak.acknowledged.len(),
            );
            samples.push(sample);
        }
    }
    soak.settle().await?;
    let end = soak.sample().await?;
    println!("{} rounds: {:?}", round, soak.counts);
    let mut held = flat(&samples, &end);
    let connection = soak.world.connection().await?;
    let audit = books::Audit {
        ledger: soak.world.sandbox.ledger(),
        charges: &soak.charges,
        acknowledged: &soak.acknowledged,
        http: &soak.http,
        internal: &soak.steady.internal,
    };
    held.extend(audit.all(connection, &soak.world.key("")).await?);
    for (what, holds) in &held {
        println!("{} {what}", if *holds { "ok    " } else { "BROKEN" });
    }
    if let Some(restless) = soak.restless.take() {
        restless.terminate().await?;
    }
    soak.steady.terminate().await?;
    Ok(held.iter().all(|(_, holds)| *holds))
}

/// What is held at a moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Of the instance that is never restarted.
    holds: Holds,
    tasks: u64,
    clients: u64,
    keys: u64,
}

fn flat(samples: &[Sample], end: &Sample) -> Vec<(String, bool)> {
    let quarter = samples.len() / 4;
    if quarter == 0 {
        return vec![("the run was long enough to judge what grows (4 minutes)".to_owned(), false)];
    }
    let (early, late) = (&samples[quarter..2 * quarter], &samples[samples.len() - quarter..]);
    let most = |part: &[Sample], of: fn(&Sample) -> u64| part.iter().map(of).max().unwrap_or(0);
    let mut held = Vec::new();
    let mut judge = |name: &str, of: fn(&Sample) -> u64, more: u64| {
        let (before, after) = (most(early, of), most(late, of));
        let text =
            format!("{name}: at most {before} in the second quarter, {after} in the last, {} in the end", of(end));
        held.push((text, after <= before + more));
    };
    judge("resident KiB", |sample| sample.holds.rss_kib, most(early, |sample| sample.holds.rss_kib) / 8);
    judge("tasks", |sample| sample.tasks, 32);
    judge("open files", |sample| sample.holds.files as u64, 32);
    judge("threads", |sample| sample.holds.threads, 2);
    judge("clients of Redis", |sample| sample.clients, 8);
    held
}

impl Soak {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.dice.roll(100) < percent
    }

    /// One of the instances that run.
    fn instance(&mut self) -> &Service {
        let one = self.dice.roll(2) == 0;
        match &self.restless {
            Some(restless) if one => restless,
            _ => &self.steady,
        }
    }

    async fn round(&mut self, round: u64) -> anyhow::Result<()> {
        self.disturb(round).await?;
        for repeated in std::mem::take(&mut self.unanswered) {
            self.submit(repeated).await?;
        }
        for number in 0..SUBMISSIONS_A_ROUND {
            let body = self.new_charge(&format!("soak-{round}-{number}"))?;
            self.submit(body).await?;
        }
        for _ in 0..JUMPS_A_ROUND {
            self.world.advance(JUMP)?;
            tokio::time::sleep(ROUND / (2 * JUMPS_A_ROUND)).await;
        }
        self.people().await?;
        self.decide_late_captures()?;
        self.deliver().await?;
        self.strangers().await?;
        self.look().await
    }

    /// Restarts, crashes and faults.
    async fn disturb(&mut self, round: u64) -> anyhow::Result<()> {
        if round.is_multiple_of(RESTART_EVERY) {
            if let Some(restless) = self.restless.take() {
                if self.chance(50) {
                    restless.terminate().await?;
                    self.count("restarts in order");
                } else {
                    restless.kill()?;
                    self.count("kill -9 of the service");
                }
            }
            self.restless = Some(self.world.serve("restless", None)?);
        }
        if round.is_multiple_of(CRASH_REDIS_EVERY) {
            self.world.redis.kill();
            self.count("kill -9 of Redis");
            self.strangers().await?;
            self.world.redis.start_again()?;
        }
        let fault = match self.dice.roll(12) {
            0 => Fault::DropAfter,
            1 => Fault::DropBefore,
            2 => Fault::status(500, "InternalServerError"),
            3 => Fault::status(429, "TooManyRequests"),
            4 => Fault::StatusAfter(503, "ServiceUnavailable".to_owned()),
            5 => Fault::Garbled,
            6 => Fault::Delay(Duration::from_millis(1500)),
            _ => return Ok(()),
        };
        let operations =
            [Operation::CreateCharge, Operation::GetChargePermission, Operation::GetCharge, Operation::CaptureCharge];
        let which = usize::try_from(self.dice.roll(4)).unwrap_or(0);
        self.world.sandbox.inject(operations[which], fault);
        self.count("faults of Amazon");
        Ok(())
    }

    fn new_charge(&mut self, id: &str) -> anyhow::Result<Value> {
        let sandbox = self.world.sandbox.clone();
        let permission = sandbox.create_permission(PermissionSpec::recurring("USD"));
        let mut body = json!({
            "id": id, "chargePermissionId": permission, "captureNow": true,
            "chargeAmount": { "amount": "14.00", "currencyCode": "USD" },
        });
        let outcomes: Vec<Outcome> = match self.dice.roll(20) {
            0..=9 => vec![],
            10 | 11 => vec![Outcome::Decline(DeclineCode::SoftDeclined)],
            12 => vec![Outcome::Decline(DeclineCode::SoftDeclined); 5],
            13 => vec![Outcome::Decline(DeclineCode::TransactionTimedOut)],
            14 => vec![Outcome::Decline(DeclineCode::ProcessingFailure)],
            15 | 16 => vec![Outcome::Decline(DeclineCode::HardDeclined)],
            17 => vec![Outcome::Decline(DeclineCode::AmazonRejected)],
            18 => {
                body["canHandlePendingAuthorization"] = true.into();
                vec![Outcome::PendThen(None)]
            }
            _ => {
                body["captureNow"] = false.into();
                vec![]
            }
        };
        for outcome in outcomes {
            sandbox.script_charge(&permission, outcome)?;
        }
        Ok(body)
    }

    async fn submit(&mut self, body: Value) -> anyhow::Result<()> {
        let url = format!("{}/v1/charges", self.instance().internal);
        match self.call(reqwest::Method::POST, &url, Some(&body)).await {
            Some(200 | 202) => {
                let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
                self.charges.push((text("id"), text("chargePermissionId")));
                self.count("charges");
            }
            None | Some(503) => {
                self.unanswered.push(body);
                self.count("submissions repeated");
            }
            Some(status) => bail!("a submission was answered {status}: {body}"),
        }
        Ok(())
    }

    async fn call(&self, method: reqwest::Method, url: &str, body: Option<&Value>) -> Option<u16> {
        let mut request = self.http.request(method, url).bearer_auth(TOKEN);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        // Read to its end, so that the connection can be used again.
        answer.bytes().await.ok()?;
        Some(status)
    }

    /// What buyers and the merchant's people do.
    async fn people(&mut self) -> anyhow::Result<()> {
        for _ in 0..6 {
            if self.charges.is_empty() {
                return Ok(());
            }
            // Mostly what is still open: the newest.
            let newest = self.charges.len().min(1200) as u64;
            let place = self.charges.len() - 1 - usize::try_from(self.dice.roll(newest)).unwrap_or(0);
            let (id, permission) = self.charges[place].clone();
            let internal = self.instance().internal.clone();
            let charge = format!("{internal}/v1/charges/{id}");
            let sandbox = self.world.sandbox.clone();
            // What the answer is depends on how far the charge has come; the books are judged in the end.
            let _: Option<u16> = match self.dice.roll(9) {
                0 => sandbox.buyer_closes(&permission).ok().map(|()| 0),
                1 => sandbox.buyer_deletes_instrument(&permission).ok().map(|()| 0),
                2..=4 => {
                    let card = format!("Visa ****{:04}", place % 10_000);
                    sandbox.buyer_updates_instrument(&permission, &card).ok().map(|()| 0)
                }
                5 => self.call(reqwest::Method::DELETE, &charge, None).await,
                6 => self.call(reqwest::Method::POST, &format!("{charge}/retry"), Some(&json!({}))).await,
                7 => {
                    let body = json!({"captureAmount": {"amount": "14.00", "currencyCode": "USD"}});
                    self.call(reqwest::Method::POST, &format!("{charge}/capture"), Some(&body)).await
                }
                _ => {
                    let close = format!("{internal}/v1/charge-permissions/{permission}/close");
                    let body = json!({"closureReason": "The soak ends it", "cancelPendingCharges": true});
                    self.call(reqwest::Method::POST, &close, Some(&body)).await
                }
            };
            self.count("acts of people");
        }
        Ok(())
    }

    /// An authorisation that is captured late pends until Amazon decides; one that it never decided would rightly be held in the end.
    fn decide_late_captures(&self) -> anyhow::Result<()> {
        let sandbox = &self.world.sandbox;
        for charge in sandbox.ledger().charges.iter().filter(|charge| charge.state == ChargeState::CaptureInitiated) {
            sandbox.finish_pending(&charge.charge_id, ChargeState::Captured, None)?;
        }
        Ok(())
    }

    /// Notifications: most at once, some twice, some late, some never.
    async fn deliver(&mut self) -> anyhow::Result<()> {
        let mut now: Vec<SignedMessage> = self.undelivered.drain(..).collect();
        for ipn in self.world.sandbox.notifications() {
            let message = self.world.sandbox.sign(&ipn, SignatureVersion::V1);
            match self.dice.roll(20) {
                0 | 1 => self.count("notifications lost"),
                2 | 3 => self.undelivered.push_back(message),
                4 => now.extend([message.clone(), message]),
                _ => now.push(message),
            }
        }
        for message in now {
            match self.post(&message).await {
                Some(200) => self.acknowledged.push(message.message_id),
                None | Some(503) => {
                    self.undelivered.push_back(message);
                    self.count("deliveries repeated");
                }
                Some(status) => bail!("a genuine notification was answered {status}"),
            }
        }
        Ok(())
    }

    async fn post(&mut self, message: &SignedMessage) -> Option<u16> {
        let url = format!("http://{}/ipn", self.instance().public);
        let mut request = self.http.post(url).body(message.body.clone());
        for (name, value) in &message.headers {
            request = request.header(name, value);
        }
        Some(request.send().await.ok()?.status().as_u16())
    }

    /// Forgeries, rubbish, and a notification that names nothing known.
    async fn strangers(&mut self) -> anyhow::Result<()> {
        let permission = "C01-1234567-1234567";
        let ipn = self.world.sandbox.ipn(
            (ObjectType::ChargePermission, permission),
            permission,
            NotificationType::StateChange,
        );
        for forgery in [Forgery::OtherKey, Forgery::UntrustedCertificate, Forgery::ForeignTopic, Forgery::Altered] {
            let message = self.world.sandbox.forge(&ipn, forgery)?;
            if let Some(status @ (200..300 | 500..503)) = self.post(&message).await {
                bail!("a forgery ({forgery:?}) was answered {status}");
            }
            self.count("forgeries");
        }
        for body in ["", "{", "[]", "{\"Type\":\"Notification\"}", "\u{fffd}"] {
            let url = format!("http://{}/ipn", self.instance().public);
            if let Some(status) = self.call(reqwest::Method::POST, &url, Some(&json!(body))).await
                && status != 400
            {
                bail!("rubbish was answered {status}");
            }
            self.count("rubbish");
        }
        Ok(())
    }

    /// What dashboards and on-call engineers read.
    async fn look(&mut self) -> anyhow::Result<()> {
        for path in ["/metrics", "/readyz", "/v1/quota", "/v1/charges?state=parked", "/v1/charges?state=scheduled"] {
            let url = format!("{}{path}", self.instance().internal);
            self.call(reqwest::Method::GET, &url, None).await;
            self.count("reads");
        }
        Ok(())
    }

    async fn sample(&mut self) -> anyhow::Result<Sample> {
        let text = self.http.get(format!("{}/metrics", self.steady.internal)).send().await?.text().await?;
        let tasks = text.lines().find_map(|line| line.strip_prefix(metric::TASKS)).map(str::trim);
        let tasks = tasks.and_then(|number| number.parse().ok());
        let mut redis = self.world.connection().await?;
        let clients: String = redis::cmd("INFO").arg("clients").query_async(&mut redis).await?;
        let clients = clients.lines().find_map(|line| line.strip_prefix("connected_clients:"));
        Ok(Sample {
            holds: self.steady.holds()?,
            tasks: tasks.context("no metric of tasks")?,
            clients: clients.and_then(|number| number.trim().parse().ok()).unwrap_or(0),
            keys: redis::cmd("DBSIZE").query_async(&mut redis).await?,
        })
    }

    /// No more faults and no new work: the clock goes on until nothing is left to do.
    async fn settle(&mut self) -> anyhow::Result<()> {
        println!("no more faults; {SETTLE_DAYS} days pass");
        self.world.sandbox.clear_faults();
        for hour in 0..SETTLE_DAYS * 24 {
            self.world.advance(Duration::from_hours(1))?;
            tokio::time::sleep(Duration::from_millis(60)).await;
            if hour % 24 == 0 {
                for repeated in std::mem::take(&mut self.unanswered) {
                    self.submit(repeated).await?;
                }
                self.deliver().await?;
            }
        }
        Ok(())
    }
}
