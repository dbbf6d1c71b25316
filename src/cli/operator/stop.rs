//! `stop`: the red switch. While it is on no charge is sent, on any instance.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::table::time;
use super::{Connection, EXIT_STATUS, OperatorError, confirm, finish, print, print_json};

/// The stop switch: while it is on no charge is sent, on any instance; it survives restarts
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct StopArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Whether it is on, and since when
    Show,
    /// Once this is done no send is begun; what Amazon has already been asked comes to its end
    On,
    /// Charges go on
    Off {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Runs the command.
pub async fn run(args: StopArgs) -> ExitCode {
    let api = match args.connection.open() {
        Ok(api) => api,
        Err(code) => return code,
    };
    let json = args.connection.json;
    let done: Result<(), OperatorError> = async {
        let switch = match args.command {
            Command::Show => api.get(&["stop"], &[]).await?,
            Command::On => api.post(&["stop"], &json!({})).await?,
            Command::Off { yes } => {
                confirm("Lift the stop switch? Charges that are due are sent at once.", yes)?;
                api.delete(&["stop"]).await?
            }
        };
        if json {
            return print_json(&switch);
        }
        print(&if switch.get("stopped") == Some(&Value::Bool(true)) {
            format!("The stop switch is on since {}: no charge is sent.", time(&switch, "since"))
        } else {
            "The stop switch is off: charges are sent when they are due.".to_owned()
        })
    }
    .await;
    finish(done)
}
