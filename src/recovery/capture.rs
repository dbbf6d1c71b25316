//! What the answer to Capture Charge, or the state of a charge that was to be captured, does to its intent.
//!
//! The send protocol is that of Create Charge, with two differences. Get Charge shows what became of a capture, so where no copy of a
//! send can be accepted any more (last mark + X) its answer settles the number without another send. And a declined capture is the end
//! of its intent: the authorisation is gone with it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::decide::ACCOUNT_PROBE;
use super::draft::Draft;
use super::found;
use super::policy::{Policy, later};
use super::settle::REFUSED_ALONE;
use crate::model::capture::CapturePlan;
use crate::model::charge::{ChargeState, ChargeView};
use crate::model::charge_intent::{ChargeIntent, NumberStatus, Outcome, Stage, Why};
use crate::model::event::{Event, EventType};
use crate::model::verdict::{Decline, Refusal, Verdict};

/// How long to wait after `InvalidChargeStatus` for a charge that Get Charge shows authorised all the same.
const CONFLICT_DELAY: Duration = Duration::from_hours(1);
/// How often in a row that is believed.
const MAX_CONFLICTS: u32 = 3;
/// The reason code for a charge that is not authorised (any more).
const INVALID_STATUS: &str = "InvalidChargeStatus";

/// Applies the verdict on the capture that was just marked. `draft.intent.capture` already carries that mark.
pub fn settle_capture(draft: &mut Draft, verdict: &Verdict, now: Timestamp, policy: &Policy) {
    let Stage::Authorized { charge, .. } = draft.intent.stage().clone() else { return };
    let Some(number) = draft.intent.capture.as_ref().map(|capture| capture.number.clone()) else { return };
    let doubtful = number.sends > 1 || number.tainted;
    let failure_answered = draft.intent.progress.capture_plan.as_ref().is_some_and(|plan| plan.failure_answered);
    match verdict {
        Verdict::Charge(view) if view.id == charge => answered(draft, view, number.tainted, now, policy),
        Verdict::Charge(_) => not_resolved(draft, "the answer names another charge", None, now, policy),
        // A ProcessingFailure is a 500: its copy may still be under way inside Amazon. As in `settle` an earlier answer counts, not an
        // earlier mark.
        Verdict::Declined(decline) if number.tainted || (is_failure(*decline) && !failure_answered) => {
            let at = copies_until(&draft.intent, policy).unwrap_or(now);
            plan(draft, at, Why::Confirmation, decline.as_str());
            plan_of(draft, at).failure_answered |= is_failure(*decline);
        }
        Verdict::Declined(decline) => declined(draft, *decline, now),
        Verdict::Refused(refusal) if doubtful => not_resolved(draft, refusal.code(), None, now, policy),
        Verdict::Refused(refusal) => refused(draft, refusal, now),
        Verdict::DuplicateKey => {
            draft.intent.progress.last_reason = Some("DuplicateIdempotencyKey".to_owned());
            draft.hold("DuplicateIdempotencyKey");
        }
        Verdict::AccountFault(reason) => {
            let alone = capture_refused_alone(&draft.intent, verdict);
            if alone {
                draft.alert("charge_refused", REFUSED_ALONE, json!({ "reasonCode": reason }));
            }
            // With the whole account it is due at once, and waits for the probe.
            let at = if alone { later(now, 4 * ACCOUNT_PROBE) } else { now };
            plan(draft, at, Why::Repeat, reason);
        }
        Verdict::Ambiguous { why, retry_after } => not_resolved(draft, why, *retry_after, now, policy),
    }
}

fn is_failure(decline: Decline) -> bool {
    decline == Decline::ProcessingFailure
}

/// As [`super::settle::refused_alone`], of a capture.
#[must_use]
pub fn capture_refused_alone(before: &ChargeIntent, verdict: &Verdict) -> bool {
    let Verdict::AccountFault(reason) = verdict else { return false };
    let repeats = before.capture.as_ref().is_some_and(|capture| capture.number.sends > 1);
    repeats && before.progress.last_reason.as_ref() == Some(reason)
}

/// 2xx with the charge. That it is authorised says nothing about its capture, whatever the status of the answer.
fn answered(draft: &mut Draft, view: &ChargeView, tainted: bool, now: Timestamp, policy: &Policy) {
    if matches!(view.state, ChargeState::Authorized | ChargeState::AuthorizationInitiated) {
        return not_resolved(draft, view.state.as_str(), None, now, policy);
    }
    if !tainted {
        resolve(draft);
    }
    let number = view.tag.as_ref().map_or(draft.intent.number.value, |tag| tag.number);
    found::follow(draft, view, number, now, policy);
}

/// Until when a copy of a capture that was sent may still be accepted; `None` if there is none that nobody heard of.
pub(super) fn copies_until(intent: &ChargeIntent, policy: &Policy) -> Option<Timestamp> {
    let number = &intent.capture.as_ref()?.number;
    let open = number.status == NumberStatus::Unknown || (number.status == NumberStatus::Answered && number.tainted);
    number.last_mark.filter(|_| open).map(|mark| later(mark, policy.confirmation_delay))
}

/// The charge was captured, or its capture is running: whichever copy did it, the number is resolved.
pub(super) fn resolve(draft: &mut Draft) {
    if let Some(capture) = &mut draft.intent.capture
        && capture.number.status == NumberStatus::Unknown
    {
        capture.number.status = NumberStatus::Answered;
    }
}

/// The number is resolved and nothing was captured under it: the next send takes the next one.
pub(super) fn next_number(draft: &mut Draft) {
    if let Some(capture) = &mut draft.intent.capture {
        capture.next_number();
    }
    draft.intent.progress.capture_plan = None;
}

/// Whether the charge of the intent was authorised for a later capture: what becomes of it then is no answer to Create Charge.
pub(super) fn was_authorized(intent: &ChargeIntent) -> bool {
    let authorized = intent.progress.authorized_at.is_some() || matches!(intent.stage(), Stage::Authorized { .. });
    !intent.request.capture_now && authorized
}

/// An authorised charge was canceled or declined. While a copy of a capture may still be accepted that is looked at once more, so that
/// an end is certain.
pub(super) fn lost(draft: &mut Draft, view: &ChargeView, now: Timestamp, policy: &Policy) {
    let until = copies_until(&draft.intent, policy).filter(|until| now < *until);
    // What is held is not looked at by itself: its end is uncertain instead.
    let held = matches!(draft.intent.stage(), Stage::Held { .. });
    if let Some(until) = until.filter(|_| !held) {
        look_at(draft, until);
        return;
    }
    resolve(draft);
    let number = &draft.intent.number;
    let create_copy_until =
        number.last_mark.filter(|_| number.tainted).map(|mark| later(mark, policy.confirmation_delay));
    let certain = until.is_none() && create_copy_until.is_none_or(|until| until <= now);
    let outcome = if certain { Outcome::Verified } else { Outcome::Unverified };
    let reason = view.reason.clone().unwrap_or_else(|| view.state.as_str().to_owned());
    draft.intent.progress.last_reason = Some(reason.clone());
    if view.state == ChargeState::Declined {
        draft.tell_capture(EventType::ChargeDeclined, json!({ "reasonCode": reason, "chargeId": view.id }));
        end(draft, &reason, outcome, now);
    } else if draft.intent.cancel_requested_at.is_some() {
        draft.cancel(now, outcome);
    } else {
        draft.abandon_with(now, &reason, outcome, json!({ "chargeId": view.id }));
    }
}

/// Looks again then, and does nothing about the capture before.
pub(super) fn look_at(draft: &mut Draft, at: Timestamp) {
    draft.intent.progress.look_at = Some(at);
    defer(draft, at);
}

/// Moves the plan of the capture without telling.
pub fn defer(draft: &mut Draft, until: Timestamp) {
    if draft.intent.capture_wish().is_some() {
        plan_of(draft, until).at = until;
    }
}

/// Get Charge gave no answer: after 1, 2, 4, 8 and then 15 minutes again.
pub(super) fn back_off(draft: &mut Draft, now: Timestamp) {
    let plan = plan_of(draft, now);
    let minutes = 1_u64 << plan.failed_looks.min(4);
    plan.failed_looks = plan.failed_looks.saturating_add(1);
    plan.at = later(now, Duration::from_mins(minutes.min(15)));
}

/// A definite decline.
fn declined(draft: &mut Draft, decline: Decline, now: Timestamp) {
    let reason = decline.as_str();
    draft.intent.progress.last_reason = Some(reason.to_owned());
    if decline == Decline::ProcessingFailure {
        // Amazon's own fault: the authorisation may stand. Get Charge says whether this is the end.
        return give_up(draft, reason, now);
    }
    resolve(draft);
    draft.tell_capture(EventType::ChargeDeclined, json!({ "reasonCode": reason }));
    end(draft, reason, Outcome::Verified, now);
}

fn end(draft: &mut Draft, reason: &str, outcome: Outcome, now: Timestamp) {
    if draft.intent.cancel_requested_at.is_some() {
        return draft.cancel(now, outcome);
    }
    let extra = if outcome == Outcome::Verified && !draft.is_unknown() {
        json!({ "send": "capture", "whatToDo": AFTER_A_DECLINE })
    } else {
        json!({ "send": "capture" })
    };
    draft.abandon_with(now, reason, outcome, extra);
}

const AFTER_A_DECLINE: &str = "the capture was declined and the authorisation is gone with it: submit a new charge under another id, \
                               or ask for another payment method";

/// A refusal of a number's first, untainted send: nothing was captured under it.
fn refused(draft: &mut Draft, refusal: &Refusal, now: Timestamp) {
    let code = refusal.code();
    draft.intent.progress.last_reason = Some(code.to_owned());
    let conflicts = plan_of(draft, now).conflicts.saturating_add(1);
    if code != INVALID_STATUS || conflicts > MAX_CONFLICTS || draft.intent.cancel_requested_at.is_some() {
        return give_up(draft, code, now);
    }
    // Amazon says that it is not authorised: Get Charge decides. If it says otherwise, a new number, later.
    next_number(draft);
    draft.intent.progress.capture_plan =
        Some(CapturePlan { at: later(now, CONFLICT_DELAY), conflicts, failed_looks: 0, failure_answered: false });
    draft.intent.progress.look_at = Some(now);
}

/// The wish is over, the charge stays authorised as far as we know: the caller may want another capture, or cancel.
fn give_up(draft: &mut Draft, reason: &str, now: Timestamp) {
    draft.tell_capture(EventType::ChargeDeclined, json!({ "reasonCode": reason }));
    if draft.intent.cancel_requested_at.is_none() {
        let message =
            "Amazon refuses to capture an authorisation; it stands: ask for another capture, or cancel the charge";
        let charge = draft.intent.progress.charge.clone();
        draft.alert("capture_refused", message, json!({ "reasonCode": reason, "chargeId": charge }));
    }
    forget(draft);
    draft.intent.progress.look_at = Some(now);
}

/// Gives the wish up and resolves its number.
pub(super) fn forget(draft: &mut Draft) {
    next_number(draft);
    if let Some(capture) = &mut draft.intent.capture {
        capture.clear();
    }
}

/// Nothing was learned: the same number again later.
fn not_resolved(draft: &mut Draft, reason: &str, retry_after: Option<Duration>, now: Timestamp, policy: &Policy) {
    let sends = draft.intent.capture.as_ref().map_or(0, |capture| capture.number.sends);
    let at = policy.repeat_after(&draft.intent, sends, now, retry_after);
    plan(draft, at, Why::Repeat, reason);
}

fn plan(draft: &mut Draft, at: Timestamp, why: Why, reason: &str) {
    draft.intent.progress.last_reason = Some(reason.to_owned());
    let plan = plan_of(draft, at);
    plan.at = at;
    plan.failed_looks = 0;
    draft.tell_capture(EventType::ChargeScheduled, json!({ "at": at, "why": why, "lastReason": reason }));
}

fn plan_of(draft: &mut Draft, at: Timestamp) -> &mut CapturePlan {
    draft.intent.progress.capture_plan.get_or_insert(CapturePlan {
        at,
        conflicts: 0,
        failed_looks: 0,
        failure_answered: false,
    })
}

impl Draft {
    /// Adds an event about the capture as it is now.
    pub fn tell_capture(&mut self, kind: EventType, extra: Value) {
        self.events.push(Event::of_capture(kind, &self.intent, extra));
    }
}
