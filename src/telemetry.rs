//! Log set-up and every metric name. `docs/METRICS.md` lists the metrics; a test holds the two together.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Names of the metrics.
pub mod metric {
    /// Histogram: time from a request's arrival at `POST /ipn` to its answer. Label `status`.
    pub const IPN_SECONDS: &str = "ipn_seconds";
    /// Counter: notifications by `outcome`: stored, duplicate, test, quarantined, subscription, unsubscription, refused, unavailable.
    pub const IPN: &str = "ipn_total";
    /// Counter: messages refused, by the `check` that refused them.
    pub const IPN_REFUSED: &str = "ipn_refused_total";
    /// Counter: messages verified, by how far their certificate's issuer is proven (`chain`: proven, unproven, pinned) and by
    /// `signature_version`.
    pub const SNS_VERIFIED: &str = "sns_verified_total";
    /// Counter: signing certificates needed, by `outcome`: held, fetched, unacceptable, failed, remembered (a failure of the last
    /// seconds), `over_budget` (too many new addresses).
    pub const SNS_CERTIFICATES: &str = "sns_certificates_total";
    /// Histogram: one reconciliation, from claim to commit.
    pub const RECONCILIATION_SECONDS: &str = "reconciliation_seconds";
    /// Counter: leases that ran out before they were renewed. Should stay at zero.
    pub const LEASE_LAPSED: &str = "lease_lapsed_total";
    /// Counter: changes that the sweep found and no notification told of, by `kind`: `permission_closed`, `permission_non_chargeable`,
    /// `permission_chargeable`, instrument, charge, object (a refund or a dispute).
    pub const FOUND_BY_SWEEP: &str = "found_by_sweep_total";
    /// Gauge: time since the last notification that names work was accepted, by any instance. Not there before the first.
    pub const SECONDS_SINCE_NOTIFICATION: &str = "seconds_since_notification";
    /// Counter: looks at a charge permission that Amazon did not answer, or refused to this account.
    pub const LOOKS_FAILED: &str = "looks_failed_total";
    /// Counter: charges sent, by `verdict`.
    pub const CHARGES_SENT: &str = "charges_sent_total";
    /// Counter: captures sent, by `verdict`.
    pub const CAPTURES_SENT: &str = "captures_sent_total";
    /// Counter: answers 429, by `operation`.
    pub const THROTTLED: &str = "throttled_total";
    /// Gauge: permissions that wait for tokens, by `class`.
    pub const QUOTA_WAITING: &str = "quota_waiting";
    /// Gauge: tokens that are there, by `operation`; below 0 while more was given than there was.
    pub const QUOTA_TOKENS: &str = "quota_tokens";
    /// Gauge: 1 while the account is at fault.
    pub const ACCOUNT_FAULT: &str = "account_fault";
    /// Histogram: one Redis script, by `script`.
    pub const REDIS_SCRIPT_SECONDS: &str = "redis_script_seconds";
    /// Gauge: entries of the streams and the schedule, by `what`: events, journal, quarantine, scheduled.
    pub const LEVEL: &str = "level";
    /// Gauge: events that none of a consumer group has read, by `group`. Not there where Redis cannot say.
    pub const CONSUMER_LAG: &str = "consumer_lag";
    /// Gauge: events that a consumer group has read and not acknowledged, by `group`.
    pub const CONSUMER_PENDING: &str = "consumer_pending";
    /// Gauge: age of the oldest event that a consumer group has not acknowledged, by `group`.
    pub const CONSUMER_BEHIND_SECONDS: &str = "consumer_behind_seconds";
    /// Gauge: connections that are open, by `listener`: public, internal.
    pub const OPEN_CONNECTIONS: &str = "open_connections";
    /// Counter: connections answered 503 and closed because too many were open and a request was handled on each, by `listener`.
    pub const CONNECTIONS_REFUSED: &str = "connections_refused_total";
    /// Counter: connections closed to make room for new ones, because they had waited longest for their peer, by `listener`.
    pub const CONNECTIONS_EVICTED: &str = "connections_evicted_total";

    /// Counter: times that a permission was put off because a newer version had written it, or a charge of it.
    pub const NEWER_RECORDS: &str = "newer_records_total";
    /// Gauge: 1 while Redis keeps its data less safely than this service asks for, or does not say.
    pub const UNSAFE_DURABILITY: &str = "unsafe_durability";
    /// Gauge: tasks of the async runtime that have not ended. Grows with connections and workers, never with time.
    pub const TASKS: &str = "tasks";

    /// All of them.
    pub const ALL: [&str; 27] = [
        IPN_SECONDS,
        IPN,
        IPN_REFUSED,
        SNS_VERIFIED,
        SNS_CERTIFICATES,
        RECONCILIATION_SECONDS,
        LEASE_LAPSED,
        FOUND_BY_SWEEP,
        SECONDS_SINCE_NOTIFICATION,
        LOOKS_FAILED,
        CHARGES_SENT,
        CAPTURES_SENT,
        THROTTLED,
        QUOTA_WAITING,
        QUOTA_TOKENS,
        ACCOUNT_FAULT,
        REDIS_SCRIPT_SECONDS,
        LEVEL,
        CONSUMER_LAG,
        CONSUMER_PENDING,
        CONSUMER_BEHIND_SECONDS,
        OPEN_CONNECTIONS,
        CONNECTIONS_REFUSED,
        CONNECTIONS_EVICTED,
        NEWER_RECORDS,
        UNSAFE_DURABILITY,
        TASKS,
    ];
}

/// Seconds, from half a millisecond to a minute.
const BUCKETS: [f64; 16] =
    [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 45.0, 60.0];

/// Starts logging to standard output. `filter` is in the form of `RUST_LOG`. A second call changes nothing.
pub fn start_logging(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(true);
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stdout())).try_init(),
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
        for outcome in
            ["stored", "duplicate", "test", "quarantined", "subscription", "unsubscription", "refused", "unavailable"]
        {
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
        metrics::counter!(metric::NEWER_RECORDS).increment(0);
    }
    handle
}
