//! Wrong settings, all of them at once, one line each.

use std::io::Write;
use std::process::ExitCode;

use crate::config::Mistake;

/// Exit status for wrong usage.
pub(super) const EXIT_USAGE: u8 = 2;

/// Prints the mistakes and gives the exit status for wrong usage.
pub(super) fn report(mistakes: &[Mistake]) -> ExitCode {
    report_with(mistakes, "`amazon-pay-ipn serve --help` lists all settings")
}

/// The same, and what else a person may do about it.
pub(super) fn report_with(mistakes: &[Mistake], hint: &str) -> ExitCode {
    let mut out = std::io::stderr().lock();
    for mistake in mistakes {
        // Where standard error is closed nobody reads the message anyway.
        let _ = writeln!(out, "error: {mistake}");
    }
    let _ = writeln!(out, "{hint}");
    EXIT_USAGE.into()
}

/// Prints one error with its causes.
pub(super) fn fail(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
    ExitCode::FAILURE
}
