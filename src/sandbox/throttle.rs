//! Amazon's documented throttle: a token bucket per operation, on the sandbox's clock.
//!
//! Two versions of the page give two tables; where they differ this takes the lower figure.
//! Sources: <https://developer.amazon.com/docs/amazon-pay-api-v2/api-throttling-limits.html> and its older copy
//! <https://amazonpaycheckoutintegrationguide.s3.amazonaws.com/amazon-pay-api-v2/api-throttling-limits.html>.

use std::collections::HashMap;

use jiff::Timestamp;

use super::faults::Operation;
use super::wire::{Answer, Refusal};

/// Whose limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleTable {
    /// Of Amazon's sandbox.
    Sandbox,
    /// Of a live account.
    Live,
}

/// How the sandbox throttles. A request over the limit is answered 429 `TooManyRequests`: it is not evaluated, leaves nothing
/// under its idempotency key, and uses up the fault that was ordered for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// Whose limits.
    pub table: ThrottleTable,
    /// Whether a 429 says `Retry-After`. Amazon documents no such header.
    pub retry_after: bool,
}

/// What one operation may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// So many at once.
    pub burst: u32,
    /// So many a second come back.
    pub per_second: u32,
}

impl Throttle {
    /// The limits of Amazon's sandbox, without `Retry-After`.
    #[must_use]
    pub fn sandbox() -> Self {
        Self { table: ThrottleTable::Sandbox, retry_after: false }
    }

    /// The limits of a live account, without `Retry-After`.
    #[must_use]
    pub fn live() -> Self {
        Self { table: ThrottleTable::Live, retry_after: false }
    }

    /// The same with `Retry-After`, in seconds.
    #[must_use]
    pub fn with_retry_after(self) -> Self {
        Self { retry_after: true, ..self }
    }

    /// What an operation may do. Get Dispute is in neither table: it is taken to be as Get Refund.
    #[must_use]
    pub fn quota(self, operation: Operation) -> Quota {
        let (live, sandbox) = match operation {
            Operation::GetChargePermission | Operation::GetCharge | Operation::GetRefund | Operation::GetDispute => {
                ((20, 2), (5, 1))
            }
            Operation::CaptureCharge => ((20, 2), (2, 1)),
            Operation::CreateCharge
            | Operation::CancelCharge
            | Operation::CloseChargePermission
            | Operation::CreateRefund => ((10, 1), (2, 1)),
        };
        let (burst, per_second) = match self.table {
            ThrottleTable::Live => live,
            ThrottleTable::Sandbox => sandbox,
        };
        Quota { burst, per_second }
    }
}

/// The tokens of one operation, in thousandths: a rate of one a second is one thousandth a millisecond.
#[derive(Debug)]
struct Bucket {
    thousandths: i64,
    filled_at: Timestamp,
}

const TOKEN: i64 = 1000;

/// The buckets of the account.
#[derive(Debug, Default)]
pub(super) struct Throttling {
    rules: Option<Throttle>,
    buckets: HashMap<Operation, Bucket>,
}

impl Throttling {
    pub(super) fn new(rules: Option<Throttle>) -> Self {
        Self { rules, buckets: HashMap::new() }
    }

    /// Takes one token; without one, the answer is this.
    pub(super) fn refusal(&mut self, operation: Operation, now: Timestamp) -> Option<Answer> {
        let rules = self.rules?;
        let quota = rules.quota(operation);
        let (full, rate) = (i64::from(quota.burst) * TOKEN, i64::from(quota.per_second));
        let bucket = self.buckets.entry(operation).or_insert(Bucket { thousandths: full, filled_at: now });
        let passed = (now.as_millisecond() - bucket.filled_at.as_millisecond()).max(0);
        bucket.thousandths = bucket.thousandths.saturating_add(passed.saturating_mul(rate)).min(full);
        bucket.filled_at = bucket.filled_at.max(now);
        if bucket.thousandths >= TOKEN {
            bucket.thousandths -= TOKEN;
            return None;
        }
        let missing_ms = u64::try_from((TOKEN - bucket.thousandths) / rate.max(1)).unwrap_or_default();
        let answer = Answer::from(Refusal::new(429, "TooManyRequests", format!("{operation} is throttled")));
        Some(Answer { retry_after_s: rules.retry_after.then(|| missing_ms.div_ceil(1000).max(1)), ..answer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY_OPERATION: [Operation; 9] = [
        Operation::CreateCharge,
        Operation::GetCharge,
        Operation::CaptureCharge,
        Operation::CancelCharge,
        Operation::GetChargePermission,
        Operation::CloseChargePermission,
        Operation::CreateRefund,
        Operation::GetRefund,
        Operation::GetDispute,
    ];

    fn at_ms(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_780_000_000_000 + ms).unwrap()
    }

    #[test]
    fn every_operation_has_its_burst_and_then_its_rate_in_both_tables() {
        for rules in [Throttle::sandbox(), Throttle::live()] {
            let mut throttling = Throttling::new(Some(rules));
            for operation in EVERY_OPERATION {
                let quota = rules.quota(operation);
                let mut admitted = |ms: i64| throttling.refusal(operation, at_ms(ms)).is_none();
                let at_once = (0..100).filter(|_| admitted(0)).count();
                assert_eq!(at_once, quota.burst as usize, "{operation} {rules:?}");
                // Ten calls a second for ten seconds.
                let later = (1..=100).filter(|step| admitted(step * 100)).count();
                assert_eq!(later, 10 * quota.per_second as usize, "{operation} {rules:?}");
                let after_a_day = (0..100).filter(|_| admitted(86_400_000)).count();
                assert_eq!(after_a_day, quota.burst as usize, "never more than the burst: {operation} {rules:?}");
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_gives_no_tokens() {
        let mut throttling = Throttling::new(Some(Throttle::sandbox()));
        for _ in 0..2 {
            assert!(throttling.refusal(Operation::CreateCharge, at_ms(10_000)).is_none());
        }
        assert!(throttling.refusal(Operation::CreateCharge, at_ms(0)).is_some());
        assert!(throttling.refusal(Operation::CreateCharge, at_ms(10_500)).is_some());
        assert!(throttling.refusal(Operation::CreateCharge, at_ms(11_000)).is_none());
    }

    #[test]
    fn retry_after_is_said_only_where_it_is_asked_for_and_is_enough() {
        for (rules, expected) in [(Throttle::live(), None), (Throttle::live().with_retry_after(), Some(1))] {
            let mut throttling = Throttling::new(Some(rules));
            let mut ask = |ms: i64| throttling.refusal(Operation::CreateCharge, at_ms(ms));
            let refused = (0..11).find_map(|_| ask(0)).unwrap();
            assert_eq!((refused.status, refused.retry_after_s), (429, expected));
            assert!(ask(1000).is_none());
        }
        assert!((0..1000).all(|_| Throttling::new(None).refusal(Operation::CreateCharge, at_ms(0)).is_none()));
    }
}
