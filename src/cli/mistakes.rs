//! Wrong settings, all of them at once, one line each.

use std::io::Write;
use std::process::ExitCode;

use crate::config::Mistake;

/// Exit status for wrong usage.
pub(super) const EXIT_USAGE: u8 = 2;

/// Prints the mistakes and gives the exit status for wrong usage.
pub(super) fn report(mistakes: &[Mistake]) -> ExitCode {
    let mut out = std::io::stderr().lock();
    for mistake in mistakes {
        // Where standard error is closed nobody reads the message anyway.
        let _ = writeln!(out, "error: {mistake}");
    }
    let _ = writeln!(out, "`amazon-pay-ipn serve --help` lists all settings");
    EXIT_USAGE.into()
}

/// Prints one error with its causes.
pub(super) fn fail(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
    ExitCode::FAILURE
}
