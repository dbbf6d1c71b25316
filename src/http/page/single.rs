//! One charge, one charge permission with its timeline, one entry of the quarantine.

use axum::extract::{Path, State};
use maud::{Markup, html};
use serde_json::{Value, json};

use super::actions::Verb;
use super::layout::{button, charge_link, charges_table, fields, page, permission_link, state_of, text, time};
use super::{Failed, Operator, PageState};
use crate::http::internal::ApiState;
use crate::http::problem::Problem;
use crate::http::{charge_permissions, charges, quarantine};
use crate::store::events::StoredEvent;

/// Events that are looked through for a timeline, the newest first.
const LOOKED_THROUGH: usize = 5_000;
/// Events that are read at a time.
const BATCH: usize = 500;
/// Lines of a timeline.
const LINES: usize = 60;

/// `GET /operator/charges/{id}`.
pub(super) async fn charge(
    State(state): State<PageState>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<Markup, Failed> {
    let id = charges::parse(&id)?;
    let charge = json!(charges::resource(&state.api, &id).await?);
    let ended = matches!(text(&charge, "state").as_str(), "captured" | "canceled" | "abandoned");
    let held = text(&charge, "state") == "held";
    let unverified = text(&charge, "outcome") == "unverified" && text(&charge, "resolvedAt").is_empty();
    let paused_by =
        |whom: &str| charge.get("pausedBy").and_then(Value::as_array).is_some_and(|by| by.iter().any(|by| by == whom));
    let paused = paused_by("charge");
    let body = html! {
        section {
            (fields(&charge, &["chargePermissionId"]))
            @if paused_by("charge_permission") { p { b { "Its charge permission is paused: resume that one, then what is due is sent." } } }
            p { "Of " (permission_link(&text(&charge, "chargePermissionId"))) ", where its timeline is." }
            @if !ended {
                div class="actions" {
                    (button(&operator, Verb::Retry, id.as_str()))
                    (button(&operator, if paused { Verb::Resume } else { Verb::Pause }, id.as_str()))
                    (button(&operator, Verb::Cancel, id.as_str()))
                }
            }
            @if held || unverified {
                p { @if held { "It is held until a person resolves it, after a look in Seller Central:" }
                    @else { "It has ended, and nobody is sure how. After a look in Seller Central:" } }
                div class="actions" {
                    (button(&operator, Verb::Found, id.as_str()))
                    (button(&operator, Verb::GiveUp, id.as_str()))
                    @if held { (button(&operator, Verb::Anew, id.as_str())) }
                }
            }
        }
    };
    Ok(page(&state.api, &operator, &format!("Charge {id}"), &body))
}

/// `GET /operator/permissions/{id}`: why things are as they are.
pub(super) async fn permission(
    State(state): State<PageState>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<Markup, Failed> {
    let id = charge_permissions::parse(&id)?;
    let permission = json!(charge_permissions::resource(&state.api, &id).await?);
    let open = permission.get("openCharges").and_then(Value::as_array).cloned().unwrap_or_default();
    let paused = permission.get("paused") == Some(&Value::Bool(true));
    let closed = permission.get("closed") == Some(&Value::Bool(true));
    let (timeline, whole) = timeline(&state.api, id.as_str()).await?;
    let body = html! {
        section {
            (fields(&permission, &["openCharges", "waitingNotifications"]))
            div class="actions" {
                (button(&operator, Verb::Reconcile, id.as_str()))
                (button(&operator, if paused { Verb::ResumePermission } else { Verb::PausePermission }, id.as_str()))
                @if !closed { (button(&operator, Verb::Close, id.as_str())) }
            }
        }
        section {
            h2 { "Open charges" }
            (charges_table(&open))
            @for charge in &open {
                p { (charge_link(&text(charge, "id"))) " (" (state_of(charge)) ") waits for " (text(charge, "waitsFor")) "." }
            }
        }
        section {
            h2 { "What was told" }
            @if timeline.is_empty() { p class="dim" { "Nothing." } }
            div class="scroll" { table { tbody {
                @for event in &timeline {
                    @let data: Value = serde_json::from_str(event.field("data")).unwrap_or_default();
                    tr {
                        td class="time" { (time(&json!({ "at": event.field("time") }), "at")) }
                        td { (short(event.field("type"))) }
                        td { (text(&data, "id")) }
                        td { (because(&data)) }
                    }
                }
            } } }
            @if !whole { p class="dim" { "Older events: " code { "amazon-pay-ipn events replay --permission " (id) } } }
        }
    };
    Ok(page(&state.api, &operator, &format!("Charge permission {id}"), &body))
}

/// `amazonpay.charge.declined.v1` as `charge declined`.
fn short(kind: &str) -> String {
    let kind = kind.strip_prefix("amazonpay.").unwrap_or(kind);
    kind.strip_suffix(".v1").unwrap_or(kind).replace(['.', '_'], " ")
}

/// What an event says about why.
fn because(data: &Value) -> String {
    let named = [
        ("reasonCode", ""),
        ("lastReason", "after "),
        ("why", ""),
        ("at", "at "),
        ("recoveredBy", "by "),
        ("chargeId", "as "),
        ("state", "state "),
        ("closedBy", "by "),
    ];
    let parts = named.map(|(name, before)| (before, text(data, name)));
    let parts = parts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(before, text)| format!("{before}{text}"));
    parts.collect::<Vec<_>>().join(", ")
}

/// The newest events of a permission, and whether there can be no others.
async fn timeline(state: &ApiState, permission: &str) -> Result<(Vec<StoredEvent>, bool), Problem> {
    let (mut lines, mut before, mut looked) = (Vec::new(), None, 0);
    while looked < LOOKED_THROUGH && lines.len() < LINES {
        let batch = state.0.store.newest_events(before, BATCH).await?;
        let Some(last) = batch.last() else { return Ok((lines, true)) };
        before = Some(last.entry);
        looked += batch.len();
        lines.extend(batch.into_iter().filter(|event| event.field("subject") == permission));
    }
    lines.truncate(LINES);
    Ok((lines, false))
}

/// `GET /operator/quarantine/{id}`.
pub(super) async fn quarantined(
    State(state): State<PageState>,
    operator: Operator,
    Path(id): Path<String>,
) -> Result<Markup, Failed> {
    let entry = json!(quarantine::resource(&state.api, &id).await?);
    let body = html! {
        section {
            (fields(&entry, &["body"]))
            div class="actions" { (button(&operator, Verb::Replay, &id)) (button(&operator, Verb::Drop, &id)) }
        }
        @if let Some(body) = entry.get("body").and_then(Value::as_str) {
            section { h2 { "As it was received" } pre { (body) } }
        }
    };
    Ok(page(&state.api, &operator, "Quarantined", &body))
}
