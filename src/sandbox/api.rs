//! The HTTP side: Amazon Pay's API, the certificate of SNS, and SNS's `ConfirmSubscription`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::charges::{Keyed, invalid_simulation, simulated};
use super::connection::Scissors;
use super::faults::{Fault, Operation};
use super::keys::Keys;
use super::ledger::{Books, RequestRecord};
use super::refunds::RefundRequest;
use super::signature::{IDEMPOTENCY_KEY, RawRequest, Verifier};
use super::sns::{confirmed, new_uuid};
use super::wire::{Answer, CaptureRequest, ChargeRequest, Refusal, read_cancellation, read_closure};
use super::{PUBLIC_KEY_ID, keys};
use crate::clock::Clock;
use crate::model::ids::Region;

const BODY_LIMIT: usize = 1 << 20;

/// What the handlers share.
pub(super) struct App {
    pub(super) clock: Clock,
    pub(super) region: Region,
    pub(super) keys: &'static Keys,
    pub(super) tolerance: Mutex<Duration>,
    pub(super) books: Mutex<Books>,
    pub(super) records: broadcast::Sender<RequestRecord>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// A request to the Amazon Pay API.
struct Call {
    operation: Operation,
    /// The id in the path; empty for Create Charge and Create Refund.
    id: String,
}

/// When a request left its client.
#[derive(Debug, Clone, Copy)]
struct Came {
    order: u64,
    at: Timestamp,
    /// Set if its client has gone already.
    answered: Option<u64>,
}

enum Route {
    Call(Call),
    Certificate,
    SnsApi,
    WrongMethod,
    Unknown,
}

/// Everything goes to one handler: the signature covers the raw request line, which a router would take apart.
pub(super) fn router(app: Arc<App>) -> Router {
    Router::new().fallback(entry).with_state(app)
}

async fn entry(
    State(app): State<Arc<App>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return app.respond(&Refusal::new(400, "InvalidRequestFormat", "The body could not be read").into());
    };
    let raw = RawRequest {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    // A task of its own: what has arrived is processed even if the client has gone meanwhile.
    let shared = Arc::clone(&app);
    let task = app.tasks.spawn(async move { shared.handle(raw, &scissors).await });
    task.await.unwrap_or_else(|_| {
        app.respond(&Refusal::new(500, "InternalServerError", "The sandbox itself failed, see its output").into())
    })
}

fn route(raw: &RawRequest) -> Route {
    if raw.path == "/" {
        return if raw.method == Method::POST { Route::SnsApi } else { Route::Unknown };
    }
    if raw.path.starts_with("/SimpleNotificationService-") {
        return if raw.method == Method::GET { Route::Certificate } else { Route::WrongMethod };
    }
    // The public key id names the environment, so the prefix is not needed; it is accepted.
    let path = raw.path.strip_prefix("/sandbox").unwrap_or(&raw.path);
    // .NET's SDK ends every path with a slash.
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').skip(1).collect();
    let (method, operation, id) = match segments.as_slice() {
        ["v2", "charges"] => (Method::POST, Operation::CreateCharge, ""),
        ["v2", "charges", id] => (Method::GET, Operation::GetCharge, *id),
        ["v2", "charges", id, "capture"] => (Method::POST, Operation::CaptureCharge, *id),
        ["v2", "charges", id, "cancel"] => (Method::DELETE, Operation::CancelCharge, *id),
        ["v2", "chargePermissions", id] => (Method::GET, Operation::GetChargePermission, *id),
        ["v2", "chargePermissions", id, "close"] => (Method::DELETE, Operation::CloseChargePermission, *id),
        ["v2", "refunds"] => (Method::POST, Operation::CreateRefund, ""),
        ["v2", "refunds", id] => (Method::GET, Operation::GetRefund, *id),
        ["v2", "disputes", id] => (Method::GET, Operation::GetDispute, *id),
        _ => return Route::Unknown,
    };
    if raw.method == method { Route::Call(Call { operation, id: id.to_owned() }) } else { Route::WrongMethod }
}

impl App {
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn handle(self: &Arc<Self>, raw: RawRequest, scissors: &Scissors) -> Response {
        match route(&raw) {
            Route::Call(call) => self.call(call, raw, scissors).await,
            Route::Certificate => self.certificate(&raw.path),
            Route::SnsApi => self.confirm_subscription(&raw),
            Route::WrongMethod => {
                self.respond(&Refusal::new(405, "RequestNotSupported", "The method does not fit the path").into())
            }
            Route::Unknown => self.respond(&Refusal::not_found(&raw.path).into()),
        }
    }

    async fn call(self: &Arc<Self>, call: Call, raw: RawRequest, scissors: &Scissors) -> Response {
        let (fault, came) = {
            let mut books = self.books();
            books.received += 1;
            (books.faults.pop(call.operation), Came { order: books.received, at: self.clock.now(), answered: None })
        };
        let answer = if let Some(Fault::Late(gate)) = fault {
            let shared = Arc::clone(self);
            let came = Came { answered: Some(came.order), ..came };
            self.tasks.spawn(async move { shared.process(&call, &raw, came, Some(Fault::HoldBefore(gate))).await });
            None
        } else {
            let answer = self.process(&call, &raw, came, fault).await;
            self.books().note_answered(came.order);
            answer
        };
        if let Some(answer) = answer {
            self.respond(&answer)
        } else {
            scissors.cut();
            Response::new(Body::empty())
        }
    }

    /// Takes one request through its fault, and tells the gate that it came through.
    async fn process(&self, call: &Call, raw: &RawRequest, came: Came, fault: Option<Fault>) -> Option<Answer> {
        let gate = match &fault {
            Some(Fault::HoldBefore(gate) | Fault::HoldInside(gate) | Fault::HoldAfter(gate)) => Some(gate.clone()),
            _ => None,
        };
        let answer = self.answer_to(call, raw, came, fault).await;
        if let Some(gate) = &gate {
            gate.finish();
        }
        answer
    }

    /// `None` if the connection is to be closed without an answer.
    async fn answer_to(&self, call: &Call, raw: &RawRequest, came: Came, fault: Option<Fault>) -> Option<Answer> {
        match &fault {
            Some(Fault::Delay(time)) => self.unless_stopped(tokio::time::sleep(*time)).await?,
            Some(Fault::HoldBefore(gate)) => self.unless_stopped(gate.hold()).await?,
            Some(Fault::DropBefore) => {
                let record = new_record(call, raw, came, self.clock.now(), false);
                self.note(&mut self.books(), record);
                return None;
            }
            _ => {}
        }
        if let Some(refusal) = self.signature_refusal(raw) {
            let answer = Answer::from(refusal);
            let record = filled(new_record(call, raw, came, self.clock.now(), false), &answer);
            self.note(&mut self.books(), record);
            return Some(answer);
        }
        if let Some(Fault::HoldInside(gate)) = &fault {
            self.unless_stopped(gate.hold()).await?;
        }
        let mut answer = self.commit(call, raw, came, fault.as_ref());
        match fault {
            Some(Fault::DropAfter) => return None,
            Some(Fault::DelayAfter(time)) => self.unless_stopped(tokio::time::sleep(time)).await?,
            Some(Fault::HoldAfter(gate)) => self.unless_stopped(gate.hold()).await?,
            Some(Fault::Garbled) => answer.body = serde_json::json!({ "releaseEnvironment": "Sandbox" }),
            Some(Fault::Rewritten(from, to)) => {
                let text = answer.body.to_string().replace(from, to);
                answer.body = serde_json::from_str(&text).unwrap_or_default();
            }
            Some(Fault::StatusAfter(status, code) | Fault::StatusKept(status, code)) => {
                answer = injected(status, code).into();
            }
            _ => {}
        }
        Some(answer)
    }

    /// Evaluates and records under one lock, so that the ledger tells the order of the evaluations.
    fn commit(&self, call: &Call, raw: &RawRequest, came: Came, fault: Option<&Fault>) -> Answer {
        let now = self.clock.now();
        let mut books = self.books();
        let throttled = books.throttling.refusal(call.operation, now);
        let answer = match (throttled, fault) {
            (Some(answer), _) => answer,
            (None, Some(Fault::Status(status, code))) => injected(*status, code.clone()).into(),
            (None, _) => {
                books.catch_up(now);
                let answer = self.evaluate(&mut books, call, raw, now).unwrap_or_else(Answer::from);
                if let (Some(Fault::StatusKept(status, code)), Some(key)) = (fault, raw.header(IDEMPOTENCY_KEY)) {
                    books.pin(key, &injected(*status, code.clone()));
                }
                answer
            }
        };
        let record = filled(new_record(call, raw, came, now, true), &answer);
        self.note(&mut books, record);
        answer
    }

    fn evaluate(&self, books: &mut Books, call: &Call, raw: &RawRequest, now: Timestamp) -> Result<Answer, Refusal> {
        let region = raw.header("x-amz-pay-region").unwrap_or_default();
        if !region.eq_ignore_ascii_case(self.region.as_str()) {
            return Err(Refusal::new(400, "InvalidHeaderValue", "x-amz-pay-region is not the region of the account"));
        }
        let simulation = raw.header("x-amz-pay-simulation-code");
        let no_simulation = || simulation.map_or(Ok(()), |code| Err(invalid_simulation(code)));
        match call.operation {
            Operation::CreateCharge => {
                let key = idempotency_key(raw)?;
                let request = ChargeRequest::read(&raw.body)?;
                let simulated = simulation.map(|code| simulated(code, &request)).transpose()?;
                Ok(books.create_charge(Keyed { key, simulated }, &request, now))
            }
            Operation::CaptureCharge => {
                let key = idempotency_key(raw)?;
                no_simulation()?;
                Ok(books.capture_charge(&call.id, key, &CaptureRequest::read(&raw.body)?, now))
            }
            Operation::GetCharge => no_simulation().and_then(|()| books.get_charge(&call.id)),
            Operation::CancelCharge => {
                no_simulation()?;
                read_cancellation(&raw.body)?;
                books.cancel_charge(&call.id, now)
            }
            Operation::GetChargePermission => no_simulation().and_then(|()| books.get_permission(&call.id, now)),
            Operation::CloseChargePermission => {
                let reason = match simulation {
                    None => "MerchantClosed",
                    Some("AmazonClosed") => "AmazonClosed",
                    Some(code) => return Err(invalid_simulation(code)),
                };
                books.close_permission(&call.id, read_closure(&raw.body)?, reason, now)
            }
            Operation::CreateRefund => {
                let key = idempotency_key(raw)?;
                no_simulation()?;
                Ok(books.create_refund(key, &RefundRequest::read(&raw.body)?, now))
            }
            Operation::GetRefund => no_simulation().and_then(|()| books.get_refund(&call.id)),
            Operation::GetDispute => no_simulation().and_then(|()| books.get_dispute(&call.id)),
        }
    }

    fn signature_refusal(&self, raw: &RawRequest) -> Option<Refusal> {
        let verifier = Verifier {
            public_key: self.keys.merchant.to_public_key(),
            public_key_id: PUBLIC_KEY_ID.to_owned(),
            tolerance: *self.tolerance.lock().unwrap_or_else(PoisonError::into_inner),
        };
        let error = verifier.verify(raw, self.clock.now()).err()?;
        let message = format!("Unable to verify signature, signing String [{}]: {error}", error.string_to_sign());
        Some(Refusal::new(403, "InvalidRequestSignature", message))
    }

    fn note(&self, books: &mut Books, record: RequestRecord) {
        books.note(record.clone());
        // Nobody may be listening.
        let _ = self.records.send(record);
    }

    /// `None` if the sandbox stops first.
    async fn unless_stopped(&self, wait: impl Future<Output = ()> + Send) -> Option<()> {
        tokio::select! {
            () = wait => Some(()),
            () = self.stop.cancelled() => None,
        }
    }

    fn certificate(&self, path: &str) -> Response {
        let forger = keys::made_forger();
        let known = [Some(&self.keys.sns), forger].into_iter().flatten();
        match known.into_iter().find(|identity| path[1..] == identity.file_name) {
            Some(identity) => self.answer(200, "application/x-pem-file", identity.leaf_pem.clone()),
            None => self.answer(404, "text/plain", "no such certificate".to_owned()),
        }
    }

    /// `Action=ConfirmSubscription` of the SNS query API, unsigned. Notes the token.
    fn confirm_subscription(&self, raw: &RawRequest) -> Response {
        let Some((token, xml)) = confirmed(&String::from_utf8_lossy(&raw.body)) else {
            return self.answer(400, "text/plain", "expected Action=ConfirmSubscription and a Token".to_owned());
        };
        self.books().confirmed_tokens.push(token);
        self.answer(200, "text/xml", xml)
    }

    fn respond(&self, answer: &Answer) -> Response {
        let mut response = self.answer(answer.status, "application/json;charset=UTF-8", answer.body.to_string());
        if let Some(seconds) = answer.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }

    fn answer(&self, status: u16, content_type: &str, body: String) -> Response {
        // The sandbox's own time: with a moved clock the date that hyper adds would look like a clock that is wrong.
        let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&self.clock.now()).unwrap_or_default();
        Response::builder()
            .status(status)
            .header("content-type", content_type)
            .header("x-amz-pay-request-id", new_uuid())
            .header("date", date)
            .body(Body::from(body))
            .unwrap_or_else(|_| {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            })
    }
}

fn injected(status: u16, code: String) -> Refusal {
    Refusal::new(status, code, "Injected by the sandbox")
}

fn idempotency_key(raw: &RawRequest) -> Result<&str, Refusal> {
    if !raw.headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(Refusal::new(400, "MissingHeader", format!("The header {IDEMPOTENCY_KEY} is missing")));
    }
    let key = raw.header(IDEMPOTENCY_KEY).unwrap_or_default();
    if key.is_empty() {
        return Err(Refusal::new(400, "MissingHeaderValue", format!("The header {IDEMPOTENCY_KEY} is empty")));
    }
    if key.len() > 32 || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return Err(Refusal::new(400, "InvalidHeaderValue", format!("The header {IDEMPOTENCY_KEY} is malformed")));
    }
    Ok(key)
}

fn new_record(call: &Call, raw: &RawRequest, came: Came, at: Timestamp, signature_ok: bool) -> RequestRecord {
    let in_path = || Some(call.id.clone());
    let in_body = |name: &str| {
        let body: serde_json::Value = serde_json::from_slice(&raw.body).unwrap_or_default();
        body[name].as_str().map(str::to_owned)
    };
    let (permission, charge, object) = match call.operation {
        Operation::CreateCharge => (in_body("chargePermissionId"), None, None),
        Operation::CreateRefund => (None, in_body("chargeId"), None),
        Operation::GetChargePermission | Operation::CloseChargePermission => (in_path(), None, None),
        Operation::GetCharge | Operation::CaptureCharge | Operation::CancelCharge => (None, in_path(), None),
        Operation::GetRefund | Operation::GetDispute => (None, None, in_path()),
    };
    let custom_information = (call.operation == Operation::CreateCharge).then(|| {
        let body: serde_json::Value = serde_json::from_slice(&raw.body).unwrap_or_default();
        body["merchantMetadata"]["customInformation"].as_str().map(str::to_owned)
    });
    RequestRecord {
        at,
        received: came.order,
        received_at: came.at,
        answered: came.answered,
        operation: call.operation,
        permission,
        charge,
        object,
        idempotency_key: raw.header(IDEMPOTENCY_KEY).map(str::to_owned),
        custom_information: custom_information.flatten(),
        status: 0,
        reason_code: None,
        state: None,
        replayed: false,
        signature_ok,
    }
}

fn filled(record: RequestRecord, answer: &Answer) -> RequestRecord {
    RequestRecord {
        permission: record.permission.or_else(|| answer.permission_id.clone()),
        charge: record.charge.or_else(|| answer.charge_id.clone()),
        object: record.object.or_else(|| answer.object_id.clone()),
        status: answer.status,
        reason_code: answer.reason_code.clone(),
        state: answer.body["statusDetails"]["state"].as_str().map(str::to_owned),
        replayed: answer.replayed,
        ..record
    }
}
