//! A charge permission as Amazon shows it, and what we remember of it between two looks.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::closing::Closing;
use super::ids::{ChargeId, ChargePermissionId, Environment, IntentId, MerchantId, hex_prefix};
use super::money::Money;

/// What kind of consent the permission is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PermissionKind {
    /// One purchase.
    OneTime,
    /// A subscription (guide REC).
    Recurring,
    /// A Saved Wallet (guide SW).
    PaymentMethodOnFile,
    /// A kind this version does not know; kept as text.
    #[serde(untagged)]
    Other(String),
}

/// The state of a charge permission.
/// Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/charge-permission.html>.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PermissionState {
    /// May be charged.
    Chargeable,
    /// May not be charged until something changes; the reasons say what.
    NonChargeable,
    /// Over. No charge is possible without new consent.
    Closed,
    /// A state this version does not know: treated as not chargeable, and alerted on.
    #[serde(untagged)]
    Other(String),
}

impl PermissionState {
    /// The state as Amazon spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Chargeable => "Chargeable",
            Self::NonChargeable => "NonChargeable",
            Self::Closed => "Closed",
            Self::Other(text) => text,
        }
    }
}

impl From<&str> for PermissionState {
    fn from(text: &str) -> Self {
        match text {
            "Chargeable" => Self::Chargeable,
            "NonChargeable" => Self::NonChargeable,
            "Closed" => Self::Closed,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl PermissionKind {
    /// The kind as Amazon spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::OneTime => "OneTime",
            Self::Recurring => "Recurring",
            Self::PaymentMethodOnFile => "PaymentMethodOnFile",
            Self::Other(text) => text,
        }
    }
}

impl From<&str> for PermissionKind {
    fn from(text: &str) -> Self {
        match text {
            "OneTime" => Self::OneTime,
            "Recurring" => Self::Recurring,
            "PaymentMethodOnFile" => Self::PaymentMethodOnFile,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// The reason code for a permission that is busy with a charge of ours: wait, do not mail the buyer.
pub const CHARGE_IN_PROGRESS: &str = "ChargeInProgress";

/// The reason codes that the buyer mends at the update link.
/// Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/charge-permission.html>.
const BUYER_CAN_MEND: [&str; 7] = [
    "PaymentMethodInvalid",
    "PaymentMethodDeleted",
    "BillingAddressDeleted",
    "PaymentMethodExpired",
    "PaymentMethodNotAllowed",
    "PaymentMethodNotSet",
    "MFAFailed",
];

/// The reason codes of a closed permission; Amazon spells most of them in two ways.
/// Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/charge-permission.html>.
const CLOSED_BECAUSE: [&str; 7] =
    ["MerchantCanceled", "MerchantClosed", "BuyerCanceled", "BuyerClosed", "AmazonCanceled", "AmazonClosed", "Expired"];

/// A salted digest of a payment descriptor: enough to see that the instrument changed, useless to whoever reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstrumentDigest(String);

impl InstrumentDigest {
    /// The digest of `descriptor` for one permission of one merchant.
    #[must_use]
    pub fn of(merchant: &MerchantId, permission: &ChargePermissionId, descriptor: &str) -> Self {
        Self(hex_prefix(&format!("instrument\n{merchant}\n{permission}\n{descriptor}")))
    }
}

/// One look at a charge permission (Get Charge Permission). Holds no buyer data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionView {
    /// The permission.
    pub id: ChargePermissionId,
    /// Kind of consent; `None` if Amazon left it out.
    pub kind: Option<PermissionKind>,
    /// Current state.
    pub state: PermissionState,
    /// Reason codes of the state, as Amazon spells them.
    pub reasons: Vec<String>,
    /// The environment that Amazon says the permission lives in; `None` if it left it out or spelt it in a way we do not know.
    pub release_environment: Option<Environment>,
    /// The most that may be charged in a month; `None` is no limit.
    pub amount_limit: Option<Money>,
    /// What is left of it this month; `None` is no limit.
    pub amount_balance: Option<Money>,
    /// Digest of the payment descriptor; `None` if Amazon shows none.
    pub instrument: Option<InstrumentDigest>,
}

impl PermissionView {
    /// Whether the permission is `NonChargeable` only because a charge is running.
    #[must_use]
    pub fn is_only_busy(&self) -> bool {
        self.state == PermissionState::NonChargeable
            && !self.reasons.is_empty()
            && self.reasons.iter().all(|reason| reason == CHARGE_IN_PROGRESS)
    }

    /// Whether it is `NonChargeable` for reasons that this version does not know, and for no other.
    #[must_use]
    pub fn is_not_understood(&self) -> bool {
        let mut others = self.reasons.iter().filter(|reason| *reason != CHARGE_IN_PROGRESS).peekable();
        self.state == PermissionState::NonChargeable
            && others.peek().is_some()
            && others.all(|reason| !BUYER_CAN_MEND.contains(&reason.as_str()))
    }

    /// The reason codes that this version does not know, whatever the state: they are told, and nothing new is charged on a guess.
    pub fn unknown_reasons(&self) -> impl Iterator<Item = &str> {
        let known = |reason: &str| {
            reason == CHARGE_IN_PROGRESS || BUYER_CAN_MEND.contains(&reason) || CLOSED_BECAUSE.contains(&reason)
        };
        self.reasons.iter().map(String::as_str).filter(move |reason| !known(reason))
    }

    /// The kind of consent, if it is one that this version does not know.
    #[must_use]
    pub fn unknown_kind(&self) -> Option<&str> {
        match &self.kind {
            Some(PermissionKind::Other(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether the instrument must be mended before a charge can succeed.
    #[must_use]
    pub fn needs_the_buyer(&self) -> bool {
        self.state == PermissionState::NonChargeable && !self.is_only_busy()
    }
}

/// What a Get Charge Permission came to in one reconciliation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Amazon showed the permission.
    Seen(PermissionView),
    /// Amazon knows no such permission (404).
    NotFound,
    /// No answer that says anything; asking again later may.
    Failed,
    /// The account's fault (401, 403): calling on makes no sense for now.
    AccountFault,
    /// 401 or 403 again for this permission, although the account has been answered since: it alone is refused.
    Refused,
    /// Nobody asked.
    NotAsked,
}

impl Look {
    /// The view, where there is one.
    #[must_use]
    pub fn view(&self) -> Option<&PermissionView> {
        match self {
            Self::Seen(view) => Some(view),
            _ => None,
        }
    }
}

/// What we remember of a permission between two reconciliations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PermissionRecord {
    /// The last state and reasons seen; `None` before the first look.
    pub state: Option<PermissionState>,
    /// The reasons that came with it.
    pub reasons: Vec<String>,
    /// The kind of consent, once seen.
    pub kind: Option<PermissionKind>,
    /// The last instrument seen.
    pub instrument: Option<InstrumentDigest>,
    /// When the last look succeeded.
    pub looked_at: Option<Timestamp>,
    /// Charges of this permission that notifications named, with the last state announced: what is final here costs no call,
    /// what was announced is not announced twice. The oldest go first beyond [`MAX_REMEMBERED_CHARGES`].
    pub charges: BTreeMap<ChargeId, String>,
    /// Which of our charge intents a charge was made for, so that a refund or a dispute of it can be told with its `id`. The oldest go
    /// first beyond [`MAX_REMEMBERED_CHARGES`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub owners: BTreeMap<ChargeId, IntentId>,
    /// Refunds and disputes that were read, by the field of their hint. See [`Self::remember_object`] for the bound.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<String, ObjectMemory>,
    /// Failed looks in a row, for the backoff.
    pub failed_looks: u32,
    /// Whether the last look was refused (401, 403). Again after the account was answered, it is this permission that is refused.
    pub account_fault: bool,
    /// When Closed was first seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Timestamp>,
    /// How far the caller's wish to close it has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closing: Option<Closing>,
    /// Whether a send of ours was answered since the last look: what the next look finds may be our own doing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub acted: bool,
    /// Whether it was told that this permission alone is refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refusal_told: bool,
}

/// How many charges a permission's record remembers.
pub const MAX_REMEMBERED_CHARGES: usize = 50;
/// How many refunds and disputes together a permission's record remembers.
pub const MAX_REMEMBERED_OBJECTS: usize = 50;

/// What we remember of a refund or a dispute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMemory {
    /// What was dealt with last, as text. Another text is news.
    pub seen: String,
    /// Since when it is like this.
    pub since: Timestamp,
    /// Whether nobody waits for it any more: it is final, or was waited for long enough.
    #[serde(default)]
    pub settled: bool,
}

impl PermissionRecord {
    /// Remembers that `state` of `charge` was dealt with. Charge ids of a permission ascend, so the first key is the oldest.
    pub fn remember_charge(&mut self, charge: ChargeId, state: &str) {
        self.charges.insert(charge, state.to_owned());
        while self.charges.len() > MAX_REMEMBERED_CHARGES {
            self.charges.pop_first();
        }
    }

    /// Remembers which intent a charge was made for.
    pub fn remember_owner(&mut self, charge: ChargeId, intent: IntentId) {
        self.owners.insert(charge, intent);
        while self.owners.len() > MAX_REMEMBERED_CHARGES {
            self.owners.pop_first();
        }
    }

    /// Remembers what was dealt with of a refund or a dispute. Beyond [`MAX_REMEMBERED_OBJECTS`] those that nobody waits for go first,
    /// then the oldest. False: all that are remembered are waited for, and so would this one be; it is not remembered.
    pub fn remember_object(&mut self, field: String, memory: ObjectMemory) -> bool {
        if !self.objects.contains_key(&field) && self.objects.len() >= MAX_REMEMBERED_OBJECTS {
            let first = self.objects.iter().min_by_key(|(_, memory)| (!memory.settled, memory.since));
            let Some((first, leaves)) = first.map(|(field, first)| (field.clone(), first.settled || memory.settled))
            else {
                return false;
            };
            if !leaves {
                return false;
            }
            self.objects.remove(&first);
        }
        self.objects.insert(field, memory);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(settled: bool, second: i64) -> ObjectMemory {
        ObjectMemory { seen: "x".to_owned(), since: Timestamp::from_second(second).unwrap(), settled }
    }

    #[test]
    fn a_record_of_an_earlier_version_is_read_and_one_without_refunds_is_written_as_before() {
        let text = r#"{"state":"Chargeable","reasons":[],"kind":"Recurring","instrument":null,"lookedAt":null,"charges":{"C01-1-C1":"Captured"},"failedLooks":0,"accountFault":false}"#;
        let record: PermissionRecord = serde_json::from_str(text).unwrap();
        assert_eq!((record.charges.len(), record.owners.len(), record.objects.len()), (1, 0, 0));
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
    }

    #[test]
    fn objects_that_nobody_waits_for_are_forgotten_first_and_those_waited_for_are_not_pushed_out_by_another() {
        let mut record = PermissionRecord::default();
        for n in 0..MAX_REMEMBERED_OBJECTS {
            let n = i64::try_from(n).unwrap();
            assert!(record.remember_object(format!("REFUND:{n}"), memory(n == 30, n)));
        }
        assert!(record.remember_object("REFUND:new".to_owned(), memory(false, 100)));
        assert!(!record.objects.contains_key("REFUND:30"), "it was settled");
        assert!(!record.remember_object("REFUND:newer".to_owned(), memory(false, 101)));
        assert!(record.remember_object("REFUND:5".to_owned(), memory(false, 102)), "what is known keeps its place");
        assert!(record.remember_object("REFUND:final".to_owned(), memory(true, 103)));
        assert!(!record.objects.contains_key("REFUND:0"), "the oldest gives way to what would be told twice");
        assert_eq!(record.objects.len(), MAX_REMEMBERED_OBJECTS);
    }

    #[test]
    fn owners_are_bounded_and_the_oldest_go_first() {
        let mut record = PermissionRecord::default();
        for n in 0..=MAX_REMEMBERED_CHARGES {
            record.remember_owner(format!("C01-1-C{n:06}").parse().unwrap(), "renewal".parse().unwrap());
        }
        assert_eq!(record.owners.len(), MAX_REMEMBERED_CHARGES);
        assert!(!record.owners.contains_key(&"C01-1-C000000".parse().unwrap()));
    }
}
