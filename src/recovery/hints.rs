//! What becomes of the hints that a reconciliation read.

use std::time::Duration;

use jiff::Timestamp;

use super::case::{Case, Findings, HintFate};
use super::decide::ACCOUNT_PROBE;
use super::plan::is_known_final;
use super::policy::later;
use super::wishes::is_a_claim;
use crate::model::charge::ChargeLook;
use crate::model::hint::{Hint, HintNote, ObjectType};
use crate::model::permission::Look;

/// Refused looks after which a hint is quarantined.
const MAX_REFUSALS: u32 = 5;

/// When the newest notification about the permission itself was published.
pub(super) fn newest_permission_hint(case: &Case, now: Timestamp) -> Option<Timestamp> {
    case.hints
        .iter()
        .filter(|hint| hint.object_type == ObjectType::ChargePermission && hint.note.is_ready(now))
        .map(|hint| hint.note.published_at)
        .max()
}

pub(super) fn fate(hint: &Hint, case: &Case, findings: &Findings, foreign: bool, now: Timestamp) -> HintFate {
    if !hint.note.is_ready(now) {
        return HintFate::Keep;
    }
    if foreign {
        return HintFate::Quarantine("the charge permission belongs to the other environment".to_owned());
    }
    if hint.object_type == ObjectType::Charge {
        let id = hint.object_id.to_charge_id();
        if is_known_final(case, &id) && !is_a_claim(hint) {
            return HintFate::Done;
        }
        return match findings.charges.iter().find(|(seen, _)| *seen == id) {
            // Its permission alone is refused, so nothing more was called: due at once it would be refused at once, again and again.
            None if findings.look == Look::Refused => HintFate::Defer(after_a_refusal(hint, now)),
            None => HintFate::Keep,
            // Is it the account, or the charge? From now on its permission is looked at first.
            Some((_, ChargeLook::AccountFault)) => {
                HintFate::Defer(HintNote { refusals: hint.note.refusals.max(1), ..hint.note.clone() })
            }
            Some((_, ChargeLook::Seen(_))) => HintFate::Done,
            Some((_, ChargeLook::Refused(status))) => refused(hint, &status.to_string(), now),
            Some((_, ChargeLook::Failed)) => HintFate::Defer(deferred(hint, hint.note.refusals, now)),
        };
    }
    // What becomes of a refund or a dispute says [`super::objects::judge`].
    if matches!(hint.object_type, ObjectType::Refund | ObjectType::Chargeback) {
        return HintFate::Keep;
    }
    match findings.look {
        Look::Seen(_) => HintFate::Done,
        Look::NotFound => refused(hint, "404", now),
        Look::Failed => HintFate::Defer(deferred(hint, hint.note.refusals, now)),
        // By itself a hint calls no more often than this; a new notification may.
        Look::Refused => HintFate::Defer(after_a_refusal(hint, now)),
        // Due again at once, and then waiting for the account.
        Look::AccountFault | Look::NotAsked => HintFate::Keep,
    }
}

pub(super) fn refused(hint: &Hint, status: &str, now: Timestamp) -> HintFate {
    let refusals = hint.note.refusals.saturating_add(1);
    if refusals >= MAX_REFUSALS {
        HintFate::Quarantine(format!("Amazon answered {status} to {refusals} looks"))
    } else {
        HintFate::Defer(deferred(hint, refusals, now))
    }
}

fn after_a_refusal(hint: &Hint, now: Timestamp) -> HintNote {
    HintNote { not_before: Some(later(now, ACCOUNT_PROBE)), ..hint.note.clone() }
}

/// A failed look waits a minute, a refused one 1, 4, 16, 64 minutes.
fn deferred(hint: &Hint, refusals: u32, now: Timestamp) -> HintNote {
    let minutes = 4_u64.saturating_pow(refusals.saturating_sub(1)).min(240);
    HintNote { refusals, not_before: Some(later(now, Duration::from_mins(minutes))), ..hint.note.clone() }
}
