//! The account as a whole: its marker, the stop switch, recovery after a loss.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use redis::AsyncCommands;
use serde_json::json;
use tracing::error;

use super::lists::entry_of;
use super::quota::AccountFault;
use super::record::{Still, StoredIntent, read, read_time};
use super::script::{HOLD_INTENT, INIT_ACCOUNT, SET_STOP};
use super::versions::check_version;
use super::{Store, StoreError};
use crate::model::charge_intent::{RECOVERY, Stage};
use crate::model::event::{Event, EventType};
use crate::model::ids::IntentId;

/// What is known about the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountStatus {
    /// Since when the stop switch is on.
    pub stopped_since: Option<Timestamp>,
    /// The fault that it is at.
    pub fault: Option<AccountFault>,
    /// How long outbound work was halted in all, by the switch or by a fault, in milliseconds.
    pub stopped_ms: i64,
    /// Whether a recovery after a loss is going on.
    pub recovering: bool,
    /// How long ago the last notification that names work was accepted; `None` if there was none yet.
    pub since_notification: Option<Duration>,
    /// Since when it is told that notifications are missing; `None` once one has come.
    pub silent_since: Option<Timestamp>,
}

impl AccountStatus {
    /// What is wrong with the account, in words.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.silent_since.map(|since| {
            format!("changes are found at Amazon that no notification told of (told at {since}): look at the subscription and the public address")
        })
    }
}

/// Why the marker is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// Nothing was ever charged through this service.
    First,
    /// All data was lost.
    AfterLoss,
    /// A backup was restored.
    AfterRestore,
    /// The operator has looked at everything: submissions need no declaration any more.
    EndRecovery,
}

/// What writing the marker came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initialised {
    /// Written; so many open intents were held.
    Done {
        /// Open intents found in the data and held.
        held: usize,
    },
    /// There is a marker already.
    Exists,
    /// There is data without a marker: this is not a first time.
    NotEmpty,
    /// There is no marker to end a recovery of.
    Missing,
    /// No recovery is under way.
    NotRecovering,
}

impl Store {
    /// Redis time, moved by the clock's offset.
    pub(super) async fn redis_now(&self) -> Result<Timestamp, StoreError> {
        let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut self.0.connection.handle()).await?;
        let ms = seconds.saturating_mul(1000).saturating_add(micros / 1000).saturating_add(self.0.clock.offset_ms());
        Ok(Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX))
    }

    /// The account's status.
    ///
    /// # Errors
    /// [`StoreError::NoMarker`] when the server does not know the account.
    pub async fn account(&self) -> Result<AccountStatus, StoreError> {
        let fields: HashMap<String, String> = self.0.connection.handle().hgetall(self.0.keys.marker()).await?;
        let Some(version) = fields.get("version") else { return Err(StoreError::NoMarker) };
        check_version(&self.0.keys.marker(), Some(version))?;
        let stopped_since = fields.get("stop_since").and_then(|text| read_time(text));
        let total: i64 = fields.get("stopped_total_ms").and_then(|text| text.parse().ok()).unwrap_or(0);
        let heard_at = fields.get("last_notification_at").and_then(|text| read_time(text));
        let told_at = fields.get("silence_told_at").and_then(|text| read_time(text));
        let fault = AccountFault::read(&fields);
        // As `halted_since` of the prelude.
        let on = stopped_since.or(fault.as_ref().map(|fault| fault.since));
        let halted_since = on.map(|on| fields.get("halted_since").and_then(|text| read_time(text)).unwrap_or(on));
        let now = if halted_since.is_some() || heard_at.is_some() { Some(self.redis_now().await?) } else { None };
        let until_now = |since: Option<Timestamp>| Some(now?.duration_since(since?));
        let running = until_now(halted_since).map_or(0, |running| running.as_millis().max(0));
        Ok(AccountStatus {
            stopped_since,
            fault,
            stopped_ms: total.saturating_add(i64::try_from(running).unwrap_or(i64::MAX)),
            recovering: fields.get("recovering").is_some_and(|text| text == "1"),
            since_notification: until_now(heard_at).map(|since| since.try_into().unwrap_or_default()),
            silent_since: told_at.filter(|told| heard_at.is_none_or(|heard| heard < *told)),
        })
    }

    /// Writes the marker, and after a loss holds what is open.
    ///
    /// # Errors
    /// When Redis does not answer; the same again is safe.
    pub async fn init(&self, init: Init) -> Result<Initialised, StoreError> {
        let inner = &self.0;
        let keys = [inner.keys.marker(), inner.keys.schedule(), inner.keys.journal(), inner.keys.events()];
        let mode = match init {
            Init::First => "first",
            Init::AfterLoss => "after_loss",
            Init::AfterRestore => "after_restore",
            Init::EndRecovery => "end_recovery",
        };
        let args = [mode, inner.account.merchant.as_str(), inner.account.environment.as_str()];
        let reply = self.run(&INIT_ACCOUNT, &keys, &args).await?;
        match reply.outcome() {
            "done" if matches!(init, Init::AfterLoss | Init::AfterRestore) => {
                let held = self.hold_everything().await?;
                // While SCAN is permitted: what was restored may be of a version without lists.
                self.fill_lists().await?;
                Ok(Initialised::Done { held })
            }
            "done" => Ok(Initialised::Done { held: 0 }),
            "exists" => Ok(Initialised::Exists),
            "not_empty" => Ok(Initialised::NotEmpty),
            "missing" => Ok(Initialised::Missing),
            "not_recovering" => Ok(Initialised::NotRecovering),
            _ => Err(reply.unexpected()),
        }
    }

    /// Holds every open intent in the data. The stop switch is on, so nothing is sent meanwhile. One that cannot be read keeps no other
    /// from being held: the first such error is returned at the end. Where not all could be looked at, that is an error too.
    async fn hold_everything(&self) -> Result<usize, StoreError> {
        let mut held = 0;
        let mut first_error = None;
        let pattern = self.0.keys.intent_pattern();
        let prefix = pattern.trim_end_matches('*');
        let mut scan = self.scan(pattern.clone());
        while let Some(keys) = scan.next().await? {
            for key in keys {
                let id: Option<IntentId> = key.strip_prefix(prefix).and_then(|id| id.parse().ok());
                let Some(id) = id else { continue };
                match self.hold(&id).await {
                    Ok(true) => held += 1,
                    Ok(false) => {}
                    Err(error @ (StoreError::Newer(_) | StoreError::Corrupt { .. } | StoreError::WrongType(_))) => {
                        error!(error = &error as &dyn std::error::Error, key, "an intent could not be held");
                        first_error.get_or_insert(error);
                    }
                    Err(StoreError::Unavailable(error)) if error.code() == Some("WRONGTYPE") => {
                        error!(key, "a key that an intent should have holds something else: nothing to hold was found");
                        first_error.get_or_insert(StoreError::WrongType(key));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        first_error.map_or(Ok(held), Err)
    }

    async fn hold(&self, id: &IntentId) -> Result<bool, StoreError> {
        loop {
            let key = self.0.keys.intent(id);
            let fields: HashMap<String, String> = self.0.connection.handle().hgetall(&key).await?;
            let Some(stored) = read(id, &key, &fields, Still::default())? else { return Ok(false) };
            if let Some(held) = self.try_hold(&stored).await? {
                return Ok(held);
            }
        }
    }

    /// `None` when the intent changed between reading and writing.
    async fn try_hold(&self, stored: &StoredIntent) -> Result<Option<bool>, StoreError> {
        let inner = &self.0;
        let mut held = stored.intent.clone();
        held.progress.stage = Stage::Held { reason: RECOVERY.to_owned() };
        let permission = &held.request.charge_permission_id;
        let event = Event::of_charge(EventType::ChargeHeld, &held, json!({ "reason": RECOVERY }));
        let mut keys = vec![
            inner.keys.marker(),
            inner.keys.intent(&held.id),
            inner.keys.permission(permission),
            inner.keys.open(permission),
            inner.keys.events(),
        ];
        keys.extend(inner.keys.lists());
        let progress = stored.with_progress(&held.progress);
        let now = self.now_text();
        let args = [
            inner.source.as_str(),
            &now,
            permission.as_str(),
            held.id.as_str(),
            &stored.progress_text,
            &progress,
            event.kind,
            &event.data,
            &entry_of(&held),
        ];
        let reply = self.run(&HOLD_INTENT, &keys, &args).await?;
        match reply.outcome() {
            "held" => Ok(Some(true)),
            "ended" => Ok(Some(false)),
            "changed" => Ok(None),
            _ => Err(reply.unexpected()),
        }
    }

    /// Throws or lifts the stop switch. Repeating it changes nothing.
    ///
    /// # Errors
    /// When it is not certain that it was thrown.
    pub async fn set_stop(&self, on: bool) -> Result<(), StoreError> {
        let inner = &self.0;
        let message =
            if on { "the stop switch is on: no charge is sent" } else { "the stop switch is off: charges go on" };
        let event = Event::attention(if on { "stopped" } else { "resumed" }, message, json!({}));
        let now = self.now_text();
        let args = [inner.source.as_str(), &now, if on { "on" } else { "off" }, event.kind, &event.data];
        let reply = self.run(&SET_STOP, &[inner.keys.marker(), inner.keys.events()], &args).await?;
        match reply.outcome() {
            "on" => Ok(()),
            "off" => {
                self.nudge();
                Ok(())
            }
            _ => Err(reply.unexpected()),
        }
    }
}
