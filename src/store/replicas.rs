//! Who else must have a write before it is promised to anybody (`WAIT_REPLICAS`).

use std::time::Duration;

use super::connection::{Handle, RESPONSE_TIMEOUT};
use super::{StoreError, millis};

/// The longest wait: with the script before it, it must end before the connection is given up.
pub const MAX_REPLICA_TIMEOUT: Duration = Duration::from_secs(4);
const _: () = assert!(MAX_REPLICA_TIMEOUT.as_millis() < RESPONSE_TIMEOUT.as_millis());

/// How many replicas, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    /// So many must have confirmed a write; 0: none (`WAIT_REPLICAS`).
    pub wait_for: u32,
    /// After this it counts as not confirmed (`WAIT_REPLICAS_TIMEOUT`). At most [`MAX_REPLICA_TIMEOUT`].
    pub timeout: Duration,
}

impl Default for Replicas {
    fn default() -> Self {
        Self { wait_for: 0, timeout: Duration::from_secs(1) }
    }
}

impl Replicas {
    /// Waits until all that was written over this handle's connection is confirmed. The last command on it must have been a write: newer
    /// servers count only from there.
    ///
    /// # Errors
    /// [`StoreError::NotReplicated`] when time has run out; any other when Redis does not answer.
    pub(super) async fn confirm(self, handle: &mut Handle) -> Result<(), StoreError> {
        let mut wait = redis::cmd("WAIT");
        // 0 would be for ever.
        wait.arg(self.wait_for).arg(millis(self.timeout).max(1));
        let confirmed: u32 = wait.query_async(handle).await?;
        if confirmed < self.wait_for {
            return Err(StoreError::NotReplicated { confirmed, wanted: self.wait_for });
        }
        Ok(())
    }
}
