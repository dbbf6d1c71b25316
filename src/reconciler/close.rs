//! Closing a charge permission at Amazon, because the caller asked for it.

use super::{Reconciler, Stop};
use crate::amazon_pay::CloseOutcome;
use crate::model::permission::Look;
use crate::model::quota::Operation;
use crate::recovery::case::{Case, Decision};
use crate::recovery::closing::{Tried, tried};
use crate::recovery::decide::decide_again;
use crate::store::reconciliations::Claim;

impl Reconciler {
    /// Close Charge Permission, and one look that says whether it is closed: an answer that is lost may have closed it, too. The wish
    /// is cleared by the commit of a look that said Closed and by nothing else, so a crash anywhere in between repeats the call, which
    /// does nothing to a permission that is closed.
    pub(super) async fn close(&self, claim: &Claim, case: &Case, mut decision: Decision) -> Result<Decision, Stop> {
        let Some(wish) = &case.close else { return Ok(decision) };
        self.before_call(claim, Operation::CloseChargePermission).await?;
        crash_point!(ClosePermissionBefore);
        let outcome = self.amazon.close_charge_permission(&claim.permission, &wish.reason, wish.cancel_pending).await;
        crash_point!(ClosePermissionAfter);
        let (came_to, answered) = match outcome {
            CloseOutcome::Done | CloseOutcome::AlreadyFinal | CloseOutcome::Failed => (Tried::MayHaveClosed, true),
            CloseOutcome::Refused(code) => (Tried::Refused(code), true),
            CloseOutcome::AccountFault => (Tried::AccountFault, false),
        };
        let mut look = match self.before_call(claim, Operation::GetChargePermission).await {
            Ok(()) if answered => self.amazon.charge_permission(&claim.permission).await,
            _ => Look::NotAsked,
        };
        self.pass_on_throttling().await;
        self.judge_the_look_after(&decision.record, &mut look).await;
        let now = self.now(claim);
        let not_before = decision.not_before;
        tried(&mut decision.record, case, &came_to, now, &mut decision.events);
        let mut after = decide_again(case, decision, look, now, &self.policies, self.environment);
        after.not_before = after.not_before.or(not_before);
        Ok(after)
    }
}
