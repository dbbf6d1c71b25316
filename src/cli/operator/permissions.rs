//! `permissions`: what is known of a charge permission, why its charges stand where they stand, and its closing.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::charges;
use super::table::{fields, text, time};
use super::{Connection, EXIT_STATUS, OperatorError, confirm, finish, print, print_json};

/// Look at charge permissions and decide about them
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct PermissionsArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What is known of it, and its open charges
    Show(Id),
    /// Why each of its charges stands where it stands, and what it waits for
    Why(Id),
    /// Look at it at Amazon now
    Reconcile {
        #[command(flatten)]
        id: Id,
        /// It may be one that nothing here has named yet
        #[arg(long)]
        new: bool,
    },
    /// Send nothing for it until it is resumed
    Pause(Id),
    /// Go on after a pause
    Resume(Id),
    /// Close it at Amazon, after our own retries were stopped
    Close {
        #[command(flatten)]
        id: Id,
        /// Why; Amazon keeps it
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Let Amazon cancel charges that it has not decided
        #[arg(long)]
        cancel_pending_charges: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct Id {
    /// The charge permission, such as S01-1234567-1234567
    #[arg(value_name = "ID")]
    id: String,
}

/// Runs the command.
pub async fn run(args: PermissionsArgs) -> ExitCode {
    let api = match args.connection.open() {
        Ok(api) => api,
        Err(code) => return code,
    };
    let json = args.connection.json;
    let act = async |id: &str, verb: &str, body: &Value| -> Result<(), OperatorError> {
        shown(&api.post(&["charge-permissions", id, verb], body).await?, json)
    };
    finish(match &args.command {
        Command::Show(Id { id }) => async { shown(&api.get(&["charge-permissions", id], &[]).await?, json) }.await,
        Command::Why(Id { id }) => async { why(&api.get(&["charge-permissions", id], &[]).await?, json) }.await,
        Command::Reconcile { id: Id { id }, new } => act(id, "reconcile", &json!({ "new": new })).await,
        Command::Pause(Id { id }) => act(id, "pause", &json!({})).await,
        Command::Resume(Id { id }) => act(id, "resume", &json!({})).await,
        Command::Close { id: Id { id }, reason, cancel_pending_charges, yes } => {
            let question = format!("Close {id}? Nothing can be charged to it afterwards.");
            match confirm(&question, *yes) {
                Ok(()) => {
                    let body = json!({ "closureReason": reason, "cancelPendingCharges": cancel_pending_charges });
                    act(id, "close", &body).await
                }
                Err(error) => Err(error),
            }
        }
    })
}

fn shown(permission: &Value, json: bool) -> Result<(), OperatorError> {
    if json {
        return print_json(permission);
    }
    print(&fields(permission, &["openCharges"]).to_string())?;
    print("")?;
    print(&charges::rows(open(permission)))
}

fn why(permission: &Value, json: bool) -> Result<(), OperatorError> {
    if json {
        return print_json(permission);
    }
    let reasons = text(permission, "reasonCodes");
    let because = if reasons.is_empty() { reasons } else { format!(" ({reasons})") };
    let state = text(permission, "state");
    let seen = if state.is_empty() {
        "was not seen at Amazon yet: nobody looked, or Amazon knows no such id".to_owned()
    } else {
        format!("is {state}{because}, as looked at {}", or(time(permission, "lookedAt"), "some time ago"))
    };
    let next = or(time(permission, "nextAt"), "when something happens");
    print(&format!("{} {seen}; looked at next {next}.", text(permission, "chargePermissionId")))?;
    for charge in open(permission) {
        print(&format!(
            "  {} ({}) waits for {}.",
            text(charge, "id"),
            text(charge, "state"),
            text(charge, "waitsFor")
        ))?;
    }
    if open(permission).is_empty() {
        print("  It has no open charges.")?;
    }
    Ok(())
}

fn or(text: String, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text }
}

fn open(permission: &Value) -> &[Value] {
    permission.get("openCharges").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
