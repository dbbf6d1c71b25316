//! What the public listener stores before it says 200.

use std::time::Duration;

use jiff::Timestamp;
use redis::AsyncCommands;
use redis::streams::StreamRangeReply;
use serde_json::json;

use super::script::{KEEP_NOTIFICATION, TELL_NEVER_HEARD};
use super::together::Entry;
use super::{Store, StoreError, millis};
use crate::model::event::{Event, EventType};
use crate::model::hint::{Hint, HintNote, ObjectType};
use crate::model::ids::{ChargePermissionId, ObjectId};

/// Entries of the journal that are read for the addresses of their certificates: those of two topics and of a renewal.
const LATEST: usize = 8;
/// How long the first notification of all may take. A merchant who charges hears of each charge.
const FIRST_WITHIN: Duration = Duration::from_hours(24);
/// How often it is told that none has come: who sets up on Friday may go live on Monday.
const TELL_EVERY: Duration = Duration::from_hours(7 * 24);

/// An authenticated notification, as the journal keeps it.
#[derive(Debug, Clone)]
pub struct Delivery<'a> {
    /// SNS `MessageId`.
    pub message_id: &'a str,
    /// SNS `TopicArn`.
    pub topic_arn: &'a str,
    /// SNS `Timestamp` (signed).
    pub published_at: Timestamp,
    /// The body as received.
    pub body: &'a str,
}

/// What the notification names.
#[derive(Debug, Clone)]
pub struct Named<'a> {
    /// Kind of object.
    pub object_type: ObjectType,
    /// The object.
    pub object_id: &'a ObjectId,
    /// The permission it belongs to.
    pub charge_permission_id: &'a ChargePermissionId,
    /// `NotificationType` as received.
    pub notification_type: &'a str,
    /// `NotificationId` as received.
    pub notification_id: &'a str,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Stored now.
    Stored,
    /// This `MessageId` was stored before.
    Duplicate,
}

impl Store {
    /// Stores a notification and makes its permission due.
    ///
    /// # Errors
    /// When it is not certain that the notification was stored. Answer 503: SNS delivers again.
    pub async fn accept_notification(
        &self,
        delivery: &Delivery<'_>,
        named: &Named<'_>,
    ) -> Result<Accepted, StoreError> {
        let inner = &self.0;
        let hint = Hint {
            object_type: named.object_type,
            object_id: named.object_id.clone(),
            note: HintNote {
                message_id: delivery.message_id.to_owned(),
                published_at: delivery.published_at,
                refusals: 0,
                not_before: None,
                swept_since: None,
                for_intent: None,
            },
        };
        let entry = Entry {
            keys: [
                inner.keys.seen(delivery.message_id),
                inner.keys.permission(named.charge_permission_id),
                inner.keys.hints(named.charge_permission_id),
            ],
            args: [
                named.charge_permission_id.to_string(),
                hint.field(),
                delivery.published_at.as_millisecond().to_string(),
                json!(hint.note).to_string(),
                delivery.message_id.to_owned(),
                delivery.topic_arn.to_owned(),
                delivery.published_at.to_string(),
                named.object_type.as_str().to_owned(),
                named.object_id.to_string(),
                named.notification_type.to_owned(),
                named.notification_id.to_owned(),
                delivery.body.to_owned(),
            ],
        };
        self.store_together(entry).await
    }

    /// Keeps aside a verified notification that cannot be acted on.
    ///
    /// # Errors
    /// As [`Self::accept_notification`].
    pub async fn quarantine_notification(&self, delivery: &Delivery<'_>, reason: &str) -> Result<Accepted, StoreError> {
        let data = json!({ "messageId": delivery.message_id, "topicArn": delivery.topic_arn, "reason": reason });
        self.keep(delivery, reason, Some(&Event::new(EventType::IpnQuarantined, &data))).await
    }

    /// Journals a verified message that names no work, with an event if others must know.
    ///
    /// # Errors
    /// As [`Self::accept_notification`].
    pub async fn journal_message(
        &self,
        delivery: &Delivery<'_>,
        event: Option<&Event>,
    ) -> Result<Accepted, StoreError> {
        self.keep(delivery, "", event).await
    }

    /// Whether a message of this id was stored before, as far as [`StoreSettings::dedupe_ttl`](super::StoreSettings) reaches back.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn is_known(&self, message_id: &str) -> Result<bool, StoreError> {
        Ok(self.0.connection.handle().exists(self.0.keys.seen(message_id)).await?)
    }

    /// The bodies of the last entries of the journal, as they were received and verified; the newest first. Each was stored by
    /// [`Self::accept_notification`] or [`Self::journal_message`].
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn latest_bodies(&self) -> Result<Vec<String>, StoreError> {
        let mut latest = redis::cmd("XREVRANGE");
        latest.arg(self.0.keys.journal()).arg("+").arg("-").arg("COUNT").arg(LATEST);
        let entries: StreamRangeReply = latest.query_async(&mut self.0.connection.handle()).await?;
        let bodies = entries.ids.iter().filter_map(|entry| entry.get::<String>("body"));
        Ok(bodies.filter(|body| !body.is_empty()).collect())
    }

    /// Tells with an event, at most once a week, if no notification about a charge or permission has come within a day after this Redis
    /// was set up, and none since. Whether it told.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn tell_if_never_heard(&self) -> Result<bool, StoreError> {
        let inner = &self.0;
        let message = "no notification about a charge or charge permission has ever come: is this service's address entered at Amazon Pay, and does it reach POST /ipn?";
        let event = Event::attention("never_heard", message, json!({}));
        let (within, every) = (millis(FIRST_WITHIN).to_string(), millis(TELL_EVERY).to_string());
        let args = [&inner.source, &self.now_text(), event.kind, &event.data, &within, &every];
        let reply = self.run(&TELL_NEVER_HEARD, &[inner.keys.marker(), inner.keys.events()], &args).await?;
        match reply.outcome() {
            "told" => Ok(true),
            "quiet" => Ok(false),
            _ => Err(reply.unexpected()),
        }
    }

    async fn keep(&self, delivery: &Delivery<'_>, reason: &str, event: Option<&Event>) -> Result<Accepted, StoreError> {
        let inner = &self.0;
        let keys = [
            inner.keys.marker(),
            inner.keys.seen(delivery.message_id),
            inner.keys.journal(),
            inner.keys.quarantine(),
            inner.keys.events(),
        ];
        let (ttl, most) = (millis(inner.settings.dedupe_ttl).to_string(), inner.settings.bounds.quarantine.to_string());
        let (oldest, now, published) = (self.journal_cutoff(), self.now_text(), delivery.published_at.to_string());
        let args = [
            ttl.as_str(),
            reason,
            &most,
            &oldest,
            &inner.source,
            &now,
            event.map_or("", |event| event.kind),
            event.map_or("", |event| event.data.as_str()),
            "message_id",
            delivery.message_id,
            "topic_arn",
            delivery.topic_arn,
            "published_at",
            &published,
            "body",
            delivery.body,
        ];
        let reply = self.run(&KEEP_NOTIFICATION, &keys, &args).await?;
        match reply.outcome() {
            "kept" => Ok(Accepted::Stored),
            "duplicate" => Ok(Accepted::Duplicate),
            "full" => Err(StoreError::Full("the quarantine")),
            _ => Err(reply.unexpected()),
        }
    }

    /// Journal entries carry the server's own time, which no clock of ours moves.
    pub(super) fn journal_cutoff(&self) -> String {
        let now = self.0.clock.now().as_millisecond().saturating_sub(self.0.clock.offset_ms());
        now.saturating_sub(millis(self.0.settings.journal_retention)).max(0).to_string()
    }
}
