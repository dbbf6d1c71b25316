//! The one thing that a reconciliation does at Amazon.

use std::time::Duration;

use jiff::Timestamp;
use tracing::{error, info};

use super::{NOTHING_CHANGED_DELAY, Reconciler, Stop};
use serde_json::json;

use crate::amazon_pay::CancelOutcome;
use crate::model::charge_intent::Outcome;
use crate::model::ids::ChargeId;
use crate::model::permission::Look;
use crate::model::quota::Operation;
use crate::model::verdict::Verdict;
use crate::recovery::case::{Case, Decision};
use crate::recovery::decide::{ACCOUNT_PROBE, decide_again};
use crate::recovery::policy::later;
use crate::recovery::settle::{refused_alone, settle};
use crate::store::LEASE_MARGIN;
use crate::store::reconciliations::{Claim, Marked, Send};
use crate::telemetry::metric;

/// No send while our clock is further than this from Amazon's.
pub(super) const MAX_CLOCK_SKEW: Duration = Duration::from_mins(5);
/// Wait before the next try when a send could not be marked.
pub(super) const NOT_MARKED_DELAY: Duration = Duration::from_mins(1);
/// Wait while the stop switch is on, should nobody lift it.
const STOPPED_DELAY: Duration = Duration::from_mins(5);
/// Wait before a cancellation at Amazon that failed is tried again.
const CANCEL_RETRY: Duration = Duration::from_mins(5);

impl Reconciler {
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
        if let Some(skew_s) = self.skew_s() {
            self.raise_skew(skew_s).await?;
            return Ok(None);
        }
        self.before_call(claim, Operation::CreateCharge).await?;
        crash_point!(SignBefore);
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
        crash_point!(MarkBefore);
        let marked = self.store.mark(claim, &Send { intent, stored_state, instrument, needed }).await?;
        crash_point!(MarkAfter);
        match marked {
            Marked::Yes(number) => draft.intent.number = number,
            Marked::Stopped => {
                hold_back(decision, now);
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
        crash_point!(Answered);
        let policy = self.policies.of(&draft.intent);
        let alone = refused_alone(&draft.intent, &verdict);
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
        self.pass_on_throttling().await;
        self.pass_on_fault(&verdict, alone).await;
        crash_point!(Settled);
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
        let mut look = match self.before_call(claim, Operation::GetChargePermission).await {
            Ok(()) => self.amazon.charge_permission(&claim.permission).await,
            Err(_) => Look::Failed,
        };
        crash_point!(LookedAgain);
        self.pass_on_throttling().await;
        self.judge_the_look_after(&decision.record, &mut look).await;
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
        self.before_call(claim, Operation::CancelCharge).await?;
        crash_point!(CancelChargeBefore);
        let outcome = self.amazon.cancel_charge(charge, "canceled by the merchant").await;
        crash_point!(CancelChargeAfter);
        self.pass_on_throttling().await;
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

/// The stop switch is on. The plan stays as it is, so that what is due is due at once when the switch is lifted.
pub(super) fn hold_back(decision: &mut Decision, now: Timestamp) {
    decision.held_back = true;
    decision.not_before = Some(later(now, STOPPED_DELAY));
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
