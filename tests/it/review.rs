//! Traces of a hostile review: what a crash, a race or a broken key at the worst moment must not do.

use std::sync::Arc;
use std::time::Duration;

use amazon_pay_ipn::amazon_pay::AmazonPay;
use amazon_pay_ipn::app::App;
use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::model::charge_intent::NumberStatus;
use amazon_pay_ipn::model::ids::ChargePermissionId;
use amazon_pay_ipn::reconciler::{Reconciler, StepOutcome};
use amazon_pay_ipn::sandbox::{DeclineCode, Fault, Gate, NotificationType, ObjectType, Operation, Outcome};
use amazon_pay_ipn::sandbox::{SignatureVersion, SignedMessage};
use amazon_pay_ipn::store::account::{Init, Initialised};
use amazon_pay_ipn::store::reconciliations::{Claimed, Commit, Committed, Marked, Renewed, Send};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{DAY, HOUR, MINUTE, Options, TestApp, X, metrics};

/// Runs one Redis command and drops its answer.
async fn redis(app: &TestApp, words: &[&str]) {
    let (name, args) = words.split_first().expect("a command");
    let _: redis::Value =
        redis::cmd(name).arg(args).query_async(&mut app.connection().await).await.expect("Redis obeys");
}

/// A step that goes on beside the test.
fn step(app: &TestApp) -> JoinHandle<StepOutcome> {
    let reconciler = app.reconciler.clone();
    tokio::spawn(async move { reconciler.step().await.expect("Redis answers") })
}

fn notification_of(app: &TestApp, permission: &str) -> SignedMessage {
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, permission), permission, NotificationType::StateChange);
    app.sandbox.sign(&ipn, SignatureVersion::V1)
}

#[tokio::test]
async fn a_permission_whose_keys_are_broken_keeps_no_other_from_its_turn() {
    let app = TestApp::start().await;
    let (broken, sound) = (app.permission(), app.permission());
    app.submit("broken", &broken).await;
    let hints = app.store.keys().hints(&broken.parse().expect("an id"));
    redis(&app, &["SET", &hints, "not ours"]).await;
    app.advance(MINUTE);
    app.submit("sound", &sound).await;
    for _ in 0..3 {
        // The broken one may fail the step in which its turn comes.
        let _ = app.reconciler.step().await;
    }
    assert_eq!(app.state("sound").await, "captured");
    redis(&app, &["DEL", &hints]).await;
    app.pass(5 * MINUTE, MINUTE).await;
    assert_eq!(app.state("broken").await, "captured", "once mended, it goes on by itself");
    app.finish().await;
}

#[tokio::test]
async fn a_worker_whose_clock_is_behind_that_of_redis_does_not_spin() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    // The store, and Redis with it, is ten minutes ahead of the worker.
    let behind = Clock::movable();
    app.advance(10 * MINUTE);
    let mut amazon = app.settings.amazon_pay.clone();
    amazon.timeout = Duration::from_secs(5);
    let slow = Reconciler::new(
        app.store.clone(),
        Arc::new(AmazonPay::new(amazon, app.clock.clone()).expect("a client")),
        Arc::new(app.settings.policies.clone()),
        app.settings.account.environment,
        behind,
        CancellationToken::new(),
    );
    app.submit("renewal", &permission).await;
    let mut steps = 0;
    while slow.step().await.expect("Redis answers") != StepOutcome::Idle {
        steps += 1;
        assert!(steps < 10, "due again at once, again and again");
    }
    assert_eq!(app.creates(), 1, "what is due by Redis is due");
    app.finish().await;
}

#[tokio::test]
async fn a_recovery_that_was_interrupted_while_it_held_charges_can_be_finished() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    // The marker was lost; `init --after-loss` wrote it anew and died before it had held anything.
    let marker = app.store.keys().marker();
    redis(&app, &["DEL", &marker]).await;
    assert_eq!(app.store.init(Init::AfterLoss).await.expect("Redis answers"), Initialised::Done { held: 1 });
    let other = app.permission();
    let mut body = TestApp::body("not-yet-held", &other);
    body["new"] = json!(true);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    assert_eq!(
        app.store.init(Init::AfterLoss).await.expect("Redis answers"),
        Initialised::Done { held: 2 },
        "the same again finishes it"
    );
    assert_eq!(app.store.init(Init::EndRecovery).await.expect("Redis answers"), Initialised::Done { held: 0 });
    assert_eq!(app.store.init(Init::AfterLoss).await.expect("Redis answers"), Initialised::Exists);
    app.finish().await;
}

#[tokio::test]
async fn a_reconciliation_under_way_does_not_release_what_a_recovery_holds() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let gate = Gate::new();
    app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
    app.submit("renewal", &permission).await;
    let step = step(&app);
    gate.reached().await;
    // The backup was restored under a running service; now the operator says so.
    assert_eq!(app.store.init(Init::AfterRestore).await.expect("Redis answers"), Initialised::Done { held: 1 });
    gate.release();
    step.await.expect("no panic");
    assert_eq!(app.state("renewal").await, "held");
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.pass(DAY, HOUR).await;
    assert_eq!(app.creates(), 0, "only the operator or the caller releases it");
    app.finish().await;
}

#[tokio::test]
async fn a_declaration_that_our_own_data_contradicts_releases_nothing() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    while app.creates() < 2 {
        app.pass(HOUR, HOUR).await;
    }
    // Number 1 was charged, and nobody heard of it; then the backup of just now is restored.
    assert_eq!(app.store.init(Init::AfterRestore).await.expect("Redis answers"), Initialised::Done { held: 1 });
    for (name, value) in [("new", json!(true)), ("lastNumber", json!(0))] {
        let mut body = TestApp::body("renewal", &permission);
        body[name] = value;
        assert_eq!(app.post("/v1/charges", &body).await.status, 409, "{name} is less than the data shows");
        assert_eq!(app.state("renewal").await, "held");
    }
    let mut body = TestApp::body("renewal", &permission);
    body["lastNumber"] = json!(1);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.pass(HOUR, 5 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_success_found_while_the_caller_cancels_is_reported() {
    let app = TestApp::with(Options { timeout: Duration::from_secs(2), ..Options::default() }).await;
    let permission = app.permission();
    // Against the assumptions a copy of number 0 outlives X inside Amazon: its decline was final, and then it captures.
    let copy = Gate::new();
    app.sandbox.inject(Operation::CreateCharge, Fault::HoldInside(copy.clone()));
    for _ in 0..2 {
        app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    }
    app.submit("renewal", &permission).await;
    app.pass(2 * X, 5 * MINUTE).await;
    assert_eq!(app.charge("renewal").await["number"], 1);
    copy.release();
    copy.done().await;
    assert_eq!(app.ledger().captured_of(&permission).len(), 1);
    app.deliver_all().await;
    let look = Gate::new();
    app.sandbox.inject(Operation::GetCharge, Fault::HoldAfter(look.clone()));
    let step = step(&app);
    look.reached().await;
    assert_eq!(app.delete("/v1/charges/renewal").await.body["state"], "canceled");
    look.release();
    step.await.expect("no panic");
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "canceled");
    let alerts = app.events_of("account.attention").await;
    assert!(alerts.iter().any(|alert| alert["kind"] == "charge_after_end"), "{alerts:?}");
    app.finish().await;
}

#[tokio::test]
async fn a_released_charge_whose_worker_died_after_the_mark_is_due_although_the_next_worker_could_not_send() {
    let mut app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "parked");
    let gate = Gate::new();
    app.sandbox.inject(Operation::CreateCharge, Fault::HoldAfter(gate.clone()));
    app.sandbox.buyer_updates_instrument(&permission, "MasterCard ****2222").expect("a permission");
    app.advance(MINUTE);
    app.deliver_all().await;
    let step = step(&app);
    gate.reached().await;
    step.abort();
    let _ = step.await;
    gate.release();
    app.restart().await;
    drop(app.sandbox.notifications());
    app.advance(4 * MINUTE);
    // The next worker finds its clock far from Amazon's, and sends nothing.
    let ahead = Clock::movable();
    ahead.advance(app.clock.now().duration_since(ahead.now()).unsigned_abs() + 10 * MINUTE);
    app.sandbox.set_date_tolerance(HOUR);
    let other = Reconciler::new(
        app.store.clone(),
        Arc::new(AmazonPay::new(app.settings.amazon_pay.clone(), ahead).expect("a client")),
        Arc::new(app.settings.policies.clone()),
        app.settings.account.environment,
        app.clock.clone(),
        CancellationToken::new(),
    );
    other.step().await.expect("Redis answers");
    assert_eq!(app.creates(), 2);
    app.pass(20 * MINUTE, MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured", "an unknown number waits for no sweep");
    app.finish().await;
}

/// The mutations "seen before the journal" and "seen before the wake": an error in the middle of the script leaves no trace that
/// would turn the redelivery away.
#[tokio::test]
async fn what_keeps_a_notification_from_being_accepted_lets_the_redelivery_do_everything() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let key = app.store.keys().permission(&permission.parse().expect("an id"));
    redis(&app, &["HSET", &key, "wake", "not a number"]).await;
    let message = notification_of(&app, &permission);
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 503);
    redis(&app, &["HDEL", &key, "wake"]).await;
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    app.run_due().await;
    assert_eq!(app.ledger().requests_of(Operation::GetChargePermission).len(), 1, "the notification was not lost");
    app.finish().await;
}

/// The mutations "accept shortens a lease" and "claim ignores the lease", each by itself.
#[tokio::test]
async fn neither_a_notification_nor_a_score_in_the_schedule_ends_a_lease() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let gate = Gate::new();
    app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
    app.submit("renewal", &permission).await;
    let step = step(&app);
    gate.reached().await;
    let schedule = app.store.keys().schedule();
    let score = async |app: &TestApp| {
        let mut ask = redis::cmd("ZSCORE");
        ask.arg(&schedule).arg(&permission);
        let score: f64 = ask.query_async(&mut app.connection().await).await.expect("ZSCORE");
        score
    };
    let before = score(&app).await;
    let message = notification_of(&app, &permission);
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    assert!((score(&app).await - before).abs() < 0.5, "while a lease runs nobody but its holder writes the score");
    redis(&app, &["ZADD", &schedule, "1", &permission]).await;
    assert_eq!(app.reconciler.step().await.expect("Redis answers"), StepOutcome::Idle, "the lease record decides");
    gate.release();
    step.await.expect("no panic");
    app.run_due().await;
    assert_eq!(app.creates(), 1);
    app.finish().await;
}

/// Each check of the mark by itself: what may come between a worker's decision and its send.
#[tokio::test]
async fn the_mark_sees_everything_that_came_between_the_decision_and_the_send() {
    let app = TestApp::start().await;
    let permission: ChargePermissionId = app.permission().parse().expect("an id");
    app.submit("renewal", permission.as_str()).await;
    let Claimed::Yes(claim) = app.store.claim(&permission, &app.clock).await.expect("Redis answers") else {
        panic!("not due")
    };
    let intent = &claim.intents[0];
    let send = |needed| Send { intent, stored_state: "scheduled", instrument: None, needed };
    let soon = Duration::from_secs(25);
    let keys = app.store.keys();
    let (of_intent, of_permission) = (keys.intent(&intent.id), keys.permission(&permission));
    for (key, field, value, why) in [
        (&of_intent, "cancel_at", "1", "a cancellation was accepted"),
        (&of_permission, "closed", "1", "the charge permission is closed"),
        (&of_intent, "state", "canceled", "the intent is canceled"),
        (&of_intent, "state", "held", "the intent is held"),
        (&of_intent, "state", "parked", "the intent is parked"),
        (&of_intent, "number", "1", "the number is 1"),
        (&of_intent, "number_status", "unknown", "the number was marked before"),
    ] {
        let before: Option<String> =
            redis::cmd("HGET").arg(key).arg(field).query_async(&mut app.connection().await).await.expect("HGET");
        redis(&app, &["HSET", key, field, value]).await;
        let marked = app.store.mark(&claim, &send(soon)).await.expect("Redis answers");
        assert_eq!(marked, Marked::Refused(why.to_owned()));
        redis(&app, &["HSET", key, field, before.as_deref().unwrap_or("")]).await;
    }
    // A repeat passes a cancellation, and yet not the end.
    redis(&app, &["HSET", &of_intent, "state", "canceled", "number_status", "unknown"]).await;
    let mut ended = intent.clone();
    ended.number.status = NumberStatus::Unknown;
    let repeat = Send { intent: &ended, ..send(soon) };
    let refused = Marked::Refused("the intent is canceled".to_owned());
    assert_eq!(app.store.mark(&claim, &repeat).await.expect("Redis answers"), refused);
    redis(&app, &["HSET", &of_intent, "state", "scheduled", "number_status", "fresh"]).await;
    assert_eq!(app.post("/v1/stop", &json!({})).await.status, 200);
    assert_eq!(app.store.mark(&claim, &send(soon)).await.expect("Redis answers"), Marked::Stopped);
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.advance(3 * MINUTE - Duration::from_secs(20));
    assert_eq!(
        app.store.mark(&claim, &send(soon)).await.expect("Redis answers"),
        Marked::LostLease,
        "20 s of lease are left, and the call may take longer"
    );
    assert!(app.events_of("charge.attempted").await.is_empty());
    app.store.release(&claim, Duration::ZERO).await.expect("Redis answers");
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_worker_whose_lease_was_taken_over_can_write_nothing() {
    let app = TestApp::start().await;
    let permission: ChargePermissionId = app.permission().parse().expect("an id");
    app.submit("renewal", permission.as_str()).await;
    let claim = async || match app.store.claim(&permission, &app.clock).await.expect("Redis answers") {
        Claimed::Yes(claim) => claim,
        Claimed::No => panic!("not due"),
    };
    let first = claim().await;
    app.advance(3 * MINUTE + Duration::from_secs(1));
    let second = claim().await;
    let intent = &first.intents[0];
    let send = Send { intent, stored_state: "scheduled", instrument: None, needed: MINUTE };
    assert_eq!(app.store.mark(&first, &send).await.expect("Redis answers"), Marked::LostLease);
    assert_eq!(app.store.renew(&first).await.expect("Redis answers"), Renewed::Lost);
    let commit = Commit {
        record: &first.record,
        closed: true,
        events: &[],
        hints: Vec::new(),
        hints_due: None,
        intents: Vec::new(),
        not_before: None,
        held_back: false,
        look_asked: None,
        unheard: None,
    };
    assert_eq!(app.store.commit(&first, &commit).await.expect("Redis answers"), Committed::LostLease);
    app.store.release(&first, Duration::ZERO).await.expect("Redis answers");
    assert_eq!(app.store.renew(&second).await.expect("Redis answers"), Renewed::Yes, "the second still holds it");
    app.store.release(&second, Duration::ZERO).await.expect("Redis answers");
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_call_under_way_when_the_service_is_told_to_stop_is_committed_and_no_other_starts() {
    let app = TestApp::start().await;
    let (first, second) = (app.permission(), app.permission());
    let service = App::start(app.settings.clone(), app.clock.clone(), metrics()).await.expect("the service starts");
    let stop = CancellationToken::new();
    let gate = Gate::new();
    app.sandbox.inject(Operation::CreateCharge, Fault::HoldAfter(gate.clone()));
    app.submit("in-hand", &first).await;
    let served = tokio::spawn(service.run_until(stop.clone().cancelled_owned()));
    gate.reached().await;
    app.submit("waiting", &second).await;
    stop.cancel();
    tokio::task::yield_now().await;
    gate.release();
    served.await.expect("no panic").expect("an orderly end");
    assert_eq!(app.state("in-hand").await, "captured");
    assert_eq!((app.state("waiting").await.as_str(), app.creates()), ("scheduled", 1));
    app.run_due().await;
    assert_eq!(app.state("waiting").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn an_alert_that_the_answer_to_a_send_raises_is_told() {
    let app = TestApp::start().await;
    let (other_key, refused) = (app.permission(), app.permission());
    app.sandbox.inject(Operation::CreateCharge, Fault::status(400, "DuplicateIdempotencyKey"));
    app.submit("other-key", &other_key).await;
    app.run_due().await;
    assert_eq!(app.state("other-key").await, "held");
    app.sandbox.inject(Operation::CreateCharge, Fault::status(403, "InvalidAccountStatus"));
    app.submit("refused", &refused).await;
    app.run_due().await;
    let alerts = app.events_of("account.attention").await;
    let told: Vec<_> = alerts.iter().map(|alert| (alert["kind"].as_str(), alert["id"].as_str())).collect();
    // What halts the account is told of for the account.
    assert_eq!(told, [(Some("charge_held"), Some("other-key")), (Some("account_fault"), None)]);
    app.finish().await;
}

#[tokio::test]
async fn a_charge_that_left_one_recovery_is_held_by_the_next() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let mut body = TestApp::body("renewal", &permission);
    body["captureNow"] = json!(false);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "authorized");
    assert_eq!(app.store.init(Init::AfterRestore).await.expect("Redis answers"), Initialised::Done { held: 1 });
    assert_eq!(app.state("renewal").await, "held");
    app.deliver_all().await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "authorized", "the charge that exists lets it out");
    assert_eq!(app.store.init(Init::AfterRestore).await.expect("Redis answers"), Initialised::Done { held: 1 });
    assert_eq!(app.state("renewal").await, "held", "what the first recovery left behind does not count");
    app.finish().await;
}

#[tokio::test]
async fn a_reconciliation_from_before_a_recovery_does_not_undo_what_the_caller_declared() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let gate = Gate::new();
    app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
    app.submit("renewal", &permission).await;
    let step = step(&app);
    gate.reached().await;
    assert_eq!(app.store.init(Init::AfterRestore).await.expect("Redis answers"), Initialised::Done { held: 1 });
    let mut body = TestApp::body("renewal", &permission);
    body["lastNumber"] = json!(5);
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    gate.release();
    assert!(matches!(step.await.expect("no panic"), StepOutcome::LostLease(_)));
    let charge = app.charge("renewal").await;
    assert_eq!((&charge["number"], &charge["numberStatus"]), (&json!(5), &json!("unknown")));
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.pass(DAY, 10 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.events_of("charge.captured").await[0]["number"], 5);
    app.finish().await;
}
