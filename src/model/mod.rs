//! The vocabulary of the service: identifiers, money, what Amazon says, what a charge intent is, and what we tell others.
//!
//! Pure values with their transitions. Nothing here does I/O, reads a clock or draws a random number.

pub mod capture;
pub mod charge;
pub mod charge_intent;
pub mod charge_request;
pub mod closing;
pub mod dispute;
pub mod event;
pub mod handover;
pub mod hint;
pub mod ids;
pub mod money;
pub mod permission;
pub mod probe;
pub mod quota;
pub mod refund;
pub mod server;
pub mod verdict;
