//! Amazon Pay's API: signs requests, sends each at most once, and says what the answers mean.
//!
//! It answers in the types of [`crate::model`] and knows nothing of the store, of SNS or of our own HTTP servers. *When* to call
//! is not decided here; *what an answer means* is decided here and nowhere else.
//!
//! - [`client`]: the operations.
//! - [`classify`]: an answer to Create Charge becomes a [`Verdict`](crate::model::verdict::Verdict); pure.
//! - [`reasons`]: Amazon's reason codes, one table.
//! - [`signing`]: `AMZN-PAY-RSASSA-PSS-V2`; pure.
//! - `wire`: Amazon's JSON; its types never leave.
//! - `transport`: the two HTTP clients.

pub mod classify;
pub mod client;
pub mod reasons;
pub mod signing;
mod transport;
mod wire;

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod test_key;

pub use client::{AmazonPay, CancelOutcome, ClientError, ClientSettings, CloseOutcome, DEFAULT_TIMEOUT, SignedRequest};
