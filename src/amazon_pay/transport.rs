//! The two HTTP clients: a pooled one for looks, and one that sends a request once, over a connection of its own, for charges.
//!
//! Neither follows redirects, retries, or takes a proxy from the environment. Bodies are read up to a bound. What is logged is the
//! operation, Amazon's request id, status, reason code and duration; never a body, a key or an address.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Method, Request, Response, Url};
use tracing::{Instrument, Span};

use super::classify::{NoReply, bounded_retry_after};
use super::wire;
use crate::clock::{Clock, Stopwatch};
use crate::model::quota::Operation;
use crate::telemetry::{metric, trace};

/// The longest body that is read. The largest answer we know of, a charge permission, has about 3 KiB.
pub(super) const MAX_BODY_BYTES: usize = 256 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const USER_AGENT: &str = concat!("amazon-pay-ipn/", env!("CARGO_PKG_VERSION"));
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-pay-request-id");

/// A request that is ready to go out as it is.
pub(super) struct Outgoing {
    /// What it is for, in the log.
    pub(super) operation: &'static str,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// An answer, as far as anybody here needs it.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) retry_after: Option<String>,
    pub(super) date: Option<String>,
    /// The whole body; `None` if it was too long or broke off.
    pub(super) body: Option<Vec<u8>>,
}

/// Which client a request goes out with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Pooled connections: for what may be repeated without harm.
    Pooled,
    /// A fresh connection for one request: for what must go out once or never.
    Once,
}

pub(super) struct Transport {
    pooled: Client,
    once: Client,
    clock: Clock,
    skew: Mutex<Option<SignedDuration>>,
    /// Operations that were answered 429 and not told of yet, with the longest `Retry-After`.
    throttled: Mutex<BTreeMap<Operation, Duration>>,
}

impl Transport {
    /// `https_only` is off only where the address was replaced by one without TLS, in a sandbox.
    pub(super) fn new(timeout: Duration, https_only: bool, clock: Clock) -> Result<Self, reqwest::Error> {
        let common = || {
            Client::builder()
                .user_agent(USER_AGENT)
                .https_only(https_only)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .no_proxy()
                .retry(reqwest::retry::never())
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(timeout)
        };
        // No pool: hyper repeats a request that it could not write to a connection taken from the pool. That is harmless for a
        // look; for a charge it would be a send that nobody marked. HTTP/1 only: one connection carries one request and ends
        // with it, and no GOAWAY or REFUSED_STREAM invites to send it again.
        let once = common().pool_max_idle_per_host(0).http1_only();
        Ok(Self {
            pooled: common().build()?,
            once: abandoned_by_the_kernel_after(timeout, once).build()?,
            clock,
            skew: Mutex::new(None),
            throttled: Mutex::default(),
        })
    }

    /// Sends a request, once.
    pub(super) async fn call(&self, way: Way, outgoing: Outgoing) -> Result<Reply, NoReply> {
        let Outgoing { operation, method, url, headers, body } = outgoing;
        let mut request = Request::new(method, url);
        *request.headers_mut() = headers;
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        }
        let client = match way {
            Way::Pooled => &self.pooled,
            Way::Once => &self.once,
        };
        let stopwatch = Stopwatch::start();
        let span = trace::call(operation, request.method().as_str(), request.url().host_str());
        let answered = client.execute(request).instrument(span.clone()).await;
        match answered {
            Ok(response) => {
                if way == Way::Once {
                    crash_point!(AnswerBegun);
                }
                Ok(self.read(operation, response, &stopwatch, &span).await)
            }
            Err(error) => {
                let why = if error.is_connect() {
                    NoReply::NotConnected
                } else if error.is_timeout() {
                    NoReply::TimedOut
                } else {
                    NoReply::Lost
                };
                took(operation, "none", stopwatch.elapsed());
                trace::unanswered(&span, &why.to_string());
                let duration_ms = millis(stopwatch.elapsed());
                // The causes speak of sockets and certificates, not of what was sent; the address is taken out.
                let cause = causes(&error.without_url());
                tracing::warn!(operation, duration_ms, %why, cause, "Amazon Pay gave no answer");
                Err(why)
            }
        }
    }

    /// Our clock minus Amazon's at the last answer that had a `Date`.
    pub(super) fn clock_skew(&self) -> Option<SignedDuration> {
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, operation: &'static str, mut response: Response, stopwatch: &Stopwatch, span: &Span) -> Reply {
        let status = response.status().as_u16();
        let header = |name: &HeaderName| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let (retry_after, date, request_id) = (header(&RETRY_AFTER), header(&DATE), header(&REQUEST_ID));
        self.note_date(date.as_deref());
        if status == 429 {
            let retry_after = retry_after.as_deref().and_then(|value| bounded_retry_after(value, date.as_deref()));
            self.note_throttled(operation, retry_after.unwrap_or_default());
        }
        let body = bounded_body(&mut response).await;
        let reason_code = body.as_deref().filter(|_| status >= 400).and_then(wire::reason_code);
        let reason_code = reason_code.as_deref().map(wire::printable);
        // The id keeps its dashes; anything that could upset a log does not get in.
        let request_id = request_id.filter(|id| id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_graphic()));
        took(operation, class_of(status), stopwatch.elapsed());
        trace::answered(span, status, request_id.as_deref(), reason_code.as_deref());
        let duration_ms = millis(stopwatch.elapsed());
        if status < 300 {
            tracing::debug!(operation, status, request_id, duration_ms, "Amazon Pay answered");
        } else {
            tracing::info!(operation, status, reason_code, request_id, duration_ms, "Amazon Pay answered");
        }
        Reply { status, retry_after, date, body }
    }

    /// The operations that were answered 429 since the last call of this, each with the longest `Retry-After` (0 if Amazon gave none).
    pub(super) fn take_throttled(&self) -> Vec<(Operation, Duration)> {
        let mut throttled = self.throttled.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *throttled).into_iter().collect()
    }

    fn note_throttled(&self, operation: &str, retry_after: Duration) {
        tracing::warn!(operation, retry_after_s = retry_after.as_secs(), "Amazon Pay throttles this account");
        if let Some(operation) = Operation::parse(operation) {
            let mut throttled = self.throttled.lock().unwrap_or_else(PoisonError::into_inner);
            let longest = throttled.entry(operation).or_default();
            *longest = retry_after.max(*longest);
        }
    }

    fn note_date(&self, date: Option<&str>) {
        let parser = rfc2822::DateTimeParser::new();
        if let Some(theirs) = date.and_then(|date| parser.parse_timestamp(date).ok()) {
            let skew = self.clock.now().duration_since(theirs);
            *self.skew.lock().unwrap_or_else(PoisonError::into_inner) = Some(skew);
        }
    }
}

/// Closing a connection does not take back what lies in our own send buffer: the kernel goes on delivering it for minutes. With
/// this, bytes that nobody acknowledges for `timeout` are given up, so a request that we took as lost leaves this machine within
/// two time-outs of the send or never.
fn abandoned_by_the_kernel_after(timeout: Duration, builder: ClientBuilder) -> ClientBuilder {
    #[cfg(target_os = "linux")]
    let builder = builder.tcp_user_timeout(timeout);
    #[cfg(not(target_os = "linux"))]
    let _ = timeout;
    builder
}

async fn bounded_body(response: &mut Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Some(body),
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_BODY_BYTES => body.extend_from_slice(&chunk),
            Ok(Some(_)) | Err(_) => return None,
        }
    }
}

/// How long Amazon took, by what came of it.
fn took(operation: &'static str, status: &'static str, duration: Duration) {
    metrics::histogram!(metric::AMAZON_SECONDS, "operation" => operation, "status" => status).record(duration);
}

fn class_of(status: u16) -> &'static str {
    match status {
        200..300 => "2xx",
        429 => "429",
        300..500 => "4xx",
        _ => "5xx",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
