//! What to look at before anything is decided.

use jiff::Timestamp;

use super::case::{Case, Plan};
use crate::model::charge::ChargeState;
use crate::model::charge_intent::{ChargeIntent, Park, Stage};
use crate::model::hint::{Hint, ObjectType};
use crate::model::ids::ChargeId;

/// Get Charge calls of one reconciliation, at most. With two looks at the permission and one send that makes eight calls.
pub const MAX_CHARGE_LOOKS: usize = 5;

/// What to look at: as little as the hints and the due work ask for.
#[must_use]
pub fn plan(case: &Case, now: Timestamp) -> Plan {
    let ready = |hint: &&Hint| hint.note.not_before.is_none_or(|at| at <= now);
    let mut charges: Vec<ChargeId> = case
        .hints
        .iter()
        .filter(ready)
        .filter(|hint| hint.object_type == ObjectType::Charge)
        .map(|hint| hint.object_id.to_charge_id())
        .filter(|charge| !is_known_final(case, charge))
        .collect();
    for intent in &case.intents {
        if let Stage::Pending { charge, .. } | Stage::Authorized { charge, .. } = intent.stage()
            && intent.progress.look_at.is_none_or(|at| at <= now)
            && !charges.contains(charge)
        {
            charges.push(charge.clone());
        }
    }
    charges.truncate(MAX_CHARGE_LOOKS);
    // A charge that was refused: is it the charge, or the account? Its permission says.
    let heard =
        case.hints.iter().filter(ready).any(|hint| hint.object_type != ObjectType::Charge || hint.note.refusals > 0);
    let permission = heard || case.intents.iter().any(|intent| needs_the_permission(intent, now));
    Plan { permission, charges }
}

/// A charge that our record knows as final costs no call.
pub(super) fn is_known_final(case: &Case, charge: &ChargeId) -> bool {
    case.record.charges.get(charge).is_some_and(|state| ChargeState::from(state.as_str()).is_final())
}

/// Whether the permission gates what is due for this intent now.
fn needs_the_permission(intent: &ChargeIntent, now: Timestamp) -> bool {
    let looked_for = intent.progress.look_at.is_some_and(|at| at <= now);
    match intent.stage() {
        Stage::Scheduled { at, .. } => *at <= now || looked_for,
        Stage::Parked { park: Park::Instrument { echo_look_at, .. }, .. } => {
            looked_for || intent.progress.look_at.is_none() || echo_look_at.is_some_and(|at| at <= now)
        }
        Stage::Parked { .. } => looked_for || intent.progress.look_at.is_none(),
        _ => false,
    }
}
