//! `/v1/stop`: the red switch. While it is on no charge is sent, on any instance; it survives restarts.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use tracing::warn;

use super::internal::ApiState;
use super::problem::Problem;

/// The stop switch as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Stop")]
pub(super) struct StopResource {
    stopped: bool,
    /// `null` while it is off.
    since: Option<Timestamp>,
}

/// `GET /v1/stop`.
pub(super) async fn show(State(state): State<ApiState>) -> Result<Response, Problem> {
    let account = state.0.store.account().await?;
    let body = StopResource { stopped: account.stopped_since.is_some(), since: account.stopped_since };
    Ok(Json(body).into_response())
}

/// `POST /v1/stop`.
pub(super) async fn throw(State(state): State<ApiState>) -> Result<Response, Problem> {
    crash_point!(StopBefore);
    state.0.store.set_stop(true).await?;
    crash_point!(StopAfter);
    warn!("the stop switch is on: no charge is sent on any instance");
    show(State(state)).await
}

/// `DELETE /v1/stop`.
pub(super) async fn lift(State(state): State<ApiState>) -> Result<Response, Problem> {
    crash_point!(StopBefore);
    state.0.store.set_stop(false).await?;
    crash_point!(StopAfter);
    warn!("the stop switch is off: charges go on");
    show(State(state)).await
}
