//! Lists: charges by state and reason, charge permissions by id, the quarantine.

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

use super::actions::Verb;
use super::layout::{button, charges_table, instant, page, permission_link, segment};
use super::{Failed, Operator, PageState};
use crate::http::charges::ChargeResource;
use crate::http::internal::ApiState;
use crate::http::problem::{FieldError, Problem};
use crate::model::charge_intent::Stage;
use crate::store::lists::{Cursor, Filter};
use crate::store::quarantine::{Aside, Quarantined};

/// Rows of a page.
const ROWS: usize = 50;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    state: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    unverified: String,
    cursor: Option<String>,
}

/// Charges as resources.
pub(super) async fn found(
    state: &ApiState,
    filter: &Filter,
    rows: usize,
    cursor: Option<Cursor>,
) -> Result<(Vec<serde_json::Value>, Option<Cursor>), Problem> {
    let found = state.0.store.list_charges(filter, rows, cursor).await?;
    let policies = &state.0.policies;
    let charges =
        found.charges.iter().map(|stored| json!(ChargeResource::new(&stored.intent, policies.of(&stored.intent))));
    Ok((charges.collect(), found.next))
}

/// `GET /operator/charges?state=&reason=&unverified=&cursor=`.
pub(super) async fn charges(
    State(state): State<PageState>,
    operator: Operator,
    Query(wanted): Query<Wanted>,
) -> Result<Markup, Failed> {
    let filter = Filter {
        state: Stage::NAMES.into_iter().find(|name| *name == wanted.state),
        reason: Some(wanted.reason.trim().to_owned()).filter(|reason| !reason.is_empty()),
        unverified: wanted.unverified == "yes",
        permission: None,
    };
    let cursor = wanted.cursor.as_deref().map(|text| Cursor::decode(text).ok_or_else(stale)).transpose()?;
    let (charges, next) = found(&state.api, &filter, ROWS, cursor).await?;
    let body = html! {
        form class="filter" method="get" action="/operator/charges" {
            select name="state" aria-label="state" {
                option value="" { "every state" }
                @for name in Stage::NAMES { option value=(name) selected[filter.state == Some(name)] { (name) } }
            }
            input name="reason" placeholder="reason, such as HardDeclined" aria-label="reason" value=(wanted.reason);
            label { input type="checkbox" name="unverified" value="yes" checked[filter.unverified]; " only unverified ends" }
            button { "Show" }
        }
        section {
            (charges_table(&charges))
            @if let Some(next) = next {
                p { a href=(format!(
                    "/operator/charges?state={}&reason={}&unverified={}&cursor={}",
                    filter.state.unwrap_or_default(), segment(&wanted.reason), segment(&wanted.unverified), segment(&next.encode())
                )) { "More" } }
            }
        }
    };
    Ok(page(&state.api, &operator, "Charges", &body))
}

fn stale() -> Problem {
    let message = "the place in the list is none: begin at its start".to_owned();
    Problem::Invalid(vec![FieldError { field: "cursor".to_owned(), message }])
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Sought {
    #[serde(default)]
    id: String,
}

/// `GET /operator/permissions?id=`: the way to one.
pub(super) async fn permissions(
    State(state): State<PageState>,
    operator: Operator,
    Query(Sought { id }): Query<Sought>,
) -> Response {
    if !id.trim().is_empty() {
        return Redirect::to(&format!("/operator/permissions/{}", segment(id.trim()))).into_response();
    }
    let body = html! {
        section {
            form class="filter" method="get" action="/operator/permissions" {
                input name="id" placeholder="S01-1234567-1234567" aria-label="charge permission" required autofocus;
                button class="sure" { "Show" }
            }
            p class="dim" { "Everything that is known of a charge permission, and why its charges stand where they stand." }
        }
    };
    page(&state.api, &operator, "Charge permissions", &body).into_response()
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct After {
    cursor: Option<String>,
}

/// `GET /operator/quarantine?cursor=`: the oldest first.
pub(super) async fn quarantine(
    State(state): State<PageState>,
    operator: Operator,
    Query(After { cursor }): Query<After>,
) -> Result<Markup, Failed> {
    let after = cursor.map(|text| text.parse().map_err(|_| stale())).transpose()?;
    let mut entries = state.api.0.store.quarantined(after, ROWS + 1).await?;
    let more = entries.len() > ROWS;
    entries.truncate(ROWS);
    let last = entries.last().filter(|_| more).map(|entry| entry.id.to_string());
    let body = html! {
        section {
            p class="dim" { "Genuine, and nothing that can be acted on. SNS was told 200: it is kept until somebody decides." }
            @if entries.is_empty() { p { "Empty." } }
            @else {
                div class="scroll" { table {
                    thead { tr { th { "Entry" } th { "Since (UTC)" } th { "Names" } th { "Reason" } th {} } }
                    tbody { @for entry in &entries { (row(&state.api, &operator, entry)) } }
                } }
            }
            @if let Some(last) = last { p { a href=(format!("/operator/quarantine?cursor={}", segment(&last))) { "More" } } }
        }
    };
    Ok(page(&state.api, &operator, "Quarantine", &body))
}

fn row(state: &ApiState, operator: &Operator, entry: &Quarantined) -> Markup {
    let id = entry.id.to_string();
    html! {
        tr {
            td { a href=(format!("/operator/quarantine/{}", segment(&id))) { (id) } }
            td class="time" { (instant(state.0.store.written_at(entry.id))) }
            td { @match &entry.what {
                Aside::Message { message_id, .. } => { "message " (message_id) }
                Aside::Hint { permission, hint } => { (hint.object_type.as_str()) " " (hint.object_id) " of " (permission_link(permission.as_str())) }
                Aside::Unreadable => { "cannot be read" }
            } }
            td { (entry.reason) }
            td { div class="actions" { (button(operator, Verb::Replay, &id)) (button(operator, Verb::Drop, &id)) } }
        }
    }
}
