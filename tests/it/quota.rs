//! Amazon's quota: a backlog drains at the allowed rate without a 429, in order, over several instances.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use amazon_pay_ipn::app::App;
use amazon_pay_ipn::model::ids::{ChargePermissionId, Environment};
use amazon_pay_ipn::model::quota::{Limits, Operation as Called, Share};
use amazon_pay_ipn::reconciler::{Reconciler, StepOutcome};
use amazon_pay_ipn::sandbox::{ChargeState, DeclineCode, Fault, ObjectType, Operation, Outcome, Throttle};

use jiff::Timestamp;
use serde_json::json;

use crate::support::{HOUR, MINUTE, Options, TestApp, metrics};

const SECOND: Duration = Duration::from_secs(1);

/// Our half of what Amazon's sandbox allows, and a sandbox that holds us to the whole of it.
async fn throttled() -> TestApp {
    let quota = Limits::of(Environment::Sandbox, Share::HALF);
    let app = TestApp::with(Options { quota, ..Options::default() }).await;
    app.sandbox.set_throttle(Some(Throttle::sandbox()));
    app
}

/// Another instance on the same Redis.
async fn another_instance(app: &TestApp) -> Reconciler {
    let other = App::start(app.settings.clone(), app.clock.clone(), metrics()).await.expect("a second instance");
    other.reconciler()
}

/// Both instances at once, until neither finds anything to do.
async fn run_both(one: &Reconciler, other: &Reconciler) {
    loop {
        let (one, other) = tokio::join!(one.step(), other.step());
        if one.expect("Redis answers") == StepOutcome::Idle && other.expect("Redis answers") == StepOutcome::Idle {
            return;
        }
    }
}

/// Charges of as many permissions.
async fn backlog(app: &TestApp, count: usize) -> Vec<String> {
    let mut permissions = Vec::with_capacity(count);
    for number in 0..count {
        let permission = app.permission();
        app.submit(&format!("renewal-{number}"), &permission).await;
        permissions.push(permission);
    }
    permissions
}

fn throttled_answers(app: &TestApp) -> u64 {
    [Operation::CreateCharge, Operation::GetChargePermission, Operation::GetCharge, Operation::CancelCharge]
        .into_iter()
        .map(|operation| app.sandbox.answers(operation, 429))
        .sum()
}

/// The permissions of the charges in the order in which they were made.
fn order(app: &TestApp) -> Vec<String> {
    let ledger = app.ledger();
    ledger.requests_of(Operation::CreateCharge).iter().filter_map(|request| request.permission.clone()).collect()
}

fn speed_of(quota: &serde_json::Value, operation: Called) -> f64 {
    let rows = quota["operations"].as_array().expect("operations");
    let row = rows.iter().find(|row| row["operation"] == operation.as_str()).expect("the operation");
    row["speed"].as_f64().expect("a number")
}

#[tokio::test]
async fn two_instances_drain_a_backlog_at_the_allowed_rate_in_order_and_without_a_429() {
    let app = throttled().await;
    let other = another_instance(&app).await;
    let parked = app.permission();
    app.sandbox.script_charge(&parked, Outcome::Decline(DeclineCode::HardDeclined)).expect("a permission");
    app.submit("parked", &parked).await;
    app.pass(30 * MINUTE, MINUTE).await;
    assert_eq!(app.state("parked").await, "parked");

    let count = 200;
    let permissions = backlog(&app, count).await;
    let (before, start) = (app.creates(), app.clock.now());
    run_both(&app.reconciler, &other).await;
    let limit = app.settings.store.quota.get(Called::CreateCharge);
    let mut updated_at = None;
    let mut took = 0_u32;
    while app.creates() < before + count + usize::from(updated_at.is_some()) {
        took += 1;
        app.advance(SECOND);
        run_both(&app.reconciler, &other).await;
        let made = app.creates() - before;
        // The clock is moved, and goes on by itself meanwhile.
        let seconds = app.clock.now().duration_since(start).as_secs_f64();
        let allowed = f64::from(limit.capacity) + limit.per_second * seconds;
        assert!(
            f64::from(u32::try_from(made).expect("few")) <= allowed + 1e-6,
            "{made} in {took} s, allowed {allowed}"
        );
        if updated_at.is_none() && made >= count / 2 {
            app.sandbox.buyer_updates_instrument(&parked, "Visa ****2222").expect("a permission");
            app.tell_of((ObjectType::ChargePermission, &parked), &parked).await;
            updated_at = Some(took);
        }
        if let Some(at) = updated_at.filter(|at| took == at + 12) {
            assert_eq!(app.state("parked").await, "captured", "the buyer does not wait for the backlog ({at})");
        }
        assert!(took < 1000, "{made} of {count}");
    }
    let least = 0.8 * limit.per_second * app.clock.now().duration_since(start).as_secs_f64();
    assert!(f64::from(u32::try_from(count).expect("few")) >= least, "{count} in {took} s");
    assert_eq!(throttled_answers(&app), 0, "not a single 429");
    for number in 0..count {
        assert_eq!(app.state(&format!("renewal-{number}")).await, "captured");
    }
    let made: Vec<String> = order(&app).into_iter().filter(|permission| *permission != parked).collect();
    assert_eq!(made.len(), count);
    // Who waits for tokens is let in in the order of waiting. The instances work side by side, so neighbours may change places.
    for (index, permission) in made.iter().enumerate() {
        let place = permissions.iter().position(|other| other == permission).expect("one of them");
        assert!(place.abs_diff(index) <= 16, "number {place} was charged as number {index}");
    }
    // A backlog is no busy loop: a turn to find out that there are no tokens, and one with them.
    let mut connection = app.connection().await;
    for permission in &permissions {
        let id: ChargePermissionId = permission.parse().expect("an id");
        let claims: u32 = redis::cmd("HGET")
            .arg(app.store.keys().permission(&id))
            .arg("fence")
            .query_async(&mut connection)
            .await
            .expect("HGET");
        assert!(claims <= 2, "{permission} was claimed {claims} times");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_permission_with_many_charges_takes_its_turns_among_the_others() {
    let app = throttled().await;
    let greedy = app.permission();
    for number in 0..6 {
        app.submit(&format!("greedy-{number}"), &greedy).await;
    }
    backlog(&app, 6).await;
    app.pass(60 * SECOND, SECOND).await;
    let order = order(&app);
    assert_eq!(order.len(), 12);
    let first: BTreeSet<&String> = order.iter().take(7).collect();
    assert_eq!(first.len(), 7, "everybody once before anybody twice: {order:?}");
    assert_eq!(throttled_answers(&app), 0);
    app.finish().await;
}

#[tokio::test]
async fn the_api_tells_who_waits_how_long() {
    // A token in 100 s: the clock goes on by itself, and nobody may be let in before the last answer was looked at.
    let quota = Limits::of(Environment::Sandbox, "0.01".parse::<Share>().expect("a share"));
    let app = TestApp::with(Options { quota, ..Options::default() }).await;
    let permissions = backlog(&app, 20).await;
    app.run_due().await;
    let quota = app.get("/v1/quota").await;
    assert_eq!(quota.status, 200);
    assert_eq!((&quota.body["waiting"]["attempt"], &quota.body["waitingTotal"]), (&19.into(), &19.into()));
    assert!(quota.body["accountFault"].is_null());
    let time = |value: &serde_json::Value| value.as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time");
    let empty_at = time(&quota.body["emptyAt"]);
    let (second, last) = (app.charge("renewal-1").await, app.charge("renewal-19").await);
    assert_eq!((&second["waitingForQuota"]["ahead"], &last["waitingForQuota"]["ahead"]), (&0.into(), &18.into()));
    assert!(time(&second["waitingForQuota"]["estimatedAt"]) < time(&last["waitingForQuota"]["estimatedAt"]));
    assert!(app.charge("renewal-0").await["waitingForQuota"].is_null(), "it was charged");
    let waits = app.get(&format!("/v1/charge-permissions/{}", permissions[19])).await.body;
    assert_eq!(waits["waitingForQuota"]["ahead"], 18);
    assert!(waits["nextAt"].is_null(), "the schedule's time is not when it is let in: {waits}");
    let charged = app.get(&format!("/v1/charge-permissions/{}", permissions[0])).await.body;
    assert!(charged["waitingForQuota"].is_null(), "{charged}");
    let metrics = app.get("/metrics").await.body;
    let metrics = metrics.as_str().expect("text");
    assert!(
        metrics.contains("amazon_pay_ipn_quota_waiting{class=\"attempt\"}")
            && metrics.contains("amazon_pay_ipn_quota_tokens{operation=")
    );

    while app.clock.now() < empty_at {
        app.advance(20 * SECOND);
        app.run_due().await;
    }
    let quota = app.get("/v1/quota").await.body;
    assert_eq!(quota["waitingTotal"], 0, "it was the latest time");
    assert_eq!(app.creates(), 20);
    app.finish().await;
}

#[tokio::test]
async fn a_429_slows_the_operation_down_for_all_and_wears_off() {
    let app = throttled().await;
    let other = another_instance(&app).await;
    app.sandbox.inject(Operation::GetChargePermission, Fault::status(429, "TooManyRequests"));
    backlog(&app, 10).await;
    app.run_due().await;
    let quota = app.get("/v1/quota").await.body;
    assert!((speed_of(&quota, Called::GetChargePermission) - 0.5).abs() < 1e-9, "{quota}");
    assert!((speed_of(&quota, Called::CreateCharge) - 1.0).abs() < 1e-9, "only that operation");
    assert_eq!(app.ledger().requests.len(), 1, "nobody goes on at the old pace");
    run_both(&app.reconciler, &other).await;
    assert_eq!(app.ledger().requests.len(), 1, "on no instance");
    app.pass(5 * MINUTE, SECOND).await;
    assert!((speed_of(&app.get("/v1/quota").await.body, Called::GetChargePermission) - 1.0).abs() < 1e-9);
    assert_eq!(app.creates(), 10);
    assert_eq!(throttled_answers(&app), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_throttled_charge_stays_unknown_and_is_asked_about_before_new_ones_go_out() {
    let app = throttled().await;
    app.sandbox.inject(Operation::CreateCharge, Fault::status(429, "TooManyRequests"));
    let permissions = backlog(&app, 40).await;
    app.run_due().await;
    assert_eq!(app.charge("renewal-0").await["numberStatus"], "unknown");
    app.pass(90 * SECOND, SECOND).await;
    assert_eq!(app.state("renewal-0").await, "captured", "it is not behind the backlog");
    assert_ne!(app.state("renewal-39").await, "captured");
    assert_eq!(order(&app).iter().filter(|permission| **permission == permissions[0]).count(), 2);
    app.finish().await;
}

#[tokio::test]
async fn nothing_is_lost_with_the_waiting_room() {
    let app = throttled().await;
    backlog(&app, 8).await;
    app.run_due().await;
    let keys = app.store.keys();
    let mut connection = app.connection().await;
    for key in [keys.waiting(), keys.tickets(), keys.quota()] {
        let () = redis::cmd("DEL").arg(key).query_async(&mut connection).await.expect("DEL");
    }
    app.pass(7 * HOUR, MINUTE).await;
    assert_eq!(app.creates(), 8);
    app.finish().await;
}

#[tokio::test]
async fn reads_of_charges_are_not_held_up_by_charges_that_wait_to_be_made() {
    let app = throttled().await;
    let pending = app.permission();
    app.sandbox.script_charge(&pending, Outcome::Pend).expect("a permission");
    let mut body = TestApp::body("pending", &pending);
    body["canHandlePendingAuthorization"] = true.into();
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.run_due().await;
    let charge = app.charge("pending").await["chargeId"].as_str().expect("a charge").to_owned();
    backlog(&app, 60).await;
    app.pass(10 * SECOND, SECOND).await;
    app.sandbox.finish_pending(&charge, ChargeState::Captured, None).expect("it pends");
    app.deliver_all().await;
    app.pass(2 * SECOND, SECOND).await;
    assert_eq!(app.state("pending").await, "captured");
    assert!(app.creates() < 20, "while the others go on waiting");
    app.finish().await;
}

/// As workers that are all busy with slow answers leave it: the room is opened again and again, and nobody takes up what is given.
async fn let_in_without_a_turn(app: &TestApp, seconds: usize) {
    for _ in 0..seconds {
        app.advance(SECOND);
        app.store.due(16).await.expect("Redis answers");
    }
}

#[tokio::test]
async fn slow_workers_are_followed_by_no_burst_and_nobody_loses_its_place() {
    let app = throttled().await;
    let permissions = backlog(&app, 30).await;
    app.run_due().await;
    let_in_without_a_turn(&app, 300).await;
    let before = app.creates();
    app.run_due().await;
    assert!(app.creates() - before <= 2, "the bucket holds one, and one may have come back meanwhile");
    while app.creates() < permissions.len() {
        app.advance(SECOND);
        app.run_due().await;
    }
    assert_eq!(order(&app), permissions);
    assert_eq!(throttled_answers(&app), 0, "what was not used does not pile up");
    app.finish().await;
}

#[tokio::test]
async fn the_bucket_does_not_fill_again_beside_the_tokens_that_were_given() {
    let quota = Limits::of(Environment::Live, Share::HALF);
    let at_once = quota.get(Called::CreateCharge).capacity as usize;
    let app = TestApp::with(Options { quota, ..Options::default() }).await;
    backlog(&app, 30).await;
    app.run_due().await;
    app.advance(MINUTE);
    // All who are let in now find no worker for two minutes: each waits for a slow answer.
    app.store.due(16).await.expect("Redis answers");
    app.advance(2 * MINUTE);
    let before = app.creates();
    app.run_due().await;
    assert_eq!(app.creates() - before, at_once, "what Amazon's bucket holds, and not that once more");
    app.finish().await;
}

#[tokio::test]
async fn no_more_are_let_in_than_can_have_a_turn_soon() {
    let app = throttled().await;
    backlog(&app, 60).await;
    app.run_due().await;
    let_in_without_a_turn(&app, 500).await;
    let waiting = app.store.quota_status().await.expect("Redis answers").waiting();
    assert!(waiting >= 40, "whoever is more urgent must not find the tokens given away: only {waiting} wait");
    app.finish().await;
}

#[tokio::test]
async fn a_server_whose_clock_is_behind_the_one_before_it_does_not_stop_the_quota() {
    let app = throttled().await;
    backlog(&app, 2).await;
    app.run_due().await;
    let ahead = app.clock.now().as_millisecond() + 30 * 86_400_000;
    let mut connection = app.connection().await;
    for operation in Called::ALL {
        let bucket = format!("0.000000 {ahead} 0.0625 {ahead} {ahead}");
        let () = redis::cmd("HSET")
            .arg(app.store.keys().quota())
            .arg(operation.as_str())
            .arg(bucket)
            .query_async(&mut connection)
            .await
            .expect("HSET");
    }
    app.pass(20 * MINUTE, 10 * SECOND).await;
    assert_eq!(app.creates(), 2, "by the clock there is now");
    app.finish().await;
}

#[tokio::test]
async fn what_a_reconciliation_gives_back_is_not_called_within_a_retry_after() {
    let app = throttled().await;
    let (one, other) = (app.permission(), app.permission());
    let keys = app.store.keys();
    app.sandbox.inject(Operation::GetChargePermission, Fault::status(429, "TooManyRequests"));
    app.submit("renewal", &one).await;
    app.run_due().await;
    // As a Retry-After of 5 minutes leaves it; one of the two looks that were reserved was not made.
    let mut connection = app.connection().await;
    let field = Called::GetChargePermission.as_str();
    let bucket: String =
        redis::cmd("HGET").arg(keys.quota()).arg(field).query_async(&mut connection).await.expect("HGET");
    let until = app.clock.now().as_millisecond() + 300_000;
    let bucket = format!("{} {until}", bucket.rsplit_once(' ').expect("fields").0);
    let () =
        redis::cmd("HSET").arg(keys.quota()).arg(field).arg(bucket).query_async(&mut connection).await.expect("HSET");
    assert_eq!(
        app.post(&format!("/v1/charge-permissions/{other}/reconcile"), &json!({ "new": true })).await.status,
        202
    );
    app.pass(4 * MINUTE, 10 * SECOND).await;
    assert_eq!(app.ledger().requests.len(), 1, "Amazon said when to come again");
    app.pass(4 * MINUTE, 10 * SECOND).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn the_least_share_is_slow_and_stops_nobody() {
    let quota = Limits::of(Environment::Sandbox, "0.01".parse::<Share>().expect("a share"));
    let app = TestApp::with(Options { quota, ..Options::default() }).await;
    let (pending, other) = (app.permission(), app.permission());
    for number in 0..6 {
        app.sandbox.script_charge(&pending, Outcome::Pend).expect("a permission");
        let id = format!("pending-{number}");
        let mut body = TestApp::body(&id, &pending);
        body["canHandlePendingAuthorization"] = true.into();
        assert_eq!(app.post("/v1/charges", &body).await.status, 202);
        app.pass(10 * MINUTE, 10 * SECOND).await;
        let charge = app.charge(&id).await["chargeId"].as_str().expect("a charge").to_owned();
        app.sandbox.finish_pending(&charge, ChargeState::Captured, None).expect("it pends");
    }
    app.deliver_all().await;
    app.submit("other", &other).await;
    app.pass(HOUR, 10 * SECOND).await;
    for number in 0..6 {
        assert_eq!(app.state(&format!("pending-{number}")).await, "captured", "five reads where the bucket holds one");
    }
    assert_eq!(app.state("other").await, "captured");
    app.finish().await;
}

/// A charge of a permission of its own, whose monthly limit its caller found used up just now.
async fn park(app: &TestApp, number: usize) {
    let mut body = TestApp::body(&format!("renewal-{number}"), &app.permission());
    body["declined"] = json!({"reasonCode": "PeriodicAmountExceeded", "at": app.clock.now(), "attempts": 1});
    let answer = app.post("/v1/charges", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
}

/// A month's end: `BACKLOG=100000 make backlog`.
#[tokio::test]
#[ignore = "takes minutes to hours; see `make backlog`"]
#[expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench that prints what it did, of the size that is asked for"
)]
async fn a_months_end_drains_at_the_allowed_rate() {
    use amazon_pay_ipn::clock::Stopwatch;
    let count: usize = std::env::var("BACKLOG").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let quota = Limits::of(Environment::Live, Share::HALF);
    let app = TestApp::with(Options { quota, ..Options::default() }).await;
    app.sandbox.set_throttle(Some(Throttle::live()));
    let other = another_instance(&app).await;
    // The month ends in a few hours.
    park(&app, 0).await;
    let planned: Timestamp =
        app.charge("renewal-0").await["nextAttemptAt"].as_str().expect("a time").parse().expect("a time");
    app.advance(planned.duration_since(app.clock.now()).unsigned_abs().saturating_sub(9 * HOUR));
    run_both(&app.reconciler, &other).await;
    let watch = Stopwatch::start();
    for number in 1..count {
        park(&app, number).await;
    }
    println!("{count} charges of as many permissions parked for the month in {:?}", watch.elapsed());
    let limit = app.settings.store.quota.get(Called::CreateCharge);
    let (mut start, watch) = (None, Stopwatch::start());
    let (mut captured, mut said) = (0, None);
    let mut per_hour: BTreeMap<i64, u64> = BTreeMap::new();
    while captured < count as u64 {
        // Less than a full bucket, so that no token is lost between two looks.
        app.advance(6 * SECOND);
        run_both(&app.reconciler, &other).await;
        let made = app.sandbox.answers(Operation::CreateCharge, 201);
        let now = app.clock.now();
        if made > 0 {
            let start = *start.get_or_insert(now);
            *per_hour.entry(now.duration_since(start).as_hours()).or_default() += made - captured;
            // By now each of them has had its turn of the month, spread over six hours.
            if said.is_none() && now >= start + 7 * HOUR {
                said = Some(app.get("/v1/quota").await.body);
            }
        }
        captured = made;
    }
    let end = app.clock.now();
    let span = end.duration_since(start.expect("a first charge")).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let rate = captured as f64 / span;
    println!("drained in {span:.0} s of the moved clock, {:?} of ours, by two instances", watch.elapsed());
    println!("{rate:.3} a second; allowed {:.3} after a burst of {}", limit.per_second, limit.capacity);
    println!("answers 429: {}", throttled_answers(&app));
    println!("by the hour: {:?}", per_hour.values().collect::<Vec<_>>());
    assert_eq!(throttled_answers(&app), 0);
    if let Some(said) = said {
        println!("the API said 7 hours after the first: {}; it ended at {end}", said["emptyAt"]);
        let promised: Timestamp = said["emptyAt"].as_str().expect("a time").parse().expect("a time");
        assert!(promised.duration_since(end).as_secs_f64().abs() <= span / 20.0, "within a twentieth");
        assert!(rate >= 0.8 * limit.per_second);
    }
    app.finish().await;
}
