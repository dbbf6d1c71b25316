//! The policy file (`RECOVERY_POLICY_FILE`): from TOML to policies, each mistake with its path in the file, all of them at once.
//!
//! ```toml
//! [default]
//! window = "21d"
//! [policies.gentle.soft_declined]
//! schedule = ["2d", "5d", "10d"]
//! ```
//!
//! A policy states what differs: a named one from `[default]`, and that from the numbers of [`Policy::for_region`].

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use toml::{Table, Value};

use crate::model::ids::PolicyName;
use crate::recovery::policies::{DEFAULT, Policies};
use crate::recovery::policy::{Jitter, Policy, Retries};
use crate::recovery::quiet::QuietHours;

/// The largest policy file.
pub(super) const MAX_BYTES: u64 = 64 * 1024;
const MAX_POLICIES: usize = 50;
const MAX_WAITS: usize = 20;
/// Of a wrong value so much is shown.
const MAX_SHOWN_CHARS: usize = 80;

const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);
const WAIT: Bounds = Bounds { least: MINUTE, most: Duration::from_hours(60 * 24), text: "1m to 60d" };
const WINDOW: Bounds = Bounds { least: DAY, most: Duration::from_hours(90 * 24), text: "1d to 90d" };
const ATTEMPTS: RangeInclusive<u32> = 1..=20;
const JITTER_CAP: Bounds = Bounds { least: Duration::ZERO, most: DAY, text: "0s to 1d" };
const MONTH_PARKS: RangeInclusive<u32> = 0..=12;
const MONTH_SPREAD: Bounds = Bounds { least: Duration::ZERO, most: Duration::from_hours(3 * 24), text: "0s to 3d" };

/// What a duration may be.
#[derive(Clone, Copy)]
struct Bounds {
    least: Duration,
    most: Duration,
    text: &'static str,
}

/// What a policy may state, for the message about what it may not.
const POLICY_KEYS: &str = "max_attempts, window, quiet_hours, time_zone, jitter, soft_declined, processing_failure, \
                           hard_declined, month";

/// One mistake in a policy file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FileMistake {
    /// Where, such as `policies.gentle.soft_declined.schedule[2]`, or `line 3`.
    pub path: String,
    /// What was expected, and what was found.
    pub message: String,
}

/// Reads the text of a policy file. What it does not state is as in `base`.
///
/// # Errors
/// All mistakes at once.
pub(super) fn parse(text: &str, base: &Policy) -> Result<Policies, Vec<FileMistake>> {
    let table: Table = text.parse().map_err(|error| vec![not_toml(text, &error)])?;
    let mut reader = FileReader { mistakes: Vec::new() };
    let policies = reader.file(&table, base);
    if reader.mistakes.is_empty() { Ok(policies) } else { Err(reader.mistakes) }
}

fn not_toml(text: &str, error: &toml::de::Error) -> FileMistake {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    FileMistake { path: format!("line {line}"), message: format!("is no TOML: {}", error.message()) }
}

/// A daily span of time, not yet in a zone.
type Span = (Time, Time);

struct FileReader {
    mistakes: Vec<FileMistake>,
}

impl FileReader {
    fn mistake(&mut self, path: &str, message: impl Into<String>) {
        self.mistakes.push(FileMistake { path: path.to_owned(), message: message.into() });
    }

    fn wrong(&mut self, path: &str, expected: impl fmt::Display, got: &Value) {
        self.mistake(path, format!("expected {expected}, got {}", shown(got)));
    }

    fn file(&mut self, file: &Table, base: &Policy) -> Policies {
        let mut default = base.clone();
        let mut spans = Inherited { quiet: None, whole: true };
        let mut named = BTreeMap::new();
        for (key, value) in file {
            match (key.as_str(), value) {
                (DEFAULT, Value::Table(stated)) => spans = self.policy(DEFAULT, stated, &mut default, spans),
                ("policies", Value::Table(_)) => {}
                (DEFAULT | "policies", _) => self.wrong(key, "a table", value),
                _ => self.mistake(&part(key), "is not known; expected default or policies"),
            }
        }
        let stated = file.get("policies").and_then(Value::as_table);
        let many = stated.map_or(0, Table::len);
        if many > MAX_POLICIES {
            self.mistake("policies", format!("expected at most {MAX_POLICIES}, got {many}"));
            return Policies::from(default);
        }
        for (name, value) in stated.into_iter().flatten() {
            let path = format!("policies.{}", part(name));
            let parsed = name.parse::<PolicyName>();
            match &parsed {
                Err(error) => self.mistake(&path, error.to_string()),
                Ok(_) if name == DEFAULT => self.mistake(&path, "is taken: charges without a policy go by [default]"),
                Ok(_) => {}
            }
            let mut policy = default.clone();
            match value {
                Value::Table(stated) => _ = self.policy(&path, stated, &mut policy, spans),
                other => self.wrong(&path, "a table", other),
            }
            if let Ok(name) = parsed {
                named.insert(name, policy);
            }
        }
        Policies::new(default, named)
    }

    /// Reads one policy over what it inherits; returns what others inherit from it.
    fn policy(&mut self, path: &str, stated: &Table, policy: &mut Policy, inherited: Inherited) -> Inherited {
        let mut quiet = inherited.quiet;
        for (key, value) in stated {
            let path = format!("{path}.{}", part(key));
            match key.as_str() {
                "max_attempts" => self.set(&mut policy.max_attempts, Self::whole(ATTEMPTS), &path, value),
                "window" => self.set(&mut policy.window, Self::span(WINDOW), &path, value),
                "quiet_hours" => self.set(&mut quiet, Self::quiet_hours, &path, value),
                "time_zone" => {
                    let mut zone = None;
                    self.set(&mut zone, Self::zone, &path, value);
                    policy.time_zone = zone.or(policy.time_zone.take());
                }
                "jitter" => self.jitter(&path, value, &mut policy.jitter),
                "soft_declined" => self.retries(&path, value, &mut policy.soft),
                "processing_failure" => self.retries(&path, value, &mut policy.failure),
                "hard_declined" => self.hard_declined(&path, value, policy),
                "month" => self.month(&path, value, policy),
                _ => self.mistake(&path, format!("is not known; expected one of {POLICY_KEYS}")),
            }
        }
        self.reminders_within(path, stated, policy);
        let states_them = stated.contains_key("quiet_hours") || stated.contains_key("time_zone");
        let whole = quiet.is_none() || policy.time_zone.is_some() || stated.contains_key("time_zone");
        // What is wrong with the default is not said again of each that inherits it.
        if !whole && (states_them || inherited.whole) {
            self.mistake(&format!("{path}.quiet_hours"), "need a time_zone, here or in [default]");
        }
        policy.quiet = quiet.zip(policy.time_zone.clone()).map(|((from, to), zone)| QuietHours { from, to, zone });
        Inherited { quiet, whole }
    }

    fn retries(&mut self, path: &str, value: &Value, retries: &mut Retries) {
        let Some(stated) = self.table(path, value) else { return };
        for (key, value) in stated {
            let path = format!("{path}.{}", part(key));
            match key.as_str() {
                "schedule" => self.schedule(&path, value, &mut retries.schedule),
                "max_attempts" => self.set_some(&mut retries.max_attempts, Self::whole(ATTEMPTS), &path, value),
                "window" => self.set_some(&mut retries.window, Self::span(WINDOW), &path, value),
                _ => self.mistake(&path, "is not known; expected one of schedule, max_attempts, window"),
            }
        }
    }

    fn hard_declined(&mut self, path: &str, value: &Value, policy: &mut Policy) {
        let Some(stated) = self.table(path, value) else { return };
        for (key, value) in stated {
            let path = format!("{path}.{}", part(key));
            match key.as_str() {
                "window" => self.set_some(&mut policy.hard_window, Self::span(WINDOW), &path, value),
                "reminders" => self.reminders(&path, value, &mut policy.reminders),
                "schedule" | "max_attempts" => self.mistake(
                    &path,
                    "does not exist here: a hard decline waits for the buyer; expected window or reminders",
                ),
                _ => self.mistake(&path, "is not known; expected window or reminders"),
            }
        }
    }

    /// Each is later than the one before; an empty list is none.
    fn reminders(&mut self, path: &str, value: &Value, reminders: &mut Vec<Duration>) {
        match value {
            Value::Array(waits) if waits.is_empty() => reminders.clear(),
            Value::Array(waits) if waits.len() > MAX_WAITS => {
                self.mistake(path, format!("expected at most {MAX_WAITS} durations, got {}", waits.len()));
            }
            _ => self.schedule(path, value, reminders),
        }
        if let Some(index) = reminders.windows(2).position(|pair| pair[0] >= pair[1]) {
            self.mistake(&format!("{path}[{}]", index + 1), "expected a later time than the one before");
        }
    }

    /// What is stated of reminders must be within the time that is waited for the buyer, which may be stated after them. Inherited ones
    /// that are not are left out.
    fn reminders_within(&mut self, path: &str, stated: &Table, policy: &Policy) {
        let stated = stated.get("hard_declined").and_then(Value::as_table);
        if !stated.is_some_and(|stated| stated.contains_key("reminders")) {
            return;
        }
        let most = policy.hard_window.map_or(policy.window, |window| window.min(policy.window));
        if let Some(index) = policy.reminders.iter().position(|wait| *wait >= most) {
            let most = humantime::format_duration(most);
            self.mistake(
                &format!("{path}.hard_declined.reminders[{index}]"),
                format!("expected less than {most}, for which the buyer is waited for"),
            );
        }
    }

    fn jitter(&mut self, path: &str, value: &Value, jitter: &mut Jitter) {
        let Some(stated) = self.table(path, value) else { return };
        for (key, value) in stated {
            let path = format!("{path}.{}", part(key));
            match key.as_str() {
                "percent" => self.set(&mut jitter.percent, Self::whole(0..=100), &path, value),
                "cap" => self.set(&mut jitter.cap, Self::span(JITTER_CAP), &path, value),
                _ => self.mistake(&path, "is not known; expected percent or cap"),
            }
        }
    }

    fn month(&mut self, path: &str, value: &Value, policy: &mut Policy) {
        let Some(stated) = self.table(path, value) else { return };
        for (key, value) in stated {
            let path = format!("{path}.{}", part(key));
            match key.as_str() {
                "max_parks" => self.set(&mut policy.max_month_parks, Self::whole(MONTH_PARKS), &path, value),
                "spread" => self.set(&mut policy.month_spread, Self::span(MONTH_SPREAD), &path, value),
                _ => self.mistake(&path, "is not known; expected max_parks or spread"),
            }
        }
    }

    fn schedule(&mut self, path: &str, value: &Value, schedule: &mut Vec<Duration>) {
        match value {
            Value::Array(waits) if (1..=MAX_WAITS).contains(&waits.len()) => {
                *schedule = Vec::with_capacity(waits.len());
                for (index, wait) in waits.iter().enumerate() {
                    if let Some(wait) = self.read(Self::span(WAIT), &format!("{path}[{index}]"), wait) {
                        schedule.push(wait);
                    }
                }
            }
            Value::Array(waits) => {
                self.mistake(path, format!("expected 1 to {MAX_WAITS} durations, got {}", waits.len()));
            }
            other => self.wrong(path, "a list of durations such as [\"1d\", \"3d\"]", other),
        }
    }

    fn table<'a>(&mut self, path: &str, value: &'a Value) -> Option<&'a Table> {
        let table = value.as_table();
        if table.is_none() {
            self.wrong(path, "a table", value);
        }
        table
    }

    fn set<T>(&mut self, place: &mut T, form: impl Fn(&Value) -> Result<T, String>, path: &str, value: &Value) {
        if let Some(read) = self.read(form, path, value) {
            *place = read;
        }
    }

    fn set_some<T>(
        &mut self,
        place: &mut Option<T>,
        form: impl Fn(&Value) -> Result<T, String>,
        path: &str,
        value: &Value,
    ) {
        *place = self.read(form, path, value).or(place.take());
    }

    /// Reads a value of a form, which says what it expected if that was not it.
    fn read<T>(&mut self, form: impl Fn(&Value) -> Result<T, String>, path: &str, value: &Value) -> Option<T> {
        form(value).map_err(|expected| self.wrong(path, expected, value)).ok()
    }

    fn whole(bounds: RangeInclusive<u32>) -> impl Fn(&Value) -> Result<u32, String> {
        move |value| {
            let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
            number
                .filter(|number| bounds.contains(number))
                .ok_or_else(|| format!("a number from {} to {}", bounds.start(), bounds.end()))
        }
    }

    fn span(bounds: Bounds) -> impl Fn(&Value) -> Result<Duration, String> {
        move |value| {
            let span = value.as_str().and_then(duration).ok_or("a duration such as 3d")?;
            if (bounds.least..=bounds.most).contains(&span) { Ok(span) } else { Err(bounds.text.to_owned()) }
        }
    }

    fn zone(value: &Value) -> Result<Option<TimeZone>, String> {
        let zone = value.as_str().and_then(|name| TimeZone::get(name).ok());
        zone.map(Some).ok_or_else(|| "an IANA time zone such as Europe/Berlin".to_owned())
    }

    /// `none` takes back what would be inherited.
    fn quiet_hours(value: &Value) -> Result<Option<Span>, String> {
        let expected = || "a span of less than a day such as 22:00-07:00, or none".to_owned();
        let text = value.as_str().ok_or_else(expected)?;
        if text == "none" {
            return Ok(None);
        }
        let span = text.split_once('-').and_then(|(from, to)| Some((time(from)?, time(to)?)));
        span.filter(|(from, to)| from != to).map(Some).ok_or_else(expected)
    }
}

/// What a named policy finds in the default one, besides its values.
#[derive(Clone, Copy)]
struct Inherited {
    quiet: Option<Span>,
    /// Whether the quiet hours have a zone, if there are any.
    whole: bool,
}

/// `HH:MM`, to the minute.
fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.trim().split_once(':')?;
    let two = |digits: &str| digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !two(hour) || !two(minute) {
        return None;
    }
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

/// Only the units that mean the same everywhere: in `humantime` 1M is a month and 1y a year, and 1ms far too short.
fn duration(text: &str) -> Option<Duration> {
    let units = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let known = units.clone().all(|unit| ["s", "m", "h", "d", "w"].contains(&unit));
    known.then(|| humantime::parse_duration(text).ok()).flatten()
}

/// A key as it stands in a path: what is no bare key is quoted.
fn part(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    let key: String = key.chars().take(MAX_SHOWN_CHARS).collect();
    if bare { key } else { format!("{key:?}") }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", text.chars().take(MAX_SHOWN_CHARS).collect::<String>()),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(yes) => yes.to_string(),
        Value::Datetime(_) => "a date".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ids::Region;

    const HOUR: Duration = Duration::from_hours(1);

    fn base() -> Policy {
        Policy::for_region(Region::Na)
    }

    fn read(text: &str) -> Policies {
        parse(text, &base()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
    }

    fn named(policies: &Policies, name: &str) -> Policy {
        policies.get(&name.parse().unwrap()).unwrap().clone()
    }

    fn wrong(text: &str) -> Vec<String> {
        match parse(text, &base()) {
            Ok(_) => vec![],
            Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_file_that_states_nothing_is_the_policy_without_a_file() {
        for text in ["", "# nothing\n", "[default]\n", "[default.soft_declined]\n[policies]\n"] {
            assert_eq!(read(text), Policies::from(base()), "{text}");
        }
    }

    #[test]
    fn everything_that_can_be_set_is_set() {
        let policies = read(
            r#"
            [default]
            max_attempts = 9
            window = "3w"
            quiet_hours = "22:00-07:00"
            time_zone = "Europe/Berlin"
            jitter = { percent = 25, cap = "30m" }
            soft_declined = { schedule = ["1d", "1d 12h"], max_attempts = 4, window = "10d" }
            processing_failure = { schedule = ["20m"], max_attempts = 6, window = "2d" }
            hard_declined = { window = "14d", reminders = ["2d", "1w"] }
            month = { max_parks = 1, spread = "0s" }
            "#,
        );
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let quiet =
            QuietHours { from: Time::constant(22, 0, 0, 0), to: Time::constant(7, 0, 0, 0), zone: zone.clone() };
        let expected = Policy {
            max_attempts: 9,
            window: 21 * DAY,
            quiet: Some(quiet),
            time_zone: Some(zone),
            jitter: Jitter { percent: 25, cap: HOUR / 2 },
            soft: Retries { schedule: vec![DAY, 36 * HOUR], max_attempts: Some(4), window: Some(10 * DAY) },
            failure: Retries { schedule: vec![20 * MINUTE], max_attempts: Some(6), window: Some(2 * DAY) },
            hard_window: Some(14 * DAY),
            reminders: vec![2 * DAY, 7 * DAY],
            max_month_parks: 1,
            month_spread: Duration::ZERO,
            ..base()
        };
        assert_eq!(*policies.default_policy(), expected);
    }

    #[test]
    fn a_named_policy_inherits_from_the_default_one_wherever_it_stands_in_the_file() {
        let policies = read(
            r#"
            [policies.gentle.soft_declined]
            schedule = ["5d"]
            [policies.loud]
            quiet_hours = "none"
            [policies.east]
            time_zone = "Asia/Tokyo"
            [default]
            max_attempts = 3
            quiet_hours = "21:30-08:00"
            time_zone = "Europe/Berlin"
            soft_declined.window = "12d"
            "#,
        );
        let (gentle, loud, east) = (named(&policies, "gentle"), named(&policies, "loud"), named(&policies, "east"));
        assert_eq!((gentle.max_attempts, &gentle.quiet), (3, &policies.default_policy().quiet));
        assert_eq!(gentle.soft.schedule, [5 * DAY]);
        assert_eq!(gentle.soft.window, Some(12 * DAY));
        assert_eq!(gentle.failure, base().failure);
        assert!(loud.quiet.is_none() && loud.time_zone.is_some());
        assert_eq!(east.quiet.unwrap().zone, TimeZone::get("Asia/Tokyo").unwrap());
        assert_eq!(policies.names().collect::<Vec<_>>(), ["default", "east", "gentle", "loud"]);
    }

    #[test]
    fn all_mistakes_are_named_at_once_each_with_its_path() {
        let mistakes = wrong(
            r#"
            colour = "red"
            [default]
            max_attempts = 0
            window = "12h"
            tempo = 3
            [default.jitter]
            percent = 101
            cap = "2d"
            fraction = 0.1
            [policies.gentle]
            time_zone = "Europe/Atlantis"
            soft_declined = { schedule = ["1d", "3d", "3x", "61d", 5, "30s"], tries = 4 }
            hard_declined = { schedule = ["1d"] }
            processing_failure = 7
            month = { max_parks = -1, spread = "1M" }
            [policies.Loud]
            quiet_hours = "22-7"
            [policies.default]
            [policies.night]
            quiet_hours = "07:00-07:00"
            confirmation_delay = "1m"
            [policies.empty.soft_declined]
            schedule = []
            "#,
        );
        assert_eq!(
            mistakes,
            [
                "colour: is not known; expected default or policies",
                "default.jitter.cap: expected 0s to 1d, got \"2d\"",
                "default.jitter.fraction: is not known; expected percent or cap",
                "default.jitter.percent: expected a number from 0 to 100, got 101",
                "default.max_attempts: expected a number from 1 to 20, got 0",
                "default.tempo: is not known; expected one of max_attempts, window, quiet_hours, time_zone, jitter, \
                 soft_declined, processing_failure, hard_declined, month",
                "default.window: expected 1d to 90d, got \"12h\"",
                "policies.Loud: expected a name of a-z, 0-9 and '-', at most 32 characters, got \"Loud\"",
                "policies.Loud.quiet_hours: expected a span of less than a day such as 22:00-07:00, or none, got \"22-7\"",
                "policies.default: is taken: charges without a policy go by [default]",
                "policies.empty.soft_declined.schedule: expected 1 to 20 durations, got 0",
                "policies.gentle.hard_declined.schedule: does not exist here: a hard decline waits for the buyer; \
                 expected window or reminders",
                "policies.gentle.month.max_parks: expected a number from 0 to 12, got -1",
                "policies.gentle.month.spread: expected a duration such as 3d, got \"1M\"",
                "policies.gentle.processing_failure: expected a table, got 7",
                "policies.gentle.soft_declined.schedule[2]: expected a duration such as 3d, got \"3x\"",
                "policies.gentle.soft_declined.schedule[3]: expected 1m to 60d, got \"61d\"",
                "policies.gentle.soft_declined.schedule[4]: expected a duration such as 3d, got 5",
                "policies.gentle.soft_declined.schedule[5]: expected 1m to 60d, got \"30s\"",
                "policies.gentle.soft_declined.tries: is not known; expected one of schedule, max_attempts, window",
                "policies.gentle.time_zone: expected an IANA time zone such as Europe/Berlin, got \"Europe/Atlantis\"",
                "policies.night.confirmation_delay: is not known; expected one of max_attempts, window, quiet_hours, \
                 time_zone, jitter, soft_declined, processing_failure, hard_declined, month",
                "policies.night.quiet_hours: expected a span of less than a day such as 22:00-07:00, or none, got \
                 \"07:00-07:00\"",
            ]
        );
    }

    #[test]
    fn reminders_ascend_are_at_most_twenty_and_come_before_the_wait_for_the_buyer_ends() {
        let one = |reminders: &str| wrong(&format!("[default.hard_declined]\nreminders = {reminders}"));
        assert!(one("[]").is_empty() && one("['1m', '29d 23h']").is_empty());
        assert!(read("[default.hard_declined]\nreminders = []").default_policy().reminders.is_empty());
        let path = "default.hard_declined.reminders";
        assert_eq!(one("['3d', '3d']"), [format!("{path}[1]: expected a later time than the one before")]);
        assert_eq!(
            one("['3d', '30d']"),
            [format!("{path}[1]: expected less than 30days, for which the buyer is waited for")]
        );
        assert_eq!(one("['1s']"), [format!("{path}[0]: expected 1m to 60d, got \"1s\"")]);
        let many = format!("[{}]", (1..=21).map(|day| format!("'{day}d'")).collect::<Vec<_>>().join(", "));
        assert_eq!(one(&many), [format!("{path}: expected at most 20 durations, got 21")]);
        assert_eq!(one("3").len(), 1);
        // The window may be stated after them, and in another place; inherited ones are left out instead.
        let short = "[default.hard_declined]\nreminders = ['3d', '9d']\nwindow = '8d'";
        assert_eq!(wrong(short), [format!("{path}[1]: expected less than 8days, for which the buyer is waited for")]);
        assert!(wrong("[policies.short]\nwindow = '2d'").is_empty());
    }

    #[test]
    fn quiet_hours_need_a_zone_and_that_is_said_where_it_is_missing() {
        let missing = "need a time_zone, here or in [default]";
        assert_eq!(wrong("default.quiet_hours = '22:00-07:00'"), [format!("default.quiet_hours: {missing}")]);
        let inherited = "[default]\nquiet_hours = '22:00-07:00'\n[policies.a]\n[policies.b]\nwindow = '9d'";
        assert_eq!(wrong(inherited), [format!("default.quiet_hours: {missing}")], "said once");
        let own = "[policies.a]\nquiet_hours = '22:00-07:00'";
        assert_eq!(wrong(own), [format!("policies.a.quiet_hours: {missing}")]);
        assert!(wrong("[policies.a]\nquiet_hours = '22:00-07:00'\ntime_zone = 'UTC'").is_empty());
    }

    #[test]
    fn what_is_no_toml_is_said_with_its_line() {
        let mistakes = wrong("[default]\nwindow = \"9d\"\nwindow = \"8d\"\n");
        assert!(mistakes.len() == 1 && mistakes[0].starts_with("line 3: is no TOML: duplicate key"), "{mistakes:?}");
    }

    #[test]
    fn there_are_at_most_fifty_policies_and_names_have_at_most_32_characters() {
        let file = |many: usize| (0..many).map(|n| format!("[policies.p{n}]")).collect::<Vec<_>>().join("\n");
        assert!(wrong(&file(50)).is_empty());
        assert_eq!(wrong(&file(51)), ["policies: expected at most 50, got 51"]);
        assert!(wrong(&format!("[policies.{}]", "x".repeat(32))).is_empty());
        for name in ["x".repeat(33), "a_b".to_owned(), "\"\"".to_owned(), "\"a b\"".to_owned()] {
            assert_eq!(wrong(&format!("[policies.{name}]")).len(), 1, "{name}");
        }
    }

    #[test]
    fn the_example_states_the_defaults_and_each_line_that_it_offers_can_be_stated() {
        let example = include_str!("../../docs/policy.example.toml");
        let policies = read(example);
        assert_eq!(*policies.default_policy(), base());
        assert_eq!(policies.names().collect::<Vec<_>>(), ["default", "gentle", "short"]);
        assert!(policies.warnings().is_empty());
        let offered = read(&example.replace("\n#.", "\n")).default_policy().clone();
        assert!(offered.quiet.is_some() && offered.hard_window.is_some());
        assert!(offered.soft.max_attempts.is_some() && offered.soft.window.is_some());
    }

    #[test]
    fn the_bounds_themselves_are_allowed() {
        let waits = vec!["'60d'"; 20].join(", ");
        let text = format!("soft_declined.schedule = [{waits}]\nwindow = '90d'\nmax_attempts = 20\njitter.cap = '1d'");
        assert!(wrong(&format!("[default]\n{text}")).is_empty());
        let waits = vec!["'1m'"; 21].join(", ");
        assert_eq!(
            wrong(&format!("default.soft_declined.schedule = [{waits}]")),
            ["default.soft_declined.schedule: expected 1 to 20 durations, got 21"]
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in r#"(\[?(default|policies(\.[a-z"]{0,3})?)(\.(soft_declined|month|jitter))?\]?\n?|[a-z_]{1,12} = ("[0-9a-zA-Z:. -]{0,8}"|[-0-9.]{1,4}|\[.{0,6}\])\n|.{0,9}\n?){0,6}"#) {
            let _ = parse(&text, &base());
        }
    }
}
