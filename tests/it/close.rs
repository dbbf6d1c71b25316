//! Closing: by the buyer, by Amazon, and by the merchant through the API, which survives a crash at each step.

use amazon_pay_ipn::sandbox::{
    ChargeState, DeclineCode, Fault, Gate, Operation, Outcome, PermissionKind, PermissionSpec, Reading,
};
use serde_json::{Value, json};

use crate::support::{DAY, HOUR, MINUTE, TestApp, X};

fn wish() -> Value {
    json!({ "closureReason": "the subscription was canceled in the shop" })
}

fn path(permission: &str) -> String {
    format!("/v1/charge-permissions/{permission}")
}

async fn ask(app: &TestApp, permission: &str, body: &Value) -> u16 {
    app.post(&format!("{}/close", path(permission)), body).await.status
}

fn count(app: &TestApp, operation: Operation) -> usize {
    app.ledger().requests_of(operation).len()
}

/// A permission with one charge that was declined softly and waits for its next attempt.
async fn with_a_retry(app: &TestApp) -> String {
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "scheduled");
    permission
}

/// The charge and the permission have ended by the merchant's wish, and nothing more is ever charged.
async fn assert_closed_by_the_merchant(app: &TestApp, permission: &str, creates: usize) {
    let shown = app.get(&path(permission)).await.body;
    assert_eq!((&shown["closed"], &shown["closedBy"]), (&json!(true), &json!("merchant")), "{shown}");
    assert!(shown.get("closing").is_none(), "{shown}");
    assert_eq!(app.state("renewal").await, "abandoned");
    let ended = &app.events_of("charge.abandoned").await[0];
    assert_eq!((&ended["reason"], &ended["closedBy"]), (&json!("charge_permission_closed"), &json!("merchant")));
    assert_eq!(app.events_of("charge_permission.closed").await.len(), 1);
    app.pass(35 * DAY, 5 * DAY).await;
    assert_eq!(app.creates(), creates, "no new charge is ever made");
}

#[tokio::test]
async fn the_merchant_closes_a_permission_and_the_answers_say_how_far_it_is() {
    let app = TestApp::start().await;
    assert_eq!(app.get(&path("C01-0000000-0000009")).await.status, 404);
    let permission = with_a_retry(&app).await;
    assert_eq!(ask(&app, &permission, &wish()).await, 202);
    let again = app.post(&format!("{}/close", path(&permission)), &wish()).await;
    assert_eq!((again.status, &again.body["closing"]["closureReason"]), (200, &wish()["closureReason"]));
    let other = json!({ "closureReason": "another one", "cancelPendingCharges": true });
    assert_eq!(ask(&app, &permission, &other).await, 409);
    let refused = app.post("/v1/charges", &TestApp::body("next-cycle", &permission)).await;
    assert_eq!(refused.status, 409, "{}", refused.body);
    let known = app.post("/v1/charges", &TestApp::body("renewal", &permission)).await;
    assert_eq!(known.status, 200, "a submission that was accepted before is still recognised");
    app.run_due().await;
    assert_eq!(count(&app, Operation::CloseChargePermission), 1);
    let closed = app.post(&format!("{}/close", path(&permission)), &other).await;
    assert_eq!((closed.status, &closed.body["state"]), (200, &json!("Closed")));
    assert_closed_by_the_merchant(&app, &permission, 1).await;
    assert_eq!(count(&app, Operation::CloseChargePermission), 1);
    let key = app.store.keys().permission(&permission.parse().expect("an id"));
    let left: Option<String> =
        redis::cmd("HGET").arg(key).arg("close_at").query_async(&mut app.connection().await).await.expect("HGET");
    assert_eq!(left, None, "the wish ends with the look that said Closed");
    app.finish().await;
}

#[tokio::test]
async fn a_closing_that_is_not_well_formed_is_refused_by_field() {
    let app = TestApp::start().await;
    let permission = app.permission();
    for (body, field) in [
        (json!({}), "closureReason"),
        (json!({ "closureReason": " " }), "closureReason"),
        (json!({ "closureReason": "a\nb" }), "closureReason"),
        (json!({ "closureReason": "x".repeat(256) }), "closureReason"),
        (json!({ "closureReason": "x", "cancelPendingCharges": "yes" }), "cancelPendingCharges"),
        (json!({ "closureReason": "x", "force": true }), "force"),
    ] {
        let answer = app.post(&format!("{}/close", path(&permission)), &body).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (400, &json!(field)), "{body}");
    }
    assert_eq!(app.post(&format!("{}/close", path("a%20b")), &wish()).await.status, 400);
    app.run_due().await;
    assert_eq!(count(&app, Operation::CloseChargePermission), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_closing_whose_worker_dies_at_any_step_is_carried_out_and_nothing_is_charged() {
    let pass = || Fault::Delay(std::time::Duration::ZERO);
    for step in ["before the call", "after the call", "at the look after it"] {
        let mut app = TestApp::start().await;
        let permission = with_a_retry(&app).await;
        assert_eq!(ask(&app, &permission, &wish()).await, 202);
        let gate = Gate::new();
        match step {
            "before the call" => app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone())),
            "after the call" => app.sandbox.inject(Operation::CloseChargePermission, Fault::HoldAfter(gate.clone())),
            _ => {
                app.sandbox.inject(Operation::GetChargePermission, pass());
                app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
            }
        }
        let reconciler = app.reconciler.clone();
        let work = tokio::spawn(async move { reconciler.step().await });
        gate.reached().await;
        work.abort();
        let _ = work.await;
        gate.release();
        let closed_before_the_crash = count(&app, Operation::CloseChargePermission);
        assert_eq!(closed_before_the_crash, usize::from(step != "before the call"));
        drop(app.sandbox.notifications());
        app.restart().await;
        assert_eq!(ask(&app, &permission, &wish()).await, 200, "{step}: the wish stands");
        let refused = app.post("/v1/charges", &TestApp::body("next-cycle", &permission)).await;
        assert_eq!(refused.status, 409, "{step}");
        app.pass(5 * MINUTE, MINUTE).await;
        assert_closed_by_the_merchant(&app, &permission, 1).await;
        assert_eq!(count(&app, Operation::CloseChargePermission), 1, "{step}: a look saves the second call");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_closing_between_decision_and_send_is_seen_by_the_mark() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let gate = Gate::new();
    app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
    app.submit("renewal", &permission).await;
    let reconciler = app.reconciler.clone();
    let step = tokio::spawn(async move { reconciler.step().await });
    gate.reached().await;
    assert_eq!(ask(&app, &permission, &wish()).await, 202);
    gate.release();
    step.await.expect("no panic").expect("Redis answers");
    assert_eq!(app.creates(), 0, "no new number after an accepted closing");
    app.pass(MINUTE, 10 * std::time::Duration::from_secs(1)).await;
    assert_closed_by_the_merchant(&app, &permission, 0).await;
    app.finish().await;
}

#[tokio::test]
async fn an_unknown_number_is_asked_about_only_after_the_closing_at_amazon() {
    for (reading, lost, state) in [
        (Reading::ReplayAll, Fault::DropAfter, "captured"),
        (Reading::ReEvaluate, Fault::DropAfter, "captured"),
        (Reading::ReEvaluate, Fault::DropBefore, "abandoned"),
    ] {
        let app = TestApp::with_reading(reading).await;
        let permission = app.permission();
        app.sandbox.inject(Operation::CreateCharge, lost.clone());
        app.submit("renewal", &permission).await;
        app.run_due().await;
        // Amazon cannot be asked to close it for a while: the number waits for that.
        for _ in 0..3 {
            app.sandbox.inject(Operation::CloseChargePermission, Fault::status(503, "ServiceUnavailable"));
        }
        assert_eq!(ask(&app, &permission, &wish()).await, 202);
        app.pass(20 * MINUTE, MINUTE).await;
        assert_eq!(count(&app, Operation::CloseChargePermission), 3);
        assert_eq!(app.ledger().requests.iter().filter(|it| it.operation == Operation::CreateCharge).count(), 1);
        drop(app.sandbox.notifications());
        app.pass(X + 5 * MINUTE, MINUTE).await;
        assert_eq!(app.state("renewal").await, state, "{reading:?}");
        let ledger = app.ledger();
        let order: Vec<_> = ledger.requests.iter().map(|it| it.operation).collect();
        let closed = order.iter().rposition(|it| *it == Operation::CloseChargePermission).expect("closed");
        let created = order.iter().rposition(|it| *it == Operation::CreateCharge).expect("asked again");
        assert!(closed < created, "closed first, then resolved");
        assert_eq!(
            ledger.charges.iter().filter(|it| it.state == ChargeState::Captured).count(),
            usize::from(state == "captured")
        );
        app.finish().await;
    }
}

#[tokio::test]
async fn an_authorised_charge_that_is_canceled_with_its_permission_is_found_at_once_without_a_notification() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Authorize).expect("a permission");
    let mut body = TestApp::body("renewal", &permission);
    body["captureNow"] = json!(false);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "authorized");
    let with_pending = json!({ "closureReason": "moved", "cancelPendingCharges": true });
    assert_eq!(ask(&app, &permission, &with_pending).await, 202);
    app.run_due().await;
    drop(app.sandbox.notifications());
    assert_eq!(app.state("renewal").await, "abandoned");
    let ended = &app.events_of("charge.abandoned").await[0];
    assert_eq!((&ended["reason"], &ended["closedBy"]), (&json!("ChargePermissionCanceled"), &json!("merchant")));
    app.finish().await;
}

#[tokio::test]
async fn a_closing_goes_on_while_the_stop_switch_is_on() {
    let app = TestApp::start().await;
    let permission = with_a_retry(&app).await;
    assert_eq!(app.post("/v1/stop", &json!({})).await.status, 200);
    assert_eq!(ask(&app, &permission, &wish()).await, 202);
    app.run_due().await;
    assert_closed_by_the_merchant(&app, &permission, 1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_closing_that_amazon_calls_wrong_is_told_of_not_repeated_and_can_be_asked_for_anew() {
    let app = TestApp::start().await;
    let permission = with_a_retry(&app).await;
    app.sandbox.inject(Operation::CloseChargePermission, Fault::status(400, "InvalidParameterValue"));
    assert_eq!(ask(&app, &permission, &wish()).await, 202);
    app.pass(4 * DAY, 6 * HOUR).await;
    assert_eq!(count(&app, Operation::CloseChargePermission), 1);
    assert_eq!(app.creates(), 1, "what is to be closed is not charged meanwhile");
    let alerts = app.events_of("account.attention").await;
    let told = alerts.iter().filter(|alert| alert["kind"] == "closing_refused").count();
    assert_eq!(told, 1, "{alerts:?}");
    assert_eq!(app.get(&path(&permission)).await.body["closing"]["refused"], "InvalidParameterValue");
    assert_eq!(ask(&app, &permission, &json!({ "closureReason": "moved" })).await, 202);
    app.run_due().await;
    assert_closed_by_the_merchant(&app, &permission, 1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_closing_waits_out_a_refused_account_and_one_without_a_charge_is_closed_too() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.inject(Operation::CloseChargePermission, Fault::status(403, "UnauthorizedAccess"));
    assert_eq!(ask(&app, &permission, &wish()).await, 202);
    app.run_due().await;
    assert_eq!(count(&app, Operation::CloseChargePermission), 1);
    app.pass(10 * MINUTE, MINUTE).await;
    assert_eq!(count(&app, Operation::CloseChargePermission), 1);
    app.pass(10 * MINUTE, MINUTE).await;
    assert_eq!(app.get(&path(&permission)).await.body["closed"], true);
    assert!(app.events_of("charge_permission.closed").await[0]["openCharges"].as_array().expect("a list").is_empty());
    app.pass(365 * DAY, 30 * DAY).await;
    assert_eq!(count(&app, Operation::CloseChargePermission), 2);
    app.finish().await;
}

#[tokio::test]
async fn the_buyer_closes_a_permission_with_a_scheduled_a_parked_an_authorised_and_a_pending_charge() {
    let app = TestApp::start().await;
    let permission = app.sandbox.create_permission(PermissionSpec::new(PermissionKind::PaymentMethodOnFile, "USD"));
    for (id, outcome) in [
        ("authorised", Outcome::Authorize),
        ("parked", Outcome::DeclineStayingChargeable(DeclineCode::HardDeclined)),
        ("scheduled", Outcome::Decline(DeclineCode::SoftDeclined)),
        ("pending", Outcome::Pend),
    ] {
        app.sandbox.script_charge(&permission, outcome).expect("a permission");
        let mut body = TestApp::body(id, &permission);
        body["captureNow"] = json!(false);
        body["canHandlePendingAuthorization"] = json!(true);
        assert_eq!(app.post("/v1/charges", &body).await.status, 202);
        app.run_due().await;
    }
    let shown = app.get(&path(&permission)).await.body;
    let open = shown["openCharges"].as_array().expect("a list");
    let states: Vec<_> = open.iter().map(|charge| charge["state"].as_str().expect("a state")).collect();
    assert_eq!(states, ["authorized", "parked", "scheduled", "pending"], "{shown}");
    assert!(
        open[1]["waitsFor"]
            .as_str()
            .expect("words")
            .contains("the buyer to update the payment method after HardDeclined")
    );
    app.deliver_all().await;
    app.run_due().await;
    let reads = count(&app, Operation::GetCharge);
    app.sandbox.buyer_closes(&permission).expect("a permission");
    app.deliver_all().await;
    app.run_due().await;
    for id in ["parked", "scheduled"] {
        assert_eq!(app.state(id).await, "abandoned", "{id}");
    }
    for ended in app.events_of("charge.abandoned").await {
        assert_eq!(ended["closedBy"], "buyer");
        assert!(ended["whatToDo"].as_str().expect("words").contains("Saved Wallet"), "{ended}");
    }
    let closed = &app.events_of("charge_permission.closed").await[0];
    assert_eq!(closed["openCharges"], json!(["authorised", "parked", "scheduled", "pending"]));
    assert_eq!(count(&app, Operation::GetCharge), reads + 2, "the other two are looked at right away");
    let pending = app.charge("pending").await["chargeId"].as_str().expect("a charge").to_owned();
    app.sandbox.finish_pending(&pending, ChargeState::Declined, Some(DeclineCode::SoftDeclined)).expect("a charge");
    drop(app.sandbox.notifications());
    app.pass(HOUR + MINUTE, 10 * MINUTE).await;
    assert_eq!(app.state("pending").await, "abandoned");
    assert_eq!(
        app.state("authorised").await,
        "authorized",
        "an authorisation outlives its permission; whoever captures it may"
    );
    app.pass(20 * DAY, DAY).await;
    assert_eq!(app.creates(), 4);
    app.finish().await;
}

#[tokio::test]
async fn amazon_closes_a_permission_with_its_rejection_and_the_other_charges_end_with_who_did_it() {
    let app = TestApp::start().await;
    let permission = with_a_retry(&app).await;
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::AmazonRejected)).expect("a permission");
    app.submit("rejected", &permission).await;
    app.run_due().await;
    assert_eq!((app.state("rejected").await.as_str(), app.state("renewal").await.as_str()), ("abandoned", "abandoned"));
    let ended = app.events_of("charge.abandoned").await;
    let of = |id: &str| ended.iter().find(|event| event["id"] == id).expect("an end").clone();
    assert_eq!(of("rejected")["reason"], "AmazonRejected");
    assert_eq!(
        (&of("renewal")["closedBy"], &of("renewal")["reason"]),
        (&json!("amazon"), &json!("charge_permission_closed"))
    );
    assert!(of("renewal")["whatToDo"].as_str().expect("words").contains("new checkout"));
    app.pass(30 * DAY, 5 * DAY).await;
    assert_eq!(app.creates(), 2);
    app.finish().await;
}

#[tokio::test]
async fn a_look_that_somebody_asks_for_is_made_now_and_is_no_evidence_of_another_card() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let declined = Outcome::DeclineStayingChargeable(DeclineCode::HardDeclined);
    app.sandbox.script_charge(&permission, declined).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.advance(HOUR);
    app.run_due().await;
    let looks = count(&app, Operation::GetChargePermission);
    app.sandbox.inject(Operation::GetChargePermission, Fault::status(503, "ServiceUnavailable"));
    let asked = format!("{}/reconcile", path(&permission));
    assert_eq!(app.post(&asked, &json!({})).await.status, 202);
    app.run_due().await;
    assert_eq!(count(&app, Operation::GetChargePermission), looks + 1);
    app.pass(10 * MINUTE, MINUTE).await;
    assert_eq!(
        count(&app, Operation::GetChargePermission),
        looks + 2,
        "asked for until Amazon answers, and then no more"
    );
    assert_eq!((app.creates(), app.state("renewal").await.as_str()), (1, "parked"));
    app.sandbox.buyer_closes(&permission).expect("a permission");
    drop(app.sandbox.notifications());
    assert_eq!(app.post(&asked, &json!({})).await.status, 202);
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "abandoned");
    app.finish().await;
}

#[tokio::test]
async fn a_look_at_a_permission_that_nobody_has_named_needs_to_be_told_that_it_is_new() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let (shown, asked) = (path(&permission), format!("{}/reconcile", path(&permission)));
    for body in [json!({}), json!({ "new": false })] {
        let answer = app.post(&asked, &body).await;
        assert_eq!(answer.status, 404);
        assert!(
            answer.body["detail"].as_str().is_some_and(|detail| detail.contains("\"new\": true")),
            "{}",
            answer.body
        );
    }
    assert_eq!(app.post(&asked, &json!({ "news": true })).await.status, 400);
    app.run_due().await;
    assert_eq!((app.get(&shown).await.status, app.ledger().requests.len()), (404, 0), "nothing is left behind");

    assert_eq!(app.post(&asked, &json!({ "new": true })).await.status, 202);
    app.run_due().await;
    let known = app.get(&shown).await;
    assert_eq!((known.status, &known.body["state"]), (200, &json!("Chargeable")));
    assert_eq!(app.post(&asked, &json!({})).await.status, 202, "it is known now");
    app.run_due().await;
    app.finish().await;
}
