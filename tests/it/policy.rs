//! The policy file: a charge goes by the policy it chose, in its quiet hours nothing is tried that nobody asked for, and a file that
//! changes under open charges loses none of them.

use std::io::Write;
use std::process::Output;

use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::config::{self, Given};
use amazon_pay_ipn::model::ids::Region;
use amazon_pay_ipn::reconciler::StepOutcome;
use amazon_pay_ipn::recovery::policies::Policies;
use amazon_pay_ipn::sandbox::{DeclineCode, Outcome};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Unit};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::process::{program, run, text};
use crate::support::{DAY, HOUR, MINUTE, Options, TestApp, built_in_policy};

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn policies(text: &str) -> Policies {
    let file = file(text);
    let given = Given { recovery_policy_file: Some(file.path().display().to_string()), ..Given::default() };
    config::read_policies(given, Some(Region::Na)).expect("a right file").0
}

async fn with_policies(text: &str) -> TestApp {
    TestApp::with(Options { policies: Some(policies(text)), ..Options::default() }).await
}

fn choosing(policy: &str, id: &str, permission: &str) -> Value {
    let mut body = TestApp::body(id, permission);
    body["policy"] = json!(policy);
    body
}

fn decline(app: &TestApp, permission: &str, times: usize) {
    for _ in 0..times {
        app.sandbox.script_charge(permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    }
}

async fn next_attempt(app: &TestApp, id: &str) -> Timestamp {
    let charge = app.charge(id).await;
    charge["nextAttemptAt"]
        .as_str()
        .unwrap_or_else(|| panic!("no attempt is planned: {charge}"))
        .parse()
        .expect("a time")
}

#[tokio::test]
async fn a_charge_is_retried_by_the_policy_it_chose_and_never_in_its_quiet_hours() {
    let begin = Clock::system().now();
    // Quiet from an hour ago until three hours from now, by a clock that no season changes.
    let zone = TimeZone::get("Asia/Tokyo").expect("a zone");
    let wall = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%H:%M").to_string();
    let in_hours = |hours: i64| begin + SignedDuration::from_hours(hours);
    let (from, to) = (wall(in_hours(-1)), wall(in_hours(3)));
    let app = with_policies(&format!(
        "[policies.gentle]\ntime_zone = 'Asia/Tokyo'\nquiet_hours = '{from}-{to}'\njitter.percent = 0\n\
         soft_declined.schedule = ['1d', '2d']"
    ))
    .await;
    let (quick, gentle) = (app.permission(), app.permission());
    decline(&app, &gentle, 2);
    decline(&app, &quick, 1);
    assert_eq!(app.post("/v1/charges", &choosing("gentle", "gentle", &gentle)).await.status, 202);
    app.submit("quick", &quick).await;
    assert_eq!(app.charge("gentle").await["policy"], "gentle");
    app.run_due().await;
    assert_eq!(app.creates(), 2, "what is submitted in quiet hours is charged at once");

    let quiet_end = in_hours(3).round(jiff::TimestampRound::new().smallest(Unit::Minute).mode(jiff::RoundMode::Trunc));
    let first_retry = quiet_end.expect("a time") + SignedDuration::from_hours(24);
    assert_eq!(next_attempt(&app, "gentle").await, first_retry, "a day later it is quiet: at the end of that");
    app.pass(DAY + 150 * MINUTE, 10 * MINUTE).await;
    assert_eq!(app.creates(), 3);
    assert_eq!(app.state("quick").await, "captured", "the built-in policy knows no quiet hours");
    app.pass(31 * MINUTE, MINUTE).await;
    assert_eq!(app.creates(), 4);

    // Two days later the service is away when the attempt is due, and back when it is quiet again.
    let second_retry = next_attempt(&app, "gentle").await;
    let wait = second_retry.duration_since(first_retry).as_mins();
    assert!((48 * 60..48 * 60 + 10).contains(&wait), "two days after the one before, {wait} minutes");
    let back = second_retry.checked_add(22.hours()).expect("a time");
    app.advance(back.duration_since(app.clock.now()).try_into().expect("ahead"));
    app.run_due().await;
    assert_eq!(app.creates(), 4, "late, and quiet");
    let waits = next_attempt(&app, "gentle").await;
    assert_eq!(wall(waits), to);
    app.pass(3 * HOUR, 10 * MINUTE).await;
    assert_eq!((app.creates(), app.state("gentle").await.as_str()), (5, "captured"));
    assert!(app.clock.now() > waits);
    app.finish().await;
}

#[tokio::test]
async fn a_policy_with_fewer_attempts_gives_up_earlier_than_the_default_one() {
    let app = with_policies("[policies.once]\nmax_attempts = 1\n[policies.short.soft_declined]\nwindow = '2d'").await;
    for (id, policy) in [("once", "once"), ("short", "short"), ("other", "default")] {
        let permission = app.permission();
        decline(&app, &permission, 2);
        assert_eq!(app.post("/v1/charges", &choosing(policy, id, &permission)).await.status, 202);
    }
    app.run_due().await;
    assert_eq!(app.state("once").await, "abandoned");
    app.pass(DAY + 3 * HOUR, HOUR).await;
    assert_eq!(app.state("short").await, "abandoned");
    assert_eq!(app.state("other").await, "scheduled");
    assert_eq!(app.creates(), 5);
    app.finish().await;
}

#[tokio::test]
async fn an_unknown_policy_is_refused_with_the_names_that_are_known_and_another_one_is_another_body() {
    let app = with_policies("[policies.gentle]\nmax_attempts = 2\n[policies.short]\nwindow = '5d'").await;
    let permission = app.permission();
    for wrong in [json!("harsh"), json!("Gentle"), json!(""), json!("x".repeat(500))] {
        let mut body = TestApp::body("renewal", &permission);
        body["policy"] = wrong;
        let answer = app.post("/v1/charges", &body).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        let error = &answer.body["errors"][0];
        assert_eq!(error["field"], "policy");
        assert!(error["message"].as_str().expect("a text").contains("default, gentle, short"), "{error}");
    }
    assert_eq!(app.get("/v1/charges/renewal").await.status, 404);
    let (gentle, short) = (choosing("gentle", "renewal", &permission), choosing("short", "renewal", &permission));
    assert_eq!(app.post("/v1/charges", &gentle).await.status, 202);
    assert_eq!(app.post("/v1/charges", &gentle).await.status, 200);
    assert_eq!(app.post("/v1/charges", &short).await.status, 409);
    assert_eq!(app.post("/v1/charges", &TestApp::body("renewal", &permission)).await.status, 409);
    app.run_due().await;
    let sent = app.ledger();
    assert!(!format!("{sent:?}").contains("gentle"), "the name is ours, not Amazon's");
    app.finish().await;
}

#[tokio::test]
async fn a_policy_that_vanished_from_the_file_is_told_of_once_and_the_charge_goes_on_by_the_default_one() {
    let mut app = with_policies("[policies.gentle.soft_declined]\nschedule = ['20d']").await;
    let permission = app.permission();
    decline(&app, &permission, 2);
    assert_eq!(app.post("/v1/charges", &choosing("gentle", "renewal", &permission)).await.status, 202);
    app.run_due().await;
    let planned = next_attempt(&app, "renewal").await;
    assert!(planned > app.clock.now().checked_add(480.hours()).expect("a time"));

    app.settings.policies = built_in_policy();
    app.restart().await;
    app.pass(2 * DAY, 6 * HOUR).await;
    let missing = |alerts: Vec<Value>| alerts.into_iter().filter(|alert| alert["kind"] == "policy_missing").collect();
    let told: Vec<Value> = missing(app.events_of("account.attention").await);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["id"], &told[0]["policy"]), (&json!("renewal"), &json!("gentle")));
    assert_eq!(next_attempt(&app, "renewal").await, planned, "what is planned stays planned");

    app.pass(21 * DAY, 6 * HOUR).await;
    assert_eq!(app.creates(), 2);
    let after_second = next_attempt(&app, "renewal").await;
    app.pass(4 * DAY, 6 * HOUR).await;
    assert!(after_second <= app.clock.now(), "three days later, as the default policy has it after two declines");
    assert_eq!((app.creates(), app.state("renewal").await.as_str()), (3, "captured"));
    let told: Vec<Value> = missing(app.events_of("account.attention").await);
    assert_eq!(told.len(), 1, "once");
    app.finish().await;
}

#[tokio::test]
async fn a_charge_of_before_there_were_policies_is_recognised_when_it_is_submitted_again() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    let request: String = redis::cmd("HGET")
        .arg(app.store.keys().intent(&"renewal".parse().expect("an id")))
        .arg("request")
        .query_async(&mut app.connection().await)
        .await
        .expect("HGET");
    assert_eq!(
        request,
        format!(
            r#"{{"chargePermissionId":"{permission}","chargeAmount":{{"amount":"14.00","currencyCode":"USD"}},"captureNow":true,"canHandlePendingAuthorization":false}}"#
        ),
        "an upgrade must not change the text that two submissions are compared by"
    );
    app.run_due().await;
    app.finish().await;
}

// --- policy explain ---

fn explained(arguments: &[&str]) -> Output {
    run(&mut program(&[&["policy", "explain", "--from", "2026-01-30T10:00:00Z"], arguments].concat()))
}

#[test]
fn explain_prints_the_times_by_the_merchants_clock_too_and_what_ends_them() {
    let policies = file(
        "[policies.gentle]\nmax_attempts = 3\nquiet_hours = '22:00-12:30'\ntime_zone = 'Europe/Berlin'\njitter.percent = 0",
    );
    let path = policies.path().display().to_string();
    let output = explained(&["--reason", "SoftDeclined", "--policy", "gentle", "--file", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let expected = "SoftDeclined each time, policy gentle, region na, from 2026-01-30T10:00:00Z, clock of Europe/Berlin\n\
        \n\
        \x20 attempt 1  2026-01-30T10:00:00Z  Fri 2026-01-30 11:00:00 CET\n\
        \x20 attempt 2  2026-01-31T11:30:00Z  Sat 2026-01-31 12:30:00 CET\n\
        \x20 attempt 3  2026-02-03T11:30:00Z  Tue 2026-02-03 12:30:00 CET\n\
        \n\
        Given up after attempt 3: the attempts are used up.\n";
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn explain_knows_every_reason_of_the_recovery_table_and_lists_them_for_one_that_it_does_not_know() {
    let output = explained(&["--reason", "Sunspots"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    let known = said.split("known are ").nth(1).expect("a list").trim();
    let table = std::fs::read_to_string("docs/RECOVERY.md").expect("the document");
    let refused = ["UnauthorizedAccess", "InvalidAccountStatus", "InvalidRequestSignature"];
    for reason in known.split(", ") {
        assert!(refused.contains(&reason) || table.contains(&format!("`{reason}`")), "{reason}");
        let output = explained(&["--reason", reason, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{reason}: {}", text(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&answer["reason"], &answer["steps"][0]["attempt"]), (&json!(reason), &json!(1)));
        assert!(answer["ends"][0]["how"].is_string());
    }
    for reason in ["SoftDeclined", "HardDeclined", "PeriodicAmountExceeded", "AmazonRejected", "MFANotCompleted"] {
        assert!(known.split(", ").any(|known| known == reason), "{reason}");
    }
}

#[test]
fn explain_says_all_mistakes_of_the_file_and_which_policies_there_are() {
    let wrong = file("[default]\nwindow = '1h'\n[policies.gentle]\nsoft_declined.schedule = ['1d', '3x']");
    let path = wrong.path().display().to_string();
    let output = explained(&["--reason", "SoftDeclined", "--file", &path]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    for mistake in [
        "default.window: expected 1d to 90d, got \"1h\"",
        "policies.gentle.soft_declined.schedule[1]: expected a duration such as 3d, got \"3x\"",
    ] {
        assert!(said.contains(mistake), "{said}");
    }
    let right = file("[policies.gentle]\nwindow = '5d'");
    let path = right.path().display().to_string();
    let mut by_environment = program(&["policy", "explain", "--from", "2026-01-30T10:00:00Z", "--reason", "x"]);
    let output = run(by_environment.args(["--policy", "harsh"]).env("RECOVERY_POLICY_FILE", &path));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no policy harsh; known are default, gentle"));
}

#[test]
fn explain_warns_of_card_scheme_ceilings() {
    let policies = file("[default]\nmax_attempts = 12\nsoft_declined.schedule = ['1d']");
    let path = policies.path().display().to_string();
    let output = explained(&["--reason", "SoftDeclined", "--file", &path]);
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stdout);
    assert!(said.contains("WARNING: soft_declined: 12 attempts are possible within 30 days; Mastercard"), "{said}");
    assert!(!said.contains("Visa"), "{said}");
}

#[tokio::test]
async fn a_limit_that_was_lengthened_leaves_no_charge_due_over_and_over() {
    let mut app = with_policies("[default.hard_declined]\nwindow = '9d 12h'").await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.pass(9 * DAY + 6 * HOUR, 6 * HOUR).await;
    assert_eq!(app.state("renewal").await, "parked");

    app.settings.policies = built_in_policy();
    app.restart().await;
    // Past the old end, and before the next look.
    app.pass(7 * HOUR, 7 * HOUR).await;
    app.advance(MINUTE);
    let step = app.reconciler.step().await.expect("a step");
    assert!(matches!(step, StepOutcome::Idle), "it is due again, with nothing to do: {step:?}");
    assert_eq!(app.state("renewal").await, "parked");
    app.finish().await;
}
