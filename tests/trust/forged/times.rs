//! Messages out of their time, and times that are not written as SNS writes them. All of them are truly signed.
//!
//! The clock of the corpus stands still at 2026-03-06T20:00:00Z; messages may be 15 days old and 5 minutes early.

use amazon_pay_ipn::sns::Check;

use crate::case::Corpus;
use crate::message::{SUBSCRIPTION, UNSUBSCRIPTION};

pub(super) fn add(corpus: &mut Corpus<'_>) {
    corpus.family("stale");
    for (variant, at) in [
        ("by_a_millisecond", "2026-02-19T19:59:59.999Z"),
        ("by_a_day", "2026-02-18T20:00:00.000Z"),
        ("by_a_year", "2025-03-06T20:00:00.000Z"),
        ("epoch", "1970-01-01T00:00:00.000Z"),
        ("before_the_epoch", "1969-12-31T23:59:59.999Z"),
        ("year_zero", "0000-01-01T00:00:00.000Z"),
    ] {
        let message = corpus.notification(variant).with("Timestamp", at).signed();
        corpus.forbidden(variant, message.body(), Check::Timestamp);
    }
    for kind in [SUBSCRIPTION, UNSUBSCRIPTION] {
        let message = corpus.confirmation(kind, kind).with("Timestamp", "2026-02-19T19:59:59.999Z").signed();
        corpus.forbidden(kind, message.body(), Check::Timestamp);
    }

    corpus.family("future");
    for (variant, at) in [
        ("by_a_millisecond", "2026-03-06T20:05:00.001Z"),
        ("by_an_hour", "2026-03-06T21:00:00.000Z"),
        ("by_a_year", "2027-03-06T20:00:00.000Z"),
        ("last_year_there_is", "9999-12-30T00:00:00.000Z"),
    ] {
        let message = corpus.notification(variant).with("Timestamp", at).signed();
        corpus.unavailable(variant, message.body(), Check::Timestamp);
    }
    for kind in [SUBSCRIPTION, UNSUBSCRIPTION] {
        let message = corpus.confirmation(kind, kind).with("Timestamp", "2026-03-06T20:06:00.000Z").signed();
        corpus.unavailable(kind, message.body(), Check::Timestamp);
    }

    corpus.family("timestamp_form");
    for (variant, at) in [
        ("no_fraction", "2026-03-06T19:59:00Z"),
        ("one_digit", "2026-03-06T19:59:00.0Z"),
        ("microseconds", "2026-03-06T19:59:00.000000Z"),
        ("comma", "2026-03-06T19:59:00,000Z"),
        ("offset", "2026-03-06T19:59:00.000+00:00"),
        ("other_offset", "2026-03-06T20:59:00.000+01:00"),
        ("no_zone", "2026-03-06T19:59:00.000"),
        ("lower_case", "2026-03-06t19:59:00.000z"),
        ("space", "2026-03-06 19:59:00.000Z"),
        ("basic_form", "20260306T195900.000Z"),
        ("time_zone_name", "2026-03-06T19:59:00.000Z[UTC]"),
        ("http_date", "Fri, 06 Mar 2026 19:59:00 GMT"),
        ("seconds_since_1970", "1772827140"),
        ("milliseconds_since_1970", "1772827140000"),
        ("signed_year", "+2026-03-06T19:59:00.000Z"),
        ("six_digit_year", "+002026-03-06T19:59:00.000Z"),
        ("thirteenth_month", "2026-13-06T19:59:00.000Z"),
        ("thirtieth_of_february", "2026-02-30T19:59:00.000Z"),
        ("twenty_ninth_of_february", "2026-02-29T19:59:00.000Z"),
        ("hour_24", "2026-03-06T24:00:00.000Z"),
        ("minute_60", "2026-03-06T19:60:00.000Z"),
        ("leap_second", "2026-03-06T19:59:60.000Z"),
        ("space_before", " 2026-03-06T19:59:00.000Z"),
        ("space_after", "2026-03-06T19:59:00.000Z "),
        ("newline_after", "2026-03-06T19:59:00.000Z\n"),
        ("nul_after", "2026-03-06T19:59:00.000Z\0"),
        ("other_minus", "2026\u{2010}03\u{2010}06T19:59:00.000Z"),
        ("foreign_digits", "2026-03-06T19:59:00.00٠Z"),
        ("word", "now"),
    ] {
        let message = corpus.notification(variant).with("Timestamp", at).signed();
        corpus.malformed(variant, message.body(), Check::Envelope);
    }
}
