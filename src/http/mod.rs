//! The two listeners. [`public`] is `POST /ipn` and nothing else; [`internal`] is everything that is not for the internet; [`listener`]
//! accepts the connections of both and bounds them.

mod capture;
mod charge_actions;
mod charge_body;
mod charge_list;
pub mod charge_permissions;
pub mod charges;
mod event_groups;
pub mod internal;
mod ipn_body;
mod json_body;
pub mod learning;
pub mod listener;
mod openapi;
mod page;
mod problem;
pub mod public;
mod quarantine;
mod quota;
pub mod readiness;
mod refusals;
mod resolve;
mod stop;
