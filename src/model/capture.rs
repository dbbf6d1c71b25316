//! Capturing an authorisation: what the caller wants captured, and how far that has come.
//!
//! Captures have numbers of their own (0, 1, 2 ...), beside those of Create Charge and under the same send protocol.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::charge_intent::{ChargeIntent, Number, NumberStatus};
use super::money::Money;

/// What the caller wants captured. The body of Capture Charge is a pure function of it.
/// Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/charge.html#capture-charge>.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaptureWish {
    /// At most the amount that was authorised, in its currency.
    pub capture_amount: Money,
    /// At most 16 characters on the buyer's statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_descriptor: Option<String>,
}

/// The captures of an intent: at most one wish, and the number it is, or the next one will be, sent under.
#[derive(Debug, Clone, PartialEq)]
pub struct CaptureIntent {
    /// What is wanted; `None` once Amazon has refused it and the caller may want something else.
    pub wish: Option<CaptureWish>,
    /// When it was asked for, by Redis time.
    pub requested_at: Option<Timestamp>,
    /// The current number. Its `instrument` is never set.
    pub number: Number,
    /// The wish that this decision gives up. Never stored: it names what the commit may remove.
    pub cleared: Option<CaptureWish>,
}

impl CaptureIntent {
    /// Resolves the current number without a capture: the next send takes the next one.
    pub fn next_number(&mut self) {
        self.number = self.number.next();
    }

    /// Gives the wish up: the caller may ask for another capture.
    pub fn clear(&mut self) {
        if let Some(wish) = self.wish.take() {
            self.cleared = Some(wish);
            self.requested_at = None;
        }
    }
}

/// When the wished capture is sent next. Kept in the progress: only the holder of the lease writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapturePlan {
    /// Not before.
    pub at: Timestamp,
    /// `InvalidChargeStatus` answers in a row although the charge looked authorised.
    #[serde(default)]
    pub conflicts: u32,
    /// Get Charge without an answer in a row, for the backoff.
    #[serde(default)]
    pub failed_looks: u32,
    /// Whether a `ProcessingFailure` was answered under the current number.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failure_answered: bool,
}

impl ChargeIntent {
    /// What is to be captured, if anything.
    #[must_use]
    pub fn capture_wish(&self) -> Option<&CaptureWish> {
        self.capture.as_ref()?.wish.as_ref()
    }

    /// Whether a capture was sent that may or may not have been made.
    #[must_use]
    pub fn is_capture_unknown(&self) -> bool {
        self.capture.as_ref().is_some_and(|capture| capture.number.status == NumberStatus::Unknown)
    }

    /// When the capture needs attention: its send, or after a cancellation only what became of one that was sent.
    #[must_use]
    pub fn capture_due(&self) -> Option<Timestamp> {
        let capture = self.capture.as_ref()?;
        if capture.wish.is_none() || (self.cancel_requested_at.is_some() && !self.is_capture_unknown()) {
            return None;
        }
        let planned = self.progress.capture_plan.as_ref().map(|plan| plan.at);
        Some(planned.or(capture.requested_at).unwrap_or(Timestamp::MIN))
    }
}
