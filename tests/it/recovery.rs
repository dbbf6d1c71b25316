//! What becomes of a charge after each answer of Amazon: the rows of the recovery table, through the real loop.

use amazon_pay_ipn::sandbox::{
    ChargeState, DeclineCode, DeliveryOrder, Fault, ObjectType, Operation, Outcome, PermissionSpec, PermissionState,
    SignatureVersion,
};
use serde_json::json;

use crate::support::{DAY, HOUR, MINUTE, TestApp, X};

#[tokio::test]
async fn a_charge_that_is_captured_at_once_costs_one_look_and_one_send() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    app.run_due().await;
    let charge = app.charge("renewal").await;
    assert_eq!(charge["state"], "captured");
    assert_eq!(app.event_kinds().await, ["charge.scheduled", "charge.attempted", "charge.captured"]);
    let captured = app.events_of("charge.captured").await;
    assert_eq!(captured[0]["recoveredBy"], "submit");
    assert_eq!(captured[0]["attempts"], 1);
    assert_eq!(captured[0]["chargeId"], charge["chargeId"]);
    assert_eq!(app.ledger().requests.len(), 2);
    app.deliver_all().await;
    app.run_due().await;
    assert_eq!(app.creates(), 1);
    app.finish().await;
}

#[tokio::test]
async fn soft_declines_are_retried_after_1_3_7_and_14_days_and_then_given_up() {
    let app = TestApp::start().await;
    let permission = app.permission();
    for _ in 0..5 {
        app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    }
    app.submit("renewal", &permission).await;
    app.run_due().await;
    for (sends, days) in [(1, 1), (2, 3), (3, 7), (4, 14)] {
        assert_eq!(app.creates(), sends);
        app.pass(days * DAY - 6 * HOUR, 12 * HOUR).await;
        assert_eq!(app.creates(), sends, "not before {days} days have passed");
        app.pass(9 * HOUR, HOUR).await;
        assert_eq!(app.creates(), sends + 1, "soon after {days} days");
    }
    assert_eq!(app.state("renewal").await, "abandoned");
    let ended = app.events_of("charge.abandoned").await;
    assert_eq!(ended[0]["reason"], "SoftDeclined");
    assert_eq!(ended[0]["attempts"], 5);
    assert_eq!(ended[0]["outcome"], "verified");
    app.pass(40 * DAY, 5 * DAY).await;
    assert_eq!(app.creates(), 5, "nothing after the end");
    let keys: std::collections::BTreeSet<_> = app
        .ledger()
        .requests_of(Operation::CreateCharge)
        .iter()
        .map(|request| request.idempotency_key.clone())
        .collect();
    assert_eq!(keys.len(), 5, "each attempt after a definite decline has its own key");
    app.finish().await;
}

#[tokio::test]
async fn a_hard_decline_waits_for_the_buyer_and_an_updated_card_is_charged_once_although_the_ipn_comes_twice() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.deliver_all().await;
    app.run_due().await;
    let charge = app.charge("renewal").await;
    assert_eq!((charge["state"].as_str(), charge["parkedFor"].as_str()), (Some("parked"), Some("instrument")));
    let asked = app.events_of("charge.action_required").await;
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0]["updateUrl"], format!("https://payments.amazon.com/jr/your-account/ba/{permission}"));
    app.pass(5 * DAY, DAY).await;
    assert_eq!(app.creates(), 1, "a hard decline is not retried by the clock");
    app.sandbox.buyer_updates_instrument(&permission, "MasterCard ****2222").expect("a permission");
    let url = format!("{}/ipn", app.public);
    app.sandbox.deliver_pending(&url, DeliveryOrder::InOrder, 2, SignatureVersion::V1).await.expect("delivery");
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.creates(), 2);
    assert_eq!(app.events_of("charge.captured").await[0]["recoveredBy"], "instrument_update");
    assert_eq!(app.events_of("payment_instrument.updated").await.len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn the_echo_of_our_own_hard_decline_does_not_release_the_charge() {
    let app = TestApp::start().await;
    let permission = app.permission();
    for _ in 0..5 {
        let outcome = Outcome::DeclineStayingChargeable(DeclineCode::HardDeclined);
        app.sandbox.script_charge(&permission, outcome).expect("a permission");
    }
    app.submit("renewal", &permission).await;
    app.run_due().await;
    for _ in 0..10 {
        // Amazon tells us of the permission, which is still Chargeable: nothing has changed.
        app.tell_of((ObjectType::ChargePermission, &permission), &permission).await;
        app.run_due().await;
        app.advance(MINUTE);
    }
    app.pass(HOUR, 5 * MINUTE).await;
    assert_eq!(app.creates(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_bare_notification_long_after_the_decline_releases_at_most_once_a_day() {
    let app = TestApp::start().await;
    let permission = app.permission();
    for _ in 0..9 {
        let outcome = Outcome::DeclineStayingChargeable(DeclineCode::HardDeclined);
        app.sandbox.script_charge(&permission, outcome).expect("a permission");
    }
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.advance(HOUR);
    for _ in 0..6 {
        app.tell_of((ObjectType::ChargePermission, &permission), &permission).await;
        app.run_due().await;
        app.pass(HOUR, 10 * MINUTE).await;
    }
    assert_eq!(app.creates(), 2, "one release by hearsay within 24 hours");
    app.finish().await;
}

#[tokio::test]
async fn a_permission_closed_by_the_buyer_ends_the_waiting_retry_without_another_call() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.sandbox.buyer_closes(&permission).expect("a permission");
    app.deliver_all().await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "abandoned");
    let ended = app.events_of("charge.abandoned").await;
    assert_eq!(ended[0]["reason"], "charge_permission_closed");
    assert_eq!(ended[0]["closedBy"], "buyer");
    assert_eq!(app.events_of("charge_permission.closed").await.len(), 1);
    app.pass(30 * DAY, 3 * DAY).await;
    assert_eq!(app.creates(), 1);
    app.submit("next-cycle", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("next-cycle").await, "abandoned");
    assert_eq!(app.creates(), 1, "a closed permission is never charged");
    app.finish().await;
}

#[tokio::test]
async fn a_closing_whose_notification_is_lost_is_found_before_the_next_attempt() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.sandbox.buyer_closes(&permission).expect("a permission");
    app.pass(3 * DAY, 6 * HOUR).await;
    assert_eq!(app.state("renewal").await, "abandoned");
    assert_eq!(app.creates(), 1);
    app.finish().await;
}

#[tokio::test]
async fn an_amazon_rejection_and_other_final_refusals_end_the_charge() {
    let app = TestApp::start().await;
    let final_answers = [
        Outcome::Decline(DeclineCode::AmazonRejected),
        Outcome::Decline(DeclineCode::PaymentMethodNotAllowed),
        Outcome::Decline(DeclineCode::MfaNotCompleted),
        Outcome::Decline(DeclineCode::TransactionCountExceeded),
        Outcome::Answer(400, "TransactionAmountExceeded".to_owned()),
        Outcome::Answer(422, "SomethingNew".to_owned()),
    ];
    for (index, outcome) in final_answers.into_iter().enumerate() {
        let permission = app.permission();
        app.sandbox.script_charge(&permission, outcome.clone()).expect("a permission");
        let id = format!("final-{index}");
        app.submit(&id, &permission).await;
        app.run_due().await;
        assert_eq!(app.state(&id).await, "abandoned", "{outcome:?}");
    }
    assert_eq!(app.creates(), 6);
    app.pass(2 * DAY, 6 * HOUR).await;
    assert_eq!(app.creates(), 6);
    app.finish().await;
}

#[tokio::test]
async fn answers_that_are_not_understood_park_the_charge_and_call_for_a_person() {
    let app = TestApp::start().await;
    for (index, (status, code)) in
        [(400, "InvalidParameterValue"), (404, "ResourceNotFound"), (405, "UnsupportedOperation")]
            .into_iter()
            .enumerate()
    {
        let permission = app.permission();
        app.sandbox.script_charge(&permission, Outcome::Answer(status, code.to_owned())).expect("a permission");
        let id = format!("odd-{index}");
        app.submit(&id, &permission).await;
        app.run_due().await;
        let charge = app.charge(&id).await;
        assert_eq!(
            (charge["state"].as_str(), charge["parkedFor"].as_str()),
            (Some("parked"), Some("attention")),
            "{code}"
        );
    }
    assert_eq!(app.events_of("account.attention").await.len(), 3);
    app.pass(2 * DAY, 6 * HOUR).await;
    assert_eq!(app.creates(), 3);
    app.finish().await;
}

#[tokio::test]
async fn a_processing_failure_is_confirmed_under_the_same_key_before_a_new_number() {
    let app = TestApp::start().await;
    let permission = app.permission();
    for _ in 0..2 {
        app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::ProcessingFailure)).expect("a permission");
    }
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.charge("renewal").await["numberStatus"], "unknown");
    app.pass(X - MINUTE, 10 * MINUTE).await;
    assert_eq!(app.creates(), 1);
    app.pass(2 * MINUTE, MINUTE).await;
    assert_eq!(app.creates(), 2);
    let keys: Vec<_> = app
        .ledger()
        .requests_of(Operation::CreateCharge)
        .iter()
        .map(|request| request.idempotency_key.clone())
        .collect();
    assert_eq!(keys[0], keys[1]);
    app.pass(2 * HOUR, 10 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    let keys: Vec<_> = app
        .ledger()
        .requests_of(Operation::CreateCharge)
        .iter()
        .map(|request| request.idempotency_key.clone())
        .collect();
    assert_eq!(keys.len(), 3);
    assert_ne!(keys[1], keys[2]);
    app.finish().await;
}

#[tokio::test]
async fn a_used_up_monthly_limit_waits_for_the_next_month_without_a_hopeless_call() {
    let app = TestApp::start().await;
    let permission = app
        .sandbox
        .create_permission(PermissionSpec::recurring("USD").with_monthly_limit("20".parse().expect("a number")));
    app.submit("first", &permission).await;
    app.run_due().await;
    app.submit("second", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("first").await, "captured");
    assert_eq!(app.state("second").await, "scheduled");
    assert_eq!(app.creates(), 1, "the balance is looked at before a call is made");
    app.pass(33 * DAY, 3 * HOUR).await;
    assert_eq!(app.state("second").await, "captured");
    assert_eq!(app.events_of("charge.captured").await[1]["recoveredBy"], "new_month");
    assert_eq!(app.creates(), 2);
    app.finish().await;
}

#[tokio::test]
async fn an_amount_above_the_limit_of_the_permission_is_given_up_at_once() {
    let app = TestApp::start().await;
    let permission = app
        .sandbox
        .create_permission(PermissionSpec::recurring("USD").with_monthly_limit("10".parse().expect("a number")));
    app.submit("too-much", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("too-much").await, "abandoned");
    assert_eq!(app.creates(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_non_chargeable_permission_is_not_charged_and_the_buyer_is_asked() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox
        .set_permission(&permission, PermissionState::NonChargeable, &["PaymentMethodExpired"])
        .expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.creates(), 0);
    assert_eq!(app.charge("renewal").await["parkedFor"], "instrument");
    assert_eq!(app.events_of("charge.action_required").await[0]["reasonCode"], "PaymentMethodExpired");
    app.sandbox.buyer_updates_instrument(&permission, "MasterCard ****2222").expect("a permission");
    app.deliver_all().await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_permission_that_is_busy_with_a_charge_is_waited_for_and_nobody_is_mailed() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox
        .set_permission(&permission, PermissionState::NonChargeable, &["ChargeInProgress"])
        .expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "scheduled");
    assert!(app.events_of("charge.action_required").await.is_empty());
    app.sandbox.set_permission(&permission, PermissionState::Chargeable, &[]).expect("a permission");
    app.pass(2 * HOUR, 10 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_pending_authorisation_is_followed_to_its_end_by_notification_or_by_the_clock() {
    let app = TestApp::start().await;
    for (index, notified) in [true, false].into_iter().enumerate() {
        let permission = app.permission();
        app.sandbox.script_charge(&permission, Outcome::Pend).expect("a permission");
        let id = format!("pending-{index}");
        let mut body = TestApp::body(&id, &permission);
        body["canHandlePendingAuthorization"] = json!(true);
        assert_eq!(app.post("/v1/charges", &body).await.status, 202);
        app.run_due().await;
        let charge = app.charge(&id).await;
        assert_eq!(charge["state"], "pending");
        assert_eq!(charge["mayStillCharge"], true);
        let charge_id = charge["chargeId"].as_str().expect("a charge").to_owned();
        app.sandbox.finish_pending(&charge_id, ChargeState::Captured, None).expect("a charge");
        if notified {
            app.deliver_all().await;
            app.run_due().await;
        } else {
            drop(app.sandbox.notifications());
            app.pass(2 * HOUR, 20 * MINUTE).await;
        }
        assert_eq!(app.state(&id).await, "captured");
    }
    assert_eq!(app.creates(), 2);
    app.finish().await;
}

#[tokio::test]
async fn an_account_fault_stops_calling_and_abandons_nothing() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.inject(Operation::GetChargePermission, Fault::status(403, "InvalidRequestSignature"));
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.creates(), 0);
    assert_eq!(app.ledger().requests.len(), 1, "one call, then a pause");
    app.pass(20 * MINUTE, 5 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_charge_that_is_not_ours_is_reported_once() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    app.run_due().await;
    let ours = app.charge("renewal").await["chargeId"].as_str().expect("a charge").to_owned();
    // The same charge, told of when neither the intent nor what was remembered of its permission is there any more.
    let key = app.store.keys().permission(&permission.parse().expect("an id"));
    let mut connection = app.connection().await;
    let () = redis::cmd("DEL")
        .arg(app.store.keys().intent(&"renewal".parse().expect("an id")))
        .query_async(&mut connection)
        .await
        .expect("DEL");
    let () = redis::cmd("HDEL").arg(key).arg("record").query_async(&mut connection).await.expect("HDEL");
    for _ in 0..2 {
        app.tell_of((ObjectType::Charge, &ours), &permission).await;
        app.run_due().await;
    }
    let unmatched = app.events_of("charge.unmatched").await;
    assert_eq!(unmatched.len(), 1);
    assert_eq!(unmatched[0]["chargeId"], json!(ours));
    app.finish().await;
}
