//! Faults of the account (401, 403, a refused signature, a wrong clock): told of once, probed slowly, over by themselves.

use amazon_pay_ipn::reconciler::StepOutcome;
use amazon_pay_ipn::sandbox::{DeclineCode, Fault, Gate, ObjectType, Operation, Outcome};
use serde_json::{Value, json};

use crate::support::{DAY, HOUR, MINUTE, TestApp};

/// Amazon refuses this operation until the faults are cleared.
fn refuse(app: &TestApp, operation: Operation, status: u16, code: &str) {
    for _ in 0..5000 {
        app.sandbox.inject(operation, Fault::status(status, code));
    }
}

async fn alerts(app: &TestApp) -> Vec<String> {
    let alerts = app.events_of("account.attention").await;
    alerts.iter().map(|alert| alert["kind"].as_str().expect("a kind").to_owned()).collect()
}

async fn fault(app: &TestApp) -> Value {
    app.get("/v1/quota").await.body["accountFault"].clone()
}

/// A charge that nobody here knows, and its permission.
async fn foreign_charge(app: &TestApp) -> (String, String) {
    let permission = app.permission();
    app.submit("another-systems", &permission).await;
    app.run_due().await;
    let charge = app.charge("another-systems").await["chargeId"].as_str().expect("a charge").to_owned();
    let keys = app.store.keys();
    let intent = keys.intent(&"another-systems".parse().expect("an id"));
    let record = keys.permission(&permission.parse().expect("an id"));
    let mut connection = app.connection().await;
    let () = redis::cmd("DEL").arg(intent).query_async(&mut connection).await.expect("DEL");
    let () = redis::cmd("HDEL").arg(record).arg("record").query_async(&mut connection).await.expect("HDEL");
    (permission, charge)
}

#[tokio::test]
async fn a_fault_of_the_account_is_told_of_once_probed_slowly_and_over_by_itself_for_everybody() {
    let app = TestApp::start().await;
    refuse(&app, Operation::GetChargePermission, 403, "InvalidRequestSignature");
    for number in 0..20 {
        app.submit(&format!("renewal-{number}"), &app.permission()).await;
    }
    app.run_due().await;
    assert_eq!((alerts(&app).await, app.ledger().requests.len()), (vec!["account_fault".to_owned()], 1));
    app.pass(2 * HOUR + MINUTE, MINUTE).await;
    let calls: Vec<_> = app.ledger().requests.iter().map(|request| request.at).collect();
    let waits = calls.windows(2).map(|pair| (pair[1].duration_since(pair[0]).as_secs() + 5) / 60).collect::<Vec<_>>();
    assert_eq!(waits, [1, 2, 4, 8, 15, 15, 15, 15, 15, 15, 15], "minutes from the call to the probes");
    assert_eq!(alerts(&app).await, ["account_fault"], "one fault, however many meet it");
    let permissions: std::collections::BTreeSet<_> =
        app.ledger().requests.iter().map(|request| request.permission.clone()).collect();
    assert!(permissions.len() > 5, "no permission is the probe for ever: {permissions:?}");

    assert_eq!(fault(&app).await["reason"], "InvalidRequestSignature", "Amazon's word, not only what was asked");
    let told = app.events_of("account.attention").await;
    assert_eq!(told[0]["reasonCode"], "InvalidRequestSignature");
    let ready = app.get("/readyz").await;
    assert_eq!(ready.status, 200);
    let complaints = ready.body["complaints"].to_string();
    assert!(complaints.contains("account is at fault"), "{complaints}");
    assert!(app.get("/metrics").await.body.as_str().expect("text").contains("amazon_pay_ipn_account_fault 1"));
    let waiting = app.charge("renewal-7").await["waitingForQuota"].clone();
    assert!(waiting["ahead"].is_u64() && waiting["estimatedAt"].is_null(), "{waiting}");

    app.sandbox.clear_faults();
    app.advance(15 * MINUTE);
    app.run_due().await;
    app.advance(MINUTE);
    app.run_due().await;
    assert_eq!(app.creates(), 20, "nobody waits 15 minutes more");
    assert_eq!(alerts(&app).await, ["account_fault", "account_recovered"]);
    assert!(fault(&app).await.is_null());
    for number in 0..20 {
        let charge = app.charge(&format!("renewal-{number}")).await;
        assert_eq!((&charge["state"], &charge["attempts"]), (&json!("captured"), &json!(1)));
    }
    app.finish().await;
}

#[tokio::test]
async fn a_refused_send_pauses_the_account_and_is_repeated_under_its_number_when_it_is_over() {
    let app = TestApp::start().await;
    let (one, other) = (app.permission(), app.permission());
    app.sandbox.inject(Operation::CreateCharge, Fault::status(401, "UnauthorizedAccess"));
    app.submit("one", &one).await;
    app.run_due().await;
    app.submit("other", &other).await;
    app.run_due().await;
    assert_eq!((app.creates(), alerts(&app).await), (1, vec!["account_fault".to_owned()]));
    let charge = app.charge("one").await;
    assert_eq!((&charge["numberStatus"], &charge["attempts"]), (&json!("unknown"), &json!(0)));
    app.pass(17 * MINUTE, MINUTE).await;
    assert_eq!((app.state("one").await, app.state("other").await), ("captured".to_owned(), "captured".to_owned()));
    assert_eq!(app.creates(), 3);
    app.finish().await;
}

#[tokio::test]
async fn windows_stand_still_while_the_account_is_at_fault_and_a_stop_meanwhile_counts_once() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "parked");
    app.pass(10 * DAY, 6 * HOUR).await;

    // The sweep meets the fault within a day; from the second day on everything stands still.
    refuse(&app, Operation::GetChargePermission, 403, "InvalidAccountStatus");
    app.pass(20 * DAY, 3 * HOUR).await;
    assert_eq!(app.post("/v1/stop", &json!({})).await.status / 100, 2);
    app.pass(10 * DAY, 3 * HOUR).await;
    assert_eq!(app.delete("/v1/stop").await.status / 100, 2);
    app.pass(10 * DAY, 3 * HOUR).await;
    assert_eq!(app.state("renewal").await, "parked", "50 days after its submission");
    app.sandbox.clear_faults();
    let halted = app.store.account().await.expect("Redis answers").stopped_ms / 86_400_000;
    assert!((39..=40).contains(&halted), "{halted} days of halt, the stop within it counted once");

    // 10 days were used before the fault, and a little of the first day of it.
    app.pass(18 * DAY, 6 * HOUR).await;
    assert_eq!(app.state("renewal").await, "parked", "the window is 30 days of days on which we could ask");
    app.pass(4 * DAY, 6 * HOUR).await;
    assert_eq!(app.state("renewal").await, "abandoned", "and no more than that");
    app.finish().await;
}

#[tokio::test]
async fn a_stop_that_outlasts_a_fault_counts_to_its_end() {
    let app = TestApp::start().await;
    refuse(&app, Operation::GetChargePermission, 401, "UnauthorizedAccess");
    app.submit("renewal", &app.permission()).await;
    app.run_due().await;
    app.pass(2 * HOUR, 10 * MINUTE).await;
    assert_eq!(app.post("/v1/stop", &json!({})).await.status / 100, 2);
    app.pass(HOUR, 10 * MINUTE).await;
    app.sandbox.clear_faults();
    app.pass(3 * HOUR, 10 * MINUTE).await;
    assert!(fault(&app).await.is_null());
    assert_eq!(app.delete("/v1/stop").await.status / 100, 2);
    let halted = app.store.account().await.expect("Redis answers").stopped_ms;
    app.pass(HOUR, 10 * MINUTE).await;
    assert_eq!((halted + 1000) / 3_600_000, 6);
    assert_eq!(app.store.account().await.expect("Redis answers").stopped_ms, halted, "and not after it");
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_notification_about_a_charge_is_not_quarantined_for_the_accounts_fault() {
    let app = TestApp::start().await;
    let (permission, charge) = foreign_charge(&app).await;
    for operation in [Operation::GetCharge, Operation::GetChargePermission] {
        refuse(&app, operation, 403, "UnauthorizedAccess");
    }
    app.tell_of((ObjectType::Charge, &charge), &permission).await;
    app.run_due().await;
    app.pass(2 * DAY, 10 * MINUTE).await;
    assert!(app.quarantine().await.is_empty());
    assert_eq!(alerts(&app).await, ["account_fault"]);
    assert_eq!(app.ledger().requests_of(Operation::GetCharge).len(), 1, "its permission said whose fault it is");
    app.sandbox.clear_faults();
    app.pass(20 * MINUTE, 5 * MINUTE).await;
    assert_eq!(app.events_of("charge.unmatched").await.len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_charge_that_is_refused_while_its_permission_is_shown_is_the_charges_own_trouble() {
    let app = TestApp::start().await;
    let (permission, charge) = foreign_charge(&app).await;
    refuse(&app, Operation::GetCharge, 403, "UnauthorizedAccess");
    app.tell_of((ObjectType::Charge, &charge), &permission).await;
    app.run_due().await;
    app.pass(3 * HOUR, MINUTE).await;
    assert_eq!(app.quarantine().await.len(), 1);
    assert!(alerts(&app).await.is_empty());
    assert_eq!(app.ledger().requests_of(Operation::GetCharge).len(), 5);
    app.finish().await;
}

#[tokio::test]
async fn a_permission_that_alone_is_refused_does_not_halt_the_account_again_and_again() {
    let app = TestApp::start().await;
    let refused = app.permission();
    app.submit("refused", &refused).await;
    app.sandbox.inject(Operation::GetChargePermission, Fault::status(403, "UnauthorizedAccess"));
    app.run_due().await;
    app.advance(MINUTE / 2);
    app.run_due().await;
    app.submit("good", &app.permission()).await;
    app.run_due().await;
    // The permission that waits longest is the probe, and fails; the next probe is the other one.
    app.sandbox.inject(Operation::GetChargePermission, Fault::status(403, "UnauthorizedAccess"));
    app.advance(15 * MINUTE);
    app.run_due().await;
    app.advance(15 * MINUTE);
    app.reconciler.step().await.expect("Redis answers");
    assert_eq!(alerts(&app).await, ["account_fault", "account_recovered"]);
    app.sandbox.inject(Operation::GetChargePermission, Fault::status(403, "UnauthorizedAccess"));
    let step = app.reconciler.step().await.expect("Redis answers");
    assert_eq!(step, StepOutcome::Reconciled(refused.parse().expect("an id")));
    app.advance(MINUTE);
    app.run_due().await;
    assert_eq!(app.state("good").await, "captured", "while the other one is refused again");
    assert_eq!(app.state("refused").await, "scheduled");
    app.sandbox.clear_faults();
    assert_eq!(alerts(&app).await, ["account_fault", "account_recovered", "permission_refused"]);
    app.pass(20 * MINUTE, MINUTE).await;
    assert_eq!(app.state("refused").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_stop_that_an_earlier_version_threw_is_added_up_from_its_beginning() {
    let app = TestApp::start().await;
    assert_eq!(app.post("/v1/stop", &json!({})).await.status / 100, 2);
    // As that version left it.
    let marker = app.store.keys().marker();
    let mut connection = app.connection().await;
    let () = redis::cmd("HDEL").arg(marker).arg("halted_since").query_async(&mut connection).await.expect("HDEL");
    app.advance(HOUR);
    refuse(&app, Operation::GetChargePermission, 401, "UnauthorizedAccess");
    app.submit("renewal", &app.permission()).await;
    app.run_due().await;
    app.advance(HOUR);
    let halted_h = |account: amazon_pay_ipn::store::account::AccountStatus| (account.stopped_ms + 1000) / 3_600_000;
    assert_eq!(halted_h(app.store.account().await.expect("Redis answers")), 2);
    assert_eq!(app.delete("/v1/stop").await.status / 100, 2);
    app.sandbox.clear_faults();
    app.advance(HOUR);
    app.run_due().await;
    assert_eq!(halted_h(app.store.account().await.expect("Redis answers")), 3);
    app.finish().await;
}

#[tokio::test]
async fn a_refused_permission_of_the_best_class_is_not_the_probe_for_ever() {
    let app = TestApp::start().await;
    let (urgent, other) = (app.permission(), app.permission());
    app.sandbox.inject(Operation::CreateCharge, Fault::DropBefore);
    app.submit("canceled", &urgent).await;
    app.run_due().await;
    app.sandbox.inject(Operation::GetChargePermission, Fault::status(403, "UnauthorizedAccess"));
    assert_eq!(app.delete("/v1/charges/canceled").await.status, 202, "a charge may still come of it");
    app.pass(3 * MINUTE / 2, MINUTE / 2).await;
    assert_eq!(alerts(&app).await, ["account_fault"]);
    // It comes back after some seconds, and waits.
    app.advance(MINUTE / 6);
    app.run_due().await;
    app.submit("other", &other).await;
    app.run_due().await;
    let waiting = app.get("/v1/quota").await.body["waiting"].clone();
    assert_eq!((&waiting["urgent"], &waiting["attempt"]), (&json!(1), &json!(1)));
    app.sandbox.inject(Operation::GetChargePermission, Fault::status(403, "UnauthorizedAccess"));
    app.pass(MINUTE, MINUTE / 2).await;
    assert_eq!(app.state("other").await, "scheduled");
    app.pass(4 * MINUTE, MINUTE / 2).await;
    let looks = app.ledger();
    let looks = looks.requests_of(Operation::GetChargePermission);
    let probes: Vec<_> = looks.iter().skip(2).take(2).map(|look| look.permission.clone()).collect();
    assert_eq!(probes, [Some(urgent), Some(other)], "whoever waits longest, of any class");
    assert_eq!(app.state("other").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_permission_that_alone_is_refused_costs_the_others_a_minute() {
    let app = TestApp::start().await;
    let (refused, good) = (app.permission(), app.permission());
    app.submit("refused", &refused).await;
    app.sandbox.inject(Operation::GetChargePermission, Fault::status(403, "UnauthorizedAccess"));
    app.run_due().await;
    app.submit("good", &good).await;
    app.run_due().await;
    assert_eq!((alerts(&app).await, app.creates()), (vec!["account_fault".to_owned()], 0));
    app.pass(MINUTE + MINUTE / 6, MINUTE / 6).await;
    assert_eq!(alerts(&app).await, ["account_fault", "account_recovered"]);
    assert_eq!(app.state("good").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_mended_account_is_probed_when_an_operator_says_so_and_only_amazon_ends_the_fault() {
    let app = TestApp::start().await;
    assert_eq!(app.post("/v1/account/probe", &json!({})).await.status, 200, "there is nothing to find out");
    refuse(&app, Operation::GetChargePermission, 403, "InvalidRequestSignature");
    for id in ["one", "other"] {
        app.submit(id, &app.permission()).await;
    }
    app.run_due().await;
    // A permission that was the probe waits a few seconds before it may be one again.
    app.pass(HOUR + MINUTE / 6, MINUTE / 6).await;
    let before = app.ledger().requests.len();
    let answer = app.post("/v1/account/probe", &json!({})).await;
    assert_eq!((answer.status, &answer.body["accountFault"]["reason"]), (202, &json!("InvalidRequestSignature")));
    app.run_due().await;
    assert_eq!(app.ledger().requests.len(), before + 1, "one probe, at once");
    assert!(fault(&app).await.is_object(), "that it was asked for ends nothing");
    app.sandbox.clear_faults();
    app.run_due().await;
    app.pass(MINUTE / 3, MINUTE / 6).await;
    assert!(fault(&app).await.is_object(), "nobody asks before it is time");
    assert_eq!(app.post("/v1/account/probe", &json!({})).await.status, 202);
    app.run_due().await;
    assert!(fault(&app).await.is_null(), "at once, not after the quarter of an hour");
    app.pass(MINUTE / 3, MINUTE / 6).await;
    assert_eq!((app.state("one").await, app.state("other").await), ("captured".to_owned(), "captured".to_owned()));
    assert_eq!(alerts(&app).await, ["account_fault", "account_recovered"]);
    app.finish().await;
}

#[tokio::test]
async fn an_account_that_answers_looks_and_refuses_charges_is_asked_ever_more_slowly() {
    let app = TestApp::start().await;
    refuse(&app, Operation::CreateCharge, 403, "InvalidAccountStatus");
    for number in 0..8 {
        app.submit(&format!("renewal-{number}"), &app.permission()).await;
    }
    app.run_due().await;
    app.pass(HOUR, MINUTE).await;
    let faults = alerts(&app).await.iter().filter(|alert| *alert == "account_fault").count();
    assert!((4..=7).contains(&faults), "{faults} faults: after 1, 2, 4, 8 and 15 minutes, not every minute");
    app.sandbox.clear_faults();
    app.pass(4 * HOUR, MINUTE).await;
    for number in 0..8 {
        assert_eq!(app.state(&format!("renewal-{number}")).await, "captured");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_look_that_is_refused_after_a_decline_or_a_closing_is_the_accounts_fault_as_one_before_a_number() {
    for closing in [false, true] {
        let app = TestApp::start().await;
        let (permission, other) = (app.permission(), app.permission());
        let gate = Gate::new();
        let operation = if closing { Operation::CloseChargePermission } else { Operation::CreateCharge };
        if closing {
            app.sandbox.inject(operation, Fault::HoldAfter(gate.clone()));
            let body = json!({ "closureReason": "moved", "cancelPendingCharges": false });
            assert_eq!(app.post(&format!("/v1/charge-permissions/{permission}/close"), &body).await.status, 202);
        } else {
            app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
            app.sandbox.inject(operation, Fault::HoldAfter(gate.clone()));
            app.submit("renewal", &permission).await;
        }
        let reconciler = app.reconciler.clone();
        let under_way = tokio::spawn(async move { reconciler.step().await });
        gate.reached().await;
        app.sandbox.inject(Operation::GetChargePermission, Fault::status(403, "UnauthorizedAccess"));
        gate.release();
        under_way.await.expect("no panic").expect("Redis answers");
        assert_eq!(alerts(&app).await, ["account_fault"], "closing: {closing}");
        assert_eq!(fault(&app).await["reason"], "UnauthorizedAccess");
        let calls = app.ledger().requests.len();
        app.submit("other", &other).await;
        app.run_due().await;
        assert_eq!(app.ledger().requests.len(), calls, "nobody calls while it lasts");
        app.pass(3 * MINUTE, MINUTE / 6).await;
        assert_eq!(alerts(&app).await[..2], ["account_fault", "account_recovered"]);
        assert_eq!(app.state("other").await, "captured");
        if !closing {
            let charge = app.charge("renewal").await;
            assert_eq!((&charge["state"], &charge["attempts"]), (&json!("scheduled"), &json!(1)));
        }
        app.finish().await;
    }
}
