//! How other integrations fail, and that this one does not. Each story is one that users of them reported; `docs/GUIDES.md` lists them all.

use amazon_pay_ipn::sandbox::{
    DeclineCode, Fault, NotificationType, ObjectType, Operation, Outcome, PermissionState, SignatureVersion,
};

use crate::support::{DAY, HOUR, MINUTE, TestApp};

/// The `WooCommerce` plugin turns a 429 or 5xx of Amazon, met while it handles a notification, into a 400: SNS then never delivers it again.
#[tokio::test]
async fn an_outage_of_amazon_is_not_passed_on_to_sns_and_the_notification_is_acted_on_afterwards() {
    for fault in [Fault::status(429, "TooManyRequests"), Fault::status(503, "ServiceUnavailable"), Fault::DropBefore] {
        let app = TestApp::start().await;
        let permission = app.permission();
        for _ in 0..3 {
            app.sandbox.inject(Operation::GetChargePermission, fault.clone());
        }
        app.sandbox.buyer_closes(&permission).expect("a permission");
        assert_eq!(app.deliver_all().await, 1);
        app.run_due().await;
        assert!(app.events_of("charge_permission.closed").await.is_empty());
        app.pass(2 * HOUR, MINUTE).await;
        assert_eq!(app.events_of("charge_permission.closed").await.len(), 1, "{fault:?}");
        app.finish().await;
    }
}

/// woo-amazon-pay #274: two notifications in the same second, other message ids and other notification ids, one change.
#[tokio::test]
async fn two_notifications_of_one_change_with_different_ids_cost_one_look_and_tell_once() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.buyer_closes(&permission).expect("a permission");
    app.deliver_all().await;
    app.tell_of((ObjectType::ChargePermission, &permission), &permission).await;
    app.run_due().await;
    assert_eq!(app.journal().await.len(), 2);
    assert_eq!(app.ledger().requests.len(), 1);
    assert_eq!(app.event_kinds().await, ["charge_permission.closed"]);
    app.finish().await;
}

/// Magento closes the permission and cancels the order upon any decline; `WooCommerce` marks the order failed whatever the reason.
#[tokio::test]
async fn no_decline_closes_a_permission_or_cancels_a_charge_at_amazon() {
    let app = TestApp::start().await;
    for (index, decline) in [
        DeclineCode::SoftDeclined,
        DeclineCode::HardDeclined,
        DeclineCode::TransactionTimedOut,
        DeclineCode::ProcessingFailure,
        DeclineCode::AmazonRejected,
        DeclineCode::PaymentMethodNotAllowed,
        DeclineCode::MfaNotCompleted,
        DeclineCode::TransactionCountExceeded,
    ]
    .into_iter()
    .enumerate()
    {
        let permission = app.permission();
        app.sandbox.script_charge(&permission, Outcome::Decline(decline)).expect("a permission");
        app.submit(&format!("renewal-{index}"), &permission).await;
    }
    app.run_due().await;
    app.deliver_all().await;
    app.pass(3 * DAY, 3 * HOUR).await;
    let ledger = app.ledger();
    assert!(ledger.requests_of(Operation::CloseChargePermission).is_empty());
    assert!(ledger.requests_of(Operation::CancelCharge).is_empty());
    assert_eq!(app.state("renewal-0").await, "captured", "a soft decline passes");
    app.finish().await;
}

/// woo-amazon-pay #336: two permissions polled 136 times a day for days, while something upstream blocked the notifications.
#[tokio::test]
async fn a_charge_that_waits_while_notifications_are_blocked_costs_few_looks_and_ends() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    let before = app.ledger().requests.len();
    app.pass(DAY, HOUR).await;
    let day = app.ledger().requests.len() - before;
    assert!(day <= 8, "{day} calls on the first day");
    app.pass(40 * DAY, 6 * HOUR).await;
    let all = app.ledger().requests.len();
    assert!(all <= 60, "{all} calls in all");
    app.pass(400 * DAY, 10 * DAY).await;
    assert_eq!(app.ledger().requests.len(), all, "and none after the end");
    app.finish().await;
}

/// Magento #1275: rows that never finish keep the others from their turn.
#[tokio::test]
async fn permissions_that_amazon_never_shows_keep_no_other_from_its_turn() {
    let app = TestApp::start().await;
    for index in 0..40 {
        app.submit(&format!("lost-{index}"), &format!("C01-9999999-99999{index:02}")).await;
    }
    let permission = app.permission();
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}

/// amazon-payments-magento-plugin #158: the buyer mends the card, and still nothing is charged until somebody clicks.
#[tokio::test]
async fn a_card_mended_while_every_notification_is_lost_is_charged_by_the_sweep() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined)).expect("a permission");
    app.submit("renewal", &permission).await;
    app.run_due().await;
    app.sandbox.buyer_updates_instrument(&permission, "MasterCard ****2222").expect("a permission");
    app.pass(DAY, HOUR).await;
    assert_eq!(app.state("renewal").await, "captured");
    assert_eq!(app.events_of("charge.captured").await[0]["recoveredBy"], "instrument_update");
    app.finish().await;
}

/// habitica #6910: payments had stopped, and the subscriber stayed active for months. Also for who submitted nothing.
#[tokio::test]
async fn a_closing_is_told_for_a_permission_that_nobody_asked_us_to_charge() {
    let app = TestApp::start().await;
    let permission = app.permission();
    app.sandbox.set_permission(&permission, PermissionState::Closed, &["BuyerClosed"]).expect("a permission");
    app.deliver_all().await;
    app.run_due().await;
    let told = app.events_of("charge_permission.closed").await;
    assert_eq!((told.len(), &told[0]["closedBy"]), (1, &"buyer".into()));
    app.finish().await;
}

/// Shops lose the notification that comes before their own row is written. Here there is no row that it could come before.
#[tokio::test]
async fn a_notification_that_comes_before_the_submission_is_neither_refused_nor_lost() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let ipn =
        app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::AttributeChange);
    let message = app.sandbox.sign(&ipn, SignatureVersion::V2);
    assert_eq!(app.post_ipn(&message.body, &message.headers).await, 200);
    app.submit("renewal", &permission).await;
    app.run_due().await;
    assert_eq!(app.state("renewal").await, "captured");
    app.finish().await;
}
