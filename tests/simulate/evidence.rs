//! What the auditor may look at: the sandbox's own ledger, the public streams, the public API, and what the outside world did and
//! was answered. Nothing of the service's code.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use amazon_pay_ipn::sandbox::Ledger;
use serde_json::Value;

/// A place in the stream of events: what comes after it was written later.
pub type Place = (u64, u64);

/// An entry of the stream of events.
#[derive(Debug, Clone)]
pub struct Event {
    pub place: Place,
    pub id: String,
    /// Without `amazonpay.` and `.v1`.
    pub kind: String,
    pub subject: String,
    /// When it was written, by the service's clock.
    pub ms: i64,
    pub data: Value,
}

impl Event {
    /// From the fields of the stream; the error says what is wrong with them.
    pub fn read(stream_id: &str, fields: &HashMap<String, String>) -> Result<Self, String> {
        let place = place(stream_id).ok_or_else(|| format!("stream id {stream_id}"))?;
        let field = |name: &str| {
            let value = fields.get(name).filter(|value| !value.is_empty()).cloned();
            value.ok_or_else(|| format!("event {stream_id} has no {name}"))
        };
        for name in ["specversion", "source", "time", "datacontenttype"] {
            field(name)?;
        }
        let (id, kind) = (field("id")?, field("type")?);
        let short = kind.strip_prefix("amazonpay.").and_then(|kind| kind.strip_suffix(".v1"));
        let short = short.ok_or_else(|| format!("event type {kind}"))?.to_owned();
        let ms = id.rsplit_once('-').and_then(|(_, ms)| ms.parse().ok()).ok_or_else(|| format!("event id {id}"))?;
        let data = serde_json::from_str(&field("data")?).map_err(|error| format!("data of {id}: {error}"))?;
        Ok(Self { place, id, kind: short, subject: field("subject")?, ms, data })
    }

    pub fn text(&self, name: &str) -> &str {
        self.data[name].as_str().unwrap_or_default()
    }

    /// The charge that it is about, by the caller's id.
    pub fn intent(&self) -> Option<&str> {
        if self.kind.starts_with("charge.") { self.data["id"].as_str() } else { None }
    }

    pub fn number(&self) -> u64 {
        self.data["number"].as_u64().unwrap_or_default()
    }

    pub fn is_capture(&self) -> bool {
        self.text("send") == "capture"
    }
}

pub fn place(stream_id: &str) -> Option<Place> {
    let (ms, count) = stream_id.split_once('-')?;
    Some((ms.parse().ok()?, count.parse().ok()?))
}

/// A submission that was answered 202.
#[derive(Debug, Clone)]
pub struct Submission {
    pub permission: String,
    /// Attempts that the caller had made before.
    pub attempts_before: u64,
}

/// From the answer that it is on (its place in the stream) to the request that takes it back.
#[derive(Debug, Clone)]
pub struct Span {
    pub from: Place,
    pub to: Option<Place>,
}

impl Span {
    pub fn holds(&self, place: Place) -> bool {
        place > self.from && self.to.is_none_or(|to| place <= to)
    }
}

/// What the outside world did, and what the service answered.
#[derive(Debug, Default)]
pub struct Deeds {
    pub submissions: BTreeMap<String, Submission>,
    /// A cancellation was answered 200 or 202 at this place.
    pub cancellations: Vec<(String, Place)>,
    pub stops: Vec<Span>,
    /// Of a charge or a permission.
    pub pauses: Vec<(String, Span)>,
    /// A closing was answered 202.
    pub closings: Vec<(String, Place)>,
    /// `resolve` as `new_number`, of a charge.
    pub new_numbers: BTreeSet<String>,
    /// `resolve` in any way.
    pub resolved: BTreeSet<String>,
    /// Message ids answered 200, with the object and when it was published (ms).
    pub accepted: BTreeMap<String, (String, i64)>,
    /// Genuine message ids that were posted.
    pub posted: BTreeSet<String>,
    /// Genuine messages about another merchant.
    pub strangers: BTreeSet<String>,
    pub forged: BTreeSet<String>,
    /// Objects that only forged messages name.
    pub forged_objects: BTreeSet<String>,
    /// When the buyer or Amazon last changed a permission (ms, Amazon's clock).
    pub changes: BTreeMap<String, i64>,
    /// Whether Amazon's clock and ours ever differed.
    pub skewed: bool,
    /// The requests of workers that had stood still and went on (`RequestRecord::received`).
    pub woken: Vec<RangeInclusive<u64>>,
    /// Whether a worker ever stood still, or died, with calls reserved.
    pub interrupted: bool,
    /// Whether something happened that the protocol does not claim to survive.
    pub beyond: bool,
}

/// The rules of this run that the auditor must know.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub max_attempts: u64,
    /// X in milliseconds.
    pub x_ms: i64,
    /// The lease of a worker in milliseconds.
    pub lease_ms: i64,
    /// Tokens and tokens per second of each operation, where it is scarce.
    pub quota: Option<(f64, f64)>,
}

/// All of it, at the end of a run.
#[derive(Debug)]
pub struct Evidence<'a> {
    pub rules: Rules,
    pub ledger: Ledger,
    pub events: Vec<Event>,
    pub journal: Vec<HashMap<String, String>>,
    pub quarantine: Vec<HashMap<String, String>>,
    /// `GET /v1/charges/{id}`.
    pub charges: BTreeMap<String, Value>,
    /// `GET /v1/charge-permissions/{id}`.
    pub permissions: BTreeMap<String, Value>,
    /// What the sandbox says of them.
    pub true_states: BTreeMap<String, String>,
    pub deeds: &'a Deeds,
}
