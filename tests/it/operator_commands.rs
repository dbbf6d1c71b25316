//! `charges`, `permissions`, `quarantine`, `stop` and `completions` as an operator types them: the real program against a real service.

use std::process::{Command, Stdio};

use amazon_pay_ipn::sandbox::{DeclineCode, Forgery, NotificationType, ObjectType, Outcome};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{program, text};
use crate::support::{DAY, HOUR, TOKEN, TestApp};

struct Desk {
    app: TestApp,
    folder: TempDir,
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

impl Desk {
    async fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        std::fs::write(folder.path().join("token"), TOKEN).expect("a token");
        Self { app: TestApp::start().await, folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .env("INTERNAL_LISTEN_ADDR", self.app.internal.trim_start_matches("http://"))
            .env("INTERNAL_API_TOKEN_FILE", "token");
        command
    }

    async fn run(&self, arguments: &[&str]) -> Said {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await;
        let output = output.expect("no panic");
        Said { code: output.status.code(), out: text(&output.stdout), complaints: text(&output.stderr) }
    }

    async fn good(&self, arguments: &[&str]) -> Said {
        let said = self.run(arguments).await;
        assert_eq!(said.code, Some(0), "{arguments:?}: {} {}", said.out, said.complaints);
        said
    }
}

#[tokio::test]
async fn charges_are_listed_shown_paused_resumed_retried_and_canceled() {
    let desk = Desk::start().await;
    let permission = desk.app.permission();
    desk.app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    desk.app.submit("sub-1", &permission).await;
    desk.app.run_due().await;
    let list = desk.good(&["charges", "list", "--state", "scheduled", "--permission", &permission]).await;
    for part in ["sub-1", &permission, "14.00 USD", "scheduled", "SoftDeclined"] {
        assert!(list.out.contains(part), "{part}: {}", list.out);
    }
    let list = desk.good(&["charges", "list", "--json", "--state", "captured"]).await.json();
    assert_eq!(list, json!({ "charges": [], "more": false }));
    assert_eq!(desk.good(&["charges", "show", "sub-1", "--json"]).await.json()["state"], json!("scheduled"));
    assert!(desk.good(&["charges", "show", "sub-1"]).await.out.contains("14.00 USD"));
    assert!(desk.good(&["charges", "pause", "sub-1"]).await.out.contains("paused"));
    let refused = desk.run(&["charges", "retry", "sub-1"]).await;
    assert_eq!((refused.code, refused.complaints.contains("resume it")), (Some(1), true), "{}", refused.complaints);
    assert!(!desk.good(&["charges", "resume", "sub-1"]).await.out.contains("paused"));
    let nobody = desk.run(&["charges", "cancel", "sub-1"]).await;
    assert_eq!((nobody.code, nobody.complaints.contains("--yes")), (Some(2), true), "{}", nobody.complaints);
    assert_eq!(desk.app.state("sub-1").await, "scheduled");
    assert!(desk.good(&["charges", "cancel", "sub-1", "--yes"]).await.out.contains("sub-1: canceled"));
    let missing = desk.run(&["charges", "show", "sub-2"]).await;
    assert_eq!((missing.code, missing.out.as_str()), (Some(3), ""));
    // Each is tried, and the missing one decides.
    desk.app.submit("sub-3", &permission).await;
    let some = desk.run(&["charges", "pause", "sub-2", "sub-3"]).await;
    assert_eq!((some.code, some.out.contains("sub-3")), (Some(3), true), "{}", some.out);
    desk.good(&["charges", "resume", "sub-3"]).await;
    desk.app.run_due().await;
    desk.app.finish().await;
}

#[tokio::test]
async fn a_permission_says_why_its_charges_wait_and_is_closed_only_when_that_is_meant() {
    let desk = Desk::start().await;
    let permission = desk.app.permission();
    desk.app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined)).expect("a permission");
    desk.app.submit("sub-1", &permission).await;
    desk.app.run_due().await;
    let why = desk.good(&["permissions", "why", &permission]).await;
    assert!(why.out.contains("sub-1 (parked) waits for the buyer to update the payment method"), "{}", why.out);
    let shown = desk.good(&["permissions", "show", &permission]).await;
    assert!(shown.out.contains("Chargeable") && shown.out.contains("parked"), "{}", shown.out);
    let close = ["permissions", "close", &permission, "--reason", "the buyer asked for it"];
    assert_eq!(desk.run(&close).await.code, Some(2));
    desk.good(&[&close[..], &["--yes"]].concat()).await;
    desk.app.run_due().await;
    assert_eq!(desk.app.state("sub-1").await, "abandoned");
    let unknown = desk.run(&["permissions", "reconcile", "S01-7654321-7654321"]).await;
    assert_eq!(unknown.code, Some(3), "{}", unknown.complaints);
    desk.good(&["permissions", "reconcile", &permission]).await;
    desk.app.run_due().await;
    desk.app.finish().await;
}

#[tokio::test]
async fn a_permission_that_amazon_does_not_know_is_said_to_be_unknown() {
    let desk = Desk::start().await;
    let unknown = "S01-7654321-7654321";
    desk.app.submit("sub-1", unknown).await;
    desk.app.run_due().await;
    let why = desk.good(&["permissions", "why", unknown]).await;
    assert!(why.out.contains("was not seen at Amazon yet: nobody looked, or Amazon knows no such id"), "{}", why.out);
    assert!(why.out.contains("Amazon knows no such charge permission: is the id right"), "{}", why.out);
    desk.app.finish().await;
}

#[tokio::test]
async fn to_resolve_a_charge_one_of_three_answers_is_needed_and_all_are_named() {
    let desk = Desk::start().await;
    for answers in [&[][..], &["--abandoned", "--captured", "C01-1-C1"]] {
        let given = desk.run(&[&["charges", "resolve", "sub-1"], answers].concat()).await;
        assert_eq!(given.code, Some(2), "{}", given.complaints);
        let named = if answers.is_empty() { &["--captured", "--abandoned", "--new-number"][..] } else { answers };
        for answer in named.iter().filter(|answer| answer.starts_with("--")) {
            assert!(given.complaints.contains(answer), "{answer}: {}", given.complaints);
        }
    }
    desk.app.finish().await;
}

#[tokio::test]
async fn the_stop_switch_is_thrown_and_lifted_from_a_shell() {
    let desk = Desk::start().await;
    assert!(desk.good(&["stop", "on"]).await.out.contains("is on since"));
    let permission = desk.app.permission();
    desk.app.submit("sub-1", &permission).await;
    desk.app.run_due().await;
    assert_eq!(desk.app.creates(), 0);
    assert_eq!(desk.run(&["stop", "off"]).await.code, Some(2), "there is nobody to ask");
    assert_eq!(desk.good(&["stop", "show", "--json"]).await.json()["stopped"], json!(true));
    assert!(desk.good(&["stop", "off", "--yes"]).await.out.contains("is off"));
    desk.app.run_due().await;
    assert_eq!(desk.app.state("sub-1").await, "captured");
    desk.app.finish().await;
}

#[tokio::test]
async fn the_quarantine_is_listed_shown_replayed_and_dropped_from_a_shell() {
    let desk = Desk::start().await;
    assert!(desk.good(&["quarantine", "list"]).await.out.contains("is empty"));
    let permission = desk.app.permission();
    let object = (ObjectType::ChargePermission, permission.as_str());
    for _ in 0..2 {
        let ipn = desk.app.sandbox.ipn(object, &permission, NotificationType::StateChange);
        let message = desk.app.sandbox.forge(&ipn, Forgery::ForeignMerchant).expect("a message");
        assert_eq!(desk.app.post_ipn(&message.body, &message.headers).await, 200);
    }
    let list = desk.good(&["quarantine", "list", "--json"]).await.json();
    let id = list["entries"][0]["id"].as_str().expect("an id");
    assert!(desk.good(&["quarantine", "show", id]).await.out.contains("NotificationVersion"));
    let refused = desk.run(&["quarantine", "replay", id]).await;
    assert_eq!((refused.code, refused.complaints.contains("drop it")), (Some(1), true), "{}", refused.complaints);
    desk.good(&["quarantine", "drop", id, "--yes"]).await;
    desk.good(&["quarantine", "drop", "--all", "--yes"]).await;
    assert!(desk.app.quarantine().await.is_empty());
    assert_eq!(desk.run(&["quarantine", "drop"]).await.code, Some(2));
    desk.app.finish().await;
}

#[tokio::test]
async fn a_service_that_is_not_there_and_a_wrong_token_are_told_apart() {
    let desk = Desk::start().await;
    std::fs::write(desk.folder.path().join("other"), "another-token-of-twenty").expect("a token");
    let wrong = desk.run(&["stop", "show", "--token-file", "other"]).await;
    assert_eq!((wrong.code, wrong.complaints.contains("token")), (Some(1), true), "{}", wrong.complaints);
    let public = desk.run(&["stop", "show", "--api", &desk.app.public]).await;
    assert_eq!((public.code, public.complaints.contains("--api")), (Some(1), true), "{}", public.complaints);
    let url = desk.run(&["stop", "show", "--api", "localhost"]).await;
    assert_eq!(url.code, Some(2), "{}", url.complaints);
    // Nobody listens on the discard port of an address of this host.
    let nobody = desk.run(&["stop", "show", "--api", "http://127.0.0.1:9"]).await;
    assert_eq!((nobody.code, nobody.complaints.contains("does not answer")), (Some(4), true), "{}", nobody.complaints);
    desk.app.finish().await;
}

#[tokio::test]
async fn a_shell_without_settings_is_told_what_to_give_instead() {
    let output = program(&["charges", "list"]).stdin(Stdio::null()).output().expect("the program runs");
    let complaints = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{complaints}");
    assert!(complaints.contains("--token-file FILE") && complaints.contains("--api URL"), "{complaints}");
}

#[tokio::test]
async fn of_a_charge_that_is_captured_in_part_both_amounts_are_listed() {
    let desk = Desk::start().await;
    let permission = desk.app.permission();
    let mut body = TestApp::body("sub-1", &permission);
    body["captureNow"] = json!(false);
    assert_eq!(desk.app.post("/v1/charges", &body).await.status, 202);
    desk.app.run_due().await;
    assert!(!desk.good(&["charges", "list"]).await.out.contains(" of "));
    let part = json!({ "captureAmount": { "amount": "9.50", "currencyCode": "USD" } });
    assert_eq!(desk.app.post("/v1/charges/sub-1/capture", &part).await.status, 202);
    desk.app.run_due().await;
    let list = desk.good(&["charges", "list"]).await.out;
    assert!(list.contains("9.50 USD of 14.00 USD"), "{list}");
    desk.app.finish().await;
}

#[tokio::test]
async fn shells_are_given_completions() {
    let desk = Desk::start().await;
    for shell in ["bash", "zsh", "fish"] {
        let said = desk.good(&["completions", shell]).await;
        assert!(said.out.contains("quarantine") && said.out.contains("amazon-pay-ipn"), "{shell}");
    }
    desk.app.finish().await;
}

/// A charge that Amazon declined elsewhere, as a line of a file.
fn declined(id: &str, permission: &str, reason: &str, at: &str) -> String {
    let mut line = TestApp::body(id, permission);
    line["declined"] = json!({ "reasonCode": reason, "at": at, "attempts": 1 });
    line.to_string()
}

#[tokio::test]
async fn declined_charges_are_imported_from_a_file_once_after_everything_was_checked() {
    let desk = Desk::start().await;
    let (soft, hard) = (desk.app.permission(), desk.app.permission());
    let yesterday = (desk.app.clock.now() - DAY).to_string();
    let write = |lines: &[String]| {
        std::fs::write(desk.folder.path().join("open.jsonl"), lines.join("\n")).expect("a file");
    };
    let good =
        [declined("old-1", &soft, "SoftDeclined", &yesterday), declined("old-2", &hard, "HardDeclined", &yesterday)];
    // One wrong line, and nothing is imported.
    let mut bad = good.to_vec();
    bad.push(declined("old-3", &hard, "AmazonRejected", &yesterday));
    bad.push(TestApp::body("fresh-1", &soft).to_string());
    write(&bad);
    let refused = desk.run(&["charges", "import", "open.jsonl", "--yes"]).await;
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    for part in ["old-3", "only a new checkout", "fresh-1", "declined is missing", "2 new (28.00 USD), 2 wrong"] {
        assert!(refused.out.contains(part), "{part}: {}", refused.out);
    }
    assert!(refused.complaints.contains("nothing was imported"), "{}", refused.complaints);

    write(&good);
    let tried = desk.good(&["charges", "import", "open.jsonl", "--dry-run"]).await;
    assert!(tried.out.contains("2 charges: 2 new (28.00 USD)") && tried.out.contains("parked"), "{}", tried.out);
    let list = desk.good(&["charges", "list", "--json"]).await.json();
    assert_eq!(list, json!({ "charges": [], "more": false }));
    let nobody = desk.run(&["charges", "import", "open.jsonl"]).await;
    assert_eq!((nobody.code, nobody.complaints.contains("--yes")), (Some(2), true), "{}", nobody.complaints);

    let done = desk.good(&["charges", "import", "open.jsonl", "--yes", "--json"]).await;
    let fates: Vec<Value> = done.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told = |line: &Value| (line["id"].clone(), line["fate"].clone(), line["charge"]["state"].clone());
    assert_eq!(
        fates.iter().map(told).collect::<Vec<_>>(),
        [(json!("old-1"), json!("imported"), json!("scheduled")), (json!("old-2"), json!("imported"), json!("parked")),]
    );
    let again = desk.good(&["charges", "import", "open.jsonl", "--yes"]).await;
    assert!(again.out.contains("2 charges: 2 known (28.00 USD)"), "{}", again.out);
    // The same id for another amount is somebody else's charge.
    write(&[good[0].replace("14.00", "15.00")]);
    let other = desk.run(&["charges", "import", "open.jsonl", "--dry-run"]).await;
    assert_eq!((other.code, other.out.contains("used with another body")), (Some(1), true), "{}", other.out);

    desk.app.pass(3 * DAY, HOUR).await;
    assert_eq!(desk.app.state("old-1").await, "captured");
    assert_eq!(desk.app.creates(), 1);
    desk.app.finish().await;
}

#[tokio::test]
async fn an_import_says_of_a_closed_permission_that_its_charges_will_be_given_up() {
    let desk = Desk::start().await;
    let permission = desk.app.permission();
    desk.app.sandbox.buyer_closes(&permission).expect("a permission");
    desk.app.deliver_all().await;
    desk.app.run_due().await;
    let now = desk.app.clock.now().to_string();
    let line = declined("old-1", &permission, "SoftDeclined", &now);
    std::fs::write(desk.folder.path().join("open.jsonl"), line).expect("a file");
    let tried = desk.good(&["charges", "import", "open.jsonl", "--dry-run"]).await;
    assert!(tried.out.contains("its charge permission is closed"), "{}", tried.out);
    desk.good(&["charges", "import", "open.jsonl", "--yes"]).await;
    desk.app.run_due().await;
    assert_eq!((desk.app.state("old-1").await.as_str(), desk.app.creates()), ("abandoned", 0));
    desk.app.finish().await;
}
