//! Reading the event stream as any consumer would: through a consumer group, each entry acknowledged once it was dealt with.

use std::time::Duration;

use redis::AsyncCommands;
use redis::streams::{StreamReadOptions, StreamReadReply};

use super::{Store, StoreError, millis};

/// An event as a consumer gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedEvent {
    /// Id of the stream entry, to acknowledge.
    pub entry: String,
    /// CloudEvents `id`: dedupe on it.
    pub id: String,
    /// CloudEvents `type`.
    pub kind: String,
    /// CloudEvents `subject`: the charge permission.
    pub subject: String,
    /// CloudEvents `time`.
    pub time: String,
    /// CloudEvents `data`, JSON.
    pub data: serde_json::Value,
}

impl Store {
    /// Creates a consumer group that starts at the oldest event. One that exists is fine.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn create_group(&self, group: &str) -> Result<(), StoreError> {
        let created: redis::RedisResult<()> =
            self.0.connection.handle().xgroup_create_mkstream(self.0.keys.events(), group, "0").await;
        match created {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Reads events that nobody in the group has got yet, waiting for the first at most `wait` (under the response time-out).
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn read_group(
        &self,
        group: &str,
        consumer: &str,
        at_most: usize,
        wait: Duration,
    ) -> Result<Vec<ReceivedEvent>, StoreError> {
        let block = usize::try_from(millis(wait)).unwrap_or(1).clamp(1, 2_000);
        let options = StreamReadOptions::default().group(group, consumer).count(at_most).block(block);
        let reply: Option<StreamReadReply> =
            self.0.connection.dedicated().await?.xread_options(&[self.0.keys.events()], &[">"], &options).await?;
        let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        Ok(entries
            .map(|entry| {
                let text = |field: &str| entry.get::<String>(field).unwrap_or_default();
                ReceivedEvent {
                    id: text("id"),
                    kind: text("type"),
                    subject: text("subject"),
                    time: text("time"),
                    data: serde_json::from_str(&text("data")).unwrap_or_default(),
                    entry: entry.id.clone(),
                }
            })
            .collect())
    }

    /// Acknowledges entries.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn acknowledge(&self, group: &str, entries: &[&str]) -> Result<(), StoreError> {
        if !entries.is_empty() {
            let () = self.0.connection.handle().xack(self.0.keys.events(), group, entries).await?;
        }
        Ok(())
    }
}
