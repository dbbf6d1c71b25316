//! `charges import`: open charges that Amazon declined elsewhere, handed over as JSON lines. Everything is checked before anything is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::api::{Api, ApiError};
use super::table::{printable, table, text, time};
use super::{OperatorError, confirm, finish, print, print_json_line};
use crate::cli::progress;
use crate::model::money::Money;

/// The service takes no longer body.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// More in one file is a mistake, or wants to be split.
const MAX_LINES: usize = 1_000_000;
/// Of what is wrong so many lines are shown as a table; `--json` has all.
const MAX_SHOWN: usize = 100;

/// Hand over charges that Amazon declined elsewhere, one JSON object a line, as `POST /v1/charges` takes them with `declined`
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Check every line and say what would happen; store nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// What became of a line, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// It can be taken.
    New,
    /// It was taken before.
    Known,
    /// It was taken now.
    Imported,
    /// It cannot be taken as it is.
    Wrong,
}

impl Fate {
    fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Known => "known",
            Self::Imported => "imported",
            Self::Wrong => "wrong",
        }
    }
}

/// A line, and what is known of it.
struct Line {
    number: usize,
    /// The charge, if it is one that can be handed over.
    body: Option<Value>,
    id: String,
    fate: Fate,
    /// What is wrong, or what to know.
    note: String,
    /// The charge as the service shows it.
    charge: Option<Value>,
}

impl Line {
    fn wrong(number: usize, id: String, note: String) -> Self {
        Self { number, body: None, id, fate: Fate::Wrong, note, charge: None }
    }

    fn json(&self) -> Value {
        let mut json = json!({ "line": self.number, "id": self.id, "fate": self.fate.word() });
        for (name, value) in
            [("note", Some(json!(self.note)).filter(|_| !self.note.is_empty())), ("charge", self.charge.clone())]
        {
            if let Some(value) = value {
                json[name] = value;
            }
        }
        json
    }
}

/// Reads one charge. What is not checked here the service checks.
fn read_line(number: usize, line: &[u8], seen: &mut BTreeSet<String>) -> Line {
    let wrong = |id: &str, note: &str| Line::wrong(number, printable(id), note.to_owned());
    if line.len() > MAX_LINE_BYTES {
        return wrong("", "longer than 64 KiB");
    }
    let body: Value = match serde_json::from_slice(line) {
        Ok(body @ Value::Object(_)) => body,
        Ok(_) => return wrong("", "expected one JSON object"),
        Err(error) => return wrong("", &format!("no JSON: {error}")),
    };
    let id = body.get("id").and_then(Value::as_str).unwrap_or_default();
    if body.get("declined").is_none() {
        let note = "declined is missing: only what Amazon declined elsewhere is handed over; submit anything else with POST /v1/charges";
        return wrong(id, note);
    }
    if !id.is_empty() && !seen.insert(id.to_owned()) {
        return wrong(id, "this id stands in an earlier line");
    }
    Line { number, id: printable(id), body: Some(body), fate: Fate::New, note: String::new(), charge: None }
}

/// Reads all of it; blank lines count and say nothing.
fn read(file: impl Read) -> Result<Vec<Line>, OperatorError> {
    let mut file = BufReader::new(file);
    let (mut lines, mut seen, mut number) = (Vec::new(), BTreeSet::new(), 0);
    loop {
        let mut line = Vec::new();
        let mut rest = (&mut file).take(MAX_LINE_BYTES as u64 + 2);
        if rest.read_until(b'\n', &mut line)? == 0 {
            return Ok(lines);
        }
        let whole = line.ends_with(b"\n");
        let trimmed = line.trim_ascii();
        number += 1;
        if lines.len() >= MAX_LINES {
            return Err(OperatorError::Usage(format!("more than {MAX_LINES} charges in one file: split it")));
        }
        if !trimmed.is_empty() {
            lines.push(read_line(number, trimmed, &mut seen));
        }
        // The rest of a line that is too long.
        if !whole && line.len() > MAX_LINE_BYTES {
            file.skip_until(b'\n')?;
        }
    }
}

/// What the service says to a line, if it can be asked at all.
fn judged(line: &mut Line, answer: Result<Value, ApiError>) -> Result<(), ApiError> {
    match answer {
        Ok(check) => {
            let is = |name: &str| check.get(name) == Some(&Value::Bool(true));
            line.fate = if is("known") { Fate::Known } else { Fate::New };
            let notes = [
                ("permissionClosed", "its charge permission is closed: it will be given up"),
                ("held", "it will be held: data were lost"),
            ];
            line.note = notes.iter().filter(|(name, _)| is(name)).map(|(_, note)| *note).collect::<Vec<_>>().join("; ");
            line.charge = check.get("charge").cloned();
            Ok(())
        }
        Err(ApiError::Refused(why)) => {
            (line.fate, line.note) = (Fate::Wrong, why);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn count(lines: &[Line], fate: Fate) -> usize {
    lines.iter().filter(|line| line.fate == fate).count()
}

/// What the lines of a fate come to, by currency.
fn sums(lines: &[Line], fate: Fate) -> String {
    let mut sums: BTreeMap<&'static str, Option<Money>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.fate == fate) {
        let amount = line.charge.as_ref().and_then(|charge| charge.get("chargeAmount")).cloned().unwrap_or_default();
        let Ok(money) = serde_json::from_value::<Money>(amount) else { continue };
        let sum = sums.entry(money.currency().code()).or_insert(Money::parse_balance("0", money.currency()).ok());
        *sum = sum.and_then(|sum| sum.plus(&money));
    }
    let sums: Vec<String> = sums
        .into_iter()
        .map(|(code, sum)| sum.map_or_else(|| format!("too much {code} to add up"), |sum| sum.to_string()))
        .collect();
    if sums.is_empty() { String::new() } else { format!(" ({})", sums.join(", ")) }
}

/// What an operator reads: each line that needs somebody, what comes first, and what it comes to.
fn report(lines: &[Line], json: bool) -> Result<(), OperatorError> {
    if json {
        return lines.iter().try_for_each(|line| print_json_line(&line.json()));
    }
    let noted: Vec<&Line> = lines.iter().filter(|line| !line.note.is_empty()).collect();
    if !noted.is_empty() {
        let mut shown = table(&["LINE", "CHARGE", "", "WHY"]);
        for line in noted.iter().take(MAX_SHOWN) {
            shown.add_row([&line.number.to_string(), &line.id, line.fate.word(), &line.note]);
        }
        print(&shown.to_string())?;
        if noted.len() > MAX_SHOWN {
            print(&format!("and {} lines more: --json has all", noted.len() - MAX_SHOWN))?;
        }
    }
    let mut plans: BTreeMap<(String, String), (usize, String)> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.fate != Fate::Wrong) {
        let Some(charge) = &line.charge else { continue };
        let first = time(charge, "nextAttemptAt");
        let plan = plans.entry((text(charge, "state"), text(charge, "reasonCode"))).or_insert((0, first.clone()));
        plan.0 += 1;
        if !first.is_empty() && (plan.1.is_empty() || first < plan.1) {
            plan.1 = first;
        }
    }
    if !plans.is_empty() {
        let mut shown = table(&["STATE", "REASON", "CHARGES", "FIRST ATTEMPT"]);
        for ((state, reason), (charges, first)) in plans {
            shown.add_row([state, reason, charges.to_string(), first]);
        }
        print(&shown.to_string())?;
    }
    let fates =
        [Fate::New, Fate::Imported, Fate::Known, Fate::Wrong].into_iter().filter(|fate| count(lines, *fate) > 0);
    let said: Vec<String> =
        fates.map(|fate| format!("{} {}{}", count(lines, fate), fate.word(), sums(lines, fate))).collect();
    print(&format!("{} charges: {}", lines.len(), if said.is_empty() { "none".to_owned() } else { said.join(", ") }))
}

/// Asks the service about each line; nothing is stored.
async fn check(api: &Api, lines: &mut [Line]) -> Result<(), ApiError> {
    let bar = progress::of("checked", lines.len());
    for line in lines {
        bar.inc(1);
        let Some(body) = line.body.clone() else { continue };
        judged(line, api.post(&["charge-checks"], &body).await)?;
    }
    Ok(())
}

/// Submits what is new. Ends at the first that cannot be done now: what was done is done, and the same again is safe.
async fn submit(api: &Api, lines: &mut [Line]) -> Result<(), ApiError> {
    let bar = progress::of("imported", lines.len());
    for line in lines.iter_mut() {
        bar.inc(1);
        let (Some(body), Fate::New) = (&line.body, line.fate) else { continue };
        match api.post(&["charges"], body).await {
            Ok(charge) => (line.fate, line.charge) = (Fate::Imported, Some(charge)),
            Err(ApiError::Refused(why)) => (line.fate, line.note) = (Fate::Wrong, why),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open(wanted: &ImportArgs) -> Result<Vec<Line>, OperatorError> {
    if wanted.file.as_os_str() == "-" {
        return read(std::io::stdin().lock());
    }
    let shown = wanted.file.display();
    let file = std::fs::File::open(&wanted.file)
        .map_err(|error| OperatorError::Usage(format!("{shown} cannot be read: {error}")))?;
    read(file)
}

pub(super) async fn run(api: &Api, wanted: &ImportArgs, json: bool) -> ExitCode {
    match import(api, wanted, json).await {
        Ok(code) => code,
        Err(error) => finish(Err(error)),
    }
}

async fn import(api: &Api, wanted: &ImportArgs, json: bool) -> Result<ExitCode, OperatorError> {
    let mut lines = open(wanted)?;
    check(api, &mut lines).await?;
    let wrong = count(&lines, Fate::Wrong);
    if wanted.dry_run || wrong > 0 {
        report(&lines, json)?;
        if wrong == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let refused = format!("{wrong} of {} lines are wrong: nothing was imported", lines.len());
        return Err(OperatorError::Api(ApiError::Refused(refused)));
    }
    let (new, sum) = (count(&lines, Fate::New), sums(&lines, Fate::New));
    if new > 0 {
        let question = format!(
            "Take over {new} charges{sum}? Only if every request ever made for each of them was declined for certain, and nobody else \
             tries them any more: else a buyer may be charged twice."
        );
        confirm(&question, wanted.yes)?;
    }
    let done = submit(api, &mut lines).await;
    report(&lines, json)?;
    done?;
    let refused = count(&lines, Fate::Wrong);
    if refused > 0 {
        return Err(OperatorError::Api(ApiError::Refused(format!("{refused} lines were refused meanwhile"))));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(text: &str) -> Vec<(usize, Fate, String)> {
        let lines = read(text.as_bytes()).expect("readable");
        lines.into_iter().map(|line| (line.number, line.fate, line.note)).collect()
    }

    #[test]
    fn lines_are_numbered_as_an_editor_does_and_each_wrong_one_says_why() {
        let declined = r#""declined":{"reasonCode":"SoftDeclined","at":"2026-01-30T10:00:00Z","attempts":1}"#;
        let text = format!("{{\"id\":\"a\",{declined}}}\n\n{{\"id\":\"b\"}}\r\n[]\n{{\n{{\"id\":\"a\",{declined}}}");
        let found = fates(&text);
        let numbers: Vec<(usize, Fate)> = found.iter().map(|(number, fate, _)| (*number, *fate)).collect();
        let wrong = |number| (number, Fate::Wrong);
        assert_eq!(numbers, [(1, Fate::New), wrong(3), wrong(4), wrong(5), wrong(6)]);
        let notes: Vec<&str> = found.iter().map(|(_, _, note)| note.as_str()).collect();
        assert!(notes[1].starts_with("declined is missing") && notes[2].starts_with("expected one JSON object"));
        assert!(notes[3].starts_with("no JSON") && notes[4].contains("earlier line"), "{notes:?}");
    }

    #[test]
    fn a_line_that_is_too_long_is_one_wrong_line() {
        let long = "x".repeat(3 * MAX_LINE_BYTES);
        let found = fates(&format!("{long}\n[]\n"));
        assert_eq!(
            found.iter().map(|(number, _, note)| (*number, note.as_str())).collect::<Vec<_>>(),
            [(1, "longer than 64 KiB"), (2, "expected one JSON object"),]
        );
    }

    #[test]
    fn amounts_are_added_up_by_currency() {
        let line = |fate, amount: &str, code: &str| Line {
            fate,
            charge: Some(json!({ "chargeAmount": { "amount": amount, "currencyCode": code } })),
            ..Line::wrong(1, String::new(), String::new())
        };
        let lines = [
            line(Fate::New, "14.00", "USD"),
            line(Fate::New, "0.10", "USD"),
            line(Fate::New, "1400", "JPY"),
            line(Fate::Known, "7.00", "USD"),
        ];
        assert_eq!(sums(&lines, Fate::New), " (1400 JPY, 14.10 USD)");
        assert_eq!(sums(&lines, Fate::Imported), "");
    }
}
