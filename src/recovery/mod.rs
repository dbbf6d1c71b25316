//! What to do about a charge: pure functions from what is stored, what Amazon says and the time, to what happens next.
//!
//! - [`policy`]: the numbers. When to try again, how often, for how long. [`quiet`]: and when not.
//! - [`policies`]: which numbers hold for which charge.
//! - [`explain`]: what a policy comes to, as a list of times.
//! - [`handover`]: the first plan of a charge. [`wishes`]: what people ask for while it is open.
//! - [`plan`]: what to look at. [`decide`]: one charge permission at a time, what to do. [`case`]: the values they take and give.
//! - [`quota`]: what it may call at most, and how soon it matters.
//! - [`due`]: when an intent needs attention next.
//! - [`closing`]: the wish to close a permission. [`reminders`]: asking the buyer again. [`sweep`]: what was found without a notification.
//! - [`settle`]: what the answer to a send does to its intent.
//! - [`capture`]: what the answer to a capture does; [`authorization`]: what waits for one, is canceled, or lapses.
//! - [`found`]: what a charge found at Amazon does to the intent it was made for.
//! - [`objects`]: what is told of refunds and disputes, and when they are looked at again.
//!
//! Nothing here is async, reads a clock or draws a random number: time and jitter are values.

pub mod authorization;
pub mod capture;
pub mod case;
pub mod closing;
pub mod decide;
pub mod draft;
pub mod due;
pub mod explain;
pub mod found;
mod gate;
pub mod handover;
mod hints;
pub mod objects;
pub mod permission;
pub mod plan;
pub mod policies;
pub mod policy;
pub mod quiet;
pub mod quota;
pub mod reminders;
pub mod settle;
pub mod sweep;
pub mod tally;
pub mod wishes;

#[cfg(test)]
mod tests;
