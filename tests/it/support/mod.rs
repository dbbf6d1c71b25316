//! The harness: one private Redis, one sandbox and one service per test, on a clock that the test moves. Nothing sleeps: tests step the
//! reconciler by hand. [`TestApp::finish`] audits the run against the sandbox's own ledger and the public streams.

pub mod contract;
pub mod servers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::OnceLock;
use std::time::Duration;

use amazon_pay_ipn::amazon_pay::ClientSettings;
use amazon_pay_ipn::app::App;
use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::config::Settings;
use amazon_pay_ipn::model::ids::{Account, Environment, Region};
use amazon_pay_ipn::model::quota::{Limit, Limits};
use amazon_pay_ipn::reconciler::{Reconciler, StepOutcome};
use amazon_pay_ipn::recovery::policies::Policies;
use amazon_pay_ipn::recovery::policy::Policy;
use amazon_pay_ipn::sandbox::{
    DeliveryOrder, Ledger, NotificationType, ObjectType, Operation, PermissionSpec, Reading, Sandbox, SandboxSettings,
    SignatureVersion, SignedMessage,
};
use amazon_pay_ipn::sns::SnsSettings;
use amazon_pay_ipn::store::account::{Init, Initialised};
use amazon_pay_ipn::store::{Bounds, Replicas, Store, StoreSettings, TlsSettings};
use amazon_pay_ipn::telemetry;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use servers::Redis;

pub const TOKEN: &str = "a-token-for-tests-only";
pub const DAY: Duration = Duration::from_hours(24);
pub const HOUR: Duration = Duration::from_hours(1);
/// Longer than 1970 is ago.
pub const CENTURY: Duration = Duration::from_hours(100 * 366 * 24);
pub const MINUTE: Duration = Duration::from_mins(1);
/// X of the tests.
pub const X: Duration = Duration::from_mins(30);
/// A quota that nobody reaches.
pub const PLENTY: Limits = Limits::each(Limit { capacity: 1_000_000, per_second: 1000.0 });
/// Steps after which a test is surely in a loop.
const MAX_STEPS: usize = 200;

/// What a test may set before it starts.
pub struct Options {
    pub reading: Reading,
    /// Time-out of a call to Amazon.
    pub timeout: Duration,
    pub init: Option<Init>,
    pub bounds: Bounds,
    /// Another way to Redis than that of its kind.
    pub redis_url: Option<String>,
    pub redis_tls: Option<TlsSettings>,
    pub replicas: Replicas,
    /// What the service allows itself. More than any story needs, unless the story is about it.
    pub quota: Limits,
    /// Other policies than the built-in one.
    pub policies: Option<Policies>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reading: Reading::ReEvaluate,
            timeout: Duration::from_secs(10),
            init: Some(Init::First),
            bounds: Bounds::default(),
            redis_url: None,
            redis_tls: None,
            replicas: Replicas::default(),
            quota: PLENTY,
            policies: None,
        }
    }
}

pub struct TestApp {
    pub redis: Redis,
    pub sandbox: Sandbox,
    pub clock: Clock,
    pub settings: Settings,
    pub store: Store,
    pub reconciler: Reconciler,
    pub public: String,
    pub internal: String,
    pub http: reqwest::Client,
    stop: CancellationToken,
    served: Option<JoinHandle<anyhow::Result<()>>>,
    finished: bool,
}

/// What the service answered.
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl TestApp {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with_reading(reading: Reading) -> Self {
        Self::with(Options { reading, ..Options::default() }).await
    }

    pub async fn with(options: Options) -> Self {
        Self::on(Redis::start(), options).await
    }

    /// On a Redis that no other test is on, and that may be killed.
    pub async fn on_an_own_server() -> Self {
        Self::on(Redis::start_own(), Options::default()).await
    }

    /// On a Redis that may hold data already.
    pub async fn on(redis: impl Into<Redis>, options: Options) -> Self {
        let redis = redis.into();
        let _ = rustls::crypto::ring::default_provider().install_default();
        if log_wanted() {
            telemetry::start_logging(telemetry::LogFormat::Text, "amazon_pay_ipn=debug", None);
        }
        let clock = Clock::movable();
        let sandbox = Sandbox::start(SandboxSettings {
            reading: options.reading,
            merchant_id: redis.merchant.clone(),
            ..SandboxSettings::new(clock.clone())
        })
        .await
        .expect("the sandbox");
        let settings = settings(&redis, &sandbox, &options);
        // Whether replicas have the marker in time is no story: with everything going on at once they may be slow.
        let alone = StoreSettings { replicas: Replicas::default(), ..settings.store.clone() };
        let first = Store::connect(alone, settings.account.clone(), clock.clone()).expect("the store");
        if let Some(init) = options.init {
            assert!(matches!(first.init(init).await.expect("init"), Initialised::Done { .. }));
            // The service does so at a time of its own, which may be the middle of a story that counts keys.
            first.note_arrivals().await.expect("a note");
        }
        let http = reqwest::Client::builder().no_proxy().timeout(MINUTE).build().expect("a client");
        let (store, reconciler, public, internal, stop, served) = serve(&settings, &clock).await;
        Self {
            redis,
            sandbox,
            clock,
            settings,
            store,
            reconciler,
            public,
            internal,
            http,
            stop,
            served: Some(served),
            finished: false,
        }
    }

    /// Redis crashes and comes back on its data. The connections notice with their next command.
    pub async fn crash_redis(&mut self) {
        self.redis.kill();
        self.redis.start_again();
        for _ in 0..10 {
            if self.store.account().await.is_ok() {
                return;
            }
        }
        panic!("the service does not find Redis again");
    }

    /// Stops the service and starts it anew on the same Redis.
    pub async fn restart(&mut self) {
        self.stop_service().await;
        let (store, reconciler, public, internal, stop, served) = serve(&self.settings, &self.clock).await;
        (self.store, self.reconciler) = (store, reconciler);
        (self.public, self.internal, self.stop, self.served) = (public, internal, stop, Some(served));
    }

    pub async fn stop_service(&mut self) {
        self.stop.cancel();
        if let Some(served) = self.served.take() {
            served.await.expect("the service did not panic").expect("the service stopped in order");
        }
    }

    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Steps until nothing is due.
    pub async fn run_due(&self) {
        for _ in 0..MAX_STEPS {
            match self.reconciler.step().await {
                Ok(StepOutcome::Idle) => return,
                Ok(_) => {}
                Err(error) => panic!("a step failed: {error}"),
            }
        }
        panic!("still due after {MAX_STEPS} steps");
    }

    /// Moves the clock in small steps and reconciles whatever becomes due on the way.
    pub async fn pass(&self, span: Duration, step: Duration) {
        let mut passed = Duration::ZERO;
        while passed < span {
            self.advance(step.min(span.saturating_sub(passed)));
            passed += step;
            self.run_due().await;
        }
    }

    pub fn permission(&self) -> String {
        self.sandbox.create_permission(PermissionSpec::recurring("USD"))
    }

    /// Delivers every notification that the sandbox has to send, and expects 200 for each.
    pub async fn deliver_all(&self) -> usize {
        let url = format!("{}/ipn", self.public);
        let statuses = self
            .sandbox
            .deliver_pending(&url, DeliveryOrder::InOrder, 1, SignatureVersion::V1)
            .await
            .expect("delivery");
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        statuses.len()
    }

    /// Amazon tells of an object of a permission, once.
    pub async fn tell_of(&self, object: (ObjectType, &str), permission: &str) {
        let ipn = self.sandbox.ipn(object, permission, NotificationType::StateChange);
        let message = self.sandbox.sign(&ipn, SignatureVersion::V1);
        assert_eq!(self.post_ipn(&message.body, &message.headers).await, 200);
    }

    /// A notification about a permission, signed; each call makes another.
    pub fn notification(&self, permission: &str) -> SignedMessage {
        let ipn =
            self.sandbox.ipn((ObjectType::ChargePermission, permission), permission, NotificationType::StateChange);
        self.sandbox.sign(&ipn, SignatureVersion::V1)
    }

    /// What `/ipn` answers to it.
    pub async fn deliver(&self, message: &SignedMessage) -> u16 {
        self.post_ipn(&message.body, &message.headers).await
    }

    pub async fn post_ipn(&self, body: &str, headers: &[(String, String)]) -> u16 {
        let mut request = self.http.post(format!("{}/ipn", self.public)).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let status = request.send().await.expect("an answer").status().as_u16();
        assert!(contract::is_public_status(status), "docs/api/openapi-public.json does not know the answer {status}");
        status
    }

    async fn answer(request: reqwest::RequestBuilder) -> Answer {
        let (client, request) = request.build_split();
        let request = request.expect("a request");
        let (method, path) = (request.method().as_str().to_lowercase(), request.url().path().to_owned());
        let response = client.execute(request).await.expect("an answer");
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().to_owned();
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if let Err(broken) = contract::answered(&method, &path, status, &kind, &body) {
            panic!("docs/api/openapi-internal.json: {broken}");
        }
        Answer { status, body }
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self.http.post(format!("{}{path}", self.internal)).bearer_auth(TOKEN);
        Self::answer(request.header("content-type", "application/json").body(body.to_string())).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        Self::answer(self.http.get(format!("{}{path}", self.internal)).bearer_auth(TOKEN)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Self::answer(self.http.delete(format!("{}{path}", self.internal)).bearer_auth(TOKEN)).await
    }

    pub fn body(id: &str, permission: &str) -> Value {
        json!({
            "id": id, "chargePermissionId": permission, "captureNow": true,
            "chargeAmount": { "amount": "14.00", "currencyCode": "USD" },
        })
    }

    /// Submits a charge of 14.00 USD and expects it to be accepted.
    pub async fn submit(&self, id: &str, permission: &str) {
        let answer = self.post("/v1/charges", &Self::body(id, permission)).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
    }

    pub async fn charge(&self, id: &str) -> Value {
        let answer = self.get(&format!("/v1/charges/{id}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    pub async fn state(&self, id: &str) -> String {
        self.charge(id).await["state"].as_str().expect("a state").to_owned()
    }

    pub fn creates(&self) -> usize {
        self.sandbox.ledger().requests_of(Operation::CreateCharge).len()
    }

    pub fn ledger(&self) -> Ledger {
        self.sandbox.ledger()
    }

    pub async fn stream(&self, key: &str) -> Vec<HashMap<String, String>> {
        let (mut all, mut from) = (Vec::new(), "-".to_owned());
        let mut connection = self.connection().await;
        loop {
            let entries: Vec<(String, HashMap<String, String>)> = redis::cmd("XRANGE")
                .arg(key)
                .arg(&from)
                .arg("+")
                .arg("COUNT")
                .arg(1000)
                .query_async(&mut connection)
                .await
                .expect("XRANGE");
            let Some((last, _)) = entries.last() else { return all };
            from = format!("({last}");
            all.extend(entries.into_iter().map(|(_, fields)| fields));
        }
    }

    pub async fn events(&self) -> Vec<HashMap<String, String>> {
        self.stream(&self.store.keys().events()).await
    }

    /// Short names of the events, in order.
    pub async fn event_kinds(&self) -> Vec<String> {
        let short = |event: &HashMap<String, String>| {
            event["type"].trim_start_matches("amazonpay.").trim_end_matches(".v1").to_owned()
        };
        self.events().await.iter().map(short).collect()
    }

    /// Data of the events of one short name.
    pub async fn events_of(&self, kind: &str) -> Vec<Value> {
        let kind = format!("amazonpay.{kind}.v1");
        let events = self.events().await;
        events
            .iter()
            .filter(|event| event["type"] == kind)
            .map(|event| serde_json::from_str(&event["data"]).expect("JSON"))
            .collect()
    }

    pub async fn journal(&self) -> Vec<HashMap<String, String>> {
        self.stream(&self.store.keys().journal()).await
    }

    pub async fn quarantine(&self) -> Vec<HashMap<String, String>> {
        self.stream(&self.store.keys().quarantine()).await
    }

    /// As who may do everything, on the server that holds the account.
    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        self.redis.admin(&self.store.keys().marker()).await
    }

    /// Every key of the server; where other tests are on it too, every key of this account.
    pub async fn keys(&self) -> BTreeSet<String> {
        let base = if self.redis.is_shared() { self.base() } else { String::new() };
        let all: BTreeSet<String> =
            redis::cmd("KEYS").arg("*").query_async(&mut self.connection().await).await.expect("KEYS");
        all.into_iter().filter(|key| key.starts_with(&base)).collect()
    }

    fn base(&self) -> String {
        self.store.keys().marker().trim_end_matches("marker").to_owned()
    }

    /// The server forgets everything, while it runs.
    pub async fn lose_everything(&self) {
        let mut connection = self.connection().await;
        if self.redis.is_shared() {
            for key in self.keys().await {
                let () = redis::cmd("DEL").arg(key).query_async(&mut connection).await.expect("DEL");
            }
        } else {
            let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.expect("FLUSHALL");
        }
    }

    /// Audits the run and stops the service: no double charge, no key outside the documented ones, one terminal event per intent (and
    /// one success after an unverified end), unique event ids, no buyer data anywhere in Redis.
    pub async fn finish(mut self) {
        self.audit_ledger(1);
        self.audit_events().await;
        self.audit_keys().await;
        self.stop_service().await;
        self.finished = true;
    }

    /// As [`Self::finish`], for a fault beyond the stated assumptions: a second charge happened, and must have been reported.
    pub async fn finish_with_a_reported_double_charge(mut self) {
        self.audit_ledger(2);
        self.audit_events().await;
        let alerts = self.events_of("account.attention").await;
        assert!(alerts.iter().any(|alert| alert["kind"] == "duplicate_charge"), "{alerts:?}");
        self.stop_service().await;
        self.finished = true;
    }

    /// At most so many successful charges per intent, by the sandbox's own books.
    fn audit_ledger(&self, at_most: usize) {
        let mut successes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for charge in self.ledger().charges {
            let tag = charge.custom_information.clone().unwrap_or_default();
            let intent = tag.rsplit_once('/').map_or(tag.as_str(), |(intent, _)| intent).to_owned();
            if matches!(charge.state.as_str(), "Captured" | "Authorized" | "CaptureInitiated") {
                successes.entry(intent).or_default().push(charge.charge_id);
            }
        }
        for (intent, charges) in successes {
            assert!(charges.len() <= at_most, "{intent} was charged {} times: {charges:?}", charges.len());
        }
    }

    async fn audit_events(&self) {
        let events = self.events().await;
        let mut ids = BTreeSet::new();
        let mut ends: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for event in &events {
            assert!(ids.insert(event["id"].clone()), "event id {} twice", event["id"]);
            for field in ["specversion", "source", "type", "subject", "time", "datacontenttype", "data"] {
                assert!(!event[field].is_empty(), "{field} of {event:?}");
            }
            if let Err(broken) = contract::told(event) {
                panic!("docs/api/asyncapi.json: {broken}");
            }
            let data: Value = serde_json::from_str(&event["data"]).expect("data is JSON");
            let kind = event["type"].trim_start_matches("amazonpay.").trim_end_matches(".v1").to_owned();
            if ["charge.captured", "charge.canceled", "charge.abandoned"].contains(&kind.as_str()) {
                let outcome = data["outcome"].as_str().unwrap_or("verified").to_owned();
                ends.entry(data["id"].as_str().expect("an id").to_owned()).or_default().push((kind, outcome));
            }
        }
        for (intent, ends) in ends {
            let late = ends.len() == 2 && ends[0].1 == "unverified" && ends[1].0 == "charge.captured";
            assert!(ends.len() == 1 || late, "{intent} ended {ends:?}");
        }
    }

    async fn audit_keys(&self) {
        let keys = self.keys().await;
        let base = self.base();
        let mut connection = self.connection().await;
        for key in keys {
            let name = key.strip_prefix(&base).unwrap_or_else(|| panic!("{key} is outside the key space"));
            let head = name.split(':').next().unwrap_or_default();
            let known = [
                "marker",
                "schedule",
                "quota",
                "waiting",
                "tickets",
                "held_back",
                "forward",
                "events",
                "journal",
                "arrivals",
                "quarantine",
                "seen",
                "permission",
                "intent",
                "index",
            ];
            assert!(known.contains(&head), "{key} is not in docs/KEYSPACE.md");
            let dump = self.dump(&key, &mut connection).await;
            for secret in amazon_pay_ipn::sandbox::BUYER_SECRETS {
                assert!(!dump.contains(secret), "{key} holds buyer data");
            }
            // With the asterisks: four letters are in the Base64 of one signature of 50,000.
            assert!(!dump.contains("Visa *"), "{key} holds a payment descriptor");
        }
    }

    async fn dump(&self, key: &str, connection: &mut redis::aio::MultiplexedConnection) -> String {
        let kind: String = redis::cmd("TYPE").arg(key).query_async(connection).await.expect("TYPE");
        let command = match kind.as_str() {
            "hash" => redis::cmd("HGETALL").arg(key).to_owned(),
            "stream" => return format!("{:?}", self.stream(key).await),
            "zset" => redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).to_owned(),
            _ => redis::cmd("GET").arg(key).to_owned(),
        };
        let value: redis::Value = command.query_async(connection).await.expect("a value");
        format!("{value:?}")
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        assert!(self.finished || std::thread::panicking(), "a test must end with finish(), which audits the run");
    }
}

async fn serve(
    settings: &Settings,
    clock: &Clock,
) -> (Store, Reconciler, String, String, CancellationToken, JoinHandle<anyhow::Result<()>>) {
    let app = App::start(settings.clone(), clock.clone(), metrics()).await.expect("the service starts");
    let public = format!("http://{}", app.public_addr().expect("an address"));
    let internal = format!("http://{}", app.internal_addr().expect("an address"));
    let (store, reconciler) = (app.store(), app.reconciler());
    let stop = CancellationToken::new();
    let served = tokio::spawn(app.serve_until(stop.clone().cancelled_owned()));
    (store, reconciler, public, internal, stop, served)
}

/// `TEST_LOG=1 cargo test ...` shows the service's log.
#[expect(clippy::disallowed_methods, reason = "a switch of the harness, not a setting of the service")]
fn log_wanted() -> bool {
    std::env::var_os("TEST_LOG").is_some()
}

pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(telemetry::start_metrics).clone()
}

/// The policy without a file.
pub fn built_in_policy() -> Policies {
    Policy { confirmation_delay: X, ..Policy::for_region(Region::Na) }.into()
}

fn settings(redis: &Redis, sandbox: &Sandbox, options: &Options) -> Settings {
    let account = Account {
        merchant: sandbox.merchant_id().parse().expect("a merchant id"),
        environment: Environment::Sandbox,
        region: Region::Na,
    };
    let loopback = "127.0.0.1:0".parse().expect("an address");
    Settings {
        listen_addr: loopback,
        internal_listen_addr: loopback,
        internal_api_token: TOKEN.to_owned().into(),
        store: StoreSettings {
            url: options.redis_url.clone().unwrap_or_else(|| redis.url.clone()).into(),
            tls: options.redis_tls.clone().unwrap_or_else(|| redis.tls.clone()),
            replicas: options.replicas,
            key_prefix: "test".to_owned(),
            dedupe_ttl: 16 * DAY,
            journal_retention: 30 * DAY,
            event_retention: 30 * DAY,
            event_retention_limit: CENTURY,
            intent_retention: 400 * DAY,
            confirmation_delay: X,
            lease: Duration::from_mins(3),
            bounds: options.bounds,
            quota: options.quota,
        },
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
            timeout: options.timeout,
        },
        policies: options.policies.clone().unwrap_or_else(built_in_policy),
        account,
        accept_unsafe_durability: false,
        workers: 1,
        forward: None,
        traces: None,
        clock_offset_file: None,
    }
}
