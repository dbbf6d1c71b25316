//! One account for one pair of a crash point and a kind of work: a sandbox, a part of a Redis, a clock that is moved, and the real
//! process, which may be struck at any moment. Everything here goes on as the outside world does: SNS delivers again what was not
//! answered 200, callers repeat what was not answered, and a supervisor starts the process anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::crash::CrashPoint;
use amazon_pay_ipn::model::ids::{Account, Environment, Region};
use amazon_pay_ipn::model::quota::{Limits, Share};
use amazon_pay_ipn::sandbox::redis_server::RedisServer;
use amazon_pay_ipn::sandbox::{
    Gate, PermissionSpec, Reading, Sandbox, SandboxSettings, SignatureVersion, SignedMessage,
};
use amazon_pay_ipn::store::account::{Init, Initialised};
use amazon_pay_ipn::store::{Bounds, Replicas, Store, StoreSettings, TlsSettings};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Seen, Served};

const TOKEN: &str = "a-token-for-tests-only";
/// Longer than any lease.
const LEASE_IS_OVER: Duration = Duration::from_secs(181);
/// Between two looks at the service, real time.
const PAUSE: Duration = Duration::from_millis(30);
/// How long nothing may happen, real time; generous, because other things run on the machine.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long a process that was frozen may take to finish its step before the audit goes on without it.
const THAWS_WITHIN: Duration = Duration::from_secs(2);
/// Moves of the clock after which a kind of work never settles.
const MAX_MOVES: usize = 150;
const DAY: Duration = Duration::from_hours(24);
/// Longer than a reconciliation takes here, and much shorter than a lease.
const CLAIM_IS_LOST: Duration = Duration::from_secs(20);
/// SNS repeats for hours, not for weeks. Less than `SNS_MAX_MESSAGE_AGE`.
const SNS_GIVES_UP: SignedDuration = SignedDuration::from_hours(14 * 24);

/// What happens at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// SIGKILL; the process is started anew.
    Killed,
    /// SIGSTOP for longer than a lease, while another process does all the work; then it goes on where it stood.
    Frozen,
    /// The same until the other process has finished one reconciliation: then it goes on beside it.
    Overtaken,
    /// SIGSTOP, Redis is killed with SIGKILL and started on its data, and the process goes on.
    RedisKilled,
}

/// Where, at which of its occurrences, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Strike {
    pub point: CrashPoint,
    pub occurrence: u32,
    pub how: How,
}

impl Strike {
    fn crash_at(self) -> String {
        let freeze = if self.how == How::Killed { "" } else { ":freeze" };
        format!("{}:{}{freeze}", self.point.as_str(), self.occurrence)
    }
}

/// What the outside world was promised.
#[derive(Debug, Default)]
pub struct Promises {
    /// SNS messages that were answered 200.
    pub acknowledged: BTreeSet<String>,
    /// Charges whose submission was answered 202 or 200.
    pub accepted: BTreeSet<String>,
    /// Charges whose cancellation was answered 200 or 202, with the length of the event stream at that moment.
    pub canceled: BTreeMap<String, usize>,
}

struct Waiting {
    message: SignedMessage,
    since: Timestamp,
}

/// What there is to wait for.
enum Rest {
    /// Something is due now, or under way.
    Busy,
    /// Nothing before this time.
    Until(Timestamp),
    /// For quota, or the end of a fault.
    Waits,
    /// Nothing is planned.
    Nothing,
}

pub struct World {
    pub sandbox: Sandbox,
    pub promises: Promises,
    pub struck: bool,
    /// Its process id.
    struck_process: u32,
    /// Redis was killed, perhaps between a claim and its answer; or a second process that was to be struck at the same point died too.
    claim_may_be_lost: bool,
    /// How often one process reached a point, at most.
    pub reached: BTreeMap<String, u32>,
    folder: TempDir,
    clock_file: PathBuf,
    offset_ms: i64,
    variables: Vec<(String, String)>,
    pub redis_url: String,
    own_redis: Option<RedisServer>,
    pub key_base: String,
    http: reqwest::Client,
    served: Served,
    /// Frozen, or a second instance.
    others: Vec<Served>,
    strike: Option<Strike>,
    /// Somebody who was frozen goes on, and nobody has waited for it yet.
    thawing: bool,
    permissions: Vec<String>,
    charges: Vec<String>,
    post: Vec<Waiting>,
    /// Requests that were repeated because nobody knows what became of the first.
    pub repeated: usize,
}

impl World {
    /// `redis_url` is shared with other worlds, which have other prefixes; a strike that kills Redis gets one of its own.
    pub async fn start(redis_url: &str, prefix: &str, reading: Reading, share: &str, strike: Option<Strike>) -> Self {
        let own_redis = strike
            .filter(|strike| strike.how == How::RedisKilled)
            .map(|_| RedisServer::start().expect("a private Redis"));
        let redis_url = own_redis.as_ref().map_or_else(|| redis_url.to_owned(), RedisServer::url);
        let folder = TempDir::new().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &[u8]| {
            std::fs::write(path(name), text).expect("a file");
            path(name).display().to_string()
        };
        let clock_file = path("clock");
        write("clock", b"0");
        let clock = Clock::from_offset_file(clock_file.clone());
        let sandbox = Sandbox::start(SandboxSettings { reading, ..SandboxSettings::new(clock.clone()) })
            .await
            .expect("the sandbox");
        let variables = [
            ("LISTEN_ADDR", "127.0.0.1:0".to_owned()),
            ("INTERNAL_LISTEN_ADDR", "127.0.0.1:0".to_owned()),
            ("INTERNAL_API_TOKEN_FILE", write("token", TOKEN.as_bytes())),
            ("REDIS_URL", redis_url.clone()),
            ("KEY_PREFIX", prefix.to_owned()),
            ("AMAZON_PAY_REGION", "na".to_owned()),
            ("AMAZON_PAY_PUBLIC_KEY_ID", sandbox.public_key_id().to_owned()),
            ("AMAZON_PAY_PRIVATE_KEY_FILE", write("key", sandbox.merchant_private_key_pem().as_bytes())),
            ("AMAZON_PAY_MERCHANT_ID", sandbox.merchant_id().to_owned()),
            ("AMAZON_PAY_API_BASE_URL", sandbox.base_url().to_owned()),
            ("SNS_TOPIC_ARNS", sandbox.topic_arn().to_owned()),
            ("SNS_API_BASE_URL", sandbox.base_url().to_owned()),
            ("SNS_CERTIFICATE_BASE_URL", sandbox.certificate_base_url().to_owned()),
            ("SNS_CERTIFICATE_NAME", sandbox.certificate_name().to_owned()),
            ("SNS_TRUST_ANCHORS_FILE", write("anchor", sandbox.trust_anchor_pem().as_bytes())),
            ("CLOCK_OFFSET_FILE", clock_file.display().to_string()),
            ("QUOTA_SHARE", share.to_owned()),
            // One at a time, so that the order of the points is that of the work.
            ("WORKERS", "1".to_owned()),
        ];
        let variables: Vec<_> = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        init(&redis_url, prefix, &sandbox, clock).await;
        let crash_at = strike.map_or_else(|| "trace".to_owned(), Strike::crash_at);
        let served = Served::start(&variables, &crash_at).await;
        Self {
            key_base: format!("{prefix}:{{sandbox:{}}}:", sandbox.merchant_id()),
            http: reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client"),
            sandbox,
            promises: Promises::default(),
            struck: false,
            struck_process: 0,
            claim_may_be_lost: false,
            reached: BTreeMap::new(),
            folder,
            clock_file,
            offset_ms: 0,
            variables,
            redis_url,
            own_redis,
            served,
            others: Vec::new(),
            strike,
            thawing: false,
            permissions: Vec::new(),
            charges: Vec::new(),
            post: Vec::new(),
            repeated: 0,
        }
    }

    /// Moves everybody's clock.
    pub fn advance(&mut self, by: Duration) {
        self.offset_ms += i64::try_from(by.as_millis()).expect("a span");
        // In one piece: whoever reads the file while it is written would go back to the beginning of time.
        let new = self.folder.path().join("clock.new");
        std::fs::write(&new, self.offset_ms.to_string()).expect("the clock");
        std::fs::rename(new, &self.clock_file).expect("the clock");
    }

    /// A buyer's permission that is waited for.
    pub fn permission(&mut self) -> String {
        let permission = self.sandbox.create_permission(PermissionSpec::recurring("USD"));
        self.permissions.push(permission.clone());
        permission
    }
}

/// The process and its supervisor.
impl World {
    fn note_reached(reached: &mut BTreeMap<String, u32>, served: &Served) {
        for (point, count) in served.reached() {
            let most = reached.entry(point).or_default();
            *most = count.max(*most);
        }
    }

    /// Whether a process has just been struck. What a supervisor does about it is done.
    async fn look_for_the_strike(&mut self) -> bool {
        let how = self.strike.map(|strike| strike.how);
        self.wake_the_overtaken();
        if self.struck {
            self.make_good_a_second_strike().await;
        }
        if self.struck || how.is_none() {
            return false;
        }
        let others = self.others.iter_mut().map(Served::seen);
        let seen: Vec<Seen> = std::iter::once(self.served.seen()).chain(others).collect();
        let Some(place) = seen.iter().position(|seen| *seen != Seen::Running) else { return false };
        match (seen[place], how) {
            (Seen::Ended(status), Some(How::Killed)) => assert!(Served::was_killed(status), "it ended with {status}"),
            (Seen::Frozen, Some(How::Frozen | How::Overtaken | How::RedisKilled)) => {}
            (other, _) => panic!("the process is {other:?}: {}", self.served.last_words()),
        }
        self.struck = true;
        let struck = if place == 0 { &self.served } else { &self.others[place - 1] };
        self.struck_process = struck.id();
        self.claim_may_be_lost = true;
        if how == Some(How::RedisKilled) {
            let redis = self.own_redis.as_mut().expect("a private Redis");
            redis.kill();
            redis.start_again().expect("Redis starts again");
            struck.signal("CONT");
            return true;
        }
        self.advance(LEASE_IS_OVER);
        if place == 0 {
            self.start_another().await;
            if how == Some(How::Killed) {
                self.others.pop();
            }
        } else if how == Some(How::Killed) {
            self.others.remove(place - 1);
        }
        true
    }

    /// Starts another process, which is asked from now on; the one before is kept.
    pub async fn start_another(&mut self) {
        let crash_at = match self.strike {
            Some(strike) if !self.struck => strike.crash_at(),
            // It says what it does, for whoever waits for it.
            _ => "trace".to_owned(),
        };
        let served = Served::start(&self.variables, &crash_at).await;
        self.others.push(std::mem::replace(&mut self.served, served));
    }

    /// SIGTERM, and its end in good order, or by the strike; then it is started anew.
    pub async fn terminate(&mut self, before_its_end: impl FnOnce()) {
        if !matches!(self.served.seen(), Seen::Running) {
            before_its_end();
            self.look_for_the_strike().await;
            return;
        }
        self.served.signal("TERM");
        let public = self.served.public.clone();
        let patience = Patience::new("the listeners to close");
        while std::net::TcpStream::connect(&public).is_ok() && self.served.seen() == Seen::Running {
            patience.pause().await;
        }
        before_its_end();
        let patience = Patience::new("the process to end");
        loop {
            match self.served.seen() {
                Seen::Ended(status) if status.success() => break,
                Seen::Running => patience.pause().await,
                _ => {
                    let killed_redis = self.strike.is_some_and(|strike| strike.how == How::RedisKilled);
                    self.look_for_the_strike().await;
                    if !killed_redis {
                        return;
                    }
                }
            }
        }
        Self::note_reached(&mut self.reached, &self.served);
        self.start_another().await;
        self.others.pop();
    }

    /// SIGKILL at a moment that the sandbox knows better than the process, and a new start.
    pub async fn kill_from_outside(&mut self) {
        self.look_for_the_strike().await;
        self.served.kill();
        Self::note_reached(&mut self.reached, &self.served);
        self.advance(LEASE_IS_OVER);
        self.start_another().await;
        self.others.pop();
    }

    /// Waits until a request stands at the gate; a process that is struck before it came that far is replaced.
    pub async fn at_gate(&mut self, gate: &Gate) {
        let patience = Patience::new("a request at the gate");
        loop {
            tokio::select! {
                () = gate.reached() => return,
                () = patience.pause() => {}
            }
            self.look_for_the_strike().await;
        }
    }

    /// Waits until the other process says this, or is struck.
    pub async fn other_has_said(&mut self, part: &str) {
        let patience = Patience::new(part);
        while self.others.first().is_some_and(|other| !other.has_said(part)) && !self.struck {
            patience.pause().await;
            self.look_for_the_strike().await;
        }
    }

    /// Who was frozen goes on where it stood, after everything has been done without it.
    async fn thaw(&mut self) {
        self.wake_the_frozen();
        self.until_the_thawed_are_done().await;
    }

    /// Whether somebody was overtaken just now. It has gone on then, and finished the step in which it was frozen: if the clock were moved
    /// before, the other process would have gone so far that nothing late could do harm any more.
    async fn overtaken_have_gone_on(&mut self) -> bool {
        self.wake_the_overtaken();
        let woken = std::mem::take(&mut self.thawing);
        if woken {
            self.until_the_thawed_are_done().await;
        }
        woken
    }

    /// The other process has finished a reconciliation: who was frozen goes on beside it.
    fn wake_the_overtaken(&mut self) {
        let overtaken = self.struck && self.strike.is_some_and(|strike| strike.how == How::Overtaken);
        if overtaken && self.served.reached().contains_key("commit-after") {
            self.wake_the_frozen();
        }
    }

    async fn until_the_thawed_are_done(&mut self) {
        let ends = ["commit-after", "merge-after", "release-after"];
        // It says nothing before it was struck.
        let done = |other: &Served| ends.iter().any(|end| other.reached().contains_key(*end));
        #[expect(clippy::disallowed_methods, reason = "how long the harness itself has waited")]
        let since = Instant::now();
        while since.elapsed() < THAWS_WITHIN && !self.others.iter().all(done) {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Of two processes that were started to be struck at the same point one is enough. The other goes on at once, or is replaced.
    async fn make_good_a_second_strike(&mut self) {
        let struck = self.struck_process;
        for served in std::iter::once(&mut self.served).chain(&mut self.others) {
            if served.id() != struck && served.seen() == Seen::Frozen {
                served.signal("CONT");
            }
        }
        if self.strike.is_some_and(|strike| strike.how == How::Killed) {
            let was_killed =
                |served: &mut Served| matches!(served.seen(), Seen::Ended(status) if Served::was_killed(status));
            self.others.retain_mut(|other| !was_killed(other));
            if was_killed(&mut self.served) {
                self.start_another().await;
                self.others.pop();
            }
        }
    }

    fn wake_the_frozen(&mut self) {
        for other in &mut self.others {
            if other.seen() == Seen::Frozen {
                other.signal("CONT");
                self.thawing = true;
            }
        }
    }

    /// Everything ends in good order. What has not been struck yet comes by the points of a shutdown.
    pub async fn finish(&mut self) {
        if self.strike.is_some() && !self.struck {
            self.terminate(|| ()).await;
            self.settle().await;
        }
        let all = std::mem::take(&mut self.others);
        for served in all {
            self.end(served).await;
        }
        self.served.signal("TERM");
        let patience = Patience::new("the process to end");
        while !matches!(self.served.seen(), Seen::Ended(_)) {
            patience.pause().await;
        }
        Self::note_reached(&mut self.reached, &self.served);
    }

    async fn end(&mut self, mut served: Served) {
        served.signal("TERM");
        let patience = Patience::new("a process to end");
        loop {
            match served.seen() {
                Seen::Ended(status) => {
                    // Each process is armed: a second one that comes by the point dies there, too.
                    let struck = Served::was_killed(status) && self.strike.is_some();
                    assert!(status.success() || struck, "it ended with {status}: {}", served.last_words());
                    self.struck |= struck;
                    break;
                }
                Seen::Frozen => served.signal("CONT"),
                Seen::Running => {}
            }
            patience.pause().await;
        }
        Self::note_reached(&mut self.reached, &served);
    }
}

/// What callers and SNS do.
impl World {
    /// Asks until there is an answer; whoever is struck meanwhile is replaced. `true`: it was asked more than once.
    async fn ask(
        &mut self,
        request: impl Fn(&reqwest::Client, &Served) -> reqwest::RequestBuilder,
    ) -> (u16, Value, bool) {
        let patience = Patience::new("an answer");
        let mut repeated = false;
        loop {
            let sent = request(&self.http, &self.served).send();
            let answer = async {
                let answer = sent.await?;
                let status = answer.status().as_u16();
                Ok::<_, reqwest::Error>((status, answer.text().await?))
            };
            tokio::pin!(answer);
            let answered = loop {
                tokio::select! {
                    answered = &mut answer => break Some(answered),
                    () = tokio::time::sleep(PAUSE) => {}
                }
                if self.look_for_the_strike().await {
                    break None;
                }
            };
            match answered {
                // 503: it may pass, so everybody asks again.
                Some(Ok((503, _))) | None => {}
                Some(Ok((status, text))) => {
                    return (status, serde_json::from_str(&text).unwrap_or(Value::String(text)), repeated);
                }
                Some(Err(_)) => {
                    self.look_for_the_strike().await;
                }
            }
            repeated = true;
            self.repeated += 1;
            patience.pause().await;
        }
    }

    async fn get(&mut self, path: &str) -> (u16, Value) {
        let (status, body, _) =
            self.ask(|http, served| http.get(format!("http://{}{path}", served.internal)).bearer_auth(TOKEN)).await;
        (status, body)
    }

    /// Asks for something. A repeated request may be told that it is done already (409).
    pub async fn order(&mut self, method: reqwest::Method, path: &str, body: &Value) -> u16 {
        let text = body.to_string();
        let (status, answer, repeated) = self
            .ask(|http, served| {
                let request = http.request(method.clone(), format!("http://{}{path}", served.internal));
                request.bearer_auth(TOKEN).header("content-type", "application/json").body(text.clone())
            })
            .await;
        let fine = (200..300).contains(&status) || (status == 409 && (repeated || self.struck));
        assert!(fine, "{method} {path}: {status} {answer}");
        status
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> u16 {
        self.order(reqwest::Method::POST, path, body).await
    }

    /// A charge of 14.00 USD; `more` is merged into it.
    pub async fn submit(&mut self, id: &str, permission: &str, more: &Value) {
        let mut body = json!({
            "id": id, "chargePermissionId": permission, "captureNow": true,
            "chargeAmount": { "amount": "14.00", "currencyCode": "USD" },
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        self.charges.push(id.to_owned());
        self.post("/v1/charges", &body).await;
        self.promises.accepted.insert(id.to_owned());
    }

    pub async fn cancel(&mut self, id: &str) {
        let status = self.order(reqwest::Method::DELETE, &format!("/v1/charges/{id}"), &Value::Null).await;
        if status != 409 {
            let events = self.stream("events").await.len();
            self.promises.canceled.insert(id.to_owned(), events);
        }
    }

    pub async fn charge(&mut self, id: &str) -> Value {
        let (status, charge) = self.get(&format!("/v1/charges/{id}")).await;
        assert_eq!(status, 200, "{charge}");
        charge
    }

    /// SNS has this to deliver.
    pub fn send(&mut self, message: SignedMessage) {
        self.post.push(Waiting { message, since: self.sandbox.now() });
    }

    /// Delivers everything until it is answered 200.
    pub async fn deliver(&mut self) {
        for ipn in self.sandbox.notifications() {
            let message = self.sandbox.sign(&ipn, SignatureVersion::V2);
            // SNS has tried since then, whenever we asked for it.
            self.post.push(Waiting { message, since: ipn.at });
        }
        for Waiting { message, since } in std::mem::take(&mut self.post) {
            // SNS has given up long before: the service refuses what is older than SNS_MAX_MESSAGE_AGE.
            if self.sandbox.now().duration_since(since) > SNS_GIVES_UP {
                continue;
            }
            let (status, body, _) = self
                .ask(|http, served| {
                    let request = http.post(format!("http://{}/ipn", served.public)).body(message.body.clone());
                    message.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
                })
                .await;
            assert_eq!(status, 200, "{body}");
            self.promises.acknowledged.insert(message.message_id);
        }
    }

    pub async fn stream(&self, name: &str) -> Vec<BTreeMap<String, String>> {
        let client = redis::Client::open(self.redis_url.as_str()).expect("a URL");
        // Half a second for an answer and one for a connection, the defaults, are little on a busy machine.
        let patient = redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(PATIENCE))
            .set_connection_timeout(Some(PATIENCE));
        let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await.expect("a connection");
        let entries: Vec<(String, BTreeMap<String, String>)> = redis::cmd("XRANGE")
            .arg(format!("{}{name}", self.key_base))
            .arg("-")
            .arg("+")
            .query_async(&mut connection)
            .await
            .expect("XRANGE");
        entries.into_iter().map(|(_, fields)| fields).collect()
    }
}

/// Time.
impl World {
    async fn rest(&mut self) -> Rest {
        let mut rest = Rest::Nothing;
        for permission in self.permissions.clone() {
            let (status, shown) = self.get(&format!("/v1/charge-permissions/{permission}")).await;
            if status == 404 {
                continue;
            }
            assert_eq!(status, 200, "{shown}");
            let next: Option<Timestamp> = shown["nextAt"].as_str().map(|at| at.parse().expect("a time"));
            if shown["reconciling"] == true || next.is_some_and(|at| at <= self.sandbox.now()) {
                return Rest::Busy;
            }
            rest = match (rest, next) {
                (Rest::Busy, _) => Rest::Busy,
                (rest, _) if !shown["waitingForQuota"].is_null() => match rest {
                    Rest::Until(_) | Rest::Waits | Rest::Nothing => Rest::Waits,
                    Rest::Busy => Rest::Busy,
                },
                (Rest::Until(first), Some(at)) => Rest::Until(first.min(at)),
                (Rest::Nothing, Some(at)) => Rest::Until(at),
                (rest, _) => rest,
            };
        }
        rest
    }

    /// A pause, or a failure that shows what everybody did last.
    async fn pause(&mut self, patience: &Patience) {
        if patience.is_over() {
            let mut told = String::new();
            for permission in self.permissions.clone() {
                let (_, shown) = self.get(&format!("/v1/charge-permissions/{permission}")).await;
                let _ = writeln!(told, "  {} {shown}", self.sandbox.now());
            }
            for served in std::iter::once(&self.served).chain(&self.others) {
                let _ = write!(told, "  a process said last:\n{}", served.last_words());
            }
            panic!("waited in vain for {}\n{told}", patience.what);
        }
        patience.pause().await;
    }

    /// Somebody is at work. Unless a claim was lost: then nobody is, until its lease ends.
    async fn work_goes_on(&mut self, patience: &Patience) {
        self.pause(patience).await;
        self.look_for_the_strike().await;
        if self.claim_may_be_lost && patience.since.elapsed() >= CLAIM_IS_LOST {
            self.claim_may_be_lost = false;
            self.advance(LEASE_IS_OVER);
        }
    }

    fn move_on(&mut self, rest: &Rest) {
        match rest {
            Rest::Until(at) => {
                let left = at.duration_since(self.sandbox.now()).max(SignedDuration::ZERO);
                self.advance(left.unsigned_abs() + Duration::from_secs(1));
            }
            Rest::Waits => self.advance(Duration::from_mins(4)),
            Rest::Busy | Rest::Nothing => {}
        }
    }

    /// Delivers, waits and moves the clock until this holds of the charge, or it has ended; nothing is under way then.
    pub async fn until(&mut self, id: &str, what: &str, holds: impl Fn(&Value) -> bool) {
        self.wait_until(id, what, true, holds).await;
    }

    /// As [`Self::until`], while SNS delivers nothing.
    pub async fn until_unheard(&mut self, id: &str, what: &str, holds: impl Fn(&Value) -> bool) {
        self.wait_until(id, what, false, holds).await;
    }

    async fn wait_until(&mut self, id: &str, what: &str, deliver: bool, holds: impl Fn(&Value) -> bool) {
        let mut patience = Patience::new(what);
        let mut moves = 0;
        while moves < MAX_MOVES {
            if deliver {
                self.deliver().await;
            }
            let rest = self.rest().await;
            if matches!(rest, Rest::Busy) {
                self.work_goes_on(&patience).await;
                continue;
            }
            if self.overtaken_have_gone_on().await {
                continue;
            }
            let charge = self.charge(id).await;
            if holds(&charge) || has_ended(&charge) {
                return;
            }
            assert!(!matches!(rest, Rest::Nothing), "nothing is planned, and it is not {what}: {charge}");
            self.move_on(&rest);
            patience = Patience::new(what);
            moves += 1;
        }
        panic!("{id} is never {what}: {}", self.charge(id).await);
    }

    /// Until every charge has ended and nothing is planned. Whoever was frozen goes on then, and it is waited for what comes of it.
    pub async fn settle(&mut self) {
        self.come_to_rest().await;
        if self.others.iter_mut().any(|other| other.seen() == Seen::Frozen) {
            self.thaw().await;
            self.come_to_rest().await;
        }
    }

    async fn come_to_rest(&mut self) {
        let mut patience = Patience::new("everything to settle");
        let mut moves = 0;
        while moves < MAX_MOVES {
            self.deliver().await;
            match self.rest().await {
                Rest::Busy => {
                    self.work_goes_on(&patience).await;
                }
                Rest::Nothing if !self.thawing => {
                    let mut open = Vec::new();
                    for id in self.charges.clone() {
                        open.extend(Some(self.charge(&id).await).filter(|charge| !has_ended(charge)));
                    }
                    assert!(open.is_empty(), "nothing is planned, and these are open: {open:?}");
                    return;
                }
                _ if self.overtaken_have_gone_on().await => {}
                rest => {
                    self.move_on(&rest);
                    patience = Patience::new("everything to settle");
                    moves += 1;
                }
            }
        }
        panic!("it does not settle");
    }

    pub fn in_days(&self, days: u32) -> Timestamp {
        self.sandbox.now().saturating_add(DAY * days).expect("a time")
    }
}

fn has_ended(charge: &Value) -> bool {
    ["captured", "canceled", "abandoned"].iter().any(|end| charge["state"] == *end)
}

/// The marker, as `init --first` writes it.
async fn init(redis_url: &str, prefix: &str, sandbox: &Sandbox, clock: Clock) {
    let account = Account {
        merchant: sandbox.merchant_id().parse().expect("a merchant id"),
        environment: Environment::Sandbox,
        region: Region::Na,
    };
    let settings = StoreSettings {
        url: redis_url.to_owned().into(),
        tls: TlsSettings::default(),
        key_prefix: prefix.to_owned(),
        dedupe_ttl: 16 * DAY,
        journal_retention: 30 * DAY,
        event_retention: 30 * DAY,
        event_retention_limit: 30 * DAY,
        intent_retention: 400 * DAY,
        confirmation_delay: Duration::from_mins(30),
        lease: Duration::from_mins(3),
        bounds: Bounds::default(),
        quota: Limits::of(Environment::Sandbox, Share::WHOLE),
        replicas: Replicas::default(),
    };
    let store = Store::connect(settings, account, clock).expect("the store");
    assert!(matches!(store.init(Init::First).await.expect("init"), Initialised::Done { .. }));
}

/// A wait for a real process, with a bound.
struct Patience {
    what: String,
    since: Instant,
}

impl Patience {
    #[expect(clippy::disallowed_methods, reason = "how long the harness itself has waited")]
    fn new(what: &str) -> Self {
        Self { what: what.to_owned(), since: Instant::now() }
    }

    fn is_over(&self) -> bool {
        self.since.elapsed() >= PATIENCE
    }

    async fn pause(&self) {
        assert!(!self.is_over(), "waited in vain for {}", self.what);
        tokio::time::sleep(PAUSE).await;
    }
}
