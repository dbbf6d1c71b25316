//! Every object that a notification can name: permissions, charges, refunds and disputes, for a caller that lets us charge and for one
//! that only wants to be told.

use amazon_pay_ipn::sandbox::{
    DisputeMove, DisputeSpec, DisputeState, Fault, NotificationType, ObjectType, Operation, PermissionKind,
    PermissionSpec, PermissionState, SignatureVersion,
};
use serde_json::Value;

use crate::support::{DAY, HOUR, MINUTE, TestApp};

const KINDS: [NotificationType; 2] = [NotificationType::StateChange, NotificationType::AttributeChange];

/// A charge of ours, captured, with every notification about it delivered and dealt with.
async fn captured(app: &TestApp, permission: &str) -> String {
    app.submit("renewal", permission).await;
    app.run_due().await;
    settled(app).await;
    app.charge("renewal").await["chargeId"].as_str().expect("a charge").to_owned()
}

/// Everything is delivered and done; the counters of calls start from here.
async fn settled(app: &TestApp) {
    app.deliver_all().await;
    app.run_due().await;
}

async fn tell(app: &TestApp, kind: NotificationType, object: (ObjectType, &str), permission: &str) {
    let ipn = app.sandbox.ipn(object, permission, kind);
    let message = app.sandbox.sign(&ipn, SignatureVersion::V1);
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    app.run_due().await;
}

fn calls(app: &TestApp, operation: Operation) -> usize {
    app.ledger().requests_of(operation).len()
}

fn four() -> rust_decimal::Decimal {
    "4.00".parse().expect("a number")
}

#[tokio::test]
async fn a_refund_of_our_charge_is_told_when_it_is_completed_with_the_charge_it_belongs_to() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let charge = captured(&app, &permission).await;
    let looks = calls(&app, Operation::GetChargePermission);
    let refund = app.sandbox.refund(&charge, four()).expect("a captured charge");
    settled(&app).await;
    assert!(app.events_of("refund.completed").await.is_empty(), "it is only initiated");
    app.sandbox.settle_refund(&refund, None).expect("a refund");
    settled(&app).await;
    let told = app.events_of("refund.completed").await;
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["refundId"], &told[0]["chargeId"]), (&Value::from(refund.clone()), &Value::from(charge)));
    assert_eq!(
        (&told[0]["id"], &told[0]["chargePermissionId"]),
        (&Value::from("renewal"), &Value::from(permission.clone()))
    );
    assert_eq!(
        (&told[0]["refundAmount"]["amount"], &told[0]["state"]),
        (&Value::from("4.00"), &Value::from("Refunded"))
    );
    assert_eq!(calls(&app, Operation::GetRefund), 2, "one look for each notification");
    assert_eq!(calls(&app, Operation::GetChargePermission), looks, "the refund is all that was asked for");
    // A twin of a refund that is known as decided costs nothing and tells nothing.
    for kind in KINDS {
        tell(&app, kind, (ObjectType::Refund, &refund), &permission).await;
    }
    app.pass(10 * DAY, 6 * HOUR).await;
    assert_eq!(calls(&app, Operation::GetRefund), 2);
    assert_eq!(app.events_of("refund.completed").await.len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_declined_refund_is_told_with_its_reason() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let charge = captured(&app, &permission).await;
    for reason in ["AmazonRejected", "ProcessingFailure", "SomethingNew"] {
        let refund = app.sandbox.refund(&charge, four()).expect("a captured charge");
        app.sandbox.settle_refund(&refund, Some(reason)).expect("a refund");
        settled(&app).await;
        let told = app.events_of("refund.declined").await;
        let last = told.last().expect("an event");
        assert_eq!((&last["refundId"], &last["reasonCode"]), (&Value::from(refund), &Value::from(reason)));
    }
    assert_eq!(app.events_of("refund.declined").await.len(), 3);
    app.finish().await;
}

#[tokio::test]
async fn a_refund_whose_notification_is_lost_is_found_by_the_sweep() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let charge = captured(&app, &permission).await;
    let refund = app.sandbox.refund(&charge, four()).expect("a captured charge");
    settled(&app).await;
    app.sandbox.settle_refund(&refund, None).expect("a refund");
    assert_eq!(app.sandbox.notifications().len(), 1, "taken away: it never comes");
    app.pass(HOUR + MINUTE, 10 * MINUTE).await;
    assert_eq!(app.events_of("refund.completed").await.len(), 1);
    assert_eq!(calls(&app, Operation::GetRefund), 2);
    app.pass(3 * DAY, 6 * HOUR).await;
    assert_eq!(calls(&app, Operation::GetRefund), 2, "no look after the end");
    app.finish().await;
}

#[tokio::test]
async fn a_refund_that_is_never_decided_is_asked_about_for_seven_days_and_said_so_once() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let charge = captured(&app, &permission).await;
    let refund = app.sandbox.refund(&charge, four()).expect("a captured charge");
    settled(&app).await;
    app.pass(DAY, 30 * MINUTE).await;
    assert!((24..=25).contains(&calls(&app, Operation::GetRefund)), "{}", calls(&app, Operation::GetRefund));
    app.pass(7 * DAY, HOUR).await;
    let asked = calls(&app, Operation::GetRefund);
    assert!((45..=50).contains(&asked), "{asked}");
    let alerts = app.events_of("account.attention").await;
    assert_eq!((alerts.len(), &alerts[0]["kind"]), (1, &Value::from("refund_pending")));
    assert_eq!(alerts[0]["refundId"], Value::from(refund.clone()));
    app.pass(20 * DAY, DAY).await;
    assert_eq!(calls(&app, Operation::GetRefund), asked, "no polling without end");
    app.sandbox.settle_refund(&refund, None).expect("a refund");
    settled(&app).await;
    assert_eq!(app.events_of("refund.completed").await.len(), 1, "its notification is heard all the same");
    app.finish().await;
}

#[tokio::test]
async fn a_dispute_is_told_at_each_change_and_a_twin_costs_one_look_and_no_event() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let charge = captured(&app, &permission).await;
    let dispute = app.sandbox.open_dispute(&charge, DisputeSpec::chargeback("Fraudulent")).expect("a charge");
    settled(&app).await;
    for kind in KINDS {
        tell(&app, kind, (ObjectType::Chargeback, &dispute), &permission).await;
    }
    assert_eq!(calls(&app, Operation::GetDispute), 3);
    let deadline = app.clock.now() + 9 * DAY;
    let moves = [
        DisputeMove::to(DisputeState::ActionRequired).with_reason("MerchantResponseRequired").with_deadline(deadline),
        DisputeMove::to(DisputeState::UnderReview),
        DisputeMove::to(DisputeState::Resolved).with_resolution("MerchantWon").with_reason("InvestigatorResolved"),
        DisputeMove::to(DisputeState::Closed).with_resolution("MerchantWon"),
    ];
    for change in moves {
        app.sandbox.move_dispute(&dispute, change).expect("a dispute");
        settled(&app).await;
    }
    let told = app.events_of("dispute.updated").await;
    let states: Vec<_> = told.iter().map(|event| event["state"].as_str().expect("a state")).collect();
    assert_eq!(states, ["ActionRequired", "ActionRequired", "UnderReview", "Resolved", "Closed"]);
    assert_eq!((&told[0]["disputeId"], &told[0]["chargeId"]), (&Value::from(dispute), &Value::from(charge)));
    assert_eq!((&told[0]["id"], &told[0]["filingReason"]), (&Value::from("renewal"), &Value::from("Fraudulent")));
    assert_eq!(told[0]["disputeAmount"]["amount"], "14.00");
    assert!(told[0]["merchantResponseDeadline"].is_string());
    assert_ne!(
        told[0]["merchantResponseDeadline"], told[1]["merchantResponseDeadline"],
        "another deadline is a change"
    );
    assert_eq!(
        (&told[3]["resolution"], &told[3]["reasonCode"]),
        (&Value::from("MerchantWon"), &Value::from("InvestigatorResolved"))
    );
    let asked = calls(&app, Operation::GetDispute);
    app.pass(40 * DAY, DAY).await;
    assert_eq!(calls(&app, Operation::GetDispute), asked, "a decided dispute is not swept");
    app.finish().await;
}

#[tokio::test]
async fn an_open_dispute_whose_notification_is_lost_is_found_within_a_day_and_is_not_asked_about_for_ever() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let charge = captured(&app, &permission).await;
    let dispute = app.sandbox.open_dispute(&charge, DisputeSpec::chargeback("Fraudulent")).expect("a charge");
    settled(&app).await;
    app.sandbox.move_dispute(&dispute, DisputeMove::to(DisputeState::UnderReview)).expect("a dispute");
    let _ = app.sandbox.notifications();
    app.pass(DAY + HOUR, 6 * HOUR).await;
    let told = app.events_of("dispute.updated").await;
    assert_eq!((told.len(), &told[1]["state"]), (2, &Value::from("UnderReview")));
    app.pass(60 * DAY, DAY).await;
    assert!((30..=33).contains(&calls(&app, Operation::GetDispute)), "{}", calls(&app, Operation::GetDispute));
    assert_eq!(app.events_of("dispute.updated").await.len(), 2);
    app.finish().await;
}

#[tokio::test]
async fn a_refund_or_dispute_that_amazon_does_not_know_is_asked_for_five_times_and_put_aside() {
    let app = TestApp::start().await;
    let permission = app.permission();
    for (object_type, letter) in [(ObjectType::Refund, 'R'), (ObjectType::Chargeback, 'B')] {
        let id = format!("{permission}-{letter}999999");
        app.tell_of((object_type, &id), &permission).await;
    }
    app.run_due().await;
    app.pass(3 * HOUR, MINUTE).await;
    assert_eq!((calls(&app, Operation::GetRefund), calls(&app, Operation::GetDispute)), (5, 5));
    assert_eq!(app.ledger().requests.len(), 10, "nothing else was asked for");
    let aside = app.quarantine().await;
    assert_eq!(aside.len(), 2);
    assert!(aside.iter().all(|entry| entry["reason"].contains("404")), "{aside:?}");
    assert_eq!(app.events_of("ipn.quarantined").await.len(), 2);
    app.pass(2 * DAY, HOUR).await;
    assert_eq!(app.ledger().requests.len(), 10);
    app.finish().await;
}

#[tokio::test]
async fn a_refund_that_is_refused_like_an_account_is_asked_about_slowly_accuses_nobody_and_is_told_of_in_the_end() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let charge = captured(&app, &permission).await;
    let refund = app.sandbox.refund(&charge, four()).expect("a captured charge");
    app.sandbox.settle_refund(&refund, None).expect("a refund");
    for _ in 0..3 {
        app.sandbox.inject(Operation::GetRefund, Fault::status(401, "UnauthorizedAccess"));
    }
    settled(&app).await;
    app.pass(20 * MINUTE, MINUTE).await;
    assert_eq!(calls(&app, Operation::GetRefund), 2, "probed slowly");
    app.pass(3 * HOUR, 5 * MINUTE).await;
    assert!(app.events_of("account.attention").await.is_empty(), "one object must not halt everything");
    assert_eq!(app.events_of("refund.completed").await.len(), 1);
    assert!(app.quarantine().await.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn answers_that_say_nothing_are_asked_for_again_and_lose_nothing() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let charge = captured(&app, &permission).await;
    let refund = app.sandbox.refund(&charge, four()).expect("a captured charge");
    app.sandbox.settle_refund(&refund, None).expect("a refund");
    let faults = [
        Fault::Garbled,
        Fault::DropBefore,
        Fault::status(500, "InternalServerError"),
        Fault::status(429, "TooManyRequests"),
    ];
    for fault in faults {
        app.sandbox.inject(Operation::GetRefund, fault);
    }
    settled(&app).await;
    app.pass(HOUR, MINUTE).await;
    assert_eq!(app.events_of("refund.completed").await.len(), 1);
    assert_eq!(calls(&app, Operation::GetRefund), 5);
    app.finish().await;
}

#[tokio::test]
async fn states_that_nobody_knows_yet_are_kept_as_text_and_alerted_on_once() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let charge = captured(&app, &permission).await;
    let refund = app.sandbox.refund(&charge, four()).expect("a captured charge");
    let dispute = app.sandbox.open_dispute(&charge, DisputeSpec::chargeback("Fraudulent")).expect("a charge");
    for _ in 0..2 {
        app.sandbox.inject(Operation::GetRefund, Fault::Rewritten("RefundInitiated", "RefundPondered"));
        app.sandbox.inject(Operation::GetDispute, Fault::Rewritten("ActionRequired", "Appealed"));
    }
    settled(&app).await;
    tell(&app, NotificationType::StateChange, (ObjectType::Refund, &refund), &permission).await;
    tell(&app, NotificationType::StateChange, (ObjectType::Chargeback, &dispute), &permission).await;
    let alerts = app.events_of("account.attention").await;
    let mut told: Vec<_> = alerts.iter().map(|alert| (alert["kind"].as_str(), alert["state"].as_str())).collect();
    told.sort_unstable();
    let expected =
        [(Some("unknown_dispute_state"), Some("Appealed")), (Some("unknown_refund_state"), Some("RefundPondered"))];
    assert_eq!(told, expected);
    assert_eq!(app.events_of("dispute.updated").await[0]["state"], "Appealed");
    // What it becomes in the end is told as ever.
    app.sandbox.settle_refund(&refund, None).expect("a refund");
    settled(&app).await;
    assert_eq!(app.events_of("refund.completed").await.len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_kind_of_permission_that_nobody_knows_yet_is_not_charged_and_alerted_on_once() {
    let app = TestApp::start().await;
    let permission = app.permission();
    for _ in 0..20 {
        app.sandbox.inject(Operation::GetChargePermission, Fault::Rewritten("\"Recurring\"", "\"Layaway\""));
    }
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.pass(3 * DAY, 6 * HOUR).await;
    assert_eq!((app.creates(), app.state("renewal").await.as_str()), (0, "parked"));
    let alerts = app.events_of("account.attention").await;
    let kinds: Vec<_> = alerts.iter().map(|alert| alert["kind"].as_str().expect("a kind")).collect();
    assert_eq!(kinds, ["unknown_permission_kind", "charge_parked"]);
    assert_eq!(alerts[0]["chargePermissionType"], "Layaway");
    app.finish().await;
}

#[tokio::test]
async fn a_reason_that_nobody_knows_yet_is_not_charged_and_alerted_on_once() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.set_permission(&permission, PermissionState::NonChargeable, &["Sunspots"]).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    for kind in KINDS {
        tell(&app, kind, (ObjectType::ChargePermission, &permission), &permission).await;
    }
    app.pass(2 * DAY, 6 * HOUR).await;
    assert_eq!((app.creates(), app.state("renewal").await.as_str()), (0, "parked"));
    let alerts = app.events_of("account.attention").await;
    let kinds: Vec<_> = alerts.iter().map(|alert| alert["kind"].as_str().expect("a kind")).collect();
    assert_eq!(kinds, ["unknown_permission_reason", "charge_parked"]);
    assert!(app.events_of("charge.action_required").await.is_empty(), "nobody is mailed on a guess");
    app.finish().await;
}

#[tokio::test]
async fn every_kind_of_permission_can_be_charged() {
    let app = TestApp::start().await;
    let kinds = [PermissionKind::OneTime, PermissionKind::Recurring, PermissionKind::PaymentMethodOnFile];
    for (n, kind) in kinds.into_iter().enumerate() {
        let permission = app.sandbox.create_permission(PermissionSpec::new(kind, "USD"));
        app.submit(&format!("charge-{n}"), &permission).await;
        app.run_due().await;
        assert_eq!(app.state(&format!("charge-{n}")).await, "captured", "{kind:?}");
    }
    app.finish().await;
}

/// For each object the right look and the same events, whichever `NotificationType` names it.
#[tokio::test]
async fn an_attribute_change_of_each_of_the_four_objects_does_what_a_state_change_does() {
    let mut told = Vec::new();
    for kind in KINDS {
        let app = TestApp::start().await;
        let permission = app.permission();
        let other = app.permission();
        let charge = captured(&app, &permission).await;
        let refund = app.sandbox.refund(&charge, four()).expect("a captured charge");
        app.sandbox.settle_refund(&refund, None).expect("a refund");
        let dispute = app.sandbox.open_dispute(&charge, DisputeSpec::chargeback("Fraudulent")).expect("a charge");
        app.sandbox.buyer_closes(&other).expect("a permission");
        let _ = app.sandbox.notifications();
        let before = app.event_kinds().await.len();
        for (object_type, object, permission, operation) in [
            (ObjectType::ChargePermission, &other, &other, Operation::GetChargePermission),
            // A charge that is not in the record of this permission.
            (ObjectType::Charge, &charge, &other, Operation::GetCharge),
            (ObjectType::Refund, &refund, &permission, Operation::GetRefund),
            (ObjectType::Chargeback, &dispute, &permission, Operation::GetDispute),
        ] {
            let (all, of_it) = (app.ledger().requests.len(), calls(&app, operation));
            tell(&app, kind, (object_type, object), permission).await;
            let asked = (app.ledger().requests.len() - all, calls(&app, operation) - of_it);
            assert_eq!(asked, (1, 1), "{kind:?} {object_type:?}");
        }
        let kinds = app.event_kinds().await.split_off(before);
        assert_eq!(kinds, ["charge_permission.closed", "charge.unmatched", "refund.completed", "dispute.updated"]);
        told.push(kinds);
        app.finish().await;
    }
    assert_eq!(told[0], told[1]);
}

/// The second half of line 8 of the issue: who submits nothing is still told of everything.
#[tokio::test]
async fn a_caller_that_submits_nothing_is_told_of_every_permission_that_a_notification_names() {
    let app = TestApp::start().await;
    let permission = app.permission();
    tell(&app, NotificationType::StateChange, (ObjectType::ChargePermission, &permission), &permission).await;
    app.sandbox.buyer_updates_instrument(&permission, "MasterCard ****2222").expect("a permission");
    settled(&app).await;
    app.sandbox
        .set_permission(&permission, PermissionState::NonChargeable, &["PaymentMethodExpired"])
        .expect("a permission");
    settled(&app).await;
    app.sandbox.buyer_updates_instrument(&permission, "Visa ****3333").expect("a permission");
    settled(&app).await;
    app.sandbox.buyer_closes(&permission).expect("a permission");
    settled(&app).await;
    let kinds = app.event_kinds().await;
    let expected = [
        "charge_permission.chargeable",
        "payment_instrument.updated",
        "charge_permission.non_chargeable",
        "charge_permission.chargeable",
        "payment_instrument.updated",
        "charge_permission.closed",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(app.creates(), 0);
    // Nothing is open: nobody asks Amazon again by himself.
    let asked = app.ledger().requests.len();
    app.pass(60 * DAY, 6 * HOUR).await;
    assert_eq!(app.ledger().requests.len(), asked);
    app.finish().await;
}

/// A charge, a refund and a dispute that others made: our service only tells.
#[tokio::test]
async fn a_caller_that_submits_nothing_is_told_of_refunds_and_disputes_of_charges_that_others_made() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let charge = captured(&app, &permission).await;
    // As if the merchant's other system had made the charge: nothing is remembered of it.
    let refund = app.sandbox.refund(&charge, four()).expect("a captured charge");
    let dispute = app.sandbox.open_dispute(&charge, DisputeSpec::chargeback("Unrecognized")).expect("a charge");
    forget(&app, &permission).await;
    app.sandbox.settle_refund(&refund, None).expect("a refund");
    settled(&app).await;
    let told = app.events_of("refund.completed").await;
    assert_eq!((told.len(), told[0].get("id")), (1, None), "whose charge it is, is not known");
    assert_eq!(told[0]["chargeId"], Value::from(charge));
    assert_eq!(app.events_of("dispute.updated").await[0]["disputeId"], Value::from(dispute));
    app.finish().await;
}

async fn forget(app: &TestApp, permission: &str) {
    let key = app.store.keys().permission(&permission.parse().expect("an id"));
    let gone: u32 =
        redis::cmd("HDEL").arg(key).arg("record").query_async(&mut app.connection().await).await.expect("HDEL");
    assert_eq!(gone, 1);
}

#[tokio::test]
async fn a_crowd_of_notifications_of_one_permission_is_dealt_with_five_looks_at_a_time_and_no_kind_waits() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let charge = captured(&app, &permission).await;
    let amount = rust_decimal::Decimal::new(10, 2);
    for _ in 0..12 {
        let refund = app.sandbox.refund(&charge, amount).expect("a captured charge");
        app.sandbox.settle_refund(&refund, None).expect("a refund");
    }
    app.sandbox.open_dispute(&charge, DisputeSpec::chargeback("Fraudulent")).expect("a charge");
    app.deliver_all().await;
    app.reconciler.step().await.expect("a step");
    assert_eq!((calls(&app, Operation::GetRefund), calls(&app, Operation::GetDispute)), (4, 1));
    app.run_due().await;
    assert_eq!((calls(&app, Operation::GetRefund), app.events_of("refund.completed").await.len()), (12, 12));
    app.finish().await;
}

#[tokio::test]
async fn a_record_of_the_version_before_is_read_and_goes_on() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let charge = captured(&app, &permission).await;
    let key = app.store.keys().permission(&permission.parse().expect("an id"));
    let record = format!(
        r#"{{"state":"Chargeable","reasons":[],"kind":"Recurring","instrument":null,"lookedAt":null,"charges":{{"{charge}":"Captured"}},"failedLooks":0,"accountFault":false}}"#
    );
    let _: u32 = redis::cmd("HSET")
        .arg(key)
        .arg("record")
        .arg(record)
        .query_async(&mut app.connection().await)
        .await
        .expect("HSET");
    let refund = app.sandbox.refund(&charge, four()).expect("a captured charge");
    app.sandbox.settle_refund(&refund, None).expect("a refund");
    settled(&app).await;
    assert_eq!(app.events_of("refund.completed").await.len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn the_test_notification_costs_no_call_whatever_object_it_names_and_leaves_no_work() {
    let app = TestApp::start().await;
    let id = "P01-0000000-0000000-000000";
    for object_type in [ObjectType::ChargePermission, ObjectType::Charge, ObjectType::Refund, ObjectType::Chargeback] {
        for kind in KINDS {
            tell(&app, kind, (object_type, id), "P01-0000000-0000000").await;
        }
    }
    app.pass(DAY, 6 * HOUR).await;
    assert_eq!((app.journal().await.len(), app.ledger().requests.len()), (8, 0));
    assert!(app.quarantine().await.is_empty() && app.event_kinds().await.is_empty());
    app.finish().await;
}
