//! Charge intents from the outside: submit, read, cancel.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::json;
use tracing::warn;

use super::lists::entry_of;
pub use super::record::StoredIntent;
use super::record::{PAUSE_FIELDS, Still, read, request_text};
use super::script::{CANCEL_CHARGE, SUBMIT_CHARGE};
use super::{Store, StoreError, millis};
use crate::model::charge_intent::{ChargeIntent, Outcome, RECOVERY, Stage};
use crate::model::charge_request::ChargeRequest;
use crate::model::event::{Event, EventType};
use crate::model::handover::HandedOver;
use crate::model::ids::{IntentId, PolicyName, hex_prefix};

/// What the caller knows about numbers used before a loss of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// Nothing.
    Nothing,
    /// The intent is new: nothing was ever sent for it.
    New,
    /// The last number of which a `charge.attempted` was seen.
    LastNumber(u32),
}

/// A charge intent to be accepted.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The caller's id.
    pub id: IntentId,
    /// What is to be charged.
    pub request: ChargeRequest,
    /// The recovery policy; `None` is the default one.
    pub policy: Option<PolicyName>,
    /// Not before this time.
    pub not_before: Option<Timestamp>,
    /// What is known about earlier numbers.
    pub declared: Declared,
    /// What became of the charge before it was handed over.
    pub handed_over: Option<HandedOver>,
}

/// The first plan of a charge, as it was decided.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The charge with its first plan.
    pub intent: &'a ChargeIntent,
    /// When it needs attention first.
    pub due: Timestamp,
    /// What is told of it.
    pub events: &'a [Event],
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// Accepted now.
    Accepted,
    /// Accepted, and held because data was lost: the operator, or a submission that declares, goes on.
    Held,
    /// It was held and goes on now.
    Resumed,
    /// The same id and body were accepted before.
    Same,
    /// The id was used with another body.
    Conflict,
    /// The caller declares fewer numbers than our own data shows.
    Contradicted,
    /// The permission has too many open intents.
    TooMany,
    /// The permission is about to be closed, because the caller asked for it.
    Closing,
}

/// What a submission would meet, as far as is known now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prospect {
    /// What would become of it.
    pub submitted: Submitted,
    /// Whether its permission is known to be closed: then it would be given up at the first look.
    pub closed: bool,
}

/// What became of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Canceled {
    /// Final: nothing can be charged any more.
    Done,
    /// Noted: a charge may still come of it.
    Pending,
    /// The intent had ended in another way.
    Ended(String),
    /// There is no such intent.
    Unknown,
}

/// Attempts at a cancellation that collides with a running reconciliation.
const CANCEL_TRIES: usize = 5;

impl Store {
    /// What would become of a submission, without any effect. Right as of now: another may come before it.
    ///
    /// # Errors
    /// When Redis does not answer, or has no marker.
    pub async fn prospect(&self, submission: &Submission) -> Result<Prospect, StoreError> {
        let inner = &self.0;
        let permission = &submission.request.charge_permission_id;
        let recovering = self.account().await?.recovering;
        let request = request_text(&submission.request, submission.policy.as_ref(), submission.handed_over.as_ref());
        let (known, closing, closed, open): (Option<String>, bool, Option<String>, usize) = redis::pipe()
            .hget(inner.keys.intent(&submission.id), "digest")
            .hexists(inner.keys.permission(permission), "close_at")
            .hget(inner.keys.permission(permission), "closed")
            .zcard(inner.keys.open(permission))
            .query_async(&mut inner.connection.handle())
            .await?;
        let submitted = match known {
            Some(known) if known == digest(submission, &request) => Submitted::Same,
            Some(_) => Submitted::Conflict,
            None if closing => Submitted::Closing,
            None if open >= inner.settings.bounds.open_per_permission => Submitted::TooMany,
            None if recovering && submission.declared == Declared::Nothing => Submitted::Held,
            None => Submitted::Accepted,
        };
        Ok(Prospect { submitted, closed: closed.as_deref() == Some("1") })
    }

    /// Accepts a charge intent.
    ///
    /// # Errors
    /// When it is not certain that it was stored; the same submission again is safe.
    pub async fn submit_charge(&self, submission: &Submission, plan: &Plan<'_>) -> Result<Submitted, StoreError> {
        let inner = &self.0;
        let (id, permission) = (&submission.id, &submission.request.charge_permission_id);
        let intent = plan.intent;
        let mut held = intent.clone();
        held.progress.stage = Stage::Held { reason: RECOVERY.to_owned() };
        let held_event = Event::of_charge(EventType::ChargeHeld, &held, json!({ "reason": RECOVERY }));
        let mut keys = vec![
            inner.keys.marker(),
            inner.keys.intent(id),
            inner.keys.permission(permission),
            inner.keys.open(permission),
            inner.keys.schedule(),
            inner.keys.events(),
        ];
        keys.extend(inner.keys.lists());
        let request = request_text(&submission.request, submission.policy.as_ref(), submission.handed_over.as_ref());
        let digest = digest(submission, &request);
        let declared = match submission.declared {
            Declared::Nothing => String::new(),
            Declared::New => "new".to_owned(),
            Declared::LastNumber(number) => number.to_string(),
        };
        let bounds = inner.settings.bounds;
        let reply = self
            .run(
                &SUBMIT_CHARGE,
                &keys,
                &[
                    &inner.source,
                    &self.now_text(),
                    permission.as_str(),
                    id.as_str(),
                    &digest,
                    &request,
                    &json!(intent.progress).to_string(),
                    &plan.due.as_millisecond().to_string(),
                    &declared,
                    &json!(held.progress).to_string(),
                    &bounds.open_per_permission.to_string(),
                    &bounds.events.to_string(),
                    intent.stage().name(),
                    &json!(plan.events).to_string(),
                    held_event.kind,
                    &held_event.data,
                    &entry_of(intent),
                    &entry_of(&held),
                ],
            )
            .await?;
        let submitted = match reply.outcome() {
            "accepted" => Submitted::Accepted,
            "held" => Submitted::Held,
            "resumed" => Submitted::Resumed,
            "same" => Submitted::Same,
            "conflict" => Submitted::Conflict,
            "contradicted" => Submitted::Contradicted,
            "too_many" => Submitted::TooMany,
            "closing" => Submitted::Closing,
            "full" => return Err(StoreError::Full("the event stream")),
            _ => return Err(reply.unexpected()),
        };
        self.nudge();
        Ok(submitted)
    }

    /// Reads an intent; `None` if there is none of this id.
    ///
    /// # Errors
    /// When Redis does not answer or the record cannot be read.
    pub async fn charge(&self, id: &IntentId) -> Result<Option<StoredIntent>, StoreError> {
        // First: on a server that lost its data "there is none" would be a wrong answer.
        let stopped_ms = self.account().await?.stopped_ms;
        Ok(self.read_charges(std::slice::from_ref(id), stopped_ms).await?.pop())
    }

    /// Reads intents, with the pauses of their permissions. One that is not there is left out.
    pub(super) async fn read_charges(
        &self,
        ids: &[IntentId],
        stopped_ms: i64,
    ) -> Result<Vec<StoredIntent>, StoreError> {
        self.read_each(ids, stopped_ms).await?.into_iter().collect()
    }

    /// As [`Store::read_charges`], for lists: what a later version wrote is left out too, and logged, once for all of them.
    pub(super) async fn read_known_charges(
        &self,
        ids: &[IntentId],
        stopped_ms: i64,
    ) -> Result<Vec<StoredIntent>, StoreError> {
        let mut left_out = Vec::new();
        let mut stored = Vec::with_capacity(ids.len());
        for read in self.read_each(ids, stopped_ms).await? {
            match read {
                Err(StoreError::Newer(key)) => left_out.push(key),
                read => stored.push(read?),
            }
        }
        if let Some(key) = left_out.first() {
            let count = left_out.len();
            warn!(
                key,
                count, "records of a newer version of this service are left out of a list; this is the first of them"
            );
        }
        Ok(stored)
    }

    async fn read_each(
        &self,
        ids: &[IntentId],
        stopped_ms: i64,
    ) -> Result<Vec<Result<StoredIntent, StoreError>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut handle = self.0.connection.handle();
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.hgetall(self.0.keys.intent(id));
        }
        let records: Vec<HashMap<String, String>> = pipe.query_async(&mut handle).await?;
        let now = self.redis_now().await?;
        let mut pipe = redis::pipe();
        for fields in &records {
            // Of one that is not there, or is not readable, some key: then nothing is read of it.
            let permission = fields.get("permission").and_then(|id| id.parse().ok());
            let key = permission.map_or_else(|| self.0.keys.marker(), |id| self.0.keys.permission(&id));
            pipe.hmget(key, &PAUSE_FIELDS);
        }
        let pauses: Vec<[Option<String>; 3]> = pipe.query_async(&mut handle).await?;
        let mut stored = Vec::with_capacity(ids.len());
        for ((id, fields), pause) in ids.iter().zip(&records).zip(pauses) {
            stored.extend(read(id, &self.0.keys.intent(id), fields, Still::of(now, stopped_ms, pause)).transpose());
        }
        Ok(stored)
    }

    /// Cancels an intent, or notes the wish.
    ///
    /// # Errors
    /// When it is not certain that the cancellation was stored; the same again is safe.
    pub async fn cancel_charge(&self, id: &IntentId) -> Result<Canceled, StoreError> {
        for _ in 0..CANCEL_TRIES {
            let Some(stored) = self.charge(id).await? else { return Ok(Canceled::Unknown) };
            if let Some(canceled) = self.try_cancel(&stored).await? {
                return Ok(canceled);
            }
        }
        Err(StoreError::Full("the queue of writers of this charge"))
    }

    /// `None` when the intent changed between reading and writing.
    async fn try_cancel(&self, stored: &StoredIntent) -> Result<Option<Canceled>, StoreError> {
        let inner = &self.0;
        let intent = &stored.intent;
        let permission = &intent.request.charge_permission_id;
        let mut ended = intent.clone();
        ended.progress.stage = Stage::Canceled { at: inner.clock.now(), outcome: Outcome::Verified };
        let event = Event::of_charge(EventType::ChargeCanceled, &ended, json!({ "outcome": Outcome::Verified }));
        let mut keys = vec![
            inner.keys.marker(),
            inner.keys.intent(&intent.id),
            inner.keys.permission(permission),
            inner.keys.open(permission),
            inner.keys.schedule(),
            inner.keys.events(),
        ];
        keys.extend(inner.keys.lists());
        let mut reply = self
            .run(
                &CANCEL_CHARGE,
                &keys,
                &[
                    &inner.source,
                    &self.now_text(),
                    permission.as_str(),
                    intent.id.as_str(),
                    &stored.progress_text,
                    &stored.with_progress(&ended.progress),
                    &millis(inner.settings.intent_retention).to_string(),
                    event.kind,
                    &event.data,
                    &entry_of(&ended),
                ],
            )
            .await?;
        match reply.outcome() {
            "canceled" => Ok(Some(Canceled::Done)),
            "canceling" => {
                self.nudge();
                Ok(Some(Canceled::Pending))
            }
            "terminal" => Ok(Some(Canceled::Ended(reply.take(1)?))),
            "unknown" => Ok(Some(Canceled::Unknown)),
            "changed" => Ok(None),
            _ => Err(reply.unexpected()),
        }
    }
}

/// What makes two submissions the same: everything but what is declared after a loss.
fn digest(submission: &Submission, request: &str) -> String {
    let not_before = submission.not_before.map(|at| at.to_string()).unwrap_or_default();
    hex_prefix(&format!("submission/v1\n{}\n{not_before}\n{request}", submission.id))
}
