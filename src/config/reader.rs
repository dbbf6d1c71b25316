//! From text to values, one setting at a time. Everything is read before anything is given up, so that all mistakes are found.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use secrecy::{ExposeSecret, SecretString};

use super::{Given, Mistake, Settings, policy_file};
use crate::amazon_pay::{ClientSettings, DEFAULT_TIMEOUT};
use crate::clock::Clock;
use crate::model::ids::{Account, Environment, MerchantId, Region};
use crate::model::quota::{Limits, Share};
use crate::recovery::policies::Policies;
use crate::recovery::policy::Policy;
use crate::sns::{SnsSettings, TopicArn};
use crate::store::{Bounds, LEASE_MARGIN, StoreSettings};

/// A day.
const DAY: Duration = Duration::from_hours(24);
/// Twice the longest window of a policy: by then a charge has long ended, and whoever submitted it no longer does.
const MIN_INTENT_RETENTION: Duration = Duration::from_hours(180 * 24);
/// A bearer token shorter than this can be guessed.
const MIN_TOKEN_CHARS: usize = 16;
/// Amazon answers within 30 s in Japan; a time-out below that gives up on answers that come.
const MIN_LIVE_TIMEOUT: Duration = Duration::from_secs(35);
/// A process that is told to stop has 60 s: for the call in hand, and for storing what it said.
const MAX_TIMEOUT: Duration = Duration::from_secs(45);

const POLICY_FILE: &str = "RECOVERY_POLICY_FILE";

/// Reads settings and collects mistakes.
pub(super) struct Reader {
    pub(super) given: Given,
    pub(super) mistakes: Vec<Mistake>,
}

impl Reader {
    pub(super) fn new(given: Given) -> Self {
        Self { given: given.without_empty(), mistakes: Vec::new() }
    }

    /// Reads everything before giving up on anything, so that all mistakes are found.
    pub(super) fn settings(&mut self) -> Option<Settings> {
        let account = self.account();
        let listen_addr = self.listen_addr();
        let internal_listen_addr = self.internal_listen_addr();
        let internal_api_token = self.token();
        let store = self.store(account.as_ref());
        let accept_unsafe_durability = self.given.accept_unsafe_durability.clone();
        let accept_unsafe_durability = self.switch("ACCEPT_UNSAFE_DURABILITY", accept_unsafe_durability.as_deref());
        let sns = self.sns();
        let timeout = self.duration("AMAZON_PAY_TIMEOUT", self.given.amazon_pay_timeout.clone(), DEFAULT_TIMEOUT);
        let key_id = self.given.amazon_pay_public_key_id.clone();
        let key = self.required_file("AMAZON_PAY_PRIVATE_KEY_FILE", self.given.amazon_pay_private_key_file.clone());
        let workers = self.workers();
        let region = account.as_ref().map(|account| account.region);
        let policies = self.policies(region, store.as_ref().map(|store| store.confirmation_delay));
        self.check_log_format();
        let forward = self.forward(store.as_ref());
        let traces = self.traces();
        self.refuse_sandbox_settings_in_live(account.as_ref());
        self.check_times(account.as_ref(), store.as_ref(), sns.as_ref(), timeout);
        let (account, store) = (account?, store?);
        Some(Settings {
            listen_addr: listen_addr?,
            internal_listen_addr: internal_listen_addr?,
            internal_api_token: internal_api_token?,
            policies: policies?,
            amazon_pay: ClientSettings {
                account: account.clone(),
                public_key_id: key_id?,
                private_key_pem: key?,
                base_url: self.given.amazon_pay_api_base_url.clone(),
                timeout: timeout?,
            },
            account,
            store,
            accept_unsafe_durability: accept_unsafe_durability?,
            sns: sns?,
            workers: workers?,
            forward,
            traces,
            clock_offset_file: self.given.clock_offset_file.clone().map(PathBuf::from),
        })
    }

    pub(super) fn mistake(&mut self, name: &'static str, message: impl Into<String>) {
        self.mistakes.push(Mistake { name, message: message.into() });
    }

    fn required(&mut self, name: &'static str, value: Option<String>, expected: &str) -> Option<String> {
        if value.is_none() {
            self.mistake(name, format!("is not set; expected {expected}"));
        }
        value
    }

    pub(super) fn account(&mut self) -> Option<Account> {
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

    pub(super) fn clock(&self) -> Clock {
        self.given.clock_offset_file.clone().map_or_else(Clock::system, |path| Clock::from_offset_file(path.into()))
    }

    pub(super) fn listen_addr(&mut self) -> Option<SocketAddr> {
        self.address("LISTEN_ADDR", self.given.listen_addr.clone(), "0.0.0.0:8080")
    }

    pub(super) fn internal_listen_addr(&mut self) -> Option<SocketAddr> {
        self.address("INTERNAL_LISTEN_ADDR", self.given.internal_listen_addr.clone(), "127.0.0.1:8081")
    }

    pub(super) fn duration(
        &mut self,
        name: &'static str,
        value: Option<String>,
        default: Duration,
    ) -> Option<Duration> {
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

    pub(super) fn file(&mut self, name: &'static str, path: &str) -> Option<SecretString> {
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

    pub(super) fn token(&mut self) -> Option<SecretString> {
        let token = self.required_file("INTERNAL_API_TOKEN_FILE", self.given.internal_api_token_file.clone())?;
        if token.expose_secret().len() < MIN_TOKEN_CHARS {
            self.mistake("INTERNAL_API_TOKEN_FILE", format!("the token has fewer than {MIN_TOKEN_CHARS} characters"));
            return None;
        }
        Some(token)
    }

    pub(super) fn store(&mut self, account: Option<&Account>) -> Option<StoreSettings> {
        let share = self.given.quota_share.clone();
        let share = share.map_or(Some(Share::HALF), |text| self.parsed::<Share>("QUOTA_SHARE", &text));
        let url = self.redis_url();
        let tls = self.redis_tls(url.as_ref());
        let replicas = self.replicas();
        let key_prefix = self.given.key_prefix.clone().unwrap_or_else(|| "amazon-pay".to_owned());
        if key_prefix.contains(['{', '}', '*', '?', '[', '\\']) || key_prefix.len() > 100 {
            self.mistake("KEY_PREFIX", "expected at most 100 characters without braces or pattern characters");
        }
        let dedupe_ttl = self.duration("DEDUPE_TTL", self.given.dedupe_ttl.clone(), 16 * DAY);
        let journal = self.duration("JOURNAL_RETENTION", self.given.journal_retention.clone(), 30 * DAY);
        let events = self.duration("EVENT_RETENTION", self.given.event_retention.clone(), 30 * DAY);
        let least = events.unwrap_or_default();
        let limit =
            self.duration("EVENT_RETENTION_LIMIT", self.given.event_retention_limit.clone(), least.max(60 * DAY));
        if limit.is_some_and(|limit| limit < least) {
            self.mistake("EVENT_RETENTION_LIMIT", "expected at least EVENT_RETENTION");
        }
        let intents = self.duration("INTENT_RETENTION", self.given.intent_retention.clone(), 400 * DAY);
        if intents.is_some_and(|kept| kept < MIN_INTENT_RETENTION) {
            let message =
                "expected at least 180d: an id that was forgotten would be charged anew if it were submitted again";
            self.mistake("INTENT_RETENTION", message);
        }
        let x = self.confirmation_delay();
        Some(StoreSettings {
            url: url?,
            tls: tls?,
            replicas: replicas?,
            key_prefix,
            dedupe_ttl: dedupe_ttl?,
            journal_retention: journal?,
            event_retention: events?,
            event_retention_limit: limit?,
            intent_retention: intents?,
            confirmation_delay: x?,
            lease: Duration::from_mins(3),
            bounds: Bounds::default(),
            quota: Limits::of(account.map_or(Environment::Sandbox, |account| account.environment), share?),
        })
    }

    pub(super) fn sns(&mut self) -> Option<SnsSettings> {
        let text = self.required("SNS_TOPIC_ARNS", self.given.sns_topic_arns.clone(), "the topic ARNs of Amazon Pay");
        let mut topics = Vec::new();
        let given = text.is_some();
        for arn in text.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|arn| !arn.is_empty()) {
            match self.parsed::<TopicArn>("SNS_TOPIC_ARNS", arn) {
                Some(topic) => topics.push(topic),
                None => return None,
            }
        }
        if given && topics.is_empty() {
            self.mistake("SNS_TOPIC_ARNS", "expected at least one topic ARN: an empty list would refuse everything");
        }
        Some(SnsSettings { topics, ..self.sns_without_topics()? })
    }

    pub(super) fn sns_without_topics(&mut self) -> Option<SnsSettings> {
        let age = self.given.sns_max_message_age.clone();
        let max_message_age = self.duration("SNS_MAX_MESSAGE_AGE", age, SnsSettings::DEFAULT_MAX_MESSAGE_AGE);
        let require_signature_v2 =
            self.switch("REQUIRE_SIGNATURE_V2", self.given.require_signature_v2.clone().as_deref());
        let require_chain = self.switch("REQUIRE_CHAIN", self.given.require_chain.clone().as_deref());
        Some(SnsSettings {
            max_message_age: max_message_age?,
            require_signature_v2: require_signature_v2?,
            require_chain: require_chain?,
            intermediates_pem: self.certificates("SNS_INTERMEDIATES_FILE", self.given.sns_intermediates_file.clone()),
            certificate_base_url: self.given.sns_certificate_base_url.clone(),
            certificate_name: self.given.sns_certificate_name.clone(),
            trust_anchors_pem: self.certificates("SNS_TRUST_ANCHORS_FILE", self.given.sns_trust_anchors_file.clone()),
            api_base_url: self.given.sns_api_base_url.clone(),
            ..SnsSettings::for_topics(Vec::new())
        })
    }

    /// The text of a PEM file; `sns` says at start whether it holds certificates.
    fn certificates(&mut self, name: &'static str, path: Option<String>) -> Option<Vec<u8>> {
        let pem = self.file(name, &path?)?;
        Some(pem.expose_secret().as_bytes().to_vec())
    }

    fn switch(&mut self, name: &'static str, value: Option<&str>) -> Option<bool> {
        match value {
            None | Some("false") => Some(false),
            Some("true") => Some(true),
            Some(other) => {
                self.mistake(name, format!("expected true or false, got {other:?}"));
                None
            }
        }
    }

    fn workers(&mut self) -> Option<usize> {
        let Some(text) = self.given.workers.clone() else { return Some(4) };
        let workers = text.parse().ok().filter(|workers| (1..=64).contains(workers));
        if workers.is_none() {
            self.mistake("WORKERS", format!("expected a number from 1 to 64, got {text:?}"));
        }
        workers
    }

    pub(super) fn confirmation_delay(&mut self) -> Option<Duration> {
        self.duration("CONFIRMATION_DELAY", self.given.confirmation_delay.clone(), Duration::from_mins(30))
    }

    /// The region of the settings; na where they have none.
    pub(super) fn region_or_na(&mut self) -> Option<Region> {
        match self.given.amazon_pay_region.clone() {
            Some(text) => self.parsed("AMAZON_PAY_REGION", &text),
            None => Some(Region::Na),
        }
    }

    /// The policy without a file, and over it what the file states.
    pub(super) fn policies(&mut self, region: Option<Region>, x: Option<Duration>) -> Option<Policies> {
        let base = self.policy(region, x);
        let path = self.given.recovery_policy_file.clone();
        let Some(path) = path else { return base.map(Policies::from) };
        let text = self.policy_text(&path)?;
        // Where the account is not known its region is not either; the mistakes of the file are found all the same.
        let checked = policy_file::parse(&text, base.as_ref().unwrap_or(&Policy::for_region(Region::Na)));
        match checked {
            Ok(policies) => base.map(|_| policies),
            Err(mistakes) => {
                for mistake in mistakes {
                    self.mistake(POLICY_FILE, mistake.to_string());
                }
                None
            }
        }
    }

    fn policy_text(&mut self, path: &str) -> Option<String> {
        let mut text = String::new();
        let read =
            std::fs::File::open(path).and_then(|file| file.take(policy_file::MAX_BYTES + 1).read_to_string(&mut text));
        match read {
            Ok(bytes) if bytes as u64 <= policy_file::MAX_BYTES => Some(text),
            Ok(_) => {
                let most = policy_file::MAX_BYTES;
                self.mistake(POLICY_FILE, format!("the file {path} is larger than {most} bytes"));
                None
            }
            Err(error) => {
                self.mistake(POLICY_FILE, format!("the file {path} cannot be read: {error}"));
                None
            }
        }
    }

    fn policy(&mut self, region: Option<Region>, x: Option<Duration>) -> Option<Policy> {
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
        let mut policy = Policy::for_region(region?);
        if let Some(zone) = zone {
            policy.month_zone = zone;
        }
        if let Some(url) = url {
            policy.update_url = url;
        }
        policy.confirmation_delay = x?;
        Some(policy)
    }

    pub(super) fn check_log_format(&mut self) {
        if let Some(other) = self.given.log_format.clone().filter(|format| format != "json" && format != "text") {
            self.mistake("LOG_FORMAT", format!("expected json or text, got {other:?}"));
        }
    }

    pub(super) fn refuse_sandbox_settings_in_live(&mut self, account: Option<&Account>) {
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
        // A message may be accepted, and begin to be remembered, before our clock has reached its time.
        if let (Some(store), Some(sns)) = (store, sns)
            && store.dedupe_ttl <= sns.max_message_age.saturating_add(SnsSettings::MAX_FUTURE)
        {
            let expected = "expected longer than SNS_MAX_MESSAGE_AGE and 5m, or a replayed message counts as new";
            self.mistake("DEDUPE_TTL", expected);
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
        } else if timeout > MAX_TIMEOUT {
            self.mistake(
                "AMAZON_PAY_TIMEOUT",
                "expected at most 45s: a process that is told to stop has 60 s to finish its call and to store the answer",
            );
        }
        // A request given up at its time-out may leave this machine for as long again (TCP_USER_TIMEOUT).
        if store.confirmation_delay <= 2 * timeout {
            self.mistake("CONFIRMATION_DELAY", "expected longer than twice AMAZON_PAY_TIMEOUT");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::NamedTempFile;

    use super::*;
    use crate::config::read;

    fn file(text: &str) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn complete(token: &NamedTempFile, key: &NamedTempFile) -> Given {
        let path = |file: &NamedTempFile| Some(file.path().display().to_string());
        let text = |text: &str| Some(text.to_owned());
        Given {
            internal_api_token_file: path(token),
            redis_url: text("redis://127.0.0.1:6379"),
            amazon_pay_region: text("eu"),
            amazon_pay_public_key_id: text("SANDBOX-ABC"),
            amazon_pay_private_key_file: path(key),
            amazon_pay_merchant_id: text("A2K7NDRCTOTPW9"),
            sns_topic_arns: text("arn:aws:sns:eu-west-1:291180941288:A1G8446IYHA4MRA2K7NDRCTOTPW9"),
            ..Given::default()
        }
    }

    /// The names of the settings that are wrong after a change to a complete configuration.
    fn wrong(change: impl FnOnce(&mut Given)) -> Vec<&'static str> {
        let (token, key) = (file("a-token-of-sixteen"), file("a key"));
        let mut given = complete(&token, &key);
        change(&mut given);
        match read(given) {
            Ok(_) => vec![],
            Err(mistakes) => mistakes.into_iter().map(|mistake| mistake.name).collect(),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it reads like the settings it stands for")]
    fn set(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_complete_configuration_is_accepted() {
        assert_eq!(wrong(|_| {}), Vec::<&str>::new());
    }

    #[test]
    fn every_missing_setting_is_named_at_once() {
        let Err(mistakes) = read(Given::default()) else { panic!("nothing is set") };
        let names: Vec<_> = mistakes.iter().map(|mistake| mistake.name).collect();
        for name in [
            "AMAZON_PAY_REGION",
            "AMAZON_PAY_MERCHANT_ID",
            "AMAZON_PAY_PUBLIC_KEY_ID",
            "AMAZON_PAY_PRIVATE_KEY_FILE",
            "INTERNAL_API_TOKEN_FILE",
            "REDIS_URL",
            "SNS_TOPIC_ARNS",
        ] {
            assert!(names.contains(&name), "{name} is not named in {names:?}");
        }
    }

    #[test]
    fn each_malformed_setting_is_named() {
        assert_eq!(wrong(|given| given.amazon_pay_region = set("us")), ["AMAZON_PAY_REGION"]);
        assert_eq!(wrong(|given| given.redis_url = set("http://x")), ["REDIS_URL"]);
        assert_eq!(wrong(|given| given.redis_url_file = set("/tmp/x")), ["REDIS_URL"]);
        assert_eq!(wrong(|given| given.listen_addr = set("8080")), ["LISTEN_ADDR"]);
        assert_eq!(wrong(|given| given.dedupe_ttl = set("soon")), ["DEDUPE_TTL"]);
        assert_eq!(wrong(|given| given.monthly_limit_time_zone = set("Mars/Base")), ["MONTHLY_LIMIT_TIME_ZONE"]);
        assert_eq!(wrong(|given| given.update_payment_method_url = set("https://x/")), ["UPDATE_PAYMENT_METHOD_URL"]);
        assert_eq!(wrong(|given| given.sns_topic_arns = set("arn:aws:sqs:x")), ["SNS_TOPIC_ARNS"]);
        assert_eq!(wrong(|given| given.sns_topic_arns = set(" , ")), ["SNS_TOPIC_ARNS"]);
        assert_eq!(wrong(|given| given.workers = set("0")), ["WORKERS"]);
        assert_eq!(wrong(|given| given.quota_share = set("0")), ["QUOTA_SHARE"]);
        assert_eq!(wrong(|given| given.quota_share = set("50%")), ["QUOTA_SHARE"]);
        assert_eq!(wrong(|given| given.log_format = set("xml")), ["LOG_FORMAT"]);
        assert_eq!(wrong(|given| given.trace_share = set("1.5")), ["TRACE_SHARE"]);
        let otlp = |text| wrong(move |given| given.otel_exporter_otlp_endpoint = set(text));
        assert_eq!(otlp("127.0.0.1:4318"), ["OTEL_EXPORTER_OTLP_ENDPOINT"]);
        assert_eq!(otlp("http://user:secret@127.0.0.1:4318"), ["OTEL_EXPORTER_OTLP_ENDPOINT"]);
        assert_eq!(wrong(|given| given.accept_unsafe_durability = set("yes")), ["ACCEPT_UNSAFE_DURABILITY"]);
        let forward = |text| wrong(move |given| given.forward_url = set(text));
        assert_eq!(forward("https://shop.example/ipn?key=1"), Vec::<&str>::new());
        for text in ["shop.example/ipn", "https://", "ftp://shop.example", "https://user:secret@shop.example/ipn"] {
            assert_eq!(forward(text), ["FORWARD_URL"], "{text}");
        }
        assert_eq!(wrong(|given| given.forward_at_once = set("0")), ["FORWARD_AT_ONCE"]);
        assert_eq!(wrong(|given| given.forward_timeout = set("31s")), ["FORWARD_TIMEOUT"]);
        let give_up = |text| {
            wrong(move |given| (given.forward_url, given.forward_give_up) = (set("https://shop.example"), set(text)))
        };
        assert_eq!(give_up("15d"), Vec::<&str>::new());
        assert_eq!(give_up("16d"), ["FORWARD_GIVE_UP"]);
    }

    #[test]
    fn learning_refuses_what_serving_would_refuse() {
        let (token, key) = (file("a-token-of-sixteen"), file("a key"));
        let given = Given { log_format: set("xml"), sns_max_message_age: set("soon"), ..complete(&token, &key) };
        let Err(mistakes) = crate::config::read_learning(given) else { panic!("two settings are wrong") };
        let names: Vec<_> = mistakes.iter().map(|mistake| mistake.name).collect();
        assert_eq!(names, ["SNS_MAX_MESSAGE_AGE", "LOG_FORMAT"]);
    }

    #[test]
    fn each_mistake_in_the_policy_file_is_one_of_its_setting_and_names_its_path() {
        let (token, key) = (file("a-token-of-sixteen"), file("a key"));
        let policies = file("[default]\nwindow = '1h'\n[policies.gentle]\nsoft_declined.schedule = ['3x']\n");
        let mut given = complete(&token, &key);
        given.workers = set("0");
        given.recovery_policy_file = set(&policies.path().display().to_string());
        let mistakes: Vec<String> = read(given).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            mistakes,
            [
                "WORKERS: expected a number from 1 to 64, got \"0\"",
                "RECOVERY_POLICY_FILE: default.window: expected 1d to 90d, got \"1h\"",
                "RECOVERY_POLICY_FILE: policies.gentle.soft_declined.schedule[0]: expected a duration such as 3d, got \"3x\"",
            ]
        );
    }

    #[test]
    fn a_policy_file_that_is_missing_too_large_or_no_text_is_a_mistake_and_an_empty_one_is_none() {
        let path = |file: &NamedTempFile| file.path().display().to_string();
        let at_most = file(&"#".repeat(64 * 1024));
        let too_large = file(&"#".repeat(64 * 1024 + 1));
        let mut binary = NamedTempFile::new().unwrap();
        binary.write_all(&[0xff, 0xfe]).unwrap();
        for name in ["/nowhere".to_owned(), path(&too_large), path(&binary)] {
            assert_eq!(wrong(|given| given.recovery_policy_file = set(&name)), ["RECOVERY_POLICY_FILE"], "{name}");
        }
        assert!(wrong(|given| given.recovery_policy_file = set(&path(&at_most))).is_empty());
    }

    #[test]
    fn what_the_send_protocol_needs_holds_for_every_policy_of_the_file() {
        let (token, key) = (file("a-token-of-sixteen"), file("a key"));
        let policies = file("[policies.gentle]\nwindow = '9d'\n");
        let mut given = complete(&token, &key);
        given.confirmation_delay = set("40m");
        given.monthly_limit_time_zone = set("Europe/Berlin");
        given.recovery_policy_file = set(&policies.path().display().to_string());
        let settings = read(given).unwrap();
        for (name, policy) in settings.policies.all() {
            assert_eq!(policy.confirmation_delay, Duration::from_mins(40), "{name}");
            assert_eq!(policy.month_zone, TimeZone::get("Europe/Berlin").unwrap(), "{name}");
        }
    }

    #[test]
    fn the_environment_is_that_of_the_key_or_must_be_given() {
        assert_eq!(wrong(|given| given.amazon_pay_environment = set("live")), ["AMAZON_PAY_ENVIRONMENT"]);
        assert_eq!(wrong(|given| given.amazon_pay_public_key_id = set("ABC")), ["AMAZON_PAY_ENVIRONMENT"]);
        let named = wrong(|given| {
            given.amazon_pay_public_key_id = set("ABC");
            given.amazon_pay_environment = set("sandbox");
        });
        assert!(named.is_empty(), "{named:?}");
    }

    #[test]
    fn what_moves_the_trust_is_refused_in_a_live_environment() {
        let live = |given: &mut Given| given.amazon_pay_public_key_id = set("LIVE-ABC");
        assert!(wrong(live).is_empty());
        let named = wrong(|given| {
            live(given);
            given.amazon_pay_api_base_url = set("http://127.0.0.1:1");
            given.sns_api_base_url = set("http://127.0.0.1:1");
            given.sns_certificate_base_url = set("http://127.0.0.1:1");
            given.sns_certificate_name = set("x");
            given.sns_trust_anchors_file = set(concat!(env!("CARGO_MANIFEST_DIR"), "/src/sns/certificate/amazon.pem"));
            given.clock_offset_file = set("/tmp/x");
        });
        let expected = [
            "AMAZON_PAY_API_BASE_URL",
            "SNS_API_BASE_URL",
            "SNS_CERTIFICATE_BASE_URL",
            "SNS_CERTIFICATE_NAME",
            "SNS_TRUST_ANCHORS_FILE",
            "CLOCK_OFFSET_FILE",
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn what_must_outlast_what_is_checked() {
        assert_eq!(wrong(|given| given.dedupe_ttl = set("15d")), ["DEDUPE_TTL"]);
        // From a sender whose clock is ahead of ours it is remembered from before its time on, and acceptable until its age after it.
        assert_eq!(wrong(|given| given.dedupe_ttl = set("15d 5m")), ["DEDUPE_TTL"]);
        assert_eq!(wrong(|given| given.dedupe_ttl = set("15d 5m 1s")), Vec::<&str>::new());
        assert_eq!(wrong(|given| given.amazon_pay_timeout = set("170s")), ["AMAZON_PAY_TIMEOUT"]);
        assert_eq!(wrong(|given| given.amazon_pay_timeout = set("46s")), ["AMAZON_PAY_TIMEOUT"], "longer than a drain");
        assert_eq!(wrong(|given| given.confirmation_delay = set("45s")), ["CONFIRMATION_DELAY"]);
        let short_in_live = wrong(|given| {
            given.amazon_pay_public_key_id = set("LIVE-ABC");
            given.amazon_pay_timeout = set("10s");
        });
        assert_eq!(short_in_live, ["AMAZON_PAY_TIMEOUT"]);
    }

    #[test]
    fn secrets_do_not_show_in_the_settings_debug_text() {
        let (token, key) = (file("a-token-of-sixteen"), file("a private key"));
        let mut given = complete(&token, &key);
        given.redis_url = set("redis://:a-password@127.0.0.1:6379");
        let text = format!("{:?}", read(given).unwrap());
        for secret in ["a-token-of-sixteen", "a private key", "a-password"] {
            assert!(!text.contains(secret), "{text}");
        }
    }

    #[test]
    fn an_empty_token_or_a_short_one_is_refused() {
        let (empty, short) = (file(" \n"), file("short"));
        for file in [&empty, &short] {
            let named = wrong(|given| given.internal_api_token_file = set(&file.path().display().to_string()));
            assert_eq!(named, ["INTERNAL_API_TOKEN_FILE"]);
        }
    }
}
