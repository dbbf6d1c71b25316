//! Judges a run by its evidence. It shares no code with the service: what it knows of it is what docs/EVENTS.md promises.

mod alone;
mod ends;
mod sends;

use std::collections::{BTreeMap, BTreeSet};

use amazon_pay_ipn::sandbox::{LedgerCharge, Operation, RequestRecord};

use crate::evidence::{Deeds, Event, Evidence};

/// One sentence for each broken promise.
pub type Violations = Vec<String>;

/// The intent and number in `customInformation`.
pub fn read_tag(tag: &str) -> Option<(&str, u64)> {
    let (intent, number) = tag.strip_prefix("amazon-pay-ipn/v1/")?.rsplit_once('/')?;
    Some((intent, number.parse().ok()?))
}

pub fn tag_of(charge: &LedgerCharge) -> Option<(&str, u64)> {
    read_tag(charge.custom_information.as_deref()?)
}

/// Whether the buyer has paid, or may be about to.
pub fn is_success(charge: &LedgerCharge) -> bool {
    matches!(charge.state.as_str(), "Captured" | "Authorized" | "CaptureInitiated" | "AuthorizationInitiated")
}

/// The charges of each intent that succeeded or may.
fn successes<'a>(charges: impl Iterator<Item = &'a LedgerCharge>) -> BTreeMap<&'a str, Vec<&'a LedgerCharge>> {
    let mut of_intent: BTreeMap<&str, Vec<&LedgerCharge>> = BTreeMap::new();
    for charge in charges.filter(|charge| is_success(charge)) {
        if let Some((intent, _)) = tag_of(charge) {
            of_intent.entry(intent).or_default().push(charge);
        }
    }
    of_intent
}

/// At most one success of an intent at any time. Cheap: for after every operation.
pub fn double_charges<'a>(charges: impl Iterator<Item = &'a LedgerCharge>) -> Violations {
    let doubles = successes(charges).into_iter().filter(|(_, charges)| charges.len() > 1);
    doubles
        .map(|(intent, charges)| {
            let ids: Vec<_> = charges.iter().map(|charge| format!("{} {}", charge.charge_id, charge.state)).collect();
            format!("{intent} was charged twice: {}", ids.join(", "))
        })
        .collect()
}

/// Everything that holds at any time.
pub fn audit(evidence: &Evidence) -> Violations {
    let mut found = Violations::new();
    if evidence.deeds.beyond {
        unreported_doubles(evidence, &mut found);
    } else {
        found.append(&mut double_charges(evidence.ledger.charges.iter()));
    }
    keys_and_tags(&evidence.ledger.requests, &mut found);
    streams(evidence, &mut found);
    journal(evidence, &mut found);
    forged(evidence, &mut found);
    sends::audit(evidence, &mut found);
    ends::audit(evidence, &mut found);
    if !evidence.deeds.skewed {
        alone::audit(evidence, &mut found);
    }
    if let Some(quota) = evidence.rules.quota
        && !evidence.deeds.interrupted
        && !evidence.deeds.skewed
    {
        budget(&evidence.ledger.requests, quota, &mut found);
    }
    found
}

/// What holds at the end of a run, when faults have stopped and time has passed.
pub fn audit_end(evidence: &Evidence) -> Violations {
    let mut found = Violations::new();
    ends::audit_end(evidence, &mut found);
    found
}

/// A fault beyond the assumptions made a second charge: it must have been told.
fn unreported_doubles(evidence: &Evidence, found: &mut Violations) {
    for (intent, charges) in successes(evidence.ledger.charges.iter()) {
        let told = evidence.events.iter().any(|event| {
            event.kind == "account.attention"
                && ["duplicate_charge", "charge_after_end"].contains(&event.text("kind"))
                && event.text("id") == intent
        });
        if charges.len() > 1 && !told {
            let ids: Vec<_> = charges.iter().map(|charge| charge.charge_id.as_str()).collect();
            found.push(format!("{intent} was charged twice and nobody was told: {ids:?}"));
        }
    }
}

/// Each charge carries our mark, and a number has one key for ever.
fn keys_and_tags(requests: &[RequestRecord], found: &mut Violations) {
    let (mut key_of, mut tag_by): (BTreeMap<&str, &str>, BTreeMap<&str, &str>) = (BTreeMap::new(), BTreeMap::new());
    for request in requests.iter().filter(|request| request.operation == Operation::CreateCharge) {
        let (Some(tag), Some(key)) = (request.custom_information.as_deref(), request.idempotency_key.as_deref()) else {
            found.push(format!("a Create Charge without our mark or without a key: {request:?}"));
            continue;
        };
        if *key_of.entry(tag).or_insert(key) != key {
            found.push(format!("{tag} was sent under two keys: {} and {key}", key_of[tag]));
        }
        if *tag_by.entry(key).or_insert(tag) != tag {
            found.push(format!("the key {key} was used for {} and {tag}", tag_by[key]));
        }
        if key.len() > 32 || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            found.push(format!("Amazon would not take the key {key}"));
        }
    }
}

/// Event ids are given once; the counter of a subject rises by one.
fn streams(evidence: &Evidence, found: &mut Violations) {
    let mut ids = BTreeSet::new();
    let mut counters: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &evidence.events {
        if !ids.insert(event.id.as_str()) {
            found.push(format!("two events have the id {}", event.id));
        }
        let counter = event.id.strip_prefix(&format!("{}-", event.subject));
        let counter = counter.and_then(|rest| rest.split('-').next()?.parse().ok());
        let last = counters.entry(event.subject.as_str()).or_default();
        match counter {
            Some(count) if count == *last + 1 => *last = count,
            _ => found.push(format!("event {} follows number {last} of {}", event.id, event.subject)),
        }
    }
}

/// Every accepted message is kept, and nothing else is.
fn journal(evidence: &Evidence, found: &mut Violations) {
    let deeds = evidence.deeds;
    let ids = |entries: &[std::collections::HashMap<String, String>]| -> BTreeSet<String> {
        entries.iter().filter_map(|entry| entry.get("message_id").cloned()).collect()
    };
    let (journal, quarantine) = (ids(&evidence.journal), ids(&evidence.quarantine));
    for id in deeds.accepted.keys().filter(|id| !journal.contains(*id)) {
        found.push(format!("the message {id} was answered 200 and is not in the journal"));
    }
    for id in deeds.strangers.iter().filter(|id| !quarantine.contains(*id)) {
        found.push(format!("the message {id} about another merchant was answered 200 and is not in the quarantine"));
    }
    for id in journal.union(&quarantine) {
        if !deeds.posted.contains(id) && !deeds.strangers.contains(id) {
            found.push(format!("the journal or the quarantine holds {id}, which nobody genuine sent"));
        }
    }
}

/// What only a forged message named is never asked about.
fn forged(evidence: &Evidence, found: &mut Violations) {
    let Deeds { forged, forged_objects, .. } = evidence.deeds;
    for request in &evidence.ledger.requests {
        let named = [&request.permission, &request.charge, &request.object];
        if let Some(id) = named.into_iter().flatten().find(|id| forged_objects.contains(*id)) {
            found.push(format!("{} of {id}, which only a forged message named", request.operation));
        }
    }
    let kept = evidence.journal.iter().chain(&evidence.quarantine).filter_map(|entry| entry.get("message_id"));
    for id in kept.filter(|id| forged.contains(*id)) {
        found.push(format!("the forged message {id} is kept"));
    }
}

/// The most calls of one operation that a reconciliation may need.
const CALLS_AT_ONCE: f64 = 9.0;

/// All instances together keep to one token bucket for each operation. One that is full lets in whoever needs more than it holds.
fn budget(requests: &[RequestRecord], (capacity, rate): (f64, f64), found: &mut Violations) {
    let credit = (CALLS_AT_ONCE - capacity).max(0.0) + 1.0;
    let mut levels: BTreeMap<&str, (f64, i64, f64)> = BTreeMap::new();
    for request in requests {
        let now = request.received_at.as_millisecond();
        let (level, at, lowest) = levels.entry(request.operation.as_str()).or_insert((capacity, now, capacity));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a run are few")]
        let passed = (now - *at).max(0) as f64 / 1000.0;
        *level = (*level + passed * rate).min(capacity) - 1.0;
        (*at, *lowest) = (now, lowest.min(*level));
    }
    for (operation, (_, _, lowest)) in levels {
        if lowest < -credit {
            found.push(format!("the budget of {operation} was overdrawn by {:.0} calls", -lowest));
        }
    }
}

/// The events of one charge, in order.
fn events_of<'a>(evidence: &'a Evidence, intent: &'a str) -> impl Iterator<Item = &'a Event> {
    evidence.events.iter().filter(move |event| event.intent() == Some(intent))
}
