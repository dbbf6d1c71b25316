//! `events`: what was told, for people (`tail`) and for a consumer that lost its place (`replay`). Both only read.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{mistakes, progress};
use crate::config::{self, Given};
use crate::model::event::EventType;
use crate::model::ids::ChargePermissionId;
use crate::store::events::{EntryId, StoredEvent};
use crate::store::{Store, StoreError};

/// Entries that are read at a time.
const PAGE: usize = 500;
/// How often `--follow` looks.
const FOLLOW: Duration = Duration::from_secs(1);
/// Printed, but what was told before may be gone.
const EXIT_GONE: u8 = 3;
/// Longest text in a cell of the table.
const MAX_CELL_CHARS: usize = 60;

/// Events that were told: look at them, or read them again
#[derive(Debug, Args)]
pub struct EventsArgs {
    #[command(subcommand)]
    command: EventsCommand,
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    Tail(TailArgs),
    Replay(ReplayArgs),
}

const REPLAY: &str = "\
  amazon-pay-ipn events replay --permission C01-0000000-0000001 --since 2026-01-30T10:00:00Z
  amazon-pay-ipn events replay --after 1769767204123-0 --type amazonpay.charge.captured.v1 | my-consumer";

/// Print the newest events as a table, or as JSON lines
///
/// It only reads: no consumer group is touched.
///
/// Exit status: 0 printed, 1 Redis could not be read, 2 wrong usage.
#[derive(Debug, Args)]
struct TailArgs {
    #[command(flatten)]
    which: Which,
    /// How many
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// Go on printing what comes, until interrupted
    #[arg(long)]
    follow: bool,
    /// Print JSON lines, as `replay`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    given: Given,
}

/// Print events again, the oldest first, for a consumer that lost its place
///
/// It writes nothing: no event is sent anew, and no consumer group is touched. Each event is one line of JSON on the standard output: a
/// `CloudEvent` with `data` as JSON, and with `entry`, its id in the stream. Feed them to what handles your events: they have the ids
/// that they had the first time, so whoever dedupes on `id` acts only on what was missed. To give a group back its place in the stream
/// instead, use `XGROUP SETID`.
///
/// Exit status: 0 printed, 1 Redis could not be read, 2 wrong usage, 3 printed, but older events were removed: some of what was asked
/// for may be gone, see `EVENT_RETENTION`.
#[derive(Debug, Args)]
#[command(after_help = REPLAY)]
struct ReplayArgs {
    #[command(flatten)]
    which: Which,
    /// From this time on (RFC 3339), by the clock of Redis; all there are without it
    #[arg(long, value_name = "TIME", conflicts_with = "after", value_parser = time)]
    since: Option<Timestamp>,
    /// After this entry of the stream, such as the last one that you acknowledged
    #[arg(long, value_name = "ENTRY")]
    after: Option<EntryId>,
    /// Until this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    #[command(flatten)]
    given: Given,
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "expected an RFC 3339 time, such as 2026-01-30T10:00:00Z".to_owned())
}

/// Which events.
#[derive(Debug, Args)]
struct Which {
    /// Only events about this charge permission
    #[arg(long, value_name = "ID")]
    permission: Option<ChargePermissionId>,
    /// Only events of this type; may be given several times
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type)]
    types: Vec<EventType>,
}

fn event_type(text: &str) -> Result<EventType, String> {
    EventType::ALL.iter().find(|kind| kind.as_str() == text).copied().ok_or_else(|| {
        let known: Vec<&str> = EventType::ALL.iter().map(|kind| kind.as_str()).collect();
        format!("expected one of {}", known.join(", "))
    })
}

impl Which {
    /// Some alerts have the account as their subject and name a permission all the same.
    fn takes(&self, event: &StoredEvent) -> bool {
        let of_permission = self.permission.as_ref().is_none_or(|permission| {
            let named = || data(event)["chargePermissionId"] == permission.as_str();
            event.field("subject") == permission.as_str() || named()
        });
        of_permission && (self.types.is_empty() || self.types.iter().any(|kind| kind.as_str() == event.field("type")))
    }
}

/// What was printed.
enum Printed {
    All,
    /// What is older may be gone.
    FromHere(Timestamp),
}

/// Why it was not.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the output was closed: {0}")]
    Output(#[from] io::Error),
}

/// Runs the command.
pub async fn run(args: EventsArgs) -> ExitCode {
    let (command, given) = match args.command {
        EventsCommand::Tail(mut tail) => {
            let given = std::mem::take(&mut tail.given);
            (EventsCommand::Tail(tail), given)
        }
        EventsCommand::Replay(mut replay) => {
            let given = std::mem::take(&mut replay.given);
            (EventsCommand::Replay(replay), given)
        }
    };
    let (account, settings, clock) = match config::read_store(given) {
        Ok(read) => read,
        Err(wrong) => return mistakes::report(&wrong),
    };
    let printed = match Store::connect(settings, account, clock) {
        Ok(store) => match &command {
            EventsCommand::Tail(args) => tail(&store, args).await,
            EventsCommand::Replay(args) => replay(&store, args).await,
        },
        Err(error) => Err(error.into()),
    };
    let mut stderr = io::stderr().lock();
    match printed {
        Ok(Printed::All) => ExitCode::SUCCESS,
        Ok(Printed::FromHere(oldest)) => {
            let _ = writeln!(
                stderr,
                "warning: events before {oldest} were removed; some of what was asked for may be gone"
            );
            EXIT_GONE.into()
        }
        Err(error) => {
            let _ = writeln!(stderr, "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn replay(store: &Store, args: &ReplayArgs) -> Result<Printed, Failed> {
    let asked = match (args.since, args.after) {
        (Some(since), _) => store.first_entry_at(since),
        (None, Some(after)) => after.next(),
        (None, None) => EntryId::default(),
    };
    let until = args.until.map(|until| store.first_entry_at(until));
    let mut from = asked;
    // Where the stream began when what it held before could not be printed any more: at first, or because it was trimmed meanwhile.
    let mut began: Option<EntryId> = None;
    let bar = progress::unless_seen(|| progress::counted("events read"));
    'pages: loop {
        let oldest = store.events_from(EntryId::default(), 1).await?.first().map(|event| event.entry);
        if oldest.is_none_or(|oldest| from < oldest) {
            began = began.max(Some(oldest.unwrap_or(from)));
        }
        let events = store.events_from(from, PAGE).await?;
        let Some(last) = events.last() else { break };
        from = last.entry.next();
        bar.inc(events.len().try_into().unwrap_or(0));
        for event in &events {
            if until.is_some_and(|until| event.entry >= until) {
                break 'pages;
            }
            if args.which.takes(event) {
                print(&json_line(event))?;
            }
        }
    }
    Ok(match began {
        Some(began) if store.events_were_removed().await? => Printed::FromHere(store.written_at(began)),
        _ => Printed::All,
    })
}

async fn tail(store: &Store, args: &TailArgs) -> Result<Printed, Failed> {
    let (mut newest, mut before) = (Vec::new(), None);
    let mut next = EntryId::default();
    while newest.len() < usize::from(args.limit) {
        let page = store.newest_events(before, PAGE).await?;
        if let (None, Some(last)) = (before, page.first()) {
            next = last.entry.next();
        }
        let Some(oldest) = page.last() else { break };
        before = Some(oldest.entry);
        newest.extend(page.into_iter().filter(|event| args.which.takes(event)));
    }
    newest.truncate(args.limit.into());
    newest.reverse();
    if !args.json {
        print(&row(["TIME", "EVENT", "SUBJECT", "CHARGE", "WHAT"]))?;
    }
    let shown = |event: &StoredEvent| if args.json { json_line(event) } else { table_line(event) };
    newest.iter().try_for_each(|event| print(&shown(event)))?;
    if !args.follow {
        return Ok(Printed::All);
    }
    loop {
        let events = store.events_from(next, PAGE).await?;
        match events.last() {
            Some(last) => next = last.entry.next(),
            None => tokio::time::sleep(FOLLOW).await,
        }
        events.iter().filter(|event| args.which.takes(event)).try_for_each(|event| print(&shown(event)))?;
    }
}

fn print(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.write_all(b"\n")
}

fn data(event: &StoredEvent) -> Value {
    let text = event.field("data");
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// A `CloudEvent` in JSON, with the extension `entry`.
fn json_line(event: &StoredEvent) -> String {
    let mut line = Map::new();
    line.insert("entry".to_owned(), event.entry.to_string().into());
    for name in ["specversion", "id", "source", "type", "subject", "time", "datacontenttype"] {
        line.insert(name.to_owned(), event.field(name).into());
    }
    line.insert("data".to_owned(), data(event));
    Value::Object(line).to_string()
}

fn table_line(event: &StoredEvent) -> String {
    let data = data(event);
    let text = |name: &str| data[name].as_str().unwrap_or_default();
    let money = ["captureAmount", "chargeAmount", "refundAmount", "disputeAmount"].iter().map(|name| &data[name]);
    let money = money.filter(|money| money.is_object()).map(|money| {
        let part = |name: &str| money[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}", part("amount"), part("currencyCode"))
    });
    let words = ["kind", "send", "reasonCode", "reason", "why", "for", "outcome", "state", "subscription", "message"];
    let words = words.iter().map(|name| text(name).to_owned()).filter(|word| !word.is_empty());
    let at = Some(text("at")).filter(|at| !at.is_empty()).map(|at| format!("at {at}"));
    let what: Vec<String> = money.take(1).chain(words.take(2)).chain(at).collect();
    let kind = event.field("type").trim_start_matches("amazonpay.").trim_end_matches(".v1");
    row([event.field("time"), kind, event.field("subject"), text("id"), &what.join(", ")])
}

/// Texts in events may be anybody's: nothing in a cell moves the cursor or hides what is there.
fn row(cells: [&str; 5]) -> String {
    const WIDTHS: [usize; 5] = [27, 32, 21, 24, 0];
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(WIDTHS) {
        let clean = |letter: char| if is_plain(letter) { letter } else { '?' };
        let cell: String = cell.chars().take(MAX_CELL_CHARS).map(clean).collect();
        let _ = write!(line, "{cell:<width$} ");
    }
    line.trim_end().to_owned()
}

fn is_plain(letter: char) -> bool {
    !letter.is_control()
        && !matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, subject: &str, data: &str) -> StoredEvent {
        let fields = [("type", kind), ("subject", subject), ("data", data), ("time", "2026-01-30T10:00:00Z")];
        let fields = fields.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        StoredEvent { entry: "5-1".parse().unwrap(), fields }
    }

    #[test]
    fn a_row_says_what_matters_and_hostile_text_stays_in_its_cell() {
        let data =
            r#"{"id":"a","chargeAmount":{"amount":"14.00","currencyCode":"USD"},"reasonCode":"x\u001b[2J\u202ey\nz"}"#;
        let line = table_line(&event("amazonpay.charge.declined.v1", "C01-1", data));
        assert!(line.contains(" charge.declined ") && line.contains("14.00 USD, x?[2J?y?z"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn a_row_tells_a_repeat_from_a_new_send_and_when_the_next_attempt_is() {
        let line = |kind: &str, data: &str| table_line(&event(&format!("amazonpay.{kind}.v1"), "C01-1", data));
        assert!(line("charge.attempted", r#"{"id":"a","send":"repeat","number":1}"#).ends_with(" repeat"));
        let scheduled = line("charge.scheduled", r#"{"id":"a","why":"retry","at":"2026-02-01T10:00:00Z"}"#);
        assert!(scheduled.ends_with(" retry, at 2026-02-01T10:00:00Z"), "{scheduled}");
    }

    #[test]
    fn a_permission_is_found_by_the_subject_and_in_alerts_about_the_account() {
        let of = |permission: &str| Which { permission: Some(permission.parse().unwrap()), types: Vec::new() };
        let alert = event("amazonpay.account.attention.v1", "account", r#"{"chargePermissionId":"C01-1"}"#);
        assert!(of("C01-1").takes(&alert) && !of("C01-2").takes(&alert));
        assert!(of("C01-2").takes(&event("x", "C01-2", "no JSON")));
        let captured = Which { permission: None, types: vec![EventType::ChargeCaptured] };
        assert!(captured.takes(&event("amazonpay.charge.captured.v1", "C01-1", "{}")) && !captured.takes(&alert));
    }

    #[test]
    fn a_line_of_json_is_a_cloud_event_whose_data_is_json() {
        let line: Value = serde_json::from_str(&json_line(&event("t", "s", r#"{"amount":"14.00"}"#))).unwrap();
        assert_eq!((&line["entry"], &line["data"]["amount"]), (&"5-1".into(), &"14.00".into()));
    }
}
