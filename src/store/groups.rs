//! The consumer groups of the events: how far each has come, and what may be trimmed without taking it from one of them.
//!
//! An event goes when it is older than `EVENT_RETENTION` and every group has acknowledged it. A group that does not come back is waited
//! for until `EVENT_RETENTION_LIMIT`, and only while the stream has room: it must fill no memory and stop no charge.

use jiff::Timestamp;
use redis::streams::{StreamInfoGroupsReply, StreamRangeReply};
use serde_json::json;
use tracing::warn;

use super::events::EntryId;
use super::script::TRIM_EVENTS;
use super::{Store, StoreError, millis};
use crate::model::event::Event;

/// More groups than this are not looked at; nobody has as many systems.
const MAX_GROUPS: usize = 64;
/// A name that is longer is cut where it is shown.
const MAX_NAME_CHARS: usize = 100;
/// How often it is told that groups are behind.
const TELL_EVERY_MS: u64 = 24 * 3_600_000;

/// How far a consumer group has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Entries that none of it has read; `None` where Redis cannot say.
    pub unread: Option<usize>,
    /// Entries that were read and not acknowledged.
    pub pending: usize,
    /// The oldest entry that it has not acknowledged; `None` if it has dealt with everything.
    pub oldest: Option<EntryId>,
    /// How old that entry is, in seconds by the clock of Redis; 0 without one.
    pub behind_s: u64,
}

/// What is to be trimmed, and for whom not.
#[derive(Debug, PartialEq, Eq)]
struct Plan<'a> {
    /// The oldest entry that stays.
    keep_from: EntryId,
    /// Groups for which events stay although they are old enough to go.
    waited_for: Vec<&'a Group>,
    /// Groups that lose events which they have not acknowledged.
    left_behind: Vec<&'a Group>,
}

/// `retained`: what is younger always stays. `limit`: what is older always goes. `crowded`: there is no room to wait for anybody.
fn plan(groups: &[Group], retained: EntryId, limit: EntryId, crowded: bool) -> Plan<'_> {
    let behind = || groups.iter().filter(|group| group.oldest.is_some_and(|oldest| oldest < retained));
    let slowest = behind().filter_map(|group| group.oldest).min().unwrap_or(retained);
    let keep_from = if crowded { retained } else { slowest.max(limit).min(retained) };
    let loses = |group: &&Group| group.oldest.is_some_and(|oldest| oldest < keep_from);
    Plan {
        keep_from,
        waited_for: behind().filter(|group| !loses(group)).collect(),
        left_behind: behind().filter(loses).collect(),
    }
}

impl Store {
    /// How far each consumer group has come.
    ///
    /// # Errors
    /// When Redis does not answer, or a group goes meanwhile.
    pub async fn event_groups(&self) -> Result<Vec<Group>, StoreError> {
        let key = self.0.keys.events();
        let mut handle = self.0.connection.handle();
        if !redis::cmd("EXISTS").arg(&key).query_async::<bool>(&mut handle).await? {
            return Ok(Vec::new());
        }
        let mut info: StreamInfoGroupsReply =
            redis::cmd("XINFO").arg("GROUPS").arg(&key).query_async(&mut handle).await?;
        info.groups.truncate(MAX_GROUPS);
        if info.groups.is_empty() {
            return Ok(Vec::new());
        }
        let first = |from: EntryId| {
            let mut range = redis::cmd("XRANGE");
            range.arg(&key).arg(from.to_string()).arg("+").arg("COUNT").arg(1);
            range
        };
        let head: StreamRangeReply = first(EntryId::default()).query_async(&mut handle).await?;
        let head: EntryId = head.ids.first().and_then(|entry| entry.id.parse().ok()).unwrap_or_default();
        // A group is as far as the older of two: what it was given and has not acknowledged, and what it was not given, because it has
        // not asked or was set back (XGROUP SETID). Redis keeps acknowledgements that are missing of entries that were trimmed: only
        // those from the head on count.
        let mut asked = redis::pipe();
        for group in &info.groups {
            asked.cmd("XPENDING").arg(&key).arg(&group.name).arg(head.to_string()).arg("+").arg(1);
            asked.add_command(first(group.last_delivered_id.parse::<EntryId>().unwrap_or_default().next()));
        }
        let found: Vec<redis::Value> = asked.query_async(&mut handle).await?;
        let oldest = found.chunks(2).map(|of_group| of_group.iter().filter_map(first_id).min());
        let now = u64::try_from(self.redis_now().await?.as_millisecond().saturating_sub(self.0.clock.offset_ms()));
        let groups = info.groups.iter().zip(oldest).map(|(group, oldest)| {
            let behind_ms = oldest.map_or(0, |oldest| now.unwrap_or_default().saturating_sub(oldest.ms));
            Group {
                name: group.name.chars().take(MAX_NAME_CHARS).collect(),
                unread: group.lag,
                pending: group.pending,
                oldest,
                behind_s: behind_ms / 1000,
            }
        });
        Ok(groups.collect())
    }

    /// Trims events that are older than their retention and that every group has acknowledged, or has not for too long. Returns how many.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn trim_events(&self) -> Result<usize, StoreError> {
        let inner = &self.0;
        // Entries carry the server's own time: by any other clock an instance whose own is ahead would trim what is young.
        let real_now = self.redis_now().await?.as_millisecond().saturating_sub(inner.clock.offset_ms());
        let before = |span| EntryId::at(u64::try_from(real_now.saturating_sub(millis(span))).unwrap_or(0));
        let limit = inner.settings.event_retention_limit.max(inner.settings.event_retention);
        let crowded = self.levels().await?.events > inner.settings.bounds.events / 2;
        let (retained, limit) = (before(inner.settings.event_retention), before(limit));
        let groups = match self.event_groups().await {
            Ok(groups) => groups,
            // Whoever is behind, events older than the limit go: a stream that is never trimmed stops charges in the end.
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "how far consumer groups have come is not known");
                return self.trim_to(if crowded { retained } else { limit }, None).await;
            }
        };
        let plan = plan(&groups, retained, limit, crowded);
        let trimmed = self.trim_to(plan.keep_from, None).await?;
        for alert in [Self::left_behind(&plan), self.behind(&plan)].into_iter().flatten() {
            self.trim_to(plan.keep_from, Some(alert)).await?;
        }
        Ok(trimmed)
    }

    /// Trims, and then tells what is given, with the field that remembers when it was told.
    async fn trim_to(&self, keep_from: EntryId, alert: Option<(&'static str, Event)>) -> Result<usize, StoreError> {
        let inner = &self.0;
        let (told_at, kind, data) = match &alert {
            Some((told_at, event)) => (*told_at, event.kind, event.data.as_str()),
            None => ("", "", ""),
        };
        let (now, keep_from) = (self.now_text(), keep_from.to_string());
        let args = [inner.source.as_str(), &now, &keep_from, told_at, kind, data, &TELL_EVERY_MS.to_string()];
        let mut reply = self.run(&TRIM_EVENTS, &[inner.keys.marker(), inner.keys.events()], &args).await?;
        match reply.outcome() {
            "trimmed" => reply.take(1),
            _ => Err(reply.unexpected()),
        }
    }

    /// What is told of groups that lose events.
    fn left_behind(plan: &Plan<'_>) -> Option<(&'static str, Event)> {
        if plan.left_behind.is_empty() {
            return None;
        }
        let names = names(&plan.left_behind);
        warn!(groups = ?names, "events are trimmed that consumer groups have not acknowledged");
        let message = "events are removed that consumer groups have not acknowledged, because they are older than \
                       EVENT_RETENTION_LIMIT or the stream is half full: mend the consumers, or destroy groups that nobody reads";
        Some(("left_behind_told_at", Event::attention("consumers_left_behind", message, json!({ "groups": names }))))
    }

    /// What is told of groups for which events are kept.
    fn behind(&self, plan: &Plan<'_>) -> Option<(&'static str, Event)> {
        let oldest = plan.waited_for.iter().filter_map(|group| group.oldest).min()?;
        let since: Timestamp = self.written_at(oldest);
        let names = names(&plan.waited_for);
        warn!(groups = ?names, %since, "old events are kept for consumer groups that have not acknowledged them");
        let message = "events older than EVENT_RETENTION are kept because consumer groups have not acknowledged them: mend the \
                       consumers, or destroy groups that nobody reads; from EVENT_RETENTION_LIMIT on they are removed all the same";
        Some((
            "behind_told_at",
            Event::attention("consumers_behind", message, json!({ "groups": names, "since": since })),
        ))
    }
}

fn names(groups: &[&Group]) -> Vec<String> {
    groups.iter().map(|group| group.name.clone()).collect()
}

/// The id of the first entry of a reply of `XRANGE` or of the long form of `XPENDING`: both are lists of lists that begin with it.
fn first_id(reply: &redis::Value) -> Option<EntryId> {
    let redis::Value::Array(entries) = reply else { return None };
    let redis::Value::Array(entry) = entries.first()? else { return None };
    redis::from_redis_value_ref::<String>(entry.first()?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETAINED: EntryId = EntryId { ms: 700, sequence: 0 };
    const LIMIT: EntryId = EntryId { ms: 400, sequence: 0 };

    fn group(name: &str, oldest: Option<u64>) -> Group {
        Group { name: name.to_owned(), unread: None, pending: 0, oldest: oldest.map(EntryId::at), behind_s: 0 }
    }

    #[test]
    fn without_a_group_or_with_groups_that_keep_up_age_alone_counts() {
        for groups in [vec![], vec![group("a", None), group("b", Some(700)), group("c", Some(900))]] {
            let plan = plan(&groups, RETAINED, LIMIT, false);
            assert_eq!((plan.keep_from, plan.waited_for.len(), plan.left_behind.len()), (RETAINED, 0, 0));
        }
    }

    #[test]
    fn the_slowest_group_keeps_what_it_has_not_acknowledged() {
        let groups = [group("slow", Some(600)), group("slower", Some(500)), group("quick", None)];
        let plan = plan(&groups, RETAINED, LIMIT, false);
        assert_eq!(plan.keep_from, EntryId::at(500));
        assert_eq!(
            (names(&plan.waited_for), plan.left_behind.len()),
            (vec!["slow".to_owned(), "slower".to_owned()], 0)
        );
    }

    #[test]
    fn a_dead_group_is_waited_for_until_the_limit_and_a_slow_one_beside_it_still_is() {
        let groups = [group("dead", Some(1)), group("slow", Some(600))];
        let plan = plan(&groups, RETAINED, LIMIT, false);
        assert_eq!(plan.keep_from, LIMIT);
        assert_eq!(
            (names(&plan.waited_for), names(&plan.left_behind)),
            (vec!["slow".to_owned()], vec!["dead".to_owned()])
        );
    }

    #[test]
    fn in_a_crowded_stream_nobody_is_waited_for_and_nothing_young_goes() {
        let groups = [group("slow", Some(600))];
        let plan = plan(&groups, RETAINED, LIMIT, true);
        assert_eq!((plan.keep_from, names(&plan.left_behind)), (RETAINED, vec!["slow".to_owned()]));
    }
}
