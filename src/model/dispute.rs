//! A dispute (chargeback) as Amazon shows it.

use jiff::Timestamp;

use super::ids::{ChargeId, DisputeId, Environment};
use super::money::Money;

/// The state of a dispute. Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/dispute.html>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DisputeState {
    /// Somebody looks into it.
    UnderReview,
    /// The merchant has to answer, before the deadline.
    ActionRequired,
    /// Decided; the resolution says for whom.
    Resolved,
    /// Over.
    Closed,
    /// A state this version does not know; kept as text.
    Other(String),
}

impl From<&str> for DisputeState {
    fn from(text: &str) -> Self {
        match text {
            "UnderReview" => Self::UnderReview,
            "ActionRequired" => Self::ActionRequired,
            "Resolved" => Self::Resolved,
            "Closed" => Self::Closed,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl DisputeState {
    /// The state as Amazon spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::UnderReview => "UnderReview",
            Self::ActionRequired => "ActionRequired",
            Self::Resolved => "Resolved",
            Self::Closed => "Closed",
            Self::Other(text) => text,
        }
    }

    /// Whether more is to be expected.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self, Self::Resolved | Self::Closed)
    }
}

/// One look at a dispute (Get Dispute). Holds no buyer data, and none of the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisputeView {
    /// The dispute.
    pub id: DisputeId,
    /// The charge that is disputed; `None` if Amazon left it out.
    pub charge: Option<ChargeId>,
    /// What kind of dispute, as Amazon spells it (`Chargeback`).
    pub kind: Option<String>,
    /// Why the buyer disputes it, as Amazon spells it.
    pub filing_reason: Option<String>,
    /// Current state.
    pub state: DisputeState,
    /// For whom it was decided, as Amazon spells it.
    pub resolution: Option<String>,
    /// Reason code of the state.
    pub reason: Option<String>,
    /// What is disputed.
    pub amount: Option<Money>,
    /// Until when the merchant can answer.
    pub deadline: Option<Timestamp>,
    /// Live or sandbox, as Amazon says.
    pub release_environment: Option<Environment>,
}
