//! Which connections wait for their peer, and since when: the one that has waited longest makes room when there are too many.
//!
//! A connection waits while its peer owes it a head, a body, or the taking of an answer. While a request is handled the peer waits for us:
//! such a connection is never let go. The order is by when the waiting began, whatever for. So a peer is let go only if, while it owes one
//! of these, as many others as there are places came or went on. Were heads let go before bodies, a flood of trickled bodies would push
//! out each new connection before its head arrives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Open;

/// The connections of a listener that wait for their peer.
#[derive(Default)]
pub(super) struct Waiting {
    queue: Mutex<Queue>,
}

/// By number; the lowest has waited longest.
#[derive(Default)]
struct Queue {
    last: u64,
    seats: BTreeMap<u64, Arc<Notify>>,
}

impl Waiting {
    /// Tells the connection that has waited longest to end. It gives its place back as soon as it runs. False: none waits.
    pub(super) fn evict(&self) -> bool {
        let Some((_, evicted)) = self.queue().seats.pop_first() else { return false };
        evicted.notify_one();
        true
    }

    fn enter(&self, evicted: &Arc<Notify>) -> u64 {
        let mut queue = self.queue();
        queue.last += 1;
        let number = queue.last;
        queue.seats.insert(number, Arc::clone(evicted));
        number
    }

    /// False: it was evicted before.
    fn leave(&self, number: u64) -> bool {
        self.queue().seats.remove(&number).is_some()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing, half a head, or idle between requests.
    Head,
    Body,
    Handling,
    /// A part of the answer is not with hyper yet.
    Answering,
    /// All of the answer is with hyper, and not yet with the system.
    Answered,
}

/// A connection, as the queue sees it. Only the connection's own task changes it; [`Waiting::evict`] may come between any two steps.
pub(super) struct Seat {
    waiting: Arc<Waiting>,
    evicted: Arc<Notify>,
    state: Mutex<State>,
    /// Given back after the seat has left the queue: who evicts may rely on a place becoming free.
    _open: Open,
}

#[derive(Clone, Copy)]
struct State {
    stage: Stage,
    /// The number in the queue.
    number: Option<u64>,
    evicted: bool,
}

impl Seat {
    /// A new connection, which waits for its first head.
    pub(super) fn new(waiting: &Arc<Waiting>, open: Open) -> Arc<Self> {
        let evicted = Arc::new(Notify::new());
        let number = Some(waiting.enter(&evicted));
        let state = Mutex::new(State { stage: Stage::Head, number, evicted: false });
        Arc::new(Self { waiting: Arc::clone(waiting), evicted, state, _open: open })
    }

    /// Completes when the connection must end.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// No request is in hand.
    pub(super) fn awaits_head(&self) -> bool {
        self.state().stage == Stage::Head
    }

    /// A head is there. False: too late, the place is given away.
    pub(super) fn head_is_read(&self, body_follows: bool) -> bool {
        self.go_on(&mut self.state(), if body_follows { Stage::Body } else { Stage::Handling })
    }

    /// The body is there, or nobody wants it any more. False: too late.
    pub(super) fn body_is_read(&self) -> bool {
        let mut state = self.state();
        if state.stage == Stage::Body { self.go_on(&mut state, Stage::Handling) } else { !state.evicted }
    }

    /// The request is handled.
    pub(super) fn answer_begins(&self) {
        self.go_on(&mut self.state(), Stage::Answering);
    }

    pub(super) fn answer_is_whole(&self) {
        self.go_on(&mut self.state(), Stage::Answered);
    }

    /// What hyper has is with the system. After a whole answer, the next head is due.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        if state.stage == Stage::Answered {
            self.go_on(&mut state, Stage::Head);
        }
    }

    /// The peer takes nothing of an answer just now.
    pub(super) fn not_taken(&self) {
        let mut state = self.state();
        if matches!(state.stage, Stage::Answering | Stage::Answered) && state.number.is_none() && !state.evicted {
            state.number = Some(self.waiting.enter(&self.evicted));
        }
    }

    /// The peer took something.
    pub(super) fn taken(&self) {
        let mut state = self.state();
        if matches!(state.stage, Stage::Answering | Stage::Answered) {
            self.leave(&mut state);
        }
    }

    fn go_on(&self, state: &mut State, next: Stage) -> bool {
        self.leave(state);
        state.stage = next;
        if !state.evicted && matches!(next, Stage::Head | Stage::Body) {
            state.number = Some(self.waiting.enter(&self.evicted));
        }
        !state.evicted
    }

    fn leave(&self, state: &mut State) {
        if let Some(number) = state.number.take() {
            state.evicted |= !self.waiting.leave(number);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave(&mut self.state());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::super::tests::new_open;
    use super::*;

    fn three() -> (Arc<Waiting>, [Arc<Seat>; 3]) {
        let waiting = Arc::new(Waiting::default());
        let seats = std::array::from_fn(|_| Seat::new(&waiting, new_open()));
        (waiting, seats)
    }

    /// Evicts until nobody waits, and says in which order.
    fn order(waiting: &Waiting, seats: &[Arc<Seat>]) -> Vec<usize> {
        let mut order = Vec::new();
        while waiting.evict() {
            let hears = |seat: &Seat| pin!(seat.evicted()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
            order.extend((0..seats.len()).filter(|at| hears(&seats[*at])));
        }
        order
    }

    /// A whole request and its answer.
    fn go_round(seat: &Seat) {
        assert!(seat.head_is_read(true) && seat.body_is_read());
        seat.answer_begins();
        seat.answer_is_whole();
        seat.flushed();
    }

    #[test]
    fn who_waits_longest_makes_room_first() {
        let (waiting, seats) = three();
        assert_eq!(order(&waiting, &seats), [0, 1, 2]);
    }

    #[test]
    fn an_answer_and_a_head_begin_the_waiting_anew() {
        let (waiting, seats) = three();
        go_round(&seats[0]);
        assert!(seats[1].head_is_read(true));
        assert_eq!(order(&waiting, &seats), [2, 0, 1]);
    }

    #[test]
    fn while_a_request_is_handled_or_its_answer_taken_nobody_is_let_go() {
        let waiting = Arc::new(Waiting::default());
        let seat = Seat::new(&waiting, new_open());
        let waits = || waiting.queue().seats.len() == 1;
        assert!(waits() && seat.awaits_head());
        assert!(seat.head_is_read(true) && waits() && !seat.awaits_head());
        assert!(seat.body_is_read() && !waits());
        seat.not_taken();
        seat.flushed();
        assert!(!waits(), "what is written now is no answer");
        seat.answer_begins();
        seat.flushed();
        assert!(!waits(), "more of the answer comes");
        seat.not_taken();
        seat.not_taken();
        assert!(waits());
        seat.taken();
        assert!(!waits());
        seat.answer_is_whole();
        assert!(!waits() && !seat.awaits_head());
        seat.not_taken();
        assert!(waits());
        seat.taken();
        seat.flushed();
        assert!(waits() && seat.awaits_head());
        assert!(seat.head_is_read(false) && !waits(), "no body follows");
    }

    #[test]
    fn whoever_is_evicted_begins_nothing_more_and_waits_no_more() {
        let (waiting, [head, body, _third]) = three();
        assert!(body.head_is_read(true));
        waiting.queue().seats.pop_last().map(|(_, evicted)| evicted.notify_one()).unwrap();
        assert!(!body.body_is_read(), "its handler hears that the body broke off");
        assert!(waiting.evict());
        assert!(!head.head_is_read(false));
        for seat in [&head, &body] {
            seat.answer_begins();
            seat.not_taken();
            seat.answer_is_whole();
            seat.flushed();
        }
        assert_eq!(waiting.queue().seats.len(), 1, "only the third waits");
    }

    #[test]
    fn a_connection_that_ends_waits_no_more() {
        let (waiting, seats) = three();
        drop(seats);
        assert!(!waiting.evict());
    }
}
