//! A state of the world, small enough to keep millions. Values of the service are numbers of a [`Pool`](super::values::Pool).

use super::amazon::Amazon;
use super::values::{ChargeRef, Class, LONG_AGO, NEVER};

/// Intents of the permission.
pub const SLOTS: usize = 2;
/// Workers at most.
pub const WORKERS: usize = 3;
/// Delayed copies at most.
pub const COPIES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    pub redis: Redis,
    pub workers: [Worker; WORKERS],
    pub amazon: Amazon,
    /// Requests that are still under way, sorted.
    pub copies: [Option<Copied>; COPIES],
    pub left: Left,
    pub seen: Seen,
    /// What the replica has: a number of the pool of [`Redis`]; 0 if there is none.
    pub replica: u32,
    /// Whether the window of the policy has ended.
    pub over: bool,
}

/// A request that nobody waits for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Copied {
    pub slot: u8,
    pub number: u8,
    /// Steps of time since it was signed.
    pub age: u8,
}

/// What is stored about the permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "as many as the keys have")]
pub struct Redis {
    /// The intents; 0 is none.
    pub intents: [u32; SLOTS],
    /// Whether a recovery holds the intent.
    pub recovery: [bool; SLOTS],
    /// `open`: when each needs attention.
    pub open: [Class; SLOTS],
    pub record: u32,
    pub hints: u32,
    pub closed: bool,
    /// The wish to close it: since when.
    pub close: Class,
    /// The worker whose token is in the lease record, from 1; 0 is none.
    pub holder: u8,
    /// Whether that lease still runs.
    pub leased: bool,
    /// The fence number; counted only where tokens are not unique.
    pub fence: u8,
    /// `schedule`: when the permission is due.
    pub score: Class,
    /// Bit per worker: a wake came after its claim.
    pub woken: u8,
    /// A wake came after the last claim whose commit saw it.
    pub unseen_wake: bool,
    pub stop: bool,
    pub recovering: bool,
    /// When the server changed.
    pub changed: Class,
    /// Terminal events of each intent, oldest first.
    pub ends: [[End; 3]; SLOTS],
    /// Bit per charge: a commit came that knew of it as a success.
    pub heard: u32,
    /// Bit per notification that is in the journal.
    pub journal: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    None,
    Captured,
    Canceled,
    CanceledUnverified,
    Abandoned,
    AbandonedUnverified,
}

impl End {
    pub fn is_unverified(self) -> bool {
        matches!(self, Self::CanceledUnverified | Self::AbandonedUnverified)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Idle,
    /// Has looked and decided.
    Decided,
    /// Has marked: the signed request goes out once or never.
    Marked,
    /// Goes to commit.
    Ready,
}

/// A worker, with what its claim read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Worker {
    pub phase: Phase,
    pub read: Snapshot,
    pub decision: u32,
    /// The fence number of its token.
    pub fence: u8,
    /// Steps of time since the signature.
    pub age: u8,
    /// The charge that its send was answered with, if it is a success.
    pub charge: Option<ChargeRef>,
}

/// What a claim reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The open intents; 0 is none.
    pub intents: [u32; SLOTS],
    pub record: u32,
    pub hints: u32,
    pub closed: bool,
    pub close: Class,
}

impl Worker {
    pub const IDLE: Self = Self {
        phase: Phase::Idle,
        read: Snapshot { intents: [0; SLOTS], record: 0, hints: 0, closed: false, close: NEVER },
        decision: 0,
        fence: 0,
        age: 0,
        charge: None,
    };
}

/// How often what goes wrong may still go wrong, and what people and Amazon do may still be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Left {
    pub crashes: u8,
    /// Steps of time while somebody is at work or should be.
    pub pauses: u8,
    /// Leases that run out early.
    pub lapses: u8,
    pub lost_requests: u8,
    pub lost_replies: u8,
    pub delays: u8,
    pub failed_looks: u8,
    pub declines: u8,
    pub pendings: u8,
    pub errors: u8,
    pub cancels: u8,
    pub close_wishes: u8,
    pub buyer_closes: u8,
    pub deletions: u8,
    pub updates: u8,
    pub stops: u8,
    pub permission_ipns: u8,
    pub charge_ipns: u8,
    pub submits: u8,
    pub failovers: u8,
    pub losses: u8,
    pub operators: u8,
    pub window_ends: u8,
}

/// What the outside world has seen: for the properties, read by nobody in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seen {
    /// Bit per notification that was answered with 200.
    pub acknowledged: u8,
    /// Bit per intent whose cancellation was accepted.
    pub canceled: u8,
    /// Whether the operator was told that the stop switch is on.
    pub stopped: bool,
    /// Bit per charge that a notification was accepted for.
    pub told: u32,
    /// Alerts: see `service`.
    pub alerts: u8,
    /// The last number of which `charge.attempted` came, from 1; 0 is none.
    pub attempted: [u8; SLOTS],
    /// The card, from 1, of an intent whose decline waits for another card; 0 if none does.
    pub declined_card: [u8; SLOTS],
    /// What must never happen: see `properties`.
    pub broken: u8,
}

/// A hint as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HintState {
    /// The charge; `None` is the permission.
    pub charge: Option<ChargeRef>,
    pub published: Class,
    pub refusals: u8,
    pub not_before: Class,
    /// Bit per worker: written after its claim.
    pub newer: u8,
}

/// What becomes of a hint that was read, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    Done,
    Keep,
    Defer { refusals: u8, not_before: Class },
    Quarantine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActCode {
    Nothing,
    /// The draft at this index.
    Send(u8),
    CancelCharge(u8, ChargeRef),
    Close,
}

/// A decision in finite form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Dec {
    pub drafts: Vec<DraftState>,
    pub record: u32,
    pub closed: bool,
    pub hints: Vec<Fate>,
    pub act: ActCode,
    pub not_before: Class,
    pub alerts: u8,
    /// What the look said of the permission: chargeable, under this card. 0 if not.
    pub chargeable_card: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DraftState {
    pub slot: u8,
    pub intent: u32,
    /// Whether there are events.
    pub told: bool,
    /// The terminal ones.
    pub ends: Vec<End>,
}

impl State {
    /// Whether all workers are idle.
    pub fn nobody_works(&self) -> bool {
        self.workers.iter().all(|worker| worker.phase == Phase::Idle)
    }

    /// Adds a copy that is under way; `false` if there is no room.
    pub fn add_copy(&mut self, copy: Copied) -> bool {
        let Some(place) = self.copies.iter_mut().find(|place| place.is_none()) else { return false };
        *place = Some(copy);
        self.copies.sort_unstable();
        true
    }

    pub fn take_copy(&mut self, index: usize) -> Copied {
        let copy = self.copies[index].take().unwrap();
        self.copies.sort_unstable();
        copy
    }
}

impl Redis {
    pub const EMPTY: Self = Self {
        intents: [0; SLOTS],
        recovery: [false; SLOTS],
        open: [NEVER; SLOTS],
        record: 0,
        hints: 0,
        closed: false,
        close: NEVER,
        holder: 0,
        leased: false,
        fence: 0,
        score: NEVER,
        woken: 0,
        unseen_wake: false,
        stop: false,
        recovering: false,
        changed: LONG_AGO,
        ends: [[End::None; 3]; SLOTS],
        heard: 0,
        journal: 0,
    };
}
