//! `GET /v1/quota`: what may be called, who waits for it, and when they will have been let in; `POST /v1/account/probe`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use tracing::info;

use super::internal::ApiState;
use super::problem::Problem;
use crate::model::ids::ChargePermissionId;
use crate::model::quota::{Class, Operation, time_for};
use crate::store::quota::{AccountFault, QuotaStatus};
use crate::store::{Store, StoreError};
use crate::telemetry::metric;

/// An operation as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "OperationQuota")]
struct OperationResource {
    operation: &'static str,
    capacity: u32,
    restore_per_second: f64,
    /// Below 0 while more was given than there was.
    available: f64,
    /// Less than 1 after Amazon throttled it: the part of its rate that it fills at.
    speed: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttled_until: Option<Timestamp>,
    waiting_calls: u64,
}

/// A permission that waits for tokens, and so do its charges.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WaitingForQuota {
    /// Permissions that are let in before.
    ahead: u64,
    /// When it is let in, if nobody comes who goes first; `null` while the account is at fault.
    estimated_at: Option<Timestamp>,
}

/// The fault of the account, as `/readyz` and `/v1/quota` show it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "AccountFault")]
pub(super) struct FaultResource {
    since: Timestamp,
    /// An operation, or Amazon's reason code.
    reason: String,
    next_probe_at: Option<Timestamp>,
}

impl From<AccountFault> for FaultResource {
    fn from(fault: AccountFault) -> Self {
        Self { since: fault.since, reason: fault.reason, next_probe_at: fault.next_probe_at }
    }
}

/// Whether the account is at fault.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AccountFaultNow {
    /// `null`: it is not.
    account_fault: Option<FaultResource>,
}

/// The quota as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Quota")]
pub(super) struct QuotaResource {
    operations: [OperationResource; Operation::ALL.len()],
    /// Permissions that wait, by class.
    waiting: BTreeMap<&'static str, u64>,
    waiting_total: u64,
    /// When all of them have been let in; `null` while the account is at fault.
    empty_at: Option<Timestamp>,
    /// `null`: there is none.
    account_fault: Option<FaultResource>,
}

/// `GET /v1/quota`.
pub(super) async fn show(State(state): State<ApiState>) -> Result<Response, Problem> {
    let store = &state.0.store;
    let account = store.account().await?;
    let status = store.quota_status().await?;
    let waiting: BTreeMap<&'static str, u64> =
        Class::ALL.iter().map(|class| (class.as_str(), status.permissions.get(class).copied().unwrap_or(0))).collect();
    let empty_at = if account.fault.is_some() { None } else { let_in_at(&status, 1.0) };
    let body = QuotaResource {
        operations: Operation::ALL.map(|operation| operation_resource(&status, operation)),
        waiting,
        waiting_total: status.waiting(),
        empty_at,
        account_fault: account.fault.map(FaultResource::from),
    };
    Ok(Json(body).into_response())
}

/// `POST /v1/account/probe`: 202 if the account is at fault; 200 if it is not, then there is nothing to find out.
pub(super) async fn probe(State(state): State<ApiState>) -> Result<Response, Problem> {
    let store = &state.0.store;
    let asked = store.probe_now().await?;
    info!(at_fault = asked, "a probe of the account was asked for");
    let account = store.account().await?;
    let status = if asked { StatusCode::ACCEPTED } else { StatusCode::OK };
    let body = AccountFaultNow { account_fault: account.fault.map(FaultResource::from) };
    Ok((status, Json(body)).into_response())
}

fn operation_resource(status: &QuotaStatus, operation: Operation) -> OperationResource {
    let (bucket, limit) = (status.bucket(operation), status.limits.get(operation));
    OperationResource {
        operation: operation.as_str(),
        capacity: limit.capacity,
        restore_per_second: limit.per_second,
        available: bucket.tokens_at(limit, status.now),
        speed: bucket.factor_at(status.now),
        throttled_until: (bucket.closed_until > status.now).then_some(bucket.closed_until),
        waiting_calls: status.waiting_calls(operation),
    }
}

/// When this part of those who wait has been let in, at the latest: each is taken to need all that it may need.
fn let_in_at(status: &QuotaStatus, part: f64) -> Option<Timestamp> {
    let calls = |operation| as_f64(status.waiting_calls(operation)) * part;
    let span = time_for(calls, |operation| status.bucket(operation), &status.limits, status.now);
    // A whole number of seconds: it is an estimate.
    status.now.checked_add(Duration::from_secs(span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0)))).ok()
}

/// Whether, and how long, a permission waits for tokens. Two quick reads, the second one only if it does.
pub(super) async fn waiting_for_quota(
    store: &Store,
    permission: &ChargePermissionId,
) -> Result<Option<WaitingForQuota>, StoreError> {
    let Some(ahead) = store.waiting_place(permission).await? else { return Ok(None) };
    let status = store.quota_status().await?;
    let all = as_f64(status.waiting().max(ahead + 1));
    let at_fault = store.account().await?.fault.is_some();
    let estimated_at = if at_fault { None } else { let_in_at(&status, as_f64(ahead + 1) / all) };
    Ok(Some(WaitingForQuota { ahead, estimated_at }))
}

/// Sets the gauges, when `/metrics` is asked.
pub(super) async fn gauge(store: &Store) {
    let (Ok(status), Ok(account)) = (store.quota_status().await, store.account().await) else { return };
    for class in Class::ALL {
        let waiting = status.permissions.get(&class).copied().unwrap_or(0);
        metrics::gauge!(metric::QUOTA_WAITING, "class" => class.as_str()).set(as_f64(waiting));
    }
    for operation in Operation::ALL {
        let tokens = status.bucket(operation).tokens_at(status.limits.get(operation), status.now);
        metrics::gauge!(metric::QUOTA_TOKENS, "operation" => operation.as_str()).set(tokens);
    }
    metrics::gauge!(metric::ACCOUNT_FAULT).set(if account.fault.is_some() { 1.0 } else { 0.0 });
}

#[expect(clippy::cast_precision_loss, reason = "counts of permissions are far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
