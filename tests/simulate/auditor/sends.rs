//! What was sent, and whether it might be: marks, numbers, order, looks, stops.

use std::collections::{BTreeMap, BTreeSet};

use amazon_pay_ipn::sandbox::{LedgerCharge, Operation, RequestRecord};

use super::{Violations, events_of, read_tag, tag_of};
use crate::evidence::{Event, Evidence};

/// Declines that count as attempts.
const COUNTED: [&str; 4] = ["SoftDeclined", "HardDeclined", "TransactionTimedOut", "ProcessingFailure"];

pub fn audit(evidence: &Evidence, found: &mut Violations) {
    each_send_is_marked(evidence, found);
    each_number_follows(evidence, found);
    each_decline_is_sure(evidence, found);
    one_in_flight(evidence, found);
    nothing_while_forbidden(evidence, found);
    attempts_are_bounded(evidence, found);
    if !evidence.deeds.skewed {
        each_number_was_looked_for(evidence, found);
    }
}

fn is_charge_mark(event: &Event) -> bool {
    event.kind == "charge.attempted" && !event.is_capture()
}

/// A request goes out once for each `charge.attempted`, or never.
fn each_send_is_marked(evidence: &Evidence, found: &mut Violations) {
    let mut marks: BTreeMap<(String, u64), usize> = BTreeMap::new();
    let mut capture_marks: BTreeMap<String, usize> = BTreeMap::new();
    for event in evidence.events.iter().filter(|event| event.kind == "charge.attempted") {
        if event.is_capture() {
            *capture_marks.entry(event.text("chargeId").to_owned()).or_default() += 1;
        } else {
            *marks.entry((event.text("id").to_owned(), event.number())).or_default() += 1;
        }
    }
    let (mut sends, mut captures): (BTreeMap<(String, u64), usize>, BTreeMap<String, usize>) = Default::default();
    for request in &evidence.ledger.requests {
        match request.operation {
            Operation::CreateCharge => {
                let tag = request.custom_information.as_deref().and_then(read_tag);
                if let Some((intent, number)) = tag {
                    *sends.entry((intent.to_owned(), number)).or_default() += 1;
                }
            }
            Operation::CaptureCharge => *captures.entry(request.charge.clone().unwrap_or_default()).or_default() += 1,
            _ => {}
        }
    }
    for ((intent, number), count) in sends {
        let marked = marks.get(&(intent.clone(), number)).copied().unwrap_or_default();
        if count > marked {
            found.push(format!("number {number} of {intent} was sent {count} times and marked {marked} times"));
        }
    }
    for (charge, count) in captures {
        let marked = capture_marks.get(&charge).copied().unwrap_or_default();
        if count > marked {
            found.push(format!("the capture of {charge} was sent {count} times and marked {marked} times"));
        }
    }
}

/// Numbers rise by one; a number is new once; only a number that was resolved has a successor.
fn each_number_follows(evidence: &Evidence, found: &mut Violations) {
    let intents: BTreeSet<&str> = evidence.events.iter().filter_map(Event::intent).collect();
    for intent in intents {
        let by_operator = evidence.deeds.new_numbers.contains(intent);
        let (mut last, mut resolved): (Option<u64>, BTreeSet<u64>) = Default::default();
        for event in events_of(evidence, intent) {
            let number = event.number();
            match event.kind.as_str() {
                "charge.declined" if !event.is_capture() => {
                    resolved.insert(number);
                }
                "charge.attempted" if !event.is_capture() && event.text("send") == "new" => {
                    let expected = last.map_or(0, |last| last + 1);
                    if number != expected && !by_operator {
                        found.push(format!("{intent}: number {number} was new where {expected} was expected"));
                    }
                    let is_open = last.is_some_and(|last| !resolved.contains(&last));
                    if is_open && !by_operator {
                        found.push(format!("{intent}: number {number} was sent while the one before was unknown"));
                    }
                    last = Some(number);
                }
                "charge.attempted" if !event.is_capture() && last != Some(number) => {
                    found.push(format!("{intent}: number {number} was repeated, the last new one was {last:?}"));
                }
                _ => {}
            }
        }
    }
}

/// A decline is believed only if no older copy of the same request can still be accepted: the mark before its answer is the first of its
/// number, or X after the one before. What is no decline (a status, a limit, a mistake) settles a first send only, unless a charge came of it that says so itself. A ProcessingFailure
/// is a 500, whose copy may still be under way: Amazon must have answered it twice, the second time X after the send before.
fn each_decline_is_sure(evidence: &Evidence, found: &mut Violations) {
    let failures = processing_failures(evidence);
    let mut marks: BTreeMap<(&str, u64), Vec<i64>> = BTreeMap::new();
    let mut was_pending: BTreeSet<(&str, u64)> = BTreeSet::new();
    for event in evidence.events.iter().filter(|event| !event.is_capture()) {
        let key = (event.text("id"), event.number());
        match event.kind.as_str() {
            "charge.attempted" => marks.entry(key).or_default().push(event.ms),
            "charge.pending" | "charge.authorized" => {
                was_pending.insert(key);
            }
            "charge.declined" => {
                let marks = marks.get(&key).map(Vec::as_slice).unwrap_or_default();
                let (intent, number, reason) = (key.0, key.1, event.text("reasonCode"));
                let since = marks.windows(2).last().map(|pair| pair[1] - pair[0]);
                let is_close = since.is_some_and(|since| since < evidence.rules.x_ms);
                if is_close && !came_back_declined(evidence, intent, number) {
                    found.push(format!(
                        "{reason} of number {number} of {intent} was believed {since:?} ms after an older copy"
                    ));
                }
                let is_decline = COUNTED.contains(&reason) || reason == "AmazonRejected";
                // Of a charge that was pending the charge itself says that it was declined, whatever the reason.
                if marks.len() > 1 && !is_decline && !was_pending.contains(&key) {
                    found.push(format!(
                        "{reason} settled number {number} of {intent}, which was sent {} times",
                        marks.len()
                    ));
                }
                let answers = failures.get(&key).copied().unwrap_or_default();
                if reason == "ProcessingFailure" && !was_pending.contains(&key) && answers < 2 {
                    let sends = marks.len();
                    found.push(format!(
                        "ProcessingFailure of number {number} of {intent} was believed after {answers} such answers to {sends} sends"
                    ));
                }
            }
            _ => {}
        }
    }
}

/// Whether a send that left after its charge was seen declined was answered with that very charge: then Amazon repeats the answer of a
/// key instead of evaluating it anew, and no copy under way can make another charge, however young.
fn came_back_declined(evidence: &Evidence, intent: &str, number: u64) -> bool {
    let requests = &evidence.ledger.requests;
    let of =
        |request: &RequestRecord| request.custom_information.as_deref().and_then(read_tag) == Some((intent, number));
    requests.iter().filter(|send| send.operation == Operation::CreateCharge && send.status == 201 && of(send)).any(
        |send| {
            requests.iter().any(|look| {
                look.operation == Operation::GetCharge
                    && look.charge == send.charge
                    && look.state.as_deref() == Some("Declined")
                    && look.at < send.received_at
            })
        },
    )
}

/// How often Amazon answered a number with ProcessingFailure.
fn processing_failures<'a>(evidence: &'a Evidence) -> BTreeMap<(&'a str, u64), usize> {
    let mut failures: BTreeMap<_, usize> = BTreeMap::new();
    for request in &evidence.ledger.requests {
        let tag = request.custom_information.as_deref().and_then(read_tag);
        if let Some(number) = tag.filter(|_| request.reason_code.as_deref() == Some("ProcessingFailure")) {
            *failures.entry(number).or_default() += 1;
        }
    }
    failures
}

/// Whether a worker had read, by then, a success of this number: it is known then, though its event comes with the commit.
fn was_read(evidence: &Evidence, intent: &str, number: u64, ms: i64) -> bool {
    let tagged = |charge: &&LedgerCharge| tag_of(charge) == Some((intent, number));
    let ids: BTreeSet<&str> =
        evidence.ledger.charges.iter().filter(tagged).map(|charge| charge.charge_id.as_str()).collect();
    evidence.ledger.requests.iter().any(|request| {
        request.operation == Operation::GetCharge
            && request.status == 200
            && request.charge.as_deref().is_some_and(|id| ids.contains(id))
            && request.received_at.as_millisecond() <= ms
            // As it was then: an authorisation may have been canceled since.
            && ["Captured", "Authorized", "CaptureInitiated"].contains(&request.state.as_deref().unwrap_or_default())
    })
}

/// Of one permission one number is in flight. Only after X does an unknown one let others pass.
fn one_in_flight(evidence: &Evidence, found: &mut Violations) {
    // For each permission the number that is unknown: whose, which, and when it was first marked.
    let mut open: BTreeMap<(&str, &str), (u64, i64)> = BTreeMap::new();
    for event in &evidence.events {
        let Some(intent) = event.intent() else { continue };
        let subject = event.subject.as_str();
        match event.kind.as_str() {
            "charge.attempted" if !event.is_capture() => {
                if event.text("send") == "new" {
                    let others = open.iter().filter(|((of, other), _)| *of == subject && *other != intent);
                    for ((_, other), (number, marked)) in others {
                        let age = event.ms - marked;
                        if age < evidence.rules.x_ms && !was_read(evidence, other, *number, event.ms) {
                            let n = event.number();
                            found.push(format!(
                                "{subject}: number {n} of {intent} went out while number {number} of {other} was unknown for {age} ms"
                            ));
                        }
                    }
                    open.insert((subject, intent), (event.number(), event.ms));
                } else {
                    open.entry((subject, intent)).or_insert((event.number(), event.ms));
                }
            }
            "charge.declined" | "charge.captured" | "charge.authorized" | "charge.pending" | "charge.canceled"
            | "charge.abandoned" => {
                open.remove(&(subject, intent));
            }
            _ => {}
        }
    }
}

/// Nothing after a stop, a pause or the wish to close; nothing new after a cancellation or a closing that was seen.
fn nothing_while_forbidden(evidence: &Evidence, found: &mut Violations) {
    let deeds = evidence.deeds;
    let mut closed: BTreeSet<&str> = BTreeSet::new();
    for event in &evidence.events {
        if event.kind == "charge_permission.closed" {
            closed.insert(event.subject.as_str());
        }
        if event.kind != "charge.attempted" {
            continue;
        }
        let (intent, permission, place) = (event.text("id"), event.subject.as_str(), event.place);
        let what = format!("{} of {intent} (number {})", event.text("send"), event.number());
        if deeds.stops.iter().any(|stop| stop.holds(place)) {
            found.push(format!("{what} was marked while the stop switch was on"));
        }
        let paused =
            |(of, span): &(String, crate::evidence::Span)| (of == intent || of == permission) && span.holds(place);
        if deeds.pauses.iter().any(paused) {
            found.push(format!("{what} was marked while it was paused"));
        }
        let canceled = deeds.cancellations.iter().any(|(of, at)| of == intent && place > *at);
        if canceled && (event.text("send") == "new" || event.is_capture()) {
            found.push(format!("{what} was marked after a cancellation was answered"));
        }
        if is_charge_mark(event) {
            let wished = deeds.closings.iter().any(|(of, at)| of == permission && place > *at);
            let is_closed = closed.contains(permission);
            if wished && !is_closed {
                found.push(format!("{what} was marked after the closing of {permission} was asked for"));
            }
            if is_closed && event.text("send") == "new" {
                found.push(format!("{what} was marked after {permission} was seen Closed"));
            }
        }
    }
}

fn attempts_are_bounded(evidence: &Evidence, found: &mut Violations) {
    let mut declines: BTreeMap<&str, u64> = BTreeMap::new();
    for event in evidence.events.iter().filter(|event| event.kind == "charge.declined" && !event.is_capture()) {
        if COUNTED.contains(&event.text("reasonCode")) {
            *declines.entry(event.text("id")).or_default() += 1;
        }
    }
    for (intent, count) in declines {
        let before = evidence.deeds.submissions.get(intent).map_or(0, |submission| submission.attempts_before);
        if count + before > evidence.rules.max_attempts {
            let most = evidence.rules.max_attempts;
            found.push(format!(
                "{intent} was declined {count} times after {before} attempts: at most {most} are allowed"
            ));
        }
    }
}

/// Before each new number a Get Charge Permission said Chargeable: the newest one that went out before the mark.
fn each_number_was_looked_for(evidence: &Evidence, found: &mut Violations) {
    let mut looks: BTreeMap<&str, Vec<&RequestRecord>> = BTreeMap::new();
    for request in &evidence.ledger.requests {
        if request.operation == Operation::GetChargePermission
            && let Some(permission) = &request.permission
        {
            looks.entry(permission).or_default().push(request);
        }
    }
    for of_one in looks.values_mut() {
        of_one.sort_by_key(|request| request.received);
    }
    for event in evidence.events.iter().filter(|event| is_charge_mark(event) && event.text("send") == "new") {
        let before = |request: &&&RequestRecord| request.received_at.as_millisecond() <= event.ms;
        let look = looks.get(event.subject.as_str()).and_then(|looks| looks.iter().rev().find(before));
        let said = look.map(|look| (look.status, look.state.as_deref().unwrap_or_default()));
        if said != Some((200, "Chargeable")) {
            let (intent, number) = (event.text("id"), event.number());
            found.push(format!("number {number} of {intent} was marked, and the look before it said {said:?}"));
        }
    }
}
