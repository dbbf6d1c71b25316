//! The looks: the GETs that the hints and the due work ask for.

use super::{Reconciler, Stop};
use crate::model::charge::ChargeLook;
use crate::model::permission::Look;
use crate::model::quota::Operation;
use crate::recovery::case::{Case, Findings, Plan};
use crate::recovery::objects::ObjectFindings;
use crate::store::reconciliations::Claim;

impl Reconciler {
    /// The GETs that the hints and the due work ask for. Ended intents that a charge names join the case.
    pub(super) async fn gather(
        &self,
        claim: &Claim,
        case: &mut Case,
        plan: Plan,
    ) -> Result<(Findings, ObjectFindings), Stop> {
        let look = if plan.permission {
            self.before_call(claim, Operation::GetChargePermission).await?;
            let look = self.amazon.charge_permission(&claim.permission).await;
            crash_point!(PermissionRead);
            look
        } else {
            Look::NotAsked
        };
        let mut charges = Vec::with_capacity(plan.charges.len());
        for charge in &plan.charges {
            if look == Look::AccountFault || matches!(charges.last(), Some((_, ChargeLook::AccountFault))) {
                break;
            }
            self.before_call(claim, Operation::GetCharge).await?;
            let found = self.amazon.charge(charge).await;
            crash_point!(ChargeRead);
            if let ChargeLook::Seen(view) = &found
                && let Some(tag) = &view.tag
                && !case.intents.iter().any(|intent| intent.id == tag.intent)
                && let Some(ended) = self.store.ended_charge(&tag.intent, claim).await?
                && ended.intent.request.charge_permission_id == claim.permission
            {
                case.intents.push(ended.intent);
            }
            charges.push((charge.clone(), found));
        }
        let refused = look == Look::AccountFault || matches!(charges.last(), Some((_, ChargeLook::AccountFault)));
        let objects = if refused {
            // Refused a moment ago: calling on makes no sense for now.
            ObjectFindings::default()
        } else {
            self.gather_objects(claim, &plan).await?
        };
        let mut findings = Findings { look, charges, may_act: true };
        self.pass_on_throttling().await;
        self.judge_the_account(case, &mut findings).await?;
        Ok((findings, objects))
    }

    /// Get Refund and Get Dispute, until the account is refused.
    async fn gather_objects(&self, claim: &Claim, plan: &Plan) -> Result<ObjectFindings, Stop> {
        let mut found = ObjectFindings::default();
        for id in &plan.refunds {
            if !found.met_account_fault() {
                self.before_call(claim, Operation::GetRefund).await?;
                found.refunds.push((id.clone(), self.amazon.refund(id).await));
                crash_point!(ObjectRead);
            }
        }
        for id in &plan.disputes {
            if !found.met_account_fault() {
                self.before_call(claim, Operation::GetDispute).await?;
                found.disputes.push((id.clone(), self.amazon.dispute(id).await));
                crash_point!(ObjectRead);
            }
        }
        Ok(found)
    }
}
