//! Writes what was decided.

use jiff::Timestamp;
use tracing::{info, warn};

use super::{NOTHING_CHANGED_DELAY, Reconciler, Stop};
use crate::model::charge::ChargeView;
use crate::model::charge_intent::{ChargeIntent, Stage};
use crate::model::hint::Hint;
use crate::model::money::Currency;
use crate::model::quota::Operation;
use crate::recovery::case::{Case, Decision, Findings, HintFate};
use crate::recovery::closing;
use crate::recovery::draft::Draft;
use crate::recovery::due::due;
use crate::recovery::policy::later;
use crate::recovery::sweep::{Found, SILENCE_CHANGES, SILENCE_SPAN, found_by_sweep, silence};
use crate::recovery::tally::{End, Ended, ends, reasons};
use crate::store::StoreError;
use crate::store::reconciliations::{Claim, Commit, Committed, HintChange, Unheard};
use crate::telemetry::metric;

/// Tries of a commit while Redis does not answer.
const COMMIT_TRIES: u32 = 3;

/// What the looks of a reconciliation came to, besides its decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted {
    /// Changes that the sweep found.
    pub(super) found: usize,
    /// Whether Amazon answered a look at the permission.
    pub(super) looked: bool,
}

impl Reconciler {
    /// Writes the decision. A success whose lease was lost is noted for whoever holds it now.
    pub(super) async fn commit(
        &self,
        claim: &Claim,
        case: &Case,
        decision: &Decision,
        noted: Noted,
        charge: Option<&ChargeView>,
    ) -> Result<(), Stop> {
        let commit = self.commit_of(claim, case, decision, noted);
        let mut tries = 0;
        crash_point!(CommitBefore);
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
        crash_point!(CommitAfter);
        if committed == Committed::Yes {
            count_ends(decision);
            return Ok(());
        }
        if let Some(charge) = charge {
            crash_point!(MergeBefore);
            self.store.note_charge(&claim.permission, &charge.id).await?;
            crash_point!(MergeAfter);
        }
        Err(Stop::LostLease)
    }

    pub(super) fn commit_of<'a>(
        &self,
        claim: &'a Claim,
        case: &'a Case,
        decision: &'a Decision,
        noted: Noted,
    ) -> Commit<'a> {
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
        // A look that somebody asked for stays asked for until Amazon answers one.
        let look_asked = claim.look_asked.as_deref().filter(|_| noted.looked);
        let asked_again = (claim.look_asked.is_some() && !noted.looked).then(|| decision.not_before.unwrap_or(now));
        let hints_due = [hints_due, asked_again, closing::due(&decision.record)].into_iter().flatten().min();
        let moved = case.record.closing != decision.record.closing || look_asked.is_some();
        let idle = intents.is_empty() && hints.is_empty() && decision.not_before.is_none() && !moved;
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
            held_back: decision.held_back,
            look_asked,
            unheard: (noted.found > 0).then(|| Unheard {
                found: noted.found,
                changes: SILENCE_CHANGES,
                span: SILENCE_SPAN,
                event: silence(),
            }),
        }
    }
}

/// Whether a due time of the intent is on record that may be written anew. What is held has none, and its caller may resume it at any
/// moment, lease or not: what was read of it before must not be written over that.
fn has_due_time(intent: &ChargeIntent) -> bool {
    !intent.stage().is_terminal() && !matches!(intent.stage(), Stage::Held { .. })
}

/// What alerts and rates watch is there at zero before it first happens: Prometheus sees no rise in a series that begins at one.
pub(super) fn count_from_zero() {
    for end in End::ALL {
        for reason in reasons() {
            metrics::counter!(metric::CHARGES_ENDED, "end" => end.as_str(), "reason" => reason).increment(0);
        }
    }
    for currency in Currency::all() {
        metrics::gauge!(metric::MONEY_RECOVERED, "currency" => currency.code()).increment(0.0);
    }
    for verdict in ["DuplicateIdempotencyKey", "AccountFault", "Ambiguous"] {
        metrics::counter!(metric::CHARGES_SENT, "verdict" => verdict).increment(0);
        metrics::counter!(metric::CAPTURES_SENT, "verdict" => verdict).increment(0);
    }
    for operation in Operation::ALL {
        metrics::counter!(metric::THROTTLED, "operation" => operation.as_str()).increment(0);
    }
}

/// Counts what was committed: how many charges were recovered, and what that is worth.
fn count_ends(decision: &Decision) {
    for draft in &decision.drafts {
        for Ended { end, reason, money } in ends(&draft.intent, &draft.events) {
            metrics::counter!(metric::CHARGES_ENDED, "end" => end.as_str(), "reason" => reason).increment(1);
            if let (End::Recovered, Some(money)) = (end, money) {
                // A gauge, because counters are whole numbers here; it only ever grows.
                metrics::gauge!(metric::MONEY_RECOVERED, "currency" => money.currency().code())
                    .increment(money.approximate());
            }
        }
    }
}

/// Counts the changes that no notification told us of: the sweep found them. `of_objects`: those of refunds and disputes.
pub(super) fn count_sweep(
    case: &Case,
    findings: &Findings,
    decision: &Decision,
    of_objects: usize,
    now: Timestamp,
) -> usize {
    let mut found = found_by_sweep(case, findings, decision, now);
    found.resize(found.len() + of_objects, Found::Object);
    for kind in &found {
        metrics::counter!(metric::FOUND_BY_SWEEP, "kind" => kind.as_str()).increment(1);
        info!(permission = %case.permission, kind = kind.as_str(), "a change was found by the sweep, not by a notification");
    }
    found.len()
}

/// The alert tells the other systems, and this whoever reads the log; once like it.
pub(super) fn log_missing_policies(case: &Case, decision: &Decision) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::charge_intent::Outcome;
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
