//! The sandbox over HTTP, as its users meet it.

mod control;
mod refunds_and_disputes;
mod states;
mod throttling;

use std::time::Duration;

use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde_json::Value;

use super::testing::{Client, charge_body, start};
use super::*;

fn http() -> reqwest::Client {
    super::delivery::http_client(Duration::from_secs(20)).unwrap()
}

fn object_ids(sandbox: &Sandbox) -> Vec<(ObjectType, String)> {
    sandbox.notifications().into_iter().map(|ipn| (ipn.object_type, ipn.object_id)).collect()
}

#[tokio::test]
async fn a_charge_is_captured_entered_in_the_ledger_and_notified() {
    let (sandbox, clock, client, permission) = start().await;
    let reply = client.charge(&permission, "key-1", "14.00").await;
    assert_eq!(reply.status, 201);
    let charge_id = reply.body["chargeId"].as_str().unwrap();
    assert!(charge_id.starts_with(&format!("{permission}-C")));
    assert_eq!(reply.body["statusDetails"]["state"], "Captured");
    assert_eq!(reply.body["captureAmount"]["amount"], "14.00");
    assert_eq!(reply.body["creationTimestamp"].as_str().unwrap().len(), "20261122T100000Z".len());
    assert!(reply.headers.contains_key("x-amz-pay-request-id"));

    let ledger = sandbox.ledger();
    let [charge] = ledger.captured_of(&permission)[..] else { panic!("one charge: {ledger:?}") };
    assert_eq!(charge.charge_id, charge_id);
    assert_eq!(charge.idempotency_key, "key-1");
    assert_eq!(charge.custom_information.as_deref(), Some("amazon-pay-ipn/v1/sub-42/0"));
    assert_eq!(ledger.captured_total(), "14.00".parse().unwrap());
    let [request] = ledger.requests_of(Operation::CreateCharge)[..] else { panic!("one request") };
    assert_eq!((request.status, request.signature_ok), (201, true));
    assert_eq!(object_ids(&sandbox), [(ObjectType::Charge, charge_id.to_owned())]);

    let read = client.get(&format!("/sandbox/v2/charges/{charge_id}")).await;
    assert_eq!((read.status, &read.body), (200, &reply.body));
    drop(clock);
}

#[tokio::test]
async fn get_charge_permission_is_complete_and_carries_buyer_data() {
    let (sandbox, _clock, client, permission) = start().await;
    let body = client.get(&format!("/v2/chargePermissions/{permission}")).await.body;
    for name in [
        "chargePermissionId",
        "chargePermissionType",
        "recurringMetadata",
        "buyer",
        "shippingAddress",
        "billingAddress",
        "paymentPreferences",
        "statusDetails",
        "creationTimestamp",
        "expirationTimestamp",
        "merchantMetadata",
        "limits",
        "presentmentCurrency",
        "releaseEnvironment",
    ] {
        assert!(body.get(name).is_some(), "{name}");
    }
    assert_eq!(body["releaseEnvironment"], "Sandbox");
    assert_eq!(body["statusDetails"]["state"], "Chargeable");
    assert_eq!(body["statusDetails"]["reasons"], Value::Null);
    assert_eq!(body["limits"]["amountLimit"], Value::Null);
    let text = body.to_string();
    for secret in BUYER_SECRETS {
        assert!(text.contains(secret), "{secret}");
    }
    let saved = sandbox.create_permission(PermissionSpec::new(PermissionKind::PaymentMethodOnFile, "USD"));
    assert!(saved.starts_with("B01-"));
    let body = client.get(&format!("/v2/chargePermissions/{saved}")).await.body;
    assert_eq!(body["expirationTimestamp"], Value::Null);
}

#[tokio::test]
async fn a_wrong_signature_is_refused_and_recorded() {
    let (sandbox, clock, client, permission) = start().await;
    let late = Client::of(&sandbox, &Clock::movable());
    clock.advance(Duration::from_mins(6));
    let reply = late.charge(&permission, "key-1", "14.00").await;
    assert_eq!(reply.short(), (403, "InvalidRequestSignature"));
    sandbox.set_date_tolerance(Duration::from_mins(10));
    assert_eq!(late.charge(&permission, "key-1", "14.00").await.status, 201);
    assert_eq!(client.charge(&permission, "key-1", "14.00").await.status, 201);
    let signatures: Vec<bool> = sandbox.ledger().requests.iter().map(|request| request.signature_ok).collect();
    assert_eq!(signatures, [false, true, true]);
    assert_eq!(sandbox.ledger().charges.len(), 1);
}

#[tokio::test]
async fn the_date_header_follows_the_moved_clock() {
    let (_sandbox, clock, client, _) = start().await;
    clock.advance(Duration::from_hours(24 * 40));
    let reply = client.get("/v2/charges/C01-0000000-0000000-C000001").await;
    assert_eq!(reply.short(), (404, "ResourceNotFound"));
    let dates: Vec<_> = reply.headers.get_all("date").iter().collect();
    assert_eq!(dates.len(), 1);
    let date = jiff::fmt::rfc2822::parse(dates[0].to_str().unwrap()).unwrap().timestamp();
    assert!(clock.now().duration_since(date).as_secs().abs() < 60, "{date}");
}

#[tokio::test]
async fn a_success_is_replayed_under_every_reading() {
    for reading in [Reading::ReplayAll, Reading::ReEvaluate, Reading::StatusFirst] {
        let (sandbox, _clock, client, permission) = start().await;
        sandbox.set_reading(reading);
        let first = client.charge(&permission, "key-1", "14.00").await;
        let second = client.charge(&permission, "key-1", "14.00").await;
        assert_eq!((first.status, &first.body), (second.status, &second.body), "{reading:?}");
        assert_eq!(sandbox.ledger().charges.len(), 1, "{reading:?}");
        let replayed: Vec<bool> = sandbox.ledger().requests.iter().map(|request| request.replayed).collect();
        assert_eq!(replayed, [false, true]);
    }
}

#[tokio::test]
async fn a_decline_is_replayed_or_evaluated_anew_as_the_reading_says() {
    for (reading, again) in [(Reading::ReplayAll, 422), (Reading::ReEvaluate, 201), (Reading::StatusFirst, 422)] {
        let (sandbox, _clock, client, permission) = start().await;
        sandbox.set_reading(reading);
        sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).unwrap();
        let first = client.charge(&permission, "key-1", "14.00").await;
        assert_eq!(first.short(), (422, "SoftDeclined"));
        assert!(first.body.get("chargeId").is_none(), "the body of a decline names no charge");
        assert_eq!(client.charge(&permission, "key-1", "14.00").await.status, again, "{reading:?}");
        assert_eq!(client.charge(&permission, "key-2", "14.00").await.status, 201, "{reading:?}");
    }
}

#[tokio::test]
async fn status_first_hides_a_success_behind_the_state_of_the_permission() {
    for (reading, expected) in [
        (Reading::ReplayAll, (201, "")),
        (Reading::ReEvaluate, (201, "")),
        (Reading::StatusFirst, (422, "InvalidChargePermissionStatus")),
    ] {
        let (sandbox, _clock, client, permission) = start().await;
        sandbox.set_reading(reading);
        assert_eq!(client.charge(&permission, "key-1", "14.00").await.status, 201);
        sandbox.buyer_deletes_instrument(&permission).unwrap();
        assert_eq!(client.charge(&permission, "key-1", "14.00").await.short(), expected, "{reading:?}");
        sandbox.buyer_updates_instrument(&permission, "Visa ****2222").unwrap();
        assert_eq!(client.charge(&permission, "key-1", "14.00").await.status, 201, "{reading:?}");
        assert_eq!(sandbox.ledger().charges.len(), 1);
    }
}

#[tokio::test]
async fn a_key_with_other_values_is_a_duplicate() {
    let (sandbox, _clock, client, permission) = start().await;
    client.charge(&permission, "key-1", "14.00").await;
    assert_eq!(client.charge(&permission, "key-1", "15.00").await.short(), (400, "DuplicateIdempotencyKey"));
    assert_eq!(sandbox.ledger().charges.len(), 1);
}

#[tokio::test]
async fn simultaneous_copies_of_one_request_charge_once() {
    let (sandbox, _clock, client, permission) = start().await;
    let copies: Vec<_> = (0..8)
        .map(|_| {
            let (twin, id) = (client.clone(), permission.clone());
            tokio::spawn(async move { twin.charge(&id, "key-1", "14.00").await.body["chargeId"].to_string() })
        })
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for copy in copies {
        ids.insert(copy.await.unwrap());
    }
    assert_eq!((ids.len(), sandbox.ledger().charges.len()), (1, 1));
}

#[tokio::test]
async fn malformed_requests_have_the_documented_reason_codes() {
    let (sandbox, _clock, client, permission) = start().await;
    let body = charge_body(&permission, "14.00");
    let no_key = client.send("POST", "/v2/charges", None, body.as_bytes(), None).await.unwrap();
    assert_eq!(no_key.short(), (400, "MissingHeader"));
    let changes: [(&str, Value, &str); 9] = [
        ("surprise", Value::from(1), "UnrecognizedField"),
        ("chargeAmount", Value::Null, "MissingParameterValue"),
        ("chargePermissionId", Value::Null, "MissingParameterValue"),
        ("chargeAmount", serde_json::json!({"amount": "1.999", "currencyCode": "USD"}), "InvalidParameterValue"),
        ("chargeAmount", serde_json::json!({"amount": 14.0, "currencyCode": "USD"}), "InvalidParameterValue"),
        ("chargeAmount", serde_json::json!({"amount": "14", "currencyCode": "JPY"}), "CurrencyMismatch"),
        (
            "chargeAmount",
            serde_json::json!({"amount": "150000.01", "currencyCode": "USD"}),
            "TransactionAmountExceeded",
        ),
        ("softDescriptor", Value::from("seventeen letters"), "InvalidParameterValue"),
        ("chargeInitiator", Value::from("ME"), "InvalidParameterValue"),
    ];
    for (number, (name, value, expected)) in changes.into_iter().enumerate() {
        let mut body: Value = serde_json::from_str(&body).unwrap();
        body[name] = value;
        let key = format!("key-{number}");
        let text = body.to_string();
        let reply = client.send("POST", "/v2/charges", Some(&key), text.as_bytes(), None).await.unwrap();
        assert_eq!(reply.short(), (400, expected), "{text}");
    }
    let mut later: Value = serde_json::from_str(&body).unwrap();
    later["captureNow"] = Value::from(false);
    later["softDescriptor"] = Value::from("short");
    let text = later.to_string();
    let reply = client.send("POST", "/v2/charges", Some("key-x"), text.as_bytes(), None).await.unwrap();
    assert_eq!(reply.short(), (400, "InvalidParameterCombination"));
    let reply = client.send("POST", "/v2/charges", Some("key-y"), b"{", None).await.unwrap();
    assert_eq!(reply.short(), (400, "InvalidRequestFormat"));
    assert!(sandbox.ledger().charges.is_empty());
}

#[tokio::test]
async fn declines_do_to_the_permission_what_amazon_says() {
    use PermissionState::{Chargeable, Closed, NonChargeable};
    let cases = [
        (Outcome::Decline(DeclineCode::SoftDeclined), 422, Chargeable, None),
        (Outcome::Decline(DeclineCode::ProcessingFailure), 500, Chargeable, None),
        (Outcome::Decline(DeclineCode::HardDeclined), 422, NonChargeable, Some("PaymentMethodInvalid")),
        (Outcome::DeclineStayingChargeable(DeclineCode::HardDeclined), 422, Chargeable, None),
        (
            Outcome::DeclineTurningNonChargeable(DeclineCode::SoftDeclined),
            422,
            NonChargeable,
            Some("PaymentMethodInvalid"),
        ),
        (Outcome::Decline(DeclineCode::AmazonRejected), 422, Closed, Some("AmazonCanceled")),
        (Outcome::Answer(418, "Teapot".to_owned()), 418, Chargeable, None),
    ];
    let (sandbox, _clock, client, _) = start().await;
    for (number, (outcome, status, state, reason)) in cases.into_iter().enumerate() {
        let permission = sandbox.create_permission(PermissionSpec::recurring("USD"));
        sandbox.script_charge(&permission, outcome.clone()).unwrap();
        let reply = client.charge(&permission, &format!("key-{number}"), "14.00").await;
        assert_eq!(reply.status, status, "{outcome:?}");
        let body = client.get(&format!("/v2/chargePermissions/{permission}")).await.body;
        assert_eq!(body["statusDetails"]["state"], state.as_str(), "{outcome:?}");
        assert_eq!(body["statusDetails"]["reasons"][0]["reasonCode"].as_str(), reason, "{outcome:?}");
        let told = object_ids(&sandbox).iter().any(|(_, id)| *id == permission);
        assert_eq!(told, reason.is_some(), "a changed state is notified: {outcome:?}");
    }
}

#[tokio::test]
async fn the_simulation_header_is_obeyed() {
    let (sandbox, _clock, client, permission) = start().await;
    let body = charge_body(&permission, "14.00");
    for (key, code, expected) in [
        ("key-1", "SoftDeclined", (422, "SoftDeclined")),
        ("key-2", "Nonsense", (400, "InvalidSandboxSimulationSpecified")),
        ("key-3", "PendingAuthorization", (400, "InvalidSandboxSimulationSpecified")),
        ("key-4", "HardDeclined", (422, "HardDeclined")),
    ] {
        let reply = client.send("POST", "/v2/charges", Some(key), body.as_bytes(), Some(code)).await.unwrap();
        assert_eq!(reply.short(), expected, "{code}");
    }
    assert_eq!(sandbox.ledger().captured_total(), Decimal::ZERO);
}

#[tokio::test]
async fn a_pending_charge_blocks_its_permission_until_it_is_decided() {
    let (sandbox, _clock, client, permission) = start().await;
    sandbox.script_charge(&permission, Outcome::Pend).unwrap();
    let mut body: Value = serde_json::from_str(&charge_body(&permission, "14.00")).unwrap();
    body["canHandlePendingAuthorization"] = Value::from(true);
    let text = body.to_string();
    let reply = client.send("POST", "/v2/charges", Some("key-1"), text.as_bytes(), None).await.unwrap();
    assert_eq!(reply.body["statusDetails"]["state"], "AuthorizationInitiated");
    let id = reply.body["chargeId"].as_str().unwrap();
    let read = client.get(&format!("/v2/chargePermissions/{permission}")).await.body;
    assert_eq!(read["statusDetails"]["reasons"][0]["reasonCode"], "ChargeInProgress");
    let second = client.charge(&permission, "key-2", "14.00").await;
    assert_eq!(second.short(), (422, "InvalidChargePermissionStatus"));

    let _ = sandbox.notifications();
    sandbox.finish_pending(id, ChargeState::Captured, None).unwrap();
    assert!(sandbox.finish_pending(id, ChargeState::Captured, None).is_err(), "decided once");
    assert_eq!(object_ids(&sandbox), [(ObjectType::Charge, id.to_owned())]);
    let read = client.get(&format!("/v2/chargePermissions/{permission}")).await.body;
    assert_eq!(read["statusDetails"]["state"], "Chargeable");
    assert_eq!(sandbox.ledger().captured_total_of(&permission), "14.00".parse().unwrap());
}

#[tokio::test]
async fn authorised_charges_are_captured_once_or_canceled() {
    let (sandbox, clock, client, permission) = start().await;
    let mut body: Value = serde_json::from_str(&charge_body(&permission, "14.00")).unwrap();
    body["captureNow"] = Value::from(false);
    let text = body.to_string();
    let mut ids = Vec::new();
    for key in ["key-1", "key-2", "key-3"] {
        let reply = client.send("POST", "/v2/charges", Some(key), text.as_bytes(), None).await.unwrap();
        assert_eq!(reply.body["statusDetails"]["state"], "Authorized");
        ids.push(reply.body["chargeId"].as_str().unwrap().to_owned());
    }
    let capture = br#"{"captureAmount":{"amount":"10.00","currencyCode":"USD"}}"#;
    let path = format!("/v2/charges/{}/capture", ids[0]);
    for _ in 0..2 {
        let reply = client.send("POST", &path, Some("capture-1"), capture, None).await.unwrap();
        assert_eq!((reply.status, &reply.body["captureAmount"]["amount"]), (200, &Value::from("10.00")));
    }
    let reply = client.send("POST", &path, Some("capture-2"), capture, None).await.unwrap();
    assert_eq!(reply.short(), (422, "InvalidChargeStatus"));

    let path = format!("/v2/charges/{}/cancel", ids[1]);
    let reply = client.delete(&path, r#"{"cancellationReason":"not needed"}"#).await;
    assert_eq!(reply.body["statusDetails"]["reasonCode"], "MerchantCanceled");
    let reply = client.delete(&path, r#"{"cancellationReason":"not needed"}"#).await;
    assert_eq!(reply.short(), (422, "InvalidChargeStatus"));

    clock.advance(Duration::from_hours(31 * 24));
    let expired = client.get(&format!("/v2/charges/{}", ids[2])).await;
    assert_eq!(expired.body["statusDetails"]["reasonCode"], "ExpiredUnused");
    assert_eq!(sandbox.ledger().captured_total(), "10.00".parse().unwrap());
}

#[tokio::test]
async fn a_closed_permission_stays_closed() {
    let (sandbox, _clock, client, permission) = start().await;
    let path = format!("/v2/chargePermissions/{permission}/close");
    let body = r#"{"closureReason":"ended","cancelPendingCharges":true}"#;
    let reply = client.delete(&path, body).await;
    assert_eq!((reply.status, &reply.body["statusDetails"]["state"]), (200, &Value::from("Closed")));
    assert_eq!(client.delete(&path, body).await.short(), (422, "InvalidChargePermissionStatus"));
    sandbox.buyer_updates_instrument(&permission, "Visa ****2222").unwrap();
    let reply = client.charge(&permission, "key-1", "14.00").await;
    assert_eq!(reply.short(), (422, "InvalidChargePermissionStatus"));
    assert_eq!(object_ids(&sandbox).len(), 1);
}

#[tokio::test]
async fn the_monthly_limit_holds_and_ends_with_the_month() {
    let (sandbox, clock, client, _) = start().await;
    // Begin in the first days of a month, so that the moves below cross exactly one turn.
    let turn = |clock: &Clock| {
        let now = clock.now().to_zoned(TimeZone::UTC);
        let first = now.date().first_of_month().checked_add(jiff::Span::new().months(1)).unwrap();
        let wait = first.to_zoned(TimeZone::UTC).unwrap().timestamp().duration_since(clock.now());
        clock.advance(wait.unsigned_abs() + Duration::from_secs(1));
    };
    turn(&clock);
    let spec = PermissionSpec::recurring("USD").with_monthly_limit(Decimal::from(20));
    let permission = sandbox.create_permission(spec);
    let balance = async || {
        let body = client.get(&format!("/v2/chargePermissions/{permission}")).await.body;
        body["limits"]["amountBalance"]["amount"].as_str().unwrap().parse::<Decimal>().unwrap()
    };
    assert_eq!(client.charge(&permission, "key-1", "14.00").await.status, 201);
    assert_eq!(balance().await, Decimal::from(6));
    assert_eq!(client.charge(&permission, "key-2", "14.00").await.short(), (400, "PeriodicAmountExceeded"));
    turn(&clock);
    assert_eq!(balance().await, Decimal::from(20));
    assert_eq!(client.charge(&permission, "key-3", "14.00").await.status, 201);
}

#[tokio::test]
async fn drop_after_commits_exactly_once() {
    let (sandbox, _clock, client, permission) = start().await;
    sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
    assert!(client.try_charge(&permission, "key-1", "14.00").await.is_err());
    assert_eq!(sandbox.ledger().captured_of(&permission).len(), 1);
    assert_eq!(client.charge(&permission, "key-1", "14.00").await.status, 201);
    assert_eq!(sandbox.ledger().captured_of(&permission).len(), 1);
}

#[tokio::test]
async fn drop_before_commits_nothing() {
    let (sandbox, _clock, client, permission) = start().await;
    sandbox.inject(Operation::CreateCharge, Fault::DropBefore);
    assert!(client.try_charge(&permission, "key-1", "14.00").await.is_err());
    assert!(sandbox.ledger().charges.is_empty());
    assert_eq!(sandbox.ledger().requests[0].status, 0);
    assert_eq!(client.charge(&permission, "key-1", "14.00").await.status, 201);
}

#[tokio::test]
async fn a_held_request_is_evaluated_after_its_client_has_gone() {
    for inside in [false, true] {
        let (sandbox, clock, client, permission) = start().await;
        let gate = Gate::new();
        let fault = if inside { Fault::HoldInside(gate.clone()) } else { Fault::HoldBefore(gate.clone()) };
        sandbox.inject(Operation::CreateCharge, fault);
        let (twin, id) = (client.clone(), permission.clone());
        let sending = tokio::spawn(async move { twin.try_charge(&id, "key-1", "14.00").await.is_ok() });
        gate.reached().await;
        sending.abort();
        assert!(sending.await.is_err(), "the client is gone");
        assert!(sandbox.ledger().charges.is_empty());
        clock.advance(Duration::from_mins(4));
        gate.release();
        gate.done().await;
        assert_eq!(sandbox.ledger().captured_of(&permission).len(), 1);
    }
}

#[tokio::test]
async fn a_request_that_was_given_up_at_once_arrives_after_later_ones() {
    let (sandbox, clock, client, permission) = start().await;
    let gate = Gate::new();
    sandbox.inject(Operation::CreateCharge, Fault::Late(gate.clone()));
    assert!(client.try_charge(&permission, "key-1", "14.00").await.is_err(), "the connection was cut");
    gate.reached().await;
    assert_eq!(client.charge(&permission, "key-2", "15.00").await.status, 201);
    clock.advance(Duration::from_mins(4));
    gate.release();
    gate.done().await;
    let ledger = sandbox.ledger();
    let keys: Vec<_> = ledger.charges.iter().map(|charge| charge.idempotency_key.as_str()).collect();
    assert_eq!(keys, ["key-2", "key-1"], "evaluated in the order of arrival");
    let sent: Vec<_> = ledger.requests_of(Operation::CreateCharge).iter().map(|request| request.received).collect();
    assert_eq!(sent, [2, 1], "noted is the order in which they left the client");
    let answered: Vec<_> = ledger.requests_of(Operation::CreateCharge).iter().map(|request| request.answered).collect();
    assert_eq!(answered, [Some(2), Some(1)], "nobody waited for the one that was cut off");
}

#[tokio::test]
async fn a_sandbox_with_a_session_gives_out_the_same_ids_each_time() {
    let ids = async || {
        let settings = SandboxSettings { session: Some(42), ..SandboxSettings::new(Clock::movable()) };
        Sandbox::start(settings).await.unwrap().create_permission(PermissionSpec::recurring("USD"))
    };
    assert_eq!((ids().await, ids().await), ("C01-0000042-0000001".to_owned(), "C01-0000042-0000001".to_owned()));
}

#[tokio::test]
async fn a_delayed_copy_that_comes_too_late_is_refused_for_its_date() {
    let (sandbox, clock, client, permission) = start().await;
    let gate = Gate::new();
    sandbox.inject(Operation::CreateCharge, Fault::HoldBefore(gate.clone()));
    let (twin, id) = (client.clone(), permission.clone());
    let sending = tokio::spawn(async move { twin.charge(&id, "key-1", "14.00").await });
    gate.reached().await;
    clock.advance(Duration::from_mins(6));
    gate.release();
    assert_eq!(sending.await.unwrap().short(), (403, "InvalidRequestSignature"));
    assert!(sandbox.ledger().charges.is_empty());
}

#[tokio::test]
async fn hold_after_commits_and_keeps_the_answer_back() {
    let (sandbox, _clock, client, permission) = start().await;
    let gate = Gate::new();
    sandbox.inject(Operation::CreateCharge, Fault::HoldAfter(gate.clone()));
    let (twin, id) = (client.clone(), permission.clone());
    let sending = tokio::spawn(async move { twin.charge(&id, "key-1", "14.00").await });
    gate.reached().await;
    assert_eq!(sandbox.ledger().captured_of(&permission).len(), 1);
    assert!(!sending.is_finished());
    gate.release();
    assert_eq!(sending.await.unwrap().status, 201);
}

#[tokio::test]
async fn answers_that_lie_about_the_commit_can_be_ordered() {
    let (sandbox, _clock, client, permission) = start().await;
    sandbox.inject(Operation::CreateCharge, Fault::status(503, "ServiceUnavailable"));
    sandbox.inject(Operation::CreateCharge, Fault::StatusAfter(500, "InternalServerError".to_owned()));
    sandbox.inject(Operation::CreateCharge, Fault::Garbled);
    assert_eq!(client.charge(&permission, "key-1", "1.00").await.short(), (503, "ServiceUnavailable"));
    assert!(sandbox.ledger().charges.is_empty());
    assert_eq!(client.charge(&permission, "key-1", "1.00").await.short(), (500, "InternalServerError"));
    let garbled = client.charge(&permission, "key-1", "1.00").await;
    assert_eq!((garbled.status, garbled.body.get("chargeId")), (201, None));
    assert_eq!(client.charge(&permission, "key-1", "1.00").await.status, 201);

    sandbox.set_reading(Reading::ReEvaluate);
    sandbox.inject(Operation::CreateCharge, Fault::StatusKept(500, "InternalServerError".to_owned()));
    for _ in 0..2 {
        assert_eq!(client.charge(&permission, "key-2", "1.00").await.short(), (500, "InternalServerError"));
    }
    assert_eq!(sandbox.ledger().captured_of(&permission).len(), 2);
}

#[tokio::test]
async fn the_certificate_is_served_under_the_name_that_messages_give() {
    let (sandbox, _clock, _client, permission) = start().await;
    let ipn = sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let genuine = sandbox.sign(&ipn, SignatureVersion::V1);
    let forged = sandbox.forge(&ipn, Forgery::UntrustedCertificate).unwrap();
    for (message, trusted) in [(genuine, true), (forged, false)] {
        let body: Value = serde_json::from_str(&message.body).unwrap();
        let url = body["SigningCertURL"].as_str().unwrap();
        let name = url.strip_prefix(&format!("{}/SimpleNotificationService-", sandbox.certificate_base_url())).unwrap();
        assert_eq!(name.len(), 32 + ".pem".len());
        let pem = http().get(url).send().await.unwrap().text().await.unwrap();
        assert_eq!(pem == sandbox.0.app.keys.sns.leaf_pem, trusted);
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"));
    }
    assert!(sandbox.topic_arn().ends_with(sandbox.merchant_id()));
}

#[tokio::test]
async fn pending_notifications_are_delivered_in_any_order_and_number() {
    let (sandbox, _clock, client, permission) = start().await;
    // The sandbox's own port stands in for an endpoint: it answers 400 to a POST without an action.
    let url = format!("{}/", sandbox.base_url());
    client.charge(&permission, "key-1", "1.00").await;
    client.charge(&permission, "key-2", "1.00").await;
    let statuses = sandbox.deliver_pending(&url, DeliveryOrder::Reversed, 2, SignatureVersion::V2).await.unwrap();
    assert_eq!(statuses, [400; 4]);
    assert!(sandbox.notifications().is_empty());

    client.charge(&permission, "key-3", "1.00").await;
    let nowhere = "http://127.0.0.1:1/";
    assert!(sandbox.deliver_pending(nowhere, DeliveryOrder::InOrder, 1, SignatureVersion::V2).await.is_err());
    assert_eq!(sandbox.notifications().len(), 1, "what was not delivered waits on");
}

#[tokio::test]
async fn a_confirmed_subscription_is_noted() {
    let (sandbox, _clock, _client, _) = start().await;
    let form = "Action=ConfirmSubscription&Version=2010-03-31&TopicArn=arn%3Aaws%3Asns&Token=abc";
    let reply = http().post(sandbox.base_url()).body(form).send().await.unwrap();
    assert_eq!(reply.status().as_u16(), 200);
    assert_eq!(sandbox.confirmed_tokens(), ["abc"]);
}

#[tokio::test]
async fn listeners_hear_every_request_and_a_stopped_sandbox_answers_nothing() {
    let (sandbox, _clock, client, permission) = start().await;
    let mut records = sandbox.subscribe();
    client.charge(&permission, "key-1", "1.00").await;
    let record = records.recv().await.unwrap();
    assert_eq!((record.operation, record.status), (Operation::CreateCharge, 201));

    let gate = Gate::new();
    sandbox.inject(Operation::CreateCharge, Fault::HoldBefore(gate.clone()));
    let (twin, id) = (client.clone(), permission.clone());
    let sending = tokio::spawn(async move { twin.try_charge(&id, "key-2", "1.00").await });
    gate.reached().await;
    sandbox.stop().await;
    assert!(sending.await.unwrap().is_err());
    assert!(client.try_charge(&permission, "key-3", "1.00").await.is_err());
    assert_eq!(sandbox.ledger().captured_of(&permission).len(), 1);
}
