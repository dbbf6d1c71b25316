//! What is kept aside for a person: genuine messages that cannot be acted on, and hints that Amazon refused too often.

use std::collections::HashMap;

use redis::streams::{StreamId, StreamRangeReply};
use serde_json::json;

use super::events::EntryId;
use super::script::REPLAY_QUARANTINED;
use super::{Store, StoreError};
use crate::model::hint::{Hint, HintNote, ObjectType};
use crate::model::ids::ChargePermissionId;

/// An entry of the quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Its id.
    pub id: EntryId,
    /// Why it is here.
    pub reason: String,
    /// What it is.
    pub what: Aside,
}

/// What is kept aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aside {
    /// A message that was verified when it came, and not understood, or for another merchant.
    Message {
        /// SNS `MessageId`.
        message_id: String,
        /// SNS `TopicArn`.
        topic_arn: String,
        /// SNS `Timestamp`.
        published_at: String,
        /// The body as received.
        body: String,
    },
    /// A hint whose look Amazon refused too often.
    Hint {
        /// The permission it belongs to.
        permission: ChargePermissionId,
        /// The hint as it was.
        hint: Hint,
    },
    /// Neither: written by another version, or by hand.
    Unreadable,
}

/// What became of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// The permission is due, the entry is gone.
    Yes,
    /// There is no such entry (any more).
    Gone,
}

impl Store {
    /// Entries after `after`, the oldest first.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn quarantined(&self, after: Option<EntryId>, count: usize) -> Result<Vec<Quarantined>, StoreError> {
        let start = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        self.range(&start, "+", count).await
    }

    /// One entry.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn quarantined_entry(&self, id: EntryId) -> Result<Option<Quarantined>, StoreError> {
        let id = id.to_string();
        Ok(self.range(&id, &id, 1).await?.pop())
    }

    /// Takes an entry out for good. Whether it was there.
    ///
    /// # Errors
    /// When it is not certain that it is gone. The same again is safe.
    pub async fn drop_quarantined(&self, id: EntryId) -> Result<bool, StoreError> {
        self.account().await?;
        let mut delete = redis::cmd("XDEL");
        delete.arg(self.0.keys.quarantine()).arg(id.to_string());
        let gone: usize = delete.query_async(&mut self.0.connection.handle()).await?;
        Ok(gone > 0)
    }

    /// Lets an entry do what it names: `hint` of `permission` is to be looked at now, and the entry is gone.
    ///
    /// # Errors
    /// When it is not certain that it was done. The same again is safe. [`StoreError::Full`] when the permission has too many hints.
    pub async fn replay_quarantined(
        &self,
        id: EntryId,
        permission: &ChargePermissionId,
        hint: &Hint,
    ) -> Result<Replayed, StoreError> {
        let inner = &self.0;
        let keys = [
            inner.keys.marker(),
            inner.keys.quarantine(),
            inner.keys.permission(permission),
            inner.keys.hints(permission),
            inner.keys.schedule(),
        ];
        let args = [
            &id.to_string(),
            permission.as_str(),
            &hint.field(),
            &hint.note.published_at.as_millisecond().to_string(),
            &json!(hint.note).to_string(),
            &inner.settings.bounds.hints_per_permission.to_string(),
        ];
        let reply = self.run(&REPLAY_QUARANTINED, &keys, &args).await?;
        match reply.outcome() {
            "replayed" => {
                self.nudge();
                Ok(Replayed::Yes)
            }
            "gone" => Ok(Replayed::Gone),
            "full" => Err(StoreError::Full("the list of hints of this permission")),
            _ => Err(reply.unexpected()),
        }
    }

    async fn range(&self, start: &str, end: &str, count: usize) -> Result<Vec<Quarantined>, StoreError> {
        // On a server that lost its data "there is none" would be a wrong answer.
        self.account().await?;
        let mut range = redis::cmd("XRANGE");
        range.arg(self.0.keys.quarantine()).arg(start).arg(end).arg("COUNT").arg(count);
        let entries: StreamRangeReply = range.query_async(&mut self.0.connection.handle()).await?;
        Ok(entries.ids.iter().filter_map(read).collect())
    }
}

fn read(entry: &StreamId) -> Option<Quarantined> {
    let text = |name: &str| entry.get::<String>(name);
    let what = if let (Some(message_id), Some(body)) = (text("message_id"), text("body")) {
        let (topic_arn, published_at) =
            (text("topic_arn").unwrap_or_default(), text("published_at").unwrap_or_default());
        Aside::Message { message_id, topic_arn, published_at, body }
    } else {
        let fields: HashMap<&str, String> =
            ["charge_permission_id", "hint", "note"].into_iter().filter_map(|name| Some((name, text(name)?))).collect();
        read_hint(&fields).unwrap_or(Aside::Unreadable)
    };
    Some(Quarantined { id: entry.id.parse().ok()?, reason: text("reason").unwrap_or_default(), what })
}

fn read_hint(fields: &HashMap<&str, String>) -> Option<Aside> {
    let permission = fields.get("charge_permission_id")?.parse().ok()?;
    let (kind, object) = fields.get("hint")?.split_once(':')?;
    let note: HintNote = serde_json::from_str(fields.get("note")?).ok()?;
    let hint = Hint { object_type: ObjectType::parse(kind)?, object_id: object.parse().ok()?, note };
    Some(Aside::Hint { permission, hint })
}
