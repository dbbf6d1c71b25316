//! What workers do, step by step: claim and look; mark; send; commit. Between two steps of one worker anything may happen.

use super::amazon::{Answer, PermissionCode};
use super::explore::{Bounds, Label, Steps};
use super::redis::{
    MarkFacts, Marked, Wanted, accept_notification, changed_lately, claim_permission, commit_reconciliation, holds,
    mark_send, renew_lease,
};
use super::service::{LookCode, Looked, MarkKey, MarkedCode, Service, digest};
use super::state::{ActCode, Copied, Left, Phase, SLOTS, State, Worker};
use super::values::{NEVER, class};
use amazon_pay_ipn::model::charge_intent::{NumberStatus, Park, Stage};

/// A new number was marked after its cancellation was accepted.
pub const NEW_AFTER_CANCEL: u8 = 1;
/// Something was marked while the operator knew the stop switch to be on.
pub const SENT_WHILE_STOPPED: u8 = 2;
/// A new number was marked after Closed was seen, or anything while a closing is wished for.
pub const SENT_WHILE_CLOSING: u8 = 4;
/// Something that had ended was opened again.
pub const REOPENED: u8 = 8;
/// A new number after a hard decline without evidence.
pub const RELEASED_BY_ECHO: u8 = 16;
/// A new number while another intent's was unknown and young.
pub const TWO_IN_FLIGHT: u8 = 32;
/// A new number without a look in the same reconciliation that said Chargeable.
pub const NOT_LOOKED: u8 = 64;
/// A second terminal event without an unverified end before it, or none with the end.
pub const WRONG_ENDS: u8 = 128;

fn look_at(state: &State) -> LookCode {
    let amazon = &state.amazon;
    LookCode::Seen { permission: amazon.permission, card: amazon.card, busy: amazon.is_busy() }
}

pub fn steps(state: &State, bounds: &Bounds, service: &mut Service, steps: &mut Steps) {
    let mut claimed = false;
    for index in 0..bounds.workers {
        match state.workers[index].phase {
            // Workers are alike: of those that are idle the first one goes.
            Phase::Idle if !claimed => {
                claimed = true;
                claim(state, index, service, steps);
            }
            Phase::Idle => {}
            Phase::Decided => act(state, index, service, steps),
            Phase::Marked => send(state, index, bounds, service, steps),
            Phase::Ready => commit(state, index, service, steps),
        }
        if state.workers[index].phase != Phase::Idle && state.left.crashes > 0 {
            let mut next = *state;
            next.left.crashes -= 1;
            next.workers[index] = Worker::IDLE;
            steps.fault(Label::worker(index, "crashes"), next);
        }
    }
}

/// Claim, look, decide.
fn claim(state: &State, index: usize, service: &mut Service, steps: &mut Steps) {
    let mut claimed = *state;
    let Some(read) = claim_permission(&mut claimed.redis, index, service) else { return };
    if claimed.replica != 0 {
        // A token of this worker that the replica knows is an earlier one.
        let mut replica = *service.replicas.get(claimed.replica);
        if replica.holder as usize == index + 1 && service.rules.unique_token {
            replica.holder = u8::MAX;
            claimed.replica = service.replicas.put(replica);
        }
    }
    let planned = service.plan(&read);
    let mut joined = [0; SLOTS];
    let mut charges = Vec::new();
    for charge in planned.charges {
        let slot = charge.slot as usize;
        if read.intents[slot] == 0 && claimed.redis.intents[slot] != 0 {
            joined[slot] = claimed.redis.intents[slot];
        }
        charges.push((charge, state.amazon.charge(charge)));
    }
    let looks: &[(bool, LookCode)] = match (planned.permission, state.left.failed_looks > 0) {
        (false, _) => &[(false, LookCode::NotAsked)],
        (true, false) => &[(false, look_at(state))],
        (true, true) => &[(false, look_at(state)), (true, LookCode::Failed)],
    };
    for (fails, look) in looks {
        let mut next = claimed;
        let looked = Looked { look: *look, charges: charges.clone(), joined };
        let decision = service.decide(&read, &looked, state.over);
        let act = service.decisions.get(decision).act;
        let phase = if act == ActCode::Nothing { Phase::Ready } else { Phase::Decided };
        next.workers[index] = Worker { phase, read, decision, fence: next.redis.fence, age: 0, charge: None };
        if *fails {
            next.left.failed_looks -= 1;
            steps.fault(Label::worker(index, "claims, and its look fails"), next);
        } else {
            let what = match (look, act) {
                (LookCode::NotAsked, ActCode::Nothing) => "claims, has nothing to send",
                (LookCode::NotAsked, _) => "claims, wants to send",
                (_, ActCode::Nothing) => "claims, looks, has nothing to send",
                (_, ActCode::Close) => "claims, looks, wants to close",
                (_, _) => "claims, looks, wants to send",
            };
            steps.add(Label::worker(index, what), next);
        }
    }
}

fn act(state: &State, index: usize, service: &mut Service, steps: &mut Steps) {
    let worker = state.workers[index];
    match service.decisions.get(worker.decision).act {
        ActCode::Send(draft) => mark(state, index, draft, service, steps),
        ActCode::Close => close(state, index, service, steps),
        ActCode::CancelCharge(..) | ActCode::Nothing => unreachable!("authorisations are not modelled"),
    }
}

/// Renew, sign, mark.
fn mark(state: &State, index: usize, draft_index: u8, service: &mut Service, steps: &mut Steps) {
    let mut next = *state;
    let worker = &state.workers[index];
    let rules = service.rules;
    let dec = service.decisions.get(worker.decision);
    let (draft, card) = (&dec.drafts[draft_index as usize], dec.chargeable_card);
    let (slot, decided) = (draft.slot as usize, draft.intent);
    let new = !service.intent(decided).next_send_repeats();
    let number = service.intent(decided).number.value as u8;
    let label = |what| Label { slot: slot as u8, number, ..Label::worker(index, what) };
    let still = renew_lease(&mut next.redis, index, worker, &rules);
    let marked = if !new && !rules.mark_repeats {
        // Sent as it is, by whoever thinks that it is his turn.
        MarkedCode::Yes { stored: 0, decided: service.unmarked(decided), tainted: false }
    } else if !still || next.redis.intents[slot] == 0 {
        MarkedCode::LostLease
    } else {
        let facts = MarkFacts {
            holds: holds(&next.redis, index, worker, &rules),
            stop: next.redis.stop,
            closing: next.redis.close != NEVER && (new || rules.closing_comes_first),
            closed: next.redis.closed,
            tainting: changed_lately(&next.redis, &rules),
            checks: rules.mark_checks,
        };
        marked((next.redis.intents[slot], decided, worker.read.intents[slot], card, facts), service)
    };
    match marked {
        MarkedCode::LostLease => {
            next.workers[index] = Worker::IDLE;
            steps.add(label("has lost its lease"), next);
        }
        MarkedCode::Stopped => {
            next.workers[index].phase = Phase::Ready;
            steps.add(label("is stopped at the mark"), next);
        }
        MarkedCode::Refused(why) => {
            next.workers[index].decision = service.refuse(worker.decision);
            next.workers[index].phase = Phase::Ready;
            steps.add(Label { detail: why, ..label("is refused at the mark") }, next);
        }
        MarkedCode::Yes { stored, decided, tainted } => {
            judge_mark(&mut next, worker.decision, card, slot, new, service);
            if rules.mark_repeats || new {
                next.redis.intents[slot] = stored;
                next.redis.open[slot] = 0;
                if next.replica != 0 && rules.durable_marks {
                    next.replica = service.replicas.put(next.redis);
                }
            }
            next.seen.attempted[slot] = number + 1;
            let decision = service.replace(worker.decision, draft_index, decided);
            next.workers[index] = Worker { phase: Phase::Marked, decision, age: 0, ..*worker };
            let what = if new { "marks a new number" } else { "marks a repeat" };
            let detail = if tainted { "(tainted)" } else { "" };
            steps.add(Label { detail, ..label(what) }, next);
        }
    }
}

/// `mark_send.lua`, remembered.
fn marked(key: MarkKey, service: &mut Service) -> MarkedCode {
    if let Some(known) = service.marks.get(&key) {
        return *known;
    }
    let (stored, decided, read, card, facts) = key;
    let mut intent = service.intent(decided).clone();
    if !intent.next_send_repeats() && card > 0 {
        intent.number.instrument = Some(digest(card));
    }
    let stored_state = service.intent(read).stage().name();
    let code = match mark_send(service.intent(stored), &Wanted { intent: &intent, stored_state }, facts) {
        Marked::LostLease => MarkedCode::LostLease,
        Marked::Stopped => MarkedCode::Stopped,
        Marked::Refused(why) => MarkedCode::Refused(why),
        Marked::Yes(stored) => {
            intent.number = stored.number.clone();
            let tainted = stored.number.tainted;
            MarkedCode::Yes { stored: service.put_intent(&stored), decided: service.put_intent(&intent), tainted }
        }
    };
    service.marks.insert(key, code);
    code
}

/// What the outside world knows at the moment of a mark that must have prevented it.
fn judge_mark(next: &mut State, decision: u32, card: u8, slot: usize, new: bool, service: &Service) {
    let bit = 1_u8 << slot;
    let seen = &mut next.seen;
    if seen.stopped {
        seen.broken |= SENT_WHILE_STOPPED;
    }
    if next.redis.close != NEVER && !next.redis.closed {
        seen.broken |= SENT_WHILE_CLOSING;
    }
    if !new {
        return;
    }
    if seen.canceled & bit != 0 {
        seen.broken |= NEW_AFTER_CANCEL;
    }
    if next.redis.closed {
        seen.broken |= SENT_WHILE_CLOSING;
    }
    if card == 0 {
        seen.broken |= NOT_LOOKED;
    }
    if seen.declined_card[slot] != 0 && seen.declined_card[slot] == next.amazon.card {
        seen.broken |= RELEASED_BY_ECHO;
    }
    let drafts = &service.decisions.get(decision).drafts;
    for other in (0..SLOTS).filter(|other| *other != slot && next.redis.intents[*other] != 0) {
        // A success that the worker has found, and that Amazon has: it is stored with the commit, and until then the hint of it stays.
        let is_captured = |intent: u32| matches!(service.intent(intent).stage(), Stage::Captured { .. });
        let found = drafts.iter().any(|draft| usize::from(draft.slot) == other && is_captured(draft.intent));
        if found && next.amazon.successes(other) == 1 {
            continue;
        }
        let other = service.intent(next.redis.intents[other]);
        let young = other.number.first_mark.is_some_and(|mark| class(mark) >= 0);
        if other.number.status == NumberStatus::Unknown && young && !other.stage().is_terminal() {
            seen.broken |= TWO_IN_FLIGHT;
        }
    }
}

/// The signed request goes out.
fn send(state: &State, index: usize, bounds: &Bounds, service: &mut Service, steps: &mut Steps) {
    let worker = &state.workers[index];
    let dec = service.decisions.get(worker.decision);
    let ActCode::Send(draft_index) = dec.act else { unreachable!("marked without a send") };
    let draft = &dec.drafts[draft_index as usize];
    let (slot, number) = (draft.slot, service.intent(draft.intent).number.value as u8);
    let age = if service.rules.sign_first { worker.age } else { 0 };
    let request = Copied { slot, number, age };
    let label = |what, detail| Label { detail, slot, number, ..Label::worker(index, what) };
    let silence = |state: State, service: &mut Service| answered(state, index, draft_index, Answer::Nothing, service);

    for (what, amazon, left, answer) in
        state.amazon.receive(request, bounds.reading, &service.rules, state.left, &bounds.kinds)
    {
        let worse = left != state.left;
        let mut next = State { amazon, left, ..*state };
        let heard = answered(next, index, draft_index, answer, service);
        steps.either(worse, label("sends; Amazon:", what), heard);
        if left.lost_replies > 0 && answer != Answer::Nothing {
            next.left = Left { lost_replies: left.lost_replies - 1, ..left };
            let next = silence(next, service);
            steps.fault(label("sends; the reply is lost; Amazon:", what), next);
        }
    }
    if state.left.lost_requests > 0 {
        let mut next = *state;
        next.left.lost_requests -= 1;
        let next = silence(next, service);
        steps.fault(label("sends; the request is lost", ""), next);
    }
    if state.left.delays > 0 {
        let mut next = *state;
        next.left.delays -= 1;
        if next.add_copy(request) {
            let next = silence(next, service);
            steps.fault(label("sends; the request is delayed", ""), next);
        }
    }
}

/// What the answer makes of the draft, and one look after a number that was resolved.
fn answered(mut state: State, index: usize, draft: u8, answer: Answer, service: &mut Service) -> State {
    let look = look_at(&state);
    let worker = state.workers[index];
    let decision = service.settle(&worker.read, worker.decision, draft, answer, look, state.over);
    let charge = match answer {
        Answer::Charge(charge, _) => Some(charge),
        _ => None,
    };
    let dec = service.decisions.get(decision);
    let draft = &dec.drafts[draft as usize];
    let waits = matches!(service.intent(draft.intent).stage(), Stage::Parked { park: Park::Instrument { .. }, .. });
    state.seen.declined_card[draft.slot as usize] =
        if waits && state.amazon.permission == PermissionCode::Chargeable { state.amazon.card } else { 0 };
    state.workers[index] = Worker { phase: Phase::Ready, decision, charge, ..worker };
    state
}

/// Close Charge Permission, and the look after it.
fn close(state: &State, index: usize, service: &mut Service, steps: &mut Steps) {
    let worker = state.workers[index];
    let mut next = *state;
    let rules = service.rules;
    if !renew_lease(&mut next.redis, index, &worker, &rules) {
        next.workers[index] = Worker::IDLE;
        return steps.add(Label::worker(index, "has lost its lease"), next);
    }
    let mut after = |mut next: State| {
        let decision = service.closed(&worker.read, worker.decision, look_at(&next), next.over);
        next.workers[index] = Worker { phase: Phase::Ready, decision, ..worker };
        next
    };
    let mut closed = next;
    closed.amazon.permission = PermissionCode::Closed;
    steps.add(Label::worker(index, "closes the permission"), after(closed));
    if state.left.lost_requests > 0 {
        let mut lost = next;
        lost.left.lost_requests -= 1;
        steps.fault(Label::worker(index, "closes the permission; the request is lost"), after(lost));
    }
}

fn commit(state: &State, index: usize, service: &mut Service, steps: &mut Steps) {
    let mut next = *state;
    let worker = state.workers[index];
    let before = next.redis.ends;
    let committed = commit_reconciliation(&mut next.redis, index, &worker, state.over, service);
    if let Some(charge) = worker.charge {
        if state.amazon.charge(charge).is_success() {
            next.redis.heard |= charge.bit();
        }
        if !committed.written && service.rules.late_success_is_noted {
            accept_notification(&mut next.redis, Some(charge), None, service);
        }
    }
    if committed.reopened {
        next.seen.broken |= REOPENED;
    }
    if committed.written {
        next.seen.alerts |= service.decisions.get(worker.decision).alerts;
    }
    if next.redis.ends != before && next.redis.ends.iter().any(|ends| !super::properties::are_ends(ends)) {
        next.seen.broken |= WRONG_ENDS;
    }
    next.workers[index] = Worker::IDLE;
    let what = match (committed.written, worker.charge) {
        (true, _) => "commits",
        (false, Some(_)) => "has lost its lease, and holds a charge",
        (false, None) => "has lost its lease",
    };
    steps.add(Label::worker(index, what), next);
}
