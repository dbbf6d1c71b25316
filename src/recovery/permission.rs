//! What changed about a charge permission since the last look, and what is told about it.

use jiff::Timestamp;
use serde_json::json;

use super::draft::{About, kind_text, reengage};
use crate::model::event::{Event, EventType};
use crate::model::ids::{ChargePermissionId, Environment, IntentId};
use crate::model::permission::{Look, PermissionKind, PermissionRecord, PermissionState, PermissionView};

/// What a look's events depend on besides the look.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// Whether a notification named the permission.
    pub heard: bool,
    /// The charges that have not ended.
    pub open: &'a [IntentId],
}

/// What the events of a charge say about its permission, so far as we know it.
#[must_use]
pub fn about(record: &PermissionRecord, closed: bool) -> About {
    let by = closed.then(|| closed_by(&record.reasons));
    About { kind: record.kind.clone(), closed_by: by, reasons: record.reasons.clone() }
}

/// Brings the record up to date and returns what is to be told.
pub fn observe(
    record: &mut PermissionRecord,
    permission: &ChargePermissionId,
    look: &Look,
    told: &Told<'_>,
    now: Timestamp,
) -> Vec<Event> {
    let Some(view) = look.view() else {
        return unseen(record, permission, look);
    };
    let mut events = Vec::new();
    let first_look = record.state.is_none();
    let changed = record.state.as_ref() != Some(&view.state) || record.reasons != view.reasons;
    // A first look that finds an ordinary permission is no news, unless somebody told us to look.
    if changed && (!first_look || told.heard || view.state != PermissionState::Chargeable) {
        events.push(state_event(permission, view, told.open));
    }
    events.extend(not_understood(record, permission, view));
    if let (Some(before), Some(after)) = (&record.instrument, &view.instrument)
        && before != after
    {
        let data = json!({ "chargePermissionId": permission, "chargePermissionType": kind_text(view.kind.as_ref()) });
        events.push(Event::new(EventType::InstrumentUpdated, &data));
    }
    record.state = Some(view.state.clone());
    record.reasons.clone_from(&view.reasons);
    record.kind.clone_from(&view.kind);
    if view.instrument.is_some() {
        record.instrument.clone_from(&view.instrument);
    }
    record.looked_at = Some(now);
    record.failed_looks = 0;
    record.account_fault = false;
    record.refusal_told = false;
    record.acted = false;
    if view.state == PermissionState::Closed {
        record.closed_at = record.closed_at.or(Some(now));
    }
    events
}

/// What a look shows that this version does not know: told when it appears, not with every look. Nothing new is charged meanwhile, which
/// the gate before each number sees to.
fn not_understood(record: &PermissionRecord, permission: &ChargePermissionId, view: &PermissionView) -> Vec<Event> {
    let facts = || {
        json!({
            "chargePermissionId": permission,
            "chargePermissionType": kind_text(view.kind.as_ref()),
            "state": view.state,
            "reasonCodes": view.reasons,
        })
    };
    let mut events = Vec::new();
    if view.unknown_reasons().any(|reason| !record.reasons.iter().any(|known| known == reason)) {
        let message = "Amazon gives a reason for the state of a charge permission that is not known here";
        events.push(Event::attention("unknown_permission_reason", message, facts()));
    }
    if view.unknown_kind().is_some() && record.kind != view.kind {
        let message = "Amazon reports a kind of charge permission that is not known here: it is not charged";
        events.push(Event::attention("unknown_permission_kind", message, facts()));
    }
    events
}

/// Nothing was seen. A fault of the account is told of for the account; what is refused to this permission alone is told of once.
fn unseen(record: &mut PermissionRecord, permission: &ChargePermissionId, look: &Look) -> Vec<Event> {
    if matches!(look, Look::Failed | Look::AccountFault | Look::Refused) {
        record.failed_looks = record.failed_looks.saturating_add(1);
    }
    record.account_fault |= matches!(look, Look::AccountFault | Look::Refused);
    if *look != Look::Refused || std::mem::replace(&mut record.refusal_told, true) {
        return Vec::new();
    }
    let message = "Amazon refuses this charge permission, and no other: is it this merchant's? Its charges wait";
    vec![Event::attention("permission_refused", message, json!({ "chargePermissionId": permission }))]
}

/// Whether a permission lives in another environment than ours. It is never charged.
#[must_use]
pub fn is_foreign(view: &PermissionView, ours: Environment) -> bool {
    view.release_environment.is_some_and(|theirs| theirs != ours)
}

fn state_event(permission: &ChargePermissionId, view: &PermissionView, open: &[IntentId]) -> Event {
    let mut data = json!({
        "chargePermissionId": permission,
        "chargePermissionType": kind_text(view.kind.as_ref()),
        "state": view.state,
        "reasonCodes": view.reasons,
    });
    let kind = match &view.state {
        PermissionState::Chargeable => EventType::PermissionChargeable,
        PermissionState::NonChargeable => EventType::PermissionNonChargeable,
        PermissionState::Closed => {
            data["closedBy"] = json!(closed_by(&view.reasons));
            data["openCharges"] = json!(open);
            // A completed order needs nothing.
            if is_order_completed(view) {
                data["orderCompleted"] = json!(true);
            } else {
                data["whatToDo"] = json!(reengage(view.kind.as_ref()));
            }
            EventType::PermissionClosed
        }
        PermissionState::Other(_) => {
            return Event::attention(
                "unknown_permission_state",
                "Amazon reports a charge permission state that is not known here",
                data,
            );
        }
    };
    Event::new(kind, &data)
}

/// Who closed a permission. Amazon spells the reasons in two ways.
/// Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/charge-permission.html>.
#[must_use]
pub fn closed_by(reasons: &[String]) -> &'static str {
    for reason in reasons {
        match reason.as_str() {
            "BuyerCanceled" | "BuyerClosed" => return "buyer",
            "MerchantCanceled" | "MerchantClosed" => return "merchant",
            "AmazonCanceled" | "AmazonClosed" => return "amazon",
            "Expired" => return "expiry",
            _ => {}
        }
    }
    "unknown"
}

/// Whether a one-time permission is closed because its order is complete: nothing was canceled.
fn is_order_completed(view: &PermissionView) -> bool {
    view.kind == Some(PermissionKind::OneTime) && view.reasons.iter().any(|reason| reason == "AmazonClosed")
}
