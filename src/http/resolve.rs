//! `POST /v1/charges/{id}/resolve`: an operator says what became of a charge that is held, or of an end that is unverified.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use tracing::warn;

use super::charges::{parse, resource};
use super::internal::ApiState;
use super::problem::{FieldError, Problem};
use crate::model::charge_intent::{ChargeIntent, Outcome, Stage};
use crate::model::ids::{ChargeId, IntentId, InvalidId};
use crate::recovery::wishes::{Unresolvable, give_up, new_number};
use crate::store::actions::{Resolution, Resolved};
use crate::store::charges::StoredIntent;

/// Tries of a resolution that another writer overtakes.
const TRIES: usize = 5;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "as", rename_all = "snake_case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(super) enum ResolveBody {
    Captured { charge_id: String },
    Abandoned {},
    NewNumber { confirm: String },
}

impl From<Unresolvable> for Problem {
    fn from(why: Unresolvable) -> Self {
        Self::Conflict(why.to_string())
    }
}

/// `POST /v1/charges/{id}/resolve`.
pub(super) async fn resolve(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let id = parse(&id)?;
    let body = body.map_err(Problem::Unreadable)?;
    let wanted: ResolveBody = serde_json::from_slice(&body).map_err(|error| {
        wrong("as", format!("expected captured with chargeId, abandoned, or new_number with confirm: {error}"))
    })?;
    match wanted {
        ResolveBody::Captured { charge_id } => captured(&state, &id, &charge_id).await,
        ResolveBody::Abandoned {} => decided(&state, &id, Resolution::Abandoned).await,
        ResolveBody::NewNumber { confirm } => {
            let sentence = sentence(id.as_str());
            if confirm != sentence {
                let message = format!("look in Seller Central, and if there is no charge for it, type: {sentence}");
                return Err(wrong("confirm", message));
            }
            decided(&state, &id, Resolution::NewNumber).await
        }
    }
}

/// What has to be typed before a new number: it names the charge, so that it is not pasted for another one.
pub(super) fn sentence(id: &str) -> String {
    format!("Seller Central shows no charge for {id}")
}

fn wrong(field: &str, message: impl Into<String>) -> Problem {
    Problem::Invalid(vec![FieldError { field: field.to_owned(), message: message.into() }])
}

async fn read(state: &ApiState, id: &IntentId) -> Result<StoredIntent, Problem> {
    state.0.store.charge(id).await?.ok_or(Problem::NotFound("charge"))
}

fn is_unverified(intent: &ChargeIntent) -> bool {
    intent.stage().outcome() == Some(Outcome::Unverified)
}

/// Nothing is believed: the charge is read at Amazon and matched, like one that a notification names.
async fn captured(state: &ApiState, id: &IntentId, charge: &str) -> Result<Response, Problem> {
    let charge: ChargeId = charge.parse().map_err(|error: InvalidId| wrong("chargeId", error.to_string()))?;
    let intent = read(state, id).await?.intent;
    let permission = &intent.request.charge_permission_id;
    let of_it = charge.as_str().strip_prefix(permission.as_str()).is_some_and(|rest| rest.starts_with('-'));
    if !of_it {
        return Err(wrong("chargeId", format!("expected a charge of {permission}: its id begins with that")));
    }
    if !matches!(intent.stage(), Stage::Held { .. }) && !is_unverified(&intent) {
        return Err(Unresolvable::NotHeld(intent.stage().name()).into());
    }
    crash_point!(ResolveBefore);
    state.0.store.claim_charge(&intent, &charge).await?;
    crash_point!(ResolveAfter);
    warn!(intent = %id, %charge, "an operator names the charge of an intent: it is read at Amazon");
    let resource = resource(state, id).await?;
    Ok((StatusCode::ACCEPTED, Json(resource)).into_response())
}

async fn decided(state: &ApiState, id: &IntentId, wanted: Resolution) -> Result<Response, Problem> {
    let inner = &state.0;
    for _ in 0..TRIES {
        let stored = read(state, id).await?;
        let (intent, now) = (&stored.intent, inner.clock.now());
        let (resolution, draft) = match wanted {
            Resolution::Abandoned if is_unverified(intent) => (Resolution::Seen, None),
            Resolution::Abandoned | Resolution::Seen => (Resolution::Abandoned, Some(give_up(intent, now)?)),
            Resolution::NewNumber => (Resolution::NewNumber, Some(new_number(intent, inner.policies.of(intent), now)?)),
        };
        let becomes = draft.as_ref().map_or(intent, |draft| &draft.intent);
        let events = draft.as_ref().map_or(&[][..], |draft| &draft.events);
        crash_point!(ResolveBefore);
        let resolved = inner.store.resolve_charge(&stored, resolution, becomes, events).await?;
        crash_point!(ResolveAfter);
        match resolved {
            Resolved::Yes => {
                warn!(intent = %id, ?resolution, "an operator resolved a charge");
                return Ok(Json(resource(state, id).await?).into_response());
            }
            Resolved::Changed => {}
            Resolved::Busy => return Err(busy()),
            Resolved::TooSoon(from) => return Err(Unresolvable::TooSoon(from).into()),
        }
    }
    Err(busy())
}

fn busy() -> Problem {
    Problem::Conflict("the charge permission is being looked at just now: try again in a minute".to_owned())
}
