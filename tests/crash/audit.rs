//! The auditor. It knows what the sandbox's own ledger says, what is in the public streams (events, journal, quarantine), and what the
//! outside world was promised; of the service's own records it knows nothing.

use std::collections::{BTreeMap, BTreeSet};

use amazon_pay_ipn::sandbox::{Ledger, Operation};
use serde_json::Value;

use crate::kinds::Kind;
use crate::world::World;

type Entry = BTreeMap<String, String>;

const ENDS: [&str; 3] = ["charge.captured", "charge.canceled", "charge.abandoned"];

/// An event, its data read.
struct Told {
    kind: String,
    subject: String,
    data: Value,
}

impl Told {
    fn intent(&self) -> &str {
        self.data["id"].as_str().unwrap_or_default()
    }

    fn number(&self) -> u64 {
        self.data["number"].as_u64().unwrap_or(u64::MAX)
    }

    /// The mark of a Create Charge, `new` or `repeat`.
    fn send(&self) -> Option<&str> {
        (self.kind == "charge.attempted")
            .then(|| self.data["send"].as_str().unwrap_or_default())
            .filter(|send| *send != "capture")
    }
}

/// How it ended: what must be the same whatever was struck.
pub type Summary = BTreeSet<String>;

/// What the auditor found.
pub struct Found {
    pub wrong: Vec<String>,
    pub summary: Summary,
    /// Ends that say that they are not verified: a strike may cost certainty, never truth.
    pub unverified: usize,
    /// The events and the requests, one line each, for the report of a violation.
    pub trail: Vec<String>,
}

/// What is wrong, and how it ended.
pub async fn audit(world: &World, kind: Kind) -> Found {
    let mut wrong = Vec::new();
    let (events, journal, quarantine) =
        (world.stream("events").await, world.stream("journal").await, world.stream("quarantine").await);
    let ledger = world.sandbox.ledger();
    let told: Vec<Told> = events
        .iter()
        .map(|event| Told {
            kind: event["type"].trim_start_matches("amazonpay.").trim_end_matches(".v1").to_owned(),
            subject: event["subject"].clone(),
            data: serde_json::from_str(&event["data"]).unwrap_or_default(),
        })
        .collect();
    let ids: BTreeSet<&String> = events.iter().map(|event| &event["id"]).collect();
    if ids.len() != events.len() {
        wrong.push(format!("{} events have {} ids", events.len(), ids.len()));
    }
    acknowledged_is_kept(world, &journal, &quarantine, &mut wrong);
    let charges = charged_at_most_once(&ledger, &mut wrong);
    ends_once_and_as_the_ledger_says(world, &told, &charges, &mut wrong);
    sends_are_marked(&told, &ledger, &mut wrong);
    numbers_follow_answers(&told, &mut wrong);
    nothing_new_after_the_end_of_consent(world, &told, &mut wrong);
    let summary = summary(world, &told, &ledger, &quarantine);
    for (intent, end) in kind.ends() {
        if !summary.contains(&format!("{intent} charge.{end}")) {
            wrong.push(format!("{intent} did not end {end}: {summary:?}"));
        }
    }
    let unverified = told.iter().filter(|event| event.data["outcome"] == "unverified").count();
    let told = told.iter().map(|event| format!("event {} {}", event.kind, event.data));
    let asked = ledger.requests.iter().map(|request| {
        let (operation, status, state) = (request.operation, request.status, &request.state);
        format!("request {} {operation} {status} {state:?} {:?}", request.at, request.reason_code)
    });
    Found { wrong, summary, unverified, trail: told.chain(asked).collect() }
}

/// Every message that was answered 200 is in the journal, or, not understood, in the quarantine with its body.
fn acknowledged_is_kept(world: &World, journal: &[Entry], quarantine: &[Entry], wrong: &mut Vec<String>) {
    let kept: BTreeSet<&String> =
        journal.iter().chain(quarantine).filter_map(|entry| entry.get("message_id")).collect();
    for id in &world.promises.acknowledged {
        if !kept.contains(id) {
            wrong.push(format!("the message {id} was answered 200 and is nowhere"));
        }
    }
}

/// The intent and number that a charge was made for, by its own label.
fn made_for(label: &str) -> (&str, &str) {
    let tag = label.strip_prefix("amazon-pay-ipn/v1/").unwrap_or(label);
    tag.rsplit_once('/').unwrap_or((tag, ""))
}

/// Charges by intent: those that were declined or canceled do not count.
fn charged_at_most_once(ledger: &Ledger, wrong: &mut Vec<String>) -> BTreeMap<String, Vec<(String, &'static str)>> {
    let mut charges: BTreeMap<String, Vec<(String, &'static str)>> = BTreeMap::new();
    for charge in &ledger.charges {
        let state = charge.state.as_str();
        let (intent, _) = made_for(charge.custom_information.as_deref().unwrap_or_default());
        if !matches!(state, "Declined" | "Canceled") {
            charges.entry(intent.to_owned()).or_default().push((charge.charge_id.clone(), state));
        }
    }
    for (intent, made) in charges.iter().filter(|(_, made)| made.len() > 1) {
        wrong.push(format!("{intent} was charged {} times: {made:?}", made.len()));
    }
    charges
}

/// One terminal event for each accepted charge (and one success after an unverified end), of a kind that agrees with the ledger.
fn ends_once_and_as_the_ledger_says(
    world: &World,
    told: &[Told],
    charges: &BTreeMap<String, Vec<(String, &'static str)>>,
    wrong: &mut Vec<String>,
) {
    for intent in &world.promises.accepted {
        let ends: Vec<&Told> =
            told.iter().filter(|told| told.intent() == intent && ENDS.contains(&told.kind.as_str())).collect();
        let kinds: Vec<&str> = ends.iter().map(|end| end.kind.as_str()).collect();
        let late = ends.len() == 2 && ends[0].data["outcome"] == "unverified" && kinds[1] == "charge.captured";
        if ends.len() != 1 && !late {
            wrong.push(format!("{intent} has the ends {kinds:?}"));
        }
        let made = charges.get(intent).map_or(&[][..], Vec::as_slice);
        let captured = made.iter().any(|(_, state)| *state == "Captured");
        if captured != kinds.contains(&"charge.captured") {
            wrong.push(format!("{intent} ended {kinds:?}, and the ledger says {made:?}"));
        }
        if kinds.contains(&"charge.canceled") && !made.is_empty() {
            wrong.push(format!("{intent} was canceled, and the ledger says {made:?}"));
        }
        for end in ends.iter().filter(|end| end.kind == "charge.captured") {
            if !made.iter().any(|(id, _)| end.data["chargeId"] == id.as_str()) {
                wrong.push(format!(
                    "{intent} was told captured as {}, and the ledger says {made:?}",
                    end.data["chargeId"]
                ));
            }
        }
        if !told.iter().any(|told| told.intent() == intent && told.kind == "charge.scheduled") {
            wrong.push(format!("{intent} was accepted, and its begin was never told"));
        }
    }
}

/// No request without a mark before it: Amazon never saw more than were told.
fn sends_are_marked(told: &[Told], ledger: &Ledger, wrong: &mut Vec<String>) {
    for (operation, capture) in [(Operation::CreateCharge, false), (Operation::CaptureCharge, true)] {
        let sent = ledger.requests_of(operation).len();
        let marked = told
            .iter()
            .filter(|told| told.kind == "charge.attempted" && (told.data["send"] == "capture") == capture)
            .count();
        if sent > marked {
            wrong.push(format!("{operation} came {sent} times, and {marked} sends were told"));
        }
    }
}

/// Numbers begin at 0 and rise by one, and only after the answer to the one before was told.
fn numbers_follow_answers(told: &[Told], wrong: &mut Vec<String>) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut answered: BTreeSet<(&str, u64)> = BTreeSet::new();
    for event in told {
        let (intent, number) = (event.intent(), event.number());
        match event.send() {
            Some("new") => {
                let expected = last.get(intent).map_or(0, |last| last + 1);
                if number != expected {
                    wrong.push(format!("{intent}: number {number} was new when {expected} was next"));
                }
                if number > 0 && !answered.contains(&(intent, number - 1)) {
                    wrong.push(format!("{intent}: number {number} was sent before the answer to the one before it"));
                }
                last.insert(intent, number);
            }
            Some(_) if last.get(intent) != Some(&number) => {
                wrong.push(format!("{intent}: number {number} was repeated after {:?}", last.get(intent)));
            }
            _ => {}
        }
        if event.kind == "charge.declined" && event.data["send"] != "capture" {
            answered.insert((intent, number));
        }
    }
}

/// No new number once a closing was told, or a cancellation was answered.
fn nothing_new_after_the_end_of_consent(world: &World, told: &[Told], wrong: &mut Vec<String>) {
    let mut closed = BTreeSet::new();
    for (place, event) in told.iter().enumerate() {
        if event.kind == "charge_permission.closed" {
            closed.insert(&event.subject);
        }
        if event.send() == Some("new") {
            if closed.contains(&event.subject) {
                wrong.push(format!("{}: a new number after the closing", event.intent()));
            }
            if world.promises.canceled.get(event.intent()).is_some_and(|length| place >= *length) {
                wrong.push(format!("{}: a new number after the cancellation", event.intent()));
            }
        }
    }
}

/// The end state: how each charge ended, what was told of the permission, what the buyer paid and got back, what waits for a person.
fn summary(world: &World, told: &[Told], ledger: &Ledger, quarantine: &[Entry]) -> Summary {
    let mut summary = Summary::new();
    for event in told {
        let data = &event.data;
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        match event.kind.as_str() {
            kind if ENDS.contains(&kind) => {
                summary.insert(format!("{} {kind}", event.intent()));
            }
            "charge_permission.closed" | "refund.completed" | "refund.declined" | "ipn.quarantined" => {
                summary.insert(event.kind.clone());
            }
            "dispute.updated" if text("state") == "Resolved" => {
                summary.insert("dispute resolved".to_owned());
            }
            "ipn.subscription" => {
                summary.insert(format!("subscription {}", text("subscription")));
            }
            "account.attention" if text("kind") == "duplicate_charge" => {
                summary.insert("duplicate charge".to_owned());
            }
            _ => {}
        }
    }
    summary.insert(format!("paid {}", ledger.captured_total()));
    summary.insert(format!("put into quarantine {}", quarantine.len()));
    summary.insert(format!("confirmed {}", !world.sandbox.confirmed_tokens().is_empty()));
    summary
}
