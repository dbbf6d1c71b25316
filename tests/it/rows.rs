//! The rows of the recovery table that no other story tells: one test each, through the real loop.

use amazon_pay_ipn::sandbox::{DeclineCode, Fault, Operation, Outcome, PermissionState};
use serde_json::Value;

use crate::support::{DAY, HOUR, MINUTE, TestApp};

async fn answered(app: &TestApp, outcomes: &[Outcome]) -> String {
    let permission = app.permission();
    for outcome in outcomes {
        app.sandbox.script_charge(&permission, outcome.clone()).expect("a permission");
    }
    app.submit("renewal", &permission).await;
    app.run_due().await;
    permission
}

async fn alerts(app: &TestApp) -> Vec<Value> {
    let kinds = app.events_of("account.attention").await;
    kinds.iter().map(|alert| alert["kind"].clone()).collect()
}

#[tokio::test]
async fn a_time_out_of_the_transaction_is_tried_again_a_day_later_under_a_new_number() {
    let app = TestApp::start().await;
    answered(&app, &[Outcome::Decline(DeclineCode::TransactionTimedOut)]).await;
    assert_eq!(app.charge("renewal").await["number"], 1);
    app.pass(DAY - HOUR, 6 * HOUR).await;
    assert_eq!(app.creates(), 1);
    app.pass(5 * HOUR, HOUR).await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.events_of("charge.captured").await[0]["attempts"], 2);
    app.finish().await;
}

#[tokio::test]
async fn a_hard_decline_that_nobody_mends_is_given_up_after_30_days_without_another_attempt() {
    let app = TestApp::start().await;
    answered(&app, &[Outcome::Decline(DeclineCode::HardDeclined)]).await;
    app.pass(29 * DAY, DAY).await;
    assert_eq!(app.state("renewal").await, "parked");
    app.pass(2 * DAY, 6 * HOUR).await;
    assert_eq!(app.state("renewal").await, "abandoned");
    assert_eq!(app.events_of("charge.abandoned").await[0]["reason"], "HardDeclined");
    assert_eq!(app.creates(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_monthly_limit_that_amazon_answers_is_waited_for_twice_and_asked_again_around_the_turn() {
    let app = TestApp::start().await;
    let limit = Outcome::Answer(400, "PeriodicAmountExceeded".to_owned());
    answered(&app, &vec![limit; 200]).await;
    assert_eq!(app.charge("renewal").await["state"], "scheduled");
    assert_eq!(app.creates(), 1);
    app.pass(100 * DAY, HOUR).await;
    assert_eq!(app.state("renewal").await, "abandoned");
    let ended = app.events_of("charge.abandoned").await;
    assert_eq!((&ended[0]["reason"], &ended[0]["attempts"]), (&"PeriodicAmountExceeded".into(), &0.into()));
    // Once, and then around two turns of the month every two hours for a day and a half: Amazon's month may turn later than ours.
    let creates = app.creates();
    assert!((20..=45).contains(&creates), "{creates}");
    app.finish().await;
}

#[tokio::test]
async fn a_permission_that_looks_chargeable_and_is_refused_is_tried_hourly_three_times_and_then_left_to_a_person() {
    let app = TestApp::start().await;
    answered(&app, &vec![Outcome::Answer(422, "InvalidChargePermissionStatus".to_owned()); 4]).await;
    for sends in 1..=3 {
        assert_eq!(app.creates(), sends);
        app.pass(45 * MINUTE, 5 * MINUTE).await;
        assert_eq!(app.creates(), sends);
        app.pass(17 * MINUTE, MINUTE).await;
        assert_eq!(app.creates(), sends + 1);
    }
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["state"], &charge["parkedFor"]), (&"parked".into(), &"attention".into()));
    assert_eq!(alerts(&app).await, ["charge_parked"]);
    app.pass(3 * DAY, 6 * HOUR).await;
    assert_eq!(app.creates(), 4);
    app.finish().await;
}

#[tokio::test]
async fn another_request_under_our_key_holds_the_charge_for_the_operator() {
    let app = TestApp::start().await;
    answered(&app, &[Outcome::Answer(400, "DuplicateIdempotencyKey".to_owned())]).await;
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["state"], &charge["numberStatus"]), (&"held".into(), &"unknown".into()));
    app.pass(40 * DAY, DAY).await;
    assert_eq!((app.state("renewal").await.as_str(), app.creates()), ("held", 1));
    app.finish().await;
}

#[tokio::test]
async fn a_refused_account_abandons_and_counts_nothing_and_the_same_number_goes_out_when_it_is_let_in_again() {
    for (status, code) in [(401, "UnauthorizedAccess"), (403, "InvalidAccountStatus"), (403, "InvalidRequestSignature")]
    {
        let app = TestApp::start().await;
        app.sandbox.inject(Operation::CreateCharge, Fault::status(status, code));
        answered(&app, &[]).await;
        let charge = app.charge("renewal").await;
        assert_eq!(
            (&charge["state"], &charge["number"], &charge["attempts"]),
            (&"scheduled".into(), &0.into(), &0.into())
        );
        app.pass(2 * HOUR, 5 * MINUTE).await;
        assert_eq!(app.state("renewal").await, "captured", "{code}");
        let ledger = app.ledger();
        let sends = ledger.requests_of(Operation::CreateCharge);
        assert!(sends.iter().all(|send| send.idempotency_key == sends[0].idempotency_key), "{code}");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_permission_in_a_state_or_for_reasons_that_we_do_not_know_is_not_charged_and_nobody_is_mailed() {
    for (state, reasons) in [
        (PermissionState::NonChargeable, vec!["SomethingNew"]),
        (PermissionState::NonChargeable, vec!["ChargeInProgress", "SomethingNew"]),
    ] {
        let app = TestApp::start().await;
        let permission = app.permission();
        app.sandbox.set_permission(&permission, state, &reasons).expect("a permission");
        app.submit("renewal", &permission).await;
        app.run_due().await;
        assert_eq!(app.charge("renewal").await["parkedFor"], "attention", "{reasons:?}");
        assert_eq!(alerts(&app).await, ["unknown_permission_reason", "charge_parked"]);
        assert!(app.events_of("charge.action_required").await.is_empty());
        assert_eq!(app.creates(), 0);
        app.finish().await;
    }
}

#[tokio::test]
async fn a_permission_that_amazon_does_not_know_is_parked_and_looked_at_ever_less_often() {
    let app = TestApp::start().await;
    app.submit("renewal", "C01-9999999-9999999").await;
    app.run_due().await;
    assert_eq!(app.charge("renewal").await["parkedFor"], "attention");
    app.pass(29 * DAY, 6 * HOUR).await;
    let looks = app.ledger().requests_of(Operation::GetChargePermission).len();
    assert!(looks <= 3 * 4 + 27 + 2, "{looks} looks in a month");
    app.pass(2 * DAY, 6 * HOUR).await;
    assert_eq!(app.state("renewal").await, "abandoned");
    assert_eq!(app.creates(), 0);
    app.finish().await;
}
