//! One charge permission at a time: what to look at ([`plan`]), and then what to do ([`decide`]).
//!
//! Total, pure and deterministic. The reconciler gathers, calls [`decide`], acts at most once, settles the answer and calls
//! [`decide`] again with [`Findings::may_act`] off, so that one set of rules judges before and after a send.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::draft::Draft;
use super::gate::advance_fresh;
use super::hints::{fate, newest_permission_hint};
use super::policies::Policies;
use super::policy::{Policy, Sweep, later};
use super::{found, permission};
use crate::model::charge::{ChargeLook, ChargeState};
use crate::model::charge_intent::{ChargeIntent, NumberStatus, Outcome, Park, Stage, Why};
use crate::model::event::Event;
use crate::model::hint::{Hint, HintNote, ObjectType};
use crate::model::ids::{ChargeId, ChargePermissionId, Environment};
use crate::model::permission::{Look, PermissionRecord, PermissionState};

/// Get Charge calls of one reconciliation, at most. With two looks at the permission and one send that makes eight calls.
pub const MAX_CHARGE_LOOKS: usize = 5;
/// A pending charge is alerted on after this, and held after [`PENDING_HELD`].
const PENDING_ALERT: Duration = Duration::from_hours(24);
/// See [`PENDING_ALERT`].
const PENDING_HELD: Duration = Duration::from_hours(7 * 24);
/// Between looks and sends while the account, or our clock, is at fault.
pub const ACCOUNT_PROBE: Duration = Duration::from_mins(15);

/// Everything that is stored about a charge permission, as one claim reads it.
#[derive(Debug, Clone)]
pub struct Case {
    /// The permission.
    pub permission: ChargePermissionId,
    /// Whether a Closed state was ever seen.
    pub closed: bool,
    /// What the last looks showed.
    pub record: PermissionRecord,
    /// What notifications named.
    pub hints: Vec<Hint>,
    /// The open intents, oldest first; after gathering also ended ones that a charge names.
    pub intents: Vec<ChargeIntent>,
}

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Get Charge Permission.
    pub permission: bool,
    /// Get Charge, for each of these.
    pub charges: Vec<ChargeId>,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The permission.
    pub look: Look,
    /// The charges.
    pub charges: Vec<(ChargeId, ChargeLook)>,
    /// Whether a send may follow: off once one was made.
    pub may_act: bool,
}

/// The one thing to do at Amazon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// Create Charge for the intent at this index of [`Decision::drafts`], under its current number.
    Send(usize),
    /// Cancel the authorisation of the intent at this index.
    CancelCharge(usize, ChargeId),
}

/// What becomes of a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HintFate {
    /// Dealt with.
    Done,
    /// Stays as it is, for the next reconciliation.
    Keep,
    /// Looked at again later.
    Defer(HintNote),
    /// Kept aside, with the reason.
    Quarantine(String),
}

/// What happens next.
#[derive(Debug, Clone)]
#[must_use = "a decision that is dropped is work that is lost"]
pub struct Decision {
    /// The intents as they become, with their events.
    pub drafts: Vec<Draft>,
    /// The record as it becomes.
    pub record: PermissionRecord,
    /// Whether Closed was seen by now.
    pub closed: bool,
    /// Events about the permission itself, and alerts.
    pub events: Vec<Event>,
    /// One fate for each hint of the case, in order.
    pub hints: Vec<HintFate>,
    /// What to do at Amazon.
    pub act: Act,
    /// Nothing is to be tried before this time, because Amazon did not answer a look; wakes ignore it.
    pub not_before: Option<Timestamp>,
}

/// What to look at: as little as the hints and the due work ask for.
#[must_use]
pub fn plan(case: &Case, now: Timestamp) -> Plan {
    let ready = |hint: &&Hint| hint.note.not_before.is_none_or(|at| at <= now);
    let mut charges: Vec<ChargeId> = case
        .hints
        .iter()
        .filter(ready)
        .filter(|hint| hint.object_type == ObjectType::Charge)
        .map(|hint| hint.object_id.to_charge_id())
        .filter(|charge| !is_known_final(case, charge))
        .collect();
    for intent in &case.intents {
        if let Stage::Pending { charge, .. } | Stage::Authorized { charge, .. } = intent.stage()
            && intent.progress.look_at.is_none_or(|at| at <= now)
            && !charges.contains(charge)
        {
            charges.push(charge.clone());
        }
    }
    charges.truncate(MAX_CHARGE_LOOKS);
    let heard = case.hints.iter().filter(ready).any(|hint| hint.object_type != ObjectType::Charge);
    let permission = heard || case.intents.iter().any(|intent| needs_the_permission(intent, now));
    Plan { permission, charges }
}

/// A charge that our record knows as final costs no call.
pub(super) fn is_known_final(case: &Case, charge: &ChargeId) -> bool {
    case.record.charges.get(charge).is_some_and(|state| ChargeState::from(state.as_str()).is_final())
}

/// Whether the permission gates what is due for this intent now.
fn needs_the_permission(intent: &ChargeIntent, now: Timestamp) -> bool {
    let looked_for = intent.progress.look_at.is_some_and(|at| at <= now);
    match intent.stage() {
        Stage::Scheduled { at, .. } => *at <= now || looked_for,
        Stage::Parked { park: Park::Instrument { echo_look_at, .. }, .. } => {
            looked_for || intent.progress.look_at.is_none() || echo_look_at.is_some_and(|at| at <= now)
        }
        Stage::Parked { .. } => looked_for || intent.progress.look_at.is_none(),
        _ => false,
    }
}

/// What to do now. See the module documentation.
pub fn decide(case: &Case, findings: &Findings, now: Timestamp, policies: &Policies, ours: Environment) -> Decision {
    let drafts = case.intents.iter().cloned().map(Draft::new).collect();
    go_on(case, drafts, case.record.clone(), findings, now, policies, ours)
}

/// Judges once more after a send: the drafts go on, nothing is sent again, and the hints keep the fate they had.
pub fn decide_again(
    case: &Case,
    before: Decision,
    look: Look,
    now: Timestamp,
    policies: &Policies,
    ours: Environment,
) -> Decision {
    let case = Case { closed: before.closed, ..case.clone() };
    let findings = Findings { look, charges: Vec::new(), may_act: false };
    let mut after = go_on(&case, before.drafts, before.record, &findings, now, policies, ours);
    let mut events = before.events;
    events.append(&mut after.events);
    Decision { events, hints: before.hints, ..after }
}

fn go_on(
    case: &Case,
    mut drafts: Vec<Draft>,
    mut record: PermissionRecord,
    findings: &Findings,
    now: Timestamp,
    policies: &Policies,
    ours: Environment,
) -> Decision {
    let heard_at = newest_permission_hint(case, now);
    let view = findings.look.view();
    let foreign = view.is_some_and(|view| permission::is_foreign(view, ours));
    let closed = case.closed || (!foreign && view.is_some_and(|view| view.state == PermissionState::Closed));
    let mut events = Vec::new();
    for draft in &mut drafts {
        policies.miss(draft);
    }
    if !foreign {
        events = permission::observe(&mut record, &case.permission, &findings.look, heard_at.is_some(), now);
        apply_charges(&mut drafts, &mut record, &mut events, findings, now, policies, ours);
    }
    let charges = findings.charges.as_slice();
    let reasons = record.reasons.clone();
    let context = Context { now, policies, look: &findings.look, closed, reasons, heard_at, charges };
    let mut wants: Vec<(usize, Want)> = Vec::new();
    for (index, draft) in drafts.iter_mut().enumerate() {
        let want = if foreign { stop_foreign(draft, now) } else { advance(draft, &context) };
        plan_next_look(draft, &context);
        // A decline that was read, not answered: the permission is asked about right after it.
        let declined = case.intents.get(index).is_some_and(|before| before.number.value < draft.intent.number.value);
        if declined && findings.may_act && view.is_none() && !draft.intent.stage().is_terminal() {
            draft.intent.progress.look_at = Some(now);
        }
        wants.push((index, want));
    }
    // While the account is at fault the look was the probe; nothing else is called.
    let act = if findings.may_act && findings.look != Look::AccountFault {
        choose(&mut drafts, &wants, now, policies)
    } else {
        Act::Nothing
    };
    for draft in &mut drafts {
        events.append(&mut draft.alerts);
    }
    let hints = case.hints.iter().map(|hint| fate(hint, case, findings, foreign, now)).collect();
    Decision { drafts, not_before: not_before(&record, &findings.look, now), record, closed, events, hints, act }
}

/// Lets each charge found do what it does to its intent; tells of those that are not ours. What was dealt with is remembered.
fn apply_charges(
    drafts: &mut [Draft],
    record: &mut PermissionRecord,
    events: &mut Vec<Event>,
    findings: &Findings,
    now: Timestamp,
    policies: &Policies,
    ours: Environment,
) {
    for (id, look) in &findings.charges {
        let ChargeLook::Seen(view) = look else { continue };
        let owner = drafts.iter_mut().find(|draft| {
            view.tag.as_ref().is_some_and(|tag| tag.intent == draft.intent.id)
                || draft.intent.progress.charge.as_ref() == Some(id)
        });
        let news = record.charges.get(id).map(String::as_str) != Some(view.state.as_str());
        match owner {
            _ if view.release_environment.is_some_and(|theirs| theirs != ours) => {
                let message = "a charge belongs to the other environment";
                let data = json!({ "chargePermissionId": view.permission, "chargeId": id });
                events.extend(news.then(|| Event::attention("environment_mismatch", message, data)));
            }
            Some(draft) => {
                let policy = policies.of(&draft.intent);
                found::found(draft, view, now, policy);
            }
            None if news => events.push(found::unmatched(view)),
            None => {}
        }
        record.remember_charge(id.clone(), view.state.as_str());
    }
}

/// What an intent wants to do at Amazon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Want {
    Nothing,
    New,
    Repeat,
    CancelCharge(ChargeId),
}

pub(super) struct Context<'a> {
    pub(super) now: Timestamp,
    pub(super) policies: &'a Policies,
    pub(super) look: &'a Look,
    pub(super) closed: bool,
    pub(super) reasons: Vec<String>,
    pub(super) heard_at: Option<Timestamp>,
    pub(super) charges: &'a [(ChargeId, ChargeLook)],
}

impl<'a> Context<'a> {
    /// The policy of a charge.
    pub(super) fn policy_of(&self, draft: &Draft) -> &'a Policy {
        self.policies.of(&draft.intent)
    }

    /// Nothing is abandoned because we could not ask.
    pub(super) fn may_end(&self) -> bool {
        *self.look != Look::AccountFault
    }
}

/// A permission of the other environment: nothing is ever sent for it.
fn stop_foreign(draft: &mut Draft, now: Timestamp) -> Want {
    let message = "the charge permission belongs to the other environment";
    if !draft.intent.stage().is_terminal() && !matches!(draft.intent.stage(), Stage::Held { .. }) {
        if draft.intent.number.status == NumberStatus::Fresh {
            draft.abandon(now, "environment_mismatch", Outcome::Verified);
            draft.alert("environment_mismatch", message, json!({}));
        } else {
            draft.hold("environment_mismatch");
        }
    }
    Want::Nothing
}

fn advance(draft: &mut Draft, context: &Context<'_>) -> Want {
    if *context.look == Look::AccountFault && !draft.intent.stage().is_terminal() {
        draft.intent.progress.stand_still(ACCOUNT_PROBE);
    }
    match draft.intent.stage().clone() {
        Stage::Authorized { charge, .. }
            if draft.intent.cancel_requested_at.is_some()
                && draft.intent.progress.cancel_retry_at.is_none_or(|at| at <= context.now) =>
        {
            Want::CancelCharge(charge)
        }
        Stage::Authorized { .. }
        | Stage::Captured { .. }
        | Stage::Canceled { .. }
        | Stage::Abandoned { .. }
        | Stage::Held { .. } => Want::Nothing,
        Stage::Pending { since, alerted, .. } => {
            watch_pending(draft, since, alerted, context.now);
            Want::Nothing
        }
        Stage::Scheduled { at, why } if draft.intent.next_send_repeats() => advance_repeat(draft, at, why, context),
        // Marked out of a park, and nobody lived to write down what came of it.
        Stage::Parked { .. } if draft.intent.next_send_repeats() => {
            draft.schedule(context.now, Why::Repeat);
            advance_repeat(draft, context.now, Why::Repeat, context)
        }
        Stage::Scheduled { .. } | Stage::Parked { .. } => advance_fresh(draft, context),
    }
}

fn watch_pending(draft: &mut Draft, since: Timestamp, alerted: bool, now: Timestamp) {
    if now >= later(since, PENDING_HELD) {
        draft.hold("pending_for_seven_days");
    } else if !alerted && now >= later(since, PENDING_ALERT) {
        if let Stage::Pending { alerted, .. } = &mut draft.intent.progress.stage {
            *alerted = true;
        }
        draft.alert("charge_pending", "a charge has been pending for more than 24 hours", json!({ "since": since }));
    }
}

/// The number was marked before: find out what became of it. The state of the permission gates new numbers only, since a permission
/// may be busy with, or closed after, the very charge we ask about.
fn advance_repeat(draft: &mut Draft, at: Timestamp, why: Why, context: &Context<'_>) -> Want {
    let policy = context.policy_of(draft);
    let closing = draft.intent.progress.closing_since.is_some();
    if context.closed && !closing {
        draft.intent.progress.closing_since = Some(context.now);
        draft.schedule(policy.confirmation_at(&draft.intent, context.now), Why::Closing);
    } else if !closing && context.may_end() && context.now >= policy.unknown_deadline(&draft.intent, why) {
        draft.end_unverified(context.now, "window_ended");
        return Want::Nothing;
    }
    match draft.intent.stage() {
        Stage::Scheduled { at: planned, .. } if *planned <= context.now && at <= context.now => Want::Repeat,
        _ => Want::Nothing,
    }
}

/// At most one act: what is unknown first, then the oldest intent. A number that is unknown, or a held intent, keeps the others
/// waiting until X after its first mark.
fn choose(drafts: &mut [Draft], wants: &[(usize, Want)], now: Timestamp, policies: &Policies) -> Act {
    for (index, want) in wants {
        match want {
            Want::Repeat => return Act::Send(*index),
            Want::CancelCharge(charge) => return Act::CancelCharge(*index, charge.clone()),
            Want::New | Want::Nothing => {}
        }
    }
    let blocked_until = drafts
        .iter()
        .map(|draft| &draft.intent)
        .filter(|intent| intent.number.status == NumberStatus::Unknown && !intent.stage().is_terminal())
        .filter_map(|intent| Some(later(intent.number.first_mark?, policies.of(intent).confirmation_delay)))
        .filter(|until| *until > now)
        .max();
    for (index, _) in wants.iter().filter(|(_, want)| *want == Want::New) {
        match blocked_until {
            Some(until) => drafts[*index].defer(until),
            None => return Act::Send(*index),
        }
    }
    Act::Nothing
}

/// Whether the charge that the intent waits for was asked for in this reconciliation.
fn was_read(stage: &Stage, charges: &[(ChargeId, ChargeLook)]) -> bool {
    match stage {
        Stage::Pending { charge, .. } | Stage::Authorized { charge, .. } => {
            charges.iter().any(|(read, _)| read == charge)
        }
        _ => false,
    }
}

/// When the permission, or the charge, is looked at although nothing happens.
fn plan_next_look(draft: &mut Draft, context: &Context<'_>) {
    let now = context.now;
    let asks_for_permission = matches!(draft.intent.stage(), Stage::Scheduled { .. } | Stage::Parked { .. });
    let sweep = match draft.intent.stage() {
        Stage::Scheduled { .. } if draft.intent.number.value > 0 => Sweep::Quiet,
        Stage::Parked { since, .. } => Sweep::Parked(*since),
        Stage::Pending { since, .. } => Sweep::Pending(*since),
        Stage::Authorized { .. } => Sweep::Quiet,
        _ => {
            draft.intent.progress.look_at = None;
            return;
        }
    };
    let next = sweep.next(now);
    let read = was_read(draft.intent.stage(), context.charges);
    let look_at = &mut draft.intent.progress.look_at;
    match context.look {
        // A look at the permission that is due stays due until Amazon answers one.
        Look::Failed | Look::AccountFault | Look::NotAsked if asks_for_permission && look_at.is_some() => {}
        Look::Failed | Look::AccountFault if asks_for_permission => *look_at = Some(now),
        // A charge that there was no call left for stays due.
        _ if !asks_for_permission && !read && look_at.is_some() => {}
        _ if look_at.is_none_or(|at| at <= now) => *look_at = Some(next),
        _ => {}
    }
}

/// Backs off while Amazon does not answer looks: 30 s, 1, 2, 4, 8 and then 15 minutes.
fn not_before(record: &PermissionRecord, look: &Look, now: Timestamp) -> Option<Timestamp> {
    match look {
        Look::AccountFault => Some(later(now, ACCOUNT_PROBE)),
        Look::Failed => {
            let doublings = record.failed_looks.saturating_sub(1).min(5);
            Some(later(now, Duration::from_secs(30 << doublings).min(ACCOUNT_PROBE)))
        }
        Look::Seen(_) | Look::NotFound | Look::NotAsked => None,
    }
}

/// When the intent needs attention next; `None` when it waits for somebody else.
#[must_use]
pub fn due(intent: &ChargeIntent, policy: &Policy) -> Option<Timestamp> {
    let look_at = intent.progress.look_at;
    let end = policy.attempts_end(intent);
    match intent.stage() {
        Stage::Scheduled { at, why } => {
            let end = if !intent.next_send_repeats() {
                Some(end)
            } else if intent.progress.closing_since.is_none() {
                Some(policy.unknown_deadline(intent, *why))
            } else {
                None
            };
            [Some(*at), look_at, end].into_iter().flatten().min()
        }
        Stage::Parked { park: Park::Instrument { echo_look_at, .. }, .. } => {
            [Some(end), look_at, *echo_look_at].into_iter().flatten().min()
        }
        Stage::Parked { park: Park::Attention, .. } => [Some(end), look_at].into_iter().flatten().min(),
        Stage::Pending { .. } => look_at,
        Stage::Authorized { .. } => [look_at, intent.progress.cancel_retry_at].into_iter().flatten().min(),
        Stage::Held { .. } | Stage::Captured { .. } | Stage::Canceled { .. } | Stage::Abandoned { .. } => None,
    }
}
