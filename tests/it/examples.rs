//! The consumers of `examples/`, each as a process on a stream that the service wrote. `make examples` brings what they need.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use amazon_pay_ipn::sandbox::{DeclineCode, Outcome};

use crate::process::{ended, signal, until};
use crate::support::{HOUR, TestApp};

#[expect(clippy::disallowed_methods, reason = "a switch of scripts/run-examples, not a setting of the service")]
fn tools() -> PathBuf {
    std::env::var_os("EXAMPLES_TOOLS").expect("run scripts/run-examples").into()
}

fn consumers() -> Vec<(&'static str, Command)> {
    let (root, tools) = (Path::new(env!("CARGO_MANIFEST_DIR")), tools());
    let rust = Path::new(env!("CARGO_BIN_EXE_amazon-pay-ipn")).with_file_name("examples").join("consumer");
    let mut python = Command::new(tools.join("python/bin/python3"));
    python.arg(root.join("examples/python/consumer.py"));
    let mut node = Command::new("node");
    // Beside its packages; scripts/run-examples puts it there.
    node.arg(tools.join("node/consumer.mjs"));
    vec![("rust", Command::new(rust)), ("python", python), ("node", node)]
}

/// The URL of a server as each library spells it: a private one listens on a socket in the file system.
fn url_for(language: &str, url: &str) -> String {
    match (language, url.strip_prefix("redis+unix://")) {
        ("python", Some(path)) => format!("unix://{path}"),
        ("node", Some(path)) => path.to_owned(),
        _ => url.to_owned(),
    }
}

/// The ids of all events, as often as they are in the stream.
async fn ids(app: &TestApp) -> Vec<String> {
    app.events().await.iter().map(|event| event["id"].clone()).collect()
}

#[tokio::test]
#[ignore = "needs redis-py and ioredis: scripts/run-examples"]
async fn the_examples_handle_each_event_once_take_over_what_was_left_and_stop_when_told() {
    let app = TestApp::start().await;
    let permission = app.permission();
    for id in ["plain", "declined"] {
        if id == "declined" {
            app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
        }
        app.submit(id, &permission).await;
        app.run_due().await;
    }
    app.pass(48 * HOUR, HOUR).await;
    app.sandbox.buyer_closes(&permission).expect("a permission");
    app.deliver_all().await;
    app.run_due().await;
    let mut expected = ids(&app).await;
    assert!(expected.len() > 8, "{expected:?}");
    expected.sort();

    // One event is there twice, as after a replay into the stream.
    let key = app.store.keys().events();
    let mut connection = app.connection().await;
    let first = app.events().await.swap_remove(0);
    let fields: Vec<(String, String)> = first.into_iter().collect();
    let copy: String =
        redis::cmd("XADD").arg(&key).arg("*").arg(&fields).query_async(&mut connection).await.expect("XADD");

    for (language, mut consumer) in consumers() {
        // A worker of the group died with two entries in its hands.
        app.store.create_group(language).await.expect("a group");
        let left = app.store.read_group(language, "died", 2, HOUR).await.expect("events");
        assert_eq!(left.len(), 2);

        consumer
            .env("REDIS_URL", url_for(language, &app.redis.url))
            .env("EVENTS", &key)
            .env("GROUP", language)
            .env("CLAIM_AFTER_MS", "1");
        let mut child = consumer.stdout(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{language}: {error}"));
        let output = BufReader::new(child.stdout.take().expect("standard output"));
        let handled: Arc<Mutex<Vec<String>>> = Arc::default();
        let written = Arc::clone(&handled);
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let id = line.split(' ').next().unwrap_or_default().to_owned();
                written.lock().expect("no panic").push(id);
            }
        });
        until(language, || handled.lock().expect("no panic").len() >= expected.len()).await;
        let mut settled = false;
        for _ in 0..1000 {
            let groups = app.store.event_groups().await.expect("groups");
            settled = groups.iter().any(|group| group.name == language && group.oldest.is_none());
            if settled {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(settled, "{language} has not acknowledged everything");
        signal("TERM", child.id());
        assert!(ended(&mut child).await.success(), "{language} did not stop in order");
        reader.join().expect("the output was read");
        let mut handled = handled.lock().expect("no panic").clone();
        handled.sort();
        assert_eq!(handled, expected, "{language}");
        // What it remembers is not ours to leave behind.
        for id in &expected {
            let () = redis::cmd("DEL")
                .arg(format!("{language}:handled:{id}"))
                .query_async(&mut connection)
                .await
                .expect("DEL");
        }
    }
    let () = redis::cmd("XDEL").arg(&key).arg(&copy).query_async(&mut connection).await.expect("XDEL");
    app.finish().await;
}
