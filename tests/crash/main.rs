//! Crash points: the real process is struck at every named point, in every kind of work that comes by it, started anew and audited from
//! the sandbox's own ledger and the public streams. `docs/reliability/crash-points.md` says what that proves.
//!
//! CI runs each point in some kinds; `make crash-points` runs all of them. `CRASH_POINT=mark-after`, `CRASH_KIND="soft decline"` and
//! `CRASH_HOW=frozen` narrow `make crash-points` down; `CRASH_PROGRAM` names another program than the one just built.

#![cfg(feature = "sandbox")]
#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod audit;
mod kinds;
mod matrix;
mod process;
mod world;

use matrix::{Choice, Matrix};
use world::How;

/// Kinds in which CI strikes each point.
const KINDS_IN_CI: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_process_that_is_killed_at_any_point_loses_nothing_and_charges_nobody_twice() {
    let choices = [
        Choice { how: How::Killed, kinds: KINDS_IN_CI, occurrences: 1 },
        Choice { how: How::Frozen, kinds: 1, occurrences: 1 },
        Choice { how: How::Overtaken, kinds: 1, occurrences: 1 },
        Choice { how: How::RedisKilled, kinds: 1, occurrences: 1 },
    ];
    Matrix::run(&choices).await.report_and_judge();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "make crash-points: every point in every kind"]
async fn every_point_in_every_kind_of_work() {
    let all = [How::Killed, How::Frozen, How::Overtaken, How::RedisKilled];
    let choices = all.map(|how| Choice { how, kinds: usize::MAX, occurrences: 2 });
    Matrix::run(&choices).await.report_and_judge();
}
