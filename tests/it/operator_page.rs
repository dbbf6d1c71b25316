//! The operator page as a browser meets it: log in, look, press a button; and as somebody meets it who must not.

use std::path::Path;

use amazon_pay_ipn::sandbox::{DeclineCode, Fault, Forgery, NotificationType, ObjectType, Operation, Outcome};
use reqwest::{Client, Response, redirect};
use serde_json::{Value, json};

use crate::support::{MINUTE, TOKEN, TestApp};

struct Browser {
    client: Client,
    base: String,
    cookie: Option<String>,
}

/// A page that was answered.
struct Seen {
    status: u16,
    location: Option<String>,
    text: String,
}

impl Browser {
    fn new(app: &TestApp) -> Self {
        let client = Client::builder().redirect(redirect::Policy::none()).no_proxy().build().expect("a client");
        Self { client, base: app.internal.clone(), cookie: None }
    }

    async fn seen(&mut self, answer: Response) -> Seen {
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.headers()[name], value, "{name}");
        }
        let policy = answer.headers()["content-security-policy"].to_str().expect("text").to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        if let Some(cookie) = answer.headers().get("set-cookie") {
            let cookie = cookie.to_str().expect("text");
            assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
            self.cookie = cookie.split(';').next().map(str::to_owned);
        }
        let status = answer.status().as_u16();
        let location = answer.headers().get("location").map(|to| to.to_str().expect("text").to_owned());
        Seen { status, location, text: answer.text().await.expect("a page") }
    }

    async fn get(&mut self, path: &str) -> Seen {
        let mut request = self.client.get(format!("{}{path}", self.base));
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        let answer = request.send().await.expect("an answer");
        self.seen(answer).await
    }

    async fn post(&mut self, path: &str, form: &[(&str, &str)], from: Option<&str>) -> Seen {
        let mut request = self.client.post(format!("{}{path}", self.base));
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        if let Some(from) = from {
            request = request.header("sec-fetch-site", from);
            let origin = if from == "same-origin" { self.base.as_str() } else { "http://elsewhere.example" };
            request = request.header("origin", origin);
        }
        let body: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body.join("&"));
        let answer = request.send().await.expect("an answer");
        self.seen(answer).await
    }

    async fn log_in(&mut self) {
        let seen = self.post("/operator/login", &[("token", TOKEN)], Some("same-origin")).await;
        assert_eq!((seen.status, seen.location.as_deref()), (303, Some("/operator")), "{}", seen.text);
    }

    /// What the forms of this session carry.
    async fn code(&mut self) -> String {
        let seen = self.get("/operator").await;
        let code = seen.text.split("name=\"code\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        code.unwrap_or_else(|| panic!("{}", seen.text)).to_owned()
    }

    /// Presses a button, and says that it is meant.
    async fn press(&mut self, verb: &str, id: &str) -> Seen {
        let code = self.code().await;
        let form = [("code", code.as_str()), ("verb", verb), ("id", id)];
        let asked = self.post("/operator/do", &form, Some("same-origin")).await;
        assert!(asked.status == 200 && asked.text.contains("name=\"sure\""), "{}", asked.text);
        self.post("/operator/do", &[&form[..], &[("sure", "yes")]].concat(), Some("same-origin")).await
    }
}

fn encoded(text: &str) -> String {
    let coded: Vec<String> = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    coded.concat()
}

#[tokio::test]
async fn nobody_sees_anything_without_the_token() {
    let app = TestApp::start().await;
    let mut browser = Browser::new(&app);
    for path in
        ["/operator", "/operator/charges", "/operator/charges/x", "/operator/permissions", "/operator/quarantine"]
    {
        let seen = browser.get(path).await;
        assert_eq!((seen.status, seen.location.as_deref()), (303, Some("/operator/login")), "{path}");
        assert!(!seen.text.contains(app.sandbox.merchant_id()), "{path}");
    }
    let wrong = browser.post("/operator/login", &[("token", "wrong")], None).await;
    assert_eq!((wrong.status, browser.cookie.clone()), (403, None));
    let act = browser.post("/operator/do", &[("verb", "stop"), ("id", ""), ("code", ""), ("sure", "yes")], None).await;
    assert_eq!(act.location.as_deref(), Some("/operator/login"));
    browser.cookie = Some("amazon-pay-ipn-session=9999999999.x".to_owned());
    assert_eq!(browser.get("/operator").await.status, 303);
    assert_eq!(app.get("/v1/stop").await.body["stopped"], json!(false));
    app.finish().await;
}

#[tokio::test]
async fn another_site_cannot_press_a_button() {
    let app = TestApp::start().await;
    let mut browser = Browser::new(&app);
    browser.log_in().await;
    let code = browser.code().await;
    let form = |code: &'static str| [("code", code), ("verb", "stop"), ("id", ""), ("sure", "yes")];
    for wrong in ["", "x"] {
        assert_eq!(browser.post("/operator/do", &form(wrong), None).await.status, 409);
    }
    // With the right code, but sent by a page of another site.
    let form = [("code", code.as_str()), ("verb", "stop"), ("id", ""), ("sure", "yes")];
    for from in ["cross-site", "same-site"] {
        assert_eq!(browser.post("/operator/do", &form, Some(from)).await.status, 409, "{from}");
    }
    // The code of another session.
    let mut other = Browser::new(&app);
    app.advance(2 * MINUTE);
    other.log_in().await;
    assert_eq!(other.post("/operator/do", &form, Some("same-origin")).await.status, 409);
    assert_eq!(app.get("/v1/stop").await.body["stopped"], json!(false));
    assert_eq!(browser.get("/operator/do").await.status, 405, "a link presses nothing");
    for path in ["/operator/login", "/operator/logout"] {
        let sent = browser.post(path, &[("code", &code), ("token", TOKEN)], Some("cross-site")).await;
        assert_eq!(sent.status, 409, "{path}");
    }
    assert_eq!(browser.post("/operator/logout", &[("code", "x")], None).await.status, 409);
    let out = browser.post("/operator/logout", &[("code", &code)], Some("same-origin")).await;
    assert_eq!(out.location.as_deref(), Some("/operator/login"));
    assert_eq!(browser.get("/operator").await.status, 303);
    app.finish().await;
}

#[tokio::test]
async fn a_charge_is_found_paused_resumed_and_canceled_on_the_page() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("sub-1", &permission).await;
    app.run_due().await;
    let mut browser = Browser::new(&app);
    browser.log_in().await;
    let list = browser.get("/operator/charges?state=scheduled&reason=SoftDeclined").await;
    assert!(list.text.contains("/operator/charges/sub-1") && list.text.contains("14.00 USD"), "{}", list.text);
    assert!(!browser.get("/operator/charges?state=held").await.text.contains("sub-1"));
    let page = browser.get(&format!("/operator/permissions/{permission}")).await;
    for part in ["the next attempt after SoftDeclined", "charge declined", "charge attempted", "Chargeable"] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    let pressed = browser.press("pause", "sub-1").await;
    assert_eq!((pressed.status, pressed.location.as_deref()), (303, Some("/operator/charges/sub-1")));
    assert_eq!(app.charge("sub-1").await["paused"], json!(true));
    assert_eq!(browser.press("retry", "sub-1").await.status, 409);
    browser.press("resume", "sub-1").await;
    assert_eq!(app.charge("sub-1").await["paused"], json!(false));
    browser.press("pause-permission", &permission).await;
    let page = browser.get("/operator/charges/sub-1").await.text;
    assert!(page.contains("Its charge permission is paused") && page.contains("value=\"pause\""), "{page}");
    browser.press("resume-permission", &permission).await;
    browser.press("cancel", "sub-1").await;
    assert_eq!(app.state("sub-1").await, "canceled");
    assert_eq!(browser.get("/operator/charges/none").await.status, 404);
    app.run_due().await;
    app.finish().await;
}

#[tokio::test]
async fn the_overview_counts_what_was_recovered_and_says_when_all_is_stopped() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("sub-1", &permission).await;
    app.run_due().await;
    app.pass(4 * 24 * 60 * MINUTE, 60 * MINUTE).await;
    assert_eq!(app.state("sub-1").await, "captured");
    let mut browser = Browser::new(&app);
    browser.log_in().await;
    let page = browser.get("/operator").await;
    for part in ["recovered in 7 days, USD", "<b>14.00</b>", "SoftDeclined: <b>1</b>", "recovered: <b>1</b>"] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    // What Sentinels and clusters may lose without WAIT_REPLICAS is worth a word, wherever the stories run on them.
    let well = ["All is well", "without WAIT_REPLICAS"];
    assert!(well.iter().any(|part| page.text.contains(part)), "{}", page.text);
    assert_eq!(browser.press("stop", "").await.location.as_deref(), Some("/operator"));
    assert!(browser.get("/operator").await.text.contains("The stop switch is on since"));
    browser.press("lift", "").await;
    assert!(!browser.get("/operator").await.text.contains("The stop switch is on since"));
    app.finish().await;
}

#[tokio::test]
async fn text_of_callers_is_text_on_the_page() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let hostile = "<script>alert(1)</script>\"onload=x";
    let mut body: Value = TestApp::body("sub-1", &permission);
    body["merchantMetadata"] = json!({ "noteToBuyer": "a note" });
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    let mut redis = app.connection().await;
    let _: String = redis::cmd("XADD")
        .arg(app.store.keys().quarantine())
        .arg("*")
        .arg(&["reason", hostile, "message_id", hostile, "body", hostile])
        .query_async(&mut redis)
        .await
        .expect("an entry");
    app.run_due().await;
    let mut browser = Browser::new(&app);
    browser.log_in().await;
    let list = browser.get("/operator/quarantine").await.text;
    let link = list.split("/operator/quarantine/").nth(1).and_then(|rest| rest.split('"').next()).expect("a link");
    let mut pages = vec![list.clone(), browser.get(&format!("/operator/quarantine/{link}")).await.text];
    for path in [
        "/operator",
        "/operator/charges/sub-1",
        "/operator/charges?reason=%3Cscript%3E",
        "/operator/charges/%3Cscript%3E",
    ] {
        pages.push(browser.get(path).await.text);
    }
    pages.push(browser.get(&format!("/operator/permissions/{permission}")).await.text);
    for page in pages {
        assert!(!page.contains("<script>") && !page.contains("\"onload"), "{page}");
    }
    assert!(list.contains("&lt;script&gt;alert(1)"), "{list}");
    browser.press("drop", link).await;
    assert!(app.quarantine().await.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn what_arrived_in_each_hour_of_a_week_is_noted_and_shown() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let note = async || app.store.note_arrivals().await.expect("Redis answers");
    let counts = async || {
        let arrivals = app.store.arrivals().await.expect("Redis answers");
        arrivals.into_iter().map(|(_, count)| count).collect::<Vec<_>>()
    };
    note().await;
    let message = app.notification(&permission);
    for _ in 0..2 {
        assert_eq!(app.deliver(&message).await, 200);
        assert_eq!(app.deliver(&app.notification(&permission)).await, 200);
    }
    note().await;
    assert_eq!(counts().await, [3], "a repetition counts no more");
    app.advance(5 * 60 * MINUTE);
    assert_eq!(app.deliver(&app.notification(&permission)).await, 200);
    note().await;
    note().await;
    assert_eq!(counts().await, [3, 1]);
    let mut browser = Browser::new(&app);
    browser.log_in().await;
    let page = browser.get("/operator").await.text;
    let chart = page.rsplit("Notifications, 7 days").next().and_then(|rest| rest.split("</figure>").next());
    assert!(chart.is_some_and(|chart| chart.contains("stored: <b>4</b>")), "{page}");
    for days in [6, 2] {
        app.advance(days * 24 * 60 * MINUTE);
        note().await;
    }
    assert_eq!(counts().await, [0; 0]);
    let mut redis = app.connection().await;
    let left: usize = redis::cmd("HLEN").arg(app.store.keys().arrivals()).query_async(&mut redis).await.expect("HLEN");
    assert_eq!(left, 3, "two hours of the week, and what was before");
    app.run_due().await;
    app.finish().await;
}

#[tokio::test]
async fn a_held_charge_is_resolved_on_the_page_with_what_seller_central_shows() {
    let app = TestApp::start().await;
    for id in ["one", "two"] {
        app.sandbox.inject(Operation::CreateCharge, Fault::status(400, "DuplicateIdempotencyKey"));
        app.submit(id, &app.permission()).await;
        app.run_due().await;
        assert_eq!(app.state(id).await, "held");
    }
    app.advance(60 * MINUTE);
    let mut browser = Browser::new(&app);
    browser.log_in().await;
    let page = browser.get("/operator/charges/one").await.text;
    for verb in ["resolve-captured", "resolve-abandoned", "resolve-new-number"] {
        assert!(page.contains(&format!("value=\"{verb}\"")), "{verb}: {page}");
    }
    let code = browser.code().await;
    let said = |verb: &'static str, said: &'static str| {
        [("code", code.clone()), ("verb", verb.to_owned()), ("id", "one".to_owned()), ("said", said.to_owned())]
    };
    let sentence = "Seller Central shows no charge for one";
    for (verb, words, sure, status) in [
        ("resolve-new-number", sentence, "", 200),
        ("resolve-new-number", "yes", "yes", 400),
        ("resolve-captured", "S01-0000000-0000000-C000000", "yes", 400),
    ] {
        let form = said(verb, words);
        let form = form.each_ref().map(|(name, value)| (*name, value.as_str()));
        let seen = browser.post("/operator/do", &[&form[..], &[("sure", sure)]].concat(), None).await;
        assert_eq!(seen.status, status, "{verb} {words}: {}", seen.text);
        assert_eq!(app.state("one").await, "held");
    }
    let form = said("resolve-new-number", sentence);
    let form = form.each_ref().map(|(name, value)| (*name, value.as_str()));
    let seen = browser.post("/operator/do", &[&form[..], &[("sure", "yes")]].concat(), None).await;
    assert_eq!((seen.status, seen.location.as_deref()), (303, Some("/operator/charges/one")), "{}", seen.text);
    app.run_due().await;
    assert_eq!(app.state("one").await, "captured");
    assert_eq!(browser.press("resolve-abandoned", "two").await.status, 303);
    assert_eq!(app.state("two").await, "abandoned");
    assert!(!browser.get("/operator/charges/two").await.text.contains("resolve-"));
    app.finish().await;
}

/// The folder for the pictures, from the root of the crate.
#[expect(clippy::disallowed_methods, reason = "a switch of the harness, not a setting of the service")]
fn images() -> String {
    std::env::var("IMAGES").unwrap_or_else(|_| "docs/images".to_owned())
}

/// A week of all sorts of charges, in a page that a browser looks at. `make page` runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make page: needs Chromium and playwright-core"]
async fn a_browser_shows_the_page_light_dark_and_on_a_phone() {
    let app = TestApp::start().await;
    let [soft, hard, closed] = [DeclineCode::SoftDeclined, DeclineCode::HardDeclined, DeclineCode::AmazonRejected];
    let mut parked = String::new();
    for day in 0..6 {
        for number in 0..8 {
            let permission = app.permission();
            let code = match number {
                0 | 1 => Some(soft),
                2 => Some(hard),
                3 if day % 2 == 0 => Some(closed),
                _ => None,
            };
            if let Some(code) = code {
                app.sandbox.script_charge(&permission, Outcome::Decline(code)).expect("a permission");
            }
            app.submit(&format!("subscription-{day}{number}-2026-11"), &permission).await;
            if code == Some(hard) {
                parked = permission;
            }
        }
        app.run_due().await;
        for _ in 0..8 {
            app.deliver_all().await;
            app.store.note_arrivals().await.expect("Redis answers");
            app.pass(180 * MINUTE, 180 * MINUTE).await;
        }
    }
    let object = (ObjectType::ChargePermission, parked.as_str());
    let ipn = app.sandbox.ipn(object, &parked, NotificationType::StateChange);
    let message = app.sandbox.forge(&ipn, Forgery::ForeignMerchant).expect("a message");
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(images());
    std::fs::create_dir_all(&folder).expect("a folder");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/browser/look.js");
    let mut node = tokio::process::Command::new("node");
    node.args([script, &app.internal, TOKEN, &parked]).arg(&folder).kill_on_drop(true);
    let looked = node.output().await.expect("node runs");
    let said = format!("{}{}", String::from_utf8_lossy(&looked.stdout), String::from_utf8_lossy(&looked.stderr));
    assert!(looked.status.success(), "{said}");
    assert_eq!(app.get("/v1/stop").await.body["stopped"], json!(false));
    app.finish().await;
}
