//! What must hold in every state, and what must stay reachable.

use amazon_pay_ipn::model::charge_intent::{Outcome, Stage};

use super::explore::Protocol;
use super::redis::holds;
use super::service::{AFTER_END, DUPLICATE, Service};
use super::state::{End, Phase, SLOTS, State, WORKERS};
use super::values::NEVER;
use super::worker::{
    NEW_AFTER_CANCEL, NOT_LOOKED, RELEASED_BY_ECHO, REOPENED, SENT_WHILE_CLOSING, SENT_WHILE_STOPPED, TWO_IN_FLIGHT,
    WRONG_ENDS,
};

/// A property by name.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    pub name: &'static str,
    pub holds: fn(&Protocol, &State) -> bool,
}

pub const ACKNOWLEDGED_IS_STORED: Named =
    Named { name: "1: what was answered with 200 is in the journal", holds: acknowledged };
pub const ONE_SUCCESS: Named = Named { name: "3: at most one success per intent", holds: one_success };
pub const NOTHING_NEW: Named =
    Named { name: "4: no new number after a cancellation or Closed, nothing while stopped", holds: nothing_new };
pub const LOOKED_BEFORE: Named =
    Named { name: "5: a look that said Chargeable before each new number", holds: looked_before };
pub const ENDS: Named =
    Named { name: "6: one terminal event, and only what was unverified may be captured after it", holds: ends };
pub const HONEST: Named = Named { name: "6: a verified end without a charge is true", holds: honest };
pub const MONOTONE: Named = Named { name: "7: nothing that ended opens again", holds: monotone };
pub const NO_LOST_WAKE: Named = Named { name: "wakes: a newer wake is due or leased", holds: no_lost_wake };
pub const HEARD: Named = Named { name: "a success that a worker heard of is never lost", holds: heard };
pub const ONE_IN_FLIGHT: Named = Named { name: "several intents: one number in flight", holds: one_in_flight };
pub const EVIDENCE: Named = Named { name: "a park ends by evidence only", holds: evidence };
pub const NOTICED: Named = Named { name: "two successes whose notifications came are told of", holds: noticed };
/// Beyond [`NOTICED`]: nothing can keep it whatever is lost.
pub const NOTICED_UNHEARD: Named =
    Named { name: "two successes are told of, even if nobody was notified of them", holds: noticed_unheard };
/// Beyond [`HONEST`]: where nobody will be notified, only asking again can keep it.
pub const FOUND_OUT: Named = Named { name: "what Amazon charged is known once all is settled", holds: found_out };

pub const ONE_HOLDER: Named = Named { name: "one worker at most has a token that is good", holds: one_holder };

/// What must hold whatever the scenario.
pub const ALL: [Named; 13] = [
    ONE_HOLDER,
    ACKNOWLEDGED_IS_STORED,
    ONE_SUCCESS,
    NOTHING_NEW,
    LOOKED_BEFORE,
    ENDS,
    HONEST,
    MONOTONE,
    NO_LOST_WAKE,
    HEARD,
    ONE_IN_FLIGHT,
    EVIDENCE,
    NOTICED,
];

fn acknowledged(_: &Protocol, state: &State) -> bool {
    state.seen.acknowledged & !state.redis.journal == 0
}

fn one_holder(protocol: &Protocol, state: &State) -> bool {
    let rules = protocol.service().rules;
    let good = |index: &usize| {
        let worker = &state.workers[*index];
        worker.phase != Phase::Idle && holds(&state.redis, *index, worker, &rules)
    };
    (0..WORKERS).filter(good).count() <= 1
}

fn one_success(_: &Protocol, state: &State) -> bool {
    (0..SLOTS).all(|slot| state.amazon.successes(slot) <= 1)
}

fn nothing_new(_: &Protocol, state: &State) -> bool {
    state.seen.broken & (NEW_AFTER_CANCEL | SENT_WHILE_STOPPED | SENT_WHILE_CLOSING) == 0
}

fn looked_before(_: &Protocol, state: &State) -> bool {
    state.seen.broken & NOT_LOOKED == 0
}

fn monotone(_: &Protocol, state: &State) -> bool {
    state.seen.broken & REOPENED == 0
}

fn one_in_flight(_: &Protocol, state: &State) -> bool {
    state.seen.broken & TWO_IN_FLIGHT == 0
}

fn evidence(_: &Protocol, state: &State) -> bool {
    state.seen.broken & RELEASED_BY_ECHO == 0
}

/// One end; or one that was unverified, and then a capture.
pub fn are_ends(ends: &[End; 3]) -> bool {
    match ends {
        [_, End::None, End::None] => true,
        [first, End::Captured, End::None] => first.is_unverified(),
        _ => false,
    }
}

fn ends(protocol: &Protocol, state: &State) -> bool {
    let service = protocol.service();
    state.seen.broken & WRONG_ENDS == 0
        && (0..SLOTS).filter(|slot| state.redis.intents[*slot] != 0).all(|slot| {
            let last = state.redis.ends[slot].iter().rev().find(|end| **end != End::None);
            let expected = match service.intent(state.redis.intents[slot]).stage() {
                Stage::Captured { .. } => Some(End::Captured),
                Stage::Canceled { outcome: Outcome::Verified, .. } => Some(End::Canceled),
                Stage::Canceled { .. } => Some(End::CanceledUnverified),
                Stage::Abandoned { outcome: Outcome::Verified, .. } => Some(End::Abandoned),
                Stage::Abandoned { .. } => Some(End::AbandonedUnverified),
                _ => None,
            };
            last.copied() == expected
        })
}

fn honest(_: &Protocol, state: &State) -> bool {
    (0..SLOTS).all(|slot| {
        let last = state.redis.ends[slot].iter().rev().find(|end| **end != End::None);
        !matches!(last, Some(End::Canceled | End::Abandoned)) || state.amazon.successes(slot) == 0
    })
}

/// While somebody holds the lease his commit sees the wake; after it has run out the permission is due.
fn no_lost_wake(_: &Protocol, state: &State) -> bool {
    !state.redis.unseen_wake || state.redis.score <= 0 || state.redis.leased
}

/// What a worker has heard of, and is still true at Amazon, is in the record, or noted to be read. (After a loss of data the caller's
/// own books decide what is submitted again.)
fn heard(protocol: &Protocol, state: &State) -> bool {
    if state.redis.heard == 0 || state.redis.recovering {
        return true;
    }
    let service = protocol.service();
    let charges = state.amazon.charges();
    let mut successes =
        charges.iter().filter(|(charge, code)| state.redis.heard & charge.bit() != 0 && code.is_success());
    successes.all(|(charge, _)| {
        let stage = service.intent(state.redis.intents[charge.slot as usize]).stage();
        let follows = matches!(stage, Stage::Captured { .. } | Stage::Pending { .. } | Stage::Held { .. });
        let noted = service.hints.get(state.redis.hints).iter().any(|hint| hint.charge == Some(*charge));
        follows || noted || state.seen.alerts != 0
    })
}

fn noticed(protocol: &Protocol, state: &State) -> bool {
    let charges = state.amazon.charges();
    let doubled = (0..SLOTS).any(|slot| {
        let told = charges.iter().filter(|(charge, code)| {
            charge.slot as usize == slot && code.is_success() && state.seen.told & charge.bit() != 0
        });
        told.count() >= 2
    });
    !doubled || state.seen.alerts & (DUPLICATE | AFTER_END) != 0 || !is_settled(state, &protocol.service(), true)
}

fn noticed_unheard(protocol: &Protocol, state: &State) -> bool {
    (0..SLOTS).all(|slot| state.amazon.successes(slot) < 2)
        || state.seen.alerts & (DUPLICATE | AFTER_END) != 0
        || !is_settled(state, &protocol.service(), true)
}

fn found_out(protocol: &Protocol, state: &State) -> bool {
    let service = protocol.service();
    !is_settled(state, &service, true)
        || (0..SLOTS).filter(|slot| state.amazon.successes(*slot) > 0).all(|slot| {
            let stage = service.intent(state.redis.intents[slot]).stage();
            matches!(stage, Stage::Captured { .. } | Stage::Pending { .. } | Stage::Held { .. })
        })
}

/// Nothing is left to do: every intent has ended or waits for a person, every hint was dealt with, nothing is due.
/// `parks`: waiting for the buyer counts as settled.
pub fn is_settled(state: &State, service: &Service, parks: bool) -> bool {
    state.nobody_works()
        && state.redis.score > 0
        && !state.redis.unseen_wake
        && state.redis.close == NEVER
        && service.hints.get(state.redis.hints).is_empty()
        && state.redis.intents.iter().filter(|intent| **intent != 0).all(|intent| {
            let stage = service.intent(*intent).stage();
            stage.is_terminal()
                || matches!(stage, Stage::Held { .. })
                || (parks && matches!(stage, Stage::Parked { .. }))
        })
}
