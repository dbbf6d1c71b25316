//! What harmless signed calls to Amazon show.

use std::time::Duration;

use jiff::SignedDuration;

use super::server::apart;
use super::{Check, Finding, Severity};
use crate::model::probe::Probe;
use crate::model::verdict::{Decline, Verdict};

/// The longest that Amazon works on a request (Create Charge in Japan).
const LONGEST_PROCESSING: Duration = Duration::from_secs(30);
/// Ages of `x-amz-pay-date` that are tried.
const AGES: [Duration; 7] = [
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(10),
    Duration::from_mins(15),
    Duration::from_mins(20),
    Duration::from_mins(30),
    Duration::from_hours(1),
];

/// Whether Amazon took the signature of a call for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It looked for the object.
    Yes,
    /// It refused the signature, its date or the account.
    No,
    /// Neither can be said.
    Unclear,
}

impl Taken {
    /// Reads the answer to a signed look at a charge permission that nobody has: whoever is told that there is none was believed.
    #[must_use]
    pub fn read(probe: &Probe) -> Self {
        match probe {
            Probe::Answered { status: 200..=299 | 404, .. } => Self::Yes,
            Probe::Answered { status: 401 | 403, .. } => Self::No,
            // The guides say 403, and others have been seen.
            Probe::Answered { status: 400..=499, reason: Some(reason) }
                if ["InvalidRequestSignature", "UnauthorizedAccess", "InvalidAccountStatus"]
                    .contains(&reason.as_str()) =>
            {
                Self::No
            }
            _ => Self::Unclear,
        }
    }
}

fn said(probe: &Probe) -> String {
    match probe {
        Probe::Silent(why) => why.clone(),
        Probe::Answered { status, reason } => {
            format!("HTTP {status} {}", reason.as_deref().unwrap_or_default()).trim_end().to_owned()
        }
    }
}

/// What one call shows: is Amazon there, does it accept the signature, and what time is it there? `skew` is our clock minus Amazon's.
#[must_use]
pub fn first_call(probe: &Probe, skew: Option<SignedDuration>) -> Vec<Finding> {
    let reachable = match probe {
        Probe::Silent(why) => Finding::new(Check::AmazonReachable, Severity::Error, format!("no answer: {why}")),
        Probe::Answered { .. } => Finding::new(Check::AmazonReachable, Severity::Ok, "Amazon answers"),
    };
    let signature = match Taken::read(probe) {
        Taken::Yes => Finding::new(Check::AmazonSignature, Severity::Ok, "Amazon accepts the signature"),
        Taken::No => {
            Finding::new(Check::AmazonSignature, Severity::Error, format!("Amazon refuses it: {}", said(probe)))
        }
        Taken::Unclear => {
            Finding::new(Check::AmazonSignature, Severity::Unknown, format!("nothing can be said: {}", said(probe)))
        }
    };
    let clock = match skew {
        Some(skew) => apart(Check::AmazonClock, skew, "Amazon"),
        None => Finding::new(Check::AmazonClock, Severity::Unknown, "Amazon's answer has no Date, or none came"),
    };
    vec![reachable, signature, clock]
}

/// The oldest date that Amazon may accept for X to be long enough: what comes after it is its processing and the skew.
fn limit(x: Duration, skew: SignedDuration) -> Duration {
    x.saturating_sub(LONGEST_PROCESSING).saturating_sub(skew.unsigned_abs())
}

/// The ages to try, ascending, until one is refused; the one on which X hangs is among them.
#[must_use]
pub fn ages(x: Duration, skew: Option<SignedDuration>) -> Vec<Duration> {
    let limit = Duration::from_secs(limit(x, skew.unwrap_or_default()).as_secs());
    let mut ages: Vec<Duration> = AGES.into_iter().chain([limit]).filter(|age| !age.is_zero()).collect();
    ages.sort_unstable();
    ages.dedup();
    ages
}

/// What calls with old dates show about X (`CONFIRMATION_DELAY`); `calls` by ascending age.
#[must_use]
pub fn date_tolerance(calls: &[(Duration, Taken)], x: Duration, skew: Option<SignedDuration>) -> Finding {
    let of = |severity, found: String| Finding::new(Check::AmazonDateTolerance, severity, found);
    let seconds = |age: Duration| format!("{} s", age.as_secs());
    let accepted = calls.iter().filter(|(_, taken)| *taken == Taken::Yes).map(|(age, _)| *age).max();
    let refused = calls.iter().filter(|(_, taken)| *taken == Taken::No).map(|(age, _)| *age).min();
    let limit = Duration::from_secs(limit(x, skew.unwrap_or_default()).as_secs());
    let x = seconds(x);
    match (accepted, refused) {
        (Some(accepted), _) if accepted >= limit => of(
            Severity::Error,
            format!(
                "a date {} old is accepted; with 30 s of processing and the clocks' difference CONFIRMATION_DELAY ({x}) is too short",
                seconds(accepted)
            ),
        ),
        (None, Some(refused)) => {
            of(Severity::Ok, format!("a date {} old is refused; CONFIRMATION_DELAY is {x}", seconds(refused)))
        }
        (Some(accepted), Some(refused)) => of(
            Severity::Ok,
            format!(
                "a date {} old is accepted, one {} old is refused; CONFIRMATION_DELAY is {x}",
                seconds(accepted),
                seconds(refused)
            ),
        ),
        (_, None) => of(Severity::Unknown, "no answer of Amazon showed where its tolerance ends".to_owned()),
    }
}

/// What a simulated soft decline and the same request without the simulation, under the same key, show. `None`: nobody asked.
#[must_use]
pub fn declines(answers: Option<(&Verdict, &Verdict)>) -> Finding {
    let of = |severity, found: String| Finding::new(Check::AmazonDeclines, severity, found);
    let soft = |verdict: &Verdict| *verdict == Verdict::Declined(Decline::SoftDeclined);
    match answers {
        None => of(Severity::Unknown, "not measured".to_owned()),
        Some((first, _)) if !soft(first) => {
            of(Severity::Unknown, format!("the simulated decline was answered {}", named(first)))
        }
        Some((_, second)) if soft(second) => {
            of(Severity::Ok, "declines are repeated under the same key (in the sandbox)".to_owned())
        }
        Some((_, Verdict::Charge(_))) => {
            of(Severity::Ok, "a declined charge is evaluated anew under the same key (in the sandbox)".to_owned())
        }
        Some((_, second)) => of(Severity::Unknown, format!("the same key again was answered {}", named(second))),
    }
}

fn named(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Charge(charge) => format!("with a charge, {}", charge.state.as_str()),
        Verdict::Declined(decline) => decline.as_str().to_owned(),
        Verdict::Refused(refusal) => refusal.code().to_owned(),
        Verdict::DuplicateKey => "DuplicateIdempotencyKey".to_owned(),
        Verdict::AccountFault(code) => code.clone(),
        Verdict::Ambiguous { why, .. } => why.clone(),
    }
}

/// Hosts of signing certificates, each with whether it answered, and why not.
#[must_use]
pub fn certificate_hosts(hosts: &[(String, Result<(), String>)]) -> Finding {
    let silent: Vec<String> =
        hosts.iter().filter_map(|(host, answered)| Some(format!("{host}: {}", answered.as_ref().err()?))).collect();
    if silent.is_empty() {
        let names: Vec<&str> = hosts.iter().map(|(host, _)| host.as_str()).collect();
        return Finding::new(Check::CertificateHost, Severity::Ok, format!("{} answers", names.join(", ")));
    }
    Finding::new(Check::CertificateHost, Severity::Error, silent.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::verdict::Refusal;

    fn answered(status: u16, reason: &str) -> Probe {
        Probe::Answered { status, reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()) }
    }

    fn severities(probe: &Probe, skew: Option<i64>) -> [Severity; 3] {
        let found = first_call(probe, skew.map(SignedDuration::from_secs));
        let severities: Vec<_> = found.iter().map(|finding| finding.severity).collect();
        severities.try_into().unwrap()
    }

    #[test]
    fn who_is_told_that_there_is_none_was_believed() {
        use Severity::{Error, Ok, Unknown, Warning};
        for (probe, skew, expected) in [
            (answered(404, "ResourceNotFound"), Some(0), [Ok, Ok, Ok]),
            (answered(200, ""), Some(-31), [Ok, Ok, Warning]),
            (answered(403, "InvalidRequestSignature"), Some(301), [Ok, Error, Error]),
            (answered(400, "InvalidRequestSignature"), Some(0), [Ok, Error, Ok]),
            (answered(401, ""), Some(0), [Ok, Error, Ok]),
            (answered(403, "SomethingNew"), Some(0), [Ok, Error, Ok]),
            (answered(400, "InvalidParameterValue"), Some(0), [Ok, Unknown, Ok]),
            (answered(429, "TooManyRequests"), Some(0), [Ok, Unknown, Ok]),
            (answered(503, ""), None, [Ok, Unknown, Unknown]),
            (Probe::Silent("no connection".to_owned()), None, [Error, Unknown, Unknown]),
        ] {
            assert_eq!(severities(&probe, skew), expected, "{probe:?}");
        }
    }

    const X: Duration = Duration::from_mins(30);

    /// What comes of an Amazon that accepts dates up to `tolerance` old.
    fn tolerance(tolerance: Duration, x: Duration, skew: i64) -> Finding {
        let skew = Some(SignedDuration::from_secs(skew));
        let mut calls = Vec::new();
        for age in ages(x, skew) {
            let taken = if age <= tolerance { Taken::Yes } else { Taken::No };
            calls.push((age, taken));
            if taken == Taken::No {
                break;
            }
        }
        date_tolerance(&calls, x, skew)
    }

    #[test]
    fn x_must_be_longer_than_the_tolerance_thirty_seconds_and_the_skew() {
        for (minutes, severity) in [(5, Severity::Ok), (15, Severity::Ok), (29, Severity::Ok), (30, Severity::Error)] {
            assert_eq!(tolerance(Duration::from_mins(minutes), X, 0).severity, severity, "{minutes}");
        }
        // 30 min less 30 s is the first that is too much.
        assert_eq!(tolerance(Duration::from_secs(29 * 60 + 29), X, 0).severity, Severity::Ok);
        assert_eq!(tolerance(Duration::from_secs(29 * 60 + 30), X, 0).severity, Severity::Error);
        for skew in [60, -60] {
            assert_eq!(tolerance(Duration::from_secs(28 * 60 + 29), X, skew).severity, Severity::Ok);
            assert_eq!(tolerance(Duration::from_secs(28 * 60 + 30), X, skew).severity, Severity::Error);
        }
        assert_eq!(tolerance(Duration::from_mins(15), Duration::from_mins(10), 0).severity, Severity::Error);
        assert_eq!(tolerance(Duration::from_hours(24), Duration::from_hours(2), 0).severity, Severity::Error);
        let found = tolerance(Duration::from_mins(15), X, 0).found;
        assert!(found.contains("900 s old is accepted") && found.contains("1200 s old is refused"), "{found}");
        assert!(tolerance(Duration::ZERO, X, 0).found.contains("60 s old is refused"));
    }

    #[test]
    fn an_unclear_answer_proves_nothing_but_an_accepted_age_that_is_too_high_does() {
        let minute = Duration::from_mins(1);
        let unclear = [(minute, Taken::Yes), (5 * minute, Taken::Unclear)];
        assert_eq!(date_tolerance(&unclear, X, None).severity, Severity::Unknown);
        assert_eq!(date_tolerance(&[], X, None).severity, Severity::Unknown);
        let too_high = [(30 * minute, Taken::Yes), (60 * minute, Taken::Unclear)];
        assert_eq!(date_tolerance(&too_high, X, None).severity, Severity::Error);
    }

    #[test]
    fn the_ages_ascend_and_hold_the_one_on_which_x_hangs() {
        let ages = ages(X, Some(SignedDuration::from_secs(-20)));
        assert!(ages.is_sorted() && ages.contains(&Duration::from_secs(30 * 60 - 50)));
        assert_eq!(ages.len(), 8);
        assert_eq!(super::ages(Duration::from_secs(20), None).len(), 7, "nothing is asked of the future");
    }

    #[test]
    fn what_a_used_key_answers_is_told_only_if_the_decline_was_one() {
        let soft = Verdict::Declined(Decline::SoftDeclined);
        let refused = Verdict::Refused(Refusal::PermissionStatus);
        assert_eq!(declines(None).severity, Severity::Unknown);
        let replays = declines(Some((&soft, &soft)));
        assert_eq!((replays.severity, replays.found.contains("repeated")), (Severity::Ok, true));
        assert_eq!(declines(Some((&refused, &soft))).severity, Severity::Unknown);
        assert_eq!(declines(Some((&soft, &refused))).severity, Severity::Unknown);
    }

    #[test]
    fn a_host_of_certificates_that_does_not_answer_is_named_with_the_cause() {
        let good = ("sns.eu-west-1.amazonaws.com".to_owned(), Ok(()));
        let bad = ("sns.us-east-1.amazonaws.com".to_owned(), Err("no connection".to_owned()));
        assert_eq!(certificate_hosts(std::slice::from_ref(&good)).severity, Severity::Ok);
        let found = certificate_hosts(&[good, bad]);
        assert_eq!(
            (found.severity, found.found.as_str()),
            (Severity::Error, "sns.us-east-1.amazonaws.com: no connection")
        );
    }
}
