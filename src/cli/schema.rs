//! `schema`: the contracts for machines, as this very version keeps them. `docs/api/` holds what it writes; a test compares.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};

use super::mistakes::EXIT_USAGE;
use crate::http::{internal, public};
use crate::model::event::{EventType, asyncapi, schema};

/// Print the contracts for machines: JSON Schemas of the events, AsyncAPI of the streams, OpenAPI of both listeners
///
/// Exit status: 0 printed, 2 wrong usage or nothing could be written.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    #[command(subcommand)]
    wanted: Wanted,
}

#[derive(Debug, Subcommand)]
enum Wanted {
    /// JSON Schema (draft 7) of the data of one event type, or of all, by type
    Events {
        /// Such as amazonpay.charge.captured.v1
        #[arg(value_parser = event_type)]
        r#type: Option<EventType>,
    },
    /// AsyncAPI 3 of the streams
    Asyncapi,
    /// OpenAPI 3.1 of a listener
    Openapi {
        /// Which one
        listener: Listener,
    },
    /// Write all of them as files into a folder, as in docs/api
    Write {
        /// It is made if it is missing; files of the same names are replaced
        folder: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Listener {
    /// /v1, /healthz, /readyz, /metrics
    Internal,
    /// POST /ipn
    Public,
}

fn event_type(text: &str) -> Result<EventType, String> {
    let known = EventType::ALL.iter().find(|kind| kind.as_str() == text);
    known.copied().ok_or_else(|| format!("this version has no event type {text:?}; `schema events` shows all"))
}

/// Runs the command.
#[must_use]
pub fn run(args: &SchemaArgs) -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    let written = match &args.wanted {
        Wanted::Events { r#type: Some(kind) } => print(&schema::data_schema(*kind)),
        Wanted::Events { r#type: None } => {
            let all: Map<String, Value> =
                EventType::ALL.iter().map(|kind| (kind.as_str().to_owned(), schema::data_schema(*kind))).collect();
            print(&all.into())
        }
        Wanted::Asyncapi => print(&asyncapi::document(version)),
        Wanted::Openapi { listener: Listener::Internal } => print(&internal::document(version)),
        Wanted::Openapi { listener: Listener::Public } => print(&public::document(version)),
        Wanted::Write { folder } => write(folder),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "error: {error}");
            EXIT_USAGE.into()
        }
    }
}

/// Every document: its path in `docs/api`, and its text.
#[must_use]
pub fn documents() -> Vec<(String, String)> {
    let version = env!("CARGO_PKG_VERSION");
    let mut documents: Vec<(String, String)> = EventType::ALL
        .iter()
        .map(|kind| (format!("events/{}.json", kind.as_str()), text(&schema::data_schema(*kind))))
        .collect();
    documents.push(("asyncapi.json".to_owned(), text(&asyncapi::document(version))));
    documents.push(("openapi-internal.json".to_owned(), text(&internal::document(version))));
    documents.push(("openapi-public.json".to_owned(), text(&public::document(version))));
    documents
}

fn text(document: &Value) -> String {
    format!("{document:#}\n")
}

fn print(document: &Value) -> io::Result<()> {
    io::stdout().lock().write_all(text(document).as_bytes())
}

fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder.join("events"))?;
    for (name, text) in documents() {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
