//! How far each consumer group of the events has come, for `/metrics`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::Store;
use crate::telemetry::metric;

/// The gauges of the groups. Clones share what was shown.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupGauges(Arc<Mutex<BTreeSet<String>>>);

impl GroupGauges {
    /// Sets the gauges; those of groups that are gone to 0, or they would stay as they were.
    pub(super) async fn gauge(&self, store: &Store) {
        let Ok(groups) = store.event_groups().await else { return };
        let names: BTreeSet<String> = groups.iter().map(|group| group.name.clone()).collect();
        let gone: Vec<String> = {
            let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let gone = shown.difference(&names).cloned().collect();
            *shown = names;
            gone
        };
        for name in gone {
            for gauge in [metric::CONSUMER_LAG, metric::CONSUMER_PENDING, metric::CONSUMER_BEHIND_SECONDS] {
                metrics::gauge!(gauge, "group" => name.clone()).set(0.0);
            }
        }
        for group in groups {
            #[expect(clippy::cast_precision_loss, reason = "counts of events and seconds are far below 2^52")]
            let (unread, pending, behind) =
                (group.unread.map(|unread| unread as f64), group.pending as f64, group.behind_s as f64);
            if let Some(unread) = unread {
                metrics::gauge!(metric::CONSUMER_LAG, "group" => group.name.clone()).set(unread);
            }
            metrics::gauge!(metric::CONSUMER_PENDING, "group" => group.name.clone()).set(pending);
            metrics::gauge!(metric::CONSUMER_BEHIND_SECONDS, "group" => group.name).set(behind);
        }
    }
}
