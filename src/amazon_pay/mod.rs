//! Amazon Pay's API: signs requests, sends each at most once, and says what the answers mean.
//!
//! It answers in the types of [`crate::model`] and knows nothing of the store, of SNS or of our own HTTP servers. *When* to call
//! is not decided here; *what an answer means* is decided here and nowhere else.
//!
//! - [`signing`]: `AMZN-PAY-RSASSA-PSS-V2`; pure.

pub mod signing;

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod test_key;

