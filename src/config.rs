//! Every setting, and the only reader of the environment.
//!
//! Settings are environment variables and flags of the same names. All mistakes are reported at once, each naming its variable and what
//! was expected. Secrets come from files only. What moves the trust (other API hosts, other certificate names, a movable clock) is for
//! sandboxes and is refused in a live environment.

#[cfg(feature = "sandbox")]
pub mod crash_at;
mod onward;
pub mod policy_file;
mod reader;
mod redis;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser};
use secrecy::SecretString;

use crate::amazon_pay::ClientSettings;
use crate::clock::Clock;
use crate::forwarder::ForwardSettings;
use crate::model::ids::{Account, Region};
use crate::recovery::policies::Policies;
use crate::sns::SnsSettings;
use crate::store::StoreSettings;
use crate::telemetry::LogFormat;
use crate::telemetry::trace::TraceSettings;
use reader::Reader;

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $field:ident = $name:literal, $long:literal;)*) => {
        /// The settings as given: one flag and one environment variable each.
        #[derive(Clone, Default, Args)]
        pub struct Given {
            $(
                #[doc = concat!("`", $name, "`")]
                #[arg(long = $long, env = $name, value_name = "VALUE", hide_env_values = true, help = concat!($($doc,)+).trim())]
                pub $field: Option<String>,
            )*
        }

        /// Names only: a value may hold a password.
        impl std::fmt::Debug for Given {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let given = [$(($name, self.$field.is_some()),)*];
                f.debug_set().entries(given.into_iter().filter(|(_, set)| *set).map(|(name, _)| name)).finish()
            }
        }

        /// The names of all settings.
        pub const NAMES: &[&str] = &[$($name,)*];

        impl Given {
            /// An empty variable is one that is not set.
            fn without_empty(mut self) -> Self {
                $(self.$field = self.$field.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());)*
                self
            }
        }
    };
}

settings! {
    /// Address of the public listener: POST /ipn and nothing else [default: 0.0.0.0:8080]
    listen_addr = "LISTEN_ADDR", "listen-addr";
    /// Address of the internal listener: /v1, /healthz, /readyz, /metrics [default: 127.0.0.1:8081]
    internal_listen_addr = "INTERNAL_LISTEN_ADDR", "internal-listen-addr";
    /// File that holds the bearer token of the internal API (required)
    internal_api_token_file = "INTERNAL_API_TOKEN_FILE", "internal-api-token-file";
    /// URL of a server (redis://, rediss://), of Sentinels (redis-sentinel://h1,h2/name) or of a cluster (redis-cluster://h1,h2) (this or REDIS_URL_FILE is required)
    redis_url = "REDIS_URL", "redis-url";
    /// File that holds the Redis URL, for URLs with a password
    redis_url_file = "REDIS_URL_FILE", "redis-url-file";
    /// PEM file: for rediss://, the CAs whose certificates are believed, instead of the system's
    redis_ca_file = "REDIS_CA_FILE", "redis-ca-file";
    /// PEM file: the certificate that Redis is shown; with REDIS_CLIENT_KEY_FILE
    redis_client_certificate_file = "REDIS_CLIENT_CERTIFICATE_FILE", "redis-client-certificate-file";
    /// PEM file: the private key of that certificate
    redis_client_key_file = "REDIS_CLIENT_KEY_FILE", "redis-client-key-file";
    /// true to serve although Redis may lose writes that it has answered; said at each start [default: false]
    accept_unsafe_durability = "ACCEPT_UNSAFE_DURABILITY", "accept-unsafe-durability";
    /// Replicas that must confirm what is promised: notifications, marks, submissions, cancellations, stops [default: 0]
    wait_replicas = "WAIT_REPLICAS", "wait-replicas";
    /// How long they may take, at most 4s [default: 1s]
    wait_replicas_timeout = "WAIT_REPLICAS_TIMEOUT", "wait-replicas-timeout";
    /// First part of every Redis key [default: amazon-pay]
    key_prefix = "KEY_PREFIX", "key-prefix";
    /// na, eu or jp (required)
    amazon_pay_region = "AMAZON_PAY_REGION", "amazon-pay-region";
    /// Public key id from Seller Central (required)
    amazon_pay_public_key_id = "AMAZON_PAY_PUBLIC_KEY_ID", "amazon-pay-public-key-id";
    /// live or sandbox; only when the public key id does not begin with LIVE or SANDBOX
    amazon_pay_environment = "AMAZON_PAY_ENVIRONMENT", "amazon-pay-environment";
    /// File that holds the private key, PEM (required)
    amazon_pay_private_key_file = "AMAZON_PAY_PRIVATE_KEY_FILE", "amazon-pay-private-key-file";
    /// The merchant account: MerchantID of its notifications (required)
    amazon_pay_merchant_id = "AMAZON_PAY_MERCHANT_ID", "amazon-pay-merchant-id";
    /// Time-out of a call to Amazon [default: 45s]
    amazon_pay_timeout = "AMAZON_PAY_TIMEOUT", "amazon-pay-timeout";
    /// SNS topics whose messages are accepted, separated by commas (required)
    sns_topic_arns = "SNS_TOPIC_ARNS", "sns-topic-arns";
    /// Oldest accepted notification, by its signed time [default: 15d]
    sns_max_message_age = "SNS_MAX_MESSAGE_AGE", "sns-max-message-age";
    /// true to turn away (503) messages of SignatureVersion 1, SHA-1; only once version 2 was seen to arrive [default: false]
    require_signature_v2 = "REQUIRE_SIGNATURE_V2", "require-signature-v2";
    /// true to turn away (503) certificates whose issuer is not known here [default: false, TLS to the SNS host vouches]
    require_chain = "REQUIRE_CHAIN", "require-chain";
    /// PEM file with intermediates that are known besides the bundled ones; they must lead to a root of Amazon
    sns_intermediates_file = "SNS_INTERMEDIATES_FILE", "sns-intermediates-file";
    /// How long a message id is remembered; longer than SNS_MAX_MESSAGE_AGE and 5m [default: 16d]
    dedupe_ttl = "DEDUPE_TTL", "dedupe-ttl";
    /// How long the journal of notifications is kept [default: 30d]
    journal_retention = "JOURNAL_RETENTION", "journal-retention";
    /// An older handler that is sent every accepted notification as Amazon signed it, for example https://shop.example/ipn [default: none]
    forward_url = "FORWARD_URL", "forward-url";
    /// Notifications on their way to it at a time, 1 to 64 [default: 4]
    forward_at_once = "FORWARD_AT_ONCE", "forward-at-once";
    /// How long that handler may take for an answer, at most 30s [default: 15s, as SNS gives it]
    forward_timeout = "FORWARD_TIMEOUT", "forward-timeout";
    /// How long a notification is tried again that it does not take; at most half of JOURNAL_RETENTION [default: 3d]
    forward_give_up = "FORWARD_GIVE_UP", "forward-give-up";
    /// How long events are kept [default: 30d]
    event_retention = "EVENT_RETENTION", "event-retention";
    /// How long events are kept for a consumer group that has not acknowledged them [default: 60d, or EVENT_RETENTION if that is longer]
    event_retention_limit = "EVENT_RETENTION_LIMIT", "event-retention-limit";
    /// How long ended charges are kept [default: 400d]
    intent_retention = "INTENT_RETENTION", "intent-retention";
    /// X: how long an old copy of a request may still be accepted by Amazon [default: 30m]
    confirmation_delay = "CONFIRMATION_DELAY", "confirmation-delay";
    /// The part of Amazon's documented quota that this service uses, 0.01 to 1 [default: 0.5]
    quota_share = "QUOTA_SHARE", "quota-share";
    /// Page where the buyer updates the payment method; {chargePermissionId} is replaced [default: the guides' link of the region]
    update_payment_method_url = "UPDATE_PAYMENT_METHOD_URL", "update-payment-method-url";
    /// Time zone in which the monthly limit turns [default: America/Los_Angeles, UTC or Asia/Tokyo by region]
    monthly_limit_time_zone = "MONTHLY_LIMIT_TIME_ZONE", "monthly-limit-time-zone";
    /// TOML file with the recovery policies [default: none, the built-in policy]
    recovery_policy_file = "RECOVERY_POLICY_FILE", "recovery-policy-file";
    /// Reconciliations at a time in this process [default: 4]
    workers = "WORKERS", "workers";
    /// json or text [default: json]
    log_format = "LOG_FORMAT", "log-format";
    /// What is logged, in the form of tracing's filters [default: info]
    rust_log = "RUST_LOG", "rust-log";
    /// Collector that takes traces as OTLP over HTTP, for example http://127.0.0.1:4318 [default: none, no traces]
    otel_exporter_otlp_endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT", "otel-exporter-otlp-endpoint";
    /// The part of all traces that is sent, 0 to 1 [default: 1]
    trace_share = "TRACE_SHARE", "trace-share";
    /// Sandbox only: replaces Amazon's API, for example http://127.0.0.1:9000
    amazon_pay_api_base_url = "AMAZON_PAY_API_BASE_URL", "amazon-pay-api-base-url";
    /// Sandbox only: replaces the SNS API (ConfirmSubscription)
    sns_api_base_url = "SNS_API_BASE_URL", "sns-api-base-url";
    /// Sandbox only: replaces https://sns.<region>.amazonaws.com in certificate addresses
    sns_certificate_base_url = "SNS_CERTIFICATE_BASE_URL", "sns-certificate-base-url";
    /// Sandbox only: replaces the name that signing certificates must bear
    sns_certificate_name = "SNS_CERTIFICATE_NAME", "sns-certificate-name";
    /// Sandbox only: PEM file; the signing certificate must be one of these or be issued by one, Amazon's own do not count
    sns_trust_anchors_file = "SNS_TRUST_ANCHORS_FILE", "sns-trust-anchors-file";
    /// Sandbox only: file with the milliseconds by which this process is ahead of time
    clock_offset_file = "CLOCK_OFFSET_FILE", "clock-offset-file";
}

/// A command line without anything on it.
#[derive(Debug, Parser)]
struct Environment {
    #[command(flatten)]
    given: Given,
}

impl Given {
    /// The settings of `serve`, where this shell has them.
    #[must_use]
    pub fn from_environment() -> Self {
        Environment::try_parse_from(["serve"]).map(|environment| environment.given).unwrap_or_default()
    }
}

/// One mistake in the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {message}")]
pub struct Mistake {
    /// The variable.
    pub name: &'static str,
    /// What was expected, and what was found.
    pub message: String,
}

/// Everything the service goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Merchant, environment, region.
    pub account: Account,
    /// Public listener.
    pub listen_addr: SocketAddr,
    /// Internal listener.
    pub internal_listen_addr: SocketAddr,
    /// Bearer token of the internal API.
    pub internal_api_token: SecretString,
    /// Redis.
    pub store: StoreSettings,
    /// Serves although Redis may lose writes that it has answered.
    pub accept_unsafe_durability: bool,
    /// SNS.
    pub sns: SnsSettings,
    /// Amazon Pay.
    pub amazon_pay: ClientSettings,
    /// When and how often a charge is tried.
    pub policies: Policies,
    /// Reconciliations at a time.
    pub workers: usize,
    /// Where notifications are forwarded to; `None`: nowhere.
    pub forward: Option<ForwardSettings>,
    /// Where traces go; `None`: nowhere.
    pub traces: Option<TraceSettings>,
    /// Moves this process ahead of time; never in a live environment.
    pub clock_offset_file: Option<PathBuf>,
}

/// What `serve --learn` goes by.
#[derive(Debug, Clone)]
pub struct LearnSettings {
    /// Merchant, environment, region.
    pub account: Account,
    /// Public listener.
    pub listen_addr: SocketAddr,
    /// SNS, without topics.
    pub sns: SnsSettings,
}

impl Settings {
    /// The clock that the settings ask for.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock_offset_file.clone().map_or_else(Clock::system, Clock::from_offset_file)
    }
}

/// How logs are written; never fails, so that mistakes can be reported.
#[must_use]
pub fn logging(given: &Given) -> (LogFormat, String) {
    let format = if given.log_format.as_deref() == Some("text") { LogFormat::Text } else { LogFormat::Json };
    let filter = given.rust_log.clone().filter(|filter| !filter.trim().is_empty()).unwrap_or_else(|| "info".to_owned());
    (format, filter)
}

/// What `init` needs: the account and its Redis.
///
/// # Errors
/// All mistakes at once.
pub fn read_store(given: Given) -> Result<(Account, StoreSettings, Clock), Vec<Mistake>> {
    let mut reader = Reader::new(given);
    let account = reader.account();
    let store = reader.store(account.as_ref());
    let clock = reader.clock();
    reader.refuse_sandbox_settings_in_live(account.as_ref());
    match (account, store) {
        (Some(account), Some(store)) if reader.mistakes.is_empty() => Ok((account, store, clock)),
        _ => Err(reader.mistakes),
    }
}

/// How `verify` judges when it is to judge as `serve` would.
///
/// # Errors
/// All mistakes at once.
pub fn read_verification(given: Given) -> Result<(SnsSettings, Clock), Vec<Mistake>> {
    let mut reader = Reader::new(given);
    let account = reader.account();
    let sns = reader.sns();
    let clock = reader.clock();
    reader.refuse_sandbox_settings_in_live(account.as_ref());
    sns.filter(|_| reader.mistakes.is_empty()).map(|sns| (sns, clock)).ok_or(reader.mistakes)
}

/// Where the internal listener of this configuration can be reached from the same host, for `healthcheck`.
///
/// # Errors
/// When the address cannot be read.
pub fn read_internal_address(given: Given) -> Result<SocketAddr, Vec<Mistake>> {
    let mut reader = Reader::new(given);
    let address = reader.internal_listen_addr();
    reachable(address).filter(|_| reader.mistakes.is_empty()).ok_or(reader.mistakes)
}

/// Where the internal API can be reached from the same host, and its token, for the commands of operators.
///
/// # Errors
/// All mistakes at once.
pub fn read_internal_api(given: Given) -> Result<(SocketAddr, SecretString), Vec<Mistake>> {
    let mut reader = Reader::new(given);
    let (address, token) = (reader.internal_listen_addr(), reader.token());
    match (reachable(address), token) {
        (Some(address), Some(token)) if reader.mistakes.is_empty() => Ok((address, token)),
        _ => Err(reader.mistakes),
    }
}

/// An address that is listened on, as one that can be connected to.
fn reachable(listening: Option<SocketAddr>) -> Option<SocketAddr> {
    let mut address = listening?;
    if address.ip().is_unspecified() {
        let loopback: IpAddr = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    Some(address)
}

/// What `policy explain` goes by: the policies of a region, that of the settings (or na) if none is given.
///
/// # Errors
/// All mistakes at once.
pub fn read_policies(given: Given, region: Option<Region>) -> Result<(Policies, Region), Vec<Mistake>> {
    let mut reader = Reader::new(given);
    let region = region.or_else(|| reader.region_or_na());
    let x = reader.confirmation_delay();
    let policies = reader.policies(region, x);
    match (policies, region) {
        (Some(policies), Some(region)) if reader.mistakes.is_empty() => Ok((policies, region)),
        _ => Err(reader.mistakes),
    }
}

/// What `serve --learn` needs: the account and the public listener.
///
/// # Errors
/// All mistakes at once.
pub fn read_learning(given: Given) -> Result<(LearnSettings, Clock), Vec<Mistake>> {
    let mut reader = Reader::new(given);
    let account = reader.account();
    let listen_addr = reader.listen_addr();
    let sns = reader.sns_without_topics();
    let clock = reader.clock();
    reader.check_log_format();
    reader.refuse_sandbox_settings_in_live(account.as_ref());
    match (account, listen_addr, sns) {
        (Some(account), Some(listen_addr), Some(sns)) if reader.mistakes.is_empty() => {
            Ok((LearnSettings { account, listen_addr, sns }, clock))
        }
        _ => Err(reader.mistakes),
    }
}

/// What `serve` needs: everything.
///
/// # Errors
/// All mistakes at once.
pub fn read(given: Given) -> Result<Settings, Vec<Mistake>> {
    let mut reader = Reader::new(given);
    let settings = reader.settings();
    match settings {
        Some(settings) if reader.mistakes.is_empty() => Ok(settings),
        _ => Err(reader.mistakes),
    }
}
