//! The loop around the decisions: claim -> gather -> decide -> act -> commit, one charge permission at a time.
//!
//! Nothing is decided here. [`Reconciler::step`] does one permission; [`Reconciler::run`] repeats it. After a send is marked nothing may
//! stand between it and its verdict's commit but a crash, and a crash leaves the number unknown: the next worker asks again under the
//! same idempotency key.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::amazon_pay::{AmazonPay, CancelOutcome};
use crate::clock::{Clock, Stopwatch};
use crate::model::charge::{ChargeLook, ChargeView};
use crate::model::charge_intent::{ChargeIntent, NumberStatus, Outcome, Stage};
use crate::model::event::Event;
use crate::model::hint::Hint;
use crate::model::ids::{ChargeId, ChargePermissionId, Environment};
use crate::model::permission::Look;
use crate::model::verdict::Verdict;
use crate::recovery::decide::{
    ACCOUNT_PROBE, Act, Case, Decision, Findings, HintFate, decide, decide_again, due, plan,
};
use crate::recovery::draft::Draft;
use crate::recovery::policies::Policies;
use crate::recovery::policy::later;
use crate::recovery::settle::settle;
use crate::store::reconciliations::{Claim, Claimed, Commit, Committed, HintChange, Marked, Renewed, Send};
use crate::store::{LEASE_MARGIN, Store, StoreError};
use crate::telemetry::metric;

/// Due permissions looked at per step; the first that can be claimed is taken.
const CANDIDATES: isize = 16;
/// No send while our clock is further than this from Amazon's.
const MAX_CLOCK_SKEW: Duration = Duration::from_mins(5);
/// How often an idle worker looks for work that other instances made due.
const POLL: Duration = Duration::from_millis(500);
/// Wait after an error of the store.
const ERROR_PAUSE: Duration = Duration::from_secs(1);
/// Wait before the next try when a send could not be marked.
const NOT_MARKED_DELAY: Duration = Duration::from_mins(1);
/// Wait while the stop switch is on.
const STOPPED_DELAY: Duration = Duration::from_mins(5);
/// A decision that changes nothing is not made again at once.
const NOTHING_CHANGED_DELAY: Duration = Duration::from_secs(5);
/// Wait before a cancellation at Amazon that failed is tried again.
const CANCEL_RETRY: Duration = Duration::from_mins(5);
/// Tries of a commit while Redis does not answer.
const COMMIT_TRIES: u32 = 3;

/// Reconciles charge permissions. Clones share everything; run as many workers as needed.
#[derive(Debug, Clone)]
pub struct Reconciler {
    store: Store,
    amazon: Arc<AmazonPay>,
    policies: Arc<Policies>,
    environment: Environment,
    clock: Clock,
    shutdown: CancellationToken,
    /// When a wrong clock was last told of, in milliseconds.
    skew_told_ms: Arc<AtomicI64>,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// Nothing was due.
    Idle,
    /// A permission was reconciled.
    Reconciled(ChargePermissionId),
    /// The lease was lost on the way; whoever holds it now goes on.
    LostLease(ChargePermissionId),
    /// Told to shut down: the lease was given back undecided.
    Released(ChargePermissionId),
}

/// Why a reconciliation ends before its commit.
enum Stop {
    LostLease,
    ShuttingDown,
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
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
        Self { store, amazon, policies, environment, clock, shutdown, skew_told_ms: Arc::default() }
    }

    /// Steps until told to stop.
    pub async fn run(&self) {
        while !self.shutdown.is_cancelled() {
            let pause = match self.step().await {
                Ok(StepOutcome::Idle) => POLL,
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
            if let Claimed::Yes(claim) = self.store.claim(&permission, self.clock.now()).await? {
                return self.reconcile(*claim).await;
            }
        }
        Ok(StepOutcome::Idle)
    }

    async fn reconcile(&self, claim: Claim) -> Result<StepOutcome, StoreError> {
        let stopwatch = Stopwatch::start();
        let permission = claim.permission.clone();
        let result = self.reconcile_claimed(&claim).await;
        metrics::histogram!(metric::RECONCILIATION_SECONDS).record(stopwatch.elapsed());
        match result {
            Ok(()) => Ok(StepOutcome::Reconciled(permission)),
            Err(Stop::LostLease) => {
                warn!(%permission, "the lease was lost during a reconciliation");
                Ok(StepOutcome::LostLease(permission))
            }
            Err(Stop::ShuttingDown) => {
                self.store.release(&claim, Duration::ZERO).await?;
                Ok(StepOutcome::Released(permission))
            }
            Err(Stop::Store(error)) => {
                // If this fails too, the lease runs out by itself.
                let _ = self.store.release(&claim, NOTHING_CHANGED_DELAY).await;
                Err(error)
            }
        }
    }

    /// The time by Redis, which leases and due times are judged by: a worker whose own clock is behind would find nothing due in what it
    /// has claimed, and claim it again at once.
    fn now(&self, claim: &Claim) -> Timestamp {
        self.clock.now().saturating_add(claim.ahead).unwrap_or(Timestamp::MAX)
    }

    async fn reconcile_claimed(&self, claim: &Claim) -> Result<(), Stop> {
        let mut case = Case {
            permission: claim.permission.clone(),
            closed: claim.closed,
            record: claim.record.clone(),
            hints: claim.hints.iter().map(|(hint, _)| hint.clone()).collect(),
            intents: claim.intents.clone(),
        };
        let findings = self.gather(claim, &mut case).await?;
        let mut decision = decide(&case, &findings, self.now(claim), &self.policies, self.environment);
        count_sweep(&case, &decision);
        log_missing_policies(&case, &decision);
        if matches!(findings.look, Look::Failed | Look::AccountFault) {
            metrics::counter!(metric::LOOKS_FAILED).increment(1);
            let next_try = decision.not_before.map(tracing::field::display);
            warn!(permission = %case.permission, next_try, "Amazon did not show a charge permission; its charges wait");
        }
        let mut answered = None;
        match std::mem::replace(&mut decision.act, Act::Nothing) {
            Act::Nothing => {}
            _ if self.shutdown.is_cancelled() => {}
            Act::CancelCharge(index, charge) => self.cancel(claim, &mut decision, index, &charge).await?,
            Act::Send(index) => {
                answered = self.send(claim, &case, &mut decision, index, &findings.look).await?;
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
        self.commit(claim, &case, &decision, charge.as_ref()).await
    }

    /// The GETs that the hints and the due work ask for. Ended intents that a charge names join the case.
    async fn gather(&self, claim: &Claim, case: &mut Case) -> Result<Findings, Stop> {
        let plan = plan(case, self.now(claim));
        let look = if plan.permission {
            self.before_call(claim).await?;
            self.amazon.charge_permission(&claim.permission).await
        } else {
            Look::NotAsked
        };
        let mut charges = Vec::with_capacity(plan.charges.len());
        for charge in plan.charges {
            self.before_call(claim).await?;
            let found = self.amazon.charge(&charge).await;
            if let ChargeLook::Seen(view) = &found
                && let Some(tag) = &view.tag
                && !case.intents.iter().any(|intent| intent.id == tag.intent)
                && let Some(ended) = self.store.ended_charge(&tag.intent, claim).await?
                && ended.intent.request.charge_permission_id == claim.permission
            {
                case.intents.push(ended.intent);
            }
            charges.push((charge, found));
        }
        Ok(Findings { look, charges, may_act: true })
    }

    /// Before each call to Amazon: the lease must outlast it.
    async fn before_call(&self, claim: &Claim) -> Result<(), Stop> {
        if self.shutdown.is_cancelled() {
            return Err(Stop::ShuttingDown);
        }
        match self.store.renew(claim).await? {
            Renewed::Yes => Ok(()),
            Renewed::Lapsed => {
                metrics::counter!(metric::LEASE_LAPSED).increment(1);
                warn!(permission = %claim.permission, "a lease ran out before it was renewed");
                Ok(())
            }
            Renewed::Lost => Err(Stop::LostLease),
        }
    }

    /// Every charge meets the same wrong clock: one alert an hour and process says it.
    fn tells_of_skew(&self, now: Timestamp) -> bool {
        let now_ms = now.as_millisecond();
        let hour_ms = 3_600_000;
        let told = self.skew_told_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |told_ms| {
            (now_ms.saturating_sub(told_ms) >= hour_ms).then_some(now_ms)
        });
        told.is_ok()
    }

    /// Sign, mark, send: in this order, and each once. Returns the verdict if the request went out.
    async fn send(
        &self,
        claim: &Claim,
        case: &Case,
        decision: &mut Decision,
        index: usize,
        look: &Look,
    ) -> Result<Option<Verdict>, Stop> {
        let now = self.now(claim);
        if let Some(skew) = self.amazon.clock_skew().filter(|skew| skew.unsigned_abs() > MAX_CLOCK_SKEW) {
            if self.tells_of_skew(now) {
                let message = "our clock and Amazon's are more than 5 minutes apart: nothing is sent until they agree";
                decision.events.push(Event::attention("clock_skew", message, json!({ "skewSeconds": skew.as_secs() })));
            }
            decision.not_before = Some(later(now, ACCOUNT_PROBE));
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
    async fn look_again(&self, claim: &Claim, case: &Case, mut decision: Decision, index: usize) -> Decision {
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
    async fn cancel(
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

    /// Writes the decision. A success whose lease was lost is noted for whoever holds it now.
    async fn commit(
        &self,
        claim: &Claim,
        case: &Case,
        decision: &Decision,
        charge: Option<&ChargeView>,
    ) -> Result<(), Stop> {
        let commit = self.commit_of(claim, case, decision);
        let mut tries = 0;
        let committed = loop {
            tries += 1;
            match self.store.commit(claim, &commit).await {
                Ok(committed) => break committed,
                Err(StoreError::Unavailable(error)) if tries < COMMIT_TRIES => {
                    warn!(error = &error as &dyn std::error::Error, permission = %claim.permission, "a commit is tried again");
                }
                Err(error) => return Err(error.into()),
            }
        };
        if committed == Committed::Yes {
            return Ok(());
        }
        if let Some(charge) = charge {
            self.store.note_charge(&claim.permission, &charge.id).await?;
        }
        Err(Stop::LostLease)
    }

    fn commit_of<'a>(&self, claim: &'a Claim, case: &'a Case, decision: &'a Decision) -> Commit<'a> {
        let now = self.now(claim);
        let with_due = |Draft { intent, events, .. }: &'a Draft| {
            (intent, due(intent, self.policies.of(intent)), events.as_slice())
        };
        let changed = decision.drafts.iter().zip(&case.intents);
        let changed = changed.filter(|(draft, before)| draft.intent != **before || !draft.events.is_empty());
        let mut intents: Vec<_> = changed.map(|(draft, _)| with_due(draft)).collect();
        let hints: Vec<_> = claim
            .hints
            .iter()
            .zip(&decision.hints)
            .filter_map(|((hint, seen), fate)| Some((hint, seen.as_str(), change_of(fate)?)))
            .collect();
        let hints_due =
            claim.hints.iter().zip(&decision.hints).filter_map(|((hint, _), fate)| due_of(hint, fate, now)).min();
        let idle = intents.is_empty() && hints.is_empty() && decision.not_before.is_none();
        if idle {
            // Due, and nothing to do: the due times on record are of another policy, or of before a stop.
            intents = decision.drafts.iter().filter(|draft| has_due_time(&draft.intent)).map(with_due).collect();
        }
        let not_before = if idle { Some(later(now, NOTHING_CHANGED_DELAY)) } else { decision.not_before };
        Commit {
            record: &decision.record,
            closed: decision.closed,
            events: &decision.events,
            hints,
            hints_due,
            intents,
            not_before,
        }
    }
}

/// Whether a due time of the intent is on record that may be written anew. What is held has none, and its caller may resume it at any
/// moment, lease or not: what was read of it before must not be written over that.
fn has_due_time(intent: &ChargeIntent) -> bool {
    !intent.stage().is_terminal() && !matches!(intent.stage(), Stage::Held { .. })
}

/// A change that no notification told us of: the sweep found it.
fn count_sweep(case: &Case, decision: &Decision) {
    let known = case.record.state.is_some();
    if known && case.hints.is_empty() && case.record.state != decision.record.state {
        metrics::counter!(metric::FOUND_BY_SWEEP).increment(1);
        info!(permission = %case.permission, "a change was found by the sweep, not by a notification");
    }
}

/// The alert tells the other systems, and this whoever reads the log; once like it.
fn log_missing_policies(case: &Case, decision: &Decision) {
    for (before, draft) in case.intents.iter().zip(&decision.drafts) {
        if draft.intent.progress.policy_missed && !before.progress.policy_missed {
            let policy = draft.intent.policy.as_ref().map(tracing::field::display);
            warn!(intent = %draft.intent.id, policy, "the policy of a charge is not in RECOVERY_POLICY_FILE: the default one is used");
        }
    }
}

fn change_of(fate: &HintFate) -> Option<HintChange> {
    match fate {
        HintFate::Keep => None,
        HintFate::Done => Some(HintChange::Done),
        HintFate::Defer(note) => Some(HintChange::Defer(note.clone())),
        HintFate::Quarantine(reason) => Some(HintChange::Quarantine(reason.clone())),
    }
}

fn due_of(hint: &Hint, fate: &HintFate, now: Timestamp) -> Option<Timestamp> {
    match fate {
        HintFate::Done | HintFate::Quarantine(_) => None,
        HintFate::Keep => Some(hint.note.not_before.unwrap_or(now)),
        HintFate::Defer(note) => Some(note.not_before.unwrap_or(now)),
    }
}

fn verdict_name(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Charge(view) => view.state.as_str(),
        Verdict::Declined(decline) => decline.as_str(),
        Verdict::Refused(refusal) => refusal.code(),
        Verdict::DuplicateKey => "DuplicateIdempotencyKey",
        Verdict::AccountFault(_) => "AccountFault",
        Verdict::Ambiguous { .. } => "Ambiguous",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::draft::testing::intent;

    #[test]
    fn what_is_held_or_has_ended_is_never_written_only_for_its_due_time() {
        assert!(has_due_time(&intent()));
        let now = Timestamp::UNIX_EPOCH;
        for stage in
            [Stage::Held { reason: "restored".to_owned() }, Stage::Canceled { at: now, outcome: Outcome::Verified }]
        {
            let mut other = intent();
            other.progress.stage = stage;
            assert!(!has_due_time(&other), "{:?}", other.stage());
        }
    }
}
