//! What an answer to Create Charge means. The client says *what*, the recovery rules say *when*.

use std::time::Duration;

use super::charge::ChargeView;

/// A definite decline: these five codes settle even a repeated send, because only the charge itself can have given them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decline {
    /// May succeed later.
    SoftDeclined,
    /// Will not succeed with this instrument.
    HardDeclined,
    /// Not enough time to decide.
    TransactionTimedOut,
    /// Amazon's internal error, reported as HTTP 500, and yet a decline.
    ProcessingFailure,
    /// Amazon will not have it.
    AmazonRejected,
}

impl Decline {
    /// Every decline.
    pub const ALL: [Self; 5] = [
        Self::SoftDeclined,
        Self::HardDeclined,
        Self::TransactionTimedOut,
        Self::ProcessingFailure,
        Self::AmazonRejected,
    ];

    /// The reason code as Amazon spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SoftDeclined => "SoftDeclined",
            Self::HardDeclined => "HardDeclined",
            Self::TransactionTimedOut => "TransactionTimedOut",
            Self::ProcessingFailure => "ProcessingFailure",
            Self::AmazonRejected => "AmazonRejected",
        }
    }

    /// Reads a reason code.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|decline| decline.as_str() == code)
    }

    /// Whether the decline counts toward the policy's maximum of attempts.
    #[must_use]
    pub fn counts(self) -> bool {
        self != Self::AmazonRejected
    }
}

/// A refusal that may come before Amazon looks the idempotency key up. It settles a number only on its first, untainted send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The monthly limit of the permission is used up (`PeriodicAmountExceeded`).
    MonthlyLimit,
    /// The permission is not chargeable at the moment, or closed (`InvalidChargePermissionStatus`).
    PermissionStatus,
    /// Only a new checkout helps: `PaymentMethodNotAllowed`, `MFANotCompleted`, `TransactionAmountExceeded`,
    /// `TransactionCountExceeded`, or an unknown reason with status 422.
    NewCheckout(String),
    /// A bug or bad input: other 400, 404, 405 and the like.
    NotUnderstood(String),
}

impl Refusal {
    /// The reason code as Amazon spells it.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::MonthlyLimit => "PeriodicAmountExceeded",
            Self::PermissionStatus => "InvalidChargePermissionStatus",
            Self::NewCheckout(code) | Self::NotUnderstood(code) => code,
        }
    }
}

/// What one send of Create Charge came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a verdict that is dropped is a charge that nobody knows of"]
pub enum Verdict {
    /// 200 or 201 with a charge id: this charge is the answer; its state says the rest.
    Charge(Box<ChargeView>),
    /// A definite decline.
    Declined(Decline),
    /// Refused before or at the look-up of the key.
    Refused(Refusal),
    /// Amazon has another request under this key (`DuplicateIdempotencyKey`): a bug or a lost database. For the operator.
    DuplicateKey,
    /// The account's fault, not the charge's: 401, 403.
    AccountFault(String),
    /// Nobody knows whether Amazon made the charge: time-out, connection lost, 408, 425, 429, 5xx, an unreadable 2xx, 3xx.
    Ambiguous {
        /// Why, for the log and the timeline.
        why: String,
        /// Amazon's `Retry-After`, bounded.
        retry_after: Option<Duration>,
    },
}
