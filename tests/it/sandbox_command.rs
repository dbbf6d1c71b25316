//! `sandbox` as another team meets it: the real program, spoken to over HTTP alone, with a real `serve` beside it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Environment, Served, ended, processes_of, program, run, signal, text, until};

/// A running `sandbox`; killed if the test does not end it.
struct Stand {
    child: Child,
    said: Arc<Mutex<String>>,
    folder: PathBuf,
    http: reqwest::Client,
    control: String,
}

impl Stand {
    async fn start(place: &Path, more: &[&str]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = place.join("sandbox");
        let name = folder.display().to_string();
        let arguments = [&["sandbox", "--directory", &name], more].concat();
        let mut command = program(&arguments);
        command.env("SANDBOX_LISTEN", "127.0.0.1:0").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let said = Arc::new(Mutex::new(String::new()));
        let (out, kept) = (child.stdout.take().expect("standard output"), Arc::clone(&said));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let mut said = kept.lock().unwrap_or_else(PoisonError::into_inner);
                said.push_str(&line);
                said.push('\n');
            }
        });
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().expect("a client");
        let mut stand = Self { child, said, folder, http, control: String::new() };
        stand.hears("\nready\n").await;
        stand.control = stand.fact("controlUrl");
        stand
    }

    fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn hears(&self, what: &str) {
        until(what, || self.said().contains(what)).await;
    }

    fn fact(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.folder.join("sandbox.json")).expect("the facts");
        let facts: Value = serde_json::from_str(&text).expect("JSON");
        facts[name].as_str().unwrap_or_else(|| panic!("{name} in {facts}")).to_owned()
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let body = answer.text().await.expect("a body");
        assert!(status.is_success(), "{status}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.call(self.http.post(format!("{}/{path}", self.control)).body(body.to_string())).await
    }

    async fn get(&self, path: &str) -> Value {
        self.call(self.http.get(format!("{}/{path}", self.control))).await
    }

    async fn stopped(mut self) -> Option<i32> {
        signal("TERM", self.child.id());
        ended(&mut self.child).await.code()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every address of 127.0.0.0/8 is this host: one for each service, so that no two meet at one port.
fn own_address() -> String {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{}.{}:9180", high.max(1), low, COUNT.fetch_add(1, Ordering::SeqCst))
}

/// The service's internal API, as `curl` would use it.
struct Shop<'a> {
    stand: &'a Stand,
    url: String,
    token: String,
}

impl Shop<'_> {
    async fn submit(&self, id: &str, permission: &str) {
        let body = json!({
            "id": id, "chargePermissionId": permission, "captureNow": true,
            "chargeAmount": { "amount": "14.00", "currencyCode": "USD" },
        });
        let request = self.stand.http.post(format!("{}/v1/charges", self.url)).bearer_auth(&self.token);
        self.stand.call(request.header("content-type", "application/json").body(body.to_string())).await;
    }

    async fn comes_to(&self, id: &str, state: &str) {
        for _ in 0..1500 {
            let request = self.stand.http.get(format!("{}/v1/charges/{id}", self.url)).bearer_auth(&self.token);
            if self.stand.call(request).await["state"] == state {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{id} never was {state}: {}", self.stand.said());
    }
}

#[tokio::test]
async fn a_service_with_the_settings_of_the_sandbox_charges_recovers_and_hears_of_everything() {
    let place = TempDir::new().expect("a folder");
    let address = own_address();
    let notify = format!("http://{address}/ipn");
    let stand = Stand::start(place.path(), &["--with-redis", "--notify", &notify]).await;
    let mut environment = Environment::read(&stand.folder.join("service.env"));
    assert_eq!(environment.value("LISTEN_ADDR"), address, "where --notify posts");
    environment.set("INTERNAL_LISTEN_ADDR", "127.0.0.1:0".to_owned());
    let output = run(&mut environment.program(&["init", "--first"]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mut served = Served::start(&environment);
    let token = std::fs::read_to_string(environment.value("INTERNAL_API_TOKEN_FILE")).expect("the token");
    let shop = Shop { stand: &stand, url: format!("http://{}", served.internal), token: token.trim().to_owned() };

    let made = stand.post("permissions", json!({})).await;
    let permission = made["chargePermissionId"].as_str().expect("an id");
    shop.submit("first", permission).await;
    shop.comes_to("first", "captured").await;
    stand.hears(&format!("IPN CHARGE STATE_CHANGE {permission}-C000001 → 200")).await;

    // The card fails; a day later the buyer gives another.
    stand.post(&format!("permissions/{permission}/next-charges"), json!({ "outcomes": ["HardDeclined"] })).await;
    shop.submit("second", permission).await;
    shop.comes_to("second", "parked").await;
    stand.post("clock", json!({ "advance": "1d" })).await;
    stand.post(&format!("permissions/{permission}/buyer-updates-method"), json!({ "descriptor": "Visa ****2" })).await;
    shop.comes_to("second", "captured").await;
    let charges = stand.get(&format!("ledger?permission={permission}")).await["charges"].clone();
    let states: Vec<&Value> = charges.as_array().expect("charges").iter().map(|charge| &charge["state"]).collect();
    assert_eq!(states, ["Captured", "Declined", "Captured"]);
    let (first, third) = (&charges[0]["creationTimestamp"], &charges[2]["creationTimestamp"]);
    let [first, third] = [first, third].map(|at| at.as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok()));
    let apart = third.expect("a time").duration_since(first.expect("a time"));
    assert_eq!(apart.as_hours(), 24, "one clock for both");

    let charge = charges[2]["chargeId"].as_str().expect("an id");
    let refund = stand.post(&format!("charges/{charge}/refunds"), json!({ "amount": "4.00" })).await;
    stand.hears(&format!("IPN REFUND STATE_CHANGE {} → 200", refund["refundId"].as_str().expect("an id"))).await;
    stand.post(&format!("charges/{charge}/disputes"), json!({ "filingReason": "Fraudulent" })).await;
    stand.hears(&format!("IPN CHARGEBACK STATE_CHANGE {permission}-B000001 → 200")).await;
    stand.post("clock", json!({ "advance": "30s" })).await;
    let settled = stand.get(&format!("ledger?permission={permission}")).await["refunds"][0]["state"].clone();
    assert_eq!(settled, "Refunded", "after --settle-after");

    served.terminate();
    assert_eq!(served.ended().await.code(), Some(0));
    let redis = environment.value("REDIS_URL").trim_start_matches("redis+unix://").to_owned();
    let redis = Path::new(&redis).parent().expect("a folder").to_owned();
    assert!(!processes_of(&redis).is_empty(), "Redis ran until now");
    assert_eq!(stand.stopped().await, Some(0));
    assert_eq!((processes_of(&redis), redis.exists()), (Vec::new(), false), "nothing is left");
}

#[tokio::test]
async fn keys_token_and_clock_outlive_the_sandbox_and_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = TempDir::new().expect("a folder");
    let files = ["private-key.pem", "sns/signing-key.pem", "sns/trust-anchor.pem", "internal-api-token", "clock"];
    let stand = Stand::start(place.path(), &["--reading", "status-first", "--throttle", "live"]).await;
    stand.post("clock", json!({ "advance": "40d" })).await;
    stand.post("permissions", json!({})).await;
    let folder = stand.folder.clone();
    let read = || {
        files.map(|name| std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")))
    };
    let before = read();
    assert_eq!(stand.stopped().await, Some(0));
    let mode = |path: &Path| path.metadata().expect("it exists").permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for name in ["private-key.pem", "sns/signing-key.pem", "internal-api-token", "service.env", "sandbox.json"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
    let again = Stand::start(place.path(), &[]).await;
    assert_eq!(read(), before);
    assert!(again.said().contains("is 40d 0h ahead"), "{}", again.said());
    assert!(again.get("ledger").await["charges"].as_array().expect("charges").is_empty());
    assert_eq!(again.stopped().await, Some(0));
}

#[tokio::test]
async fn a_notification_that_nobody_takes_is_tried_again_a_few_times() {
    let place = TempDir::new().expect("a folder");
    let address = own_address();
    let stand = Stand::start(place.path(), &["--notify", &format!("http://{address}/ipn")]).await;
    let made = stand.post("permissions", json!({})).await;
    let permission = made["chargePermissionId"].as_str().expect("an id");
    stand.post(&format!("permissions/{permission}/buyer-closes"), json!({})).await;
    stand.hears(&format!("{permission} → nobody listens, again in 1s")).await;
    let listener = std::net::TcpListener::bind(&address).expect("the address is free");
    let got = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        std::io::Write::write_all(&mut &stream, b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            .expect("a peer");
        head
    });
    stand.hears(&format!("{permission} → 400: not sent again")).await;
    let head = got.join().expect("no panic");
    assert!(head.iter().any(|line| line.eq_ignore_ascii_case("x-amz-sns-message-type: Notification")), "{head:?}");
    assert!(stand.get("notifications").await.as_array().expect("a list").is_empty());
    assert_eq!(stand.stopped().await, Some(0));
}

#[test]
fn wrong_usage_of_the_sandbox_is_exit_status_2_and_writes_nothing() {
    let place = TempDir::new().expect("a folder");
    std::fs::write(place.path().join("letter"), "dear reader").expect("a file");
    let taken = place.path().display().to_string();
    for (arguments, told) in [
        (&["--directory", &taken][..], "holds something else"),
        (&["--notify", "http://8.8.8.8/ipn"], "--notify: 8.8.8.8 is 8.8.8.8, which is neither loopback nor private"),
        (&["--notify", "https://127.0.0.1/ipn"], "--notify: expected http://"),
        (&["--base-url", "sandbox:9000"], "--base-url: expected for example"),
        (&["--listen", "nowhere"], "--listen"),
        (&["--reading", "backwards"], "replay-all"),
        (&["--region", "mars"], "--region"),
        (&["--directory", "/proc/nowhere"], "/proc/nowhere"),
    ] {
        let mut command = program(&[&["sandbox"], arguments].concat());
        let output = run(command.current_dir(place.path()));
        let complaints = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {complaints}");
        assert!(complaints.contains(told), "{arguments:?}: {complaints}");
    }
    assert_eq!(place.path().read_dir().expect("the folder").count(), 1);
}
