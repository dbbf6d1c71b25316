//! Trimming by age. Nothing that a consumer group has not acknowledged is trimmed: work is never dropped to save room.

use redis::AsyncCommands;
use redis::streams::{StreamInfoGroupsReply, StreamPendingReply};

use super::{Store, StoreError, millis};
use crate::model::ids::ChargePermissionId;

/// How full the streams and the schedule are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels {
    /// Events in the stream.
    pub events: usize,
    /// Entries in the journal.
    pub journal: usize,
    /// Entries kept aside.
    pub quarantine: usize,
    /// Permissions with a next time.
    pub scheduled: usize,
}

impl Store {
    /// Trims events that are older than their retention and that every consumer group has acknowledged. Returns how many.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn trim_events(&self) -> Result<usize, StoreError> {
        let key = self.0.keys.events();
        let mut handle = self.0.connection.handle();
        if !handle.exists(&key).await? {
            return Ok(0);
        }
        let real_now = self.0.clock.now().as_millisecond().saturating_sub(self.0.clock.offset_ms());
        let mut keep_from = StreamId { ms: real_now.saturating_sub(millis(self.0.settings.event_retention)), seq: 0 };
        let groups: StreamInfoGroupsReply = handle.xinfo_groups(&key).await?;
        for group in groups.groups {
            let pending: StreamPendingReply = handle.xpending(&key, &group.name).await?;
            let needed = match pending {
                StreamPendingReply::Data(pending) => StreamId::parse(&pending.start_id),
                // Everything delivered was acknowledged: what comes after the last delivery is still needed.
                _ => StreamId::parse(&group.last_delivered_id).map(StreamId::next),
            };
            keep_from = keep_from.min(needed.unwrap_or(StreamId { ms: 0, seq: 0 }));
        }
        let min_id = format!("{}-{}", keep_from.ms, keep_from.seq);
        Ok(redis::cmd("XTRIM").arg(&key).arg("MINID").arg(min_id).query_async(&mut handle).await?)
    }

    /// Whether nothing is to be done now about a permission: no hint waits, nobody holds its lease, and it is not due.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn is_at_rest(&self, permission: &ChargePermissionId) -> Result<bool, StoreError> {
        let keys = &self.0.keys;
        let (hints, lease, due): (usize, Option<String>, Option<f64>) = redis::pipe()
            .atomic()
            .hlen(keys.hints(permission))
            .hget(keys.permission(permission), "lease_until")
            .zscore(keys.schedule(), permission.as_str())
            .query_async(&mut self.0.connection.handle())
            .await?;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in a double")]
        let now = self.redis_now().await?.as_millisecond() as f64;
        Ok(hints == 0 && lease.is_none() && due.is_none_or(|at| at > now))
    }

    /// How full everything is, for metrics.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn levels(&self) -> Result<Levels, StoreError> {
        let keys = &self.0.keys;
        let (events, journal, quarantine, scheduled) = redis::pipe()
            .xlen(keys.events())
            .xlen(keys.journal())
            .xlen(keys.quarantine())
            .zcard(keys.schedule())
            .query_async(&mut self.0.connection.handle())
            .await?;
        Ok(Levels { events, journal, quarantine, scheduled })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct StreamId {
    ms: i64,
    seq: u64,
}

impl StreamId {
    fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }

    fn next(self) -> Self {
        Self { ms: self.ms, seq: self.seq.saturating_add(1) }
    }
}
