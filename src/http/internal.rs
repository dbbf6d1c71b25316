//! The internal listener: the API behind a bearer token, and what probes and scrapers ask for.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::runtime::Handle;
use tower_http::timeout::TimeoutLayer;

use serde_json::Value;

use super::capture::CaptureBody;
use super::charge_list::{ChargePage, Wanted};
use super::charge_permissions::{CloseBody, PermissionResource, ReconcileBody};
use super::charges::{ChargeResource, CheckResource};
use super::event_groups::GroupGauges;
use super::openapi::{self, Operation, Route};
use super::problem::Problem;
use super::quarantine::{QuarantinePage, QuarantineResource, ReplayResource};
use super::quota::{AccountFaultNow, QuotaResource};
use super::readiness::{Noticed, ReadyResource, gauge_durability, ready};
use super::resolve::ResolveBody;
use super::stop::StopResource;
use super::{
    capture, charge_actions, charge_body, charge_list, charge_permissions, charges, page, quarantine, quota, resolve,
    stop,
};
use crate::clock::Clock;
use crate::model::ids::{Account, ChargePermissionId, IntentId};
use crate::recovery::policies::Policies;
use crate::store::Store;
use crate::telemetry::metric;

/// A charge's body is small.
const MAX_BODY_BYTES: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long the metrics wait for Redis. Prometheus waits 10 s for all of them unless told otherwise.
const READING: Duration = Duration::from_secs(4);

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
    groups: GroupGauges,
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
        let groups = GroupGauges::default();
        Self(Arc::new(Inner { store, account, policies, clock, accepted, noticed, token, metrics, groups }))
    }

    /// With what the preflight found, and whether the operator accepts that answered writes may be lost.
    #[must_use]
    pub fn with_preflight(self, noticed: Noticed, accepted: bool) -> Self {
        let Self(inner) = self;
        Self(Arc::new(Inner { accepted, noticed, ..Arc::unwrap_or_clone(inner) }))
    }
}

/// What needs the token, below `/v1`.
#[expect(clippy::too_many_lines, reason = "a table: one row for each method of each path")]
fn api() -> Vec<Route<ApiState>> {
    let charge = |operation: Operation| {
        operation.of_id::<IntentId>().refuses(400, "The id is none").refuses(404, "There is no such charge")
    };
    let permission = |operation: Operation| operation.of_id::<ChargePermissionId>().refuses(400, "The id is none");
    let unknown = |operation: Operation| operation.refuses(404, "No charge or notification has named it");
    let body = |operation: Operation| {
        operation.refuses(400, "The request names its wrong fields").refuses(413, "The body is too large")
    };
    let kept = |operation: Operation| {
        operation.of_id::<String>().refuses(400, "The id is none").refuses(404, "There is no such entry (any more)")
    };
    let not_now = "It cannot be done any more, or not again; `detail` says why";
    let routes = vec![
        Route::post(
            "/charges",
            charges::submit,
            body(Operation::new("submitCharge", "Submit a charge that is to happen once").takes::<charge_body::Body>())
                .answers::<ChargeResource>(202, "Accepted")
                .answers::<ChargeResource>(200, "Accepted before, with the state of now")
                .refuses(
                    409,
                    "The id was used with another body, the permission is being closed, or has too many open charges",
                ),
        ),
        // Not below `/charges`, where it would be an id; and not a parameter, which misspelt would charge.
        Route::post(
            "/charge-checks",
            charges::check,
            body(
                Operation::new("checkCharge", "What submitting a charge would come to; nothing is stored")
                    .takes::<charge_body::Body>(),
            )
            .answers::<CheckResource>(200, "It would be taken, or was taken before")
            .refuses(
                409,
                "The id was used with another body, the permission is being closed, or has too many open charges",
            ),
        ),
        Route::get(
            "/charges",
            charge_list::list,
            Operation::new("listCharges", "Charges by state and reason, a page at a time")
                .asks::<Wanted>()
                .answers::<ChargePage>(200, "A page")
                .refuses(400, "A parameter is wrong"),
        ),
        Route::get(
            "/charges/{id}",
            charges::show,
            charge(Operation::new("getCharge", "A charge")).answers::<ChargeResource>(200, "As it is now"),
        ),
        Route::delete(
            "/charges/{id}",
            charges::cancel,
            charge(Operation::new("cancelCharge", "Cancel a charge"))
                .answers::<ChargeResource>(200, "Canceled for good")
                .answers::<ChargeResource>(202, "Being canceled; a charge may still come of it")
                .refuses(409, "It has ended"),
        ),
        Route::post(
            "/charges/{id}/capture",
            capture::request,
            body(
                charge(Operation::new("captureCharge", "Capture an authorisation, whole or in part"))
                    .may_take::<CaptureBody>(),
            )
            .answers::<ChargeResource>(202, "Accepted")
            .answers::<ChargeResource>(200, "Accepted before, with the state of now")
            .refuses(409, not_now),
        ),
        Route::post(
            "/charges/{id}/retry",
            charge_actions::retry,
            charge(Operation::new("retryCharge", "Try a waiting charge now"))
                .answers::<ChargeResource>(202, "Noted")
                .refuses(409, not_now),
        ),
        Route::post(
            "/charges/{id}/pause",
            charge_actions::pause,
            charge(Operation::new("pauseCharge", "Send nothing for a charge"))
                .answers::<ChargeResource>(200, "Paused")
                .refuses(409, "It has ended"),
        ),
        Route::post(
            "/charges/{id}/resume",
            charge_actions::resume,
            charge(Operation::new("resumeCharge", "End the pause of a charge"))
                .answers::<ChargeResource>(200, "Not paused")
                .refuses(409, "It has ended"),
        ),
        Route::post(
            "/charges/{id}/resolve",
            resolve::resolve,
            body(
                charge(Operation::new("resolveCharge", "Say what became of a held charge, or of an unverified end"))
                    .takes::<ResolveBody>(),
            )
            .answers::<ChargeResource>(200, "Resolved")
            .answers::<ChargeResource>(202, "The charge that was named is read at Amazon")
            .refuses(409, not_now),
        ),
        Route::get(
            "/charge-permissions/{id}",
            charge_permissions::show,
            unknown(permission(Operation::new(
                "getChargePermission",
                "A charge permission, and why things are as they are",
            )))
            .answers::<PermissionResource>(200, "As it is now"),
        ),
        Route::post(
            "/charge-permissions/{id}/close",
            charge_permissions::close,
            body(
                permission(Operation::new("closeChargePermission", "Close a charge permission at Amazon"))
                    .takes::<CloseBody>(),
            )
            .answers::<PermissionResource>(202, "Accepted")
            .answers::<PermissionResource>(200, "Under way, or closed")
            .refuses(409, "Another closing is under way"),
        ),
        Route::post(
            "/charge-permissions/{id}/reconcile",
            charge_permissions::reconcile,
            body(
                unknown(permission(Operation::new("reconcileChargePermission", "Look at a charge permission now")))
                    .may_take::<ReconcileBody>(),
            )
            .answers::<PermissionResource>(202, "Noted"),
        ),
        Route::post(
            "/charge-permissions/{id}/pause",
            charge_actions::pause_permission,
            unknown(permission(Operation::new("pauseChargePermission", "Send nothing for a charge permission")))
                .answers::<PermissionResource>(200, "Paused"),
        ),
        Route::post(
            "/charge-permissions/{id}/resume",
            charge_actions::resume_permission,
            unknown(permission(Operation::new("resumeChargePermission", "End the pause of a charge permission")))
                .answers::<PermissionResource>(200, "Not paused"),
        ),
        Route::get(
            "/quarantine",
            quarantine::list,
            Operation::new("listQuarantine", "What is kept aside for a person, the oldest first, a page at a time")
                .asks::<quarantine::Wanted>()
                .answers::<QuarantinePage>(200, "A page")
                .refuses(400, "A parameter is wrong"),
        ),
        Route::get(
            "/quarantine/{id}",
            quarantine::show,
            kept(Operation::new("getQuarantineEntry", "An entry, with the message as it was received"))
                .answers::<QuarantineResource>(200, "As it is kept"),
        ),
        Route::delete(
            "/quarantine/{id}",
            quarantine::discard,
            kept(Operation::new("dropQuarantineEntry", "Drop an entry for good"))
                .answers::<QuarantineResource>(200, "Dropped; this is what it was"),
        ),
        Route::post(
            "/quarantine/{id}/replay",
            quarantine::replay,
            kept(Operation::new("replayQuarantineEntry", "Look now at what an entry names; it leaves the quarantine"))
                .answers::<ReplayResource>(202, "It is looked at")
                .refuses(409, "It names nothing that can be looked at; `detail` says why"),
        ),
        Route::get(
            "/quota",
            quota::show,
            Operation::new("getQuota", "What may be called, and who waits for it")
                .answers::<QuotaResource>(200, "As it is now"),
        ),
        Route::post(
            "/account/probe",
            quota::probe,
            Operation::new("probeAccount", "Ask now whether Amazon answers the account again")
                .answers::<AccountFaultNow>(202, "It will be asked")
                .answers::<AccountFaultNow>(200, "The account is not at fault"),
        ),
        Route::get(
            "/stop",
            stop::show,
            Operation::new("getStop", "The stop switch").answers::<StopResource>(200, "As it is now"),
        ),
        Route::post(
            "/stop",
            stop::throw,
            Operation::new("throwStop", "Send no charge, on any instance").answers::<StopResource>(200, "Stopped"),
        ),
        Route::delete(
            "/stop",
            stop::lift,
            Operation::new("liftStop", "Let charges go on").answers::<StopResource>(200, "Not stopped"),
        ),
    ];
    let later = "It may work later. What other answers promise this one does not; the same request again is safe";
    routes.into_iter().map(|route| route.refuses(401, "No or a wrong bearer token").refuses(503, later)).collect()
}

/// What probes and scrapers ask for.
fn probes() -> Vec<Route<ApiState>> {
    vec![
        Route::get(
            "/healthz",
            || async { "ok" },
            Operation::new("isAlive", "Does the process answer?").answers_text(200, "Yes"),
        ),
        Route::get(
            "/readyz",
            ready,
            Operation::new("isReady", "May this process be sent work, and what is not as it should be?")
                .answers::<ReadyResource>(200, "It may")
                .answers::<ReadyResource>(503, "It may not")
                .refuses(503, "It may not: Redis is a replica, or does not answer (problem details)"),
        ),
        Route::get(
            "/metrics",
            metrics_page,
            Operation::new("getMetrics", "Metrics for Prometheus").answers_text(200, "In its text format"),
        ),
    ]
}

/// The OpenAPI document of the internal listener.
#[must_use]
pub fn document(version: &str) -> Value {
    let description = "The internal listener of amazon-pay-ipn. Field names as Amazon spells them; money is a decimal string. \
                       A request that takes longer than 20 s gets 503 without a body. What is not here gets 404 or 405.";
    openapi::document("amazon-pay-ipn: internal API", description, version, &probes(), &api())
}

/// The router of the internal listener.
pub fn router(state: ApiState) -> Router {
    let add = |router: Router<ApiState>, route: Route<ApiState>| router.route(route.path, route.handler);
    let api = api().into_iter().fold(Router::new(), add).route_layer(from_fn_with_state(state.clone(), authorize));
    probes()
        .into_iter()
        .fold(Router::new().nest("/v1", api), add)
        .nest("/operator", page::router(state.clone()))
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
    // A Redis that hangs must not keep back the word that it does.
    let up = tokio::time::timeout(READING, gauge_redis(&state)).await.unwrap_or(false);
    metrics::gauge!(metric::REDIS_UP).set(if up { 1.0 } else { 0.0 });
    #[expect(clippy::cast_precision_loss, reason = "a count is far below 2^52")]
    metrics::gauge!(metric::TASKS).set(Handle::current().metrics().num_alive_tasks() as f64);
    state.0.metrics.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], state.0.metrics.render()).into_response()
}

/// Sets what Redis alone knows. False: it did not answer, and the last values stay.
async fn gauge_redis(state: &ApiState) -> bool {
    let store = &state.0.store;
    // At once: the time is for all of them.
    let (up, ..) = tokio::join!(
        gauge_levels(store),
        gauge_account(store),
        quota::gauge(store),
        state.0.groups.gauge(store),
        gauge_durability(store, state.0.accepted),
    );
    up
}

async fn gauge_levels(store: &Store) -> bool {
    let Ok(levels) = store.levels().await else { return false };
    let named = [
        ("events", levels.events),
        ("journal", levels.journal),
        ("quarantine", levels.quarantine),
        ("scheduled", levels.scheduled),
        ("forward", levels.forward),
    ];
    for (what, level) in named {
        #[expect(clippy::cast_precision_loss, reason = "a level is far below 2^52")]
        metrics::gauge!(metric::ENTRIES, "what" => what).set(level as f64);
    }
    #[expect(clippy::cast_precision_loss, reason = "as above")]
    metrics::gauge!(metric::DUE).set(levels.due as f64);
    metrics::gauge!(metric::OLDEST_DUE_SECONDS).set(levels.oldest_due.as_secs_f64());
    true
}

async fn gauge_account(store: &Store) {
    if let Ok(account) = store.account().await
        && let Some(since) = account.since_notification
    {
        metrics::gauge!(metric::SECONDS_SINCE_NOTIFICATION).set(since.as_secs_f64());
    }
}
