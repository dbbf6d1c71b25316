//! What a commit hands to its script, as JSON. Everything that is stored as text is text here already: the script copies it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::captures::capture_change;
use super::lists::entry_of;
use super::millis;
use super::reconciliations::{Claim, Commit, HintChange};
use super::record::time_text;
use super::versions::{Texts, carried};
use crate::model::charge_intent::{ChargeIntent, Outcome, Stage};
use crate::model::event::Event;
use crate::model::hint::Hint;
use crate::model::ids::ChargePermissionId;

/// The payload of `commit_reconciliation.lua`, without what `give_back` adds.
pub(super) fn payload(claim: &Claim, commit: &Commit<'_>) -> Value {
    let (permission, texts) = (&claim.permission, &claim.texts);
    let hints: Vec<Value> =
        commit.hints.iter().map(|(hint, seen, change)| hint_change(permission, hint, seen, change)).collect();
    let intents: Vec<Value> =
        commit.intents.iter().map(|(intent, due, events)| intent_change(intent, texts, *due, events)).collect();
    json!({
        "record": carried(&texts.record, commit.record),
        "closed": if commit.closed { "1" } else { "0" },
        "not_before": time_text(commit.not_before),
        "hints_due": time_text(commit.hints_due),
        "events": commit.events,
        "hints": hints,
        "intents": intents,
        "held_back": if commit.held_back { "1" } else { "0" },
        "look_asked": commit.look_asked.unwrap_or_default(),
        "unheard": commit.unheard.as_ref().map_or(json!(""), |unheard| json!({
            "found": unheard.found,
            "changes": unheard.changes,
            "span": millis(unheard.span),
            "type": unheard.event.kind,
            "data": unheard.event.data,
        })),
    })
}

fn hint_change(permission: &ChargePermissionId, hint: &Hint, seen: &str, change: &HintChange) -> Value {
    let note = json!(hint.note).to_string();
    match change {
        HintChange::Done => json!({ "field": hint.field(), "seen": seen, "fate": "done" }),
        HintChange::Defer(note) => {
            // The wake number and the publication stay: only the note changes.
            let mut parts = seen.splitn(3, ' ');
            let (wake, published) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
            let value = format!("{wake} {published} {}", carried(parts.next().unwrap_or_default(), note));
            json!({ "field": hint.field(), "seen": seen, "fate": "defer", "value": value })
        }
        HintChange::Quarantine(reason) => json!({
            "field": hint.field(), "seen": seen, "fate": "quarantine", "reason": reason, "value": note,
            "data": json!({
                "messageId": hint.note.message_id,
                "chargePermissionId": permission,
                "objectType": hint.object_type,
                "objectId": hint.object_id,
                "reason": reason,
            }).to_string(),
        }),
    }
}

fn intent_change(intent: &ChargeIntent, texts: &Texts, due: Option<Timestamp>, events: &[Event]) -> Value {
    let number = &intent.number;
    let outcome = match intent.stage().outcome() {
        None => "",
        Some(Outcome::Verified) => "verified",
        Some(Outcome::Unverified) => "unverified",
    };
    let charge = match intent.stage() {
        Stage::Captured { charge, .. } | Stage::Authorized { charge, .. } | Stage::Pending { charge, .. } => {
            charge.as_str()
        }
        _ => "",
    };
    let mut written = json!({
        "id": intent.id,
        "state": intent.stage().name(),
        "outcome": outcome,
        "charge": charge,
        "progress": texts.progress(&intent.id, &intent.progress),
        "due": time_text(due),
        "entry": entry_of(intent),
        "retry": retry_done(intent),
        "events": events,
        "number": {
            "value": number.value.to_string(),
            "status": number.status.as_str(),
            "sends": number.sends.to_string(),
            "first_mark": time_text(number.first_mark),
            "last_mark": time_text(number.last_mark),
            "tainted": if number.tainted { "1" } else { "0" },
            "instrument": number.instrument.as_ref().map_or(json!(""), |digest| json!(digest)),
        },
    });
    // Absent where the claim read none: what a wish that came in since has written stays.
    if let Some(capture) = &intent.capture {
        written["capture"] = capture_change(capture);
    }
    written
}

/// The wish to retry that the decision has seen to.
fn retry_done(intent: &ChargeIntent) -> String {
    intent.wishes.retry.filter(|retry| retry.done).map(|retry| retry.wish.to_string()).unwrap_or_default()
}
