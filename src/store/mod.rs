//! The only door to Redis: key names, one typed wrapper per Lua script, and nothing that decides.
//!
//! - [`notifications`]: accept and quarantine what the public listener verified. `together`: many at a time.
//! - [`charges`]: submit, read and cancel charge intents. [`captures`]: the wish to capture one, and the mark of its send.
//! - [`actions`]: retry, pause and resolve them. [`lists`]: find them.
//! - [`reconciliations`]: claim a permission, renew its lease, mark a send, commit.
//! - [`permissions`]: read a charge permission, ask for its closing or for a look.
//! - [`quota`]: what is due and may go on; the calls that a reconciliation may make; the fault of the account.
//! - [`quarantine`]: what was kept aside for a person: look, replay, drop.
//! - [`consumers`]: read the events as a consumer group. [`events`]: without one. [`groups`]: how far each has come; what may be trimmed.
//! - [`forwards`]: what the handler at `FORWARD_URL` has not taken yet.
//! - `arrivals`: how many messages came in each hour of the last week.
//! - [`account`]: the marker, the stop switch, recovery after a loss, readiness.
//! - `versions`: what a later version of the service wrote is left alone; unknown fields are kept.
//! - `server`: what the server says about itself.
//! - `scan`: finds keys by their names, on one server.
//! - `access`: whether the Redis user may do all of this.
//! - `target`, `route`, `connection`: from the URL to the server that takes the commands. `replicas`: who else must have what is promised.
//!
//! Each script is one file under `lua/` with its KEYS, ARGV, RETURNS and WHY.

mod access;
pub mod account;
pub mod actions;
mod arrivals;
pub mod captures;
pub mod charges;
mod connection;
pub mod consumers;
pub mod events;
mod failure;
pub mod forwards;
pub mod groups;
pub mod housekeeping;
pub mod keys;
pub mod lists;
mod notes;
pub mod notifications;
mod payload;
pub mod permissions;
pub mod quarantine;
pub mod quota;
pub mod reconciliations;
mod record;
mod replicas;
mod route;
mod scan;
mod script;
mod server;
mod target;
mod tls;
mod together;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::model::ids::Account;
use crate::model::quota::Limits;
use connection::Connection;
pub use failure::Failure;
use failure::explain;
use keys::Keys;
use replicas::Waiting;
pub use replicas::{MAX_REPLICA_TIMEOUT, Replicas};
pub use server::Accounts;
pub use target::{check_url, is_tls};
pub use tls::{ClientIdentity, IdentityMistake, TlsSettings, check_ca};
use together::Queue;

/// What must be left of a lease beyond the time-out of the call that starts.
pub const LEASE_MARGIN: Duration = Duration::from_secs(15);

/// How the store is set.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// URL of a server, of Sentinels or of a cluster (`REDIS_URL`); may hold a password.
    pub url: SecretString,
    /// Who else must have what is promised (`WAIT_REPLICAS`).
    pub replicas: Replicas,
    /// Certificates for `rediss://`.
    pub tls: TlsSettings,
    /// First part of every key (`KEY_PREFIX`).
    pub key_prefix: String,
    /// How long a `MessageId` is remembered (`DEDUPE_TTL`).
    pub dedupe_ttl: Duration,
    /// How long the journal is kept (`JOURNAL_RETENTION`).
    pub journal_retention: Duration,
    /// How long events are kept (`EVENT_RETENTION`).
    pub event_retention: Duration,
    /// How long they are kept for a consumer group that has not acknowledged them (`EVENT_RETENTION_LIMIT`).
    pub event_retention_limit: Duration,
    /// How long ended intents are kept (`INTENT_RETENTION`).
    pub intent_retention: Duration,
    /// X: how long an old copy of a send may still be accepted by Amazon (`CONFIRMATION_DELAY`).
    pub confirmation_delay: Duration,
    /// How long a claim holds its permission.
    pub lease: Duration,
    /// Bounds of what may grow.
    pub bounds: Bounds,
    /// What may be called how often: our share (`QUOTA_SHARE`) of what Amazon documents.
    pub quota: Limits,
}

impl StoreSettings {
    /// The host to which everything, the password included, goes unencrypted; `None` with TLS and within this machine.
    #[must_use]
    pub fn unencrypted_host(&self) -> Option<String> {
        target::Target::parse(self.url.expose_secret()).ok()?.unencrypted_host()
    }
}

/// What may grow, and how far.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Events in the stream; beyond it no new number is marked and submissions are refused.
    pub events: usize,
    /// Entries kept aside; beyond it notifications that need it are refused.
    pub quarantine: usize,
    /// Hints of one permission that wait for their reconciliation.
    pub hints_per_permission: usize,
    /// Open intents of one permission.
    pub open_per_permission: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { events: 1_000_000, quarantine: 10_000, hints_per_permission: 1_000, open_per_permission: 100 }
    }
}

/// What went wrong at the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Redis cannot be reached, refuses us or the write, or did not answer in time. It may have executed the command.
    #[error("{}", explain(.0))]
    Unavailable(redis::RedisError),
    /// Written, but not confirmed by enough replicas in time: a failover may lose it.
    #[error(
        "stored, but {confirmed} instead of {wanted} replicas (WAIT_REPLICAS) confirmed it within WAIT_REPLICAS_TIMEOUT"
    )]
    NotReplicated {
        /// So many confirmed it.
        confirmed: u32,
        /// So many were to.
        wanted: u32,
    },
    /// No connection could be made at the start; why, in words.
    #[error("{0}")]
    NoConnection(String),
    /// The user may not do all that the service does.
    #[error("the Redis user of REDIS_URL may not: {}; docs/REDIS.md has the ACL that is needed", .0.join(", "))]
    Forbidden(Vec<String>),
    /// The server has no marker: it is new, was emptied, or is another one.
    #[error(
        "Redis holds no marker for this account; if it is new run `amazon-pay-ipn init --first`, if data was lost `init --after-loss`"
    )]
    NoMarker,
    /// A key is used for something else.
    #[error("Redis key {0} is not of the type this service writes")]
    WrongType(String),
    /// A later version of the service wrote it: this one neither reads nor writes it (`docs/adr/0016`).
    #[error(
        "{0} was written by a newer version of this service, and this one leaves it alone: ask an instance of that version"
    )]
    Newer(String),
    /// A bound is reached.
    #[error("{0} is full")]
    Full(&'static str),
    /// A script answered what its wrapper does not know.
    #[error("script {script} answered {reply}")]
    Unexpected {
        /// Name of the script.
        script: &'static str,
        /// Its answer, cut.
        reply: String,
    },
    /// A record cannot be read.
    #[error("record {key} cannot be read: {why}")]
    Corrupt {
        /// The key.
        key: String,
        /// Why.
        why: String,
    },
}

// Not `#[from]`: that makes it the source too, and the message would be printed with the same text behind it.
impl From<redis::RedisError> for StoreError {
    fn from(error: redis::RedisError) -> Self {
        Self::Unavailable(error)
    }
}

impl StoreError {
    /// What kind of failure it is, where it is one of Redis.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Unavailable(error) => Some(Failure::of(error)),
            Self::NotReplicated { .. } => Some(Failure::TooFewReplicas),
            _ => None,
        }
    }
}

/// The store of one account. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Connection,
    /// For writes that wait for replicas: a wait holds up everything behind it on its connection.
    waiting: Option<Waiting>,
    keys: Keys,
    source: String,
    account: Account,
    settings: StoreSettings,
    clock: Clock,
    due_changed: Notify,
    /// Notifications that wait to be stored.
    queue: Queue,
}

impl Store {
    /// Connects lazily: the first command makes the connection, and a lost one is made again.
    ///
    /// # Errors
    /// When the URL is not one of Redis.
    pub fn connect(settings: StoreSettings, account: Account, clock: Clock) -> Result<Self, StoreError> {
        let keys = Keys::new(&settings.key_prefix, &account);
        let open = || Connection::open(&settings.url, &settings.tls, &keys.marker());
        let waits = settings.replicas.wait_for > 0;
        Ok(Self(Arc::new(Inner {
            connection: open()?,
            waiting: waits.then(open).transpose()?.map(|connection| Waiting::new(connection, settings.replicas)),
            keys,
            source: format!("amazon-pay-ipn/{}/{}", account.environment, account.merchant),
            account,
            settings,
            clock,
            due_changed: Notify::new(),
            queue: Queue::default(),
        })))
    }

    /// The key names, for documentation and tests.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Wakes one waiting reconciler: something became due through this process.
    pub fn nudge(&self) {
        self.0.due_changed.notify_one();
    }

    /// Completes when something became due through this process.
    pub async fn nudged(&self) {
        self.0.due_changed.notified().await;
    }

    fn now_text(&self) -> String {
        self.0.clock.now().to_string()
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
