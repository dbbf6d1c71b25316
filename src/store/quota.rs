//! Amazon's quota, shared by all instances, and the fault of the account: reserve, slow down, pause (`docs/adr/0015`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use redis::AsyncCommands;
use serde_json::{Value, json};
use tracing::error;

use super::reconciliations::Claim;
use super::record::read_time;
use super::script::{LIST_DUE, NOTE_THROTTLED, RESERVE_QUOTA, SET_FAULT};
use super::{Store, StoreError, millis};
use crate::model::event::Event;
use crate::model::ids::ChargePermissionId;
use crate::model::quota::{Bucket, Class, Limits, Needs, Operation};

/// How long a permission that was let in keeps its tokens. Longer than a worker's turn takes; if all workers are gone they are lost, and
/// the buckets full again by then.
const GRANT: Duration = Duration::from_mins(10);

/// Calls that were reserved and not made yet.
#[derive(Debug, Default)]
pub struct Reservation(Mutex<Needs>);

impl Reservation {
    /// Takes the place of what was reserved before.
    pub fn set(&self, needs: Needs) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = needs;
    }

    /// What is left.
    #[must_use]
    pub fn left(&self) -> Needs {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses one call up; `false` if none was reserved.
    #[must_use]
    pub fn take(&self, operation: Operation) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(operation)
    }
}

/// What a reconciliation asks for before its first call.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// How soon it matters.
    pub class: Class,
    /// All calls that it may make.
    pub needs: Needs,
    /// When the permission is planned anew if it has to wait.
    pub planned_anew_at: Timestamp,
    /// From one probe of an account at fault to the next.
    pub probe_every: Duration,
    /// The calls of a probe.
    pub probe: Needs,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// All of it may be called.
    Yes,
    /// The account is at fault: only the probe may be called.
    Probe,
    /// Nothing may be called. The permission waits in its place, and the lease is given back.
    Waits,
    /// Somebody else holds the lease.
    LostLease,
}

/// A fault of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountFault {
    /// Since when.
    pub since: Timestamp,
    /// What it met: an operation or Amazon's reason code.
    pub reason: String,
    /// When somebody asks again.
    pub next_probe_at: Option<Timestamp>,
}

/// When an account at fault is asked again: after the first wait, then after twice as long each time, up to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Probes {
    /// To the first probe of a fresh fault.
    pub first: Duration,
    /// From one probe to the next at most.
    pub longest: Duration,
}

impl AccountFault {
    pub(super) fn read(fields: &HashMap<String, String>) -> Option<Self> {
        Some(Self {
            since: read_time(fields.get("fault_since")?)?,
            reason: fields.get("fault_reason").cloned().unwrap_or_default(),
            next_probe_at: fields.get("next_probe_at").and_then(|text| read_time(text)),
        })
    }
}

/// The buckets and the waiting room, as they are now.
#[derive(Debug, Clone)]
pub struct QuotaStatus {
    /// By Redis time.
    pub now: Timestamp,
    /// What the operations may do.
    pub limits: Limits,
    /// Permissions that wait, by class.
    pub permissions: HashMap<Class, u64>,
    buckets: HashMap<Operation, Bucket>,
    calls: HashMap<(Class, Operation), u64>,
}

impl QuotaStatus {
    /// The bucket of an operation.
    #[must_use]
    pub fn bucket(&self, operation: Operation) -> Bucket {
        self.buckets.get(&operation).copied().unwrap_or_else(|| Bucket::full(self.limits.get(operation), self.now))
    }

    /// Calls of an operation that are waited for, in all classes.
    #[must_use]
    pub fn waiting_calls(&self, operation: Operation) -> u64 {
        Class::ALL.iter().filter_map(|class| self.calls.get(&(*class, operation))).sum()
    }

    /// Permissions that wait.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.permissions.values().sum()
    }
}

impl Store {
    /// Lets in whom there are tokens for, and lists permissions that are due: first whoever was let in, then the longest overdue.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn due(&self, at_most: usize) -> Result<Vec<ChargePermissionId>, StoreError> {
        let keys = &self.0.keys;
        let keys = [keys.marker(), keys.schedule(), keys.quota(), keys.waiting(), keys.tickets(), keys.held_back()];
        let args = [
            &at_most.to_string(),
            &millis(GRANT).to_string(),
            &self.0.settings.quota.to_string(),
            &Class::ALL.len().to_string(),
        ];
        let mut reply = self.run(&LIST_DUE, &keys, &args.map(String::as_str)).await?;
        if reply.outcome() != "due" {
            return Err(reply.unexpected());
        }
        let (ids, let_in): (Vec<String>, String) = (reply.take(1)?, reply.take(2)?);
        if let_in != "0" && ids.len() > 1 {
            self.nudge();
        }
        // An entry that is no permission id cannot be ours; it must not keep the others from their turn.
        Ok(ids
            .iter()
            .filter_map(|id| id.parse().inspect_err(|_| error!(id, "a foreign entry in the schedule")).ok())
            .collect())
    }

    /// Reserves all calls that a reconciliation may make, or none.
    ///
    /// # Errors
    /// When Redis does not answer: then nothing may be called.
    pub async fn reserve(&self, claim: &Claim, request: &Request) -> Result<Reserved, StoreError> {
        let keys = &self.0.keys;
        let keys = [
            keys.marker(),
            keys.permission(&claim.permission),
            keys.schedule(),
            keys.quota(),
            keys.waiting(),
            keys.tickets(),
        ];
        let args = [
            claim.permission.as_str(),
            &claim.token,
            &claim.wake,
            &request.class.rank().to_string(),
            &request.needs.to_string(),
            &self.0.settings.quota.to_string(),
            &request.planned_anew_at.as_millisecond().to_string(),
            &millis(request.probe_every).to_string(),
            &request.probe.to_string(),
        ];
        let reply = self.run(&RESERVE_QUOTA, &keys, &args).await?;
        match reply.outcome() {
            "reserved" => {
                claim.reservation.set(request.needs);
                Ok(Reserved::Yes)
            }
            "probe" => {
                claim.reservation.set(request.probe);
                Ok(Reserved::Probe)
            }
            "waits" => Ok(Reserved::Waits),
            "lost_lease" => Ok(Reserved::LostLease),
            _ => Err(reply.unexpected()),
        }
    }

    /// Slows an operation down for all instances: Amazon answered 429.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn note_throttled(&self, operation: Operation, retry_after: Duration) -> Result<(), StoreError> {
        let keys = [self.0.keys.marker(), self.0.keys.quota()];
        let args = [operation.as_str(), &millis(retry_after).to_string(), &self.0.settings.quota.to_string()];
        let reply = self.run(&NOTE_THROTTLED, &keys, &args).await?;
        if reply.outcome() == "noted" { Ok(()) } else { Err(reply.unexpected()) }
    }

    /// The account is at fault: nobody but a probe calls Amazon. Returns whether that is news, and told of by the event.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn raise_fault(&self, reason: &str, event: &Event, probes: Probes) -> Result<bool, StoreError> {
        Ok(self.set_fault("on", reason, Some(event), probes).await? == "on")
    }

    /// Somebody has mended what was wrong: the next probe comes now. Returns whether the account is at fault; only an answer of Amazon
    /// ends that.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn probe_now(&self) -> Result<bool, StoreError> {
        let asked = self.set_fault("probe", "", None, Probes::default()).await? == "probe";
        self.nudge();
        Ok(asked)
    }

    /// The account answers again. Returns whether that is news, and told of by the event.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn end_fault(&self, event: &Event) -> Result<bool, StoreError> {
        let ended = self.set_fault("off", "", Some(event), Probes::default()).await? == "off";
        self.nudge();
        Ok(ended)
    }

    async fn set_fault(
        &self,
        to: &str,
        reason: &str,
        event: Option<&Event>,
        probes: Probes,
    ) -> Result<&'static str, StoreError> {
        let keys = [self.0.keys.marker(), self.0.keys.events()];
        let (now, first, longest) =
            (self.now_text(), millis(probes.first).to_string(), millis(probes.longest).to_string());
        let (kind, data) = event.map_or(("", ""), |event| (event.kind, &event.data));
        let args = [self.0.source.as_str(), &now, to, kind, data, reason, &first, &longest];
        let reply = self.run(&SET_FAULT, &keys, &args).await?;
        let known = ["on", "off", "probe", "unchanged"].into_iter().find(|outcome| *outcome == reply.outcome());
        known.ok_or_else(|| reply.unexpected())
    }

    /// The buckets and the waiting room.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn quota_status(&self) -> Result<QuotaStatus, StoreError> {
        let now = self.redis_now().await?;
        let mut pipe = redis::pipe();
        pipe.hgetall(self.0.keys.quota());
        for class in Class::ALL {
            let (from, to) = span_of(class);
            pipe.zcount(self.0.keys.waiting(), from, format!("({to}"));
        }
        let mut replies: Vec<redis::Value> = pipe.query_async(&mut self.0.connection.handle()).await?;
        let counts = replies.split_off(1.min(replies.len()));
        let fields: HashMap<String, String> = match replies.pop() {
            Some(fields) => redis::from_redis_value(fields).map_err(redis::RedisError::from)?,
            None => HashMap::new(),
        };
        let mut permissions = HashMap::new();
        for (class, count) in Class::ALL.into_iter().zip(counts) {
            permissions.insert(class, redis::from_redis_value(count).map_err(redis::RedisError::from)?);
        }
        let limits = self.0.settings.quota;
        let mut buckets = HashMap::new();
        let mut calls = HashMap::new();
        for operation in Operation::ALL {
            if let Some(bucket) = fields.get(operation.as_str()).and_then(|text| read_bucket(text)) {
                buckets.insert(operation, bucket);
            }
            for class in Class::ALL {
                let field = format!("waiting:{}:{operation}", class.rank());
                if let Some(count) = fields.get(&field).and_then(|text| text.parse().ok()) {
                    calls.insert((class, operation), count);
                }
            }
        }
        Ok(QuotaStatus { now, limits, permissions, buckets, calls })
    }

    /// How many permissions are let in before this one; `None` if it does not wait for tokens.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn waiting_place(&self, permission: &ChargePermissionId) -> Result<Option<u64>, StoreError> {
        Ok(self.0.connection.handle().zrank(self.0.keys.waiting(), permission.as_str()).await?)
    }
}

/// The scores of a class in the waiting room: from, and up to but not including. As `class_span` of the prelude.
fn span_of(class: Class) -> (u64, u64) {
    const SPAN: u64 = 10_000_000_000_000;
    let rank = class.rank() as u64;
    (rank * SPAN, (rank + 1) * SPAN)
}

fn read_bucket(text: &str) -> Option<Bucket> {
    let mut parts = text.split(' ');
    let bucket = Bucket {
        tokens: parts.next()?.parse().ok()?,
        at: read_time(parts.next()?)?,
        factor: parts.next()?.parse().ok()?,
        slowed_at: read_time(parts.next()?)?,
        closed_until: read_time(parts.next()?)?,
    };
    parts.next().is_none().then_some(bucket)
}

/// What a commit gives back: the calls that were reserved and not made.
pub(super) fn give_back(payload: &mut Value, claim: &Claim, limits: &Limits) {
    payload["unused"] = json!(claim.reservation.left().to_string());
    payload["limits"] = json!(limits.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_read_as_the_scripts_write_it() {
        let bucket = read_bucket("-1.500000 1780000000000 0.5000 1780000000000 0").unwrap();
        assert_eq!((bucket.tokens, bucket.factor), (-1.5, 0.5));
        for wrong in ["", "1 2 3 4", "x 1 1 1 1", "1 1 1 1 1 1"] {
            assert!(read_bucket(wrong).is_none(), "{wrong}");
        }
    }
}
