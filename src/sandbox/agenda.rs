//! What happens by itself when its time has come on the sandbox's clock: pending decisions, refunds, expiries.
//!
//! Nothing runs in the background: whoever asks the sandbox for anything makes it catch up first.

use std::time::Duration;

use jiff::Timestamp;

use super::charges::DeclineCode;
use super::ledger::{Books, ChargeState};
use super::permissions::{PermissionKind, PermissionState};

/// Amazon's sandbox decides a simulated pending authorisation after this time.
pub(super) const SIMULATED_DECISION_AFTER: Duration = Duration::from_secs(30);
/// An authorisation that was not captured is canceled.
pub(super) const AUTHORIZATION_EXPIRES_AFTER: Duration = Duration::from_hours(30 * 24);

/// Something that is due.
#[derive(Debug)]
pub(super) enum Due {
    /// Amazon decides about a pending charge.
    Decision(String, Option<DeclineCode>),
    /// Amazon decides about a refund.
    Refund(String),
    /// An authorisation ends, if it is still one.
    AuthorizationEnd(usize),
    /// A permission ends, unless a charge has pushed its end out.
    PermissionEnd(String),
}

impl Books {
    pub(super) fn schedule(&mut self, now: Timestamp, after: Duration, due: Due) {
        let Ok(at) = now.checked_add(after) else { return };
        self.agenda_count += 1;
        self.agenda.insert((at, self.agenda_count), due);
    }

    /// Does everything whose time has come, in the order of the times.
    pub(super) fn catch_up(&mut self, now: Timestamp) {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > now {
                return;
            }
            match entry.remove() {
                Due::Decision(id, decline) => {
                    self.decide(&id, decline, now);
                }
                Due::Refund(id) => {
                    self.settle_refund(&id, None, now);
                }
                Due::AuthorizationEnd(place) => {
                    if self.charges[place].state == ChargeState::Authorized {
                        self.move_charge(place, ChargeState::Canceled, Some("ExpiredUnused"), now);
                    }
                }
                Due::PermissionEnd(id) => self.end_permission(id, now),
            }
        }
    }

    /// The end of a pending charge as it was asked for, or a decline; false if nothing is pending.
    pub(super) fn decide(&mut self, id: &str, decline: Option<DeclineCode>, now: Timestamp) -> bool {
        let Some(charge) = self.charge_places.get(id).map(|place| &self.charges[*place]) else { return false };
        let state = match (charge.state, decline) {
            (_, Some(_)) => ChargeState::Declined,
            (ChargeState::AuthorizationInitiated, None) if !charge.request.capture_now => ChargeState::Authorized,
            // Whether Amazon passes through Authorized is not documented.
            _ => ChargeState::Captured,
        };
        self.finish_pending(id, state, decline, now)
    }

    fn end_permission(&mut self, id: String, now: Timestamp) {
        let Some(end) = self.permissions.get(&id).and_then(|permission| permission.expires_at) else { return };
        match Duration::try_from(end.duration_since(now)) {
            Ok(left) if !left.is_zero() => self.schedule(now, left, Due::PermissionEnd(id)),
            _ => self.turn(&id, PermissionState::Closed, &["Expired"], now),
        }
    }

    /// Each charge of a recurring permission pushes its end out.
    pub(super) fn push_end_out(&mut self, id: &str, now: Timestamp) {
        if let Some(permission) = self.permissions.get_mut(id)
            && permission.spec.kind == PermissionKind::Recurring
        {
            permission.expires_at = permission.spec.kind.lifetime().and_then(|time| now.checked_add(time).ok());
        }
    }
}
