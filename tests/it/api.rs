//! The internal API: who may use it, what it answers, and what it says about mistakes.

use std::time::Duration;

use amazon_pay_ipn::sandbox::{DeclineCode, Fault, Operation, Outcome};
use serde_json::json;

use crate::support::{DAY, HOUR, MINUTE, TestApp};

#[tokio::test]
async fn the_api_needs_the_token_and_the_probes_do_not() {
    let app = TestApp::start().await;
    for path in ["/v1/charges/x", "/v1/stop"] {
        let url = format!("{}{path}", app.internal);
        assert_eq!(app.http.get(&url).send().await.expect("an answer").status(), 401);
        for token in ["", "wrong", "a-token-for-tests-onlyx", "a-token-for-tests-onl"] {
            assert_eq!(app.http.get(&url).bearer_auth(token).send().await.expect("an answer").status(), 401, "{token}");
        }
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(
            app.http.get(format!("{}{path}", app.internal)).send().await.expect("an answer").status(),
            200,
            "{path}"
        );
    }
    app.finish().await;
}

#[tokio::test]
async fn a_bad_body_is_refused_with_problem_details_that_name_the_field() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let mut body = TestApp::body("renewal", &permission);
    body["softDescriptor"] = json!("far too long to be one");
    body["chargeAmount"]["currencyCode"] = json!("JPY");
    body["merchantMetadata"] = json!({ "customInformation": "mine" });
    let url = format!("{}/v1/charges", app.internal);
    let response =
        app.http.post(url).bearer_auth(crate::support::TOKEN).body(body.to_string()).send().await.expect("an answer");
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value = serde_json::from_str(&response.text().await.expect("a body")).expect("JSON");
    assert_eq!(problem["status"], 400);
    let mut fields: Vec<_> =
        problem["errors"].as_array().expect("errors").iter().map(|error| error["field"].clone()).collect();
    fields.sort_by_key(ToString::to_string);
    assert_eq!(fields, ["chargeAmount.currencyCode", "merchantMetadata.customInformation", "softDescriptor"]);
    app.finish().await;
}

#[tokio::test]
async fn the_same_submission_again_shows_the_state_and_another_body_is_a_conflict() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    let again = app.post("/v1/charges", &TestApp::body("renewal", &permission)).await;
    assert_eq!((again.status, again.body["state"].as_str()), (200, Some("scheduled")));
    app.run_due().await;
    let mut same_money = TestApp::body("renewal", &permission);
    same_money["chargeAmount"]["amount"] = json!("14");
    let again = app.post("/v1/charges", &same_money).await;
    assert_eq!((again.status, again.body["state"].as_str()), (200, Some("captured")));
    let mut other = TestApp::body("renewal", &permission);
    other["chargeAmount"]["amount"] = json!("15.00");
    assert_eq!(app.post("/v1/charges", &other).await.status, 409);
    app.run_due().await;
    assert_eq!(app.creates(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_charge_waits_for_its_not_before() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let mut body = TestApp::body("renewal", &permission);
    body["notBefore"] = json!(app.clock.now().checked_add(jiff::SignedDuration::from_hours(72)).expect("a time"));
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.pass(3 * DAY - HOUR, 12 * HOUR).await;
    assert_eq!(app.creates(), 0);
    app.pass(2 * HOUR, HOUR).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_cancellation_before_the_first_send_is_final_and_repeatable() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    for _ in 0..2 {
        let answer = app.delete("/v1/charges/renewal").await;
        assert_eq!((answer.status, answer.body["state"].as_str()), (200, Some("canceled")));
    }
    app.run_due().await;
    assert_eq!(app.creates(), 0);
    assert_eq!(app.events_of("charge.canceled").await.len(), 1);
    assert_eq!(app.delete("/v1/charges/unknown").await.status, 404);
    assert_eq!(app.get("/v1/charges/unknown").await.status, 404);
    assert_eq!(app.get("/v1/charges/not%20an%20id").await.status, 400);
    app.finish().await;
}

#[tokio::test]
async fn a_waiting_retry_can_be_canceled_for_good() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 200);
    app.pass(3 * DAY, 6 * HOUR).await;
    assert_eq!(app.creates(), 1);
    app.finish().await;
}

#[tokio::test]
async fn the_metrics_count_what_happened() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.deliver_all().await;
    let page = app.get("/metrics").await.body;
    let page = page.as_str().expect("text");
    for name in [
        "amazon_pay_ipn_messages_total",
        "amazon_pay_ipn_answer_seconds",
        "amazon_pay_ipn_charges_sent_total",
        "amazon_pay_ipn_reconciliation_seconds",
        "amazon_pay_ipn_redis_script_seconds",
        "amazon_pay_ipn_entries",
    ] {
        assert!(page.contains(name), "{name} is missing:\n{page}");
    }
    app.run_due().await;
    app.finish().await;
}

#[tokio::test]
async fn the_metrics_tell_what_is_due_what_amazon_takes_and_what_was_recovered() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.advance(MINUTE);
    let page = app.get("/metrics").await.body;
    let gauge = |page: &serde_json::Value, name: &str| {
        let line = page.as_str().expect("text").lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("{name} is missing"))
    };
    // Other tests of this process write the same gauges; what is ours the store tells.
    assert!(gauge(&page, "amazon_pay_ipn_due") >= 0.0 && gauge(&page, "amazon_pay_ipn_oldest_due_seconds") >= 0.0);
    let levels = app.store.levels().await.expect("Redis answers");
    assert_eq!((levels.due, levels.oldest_due.as_secs()), (1, 60));
    app.pass(2 * DAY, 6 * HOUR).await;
    assert_eq!(app.state("renewal").await, "captured");
    let levels = app.store.levels().await.expect("Redis answers");
    assert_eq!((levels.due, levels.oldest_due), (0, Duration::ZERO));
    let page = app.get("/metrics").await.body;
    for part in [
        "amazon_pay_ipn_charges_ended_total{end=\"recovered\",reason=\"SoftDeclined\"} ",
        "amazon_pay_ipn_money_recovered{currency=\"USD\"} ",
        "amazon_pay_ipn_amazon_seconds_count{operation=\"create_charge\",status=\"2xx\"} ",
        "amazon_pay_ipn_amazon_seconds_count{operation=\"create_charge\",status=\"4xx\"} ",
    ] {
        assert!(page.as_str().expect("text").contains(part), "{part} is missing");
    }
    app.finish().await;
}

#[tokio::test]
async fn errors_of_the_api_are_problem_details_whoever_raises_them() {
    let app = TestApp::start().await;
    let large = json!({ "id": "x".repeat(65 * 1024) });
    for (answer, status) in [
        (app.post("/v1/charges", &large).await, 413),
        (app.delete("/v1/charges").await, 405),
        (app.get("/v1/nothing").await, 404),
    ] {
        assert_eq!(
            (answer.status, answer.body["status"].as_u64()),
            (status, Some(u64::from(status))),
            "{}",
            answer.body
        );
    }
    app.finish().await;
}

#[tokio::test]
async fn a_parked_charge_shows_until_when_it_waits_and_where_the_buyer_mends_it() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    let charge = app.charge("renewal").await;
    let asked = &app.events_of("charge.action_required").await[0];
    assert_eq!(charge["parkedFor"], "instrument");
    assert_eq!((&charge["updateUrl"], &charge["parkedUntil"]), (&asked["updateUrl"], &asked["before"]));
    assert!(charge["updateUrl"].as_str().is_some_and(|url| url.contains(&permission)), "{charge}");
    assert_eq!(app.events_of("charge.parked").await[0]["parkedUntil"], charge["parkedUntil"]);
    let listed = app.get("/v1/charges?state=parked").await.body["charges"][0].clone();
    assert_eq!((&listed["parkedUntil"], &listed["updateUrl"]), (&charge["parkedUntil"], &charge["updateUrl"]));
    let open = app.get(&format!("/v1/charge-permissions/{permission}")).await.body["openCharges"][0].clone();
    assert_eq!(open["parkedUntil"], charge["parkedUntil"]);

    let time = |field: &str| charge[field].as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time");
    let (since, until) = (time("parkedSince"), time("parkedUntil"));
    assert!(since <= app.clock.now() && app.clock.now().duration_since(since) < jiff::SignedDuration::from_mins(1));
    let left: std::time::Duration = until.duration_since(app.clock.now()).try_into().expect("in the future");
    app.pass(left.checked_sub(HOUR).expect("days"), 12 * HOUR).await;
    assert_eq!(app.state("renewal").await, "parked", "an hour before");
    app.pass(2 * HOUR, HOUR).await;
    let ended = app.charge("renewal").await;
    assert_eq!(ended["state"], "abandoned", "an hour after");
    for field in ["parkedFor", "parkedSince", "parkedUntil", "updateUrl"] {
        assert!(ended.get(field).is_none(), "{field}: {ended}");
    }
    app.finish().await;
}

#[tokio::test]
async fn what_waits_for_a_person_shows_until_when_and_no_link_for_the_buyer() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.inject(Operation::CreateCharge, Fault::status(418, "Teapot"));
    app.submit("renewal", &permission).await;
    app.run_due().await;
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["parkedFor"], charge.get("updateUrl")), (&json!("attention"), None));
    assert!(charge["parkedUntil"].is_string());
    assert_eq!(app.events_of("charge.parked").await[0]["parkedUntil"], charge["parkedUntil"]);
    app.finish().await;
}

#[tokio::test]
async fn what_is_captured_or_canceled_does_not_look_declined_in_its_body_or_in_lists() {
    let app = TestApp::start().await;
    for id in ["captured", "canceled"] {
        let permission = app.permission();
        app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
        app.submit(id, &permission).await;
    }
    app.run_due().await;
    let waiting = app.charge("captured").await;
    assert_eq!((&waiting["reasonCode"], waiting.get("lastReason")), (&json!("SoftDeclined"), None));
    assert_eq!(app.delete("/v1/charges/canceled").await.status, 200);
    app.pass(2 * DAY, 6 * HOUR).await;
    for state in ["captured", "canceled"] {
        let charge = app.charge(state).await;
        assert_eq!((&charge["state"], charge.get("reasonCode")), (&json!(state), None), "{charge}");
        assert_eq!(charge["lastReason"], "SoftDeclined", "what it took is still told");
        let of_the_reason = app.get(&format!("/v1/charges?state={state}&reason=SoftDeclined")).await;
        assert_eq!(of_the_reason.body["charges"], json!([]));
        let listed = app.get(&format!("/v1/charges?state={state}")).await.body["charges"][0].clone();
        assert_eq!((&listed["id"], &listed["lastReason"]), (&json!(state), &json!("SoftDeclined")));
    }
    app.finish().await;
}

#[tokio::test]
async fn the_attempts_of_a_charge_are_those_of_its_last_event_however_it_ends() {
    let app = TestApp::start().await;
    for (id, first, attempts) in [
        ("at-once", None, 1),
        ("at-the-second", Some(DeclineCode::SoftDeclined), 2),
        ("rejected", Some(DeclineCode::AmazonRejected), 0),
        ("parked", Some(DeclineCode::HardDeclined), 1),
        ("given-up", Some(DeclineCode::HardDeclined), 1),
    ] {
        let permission = app.permission();
        if let Some(code) = first {
            app.sandbox.script_charge(&permission, Outcome::Decline(code)).expect("a permission");
        }
        app.submit(id, &permission).await;
        app.run_due().await;
        if id != "parked" {
            app.pass(if id == "given-up" { 31 * DAY } else { 2 * DAY }, 12 * HOUR).await;
        }
        let events = app.events().await;
        let of_it = |event: &std::collections::HashMap<String, String>| {
            let data: serde_json::Value = serde_json::from_str(&event["data"]).expect("JSON");
            (data["id"] == id && event["type"].contains(".charge.")).then_some(data)
        };
        let last = events.iter().filter_map(of_it).next_back().expect("an event");
        let charge = app.charge(id).await;
        assert_eq!((&charge["attempts"], &last["attempts"]), (&json!(attempts), &json!(attempts)), "{id}: {charge}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_cancellation_under_way_is_answered_by_the_charge_itself() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    app.submit("renewal", &permission).await;
    app.run_due().await;
    let answer = app.delete("/v1/charges/renewal").await;
    assert_eq!(answer.status, 202);
    assert_eq!((&answer.body["canceling"], &answer.body["mayStillCharge"]), (&json!(true), &json!(true)));
    assert_eq!(answer.body, app.charge("renewal").await);
    app.pass(HOUR, 5 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured", "finding out made the charge");
    app.finish().await;
}
