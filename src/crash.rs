//! Named points between durable steps, at which the harness of `tests/crash` kills this process with SIGKILL, or freezes it with SIGSTOP.
//!
//! Only a build with the cargo feature `sandbox` has them: elsewhere `crash_point!` is nothing, and this module is not there. With the
//! feature they do nothing until [`arm`] was called, which `serve` does for the hidden setting `CRASH_AT`; a live environment refuses it.

use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

macro_rules! points {
    ($($(#[doc = $doc:literal])+ $point:ident = $name:literal;)+) => {
        /// A place between two durable steps.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum CrashPoint {
            $($(#[doc = $doc])+ $point,)+
        }

        impl CrashPoint {
            /// All of them, in the order of the work.
            pub const ALL: &[Self] = &[$(Self::$point,)+];

            /// The name in `CRASH_AT` and in the documents.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }
        }
    };
}

points! {
    /// A notification is genuine and understood; nothing is stored.
    AcceptBefore = "accept-before";
    /// The notification is stored; SNS has not heard 200.
    AcceptAfter = "accept-after";
    /// A message that is not understood is about to be kept.
    QuarantineBefore = "quarantine-before";
    /// It is kept; SNS has not heard 200.
    QuarantineAfter = "quarantine-after";
    /// A subscription is genuine; SNS's API has not been asked to confirm it.
    SubscriptionBefore = "subscription-before";
    /// SNS has confirmed it; nothing is stored.
    SubscriptionConfirmed = "subscription-confirmed";
    /// It is stored; SNS has not heard 200.
    SubscriptionAfter = "subscription-after";
    /// A charge was read; nothing is stored.
    SubmitBefore = "submit-before";
    /// It is stored; the caller has not heard.
    SubmitAfter = "submit-after";
    /// A cancellation was asked for; nothing is stored.
    CancelBefore = "cancel-before";
    /// It is stored; the caller has not heard.
    CancelAfter = "cancel-after";
    /// A capture was asked for; nothing is stored.
    CaptureBefore = "capture-before";
    /// It is stored; the caller has not heard.
    CaptureAfter = "capture-after";
    /// A closing was asked for; nothing is stored.
    CloseBefore = "close-before";
    /// It is stored; the caller has not heard.
    CloseAfter = "close-after";
    /// An operator resolves a charge; nothing is stored.
    ResolveBefore = "resolve-before";
    /// It is stored; the operator has not heard.
    ResolveAfter = "resolve-after";
    /// A retry was asked for; nothing is stored.
    RetryBefore = "retry-before";
    /// It is stored; the caller has not heard.
    RetryAfter = "retry-after";
    /// A pause or its end was asked for; nothing is stored.
    PauseBefore = "pause-before";
    /// It is stored; the caller has not heard.
    PauseAfter = "pause-after";
    /// A look was asked for; nothing is stored.
    LookBefore = "look-before";
    /// It is stored; the caller has not heard.
    LookAfter = "look-after";
    /// The stop switch is about to be moved.
    StopBefore = "stop-before";
    /// It is moved; the caller has not heard.
    StopAfter = "stop-after";
    /// Redis named what is due and let in who waited for quota; nothing is claimed.
    DueListed = "due-listed";
    /// A lease was taken.
    Claimed = "claimed";
    /// The quota is about to be reserved.
    ReserveBefore = "reserve-before";
    /// It is reserved, or the permission waits and the lease is given back.
    ReserveAfter = "reserve-after";
    /// A call is about to be made; the lease is not renewed.
    RenewBefore = "renew-before";
    /// The lease is renewed; the call is not made.
    RenewAfter = "renew-after";
    /// Get Charge Permission was answered.
    PermissionRead = "permission-read";
    /// Get Charge was answered.
    ChargeRead = "charge-read";
    /// Get Refund or Get Dispute was answered.
    ObjectRead = "object-read";
    /// Everything that was to be read has been; throttling and faults are passed on.
    Gathered = "gathered";
    /// It is decided what to do.
    Decided = "decided";
    /// A charge is about to be signed.
    SignBefore = "sign-before";
    /// It is signed; the send is not marked.
    MarkBefore = "mark-before";
    /// The send is marked; nothing has gone out.
    MarkAfter = "mark-after";
    /// Amazon's answer has begun to arrive and is not read.
    AnswerBegun = "answer-begun";
    /// Amazon's answer is in hand.
    Answered = "answered";
    /// It is settled, throttling and faults are passed on; nothing is committed.
    Settled = "settled";
    /// A capture is about to be signed.
    CaptureSignBefore = "capture-sign-before";
    /// It is signed; the send is not marked.
    CaptureMarkBefore = "capture-mark-before";
    /// The send of a capture is marked; nothing has gone out.
    CaptureMarkAfter = "capture-mark-after";
    /// The answer to a capture is in hand; nothing is committed.
    CaptureAnswered = "capture-answered";
    /// The look after a resolved number was answered.
    LookedAgain = "looked-again";
    /// An authorisation is about to be canceled at Amazon.
    CancelChargeBefore = "cancel-charge-before";
    /// Amazon answered; nothing is committed.
    CancelChargeAfter = "cancel-charge-after";
    /// A permission is about to be closed at Amazon.
    ClosePermissionBefore = "close-permission-before";
    /// Amazon answered; nothing has been looked at or committed.
    ClosePermissionAfter = "close-permission-after";
    /// A fault of the account is about to be noted for all instances.
    FaultBefore = "fault-before";
    /// It is noted.
    FaultAfter = "fault-after";
    /// The probe of an account at fault was answered.
    Probed = "probed";
    /// Throttling was passed on to all instances.
    ThrottlingNoted = "throttling-noted";
    /// The decision is about to be committed; an idle one, too.
    CommitBefore = "commit-before";
    /// It is committed.
    CommitAfter = "commit-after";
    /// A success is in hand and the lease is lost; the success is not noted.
    MergeBefore = "merge-before";
    /// The success is noted for whoever holds the lease.
    MergeAfter = "merge-after";
    /// A lease is about to be given back undecided.
    ReleaseBefore = "release-before";
    /// It is given back.
    ReleaseAfter = "release-after";
    /// Old events were trimmed.
    EventsTrimmed = "events-trimmed";
    /// The lists of charges were filled.
    ListsFilled = "lists-filled";
    /// Entries of charges that have gone were taken out of the lists.
    ListsTrimmed = "lists-trimmed";
    /// SIGTERM has come; nobody was told.
    StopHeard = "stop-heard";
    /// Nothing new begins; what is in hand goes on.
    DrainBegun = "drain-begun";
    /// What was in hand is finished and stored.
    Drained = "drained";
}

/// No such point, or no such count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected trace, or a crash point such as mark-after:1, with :freeze after it to stop there instead, got {0:?}"
)]
pub struct NoCrash(String);

impl FromStr for CrashPoint {
    type Err = NoCrash;

    fn from_str(text: &str) -> Result<Self, NoCrash> {
        Self::ALL.iter().copied().find(|point| point.as_str() == text).ok_or_else(|| NoCrash(text.to_owned()))
    }
}

/// What is to happen where: `mark-after:2` kills this process when the point is reached for the second time, `mark-after:2:freeze`
/// freezes it there until somebody sends SIGCONT and logs each point that is reached after that, and `trace` logs each point.
#[derive(Debug)]
pub struct Crash(Wanted);

#[derive(Debug)]
enum Wanted {
    Trace,
    At { point: CrashPoint, left: AtomicU32, signal: Signal },
}

impl FromStr for Crash {
    type Err = NoCrash;

    fn from_str(text: &str) -> Result<Self, NoCrash> {
        let wrong = || NoCrash(text.to_owned());
        if text == "trace" {
            return Ok(Self(Wanted::Trace));
        }
        let (point, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (count, signal) = match rest.split_once(':') {
            None => (rest, Signal::KILL),
            Some((count, "freeze")) => (count, Signal::STOP),
            Some(_) => return Err(wrong()),
        };
        let point = point.parse().map_err(|_| wrong())?;
        let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        Ok(Self(Wanted::At { point, left: AtomicU32::new(count), signal }))
    }
}

/// Between the request to stop this process and its last instruction.
const STOP_STRIKES_WITHIN: Duration = Duration::from_millis(50);

static CRASH: OnceLock<Crash> = OnceLock::new();

/// From now on the point strikes. The first call counts.
pub fn arm(crash: Crash) {
    let _ = CRASH.set(crash);
}

/// A point is reached. `crash_point!` calls this.
pub fn reach(point: CrashPoint) {
    match CRASH.get().map(|crash| &crash.0) {
        Some(Wanted::Trace) => say(point),
        Some(Wanted::At { point: armed, left, signal }) if *armed == point => {
            match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
                Ok(1) => strike(*signal),
                Ok(_) => {}
                Err(_) => say(point),
            }
        }
        Some(Wanted::At { left, .. }) if left.load(Ordering::SeqCst) == 0 => say(point),
        Some(Wanted::At { .. }) | None => {}
    }
}

fn say(point: CrashPoint) {
    tracing::info!(point = point.as_str(), "crash point");
}

/// SIGKILL leaves no time for a destructor or a flush. This thread goes no further before the signal has struck: a stop may reach other
/// threads first.
fn strike(signal: Signal) {
    let _ = kill_process(getpid(), signal);
    if signal == Signal::STOP {
        return std::thread::sleep(STOP_STRIKES_WITHIN);
    }
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_point_has_a_name_of_its_own_and_is_found_by_it() {
        let names: BTreeSet<&str> = CrashPoint::ALL.iter().map(|point| point.as_str()).collect();
        assert_eq!(names.len(), CrashPoint::ALL.len());
        for point in CrashPoint::ALL {
            assert_eq!(point.as_str().parse(), Ok(*point));
        }
    }

    #[test]
    fn a_crash_is_a_point_with_a_count_and_nothing_else() {
        for text in ["trace", "mark-after:1", "commit-before:12", "mark-after:2:freeze"] {
            assert!(text.parse::<Crash>().is_ok(), "{text}");
        }
        for text in ["", "mark-after", "mark-after:0", "mark-after:x", "nowhere:1", "mark-after:1:sleep", "mark-after:"]
        {
            let wrong = text.parse::<Crash>().expect_err(text).to_string();
            assert!(wrong.ends_with(&format!("got {text:?}")), "{wrong}");
        }
    }
}
