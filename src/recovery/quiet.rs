//! Quiet hours: a daily span, by the clock on the merchant's wall, in which the service does not try a charge of its own accord.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// A daily span of wall-clock time; it may cross midnight. Its start belongs to it, its end does not.
#[derive(Debug, Clone, PartialEq)]
pub struct QuietHours {
    /// The first quiet minute.
    pub from: Time,
    /// The first minute that is no longer quiet; never the same as `from`.
    pub to: Time,
    /// Whose clock.
    pub zone: TimeZone,
}

/// A zone that leaves out a whole night may need a second end; more than a few is no zone of this world.
const MAX_ENDS: usize = 4;

impl QuietHours {
    /// Whether it is quiet then.
    #[must_use]
    pub fn cover(&self, at: Timestamp) -> bool {
        let time = at.to_zoned(self.zone.clone()).time();
        if self.from < self.to { self.from <= time && time < self.to } else { self.from <= time || time < self.to }
    }

    /// When the quiet hours that cover this time end; `None` if it is not quiet then.
    ///
    /// Where the clock is put forward over the end, the end is later by as much. Where it is put back and the end comes twice, the
    /// first one counts; what is quiet by the clock afterwards ends at the second.
    #[must_use]
    pub fn end_after(&self, at: Timestamp) -> Option<Timestamp> {
        let mut end = at;
        for _ in 0..MAX_ENDS {
            if !self.cover(end) {
                break;
            }
            end = self.next_end(end)?;
        }
        (end > at && !self.cover(end)).then_some(end)
    }

    /// The next time at which the clock shows the end of the quiet hours.
    fn next_end(&self, after: Timestamp) -> Option<Timestamp> {
        let today = after.to_zoned(self.zone.clone()).date();
        let ends = [Some(today), today.checked_add(1.day()).ok()].into_iter().flatten().flat_map(|date| {
            let end = self.zone.to_ambiguous_zoned(DateTime::from_parts(date, self.to));
            [end.clone().earlier(), end.later()]
        });
        ends.flatten().map(|end| end.timestamp()).filter(|end| *end > after).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::draft::testing::at;

    fn quiet(span: &str, zone: &str) -> QuietHours {
        let (from, to) = span.split_once('-').unwrap();
        QuietHours { from: from.parse().unwrap(), to: to.parse().unwrap(), zone: TimeZone::get(zone).unwrap() }
    }

    fn end(span: &str, zone: &str, then: &str) -> Option<String> {
        quiet(span, zone).end_after(at(then)).map(|end| end.to_zoned(TimeZone::get(zone).unwrap()).to_string())
    }

    #[test]
    fn a_night_ends_in_the_morning_whichever_side_of_midnight_it_is_entered() {
        let night = |then| end("22:00-07:00", "Europe/Berlin", then);
        assert_eq!(night("2026-01-30T21:00:00Z").as_deref(), Some("2026-01-31T07:00:00+01:00[Europe/Berlin]"));
        assert_eq!(night("2026-01-31T03:12:00Z").as_deref(), Some("2026-01-31T07:00:00+01:00[Europe/Berlin]"));
        assert_eq!(night("2026-01-30T20:59:59Z"), None);
        assert_eq!(night("2026-01-31T06:00:00Z"), None, "the end is no longer quiet");
    }

    #[test]
    fn a_span_within_a_day_ends_on_that_day() {
        let noon = |then| end("12:00-14:30", "UTC", then);
        assert_eq!(noon("2026-01-30T12:00:00Z").as_deref(), Some("2026-01-30T14:30:00+00:00[UTC]"));
        assert_eq!(noon("2026-01-30T11:59:59.999Z"), None);
        assert_eq!(noon("2026-01-30T14:30:00Z"), None);
    }

    #[test]
    fn a_night_in_which_the_clock_changes_ends_by_the_clock_on_the_wall() {
        let berlin = |then| end("22:00-07:00", "Europe/Berlin", then);
        assert_eq!(berlin("2026-03-28T22:00:00Z").as_deref(), Some("2026-03-29T07:00:00+02:00[Europe/Berlin]"));
        assert_eq!(berlin("2026-10-24T22:00:00Z").as_deref(), Some("2026-10-25T07:00:00+01:00[Europe/Berlin]"));
    }

    #[test]
    fn an_end_that_the_clock_jumps_over_is_later_by_as_much() {
        let end = end("22:00-02:30", "Europe/Berlin", "2026-03-29T00:30:00Z");
        assert_eq!(end.as_deref(), Some("2026-03-29T03:30:00+02:00[Europe/Berlin]"));
    }

    #[test]
    fn an_end_that_comes_twice_ends_the_quiet_hours_each_time() {
        let berlin = |then| end("22:00-02:30", "Europe/Berlin", then);
        assert_eq!(berlin("2026-10-25T00:10:00Z").as_deref(), Some("2026-10-25T02:30:00+02:00[Europe/Berlin]"));
        assert_eq!(berlin("2026-10-25T00:45:00Z"), None, "between the two ends");
        assert_eq!(berlin("2026-10-25T01:10:00Z").as_deref(), Some("2026-10-25T02:30:00+01:00[Europe/Berlin]"));
    }

    #[test]
    fn quiet_hours_whose_only_pause_falls_into_the_jump_end_a_day_later() {
        let end = end("03:00-02:30", "Europe/Berlin", "2026-03-28T12:00:00Z");
        assert_eq!(end.as_deref(), Some("2026-03-30T02:30:00+02:00[Europe/Berlin]"));
    }

    #[test]
    fn a_day_that_a_country_left_out_is_no_trouble() {
        let end = end("22:00-07:00", "Pacific/Apia", "2011-12-30T09:00:00Z");
        assert_eq!(end.as_deref(), Some("2011-12-31T07:00:00+14:00[Pacific/Apia]"));
    }

    #[test]
    fn the_ends_of_time_are_no_trouble() {
        for then in [Timestamp::MIN, Timestamp::MAX] {
            for span in ["22:00-07:00", "00:00-23:59", "07:00-06:59"] {
                let quiet = quiet(span, "Europe/Berlin");
                assert!(quiet.end_after(then).is_none_or(|end| end > then && !quiet.cover(end)));
            }
        }
    }
}
