//! A charge intent as a Redis hash, and back.
//!
//! What scripts judge by (state, number, marks, cancellation) are fields of their own; the rest is one JSON text that scripts only
//! compare and replace.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::StoreError;
use super::versions::{carried, check_version};
use crate::model::capture::{CaptureIntent, CaptureWish};
use crate::model::charge_intent::{
    ChargeIntent, Number, NumberStatus, Progress, RetryWish, Stage, Trigger, Why, Wishes,
};
use crate::model::charge_request::ChargeRequest;
use crate::model::closing::CloseWish;
use crate::model::handover::HandedOver;
use crate::model::hint::{Hint, HintNote, ObjectType};
use crate::model::ids::{IntentId, PolicyName};
use crate::model::permission::PermissionRecord;

/// A stored intent, with the text of its progress as stored (scripts compare it).
#[derive(Debug, Clone)]
pub struct StoredIntent {
    /// The intent.
    pub intent: ChargeIntent,
    /// Its progress as stored.
    pub progress_text: String,
}

impl StoredIntent {
    /// Another progress as it is to be stored: what this one holds and this version does not know stays.
    pub(super) fn with_progress(&self, progress: &Progress) -> String {
        carried::<Progress>(&self.progress_text, progress)
    }
}

/// The policy stands beside the fields of Create Charge in the stored request: as fixed as they are, and part of the comparison of two
/// submissions like them.
#[derive(Deserialize)]
struct ChosenPolicy {
    #[serde(default)]
    policy: Option<PolicyName>,
}

/// The request as stored. Without a policy and a hand-over it is the very text of earlier versions, so that a charge from before is
/// recognised.
pub(super) fn request_text(
    request: &ChargeRequest,
    policy: Option<&PolicyName>,
    declined: Option<&HandedOver>,
) -> String {
    let mut stored = json!(request);
    if let (Some(fields), Some(policy)) = (stored.as_object_mut(), policy) {
        fields.insert("policy".to_owned(), json!(policy));
    }
    if let (Some(fields), Some(declined)) = (stored.as_object_mut(), declined) {
        fields.insert("declined".to_owned(), json!(declined));
    }
    stored.to_string()
}

/// The time that stood still for a charge permission: the account was stopped, or the permission paused. By Redis' clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Still {
    /// When that was counted.
    pub(super) now_ms: i64,
    /// How long it stood still until then, over the life of both.
    pub(super) ms: i64,
    /// Since when the permission is paused.
    pub(super) paused_since: Option<Timestamp>,
}

/// Fields of a pause, the same of a permission and of an intent.
pub(super) const PAUSE_FIELDS: [&str; 3] = ["paused_since", "paused_base_ms", "paused_total_ms"];

impl Still {
    /// Of a permission with these [`PAUSE_FIELDS`], in an account that was stopped for so long.
    pub(super) fn of(now: Timestamp, stopped_ms: i64, [since, base, total]: [Option<String>; 3]) -> Self {
        let account = Self { now_ms: now.as_millisecond(), ms: stopped_ms, paused_since: None };
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let since = since.and_then(|text| read_time(&text));
        Self { ms: account.with_pause(since, number(base), number(total)), paused_since: since, ..account }
    }

    /// As the prelude's `with_pause`: what overlaps counts once.
    fn with_pause(self, since: Option<Timestamp>, base: Option<i64>, total: Option<i64>) -> i64 {
        let running = since.map_or(0, |since| {
            let span = self.now_ms.saturating_sub(since.as_millisecond());
            span.saturating_sub(self.ms.saturating_sub(base.unwrap_or(0))).max(0)
        });
        self.ms.saturating_add(total.unwrap_or(0)).saturating_add(running)
    }
}

/// Reads the fields of an intent's hash; `None` if there is none. `still` is the time that stood still for its permission so far.
pub(super) fn read(
    id: &IntentId,
    key: &str,
    fields: &HashMap<String, String>,
    still: Still,
) -> Result<Option<StoredIntent>, StoreError> {
    if fields.is_empty() {
        return Ok(None);
    }
    check_version(key, fields.get("v").map(String::as_str))?;
    let reader = Reader { key, fields };
    let progress_text = reader.text("progress")?.to_owned();
    let mut progress: Progress = reader.json("progress")?;
    let status = NumberStatus::parse(reader.text("number_status")?).ok_or_else(|| reader.corrupt("number_status"))?;
    let number = Number {
        value: reader.number("number")?,
        status,
        sends: reader.number("sends")?,
        first_mark: reader.time("first_mark")?,
        last_mark: reader.time("last_mark")?,
        tainted: reader.text("tainted")? == "1",
        instrument: reader
            .optional("instrument")
            .and_then(|text| serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()),
    };
    if status == NumberStatus::Unknown {
        after_a_crash(&mut progress, &number, reader.optional("trigger"));
    }
    let paused_since = reader.time("paused_since")?;
    let still_ms = still.with_pause(
        paused_since,
        reader.optional_number("paused_base_ms"),
        reader.optional_number("paused_total_ms"),
    );
    let intent = ChargeIntent {
        id: id.clone(),
        request: reader.json("request")?,
        policy: reader.json::<ChosenPolicy>("request")?.policy,
        submitted_at: reader.time("submitted_at")?.ok_or_else(|| reader.corrupt("submitted_at"))?,
        cancel_requested_at: reader.time("cancel_at")?,
        capture: read_capture(&reader)?,
        stopped_ms: still_ms.saturating_sub(reader.optional_number("stopped_base_ms").unwrap_or(still_ms)),
        wishes: Wishes {
            paused_since,
            permission_paused_since: still.paused_since,
            retry: reader
                .optional_number("retry_wish")
                .and_then(|wish| u64::try_from(wish).ok())
                .map(|wish| RetryWish { wish, done: false }),
            resolved_at: reader.time("resolved_at")?,
        },
        number,
        progress,
    };
    Ok(Some(StoredIntent { intent, progress_text }))
}

/// What is stored of captures; `None` in records of charges that nobody asked to capture.
fn read_capture(reader: &Reader<'_>) -> Result<Option<CaptureIntent>, StoreError> {
    if reader.optional("capture_number").is_none() {
        return Ok(None);
    }
    let status = NumberStatus::parse(reader.text("capture_status")?).ok_or_else(|| reader.corrupt("capture_status"))?;
    Ok(Some(CaptureIntent {
        wish: reader.optional("capture_request").map(|_| reader.json("capture_request")).transpose()?,
        requested_at: reader.time("capture_requested_at")?,
        number: Number {
            value: reader.number("capture_number")?,
            status,
            sends: reader.number("capture_sends")?,
            first_mark: reader.time("capture_first_mark")?,
            last_mark: reader.time("capture_last_mark")?,
            tainted: reader.optional("capture_tainted") == Some("1"),
            instrument: None,
        },
        cleared: None,
    }))
}

/// A wish as stored: scripts compare it.
pub(super) fn wish_text(wish: &CaptureWish) -> String {
    json!(wish).to_string()
}

/// A send was marked and its worker did not live to commit: the stage is still the one before the send. What is known is the number,
/// so the stage becomes "ask again under the same number, now".
fn after_a_crash(progress: &mut Progress, number: &Number, trigger: Option<&str>) {
    let at = number.last_mark.unwrap_or(Timestamp::MIN);
    match progress.stage {
        Stage::Parked { .. } | Stage::Scheduled { why: Why::Attempt, .. } => {
            progress.stage = Stage::Scheduled { at, why: Why::Repeat };
            if let Some(trigger) = trigger.and_then(parse_trigger) {
                progress.trigger = trigger;
            }
        }
        _ => {}
    }
}

fn parse_trigger(text: &str) -> Option<Trigger> {
    serde_json::from_value(serde_json::Value::String(text.to_owned())).ok()
}

/// The trigger as stored.
pub(super) fn trigger_text(trigger: Trigger) -> String {
    serde_json::to_value(trigger).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A time as stored: milliseconds, or nothing.
pub(super) fn time_text(time: Option<Timestamp>) -> String {
    time.map(|time| time.as_millisecond().to_string()).unwrap_or_default()
}

struct Reader<'a> {
    key: &'a str,
    fields: &'a HashMap<String, String>,
}

impl<'a> Reader<'a> {
    fn corrupt(&self, field: &str) -> StoreError {
        StoreError::Corrupt { key: self.key.to_owned(), why: format!("field {field} is missing or malformed") }
    }

    fn optional(&self, field: &str) -> Option<&'a str> {
        self.fields.get(field).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn text(&self, field: &str) -> Result<&'a str, StoreError> {
        self.optional(field).ok_or_else(|| self.corrupt(field))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, field: &str) -> Result<T, StoreError> {
        serde_json::from_str(self.text(field)?).map_err(|_| self.corrupt(field))
    }

    fn number(&self, field: &str) -> Result<u32, StoreError> {
        self.text(field)?.parse().map_err(|_| self.corrupt(field))
    }

    fn optional_number(&self, field: &str) -> Option<i64> {
        self.optional(field)?.parse().ok()
    }

    fn time(&self, field: &str) -> Result<Option<Timestamp>, StoreError> {
        match self.optional(field) {
            None => Ok(None),
            Some(text) => read_time(text).map(Some).ok_or_else(|| self.corrupt(field)),
        }
    }
}

/// Reads a time as scripts write it.
pub(super) fn read_time(text: &str) -> Option<Timestamp> {
    Timestamp::from_millisecond(text.parse().ok()?).ok()
}

/// The wish to close a permission, from the fields of its hash.
pub(super) fn read_wish(at: &str, reason: &str, cancel_pending: &str) -> Option<CloseWish> {
    let asked_at = read_time(at)?;
    Some(CloseWish { asked_at, reason: reason.to_owned(), cancel_pending: cancel_pending == "1" })
}

/// The record of a permission; empty text is none.
pub(super) fn read_record(key: &str, text: &str) -> Result<PermissionRecord, StoreError> {
    if text.is_empty() {
        return Ok(PermissionRecord::default());
    }
    serde_json::from_str(text).map_err(|_| corrupt(key.to_owned(), "the record is malformed"))
}

/// A field of the hints, with its text as stored.
pub(super) fn read_hint(key: &str, field: &str, value: String) -> Result<(Hint, String), StoreError> {
    let parse = || {
        let (object_type, object_id) = field.split_once(':')?;
        let mut parts = value.splitn(3, ' ');
        let (_wake, published) = (parts.next()?, read_time(parts.next()?)?);
        let mut note: HintNote = serde_json::from_str(parts.next()?).ok()?;
        note.published_at = published;
        Some(Hint { object_type: ObjectType::parse(object_type)?, object_id: object_id.parse().ok()?, note })
    };
    match parse() {
        Some(hint) => Ok((hint, value)),
        None => Err(corrupt(key.to_owned(), "a hint is malformed")),
    }
}

pub(super) fn corrupt(key: String, why: &str) -> StoreError {
    StoreError::Corrupt { key, why: why.to_owned() }
}
