//! `/sandbox-control/` over HTTP.

use serde_json::json;
use tempfile::TempDir;

use super::super::testing::charge_body;
use super::*;

struct Bench {
    sandbox: Sandbox,
    client: Client,
    clock: Clock,
    http: reqwest::Client,
    _folder: TempDir,
}

impl Bench {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("clock");
        let clock = Clock::from_offset_file(file.clone());
        let settings = SandboxSettings { control: Some(file), ..SandboxSettings::new(clock.clone()) };
        let sandbox = Sandbox::start(settings).await.unwrap();
        let client = Client::of(&sandbox, &clock);
        Self { sandbox, client, clock, http: http(), _folder: folder }
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/sandbox-control/{path}", self.sandbox.base_url());
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.http.request(method.parse().unwrap(), url).body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask("POST", path, &body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("GET", path, &Value::Null).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn permission(&self) -> String {
        self.post("permissions", Value::Null).await["chargePermissionId"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn buyers_and_outcomes_are_ordered_and_seen() {
    let bench = Bench::start().await;
    let spec =
        json!({ "kind": "PaymentMethodOnFile", "currency": "USD", "monthlyLimit": "20", "descriptor": "MC ****1" });
    let made = bench.post("permissions", spec).await;
    assert_eq!((&made["amountBalance"], &made["paymentDescriptor"]), (&json!("20"), &json!("MC ****1")));
    let id = made["chargePermissionId"].as_str().unwrap().to_owned();
    assert!(id.starts_with("B01-"));

    let scripted = bench.post(&format!("permissions/{id}/next-charges"), json!({ "outcomes": ["HardDeclined"] })).await;
    assert_eq!(scripted["nextCharges"], 1);
    assert_eq!(bench.client.charge(&id, "key-1", "14.00").await.short(), (422, "HardDeclined"));
    assert_eq!(bench.get(&format!("permissions/{id}")).await["reasons"], json!(["PaymentMethodInvalid"]));
    let mended = bench.post(&format!("permissions/{id}/buyer-updates-method"), Value::Null).await;
    assert_eq!(mended["state"], "Chargeable");
    assert_eq!(bench.client.charge(&id, "key-2", "14.00").await.status, 201);
    let deleted = bench.post(&format!("permissions/{id}/buyer-deletes-method"), Value::Null).await;
    assert_eq!((&deleted["reasons"], &deleted["amountBalance"]), (&json!(["PaymentMethodDeleted"]), &json!("6.00")));
    let states = [("BuyerClosed", "state"), ("BuyerCanceled", "buyer-closes"), ("AmazonCanceled", "amazon-closes")];
    for (reason, what) in states {
        let id = bench.permission().await;
        let body = if what == "state" { json!({ "state": "Closed", "reasons": [reason] }) } else { Value::Null };
        let closed = bench.post(&format!("permissions/{id}/{what}"), body).await;
        assert_eq!((&closed["state"], &closed["reasons"]), (&json!("Closed"), &json!([reason])));
    }
    let waiting = bench.get("notifications?last=1").await;
    assert_eq!((waiting.as_array().unwrap().len(), &waiting[0]["ObjectType"]), (1, &json!("CHARGE_PERMISSION")));
    let ledger = bench.get(&format!("ledger?permission={id}")).await;
    let states: Vec<&Value> = ledger["charges"].as_array().unwrap().iter().map(|charge| &charge["state"]).collect();
    assert_eq!(states, ["Declined", "Captured"]);
    assert!(
        ledger["answers"]
            .as_array()
            .unwrap()
            .contains(&json!({ "operation": "CreateCharge", "status": 201, "count": 1 }))
    );
    assert_eq!(bench.get("requests?last=1").await[0]["operation"], "CreateCharge");
}

#[tokio::test]
async fn charges_refunds_and_disputes_are_decided() {
    let bench = Bench::start().await;
    let id = bench.permission().await;
    bench.post(&format!("permissions/{id}/next-charges"), json!({ "outcomes": ["Authorize", "PendCapture"] })).await;
    bench.client.charge(&id, "key-1", "14.00").await;
    bench.client.charge(&id, "key-2", "14.00").await;
    let charges = bench.get("ledger").await["charges"].clone();
    let [first, second] = [0, 1].map(|place| charges[place]["chargeId"].as_str().unwrap().to_owned());
    assert_eq!(bench.post(&format!("charges/{second}/decide"), Value::Null).await["state"], "Captured");
    let twice = bench.ask("POST", &format!("charges/{second}/decide"), &Value::Null).await;
    assert_eq!(twice.0, 409, "{twice:?}");
    let canceled = json!({ "state": "Canceled", "reasonCode": "BuyerCanceled" });
    assert_eq!(bench.post(&format!("charges/{first}/state"), canceled).await["reasonCode"], "BuyerCanceled");

    let refund = bench.post(&format!("charges/{second}/refunds"), json!({ "amount": "4.00" })).await;
    let refund_path = format!("refunds/{}/settle", refund["refundId"].as_str().unwrap());
    assert_eq!(bench.post(&refund_path, json!({ "reasonCode": "AmazonRejected" })).await["state"], "Declined");
    let too_much = bench.ask("POST", &format!("charges/{second}/refunds"), &json!({ "amount": "400.00" })).await;
    assert_eq!(too_much.0, 409, "{too_much:?}");
    let dispute = bench.post(&format!("charges/{second}/disputes"), json!({ "responseWithin": "7d" })).await;
    assert_eq!((&dispute["state"], &dispute["disputeAmount"]), (&json!("ActionRequired"), &json!("14.00")));
    let dispute_path = format!("disputes/{}/state", dispute["disputeId"].as_str().unwrap());
    let won =
        json!({ "state": "Resolved", "resolution": "MerchantWon", "merchantResponseDeadline": "2030-01-01T00:00:00Z" });
    let won = bench.post(&dispute_path, won).await;
    assert_eq!(
        (&won["resolution"], &won["merchantResponseDeadline"]),
        (&json!("MerchantWon"), &json!("2030-01-01T00:00:00Z"))
    );
}

#[tokio::test]
async fn clock_throttle_reading_and_faults_are_set() {
    let bench = Bench::start().await;
    let id = bench.permission().await;
    let before = bench.clock.now();
    let moved = bench.post("clock", json!({ "advance": "3d 2h" })).await;
    assert_eq!(moved["offsetMs"], 74 * 3_600_000);
    assert_eq!(bench.clock.now().duration_since(before).as_hours(), 74, "whoever reads the file moves too");
    let to = bench.clock.now() + Duration::from_hours(24);
    let offset_ms = bench.post("clock", json!({ "to": to })).await["offsetMs"].as_i64().unwrap();
    // The clock itself went on for a moment meanwhile.
    assert!((98 * 3_600_000 - 60_000..=98 * 3_600_000).contains(&offset_ms), "{offset_ms}");
    for wrong in
        [json!({}), json!({ "advance": "soon" }), json!({ "to": "2020-01-01T00:00:00Z" }), json!({ "advance": "30y" })]
    {
        assert_eq!(bench.ask("POST", "clock", &wrong).await.0, 400, "{wrong}");
    }

    bench.post("throttle", json!({ "table": "sandbox", "retryAfter": true })).await;
    let statuses = [
        bench.client.charge(&id, "key-1", "1.00").await.status,
        bench.client.charge(&id, "key-2", "1.00").await.status,
        bench.client.charge(&id, "key-3", "1.00").await.status,
    ];
    assert_eq!(statuses, [201, 201, 429]);
    bench.post("throttle", json!({ "table": "off" })).await;

    bench.post("reading", json!({ "reading": "re-evaluate" })).await;
    bench.post(&format!("permissions/{id}/next-charges"), json!({ "outcomes": ["SoftDeclined"] })).await;
    assert_eq!(bench.client.charge(&id, "key-4", "1.00").await.status, 422);
    assert_eq!(bench.client.charge(&id, "key-4", "1.00").await.status, 201, "evaluated anew");

    bench.post("faults", json!({ "operation": "CreateCharge", "fault": "DropAfter" })).await;
    bench.post("faults", json!({ "operation": "CreateCharge", "fault": "Status", "status": 503 })).await;
    bench.post("faults", json!({ "operation": "CreateCharge", "fault": "Garbled" })).await;
    assert!(bench.client.try_charge(&id, "key-5", "1.00").await.is_err());
    assert_eq!(bench.client.charge(&id, "key-5", "1.00").await.status, 503);
    assert_eq!(bench.ask("DELETE", "faults", &Value::Null).await.0, 200);
    assert_eq!(bench.client.charge(&id, "key-5", "1.00").await.body["statusDetails"]["state"], "Captured");
}

#[tokio::test]
async fn wrong_orders_say_what_was_expected_and_change_nothing() {
    let bench = Bench::start().await;
    let id = bench.permission().await;
    let nobody = "C01-0000000-0000000";
    for (status, method, path, body, told) in [
        (404, "GET", "nonsense", Value::Null, "docs/SANDBOX.md"),
        (404, "POST", &*format!("permissions/{id}/nonsense"), Value::Null, "docs/SANDBOX.md"),
        (405, "PUT", "permissions", Value::Null, "GET or POST"),
        (404, "GET", &format!("permissions/{nobody}"), Value::Null, nobody),
        (404, "POST", &format!("permissions/{nobody}/buyer-closes"), Value::Null, nobody),
        (404, "POST", "charges/x/disputes", Value::Null, "expected a charge"),
        (409, "POST", "refunds/x/settle", Value::Null, "expected a pending"),
        (400, "POST", "permissions", json!({ "colour": "red" }), "unknown field `colour`"),
        (400, "POST", "permissions", json!({ "kind": "Yearly" }), "OneTime, Recurring, PaymentMethodOnFile"),
        (400, "POST", "permissions", json!({ "monthlyLimit": 20 }), "monthlyLimit"),
        (
            400,
            "POST",
            &format!("permissions/{id}/state"),
            json!({ "state": "Open" }),
            "Chargeable, NonChargeable, Closed",
        ),
        (400, "POST", &format!("permissions/{id}/next-charges"), json!({ "outcomes": ["Maybe"] }), "HardDeclined"),
        (400, "POST", "throttle", json!({ "table": "some" }), "off, sandbox or live"),
        (400, "POST", "reading", json!({ "reading": "some" }), "replay-all, re-evaluate, status-first"),
        (400, "POST", "faults", json!({ "operation": "Charge", "fault": "Garbled" }), "CreateCharge"),
        (400, "POST", "faults", json!({ "operation": "CreateCharge", "fault": "Status" }), "from 200 to 599"),
        (400, "GET", "requests?last=many", Value::Null, "expected a number"),
    ] {
        let (got, answer) = bench.ask(method, path, &body).await;
        assert_eq!(got, status, "{method} {path} {body}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(told), "{path}: {answer}");
    }
    assert!(bench.get("notifications").await.as_array().unwrap().is_empty());
    assert_eq!(bench.get(&format!("permissions/{id}")).await["nextCharges"], 0);
}

#[tokio::test]
async fn pages_in_a_browser_and_sandboxes_of_tests_have_no_control() {
    let bench = Bench::start().await;
    let url = format!("{}/sandbox-control/permissions", bench.sandbox.base_url());
    let from_a_page = bench.http.post(&url).header("origin", "https://example.com").send().await.unwrap();
    assert_eq!(from_a_page.status().as_u16(), 403);
    let (sandbox, _clock, client, permission) = start().await;
    let path = format!("/sandbox-control/permissions/{permission}/buyer-closes");
    let refused = client.send("POST", &path, None, b"", None).await.unwrap();
    assert_eq!(refused.short(), (404, "ResourceNotFound"));
    assert!(sandbox.notifications().is_empty());
    // The rest of the API is as ever beside the control.
    let body = charge_body(&bench.permission().await, "1.00");
    let charged = bench.client.send("POST", "/v2/charges", Some("key-1"), body.as_bytes(), None).await.unwrap();
    assert_eq!(charged.status, 201);
}
