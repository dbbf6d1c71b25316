//! What the server says about itself, and who else is on it: for the preflight and for readiness.

use std::collections::HashMap;

use jiff::SignedDuration;

use super::{Store, StoreError};
use crate::model::server::ServerFacts;

/// Keys looked at for other accounts, at most this many times a thousand.
const SCANS: usize = 200;

/// The accounts that have a marker under our prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts {
    /// Ours, as `live:A2K7NDRCTOTPW9`.
    pub own: String,
    /// All that were found, in order.
    pub found: Vec<String>,
    /// Why others may be missing; `None` if all keys were looked at.
    pub left_out: Option<&'static str>,
}

impl Store {
    /// How the server is set. What it does not let us ask is not in the answer.
    ///
    /// # Errors
    /// When Redis does not answer at all.
    pub async fn server_facts(&self) -> Result<ServerFacts, StoreError> {
        let mut handle = self.0.connection.handle();
        let info: String = redis::cmd("INFO").query_async(&mut handle).await?;
        let mut facts = ServerFacts::read(&info);
        facts.fails_over = self.0.connection.fails_over();
        facts.replicas_wanted = self.0.settings.replicas.wait_for;
        // Not permitted to the documented user, and by most who run Redis for others.
        // A pattern, since servers before Redis 7 take one name only.
        let fsync: redis::RedisResult<HashMap<String, String>> =
            redis::cmd("CONFIG").arg("GET").arg("*appendfsync*").query_async(&mut handle).await;
        let mut settings = fsync.unwrap_or_default();
        facts.append_fsync = settings.remove("appendfsync");
        facts.rewrite_skips_fsync = settings.remove("no-appendfsync-on-rewrite").map(|text| text == "yes");
        Ok(facts)
    }

    /// Our clock minus that of Redis.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn clock_difference(&self) -> Result<SignedDuration, StoreError> {
        let theirs = self.redis_now().await?;
        Ok(self.0.clock.now().duration_since(theirs))
    }

    /// Whether the marker is of this account. One that was copied from another says so.
    ///
    /// # Errors
    /// When Redis does not answer, or there is no marker.
    pub async fn marker_is_ours(&self) -> Result<bool, StoreError> {
        let mut read = redis::cmd("HMGET");
        read.arg(self.0.keys.marker()).arg("merchant").arg("environment");
        let (merchant, environment): (Option<String>, Option<String>) =
            read.query_async(&mut self.0.connection.handle()).await?;
        let account = &self.0.account;
        Ok(merchant.as_deref() == Some(account.merchant.as_str())
            && environment.as_deref() == Some(account.environment.as_str()))
    }

    /// Who else has a marker under our prefix, as far as a bounded number of keys shows; on a cluster those of our node. Needs `SCAN`.
    ///
    /// # Errors
    /// When Redis does not answer, does not permit it, or the account moved to another server meanwhile.
    pub async fn accounts_under_prefix(&self) -> Result<Accounts, StoreError> {
        let own = self.0.keys.marker();
        // `prefix:{environment:merchant}:marker`; the settings keep braces and pattern characters out of the prefix.
        let (start, rest) = own.split_once('{').unwrap_or((&own, ""));
        let (account, end) = rest.split_once('}').unwrap_or((rest, ""));
        let pattern = format!("{start}{{*}}{end}");
        let named = |key: &str| {
            let key = key.strip_prefix(start)?.strip_prefix('{')?.strip_suffix(end)?;
            key.strip_suffix('}').map(str::to_owned)
        };
        let mut found = Vec::new();
        let mut left_out = Some("there are too many");
        let mut scan = self.scan(pattern);
        for _ in 0..SCANS {
            let Some(keys) = scan.next().await? else {
                left_out = None;
                break;
            };
            found.extend(keys.iter().filter_map(|key| named(key)));
        }
        if left_out.is_none() && self.0.connection.is_cluster() {
            left_out = Some("this is a cluster, and they are those of one node");
        }
        found.sort_unstable();
        found.dedup();
        Ok(Accounts { own: account.to_owned(), found, left_out })
    }
}
