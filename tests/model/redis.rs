//! The Lua scripts, one function per script and named after it. Values of intents are those of the service; what a script compares and
//! writes is written again here. `scripts.rs` drives the real scripts beside these.

use amazon_pay_ipn::model::charge_intent::{ChargeIntent, NumberStatus, Outcome, RECOVERY, Stage, Why};

use super::rules::Rules;
use super::service::{Service, ready, submitted};
use super::state::{End, Fate, HintState, Redis, SLOTS, Snapshot, Worker};
use super::values::{ChargeRef, Class, NEVER, at, class, now};

const EVERYBODY: u8 = 0b111;

/// `prelude.lua`, `wake`.
fn wake(redis: &mut Redis, rules: &Rules) {
    redis.unseen_wake = true;
    redis.woken = EVERYBODY;
    if !redis.leased || !rules.lease_record_decides {
        redis.score = redis.score.min(0);
    }
}

pub fn holds(redis: &Redis, index: usize, worker: &Worker, rules: &Rules) -> bool {
    if rules.unique_token {
        redis.holder as usize == index + 1
    } else {
        redis.holder != 0 && redis.fence == worker.fence
    }
}

/// What `claim_permission.lua` and the reads after it hand to a worker; `None`: not due, or leased.
pub fn claim_permission(redis: &mut Redis, index: usize, service: &mut Service) -> Option<Snapshot> {
    if redis.score > 0 || (redis.leased && service.rules.lease_record_decides) {
        return None;
    }
    redis.holder = index as u8 + 1;
    redis.leased = true;
    redis.score = 1;
    if !service.rules.unique_token {
        redis.fence += 1;
    }
    let bit = 1 << index;
    redis.woken &= !bit;
    redis.hints = seen_by(redis.hints, bit, service);
    let mut intents = [0; SLOTS];
    for (slot, read) in intents.iter_mut().enumerate() {
        let stored = redis.intents[slot];
        if stored != 0 && !service.intent(stored).stage().is_terminal() {
            *read = service.reads.get(&stored).unwrap_or_else(|| {
                let intent = after_a_crash(service.intent(stored).clone());
                let read = service.put_intent(&intent);
                service.reads.put(stored, read)
            });
        }
    }
    // What is read of the hints is what they are, not who has read them.
    let hints = seen_by(redis.hints, EVERYBODY, service);
    Some(Snapshot { intents, record: redis.record, hints, closed: redis.closed, close: redis.close })
}

/// The hints without the note that these workers have not read them.
fn seen_by(hints: u32, bits: u8, service: &mut Service) -> u32 {
    if let Some(known) = service.read_hints.get(&(hints, bits)) {
        return known;
    }
    let seen = service.hints.get(hints).iter().map(|hint| HintState { newer: hint.newer & !bits, ..*hint }).collect();
    let seen = service.hints.put(seen);
    service.read_hints.put((hints, bits), seen)
}

/// `store/record.rs`, `after_a_crash`: what was marked and not committed is asked about again.
pub fn after_a_crash(mut intent: ChargeIntent) -> ChargeIntent {
    if intent.number.status == NumberStatus::Unknown
        && matches!(intent.stage(), Stage::Parked { .. } | Stage::Scheduled { why: Why::Attempt, .. })
    {
        intent.progress.stage = Stage::Scheduled { at: intent.number.last_mark.unwrap_or_else(now), why: Why::Repeat };
    }
    intent
}

/// `renew_lease.lua`; `false`: lost.
pub fn renew_lease(redis: &mut Redis, index: usize, worker: &Worker, rules: &Rules) -> bool {
    if !holds(redis, index, worker, rules) {
        return false;
    }
    redis.leased = true;
    redis.score = 1;
    true
}

/// What a worker wants to mark.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The intent as the worker decided about it.
    pub intent: &'a ChargeIntent,
    /// The state that its claim read.
    pub stored_state: &'a str,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Marked {
    /// The intent as stored now.
    Yes(ChargeIntent),
    Stopped,
    Refused(&'static str),
    LostLease,
}

/// `mark_send.lua`, on the fields that it reads. `closing`: a closing was asked for. `tainting`: the server changed within X.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "as many facts as the script looks at")]
pub struct MarkFacts {
    pub holds: bool,
    pub stop: bool,
    pub closing: bool,
    pub closed: bool,
    pub tainting: bool,
    pub checks: bool,
}

pub fn mark_send(stored: &ChargeIntent, wanted: &Wanted<'_>, facts: MarkFacts) -> Marked {
    if !facts.holds {
        return Marked::LostLease;
    }
    let new = !wanted.intent.next_send_repeats();
    let status = stored.number.status;
    let state = stored.stage().name();
    if facts.checks {
        if facts.stop {
            return Marked::Stopped;
        }
        if stored.stage().is_terminal() || state == "held" {
            return Marked::Refused("state");
        }
    }
    if stored.number.value != wanted.intent.number.value {
        return Marked::Refused("number");
    }
    if facts.checks && facts.closing && !facts.closed {
        return Marked::Refused("closing");
    }
    if new {
        if status != NumberStatus::Fresh {
            return Marked::Refused("marked before");
        }
        if facts.checks {
            if stored.cancel_requested_at.is_some() {
                return Marked::Refused("canceled");
            }
            if facts.closed {
                return Marked::Refused("closed");
            }
            if state != wanted.stored_state {
                return Marked::Refused("state");
            }
        }
    } else if status == NumberStatus::Fresh {
        return Marked::Refused("never marked");
    }
    let mut stored = stored.clone();
    let number = &mut stored.number;
    number.tainted = facts.tainting || number.last_mark.is_some_and(|mark| class(mark) >= 0);
    if new {
        number.first_mark = Some(now());
        number.instrument.clone_from(&wanted.intent.number.instrument);
    }
    number.sends += 1;
    number.status = NumberStatus::Unknown;
    number.last_mark = Some(now());
    Marked::Yes(stored)
}

/// `accept_notifications.lua` and, without the journal, `add_hint.lua`.
pub fn accept_notification(redis: &mut Redis, charge: Option<ChargeRef>, message: Option<u8>, service: &mut Service) {
    if let Some(message) = message {
        redis.journal |= 1 << message;
    }
    wake(redis, &service.rules);
    let before = redis.hints;
    redis.hints = service.added_hints.get(&(before, charge)).unwrap_or_else(|| {
        let mut hints: Vec<_> =
            service.hints.get(before).iter().filter(|hint| hint.charge != charge).copied().collect();
        hints.push(HintState { charge, published: 0, refusals: 0, not_before: NEVER, newer: EVERYBODY });
        hints.sort_unstable();
        let hints = service.hints.put(hints);
        service.added_hints.put((before, charge), hints)
    });
}

/// What a submission says about earlier numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    Nothing,
    New,
    Last(u8),
}

/// `submit_charge.lua`.
pub fn submit_charge(redis: &mut Redis, slot: usize, declared: Declared, service: &mut Service) -> &'static str {
    let last = match declared {
        Declared::Last(last) => Some(u32::from(last)),
        _ => None,
    };
    let mut intent = submitted(slot as u8, last);
    let known = redis.intents[slot];
    if known == 0 && redis.close != NEVER {
        return "closing";
    }
    if known != 0 {
        let held = service.intent(known).stage().name() == "held" && redis.recovery[slot];
        if !held || declared == Declared::Nothing {
            return "same";
        }
        if last.map_or(-1, i64::from) < i64::from(service.intent(known).number.value) - 1 {
            return "contradicted";
        }
        // What else is stored of it stays: a cancellation that was accepted while it was held.
        intent.cancel_requested_at = service.intent(known).cancel_requested_at;
        redis.holder = 0;
        redis.leased = false;
    }
    let hold = redis.recovering && declared == Declared::Nothing;
    let unknown = hold || last.is_some();
    let number = &mut intent.number;
    number.status = if unknown { NumberStatus::Unknown } else { NumberStatus::Fresh };
    number.sends = u32::from(last.is_some());
    (number.first_mark, number.last_mark) = if unknown { (Some(now()), Some(now())) } else { (None, None) };
    number.tainted = unknown;
    if hold {
        intent.progress.stage = Stage::Held { reason: RECOVERY.to_owned() };
    }
    redis.intents[slot] = service.put_intent(&intent);
    redis.recovery[slot] = hold;
    redis.open[slot] = if hold { NEVER } else { 0 };
    wake(redis, &service.rules);
    match (known, hold) {
        (0, true) => "held",
        (0, false) => "accepted",
        _ => "resumed",
    }
}

/// `cancel_charge.lua`: `Some(true)` is final, `None` too late.
pub fn cancel_charge(redis: &mut Redis, slot: usize, service: &mut Service) -> Option<bool> {
    let stored = redis.intents[slot];
    if service.intent(stored).stage().is_terminal() {
        return None;
    }
    let (canceled, last, known) = service.canceled.get(&stored).copied().unwrap_or_else(|| {
        let (intent, last, known) = canceled(service.intent(stored), service.rules.cancel_waits_for_the_unknown);
        let canceled = (service.put_intent(&intent), last, known);
        service.canceled.insert(stored, canceled);
        canceled
    });
    redis.intents[slot] = canceled;
    if last {
        redis.open[slot] = NEVER;
        end(redis, slot, End::Canceled);
    }
    if last || !known {
        wake(redis, &service.rules);
    }
    Some(last)
}

/// The intent as it becomes, whether that is final, and whether it was asked for before.
pub fn canceled(stored: &ChargeIntent, waits_for_the_unknown: bool) -> (ChargeIntent, bool, bool) {
    let mut intent = stored.clone();
    let settled = matches!(intent.stage().name(), "scheduled" | "parked" | "held");
    let fresh = intent.number.status == NumberStatus::Fresh || !waits_for_the_unknown;
    let known = intent.cancel_requested_at.is_some();
    intent.cancel_requested_at = Some(now());
    if fresh && settled {
        intent.progress.stage = Stage::Canceled { at: now(), outcome: Outcome::Verified };
    }
    (intent, fresh && settled, known)
}

/// `request_close.lua`.
pub fn request_close(redis: &mut Redis, rules: &Rules) -> bool {
    if redis.closed || redis.close != NEVER {
        return false;
    }
    redis.close = 0;
    wake(redis, rules);
    true
}

/// `resolve_intent.lua`, for a new number and for what is given up.
pub fn resolve_intent(redis: &mut Redis, slot: usize, as_new_number: bool, over: bool, service: &mut Service) -> bool {
    let stored = redis.intents[slot];
    if stored == 0 || service.intent(stored).stage().name() != "held" || redis.leased {
        return false;
    }
    let last = service.intent(stored).number.last_mark.map_or(-1, class);
    if as_new_number {
        if last > -1 && service.rules.operator_waits_for_x {
            return false;
        }
        let Some(intent) = service.operators_number(stored, over) else { return false };
        redis.intents[slot] = intent;
        redis.open[slot] = 0;
    } else {
        let Some((intent, ends)) = service.given_up(stored) else { return false };
        redis.intents[slot] = intent;
        redis.open[slot] = NEVER;
        ends.into_iter().for_each(|one| end(redis, slot, one));
    }
    redis.recovery[slot] = false;
    redis.holder = 0;
    wake(redis, &service.rules);
    true
}

fn end(redis: &mut Redis, slot: usize, end: End) {
    let ends = &mut redis.ends[slot];
    let place = ends.iter().position(|known| *known == End::None).unwrap_or(ends.len() - 1);
    ends[place] = end;
}

/// `commit_reconciliation.lua`, `may_become`.
pub fn may_become(stored: &ChargeIntent, recovery: bool, wanted: &str) -> bool {
    let state = stored.stage().name();
    if state == "held" && recovery {
        return is_charged(wanted);
    }
    if !stored.stage().is_terminal() {
        return true;
    }
    state != "captured" && stored.stage().outcome() == Some(Outcome::Unverified) && wanted == "captured"
}

fn is_charged(state: &str) -> bool {
    matches!(state, "captured" | "authorized" | "pending")
}

/// What the commit of a decision writes of an intent: `HSET` of the fields that a commit carries. What others write stays.
pub fn overwritten(stored: &ChargeIntent, decided: &ChargeIntent) -> ChargeIntent {
    ChargeIntent { cancel_requested_at: stored.cancel_requested_at, ..decided.clone() }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub written: bool,
    /// Something that had ended was opened again, or ended again.
    pub reopened: bool,
}

/// `reconciler/commit.rs` and `commit_reconciliation.lua`.
pub fn commit_reconciliation(
    redis: &mut Redis,
    index: usize,
    worker: &Worker,
    over: bool,
    service: &mut Service,
) -> Committed {
    let rules = service.rules;
    if rules.fenced_commit && !holds(redis, index, worker, &rules) {
        return Committed { written: false, reopened: false };
    }
    let dec = service.decisions.get(worker.decision).clone();
    let bit = 1_u8 << index;
    let read = &worker.read;

    // As `commit_of`: what has changed, or, if nothing has, the due times again.
    let changed = |draft: &&super::state::DraftState| {
        let slot = draft.slot as usize;
        let before = if read.intents[slot] == 0 { redis.intents[slot] } else { read.intents[slot] };
        draft.told || draft.intent != before
    };
    let mut written: Vec<_> = dec.drafts.iter().filter(changed).cloned().collect();
    let hints = service.hints.get(read.hints).clone();
    let moved = service.records.get(read.record).closing != service.records.get(dec.record).closing;
    let idle =
        written.is_empty() && dec.hints.iter().all(|fate| *fate == Fate::Keep) && dec.not_before == NEVER && !moved;
    let mut not_before = dec.not_before;
    if idle {
        let has_due_time = |intent: &ChargeIntent| !intent.stage().is_terminal() && intent.stage().name() != "held";
        written = dec.drafts.iter().filter(|draft| has_due_time(service.intent(draft.intent))).cloned().collect();
        not_before = 0;
    }
    let mut hints_due = due_of_hints(&hints, &dec.hints);
    if let Some(closing) = service.records.get(dec.record).closing.as_ref().filter(|closing| closing.parked.is_none()) {
        hints_due = hints_due.min(class(closing.next_at).max(0));
    }

    // The script.
    let (mut overtaken, mut reopened) = (false, false);
    let mut applies = Vec::new();
    for draft in &written {
        let slot = draft.slot as usize;
        if redis.intents[slot] == 0 {
            redis.open[slot] = NEVER;
            continue;
        }
        let stored = service.intent(redis.intents[slot]);
        let wanted = service.intent(draft.intent).stage().name();
        let may = may_become(stored, redis.recovery[slot], wanted) || !rules.monotone_commit;
        if !may && stored.stage().is_terminal() {
            redis.open[slot] = NEVER;
            overtaken |= stored.stage().name() != wanted && is_charged(wanted);
        }
        if may {
            reopened |= stored.stage().is_terminal() && !(may_become(stored, false, wanted));
            applies.push(draft.clone());
        }
    }
    if !overtaken {
        redis.record = dec.record;
    }
    for draft in applies {
        let slot = draft.slot as usize;
        let key = (redis.intents[slot], draft.intent);
        redis.intents[slot] = service.overwrites.get(&key).unwrap_or_else(|| {
            let intent = overwritten(service.intent(key.0), service.intent(key.1));
            let written = service.put_intent(&intent);
            service.overwrites.put(key, written)
        });
        let terminal = service.intent(draft.intent).stage().is_terminal();
        redis.recovery[slot] = false;
        redis.open[slot] = if terminal { NEVER } else { service.due(draft.intent, over) };
        draft.ends.iter().for_each(|one| end(redis, slot, *one));
    }
    if !overtaken && !hints.is_empty() {
        clear_hints(redis, &hints, &dec.hints, bit, service);
    }
    if dec.closed {
        redis.closed = true;
        redis.close = NEVER;
    }
    redis.holder = 0;
    redis.leased = false;
    let woken = redis.woken & bit != 0;
    let mut next: Class = NEVER;
    if overtaken || (woken && rules.commit_compares_wakes) {
        next = 0;
    } else {
        next = next.min(redis.open.iter().copied().min().unwrap_or(NEVER));
        if next != NEVER && not_before != NEVER {
            next = next.max(not_before);
        }
        next = next.min(hints_due);
    }
    if !woken {
        redis.unseen_wake = false;
    }
    redis.score = if next == NEVER { NEVER } else { next.max(0) };
    Committed { written: true, reopened }
}

/// When the hints that stay are looked at again.
fn due_of_hints(hints: &[HintState], fates: &[Fate]) -> Class {
    let due = hints.iter().zip(fates).filter_map(|(hint, fate)| match fate {
        Fate::Done | Fate::Quarantine => None,
        Fate::Keep => Some(hint.not_before),
        Fate::Defer { not_before, .. } => Some(*not_before),
    });
    due.map(|not_before| if not_before == NEVER { 0 } else { not_before }).min().unwrap_or(NEVER)
}

/// Of what the claim read: what came since stays.
fn clear_hints(redis: &mut Redis, hints: &[HintState], fates: &[Fate], bit: u8, service: &mut Service) {
    let mut stored = service.hints.get(redis.hints).clone();
    for (hint, fate) in hints.iter().zip(fates) {
        let unchanged = |now: &HintState| now.charge == hint.charge && now.newer & bit == 0;
        match *fate {
            Fate::Keep => {}
            Fate::Defer { refusals, not_before } => {
                for hint in stored.iter_mut().filter(|hint| unchanged(hint)) {
                    (hint.refusals, hint.not_before) = (refusals, ready(not_before));
                }
            }
            Fate::Done | Fate::Quarantine => stored.retain(|hint| !unchanged(hint)),
        }
    }
    redis.hints = service.hints.put(stored);
}

/// The clock goes on by one step.
pub fn age(redis: &mut Redis, service: &mut Service) {
    use super::values::older;
    for slot in 0..SLOTS {
        redis.intents[slot] = service.age_intent(redis.intents[slot]);
        redis.open[slot] = if redis.open[slot] == NEVER { NEVER } else { older(redis.open[slot]).max(0) };
    }
    redis.record = service.age_record(redis.record);
    redis.hints = service.age_hints(redis.hints);
    redis.close = older(redis.close);
    redis.changed = older(redis.changed);
    redis.leased = false;
    redis.score = if redis.score == NEVER { NEVER } else { older(redis.score).max(0) };
}

/// Whether the server changed within X.
pub fn changed_lately(redis: &Redis, rules: &Rules) -> bool {
    rules.taint_after_failover && at(redis.changed) == now()
}
