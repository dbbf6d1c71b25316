//! What the answer to a send does to its intent: the table of design section 6, and the taint rules of section 3.
//!
//! A decline is final only if no other copy of the same request can still be accepted by Amazon. A refusal that may come before
//! Amazon looks the idempotency key up settles a number only on its first, untainted send.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::decide::ACCOUNT_PROBE;
use super::draft::Draft;
use super::found;
use super::policy::{Policy, later};
use crate::model::charge_intent::{ChargeIntent, NumberStatus, Outcome, Trigger, Why};
use crate::model::event::EventType;
use crate::model::verdict::{Decline, Refusal, Verdict};

/// How long to wait after `InvalidChargePermissionStatus` for a permission that looks chargeable.
pub(super) const CONFLICT_DELAY: Duration = Duration::from_hours(1);
/// How often in a row that is believed.
const MAX_CONFLICTS: u32 = 3;
/// How long an unknown number of a closed permission is asked about while nobody answers.
const CLOSING_PATIENCE: Duration = Duration::from_hours(24);

/// Applies the verdict on the send that was just marked. `draft.intent.number` already carries that mark: its status is unknown, its
/// sends and taint are those the mark script returned.
pub fn settle(draft: &mut Draft, verdict: &Verdict, now: Timestamp, policy: &Policy) {
    let doubtful = draft.intent.number.sends > 1 || draft.intent.number.tainted;
    match verdict {
        Verdict::Charge(view) => {
            draft.intent.number.status = NumberStatus::Answered;
            found::answered(draft, view, now, policy);
        }
        Verdict::Declined(decline) => {
            // A ProcessingFailure is a 500: its copy may still be under way inside Amazon. An earlier mark may never have been sent,
            // so only an earlier answer says that this one is the second.
            let failure = *decline == Decline::ProcessingFailure;
            let first_failure = failure && !draft.intent.progress.failure_answered;
            draft.intent.progress.failure_answered |= failure;
            if draft.intent.number.tainted || first_failure {
                confirm(draft, decline.as_str(), now, policy);
            } else {
                declined(draft, *decline, now, policy);
            }
        }
        Verdict::Refused(refusal) if doubtful => not_resolved(draft, refusal.code(), false, None, now, policy),
        Verdict::Refused(refusal) => refused(draft, refusal, now, policy),
        Verdict::DuplicateKey => {
            draft.intent.progress.last_reason = Some("DuplicateIdempotencyKey".to_owned());
            draft.hold("DuplicateIdempotencyKey");
        }
        Verdict::AccountFault(reason) => {
            let alone = refused_alone(&draft.intent, verdict);
            draft.intent.progress.last_reason = Some(reason.clone());
            if alone {
                draft.intent.progress.stand_still(ACCOUNT_PROBE);
                draft.alert("charge_refused", REFUSED_ALONE, json!({ "reasonCode": reason }));
            }
            // With the whole account it is due at once, and waits for the probe.
            let alone_at = || policy.repeat_at(&draft.intent, now, None).max(later(now, ACCOUNT_PROBE));
            let at = if alone { alone_at() } else { now };
            draft.schedule(at, Why::Repeat);
        }
        Verdict::Ambiguous { why, retry_after } => not_resolved(draft, why, true, *retry_after, now, policy),
    }
}

pub(super) const REFUSED_ALONE: &str =
    "Amazon refuses this charge as it refuses an account, and answers the account; it is tried again later";

/// Whether the account's fault is this charge's alone: the same refusal was met before, and the account has been answered since, for
/// nobody sends while it is at fault. One charge must not halt the account over and over.
#[must_use]
pub fn refused_alone(before: &ChargeIntent, verdict: &Verdict) -> bool {
    let Verdict::AccountFault(reason) = verdict else { return false };
    before.number.sends > 1 && before.progress.last_reason.as_ref() == Some(reason)
}

/// The same number once more at last mark + X; that answer is judged.
pub(super) fn confirm(draft: &mut Draft, reason: &str, now: Timestamp, policy: &Policy) {
    draft.intent.progress.last_reason = Some(reason.to_owned());
    draft.schedule(policy.confirmation_at(&draft.intent, now), Why::Confirmation);
}

/// A charge that the intent followed turned out to belong to an earlier number: the current one is asked about again.
pub(super) fn ask_again(draft: &mut Draft, now: Timestamp, policy: &Policy) {
    draft.intent.number.status = NumberStatus::Unknown;
    draft.schedule(policy.repeat_at(&draft.intent, now, None), Why::Repeat);
}

/// Nothing was learned about the number: the same number again later. Once the permission is closed, an answer that cannot resolve
/// the number ends the intent, and silence (`ambiguous`) is borne for a day.
fn not_resolved(
    draft: &mut Draft,
    reason: &str,
    ambiguous: bool,
    retry_after: Option<Duration>,
    now: Timestamp,
    policy: &Policy,
) {
    draft.intent.progress.last_reason = Some(reason.to_owned());
    let at = policy.repeat_at(&draft.intent, now, retry_after);
    match draft.intent.progress.closing_since {
        None => draft.schedule(at, Why::Repeat),
        Some(since) if ambiguous && now < later(since, CLOSING_PATIENCE + policy.confirmation_delay) => {
            draft.schedule(at.max(policy.confirmation_at(&draft.intent, now)), Why::Closing);
        }
        Some(_) => draft.end_unverified(now, "charge_permission_closed"),
    }
}

/// A definite decline: the number is resolved, and the row of its reason decides.
pub(super) fn declined(draft: &mut Draft, decline: Decline, now: Timestamp, policy: &Policy) {
    let baseline = draft.intent.number.instrument.clone();
    draft.intent.progress.last_reason = Some(decline.as_str().to_owned());
    draft.intent.progress.conflicts = 0;
    if decline.counts() {
        draft.intent.progress.attempts = draft.intent.progress.attempts.saturating_add(1);
    }
    draft.tell(EventType::ChargeDeclined, json!({ "reasonCode": decline.as_str() }));
    draft.next_number();
    if ended_by_wish(draft, now) {
        return;
    }
    let next = match decline {
        Decline::AmazonRejected => return draft.abandon(now, decline.as_str(), Outcome::Verified),
        Decline::HardDeclined if !policy.is_used_up(&draft.intent) => {
            return draft.park_for_instrument(now, policy, baseline, false);
        }
        Decline::HardDeclined => None,
        Decline::SoftDeclined | Decline::TransactionTimedOut | Decline::ProcessingFailure => {
            policy.next_attempt(&draft.intent, now)
        }
    };
    match next {
        Some(at) => {
            draft.intent.progress.trigger = Trigger::Schedule;
            draft.schedule(at, Why::Attempt);
        }
        None => draft.abandon(now, decline.as_str(), Outcome::Verified),
    }
}

/// A refusal of a number's first, untainted send: nothing was charged under it.
fn refused(draft: &mut Draft, refusal: &Refusal, now: Timestamp, policy: &Policy) {
    draft.intent.progress.last_reason = Some(refusal.code().to_owned());
    draft.tell(EventType::ChargeDeclined, json!({ "reasonCode": refusal.code() }));
    draft.next_number();
    if ended_by_wish(draft, now) {
        return;
    }
    match refusal {
        Refusal::MonthlyLimit => {
            draft.intent.progress.conflicts = 0;
            draft.park_for_month(now, policy);
        }
        Refusal::NewCheckout(code) => draft.abandon(now, code, Outcome::Verified),
        Refusal::NotUnderstood(code) => draft.park_for_attention(now, policy, code),
        Refusal::PermissionStatus => {
            draft.intent.progress.conflicts = draft.intent.progress.conflicts.saturating_add(1);
            if draft.intent.progress.conflicts > MAX_CONFLICTS {
                draft.park_for_attention(now, policy, refusal.code());
            } else {
                draft.intent.progress.trigger = Trigger::Schedule;
                draft.schedule(policy.attempt_in(&draft.intent, now, CONFLICT_DELAY), Why::Attempt);
            }
        }
    }
}

/// Ends an intent that was only kept open to find out about its number.
fn ended_by_wish(draft: &mut Draft, now: Timestamp) -> bool {
    if draft.intent.cancel_requested_at.is_some() {
        draft.cancel(now, Outcome::Verified);
        return true;
    }
    if draft.intent.progress.closing_since.is_some() {
        draft.abandon(now, "charge_permission_closed", Outcome::Verified);
        return true;
    }
    false
}
