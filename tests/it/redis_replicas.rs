//! `WAIT_REPLICAS`: what is promised is with the replicas too, or it is not promised.

use amazon_pay_ipn::store::{Failure, Replicas, StoreError};
use serde_json::json;
use std::time::Duration;

use crate::support::servers::{Server, ask, process_of, signal};
use crate::support::{HOUR, MINUTE, Options, TestApp, X};

/// The service on a primary with one replica, which it waits for.
async fn waiting() -> (TestApp, Server) {
    let (primary, replica) = Server::with_replica();
    let replicas = Replicas { wait_for: 1, timeout: Duration::from_secs(2) };
    (TestApp::on(primary.redis, Options { replicas, ..Options::default() }).await, replica)
}

#[tokio::test]
async fn with_a_replica_that_follows_everything_goes_on_as_without() {
    let (app, replica) = waiting().await;
    app.store.check_access(None).await.expect("the permissions for waiting are asked about too");
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    let message = app.notification(&permission);
    assert_eq!([app.deliver(&message).await, app.deliver(&message).await], [200, 200]);
    assert_eq!(app.get("/readyz").await.body["complaints"], json!([]));
    // Once it has gone, and is known to have gone, it is said.
    drop(replica);
    let mut complaints = app.get("/readyz").await.body["complaints"].to_string();
    for _ in 0..100 {
        if complaints.contains("0 of 1 replicas (WAIT_REPLICAS)") {
            break;
        }
        complaints = app.get("/readyz").await.body["complaints"].to_string();
    }
    assert!(complaints.contains("0 of 1 replicas (WAIT_REPLICAS)"), "{complaints}");
    app.finish().await;
}

#[tokio::test]
async fn what_no_replica_confirms_is_not_promised_not_even_as_a_repetition() {
    let (app, replica) = waiting().await;
    let (permission, other) = (app.permission(), app.permission());
    app.submit("before", &permission).await;
    let process = process_of(&replica.redis);
    signal(&replica.redis, "STOP", process);

    let message = app.notification(&permission);
    for _ in 0..2 {
        assert_eq!(app.deliver(&message).await, 503, "it is on the primary alone, the second time as well");
    }
    for (path, body) in [
        ("/v1/charges", TestApp::body("during", &other)),
        ("/v1/stop", json!({})),
        (&format!("/v1/charge-permissions/{other}/close"), json!({ "closureReason": "the buyer asked for it" })),
    ] {
        let answer = app.post(path, &body).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.body);
        let detail = answer.body["detail"].as_str().expect("a detail");
        assert!(detail.contains("replicas") && detail.contains("again is safe"), "{detail}");
    }
    assert_eq!(app.delete("/v1/charges/before").await.status, 503);
    let error = app.store.set_stop(false).await.expect_err("nobody confirms");
    assert!(matches!(error, StoreError::NotReplicated { confirmed: 0, wanted: 1 }), "{error}");
    assert_eq!(error.failure(), Some(Failure::TooFewReplicas));

    signal(&replica.redis, "CONT", process);
    assert_eq!(app.deliver(&message).await, 200, "the redelivery is acknowledged");
    assert_eq!(app.journal().await.len(), 1);
    assert_eq!(app.post("/v1/charges", &TestApp::body("during", &other)).await.status, 200, "it was stored before");
    app.store.set_stop(false).await.expect("it is confirmed again");
    app.pass(HOUR, 10 * MINUTE).await;
    assert_eq!(app.creates(), 0, "one was canceled, the other's permission closed, before their first send");
    app.finish().await;
}

#[tokio::test]
async fn a_mark_that_no_replica_confirms_is_not_sent_and_its_number_stays_unknown() {
    let (app, replica) = waiting().await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    let process = process_of(&replica.redis);
    signal(&replica.redis, "STOP", process);
    assert!(app.reconciler.step().await.is_err(), "the mark is not confirmed");
    assert_eq!(app.creates(), 0, "so nothing goes out");
    assert_eq!(app.charge("renewal").await["numberStatus"], "unknown");
    signal(&replica.redis, "CONT", process);
    // The lease of the step that failed runs out first.
    app.pass(2 * X, MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.ledger().captured_of(&permission).len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn many_promises_at_once_share_their_waits() {
    let (app, replica) = waiting().await;
    drop(replica);
    let stores: Vec<_> = (0..16).map(|_| app.store.clone()).collect();
    let waits = |app: &TestApp| {
        let stats: String = ask(&app.redis.url_of_own(), &["INFO", "commandstats"]).expect("it answers");
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_wait:calls=").map(str::to_owned));
        line.and_then(|line| line.split(',').next().and_then(|count| count.parse::<u32>().ok())).unwrap_or(0)
    };
    let before = waits(&app);
    let promising: Vec<_> =
        stores.into_iter().map(|store| tokio::spawn(async move { store.set_stop(true).await })).collect();
    for promised in promising {
        let error = promised.await.expect("no panic").expect_err("nobody confirms");
        assert!(matches!(error, StoreError::NotReplicated { confirmed: 0, wanted: 1 }), "{error}");
    }
    let issued = waits(&app) - before;
    assert!((1..=2).contains(&issued), "{issued} WAITs for 16 promises at once");
    app.finish().await;
}

#[tokio::test]
async fn a_mark_that_is_not_confirmed_is_not_made_again_every_few_seconds() {
    let (primary, replica) = Server::with_replica();
    let replicas = Replicas { wait_for: 1, timeout: Duration::from_secs(1) };
    let app = TestApp::on(primary.redis, Options { replicas, ..Options::default() }).await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    drop(replica);
    let mut marks = 0;
    for _ in 0..120 {
        marks += usize::from(app.reconciler.step().await.is_err());
        app.advance(Duration::from_secs(5));
    }
    assert!((1..=10).contains(&marks), "{marks} marks in ten minutes");
    assert_eq!((app.creates(), app.charge("renewal").await["numberStatus"].clone()), (0, json!("unknown")));
    app.finish().await;
}
