//! What a charge found at Amazon does to the intent it was made for: by the answer to a send, by Get Charge on a pending charge, or
//! because a notification named it.

use jiff::Timestamp;
use serde_json::json;

use super::draft::Draft;
use super::policy::{Policy, Sweep};
use super::settle::{ask_again, confirm, declined};
use super::{authorization, capture};
use crate::model::charge::{ChargeState, ChargeView};
use crate::model::charge_intent::{NumberStatus, Outcome, RECOVERY, Stage};
use crate::model::event::{Event, EventType};
use crate::model::ids::ChargeId;
use crate::model::verdict::Decline;

/// The answer to a send named this charge. The number's status is already `Answered`.
pub fn answered(draft: &mut Draft, view: &ChargeView, now: Timestamp, policy: &Policy) {
    let number = draft.intent.number.value;
    follow(draft, view, number, now, policy);
}

/// A charge was read because a notification named it or because it was pending. Only a success resolves an unknown number, or the
/// very charge that the intent follows: a declined charge may belong to an earlier number, or to an earlier copy of this one, and
/// reading a declined charge once more does not confirm its decline.
pub fn found(draft: &mut Draft, view: &ChargeView, now: Timestamp, policy: &Policy) {
    let number = view.tag.as_ref().map_or(draft.intent.number.value, |tag| tag.number);
    if draft.intent.stage().is_terminal() {
        let known = draft.intent.progress.charge.as_ref() == Some(&view.id);
        found_after_the_end(draft, view, known, number, now);
        return;
    }
    let known = follows(draft, &view.id);
    // What a recovery holds gets out by a success or by the operator, never by news about an older number.
    let held = matches!(draft.intent.stage(), Stage::Held { reason } if reason == RECOVERY);
    if held && !view.state.is_success() {
        return;
    }
    if view.state.is_success() && !known && holds_another_charge(draft) {
        second_success(draft, view);
        return;
    }
    if known || view.state.is_success() {
        if number == draft.intent.number.value {
            // The last send was never answered. If it was not the first, its copy may still be under way beside the one that made
            // this charge: should the charge be declined, that is confirmed first.
            draft.intent.number.tainted |= draft.is_unknown() && draft.intent.number.sends > 1;
            draft.intent.number.status = NumberStatus::Answered;
        }
        follow(draft, view, number, now, policy);
    }
}

/// Whether the intent waits for what becomes of this charge.
fn follows(draft: &Draft, id: &ChargeId) -> bool {
    match draft.intent.stage() {
        Stage::Pending { charge, .. } | Stage::Authorized { charge, .. } => charge == id,
        Stage::Held { .. } => draft.intent.progress.charge.as_ref() == Some(id),
        _ => false,
    }
}

/// Whether money is already held or taken for the intent.
fn holds_another_charge(draft: &Draft) -> bool {
    matches!(draft.intent.stage(), Stage::Authorized { .. } | Stage::Captured { .. })
}

fn found_after_the_end(draft: &mut Draft, view: &ChargeView, known: bool, number: u32, now: Timestamp) {
    if !view.state.is_success() {
        return;
    }
    match draft.intent.stage() {
        Stage::Captured { .. } if known => {}
        Stage::Captured { .. } => second_success(draft, view),
        Stage::Canceled { outcome, .. } | Stage::Abandoned { outcome, .. }
            if *outcome == Outcome::Unverified && view.state == ChargeState::Captured =>
        {
            draft.capture(&view.id, view.captured, number, now);
        }
        Stage::Canceled { outcome: Outcome::Unverified, .. } if view.state == ChargeState::Authorized => {
            // Nobody else will let go of the buyer's money: the caller was told that this is canceled.
            draft.left_over.push(view.id.clone());
            if draft.left_over.len() > 1 {
                // Told when it is its turn.
                return;
            }
            draft.alert(
                "charge_after_end",
                "a charge was authorised for an intent that was canceled; it is canceled at Amazon now, once",
                json!({ "chargeId": view.id, "chargeState": view.state }),
            );
        }
        _ => draft.alert(
            "charge_after_end",
            "a charge succeeded for an intent that has ended; refund or keep it",
            json!({ "chargeId": view.id, "chargeState": view.state }),
        ),
    }
}

/// Two charges succeeded for one intent. It cannot be undone here; it is never ignored.
fn second_success(draft: &mut Draft, view: &ChargeView) {
    let first = draft.intent.progress.charge.clone();
    draft.alert(
        "duplicate_charge",
        "two charges succeeded for one intent: refund one of them",
        json!({ "chargeIds": [first, view.id] }),
    );
}

/// The intent follows the state of its charge.
pub(super) fn follow(draft: &mut Draft, view: &ChargeView, number: u32, now: Timestamp, policy: &Policy) {
    let of_another_number = number != draft.intent.number.value && draft.intent.next_send_repeats();
    if matches!(view.state, ChargeState::CaptureInitiated | ChargeState::Captured) {
        capture::resolve(draft);
    }
    match &view.state {
        // The charge of an earlier number came to nothing: that says nothing about the number that was sent after it.
        ChargeState::Canceled | ChargeState::Declined if of_another_number => {
            if draft.intent.capture_wish().is_some() {
                capture::forget(draft);
            }
            ask_again(draft, now, policy);
        }
        ChargeState::Canceled | ChargeState::Declined if capture::was_authorized(&draft.intent) => {
            capture::lost(draft, view, now, policy);
        }
        ChargeState::Captured => draft.capture(&view.id, view.captured, number, now),
        ChargeState::Authorized => match draft.intent.stage() {
            Stage::Authorized { .. } => authorization::seen_again(draft, view, now),
            // Held for its capture: that it is authorised is no news.
            Stage::Held { reason } if reason != RECOVERY && draft.intent.is_capture_unknown() => {}
            _ => draft.authorize(&view.id, now, view.expires_at),
        },
        ChargeState::AuthorizationInitiated | ChargeState::CaptureInitiated => pending(draft, view, now),
        ChargeState::Canceled if draft.intent.cancel_requested_at.is_some() => draft.cancel(now, end_of(draft)),
        ChargeState::Canceled => {
            let reason = view.reason.clone().unwrap_or_else(|| "Canceled".to_owned());
            draft.intent.progress.last_reason = Some(reason.clone());
            draft.abandon_with(now, &reason, end_of(draft), json!({ "chargeId": view.id }));
        }
        ChargeState::Declined => charge_declined(draft, view, now, policy),
        ChargeState::Other(state) => {
            pending(draft, view, now);
            let extra = json!({ "chargeId": view.id, "chargeState": state });
            draft.alert("unknown_charge_state", "Amazon reports a charge state that is not known here", extra);
        }
    }
}

/// How certain the end is when the charge of the number was canceled: another copy of a tainted send may still become a charge.
fn end_of(draft: &Draft) -> Outcome {
    if draft.intent.number.tainted { Outcome::Unverified } else { Outcome::Verified }
}

fn pending(draft: &mut Draft, view: &ChargeView, now: Timestamp) {
    match draft.intent.stage() {
        // The money of another charge is under way: nothing may be charged again while it is, so that one is followed.
        Stage::Pending { charge, .. } if *charge != view.id => {
            second_success(draft, view);
            draft.pend(&view.id, now, view.state.as_str());
        }
        Stage::Pending { since, .. } => draft.intent.progress.look_at = Some(Sweep::Pending(*since).next(now)),
        // A charge that is still pending is no reason to take the intent from the operator.
        Stage::Held { .. } => {}
        _ => draft.pend(&view.id, now, view.state.as_str()),
    }
}

/// The charge of the current number was declined after all. If the send that gave it was tainted, another copy may still be accepted:
/// the decline is confirmed first, and the same charge coming back declined is final.
fn charge_declined(draft: &mut Draft, view: &ChargeView, now: Timestamp, policy: &Policy) {
    let reason = view.reason.as_deref().unwrap_or("Declined");
    draft.intent.progress.charge = Some(view.id.clone());
    let confirmed = draft.intent.progress.declined_charge.as_ref() == Some(&view.id);
    if draft.intent.number.tainted && !confirmed {
        draft.intent.progress.declined_charge = Some(view.id.clone());
        // Not resolved: an earlier copy may still become another charge.
        draft.intent.number.status = NumberStatus::Unknown;
        confirm(draft, reason, now, policy);
        return;
    }
    if let Some(decline) = Decline::parse(reason) {
        declined(draft, decline, now, policy);
    } else {
        draft.tell(EventType::ChargeDeclined, json!({ "reasonCode": reason, "chargeId": view.id }));
        draft.next_number();
        draft.park_for_attention(now, policy, reason);
    }
}

/// `charge.unmatched`: a charge of this permission that carries no tag of ours, or the tag of an intent we do not have.
#[must_use]
pub fn unmatched(view: &ChargeView) -> Event {
    Event::new(
        EventType::ChargeUnmatched,
        &json!({
            "chargeId": view.id,
            "chargePermissionId": view.permission,
            "chargeAmount": view.amount,
            "chargeState": view.state,
            "reasonCode": view.reason,
        }),
    )
}
