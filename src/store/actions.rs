//! What people do with a charge that is there: try it now, pause it, say what became of it.

use jiff::Timestamp;
use redis::AsyncCommands;
use serde_json::{Value, json};

use super::charges::StoredIntent;
use super::lists::entry_of;
use super::record::{PAUSE_FIELDS, Still, read_time};
use super::script::{RESOLVE_INTENT, RETRY_CHARGE, Reply, SET_PAUSE};
use super::{Store, StoreError, millis};
use crate::model::charge_intent::{ChargeIntent, Outcome};
use crate::model::event::{Event, EventType};
use crate::model::ids::{ChargePermissionId, IntentId};

/// What became of a wish to retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// Noted.
    Noted,
    /// The charge waits for no attempt; its state.
    NotWaiting(String),
    /// The charge, or its permission, is paused.
    Paused,
    /// There is no such charge.
    Unknown,
}

/// What became of a pause, or of its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pause {
    /// Paused, since then.
    Since(Timestamp),
    /// Not paused.
    No,
    /// The charge has ended in this state.
    Ended(String),
    /// There is no such charge, or permission.
    Unknown,
}

/// What an operator says about a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// A held one is given up.
    Abandoned,
    /// A held one goes on with the next number.
    NewNumber,
    /// An unverified end was looked at.
    Seen,
}

/// What became of a resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// Written.
    Yes,
    /// The charge is another one than was read.
    Changed,
    /// A reconciliation is running.
    Busy,
    /// A new number is possible only from then on.
    TooSoon(Timestamp),
}

impl Store {
    /// Notes the wish that a charge be tried now.
    ///
    /// # Errors
    /// When it is not certain that it was noted.
    pub async fn retry_charge(&self, intent: &ChargeIntent) -> Result<Retried, StoreError> {
        let keys = &self.0.keys;
        let permission = &intent.request.charge_permission_id;
        let all = [keys.marker(), keys.intent(&intent.id), keys.permission(permission), keys.schedule()];
        let mut reply = self.run(&RETRY_CHARGE, &all, &[permission.as_str()]).await?;
        match reply.outcome() {
            "noted" => {
                self.nudge();
                Ok(Retried::Noted)
            }
            "not_waiting" => Ok(Retried::NotWaiting(reply.take(1)?)),
            "paused" => Ok(Retried::Paused),
            "unknown" => Ok(Retried::Unknown),
            _ => Err(reply.unexpected()),
        }
    }

    /// Pauses or resumes one charge. Repeating it changes nothing.
    ///
    /// # Errors
    /// When it is not certain that it was written; the same again is safe.
    pub async fn pause_charge(&self, intent: &ChargeIntent, on: bool) -> Result<Pause, StoreError> {
        let of = self.0.keys.intent(&intent.id);
        self.set_pause(&intent.request.charge_permission_id, of, on, &[pause_event(intent, on, "charge")]).await
    }

    /// Pauses or resumes a charge permission with all of its charges, those included that are submitted later.
    ///
    /// # Errors
    /// As [`Store::pause_charge`].
    pub async fn pause_permission(&self, id: &ChargePermissionId, on: bool) -> Result<Pause, StoreError> {
        let stopped_ms = self.account().await?.stopped_ms;
        let open: Vec<String> = self.0.connection.handle().zrange(self.0.keys.open(id), 0, -1).await?;
        let ids: Vec<IntentId> = open.iter().filter_map(|id| id.parse().ok()).collect();
        let charges = self.read_charges(&ids, stopped_ms).await?;
        let events: Vec<Value> =
            charges.iter().map(|stored| pause_event(&stored.intent, on, "charge_permission")).collect();
        self.set_pause(id, self.0.keys.permission(id), on, &events).await
    }

    async fn set_pause(
        &self,
        permission: &ChargePermissionId,
        of: String,
        on: bool,
        events: &[Value],
    ) -> Result<Pause, StoreError> {
        let inner = &self.0;
        let keys = [
            inner.keys.marker(),
            inner.keys.permission(permission),
            of,
            inner.keys.open(permission),
            inner.keys.schedule(),
            inner.keys.events(),
        ];
        let args = [
            inner.source.as_str(),
            &self.now_text(),
            permission.as_str(),
            if on { "pause" } else { "resume" },
            &json!(events).to_string(),
        ];
        let mut reply = self.run(&SET_PAUSE, &keys, &args).await?;
        match reply.outcome() {
            "paused" => Ok(Pause::Since(time_at(&mut reply, 1)?)),
            "resumed" => {
                self.nudge();
                Ok(Pause::No)
            }
            "ended" => Ok(Pause::Ended(reply.take(1)?)),
            "unknown" => Ok(Pause::Unknown),
            _ => Err(reply.unexpected()),
        }
    }

    /// Since when a charge permission is paused.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn permission_paused_since(&self, id: &ChargePermissionId) -> Result<Option<Timestamp>, StoreError> {
        let key = self.0.keys.permission(id);
        let fields: [Option<String>; 3] = self.0.connection.handle().hmget(key, &PAUSE_FIELDS).await?;
        Ok(Still::of(Timestamp::UNIX_EPOCH, 0, fields).paused_since)
    }

    /// Writes what an operator decided: `becomes`, if the charge still is what was read.
    ///
    /// # Errors
    /// When it is not certain that it was written; the same again then finds another charge than was read.
    pub async fn resolve_charge(
        &self,
        read: &StoredIntent,
        resolution: Resolution,
        becomes: &ChargeIntent,
        events: &[Event],
    ) -> Result<Resolved, StoreError> {
        let inner = &self.0;
        let permission = &becomes.request.charge_permission_id;
        let mut keys = vec![
            inner.keys.marker(),
            inner.keys.intent(&becomes.id),
            inner.keys.permission(permission),
            inner.keys.open(permission),
            inner.keys.schedule(),
            inner.keys.events(),
        ];
        keys.extend(inner.keys.lists());
        let resolution = match resolution {
            Resolution::Abandoned => "abandoned",
            Resolution::NewNumber => "new_number",
            Resolution::Seen => "seen",
        };
        let outcome = match becomes.stage().outcome() {
            None => "",
            Some(Outcome::Verified) => "verified",
            Some(Outcome::Unverified) => "unverified",
        };
        let args = [
            inner.source.as_str(),
            &self.now_text(),
            permission.as_str(),
            becomes.id.as_str(),
            resolution,
            &read.progress_text,
            &read.intent.number.value.to_string(),
            &read.with_progress(&becomes.progress),
            becomes.stage().name(),
            outcome,
            &entry_of(becomes),
            &becomes.number.value.to_string(),
            &inner.clock.now().as_millisecond().to_string(),
            &millis(inner.settings.intent_retention).to_string(),
            &millis(inner.settings.confirmation_delay).to_string(),
            &json!(events).to_string(),
        ];
        let mut reply = self.run(&RESOLVE_INTENT, &keys, &args).await?;
        match reply.outcome() {
            "resolved" => {
                self.nudge();
                Ok(Resolved::Yes)
            }
            "changed" | "unknown" => Ok(Resolved::Changed),
            "busy" => Ok(Resolved::Busy),
            "too_soon" => Ok(Resolved::TooSoon(time_at(&mut reply, 1)?)),
            _ => Err(reply.unexpected()),
        }
    }
}

fn pause_event(intent: &ChargeIntent, on: bool, by: &str) -> Value {
    let kind = if on { EventType::ChargePaused } else { EventType::ChargeResumed };
    let event = Event::of_charge(kind, intent, json!({ "by": by }));
    json!({ "id": intent.id, "type": event.kind, "data": event.data })
}

fn time_at(reply: &mut Reply, index: usize) -> Result<Timestamp, StoreError> {
    let text: String = reply.take(index)?;
    read_time(&text).ok_or_else(|| reply.unexpected())
}
