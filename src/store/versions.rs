//! Records of a later version are left alone, and what this version does not know of a record is kept (`docs/adr/0016`).
//!
//! Scripts refuse what they find to be newer (`newer` in the prelude); here the same is asked of what is read. A record of the same
//! version may hold fields of a later one that did not change the meaning of the others: they are written back as they were.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::warn;

use super::script::PUT_OFF;
use super::{Store, StoreError, millis};
use crate::model::event::Event;
use crate::model::ids::{ChargePermissionId, IntentId};
use crate::telemetry::metric;

/// The version of intents, permissions and marker that this service knows and writes. The prelude has the same.
pub(super) const KNOWN_VERSION: u64 = 1;

/// When a permission that was left alone is looked at again. Short: an instance of the later version waits behind it.
const PUT_OFF_FOR: Duration = Duration::from_secs(15);
/// It is told again no sooner.
const TOLD_EVERY: Duration = Duration::from_hours(24);

/// Refuses what a later version wrote. A record without a version is of the first one.
pub(super) fn check_version(key: &str, version: Option<&str>) -> Result<(), StoreError> {
    match version.map(str::parse::<u64>) {
        None => Ok(()),
        Some(Ok(version)) if version <= KNOWN_VERSION => Ok(()),
        Some(_) => Err(StoreError::Newer(key.to_owned())),
    }
}

/// `new` as it is to be stored in place of `stored`, a JSON text of the same type: what `stored` holds beyond the type's own fields is
/// kept. It cannot grow by that: only what was read is written back.
pub(super) fn carried<T: Serialize + DeserializeOwned>(stored: &str, new: &T) -> String {
    let new = json!(new);
    let Ok(known) = serde_json::from_str::<T>(stored).map(|known| json!(known)) else { return new.to_string() };
    // The usual case: nothing is unknown.
    let understood = known.to_string();
    if understood == stored {
        return new.to_string();
    }
    let Ok(stored) = serde_json::from_str::<Value>(stored) else { return new.to_string() };
    merged("", stored, &known, new).to_string()
}

/// Of `stored` what is not in `known` stays; of what is known `new` counts.
fn merged(name: &str, stored: Value, known: &Value, new: Value) -> Value {
    if *known == new {
        return stored;
    }
    match (stored, known, new) {
        // Another stage, or a wait for somebody else, is another thing: what was said of the one before does not hold for it.
        (_, Value::Object(known), Value::Object(new))
            if name == "stage" && ["state", "for"].iter().any(|tag| known.get(*tag) != new.get(*tag)) =>
        {
            Value::Object(new)
        }
        (Value::Object(stored), Value::Object(known), Value::Object(mut new)) => {
            for (field, value) in stored {
                match (known.get(&field), new.remove(&field)) {
                    (Some(known), Some(becomes)) => {
                        let value = merged(&field, value, known, becomes);
                        new.insert(field, value);
                    }
                    (None, None) => {
                        new.insert(field, value);
                    }
                    // New in this version's words, and perhaps the default of it before.
                    (None, Some(becomes)) => {
                        new.insert(field, becomes);
                    }
                    // Known, and taken away.
                    (Some(_), None) => {}
                }
            }
            Value::Object(new)
        }
        (_, _, new) => new,
    }
}

/// What a claim read, as texts: what its commit writes back rests on them.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// The permission's record; empty if there is none.
    pub(super) record: String,
    progress: Mutex<HashMap<IntentId, String>>,
}

impl Texts {
    pub(super) fn new(record: String) -> Self {
        Self { record, progress: Mutex::default() }
    }

    pub(super) fn note(&self, id: &IntentId, progress: &str) {
        let mut texts = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        texts.insert(id.clone(), progress.to_owned());
    }

    /// A progress as it is to be stored.
    pub(super) fn progress<T: Serialize + DeserializeOwned>(&self, id: &IntentId, new: &T) -> String {
        let texts = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        texts.get(id).map_or_else(|| json!(new).to_string(), |stored| carried(stored, new))
    }
}

impl Store {
    /// Puts a permission off of which `key` was written by a later version; with the token of the lease, if one was taken.
    pub(super) async fn put_off(
        &self,
        permission: &ChargePermissionId,
        token: &str,
        key: &str,
    ) -> Result<(), StoreError> {
        let inner = &self.0;
        metrics::counter!(metric::NEWER_RECORDS).increment(1);
        let message = "records were written by a newer version of this service, and an older instance leaves them alone: end the \
                       upgrade, or do not go back behind the newer version while they are open";
        let event = Event::attention("newer_records", message, json!({ "chargePermissionId": permission }));
        let keys = [
            inner.keys.marker(),
            inner.keys.permission(permission),
            inner.keys.schedule(),
            inner.keys.events(),
            inner.keys.quota(),
            inner.keys.waiting(),
            inner.keys.tickets(),
        ];
        let args = [
            inner.source.as_str(),
            &self.now_text(),
            permission.as_str(),
            token,
            &millis(PUT_OFF_FOR).to_string(),
            event.kind,
            &event.data,
            &millis(TOLD_EVERY).to_string(),
        ];
        let reply = self.run(&PUT_OFF, &keys, &args).await?;
        match reply.outcome() {
            "told" => {
                warn!(%permission, key, "a newer version wrote this record: this instance leaves it alone; said once a day");
                Ok(())
            }
            "put_off" => Ok(()),
            _ => Err(reply.unexpected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::model::charge_intent::Progress;
    use crate::model::permission::PermissionRecord;

    #[test]
    fn a_version_is_known_missing_or_newer_and_nothing_else_is_guessed() {
        for known in [None, Some("0"), Some("1")] {
            assert!(check_version("k", known).is_ok(), "{known:?}");
        }
        for newer in ["2", "10", "18446744073709551616", "1.5", "v1", "", "-1"] {
            let error = check_version("k", Some(newer)).unwrap_err();
            assert!(matches!(&error, StoreError::Newer(key) if key == "k"), "{newer:?}: {error}");
        }
    }

    #[test]
    fn the_prelude_knows_the_same_version() {
        let line = format!("local known_version = {KNOWN_VERSION}\n");
        assert!(include_str!("lua/prelude.lua").contains(&line));
    }

    fn progress() -> Value {
        json!({
            "attempts": 1, "conflicts": 0, "monthParks": 0, "stoodStillMs": 0, "trigger": "schedule",
            "windowFrom": "2026-11-01T00:00:00Z",
            "stage": { "state": "scheduled", "at": "2026-11-02T00:00:00Z", "why": "attempt" },
        })
    }

    fn changed(stored: &Value, change: impl FnOnce(&mut Progress)) -> Value {
        let mut progress: Progress = serde_json::from_value(stored.clone()).unwrap();
        change(&mut progress);
        serde_json::from_str(&carried(&stored.to_string(), &progress)).unwrap()
    }

    #[test]
    fn unknown_fields_of_a_progress_are_kept_at_every_depth_and_known_ones_change() {
        let mut stored = progress();
        stored["risk"] = json!({ "score": 9_007_199_254_740_993_u64, "none": {}, "empty": [], "null": null });
        stored["stage"]["hint"] = json!("later");
        let after = changed(&stored, |progress| progress.attempts = 2);
        assert_eq!(after["attempts"], 2);
        assert_eq!((&after["risk"], &after["stage"]), (&stored["risk"], &stored["stage"]));
    }

    #[test]
    fn what_was_said_of_one_stage_does_not_become_a_word_about_the_next() {
        let mut stored = progress();
        stored["stage"]["hint"] = json!("later");
        stored["kept"] = json!(1);
        let held = json!({ "state": "held", "reason": "x" });
        let after = changed(&stored, |progress| progress.stage = serde_json::from_value(held.clone()).unwrap());
        assert_eq!((&after["stage"], &after["kept"]), (&held, &json!(1)));
        let later = json!({ "state": "scheduled", "at": "2026-11-03T00:00:00Z", "why": "attempt" });
        let after = changed(&stored, |progress| progress.stage = serde_json::from_value(later).unwrap());
        assert_eq!(after["stage"]["hint"], "later", "the same stage at another time");
        assert_eq!(after["stage"]["at"], "2026-11-03T00:00:00Z");
    }

    #[test]
    fn a_known_field_that_was_taken_away_stays_away() {
        let mut stored = progress();
        stored["lastReason"] = json!("SoftDeclined");
        stored["unknown"] = json!(true);
        let after = changed(&stored, |progress| progress.last_reason = None);
        assert_eq!(after.get("lastReason"), None);
        assert_eq!(after["unknown"], true);
    }

    #[test]
    fn a_record_of_a_permission_keeps_unknown_fields_of_itself_and_of_what_it_remembers() {
        let object =
            json!({ "seen": "RefundInitiated", "since": "2026-11-01T00:00:00Z", "settled": false, "later": [1] });
        let text = json!({ "state": "Chargeable", "reasons": [], "new": 1, "objects": { "REFUND:a": object } });
        let mut record: PermissionRecord = serde_json::from_value(text.clone()).unwrap();
        record.failed_looks = 3;
        record.state = Some("NonChargeable".into());
        record.objects.get_mut("REFUND:a").unwrap().seen = "Refunded".to_owned();
        let after: Value = serde_json::from_str(&carried(&text.to_string(), &record)).unwrap();
        assert_eq!(
            (&after["state"], &after["failedLooks"], &after["new"]),
            (&json!("NonChargeable"), &json!(3), &json!(1))
        );
        let object = &after["objects"]["REFUND:a"];
        assert_eq!((&object["seen"], &object["later"]), (&json!("Refunded"), &json!([1])));
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Small {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        a: Option<i64>,
        #[serde(default)]
        b: BTreeMap<String, i64>,
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[c-z]{1,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_unknown_is_kept_and_what_is_known_reads_as_it_was_written(
            before in (any::<Option<i64>>(), proptest::collection::btree_map("[a-z]{1,3}", any::<i64>(), 0..4)),
            after in (any::<Option<i64>>(), proptest::collection::btree_map("[a-z]{1,3}", any::<i64>(), 0..4)),
            unknown in proptest::collection::btree_map("[c-z]{2,6}", any_value(), 0..4),
        ) {
            let mut stored = json!(Small { a: before.0, b: before.1 });
            for (field, value) in &unknown {
                stored[field] = value.clone();
            }
            let new = Small { a: after.0, b: after.1 };
            let text = carried(&stored.to_string(), &new);
            let written: Value = serde_json::from_str(&text).unwrap();
            for (field, value) in &unknown {
                prop_assert_eq!(&written[field], value);
            }
            prop_assert_eq!(serde_json::from_str::<Small>(&text).unwrap(), new);
        }

        #[test]
        fn nothing_that_can_be_stored_makes_the_merge_fail(stored in ".{0,60}", a in any::<Option<i64>>()) {
            let new = Small { a, b: BTreeMap::new() };
            let text = carried(&stored, &new);
            prop_assert_eq!(serde_json::from_str::<Small>(&text).unwrap(), new);
        }
    }
}
