//! TLS to Redis and Redis users with as few permissions as possible, against a real redis-server.

use std::collections::BTreeSet;
use std::path::Path;

use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::model::ids::{Account, Environment as Kind, Region};
use amazon_pay_ipn::sandbox::redis_server::RedisServer;
use amazon_pay_ipn::sandbox::{
    DeclineCode, Fault, Forgery, NotificationType, ObjectType, Operation, Outcome, Sandbox, SandboxSettings,
    SignatureVersion,
};
use amazon_pay_ipn::store::account::Init;
use amazon_pay_ipn::store::{Bounds, Failure, Replicas, Store, StoreError, StoreSettings, TlsSettings};
use rcgen::date_time_ymd;

use crate::process::{Environment, Served, program, run, text};
use crate::support::servers::{self, Authority, Sentinels, Server, ask};
use crate::support::{HOUR, Options, TestApp, X};

const PASSWORD: &str = "p@ss/w#rd:of+the%user";
const ENCODED: &str = "p%40ss%2Fw%23rd%3Aof%2Bthe%25user";

// --- TLS -------------------------------------------------------------------------------------------------------------------------

/// Settings of a sandbox account; no service runs.
struct World {
    environment: Environment,
}

impl World {
    async fn on(server: &Server) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sandbox = Sandbox::start(SandboxSettings::new(Clock::system())).await.expect("the sandbox");
        Self { environment: Environment::at(server.redis.url(), &sandbox) }
    }

    /// Exit status of `init --first` and what it said.
    fn init(&self, url: &str, more: &[(&str, &str)]) -> (Option<i32>, String) {
        self.command(&["init", "--first"], url, more)
    }

    fn command(&self, command: &[&str], url: &str, more: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut program = self.environment.program(command);
        let output = run(program.env("REDIS_URL", url).envs(more.iter().copied()));
        (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    }
}

#[tokio::test]
async fn a_private_ca_is_believed_instead_of_the_systems_and_the_service_charges_over_tls() {
    let authority = Authority::new();
    authority.issue("redis", "localhost", |_| {});
    let server = authority.serve("redis", &[]);
    let tls = TlsSettings { ca_pem: Some(authority.read("ca.pem")), identity: None };
    let url = server.tls();
    let mut app =
        TestApp::on(server.redis, Options { redis_url: Some(url), redis_tls: Some(tls), ..Options::default() }).await;
    let permission = app.permission();
    app.submit("over-tls", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("over-tls").await, "captured");
    app.crash_redis().await;
    assert_eq!(app.state("over-tls").await, "captured", "a lost connection is made again, over TLS too");
    app.finish().await;
}

#[tokio::test]
async fn the_systems_roots_are_believed_where_no_ca_is_set() {
    let authority = Authority::new();
    authority.issue("redis", "localhost", |_| {});
    let server = authority.serve("redis", &[]);
    let world = World::on(&server).await;
    // The variable by which the system's roots are found; here they are those of the private CA.
    let (code, told) = world.init(&server.tls(), &[("SSL_CERT_FILE", &authority.path("ca.pem"))]);
    assert_eq!(code, Some(0), "{told}");

    let (code, told) = world.init(&server.tls(), &[("SSL_CERT_FILE", "/nowhere")]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("the system's CA certificates cannot be read"), "{told}");

    let other = Authority::new();
    let both = [("SSL_CERT_FILE", authority.path("ca.pem")), ("REDIS_CA_FILE", other.path("ca.pem"))];
    let both = [(both[0].0, both[0].1.as_str()), (both[1].0, both[1].1.as_str())];
    let (code, told) = world.init(&server.tls(), &both);
    assert_eq!(code, Some(1), "the CA that is set counts alone: {told}");
    assert!(told.contains("no CA of REDIS_CA_FILE"), "{told}");
}

#[tokio::test]
async fn a_certificate_that_is_not_right_is_refused_with_the_reason() {
    let authority = Authority::new();
    authority.issue("redis", "localhost", |_| {});
    authority.issue("expired", "localhost", |leaf| {
        leaf.not_before = date_time_ymd(2020, 1, 1);
        leaf.not_after = date_time_ymd(2021, 1, 1);
    });
    authority.issue("future", "localhost", |leaf| {
        leaf.not_before = date_time_ymd(2090, 1, 1);
        leaf.not_after = date_time_ymd(2091, 1, 1);
    });
    let ca = authority.path("ca.pem");
    let good = authority.serve("redis", &[]);
    let (expired, future) = (authority.serve("expired", &[]), authority.serve("future", &[]));
    let plain = Server::start("--port", &[]);
    let world = World::on(&good).await;
    let secret = |server: &Server, host: &str| format!("rediss://a-user:{ENCODED}@{host}:{}", server.port);
    let own = Some(ca.as_str());
    let cases = [
        (secret(&good, "localhost"), None, "no CA of REDIS_CA_FILE (without it: of the system's roots) issued it"),
        (secret(&good, "127.0.0.1"), own, "it is for another host than REDIS_URL names"),
        (secret(&expired, "localhost"), own, "it has expired"),
        (secret(&future, "localhost"), own, "certificate not valid yet"),
        (secret(&plain, "localhost"), own, "perhaps the port of REDIS_URL does not speak TLS"),
        (format!("redis://localhost:{}", good.port), None, "perhaps the port of REDIS_URL speaks TLS only"),
    ];
    for (url, ca, expected) in cases {
        let more: Vec<(&str, &str)> = ca.iter().map(|ca| ("REDIS_CA_FILE", *ca)).collect();
        for command in [["init", "--first"].as_slice(), &["serve"]] {
            let (code, told) = world.command(command, &url, &more);
            assert_eq!(code, Some(1), "{expected}: {told}");
            assert!(told.contains(expected), "{expected}: {told}");
            assert!(!told.contains(PASSWORD) && !told.contains(ENCODED), "{told}");
        }
    }
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_one() {
    let authority = Authority::new();
    authority.issue("redis", "localhost", |_| {});
    authority.issue("service", "amazon-pay-ipn", |_| {});
    let stranger = Authority::new();
    stranger.issue("service", "amazon-pay-ipn", |_| {});
    let server = authority.serve("redis", &["--tls-auth-clients", "yes"]);
    let world = World::on(&server).await;
    let ca = authority.path("ca.pem");
    let shown = |authority: &Authority| [authority.path("service.pem"), authority.path("service.key")];
    let init = |files: Option<[String; 2]>| {
        let mut more = vec![("REDIS_CA_FILE", ca.as_str())];
        if let Some([certificate, key]) = &files {
            more.extend([("REDIS_CLIENT_CERTIFICATE_FILE", certificate.as_str()), ("REDIS_CLIENT_KEY_FILE", key)]);
        }
        world.init(&server.tls(), &more)
    };
    for files in [None, Some(shown(&stranger))] {
        let (code, told) = init(files);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("REDIS_CLIENT_CERTIFICATE_FILE"), "{told}");
    }
    let (code, told) = init(Some(shown(&authority)));
    assert_eq!(code, Some(0), "{told}");
}

#[tokio::test]
async fn tls_1_2_is_spoken_and_nothing_older() {
    let authority = Authority::new();
    authority.issue("redis", "localhost", |_| {});
    let ca = authority.path("ca.pem");
    let server = authority.serve("redis", &["--tls-protocols", "TLSv1.2"]);
    let world = World::on(&server).await;
    let (code, told) = world.init(&server.tls(), &[("REDIS_CA_FILE", &ca)]);
    assert_eq!(code, Some(0), "{told}");
    let old = authority.serve("redis", &["--tls-protocols", "TLSv1.1", "--tls-ciphers", "DEFAULT:@SECLEVEL=0"]);
    let (code, told) = world.init(&old.tls(), &[("REDIS_CA_FILE", &ca)]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("TLS version"), "{told}");
}

/// A process of its own: in this one some test has installed a provider.
#[test]
fn who_uses_the_library_needs_not_install_a_crypto_provider() {
    let inner = "redis_security::tls_in_a_process_without_a_provider";
    let tests = std::env::current_exe().expect("this program");
    let output = run(std::process::Command::new(tests).args(["--exact", inner, "--ignored"]));
    let told = text(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

#[tokio::test]
#[ignore = "run in a process of its own by who_uses_the_library_needs_not_install_a_crypto_provider"]
async fn tls_in_a_process_without_a_provider() {
    let authority = Authority::new();
    authority.issue("redis", "localhost", |_| {});
    let server = authority.serve("redis", &[]);
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    let account = Account { merchant: "A1".parse().expect("an id"), environment: Kind::Sandbox, region: Region::Eu };
    let settings = store_settings(server.tls(), TlsSettings { ca_pem: Some(authority.read("ca.pem")), identity: None });
    let store = Store::connect(settings, account, Clock::system()).expect("a store");
    let error = store.account().await.expect_err("it is empty");
    assert!(matches!(error, StoreError::NoMarker), "{error}");
}

fn store_settings(url: String, tls: TlsSettings) -> StoreSettings {
    StoreSettings {
        url: url.into(),
        tls,
        replicas: amazon_pay_ipn::store::Replicas::default(),
        key_prefix: "test".to_owned(),
        dedupe_ttl: HOUR,
        journal_retention: HOUR,
        event_retention: HOUR,
        event_retention_limit: HOUR,
        intent_retention: HOUR,
        confirmation_delay: X,
        lease: HOUR,
        bounds: Bounds::default(),
        quota: crate::support::PLENTY,
    }
}

#[tokio::test]
async fn an_unencrypted_way_to_another_host_is_warned_of_in_live_without_the_password() {
    let plain = Server::start("--port", &[]);
    let world = World::on(&plain).await;
    let live = |url: &str| {
        let mut command = world.environment.program(&["serve"]);
        let command = command.env_remove("AMAZON_PAY_API_BASE_URL").env("AMAZON_PAY_PUBLIC_KEY_ID", "LIVE-AAAA");
        let output = run(command.env("REDIS_URL", url));
        format!("{}{}", text(&output.stdout), text(&output.stderr))
    };
    // No such host: it fails, but the warning comes first.
    let told = live(&format!("redis://a-user:{ENCODED}@redis.invalid:6379"));
    assert!(told.contains("unencrypted") && told.contains("redis.invalid"), "{told}");
    assert!(!told.contains(PASSWORD) && !told.contains(ENCODED), "{told}");
    for url in [plain.redis.url(), format!("redis://127.0.0.1:{}", plain.port)] {
        let told = live(&url);
        assert!(told.contains("no marker") && !told.contains("unencrypted"), "{told}");
    }
}

// --- Users -----------------------------------------------------------------------------------------------------------------------

/// The `ACL SETUSER` lines of the document, in its order, for the account and the prefix of the tests.
fn documented() -> Vec<Vec<String>> {
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/REDIS.md")).expect("it");
    let lines: Vec<String> = document
        .split("```acl\n")
        .skip(1)
        .filter_map(|block| block.split("\n```").next())
        .map(|line| line.replace("PASSWORD", PASSWORD))
        .collect();
    assert!(lines.iter().all(|line| line.starts_with("ACL SETUSER ") && !line.contains('\n')), "{lines:?}");
    lines.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

const CLUSTER: usize = 0;
const WAIT: usize = 1;
const SERVICE: usize = 2;
const SCAN: usize = 3;
const NO_SCAN: usize = 4;
const CONSUMER: usize = 5;

/// The server's default user, who may do everything, over the server's socket.
struct Admin(redis::aio::MultiplexedConnection);

impl Admin {
    async fn of(redis: &RedisServer) -> Self {
        Self(servers::connected(&redis.url()).await)
    }

    async fn run<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let result = call(&mut self.0, words).await;
        redis::from_redis_value(result.expect("the default user may do everything")).expect("the type asked for")
    }

    /// Applies a line of the document to the account of these keys.
    async fn apply(&mut self, line: usize, keys: &str) {
        self.apply_without(line, keys, "").await;
    }

    async fn apply_without(&mut self, line: usize, keys: &str, left_out: &str) {
        let words = documented().swap_remove(line);
        let base = keys.trim_end_matches("marker");
        let words: Vec<String> = words
            .iter()
            .filter(|word| *word != left_out)
            .map(|word| word.replace("amazon-pay:{live:A2K7NDRCTOTPW9}:", base))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let () = self.run(&words).await;
    }
}

async fn call(connection: &mut redis::aio::MultiplexedConnection, words: &[&str]) -> redis::RedisResult<redis::Value> {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(connection).await
}

fn url_of(server: &Server, user: &str) -> String {
    format!("redis://{user}:{ENCODED}@127.0.0.1:{}", server.port)
}

/// The marker's key of the sandbox account of the harness.
async fn marker() -> String {
    let sandbox = Sandbox::start(SandboxSettings::new(Clock::system())).await.expect("the sandbox");
    format!("test:{{sandbox:{}}}:marker", sandbox.merchant_id())
}

/// The service on a plain port under the user of the document.
async fn restricted() -> (TestApp, String, Admin) {
    let server = Server::start("--port", &[]);
    let marker = marker().await;
    let mut admin = Admin::of(&server.redis).await;
    admin.apply(SERVICE, &marker).await;
    admin.apply(CONSUMER, &marker).await;
    let () = admin.run(&["ACL", "LOG", "RESET"]).await;
    let port = server.port;
    let url = url_of(&server, "ipn-service");
    let app = TestApp::on(server.redis, Options { redis_url: Some(url), ..Options::default() }).await;
    assert_eq!(app.store.keys().marker(), marker);
    (app, format!("redis://ipn-billing:{ENCODED}@127.0.0.1:{port}"), admin)
}

#[tokio::test]
async fn the_documented_permissions_are_enough_for_everything_the_service_does() {
    let (mut app, consumer, mut admin) = restricted().await;
    // A notification that names a permission, and one of another merchant.
    let permission = app.permission();
    app.tell_of((ObjectType::ChargePermission, &permission), &permission).await;
    app.run_due().await;
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let foreign = app.sandbox.forge(&ipn, Forgery::ForeignMerchant).expect("a message");
    assert_eq!(app.post_ipn(&foreign.body, &foreign.headers).await, 200);
    assert_eq!(app.quarantine().await.len(), 1);

    // Charges: at once, after a decline, canceled while it waits, under the stop switch, with an answer that is lost.
    app.submit("plain", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("plain").await, "captured");
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("declined", &permission).await;
    app.run_due().await;
    app.pass(48 * HOUR, HOUR).await;
    assert_eq!(app.state("declined").await, "captured");
    assert_eq!(app.post("/v1/stop", &serde_json::json!({})).await.status, 200);
    app.submit("canceled", &permission).await;
    app.run_due().await;
    assert_eq!(app.delete("/v1/charges/canceled").await.status, 200);
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    app.submit("lost-answer", &permission).await;
    app.run_due().await;
    app.pass(2 * X, HOUR / 4).await;
    assert_eq!(app.state("lost-answer").await, "captured");
    app.deliver_all().await;
    app.run_due().await;
    app.sandbox.buyer_closes(&permission).expect("a permission");
    app.deliver_all().await;
    app.run_due().await;

    // The rest of what `serve` does.
    assert_eq!(app.get("/readyz").await.status, 200);
    let metrics = app.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    app.store.levels().await.expect("levels for the metrics");
    app.store.trim_events().await.expect("housekeeping");
    app.restart().await;

    // Scripts that the server forgot are loaded again.
    let () = admin.run(&["SCRIPT", "FLUSH"]).await;
    let another = app.permission();
    app.submit("after-flush", &another).await;
    app.run_due().await;
    assert_eq!(app.state("after-flush").await, "captured");

    // A consumer, under a user of its own.
    let events = app.store.keys().events();
    let () = admin.run(&["XGROUP", "CREATE", &events, "billing", "0"]).await;
    let settings = StoreSettings { url: consumer.clone().into(), ..app.settings.store.clone() };
    let reader = Store::connect(settings, app.settings.account.clone(), app.clock.clone()).expect("a store");
    let got = reader.read_group("billing", "worker-1", 100, HOUR).await.expect("events");
    assert!(got.len() > 5, "{got:?}");
    reader.acknowledge("billing", &[&got[0].entry]).await.expect("an acknowledgement");
    let mut connection = servers::connected(&consumer).await;
    let taken = call(&mut connection, &["XAUTOCLAIM", &events, "billing", "worker-2", "0", "0", "COUNT", "1"]).await;
    assert!(format!("{taken:?}").contains(&got[1].entry), "{taken:?}");

    // Nothing was refused on the way but reading the server's own settings.
    assert_eq!(refusals(&mut admin).await, names(&["config|get"]));
    app.finish().await;
}

/// What the server refused, by `ACL LOG`.
async fn refusals(admin: &mut Admin) -> BTreeSet<String> {
    let log: Vec<std::collections::HashMap<String, redis::Value>> = admin.run(&["ACL", "LOG"]).await;
    log.iter().map(|entry| redis::from_redis_value(entry["object"].clone()).expect("a text")).collect()
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn the_documented_users_can_do_nothing_else() {
    let (app, consumer, mut admin) = restricted().await;
    let marker = app.store.keys().marker();
    let events = app.store.keys().events();
    let () = admin.run(&["XGROUP", "CREATE", &events, "billing", "0", "MKSTREAM"]).await;
    let service = consumer.replace("ipn-billing", "ipn-service");
    let outside = "test:{sandbox:ANOTHER}:marker";
    let cases: &[(&str, &[&str])] = &[
        (&service, &["HGETALL", outside]),
        (&service, &["HSET", outside, "x", "x"]),
        (&service, &["SET", "x", "x"]),
        (&service, &["EVALSHA", "x", "1", outside]),
        (&service, &["FLUSHALL"]),
        (&service, &["FLUSHDB"]),
        (&service, &["KEYS", "*"]),
        (&service, &["SCAN", "0"]),
        (&service, &["CONFIG", "SET", "appendonly", "no"]),
        (&service, &["CONFIG", "GET", "requirepass"]),
        (&service, &["DEL", &marker]),
        (&service, &["RENAME", &marker, &events]),
        (&service, &["EVAL", "return 1", "0"]),
        (&service, &["SCRIPT", "FLUSH"]),
        (&service, &["ACL", "LIST"]),
        (&service, &["SHUTDOWN"]),
        (&service, &["MONITOR"]),
        (&consumer, &["XADD", &events, "*", "x", "x"]),
        (&consumer, &["XDEL", &events, "0-1"]),
        (&consumer, &["XTRIM", &events, "MAXLEN", "0"]),
        (&consumer, &["DEL", &events]),
        (&consumer, &["XGROUP", "DESTROY", &events, "billing"]),
        (&consumer, &["HSET", &marker, "x", "x"]),
        (&consumer, &["HGETALL", &marker]),
        (&consumer, &["XACK", &app.store.keys().journal(), "billing", "0-1"]),
        (&consumer, &["XREADGROUP", "GROUP", "a", "b", "STREAMS", &app.store.keys().journal(), ">"]),
        (&consumer, &["EVALSHA", "x", "0"]),
        (&consumer, &["SCRIPT", "LOAD", "return 1"]),
        (&consumer, &["FLUSHALL"]),
    ];
    for (url, words) in cases {
        let answer = call(&mut servers::connected(url).await, words).await;
        let refused = answer.as_ref().err().and_then(redis::RedisError::code) == Some("NOPERM");
        assert!(refused, "{words:?}: {answer:?}");
    }
    // A script, too, reaches only what its caller may: the marker is there, and stays.
    let mut connection = servers::connected(&service).await;
    for body in ["return redis.call('DEL', KEYS[1])", "return redis.call('GET', 'x')"] {
        let sha = call(&mut connection, &["SCRIPT", "LOAD", body]).await.expect("a script may be loaded");
        let sha: String = redis::from_redis_value(sha).expect("a hash");
        let answer = call(&mut connection, &["EVALSHA", &sha, "1", &marker]).await;
        // As Redis 7.0 says it, and as later ones and Valkey do.
        let told = format!("{answer:?}");
        assert!(told.contains("The user executing the script") || told.contains("ACL failure in script"), "{told}");
    }
    assert!(app.store.account().await.is_ok());
    app.finish().await;
}

#[tokio::test]
async fn recovery_after_a_loss_needs_scan_and_says_so() {
    let (mut app, _, mut admin) = restricted().await;
    let marker = app.store.keys().marker();
    app.submit("open", &app.permission()).await;
    let error = app.store.check_access(Some(Init::AfterRestore)).await.expect_err("SCAN is not permitted");
    assert!(error.to_string().contains("may not: run +scan; docs/REDIS.md"), "{error}");
    admin.apply(SCAN, &marker).await;
    app.store.check_access(Some(Init::AfterRestore)).await.expect("now it is");
    let () = admin.run(&["ACL", "LOG", "RESET"]).await;
    app.store.init(Init::AfterRestore).await.expect("init");
    assert_eq!(app.state("open").await, "held");
    app.store.init(Init::EndRecovery).await.expect("init");
    assert_eq!(refusals(&mut admin).await, BTreeSet::new());
    admin.apply(NO_SCAN, &marker).await;
    assert!(app.store.check_access(Some(Init::AfterRestore)).await.is_err());
    app.restart().await;
    app.finish().await;
}

#[tokio::test]
async fn waiting_for_replicas_needs_a_permission_more_and_says_so() {
    let (app, _, mut admin) = restricted().await;
    let replicas = Replicas { wait_for: 1, ..Replicas::default() };
    let settings = StoreSettings { replicas, ..app.settings.store.clone() };
    let store = Store::connect(settings, app.settings.account.clone(), app.clock.clone()).expect("a store");
    let error = store.check_access(None).await.expect_err("WAIT is not permitted").to_string();
    assert!(error.contains("may not: run +wait; docs/REDIS.md"), "{error}");
    admin.apply(WAIT, &app.store.keys().marker()).await;
    store.check_access(None).await.expect("as documented");
    app.finish().await;
}

/// Everything that has a script, as one charge.
async fn charges(app: &TestApp) {
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
}

#[tokio::test]
async fn on_a_cluster_the_user_needs_to_find_its_node_and_says_so() {
    let server = Server::cluster_of_one("--port", &[]);
    let marker = marker().await;
    let mut admin = Admin::of(&server.redis).await;
    admin.apply(SERVICE, &marker).await;
    let url = url_of(&server, "ipn-service").replace("redis://", "redis-cluster://");
    let store = Store::connect(store_settings(url.clone(), TlsSettings::default()), account(&marker), Clock::system());
    let error = store.expect("a store").check_access(None).await.expect_err("CLUSTER is not permitted").to_string();
    assert!(error.contains("lacks a permission") && error.contains("cluster|keyslot"), "{error}");
    admin.apply(CLUSTER, &marker).await;
    let app = TestApp::on(server.redis, Options { redis_url: Some(url), ..Options::default() }).await;
    charges(&app).await;
    app.finish().await;
}

fn account(marker: &str) -> Account {
    let merchant = marker.split([':', '}']).nth(2).expect("a merchant").parse().expect("an id");
    Account { merchant, environment: Kind::Sandbox, region: Region::Na }
}

#[tokio::test]
async fn a_cluster_is_reached_over_tls_alone() {
    let authority = Authority::new();
    authority.issue("node", "127.0.0.1", |_| {});
    let settings = authority.settings("node");
    let settings: Vec<&str> = settings.iter().map(String::as_str).chain(["--tls-cluster", "yes"]).collect();
    let server = Server::cluster_of_one("--tls-port", &settings);
    let tls = TlsSettings { ca_pem: Some(authority.read("ca.pem")), identity: None };
    let url = format!("rediss-cluster://127.0.0.1:{}", server.port);
    let stranger = TlsSettings { ca_pem: Some(Authority::new().read("ca.pem")), identity: None };
    let store = Store::connect(store_settings(url.clone(), stranger), account(&marker().await), Clock::system());
    let error = store.expect("a store").account().await.expect_err("another CA").to_string();
    assert!(error.contains("no CA of REDIS_CA_FILE"), "{error}");
    let app =
        TestApp::on(server.redis, Options { redis_url: Some(url), redis_tls: Some(tls), ..Options::default() }).await;
    charges(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn sentinels_have_a_password_of_their_own_and_the_primary_its_users() {
    let sentinels = Sentinels::start("requirepass of-the-sentinels");
    let server = Server::start("--port", &[]);
    let mut admin = Admin::of(&server.redis).await;
    let marker = marker().await;
    admin.apply(SERVICE, &marker).await;
    for port in &sentinels.ports {
        let url = format!("redis://:of-the-sentinels@127.0.0.1:{port}");
        let watch = ["SENTINEL", "MONITOR", "primary", "127.0.0.1", &server.port.to_string(), "2"];
        let () = ask(&url, &watch).expect("it watches");
    }
    let hosts: Vec<String> = sentinels.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let url = format!("redis-sentinel://ipn-service:{ENCODED}@{}/primary", hosts.join(","));
    let store = Store::connect(store_settings(url.clone(), TlsSettings::default()), account(&marker), Clock::system());
    let error = store.expect("a store").account().await.expect_err("the Sentinels want a password");
    assert_eq!(error.failure(), Some(Failure::Authentication), "{error}");
    let url = format!("{url}?sentinel_password=of-the-sentinels");
    let app = TestApp::on(server.redis, Options { redis_url: Some(url), ..Options::default() }).await;
    charges(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn each_permission_of_the_document_is_needed_and_is_named_at_the_start_when_it_is_missing() {
    let (app, _, mut admin) = restricted().await;
    let marker = app.store.keys().marker();
    let line = documented().swap_remove(SERVICE);
    let rules: Vec<&String> = line.iter().filter(|word| word.starts_with('+')).collect();
    assert!(rules.len() > 20, "{line:?}");
    for rule in &rules {
        admin.apply_without(SERVICE, &marker, rule).await;
        let error = app.store.check_access(None).await.expect_err(rule).to_string();
        let named = error.contains(&format!("may not: run {rule}; docs/REDIS.md"));
        // Without these nothing can be asked: the server itself names them.
        let by_server = ["+ping", "+evalsha", "+script|load"].contains(&rule.as_str())
            && error.contains(&format!("'{}'", &rule[1..]))
            && error.contains("lacks a permission");
        assert!(named || by_server, "{rule}: {error}");
    }
    admin.apply(SERVICE, &marker.replace("sandbox", "live")).await;
    let error = app.store.check_access(None).await.expect_err("another pattern").to_string();
    let all = format!("may not: use the keys {}*; docs/REDIS.md", marker.trim_end_matches("marker"));
    assert!(error.contains(&all), "{error}");
    // Only one of the keys, and a command beside it.
    admin.apply_without(SERVICE, &marker, "+hset").await;
    let () = admin.run(&["ACL", "SETUSER", "ipn-service", "resetkeys", &format!("~{marker}")]).await;
    let error = app.store.check_access(None).await.expect_err("most keys are missing").to_string();
    let events = app.store.keys().events();
    assert!(error.contains(&format!("use the key {events}")) && !error.contains(&marker), "{error}");
    assert!(error.contains("run +hset") && !error.contains("+hget"), "{error}");
    admin.apply(SERVICE, &marker).await;
    app.store.check_access(None).await.expect("as documented");
    app.finish().await;
}

#[test]
fn every_command_of_the_scripts_is_in_the_documented_line() {
    let line = documented().swap_remove(SERVICE);
    let documented: BTreeSet<String> =
        line.iter().filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect();
    let mut called = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/lua");
    let entries = [folder.clone(), folder.join("parts")].map(|folder| std::fs::read_dir(folder).expect("the scripts"));
    let paths = entries.into_iter().flatten().map(|entry| entry.expect("a file").path());
    for path in paths.filter(|path| path.is_file()) {
        let script = std::fs::read_to_string(path).expect("a script");
        for kind in ["redis.call(", "redis.pcall("] {
            for rest in script.split(kind).skip(1) {
                let name = rest.strip_prefix('\'').and_then(|rest| rest.split('\'').next());
                called.insert(name.expect("a command is written out, so that it can be found here").to_lowercase());
            }
        }
    }
    assert!(called.len() > 15, "the commands were not found: {called:?}");
    let missing: Vec<_> = called.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/REDIS.md and src/store/access.rs lack {missing:?}");
    // What is left is called from Rust.
    let rust = names(&["ping", "evalsha", "script|load", "zcount", "zrank", "xpending"]);
    assert_eq!(documented.difference(&called).cloned().collect::<BTreeSet<_>>(), rust);
}

#[tokio::test]
async fn who_is_not_let_in_is_told_which_setting_is_wrong_and_never_sees_the_password() {
    let server = Server::start("--port", &[]);
    let mut world = World::on(&server).await;
    let mut admin = Admin::of(&server.redis).await;
    let marker = marker().await.replace("test:", "amazon-pay:");
    admin.apply(SERVICE, &marker).await;
    let good = url_of(&server, "ipn-service");
    let (code, told) = world.init(&good, &[]);
    assert_eq!(code, Some(0), "{told}");
    let wrong = "refuses the user or the password of REDIS_URL (WRONGPASS)".to_owned();
    let cases = [
        (good.replace("of%2Bthe", "of-the"), &[][..], wrong.as_str()),
        (url_of(&server, "nobody"), &[], &wrong),
        (format!("{good}/1"), &[], "refuses the database that REDIS_URL names"),
        (good.clone(), &[("KEY_PREFIX", "other")], "may not: use the keys other:{sandbox:"),
    ];
    for (url, more, expected) in cases {
        for command in [["init", "--first"].as_slice(), &["serve"]] {
            let (code, told) = world.command(command, &url, more);
            assert_eq!(code, Some(1), "{told}");
            assert!(told.contains(expected), "{expected}: {told}");
            let password = url.split('@').next().and_then(|url| url.rsplit(':').next()).expect("a password");
            assert!(!told.contains(PASSWORD) && !told.contains(password), "{told}");
        }
    }
    let () = admin.run(&["ACL", "SETUSER", "default", "resetpass", ">x"]).await;
    let (code, told) = world.init(&format!("redis://127.0.0.1:{}", server.port), &[]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("Redis wants a user and a password that REDIS_URL does not have"), "{told}");
    world.environment.set("REDIS_URL", good);
    let mut running = Served::start(&world.environment);
    assert!(running.is_running(), "with the right user it serves");
}

#[tokio::test]
async fn a_permission_taken_away_while_running_is_503_and_given_back_needs_no_restart() {
    let (app, _, mut admin) = restricted().await;
    let marker = app.store.keys().marker();
    let permission = app.permission();
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let message = app.sandbox.sign(&ipn, SignatureVersion::V1);
    for left_out in ["+evalsha", "+set", "on"] {
        admin.apply_without(SERVICE, &marker, left_out).await;
        if left_out == "on" {
            // Who is off stays connected: the next connection is refused.
            let () = admin.run(&["CLIENT", "KILL", "USER", "ipn-service"]).await;
        }
        for _ in 0..3 {
            assert_eq!(app.post_ipn(&message.body, &message.headers).await, 503, "without {left_out}");
        }
        assert_eq!(app.get("/readyz").await.status, if left_out == "on" { 503 } else { 200 });
        admin.apply(SERVICE, &marker).await;
        if left_out == "on" {
            let answers = [app.get("/readyz").await.status, app.get("/readyz").await.status];
            assert_eq!(answers[1], 200, "a user that is let in again is found without a restart: {answers:?}");
        }
    }
    // Not the caller is refused here, but its script, in the words of Redis 7.0 or of later servers.
    admin.apply_without(SERVICE, &marker, "+hget").await;
    let error = app.store.set_stop(true).await.expect_err("HGET is not permitted");
    assert_eq!(error.failure(), Some(Failure::Forbidden), "{error}");
    assert!(error.to_string().contains("lacks a permission"), "{error}");
    admin.apply(SERVICE, &marker).await;
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200, "the redelivery is accepted");
    // Without SET the script stopped after the journal, three times; the notification counts once, because SET comes last.
    assert_eq!(app.journal().await.len(), 4);
    app.run_due().await;
    assert_eq!(app.ledger().requests_of(Operation::GetChargePermission).len(), 1);
    app.finish().await;
}

// --- Secrets ---------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn no_text_of_the_store_shows_the_password() {
    let account = Account { merchant: "A1".parse().expect("an id"), environment: Kind::Live, region: Region::Eu };
    let server = Server::start("--port", &[]);
    let app = TestApp::on(RedisServer::start().expect("a private Redis"), Options::default()).await;
    let closed = format!("redis://a-user:{ENCODED}@127.0.0.1:1/");
    let refused = url_of(&server, "nobody");
    for url in [closed, refused, format!("rediss://u:{ENCODED}@localhost:{}/3", server.port)] {
        let settings = StoreSettings { url: url.into(), ..app.settings.store.clone() };
        let store = Store::connect(settings.clone(), account.clone(), app.clock.clone()).expect("a store");
        let error = store.account().await.expect_err("nobody lets us in");
        let shown = [
            format!("{settings:?} {settings:#?}"),
            format!("{store:?} {store:#?}"),
            format!("{error} {error:?} {error:#?}"),
            format!("{:#} {:?}", anyhow_of(error), store),
        ];
        for text in shown {
            for secret in [PASSWORD, ENCODED] {
                assert!(!text.contains(secret), "{text}");
            }
        }
    }
    let settings = StoreSettings { url: format!("redis://u:{ENCODED}@host:port").into(), ..app.settings.store.clone() };
    let error = Store::connect(settings, account, app.clock.clone()).expect_err("not a URL");
    assert!(!format!("{error} {error:?}").contains(ENCODED), "{error:?}");
    app.finish().await;
    // What the program says of a wrong URL.
    let output = run(program(&["serve"]).env("REDIS_URL", format!("redis://u:{ENCODED}@host:port")));
    let told = text(&output.stderr);
    assert!(told.contains("REDIS_URL: expected redis://") && !told.contains(ENCODED), "{told}");
}

/// As the composition root passes it on.
fn anyhow_of(error: StoreError) -> anyhow::Error {
    anyhow::Error::from(error).context("REDIS")
}
