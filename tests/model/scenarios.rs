//! The table.

use super::amazon::{Kinds, Reading};
use super::explore::{Bounds, Protocol, explore, print, settles, trace};
use super::properties::{ALL, Named};
use super::rules::Rules;
use super::state::Left;

const KINDS: Kinds = Kinds { declined_objects: false, hard: false, failure: false };

fn holds(name: &str, rules: Rules, bounds: Bounds) {
    let begun = std::time::Instant::now();
    let explored = explore(Protocol::new(rules, bounds, ALL.to_vec()));
    if let Some((property, way)) = &explored.broken {
        print(&format!("{name}: BROKEN {property}\n{}", trace(way)));
    }
    print(&format!("{name}: {} states depth {} calls {} {:?}\n", explored.states, explored.depth, explored.calls, begun.elapsed()));
    assert!(explored.broken.is_none());
}

#[test]
fn first() {
    let left = Left { declines: 1, delays: 1, lost_replies: 1, pauses: 1, lapses:1, ..Left::default() };
    for reading in [Reading::ReplaysAll, Reading::Reevaluates, Reading::StatusFirst] {
        holds("first", Rules::ALL, Bounds { reading, workers: 2, left, kinds: KINDS });
    }
    let begun = std::time::Instant::now();
    let p = Protocol::new(Rules::ALL, Bounds { reading: Reading::Reevaluates, workers: 2, left, kinds: KINDS }, ALL.to_vec());
    let (n, way) = settles(&p, true);
    print(&format!("settles: {n} states {:?}\n{}", begun.elapsed(), way.map(|w| trace(&w)).unwrap_or_default()));
}
