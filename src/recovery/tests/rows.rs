//! The table of design section 6 and the taint rules of section 3.

use super::*;
use crate::model::charge_intent::{ChargeIntent, NumberStatus};
use crate::model::money::Money;
use crate::recovery::draft::testing::{at, intent, kinds};

const A: &str = "C01-0000000-0000001-C000001";

fn amount(text: &str) -> Money {
    Money::parse_balance(text, "USD".parse().unwrap()).unwrap()
}

// --- 201 ---

#[test]
fn a_captured_charge_is_the_end() {
    let draft = answered(sent(), &as_answer(charge(A, ChargeState::Captured, 0)), after(MINUTE));
    assert!(matches!(draft.intent.stage(), Stage::Captured { charge, .. } if charge.as_str() == A));
    assert_eq!(kinds(&draft), ["charge.captured"]);
}

#[test]
fn an_authorised_charge_waits_for_its_capture() {
    let draft = answered(sent(), &as_answer(charge(A, ChargeState::Authorized, 0)), after(MINUTE));
    assert!(matches!(draft.intent.stage(), Stage::Authorized { .. }));
    assert_eq!(only(decided(draft.intent, chargeable(), after(HOUR))).intent.number.value, 0);
}

#[test]
fn a_pending_charge_is_asked_about_hourly_then_six_hourly_alerted_on_after_a_day_and_held_after_seven() {
    let mut intent = answered(sent(), &as_answer(charge(A, ChargeState::AuthorizationInitiated, 0)), start()).intent;
    let (mut now, mut gaps, mut told) = (start(), Vec::new(), Vec::new());
    while let Some(next) = crate::recovery::due::due(&intent, &policy()) {
        gaps.push(next.duration_since(now).as_hours());
        now = next;
        let decision = read_charges(intent, vec![charge(A, ChargeState::AuthorizationInitiated, 0)], now);
        told.extend(alerts(&decision.events).into_iter().map(|kind| (kind, now.duration_since(start()).as_hours())));
        intent = only(decision).intent;
    }
    assert_eq!(gaps[..24], [1; 24]);
    assert!(gaps[24..].iter().all(|gap| *gap == 6), "{gaps:?}");
    assert_eq!(told, [("charge_pending".to_owned(), 24), ("charge_held".to_owned(), 7 * 24)]);
    assert!(matches!(intent.stage(), Stage::Held { .. }));
}

#[test]
fn a_pending_charge_that_ends_declined_goes_to_the_row_of_its_reason() {
    let pending = answered(sent(), &as_answer(charge(A, ChargeState::CaptureInitiated, 0)), after(MINUTE)).intent;
    let soft = only(read_charges(pending.clone(), vec![declined_charge(A, "SoftDeclined", 0)], after(HOUR)));
    assert_eq!((soft.intent.number.value, soft.intent.progress.attempts, planned(&soft).1), (1, 1, Why::Attempt));
    let hard = only(read_charges(pending.clone(), vec![declined_charge(A, "HardDeclined", 0)], after(HOUR)));
    assert!(is_parked_for_instrument(&hard));
    let rejected = only(read_charges(pending.clone(), vec![declined_charge(A, "AmazonRejected", 0)], after(HOUR)));
    assert_eq!(end(&rejected), ("AmazonRejected", Outcome::Verified));
    let unknown = only(read_charges(pending, vec![declined_charge(A, "Sunspots", 0)], after(HOUR)));
    assert!(is_parked_for_attention(&unknown));
}

#[test]
fn a_decline_that_was_read_is_followed_by_a_look_at_the_permission_now() {
    let pending = answered(sent(), &as_answer(charge(A, ChargeState::CaptureInitiated, 0)), after(MINUTE)).intent;
    for reason in ["SoftDeclined", "HardDeclined"] {
        let draft = only(read_charges(pending.clone(), vec![declined_charge(A, reason, 0)], after(HOUR)));
        assert_eq!(draft.intent.progress.look_at, Some(after(HOUR)), "{reason}");
        let silent = only(decided(draft.intent, Look::Failed, after(HOUR))).intent;
        assert_eq!(silent.progress.look_at, Some(after(HOUR)), "a look that failed stays due");
        let seen = only(decided(silent, chargeable(), after(2 * HOUR))).intent;
        assert!(seen.progress.look_at.unwrap() > after(5 * HOUR), "an answered look is not repeated at once");
    }
}

#[test]
fn a_pending_charge_that_is_canceled_ends_the_intent() {
    let pending = answered(sent(), &as_answer(charge(A, ChargeState::CaptureInitiated, 0)), after(MINUTE)).intent;
    let draft = only(read_charges(pending, vec![charge(A, ChargeState::Canceled, 0)], after(HOUR)));
    assert_eq!(end(&draft), ("Canceled", Outcome::Verified));
}

#[test]
fn the_decline_of_a_pending_charge_from_a_tainted_send_is_confirmed_first() {
    let tainted = marked(2, after(MINUTE), true);
    let pending =
        answered(tainted, &as_answer(charge(A, ChargeState::AuthorizationInitiated, 0)), after(MINUTE)).intent;
    let mut draft = only(read_charges(pending, vec![declined_charge(A, "SoftDeclined", 0)], after(2 * MINUTE)));
    assert_eq!(planned(&draft), (after(X + MINUTE), Why::Confirmation));
    assert_eq!((draft.intent.number.value, draft.intent.number.status), (0, NumberStatus::Unknown));
    // The same charge id coming back declined is final, even if that send is tainted too.
    draft.intent.number.sends = 3;
    let confirmed = answered(draft.intent, &as_answer(declined_charge(A, "SoftDeclined", 0)), after(X + MINUTE));
    assert_eq!(confirmed.intent.number.value, 1);
}

#[test]
fn reading_a_declined_charge_again_does_not_confirm_its_tainted_decline() {
    let verdict = as_answer(declined_charge(A, "SoftDeclined", 0));
    let draft = answered(marked(2, after(MINUTE), true), &verdict, after(MINUTE));
    let again = only(read_charges(draft.intent, vec![declined_charge(A, "SoftDeclined", 0)], after(2 * MINUTE)));
    assert_eq!((again.intent.number.value, planned(&again).1), (0, Why::Confirmation));
}

#[test]
fn a_late_notification_about_an_answered_decline_settles_nothing_more() {
    let verdict = as_answer(declined_charge(A, "SoftDeclined", 0));
    let mut next = answered(sent(), &verdict, after(MINUTE)).intent;
    assert_eq!((next.number.value, next.progress.attempts), (1, 1));
    let told = only(read_charges(next.clone(), vec![declined_charge(A, "SoftDeclined", 0)], after(HOUR)));
    assert_eq!((told.intent.number.value, told.intent.progress.attempts), (1, 1), "one decline counts once");
    next.number = crate::model::charge_intent::Number { value: 1, ..marked(1, after(DAY), false).number };
    let draft = only(read_charges(next, vec![declined_charge(A, "SoftDeclined", 0)], after(DAY + MINUTE)));
    assert_eq!((draft.intent.number.value, draft.intent.number.status), (1, NumberStatus::Unknown));
    assert_eq!(draft.intent.progress.attempts, 1);
}

// --- Declines ---

#[test]
fn a_soft_decline_is_tried_again_after_1_3_7_and_14_days_and_then_given_up() {
    for decline in [Decline::SoftDeclined, Decline::TransactionTimedOut] {
        let (mut intent, mut now, mut days) = (sent(), start(), Vec::new());
        let reason = loop {
            let draft = answered(intent, &Verdict::Declined(decline), now);
            if draft.intent.stage().is_terminal() {
                break end(&draft).0.to_owned();
            }
            let (next, _) = planned(&draft);
            days.push(next.duration_since(now).as_hours() / 24);
            now = next;
            intent = draft.intent;
            intent.number = crate::model::charge_intent::Number { value: intent.number.value, ..sent().number };
        };
        assert_eq!(days, [1, 3, 7, 14]);
        assert_eq!(reason, decline.as_str());
    }
}

#[test]
fn nothing_is_tried_after_the_window_and_the_last_reason_is_given() {
    let mut intent = answered(sent(), &Verdict::Declined(Decline::SoftDeclined), after(MINUTE)).intent;
    intent.progress.stage = Stage::Scheduled { at: after(29 * DAY), why: Why::Attempt };
    let draft = only(decided(intent.clone(), chargeable(), after(30 * DAY)));
    assert_eq!(end(&draft), ("SoftDeclined", Outcome::Verified));
    intent.stopped_ms = 86_400_000;
    assert_eq!(
        decided(intent, chargeable(), after(30 * DAY)).act,
        Act::Send(0),
        "the window stood still while stopped"
    );
}

#[test]
fn a_decline_late_in_the_window_is_given_up_because_no_attempt_fits_any_more() {
    let draft = answered(sent(), &Verdict::Declined(Decline::SoftDeclined), after(29 * DAY + 12 * HOUR));
    assert_eq!(end(&draft), ("SoftDeclined", Outcome::Verified));
}

#[test]
fn no_new_number_once_the_maximum_of_attempts_is_reached() {
    let mut intent = intent();
    intent.progress.attempts = 5;
    let decision = decided(intent, chargeable(), after(MINUTE));
    assert_eq!(decision.act, Act::Nothing);
    assert!(only(decision).intent.stage().is_terminal());
}

#[test]
fn a_processing_failure_of_a_first_send_is_confirmed_under_the_same_number_after_x() {
    let failure = Verdict::Declined(Decline::ProcessingFailure);
    let draft = answered(sent(), &failure, after(MINUTE));
    assert_eq!((draft.intent.number.value, planned(&draft)), (0, (after(X), Why::Confirmation)));
    let again = ChargeIntent { number: marked(2, after(X), false).number, ..draft.intent };
    let confirmed = answered(again, &failure, after(X + MINUTE));
    assert!(!confirmed.intent.progress.failure_answered, "the next number has an answer of its own to wait for");
    assert_eq!((confirmed.intent.number.value, confirmed.intent.progress.attempts), (1, 1));
    let wait = planned(&confirmed).0.duration_since(after(X + MINUTE)).as_mins();
    assert!((15..=17).contains(&wait), "minutes to hours, got {wait} minutes");
}

#[test]
fn a_mark_that_was_perhaps_never_sent_does_not_make_the_first_processing_failure_the_second() {
    let failure = Verdict::Declined(Decline::ProcessingFailure);
    let draft = answered(marked(2, after(X), false), &failure, after(X + MINUTE));
    assert_eq!((draft.intent.number.value, planned(&draft)), (0, (after(2 * X), Why::Confirmation)));
    let again = ChargeIntent { number: marked(3, after(2 * X), false).number, ..draft.intent };
    assert_eq!(answered(again, &failure, after(2 * X)).intent.number.value, 1);
}

#[test]
fn a_hard_decline_waits_for_the_buyer_and_sends_the_link() {
    let mut intent = sent();
    intent.number.instrument = Some(crate::recovery::draft::testing::digest("Visa ****1111"));
    let draft = answered_and_looked(intent, &Verdict::Declined(Decline::HardDeclined), chargeable(), after(MINUTE));
    assert!(is_parked_for_instrument(&draft));
    assert_eq!(kinds(&draft), ["charge.declined", "charge.parked", "charge.action_required"]);
    let link = "https://payments.amazon.com/jr/your-account/ba/C01-0000000-0000001";
    assert!(draft.events[2].data.contains(link), "{}", draft.events[2].data);
    let given_up = only(decided(draft.intent, chargeable(), after(30 * DAY)));
    assert_eq!(end(&given_up), ("HardDeclined", Outcome::Verified));
}

#[test]
fn the_fifth_hard_decline_is_the_last() {
    let mut intent = sent();
    intent.progress.attempts = 4;
    let draft = answered(intent, &Verdict::Declined(Decline::HardDeclined), after(MINUTE));
    assert_eq!(end(&draft), ("HardDeclined", Outcome::Verified));
}

#[test]
fn what_only_a_new_checkout_mends_is_given_up_at_once() {
    let rejected = answered(sent(), &Verdict::Declined(Decline::AmazonRejected), after(MINUTE));
    assert_eq!(end(&rejected), ("AmazonRejected", Outcome::Verified));
    for code in ["PaymentMethodNotAllowed", "MFANotCompleted", "TransactionAmountExceeded", "TransactionCountExceeded"]
    {
        let draft = answered(sent(), &Verdict::Refused(Refusal::NewCheckout(code.to_owned())), after(MINUTE));
        assert_eq!((end(&draft), draft.intent.progress.attempts), ((code, Outcome::Verified), 0));
    }
}

#[test]
fn bad_input_is_parked_for_a_person() {
    let draft = answered(sent(), &Verdict::Refused(Refusal::NotUnderstood("InvalidRequest".to_owned())), after(MINUTE));
    assert!(is_parked_for_attention(&draft));
    assert_eq!(alerts(&draft.alerts), ["charge_parked"]);
}

// --- The month ---

#[test]
fn a_used_up_month_waits_for_the_next_one_and_its_window_stands_still() {
    let draft = answered(sent(), &Verdict::Refused(Refusal::MonthlyLimit), after(MINUTE));
    let (next, why) = planned(&draft);
    let turn = at("2026-02-01T00:00:00-08:00");
    assert!(next >= turn && next < later(turn, 6 * HOUR) && why == Why::Attempt);
    assert_eq!(
        (draft.intent.number.value, draft.intent.progress.attempts, draft.intent.progress.month_parks),
        (1, 0, 1)
    );
    let stood_still = next.duration_since(after(MINUTE));
    assert_eq!(i128::from(draft.intent.progress.stood_still_ms), stood_still.as_millis());
}

#[test]
fn a_balance_below_the_amount_is_a_used_up_month_and_nothing_is_sent() {
    let mut short = view(PermissionState::Chargeable, &[]);
    short.amount_balance = Some(amount("13.99"));
    let decision = decided(intent(), Look::Seen(short.clone()), start());
    assert_eq!(decision.act, Act::Nothing);
    assert_eq!(only(decision).intent.progress.month_parks, 1);
    short.amount_balance = Some(amount("14.00"));
    assert_eq!(decided(intent(), Look::Seen(short), start()).act, Act::Send(0));
}

#[test]
fn an_amount_above_the_limit_can_never_be_charged() {
    let mut low = view(PermissionState::Chargeable, &[]);
    low.amount_limit = Some(amount("13.99"));
    let draft = only(decided(intent(), Look::Seen(low), start()));
    assert_eq!(end(&draft), ("TransactionAmountExceeded", Outcome::Verified));
}

#[test]
fn after_two_month_parks_the_charge_is_given_up_and_a_park_left_early_counts_once() {
    let limit = Verdict::Refused(Refusal::MonthlyLimit);
    let sent_again = |intent: ChargeIntent| ChargeIntent { number: sent().number, ..intent };
    let first = answered(sent(), &limit, after(MINUTE)).intent;
    let early = answered(sent_again(first.clone()), &limit, after(HOUR)).intent;
    assert_eq!((early.progress.month_parks, early.progress.stood_still_ms), (1, first.progress.stood_still_ms));
    let second = answered(sent_again(early), &limit, at("2026-02-10T00:00:00Z")).intent;
    assert_eq!(second.progress.month_parks, 2);
    let third = answered(sent_again(second), &limit, at("2026-03-10T00:00:00Z"));
    assert_eq!(end(&third), ("PeriodicAmountExceeded", Outcome::Verified));
}

// --- InvalidChargePermissionStatus ---

#[test]
fn a_status_conflict_with_a_chargeable_permission_takes_the_next_number_after_an_hour_three_times_in_a_row() {
    let conflict = Verdict::Refused(Refusal::PermissionStatus);
    let mut intent = sent();
    for number in 1..=3 {
        let draft = answered_and_looked(intent, &conflict, chargeable(), after(MINUTE));
        assert_eq!((draft.intent.number.value, planned(&draft).0), (number, after(MINUTE + HOUR)));
        intent = ChargeIntent {
            number: crate::model::charge_intent::Number { value: number, ..sent().number },
            ..draft.intent
        };
    }
    let fourth = answered_and_looked(intent.clone(), &conflict, chargeable(), after(MINUTE));
    assert!(is_parked_for_attention(&fourth));
    // Something else in between: no longer in a row.
    let between = answered(intent, &Verdict::Declined(Decline::SoftDeclined), after(MINUTE)).intent;
    assert_eq!(between.progress.conflicts, 0);
}

#[test]
fn after_a_status_conflict_the_look_decides() {
    let conflict = Verdict::Refused(Refusal::PermissionStatus);
    let parked = answered_and_looked(sent(), &conflict, not_chargeable("PaymentMethodDeleted"), after(MINUTE));
    assert!(is_parked_for_instrument(&parked));
    let over = answered_and_looked(sent(), &conflict, closed(), after(MINUTE));
    assert_eq!(end(&over), ("charge_permission_closed", Outcome::Verified));
    let busy = answered_and_looked(sent(), &conflict, not_chargeable("ChargeInProgress"), after(MINUTE));
    assert_eq!(planned(&busy).0, after(MINUTE + HOUR));
}

// --- Account, key, silence ---

#[test]
fn an_account_fault_counts_nothing_ends_nothing_and_waits_for_the_account() {
    let draft = answered(sent(), &Verdict::AccountFault("UnauthorizedAccess".to_owned()), after(MINUTE));
    assert_eq!((draft.intent.number.value, draft.intent.progress.attempts), (0, 0));
    assert!(draft.is_unknown());
    assert_eq!(draft.intent.progress.stood_still_ms, 0, "the halt of the account is counted for the account");
    assert_eq!(
        planned(&draft),
        (after(MINUTE), Why::Repeat),
        "due at once: nobody sends before the account is answered"
    );
    assert!(draft.alerts.is_empty(), "it is told of once for the account");
    for intent in [intent(), sent()] {
        let decision = decided(intent, Look::AccountFault, after(40 * DAY));
        assert_eq!((&decision.act, decision.not_before), (&Act::Nothing, None));
        assert!(decision.events.is_empty() && decision.record.account_fault);
        let draft = only(decision);
        assert!(!draft.intent.stage().is_terminal(), "{:?}", draft.intent.stage());
        assert_eq!(draft.intent.progress.stood_still_ms, 0);
    }
}

#[test]
fn what_is_refused_by_itself_backs_off_by_itself_and_ends_nothing() {
    let refusal = Verdict::AccountFault("UnauthorizedAccess".to_owned());
    let mut again = marked(2, start(), false);
    assert!(!refused_alone(&again, &refusal));
    again.progress.last_reason = Some("UnauthorizedAccess".to_owned());
    assert!(refused_alone(&again, &refusal) && !refused_alone(&again, &silence()));
    let draft = answered(again, &refusal, after(MINUTE));
    assert!(planned(&draft).0 >= after(16 * MINUTE) && draft.intent.progress.stood_still_ms > 0);
    assert_eq!(alerts(&draft.alerts), ["charge_refused"]);
    for intent in [intent(), sent()] {
        let decision = decided(intent, Look::Refused, after(40 * DAY));
        assert_eq!((&decision.act, decision.not_before), (&Act::Nothing, Some(after(40 * DAY + 15 * MINUTE))));
        assert_eq!(alerts(&decision.events), ["permission_refused"]);
        let record = decision.record.clone();
        let draft = only(decision);
        assert!(!draft.intent.stage().is_terminal(), "{:?}", draft.intent.stage());
        assert!(draft.intent.progress.stood_still_ms > 0);
        let again = Case { record, ..case(vec![draft.intent]) };
        let again = decide(&again, &findings(Look::Refused), after(41 * DAY), &policies(), OURS);
        assert!(again.events.is_empty(), "told once");
    }
}

#[test]
fn another_request_under_our_key_is_held_for_the_operator() {
    let draft = answered(sent(), &Verdict::DuplicateKey, after(MINUTE));
    assert!(matches!(draft.intent.stage(), Stage::Held { .. }) && draft.is_unknown());
    assert_eq!(alerts(&draft.alerts), ["charge_held"]);
    assert_eq!(decided(draft.intent, chargeable(), after(DAY)).act, Act::Nothing);
}

#[test]
fn silence_repeats_the_same_number_with_growing_pauses_and_counts_nothing() {
    let mut last = Duration::ZERO;
    for sends in 1..=6 {
        let draft = answered(marked(sends, start(), sends > 1), &silence(), start());
        let wait: Duration = planned(&draft).0.duration_since(start()).try_into().unwrap();
        assert!(wait > last, "send {sends} waits {wait:?}");
        assert_eq!((draft.intent.number.value, draft.intent.progress.attempts, planned(&draft).1), (0, 0, Why::Repeat));
        last = wait;
    }
}

#[test]
fn a_number_that_stays_unknown_until_the_window_ends_is_abandoned_as_unverified() {
    let unknown = answered(sent(), &silence(), after(MINUTE)).intent;
    let decision = decided(unknown, chargeable(), after(30 * DAY));
    assert_eq!(decision.act, Act::Nothing);
    assert_eq!(end(&only(decision)), ("window_ended", Outcome::Unverified));
}

// --- Taint ---

#[test]
fn a_tainted_decline_is_confirmed_under_the_same_number_after_x() {
    for verdict in declines() {
        let draft = answered(marked(2, after(HOUR), true), &verdict, after(HOUR + MINUTE));
        assert_eq!(planned(&draft), (after(HOUR + X), Why::Confirmation), "{verdict:?}");
        assert_eq!((draft.intent.number.value, draft.intent.progress.attempts), (0, 0));
        assert!(draft.is_unknown());
    }
}

#[test]
fn an_untainted_decline_is_final_even_of_a_repeat() {
    for verdict in declines() {
        let mut repeated = marked(2, after(HOUR), false);
        repeated.progress.failure_answered = true;
        let draft = answered(repeated, &verdict, after(HOUR + MINUTE));
        assert_eq!(draft.intent.number.value, 1, "{verdict:?}");
    }
}

#[test]
fn a_refusal_settles_only_the_first_untainted_send() {
    for refusal in refusals() {
        for (sends, tainted) in [(1, true), (2, false), (2, true)] {
            let verdict = Verdict::Refused(refusal.clone());
            let draft = answered(marked(sends, after(HOUR), tainted), &verdict, after(HOUR));
            assert_eq!((draft.intent.number.value, planned(&draft).1), (0, Why::Repeat), "{refusal:?}");
            assert!(draft.is_unknown());
        }
        let first = answered(sent(), &Verdict::Refused(refusal), after(MINUTE));
        assert_eq!(first.intent.number.value, 1);
    }
}

#[test]
fn a_confirmation_planned_before_the_window_ends_is_waited_for() {
    let mut intent = marked(2, after(29 * DAY + 23 * HOUR), true);
    intent.progress.stage = Stage::Scheduled { at: after(30 * DAY + MINUTE), why: Why::Confirmation };
    let waiting = only(decided(intent.clone(), chargeable(), after(30 * DAY)));
    assert!(!waiting.intent.stage().is_terminal());
    assert_eq!(decided(intent, chargeable(), after(30 * DAY + X)).act, Act::Send(0));
}

#[test]
fn what_is_stopped_or_paused_within_a_wait_for_the_month_stands_still_once() {
    let limit = Verdict::Refused(Refusal::MonthlyLimit);
    let waits = answered(sent(), &limit, after(MINUTE)).intent;
    let (until, _) = planned(&Draft::new(waits.clone()));
    let policy = policy();
    let end = policy.window_end(&waits);
    let day_ms = 86_400_000;
    // Until when the stop lasted, how long it was on in all, and how much of that was after the wait.
    for (now, stopped_ms, beside) in [
        (until, day_ms, 0),
        (until, 0, 0),
        (later(until, DAY), 3 * day_ms, day_ms),
        (later(until, DAY), day_ms, day_ms),
    ] {
        let mut paused = waits.clone();
        paused.stopped_ms = stopped_ms;
        paused.wishes.paused_since = Some(now);
        let decided = only(decided(paused, chargeable(), now)).intent;
        let by = policy.window_end(&decided).duration_since(end).as_millis();
        assert_eq!(by, i128::from(beside), "{stopped_ms} ms up to {now}");
        let again = only(super::decided(decided.clone(), chargeable(), now)).intent;
        assert_eq!(policy.window_end(&again), policy.window_end(&decided), "taken off once");
    }
}
