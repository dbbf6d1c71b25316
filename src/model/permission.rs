//! A charge permission as Amazon shows it, and what we remember of it between two looks.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{ChargeId, ChargePermissionId, Environment, MerchantId, hex_prefix};
use super::money::Money;

/// What kind of consent the permission is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Failed looks in a row, for the backoff.
    pub failed_looks: u32,
    /// Whether the last look was refused (401, 403). Again after the account was answered, it is this permission that is refused.
    pub account_fault: bool,
    /// Whether it was told that this permission alone is refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refusal_told: bool,
}

/// How many charges a permission's record remembers.
pub const MAX_REMEMBERED_CHARGES: usize = 50;

impl PermissionRecord {
    /// Remembers that `state` of `charge` was dealt with. Charge ids of a permission ascend, so the first key is the oldest.
    pub fn remember_charge(&mut self, charge: ChargeId, state: &str) {
        self.charges.insert(charge, state.to_owned());
        while self.charges.len() > MAX_REMEMBERED_CHARGES {
            self.charges.pop_first();
        }
    }
}
