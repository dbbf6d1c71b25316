//! Traces: which notification led to which reconciliation, and what Amazon was asked in it (`docs/TELEMETRY.md`).
//!
//! Nothing of a trace is kept in Redis. The trace that accepts a notification has ids made from its `MessageId`, and the hint that the
//! notification leaves behind names that: so a reconciliation can point to it, hours later, in another process, although no context was
//! ever handed on. Whether a trace is kept is decided by its id alone, so all instances decide alike.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, Sampler, SdkTracerProvider, SpanData};
use ring::digest::{SHA256, digest};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

/// The target of our spans: they go to the collector, and never into the log.
const TARGET: &str = "amazon_pay_ipn::trace";
/// The service's name, unless `OTEL_SERVICE_NAME` gives another.
const SERVICE: &str = "amazon-pay-ipn";
/// How long the last spans may take to leave when the process ends.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// How long a collector may take for a batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where traces go.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSettings {
    /// A collector that takes OTLP over HTTP, for example `http://127.0.0.1:4318`; spans go to `/v1/traces` of it.
    pub endpoint: String,
    /// The part of all traces that is kept, 0 to 1.
    pub share: f64,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// No client.
    #[error("no HTTP client could be made")]
    Client(#[from] reqwest::Error),
    /// No thread to make one.
    #[error("no HTTP client could be made: the thread that makes it ended early")]
    Thread,
    /// No exporter.
    #[error("the collector's address is not usable")]
    Exporter(#[from] ExporterBuildError),
}

/// The way of spans to the collector.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Spans are collected in the background and sent in batches; a collector that does not answer costs spans and nothing else.
    ///
    /// # Errors
    /// When the address is none, or no HTTP client can be made.
    pub fn start(settings: &TraceSettings) -> Result<Self, TraceError> {
        let endpoint = format!("{}/v1/traces", settings.endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client()?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint);
        let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        // A name from the environment goes before ours.
        let named = Resource::builder().build().get(&Key::from_static_str("service.name"));
        let is_named = named.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
        let resource = if is_named { resource } else { resource.with_service_name(SERVICE) }.build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Telling { exporter: exporter.build()?, failed: AtomicBool::new(false) })
            .with_id_generator(Ids(RandomIdGenerator::default()))
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.share))))
            .with_resource(resource)
            .build();
        Ok(Self(provider))
    }

    /// The part of the subscriber that listens to our spans.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(SERVICE))
            // Which message a request is about is known only after it was verified; its ids are made from that.
            .with_context_activation(false)
            .with_threads(false)
            .with_location(false)
            .with_tracked_inactivity(false)
            .with_filter(
                filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET)
                    .with_max_level_hint(LevelFilter::INFO),
            )
    }

    /// Sends what is left; waits for it up to 3 s.
    pub fn end(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the last spans did not reach the collector");
        }
    }
}

/// Says once that the collector does not take spans, and once that it does again.
#[derive(Debug)]
struct Telling {
    exporter: SpanExporter,
    failed: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Telling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let exported = self.exporter.export(batch).await;
        match (&exported, self.failed.swap(exported.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, count, "the collector does not take traces; spans are dropped until it does");
            }
            (Ok(()), true) => tracing::info!("the collector takes traces again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// As every other client here: no proxy from the environment, no redirects. It blocks, so it is made where no runtime is, and used on the
/// thread that sends the batches.
fn client() -> Result<reqwest::blocking::Client, TraceError> {
    let make = || {
        let client = reqwest::blocking::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        client.timeout(TIMEOUT).build()
    };
    Ok(std::thread::spawn(make).join().map_err(|_| TraceError::Thread)??)
}

/// A request at `POST /ipn`.
#[must_use]
pub fn receipt() -> Span {
    tracing::info_span!(
        target: TARGET,
        "POST /ipn",
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = "POST",
        http.route = "/ipn",
        http.response.status_code = tracing::field::Empty,
        messaging.system = "aws_sns",
        messaging.message.id = tracing::field::Empty,
        amazon_pay.outcome = tracing::field::Empty,
    )
}

/// The request was about this message.
pub fn of_message(span: &Span, message_id: &str) {
    span.record("messaging.message.id", message_id);
}

/// The request was the first with this message: its span gets the ids that every process can make from `message_id`.
pub fn first_of_message(span: &Span, message_id: &str) {
    if span.is_disabled() {
        return;
    }
    of_message(span, message_id);
    FORCED.set(Some(ids_of(message_id)));
    let _built = span.context();
    FORCED.set(None);
}

/// The request was another delivery of a message: its span points to the first.
pub fn again(span: &Span, message_id: &str) {
    if span.is_disabled() {
        return;
    }
    of_message(span, message_id);
    span.add_link(context_of(message_id));
}

/// The request was answered.
pub fn received(span: &Span, status: u16, outcome: &str) {
    span.record("http.response.status_code", status);
    span.record("amazon_pay.outcome", outcome);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// A reconciliation of a charge permission, with the messages whose notifications it works on.
#[must_use]
pub fn reconciliation<'a>(permission: &str, messages: impl IntoIterator<Item = &'a str>) -> Span {
    let span = tracing::info_span!(
        target: TARGET,
        "reconcile",
        otel.kind = "consumer",
        otel.status_code = tracing::field::Empty,
        amazon_pay.charge_permission.id = permission,
        amazon_pay.outcome = tracing::field::Empty,
    );
    if !span.is_disabled() {
        messages.into_iter().for_each(|message| span.add_link(context_of(message)));
    }
    span
}

/// A reconciliation came to its end; `failed`: for a reason that somebody must mend.
pub fn reconciled(span: &Span, outcome: &str, failed: bool) {
    span.record("amazon_pay.outcome", outcome);
    if failed {
        span.record("otel.status_code", "ERROR");
    }
}

/// A call to Amazon, as a part of what goes on.
#[must_use]
pub fn call(operation: &str, method: &str, host: Option<&str>) -> Span {
    tracing::info_span!(
        target: TARGET,
        "call",
        otel.name = operation,
        otel.kind = "client",
        otel.status_code = tracing::field::Empty,
        http.request.method = method,
        server.address = host,
        http.response.status_code = tracing::field::Empty,
        amazon_pay.request.id = tracing::field::Empty,
        amazon_pay.reason_code = tracing::field::Empty,
        error.type = tracing::field::Empty,
    )
}

/// Amazon answered a call.
pub fn answered(span: &Span, status: u16, request_id: Option<&str>, reason_code: Option<&str>) {
    span.record("http.response.status_code", status);
    if let Some(request_id) = request_id {
        span.record("amazon_pay.request.id", request_id);
    }
    if let Some(reason_code) = reason_code {
        span.record("amazon_pay.reason_code", reason_code);
    }
    if status >= 400 {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", status.to_string());
    }
}

/// Amazon did not answer a call.
pub fn unanswered(span: &Span, why: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", why);
}

thread_local! {
    /// The ids of the span that is being built on this thread, where they are not random.
    static FORCED: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

#[derive(Debug)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        FORCED.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        FORCED.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

/// The ids of the span that accepted a message: the first 16 bytes of the SHA-256 of its id, and the 8 after them.
fn ids_of(message_id: &str) -> (TraceId, SpanId) {
    let digest = digest(&SHA256, message_id.as_bytes());
    let (mut trace, mut span) = ([0; 16], [0; 8]);
    trace.copy_from_slice(&digest.as_ref()[..16]);
    span.copy_from_slice(&digest.as_ref()[16..24]);
    (TraceId::from_bytes(trace), SpanId::from_bytes(span))
}

fn context_of(message_id: &str) -> SpanContext {
    let (trace, span) = ids_of(message_id);
    SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE)
}
