//! Refunds and disputes: what to look at, what is told of what was seen, and when to look again.
//!
//! They decide nothing about charges, so they are judged beside [`decide`](super::decide): [`judge`] takes the decision that was made and
//! adds what is told of them and the fate of their hints.
//!
//! A refund or a dispute that Amazon has not decided keeps its hint, deferred: should its next notification be lost, the sweep finds the
//! change. The hint is the only clock; it lasts `REFUND_SWEEP` or `DISPUTE_SWEEP`, and then nobody asks any more.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::case::{Case, Decision, HintFate};
use super::decide::ACCOUNT_PROBE;
use super::hints::refused;
use super::policy::{DAY, Sweep, later};
use crate::model::charge_intent::ChargeIntent;
use crate::model::dispute::{DisputeState, DisputeView};
use crate::model::event::{Event, EventType};
use crate::model::hint::{Hint, HintNote, ObjectLook, ObjectType};
use crate::model::ids::{ChargeId, ChargePermissionId, DisputeId, Environment, IntentId, RefundId};
use crate::model::permission::{Look, ObjectMemory, PermissionRecord};
use crate::model::refund::{RefundState, RefundView};

/// A refund that is not decided is looked at for so long: hourly for a day, then six-hourly.
const REFUND_SWEEP: Duration = Duration::from_hours(7 * 24);
/// A dispute that is not decided is looked at daily for so long after its last change.
const DISPUTE_SWEEP: Duration = Duration::from_hours(30 * 24);
/// A hint whose object Amazon shows neither so nor so is put aside after this.
const UNANSWERED: Duration = Duration::from_hours(31 * 24);
/// What is remembered of an object of the other environment.
const FOREIGN: &str = "environment mismatch";

/// The looks at refunds and disputes of one reconciliation.
#[derive(Debug, Clone, Default)]
pub struct ObjectFindings {
    /// The refunds.
    pub refunds: Vec<(RefundId, ObjectLook<RefundView>)>,
    /// The disputes.
    pub disputes: Vec<(DisputeId, ObjectLook<DisputeView>)>,
}

impl ObjectFindings {
    /// Whether a look met the account's fault: then no other is worth its call.
    #[must_use]
    pub fn met_account_fault(&self) -> bool {
        self.refunds.iter().any(|(_, look)| *look == ObjectLook::AccountFault)
            || self.disputes.iter().any(|(_, look)| *look == ObjectLook::AccountFault)
    }
}

/// The refunds that the hints ask for, the longest waiting first. A refund that our record knows as final costs no call.
pub(super) fn refunds_to_read(case: &Case, now: Timestamp) -> Vec<RefundId> {
    ready(case, ObjectType::Refund, now)
        .filter(|hint| !is_known_final(case, hint))
        .map(|hint| hint.object_id.to_refund_id())
        .collect()
}

/// The disputes that the hints ask for, the longest waiting first. None is ever final for us: a decided one may be decided anew.
pub(super) fn disputes_to_read(case: &Case, now: Timestamp) -> Vec<DisputeId> {
    ready(case, ObjectType::Chargeback, now).map(|hint| hint.object_id.to_dispute_id()).collect()
}

fn ready(case: &Case, object_type: ObjectType, now: Timestamp) -> impl Iterator<Item = &Hint> {
    let mut hints: Vec<&Hint> =
        case.hints.iter().filter(|hint| hint.object_type == object_type && hint.note.is_ready(now)).collect();
    hints.sort_by_key(|hint| (hint.note.published_at, &hint.object_id));
    hints.into_iter()
}

fn is_known_final(case: &Case, hint: &Hint) -> bool {
    case.record.objects.get(&hint.field()).is_some_and(|memory| RefundState::from(memory.seen.as_str()).is_final())
}

/// Adds to a decision what is told of the refunds and disputes that were looked at, and the fate of their hints. Returns how many
/// changes no notification told us of.
pub fn judge(
    case: &Case,
    found: &ObjectFindings,
    look: &Look,
    decision: &mut Decision,
    now: Timestamp,
    ours: Environment,
) -> usize {
    let fault = found.met_account_fault();
    let mut judge =
        Judge { case, now, ours, fault: fault || matches!(look, Look::AccountFault | Look::Refused), swept: 0 };
    let mut fates = std::mem::take(&mut decision.hints);
    for (hint, fate) in case.hints.iter().zip(&mut fates) {
        // The decision keeps what it leaves to us; what it puts aside with the whole permission stays aside.
        if *fate != HintFate::Keep || !hint.note.is_ready(now) {
            continue;
        }
        match hint.object_type {
            ObjectType::Refund if is_known_final(case, hint) => *fate = HintFate::Done,
            ObjectType::Refund => {
                let id = hint.object_id.to_refund_id();
                let look = found.refunds.iter().find(|(read, _)| *read == id).map(|(_, look)| look);
                *fate = judge.fate(hint, look.map(|look| seen(look, refund_sight)), decision);
            }
            ObjectType::Chargeback => {
                let id = hint.object_id.to_dispute_id();
                let look = found.disputes.iter().find(|(read, _)| *read == id).map(|(_, look)| look);
                *fate = judge.fate(hint, look.map(|look| seen(look, dispute_sight)), decision);
            }
            ObjectType::ChargePermission | ObjectType::Charge => {}
        }
    }
    decision.hints = fates;
    judge.swept
}

/// Remembers which of our charges were made for which intent, so that a refund or a dispute of one can be told with its `id`.
pub fn remember_owners<'a>(record: &mut PermissionRecord, intents: impl Iterator<Item = &'a ChargeIntent>) {
    for intent in intents {
        if let Some(charge) = &intent.progress.charge
            && record.owners.get(charge) != Some(&intent.id)
        {
            record.remember_owner(charge.clone(), intent.id.clone());
        }
    }
}

/// What was seen of an object, whichever kind it is.
struct Sight {
    /// What is remembered: another text is news.
    seen: String,
    /// Whether Amazon has still to decide.
    waits: bool,
    /// What is told of a change.
    event: Option<(EventType, Value)>,
    /// What a person must know of a change: an alert's kind and message.
    alert: Option<(&'static str, &'static str)>,
    /// What every event and alert about it carries.
    facts: Value,
    charge: Option<ChargeId>,
    release_environment: Option<Environment>,
}

fn seen<V>(look: &ObjectLook<V>, sight: fn(&V) -> Sight) -> ObjectLook<Box<Sight>> {
    match look {
        ObjectLook::Seen(view) => ObjectLook::Seen(Box::new(sight(view))),
        ObjectLook::Refused(status) => ObjectLook::Refused(*status),
        ObjectLook::AccountFault => ObjectLook::AccountFault,
        ObjectLook::Failed => ObjectLook::Failed,
    }
}

fn refund_sight(view: &RefundView) -> Sight {
    let event = match view.state {
        RefundState::Refunded => Some((EventType::RefundCompleted, json!({}))),
        RefundState::Declined => Some((EventType::RefundDeclined, json!({}))),
        RefundState::RefundInitiated | RefundState::Other(_) => None,
    };
    let unknown = matches!(view.state, RefundState::Other(_));
    Sight {
        seen: view.state.as_str().to_owned(),
        waits: !view.state.is_final(),
        event,
        alert: unknown.then_some(("unknown_refund_state", "Amazon reports a refund state that is not known here")),
        facts: json!({
            "refundId": view.id,
            "chargeId": view.charge,
            "refundAmount": view.amount,
            "state": view.state.as_str(),
            "reasonCode": view.reason,
        }),
        charge: view.charge.clone(),
        release_environment: view.release_environment,
    }
}

fn dispute_sight(view: &DisputeView) -> Sight {
    let unknown = matches!(view.state, DisputeState::Other(_));
    Sight {
        seen: json!([view.state.as_str(), view.resolution, view.reason, view.deadline]).to_string(),
        waits: view.state.is_open(),
        event: Some((
            EventType::DisputeUpdated,
            json!({ "disputeType": view.kind, "filingReason": view.filing_reason }),
        )),
        alert: unknown.then_some(("unknown_dispute_state", "Amazon reports a dispute state that is not known here")),
        facts: json!({
            "disputeId": view.id,
            "chargeId": view.charge,
            "disputeAmount": view.amount,
            "state": view.state.as_str(),
            "resolution": view.resolution,
            "reasonCode": view.reason,
            "merchantResponseDeadline": view.deadline,
        }),
        charge: view.charge.clone(),
        release_environment: view.release_environment,
    }
}

struct Judge<'a> {
    case: &'a Case,
    now: Timestamp,
    ours: Environment,
    /// Calling on makes no sense for now.
    fault: bool,
    swept: usize,
}

impl Judge<'_> {
    fn fate(&mut self, hint: &Hint, look: Option<ObjectLook<Box<Sight>>>, decision: &mut Decision) -> HintFate {
        match look {
            Some(ObjectLook::Seen(sight)) => self.observe(hint, &sight, decision),
            Some(ObjectLook::Refused(status)) => refused(hint, &status.to_string(), self.now),
            Some(ObjectLook::Failed) => self.again(hint, Duration::from_mins(1)),
            // Whether it is the account is for a look at a permission to say: one object must not halt everything.
            Some(ObjectLook::AccountFault) => self.again(hint, ACCOUNT_PROBE),
            None if self.fault => self.again(hint, ACCOUNT_PROBE),
            // There was no call left for it.
            None => HintFate::Keep,
        }
    }

    fn observe(&mut self, hint: &Hint, sight: &Sight, decision: &mut Decision) -> HintFate {
        let field = hint.field();
        let foreign = sight.release_environment.is_some_and(|theirs| theirs != self.ours);
        let text = if foreign { FOREIGN } else { &sight.seen };
        let before = decision.record.objects.get(&field).cloned();
        let before = before.as_ref();
        let news = before.is_none_or(|before| before.seen != *text);
        let waited_for = before.is_none_or(|before| !before.settled);
        // Forgotten for want of room, or new: then the hint knows how long it is followed.
        let since = before.filter(|_| !news).map(|before| before.since);
        let since = since.or(hint.note.swept_since.filter(|_| before.is_none())).unwrap_or(self.now);
        if news {
            self.tell(sight, foreign, decision);
            // The first look at an object that a notification named is no find of the sweep.
            self.swept += usize::from(hint.note.swept_since.is_some() && before.is_some());
        }
        let (until, next) = match hint.object_type {
            ObjectType::Refund => (later(since, REFUND_SWEEP), Sweep::Pending(since).next(self.now)),
            _ => (later(since, DISPUTE_SWEEP), later(self.now, DAY)),
        };
        let over = self.now >= until;
        let waits = sight.waits && !foreign;
        if waits && over && waited_for && hint.object_type == ObjectType::Refund {
            let message =
                "a refund has not been decided for seven days: it is looked at no more unless a notification names it";
            let data = with_facts(&self.case.permission, sight, &json!({ "since": since }), &decision.record);
            decision.events.push(Event::attention("refund_pending", message, data));
        }
        let memory = ObjectMemory { seen: text.to_owned(), since, settled: !waits || over };
        let remembered = decision.record.remember_object(field, memory);
        if foreign {
            return HintFate::Quarantine("the object belongs to the other environment".to_owned());
        }
        if waits && !over && remembered {
            let note = HintNote { refusals: 0, not_before: Some(next), swept_since: Some(since), ..hint.note.clone() };
            HintFate::Defer(note)
        } else {
            HintFate::Done
        }
    }

    fn tell(&self, sight: &Sight, foreign: bool, decision: &mut Decision) {
        let facts = |extra: &Value| with_facts(&self.case.permission, sight, extra, &decision.record);
        let mut events = Vec::new();
        if foreign {
            let message = "a refund or a dispute belongs to the other environment";
            events.push(Event::attention("environment_mismatch", message, facts(&json!({}))));
        } else {
            if let Some((kind, message)) = sight.alert {
                events.push(Event::attention(kind, message, facts(&json!({}))));
            }
            if let Some((kind, extra)) = &sight.event {
                events.push(Event::new(*kind, &facts(extra)));
            }
        }
        decision.events.append(&mut events);
    }

    /// After no answer that says anything. What a notification named is asked for again soon, then ever more slowly; what is swept
    /// has time. Neither goes on for ever.
    fn again(&self, hint: &Hint, least: Duration) -> HintFate {
        let asked_since = hint.note.swept_since.unwrap_or(hint.note.published_at);
        if self.now >= later(asked_since, UNANSWERED) {
            return HintFate::Quarantine("Amazon gave no answer that says anything for a month".to_owned());
        }
        let slow = 4 * ACCOUNT_PROBE;
        let wait = match hint.note.swept_since {
            None => Duration::try_from(self.now.duration_since(asked_since)).unwrap_or_default().clamp(least, slow),
            Some(_) => slow,
        };
        HintFate::Defer(HintNote { not_before: Some(later(self.now, wait)), ..hint.note.clone() })
    }
}

/// What an event about an object carries. What is not known is left out.
fn with_facts(permission: &ChargePermissionId, sight: &Sight, extra: &Value, record: &PermissionRecord) -> Value {
    let owner: Option<&IntentId> = sight.charge.as_ref().and_then(|charge| record.owners.get(charge));
    let mut data = json!({ "id": owner, "chargePermissionId": permission });
    for more in [&sight.facts, extra] {
        if let (Some(data), Some(more)) = (data.as_object_mut(), more.as_object()) {
            data.extend(more.clone());
        }
    }
    let known: Map<String, Value> = data
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    Value::Object(known)
}
