//! When an intent needs attention next: its plan, the sweep's looks, the end of its time.

use std::time::Duration;

use jiff::Timestamp;

use super::authorization::next_look;
use super::decide::{ACCOUNT_PROBE, Context};
use super::draft::Draft;
use super::policy::{DAY, Policy, Sweep, later};
use super::reminders;
use super::wishes::due_while_paused;
use crate::model::charge::ChargeLook;
use crate::model::charge_intent::{ChargeIntent, Park, Stage};
use crate::model::ids::ChargeId;
use crate::model::permission::{Look, PermissionRecord};

/// Whether the charge that the intent waits for was asked for in this reconciliation.
fn was_read(stage: &Stage, charges: &[(ChargeId, ChargeLook)]) -> bool {
    match stage {
        Stage::Pending { charge, .. } | Stage::Authorized { charge, .. } => {
            charges.iter().any(|(read, _)| read == charge)
        }
        _ => false,
    }
}

/// When the permission, or the charge, is looked at although nothing happens.
pub(super) fn plan_next_look(draft: &mut Draft, context: &Context<'_>) {
    let now = context.now;
    let asks_for_permission = matches!(draft.intent.stage(), Stage::Scheduled { .. } | Stage::Parked { .. });
    let sweep = match draft.intent.stage() {
        Stage::Scheduled { .. } if draft.intent.number.value > 0 || draft.intent.is_paused() => Sweep::Quiet,
        Stage::Parked { since, .. } => Sweep::Parked(*since),
        Stage::Pending { since, .. } => Sweep::Pending(*since),
        Stage::Authorized { .. } => Sweep::Until(next_look(&draft.intent, now)),
        _ => {
            draft.intent.progress.look_at = None;
            return;
        }
    };
    let next = sweep.next(now);
    let read = was_read(draft.intent.stage(), context.charges);
    let look_at = &mut draft.intent.progress.look_at;
    match context.look {
        // A look at the permission that is due stays due until Amazon answers one.
        Look::Failed | Look::AccountFault | Look::Refused | Look::NotAsked
            if asks_for_permission && look_at.is_some() => {}
        Look::Failed | Look::AccountFault | Look::Refused if asks_for_permission => *look_at = Some(now),
        // A charge that there was no call left for stays due.
        _ if !asks_for_permission && !read && look_at.is_some() => {}
        _ if look_at.is_none_or(|at| at <= now) => *look_at = Some(next),
        // What was planned for another stage may be far off: a plan that became a park is looked at as one that is parked.
        _ => *look_at = look_at.map(|at| at.min(next)),
    }
    // A reminder follows a look.
    if let Some(at) = reminders::next_at(&draft.intent, context.policy_of(draft)).filter(|at| *at > now) {
        let look_at = &mut draft.intent.progress.look_at;
        *look_at = Some(look_at.map_or(at, |next| next.min(at)));
    }
    // With its permission a charge may be canceled: soon after the closing it is looked at more often.
    if let Some(closed_at) = context.closed_at.filter(|_| !asks_for_permission) {
        let next = if read { Sweep::Pending(closed_at).next(now) } else { now };
        let unread = !read && context.newly_closed;
        if unread || (read && now < later(closed_at, DAY)) {
            let look_at = &mut draft.intent.progress.look_at;
            *look_at = Some(look_at.map_or(next, |at| at.min(next)));
        }
    }
}

/// Backs off while Amazon does not answer looks: 30 s, 1, 2, 4, 8 and then 15 minutes.
pub(super) fn not_before(record: &PermissionRecord, look: &Look, now: Timestamp) -> Option<Timestamp> {
    match look {
        Look::Refused => Some(later(now, ACCOUNT_PROBE)),
        Look::Failed => {
            let doublings = record.failed_looks.saturating_sub(1).min(5);
            Some(later(now, Duration::from_secs(30 << doublings).min(ACCOUNT_PROBE)))
        }
        // It waits with everybody else until the account is answered.
        Look::AccountFault | Look::Seen(_) | Look::NotFound | Look::NotAsked => None,
    }
}

/// When the intent needs attention next; `None` when it waits for somebody else.
#[must_use]
pub fn due(intent: &ChargeIntent, policy: &Policy) -> Option<Timestamp> {
    let look_at = intent.progress.look_at;
    let end = policy.attempts_end(intent);
    match intent.stage() {
        Stage::Scheduled { .. } | Stage::Parked { .. } if intent.is_paused() => due_while_paused(intent),
        Stage::Scheduled { at, why } => {
            let end = if !intent.next_send_repeats() {
                Some(end)
            } else if intent.progress.closing_since.is_none() {
                Some(policy.unknown_deadline(intent, *why))
            } else {
                None
            };
            [Some(*at), look_at, end].into_iter().flatten().min()
        }
        Stage::Parked { park: Park::Instrument { echo_look_at, .. }, .. } => {
            [Some(end), look_at, *echo_look_at].into_iter().flatten().min()
        }
        Stage::Parked { park: Park::Attention, .. } => [Some(end), look_at].into_iter().flatten().min(),
        Stage::Pending { .. } => look_at,
        Stage::Authorized { .. } => {
            let capture = intent.capture_due().filter(|_| !intent.is_paused());
            [look_at, intent.progress.cancel_retry_at, capture].into_iter().flatten().min()
        }
        Stage::Held { .. } | Stage::Captured { .. } | Stage::Canceled { .. } | Stage::Abandoned { .. } => None,
    }
}
