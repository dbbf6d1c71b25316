//! Tests of the pure core: the table of design section 6 row by row, properties over arbitrary input, and a random walk against toys
//! of Amazon and of the store.

mod captures;
mod closing;
mod decisions;
mod endings;
mod not_understood;
mod notifications;
mod objects;
mod policies;
mod properties;
mod quota;
mod reminders;
mod rows;
mod table;
mod walk;
mod wishes;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::case::{Act, Case, Decision, Findings};
use super::decide::{decide, decide_again};
use super::draft::Draft;
use super::draft::testing::{marked, start, view};
use super::policies::Policies;
use super::policy::{Policy, later};
use super::settle::{refused_alone, settle};
use crate::model::charge::{ChargeLook, ChargeState, ChargeView};
use crate::model::charge_intent::{ChargeIntent, Outcome, Park, Stage, Why};
use crate::model::hint::{Hint, HintNote, ObjectType};
use crate::model::ids::{ChargeTag, Environment, Region};
use crate::model::permission::{Look, PermissionRecord, PermissionState};
use crate::model::verdict::{Decline, Refusal, Verdict};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// The confirmation delay of the default policy.
const X: Duration = Duration::from_mins(30);
const OURS: Environment = Environment::Sandbox;

fn policy() -> Policy {
    Policy::for_region(Region::Na)
}

fn policies() -> Policies {
    Policies::from(policy())
}

fn chargeable() -> Look {
    Look::Seen(view(PermissionState::Chargeable, &[]))
}

fn not_chargeable(reason: &str) -> Look {
    Look::Seen(view(PermissionState::NonChargeable, &[reason]))
}

fn closed() -> Look {
    Look::Seen(view(PermissionState::Closed, &["BuyerCanceled"]))
}

fn case(intents: Vec<ChargeIntent>) -> Case {
    Case {
        permission: "C01-0000000-0000001".parse().unwrap(),
        closed: false,
        record: PermissionRecord::default(),
        hints: Vec::new(),
        intents,
        close: None,
        look_asked: false,
    }
}

fn findings(look: Look) -> Findings {
    Findings { look, charges: Vec::new(), may_act: true }
}

/// One decision about one intent.
fn decided(intent: ChargeIntent, look: Look, now: Timestamp) -> Decision {
    decide(&case(vec![intent]), &findings(look), now, &policies(), OURS)
}

/// The draft of the only intent.
fn only(mut decision: Decision) -> Draft {
    assert_eq!(decision.drafts.len(), 1);
    decision.drafts.remove(0)
}

/// What the answer to the last mark makes of the intent.
fn answered(intent: ChargeIntent, verdict: &Verdict, now: Timestamp) -> Draft {
    let mut draft = Draft::new(intent);
    settle(&mut draft, verdict, now, &policy());
    draft
}

/// As the reconciler does it: settle, then one look at the permission if the number was resolved.
fn answered_and_looked(intent: ChargeIntent, verdict: &Verdict, look: Look, now: Timestamp) -> Draft {
    let case = case(vec![intent.clone()]);
    let before = Decision {
        drafts: vec![answered(intent, verdict, now)],
        record: PermissionRecord::default(),
        closed: false,
        events: Vec::new(),
        hints: Vec::new(),
        act: Act::Nothing,
        not_before: None,
        held_back: false,
    };
    only(decide_again(&case, before, look, now, &policies(), OURS))
}

/// The intent whose first send was marked a second ago.
fn sent() -> ChargeIntent {
    marked(1, start(), false)
}

fn after(by: Duration) -> Timestamp {
    later(start(), by)
}

/// A charge of the intent `renewal-1`, made under `number`.
fn charge(id: &str, state: ChargeState, number: u32) -> ChargeView {
    ChargeView {
        id: id.parse().unwrap(),
        permission: None,
        state,
        reason: None,
        tag: Some(ChargeTag { intent: "renewal-1".parse().unwrap(), number }),
        amount: None,
        captured: None,
        expires_at: None,
        release_environment: Some(OURS),
    }
}

fn declined_charge(id: &str, reason: &str, number: u32) -> ChargeView {
    ChargeView { reason: Some(reason.to_owned()), ..charge(id, ChargeState::Declined, number) }
}

fn as_answer(view: ChargeView) -> Verdict {
    Verdict::Charge(Box::new(view))
}

/// A decision after Get Charge showed these charges and nobody looked at the permission.
fn read_charges(intent: ChargeIntent, charges: Vec<ChargeView>, now: Timestamp) -> Decision {
    let charges = charges.into_iter().map(|view| (view.id.clone(), ChargeLook::Seen(view))).collect();
    decide(&case(vec![intent]), &Findings { look: Look::NotAsked, charges, may_act: true }, now, &policies(), OURS)
}

fn silence() -> Verdict {
    Verdict::Ambiguous { why: "no answer within the time-out".to_owned(), retry_after: None }
}

fn hint(object_type: ObjectType, object: &str, published_at: Timestamp) -> Hint {
    let note = HintNote {
        message_id: "m-1".to_owned(),
        published_at,
        refusals: 0,
        not_before: None,
        swept_since: None,
        for_intent: None,
    };
    Hint { object_type, object_id: object.parse().unwrap(), note }
}

fn heard(published_at: Timestamp) -> Hint {
    hint(ObjectType::ChargePermission, "C01-0000000-0000001", published_at)
}

fn planned(draft: &Draft) -> (Timestamp, Why) {
    match draft.intent.stage() {
        Stage::Scheduled { at, why } => (*at, *why),
        other => panic!("expected a plan, got {other:?}"),
    }
}

fn is_parked_for_instrument(draft: &Draft) -> bool {
    matches!(draft.intent.stage(), Stage::Parked { park: Park::Instrument { .. }, .. })
}

fn is_parked_for_attention(draft: &Draft) -> bool {
    matches!(draft.intent.stage(), Stage::Parked { park: Park::Attention, .. })
}

/// The `kind` of each alert.
fn alerts(events: &[crate::model::event::Event]) -> Vec<String> {
    events
        .iter()
        .filter(|event| event.kind == "amazonpay.account.attention.v1")
        .map(|event| {
            let data: Value = serde_json::from_str(&event.data).unwrap();
            data["kind"].as_str().unwrap().to_owned()
        })
        .collect()
}

fn declines() -> impl Iterator<Item = Verdict> {
    Decline::ALL.into_iter().map(Verdict::Declined)
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::MonthlyLimit,
        Refusal::PermissionStatus,
        Refusal::NewCheckout("MFANotCompleted".to_owned()),
        Refusal::NotUnderstood("InvalidRequest".to_owned()),
    ]
}

/// The end of an intent: why, and whether that is certain.
fn end(draft: &Draft) -> (&str, Outcome) {
    match draft.intent.stage() {
        Stage::Abandoned { reason, outcome, .. } => (reason, *outcome),
        Stage::Canceled { outcome, .. } => ("canceled", *outcome),
        other => panic!("expected an end, got {other:?}"),
    }
}
