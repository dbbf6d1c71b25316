//! What an operator asks of a running service, through its internal API: `charges`, `permissions`, `quarantine`, `stop`.

mod api;
pub mod charges;
mod import;
pub mod permissions;
pub mod quarantine;
pub mod stop;
mod table;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use self::api::{Api, ApiError};
use super::{mistakes, progress};
use crate::config::{self, Given};

/// What every one of these commands says of its exit status.
const EXIT_STATUS: &str = "\
Exit status: 0 done, 1 refused by the service (the answer says why), 2 wrong usage or settings, 3 there is no such thing, 4 the service \
could not be asked, or cannot do it now: the same again is safe.

The service is found by the settings of `serve` in the environment: INTERNAL_LISTEN_ADDR (--api), INTERNAL_API_TOKEN_FILE (--token-file).";

/// What helps in a shell that does not have them.
const NO_SETTINGS: &str =
    "in a shell without the settings of `serve`: --token-file FILE, and --api URL unless it is http://127.0.0.1:8081";

/// Exit status: there is no such thing.
const EXIT_MISSING: u8 = 3;
/// Exit status: the service could not be asked.
const EXIT_UNAVAILABLE: u8 = 4;

/// How the service is reached, and how its answers are printed.
#[derive(Debug, Args)]
pub struct Connection {
    /// The internal listener
    #[arg(
        long,
        value_name = "URL",
        global = true,
        help = "The internal listener, such as http://10.0.0.7:8081 [default: INTERNAL_LISTEN_ADDR]"
    )]
    api: Option<String>,
    /// File with the token of the internal API [default: `INTERNAL_API_TOKEN_FILE`]
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Print the service's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum OperatorError {
    /// Asked for in a way that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The service did not do it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Standard output is closed.
    #[error("the answer could not be printed")]
    Print(#[from] std::io::Error),
}

impl Connection {
    fn open(&self) -> Result<Api, ExitCode> {
        let mut given = Given::from_environment();
        if let Some(file) = &self.token_file {
            given.internal_api_token_file = Some(file.display().to_string());
        }
        let (address, token) =
            config::read_internal_api(given).map_err(|wrong| mistakes::report_with(&wrong, NO_SETTINGS))?;
        let base = self.api.clone().unwrap_or_else(|| format!("http://{address}"));
        Api::new(&base, token).map_err(|error| {
            mistakes::fail(&error.into());
            mistakes::EXIT_USAGE.into()
        })
    }
}

/// Prints what came of a command, and gives its exit status.
fn finish(done: Result<(), OperatorError>) -> ExitCode {
    let Err(error) = done else { return ExitCode::SUCCESS };
    let code = match &error {
        OperatorError::Usage(_) => mistakes::EXIT_USAGE,
        OperatorError::Api(ApiError::Missing(_)) => EXIT_MISSING,
        OperatorError::Api(ApiError::Unavailable(_) | ApiError::Unreachable(_)) => EXIT_UNAVAILABLE,
        OperatorError::Api(_) | OperatorError::Print(_) => 1,
    };
    mistakes::fail(&anyhow::Error::from(error));
    code.into()
}

/// Each thing is tried, whatever became of the one before, unless nobody answers. What may be asked again decides the exit status before
/// what is refused for good, and of those the last.
async fn each<'a, F>(ids: &'a [String], mut act: impl FnMut(&'a str) -> F) -> ExitCode
where
    F: Future<Output = Result<(), OperatorError>>,
{
    let (mut code, mut again) = (ExitCode::SUCCESS, false);
    let bar = progress::unless_seen(|| progress::of("done", ids.len()));
    for id in ids {
        let done = act(id).await;
        bar.inc(1);
        let Err(error) = &done else { continue };
        let nobody = matches!(error, OperatorError::Api(ApiError::Unreachable(_)));
        let later = nobody || matches!(error, OperatorError::Api(ApiError::Unavailable(_)));
        let said = bar.suspend(|| finish(done));
        if later || !again {
            code = said;
        }
        again |= later;
        if nobody {
            break;
        }
    }
    code
}

fn print(text: &str) -> Result<(), OperatorError> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

fn print_json(value: &Value) -> Result<(), OperatorError> {
    print(&escaped(&format!("{value:#}")))
}

fn print_json_line(value: &Value) -> Result<(), OperatorError> {
    print(&escaped(&value.to_string()))
}

/// JSON that means the same, without characters that a terminal acts on: they stand only in strings, where they can be escaped.
fn escaped(json: &str) -> String {
    json.chars()
        .map(|c| if c != '\n' && table::is_acted_on(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() })
        .collect()
}

/// What cannot be undone is asked about, where there is somebody to ask; a script says `--yes`.
fn confirm(question: &str, yes: bool) -> Result<(), OperatorError> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(OperatorError::Usage(format!("{question} Say --yes: there is nobody to ask")));
    }
    write!(std::io::stderr().lock(), "{question} [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(OperatorError::Usage("nothing was done".to_owned()))
    }
}
