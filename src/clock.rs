//! The clock: the system's, or one that demo and tests move. Nothing else in the crate asks for the time.
//!
//! Redis keeps its own time, which the scripts use; they add [`Clock::offset_ms`], so that a moved clock moves leases and due
//! times with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

/// Where the time comes from. Cheap to clone; clones of a movable clock move together.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System,
    Movable(AtomicI64),
    OffsetFile(PathBuf),
    Fixed(Timestamp),
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Source::System))
    }

    /// A clock that starts at the system's time and can be moved forward within this process.
    #[must_use]
    pub fn movable() -> Self {
        Self(Arc::new(Source::Movable(AtomicI64::new(0))))
    }

    /// A clock that is ahead of the system's by the milliseconds written in a file, so that another process can move it.
    /// A file that is missing or not a number means no offset. Refused by the settings of a live environment.
    #[must_use]
    pub fn from_offset_file(path: PathBuf) -> Self {
        Self(Arc::new(Source::OffsetFile(path)))
    }

    /// A clock that stands still: for judging something as of another time, as `verify --at` does.
    #[must_use]
    pub fn fixed(at: Timestamp) -> Self {
        Self(Arc::new(Source::Fixed(at)))
    }

    /// The time now, to the millisecond.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        if let Source::Fixed(at) = &*self.0 {
            return *at;
        }
        Timestamp::from_millisecond(system_ms().saturating_add(self.offset_ms())).unwrap_or(Timestamp::MAX)
    }

    /// How far this clock is ahead of the system's, in milliseconds: 0 outside demo and tests.
    #[must_use]
    pub fn offset_ms(&self) -> i64 {
        match &*self.0 {
            Source::System => 0,
            Source::Movable(offset) => offset.load(Ordering::SeqCst),
            Source::Fixed(at) => at.as_millisecond().saturating_sub(system_ms()),
            Source::OffsetFile(path) => {
                std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
            }
        }
    }

    /// Moves a movable clock forward; any other clock stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Source::Movable(offset) = &*self.0 {
            offset.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system for the time")]
fn system_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// Measures how long something took, for metrics and logs. Real time, never moved.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks for the monotonic clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_movable_clock_move_together() {
        let clock = Clock::movable();
        let twin = clock.clone();
        let before = twin.now();
        clock.advance(Duration::from_hours(72));
        assert!(twin.now().duration_since(before).as_hours() >= 72);
        assert_eq!(twin.offset_ms(), 72 * 3_600_000);
    }

    #[test]
    fn a_fixed_clock_stands_still() {
        let at: Timestamp = "2026-03-06T21:00:00Z".parse().unwrap();
        let clock = Clock::fixed(at);
        clock.advance(Duration::from_hours(1));
        assert_eq!(clock.now(), at);
    }

    #[test]
    fn the_system_clock_cannot_be_moved() {
        let clock = Clock::system();
        clock.advance(Duration::from_hours(1));
        assert_eq!(clock.offset_ms(), 0);
    }
}
