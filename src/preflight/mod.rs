//! What is set wrongly, what that means, and how to mend it: values in, findings out. Pure.
//!
//! `check` shows all findings; `serve` refuses to start where money is at risk, and shows the rest at `/readyz`. Who asks the server
//! and Amazon for the values is in `cli/check.rs` and `app`. The table of all checks is `docs/PREFLIGHT.md`; a test compares it.

pub mod amazon;
pub mod server;
pub mod settings;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// How bad a finding is, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It could not be found out.
    Unknown,
    /// It works, and may hurt one day.
    Warning,
    /// Money or notifications are at risk, or nothing works.
    Error,
}

impl Severity {
    /// As people and programs read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

macro_rules! checks {
    ($($(#[doc = $doc:literal])+ $check:ident = $id:literal, $means:literal, $mend:literal;)*) => {
        /// Everything that is looked at.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Check {
            $($(#[doc = $doc])+ $check,)*
        }

        impl Check {
            /// All of them, in the order in which they are shown.
            pub const ALL: &[Self] = &[$(Self::$check,)*];

            /// Its name, which does not change.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$check => $id,)* }
            }

            /// What it means when it is not as it should be.
            #[must_use]
            pub const fn means(self) -> &'static str {
                match self { $(Self::$check => $means,)* }
            }

            /// How to mend it.
            #[must_use]
            pub const fn mend(self) -> &'static str {
                match self { $(Self::$check => $mend,)* }
            }
        }
    };
}

checks! {
    /// The private key can sign.
    AmazonKey = "amazon-key",
        "without a usable key no request to Amazon can be signed, so nothing is charged and nothing is looked at",
        "put the RSA private key (PEM, 2048 bits or more) that Seller Central gave with the public key id into AMAZON_PAY_PRIVATE_KEY_FILE, and check that AMAZON_PAY_PUBLIC_KEY_ID is of the same environment";
    /// Each topic lies where Amazon Pay's topics of the region are known to lie.
    TopicsRegion = "topics-region",
        "the published topics of Amazon Pay for this region are in another AWS region: this may be the topic of another account or of somebody else, and then no notification comes, or one that is not Amazon's",
        "compare SNS_TOPIC_ARNS with what `serve --learn` shows for a test notification from Seller Central; correct the topic or AMAZON_PAY_REGION";
    /// Each topic is named after the merchant.
    TopicsMerchant = "topics-merchant",
        "every known topic of Amazon Pay ends in the merchant id: this one may be of another merchant, whose notifications would go to the quarantine",
        "compare SNS_TOPIC_ARNS and AMAZON_PAY_MERCHANT_ID with what `serve --learn` shows";
    /// All topics are of the known AWS account.
    TopicsAccount = "topics-account",
        "whoever owns the topic can send genuine messages through it; the known topics of Amazon Pay all belong to one AWS account, and this is another one",
        "take a topic out of SNS_TOPIC_ARNS unless `serve --learn` showed it for a test notification that you sent from Seller Central yourself";
    /// No topic is named twice.
    TopicsRepeated = "topics-repeated",
        "a topic that stands twice is harmless by itself, but may stand in the place of another one that is missing",
        "name each topic of SNS_TOPIC_ARNS once";
    /// The buyer is sent to a page that is documented.
    UpdateLink = "update-link",
        "Amazon documents no page for this region where a buyer updates the payment method: buyers may be sent to a page that does not know them",
        "set UPDATE_PAYMENT_METHOD_URL to the page that Amazon names to you";
    /// The recovery policies are wise.
    Policies = "policies",
        "the recovery policy is allowed, and asks for something that Amazon's guides or common sense speak against",
        "see docs/RECOVERY.md on policies, and correct RECOVERY_POLICY_FILE";
    /// Redis answers.
    RedisReachable = "redis-reachable",
        "without Redis every notification is answered 503, and nothing is charged",
        "look at what was found; docs/REDIS.md explains each message";
    /// The user may do all that the service does.
    RedisPermissions = "redis-permissions",
        "a script that is refused a command stops in its middle, so the service does not start with a permission missing",
        "give the Redis user the permissions of docs/REDIS.md";
    /// The server is new enough.
    RedisVersion = "redis-version",
        "scripts use commands of Redis 6.2; before Redis 7.0 a server cannot say which permissions are missing, and it is not tested",
        "use Redis 7.0 or later, or Valkey 7.2 or later";
    /// Everything can be written.
    RedisRole = "redis-role",
        "nothing can be written to a replica: everything is answered 503",
        "let REDIS_URL name the primary; after a failover it may have to follow first";
    /// Nothing is evicted.
    RedisEviction = "redis-eviction",
        "when memory is full Redis forgets keys of its own choice: a charge that was sent, a notification that was accepted, or the memory that an id was charged before",
        "set maxmemory-policy to noeviction: then a full Redis refuses writes, which the service and SNS bear";
    /// An append-only file is written.
    RedisAppendOnly = "redis-append-only",
        "a crash of Redis loses everything since the last snapshot: accepted notifications, and the marks that keep a charge from being made twice",
        "set appendonly to yes";
    /// It is written before it is answered.
    RedisAppendFsync = "redis-append-fsync",
        "a power cut loses what was not yet on the disk, up to a second or more: an accepted notification, a cancellation, or the mark of a send",
        "set appendfsync to always and no-appendfsync-on-rewrite to no; where CONFIG GET is not permitted look at the server yourself (docs/REDIS.md)";
    /// The append-only file can be written.
    RedisAppendState = "redis-append-state",
        "Redis could not write or rewrite its append-only file: while writing fails it refuses every write, and a file that is never rewritten fills the disk",
        "look at the disk and the log of Redis";
    /// Snapshots succeed.
    RedisSnapshots = "redis-snapshots",
        "the last snapshot failed; with stop-writes-on-bgsave-error (the default) Redis then refuses every write, and a backup made of snapshots is old",
        "look at the disk, the memory (vm.overcommit_memory) and the log of Redis, or switch snapshots off (save \"\") where the append-only file is the backup";
    /// There is room.
    RedisMemory = "redis-memory",
        "a full Redis refuses writes: notifications are answered 503 until SNS gives up, and nothing new is charged",
        "give Redis more memory, or shorten EVENT_RETENTION, JOURNAL_RETENTION and INTENT_RETENTION";
    /// A failover loses nothing.
    RedisReplicas = "redis-replicas",
        "without WAIT_REPLICAS a failover may lose the newest writes, among them an accepted notification, a cancellation or a stop; a lost mark of a send is covered by counting sends as tainted for CONFIRMATION_DELAY",
        "set WAIT_REPLICAS (docs/REDIS.md); where replicas are missing, bring them back or set it lower";
    /// Nobody can listen.
    RedisEncryption = "redis-encryption",
        "everything goes to Redis unencrypted, its password included: fine in a private network only",
        "use rediss://, see docs/REDIS.md";
    /// The clocks agree.
    RedisClock = "redis-clock",
        "leases and due times go by the clock of Redis, signatures by ours: far apart, an old copy of a request may be accepted for longer than CONFIRMATION_DELAY covers, and messages are judged too old or too new",
        "synchronise both clocks (NTP)";
    /// The account is known here.
    RedisMarker = "redis-marker",
        "without its marker this Redis is new, was emptied, or is another one; with one of a newer version, or of another account, its data is not this service's to change. Nothing is written",
        "new: `amazon-pay-ipn init --first`. Data lost: `init --after-loss`. Otherwise correct REDIS_URL, KEY_PREFIX, AMAZON_PAY_MERCHANT_ID or the public key id, or run the version that wrote it";
    /// Who else is under the prefix.
    RedisOtherAccounts = "redis-other-accounts",
        "another environment of the same merchant lives under the same prefix: nothing mixes, but an emptied or restored Redis hits sandbox and live at once",
        "give live a Redis of its own; where SCAN is not permitted nothing needs to be done";
    /// Notifications come.
    Notifications = "notifications",
        "no notification came yet, or changes are found that none told of: card updates and closings are noticed hours late, by the next scheduled look",
        "look at the IPN URL in Seller Central, the topic and the way from the internet to POST /ipn; send a test notification";
    /// The stop switch is off.
    StopSwitch = "stop-switch",
        "no charge is sent, on any instance",
        "when the reason is gone: DELETE /v1/stop";
    /// No recovery after a loss is going on.
    Recovery = "recovery",
        "data was lost or restored: submissions that declare nothing are held",
        "docs/ARCHITECTURE.md, recovery after a loss; at its end `amazon-pay-ipn init --end-recovery`";
    /// The account is answered.
    AccountFault = "account-fault",
        "Amazon refuses this account, or the clock is wrong: nothing is called but a probe every few minutes",
        "mend the key, the account or the clock; work goes on by itself";
    /// Amazon answers.
    AmazonReachable = "amazon-reachable",
        "nothing can be charged or looked at; notifications are still accepted and wait",
        "look at DNS, the firewall and the way to Amazon's host over port 443; a proxy is not used";
    /// Amazon accepts the signature.
    AmazonSignature = "amazon-signature",
        "Amazon does not accept what this key signs for this public key id: no charge, no look",
        "look at amazon-clock first; then check in Seller Central that AMAZON_PAY_PUBLIC_KEY_ID and AMAZON_PAY_PRIVATE_KEY_FILE belong together and are of AMAZON_PAY_REGION and of this environment";
    /// The clock agrees with Amazon's.
    AmazonClock = "amazon-clock",
        "signatures carry our time: beyond 5 minutes the service stops sending by itself, because then CONFIRMATION_DELAY counts on dates that mean something else to Amazon",
        "synchronise the clock of this host (NTP)";
    /// Old requests are refused before X is over.
    AmazonDateTolerance = "amazon-date-tolerance",
        "Amazon still accepts a request as old as CONFIRMATION_DELAY: a copy that was delayed on its way could be charged after the service took the number for settled, and that would be a second charge",
        "raise CONFIRMATION_DELAY well above the age that is still accepted";
    /// What a used idempotency key answers after a decline.
    AmazonDeclines = "amazon-declines",
        "it is not known whether Amazon repeats a decline under the same idempotency key; the send protocol is right either way",
        "run `amazon-pay-ipn check --sandbox-charge` with a chargeable permission of the sandbox";
    /// Signing certificates can be fetched.
    CertificateHost = "certificate-host",
        "without the signing certificate no notification can be verified: each is answered 503, and SNS gives up after hours",
        "let this host reach the SNS end point of the topic's region over port 443";
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub check: Check,
    /// How bad.
    pub severity: Severity,
    /// What was found, in words; holds no secret.
    pub found: String,
}

impl Finding {
    /// A finding.
    #[must_use]
    pub fn new(check: Check, severity: Severity, found: impl Into<String>) -> Self {
        Self { check, severity, found: found.into() }
    }

    /// Everything that there is to say, in one line.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self.severity {
            Severity::Ok => self.found.clone(),
            _ => format!("{}. {}. To mend it: {}", self.found, self.check.means(), self.check.mend()),
        }
    }
}

impl JsonSchema for Finding {
    fn schema_name() -> Cow<'static, str> {
        "Finding".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": {
                "id": { "type": "string", "enum": Check::ALL.iter().map(|check| check.as_str()).collect::<Vec<_>>() },
                "severity": generator.subschema_for::<Severity>(),
                "found": { "type": "string" },
                "means": { "type": "string", "description": "Not where it is as it should be." },
                "mend": { "type": "string", "description": "Not where it is as it should be." },
            },
            "required": ["id", "severity", "found"],
        })
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_ok = self.severity == Severity::Ok;
        let mut fields = serializer.serialize_struct("Finding", if is_ok { 3 } else { 5 })?;
        fields.serialize_field("id", self.check.as_str())?;
        fields.serialize_field("severity", &self.severity)?;
        fields.serialize_field("found", &self.found)?;
        if !is_ok {
            fields.serialize_field("means", self.check.means())?;
            fields.serialize_field("mend", self.check.mend())?;
        }
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_says_what_it_means_and_how_to_mend_it_under_a_name_of_its_own() {
        let names: BTreeSet<_> = Check::ALL.iter().map(|check| check.as_str()).collect();
        assert_eq!(names.len(), Check::ALL.len());
        for check in Check::ALL {
            let name = check.as_str();
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{name}");
            for text in [check.means(), check.mend()] {
                assert!(text.len() > 15 && !text.ends_with('.'), "{name}: {text}");
            }
        }
    }

    #[test]
    fn a_finding_that_is_not_ok_explains_itself_and_one_that_is_does_not() {
        let bad = Finding::new(Check::RedisEviction, Severity::Error, "maxmemory-policy is allkeys-lru");
        assert!(bad.sentence().contains("forgets keys") && bad.sentence().contains("noeviction"));
        let json = serde_json::to_value(&bad).unwrap();
        assert_eq!((&json["id"], &json["severity"]), (&"redis-eviction".into(), &"error".into()));
        assert!(json["means"].is_string() && json["mend"].is_string());
        let good = serde_json::to_value(Finding::new(Check::RedisEviction, Severity::Ok, "noeviction")).unwrap();
        assert_eq!(good, serde_json::json!({ "id": "redis-eviction", "severity": "ok", "found": "noeviction" }));
    }

    #[test]
    fn severities_ascend() {
        assert!(Severity::Ok < Severity::Unknown && Severity::Unknown < Severity::Warning);
        assert!(Severity::Warning < Severity::Error);
    }
}
