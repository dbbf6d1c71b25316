//! What to look at before anything is decided.

use jiff::Timestamp;

use super::case::{Case, Plan};
use super::closing;
use super::objects::{disputes_to_read, refunds_to_read};
use super::wishes::{is_a_claim, wants_a_look};
use crate::model::charge::ChargeState;
use crate::model::charge_intent::{ChargeIntent, Park, Stage};
use crate::model::hint::{Hint, ObjectType};
use crate::model::ids::ChargeId;

/// Looks at charges, refunds and disputes of one reconciliation, all together at most. With two looks at the permission and one send that makes eight calls.
pub const MAX_CHARGE_LOOKS: usize = 5;

/// What to look at: as little as the hints and the due work ask for.
#[must_use]
pub fn plan(case: &Case, now: Timestamp) -> Plan {
    let ready = |hint: &&Hint| hint.note.is_ready(now);
    let mut charges: Vec<ChargeId> = case
        .hints
        .iter()
        .filter(ready)
        .filter(|hint| hint.object_type == ObjectType::Charge)
        .filter(|hint| is_a_claim(hint) || !is_known_final(case, &hint.object_id.to_charge_id()))
        .map(|hint| hint.object_id.to_charge_id())
        .collect();
    for intent in &case.intents {
        if let Stage::Pending { charge, .. } | Stage::Authorized { charge, .. } = intent.stage()
            && (case.look_asked || intent.progress.look_at.is_none_or(|at| at <= now) || captures_now(intent, now))
            && !charges.contains(charge)
        {
            charges.push(charge.clone());
        }
    }
    let mut refunds = refunds_to_read(case, now);
    let mut disputes = disputes_to_read(case, now);
    let [of_charges, of_refunds, of_disputes] = shares([charges.len(), refunds.len(), disputes.len()]);
    charges.truncate(of_charges);
    refunds.truncate(of_refunds);
    disputes.truncate(of_disputes);
    // A charge that was refused: is it the charge, or the account? Its permission says.
    let heard = case.hints.iter().filter(ready).any(|hint| {
        hint.object_type == ObjectType::ChargePermission
            || (hint.object_type == ObjectType::Charge && hint.note.refusals > 0)
    });
    let asked = case.look_asked || closing::is_due(case, now);
    let permission = heard || asked || case.intents.iter().any(|intent| needs_the_permission(intent, now));
    Plan { permission, charges, refunds, disputes }
}

/// How many looks each kind gets: one in turn, so that none waits for another kind's crowd.
fn shares(wanted: [usize; 3]) -> [usize; 3] {
    let mut shares = [0; 3];
    let mut left = MAX_CHARGE_LOOKS;
    while left > 0 && shares != wanted {
        for (share, wanted) in shares.iter_mut().zip(wanted) {
            if *share < wanted && left > 0 {
                *share += 1;
                left -= 1;
            }
        }
    }
    shares
}

/// Before a capture is sent, and after one that nobody answered, the charge is asked for.
pub(super) fn captures_now(intent: &ChargeIntent, now: Timestamp) -> bool {
    matches!(intent.stage(), Stage::Authorized { .. })
        && !intent.is_paused()
        && intent.capture_due().is_some_and(|at| at <= now)
}

/// A charge that our record knows as final costs no call.
pub(super) fn is_known_final(case: &Case, charge: &ChargeId) -> bool {
    case.record.charges.get(charge).is_some_and(|state| ChargeState::from(state.as_str()).is_final())
}

/// Whether the permission gates what is due for this intent now.
fn needs_the_permission(intent: &ChargeIntent, now: Timestamp) -> bool {
    let looked_for = intent.progress.look_at.is_some_and(|at| at <= now) || wants_a_look(intent);
    match intent.stage() {
        Stage::Scheduled { at, .. } => (*at <= now && !intent.is_paused()) || looked_for,
        Stage::Parked { park: Park::Instrument { echo_look_at, .. }, .. } => {
            looked_for || intent.progress.look_at.is_none() || echo_look_at.is_some_and(|at| at <= now)
        }
        Stage::Parked { .. } => looked_for || intent.progress.look_at.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_looks_go_round_the_kinds_and_none_starves() {
        for (wanted, given) in [
            ([9, 9, 9], [2, 2, 1]),
            ([9, 0, 9], [3, 0, 2]),
            ([0, 9, 0], [0, 5, 0]),
            ([1, 1, 9], [1, 1, 3]),
            ([1, 1, 1], [1, 1, 1]),
            ([0, 0, 0], [0, 0, 0]),
        ] {
            assert_eq!(shares(wanted), given, "{wanted:?}");
        }
    }
}
