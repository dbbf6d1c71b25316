//! `policy explain`: the exact times at which a charge would be tried, by the very rules that the service goes by.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::mistakes::{self, EXIT_USAGE};
use crate::amazon_pay::classify::{Answer, classify};
use crate::config::{self, Given};
use crate::model::ids::{IntentId, PolicyName, Region};
use crate::model::verdict::Verdict;
use crate::recovery::explain::{End, Explanation, Step, What, explain};
use crate::recovery::policies::{DEFAULT, warnings};
use crate::recovery::policy::Policy;

/// The reason codes that the recovery table knows, and the HTTP status with which Amazon gives them.
const REASONS: [(&str, u16); 15] = [
    ("SoftDeclined", 422),
    ("TransactionTimedOut", 422),
    ("ProcessingFailure", 500),
    ("HardDeclined", 422),
    ("PeriodicAmountExceeded", 422),
    ("InvalidChargePermissionStatus", 422),
    ("AmazonRejected", 422),
    ("PaymentMethodNotAllowed", 422),
    ("MFANotCompleted", 422),
    ("TransactionAmountExceeded", 400),
    ("TransactionCountExceeded", 422),
    ("DuplicateIdempotencyKey", 400),
    ("UnauthorizedAccess", 403),
    ("InvalidAccountStatus", 403),
    ("InvalidRequestSignature", 400),
];

/// Recovery policies.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    Explain(ExplainArgs),
}

const EXAMPLES: &str = "\
  amazon-pay-ipn policy explain --reason SoftDeclined --from 2026-01-30T10:00:00Z
  amazon-pay-ipn policy explain --reason HardDeclined --from 2026-01-30T10:00:00Z --policy gentle --file policy.toml

What is not said is taken from the settings of `serve` in the environment: RECOVERY_POLICY_FILE (--file), \
AMAZON_PAY_REGION (--region; na if it is not set), MONTHLY_LIMIT_TIME_ZONE, CONFIRMATION_DELAY.";

/// Print the times at which a charge would be tried if Amazon answered the same each time, and how it ends
///
/// Attempts are spread, so each has an earliest and a latest time; with --id the times are those of that charge.
///
/// Exit status: 0 printed, 2 wrong usage or a mistake in the policy file.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExplainArgs {
    /// The reason code that Amazon answers with
    #[arg(long, value_name = "CODE")]
    reason: String,
    /// When the first attempt was made and answered (RFC 3339); the window begins then
    #[arg(long, value_name = "TIME")]
    from: Timestamp,
    /// The policy of the charge
    #[arg(long, value_name = "NAME", default_value = DEFAULT)]
    policy: PolicyName,
    /// The policy file [default: `RECOVERY_POLICY_FILE`, or none]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// na, eu or jp [default: `AMAZON_PAY_REGION`, or na]
    #[arg(long, value_name = "REGION")]
    region: Option<Region>,
    /// The id of the charge, for its own times
    #[arg(long, value_name = "ID")]
    id: Option<IntentId>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The settings of `serve`, where this shell has them.
#[derive(Debug, Parser)]
struct Environment {
    #[command(flatten)]
    given: Given,
}

/// Runs the command.
#[must_use]
pub fn run(args: &PolicyArgs) -> ExitCode {
    let PolicyCommand::Explain(args) = &args.command;
    let Environment { mut given } = Environment::parse_from(["policy"]);
    if let Some(file) = &args.file {
        given.recovery_policy_file = Some(file.display().to_string());
    }
    let (policies, region) = match config::read_policies(given, args.region) {
        Ok(read) => read,
        Err(wrong) => return mistakes::report(&wrong),
    };
    let known = || policies.names().collect::<Vec<_>>().join(", ");
    let policy = policies
        .get(&args.policy)
        .with_context(|| format!("there is no policy {}; known are {}", args.policy, known()));
    let answer = policy.and_then(|policy| answer_of(args, policy, region));
    let written = match answer {
        Ok(answer) => {
            let text = if args.json { answer.as_json() } else { answer.as_text() };
            std::io::stdout().lock().write_all(text.as_bytes()).map(|()| ExitCode::SUCCESS)
        }
        Err(error) => writeln!(std::io::stderr().lock(), "error: {error:#}").map(|()| EXIT_USAGE.into()),
    };
    written.unwrap_or_else(|_| EXIT_USAGE.into())
}

/// What is printed, in one of two ways.
struct Report<'a> {
    args: &'a ExplainArgs,
    region: Region,
    policy: &'a Policy,
    explanation: Explanation,
    warnings: Vec<String>,
}

fn answer_of<'a>(args: &'a ExplainArgs, policy: &'a Policy, region: Region) -> anyhow::Result<Report<'a>> {
    let verdict = verdict_of(&args.reason).with_context(|| {
        let known: Vec<&str> = REASONS.iter().map(|(code, _)| *code).collect();
        format!("the reason {:?} is not known; known are {}", args.reason, known.join(", "))
    })?;
    let explanation = explain(&verdict, args.from, policy, args.id.as_ref());
    Ok(Report { args, region, policy, explanation, warnings: warnings(policy) })
}

/// What the reason means, by the table that the service reads Amazon's answers by.
fn verdict_of(reason: &str) -> Option<Verdict> {
    let (code, status) = REASONS.into_iter().find(|(code, _)| *code == reason)?;
    let body = json!({ "reasonCode": code }).to_string();
    Some(classify(Answer::Reply { status, retry_after: None, date: None, body: Some(body.as_bytes()) }))
}

impl Report<'_> {
    fn zone(&self) -> Option<&TimeZone> {
        self.policy.time_zone.as_ref()
    }

    fn local(&self, at: Timestamp) -> Option<String> {
        self.zone().map(|zone| at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S %Z").to_string())
    }

    /// RFC 3339, with the offset of the merchant's clock.
    fn local_in_full(&self, at: Timestamp) -> Option<String> {
        self.zone().map(|zone| at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
    }

    fn as_text(&self) -> String {
        let mut text = String::new();
        let ExplainArgs { reason, policy, from, id, .. } = self.args;
        let whose = id.as_ref().map_or_else(String::new, |id| format!(", charge {id}"));
        let zone = self.zone().and_then(TimeZone::iana_name);
        let clock = zone.map_or_else(String::new, |zone| format!(", clock of {zone}"));
        line(
            &mut text,
            &format!("{reason} each time, policy {policy}, region {}, from {from}{whose}{clock}", self.region.as_str()),
        );
        line(&mut text, "");
        let rows: Vec<[String; 3]> = self.explanation.steps.iter().map(|step| self.row(step)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        for [what, times, local] in &rows {
            let row = format!("  {what:first$}  {times:second$}  {local}", first = width(0), second = width(1));
            line(&mut text, row.trim_end());
        }
        line(&mut text, "");
        for (index, end) in self.explanation.ends.iter().enumerate() {
            let or = if index == 0 { "" } else { "or, at the latest: " };
            line(&mut text, &format!("{or}{}", self.end(*end)));
        }
        for warning in &self.warnings {
            line(&mut text, &format!("WARNING: {warning}"));
        }
        text
    }

    /// What, when, and when by the merchant's clock.
    fn row(&self, step: &Step) -> [String; 3] {
        let span = |show: &dyn Fn(Timestamp) -> String| match step.latest {
            Some(latest) if latest == step.earliest => show(latest),
            Some(latest) => format!("{} to {}", show(step.earliest), show(latest)),
            None => format!("{} or too late", show(step.earliest)),
        };
        let local = self.zone().map_or_else(String::new, |_| span(&|at| self.local(at).unwrap_or_default()));
        [what(step.what), span(&seconds), local]
    }

    fn end(&self, end: End) -> String {
        let until = |at: Timestamp| match self.local(at) {
            Some(local) => format!("{} ({local})", seconds(at)),
            None => seconds(at),
        };
        match end {
            End::AttemptsUsedUp(attempts) => format!("Given up after attempt {attempts}: the attempts are used up."),
            End::WindowEnds(at) => {
                format!("Given up: the next attempt would not be before the window ends at {}.", until(at))
            }
            End::AtOnce => "Given up at once: a new checkout, a smaller amount or another method is needed.".to_owned(),
            End::MonthsUsedUp(months) => format!("Given up: {months} months were waited for."),
            End::WaitsForBuyer(at) => format!(
                "Parked until the buyer updates the payment method, then one attempt at once, whatever the hour; given up at {}.",
                until(at)
            ),
            End::WaitsForPerson(at) => format!("Parked for a person; given up at {}.", until(at)),
            End::Held => "Held until an operator resolves it.".to_owned(),
            End::Repeats(at) => format!(
                "Not counted, nothing given up: the same number again once Amazon takes the account again; it is asked from {} on, then after 2, 4, 8 and every 15 minutes.",
                until(at)
            ),
        }
    }

    fn as_json(&self) -> String {
        let steps: Vec<Value> = self
            .explanation
            .steps
            .iter()
            .map(|step| {
                let (kind, attempt, turn) = match step.what {
                    What::Attempt(attempt) => ("attempt", Some(attempt), None),
                    What::Confirmation => ("confirmation", None, None),
                    What::OldMonth => ("old_month", None, None),
                    What::NewMonth(turn) => ("new_month", None, Some(turn)),
                    What::Reminder(_) => ("reminder", None, None),
                };
                let reminder = if let What::Reminder(number) = step.what { Some(number) } else { None };
                present(json!({
                    "what": kind, "attempt": attempt, "turn": turn, "reminder": reminder,
                    "earliest": step.earliest, "latest": step.latest,
                    "localEarliest": self.local_in_full(step.earliest),
                    "localLatest": step.latest.and_then(|at| self.local_in_full(at)),
                }))
            })
            .collect();
        let ends: Vec<Value> = self.explanation.ends.iter().map(|end| present(end_as_json(*end))).collect();
        let ExplainArgs { reason, policy, from, id, .. } = self.args;
        let answer = present(json!({
            "reason": reason, "policy": policy, "region": self.region, "from": from, "id": id,
            "timeZone": self.zone().and_then(TimeZone::iana_name),
            "steps": steps, "ends": ends, "warnings": self.warnings,
        }));
        format!("{answer:#}\n")
    }
}

fn end_as_json(end: End) -> Value {
    match end {
        End::AttemptsUsedUp(attempts) => json!({ "how": "attempts_used_up", "attempts": attempts }),
        End::WindowEnds(at) => json!({ "how": "window_ends", "at": at }),
        End::AtOnce => json!({ "how": "at_once" }),
        End::MonthsUsedUp(months) => json!({ "how": "months_used_up", "months": months }),
        End::WaitsForBuyer(until) => json!({ "how": "waits_for_buyer", "until": until }),
        End::WaitsForPerson(until) => json!({ "how": "waits_for_person", "until": until }),
        End::Held => json!({ "how": "held" }),
        End::Repeats(from) => json!({ "how": "repeats", "from": from }),
    }
}

/// Without what there is nothing to say about.
fn present(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    value
}

fn what(what: What) -> String {
    match what {
        What::Attempt(attempt) => format!("attempt {attempt}"),
        What::Confirmation => "same number, to confirm".to_owned(),
        What::OldMonth => "again, then every 2 h until 36 h after the turn".to_owned(),
        What::NewMonth(turn) => format!("in the month from {}", seconds(turn)),
        What::Reminder(number) => format!("reminder {number} to the buyer"),
    }
}

/// To the second: the rest is noise of the spread.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn line(text: &mut String, line: &str) {
    // Writing into a string does not fail.
    let _ = writeln!(text, "{line}");
}
