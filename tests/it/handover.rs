//! Handing over: a caller that got the decline itself gives us the recovery.

use std::time::Duration;

use amazon_pay_ipn::sandbox::{Operation, PermissionState};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::{DAY, HOUR, MINUTE, TestApp, X};

fn ago(app: &TestApp, span: Duration) -> Timestamp {
    app.clock.now().checked_sub(span).expect("a time")
}

/// A charge whose last request was declined so long ago.
fn declined(app: &TestApp, permission: &str, reason: &str, span: Duration, attempts: u32) -> Value {
    let mut body = TestApp::body("renewal", permission);
    body["declined"] = json!({ "reasonCode": reason, "at": ago(app, span), "attempts": attempts });
    body
}

async fn hand_over(app: &TestApp, permission: &str, reason: &str, span: Duration, attempts: u32) {
    let answer = app.post("/v1/charges", &declined(app, permission, reason, span, attempts)).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
}

#[tokio::test]
async fn a_soft_decline_that_is_handed_over_is_tried_a_day_after_it_and_counts_as_one_attempt() {
    let app = TestApp::start().await;
    let permission = app.permission();
    hand_over(&app, &permission, "SoftDeclined", 6 * HOUR, 1).await;
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["number"], &charge["attempts"]), (&json!(0), &json!(1)));
    app.run_due().await;
    assert_eq!(app.ledger().requests_of(Operation::GetChargePermission).len(), 1, "one look after the decline");
    assert_eq!(app.event_kinds().await, ["charge.scheduled"]);
    app.pass(17 * HOUR, HOUR).await;
    assert_eq!(app.creates(), 0);
    app.pass(4 * HOUR, HOUR).await;
    assert_eq!(app.state("renewal").await, "captured");
    let captured = app.events_of("charge.captured").await;
    assert_eq!((&captured[0]["number"], &captured[0]["attempts"]), (&json!(0), &json!(2)));
    assert_eq!(captured[0]["recoveredBy"], "schedule");
    app.finish().await;
}

#[tokio::test]
async fn number_0_never_goes_out_before_the_handed_over_decline_is_x_old() {
    let app = TestApp::start().await;
    for reason in ["ProcessingFailure", "HardDeclined"] {
        let permission = app.permission();
        let mut body = declined(&app, &permission, reason, MINUTE, 1);
        body["id"] = json!(reason);
        assert_eq!(app.post("/v1/charges", &body).await.status, 202);
        app.run_due().await;
        // The buyer mends the card, and somebody asks for a retry: neither makes an older copy of the caller's request go away.
        app.sandbox.buyer_updates_instrument(&permission, "MasterCard ****2222").expect("a permission");
        app.deliver_all().await;
        app.run_due().await;
        assert_eq!(app.post(&format!("/v1/charges/{reason}/retry"), &json!({})).await.status, 202);
    }
    app.pass(X - 2 * MINUTE, MINUTE).await;
    assert_eq!(app.creates(), 0);
    app.pass(3 * MINUTE, MINUTE).await;
    assert_eq!(
        (app.state("ProcessingFailure").await, app.state("HardDeclined").await),
        ("captured".into(), "captured".into())
    );
    app.finish().await;
}

#[tokio::test]
async fn a_hard_decline_that_is_handed_over_asks_the_buyer_and_is_released_by_an_update_after_the_first_look() {
    let app = TestApp::start().await;
    let permission = app.permission();
    // A notification that waits already must not release it either.
    app.advance(20 * MINUTE);
    hand_over(&app, &permission, "HardDeclined", HOUR, 1).await;
    assert_eq!(app.event_kinds().await, ["charge.parked", "charge.action_required"]);
    assert_eq!(app.events_of("charge.action_required").await[0]["reasonCode"], "HardDeclined");
    app.run_due().await;
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["state"], &charge["parkedFor"]), (&json!("parked"), &json!("instrument")));
    app.pass(3 * DAY, 6 * HOUR).await;
    assert_eq!(app.creates(), 0, "the first look is the baseline, not an update");
    app.sandbox.buyer_updates_instrument(&permission, "MasterCard ****2222").expect("a permission");
    app.deliver_all().await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.events_of("charge.captured").await[0]["recoveredBy"], "instrument_update");
    app.finish().await;
}

#[tokio::test]
async fn the_first_look_releases_nothing_even_if_a_notification_asked_for_it() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.inject(Operation::GetChargePermission, amazon_pay_ipn::sandbox::Fault::status(503, ""));
    hand_over(&app, &permission, "HardDeclined", HOUR, 1).await;
    app.run_due().await;
    // The look that counts is the first that Amazon answers; by now a notification is no echo.
    app.advance(HOUR);
    app.tell_of((amazon_pay_ipn::sandbox::ObjectType::ChargePermission, &permission), &permission).await;
    app.run_due().await;
    assert!(app.ledger().requests_of(Operation::GetChargePermission).len() >= 2);
    assert_eq!((app.state("renewal").await.as_str(), app.creates()), ("parked", 0));
    app.finish().await;
}

#[tokio::test]
async fn a_used_up_month_that_is_handed_over_waits_for_the_turn() {
    let app = TestApp::start().await;
    let permission = app.permission();
    hand_over(&app, &permission, "PeriodicAmountExceeded", HOUR, 1).await;
    let charge = app.charge("renewal").await;
    let at: Timestamp = charge["nextAttemptAt"].as_str().expect("a time").parse().expect("a time");
    assert!(at > app.clock.now());
    app.run_due().await;
    assert_eq!(app.creates(), 0);
    app.pass(at.duration_since(app.clock.now()).unsigned_abs() + HOUR, 6 * HOUR).await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.events_of("charge.captured").await[0]["recoveredBy"], "new_month");
    app.finish().await;
}

#[tokio::test]
async fn a_status_conflict_that_is_handed_over_is_decided_by_the_next_look() {
    let app = TestApp::start().await;
    let (fine, broken, over) = (app.permission(), app.permission(), app.permission());
    app.sandbox
        .set_permission(&broken, PermissionState::NonChargeable, &["PaymentMethodDeleted"])
        .expect("a permission");
    app.sandbox.buyer_closes(&over).expect("a permission");
    for permission in [&fine, &broken, &over] {
        let mut body = declined(&app, permission, "InvalidChargePermissionStatus", Duration::ZERO, 1);
        body["id"] = json!(permission);
        assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    }
    app.run_due().await;
    assert_eq!(app.state(&broken).await, "parked");
    assert_eq!(app.state(&over).await, "abandoned");
    app.pass(50 * MINUTE, 10 * MINUTE).await;
    assert_eq!(app.creates(), 0);
    app.pass(20 * MINUTE, 10 * MINUTE).await;
    assert_eq!(app.state(&fine).await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn what_cannot_be_recovered_is_refused_with_the_reason_and_nothing_is_stored() {
    let app = TestApp::start().await;
    let permission = app.permission();
    for (reason, span, attempts, field, says) in [
        ("AmazonRejected", HOUR, 1, "declined.reasonCode", "nothing to recover"),
        ("TransactionAmountExceeded", HOUR, 1, "declined.reasonCode", "nothing to recover"),
        ("Sunspots", HOUR, 1, "declined.reasonCode", "expected one of SoftDeclined, HardDeclined"),
        ("SoftDeclined", HOUR, 0, "declined.attempts", "from 1"),
        ("SoftDeclined", HOUR, 5, "declined", "allows 5 attempts"),
        ("HardDeclined", HOUR, 9, "declined", "allows 5 attempts"),
    ] {
        let answer = app.post("/v1/charges", &declined(&app, &permission, reason, span, attempts)).await;
        assert_eq!(answer.status, 400, "{reason}: {}", answer.body);
        assert_eq!(answer.body["errors"][0]["field"], field, "{}", answer.body);
        let message = answer.body["errors"][0]["message"].as_str().expect("a message");
        assert!(message.contains(says), "{message}");
    }
    let mut body = TestApp::body("renewal", &permission);
    let soon = app.clock.now().checked_add(SignedDuration::from_mins(1)).expect("a time");
    body["declined"] = json!({ "reasonCode": "SoftDeclined", "at": soon, "attempts": 1 });
    let answer = app.post("/v1/charges", &body).await;
    assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (400, &json!("declined.at")));
    assert_eq!(app.get("/v1/charges/renewal").await.status, 404);
    assert!(app.events().await.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn what_is_handed_over_is_part_of_the_submission() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let body = declined(&app, &permission, "SoftDeclined", HOUR, 1);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.advance(10 * MINUTE);
    assert_eq!(app.post("/v1/charges", &body).await.status, 200);
    for (field, value) in
        [("reasonCode", json!("HardDeclined")), ("attempts", json!(2)), ("at", json!(ago(&app, 5 * HOUR)))]
    {
        let mut other = body.clone();
        other["declined"][field] = value;
        assert_eq!(app.post("/v1/charges", &other).await.status, 409, "{field}");
    }
    assert_eq!(app.post("/v1/charges", &TestApp::body("renewal", &permission)).await.status, 409);
    app.run_due().await;
    app.finish().await;
}
