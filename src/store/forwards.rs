//! What the handler at `FORWARD_URL` has not taken yet: the journal from a mark on, and a sorted set of what was tried and is not through.

use std::time::Duration;

use jiff::Timestamp;
use redis::AsyncCommands;
use serde_json::json;

use super::script::{GIVE_UP_FORWARD, PUT_OFF_FORWARD, Reply, TAKE_FORWARDS};
use super::{Store, StoreError, millis};
use crate::model::event::Event;

/// So many were tried and wait to be tried again; the others wait in the journal.
const MAX_WAITING: usize = 50_000;
/// How often it is told that messages are given up.
const TELL_EVERY_MS: u64 = 24 * 3_600_000;
/// The parts of a message in the script's answer.
const PARTS: usize = 7;

/// A message that is to be forwarded, and that nobody else takes meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Its place in the sorted set.
    entry: String,
    /// When it was read from the journal.
    pub taken_at: Timestamp,
    /// Since when the other side calls it wrong, without another answer between.
    pub refused_since: Option<Timestamp>,
    /// It was accepted too long ago to begin with.
    pub late: bool,
    /// SNS `MessageId`.
    pub message_id: String,
    /// SNS `TopicArn`.
    pub topic_arn: String,
    /// The body as Amazon signed it.
    pub body: String,
}

/// What is to be forwarded now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The messages, those that are due longest first.
    pub forwards: Vec<Forward>,
    /// So many are not in the journal any more: it was trimmed, or made shorter, before they were through.
    pub gone: usize,
    /// The time by the clock of Redis.
    pub now: Timestamp,
}

impl Store {
    /// Notes that what comes to the journal from now on is to be forwarded, unless that was noted before: then it goes on where it was.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn begin_forwarding(&self) -> Result<(), StoreError> {
        let reply = self.take(0, Duration::ZERO, Duration::ZERO, "begin").await?;
        if reply.outcome() == "begun" { Ok(()) } else { Err(reply.unexpected()) }
    }

    /// Takes messages that are to be forwarded. For `hold` nobody else gets them; then they are due again.
    ///
    /// # Errors
    /// When Redis does not answer. What was taken is due again after `hold`.
    pub async fn take_forwards(&self, at_most: usize, hold: Duration, oldest: Duration) -> Result<Taken, StoreError> {
        let mut reply = self.take(at_most, hold, oldest, "").await?;
        if reply.outcome() != "taken" {
            return Err(reply.unexpected());
        }
        let (now, gone) = (time(reply.take(1)?), reply.take(2)?);
        let parts: Vec<String> = (3..reply.len()).map(|at| reply.take(at)).collect::<Result<_, _>>()?;
        let forwards = parts.chunks_exact(PARTS).filter_map(|parts| {
            let [entry, taken_at, refused, late, message_id, topic_arn, body] = parts else { return None };
            Some(Forward {
                entry: entry.clone(),
                taken_at: time(taken_at.parse().unwrap_or_default()),
                refused_since: refused.parse().ok().filter(|since| *since > 0).map(time),
                late: late == "1",
                message_id: message_id.clone(),
                topic_arn: topic_arn.clone(),
                body: body.clone(),
            })
        });
        Ok(Taken { forwards: forwards.collect(), gone, now })
    }

    async fn take(&self, at_most: usize, hold: Duration, oldest: Duration, how: &str) -> Result<Reply, StoreError> {
        let keys = &self.0.keys;
        let [hold, oldest] = [hold, oldest].map(|span| millis(span).to_string());
        let args = [at_most.to_string(), MAX_WAITING.to_string()];
        let args = [&args[0], &args[1], hold.as_str(), oldest.as_str(), how];
        self.run(&TAKE_FORWARDS, &[keys.marker(), keys.journal(), keys.forward()], &args).await
    }

    /// The other side has taken it.
    ///
    /// # Errors
    /// When Redis does not answer: then it is sent once more.
    pub async fn forwarded(&self, forward: &Forward) -> Result<(), StoreError> {
        Ok(self.0.connection.handle().zrem(self.0.keys.forward(), &forward.entry).await?)
    }

    /// It is tried again at `due`.
    ///
    /// # Errors
    /// When Redis does not answer: then it is tried again when its hold ends.
    pub async fn put_off_forward(
        &self,
        forward: &Forward,
        due: Timestamp,
        refused_since: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let keys = [self.0.keys.marker(), self.0.keys.forward()];
        let refused = refused_since.map_or(0, Timestamp::as_millisecond).to_string();
        let args = [forward.entry.as_str(), &refused, &due.as_millisecond().to_string()];
        let reply = self.run(&PUT_OFF_FORWARD, &keys, &args).await?;
        if reply.outcome() == "put_off" { Ok(()) } else { Err(reply.unexpected()) }
    }

    /// It is not tried any more. Told to the consumers, once a day.
    ///
    /// # Errors
    /// When Redis does not answer: then it is tried again when its hold ends.
    pub async fn give_up_forward(&self, forward: &Forward) -> Result<(), StoreError> {
        let inner = &self.0;
        let message = "the handler at FORWARD_URL did not take a notification within FORWARD_GIVE_UP, and perhaps more of them: mend \
                       it. They were acted on here, and stand in the journal";
        let data = json!({ "messageId": forward.message_id, "since": forward.taken_at });
        let event = Event::attention("not_forwarded", message, data);
        let keys = [inner.keys.marker(), inner.keys.forward(), inner.keys.events()];
        let (now, tell_every) = (self.now_text(), TELL_EVERY_MS.to_string());
        let args = [inner.source.as_str(), &now, &forward.entry, event.kind, &event.data, &tell_every];
        let reply = self.run(&GIVE_UP_FORWARD, &keys, &args).await?;
        if reply.outcome() == "given_up" { Ok(()) } else { Err(reply.unexpected()) }
    }
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or_default()
}
