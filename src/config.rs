//! Every setting, and the only reader of the environment.
//!
//! Settings are environment variables and flags of the same names. All mistakes are reported at once, each naming its variable and what
//! was expected. Secrets come from files only. What moves the trust (other API hosts, other certificate names, a movable clock) is for
//! sandboxes and is refused in a live environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;
use secrecy::{ExposeSecret, SecretString};

use crate::amazon_pay::{ClientSettings, DEFAULT_TIMEOUT};
use crate::clock::Clock;
use crate::model::ids::{Account, Environment, MerchantId, Region};
use crate::reconciler::LEASE_MARGIN;
use crate::recovery::policy::Policy;
use crate::sns::{SnsSettings, TopicArn};
use crate::store::{Bounds, StoreSettings, check_url};
use crate::telemetry::LogFormat;

/// A day.
const DAY: Duration = Duration::from_hours(24);
/// A bearer token shorter than this can be guessed.
const MIN_TOKEN_CHARS: usize = 16;
/// Amazon answers within 30 s in Japan; a time-out below that gives up on answers that come.
const MIN_LIVE_TIMEOUT: Duration = Duration::from_secs(35);

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $field:ident = $name:literal, $long:literal;)*) => {
        /// The settings as given: one flag and one environment variable each.
        #[derive(Debug, Clone, Default, Args)]
        pub struct Given {
            $(
                #[doc = concat!("`", $name, "`")]
                #[arg(long = $long, env = $name, value_name = "VALUE", hide_env_values = true, help = concat!($($doc,)+).trim())]
                pub $field: Option<String>,
            )*
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
    /// redis:// or rediss:// URL (this or REDIS_URL_FILE is required)
    redis_url = "REDIS_URL", "redis-url";
    /// File that holds the Redis URL, for URLs with a password
    redis_url_file = "REDIS_URL_FILE", "redis-url-file";
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
    /// How long a message id is remembered; longer than SNS_MAX_MESSAGE_AGE [default: 16d]
    dedupe_ttl = "DEDUPE_TTL", "dedupe-ttl";
    /// How long the journal of notifications is kept [default: 30d]
    journal_retention = "JOURNAL_RETENTION", "journal-retention";
    /// How long events are kept [default: 30d]
    event_retention = "EVENT_RETENTION", "event-retention";
    /// How long ended charges are kept [default: 400d]
    intent_retention = "INTENT_RETENTION", "intent-retention";
    /// X: how long an old copy of a request may still be accepted by Amazon [default: 30m]
    confirmation_delay = "CONFIRMATION_DELAY", "confirmation-delay";
    /// Page where the buyer updates the payment method; {chargePermissionId} is replaced [default: the guides' link of the region]
    update_payment_method_url = "UPDATE_PAYMENT_METHOD_URL", "update-payment-method-url";
    /// Time zone in which the monthly limit turns [default: America/Los_Angeles, UTC or Asia/Tokyo by region]
    monthly_limit_time_zone = "MONTHLY_LIMIT_TIME_ZONE", "monthly-limit-time-zone";
    /// Reconciliations at a time in this process [default: 4]
    workers = "WORKERS", "workers";
    /// json or text [default: json]
    log_format = "LOG_FORMAT", "log-format";
    /// What is logged, in the form of tracing's filters [default: info]
    rust_log = "RUST_LOG", "rust-log";
    /// Sandbox only: replaces Amazon's API, for example http://127.0.0.1:9000
    amazon_pay_api_base_url = "AMAZON_PAY_API_BASE_URL", "amazon-pay-api-base-url";
    /// Sandbox only: replaces the SNS API (ConfirmSubscription)
    sns_api_base_url = "SNS_API_BASE_URL", "sns-api-base-url";
    /// Sandbox only: replaces https://sns.<region>.amazonaws.com in certificate addresses
    sns_certificate_base_url = "SNS_CERTIFICATE_BASE_URL", "sns-certificate-base-url";
    /// Sandbox only: replaces the name that signing certificates must bear
    sns_certificate_name = "SNS_CERTIFICATE_NAME", "sns-certificate-name";
    /// Sandbox only: PEM file; the signing certificate must be issued by one of these
    sns_trust_anchors_file = "SNS_TRUST_ANCHORS_FILE", "sns-trust-anchors-file";
    /// Sandbox only: file with the milliseconds by which this process is ahead of time
    clock_offset_file = "CLOCK_OFFSET_FILE", "clock-offset-file";
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
    /// SNS.
    pub sns: SnsSettings,
    /// Amazon Pay.
    pub amazon_pay: ClientSettings,
    /// When and how often a charge is tried.
    pub policy: Policy,
    /// Reconciliations at a time.
    pub workers: usize,
    /// Moves this process ahead of time; never in a live environment.
    pub clock_offset_file: Option<PathBuf>,
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
    let mut reader = Reader { given: given.without_empty(), mistakes: Vec::new() };
    let account = reader.account();
    let store = reader.store();
    let clock =
        reader.given.clock_offset_file.clone().map_or_else(Clock::system, |path| Clock::from_offset_file(path.into()));
    reader.refuse_sandbox_settings_in_live(account.as_ref());
    match (account, store) {
        (Some(account), Some(store)) if reader.mistakes.is_empty() => Ok((account, store, clock)),
        _ => Err(reader.mistakes),
    }
}

/// Where the internal listener of this configuration can be reached from the same host, for `healthcheck`.
///
/// # Errors
/// When the address cannot be read.
pub fn read_internal_address(given: Given) -> Result<SocketAddr, Vec<Mistake>> {
    let mut reader = Reader { given: given.without_empty(), mistakes: Vec::new() };
    let address = reader.internal_listen_addr();
    match address {
        Some(mut address) if reader.mistakes.is_empty() => {
            if address.ip().is_unspecified() {
                address.set_ip(if address.is_ipv4() {
                    [127, 0, 0, 1].into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                });
            }
            Ok(address)
        }
        _ => Err(reader.mistakes),
    }
}

/// What `serve` needs: everything.
///
/// # Errors
/// All mistakes at once.
pub fn read(given: Given) -> Result<Settings, Vec<Mistake>> {
    let mut reader = Reader { given: given.without_empty(), mistakes: Vec::new() };
    let settings = reader.settings();
    match settings {
        Some(settings) if reader.mistakes.is_empty() => Ok(settings),
        _ => Err(reader.mistakes),
    }
}

struct Reader {
    given: Given,
    mistakes: Vec<Mistake>,
}

impl Reader {
    /// Reads everything before giving up on anything, so that all mistakes are found.
    fn settings(&mut self) -> Option<Settings> {
        let account = self.account();
        let listen_addr = self.address("LISTEN_ADDR", self.given.listen_addr.clone(), "0.0.0.0:8080");
        let internal_listen_addr = self.internal_listen_addr();
        let internal_api_token = self.token();
        let store = self.store();
        let sns = self.sns();
        let timeout = self.duration("AMAZON_PAY_TIMEOUT", self.given.amazon_pay_timeout.clone(), DEFAULT_TIMEOUT);
        let key_id = self.given.amazon_pay_public_key_id.clone();
        let key = self.required_file("AMAZON_PAY_PRIVATE_KEY_FILE", self.given.amazon_pay_private_key_file.clone());
        let workers = self.workers();
        let policy = self.policy(account.as_ref());
        self.check_log_format();
        self.refuse_sandbox_settings_in_live(account.as_ref());
        self.check_times(account.as_ref(), store.as_ref(), sns.as_ref(), timeout);
        let (account, store) = (account?, store?);
        Some(Settings {
            listen_addr: listen_addr?,
            internal_listen_addr: internal_listen_addr?,
            internal_api_token: internal_api_token?,
            policy: Policy { confirmation_delay: store.confirmation_delay, ..policy? },
            amazon_pay: ClientSettings {
                account: account.clone(),
                public_key_id: key_id?,
                private_key_pem: key?,
                base_url: self.given.amazon_pay_api_base_url.clone(),
                timeout: timeout?,
            },
            account,
            store,
            sns: sns?,
            workers: workers?,
            clock_offset_file: self.given.clock_offset_file.clone().map(PathBuf::from),
        })
    }

    fn mistake(&mut self, name: &'static str, message: impl Into<String>) {
        self.mistakes.push(Mistake { name, message: message.into() });
    }

    fn required(&mut self, name: &'static str, value: Option<String>, expected: &str) -> Option<String> {
        if value.is_none() {
            self.mistake(name, format!("is not set; expected {expected}"));
        }
        value
    }

    fn account(&mut self) -> Option<Account> {
        let region = self.required("AMAZON_PAY_REGION", self.given.amazon_pay_region.clone(), "na, eu or jp");
        let region = region.and_then(|text| self.parsed::<Region>("AMAZON_PAY_REGION", &text));
        let merchant =
            self.required("AMAZON_PAY_MERCHANT_ID", self.given.amazon_pay_merchant_id.clone(), "the merchant id");
        let merchant = merchant.and_then(|text| self.parsed::<MerchantId>("AMAZON_PAY_MERCHANT_ID", &text));
        let environment = self.environment();
        Some(Account { merchant: merchant?, environment: environment?, region: region? })
    }

    /// The key id says the environment; only an id without a prefix needs the setting.
    fn environment(&mut self) -> Option<Environment> {
        let key_id = self.required(
            "AMAZON_PAY_PUBLIC_KEY_ID",
            self.given.amazon_pay_public_key_id.clone(),
            "the public key id from Seller Central",
        )?;
        let prefix = key_id.to_ascii_uppercase();
        let by_key = match () {
            () if prefix.starts_with("LIVE") => Some(Environment::Live),
            () if prefix.starts_with("SANDBOX") => Some(Environment::Sandbox),
            () => None,
        };
        let given = match self.given.amazon_pay_environment.as_deref() {
            None => None,
            Some("live") => Some(Environment::Live),
            Some("sandbox") => Some(Environment::Sandbox),
            Some(other) => {
                let message = format!("expected live or sandbox, got {other:?}");
                self.mistake("AMAZON_PAY_ENVIRONMENT", message);
                return None;
            }
        };
        match (by_key, given) {
            (Some(by_key), Some(given)) if by_key != given => {
                self.mistake("AMAZON_PAY_ENVIRONMENT", format!("is {given}, but the public key id is one of {by_key}"));
                None
            }
            (None, None) => {
                let message = "is not set; expected live or sandbox, because the public key id begins with neither";
                self.mistake("AMAZON_PAY_ENVIRONMENT", message);
                None
            }
            (by_key, given) => by_key.or(given),
        }
    }

    fn parsed<T>(&mut self, name: &'static str, text: &str) -> Option<T>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        text.parse().map_err(|error: T::Err| self.mistake(name, error.to_string())).ok()
    }

    fn address(&mut self, name: &'static str, value: Option<String>, default: &str) -> Option<SocketAddr> {
        let text = value.unwrap_or_else(|| default.to_owned());
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.mistake(name, format!("expected an address such as {default}, got {text:?}"));
        }
        parsed
    }

    fn internal_listen_addr(&mut self) -> Option<SocketAddr> {
        self.address("INTERNAL_LISTEN_ADDR", self.given.internal_listen_addr.clone(), "127.0.0.1:8081")
    }

    fn duration(&mut self, name: &'static str, value: Option<String>, default: Duration) -> Option<Duration> {
        let Some(text) = value else { return Some(default) };
        match humantime::parse_duration(&text) {
            Ok(duration) if duration > Duration::ZERO => Some(duration),
            _ => {
                self.mistake(name, format!("expected a duration such as 45s, 30m or 16d, got {text:?}"));
                None
            }
        }
    }

    fn required_file(&mut self, name: &'static str, path: Option<String>) -> Option<SecretString> {
        let path = self.required(name, path, "the path of a file")?;
        self.file(name, &path)
    }

    fn file(&mut self, name: &'static str, path: &str) -> Option<SecretString> {
        match std::fs::read_to_string(path) {
            Ok(text) if !text.trim().is_empty() => Some(SecretString::from(text.trim().to_owned())),
            Ok(_) => {
                self.mistake(name, format!("the file {path} is empty"));
                None
            }
            Err(error) => {
                self.mistake(name, format!("the file {path} cannot be read: {error}"));
                None
            }
        }
    }

    fn token(&mut self) -> Option<SecretString> {
        let token = self.required_file("INTERNAL_API_TOKEN_FILE", self.given.internal_api_token_file.clone())?;
        if token.expose_secret().len() < MIN_TOKEN_CHARS {
            self.mistake("INTERNAL_API_TOKEN_FILE", format!("the token has fewer than {MIN_TOKEN_CHARS} characters"));
            return None;
        }
        Some(token)
    }

    fn store(&mut self) -> Option<StoreSettings> {
        let url = self.redis_url();
        let key_prefix = self.given.key_prefix.clone().unwrap_or_else(|| "amazon-pay".to_owned());
        if key_prefix.contains(['{', '}', '*', '?', '[', '\\']) || key_prefix.len() > 100 {
            self.mistake("KEY_PREFIX", "expected at most 100 characters without braces or pattern characters");
        }
        let dedupe_ttl = self.duration("DEDUPE_TTL", self.given.dedupe_ttl.clone(), 16 * DAY);
        let journal = self.duration("JOURNAL_RETENTION", self.given.journal_retention.clone(), 30 * DAY);
        let events = self.duration("EVENT_RETENTION", self.given.event_retention.clone(), 30 * DAY);
        let intents = self.duration("INTENT_RETENTION", self.given.intent_retention.clone(), 400 * DAY);
        let x = self.duration("CONFIRMATION_DELAY", self.given.confirmation_delay.clone(), Duration::from_mins(30));
        Some(StoreSettings {
            url: url?,
            key_prefix,
            dedupe_ttl: dedupe_ttl?,
            journal_retention: journal?,
            event_retention: events?,
            intent_retention: intents?,
            confirmation_delay: x?,
            lease: Duration::from_mins(3),
            bounds: Bounds::default(),
        })
    }

    fn redis_url(&mut self) -> Option<SecretString> {
        let (name, url) = match (self.given.redis_url.clone(), self.given.redis_url_file.clone()) {
            (Some(_), Some(_)) => {
                self.mistake("REDIS_URL", "is set beside REDIS_URL_FILE; expected one of them");
                return None;
            }
            (None, None) => {
                self.mistake("REDIS_URL", "is not set; expected for example redis://127.0.0.1:6379");
                return None;
            }
            (Some(url), None) => ("REDIS_URL", SecretString::from(url)),
            (None, Some(path)) => ("REDIS_URL_FILE", self.file("REDIS_URL_FILE", &path)?),
        };
        if let Err(why) = check_url(url.expose_secret()) {
            self.mistake(name, format!("expected redis://host:port or rediss://host:port: {why}"));
            return None;
        }
        Some(url)
    }

    fn sns(&mut self) -> Option<SnsSettings> {
        let text = self.required("SNS_TOPIC_ARNS", self.given.sns_topic_arns.clone(), "the topic ARNs of Amazon Pay");
        let mut topics = Vec::new();
        for arn in text.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|arn| !arn.is_empty()) {
            topics.extend(self.parsed::<TopicArn>("SNS_TOPIC_ARNS", arn));
        }
        let max_message_age = self.duration("SNS_MAX_MESSAGE_AGE", self.given.sns_max_message_age.clone(), 15 * DAY);
        let anchors = match self.given.sns_trust_anchors_file.clone() {
            None => None,
            Some(path) => self.file("SNS_TRUST_ANCHORS_FILE", &path),
        };
        Some(SnsSettings {
            topics,
            max_message_age: max_message_age?,
            certificate_base_url: self.given.sns_certificate_base_url.clone(),
            certificate_name: self.given.sns_certificate_name.clone(),
            trust_anchors_pem: anchors.map(|pem| pem.expose_secret().as_bytes().to_vec()),
            api_base_url: self.given.sns_api_base_url.clone(),
        })
    }

    fn workers(&mut self) -> Option<usize> {
        let Some(text) = self.given.workers.clone() else { return Some(4) };
        let workers = text.parse().ok().filter(|workers| (1..=64).contains(workers));
        if workers.is_none() {
            self.mistake("WORKERS", format!("expected a number from 1 to 64, got {text:?}"));
        }
        workers
    }

    fn policy(&mut self, account: Option<&Account>) -> Option<Policy> {
        let zone = match self.given.monthly_limit_time_zone.clone() {
            None => None,
            Some(name) => {
                let zone = TimeZone::get(&name).ok();
                if zone.is_none() {
                    let message = format!("expected an IANA time zone such as Europe/Berlin, got {name:?}");
                    self.mistake("MONTHLY_LIMIT_TIME_ZONE", message);
                }
                zone
            }
        };
        let url = self.given.update_payment_method_url.clone();
        if url.as_ref().is_some_and(|url| !url.starts_with("https://") || !url.contains("{chargePermissionId}")) {
            self.mistake("UPDATE_PAYMENT_METHOD_URL", "expected an https:// URL that contains {chargePermissionId}");
        }
        let mut policy = Policy::for_region(account?.region);
        if let Some(zone) = zone {
            policy.month_zone = zone;
        }
        if let Some(url) = url {
            policy.update_url = url;
        }
        Some(policy)
    }

    fn check_log_format(&mut self) {
        if let Some(other) = self.given.log_format.clone().filter(|format| format != "json" && format != "text") {
            self.mistake("LOG_FORMAT", format!("expected json or text, got {other:?}"));
        }
    }

    fn refuse_sandbox_settings_in_live(&mut self, account: Option<&Account>) {
        if account.is_none_or(|account| account.environment == Environment::Sandbox) {
            return;
        }
        let given = [
            ("AMAZON_PAY_API_BASE_URL", &self.given.amazon_pay_api_base_url),
            ("SNS_API_BASE_URL", &self.given.sns_api_base_url),
            ("SNS_CERTIFICATE_BASE_URL", &self.given.sns_certificate_base_url),
            ("SNS_CERTIFICATE_NAME", &self.given.sns_certificate_name),
            ("SNS_TRUST_ANCHORS_FILE", &self.given.sns_trust_anchors_file),
            ("CLOCK_OFFSET_FILE", &self.given.clock_offset_file),
        ];
        let named: Vec<&'static str> =
            given.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();
        for name in named {
            self.mistake(name, "is for sandboxes only, and this is a live environment");
        }
    }

    /// Invariant 11: what must outlast what.
    fn check_times(
        &mut self,
        account: Option<&Account>,
        store: Option<&StoreSettings>,
        sns: Option<&SnsSettings>,
        timeout: Option<Duration>,
    ) {
        if let (Some(store), Some(sns)) = (store, sns)
            && store.dedupe_ttl <= sns.max_message_age
        {
            self.mistake("DEDUPE_TTL", "expected longer than SNS_MAX_MESSAGE_AGE, or a replayed message counts as new");
        }
        let Some(timeout) = timeout else { return };
        let live = account.is_some_and(|account| account.environment == Environment::Live);
        if live && timeout < MIN_LIVE_TIMEOUT {
            self.mistake("AMAZON_PAY_TIMEOUT", "expected at least 35s: Amazon may take 30 s to answer");
        }
        let Some(store) = store else { return };
        if timeout + LEASE_MARGIN > store.lease {
            let most = store.lease.saturating_sub(LEASE_MARGIN);
            self.mistake("AMAZON_PAY_TIMEOUT", format!("expected at most {most:?}, so that a lease outlasts a call"));
        }
        if store.confirmation_delay <= timeout {
            self.mistake("CONFIRMATION_DELAY", "expected longer than AMAZON_PAY_TIMEOUT");
        }
    }
}
