//! Says in the log why messages are refused, and keeps strangers from writing as much of it as they like: a request of 50 bytes would
//! make a line of 250, and a log that nobody takes away fast enough holds up everything.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use crate::clock::Stopwatch;
use crate::sns::Refused;

/// Lines about one check in [`INTERVAL`]. Each check has its own, so that a flood that fails one hides nothing that fails another.
const LINES: u32 = 60;
const INTERVAL: Duration = Duration::from_mins(1);

/// The log of refused messages. The metric counts all of them.
#[derive(Debug)]
pub(super) struct RefusalLog {
    since: Stopwatch,
    checks: Mutex<BTreeMap<&'static str, Lately>>,
}

/// What was said about one check since its interval began.
#[derive(Debug, Default)]
struct Lately {
    began: Duration,
    lines: u32,
    unsaid: u64,
}

impl RefusalLog {
    pub(super) fn new() -> Self {
        Self { since: Stopwatch::start(), checks: Mutex::default() }
    }

    pub(super) fn tell(&self, refused: &Refused) {
        let check = refused.check();
        if let Some(unsaid) = self.turn(check, self.since.elapsed()) {
            warn!(check, reason = %refused, unsaid, "an SNS message was refused");
        }
    }

    /// Whether a line is due at `now`, and how many were not said before it.
    fn turn(&self, check: &'static str, now: Duration) -> Option<u64> {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = checks.entry(check).or_default();
        if now.saturating_sub(lately.began) >= INTERVAL {
            *lately = Lately { began: now, lines: 0, unsaid: lately.unsaid };
        }
        if lately.lines == LINES {
            lately.unsaid = lately.unsaid.saturating_add(1);
            return None;
        }
        lately.lines += 1;
        Some(std::mem::take(&mut lately.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_fills_no_log_and_hides_no_other_check() {
        let (log, start) = (RefusalLog::new(), Duration::from_mins(7));
        let said = (0..10_000).filter_map(|_| log.turn("envelope", start)).inspect(|unsaid| assert_eq!(*unsaid, 0));
        assert_eq!(said.count(), 60);
        assert_eq!(log.turn("topic", start), Some(0));
        assert_eq!(log.turn("envelope", start + Duration::from_secs(59)), None);
        assert_eq!(log.turn("envelope", start + INTERVAL), Some(9_941), "what was not said is counted");
        assert_eq!(log.turn("envelope", start + INTERVAL), Some(0));
    }
}
