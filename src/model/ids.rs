//! Identifiers, parsed once at the edge so that everything behind it may put them into keys, paths and logs.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use ring::digest;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// An identifier that is not of the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got {got:?}")]
pub struct InvalidId {
    /// What was expected, in words.
    pub expected: &'static str,
    /// The text that was given, cut to 80 characters.
    pub got: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $max:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let allowed: fn(u8) -> bool = $allowed;
                if !text.is_empty() && text.len() <= $max && text.bytes().all(allowed) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId { expected: $expected, got: text.chars().take(80).collect() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "minLength": 1, "maxLength": $max, "description": concat!("Expected: ", $expected, ".") })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn alphanumeric_or_dash(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

id!(
    /// A charge permission, for example `C01-0000000-0000000`: the buyer's consent to be charged.
    ///
    /// Amazon documents no grammar, so any short run of letters, digits and dashes is accepted; nothing else may reach a
    /// Redis key or a URL path.
    ChargePermissionId, "a charge permission id (letters, digits, dashes; at most 50)", 50, alphanumeric_or_dash
);
id!(
    /// A charge at Amazon, for example `C01-0000000-0000000-C000001`.
    ChargeId, "a charge id (letters, digits, dashes; at most 60)", 60, alphanumeric_or_dash
);
id!(
    /// A refund at Amazon. Amazon documents no grammar of this id either.
    RefundId, "a refund id (letters, digits, dashes; at most 60)", 60, alphanumeric_or_dash
);
id!(
    /// A dispute at Amazon, for example `C01-0000000-0000000-B000001`.
    DisputeId, "a dispute id (letters, digits, dashes; at most 60)", 60, alphanumeric_or_dash
);
id!(
    /// Any object that a notification may name: charge permission, charge, refund or dispute.
    ObjectId, "an Amazon Pay object id (letters, digits, dashes; at most 60)", 60, alphanumeric_or_dash
);
id!(
    /// The merchant account (`MerchantID` of a notification).
    MerchantId, "a merchant id (letters and digits; at most 32)", 32, |byte| byte.is_ascii_alphanumeric()
);
id!(
    /// The caller's own name of a charge that is to happen once: a charge intent. Never reused.
    IntentId, "an id of letters, digits, '.', '_' or '-', at most 64", 64,
    |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
);
id!(
    /// A recovery policy of the merchant's own (`RECOVERY_POLICY_FILE`), or `default`.
    PolicyName, "a name of a-z, 0-9 and '-', at most 32 characters", 32,
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
);

impl From<ChargePermissionId> for ObjectId {
    fn from(id: ChargePermissionId) -> Self {
        Self(id.0)
    }
}

impl From<ChargeId> for ObjectId {
    fn from(id: ChargeId) -> Self {
        Self(id.0)
    }
}

impl ObjectId {
    /// The same text as a charge id; every object id is short enough.
    #[must_use]
    pub fn to_charge_id(&self) -> ChargeId {
        ChargeId(self.0.clone())
    }

    /// The same text as a refund id.
    #[must_use]
    pub fn to_refund_id(&self) -> RefundId {
        RefundId(self.0.clone())
    }

    /// The same text as a dispute id.
    #[must_use]
    pub fn to_dispute_id(&self) -> DisputeId {
        DisputeId(self.0.clone())
    }
}

/// The Amazon Pay environment. The two never meet: it is part of the key prefix, of the API path and of the topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Real money.
    Live,
    /// Amazon's sandbox, or the local one.
    Sandbox,
}

impl Environment {
    /// `live` or `sandbox`, as in API paths and Redis keys.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Sandbox => "sandbox",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The Amazon Pay region of the merchant account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Region {
    /// United States.
    Na,
    /// Europe and the United Kingdom.
    Eu,
    /// Japan.
    Jp,
}

impl Region {
    /// `na`, `eu` or `jp`: the value of `x-amz-pay-region`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Na => "na",
            Self::Eu => "eu",
            Self::Jp => "jp",
        }
    }

    /// The host of Amazon's API in this region.
    #[must_use]
    pub fn api_host(self) -> &'static str {
        match self {
            Self::Na => "pay-api.amazon.com",
            Self::Eu => "pay-api.amazon.eu",
            Self::Jp => "pay-api.amazon.jp",
        }
    }
}

impl FromStr for Region {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text {
            "na" => Ok(Self::Na),
            "eu" => Ok(Self::Eu),
            "jp" => Ok(Self::Jp),
            _ => Err(InvalidId { expected: "na, eu or jp", got: text.chars().take(80).collect() }),
        }
    }
}

/// The account that this process serves: one merchant in one environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The merchant.
    pub merchant: MerchantId,
    /// Live or sandbox.
    pub environment: Environment,
    /// The region of the account.
    pub region: Region,
}

/// The idempotency key of one number of one intent: at most 32 characters of `[A-Za-z0-9_-]`.
///
/// A pure function of (merchant, environment, intent, number), so that a crash, a second instance or a lost database can
/// never give one number two keys. Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/idempotency.html>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key of `number` (0, 1, 2 ...) of `intent`.
    #[must_use]
    pub fn derive(account: &Account, intent: &IntentId, number: u32) -> Self {
        // None of the parts can contain a newline, so the joined text is unambiguous.
        let text = format!("amazon-pay-ipn/v1\n{}\n{}\n{intent}\n{number}", account.merchant, account.environment);
        Self(hex_prefix(&text))
    }

    /// The key of the capture `number` (0, 1, 2 ...) of `intent`: never one of [`IdempotencyKey::derive`], whose text begins otherwise.
    #[must_use]
    pub fn derive_capture(account: &Account, intent: &IntentId, number: u32) -> Self {
        let (merchant, environment) = (&account.merchant, account.environment);
        Self(hex_prefix(&format!("amazon-pay-ipn/v1/capture\n{merchant}\n{environment}\n{intent}\n{number}")))
    }

    /// The header value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What our charges carry in `merchantMetadata.customInformation`, so that any charge can be recognised as ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeTag {
    /// The intent the charge was made for.
    pub intent: IntentId,
    /// The number under which it was sent.
    pub number: u32,
}

impl ChargeTag {
    const PREFIX: &'static str = "amazon-pay-ipn/v1/";

    /// Reads the tag from a charge's `customInformation`; `None` if the charge is not ours.
    #[must_use]
    pub fn parse(custom_information: &str) -> Option<Self> {
        let (intent, number) = custom_information.strip_prefix(Self::PREFIX)?.rsplit_once('/')?;
        Some(Self { intent: intent.parse().ok()?, number: number.parse().ok()? })
    }
}

impl fmt::Display for ChargeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}", Self::PREFIX, self.intent, self.number)
    }
}

/// A number in [0, 1) that is a pure function of its seed.
///
/// Jitter spreads load; it needs no surprise. Deriving it from identifiers makes every decision repeatable: a worker that
/// crashed and its successor choose the same time.
#[must_use]
pub fn jitter(seed: &str) -> f64 {
    let digest = digest::digest(&digest::SHA256, seed.as_bytes());
    let mut first = [0_u8; 4];
    first.copy_from_slice(&digest.as_ref()[..4]);
    f64::from(u32::from_be_bytes(first)) / (f64::from(u32::MAX) + 1.0)
}

/// The first 32 hex digits of the text's SHA-256.
#[must_use]
pub fn hex_prefix(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    data_encoding::HEXLOWER.encode(&digest.as_ref()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account { merchant: "A2K7NDRCTOTPW9".parse().unwrap(), environment: Environment::Live, region: Region::Na }
    }

    #[test]
    fn an_idempotency_key_is_stable_and_fits_amazons_grammar() {
        let intent: IntentId = "sub-42.2026-11".parse().unwrap();
        let key = IdempotencyKey::derive(&account(), &intent, 0);
        assert_eq!(key, IdempotencyKey::derive(&account(), &intent, 0));
        assert_eq!(key.as_str().len(), 32);
        assert!(key.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
        // Pinned: a release that changed the derivation could charge twice after an upgrade.
        assert_eq!(key.as_str(), "3d4543636d95aa0dce30b06652dd5f5b");
    }

    #[test]
    fn every_part_of_the_identity_changes_the_idempotency_key() {
        let intent: IntentId = "a".parse().unwrap();
        let base = IdempotencyKey::derive(&account(), &intent, 0);
        let sandbox = Account { environment: Environment::Sandbox, ..account() };
        let other = Account { merchant: "B2".parse().unwrap(), ..account() };
        assert_ne!(base, IdempotencyKey::derive(&account(), &intent, 1));
        assert_ne!(base, IdempotencyKey::derive(&account(), &"b".parse().unwrap(), 0));
        assert_ne!(base, IdempotencyKey::derive(&sandbox, &intent, 0));
        assert_ne!(base, IdempotencyKey::derive(&other, &intent, 0));
    }

    #[test]
    fn the_key_of_a_capture_is_stable_and_never_one_of_a_charge() {
        let intent: IntentId = "sub-42.2026-11".parse().unwrap();
        let key = IdempotencyKey::derive_capture(&account(), &intent, 0);
        assert_eq!(key.as_str().len(), 32);
        // Pinned, as the key of a charge.
        assert_eq!(key.as_str(), "260007122ed33753ff961481359b8c31");
        assert_ne!(key, IdempotencyKey::derive_capture(&account(), &intent, 1));
        assert_ne!(key, IdempotencyKey::derive_capture(&account(), &"other".parse().unwrap(), 0));
        for number in 0..100 {
            assert_ne!(key, IdempotencyKey::derive(&account(), &intent, number));
        }
    }

    #[test]
    fn a_charge_tag_survives_the_round_trip_and_foreign_texts_are_not_ours() {
        let tag = ChargeTag { intent: "sub-42_x.y".parse().unwrap(), number: 3 };
        assert_eq!(ChargeTag::parse(&tag.to_string()), Some(tag));
        for foreign in [
            "",
            "order 7",
            "amazon-pay-ipn/v1/",
            "amazon-pay-ipn/v1/a",
            "amazon-pay-ipn/v1/a b/1",
            "amazon-pay-ipn/v1/a/-1",
        ] {
            assert_eq!(ChargeTag::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn ids_that_could_break_out_of_a_key_or_a_path_are_refused() {
        for bad in ["", "a/b", "a b", "a\n", "{a}", "a:b", "..%2f", "ü"] {
            assert!(bad.parse::<ChargePermissionId>().is_err(), "{bad}");
            assert!(bad.parse::<ObjectId>().is_err(), "{bad}");
            assert!(bad.parse::<RefundId>().is_err(), "{bad}");
            assert!(bad.parse::<DisputeId>().is_err(), "{bad}");
            assert!(bad.parse::<IntentId>().is_err(), "{bad}");
        }
        assert!("x".repeat(65).parse::<IntentId>().is_err());
    }

    #[test]
    fn jitter_lies_in_the_half_open_unit_interval() {
        for seed in 0..1000 {
            let value = jitter(&seed.to_string());
            assert!((0.0..1.0).contains(&value));
        }
    }
}
