//! `/v1/charges`: submit, look at and cancel charge intents. Field names as Amazon spells them.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tracing::info;

use super::charge_body;
use super::internal::ApiState;
use super::problem::{FieldError, Problem};
use super::quota::{WaitingForQuota, waiting_for_quota};
use crate::model::charge_intent::{ChargeIntent, Outcome, Park, Stage};
use crate::model::ids::{IntentId, PolicyName};
use crate::model::money::Money;
use crate::store::charges::{Canceled, Submitted};

/// A charge intent as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChargeResource {
    id: IntentId,
    charge_permission_id: String,
    charge_amount: Money,
    capture_now: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<PolicyName>,
    state: &'static str,
    /// The current number; every `charge.*` event carries it.
    number: u32,
    /// `fresh`, `unknown` or `answered`.
    number_status: &'static str,
    attempts: u32,
    submitted_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked_for: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    canceling: bool,
    may_still_charge: bool,
    /// Present while the permission waits for Amazon's quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for_quota: Option<WaitingForQuota>,
}

impl From<&ChargeIntent> for ChargeResource {
    fn from(intent: &ChargeIntent) -> Self {
        let stage = intent.stage();
        let reason_code = match stage {
            Stage::Abandoned { reason, .. } | Stage::Held { reason } => Some(reason.clone()),
            _ => intent.progress.last_reason.clone(),
        };
        Self {
            id: intent.id.clone(),
            charge_permission_id: intent.request.charge_permission_id.to_string(),
            charge_amount: intent.request.charge_amount,
            capture_now: intent.request.capture_now,
            policy: intent.policy.clone(),
            state: stage.name(),
            number: intent.number.value,
            number_status: intent.number.status.as_str(),
            attempts: intent.progress.attempts,
            submitted_at: intent.submitted_at,
            next_attempt_at: match stage {
                Stage::Scheduled { at, .. } => Some(*at),
                _ => None,
            },
            parked_for: match stage {
                Stage::Parked { park: Park::Instrument { .. }, .. } => Some("instrument"),
                Stage::Parked { park: Park::Attention, .. } => Some("attention"),
                _ => None,
            },
            reason_code,
            charge_id: intent.progress.charge.as_ref().map(ToString::to_string),
            outcome: stage.outcome(),
            canceling: intent.cancel_requested_at.is_some() && !stage.is_terminal(),
            may_still_charge: intent.may_still_charge(),
            waiting_for_quota: None,
        }
    }
}

/// `POST /v1/charges`.
pub(super) async fn submit(
    State(state): State<ApiState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let inner = &state.0;
    let body = body.map_err(Problem::Unreadable)?;
    let submission =
        charge_body::read(&body, &inner.account, &inner.policies, inner.clock.now()).map_err(Problem::Invalid)?;
    let id = submission.id.clone();
    let submitted = inner.store.submit_charge(&submission).await?;
    info!(intent = %id, permission = %submission.request.charge_permission_id, ?submitted, "charge submitted");
    let status = match submitted {
        Submitted::Accepted | Submitted::Held | Submitted::Resumed => StatusCode::ACCEPTED,
        Submitted::Same => StatusCode::OK,
        Submitted::Conflict => {
            return Err(Problem::Conflict(format!(
                "the id {id} was used with another body; an id names one charge for ever"
            )));
        }
        Submitted::Contradicted => {
            return Err(Problem::Conflict(
                "numbers beyond the declared one were used: give the number of the last charge.attempted, or neither"
                    .to_owned(),
            ));
        }
        Submitted::TooMany => {
            return Err(Problem::Conflict("this charge permission has too many open charges".to_owned()));
        }
    };
    let resource = resource(&state, &id).await?;
    Ok((status, Json(resource)).into_response())
}

/// `GET /v1/charges/{id}`.
pub(super) async fn show(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = parse(&id)?;
    Ok(Json(resource(&state, &id).await?).into_response())
}

/// `DELETE /v1/charges/{id}`: 200 when final, 202 when a charge may still come of it.
pub(super) async fn cancel(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = parse(&id)?;
    let canceled = state.0.store.cancel_charge(&id).await?;
    info!(intent = %id, ?canceled, "cancellation asked for");
    match canceled {
        Canceled::Done => Ok(Json(resource(&state, &id).await?).into_response()),
        Canceled::Pending => {
            let body = json!({ "id": id, "state": "canceling", "mayStillCharge": true });
            Ok((StatusCode::ACCEPTED, Json(body)).into_response())
        }
        Canceled::Ended(ended) => Err(Problem::Conflict(format!("the charge has ended: {ended}"))),
        Canceled::Unknown => Err(Problem::NotFound("charge")),
    }
}

async fn resource(state: &ApiState, id: &IntentId) -> Result<ChargeResource, Problem> {
    match state.0.store.charge(id).await? {
        Some(stored) => {
            let waiting_for_quota = waiting_for_quota(&state.0.store, &stored.intent).await?;
            Ok(ChargeResource { waiting_for_quota, ..ChargeResource::from(&stored.intent) })
        }
        None => Err(Problem::NotFound("charge")),
    }
}

fn parse(id: &str) -> Result<IntentId, Problem> {
    id.parse().map_err(|error: crate::model::ids::InvalidId| {
        Problem::Invalid(vec![FieldError { field: "id".to_owned(), message: error.to_string() }])
    })
}
