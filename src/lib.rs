//! The Amazon Pay IPN service.

pub mod amazon_pay;
pub mod cli;
pub mod clock;
pub mod http;
pub mod ipn;
pub mod model;
pub mod reconciler;
pub mod recovery;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod sns;
pub mod store;
