//! Rolling upgrades: what a newer version of the service wrote is left alone, byte for byte; what this one does not know is kept. The
//! newer version is played by records written by hand.

use std::collections::HashMap;

use amazon_pay_ipn::sandbox::{
    DeclineCode, Fault, Gate, NotificationType, ObjectType, Operation, Outcome, SignatureVersion,
};
use amazon_pay_ipn::store::account::Init;
use serde_json::{Value, json};

use crate::support::{DAY, HOUR, MINUTE, TestApp};

type Fields = HashMap<String, String>;

async fn run(app: &TestApp, command: &[&str]) -> redis::Value {
    let mut call = redis::cmd(command[0]);
    call.arg(&command[1..]).query_async(&mut app.connection().await).await.expect("an answer")
}

async fn hash(app: &TestApp, key: &str) -> Fields {
    redis::cmd("HGETALL").arg(key).query_async(&mut app.connection().await).await.expect("a hash")
}

fn intent_key(app: &TestApp, id: &str) -> String {
    app.store.keys().intent(&id.parse().expect("an id"))
}

fn permission_key(app: &TestApp, permission: &str) -> String {
    app.store.keys().permission(&permission.parse().expect("an id"))
}

/// A newer version has written it: with a field of its own, a text that this version cannot read, and its number.
async fn upgrade(app: &TestApp, key: &str, text: &str) -> Fields {
    run(app, &["HSET", key, "v", "2", "shape", "round", text, "\u{1}not JSON"]).await;
    hash(app, key).await
}

async fn downgrade(app: &TestApp, key: &str, text: &str, was: &Fields) {
    run(app, &["HSET", key, "v", "1", text, &was[text]]).await;
}

async fn alerts(app: &TestApp) -> usize {
    let alerts = app.events_of("account.attention").await;
    alerts.iter().filter(|alert| alert["kind"] == "newer_records").count()
}

#[tokio::test]
async fn a_charge_of_a_newer_version_is_left_alone_and_the_others_go_on() {
    let app = TestApp::start().await;
    let (theirs, ours) = (app.permission(), app.permission());
    app.submit("theirs", &theirs).await;
    app.submit("ours", &ours).await;
    let key = intent_key(&app, "theirs");
    let was = hash(&app, &key).await;
    let written = upgrade(&app, &key, "progress").await;

    app.run_due().await;
    assert_eq!(app.state("ours").await, "captured");
    for _ in 0..20 {
        app.advance(MINUTE);
        app.run_due().await;
    }
    assert_eq!(alerts(&app).await, 1, "told once");
    for (answer, what) in [
        (app.get("/v1/charges/theirs").await, "show"),
        (app.get(&format!("/v1/charge-permissions/{theirs}")).await, "the permission with its charges"),
        (app.delete("/v1/charges/theirs").await, "cancel"),
        (app.post("/v1/charges/theirs/retry", &json!({})).await, "retry"),
        (app.post("/v1/charges/theirs/pause", &json!({})).await, "pause"),
        (app.post("/v1/charges", &TestApp::body("theirs", &theirs)).await, "submit again"),
    ] {
        assert_eq!(answer.status, 503, "{what}: {}", answer.body);
        assert!(answer.body["detail"].to_string().contains("newer version"), "{what}: {}", answer.body);
    }
    // The caller may stop the whole permission: that record is of this version, and the newer one reads the same fields.
    app.tell_of((ObjectType::ChargePermission, &theirs), &theirs).await;
    app.run_due().await;
    assert_eq!(hash(&app, &key).await, written, "byte for byte");
    assert_eq!(app.ledger().captured_of(&theirs).len(), 0);
    assert_eq!(app.journal().await.len(), 1, "the notification is kept");

    // A day later it is told again.
    app.advance(DAY);
    app.run_due().await;
    assert_eq!(alerts(&app).await, 2);
    // An instance of the newer version has finished the upgrade, or went back in order: nothing was lost meanwhile.
    downgrade(&app, &key, "progress", &was).await;
    app.advance(MINUTE);
    app.run_due().await;
    assert_eq!(app.state("theirs").await, "captured");
    assert_eq!(app.ledger().captured_of(&theirs).len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_permission_of_a_newer_version_is_left_alone_but_its_notifications_are_kept() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined)).expect("scripted");
    app.submit("parked", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("parked").await, "parked");
    drop(app.sandbox.notifications());
    let key = permission_key(&app, &permission);
    let was = hash(&app, &key).await;
    let mut written = upgrade(&app, &key, "record").await;

    for (path, body) in [
        ("/v1/charges".to_owned(), TestApp::body("another", &permission)),
        (format!("/v1/charge-permissions/{permission}/close"), json!({ "closureReason": "x" })),
        (format!("/v1/charge-permissions/{permission}/pause"), json!({})),
        (format!("/v1/charge-permissions/{permission}/reconcile"), json!({})),
        ("/v1/charges/parked/retry".to_owned(), json!({})),
        ("/v1/charges/parked/pause".to_owned(), json!({})),
    ] {
        let answer = app.post(&path, &body).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.body);
        assert!(answer.body["detail"].to_string().contains("newer version"), "{path}: {}", answer.body);
    }
    assert_eq!(app.delete("/v1/charges/parked").await.status, 503, "no cancellation is acknowledged that was not made");
    app.advance(HOUR);
    app.run_due().await;
    assert_eq!(hash(&app, &key).await, written, "byte for byte");

    app.tell_of((ObjectType::ChargePermission, &permission), &permission).await;
    assert_eq!(app.journal().await.len(), 1);
    app.run_due().await;
    let wake: u64 = written["wake"].parse().expect("a number");
    written.insert("wake".to_owned(), (wake + 1).to_string());
    assert_eq!(hash(&app, &key).await, written, "only the wake number, which every version counts");
    let looks = app.ledger().requests_of(Operation::GetChargePermission).len();

    downgrade(&app, &key, "record", &was).await;
    app.advance(MINUTE);
    app.run_due().await;
    assert!(app.ledger().requests_of(Operation::GetChargePermission).len() > looks, "the hint was waiting");
    app.finish().await;
}

#[tokio::test]
async fn many_permissions_of_a_newer_version_keep_nobody_from_a_turn() {
    let app = TestApp::start().await;
    for index in 0..40 {
        let permission = app.permission();
        app.submit(&format!("theirs-{index}"), &permission).await;
        upgrade(&app, &permission_key(&app, &permission), "record").await;
    }
    let ours = app.permission();
    app.submit("ours", &ours).await;
    app.run_due().await;
    // A step looks at a few of those that are due; those that were put off are not among them the next time.
    for _ in 0..5 {
        app.run_due().await;
    }
    assert_eq!(app.state("ours").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_newer_version_that_writes_between_the_look_and_the_mark_keeps_the_charge_from_being_sent() {
    for upgraded in ["intent", "permission"] {
        let app = TestApp::start().await;
        let permission = app.permission();
        let gate = Gate::new();
        app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
        app.submit("i", &permission).await;
        let reconciler = app.reconciler.clone();
        let step = tokio::spawn(async move { reconciler.step().await });
        gate.reached().await;
        let (key, text) = match upgraded {
            "intent" => (intent_key(&app, "i"), "progress"),
            _ => (permission_key(&app, &permission), "record"),
        };
        if text == "record" {
            // There is none before the first commit.
            run(&app, &["HSET", &key, "record", "{}"]).await;
        }
        let was = hash(&app, &key).await;
        upgrade(&app, &key, text).await;
        gate.release();
        step.await.expect("no panic").expect("the store answers");
        assert_eq!(app.creates(), 0, "{upgraded}");
        assert_eq!(hash(&app, &key).await["shape"], "round");
        downgrade(&app, &key, text, &was).await;
        app.pass(10 * MINUTE, MINUTE).await;
        assert_eq!((app.state("i").await.as_str(), app.creates()), ("captured", 1), "{upgraded}");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_success_whose_record_a_newer_version_has_taken_over_is_found_again_and_not_made_twice() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let gate = Gate::new();
    app.sandbox.inject(Operation::CreateCharge, Fault::HoldAfter(gate.clone()));
    app.submit("i", &permission).await;
    let reconciler = app.reconciler.clone();
    let step = tokio::spawn(async move { reconciler.step().await });
    gate.reached().await;
    let key = intent_key(&app, "i");
    let was = hash(&app, &key).await;
    let written = upgrade(&app, &key, "progress").await;
    gate.release();
    step.await.expect("no panic").expect("the store answers");
    assert_eq!(hash(&app, &key).await, written, "byte for byte");
    app.pass(10 * MINUTE, MINUTE).await;
    assert_eq!(hash(&app, &key).await, written, "byte for byte");
    downgrade(&app, &key, "progress", &was).await;
    app.pass(10 * MINUTE, MINUTE).await;
    assert_eq!(app.state("i").await, "captured");
    assert_eq!(app.ledger().captured_of(&permission).len(), 1);
    app.finish().await;
}

/// Puts fields into a JSON text of a hash, as a later version does that need not raise the version for it.
async fn add_to(app: &TestApp, key: &str, text: &str, more: &Value) {
    let stored = hash(app, key).await;
    let mut value: Value = serde_json::from_str(&stored[text]).expect("JSON");
    for (field, added) in more.as_object().expect("fields") {
        value[field] = added.clone();
    }
    run(app, &["HSET", key, text, &value.to_string(), "shape", "round"]).await;
}

async fn json_of(app: &TestApp, key: &str, text: &str) -> Value {
    serde_json::from_str(&hash(app, key).await[text]).expect("JSON")
}

#[tokio::test]
async fn unknown_fields_of_records_of_this_version_outlast_every_kind_of_write() {
    let app = TestApp::start().await;
    let permission = app.permission();
    for _ in 0..4 {
        app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("scripted");
    }
    app.submit("declined", &permission).await;
    app.submit("canceled", &permission).await;
    app.run_due().await;
    let (intent, record) = (intent_key(&app, "declined"), permission_key(&app, &permission));
    let more = json!({
        "risk": { "score": 9_007_199_254_740_993_u64, "none": {}, "empty": [], "nothing": null, "text": "\"\\\u{e9}" }, "flag": true,
    });
    for id in ["declined", "canceled"] {
        add_to(&app, &intent_key(&app, id), "progress", &more).await;
    }
    add_to(&app, &record, "record", &more).await;

    app.pass(2 * DAY, HOUR).await;
    assert_eq!(app.creates(), 4, "each was declined twice");
    assert_eq!(app.delete("/v1/charges/canceled").await.status, 200);
    assert_eq!(app.post("/v1/charges/declined/retry", &json!({})).await.status / 100, 2);
    app.run_due().await;
    assert_eq!(app.state("declined").await, "captured");
    assert_eq!(app.state("canceled").await, "canceled");
    for (key, text) in [(&intent, "progress"), (&intent_key(&app, "canceled"), "progress"), (&record, "record")] {
        let after = json_of(&app, key, text).await;
        for field in ["risk", "flag"] {
            assert_eq!(after[field], more[field], "{key}: {after}");
        }
        assert_eq!(hash(&app, key).await["shape"], "round", "{key}");
    }
    assert_eq!(json_of(&app, &intent, "progress").await["stage"]["state"], "captured", "and it went on all the same");
    app.finish().await;
}

#[tokio::test]
async fn unknown_fields_of_a_hint_outlast_a_look_that_failed() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.inject(Operation::GetChargePermission, Fault::status(500, "InternalServerError"));
    app.tell_of((ObjectType::ChargePermission, &permission), &permission).await;
    let key = app.store.keys().hints(&permission.parse().expect("an id"));
    let hints = hash(&app, &key).await;
    let (field, value) = hints.iter().next().expect("a hint");
    let with_more = value.replacen('{', "{\"origin\":\"queue\",", 1);
    run(&app, &["HSET", &key, field, &with_more]).await;
    app.run_due().await;
    let after = hash(&app, &key).await;
    assert!(after[field].contains("notBefore") && after[field].contains("\"origin\":\"queue\""), "{after:?}");
    app.pass(HOUR, MINUTE).await;
    assert!(hash(&app, &key).await.is_empty(), "the next look succeeds");
    app.finish().await;
}

#[tokio::test]
async fn a_marker_of_a_newer_version_stops_everything_that_an_older_process_would_write() {
    let mut app = TestApp::start().await;
    let permission = app.permission();
    app.submit("i", &permission).await;
    let marker = app.store.keys().marker();
    run(&app, &["HSET", &marker, "version", "2"]).await;
    let before = app.keys().await;
    assert_eq!(app.post("/v1/charges", &TestApp::body("j", &permission)).await.status, 503);
    assert_eq!(app.post("/v1/stop", &json!({})).await.status, 503, "no stop is acknowledged that was not made");
    assert_eq!(app.get("/readyz").await.status, 503);
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let message = app.sandbox.sign(&ipn, SignatureVersion::V1);
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 503, "SNS repeats it");
    assert!(app.reconciler.step().await.is_err());
    assert_eq!(app.keys().await, before);
    run(&app, &["HSET", &marker, "version", "1"]).await;
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    app.run_due().await;
    assert_eq!(app.state("i").await, "captured");
    app.restart().await;
    app.finish().await;
}

#[tokio::test]
async fn a_charge_of_a_newer_version_is_left_out_of_the_lists_and_does_not_keep_the_others_from_being_held() {
    let app = TestApp::start().await;
    for id in ["a", "b", "c"] {
        app.submit(id, &app.permission()).await;
    }
    upgrade(&app, &intent_key(&app, "b"), "progress").await;
    let page = app.get("/v1/charges?state=scheduled").await;
    assert_eq!(page.status, 200, "{}", page.body);
    let ids: Vec<&Value> = page.body["charges"].as_array().expect("charges").iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, ["a", "c"]);
    let error = app.store.init(Init::AfterRestore).await.expect_err("one could not be held");
    assert!(error.to_string().contains("newer version"), "{error}");
    assert_eq!((app.state("a").await, app.state("c").await), ("held".to_owned(), "held".to_owned()));
    app.finish().await;
}
