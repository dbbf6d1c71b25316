//! One charge permission at a time: what to look at ([`plan`]), and then what to do ([`decide`]).
//!
//! Total, pure and deterministic. The reconciler gathers, calls [`decide`], acts at most once, settles the answer and calls
//! [`decide`] again with [`Findings::may_act`] off, so that one set of rules judges before and after a send.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::draft::Draft;
use super::policy::{Policy, Sweep, later};
use super::{found, permission};
use crate::model::charge::{ChargeLook, ChargeState};
use crate::model::charge_intent::{ChargeIntent, NumberStatus, Outcome, Park, Stage, Trigger, Why};
use crate::model::event::Event;
use crate::model::hint::{Hint, HintNote, ObjectType};
use crate::model::ids::{ChargeId, ChargePermissionId, Environment};
use crate::model::permission::{Look, PermissionRecord, PermissionState, PermissionView};

/// Get Charge calls of one reconciliation, at most. With two looks at the permission and one send that makes eight calls.
pub const MAX_CHARGE_LOOKS: usize = 5;
/// Refused looks after which a hint is quarantined.
const MAX_REFUSALS: u32 = 5;
/// A running charge is waited for this long before the next look.
const BUSY_DELAY: Duration = Duration::from_hours(1);
/// A notification published sooner than this after our decline may be its echo.
const ECHO_SPAN: Duration = Duration::from_mins(15);
/// A bare notification releases at most once in this time.
const NOTIFIED_RELEASE_GAP: Duration = Duration::from_hours(24);
/// A pending charge is alerted on after this, and held after [`PENDING_HELD`].
const PENDING_ALERT: Duration = Duration::from_hours(24);
/// See [`PENDING_ALERT`].
const PENDING_HELD: Duration = Duration::from_hours(7 * 24);
/// Between looks while the account is at fault.
const ACCOUNT_PROBE: Duration = Duration::from_mins(15);
/// Between tries to cancel an authorisation that the caller no longer wants.
const CANCEL_RETRY: Duration = Duration::from_mins(5);

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
fn is_known_final(case: &Case, charge: &ChargeId) -> bool {
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
pub fn decide(case: &Case, findings: &Findings, now: Timestamp, policy: &Policy, ours: Environment) -> Decision {
    let drafts = case.intents.iter().cloned().map(Draft::new).collect();
    go_on(case, drafts, case.record.clone(), findings, now, policy, ours)
}

/// Judges once more after a send: the drafts go on, nothing is sent again, and the hints keep the fate they had.
pub fn decide_again(
    case: &Case,
    before: Decision,
    look: Look,
    now: Timestamp,
    policy: &Policy,
    ours: Environment,
) -> Decision {
    let case = Case { closed: before.closed, ..case.clone() };
    let findings = Findings { look, charges: Vec::new(), may_act: false };
    let mut after = go_on(&case, before.drafts, before.record, &findings, now, policy, ours);
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
    policy: &Policy,
    ours: Environment,
) -> Decision {
    let heard_at = newest_permission_hint(case, now);
    let view = findings.look.view();
    let foreign = view.is_some_and(|view| permission::is_foreign(view, ours));
    let closed = case.closed || (!foreign && view.is_some_and(|view| view.state == PermissionState::Closed));
    let mut events = Vec::new();
    if !foreign {
        events = permission::observe(&mut record, &case.permission, &findings.look, heard_at.is_some(), now);
        apply_charges(&mut drafts, &mut record, &mut events, findings, now, policy);
    }
    let context = Context { now, policy, look: &findings.look, closed, reasons: record.reasons.clone(), heard_at };
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
        choose(&mut drafts, &wants, now, policy)
    } else {
        Act::Nothing
    };
    for draft in &mut drafts {
        events.append(&mut draft.alerts);
    }
    let hints = case.hints.iter().map(|hint| fate(hint, case, findings, foreign, now)).collect();
    Decision { drafts, not_before: not_before(&record, &findings.look, now), record, closed, events, hints, act }
}

fn newest_permission_hint(case: &Case, now: Timestamp) -> Option<Timestamp> {
    case.hints
        .iter()
        .filter(|hint| {
            hint.object_type == ObjectType::ChargePermission && hint.note.not_before.is_none_or(|at| at <= now)
        })
        .map(|hint| hint.note.published_at)
        .max()
}

/// Lets each charge found do what it does to its intent; tells of those that are not ours. What was dealt with is remembered.
fn apply_charges(
    drafts: &mut [Draft],
    record: &mut PermissionRecord,
    events: &mut Vec<Event>,
    findings: &Findings,
    now: Timestamp,
    policy: &Policy,
) {
    for (id, look) in &findings.charges {
        let ChargeLook::Seen(view) = look else { continue };
        let owner = drafts.iter_mut().find(|draft| {
            view.tag.as_ref().is_some_and(|tag| tag.intent == draft.intent.id)
                || draft.intent.progress.charge.as_ref() == Some(id)
        });
        let news = record.charges.get(id).map(String::as_str) != Some(view.state.as_str());
        match owner {
            Some(draft) => found::found(draft, view, now, policy),
            None if news => events.push(found::unmatched(view)),
            None => {}
        }
        record.remember_charge(id.clone(), view.state.as_str());
    }
}

/// What an intent wants to do at Amazon.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Want {
    Nothing,
    New,
    Repeat,
    CancelCharge(ChargeId),
}

struct Context<'a> {
    now: Timestamp,
    policy: &'a Policy,
    look: &'a Look,
    closed: bool,
    reasons: Vec<String>,
    heard_at: Option<Timestamp>,
}

impl Context<'_> {
    /// Nothing is abandoned because we could not ask.
    fn may_end(&self) -> bool {
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
        Stage::Captured { .. } | Stage::Canceled { .. } | Stage::Abandoned { .. } | Stage::Held { .. } => Want::Nothing,
        Stage::Authorized { charge, .. } if draft.intent.cancel_requested_at.is_some() => Want::CancelCharge(charge),
        Stage::Authorized { .. } => Want::Nothing,
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
    let closing = draft.intent.progress.closing_since.is_some();
    if context.closed && !closing {
        draft.intent.progress.closing_since = Some(context.now);
        draft.schedule(context.policy.confirmation_at(&draft.intent, context.now), Why::Closing);
    } else if !closing && context.may_end() && context.now >= context.policy.unknown_deadline(&draft.intent, why) {
        draft.end_unverified(context.now, "window_ended");
        return Want::Nothing;
    }
    match draft.intent.stage() {
        Stage::Scheduled { at: planned, .. } if *planned <= context.now && at <= context.now => Want::Repeat,
        _ => Want::Nothing,
    }
}

/// The number was never marked: nothing can have been charged under it.
fn advance_fresh(draft: &mut Draft, context: &Context<'_>) -> Want {
    let now = context.now;
    if draft.intent.cancel_requested_at.is_some() {
        draft.cancel(now, Outcome::Verified);
        return Want::Nothing;
    }
    if context.closed {
        let extra = json!({ "closedBy": permission::closed_by(&context.reasons), "reasonCodes": context.reasons });
        draft.abandon_with(now, "charge_permission_closed", Outcome::Verified, extra);
        return Want::Nothing;
    }
    let used_up = draft.intent.progress.attempts >= context.policy.max_attempts;
    if used_up || (context.may_end() && now >= context.policy.window_end(&draft.intent)) {
        let reason = draft.intent.progress.last_reason.clone().unwrap_or_else(|| "window_ended".to_owned());
        draft.abandon(now, &reason, Outcome::Verified);
        return Want::Nothing;
    }
    if let Stage::Parked { since, park } = draft.intent.stage().clone() {
        release_if_mended(draft, since, park, context);
    }
    match draft.intent.stage() {
        Stage::Scheduled { at, .. } => gate(draft, *at, context),
        _ => Want::Nothing,
    }
}

/// Whether the buyer has mended the instrument since the decline, and if so, one attempt now.
fn release_if_mended(draft: &mut Draft, since: Timestamp, park: Park, context: &Context<'_>) {
    let Park::Instrument { baseline, non_chargeable_seen, echo_look_at } = park else { return };
    let Some(view) = context.look.view() else { return };
    let now = context.now;
    let other_instrument = matches!((&baseline, &view.instrument), (Some(before), Some(after)) if before != after);
    let heard_late = context.heard_at.is_some_and(|heard| heard >= later(since, ECHO_SPAN));
    let heard_early = context.heard_at.is_some() && !heard_late;
    let may_release_on_hearsay =
        draft.intent.progress.released_by_notification_at.is_none_or(|at| now >= later(at, NOTIFIED_RELEASE_GAP));
    let chargeable = view.state == PermissionState::Chargeable;
    if chargeable && (other_instrument || non_chargeable_seen || (heard_late && may_release_on_hearsay)) {
        if !other_instrument && !non_chargeable_seen {
            draft.intent.progress.released_by_notification_at = Some(now);
        }
        draft.intent.progress.trigger = Trigger::InstrumentUpdate;
        // `notBefore` delays attempts, whoever wakes them.
        draft.schedule(now.max(draft.intent.progress.window_from), Why::Attempt);
        return;
    }
    let echo_look_at = match echo_look_at {
        Some(at) if at <= now => None,
        None if heard_early && now < later(since, ECHO_SPAN) => Some(later(since, ECHO_SPAN)),
        unchanged => unchanged,
    };
    let non_chargeable_seen = non_chargeable_seen || view.needs_the_buyer();
    let park = Park::Instrument { baseline, non_chargeable_seen, echo_look_at };
    draft.intent.progress.stage = Stage::Parked { since, park };
}

/// May a new number be sent? Only after a look in this reconciliation that said Chargeable, with enough balance.
fn gate(draft: &mut Draft, at: Timestamp, context: &Context<'_>) -> Want {
    let (now, policy) = (context.now, context.policy);
    match context.look {
        Look::Seen(view) => match &view.state {
            PermissionState::Chargeable if at <= now && view.release_environment.is_none() => {
                draft.park_for_attention(now, "ReleaseEnvironmentMissing");
                Want::Nothing
            }
            PermissionState::Chargeable if at <= now => gate_limits(draft, view, now, policy),
            PermissionState::NonChargeable if view.is_only_busy() => {
                if at <= now {
                    draft.defer(later(now, BUSY_DELAY));
                }
                Want::Nothing
            }
            PermissionState::NonChargeable if view.is_not_understood() => {
                draft.park_for_attention(now, &view.reasons.join(", "));
                Want::Nothing
            }
            PermissionState::NonChargeable => {
                draft.intent.progress.last_reason =
                    Some(view.reasons.first().cloned().unwrap_or_else(|| "NonChargeable".to_owned()));
                draft.park_for_instrument(now, policy, view.instrument.clone(), true);
                Want::Nothing
            }
            PermissionState::Other(state) => {
                draft.park_for_attention(now, state);
                Want::Nothing
            }
            PermissionState::Chargeable | PermissionState::Closed => Want::Nothing,
        },
        Look::NotFound => {
            draft.park_for_attention(now, "ResourceNotFound");
            Want::Nothing
        }
        Look::Failed | Look::AccountFault | Look::NotAsked => Want::Nothing,
    }
}

fn gate_limits(draft: &mut Draft, view: &PermissionView, now: Timestamp, policy: &Policy) -> Want {
    let amount = draft.intent.request.charge_amount;
    if view.amount_limit.is_some_and(|limit| amount.exceeds(&limit)) {
        draft.abandon(now, "TransactionAmountExceeded", Outcome::Verified);
        Want::Nothing
    } else if view.amount_balance.is_some_and(|balance| amount.exceeds(&balance)) {
        draft.park_for_month(now, policy);
        Want::Nothing
    } else {
        Want::New
    }
}

/// At most one act: what is unknown first, then the oldest intent. A number that is unknown, or a held intent, keeps the others
/// waiting until X after its first mark.
fn choose(drafts: &mut [Draft], wants: &[(usize, Want)], now: Timestamp, policy: &Policy) -> Act {
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
        .filter_map(|intent| intent.number.first_mark)
        .map(|mark| later(mark, policy.confirmation_delay))
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

/// When the permission, or the charge, is looked at although nothing happens.
fn plan_next_look(draft: &mut Draft, context: &Context<'_>) {
    let now = context.now;
    let asks_for_permission = matches!(draft.intent.stage(), Stage::Scheduled { .. } | Stage::Parked { .. });
    let canceling =
        matches!(draft.intent.stage(), Stage::Authorized { .. }) && draft.intent.cancel_requested_at.is_some();
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
    let look_at = &mut draft.intent.progress.look_at;
    match context.look {
        // A look at the permission that is due stays due until Amazon answers one.
        Look::Failed | Look::AccountFault | Look::NotAsked if asks_for_permission && look_at.is_some() => {}
        Look::Failed | Look::AccountFault if asks_for_permission => *look_at = Some(now),
        _ if look_at.is_none_or(|at| at <= now) => *look_at = Some(next),
        _ => {}
    }
    if canceling {
        *look_at = Some(look_at.map_or(now, |at| at.min(later(now, CANCEL_RETRY))));
    }
}

fn fate(hint: &Hint, case: &Case, findings: &Findings, foreign: bool, now: Timestamp) -> HintFate {
    if hint.note.not_before.is_some_and(|at| at > now) {
        return HintFate::Keep;
    }
    if foreign {
        return HintFate::Quarantine("the charge permission belongs to the other environment".to_owned());
    }
    if hint.object_type == ObjectType::Charge {
        let id = hint.object_id.to_charge_id();
        if is_known_final(case, &id) {
            return HintFate::Done;
        }
        return match findings.charges.iter().find(|(seen, _)| *seen == id) {
            None => HintFate::Keep,
            Some((_, ChargeLook::Seen(_))) => HintFate::Done,
            Some((_, ChargeLook::Refused(status))) => refused(hint, &status.to_string(), now),
            Some((_, ChargeLook::Failed)) => HintFate::Defer(deferred(hint, hint.note.refusals, now)),
        };
    }
    match findings.look {
        Look::Seen(_) => HintFate::Done,
        Look::NotFound => refused(hint, "404", now),
        Look::Failed => HintFate::Defer(deferred(hint, hint.note.refusals, now)),
        // No hint calls more often than the probe.
        Look::AccountFault => {
            HintFate::Defer(HintNote { not_before: Some(later(now, ACCOUNT_PROBE)), ..hint.note.clone() })
        }
        Look::NotAsked => HintFate::Keep,
    }
}

fn refused(hint: &Hint, status: &str, now: Timestamp) -> HintFate {
    let refusals = hint.note.refusals.saturating_add(1);
    if refusals >= MAX_REFUSALS {
        HintFate::Quarantine(format!("Amazon answered {status} to {refusals} looks"))
    } else {
        HintFate::Defer(deferred(hint, refusals, now))
    }
}

/// A failed look waits a minute, a refused one 1, 4, 16, 64 minutes.
fn deferred(hint: &Hint, refusals: u32, now: Timestamp) -> HintNote {
    let minutes = 4_u64.saturating_pow(refusals.saturating_sub(1)).min(240);
    HintNote { refusals, not_before: Some(later(now, Duration::from_mins(minutes))), ..hint.note.clone() }
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
    let end = policy.window_end(intent);
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
        Stage::Pending { .. } | Stage::Authorized { .. } => look_at,
        Stage::Held { .. } | Stage::Captured { .. } | Stage::Canceled { .. } | Stage::Abandoned { .. } => None,
    }
}
