//! How far long work has come: on a terminal alone, and on standard error, so that what is printed stays whole.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

const TICK: Duration = Duration::from_millis(500);

/// So many of so many.
pub(super) fn of(what: &'static str, all: usize) -> ProgressBar {
    styled(ProgressBar::new(all.try_into().unwrap_or(u64::MAX)), what, "{msg} {pos} of {len} {bar:30} {eta}")
}

/// So many so far, of nobody knows how many.
pub(super) fn counted(what: &'static str) -> ProgressBar {
    styled(ProgressBar::no_length(), what, "{spinner} {msg} {pos}, {elapsed}")
}

/// For work that prints a line for each thing: where those lines are seen, they say it themselves.
pub(super) fn unless_seen(bar: impl FnOnce() -> ProgressBar) -> ProgressBar {
    if std::io::stdout().is_terminal() { ProgressBar::hidden() } else { bar() }
}

fn styled(bar: ProgressBar, what: &'static str, template: &str) -> ProgressBar {
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(TICK);
    // However the work ends, the line is gone with the bar.
    bar.with_message(what).with_finish(ProgressFinish::AndClear)
}
