//! The service in its three forms on one real Redis, and the judgement of a case by each way in: the library's verifier, and
//! `POST /ipn` over HTTP.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use amazon_pay_ipn::amazon_pay::ClientSettings;
use amazon_pay_ipn::app::App;
use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::config::Settings;
use amazon_pay_ipn::model::ids::{Account, Environment, Region};
use amazon_pay_ipn::model::quota::{Limits, Share};
use amazon_pay_ipn::recovery::policy::Policy;
use amazon_pay_ipn::sandbox::redis_server::RedisServer;
use amazon_pay_ipn::sns::{Check, Headers, Outcome, RefusedClass, SnsSettings, Verifier};
use amazon_pay_ipn::store::account::{Init, Initialised};
use amazon_pay_ipn::store::{Bounds, Store, StoreSettings, TlsSettings};
use amazon_pay_ipn::telemetry;
use metrics_exporter_prometheus::PrometheusHandle;
use redis::aio::MultiplexedConnection;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::authority::{keys, root_pem};
use crate::case::{Case, Expected, Form, Kept};
use crate::message::{MERCHANT, Message, OTHER_TOPIC, TOPIC};
use crate::net::{Connections, Net};

/// The time of the corpus: it stands still, so that every limit can be tried to the millisecond.
pub const NOW: &str = "2026-03-06T20:00:00Z";
const DAY: Duration = Duration::from_hours(24);
/// All that a sender may learn: the reason phrase of the class.
const ANSWERS: [(u16, &str); 5] =
    [(200, "OK"), (400, "Bad Request"), (403, "Forbidden"), (413, "Payload Too Large"), (503, "Service Unavailable")];
/// Headers of an answer; none of them tells anything.
const ANSWER_HEADERS: [&str; 4] = ["connection", "content-length", "content-type", "date"];

/// Every key with a digest of what it holds, if `ARGV[1]` is 1. Else, for each case, what costs little and changes with every write: of a
/// stream its counters, of a text its time to live.
const CONTENT: &str = r"
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind, text = redis.call('TYPE', key).ok, ''
  if ARGV[1] == '0' and kind == 'string' then
    text = tostring(redis.call('PEXPIRETIME', key))
  elseif ARGV[1] == '0' and kind == 'stream' then
    local info = redis.call('XINFO', 'STREAM', key)
    for i = 1, #info, 2 do
      if type(info[i + 1]) ~= 'table' then text = text .. info[i] .. '=' .. tostring(info[i + 1]) .. ' ' end
    end
  elseif kind == 'hash' then
    -- In order: DUMP gives the fields of a large hash as they lie in its table, and Redis may turn that over at any time.
    local all, fields = redis.call('HGETALL', key), {}
    for i = 1, #all, 2 do fields[#fields + 1] = all[i] .. '=' .. all[i + 1] end
    table.sort(fields)
    text = redis.sha1hex(table.concat(fields, ' ') .. redis.call('PEXPIRETIME', key))
  else
    text = redis.sha1hex(redis.call('DUMP', key) .. redis.call('PEXPIRETIME', key))
  end
  found[#found + 1] = key
  found[#found + 1] = text
end
return found";

/// What the verifier goes by: the one place that builds it.
pub fn sns_settings(form: Form, certificates: &str, api: &str) -> SnsSettings {
    let live = form == Form::Live;
    SnsSettings {
        certificate_base_url: (!live).then(|| certificates.to_owned()),
        trust_anchors_pem: (form == Form::Anchored).then(|| root_pem().into_bytes()),
        api_base_url: Some(api.to_owned()),
        ..SnsSettings::for_topics([TOPIC, OTHER_TOPIC].map(|topic| topic.parse().expect("a topic")).into())
    }
}

/// The headers for the verifier, as the service should read them: the one place that does. Several of one name are one list
/// (RFC 9110 section 5.3); what is no text is empty, and agrees with nothing.
struct Given {
    message_type: Option<String>,
    message_id: Option<String>,
    topic_arn: Option<String>,
    raw_delivery: bool,
}

impl Given {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| {
            let values: Vec<&str> =
                headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect();
            (!values.is_empty()).then(|| values.join(", "))
        };
        Self {
            message_type: text("x-amz-sns-message-type"),
            message_id: text("x-amz-sns-message-id"),
            topic_arn: text("x-amz-sns-topic-arn"),
            raw_delivery: text("x-amz-sns-rawdelivery").is_some_and(|value| value.eq_ignore_ascii_case("true")),
        }
    }

    fn headers(&self) -> Headers<'_> {
        Headers {
            message_type: self.message_type.as_deref(),
            message_id: self.message_id.as_deref(),
            topic_arn: self.topic_arn.as_deref(),
            raw_delivery: self.raw_delivery,
        }
    }
}

pub fn clock() -> Clock {
    Clock::fixed(NOW.parse().expect("a time"))
}

/// One form of the service, with a verifier of its own beside it.
struct Service {
    verifier: Verifier,
    address: String,
    served: JoinHandle<anyhow::Result<()>>,
}

pub struct Stage {
    pub net: Net,
    services: [Service; 3],
    store: Store,
    http: reqwest::Client,
    connection: MultiplexedConnection,
    stop: CancellationToken,
    _redis: RedisServer,
}

/// Every key with a digest of what it holds.
pub type Content = BTreeMap<String, String>;

/// How things stood after the last case, and what was wrong so far.
pub struct Books {
    connections: Connections,
    content: Content,
    pub wrong: Vec<String>,
}

impl Stage {
    pub async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (net, redis) = (Net::start().await, RedisServer::start().expect("a private Redis"));
        let of = |form| settings(form, &net, &redis);
        let settings = of(Form::Sandbox);
        let store = Store::connect(settings.store, settings.account, clock()).expect("the store");
        assert!(matches!(store.init(Init::First).await.expect("init"), Initialised::Done { .. }));
        let stop = CancellationToken::new();
        let services = [
            serve(of(Form::Sandbox), &stop).await,
            serve(of(Form::Live), &stop).await,
            serve(of(Form::Anchored), &stop).await,
        ];
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(1)).build().expect("a client");
        let client = redis::Client::open(redis.url()).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let stage = Self { net, services, store, http, connection, stop, _redis: redis };
        stage.warm_up().await;
        stage
    }

    /// Every verifier has SNS's certificate before the cases begin, so that a case needs none but its own.
    async fn warm_up(&self) {
        for form in [Form::Sandbox, Form::Anchored] {
            let message = Message::notification(&self.net, &format!("warm up {form:?}")).signed();
            let service = self.service(form);
            service.verifier.verify(&Headers::default(), &message.body()).await.expect("a genuine message");
            let (status, _, _) = self.post(service, &HeaderMap::new(), message.body()).await;
            assert_eq!(status, 200);
        }
        assert_eq!(self.net.connections().await.certificates, 4);
    }

    fn service(&self, form: Form) -> &Service {
        match form {
            Form::Sandbox => &self.services[0],
            Form::Live => &self.services[1],
            Form::Anchored => &self.services[2],
        }
    }

    pub async fn finish(self) {
        self.stop.cancel();
        for service in self.services {
            service.served.await.expect("the service did not panic").expect("the service stopped in order");
        }
    }

    /// A digest of everything in Redis.
    pub async fn content(&self, whole: bool) -> Content {
        let mut connection = self.connection.clone();
        let mut script = redis::cmd("EVAL");
        script.arg(CONTENT).arg(0).arg(u8::from(whole));
        script.query_async(&mut connection).await.expect("the content")
    }

    async fn post(&self, service: &Service, headers: &HeaderMap, body: Vec<u8>) -> (u16, HeaderMap, String) {
        let request = self.http.post(&service.address).headers(headers.clone()).body(body);
        let answer = request.send().await.expect("an answer");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.text().await.expect("a body"))
    }

    /// How things stand before the first case.
    pub async fn books(&self) -> Books {
        Books { connections: self.net.connections().await, content: self.content(false).await, wrong: Vec::new() }
    }

    /// Judges one case by both ways; what is wrong is added to the books.
    pub async fn judge(&self, case: &Case, books: &mut Books) {
        let mut complaints = Vec::new();
        self.judge_by_library(case, &mut complaints).await;
        let by_library = self.net.certificates.connections().await;
        self.judge_over_http(case, &mut complaints).await;
        let connections = self.net.connections().await;
        let content = self.content(false).await;

        let (start, before) = (books.connections, books.content.clone());
        let fetched = [by_library - start.certificates, connections.certificates - by_library];
        if fetched != [case.fetches; 2] {
            let expected = case.fetches;
            complaints
                .push(format!("certificates were asked for {fetched:?} times (library, service), not {expected}"));
        }
        let confirmed = connections.api - start.api;
        if confirmed != usize::from(case.expected == Expected::Genuine(Kept::Confirmed)) {
            complaints.push(format!("SNS was asked {confirmed} times to confirm a subscription"));
        }
        if connections.forbidden != start.forbidden {
            complaints.push(format!("the attacker, the links or Amazon Pay were called: {:?}", connections.forbidden));
        }
        books.content = content;
        books.connections = connections;
        if let Expected::Genuine(kept) = case.expected {
            self.kept(case, kept, &before, &books.content, &mut complaints);
            self.again(case, books, &mut complaints).await;
        } else if before != books.content {
            complaints.push(format!("Redis changed: {:?}", changed(&before, &books.content)));
        }
        books.wrong.extend(complaints.into_iter().map(|complaint| format!("{}: {complaint}", case.name)));
    }

    /// Verdict and check of the library; its explanation must agree.
    pub async fn judge_by_library(&self, case: &Case, complaints: &mut Vec<String>) {
        let given = Given::of(&header_map(case));
        let headers = given.headers();
        let verifier = &self.service(case.form).verifier;
        if case.expected == Expected::TooLarge {
            return;
        }
        let explanation = verifier.explain(&headers, &case.body).await;
        let verdict = verifier.verify(&headers, &case.body).await;
        if explanation.refused.as_ref() != verdict.as_ref().err() {
            complaints.push(format!("explained as {:?}, judged {:?}", explanation.refused, verdict.as_ref().err()));
        }
        if !explanation.steps.iter().map(|step| step.check).eq(Check::ALL) {
            complaints.push("the explanation does not list every check in order".to_owned());
        }
        let failed = explanation.steps.iter().find(|step| step.outcome != Outcome::Passed);
        let found = failed.map(|step| (step.outcome, step.check));
        let expected = match case.expected {
            Expected::Refused(class, check) => Some((Outcome::Failed(class), check)),
            Expected::Genuine(_) | Expected::TooLarge => None,
        };
        if found != expected {
            complaints.push(format!("the library says {found:?}, not {expected:?}"));
        }
        if let (Ok(envelope), Some(told)) = (verdict, &case.told) {
            let said = [&envelope.message_id, &envelope.topic_arn, &envelope.message];
            if said != told.each_ref() {
                complaints.push(format!("the library hands on {said:?}, not {told:?}"));
            }
        }
    }

    /// Status and body of the service, and nothing else in the answer.
    pub async fn judge_over_http(&self, case: &Case, complaints: &mut Vec<String>) {
        let (status, headers, body) = self.post(self.service(case.form), &header_map(case), case.body.clone()).await;
        let expected = match case.expected {
            Expected::Genuine(_) => 200,
            Expected::Refused(RefusedClass::Malformed, _) => 400,
            Expected::Refused(RefusedClass::Forbidden, _) => 403,
            Expected::Refused(RefusedClass::Unavailable, _) => 503,
            Expected::TooLarge => 413,
        };
        if status != expected {
            complaints.push(format!("the service answers {status}, not {expected}"));
        }
        if !ANSWERS.contains(&(status, &body)) {
            complaints.push(format!("the answer {status} says {body:?}"));
        }
        let telling: Vec<&HeaderName> =
            headers.keys().filter(|name| !ANSWER_HEADERS.contains(&name.as_str())).collect();
        if !telling.is_empty() {
            complaints.push(format!("the answer {status} has {telling:?}"));
        }
    }

    /// What a genuine message changes, and nothing else.
    fn kept(&self, case: &Case, kept: Kept, before: &Content, after: &Content, complaints: &mut Vec<String>) {
        let keys = self.store.keys();
        let id = case.told.as_ref().map_or("", |[id, _, _]| id);
        let permission = crate::message::PERMISSION.parse().expect("an id");
        let (journal, seen) = (keys.journal(), keys.seen(id));
        let (work, told) =
            ([keys.schedule(), keys.permission(&permission), keys.hints(&permission)], [keys.events(), keys.marker()]);
        let changed = changed(before, after);
        let must: Vec<&String> = match kept {
            Kept::Duplicate => Vec::new(),
            Kept::Work => vec![&journal, &seen, &work[1], &work[2]],
            Kept::Test => vec![&journal, &seen],
            Kept::Quarantine | Kept::Confirmed | Kept::Ended => vec![&journal, &seen, &told[0], &told[1]],
        };
        let quarantine = keys.quarantine();
        let must: Vec<&String> = must.into_iter().chain((kept == Kept::Quarantine).then_some(&quarantine)).collect();
        // The marker says when a notification came last; two may come in the same millisecond.
        let of_work = |key: &String| work.contains(key) || *key == told[1];
        let may = |key: &String| must.contains(&key) || kept == Kept::Work && of_work(key);
        if !must.iter().all(|key| changed.contains(key)) || !changed.iter().all(may) {
            complaints.push(format!("Redis changed in {changed:?}, not in {must:?}"));
        }
    }

    /// SNS delivers it again: acknowledged, nothing is kept twice, and no certificate is asked for.
    async fn again(&self, case: &Case, books: &mut Books, complaints: &mut Vec<String>) {
        let (status, _, _) = self.post(self.service(case.form), &header_map(case), case.body.clone()).await;
        let after = self.content(false).await;
        if status != 200 || books.content != after {
            complaints
                .push(format!("delivered again it gets {status} and changes {:?}", changed(&books.content, &after)));
        }
        let connections = self.net.connections().await;
        let Connections { certificates, forbidden, .. } = connections;
        if (certificates, forbidden) != (books.connections.certificates, books.connections.forbidden) {
            complaints.push(format!("delivered again it causes {connections:?}, after {:?}", books.connections));
        }
        books.connections = connections;
    }

    /// The bodies in the journal, by the id of their message.
    pub async fn journal(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        type Entries = Vec<(String, BTreeMap<String, Vec<u8>>)>;
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("XRANGE");
        command.arg(self.store.keys().journal()).arg("-").arg("+");
        let entries: Entries = command.query_async(&mut connection).await.expect("the journal");
        let mut bodies: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for (_, mut fields) in entries {
            let id = String::from_utf8(fields.remove("message_id").expect("an id")).expect("UTF-8");
            bodies.entry(id).or_default().extend(fields.remove("body"));
        }
        bodies
    }
}

fn changed(before: &Content, after: &Content) -> Vec<String> {
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
}

fn header_map(case: &Case) -> HeaderMap {
    let header = |(name, value): &(String, Vec<u8>)| {
        (HeaderName::try_from(name).expect("a name"), HeaderValue::from_bytes(value).expect("a value"))
    };
    case.headers.iter().map(header).collect()
}

async fn serve(settings: Settings, stop: &CancellationToken) -> Service {
    let verifier = Verifier::new(settings.sns.clone(), clock()).expect("a verifier");
    let app = App::start(settings, clock(), metrics()).await.expect("the service starts");
    let address = format!("http://{}/ipn", app.public_addr().expect("an address"));
    let served = tokio::spawn(app.serve_until(stop.clone().cancelled_owned()));
    Service { verifier, address, served }
}

fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(telemetry::start_metrics).clone()
}

fn settings(form: Form, net: &Net, redis: &RedisServer) -> Settings {
    let account = Account {
        merchant: MERCHANT.parse().expect("a merchant id"),
        environment: Environment::Sandbox,
        region: Region::Na,
    };
    let loopback = "127.0.0.1:0".parse().expect("an address");
    Settings {
        listen_addr: loopback,
        internal_listen_addr: loopback,
        internal_api_token: "a-token-for-tests-only".to_owned().into(),
        store: StoreSettings {
            tls: TlsSettings::default(),
            replicas: amazon_pay_ipn::store::Replicas::default(),
            url: redis.url().into(),
            key_prefix: "trust".to_owned(),
            dedupe_ttl: 16 * DAY,
            journal_retention: 30 * DAY,
            event_retention: 30 * DAY,
            event_retention_limit: 30 * DAY,
            intent_retention: 400 * DAY,
            confirmation_delay: Duration::from_mins(30),
            lease: Duration::from_mins(3),
            bounds: Bounds::default(),
            quota: Limits::of(Environment::Sandbox, Share::WHOLE),
        },
        sns: sns_settings(form, &net.certificates.base(), &net.api_base()),
        amazon_pay: ClientSettings {
            account: account.clone(),
            public_key_id: "SANDBOX-AEXAMPLEEXAMPLEEXAMPLE00".to_owned(),
            private_key_pem: keys().root.pem().into(),
            base_url: Some(net.amazon_base()),
            timeout: Duration::from_secs(10),
        },
        policies: Policy::for_region(Region::Na).into(),
        account,
        accept_unsafe_durability: false,
        workers: 0,
        forward: None,
        traces: None,
        clock_offset_file: None,
    }
}
