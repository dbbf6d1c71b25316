//! At a glance: is it healthy, what arrives, what waits and why, what was recovered and what that is worth, does Amazon throttle us.

use std::collections::{BTreeMap, HashMap};

use axum::extract::State;
use jiff::Timestamp;
use maud::{Markup, html};
use rust_decimal::Decimal;
use serde_json::Value;

use super::actions::Verb;
use super::chart::{Series, bars};
use super::figures::{Bar, Figures};
use super::layout::{button, charges_table, instant, page};
use super::lists::found;
use super::{Failed, Operator, PageState};
use crate::http::internal::ApiState;
use crate::http::problem::Problem;
use crate::http::readiness::{Health, health};
use crate::model::charge_intent::Stage;
use crate::model::quota::Operation;
use crate::store::events::EntryId;
use crate::store::lists::Filter;
use crate::store::quota::QuotaStatus;

/// Events that one look at the page reads at most; the next one goes on.
const EVENTS_PER_LOOK: usize = 20_000;
const BATCH: usize = 1_000;
/// Rows of what needs somebody.
const ROWS: usize = 8;
/// Colours of reasons, in order; what comes after shares the last.
const COLOURS: [&str; 4] = ["c3", "c4", "c5", "c6"];

/// The figures of the last days, and how far the event stream was read.
#[derive(Debug, Default)]
pub(super) struct Week {
    figures: Figures,
    next: Option<EntryId>,
    /// When the last event that was counted was written.
    until: Option<Timestamp>,
    /// Whether the end of the stream was reached.
    whole: bool,
}

impl Week {
    /// Reads on, so many events at most.
    async fn catch_up(&mut self, state: &ApiState, now: Timestamp) -> Result<(), Problem> {
        let store = &state.0.store;
        let begin = store.first_entry_at(Figures::begin(now));
        let mut next = self.next.map_or(begin, |next| next.max(begin));
        let mut read = 0;
        self.whole = false;
        while read < EVENTS_PER_LOOK {
            let batch = store.events_from(next, BATCH).await?;
            for event in &batch {
                let data: Value = serde_json::from_str(event.field("data")).unwrap_or_default();
                if let Ok(at) = event.field("time").parse() {
                    self.figures.count(event.field("type"), at, &data);
                }
            }
            if let Some(last) = batch.last() {
                next = last.entry.next();
                self.until = Some(store.written_at(last.entry));
            }
            self.next = Some(next);
            read += batch.len();
            if batch.len() < BATCH {
                self.whole = true;
                break;
            }
        }
        Ok(())
    }
}

/// `GET /operator`.
pub(super) async fn show(State(state): State<PageState>, operator: Operator) -> Result<Markup, Failed> {
    let (api, store) = (&state.api, &state.api.0.store);
    let now = api.0.clock.now();
    let health = health(api).await?;
    let counts = store.count_charges().await?;
    let levels = store.levels().await?;
    let quota = store.quota_status().await?;
    let arrivals = Figures::sums(&store.arrivals().await?, now);
    let (week, whole, until) = {
        let mut week = state.week.lock().await;
        week.catch_up(api, now).await?;
        (week.figures.week(now), week.whole, week.until)
    };
    let held = found(api, &Filter { state: Some("held"), ..Filter::default() }, ROWS, None).await?.0;
    let unverified = found(api, &Filter { unverified: true, ..Filter::default() }, ROWS, None).await?.0;
    let parked = found(api, &Filter { state: Some("parked"), ..Filter::default() }, ROWS, None).await?.0;
    let waiting = waiting(&counts, levels.quarantine);
    let arrived = health.account.since_notification.map_or_else(|| "never".to_owned(), ago);
    let recovered: u64 = week.iter().map(|(_, bar)| bar.recovered).sum();
    let body = html! {
        (banner(&operator, &health, &waiting))
        ul class="tiles" {
            (tile("last notification", &arrived, "/operator"))
            @for name in Stage::NAMES.into_iter().take(5) {
                (tile(name, &counts.get(name).copied().unwrap_or(0).to_string(), &format!("/operator/charges?state={name}")))
            }
            (tile("unverified ends", &counts.get("unverified").copied().unwrap_or(0).to_string(), "/operator/charges?unverified=yes"))
            (tile("quarantine", &levels.quarantine.to_string(), "/operator/quarantine"))
            (tile("recovered in 7 days", &recovered.to_string(), "/operator/charges?state=captured"))
            @for (currency, sum) in worth(&week) { (tile(&format!("recovered in 7 days, {currency}"), &sum.to_string(), "/operator/charges?state=captured")) }
        }
        section {
            @if !whole { p class="error" {
                "Counted up to " (until.map(instant).unwrap_or_default()) " UTC so far: what happened later is not in these figures yet."
            } }
            (notifications(&week, arrivals))
            (recoveries(&week))
            (declines(&week))
        }
        @if !held.is_empty() { section { h2 { "Held: a person must decide" } (charges_table(&held)) } }
        @if !unverified.is_empty() { section { h2 { "Ended, and nobody is sure" } (charges_table(&unverified)) } }
        section { h2 { "Parked: the buyer or a person must do something" } (charges_table(&parked)) }
        (throttling(&quota))
    };
    Ok(page(api, &operator, "Overview", &body))
}

fn tile(what: &str, value: &str, link: &str) -> Markup {
    html! { li { a href=(link) { b { (value) } span { (what) } } } }
}

/// Is it healthy? And the switch that stops everything.
fn banner(operator: &Operator, health: &Health, waiting: &[String]) -> Markup {
    let stopped = health.account.stopped_since;
    let fault = health.account.fault.is_some();
    let bad = !health.ready || stopped.is_some() || fault || health.account.recovering;
    let mut complaints: Vec<&str> = health.complaints.iter().map(String::as_str).collect();
    if health.account.recovering {
        complaints.push("a recovery after a loss is going on: charges of before are held (docs/ARCHITECTURE.md)");
    }
    complaints.extend(health.findings.iter().map(|finding| finding.found.as_str()));
    complaints.extend(waiting.iter().map(String::as_str));
    let class = match (bad, complaints.is_empty()) {
        (true, _) => "banner bad",
        (false, true) => "banner",
        (false, false) => "banner warn",
    };
    html! {
        section class=(class) role="status" {
            @if !health.ready { "Not ready: this instance does not take notifications" }
            @else if let Some(since) = stopped { "The stop switch is on since " (instant(since)) " UTC: no charge is sent" }
            @else if fault { "The account is at fault: Amazon refuses its calls, nothing is sent but probes" }
            @else if health.account.recovering { "A recovery after a loss is going on: charges are held" }
            @else if complaints.is_empty() { "All is well" }
            @else { "At work, and something needs attention" }
            @if !complaints.is_empty() { ul { @for complaint in &complaints { li { (complaint) } } } }
            div class="actions" {
                (button(operator, if stopped.is_some() { Verb::Lift } else { Verb::Stop }, ""))
                @if fault { (button(operator, Verb::Probe, "")) }
            }
        }
    }
}

/// What waits for a person.
fn waiting(counts: &HashMap<&'static str, u64>, quarantined: usize) -> Vec<String> {
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    let waiting = [
        (count("held"), "held: a person must resolve them"),
        (count("unverified"), "ended without certainty: look in Seller Central, then resolve them"),
        (u64::try_from(quarantined).unwrap_or(u64::MAX), "in quarantine"),
    ];
    waiting.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
}

fn ago(span: std::time::Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

fn worth(week: &[(Timestamp, Bar)]) -> BTreeMap<String, Decimal> {
    let mut sums: BTreeMap<String, Decimal> = BTreeMap::new();
    for (currency, amount) in week.iter().flat_map(|(_, bar)| &bar.money) {
        let sum = sums.entry(currency.clone()).or_default();
        *sum = sum.checked_add(*amount).unwrap_or(*sum);
    }
    sums
}

fn labels(week: &[(Timestamp, Bar)]) -> Vec<String> {
    week.iter().map(|(begins, _)| begins.strftime("%a %d %b %H:00").to_string()).collect()
}

fn notifications(week: &[(Timestamp, Bar)], arrived: Vec<u64>) -> Markup {
    let series = [Series { name: "stored".to_owned(), class: "c1", values: arrived }];
    bars("Notifications, 7 days", &labels(week), &series)
}

fn recoveries(week: &[(Timestamp, Bar)]) -> Markup {
    let values = |of: &dyn Fn(&Bar) -> u64| week.iter().map(|(_, bar)| of(bar)).collect();
    let series = [
        Series { name: "captured at once".to_owned(), class: "c1", values: values(&|bar| bar.at_once) },
        Series { name: "recovered".to_owned(), class: "c2", values: values(&|bar| bar.recovered) },
        Series { name: "given up".to_owned(), class: "c4", values: values(&|bar| bar.abandoned) },
    ];
    bars("Charges, 7 days", &labels(week), &series)
}

fn declines(week: &[(Timestamp, Bar)]) -> Markup {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, count) in week.iter().flat_map(|(_, bar)| &bar.declined) {
        *totals.entry(reason).or_default() += count;
    }
    let mut reasons: Vec<(&str, u64)> = totals.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let series: Vec<Series> = reasons
        .iter()
        .enumerate()
        .map(|(place, (reason, _))| Series {
            name: (*reason).to_owned(),
            class: COLOURS[place.min(COLOURS.len() - 1)],
            values: week.iter().map(|(_, bar)| bar.declined.get(*reason).copied().unwrap_or(0)).collect(),
        })
        .collect();
    bars("Declines by reason, 7 days", &labels(week), &series)
}

/// Does Amazon throttle us, and who waits for its quota?
fn throttling(quota: &QuotaStatus) -> Markup {
    let slow = |operation: &Operation| {
        let bucket = quota.bucket(*operation);
        bucket.factor_at(quota.now) < 1.0 || bucket.closed_until > quota.now
    };
    let slowed: Vec<Operation> = Operation::ALL.into_iter().filter(slow).collect();
    html! {
        section {
            h2 { "Amazon's quota" }
            p { @if slowed.is_empty() { "Amazon does not throttle us." } @else {
                "Slowed down after Amazon throttled: " (slowed.iter().map(|operation| operation.as_str()).collect::<Vec<_>>().join(", ")) "."
            } }
            p { (quota.waiting()) " charge permissions wait for calls that may be made." }
        }
    }
}
