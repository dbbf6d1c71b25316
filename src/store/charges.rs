//! Charge intents from the outside: submit, read, cancel.

use std::collections::HashMap;

use jiff::Timestamp;
use redis::AsyncCommands;
use serde_json::json;

pub use super::record::StoredIntent;
use super::record::{read, request_text};
use super::script::{CANCEL_CHARGE, SUBMIT_CHARGE};
use super::{Store, StoreError, millis};
use crate::model::charge_intent::{ChargeIntent, Number, Outcome, Progress, RECOVERY, Stage, Why};
use crate::model::charge_request::ChargeRequest;
use crate::model::event::{Event, EventType};
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
    /// Accepts a charge intent.
    ///
    /// # Errors
    /// When it is not certain that it was stored; the same submission again is safe.
    pub async fn submit_charge(&self, submission: &Submission) -> Result<Submitted, StoreError> {
        let inner = &self.0;
        let (id, permission) = (&submission.id, &submission.request.charge_permission_id);
        let now = inner.clock.now();
        let at = submission.not_before.map_or(now, |at| at.max(now));
        let why = if submission.declared == Declared::Nothing { Why::Attempt } else { why_of(submission.declared) };
        let progress = Progress::new(Stage::Scheduled { at, why }, at);
        let held = Progress::new(Stage::Held { reason: RECOVERY.to_owned() }, at);
        let intent = |progress: &Progress| ChargeIntent {
            id: id.clone(),
            request: submission.request.clone(),
            policy: submission.policy.clone(),
            submitted_at: now,
            number: Number::fresh(match submission.declared {
                Declared::LastNumber(number) => number,
                Declared::Nothing | Declared::New => 0,
            }),
            cancel_requested_at: None,
            capture: None,
            stopped_ms: 0,
            progress: progress.clone(),
        };
        let scheduled =
            Event::of_charge(EventType::ChargeScheduled, &intent(&progress), json!({ "at": at, "why": why }));
        let held_event = Event::of_charge(EventType::ChargeHeld, &intent(&held), json!({ "reason": RECOVERY }));
        let keys = [
            inner.keys.marker(),
            inner.keys.intent(id),
            inner.keys.permission(permission),
            inner.keys.open(permission),
            inner.keys.schedule(),
            inner.keys.events(),
        ];
        let request = request_text(&submission.request, submission.policy.as_ref());
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
                    &json!(progress).to_string(),
                    &at.as_millisecond().to_string(),
                    &declared,
                    &json!(held).to_string(),
                    &bounds.open_per_permission.to_string(),
                    &bounds.events.to_string(),
                    scheduled.kind,
                    &scheduled.data,
                    held_event.kind,
                    &held_event.data,
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
        let key = self.0.keys.intent(id);
        let fields: HashMap<String, String> = self.0.connection.handle().hgetall(&key).await?;
        read(id, &key, &fields, stopped_ms)
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
        let keys = [
            inner.keys.marker(),
            inner.keys.intent(&intent.id),
            inner.keys.permission(permission),
            inner.keys.open(permission),
            inner.keys.schedule(),
            inner.keys.events(),
        ];
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
                    &json!(ended.progress).to_string(),
                    &millis(inner.settings.intent_retention).to_string(),
                    event.kind,
                    &event.data,
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

fn why_of(declared: Declared) -> Why {
    match declared {
        Declared::LastNumber(_) => Why::Repeat,
        Declared::Nothing | Declared::New => Why::Attempt,
    }
}

/// What makes two submissions the same: everything but what is declared after a loss.
fn digest(submission: &Submission, request: &str) -> String {
    let not_before = submission.not_before.map(|at| at.to_string()).unwrap_or_default();
    hex_prefix(&format!("submission/v1\n{}\n{not_before}\n{request}", submission.id))
}
