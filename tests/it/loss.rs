//! The loss of Redis: an emptied or restored server is noticed, nothing is sent, and nothing is charged twice under any reading.

use amazon_pay_ipn::app::App;
use amazon_pay_ipn::sandbox::{DeclineCode, Outcome, Reading, SignatureVersion};
use amazon_pay_ipn::store::StoreError;
use amazon_pay_ipn::store::account::{Init, Initialised};
use serde_json::json;

use crate::support::{DAY, HOUR, MINUTE, TestApp, metrics};

const READINGS: [Reading; 3] = [Reading::ReplayAll, Reading::ReEvaluate, Reading::StatusFirst];

#[tokio::test]
async fn an_emptied_redis_is_noticed_at_once_and_nothing_is_written_to_it() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.lose_everything().await;
    app.sandbox.buyer_closes(&permission).expect("a permission");
    let ipn = app.sandbox.notifications().remove(0);
    let message = app.sandbox.sign(&ipn, SignatureVersion::V1);
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 503);
    assert_eq!(app.get("/readyz").await.status, 503);
    let answer = app.post("/v1/charges", &TestApp::body("renewal", &permission)).await;
    assert_eq!(answer.status, 503);
    assert!(answer.body["detail"].as_str().expect("a detail").contains("init"), "{}", answer.body);
    assert!(matches!(app.store.set_stop(true).await, Err(StoreError::NoMarker)));
    assert!(app.keys().await.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn the_marker_is_written_once_and_only_by_init() {
    let app = TestApp::start().await;
    for init in [Init::First, Init::AfterLoss] {
        assert_eq!(app.store.init(init).await.expect("Redis answers"), Initialised::Exists);
    }
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    let () =
        redis::cmd("DEL").arg(app.store.keys().marker()).query_async(&mut app.connection().await).await.expect("DEL");
    assert_eq!(app.store.init(Init::First).await.expect("Redis answers"), Initialised::NotEmpty);
    assert_eq!(app.store.init(Init::EndRecovery).await.expect("Redis answers"), Initialised::Missing);
    app.finish().await;
}

/// The trace that breaks "derive the key and submit again": number 0 declined, number 1 captured, everything lost, submitted again.
#[tokio::test]
async fn after_a_loss_an_undeclared_submission_is_held_and_charges_nothing() {
    for reading in READINGS {
        let app = TestApp::with_reading(reading).await;
        let permission = app.permission();
        app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
        app.submit("renewal", &permission).await;
        app.pass(2 * DAY, HOUR).await;
        assert_eq!(app.state("renewal").await, "captured");
        app.lose_everything().await;
        assert_eq!(app.store.init(Init::AfterLoss).await.expect("Redis answers"), Initialised::Done { held: 0 });
        app.submit("renewal", &permission).await;
        assert_eq!(app.state("renewal").await, "held");
        assert_eq!(app.charge("renewal").await["mayStillCharge"], true);
        assert_eq!(app.delete("/v1/stop").await.status, 200);
        app.pass(2 * DAY, 6 * HOUR).await;
        assert_eq!(app.ledger().captured_of(&permission).len(), 1, "{reading:?}");
        assert_eq!(app.delete("/v1/charges/renewal").await.status, 202, "even its cancellation may still charge");
        app.finish().await;
    }
}

#[tokio::test]
async fn after_a_loss_a_submission_with_its_last_number_goes_on_and_charges_once() {
    for reading in READINGS {
        let app = TestApp::with_reading(reading).await;
        let permission = app.permission();
        app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
        app.submit("renewal", &permission).await;
        app.pass(2 * DAY, HOUR).await;
        let last = app.events_of("charge.attempted").await.last().expect("an attempt")["number"].clone();
        assert_eq!(last, 1);
        app.lose_everything().await;
        app.store.init(Init::AfterLoss).await.expect("Redis answers");
        app.submit("renewal", &permission).await;
        let mut body = TestApp::body("renewal", &permission);
        body["lastNumber"] = last;
        assert_eq!(app.post("/v1/charges", &body).await.status, 202);
        app.run_due().await;
        let sends = app.creates();
        assert_eq!(app.state("renewal").await, "scheduled", "the stop switch is on");
        assert_eq!(app.delete("/v1/stop").await.status, 200);
        app.pass(DAY, 10 * MINUTE).await;
        assert_eq!(app.state("renewal").await, "captured", "{reading:?}");
        assert!(app.creates() > sends);
        assert_eq!(app.ledger().captured_of(&permission).len(), 1, "{reading:?}");
        app.finish().await;
    }
}

#[tokio::test]
async fn after_a_loss_a_new_charge_needs_only_to_be_called_new() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.lose_everything().await;
    app.store.init(Init::AfterLoss).await.expect("Redis answers");
    let mut body = TestApp::body("renewal", &permission);
    body["new"] = json!(true);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.pass(HOUR, 10 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.store.init(Init::EndRecovery).await.expect("Redis answers"), Initialised::Done { held: 0 });
    assert_eq!(
        app.store.init(Init::EndRecovery).await.expect("Redis answers"),
        Initialised::NotRecovering,
        "there is nothing to end any more"
    );
    app.submit("after-recovery", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("after-recovery").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn after_a_restored_backup_every_open_charge_is_held() {
    let app = TestApp::start().await;
    let (waiting, done) = (app.permission(), app.permission());
    app.sandbox.script_charge(&waiting, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("waiting", &waiting).await;
    app.submit("done", &done).await;
    app.run_due().await;
    assert_eq!(app.store.init(Init::AfterRestore).await.expect("Redis answers"), Initialised::Done { held: 1 });
    assert_eq!(app.state("waiting").await, "held");
    assert_eq!(app.state("done").await, "captured");
    assert_eq!(app.get("/v1/stop").await.body["stopped"], true);
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.pass(3 * DAY, 12 * HOUR).await;
    assert_eq!(app.creates(), 2, "what is held is not sent");
    app.finish().await;
}

#[tokio::test]
async fn after_a_restored_backup_a_declaration_below_what_the_data_knows_is_refused() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.pass(2 * DAY, HOUR).await;
    assert_eq!(app.charge("renewal").await["number"], 2, "numbers 0 and 1 were declined");
    app.store.init(Init::AfterRestore).await.expect("Redis answers");
    let mut body = TestApp::body("renewal", &permission);
    for declaration in [json!({ "new": true }), json!({ "lastNumber": 0 })] {
        let mut declared = body.clone();
        declared.as_object_mut().expect("an object").extend(declaration.as_object().expect("an object").clone());
        assert_eq!(app.post("/v1/charges", &declared).await.status, 409, "{declaration}");
        assert_eq!(app.state("renewal").await, "held");
    }
    body["lastNumber"] = json!(1);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.pass(DAY, 10 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.ledger().captured_of(&permission).len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn an_emptied_redis_does_not_answer_that_a_charge_is_unknown() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    app.lose_everything().await;
    assert_eq!(app.get("/v1/charges/renewal").await.status, 503);
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 503);
    app.finish().await;
}

/// Everything that is lost and found again is a copy of the account as it once was.
struct Backup(Vec<(String, Vec<u8>)>);

impl Backup {
    async fn of(app: &TestApp) -> Self {
        let mut connection = app.connection().await;
        let mut keys = Vec::new();
        for key in app.keys().await {
            let dump: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(&mut connection).await.expect("DUMP");
            keys.push((key, dump));
        }
        Self(keys)
    }

    async fn restore(&self, app: &TestApp) {
        let mut connection = app.connection().await;
        for (key, dump) in &self.0 {
            let () =
                redis::cmd("RESTORE").arg(key).arg(0).arg(dump).query_async(&mut connection).await.expect("RESTORE");
        }
    }
}

/// The backup is of before number 0; number 0 was declined and number 1 captured after it.
#[tokio::test]
async fn after_a_restored_backup_what_was_charged_since_is_not_charged_again_under_any_reading() {
    for reading in READINGS {
        for declared in [None, Some(1)] {
            let app = TestApp::with_reading(reading).await;
            let permission = app.permission();
            app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
            app.submit("renewal", &permission).await;
            let backup = Backup::of(&app).await;
            app.pass(2 * DAY, HOUR).await;
            assert_eq!(app.state("renewal").await, "captured");
            app.lose_everything().await;
            backup.restore(&app).await;
            assert_eq!(app.store.init(Init::AfterRestore).await.expect("Redis answers"), Initialised::Done { held: 1 });
            let mut body = TestApp::body("renewal", &permission);
            if let Some(last) = declared {
                body["lastNumber"] = json!(last);
            }
            let answer = app.post("/v1/charges", &body).await;
            assert!([200, 202].contains(&answer.status), "{}", answer.body);
            assert_eq!(app.delete("/v1/stop").await.status, 200);
            app.pass(3 * DAY, HOUR).await;
            let state = app.state("renewal").await;
            assert_eq!(state, if declared.is_some() { "captured" } else { "held" }, "{reading:?}");
            assert_eq!(app.ledger().captured_of(&permission).len(), 1, "{reading:?}");
            app.finish().await;
        }
    }
}

#[tokio::test]
async fn on_a_server_that_lost_everything_before_the_start_the_service_does_not_start() {
    for reading in READINGS {
        let mut app = TestApp::with_reading(reading).await;
        let permission = app.permission();
        app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
        app.submit("renewal", &permission).await;
        app.pass(2 * DAY, HOUR).await;
        app.stop_service().await;
        app.lose_everything().await;
        let Err(refused) = App::start(app.settings.clone(), app.clock.clone(), metrics()).await else {
            panic!("it starts on an empty server")
        };
        assert!(format!("{refused:#}").contains("init --after-loss"), "{refused:#}");
        assert!(app.keys().await.is_empty());
        app.store.init(Init::AfterLoss).await.expect("Redis answers");
        app.restart().await;
        app.submit("renewal", &permission).await;
        assert_eq!(app.state("renewal").await, "held");
        assert_eq!(app.delete("/v1/stop").await.status, 200);
        app.pass(2 * DAY, 6 * HOUR).await;
        assert_eq!(app.ledger().captured_of(&permission).len(), 1, "{reading:?}");
        app.finish().await;
    }
}

#[tokio::test]
async fn the_marker_names_its_server_and_where_an_earlier_version_did_not_the_first_decline_is_confirmed() {
    for named in [true, false] {
        let app = TestApp::start().await;
        let marker = app.store.keys().marker();
        if !named {
            let call = redis::cmd("HDEL").arg(&marker).arg("server").arg("server_changed_at").to_owned();
            let _: usize = call.query_async(&mut app.connection().await).await.expect("an answer");
        }
        let permission = app.permission();
        app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
        app.submit("renewal", &permission).await;
        app.run_due().await;
        let status = app.charge("renewal").await["numberStatus"].clone();
        assert_eq!(status, if named { "fresh" } else { "unknown" });
        app.finish().await;
    }
}
