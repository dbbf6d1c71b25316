//! Closed permissions, cancellations, and how certain an end is.

use super::*;
use crate::recovery::case::HintFate;
use crate::recovery::draft::testing::{intent, kinds};

const A: &str = "C01-0000000-0000001-C000001";

// --- Closed ---

#[test]
fn a_closed_permission_ends_what_was_never_sent() {
    for mut intent in [intent(), answered(sent(), &Verdict::Declined(Decline::HardDeclined), start()).intent] {
        intent.progress.look_at = None;
        let decision = decided(intent, closed(), after(MINUTE));
        assert!(decision.closed && decision.act == Act::Nothing);
        assert_eq!(end(&only(decision)), ("charge_permission_closed", Outcome::Verified));
    }
}

#[test]
fn nobody_is_asked_to_mend_the_instrument_of_a_closed_permission() {
    let draft = answered_and_looked(sent(), &Verdict::Declined(Decline::HardDeclined), closed(), after(MINUTE));
    assert_eq!(kinds(&draft), ["charge.declined", "charge.abandoned"]);
}

#[test]
fn an_unknown_number_of_a_closed_permission_is_sent_once_more_at_last_mark_plus_x() {
    let unknown = answered(sent(), &silence(), after(MINUTE)).intent;
    let decision = decided(unknown, closed(), after(2 * MINUTE));
    assert_eq!(decision.act, Act::Nothing);
    let closing = only(decision).intent;
    assert_eq!(closing.stage(), &Stage::Scheduled { at: after(X), why: Why::Closing });
    assert_eq!(decided(closing.clone(), Look::NotAsked, after(29 * MINUTE)).act, Act::Nothing);
    assert_eq!(decided(closing.clone(), Look::NotAsked, after(X)).act, Act::Send(0));

    let asked = |verdict: &Verdict, by: Duration| {
        let number = marked(2, after(by), false).number;
        answered_and_looked(ChargeIntent { number, ..closing.clone() }, verdict, closed(), after(by))
    };
    let success = asked(&as_answer(charge(A, ChargeState::Captured, 0)), X);
    assert!(matches!(success.intent.stage(), Stage::Captured { .. }));
    let declined = asked(&Verdict::Declined(Decline::SoftDeclined), X);
    assert_eq!(end(&declined), ("charge_permission_closed", Outcome::Verified));
    let refused = asked(&Verdict::Refused(Refusal::PermissionStatus), X);
    assert_eq!(end(&refused), ("charge_permission_closed", Outcome::Unverified));
    let silent =
        answered(ChargeIntent { number: marked(2, after(X), false).number, ..closing.clone() }, &silence(), after(X));
    assert_eq!(planned(&silent), (after(2 * X), Why::Closing));
    let given_up = asked(&silence(), DAY + HOUR);
    assert_eq!(end(&given_up), ("charge_permission_closed", Outcome::Unverified));
}

// --- Cancel ---

fn canceled(mut intent: ChargeIntent) -> ChargeIntent {
    intent.cancel_requested_at = Some(after(MINUTE));
    intent
}

#[test]
fn a_cancellation_is_final_where_no_number_is_unknown() {
    let decision = decided(canceled(intent()), chargeable(), after(MINUTE));
    assert_eq!(decision.act, Act::Nothing);
    assert_eq!(end(&only(decision)), ("canceled", Outcome::Verified));
}

#[test]
fn a_cancellation_with_an_unknown_number_waits_for_its_answer() {
    let unknown = canceled(answered(sent(), &silence(), after(MINUTE)).intent);
    assert!(Draft::new(unknown.clone()).is_unknown());
    assert_eq!(decided(unknown.clone(), chargeable(), after(HOUR)).act, Act::Send(0));
    let repeated = ChargeIntent { number: marked(2, after(HOUR), false).number, ..unknown.clone() };
    let declined = answered(repeated.clone(), &Verdict::Declined(Decline::SoftDeclined), after(HOUR));
    assert_eq!(end(&declined), ("canceled", Outcome::Verified));
    let captured = answered(repeated, &as_answer(charge(A, ChargeState::Captured, 0)), after(HOUR));
    assert!(matches!(captured.intent.stage(), Stage::Captured { .. }));
    let tainted = ChargeIntent { number: marked(2, after(HOUR), true).number, ..unknown.clone() };
    let waiting = answered(tainted, &Verdict::Declined(Decline::SoftDeclined), after(HOUR));
    assert_eq!(planned(&waiting), (after(HOUR + X), Why::Confirmation));
    assert!(waiting.is_unknown(), "a number whose decline is being confirmed is not resolved");
    assert!(waiting.intent.may_still_charge() && !declined.intent.may_still_charge());
    let never = only(decided(unknown, chargeable(), after(30 * DAY)));
    assert_eq!(end(&never), ("canceled", Outcome::Unverified));
    assert!(never.intent.may_still_charge());
}

#[test]
fn a_number_marked_out_of_a_park_is_unknown_and_no_cancellation_is_final_before_its_answer() {
    let mut parked = answered(sent(), &Verdict::Declined(Decline::HardDeclined), after(MINUTE)).intent;
    parked.number = crate::model::charge_intent::Number { value: 1, ..marked(1, after(DAY), false).number };
    for intent in [parked.clone(), canceled(parked.clone())] {
        assert_eq!(decided(intent, Look::NotAsked, after(DAY + MINUTE)).act, Act::Send(0));
    }
    let over = only(decided(parked, closed(), after(DAY + MINUTE)));
    assert_eq!(planned(&over), (after(DAY + X), Why::Closing));
}

#[test]
fn an_authorisation_that_appears_after_a_cancellation_is_canceled_now() {
    let answer = as_answer(charge(A, ChargeState::Authorized, 0));
    let draft = answered(canceled(sent()), &answer, after(MINUTE));
    assert_eq!(crate::recovery::due::due(&draft.intent, &policy()), Some(after(MINUTE)));
    let decision = decided(draft.intent, Look::NotAsked, after(MINUTE));
    assert_eq!(decision.act, Act::CancelCharge(0, A.parse().unwrap()));
    // The try failed: the loop notes when to try again, and until then nothing is wanted.
    let mut tried = only(decision).intent;
    tried.progress.cancel_retry_at = Some(after(6 * MINUTE));
    tried.progress.look_at = Some(after(DAY));
    assert_eq!(crate::recovery::due::due(&tried, &policy()), Some(after(6 * MINUTE)));
    assert_eq!(decided(tried.clone(), Look::NotAsked, after(5 * MINUTE)).act, Act::Nothing);
    assert_eq!(decided(tried, Look::NotAsked, after(6 * MINUTE)).act, Act::CancelCharge(0, A.parse().unwrap()));
}

#[test]
fn a_pending_charge_that_is_canceled_after_a_cancellation_is_verified() {
    let pending = answered(canceled(sent()), &as_answer(charge(A, ChargeState::CaptureInitiated, 0)), start()).intent;
    let draft = only(read_charges(pending, vec![charge(A, ChargeState::Canceled, 0)], after(HOUR)));
    assert_eq!(end(&draft), ("canceled", Outcome::Verified));
}

#[test]
fn no_end_is_verified_while_a_number_is_unknown() {
    let mut draft = Draft::new(sent());
    draft.cancel(after(MINUTE), Outcome::Verified);
    assert_eq!(end(&draft), ("canceled", Outcome::Unverified));
    let mut draft = Draft::new(sent());
    draft.abandon(after(MINUTE), "given up", Outcome::Verified);
    assert_eq!(end(&draft), ("given up", Outcome::Unverified));
}

#[test]
fn a_charge_of_a_tainted_send_that_is_canceled_ends_unverified() {
    let draft = answered(marked(2, start(), true), &as_answer(charge(A, ChargeState::Canceled, 0)), after(MINUTE));
    assert_eq!(end(&draft), ("Canceled", Outcome::Unverified));
}

#[test]
fn of_two_authorisations_that_appear_after_a_cancellation_one_is_canceled_now_and_the_other_in_the_next_turn() {
    const B: &str = "C01-0000000-0000001-C000002";
    let mut ended = canceled(marked(2, start(), true));
    ended.progress.stage = Stage::Canceled { at: start(), outcome: Outcome::Unverified };
    let now = after(HOUR);
    let turn = |left: &[&str]| {
        let mut case = case(vec![ended.clone()]);
        case.hints = left.iter().map(|id| hint(ObjectType::Charge, id, start())).collect();
        let seen = |id: &&str| (id.parse().unwrap(), ChargeLook::Seen(charge(id, ChargeState::Authorized, 0)));
        let findings = Findings { look: Look::NotAsked, charges: left.iter().map(seen).collect(), may_act: true };
        decide(&case, &findings, now, &policies(), OURS)
    };
    let first = turn(&[A, B]);
    assert_eq!(first.act, Act::CancelCharge(0, A.parse().unwrap()));
    assert_eq!(first.hints, [HintFate::Done, HintFate::Keep], "the other one is planned: its hint is due at once");
    let told = |decision: &Decision| {
        decision
            .events
            .iter()
            .filter_map(|event| serde_json::from_str::<serde_json::Value>(&event.data).ok())
            .map(|data| data["chargeId"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&first), [A]);
    let second = turn(&[B]);
    assert_eq!((&second.act, &second.hints[..]), (&Act::CancelCharge(0, B.parse().unwrap()), &[HintFate::Done][..]));
    assert_eq!(told(&second), [B], "each is told of once");
}

#[test]
fn a_closing_that_was_seen_before_a_send_is_not_forgotten_when_the_look_after_it_fails() {
    let unknown = answered(sent(), &silence(), start()).intent;
    let before = decide(&case(vec![unknown]), &findings(closed()), after(X), &policies(), OURS);
    assert_eq!((before.closed, before.act.clone()), (true, Act::Send(0)));
    let case = case(vec![before.drafts[0].intent.clone()]);
    let decision = decide_again(&case, before, Look::Failed, after(X), &policies(), OURS);
    assert!(decision.closed);
}

#[test]
fn what_became_of_a_hint_before_a_send_stays_so_when_the_look_after_it_fails() {
    let case = Case { hints: vec![heard(start())], ..case(vec![intent()]) };
    let before = decide(&case, &findings(chargeable()), start(), &policies(), OURS);
    assert_eq!((before.hints.as_slice(), before.act.clone()), ([HintFate::Done].as_slice(), Act::Send(0)));
    let decision = decide_again(&case, before, Look::Failed, start(), &policies(), OURS);
    assert_eq!(decision.hints, [HintFate::Done]);
}

#[test]
fn a_pending_charge_is_looked_at_once_its_permission_is_closed_and_then_in_its_turn() {
    let pending = answered(sent(), &as_answer(charge(A, ChargeState::CaptureInitiated, 0)), start()).intent;
    let first = decide(&case(vec![pending]), &findings(closed()), after(MINUTE), &policies(), OURS);
    assert_eq!(first.drafts[0].intent.progress.look_at, Some(after(MINUTE)));

    let mut read = first.drafts[0].intent.clone();
    read.progress.look_at = Some(after(DAY));
    let again = Case { closed: true, record: first.record, ..case(vec![read]) };
    let second = decide(&again, &findings(closed()), after(HOUR), &policies(), OURS);
    assert_eq!(second.drafts[0].intent.progress.look_at, Some(after(DAY)));
}
