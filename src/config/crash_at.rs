//! `CRASH_AT`: where the harness of `tests/crash` kills this process. For sandboxes; hidden, and only in builds with the feature of that
//! name.

use clap::Args;

use super::Mistake;
use crate::crash::Crash;
use crate::model::ids::Environment;

const NAME: &str = "CRASH_AT";

/// The setting as given.
#[derive(Debug, Clone, Default, Args)]
pub struct CrashAt {
    /// `CRASH_AT`: `mark-after:2`, `mark-after:2:freeze` or `trace`
    #[arg(long = "crash-at", env = NAME, hide = true)]
    pub crash_at: Option<String>,
}

/// Where to crash, if anywhere.
///
/// # Errors
/// When it cannot be read, or the environment is live.
pub fn read(given: &CrashAt, environment: Environment) -> Result<Option<Crash>, Vec<Mistake>> {
    let Some(text) = given.crash_at.as_deref().map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let wrong = |message: String| vec![Mistake { name: NAME, message }];
    if environment == Environment::Live {
        return Err(wrong("is for sandboxes only; expected it not to be set in a live environment".to_owned()));
    }
    text.parse().map(Some).map_err(|error: crate::crash::NoCrash| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, environment: Environment) -> Result<bool, String> {
        let given = CrashAt { crash_at: Some(text.to_owned()) };
        read(&given, environment).map(|crash| crash.is_some()).map_err(|mistakes| mistakes[0].to_string())
    }

    #[test]
    fn a_live_environment_refuses_every_crash() {
        for text in ["mark-after:1", "trace", "nonsense"] {
            let told = read_text(text, Environment::Live).unwrap_err();
            assert!(told.starts_with("CRASH_AT: is for sandboxes only"), "{told}");
        }
        assert_eq!(read_text("", Environment::Live), Ok(false), "an empty variable counts as not set");
    }

    #[test]
    fn a_sandbox_crashes_where_it_is_told_to() {
        assert_eq!(read_text("mark-after:1", Environment::Sandbox), Ok(true));
        let told = read_text("mark-afterwards:1", Environment::Sandbox).unwrap_err();
        assert!(told.starts_with("CRASH_AT: expected ") && told.contains("mark-afterwards:1"), "{told}");
    }
}
