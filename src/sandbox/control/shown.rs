//! What callers are shown: the sandbox's truth as JSON, names as Amazon spells them.

use serde_json::{Value, json};

use super::{Problem, text};
use crate::sandbox::{LedgerCharge, LedgerDispute, LedgerRefund, RequestRecord, Sandbox, SandboxError};

pub(super) fn account(sandbox: &Sandbox) -> Value {
    json!({
        "baseUrl": sandbox.base_url(),
        "merchantId": sandbox.merchant_id(),
        "publicKeyId": sandbox.public_key_id(),
        "topicArn": sandbox.topic_arn(),
        "certificateBaseUrl": sandbox.certificate_base_url(),
        "certificateName": sandbox.certificate_name(),
        "now": text(sandbox.0.app.clock.now()),
    })
}

pub(super) fn clock(sandbox: &Sandbox) -> Value {
    let clock = &sandbox.0.app.clock;
    json!({ "now": text(clock.now()), "offsetMs": clock.offset_ms() })
}

pub(super) fn permission(sandbox: &Sandbox, id: &str) -> Result<Value, Problem> {
    let now = sandbox.0.app.clock.now();
    let found = sandbox.books(|books| {
        let permission = books.permissions.get(id)?;
        let charges: Vec<Value> =
            permission.charges.iter().map(|place| charge_json(&LedgerCharge::from(&books.charges[*place]))).collect();
        Some(json!({
            "chargePermissionId": permission.id,
            "chargePermissionType": permission.spec.kind.as_str(),
            "state": permission.state.as_str(),
            "reasons": permission.reasons,
            "paymentDescriptor": permission.descriptor,
            "currencyCode": permission.spec.currency,
            "amountLimit": permission.spec.monthly_limit,
            "amountBalance": books.balance(permission, now),
            "expirationTimestamp": permission.expires_at.map(text),
            "nextCharges": permission.script.len(),
            "nextCaptures": permission.capture_script.len(),
            "charges": charges,
        }))
    });
    found.ok_or_else(|| SandboxError::UnknownPermission(id.to_owned()).into())
}

fn charge_json(charge: &LedgerCharge) -> Value {
    json!({
        "chargeId": charge.charge_id,
        "chargePermissionId": charge.permission,
        "chargeAmount": charge.amount,
        "captureAmount": charge.captured,
        "currencyCode": charge.currency,
        "state": charge.state.as_str(),
        "reasonCode": charge.reason_code,
        "idempotencyKey": charge.idempotency_key,
        "customInformation": charge.custom_information,
        "creationTimestamp": text(charge.created_at),
    })
}

fn refund_json(refund: &LedgerRefund) -> Value {
    json!({
        "refundId": refund.refund_id,
        "chargeId": refund.charge_id,
        "refundAmount": refund.amount,
        "currencyCode": refund.currency,
        "state": refund.state.as_str(),
        "reasonCode": refund.reason_code,
        "creationTimestamp": text(refund.created_at),
    })
}

fn dispute_json(dispute: &LedgerDispute) -> Value {
    json!({
        "disputeId": dispute.dispute_id,
        "chargeId": dispute.charge_id,
        "disputeAmount": dispute.amount,
        "currencyCode": dispute.currency,
        "filingReason": dispute.filing_reason,
        "state": dispute.state.as_str(),
        "resolution": dispute.resolution,
        "reasonCode": dispute.reason_code,
        "merchantResponseDeadline": dispute.deadline.map(text),
        "creationTimestamp": text(dispute.created_at),
    })
}

fn request_json(request: &RequestRecord) -> Value {
    json!({
        "at": text(request.at),
        "operation": request.operation.as_str(),
        "chargePermissionId": request.permission,
        "chargeId": request.charge,
        "objectId": request.object,
        "idempotencyKey": request.idempotency_key,
        "status": request.status,
        "reasonCode": request.reason_code,
        "state": request.state,
        "replayed": request.replayed,
        "signatureOk": request.signature_ok,
    })
}

pub(super) fn charge(sandbox: &Sandbox, id: &str) -> Result<Value, Problem> {
    let place = |books: &mut super::super::ledger::Books| {
        let place = *books.charge_places.get(id)?;
        Some(charge_json(&LedgerCharge::from(&books.charges[place])))
    };
    sandbox.books(place).ok_or_else(|| SandboxError::unknown("charge", id).into())
}

pub(super) fn refund(sandbox: &Sandbox, id: &str) -> Result<Value, Problem> {
    let found = sandbox.books(|books| books.refund_places.get(id).map(|place| refund_json(&books.refunds[*place])));
    found.ok_or_else(|| SandboxError::unknown("refund", id).into())
}

pub(super) fn dispute(sandbox: &Sandbox, id: &str) -> Result<Value, Problem> {
    let found = sandbox.books(|books| books.dispute_places.get(id).map(|place| dispute_json(&books.disputes[*place])));
    found.ok_or_else(|| SandboxError::unknown("dispute", id).into())
}

/// The newest of each kind, oldest first.
pub(super) fn ledger(sandbox: &Sandbox, permission: Option<&str>, last: usize) -> Value {
    let is_asked = |of: &str| permission.is_none_or(|permission| permission == of);
    sandbox.books(|books| {
        let mut charges: Vec<Value> = books
            .charges
            .iter()
            .rev()
            .filter(|charge| is_asked(&charge.request.permission_id))
            .take(last)
            .map(|charge| charge_json(&LedgerCharge::from(charge)))
            .collect();
        let refunds = books.refunds.iter().rev().filter(|refund| is_asked(&refund.permission));
        let mut refunds: Vec<Value> = refunds.take(last).map(refund_json).collect();
        let disputes = books.disputes.iter().rev().filter(|dispute| is_asked(&dispute.permission));
        let mut disputes: Vec<Value> = disputes.take(last).map(dispute_json).collect();
        for list in [&mut charges, &mut refunds, &mut disputes] {
            list.reverse();
        }
        let mut answers: Vec<_> = books.answers.iter().collect();
        answers.sort_by_key(|((operation, status), _)| (operation.as_str(), *status));
        let answers: Vec<Value> = answers
            .into_iter()
            .map(|((operation, status), count)| json!({ "operation": operation.as_str(), "status": status, "count": count }))
            .collect();
        json!({ "charges": charges, "refunds": refunds, "disputes": disputes, "answers": answers })
    })
}

/// The newest requests, oldest first.
pub(super) fn requests(sandbox: &Sandbox, last: usize) -> Value {
    sandbox.books(|books| {
        let from = books.requests.len().saturating_sub(last);
        Value::Array(books.requests[from..].iter().map(request_json).collect())
    })
}

/// The newest notifications that nobody has delivered, oldest first.
pub(super) fn notifications(sandbox: &Sandbox, last: usize) -> Value {
    sandbox.books(|books| {
        let from = books.outbox.len().saturating_sub(last);
        let shown = books.outbox.iter().skip(from);
        Value::Array(shown.map(|ipn| serde_json::to_value(ipn).unwrap_or_default()).collect())
    })
}
