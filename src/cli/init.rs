//! `init`: writes the marker that lets the service use a Redis. A person runs it, because only a person knows whether data was lost.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::mistakes::{self, EXIT_USAGE};
use crate::config::{self, Given};
use crate::store::account::{Init, Initialised};
use crate::store::{Store, StoreError};

/// Prepares a Redis for this account.
///
/// Exit status: 0 done, 1 not done, 2 wrong usage.
#[derive(Debug, Args)]
pub struct InitArgs {
    #[command(flatten)]
    mode: Mode,
    #[command(flatten)]
    given: Given,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "four flags of which exactly one is given; clap sees to it")]
struct Mode {
    /// Nothing was ever charged through this service
    #[arg(long)]
    first: bool,
    /// Redis lost all its data: stops all charges, and holds what callers submit without saying what was sent before
    #[arg(long)]
    after_loss: bool,
    /// A backup was restored: stops all charges and holds every open one
    #[arg(long)]
    after_restore: bool,
    /// The operator has looked at everything that was held: submissions need no declaration any more
    #[arg(long)]
    end_recovery: bool,
}

/// Runs the command.
pub async fn run(args: InitArgs) -> ExitCode {
    let init = match args.mode {
        Mode { first: true, .. } => Init::First,
        Mode { after_loss: true, .. } => Init::AfterLoss,
        Mode { after_restore: true, .. } => Init::AfterRestore,
        _ => Init::EndRecovery,
    };
    let (account, settings, clock) = match config::read_store(args.given) {
        Ok(read) => read,
        Err(wrong) => return mistakes::report(&wrong),
    };
    let initialised = match Store::connect(settings, account.clone(), clock) {
        Ok(store) => match store.check_access(Some(init)).await {
            Ok(()) => store.init(init).await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    let name = format!("merchant {} ({})", account.merchant, account.environment);
    say(initialised, init, &name)
}

fn say(initialised: Result<Initialised, StoreError>, init: Init, name: &str) -> ExitCode {
    let (code, message) = match initialised {
        Ok(Initialised::Done { .. }) if init == Init::First => (0, format!("{name}: ready; start `serve`")),
        Ok(Initialised::Done { .. }) if init == Init::EndRecovery => {
            (0, format!("{name}: the recovery has ended: submissions need no declaration any more"))
        }
        Ok(Initialised::Done { held }) => {
            (0, format!("{name}: ready, the stop switch is on, {held} open charges are held; see docs/ARCHITECTURE.md"))
        }
        Ok(Initialised::Exists) => (1, format!("{name}: there is a marker already; nothing was changed")),
        Ok(Initialised::NotEmpty) => {
            (1, format!("{name}: there is data without a marker; if it was restored from a backup use --after-restore"))
        }
        Ok(Initialised::Missing) => (1, format!("{name}: there is no marker, so there is no recovery to end")),
        Ok(Initialised::NotRecovering) => (1, format!("{name}: no recovery is under way; nothing was changed")),
        Err(error) => (1, format!("error: {error}")),
    };
    let written = if code == 0 {
        writeln!(std::io::stdout().lock(), "{message}")
    } else {
        writeln!(std::io::stderr().lock(), "{message}")
    };
    written.map_or(EXIT_USAGE.into(), |()| code.into())
}
