//! The first plan of a charge: of one that is new, and of one that somebody else tried before he handed it over.
//!
//! What was declined elsewhere goes on as if the decline had been ours, with two differences. Our number 0 waits at least until the
//! caller's last decline + X, since a copy of his request may be under way until then. And we do not know which instrument was
//! declined, so that of a hard decline the first look at the permission only says what an update is compared with.

use jiff::Timestamp;

use super::draft::Draft;
use super::policies::Policies;
use super::policy::{MonthPark, Policy, later};
use super::settle::CONFLICT_DELAY;
use crate::model::charge_intent::{ChargeIntent, Number, Progress, Stage, Trigger, Why, Wishes};
use crate::model::charge_request::ChargeRequest;
use crate::model::handover::{HandedOver, PriorDecline};
use crate::model::ids::{IntentId, PolicyName};
use crate::model::verdict::Decline;

/// A charge as it is asked for.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// The caller's id.
    pub id: &'a IntentId,
    /// What is to be charged.
    pub request: &'a ChargeRequest,
    /// The recovery policy; `None` is the default one.
    pub policy: Option<&'a PolicyName>,
    /// Not before this time.
    pub not_before: Option<Timestamp>,
    /// The last number that was used before a loss of data.
    pub last_number: Option<u32>,
    /// What became of it before it was handed over.
    pub declined: Option<&'a HandedOver>,
}

/// Why there is nothing to plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NothingLeft {
    /// The attempts are used up.
    #[error("the policy allows {0} attempts, and they are used up: nothing is left to recover")]
    Attempts(u32),
    /// The next attempt would come too late.
    #[error("the next attempt would not be before {0}, when the time for attempts ends: nothing is left to recover")]
    Window(Timestamp),
    /// Months were waited for often enough.
    #[error("the policy waits for no month: nothing is left to recover")]
    Months,
}

/// The charge with its first plan, and what is told of it. The window counts from the later of `now` and `notBefore`.
///
/// # Errors
/// When the policy leaves no attempt for a charge that is handed over.
pub fn first_plan(asked: &Asked<'_>, policies: &Policies, now: Timestamp) -> Result<Draft, NothingLeft> {
    let at = asked.not_before.map_or(now, |at| at.max(now));
    let why = if asked.last_number.is_some() { Why::Repeat } else { Why::Attempt };
    let mut draft = Draft::new(ChargeIntent {
        id: asked.id.clone(),
        request: asked.request.clone(),
        policy: asked.policy.cloned(),
        submitted_at: now,
        number: Number::fresh(asked.last_number.unwrap_or(0)),
        cancel_requested_at: None,
        capture: None,
        stopped_ms: 0,
        wishes: Wishes::default(),
        progress: Progress::new(Stage::Scheduled { at, why }, at),
    });
    let policy = policies.of(&draft.intent);
    if let Some(declined) = asked.declined {
        let progress = &mut draft.intent.progress;
        progress.attempts = declined.attempts;
        progress.last_reason = Some(declined.reason_code.as_str().to_owned());
        progress.earliest_send = Some(later(declined.at, policy.confirmation_delay));
        // A number that was used before a loss is asked about first; what follows is for its answer to say.
        if asked.last_number.is_none() {
            go_on(&mut draft, declined, policy, now)?;
            return Ok(draft);
        }
    }
    draft.schedule(at, why);
    Ok(draft)
}

/// As after a decline of our own.
fn go_on(draft: &mut Draft, declined: &HandedOver, policy: &Policy, now: Timestamp) -> Result<(), NothingLeft> {
    if policy.is_used_up(&draft.intent) {
        return Err(NothingLeft::Attempts(policy.attempts_at_most(&draft.intent)));
    }
    // One look at the permission after each decline, also after one that we were only told of.
    draft.intent.progress.look_at = Some(now);
    let end = policy.attempts_end(&draft.intent);
    let at = match declined.reason_code {
        PriorDecline::Declined(Decline::HardDeclined) => {
            draft.intent.progress.awaits_baseline = true;
            draft.park_for_instrument(now, policy, None, false);
            return Ok(());
        }
        PriorDecline::MonthlyLimit => return wait_for_month(draft, declined, policy, now),
        PriorDecline::PermissionStatus => {
            draft.intent.progress.conflicts = 1;
            policy.attempt_in(&draft.intent, declined.at, CONFLICT_DELAY)
        }
        PriorDecline::Declined(_) => policy.next_attempt(&draft.intent, declined.at).ok_or(NothingLeft::Window(end))?,
    };
    let at = not_too_early(draft, at, now);
    if at >= end {
        return Err(NothingLeft::Window(end));
    }
    draft.intent.progress.trigger = Trigger::Schedule;
    draft.schedule(at, Why::Attempt);
    Ok(())
}

/// By the month in which the limit was found used up: it may have turned since.
fn wait_for_month(
    draft: &mut Draft,
    declined: &HandedOver,
    policy: &Policy,
    now: Timestamp,
) -> Result<(), NothingLeft> {
    let at = match policy.month_park(&draft.intent, declined.at) {
        MonthPark::GiveUp => return Err(NothingLeft::Months),
        MonthPark::StillTheOldMonth { at } => at,
        MonthPark::Until { turn, at } => {
            draft.intent.progress.month_parks = 1;
            draft.intent.progress.month_turn = Some(turn);
            at
        }
    };
    let at = not_too_early(draft, at, now);
    // The window stands still for as long as is waited from here.
    let wait = at.duration_since(draft.intent.progress.window_from).try_into().unwrap_or_default();
    draft.intent.progress.stand_still(wait);
    draft.intent.progress.trigger = Trigger::NewMonth;
    draft.schedule(at, Why::Attempt);
    Ok(())
}

/// Never before `notBefore`, never before the caller's last decline + X.
fn not_too_early(draft: &Draft, at: Timestamp, now: Timestamp) -> Timestamp {
    let progress = &draft.intent.progress;
    at.max(now).max(progress.window_from).max(progress.earliest_send.unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::charge_intent::Park;
    use crate::model::ids::Region;
    use crate::recovery::draft::testing::{at, intent, kinds, start};
    use crate::recovery::due::due;

    const X: Duration = Duration::from_mins(30);
    const HOUR: Duration = Duration::from_hours(1);
    const DAY: Duration = Duration::from_hours(24);

    fn policies() -> Policies {
        Policy::for_region(Region::Na).into()
    }

    fn planned_for(
        reason_code: PriorDecline,
        at: Timestamp,
        attempts: u32,
        not_before: Option<Timestamp>,
    ) -> Result<Draft, NothingLeft> {
        let declined = HandedOver { reason_code, at, attempts };
        let intent = intent();
        let asked = Asked {
            id: &intent.id,
            request: &intent.request,
            policy: None,
            not_before,
            last_number: None,
            declined: Some(&declined),
        };
        first_plan(&asked, &policies(), start())
    }

    fn planned(code: &str, at: Timestamp, attempts: u32) -> Result<Draft, NothingLeft> {
        planned_for(PriorDecline::parse(code).unwrap(), at, attempts, None)
    }

    fn before(span: Duration) -> Timestamp {
        start().checked_sub(span).unwrap()
    }

    fn time_of(draft: &Draft) -> Timestamp {
        match draft.intent.stage() {
            Stage::Scheduled { at, why: Why::Attempt } => *at,
            stage => panic!("{stage:?}"),
        }
    }

    #[test]
    fn a_new_charge_is_tried_now_or_at_its_not_before() {
        let intent = intent();
        let asked = |not_before| Asked {
            id: &intent.id,
            request: &intent.request,
            policy: None,
            not_before,
            last_number: None,
            declined: None,
        };
        let draft = first_plan(&asked(None), &policies(), start()).unwrap();
        assert_eq!((time_of(&draft), kinds(&draft)), (start(), vec!["charge.scheduled"]));
        assert_eq!(draft.intent, intent);
        let draft = first_plan(&asked(Some(later(start(), DAY))), &policies(), start()).unwrap();
        assert_eq!((time_of(&draft), draft.intent.progress.window_from), (later(start(), DAY), later(start(), DAY)));
    }

    #[test]
    fn a_soft_decline_goes_on_with_the_schedule_counted_from_when_it_was_declined() {
        for (attempts, days) in [(1, 1), (2, 3), (3, 7), (4, 14)] {
            let draft = planned("SoftDeclined", before(HOUR), attempts).unwrap();
            let wait = time_of(&draft).duration_since(before(HOUR)).unsigned_abs();
            assert!(wait >= days * DAY && wait <= days * DAY + 2 * HOUR, "{attempts}: {wait:?}");
            assert_eq!((draft.intent.number.value, draft.intent.progress.attempts), (0, attempts));
            assert_eq!(draft.intent.progress.look_at, Some(start()), "one look after the decline");
        }
        assert_eq!(planned("SoftDeclined", before(HOUR), 5), Err(NothingLeft::Attempts(5)));
    }

    #[test]
    fn a_decline_long_ago_is_tried_now_and_a_young_one_not_before_x_has_passed() {
        assert_eq!(time_of(&planned("SoftDeclined", before(9 * DAY), 1).unwrap()), start());
        let young = before(Duration::from_mins(1));
        let at = time_of(&planned("ProcessingFailure", young, 1).unwrap());
        assert!(at >= later(young, X), "15 minutes of the schedule are less than X");
    }

    #[test]
    fn a_hard_decline_waits_for_the_buyer_and_does_not_know_the_declined_instrument() {
        let draft = planned("HardDeclined", before(HOUR), 1).unwrap();
        assert!(matches!(
            draft.intent.stage(),
            Stage::Parked { park: Park::Instrument { baseline: None, non_chargeable_seen: false, .. }, .. }
        ));
        assert!(draft.intent.progress.awaits_baseline);
        assert_eq!(kinds(&draft), ["charge.parked", "charge.action_required"]);
        assert_eq!(due(&draft.intent, policies().default_policy()), Some(start()), "looked at now");
    }

    #[test]
    fn a_used_up_month_is_waited_for_and_one_that_has_turned_meanwhile_is_not() {
        let draft = planned("PeriodicAmountExceeded", before(HOUR), 1).unwrap();
        let turn = at("2026-02-01T00:00:00-08:00");
        assert!(time_of(&draft) >= turn && time_of(&draft) < later(turn, 6 * HOUR));
        assert_eq!(draft.intent.progress.month_turn, Some(turn));
        let last_month = planned("PeriodicAmountExceeded", at("2025-12-20T10:00:00Z"), 1).unwrap();
        assert_eq!(time_of(&last_month), start());
        assert_eq!(last_month.intent.progress.stood_still_ms, 0);
    }

    #[test]
    fn a_status_conflict_is_tried_after_an_hour_and_counts_as_the_first_in_a_row() {
        let draft = planned("InvalidChargePermissionStatus", start(), 1).unwrap();
        assert_eq!((time_of(&draft), draft.intent.progress.conflicts), (later(start(), HOUR), 1));
    }

    proptest! {
        #[test]
        fn whatever_is_handed_over_no_number_goes_out_before_x_nor_after_the_window(
            reason in 0..PriorDecline::ALL.len(), ago in 0_u64..90 * 86_400, attempts in 1_u32..8, ahead in 0_u64..20 * 86_400,
        ) {
            let declined_at = before(Duration::from_secs(ago));
            let not_before = later(start(), Duration::from_secs(ahead));
            let Ok(draft) = planned_for(PriorDecline::ALL[reason], declined_at, attempts, Some(not_before)) else {
                return Ok(());
            };
            let policies = policies();
            let end = policies.default_policy().attempts_end(&draft.intent);
            prop_assert_eq!(draft.intent.progress.earliest_send, Some(later(declined_at, X)));
            prop_assert_eq!(draft.intent.number.value, 0);
            prop_assert!(draft.intent.progress.attempts < 5);
            if let Stage::Scheduled { at, .. } = draft.intent.stage() {
                prop_assert!(*at >= later(declined_at, X) && *at >= not_before && *at < end);
            }
            prop_assert!(due(&draft.intent, policies.default_policy()).is_some_and(|at| at <= start()));
        }
    }
}
