//! `quarantine`: genuine messages and hints that wait for a person.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::Api;
use super::table::{fields, table, text, time};
use super::{Connection, EXIT_STATUS, OperatorError, confirm, each, finish, print, print_json, print_json_line};

/// Look at what is in quarantine, replay it, drop it
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct QuarantineArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What is there, the oldest first
    List {
        /// So many at most
        #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// One entry, with the message as it was received
    Show {
        #[arg(value_name = "ENTRY")]
        id: String,
    },
    /// Look at what they name now; they leave the quarantine
    Replay(Which),
    /// Drop them for good
    Drop {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Ids of entries, such as 1769767200000-0
    #[arg(value_name = "ENTRY")]
    ids: Vec<String>,
    /// All that are there now
    #[arg(long)]
    all: bool,
}

/// All of the quarantine at its bound.
const ALL: usize = 10_000;

/// Runs the command.
pub async fn run(args: QuarantineArgs) -> ExitCode {
    let api = match args.connection.open() {
        Ok(api) => api,
        Err(code) => return code,
    };
    let (api, json) = (&api, args.connection.json);
    match args.command {
        Command::List { limit } => finish(list(api, usize::try_from(limit).unwrap_or(ALL), json).await),
        Command::Show { id } => finish(async { shown(&api.get(&["quarantine", &id], &[]).await?, json) }.await),
        Command::Replay(which) => match which.ids(api).await {
            Ok(ids) => each(&ids, async |id| replay(api, id, json).await).await,
            Err(error) => finish(Err(error)),
        },
        Command::Drop { which, yes } => {
            let ids = which.ids(api).await;
            let asked = ids.and_then(|ids| {
                confirm(&format!("Drop {} from the quarantine for good?", count(ids.len())), yes).map(|()| ids)
            });
            match asked {
                Ok(ids) => each(&ids, async |id| discard(api, id, json).await).await,
                Err(error) => finish(Err(error)),
            }
        }
    }
}

impl Which {
    async fn ids(&self, api: &Api) -> Result<Vec<String>, OperatorError> {
        if !self.all {
            return Ok(self.ids.clone());
        }
        let (entries, _) = api.list(&["quarantine"], &[], "entries", ALL).await?;
        Ok(entries.iter().map(|entry| text(entry, "id")).collect())
    }
}

fn count(entries: usize) -> String {
    if entries == 1 { "one entry".to_owned() } else { format!("{entries} entries") }
}

async fn list(api: &Api, most: usize, json: bool) -> Result<(), OperatorError> {
    let (entries, more) = api.list(&["quarantine"], &[], "entries", most).await?;
    if json {
        return print_json(&json!({ "entries": entries, "more": more }));
    }
    if entries.is_empty() {
        return print("The quarantine is empty.");
    }
    let mut rows = table(&["ENTRY", "SINCE", "NAMES", "REASON"]);
    for entry in &entries {
        rows.add_row([text(entry, "id"), time(entry, "since"), names(entry), text(entry, "reason")]);
    }
    print(&rows.to_string())?;
    if more {
        print(&format!("There are more than {most}: --limit"))?;
    }
    Ok(())
}

/// The object of a hint; the message of a message.
fn names(entry: &Value) -> String {
    match text(entry, "objectId") {
        object if object.is_empty() => format!("message {}", text(entry, "messageId")),
        object => format!("{} {object}", text(entry, "objectType")),
    }
}

fn shown(entry: &Value, json: bool) -> Result<(), OperatorError> {
    if json {
        return print_json(entry);
    }
    print(&fields(entry, &[]).to_string())
}

async fn replay(api: &Api, id: &str, json: bool) -> Result<(), OperatorError> {
    let answer = api.post(&["quarantine", id, "replay"], &json!({})).await?;
    if json {
        return print_json_line(&answer);
    }
    print(&format!(
        "{id}: {} {} of {} is looked at now",
        text(&answer, "objectType"),
        text(&answer, "objectId"),
        text(&answer, "chargePermissionId")
    ))
}

async fn discard(api: &Api, id: &str, json: bool) -> Result<(), OperatorError> {
    let answer = api.delete(&["quarantine", id]).await?;
    if json {
        return print_json_line(&answer);
    }
    print(&format!("{id}: dropped: {}", text(&answer, "reason")))?;
    match text(&answer, "body") {
        body if body.is_empty() => print(&names(&answer)),
        body => print(&body),
    }
}
