//! What a reconciliation may call, and who goes first.

use proptest::prelude::*;

use super::properties::situation;
use super::*;
use crate::model::charge_intent::Trigger;
use crate::model::closing::CloseWish;
use crate::model::quota::{Class, Needs, Operation};
use crate::recovery::draft::testing::intent;
use crate::recovery::plan::plan;
use crate::recovery::quota::{class, covers, needs, planned_anew_at};

fn needs_of(case: &Case, now: Timestamp) -> Needs {
    needs(case, &plan(case, now), now)
}

fn class_of(case: &Case) -> Class {
    class(case, &plan(case, after(MINUTE)), after(MINUTE))
}

fn parked() -> ChargeIntent {
    let draft = answered(sent(), &Verdict::Declined(Decline::HardDeclined), start());
    let mut intent = draft.intent;
    intent.progress.look_at = Some(after(HOUR));
    intent
}

#[test]
fn an_attempt_needs_a_look_a_send_and_the_look_after_a_decline() {
    let attempt = Needs::NONE.with(Operation::CreateCharge, 1).with(Operation::GetChargePermission, 2);
    assert_eq!(needs_of(&case(vec![intent()]), start()), attempt);
    let mut repeat = sent();
    repeat.progress.stage = Stage::Scheduled { at: start(), why: Why::Repeat };
    assert_eq!(needs_of(&case(vec![repeat]), start()), attempt, "a repeat is planned with a look");
    let mut heard_of = case(Vec::new());
    heard_of.hints = vec![heard(start())];
    assert_eq!(needs_of(&heard_of, start()), Needs::NONE.with(Operation::GetChargePermission, 1));
    assert!(needs_of(&case(vec![parked()]), start()).is_empty(), "nothing is due, nothing is called");
}

#[test]
fn persons_go_before_unknown_numbers_before_attempts_before_looks() {
    assert_eq!(class_of(&case(vec![intent()])), Class::Attempt);
    let mut unknown = sent();
    unknown.progress.stage = Stage::Scheduled { at: start(), why: Why::Confirmation };
    assert_eq!(class_of(&case(vec![intent(), unknown.clone()])), Class::Unknown);
    unknown.cancel_requested_at = Some(start());
    assert_eq!(class_of(&case(vec![unknown])), Class::Urgent, "the caller cancels");

    let mut told = case(vec![parked()]);
    told.hints = vec![heard(start())];
    assert_eq!(class_of(&told), Class::Urgent, "the buyer may have updated the instrument");
    told.intents = vec![intent()];
    assert_eq!(class_of(&told), Class::Attempt, "nothing is parked: it may be the echo of our own charge");
    for trigger in [Trigger::InstrumentUpdate, Trigger::Operator] {
        let mut asked = intent();
        asked.progress.trigger = trigger;
        assert_eq!(class_of(&case(vec![asked])), Class::Urgent, "{trigger:?}");
    }

    let mut swept = parked();
    swept.progress.look_at = Some(start());
    assert_eq!(class_of(&case(vec![swept])), Class::Sweep);
    let mut named = case(vec![parked()]);
    named.hints = vec![hint(ObjectType::Charge, "C01-0000000-0000001-C000001", start())];
    assert_eq!(class_of(&named), Class::Charges);
    let mut nothing_open = case(Vec::new());
    nothing_open.hints = vec![heard(start())];
    assert_eq!(class_of(&nothing_open), Class::Rest);
    let wish = CloseWish { asked_at: start(), reason: "moved".to_owned(), cancel_pending: false };
    let closing = Case { close: Some(wish), ..case(vec![intent()]) };
    assert_eq!(class_of(&closing), Class::Closing, "who waits for the few closings holds up nobody else");
}

#[test]
fn who_waits_is_planned_anew_when_something_else_is_due_and_within_hours() {
    let mut later_intent = intent();
    later_intent.progress.stage = Stage::Scheduled { at: after(HOUR), why: Why::Attempt };
    let both = case(vec![intent(), later_intent]);
    assert_eq!(planned_anew_at(&both, start(), &policies()), after(HOUR));
    let at = planned_anew_at(&case(vec![intent()]), start(), &policies());
    assert!(at >= after(3 * HOUR) && at <= after(6 * HOUR), "{at}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// The looks are those of the plan, and an act that was not reserved is not made; so what matters is that what was planned for is
    /// always reserved: then no work is put off for ever.
    #[test]
    fn a_reconciliation_never_calls_more_than_it_reserved_and_what_was_due_is_always_reserved((case, found, now) in situation()) {
        let plan = plan(&case, now);
        let reserved = needs(&case, &plan, now);
        let looks = found.charges.into_iter().map(|(_, look)| look);
        let charges: Vec<_> = plan.charges.iter().cloned().zip(looks.chain(std::iter::repeat(ChargeLook::Failed))).collect();
        let looked_at = charges.len();
        let look = if plan.permission { found.look } else { Look::NotAsked };
        let decision = decide(&case, &Findings { look, charges, may_act: true }, now, &policies(), OURS);

        let mut left = reserved;
        let mut takes = |operation, calls: usize| (0..calls).all(|_| left.take(operation));
        prop_assert!(takes(Operation::GetChargePermission, usize::from(plan.permission)));
        prop_assert!(takes(Operation::GetCharge, looked_at));
        if covers(&left, &decision.act) {
            match decision.act {
                Act::Nothing => {}
                Act::Send(_) => {
                    prop_assert!(left.take(Operation::CreateCharge) && left.take(Operation::GetChargePermission));
                }
                Act::CancelCharge(..) => prop_assert!(left.take(Operation::CancelCharge)),
                Act::Capture(_) => prop_assert!(left.take(Operation::CaptureCharge)),
                Act::ClosePermission => prop_assert!(
                    left.take(Operation::CloseChargePermission) && left.take(Operation::GetChargePermission)
                ),
            }
        } else {
            prop_assert!(looked_at > 0, "{:?} was due and not reserved: {reserved}", decision.act);
        }
        prop_assert!(reserved.total() <= 11, "eight calls are made, but one act of each kind is reserved: {reserved}");
    }
}
