//! The event stream from outside of consumer groups: what was told, in order, without touching anybody's place.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use redis::streams::StreamRangeReply;

use super::{Store, StoreError};

/// The id of a stream entry: when the server wrote it, and a counter within that millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct EntryId {
    /// Milliseconds since 1970, by the clock of Redis.
    pub ms: u64,
    /// Counts within the millisecond.
    pub sequence: u64,
}

impl EntryId {
    /// The first entry that a millisecond may have.
    #[must_use]
    pub fn at(ms: u64) -> Self {
        Self { ms, sequence: 0 }
    }

    /// The smallest id above this one.
    #[must_use]
    pub fn next(self) -> Self {
        match self.sequence.checked_add(1) {
            Some(sequence) => Self { sequence, ..self },
            None => Self::at(self.ms.saturating_add(1)),
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.sequence)
    }
}

impl FromStr for EntryId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('-').unwrap_or((text, "0"));
        let id = parts.0.parse().ok().zip(parts.1.parse().ok()).map(|(ms, sequence)| Self { ms, sequence });
        id.ok_or("expected the id of a stream entry, such as 1769767204123-0")
    }
}

/// An event as it lies in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Where it lies.
    pub entry: EntryId,
    /// Its fields: the attributes of a CloudEvent, and `data`.
    pub fields: HashMap<String, String>,
}

impl StoredEvent {
    /// A field; empty if it has none of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

impl Store {
    /// The oldest events from `from` on, at most so many.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn events_from(&self, from: EntryId, at_most: usize) -> Result<Vec<StoredEvent>, StoreError> {
        let mut range = redis::cmd("XRANGE");
        range.arg(self.0.keys.events()).arg(from.to_string()).arg("+").arg("COUNT").arg(at_most);
        Ok(read(range.query_async(&mut self.0.connection.handle()).await?))
    }

    /// The newest events before `before`, or of all, the newest first; at most so many.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn newest_events(&self, before: Option<EntryId>, at_most: usize) -> Result<Vec<StoredEvent>, StoreError> {
        let end = before.map_or_else(|| "+".to_owned(), |before| format!("({before}"));
        let mut range = redis::cmd("XREVRANGE");
        range.arg(self.0.keys.events()).arg(end).arg("-").arg("COUNT").arg(at_most);
        Ok(read(range.query_async(&mut self.0.connection.handle()).await?))
    }

    /// Whether events were removed since the stream began. Servers before Redis 7 cannot tell: then it may be.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn events_were_removed(&self) -> Result<bool, StoreError> {
        let key = self.0.keys.events();
        let mut handle = self.0.connection.handle();
        if !redis::cmd("EXISTS").arg(&key).query_async::<bool>(&mut handle).await? {
            return Ok(false);
        }
        let about: HashMap<String, redis::Value> =
            redis::cmd("XINFO").arg("STREAM").arg(&key).query_async(&mut handle).await?;
        let count = |name: &str| about.get(name).and_then(|value| redis::from_redis_value_ref::<u64>(value).ok());
        Ok(count("entries-added").is_none_or(|added| Some(added) != count("length")))
    }

    /// The time of an entry as the events have it: by the clock of Redis, and in a sandbox by the offset of its clock.
    #[must_use]
    pub fn written_at(&self, entry: EntryId) -> jiff::Timestamp {
        let ms = i64::try_from(entry.ms).unwrap_or(i64::MAX).saturating_add(self.0.clock.offset_ms());
        jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
    }

    /// The first entry that may have been written at this time: the other way round.
    #[must_use]
    pub fn first_entry_at(&self, at: jiff::Timestamp) -> EntryId {
        let ms = at.as_millisecond().saturating_sub(self.0.clock.offset_ms());
        EntryId::at(u64::try_from(ms).unwrap_or(0))
    }
}

fn read(reply: StreamRangeReply) -> Vec<StoredEvent> {
    let entries = reply.ids.into_iter().map(|entry| StoredEvent {
        entry: entry.id.parse().unwrap_or_default(),
        fields: entry.map.keys().filter_map(|name| Some((name.clone(), entry.get::<String>(name)?))).collect(),
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_ids_are_read_written_and_ordered_as_redis_does() {
        let id: EntryId = "1769767204123-7".parse().unwrap();
        assert_eq!((id.ms, id.sequence, id.to_string().as_str()), (1_769_767_204_123, 7, "1769767204123-7"));
        assert_eq!("12".parse::<EntryId>().unwrap(), EntryId::at(12));
        assert!(EntryId::at(12) < EntryId::at(12).next() && EntryId::at(12).next() < EntryId::at(13));
        assert_eq!(EntryId { ms: 1, sequence: u64::MAX }.next(), EntryId::at(2));
        for wrong in ["", "-", "a-0", "1-", "1-x", "-1"] {
            assert!(wrong.parse::<EntryId>().is_err(), "{wrong}");
        }
    }
}
