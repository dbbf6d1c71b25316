//! A charge that somebody else tried, and that Amazon declined, before it was handed over to this service.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::verdict::Decline;

/// What the caller says about the requests that he made for a charge: every one of them was definitely declined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HandedOver {
    /// The last answer.
    pub reason_code: PriorDecline,
    /// When it came; never in the future.
    pub at: Timestamp,
    /// How many attempts there were, from 1; they count toward the policy's maximum.
    pub attempts: u32,
}

/// An answer to Create Charge after which there is something to recover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriorDecline {
    /// A decline that the clock or the buyer can mend; never `AmazonRejected`.
    Declined(Decline),
    /// The monthly limit of the permission was used up.
    MonthlyLimit,
    /// The permission was not chargeable.
    PermissionStatus,
}

/// Answers after which only a new checkout helps: nothing is left to recover.
pub const NEW_CHECKOUT: [&str; 5] = [
    "AmazonRejected",
    "PaymentMethodNotAllowed",
    "MFANotCompleted",
    "TransactionAmountExceeded",
    "TransactionCountExceeded",
];

impl PriorDecline {
    /// Every answer that can be handed over.
    pub const ALL: [Self; 6] = [
        Self::Declined(Decline::SoftDeclined),
        Self::Declined(Decline::HardDeclined),
        Self::Declined(Decline::TransactionTimedOut),
        Self::Declined(Decline::ProcessingFailure),
        Self::MonthlyLimit,
        Self::PermissionStatus,
    ];

    /// The reason code as Amazon spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declined(decline) => decline.as_str(),
            Self::MonthlyLimit => "PeriodicAmountExceeded",
            Self::PermissionStatus => "InvalidChargePermissionStatus",
        }
    }

    /// Reads a reason code.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == code)
    }
}

impl Serialize for PriorDecline {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::verdict::Refusal;

    #[test]
    fn an_answer_can_be_recovered_or_needs_a_new_checkout_and_is_spelt_as_amazon_does() {
        for reason in PriorDecline::ALL {
            assert_eq!(PriorDecline::parse(reason.as_str()), Some(reason));
            assert!(!NEW_CHECKOUT.contains(&reason.as_str()));
        }
        assert_eq!(PriorDecline::MonthlyLimit.as_str(), Refusal::MonthlyLimit.code());
        assert_eq!(PriorDecline::PermissionStatus.as_str(), Refusal::PermissionStatus.code());
        for code in NEW_CHECKOUT {
            assert_eq!(PriorDecline::parse(code), None);
        }
        assert!(Decline::ALL.iter().all(|decline| {
            PriorDecline::parse(decline.as_str()).is_some() || NEW_CHECKOUT.contains(&decline.as_str())
        }));
    }
}
