//! May a number that was never marked be sent? Whether the instrument was mended, and whether the permission allows it.

use std::time::Duration;

use jiff::Timestamp;

use super::decide::{Context, Want};
use super::draft::Draft;
use super::policy::{Policy, later};
use super::reminders;
use crate::model::charge_intent::{Outcome, Park, Stage, Trigger, Why};
use crate::model::permission::{Look, PermissionState, PermissionView};

/// A running charge is waited for this long before the next look.
const BUSY_DELAY: Duration = Duration::from_hours(1);
/// A notification published sooner than this after our decline may be its echo.
const ECHO_SPAN: Duration = Duration::from_mins(15);
/// A bare notification releases at most once in this time.
const NOTIFIED_RELEASE_GAP: Duration = Duration::from_hours(24);

/// The number was never marked: nothing can have been charged under it.
pub(super) fn advance_fresh(draft: &mut Draft, context: &Context<'_>) -> Want {
    let now = context.now;
    if draft.intent.cancel_requested_at.is_some() {
        draft.cancel(now, Outcome::Verified);
        return Want::Nothing;
    }
    if context.closed {
        draft.abandon(now, "charge_permission_closed", Outcome::Verified);
        return Want::Nothing;
    }
    let policy = context.policy_of(draft);
    let used_up = policy.is_used_up(&draft.intent);
    let may_end = context.may_end() && !draft.intent.is_paused();
    if used_up || (may_end && now >= policy.attempts_end(&draft.intent)) {
        let reason = draft.intent.progress.last_reason.clone().unwrap_or_else(|| "window_ended".to_owned());
        draft.abandon(now, &reason, Outcome::Verified);
        return Want::Nothing;
    }
    if let Some(until) = context.closing_until {
        // Its closing was asked for: nothing new is sent and nobody is asked for anything, whatever comes of it.
        if matches!(draft.intent.stage(), Stage::Scheduled { at, .. } if *at <= now) {
            draft.defer(until);
        }
        if let Stage::Parked { park: Park::Instrument { echo_look_at, .. }, .. } = &mut draft.intent.progress.stage {
            *echo_look_at = None;
        }
        return Want::Nothing;
    }
    if let Stage::Parked { since, park } = draft.intent.stage().clone() {
        release_if_mended(draft, since, park, context);
        reminders::remind(draft, context);
    }
    match draft.intent.stage() {
        Stage::Scheduled { at, .. } => gate(draft, *at, context),
        _ => Want::Nothing,
    }
}

/// Whether the buyer has mended the instrument since the decline, and if so, one attempt now.
fn release_if_mended(draft: &mut Draft, since: Timestamp, park: Park, context: &Context<'_>) {
    let Park::Instrument { baseline, non_chargeable_seen, echo_look_at } = park else { return };
    let Some(view) = context.look.view() else { return };
    let now = context.now;
    if std::mem::take(&mut draft.intent.progress.awaits_baseline) {
        let non_chargeable_seen = view.needs_the_buyer();
        let park = Park::Instrument { baseline: view.instrument.clone(), non_chargeable_seen, echo_look_at };
        draft.intent.progress.stage = Stage::Parked { since, park };
        return;
    }
    let other_instrument = matches!((&baseline, &view.instrument), (Some(before), Some(after)) if before != after);
    let heard_late = context.heard_at.is_some_and(|heard| heard >= later(since, ECHO_SPAN));
    let heard_early = context.heard_at.is_some() && !heard_late;
    let may_release_on_hearsay =
        draft.intent.progress.released_by_notification_at.is_none_or(|at| now >= later(at, NOTIFIED_RELEASE_GAP));
    let chargeable = view.state == PermissionState::Chargeable;
    if chargeable && (other_instrument || non_chargeable_seen || (heard_late && may_release_on_hearsay)) {
        if !other_instrument && !non_chargeable_seen {
            draft.intent.progress.released_by_notification_at = Some(now);
        }
        draft.intent.progress.trigger = Trigger::InstrumentUpdate;
        // `notBefore` delays attempts, whoever wakes them.
        draft.schedule(now.max(draft.intent.progress.window_from), Why::Attempt);
        return;
    }
    let echo_look_at = match echo_look_at {
        Some(at) if at <= now => None,
        None if heard_early && now < later(since, ECHO_SPAN) => Some(later(since, ECHO_SPAN)),
        unchanged => unchanged,
    };
    let non_chargeable_seen = non_chargeable_seen || view.needs_the_buyer();
    let park = Park::Instrument { baseline, non_chargeable_seen, echo_look_at };
    draft.intent.progress.stage = Stage::Parked { since, park };
}

/// May a new number be sent? Only after a look in this reconciliation that said Chargeable, with enough balance.
fn gate(draft: &mut Draft, at: Timestamp, context: &Context<'_>) -> Want {
    let (now, policy) = (context.now, context.policy_of(draft));
    match context.look {
        Look::Seen(view) if view.unknown_kind().is_some() => {
            draft.park_for_attention(now, policy, "ChargePermissionTypeUnknown");
            Want::Nothing
        }
        Look::Seen(view) => match &view.state {
            PermissionState::Chargeable if view.unknown_reasons().next().is_some() => {
                draft.park_for_attention(now, policy, &view.reasons.join(", "));
                Want::Nothing
            }
            // What the permission says is noted; what it allows is not made use of.
            PermissionState::Chargeable if draft.intent.is_paused() => Want::Nothing,
            PermissionState::Chargeable if at <= now && view.release_environment.is_none() => {
                draft.park_for_attention(now, policy, "ReleaseEnvironmentMissing");
                Want::Nothing
            }
            PermissionState::Chargeable if at <= now => gate_limits(draft, view, now, policy),
            PermissionState::NonChargeable if view.is_only_busy() => {
                if at <= now {
                    draft.defer(later(now, BUSY_DELAY));
                }
                Want::Nothing
            }
            PermissionState::NonChargeable if view.is_not_understood() => {
                draft.park_for_attention(now, policy, &view.reasons.join(", "));
                Want::Nothing
            }
            PermissionState::NonChargeable => {
                draft.intent.progress.last_reason =
                    Some(view.reasons.first().cloned().unwrap_or_else(|| "NonChargeable".to_owned()));
                draft.park_for_instrument(now, policy, view.instrument.clone(), true);
                // The time that this park may last can be over before it begins; then nobody is asked for anything.
                if now >= policy.attempts_end(&draft.intent) {
                    let reason = draft.intent.progress.last_reason.clone().unwrap_or_default();
                    draft.abandon(now, &reason, Outcome::Verified);
                }
                Want::Nothing
            }
            PermissionState::Other(state) => {
                draft.park_for_attention(now, policy, state);
                Want::Nothing
            }
            PermissionState::Chargeable | PermissionState::Closed => Want::Nothing,
        },
        Look::NotFound => {
            draft.park_for_attention(now, policy, "ResourceNotFound");
            Want::Nothing
        }
        Look::Failed | Look::AccountFault | Look::Refused | Look::NotAsked => Want::Nothing,
    }
}

fn gate_limits(draft: &mut Draft, view: &PermissionView, now: Timestamp, policy: &Policy) -> Want {
    let amount = draft.intent.request.charge_amount;
    if view.amount_limit.is_some_and(|limit| amount.exceeds(&limit)) {
        draft.abandon(now, "TransactionAmountExceeded", Outcome::Verified);
        Want::Nothing
    } else if view.amount_balance.is_some_and(|balance| amount.exceeds(&balance)) {
        draft.park_for_month(now, policy);
        Want::Nothing
    } else if let Some(until) = draft.intent.progress.earliest_send.filter(|until| *until > now) {
        // Whatever made it due: an older request of who handed it over may still be accepted.
        draft.defer(until);
        Want::Nothing
    } else if let Some(until) = policy.quiet_until(&draft.intent, now) {
        // Planned outside of the quiet hours, and late.
        draft.defer(until);
        Want::Nothing
    } else {
        Want::New
    }
}
