//! What an operator does with one charge or permission: find it, try it now, pause it, resolve it; and the switch for everything.

use std::time::Duration;

use amazon_pay_ipn::app::App;
use amazon_pay_ipn::reconciler::StepOutcome;
use amazon_pay_ipn::recovery::wishes::new_number;
use amazon_pay_ipn::sandbox::{DeclineCode, Fault, Gate, Operation, Outcome, Reading};
use amazon_pay_ipn::store::account::Init;
use amazon_pay_ipn::store::actions::{Resolution, Resolved};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Answer, DAY, HOUR, MINUTE, TOKEN, TestApp, X, metrics};

async fn retry(app: &TestApp, id: &str) -> Answer {
    app.post(&format!("/v1/charges/{id}/retry"), &json!({})).await
}

async fn resolve(app: &TestApp, id: &str, body: Value) -> Answer {
    app.post(&format!("/v1/charges/{id}/resolve"), &body).await
}

fn decline(app: &TestApp, permission: &str, code: DeclineCode) {
    app.sandbox.script_charge(permission, Outcome::Decline(code)).expect("a permission");
}

fn detail(answer: &Answer) -> &str {
    answer.body["detail"].as_str().expect("a detail")
}

/// The ids on all pages.
async fn listed(app: &TestApp, query: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut path = format!("/v1/charges?{query}");
    loop {
        let answer = app.get(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let charges = answer.body["charges"].as_array().expect("charges").clone();
        ids.extend(charges.iter().map(|charge| charge["id"].as_str().expect("an id").to_owned()));
        match answer.body["nextCursor"].as_str() {
            Some(cursor) => path = format!("/v1/charges?{query}&cursor={cursor}"),
            None => return ids,
        }
    }
}

/// A second instance of the service on the same Redis: its address, and what stops it.
async fn second_instance(app: &TestApp) -> (String, App) {
    let second = App::start(app.settings.clone(), app.clock.clone(), metrics()).await.expect("the service starts");
    (format!("http://{}", second.internal_addr().expect("an address")), second)
}

fn step(app: &TestApp) -> tokio::task::JoinHandle<StepOutcome> {
    let reconciler = app.reconciler.clone();
    tokio::spawn(async move { reconciler.step().await.expect("Redis answers") })
}

// --- Lists ---

#[tokio::test]
async fn charges_are_found_by_state_and_reason_wherever_they_move() {
    let app = TestApp::start().await;
    let (one, two, three) = (app.permission(), app.permission(), app.permission());
    decline(&app, &one, DeclineCode::SoftDeclined);
    decline(&app, &two, DeclineCode::HardDeclined);
    for (id, permission) in [("soft", &one), ("hard", &two), ("fine", &three)] {
        app.submit(id, permission).await;
    }
    assert_eq!(listed(&app, "state=scheduled").await, ["fine", "hard", "soft"]);
    app.run_due().await;
    assert_eq!(listed(&app, "state=scheduled").await, ["soft"]);
    assert_eq!(listed(&app, "state=scheduled&reason=SoftDeclined").await, ["soft"]);
    assert_eq!(listed(&app, "state=scheduled&reason=Soft").await, Vec::<String>::new());
    assert_eq!(listed(&app, "state=parked&reason=HardDeclined").await, ["hard"]);
    assert_eq!(listed(&app, "reason=HardDeclined").await, ["hard"]);
    assert_eq!(listed(&app, "state=captured").await, ["fine"]);
    assert_eq!(listed(&app, "").await.len(), 3);
    assert_eq!(listed(&app, &format!("chargePermissionId={two}")).await, ["hard"]);
    assert_eq!(listed(&app, &format!("chargePermissionId={two}&state=captured")).await, Vec::<String>::new());
    assert_eq!(app.delete("/v1/charges/soft").await.status, 200);
    assert_eq!(listed(&app, "state=canceled").await, ["soft"]);
    assert_eq!(listed(&app, "state=scheduled").await, Vec::<String>::new());
    app.finish().await;
}

#[tokio::test]
async fn a_list_is_read_in_pages_that_leave_nothing_out() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let mut ids: Vec<String> = (0..11).map(|n| format!("renewal-{n:02}")).collect();
    for id in &ids {
        app.submit(id, &permission).await;
    }
    assert_eq!(listed(&app, "state=scheduled&limit=4").await, ids);
    assert_eq!(listed(&app, "limit=1").await, ids);
    let page = app.get("/v1/charges?limit=4").await.body;
    assert_eq!(page["charges"].as_array().expect("charges").len(), 4);
    for id in ids.drain(..) {
        assert_eq!(app.delete(&format!("/v1/charges/{id}")).await.status, 200);
    }
    app.run_due().await;
    app.finish().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_list_is_said() {
    let app = TestApp::start().await;
    for (query, field) in [
        ("state=lost", "state"),
        ("outcome=verified", "outcome"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("cursor=68656c64", "cursor"),
        ("chargePermissionId=a%2Fb", "chargePermissionId"),
        ("color=red", "color"),
        ("limit=many", "limit"),
        ("state=held&state=parked", "state"),
    ] {
        let answer = app.get(&format!("/v1/charges?{query}")).await;
        assert_eq!((answer.status, answer.body["errors"][0]["field"].as_str()), (400, Some(field)), "{}", answer.body);
    }
    app.finish().await;
}

#[tokio::test]
async fn charges_of_a_version_without_lists_are_put_into_them_and_those_that_have_gone_are_taken_out() {
    let app = TestApp::start().await;
    let (one, two) = (app.permission(), app.permission());
    app.submit("open", &one).await;
    app.submit("ended", &two).await;
    assert_eq!(app.delete("/v1/charges/ended").await.status, 200);
    let keys = app.store.keys();
    let mut connection = app.connection().await;
    let () = redis::cmd("DEL").arg(keys.lists()).query_async(&mut connection).await.expect("DEL");
    for id in ["open", "ended"] {
        let key = keys.intent(&id.parse().expect("an id"));
        let () = redis::cmd("HDEL")
            .arg(key)
            .arg(&["listed_in", "listed_as"])
            .query_async(&mut connection)
            .await
            .expect("HDEL");
    }
    assert_eq!(app.store.fill_lists().await.expect("Redis answers"), None, "this account has lists");
    let () = redis::cmd("HDEL").arg(keys.marker()).arg("listed").query_async(&mut connection).await.expect("HDEL");
    assert_eq!(listed(&app, "").await, Vec::<String>::new());
    assert_eq!(app.store.fill_lists().await.expect("Redis answers"), Some(2));
    assert_eq!(app.store.fill_lists().await.expect("Redis answers"), None);
    assert_eq!(listed(&app, "").await, ["open", "ended"]);

    assert_eq!(app.store.trim_lists().await.expect("Redis answers"), 0);
    app.advance(401 * DAY);
    assert_eq!(app.store.trim_lists().await.expect("Redis answers"), 0, "it is still there");
    let () = redis::cmd("DEL")
        .arg(keys.intent(&"ended".parse().expect("an id")))
        .query_async(&mut connection)
        .await
        .expect("DEL");
    app.advance(2 * DAY);
    assert_eq!(app.store.trim_lists().await.expect("Redis answers"), 1);
    let left: usize =
        redis::cmd("ZCARD").arg(keys.index("canceled")).query_async(&mut connection).await.expect("ZCARD");
    let due: usize = redis::cmd("ZCARD").arg(keys.index_expiry()).query_async(&mut connection).await.expect("ZCARD");
    assert_eq!((left, due), (0, 0));
    assert_eq!(listed(&app, "").await, ["open"]);
    assert_eq!(app.delete("/v1/charges/open").await.status, 200);
    app.run_due().await;
    app.finish().await;
}

#[tokio::test]
async fn an_intent_that_was_submitted_anew_after_it_was_forgotten_stays_where_it_is_listed() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 200);
    let key = app.store.keys().intent(&"renewal".parse().expect("an id"));
    let () = redis::cmd("DEL").arg(&key).query_async(&mut app.connection().await).await.expect("DEL");
    app.submit("renewal", &permission).await;
    app.advance(401 * DAY);
    assert_eq!(app.store.trim_lists().await.expect("Redis answers"), 1);
    assert_eq!(listed(&app, "").await, ["renewal"]);
    app.finish().await;
}

// --- Retry ---

#[tokio::test]
async fn a_retry_makes_a_waiting_charge_due_now_and_the_look_still_comes_first() {
    let app = TestApp::start().await;
    let permission = app.permission();
    decline(&app, &permission, DeclineCode::SoftDeclined);
    app.submit("renewal", &permission).await;
    app.run_due().await;
    let looks = app.ledger().requests_of(Operation::GetChargePermission).len();
    app.advance(X);
    let asked = retry(&app, "renewal").await;
    assert_eq!((asked.status, &asked.body["retrying"]), (202, &json!(true)), "the planned time is still the old one");
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.events_of("charge.captured").await[0]["recoveredBy"], "operator");
    assert_eq!(app.ledger().requests_of(Operation::GetChargePermission).len(), looks + 1);
    app.finish().await;
}

#[tokio::test]
async fn a_retry_releases_a_parked_charge_once_whatever_it_waits_for() {
    let app = TestApp::start().await;
    let (buyer, person) = (app.permission(), app.permission());
    for _ in 0..2 {
        let outcome = Outcome::DeclineStayingChargeable(DeclineCode::HardDeclined);
        app.sandbox.script_charge(&buyer, outcome).expect("a permission");
    }
    app.submit("buyer", &buyer).await;
    app.run_due().await;
    app.sandbox.inject(Operation::CreateCharge, Fault::status(400, "InvalidParameterValue"));
    app.submit("person", &person).await;
    app.run_due().await;
    assert_eq!(app.charge("person").await["parkedFor"], "attention");
    assert_eq!(app.creates(), 2);
    for id in ["buyer", "person"] {
        assert_eq!(retry(&app, id).await.status, 202);
    }
    app.run_due().await;
    assert_eq!((app.state("buyer").await.as_str(), app.state("person").await.as_str()), ("parked", "captured"));
    app.pass(2 * DAY, 6 * HOUR).await;
    assert_eq!(app.creates(), 4, "one release each");
    app.finish().await;
}

#[tokio::test]
async fn a_retry_respects_the_maximum_the_closing_and_the_month() {
    let app = TestApp::start().await;
    let (tired, over, month) = (app.permission(), app.permission(), app.permission());
    for _ in 0..5 {
        decline(&app, &tired, DeclineCode::SoftDeclined);
    }
    app.submit("tired", &tired).await;
    app.run_due().await;
    for _ in 0..4 {
        assert_eq!(retry(&app, "tired").await.status, 202);
        app.run_due().await;
    }
    assert_eq!((app.state("tired").await.as_str(), app.creates()), ("abandoned", 5));
    let ended = retry(&app, "tired").await;
    assert_eq!(ended.status, 409);
    assert!(detail(&ended).contains("abandoned"), "{}", ended.body);

    decline(&app, &over, DeclineCode::SoftDeclined);
    app.submit("over", &over).await;
    app.run_due().await;
    app.sandbox.buyer_closes(&over).expect("a permission");
    assert_eq!(retry(&app, "over").await.status, 202);
    app.run_due().await;
    assert_eq!((app.state("over").await.as_str(), app.creates()), ("abandoned", 6));

    app.sandbox.inject(Operation::CreateCharge, Fault::status(422, "PeriodicAmountExceeded"));
    app.submit("month", &month).await;
    app.run_due().await;
    assert_eq!(retry(&app, "month").await.status, 202);
    app.run_due().await;
    assert_eq!((app.state("month").await.as_str(), app.creates()), ("captured", 8));
    assert_eq!(retry(&app, "unknown").await.status, 404);
    app.finish().await;
}

/// The confirmation at last mark + X is the rule that keeps a delayed copy from charging twice.
#[tokio::test]
async fn a_retry_brings_no_confirmation_forward_and_asks_again_about_silence() {
    let app = TestApp::start().await;
    let (confirmed, silent) = (app.permission(), app.permission());
    app.sandbox.inject(Operation::CreateCharge, Fault::status(500, "ProcessingFailure"));
    app.submit("confirmed", &confirmed).await;
    app.run_due().await;
    let refused = retry(&app, "confirmed").await;
    assert_eq!(refused.status, 409);
    assert!(detail(&refused).contains("could charge twice"), "{}", refused.body);
    // Nor by a wish that comes in another way: between the look at the plan and the script, for example.
    let stored =
        app.store.charge(&"confirmed".parse().expect("an id")).await.expect("Redis answers").expect("a charge");
    app.store.retry_charge(&stored.intent).await.expect("Redis answers");
    app.run_due().await;
    app.pass(X - 2 * MINUTE, 2 * MINUTE).await;
    assert_eq!(app.creates(), 1);
    app.pass(4 * MINUTE, 2 * MINUTE).await;
    assert_eq!((app.state("confirmed").await.as_str(), app.creates()), ("captured", 2));

    for _ in 0..4 {
        app.sandbox.inject(Operation::CreateCharge, Fault::DropBefore);
    }
    app.submit("silent", &silent).await;
    app.run_due().await;
    app.pass(30 * MINUTE, MINUTE).await;
    let creates = app.creates();
    assert_eq!(app.charge("silent").await["numberStatus"], "unknown");
    assert_eq!(retry(&app, "silent").await.status, 202);
    app.run_due().await;
    assert_eq!(app.creates(), creates + 1, "a repeat may go out any time");
    app.pass(DAY, HOUR).await;
    assert_eq!(app.state("silent").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_wish_to_retry_outlives_a_crash_and_is_not_lost_to_a_commit_that_did_not_see_it() {
    let mut app = TestApp::start().await;
    let permission = app.permission();
    decline(&app, &permission, DeclineCode::SoftDeclined);
    // It comes while the first attempt is under way, whose commit writes the charge.
    let gate = Gate::new();
    app.sandbox.inject(Operation::CreateCharge, Fault::HoldAfter(gate.clone()));
    app.submit("renewal", &permission).await;
    let under_way = step(&app);
    gate.reached().await;
    assert_eq!(retry(&app, "renewal").await.status, 202);
    gate.release();
    under_way.await.expect("no panic");
    assert_eq!((app.creates(), &app.charge("renewal").await["attempts"]), (1, &json!(1)));
    let stored = app.store.charge(&"renewal".parse().expect("an id")).await.expect("Redis answers").expect("a charge");
    assert!(stored.intent.wishes.retry.is_some(), "a commit that did not see it leaves it");
    // Its worker dies before it sends.
    let gate = Gate::new();
    app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
    let dying = step(&app);
    gate.reached().await;
    dying.abort();
    let _ = dying.await;
    gate.release();
    app.restart().await;
    app.advance(4 * MINUTE);
    app.run_due().await;
    assert_eq!((app.state("renewal").await.as_str(), app.creates()), ("captured", 2));
    app.finish().await;
}

// --- Pause ---

#[tokio::test]
async fn a_paused_charge_is_not_sent_keeps_its_state_and_goes_on_when_it_is_resumed() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    for _ in 0..2 {
        let paused = app.post("/v1/charges/renewal/pause", &json!({})).await;
        assert_eq!((paused.status, &paused.body["paused"]), (200, &json!(true)));
    }
    let since = app.charge("renewal").await["pausedSince"].clone();
    assert!(since.is_string());
    let refused = retry(&app, "renewal").await;
    assert_eq!(refused.status, 409);
    assert!(detail(&refused).contains("paused"), "{}", refused.body);
    app.pass(60 * DAY, 12 * HOUR).await;
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["state"], &charge["pausedSince"]), (&json!("scheduled"), &since));
    assert_eq!(app.creates(), 0);
    let looks = app.ledger().requests_of(Operation::GetChargePermission).len();
    assert!((50..70).contains(&looks), "looks go on daily: {looks}");
    let resumed = app.post("/v1/charges/renewal/resume", &json!({})).await;
    assert_eq!((resumed.status, &resumed.body["paused"]), (200, &json!(false)));
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured", "the window stood still");
    assert_eq!(app.post("/v1/charges/renewal/resume", &json!({})).await.status, 409);
    assert_eq!(app.post("/v1/charges/renewal/pause", &json!({})).await.status, 409);
    assert_eq!(app.post("/v1/charges/nobody/pause", &json!({})).await.status, 404);
    let kinds = app.event_kinds().await;
    assert_eq!(
        kinds,
        ["charge.scheduled", "charge.paused", "charge.resumed", "charge.attempted", "charge.captured"],
        "pausing twice is one pause"
    );
    assert_eq!(app.events_of("charge.paused").await[0]["by"], "charge");
    app.finish().await;
}

#[tokio::test]
async fn the_time_of_a_retry_that_lies_ahead_outlives_a_pause() {
    let app = TestApp::start().await;
    let permission = app.permission();
    decline(&app, &permission, DeclineCode::SoftDeclined);
    app.submit("renewal", &permission).await;
    app.run_due().await;
    let planned = app.charge("renewal").await["nextAttemptAt"].clone();
    assert_eq!(app.post("/v1/charges/renewal/pause", &json!({})).await.status, 200);
    app.run_due().await;
    app.pass(6 * HOUR, HOUR).await;
    assert_eq!(app.post("/v1/charges/renewal/resume", &json!({})).await.status, 200);
    app.run_due().await;
    assert_eq!(app.charge("renewal").await["nextAttemptAt"], planned);
    assert_eq!(app.creates(), 1);
    app.pass(22 * HOUR, HOUR).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_pause_that_was_answered_by_one_instance_is_seen_by_the_mark_of_another() {
    let app = TestApp::start().await;
    for by_permission in [false, true] {
        let permission = app.permission();
        let id = format!("renewal-{by_permission}");
        let (address, second) = second_instance(&app).await;
        let stop = CancellationToken::new();
        let served = tokio::spawn(second.serve_until(stop.clone().cancelled_owned()));
        let gate = Gate::new();
        app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
        app.submit(&id, &permission).await;
        let under_way = step(&app);
        gate.reached().await;
        let of = if by_permission { format!("charge-permissions/{permission}") } else { format!("charges/{id}") };
        let url = |what: &str| format!("{address}/v1/{of}/{what}");
        let answer = app.http.post(url("pause")).bearer_auth(TOKEN).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        gate.release();
        under_way.await.expect("no panic");
        app.pass(HOUR, 5 * MINUTE).await;
        assert_eq!(app.creates(), usize::from(by_permission), "it was decided and signed, and not marked");
        assert_eq!(app.charge(&id).await["numberStatus"], "fresh");
        assert_eq!(app.http.post(url("resume")).bearer_auth(TOKEN).send().await.expect("an answer").status(), 200);
        app.run_due().await;
        assert_eq!(app.state(&id).await, "captured");
        stop.cancel();
        served.await.expect("no panic").expect("an orderly end");
    }
    app.finish().await;
}

#[tokio::test]
async fn an_unknown_number_is_not_asked_about_while_it_is_paused() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.charge("renewal").await["numberStatus"], "unknown");
    assert_eq!(app.post("/v1/charges/renewal/pause", &json!({})).await.status, 200);
    app.pass(40 * DAY, 6 * HOUR).await;
    assert_eq!((app.creates(), app.state("renewal").await.as_str()), (1, "scheduled"), "nor is it given up");
    assert_eq!(app.post("/v1/charges/renewal/resume", &json!({})).await.status, 200);
    app.run_due().await;
    assert_eq!((app.creates(), app.state("renewal").await.as_str()), (2, "captured"));
    app.finish().await;
}

#[tokio::test]
async fn what_a_notification_finds_is_taken_note_of_while_a_charge_is_paused() {
    let app = TestApp::start().await;
    let (mended, over) = (app.permission(), app.permission());
    for (id, permission) in [("mended", &mended), ("over", &over)] {
        decline(&app, permission, DeclineCode::HardDeclined);
        app.submit(id, permission).await;
        app.run_due().await;
        assert_eq!(app.post(&format!("/v1/charges/{id}/pause"), &json!({})).await.status, 200);
    }
    app.advance(HOUR);
    app.sandbox.buyer_updates_instrument(&mended, "MasterCard ****2222").expect("a permission");
    app.sandbox.buyer_closes(&over).expect("a permission");
    app.deliver_all().await;
    app.run_due().await;
    assert_eq!(app.state("over").await, "abandoned");
    assert_eq!((app.creates(), app.state("mended").await.as_str()), (2, "scheduled"));
    assert_eq!(app.post("/v1/charges/mended/resume", &json!({})).await.status, 200);
    app.run_due().await;
    assert_eq!(app.state("mended").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_paused_permission_holds_all_its_charges_and_those_to_come_until_it_is_resumed() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.submit("first", &permission).await;
    let path = format!("/v1/charge-permissions/{permission}");
    let paused = app.post(&format!("{path}/pause"), &json!({})).await;
    assert_eq!((paused.status, &paused.body["paused"]), (200, &json!(true)));
    let shown = app.get(&path).await.body;
    assert_eq!((&shown["paused"], &shown["pausedSince"]), (&json!(true), &paused.body["pausedSince"]));
    assert!(shown["pausedSince"].is_string(), "{shown}");
    let waits_for = shown["openCharges"][0]["waitsFor"].as_str().expect("text");
    assert!(waits_for.contains("it is paused"), "{waits_for}");
    app.submit("second", &permission).await;
    assert_eq!(app.charge("second").await["pausedBy"], json!(["charge_permission"]));
    assert_eq!(app.post("/v1/charges/second/pause", &json!({})).await.status, 200);
    app.pass(2 * DAY, 6 * HOUR).await;
    assert_eq!(app.creates(), 0);
    assert_eq!(app.delete("/v1/charges/first").await.status, 200, "a cancellation needs no send");
    let resumed = app.post(&format!("{path}/resume"), &json!({})).await;
    assert_eq!((resumed.status, &resumed.body["pausedSince"]), (200, &Value::Null));
    assert_eq!(app.get(&path).await.body["paused"], json!(false));
    app.run_due().await;
    assert_eq!((app.creates(), app.charge("second").await["pausedBy"].clone()), (0, json!(["charge"])));
    assert_eq!(app.post("/v1/charges/second/resume", &json!({})).await.status, 200);
    app.run_due().await;
    assert_eq!(app.state("second").await, "captured");
    let by: Vec<_> = app.events_of("charge.paused").await.iter().map(|event| event["by"].clone()).collect();
    assert_eq!(by, ["charge_permission", "charge"]);
    assert_eq!(app.post("/v1/charge-permissions/C01-none/pause", &json!({})).await.status, 404);
    let wrong = app.post("/v1/charge-permissions/a%20b/pause", &json!({})).await;
    assert_eq!((wrong.status, &wrong.body["errors"][0]["field"]), (400, &json!("chargePermissionId")));
    app.finish().await;
}

/// The window is 30 days. Each kind of standstill takes 10 days; together, overlapping, they take 20.
#[tokio::test]
async fn time_that_stood_still_for_several_reasons_counts_once() {
    let app = TestApp::start().await;
    let permission = app.permission();
    decline(&app, &permission, DeclineCode::HardDeclined);
    app.submit("renewal", &permission).await;
    app.run_due().await;
    let post = async |path: String| assert_eq!(app.post(&path, &json!({})).await.status, 200, "{path}");
    let still = async || {
        let id = "renewal".parse().expect("an id");
        let stored = app.store.charge(&id).await.expect("Redis answers").expect("a charge");
        Duration::from_millis(stored.intent.stopped_ms.try_into().expect("a span"))
    };
    let days = |span: Duration| (span + 12 * HOUR).as_secs() / 86_400;
    let whole = format!("/v1/charge-permissions/{permission}");
    post("/v1/charges/renewal/pause".to_owned()).await;
    app.pass(5 * DAY, DAY).await;
    post(format!("{whole}/pause")).await;
    app.pass(5 * DAY, DAY).await;
    post("/v1/charges/renewal/resume".to_owned()).await;
    assert_eq!(days(still().await), 10);
    post("/v1/stop".to_owned()).await;
    app.pass(5 * DAY, DAY).await;
    post(format!("{whole}/resume")).await;
    assert_eq!(days(still().await), 15);
    app.pass(5 * DAY, DAY).await;
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    assert_eq!(days(still().await), 20);
    app.pass(5 * DAY, DAY).await;
    assert_eq!(days(still().await), 20, "it runs again");
    app.pass(24 * DAY, DAY).await;
    assert_eq!(app.state("renewal").await, "parked");
    app.pass(2 * DAY, 12 * HOUR).await;
    assert_eq!(app.state("renewal").await, "abandoned");
    app.finish().await;
}

// --- Resolve ---

/// A charge that is held because Amazon says that another request has its key. No charge exists.
async fn held(app: &TestApp, id: &str) -> String {
    let permission = app.permission();
    app.sandbox.inject(Operation::CreateCharge, Fault::status(400, "DuplicateIdempotencyKey"));
    app.submit(id, &permission).await;
    app.run_due().await;
    assert_eq!(app.state(id).await, "held");
    permission
}

#[tokio::test]
async fn a_held_charge_goes_on_with_a_new_number_only_after_x_and_the_typed_sentence() {
    let app = TestApp::start().await;
    let permission = held(&app, "renewal").await;
    assert_eq!(listed(&app, "state=held&reason=DuplicateIdempotencyKey").await, ["renewal"]);
    let refused = retry(&app, "renewal").await;
    assert_eq!(refused.status, 409);
    assert!(detail(&refused).contains("/resolve"), "{}", refused.body);
    let confirm = "Seller Central shows no charge for renewal";
    for other in ["", "yes", "Seller Central shows no charge for renewal-2"] {
        let answer = resolve(&app, "renewal", json!({ "as": "new_number", "confirm": other })).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["field"]), (400, &json!("confirm")));
        assert!(answer.body["errors"][0]["message"].as_str().expect("a message").contains(confirm));
    }
    for body in [json!({}), json!({ "as": "lost" }), json!({ "as": "new_number" }), json!({ "as": "captured" })] {
        assert_eq!(resolve(&app, "renewal", body).await.status, 400);
    }
    app.advance(X - MINUTE);
    let sure = json!({ "as": "new_number", "confirm": confirm });
    let soon = resolve(&app, "renewal", sure.clone()).await;
    assert_eq!(soon.status, 409);
    assert!(detail(&soon).contains("from"), "{}", soon.body);
    app.advance(2 * MINUTE);
    let resolved = resolve(&app, "renewal", sure.clone()).await;
    assert_eq!(
        (resolved.status, &resolved.body["number"], &resolved.body["state"]),
        (200, &json!(1), &json!("scheduled"))
    );
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.ledger().captured_of(&permission).len(), 1);
    assert_eq!(app.events_of("charge.captured").await[0]["recoveredBy"], "operator");
    assert_eq!(resolve(&app, "renewal", sure).await.status, 409);
    assert_eq!(resolve(&app, "nobody", json!({ "as": "abandoned" })).await.status, 404);
    app.finish().await;
}

/// The store's own check: whatever a caller decided by his clock, the script counts from the marks.
#[tokio::test]
async fn the_script_itself_refuses_a_new_number_within_x_and_under_a_lease() {
    use amazon_pay_ipn::recovery::wishes::new_number;
    use amazon_pay_ipn::store::actions::{Resolution, Resolved};
    let app = TestApp::start().await;
    let permission = held(&app, "renewal").await;
    let id = "renewal".parse().expect("an id");
    let stored = app.store.charge(&id).await.expect("Redis answers").expect("a charge");
    let later = app.clock.now().checked_add(X).expect("a time");
    let policies = &app.settings.policies;
    let draft = new_number(&stored.intent, policies.of(&stored.intent), later).expect("later it may be");
    let resolve = async || {
        app.store
            .resolve_charge(&stored, Resolution::NewNumber, &draft.intent, &draft.events)
            .await
            .expect("Redis answers")
    };
    assert!(matches!(resolve().await, Resolved::TooSoon(_)));
    app.advance(X + MINUTE);
    let gate = Gate::new();
    app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
    app.tell_of((amazon_pay_ipn::sandbox::ObjectType::ChargePermission, &permission), &permission).await;
    let under_way = step(&app);
    gate.reached().await;
    assert_eq!(resolve().await, Resolved::Busy);
    gate.release();
    under_way.await.expect("no panic");
    assert_eq!(resolve().await, Resolved::Yes);
    assert_eq!(resolve().await, Resolved::Changed, "a repeat finds another number");
    app.run_due().await;
    assert_eq!((app.state("renewal").await.as_str(), app.creates()), ("captured", 2));
    app.finish().await;
}

#[tokio::test]
async fn a_held_charge_can_be_given_up_and_is_then_no_matter_for_an_operator() {
    let app = TestApp::start().await;
    held(&app, "given-up").await;
    held(&app, "canceled").await;
    assert_eq!(app.delete("/v1/charges/canceled").await.status, 202);
    for (id, state) in [("given-up", "abandoned"), ("canceled", "canceled")] {
        let answer = resolve(&app, id, json!({ "as": "abandoned" })).await;
        assert_eq!((answer.status, answer.body["state"].as_str()), (200, Some(state)), "{}", answer.body);
        assert_eq!(answer.body["outcome"], "unverified", "what was sent may still turn out to be a charge");
        assert!(answer.body["resolvedAt"].is_string());
        assert_eq!(resolve(&app, id, json!({ "as": "abandoned" })).await.status, 200, "seen once more");
    }
    assert_eq!(app.events_of("charge.abandoned").await[0]["reason"], "operator");
    assert_eq!(listed(&app, "outcome=unverified").await, Vec::<String>::new());
    assert_eq!(listed(&app, "state=held").await, Vec::<String>::new());
    app.run_due().await;
    app.finish().await;
}

#[tokio::test]
async fn a_charge_that_an_operator_names_is_read_and_matched_and_never_just_believed() {
    let app = TestApp::with_reading(Reading::ReplayAll).await;
    let permission = app.permission();
    // Another intent's charge, of the same permission.
    app.submit("other", &permission).await;
    app.run_due().await;
    let other = app.charge("other").await["chargeId"].as_str().expect("a charge").to_owned();
    // The answer to this one is lost, and its later answer says that the key is taken.
    app.sandbox.inject(Operation::CreateCharge, Fault::StatusAfter(400, "DuplicateIdempotencyKey".to_owned()));
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "held");
    drop(app.sandbox.notifications());
    let own =
        app.ledger().captured_of(&permission).iter().map(|charge| charge.charge_id.clone()).find(|id| *id != other);
    let own = own.expect("Amazon made a charge");
    let gets = || app.ledger().requests_of(Operation::GetCharge).len();

    for (charge, status) in [("C01-9999999-9999999-C000001", 400), ("a b", 400)] {
        assert_eq!(resolve(&app, "renewal", json!({ "as": "captured", "chargeId": charge })).await.status, status);
    }
    let before = gets();
    assert_eq!(resolve(&app, "renewal", json!({ "as": "captured", "chargeId": other })).await.status, 202);
    assert_eq!(app.state("renewal").await, "held", "nothing is believed");
    app.run_due().await;
    assert_eq!((gets(), app.state("renewal").await.as_str()), (before + 1, "held"));
    let missing = format!("{permission}-C999999");
    assert_eq!(resolve(&app, "renewal", json!({ "as": "captured", "chargeId": missing })).await.status, 202);
    app.run_due().await;
    let refuted: Vec<_> = app
        .events_of("account.attention")
        .await
        .into_iter()
        .filter(|alert| alert["kind"] == "resolution_refuted")
        .map(|alert| alert["chargeId"].clone())
        .collect();
    assert_eq!(refuted, [json!(other), json!(missing)]);

    assert_eq!(resolve(&app, "renewal", json!({ "as": "captured", "chargeId": own })).await.status, 202);
    assert_eq!(app.state("renewal").await, "held");
    app.run_due().await;
    assert_eq!(app.charge("renewal").await["chargeId"], json!(own));
    assert_eq!(app.state("renewal").await, "captured");
    let again = resolve(&app, "renewal", json!({ "as": "captured", "chargeId": own })).await;
    assert_eq!(again.status, 409);
    app.pass(3 * HOUR, 10 * MINUTE).await;
    app.finish().await;
}

#[tokio::test]
async fn an_unverified_end_is_listed_until_an_operator_has_seen_it_or_its_charge_is_found() {
    let app = TestApp::start().await;
    let (lost, made) = (app.permission(), app.permission());
    for (id, permission) in [("lost", &lost), ("made", &made)] {
        for _ in 0..400 {
            app.sandbox.inject(Operation::CreateCharge, Fault::StatusKept(503, "ServiceUnavailable".to_owned()));
        }
        app.submit(id, permission).await;
        app.pass(31 * DAY, 12 * HOUR).await;
        app.sandbox.clear_faults();
        drop(app.sandbox.notifications());
        assert_eq!(app.charge(id).await["outcome"], "unverified");
    }
    assert_eq!(listed(&app, "outcome=unverified").await, ["lost", "made"]);
    assert_eq!(listed(&app, "outcome=unverified&state=abandoned").await, ["lost", "made"]);
    let seen = resolve(&app, "lost", json!({ "as": "abandoned" })).await;
    assert_eq!((seen.status, &seen.body["state"]), (200, &json!("abandoned")));
    assert_eq!(listed(&app, "outcome=unverified").await, ["made"]);
    let again = json!({ "as": "new_number", "confirm": "Seller Central shows no charge for made" });
    assert_eq!(resolve(&app, "made", again).await.status, 409, "nothing that has ended re-opens");
    let charge = app.ledger().captured_of(&made)[0].charge_id.clone();
    assert_eq!(resolve(&app, "made", json!({ "as": "captured", "chargeId": charge })).await.status, 202);
    app.run_due().await;
    assert_eq!(app.state("made").await, "captured");
    assert_eq!(listed(&app, "outcome=unverified").await, Vec::<String>::new());
    assert_eq!(listed(&app, "state=captured").await, ["made"]);
    app.finish().await;
}

#[tokio::test]
async fn what_a_recovery_holds_can_be_resolved_x_after_the_loss_was_noticed() {
    let app = TestApp::start().await;
    let (one, two) = (app.permission(), app.permission());
    app.sandbox.inject(Operation::CreateCharge, Fault::DropBefore);
    app.submit("sent", &one).await;
    app.run_due().await;
    app.submit("fresh", &two).await;
    app.advance(2 * X);
    app.store.init(Init::AfterRestore).await.expect("Redis answers");
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    assert_eq!(listed(&app, "state=held&reason=recovery").await, ["fresh", "sent"]);
    let sure = |id: &str| json!({ "as": "new_number", "confirm": format!("Seller Central shows no charge for {id}") });
    for id in ["sent", "fresh"] {
        let soon = resolve(&app, id, sure(id)).await;
        assert_eq!(soon.status, 409, "the marks after the backup are lost: {}", soon.body);
    }
    app.advance(X + MINUTE);
    for id in ["sent", "fresh"] {
        assert_eq!(resolve(&app, id, sure(id)).await.status, 200);
    }
    app.run_due().await;
    for id in ["sent", "fresh"] {
        assert_eq!((app.state(id).await.as_str(), &app.charge(id).await["number"]), ("captured", &json!(1)));
    }
    app.finish().await;
}

#[tokio::test]
async fn a_charge_that_exists_is_no_reason_for_a_new_number() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Pend).expect("a permission");
    let mut body = TestApp::body("renewal", &permission);
    body["captureNow"] = json!(false);
    body["canHandlePendingAuthorization"] = json!(true);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.run_due().await;
    assert_eq!(retry(&app, "renewal").await.status, 409, "Amazon is deciding");
    app.pass(8 * DAY, 3 * HOUR).await;
    assert_eq!(app.state("renewal").await, "held");
    let sure = json!({ "as": "new_number", "confirm": "Seller Central shows no charge for renewal" });
    let refused = resolve(&app, "renewal", sure).await;
    assert_eq!(refused.status, 409);
    assert!(detail(&refused).contains("could charge twice"), "{}", refused.body);
    assert_eq!(resolve(&app, "renewal", json!({ "as": "abandoned" })).await.body["outcome"], "unverified");
    app.run_due().await;
    app.finish().await;
}

// --- The switch for everything ---

#[tokio::test]
async fn after_the_stop_switch_was_thrown_on_one_instance_no_send_is_marked_on_another_nor_after_restarts() {
    let mut app = TestApp::on_an_own_server().await;
    let (fresh, unknown) = (app.permission(), app.permission());
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    app.submit("unknown", &unknown).await;
    app.run_due().await;
    let (address, second) = second_instance(&app).await;
    let stop = CancellationToken::new();
    let served = tokio::spawn(second.serve_until(stop.clone().cancelled_owned()));
    let gate = Gate::new();
    app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
    app.submit("fresh", &fresh).await;
    let under_way = step(&app);
    gate.reached().await;
    let thrown = app.http.post(format!("{address}/v1/stop")).bearer_auth(TOKEN).send().await.expect("an answer");
    assert_eq!(thrown.status(), 200);
    gate.release();
    under_way.await.expect("no panic");
    stop.cancel();
    served.await.expect("no panic").expect("an orderly end");
    app.restart().await;
    app.crash_redis().await;
    assert_eq!(app.get("/v1/stop").await.body["stopped"], true);
    app.pass(6 * HOUR, 10 * MINUTE).await;
    assert_eq!(app.creates(), 1, "neither the fresh nor the unknown one");
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.pass(2 * HOUR, 5 * MINUTE).await;
    assert_eq!((app.state("fresh").await.as_str(), app.state("unknown").await.as_str()), ("captured", "captured"));
    app.finish().await;
}

#[tokio::test]
async fn what_the_stop_switch_held_back_is_due_once_it_is_lifted() {
    let app = TestApp::start().await;
    let [fresh, unknown, retry, authorized] = [(); 4].map(|()| app.permission());
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    app.submit("unknown", &unknown).await;
    app.run_due().await;
    app.sandbox.script_charge(&retry, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("retry", &retry).await;
    let mut body = TestApp::body("authorized", &authorized);
    body["captureNow"] = json!(false);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.run_due().await;
    assert_eq!(
        (app.state("retry").await.as_str(), app.state("authorized").await.as_str()),
        ("scheduled", "authorized")
    );
    assert_eq!(app.post("/v1/stop", &json!({})).await.status, 200);
    app.submit("fresh", &fresh).await;
    assert_eq!(app.post("/v1/charges/authorized/capture", &json!({})).await.status, 202);
    // Until all of them have met the switch, and none is due again.
    app.pass(2 * DAY, 6 * HOUR).await;
    app.advance(MINUTE);
    app.run_due().await;
    let (sends, planned) = (app.creates(), app.charge("fresh").await["nextAttemptAt"].clone());
    assert_eq!(sends, 3, "those from before the stop");

    assert_eq!(app.delete("/v1/stop").await.status, 200);
    assert_eq!(app.charge("fresh").await["nextAttemptAt"], planned);
    app.run_due().await;
    for id in ["fresh", "unknown", "retry", "authorized"] {
        assert_eq!(app.state(id).await, "captured", "{id}");
    }
    app.finish().await;
}

#[tokio::test]
async fn what_was_held_back_is_made_due_a_part_at_a_time_and_nothing_of_it_while_the_switch_is_on() {
    let app = TestApp::start().await;
    assert_eq!(app.post("/v1/stop", &json!({})).await.status, 200);
    let (keys, mut connection) = (app.store.keys(), app.connection().await);
    let (schedule, held_back) = (keys.schedule(), keys.held_back());
    let later = app.clock.now().as_millisecond() + 3_600_000;
    for number in 0..250 {
        let id = format!("C01-0000000-{number:07}");
        let _: () =
            redis::cmd("ZADD").arg(&schedule).arg(later).arg(&id).query_async(&mut connection).await.expect("ZADD");
        let _: () =
            redis::cmd("ZADD").arg(&held_back).arg(number).arg(&id).query_async(&mut connection).await.expect("ZADD");
    }
    // One that has no work any more.
    let _: () =
        redis::cmd("ZREM").arg(&schedule).arg("C01-0000000-0000000").query_async(&mut connection).await.expect("ZREM");
    let mut count = async || -> (usize, usize) {
        let due = redis::cmd("ZCOUNT").arg(&schedule).arg("-inf").arg(later - 1).query_async(&mut connection).await;
        let waits = redis::cmd("ZCARD").arg(&held_back).query_async(&mut connection).await;
        (due.expect("ZCOUNT"), waits.expect("ZCARD"))
    };
    assert!(app.store.due(16).await.expect("Redis answers").is_empty());
    assert_eq!(count().await, (0, 250));
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    for (due, waits) in [(99, 150), (199, 50), (249, 0)] {
        assert_eq!(app.store.due(16).await.expect("Redis answers").len(), 16);
        assert_eq!(count().await, (due, waits));
    }
    app.finish().await;
}

// --- Lists of one permission, and what cannot be read in them ---

#[tokio::test]
async fn open_charges_of_a_permission_are_found_at_once_however_many_others_there_are() {
    let app = TestApp::start().await;
    let permission = app.permission();
    for id in ["a", "b", "c"] {
        app.submit(id, &permission).await;
    }
    let mut crowd = redis::cmd("ZADD");
    crowd.arg(app.store.keys().index("scheduled"));
    for number in 0..20_001 {
        crowd.arg(0).arg(format!("\t0-{number:07}\tC01-0000000-0000000"));
    }
    let () = crowd.query_async(&mut app.connection().await).await.expect("ZADD");
    let first = app.get(&format!("/v1/charges?state=scheduled&chargePermissionId={permission}&limit=2")).await.body;
    let ids = |page: &Value| -> Vec<String> {
        page["charges"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|it| it["id"].as_str().expect("an id").to_owned())
            .collect()
    };
    assert_eq!(ids(&first), ["a", "b"]);
    let cursor = first["nextCursor"].as_str().expect("there is more");
    let query = format!("state=scheduled&chargePermissionId={permission}&limit=2&cursor={cursor}");
    let second = app.get(&format!("/v1/charges?{query}")).await.body;
    assert_eq!((ids(&second), &second["nextCursor"]), (vec!["c".to_owned()], &Value::Null));
    let other_reason = format!("state=scheduled&reason=SoftDeclined&chargePermissionId={permission}");
    assert_eq!(ids(&app.get(&format!("/v1/charges?{other_reason}")).await.body), Vec::<String>::new());
    for id in ["a", "b", "c"] {
        assert_eq!(app.delete(&format!("/v1/charges/{id}")).await.status, 200);
    }
    app.run_due().await;
    assert_eq!(ids(&app.get(&format!("/v1/charges?chargePermissionId={permission}")).await.body), ["a", "b", "c"]);
    app.finish().await;
}

#[tokio::test]
async fn what_cannot_be_read_at_the_head_of_the_expiry_list_does_not_keep_the_rest_in_it() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 200);
    let keys = app.store.keys();
    let mut connection = app.connection().await;
    let mut poison = redis::cmd("ZADD");
    poison.arg(keys.index_expiry()).arg(0).arg("no entry at all").arg(0).arg("held\tno id\t");
    // As many as are looked at in one go.
    for number in 0..5_000 {
        poison.arg(0).arg(format!("poison {number}"));
    }
    let () = poison.query_async(&mut connection).await.expect("ZADD");
    let intent = keys.intent(&"renewal".parse().expect("an id"));
    let () = redis::cmd("DEL").arg(intent).query_async(&mut connection).await.expect("DEL");
    app.advance(401 * DAY);
    assert_eq!(app.store.trim_lists().await.expect("Redis answers"), 0);
    assert_eq!(app.store.trim_lists().await.expect("Redis answers"), 1);
    let left: usize = redis::cmd("ZCARD").arg(keys.index_expiry()).query_async(&mut connection).await.expect("ZCARD");
    assert_eq!(left, 0);
    app.run_due().await;
    app.finish().await;
}

/// The API refuses earlier, because a charge is known; only the script sees a wish that came in meanwhile.
#[tokio::test]
async fn the_script_refuses_a_new_number_where_a_capture_is_wished() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.inject(Operation::CreateCharge, Fault::status(400, "DuplicateIdempotencyKey"));
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.advance(X + MINUTE);
    let id = "renewal".parse().expect("an id");
    let key = app.store.keys().intent(&id);
    let read = app.store.charge(&id).await.expect("Redis answers").expect("a charge");
    let becomes =
        new_number(&read.intent, app.settings.policies.of(&read.intent), app.clock.now()).expect("it is held");
    let mut connection = app.connection().await;
    let wish = json!({ "captureAmount": { "amount": "14.00", "currencyCode": "USD" } }).to_string();
    let () =
        redis::cmd("HSET").arg(&key).arg("capture_request").arg(wish).query_async(&mut connection).await.expect("HSET");
    let resolve = async || {
        let resolved = app.store.resolve_charge(&read, Resolution::NewNumber, &becomes.intent, &becomes.events).await;
        resolved.expect("Redis answers")
    };
    assert_eq!(resolve().await, Resolved::Changed);
    assert_eq!(app.charge("renewal").await["number"], 0, "nothing was written");
    let () = redis::cmd("HDEL").arg(&key).arg("capture_request").query_async(&mut connection).await.expect("HDEL");
    assert_eq!(resolve().await, Resolved::Yes, "it was for the wish alone");
    app.run_due().await;
    assert_eq!((app.state("renewal").await.as_str(), app.creates()), ("captured", 2));
    app.finish().await;
}
