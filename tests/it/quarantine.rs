//! What waits for a person: seen, replayed or dropped through the API.

use amazon_pay_ipn::sandbox::{DeclineCode, Forgery, NotificationType, ObjectType, Operation, Outcome};
use serde_json::{Value, json};

use crate::support::{HOUR, MINUTE, TestApp};

async fn entries(app: &TestApp) -> Vec<Value> {
    let answer = app.get("/v1/quarantine").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["entries"].as_array().expect("entries").clone()
}

/// A charge that Amazon does not know yet is asked for until it goes to the quarantine.
async fn with_a_refused_hint() -> (TestApp, String, String) {
    let app = TestApp::start().await;
    let permission = app.permission();
    let charge = format!("{permission}-C999999");
    app.tell_of((ObjectType::Charge, &charge), &permission).await;
    app.pass(10 * 60 * MINUTE, 10 * MINUTE).await;
    (app, permission, charge)
}

/// A genuine message about another merchant.
async fn foreign(app: &TestApp) -> String {
    let permission = app.permission();
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let message = app.sandbox.forge(&ipn, Forgery::ForeignMerchant).expect("a message");
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    message.body
}

#[tokio::test]
async fn a_hint_that_amazon_refused_is_replayed_once_and_asked_for_again() {
    let (app, permission, charge) = with_a_refused_hint().await;
    let aside = entries(&app).await;
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(
        (&aside[0]["kind"], &aside[0]["objectId"], &aside[0]["chargePermissionId"]),
        (&json!("hint"), &json!(charge), &json!(permission))
    );
    let id = aside[0]["id"].as_str().expect("an id");
    let looks = || app.ledger().requests_of(Operation::GetCharge).len();
    let before = looks();
    let replayed = app.post(&format!("/v1/quarantine/{id}/replay"), &json!({})).await;
    assert_eq!(replayed.status, 202, "{}", replayed.body);
    assert_eq!(replayed.body["objectId"], json!(charge));
    assert!(entries(&app).await.is_empty());
    assert_eq!(app.post(&format!("/v1/quarantine/{id}/replay"), &json!({})).await.status, 404);
    app.run_due().await;
    assert_eq!(looks(), before + 1);
    // Its refusals are counted anew: it may need as long again.
    app.pass(10 * 60 * MINUTE, 10 * MINUTE).await;
    assert_eq!(looks(), before + 5);
    assert_eq!(entries(&app).await.len(), 1);
    app.finish().await;
}

/// As an earlier version, which did not understand it, would have left it.
async fn put_aside(app: &TestApp, body: &str) -> String {
    let mut redis = app.connection().await;
    redis::cmd("XADD")
        .arg(app.store.keys().quarantine())
        .arg("*")
        .arg(&["reason", "not understood", "message_id", "older", "topic_arn", app.sandbox.topic_arn()])
        .arg(&["published_at", "2026-01-30T10:00:00Z", "body", body])
        .query_async(&mut redis)
        .await
        .expect("an entry")
}

#[tokio::test]
async fn a_message_that_this_version_understands_is_replayed_and_its_permission_looked_at() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let message = app.notification(&permission);
    let id = put_aside(&app, &message.body).await;
    assert_eq!(app.get(&format!("/v1/quarantine/{id}")).await.body["body"], json!(message.body));
    let replayed = app.post(&format!("/v1/quarantine/{id}/replay"), &json!({})).await;
    assert_eq!(replayed.status, 202, "{}", replayed.body);
    app.run_due().await;
    assert_eq!(app.ledger().requests_of(Operation::GetChargePermission).len(), 1);
    assert!(entries(&app).await.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn a_replayed_notification_is_evidence_of_its_own_time_and_releases_no_charge_that_was_declined_later() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let message = app.notification(&permission);
    app.advance(HOUR);
    let outcome = Outcome::DeclineStayingChargeable(DeclineCode::HardDeclined);
    app.sandbox.script_charge(&permission, outcome).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "parked");
    let id = put_aside(&app, &message.body).await;
    app.advance(HOUR);
    assert_eq!(app.post(&format!("/v1/quarantine/{id}/replay"), &json!({})).await.status, 202);
    app.run_due().await;
    assert_eq!((app.state("renewal").await.as_str(), app.creates()), ("parked", 1));
    // One that was published after the decline does release it.
    assert_eq!(app.deliver(&app.notification(&permission)).await, 200);
    app.run_due().await;
    assert_eq!((app.state("renewal").await.as_str(), app.creates()), ("captured", 2));
    app.finish().await;
}

#[tokio::test]
async fn another_merchants_message_is_never_replayed_but_can_be_dropped() {
    let app = TestApp::start().await;
    let body = foreign(&app).await;
    let aside = entries(&app).await;
    assert_eq!((&aside[0]["kind"], aside[0].get("body")), (&json!("message"), None));
    let id = aside[0]["id"].as_str().expect("an id");
    let refused = app.post(&format!("/v1/quarantine/{id}/replay"), &json!({})).await;
    assert_eq!(refused.status, 409, "{}", refused.body);
    app.run_due().await;
    assert!(app.ledger().requests_of(Operation::GetChargePermission).is_empty());
    let dropped = app.delete(&format!("/v1/quarantine/{id}")).await;
    assert_eq!((dropped.status, &dropped.body["body"]), (200, &json!(body)));
    assert_eq!(app.delete(&format!("/v1/quarantine/{id}")).await.status, 404);
    assert!(entries(&app).await.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn the_quarantine_is_listed_page_by_page_the_oldest_first() {
    let app = TestApp::start().await;
    for _ in 0..3 {
        foreign(&app).await;
    }
    let all: Vec<Value> = entries(&app).await.iter().map(|entry| entry["id"].clone()).collect();
    let first = app.get("/v1/quarantine?limit=2").await.body;
    let cursor = first["nextCursor"].as_str().expect("a cursor");
    let second = app.get(&format!("/v1/quarantine?limit=2&cursor={cursor}")).await.body;
    let ids = |page: &Value| -> Vec<Value> {
        page["entries"].as_array().expect("entries").iter().map(|entry| entry["id"].clone()).collect()
    };
    assert_eq!([ids(&first), ids(&second)].concat(), all);
    assert_eq!(second["nextCursor"], Value::Null);
    for wrong in ["limit=0", "limit=201", "limit=x", "cursor=x", "cursor=1-2-3", "unknown=1"] {
        assert_eq!(app.get(&format!("/v1/quarantine?{wrong}")).await.status, 400, "{wrong}");
    }
    assert_eq!(app.get("/v1/quarantine/none").await.status, 400);
    assert_eq!(app.get("/v1/quarantine/1-0").await.status, 404);
    app.finish().await;
}
