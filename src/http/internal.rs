//! The internal listener: the API behind a bearer token, and what probes and scrapers ask for.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::runtime::Handle;
use tower_http::timeout::TimeoutLayer;

use super::problem::Problem;
use super::readiness::{Noticed, gauge_durability, ready};
use super::{capture, charge_actions, charge_list, charge_permissions, charges, quarantine, quota, resolve, stop};
use crate::clock::Clock;
use crate::model::ids::Account;
use crate::recovery::policies::Policies;
use crate::store::Store;
use crate::telemetry::metric;

/// A charge's body is small.
const MAX_BODY_BYTES: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(20);

/// What the internal API works with.
#[derive(Debug, Clone)]
pub struct ApiState(pub(super) Arc<Inner>);

#[derive(Debug, Clone)]
pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) account: Account,
    pub(super) policies: Arc<Policies>,
    pub(super) clock: Clock,
    /// The operator accepts that answered writes may be lost.
    pub(super) accepted: bool,
    pub(super) noticed: Noticed,
    pub(super) token: SecretString,
    metrics: PrometheusHandle,
}

impl ApiState {
    /// The state of the internal listener.
    #[must_use]
    pub fn new(
        store: Store,
        account: Account,
        policies: Arc<Policies>,
        clock: Clock,
        token: SecretString,
        metrics: PrometheusHandle,
    ) -> Self {
        let (accepted, noticed) = (false, Noticed::default());
        Self(Arc::new(Inner { store, account, policies, clock, accepted, noticed, token, metrics }))
    }

    /// With what the preflight found, and whether the operator accepts that answered writes may be lost.
    #[must_use]
    pub fn with_preflight(self, noticed: Noticed, accepted: bool) -> Self {
        let Self(inner) = self;
        Self(Arc::new(Inner { accepted, noticed, ..Arc::unwrap_or_clone(inner) }))
    }
}

/// The router of the internal listener.
pub fn router(state: ApiState) -> Router {
    let api = Router::new()
        .route("/charges", post(charges::submit).get(charge_list::list))
        .route("/charges/{id}", get(charges::show).delete(charges::cancel))
        .route("/charges/{id}/capture", post(capture::request))
        .route("/charge-permissions/{id}", get(charge_permissions::show))
        .route("/charge-permissions/{id}/close", post(charge_permissions::close))
        .route("/charge-permissions/{id}/reconcile", post(charge_permissions::reconcile))
        .route("/charges/{id}/retry", post(charge_actions::retry))
        .route("/charges/{id}/pause", post(charge_actions::pause))
        .route("/charges/{id}/resume", post(charge_actions::resume))
        .route("/charges/{id}/resolve", post(resolve::resolve))
        .route("/charge-permissions/{id}/pause", post(charge_actions::pause_permission))
        .route("/charge-permissions/{id}/resume", post(charge_actions::resume_permission))
        .route("/quarantine", get(quarantine::list))
        .route("/quarantine/{id}", get(quarantine::show).delete(quarantine::discard))
        .route("/quarantine/{id}/replay", post(quarantine::replay))
        .route("/quota", get(quota::show))
        .route("/account/probe", post(quota::probe))
        .route("/stop", get(stop::show).post(stop::throw).delete(stop::lift))
        .route_layer(from_fn_with_state(state.clone(), authorize));
    Router::new()
        .nest("/v1", api)
        .nest("/operator", page::router(state.clone()))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_page))
        .fallback(|| async { Problem::NotFound("resource") })
        .method_not_allowed_fallback(|| async { Problem::WrongMethod })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, TIMEOUT))
        .with_state(state)
}

/// The token is compared in constant time.
async fn authorize(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
        .unwrap_or_default();
    if bool::from(given.ct_eq(state.0.token.expose_secret().as_bytes())) {
        next.run(request).await
    } else {
        Problem::Unauthorized.into_response()
    }
}

async fn metrics_page(State(state): State<ApiState>) -> Response {
    if let Ok(levels) = state.0.store.levels().await {
        let named = [
            ("events", levels.events),
            ("journal", levels.journal),
            ("quarantine", levels.quarantine),
            ("scheduled", levels.scheduled),
        ];
        for (what, level) in named {
            #[expect(clippy::cast_precision_loss, reason = "a level is far below 2^52")]
            metrics::gauge!(metric::LEVEL, "what" => what).set(level as f64);
        }
    }
    if let Ok(account) = state.0.store.account().await
        && let Some(since) = account.since_notification
    {
        metrics::gauge!(metric::SECONDS_SINCE_NOTIFICATION).set(since.as_secs_f64());
    }
    #[expect(clippy::cast_precision_loss, reason = "a count is far below 2^52")]
    metrics::gauge!(metric::TASKS).set(Handle::current().metrics().num_alive_tasks() as f64);
    quota::gauge(&state.0.store).await;
    gauge_durability(&state.0.store, state.0.accepted).await;
    state.0.metrics.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], state.0.metrics.render()).into_response()
}
