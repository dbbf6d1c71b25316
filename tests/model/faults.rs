//! Everything that is not a worker's step: time, the network, Amazon's own doings, people, notifications, servers.

use super::amazon::{ChargeCode, PermissionCode};
use super::explore::{Bounds, Label, Steps};
use super::redis::{self, Declared};
use super::service::Service;
use super::state::{COPIES, Phase, Redis, SLOTS, State};
use super::values::{NEVER, older};

pub fn steps(state: &State, bounds: &Bounds, service: &mut Service, steps: &mut Steps) {
    time(state, service, steps);
    network(state, bounds, service, steps);
    amazon(state, steps);
    people(state, service, steps);
    notifications(state, service, steps);
    servers(state, service, steps);
}

/// A lease runs out while its holder is at work; X passes; the window ends.
fn time(state: &State, service: &mut Service, steps: &mut Steps) {
    if state.redis.leased && state.left.lapses > 0 {
        let mut next = *state;
        next.left.lapses -= 1;
        next.redis.leased = false;
        next.redis.score = 0;
        steps.fault(Label::of("the lease runs out"), next);
    }
    let waits = state.redis.score > 0 && state.nobody_works();
    if waits || state.left.pauses > 0 {
        let mut next = aged(state, service);
        if waits {
            // Time goes on by itself: no fault.
            if next != *state {
                steps.add(Label::of("X passes"), next);
            }
        } else {
            next.left.pauses -= 1;
            steps.fault(Label::of("X passes, and nobody comes to his next step"), next);
        }
    }
    if state.left.window_ends > 0 && !state.over {
        let mut next = State { over: true, ..*state };
        next.left.window_ends -= 1;
        for slot in 0..SLOTS {
            if next.redis.open[slot] != NEVER && next.redis.intents[slot] != 0 {
                next.redis.open[slot] = service.due(next.redis.intents[slot], true);
            }
        }
        // What was planned for the end of the window is due then.
        if let Some(first) = next.redis.open.iter().min().filter(|first| **first != NEVER)
            && !next.redis.leased
        {
            next.redis.score = next.redis.score.min(*first);
        }
        steps.add(Label::of("the window ends"), next);
    }
}

fn aged(state: &State, service: &mut Service) -> State {
    let mut next = *state;
    redis::age(&mut next.redis, service);
    if state.replica != 0 {
        let mut replica = *service.replicas.get(state.replica);
        redis::age(&mut replica, service);
        next.replica = service.replicas.put(replica);
    }
    for worker in next.workers.iter_mut().filter(|worker| worker.phase != Phase::Idle) {
        for intent in &mut worker.read.intents {
            *intent = service.age_intent(*intent);
        }
        worker.read.record = service.age_record(worker.read.record);
        worker.read.hints = service.age_hints(worker.read.hints);
        worker.read.close = older(worker.read.close);
        worker.decision = service.age_decision(worker.decision);
        worker.age = 1;
    }
    for copy in &mut next.copies {
        // A copy that Amazon refuses is gone.
        *copy =
            copy.filter(|_| !service.rules.old_dates_are_refused).map(|copy| super::state::Copied { age: 1, ..copy });
    }
    next.copies.sort_unstable();
    next.seen.declined_card = [0; SLOTS];
    next
}

/// A delayed copy arrives. Nobody hears what comes of it.
fn network(state: &State, bounds: &Bounds, service: &mut Service, steps: &mut Steps) {
    for index in 0..COPIES {
        if state.copies[index].is_none() || (index > 0 && state.copies[index] == state.copies[index - 1]) {
            continue;
        }
        let mut next = *state;
        let copy = next.take_copy(index);
        for (what, amazon, left, _) in
            next.amazon.receive(copy, bounds.reading, &service.rules, next.left, &bounds.kinds)
        {
            let label = Label {
                slot: copy.slot,
                number: copy.number,
                detail: what,
                ..Label::of("a delayed request arrives; Amazon:")
            };
            steps.fault(label, State { amazon, left, ..next });
        }
    }
}

/// What becomes of pending charges, and of the permission and its card.
fn amazon(state: &State, steps: &mut Steps) {
    for (charge, _) in state.amazon.charges().into_iter().filter(|(_, code)| code.is_pending()) {
        for (what, end) in [
            ("a pending charge is captured", ChargeCode::Captured),
            ("a pending charge is declined", ChargeCode::Declined),
        ] {
            let mut next = *state;
            next.amazon.set(charge, end);
            let label = Label { slot: charge.slot, number: charge.number, ..Label::of(what) };
            steps.either(end == ChargeCode::Declined, label, next);
        }
    }
    let is = state.amazon.permission;
    if state.left.buyer_closes > 0 && is != PermissionCode::Closed {
        let mut next = *state;
        next.left.buyer_closes -= 1;
        next.amazon.permission = PermissionCode::Closed;
        steps.fault(Label::of("the buyer closes the permission"), next);
    }
    if state.left.deletions > 0 && is == PermissionCode::Chargeable {
        let mut next = *state;
        next.left.deletions -= 1;
        next.amazon.permission = PermissionCode::NonChargeable;
        next.seen.declined_card = [0; SLOTS];
        steps.fault(Label::of("the card is deleted"), next);
    }
    if state.left.updates > 0 && is != PermissionCode::Closed {
        let mut next = *state;
        next.left.updates -= 1;
        next.amazon.permission = PermissionCode::Chargeable;
        next.amazon.card += 1;
        steps.fault(Label::of("the card is updated"), next);
    }
}

/// Callers and operators.
fn people(state: &State, service: &mut Service, steps: &mut Steps) {
    // An answer is given once what it says is on the replica.
    let answered = |next: &mut State, service: &mut Service| {
        if next.replica != 0 && service.rules.durable_answers {
            next.replica = service.replicas.put(next.redis);
        }
    };
    for slot in 0..SLOTS {
        let label = |what| Label { slot: slot as u8, ..Label::of(what) };
        let stored = state.redis.intents[slot];
        if stored == 0 {
            submissions(state, slot, service, steps);
            continue;
        }
        if state.left.cancels > 0 {
            let mut next = *state;
            next.left.cancels -= 1;
            if let Some(last) = redis::cancel_charge(&mut next.redis, slot, service) {
                next.seen.canceled |= 1 << slot;
                answered(&mut next, service);
                steps.fault(label(if last { "is canceled" } else { "is canceling" }), next);
            }
        }
        if service.intent(stored).stage().name() == "held" && state.left.operators > 0 {
            // The typed confirmation: Seller Central shows no charge.
            let nothing_shown = state.amazon.successes(slot) == 0 && !state.amazon.is_busy();
            for as_new_number in [true, false] {
                let mut next = *state;
                next.left.operators -= 1;
                if (nothing_shown || !as_new_number)
                    && redis::resolve_intent(&mut next.redis, slot, as_new_number, state.over, service)
                {
                    let what =
                        if as_new_number { "the operator orders a new number" } else { "the operator gives it up" };
                    steps.fault(label(what), next);
                }
            }
        }
    }
    if state.left.close_wishes > 0 {
        let mut next = *state;
        next.left.close_wishes -= 1;
        if redis::request_close(&mut next.redis, &service.rules) {
            answered(&mut next, service);
            steps.fault(Label::of("the caller wants the permission closed"), next);
        }
    }
    if state.left.stops > 0 || state.redis.stop {
        let mut next = *state;
        next.redis.stop = !state.redis.stop;
        next.seen.stopped = next.redis.stop;
        if next.redis.stop {
            next.left.stops -= 1;
            answered(&mut next, service);
            steps.fault(Label::of("the stop switch is thrown"), next);
        } else {
            steps.add(Label::of("the stop switch is lifted"), next);
        }
    }
}

/// The first submission, or the one after a loss of data.
fn submissions(state: &State, slot: usize, service: &mut Service, steps: &mut Steps) {
    let again = state.redis.recovering && (state.seen.attempted[slot] > 0 || slot == 0);
    if !again && state.left.submits == 0 {
        return;
    }
    let declared = match (again, service.rules.declare_after_loss) {
        (false, _) | (true, false) => vec![("is submitted", Declared::New)],
        // Whoever is unsure declares nothing, and the intent is held.
        (true, true) => match state.seen.attempted[slot] {
            0 => vec![
                ("is submitted again, undeclared", Declared::Nothing),
                ("is submitted again as new", Declared::New),
            ],
            number => vec![
                ("is submitted again, undeclared", Declared::Nothing),
                ("is submitted again with its last number", Declared::Last(number - 1)),
            ],
        },
    };
    for (what, declared) in declared {
        let mut next = *state;
        if !again {
            next.left.submits -= 1;
        }
        if redis::submit_charge(&mut next.redis, slot, declared, service) != "closing" {
            steps.add(Label { slot: slot as u8, ..Label::of(what) }, next);
        }
    }
}

/// Notifications: late, twice, or never.
fn notifications(state: &State, service: &mut Service, steps: &mut Steps) {
    let message = state.seen.acknowledged.trailing_ones() as u8;
    let mut accept = |charge: Option<super::values::ChargeRef>, mut next: State| {
        redis::accept_notification(&mut next.redis, charge, Some(message), service);
        next.seen.acknowledged |= 1 << message;
        if let Some(charge) = charge {
            next.seen.told |= charge.bit();
        }
        if next.replica != 0 && service.rules.durable_answers {
            next.replica = service.replicas.put(next.redis);
        }
        next
    };
    if state.left.permission_ipns > 0 {
        let mut next = *state;
        next.left.permission_ipns -= 1;
        steps.fault(Label::of("a notification names the permission"), accept(None, next));
    }
    if state.left.charge_ipns > 0 {
        for (charge, _) in state.amazon.charges() {
            let mut next = *state;
            next.left.charge_ipns -= 1;
            let label =
                Label { slot: charge.slot, number: charge.number, ..Label::of("a notification names the charge") };
            steps.fault(label, accept(Some(charge), next));
        }
    }
}

/// The replica falls behind, and takes over; everything is lost.
fn servers(state: &State, service: &mut Service, steps: &mut Steps) {
    if state.left.failovers > 0 && state.replica == 0 {
        let mut next = *state;
        next.replica = service.replicas.put(state.redis);
        steps.fault(Label::of("the replica falls behind"), next);
    }
    if state.left.failovers > 0 && state.replica != 0 {
        let mut next = *state;
        next.left.failovers -= 1;
        next.redis = *service.replicas.get(state.replica);
        next.redis.changed = 0;
        next.replica = 0;
        steps.fault(Label::of("the replica takes over"), next);
    }
    if state.left.losses > 0 {
        let mut next = *state;
        next.left.losses -= 1;
        let record = service.records.put(amazon_pay_ipn::model::permission::PermissionRecord::default());
        let hints = service.hints.put(Vec::new());
        // `init` notes that the server changed: for X each send is tainted.
        next.redis = Redis { record, hints, recovering: true, changed: 0, ..Redis::EMPTY };
        next.seen.canceled = 0;
        steps.fault(Label::of("all data is lost; init --after-loss"), next);
    }
}
