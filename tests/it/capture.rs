//! Captures: an authorisation is captured once, whole or in part, or it ends; whatever is lost, late or asked for meanwhile.

use std::time::Duration;

use amazon_pay_ipn::reconciler::StepOutcome;
use amazon_pay_ipn::sandbox::{
    ChargeState, DeclineCode, Fault, Gate, NotificationType, ObjectType, Operation, Outcome, Reading, SignatureVersion,
};
use amazon_pay_ipn::store::Bounds;
use amazon_pay_ipn::store::account::Init;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Answer, DAY, HOUR, MINUTE, Options, TestApp, X};

const READINGS: [Reading; 3] = [Reading::ReplayAll, Reading::ReEvaluate, Reading::StatusFirst];
const CAPTURE: &str = "/v1/charges/renewal/capture";

/// Submits `renewal` for a later capture; returns its permission.
async fn submitted(app: &TestApp, change: impl FnOnce(&mut Value)) -> String {
    let permission = app.permission();
    let mut body = TestApp::body("renewal", &permission);
    body["captureNow"] = json!(false);
    change(&mut body);
    let answer = app.post("/v1/charges", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    app.run_due().await;
    permission
}

/// As [`submitted`], and it is authorised; Amazon's notification about it was lost.
async fn authorized(app: &TestApp) -> String {
    let permission = submitted(app, |_| {}).await;
    assert_eq!(app.state("renewal").await, "authorized");
    drop(app.sandbox.notifications());
    permission
}

async fn capture(app: &TestApp, body: Value) -> Answer {
    app.post(CAPTURE, &body).await
}

/// Asks for the whole amount and lets it be done as far as it goes at once.
async fn captured_whole(app: &TestApp) {
    let answer = capture(app, json!({})).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    app.run_due().await;
}

fn part(amount: &str) -> Value {
    json!({ "captureAmount": { "amount": amount, "currencyCode": "USD" } })
}

/// The idempotency keys of the captures that reached Amazon.
fn keys(app: &TestApp) -> Vec<String> {
    let ledger = app.ledger();
    let requests = ledger.requests_of(Operation::CaptureCharge);
    requests.iter().map(|request| request.idempotency_key.clone().unwrap_or_default()).collect()
}

fn one_key(app: &TestApp) -> bool {
    let keys = keys(app);
    keys.iter().all(|key| *key == keys[0])
}

/// The only charge, its state at Amazon and what was captured of it.
fn at_amazon(app: &TestApp) -> (String, String, Option<String>) {
    let charges = app.ledger().charges;
    assert_eq!(charges.len(), 1, "a capture makes no charge");
    let charge = &charges[0];
    let captured = charge.captured.map(|amount| amount.normalize().to_string());
    (charge.charge_id.clone(), charge.state.as_str().to_owned(), captured)
}

fn step(app: &TestApp) -> JoinHandle<StepOutcome> {
    let reconciler = app.reconciler.clone();
    tokio::spawn(async move { reconciler.step().await.expect("Redis answers") })
}

async fn alerts(app: &TestApp) -> Vec<String> {
    let alerts = app.events_of("account.attention").await;
    alerts.iter().map(|alert| alert["kind"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn impatient() -> TestApp {
    TestApp::with(Options { timeout: Duration::from_secs(2), ..Options::default() }).await
}

#[tokio::test]
async fn an_authorisation_is_captured_whole_after_a_look_at_it() {
    let app = TestApp::start().await;
    authorized(&app).await;
    let answer = capture(&app, json!({})).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.body["capture"]["captureAmount"]["amount"], "14.00");
    assert_eq!(
        (&answer.body["capture"]["number"], &answer.body["capture"]["numberStatus"]),
        (&json!(0), &json!("fresh"))
    );
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    let ledger = app.ledger();
    let order: Vec<Operation> = ledger.requests.iter().map(|request| request.operation).collect();
    assert_eq!(order[order.len() - 2..], [Operation::GetCharge, Operation::CaptureCharge]);
    assert_eq!(at_amazon(&app).2.as_deref(), Some("14"));
    let captured = &app.events_of("charge.captured").await[0];
    assert_eq!((&captured["captureAmount"]["amount"], &captured["number"]), (&json!("14.00"), &json!(0)));
    let attempted = app.events_of("charge.attempted").await;
    assert_eq!((&attempted[1]["send"], &attempted[1]["captureNumber"]), (&json!("capture"), &json!(0)));
    assert_ne!(keys(&app)[0], ledger.charges[0].idempotency_key, "captures have keys of their own");
    app.finish().await;
}

#[tokio::test]
async fn a_part_of_an_authorisation_is_captured_with_the_text_for_the_statement() {
    let app = TestApp::start().await;
    authorized(&app).await;
    let mut body = part("5.00");
    body["softDescriptor"] = json!("SHOP");
    assert_eq!(capture(&app, body).await.status, 202);
    app.run_due().await;
    assert_eq!(at_amazon(&app).2.as_deref(), Some("5"));
    let captured = &app.events_of("charge.captured").await[0];
    assert_eq!(captured["captureAmount"], json!({ "amount": "5.00", "currencyCode": "USD" }));
    assert_eq!(captured["chargeAmount"]["amount"], "14.00");
    app.finish().await;
}

#[tokio::test]
async fn the_same_capture_again_is_answered_with_the_state_of_now_and_another_is_refused() {
    let app = TestApp::start().await;
    authorized(&app).await;
    assert_eq!(capture(&app, part("5.00")).await.status, 202);
    assert_eq!(capture(&app, part("5")).await.status, 200, "the same amount, spelt otherwise");
    for other in
        [part("6.00"), json!({}), json!({ "captureAmount": part("5.00")["captureAmount"], "softDescriptor": "X" })]
    {
        assert_eq!(capture(&app, other).await.status, 409);
    }
    app.run_due().await;
    let again = capture(&app, part("5.00")).await;
    assert_eq!((again.status, &again.body["state"]), (200, &json!("captured")));
    let other = capture(&app, part("6.00")).await;
    assert_eq!(other.status, 409);
    assert!(other.body["detail"].as_str().expect("a detail").contains("captured"), "{}", other.body);
    app.pass(2 * DAY, 12 * HOUR).await;
    assert_eq!(keys(&app).len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn what_cannot_be_captured_is_refused_with_what_was_expected() {
    let app = TestApp::start().await;
    assert_eq!(capture(&app, json!({})).await.status, 404);
    authorized(&app).await;
    for (body, field) in [
        (part("14.01"), "captureAmount.amount"),
        (part("0"), "captureAmount.amount"),
        (json!({ "softDescriptor": "seventeen letters" }), "softDescriptor"),
    ] {
        let answer = capture(&app, body).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (400, &json!(field)));
    }
    let permission = app.permission();
    app.submit("at-once", &permission).await;
    let answer = app.post("/v1/charges/at-once/capture", &json!({})).await;
    assert_eq!(answer.status, 409);
    assert!(answer.body["detail"].as_str().expect("a detail").contains("captureNow: false"), "{}", answer.body);
    let mut later = TestApp::body("later", &permission);
    later["captureNow"] = json!(false);
    later["notBefore"] = json!((app.clock.now() + Duration::from_hours(24)).to_string());
    assert_eq!(app.post("/v1/charges", &later).await.status, 202);
    let answer = app.post("/v1/charges/later/capture", &json!({})).await;
    assert_eq!(answer.status, 409);
    let detail = answer.body["detail"].as_str().expect("a detail");
    assert!(detail.contains("expected a charge in state authorized") && detail.contains("scheduled"), "{detail}");
    app.finish().await;
}

#[tokio::test]
async fn a_capture_whose_answer_was_lost_is_found_by_a_look_and_not_made_again() {
    for reading in READINGS {
        let app = TestApp::with_reading(reading).await;
        authorized(&app).await;
        app.sandbox.inject(Operation::CaptureCharge, Fault::DropAfter);
        captured_whole(&app).await;
        let charge = app.charge("renewal").await;
        assert_eq!((&charge["state"], &charge["capture"]["numberStatus"]), (&json!("authorized"), &json!("unknown")));
        assert_eq!(charge["mayStillCharge"], true);
        app.pass(10 * MINUTE, MINUTE).await;
        assert_eq!(app.state("renewal").await, "captured", "{reading:?}");
        assert_eq!(keys(&app).len(), 1);
        app.finish().await;
    }
}

#[tokio::test]
async fn a_capture_that_never_arrived_is_sent_again_under_the_same_key_after_a_look() {
    for fault in [
        Fault::DropBefore,
        Fault::status(429, "TooManyRequests"),
        Fault::status(503, "ServiceUnavailable"),
        Fault::status(500, "InternalServerError"),
        Fault::status(408, ""),
        Fault::status(302, ""),
    ] {
        let app = TestApp::start().await;
        authorized(&app).await;
        app.sandbox.inject(Operation::CaptureCharge, fault.clone());
        captured_whole(&app).await;
        assert_eq!(app.charge("renewal").await["capture"]["numberStatus"], "unknown", "{fault:?}");
        assert_eq!(app.charge("renewal").await["attempts"], 0);
        app.pass(10 * MINUTE, MINUTE).await;
        assert_eq!(app.state("renewal").await, "captured", "{fault:?}");
        assert_eq!(keys(&app).len(), 2);
        assert!(one_key(&app), "{fault:?}");
        let ledger = app.ledger();
        let captures: Vec<usize> = ledger
            .requests
            .iter()
            .enumerate()
            .filter(|(_, request)| request.operation == Operation::CaptureCharge)
            .map(|(index, _)| index)
            .collect();
        for index in captures {
            assert_eq!(
                ledger.requests[index - 1].operation,
                Operation::GetCharge,
                "each send follows a look: {fault:?}"
            );
        }
        app.finish().await;
    }
}

#[tokio::test]
async fn no_capture_is_sent_while_a_look_at_the_charge_fails() {
    let app = TestApp::start().await;
    authorized(&app).await;
    for _ in 0..3 {
        app.sandbox.inject(Operation::GetCharge, Fault::status(503, "ServiceUnavailable"));
    }
    captured_whole(&app).await;
    app.pass(5 * MINUTE, MINUTE).await;
    assert!(keys(&app).is_empty());
    assert!(app.ledger().requests_of(Operation::GetCharge).len() <= 3, "looks back off");
    app.pass(10 * MINUTE, MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_declined_capture_is_the_end_and_makes_no_new_charge() {
    for code in [DeclineCode::SoftDeclined, DeclineCode::HardDeclined, DeclineCode::AmazonRejected] {
        let app = TestApp::start().await;
        let permission = authorized(&app).await;
        app.sandbox.script_capture(&permission, Outcome::DeclineStayingChargeable(code)).expect("a permission");
        captured_whole(&app).await;
        let charge = app.charge("renewal").await;
        assert_eq!((&charge["state"], &charge["outcome"]), (&json!("abandoned"), &json!("verified")), "{code:?}");
        let declined = &app.events_of("charge.declined").await[0];
        assert_eq!((&declined["send"], &declined["reasonCode"]), (&json!("capture"), &json!(code.as_str())));
        let end = &app.events_of("charge.abandoned").await[0];
        assert_eq!(end["reason"], code.as_str());
        assert!(end["whatToDo"].as_str().expect("advice").contains("submit a new charge"), "{end}");
        app.deliver_all().await;
        app.pass(20 * DAY, 12 * HOUR).await;
        assert_eq!((app.creates(), keys(&app).len()), (1, 1), "{code:?}");
        app.finish().await;
    }
}

/// The first copy is still inside Amazon when the second is declined: that says nothing about the first.
#[tokio::test]
async fn a_decline_while_an_older_copy_may_still_be_accepted_ends_nothing() {
    for reading in READINGS {
        for first_copy_wins in [true, false] {
            let app = TestApp::with(Options { reading, timeout: Duration::from_secs(2), ..Options::default() }).await;
            let permission = authorized(&app).await;
            let gate = Gate::new();
            app.sandbox.inject(Operation::CaptureCharge, Fault::HoldInside(gate.clone()));
            let failure = Outcome::Decline(DeclineCode::ProcessingFailure);
            app.sandbox.script_capture(&permission, failure).expect("a permission");
            captured_whole(&app).await;
            app.pass(3 * MINUTE, MINUTE).await;
            assert_eq!(keys(&app).len(), 1, "the second copy; the first is not in Amazon's books yet");
            let charge = app.charge("renewal").await;
            assert_eq!(
                (&charge["state"], &charge["capture"]["numberStatus"]),
                (&json!("authorized"), &json!("unknown"))
            );
            assert_eq!(charge["capture"]["number"], 0, "a tainted decline resolves nothing");
            if first_copy_wins {
                gate.release();
                gate.done().await;
            }
            app.pass(X + 10 * MINUTE, MINUTE).await;
            assert!(one_key(&app), "{reading:?}");
            if !first_copy_wins && reading != Reading::ReEvaluate {
                // Amazon repeats its decline: now it is final, the authorisation stands, and the caller decides.
                assert_eq!(app.state("renewal").await, "authorized");
                assert_eq!(alerts(&app).await, ["capture_refused"]);
                assert_eq!(capture(&app, json!({})).await.status, 202);
                app.run_due().await;
                assert_eq!(app.charge("renewal").await["capture"]["number"], 1);
            }
            if first_copy_wins && reading != Reading::ReEvaluate {
                assert_eq!(at_amazon(&app).1, "Authorized", "the kept answer is repeated for the first copy too");
            } else {
                assert_eq!(app.state("renewal").await, "captured", "{reading:?} {first_copy_wins}");
            }
            app.finish().await;
            gate.release();
        }
    }
}

#[tokio::test]
async fn a_tainted_decline_ends_the_charge_only_when_no_copy_can_be_accepted_any_more() {
    for reading in READINGS {
        let app = TestApp::with(Options { reading, timeout: Duration::from_secs(2), ..Options::default() }).await;
        let permission = authorized(&app).await;
        let gate = Gate::new();
        app.sandbox.inject(Operation::CaptureCharge, Fault::HoldInside(gate.clone()));
        let decline = Outcome::DeclineStayingChargeable(DeclineCode::SoftDeclined);
        app.sandbox.script_capture(&permission, decline).expect("a permission");
        captured_whole(&app).await;
        app.pass(X - 5 * MINUTE, MINUTE).await;
        assert_eq!(app.state("renewal").await, "authorized", "{reading:?}");
        assert_eq!(app.events_of("charge.declined").await.len(), 0);
        app.pass(10 * MINUTE, MINUTE).await;
        let charge = app.charge("renewal").await;
        assert_eq!((&charge["state"], &charge["outcome"]), (&json!("abandoned"), &json!("verified")), "{reading:?}");
        gate.release();
        app.finish().await;
    }
}

#[tokio::test]
async fn a_refused_capture_leaves_the_authorisation_for_another_capture_under_the_next_number() {
    let app = TestApp::start().await;
    let permission = authorized(&app).await;
    let refusal = Outcome::Answer(400, "TransactionAmountExceeded".to_owned());
    app.sandbox.script_capture(&permission, refusal).expect("a permission");
    captured_whole(&app).await;
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["state"], &charge["capture"]), (&json!("authorized"), &Value::Null));
    let alert = &app.events_of("account.attention").await[0];
    assert_eq!(
        (&alert["kind"], &alert["reasonCode"]),
        (&json!("capture_refused"), &json!("TransactionAmountExceeded"))
    );
    assert_eq!(app.events_of("charge.declined").await[0]["captureNumber"], 0);
    assert_eq!(capture(&app, part("9.00")).await.status, 202);
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(at_amazon(&app).2.as_deref(), Some("9"));
    let keys = keys(&app);
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
    app.finish().await;
}

#[tokio::test]
async fn an_invalid_charge_status_is_believed_only_if_a_look_agrees() {
    // Somebody captures in Seller Central, between our look and our send.
    let app = TestApp::start().await;
    authorized(&app).await;
    let refusal = Fault::StatusAfter(422, "InvalidChargeStatus".to_owned());
    app.sandbox.inject(Operation::CaptureCharge, refusal);
    captured_whole(&app).await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(keys(&app).len(), 1);
    app.finish().await;
    // Amazon contradicts itself: a new number, later.
    let app = TestApp::start().await;
    let permission = authorized(&app).await;
    let refusal = Outcome::Answer(422, "InvalidChargeStatus".to_owned());
    app.sandbox.script_capture(&permission, refusal).expect("a permission");
    captured_whole(&app).await;
    assert_eq!(keys(&app).len(), 1);
    app.pass(2 * HOUR, 10 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.events_of("charge.attempted").await[2]["captureNumber"], 1);
    app.finish().await;
}

#[tokio::test]
async fn a_refusal_of_a_repeated_capture_leaves_its_number_unknown() {
    let app = TestApp::start().await;
    authorized(&app).await;
    app.sandbox.inject(Operation::CaptureCharge, Fault::DropBefore);
    for code in ["InvalidChargeStatus", "TransactionAmountExceeded", "InvalidRequest"] {
        app.sandbox.inject(Operation::CaptureCharge, Fault::status(400, code));
    }
    captured_whole(&app).await;
    app.pass(DAY, 10 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(keys(&app).len(), 5);
    assert!(one_key(&app));
    assert_eq!(alerts(&app).await, [""; 0]);
    app.finish().await;
}

#[tokio::test]
async fn an_account_fault_and_a_key_in_use_are_treated_as_for_a_charge() {
    let app = TestApp::start().await;
    authorized(&app).await;
    app.sandbox.inject(Operation::CaptureCharge, Fault::status(403, "InvalidAccountStatus"));
    captured_whole(&app).await;
    assert_eq!(alerts(&app).await, ["account_fault"]);
    app.pass(HOUR, 5 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    assert!(one_key(&app));
    app.finish().await;

    let app = TestApp::start().await;
    authorized(&app).await;
    app.sandbox.inject(Operation::CaptureCharge, Fault::status(400, "DuplicateIdempotencyKey"));
    captured_whole(&app).await;
    assert_eq!(app.state("renewal").await, "held");
    let charge = at_amazon(&app).0;
    app.tell_of((ObjectType::Charge, &charge), &app.ledger().charges[0].permission).await;
    app.pass(2 * DAY, 12 * HOUR).await;
    assert_eq!((app.state("renewal").await.as_str(), keys(&app).len()), ("held", 1), "for the operator");
    app.finish().await;
}

#[tokio::test]
async fn a_cancellation_before_the_mark_stops_the_capture_and_the_authorisation_is_canceled() {
    let app = TestApp::start().await;
    authorized(&app).await;
    let gate = Gate::new();
    app.sandbox.inject(Operation::GetCharge, Fault::HoldAfter(gate.clone()));
    assert_eq!(capture(&app, json!({})).await.status, 202);
    let step = step(&app);
    gate.reached().await;
    let answer = app.delete("/v1/charges/renewal").await;
    assert_eq!((answer.status, &answer.body["mayStillCharge"]), (202, &json!(true)));
    gate.release();
    step.await.expect("no panic");
    app.pass(MINUTE, 10 * Duration::from_secs(1)).await;
    assert!(keys(&app).is_empty(), "the mark saw the cancellation");
    assert_eq!((app.state("renewal").await.as_str(), at_amazon(&app).1.as_str()), ("canceled", "Canceled"));
    assert_eq!(capture(&app, part("1.00")).await.status, 409);
    app.finish().await;
}

#[tokio::test]
async fn a_pause_before_the_mark_stops_the_capture_until_it_is_resumed() {
    for what in ["charges/renewal".to_owned(), "charge-permissions".to_owned()] {
        let app = TestApp::start().await;
        authorized(&app).await;
        let permission = app.charge("renewal").await["chargePermissionId"].as_str().expect("an id").to_owned();
        let what = if what == "charge-permissions" { format!("{what}/{permission}") } else { what };
        let gate = Gate::new();
        app.sandbox.inject(Operation::GetCharge, Fault::HoldAfter(gate.clone()));
        assert_eq!(capture(&app, json!({})).await.status, 202);
        let step = step(&app);
        gate.reached().await;
        assert_eq!(app.post(&format!("/v1/{what}/pause"), &json!({})).await.status, 200);
        gate.release();
        step.await.expect("no panic");
        app.pass(MINUTE, 10 * Duration::from_secs(1)).await;
        assert!(keys(&app).is_empty(), "the mark saw the pause of {what}");
        assert_eq!(app.post(&format!("/v1/{what}/resume"), &json!({})).await.status, 200);
        app.pass(MINUTE, 10 * Duration::from_secs(1)).await;
        assert_eq!((app.state("renewal").await.as_str(), keys(&app).len()), ("captured", 1));
        app.finish().await;
    }
}

#[tokio::test]
async fn a_cancellation_after_the_mark_waits_for_the_answer_and_a_capture_is_reported() {
    let app = TestApp::start().await;
    authorized(&app).await;
    let gate = Gate::new();
    app.sandbox.inject(Operation::CaptureCharge, Fault::HoldInside(gate.clone()));
    assert_eq!(capture(&app, json!({})).await.status, 202);
    let step = step(&app);
    gate.reached().await;
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 202);
    assert_eq!(app.charge("renewal").await["canceling"], true);
    gate.release();
    step.await.expect("no panic");
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.ledger().requests_of(Operation::CancelCharge).len(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_canceled_capture_that_nobody_answered_is_found_out_without_sending_it_again() {
    // It never arrived: when no copy can be accepted any more, the authorisation is canceled at Amazon.
    let app = TestApp::start().await;
    authorized(&app).await;
    app.sandbox.inject(Operation::CaptureCharge, Fault::DropBefore);
    captured_whole(&app).await;
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 202);
    app.pass(X - 2 * MINUTE, MINUTE).await;
    assert_eq!(at_amazon(&app).1, "Authorized", "not while a copy may still arrive");
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 202);
    app.pass(5 * MINUTE, MINUTE).await;
    assert_eq!((app.state("renewal").await.as_str(), at_amazon(&app).1.as_str()), ("canceled", "Canceled"));
    assert_eq!(app.events_of("charge.canceled").await[0]["outcome"], "verified");
    assert_eq!(keys(&app).len(), 1);
    app.finish().await;
    // It is still inside Amazon, and made later: that is reported.
    let app = impatient().await;
    authorized(&app).await;
    let gate = Gate::new();
    app.sandbox.inject(Operation::CaptureCharge, Fault::HoldInside(gate.clone()));
    captured_whole(&app).await;
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 202);
    app.pass(10 * MINUTE, MINUTE).await;
    gate.release();
    gate.done().await;
    app.pass(X, MINUTE).await;
    assert_eq!((app.state("renewal").await.as_str(), at_amazon(&app).1.as_str()), ("captured", "Captured"));
    assert_eq!(keys(&app).len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn the_stop_switch_stops_captures_too() {
    let app = TestApp::start().await;
    authorized(&app).await;
    app.sandbox.inject(Operation::CaptureCharge, Fault::DropBefore);
    captured_whole(&app).await;
    assert_eq!(app.post("/v1/stop", &json!({})).await.status, 200);
    app.pass(2 * DAY, 6 * HOUR).await;
    assert_eq!(keys(&app).len(), 1, "not even a repeat");
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.pass(HOUR, 5 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_closed_permission_does_not_refuse_a_capture() {
    let app = TestApp::start().await;
    let permission = authorized(&app).await;
    app.sandbox.buyer_closes(&permission).expect("a permission");
    app.deliver_all().await;
    app.run_due().await;
    assert_eq!(app.events_of("charge_permission.closed").await.len(), 1);
    assert_eq!(app.state("renewal").await, "authorized");
    captured_whole(&app).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_crash_after_the_mark_of_a_capture_is_cleared_up_by_a_look_or_a_repeat_under_the_same_key() {
    for made in [true, false] {
        for reading in READINGS {
            let mut app = TestApp::with_reading(reading).await;
            authorized(&app).await;
            let gate = Gate::new();
            let fault = if made { Fault::HoldAfter(gate.clone()) } else { Fault::HoldInside(gate.clone()) };
            app.sandbox.inject(Operation::CaptureCharge, fault);
            assert_eq!(capture(&app, json!({})).await.status, 202);
            let step = step(&app);
            gate.reached().await;
            step.abort();
            let _ = step.await;
            app.restart().await;
            assert_eq!(app.charge("renewal").await["capture"]["numberStatus"], "unknown");
            app.run_due().await;
            let before = keys(&app).len();
            app.pass(10 * MINUTE, MINUTE).await;
            assert_eq!(app.state("renewal").await, "captured", "{reading:?} {made}");
            assert_eq!(keys(&app).len(), if made { before } else { before + 1 });
            gate.release();
            gate.done().await;
            assert!(one_key(&app));
            assert_eq!(at_amazon(&app).2.as_deref(), Some("14"));
            app.finish().await;
        }
    }
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_does_not_throw_its_capture_away() {
    let app = TestApp::start().await;
    authorized(&app).await;
    let gate = Gate::new();
    app.sandbox.inject(Operation::CaptureCharge, Fault::HoldAfter(gate.clone()));
    assert_eq!(capture(&app, json!({})).await.status, 202);
    let slow = step(&app);
    gate.reached().await;
    // The lease runs out, and the next worker learns nothing: Amazon does not answer it.
    app.sandbox.inject(Operation::GetCharge, Fault::status(503, "ServiceUnavailable"));
    app.advance(4 * MINUTE);
    app.run_due().await;
    assert_eq!(app.charge("renewal").await["capture"]["numberStatus"], "unknown");
    gate.release();
    assert!(matches!(slow.await.expect("no panic"), StepOutcome::LostLease(_)));
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured", "by the charge that the slow worker noted");
    assert_eq!((keys(&app).len(), app.events_of("charge.captured").await.len()), (1, 1));
    app.finish().await;
}

#[tokio::test]
async fn a_capture_asked_for_during_a_reconciliation_is_neither_lost_nor_overwritten() {
    let app = TestApp::start().await;
    let permission = authorized(&app).await;
    let charge = at_amazon(&app).0;
    let ipn = app.sandbox.ipn((ObjectType::Charge, &charge), &permission, NotificationType::StateChange);
    let message = app.sandbox.sign(&ipn, SignatureVersion::V1);
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    let gate = Gate::new();
    app.sandbox.inject(Operation::GetCharge, Fault::HoldAfter(gate.clone()));
    let step = step(&app);
    gate.reached().await;
    assert_eq!(capture(&app, part("3.00")).await.status, 202);
    gate.release();
    step.await.expect("no panic");
    assert_eq!(app.charge("renewal").await["capture"]["captureAmount"]["amount"], "3.00");
    app.run_due().await;
    assert_eq!(at_amazon(&app).2.as_deref(), Some("3"));
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_new_capture_asked_for_while_the_old_one_is_given_up_is_kept() {
    let app = TestApp::start().await;
    let permission = authorized(&app).await;
    let refusal = Outcome::Answer(400, "TransactionAmountExceeded".to_owned());
    app.sandbox.script_capture(&permission, refusal).expect("a permission");
    captured_whole(&app).await;
    // A look is under way that read "nothing is wished" when the next wish comes.
    let gate = Gate::new();
    app.sandbox.inject(Operation::GetCharge, Fault::HoldAfter(gate.clone()));
    app.tell_of((ObjectType::Charge, &at_amazon(&app).0), &permission).await;
    let step = step(&app);
    gate.reached().await;
    assert_eq!(capture(&app, part("2.00")).await.status, 202);
    gate.release();
    step.await.expect("no panic");
    app.run_due().await;
    assert_eq!((app.state("renewal").await.as_str(), at_amazon(&app).2.as_deref()), ("captured", Some("2")));
    app.finish().await;
}

#[tokio::test]
async fn a_full_event_stream_refuses_captures() {
    // Room for the events of the authorisation only.
    let bounds = Bounds { events: 3, ..Bounds::default() };
    let app = TestApp::with(Options { bounds, ..Options::default() }).await;
    authorized(&app).await;
    assert_eq!(capture(&app, json!({})).await.status, 503);
    app.pass(10 * MINUTE, MINUTE).await;
    assert!(keys(&app).is_empty());
    app.finish().await;
}

#[tokio::test]
async fn after_a_restored_backup_a_capture_is_held_and_goes_on_only_under_its_own_number() {
    for sent in [true, false] {
        let app = TestApp::start().await;
        let permission = authorized(&app).await;
        if sent {
            app.sandbox.inject(Operation::CaptureCharge, Fault::DropBefore);
            captured_whole(&app).await;
        } else {
            assert_eq!(capture(&app, json!({})).await.status, 202);
        }
        app.store.init(Init::AfterRestore).await.expect("Redis answers");
        assert_eq!(app.delete("/v1/stop").await.status, 200);
        app.pass(2 * DAY, 12 * HOUR).await;
        let before = keys(&app).len();
        assert_eq!((app.state("renewal").await.as_str(), before), ("held", usize::from(sent)), "nothing is sent");
        let charge = app.charge("renewal").await;
        assert_eq!((&charge["capture"]["number"], &charge["capture"]["numberStatus"]), (&json!(0), &json!("unknown")));
        assert_eq!(capture(&app, part("1.00")).await.status, 409, "and nothing else can be asked for");
        app.tell_of((ObjectType::Charge, &at_amazon(&app).0), &permission).await;
        app.pass(2 * MINUTE, MINUTE).await;
        assert_eq!(app.state("renewal").await, "captured");
        assert_eq!(keys(&app).len(), before + 1);
        assert!(one_key(&app));
        app.finish().await;
    }
}

#[tokio::test]
async fn after_a_loss_a_decline_of_the_first_capture_is_not_final_while_an_older_copy_may_arrive() {
    let app = impatient().await;
    let permission = authorized(&app).await;
    let gate = Gate::new();
    app.sandbox.inject(Operation::CaptureCharge, Fault::HoldInside(gate.clone()));
    captured_whole(&app).await;
    app.lose_everything().await;
    app.store.init(Init::AfterLoss).await.expect("Redis answers");
    let mut body = TestApp::body("renewal", &permission);
    body["captureNow"] = json!(false);
    body["lastNumber"] = json!(0);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "authorized");
    // Nobody knows of the first copy any more. The send after the loss is declined: that is not believed yet.
    let failure = Outcome::Answer(422, "SoftDeclined".to_owned());
    app.sandbox.script_capture(&permission, failure).expect("a permission");
    captured_whole(&app).await;
    assert_eq!(app.charge("renewal").await["capture"]["numberStatus"], "unknown");
    gate.release();
    gate.done().await;
    app.pass(X + 5 * MINUTE, MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_change_of_the_redis_server_taints_the_captures_that_follow() {
    let mut app = TestApp::on_an_own_server().await;
    let permission = authorized(&app).await;
    app.crash_redis().await;
    let decline = Outcome::Answer(422, "SoftDeclined".to_owned());
    app.sandbox.script_capture(&permission, decline).expect("a permission");
    captured_whole(&app).await;
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["state"], &charge["capture"]["numberStatus"]), (&json!("authorized"), &json!("unknown")));
    app.pass(X + 5 * MINUTE, MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured", "the same number once more, when no older copy can be out");
    assert!(one_key(&app));
    app.finish().await;
}

#[tokio::test]
async fn an_authorisation_that_nobody_captures_is_announced_once_and_ends() {
    let app = TestApp::start().await;
    authorized(&app).await;
    app.pass(24 * DAY, 12 * HOUR).await;
    assert_eq!(app.events_of("charge.expiring").await.len(), 0);
    app.pass(5 * DAY, 6 * HOUR).await;
    let expiring = app.events_of("charge.expiring").await;
    assert_eq!(expiring.len(), 1, "once");
    assert_eq!(expiring[0]["expiresAt"], app.charge("renewal").await["expiresAt"]);
    assert_eq!(app.state("renewal").await, "authorized");
    app.pass(2 * DAY, HOUR).await;
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["state"], &charge["reasonCode"]), (&json!("abandoned"), &json!("ExpiredUnused")));
    let end = &app.events_of("charge.abandoned").await[0];
    assert_eq!((&end["outcome"], &end["reason"]), (&json!("verified"), &json!("ExpiredUnused")));
    assert!(end["whatToDo"].as_str().expect("advice").contains("lapsed"), "{end}");
    let looks = app.ledger().requests_of(Operation::GetCharge).len();
    assert!(looks <= 35, "{looks} looks");
    app.pass(5 * DAY, DAY).await;
    assert_eq!(app.ledger().requests_of(Operation::GetCharge).len(), looks, "what has ended is not looked at");
    app.finish().await;
}

#[tokio::test]
async fn a_capture_that_stays_unknown_ends_with_its_authorisation() {
    let app = TestApp::start().await;
    authorized(&app).await;
    for _ in 0..1000 {
        app.sandbox.inject(Operation::CaptureCharge, Fault::DropBefore);
    }
    captured_whole(&app).await;
    app.pass(31 * DAY, 6 * HOUR).await;
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["state"], &charge["outcome"]), (&json!("abandoned"), &json!("verified")));
    assert!(one_key(&app));
    app.finish().await;
}

#[tokio::test]
async fn a_late_capture_is_asynchronous_and_followed_to_its_end() {
    for (end, expected) in [(ChargeState::Captured, "captured"), (ChargeState::Declined, "abandoned")] {
        let app = TestApp::start().await;
        authorized(&app).await;
        app.pass(8 * DAY, 12 * HOUR).await;
        captured_whole(&app).await;
        assert_eq!(app.state("renewal").await, "pending");
        assert_eq!(app.events_of("charge.pending").await[0]["chargeState"], "CaptureInitiated");
        assert_eq!(app.delete("/v1/charges/renewal").await.status, 202, "not final while it runs");
        assert_eq!(capture(&app, json!({})).await.status, 200);
        assert_eq!(capture(&app, part("1.00")).await.status, 409);
        app.pass(3 * HOUR, HOUR).await;
        let reason = (end == ChargeState::Declined).then_some(DeclineCode::SoftDeclined);
        app.sandbox.finish_pending(&at_amazon(&app).0, end, reason).expect("a pending charge");
        drop(app.sandbox.notifications());
        app.pass(2 * HOUR, HOUR).await;
        let expected = if expected == "abandoned" { "canceled" } else { expected };
        assert_eq!(app.state("renewal").await, expected, "found by the hourly look");
        app.pass(20 * DAY, DAY).await;
        assert_eq!((app.creates(), keys(&app).len()), (1, 1), "no new charge after a declined capture");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_late_capture_that_is_declined_ends_the_charge() {
    let app = TestApp::start().await;
    authorized(&app).await;
    app.pass(8 * DAY, 12 * HOUR).await;
    captured_whole(&app).await;
    app.sandbox
        .finish_pending(&at_amazon(&app).0, ChargeState::Declined, Some(DeclineCode::SoftDeclined))
        .expect("a pending charge");
    app.deliver_all().await;
    app.run_due().await;
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["state"], &charge["reasonCode"]), (&json!("abandoned"), &json!("SoftDeclined")));
    app.pass(20 * DAY, DAY).await;
    assert_eq!(app.creates(), 1);
    app.finish().await;
}

/// Asynchronous authorisation: each end, told by notification or found by the hourly look.
#[tokio::test]
async fn an_asynchronous_authorisation_is_followed_to_each_of_its_ends_also_when_the_notification_is_lost() {
    let soft = Some(DeclineCode::SoftDeclined);
    let hard = Some(DeclineCode::HardDeclined);
    for capture_now in [true, false] {
        for told in [true, false] {
            for (end, reason, expected) in [
                (ChargeState::Authorized, None, "authorized"),
                (ChargeState::Captured, None, "captured"),
                (ChargeState::Declined, soft, "scheduled"),
                (ChargeState::Declined, hard, "parked"),
                (ChargeState::Canceled, None, "abandoned"),
            ] {
                let app = TestApp::start().await;
                let permission = app.permission();
                app.sandbox.script_charge(&permission, Outcome::Pend).expect("a permission");
                let mut body = TestApp::body("renewal", &permission);
                body["captureNow"] = json!(capture_now);
                body["canHandlePendingAuthorization"] = json!(true);
                assert_eq!(app.post("/v1/charges", &body).await.status, 202);
                app.run_due().await;
                assert_eq!(app.state("renewal").await, "pending");
                drop(app.sandbox.notifications());
                app.pass(2 * HOUR, 30 * MINUTE).await;
                let pending = app.ledger().charges[0].charge_id.clone();
                app.sandbox.finish_pending(&pending, end, reason).expect("a pending charge");
                if told {
                    app.deliver_all().await;
                    app.run_due().await;
                } else {
                    drop(app.sandbox.notifications());
                    app.pass(HOUR, 30 * MINUTE).await;
                }
                assert_eq!(app.state("renewal").await, expected, "{capture_now} {told} {end:?} {reason:?}");
                if end == ChargeState::Authorized && !capture_now {
                    captured_whole(&app).await;
                    assert_eq!(app.state("renewal").await, "captured");
                }
                app.finish().await;
            }
        }
    }
}

#[tokio::test]
async fn an_authorisation_that_amazon_should_capture_by_itself_is_looked_at_hourly() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Authorize).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    drop(app.sandbox.notifications());
    assert_eq!(app.state("renewal").await, "authorized");
    app.pass(5 * HOUR, 30 * MINUTE).await;
    assert_eq!(app.ledger().requests_of(Operation::GetCharge).len(), 5);
    app.finish().await;
}

#[tokio::test]
async fn an_authorisation_that_appears_after_an_unverified_cancellation_is_canceled_at_amazon() {
    let app = TestApp::with_reading(Reading::StatusFirst).await;
    // Authorised, and nobody hears of it; then it is canceled, and the permission is closed, so that nothing can be learned.
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    let permission = submitted(&app, |_| {}).await;
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 202);
    app.sandbox.buyer_closes(&permission).expect("a permission");
    drop(app.sandbox.notifications());
    app.pass(2 * DAY, HOUR).await;
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["state"], &charge["outcome"]), (&json!("canceled"), &json!("unverified")));
    assert_eq!(at_amazon(&app).1, "Authorized");
    for _ in 0..2 {
        app.tell_of((ObjectType::Charge, &at_amazon(&app).0), &permission).await;
        app.run_due().await;
    }
    assert_eq!(at_amazon(&app).1, "Canceled");
    assert_eq!(app.state("renewal").await, "canceled");
    assert_eq!(alerts(&app).await, ["charge_after_end", "left_over_authorization"]);
    assert_eq!(app.ledger().requests_of(Operation::CancelCharge).len(), 1);
    app.finish().await;
}
