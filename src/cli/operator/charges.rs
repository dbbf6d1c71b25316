//! `charges`: what is planned for a charge and why, and what an operator may do about it.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::Api;
use super::import::{self, ImportArgs};
use super::table::{fields, money, state, table, text, time};
use super::{Connection, EXIT_STATUS, OperatorError, confirm, each, finish, print, print_json, print_json_line};
use crate::model::charge_intent::Stage;

/// Look at charges and decide about them
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct ChargesArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Charges by state, reason or charge permission
    List(ListArgs),
    /// One charge
    Show {
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Try now; a parked charge is released once. What must come before a new number still comes before it
    Retry(Ids),
    /// Send nothing for them until they are resumed
    Pause(Ids),
    /// Go on after a pause
    Resume(Ids),
    /// Cancel: no new number; says whether a charge may still come of it
    Cancel(CancelArgs),
    Resolve(ResolveArgs),
    Import(ImportArgs),
}

#[derive(Debug, Args)]
struct Ids {
    /// The caller's ids of the charges
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

#[derive(Debug, Args)]
struct CancelArgs {
    /// The caller's ids of the charges
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only those in this state
    #[arg(long, value_name = "STATE", value_parser = Stage::NAMES)]
    state: Option<String>,
    /// Only those with this reason, such as `HardDeclined`
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only ends of which nobody is sure: look in Seller Central, then `charges resolve`
    #[arg(long)]
    unverified: bool,
    /// Only those of this charge permission
    #[arg(long, value_name = "ID")]
    permission: Option<String>,
    /// So many at most
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// Say what became of a charge that is held, or of an end that is unverified
#[derive(Debug, Args)]
struct ResolveArgs {
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    became: Became,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Became {
    /// It is this charge: it is read at Amazon, nothing is believed
    #[arg(long, value_name = "CHARGE ID")]
    captured: Option<String>,
    /// Give it up; or, of an unverified end, it was looked at
    #[arg(long)]
    abandoned: bool,
    /// Go on with a new number: only if Seller Central shows no charge. The value is the sentence that says so; the service names it
    #[arg(long, value_name = "SENTENCE")]
    new_number: Option<String>,
}

/// Runs the command.
pub async fn run(args: ChargesArgs) -> ExitCode {
    let api = match args.connection.open() {
        Ok(api) => api,
        Err(code) => return code,
    };
    let (api, json) = (&api, args.connection.json);
    match args.command {
        Command::List(wanted) => finish(list(api, &wanted, json).await),
        Command::Show { id } => finish(async { shown(&api.get(&["charges", &id], &[]).await?, json) }.await),
        Command::Retry(Ids { ids }) => act(api, &ids, "retry", json).await,
        Command::Pause(Ids { ids }) => act(api, &ids, "pause", json).await,
        Command::Resume(Ids { ids }) => act(api, &ids, "resume", json).await,
        Command::Cancel(CancelArgs { ids, yes }) => {
            let question = format!("Cancel {}? This cannot be undone.", ids.join(", "));
            if let Err(error) = confirm(&question, yes) {
                return finish(Err(error));
            }
            each(&ids, async |id| line(&api.delete(&["charges", id]).await?, json)).await
        }
        Command::Resolve(wanted) => finish(resolve(api, &wanted, json).await),
        Command::Import(wanted) => import::run(api, &wanted, json).await,
    }
}

async fn act(api: &Api, ids: &[String], verb: &str, json: bool) -> ExitCode {
    each(ids, async |id| line(&api.post(&["charges", id, verb], &json!({})).await?, json)).await
}

async fn list(api: &Api, wanted: &ListArgs, json: bool) -> Result<(), OperatorError> {
    let filters = [
        ("state", wanted.state.as_deref()),
        ("reason", wanted.reason.as_deref()),
        ("chargePermissionId", wanted.permission.as_deref()),
        ("outcome", wanted.unverified.then_some("unverified")),
    ];
    let query: Vec<(&str, &str)> = filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let most = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    let (charges, more) = api.list(&["charges"], &query, "charges", most).await?;
    if json {
        return print_json(&json!({ "charges": charges, "more": more }));
    }
    print(&rows(&charges))?;
    if more {
        print(&format!("There are more than {most}: --limit"))?;
    }
    Ok(())
}

/// Charges as a table.
pub(super) fn rows(charges: &[Value]) -> String {
    if charges.is_empty() {
        return "No charges.".to_owned();
    }
    let mut table = table(&["CHARGE", "PERMISSION", "AMOUNT", "STATE", "ATTEMPTS", "REASON", "NEXT ATTEMPT"]);
    for charge in charges {
        let mut row = vec![text(charge, "id").into(), text(charge, "chargePermissionId").into()];
        row.push(amount(charge).into());
        row.push(state(charge, "state"));
        row.push(text(charge, "attempts").into());
        row.push(text(charge, "reasonCode").into());
        row.push(next(charge).into());
        table.add_row(row);
    }
    table.to_string()
}

/// The amount that was authorised; where less is captured, or is to be, both.
fn amount(charge: &Value) -> String {
    let (whole, part) = (money(charge, "chargeAmount"), money(charge, "capture/captureAmount"));
    if part.is_empty() || part == whole { whole } else { format!("{part} of {whole}") }
}

/// When it is tried next, or what keeps it from that.
fn next(charge: &Value) -> String {
    let is = |name: &str| charge.get(name) == Some(&Value::Bool(true));
    let mut parts = vec![time(charge, "nextAttemptAt")];
    if is("canceling") {
        parts.push("canceling".to_owned());
    }
    if is("paused") {
        parts.push("paused".to_owned());
    }
    if charge.get("waitingForQuota").is_some() {
        parts.push("waits for quota".to_owned());
    }
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

/// One charge: every field that the service gives.
fn shown(charge: &Value, json: bool) -> Result<(), OperatorError> {
    if json {
        return print_json(charge);
    }
    print(&fields(charge, &[]).to_string())
}

/// What became of one of several.
fn line(charge: &Value, json: bool) -> Result<(), OperatorError> {
    if json {
        return print_json_line(charge);
    }
    let mut said = format!("{}: {}", text(charge, "id"), text(charge, "state"));
    let next = next(charge);
    if !next.is_empty() {
        said = format!("{said}, next: {next}");
    }
    if charge.get("mayStillCharge") == Some(&Value::Bool(true)) && charge.get("canceling") == Some(&Value::Bool(true)) {
        said.push_str("; a charge may still come of it: it is asked at Amazon");
    }
    print(&said)
}

async fn resolve(api: &Api, wanted: &ResolveArgs, json: bool) -> Result<(), OperatorError> {
    let body = match (&wanted.became.captured, &wanted.became.new_number) {
        (Some(charge), _) => json!({ "as": "captured", "chargeId": charge }),
        (None, Some(sentence)) => json!({ "as": "new_number", "confirm": sentence }),
        (None, None) => {
            confirm(&format!("Give {} up? This cannot be undone.", wanted.id), wanted.yes)?;
            json!({ "as": "abandoned" })
        }
    };
    line(&api.post(&["charges", &wanted.id, "resolve"], &body).await?, json)
}
