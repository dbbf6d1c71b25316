//! The two listeners. [`public`] is `POST /ipn` and nothing else; [`internal`] is everything that is not for the internet.

mod charge_body;
pub mod charges;
pub mod internal;
pub mod learning;
mod problem;
pub mod public;
mod stop;
