//! What a scheduled look found although no notification told of it. Counted by kind; and when it goes on while no notification comes,
//! notifications are missing.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::case::{Case, Decision, Findings};
use super::policy::later;
use crate::model::charge::ChargeLook;
use crate::model::charge_intent::{NumberStatus, Stage};
use crate::model::event::Event;
use crate::model::permission::{CHARGE_IN_PROGRESS, PermissionRecord, PermissionState};

/// What becomes of charges so soon after a closing was seen is found by the look that follows it, before Amazon can tell.
const AFTER_A_CLOSING: Duration = Duration::from_hours(1);

/// So many changes since the last notification, ...
pub const SILENCE_CHANGES: u32 = 3;
/// ... found within this time, of two permissions or more, are told of; and again after the same time at the earliest.
pub const SILENCE_SPAN: Duration = Duration::from_hours(24);

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The permission is closed.
    PermissionClosed,
    /// It stopped being chargeable.
    PermissionNonChargeable,
    /// It became chargeable.
    PermissionChargeable,
    /// The payment descriptor is another one.
    Instrument,
    /// A charge that was pending or authorised has moved on.
    Charge,
    /// A refund or a dispute has moved on.
    Object,
}

impl Found {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::PermissionClosed,
        Self::PermissionNonChargeable,
        Self::PermissionChargeable,
        Self::Instrument,
        Self::Charge,
        Self::Object,
    ];

    /// The label of the metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PermissionClosed => "permission_closed",
            Self::PermissionNonChargeable => "permission_non_chargeable",
            Self::PermissionChargeable => "permission_chargeable",
            Self::Instrument => "instrument",
            Self::Charge => "charge",
            Self::Object => "object",
        }
    }
}

/// What `decision`, made from the first looks of a reconciliation, found by itself: no notification was there, nobody had asked for a
/// look or for a closing, and it was not the look before or after a send of our own, which changes permissions too.
#[must_use]
pub fn found_by_sweep(case: &Case, findings: &Findings, decision: &Decision, now: Timestamp) -> Vec<Found> {
    // What the sweep keeps of a refund or a dispute is no notification.
    let heard = case.hints.iter().any(|hint| hint.note.swept_since.is_none());
    if heard || case.look_asked || case.close.is_some() {
        return Vec::new();
    }
    let mut found = Vec::new();
    if !case.record.acted && !is_for_a_send(case, now) {
        found.extend(of_permission(&case.record, &decision.record));
    }
    let just_closed = case.record.closed_at.is_some_and(|at| now < later(at, AFTER_A_CLOSING));
    for (before, draft) in case.intents.iter().zip(&decision.drafts).filter(|_| !just_closed) {
        let (Stage::Pending { charge, .. } | Stage::Authorized { charge, .. }) = before.stage() else { continue };
        let seen = findings.charges.iter().any(|(id, look)| id == charge && matches!(look, ChargeLook::Seen(_)));
        if seen && draft.intent.stage().name() != before.stage().name() {
            found.push(Found::Charge);
        }
    }
    found
}

/// Whether a send is due, or one may be under way.
fn is_for_a_send(case: &Case, now: Timestamp) -> bool {
    case.intents.iter().any(|intent| match intent.stage() {
        Stage::Scheduled { at, .. } => *at <= now || intent.number.status == NumberStatus::Unknown,
        stage => intent.number.status == NumberStatus::Unknown && !stage.is_terminal(),
    })
}

/// One update by the buyer changes the instrument and the state: it counts once.
fn of_permission(before: &PermissionRecord, after: &PermissionRecord) -> Option<Found> {
    let (was, is) = (before.state.as_ref()?, after.state.as_ref()?);
    if matches!((&before.instrument, &after.instrument), (Some(was), Some(is)) if was != is) {
        return Some(Found::Instrument);
    }
    // Our own pending charge makes the permission busy and free again; Amazon does not notify of that.
    if was == is || is_busy(before) || is_busy(after) {
        return None;
    }
    match is {
        PermissionState::Closed => Some(Found::PermissionClosed),
        PermissionState::NonChargeable => Some(Found::PermissionNonChargeable),
        PermissionState::Chargeable => Some(Found::PermissionChargeable),
        PermissionState::Other(_) => None,
    }
}

fn is_busy(record: &PermissionRecord) -> bool {
    record.state == Some(PermissionState::NonChargeable)
        && !record.reasons.is_empty()
        && record.reasons.iter().all(|reason| reason == CHARGE_IN_PROGRESS)
}

/// Told when changes are found and no notification comes.
#[must_use]
pub fn silence() -> Event {
    let message = "changes were found at Amazon that no notification told of: is the subscription alive, and the public address reachable?";
    Event::attention("notifications_missing", message, json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::charge_intent::{Park, Why};
    use crate::model::ids::{Environment, Region};
    use crate::model::permission::{Look, PermissionView};
    use crate::recovery::decide::decide;
    use crate::recovery::draft::testing::{digest, intent, start, view};
    use crate::recovery::policies::Policies;
    use crate::recovery::policy::Policy;

    fn known(state: PermissionState, reasons: &[&str]) -> PermissionRecord {
        let view = view(state, reasons);
        PermissionRecord {
            state: Some(view.state),
            reasons: view.reasons,
            instrument: view.instrument,
            looked_at: Some(start()),
            ..PermissionRecord::default()
        }
    }

    /// A charge that is parked, and a look that nobody asked for.
    fn parked(record: PermissionRecord) -> Case {
        let mut intent = intent();
        let park = Park::Instrument { baseline: None, non_chargeable_seen: true, echo_look_at: None };
        intent.progress.stage = Stage::Parked { since: start(), park };
        Case {
            permission: "C01-0000000-0000001".parse().unwrap(),
            closed: false,
            record,
            hints: Vec::new(),
            intents: vec![intent],
            close: None,
            look_asked: false,
        }
    }

    fn found(case: &Case, view: PermissionView) -> Vec<Found> {
        let findings = Findings { look: Look::Seen(view), charges: Vec::new(), may_act: true };
        let now = later(start(), SILENCE_SPAN);
        let policies = Policies::from(Policy::for_region(Region::Na));
        let decision = decide(case, &findings, now, &policies, Environment::Sandbox);
        found_by_sweep(case, &findings, &decision, now)
    }

    #[test]
    fn each_kind_of_change_is_named_and_one_update_of_the_buyer_counts_once() {
        use PermissionState::{Chargeable, Closed, NonChargeable};
        let declined = || parked(known(NonChargeable, &["PaymentMethodInvalid"]));
        assert_eq!(found(&declined(), view(Chargeable, &[])), [Found::PermissionChargeable]);
        assert_eq!(found(&declined(), view(Closed, &["BuyerCanceled"])), [Found::PermissionClosed]);
        assert_eq!(found(&declined(), view(NonChargeable, &["PaymentMethodInvalid"])), []);
        let updated = PermissionView { instrument: Some(digest("MasterCard ****2222")), ..view(Chargeable, &[]) };
        assert_eq!(found(&declined(), updated), [Found::Instrument]);
        let invalid = view(NonChargeable, &["PaymentMethodInvalid"]);
        assert_eq!(found(&parked(known(Chargeable, &[])), invalid), [Found::PermissionNonChargeable]);
    }

    #[test]
    fn what_we_did_ourselves_or_asked_for_was_not_found_by_the_sweep() {
        use PermissionState::{Chargeable, NonChargeable};
        let invalid = || view(NonChargeable, &["PaymentMethodInvalid"]);
        let mut acted = parked(known(Chargeable, &[]));
        acted.record.acted = true;
        let mut due = parked(known(Chargeable, &[]));
        due.intents[0].progress.stage = Stage::Scheduled { at: start(), why: Why::Attempt };
        let mut asked = parked(known(Chargeable, &[]));
        asked.look_asked = true;
        let mut closing = parked(known(Chargeable, &[]));
        closing.close = Some(crate::model::closing::CloseWish {
            asked_at: start(),
            reason: "moved".to_owned(),
            cancel_pending: false,
        });
        for case in [acted, due, asked, closing] {
            assert_eq!(found(&case, invalid()), [], "{case:?}");
        }
        let busy = view(NonChargeable, &["ChargeInProgress"]);
        assert_eq!(found(&parked(known(Chargeable, &[])), busy), []);
        assert_eq!(found(&parked(known(NonChargeable, &["ChargeInProgress"])), view(Chargeable, &[])), []);
    }
}
