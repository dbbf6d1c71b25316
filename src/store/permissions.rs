//! Charge permissions from the outside: what is known about one, and what is asked of it.

use std::collections::HashMap;

use jiff::Timestamp;

use super::record::{PAUSE_FIELDS, Still, read_hint, read_record, read_time, read_wish};
use super::script::{REQUEST_CLOSE, REQUEST_LOOK};
use super::versions::check_version;
use super::{Store, StoreError};
use crate::model::charge_intent::ChargeIntent;
use crate::model::closing::CloseWish;
use crate::model::hint::Hint;
use crate::model::ids::ChargePermissionId;
use crate::model::permission::PermissionRecord;

/// What is stored about a charge permission.
#[derive(Debug)]
pub struct StoredPermission {
    /// What the last looks showed.
    pub record: PermissionRecord,
    /// Whether a Closed state was ever seen.
    pub closed: bool,
    /// The wish that it be closed, while that is under way.
    pub close: Option<CloseWish>,
    /// Since when it is paused, with all of its charges.
    pub paused_since: Option<Timestamp>,
    /// Whether a worker is at it.
    pub leased: bool,
    /// When it is due; with a worker at it, when its lease ends.
    pub due: Option<Timestamp>,
    /// What notifications named and nobody has dealt with.
    pub hints: Vec<Hint>,
    /// The open charges, oldest first.
    pub intents: Vec<ChargeIntent>,
}

/// What became of a wish to close a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseRequested {
    /// Accepted now.
    Asked,
    /// The same wish was accepted before, and is under way.
    Same,
    /// Another wish is under way.
    Conflict,
    /// It is closed.
    Closed,
}

/// The permission's hash, its hints, the ids of its open charges, its due time.
type Read = (HashMap<String, String>, HashMap<String, String>, Vec<String>, Option<f64>);

impl Store {
    /// What is known about a charge permission; `None` if nothing is.
    ///
    /// # Errors
    /// When Redis does not answer, or a record cannot be read.
    pub async fn permission(&self, id: &ChargePermissionId) -> Result<Option<StoredPermission>, StoreError> {
        // First: on a server that lost its data "there is none" would be a wrong answer.
        let stopped_ms = self.account().await?.stopped_ms;
        let keys = &self.0.keys;
        let (permission, hints, open) = (keys.permission(id), keys.hints(id), keys.open(id));
        let mut pipe = redis::pipe();
        pipe.hgetall(&permission).hgetall(&hints).zrange(&open, 0, -1).zscore(keys.schedule(), id.as_str());
        let (fields, noted, ids, due): Read = pipe.query_async(&mut self.0.connection.handle()).await?;
        if fields.is_empty() {
            return Ok(None);
        }
        check_version(&permission, fields.get("v").map(String::as_str))?;
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let now = self.redis_now().await?;
        let still = Still::of(now, stopped_ms, PAUSE_FIELDS.map(|name| fields.get(name).cloned()));
        let mut hints = noted
            .into_iter()
            .map(|(field, value)| read_hint(&hints, &field, value).map(|(hint, _)| hint))
            .collect::<Result<Vec<_>, _>>()?;
        hints.sort_by_key(|hint| hint.note.published_at);
        #[expect(clippy::cast_possible_truncation, reason = "a score is a time in whole milliseconds")]
        let due = due.and_then(|score| Timestamp::from_millisecond(score as i64).ok());
        Ok(Some(StoredPermission {
            record: read_record(&permission, field("record"))?,
            closed: field("closed") == "1",
            close: read_wish(field("close_at"), field("close_reason"), field("close_cancel_pending"))
                .filter(|_| field("closed") != "1"),
            paused_since: still.paused_since,
            leased: read_time(field("lease_until")).is_some_and(|until| until > now),
            due,
            hints,
            intents: self.read_open(&ids, still).await?.into_iter().map(|stored| stored.intent).collect(),
        }))
    }

    /// Notes the wish that a permission be closed at Amazon. From then on nothing is sent for it. A wish that Amazon called wrong may be
    /// replaced by another one, or be made again.
    ///
    /// # Errors
    /// When it is not certain that it was stored; the same again is safe.
    pub async fn request_close(
        &self,
        id: &ChargePermissionId,
        reason: &str,
        cancel_pending: bool,
    ) -> Result<CloseRequested, StoreError> {
        let keys = [self.0.keys.marker(), self.0.keys.permission(id), self.0.keys.schedule()];
        let mut read = redis::cmd("HMGET");
        read.arg(&keys[1]).arg("close_at").arg("record").arg("v");
        let (at, record, version): (Option<String>, Option<String>, Option<String>) =
            read.query_async(&mut self.0.connection.handle()).await?;
        check_version(&keys[1], version.as_deref())?;
        let record = read_record(&keys[1], record.as_deref().unwrap_or_default())?;
        let is_parked = |asked_at| record.closing.is_some_and(|it| it.asked_at == asked_at && it.parked.is_some());
        let replaced = at.filter(|at| read_time(at).is_some_and(is_parked)).unwrap_or_default();
        let args = [id.as_str(), reason, if cancel_pending { "1" } else { "0" }, &replaced];
        let reply = self.run(&REQUEST_CLOSE, &keys, &args).await?;
        let requested = match reply.outcome() {
            "asked" => CloseRequested::Asked,
            "same" => CloseRequested::Same,
            "conflict" => CloseRequested::Conflict,
            "closed" => CloseRequested::Closed,
            _ => return Err(reply.unexpected()),
        };
        self.nudge();
        Ok(requested)
    }

    /// Notes that somebody wants a permission to be looked at now. `false` if nothing is known of it, unless it may be a `new` one.
    ///
    /// # Errors
    /// When it is not certain that it was noted. The same again is safe.
    pub async fn request_look(&self, id: &ChargePermissionId, new: bool) -> Result<bool, StoreError> {
        let keys = [self.0.keys.marker(), self.0.keys.permission(id), self.0.keys.schedule()];
        let reply = self.run(&REQUEST_LOOK, &keys, &[id.as_str(), if new { "any" } else { "known" }]).await?;
        match reply.outcome() {
            "asked" => {
                self.nudge();
                Ok(true)
            }
            "unknown" => Ok(false),
            _ => Err(reply.unexpected()),
        }
    }
}
