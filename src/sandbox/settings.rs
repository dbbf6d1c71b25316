//! How a sandbox behaves, and where it is.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::throttle::Throttle;
use crate::clock::Clock;
use crate::model::ids::Region;

/// What Amazon might do with an idempotency key that was used before. It is not documented which of these is true.
///
/// An evaluated answer is a success, a decline, or a refusal because of the permission's state, the currency or a limit. What
/// never got that far (a malformed request, an unknown id, a wrong signature) leaves no trace under its key. Under every
/// reading, the same key with another body is `DuplicateIdempotencyKey`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Reading {
    /// Every evaluated answer is repeated, declines included.
    #[default]
    ReplayAll,
    /// Only successes are repeated; a decline is evaluated anew.
    ReEvaluate,
    /// As `ReplayAll`, but the state of the permission is looked at before the key.
    StatusFirst,
}

/// How the sandbox behaves.
#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// The merchant whose account this is.
    pub merchant_id: String,
    /// The region of the account.
    pub region: Region,
    /// Where the sandbox takes the time from: share it with the service.
    pub clock: Clock,
    /// What happens to used idempotency keys.
    pub reading: Reading,
    /// How far `x-amz-pay-date` may be from now.
    pub date_tolerance: Duration,
    /// Whether too many requests are refused.
    pub throttle: Option<Throttle>,
    /// After which time what nobody decides, pending charges and refunds, comes to a good end by itself; `None`: never.
    pub settle_after: Option<Duration>,
    /// Where to listen.
    pub listen: SocketAddr,
    /// What others call it, where that is not the address it listens at; without a slash at the end.
    pub base_url: Option<String>,
    /// Keeps the keys in this folder, for the next start; `None`: keys that live as long as the process.
    pub keys_folder: Option<PathBuf>,
    /// The middle part of the ids of its permissions; `None`: a random one, so that two sandboxes never give out the same ids.
    pub session: Option<u32>,
    /// Serves `/sandbox-control/`, to callers on this host only. The file is the one that moves [`SandboxSettings::clock`].
    pub control: Option<PathBuf>,
}

impl SandboxSettings {
    /// A merchant in the United States, every answer replayed, five minutes of tolerance, no throttle;
    /// on a free port of the loop-back interface.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            merchant_id: "A2K7NDRCTOTPW9".to_owned(),
            region: Region::Na,
            clock,
            reading: Reading::default(),
            date_tolerance: Duration::from_mins(5),
            throttle: None,
            settle_after: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            base_url: None,
            keys_folder: None,
            session: None,
            control: None,
        }
    }
}
