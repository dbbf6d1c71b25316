//! `/v1/charges`: submit, look at and cancel charge intents. Lists are in `charge_list`, retries and pauses in `charge_actions`, what an
//! operator resolves in `resolve`. Field names as Amazon spells them.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use tracing::info;

use super::charge_body;
use super::internal::ApiState;
use super::problem::{FieldError, Problem};
use super::quota::{WaitingForQuota, waiting_for_quota};
use crate::model::capture::CaptureWish;
use crate::model::charge_intent::{ChargeIntent, Outcome, Park, Stage};
use crate::model::ids::{IntentId, PolicyName};
use crate::model::money::Money;
use crate::recovery::authorization::expires_at;
use crate::recovery::draft::Draft;
use crate::recovery::due::due;
use crate::recovery::handover::{Asked, first_plan};
use crate::recovery::policies::Policies;
use crate::recovery::policy::Policy;
use crate::store::charges::{Canceled, Declared, Plan, Submission, Submitted};

/// A charge intent as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Charge")]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of its own for callers")]
pub struct ChargeResource {
    id: IntentId,
    charge_permission_id: String,
    charge_amount: Money,
    capture_now: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<PolicyName>,
    /// Where it stands.
    #[schemars(extend("enum" = Stage::NAMES))]
    state: &'static str,
    /// The current number; every `charge.*` event carries it.
    number: u32,
    /// `fresh`, `unknown` or `answered`.
    #[schemars(extend("enum" = ["fresh", "unknown", "answered"]))]
    number_status: &'static str,
    /// Attempts that count: declines so far, and the one that was captured; as in events.
    attempts: u32,
    submitted_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<Timestamp>,
    #[serde(flatten)]
    park: Option<ParkResource>,
    /// Why it is where it is: what Amazon said, or a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<String>,
    /// What was heard before it came where it is, such as the decline before a capture.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_id: Option<String>,
    /// When the authorisation lapses.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<CaptureResource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    canceling: bool,
    /// Whether a retry was asked for that is not planned yet.
    retrying: bool,
    may_still_charge: bool,
    #[serde(flatten)]
    pause: Pauses,
    /// When an operator resolved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved_at: Option<Timestamp>,
    /// Present while the permission waits for Amazon's quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for_quota: Option<WaitingForQuota>,
}

/// For whom a charge is parked, since when and until when.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ParkResource {
    /// `instrument`: the buyer must update it; `attention`: a person must look.
    #[schemars(extend("enum" = ["instrument", "attention"]))]
    parked_for: &'static str,
    parked_since: Timestamp,
    /// When it is given up, as things are. Later with all time that its window stands still.
    parked_until: Timestamp,
    /// Where the buyer updates the instrument.
    #[serde(skip_serializing_if = "Option::is_none")]
    update_url: Option<String>,
}

impl ParkResource {
    fn of(intent: &ChargeIntent, policy: &Policy) -> Option<Self> {
        let Stage::Parked { since, park } = intent.stage() else { return None };
        let by_the_buyer = matches!(park, Park::Instrument { .. });
        Some(Self {
            parked_for: if by_the_buyer { "instrument" } else { "attention" },
            parked_since: *since,
            parked_until: policy.attempts_end(intent),
            update_url: by_the_buyer.then(|| policy.update_link(intent)),
        })
    }
}

/// Whether, since when and by what a charge is paused.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Pauses {
    /// Whether nothing is sent for it until somebody resumes it, or its permission.
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_since: Option<Timestamp>,
    /// `charge`, `charge_permission`, or both: each is resumed by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paused_by: Vec<&'static str>,
}

impl From<&ChargeIntent> for Pauses {
    fn from(intent: &ChargeIntent) -> Self {
        let wishes = &intent.wishes;
        let pauses = [(wishes.paused_since, "charge"), (wishes.permission_paused_since, "charge_permission")];
        let pauses = pauses.into_iter().filter_map(|(since, by)| Some((since?, by)));
        // What has ended is not paused, whatever holds for its permission.
        let pauses: Vec<_> = pauses.filter(|_| !intent.stage().is_terminal()).collect();
        Self {
            paused: !pauses.is_empty(),
            paused_since: pauses.iter().map(|(since, _)| *since).min(),
            paused_by: pauses.iter().map(|(_, by)| *by).collect(),
        }
    }
}

/// The capture that was asked for, as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Capture")]
struct CaptureResource {
    #[serde(flatten)]
    wish: CaptureWish,
    /// The number of the capture; its events carry it as `captureNumber`.
    number: u32,
    /// `fresh`, `unknown` or `answered`.
    #[schemars(extend("enum" = ["fresh", "unknown", "answered"]))]
    number_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<Timestamp>,
}

impl CaptureResource {
    fn of(intent: &ChargeIntent) -> Option<Self> {
        let capture = intent.capture.as_ref()?;
        let waits = matches!(intent.stage(), Stage::Authorized { .. });
        Some(Self {
            wish: capture.wish.clone()?,
            number: capture.number.value,
            number_status: capture.number.status.as_str(),
            next_attempt_at: intent.capture_due().filter(|_| waits),
        })
    }
}

impl ChargeResource {
    /// `policy` is the one of the charge.
    pub(super) fn new(intent: &ChargeIntent, policy: &Policy) -> Self {
        let stage = intent.stage();
        Self {
            id: intent.id.clone(),
            charge_permission_id: intent.request.charge_permission_id.to_string(),
            charge_amount: intent.request.charge_amount,
            capture_now: intent.request.capture_now,
            policy: intent.policy.clone(),
            state: stage.name(),
            number: intent.number.value,
            number_status: intent.number.status.as_str(),
            attempts: intent.attempts(),
            submitted_at: intent.submitted_at,
            next_attempt_at: match stage {
                Stage::Scheduled { at, .. } => Some(*at),
                _ => None,
            },
            park: ParkResource::of(intent, policy),
            reason_code: intent.reason().map(str::to_owned),
            last_reason: intent.earlier_reason().map(str::to_owned),
            charge_id: intent.progress.charge.as_ref().map(ToString::to_string),
            expires_at: expires_at(intent),
            capture: CaptureResource::of(intent),
            outcome: stage.outcome(),
            canceling: intent.cancel_requested_at.is_some() && !stage.is_terminal(),
            retrying: intent.wishes.retry.is_some_and(|retry| !retry.done) && !stage.is_terminal(),
            may_still_charge: intent.may_still_charge(),
            pause: intent.into(),
            resolved_at: intent.wishes.resolved_at,
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
    let draft = plan(&submission, &inner.policies, inner.clock.now())?;
    let intent = &draft.intent;
    let due = due(intent, inner.policies.of(intent)).unwrap_or(intent.submitted_at);
    crash_point!(SubmitBefore);
    let submitted = inner.store.submit_charge(&submission, &Plan { intent, due, events: &draft.events }).await?;
    crash_point!(SubmitAfter);
    info!(intent = %id, permission = %submission.request.charge_permission_id, ?submitted, "charge submitted");
    let status = if known(&id, submitted)? { StatusCode::OK } else { StatusCode::ACCEPTED };
    let resource = resource(&state, &id).await?;
    Ok((status, Json(resource)).into_response())
}

/// Whether a charge was submitted before, or why it is not taken.
fn known(id: &IntentId, submitted: Submitted) -> Result<bool, Problem> {
    let refused = match submitted {
        Submitted::Accepted | Submitted::Held | Submitted::Resumed => return Ok(false),
        Submitted::Same => return Ok(true),
        Submitted::Conflict => format!("the id {id} was used with another body; an id names one charge for ever"),
        Submitted::Contradicted => {
            "numbers beyond the declared one were used: give the number of the last charge.attempted, or neither"
                .to_owned()
        }
        Submitted::Closing => "the closing of this charge permission was asked for".to_owned(),
        Submitted::TooMany => "this charge permission has too many open charges".to_owned(),
    };
    Err(Problem::Conflict(refused))
}

/// What a submission would come to.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ChargeCheck")]
pub(super) struct CheckResource {
    /// Whether it was submitted before, with the same body: then submitting it changes nothing.
    known: bool,
    /// Whether it would be held for a person, because data were lost.
    held: bool,
    /// Whether the charge permission is known to be closed: then it would be given up at the first look.
    permission_closed: bool,
    /// As it is if it is known, else as it would be.
    charge: ChargeResource,
}

/// `POST /v1/charge-checks`: everything that `POST /v1/charges` checks, and nothing is stored.
pub(super) async fn check(
    State(state): State<ApiState>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let inner = &state.0;
    let body = body.map_err(Problem::Unreadable)?;
    let now = inner.clock.now();
    let submission = charge_body::read(&body, &inner.account, &inner.policies, now).map_err(Problem::Invalid)?;
    let draft = plan(&submission, &inner.policies, now)?;
    let prospect = inner.store.prospect(&submission).await?;
    let known = known(&submission.id, prospect.submitted)?;
    let charge = if known {
        resource(&state, &submission.id).await?
    } else {
        ChargeResource::new(&draft.intent, inner.policies.of(&draft.intent))
    };
    let held = prospect.submitted == Submitted::Held;
    Ok(Json(CheckResource { known, held, permission_closed: prospect.closed, charge }).into_response())
}

/// The first plan: decided here, stored with the submission.
fn plan(submission: &Submission, policies: &Policies, now: Timestamp) -> Result<Draft, Problem> {
    let asked = Asked {
        id: &submission.id,
        request: &submission.request,
        policy: submission.policy.as_ref(),
        not_before: submission.not_before,
        last_number: match submission.declared {
            Declared::LastNumber(number) => Some(number),
            Declared::Nothing | Declared::New => None,
        },
        declined: submission.handed_over.as_ref(),
    };
    first_plan(&asked, policies, now).map_err(|error| {
        Problem::Invalid(vec![FieldError { field: "declined".to_owned(), message: error.to_string() }])
    })
}

/// `GET /v1/charges/{id}`.
pub(super) async fn show(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = parse(&id)?;
    Ok(Json(resource(&state, &id).await?).into_response())
}

/// `DELETE /v1/charges/{id}`: 200 when final, 202 when a charge may still come of it.
pub(super) async fn cancel(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = parse(&id)?;
    crash_point!(CancelBefore);
    let canceled = state.0.store.cancel_charge(&id).await?;
    crash_point!(CancelAfter);
    info!(intent = %id, ?canceled, "cancellation asked for");
    match canceled {
        Canceled::Done => Ok(Json(resource(&state, &id).await?).into_response()),
        Canceled::Pending => Ok((StatusCode::ACCEPTED, Json(resource(&state, &id).await?)).into_response()),
        Canceled::Ended(ended) => Err(Problem::Conflict(format!("the charge has ended: {ended}"))),
        Canceled::Unknown => Err(Problem::NotFound("charge")),
    }
}

pub(super) async fn resource(state: &ApiState, id: &IntentId) -> Result<ChargeResource, Problem> {
    match state.0.store.charge(id).await? {
        Some(stored) => {
            let intent = &stored.intent;
            let waiting_for_quota = if intent.stage().is_terminal() {
                None
            } else {
                waiting_for_quota(&state.0.store, &intent.request.charge_permission_id).await?
            };
            Ok(ChargeResource { waiting_for_quota, ..ChargeResource::new(intent, state.0.policies.of(intent)) })
        }
        None => Err(Problem::NotFound("charge")),
    }
}

pub(super) fn parse(id: &str) -> Result<IntentId, Problem> {
    id.parse().map_err(|error: crate::model::ids::InvalidId| {
        Problem::Invalid(vec![FieldError { field: "id".to_owned(), message: error.to_string() }])
    })
}
