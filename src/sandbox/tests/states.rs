//! Every documented state and reason code, and what happens by itself.

use serde_json::json;

use super::super::testing::Reply;
use super::*;

const DAY: Duration = Duration::from_hours(24);

async fn permission_status(client: &Client, id: &str) -> (String, Value) {
    let body = client.get(&format!("/v2/chargePermissions/{id}")).await.body;
    let status = &body["statusDetails"];
    (status["state"].as_str().unwrap().to_owned(), status["reasons"][0]["reasonCode"].clone())
}

async fn charge_status(client: &Client, id: &str) -> (String, Value) {
    let body = client.get(&format!("/v2/charges/{id}")).await.body;
    let status = &body["statusDetails"];
    (status["state"].as_str().unwrap().to_owned(), status["reasonCode"].clone())
}

/// A charge that may pend.
async fn asked(client: &Client, permission: &str, key: &str, capture_now: bool, simulation: Option<&str>) -> Reply {
    let mut body: Value = serde_json::from_str(&charge_body(permission, "14.00")).unwrap();
    body["captureNow"] = json!(capture_now);
    body["canHandlePendingAuthorization"] = json!(true);
    client.send("POST", "/v2/charges", Some(key), body.to_string().as_bytes(), simulation).await.unwrap()
}

fn id_of(reply: &Reply) -> String {
    reply.body["chargeId"].as_str().unwrap().to_owned()
}

async fn capture(client: &Client, charge: &str, key: &str, amount: &str) -> Reply {
    let body = json!({ "captureAmount": { "amount": amount, "currencyCode": "USD" } }).to_string();
    client.send("POST", &format!("/v2/charges/{charge}/capture"), Some(key), body.as_bytes(), None).await.unwrap()
}

#[tokio::test]
async fn every_reason_of_a_permission_is_shown_notified_once_and_stands_against_a_charge() {
    use PermissionState::{Closed, NonChargeable};
    let (sandbox, _clock, client, _) = start().await;
    let closed = CLOSED_REASONS.map(|reason| (Closed, reason));
    let unknown = [(NonChargeable, "SomethingNew"), (Closed, "SomethingElse")];
    let all = NON_CHARGEABLE_REASONS.map(|reason| (NonChargeable, reason)).into_iter().chain(closed).chain(unknown);
    for (number, (state, reason)) in all.enumerate() {
        let permission = sandbox.create_permission(PermissionSpec::recurring("USD"));
        for _ in 0..2 {
            sandbox.set_permission(&permission, state, &[reason]).unwrap();
        }
        assert_eq!(permission_status(&client, &permission).await, (state.as_str().to_owned(), json!(reason)));
        let reply = client.charge(&permission, &format!("key-{number}"), "1.00").await;
        assert_eq!(reply.short(), (422, "InvalidChargePermissionStatus"), "{reason}");
        // A charge in progress is told of by its own notification.
        let told = usize::from(reason != "ChargeInProgress");
        assert_eq!(object_ids(&sandbox).len(), told, "{reason}");
    }
}

#[tokio::test]
async fn every_reason_of_a_charge_is_shown_and_notified() {
    let (sandbox, _clock, client, permission) = start().await;
    let declined = DeclineCode::ALL.map(|code| (ChargeState::Declined, code.as_str()));
    let canceled = CANCELED_REASONS.map(|reason| (ChargeState::Canceled, reason));
    for (number, (state, reason)) in declined.into_iter().chain(canceled).enumerate() {
        let id = id_of(&asked(&client, &permission, &format!("key-{number}"), false, None).await);
        let _ = sandbox.notifications();
        sandbox.set_charge(&id, state, Some(reason)).unwrap();
        assert_eq!(charge_status(&client, &id).await, (state.as_str().to_owned(), json!(reason)));
        assert_eq!(object_ids(&sandbox), [(ObjectType::Charge, id)]);
    }
    assert!(sandbox.set_charge("C01-0000000-0000000-C000001", ChargeState::Canceled, None).is_err());
}

#[tokio::test]
async fn a_simulated_pending_authorisation_is_decided_after_30_seconds() {
    let (sandbox, clock, client, _) = start().await;
    for (simulation, capture_now, state, reason, left) in [
        ("PendingAuthorized", false, "Authorized", Value::Null, "Chargeable"),
        ("PendingAuthorized", true, "Captured", Value::Null, "Chargeable"),
        ("PendingSoftDeclined", false, "Declined", json!("SoftDeclined"), "Chargeable"),
        ("PendingHardDeclined", true, "Declined", json!("HardDeclined"), "NonChargeable"),
        ("PendingAmazonRejected", true, "Declined", json!("AmazonRejected"), "Closed"),
        ("PendingTransactionTimedOut", true, "Declined", json!("TransactionTimedOut"), "Chargeable"),
    ] {
        let permission = sandbox.create_permission(PermissionSpec::recurring("USD"));
        let key = format!("{simulation}-{capture_now}");
        let reply = asked(&client, &permission, &key, capture_now, Some(simulation)).await;
        let id = id_of(&reply);
        assert_eq!(
            (reply.status, reply.body["statusDetails"]["state"].as_str()),
            (201, Some("AuthorizationInitiated"))
        );
        clock.advance(Duration::from_secs(25));
        assert_eq!(charge_status(&client, &id).await.0, "AuthorizationInitiated", "{simulation}");
        assert_eq!(permission_status(&client, &permission).await.1, "ChargeInProgress");
        let _ = sandbox.notifications();
        clock.advance(Duration::from_secs(5));
        let told = object_ids(&sandbox);
        assert_eq!(told[0], (ObjectType::Charge, id.clone()), "told without anybody asking: {simulation}");
        assert_eq!(told.len(), if left == "Chargeable" { 1 } else { 2 }, "{simulation}");
        assert_eq!(charge_status(&client, &id).await, (state.to_owned(), reason), "{simulation}");
        assert_eq!(permission_status(&client, &permission).await.0, left, "{simulation}");
    }
}

#[tokio::test]
async fn the_cards_that_pend_do_so_for_who_can_handle_it() {
    let (sandbox, clock, client, permission) = start().await;
    for (key, card, state) in [("key-1", "Visa ****0701", "Captured"), ("key-2", "Visa ****4354", "Declined")] {
        sandbox.buyer_updates_instrument(&permission, card).unwrap();
        assert_eq!(client.charge(&permission, &format!("{key}-now"), "1.00").await.status, 201);
        let id = id_of(&asked(&client, &permission, key, true, None).await);
        assert_eq!(charge_status(&client, &id).await.0, "AuthorizationInitiated");
        clock.advance(Duration::from_secs(30));
        assert_eq!(charge_status(&client, &id).await.0, state);
    }
}

#[tokio::test]
async fn a_simulation_code_that_does_not_fit_the_call_is_refused_and_changes_nothing() {
    let (sandbox, _clock, client, permission) = start().await;
    let invalid = (400, "InvalidSandboxSimulationSpecified");
    for code in ["", "AmazonClosed", "Declined", "BuyerCanceled", "ProcessingFailure", "AuthorizationInitiated"] {
        assert_eq!(asked(&client, &permission, "key-1", true, Some(code)).await.short(), invalid, "{code}");
    }
    assert_eq!(asked(&client, &permission, "key-1", false, Some("CaptureInitiated")).await.short(), invalid);
    let path = format!("/v2/chargePermissions/{permission}");
    let get = client.send("GET", &path, None, b"", Some("SoftDeclined")).await.unwrap();
    assert_eq!(get.short(), invalid);
    assert!(sandbox.ledger().charges.is_empty());
    let codes = [("SoftDeclined", 422), ("TransactionTimedOut", 422), ("HardDeclined", 422), ("CaptureInitiated", 201)];
    for (code, status) in codes {
        let permission = sandbox.create_permission(PermissionSpec::recurring("USD"));
        assert_eq!(asked(&client, &permission, code, true, Some(code)).await.status, status, "{code}");
    }
    let path = format!("/v2/chargePermissions/{permission}/close");
    let close = |code| client.send("DELETE", &path, None, br#"{"closureReason":"ended"}"#, Some(code));
    assert_eq!(close("MerchantClosed").await.unwrap().short(), invalid);
    assert_eq!(close("AmazonClosed").await.unwrap().status, 200);
    assert_eq!(permission_status(&client, &permission).await, ("Closed".to_owned(), json!("AmazonClosed")));
}

#[tokio::test]
async fn an_authorisation_ends_after_30_days_by_itself_and_is_notified() {
    let (sandbox, clock, client, permission) = start().await;
    let id = id_of(&asked(&client, &permission, "key-1", false, None).await);
    let captured = id_of(&asked(&client, &permission, "key-2", false, None).await);
    assert_eq!(capture(&client, &captured, "capture-1", "5.00").await.status, 200, "a part of it");
    let _ = sandbox.notifications();
    clock.advance(DAY * 29 + Duration::from_mins(24 * 60 - 1));
    assert!(object_ids(&sandbox).is_empty());
    clock.advance(Duration::from_mins(1));
    assert_eq!(object_ids(&sandbox), [(ObjectType::Charge, id.clone())]);
    assert_eq!(charge_status(&client, &id).await, ("Canceled".to_owned(), json!("ExpiredUnused")));
    assert_eq!(charge_status(&client, &captured).await.0, "Captured");
    assert_eq!(sandbox.ledger().captured_total(), "5.00".parse().unwrap());
    assert_eq!(capture(&client, &id, "capture-2", "5.00").await.short(), (422, "InvalidChargeStatus"));
}

#[tokio::test]
async fn a_capture_after_seven_days_is_decided_later() {
    let (sandbox, clock, client, permission) = start().await;
    let mut ids = Vec::new();
    for key in ["key-1", "key-2", "key-3"] {
        ids.push(id_of(&asked(&client, &permission, key, false, None).await));
    }
    clock.advance(DAY * 6 + Duration::from_mins(24 * 60 - 1));
    assert_eq!(capture(&client, &ids[0], "capture-1", "14.00").await.body["statusDetails"]["state"], "Captured");
    clock.advance(Duration::from_mins(2));
    let late = capture(&client, &ids[1], "capture-2", "4.00").await;
    assert_eq!((late.status, &late.body["statusDetails"]["state"]), (200, &json!("CaptureInitiated")));
    assert_eq!(late.body["captureAmount"]["amount"], "4.00");
    sandbox.finish_pending(&ids[1], ChargeState::Captured, None).unwrap();
    assert_eq!(sandbox.ledger().captured_total(), "18.00".parse().unwrap());

    sandbox.script_capture(&permission, Outcome::PendCaptureThen(Some(DeclineCode::HardDeclined))).unwrap();
    assert_eq!(capture(&client, &ids[2], "capture-3", "14.00").await.status, 200);
    clock.advance(Duration::from_secs(30));
    assert_eq!(charge_status(&client, &ids[2]).await, ("Declined".to_owned(), json!("HardDeclined")));
    assert_eq!(permission_status(&client, &permission).await.1, "PaymentMethodInvalid");
}

#[tokio::test]
async fn closing_cancels_pending_charges_only_if_asked_to() {
    let (sandbox, _clock, client, _) = start().await;
    for (cancel, state) in [(false, "AuthorizationInitiated"), (true, "Canceled")] {
        let permission = sandbox.create_permission(PermissionSpec::recurring("USD"));
        sandbox.script_charge(&permission, Outcome::Pend).unwrap();
        let id = id_of(&asked(&client, &permission, &format!("key-{cancel}"), true, None).await);
        let body = json!({ "closureReason": "ended", "cancelPendingCharges": cancel }).to_string();
        let path = format!("/v2/chargePermissions/{permission}/close");
        assert_eq!(client.delete(&path, &body).await.status, 200);
        let reason = if cancel { json!("ChargePermissionCanceled") } else { Value::Null };
        assert_eq!(charge_status(&client, &id).await, (state.to_owned(), reason));
        assert_eq!(permission_status(&client, &permission).await.0, "Closed");
    }
}

#[tokio::test]
async fn a_recurring_permission_expires_13_months_after_its_last_charge_and_a_saved_wallet_never() {
    let (sandbox, clock, client, permission) = start().await;
    let saved = sandbox.create_permission(PermissionSpec::new(PermissionKind::PaymentMethodOnFile, "USD"));
    clock.advance(DAY * 300);
    assert_eq!(client.charge(&permission, "key-1", "1.00").await.status, 201);
    let _ = sandbox.notifications();
    clock.advance(DAY * 395);
    assert_eq!(permission_status(&client, &permission).await.0, "Chargeable", "the charge pushed the end out");
    clock.advance(DAY);
    assert_eq!(object_ids(&sandbox), [(ObjectType::ChargePermission, permission.clone())]);
    assert_eq!(permission_status(&client, &permission).await, ("Closed".to_owned(), json!("Expired")));
    assert_eq!(permission_status(&client, &saved).await.0, "Chargeable");
}

#[tokio::test]
async fn where_that_is_set_nothing_is_pending_for_ever() {
    let clock = Clock::movable();
    let settings =
        SandboxSettings { settle_after: Some(Duration::from_mins(1)), ..SandboxSettings::new(clock.clone()) };
    let sandbox = Sandbox::start(settings).await.unwrap();
    let client = Client::of(&sandbox, &clock);
    let permission = sandbox.create_permission(PermissionSpec::recurring("USD"));
    let id = id_of(&client.charge(&permission, "key-1", "14.00").await);
    let refund = sandbox.refund(&id, Decimal::ONE).unwrap();
    sandbox.script_charge(&permission, Outcome::Pend).unwrap();
    let pending = id_of(&asked(&client, &permission, "key-2", false, None).await);
    clock.advance(Duration::from_mins(1));
    assert_eq!(client.get(&format!("/v2/refunds/{refund}")).await.body["statusDetails"]["state"], "Refunded");
    assert_eq!(charge_status(&client, &pending).await.0, "Authorized");
    assert_eq!(permission_status(&client, &permission).await.0, "Chargeable");
}
