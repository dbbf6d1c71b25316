//! Notifications that come while others are being stored wait, and are stored together in the next call (group commit): a call costs Redis
//! and this process as much as a notification does. When nothing is under way nothing waits.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use redis::{ErrorKind, RedisError};
use tokio::sync::oneshot;

use super::script::ACCEPT_NOTIFICATIONS;
use super::{Store, StoreError, millis};
use crate::store::notifications::Accepted;

/// In one call. It holds Redis for a millisecond; twice as many would cost each no less.
const MOST: usize = 32;
/// Bytes in one call, beyond the first notification: SNS sends at most 256 KiB for each.
const MOST_BYTES: usize = 512 * 1024;
/// That wait. The public listener holds fewer at a time; but a sender that goes away gives up its place there, and what it sent waits here.
const MOST_WAITING: usize = 4096;
/// Arguments of one, as `accept_notifications.lua` has them; the last is the body.
pub(super) const ARGS: usize = 12;

/// One notification as the script takes it.
#[derive(Debug)]
pub(super) struct Entry {
    /// Seen, permission, hints.
    pub(super) keys: [String; 3],
    pub(super) args: [String; ARGS],
}

impl Entry {
    fn bytes(&self) -> usize {
        self.args.iter().map(String::len).sum()
    }
}

#[derive(Debug)]
struct Waiting {
    entry: Entry,
    answer: oneshot::Sender<Result<Accepted, StoreError>>,
}

/// Those that wait for the call that is under way.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Somebody stores until nothing waits.
    storing: bool,
}

impl Queue {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody stores yet: then the caller has to see to it. `None` if there is no room.
    fn put(&self, waiting: Waiting) -> Option<bool> {
        let mut state = self.state();
        if state.waiting.len() >= MOST_WAITING {
            return None;
        }
        state.waiting.push_back(waiting);
        Some(!std::mem::replace(&mut state.storing, true))
    }

    /// What goes into the next call; empty when nothing waits, and then nobody stores any more.
    fn take(&self) -> Vec<Waiting> {
        let mut state = self.state();
        let (mut count, mut bytes) = (0, 0);
        for waiting in state.waiting.iter().take(MOST) {
            bytes += waiting.entry.bytes();
            if count > 0 && bytes > MOST_BYTES {
                break;
            }
            count += 1;
        }
        state.storing = count > 0;
        state.waiting.drain(..count).collect()
    }

    /// Everything that waits.
    fn take_all(&self) -> VecDeque<Waiting> {
        std::mem::take(&mut self.state().waiting)
    }
}

/// Whoever stores. If it is ended before its time (the runtime stops), those that wait are told, and the next one stores.
struct Storing<'a> {
    queue: &'a Queue,
    /// Nothing waits, and another may store by now.
    done: bool,
}

impl Drop for Storing<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.queue.state();
        state.storing = false;
        state.waiting.clear();
    }
}

impl Store {
    /// Whether notifications are being stored at this moment.
    pub(crate) fn is_accepting(&self) -> bool {
        self.0.queue.state().storing
    }

    /// Stores a notification, with others if there are any. It is stored even if the caller has gone.
    pub(super) async fn store_together(&self, entry: Entry) -> Result<Accepted, StoreError> {
        let (answer, answered) = oneshot::channel();
        let first = self.0.queue.put(Waiting { entry, answer });
        if first.ok_or(StoreError::Full("the line of notifications that wait to be stored"))? {
            let store = self.clone();
            // Not within the span of this message: it goes on with those of others.
            tokio::spawn(async move { store.store_waiting().await });
        }
        let given_up = || RedisError::from((ErrorKind::Io, "storing was given up"));
        answered.await.unwrap_or_else(|_| Err(given_up().into()))
    }

    async fn store_waiting(&self) {
        let mut storing = Storing { queue: &self.0.queue, done: false };
        loop {
            let batch = self.0.queue.take();
            if batch.is_empty() {
                storing.done = true;
                return;
            }
            let (entries, answers): (Vec<Entry>, Vec<_>) =
                batch.into_iter().map(|waiting| (waiting.entry, waiting.answer)).unzip();
            match self.store_all(&entries).await {
                Ok(outcomes) => {
                    for (answer, outcome) in answers.into_iter().zip(outcomes) {
                        // Nobody to tell: the caller's time is over, and SNS sends again.
                        let _ = answer.send(outcome);
                    }
                }
                Err(error) => {
                    // One time-out is long enough: whoever waited for it would be answered too late after another.
                    let late = matches!(&error, StoreError::Unavailable(error) if error.is_timeout());
                    let others = if late { self.0.queue.take_all() } else { VecDeque::new() };
                    for answer in answers.into_iter().chain(others.into_iter().map(|waiting| waiting.answer)) {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    async fn store_all(&self, entries: &[Entry]) -> Result<Vec<Result<Accepted, StoreError>>, StoreError> {
        let inner = &self.0;
        let shared = [inner.keys.marker(), inner.keys.journal(), inner.keys.schedule()];
        let (ttl, most) =
            (millis(inner.settings.dedupe_ttl).to_string(), inner.settings.bounds.hints_per_permission.to_string());
        let oldest = self.journal_cutoff();
        let keys: Vec<&str> =
            shared.iter().chain(entries.iter().flat_map(|entry| &entry.keys)).map(String::as_str).collect();
        let settings = [ttl.as_str(), &most, &oldest];
        let args: Vec<&str> =
            settings.into_iter().chain(entries.iter().flat_map(|entry| &entry.args).map(String::as_str)).collect();
        let mut reply = self.run(&ACCEPT_NOTIFICATIONS, &keys, &args).await?;
        if reply.outcome() != "done" || reply.len() != entries.len() + 1 {
            return Err(reply.unexpected());
        }
        let mut outcomes = Vec::with_capacity(entries.len());
        for index in 1..=entries.len() {
            let outcome: String = reply.take(index)?;
            outcomes.push(match outcome.split_once(' ').unwrap_or((&outcome, "")) {
                ("accepted", _) => {
                    self.nudge();
                    Ok(Accepted::Stored)
                }
                ("duplicate", _) => Ok(Accepted::Duplicate),
                ("full", _) => Err(StoreError::Full("the list of hints of this permission")),
                ("wrong_type", key) => Err(StoreError::WrongType(key.to_owned())),
                _ => Err(reply.unexpected()),
            });
        }
        Ok(outcomes)
    }
}
