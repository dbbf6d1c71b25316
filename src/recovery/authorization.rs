//! An authorisation waits for its capture, is canceled, or lapses: it always comes to an end.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::capture;
use super::decide::{Context, Want};
use super::draft::Draft;
use super::policy::{Sweep, later};
use crate::model::charge::{ChargeLook, ChargeState, ChargeView};
use crate::model::charge_intent::{ChargeIntent, Stage};
use crate::model::event::EventType;
use crate::model::ids::ChargeId;

/// How long an authorisation lasts where Amazon does not say when it ends.
/// Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/charge.html>.
const LIFETIME: Duration = Duration::from_hours(30 * 24);
/// `charge.expiring` is told so long before the end, once.
const WARNED_BEFORE: SignedDuration = SignedDuration::from_hours(5 * 24);
/// The first look after the end: Amazon's clock decides, not ours.
const LOOK_AFTER: Duration = Duration::from_hours(1);
/// An authorisation that should be gone since then, and is not, needs a person.
const OVERDUE: Duration = Duration::from_hours(7 * 24);

/// When the authorisation lapses; `None` if the intent has none.
#[must_use]
pub fn expires_at(intent: &ChargeIntent) -> Option<Timestamp> {
    let Stage::Authorized { expires_at, .. } = intent.stage() else { return None };
    expires_at.or_else(|| Some(later(intent.progress.authorized_at?, LIFETIME)))
}

/// The next look at an authorised charge: daily, and at the times when there is something to tell or to find. One that Amazon should
/// capture by itself is looked at as a pending charge.
pub(super) fn next_look(intent: &ChargeIntent, now: Timestamp) -> Timestamp {
    let sweep = match intent.progress.authorized_at {
        Some(since) if intent.request.capture_now => Sweep::Pending(since),
        _ => Sweep::Quiet,
    };
    let Some(end) = expires_at(intent) else { return sweep.next(now) };
    let after = later(end, LOOK_AFTER);
    let usual = if now >= after { Sweep::Pending(end).next(now) } else { sweep.next(now) };
    [warned_at(end), after].into_iter().filter(|at| *at > now).fold(usual, Timestamp::min)
}

fn warned_at(end: Timestamp) -> Timestamp {
    end.checked_sub(WARNED_BEFORE).unwrap_or(Timestamp::MIN)
}

/// The charge was seen authorised again.
pub(super) fn seen_again(draft: &mut Draft, view: &ChargeView, now: Timestamp) {
    draft.intent.progress.authorized_at.get_or_insert(now);
    if let Stage::Authorized { expires_at, .. } = &mut draft.intent.progress.stage {
        *expires_at = view.expires_at.or(*expires_at);
    }
    draft.intent.progress.look_at = Some(next_look(&draft.intent, now));
}

/// What is to be done about an authorisation now.
pub(super) fn advance(draft: &mut Draft, charge: &ChargeId, context: &Context<'_>) -> Want {
    let now = context.now;
    let look = context.charges.iter().find(|(read, _)| read == charge).map(|(_, look)| look);
    let ours = |view: &ChargeView| view.release_environment.is_none_or(|theirs| theirs == context.ours);
    // Get Charge in this very reconciliation: it stands in for the look that a new number of Create Charge needs.
    let stands = matches!(look, Some(ChargeLook::Seen(view)) if view.state == ChargeState::Authorized && ours(view));
    if draft.intent.cancel_requested_at.is_some() {
        return cancel(draft, charge, look.is_some(), stands, context);
    }
    let Some(end) = expires_at(&draft.intent) else { return capture_now(draft, look.is_some(), stands, now) };
    if now >= later(end, OVERDUE) && (stands || matches!(look, Some(ChargeLook::Refused(400 | 404)))) {
        draft.hold("authorization_past_its_end");
        return Want::Nothing;
    }
    if stands && !draft.intent.progress.expiring_told && now >= warned_at(end) && now < end {
        draft.intent.progress.expiring_told = true;
        let hint = "capture it before then, or cancel it; afterwards only a new charge helps";
        draft.tell(EventType::ChargeExpiring, json!({ "chargeId": charge, "expiresAt": end, "whatToDo": hint }));
    }
    capture_now(draft, look.is_some(), stands, now)
}

/// The wished capture, if it is due and Get Charge has just said that there is something to capture.
fn capture_now(draft: &mut Draft, looked: bool, stands: bool, now: Timestamp) -> Want {
    if draft.intent.capture_due().is_none_or(|at| at > now) || !looked {
        return Want::Nothing;
    }
    if stands {
        return Want::Capture;
    }
    capture::back_off(draft, now);
    Want::Nothing
}

/// A canceled intent. What became of a capture that was sent is found out first, and without sending it again: once no copy can be
/// accepted any more, a charge that is still authorised was not captured.
fn cancel(draft: &mut Draft, charge: &ChargeId, looked: bool, stands: bool, context: &Context<'_>) -> Want {
    let now = context.now;
    if draft.intent.is_capture_unknown() {
        let until = capture::copies_until(&draft.intent, context.policy_of(draft)).unwrap_or(now);
        if !stands {
            if looked && draft.intent.capture_due().is_some_and(|at| at <= now) {
                capture::back_off(draft, now);
            }
            return Want::Nothing;
        }
        if now < until {
            capture::look_at(draft, until);
            return Want::Nothing;
        }
        capture::next_number(draft);
    }
    if draft.intent.progress.cancel_retry_at.is_none_or(|at| at <= now) {
        return Want::CancelCharge(charge.clone());
    }
    Want::Nothing
}
