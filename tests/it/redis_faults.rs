//! Redis in trouble: full, loading, slow, cut off, restarted under load, with keys of somebody else. Clear answers meanwhile, and afterwards
//! everything goes on without a restart.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amazon_pay_ipn::sandbox::redis_server::RedisServer;
use amazon_pay_ipn::sandbox::{Reading, SignedMessage};
use amazon_pay_ipn::store::{Failure, StoreError};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Notify;

use crate::support::servers::Redis;
use crate::support::{HOUR, MINUTE, Options, TestApp};

async fn run<T: redis::FromRedisValue>(app: &TestApp, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut app.connection().await).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn detail(body: &Value) -> &str {
    body["detail"].as_str().expect("a detail")
}

#[tokio::test]
async fn full_memory_is_503_and_room_again_needs_no_restart() {
    let app = TestApp::on_an_own_server().await;
    let permission = app.permission();
    app.submit("before", &permission).await;
    let () = run(&app, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let message = app.notification(&permission);
    assert_eq!(app.deliver(&message).await, 503);
    let refused = app.post("/v1/charges", &TestApp::body("during", &permission)).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(detail(&refused.body).contains("out of memory (maxmemory)"), "{}", refused.body);
    assert_eq!(app.store.set_stop(true).await.expect_err("it is full").failure(), Some(Failure::Full));
    assert!(app.reconciler.step().await.is_err());
    assert_eq!(app.creates(), 0, "what cannot be marked is not sent");
    assert_eq!(app.state("before").await, "scheduled", "reading goes on");
    let () = run(&app, &["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(app.deliver(&message).await, 200);
    app.submit("during", &permission).await;
    app.pass(HOUR, MINUTE).await;
    assert_eq!([app.state("before").await, app.state("during").await], ["captured", "captured"]);
    assert_eq!(app.journal().await.len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_key_of_another_type_is_named_and_holds_up_nobody_else() {
    let app = TestApp::start().await;
    let (permission, other) = (app.permission(), app.permission());
    let id = permission.parse().expect("an id");
    app.submit("renewal", &permission).await;
    let keys = app.store.keys().clone();
    let renewal = "renewal".parse().expect("an id");
    // Those of the one permission; what all permissions share is tried below.
    for (count, key) in [keys.permission(&id), keys.open(&id), keys.intent(&renewal)].iter().enumerate() {
        let aside = format!("{key}:aside");
        let () = run(&app, &["RENAME", key, &aside]).await;
        let () = run(&app, &["SET", key, "of somebody else"]).await;
        let healthy = format!("healthy-{count}");
        app.submit(&healthy, &other).await;
        // The broken one costs a step, which says so, and is put off.
        let mut said = String::new();
        for _ in 0..10 {
            if let Err(error) = app.reconciler.step().await {
                said += &error.to_string();
            }
        }
        assert!(said.contains(key.as_str()) || said.contains("WRONGTYPE"), "{key}: {said}");
        assert_eq!(app.state(&healthy).await, "captured", "{key} of another permission is not in the way");
        assert_eq!(app.ledger().captured_of(&permission).len(), 0);
        let () = run(&app, &["DEL", key]).await;
        let () = run(&app, &["RENAME", &aside, key]).await;
        app.advance(4 * MINUTE);
    }
    for key in [keys.schedule(), keys.events(), keys.marker()] {
        let aside = format!("{key}:aside");
        let () = run(&app, &["RENAME", &key, &aside]).await;
        let () = run(&app, &["SET", &key, "of somebody else"]).await;
        let refused = app.post("/v1/charges", &TestApp::body("refused", &other)).await;
        assert_eq!(refused.status, 503, "{key}: {}", refused.body);
        let named = if key == keys.marker() { "no marker" } else { &key };
        assert!(detail(&refused.body).contains(named), "{key}: {}", refused.body);
        let () = run(&app, &["DEL", &key]).await;
        let () = run(&app, &["RENAME", &aside, &key]).await;
    }
    app.submit("afterwards", &other).await;
    app.pass(HOUR, MINUTE).await;
    assert_eq!([app.state("renewal").await, app.state("afterwards").await], ["captured", "captured"]);
    app.finish().await;
}

#[tokio::test]
async fn a_server_that_reads_its_data_is_503_until_it_has() {
    // 20 ms for each key, and it answers in between: the reading takes longer than a question.
    let slow = ["--enable-debug-command", "yes", "--loading-process-events-interval-bytes", "1024"];
    let app = TestApp::on(RedisServer::start_with(&slow).expect("a Redis"), Options::default()).await;
    let permission = app.permission();
    for _ in 0..50 {
        assert_eq!(app.deliver(&app.notification(&permission)).await, 200);
    }
    let () = run(&app, &["CONFIG", "SET", "key-load-delay", "20000"]).await;
    let mut connection = app.connection().await;
    let reload = tokio::spawn(async move {
        let done: String = redis::cmd("DEBUG").arg("RELOAD").query_async(&mut connection).await.expect("it reloads");
        done
    });
    let mut seen = None;
    while seen.is_none() && !reload.is_finished() {
        seen = app.store.set_stop(false).await.err().and_then(|error| error.failure());
    }
    assert_eq!(seen, Some(Failure::Loading));
    let message = app.notification(&permission);
    assert_eq!(app.deliver(&message).await, 503);
    let unready = app.get("/readyz").await;
    assert_eq!(unready.status, 503);
    assert!(detail(&unready.body).contains("still reading its data"), "{}", unready.body);
    assert_eq!(reload.await.expect("no panic"), "OK");
    let () = run(&app, &["CONFIG", "SET", "key-load-delay", "0"]).await;
    // The first may still find the connection that was refused.
    let again = [app.deliver(&message).await, app.deliver(&message).await];
    assert_eq!(again[1], 200, "{again:?}");
    assert_eq!(app.get("/readyz").await.status, 200);
    assert_eq!(app.journal().await.len(), 51);
    app.run_due().await;
    app.finish().await;
}

/// A way to Redis that is slow, or that breaks off before the next answer.
struct Way {
    url: String,
    delay_ms: Arc<AtomicU64>,
    cut: Arc<AtomicBool>,
    /// Only an answer to what names this is cut off: others ask, too, such as housekeeping.
    only: Arc<Mutex<String>>,
}

impl Way {
    async fn to(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("redis://{}", listener.local_addr().expect("an address"));
        let socket: PathBuf = server.url().strip_prefix("redis+unix://").expect("a socket").into();
        let (delay_ms, cut) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let only = Arc::new(Mutex::new(String::new()));
        let way = Self { url, delay_ms: Arc::clone(&delay_ms), cut: Arc::clone(&cut), only: Arc::clone(&only) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.expect("a server");
                let (delay_ms, cut, only) = (Arc::clone(&delay_ms), Arc::clone(&cut), Arc::clone(&only));
                tokio::spawn(async move {
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let over = Arc::new(Notify::new());
                    let ended = Arc::clone(&over);
                    let named = Arc::new(AtomicBool::new(false));
                    let was_named = Arc::clone(&named);
                    let is_to_cut = Arc::clone(&cut);
                    let pass_on = async move {
                        let mut bytes = vec![0_u8; 64 * 1024];
                        while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
                            let wanted = only.lock().expect("no panic").clone().into_bytes();
                            let meant = |part: &[u8]| part == wanted;
                            // What was asked before is not meant, though its answer may still be on its way.
                            if is_to_cut.load(Ordering::SeqCst)
                                && (wanted.is_empty() || bytes[..length].windows(wanted.len()).any(meant))
                            {
                                named.store(true, Ordering::SeqCst);
                            }
                            if to_server.write_all(&bytes[..length]).await.is_err() {
                                break;
                            }
                        }
                    };
                    tokio::spawn(async move {
                        tokio::select! {
                            () = pass_on => {}
                            () = ended.notified() => {}
                        }
                    });
                    let mut bytes = vec![0_u8; 64 * 1024];
                    while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
                        if was_named.swap(false, Ordering::SeqCst) && cut.swap(false, Ordering::SeqCst) {
                            break;
                        }
                        let delay = Duration::from_millis(delay_ms.load(Ordering::SeqCst));
                        tokio::time::sleep(delay).await;
                        if to_client.write_all(&bytes[..length]).await.is_err() {
                            break;
                        }
                    }
                    over.notify_one();
                });
            }
        });
        way
    }
}

impl Way {
    fn cut_the_answer_to(&self, text: &str) {
        text.clone_into(&mut self.only.lock().expect("no panic"));
        self.cut.store(true, Ordering::SeqCst);
    }
}

async fn over_a_way(reading: Reading) -> (TestApp, Way) {
    let server = RedisServer::start().expect("a private Redis");
    let way = Way::to(&server).await;
    let options = Options { redis_url: Some(way.url.clone()), reading, ..Options::default() };
    (TestApp::on(server, options).await, way)
}

#[tokio::test]
async fn answers_that_take_a_second_make_the_service_slow_and_nothing_else() {
    let (app, way) = over_a_way(Reading::ReEvaluate).await;
    let permission = app.permission();
    way.delay_ms.store(1000, Ordering::SeqCst);
    let message = app.notification(&permission);
    assert_eq!(app.deliver(&message).await, 200);
    app.submit("renewal", &permission).await;
    app.run_due().await;
    way.delay_ms.store(0, Ordering::SeqCst);
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.creates(), 1);
    app.finish().await;
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_503_and_the_same_again_is_the_same() {
    for reading in [Reading::ReplayAll, Reading::ReEvaluate, Reading::StatusFirst] {
        let (app, way) = over_a_way(reading).await;
        let permission = app.permission();
        let message = app.notification(&permission);
        assert_eq!(app.deliver(&app.notification(&permission)).await, 200, "the way is known");
        let id: Value = serde_json::from_str(&message.body).expect("JSON");
        way.cut_the_answer_to(id["MessageId"].as_str().expect("an id"));
        assert_eq!(app.deliver(&message).await, 503, "it was stored, but nobody knows");
        assert_eq!(app.deliver(&message).await, 200);
        assert_eq!(app.journal().await.len(), 2);
        way.cut_the_answer_to("renewal");
        assert_eq!(app.post("/v1/charges", &TestApp::body("renewal", &permission)).await.status, 503);
        let again = app.post("/v1/charges", &TestApp::body("renewal", &permission)).await;
        assert!([200, 202].contains(&again.status), "{}", again.body);
        // Every answer of the steps is lost once, the one to the mark among them.
        way.only.lock().expect("no panic").clear();
        for _ in 0..12 {
            way.cut.store(true, Ordering::SeqCst);
            let _ = app.reconciler.step().await;
            app.advance(4 * MINUTE);
        }
        way.cut.store(false, Ordering::SeqCst);
        app.pass(4 * HOUR, 5 * MINUTE).await;
        assert_eq!(app.state("renewal").await, "captured", "{reading:?}");
        assert_eq!(app.ledger().captured_of(&permission).len(), 1, "{reading:?}");
        app.finish().await;
    }
}

/// Posts notifications until told to stop; what was acknowledged, by its id.
async fn post_until(
    url: String,
    http: reqwest::Client,
    messages: Vec<SignedMessage>,
    stop: Arc<AtomicBool>,
) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for message in messages {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let mut request = http.post(&url).body(message.body.clone());
        for (name, value) in &message.headers {
            request = request.header(name, value);
        }
        if request.send().await.expect("an answer").status() == 200 {
            let body: Value = serde_json::from_str(&message.body).expect("JSON");
            acknowledged.push(body["MessageId"].as_str().expect("an id").to_owned());
        }
    }
    acknowledged
}

#[tokio::test]
async fn redis_killed_and_started_again_under_load_loses_no_acknowledged_notification() {
    let mut app = TestApp::on(Redis::start_own(), Options::default()).await;
    let permission = app.permission();
    let stop = Arc::new(AtomicBool::new(false));
    let posting: Vec<_> = (0..4)
        .map(|_| {
            let messages = (0..400).map(|_| app.notification(&permission)).collect();
            tokio::spawn(post_until(format!("{}/ipn", app.public), app.http.clone(), messages, Arc::clone(&stop)))
        })
        .collect();
    for _ in 0..3 {
        // Under way: some more have been acknowledged since the server was started.
        let before = app.journal().await.len();
        while app.journal().await.len() < before + 20 && !posting.iter().all(tokio::task::JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
        app.redis.kill();
        app.redis.start_again();
    }
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for posted in posting {
        acknowledged.extend(posted.await.expect("no panic"));
    }
    let stored: Vec<String> = app.journal().await.iter().map(|entry| entry["message_id"].clone()).collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|id| !stored.contains(id)).collect();
    assert!(lost.is_empty(), "{} of {} are lost", lost.len(), acknowledged.len());
    // 20 were stored before each kill; of these the four posters had at most one each in hand, stored and not answered.
    assert!(acknowledged.len() >= 3 * (20 - 4), "there was load: {}", acknowledged.len());
    // The first command may still find the connection to the one that was killed.
    let _ = app.store.account().await;
    app.run_due().await;
    app.finish().await;
}

#[tokio::test]
async fn a_server_that_wants_more_replicas_than_it_has_says_so_and_nothing_is_promised() {
    let app = TestApp::on_an_own_server().await;
    let permission = app.permission();
    let () = run(&app, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let message = app.notification(&permission);
    assert_eq!(app.deliver(&message).await, 503);
    let refused = app.post("/v1/stop", &json!({})).await;
    assert!(detail(&refused.body).contains("too few replicas"), "{}", refused.body);
    let error = app.store.set_stop(true).await.expect_err("it wants a replica");
    assert!(
        matches!(&error, StoreError::Unavailable(_)) && error.failure() == Some(Failure::TooFewReplicas),
        "{error}"
    );
    let () = run(&app, &["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    assert_eq!(app.deliver(&message).await, 200);
    app.run_due().await;
    app.finish().await;
}
