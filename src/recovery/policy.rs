//! The recovery policy: when to try again, how often and for how long. The defaults are those of the design; Amazon documents no
//! numbers (facts: "NOT FOUND"), card schemes allow 10 to 15 attempts in 30 days.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::quiet::QuietHours;
use crate::model::charge_intent::{ChargeIntent, Park, Stage, Trigger, Why};
use crate::model::ids::{Region, jitter};
use crate::model::verdict::Decline;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
pub(super) const DAY: Duration = Duration::from_hours(24);

/// When and how often a charge is tried.
///
/// What the merchant may choose in a file comes first. The rest is not his to choose: it keeps the send protocol safe, or is a fact
/// about the account.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Attempts that count, at most.
    pub max_attempts: u32,
    /// How long after the later of submission and `notBefore` attempts may happen.
    pub window: Duration,
    /// After `SoftDeclined` and `TransactionTimedOut`.
    pub soft: Retries,
    /// After a confirmed `ProcessingFailure`.
    pub failure: Retries,
    /// How long after the start of the window a buyer's update is waited for; the window itself if it is shorter.
    pub hard_window: Option<Duration>,
    /// When, after the park began, the buyer is asked again to update the instrument; ascending.
    pub reminders: Vec<Duration>,
    /// How far attempts are spread.
    pub jitter: Jitter,
    /// When no attempt is made that nobody asked for.
    pub quiet: Option<QuietHours>,
    /// The merchant's clock, where it was stated.
    pub time_zone: Option<TimeZone>,
    /// Month parks at most.
    pub max_month_parks: u32,
    /// Month parks are spread over this long after the turn.
    pub month_spread: Duration,
    /// Waiting time after the 1st, 2nd ... send of a number that nobody answered. The last one repeats.
    pub repeat_delays: Vec<Duration>,
    /// X: how long an old copy of a request may still be accepted by Amazon (`CONFIRMATION_DELAY`).
    pub confirmation_delay: Duration,
    /// Where the month of the permission's limit turns (`MONTHLY_LIMIT_TIME_ZONE`).
    pub month_zone: TimeZone,
    /// The page where the buyer updates the instrument; `{chargePermissionId}` is replaced.
    pub update_url: String,
    /// What decides where in its spread an attempt falls.
    pub lot: Lot,
}

/// How attempts follow upon declines of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// Waiting time after the 1st, 2nd ... counted decline. The last one repeats.
    pub schedule: Vec<Duration>,
    /// No attempt follows a decline of this kind once so many have counted; the policy's maximum if that is lower.
    pub max_attempts: Option<u32>,
    /// No attempt follows a decline of this kind later than this after the start of the window.
    pub window: Option<Duration>,
}

/// How much later than planned an attempt may come, to spread load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jitter {
    /// Of the waiting time, in hundredths.
    pub percent: u32,
    /// At most.
    pub cap: Duration,
}

/// Where in its spread an attempt falls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lot {
    /// Derived from the charge's id, number, sends and attempts: repeatable, and different for each.
    OfTheCharge,
    /// The same for all, from 0 to just below 1: to find the earliest and the latest time.
    Fixed(f64),
}

/// What waits for the end of the quiet hours, or for another month, needs time to be made before the window ends: a whole night's
/// attempts begin together.
pub(super) const LAST_CHANCE: Duration = HOUR;
/// After the assumed turn of the month the limit may still be the old one for this long: Amazon documents no time zone.
pub(super) const MONTH_DOUBT: Duration = Duration::from_hours(36);
/// How long to wait while in that doubt.
pub(super) const MONTH_RETRY: Duration = Duration::from_hours(2);

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
            soft: Retries::after(vec![DAY, 3 * DAY, 7 * DAY, 14 * DAY]),
            failure: Retries::after(vec![15 * MINUTE, HOUR, 4 * HOUR, 12 * HOUR]),
            hard_window: None,
            reminders: vec![3 * DAY, 7 * DAY, 14 * DAY, 21 * DAY],
            jitter: Jitter { percent: 10, cap: 2 * HOUR },
            quiet: None,
            time_zone: None,
            max_month_parks: 2,
            month_spread: 6 * HOUR,
            repeat_delays: vec![MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR],
            confirmation_delay: 30 * MINUTE,
            month_zone: TimeZone::get(zone).unwrap_or(TimeZone::UTC),
            update_url: default_update_url(region).to_owned(),
            lot: Lot::OfTheCharge,
        }
    }

    /// When the window of the intent ends: nothing is tried after it.
    #[must_use]
    pub fn window_end(&self, intent: &ChargeIntent) -> Timestamp {
        end_of(self.window, intent)
    }

    /// When the time for a new number ends: the window's end, or an earlier one for what the intent waits for, the buyer or the clock
    /// after a decline of one kind.
    #[must_use]
    pub fn attempts_end(&self, intent: &ChargeIntent) -> Timestamp {
        let of_reason = match intent.stage() {
            Stage::Parked { park: Park::Instrument { .. }, .. } => self.hard_window,
            _ => reason_of(intent).and_then(|reason| self.retries_after(reason)?.window),
        };
        end_of(of_reason.map_or(self.window, |window| window.min(self.window)), intent)
    }

    /// Attempts that count, at most: of the policy, or fewer for the reason that the intent waits after.
    #[must_use]
    pub fn attempts_at_most(&self, intent: &ChargeIntent) -> u32 {
        let of_reason = reason_of(intent).and_then(|reason| self.retries_after(reason));
        of_reason.and_then(|retries| retries.max_attempts).map_or(self.max_attempts, |max| max.min(self.max_attempts))
    }

    /// Whether the attempts of the intent are used up.
    #[must_use]
    pub fn is_used_up(&self, intent: &ChargeIntent) -> bool {
        intent.progress.attempts >= self.attempts_at_most(intent)
    }

    /// The rules of a decline after which the clock tries again.
    #[must_use]
    pub fn retries_after(&self, reason: Decline) -> Option<&Retries> {
        match reason {
            Decline::SoftDeclined | Decline::TransactionTimedOut => Some(&self.soft),
            Decline::ProcessingFailure => Some(&self.failure),
            Decline::HardDeclined | Decline::AmazonRejected => None,
        }
    }

    /// Until when an unknown number is asked about: the window's end, but a confirmation that is already planned is waited for.
    #[must_use]
    pub fn unknown_deadline(&self, intent: &ChargeIntent, why: Why) -> Timestamp {
        let end = self.window_end(intent);
        if why != Why::Confirmation {
            return end;
        }
        // Also where a policy was changed for one with a shorter window meanwhile.
        let from = intent.number.last_mark.map_or(end, |mark| mark.max(end));
        later(from, 2 * self.confirmation_delay)
    }

    /// The next attempt after a decline that may pass by itself, the last one of the intent (`last_reason`); `None` when there is no
    /// such decline, or when the attempts or the time for them are used up. `intent.progress.attempts` already counts the decline.
    #[must_use]
    pub fn next_attempt(&self, intent: &ChargeIntent, now: Timestamp) -> Option<Timestamp> {
        let retries = self.retries_after(reason_of(intent)?)?;
        if self.is_used_up(intent) {
            return None;
        }
        let delay = nth(&retries.schedule, intent.progress.attempts.saturating_sub(1));
        let at = later(now, delay.saturating_add(self.jitter.of(delay).mul_f64(self.lot_of(intent))));
        let end = self.attempts_end(intent);
        (at < end).then(|| self.out_of_quiet_hours(at, end))
    }

    /// An attempt that no schedule knows, after a fixed wait.
    #[must_use]
    pub fn attempt_in(&self, intent: &ChargeIntent, now: Timestamp, wait: Duration) -> Timestamp {
        self.out_of_quiet_hours(later(now, wait), self.attempts_end(intent))
    }

    /// Until when an attempt that is due now waits for the quiet hours to end. Only what the service planned by itself waits: not the
    /// first attempt, and not the one after the buyer's update. Where the time for attempts ends before the quiet hours do, the
    /// last chance counts for more.
    #[must_use]
    pub fn quiet_until(&self, intent: &ChargeIntent, now: Timestamp) -> Option<Timestamp> {
        let by_itself = matches!(intent.progress.trigger, Trigger::Schedule | Trigger::NewMonth);
        let until = self.quiet.as_ref().filter(|_| by_itself)?.end_after(now)?;
        (later(until, LAST_CHANCE) < self.attempts_end(intent)).then_some(until)
    }

    /// The end of the quiet hours for what falls into them, unless that is too near to `end`.
    fn out_of_quiet_hours(&self, at: Timestamp, end: Timestamp) -> Timestamp {
        self.quiet
            .as_ref()
            .and_then(|quiet| quiet.end_after(at))
            .filter(|until| later(*until, LAST_CHANCE) < end)
            .unwrap_or(at)
    }

    /// When to send the same number again after nobody answered; `retry_after` is Amazon's wish.
    #[must_use]
    pub fn repeat_at(&self, intent: &ChargeIntent, now: Timestamp, retry_after: Option<Duration>) -> Timestamp {
        self.repeat_after(intent, intent.number.sends, now, retry_after)
    }

    /// As [`Self::repeat_at`], for a request that was sent `sends` times.
    pub(super) fn repeat_after(
        &self,
        intent: &ChargeIntent,
        sends: u32,
        now: Timestamp,
        retry_after: Option<Duration>,
    ) -> Timestamp {
        let delay = nth(&self.repeat_delays, sends.saturating_sub(1));
        let spread = (delay / 5).mul_f64(self.lot_of(intent));
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
            let at = self.out_of_quiet_hours(later(now, MONTH_RETRY), Timestamp::MAX);
            return MonthPark::StillTheOldMonth { at };
        }
        let turn = next_month(now, &self.month_zone);
        if intent.progress.month_parks >= self.max_month_parks && intent.progress.month_turn != Some(turn) {
            return MonthPark::GiveUp;
        }
        // The window stands still until then, so that its end is no matter.
        let at = later(turn, self.month_spread.mul_f64(self.lot_of(intent)));
        MonthPark::Until { turn, at: self.out_of_quiet_hours(at, Timestamp::MAX) }
    }

    fn lot_of(&self, intent: &ChargeIntent) -> f64 {
        match self.lot {
            Lot::OfTheCharge => {
                let (number, attempts) = (&intent.number, intent.progress.attempts);
                jitter(&format!("{}/{}/{}/{attempts}", intent.id, number.value, number.sends))
            }
            Lot::Fixed(lot) => lot.clamp(0.0, Lot::LATEST),
        }
    }

    /// The link at which the buyer updates the instrument of a permission.
    #[must_use]
    pub fn update_link(&self, intent: &ChargeIntent) -> String {
        self.update_url.replace("{chargePermissionId}", intent.request.charge_permission_id.as_str())
    }
}

impl Retries {
    /// By this schedule, within the limits of the policy.
    #[must_use]
    pub fn after(schedule: Vec<Duration>) -> Self {
        Self { schedule, max_attempts: None, window: None }
    }
}

impl Jitter {
    /// How much later an attempt may come that is planned after this wait.
    #[must_use]
    pub fn of(self, delay: Duration) -> Duration {
        (delay.saturating_mul(self.percent) / 100).min(self.cap)
    }
}

impl Lot {
    /// The latest of all lots: just below 1.
    pub const LATEST: f64 = 1.0 - 1.0 / 4_294_967_296.0;
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

/// The decline that the intent waits after, if the last thing heard of it is one.
fn reason_of(intent: &ChargeIntent) -> Option<Decline> {
    intent.progress.last_reason.as_deref().and_then(Decline::parse)
}

/// The end of a span of the intent's window, which may have stood still.
fn end_of(window: Duration, intent: &ChargeIntent) -> Timestamp {
    let still_ms = intent.progress.stood_still_ms.saturating_add(intent.stopped_ms);
    let still = Duration::from_millis(u64::try_from(still_ms).unwrap_or(0));
    later(intent.progress.window_from, window.saturating_add(still))
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
    /// A retry is planned, or an authorisation waits.
    Quiet,
    /// At that time.
    Until(Timestamp),
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
            Self::Until(at) => return at,
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
            intent.progress.last_reason = Some("SoftDeclined".to_owned());
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
        assert!(next >= turn && next < later(turn, 6 * HOUR));
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
