//! The recovery policy: when to try again, how often and for how long. The defaults are those of the design; Amazon documents no
//! numbers (facts: "NOT FOUND"), card schemes allow 10 to 15 attempts in 30 days.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use crate::model::charge_intent::{ChargeIntent, Why};
use crate::model::ids::{Region, jitter};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// When and how often a charge is tried.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Attempts that count, at most.
    pub max_attempts: u32,
    /// How long after the later of submission and `notBefore` attempts may happen.
    pub window: Duration,
    /// Waiting time after the 1st, 2nd ... counted decline that may pass by itself. The last one repeats.
    pub soft_delays: Vec<Duration>,
    /// Waiting time after the 1st, 2nd ... `ProcessingFailure`. The last one repeats.
    pub failure_delays: Vec<Duration>,
    /// Waiting time after the 1st, 2nd ... send of a number that nobody answered. The last one repeats.
    pub repeat_delays: Vec<Duration>,
    /// X: how long an old copy of a request may still be accepted by Amazon (`CONFIRMATION_DELAY`).
    pub confirmation_delay: Duration,
    /// Where the month of the permission's limit turns (`MONTHLY_LIMIT_TIME_ZONE`).
    pub month_zone: TimeZone,
    /// Month parks at most.
    pub max_month_parks: u32,
    /// The page where the buyer updates the instrument; `{chargePermissionId}` is replaced.
    pub update_url: String,
}

/// How much later than planned a retry may come at most, to spread load.
const MAX_SPREAD: Duration = Duration::from_hours(2);
/// Month parks are spread over this long after the turn.
const MONTH_SPREAD: Duration = Duration::from_hours(6);
/// After the assumed turn of the month the limit may still be the old one for this long: Amazon documents no time zone.
const MONTH_DOUBT: Duration = Duration::from_hours(36);
/// How long to wait while in that doubt.
const MONTH_RETRY: Duration = Duration::from_hours(2);

impl Policy {
    /// The default policy of a region.
    #[must_use]
    pub fn for_region(region: Region) -> Self {
        let zone = match region {
            Region::Na => "America/Los_Angeles",
            Region::Eu => "UTC",
            Region::Jp => "Asia/Tokyo",
        };
        Self {
            max_attempts: 5,
            window: 30 * DAY,
            soft_delays: vec![DAY, 3 * DAY, 7 * DAY, 14 * DAY],
            failure_delays: vec![15 * MINUTE, HOUR, 4 * HOUR, 12 * HOUR],
            repeat_delays: vec![MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR],
            confirmation_delay: 30 * MINUTE,
            month_zone: TimeZone::get(zone).unwrap_or(TimeZone::UTC),
            max_month_parks: 2,
            update_url: default_update_url(region).to_owned(),
        }
    }

    /// When the window of the intent ends: nothing is tried after it.
    #[must_use]
    pub fn window_end(&self, intent: &ChargeIntent) -> Timestamp {
        let still_ms = intent.progress.stood_still_ms.saturating_add(intent.stopped_ms);
        let still = Duration::from_millis(u64::try_from(still_ms).unwrap_or(0));
        later(intent.progress.window_from, self.window + still)
    }

    /// Until when an unknown number is asked about: the window's end, but a confirmation that is already planned is waited for.
    #[must_use]
    pub fn unknown_deadline(&self, intent: &ChargeIntent, why: Why) -> Timestamp {
        let end = self.window_end(intent);
        if why == Why::Confirmation { later(end, 2 * self.confirmation_delay) } else { end }
    }

    /// The next attempt after a decline that may pass by itself (`SoftDeclined`, `TransactionTimedOut`); `None` when the attempts
    /// or the window are used up. `intent.progress.attempts` already counts the decline.
    #[must_use]
    pub fn next_attempt(&self, intent: &ChargeIntent, now: Timestamp) -> Option<Timestamp> {
        self.next_of(&self.soft_delays, intent, now)
    }

    /// As [`Self::next_attempt`], after a confirmed `ProcessingFailure`.
    #[must_use]
    pub fn next_after_failure(&self, intent: &ChargeIntent, now: Timestamp) -> Option<Timestamp> {
        self.next_of(&self.failure_delays, intent, now)
    }

    fn next_of(&self, delays: &[Duration], intent: &ChargeIntent, now: Timestamp) -> Option<Timestamp> {
        if intent.progress.attempts >= self.max_attempts {
            return None;
        }
        let delay = nth(delays, intent.progress.attempts.saturating_sub(1));
        let spread = (delay / 10).min(MAX_SPREAD).mul_f64(jitter_of(intent));
        let at = later(now, delay + spread);
        (at < self.window_end(intent)).then_some(at)
    }

    /// When to send the same number again after nobody answered; `retry_after` is Amazon's wish.
    #[must_use]
    pub fn repeat_at(&self, intent: &ChargeIntent, now: Timestamp, retry_after: Option<Duration>) -> Timestamp {
        let delay = nth(&self.repeat_delays, intent.number.sends.saturating_sub(1));
        let spread = (delay / 5).mul_f64(jitter_of(intent));
        later(now, (delay + spread).max(retry_after.unwrap_or_default()))
    }

    /// When to ask again under the same number, so that no copy sent before can still be accepted: last mark + X.
    #[must_use]
    pub fn confirmation_at(&self, intent: &ChargeIntent, now: Timestamp) -> Timestamp {
        later(intent.number.last_mark.unwrap_or(now), self.confirmation_delay)
    }

    /// What to do about a monthly limit that is used up.
    #[must_use]
    pub fn month_park(&self, intent: &ChargeIntent, now: Timestamp) -> MonthPark {
        // Also for an intent that never waited for this turn: else one answer just after midnight costs it a whole month (R17).
        let waited_for = intent.progress.month_turn.filter(|turn| *turn <= now);
        let turned = waited_for.max(this_month(now, &self.month_zone));
        if turned.is_some_and(|turn| now < later(turn, MONTH_DOUBT)) {
            return MonthPark::StillTheOldMonth { at: later(now, MONTH_RETRY) };
        }
        let turn = next_month(now, &self.month_zone);
        if intent.progress.month_parks >= self.max_month_parks && intent.progress.month_turn != Some(turn) {
            return MonthPark::GiveUp;
        }
        MonthPark::Until { turn, at: later(turn, MONTH_SPREAD.mul_f64(jitter_of(intent))) }
    }

    /// The link at which the buyer updates the instrument of a permission.
    #[must_use]
    pub fn update_link(&self, intent: &ChargeIntent) -> String {
        self.update_url.replace("{chargePermissionId}", intent.request.charge_permission_id.as_str())
    }
}

/// What to do about a monthly limit that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonthPark {
    /// Wait for the next month.
    Until {
        /// The assumed turn of the month.
        turn: Timestamp,
        /// The attempt, spread over hours after it.
        at: Timestamp,
    },
    /// The assumed turn has just passed; Amazon's may be hours later.
    StillTheOldMonth {
        /// The next attempt.
        at: Timestamp,
    },
    /// Parked often enough.
    GiveUp,
}

/// The guides' link (REC, SW; the only one documented for na), and the documented one of Japan. For the rest of the world Amazon
/// documents none: the guides' link stands in, and `UPDATE_PAYMENT_METHOD_URL` replaces it.
fn default_update_url(region: Region) -> &'static str {
    match region {
        Region::Na | Region::Eu => "https://payments.amazon.com/jr/your-account/ba/{chargePermissionId}",
        Region::Jp => "https://pay.amazon.com/jp/jr/your-account/ba/{chargePermissionId}",
    }
}

/// `at` plus `by`, never past the end of time.
#[must_use]
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

fn nth(delays: &[Duration], index: u32) -> Duration {
    delays.get(index as usize).or(delays.last()).copied().unwrap_or(HOUR)
}

/// One jitter per intent, number and send: repeatable, and different for each.
fn jitter_of(intent: &ChargeIntent) -> f64 {
    jitter(&format!("{}/{}/{}/{}", intent.id, intent.number.value, intent.number.sends, intent.progress.attempts))
}

fn this_month(now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let first = now.to_zoned(zone.clone()).first_of_month().ok()?;
    first.start_of_day().ok().map(|first| first.timestamp())
}

fn next_month(now: Timestamp, zone: &TimeZone) -> Timestamp {
    let local = now.to_zoned(zone.clone());
    local
        .first_of_month()
        .and_then(|first| first.checked_add(1.month()))
        .and_then(|next| next.start_of_day())
        .map_or_else(|_| later(now, 31 * DAY), |next| next.timestamp())
}

/// How often an intent is looked at although nothing was heard of it. The scheduling of sends is separate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// A charge is pending since then.
    Pending(Timestamp),
    /// Parked since then.
    Parked(Timestamp),
    /// Authorised, or a retry is planned.
    Quiet,
}

impl Sweep {
    /// The next look. Pending: hourly for a day, then six-hourly (Amazon recommends hourly polling). Parked: six-hourly for three
    /// days, then daily. Otherwise daily.
    #[must_use]
    pub fn next(self, now: Timestamp) -> Timestamp {
        let interval = match self {
            Self::Pending(since) if now < later(since, DAY) => HOUR,
            Self::Parked(since) if now >= later(since, 3 * DAY) => DAY,
            Self::Pending(_) | Self::Parked(_) => 6 * HOUR,
            Self::Quiet => DAY,
        };
        later(now, interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::draft::testing::{at, intent};

    fn policy() -> Policy {
        Policy::for_region(Region::Na)
    }

    #[test]
    fn soft_declines_are_retried_after_1_3_7_and_14_days_within_thirty() {
        let (policy, mut intent) = (policy(), intent());
        let mut now = intent.submitted_at;
        let mut days = vec![];
        for attempt in 1.. {
            intent.progress.attempts = attempt;
            intent.number.value = attempt;
            let Some(next) = policy.next_attempt(&intent, now) else { break };
            days.push(next.duration_since(now).as_hours() / 24);
            now = next;
        }
        assert_eq!(days, [1, 3, 7, 14]);
        assert!(now < policy.window_end(&intent));
    }

    #[test]
    fn the_month_turns_where_the_account_is() {
        let now = at("2026-01-31T23:30:00-08:00");
        let MonthPark::Until { turn, at: next } = policy().month_park(&intent(), now) else {
            panic!("expected a park")
        };
        assert_eq!(turn, at("2026-02-01T00:00:00-08:00"));
        assert!(next >= turn && next < later(turn, MONTH_SPREAD));
        let utc = Policy { month_zone: TimeZone::UTC, ..policy() };
        let MonthPark::Until { turn, .. } = utc.month_park(&intent(), later(now, 2 * DAY)) else {
            panic!("expected a park")
        };
        assert_eq!(turn, at("2026-03-01T00:00:00Z"));
    }

    #[test]
    fn a_first_answer_just_after_the_turn_does_not_cost_a_whole_month() {
        let utc = Policy { month_zone: TimeZone::UTC, ..policy() };
        let soon = at("2026-02-01T07:30:00Z");
        assert_eq!(utc.month_park(&intent(), soon), MonthPark::StillTheOldMonth { at: later(soon, 2 * HOUR) });
    }

    #[test]
    fn the_same_limit_within_36_hours_after_the_turn_is_asked_again_after_two() {
        let mut intent = intent();
        intent.progress.month_turn = Some(at("2026-02-01T00:00:00Z"));
        intent.progress.month_parks = 2;
        let utc = Policy { month_zone: TimeZone::UTC, ..policy() };
        let soon = at("2026-02-02T11:59:00Z");
        assert_eq!(utc.month_park(&intent, soon), MonthPark::StillTheOldMonth { at: later(soon, 2 * HOUR) });
        assert_eq!(utc.month_park(&intent, at("2026-02-02T12:00:00Z")), MonthPark::GiveUp);
    }

    #[test]
    fn a_window_that_stood_still_ends_later() {
        let mut intent = intent();
        let end = policy().window_end(&intent);
        intent.progress.stand_still(5 * DAY);
        assert_eq!(policy().window_end(&intent), later(end, 5 * DAY));
    }

    #[test]
    fn amazons_retry_after_is_honoured_when_it_is_longer() {
        let mut intent = intent();
        intent.number.sends = 1;
        let now = intent.submitted_at;
        assert!(policy().repeat_at(&intent, now, None) < later(now, 2 * MINUTE));
        assert_eq!(policy().repeat_at(&intent, now, Some(10 * MINUTE)), later(now, 10 * MINUTE));
    }
}
