//! What was recovered, declined and charged over the last days, counted from the event stream. A fold over events, without I/O; the page
//! feeds it when somebody looks, so that nobody who does not look pays for it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;

use crate::model::charge_intent::Trigger;
use crate::recovery::tally::is_recovered;

/// Seconds of a bar.
pub(super) const BAR_SECONDS: i64 = 3 * 3600;
/// A week.
pub(super) const BARS: usize = 56;
/// Reasons that are told apart; the others are one.
const REASONS: usize = 12;
const OTHER: &str = "other";

/// What happened in the time of one bar.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bar {
    /// Captured at the first attempt.
    pub(super) at_once: u64,
    /// Captured after a decline or a refusal.
    pub(super) recovered: u64,
    /// What that is worth, by currency.
    pub(super) money: BTreeMap<String, Decimal>,
    /// Declines by reason.
    pub(super) declined: BTreeMap<String, u64>,
    /// Given up.
    pub(super) abandoned: u64,
}

/// A week of bars.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    bars: BTreeMap<i64, Bar>,
    reasons: BTreeSet<String>,
}

impl Figures {
    /// The time from which on events count, at `now`.
    pub(super) fn begin(now: Timestamp) -> Timestamp {
        let bars = i64::try_from(BARS).unwrap_or(0);
        Timestamp::from_second((bar_of(now) + 1 - bars).saturating_mul(BAR_SECONDS)).unwrap_or(now)
    }

    /// Counts one event.
    pub(super) fn count(&mut self, kind: &str, at: Timestamp, data: &Value) {
        let text = |name: &str| data.get(name).and_then(Value::as_str);
        let bar = self.bars.entry(bar_of(at)).or_default();
        match kind {
            "amazonpay.charge.captured.v1" => {
                let attempts = data.get("attempts").and_then(Value::as_u64).unwrap_or(1);
                let by =
                    data.get("recoveredBy").and_then(|by| Trigger::deserialize(by).ok()).unwrap_or(Trigger::Submit);
                if !is_recovered(attempts, by) {
                    bar.at_once += 1;
                    return;
                }
                bar.recovered += 1;
                let money = data.get("captureAmount").filter(|money| money.is_object());
                let money = money.or_else(|| data.get("chargeAmount"));
                let part = |name: &str| money.and_then(|money| money.get(name)).and_then(Value::as_str);
                if let (Some(Ok(amount)), Some(currency)) =
                    (part("amount").map(str::parse::<Decimal>), part("currencyCode"))
                {
                    let sum = bar.money.entry(currency.to_owned()).or_default();
                    *sum = sum.checked_add(amount).unwrap_or(*sum);
                }
            }
            "amazonpay.charge.declined.v1" => {
                let reason = limited(&mut self.reasons, text("reasonCode").unwrap_or(OTHER));
                *bar.declined.entry(reason).or_default() += 1;
            }
            "amazonpay.charge.abandoned.v1" => bar.abandoned += 1,
            _ => {}
        }
    }

    /// Sums what came in each hour into the same bars.
    pub(super) fn sums(hours: &[(Timestamp, u64)], now: Timestamp) -> Vec<u64> {
        let last = bar_of(now);
        let first = last + 1 - i64::try_from(BARS).unwrap_or(0);
        let of = |bar: i64| hours.iter().filter(|(begins, _)| bar_of(*begins) == bar).map(|(_, count)| count).sum();
        (first..=last).map(of).collect()
    }

    /// The bars of the week that ends at `now`, each with the time it begins; forgets what is older.
    pub(super) fn week(&mut self, now: Timestamp) -> Vec<(Timestamp, Bar)> {
        let last = bar_of(now);
        let first = last + 1 - i64::try_from(BARS).unwrap_or(0);
        self.bars.retain(|bar, _| *bar >= first);
        // A reason that is not seen any more makes room for another.
        let seen: BTreeSet<&String> = self.bars.values().flat_map(|bar| bar.declined.keys()).collect();
        self.reasons.retain(|reason| seen.contains(reason));
        let time = |bar: i64| Timestamp::from_second(bar.saturating_mul(BAR_SECONDS)).unwrap_or(now);
        (first..=last).map(|bar| (time(bar), self.bars.get(&bar).cloned().unwrap_or_default())).collect()
    }
}

fn bar_of(at: Timestamp) -> i64 {
    at.as_second().div_euclid(BAR_SECONDS)
}

/// A reason is text from outside: only so many are told apart.
fn limited(known: &mut BTreeSet<String>, reason: &str) -> String {
    if known.contains(reason) {
        return reason.to_owned();
    }
    if known.len() >= REASONS || reason.len() > 60 {
        return OTHER.to_owned();
    }
    known.insert(reason.to_owned());
    reason.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn captured(attempts: u64, amount: &str) -> Value {
        let by = if attempts > 1 { "schedule" } else { "submit" };
        json!({ "attempts": attempts, "recoveredBy": by, "chargeAmount": { "amount": amount, "currencyCode": "USD" } })
    }

    #[test]
    fn what_came_back_after_a_decline_is_recovered_and_summed_as_decimals() {
        let mut figures = Figures::default();
        let now = at("2026-01-30T10:00:00Z");
        figures.count("amazonpay.charge.captured.v1", now, &captured(1, "14.00"));
        figures.count("amazonpay.charge.captured.v1", now, &captured(3, "0.10"));
        figures.count("amazonpay.charge.captured.v1", now, &captured(2, "0.20"));
        figures.count("amazonpay.charge.declined.v1", now, &json!({ "reasonCode": "SoftDeclined" }));
        figures.count("amazonpay.charge.abandoned.v1", now, &json!({}));
        let week = figures.week(now);
        let (begins, bar) = week.last().expect("bars");
        assert_eq!(*begins, at("2026-01-30T09:00:00Z"));
        assert_eq!((bar.at_once, bar.abandoned), (1, 1));
        assert_eq!(bar.recovered, 2);
        assert_eq!(bar.money["USD"].to_string(), "0.30");
        assert_eq!(bar.declined, BTreeMap::from([("SoftDeclined".to_owned(), 1)]));
    }

    #[test]
    fn what_waited_for_the_next_month_is_recovered_although_a_refusal_is_no_attempt() {
        let mut figures = Figures::default();
        let now = at("2026-02-01T10:00:00Z");
        for (by, attempts) in [("new_month", 1), ("submit", 1), ("operator", 1), ("operator", 2)] {
            let mut data = captured(attempts, "14.00");
            data["recoveredBy"] = json!(by);
            figures.count("amazonpay.charge.captured.v1", now, &data);
        }
        let week = figures.week(now);
        let bar = &week.last().expect("bars").1;
        assert_eq!((bar.at_once, bar.recovered, bar.money["USD"].to_string().as_str()), (2, 2, "28.00"));
    }

    #[test]
    fn a_week_is_kept_and_what_is_older_is_forgotten() {
        let mut figures = Figures::default();
        let old = at("2026-01-01T00:00:00Z");
        figures.count("amazonpay.charge.abandoned.v1", old, &json!({}));
        let week = figures.week(at("2026-01-30T10:00:00Z"));
        assert_eq!((week.len(), week[0].0), (BARS, Figures::begin(at("2026-01-30T10:00:00Z"))));
        assert!(week.iter().all(|(_, bar)| *bar == Bar::default()) && figures.bars.is_empty());
    }

    #[test]
    fn what_came_in_three_hours_is_one_bar() {
        let hours = ["2026-01-30T08:00:00Z", "2026-01-30T09:00:00Z", "2026-01-30T11:00:00Z", "2026-01-01T00:00:00Z"];
        let hours = hours.map(|begins| (at(begins), 2));
        let sums = Figures::sums(&hours, at("2026-01-30T11:59:00Z"));
        assert_eq!((sums.len(), &sums[BARS - 2..]), (BARS, [2, 4].as_slice()));
        assert_eq!(sums.iter().sum::<u64>(), 6, "what is older is not shown");
    }

    #[test]
    fn reasons_without_end_become_one() {
        let mut figures = Figures::default();
        let now = at("2026-01-30T10:00:00Z");
        for number in 0..100 {
            let data = json!({ "reasonCode": format!("Reason{number}") });
            figures.count("amazonpay.charge.declined.v1", now, &data);
        }
        let week = figures.week(now);
        let declined = &week.last().expect("bars").1.declined;
        assert_eq!((declined.len(), declined[OTHER]), (REASONS + 1, 100 - REASONS as u64));
    }
}
