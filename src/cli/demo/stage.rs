//! The set-up: a private Redis, a local Amazon Pay with SNS, the service as a process, and one clock for all of them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::checks::Checks;
use super::service::{Launch, Service};
use super::timeline::{Actor, Timeline, roughly};
use super::words;
use crate::clock::{Clock, Stopwatch};
use crate::config::{self, Given};
use crate::model::ids::ChargePermissionId;
use crate::sandbox::redis_server::RedisServer;
use crate::sandbox::{PermissionSpec, RequestRecord, Sandbox, SandboxSettings, SignatureVersion, SignedMessage};
use crate::store::Store;

/// The bearer token of the internal API: this run's only, on the loop-back interface.
const TOKEN: &str = "token-of-the-demo-only";
/// The consumer group that reads the events.
const GROUP: &str = "billing";
/// What every buyer pays.
pub(super) const PRICE: &str = "14.00";
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits for something, not for ever.
pub(super) struct Patience(Stopwatch);

impl Patience {
    pub(super) fn new() -> Self {
        Self(Stopwatch::start())
    }

    pub(super) async fn pause(&self, what: &str) -> anyhow::Result<()> {
        ensure!(self.0.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

/// A buyer of one story.
pub(super) struct Buyer {
    /// What the story is about, in the ledger at the end.
    pub(super) label: &'static str,
    pub(super) permission: String,
    /// What the buyer must have paid in the end.
    pub(super) owes: Decimal,
    /// How often Amazon must have been asked to charge.
    pub(super) asked: usize,
}

/// Everything that runs. Fields are dropped in this order: the service ends before what it needs.
pub(super) struct Stage {
    service: Option<Service>,
    launch: Launch,
    pub(super) timeline: Timeline,
    pub(super) checks: Checks,
    pub(super) sandbox: Sandbox,
    pub(super) redis: RedisServer,
    pub(super) buyers: Vec<Buyer>,
    pub(super) clock: Clock,
    records: Receiver<RequestRecord>,
    store: Store,
    http: reqwest::Client,
    folder: TempDir,
}

impl Stage {
    pub(super) async fn build() -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("amazon-pay-ipn-demo-").context("no temporary folder")?;
        // The service asks the same file, so one write moves the time of everybody at once.
        let clock = Clock::from_offset_file(folder.path().join("clock"));
        let redis = RedisServer::start()?;
        let sandbox = Sandbox::start(SandboxSettings::new(clock.clone())).await?;
        let launch = Launch::new(environment(&folder, &sandbox, &redis)?)?;
        launch.run(&["init", "--first"]).await?;
        let store = store(&folder, &sandbox, &redis)?;
        store.create_group(GROUP).await?;
        let mut stage = Self {
            service: None,
            launch,
            timeline: Timeline::new(),
            checks: Checks::default(),
            records: sandbox.subscribe(),
            sandbox,
            redis,
            buyers: Vec::new(),
            clock,
            store,
            http: reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?,
            folder,
        };
        stage.start_service().await?;
        Ok(stage)
    }

    pub(super) async fn start_service(&mut self) -> anyhow::Result<()> {
        self.service = Some(Service::start(&self.launch).await?);
        Ok(())
    }

    /// SIGKILL.
    pub(super) async fn kill_service(&mut self) -> anyhow::Result<()> {
        let service = self.service.take().context("the service does not run")?;
        let ended = service.kill().await?;
        ensure!(ended.code().is_none(), "the service was to be killed, but ended with {ended}");
        Ok(())
    }

    pub(super) fn service(&self) -> anyhow::Result<&Service> {
        self.service.as_ref().context("the service does not run")
    }

    /// Stops everything in order; the service's end is the last thing that is checked.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        if let Some(service) = self.service.take() {
            let ended = service.stop().await?;
            self.checks.same("SIGTERM: the service finishes what it has in hand", "exit status: 0", &ended.to_string());
        }
        self.sandbox.stop().await;
        Ok(())
    }
}

/// Time.
impl Stage {
    /// Moves the time of sandbox, service and demo; what was going on before has to be at rest.
    pub(super) fn move_to(&mut self, at: Timestamp, why: &str) -> anyhow::Result<()> {
        self.timeline.flush()?;
        let ahead = Duration::try_from(at.duration_since(self.clock.now())).unwrap_or_default();
        let offset = i128::from(self.clock.offset_ms()) + i128::try_from(ahead.as_millis())?;
        let file = self.folder.path().join("clock");
        let draft = self.folder.path().join("clock.new");
        std::fs::write(&draft, offset.to_string())?;
        std::fs::rename(draft, file)?;
        self.timeline.note(self.clock.now(), Actor::Clock, format!("{} later: {why}", roughly(ahead)));
        Ok(())
    }

    pub(super) fn pass(&mut self, span: Duration, why: &str) -> anyhow::Result<()> {
        let at = self.clock.now().checked_add(span)?;
        self.move_to(at, why)
    }

    pub(super) fn note(&mut self, actor: Actor, text: impl Into<String>) {
        self.timeline.note(self.clock.now(), actor, text);
    }
}

/// Buyers and the shop that charges them.
impl Stage {
    /// A buyer consents to be charged every month.
    pub(super) fn new_buyer(&mut self, label: &'static str, pays: bool, asked: usize) -> anyhow::Result<String> {
        let permission = self.sandbox.create_permission(PermissionSpec::recurring("USD"));
        let owes = if pays { PRICE.parse()? } else { Decimal::ZERO };
        self.buyers.push(Buyer { label, permission: permission.clone(), owes, asked });
        Ok(permission)
    }

    /// The shop hands a charge to the service.
    pub(super) async fn submit(&mut self, id: &str, permission: &str) -> anyhow::Result<()> {
        let at = self.clock.now();
        let body = json!({
            "id": id, "chargePermissionId": permission, "captureNow": true,
            "chargeAmount": { "amount": PRICE, "currencyCode": "USD" },
        });
        let request = self.http.post(format!("{}/v1/charges", self.service()?.internal)).bearer_auth(TOKEN);
        let answer = request.header("content-type", "application/json").body(body.to_string()).send().await?;
        let status = answer.status().as_u16();
        self.timeline.note(
            at,
            Actor::Shop,
            format!("POST /v1/charges  {id}: {PRICE} USD from {permission} → {status}"),
        );
        ensure!(status == 202, "the charge was not accepted: {}", answer.text().await?);
        Ok(())
    }

    pub(super) async fn charge(&self, id: &str) -> anyhow::Result<Value> {
        let (status, charge) = self.ask(id).await?;
        ensure!(status == 200, "the charge {id} cannot be read: {status}");
        Ok(charge)
    }

    /// The shop asks for a charge: status and body of the answer.
    pub(super) async fn ask(&self, id: &str) -> anyhow::Result<(u16, Value)> {
        let request = self.http.get(format!("{}/v1/charges/{id}", self.service()?.internal)).bearer_auth(TOKEN);
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), serde_json::from_str(&answer.text().await?)?))
    }

    /// Waits until the charge is in a state other than just submitted and its permission is at rest; prints what happened.
    pub(super) async fn watch(&mut self, id: &str, permission: &str, state: &str) -> anyhow::Result<Value> {
        let patience = Patience::new();
        loop {
            let charge = self.charge(id).await?;
            if charge["state"] == state && self.is_at_rest(permission).await {
                self.settle(permission).await?;
                return Ok(charge);
            }
            if let Err(in_vain) = patience.pause(&format!("{id} to be {state}; it is {}", charge["state"])).await {
                self.collect().await?;
                bail!("{in_vain}; {}", self.whereabouts(permission).await);
            }
        }
    }

    /// Where a permission stands, for a run that went wrong: a lease that a crash left behind, a time that is far off.
    async fn whereabouts(&self, permission: &str) -> String {
        let shown = async {
            let url = format!("{}/v1/charge-permissions/{permission}", self.service()?.internal);
            let answer = self.http.get(url).bearer_auth(TOKEN).send().await?.text().await?;
            anyhow::Ok(serde_json::from_str::<Value>(&answer)?)
        };
        match shown.await {
            Ok(shown) => {
                let (working, next) = (&shown["reconciling"], &shown["nextAt"]);
                let waits: Vec<_> =
                    shown["openCharges"].as_array().into_iter().flatten().map(|charge| &charge["waitsFor"]).collect();
                let now = self.clock.now();
                format!(
                    "at {now} {permission} has reconciling {working}, nextAt {next}, open charges that wait for {waits:?}"
                )
            }
            Err(error) => format!("{permission} cannot be read: {error:#}"),
        }
    }

    async fn is_at_rest(&self, permission: &str) -> bool {
        let Ok(id) = permission.parse::<ChargePermissionId>() else { return false };
        self.store.is_at_rest(&id).await.unwrap_or(false)
    }

    /// Waits until nothing is to be done now about a permission; prints what happened.
    pub(super) async fn settle(&mut self, permission: &str) -> anyhow::Result<()> {
        let patience = Patience::new();
        while !self.is_at_rest(permission).await {
            if let Err(in_vain) = patience.pause(&format!("{permission} to come to rest")).await {
                bail!("{in_vain}; {}", self.whereabouts(permission).await);
            }
        }
        self.collect().await
    }

    /// Prints the requests that Amazon Pay got and the events that the consumer group reads; acknowledges these.
    pub(super) async fn collect(&mut self) -> anyhow::Result<()> {
        self.collect_requests()?;
        let patience = Patience::new();
        loop {
            let Ok(events) = self.store.read_group(GROUP, "demo", 100, Duration::from_millis(1)).await else {
                patience.pause("the events").await?;
                continue;
            };
            if events.is_empty() {
                break;
            }
            for event in &events {
                self.timeline.note(event.time.parse()?, Actor::Event, words::event(event));
            }
            let entries: Vec<&str> = events.iter().map(|event| event.entry.as_str()).collect();
            self.store.acknowledge(GROUP, &entries).await?;
        }
        Ok(self.timeline.flush()?)
    }

    pub(super) fn collect_requests(&mut self) -> anyhow::Result<()> {
        loop {
            match self.records.try_recv() {
                // The harmless call with which each start of the service tries its key: of a permission that nobody has.
                Ok(record) if record.status == 404 => {}
                Ok(record) => self.timeline.note(record.at, Actor::ToAmazon, words::request(&record)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return Ok(()),
                Err(TryRecvError::Lagged(lost)) => bail!("{lost} requests were not seen"),
            }
        }
    }
}

/// Amazon's notifications.
impl Stage {
    /// SNS posts every notification that Amazon has to send, each `copies` times.
    pub(super) async fn deliver(&mut self, copies: usize) -> anyhow::Result<Vec<u16>> {
        let mut statuses = Vec::new();
        for (index, ipn) in self.sandbox.notifications().iter().enumerate() {
            let version = if index % 2 == 0 { SignatureVersion::V1 } else { SignatureVersion::V2 };
            let message = self.sandbox.sign(ipn, version);
            for copy in 0..copies {
                let again = if copy > 0 { "again: " } else { "" };
                let what = format!("{again}{ipn}");
                statuses.push(self.post(Actor::Sns, &message, &what).await?);
            }
        }
        Ok(statuses)
    }

    /// Posts one message; gives the status of the answer.
    pub(super) async fn post(&mut self, actor: Actor, message: &SignedMessage, what: &str) -> anyhow::Result<u16> {
        let at = self.clock.now();
        let status = self.sandbox.deliver(&format!("{}/ipn", self.service()?.public), message).await?;
        self.timeline.note(at, actor, format!("POST /ipn  {what} → {status}"));
        Ok(status)
    }
}

/// The settings of the service: these and nothing else. Secrets are files.
fn environment(
    folder: &TempDir,
    sandbox: &Sandbox,
    redis: &RedisServer,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let write = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    Ok(vec![
        ("LISTEN_ADDR", "127.0.0.1:0".to_owned()),
        ("INTERNAL_LISTEN_ADDR", "127.0.0.1:0".to_owned()),
        ("INTERNAL_API_TOKEN_FILE", write("token", TOKEN)?),
        ("REDIS_URL", redis.url()),
        ("AMAZON_PAY_REGION", "na".to_owned()),
        ("AMAZON_PAY_PUBLIC_KEY_ID", sandbox.public_key_id().to_owned()),
        ("AMAZON_PAY_PRIVATE_KEY_FILE", write("private-key.pem", sandbox.merchant_private_key_pem())?),
        ("AMAZON_PAY_MERCHANT_ID", sandbox.merchant_id().to_owned()),
        ("AMAZON_PAY_TIMEOUT", "10s".to_owned()),
        ("QUOTA_SHARE", "1".to_owned()),
        ("AMAZON_PAY_API_BASE_URL", sandbox.base_url().to_owned()),
        ("SNS_TOPIC_ARNS", sandbox.topic_arn().to_owned()),
        ("SNS_API_BASE_URL", sandbox.base_url().to_owned()),
        ("SNS_CERTIFICATE_BASE_URL", sandbox.certificate_base_url().to_owned()),
        ("SNS_CERTIFICATE_NAME", sandbox.certificate_name().to_owned()),
        ("SNS_TRUST_ANCHORS_FILE", write("trust-anchor.pem", sandbox.trust_anchor_pem())?),
        ("CLOCK_OFFSET_FILE", clock_file(folder.path())),
    ])
}

fn clock_file(folder: &Path) -> String {
    folder.join("clock").display().to_string()
}

/// The consumer's own connection to the event stream.
fn store(folder: &TempDir, sandbox: &Sandbox, redis: &RedisServer) -> anyhow::Result<Store> {
    let given = Given {
        redis_url: Some(redis.url()),
        amazon_pay_region: Some("na".to_owned()),
        amazon_pay_public_key_id: Some(sandbox.public_key_id().to_owned()),
        amazon_pay_merchant_id: Some(sandbox.merchant_id().to_owned()),
        clock_offset_file: Some(clock_file(folder.path())),
        ..Given::default()
    };
    match config::read_store(given) {
        Ok((account, settings, clock)) => Ok(Store::connect(settings, account, clock)?),
        Err(mistakes) => bail!("{}", mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}
