//! What happens between the parts: two wishes at once, a wish while the account is at fault, a wish on what has ended.

use std::time::Duration;

use amazon_pay_ipn::model::ids::Environment;
use amazon_pay_ipn::model::quota::{Limits, Share};
use amazon_pay_ipn::sandbox::{ChargeState, DeclineCode, Fault, ObjectType, Operation, Outcome, Reading, Throttle};
use amazon_pay_ipn::store::account::Init;
use serde_json::json;

use crate::support::{DAY, HOUR, MINUTE, Options, TestApp, X};

const READINGS: [Reading; 3] = [Reading::ReplayAll, Reading::ReEvaluate, Reading::StatusFirst];

/// Submits `id` for a later capture, and it is authorised; the notification about it was lost.
async fn authorized(app: &TestApp, id: &str, permission: &str) {
    let mut body = TestApp::body(id, permission);
    body["captureNow"] = json!(false);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.run_due().await;
    assert_eq!(app.state(id).await, "authorized");
    drop(app.sandbox.notifications());
}

/// A charge whose first send was lost on this side or the other of Amazon.
async fn unknown(app: &TestApp, id: &str, permission: &str, lost: Fault) {
    app.sandbox.inject(Operation::CreateCharge, lost);
    app.submit(id, permission).await;
    app.run_due().await;
    assert_eq!(app.charge(id).await["numberStatus"], "unknown");
}

fn count(app: &TestApp, operation: Operation) -> usize {
    app.ledger().requests_of(operation).len()
}

fn refuse(app: &TestApp, operation: Operation) {
    for _ in 0..5000 {
        app.sandbox.inject(operation, Fault::status(401, "UnauthorizedAccess"));
    }
}

async fn post(app: &TestApp, path: &str) {
    let answer = app.post(path, &json!({})).await;
    assert_eq!(answer.status / 100, 2, "{path}: {}", answer.body);
}

async fn close(app: &TestApp, permission: &str, cancel_pending: bool) {
    let wish = json!({ "closureReason": "the contract has ended", "cancelPendingCharges": cancel_pending });
    let answer = app.post(&format!("/v1/charge-permissions/{permission}/close"), &wish).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
}

async fn closed(app: &TestApp, permission: &str) -> bool {
    app.get(&format!("/v1/charge-permissions/{permission}")).await.body["closed"] == json!(true)
}

async fn alerts(app: &TestApp) -> Vec<String> {
    let alerts = app.events_of("account.attention").await;
    alerts.iter().map(|alert| alert["kind"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The permission is refused although the account is answered: as its record says after that was met once.
async fn refused_alone(app: &TestApp, permission: &str) {
    let key = app.store.keys().permission(&permission.parse().expect("an id"));
    let mut connection = app.connection().await;
    let () = redis::cmd("HSET")
        .arg(key)
        .arg("record")
        .arg(r#"{"accountFault":true}"#)
        .query_async(&mut connection)
        .await
        .expect("HSET");
    refuse(app, Operation::GetChargePermission);
}

#[tokio::test]
async fn what_a_notification_names_waits_with_its_permission_while_that_is_refused() {
    for object_type in [ObjectType::Charge, ObjectType::Refund, ObjectType::Chargeback] {
        let app = TestApp::start().await;
        let permission = app.permission();
        app.submit("renewal", &permission).await;
        refused_alone(&app, &permission).await;
        app.run_due().await;
        let object = match object_type {
            ObjectType::Charge => format!("{permission}-C000009"),
            ObjectType::Refund => format!("{permission}-R000009"),
            _ => format!("{permission}-D000009"),
        };
        app.tell_of((object_type, &object), &permission).await;
        app.run_due().await;
        let before = app.ledger().requests.len();
        app.pass(2 * HOUR, MINUTE).await;
        let calls = app.ledger().requests.len() - before;
        assert!(calls <= 20, "{calls} calls in two hours for what is refused");
        assert_eq!(alerts(&app).await, ["permission_refused"]);
        app.sandbox.clear_faults();
        app.pass(HOUR, MINUTE).await;
        assert_eq!(app.state("renewal").await, "captured");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_left_over_authorisation_is_canceled_although_something_else_comes_first() {
    let app = TestApp::with_reading(Reading::StatusFirst).await;
    let permission = app.permission();
    authorized(&app, "other", &permission).await;
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    let mut body = TestApp::body("renewal", &permission);
    body["captureNow"] = json!(false);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.run_due().await;
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 202);
    app.sandbox.buyer_closes(&permission).expect("a permission");
    drop(app.sandbox.notifications());
    app.pass(2 * DAY, HOUR).await;
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["state"], &charge["outcome"]), (&json!("canceled"), &json!("unverified")));
    let left = app
        .ledger()
        .charges
        .iter()
        .find(|it| it.custom_information.as_deref().is_some_and(|tag| tag.contains("renewal")))
        .expect("it was made")
        .charge_id
        .clone();
    // Both are due in the same reconciliation, and a capture is the older one.
    post(&app, "/v1/charges/other/capture").await;
    app.tell_of((ObjectType::Charge, &left), &permission).await;
    app.run_due().await;
    assert_eq!(app.state("other").await, "captured");
    let ledger = app.ledger();
    let state = ledger.charges.iter().find(|it| it.charge_id == left).expect("it was made").state;
    assert_eq!(state, ChargeState::Canceled, "nobody else lets go of the buyer's money");
    app.finish().await;
}

#[tokio::test]
async fn a_restored_authorisation_gets_no_second_charge_and_no_capture_that_nobody_asked_for() {
    let app = TestApp::start().await;
    let permission = app.permission();
    authorized(&app, "renewal", &permission).await;
    app.sandbox.inject(Operation::CaptureCharge, Fault::DropBefore);
    post(&app, "/v1/charges/renewal/capture").await;
    app.run_due().await;
    app.store.init(Init::AfterRestore).await.expect("Redis answers");
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.advance(2 * HOUR);
    let sure = json!({ "as": "new_number", "confirm": "Seller Central shows no charge for renewal" });
    let refused = app.post("/v1/charges/renewal/resolve", &sure).await;
    assert_eq!(refused.status, 409, "our own data names a charge: {}", refused.body);
    app.pass(HOUR, MINUTE).await;
    assert_eq!((app.creates(), app.state("renewal").await.as_str()), (1, "held"));
    app.finish().await;
}

#[tokio::test]
async fn a_capture_that_was_asked_for_before_or_during_a_pause_is_made_once_after_it() {
    for (first, sent) in [("capture", 0), ("pause", 0), ("lost", 1)] {
        let app = TestApp::start().await;
        let permission = app.permission();
        authorized(&app, "renewal", &permission).await;
        match first {
            "lost" => {
                app.sandbox.inject(Operation::CaptureCharge, Fault::DropBefore);
                post(&app, "/v1/charges/renewal/capture").await;
                app.run_due().await;
                post(&app, "/v1/charges/renewal/pause").await;
            }
            "capture" => {
                post(&app, "/v1/charges/renewal/capture").await;
                post(&app, &format!("/v1/charge-permissions/{permission}/pause")).await;
            }
            _ => {
                post(&app, &format!("/v1/charge-permissions/{permission}/pause")).await;
                post(&app, "/v1/charges/renewal/capture").await;
            }
        }
        let looks = count(&app, Operation::GetCharge);
        app.pass(2 * DAY, HOUR).await;
        assert_eq!((count(&app, Operation::CaptureCharge), app.state("renewal").await.as_str()), (sent, "authorized"));
        assert!(count(&app, Operation::GetCharge) - looks <= 4, "paused is no reason to look all the time");
        if first == "lost" {
            post(&app, "/v1/charges/renewal/resume").await;
        } else {
            post(&app, &format!("/v1/charge-permissions/{permission}/resume")).await;
        }
        app.run_due().await;
        assert_eq!(
            (count(&app, Operation::CaptureCharge), app.state("renewal").await.as_str()),
            (sent + 1, "captured")
        );
        app.finish().await;
    }
}

#[tokio::test]
async fn a_canceled_unknown_number_waits_for_the_end_of_a_pause_and_ends_as_it_turns_out() {
    for (lost, state) in [(Fault::DropAfter, "captured"), (Fault::DropBefore, "canceled")] {
        let app = TestApp::with_reading(Reading::ReplayAll).await;
        let permission = app.permission();
        unknown(&app, "renewal", &permission, lost).await;
        post(&app, "/v1/charges/renewal/pause").await;
        assert_eq!(app.delete("/v1/charges/renewal").await.status, 202);
        drop(app.sandbox.notifications());
        app.pass(40 * DAY, 12 * HOUR).await;
        assert_eq!((app.creates(), app.state("renewal").await.as_str()), (1, "scheduled"));
        app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
        post(&app, "/v1/charges/renewal/resume").await;
        app.pass(2 * HOUR, MINUTE).await;
        assert_eq!(app.state("renewal").await, state);
        app.finish().await;
    }
}

#[tokio::test]
async fn a_closing_with_an_unknown_number_goes_on_after_a_fault_of_the_account() {
    for reading in READINGS {
        for lost in [Fault::DropAfter, Fault::DropBefore] {
            let app = TestApp::with_reading(reading).await;
            let permission = app.permission();
            unknown(&app, "renewal", &permission, lost).await;
            refuse(&app, Operation::GetChargePermission);
            refuse(&app, Operation::CloseChargePermission);
            close(&app, &permission, false).await;
            app.pass(5 * HOUR, 5 * MINUTE).await;
            assert_eq!(app.creates(), 1);
            assert!(app.ledger().requests.len() < 50, "{}", app.ledger().requests.len());
            app.sandbox.clear_faults();
            drop(app.sandbox.notifications());
            app.pass(2 * HOUR, MINUTE).await;
            assert!(closed(&app, &permission).await);
            let charge = app.charge("renewal").await;
            assert!(["captured", "abandoned"].contains(&charge["state"].as_str().expect("a state")), "{charge}");
            app.pass(35 * DAY, DAY).await;
            app.finish().await;
        }
    }
}

#[tokio::test]
async fn a_closing_and_a_capture_that_are_both_asked_for_are_both_done() {
    for capture_first in [true, false] {
        let app = TestApp::start().await;
        let permission = app.permission();
        authorized(&app, "renewal", &permission).await;
        if capture_first {
            post(&app, "/v1/charges/renewal/capture").await;
            close(&app, &permission, false).await;
        } else {
            close(&app, &permission, false).await;
            post(&app, "/v1/charges/renewal/capture").await;
        }
        app.pass(HOUR, MINUTE).await;
        assert!(closed(&app, &permission).await);
        assert_eq!((count(&app, Operation::CaptureCharge), app.state("renewal").await.as_str()), (1, "captured"));
        app.finish().await;
    }
}

#[tokio::test]
async fn a_capture_on_an_authorisation_of_a_permission_that_the_caller_closed_is_made() {
    let app = TestApp::start().await;
    let permission = app.permission();
    authorized(&app, "renewal", &permission).await;
    close(&app, &permission, false).await;
    app.pass(2 * DAY, HOUR).await;
    assert!(closed(&app, &permission).await);
    post(&app, "/v1/charges/renewal/capture").await;
    app.run_due().await;
    assert_eq!((count(&app, Operation::CaptureCharge), app.state("renewal").await.as_str()), (1, "captured"));
    app.finish().await;
}

#[tokio::test]
async fn a_capture_that_is_stopped_and_then_canceled_is_never_sent() {
    let app = TestApp::start().await;
    let permission = app.permission();
    authorized(&app, "renewal", &permission).await;
    post(&app, "/v1/stop").await;
    post(&app, "/v1/charges/renewal/capture").await;
    app.pass(20 * MINUTE, MINUTE).await;
    assert_eq!(count(&app, Operation::CaptureCharge), 0);
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 202);
    app.pass(20 * MINUTE, MINUTE).await;
    assert_eq!(app.state("renewal").await, "canceled");
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.pass(DAY, HOUR).await;
    assert_eq!(count(&app, Operation::CaptureCharge), 0);
    assert_eq!(app.ledger().charges[0].state, ChargeState::Canceled);
    app.finish().await;
}

#[tokio::test]
async fn a_retry_of_a_charge_that_waits_for_quota_comes_before_the_others_and_is_sent_once() {
    let quota = Limits::of(Environment::Sandbox, Share::HALF);
    let app = TestApp::with(Options { quota, ..Options::default() }).await;
    app.sandbox.set_throttle(Some(Throttle::sandbox()));
    let mut permissions = Vec::new();
    for number in 0..20 {
        let permission = app.permission();
        app.submit(&format!("renewal-{number}"), &permission).await;
        permissions.push(permission);
    }
    app.run_due().await;
    post(&app, "/v1/charges/renewal-19/retry").await;
    app.run_due().await;
    app.pass(20 * Duration::from_secs(1), Duration::from_secs(1)).await;
    assert_eq!(app.state("renewal-19").await, "captured");
    assert_ne!(app.state("renewal-18").await, "captured");
    app.pass(5 * MINUTE, Duration::from_secs(5)).await;
    assert_eq!(app.creates(), 20);
    app.finish().await;
}

#[tokio::test]
async fn an_instrument_that_is_updated_during_a_pause_is_used_once_after_it() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.deliver_all().await;
    app.run_due().await;
    post(&app, "/v1/charges/renewal/pause").await;
    app.advance(HOUR);
    app.sandbox.buyer_updates_instrument(&permission, "MasterCard ****2222").expect("a permission");
    app.deliver_all().await;
    app.pass(40 * DAY, DAY).await;
    assert_eq!(app.creates(), 1);
    post(&app, "/v1/charges/renewal/resume").await;
    app.run_due().await;
    assert_eq!((app.creates(), app.state("renewal").await.as_str()), (2, "captured"));
    app.finish().await;
}

#[tokio::test]
async fn a_hard_decline_that_was_handed_over_ends_with_the_closing_and_sends_nothing() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let mut body = TestApp::body("renewal", &permission);
    let at = app.clock.now().checked_sub(HOUR).expect("a time");
    body["declined"] = json!({ "reasonCode": "HardDeclined", "at": at, "attempts": 1 });
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.sandbox.inject(Operation::CloseChargePermission, Fault::status(503, "ServiceUnavailable"));
    close(&app, &permission, false).await;
    app.run_due().await;
    app.sandbox.buyer_updates_instrument(&permission, "MasterCard ****2222").expect("a permission");
    app.deliver_all().await;
    app.pass(HOUR, MINUTE).await;
    assert!(closed(&app, &permission).await);
    assert_eq!((app.creates(), app.state("renewal").await.as_str()), (0, "abandoned"));
    app.finish().await;
}

#[tokio::test]
async fn a_capture_that_met_a_fault_of_the_account_is_made_once_when_it_is_over() {
    for (kept, calls) in
        [(Fault::status(401, "UnauthorizedAccess"), 2), (Fault::StatusAfter(401, "UnauthorizedAccess".to_owned()), 1)]
    {
        let app = TestApp::start().await;
        let permission = app.permission();
        authorized(&app, "renewal", &permission).await;
        app.sandbox.inject(Operation::CaptureCharge, kept);
        refuse(&app, Operation::GetChargePermission);
        post(&app, "/v1/charges/renewal/capture").await;
        app.run_due().await;
        assert_eq!(alerts(&app).await, ["account_fault"]);
        drop(app.sandbox.notifications());
        app.pass(3 * HOUR, MINUTE).await;
        assert_eq!(count(&app, Operation::CaptureCharge), 1);
        app.sandbox.clear_faults();
        app.pass(17 * MINUTE, MINUTE).await;
        assert_eq!(alerts(&app).await, ["account_fault", "account_recovered"]);
        assert_eq!((count(&app, Operation::CaptureCharge), app.state("renewal").await.as_str()), (calls, "captured"));
        app.finish().await;
    }
}

#[tokio::test]
async fn a_refund_that_is_named_during_a_fault_of_the_account_is_told_of_after_it() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.deliver_all().await;
    app.run_due().await;
    let charge = app.charge("renewal").await["chargeId"].as_str().expect("a charge").to_owned();
    refuse(&app, Operation::GetChargePermission);
    refuse(&app, Operation::GetRefund);
    app.submit("other", &app.permission()).await;
    app.run_due().await;
    let refund = app.sandbox.refund(&charge, "4.00".parse().expect("a number")).expect("a captured charge");
    app.sandbox.settle_refund(&refund, None).expect("a refund");
    app.deliver_all().await;
    app.pass(3 * DAY, 20 * MINUTE).await;
    assert_eq!(alerts(&app).await, ["account_fault"]);
    app.sandbox.clear_faults();
    app.pass(20 * MINUTE, MINUTE).await;
    assert_eq!(app.events_of("refund.completed").await.len(), 1);
    assert_eq!(app.state("other").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_charge_that_alone_is_refused_like_an_account_does_not_halt_the_account_again_and_again() {
    let app = TestApp::start().await;
    let permission = app.permission();
    refuse(&app, Operation::GetCharge);
    app.tell_of((ObjectType::Charge, &format!("{permission}-C000009")), &permission).await;
    app.run_due().await;
    app.pass(6 * HOUR, MINUTE).await;
    assert_eq!(alerts(&app).await, ["account_fault", "account_recovered"]);
    assert_eq!(app.quarantine().await.len(), 1);
    app.submit("renewal", &app.permission()).await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn an_authorisation_that_lapses_during_a_pause_ends_the_charge() {
    for wished in [false, true] {
        let app = TestApp::start().await;
        let permission = app.permission();
        authorized(&app, "renewal", &permission).await;
        post(&app, &format!("/v1/charge-permissions/{permission}/pause")).await;
        if wished {
            post(&app, "/v1/charges/renewal/capture").await;
        }
        app.pass(29 * DAY, 6 * HOUR).await;
        assert_eq!(app.events_of("charge.expiring").await.len(), 1);
        let charge = app.ledger().charges[0].charge_id.clone();
        app.pass(2 * DAY, HOUR).await;
        if app.ledger().charges[0].state == ChargeState::Authorized {
            app.sandbox.set_charge(&charge, ChargeState::Canceled, Some("ExpiredUnused")).expect("a charge");
        }
        drop(app.sandbox.notifications());
        app.pass(2 * DAY, HOUR).await;
        assert_eq!(app.state("renewal").await, "abandoned");
        post(&app, &format!("/v1/charge-permissions/{permission}/resume")).await;
        app.pass(DAY, HOUR).await;
        assert_eq!(count(&app, Operation::CaptureCharge), 0);
        app.finish().await;
    }
}

#[tokio::test]
async fn a_new_number_waits_for_a_charge_that_a_notification_has_named() {
    let app = TestApp::with_reading(Reading::ReEvaluate).await;
    let permission = app.permission();
    // Made, and answered as if another request had the key.
    app.sandbox.inject(Operation::CreateCharge, Fault::StatusAfter(400, "DuplicateIdempotencyKey".to_owned()));
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "held");
    app.advance(X + MINUTE);
    app.sandbox.inject(Operation::GetCharge, Fault::status(503, "ServiceUnavailable"));
    app.deliver_all().await;
    app.run_due().await;
    let sure = json!({ "as": "new_number", "confirm": "Seller Central shows no charge for renewal" });
    let resolved = app.post("/v1/charges/renewal/resolve", &sure).await;
    assert_eq!(resolved.status, 200, "{}", resolved.body);
    app.run_due().await;
    app.pass(10 * MINUTE, MINUTE).await;
    assert_eq!((app.creates(), app.state("renewal").await.as_str()), (1, "captured"));
    app.finish().await;
}

/// The stop switch holds back what is sent, and no cancellation.
#[tokio::test]
async fn a_left_over_authorisation_is_canceled_while_the_stop_switch_holds_an_older_capture_back() {
    let app = TestApp::with_reading(Reading::StatusFirst).await;
    let permission = app.permission();
    authorized(&app, "other", &permission).await;
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    let mut body = TestApp::body("renewal", &permission);
    body["captureNow"] = json!(false);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.run_due().await;
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 202);
    app.sandbox.buyer_closes(&permission).expect("a permission");
    drop(app.sandbox.notifications());
    app.pass(2 * DAY, HOUR).await;
    let tagged = |tag: Option<&str>| tag.is_some_and(|tag| tag.contains("renewal"));
    let left = |app: &TestApp| {
        let charges = app.ledger().charges;
        let charge = charges.iter().find(|it| tagged(it.custom_information.as_deref())).expect("it was made");
        (charge.charge_id.clone(), charge.state)
    };
    assert_eq!(left(&app).1, ChargeState::Authorized);
    post(&app, "/v1/charges/other/capture").await;
    assert_eq!(app.post("/v1/stop", &json!({})).await.status, 200);
    app.tell_of((ObjectType::Charge, &left(&app).0), &permission).await;
    let before = app.ledger().requests_of(Operation::GetCharge).len();
    app.pass(HOUR, MINUTE).await;
    assert_eq!(left(&app).1, ChargeState::Canceled, "nobody else lets go of the buyer's money");
    assert_eq!(app.state("other").await, "authorized", "nothing is sent");
    let looks = app.ledger().requests_of(Operation::GetCharge).len() - before;
    assert!(looks <= 70, "about one a minute at most: {looks}");
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn a_canceled_authorisation_is_let_go_while_the_stop_switch_holds_an_older_repeat_back() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("older", &permission).await;
    app.run_due().await;
    authorized(&app, "younger", &permission).await;
    // The next number of the older one is unknown.
    app.sandbox.inject(Operation::CreateCharge, Fault::status(503, "ServiceUnavailable"));
    for _ in 0..48 {
        app.advance(HOUR);
        app.run_due().await;
        if app.charge("older").await["numberStatus"] == "unknown" {
            break;
        }
    }
    assert_eq!(app.charge("older").await["numberStatus"], "unknown");
    assert_eq!(app.post("/v1/stop", &json!({})).await.status, 200);
    app.advance(HOUR);
    assert_eq!(app.delete("/v1/charges/younger").await.status, 202);
    let creates = app.creates();
    app.pass(10 * MINUTE, MINUTE).await;
    assert_eq!(app.state("younger").await, "canceled");
    assert_eq!(app.ledger().requests_of(Operation::CancelCharge).len(), 1);
    assert_eq!(app.creates(), creates, "nothing is sent");
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.pass(2 * HOUR, 10 * MINUTE).await;
    app.finish().await;
}
