//! Charges by state and reason, without reading those that are not asked for.
//!
//! A list is a sorted set whose entries all have the same score, so that they stand in the order of their text: reason, id, permission.
//! Whoever writes a state moves the entry in the same script.

use std::collections::HashMap;
use std::fmt::Write as _;

use redis::AsyncCommands;
use tracing::{error, info, warn};

use super::keys::UNVERIFIED;
use super::record::{Still, StoredIntent, read};
use super::script::{LIST_INTENT, TRIM_LISTS};
use super::{Store, StoreError, millis};
use crate::model::charge_intent::{ChargeIntent, Outcome, Stage};
use crate::model::ids::{ChargePermissionId, IntentId};

/// Between the parts of an entry; no part holds it.
const SEPARATOR: char = '\t';
/// The character after it, for ranges.
const AFTER_SEPARATOR: char = '\n';
/// Of a reason so much is in an entry.
const MAX_REASON_CHARS: usize = 100;
/// Entries read at a time.
const BATCH: usize = 1000;
/// Entries that one page looks through at most.
const MAX_SCANNED: usize = 20_000;
/// Entries trimmed in one go.
const MAX_TRIMMED: isize = 5_000;

/// The lists of states that are no end: what is in them is also open at its permission.
const OPEN_LISTS: [&str; 5] = ["scheduled", "parked", "pending", "authorized", "held"];

/// Which charges are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this state; one of [`Stage::NAMES`].
    pub state: Option<&'static str>,
    /// With exactly this reason.
    pub reason: Option<String>,
    /// Of this permission.
    pub permission: Option<ChargePermissionId>,
    /// Only ends that are unverified and that no operator has resolved.
    pub unverified: bool,
}

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    list: &'static str,
    after: String,
}

/// A part of a list.
#[derive(Debug)]
pub struct Page {
    /// The charges.
    pub charges: Vec<StoredIntent>,
    /// Where the next part begins; `None` at the end. A page can be short, or empty, and not be the last.
    pub next: Option<Cursor>,
}

impl Cursor {
    /// As text that a URL can hold.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        for byte in format!("{}\n{}", self.list, self.after).bytes() {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// Reads what [`Self::encode`] wrote.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        if !text.is_ascii() {
            return None;
        }
        let bytes: Vec<u8> = (0..text.len())
            .step_by(2)
            .map(|at| text.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok()))
            .collect::<Option<_>>()?;
        let decoded = String::from_utf8(bytes).ok()?;
        let (list, after) = decoded.split_once('\n')?;
        let list = Stage::NAMES.into_iter().chain([UNVERIFIED]).find(|name| *name == list)?;
        Some(Self { list, after: after.to_owned() })
    }
}

/// The text of an intent in its list.
pub(super) fn entry_of(intent: &ChargeIntent) -> String {
    let reason = reason_text(intent.reason().unwrap_or_default());
    format!("{reason}{SEPARATOR}{}{SEPARATOR}{}", intent.id, intent.request.charge_permission_id)
}

/// A reason as it stands in an entry: no control characters, and not too long.
fn reason_text(reason: &str) -> String {
    reason.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MAX_REASON_CHARS).collect()
}

/// The id in an entry, if the entry is of the permission that is asked for.
fn id_in(entry: &str, filter: &Filter) -> Option<IntentId> {
    let mut parts = entry.split(SEPARATOR).skip(1);
    let (id, permission) = (parts.next()?, parts.next()?);
    let wanted = filter.permission.as_ref().is_none_or(|wanted| wanted.as_str() == permission);
    id.parse().ok().filter(|_| wanted)
}

fn fits(intent: &ChargeIntent, filter: &Filter) -> bool {
    filter.state.is_none_or(|state| state == intent.stage().name())
        && filter
            .reason
            .as_deref()
            .is_none_or(|wanted| reason_text(wanted) == reason_text(intent.reason().unwrap_or_default()))
        && (!filter.unverified
            || (intent.stage().outcome() == Some(Outcome::Unverified) && intent.wishes.resolved_at.is_none()))
}

impl Store {
    /// How many charges are in each state, and how many ends are unverified (`unverified`).
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn count_charges(&self) -> Result<HashMap<&'static str, u64>, StoreError> {
        self.account().await?;
        let names: Vec<&'static str> = Stage::NAMES.into_iter().chain([UNVERIFIED]).collect();
        let mut pipe = redis::pipe();
        for name in &names {
            pipe.zcard(self.0.keys.index(name));
        }
        let counts: Vec<u64> = pipe.query_async(&mut self.0.connection.handle()).await?;
        Ok(names.into_iter().zip(counts).collect())
    }

    /// One page of the charges that are asked for, at most `limit`.
    ///
    /// # Errors
    /// When Redis does not answer, or a record cannot be read.
    pub async fn list_charges(
        &self,
        filter: &Filter,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page, StoreError> {
        // First: on a server that lost its data "there are none" would be a wrong answer.
        let stopped_ms = self.account().await?.stopped_ms;
        let (ids, next) = self.find(filter, limit, cursor).await?;
        let mut charges = self.read_known_charges(&ids, stopped_ms).await?;
        // What has moved on since its entry was read.
        charges.retain(|stored| fits(&stored.intent, filter));
        Ok(Page { charges, next })
    }

    async fn find(
        &self,
        filter: &Filter,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<(Vec<IntentId>, Option<Cursor>), StoreError> {
        let lists: Vec<&'static str> = match (filter.unverified, filter.state) {
            (true, _) => vec![UNVERIFIED],
            (false, Some(state)) => vec![state],
            (false, None) => Stage::NAMES.to_vec(),
        };
        let start = cursor.as_ref().and_then(|cursor| lists.iter().position(|list| *list == cursor.list)).unwrap_or(0);
        let reason = filter.reason.as_deref().map(reason_text);
        let (mut ids, mut scanned) = (Vec::new(), 0);
        let mut after = cursor.map(|cursor| cursor.after);
        let open = match &filter.permission {
            Some(permission) => Some(self.open_of(permission).await?),
            None => None,
        };
        for list in lists.iter().skip(start) {
            // The permission itself knows what is open of it: no list of everybody's has to be gone through.
            if let Some(open) = open.as_ref().filter(|_| OPEN_LISTS.contains(list)) {
                let wanted = |entry: &&String| {
                    reason.as_deref().is_none_or(|reason| entry.split(SEPARATOR).next() == Some(reason))
                        && after.as_ref().is_none_or(|after| *entry > after)
                };
                for (_, entry) in open.iter().filter(|(state, entry)| state == list && wanted(&entry)) {
                    ids.extend(id_in(entry, filter));
                    if ids.len() >= limit {
                        return Ok((ids, Some(Cursor { list, after: entry.clone() })));
                    }
                }
                after = None;
                continue;
            }
            loop {
                let batch = if filter.permission.is_some() { BATCH } else { limit.min(BATCH) };
                let entries = self.entries(list, reason.as_deref(), after.as_deref(), batch).await?;
                let is_last = entries.len() < batch;
                for entry in entries {
                    scanned += 1;
                    ids.extend(id_in(&entry, filter));
                    let full = ids.len() >= limit || scanned >= MAX_SCANNED;
                    if full {
                        return Ok((ids, Some(Cursor { list, after: entry })));
                    }
                    after = Some(entry);
                }
                if is_last {
                    break;
                }
            }
            after = None;
        }
        Ok((ids, None))
    }

    /// What is open of a permission, as it stands in the lists and in their order: state and entry.
    async fn open_of(&self, permission: &ChargePermissionId) -> Result<Vec<(&'static str, String)>, StoreError> {
        let ids: Vec<String> = self.0.connection.handle().zrange(self.0.keys.open(permission), 0, -1).await?;
        let ids: Vec<IntentId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        let read = self.read_known_charges(&ids, 0).await?;
        let mut open: Vec<_> =
            read.iter().map(|stored| (stored.intent.stage().name(), entry_of(&stored.intent))).collect();
        open.sort();
        Ok(open)
    }

    async fn entries(
        &self,
        list: &str,
        reason: Option<&str>,
        after: Option<&str>,
        at_most: usize,
    ) -> Result<Vec<String>, StoreError> {
        let from = match (after, reason) {
            (Some(after), _) => format!("({after}"),
            (None, Some(reason)) => format!("[{reason}{SEPARATOR}"),
            (None, None) => "-".to_owned(),
        };
        let to = reason.map_or_else(|| "+".to_owned(), |reason| format!("({reason}{AFTER_SEPARATOR}"));
        let mut range = redis::cmd("ZRANGE");
        range.arg(self.0.keys.index(list)).arg(from).arg(to).arg("BYLEX").arg("LIMIT").arg(0).arg(at_most);
        Ok(range.query_async(&mut self.0.connection.handle()).await?)
    }

    /// Takes entries of intents that have gone out of the lists. Returns how many.
    ///
    /// # Errors
    /// When Redis does not answer; the rest goes the next time.
    pub async fn trim_lists(&self) -> Result<usize, StoreError> {
        let keys = &self.0.keys;
        let now = self.redis_now().await?.as_millisecond();
        let due: Vec<String> =
            self.0.connection.handle().zrangebyscore_limit(keys.index_expiry(), "-inf", now, 0, MAX_TRIMMED).await?;
        let mut trimmed = 0;
        for due in due {
            let read = due.split_once(SEPARATOR);
            let read = read.and_then(|(state, entry)| Some((state, entry, id_in(entry, &Filter::default())?)));
            let Some((state, entry, id)) = read else {
                error!(entry = due, "an entry of index:expiry that cannot be read was dropped");
                let mut all = vec![keys.marker(), keys.marker()];
                all.extend(keys.lists());
                self.run(&TRIM_LISTS, &all, &["malformed", &due]).await?;
                continue;
            };
            let mut all = vec![keys.marker(), keys.intent(&id)];
            all.extend(keys.lists());
            let reply = self.run(&TRIM_LISTS, &all, &[state, entry]).await?;
            trimmed += usize::from(reply.outcome() == "trimmed");
        }
        Ok(trimmed)
    }

    /// Puts the intents of a version without lists into them, once. Returns how many; `None` if that was done before.
    ///
    /// # Errors
    /// When Redis does not answer, does not permit `SCAN`, or the account moved to another server meanwhile; the next try begins anew.
    pub async fn fill_lists(&self) -> Result<Option<usize>, StoreError> {
        let listed: Option<String> = self.0.connection.handle().hget(self.0.keys.marker(), "listed").await?;
        if listed.is_some() {
            return Ok(None);
        }
        let pattern = self.0.keys.intent_pattern();
        let prefix = pattern.trim_end_matches('*');
        let mut filled = 0;
        let mut scan = self.scan(pattern.clone());
        while let Some(keys) = scan.next().await? {
            for key in keys {
                if let Some(id) = key.strip_prefix(prefix).and_then(|id| id.parse().ok()) {
                    filled += usize::from(self.enlist(&id).await?);
                }
            }
        }
        let mut keys = vec![self.0.keys.marker(), self.0.keys.marker()];
        keys.extend(self.0.keys.lists());
        self.run(&LIST_INTENT, &keys, &["all", "", "", "", "", ""]).await?;
        info!(filled, "the charges of an earlier version are in the lists now");
        Ok(Some(filled))
    }

    async fn enlist(&self, id: &IntentId) -> Result<bool, StoreError> {
        let key = self.0.keys.intent(id);
        let fields: HashMap<String, String> = self.0.connection.handle().hgetall(&key).await?;
        if fields.contains_key("listed_in") {
            return Ok(false);
        }
        let stored = match read(id, &key, &fields, Still::default()) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(false),
            Err(error) => {
                warn!(intent = %id, error = &error as &dyn std::error::Error, "a charge that cannot be read is in no list");
                return Ok(false);
            }
        };
        let intent = &stored.intent;
        let state = fields.get("state").map(String::as_str).unwrap_or_default();
        let unverified = if fields.get("outcome").is_some_and(|outcome| outcome == "unverified") { "1" } else { "0" };
        let mut keys = vec![self.0.keys.marker(), key.clone()];
        keys.extend(self.0.keys.lists());
        let retention = millis(self.0.settings.intent_retention).to_string();
        let args = ["one", state, &stored.progress_text, &entry_of(intent), unverified, &retention];
        // Changed meanwhile: whoever changed it has listed it.
        Ok(self.run(&LIST_INTENT, &keys, &args).await?.outcome() == "listed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_anything_else_is_refused() {
        let cursor = Cursor { list: "held", after: "überraschend\trenewal-1\tC01-1".to_owned() };
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        for text in ["", "x", "zz", "6", "68656c64", "ü", "6e6f7065 0a"] {
            assert_eq!(Cursor::decode(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_reason_holds_nothing_that_an_entry_is_taken_apart_by() {
        assert_eq!(reason_text("HTTP\t503\nand\0more"), "HTTP 503 and more");
        assert_eq!(reason_text(&"x".repeat(500)).len(), MAX_REASON_CHARS);
    }
}
