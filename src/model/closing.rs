//! The caller's wish that a charge permission be closed at Amazon, and how far that has come.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What the caller asked for. From the moment it is stored no new number is marked; it is cleared when a look says Closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseWish {
    /// When, by Redis time; also tells one wish from the next.
    pub asked_at: Timestamp,
    /// `closureReason` of Close Charge Permission.
    pub reason: String,
    /// `cancelPendingCharges` of Close Charge Permission.
    pub cancel_pending: bool,
}

/// How far a wish has come; kept in the permission's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Closing {
    /// The wish it belongs to.
    pub asked_at: Timestamp,
    /// Calls that were planned so far.
    pub tries: u32,
    /// When the next one is made.
    pub next_at: Timestamp,
    /// Whether a person was told that it takes long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alerted: bool,
    /// Why it is not tried again: Amazon calls the request wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<String>,
}

impl Closing {
    /// Nothing was tried yet.
    #[must_use]
    pub fn of(wish: &CloseWish) -> Self {
        Self { asked_at: wish.asked_at, tries: 0, next_at: wish.asked_at, alerted: false, parked: None }
    }
}
