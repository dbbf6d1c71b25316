//! The protocol of sends, leases and wakes as an explicit-state model, explored exhaustively within stated bounds.
//!
//! What the service decides comes from its own pure functions (`recovery`, `amazon_pay::classify`), called on real values; what its Lua
//! scripts decide is written again in [`redis`], one function per script, and [`scripts`] holds these against the real scripts on a
//! real Redis. Amazon, the network, the workers' faults and the people are [`amazon`], [`worker`] and [`faults`].
//!
//! [`scenarios`] is the table: with every rule on nothing breaks; with one rule off the model finds what the rule is for.
//! See `docs/reliability/model.md`. `make model` explores larger bounds.

#![cfg(feature = "sandbox")]
#![expect(unreachable_pub, reason = "a test binary has no outside")]
#![expect(clippy::unwrap_used, reason = "what cannot be here fails the test")]
#![expect(clippy::similar_names, reason = "the real and the modelled, the stored and the read stand beside each other")]
#![expect(clippy::trivially_copy_pass_by_ref, reason = "what is small today is a state of the model tomorrow")]
#![expect(clippy::needless_for_each, reason = "a scenario for each reading, in one line")]
#![expect(clippy::large_enum_variant, reason = "few of them live at a time")]
#![expect(clippy::cast_possible_truncation, reason = "small numbers are kept in small fields; the bounds are stated")]

mod amazon;
mod explore;
mod faults;
mod properties;
mod redis;
mod rules;
mod scenarios;
mod scripts;
mod service;
mod state;
mod values;
mod worker;
