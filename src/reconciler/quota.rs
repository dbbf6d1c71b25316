//! Before the first call: all tokens or none. And what faults of the account and throttling mean for everybody else.

use jiff::Timestamp;
use serde_json::json;
use tracing::{error, info, warn};

use super::act::MAX_CLOCK_SKEW;
use super::commit::Noted;
use super::{Reconciler, Stop};
use crate::model::charge::ChargeLook;
use crate::model::event::Event;
use crate::model::permission::{Look, PermissionRecord};
use crate::model::quota::Operation;
use crate::model::verdict::Verdict;
use crate::recovery::case::{Case, Findings, Plan};
use crate::recovery::decide::{ACCOUNT_PROBE, FIRST_PROBE, decide};
use crate::recovery::quota::{PROBE, class, needs, planned_anew_at};
use crate::store::StoreError;
use crate::store::quota::{Probes, Request, Reserved};
use crate::store::reconciliations::Claim;
use crate::telemetry::metric;

const PROBES: Probes = Probes { first: FIRST_PROBE, longest: ACCOUNT_PROBE };

/// What may be called in this reconciliation.
pub(super) enum Turn {
    /// All that the plan asks for.
    Ours,
    /// One look at the permission, for the account's sake.
    Probe,
    /// Nothing; the lease is given back already.
    Waits,
}

impl Reconciler {
    /// Reserves what the plan may need. A reconciliation that calls nobody asks nobody, unless it has a place to give up.
    pub(super) async fn reserve(&self, claim: &Claim, case: &Case, plan: &Plan, now: Timestamp) -> Result<Turn, Stop> {
        let needs = needs(case, plan, now);
        if needs.is_empty() && !claim.has_ticket {
            return Ok(Turn::Ours);
        }
        let request = Request {
            class: class(case, plan, now),
            needs,
            planned_anew_at: planned_anew_at(case, now, &self.policies),
            probe_every: ACCOUNT_PROBE,
            probe: PROBE,
        };
        crash_point!(ReserveBefore);
        let reserved = self.store.reserve(claim, &request).await?;
        crash_point!(ReserveAfter);
        match reserved {
            Reserved::Yes => Ok(Turn::Ours),
            Reserved::Probe => Ok(Turn::Probe),
            Reserved::Waits => Ok(Turn::Waits),
            Reserved::LostLease => Err(Stop::LostLease),
        }
    }

    /// Asks for the account: one look at this permission, and nothing else is done for it. An answer ends the fault.
    pub(super) async fn probe(&self, claim: &Claim, case: &Case) -> Result<(), Stop> {
        self.before_call(claim, Operation::GetChargePermission).await?;
        let look = self.amazon.charge_permission(&claim.permission).await;
        crash_point!(Probed);
        self.pass_on_throttling().await;
        match (&look, self.skew_s()) {
            (Look::Seen(_) | Look::NotFound, None) => {
                let message = "Amazon answers this account again, and the clocks agree: charges go on";
                let event = Event::attention("account_recovered", message, json!({}));
                if self.store.end_fault(&event).await? {
                    info!("the account is answered again");
                }
            }
            (_, skew_s) => warn!(permission = %claim.permission, skew_s, "the account is still at fault"),
        }
        let findings = Findings { look, charges: Vec::new(), may_act: false };
        let decision = decide(case, &findings, self.now(claim), &self.policies, self.environment);
        let noted = Noted { found: 0, looked: matches!(findings.look, Look::Seen(_) | Look::NotFound) };
        self.commit(claim, case, &decision, noted, None).await
    }

    /// What the looks say of the account. A permission that is refused again after the account was answered is refused alone.
    /// So is a charge whose permission was shown a moment ago: it must not halt the account over and over.
    pub(super) async fn judge_the_account(&self, case: &Case, findings: &mut Findings) -> Result<(), StoreError> {
        if findings.look.view().is_some() {
            for (_, look) in findings.charges.iter_mut().filter(|(_, look)| *look == ChargeLook::AccountFault) {
                *look = ChargeLook::Refused(401);
            }
        }
        if findings.look == Look::AccountFault {
            self.judge_the_look(&case.record, &mut findings.look).await?;
        } else if findings.blame_the_account() {
            self.raise_look_fault(Operation::GetCharge).await?;
        }
        Ok(())
    }

    /// What one look at the permission says of the account.
    async fn judge_the_look(&self, record: &PermissionRecord, look: &mut Look) -> Result<(), StoreError> {
        if *look == Look::AccountFault && record.account_fault {
            *look = Look::Refused;
        } else if *look == Look::AccountFault {
            self.raise_look_fault(Operation::GetChargePermission).await?;
        }
        Ok(())
    }

    /// As [`Self::judge_the_look`], after something was done at Amazon: it must not keep that from its commit.
    pub(super) async fn judge_the_look_after(&self, record: &PermissionRecord, look: &mut Look) {
        if let Err(error) = self.judge_the_look(record, look).await {
            error!(error = &error as &dyn std::error::Error, "the account's fault could not be noted");
        }
    }

    /// As [`Self::raise_fault`], for what Amazon said to a look; the operation, where it gave no reason code.
    async fn raise_look_fault(&self, operation: Operation) -> Result<(), StoreError> {
        let code = self.amazon.fault_code();
        self.raise_fault(code.as_deref().unwrap_or_else(|| operation.as_str())).await
    }

    /// Outbound work pauses, on all instances.
    pub(super) async fn raise_fault(&self, reason: &str) -> Result<(), StoreError> {
        let message = "Amazon refuses this account or its key; nothing is called until it answers but a probe after 1, 2, 4, 8, then every 15 minutes, or when somebody asks for one";
        let event = Event::attention("account_fault", message, json!({ "reasonCode": reason }));
        crash_point!(FaultBefore);
        let raised = self.store.raise_fault(reason, &event, PROBES).await?;
        crash_point!(FaultAfter);
        if raised {
            warn!(reason, "the account is at fault: outbound work pauses");
        }
        Ok(())
    }

    /// What the answer to a send says of the account. It must not keep the verdict from its commit.
    pub(super) async fn pass_on_fault(&self, verdict: &Verdict, alone: bool) {
        if let Verdict::AccountFault(reason) = verdict
            && !alone
            && let Err(error) = self.raise_fault(reason).await
        {
            error!(error = &error as &dyn std::error::Error, "the account's fault could not be noted");
        }
    }

    /// As [`Self::raise_fault`]: a request with a wrong date may be refused, or be accepted for longer than we think.
    pub(super) async fn raise_skew(&self, skew_s: i64) -> Result<(), StoreError> {
        let message = "our clock and Amazon's are more than 5 minutes apart: nothing is sent until they agree";
        let event = Event::attention("clock_skew", message, json!({ "skewSeconds": skew_s }));
        if self.store.raise_fault("clock_skew", &event, PROBES).await? {
            warn!(skew_s, "our clock and Amazon's are too far apart: outbound work pauses");
        }
        Ok(())
    }

    /// Seconds that our clock is ahead of Amazon's, where that is too much.
    pub(super) fn skew_s(&self) -> Option<i64> {
        self.amazon.clock_skew().filter(|skew| skew.unsigned_abs() > MAX_CLOCK_SKEW).map(|skew| skew.as_secs())
    }

    /// Tells all instances of operations that Amazon throttled. It must not keep a verdict from its commit: what fails here is only slower
    /// to learn.
    pub(super) async fn pass_on_throttling(&self) {
        for (operation, retry_after) in self.amazon.take_throttled() {
            metrics::counter!(metric::THROTTLED, "operation" => operation.as_str()).increment(1);
            if let Err(error) = self.store.note_throttled(operation, retry_after).await {
                error!(error = &error as &dyn std::error::Error, %operation, "throttling could not be passed on");
            }
            crash_point!(ThrottlingNoted);
        }
    }
}
