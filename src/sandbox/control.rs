//! `/sandbox-control/`: what the methods of [`Sandbox`] do for tests in this program, as plain JSON over HTTP for everybody else's.
//!
//! For callers on this host only, and not for pages in a browser. `docs/SANDBOX.md` is its manual.

mod orders;
mod shown;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::response::Response;
use axum::routing::any;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::connection::Scissors;
use super::{DisputeMove, Running, Sandbox, SandboxError};

const BODY_LIMIT: usize = 64 << 10;
/// How far the clock may be moved in all: the signing certificate ends in 2049.
const FARTHEST_AHEAD: Duration = Duration::from_hours(20 * 365 * 24);
/// Entries of a list, unless the caller says how many.
const SHOWN: usize = 100;
/// Entries of a list at most.
const MOST_SHOWN: usize = 10_000;

/// Why an order was not followed.
#[derive(Debug)]
struct Problem {
    status: u16,
    message: String,
}

impl Problem {
    fn wrong(message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into() }
    }

    fn nothing_there(path: &str) -> Self {
        let message = format!("expected a route of docs/SANDBOX.md, got /sandbox-control/{path}");
        Self { status: 404, message }
    }
}

impl From<SandboxError> for Problem {
    fn from(error: SandboxError) -> Self {
        let status = match error {
            SandboxError::UnknownPermission(_) | SandboxError::Unknown(..) => 404,
            SandboxError::NotPending(_) | SandboxError::Refused { .. } => 409,
            _ => 500,
        };
        Self { status, message: error.to_string() }
    }
}

#[derive(Clone)]
struct Control {
    running: Weak<Running>,
    /// One move at a time.
    clock_file: Arc<Mutex<PathBuf>>,
}

pub(super) fn router(running: Weak<Running>, clock_file: PathBuf) -> Router {
    let control = Control { running, clock_file: Arc::new(Mutex::new(clock_file)) };
    let route = any(entry);
    Router::new()
        .route("/sandbox-control", route.clone())
        .route("/sandbox-control/", route.clone())
        .route("/sandbox-control/{*path}", route)
        .with_state(control)
}

async fn entry(
    State(control): State<Control>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    request: Request,
) -> Response {
    let result = control.answer(&scissors, request).await;
    let (status, body) = match result {
        Ok(body) => (200, body),
        Err(problem) => (problem.status, json!({ "error": problem.message })),
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(format!("{body:#}\n"))).unwrap_or_default()
}

/// A request, taken apart.
struct Order<'a> {
    method: &'a Method,
    path: Vec<&'a str>,
    query: &'a str,
    body: &'a [u8],
}

impl Order<'_> {
    /// The body; an empty one is an empty object.
    fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let body = if self.body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { self.body };
        let mut reader = serde_json::Deserializer::from_slice(body);
        serde_path_to_error::deserialize(&mut reader).map_err(|error| Problem::wrong(format!("the body: {error}")))
    }

    fn asked(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(given, value)| (given == name).then_some(value))
    }

    /// How many entries of a list the caller wants.
    fn last(&self) -> Result<usize, Problem> {
        let Some(text) = self.asked("last") else { return Ok(SHOWN) };
        let number = text.parse().map_err(|_| Problem::wrong(format!("last: expected a number, got {text:?}")))?;
        Ok(MOST_SHOWN.min(number))
    }
}

impl Control {
    async fn answer(&self, scissors: &Scissors, request: Request) -> Result<Value, Problem> {
        let refused = |message: &str| Problem { status: 403, message: message.to_owned() };
        if !scissors.is_of_this_host() {
            return Err(refused("only callers on the host of the sandbox may control it"));
        }
        if request.headers().contains_key("origin") {
            return Err(refused("pages in a browser may not control the sandbox"));
        }
        let sandbox = self.running.upgrade().map(Sandbox);
        let sandbox = sandbox.ok_or_else(|| Problem { status: 503, message: "the sandbox stops".to_owned() })?;
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, BODY_LIMIT).await;
        let body = body.map_err(|_| Problem::wrong(format!("expected at most {BODY_LIMIT} bytes")))?;
        let path = parts.uri.path().trim_start_matches("/sandbox-control").trim_matches('/');
        let order = Order {
            method: &parts.method,
            path: path.split('/').collect(),
            query: parts.uri.query().unwrap_or_default(),
            body: &body,
        };
        if order.method == Method::GET { Self::look(&sandbox, &order) } else { self.act(&sandbox, &order) }
    }

    fn look(sandbox: &Sandbox, order: &Order<'_>) -> Result<Value, Problem> {
        match order.path.as_slice() {
            [""] => Ok(shown::account(sandbox)),
            ["clock"] => Ok(shown::clock(sandbox)),
            ["permissions", id] => shown::permission(sandbox, id),
            ["ledger"] => Ok(shown::ledger(sandbox, order.asked("permission"), order.last()?)),
            ["requests"] => Ok(shown::requests(sandbox, order.last()?)),
            ["notifications"] => Ok(shown::notifications(sandbox, order.last()?)),
            path => Err(Problem::nothing_there(&path.join("/"))),
        }
    }

    fn act(&self, sandbox: &Sandbox, order: &Order<'_>) -> Result<Value, Problem> {
        if order.method == Method::DELETE && order.path == ["faults"] {
            sandbox.clear_faults();
            return Ok(json!({}));
        }
        if order.method != Method::POST {
            return Err(Problem { status: 405, message: "expected GET or POST".to_owned() });
        }
        match order.path.as_slice() {
            ["permissions"] => {
                let id = sandbox.create_permission(orders::permission(order.read()?)?);
                shown::permission(sandbox, &id)
            }
            ["permissions", id, what] => {
                act_on_permission(sandbox, order, id, what)?;
                shown::permission(sandbox, id)
            }
            ["charges", id, what] => act_on_charge(sandbox, order, id, what),
            ["refunds", id, "settle"] => {
                let asked: orders::Settled = order.read()?;
                sandbox.settle_refund(id, asked.reason_code.as_deref())?;
                shown::refund(sandbox, id)
            }
            ["disputes", id, "state"] => {
                let asked: orders::DisputeStatus = order.read()?;
                let change = DisputeMove {
                    state: orders::dispute_state(&asked.state)?,
                    resolution: asked.resolution,
                    reason_code: asked.reason_code,
                    deadline: asked.merchant_response_deadline,
                };
                sandbox.move_dispute(id, change)?;
                shown::dispute(sandbox, id)
            }
            ["clock"] => {
                self.move_clock(sandbox, &order.read()?)?;
                Ok(shown::clock(sandbox))
            }
            ["throttle"] => {
                let throttle = orders::throttle(&order.read()?)?;
                sandbox.set_throttle(throttle);
                Ok(json!({ "throttled": throttle.is_some() }))
            }
            ["reading"] => {
                let asked: orders::NewReading = order.read()?;
                sandbox.set_reading(orders::reading(&asked.reading)?);
                Ok(json!({ "reading": asked.reading }))
            }
            ["faults"] => {
                let (operation, fault) = orders::fault(&order.read()?)?;
                sandbox.inject(operation, fault);
                Ok(json!({ "operation": operation.as_str() }))
            }
            path => Err(Problem::nothing_there(&path.join("/"))),
        }
    }

    fn move_clock(&self, sandbox: &Sandbox, asked: &orders::Move) -> Result<(), Problem> {
        let file = self.clock_file.lock().unwrap_or_else(PoisonError::into_inner);
        let clock = &sandbox.0.app.clock;
        let ahead = match (asked.advance.as_deref(), asked.to) {
            (Some(text), None) => orders::span("advance", text)?,
            (None, Some(to)) => Duration::try_from(to.duration_since(clock.now()))
                .map_err(|_| Problem::wrong(format!("to: the clock only goes forward, and it is {}", clock.now())))?,
            _ => return Err(Problem::wrong("expected either advance, such as \"3d 2h\", or to, a timestamp")),
        };
        let offset = Duration::from_millis(u64::try_from(clock.offset_ms()).unwrap_or_default()).saturating_add(ahead);
        if offset > FARTHEST_AHEAD {
            return Err(Problem::wrong("the clock may be at most 20 years ahead"));
        }
        write_clock(&file, offset)
            .map_err(|error| Problem { status: 500, message: format!("{}: {error}", file.display()) })?;
        drop(file);
        // What is due by now happens now, and is notified, not only when somebody asks.
        sandbox.books(|_| ());
        Ok(())
    }
}

/// At once for every reader.
fn write_clock(file: &Path, offset: Duration) -> std::io::Result<()> {
    let draft = file.with_extension("new");
    std::fs::write(&draft, offset.as_millis().to_string())?;
    std::fs::rename(&draft, file)
}

fn act_on_permission(sandbox: &Sandbox, order: &Order<'_>, id: &str, what: &str) -> Result<(), Problem> {
    match what {
        "next-charges" => {
            let asked: orders::Outcomes = order.read()?;
            for outcome in asked.read()? {
                sandbox.script_charge(id, outcome)?;
            }
        }
        "next-captures" => {
            let asked: orders::Outcomes = order.read()?;
            for outcome in asked.read()? {
                sandbox.script_capture(id, outcome)?;
            }
        }
        "buyer-updates-method" => {
            let asked: orders::Method = order.read()?;
            sandbox
                .buyer_updates_instrument(id, asked.descriptor.as_deref().unwrap_or("Visa ****1111 (Amazon Pay)"))?;
        }
        "buyer-deletes-method" => sandbox.buyer_deletes_instrument(id)?,
        "buyer-closes" => sandbox.buyer_closes(id)?,
        "amazon-closes" => sandbox.amazon_closes(id)?,
        "state" => {
            let asked: orders::PermissionStatus = order.read()?;
            let reasons: Vec<&str> = asked.reasons.iter().map(String::as_str).collect();
            sandbox.set_permission(id, orders::permission_state(&asked.state)?, &reasons)?;
        }
        what => return Err(Problem::nothing_there(&format!("permissions/{id}/{what}"))),
    }
    Ok(())
}

fn act_on_charge(sandbox: &Sandbox, order: &Order<'_>, id: &str, what: &str) -> Result<Value, Problem> {
    match what {
        "state" => {
            let asked: orders::ChargeStatus = order.read()?;
            sandbox.set_charge(id, orders::charge_state(&asked.state)?, asked.reason_code.as_deref())?;
            shown::charge(sandbox, id)
        }
        "decide" => {
            let asked: orders::Settled = order.read()?;
            let decline = asked.reason_code.map(|code| code.parse().map_err(Problem::wrong)).transpose()?;
            sandbox.decide(id, decline)?;
            shown::charge(sandbox, id)
        }
        "refunds" => {
            let asked: orders::Refund = order.read()?;
            let refund = sandbox.refund(id, asked.amount)?;
            shown::refund(sandbox, &refund)
        }
        "disputes" => {
            let dispute = sandbox.open_dispute(id, orders::dispute(order.read()?)?)?;
            shown::dispute(sandbox, &dispute)
        }
        what => Err(Problem::nothing_there(&format!("charges/{id}/{what}"))),
    }
}

/// For [`shown`]: timestamps as people read them.
fn text(at: Timestamp) -> String {
    at.to_string()
}
