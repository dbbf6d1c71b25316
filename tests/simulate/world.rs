//! The world of one run: a private Redis, the sandbox, one to three instances of the service in this process, two clocks (ours and
//! Amazon's), letters that are not delivered yet, and workers that stand still.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use amazon_pay_ipn::amazon_pay::ClientSettings;
use amazon_pay_ipn::app::App;
use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::config::Settings;
use amazon_pay_ipn::model::ids::{Account, Environment, Region};
use amazon_pay_ipn::model::quota::{Limit, Limits};
use amazon_pay_ipn::reconciler::Reconciler;
use amazon_pay_ipn::recovery::policies::Policies;
use amazon_pay_ipn::recovery::policy::Policy;
use amazon_pay_ipn::sandbox::redis_server::RedisServer;
use amazon_pay_ipn::sandbox::{Gate, Ipn, Reading, Sandbox, SandboxSettings, SignedMessage};
use amazon_pay_ipn::sns::SnsSettings;
use amazon_pay_ipn::store::account::{Init, Initialised};
use amazon_pay_ipn::store::{Bounds, Replicas, Store, StoreSettings, TlsSettings};
use metrics_exporter_prometheus::PrometheusHandle;
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::auditor::{Violations, audit, audit_end, double_charges, read_tag, tag_of};
use crate::dice::Dice;
use crate::evidence::{Deeds, Event, Evidence, Place, Rules, place};
use crate::hold::{Held, Place as HeldAt, Stop};

pub const TOKEN: &str = "a-token-for-the-simulation-only";
pub const DAY: Duration = Duration::from_hours(24);
/// X of the simulation.
pub const X: Duration = Duration::from_mins(30);
/// How long a run may take, in real time: many times what one takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(5);
const LEASE: Duration = Duration::from_mins(3);
const YEARS: Duration = Duration::from_hours(20 * 365 * 24);

/// What a run is like, drawn from its seed.
#[derive(Debug, Clone)]
pub struct Profile {
    pub seed: u64,
    pub instances: usize,
    pub reading: Reading,
    pub max_attempts: u32,
    /// Tokens and tokens per second of each operation.
    pub quota: Option<(u32, f64)>,
    /// Nobody stands still, dies, or has another time: then each call can be counted against the quota.
    pub steady: bool,
    /// Hints of one permission at most, where they are scarce.
    pub hints: Option<usize>,
    /// How far Amazon lets a request's date be from now.
    pub tolerance: Duration,
    /// Time-out of a call to Amazon, in real time: with its margin well within a lease, and so long that nothing that stands still ends by it.
    pub timeout: Duration,
    /// Requests arrive later than the protocol assumes.
    pub beyond: bool,
    pub operations: usize,
}

impl Profile {
    pub fn draw(seed: u64, instances: Option<usize>, beyond: bool, dice: &mut Dice) -> Self {
        let drawn = dice.weighted(&[(4, 1), (4, 2), (3, 3)]);
        let quota = if dice.percent(20) { Some(*dice.pick(&[(6, 0.5), (8, 1.0), (12, 2.0)])) } else { None };
        Self {
            seed,
            instances: instances.unwrap_or(drawn),
            reading: *dice.pick(&[Reading::ReplayAll, Reading::ReEvaluate, Reading::ReEvaluate, Reading::StatusFirst]),
            max_attempts: dice.weighted(&[(5, 5), (2, 3), (1, 2)]),
            quota,
            steady: quota.is_some() && dice.percent(50),
            hints: if dice.percent(12) { Some(2) } else { None },
            tolerance: Duration::from_mins(dice.weighted(&[(3, 5), (1, 15), (1, 20)])),
            timeout: Duration::from_secs(90),
            beyond,
            operations: usize::try_from(dice.between(10, 40)).unwrap_or(30),
        }
    }
}

/// One process of the service.
pub struct Instance {
    pub reconciler: Reconciler,
    pub public: String,
    internal: String,
    stop: CancellationToken,
    served: JoinHandle<anyhow::Result<()>>,
    /// Steps that may fail because its connections to Redis were cut.
    pub excused: u32,
}

/// A message that SNS has not got rid of yet.
#[derive(Clone)]
pub struct Letter {
    pub message: SignedMessage,
    pub ipn: Ipn,
}

/// A charge as its caller knows it.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub id: String,
    pub permission: String,
    pub body: Value,
    pub attempts_before: u64,
    /// Nobody has answered 202 yet: the caller submits it again.
    pub accepted: bool,
}

/// What the service answered.
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

pub struct World {
    pub profile: Profile,
    pub dice: Dice,
    pub redis: RedisServer,
    pub redis_is_up: bool,
    pub sandbox: Sandbox,
    /// Ours and Redis'.
    pub clock: Clock,
    pub amazon: Clock,
    /// How far Amazon's clock is ahead of ours (s).
    pub skew_s: i64,
    pub instances: Vec<Instance>,
    pub http: reqwest::Client,
    pub settings: Settings,
    pub permissions: Vec<String>,
    pub wanted: Vec<Wanted>,
    pub letters: Vec<Letter>,
    /// Workers that stand still.
    pub held: Vec<Held>,
    /// Requests that arrive when these are released, their client having gone.
    pub late: Vec<Gate>,
    /// The same of requests that Amazon is working on.
    pub inside: Vec<Gate>,
    pub stopped: bool,
    pub paused: Vec<String>,
    /// SNS loses what is published until then.
    pub outage: bool,
    pub deeds: Deeds,
    pub log: Vec<String>,
    pub counts: BTreeMap<String, u64>,
    pub violations: Violations,
    connection: Option<MultiplexedConnection>,
    prefix: String,
    started_ms: i64,
}

impl World {
    pub async fn start(profile: Profile, dice: Dice, metrics: &PrometheusHandle) -> Self {
        let redis = RedisServer::start().expect("a private Redis");
        let (clock, amazon) = (Clock::movable(), Clock::movable());
        let session = u32::try_from(profile.seed % 10_000_000).unwrap_or_default();
        let sandbox = Sandbox::start(SandboxSettings {
            reading: profile.reading,
            date_tolerance: profile.tolerance,
            session: Some(session),
            ..SandboxSettings::new(amazon.clone())
        });
        let sandbox = sandbox.await.expect("the sandbox");
        let settings = settings(&redis, &sandbox, &profile);
        let store = Store::connect(settings.store.clone(), settings.account.clone(), clock.clone()).expect("the store");
        assert!(matches!(store.init(Init::First).await.expect("init"), Initialised::Done { .. }));
        let prefix = store.keys().events().trim_end_matches("events").to_owned();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(1)).build().expect("a client");
        let started_ms = clock.now().as_millisecond();
        let mut world = Self {
            profile,
            dice,
            redis,
            redis_is_up: true,
            sandbox,
            clock,
            amazon,
            skew_s: 0,
            instances: Vec::new(),
            http,
            settings,
            permissions: Vec::new(),
            wanted: Vec::new(),
            letters: Vec::new(),
            held: Vec::new(),
            late: Vec::new(),
            inside: Vec::new(),
            stopped: false,
            paused: Vec::new(),
            outage: false,
            deeds: Deeds::default(),
            log: Vec::new(),
            counts: BTreeMap::new(),
            violations: Violations::new(),
            connection: None,
            prefix,
            started_ms,
        };
        for _ in 0..world.profile.instances {
            let instance = world.new_instance(metrics).await;
            world.instances.push(instance);
        }
        world
    }

    pub async fn new_instance(&self, metrics: &PrometheusHandle) -> Instance {
        let app = App::start(self.settings.clone(), self.clock.clone(), metrics.clone()).await;
        let app = app.expect("the service starts");
        let public = format!("http://{}", app.public_addr().expect("an address"));
        let internal = format!("http://{}", app.internal_addr().expect("an address"));
        let (reconciler, stop) = (app.reconciler(), CancellationToken::new());
        let served = tokio::spawn(app.serve_until(stop.clone().cancelled_owned()));
        Instance { reconciler, public, internal, stop, served, excused: 0 }
    }

    /// Ends an instance and starts another in its place.
    pub async fn restart(&mut self, at: usize, gracefully: bool, metrics: &PrometheusHandle) {
        let instance = &self.instances[at];
        instance.stop.cancel();
        if gracefully {
            // Its workers see the shutdown before their next call, and finish what they have sent.
            for held in self.held.extract_if(.., |held| held.instance == at).collect::<Vec<_>>() {
                held.release();
                let _ = held.task.await;
            }
        } else {
            for held in self.held.extract_if(.., |held| held.instance == at) {
                self.deeds.interrupted = true;
                held.task.abort();
                // What it sent is on its way, or was answered to nobody.
                match held.stop {
                    Stop::Gate(gate, HeldAt::Inside) if !self.profile.beyond => self.inside.push(gate),
                    Stop::Gate(gate, _) => self.late.push(gate),
                    Stop::Brake(_) => {}
                }
            }
            instance.served.abort();
        }
        let fresh = self.new_instance(metrics).await;
        let old = std::mem::replace(&mut self.instances[at], fresh);
        if gracefully {
            match old.served.await {
                Ok(Ok(())) => {}
                other => self.violations.push(format!("an instance did not stop in order: {other:?}")),
            }
        }
    }

    /// Notes what is done, by Amazon's clock since the start.
    pub fn say(&mut self, what: impl AsRef<str>) {
        let ms = self.amazon.now().as_millisecond() - self.started_ms;
        let (days, seconds) = (ms / 86_400_000, (ms % 86_400_000) / 1000);
        let time = format!("{days:>3}d {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        self.log.push(format!("{time}  {}", what.as_ref()));
    }

    /// Counts a fault or an operation by its kind.
    pub fn count(&mut self, kind: &str) {
        *self.counts.entry(kind.to_owned()).or_default() += 1;
    }

    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.amazon.advance(by);
    }

    /// Any instance.
    pub fn any(&mut self) -> usize {
        self.dice.below(self.instances.len())
    }

    pub async fn api(&mut self, method: reqwest::Method, path: &str, body: Option<&Value>) -> Answer {
        let at = self.any();
        let url = format!("{}{path}", self.instances[at].internal);
        let mut request = self.http.request(method.clone(), url).bearer_auth(TOKEN);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                let text = response.text().await.unwrap_or_default();
                Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
            }
            Err(error) => {
                self.violations.push(format!("{method} {path} was not answered: {error}"));
                Answer { status: 0, body: Value::Null }
            }
        };
        let excused = !self.redis_is_up || self.instances[at].excused > 0;
        let allowed = matches!(answer.status, 0 | 200 | 202 | 404 | 409) || (answer.status == 503 && excused);
        if answer.status == 503 && excused {
            self.instances[at].excused = self.instances[at].excused.saturating_sub(1);
        }
        if !allowed {
            self.violations.push(format!("{method} {path} was answered {}: {}", answer.status, answer.body));
        }
        answer
    }

    async fn connection(&mut self) -> MultiplexedConnection {
        if let Some(connection) = &self.connection {
            return connection.clone();
        }
        let client = redis::Client::open(self.redis.url()).expect("a URL");
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_mins(1)));
        let connection = client.get_multiplexed_async_connection_with_config(&patient).await.expect("a connection");
        self.connection.insert(connection).clone()
    }

    pub fn kill_redis(&mut self) {
        self.redis.kill();
        self.redis_is_up = false;
        self.connection = None;
    }

    pub fn start_redis(&mut self) {
        self.redis.start_again().expect("Redis starts again");
        self.redis_is_up = true;
        for instance in &mut self.instances {
            instance.excused = 12;
        }
    }

    /// The newest place in the stream of events.
    pub async fn now_in_stream(&mut self) -> Place {
        let (mut connection, key) = (self.connection().await, format!("{}events", self.prefix));
        let newest: Vec<(String, HashMap<String, String>)> = redis::cmd("XREVRANGE")
            .arg(key)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query_async(&mut connection)
            .await
            .expect("XREVRANGE");
        newest.first().and_then(|(id, _)| place(id)).unwrap_or_default()
    }

    async fn stream(&mut self, name: &str) -> Vec<(String, HashMap<String, String>)> {
        let (mut connection, key) = (self.connection().await, format!("{}{name}", self.prefix));
        redis::cmd("XRANGE").arg(key).arg("-").arg("+").query_async(&mut connection).await.expect("XRANGE")
    }

    pub async fn events(&mut self) -> Vec<Event> {
        let entries = self.stream("events").await;
        let read = entries.iter().map(|(id, fields)| Event::read(id, fields));
        let (mut events, mut wrong) = (Vec::new(), Vec::new());
        for event in read {
            match event {
                Ok(event) => events.push(event),
                Err(error) => wrong.push(error),
            }
        }
        self.violations.append(&mut wrong);
        events
    }

    /// After every operation: the one thing that must never be.
    pub fn glance(&mut self) {
        if self.profile.beyond {
            return;
        }
        let charges: Vec<_> = self.permissions.iter().flat_map(|id| self.sandbox.charges_of(id)).collect();
        for double in double_charges(charges.iter()) {
            if !self.violations.contains(&double) {
                self.violations.push(double);
            }
        }
    }

    /// The whole audit.
    pub async fn audit(&mut self, at_the_end: bool) {
        let rules = Rules {
            max_attempts: self.profile.max_attempts.into(),
            x_ms: i64::try_from(X.as_millis()).unwrap_or(i64::MAX),
            lease_ms: i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX),
            quota: self.profile.quota.map(|(capacity, rate)| (capacity.into(), rate)),
        };
        let events = self.events().await;
        let kept =
            |entries: Vec<(String, HashMap<String, String>)>| entries.into_iter().map(|(_, fields)| fields).collect();
        let (journal, quarantine) = (kept(self.stream("journal").await), kept(self.stream("quarantine").await));
        let (mut charges, mut permissions, mut true_states) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for id in self.deeds.submissions.keys().cloned().collect::<Vec<_>>() {
            let answer = self.api(reqwest::Method::GET, &format!("/v1/charges/{id}"), None).await;
            if answer.status == 200 {
                charges.insert(id, answer.body);
            }
        }
        for id in self.permissions.clone() {
            let answer = self.api(reqwest::Method::GET, &format!("/v1/charge-permissions/{id}"), None).await;
            if answer.status == 200 {
                permissions.insert(id.clone(), answer.body);
            }
            let state = self.sandbox.permission_state(&id).map(|state| format!("{state:?}"));
            true_states.insert(id, state.unwrap_or_default());
        }
        self.deeds.beyond = self.profile.beyond;
        let ledger = self.sandbox.ledger();
        let evidence = Evidence {
            rules,
            ledger,
            events,
            journal,
            quarantine,
            charges,
            permissions,
            true_states,
            deeds: &self.deeds,
        };
        let mut found = audit(&evidence);
        if at_the_end {
            found.append(&mut audit_end(&evidence));
        }
        let testimony = testimony(&evidence, &found);
        self.log.extend(testimony);
        for violation in found {
            if !self.violations.contains(&violation) {
                self.violations.push(violation);
            }
        }
    }

    pub async fn end(mut self) {
        for held in self.held.drain(..) {
            held.task.abort();
        }
        for instance in self.instances.drain(..) {
            instance.stop.cancel();
            instance.served.abort();
        }
        self.sandbox.stop().await;
    }
}

fn settings(redis: &RedisServer, sandbox: &Sandbox, profile: &Profile) -> Settings {
    let account = Account {
        merchant: sandbox.merchant_id().parse().expect("a merchant id"),
        environment: Environment::Sandbox,
        region: Region::Na,
    };
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let quota = match profile.quota {
        Some((capacity, per_second)) => Limit { capacity, per_second },
        None => Limit { capacity: 1_000_000, per_second: 1000.0 },
    };
    let policy = Policy { confirmation_delay: X, max_attempts: profile.max_attempts, ..Policy::for_region(Region::Na) };
    Settings {
        listen_addr: loopback,
        internal_listen_addr: loopback,
        internal_api_token: TOKEN.to_owned().into(),
        store: StoreSettings {
            url: redis.url().into(),
            tls: TlsSettings::default(),
            key_prefix: "simulation".to_owned(),
            dedupe_ttl: 16 * DAY,
            journal_retention: YEARS,
            event_retention: YEARS,
            event_retention_limit: YEARS,
            intent_retention: YEARS,
            confirmation_delay: X,
            lease: LEASE,
            bounds: match profile.hints {
                Some(hints_per_permission) => Bounds { hints_per_permission, ..Bounds::default() },
                None => Bounds::default(),
            },
            quota: Limits::each(quota),
            replicas: Replicas::default(),
        },
        accept_unsafe_durability: false,
        sns: SnsSettings {
            certificate_base_url: Some(sandbox.certificate_base_url().to_owned()),
            certificate_name: Some(sandbox.certificate_name().to_owned()),
            trust_anchors_pem: Some(sandbox.trust_anchor_pem().as_bytes().to_vec()),
            api_base_url: Some(sandbox.base_url().to_owned()),
            ..SnsSettings::for_topics(vec![sandbox.topic_arn().parse().expect("a topic")])
        },
        amazon_pay: ClientSettings {
            account: account.clone(),
            public_key_id: sandbox.public_key_id().to_owned(),
            private_key_pem: sandbox.merchant_private_key_pem().to_owned().into(),
            base_url: Some(sandbox.base_url().to_owned()),
            timeout: profile.timeout,
        },
        policies: Policies::from(policy),
        account,
        workers: 1,
        forward: None,
        traces: None,
        clock_offset_file: None,
    }
}

/// What was told of the charges that violations name, and what Amazon was asked for them, for whoever reads the report.
fn testimony(evidence: &Evidence<'_>, violations: &[String]) -> Vec<String> {
    let named: Vec<&str> = evidence.charges.keys().map(String::as_str).collect();
    let named = named.into_iter().filter(|id| {
        violations.iter().any(|found| {
            found.split_whitespace().any(|word| {
                let word = word.trim_matches(|c: char| "(),:".contains(c));
                word == *id || read_tag(word).is_some_and(|(intent, _)| intent == *id)
            })
        })
    });
    let mut lines: Vec<(i64, String)> = Vec::new();
    for id in named {
        let told = evidence.events.iter().filter(|event| event.intent() == Some(id));
        lines.extend(told.map(|event| (event.ms, format!("told {} {}", event.kind, event.data))));
        let tagged =
            evidence.ledger.charges.iter().filter(|charge| tag_of(charge).is_some_and(|(intent, _)| intent == id));
        let charges: Vec<&str> = tagged.map(|charge| charge.charge_id.as_str()).collect();
        for request in &evidence.ledger.requests {
            let tag = request.custom_information.as_deref().and_then(read_tag);
            let of_it = tag.is_some_and(|(intent, _)| intent == id);
            if of_it || request.charge.as_deref().is_some_and(|charge| charges.contains(&charge)) {
                let line = format!(
                    "asked {:?} {} {:?} of {id}: {} {:?} {:?}, left at {}{}",
                    request.operation,
                    request.charge.as_deref().unwrap_or_default(),
                    tag.map(|(_, number)| number),
                    request.status,
                    request.reason_code,
                    request.state,
                    request.received_at,
                    if request.replayed { ", replayed" } else { "" },
                );
                lines.push((request.at.as_millisecond(), line));
            }
        }
    }
    lines.sort();
    lines
        .into_iter()
        .map(|(ms, line)| format!("{} {line}", jiff::Timestamp::from_millisecond(ms).unwrap_or_default()))
        .collect()
}
