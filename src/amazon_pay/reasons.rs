//! The table of Amazon's reason codes: what each means as the answer to Create Charge. `docs/RECOVERY.md` shows the same table, and a
//! test holds the two together.
//!
//! Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/error-handling.html> and both guides (facts, 3.5).

use crate::model::verdict::Decline;

/// What a reason code says about the charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A definite decline.
    Declined(Decline),
    /// The monthly limit of the permission is used up.
    MonthlyLimit,
    /// The permission cannot be charged at the moment, or any more.
    PermissionStatus,
    /// Only a new checkout, another amount or another method helps.
    NewCheckout,
    /// Amazon has another request under our idempotency key.
    DuplicateKey,
    /// The account, its key or its rights; not the charge.
    AccountFault,
    /// The request is wrong: a bug, or bad input that the checks before did not see.
    Mistake,
    /// Nothing about the charge.
    Ambiguous,
}

impl Meaning {
    /// The word for it in `docs/RECOVERY.md`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declined(_) => "declined",
            Self::MonthlyLimit => "monthly limit",
            Self::PermissionStatus => "permission status",
            Self::NewCheckout => "new checkout",
            Self::DuplicateKey => "duplicate key",
            Self::AccountFault => "account fault",
            Self::Mistake => "mistake",
            Self::Ambiguous => "ambiguous",
        }
    }
}

/// One documented reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// As Amazon spells it.
    pub code: &'static str,
    /// The HTTP status that Amazon documents for it. For the reader: the code decides.
    pub documented_status: u16,
    /// What it means.
    pub meaning: Meaning,
}

const fn reason(code: &'static str, documented_status: u16, meaning: Meaning) -> Reason {
    Reason { code, documented_status, meaning }
}

/// Every reason code that Create Charge can answer with, as far as it is documented. A code that is not here is unknown: 422 means a
/// decline that only a new checkout helps against, any other 4xx a mistake.
pub const REASONS: &[Reason] = &[
    reason("SoftDeclined", 422, Meaning::Declined(Decline::SoftDeclined)),
    reason("HardDeclined", 422, Meaning::Declined(Decline::HardDeclined)),
    reason("TransactionTimedOut", 422, Meaning::Declined(Decline::TransactionTimedOut)),
    reason("ProcessingFailure", 500, Meaning::Declined(Decline::ProcessingFailure)),
    reason("AmazonRejected", 422, Meaning::Declined(Decline::AmazonRejected)),
    reason("PeriodicAmountExceeded", 400, Meaning::MonthlyLimit),
    reason("InvalidChargePermissionStatus", 422, Meaning::PermissionStatus),
    reason("PaymentMethodNotAllowed", 422, Meaning::NewCheckout),
    reason("MFANotCompleted", 422, Meaning::NewCheckout),
    reason("TransactionAmountExceeded", 400, Meaning::NewCheckout),
    reason("TransactionCountExceeded", 422, Meaning::NewCheckout),
    reason("DuplicateIdempotencyKey", 400, Meaning::DuplicateKey),
    reason("UnauthorizedAccess", 401, Meaning::AccountFault),
    reason("InvalidAccountStatus", 403, Meaning::AccountFault),
    reason("InvalidRequestSignature", 403, Meaning::AccountFault),
    reason("InvalidHeaderValue", 400, Meaning::Mistake),
    reason("InvalidRequest", 400, Meaning::Mistake),
    reason("InvalidParameterValue", 400, Meaning::Mistake),
    reason("InvalidRequestFormat", 400, Meaning::Mistake),
    reason("MissingHeader", 400, Meaning::Mistake),
    reason("MissingHeaderValue", 400, Meaning::Mistake),
    reason("MissingParameterValue", 400, Meaning::Mistake),
    reason("UnrecognizedField", 400, Meaning::Mistake),
    reason("InvalidSandboxSimulationSpecified", 400, Meaning::Mistake),
    reason("InvalidParameterCombination", 400, Meaning::Mistake),
    reason("CurrencyMismatch", 400, Meaning::Mistake),
    reason("InvalidAPIVersion", 400, Meaning::Mistake),
    reason("CheckoutSessionCanceled", 400, Meaning::Mistake),
    reason("ResourceNotFound", 404, Meaning::Mistake),
    reason("UnsupportedOperation", 405, Meaning::Mistake),
    reason("RequestNotSupported", 405, Meaning::Mistake),
    reason("AmountMismatch", 409, Meaning::Mistake),
    reason("TooManyRequests", 429, Meaning::Ambiguous),
    reason("InternalServerError", 500, Meaning::Ambiguous),
    reason("ServiceUnavailable", 503, Meaning::Ambiguous),
];

/// What a code means; `None` if it is not documented.
pub(super) fn meaning_of(code: &str) -> Option<Meaning> {
    REASONS.iter().find(|reason| reason.code == code).map(|reason| reason.meaning)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_code_has_one_row_and_each_decline_its_own() {
        let codes: BTreeSet<&str> = REASONS.iter().map(|reason| reason.code).collect();
        assert_eq!(codes.len(), REASONS.len());
        for decline in Decline::ALL {
            assert_eq!(meaning_of(decline.as_str()), Some(Meaning::Declined(decline)));
        }
        for reason in REASONS {
            if let Meaning::Declined(decline) = reason.meaning {
                assert_eq!(decline.as_str(), reason.code);
            }
        }
    }
}
