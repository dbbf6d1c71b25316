//! The caller's wish that a permission be closed: when Amazon is asked, when again, and what everything else waits for meanwhile.
//!
//! While the wish stands nothing is sent: no new number ever, and a number that is unknown is asked about only once the permission is
//! closed at Amazon, when no new charge can come of it. The wish ends when a look says Closed, so a crash anywhere repeats it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::case::{Case, Findings};
use super::decide::ACCOUNT_PROBE;
use super::policy::{DAY, later};
use crate::model::closing::Closing;
use crate::model::event::Event;
use crate::model::permission::{Look, PermissionRecord};

/// Waiting time after the 1st, 2nd ... call that did not close it, in minutes. The last one repeats.
const DELAY_MINUTES: [u64; 6] = [1, 5, 15, 60, 180, 360];
/// So many calls may fail before a person is told, once.
const ALERT_AFTER: u32 = 4;

/// What the call came to, as far as the next one is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// Accepted, or it may work later; a look says which.
    MayHaveClosed,
    /// The account's fault: not counted.
    AccountFault,
    /// Amazon calls our request wrong, with this code: it is not repeated.
    Refused(String),
}

/// What the wish asks of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is none, or the permission is closed.
    None,
    /// Close it now; if that fails nothing is sent before this time.
    Now(Timestamp),
    /// It was tried; nothing is sent before this time.
    Later(Timestamp),
}

impl Turn {
    pub(super) fn until(self) -> Option<Timestamp> {
        match self {
            Self::None => None,
            Self::Now(until) | Self::Later(until) => Some(until),
        }
    }

    pub(super) fn is_now(self) -> bool {
        matches!(self, Self::Now(_))
    }
}

/// How far the wish of the case has come; `None` without one.
fn progress(case: &Case, record: &PermissionRecord) -> Option<Closing> {
    let wish = case.close.as_ref().filter(|_| !case.closed)?;
    let known = record.closing.clone().filter(|closing| closing.asked_at == wish.asked_at);
    Some(known.unwrap_or_else(|| Closing::of(wish)))
}

/// Whether Amazon is to be asked to close it now. The look before it saves the call if it is closed already.
pub(super) fn is_due(case: &Case, now: Timestamp) -> bool {
    progress(case, &case.record).is_some_and(|closing| closing.parked.is_none() && closing.next_at <= now)
}

/// When the wish needs attention next, by the record of a decision; `None` when it waits for a person, or is fulfilled.
#[must_use]
pub fn due(record: &PermissionRecord) -> Option<Timestamp> {
    record.closing.as_ref().filter(|closing| closing.parked.is_none()).map(|closing| closing.next_at)
}

/// Plans the call: it is noted as failed before it is made, so that whatever becomes of it the next one comes later.
pub(super) fn turn(
    record: &mut PermissionRecord,
    case: &Case,
    closed: bool,
    foreign: bool,
    findings: &Findings,
    now: Timestamp,
    events: &mut Vec<Event>,
) -> Turn {
    let Some(mut closing) = progress(case, record).filter(|_| !closed) else {
        record.closing = None;
        return Turn::None;
    };
    let turn = if foreign && closing.parked.is_none() {
        park(&mut closing, case, "environment_mismatch", events);
        Turn::Later(later(now, DAY))
    } else if closing.parked.is_some() {
        Turn::Later(later(now, DAY))
    } else if !findings.may_act {
        if closing.tries >= ALERT_AFTER && !closing.alerted {
            closing.alerted = true;
            let message =
                "Amazon has not closed a charge permission although it was asked several times; it is asked again";
            events.push(Event::attention("closing_failed", message, data(case, json!({ "tries": closing.tries }))));
        }
        Turn::Later(closing.next_at)
    } else if matches!(findings.look, Look::AccountFault | Look::Refused) {
        closing.next_at = later(now, ACCOUNT_PROBE);
        Turn::Later(closing.next_at)
    } else if closing.next_at <= now {
        closing.tries = closing.tries.saturating_add(1);
        closing.next_at = later(now, delay(closing.tries));
        Turn::Now(closing.next_at)
    } else {
        Turn::Later(closing.next_at)
    };
    record.closing = Some(closing);
    turn
}

/// Notes what the call came to; the look after it says whether the permission is closed.
pub fn tried(record: &mut PermissionRecord, case: &Case, tried: &Tried, now: Timestamp, events: &mut Vec<Event>) {
    let Some(closing) = record.closing.as_mut() else { return };
    match tried {
        Tried::MayHaveClosed => {}
        Tried::AccountFault => {
            closing.tries = closing.tries.saturating_sub(1);
            closing.next_at = later(now, ACCOUNT_PROBE);
        }
        Tried::Refused(code) => park(closing, case, code, events),
    }
}

fn park(closing: &mut Closing, case: &Case, reason: &str, events: &mut Vec<Event>) {
    closing.parked = Some(reason.to_owned());
    let message = "a charge permission cannot be closed as it was asked for; nothing is charged, ask again or close it in Seller Central";
    events.push(Event::attention("closing_refused", message, data(case, json!({ "reasonCode": reason }))));
}

fn data(case: &Case, mut data: serde_json::Value) -> serde_json::Value {
    data["chargePermissionId"] = json!(case.permission);
    data
}

fn delay(tries: u32) -> Duration {
    let index = usize::try_from(tries.saturating_sub(1)).unwrap_or(usize::MAX).min(DELAY_MINUTES.len() - 1);
    Duration::from_mins(DELAY_MINUTES[index])
}
