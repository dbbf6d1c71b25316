//! A charge as Amazon shows it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{ChargeId, ChargePermissionId, ChargeTag, Environment};
use super::money::Money;

/// The state of a charge. Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/charge.html>.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChargeState {
    /// Asynchronous authorisation is running (up to 24 hours).
    AuthorizationInitiated,
    /// Authorised, waits for its capture.
    Authorized,
    /// Asynchronous capture is running.
    CaptureInitiated,
    /// The money is ours.
    Captured,
    /// Canceled.
    Canceled,
    /// Declined; the reason code says how.
    Declined,
    /// A state this version does not know.
    #[serde(untagged)]
    Other(String),
}

impl From<&str> for ChargeState {
    fn from(text: &str) -> Self {
        match text {
            "AuthorizationInitiated" => Self::AuthorizationInitiated,
            "Authorized" => Self::Authorized,
            // Amazon's pages spell it both ways.
            "CaptureInitiated" | "CaptureInitated" => Self::CaptureInitiated,
            "Captured" => Self::Captured,
            "Canceled" => Self::Canceled,
            "Declined" => Self::Declined,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl ChargeState {
    /// The state as Amazon spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::AuthorizationInitiated => "AuthorizationInitiated",
            Self::Authorized => "Authorized",
            Self::CaptureInitiated => "CaptureInitiated",
            Self::Captured => "Captured",
            Self::Canceled => "Canceled",
            Self::Declined => "Declined",
            Self::Other(text) => text,
        }
    }

    /// Whether the charge holds or has taken the buyer's money: an authorisation, a running or a finished capture.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Authorized | Self::CaptureInitiated | Self::Captured)
    }

    /// Whether the state no longer changes into another one that matters to the intent.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Captured | Self::Canceled | Self::Declined)
    }
}

/// One look at a charge (the 201 of Create Charge, or Get Charge).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeView {
    /// The charge.
    pub id: ChargeId,
    /// Its permission; `None` if Amazon left it out.
    pub permission: Option<ChargePermissionId>,
    /// Current state.
    pub state: ChargeState,
    /// Reason code of the state.
    pub reason: Option<String>,
    /// Which intent and number it was made for; `None` if it is not ours.
    pub tag: Option<ChargeTag>,
    /// The amount charged.
    pub amount: Option<Money>,
    /// The amount captured, as far as Amazon says.
    pub captured: Option<Money>,
    /// When an authorisation lapses.
    pub expires_at: Option<Timestamp>,
    /// Live or sandbox, as Amazon says.
    pub release_environment: Option<Environment>,
}

/// What a Get Charge came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargeLook {
    /// Amazon showed the charge.
    Seen(ChargeView),
    /// 400, 403 or 404: asking again is unlikely to help.
    Refused(u16),
    /// The account's fault (401, or a refused signature): the charge has nothing to do with it.
    AccountFault,
    /// No answer that says anything.
    Failed,
}
