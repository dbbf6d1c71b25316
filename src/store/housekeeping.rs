//! How full everything is, and whether a permission is at rest. What is trimmed: [`groups`](super::groups), `trim_lists`.

use std::time::Duration;

use super::{Store, StoreError};
use crate::model::ids::ChargePermissionId;

/// Scores of the schedule below this are no times: whoever was let in for tokens stands there in the order of the waiting room
/// (`lua/list_due.lua`).
const TIMES_FROM_MS: i64 = 1_000_000_000_000;

/// How full the streams and the schedule are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels {
    /// Events in the stream.
    pub events: usize,
    /// Entries in the journal.
    pub journal: usize,
    /// Entries kept aside.
    pub quarantine: usize,
    /// Messages that were tried and that the handler at `FORWARD_URL` has not taken.
    pub forward: usize,
    /// Permissions with a next time.
    pub scheduled: usize,
    /// Those whose time has come, and those who have tokens and wait for a worker.
    pub due: usize,
    /// How long the first whose time has come has been due; 0 if there is none.
    pub oldest_due: Duration,
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
        let now = self.redis_now().await?.as_millisecond();
        let (events, journal, quarantine, forward, scheduled, due, first): (_, _, _, _, _, _, Vec<(String, f64)>) =
            redis::pipe()
                .xlen(keys.events())
                .xlen(keys.journal())
                .xlen(keys.quarantine())
                .zcard(keys.forward())
                .zcard(keys.schedule())
                .zcount(keys.schedule(), "-inf", now)
                .zrangebyscore_limit_withscores(keys.schedule(), TIMES_FROM_MS, now, 0, 1)
                .query_async(&mut self.0.connection.handle())
                .await?;
        // Milliseconds since 1970, exact in a double.
        #[expect(clippy::cast_possible_truncation, reason = "a score is a time in milliseconds")]
        let since = first.first().map_or(0, |(_, score)| now.saturating_sub(*score as i64));
        let oldest_due = Duration::from_millis(u64::try_from(since).unwrap_or(0));
        Ok(Levels { events, journal, quarantine, forward, scheduled, due, oldest_due })
    }
}
