//! Refunds and disputes: what is told, once, and when they are looked at again.

use super::*;
use crate::model::dispute::{DisputeState, DisputeView};
use crate::model::hint::ObjectLook;
use crate::model::money::Money;
use crate::model::permission::ObjectMemory;
use crate::model::refund::{RefundState, RefundView};
use crate::recovery::case::HintFate;
use crate::recovery::objects::{ObjectFindings, judge, remember_owners};
use crate::recovery::plan::{MAX_CHARGE_LOOKS, plan};

const REFUND: &str = "C01-0000000-0000001-R000001";
const DISPUTE: &str = "C01-0000000-0000001-B000001";
const CHARGE: &str = "C01-0000000-0000001-C000001";

fn refund(state: &str, reason: Option<&str>) -> ObjectLook<RefundView> {
    ObjectLook::Seen(RefundView {
        id: REFUND.parse().unwrap(),
        charge: Some(CHARGE.parse().unwrap()),
        state: RefundState::from(state),
        reason: reason.map(str::to_owned),
        amount: Some(Money::parse("4.00", "USD".parse().unwrap()).unwrap()),
        release_environment: Some(OURS),
    })
}

fn dispute_view(state: &str) -> DisputeView {
    DisputeView {
        id: DISPUTE.parse().unwrap(),
        charge: Some(CHARGE.parse().unwrap()),
        kind: Some("Chargeback".to_owned()),
        filing_reason: Some("Fraudulent".to_owned()),
        state: DisputeState::from(state),
        resolution: None,
        reason: None,
        amount: Some(Money::parse("14.00", "USD".parse().unwrap()).unwrap()),
        deadline: Some(after(11 * DAY)),
        release_environment: Some(OURS),
    }
}

/// A permission about which a refund or a dispute is heard, from look to look as the store keeps it.
struct Story {
    case: Case,
    looks: usize,
    told: Vec<(String, Value)>,
    swept: usize,
}

impl Story {
    fn about(object_type: ObjectType, object: &str) -> Self {
        let mut case = case(Vec::new());
        case.hints = vec![hint(object_type, object, start())];
        Self { case, looks: 0, told: Vec::new(), swept: 0 }
    }

    fn hear(&mut self, object_type: ObjectType, object: &str, now: Timestamp) {
        self.case.hints.retain(|hint| hint.object_type != object_type);
        self.case.hints.push(hint(object_type, object, now));
    }

    /// One reconciliation; gives the fate of the only hint.
    fn reconcile(&mut self, found: ObjectFindings, now: Timestamp) -> HintFate {
        let plan = plan(&self.case, now);
        let asked = |object: &str| {
            plan.refunds.iter().any(|id| id.as_str() == object) || plan.disputes.iter().any(|id| id.as_str() == object)
        };
        let (refunds, disputes) = (found.refunds, found.disputes);
        let found = ObjectFindings {
            refunds: refunds.into_iter().filter(|(id, _)| asked(id.as_str())).collect(),
            disputes: disputes.into_iter().filter(|(id, _)| asked(id.as_str())).collect(),
        };
        self.looks += found.refunds.len() + found.disputes.len();
        assert!(!plan.permission && plan.charges.is_empty(), "nothing else is asked for");
        let unasked = findings(Look::NotAsked);
        let mut decision = decide(&self.case, &unasked, now, &policies(), OURS);
        self.swept += judge(&self.case, &found, &unasked.look, &mut decision, now, OURS);
        let name = |event: &crate::model::event::Event| {
            event.kind.trim_start_matches("amazonpay.").trim_end_matches(".v1").to_owned()
        };
        self.told.extend(decision.events.iter().map(|event| (name(event), serde_json::from_str(&event.data).unwrap())));
        self.case.record = decision.record;
        let fate = decision.hints.first().cloned().unwrap_or(HintFate::Done);
        match &fate {
            HintFate::Done | HintFate::Quarantine(_) => self.case.hints.clear(),
            HintFate::Defer(note) => self.case.hints[0].note = note.clone(),
            HintFate::Keep => {}
        }
        fate
    }

    fn read_refund(&mut self, look: ObjectLook<RefundView>, now: Timestamp) -> HintFate {
        self.reconcile(ObjectFindings { refunds: vec![(REFUND.parse().unwrap(), look)], ..Default::default() }, now)
    }

    fn read_dispute(&mut self, view: DisputeView, now: Timestamp) -> HintFate {
        let look = ObjectLook::Seen(view);
        self.reconcile(ObjectFindings { disputes: vec![(DISPUTE.parse().unwrap(), look)], ..Default::default() }, now)
    }

    fn kinds(&self) -> Vec<&str> {
        self.told.iter().map(|(kind, data)| data["kind"].as_str().unwrap_or(kind)).collect()
    }
}

fn next_look(fate: &HintFate, now: Timestamp) -> Duration {
    match fate {
        HintFate::Defer(note) => note.not_before.unwrap().duration_since(now).try_into().unwrap(),
        other => panic!("expected another look, got {other:?}"),
    }
}

#[test]
fn a_refund_is_told_of_when_it_is_decided_and_then_costs_no_call() {
    for (state, reason, kind) in
        [("Refunded", None, "refund.completed"), ("Declined", Some("AmazonRejected"), "refund.declined")]
    {
        let mut story = Story::about(ObjectType::Refund, REFUND);
        story.case.record.remember_owner(CHARGE.parse().unwrap(), "renewal-1".parse().unwrap());
        let fate = story.read_refund(refund("RefundInitiated", None), start());
        assert_eq!(next_look(&fate, start()), HOUR);
        assert!(story.told.is_empty());
        story.hear(ObjectType::Refund, REFUND, after(MINUTE));
        assert_eq!(story.read_refund(refund(state, reason), after(MINUTE)), HintFate::Done);
        assert_eq!(story.kinds(), [kind]);
        let data = &story.told[0].1;
        assert_eq!(
            (&data["refundId"], &data["chargeId"], &data["id"]),
            (&Value::from(REFUND), &Value::from(CHARGE), &Value::from("renewal-1"))
        );
        assert_eq!((data["refundAmount"]["amount"].as_str(), data["reasonCode"].as_str()), (Some("4.00"), reason));
        assert_eq!((data["state"].as_str(), data.get("reasonCode").is_some()), (Some(state), reason.is_some()));
        story.hear(ObjectType::Refund, REFUND, after(HOUR));
        assert_eq!(story.read_refund(refund(state, reason), after(HOUR)), HintFate::Done);
        assert_eq!((story.looks, story.told.len(), story.swept), (2, 1, 0));
    }
}

#[test]
fn an_undecided_refund_is_looked_at_hourly_for_a_day_then_six_hourly_to_the_seventh_and_then_no_more() {
    let mut story = Story::about(ObjectType::Refund, REFUND);
    let mut now = start();
    let mut waits = Vec::new();
    while let HintFate::Defer(note) = story.read_refund(refund("RefundInitiated", None), now) {
        let next = note.not_before.unwrap();
        waits.push(next.duration_since(now).as_hours());
        now = next;
        assert!(waits.len() < 100);
    }
    assert_eq!(waits, [vec![1; 24], vec![6; 24]].concat());
    assert_eq!(now, after(7 * DAY));
    assert_eq!(story.kinds(), ["refund_pending"]);
    // A notification is heard even then, and tells nothing twice.
    story.hear(ObjectType::Refund, REFUND, after(8 * DAY));
    assert_eq!(story.read_refund(refund("RefundInitiated", None), after(8 * DAY)), HintFate::Done);
    assert_eq!(story.kinds(), ["refund_pending"]);
    story.hear(ObjectType::Refund, REFUND, after(9 * DAY));
    assert_eq!(story.read_refund(refund("Refunded", None), after(9 * DAY)), HintFate::Done);
    assert_eq!(story.kinds(), ["refund_pending", "refund.completed"]);
}

#[test]
fn a_refund_whose_notification_was_lost_is_found_and_counted() {
    let mut story = Story::about(ObjectType::Refund, REFUND);
    let _ = story.read_refund(refund("RefundInitiated", None), start());
    assert_eq!(story.read_refund(refund("Refunded", None), after(30 * MINUTE)), HintFate::Keep, "not yet");
    assert_eq!(story.read_refund(refund("Refunded", None), after(HOUR)), HintFate::Done);
    assert_eq!((story.kinds(), story.swept, story.looks), (vec!["refund.completed"], 1, 2));
}

#[test]
fn notifications_about_a_refund_do_not_start_its_time_anew() {
    let mut story = Story::about(ObjectType::Refund, REFUND);
    for day in 0..7_u32 {
        story.hear(ObjectType::Refund, REFUND, after(day * DAY));
        let fate = story.read_refund(refund("RefundInitiated", None), after(day * DAY));
        assert_eq!(next_look(&fate, after(day * DAY)), if day == 0 { HOUR } else { 6 * HOUR });
    }
    story.hear(ObjectType::Refund, REFUND, after(7 * DAY));
    assert_eq!(story.read_refund(refund("RefundInitiated", None), after(7 * DAY)), HintFate::Done);
}

#[test]
fn an_unknown_refund_state_is_alerted_on_once_for_each_change_and_swept_like_an_undecided_one() {
    let mut story = Story::about(ObjectType::Refund, REFUND);
    for (hours, state) in [(0, "Hovering"), (1, "Hovering"), (2, "Landing"), (3, "Landing")] {
        let now = after(hours * HOUR);
        let fate = story.read_refund(refund(state, None), now);
        assert_eq!(next_look(&fate, now), HOUR);
    }
    assert_eq!(story.kinds(), ["unknown_refund_state", "unknown_refund_state"]);
    assert_eq!(story.told[1].1["state"], "Landing");
}

#[test]
fn a_dispute_is_told_of_when_its_state_resolution_reason_or_deadline_changes_and_not_otherwise() {
    let mut story = Story::about(ObjectType::Chargeback, DISPUTE);
    let asked = DisputeView { reason: Some("MerchantResponseRequired".to_owned()), ..dispute_view("ActionRequired") };
    let later_deadline = DisputeView { deadline: Some(after(14 * DAY)), ..asked.clone() };
    let more_asked =
        DisputeView { reason: Some("MerchantAdditionalEvidencesRequired".to_owned()), ..later_deadline.clone() };
    let decided = DisputeView { resolution: Some("MerchantWon".to_owned()), ..dispute_view("Resolved") };
    let turned = DisputeView { resolution: Some("BuyerWon".to_owned()), ..decided.clone() };
    let mut now = start();
    for (told, view) in
        [asked, later_deadline, more_asked, dispute_view("UnderReview"), decided, turned].into_iter().enumerate()
    {
        for _ in 0..3 {
            story.hear(ObjectType::Chargeback, DISPUTE, now);
            let fate = story.read_dispute(view.clone(), now);
            assert_eq!(matches!(fate, HintFate::Defer(_)), view.state.is_open(), "{:?}", view.state);
            assert_eq!(story.told.len(), told + 1, "{:?}", view.state);
            now = later(now, MINUTE);
        }
    }
    assert!(story.kinds().iter().all(|kind| *kind == "dispute.updated"));
    let first = &story.told[0].1;
    assert_eq!(first["merchantResponseDeadline"], after(11 * DAY).to_string());
    assert_eq!((&first["disputeId"], &first["filingReason"]), (&Value::from(DISPUTE), &Value::from("Fraudulent")));
    assert!(first.get("resolution").is_none() && first.get("id").is_none(), "what is not known is left out: {first}");
    assert_eq!(story.told[4].1["resolution"], "MerchantWon");
}

#[test]
fn an_open_dispute_is_looked_at_daily_for_thirty_days_after_its_last_change() {
    let mut story = Story::about(ObjectType::Chargeback, DISPUTE);
    let mut looks = 0;
    let mut now = start();
    while let HintFate::Defer(note) = story.read_dispute(dispute_view("UnderReview"), now) {
        assert_eq!(note.not_before.unwrap(), later(now, DAY));
        now = later(now, DAY);
        looks += 1;
        assert!(looks < 100);
    }
    assert_eq!((looks, story.told.len()), (30, 1));
}

#[test]
fn an_unknown_dispute_state_is_told_as_text_and_alerted_on_once() {
    let mut story = Story::about(ObjectType::Chargeback, DISPUTE);
    let _ = story.read_dispute(dispute_view("Appealed"), start());
    let _ = story.read_dispute(dispute_view("Appealed"), after(DAY));
    assert_eq!(story.kinds(), ["unknown_dispute_state", "dispute.updated"]);
    assert_eq!(story.told[1].1["state"], "Appealed");
}

#[test]
fn a_refused_look_is_tried_again_like_a_charges_and_put_aside_at_the_fifth_refusal() {
    let mut story = Story::about(ObjectType::Refund, REFUND);
    let mut now = start();
    let mut waits = Vec::new();
    let reason = loop {
        match story.read_refund(ObjectLook::Refused(404), now) {
            HintFate::Quarantine(reason) => break reason,
            fate => waits.push(next_look(&fate, now).as_secs() / 60),
        }
        now = later(now, Duration::from_mins(*waits.last().unwrap()));
    };
    assert_eq!(waits, [1, 4, 16, 64]);
    assert!(reason.contains("404"), "{reason}");
    assert!(story.told.is_empty());
}

#[test]
fn silence_is_asked_again_after_a_minute_then_ever_more_slowly_and_not_for_ever() {
    let mut story = Story::about(ObjectType::Refund, REFUND);
    let mut now = start();
    let mut waits = Vec::new();
    while let HintFate::Defer(note) = story.read_refund(ObjectLook::Failed, now) {
        let next = note.not_before.unwrap();
        waits.push(next.duration_since(now).as_mins());
        assert_eq!((note.refusals, waits.len() < 1000), (0, true));
        now = next;
    }
    assert_eq!(waits[..8], [1, 1, 2, 4, 8, 16, 32, 60]);
    assert!(now >= after(31 * DAY) && now < after(32 * DAY));
}

#[test]
fn a_refused_object_is_asked_about_slowly_and_accuses_nobody() {
    let mut story = Story::about(ObjectType::Refund, REFUND);
    let fate = story.read_refund(ObjectLook::AccountFault, start());
    assert_eq!(next_look(&fate, start()), 15 * MINUTE);
    let fate = story.read_refund(ObjectLook::AccountFault, after(15 * MINUTE));
    assert_eq!(next_look(&fate, after(15 * MINUTE)), 15 * MINUTE);
    assert!(story.kinds().is_empty(), "whether it is the account is for a look at a permission to say");
    assert!(!story.case.record.account_fault);
    assert!(matches!(story.read_refund(refund("RefundInitiated", None), after(HOUR)), HintFate::Defer(_)));
    // A look at the permission was refused: the refund was not asked for, and waits as long.
    let mut story = Story::about(ObjectType::Refund, REFUND);
    let mut decision = decide(&story.case, &findings(Look::AccountFault), start(), &policies(), OURS);
    judge(&story.case, &ObjectFindings::default(), &Look::AccountFault, &mut decision, start(), OURS);
    assert_eq!(next_look(&decision.hints[0], start()), 15 * MINUTE);
    story.case.hints.clear();
}

#[test]
fn a_refund_of_the_other_environment_is_put_aside_alerted_on_once_and_not_told_as_a_refund() {
    let mut story = Story::about(ObjectType::Refund, REFUND);
    for _ in 0..2 {
        story.hear(ObjectType::Refund, REFUND, start());
        let ObjectLook::Seen(view) = refund("Refunded", None) else { unreachable!() };
        let foreign = ObjectLook::Seen(RefundView { release_environment: Some(Environment::Live), ..view });
        assert!(matches!(story.read_refund(foreign, start()), HintFate::Quarantine(_)));
    }
    assert_eq!(story.kinds(), ["environment_mismatch"]);
}

#[test]
fn five_looks_of_one_reconciliation_are_shared_by_charges_refunds_and_disputes() {
    let mut case = case(Vec::new());
    for (object_type, letter) in [(ObjectType::Charge, 'C'), (ObjectType::Refund, 'R'), (ObjectType::Chargeback, 'B')] {
        for n in 1..=9 {
            case.hints.push(hint(object_type, &format!("C01-0000000-0000001-{letter}00000{n}"), after(n * MINUTE)));
        }
    }
    let asked = plan(&case, after(DAY));
    let looks = (asked.charges.len(), asked.refunds.len(), asked.disputes.len());
    assert_eq!((looks, asked.permission), ((2, 2, 1), false));
    assert_eq!(looks.0 + looks.1 + looks.2, MAX_CHARGE_LOOKS);
    assert_eq!(asked.disputes[0].as_str(), DISPUTE, "the longest waiting first");
    // What found no place waits for the next reconciliation.
    let mut decision = decide(&case, &findings(Look::NotAsked), after(DAY), &policies(), OURS);
    judge(&case, &ObjectFindings::default(), &Look::NotAsked, &mut decision, after(DAY), OURS);
    assert!(decision.hints.iter().all(|fate| *fate == HintFate::Keep));
}

#[test]
fn a_refund_that_the_record_has_no_room_for_is_not_swept() {
    let mut story = Story::about(ObjectType::Refund, REFUND);
    for n in 0..60 {
        let memory = ObjectMemory { seen: "RefundInitiated".to_owned(), since: start(), settled: false };
        story.case.record.remember_object(format!("REFUND:{n}"), memory);
    }
    assert_eq!(story.read_refund(refund("RefundInitiated", None), start()), HintFate::Done);
    story.hear(ObjectType::Refund, REFUND, after(HOUR));
    assert_eq!(story.read_refund(refund("Refunded", None), after(HOUR)), HintFate::Done);
    assert_eq!(story.kinds(), ["refund.completed"]);
}

#[test]
fn the_owner_of_a_charge_is_remembered_when_the_intent_names_it() {
    let mut record = PermissionRecord::default();
    let mut intent = crate::recovery::draft::testing::intent();
    remember_owners(&mut record, [&intent].into_iter());
    assert!(record.owners.is_empty());
    intent.progress.charge = Some(CHARGE.parse().unwrap());
    remember_owners(&mut record, [&intent].into_iter());
    assert_eq!(record.owners.get(&CHARGE.parse().unwrap()), Some(&intent.id));
}

#[test]
fn a_notification_about_a_refund_or_a_dispute_asks_for_that_object_only() {
    for (object_type, object) in [(ObjectType::Refund, REFUND), (ObjectType::Chargeback, DISPUTE)] {
        let mut case = case(Vec::new());
        case.hints = vec![hint(object_type, object, start())];
        let plan = plan(&case, start());
        assert_eq!((plan.permission, plan.charges.len()), (false, 0));
        assert_eq!(plan.refunds.len() + plan.disputes.len(), 1);
    }
}

mod whatever_arrives {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// What happens: so many minutes later a notification comes, or does not, and Amazon's answer to a look is this.
    fn happenings() -> impl Strategy<Value = Vec<(u32, bool, &'static str)>> {
        let answer = select(vec!["as it is", "as it is", "as it is", "silence", "refused account"]);
        vec((0_u32..2000, any::<bool>(), answer), 1..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn notifications_in_any_number_at_any_time_or_lost_tell_of_a_refund_exactly_once(
            happenings in happenings(), decided_after in 0_usize..12, declined in any::<bool>(),
        ) {
            let mut story = Story::about(ObjectType::Refund, REFUND);
            let mut now = start();
            let last = if declined { refund("Declined", Some("ProcessingFailure")) } else { refund("Refunded", None) };
            for (index, (minutes, heard, answer)) in happenings.iter().enumerate() {
                now = later(now, *minutes * MINUTE);
                if *heard {
                    story.hear(ObjectType::Refund, REFUND, now);
                }
                let look = match *answer {
                    "silence" => ObjectLook::Failed,
                    "refused account" => ObjectLook::AccountFault,
                    _ if index < decided_after => refund("RefundInitiated", None),
                    _ => last.clone(),
                };
                let _ = story.read_refund(look, now);
            }
            // Once Amazon answers, at most the next hour's look (or six hours') tells: without any notification, unless it was given up.
            for _ in 0..12 {
                now = later(now, HOUR);
                let _ = story.read_refund(last.clone(), now);
            }
            let given_up = story.kinds().contains(&"refund_pending");
            let told = story.kinds().iter().filter(|kind| kind.starts_with("refund.")).count();
            prop_assert!(told == 1 || (told == 0 && given_up), "{:?}", story.kinds());
            prop_assert!(story.looks <= happenings.len() + 12);
            prop_assert!(story.case.hints.is_empty());
        }
    }
}
