//! How charges end: once, truly, and in the end all of them.

use std::collections::BTreeMap;

use amazon_pay_ipn::sandbox::{LedgerCharge, Operation, PermissionState};

use super::{Violations, events_of, is_success, tag_of};
use crate::evidence::Evidence;

const ENDS: [&str; 3] = ["charge.captured", "charge.canceled", "charge.abandoned"];

pub fn audit(evidence: &Evidence, found: &mut Violations) {
    ends_are_final(evidence, found);
    verified_ends_are_resolved(evidence, found);
    captures_are_true(evidence, found);
    states_agree(evidence, found);
}

/// One terminal event; after an unverified one at most one success.
fn ends_are_final(evidence: &Evidence, found: &mut Violations) {
    let mut ends: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for event in evidence.events.iter().filter(|event| ENDS.contains(&event.kind.as_str())) {
        let outcome = event.data["outcome"].as_str().unwrap_or("verified");
        ends.entry(event.text("id")).or_default().push((&event.kind, outcome));
    }
    for (intent, ends) in ends {
        let late = ends.len() == 2 && ends[0].1 == "unverified" && ends[1].0 == "charge.captured";
        if ends.len() != 1 && !late {
            found.push(format!("{intent} ended {ends:?}"));
        }
        if !evidence.deeds.submissions.contains_key(intent) {
            found.push(format!("{intent} ended and was never submitted"));
        }
    }
}

/// Without a capture an end is verified only if the last number that was sent has its answer: a decline, or a charge that was canceled.
fn verified_ends_are_resolved(evidence: &Evidence, found: &mut Violations) {
    // The number that is not answered.
    let mut open: BTreeMap<&str, u64> = BTreeMap::new();
    for event in evidence.events.iter().filter(|event| !event.is_capture()) {
        let Some(intent) = event.intent() else { continue };
        match event.kind.as_str() {
            "charge.attempted" => {
                open.insert(intent, event.number());
            }
            "charge.declined" | "charge.pending" | "charge.authorized" | "charge.captured" => {
                open.remove(intent);
            }
            "charge.canceled" | "charge.abandoned" if event.text("outcome") == "verified" => {
                let Some(number) = open.get(intent) else { continue };
                let released = evidence
                    .ledger
                    .charges
                    .iter()
                    .any(|charge| tag_of(charge) == Some((intent, *number)) && charge.state.as_str() == "Canceled");
                if !released && !evidence.deeds.resolved.contains(intent) {
                    let kind = &event.kind;
                    found.push(format!(
                        "{kind} of {intent} is called verified, and nobody knew what became of number {number}"
                    ));
                }
            }
            _ => {}
        }
    }
}

/// What is told as captured is captured, for this charge, and not more than was authorised.
fn captures_are_true(evidence: &Evidence, found: &mut Violations) {
    let charges: BTreeMap<&str, &LedgerCharge> =
        evidence.ledger.charges.iter().map(|charge| (charge.charge_id.as_str(), charge)).collect();
    for event in evidence.events.iter().filter(|event| event.kind == "charge.captured") {
        let (intent, id) = (event.text("id"), event.text("chargeId"));
        let charge = charges.get(id);
        let is_ours = charge.and_then(|charge| tag_of(charge)).is_some_and(|(of, _)| of == intent);
        let is_captured = charge.is_some_and(|charge| charge.state.as_str() == "Captured");
        if !is_ours || !is_captured {
            found.push(format!("{intent} was told to be captured by {id:?}, which is {charge:?}"));
        }
    }
    for charge in &evidence.ledger.charges {
        if charge.captured.is_some_and(|captured| captured > charge.amount) {
            found.push(format!("{} was captured beyond its amount", charge.charge_id));
        }
    }
}

/// `GET` says what the events said last.
fn states_agree(evidence: &Evidence, found: &mut Violations) {
    for (intent, resource) in &evidence.charges {
        let state = resource["state"].as_str().unwrap_or_default();
        let last = events_of(evidence, intent).filter_map(|event| match event.kind.strip_prefix("charge.")? {
            "scheduled" if event.is_capture() => None,
            kind @ ("scheduled" | "parked" | "pending" | "authorized" | "held" | "captured" | "canceled"
            | "abandoned") => Some((kind, event.text("outcome"))),
            _ => None,
        });
        let (told, outcome) = last.last().unwrap_or(("nothing", ""));
        let is_end = ["captured", "canceled", "abandoned"].contains(&told);
        let outcome_agrees = !is_end || told == "captured" || resource["outcome"].as_str() == Some(outcome);
        if told != state || !outcome_agrees {
            let shown = &resource["outcome"];
            found.push(format!("{intent} is {state} ({shown}), and its last event said {told} ({outcome})"));
        }
    }
    for (permission, resource) in &evidence.permissions {
        let told = evidence
            .events
            .iter()
            .any(|event| event.kind == "charge_permission.closed" && event.subject == *permission);
        if told != (resource["closed"].as_bool() == Some(true)) {
            found.push(format!("{permission}: told closed {told}, shown {}", resource["closed"]));
        }
    }
}

/// Faults have stopped and time has passed.
pub fn audit_end(evidence: &Evidence, found: &mut Violations) {
    everything_settled(evidence, found);
    verified_ends_are_true(evidence, found);
    successes_are_told(evidence, found);
    permissions_are_known(evidence, found);
}

/// Every charge has ended, or waits for a person; nothing that a notification named still waits.
fn everything_settled(evidence: &Evidence, found: &mut Violations) {
    for intent in evidence.deeds.submissions.keys() {
        let Some(resource) = evidence.charges.get(intent) else {
            found.push(format!("{intent} was accepted and is not known any more"));
            continue;
        };
        let state = resource["state"].as_str().unwrap_or_default();
        if !["captured", "canceled", "abandoned", "held"].contains(&state) {
            found.push(format!("{intent} never ended: {resource}"));
        }
        let ended = events_of(evidence, intent).filter(|event| ENDS.contains(&event.kind.as_str())).count();
        if ended == 0 && state != "held" {
            found.push(format!("{intent} is {state}, and no event says so"));
        }
    }
    for (permission, resource) in &evidence.permissions {
        let waiting = resource["waitingNotifications"].as_array().cloned().unwrap_or_default();
        let stuck: Vec<_> = waiting
            .iter()
            .filter(|hint| ["CHARGE", "CHARGE_PERMISSION"].contains(&hint["objectType"].as_str().unwrap_or_default()))
            .collect();
        if !stuck.is_empty() {
            found.push(format!("{permission}: notifications were never dealt with: {stuck:?}"));
        }
    }
}

/// A verified end without a capture: no charge of it stands at Amazon, or somebody was told.
fn verified_ends_are_true(evidence: &Evidence, found: &mut Violations) {
    for (intent, resource) in &evidence.charges {
        let state = resource["state"].as_str().unwrap_or_default();
        if !["canceled", "abandoned"].contains(&state) || resource["outcome"] != "verified" {
            continue;
        }
        let standing = evidence.ledger.charges.iter().filter(|charge| is_success(charge));
        for charge in standing.filter(|charge| tag_of(charge).is_some_and(|(of, _)| of == intent)) {
            if !told_of(evidence, &charge.charge_id) && !evidence.deeds.resolved.contains(intent) {
                let (id, stands) = (&charge.charge_id, charge.state);
                found.push(format!("{intent} is {state}, verified, and its charge {id} is {stands}"));
            }
        }
    }
}

fn told_of(evidence: &Evidence, charge: &str) -> bool {
    let names = |event: &crate::evidence::Event| {
        event.text("chargeId") == charge
            || event.data["chargeIds"].as_array().is_some_and(|ids| ids.iter().any(|id| id == charge))
    };
    let tells = |kind: &str| ["charge.captured", "charge.unmatched", "account.attention"].contains(&kind);
    evidence.events.iter().any(|event| tells(&event.kind) && names(event))
}

/// A captured charge that an accepted notification named was told of.
fn successes_are_told(evidence: &Evidence, found: &mut Violations) {
    let captured = evidence.ledger.charges.iter().filter(|charge| charge.state.as_str() == "Captured");
    for charge in captured {
        // What was notified of it while it was pending is no notification of its capture.
        let pending = evidence.ledger.requests.iter().filter(|look| {
            look.operation == Operation::GetCharge
                && look.charge.as_deref() == Some(&charge.charge_id)
                && look.state.as_deref().is_some_and(|state| state != "Captured")
        });
        let seen = pending.map(|look| look.at).max().unwrap_or(charge.created_at);
        let made = seen.max(charge.created_at).as_millisecond();
        let heard = |(object, at): &(String, i64)| *object == charge.charge_id && *at >= made;
        let heard = evidence.deeds.accepted.values().any(heard);
        if heard && !told_of(evidence, &charge.charge_id) {
            let tag = charge.custom_information.as_deref().unwrap_or_default();
            found.push(format!("{} ({tag}) is Captured, was notified, and no event tells of it", charge.charge_id));
        }
    }
}

/// What a notification said of a permission after its last change is known.
fn permissions_are_known(evidence: &Evidence, found: &mut Violations) {
    let closed = PermissionState::Closed;
    for (permission, changed) in &evidence.deeds.changes {
        let heard = evidence.deeds.accepted.values().any(|(object, at)| object == permission && at >= changed);
        let truly = evidence.true_states.get(permission).map(String::as_str).unwrap_or_default();
        let shown = evidence.permissions.get(permission).map(|resource| resource["closed"].as_bool() == Some(true));
        if heard && truly == format!("{closed:?}") && shown != Some(true) {
            found.push(format!("{permission} is Closed, was notified, and is not shown so"));
        }
    }
}
