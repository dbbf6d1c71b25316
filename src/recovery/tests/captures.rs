//! Captures: what each answer does, what holds for every input, and a random walk against a toy of Amazon.

mod walk;

use proptest::prelude::*;

use super::properties::{arbitrary_intent, situation, time, verdict};
use super::*;
use crate::model::capture::{CaptureIntent, CaptureWish};
use crate::model::charge_intent::{Number, NumberStatus, Progress};
use crate::model::money::Money;
use crate::recovery::authorization::expires_at;
use crate::recovery::capture::settle_capture;
use crate::recovery::draft::testing::{intent, kinds};
use crate::recovery::due::due;
use crate::recovery::plan::plan;

const A: &str = "C01-0000000-0000001-C000001";

fn wish(units: u32) -> CaptureWish {
    let capture_amount = Money::parse(&units.to_string(), "USD".parse().unwrap()).unwrap();
    CaptureWish { capture_amount, soft_descriptor: None }
}

/// An authorised intent of which 5 USD are to be captured.
fn wished() -> ChargeIntent {
    let mut intent = intent();
    intent.request.capture_now = false;
    intent.number.status = NumberStatus::Answered;
    let stage = Stage::Authorized { charge: A.parse().unwrap(), expires_at: None };
    intent.progress = Progress { authorized_at: Some(start()), ..Progress::new(stage, start()) };
    intent.progress.charge = Some(A.parse().unwrap());
    intent.progress.look_at = Some(after(DAY));
    let number = Number::fresh(0);
    intent.capture = Some(CaptureIntent { wish: Some(wish(5)), requested_at: Some(start()), number, cleared: None });
    intent
}

/// The same after its capture was marked `sends` times, the last time at the start.
fn capturing(sends: u32, tainted: bool) -> ChargeIntent {
    let mut intent = wished();
    let number = Number { sends, tainted, ..marked(sends, start(), tainted).number };
    intent.capture.as_mut().unwrap().number = Number { value: 0, ..number };
    intent
}

fn settled(intent: ChargeIntent, verdict: &Verdict, now: Timestamp) -> Draft {
    let mut draft = Draft::new(intent);
    settle_capture(&mut draft, verdict, now, &policy());
    draft
}

fn captured(intent: &ChargeIntent) -> &CaptureIntent {
    intent.capture.as_ref().unwrap()
}

fn planned_at(draft: &Draft) -> Option<Timestamp> {
    draft.intent.progress.capture_plan.as_ref().map(|plan| plan.at)
}

fn refusal(code: &str) -> Verdict {
    Verdict::Refused(Refusal::NewCheckout(code.to_owned()))
}

#[test]
fn a_capture_is_wanted_only_when_get_charge_of_this_reconciliation_says_authorized() {
    let look = |state| vec![charge(A, state, 0)];
    assert_eq!(read_charges(wished(), look(ChargeState::Authorized), after(HOUR)).act, Act::Capture(0));
    assert_eq!(decided(wished(), Look::NotAsked, after(HOUR)).act, Act::Nothing, "nobody looked");
    assert_eq!(decided(wished(), chargeable(), after(HOUR)).act, Act::Nothing, "the permission says nothing about it");
    for state in [ChargeState::Captured, ChargeState::CaptureInitiated, ChargeState::Canceled, ChargeState::Declined] {
        assert_eq!(read_charges(wished(), look(state), after(HOUR)).act, Act::Nothing);
    }
    let foreign = ChargeView { release_environment: Some(Environment::Live), ..charge(A, ChargeState::Authorized, 0) };
    assert_eq!(read_charges(wished(), vec![foreign], after(HOUR)).act, Act::Nothing, "sandbox and live never meet");
    for failed in [ChargeLook::Failed, ChargeLook::Refused(404)] {
        let findings = Findings { look: Look::NotAsked, charges: vec![(A.parse().unwrap(), failed)], may_act: true };
        let decision = decide(&case(vec![wished()]), &findings, after(HOUR), &policies(), OURS);
        assert_eq!(decision.act, Act::Nothing);
        assert_eq!(planned_at(&only(decision)), Some(after(HOUR + MINUTE)), "asked again later");
    }
    assert_eq!(plan(&case(vec![wished()]), after(HOUR)).charges, [A.parse().unwrap()], "so it is asked for");
}

#[test]
fn a_permission_that_is_closed_or_not_chargeable_does_not_keep_a_capture_back() {
    for look in [closed(), not_chargeable("PaymentMethodDeleted"), Look::NotFound, Look::Failed] {
        let charges = vec![(A.parse().unwrap(), ChargeLook::Seen(charge(A, ChargeState::Authorized, 0)))];
        let findings = Findings { look: look.clone(), charges, may_act: true };
        let decision = decide(&case(vec![wished()]), &findings, after(HOUR), &policies(), OURS);
        assert_eq!(decision.act, Act::Capture(0), "{look:?}");
    }
}

#[test]
fn a_canceled_intent_captures_nothing_and_cancels_only_what_no_copy_can_capture() {
    let authorized = || vec![charge(A, ChargeState::Authorized, 0)];
    let cancel = Act::CancelCharge(0, A.parse().unwrap());
    let mut fresh = wished();
    fresh.cancel_requested_at = Some(start());
    assert_eq!(read_charges(fresh, authorized(), after(HOUR)).act, cancel);
    let mut unknown = capturing(1, false);
    unknown.cancel_requested_at = Some(start());
    let waiting = read_charges(unknown.clone(), authorized(), after(MINUTE));
    assert_eq!(waiting.act, Act::Nothing, "a copy may still be accepted");
    assert_eq!(due(&only(waiting).intent, &policy()), Some(after(X)));
    assert_eq!(decided(unknown.clone(), Look::NotAsked, after(X)).act, Act::Nothing, "and nothing without a look");
    let resolved = read_charges(unknown, authorized(), after(X));
    assert_eq!(resolved.act, cancel);
    assert_eq!(captured(&only(resolved).intent).number, Number::fresh(1));
}

#[test]
fn the_answers_to_a_first_capture() {
    let now = after(MINUTE);
    let answer = |state| as_answer(charge(A, state, 0));
    let draft = settled(capturing(1, false), &answer(ChargeState::Captured), now);
    assert_eq!(
        (draft.intent.stage().name(), captured(&draft.intent).number.status),
        ("captured", NumberStatus::Answered)
    );
    let draft = settled(capturing(1, false), &answer(ChargeState::CaptureInitiated), now);
    assert_eq!(
        (draft.intent.stage().name(), captured(&draft.intent).number.status),
        ("pending", NumberStatus::Answered)
    );
    let draft = settled(capturing(1, false), &declined_as_answer("SoftDeclined"), now);
    assert_eq!(end(&draft), ("SoftDeclined", Outcome::Verified));
    for unclear in
        [answer(ChargeState::Authorized), as_answer(charge("C01-0000000-0000001-C000009", ChargeState::Captured, 0))]
    {
        let draft = settled(capturing(1, false), &unclear, now);
        assert_eq!(
            (draft.intent.stage().name(), draft.intent.is_capture_unknown()),
            ("authorized", true),
            "{unclear:?}"
        );
    }
    for decline in [Decline::SoftDeclined, Decline::HardDeclined, Decline::TransactionTimedOut, Decline::AmazonRejected]
    {
        let draft = settled(capturing(1, false), &Verdict::Declined(decline), now);
        assert_eq!(end(&draft), (decline.as_str(), Outcome::Verified));
        assert_eq!(kinds(&draft), ["charge.declined", "charge.abandoned"]);
        assert_eq!(draft.intent.number.value, 0, "and no new charge");
    }
    let draft = settled(capturing(1, false), &Verdict::Declined(Decline::ProcessingFailure), now);
    assert_eq!((planned_at(&draft), draft.intent.is_capture_unknown()), (Some(after(X)), true), "a 500 is confirmed");
    let draft = settled(capturing(1, false), &Verdict::DuplicateKey, now);
    assert_eq!((draft.intent.stage().name(), draft.intent.is_capture_unknown()), ("held", true));
    let draft = settled(capturing(1, false), &Verdict::AccountFault("UnauthorizedAccess".to_owned()), now);
    assert_eq!(
        (planned_at(&draft), draft.intent.is_capture_unknown()),
        (Some(now), true),
        "due, and waits for the probe"
    );
    assert!(draft.alerts.is_empty(), "the loop tells of the account, once");
    let again = settled(
        ChargeIntent { capture: capturing(2, false).capture, ..draft.intent },
        &Verdict::AccountFault("UnauthorizedAccess".to_owned()),
        now,
    );
    assert_eq!(
        (planned_at(&again), alerts(&again.alerts)),
        (Some(after(61 * MINUTE)), vec!["charge_refused".to_owned()])
    );
    let draft = settled(capturing(1, false), &silence(), now);
    assert!(draft.intent.is_capture_unknown() && planned_at(&draft) > Some(now));
}

fn declined_as_answer(reason: &str) -> Verdict {
    as_answer(declined_charge(A, reason, 0))
}

#[test]
fn a_refusal_of_a_first_capture_gives_the_wish_up_or_asks_get_charge() {
    for code in ["TransactionAmountExceeded", "TransactionCountExceeded", "InvalidRequest", "ResourceNotFound"] {
        let draft = settled(capturing(1, false), &refusal(code), after(MINUTE));
        let capture = captured(&draft.intent);
        assert_eq!(
            (draft.intent.stage().name(), &capture.wish, &capture.cleared),
            ("authorized", &None, &Some(wish(5)))
        );
        assert_eq!(capture.number, Number::fresh(1));
        assert_eq!(
            (kinds(&draft), alerts(&draft.alerts)),
            (vec!["charge.declined"], vec!["capture_refused".to_owned()])
        );
    }
    let mut intent = capturing(1, false);
    for tries in 1..=3_u32 {
        let draft = settled(intent, &refusal("InvalidChargeStatus"), after(MINUTE));
        assert_eq!(captured(&draft.intent).number, Number::fresh(tries));
        assert_eq!(draft.intent.progress.look_at, Some(after(MINUTE)), "Get Charge decides, now");
        assert_eq!(planned_at(&draft), Some(after(HOUR + MINUTE)), "and if it contradicts, later");
        intent = draft.intent;
        let number = &mut intent.capture.as_mut().unwrap().number;
        *number = Number { value: tries, ..marked(1, start(), false).number };
    }
    let draft = settled(intent, &refusal("InvalidChargeStatus"), after(MINUTE));
    assert_eq!((&captured(&draft.intent).wish, alerts(&draft.alerts)), (&None, vec!["capture_refused".to_owned()]));
}

#[test]
fn a_charge_that_was_authorised_and_is_declined_ends_its_intent_and_a_pending_one_goes_to_its_row() {
    let draft = only(read_charges(wished(), vec![declined_charge(A, "SoftDeclined", 0)], after(HOUR)));
    assert_eq!(end(&draft), ("SoftDeclined", Outcome::Verified));
    let mut pending = wished();
    pending.capture = None;
    pending.progress.authorized_at = None;
    pending.progress.stage = Stage::Pending { charge: A.parse().unwrap(), since: start(), alerted: false };
    let draft = only(read_charges(pending.clone(), vec![declined_charge(A, "SoftDeclined", 0)], after(HOUR)));
    assert_eq!((planned(&draft).1, draft.intent.number.value), (Why::Attempt, 1));
    pending.progress.authorized_at = Some(start());
    let draft = only(read_charges(pending, vec![declined_charge(A, "SoftDeclined", 0)], after(HOUR)));
    assert_eq!(end(&draft), ("SoftDeclined", Outcome::Verified), "its capture was pending");
}

#[test]
fn news_of_a_charge_that_is_lost_waits_for_the_copies_that_are_out() {
    let canceled = ChargeView { reason: Some("ExpiredUnused".to_owned()), ..charge(A, ChargeState::Canceled, 0) };
    for view in [declined_charge(A, "HardDeclined", 0), canceled] {
        let draft = only(read_charges(capturing(2, true), vec![view.clone()], after(MINUTE)));
        assert_eq!(draft.intent.stage().name(), "authorized", "{view:?}");
        assert_eq!(due(&draft.intent, &policy()), Some(after(X)));
        let draft = only(read_charges(capturing(2, true), vec![view.clone()], after(X)));
        assert_eq!(end(&draft), (view.reason.as_deref().unwrap(), Outcome::Verified));
    }
}

#[test]
fn an_authorisation_is_looked_at_when_it_is_announced_and_when_it_is_over() {
    let mut intent = wished();
    intent.capture = None;
    let seen = |intent: &ChargeIntent, now| {
        only(read_charges(intent.clone(), vec![charge(A, ChargeState::Authorized, 0)], now))
    };
    assert_eq!(expires_at(&intent), Some(after(30 * DAY)), "30 days, where Amazon does not say");
    let early = seen(&intent, after(24 * DAY + 12 * HOUR));
    assert_eq!((kinds(&early), early.intent.progress.look_at), (vec![], Some(after(25 * DAY))));
    let warned = seen(&intent, after(25 * DAY));
    assert_eq!(kinds(&warned), ["charge.expiring"]);
    assert_eq!(kinds(&seen(&warned.intent, after(26 * DAY))), Vec::<&str>::new(), "once");
    let late = seen(&warned.intent, after(29 * DAY + 12 * HOUR));
    assert_eq!(late.intent.progress.look_at, Some(after(30 * DAY + HOUR)));
    let over = seen(&intent, after(30 * DAY + HOUR));
    assert_eq!((kinds(&over), over.intent.progress.look_at), (vec![], Some(after(30 * DAY + 2 * HOUR))));
    let overdue = seen(&intent, after(37 * DAY));
    assert_eq!((overdue.intent.stage().name(), alerts(&overdue.alerts).len()), ("held", 0));
    let decision = read_charges(intent.clone(), vec![charge(A, ChargeState::Authorized, 0)], after(37 * DAY));
    assert_eq!(alerts(&decision.events), ["charge_held"]);
    let mut said = charge(A, ChargeState::Authorized, 0);
    said.expires_at = Some(after(10 * DAY));
    let known = only(read_charges(intent, vec![said], after(DAY)));
    assert_eq!(expires_at(&known.intent), Some(after(10 * DAY)), "what Amazon says counts");
}

#[test]
fn a_second_charge_whose_capture_runs_is_followed_and_told() {
    let mut pending = intent();
    pending.number.status = NumberStatus::Answered;
    pending.progress.charge = Some(A.parse().unwrap());
    pending.progress.stage = Stage::Pending { charge: A.parse().unwrap(), since: start(), alerted: false };
    let other = "C01-0000000-0000001-C000002";
    let decision = read_charges(pending, vec![charge(other, ChargeState::CaptureInitiated, 0)], after(HOUR));
    assert_eq!(alerts(&decision.events), ["duplicate_charge"]);
    let followed = only(decision).intent;
    assert!(matches!(followed.stage(), Stage::Pending { charge, .. } if charge.as_str() == other));
    let draft = only(read_charges(followed, vec![declined_charge(A, "SoftDeclined", 0)], after(2 * HOUR)));
    assert_eq!(draft.intent.stage().name(), "pending", "the first one's decline makes no new number meanwhile");
}

/// An authorised intent whose capture was just marked.
fn just_marked() -> impl Strategy<Value = ChargeIntent> {
    (arbitrary_intent().boxed(), 1_u32..5, any::<bool>(), time()).prop_map(|(mut intent, sends, tainted, last)| {
        intent.progress.stage = Stage::Authorized { charge: A.parse().unwrap(), expires_at: None };
        intent.request.capture_now = false;
        intent.number.status = NumberStatus::Answered;
        intent.number.tainted = false;
        let number = marked(sends, last, tainted).number;
        intent.capture = Some(CaptureIntent { wish: Some(wish(5)), requested_at: Some(last), number, cleared: None });
        intent
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn settling_a_capture_is_total_deterministic_and_advances_only_on_a_final_answer(
        intent in just_marked(),
        verdict in verdict(),
        now in time(),
    ) {
        let draft = settled(intent.clone(), &verdict, now);
        prop_assert_eq!(&draft, &settled(intent.clone(), &verdict, now));
        // Unless the charge turns out to be of another number, and to have come to nothing.
        let number_of = |view: &ChargeView| view.tag.as_ref().map(|tag| tag.number);
        let other = matches!(&verdict, Verdict::Charge(view) if number_of(view).is_some_and(|n| n != intent.number.value));
        prop_assert!(other || draft.intent.number == intent.number, "the numbers of Create Charge are others");
        let (before, after) = (&captured(&intent).number, &captured(&draft.intent).number);
        let advanced = after.value > before.value;
        prop_assert!((before.value..=before.value + 1).contains(&after.value));
        prop_assert_eq!(advanced, after.status == NumberStatus::Fresh);
        let doubtful = before.sends > 1 || before.tainted;
        let ended = draft.intent.stage().is_terminal();
        match &verdict {
            Verdict::Ambiguous { .. } | Verdict::AccountFault(_) | Verdict::DuplicateKey => {
                prop_assert!(!advanced && after.status == NumberStatus::Unknown && !ended);
            }
            Verdict::Refused(_) => prop_assert_eq!(advanced, !doubtful),
            Verdict::Declined(decline) => {
                let answered = intent.progress.capture_plan.as_ref().is_some_and(|plan| plan.failure_answered);
                let wait = before.tainted || (*decline == Decline::ProcessingFailure && !answered);
                prop_assert_eq!(after.status == NumberStatus::Unknown, wait);
                prop_assert!(!wait || !ended, "a tainted decline never ends");
            }
            Verdict::Charge(view) => prop_assert!((!advanced || other) && (view.id.as_str() == A || !ended)),
        }
        let wish_is_kept = captured(&draft.intent).wish.is_some() || captured(&draft.intent).cleared == Some(wish(5));
        prop_assert!(wish_is_kept, "what is removed is named");
        if !ended && !matches!(draft.intent.stage(), Stage::Held { .. }) {
            prop_assert!(due(&draft.intent, &policy()).is_some());
        }
    }

    #[test]
    fn a_capture_is_sent_only_of_a_charge_that_was_just_seen_authorised((case, findings, now) in situation().boxed()) {
        let decision = decide(&case, &findings, now, &policies(), OURS);
        if let Act::Capture(index) = decision.act {
            let intent = &decision.drafts[index].intent;
            let Stage::Authorized { charge, .. } = intent.stage() else { panic!("{:?}", intent.stage()) };
            let seen = findings.charges.iter().any(|(id, look)| {
                id == charge && matches!(look, ChargeLook::Seen(view) if view.state == ChargeState::Authorized)
            });
            prop_assert!(seen && intent.cancel_requested_at.is_none() && intent.capture_wish().is_some());
        }
    }

    #[test]
    fn a_decision_gives_no_unknown_capture_a_successor_unless_it_was_canceled_and_no_copy_is_out((case, findings, now) in situation().boxed()) {
        let decision = decide(&case, &findings, now, &policies(), OURS);
        for (before, draft) in case.intents.iter().zip(&decision.drafts) {
            let (Some(before_capture), Some(after)) = (&before.capture, &draft.intent.capture) else { continue };
            if before.is_capture_unknown() && after.number.value > before_capture.number.value {
                let copies_until = before_capture.number.last_mark.map(|mark| later(mark, X));
                let canceled = before.cancel_requested_at.is_some() && copies_until.is_none_or(|until| until <= now);
                // Or the charge itself came to nothing and another number of Create Charge is asked about.
                prop_assert!(canceled || after.wish.is_none(), "{before:?}");
            }
        }
    }
}
