//! What a reconciliation may call at most, and how soon it matters.

use std::time::Duration;

use jiff::Timestamp;

use super::case::{Act, Case, Plan};
use super::closing;
use super::due::due;
use super::plan::captures_now;
use super::policies::Policies;
use crate::model::charge_intent::{ChargeIntent, NumberStatus, Park, Stage, Trigger};
use crate::model::hint::ObjectType;
use crate::model::ids::ChargeId;
use crate::model::quota::{Class, Needs, Operation};

/// The probe of an account that is at fault: one look.
pub const PROBE: Needs = Needs::NONE.with(Operation::GetChargePermission, 1);

/// The calls that a reconciliation with this plan makes at most: its looks, and what may follow from them.
#[must_use]
pub fn needs(case: &Case, plan: &Plan, now: Timestamp) -> Needs {
    let charges = u32::try_from(plan.charges.len()).unwrap_or(u32::MAX);
    let mut needs = Needs::NONE
        .with(Operation::GetChargePermission, u32::from(plan.permission))
        .with(Operation::GetCharge, charges)
        .with(Operation::GetRefund, u32::try_from(plan.refunds.len()).unwrap_or(u32::MAX))
        .with(Operation::GetDispute, u32::try_from(plan.disputes.len()).unwrap_or(u32::MAX));
    // Of each kind one: which of them is made shows only when the looks are in.
    let sends = case.intents.iter().any(|intent| may_send(intent, case, plan, now));
    let closes = closing::is_due(case, now);
    if sends {
        needs = needs.with(Operation::CreateCharge, 1);
    }
    if closes {
        needs = needs.with(Operation::CloseChargePermission, 1);
    }
    // The look after a decline, or the one that says whether it is closed.
    needs = needs.with(Operation::GetChargePermission, u32::from(sends || closes));
    if case.intents.iter().any(|intent| may_be_canceled(intent, plan, now)) {
        needs = needs.with(Operation::CancelCharge, 1);
    } else if plan.charges.iter().any(|charge| is_not_followed(case, charge)) {
        // It may turn out to be the authorisation of a charge that was canceled.
        needs = needs.with(Operation::CancelCharge, 1);
    }
    if case.intents.iter().any(|intent| captures_now(intent, now)) {
        needs = needs.with(Operation::CaptureCharge, 1);
    }
    needs
}

/// Whether what was decided was reserved. A charge that was read may bring about a send that was not in the plan: it is made in the
/// next reconciliation.
#[must_use]
pub fn covers(reserved: &Needs, act: &Act) -> bool {
    match act {
        Act::Nothing => true,
        Act::Send(_) => reserved.get(Operation::CreateCharge) > 0 && reserved.get(Operation::GetChargePermission) > 0,
        Act::CancelCharge(..) => reserved.get(Operation::CancelCharge) > 0,
        Act::Capture(_) => reserved.get(Operation::CaptureCharge) > 0,
        Act::ClosePermission => {
            reserved.get(Operation::CloseChargePermission) > 0 && reserved.get(Operation::GetChargePermission) > 0
        }
    }
}

fn may_send(intent: &ChargeIntent, case: &Case, plan: &Plan, now: Timestamp) -> bool {
    may_repeat(intent, now)
        || (plan.permission && !case.closed && intent.cancel_requested_at.is_none() && may_send_anew(intent, now))
}

/// The number was marked before, and is asked about again now.
fn may_repeat(intent: &ChargeIntent, now: Timestamp) -> bool {
    intent.next_send_repeats()
        && match intent.stage() {
            Stage::Scheduled { at, .. } => *at <= now || intent.wishes.retry.is_some(),
            Stage::Parked { .. } => true,
            _ => false,
        }
}

/// A new number, now or after a release.
fn may_send_anew(intent: &ChargeIntent, now: Timestamp) -> bool {
    intent.number.status == NumberStatus::Fresh
        && match intent.stage() {
            Stage::Scheduled { at, .. } => *at <= now || intent.wishes.retry.is_some(),
            Stage::Parked { park: Park::Instrument { .. }, .. } => true,
            Stage::Parked { park: Park::Attention, .. } => intent.wishes.retry.is_some(),
            _ => false,
        }
}

fn is_not_followed(case: &Case, charge: &ChargeId) -> bool {
    !case.intents.iter().any(|intent| intent.progress.charge.as_ref() == Some(charge))
}

fn may_be_canceled(intent: &ChargeIntent, plan: &Plan, now: Timestamp) -> bool {
    let authorized = matches!(intent.stage(), Stage::Authorized { .. });
    let due = authorized && intent.progress.cancel_retry_at.is_none_or(|at| at <= now);
    let may_turn_out = !plan.charges.is_empty() && !intent.stage().is_terminal();
    intent.cancel_requested_at.is_some() && (due || may_turn_out)
}

/// How soon a reconciliation with this plan matters.
#[must_use]
pub fn class(case: &Case, plan: &Plan, now: Timestamp) -> Class {
    let open = || case.intents.iter().filter(|intent| !intent.stage().is_terminal());
    let is_due = |intent: &ChargeIntent| matches!(intent.stage(), Stage::Scheduled { at, .. } if *at <= now);
    let waits_for_the_buyer =
        |intent: &ChargeIntent| matches!(intent.stage(), Stage::Parked { park: Park::Instrument { .. }, .. });
    let heard = case.hints.iter().any(|hint| {
        hint.object_type == ObjectType::ChargePermission && hint.note.not_before.is_none_or(|at| at <= now)
    });
    let is_urgent = |intent: &ChargeIntent| {
        let asked_for = matches!(intent.progress.trigger, Trigger::InstrumentUpdate | Trigger::Operator);
        intent.cancel_requested_at.is_some()
            || intent.wishes.retry.is_some()
            || (asked_for && is_due(intent))
            || (heard && waits_for_the_buyer(intent))
    };
    if closing::is_due(case, now) {
        Class::Closing
    } else if open().any(is_urgent) || case.look_asked {
        Class::Urgent
    } else if open().any(|intent| may_repeat(intent, now)) {
        Class::Unknown
    } else if open().any(|intent| is_due(intent) || captures_now(intent, now)) {
        Class::Attempt
    } else if !plan.permission {
        Class::Charges
    } else if open().next().is_some() {
        Class::Sweep
    } else {
        Class::Rest
    }
}

/// The longest that a permission waits for tokens without being planned anew, should the waiting room be lost: 3 to 6 hours.
const SAFETY: Duration = Duration::from_hours(3);

/// When a permission that waits for tokens is planned anew: at the next time that changes what is due, at the latest after some hours.
/// That is spread by the id, so that a backlog does not come back all at once.
#[must_use]
pub fn planned_anew_at(case: &Case, now: Timestamp, policies: &Policies) -> Timestamp {
    let intents = case.intents.iter().filter_map(|intent| due(intent, policies.of(intent)));
    let hints = case.hints.iter().filter_map(|hint| hint.note.not_before);
    let next = intents.chain(hints).filter(|at| *at > now).min();
    let spread = case.permission.as_str().bytes().fold(0_u64, |sum, byte| (sum * 31 + u64::from(byte)) % 10_007);
    let safety = super::policy::later(now, SAFETY + Duration::from_secs(spread));
    next.map_or(safety, |next| next.min(safety))
}
