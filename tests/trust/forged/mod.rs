//! The attack families. Each adds its cases; where a message could be believed but for one thing, everything else about it is in order.

mod addresses;
mod bodies;
mod certificates;
mod fields;
mod headers;
mod replays;
mod shifting;
mod signatures;
mod times;
mod topics;

pub use certificates::slow;
pub use headers::agreement;

use crate::case::Corpus;

/// Bodies and headers that say two things, or are no text, where nobody reads.
pub fn ambiguous(corpus: &mut Corpus<'_>) {
    bodies::unread(corpus);
    headers::two_types(corpus);
}

/// Every family that is judged one case after the other.
pub fn add(corpus: &mut Corpus<'_>) {
    addresses::add(corpus);
    bodies::add(corpus);
    certificates::add(corpus);
    fields::add(corpus);
    headers::add(corpus);
    replays::add(corpus);
    shifting::add(corpus);
    signatures::add(corpus);
    times::add(corpus);
    topics::add(corpus);
}
