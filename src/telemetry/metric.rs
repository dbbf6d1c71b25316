//! The name of every metric. `docs/METRICS.md` says what each means; a test holds the two together.

/// Histogram: time from a request's arrival at `POST /ipn` to its answer. Label `status`.
pub const IPN_SECONDS: &str = "amazon_pay_ipn_answer_seconds";
/// Counter: notifications by `outcome`: stored, duplicate, test, quarantined, subscription, unsubscription, refused,
/// unread, overloaded, unavailable.
pub const IPN: &str = "amazon_pay_ipn_messages_total";
/// Counter: messages refused, by the `check` that refused them.
pub const IPN_REFUSED: &str = "amazon_pay_ipn_messages_refused_total";
/// Counter: messages verified, by how far their certificate's issuer is proven (`chain`: proven, unproven, pinned) and by
/// `signature_version`.
pub const SNS_VERIFIED: &str = "amazon_pay_ipn_sns_verified_total";
/// Counter: signing certificates needed, by `outcome`: held, fetched, unacceptable, failed, remembered (a failure of the last
/// seconds), `over_budget` (too many new addresses).
pub const SNS_CERTIFICATES: &str = "amazon_pay_ipn_sns_certificates_total";
/// Histogram: one reconciliation, from claim to commit.
pub const RECONCILIATION_SECONDS: &str = "amazon_pay_ipn_reconciliation_seconds";
/// Counter: leases that ran out before they were renewed. Should stay at zero.
pub const LEASE_LAPSED: &str = "amazon_pay_ipn_lease_lapsed_total";
/// Counter: changes that the sweep found and no notification told of, by `kind`: `permission_closed`, `permission_non_chargeable`,
/// `permission_chargeable`, instrument, charge, object (a refund or a dispute).
pub const FOUND_BY_SWEEP: &str = "amazon_pay_ipn_found_by_sweep_total";
/// Gauge: time since the last notification that names work was accepted, by any instance. Not there before the first.
pub const SECONDS_SINCE_NOTIFICATION: &str = "amazon_pay_ipn_seconds_since_notification";
/// Counter: looks at a charge permission that Amazon did not answer, or refused to this account.
pub const LOOKS_FAILED: &str = "amazon_pay_ipn_looks_failed_total";
/// Counter: charges sent, by `verdict`.
pub const CHARGES_SENT: &str = "amazon_pay_ipn_charges_sent_total";
/// Counter: captures sent, by `verdict`.
pub const CAPTURES_SENT: &str = "amazon_pay_ipn_captures_sent_total";
/// Histogram: a call to Amazon, from its first byte to the answer's last, by `operation` and `status`: 2xx, 4xx, 429, 5xx, none.
pub const AMAZON_SECONDS: &str = "amazon_pay_ipn_amazon_seconds";
/// Counter: charges that ended, by `end` (`at_once`, recovered, lost, canceled) and `reason`, the last one they were declined for.
pub const CHARGES_ENDED: &str = "amazon_pay_ipn_charges_ended_total";
/// Gauge that only grows: money that was captured after a decline, in the currency's major unit, by `currency`.
pub const MONEY_RECOVERED: &str = "amazon_pay_ipn_money_recovered";
/// Counter: answers 429, by `operation`.
pub const THROTTLED: &str = "amazon_pay_ipn_throttled_total";
/// Gauge: permissions that wait for tokens, by `class`.
pub const QUOTA_WAITING: &str = "amazon_pay_ipn_quota_waiting";
/// Gauge: tokens that are there, by `operation`; below 0 while more was given than there was.
pub const QUOTA_TOKENS: &str = "amazon_pay_ipn_quota_tokens";
/// Gauge: 1 while the account is at fault.
pub const ACCOUNT_FAULT: &str = "amazon_pay_ipn_account_fault";
/// Histogram: one Redis script, by `script`.
pub const REDIS_SCRIPT_SECONDS: &str = "amazon_pay_ipn_redis_script_seconds";
/// Gauge: entries of the streams and the schedule, by `what`: events, journal, quarantine, scheduled, forward.
pub const ENTRIES: &str = "amazon_pay_ipn_entries";
/// Counter: notifications sent on to `FORWARD_URL`, by `outcome`: taken, failed and refused (put off), `given_up`,
/// unwanted, dropped.
pub const FORWARDS: &str = "amazon_pay_ipn_forwards_total";
/// Gauge: 1 while Redis answers, 0 while it does not: then what is read from it is as of before.
pub const REDIS_UP: &str = "amazon_pay_ipn_redis_up";
/// Gauge: permissions whose time has come and that nobody has taken up yet.
pub const DUE: &str = "amazon_pay_ipn_due";
/// Gauge: how long the first of them has been due.
pub const OLDEST_DUE_SECONDS: &str = "amazon_pay_ipn_oldest_due_seconds";
/// Gauge: events that none of a consumer group has read, by `group`. Not there where Redis cannot say.
pub const CONSUMER_LAG: &str = "amazon_pay_ipn_consumer_lag";
/// Gauge: events that a consumer group has read and not acknowledged, by `group`.
pub const CONSUMER_PENDING: &str = "amazon_pay_ipn_consumer_pending";
/// Gauge: age of the oldest event that a consumer group has not acknowledged, by `group`.
pub const CONSUMER_BEHIND_SECONDS: &str = "amazon_pay_ipn_consumer_behind_seconds";
/// Gauge: connections that are open, by `listener`: public, internal.
pub const OPEN_CONNECTIONS: &str = "amazon_pay_ipn_open_connections";
/// Counter: connections answered 503 and closed because too many were open and a request was handled on each, by `listener`.
pub const CONNECTIONS_REFUSED: &str = "amazon_pay_ipn_connections_refused_total";
/// Counter: connections closed to make room for new ones, because they had waited longest for their peer, by `listener`.
pub const CONNECTIONS_EVICTED: &str = "amazon_pay_ipn_connections_evicted_total";

/// Counter: times that a permission was put off because a newer version had written it, or a charge of it.
pub const NEWER_RECORDS: &str = "amazon_pay_ipn_newer_records_total";
/// Gauge: 1 while Redis keeps its data less safely than this service asks for, or does not say.
pub const UNSAFE_DURABILITY: &str = "amazon_pay_ipn_unsafe_durability";
/// Gauge: tasks of the async runtime that have not ended. Grows with connections and workers, never with time.
pub const TASKS: &str = "amazon_pay_ipn_tasks";

/// Gauge, always 1: the `version` that runs.
pub const BUILD_INFO: &str = "amazon_pay_ipn_build_info";
/// Gauge: when this process began to serve, in seconds since 1970.
pub const START_TIME_SECONDS: &str = "amazon_pay_ipn_start_time_seconds";

/// All of them.
pub const ALL: [&str; 36] = [
    FORWARDS,
    REDIS_UP,
    AMAZON_SECONDS,
    CHARGES_ENDED,
    MONEY_RECOVERED,
    DUE,
    OLDEST_DUE_SECONDS,
    BUILD_INFO,
    START_TIME_SECONDS,
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
    ENTRIES,
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
