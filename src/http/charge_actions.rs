//! `POST /v1/charges/{id}/retry`, and `/pause` and `/resume` of a charge or of a charge permission.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tracing::info;

use super::charge_permissions;
use super::charges::{parse, resource};
use super::internal::ApiState;
use super::problem::Problem;
use crate::model::charge_intent::ChargeIntent;
use crate::recovery::wishes::confirmation_planned;
use crate::store::actions::{Pause, Retried};

/// `POST /v1/charges/{id}/retry`: due now, one release if parked. What must come before a new number still comes before it.
pub(super) async fn retry(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    let intent = stored(&state, &id).await?;
    if let Some(at) = confirmation_planned(&intent) {
        return Err(Problem::Conflict(format!(
            "the last answer is being confirmed under the same number at {at}; to ask earlier could charge twice"
        )));
    }
    crash_point!(RetryBefore);
    let retried = state.0.store.retry_charge(&intent).await?;
    crash_point!(RetryAfter);
    info!(intent = %intent.id, ?retried, "a retry was asked for");
    match retried {
        Retried::Noted => {
            let resource = resource(&state, &intent.id).await?;
            Ok((StatusCode::ACCEPTED, Json(resource)).into_response())
        }
        Retried::NotWaiting(held) if held == "held" => Err(Problem::Conflict(
            "the charge is held: an operator resolves it (POST /v1/charges/{id}/resolve)".to_owned(),
        )),
        Retried::NotWaiting(other) => Err(Problem::Conflict(format!(
            "the charge is {other}: expected one that is scheduled or parked, so that there is something to try"
        ))),
        Retried::Paused => Err(Problem::Conflict(
            "the charge, or its charge permission, is paused: resume it, then what is due is tried".to_owned(),
        )),
        Retried::Unknown => Err(Problem::NotFound("charge")),
    }
}

/// `POST /v1/charges/{id}/pause`: once this is answered no send of it is marked, on any instance.
pub(super) async fn pause(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    set_pause(state, &id, true).await
}

/// `POST /v1/charges/{id}/resume`.
pub(super) async fn resume(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    set_pause(state, &id, false).await
}

async fn set_pause(state: ApiState, id: &str, on: bool) -> Result<Response, Problem> {
    let intent = stored(&state, id).await?;
    crash_point!(PauseBefore);
    let pause = state.0.store.pause_charge(&intent, on).await?;
    crash_point!(PauseAfter);
    info!(intent = %intent.id, on, ?pause, "a charge was paused or resumed");
    match pause {
        Pause::Since(_) | Pause::No => Ok(Json(resource(&state, &intent.id).await?).into_response()),
        Pause::Ended(ended) => Err(Problem::Conflict(format!("the charge has ended: {ended}"))),
        Pause::Unknown => Err(Problem::NotFound("charge")),
    }
}

/// `POST /v1/charge-permissions/{id}/pause`: its charges, and those that are submitted later.
pub(super) async fn pause_permission(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    set_permission_pause(state, &id, true).await
}

/// `POST /v1/charge-permissions/{id}/resume`.
pub(super) async fn resume_permission(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    set_permission_pause(state, &id, false).await
}

async fn set_permission_pause(state: ApiState, id: &str, on: bool) -> Result<Response, Problem> {
    let id = charge_permissions::parse(id)?;
    crash_point!(PauseBefore);
    let pause = state.0.store.pause_permission(&id, on).await?;
    crash_point!(PauseAfter);
    info!(permission = %id, on, ?pause, "a charge permission was paused or resumed");
    if pause == Pause::Unknown {
        return Err(Problem::NotFound("charge permission: no charge or notification has named it"));
    }
    Ok(Json(charge_permissions::resource(&state, &id).await?).into_response())
}

async fn stored(state: &ApiState, id: &str) -> Result<ChargeIntent, Problem> {
    let id = parse(id)?;
    let stored = state.0.store.charge(&id).await?.ok_or(Problem::NotFound("charge"))?;
    Ok(stored.intent)
}
