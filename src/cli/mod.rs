//! The command line, one file per command.

pub mod check;
#[cfg(feature = "sandbox")]
pub mod demo;
pub mod events;
pub mod healthcheck;
pub mod init;
mod mistakes;
pub mod operator;
pub mod policy;
mod progress;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod schema;
pub mod serve;
#[cfg(feature = "sandbox")]
pub mod trigger;
pub mod verify;
