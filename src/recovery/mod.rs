//! What to do about a charge: pure functions from what is stored, what Amazon says and the time, to what happens next.
//!
//! - [`policy`]: the numbers. When to try again, how often, for how long. [`quiet`]: and when not.
//! - [`policies`]: which numbers hold for which charge.
//! - [`explain`]: what a policy comes to, as a list of times.
//! - [`plan`]: what to look at. [`decide`]: one charge permission at a time, what to do. [`case`]: the values they take and give.
//! - [`quota`]: what it may call at most, and how soon it matters.
//! - [`due`]: when an intent needs attention next.
//! - [`settle`]: what the answer to a send does to its intent.
//! - [`found`]: what a charge found at Amazon does to the intent it was made for.
//!
//! Nothing here is async, reads a clock or draws a random number: time and jitter are values.

pub mod case;
pub mod decide;
pub mod draft;
pub mod due;
pub mod explain;
pub mod found;
mod gate;
mod hints;
pub mod permission;
pub mod plan;
pub mod policies;
pub mod policy;
pub mod quiet;
pub mod quota;
pub mod settle;

#[cfg(test)]
mod tests;
