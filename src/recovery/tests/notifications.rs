//! What happens to a charge hangs on what is true at Amazon, not on its notifications: whatever of them comes, when, how often and in
//! which order, or none at all, the end is the same.

use proptest::collection::vec;
use proptest::prelude::*;

use super::properties::situation;
use super::*;
use crate::model::charge_intent::Trigger;
use crate::recovery::case::HintFate;
use crate::recovery::draft::testing::{digest, intent};
use crate::recovery::due::due;
use crate::recovery::plan::{MAX_CHARGE_LOOKS, plan};

/// What happens at Amazon: when the buyer replaces the card that was declined, and when the permission is closed.
#[derive(Debug, Clone, Copy)]
struct History {
    mended: Timestamp,
    closed: Option<Timestamp>,
}

impl History {
    fn look(&self, now: Timestamp) -> Look {
        let closed = self.closed.is_some_and(|at| at <= now);
        let mut seen = match (closed, self.mended <= now) {
            (true, _) => view(PermissionState::Closed, &["BuyerCanceled"]),
            (false, true) => view(PermissionState::Chargeable, &[]),
            (false, false) => view(PermissionState::NonChargeable, &["PaymentMethodInvalid"]),
        };
        seen.instrument = Some(digest(if self.mended <= now { "the new card" } else { "the old card" }));
        Look::Seen(seen)
    }
}

/// The charge was declined for good at the start; lets it go on until it has ended. Returns it with the number of sends.
fn run(history: History, notifications: &[Timestamp]) -> (ChargeIntent, usize) {
    let mut arrivals = notifications.to_vec();
    arrivals.sort();
    let declined = Verdict::Declined(Decline::HardDeclined);
    let mut draft = answered_and_looked(sent(), &declined, history.look(start()), start());
    let mut record = PermissionRecord::default();
    let (mut closed, mut sends, mut hints) = (false, 0, Vec::new());
    for _ in 0..500 {
        let planned = due(&draft.intent, &policy());
        let Some(now) = [planned, arrivals.first().copied()].into_iter().flatten().min() else { break };
        if arrivals.first().is_some_and(|at| *at <= now) {
            hints = vec![heard(arrivals.remove(0))];
        }
        let case = Case { closed, record, hints, ..case(vec![draft.intent.clone()]) };
        let look = if plan(&case, now).permission { history.look(now) } else { Look::NotAsked };
        let findings = Findings { look, charges: Vec::new(), may_act: true };
        let mut decision = decide(&case, &findings, now, &policies(), OURS);
        if let Act::Send(index) = decision.act {
            sends += 1;
            let number = &mut decision.drafts[index].intent.number;
            (number.sends, number.first_mark, number.last_mark) = (1, Some(now), Some(now));
            let charge = charge("C01-0000000-0000001-C000009", ChargeState::Captured, number.value);
            settle(&mut decision.drafts[index], &as_answer(charge), now, &policy());
        }
        (closed, record) = (decision.closed, decision.record.clone());
        hints = case
            .hints
            .into_iter()
            .zip(&decision.hints)
            .filter(|(_, fate)| **fate == HintFate::Keep)
            .map(|(hint, _)| hint)
            .collect();
        draft = Draft::new(only(decision).intent);
        if draft.intent.stage().is_terminal() {
            break;
        }
    }
    (draft.intent, sends)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_notifications_come_or_are_lost_the_end_is_the_same(
        mended in 1_u64..20 * 24 * 60,
        // Not within the day that the sweep may take.
        closed in prop::option::of(prop_oneof![(26_u64 * 60..5 * 24 * 60).prop_map(Ok), (26_u64 * 60..5 * 24 * 60).prop_map(Err)]),
        notifications in vec(0_u64..35 * 24 * 60, 0..12),
    ) {
        let mended = mended + 6 * 24 * 60;
        let history = History {
            mended: after(Duration::from_mins(mended)),
            closed: closed.map(|gap| after(Duration::from_mins(match gap { Ok(later) => mended + later, Err(sooner) => mended - sooner }))),
        };
        let notifications: Vec<_> = notifications.into_iter().map(|at| after(Duration::from_mins(at))).collect();
        let (ended, sends) = run(history, &notifications);
        if history.closed.is_some_and(|at| at < history.mended) {
            let abandoned = matches!(ended.stage(), Stage::Abandoned { reason, .. } if reason == "charge_permission_closed");
            prop_assert!(abandoned && sends == 0, "{:?}", ended.stage());
        } else {
            let captured = matches!(ended.stage(), Stage::Captured { .. });
            prop_assert!(captured && sends == 1 && ended.progress.trigger == Trigger::InstrumentUpdate, "{:?}", ended.stage());
        }
    }

    #[test]
    fn the_order_of_notifications_that_wait_does_not_matter((case, findings, now) in situation(), turn in 0_usize..3) {
        prop_assume!(plan(&case, now).charges.len() < MAX_CHARGE_LOOKS);
        let mut turned = case.clone();
        let turn = turn.min(turned.hints.len());
        turned.hints.rotate_left(turn);
        turned.hints.reverse();
        let before = decide(&case, &findings, now, &policies(), OURS);
        let after = decide(&turned, &findings, now, &policies(), OURS);
        prop_assert_eq!(&before.drafts, &after.drafts);
        prop_assert_eq!((&before.record, before.closed, &before.act, before.not_before), (&after.record, after.closed, &after.act, after.not_before));
        let mut fates = after.hints.clone();
        fates.reverse();
        fates.rotate_right(turn);
        prop_assert_eq!(before.hints, fates);
    }
}

#[test]
fn a_charge_that_is_declined_for_good_is_captured_once_the_card_is_replaced_with_no_notification_at_all() {
    let history = History { mended: after(3 * DAY), closed: None };
    let (ended, sends) = run(history, &[]);
    assert_eq!((ended.stage().name(), sends), ("captured", 1));
    assert_eq!(intent().id, ended.id);
}
