//! Captures: sign, mark, send, as for a charge.

use tracing::{error, info};

use super::act::{NOT_MARKED_DELAY, hold_back, verdict_name};
use super::{NOTHING_CHANGED_DELAY, Reconciler, Stop};
use crate::model::charge_intent::Stage;
use crate::model::quota::Operation;
use crate::model::verdict::Verdict;
use crate::recovery::capture::{capture_refused_alone, defer, settle_capture};
use crate::recovery::case::Decision;
use crate::recovery::policy::later;
use crate::store::LEASE_MARGIN;
use crate::store::captures::CaptureSend;
use crate::store::reconciliations::{Claim, Marked};
use crate::telemetry::metric;

impl Reconciler {
    /// Sign, mark, send: in this order, and each once. Returns the verdict if the request went out.
    pub(super) async fn capture(
        &self,
        claim: &Claim,
        decision: &mut Decision,
        index: usize,
    ) -> Result<Option<Verdict>, Stop> {
        let now = self.now(claim);
        if let Some(skew_s) = self.skew_s() {
            self.raise_skew(skew_s).await?;
            return Ok(None);
        }
        self.before_call(claim, Operation::CaptureCharge).await?;
        crash_point!(CaptureSignBefore);
        let draft = &mut decision.drafts[index];
        let intent = &draft.intent;
        let Stage::Authorized { charge, .. } = intent.stage() else { return Ok(None) };
        let (Some(wish), Some(capture)) = (intent.capture_wish(), &intent.capture) else { return Ok(None) };
        let (number, charge) = (&capture.number, charge.clone());
        let signed = match self.amazon.sign_capture(&charge, wish, &intent.id, number.value) {
            Ok(signed) => signed,
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, intent = %intent.id, "a capture could not be signed");
                defer(draft, later(now, NOT_MARKED_DELAY));
                return Ok(None);
            }
        };
        let value = number.value;
        let needed = self.amazon.timeout() + LEASE_MARGIN;
        let send = CaptureSend { intent, charge: &charge, wish, number, needed };
        crash_point!(CaptureMarkBefore);
        let marked = self.store.mark_capture(claim, &send).await?;
        crash_point!(CaptureMarkAfter);
        match marked {
            Marked::Yes(marked) => {
                if let Some(capture) = &mut draft.intent.capture {
                    capture.number = marked;
                }
            }
            Marked::Stopped => {
                hold_back(decision, now);
                return Ok(None);
            }
            Marked::Refused(why) => {
                info!(intent = %draft.intent.id, why, "a capture was refused at its mark");
                decision.not_before = Some(later(now, NOTHING_CHANGED_DELAY));
                return Ok(None);
            }
            Marked::EventsFull => {
                error!(intent = %draft.intent.id, "the event stream is full: nothing new is captured until old events are trimmed");
                defer(draft, later(now, NOT_MARKED_DELAY));
                return Ok(None);
            }
            Marked::LostLease => return Err(Stop::LostLease),
        }
        // The point of no return is behind us: no early exit until the verdict is in the draft.
        let verdict = self.amazon.send(signed).await;
        crash_point!(CaptureAnswered);
        let policy = self.policies.of(&draft.intent);
        let alone = capture_refused_alone(&draft.intent, &verdict);
        settle_capture(draft, &verdict, self.now(claim), policy);
        metrics::counter!(metric::CAPTURES_SENT, "verdict" => verdict_name(&verdict).to_owned()).increment(1);
        info!(
            intent = %draft.intent.id,
            permission = %claim.permission,
            %charge,
            capture_number = value,
            verdict = verdict_name(&verdict),
            state = draft.intent.stage().name(),
            "capture sent"
        );
        self.pass_on_throttling().await;
        self.pass_on_fault(&verdict, alone).await;
        Ok(Some(verdict))
    }
}

#[cfg(test)]
mod tests {
    /// No clock stands still between two lines of a running worker, so that their order is read.
    #[test]
    fn what_is_sent_is_signed_first_and_marked_then() {
        let charge = (include_str!("act.rs"), ".sign_create_charge(", "store.mark(", "amazon.send(");
        let capture = (include_str!("capture.rs"), ".sign_capture(", "store.mark_capture(", "amazon.send(");
        for (source, sign, mark, send) in [charge, capture] {
            let code = source.split("#[cfg(test)]").next().unwrap();
            let places: Vec<Vec<usize>> =
                [sign, mark, send].iter().map(|call| code.match_indices(call).map(|(at, _)| at).collect()).collect();
            assert!(places.iter().all(|found| found.len() == 1), "each once: {places:?}");
            assert!(places[0] < places[1] && places[1] < places[2], "sign, mark, send: {places:?}");
        }
    }
}
