//! Amazon's quota: what the account may call how often, and who goes first.
//!
//! Amazon throttles each operation by a token bucket. We keep to our share of the documented figures with buckets of our own, in Redis;
//! the scripts do the same arithmetic as [`Bucket`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

use super::ids::Environment;

/// The calls of Amazon Pay's API that have a quota of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Create Charge.
    CreateCharge,
    /// Get Charge Permission.
    GetChargePermission,
    /// Get Charge.
    GetCharge,
    /// Get Refund.
    GetRefund,
    /// Get Dispute.
    GetDispute,
    /// Capture Charge.
    CaptureCharge,
    /// Cancel Charge.
    CancelCharge,
    /// Close Charge Permission.
    CloseChargePermission,
}

const OPERATIONS: usize = Operation::ALL.len();

impl Operation {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::CreateCharge,
        Self::GetChargePermission,
        Self::GetCharge,
        Self::GetRefund,
        Self::GetDispute,
        Self::CaptureCharge,
        Self::CancelCharge,
        Self::CloseChargePermission,
    ];

    /// The name in logs, keys and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateCharge => "create_charge",
            Self::GetChargePermission => "get_charge_permission",
            Self::GetCharge => "get_charge",
            Self::GetRefund => "get_refund",
            Self::GetDispute => "get_dispute",
            Self::CaptureCharge => "capture_charge",
            Self::CancelCharge => "cancel_charge",
            Self::CloseChargePermission => "close_charge_permission",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == name)
    }

    /// What Amazon documents: so many at once, so many a second come back. Two versions of the page differ; these are the lower figures.
    /// For Get Dispute and for Japan none were found: Get Dispute is taken to be as the other looks, Japan as the other regions.
    /// Source: <https://amazonpaycheckoutintegrationguide.s3.amazonaws.com/amazon-pay-api-v2/api-throttling-limits.html>.
    #[must_use]
    pub const fn documented(self, environment: Environment) -> Limit {
        let (capacity, per_second) = match (self, environment) {
            (
                Self::GetChargePermission | Self::GetCharge | Self::GetRefund | Self::GetDispute | Self::CaptureCharge,
                Environment::Live,
            ) => (20, 2.0),
            (
                Self::GetChargePermission | Self::GetCharge | Self::GetRefund | Self::GetDispute,
                Environment::Sandbox,
            ) => (5, 1.0),
            (Self::CreateCharge | Self::CancelCharge | Self::CloseChargePermission, Environment::Live) => (10, 1.0),
            (
                Self::CreateCharge | Self::CaptureCharge | Self::CancelCharge | Self::CloseChargePermission,
                Environment::Sandbox,
            ) => (2, 1.0),
        };
        Limit { capacity, per_second }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one operation may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Tokens of a full bucket.
    pub capacity: u32,
    /// Tokens that come back in a second; more than 0.
    pub per_second: f64,
}

/// The part of the account's quota that this service uses: more than 0, at most 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

/// A share that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a number from 0.01 to 1, such as 0.5")]
pub struct InvalidShare;

impl Share {
    /// Half: the account's other systems use the same quota.
    pub const HALF: Self = Self(0.5);
    /// Everything: nobody else uses the account.
    pub const WHOLE: Self = Self(1.0);
}

impl FromStr for Share {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, InvalidShare> {
        let share = text.parse().map_err(|_| InvalidShare)?;
        if (0.01..=1.0).contains(&share) { Ok(Self(share)) } else { Err(InvalidShare) }
    }
}

/// What each operation may do. All instances of an account should go by the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits([Limit; OPERATIONS]);

impl Limits {
    /// Our share of the documented figures.
    #[must_use]
    pub fn of(environment: Environment, share: Share) -> Self {
        Self(Operation::ALL.map(|operation| {
            let Limit { capacity, per_second } = operation.documented(environment);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the capacity")]
            let capacity = ((f64::from(capacity) * share.0).floor() as u32).max(1);
            Limit { capacity, per_second: per_second * share.0 }
        }))
    }

    /// The same for every operation: for tests, and for sandboxes that do not throttle.
    #[must_use]
    pub const fn each(limit: Limit) -> Self {
        Self([limit; OPERATIONS])
    }

    /// What an operation may do.
    #[must_use]
    pub const fn get(&self, operation: Operation) -> Limit {
        self.0[operation as usize]
    }
}

/// As the scripts read it: `create_charge=5:0.5,...`.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            let Limit { capacity, per_second } = self.get(operation);
            write!(f, "{}{operation}={capacity}:{per_second}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Calls by operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs([u32; OPERATIONS]);

impl Needs {
    /// No calls.
    pub const NONE: Self = Self([0; OPERATIONS]);

    /// So many calls more.
    #[must_use]
    pub const fn with(mut self, operation: Operation, calls: u32) -> Self {
        self.0[operation as usize] = self.0[operation as usize].saturating_add(calls);
        self
    }

    /// How many calls of an operation.
    #[must_use]
    pub const fn get(&self, operation: Operation) -> u32 {
        self.0[operation as usize]
    }

    /// One call less, if there is one.
    pub fn take(&mut self, operation: Operation) -> bool {
        let left = &mut self.0[operation as usize];
        let any = *left > 0;
        *left = left.saturating_sub(1);
        any
    }

    /// Whether there is no call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|calls| *calls == 0)
    }

    /// All calls.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.0.iter().fold(0, |sum, calls| sum.saturating_add(*calls))
    }
}

/// As the scripts read it: `create_charge=1,get_charge_permission=2`; empty for no calls.
impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for operation in Operation::ALL {
            if self.get(operation) > 0 {
                write!(f, "{comma}{operation}={}", self.get(operation))?;
                comma = ",";
            }
        }
        Ok(())
    }
}

/// Who goes first when tokens are scarce. Within a class whoever waits longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A person waits: the buyer updated the instrument, the caller cancels, an operator asks.
    Urgent,
    /// A permission is to be closed. A class of its own, because Amazon allows few closings: nobody else waits behind them.
    Closing,
    /// A number is unknown: nobody can say whether the buyer was charged.
    Unknown,
    /// A new number is due.
    Attempt,
    /// Only charges are to be read.
    Charges,
    /// A look at a permission with open charges.
    Sweep,
    /// A look at any other permission.
    Rest,
}

impl Class {
    /// All of them, the first first.
    pub const ALL: [Self; 7] =
        [Self::Urgent, Self::Closing, Self::Unknown, Self::Attempt, Self::Charges, Self::Sweep, Self::Rest];

    /// The name in the API and the metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::Closing => "closing",
            Self::Unknown => "unknown",
            Self::Attempt => "attempt",
            Self::Charges => "charges",
            Self::Sweep => "sweep",
            Self::Rest => "rest",
        }
    }

    /// 0 goes first.
    #[must_use]
    pub const fn rank(self) -> usize {
        self as usize
    }
}

/// The slowest that a throttled bucket fills, as a part of its rate.
pub const SLOWEST: f64 = 1.0 / 16.0;
/// A slowed bucket gets back this part of its rate with each [`SPEED_UP_EVERY`].
pub const SPEED_UP: f64 = 1.0 / 8.0;
/// See [`SPEED_UP`].
pub const SPEED_UP_EVERY: Duration = Duration::from_mins(1);

/// The tokens of one operation, as stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Tokens at `at`; below 0 after more was given than there was.
    pub tokens: f64,
    /// As of when.
    pub at: Timestamp,
    /// The part of its rate that it fills at since `slowed_at`; 1 if Amazon never throttled it.
    pub factor: f64,
    /// When Amazon last slowed it down.
    pub slowed_at: Timestamp,
    /// It does not fill before this time.
    pub closed_until: Timestamp,
}

impl Bucket {
    /// Full, and as fast as may be.
    #[must_use]
    pub fn full(limit: Limit, now: Timestamp) -> Self {
        let never = Timestamp::UNIX_EPOCH;
        Self { tokens: limit.capacity.into(), at: now, factor: 1.0, slowed_at: never, closed_until: never }
    }

    /// The part of its rate that it fills at: it recovers by itself, step by step.
    #[must_use]
    pub fn factor_at(&self, now: Timestamp) -> f64 {
        let steps = seconds_between(self.slowed_at, now).div_euclid(SPEED_UP_EVERY.as_secs_f64());
        (self.factor + steps * SPEED_UP).min(1.0)
    }

    /// The tokens at a later time. The rate of an interval is that of its beginning, which never gives too much.
    #[must_use]
    pub fn tokens_at(&self, limit: Limit, now: Timestamp) -> f64 {
        let span = seconds_between(self.at.max(self.closed_until), now);
        let rate = limit.per_second * self.factor_at(self.at);
        (self.tokens + span * rate).min(limit.capacity.into())
    }
}

/// Not negative: a clock that goes back fills no bucket.
fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

/// How long so many calls take from now on, at the latest: that of the slowest operation.
#[must_use]
pub fn time_for(
    calls: impl Fn(Operation) -> f64,
    bucket: impl Fn(Operation) -> Bucket,
    limits: &Limits,
    now: Timestamp,
) -> Duration {
    let slowest = Operation::ALL.into_iter().map(|operation| {
        let (limit, bucket) = (limits.get(operation), bucket(operation));
        let missing = (calls(operation) - bucket.tokens_at(limit, now)).max(0.0);
        missing / (limit.per_second * bucket.factor_at(now))
    });
    let seconds = slowest.fold(0.0, f64::max);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_780_000_000 + seconds).unwrap()
    }

    /// The facts: section 8 of amazon-pay.md, the columns of the older page.
    #[test]
    fn the_documented_figures_are_the_lower_ones() {
        let rows = [
            (Operation::CreateCharge, (10, 1.0), (2, 1.0)),
            (Operation::GetChargePermission, (20, 2.0), (5, 1.0)),
            (Operation::GetCharge, (20, 2.0), (5, 1.0)),
            (Operation::GetRefund, (20, 2.0), (5, 1.0)),
            (Operation::GetDispute, (20, 2.0), (5, 1.0)),
            (Operation::CaptureCharge, (20, 2.0), (2, 1.0)),
            (Operation::CancelCharge, (10, 1.0), (2, 1.0)),
            (Operation::CloseChargePermission, (10, 1.0), (2, 1.0)),
        ];
        assert_eq!(rows.map(|row| row.0), Operation::ALL);
        for (operation, live, sandbox) in rows {
            let limit = |(capacity, per_second)| Limit { capacity, per_second };
            assert_eq!(operation.documented(Environment::Live), limit(live), "{operation}");
            assert_eq!(operation.documented(Environment::Sandbox), limit(sandbox), "{operation}");
            assert_eq!(Operation::parse(operation.as_str()), Some(operation));
        }
    }

    #[test]
    fn a_share_takes_its_part_of_both_figures_and_leaves_at_least_one_token() {
        let half = Limits::of(Environment::Live, Share::HALF);
        assert_eq!(half.get(Operation::CreateCharge), Limit { capacity: 5, per_second: 0.5 });
        let little = Limits::of(Environment::Sandbox, "0.1".parse().unwrap());
        assert_eq!(little.get(Operation::CreateCharge), Limit { capacity: 1, per_second: 0.1 });
        for wrong in ["0", "-1", "1.1", "NaN", "inf", "", "half", "0.001"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bucket_fills_to_its_capacity_and_not_before_its_time() {
        let limit = Limit { capacity: 5, per_second: 0.5 };
        let empty = Bucket { tokens: 0.0, ..Bucket::full(limit, at(0)) };
        let levels = [0, 1, 4, 10, 1000, -9].map(|seconds| empty.tokens_at(limit, at(seconds)));
        assert!(
            levels.iter().zip([0.0, 0.5, 2.0, 5.0, 5.0, 0.0]).all(|(is, should)| (is - should).abs() < 1e-9),
            "{levels:?}"
        );
        let closed = Bucket { closed_until: at(6), ..empty };
        assert!(closed.tokens_at(limit, at(6)).abs() < 1e-9);
        assert!((closed.tokens_at(limit, at(8)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_slowed_bucket_gets_its_rate_back_minute_by_minute() {
        let limit = Limit { capacity: 5, per_second: 1.0 };
        let slowed = Bucket { factor: SLOWEST, slowed_at: at(0), ..Bucket::full(limit, at(0)) };
        let factors = [0, 59, 60, 120, 10_000].map(|seconds| slowed.factor_at(at(seconds)));
        let expected = [0.0625, 0.0625, 0.1875, 0.3125, 1.0];
        assert!(factors.iter().zip(expected).all(|(is, should)| (is - should).abs() < 1e-9), "{factors:?}");
    }

    #[test]
    fn a_backlog_takes_as_long_as_its_slowest_operation() {
        let limits = Limits::of(Environment::Live, Share::HALF);
        let calls = |operation| match operation {
            Operation::CreateCharge => 105.0,
            Operation::GetChargePermission => 210.0,
            _ => 0.0,
        };
        let full = |operation| Bucket::full(limits.get(operation), at(0));
        // 5 charges at once, the other 100 one every 2 seconds; 10 looks at once, the others one a second.
        assert_eq!(time_for(calls, full, &limits, at(0)), Duration::from_secs(200));
        assert_eq!(time_for(|_| 0.0, full, &limits, at(0)), Duration::ZERO);
    }

    #[test]
    fn needs_and_limits_are_written_as_the_scripts_read_them() {
        let needs = Needs::NONE.with(Operation::GetChargePermission, 2).with(Operation::CreateCharge, 1);
        assert_eq!((needs.to_string().as_str(), needs.total()), ("create_charge=1,get_charge_permission=2", 3));
        assert_eq!(Needs::NONE.to_string(), "");
        let mut left = needs;
        assert!(left.take(Operation::CreateCharge) && !left.take(Operation::CreateCharge));
        let limits = Limits::of(Environment::Live, Share::HALF).to_string();
        assert!(limits.starts_with("create_charge=5:0.5,get_charge_permission=10:1,"), "{limits}");
    }
}
