//! What one look at a permission decides: gates, evidence, turns among several intents, hints, charges found.

use super::*;
use crate::model::charge_intent::NumberStatus;
use crate::recovery::case::HintFate;
use crate::recovery::draft::testing::{digest, intent};
use crate::recovery::plan::{MAX_CHARGE_LOOKS, plan};

const A: &str = "C01-0000000-0000001-C000001";
const B: &str = "C01-0000000-0000001-C000002";

// --- The gate ---

#[test]
fn a_new_number_goes_out_only_after_a_look_that_said_chargeable() {
    assert_eq!(decided(intent(), chargeable(), start()).act, Act::Send(0));
    for look in [Look::NotAsked, Look::Failed, Look::NotFound, Look::AccountFault, Look::Refused, closed()] {
        assert_eq!(decided(intent(), look.clone(), start()).act, Act::Nothing, "{look:?}");
    }
}

#[test]
fn a_repeat_never_waits_for_the_permission() {
    let unknown = answered(sent(), &silence(), start()).intent;
    for look in [Look::NotAsked, Look::Failed, Look::NotFound, not_chargeable("ChargeInProgress")] {
        assert_eq!(decided(unknown.clone(), look.clone(), after(HOUR)).act, Act::Send(0), "{look:?}");
    }
}

#[test]
fn a_permission_that_stopped_being_chargeable_parks_and_tells_the_buyer_now() {
    let mut later_on = intent();
    later_on.progress.stage = Stage::Scheduled { at: after(3 * DAY), why: Why::Attempt };
    let draft = only(decided(later_on, not_chargeable("PaymentMethodExpired"), start()));
    assert!(is_parked_for_instrument(&draft));
    let told: Vec<_> = draft.events.iter().map(|event| event.kind).collect();
    assert_eq!(told, ["amazonpay.charge.parked.v1", "amazonpay.charge.action_required.v1"]);
}

#[test]
fn a_busy_permission_is_waited_for_without_a_mail() {
    let draft = only(decided(intent(), not_chargeable("ChargeInProgress"), start()));
    assert_eq!(planned(&draft), (after(HOUR), Why::Attempt));
    assert!(draft.events.is_empty() && draft.alerts.is_empty());
}

#[test]
fn an_unknown_state_or_reason_and_a_missing_permission_are_parked_for_a_person() {
    let strange = Look::Seen(view(PermissionState::Other("Napping".to_owned()), &[]));
    for look in [strange, not_chargeable("Sunspots"), Look::NotFound] {
        let decision = decided(intent(), look.clone(), start());
        assert!(alerts(&decision.events).contains(&"charge_parked".to_owned()), "{look:?}");
        assert!(is_parked_for_attention(&only(decision)), "{look:?}");
    }
}

#[test]
fn a_permission_of_the_other_environment_is_never_charged_but_quarantined_and_alerted_on() {
    let mut foreign = view(PermissionState::Chargeable, &[]);
    foreign.release_environment = Some(Environment::Live);
    let mut unknown = sent();
    unknown.id = "renewal-2".parse().unwrap();
    let case = Case { hints: vec![heard(start())], ..case(vec![intent(), unknown]) };
    let decision = decide(&case, &findings(Look::Seen(foreign)), after(HOUR), &policies(), OURS);
    assert_eq!(decision.act, Act::Nothing);
    assert!(matches!(decision.hints[..], [HintFate::Quarantine(_)]));
    assert!(matches!(decision.drafts[0].intent.stage(), Stage::Abandoned { .. }));
    assert!(matches!(decision.drafts[1].intent.stage(), Stage::Held { .. }));
    assert_eq!(alerts(&decision.events), ["environment_mismatch", "charge_held"]);
    assert_eq!(decision.record, PermissionRecord::default(), "nothing of it is believed");
}

#[test]
fn a_charge_of_the_other_environment_settles_nothing_and_is_alerted_on_once() {
    let mut foreign = charge(A, ChargeState::Captured, 0);
    foreign.release_environment = Some(Environment::Live);
    let seen = |case: &Case| {
        let findings = Findings {
            charges: vec![(foreign.id.clone(), ChargeLook::Seen(foreign.clone()))],
            ..findings(Look::NotAsked)
        };
        decide(case, &findings, after(HOUR), &policies(), OURS)
    };
    let mut case = case(vec![sent()]);
    let first = seen(&case);
    assert_eq!(first.drafts[0].intent.stage().name(), "scheduled");
    assert_eq!(alerts(&first.events), ["environment_mismatch"]);
    case.record = first.record;
    assert!(alerts(&seen(&case).events).is_empty());
}

#[test]
fn a_permission_that_does_not_name_its_environment_is_not_charged() {
    let mut nameless = view(PermissionState::Chargeable, &[]);
    nameless.release_environment = None;
    let decision = decided(intent(), Look::Seen(nameless), start());
    assert_eq!(decision.act, Act::Nothing);
    assert!(is_parked_for_attention(&only(decision)));
}

// --- Evidence of a mended instrument ---

/// Hard-declined at the start, with the usual card.
fn parked() -> ChargeIntent {
    let mut intent = sent();
    intent.number.instrument = Some(digest("Visa ****1111"));
    let draft = answered_and_looked(intent, &Verdict::Declined(Decline::HardDeclined), chargeable(), start());
    assert!(is_parked_for_instrument(&draft));
    draft.intent
}

fn decided_on_hearing(intent: ChargeIntent, published_at: Timestamp, look: Look, now: Timestamp) -> Decision {
    let case = Case { hints: vec![heard(published_at)], ..case(vec![intent]) };
    decide(&case, &findings(look), now, &policies(), OURS)
}

#[test]
fn another_instrument_releases_now() {
    let mut other = view(PermissionState::Chargeable, &[]);
    other.instrument = Some(digest("Visa ****2222"));
    assert_eq!(decided(parked(), Look::Seen(other.clone()), after(MINUTE)).act, Act::Send(0));
    other.instrument = None;
    assert_eq!(decided(parked(), Look::Seen(other), after(MINUTE)).act, Act::Nothing, "null is no evidence");
    assert_eq!(decided(parked(), chargeable(), after(DAY)).act, Act::Nothing, "the same card is no evidence");
}

#[test]
fn not_chargeable_since_and_chargeable_now_releases() {
    let seen = only(decided(parked(), not_chargeable("PaymentMethodInvalid"), after(HOUR))).intent;
    assert_eq!(decided(seen, chargeable(), after(2 * HOUR)).act, Act::Send(0));
    let busy = only(decided(parked(), not_chargeable("ChargeInProgress"), after(HOUR))).intent;
    assert_eq!(decided(busy, chargeable(), after(2 * HOUR)).act, Act::Nothing, "our own running charge is no evidence");
}

#[test]
fn a_notification_15_minutes_after_the_decline_releases_once_a_day() {
    let release = decided_on_hearing(parked(), after(15 * MINUTE), chargeable(), after(16 * MINUTE));
    assert_eq!(release.act, Act::Send(0));
    let mut intent = only(release).intent;
    // Declined again, with a notification after every decline.
    for (hours, released) in [(1, false), (23, false), (25, true)] {
        let now = after(hours * HOUR);
        let parked_again = Stage::Parked {
            since: start(),
            park: Park::Instrument { baseline: None, non_chargeable_seen: false, echo_look_at: None },
        };
        intent.progress.stage = parked_again;
        let again = decided_on_hearing(intent.clone(), now, chargeable(), now);
        assert_eq!(again.act == Act::Send(0), released, "after {hours} hours");
    }
}

#[test]
fn the_echo_of_our_own_decline_earns_one_look_at_the_end_of_the_15_minutes_and_no_release() {
    let decision = decided_on_hearing(parked(), after(14 * MINUTE), chargeable(), after(14 * MINUTE));
    assert_eq!(decision.act, Act::Nothing);
    let waiting = only(decision).intent;
    assert_eq!(crate::recovery::due::due(&waiting, &policy()), Some(after(15 * MINUTE)));
    assert!(plan(&case(vec![waiting.clone()]), after(15 * MINUTE)).permission);
    let decision = decided(waiting, chargeable(), after(15 * MINUTE));
    assert_eq!(decision.act, Act::Nothing);
    let rest = only(decision).intent;
    assert!(!plan(&case(vec![rest]), after(16 * MINUTE)).permission, "one look, not more");
}

#[test]
fn a_release_happens_once_and_only_for_intents_that_wait_for_the_instrument() {
    let mut other = view(PermissionState::Chargeable, &[]);
    other.instrument = Some(digest("Visa ****2222"));
    let confused = answered(sent(), &Verdict::Refused(Refusal::NotUnderstood("InvalidRequest".to_owned())), start());
    assert_eq!(decided(confused.intent, Look::Seen(other.clone()), after(HOUR)).act, Act::Nothing);
    let mut released = only(decided(parked(), Look::Seen(other.clone()), after(HOUR))).intent;
    released.number = sent().number;
    released.number.instrument = Some(digest("Visa ****2222"));
    let hard = Verdict::Declined(Decline::HardDeclined);
    let again = answered_and_looked(released, &hard, Look::Seen(other.clone()), after(HOUR)).intent;
    assert_eq!(decided(again, Look::Seen(other), after(2 * HOUR)).act, Act::Nothing);
}

#[test]
fn a_release_does_not_send_before_not_before() {
    let mut early = intent();
    early.progress.window_from = after(10 * DAY);
    early.progress.stage = Stage::Scheduled { at: after(10 * DAY), why: Why::Attempt };
    let parked = only(decided(early, not_chargeable("PaymentMethodExpired"), start())).intent;
    let decision = decided(parked, chargeable(), after(DAY));
    assert_eq!(decision.act, Act::Nothing);
    assert_eq!(planned(&only(decision)), (after(10 * DAY), Why::Attempt));
}

// --- Several intents of one permission ---

fn second() -> ChargeIntent {
    ChargeIntent { id: "renewal-2".parse().unwrap(), ..intent() }
}

#[test]
fn of_several_due_intents_the_oldest_goes_first_and_only_one() {
    let decision = decide(&case(vec![intent(), second()]), &findings(chargeable()), start(), &policies(), OURS);
    assert_eq!(decision.act, Act::Send(0));
}

#[test]
fn an_unknown_number_keeps_the_others_waiting_until_x_after_its_first_mark() {
    let mut held = answered(sent(), &Verdict::DuplicateKey, start()).intent;
    held.number.first_mark = Some(start());
    let confirming =
        answered(marked(2, after(MINUTE), true), &as_answer(declined_charge(A, "SoftDeclined", 0)), after(MINUTE));
    let mut waiting = answered(sent(), &silence(), start()).intent;
    waiting.progress.stage = Stage::Scheduled { at: after(5 * HOUR), why: Why::Repeat };
    for blocker in [held, confirming.intent, waiting] {
        let case = case(vec![blocker, second()]);
        let soon = decide(&case, &findings(chargeable()), after(20 * MINUTE), &policies(), OURS);
        assert_eq!(soon.act, Act::Nothing);
        assert_eq!(planned(&soon.drafts[1]).0, after(X), "waits exactly as long as needed");
        let mut case = case;
        case.intents.remove(0);
        assert_eq!(decide(&case, &findings(chargeable()), after(20 * MINUTE), &policies(), OURS).act, Act::Send(0));
    }
}

#[test]
fn after_x_an_unknown_number_blocks_no_longer() {
    let mut waiting = answered(sent(), &silence(), start()).intent;
    waiting.progress.stage = Stage::Scheduled { at: after(5 * HOUR), why: Why::Repeat };
    let decision = decide(&case(vec![waiting, second()]), &findings(chargeable()), after(X), &policies(), OURS);
    assert_eq!(decision.act, Act::Send(1));
}

#[test]
fn what_is_unknown_is_asked_about_before_anything_new_is_sent() {
    let mut unknown = answered(sent(), &silence(), start()).intent;
    unknown.id = "renewal-2".parse().unwrap();
    let decision = decide(&case(vec![intent(), unknown]), &findings(chargeable()), after(DAY), &policies(), OURS);
    assert_eq!(decision.act, Act::Send(1));
}

// --- Charges found ---

#[test]
fn of_charges_found_only_a_success_resolves_an_unknown_number() {
    let unknown = answered(sent(), &silence(), start()).intent;
    for state in [ChargeState::Declined, ChargeState::Canceled, ChargeState::AuthorizationInitiated] {
        let draft = only(read_charges(unknown.clone(), vec![charge(A, state.clone(), 0)], after(MINUTE)));
        assert!(draft.is_unknown() && draft.intent.number.value == 0, "{state:?}");
    }
    for (state, name) in [
        (ChargeState::Captured, "captured"),
        (ChargeState::Authorized, "authorized"),
        (ChargeState::CaptureInitiated, "pending"),
    ] {
        let draft = only(read_charges(unknown.clone(), vec![charge(A, state, 0)], after(MINUTE)));
        assert_eq!((draft.intent.stage().name(), draft.intent.number.status), (name, NumberStatus::Answered));
    }
}

#[test]
fn the_decline_of_a_charge_found_beside_an_unanswered_repeat_is_confirmed_first() {
    // The first send made the charge and its answer was lost; the repeat, long after, is still under way.
    let repeated = answered(marked(2, after(HOUR), false), &silence(), after(HOUR)).intent;
    let pending = only(read_charges(repeated, vec![charge(A, ChargeState::CaptureInitiated, 0)], after(HOUR))).intent;
    let draft = only(read_charges(pending, vec![declined_charge(A, "SoftDeclined", 0)], after(HOUR + MINUTE)));
    assert_eq!(planned(&draft), (after(HOUR + X), Why::Confirmation));
    assert_eq!((draft.intent.number.value, draft.intent.number.status), (0, NumberStatus::Unknown));
}

#[test]
fn the_charge_of_an_earlier_number_that_comes_to_nothing_gives_the_unknown_number_no_successor() {
    let mut unknown = answered(sent(), &silence(), start()).intent;
    unknown.number.value = 1;
    let pending = only(read_charges(unknown, vec![charge(A, ChargeState::CaptureInitiated, 0)], after(MINUTE))).intent;
    let draft = only(read_charges(pending, vec![declined_charge(A, "SoftDeclined", 0)], after(HOUR)));
    assert_eq!((draft.intent.number.value, planned(&draft).1), (1, Why::Repeat));
    assert!(draft.is_unknown());
}

#[test]
fn a_second_success_is_alerted_on_with_both_ids_and_changes_nothing() {
    for state in [ChargeState::Captured, ChargeState::Authorized] {
        let first = answered(sent(), &as_answer(charge(A, state.clone(), 0)), start()).intent;
        let decision = read_charges(first.clone(), vec![charge(B, ChargeState::Captured, 0)], after(MINUTE));
        assert_eq!(alerts(&decision.events), ["duplicate_charge"]);
        assert!(decision.events[0].data.contains(A) && decision.events[0].data.contains(B));
        assert_eq!(only(decision).intent.stage(), first.stage());
    }
}

#[test]
fn a_charge_without_our_tag_is_told_of_once() {
    let stranger = ChargeView { tag: None, ..charge(A, ChargeState::Captured, 0) };
    let decision = read_charges(intent(), vec![stranger.clone()], start());
    assert_eq!(decision.events[0].kind, "amazonpay.charge.unmatched.v1");
    let again = Case { record: decision.record.clone(), ..case(vec![only(decision).intent]) };
    let found = Findings {
        look: Look::NotAsked,
        charges: vec![(stranger.id.clone(), ChargeLook::Seen(stranger))],
        may_act: true,
    };
    assert!(decide(&again, &found, start(), &policies(), OURS).events.is_empty());
}

#[test]
fn after_an_unverified_end_one_capture_may_follow_and_no_second() {
    let unknown = answered(sent(), &silence(), start()).intent;
    let ended = only(decided(unknown, chargeable(), after(30 * DAY))).intent;
    assert_eq!(ended.stage().outcome(), Some(Outcome::Unverified));
    let pending = only(read_charges(ended.clone(), vec![charge(A, ChargeState::CaptureInitiated, 0)], after(31 * DAY)));
    assert_eq!(pending.intent.stage(), ended.stage(), "only the money re-opens it");
    let captured = only(read_charges(ended, vec![charge(A, ChargeState::Captured, 0)], after(31 * DAY)));
    assert_eq!(captured.events.iter().filter(|event| event.kind == "amazonpay.charge.captured.v1").count(), 1);
    let same = read_charges(captured.intent.clone(), vec![charge(A, ChargeState::Captured, 0)], after(32 * DAY));
    assert!(same.events.is_empty() && only(same).events.is_empty());
    let other = read_charges(captured.intent, vec![charge(B, ChargeState::Captured, 0)], after(32 * DAY));
    assert_eq!(alerts(&other.events), ["duplicate_charge"]);
}

#[test]
fn a_success_after_a_verified_end_is_alerted_on_and_nothing_reopens() {
    let ended = answered(sent(), &Verdict::Declined(Decline::AmazonRejected), start()).intent;
    let decision = read_charges(ended.clone(), vec![charge(A, ChargeState::Captured, 0)], after(DAY));
    assert_eq!(alerts(&decision.events), ["charge_after_end"]);
    assert_eq!(only(decision).intent.stage(), ended.stage());
}

// --- Hints ---

fn fate_of(hint: Hint, look: Look, charges: Vec<(crate::model::ids::ChargeId, ChargeLook)>) -> HintFate {
    let case = Case { hints: vec![hint], ..case(Vec::new()) };
    let findings = Findings { look, charges, may_act: true };
    decide(&case, &findings, start(), &policies(), OURS).hints.remove(0)
}

#[test]
fn a_hint_is_done_when_its_object_was_seen_and_kept_when_nobody_looked() {
    assert_eq!(fate_of(heard(start()), chargeable(), Vec::new()), HintFate::Done);
    assert_eq!(fate_of(heard(start()), Look::NotAsked, Vec::new()), HintFate::Keep);
    let named = hint(ObjectType::Charge, A, start());
    let seen = vec![(A.parse().unwrap(), ChargeLook::Seen(charge(A, ChargeState::Captured, 0)))];
    assert_eq!(fate_of(named.clone(), Look::NotAsked, seen), HintFate::Done);
    assert_eq!(fate_of(named, chargeable(), Vec::new()), HintFate::Keep);
}

#[test]
fn a_refused_hint_waits_longer_each_time_and_is_quarantined_at_the_fifth_refusal() {
    let mut named = hint(ObjectType::Charge, A, start());
    let mut waits = Vec::new();
    let reason = loop {
        match fate_of(named.clone(), chargeable(), vec![(A.parse().unwrap(), ChargeLook::Refused(404))]) {
            HintFate::Defer(note) => {
                waits.push(note.not_before.unwrap().duration_since(start()).as_mins());
                named.note = HintNote { not_before: None, ..note };
            }
            HintFate::Quarantine(reason) => break reason,
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!(waits, [1, 4, 16, 64]);
    assert!(reason.contains("404") && reason.contains('5'), "{reason}");
}

#[test]
fn a_failed_look_defers_only_its_own_hint_and_counts_no_refusal() {
    let failed = vec![(A.parse().unwrap(), ChargeLook::Failed)];
    let HintFate::Defer(note) = fate_of(hint(ObjectType::Charge, A, start()), chargeable(), failed) else {
        panic!("expected a deferral")
    };
    assert_eq!((note.refusals, note.not_before), (0, Some(after(MINUTE))));
    let mut waiting = heard(start());
    waiting.note.not_before = Some(after(MINUTE));
    assert_eq!(fate_of(waiting, chargeable(), Vec::new()), HintFate::Keep);
}

#[test]
fn a_hint_waits_with_the_account_and_by_itself_only_if_its_permission_alone_is_refused() {
    assert_eq!(fate_of(heard(start()), Look::AccountFault, Vec::new()), HintFate::Keep);
    let of_a_charge = hint(ObjectType::Charge, A, start());
    let fault = vec![(A.parse().unwrap(), ChargeLook::AccountFault)];
    let of_refusals = |refusals| {
        let mut hint = of_a_charge.clone();
        hint.note.refusals = refusals;
        let HintFate::Defer(note) = fate_of(hint, Look::NotAsked, fault.clone()) else { panic!("expected a deferral") };
        (note.refusals, note.not_before)
    };
    assert_eq!(of_refusals(0), (1, None), "from now on its permission is looked at first");
    assert_eq!(of_refusals(1), (1, None), "faults of the account are not counted toward the quarantine");
    let HintFate::Defer(note) = fate_of(heard(start()), Look::Refused, Vec::new()) else {
        panic!("expected a deferral")
    };
    assert_eq!((note.not_before, note.refusals), (Some(after(15 * MINUTE)), 0));
}

#[test]
fn a_charge_that_was_refused_is_looked_at_with_its_permission() {
    let mut case = case(Vec::new());
    case.hints = vec![hint(ObjectType::Charge, A, start())];
    assert!(!plan(&case, start()).permission);
    case.hints[0].note.refusals = 1;
    assert!(plan(&case, start()).permission, "is it the charge, or the account?");
}

#[test]
fn a_final_charge_costs_no_call_and_at_most_five_are_read_at_once() {
    let mut case = case(Vec::new());
    case.hints =
        (1..=7).map(|n| hint(ObjectType::Charge, &format!("C01-0000000-0000001-C00000{n}"), start())).collect();
    case.record.remember_charge(A.parse().unwrap(), "Declined");
    let plan = plan(&case, start());
    assert_eq!((plan.charges.len(), plan.permission), (MAX_CHARGE_LOOKS, false));
    assert!(!plan.charges.contains(&A.parse().unwrap()));
    let decision = decide(&case, &findings(Look::NotAsked), start(), &policies(), OURS);
    assert_eq!(decision.hints[0], HintFate::Done);
}

#[test]
fn while_amazon_does_not_answer_looks_back_off_to_a_quarter_of_an_hour() {
    let mut record = PermissionRecord::default();
    let mut waits = Vec::new();
    for _ in 0..7 {
        let case = Case { record, ..case(vec![intent()]) };
        let decision = decide(&case, &findings(Look::Failed), start(), &policies(), OURS);
        waits.push(decision.not_before.unwrap().duration_since(start()).as_secs());
        record = decision.record;
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900]);
}
