//! How many messages came in each hour of the last week, for the operator page.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::script::NOTE_ARRIVALS;
use super::{Store, StoreError};

/// A week, and the hour that is going on.
const HOURS: i64 = 7 * 24 + 1;
const HOUR_SECONDS: i64 = 3600;

impl Store {
    /// Notes how many messages were taken so far; to be called at least once an hour.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn note_arrivals(&self) -> Result<(), StoreError> {
        let keys = &self.0.keys;
        let keys = [keys.marker(), keys.journal(), keys.arrivals()];
        let reply = self.run(&NOTE_ARRIVALS, &keys, &[&HOURS.to_string()]).await?;
        if reply.outcome() == "noted" { Ok(()) } else { Err(reply.unexpected()) }
    }

    /// How many messages were taken in each hour of the last week, by when the hour begins. What came while nobody noted is in the hour of
    /// the next note; hours without any are left out.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn arrivals(&self) -> Result<Vec<(Timestamp, u64)>, StoreError> {
        let noted: BTreeMap<String, String> =
            redis::cmd("HGETALL").arg(self.0.keys.arrivals()).query_async(&mut self.0.connection.handle()).await?;
        Ok(by_hour(&noted))
    }
}

/// The differences between one note and the next.
fn by_hour(noted: &BTreeMap<String, String>) -> Vec<(Timestamp, u64)> {
    let mut before = noted.get("from").and_then(|added| added.parse().ok()).unwrap_or(0);
    let hours: BTreeMap<i64, u64> =
        noted.iter().filter_map(|(hour, added)| Some((hour.parse().ok()?, added.parse().ok()?))).collect();
    let mut came = Vec::new();
    for (hour, added) in hours {
        // Fewer than before: the journal was made anew.
        let count = added.checked_sub(before).unwrap_or(added);
        before = added;
        if let Ok(begins) = Timestamp::from_second(hour.saturating_mul(HOUR_SECONDS))
            && count > 0
        {
            came.push((begins, count));
        }
    }
    came
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_in_an_hour_is_what_was_added_since_the_note_before() {
        let noted = [("from", 5), ("9", 7), ("10", 7), ("12", 20), ("13", 3), ("14", 4), ("of a later version", 100)];
        let noted = noted.map(|(field, added)| (field.to_owned(), added.to_string())).into();
        let begins = |hour: i64| Timestamp::from_second(hour * HOUR_SECONDS).unwrap();
        let came = [(begins(9), 2), (begins(12), 13), (begins(13), 3), (begins(14), 1)];
        assert_eq!(by_hour(&noted), came);
        assert_eq!(by_hour(&BTreeMap::new()), []);
    }
}
