//! One charge permission at a time: what to look at ([`super::plan`]), and then what to do ([`decide`]).
//!
//! Total, pure and deterministic. The reconciler gathers, calls [`decide`], acts at most once, settles the answer and calls
//! [`decide`] again with [`Findings::may_act`] off, so that one set of rules judges before and after a send.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::case::{Act, Case, Decision, Findings, HintFate};
use super::draft::Draft;
use super::due::{not_before, plan_next_look};
use super::gate::advance_fresh;
use super::hints::{fate, newest_permission_hint};
use super::permission::Told;
use super::plan::is_known_final;
use super::policies::Policies;
use super::policy::{Policy, later};
use super::{authorization, closing, found, permission, wishes};
use crate::model::charge::ChargeLook;
use crate::model::charge_intent::{NumberStatus, Outcome, Stage, Trigger, Why};
use crate::model::event::Event;
use crate::model::hint::{Hint, ObjectType};
use crate::model::ids::{ChargeId, Environment, IntentId};
use crate::model::permission::{Look, PermissionRecord, PermissionState};

/// A pending charge is alerted on after this, and held after [`PENDING_HELD`].
const PENDING_ALERT: Duration = Duration::from_hours(24);
/// See [`PENDING_ALERT`].
const PENDING_HELD: Duration = Duration::from_hours(7 * 24);
/// To the first probe of an account that is freshly at fault; twice as long each time, up to [`ACCOUNT_PROBE`]. It may be one permission
/// alone that is refused: that must not cost everybody much.
pub const FIRST_PROBE: Duration = Duration::from_mins(1);
/// The longest time between the probes of an account that is at fault, and between the tries of what is refused by itself.
pub const ACCOUNT_PROBE: Duration = Duration::from_mins(15);
/// How long an operator's new number waits for a charge that could not be read.
const UNREAD_DELAY: Duration = Duration::from_mins(1);

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
        let told = Told { heard: heard_at.is_some(), open: &open_ids(&drafts) };
        events = permission::observe(&mut record, &case.permission, &findings.look, &told, now);
        for draft in &mut drafts {
            draft.about = permission::about(&record, closed);
        }
        apply_charges(&mut drafts, &mut record, &mut events, findings, now, policies, ours);
        events.extend(wishes::refuted(case, findings, now, ours));
        for draft in &mut drafts {
            wishes::retry(draft, now);
        }
    }
    let turn = closing::turn(&mut record, case, closed, foreign, findings, now, &mut events);
    let context = Context {
        now,
        policies,
        look: &findings.look,
        closed,
        newly_closed: closed && !case.closed,
        closed_at: record.closed_at,
        closing_until: turn.until(),
        heard_at,
        charges: findings.charges.as_slice(),
        ours,
    };

    let mut wants: Vec<(usize, Want)> = Vec::new();
    for (index, draft) in drafts.iter_mut().enumerate() {
        let mut want = if foreign { stop_foreign(draft, now) } else { advance(draft, &context) };
        if draft.intent.is_paused() && matches!(want, Want::New | Want::Repeat | Want::Capture) {
            want = Want::Nothing;
        }
        plan_next_look(draft, &context);
        // A decline that was read, not answered: the permission is asked about right after it.
        let declined = case.intents.get(index).is_some_and(|before| before.number.value < draft.intent.number.value);
        if declined && findings.may_act && view.is_none() && !draft.intent.stage().is_terminal() {
            draft.intent.progress.look_at = Some(now);
        }
        wants.push((index, want));
    }
    // While the account, or this permission, is refused nothing else is called.
    let refused = matches!(findings.look, Look::AccountFault | Look::Refused);
    let act = if !findings.may_act || refused {
        Act::Nothing
    } else if turn.is_now() {
        after_the_closing(&mut drafts, &wants, now);
        Act::ClosePermission
    } else {
        put_off_for_what_is_unread(&mut drafts, &mut wants, case, findings, now);
        choose(&mut drafts, &wants, now, policies)
    };
    let put_off = left_for_later(&mut drafts, &wants, &act);
    for draft in &mut drafts {
        events.append(&mut draft.alerts);
    }
    let keep = |hint: &Hint| {
        hint.object_type == ObjectType::Charge && put_off.iter().any(|charge| *charge == hint.object_id.to_charge_id())
    };
    let fate_of = |hint| if keep(hint) { HintFate::Keep } else { fate(hint, case, findings, foreign, now) };
    let hints = case.hints.iter().map(fate_of).collect();
    let not_before = not_before(&record, &findings.look, now);
    Decision { drafts, not_before, held_back: false, record, closed, events, hints, act }
}

/// The charges that have not ended.
fn open_ids(drafts: &[Draft]) -> Vec<IntentId> {
    drafts.iter().filter(|draft| !draft.intent.stage().is_terminal()).map(|draft| draft.intent.id.clone()).collect()
}

/// The closing takes this turn; what else was to be done at Amazon has the next.
fn after_the_closing(drafts: &mut [Draft], wants: &[(usize, Want)], now: Timestamp) {
    for (index, _) in wants.iter().filter(|(_, want)| *want != Want::Nothing) {
        drafts[*index].intent.progress.look_at = Some(now);
    }
}

/// An operator's new number rests on his word that no charge exists. While a notification names a charge that nobody could read, it may
/// be the very one: that is found out first.
fn put_off_for_what_is_unread(
    drafts: &mut [Draft],
    wants: &mut [(usize, Want)],
    case: &Case,
    findings: &Findings,
    now: Timestamp,
) {
    let seen = |charge: &ChargeId| {
        is_known_final(case, charge)
            || findings.charges.iter().any(|(id, look)| id == charge && matches!(look, ChargeLook::Seen(_)))
    };
    let charges = case.hints.iter().filter(|hint| hint.object_type == ObjectType::Charge);
    if charges.map(|hint| hint.object_id.to_charge_id()).all(|charge| seen(&charge)) {
        return;
    }
    for (index, want) in wants.iter_mut().filter(|(_, want)| *want == Want::New) {
        let intent = &drafts[*index].intent;
        if intent.progress.trigger == Trigger::Operator && intent.number.value > 0 {
            drafts[*index].defer(later(now, UNREAD_DELAY));
            *want = Want::Nothing;
        }
    }
}

/// Authorisations that appeared after their intent had ended, and that something else, another one of the same intent perhaps, keeps
/// from being canceled now: nothing but the hint knows of them. It is kept, and what is told is told when it is their turn.
fn left_for_later(drafts: &mut [Draft], wants: &[(usize, Want)], act: &Act) -> Vec<ChargeId> {
    let mut put_off = Vec::new();
    for (index, want) in wants {
        let Want::CancelCharge(charge) = want else { continue };
        let is_the_act = matches!(act, Act::CancelCharge(of, _) if of == index);
        if drafts[*index].intent.stage().is_terminal() && !is_the_act {
            drafts[*index].alerts.clear();
            put_off.push(charge.clone());
        }
    }
    put_off.extend(drafts.iter_mut().flat_map(|draft| std::mem::take(&mut draft.left_over)));
    put_off
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
    Capture,
    CancelCharge(ChargeId),
}

pub(super) struct Context<'a> {
    pub(super) now: Timestamp,
    pub(super) policies: &'a Policies,
    pub(super) look: &'a Look,
    pub(super) closed: bool,
    /// Whether that was not known before.
    pub(super) newly_closed: bool,
    pub(super) closed_at: Option<Timestamp>,
    /// Its closing was asked for: no send before this time.
    pub(super) closing_until: Option<Timestamp>,
    pub(super) heard_at: Option<Timestamp>,
    pub(super) charges: &'a [(ChargeId, ChargeLook)],
    pub(super) ours: Environment,
}

impl<'a> Context<'a> {
    /// The policy of a charge.
    pub(super) fn policy_of(&self, draft: &Draft) -> &'a Policy {
        self.policies.of(&draft.intent)
    }

    /// Nothing is abandoned because we could not ask.
    pub(super) fn may_end(&self) -> bool {
        !matches!(self.look, Look::AccountFault | Look::Refused)
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
    // What halts the whole account is in `stopped_ms`.
    if *context.look == Look::Refused && !draft.intent.stage().is_terminal() {
        draft.intent.progress.stand_still(ACCOUNT_PROBE);
    }
    draft.count_the_month_once(context.now);
    match draft.intent.stage().clone() {
        Stage::Authorized { charge, .. } => authorization::advance(draft, &charge, context),
        Stage::Canceled { .. } if draft.left_over.is_empty() => Want::Nothing,
        Stage::Canceled { .. } => Want::CancelCharge(draft.left_over.remove(0)),
        Stage::Captured { .. } | Stage::Abandoned { .. } | Stage::Held { .. } => Want::Nothing,
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
    } else if !closing
        && context.may_end()
        && !draft.intent.is_paused()
        && context.now >= policy.unknown_deadline(&draft.intent, why)
    {
        draft.end_unverified(context.now, "window_ended");
        return Want::Nothing;
    }
    match draft.intent.stage() {
        Stage::Scheduled { at: planned, .. } if *planned <= context.now && at <= context.now => {
            // First the permission is closed at Amazon: what is found out after that can no longer be a new charge.
            let Some(until) = context.closing_until else { return Want::Repeat };
            draft.defer(until);
            Want::Nothing
        }
        _ => Want::Nothing,
    }
}

/// At most one act: cancellations first, then what is unknown, then the oldest intent. The stop switch holds sends back and no
/// cancellation: one behind a send that is held back would wait for as long as the switch is on. A number that is unknown, or a held intent, keeps the others
/// waiting until X after its first mark.
fn choose(drafts: &mut [Draft], wants: &[(usize, Want)], now: Timestamp, policies: &Policies) -> Act {
    let cancellation = wants.iter().find_map(|(index, want)| match want {
        Want::CancelCharge(charge) => Some(Act::CancelCharge(*index, charge.clone())),
        _ => None,
    });
    if let Some(cancellation) = cancellation {
        return cancellation;
    }
    for (index, want) in wants {
        match want {
            Want::Repeat => return Act::Send(*index),
            // It is of a charge that exists: the numbers of other intents do not matter to it.
            Want::Capture => return Act::Capture(*index),
            Want::New | Want::Nothing | Want::CancelCharge(_) => {}
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
