//! `/v1/charge-permissions/{id}`: what is known about a permission and why things are as they are; its closing; a look now.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::charges::ChargeResource;
use super::internal::ApiState;
use super::json_body;
use super::problem::{FieldError, Problem};
use super::quota::{WaitingForQuota, waiting_for_quota};
use crate::model::charge_intent::{ChargeIntent, Park, Stage, Why};
use crate::model::hint::ObjectType;
use crate::model::ids::{ChargePermissionId, ObjectId};
use crate::model::permission::{PermissionKind, PermissionState};
use crate::recovery::permission::closed_by;
use crate::recovery::policy::Policy;
use crate::store::permissions::{CloseRequested, StoredPermission};

/// Longest `closureReason` that Amazon takes.
const MAX_REASON_CHARS: usize = 255;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CloseBody {
    closure_reason: String,
    #[serde(default)]
    cancel_pending_charges: bool,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReconcileBody {
    /// It may be one that nobody here has heard of.
    #[serde(default)]
    new: bool,
}

/// A charge permission as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ChargePermission")]
pub(super) struct PermissionResource {
    charge_permission_id: ChargePermissionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_permission_type: Option<PermissionKind>,
    /// As the last look showed it; `None` before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<PermissionState>,
    reason_codes: Vec<String>,
    closed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["buyer", "merchant", "amazon", "expiry", "unknown"]))]
    closed_by: Option<&'static str>,
    /// The closing that was asked for, while it is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    closing: Option<ClosingResource>,
    /// Whether nothing is sent for it until somebody resumes it.
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    looked_at: Option<Timestamp>,
    /// When it is worked on next; absent while a worker is at it, while it waits for quota, and when there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_at: Option<Timestamp>,
    /// Whether a worker is at it right now.
    reconciling: bool,
    /// What notifications named and nobody has dealt with yet.
    waiting_notifications: Vec<HintResource>,
    /// Present while it waits for Amazon's quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for_quota: Option<WaitingForQuota>,
    open_charges: Vec<OpenCharge>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ClosingResource {
    closure_reason: String,
    cancel_pending_charges: bool,
    asked_at: Timestamp,
    tries: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try_at: Option<Timestamp>,
    /// Amazon calls the request wrong, with this code: it is not repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct HintResource {
    object_type: ObjectType,
    object_id: ObjectId,
    since: Timestamp,
    refusals: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<Timestamp>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct OpenCharge {
    #[serde(flatten)]
    charge: ChargeResource,
    /// Why it stands where it stands, and what it waits for, in words.
    waits_for: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_look_at: Option<Timestamp>,
}

/// `GET /v1/charge-permissions/{id}`.
pub(super) async fn show(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = parse(&id)?;
    Ok(Json(resource(&state, &id).await?).into_response())
}

/// `POST /v1/charge-permissions/{id}/close`: 202 when it is taken on, 200 when it is under way or the permission is closed.
pub(super) async fn close(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let id = parse(&id)?;
    let body: CloseBody = json_body::parse(&body.map_err(Problem::Unreadable)?).map_err(Problem::Invalid)?;
    let reason = body.closure_reason.as_str();
    let is_text = !reason.trim().is_empty() && !reason.chars().any(char::is_control);
    if !is_text || reason.chars().count() > MAX_REASON_CHARS {
        let message = format!("expected 1 to {MAX_REASON_CHARS} characters, none of them control characters");
        return Err(Problem::Invalid(vec![FieldError { field: "closureReason".to_owned(), message }]));
    }
    crash_point!(CloseBefore);
    let requested = state.0.store.request_close(&id, reason, body.cancel_pending_charges).await?;
    crash_point!(CloseAfter);
    info!(permission = %id, ?requested, "closing asked for");
    let status = match requested {
        CloseRequested::Asked => StatusCode::ACCEPTED,
        CloseRequested::Same | CloseRequested::Closed => StatusCode::OK,
        CloseRequested::Conflict => {
            return Err(Problem::Conflict("another closing of this charge permission is under way".to_owned()));
        }
    };
    Ok((status, Json(resource(&state, &id).await?)).into_response())
}

/// `POST /v1/charge-permissions/{id}/reconcile`: look now. 202. One that nothing has named yet needs `new: true`: a mistyped id must not
/// look like a permission.
pub(super) async fn reconcile(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let id = parse(&id)?;
    let body = body.map_err(Problem::Unreadable)?;
    let body: ReconcileBody = if body.trim_ascii().is_empty() {
        ReconcileBody::default()
    } else {
        json_body::parse(&body).map_err(Problem::Invalid)?
    };
    crash_point!(LookBefore);
    let known = state.0.store.request_look(&id, body.new).await?;
    crash_point!(LookAfter);
    if !known {
        return Err(Problem::NotFound(
            "charge permission: no charge or notification has named it; if it is a new one, send {\"new\": true}",
        ));
    }
    info!(permission = %id, "a look was asked for");
    Ok((StatusCode::ACCEPTED, Json(resource(&state, &id).await?)).into_response())
}

/// A permission as `GET` shows it.
pub(super) async fn resource(state: &ApiState, id: &ChargePermissionId) -> Result<PermissionResource, Problem> {
    let stored = state.0.store.permission(id).await?.ok_or(Problem::NotFound("charge permission"))?;
    let account = state.0.store.account().await?;
    let (stopped, at_fault) = (account.stopped_since.is_some(), account.fault.is_some());
    let waiting_for_quota = waiting_for_quota(&state.0.store, id).await?;
    let open_charges = stored.intents.iter().map(|intent| {
        let policy = state.0.policies.of(intent);
        let waits_for = waits_for(intent, &stored, policy);
        let holds = [
            intent.is_paused().then_some("it is paused, nothing is sent"),
            stopped.then_some("the stop switch is on, nothing is sent"),
            at_fault.then_some("the account is at fault, nothing is sent"),
        ];
        let waits_for =
            [waits_for.as_str()].into_iter().chain(holds.into_iter().flatten()).collect::<Vec<_>>().join("; ");
        OpenCharge { charge: ChargeResource::new(intent, policy), waits_for, next_look_at: intent.progress.look_at }
    });
    let open_charges = open_charges.collect();
    let progress = stored.record.closing.as_ref();
    Ok(PermissionResource {
        charge_permission_id: id.clone(),
        closed_by: stored.closed.then(|| closed_by(&stored.record.reasons)),
        closing: stored.close.map(|wish| {
            let progress = progress.filter(|progress| progress.asked_at == wish.asked_at);
            let refused = progress.and_then(|progress| progress.parked.clone());
            ClosingResource {
                closure_reason: wish.reason,
                cancel_pending_charges: wish.cancel_pending,
                asked_at: wish.asked_at,
                tries: progress.map_or(0, |progress| progress.tries),
                next_try_at: progress.map(|progress| progress.next_at).filter(|_| refused.is_none()),
                refused,
            }
        }),
        charge_permission_type: stored.record.kind,
        state: stored.record.state,
        reason_codes: stored.record.reasons,
        closed: stored.closed,
        paused: stored.paused_since.is_some(),
        paused_since: stored.paused_since,
        looked_at: stored.record.looked_at,
        // While it waits for quota the schedule holds only the time at which the plan would be made anew.
        next_at: stored.due.filter(|_| !stored.leased && waiting_for_quota.is_none()),
        reconciling: stored.leased,
        waiting_notifications: stored
            .hints
            .into_iter()
            .filter(|hint| hint.note.swept_since.is_none())
            .map(|hint| HintResource {
                object_type: hint.object_type,
                object_id: hint.object_id,
                since: hint.note.published_at,
                refusals: hint.note.refusals,
                not_before: hint.note.not_before,
            })
            .collect(),
        waiting_for_quota,
        open_charges,
    })
}

/// Why a charge stands where it stands, and what it waits for.
fn waits_for(intent: &ChargeIntent, stored: &StoredPermission, policy: &Policy) -> String {
    let after = intent.progress.last_reason.as_ref().map(|reason| format!(" after {reason}")).unwrap_or_default();
    let own = match intent.stage() {
        Stage::Scheduled { at, why } => match why {
            Why::Attempt => format!("the next attempt{after}, not before {at}"),
            Why::Repeat => format!("the same request again{after}, not before {at}: nobody knows what became of it"),
            Why::Confirmation => format!("the same request again at {at}: an older copy of it may still be accepted"),
            Why::Closing => format!("the same request a last time at {at}: the permission is closed"),
        },
        Stage::Parked { park: Park::Instrument { .. }, .. } => {
            format!("the buyer to update the payment method{after}, until {}", policy.attempts_end(intent))
        }
        Stage::Parked { park: Park::Attention, .. } => {
            let unknown =
                intent.progress.last_reason.as_ref().is_some_and(|reason| reason.as_str() == "ResourceNotFound");
            let what = if unknown {
                "Amazon knows no such charge permission: is the id right, and of this environment?"
            } else {
                "once its cause is mended, it is to be retried"
            };
            format!("a person{after}, until {}: {what}", policy.attempts_end(intent))
        }
        Stage::Pending { since, .. } => format!("Amazon, which decides about the charge since {since}"),
        Stage::Authorized { .. } => "its capture".to_owned(),
        Stage::Held { reason } => format!("a person: held because of {reason}"),
        Stage::Captured { .. } | Stage::Canceled { .. } | Stage::Abandoned { .. } => "nothing: it has ended".to_owned(),
    };
    let wants = intent.cancel_requested_at.is_some().then_some("its cancellation was asked for");
    let closing = stored.close.is_some().then_some("the closing of the permission comes first, nothing is sent");
    [Some(own.as_str()), wants, closing].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

pub(super) fn parse(id: &str) -> Result<ChargePermissionId, Problem> {
    id.parse().map_err(|error: crate::model::ids::InvalidId| {
        Problem::Invalid(vec![FieldError { field: "chargePermissionId".to_owned(), message: error.to_string() }])
    })
}
