//! The loop around the decisions: claim -> gather -> decide -> act -> commit, one charge permission at a time.
//!
//! Nothing is decided here. [`Reconciler::step`] does one permission; [`Reconciler::run`] repeats it. After a send is marked nothing may
//! stand between it and its verdict's commit but a crash, and a crash leaves the number unknown: the next worker asks again under the
//! same idempotency key.

mod act;
mod capture;
mod close;
mod commit;
mod gather;
mod quota;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, warn};

use crate::amazon_pay::AmazonPay;
use crate::clock::{Clock, Stopwatch};
use crate::model::charge_intent::NumberStatus;
use crate::model::ids::{ChargePermissionId, Environment};
use crate::model::permission::Look;
use crate::model::quota::Operation;
use crate::model::verdict::Verdict;
use crate::recovery::case::{Act, Case};
use crate::recovery::decide::decide;
use crate::recovery::objects::{judge, remember_owners};
use crate::recovery::plan::plan;
use crate::recovery::policies::Policies;
use crate::recovery::quota::covers;
use crate::store::reconciliations::{Claim, Claimed, Renewed};
use crate::store::{Failure, Store, StoreError};
use crate::telemetry::{metric, trace};
use commit::{Noted, count_sweep, log_missing_policies};
use quota::Turn;

/// Due permissions looked at per step; the first that can be claimed is taken.
const CANDIDATES: usize = 16;
/// How often an idle worker looks for work that other instances made due.
const POLL: Duration = Duration::from_millis(500);
/// A worker whose permission has to wait for tokens lets notifications that come meanwhile go first: SNS waits for them, and there is
/// nothing to be called. Short enough for a backlog to find its way into the waiting room.
const ACCEPTING_PAUSE: Duration = Duration::from_millis(25);
/// Wait after an error of the store.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// A decision that changes nothing is not made again at once.
const NOTHING_CHANGED_DELAY: Duration = Duration::from_secs(5);
/// Nor is a permission tried again at once while too few replicas confirm: each try is a look at Amazon and one more mark.
const NOT_CONFIRMED_DELAY: Duration = Duration::from_mins(2);

/// Reconciles charge permissions. Clones share everything; run as many workers as needed.
#[derive(Debug, Clone)]
pub struct Reconciler {
    store: Store,
    amazon: Arc<AmazonPay>,
    policies: Arc<Policies>,
    environment: Environment,
    clock: Clock,
    shutdown: CancellationToken,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// Nothing was due.
    Idle,
    /// A permission was reconciled.
    Reconciled(ChargePermissionId),
    /// There were no tokens for it, the account is at fault, or a later version wrote what it is about: it waits without a lease.
    Waits(ChargePermissionId),
    /// The lease was lost on the way; whoever holds it now goes on.
    LostLease(ChargePermissionId),
    /// Told to shut down: the lease was given back undecided.
    Released(ChargePermissionId),
}

/// Why a reconciliation ends before its commit.
enum Stop {
    LostLease,
    ShuttingDown,
    /// A call that was not reserved: a mistake of ours.
    NotReserved,
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How a reconciliation ended, in a trace, and whether somebody has to mend something.
fn told(result: &Result<bool, Stop>) -> (&'static str, bool) {
    match result {
        Ok(true) => ("committed", false),
        Ok(false) => ("waits", false),
        Err(Stop::LostLease) => ("lease lost", true),
        Err(Stop::ShuttingDown) => ("shutting down", false),
        Err(Stop::NotReserved) => ("not reserved", true),
        Err(Stop::Store(StoreError::Newer(_))) => ("written by a newer version", false),
        Err(Stop::Store(_)) => ("Redis failed", true),
    }
}

impl Reconciler {
    /// A reconciler of one account. `shutdown` stops new calls to Amazon; what was marked is finished.
    #[must_use]
    pub fn new(
        store: Store,
        amazon: Arc<AmazonPay>,
        policies: Arc<Policies>,
        environment: Environment,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> Self {
        commit::count_from_zero();
        Self { store, amazon, policies, environment, clock, shutdown }
    }

    /// Steps until told to stop.
    pub async fn run(&self) {
        while !self.shutdown.is_cancelled() {
            let pause = match self.step().await {
                Ok(StepOutcome::Idle) => POLL,
                Ok(StepOutcome::Waits(_)) if self.store.is_accepting() => ACCEPTING_PAUSE,
                Ok(_) => continue,
                Err(error) => {
                    error!(error = &error as &dyn std::error::Error, "reconciliation failed at the store");
                    ERROR_PAUSE
                }
            };
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = self.store.nudged(), if pause == POLL => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Reconciles one permission that is due.
    ///
    /// # Errors
    /// When Redis does not answer. Nothing is lost: the lease runs out and the permission is due again.
    pub async fn step(&self) -> Result<StepOutcome, StoreError> {
        for permission in self.store.due(CANDIDATES).await? {
            crash_point!(DueListed);
            if let Claimed::Yes(claim) = self.store.claim(&permission, &self.clock).await? {
                crash_point!(Claimed);
                return self.reconcile(*claim).await;
            }
        }
        Ok(StepOutcome::Idle)
    }

    async fn reconcile(&self, claim: Claim) -> Result<StepOutcome, StoreError> {
        let stopwatch = Stopwatch::start();
        let permission = claim.permission.clone();
        let messages = claim.hints.iter().map(|(hint, _)| hint.note.message_id.as_str());
        let span = trace::reconciliation(permission.as_str(), messages);
        let result = self.reconcile_claimed(&claim).instrument(span.clone()).await;
        metrics::histogram!(metric::RECONCILIATION_SECONDS).record(stopwatch.elapsed());
        let (outcome, failed) = told(&result);
        trace::reconciled(&span, outcome, failed);
        match result {
            Ok(true) => Ok(StepOutcome::Reconciled(permission)),
            Ok(false) => Ok(StepOutcome::Waits(permission)),
            Err(Stop::NotReserved) => {
                self.store.release(&claim, NOTHING_CHANGED_DELAY).await?;
                Ok(StepOutcome::Released(permission))
            }
            Err(Stop::LostLease) => {
                warn!(%permission, "the lease was lost during a reconciliation");
                Ok(StepOutcome::LostLease(permission))
            }
            Err(Stop::ShuttingDown) => {
                crash_point!(ReleaseBefore);
                self.store.release(&claim, Duration::ZERO).await?;
                crash_point!(ReleaseAfter);
                Ok(StepOutcome::Released(permission))
            }
            // As a claim that meets one: an ended charge that a hint names is read only here.
            Err(Stop::Store(StoreError::Newer(key))) => {
                self.store.leave_to_newer(&claim, &key).await?;
                Ok(StepOutcome::Waits(permission))
            }
            Err(Stop::Store(error)) => {
                // If this fails too, the lease runs out by itself.
                let unconfirmed = error.failure() == Some(Failure::TooFewReplicas);
                let delay = if unconfirmed { NOT_CONFIRMED_DELAY } else { NOTHING_CHANGED_DELAY };
                let _ = self.store.release(&claim, delay).await;
                Err(error)
            }
        }
    }

    /// The time by Redis, which leases and due times are judged by: a worker whose own clock is behind would find nothing due in what it
    /// has claimed, and claim it again at once.
    fn now(&self, claim: &Claim) -> Timestamp {
        self.clock.now().saturating_add(claim.ahead).unwrap_or(Timestamp::MAX)
    }

    /// `false` if the permission has to wait: then its lease is given back already.
    async fn reconcile_claimed(&self, claim: &Claim) -> Result<bool, Stop> {
        let mut case = Case {
            permission: claim.permission.clone(),
            closed: claim.closed,
            record: claim.record.clone(),
            hints: claim.hints.iter().map(|(hint, _)| hint.clone()).collect(),
            intents: claim.intents.clone(),
            close: claim.close.clone(),
            look_asked: claim.look_asked.is_some(),
        };
        let plan = plan(&case, self.now(claim));
        match self.reserve(claim, &case, &plan, self.now(claim)).await? {
            Turn::Ours => {}
            Turn::Probe => return self.probe(claim, &case).await.map(|()| true),
            Turn::Waits => return Ok(false),
        }
        let (findings, objects) = self.gather(claim, &mut case, plan).await?;
        crash_point!(Gathered);
        let now = self.now(claim);
        let mut decision = decide(&case, &findings, now, &self.policies, self.environment);
        let swept = judge(&case, &objects, &findings.look, &mut decision, now, self.environment);
        let noted = Noted {
            found: count_sweep(&case, &findings, &decision, swept, now),
            looked: matches!(findings.look, Look::Seen(_) | Look::NotFound),
        };
        log_missing_policies(&case, &decision);
        if matches!(findings.look, Look::Failed | Look::AccountFault | Look::Refused) {
            metrics::counter!(metric::LOOKS_FAILED).increment(1);
            let next_try = decision.not_before.map(tracing::field::display);
            warn!(permission = %case.permission, next_try, "Amazon did not show a charge permission; its charges wait");
        }
        crash_point!(Decided);
        let mut answered = None;
        match std::mem::replace(&mut decision.act, Act::Nothing) {
            Act::Nothing => {}
            // Nothing but a hint may know of this authorisation: a commit would clear it.
            Act::CancelCharge(..) if self.shutdown.is_cancelled() => return Err(Stop::ShuttingDown),
            _ if self.shutdown.is_cancelled() => {}
            // What a look turned up was not in the plan: it stays due, and is planned for.
            act if !covers(&claim.reservation.left(), &act) => {}
            Act::CancelCharge(index, charge) => self.cancel(claim, &mut decision, index, &charge).await?,
            Act::Capture(index) => answered = self.capture(claim, &mut decision, index).await?,
            Act::ClosePermission => decision = self.close(claim, &case, decision).await?,
            Act::Send(index) => {
                answered = self.send(claim, &case, &mut decision, index, &findings.look).await?;
                decision.record.acted |= answered.is_some();
                let resolved = decision.drafts[index].intent.number.status == NumberStatus::Fresh && answered.is_some();
                if resolved {
                    decision = self.look_again(claim, &case, decision, index).await;
                }
            }
        }
        // Alerts that the answer to a send raised; those from before it are among the events already.
        for draft in &mut decision.drafts {
            decision.events.append(&mut draft.alerts);
        }
        let charge = match answered {
            Some(Verdict::Charge(view)) => Some(*view),
            _ => None,
        };
        if let Some(charge) = charge.as_ref().filter(|charge| charge.state.is_final()) {
            // The notification of our own charge then costs no call.
            decision.record.remember_charge(charge.id.clone(), charge.state.as_str());
        }
        remember_owners(&mut decision.record, decision.drafts.iter().map(|draft| &draft.intent));
        self.commit(claim, &case, &decision, noted, charge.as_ref()).await.map(|()| true)
    }

    /// Before each call to Amazon: it must be reserved, and the lease must outlast it.
    async fn before_call(&self, claim: &Claim, operation: Operation) -> Result<(), Stop> {
        if self.shutdown.is_cancelled() {
            return Err(Stop::ShuttingDown);
        }
        if !claim.reservation.take(operation) {
            error!(permission = %claim.permission, %operation, "a call was not made because it was not reserved: a bug");
            return Err(Stop::NotReserved);
        }
        crash_point!(RenewBefore);
        let renewed = self.store.renew(claim).await?;
        crash_point!(RenewAfter);
        match renewed {
            Renewed::Yes => Ok(()),
            Renewed::Lapsed => {
                metrics::counter!(metric::LEASE_LAPSED).increment(1);
                warn!(permission = %claim.permission, "a lease ran out before it was renewed");
                Ok(())
            }
            Renewed::Lost => Err(Stop::LostLease),
        }
    }
}
