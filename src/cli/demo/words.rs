//! Requests, notifications and events in words. Everything said here is taken from what really happened.

use jiff::Timestamp;
use serde_json::Value;

use super::timeline::minute;
use crate::sandbox::{Operation, RequestRecord};
use crate::store::consumers::ReceivedEvent;

/// A request to Amazon Pay and its answer.
pub(super) fn request(record: &RequestRecord) -> String {
    let permission = record.permission.as_deref().unwrap_or_default();
    let charge = record.charge.as_deref().unwrap_or_default();
    let object = record.object.as_deref().unwrap_or_default();
    let asked = match record.operation {
        Operation::CreateCharge => {
            let key = record.idempotency_key.as_deref().unwrap_or_default();
            format!("POST /v2/charges  key {}", shortened(key))
        }
        Operation::GetCharge => format!("GET /v2/charges/{charge}"),
        Operation::CaptureCharge => format!("POST /v2/charges/{charge}/capture"),
        Operation::CancelCharge => format!("DELETE /v2/charges/{charge}/cancel"),
        Operation::GetChargePermission => format!("GET /v2/chargePermissions/{permission}"),
        Operation::CloseChargePermission => format!("DELETE /v2/chargePermissions/{permission}/close"),
        Operation::CreateRefund => "POST /v2/refunds".to_owned(),
        Operation::GetRefund => format!("GET /v2/refunds/{object}"),
        Operation::GetDispute => format!("GET /v2/disputes/{object}"),
    };
    let said = record.reason_code.as_deref().or(record.state.as_deref()).unwrap_or_default();
    let which = match record.operation {
        Operation::CreateCharge if record.status < 300 => format!("  {charge}"),
        _ => String::new(),
    };
    let replayed = if record.replayed { "  (known key: the first answer again, no new charge)" } else { "" };
    format!("{asked} → {} {said}{which}{replayed}", record.status)
}

/// The beginning of an idempotency key.
fn shortened(key: &str) -> String {
    key.chars().take(8).chain(['…']).collect()
}

/// An event as the consumer reads it.
pub(super) fn event(event: &ReceivedEvent) -> String {
    let name = event.kind.trim_start_matches("amazonpay.").trim_end_matches(".v1");
    let data = &event.data;
    let text = |field: &str| data[field].as_str().unwrap_or_default();
    let number = &data["number"];
    let told = match name {
        "charge.scheduled" => scheduled(data, event.time.parse().ok()),
        "charge.attempted" if text("send") == "repeat" => format!("number {number} once more, under the same key"),
        "charge.attempted" => format!("number {number} goes out now"),
        "charge.declined" => format!("number {number}: {}", text("reasonCode")),
        "charge.captured" => captured(data),
        "charge.parked" => format!("waits for the {}: {}", text("for"), text("reasonCode")),
        "charge.action_required" => format!("{}, updateUrl {}", text("action"), text("updateUrl")),
        "charge.abandoned" => format!("{}; to do: {}", text("reason"), text("whatToDo").trim_end_matches('.')),
        name if name.starts_with("charge_permission.") => reasons(data),
        "payment_instrument.updated" => String::new(),
        _ => data.to_string(),
    };
    format!("{name}  {told}").trim_end().to_owned()
}

fn scheduled(data: &Value, told_at: Option<Timestamp>) -> String {
    let at: Option<Timestamp> = data["at"].as_str().and_then(|text| text.parse().ok());
    let same_number = data["why"].as_str().is_some_and(|why| why != "attempt");
    let what = if same_number { "same number again" } else { "next try" };
    match at {
        Some(at) if told_at.is_some_and(|told| at.duration_since(told).as_secs() < 5) => format!("{what} now"),
        Some(at) => format!("{what} {}", minute(at)),
        None => what.to_owned(),
    }
}

fn captured(data: &Value) -> String {
    let amount = &data["chargeAmount"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!(
        "{} {}  recoveredBy {}, attempt {}",
        text(&amount["amount"]),
        text(&amount["currencyCode"]),
        text(&data["recoveredBy"]),
        data["attempts"]
    )
}

fn reasons(data: &Value) -> String {
    let codes = data["reasonCodes"].as_array().or_else(|| data["reasons"].as_array());
    let names: Vec<&str> = codes.into_iter().flatten().filter_map(Value::as_str).collect();
    names.join(", ")
}
