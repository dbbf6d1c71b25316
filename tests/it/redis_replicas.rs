//! `WAIT_REPLICAS`: what is promised is with the replicas too, or it is not promised.

use amazon_pay_ipn::clock::Stopwatch;
use amazon_pay_ipn::store::{Failure, Replicas, StoreError};
use serde_json::json;
use std::time::Duration;

use crate::process;
use crate::support::servers::{Server, admin_now, ask, process_of, says, signal};
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

/// Both ways in which it shows that replicas are missing: the server refuses (`NOREPLICAS`), or nobody confirms.
#[tokio::test]
async fn replicas_that_come_back_are_enough_and_no_restart_is_needed() {
    for refuses in [true, false] {
        let (primary, mut replica) = Server::with_replica();
        let alone = |app: &TestApp| {
            let told: String = ask(&app.redis.url_of_own(), &["INFO", "replication"]).expect("it answers");
            told.lines().any(|line| line == "connected_slaves:0")
        };
        if refuses {
            let () = admin_now(&primary.redis, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
            process::until("the replica to count", || says(&primary.redis, "replication", "min_slaves_good_slaves:1"))
                .await;
        }
        let replicas = Replicas { wait_for: 1, timeout: Duration::from_secs(1) };
        let app = TestApp::on(primary.redis, Options { replicas, ..Options::default() }).await;
        let permission = app.permission();
        replica.redis.kill();
        process::until("the primary to notice", || alone(&app)).await;
        let message = app.notification(&permission);
        assert_eq!(app.deliver(&message).await, 503);
        assert_eq!(app.post("/v1/charges", &TestApp::body("renewal", &permission)).await.status, 503);
        let error = app.store.set_stop(true).await.expect_err("there is no replica");
        assert_eq!(error.failure(), Some(Failure::TooFewReplicas), "{error}");
        assert_eq!(matches!(error, StoreError::NotReplicated { .. }), !refuses, "{error}");
        assert!(app.get("/readyz").await.body["complaints"].to_string().contains("0 of 1 replicas"));

        replica.redis.start_again().expect("the replica starts again");
        let counts = if refuses { "min_slaves_good_slaves:1" } else { "connected_slaves:1" };
        let own = app.redis.url_of_own();
        process::until("the replica to count again", || {
            let told: String = ask(&own, &["INFO", "replication"]).expect("it answers");
            told.lines().any(|line| line == counts) && says(&replica.redis, "replication", "master_link_status:up")
        })
        .await;
        assert_eq!(app.deliver(&message).await, 200, "the same connection, and the first try");
        app.store.set_stop(false).await.expect("it is confirmed");
        let status = app.post("/v1/charges", &TestApp::body("renewal", &permission)).await.status;
        assert_eq!(status, if refuses { 202 } else { 200 }, "what the server refused it has not; the other is there");
        assert_eq!(app.get("/readyz").await.body["complaints"], json!([]));
        app.pass(HOUR, 10 * MINUTE).await;
        assert_eq!((app.state("renewal").await.as_str(), app.creates()), ("captured", 1));
        assert_eq!(app.journal().await.len(), 1);
        app.finish().await;
    }
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

/// Prints what docs/reliability/redis.md tells: what `WAIT_REPLICAS=1` costs a notification.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "a measurement is read by a person")]
#[ignore = "a measurement: cargo test --release --test it -- --ignored --nocapture what_waiting_for_a_replica_costs"]
async fn what_waiting_for_a_replica_costs() {
    // Alternating, so that what else the machine does meets both.
    for senders in [1, 16] {
        let mut taken: [(Vec<Duration>, Duration); 2] = Default::default();
        for round in 0..4 {
            let wait_for = round % 2;
            let (primary, _replica) = Server::with_replica();
            let replicas = Replicas { wait_for, timeout: Duration::from_secs(2) };
            let app = TestApp::on(primary.redis, Options { replicas, ..Options::default() }).await;
            let permission = app.permission();
            let each = if senders == 1 { 1500 } else { 300 };
            let messages: Vec<Vec<_>> =
                (0..senders).map(|_| (0..each).map(|_| app.notification(&permission)).collect()).collect();
            let all = Stopwatch::start();
            let posting: Vec<_> = messages
                .into_iter()
                .map(|messages| {
                    let (http, url) = (app.http.clone(), format!("{}/ipn", app.public));
                    tokio::spawn(async move {
                        let mut taken = Vec::with_capacity(messages.len());
                        for message in messages {
                            let mut request = http.post(&url).body(message.body.clone());
                            for (name, value) in &message.headers {
                                request = request.header(name, value);
                            }
                            let one = Stopwatch::start();
                            assert_eq!(request.send().await.expect("an answer").status(), 200);
                            taken.push(one.elapsed());
                        }
                        taken
                    })
                })
                .collect();
            let so_far = &mut taken[wait_for as usize];
            for posted in posting {
                so_far.0.extend(posted.await.expect("no panic"));
            }
            so_far.1 += all.elapsed();
            app.finish().await;
        }
        for (wait_for, (each, all)) in taken.iter_mut().enumerate() {
            each.sort_unstable();
            let at = |percent: usize| each[each.len() * percent / 100].as_secs_f64() * 1000.0;
            let rate = f64::from(u32::try_from(each.len()).expect("few")) / all.as_secs_f64();
            println!(
                "{senders} senders, WAIT_REPLICAS={wait_for}: {rate:.0} a second, p50 {:.1} ms, p99 {:.1} ms",
                at(50),
                at(99)
            );
        }
    }
}
