//! What callers may ask for, read strictly: an unknown member is a mistake.

use std::time::Duration;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;

use super::Problem;
use crate::sandbox::{
    ChargeState, DeclineCode, DisputeSpec, DisputeState, Fault, Operation, Outcome, PermissionKind, PermissionSpec,
    PermissionState, Reading, Throttle,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewPermission {
    kind: Option<String>,
    currency: Option<String>,
    monthly_limit: Option<Decimal>,
    descriptor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outcomes {
    outcomes: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Method {
    pub(super) descriptor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PermissionStatus {
    pub(super) state: String,
    #[serde(default)]
    pub(super) reasons: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ChargeStatus {
    pub(super) state: String,
    pub(super) reason_code: Option<String>,
}

/// How something that is pending ends: well without a reason code.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Settled {
    pub(super) reason_code: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refund {
    pub(super) amount: Decimal,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewDispute {
    filing_reason: Option<String>,
    amount: Option<Decimal>,
    state: Option<String>,
    reason_code: Option<String>,
    response_within: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DisputeStatus {
    pub(super) state: String,
    pub(super) resolution: Option<String>,
    pub(super) reason_code: Option<String>,
    pub(super) merchant_response_deadline: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Move {
    pub(super) advance: Option<String>,
    pub(super) to: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Throttled {
    table: String,
    #[serde(default)]
    retry_after: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewReading {
    pub(super) reading: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewFault {
    operation: String,
    fault: String,
    status: Option<u16>,
    reason_code: Option<String>,
    delay: Option<String>,
}

/// The one of this name.
fn named<T: Copy>(all: &[T], name: fn(T) -> &'static str, what: &str, text: &str) -> Result<T, Problem> {
    all.iter().copied().find(|value| name(*value) == text).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|value| name(*value)).collect();
        Problem::wrong(format!("{what}: expected {}, got {text:?}", names.join(", ")))
    })
}

pub(super) fn permission_state(text: &str) -> Result<PermissionState, Problem> {
    use PermissionState::{Chargeable, Closed, NonChargeable};
    named(&[Chargeable, NonChargeable, Closed], PermissionState::as_str, "state", text)
}

pub(super) fn charge_state(text: &str) -> Result<ChargeState, Problem> {
    use ChargeState::{AuthorizationInitiated, Authorized, Canceled, CaptureInitiated, Captured, Declined};
    let all = [AuthorizationInitiated, Authorized, CaptureInitiated, Captured, Canceled, Declined];
    named(&all, ChargeState::as_str, "state", text)
}

pub(super) fn dispute_state(text: &str) -> Result<DisputeState, Problem> {
    use DisputeState::{ActionRequired, Closed, Resolved, UnderReview};
    named(&[UnderReview, ActionRequired, Resolved, Closed], DisputeState::as_str, "state", text)
}

pub(super) fn reading(text: &str) -> Result<Reading, Problem> {
    let name = |reading| match reading {
        Reading::ReplayAll => "replay-all",
        Reading::ReEvaluate => "re-evaluate",
        Reading::StatusFirst => "status-first",
    };
    named(&[Reading::ReplayAll, Reading::ReEvaluate, Reading::StatusFirst], name, "reading", text)
}

pub(super) fn span(name: &str, text: &str) -> Result<Duration, Problem> {
    humantime::parse_duration(text)
        .map_err(|error| Problem::wrong(format!("{name}: expected a span such as 3d 2h, got {text:?}: {error}")))
}

pub(super) fn permission(asked: NewPermission) -> Result<PermissionSpec, Problem> {
    use PermissionKind::{OneTime, PaymentMethodOnFile, Recurring};
    let kind = match asked.kind.as_deref() {
        Some(text) => named(&[OneTime, Recurring, PaymentMethodOnFile], PermissionKind::as_str, "kind", text)?,
        None => Recurring,
    };
    let currency = asked.currency.unwrap_or_else(|| "USD".to_owned());
    if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(Problem::wrong(format!("currency: expected an ISO 4217 code such as USD, got {currency:?}")));
    }
    let spec = PermissionSpec::new(kind, &currency);
    let descriptor = asked.descriptor.unwrap_or_else(|| spec.descriptor.clone());
    Ok(PermissionSpec { monthly_limit: asked.monthly_limit, descriptor, ..spec })
}

impl Outcomes {
    pub(super) fn read(self) -> Result<Vec<Outcome>, Problem> {
        self.outcomes.iter().map(outcome).collect()
    }
}

fn outcome(value: &Value) -> Result<Outcome, Problem> {
    const EXPECTED: &str = "outcomes: expected Capture, Authorize, Pend, PendThenSucceed, PendThenHardDeclined, PendCapture, \
                            PendCaptureThenSucceed, PendCaptureThenHardDeclined, SoftDeclined, HardDeclinedStayingChargeable, \
                            SoftDeclinedTurningNonChargeable, each also with any other reason code of a decline, or \
                            {\"status\": 418, \"reasonCode\": \"Teapot\"}";
    let wrong = || Problem::wrong(format!("{EXPECTED}, got {value}"));
    if let Some(status) = value["status"].as_u64() {
        let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status)).ok_or_else(wrong)?;
        return Ok(Outcome::Answer(status, value["reasonCode"].as_str().ok_or_else(wrong)?.to_owned()));
    }
    let text = value.as_str().ok_or_else(wrong)?;
    let decline = |text: &str| text.parse::<DeclineCode>().map_err(|_| wrong());
    let end = |text: &str| if text == "Succeed" { Ok(None) } else { decline(text).map(Some) };
    match text {
        "Capture" => Ok(Outcome::Capture),
        "Authorize" => Ok(Outcome::Authorize),
        "Pend" => Ok(Outcome::Pend),
        "PendCapture" => Ok(Outcome::PendCapture),
        _ => {
            if let Some(rest) = text.strip_prefix("PendThen") {
                end(rest).map(Outcome::PendThen)
            } else if let Some(rest) = text.strip_prefix("PendCaptureThen") {
                end(rest).map(Outcome::PendCaptureThen)
            } else if let Some(code) = text.strip_suffix("StayingChargeable") {
                decline(code).map(Outcome::DeclineStayingChargeable)
            } else if let Some(code) = text.strip_suffix("TurningNonChargeable") {
                decline(code).map(Outcome::DeclineTurningNonChargeable)
            } else {
                decline(text).map(Outcome::Decline)
            }
        }
    }
}

pub(super) fn dispute(asked: NewDispute) -> Result<DisputeSpec, Problem> {
    let usual = DisputeSpec::chargeback(asked.filing_reason.as_deref().unwrap_or("Other"));
    let response_within = match asked.response_within {
        Some(text) => Some(span("responseWithin", &text)?),
        None => usual.response_within,
    };
    let (state, reason_code) = match asked.state {
        Some(text) => (dispute_state(&text)?, asked.reason_code),
        None => (usual.state, asked.reason_code.or(usual.reason_code)),
    };
    Ok(DisputeSpec { amount: asked.amount, filing_reason: usual.filing_reason, state, reason_code, response_within })
}

pub(super) fn throttle(asked: &Throttled) -> Result<Option<Throttle>, Problem> {
    let throttle = match asked.table.as_str() {
        "off" => return Ok(None),
        "sandbox" => Throttle::sandbox(),
        "live" => Throttle::live(),
        text => return Err(Problem::wrong(format!("table: expected off, sandbox or live, got {text:?}"))),
    };
    Ok(Some(Throttle { retry_after: asked.retry_after, ..throttle }))
}

pub(super) fn fault(asked: &NewFault) -> Result<(Operation, Fault), Problem> {
    let operation = named(&Operation::ALL, Operation::as_str, "operation", &asked.operation)?;
    let answer = || {
        let status = asked.status.filter(|status| (200..600).contains(status));
        let status = status.ok_or_else(|| Problem::wrong("status: expected one from 200 to 599"))?;
        Ok::<_, Problem>((status, asked.reason_code.clone().unwrap_or_else(|| "InjectedBySandbox".to_owned())))
    };
    let delay = || span("delay", asked.delay.as_deref().unwrap_or_default());
    let fault = match asked.fault.as_str() {
        "Status" => answer().map(|(status, code)| Fault::Status(status, code))?,
        "StatusAfter" => answer().map(|(status, code)| Fault::StatusAfter(status, code))?,
        "StatusKept" => answer().map(|(status, code)| Fault::StatusKept(status, code))?,
        "DropBefore" => Fault::DropBefore,
        "DropAfter" => Fault::DropAfter,
        "Garbled" => Fault::Garbled,
        "Delay" => Fault::Delay(delay()?),
        "DelayAfter" => Fault::DelayAfter(delay()?),
        text => {
            let names = "Status, StatusAfter, StatusKept, Delay, DelayAfter, DropBefore, DropAfter or Garbled";
            return Err(Problem::wrong(format!("fault: expected {names}, got {text:?}")));
        }
    };
    Ok((operation, fault))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_outcome_can_be_ordered() {
        let orders = json!([
            "Capture", "Authorize", "Pend", "PendThenSucceed", "PendThenSoftDeclined", "PendCapture",
            "PendCaptureThenSucceed", "PendCaptureThenHardDeclined", "ProcessingFailure",
            "HardDeclinedStayingChargeable", "SoftDeclinedTurningNonChargeable",
            { "status": 418, "reasonCode": "Teapot" },
        ]);
        let read = Outcomes { outcomes: orders.as_array().unwrap().clone() }.read().unwrap();
        let expected = [
            Outcome::Capture,
            Outcome::Authorize,
            Outcome::Pend,
            Outcome::PendThen(None),
            Outcome::PendThen(Some(DeclineCode::SoftDeclined)),
            Outcome::PendCapture,
            Outcome::PendCaptureThen(None),
            Outcome::PendCaptureThen(Some(DeclineCode::HardDeclined)),
            Outcome::Decline(DeclineCode::ProcessingFailure),
            Outcome::DeclineStayingChargeable(DeclineCode::HardDeclined),
            Outcome::DeclineTurningNonChargeable(DeclineCode::SoftDeclined),
            Outcome::Answer(418, "Teapot".to_owned()),
        ];
        assert_eq!(read, expected);
        for wrong in [json!("Maybe"), json!("PendThen"), json!(1), json!({ "status": 99, "reasonCode": "x" })] {
            assert!(outcome(&wrong).is_err(), "{wrong}");
        }
        for code in DeclineCode::ALL {
            assert_eq!(outcome(&json!(code.as_str())).unwrap(), Outcome::Decline(code));
        }
    }
}
