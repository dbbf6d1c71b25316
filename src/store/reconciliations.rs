//! The reconciler's side: what is due, the lease, the mark of a send, the commit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use redis::AsyncCommands;
use serde_json::{Value, json};

use super::charges::StoredIntent;
use super::payload::payload;
use super::quota::{Reservation, give_back};
use super::record::{Still, corrupt, read, read_hint, read_record, read_time, read_wish, trigger_text};
use super::script::{CLAIM_PERMISSION, COMMIT_RECONCILIATION, MARK_SEND, RELEASE_LEASE, RENEW_LEASE};
use super::versions::Texts;
use super::{Store, StoreError, millis};
use crate::clock::Clock;
use crate::model::charge_intent::{ChargeIntent, Number, NumberStatus};
use crate::model::closing::CloseWish;
use crate::model::event::{Event, EventType};
use crate::model::hint::{Hint, HintNote};
use crate::model::ids::{ChargePermissionId, IntentId};
use crate::model::permission::{InstrumentDigest, PermissionRecord};

/// A held lease, and what was stored about its permission when it was taken.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The permission.
    pub permission: ChargePermissionId,
    /// Fence number and nonce.
    pub token: String,
    /// The wake number read.
    pub wake: String,
    /// How far Redis's clock was ahead of the worker's at the claim.
    pub ahead: SignedDuration,
    /// Whether a Closed state was ever seen.
    pub closed: bool,
    /// What the last looks showed.
    pub record: PermissionRecord,
    /// The hints, each with its text as stored.
    pub hints: Vec<(Hint, String)>,
    /// The open intents, those due first.
    pub intents: Vec<ChargeIntent>,
    /// The time that stood still so far.
    pub still: Still,
    /// The caller's wish that the permission be closed.
    pub close: Option<CloseWish>,
    /// Somebody asked for a look; the note as stored.
    pub look_asked: Option<String>,
    /// Whether the permission waited for tokens, or was let in.
    pub has_ticket: bool,
    /// The calls that it may still make.
    pub reservation: Arc<Reservation>,
    /// What was read, as it was stored.
    pub(super) texts: Arc<Texts>,
}

/// What a claim came to.
#[derive(Debug)]
pub enum Claimed {
    /// The lease is ours.
    Yes(Box<Claim>),
    /// Nothing to do, or somebody else does it.
    No,
}

/// What renewing a lease came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// Still ours.
    Yes,
    /// Ours again, but it had run out: an alert.
    Lapsed,
    /// Somebody else's.
    Lost,
}

/// A send about to happen.
#[derive(Debug)]
pub struct Send<'a> {
    /// The intent as the worker decided about it.
    pub intent: &'a ChargeIntent,
    /// Its state as stored when the claim read it.
    pub stored_state: &'a str,
    /// The instrument the permission showed in this reconciliation.
    pub instrument: Option<&'a InstrumentDigest>,
    /// What must be left of the lease: the call's time-out and a margin.
    pub needed: Duration,
}

/// What marking a send came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "only a marked send may go out"]
pub enum Marked {
    /// Send it now, once. The number as it is now.
    Yes(Number),
    /// The stop switch is on.
    Stopped,
    /// Something came between: a cancellation, a closing, another state.
    Refused(String),
    /// The event stream is full.
    EventsFull,
    /// The lease is gone or too short.
    LostLease,
}

/// What becomes of a hint.
#[derive(Debug, Clone)]
pub enum HintChange {
    /// Cleared.
    Done,
    /// Kept, with another note.
    Defer(HintNote),
    /// Cleared and kept aside.
    Quarantine(String),
}

/// What a reconciliation writes.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The permission's record as it becomes.
    pub record: &'a PermissionRecord,
    /// Whether Closed was seen.
    pub closed: bool,
    /// Events about the permission, and alerts.
    pub events: &'a [Event],
    /// Hints that change, each with its text as the claim read it.
    pub hints: Vec<(&'a Hint, &'a str, HintChange)>,
    /// When the remaining hints are due.
    pub hints_due: Option<Timestamp>,
    /// Intents that change: the intent, when it is due next, its events.
    pub intents: Vec<(&'a ChargeIntent, Option<Timestamp>, &'a [Event])>,
    /// Nothing is tried before, unless something wakes the permission.
    pub not_before: Option<Timestamp>,
    /// Something is due that the stop switch keeps from being sent.
    pub held_back: bool,
    /// The note of the one who asked for a look, as the claim read it, if there was one.
    pub look_asked: Option<&'a str>,
    /// What the sweep found, if anything.
    pub unheard: Option<Unheard>,
}

/// Changes of which no notification told, and when that is told.
#[derive(Debug)]
pub struct Unheard {
    /// Changes found now.
    pub found: usize,
    /// So many changes, of two permissions or more.
    pub changes: u32,
    /// Within this time, and told at most once in it.
    pub span: Duration,
    /// What is told.
    pub event: Event,
}

/// What a commit came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// Written now, or by an earlier try of this very commit.
    Yes,
    /// The lease is somebody else's: nothing was written.
    LostLease,
}

impl Store {
    /// Takes the lease of a permission that is due. `clock` is the worker's: what is due is due by the clock of Redis, and the claim tells
    /// the difference.
    ///
    /// # Errors
    /// When Redis does not answer, or a record cannot be read (the permission is then tried again a lease later).
    pub async fn claim(&self, permission: &ChargePermissionId, clock: &Clock) -> Result<Claimed, StoreError> {
        let inner = &self.0;
        let keys = [
            inner.keys.marker(),
            inner.keys.schedule(),
            inner.keys.permission(permission),
            inner.keys.hints(permission),
            inner.keys.open(permission),
            inner.keys.tickets(),
        ];
        let args = [permission.as_str(), &millis(inner.settings.lease).to_string(), &nonce()];
        let mut reply = match self.run(&CLAIM_PERMISSION, &keys, &args).await {
            Err(StoreError::Newer(key)) => {
                self.put_off(permission, "", &key).await?;
                return Ok(Claimed::No);
            }
            reply => reply?,
        };
        // After the answer: the worker's time is then never before what was due, and never after the time of Redis, by which what it makes
        // due at once would be due only later.
        let now = clock.now();
        match reply.outcome() {
            "claimed" => {}
            "not_due" | "leased" => return Ok(Claimed::No),
            _ => return Err(reply.unexpected()),
        }
        let at: String = reply.take(3)?;
        let at = read_time(&at).ok_or_else(|| reply.unexpected())?;
        let still: String = reply.take(4)?;
        let paused: String = reply.take(13)?;
        let still = Still {
            now_ms: at.as_millisecond(),
            ms: still.parse().map_err(|_| reply.unexpected())?,
            paused_since: read_time(&paused),
        };
        let (closed, record): (String, String) = (reply.take(5)?, reply.take(6)?);
        let hints: Vec<(String, String)> = reply.take(7)?;
        let open: Vec<String> = reply.take(8)?;
        let wish: [String; 4] = [reply.take(9)?, reply.take(10)?, reply.take(11)?, reply.take(12)?];
        let [close_at, close_reason, cancel_pending, look_asked] = wish;
        let ticket: String = reply.take(14)?;
        let token: String = reply.take(1)?;
        let open = match self.read_open(&open, still).await {
            Err(StoreError::Newer(key)) => {
                self.put_off(permission, &token, &key).await?;
                return Ok(Claimed::No);
            }
            open => open?,
        };
        let texts = Texts::new(record);
        for stored in &open {
            texts.note(&stored.intent.id, &stored.progress_text);
        }
        Ok(Claimed::Yes(Box::new(Claim {
            permission: permission.clone(),
            token,
            wake: reply.take(2)?,
            ahead: at.duration_since(now),
            closed: closed == "1",
            record: read_record(&keys[2], &texts.record)?,
            hints: hints
                .into_iter()
                .map(|(field, value)| read_hint(&keys[3], &field, value))
                .collect::<Result<_, _>>()?,
            intents: open.into_iter().map(|stored| stored.intent).collect(),
            still,
            close: read_wish(&close_at, &close_reason, &cancel_pending),
            look_asked: Some(look_asked).filter(|note| !note.is_empty()),
            has_ticket: ticket == "1",
            reservation: Arc::default(),
            texts: Arc::new(texts),
        })))
    }

    /// Reads intents by id. One that has gone meanwhile is left out.
    pub(super) async fn read_open(&self, ids: &[String], still: Still) -> Result<Vec<StoredIntent>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<IntentId> = ids
            .iter()
            .map(|id| id.parse().map_err(|_| corrupt(id.clone(), "not an intent id")))
            .collect::<Result<_, _>>()?;
        let mut pipe = redis::pipe();
        for id in &ids {
            pipe.hgetall(self.0.keys.intent(id));
        }
        let records: Vec<HashMap<String, String>> = pipe.query_async(&mut self.0.connection.handle()).await?;
        let mut intents = Vec::with_capacity(ids.len());
        for (id, fields) in ids.iter().zip(&records) {
            intents.extend(read(id, &self.0.keys.intent(id), fields, still)?);
        }
        intents.sort_by_key(|stored: &StoredIntent| stored.intent.submitted_at);
        Ok(intents)
    }

    /// Reads one more intent within a claim: one that has ended, and that a charge names.
    ///
    /// # Errors
    /// As [`Store::charge`].
    pub async fn ended_charge(&self, id: &IntentId, claim: &Claim) -> Result<Option<StoredIntent>, StoreError> {
        let key = self.0.keys.intent(id);
        let fields: HashMap<String, String> = self.0.connection.handle().hgetall(&key).await?;
        let stored = read(id, &key, &fields, claim.still)?;
        if let Some(stored) = &stored {
            claim.texts.note(id, &stored.progress_text);
        }
        Ok(stored)
    }

    /// Gives a claim back on whose way a record of a later version was met; `key` is that record.
    ///
    /// # Errors
    /// When Redis does not answer: the lease runs out by itself.
    pub async fn leave_to_newer(&self, claim: &Claim, key: &str) -> Result<(), StoreError> {
        self.put_off(&claim.permission, &claim.token, key).await
    }

    /// Extends the lease.
    ///
    /// # Errors
    /// When Redis does not answer: then nothing may be sent.
    pub async fn renew(&self, claim: &Claim) -> Result<Renewed, StoreError> {
        let keys = [self.0.keys.marker(), self.0.keys.permission(&claim.permission), self.0.keys.schedule()];
        let args = [claim.permission.as_str(), &claim.token, &millis(self.0.settings.lease).to_string()];
        let reply = self.run(&RENEW_LEASE, &keys, &args).await?;
        match reply.outcome() {
            "renewed" => Ok(Renewed::Yes),
            "lapsed" => Ok(Renewed::Lapsed),
            "lost_lease" => Ok(Renewed::Lost),
            _ => Err(reply.unexpected()),
        }
    }

    /// Gives the lease back undecided; due again after the delay.
    ///
    /// # Errors
    /// When Redis does not answer: the lease then runs out by itself.
    pub async fn release(&self, claim: &Claim, delay: Duration) -> Result<(), StoreError> {
        let keys = [self.0.keys.marker(), self.0.keys.permission(&claim.permission), self.0.keys.schedule()];
        let args = [claim.permission.as_str(), &claim.token, &millis(delay).to_string()];
        self.run(&RELEASE_LEASE, &keys, &args).await.map(|_| ())
    }

    /// Marks a send. Only after [`Marked::Yes`] may the request, signed before, go out; once.
    ///
    /// # Errors
    /// When it is not certain that the mark was written: then nothing may be sent. The number counts as unknown.
    pub async fn mark(&self, claim: &Claim, send: &Send<'_>) -> Result<Marked, StoreError> {
        let inner = &self.0;
        let intent = send.intent;
        let kind = if intent.next_send_repeats() { "repeat" } else { "new" };
        let event = Event::of_charge(EventType::ChargeAttempted, intent, json!({ "send": kind }));
        let keys = [
            inner.keys.marker(),
            inner.keys.permission(&claim.permission),
            inner.keys.intent(&intent.id),
            inner.keys.events(),
            inner.keys.open(&claim.permission),
        ];
        let instrument = send.instrument.and_then(|digest| serde_json::to_value(digest).ok());
        let instrument = instrument.as_ref().and_then(Value::as_str).unwrap_or_default();
        let args = [
            &inner.source,
            &self.now_text(),
            claim.permission.as_str(),
            &claim.token,
            &intent.number.value.to_string(),
            kind,
            send.stored_state,
            &millis(send.needed).to_string(),
            &millis(inner.settings.confirmation_delay).to_string(),
            &inner.settings.bounds.events.to_string(),
            instrument,
            &trigger_text(intent.progress.trigger),
            event.kind,
            &event.data,
            intent.id.as_str(),
        ];
        let mut reply = self.run(&MARK_SEND, &keys, &args).await?;
        match reply.outcome() {
            "marked" => {
                let (tainted, at): (String, String) = (reply.take(1)?, reply.take(2)?);
                let (sends, first): (String, String) = (reply.take(3)?, reply.take(4)?);
                Ok(Marked::Yes(Number {
                    value: intent.number.value,
                    status: NumberStatus::Unknown,
                    sends: sends.parse().map_err(|_| reply.unexpected())?,
                    first_mark: read_time(&first),
                    last_mark: read_time(&at),
                    tainted: tainted == "1",
                    instrument: if kind == "new" { send.instrument.cloned() } else { intent.number.instrument.clone() },
                }))
            }
            "stopped" => Ok(Marked::Stopped),
            "refused" => Ok(Marked::Refused(reply.take(1)?)),
            "full" => Ok(Marked::EventsFull),
            "lost_lease" => Ok(Marked::LostLease),
            _ => Err(reply.unexpected()),
        }
    }

    /// Writes what was decided and gives the lease back.
    ///
    /// # Errors
    /// When it is not certain that it was written. The same commit again is safe.
    pub async fn commit(&self, claim: &Claim, commit: &Commit<'_>) -> Result<Committed, StoreError> {
        let inner = &self.0;
        let mut keys = vec![
            inner.keys.marker(),
            inner.keys.permission(&claim.permission),
            inner.keys.hints(&claim.permission),
            inner.keys.open(&claim.permission),
            inner.keys.schedule(),
            inner.keys.events(),
            inner.keys.quarantine(),
            inner.keys.held_back(),
        ];
        keys.extend(commit.intents.iter().map(|(intent, ..)| inner.keys.intent(&intent.id)));
        keys.push(inner.keys.quota());
        keys.extend(inner.keys.lists());
        let mut payload = payload(claim, commit);
        give_back(&mut payload, claim, &inner.settings.quota);
        let payload = payload.to_string();
        let args = [
            &inner.source,
            &self.now_text(),
            claim.permission.as_str(),
            &claim.token,
            &claim.wake,
            &millis(inner.settings.intent_retention).to_string(),
            EventType::IpnQuarantined.as_str(),
            &inner.settings.bounds.quarantine.to_string(),
            &payload,
        ];
        let reply = self.run(&COMMIT_RECONCILIATION, &keys, &args).await?;
        match reply.outcome() {
            "committed" | "already" => Ok(Committed::Yes),
            "lost_lease" => Ok(Committed::LostLease),
            _ => Err(reply.unexpected()),
        }
    }
}

/// The lease nonce: the only random value of the service.
#[expect(clippy::disallowed_methods, reason = "the lease nonce is the only random value")]
fn nonce() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
