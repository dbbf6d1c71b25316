//! A refund as Amazon shows it.

use super::ids::{ChargeId, Environment, RefundId};
use super::money::Money;

/// The state of a refund. Every refund is decided later than it is asked for.
/// Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/refund.html>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundState {
    /// Asked for; Amazon is deciding.
    RefundInitiated,
    /// The buyer has the money.
    Refunded,
    /// The buyer does not get it in this way; the reason code says why.
    Declined,
    /// A state this version does not know; kept as text.
    Other(String),
}

impl From<&str> for RefundState {
    fn from(text: &str) -> Self {
        match text {
            "RefundInitiated" => Self::RefundInitiated,
            "Refunded" => Self::Refunded,
            "Declined" => Self::Declined,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl RefundState {
    /// The state as Amazon spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::RefundInitiated => "RefundInitiated",
            Self::Refunded => "Refunded",
            Self::Declined => "Declined",
            Self::Other(text) => text,
        }
    }

    /// Whether Amazon has decided.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refunded | Self::Declined)
    }
}

/// One look at a refund (Get Refund). Holds no buyer data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundView {
    /// The refund.
    pub id: RefundId,
    /// The charge that is refunded; `None` if Amazon left it out.
    pub charge: Option<ChargeId>,
    /// Current state.
    pub state: RefundState,
    /// Reason code of the state.
    pub reason: Option<String>,
    /// What is refunded.
    pub amount: Option<Money>,
    /// Live or sandbox, as Amazon says.
    pub release_environment: Option<Environment>,
}
