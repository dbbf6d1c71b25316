//! Sentinel: the master is asked for at each connection; what a failover with asynchronous replication may lose, and what it may not.

use std::collections::BTreeSet;
use std::time::Duration;

use amazon_pay_ipn::sandbox::{DeclineCode, Outcome, Reading, SignedMessage};
use amazon_pay_ipn::store::account::Init;
use amazon_pay_ipn::store::{Failure, Replicas, Store, TlsSettings};
use serde_json::Value;

use crate::process;
use crate::support::servers::{
    Authority, Redis, Sentinels, Server, admin_now, call_now, lag, process_of, says, sentinels, signal,
};
use crate::support::{HOUR, MINUTE, Options, TestApp, X};

/// A primary and its replica, watched by three Sentinels.
struct Watched {
    app: TestApp,
    replica: Server,
}

impl Watched {
    async fn start(reading: Reading, wait_for: u32) -> Self {
        let (primary, replica) = Server::with_replica();
        let redis = Redis::watched_by(&sentinels().ports, 2, primary);
        let replicas = Replicas { wait_for, timeout: Duration::from_secs(2) };
        let app = TestApp::on(redis, Options { reading, replicas, ..Options::default() }).await;
        // Without knowing the replica a Sentinel has nobody to promote.
        let watched = Self { app, replica };
        sentinels().know_a_replica_of(&watched.name());
        watched
    }

    /// The primary dies; waits until the service writes to the replica, which is the primary now.
    async fn fail_over(&mut self) {
        self.app.redis.kill();
        process::until("the failover", || self.is_primary()).await;
        for _ in 0..500 {
            if self.app.store.account().await.is_ok() {
                self.app.redis.now_at(self.replica.redis.url());
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the service does not find the new primary");
    }

    /// Under which the Sentinels watch it.
    fn name(&self) -> String {
        self.app.redis.url.rsplit('/').next().expect("a name").to_owned()
    }

    fn is_primary(&self) -> bool {
        says(&self.replica.redis, "replication", "role:master")
    }
}

fn id_of(message: &SignedMessage) -> String {
    let body: Value = serde_json::from_str(&message.body).expect("JSON");
    body["MessageId"].as_str().expect("an id").to_owned()
}

async fn journaled(app: &TestApp) -> BTreeSet<String> {
    app.journal().await.iter().map(|entry| entry["message_id"].clone()).collect()
}

#[tokio::test]
async fn after_a_failover_the_service_goes_on_at_the_new_primary_without_a_restart() {
    let mut watched = Watched::start(Reading::ReEvaluate, 0).await;
    let (first, second) = (watched.app.permission(), watched.app.permission());
    watched.app.submit("before", &first).await;
    watched.app.run_due().await;
    process::until("the replica to have it", || caught_up(&watched)).await;
    watched.fail_over().await;
    let app = &watched.app;
    assert_eq!(app.state("before").await, "captured");
    app.submit("after", &second).await;
    app.run_due().await;
    assert_eq!(app.state("after").await, "captured");
    assert_eq!(app.get("/readyz").await.status, 200);
    assert_eq!(app.creates(), 2);
    watched.app.finish().await;
}

/// What the primary has sent, the replica has.
fn caught_up(watched: &Watched) -> bool {
    lag(&watched.app.redis.url_of_own(), &watched.replica.redis.url()) == 0
}

/// The replica is away while it is marked, so the mark is on the primary alone, and dies with it.
#[tokio::test]
async fn a_mark_that_the_failover_lost_is_made_again_tainted_and_charges_once_under_every_reading() {
    for reading in [Reading::ReplayAll, Reading::ReEvaluate, Reading::StatusFirst] {
        for declined in [false, true] {
            let mut watched = Watched::start(reading, 0).await;
            let permission = watched.app.permission();
            if declined {
                let decline = Outcome::Decline(DeclineCode::SoftDeclined);
                watched.app.sandbox.script_charge(&permission, decline).expect("a permission");
            }
            watched.app.submit("renewal", &permission).await;
            process::until("the replica to have it", || caught_up(&watched)).await;
            watched.replica.redis.kill();
            watched.app.run_due().await;
            assert_eq!(watched.app.creates(), 1);
            let before = watched.app.state("renewal").await;
            assert_eq!(before, if declined { "scheduled" } else { "captured" });
            // Dead before the replica hears another word of it.
            watched.app.redis.kill();
            watched.replica.redis.start_again().expect("the replica starts again");
            watched.fail_over().await;

            let app = &watched.app;
            assert_eq!(app.charge("renewal").await["numberStatus"], "fresh", "the mark is lost");
            app.run_due().await;
            assert_eq!(app.creates(), 2, "{reading:?}: the same number once more");
            if declined && reading == Reading::ReplayAll {
                assert_eq!(app.charge("renewal").await["numberStatus"], "unknown", "a tainted decline is not believed");
                assert_eq!(app.charge("renewal").await["number"], 0);
                app.pass(2 * X, 10 * MINUTE).await;
                assert_eq!(app.charge("renewal").await["number"], 1, "the second answer is");
            }
            app.pass(60 * HOUR, HOUR).await;
            assert_eq!(app.state("renewal").await, "captured", "{reading:?}");
            assert_eq!(app.ledger().captured_of(&permission).len(), 1, "{reading:?}");
            watched.app.finish().await;
        }
    }
}

#[tokio::test]
async fn with_wait_replicas_a_failover_under_load_loses_nothing_that_was_acknowledged() {
    let mut watched = Watched::start(Reading::ReEvaluate, 1).await;
    let permission = watched.app.permission();
    let messages: Vec<SignedMessage> = (0..60).map(|_| watched.app.notification(&permission)).collect();
    let mut acknowledged = Vec::new();
    let process = process_of(&watched.replica.redis);
    for (count, message) in messages.iter().enumerate() {
        if count == 40 {
            // From here on the primary is alone.
            signal(&watched.replica.redis, "STOP", process);
        }
        if count > 42 {
            break;
        }
        let status = watched.app.deliver(message).await;
        assert_eq!(status, if count < 40 { 200 } else { 503 });
        if status == 200 {
            acknowledged.push(id_of(message));
        }
    }
    watched.app.redis.kill();
    signal(&watched.replica.redis, "CONT", process);
    watched.fail_over().await;
    let stored = journaled(&watched.app).await;
    assert_eq!((acknowledged.len(), acknowledged.iter().filter(|id| !stored.contains(*id)).count()), (40, 0));
    // The new primary has no replica: nothing is promised until there is one again.
    // The first may still find the connection to the old one.
    let _ = watched.app.store.set_stop(false).await;
    let error = watched.app.store.set_stop(false).await.expect_err("nobody confirms");
    assert_eq!(error.failure(), Some(Failure::TooFewReplicas), "{error}");
    watched.app.redis.start_again();
    watched.app.redis.follow(watched.replica.port);
    assert_eq!(watched.app.deliver(&messages[41]).await, 200);
    watched.app.run_due().await;
    watched.app.finish().await;
}

/// `SENTINEL FAILOVER`, as for maintenance: nobody dies, and the old primary goes on taking writes until it is told what it is now.
#[tokio::test]
async fn with_wait_replicas_a_failover_that_is_ordered_loses_nothing_though_the_old_primary_lives() {
    let mut watched = Watched::start(Reading::ReEvaluate, 1).await;
    let (permission, name) = (watched.app.permission(), watched.name());
    let mut message = watched.app.notification(&permission);
    let mut acknowledged = Vec::new();
    let () = call_now(sentinels().ports[0], &["SENTINEL", "FAILOVER", &name]);
    for _ in 0..20_000 {
        // From then on nobody confirms what the old primary takes.
        let promoted = watched.is_primary();
        let status = watched.app.deliver(&message).await;
        assert!([200, 503].contains(&status), "{status}");
        if status == 200 {
            acknowledged.push(id_of(&message));
            message = watched.app.notification(&permission);
            if promoted {
                break;
            }
        }
    }
    watched.app.redis.now_at(watched.replica.redis.url());
    let app = &watched.app;
    assert!(watched.is_primary() && !acknowledged.is_empty(), "it was taken by the new primary in the end");
    let stored = journaled(app).await;
    let lost = acknowledged.iter().filter(|id| !stored.contains(*id)).count();
    assert_eq!(lost, 0, "of {}", acknowledged.len());
    // What is not promised goes over a connection of its own, which may lead to the old primary until its first command fails.
    let _ = app.store.account().await;
    // The old primary is the replica that confirms, by now.
    let ready = app.get("/readyz").await;
    assert_eq!(ready.body["complaints"], serde_json::json!([]), "{}", ready.body);
    app.submit("afterwards", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("afterwards").await, "captured");
    watched.app.finish().await;
}

/// The window in which the old primary is a replica already, and answers, and the Sentinels still name it.
#[tokio::test]
async fn a_replica_that_the_sentinels_still_call_the_primary_is_not_written_to_and_left_once_they_know() {
    let (old, new) = Server::with_replica();
    let old_port = old.port.to_string();
    let mut app = TestApp::on(Redis::watched_by(&sentinels().ports, 2, old), Options::default()).await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    let name = app.redis.url.rsplit('/').next().expect("a name").to_owned();
    process::until("the replica to have it", || lag(&app.redis.url_of_own(), &new.redis.url()) == 0).await;
    let () = admin_now(&new.redis, &["REPLICAOF", "NO", "ONE"]);
    let mut connection = app.connection().await;
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(new.port).exec_async(&mut connection).await.expect("it obeys");

    // The connection that was there is refused (READONLY), and the next are not made at all.
    let message = app.notification(&permission);
    for _ in 0..3 {
        let named: (String, String) = call_now(sentinels().ports[0], &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &name]);
        assert_eq!(named.1, old_port, "they do not know yet");
        let error = app.store.set_stop(true).await.expect_err("it is a replica");
        assert_eq!(error.failure(), Some(Failure::Replica), "{error}");
        assert_eq!(app.deliver(&message).await, 503);
        assert!(app.reconciler.step().await.is_err());
    }
    assert_eq!(app.creates(), 0, "what cannot be marked is not sent");
    for sentinel in &sentinels().ports {
        let () = call_now(*sentinel, &["SENTINEL", "REMOVE", &name]);
        let () = call_now(*sentinel, &["SENTINEL", "MONITOR", &name, "127.0.0.1", &new.port.to_string(), "2"]);
    }
    assert_eq!(app.deliver(&message).await, 200, "the first try");
    app.redis.now_at(new.redis.url());
    app.run_due().await;
    assert_eq!((app.state("renewal").await.as_str(), app.creates()), ("captured", 1));
    app.finish().await;
}

#[tokio::test]
async fn sentinels_and_their_servers_are_reached_over_tls_and_a_failover_too() {
    let authority = Authority::new();
    authority.issue("node", "127.0.0.1", |_| {});
    let (sentinels, tls_ports) = Sentinels::start_over_tls(&authority, "node");
    let settings = authority.settings("node");
    let settings: Vec<&str> = settings.iter().map(String::as_str).chain(["--tls-replication", "yes"]).collect();
    let (primary, replica) = Server::pair("--tls-port", &settings);
    let redis = Redis::watched_by(&sentinels.ports, 2, primary);
    let name = redis.url.rsplit('/').next().expect("a name").to_owned();
    sentinels.know_a_replica_of(&name);
    let hosts: Vec<String> = tls_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let tls = |authority: &Authority| TlsSettings { ca_pem: Some(authority.read("ca.pem")), identity: None };
    let options = Options {
        redis_url: Some(format!("rediss-sentinel://{}/{name}", hosts.join(","))),
        redis_tls: Some(tls(&authority)),
        ..Options::default()
    };
    let app = TestApp::on(redis, options).await;
    let mut stranger = app.settings.store.clone();
    stranger.tls = tls(&Authority::new());
    let store = Store::connect(stranger, app.settings.account.clone(), app.clock.clone()).expect("a store");
    let mut error = store.account().await.expect_err("another CA");
    for _ in 0..20 {
        // A busy machine may take longer for a handshake than a question to a Sentinel may last.
        if error.failure() != Some(Failure::TimedOut) {
            break;
        }
        error = store.account().await.expect_err("another CA");
    }
    assert!(error.to_string().contains("no CA of REDIS_CA_FILE"), "{error}");

    let mut watched = Watched { app, replica };
    let (first, second) = (watched.app.permission(), watched.app.permission());
    watched.app.submit("before", &first).await;
    watched.app.run_due().await;
    process::until("the replica to have it", || caught_up(&watched)).await;
    watched.fail_over().await;
    watched.app.submit("after", &second).await;
    watched.app.run_due().await;
    for charge in ["before", "after"] {
        assert_eq!(watched.app.state(charge).await, "captured");
    }
    watched.app.finish().await;
}

/// Sentinels that lead elsewhere while the old primary lives on and closes nothing.
#[tokio::test]
async fn a_primary_that_the_sentinels_have_left_is_left_too_though_it_still_takes_writes() {
    let (old, new) = (Server::start("--port", &[]), Server::start("--port", &[]));
    let app = TestApp::on(Redis::watched_by(&sentinels().ports, 2, old), Options::default()).await;
    let mut settings = app.settings.store.clone();
    settings.url = new.redis.url().into();
    let heir = Store::connect(settings, app.settings.account.clone(), app.clock.clone()).expect("a store");
    heir.init(Init::First).await.expect("the new primary has the marker");
    let name = app.redis.url.rsplit('/').next().expect("a name").to_owned();
    for sentinel in &sentinels().ports {
        let () = call_now(*sentinel, &["SENTINEL", "REMOVE", &name]);
        let () = call_now(*sentinel, &["SENTINEL", "MONITOR", &name, "127.0.0.1", &new.port.to_string(), "2"]);
    }
    for _ in 0..1500 {
        app.store.set_stop(true).await.expect("either of them takes it");
        if heir.account().await.expect("it answers").stopped_since.is_some() {
            return app.finish().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the service stays at the old primary");
}

#[tokio::test]
async fn sentinels_and_the_master_have_users_of_their_own() {
    let app = TestApp::start().await;
    let url = |url: &str| {
        let mut settings = app.settings.store.clone();
        // The Sentinels that all stories share speak no TLS, whatever the kind of this run.
        (settings.url, settings.tls) = (url.to_owned().into(), TlsSettings::default());
        Store::connect(settings, app.settings.account.clone(), app.clock.clone())
    };
    // Without a password of their own the Sentinels refuse who gives one.
    let hosts: Vec<String> = sentinels().ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let hosts = hosts.join(",");
    let store = url(&format!("redis-sentinel://{hosts}/x?sentinel_password=wrong")).expect("a URL");
    assert_eq!(store.account().await.expect_err("refused").failure(), Some(Failure::Authentication));
    let store = url(&format!("redis-sentinel://{hosts}/nobody-watches-this")).expect("a URL");
    let error = store.account().await.expect_err("no such master");
    assert!(error.to_string().contains("No such master"), "{error}");
    let store = url("redis-sentinel://127.0.0.1:1,127.0.0.1:2/x").expect("a URL");
    assert_eq!(store.account().await.expect_err("nobody there").failure(), Some(Failure::NoConnection));
    app.finish().await;
}

/// Prints what docs/reliability/redis.md tells: how many acknowledged notifications a failover loses without `WAIT_REPLICAS`.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "a measurement is read by a person")]
#[ignore = "a measurement: cargo test --test it -- --ignored --nocapture what_an_asynchronous_failover_loses"]
async fn what_an_asynchronous_failover_loses() {
    for wait_for in [0, 1] {
        let (mut all, mut lost) = (0, 0);
        for _ in 0..10 {
            let mut watched = Watched::start(Reading::ReEvaluate, wait_for).await;
            let permission = watched.app.permission();
            let posting: Vec<_> = (0..8)
                .map(|_| {
                    let messages: Vec<SignedMessage> =
                        (0..100).map(|_| watched.app.notification(&permission)).collect();
                    let (http, url) = (watched.app.http.clone(), format!("{}/ipn", watched.app.public));
                    tokio::spawn(async move {
                        let mut acknowledged = Vec::new();
                        for message in messages {
                            let mut request = http.post(&url).body(message.body.clone());
                            for (name, value) in &message.headers {
                                request = request.header(name, value);
                            }
                            match request.send().await.expect("an answer").status().as_u16() {
                                200 => acknowledged.push(id_of(&message)),
                                _ => break,
                            }
                        }
                        acknowledged
                    })
                })
                .collect();
            while watched.app.journal().await.len() < 200 {
                tokio::task::yield_now().await;
            }
            watched.fail_over().await;
            let stored = journaled(&watched.app).await;
            for posted in posting {
                let acknowledged = posted.await.expect("no panic");
                all += acknowledged.len();
                lost += acknowledged.iter().filter(|id| !stored.contains(*id)).count();
            }
            watched.app.finish().await;
        }
        println!("WAIT_REPLICAS={wait_for}: {lost} of {all} acknowledged notifications lost in 10 failovers");
    }
}
