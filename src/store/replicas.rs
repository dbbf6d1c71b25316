//! Who else must have a write before it is promised to anybody (`WAIT_REPLICAS`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::RedisResult;
use tokio::sync::{Mutex as Turn, watch};

use super::connection::{Connection, Handle, RESPONSE_TIMEOUT};
use super::{StoreError, millis};

/// The longest wait. A server lets everything behind a `WAIT` on its connection wait too; there is one at a time, so a script has at most
/// one before it, and is answered before the connection is given up.
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

/// The connection for what is promised, and those who wait on it. One `WAIT` is for all who were there when it was its turn: whoever
/// comes later has the next one, and so waits for two at most.
#[derive(Debug)]
pub(super) struct Waiting {
    connection: Connection,
    replicas: Replicas,
    group: Mutex<(u64, Arc<Group>)>,
}

/// Those who wait on one connection: `WAIT` is about what its own connection wrote.
#[derive(Debug, Default)]
struct Group {
    turn: Turn<()>,
    /// The round that can still be joined.
    open: Mutex<Option<Arc<Round>>>,
}

/// Those who share a `WAIT`.
#[derive(Debug)]
struct Round {
    members: watch::Sender<Members>,
    confirmed: watch::Sender<Option<RedisResult<u32>>>,
}

#[derive(Debug, Default)]
struct Members {
    /// Whose scripts are not answered yet.
    running: usize,
    /// Whether any of them has written what is to be confirmed.
    wrote: bool,
}

impl Waiting {
    pub(super) fn new(connection: Connection, replicas: Replicas) -> Self {
        Self { connection, replicas, group: Mutex::default() }
    }

    /// To be asked for before the script is sent; the script then goes over [`Promise::handle`].
    pub(super) async fn promise(&self) -> RedisResult<Promise> {
        let mut handle = self.connection.handle();
        let generation = handle.generation().await?;
        let group = {
            let mut current = self.group.lock().unwrap_or_else(PoisonError::into_inner);
            if current.0 != generation {
                *current = (generation, Arc::default());
            }
            Arc::clone(&current.1)
        };
        let round = group.join(&handle, self.replicas);
        Ok(Promise { handle, generation, member: Member { round, answered: false }, replicas: self.replicas })
    }
}

impl Group {
    fn join(self: &Arc<Self>, handle: &Handle, replicas: Replicas) -> Arc<Round> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let round = open.get_or_insert_with(|| {
            let round = Arc::new(Round { members: watch::Sender::default(), confirmed: watch::Sender::default() });
            let (group, own, handle) = (Arc::clone(self), Arc::clone(&round), handle.same());
            // In a task of its own, so that it is held even if the one who came first has gone.
            tokio::spawn(async move { group.hold(&own, handle, replicas).await });
            round
        });
        round.members.send_modify(|members| members.running += 1);
        Arc::clone(round)
    }

    async fn hold(&self, round: &Arc<Round>, mut handle: Handle, replicas: Replicas) {
        let _turn = self.turn.lock().await;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).take_if(|open| Arc::ptr_eq(open, round));
        let mut members = round.members.subscribe();
        let wrote = members.wait_for(|members| members.running == 0).await.is_ok_and(|members| members.wrote);
        if wrote {
            let mut wait = redis::cmd("WAIT");
            // 0 would be for ever.
            wait.arg(replicas.wait_for).arg(millis(replicas.timeout).max(1));
            let confirmed = wait.query_async(&mut handle).await;
            if confirmed.as_ref().is_ok_and(|confirmed| *confirmed < replicas.wait_for) {
                handle.doubt();
            }
            round.confirmed.send_replace(Some(confirmed));
        }
    }
}

/// A script of which it will be asked whether replicas have what it wrote.
pub(super) struct Promise {
    /// For the script, and for nothing else.
    pub(super) handle: Handle,
    generation: u64,
    member: Member,
    replicas: Replicas,
}

impl Promise {
    /// Waits until what the script wrote is confirmed. Its last command must have been a write: newer servers count only from there.
    ///
    /// # Errors
    /// [`StoreError::NotReplicated`] when time has run out; any other when Redis does not answer.
    pub(super) async fn kept(mut self) -> Result<(), StoreError> {
        let wanted = self.replicas.wait_for;
        // Sent over another connection than the one that is waited on, which cannot be: then it is not confirmed.
        if !self.handle.is_on(self.generation) {
            return Err(StoreError::NotReplicated { confirmed: 0, wanted });
        }
        let mut confirmed = self.member.round.confirmed.subscribe();
        self.member.answered(true);
        let confirmed = match confirmed.wait_for(Option::is_some).await {
            Ok(confirmed) => confirmed.clone().unwrap_or(Ok(0))?,
            Err(_) => 0,
        };
        if confirmed < wanted {
            return Err(StoreError::NotReplicated { confirmed, wanted });
        }
        Ok(())
    }
}

/// Leaves its round when it is dropped: nobody waits for a script that failed or was given up.
struct Member {
    round: Arc<Round>,
    answered: bool,
}

impl Member {
    fn answered(&mut self, wrote: bool) {
        if !std::mem::replace(&mut self.answered, true) {
            self.round.members.send_modify(|members| {
                members.running -= 1;
                members.wrote |= wrote;
            });
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.answered(false);
    }
}
