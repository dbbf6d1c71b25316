//! What people ask for while a charge is open: retries, pauses, and an operator's word about what is held.

use proptest::prelude::*;

use super::*;
use crate::model::charge_intent::{NumberStatus, RetryWish, Trigger, Wishes};
use crate::recovery::draft::testing::{digest, intent};
use crate::recovery::due::due;
use crate::recovery::plan::plan;
use crate::recovery::wishes::{Unresolvable, give_up, new_number};

const CHARGE: &str = "C01-0000000-0000001-C000001";

fn wished(intent: ChargeIntent) -> ChargeIntent {
    let retry = Some(RetryWish { wish: 7, done: false });
    ChargeIntent { wishes: Wishes { retry, ..Wishes::default() }, ..intent }
}

fn paused(intent: ChargeIntent) -> ChargeIntent {
    ChargeIntent { wishes: Wishes { paused_since: Some(start()), ..Wishes::default() }, ..intent }
}

fn held(intent: ChargeIntent) -> ChargeIntent {
    let mut held = intent;
    held.progress.stage = Stage::Held { reason: "DuplicateIdempotencyKey".to_owned() };
    held
}

fn parked(park: Park) -> ChargeIntent {
    let mut parked = intent();
    parked.number = parked.number.next();
    parked.progress.attempts = 1;
    parked.progress.stage = Stage::Parked { since: start(), park };
    parked.progress.look_at = Some(after(DAY));
    parked
}

fn waiting_for_the_buyer() -> ChargeIntent {
    parked(Park::Instrument { baseline: Some(digest("Visa ****1111")), non_chargeable_seen: false, echo_look_at: None })
}

// --- Retry ---

#[test]
fn a_retry_asks_for_the_look_and_sends_from_whatever_was_waited_for() {
    let mut planned = parked(Park::Attention);
    planned.progress.stage = Stage::Scheduled { at: after(9 * DAY), why: Why::Attempt };
    for waiting in [planned, parked(Park::Attention), waiting_for_the_buyer()] {
        assert!(!plan(&case(vec![waiting.clone()]), after(HOUR)).permission);
        let wished = wished(waiting);
        assert!(plan(&case(vec![wished.clone()]), after(HOUR)).permission);
        let decision = decided(wished, chargeable(), after(HOUR));
        assert_eq!(decision.act, Act::Send(0));
        let draft = only(decision);
        assert_eq!(draft.intent.progress.trigger, Trigger::Operator);
        assert_eq!(draft.intent.wishes.retry, Some(RetryWish { wish: 7, done: true }), "seen to once");
    }
}

#[test]
fn a_retry_of_what_the_permission_forbids_sends_nothing() {
    for look in [closed(), Look::Failed, Look::NotAsked, not_chargeable("PaymentMethodExpired")] {
        assert_eq!(decided(wished(waiting_for_the_buyer()), look.clone(), after(HOUR)).act, Act::Nothing, "{look:?}");
    }
    let mut late = wished(waiting_for_the_buyer());
    late.progress.attempts = 5;
    assert!(matches!(only(decided(late, chargeable(), after(HOUR))).intent.stage(), Stage::Abandoned { .. }));
}

#[test]
fn a_retry_waits_for_not_before() {
    let mut early = wished(intent());
    early.progress.window_from = after(3 * DAY);
    early.progress.stage = Stage::Scheduled { at: after(3 * DAY), why: Why::Attempt };
    let decision = decided(early, chargeable(), after(HOUR));
    assert_eq!(decision.act, Act::Nothing);
    assert_eq!(planned(&only(decision)), (after(3 * DAY), Why::Attempt));
}

#[test]
fn a_retry_asks_again_about_silence_and_brings_no_confirmation_forward() {
    let silent = answered(sent(), &silence(), start()).intent;
    assert_eq!(decided(silent.clone(), Look::NotAsked, start()).act, Act::Nothing);
    assert_eq!(decided(wished(silent), Look::NotAsked, start()).act, Act::Send(0));
    let confirming = answered(sent(), &Verdict::Declined(Decline::ProcessingFailure), start()).intent;
    let decision = decided(wished(confirming.clone()), chargeable(), after(MINUTE));
    assert_eq!(decision.act, Act::Nothing);
    let draft = only(decision);
    assert_eq!(draft.intent.stage(), confirming.stage());
    assert_eq!(draft.intent.wishes.retry.map(|retry| retry.done), Some(true), "and it is not kept for later");
}

// --- Pause ---

#[test]
fn a_paused_charge_is_not_due_for_what_it_waits_for() {
    let mut waiting = paused(intent());
    waiting.progress.look_at = Some(after(DAY));
    assert_eq!(due(&waiting, &policy()), Some(after(DAY)));
    assert!(!plan(&case(vec![waiting.clone()]), after(HOUR)).permission);
    let decision = decided(waiting, chargeable(), after(90 * DAY));
    assert_eq!(decision.act, Act::Nothing);
    assert!(!only(decision).intent.stage().is_terminal(), "nothing ends because it was paused");
}

#[test]
fn a_first_look_after_a_hand_over_sets_the_baseline_and_releases_nothing() {
    let mut handed = parked(Park::Instrument { baseline: None, non_chargeable_seen: false, echo_look_at: None });
    handed.progress.awaits_baseline = true;
    let case = Case { hints: vec![heard(after(DAY))], ..case(vec![handed]) };
    let draft = only(decide(&case, &findings(chargeable()), after(DAY), &policies(), OURS));
    let Stage::Parked { park: Park::Instrument { baseline, .. }, .. } = draft.intent.stage() else {
        panic!("{:?}", draft.intent.stage())
    };
    assert_eq!(*baseline, Some(digest("Visa ****1111")));
    assert!(!draft.intent.progress.awaits_baseline);
    let mut other = view(PermissionState::Chargeable, &[]);
    other.instrument = Some(digest("MasterCard ****2222"));
    assert_eq!(decided(draft.intent, Look::Seen(other), after(2 * DAY)).act, Act::Send(0), "an update releases it");
}

#[test]
fn a_number_that_was_handed_over_waits_for_x_whatever_releases_it() {
    let mut young = waiting_for_the_buyer();
    young.progress.earliest_send = Some(after(X));
    let mut other = view(PermissionState::Chargeable, &[]);
    other.instrument = Some(digest("MasterCard ****2222"));
    let decision = decided(young, Look::Seen(other.clone()), after(MINUTE));
    assert_eq!(decision.act, Act::Nothing);
    let draft = only(decision);
    assert_eq!(planned(&draft).0, after(X));
    assert_eq!(decided(draft.intent, Look::Seen(other), after(X)).act, Act::Send(0));
}

proptest! {
    #[test]
    fn nothing_is_sent_for_a_paused_charge_whatever_is_planned_seen_or_wished(
        unknown in any::<bool>(), why in 0..4_usize, minutes in 0_u64..100_000, look in 0..6_usize, by_permission in any::<bool>(),
        retry in any::<bool>(),
    ) {
        let mut intent = if unknown { sent() } else { intent() };
        let why = [Why::Attempt, Why::Repeat, Why::Confirmation, Why::Closing][why];
        intent.progress.stage = Stage::Scheduled { at: start(), why };
        let since = Some(start());
        intent.wishes = Wishes {
            paused_since: since.filter(|_| !by_permission),
            permission_paused_since: since.filter(|_| by_permission),
            retry: retry.then_some(RetryWish { wish: 1, done: false }),
            resolved_at: None,
        };
        let looks = [chargeable(), closed(), not_chargeable("PaymentMethodExpired"), Look::NotAsked, Look::Failed, Look::NotFound];
        let now = after(Duration::from_secs(60 * minutes));
        let decision = decided(intent.clone(), looks[look].clone(), now);
        prop_assert_eq!(&decision.act, &Act::Nothing);
        let draft = only(decision);
        if unknown {
            prop_assert!(!draft.intent.stage().is_terminal(), "{:?}", draft.intent.stage());
        }
        prop_assert!(draft.intent.stage().is_terminal() || due(&draft.intent, &policy()).is_some(), "it is looked at again");
    }
}

// --- Resolve ---

#[test]
fn a_new_number_needs_x_after_the_last_mark_and_no_known_charge() {
    let unknown = held(sent());
    let last = unknown.number.last_mark.expect("a mark");
    let soon = later(last, Duration::from_mins(29));
    assert_eq!(new_number(&unknown, &policy(), soon), Err(Unresolvable::TooSoon(later(last, X))));
    let draft = new_number(&unknown, &policy(), later(last, X)).expect("late enough");
    assert_eq!((draft.intent.number.value, draft.intent.number.status), (1, NumberStatus::Fresh));
    assert_eq!(draft.intent.progress.window_from, later(last, X));
    let mut made = held(sent());
    made.number.status = NumberStatus::Answered;
    made.progress.charge = Some(CHARGE.parse().unwrap());
    assert_eq!(new_number(&made, &policy(), after(9 * DAY)), Err(Unresolvable::ChargeExists(CHARGE.to_owned())));
    assert_eq!(new_number(&sent(), &policy(), after(DAY)), Err(Unresolvable::NotHeld("scheduled")));
}

#[test]
fn a_held_charge_that_is_given_up_ends_unverified_unless_nothing_was_sent() {
    let outcome = |intent: &ChargeIntent| give_up(intent, after(DAY)).unwrap().intent.stage().outcome();
    let mut pending = held(sent());
    pending.number.status = NumberStatus::Answered;
    assert_eq!(outcome(&held(sent())), Some(crate::model::charge_intent::Outcome::Unverified));
    assert_eq!(outcome(&pending), Some(crate::model::charge_intent::Outcome::Unverified));
    assert_eq!(outcome(&held(intent())), Some(crate::model::charge_intent::Outcome::Verified));
    assert!(give_up(&intent(), after(DAY)).is_err());
    let mut canceled = held(sent());
    canceled.cancel_requested_at = Some(start());
    assert!(matches!(give_up(&canceled, after(DAY)).unwrap().intent.stage(), Stage::Canceled { .. }));
}
