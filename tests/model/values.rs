//! The service's own values in a finite form: times become classes, values become numbers.
//!
//! Time is counted in steps of X from the present moment, which is always [`NOW`]. A wait shorter than X is over at once (whoever waits
//! may be arbitrarily slow, which is what a step of time is for), a longer one takes two steps; what is more than two steps ago is
//! [`LONG_AGO`]. So the graph closes although time goes on without end.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use amazon_pay_ipn::model::charge_intent::{ChargeIntent, Number, Park, Progress, Stage, Trigger, Wishes};
use amazon_pay_ipn::model::charge_request::ChargeRequest;
use amazon_pay_ipn::model::closing::Closing;
use amazon_pay_ipn::model::ids::{ChargeId, ChargePermissionId, IntentId, Region};
use amazon_pay_ipn::model::money::Money;
use amazon_pay_ipn::model::permission::PermissionRecord;
use amazon_pay_ipn::recovery::policies::Policies;
use amazon_pay_ipn::recovery::policy::{Lot, Policy, Retries};
use jiff::Timestamp;

/// X: a copy of a request is dead after it, and a mark no longer taints.
pub const X: Duration = Duration::from_mins(30);
/// The present moment, in milliseconds since the epoch.
pub const NOW_MS: i64 = 1_769_767_200_000;
/// A class of time: steps of X from now.
pub type Class = i8;
/// No time at all.
pub const NEVER: Class = 127;
/// The furthest that is told apart.
pub const FAR: Class = 2;
/// More than two steps ago.
pub const LONG_AGO: Class = -3;
const LONG: Duration = Duration::from_hours(100 * 24);

pub fn now() -> Timestamp {
    Timestamp::from_millisecond(NOW_MS).unwrap()
}

/// The time that stands for a class.
pub fn at(class: Class) -> Timestamp {
    let steps = u32::from(class.unsigned_abs());
    if class <= LONG_AGO {
        now() - LONG
    } else if class < 0 {
        now() - X * steps
    } else {
        now() + X * steps
    }
}

/// The class of a time.
pub fn class(time: Timestamp) -> Class {
    let ms = time.as_millisecond().saturating_sub(NOW_MS);
    let x = i64::try_from(X.as_millis()).unwrap();
    let steps = if ms >= 0 { if ms < x { 0 } else { (ms + x - 1) / x } } else { (ms - x + 1) / x };
    Class::try_from(steps.clamp(i64::from(LONG_AGO), i64::from(FAR))).unwrap()
}

/// One step of time later.
pub fn older(class: Class) -> Class {
    if class == NEVER || class == LONG_AGO { class } else { class - 1 }
}

fn normal(time: Timestamp) -> Timestamp {
    at(class(time))
}

fn aged(time: Timestamp) -> Timestamp {
    at(older(class(time)))
}

pub fn permission() -> ChargePermissionId {
    "C01-0000000-0000001".parse().unwrap()
}

/// The id of the intent in a slot.
pub fn intent_id(slot: u8) -> IntentId {
    format!("renewal-{slot}").parse().unwrap()
}

/// The slot of an intent.
pub fn slot_of(id: &IntentId) -> u8 {
    id.as_str().trim_start_matches("renewal-").parse().unwrap()
}

/// A charge at Amazon: of which intent, under which number, and the how manieth under that key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChargeRef {
    pub slot: u8,
    pub number: u8,
    pub generation: u8,
}

impl ChargeRef {
    pub fn id(self) -> ChargeId {
        let Self { slot, number, generation } = self;
        format!("C01-0000000-0000001-C00{slot}{number}{generation}0").parse().unwrap()
    }

    pub fn of(id: &ChargeId) -> Self {
        let digits = id.as_str().rsplit_once("-C00").unwrap().1.as_bytes();
        Self { slot: digits[0] - b'0', number: digits[1] - b'0', generation: digits[2] - b'0' }
    }

    /// One bit of 24.
    pub fn bit(self) -> u32 {
        1 << (u32::from(self.slot) * 12 + u32::from(self.number) * 3 + u32::from(self.generation))
    }
}

pub fn request() -> ChargeRequest {
    ChargeRequest {
        charge_permission_id: permission(),
        charge_amount: Money::parse("14.00", "USD".parse().unwrap()).unwrap(),
        capture_now: true,
        soft_descriptor: None,
        can_handle_pending_authorization: true,
        merchant_metadata: None,
        provider_metadata: None,
        charge_initiator: None,
        channel: None,
        platform_id: None,
        simulation_code: None,
    }
}

/// The policy of the model: whatever may come at once comes at once. `over`: the window has ended.
pub fn policies(over: bool) -> Policies {
    Policies::from(Policy {
        max_attempts: 3,
        window: if over { Duration::ZERO } else { Duration::from_hours(24 * 3650) },
        soft: Retries::after(vec![Duration::ZERO]),
        failure: Retries::after(vec![Duration::ZERO]),
        reminders: Vec::new(),
        repeat_delays: vec![Duration::ZERO, X],
        confirmation_delay: X,
        lot: Lot::Fixed(0.0),
        ..Policy::for_region(Region::Na)
    })
}

/// An intent in its finite form, `map` applied to each of its times. Taken apart by name, so that a new field cannot be forgotten.
fn intent_with(intent: &ChargeIntent, map: fn(Timestamp) -> Timestamp) -> ChargeIntent {
    let opt = |time: Option<Timestamp>| time.map(map);
    let ChargeIntent {
        id,
        request,
        policy,
        submitted_at: _,
        number,
        cancel_requested_at,
        capture,
        stopped_ms: _,
        wishes: _,
        progress,
    } = intent.clone();
    let Number { value, status, sends, first_mark, last_mark, tainted, instrument } = number;
    let Progress {
        stage,
        attempts,
        window_from: _,
        stood_still_ms: _,
        trigger,
        last_reason,
        charge,
        declined_charge,
        month_parks,
        month_park,
        month_turn,
        conflicts,
        released_by_notification_at,
        closing_since,
        cancel_retry_at,
        look_at,
        policy_missed,
        authorized_at,
        expiring_told,
        capture_plan,
        reminders_sent: _,
        remind_after: _,
        earliest_send,
        awaits_baseline,
        failure_answered,
    } = progress;
    assert!(
        capture.is_none() && capture_plan.is_none() && month_turn.is_none() && month_park.is_none(),
        "neither captures nor months are modelled"
    );
    let stage = stage_with(stage, map);
    ChargeIntent {
        id,
        request,
        policy,
        submitted_at: at(LONG_AGO),
        number: Number {
            value,
            status,
            // Once, or more than once.
            sends: sends.min(2),
            first_mark: opt(first_mark),
            last_mark: opt(last_mark),
            tainted,
            instrument,
        },
        // That somebody asked matters, not when.
        cancel_requested_at: cancel_requested_at.map(|_| at(LONG_AGO)),
        capture: None,
        stopped_ms: 0,
        wishes: Wishes::default(),
        progress: Progress {
            stage,
            attempts,
            window_from: at(LONG_AGO),
            stood_still_ms: 0,
            trigger: if trigger == Trigger::Operator { trigger } else { Trigger::Submit },
            last_reason,
            charge,
            declined_charge,
            month_parks,
            month_park: None,
            month_turn: None,
            conflicts,
            released_by_notification_at: opt(released_by_notification_at),
            closing_since: opt(closing_since),
            cancel_retry_at: opt(cancel_retry_at),
            look_at: opt(look_at),
            policy_missed,
            authorized_at: opt(authorized_at),
            expiring_told,
            capture_plan: None,
            reminders_sent: 0,
            remind_after: None,
            earliest_send: opt(earliest_send),
            awaits_baseline,
            failure_answered,
        },
    }
}

/// As [`intent_with`], of a stage.
fn stage_with(stage: Stage, map: fn(Timestamp) -> Timestamp) -> Stage {
    let opt = |time: Option<Timestamp>| time.map(map);
    match stage {
        Stage::Scheduled { at, why } => Stage::Scheduled { at: map(at), why },
        Stage::Parked { since, park: Park::Instrument { baseline, non_chargeable_seen, echo_look_at } } => {
            let park = Park::Instrument { baseline, non_chargeable_seen, echo_look_at: opt(echo_look_at) };
            Stage::Parked { since: map(since), park }
        }
        Stage::Parked { since, park: Park::Attention } => Stage::Parked { since: map(since), park: Park::Attention },
        Stage::Pending { charge, since, alerted } => Stage::Pending { charge, since: map(since), alerted },
        Stage::Authorized { charge, expires_at } => Stage::Authorized { charge, expires_at: opt(expires_at) },
        Stage::Held { reason } => Stage::Held { reason },
        // When it ended does not matter any more.
        Stage::Captured { charge, at: _ } => Stage::Captured { charge, at: at(LONG_AGO) },
        Stage::Canceled { at: _, outcome } => Stage::Canceled { at: at(LONG_AGO), outcome },
        Stage::Abandoned { at: _, reason: _, outcome } => {
            Stage::Abandoned { at: at(LONG_AGO), reason: String::new(), outcome }
        }
    }
}

/// As [`intent_with`], of a record.
fn record_with(record: &PermissionRecord, map: fn(Timestamp) -> Timestamp) -> PermissionRecord {
    let PermissionRecord {
        state,
        reasons,
        kind,
        instrument,
        looked_at: _,
        charges,
        owners: _,
        objects: _,
        failed_looks,
        account_fault,
        closed_at,
        closing,
        acted: _,
        refusal_told,
    } = record.clone();
    PermissionRecord {
        state,
        reasons,
        kind,
        instrument,
        // Shown to people, and judged by nobody.
        looked_at: None,
        charges,
        owners: std::collections::BTreeMap::new(),
        objects: std::collections::BTreeMap::new(),
        failed_looks: failed_looks.min(1),
        account_fault,
        closed_at: closed_at.map(map),
        closing: closing.map(|Closing { asked_at, tries, next_at, alerted, parked }| Closing {
            asked_at: map(asked_at),
            tries: tries.min(1),
            next_at: map(next_at),
            alerted,
            parked,
        }),
        acted: false,
        refusal_told,
    }
}

/// Values by number; equal values have one number. Number 0 is nothing.
pub struct Pool<T> {
    items: Vec<T>,
    index: HashMap<String, u32>,
}

impl<T: std::fmt::Debug + Clone> Pool<T> {
    pub fn new() -> Self {
        Self { items: Vec::new(), index: HashMap::new() }
    }

    pub fn put(&mut self, item: T) -> u32 {
        let key = format!("{item:?}");
        if let Some(number) = self.index.get(&key) {
            return *number;
        }
        self.items.push(item);
        let number = u32::try_from(self.items.len()).unwrap();
        self.index.insert(key, number);
        number
    }

    pub fn get(&self, number: u32) -> &T {
        &self.items[number as usize - 1]
    }
}

/// A remembered function of small numbers.
pub struct Memo<K>(HashMap<K, u32>);

impl<K: Eq + Hash> Memo<K> {
    pub fn new() -> Self {
        Self(HashMap::new())
    }

    pub fn get(&self, key: &K) -> Option<u32> {
        self.0.get(key).copied()
    }

    pub fn put(&mut self, key: K, value: u32) -> u32 {
        self.0.insert(key, value);
        value
    }
}

pub fn finite_intent(intent: &ChargeIntent) -> ChargeIntent {
    intent_with(intent, normal)
}

pub fn aged_intent(intent: &ChargeIntent) -> ChargeIntent {
    intent_with(intent, aged)
}

pub fn finite_record(record: &PermissionRecord) -> PermissionRecord {
    record_with(record, normal)
}

pub fn aged_record(record: &PermissionRecord) -> PermissionRecord {
    record_with(record, aged)
}
