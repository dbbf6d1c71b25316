//! What holds for every input, however odd.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::model::capture::{CaptureIntent, CapturePlan, CaptureWish};
use crate::model::charge_intent::{Number, NumberStatus, Trigger};
use crate::model::closing::{CloseWish, Closing};
use crate::model::money::Money;
use crate::model::permission::PermissionView;
use crate::recovery::draft::testing::{digest, intent};
use crate::recovery::due::due;

/// Mostly around the life of the intents, sometimes at the ends of time.
pub(super) fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        20 => (-60_i64..4000).prop_map(|hours| start() + jiff::SignedDuration::from_hours(hours)),
        4 => (-120_i64..120).prop_map(|minutes| start() + jiff::SignedDuration::from_mins(minutes)),
        1 => select(vec![Timestamp::MIN, Timestamp::MAX, Timestamp::UNIX_EPOCH]),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    select(vec![Outcome::Verified, Outcome::Unverified])
}

fn charge_id() -> impl Strategy<Value = crate::model::ids::ChargeId> {
    (1_u32..5).prop_map(|n| format!("C01-0000000-0000001-C00000{n}").parse().unwrap())
}

fn why() -> impl Strategy<Value = Why> {
    select(vec![Why::Attempt, Why::Repeat, Why::Confirmation, Why::Closing])
}

fn card() -> impl Strategy<Value = Option<crate::model::permission::InstrumentDigest>> {
    option::of(select(vec![digest("Visa ****1111"), digest("Visa ****2222")]))
}

fn park() -> impl Strategy<Value = Park> {
    prop_oneof![
        3 => (card(), any::<bool>(), option::of(time())).prop_map(|(baseline, non_chargeable_seen, echo_look_at)| {
            Park::Instrument { baseline, non_chargeable_seen, echo_look_at }
        }),
        1 => Just(Park::Attention),
    ]
}

fn stage() -> impl Strategy<Value = Stage> {
    prop_oneof![
        6 => (time(), why()).prop_map(|(at, why)| Stage::Scheduled { at, why }),
        4 => (time(), park()).prop_map(|(since, park)| Stage::Parked { since, park }),
        2 => (charge_id(), time(), any::<bool>()).prop_map(|(charge, since, alerted)| Stage::Pending { charge, since, alerted }),
        2 => (charge_id(), option::of(time())).prop_map(|(charge, expires_at)| Stage::Authorized { charge, expires_at }),
        1 => Just(Stage::Held { reason: "because".to_owned() }),
        1 => (charge_id(), time()).prop_map(|(charge, at)| Stage::Captured { charge, at }),
        1 => (time(), outcome()).prop_map(|(at, outcome)| Stage::Canceled { at, outcome }),
        1 => (time(), outcome()).prop_map(|(at, outcome)| Stage::Abandoned { at, outcome, reason: "x".to_owned() }),
    ]
}

fn number() -> impl Strategy<Value = Number> {
    let used = (0_u32..9, 1_u32..9, time(), time(), any::<bool>(), card(), any::<bool>()).prop_map(
        |(value, sends, first, last, tainted, instrument, answered)| Number {
            value,
            status: if answered { NumberStatus::Answered } else { NumberStatus::Unknown },
            sends,
            first_mark: Some(first.min(last)),
            last_mark: Some(first.max(last)),
            tainted,
            instrument,
        },
    );
    prop_oneof![(0_u32..9).prop_map(Number::fresh), used]
}

fn capture() -> impl Strategy<Value = CaptureIntent> {
    let wish = (1_u32..15).prop_map(|units| CaptureWish {
        capture_amount: Money::parse(&units.to_string(), "USD".parse().unwrap()).unwrap(),
        soft_descriptor: None,
    });
    (option::of(wish), option::of(time()), number()).prop_map(|(wish, requested_at, number)| CaptureIntent {
        wish,
        requested_at,
        number,
        cleared: None,
    })
}

fn capture_plan() -> impl Strategy<Value = CapturePlan> {
    (time(), 0_u32..6, any::<u32>(), any::<bool>()).prop_map(|(at, conflicts, failed_looks, failure_answered)| {
        CapturePlan { at, conflicts, failed_looks, failure_answered }
    })
}

prop_compose! {
    pub(super) fn arbitrary_intent()(
        capture in option::of(capture()).boxed(),
        capture_plan in option::of(capture_plan()).boxed(),
        (capture_now, expiring_told) in any::<(bool, bool)>(),
        authorized_at in option::of(time()),
        stage in stage().boxed(),
        number in number().boxed(),
        attempts in 0_u32..5,
        window_from in time(),
        cancel_requested_at in option::weighted(0.2, time()),
        stood_still_ms in prop_oneof![8 => Just(0), 2 => 0_i64..9_000_000_000, 1 => any::<i64>()],
        charge in option::of(charge_id()),
        declined_charge in option::of(charge_id()),
        (month_parks, conflicts) in (0_u32..4, 0_u32..5),
        month_turn in option::of(time()),
        released_by_notification_at in option::of(time()),
        closing_since in option::weighted(0.2, time()),
        look_at in option::of(time()),
        policy in option::weighted(0.2, select(vec!["default", "gone"])),
        policy_missed in any::<bool>(),
    ) -> ChargeIntent {
        let mut intent = intent();
        intent.policy = policy.map(|name| name.parse().unwrap());
        intent.progress.policy_missed = policy_missed;
        intent.number = number;
        intent.cancel_requested_at = cancel_requested_at;
        intent.progress.stage = stage;
        intent.progress.attempts = attempts;
        intent.progress.window_from = window_from;
        intent.progress.stood_still_ms = stood_still_ms;
        intent.progress.trigger = Trigger::Schedule;
        intent.progress.charge = charge;
        intent.progress.declined_charge = declined_charge;
        intent.progress.month_parks = month_parks;
        intent.progress.conflicts = conflicts;
        intent.progress.month_turn = month_turn;
        intent.progress.released_by_notification_at = released_by_notification_at;
        intent.progress.closing_since = closing_since;
        intent.progress.look_at = look_at;
        intent.capture = capture;
        intent.request.capture_now = capture_now;
        intent.progress.capture_plan = capture_plan;
        intent.progress.authorized_at = authorized_at;
        intent.progress.expiring_told = expiring_told;
        intent
    }
}

fn balance() -> impl Strategy<Value = Option<Money>> {
    option::weighted(
        0.3,
        (0_u32..30).prop_map(|units| Money::parse_balance(&units.to_string(), "USD".parse().unwrap()).unwrap()),
    )
}

fn permission_view() -> impl Strategy<Value = PermissionView> {
    let state = prop_oneof![
        6 => Just(PermissionState::Chargeable),
        3 => Just(PermissionState::NonChargeable),
        1 => Just(PermissionState::Closed),
        1 => Just(PermissionState::Other("Napping".to_owned())),
    ];
    let reasons = vec(select(vec!["ChargeInProgress", "PaymentMethodInvalid", "Sunspots"]), 0..3);
    let environment = prop_oneof![8 => Just(Some(OURS)), 1 => Just(Some(Environment::Live)), 1 => Just(None)];
    (state, reasons, environment, balance(), balance(), card()).prop_map(
        |(state, reasons, release_environment, amount_limit, amount_balance, instrument)| PermissionView {
            release_environment,
            amount_limit,
            amount_balance,
            instrument,
            ..view(state, &reasons)
        },
    )
}

fn look() -> impl Strategy<Value = Look> {
    prop_oneof![
        8 => permission_view().prop_map(Look::Seen),
        1 => Just(Look::NotFound),
        1 => Just(Look::Failed),
        1 => Just(Look::AccountFault),
        1 => Just(Look::Refused),
        1 => Just(Look::NotAsked),
    ]
}

prop_compose! {
    fn charge_view()(
        id in charge_id(),
        state in select(vec![
            ChargeState::AuthorizationInitiated, ChargeState::Authorized, ChargeState::CaptureInitiated,
            ChargeState::Captured, ChargeState::Canceled, ChargeState::Declined, ChargeState::Other("Hovering".to_owned()),
        ]),
        reason in option::of(select(vec!["SoftDeclined", "HardDeclined", "AmazonRejected", "ProcessingFailure", "Sunspots"])),
        number in 0_u32..9,
        ours in prop::bool::weighted(0.9),
    ) -> ChargeView {
        let view = charge(id.as_str(), state, number);
        ChargeView { reason: reason.map(str::to_owned), tag: view.tag.clone().filter(|_| ours), ..view }
    }
}

fn charge_look() -> impl Strategy<Value = ChargeLook> {
    prop_oneof![6 => charge_view().prop_map(ChargeLook::Seen), 1 => Just(ChargeLook::Refused(404)), 1 => Just(ChargeLook::Failed), 1 => Just(ChargeLook::AccountFault)]
}

pub(super) fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        3 => charge_view().prop_map(as_answer),
        4 => select(Decline::ALL.to_vec()).prop_map(Verdict::Declined),
        4 => select(refusals()).prop_map(Verdict::Refused),
        1 => Just(Verdict::DuplicateKey),
        1 => Just(Verdict::AccountFault("UnauthorizedAccess".to_owned())),
        2 => option::of(select(vec![Duration::ZERO, HOUR, Duration::MAX]))
            .prop_map(|retry_after| Verdict::Ambiguous { why: "silence".to_owned(), retry_after }),
    ]
}

fn arbitrary_hint() -> impl Strategy<Value = Hint> {
    let kinds = vec![ObjectType::ChargePermission, ObjectType::Charge, ObjectType::Refund, ObjectType::Chargeback];
    (select(kinds), charge_id(), time(), prop_oneof![8 => 0_u32..6, 1 => Just(u32::MAX)], option::weighted(0.2, time()))
        .prop_map(|(kind, id, published, refusals, not_before)| {
            let mut hint = hint(kind, id.as_str(), published);
            hint.note.refusals = refusals;
            hint.note.not_before = not_before;
            hint
        })
}

/// Sometimes a wish to close, not tried yet, tried, parked, or with what is left of an earlier one.
fn wish() -> impl Strategy<Value = (Option<CloseWish>, Option<Closing>)> {
    let wish = time().prop_map(|asked_at| CloseWish { asked_at, reason: "moved".to_owned(), cancel_pending: true });
    let closing =
        (0_u32..9, time(), any::<bool>(), option::of(Just("InvalidParameterValue".to_owned())), any::<bool>());
    option::weighted(0.3, (wish, option::of(closing))).prop_map(|wished| {
        let Some((wish, closing)) = wished else { return (None, None) };
        let closing = closing.map(|(tries, next_at, alerted, parked, same)| Closing {
            asked_at: if same { wish.asked_at } else { Timestamp::UNIX_EPOCH },
            tries,
            next_at,
            alerted,
            parked,
        });
        (Some(wish), closing)
    })
}

prop_compose! {
    pub(super) fn situation()(
        intents in vec(arbitrary_intent().boxed(), 0..4).boxed(),
        look in look().boxed(),
        found in vec((charge_id(), charge_look()), 0..3).boxed(),
        hints in vec(arbitrary_hint(), 0..3).boxed(),
        closed in prop::bool::weighted(0.1),
        failed_looks in prop_oneof![Just(0), Just(u32::MAX)],
        close in wish(),
        look_asked in prop::bool::weighted(0.1),
        now in time(),
    ) -> (Case, Findings, Timestamp) {
        let mut case = case(intents);
        for (index, intent) in case.intents.iter_mut().enumerate().skip(1) {
            intent.id = format!("renewal-{}", index + 1).parse().unwrap();
        }
        case.hints = hints;
        case.closed = closed;
        case.look_asked = look_asked;
        (case.close, case.record.closing) = close;
        case.record.failed_looks = failed_looks;
        let charges = found.into_iter().map(|(id, look)| match look {
            ChargeLook::Seen(view) => (view.id.clone(), ChargeLook::Seen(view)),
            other => (id, other),
        }).collect();
        (case, Findings { look, charges, may_act: true }, now)
    }
}

/// An intent whose current number was just marked.
fn just_marked() -> impl Strategy<Value = ChargeIntent> {
    (arbitrary_intent(), 1_u32..5, any::<bool>(), time()).prop_map(|(mut intent, sends, tainted, last)| {
        intent.progress.stage = Stage::Scheduled { at: last, why: Why::Attempt };
        intent.number = Number { value: intent.number.value, tainted, ..marked(sends, last, tainted).number };
        intent
    })
}

fn may_follow(before: &Stage, after: &Stage) -> bool {
    !before.is_terminal()
        || before == after
        || (before.outcome() == Some(Outcome::Unverified) && matches!(after, Stage::Captured { .. }))
}

fn terminal_events(drafts: &[Draft]) -> usize {
    let terminal = ["amazonpay.charge.captured.v1", "amazonpay.charge.canceled.v1", "amazonpay.charge.abandoned.v1"];
    drafts.iter().flat_map(|draft| &draft.events).filter(|event| terminal.contains(&event.kind)).count()
}

fn check_new_number(case: &Case, findings: &Findings, decision: &Decision, index: usize, now: Timestamp) {
    let (before, after) = (&case.intents[index], &decision.drafts[index].intent);
    let Look::Seen(view) = &findings.look else { panic!("a new number without a look: {:?}", findings.look) };
    assert_eq!((&view.state, view.release_environment), (&PermissionState::Chargeable, Some(OURS)));
    let amount = after.request.charge_amount;
    assert!(view.amount_balance.is_none_or(|balance| !amount.exceeds(&balance)));
    assert!(view.amount_limit.is_none_or(|limit| !amount.exceeds(&limit)));
    assert!(!case.closed && before.cancel_requested_at.is_none());
    assert!(!before.stage().is_terminal() && !matches!(before.stage(), Stage::Held { .. }));
    assert!(after.progress.attempts < policy().max_attempts && now < policy().window_end(after));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decide_is_total_and_deterministic((case, findings, now) in situation()) {
        let first = decide(&case, &findings, now, &policies(), OURS);
        let second = decide(&case, &findings, now, &policies(), OURS);
        prop_assert_eq!(format!("{first:?}"), format!("{second:?}"));
        prop_assert_eq!(first.hints.len(), case.hints.len());
        prop_assert_eq!(first.drafts.len(), case.intents.len());
    }

    #[test]
    fn a_new_number_is_wanted_only_after_a_look_that_allows_it((case, findings, now) in situation()) {
        let decision = decide(&case, &findings, now, &policies(), OURS);
        if let Act::Send(index) = decision.act && !decision.drafts[index].intent.next_send_repeats() {
            check_new_number(&case, &findings, &decision, index, now);
        }
        if matches!(findings.look, Look::AccountFault | Look::Refused) {
            prop_assert_eq!(decision.act, Act::Nothing);
        }
    }

    #[test]
    fn nothing_is_sent_while_a_closing_is_wished_for((case, findings, now) in situation()) {
        let decision = decide(&case, &findings, now, &policies(), OURS);
        if case.close.is_some() && !case.closed {
            let repeats_after_closed = |index: usize| decision.closed && decision.drafts[index].intent.next_send_repeats();
            prop_assert!(!matches!(decision.act, Act::Send(index) if !repeats_after_closed(index)), "{:?}", decision.act);
        }
        if decision.act == Act::ClosePermission {
            prop_assert!(case.close.is_some() && !decision.closed);
            prop_assert!(findings.look.view().is_none_or(|view| view.release_environment != Some(Environment::Live)));
            prop_assert!(decision.record.closing.as_ref().unwrap().next_at > now || now == Timestamp::MAX);
        }
        // Whoever is held back by the wish is not due before it is tried again.
        if case.close.is_some() && !decision.closed && decision.act == Act::Nothing && !matches!(findings.look, Look::AccountFault | Look::Refused | Look::Failed | Look::NotAsked) {
            for draft in decision.drafts.iter().filter(|draft| matches!(draft.intent.stage(), Stage::Scheduled { .. } | Stage::Parked { .. })) {
                prop_assert!(due(&draft.intent, &policy()).is_none_or(|at| at > now || now == Timestamp::MAX), "{:?}", draft.intent.progress);
            }
        }
    }

    #[test]
    fn a_decision_reopens_nothing_skips_no_number_and_leaves_nothing_without_a_due_time((case, findings, now) in situation()) {
        let decision = decide(&case, &findings, now, &policies(), OURS);
        for (before, draft) in case.intents.iter().zip(&decision.drafts) {
            let after = &draft.intent;
            prop_assert!(may_follow(before.stage(), after.stage()), "{:?} -> {:?}", before.stage(), after.stage());
            prop_assert!((before.number.value..=before.number.value + 1).contains(&after.number.value));
            prop_assert!(after.progress.attempts <= policy().max_attempts);
            if before.number.status == NumberStatus::Unknown && after.number.value > before.number.value {
                prop_assert!(
                    matches!(before.stage(), Stage::Pending { .. } | Stage::Authorized { .. } | Stage::Held { .. }),
                    "an unknown number got a successor although no charge of its own was followed"
                );
            }
            if !after.stage().is_terminal() && !matches!(after.stage(), Stage::Held { .. }) {
                prop_assert!(due(after, &policy()).is_some(), "{:?} is never looked at again", after.stage());
            }
            if after.stage().is_terminal() && !before.stage().is_terminal() && after.number.status == NumberStatus::Unknown
                && !matches!(after.stage(), Stage::Captured { .. })
            {
                prop_assert_eq!(after.stage().outcome(), Some(Outcome::Unverified));
            }
        }
    }

    #[test]
    fn a_decision_made_twice_tells_of_each_end_once((case, findings, now) in situation()) {
        let first = decide(&case, &findings, now, &policies(), OURS);
        let ended = first.drafts.iter().filter(|draft| draft.intent.stage().is_terminal()).count();
        let after = Case {
            closed: first.closed,
            record: first.record.clone(),
            intents: first.drafts.iter().map(|draft| draft.intent.clone()).collect(),
            ..case
        };
        let mut second = decide(&after, &findings, now, &policies(), OURS);
        second.drafts.retain(|draft| after.intents.iter().any(|intent| {
            // An unverified end may still become captured, by a charge that was held back by another one the first time.
            intent.id == draft.intent.id && intent.stage().is_terminal() && intent.stage().outcome() != Some(Outcome::Unverified)
        }));
        prop_assert!(terminal_events(&first.drafts) <= ended);
        prop_assert_eq!(terminal_events(&second.drafts), 0);
    }

    #[test]
    fn settle_is_total_deterministic_and_advances_only_on_a_final_answer(
        intent in just_marked(),
        verdict in verdict(),
        now in time(),
    ) {
        let draft = answered(intent.clone(), &verdict, now);
        prop_assert_eq!(&draft, &answered(intent.clone(), &verdict, now));
        let (before, after) = (&intent.number, &draft.intent.number);
        prop_assert!((before.value..=before.value + 1).contains(&after.value));
        prop_assert!(draft.intent.progress.attempts <= policy().max_attempts);
        let advanced = after.value > before.value;
        prop_assert_eq!(advanced, after.status == NumberStatus::Fresh);
        match &verdict {
            Verdict::Ambiguous { .. } | Verdict::AccountFault(_) | Verdict::DuplicateKey => prop_assert!(!advanced),
            Verdict::Refused(_) => prop_assert_eq!(advanced, before.sends == 1 && !before.tainted),
            Verdict::Declined(Decline::ProcessingFailure) => {
                prop_assert_eq!(advanced, intent.progress.failure_answered && !before.tainted);
            }
            Verdict::Declined(_) => prop_assert_eq!(advanced, !before.tainted),
            Verdict::Charge(view) => prop_assert!(!advanced || view.state == ChargeState::Declined),
        }
        if !draft.intent.stage().is_terminal() && !matches!(draft.intent.stage(), Stage::Held { .. }) {
            prop_assert!(due(&draft.intent, &policy()).is_some());
        }
    }
}
