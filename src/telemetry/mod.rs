//! How the service tells what it does: logs, metrics, traces (`docs/TELEMETRY.md`).

pub mod metric;
pub mod trace;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use trace::Traces;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Seconds, from half a millisecond to a minute.
const BUCKETS: [f64; 16] =
    [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 45.0, 60.0];

/// Starts logging to standard output, and sends our spans to `traces`. `filter` is in the form of `RUST_LOG`. A second call changes
/// nothing.
pub fn start_logging(format: LogFormat, filter: &str, traces: Option<&Traces>) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = match format {
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        LogFormat::Text => fmt::layer().with_ansi(std::io::IsTerminal::is_terminal(&std::io::stdout())).boxed(),
    };
    let events = filter_fn(|metadata| !metadata.is_span()).with_max_level_hint(LevelFilter::TRACE);
    let lines = tracing_subscriber::registry().with(lines.with_filter(filter.and(events)));
    // Not an optional layer: one that is absent would still have every span made.
    let _ = match traces {
        Some(traces) => lines.with(traces.layer()).try_init(),
        None => lines.try_init(),
    };
}

/// Starts collecting metrics for this process. A second call gives a handle that stays empty.
#[must_use]
pub fn start_metrics() -> PrometheusHandle {
    let builder = PrometheusBuilder::new();
    let builder = builder
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .unwrap_or_else(|_| PrometheusBuilder::new());
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_ok() {
        for outcome in [
            "stored",
            "duplicate",
            "test",
            "quarantined",
            "subscription",
            "unsubscription",
            "refused",
            "unread",
            "overloaded",
            "unavailable",
        ] {
            metrics::counter!(metric::IPN, "outcome" => outcome).increment(0);
        }
        for listener in ["public", "internal"] {
            metrics::counter!(metric::CONNECTIONS_REFUSED, "listener" => listener).increment(0);
            metrics::counter!(metric::CONNECTIONS_EVICTED, "listener" => listener).increment(0);
        }
        metrics::counter!(metric::LEASE_LAPSED).increment(0);
        for kind in [
            "permission_closed",
            "permission_non_chargeable",
            "permission_chargeable",
            "instrument",
            "charge",
            "object",
        ] {
            metrics::counter!(metric::FOUND_BY_SWEEP, "kind" => kind).increment(0);
        }
        metrics::counter!(metric::LOOKS_FAILED).increment(0);
        metrics::gauge!(metric::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        metrics::counter!(metric::NEWER_RECORDS).increment(0);
    }
    handle
}
