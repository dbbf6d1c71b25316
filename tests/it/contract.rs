//! The contracts of `docs/api/`: that the harness holds every answer and event against them, and that nothing slips through.

use std::collections::HashMap;

use serde_json::json;

use crate::support::TestApp;
use crate::support::contract::{answered, operations, told};

#[tokio::test]
async fn every_operation_of_the_internal_api_answers_as_documented_to_ids_that_nobody_knows() {
    let app = TestApp::start().await;
    let mut asked = 0;
    for (method, path) in operations() {
        let path = path.replace("{id}", "C01-0000000-0000009");
        // The harness validates each answer.
        let answer = match method.as_str() {
            "get" => app.get(&path).await,
            "post" => app.post(&path, &json!({})).await,
            _ => app.delete(&path).await,
        };
        assert_ne!(answer.status, 401, "{method} {path}");
        asked += 1;
    }
    assert!(asked > 20, "the operations were not found");
    assert_eq!(app.get("/v1/nothing").await.status, 404);
    assert_eq!(app.post("/v1/quota", &json!({})).await.status, 405);
    app.finish().await;
}

#[test]
fn an_answer_with_another_status_kind_or_field_is_noticed() {
    let stop = json!({ "stopped": false, "since": null });
    let said = |status, kind: &str, body: &serde_json::Value| answered("get", "/v1/stop", status, kind, body);
    assert_eq!(said(200, "application/json", &stop), Ok(()));
    let problem = json!({ "status": 401, "title": "Unauthorized", "detail": "a token" });
    assert_eq!(said(401, "application/problem+json", &problem), Ok(()));
    for (status, kind, body) in [
        (201, "application/json", stop.clone()),
        (200, "text/plain", stop.clone()),
        (200, "application/json", json!({ "stopped": "no", "since": null })),
        (200, "application/json", json!({ "stopped": false })),
        (200, "application/json", json!({ "stopped": false, "since": null, "undocumented": 1 })),
        (200, "application/json", json!({ "stopped": true, "since": "yesterday" })),
    ] {
        assert!(said(status, kind, &body).is_err(), "{status} {kind} {body}");
    }
    assert!(answered("put", "/v1/stop", 200, "application/json", &stop).is_err());
}

#[test]
fn an_event_with_another_attribute_or_field_is_noticed() {
    let event = |kind: &str, data: &str| -> HashMap<String, String> {
        let fields = [
            ("specversion", "1.0"),
            ("id", "C01-1-1-1"),
            ("source", "amazon-pay-ipn/sandbox/A1"),
            ("type", kind),
            ("subject", "C01-1"),
            ("time", "2026-01-30T10:00:00Z"),
            ("datacontenttype", "application/json"),
            ("data", data),
        ];
        fields.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
    };
    let held = |amount: &str| {
        format!(
            r#"{{"id":"a","chargePermissionId":"C01-1","chargeAmount":{{"amount":{amount},"currencyCode":"USD"}},"number":0,"attempts":0,"reason":"recovery"}}"#
        )
    };
    let kind = "amazonpay.charge.held.v1";
    let good = event(kind, &held("\"14.00\""));
    assert_eq!(told(&good), Ok(()));
    // Money is a decimal string.
    assert!(told(&event(kind, &held("14.00"))).is_err());
    assert!(told(&event(kind, "{}")).is_err());
    assert!(told(&event(kind, "no JSON")).is_err());
    assert!(told(&event("amazonpay.charge.held.v2", &held("\"14.00\""))).is_err());
    for (name, value) in [("specversion", "2.0"), ("time", "yesterday"), ("id", "")] {
        let mut bad = good.clone();
        bad.insert(name.to_owned(), value.to_owned());
        assert!(told(&bad).is_err(), "{name}");
    }
    let alert = |data: &str| told(&event("amazonpay.account.attention.v1", data));
    assert_eq!(alert(r#"{"kind":"clock_skew","message":"m","skewSeconds":400}"#), Ok(()));
    assert!(alert(r#"{"kind":"clock_skew","message":"m"}"#).is_err());
    assert!(alert(r#"{"kind":"invented","message":"m"}"#).is_err());
}
