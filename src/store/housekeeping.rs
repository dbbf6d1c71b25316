//! How full everything is, and whether a permission is at rest. What is trimmed: [`groups`](super::groups), `trim_lists`.

use super::{Store, StoreError};
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
