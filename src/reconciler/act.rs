//! The one thing that a reconciliation does at Amazon.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tracing::{error, info};

use super::{NOTHING_CHANGED_DELAY, Reconciler, Stop};
use crate::amazon_pay::CancelOutcome;
use crate::model::charge_intent::Outcome;
use crate::model::event::Event;
use crate::model::ids::ChargeId;
use crate::model::permission::Look;
use crate::model::verdict::Verdict;
use crate::recovery::case::{Case, Decision};
use crate::recovery::decide::{ACCOUNT_PROBE, decide_again};
use crate::recovery::policy::later;
use crate::recovery::settle::settle;
use crate::store::LEASE_MARGIN;
use crate::store::reconciliations::{Claim, Marked, Send};
use crate::telemetry::metric;

/// No send while our clock is further than this from Amazon's.
const MAX_CLOCK_SKEW: Duration = Duration::from_mins(5);
/// Wait before the next try when a send could not be marked.
pub(super) const NOT_MARKED_DELAY: Duration = Duration::from_mins(1);
/// Wait while the stop switch is on.
pub(super) const STOPPED_DELAY: Duration = Duration::from_mins(5);
/// Wait before a cancellation at Amazon that failed is tried again.
const CANCEL_RETRY: Duration = Duration::from_mins(5);

impl Reconciler {
    /// Every charge meets the same wrong clock: one alert an hour and process says it.
    pub(super) fn tells_of_skew(&self, now: Timestamp) -> bool {
        let now_ms = now.as_millisecond();
        let hour_ms = 3_600_000;
        let told = self.skew_told_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |told_ms| {
            (now_ms.saturating_sub(told_ms) >= hour_ms).then_some(now_ms)
        });
        told.is_ok()
    }

    /// Whether our clock is too far from Amazon's to send anything; if so, it is told and waited for.
    pub(super) fn clock_is_off(&self, decision: &mut Decision, now: Timestamp) -> bool {
        let Some(skew) = self.amazon.clock_skew().filter(|skew| skew.unsigned_abs() > MAX_CLOCK_SKEW) else {
            return false;
        };
        if self.tells_of_skew(now) {
            let message = "our clock and Amazon's are more than 5 minutes apart: nothing is sent until they agree";
            decision.events.push(Event::attention("clock_skew", message, json!({ "skewSeconds": skew.as_secs() })));
        }
        decision.not_before = Some(later(now, ACCOUNT_PROBE));
        true
    }

    /// Sign, mark, send: in this order, and each once. Returns the verdict if the request went out.
    pub(super) async fn send(
        &self,
        claim: &Claim,
        case: &Case,
        decision: &mut Decision,
        index: usize,
        look: &Look,
    ) -> Result<Option<Verdict>, Stop> {
        let now = self.now(claim);
        if self.clock_is_off(decision, now) {
            return Ok(None);
        }
        self.before_call(claim).await?;
        let draft = &mut decision.drafts[index];
        let intent = &draft.intent;
        let signed = match self.amazon.sign_create_charge(&intent.request, &intent.id, intent.number.value) {
            Ok(signed) => signed,
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, intent = %intent.id, "a charge could not be signed");
                decision.not_before = Some(later(now, NOT_MARKED_DELAY));
                return Ok(None);
            }
        };
        let stored_state = case.intents[index].stage().name();
        let instrument = look.view().and_then(|view| view.instrument.as_ref());
        let needed = self.amazon.timeout() + LEASE_MARGIN;
        let marked = self.store.mark(claim, &Send { intent, stored_state, instrument, needed }).await?;
        match marked {
            Marked::Yes(number) => draft.intent.number = number,
            Marked::Stopped => {
                draft.defer(later(now, STOPPED_DELAY));
                return Ok(None);
            }
            Marked::Refused(why) => {
                info!(intent = %draft.intent.id, why, "a send was refused at its mark");
                decision.not_before = Some(later(now, NOTHING_CHANGED_DELAY));
                return Ok(None);
            }
            Marked::EventsFull => {
                error!(intent = %draft.intent.id, "the event stream is full: no new charge is sent until old events are trimmed");
                decision.not_before = Some(later(now, NOT_MARKED_DELAY));
                return Ok(None);
            }
            Marked::LostLease => return Err(Stop::LostLease),
        }
        // The point of no return is behind us: no early exit until the verdict is in the draft.
        let verdict = self.amazon.send(signed).await;
        let policy = self.policies.of(&draft.intent);
        settle(draft, &verdict, self.now(claim), policy);
        metrics::counter!(metric::CHARGES_SENT, "verdict" => verdict_name(&verdict).to_owned()).increment(1);
        info!(
            intent = %draft.intent.id,
            permission = %claim.permission,
            number = case.intents[index].number.value,
            tainted = draft.intent.number.tainted,
            verdict = verdict_name(&verdict),
            state = draft.intent.stage().name(),
            "charge sent"
        );
        Ok(Some(verdict))
    }

    /// One Get Charge Permission after each decline. Failing it, the permission is looked at again in a minute.
    pub(super) async fn look_again(
        &self,
        claim: &Claim,
        case: &Case,
        mut decision: Decision,
        index: usize,
    ) -> Decision {
        let look = match self.before_call(claim).await {
            Ok(()) => self.amazon.charge_permission(&claim.permission).await,
            Err(_) => Look::Failed,
        };
        let now = self.now(claim);
        if look.view().is_none() {
            decision.drafts[index].intent.progress.look_at = Some(later(now, NOT_MARKED_DELAY));
        }
        decide_again(case, decision, look, now, &self.policies, self.environment)
    }

    /// An authorisation that appeared after a cancellation is canceled at Amazon.
    pub(super) async fn cancel(
        &self,
        claim: &Claim,
        decision: &mut Decision,
        index: usize,
        charge: &ChargeId,
    ) -> Result<(), Stop> {
        self.before_call(claim).await?;
        let outcome = self.amazon.cancel_charge(charge, "canceled by the merchant").await;
        let now = self.now(claim);
        let draft = &mut decision.drafts[index];
        if draft.intent.stage().is_terminal() {
            let released = outcome == CancelOutcome::Done;
            let message = if released {
                "the authorisation that appeared after a cancellation was canceled at Amazon"
            } else {
                "the authorisation that appeared after a cancellation could not be canceled at Amazon: do it in Seller Central"
            };
            draft.alert("left_over_authorization", message, json!({ "chargeId": charge, "canceled": released }));
            if released {
                decision.record.remember_charge(charge.clone(), "Canceled");
            }
            return Ok(());
        }
        let retry = match outcome {
            CancelOutcome::Done => {
                draft.cancel(now, Outcome::Verified);
                return Ok(());
            }
            // Read the charge to learn why; it may have been captured meanwhile.
            CancelOutcome::AlreadyFinal => {
                draft.intent.progress.look_at = Some(now);
                CANCEL_RETRY
            }
            CancelOutcome::Failed => CANCEL_RETRY,
            CancelOutcome::AccountFault => ACCOUNT_PROBE,
        };
        draft.intent.progress.cancel_retry_at = Some(later(now, retry));
        Ok(())
    }
}

pub(super) fn verdict_name(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Charge(view) => view.state.as_str(),
        Verdict::Declined(decline) => decline.as_str(),
        Verdict::Refused(refusal) => refusal.code(),
        Verdict::DuplicateKey => "DuplicateIdempotencyKey",
        Verdict::AccountFault(_) => "AccountFault",
        Verdict::Ambiguous { .. } => "Ambiguous",
    }
}
