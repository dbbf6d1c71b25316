//! `trigger` as an engineer uses it: the real program against a real service that was set up as `trigger settings` says.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{program, text};
use crate::support::{Options, TestApp};

/// A service that believes what `trigger` signs, and whatever the two share.
struct Bench {
    app: TestApp,
    folder: TempDir,
    /// Where `trigger` serves certificates: an address of its own for each test, so that no two meet at one port.
    listen: String,
}

/// What the program did.
struct Said {
    code: Option<i32>,
    out: String,
    complaints: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.complaints))
    }
}

async fn run(mut command: Command) -> Said {
    let output = tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await;
    let output = output.expect("no panic");
    Said { code: output.status.code(), out: text(&output.stdout), complaints: text(&output.stderr) }
}

/// Every address of 127.0.0.0/8 is this host.
fn own_address() -> String {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{}.{}:9100", high.max(1), low, COUNT.fetch_add(1, Ordering::SeqCst))
}

fn trigger_in(folder: &TempDir, arguments: &[&str]) -> Command {
    let mut command = program(&[&["trigger"], arguments].concat());
    command.current_dir(folder.path());
    command
}

impl Bench {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut amazon_pay_ipn::sns::SnsSettings)) -> Self {
        let folder = TempDir::new().expect("a folder");
        let listen = own_address();
        let mut app = TestApp::with(Options::default()).await;
        app.stop_service().await;
        let told = run(trigger_in(&folder, &["settings", "--listen", &listen])).await;
        assert_eq!(told.code, Some(0), "{}", told.complaints);
        let setting = |name: &str| {
            let line = told.out.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            Some(line.unwrap_or_else(|| panic!("{name} in {}", told.out)).to_owned())
        };
        let sns = &mut app.settings.sns;
        sns.certificate_base_url = setting("SNS_CERTIFICATE_BASE_URL");
        sns.certificate_name = setting("SNS_CERTIFICATE_NAME");
        sns.api_base_url = setting("SNS_API_BASE_URL");
        sns.trust_anchors_pem =
            setting("SNS_TRUST_ANCHORS_FILE").map(|path| std::fs::read(path).expect("the trust anchor"));
        change(sns);
        app.restart().await;
        Self { app, folder, listen }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = trigger_in(&self.folder, arguments);
        command
            .env("AMAZON_PAY_MERCHANT_ID", self.app.sandbox.merchant_id())
            .env("SNS_TOPIC_ARNS", self.app.sandbox.topic_arn())
            .env("SNS_CERTIFICATE_BASE_URL", format!("http://{}", self.listen))
            .env("LISTEN_ADDR", self.app.public.trim_start_matches("http://"));
        command
    }

    async fn trigger(&self, arguments: &[&str]) -> Said {
        run(self.command(arguments)).await
    }

    async fn finish(self) {
        self.app.run_due().await;
        self.app.finish().await;
    }
}

#[tokio::test]
async fn every_kind_is_accepted_in_both_signature_versions_and_leaves_what_it_should() {
    let bench = Bench::start().await;
    let permission = bench.app.permission();
    let kinds = [
        ("charge-permission", "CHARGE_PERMISSION", ""),
        ("charge", "CHARGE", "-C000001"),
        ("refund", "REFUND", "-R000001"),
        ("chargeback", "CHARGEBACK", "-B000001"),
    ];
    for (kind, object_type, suffix) in kinds {
        for version in ["1", "2"] {
            let more = ["--permission", &permission, "--signature-version", version, "--subject", "Grüße"];
            let said = bench
                .trigger(&[&[kind, "--json", "--notification-type", "ATTRIBUTE_CHANGE"], &more[..]].concat())
                .await;
            assert_eq!(said.code, Some(0), "{} {}", said.out, said.complaints);
            let journal = bench.app.journal().await;
            let entry = journal.last().expect("an entry");
            assert_eq!(said.json()["messageId"], entry["message_id"].as_str());
            assert_eq!(
                (&*entry["object_type"], &*entry["object_id"]),
                (object_type, &*format!("{permission}{suffix}"))
            );
            assert_eq!(entry["notification_type"], "ATTRIBUTE_CHANGE");
            let body: Value = serde_json::from_str(&entry["body"]).expect("JSON");
            assert_eq!((&body["SignatureVersion"], &body["Subject"]), (&version.into(), &"Grüße".into()));
        }
    }
    let said = bench.trigger(&["test"]).await;
    assert_eq!(said.code, Some(0), "{} {}", said.out, said.complaints);
    assert_eq!(bench.app.journal().await.len(), 2 * kinds.len() + 1);
    assert!(bench.app.events().await.is_empty() && bench.app.quarantine().await.is_empty());

    for (kind, told, confirmations) in [("subscription", "confirmed", 1), ("unsubscription", "ended", 0)] {
        for version in ["1", "2"] {
            let said = bench.trigger(&[kind, "--json", "--signature-version", version]).await;
            assert_eq!(said.code, Some(0), "{} {}", said.out, said.complaints);
            assert_eq!(said.json()["confirmations"], confirmations);
            let events = bench.app.events_of("ipn.subscription").await;
            assert_eq!(events.last().expect("an event")["subscription"], told);
        }
    }
    bench.finish().await;
}

#[tokio::test]
async fn every_forgery_of_every_kind_is_refused_and_leaves_no_trace() {
    let bench = Bench::start().await;
    assert_eq!(bench.trigger(&["test"]).await.code, Some(0), "what is genuine is believed");
    let before = bench.app.keys().await;
    // Each kind and each way meets both signature versions.
    for (row, kind) in ["charge", "test", "subscription", "unsubscription"].into_iter().enumerate() {
        for (column, way) in ["other-key", "untrusted-certificate", "foreign-topic", "altered"].into_iter().enumerate()
        {
            let version = if (row + column) % 2 == 0 { "1" } else { "2" };
            let said = bench.trigger(&[kind, "--forge", way, "--signature-version", version, "--json"]).await;
            assert_eq!(said.code, Some(0), "{kind} {way}: {} {}", said.out, said.complaints);
            let json = said.json();
            assert_eq!((&json["statuses"], &json["confirmations"]), (&serde_json::json!([403]), &0.into()));
        }
    }
    let said = bench.trigger(&["charge", "--published-ago", "15d 1m"]).await;
    assert_eq!(said.code, Some(0), "{} {}", said.out, said.complaints);
    assert!(said.out.contains("-> 403: refused, ") && said.out.ends_with("as expected\n"), "{}", said.out);
    assert_eq!(bench.app.keys().await, before);
    assert_eq!(bench.app.journal().await.len(), 1);

    let said = bench.trigger(&["charge", "--forge", "foreign-merchant", "--published-ago", "14d"]).await;
    assert_eq!(said.code, Some(0), "{} {}", said.out, said.complaints);
    assert!(said.out.contains("-> 200: kept in the quarantine"), "{}", said.out);
    assert_eq!(bench.app.quarantine().await.len(), 1);
    bench.finish().await;
}

#[tokio::test]
async fn copies_of_one_message_are_acknowledged_and_stored_once_and_the_certificate_is_fetched_once() {
    let bench = Bench::start().await;
    let permission = bench.app.permission();
    let first = bench.trigger(&["charge-permission", "--permission", &permission, "--copies", "3", "--json"]).await;
    assert_eq!(first.code, Some(0), "{} {}", first.out, first.complaints);
    assert_eq!((&first.json()["statuses"], &first.json()["certificateFetches"]), (&[200; 3][..].into(), &1.into()));
    assert_eq!(bench.app.journal().await.len(), 1);
    // Another process with the kept key: the service has its certificate already.
    let second = bench.trigger(&["charge-permission", "--permission", &permission, "--json"]).await;
    assert_eq!(second.json()["certificateFetches"], 0);
    assert_eq!(bench.app.journal().await.len(), 2, "another message");
    bench.finish().await;
}

#[tokio::test]
async fn a_printed_message_is_genuine_to_verify() {
    let folder = TempDir::new().expect("a folder");
    for more in [&["charge", "--subject", "x"][..], &["subscription", "--signature-version", "2"], &["unsubscription"]]
    {
        let printed = run(trigger_in(&folder, &[more, &["--print"]].concat())).await;
        assert_eq!(printed.code, Some(0), "{}", printed.complaints);
        let message: Value = serde_json::from_str(&printed.out).expect("JSON");
        let topic = message["TopicArn"].as_str().expect("a topic");
        let certificate = ".amazon-pay-ipn-trigger/certificate.pem";
        let verify = |body: String| {
            let mut command = program(&["verify", "-", "--certificate", certificate, "--topic", topic]);
            command.current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().expect("the program runs");
            std::io::Write::write_all(&mut child.stdin.take().expect("standard input"), body.as_bytes())
                .expect("a pipe");
            child.wait_with_output().expect("an end")
        };
        let genuine = verify(printed.out.clone());
        assert_eq!(genuine.status.code(), Some(0), "{}", text(&genuine.stdout));
        assert!(text(&genuine.stdout).contains("GENUINE"));
        let changed = verify(printed.out.replace("2026-", "2025-"));
        assert_eq!(changed.status.code(), Some(1), "{}", text(&changed.stdout));
    }
}

#[tokio::test]
async fn a_service_that_trusts_another_certificate_is_noticed() {
    let stranger = TestApp::start().await;
    let anchor = stranger.sandbox.trust_anchor_pem().as_bytes().to_vec();
    let bench = Bench::with(|sns| sns.trust_anchors_pem = Some(anchor)).await;
    let said = bench.trigger(&["charge"]).await;
    assert_eq!(said.code, Some(1), "{} {}", said.out, said.complaints);
    let hint = "its SNS_TRUST_ANCHORS_FILE should be /";
    assert!(
        said.out.contains("403") && said.out.contains("NOT AS EXPECTED") && said.out.contains(hint),
        "{}",
        said.out
    );
    assert!(bench.app.journal().await.is_empty());
    bench.finish().await;
    stranger.finish().await;
}

#[tokio::test]
async fn a_subscription_that_is_confirmed_elsewhere_or_not_at_all_is_noticed() {
    let stranger = TestApp::start().await;
    let elsewhere = stranger.sandbox.base_url().to_owned();
    for (api, status) in [("http://127.0.0.1:1".to_owned(), "503"), (elsewhere, "200")] {
        let bench = Bench::with(|sns| sns.api_base_url = Some(api)).await;
        let said = bench.trigger(&["subscription"]).await;
        assert_eq!(said.code, Some(1), "{} {}", said.out, said.complaints);
        assert!(said.out.contains(&format!("-> {status}:")) && said.out.contains("SNS_API_BASE_URL"), "{}", said.out);
        bench.finish().await;
    }
    stranger.finish().await;
}

#[tokio::test]
async fn a_wrong_topic_a_wrong_address_and_a_taken_one_are_told_apart() {
    let bench = Bench::start().await;
    let topic = "arn:aws:sns:us-east-1:291180941288:other";
    let said = bench.trigger(&["charge", "--topic", topic]).await;
    assert_eq!(said.code, Some(1), "{} {}", said.out, said.complaints);
    assert!(said.out.contains(&format!("needs SNS_TOPIC_ARNS with {topic}")), "{}", said.out);
    let said = bench.trigger(&["charge", "--to", &format!("{}/elsewhere", bench.app.public)]).await;
    assert_eq!(said.code, Some(1), "{} {}", said.out, said.complaints);
    assert!(said.out.contains("404") && said.out.contains("--to says where"), "{}", said.out);
    let said = bench.trigger(&["charge", "--to", "http://127.0.0.1:1/ipn"]).await;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.complaints.contains("nobody listens at http://127.0.0.1:1/ipn: start `serve`"), "{}", said.complaints);
    let taken = std::net::TcpListener::bind(&bench.listen).expect("the address is free");
    let said = bench.trigger(&["charge"]).await;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.complaints.contains(&format!("{} is taken", bench.listen)), "{}", said.complaints);
    drop(taken);
    assert!(bench.app.journal().await.is_empty());
    bench.finish().await;
}

#[tokio::test]
async fn wrong_usage_is_exit_status_2_and_sends_nothing() {
    let folder = TempDir::new().expect("a folder");
    for (arguments, told) in [
        (&["charge", "--to", "http://8.8.8.8/ipn"][..], "neither loopback nor private"),
        (&["charge", "--to", "https://127.0.0.1/ipn"], "expected http://"),
        (&["charge", "--listen", "0.0.0.0:9100"], "no address from which the service could fetch"),
        (&["charge", "--listen", "127.0.0.1:0"], "expected a place to serve certificates at"),
        (&["charge", "--published-ago", "soon"], "--published-ago"),
        (&["charge", "--forge", "nicely"], "other-key"),
        (&["charge", "--topic", "x"], "not an SNS topic ARN"),
        (&["charge", "--keys", "/proc/nowhere"], "--keys: /proc"),
        (&["subscription", "--subject", "x"], "only notifications"),
        (&["subscription", "--forge", "foreign-merchant"], "names no merchant"),
        (&["test", "--forge", "foreign-merchant"], "whatever merchant"),
        (&["reimbursement"], "chargeback"),
        (&[], "KIND"),
    ] {
        let said = run(trigger_in(&folder, arguments)).await;
        assert_eq!(said.code, Some(2), "{arguments:?}: {} {}", said.out, said.complaints);
        assert!(said.complaints.contains(told), "{arguments:?}: {}", said.complaints);
    }
}

#[tokio::test]
async fn the_settings_name_what_serve_lacks_and_nothing_that_it_has() {
    let folder = TempDir::with_prefix("it's here ").expect("a folder");
    let names = |said: &Said| -> Vec<String> {
        assert_eq!(said.code, Some(0), "{}", said.complaints);
        said.out.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect()
    };
    let of_sns = ["SNS_CERTIFICATE_BASE_URL", "SNS_CERTIFICATE_NAME", "SNS_TRUST_ANCHORS_FILE", "SNS_API_BASE_URL"];
    let said = run(trigger_in(&folder, &["settings"])).await;
    assert_eq!(names(&said), [&["AMAZON_PAY_MERCHANT_ID", "SNS_TOPIC_ARNS"], &of_sns[..]].concat());
    // A shell reads them back, whatever the folder is called.
    let mut shell = Command::new("sh");
    let said = run({
        shell
            .env_clear()
            .args(["-c", &format!("{}cat \"$SNS_TRUST_ANCHORS_FILE\"", said.out)])
            .env("PATH", "/usr/bin:/bin");
        shell
    })
    .await;
    assert!(said.out.starts_with("-----BEGIN CERTIFICATE-----"), "{} {}", said.out, said.complaints);
    let mut command = trigger_in(&folder, &["settings"]);
    command.env("AMAZON_PAY_MERCHANT_ID", "A1").env("SNS_TOPIC_ARNS", "arn:aws:sns:us-east-1:291180941288:t");
    assert_eq!(names(&run(command).await), of_sns);
}
