//! `POST /v1/charges/{id}/capture`: captures an authorisation, whole or in part.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use tracing::info;

use super::charge_body::{Amount, Checker};
use super::charges::{parse, resource};
use super::internal::ApiState;
use super::json_body;
use super::problem::{FieldError, Problem};
use crate::model::capture::CaptureWish;
use crate::model::charge_request::ChargeRequest;
use crate::model::ids::Account;
use crate::store::captures::CaptureRequested;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CaptureBody {
    capture_amount: Option<Amount>,
    soft_descriptor: Option<String>,
}

/// 202 accepted; 200 accepted before, with the state of now; 409 where there is nothing to capture, or something else is captured.
pub(super) async fn request(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let inner = &state.0;
    let id = parse(&id)?;
    let body = body.map_err(Problem::Unreadable)?;
    let Some(stored) = inner.store.charge(&id).await? else { return Err(Problem::NotFound("charge")) };
    let charge = &stored.intent.request;
    let wish = read(&body, charge, &inner.account).map_err(Problem::Invalid)?;
    if charge.capture_now {
        let message =
            "expected a charge with captureNow: false; this one is captured by Amazon as soon as it is authorised";
        return Err(Problem::Conflict(message.to_owned()));
    }
    crash_point!(CaptureBefore);
    let requested = inner.store.request_capture(&stored.intent, &wish).await?;
    crash_point!(CaptureAfter);
    info!(intent = %id, permission = %charge.charge_permission_id, ?requested, "capture asked for");
    let status = match requested {
        CaptureRequested::Accepted => StatusCode::ACCEPTED,
        CaptureRequested::Same => StatusCode::OK,
        CaptureRequested::Conflict(now) => {
            return Err(Problem::Conflict(format!(
                "another capture was asked for before, and the charge is {now}: expected the same captureAmount and softDescriptor"
            )));
        }
        CaptureRequested::NotAuthorized(now) => {
            return Err(Problem::Conflict(format!("expected a charge in state authorized, this one is {now}")));
        }
        CaptureRequested::Canceling => {
            let message = "expected a charge in state authorized, this one is being canceled";
            return Err(Problem::Conflict(message.to_owned()));
        }
        CaptureRequested::Unknown => return Err(Problem::NotFound("charge")),
    };
    Ok((status, Json(resource(&state, &id).await?)).into_response())
}

/// Reads the wish. No body, or an empty one, is the whole amount.
fn read(bytes: &[u8], charge: &ChargeRequest, account: &Account) -> Result<CaptureWish, Vec<FieldError>> {
    let body: CaptureBody =
        if bytes.trim_ascii().is_empty() { CaptureBody::default() } else { json_body::parse(bytes)? };
    let mut checker = Checker { errors: Vec::new() };
    let most = charge.charge_amount;
    let amount = match &body.capture_amount {
        None => Some(most),
        Some(amount) => checker.amount("captureAmount", amount, account),
    };
    if let Some(amount) = amount {
        if amount.currency() != most.currency() {
            let message =
                format!("expected {}, as the charge, got {}", most.currency().code(), amount.currency().code());
            checker.wrong("captureAmount.currencyCode", message);
        } else if amount.exceeds(&most) {
            checker.wrong("captureAmount.amount", format!("expected at most {most}, got {amount}"));
        }
    }
    checker.soft_descriptor(body.soft_descriptor.as_deref());
    match amount {
        Some(capture_amount) if checker.errors.is_empty() => {
            Ok(CaptureWish { capture_amount, soft_descriptor: body.soft_descriptor })
        }
        _ => Err(checker.errors),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::ids::{Environment, Region};

    fn try_read(body: &str, currency: &str, amount: &str, region: Region) -> Result<CaptureWish, Vec<String>> {
        let charge: ChargeRequest = serde_json::from_value(json!({
            "chargePermissionId": "C01-1", "chargeAmount": { "amount": amount, "currencyCode": currency },
        }))
        .unwrap();
        let account = Account { merchant: "A1".parse().unwrap(), environment: Environment::Live, region };
        read(body.as_bytes(), &charge, &account).map_err(|errors| errors.into_iter().map(|error| error.field).collect())
    }

    fn wrong(body: &Value) -> Vec<String> {
        try_read(&body.to_string(), "USD", "14.00", Region::Na).err().unwrap_or_default()
    }

    #[test]
    fn no_amount_is_the_whole_amount() {
        for body in ["", " \n", "{}"] {
            let wish = try_read(body, "USD", "14.00", Region::Na).unwrap();
            assert_eq!((wish.capture_amount.amount().as_str(), wish.soft_descriptor), ("14.00", None), "{body:?}");
        }
    }

    #[test]
    fn g3_a_capture_is_of_a_part_in_the_currency_and_the_precision_of_the_charge() {
        let of =
            |amount: &str, currency: &str| json!({ "captureAmount": { "amount": amount, "currencyCode": currency } });
        for amount in ["14", "14.00", "0.01"] {
            assert!(wrong(&of(amount, "USD")).is_empty(), "{amount}");
        }
        for amount in ["14.01", "0", "0.00", "-1", "1.001", "1e1", ""] {
            assert_eq!(wrong(&of(amount, "USD")), ["captureAmount.amount"], "{amount}");
        }
        let yen = |amount: &str| try_read(&of(amount, "JPY").to_string(), "JPY", "1400", Region::Jp);
        assert_eq!(yen("700").unwrap().capture_amount.amount(), "700");
        assert_eq!(yen("700.5").unwrap_err(), ["captureAmount.amount"]);
        let euros = try_read(&of("1", "EUR").to_string(), "GBP", "14.00", Region::Eu);
        assert_eq!(euros.unwrap_err(), ["captureAmount.currencyCode"]);
    }

    #[test]
    fn g12_the_soft_descriptor_of_a_capture_obeys_the_rules_of_a_charges() {
        assert!(wrong(&json!({ "softDescriptor": "SHOP 2026-01" })).is_empty());
        for text in ["seventeen letters", "", "me@example.com", "411111111111", "a\nb"] {
            assert_eq!(wrong(&json!({ "softDescriptor": text })), ["softDescriptor"], "{text:?}");
        }
    }

    #[test]
    fn unknown_fields_and_bodies_that_are_no_object_are_refused() {
        assert_eq!(wrong(&json!({ "amount": "1" })), ["amount"]);
        assert_eq!(wrong(&json!({ "captureAmount": "1" })), ["captureAmount"]);
        for body in ["[]", "{", "{}{}", "null"] {
            assert!(try_read(body, "USD", "14.00", Region::Na).is_err(), "{body}");
        }
    }
}
