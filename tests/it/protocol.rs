//! The send protocol: why a charge cannot happen twice. Each story is a trace that breaks a simpler protocol (`docs/ARCHITECTURE.md`), run
//! under each way in which Amazon may treat a used idempotency key.

use std::time::Duration;

use amazon_pay_ipn::sandbox::{
    DeclineCode, Fault, Gate, NotificationType, ObjectType, Operation, Outcome, Reading, SignatureVersion,
};
use amazon_pay_ipn::store::Bounds;

use crate::support::{DAY, HOUR, MINUTE, Options, TestApp, X};

const READINGS: [Reading; 3] = [Reading::ReplayAll, Reading::ReEvaluate, Reading::StatusFirst];

fn keys(app: &TestApp) -> Vec<String> {
    let ledger = app.ledger();
    ledger
        .requests_of(Operation::CreateCharge)
        .iter()
        .map(|request| request.idempotency_key.clone().unwrap_or_default())
        .collect()
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_key_and_charges_once() {
    for reading in READINGS {
        let app = TestApp::with_reading(reading).await;
        let permission = app.permission();
        app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
        app.submit("renewal", &permission).await;
        app.run_due().await;
        let charge = app.charge("renewal").await;
        assert_eq!((charge["state"].as_str(), charge["numberStatus"].as_str()), (Some("scheduled"), Some("unknown")));
        assert_eq!(charge["mayStillCharge"], true);
        app.pass(10 * MINUTE, MINUTE).await;
        assert_eq!(app.state("renewal").await, "captured", "{reading:?}");
        let keys = keys(&app);
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0], keys[1]);
        app.finish().await;
    }
}

#[tokio::test]
async fn throttling_and_outages_are_ambiguous_and_not_counted_as_attempts() {
    for (status, reason) in [
        (429, "TooManyRequests"),
        (500, "InternalServerError"),
        (503, "ServiceUnavailable"),
        (408, ""),
        (425, ""),
        (302, ""),
    ] {
        let app = TestApp::start().await;
        let permission = app.permission();
        app.sandbox.inject(Operation::CreateCharge, Fault::status(status, reason));
        app.submit("renewal", &permission).await;
        app.run_due().await;
        assert_eq!(app.charge("renewal").await["attempts"], 0);
        app.pass(HOUR, 5 * MINUTE).await;
        assert_eq!(app.state("renewal").await, "captured", "{status}");
        assert_eq!(app.events_of("charge.captured").await[0]["attempts"], 1);
        let keys = keys(&app);
        assert!(keys.iter().all(|key| *key == keys[0]), "{status}: {keys:?}");
        app.finish().await;
    }
}

#[tokio::test]
async fn a_success_answer_without_a_charge_id_is_ambiguous() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.inject(Operation::CreateCharge, Fault::Garbled);
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.pass(HOUR, 5 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

/// The trace that breaks "store the key, retry with it, new key after a decline": the first copy is delayed inside the network, the second
/// is declined, the third number captures, and then the first copy arrives.
#[tokio::test]
async fn a_decline_while_an_older_copy_may_still_arrive_is_confirmed_before_the_next_number() {
    for reading in READINGS {
        let app = TestApp::with(Options { reading, timeout: Duration::from_secs(2), ..Options::default() }).await;
        let permission = app.permission();
        let gate = Gate::new();
        app.sandbox.inject(Operation::CreateCharge, Fault::HoldInside(gate.clone()));
        app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
        app.submit("renewal", &permission).await;
        app.run_due().await;
        // The first copy is still inside Amazon, and not in its books. The second, minutes later, is declined: that says nothing about
        // the first.
        app.pass(3 * MINUTE, MINUTE).await;
        assert_eq!(app.creates(), 1);
        let charge = app.charge("renewal").await;
        assert_eq!(charge["number"], 0);
        assert_eq!(charge["numberStatus"], "unknown", "a tainted decline resolves nothing");
        // Now the old copy is evaluated. Unless Amazon replays the decline it gave, it captures.
        gate.release();
        gate.done().await;
        app.pass(X - 4 * MINUTE, MINUTE).await;
        assert!(keys(&app).iter().all(|key| *key == keys(&app)[0]), "{reading:?}: no new number before X");
        app.pass(2 * DAY, HOUR).await;
        app.deliver_all().await;
        app.run_due().await;
        assert_eq!(app.state("renewal").await, "captured");
        let mut keys = keys(&app);
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), if reading == Reading::ReEvaluate { 1 } else { 2 }, "{reading:?}");
        assert_eq!(app.ledger().captured_of(&permission).len(), 1, "{reading:?}");
        app.finish().await;
    }
}

#[tokio::test]
async fn an_untainted_decline_needs_no_confirmation() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    let charge = app.charge("renewal").await;
    assert_eq!((charge["number"].as_u64(), charge["numberStatus"].as_str()), (Some(1), Some("fresh")));
    assert_eq!(app.creates(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_refusal_of_a_repeated_send_leaves_the_number_unknown() {
    // The first copy captured and its answer was lost; then the card was deleted. The refusal of the repeat says nothing about the first.
    let app = TestApp::with_reading(Reading::StatusFirst).await;
    let permission = app.permission();
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.sandbox.buyer_deletes_instrument(&permission).expect("a permission");
    drop(app.sandbox.notifications());
    app.pass(2 * HOUR, 10 * MINUTE).await;
    assert!(app.creates() >= 2);
    let charge = app.charge("renewal").await;
    assert_eq!((charge["number"].as_u64(), charge["numberStatus"].as_str()), (Some(0), Some("unknown")));
    app.sandbox.buyer_updates_instrument(&permission, "MasterCard ****2222").expect("a permission");
    app.pass(DAY, HOUR).await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.ledger().captured_of(&permission).len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_success_found_by_notification_resolves_an_unknown_number_without_another_send() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.deliver_all().await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.creates(), 1);
    app.pass(DAY, HOUR).await;
    assert_eq!(app.creates(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_declined_charge_found_by_notification_resolves_nothing() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.deliver_all().await;
    app.run_due().await;
    let charge = app.charge("renewal").await;
    assert_eq!((charge["number"].as_u64(), charge["numberStatus"].as_str()), (Some(0), Some("unknown")));
    app.pass(2 * DAY, HOUR).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_crash_after_the_mark_repeats_under_the_same_key() {
    for reading in READINGS {
        let mut app = TestApp::with_reading(reading).await;
        let permission = app.permission();
        let gate = Gate::new();
        app.sandbox.inject(Operation::CreateCharge, Fault::HoldAfter(gate.clone()));
        app.submit("renewal", &permission).await;
        let reconciler = app.reconciler.clone();
        let step = tokio::spawn(async move { reconciler.step().await });
        gate.reached().await;
        // Amazon has made the charge; the worker dies before it hears of it.
        step.abort();
        let _ = step.await;
        gate.release();
        app.restart().await;
        app.run_due().await;
        assert_eq!(app.creates(), 1, "the lease still runs");
        app.pass(10 * MINUTE, MINUTE).await;
        assert_eq!(app.state("renewal").await, "captured", "{reading:?}");
        let keys = keys(&app);
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0], keys[1]);
        app.finish().await;
    }
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_does_not_throw_its_success_away() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let gate = Gate::new();
    app.sandbox.inject(Operation::CreateCharge, Fault::HoldAfter(gate.clone()));
    app.submit("renewal", &permission).await;
    let reconciler = app.reconciler.clone();
    let slow = tokio::spawn(async move { reconciler.step().await });
    gate.reached().await;
    // The lease runs out; another worker asks again under the same key and is thrown out by an outage.
    app.sandbox.inject(Operation::CreateCharge, Fault::status(503, "ServiceUnavailable"));
    app.advance(4 * MINUTE);
    app.run_due().await;
    assert_eq!(app.charge("renewal").await["numberStatus"], "unknown");
    gate.release();
    let outcome = slow.await.expect("no panic").expect("Redis answers");
    assert!(matches!(outcome, amazon_pay_ipn::reconciler::StepOutcome::LostLease(_)), "{outcome:?}");
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured", "by the charge the slow worker noted, not by a third send");
    assert_eq!(app.creates(), 2);
    app.finish().await;
}

#[tokio::test]
async fn a_cancellation_between_decision_and_send_is_seen_by_the_mark() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let gate = Gate::new();
    app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
    app.submit("renewal", &permission).await;
    let reconciler = app.reconciler.clone();
    let step = tokio::spawn(async move { reconciler.step().await });
    gate.reached().await;
    let answer = app.delete("/v1/charges/renewal").await;
    assert_eq!((answer.status, answer.body["state"].as_str()), (200, Some("canceled")));
    gate.release();
    step.await.expect("no panic").expect("Redis answers");
    app.run_due().await;
    assert_eq!(app.creates(), 0, "no new number after an accepted cancellation");
    assert_eq!(app.state("renewal").await, "canceled");
    app.finish().await;
}

#[tokio::test]
async fn a_cancellation_while_the_number_is_unknown_says_that_it_may_still_charge() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    app.submit("renewal", &permission).await;
    app.run_due().await;
    let answer = app.delete("/v1/charges/renewal").await;
    assert_eq!((answer.status, answer.body["mayStillCharge"].as_bool()), (202, Some(true)));
    app.pass(HOUR, 5 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured", "a capture is reported, never hidden");
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 409);
    app.finish().await;
}

#[tokio::test]
async fn a_canceled_number_that_turns_out_declined_ends_canceled_without_a_new_number() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.inject(Operation::CreateCharge, Fault::DropBefore);
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 202);
    for _ in 0..3 {
        app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    }
    app.pass(2 * HOUR, 5 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "canceled");
    assert_eq!(app.events_of("charge.canceled").await[0]["outcome"], "verified");
    let keys = keys(&app);
    assert!(keys.iter().all(|key| *key == keys[0]));
    app.finish().await;
}

#[tokio::test]
async fn an_authorisation_that_appears_after_a_cancellation_is_canceled_at_amazon() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Authorize).expect("a permission");
    app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    let mut body = TestApp::body("renewal", &permission);
    body["captureNow"] = false.into();
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.run_due().await;
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 202);
    app.pass(HOUR, 5 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "canceled");
    assert_eq!(app.ledger().charges_of(&permission)[0].state.as_str(), "Canceled");
    app.finish().await;
}

#[tokio::test]
async fn a_closed_permission_with_an_unknown_number_is_asked_about_once_more_and_never_gets_a_new_number() {
    for reading in READINGS {
        let app = TestApp::with_reading(reading).await;
        let permission = app.permission();
        app.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
        app.submit("renewal", &permission).await;
        app.run_due().await;
        app.sandbox.buyer_closes(&permission).expect("a permission");
        drop(app.sandbox.notifications());
        app.pass(DAY, 10 * MINUTE).await;
        let keys = keys(&app);
        assert!(keys.iter().all(|key| *key == keys[0]), "{reading:?}");
        let charge = app.charge("renewal").await;
        if reading == Reading::StatusFirst {
            // Amazon looks at the permission first, so nothing can be learned: that is said, and corrected when a notification comes.
            assert_eq!((charge["state"].as_str(), charge["outcome"].as_str()), (Some("abandoned"), Some("unverified")));
            assert_eq!(charge["mayStillCharge"], true);
            let captured = app.ledger().captured_of(&permission)[0].charge_id.clone();
            app.tell_of((ObjectType::Charge, &captured), &permission).await;
            app.run_due().await;
        }
        assert_eq!(app.state("renewal").await, "captured");
        app.finish().await;
    }
}

#[tokio::test]
async fn the_stop_switch_stops_every_send_and_lets_the_windows_stand_still() {
    let app = TestApp::start().await;
    let permission = app.permission();
    assert_eq!(app.post("/v1/stop", &serde_json::json!({})).await.status, 200);
    app.submit("renewal", &permission).await;
    app.pass(40 * DAY, 12 * HOUR).await;
    assert_eq!(app.creates(), 0);
    assert_eq!(app.state("renewal").await, "scheduled", "40 days of standstill are not 40 days of the window");
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.pass(HOUR, 10 * MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn two_charges_of_one_permission_never_have_two_numbers_in_flight() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.inject(Operation::CreateCharge, Fault::DropBefore);
    app.submit("first", &permission).await;
    app.submit("second", &permission).await;
    app.run_due().await;
    assert_eq!(app.creates(), 1, "the second waits while the first is unknown");
    app.pass(5 * MINUTE, MINUTE).await;
    assert_eq!(app.state("first").await, "captured");
    app.pass(HOUR, 10 * MINUTE).await;
    assert_eq!(app.state("second").await, "captured");
    assert_eq!(app.ledger().captured_of(&permission).len(), 2);
    app.finish().await;
}

#[tokio::test]
async fn a_charge_that_stays_unknown_blocks_the_others_at_most_until_x() {
    let app = TestApp::start().await;
    let permission = app.permission();
    for _ in 0..40 {
        app.sandbox.inject(Operation::CreateCharge, Fault::DropBefore);
    }
    app.submit("first", &permission).await;
    app.submit("second", &permission).await;
    app.pass(X - 2 * MINUTE, MINUTE).await;
    let first_key = keys(&app)[0].clone();
    assert!(keys(&app).iter().all(|key| *key == first_key));
    app.sandbox.clear_faults();
    app.pass(2 * HOUR, 5 * MINUTE).await;
    assert_eq!(app.state("second").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_change_of_the_redis_server_taints_the_sends_that_follow() {
    let mut app = TestApp::on_an_own_server().await;
    let (first, second) = (app.permission(), app.permission());
    app.submit("before", &first).await;
    app.run_due().await;
    app.crash_redis().await;
    app.sandbox.script_charge(&second, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.sandbox.script_charge(&second, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("after", &second).await;
    app.run_due().await;
    assert_eq!(app.charge("after").await["numberStatus"], "unknown", "the server may have lost a mark");
    app.pass(2 * X, 10 * MINUTE).await;
    let charge = app.charge("after").await;
    assert_eq!((charge["number"].as_u64(), charge["numberStatus"].as_str()), (Some(1), Some("fresh")));
    app.pass(2 * DAY, HOUR).await;
    assert_eq!(app.state("after").await, "captured");
    app.finish().await;
}

#[tokio::test]
async fn a_notification_during_a_reconciliation_is_not_lost() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let hint = |app: &TestApp| {
        let ipn =
            app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
        app.sandbox.sign(&ipn, SignatureVersion::V1)
    };
    let first = hint(&app);
    assert_eq!(app.post_ipn(&first.body, &first.headers).await, 200);
    let gate = Gate::new();
    app.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
    let reconciler = app.reconciler.clone();
    let step = tokio::spawn(async move { reconciler.step().await });
    gate.reached().await;
    // Amazon has answered what it knew; now the buyer closes, and the notification arrives while the worker still waits.
    app.sandbox.buyer_closes(&permission).expect("a permission");
    app.deliver_all().await;
    gate.release();
    step.await.expect("no panic").expect("Redis answers");
    app.run_due().await;
    assert_eq!(app.events_of("charge_permission.closed").await.len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_full_event_stream_refuses_new_numbers_and_submissions_and_still_takes_notifications() {
    let bounds = Bounds { events: 1, ..Bounds::default() };
    let app = TestApp::with(Options { bounds, ..Options::default() }).await;
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    app.pass(10 * MINUTE, MINUTE).await;
    assert_eq!(app.creates(), 0);
    assert_eq!(app.post("/v1/charges", &TestApp::body("another", &permission)).await.status, 503);
    app.sandbox.buyer_closes(&permission).expect("a permission");
    app.deliver_all().await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "abandoned");
    app.finish().await;
}

#[tokio::test]
async fn nothing_is_sent_while_our_clock_and_amazons_are_far_apart() {
    let app = TestApp::start().await;
    let permission = app.permission();
    // The service's clock runs ahead of the sandbox's by moving only the former.
    let clock = amazon_pay_ipn::clock::Clock::movable();
    clock.advance(10 * MINUTE);
    let amazon =
        amazon_pay_ipn::amazon_pay::AmazonPay::new(app.settings.amazon_pay.clone(), clock.clone()).expect("a client");
    app.sandbox.set_date_tolerance(Duration::from_hours(1));
    let reconciler = amazon_pay_ipn::reconciler::Reconciler::new(
        app.store.clone(),
        std::sync::Arc::new(amazon),
        std::sync::Arc::new(app.settings.policies.clone()),
        app.settings.account.environment,
        clock,
        tokio_util::sync::CancellationToken::new(),
    );
    app.submit("renewal", &permission).await;
    reconciler.step().await.expect("Redis answers");
    assert_eq!(app.creates(), 0);
    assert_eq!(app.events_of("account.attention").await[0]["kind"], "clock_skew");
    app.pass(20 * MINUTE, MINUTE).await;
    assert_eq!(app.state("renewal").await, "captured");
    // One for the account, however many charges meet the wrong clock; and an instance whose clock is right finds it over.
    let alerts = app.events_of("account.attention").await;
    let kinds: Vec<_> = alerts.iter().map(|alert| alert["kind"].as_str()).collect();
    assert_eq!(kinds, [Some("clock_skew"), Some("account_recovered")]);
    app.finish().await;
}

#[tokio::test]
async fn a_second_success_that_a_fault_beyond_our_assumptions_forces_is_reported_with_both_ids() {
    let app = TestApp::with(Options { timeout: Duration::from_secs(2), ..Options::default() }).await;
    let permission = app.permission();
    let gate = Gate::new();
    app.sandbox.inject(Operation::CreateCharge, Fault::HoldInside(gate.clone()));
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.pass(3 * DAY, HOUR).await;
    assert_eq!(app.state("renewal").await, "captured");
    app.deliver_all().await;
    app.run_due().await;
    // Amazon evaluates the first copy days later: far beyond X.
    gate.release();
    gate.done().await;
    assert_eq!(app.ledger().captured_of(&permission).len(), 2);
    app.deliver_all().await;
    app.run_due().await;
    let alerts = app.events_of("account.attention").await;
    let ids: Vec<_> = app.ledger().captured_of(&permission).iter().map(|charge| charge.charge_id.clone()).collect();
    for id in &ids {
        assert!(alerts[0]["chargeIds"].as_array().expect("ids").iter().any(|told| told == id.as_str()), "{alerts:?}");
    }
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.events_of("charge.captured").await.len(), 1);
    app.finish_with_a_reported_double_charge().await;
}

#[tokio::test]
async fn a_cancellation_that_amazon_does_not_take_is_tried_again_later_and_not_at_once() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Authorize).expect("a permission");
    let mut body = TestApp::body("renewal", &permission);
    body["captureNow"] = false.into();
    assert_eq!(app.post("/v1/charges", &body).await.status, 202);
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "authorized");
    for _ in 0..3 {
        app.sandbox.inject(Operation::CancelCharge, Fault::status(503, "ServiceUnavailable"));
    }
    assert_eq!(app.delete("/v1/charges/renewal").await.status, 202);
    app.run_due().await;
    assert_eq!(app.ledger().requests_of(Operation::CancelCharge).len(), 1, "one try, then a pause");
    app.pass(HOUR, MINUTE).await;
    assert_eq!(app.ledger().requests_of(Operation::CancelCharge).len(), 4);
    assert_eq!(app.state("renewal").await, "canceled");
    assert_eq!(app.ledger().charges_of(&permission)[0].state.as_str(), "Canceled");
    app.finish().await;
}
