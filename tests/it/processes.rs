//! The program as supervisors and operators meet it: exit statuses, messages, signals.

use std::process::Output;
use std::time::{Duration, Instant};

use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::sandbox::{
    Fault, Gate, NotificationType, ObjectType, Operation, PermissionSpec, Sandbox, SandboxSettings, SignatureVersion,
};
use amazon_pay_ipn::sns::Check;
use serde_json::json;

use crate::process::{Environment, Served, TOKEN, program, run, text, until};
use crate::support::servers::{Redis, ask};

struct World {
    redis: Redis,
    sandbox: Sandbox,
    environment: Environment,
    http: reqwest::Client,
}

impl World {
    /// Redis, a sandbox, and a marker; no service yet.
    async fn ready() -> Self {
        let world = Self::empty().await;
        let output = run(&mut world.environment.program(&["init", "--first"]));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        world
    }

    /// Without a marker.
    async fn empty() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let redis = Redis::start_own();
        let sandbox = Sandbox::start(SandboxSettings::new(Clock::system())).await.expect("the sandbox");
        let environment = Environment::of(&redis, &sandbox);
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().expect("a client");
        Self { redis, sandbox, environment, http }
    }

    async fn submit(&self, served: &Served, id: &str) -> String {
        let permission = self.sandbox.create_permission(PermissionSpec::recurring("USD"));
        let body = json!({
            "id": id, "chargePermissionId": permission, "captureNow": true,
            "chargeAmount": { "amount": "14.00", "currencyCode": "USD" },
        });
        let request = self.http.post(format!("http://{}/v1/charges", served.internal)).bearer_auth(TOKEN);
        let answer = request.header("content-type", "application/json").body(body.to_string()).send().await;
        assert_eq!(answer.expect("an answer").status(), 202);
        permission
    }

    async fn state(&self, served: &Served, id: &str) -> String {
        let request = self.http.get(format!("http://{}/v1/charges/{id}", served.internal)).bearer_auth(TOKEN);
        let body = request.send().await.expect("an answer").text().await.expect("a body");
        let charge: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        charge["state"].as_str().expect("a state").to_owned()
    }
}

/// Exit status and everything that was said.
fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

#[tokio::test]
async fn a_process_that_crashes_leaves_no_core_file_with_the_key_in_it() {
    let world = World::ready().await;
    let mut served = Served::start(&world.environment);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", served.id())).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    let fields: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(fields[4..6], ["0", "0"], "{core}");
    served.terminate();
    assert!(served.ended().await.success());
}

#[test]
fn serve_without_settings_names_all_that_are_missing_at_once() {
    let (code, told) = said(&run(&mut program(&["serve"])));
    assert_eq!(code, Some(2), "{told}");
    for name in [
        "AMAZON_PAY_REGION",
        "AMAZON_PAY_MERCHANT_ID",
        "AMAZON_PAY_PUBLIC_KEY_ID",
        "AMAZON_PAY_PRIVATE_KEY_FILE",
        "INTERNAL_API_TOKEN_FILE",
        "REDIS_URL",
        "SNS_TOPIC_ARNS",
    ] {
        assert_eq!(told.matches(&format!("error: {name}: is not set")).count(), 1, "{name} in\n{told}");
    }
}

#[tokio::test]
async fn serve_without_a_redis_url_says_what_to_set() {
    let world = World::empty().await;
    let (code, told) = said(&run(world.environment.program(&["serve"]).env_remove("REDIS_URL")));
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("error: REDIS_URL: is not set; expected for example redis://127.0.0.1:6379"), "{told}");
    assert_eq!(told.matches("error: ").count(), 1, "nothing else is wrong: {told}");
}

#[tokio::test]
async fn serve_on_a_redis_without_a_marker_says_to_run_init() {
    let world = World::empty().await;
    let (code, told) = said(&run(&mut world.environment.program(&["serve"])));
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("`amazon-pay-ipn init --first`") && told.contains("--after-loss"), "{told}");
}

#[tokio::test]
async fn a_live_environment_refuses_what_is_for_sandboxes() {
    let world = World::empty().await;
    let clock = world.environment.folder.path().join("clock");
    let mut command = world.environment.program(&["serve"]);
    let (code, told) = said(&run(command.env("AMAZON_PAY_PUBLIC_KEY_ID", "LIVE-AAAA").env("CLOCK_OFFSET_FILE", clock)));
    assert_eq!(code, Some(2), "{told}");
    for name in ["AMAZON_PAY_API_BASE_URL", "CLOCK_OFFSET_FILE"] {
        assert!(told.contains(&format!("error: {name}: is for sandboxes only")), "{name} in\n{told}");
    }
}

#[tokio::test]
async fn a_live_environment_refuses_to_be_crashed() {
    let world = World::empty().await;
    let mut command = world.environment.program(&["serve"]);
    command.env("AMAZON_PAY_PUBLIC_KEY_ID", "LIVE-AAAA").env_remove("AMAZON_PAY_API_BASE_URL");
    let (code, told) = said(&run(command.env("CRASH_AT", "mark-after:1")));
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("error: CRASH_AT: is for sandboxes only"), "{told}");
    assert_eq!(told.matches("error: ").count(), 1, "nothing else is wrong: {told}");
}

#[tokio::test]
async fn init_writes_one_marker_and_no_second() {
    let world = World::ready().await;
    let (code, told) = said(&run(&mut world.environment.program(&["init", "--first"])));
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("there is a marker already; nothing was changed"), "{told}");
    let (code, told) = said(&run(&mut world.environment.program(&["init"])));
    assert_eq!(code, Some(2), "the mode has to be said: {told}");
}

#[tokio::test]
async fn sigterm_ends_an_idle_service_at_once() {
    let world = World::ready().await;
    let mut served = Served::start(&world.environment);
    #[expect(clippy::disallowed_methods, reason = "how long the drain takes is what is tested")]
    let started = Instant::now();
    served.terminate();
    assert_eq!(served.ended().await.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn sigterm_during_a_charge_finishes_and_commits_it() {
    let world = World::ready().await;
    let mut served = Served::start(&world.environment);
    let gate = Gate::new();
    world.sandbox.inject(Operation::CreateCharge, Fault::HoldAfter(gate.clone()));
    let permission = world.submit(&served, "in-hand").await;
    gate.reached().await;
    served.terminate();
    let address = served.public.clone();
    until("the listeners to close", || std::net::TcpStream::connect(&address).is_err()).await;
    assert!(served.is_running(), "the call in hand is waited for");
    gate.release();
    assert_eq!(served.ended().await.code(), Some(0));

    let successor = Served::start(&world.environment);
    assert_eq!(world.state(&successor, "in-hand").await, "captured");
    let ledger = world.sandbox.ledger();
    assert_eq!(ledger.captured_of(&permission).len(), 1);
    assert_eq!(ledger.requests_of(Operation::CreateCharge).len(), 1, "it was committed, so nobody asks again");
}

#[tokio::test]
async fn healthcheck_tells_ready_from_not_ready() {
    let mut world = World::ready().await;
    let served = Served::start(&world.environment);
    let check = |address: &str| {
        let output = run(program(&["healthcheck"]).env("INTERNAL_LISTEN_ADDR", address));
        output.status.code()
    };
    assert_eq!(check(&served.internal), Some(0));
    assert_eq!(check("nonsense"), Some(2));
    world.redis.kill();
    assert_eq!(check(&served.internal), Some(1), "Redis is gone");
    drop(served);
    assert_eq!(check("127.0.0.1:1"), Some(1), "nobody listens");
}

#[test]
fn verify_that_cannot_be_used_is_wrong_usage() {
    let (code, told) = said(&run(&mut program(&["verify", "/nowhere/message"])));
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("/nowhere/message"), "{told}");
    assert_eq!(run(&mut program(&["verify"])).status.code(), Some(2));
    assert_eq!(run(&mut program(&["verify", "x", "--topic", "nonsense"])).status.code(), Some(2));
}

#[tokio::test]
async fn the_metrics_say_that_redis_hangs_instead_of_hanging_with_it() {
    let world = World::ready().await;
    let served = Served::start(&world.environment);
    let page = async || {
        // So long does Prometheus wait.
        let patience = Duration::from_secs(10);
        let answer = world.http.get(format!("http://{}/metrics", served.internal)).timeout(patience).send().await;
        let answer = answer.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    };
    let (status, metrics) = page().await;
    assert!(status == 200 && metrics.contains("\namazon_pay_ipn_redis_up 1\n"), "{metrics}");
    // Longer than anybody waits here.
    let pause = redis::cmd("CLIENT").arg(&["PAUSE", "60000", "ALL"]).to_owned();
    let () = pause.query_async(&mut world.redis.admin("").await).await.expect("a pause");
    let (status, metrics) = page().await;
    assert!(status == 200 && metrics.contains("\namazon_pay_ipn_redis_up 0\n"), "{status} {metrics}");
}

#[tokio::test]
async fn what_alarms_watch_is_there_at_zero_before_it_first_happens() {
    let world = World::ready().await;
    let served = Served::start(&world.environment);
    let answer = world.http.get(format!("http://{}/metrics", served.internal)).send().await;
    let metrics = answer.expect("an answer").text().await.expect("a body");
    let mut expected: Vec<String> = ["held", "fetched", "unacceptable", "failed", "remembered", "over_budget"]
        .map(|outcome| format!("amazon_pay_ipn_sns_certificates_total{{outcome=\"{outcome}\"}} 0"))
        .into();
    for check in Check::ALL {
        expected.push(format!("amazon_pay_ipn_messages_refused_total{{check=\"{}\"}} 0", check.as_str()));
    }
    for chain in ["proven", "unproven", "pinned"] {
        for version in [1, 2] {
            expected.push(format!(
                "amazon_pay_ipn_sns_verified_total{{chain=\"{chain}\",signature_version=\"{version}\"}} 0"
            ));
        }
    }
    for line in expected {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
    }
}

#[tokio::test]
async fn a_running_service_notes_what_arrives_and_tells_when_nothing_ever_did() {
    let mut world = World::ready().await;
    // Redis was set up just now; for the service that is more than a day ago.
    let offset = world.environment.folder.path().join("offset");
    std::fs::write(&offset, Duration::from_hours(25).as_millis().to_string()).expect("a file");
    world.environment.set("CLOCK_OFFSET_FILE", offset.display().to_string());
    let mut served = Served::start(&world.environment);
    let there = |end: &str| {
        let keys: Vec<String> = ask(&world.redis.url_of_own(), &["KEYS", &format!("*:{end}")]).expect("keys");
        !keys.is_empty()
    };
    until("a note of what arrived", || there("arrivals")).await;
    until("an event", || there("events")).await;
    let told = run(&mut world.environment.program(&["events", "tail"]));
    assert!(text(&told.stdout).contains("never_heard"), "{:?}", said(&told));
    served.terminate();
    assert!(served.ended().await.success());
}

#[tokio::test]
async fn a_message_is_verified_by_the_settings_of_a_sandboxs_service() {
    let mut world = World::ready().await;
    let folder = world.environment.folder.path();
    let path = |name: &str| folder.join(name).display().to_string();
    let ipn = world.sandbox.ipn((ObjectType::ChargePermission, "C01-1"), "C01-1", NotificationType::StateChange);
    let genuine = world.sandbox.sign(&ipn, SignatureVersion::V2);
    let (message, forged, anchors) = (path("message"), path("forged"), path("anchors"));
    std::fs::write(&message, &genuine.body).expect("a file");
    std::fs::write(&forged, genuine.body.replace("C01-1", "C01-2")).expect("a file");
    std::fs::write(&anchors, world.sandbox.trust_anchor_pem()).expect("a file");
    let of_sns = [
        ("SNS_CERTIFICATE_BASE_URL", world.sandbox.certificate_base_url().to_owned()),
        ("SNS_CERTIFICATE_NAME", world.sandbox.certificate_name().to_owned()),
        ("SNS_TRUST_ANCHORS_FILE", anchors),
    ];
    for (name, value) in of_sns {
        world.environment.set(name, value);
    }
    let verify = |words: &[&str]| {
        let mut command = world.environment.program(&[&["verify"], words].concat());
        tokio::task::spawn_blocking(move || said(&run(&mut command)))
    };
    let (code, told) = verify(&["--settings", &message]).await.expect("no panic");
    assert!(code == Some(0) && told.contains("a sandbox's trust in the place of Amazon's"), "{told}");
    let (code, told) = verify(&["--settings", &forged]).await.expect("no panic");
    assert!(
        code == Some(1) && told.contains("\"signature\". The service, with these settings, would answer 403"),
        "{told}"
    );
    // By itself it believes Amazon alone.
    let (code, told) = verify(&[&message]).await.expect("no panic");
    assert!(code == Some(1) && told.contains("with its default settings"), "{told}");
    world.environment.set("SNS_TOPIC_ARNS", "arn:aws:sns:us-east-1:1:other".to_owned());
    let mut command = world.environment.program(&["verify", "--settings", &message]);
    let (code, told) = said(&run(&mut command));
    assert!(code == Some(2) && told.contains("SNS_TOPIC_ARNS"), "{told}");
}
