//! `check`, and what `serve` looks at: against a real Redis with each wrong setting, and a sandbox that refuses, is late, or is gone.

use std::time::Duration;

use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::sandbox::redis_server::RedisServer;
use amazon_pay_ipn::sandbox::{Operation, PermissionSpec, Reading, Sandbox, SandboxSettings};
use serde_json::Value;

use crate::process::{Environment, Served, program, run, text, until};

struct World {
    redis: RedisServer,
    sandbox: Sandbox,
    environment: Environment,
}

fn marker_of(account: &str) -> String {
    format!("amazon-pay:{{{account}}}:marker")
}

/// What `check --json` said.
struct Report {
    code: Option<i32>,
    body: Value,
}

impl Report {
    fn severity(&self, check: &str) -> &str {
        let found = self.body["findings"].as_array().expect("findings").iter().find(|finding| finding["id"] == check);
        found.map_or("-", |finding| finding["severity"].as_str().expect("a severity"))
    }

    /// What is neither ok nor to be expected of a fresh sandbox to which nobody has sent a notification.
    fn bad(&self) -> Vec<(String, String)> {
        let findings = self.body["findings"].as_array().expect("findings");
        let bad = findings.iter().filter(|finding| finding["severity"] != "ok" && finding["id"] != "notifications");
        let word = |finding: &Value, name: &str| finding[name].as_str().expect("text").to_owned();
        bad.map(|finding| {
            assert!(!word(finding, "means").is_empty() && !word(finding, "mend").is_empty());
            (word(finding, "id"), word(finding, "severity"))
        })
        .collect()
    }
}

fn one(check: &str, severity: &str) -> Vec<(String, String)> {
    vec![(check.to_owned(), severity.to_owned())]
}

impl World {
    async fn new() -> Self {
        Self::with(&[], SandboxSettings::new(Clock::system())).await
    }

    /// A Redis with these settings, with a marker, and a sandbox.
    async fn with(redis: &[&str], sandbox: SandboxSettings) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let redis = RedisServer::start_with(redis).expect("a private Redis");
        let sandbox = Sandbox::start(sandbox).await.expect("the sandbox");
        let mut environment = Environment::at(redis.url(), &sandbox);
        environment.set("SNS_CERTIFICATE_BASE_URL", sandbox.certificate_base_url().to_owned());
        let output = run(&mut environment.program(&["init", "--first"]));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        Self { redis, sandbox, environment }
    }

    fn check(&self, more: &[&str]) -> Report {
        let output = run(&mut self.environment.program(&[&["check", "--json"], more].concat()));
        let said = text(&output.stdout);
        let body =
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{}", text(&output.stderr)));
        Report { code: output.status.code(), body }
    }

    async fn redis(&self, command: &[&str]) {
        let client = redis::Client::open(self.redis.url()).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let mut call = redis::cmd(command[0]);
        let _: redis::Value = call.arg(&command[1..]).query_async(&mut connection).await.expect("an answer");
    }

    fn own_marker(&self) -> String {
        marker_of(&format!("sandbox:{}", self.sandbox.merchant_id()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_setup_has_nothing_but_good_findings_and_ends_with_zero() {
    let world = World::new().await;
    let report = world.check(&[]);
    assert_eq!((report.code, report.bad()), (Some(0), vec![]), "{:#}", report.body);
    assert_eq!(report.severity("notifications"), "warning", "none came yet, and that is said");
    for check in ["amazon-signature", "amazon-clock", "amazon-date-tolerance", "certificate-host", "redis-clock"] {
        assert_eq!(report.severity(check), "ok", "{check}");
    }
    let creates = world.sandbox.ledger().requests_of(Operation::CreateCharge).len();
    assert_eq!(creates, 0, "nothing with an effect was asked of Amazon");

    let output = run(&mut world.environment.program(&["check"]));
    let told = text(&output.stdout);
    assert!(told.contains("redis-append-fsync") && told.contains("appendfsync is always"), "{told}");
    assert!(!told.contains('\u{1b}'), "colours are for terminals: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsafe_durability_is_an_error_that_keeps_serve_from_starting_until_it_is_accepted() {
    for (setting, check) in [
        (["--appendfsync", "everysec"], "redis-append-fsync"),
        (["--appendfsync", "no"], "redis-append-fsync"),
        (["--no-appendfsync-on-rewrite", "yes"], "redis-append-fsync"),
        (["--appendonly", "no"], "redis-append-only"),
        (["--maxmemory-policy", "allkeys-lru"], "redis-eviction"),
        (["--maxmemory-policy", "volatile-ttl"], "redis-eviction"),
    ] {
        let mut world = World::with(&setting, SandboxSettings::new(Clock::system())).await;
        let report = world.check(&["--offline"]);
        assert_eq!((report.code, report.bad()), (Some(1), one(check, "error")), "{setting:?}");
        let refused = run(&mut world.environment.program(&["serve"]));
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{setting:?}: {told}");
        assert!(told.contains(setting[1]) || told.contains("appendonly is off"), "{told}");
        assert!(told.contains("ACCEPT_UNSAFE_DURABILITY"), "{told}");

        world.environment.set("ACCEPT_UNSAFE_DURABILITY", "true".to_owned());
        let report = world.check(&["--offline"]);
        assert_eq!((report.code, report.bad()), (Some(0), one(check, "warning")), "{setting:?}");
        let served = Served::start(&world.environment);
        let (status, ready) = get(&served, "/readyz").await;
        assert_eq!(status, 200);
        let ready: Value = serde_json::from_str(&ready).expect("JSON");
        let shown = ready["findings"].as_array().expect("findings").iter().find(|finding| finding["id"] == check);
        assert!(shown.is_some_and(|shown| shown["found"].to_string().contains("accepted")), "{ready:#}");
        assert!(get(&served, "/metrics").await.1.contains("\namazon_pay_ipn_unsafe_durability 1\n"));
    }
}

async fn get(served: &Served, path: &str) -> (u16, String) {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().expect("a client");
    let answer = http.get(format!("http://{}{path}", served.internal)).send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durability_that_is_taken_away_while_serving_is_shown_and_stops_nothing() {
    let world = World::new().await;
    let served = Served::start(&world.environment);
    assert!(get(&served, "/metrics").await.1.contains("\namazon_pay_ipn_unsafe_durability 0\n"));
    world.redis(&["CONFIG", "SET", "appendfsync", "everysec"]).await;
    let (status, ready) = get(&served, "/readyz").await;
    assert_eq!(status, 200, "{ready}");
    assert!(ready.contains("redis-append-fsync") && ready.contains("appendfsync is everysec"), "{ready}");
    assert!(get(&served, "/metrics").await.1.contains("\namazon_pay_ipn_unsafe_durability 1\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_does_not_let_us_ask_is_not_known_and_no_error() {
    let world = World::new().await;
    world.redis(&["ACL", "SETUSER", "default", "-config", "-scan"]).await;
    let report = world.check(&["--offline"]);
    let expected = [one("redis-append-fsync", "unknown"), one("redis-other-accounts", "unknown")].concat();
    assert_eq!((report.code, report.bad()), (Some(0), expected));
    drop(Served::start(&world.environment));

    world.redis(&["ACL", "SETUSER", "default", "-info", "-hget"]).await;
    let report = world.check(&["--offline"]);
    assert_eq!((report.code, report.bad()), (Some(1), one("redis-reachable", "error")));
    let told = report.body.to_string();
    assert!(told.contains("+info") && told.contains("+hget"), "all that is missing is named: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_state_of_redis_that_stops_work_is_said() {
    let mut world = World::new().await;
    let marker = world.own_marker();
    world.redis(&["HSET", &marker, "version", "2"]).await;
    let report = world.check(&["--offline"]);
    assert_eq!((report.code, report.bad()), (Some(1), one("redis-marker", "error")));
    assert!(report.body.to_string().contains("newer version"));
    world.redis(&["HSET", &marker, "version", "1", "merchant", "ANOTHER"]).await;
    assert_eq!(world.check(&["--offline"]).bad(), one("redis-marker", "error"));
    let merchant = world.sandbox.merchant_id().to_owned();
    world.redis(&["HSET", &marker, "merchant", &merchant]).await;

    let now = Clock::system().now().as_millisecond().to_string();
    world.redis(&["HSET", &marker, "stop_since", &now, "recovering", "1"]).await;
    let report = world.check(&["--offline"]);
    let expected = [one("stop-switch", "warning"), one("recovery", "warning")].concat();
    assert_eq!((report.code, report.bad()), (Some(0), expected));
    world.redis(&["HDEL", &marker, "stop_since", "recovering"]).await;

    let sibling = marker_of(&format!("live:{merchant}"));
    world.redis(&["HSET", &sibling, "version", "1"]).await;
    world.redis(&["HSET", &marker_of("live:ANOTHER"), "version", "1"]).await;
    let report = world.check(&["--offline"]);
    assert_eq!((report.code, report.bad()), (Some(0), one("redis-other-accounts", "warning")));
    world.redis(&["DEL", &sibling]).await;

    world.redis(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(world.check(&["--offline"]).bad(), one("redis-memory", "error"));
    world.redis(&["CONFIG", "SET", "maxmemory", "0"]).await;

    world.redis(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let report = world.check(&["--offline"]);
    assert_eq!((report.code, report.severity("redis-role")), (Some(1), "error"));
    world.redis(&["REPLICAOF", "NO", "ONE"]).await;

    world.redis(&["DEL", &marker]).await;
    let report = world.check(&["--offline"]);
    assert_eq!((report.code, report.bad()), (Some(1), one("redis-marker", "error")));

    world.redis.kill();
    let report = world.check(&["--offline"]);
    assert_eq!((report.code, report.bad()), (Some(1), one("redis-reachable", "error")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_amazon_does_not_know_is_found_out_without_an_effect() {
    let mut world = World::new().await;
    world.environment.set("AMAZON_PAY_PUBLIC_KEY_ID", "SANDBOX-ANOTHER".to_owned());
    let report = world.check(&[]);
    assert_eq!((report.code, report.bad()), (Some(1), one("amazon-signature", "error")), "{:#}", report.body);
    assert_eq!(report.severity("amazon-date-tolerance"), "-", "who is not believed now measures nothing");

    let served = Served::start(&world.environment);
    let mut shown = String::new();
    // It is asked after the service is ready, so it is waited for.
    until("the finding at /readyz", || {
        let asked = || tokio::runtime::Handle::current().block_on(get(&served, "/readyz"));
        shown = tokio::task::block_in_place(asked).1;
        shown.contains("amazon-signature")
    })
    .await;
    assert!(shown.contains("InvalidRequestSignature"), "{shown}");

    let garbage = world.environment.folder.path().join("garbage");
    std::fs::write(&garbage, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").expect("a file");
    world.environment.set("AMAZON_PAY_PRIVATE_KEY_FILE", garbage.display().to_string());
    let report = world.check(&[]);
    assert_eq!(
        (report.code, report.severity("amazon-key"), report.severity("amazon-signature")),
        (Some(1), "error", "-")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_amazon_that_is_gone_is_an_error_unless_nobody_asks() {
    let mut world = World::new().await;
    world.environment.set("AMAZON_PAY_API_BASE_URL", "http://127.0.0.1:1".to_owned());
    world.environment.set("SNS_CERTIFICATE_BASE_URL", "http://127.0.0.1:1".to_owned());
    let report = world.check(&[]);
    assert_eq!((report.code, report.severity("amazon-reachable")), (Some(1), "error"));
    assert_eq!((report.severity("amazon-signature"), report.severity("amazon-clock")), ("unknown", "unknown"));
    assert_eq!(report.severity("certificate-host"), "error");
    let report = world.check(&["--offline"]);
    assert_eq!((report.code, report.bad()), (Some(0), vec![]));
    assert_eq!((report.severity("amazon-reachable"), report.severity("certificate-host")), ("-", "-"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_differs_from_amazons_is_a_warning_and_beyond_five_minutes_an_error() {
    for (minutes, severity, signature) in [(2, "warning", "ok"), (7, "error", "error")] {
        let clock = Clock::movable();
        clock.advance(Duration::from_mins(minutes));
        let world = World::with(&[], SandboxSettings::new(clock)).await;
        let report = world.check(&[]);
        assert_eq!((report.severity("amazon-clock"), report.severity("amazon-signature")), (severity, signature));
        assert_eq!(report.code, Some(i32::from(minutes > 5)), "{:#}", report.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tolerance_for_old_dates_is_measured_and_compared_with_x() {
    for (tolerance, x, severity) in [
        (Duration::from_mins(5), "30m", "ok"),
        (Duration::from_mins(15), "30m", "ok"),
        (Duration::from_mins(15), "14m", "error"),
        (Duration::from_mins(40), "30m", "error"),
        (Duration::from_hours(48), "24h", "error"),
    ] {
        let sandbox = SandboxSettings { date_tolerance: tolerance, ..SandboxSettings::new(Clock::system()) };
        let mut world = World::with(&[], sandbox).await;
        world.environment.set("CONFIRMATION_DELAY", x.to_owned());
        let report = world.check(&[]);
        assert_eq!(report.severity("amazon-date-tolerance"), severity, "{tolerance:?} {x}: {:#}", report.body);
        assert_eq!(report.code, Some(i32::from(severity == "error")));
        assert_eq!(world.sandbox.ledger().requests_of(Operation::CreateCharge).len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_sandbox_it_is_measured_whether_declines_are_repeated_and_nothing_stays_charged() {
    for (reading, said) in [
        (Reading::ReplayAll, "declines are repeated"),
        (Reading::StatusFirst, "declines are repeated"),
        (Reading::ReEvaluate, "evaluated anew"),
    ] {
        let world = World::with(&[], SandboxSettings { reading, ..SandboxSettings::new(Clock::system()) }).await;
        let permission = world.sandbox.create_permission(PermissionSpec::recurring("USD"));
        let report = world.check(&["--sandbox-charge", &permission]);
        assert_eq!((report.code, report.severity("amazon-declines")), (Some(0), "ok"), "{:#}", report.body);
        assert!(report.body.to_string().contains(said), "{reading:?}: {:#}", report.body);
        let ledger = world.sandbox.ledger();
        assert_eq!(ledger.requests_of(Operation::CreateCharge).len(), 2);
        let left = ledger.charges.iter().filter(|charge| matches!(charge.state.as_str(), "Captured" | "Authorized"));
        assert_eq!(left.count(), 0, "{reading:?}");
    }
}

#[tokio::test]
async fn wrong_usage_is_told_with_two_and_a_live_account_is_never_charged_for_a_check() {
    let output = run(&mut program(&["check"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("error: AMAZON_PAY_REGION: is not set"));
    let world = World::new().await;
    let live = |command: &mut std::process::Command| {
        let output = run(command.env("AMAZON_PAY_PUBLIC_KEY_ID", "LIVE-AAAA").env_remove("AMAZON_PAY_API_BASE_URL"));
        (output.status.code(), text(&output.stderr))
    };
    let mut command = world.environment.program(&["check", "--sandbox-charge", "C01-0000000-0000000"]);
    let (code, told) = live(command.env_remove("SNS_CERTIFICATE_BASE_URL"));
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("this is a live environment"), "{told}");
    let mut command = world.environment.program(&["check", "--offline", "--sandbox-charge", "C01-0000000-0000000"]);
    assert_eq!(run(&mut command).status.code(), Some(2), "it cannot charge and ask nothing");
}

#[tokio::test]
async fn a_topic_that_does_not_fit_the_region_or_the_merchant_is_warned_of_and_refuses_nothing() {
    let mut world = World::new().await;
    let topic = world.sandbox.topic_arn().to_owned();
    world.environment.set("AMAZON_PAY_REGION", "eu".to_owned());
    let expected = [one("topics-region", "warning"), one("update-link", "warning")].concat();
    let report = world.check(&["--offline"]);
    assert_eq!((report.code, report.bad()), (Some(0), expected));
    assert!(report.body.to_string().contains(&topic), "the topic is named");

    world.environment.set("AMAZON_PAY_REGION", "jp".to_owned());
    assert_eq!(world.check(&["--offline"]).bad(), one("topics-region", "unknown"), "of Japan nothing is published");

    world.environment.set("AMAZON_PAY_REGION", "na".to_owned());
    let foreign = "arn:aws:sns:us-east-1:123456789012:SomebodyElse";
    world.environment.set("SNS_TOPIC_ARNS", format!("{topic},{foreign},{topic}"));
    let report = world.check(&["--offline"]);
    let expected = ["topics-merchant", "topics-account", "topics-repeated"].map(|check| one(check, "warning")).concat();
    assert_eq!((report.code, report.bad()), (Some(0), expected));
}
