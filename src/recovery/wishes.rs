//! What people ask for while a charge is open, and what an operator says about one that is held.

use jiff::Timestamp;
use serde_json::json;

use super::case::{Case, Findings};
use super::draft::Draft;
use super::policy::{Policy, later};
use crate::model::charge::ChargeLook;
use crate::model::charge_intent::{ChargeIntent, NumberStatus, Outcome, RECOVERY, RetryWish, Stage, Trigger, Why};
use crate::model::event::Event;
use crate::model::hint::{Hint, ObjectType};
use crate::model::ids::Environment;

/// "Try it now", once. A fresh number is due, from whatever it waited for; an unknown one is asked about now, unless its confirmation
/// is planned: that one must not come before last mark + X. `notBefore` delays attempts, whoever asks.
pub(super) fn retry(draft: &mut Draft, now: Timestamp) {
    let Some(RetryWish { done: false, .. }) = draft.intent.wishes.retry else { return };
    if let Some(retry) = &mut draft.intent.wishes.retry {
        retry.done = true;
    }
    let fresh = draft.intent.number.status == NumberStatus::Fresh;
    match draft.intent.stage() {
        Stage::Scheduled { why: Why::Attempt, .. } | Stage::Parked { .. } if fresh => {
            draft.intent.progress.trigger = Trigger::Operator;
            draft.intent.progress.awaits_baseline = false;
            draft.schedule(now.max(draft.intent.progress.window_from), Why::Attempt);
        }
        Stage::Scheduled { why: Why::Repeat, at } if !fresh && *at > now => draft.schedule(now, Why::Repeat),
        _ => {}
    }
}

/// Whether a wish to retry still needs the permission to be looked at.
pub(super) fn wants_a_look(intent: &ChargeIntent) -> bool {
    intent.wishes.retry.is_some_and(|retry| !retry.done) && intent.number.status == NumberStatus::Fresh
}

/// The next thing that may be sent, for who asks for a retry: `Some` if a confirmation stands in the way until then.
#[must_use]
pub fn confirmation_planned(intent: &ChargeIntent) -> Option<Timestamp> {
    match intent.stage() {
        Stage::Scheduled { at, why: Why::Confirmation | Why::Closing } if intent.next_send_repeats() => Some(*at),
        _ => None,
    }
}

/// Why a held charge cannot be resolved in this way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolvable {
    /// It is not held.
    #[error("the charge is {0}: only a held charge can be resolved, or one whose end is unverified")]
    NotHeld(&'static str),
    /// A charge exists at Amazon.
    #[error(
        "Amazon made the charge {0} for it: a new number could charge twice. Resolve it as captured, or as abandoned"
    )]
    ChargeExists(String),
    /// The last send is too young.
    #[error("a send of it may still be accepted by Amazon: a new number is possible from {0} on")]
    TooSoon(Timestamp),
}

/// The operator gives a held charge up. What was sent for it may still turn out to be a charge.
///
/// # Errors
/// When it is not held.
pub fn give_up(intent: &ChargeIntent, now: Timestamp) -> Result<Draft, Unresolvable> {
    held(intent)?;
    let mut draft = Draft::new(intent.clone());
    let fresh = draft.intent.number.status == NumberStatus::Fresh;
    let outcome = if fresh { Outcome::Verified } else { Outcome::Unverified };
    if draft.intent.cancel_requested_at.is_some() {
        draft.cancel(now, outcome);
    } else {
        draft.abandon(now, "operator", outcome);
    }
    Ok(draft)
}

/// The operator has seen that no charge exists: the next number, in a window of its own. The maximum of attempts holds.
///
/// # Errors
/// When it is not held, when a charge is known, or within X after the last mark.
pub fn new_number(intent: &ChargeIntent, policy: &Policy, now: Timestamp) -> Result<Draft, Unresolvable> {
    held(intent)?;
    // A recovery makes every number unknown again; the charge that the data names exists all the same.
    let recovering = matches!(intent.stage(), Stage::Held { reason } if reason == RECOVERY);
    let known = intent.number.status == NumberStatus::Answered || recovering;
    if let Some(charge) = intent.progress.charge.as_ref().filter(|_| known) {
        return Err(Unresolvable::ChargeExists(charge.to_string()));
    }
    let at = policy.confirmation_at(intent, now);
    if intent.number.last_mark.is_some() && at > now {
        return Err(Unresolvable::TooSoon(at));
    }
    let mut draft = Draft::new(intent.clone());
    draft.next_number();
    let progress = &mut draft.intent.progress;
    progress.trigger = Trigger::Operator;
    progress.conflicts = 0;
    progress.closing_since = None;
    progress.look_at = None;
    // What was held may have outlived its window.
    progress.window_from = now;
    progress.stood_still_ms = 0;
    progress.month_park = None;
    draft.schedule(now, Why::Attempt);
    Ok(draft)
}

fn held(intent: &ChargeIntent) -> Result<(), Unresolvable> {
    match intent.stage() {
        Stage::Held { .. } => Ok(()),
        stage => Err(Unresolvable::NotHeld(stage.name())),
    }
}

/// Whether a hint is an operator's word about a charge: then the charge is read, whatever is known of it.
pub(super) fn is_a_claim(hint: &Hint) -> bool {
    hint.object_type == ObjectType::Charge && hint.note.for_intent.is_some()
}

/// An operator said of a charge that it is the one of an intent. It is only believed if Amazon shows it as a success that was made for
/// that intent; otherwise he is told.
pub(super) fn refuted(case: &Case, findings: &Findings, now: Timestamp, ours: Environment) -> Vec<Event> {
    let ready = |hint: &&Hint| is_a_claim(hint) && hint.note.not_before.is_none_or(|at| at <= now);
    let refutation = |hint: &Hint| {
        let intent = hint.note.for_intent.as_ref()?;
        let charge = hint.object_id.to_charge_id();
        let (_, look) = findings.charges.iter().find(|(id, _)| *id == charge)?;
        let (why, state) = match look {
            ChargeLook::Refused(_) if hint.note.refusals > 0 => return None,
            ChargeLook::Refused(_) => ("Amazon does not show the charge that an operator named", None),
            ChargeLook::Seen(view) if view.tag.as_ref().is_none_or(|tag| tag.intent != *intent) => {
                ("the charge that an operator named was not made for this intent", Some(&view.state))
            }
            ChargeLook::Seen(view) if view.release_environment.is_some_and(|theirs| theirs != ours) => {
                ("the charge that an operator named belongs to the other environment", Some(&view.state))
            }
            ChargeLook::Seen(view) if !view.state.is_success() => {
                ("the charge that an operator named did not succeed", Some(&view.state))
            }
            ChargeLook::Seen(_) | ChargeLook::Failed | ChargeLook::AccountFault => return None,
        };
        let data =
            json!({ "id": intent, "chargePermissionId": case.permission, "chargeId": charge, "chargeState": state });
        Some(Event::attention("resolution_refuted", why, data))
    };
    case.hints.iter().filter(ready).filter_map(refutation).collect()
}

/// When a paused charge is looked at next: never for what could be sent.
pub(super) fn due_while_paused(intent: &ChargeIntent) -> Option<Timestamp> {
    match intent.stage() {
        Stage::Scheduled { at, .. } => Some(intent.progress.look_at.unwrap_or(*at)),
        Stage::Parked { since, .. } => {
            Some(intent.progress.look_at.unwrap_or_else(|| later(*since, super::policy::DAY)))
        }
        _ => None,
    }
}
