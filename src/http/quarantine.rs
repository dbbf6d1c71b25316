//! `/v1/quarantine`: genuine messages and hints that are kept for a person; look at them, replay them, drop them.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::internal::ApiState;
use super::problem::{FieldError, Problem};
use crate::ipn::{self, Ipn};
use crate::model::hint::{Hint, HintNote, ObjectType};
use crate::model::ids::{ChargePermissionId, ObjectId};
use crate::sns::{Content, Envelope};
use crate::store::events::EntryId;
use crate::store::quarantine::{Aside, Quarantined, Replayed};

/// Entries on a page, unless asked for otherwise.
const DEFAULT_LIMIT: usize = 50;
/// Entries on a page at most.
const MAX_LIMIT: usize = 200;

/// The parameters of the list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Wanted {
    /// Entries on a page: 1 to 200, 50 if nothing is said.
    // As text, so that what is no number is refused as what is out of bounds.
    limit: Option<String>,
    /// The `nextCursor` of an earlier page.
    cursor: Option<String>,
}

/// What is kept aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// A message that was verified when it came.
    Message,
    /// An object that Amazon refused to show, or that was put aside for another reason.
    Hint,
    /// Neither: this version cannot read it.
    Unreadable,
}

/// An entry as the API shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "QuarantineEntry")]
pub(super) struct QuarantineResource {
    /// The id of the entry, such as `1769767200000-0`.
    id: String,
    since: Timestamp,
    /// Why it is kept.
    reason: String,
    kind: Kind,
    /// SNS `MessageId`, where a message is behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_permission_id: Option<ChargePermissionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_type: Option<ObjectType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_id: Option<ObjectId>,
    /// The message as it was received; only where one entry is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

/// A page of entries, the oldest first.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QuarantinePage {
    entries: Vec<QuarantineResource>,
    /// Where the next page begins; `null` at the end.
    next_cursor: Option<String>,
}

/// What a replay has looked at.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Replayed")]
pub(super) struct ReplayResource {
    /// The id that the entry had.
    id: String,
    charge_permission_id: ChargePermissionId,
    object_type: ObjectType,
    object_id: ObjectId,
}

impl QuarantineResource {
    fn new(entry: Quarantined, since: Timestamp, with_body: bool) -> Self {
        let mut resource = Self {
            id: entry.id.to_string(),
            since,
            reason: entry.reason,
            kind: Kind::Unreadable,
            message_id: None,
            topic_arn: None,
            published_at: None,
            charge_permission_id: None,
            object_type: None,
            object_id: None,
            body: None,
        };
        match entry.what {
            Aside::Message { message_id, topic_arn, published_at, body } => {
                resource.kind = Kind::Message;
                resource.message_id = Some(message_id);
                resource.topic_arn = Some(topic_arn);
                resource.published_at = Some(published_at);
                resource.body = with_body.then_some(body);
            }
            Aside::Hint { permission, hint } => {
                resource.kind = Kind::Hint;
                resource.message_id = Some(hint.note.message_id).filter(|id| !id.is_empty());
                resource.published_at = Some(hint.note.published_at.to_string());
                resource.charge_permission_id = Some(permission);
                resource.object_type = Some(hint.object_type);
                resource.object_id = Some(hint.object_id);
            }
            Aside::Unreadable => {}
        }
        resource
    }
}

/// `GET /v1/quarantine?limit=&cursor=`: the oldest first.
pub(super) async fn list(
    State(state): State<ApiState>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wanted) = wanted.map_err(|rejection| wrong("query", rejection.body_text()))?;
    let limit = wanted.limit.map_or(Some(DEFAULT_LIMIT), |text| text.parse().ok());
    let limit = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit));
    let limit = limit.ok_or_else(|| wrong("limit", format!("expected 1 to {MAX_LIMIT}")))?;
    let after = wanted.cursor.map(|text| text.parse::<EntryId>());
    let after = after.transpose().map_err(|error| wrong("cursor", error))?;
    let mut entries = state.0.store.quarantined(after, limit + 1).await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more).map(|entry| entry.id.to_string());
    let entries = entries.into_iter().map(|entry| shown(&state, entry, false)).collect();
    Ok(Json(QuarantinePage { entries, next_cursor: next }).into_response())
}

/// `GET /v1/quarantine/{id}`: with the message as it was received.
pub(super) async fn show(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(Json(resource(&state, &id).await?).into_response())
}

/// An entry as `GET` shows it.
pub(super) async fn resource(state: &ApiState, id: &str) -> Result<QuarantineResource, Problem> {
    Ok(shown(state, entry(state, parse(id)?).await?, true))
}

/// `DELETE /v1/quarantine/{id}`: gone for good. 200 with what it was; 404 if it is not there (any more).
pub(super) async fn discard(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    let entry = entry(&state, parse(&id)?).await?;
    if !state.0.store.drop_quarantined(entry.id).await? {
        return Err(missing());
    }
    warn!(entry = %entry.id, reason = entry.reason, "an entry of the quarantine was dropped");
    Ok(Json(shown(&state, entry, true)).into_response())
}

/// `POST /v1/quarantine/{id}/replay`: its object is looked at now, and the entry is gone. 202; 409 if it still names nothing that can be
/// looked at.
///
/// Neither the signature nor the topic is checked again: only verified messages come into the quarantine, and after a year the certificate
/// of an old one may have expired. What is believed of one is that something is to be looked at.
pub(super) async fn replay(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    let entry = entry(&state, parse(&id)?).await?;
    let (permission, hint) = match &entry.what {
        Aside::Message { message_id, body, .. } => named(&state, message_id, body)?,
        Aside::Hint { permission, hint } => {
            // Its publication stays: it is evidence of what had changed by then, and of nothing later. A parked charge would be released.
            let note = HintNote { refusals: 0, not_before: None, swept_since: None, ..hint.note.clone() };
            (permission.clone(), Hint { note, ..hint.clone() })
        }
        Aside::Unreadable => {
            return Err(Problem::Conflict(
                "the entry cannot be read by this version: look at it in Redis, or drop it".to_owned(),
            ));
        }
    };
    match state.0.store.replay_quarantined(entry.id, &permission, &hint).await? {
        Replayed::Yes => {}
        Replayed::Gone => return Err(missing()),
    }
    warn!(entry = %entry.id, %permission, object = %hint.object_id, "an entry of the quarantine was replayed");
    let body = ReplayResource {
        id: entry.id.to_string(),
        charge_permission_id: permission,
        object_type: hint.object_type,
        object_id: hint.object_id,
    };
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

/// What a kept message names, as this version reads it: an earlier one may not have understood it.
fn named(state: &ApiState, message_id: &str, body: &str) -> Result<(ChargePermissionId, Hint), Problem> {
    let conflict = |why: String| Problem::Conflict(format!("there is nothing to look at: {why}; drop it"));
    let envelope = Envelope::parse(body.as_bytes()).map_err(|error| conflict(error.to_string()))?;
    if !matches!(envelope.content, Content::Notification { .. }) {
        return Err(conflict("it is a confirmation of SNS, no notification".to_owned()));
    }
    match ipn::parse(&envelope.message, &state.0.account.merchant) {
        Ok(Ipn::Notification(notification)) => {
            let note = HintNote {
                message_id: message_id.to_owned(),
                published_at: envelope.timestamp,
                refusals: 0,
                not_before: None,
                swept_since: None,
                for_intent: None,
            };
            let hint = Hint { object_type: notification.object_type, object_id: notification.object_id, note };
            Ok((notification.charge_permission_id, hint))
        }
        Ok(Ipn::Test) => Err(conflict("it is a test of the connection".to_owned())),
        Err(why) => Err(conflict(why.to_string())),
    }
}

fn shown(state: &ApiState, entry: Quarantined, with_body: bool) -> QuarantineResource {
    let since = state.0.store.written_at(entry.id);
    QuarantineResource::new(entry, since, with_body)
}

async fn entry(state: &ApiState, id: EntryId) -> Result<Quarantined, Problem> {
    state.0.store.quarantined_entry(id).await?.ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::NotFound("entry of the quarantine")
}

fn parse(id: &str) -> Result<EntryId, Problem> {
    id.parse().map_err(|error: &str| wrong("id", error))
}

fn wrong(field: &str, message: impl Into<String>) -> Problem {
    Problem::Invalid(vec![FieldError { field: field.to_owned(), message: message.into() }])
}
