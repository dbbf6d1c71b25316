//! The way in: what `POST /ipn` answers, and what it leaves in Redis.

use amazon_pay_ipn::sandbox::{Forgery, NotificationType, ObjectType, Operation, SignatureVersion};
use amazon_pay_ipn::store::Bounds;
use serde_json::json;

use crate::support::{DAY, MINUTE, Options, TestApp};

#[tokio::test]
async fn a_genuine_notification_is_stored_before_it_is_acknowledged_in_both_signature_versions() {
    let app = TestApp::start().await;
    let permission = app.permission();
    for version in [SignatureVersion::V1, SignatureVersion::V2] {
        let ipn =
            app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
        let message = app.sandbox.sign(&ipn, version);
        assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
        let journal = app.journal().await;
        assert!(journal.iter().any(|entry| entry["message_id"] == message.message_id && entry["body"] == message.body));
    }
    assert_eq!(app.journal().await.len(), 2);
    app.run_due().await;
    app.finish().await;
}

#[tokio::test]
async fn duplicate_delivery_is_acknowledged_and_accepted_once() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let ipn =
        app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::AttributeChange);
    let message = app.sandbox.sign(&ipn, SignatureVersion::V1);
    for _ in 0..3 {
        assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    }
    assert_eq!(app.journal().await.len(), 1);
    app.run_due().await;
    assert_eq!(app.ledger().requests_of(Operation::GetChargePermission).len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn forged_messages_are_refused_and_leave_no_trace() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let before = app.keys().await;
    for forgery in [Forgery::OtherKey, Forgery::UntrustedCertificate, Forgery::ForeignTopic, Forgery::Altered] {
        let message = app.sandbox.forge(&ipn, forgery).expect("a forgery");
        assert_eq!(app.post_ipn(&message.body, &message.headers).await, 403, "{forgery:?}");
    }
    assert_eq!(app.keys().await, before);
    app.run_due().await;
    assert!(app.ledger().requests_of(Operation::GetChargePermission).is_empty());
    app.finish().await;
}

#[tokio::test]
async fn malformed_bodies_are_refused_with_400_and_large_ones_with_413() {
    let app = TestApp::start().await;
    for body in ["", "{}", "not json", "{\"Type\":\"Notification\"}"] {
        assert_eq!(app.post_ipn(body, &[]).await, 400, "{body}");
    }
    assert_eq!(app.post_ipn(&"x".repeat(600 * 1024), &[]).await, 413);
    let permission = app.permission();
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let message = app.sandbox.sign(&ipn, SignatureVersion::V1);
    let lying = [("x-amz-sns-message-type".to_owned(), "SubscriptionConfirmation".to_owned())];
    assert_eq!(app.post_ipn(&message.body, &lying).await, 400);
    let raw = [("x-amz-sns-rawdelivery".to_owned(), "true".to_owned())];
    assert_eq!(app.post_ipn(&ipn.message(), &raw).await, 400);
    let answer = app.http.get(format!("{}/ipn", app.public)).send().await.expect("an answer");
    assert_eq!(answer.status(), 405);
    assert_eq!(app.http.get(format!("{}/metrics", app.public)).send().await.expect("an answer").status(), 404);
    app.finish().await;
}

#[tokio::test]
async fn another_merchants_notification_is_acknowledged_and_quarantined() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let message = app.sandbox.forge(&ipn, Forgery::ForeignMerchant).expect("a message");
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    assert_eq!(app.quarantine().await.len(), 1);
    assert_eq!(app.journal().await.len(), 1);
    assert_eq!(app.event_kinds().await, ["ipn.quarantined"]);
    app.run_due().await;
    assert!(app.ledger().requests_of(Operation::GetChargePermission).is_empty());
    app.finish().await;
}

#[tokio::test]
async fn the_test_notification_is_acknowledged_and_causes_no_call() {
    let app = TestApp::start().await;
    let id = "P01-0000000-0000000-000000";
    app.tell_of((ObjectType::Charge, id), "P01-0000000-0000000").await;
    app.run_due().await;
    assert_eq!(app.journal().await.len(), 1);
    assert!(app.ledger().requests.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn messages_too_old_are_refused_and_messages_from_the_future_are_asked_for_again() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let old = app.sandbox.sign(&ipn, SignatureVersion::V1);
    app.advance(15 * DAY + MINUTE);
    assert_eq!(app.post_ipn(&old.body, &old.headers).await, 403);
    let mut early =
        app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    early.at = app.clock.now().checked_add(jiff::SignedDuration::from_mins(6)).expect("a time");
    let early = app.sandbox.sign(&early, SignatureVersion::V2);
    assert_eq!(app.post_ipn(&early.body, &early.headers).await, 503);
    assert!(app.journal().await.is_empty());
    app.advance(2 * MINUTE);
    assert_eq!(app.post_ipn(&early.body, &early.headers).await, 200, "our clock was behind");
    app.run_due().await;
    app.finish().await;
}

#[tokio::test]
async fn a_subscription_is_confirmed_through_the_api_and_an_ended_one_is_told() {
    let app = TestApp::start().await;
    let message = app.sandbox.sign_subscription_confirmation(SignatureVersion::V2);
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    assert_eq!(app.sandbox.confirmed_tokens().len(), 1);
    let message = app.sandbox.sign_unsubscribe_confirmation(SignatureVersion::V1);
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    assert_eq!(app.sandbox.confirmed_tokens().len(), 1);
    assert_eq!(app.event_kinds().await, ["ipn.subscription", "ipn.subscription"]);
    assert!(app.journal().await.iter().all(|entry| entry["body"].is_empty()), "the token is not kept");
    app.finish().await;
}

#[tokio::test]
async fn a_repeated_announcement_or_end_of_a_subscription_is_answered_and_nothing_more() {
    let app = TestApp::start().await;
    let announced = app.sandbox.sign_subscription_confirmation(SignatureVersion::V1);
    let ended = app.sandbox.sign_unsubscribe_confirmation(SignatureVersion::V2);
    for message in [&announced, &announced, &ended, &ended, &announced] {
        assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    }
    assert_eq!(app.sandbox.confirmed_tokens().len(), 1, "who repeats it does not subscribe us again");
    assert_eq!((app.journal().await.len(), app.event_kinds().await.len()), (2, 2));
    app.finish().await;
}

#[tokio::test]
async fn redis_gone_answers_503_and_the_redelivery_is_accepted_without_a_restart() {
    let mut app = TestApp::on_an_own_server().await;
    let permission = app.permission();
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let message = app.sandbox.sign(&ipn, SignatureVersion::V1);
    app.redis.kill();
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 503);
    assert_eq!(app.get("/readyz").await.status, 503);
    assert_eq!(app.get("/healthz").await.status, 200);
    app.redis.start_again();
    // The first command may still find the old connection; SNS comes again.
    let mut statuses = vec![app.post_ipn(&message.body, &message.headers).await];
    while statuses.len() < 4 && statuses.last() == Some(&503) {
        statuses.push(app.post_ipn(&message.body, &message.headers).await);
    }
    assert_eq!(statuses.last(), Some(&200), "{statuses:?}");
    assert_eq!(app.get("/readyz").await.status, 200);
    assert_eq!(app.journal().await.len(), 1);
    app.run_due().await;
    app.finish().await;
}

#[tokio::test]
async fn acknowledged_notifications_survive_a_crash_of_redis() {
    let mut app = TestApp::on_an_own_server().await;
    let permission = app.permission();
    for _ in 0..20 {
        let ipn =
            app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
        let message = app.sandbox.sign(&ipn, SignatureVersion::V1);
        assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    }
    app.crash_redis().await;
    assert_eq!(app.journal().await.len(), 20);
    app.run_due().await;
    assert_eq!(app.ledger().requests_of(Operation::GetChargePermission).len(), 1, "twenty hints are one look");
    app.finish().await;
}

#[tokio::test]
async fn a_key_of_the_wrong_type_refuses_before_anything_is_written() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let id = permission.parse().expect("an id");
    let mut connection = app.connection().await;
    let () =
        redis::cmd("SET").arg(app.store.keys().hints(&id)).arg("x").query_async(&mut connection).await.expect("SET");
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let message = app.sandbox.sign(&ipn, SignatureVersion::V1);
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 503);
    assert!(app.journal().await.is_empty(), "nothing may be written before the failure");
    let () = redis::cmd("DEL").arg(app.store.keys().hints(&id)).query_async(&mut connection).await.expect("DEL");
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    app.run_due().await;
    app.finish().await;
}

#[tokio::test]
async fn a_full_quarantine_answers_503_and_nothing_is_lost() {
    let bounds = Bounds { quarantine: 1, ..Bounds::default() };
    let app = TestApp::with(Options { bounds, ..Options::default() }).await;
    let permission = app.permission();
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let first = app.sandbox.forge(&ipn, Forgery::ForeignMerchant).expect("a message");
    let second = app.sandbox.forge(&ipn, Forgery::ForeignMerchant).expect("a message");
    assert_eq!(app.post_ipn(&first.body, &first.headers).await, 200);
    assert_eq!(app.post_ipn(&second.body, &second.headers).await, 503);
    assert_eq!(app.post_ipn(&first.body, &first.headers).await, 200, "a duplicate needs no room");
    app.finish().await;
}

#[tokio::test]
async fn a_refused_look_is_repeated_and_then_quarantined_and_blocks_nothing() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let unknown = format!("{permission}-C999999");
    app.tell_of((ObjectType::Charge, &unknown), &permission).await;
    app.submit("paid-anyway", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("paid-anyway").await, "captured");
    app.pass(10 * 60 * MINUTE, 10 * MINUTE).await;
    assert_eq!(app.quarantine().await.len(), 1);
    let looks = app.ledger().requests_of(Operation::GetCharge).iter().filter(|request| request.status == 404).count();
    assert_eq!(looks, 5);
    let told = app.events_of("ipn.quarantined").await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["objectId"], json!(unknown));
    app.finish().await;
}
