//! Integration tests: the whole service against a real Redis and the sandbox, over real HTTP. One binary, one file per story.

#![cfg(feature = "sandbox")]
#![expect(unreachable_pub, reason = "a test binary has no outside")]
#![expect(clippy::unchecked_time_subtraction, reason = "the spans are written down here; a wrong one fails its test")]

mod accept;
mod account_fault;
mod api;
mod capture;
mod close;
mod contract;
mod demo_story;
mod events;
mod examples;
mod field;
mod forward;
mod framing;
mod handover;
mod interplay;
mod learning;
mod listener;
mod loss;
mod objects;
mod operator;
mod operator_commands;
mod operator_page;
mod outbound;
mod policy;
mod preflight;
#[path = "support/process.rs"]
mod process;
mod processes;
mod protocol;
mod quarantine;
mod quota;
mod recovery;
mod redis_cluster;
mod redis_connection;
mod redis_faults;
mod redis_replicas;
mod redis_security;
mod redis_sentinel;
mod review;
mod rows;
mod sandbox_command;
mod support;
mod sweep;
mod together;
mod traces;
mod trigger;
mod versions;
