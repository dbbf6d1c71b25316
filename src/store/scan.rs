//! Finds keys by their names (`SCAN`). It names no key, so no server refuses it: one that the account has left, or is about to, would
//! answer with what is left there, and whoever looks for everything would take that for all.

use redis::{ErrorKind, RedisError, RedisResult};

use super::Store;
use super::connection::Handle;

/// Names asked for at a time.
const BATCH: usize = 1000;

/// A walk over the names of all keys that match a pattern, on one connection from its beginning to its end: a cursor means something
/// to the server that gave it, and to no other.
pub(super) struct Scan {
    handle: Handle,
    pattern: String,
    /// `None` after the last.
    cursor: Option<u64>,
    witnesses: [String; 2],
}

impl Store {
    pub(super) fn scan(&self, pattern: String) -> Scan {
        let keys = &self.0.keys;
        // The second never exists, since no intent has that name; on a node from which the slot is moving that is an error.
        let witnesses = [keys.marker(), keys.intent_pattern()];
        Scan { handle: self.0.connection.handle(), pattern, cursor: Some(0), witnesses }
    }
}

impl Scan {
    /// The next names, some of them perhaps twice; `None` once all have been told.
    ///
    /// # Errors
    /// When Redis does not answer, does not permit it, or turns out not to have had all keys of the account: begin anew.
    pub(super) async fn next(&mut self) -> RedisResult<Option<Vec<String>>> {
        let Some(cursor) = self.cursor else { return Ok(None) };
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(&self.pattern).arg("COUNT").arg(BATCH);
        let (next, names): (u64, Vec<String>) = scan.query_async(&mut self.handle).await?;
        self.cursor = Some(next).filter(|next| *next != 0);
        if self.cursor.is_none() {
            self.check_that_it_was_the_place().await?;
        }
        Ok(Some(names))
    }

    /// Once at the end is enough: what has begun to leave does not come back unseen.
    async fn check_that_it_was_the_place(&mut self) -> RedisResult<()> {
        // Refused by a node of a cluster that does not have the slot, or not all of it any more.
        redis::cmd("EXISTS").arg(&self.witnesses).exec_async(&mut self.handle).await?;
        if self.handle.is_left() {
            let what = "the service is at another server than the one whose keys were looked through; do it again";
            return Err(RedisError::from((ErrorKind::Io, what)));
        }
        Ok(())
    }
}
