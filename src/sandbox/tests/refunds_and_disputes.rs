//! Refunds and disputes, asked for over HTTP and made behind it.

use serde_json::json;

use super::*;

fn refund_body(charge: &str, amount: &str) -> String {
    json!({ "chargeId": charge, "refundAmount": { "amount": amount, "currencyCode": "USD" } }).to_string()
}

async fn captured(client: &Client, permission: &str, key: &str) -> String {
    client.charge(permission, key, "14.00").await.body["chargeId"].as_str().unwrap().to_owned()
}

async fn ask(client: &Client, key: &str, body: &str) -> super::super::testing::Reply {
    client.send("POST", "/v2/refunds", Some(key), body.as_bytes(), None).await.unwrap()
}

#[tokio::test]
async fn a_refund_is_initiated_then_refunded_and_notified_each_time() {
    let (sandbox, _clock, client, permission) = start().await;
    let charge = captured(&client, &permission, "key-1").await;
    let _ = sandbox.notifications();
    let reply = ask(&client, "refund-1", &refund_body(&charge, "4.00")).await;
    assert_eq!(reply.status, 201);
    let id = reply.body["refundId"].as_str().unwrap().to_owned();
    assert!(id.starts_with(&format!("{permission}-R")) && id.len() == permission.len() + 8, "{id}");
    assert_eq!(reply.body["statusDetails"]["state"], "RefundInitiated");
    assert_eq!(reply.body["chargeId"], Value::from(charge.clone()));
    assert_eq!(reply.body["refundAmount"]["amount"], "4.00");
    let again = ask(&client, "refund-1", &refund_body(&charge, "4.00")).await;
    assert_eq!((again.status, &again.body), (201, &reply.body));
    let path = format!("/v2/charges/{charge}");
    assert_eq!(client.get(&path).await.body["refundedAmount"]["amount"], "0.00");

    sandbox.settle_refund(&id, None).unwrap();
    assert!(sandbox.settle_refund(&id, None).is_err(), "decided once");
    assert_eq!(client.get(&format!("/v2/refunds/{id}")).await.body["statusDetails"]["state"], "Refunded");
    assert_eq!(client.get(&path).await.body["refundedAmount"]["amount"], "4.00");
    assert_eq!(object_ids(&sandbox), vec![(ObjectType::Refund, id.clone()); 2]);
    let ledger = sandbox.ledger();
    assert_eq!(ledger.refunds.len(), 1);
    assert_eq!(ledger.refunded_total_of(&permission), "4.00".parse().unwrap());
    let [first, second] = ledger.requests_of(Operation::CreateRefund)[..] else { panic!("two requests") };
    assert_eq!((&first.object, &first.charge, &first.permission), (&Some(id), &Some(charge), &Some(permission)));
    assert_eq!((first.replayed, second.replayed), (false, true));
}

#[tokio::test]
async fn a_refund_from_seller_central_can_be_declined_with_any_reason() {
    let (sandbox, _clock, client, permission) = start().await;
    let charge = captured(&client, &permission, "key-1").await;
    for code in ["AmazonRejected", "ProcessingFailure", "SomethingNew"] {
        let id = sandbox.refund(&charge, "14.00".parse().unwrap()).unwrap();
        sandbox.settle_refund(&id, Some(code)).unwrap();
        let status = client.get(&format!("/v2/refunds/{id}")).await.body["statusDetails"].clone();
        assert_eq!((&status["state"], &status["reasonCode"]), (&Value::from("Declined"), &Value::from(code)));
    }
    assert_eq!(sandbox.ledger().refunded_total_of(&permission), Decimal::ZERO);
    assert!(sandbox.refund("C01-0000000-0000000-C000001", Decimal::ONE).is_err());
}

#[tokio::test]
async fn more_than_was_captured_and_a_little_cannot_be_refunded() {
    let (sandbox, _clock, client, permission) = start().await;
    let charge = captured(&client, &permission, "key-1").await;
    let too_much = ask(&client, "refund-1", &refund_body(&charge, "16.11")).await;
    assert_eq!(too_much.short(), (400, "TransactionAmountExceeded"));
    assert_eq!(
        ask(&client, "refund-2", &refund_body(&charge, "16.10")).await.status,
        201,
        "15 % more may be given back"
    );
    let pending_counts = ask(&client, "refund-3", &refund_body(&charge, "0.01")).await;
    assert_eq!(pending_counts.short(), (400, "TransactionAmountExceeded"));
    let other = refund_body(&charge, "1.00").replace("USD", "EUR");
    assert_eq!(ask(&client, "refund-4", &other).await.short(), (400, "CurrencyMismatch"));
    let id = sandbox.ledger().refunds[0].refund_id.clone();
    sandbox.settle_refund(&id, Some("ProcessingFailure")).unwrap();
    assert_eq!(
        ask(&client, "refund-5", &refund_body(&charge, "16.10")).await.status,
        201,
        "a declined one does not count"
    );

    sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).unwrap();
    client.charge(&permission, "key-2", "14.00").await;
    let declined = sandbox.ledger().charges[1].charge_id.clone();
    assert_eq!(ask(&client, "refund-6", &refund_body(&declined, "1.00")).await.short(), (422, "InvalidChargeStatus"));
    let unknown = refund_body("C01-0000000-0000000-C000001", "1.00");
    assert_eq!(ask(&client, "refund-7", &unknown).await.short(), (404, "ResourceNotFound"));
    let no_key = client.send("POST", "/v2/refunds", None, unknown.as_bytes(), None).await.unwrap();
    assert_eq!(no_key.short(), (400, "MissingHeader"));
    let simulated = client.send("POST", "/v2/refunds", Some("k"), unknown.as_bytes(), Some("Declined")).await.unwrap();
    assert_eq!(simulated.short(), (400, "InvalidSandboxSimulationSpecified"));
}

#[tokio::test]
async fn a_dispute_goes_through_its_states_and_is_notified_when_it_changes() {
    let (sandbox, clock, client, permission) = start().await;
    let charge = captured(&client, &permission, "key-1").await;
    let _ = sandbox.notifications();
    let id = sandbox.open_dispute(&charge, DisputeSpec::chargeback("Fraudulent")).unwrap();
    assert!(id.starts_with(&format!("{permission}-B")) && id.len() == permission.len() + 8, "{id}");
    let path = format!("/v2/disputes/{id}");
    let body = client.get(&path).await.body;
    for name in [
        "disputeId",
        "releaseEnvironment",
        "chargeId",
        "disputeType",
        "disputeAmount",
        "filingReason",
        "statusDetails",
        "merchantEvidences",
        "merchantResponseDeadline",
        "resolutionAuthority",
        "creationTimestamp",
    ] {
        assert!(body.get(name).is_some(), "{name}");
    }
    assert_eq!(body["statusDetails"]["state"], "ActionRequired");
    assert_eq!(body["statusDetails"]["reasonCode"], "MerchantResponseRequired");
    let deadline = body["merchantResponseDeadline"].clone();
    assert!(deadline.as_str().unwrap() > clock.now().strftime("%Y%m%dT%H%M%SZ").to_string().as_str());

    let review = DisputeMove::to(DisputeState::UnderReview);
    sandbox.move_dispute(&id, review.clone()).unwrap();
    sandbox.move_dispute(&id, review).unwrap();
    let won = DisputeMove::to(DisputeState::Resolved).with_resolution("BuyerWon").with_reason("InvestigatorResolved");
    sandbox.move_dispute(&id, won).unwrap();
    let body = client.get(&path).await.body;
    assert_eq!(body["statusDetails"]["resolution"], "BuyerWon");
    assert_eq!(body["statusDetails"]["reasonCode"], "InvestigatorResolved");
    assert_eq!(body["merchantResponseDeadline"], deadline, "the deadline stays");
    assert_eq!(object_ids(&sandbox), vec![(ObjectType::Chargeback, id.clone()); 3], "no change, no notification");
    assert!(sandbox.move_dispute("B01-0000000-0000000-B000009", DisputeMove::to(DisputeState::Closed)).is_err());

    let ledger = sandbox.ledger();
    let [first, second] = ledger.requests_of(Operation::GetDispute)[..] else { panic!("two requests") };
    assert_eq!((&first.object, &first.charge, &first.permission), (&Some(id), &Some(charge), &Some(permission)));
    assert_eq!((first.state.as_deref(), second.state.as_deref()), (Some("ActionRequired"), Some("Resolved")));
}

#[tokio::test]
async fn mishaps_befall_refunds_and_disputes_too() {
    let (sandbox, _clock, client, permission) = start().await;
    let charge = captured(&client, &permission, "key-1").await;
    let dispute = sandbox.open_dispute(&charge, DisputeSpec::chargeback("Other")).unwrap();
    sandbox.inject(Operation::CreateRefund, Fault::DropAfter);
    sandbox.inject(Operation::GetRefund, Fault::status(503, "ServiceUnavailable"));
    sandbox.inject(Operation::GetDispute, Fault::Garbled);
    let body = refund_body(&charge, "1.00");
    assert!(client.send("POST", "/v2/refunds", Some("refund-1"), body.as_bytes(), None).await.is_err());
    let id = sandbox.ledger().refunds[0].refund_id.clone();
    assert_eq!(ask(&client, "refund-1", &body).await.body["refundId"], Value::from(id.clone()));
    assert_eq!(sandbox.ledger().refunds.len(), 1, "the lost answer was a refund");
    assert_eq!(client.get(&format!("/v2/refunds/{id}")).await.short(), (503, "ServiceUnavailable"));
    assert_eq!(client.get(&format!("/v2/refunds/{id}/")).await.status, 200, "a slash at the end, as from .NET");
    let garbled = client.get(&format!("/v2/disputes/{dispute}")).await;
    assert_eq!((garbled.status, garbled.body.get("disputeId")), (200, None));
    assert_eq!(client.get("/v2/disputes/nonsense").await.short(), (404, "ResourceNotFound"));
}
