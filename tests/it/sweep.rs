//! Looks without a cause: how often, until when, what is counted, and the alarm when notifications stop. And reminders, which follow
//! upon such looks.

use amazon_pay_ipn::sandbox::{DeclineCode, Fault, Gate, ObjectType, Operation, Outcome};
use serde_json::{Value, json};

use crate::support::{DAY, HOUR, MINUTE, TestApp};

fn count(app: &TestApp, operation: Operation) -> usize {
    app.ledger().requests_of(operation).len()
}

/// Calls of this operation within a span.
async fn during(app: &TestApp, operation: Operation, span: std::time::Duration) -> usize {
    let before = count(app, operation);
    app.pass(span, HOUR).await;
    count(app, operation) - before
}

/// A charge that waits for the buyer.
async fn parked(app: &TestApp, id: &str) -> String {
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined)).expect("a permission");
    app.submit(id, &permission).await;
    app.run_due().await;
    assert_eq!(app.state(id).await, "parked");
    permission
}

async fn scheduled(app: &TestApp) -> usize {
    let key = app.store.keys().schedule();
    redis::cmd("ZCARD").arg(key).query_async(&mut app.connection().await).await.expect("ZCARD")
}

async fn alarms(app: &TestApp) -> usize {
    let alerts = app.events_of("account.attention").await;
    alerts.iter().filter(|alert| alert["kind"] == "notifications_missing").count()
}

async fn complaints(app: &TestApp) -> (u16, String) {
    let answer = app.get("/readyz").await;
    (answer.status, answer.body["complaints"].to_string())
}

/// The counter of what the sweep found; all tests of the process share it.
async fn found(app: &TestApp, kind: &str) -> f64 {
    let page = app.get("/metrics").await.body;
    let line = format!("amazon_pay_ipn_found_by_sweep_total{{kind=\"{kind}\"}} ");
    let text = page.as_str().expect("a text");
    text.lines().find_map(|it| it.strip_prefix(line.as_str())).expect("the counter").parse().expect("a number")
}

#[tokio::test]
async fn a_pending_charge_is_asked_about_hourly_for_a_day_and_then_six_hourly() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Pend).expect("a permission");
    let mut body = TestApp::body("pending", &permission);
    body["canHandlePendingAuthorization"] = json!(true);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.run_due().await;
    drop(app.sandbox.notifications());
    // The sandbox decides nothing by itself.
    assert!((23..=24).contains(&during(&app, Operation::GetCharge, DAY).await));
    assert!((4..=5).contains(&during(&app, Operation::GetCharge, DAY).await));
    assert!((4..=5).contains(&during(&app, Operation::GetCharge, DAY).await));
    app.finish().await;
}

#[tokio::test]
async fn a_parked_charge_is_looked_at_ever_more_rarely_and_ended_work_never_again() {
    let app = TestApp::start().await;
    let permission = parked(&app, "renewal").await;
    drop(app.sandbox.notifications());
    for _ in 0..3 {
        assert!((3..=4).contains(&during(&app, Operation::GetChargePermission, DAY).await));
    }
    let later = during(&app, Operation::GetChargePermission, 7 * DAY).await;
    assert!((7..=9).contains(&later), "daily, and once before each reminder: {later}");
    app.pass(21 * DAY, 6 * HOUR).await;
    assert_eq!(app.state("renewal").await, "abandoned", "the window has ended");
    app.submit("paid", &app.permission()).await;
    app.submit("canceled", &permission).await;
    assert_eq!(app.delete("/v1/charges/canceled").await.status, 200);
    app.run_due().await;
    assert_eq!(scheduled(&app).await, 0);
    let calls = app.ledger().requests.len();
    app.pass(365 * DAY, 5 * DAY).await;
    assert_eq!(app.ledger().requests.len(), calls, "a year without a call");
    app.finish().await;
}

#[tokio::test]
async fn changes_that_no_notification_told_of_raise_one_alarm_until_the_next_notification() {
    let app = TestApp::start().await;
    let permissions = [parked(&app, "a").await, parked(&app, "b").await, parked(&app, "c").await];
    app.deliver_all().await;
    app.run_due().await;
    assert!(
        app.get("/metrics")
            .await
            .body
            .as_str()
            .expect("a text")
            .contains("\namazon_pay_ipn_seconds_since_notification ")
    );
    app.advance(HOUR);
    let before = found(&app, "instrument").await;
    for permission in &permissions[..2] {
        app.sandbox.buyer_updates_instrument(permission, "MasterCard ****2222").expect("a permission");
    }
    drop(app.sandbox.notifications());
    app.pass(8 * HOUR, HOUR).await;
    assert_eq!((app.state("a").await.as_str(), app.state("b").await.as_str()), ("captured", "captured"));
    assert!(found(&app, "instrument").await >= before + 2.0);
    assert_eq!(alarms(&app).await, 0, "two are no silence yet");
    app.sandbox.buyer_closes(&permissions[2]).expect("a permission");
    drop(app.sandbox.notifications());
    app.pass(8 * HOUR, HOUR).await;
    assert_eq!(alarms(&app).await, 1);
    let (status, complaint) = complaints(&app).await;
    assert_eq!(status, 200, "a complaint, not a reason to stop");
    assert!(complaint.contains("no notification told of"), "{complaint}");
    app.tell_of((ObjectType::ChargePermission, &permissions[0]), &permissions[0]).await;
    app.run_due().await;
    let (_, complaint) = complaints(&app).await;
    assert!(!complaint.contains("no notification told of"), "{complaint}");
    app.finish().await;
}

#[tokio::test]
async fn changes_of_one_permission_our_own_declines_and_what_is_told_of_raise_no_alarm() {
    let app = TestApp::start().await;
    let permission = parked(&app, "renewal").await;
    // Our own declines turn permissions NonChargeable, and the look after them sometimes fails.
    for id in ["x", "y", "z"] {
        app.sandbox.inject(Operation::GetChargePermission, Fault::Delay(std::time::Duration::ZERO));
        app.sandbox.inject(Operation::GetChargePermission, Fault::status(503, "ServiceUnavailable"));
        let _ = parked(&app, id).await;
    }
    drop(app.sandbox.notifications());
    app.pass(HOUR, 5 * MINUTE).await;
    assert_eq!(alarms(&app).await, 0);
    for card in 0..4 {
        let card = format!("MasterCard ****222{card}");
        app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined)).expect("a permission");
        app.sandbox.buyer_updates_instrument(&permission, &card).expect("a permission");
        drop(app.sandbox.notifications());
        app.pass(6 * HOUR, HOUR).await;
    }
    assert_eq!(app.creates(), 8, "each update was found");
    assert_eq!(alarms(&app).await, 0, "one permission alone may be an oddity of Amazon's");
    app.finish().await;
}

#[tokio::test]
async fn silence_is_told_of_at_most_once_a_day_and_slow_finds_do_not_add_up() {
    let app = TestApp::start().await;
    let mut permissions = Vec::new();
    for id in ["a", "b", "c", "d", "e", "f"] {
        permissions.push(parked(&app, id).await);
    }
    drop(app.sandbox.notifications());
    let close = |index: usize| {
        app.sandbox.buyer_closes(&permissions[index]).expect("a permission");
        drop(app.sandbox.notifications());
    };
    // One every 20 hours: never three within 24.
    for index in 0..2 {
        close(index);
        app.pass(20 * HOUR, HOUR).await;
    }
    close(2);
    app.pass(20 * HOUR, HOUR).await;
    assert_eq!(alarms(&app).await, 0);
    for index in 3..6 {
        close(index);
    }
    app.pass(12 * HOUR, HOUR).await;
    assert_eq!(alarms(&app).await, 1);
    app.finish().await;
}

fn reminders(asked: &[Value]) -> Vec<Value> {
    asked.iter().map(|event| event["reminder"].clone()).collect()
}

#[tokio::test]
async fn the_buyer_is_reminded_exactly_once_each_time_although_a_worker_dies_and_never_after_the_card_was_updated() {
    let mut app = TestApp::start().await;
    let permission = parked(&app, "renewal").await;
    drop(app.sandbox.notifications());
    app.pass(2 * DAY + 23 * HOUR, HOUR).await;
    assert_eq!(reminders(&app.events_of("charge.action_required").await), [Value::Null]);
    // At the look before the first reminder the worker dies.
    let gate = Gate::new();
    app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
    app.advance(2 * HOUR);
    let reconciler = app.reconciler.clone();
    let work = tokio::spawn(async move { reconciler.step().await });
    gate.reached().await;
    work.abort();
    let _ = work.await;
    gate.release();
    app.restart().await;
    app.pass(DAY, 30 * MINUTE).await;
    app.pass(4 * DAY, HOUR).await;
    let asked = app.events_of("charge.action_required").await;
    assert_eq!(reminders(&asked), [Value::Null, json!(1), json!(2)]);
    assert!(asked.iter().all(|event| event["updateUrl"] == asked[0]["updateUrl"]));
    assert!(asked.iter().all(|event| event["before"] == asked[0]["before"]));
    app.sandbox.buyer_updates_instrument(&permission, "MasterCard ****2222").expect("a permission");
    app.deliver_all().await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    app.pass(30 * DAY, DAY).await;
    assert_eq!(app.events_of("charge.action_required").await.len(), 3);
    app.finish().await;
}

#[tokio::test]
async fn that_no_notification_ever_came_is_told_after_a_day_and_weekly_until_one_comes() {
    let app = TestApp::start().await;
    let told = async || {
        let alerts = app.events_of("account.attention").await;
        alerts.iter().filter(|alert| alert["kind"] == "never_heard").count()
    };
    app.advance(DAY - MINUTE);
    assert!(!app.store.tell_if_never_heard().await.expect("Redis answers"), "it may still come");
    app.advance(MINUTE);
    assert!(app.store.tell_if_never_heard().await.expect("Redis answers"));
    app.advance(DAY * 7 - MINUTE);
    assert!(!app.store.tell_if_never_heard().await.expect("Redis answers"), "once a week");
    app.advance(MINUTE);
    assert!(app.store.tell_if_never_heard().await.expect("Redis answers"));
    assert_eq!(told().await, 2);
    let permission = app.permission();
    app.sandbox.buyer_closes(&permission).expect("a permission");
    app.deliver_all().await;
    app.advance(DAY * 30);
    assert!(!app.store.tell_if_never_heard().await.expect("Redis answers"), "one came");
    app.finish().await;
}
