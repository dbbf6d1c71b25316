//! Prints what happened, in the order of simulated time.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use jiff::Timestamp;

/// Nothing printed is wider.
const WIDTH: usize = 120;
/// Where the text of a line begins: after two blanks, the time, the actor, and blanks between them.
const TEXT_AT: usize = 2 + 16 + 2 + 20 + 2;

/// Who does something to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actor {
    Shop,
    Sns,
    ToAmazon,
    Event,
    Buyer,
    Attacker,
    Clock,
    Operations,
    ServiceLog,
    AmazonLog,
}

impl Actor {
    fn name(self) -> &'static str {
        match self {
            Self::Shop => "shop → service",
            Self::Sns => "Amazon SNS → service",
            Self::ToAmazon => "service → Amazon Pay",
            Self::Event => "event → billing",
            Self::Buyer => "buyer",
            Self::Attacker => "attacker → service",
            Self::Clock => "clock",
            Self::Operations => "operations",
            Self::ServiceLog => "log of the service",
            Self::AmazonLog => "log of Amazon Pay",
        }
    }

    /// The number of an ANSI colour.
    fn colour(self) -> u8 {
        match self {
            Self::Shop => 36,
            Self::Sns => 33,
            Self::ToAmazon => 34,
            Self::Event => 32,
            Self::Buyer => 35,
            Self::Attacker | Self::Operations => 31,
            Self::Clock | Self::ServiceLog | Self::AmazonLog => 90,
        }
    }
}

struct Line {
    at: Timestamp,
    actor: Actor,
    text: String,
}

/// Collects lines and prints them sorted by time: requests, events and what the demo itself does come from different sources.
pub(super) struct Timeline {
    coloured: bool,
    waiting: Vec<Line>,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self { coloured: std::io::stdout().is_terminal(), waiting: Vec::new() }
    }

    pub(super) fn note(&mut self, at: Timestamp, actor: Actor, text: impl Into<String>) {
        self.waiting.push(Line { at, actor, text: text.into() });
    }

    /// Prints what was noted since the last time, oldest first.
    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        let mut lines = std::mem::take(&mut self.waiting);
        lines.sort_by_key(|line| line.at);
        for line in lines {
            self.print(&line)?;
        }
        Ok(())
    }

    fn print(&self, line: &Line) -> std::io::Result<()> {
        let name = format!("{:<20}", line.actor.name());
        let start = format!("  {}  {}  ", minute(line.at), self.paint(&name, line.actor.colour()));
        let mut out = std::io::stdout().lock();
        for (index, part) in wrapped(&line.text, WIDTH - TEXT_AT).iter().enumerate() {
            if index == 0 {
                writeln!(out, "{start}{part}")?;
            } else {
                writeln!(out, "{:TEXT_AT$}  {part}", "")?;
            }
        }
        Ok(())
    }

    pub(super) fn headline(&self, title: &str) -> std::io::Result<()> {
        let rule = "─".repeat(WIDTH.saturating_sub(title.chars().count() + 4));
        writeln!(std::io::stdout().lock(), "\n{}", self.paint(&format!("── {title} {rule}"), 1))
    }

    pub(super) fn good(&self, text: &str) -> std::io::Result<()> {
        writeln!(std::io::stdout().lock(), "  {} {text}", self.paint("✓", 32))
    }

    pub(super) fn bad(&self, text: &str) -> std::io::Result<()> {
        writeln!(std::io::stdout().lock(), "  {} {text}", self.paint("✗", 31))
    }

    fn paint(&self, text: &str, code: u8) -> String {
        if self.coloured { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Text across the whole width, on lines of its own.
pub(super) fn paragraph(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in text.lines() {
        for part in wrapped(line, WIDTH - 4) {
            writeln!(out, "{}", format!("  {part}").trim_end())?;
        }
    }
    Ok(())
}

/// A time as the timeline shows it, in UTC.
pub(super) fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M").to_string()
}

/// A span of time, as somebody would tell it.
pub(super) fn roughly(span: Duration) -> String {
    let seconds = u64::try_from((span.as_millis() + 500) / 1000).unwrap_or(u64::MAX);
    let minutes = seconds / 60 + u64::from(seconds % 60 >= 30);
    let (days, hours) = ((minutes + 720) / 1440, minutes / 60);
    let (count, unit) = match () {
        () if seconds < 60 => (seconds, "second"),
        () if minutes < 120 && minutes != 60 => (minutes, "minute"),
        () if hours < 48 && hours != 24 => (hours, "hour"),
        () => (days, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Breaks a text at blanks; runs of blanks within a line stay. Continued lines are two narrower, for their indent.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line: Option<String> = None;
    for word in text.split(' ') {
        let room = if lines.is_empty() { width } else { width - 2 };
        match &mut line {
            None => line = Some(word.to_owned()),
            Some(full) if !full.trim().is_empty() && full.chars().count() + 1 + word.chars().count() > room => {
                lines.push(std::mem::replace(full, word.to_owned()).trim_end().to_owned());
            }
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
        }
    }
    lines.extend(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_broken_at_blanks_and_nothing_is_lost() {
        let text = "POST /v2/charges  key 3d45 → 422 SoftDeclined and some more words that go on for a while";
        let lines = wrapped(text, 30);
        assert!(lines.len() > 2 && lines.iter().all(|line| line.chars().count() <= 30), "{lines:?}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&lines.join(" ")), words(text));
    }

    #[test]
    fn spans_are_told_in_the_unit_that_fits() {
        let told = |seconds| roughly(Duration::from_secs(seconds));
        assert_eq!([told(20), told(181), told(6 * 3600)], ["20 seconds", "3 minutes", "6 hours"]);
        assert_eq!(
            (roughly(Duration::from_millis(19_999)), told(3600)),
            ("20 seconds".to_owned(), "1 hour".to_owned())
        );
        assert_eq!([told(86_411), told(26 * 3600), told(2 * 86_400)], ["1 day", "26 hours", "2 days"]);
    }

    #[test]
    fn short_texts_stay_as_they_are() {
        assert_eq!(wrapped("a  b c", 30), ["a  b c"]);
        assert_eq!(wrapped("", 30), [""]);
    }
}
