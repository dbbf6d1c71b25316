//! `GET /v1/charges`: charges by state and reason, a page at a time.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::charges::ChargeResource;
use super::internal::ApiState;
use super::problem::{FieldError, Problem};
use crate::model::charge_intent::Stage;
use crate::store::lists::{Cursor, Filter};

/// Charges on a page, unless asked for otherwise.
const DEFAULT_LIMIT: usize = 50;
/// Charges on a page at most.
const MAX_LIMIT: usize = 200;
/// A longer reason is none of Amazon's.
const MAX_REASON_CHARS: usize = 100;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only charges in this state.
    #[schemars(extend("enum" = Stage::NAMES))]
    state: Option<String>,
    /// Only charges with this reason.
    #[schemars(extend("maxLength" = MAX_REASON_CHARS))]
    reason: Option<String>,
    /// `unverified`: ends that an operator has to look at.
    #[schemars(extend("enum" = ["unverified"]))]
    outcome: Option<String>,
    /// Only charges of this permission.
    charge_permission_id: Option<String>,
    /// Charges on a page, 1 to 200.
    // As text, so that what is no number is refused as what is out of bounds.
    #[schemars(with = "Option<u16>", range(min = 1, max = 200))]
    limit: Option<String>,
    /// The `nextCursor` of the page before.
    cursor: Option<String>,
}

/// A page of charges.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChargePage {
    charges: Vec<ChargeResource>,
    /// Give it as `cursor` for the next page; `null`: this is the last one.
    next_cursor: Option<String>,
}

/// `GET /v1/charges?state=&reason=&outcome=unverified&chargePermissionId=&limit=&cursor=`.
pub(super) async fn list(
    State(state): State<ApiState>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wanted) = wanted.map_err(|rejection| unreadable(&rejection.body_text()))?;
    let (filter, limit, cursor) = read(wanted)?;
    let page = state.0.store.list_charges(&filter, limit, cursor).await?;
    let policies = &state.0.policies;
    let shown = |intent| ChargeResource::new(intent, policies.of(intent));
    let charges: Vec<ChargeResource> = page.charges.iter().map(|stored| shown(&stored.intent)).collect();
    let next_cursor = page.next.map(|cursor| cursor.encode());
    Ok(Json(ChargePage { charges, next_cursor }).into_response())
}

fn wrong(field: &str, message: impl Into<String>) -> Problem {
    Problem::Invalid(vec![FieldError { field: field.to_owned(), message: message.into() }])
}

/// A parameter that is unknown or given twice; the name is in the message.
fn unreadable(text: &str) -> Problem {
    let message = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(text);
    let field = message.split("field `").nth(1).and_then(|rest| rest.split('`').next()).unwrap_or_default();
    let message = message.strip_prefix(field).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(message);
    wrong(field, message)
}

fn read(wanted: Wanted) -> Result<(Filter, usize, Option<Cursor>), Problem> {
    let mut filter = Filter::default();
    if let Some(state) = wanted.state {
        let known = Stage::NAMES.into_iter().find(|name| *name == state);
        let message = format!("expected one of {}", Stage::NAMES.join(", "));
        filter.state = Some(known.ok_or_else(|| wrong("state", message))?);
    }
    match wanted.outcome.as_deref() {
        None => {}
        Some("unverified") => filter.unverified = true,
        Some(_) => return Err(wrong("outcome", "expected unverified: ends that an operator has to look at")),
    }
    if let Some(reason) = wanted.reason {
        if reason.chars().count() > MAX_REASON_CHARS {
            return Err(wrong("reason", format!("expected at most {MAX_REASON_CHARS} characters")));
        }
        filter.reason = Some(reason);
    }
    if let Some(id) = wanted.charge_permission_id {
        let id =
            id.parse().map_err(|error: crate::model::ids::InvalidId| wrong("chargePermissionId", error.to_string()))?;
        filter.permission = Some(id);
    }
    let limit = wanted.limit.map_or(Some(DEFAULT_LIMIT), |text| text.parse().ok());
    let limit = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit));
    let limit = limit.ok_or_else(|| wrong("limit", format!("expected 1 to {MAX_LIMIT}")))?;
    let cursor = wanted
        .cursor
        .map(|text| Cursor::decode(&text).ok_or_else(|| wrong("cursor", "expected the nextCursor of an earlier page")));
    Ok((filter, limit, cursor.transpose()?))
}
