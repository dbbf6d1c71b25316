//! What an answer to Create Charge means: status, headers and body, or none of them, become a [`Verdict`].
//!
//! Capture Charge is answered in the same terms, so its answers are read here too; what they mean for a capture is said in
//! `recovery/capture.rs`.
//!
//! Pure, total, and with its table ([`super::reasons`]) the only place that reads reason codes of Create Charge. The reason code decides, not the HTTP number, with
//! three exceptions where the number says that the code may not be the charge's own:
//!
//! - 408, 425, 429 and every 5xx but 500 say that the request was not worked through to its end. Whatever their body claims, the
//!   charge may still be made, so even a decline in them is ambiguous: the same number goes out again and is answered properly.
//! - Of 500 only `ProcessingFailure` is a decline, because Amazon documents that one there.
//! - 2xx is judged by its charge id alone.
//!
//! Ambiguous is always the safe reading: it costs a repeat under the same key, never a second charge.
//!
//! Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/error-handling.html> and the guides on declined charges.

use std::time::Duration;

use jiff::fmt::rfc2822;

use super::reasons::{Meaning, meaning_of};
use super::wire;
use crate::model::verdict::{Decline, Refusal, Verdict};

/// The shortest and the longest `Retry-After` that we believe.
pub const RETRY_AFTER_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(15));

/// What came back from Create Charge.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    /// A status line came, and with it headers.
    Reply {
        /// The HTTP status.
        status: u16,
        /// `Retry-After`, seconds or an HTTP date.
        retry_after: Option<&'a str>,
        /// `Date`: what a `Retry-After` that is a date is counted from, so that our own clock does not matter.
        date: Option<&'a str>,
        /// The whole body; `None` if it was too long, or the connection broke before its end.
        body: Option<&'a [u8]>,
    },
    /// Nothing came.
    Nothing(NoReply),
}

/// Why nothing came. In every case Amazon may have made the charge, or may yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// Our own time-out.
    #[error("no answer within the time-out")]
    TimedOut,
    /// No connection came about.
    #[error("no connection to Amazon")]
    NotConnected,
    /// The connection broke, or what came was not HTTP.
    #[error("connection lost before the answer")]
    Lost,
}

/// The verdict on an answer to Create Charge.
pub fn classify(answer: Answer<'_>) -> Verdict {
    let (status, retry_after, date, body) = match answer {
        Answer::Nothing(why) => return Verdict::Ambiguous { why: why.to_string(), retry_after: None },
        Answer::Reply { status, retry_after, date, body } => (status, retry_after, date, body),
    };
    let code = body.and_then(wire::reason_code);
    let ambiguous = |note: &str| Verdict::Ambiguous {
        why: format!("HTTP {status} {note}").trim_end().to_owned(),
        retry_after: retry_after.and_then(|value| bounded_retry_after(value, date)),
    };
    let shown = code.as_deref().map_or_else(|| format!("HTTP{status}"), wire::printable);
    let note = code.as_ref().map_or("", |_| shown.as_str());

    // The first row that fits decides. Where the code can decide, it is the code that does, by the table of `reasons`.
    let meaning = code.as_deref().and_then(meaning_of);
    match (status, meaning) {
        (200..=299, _) => match body.map(wire::charge) {
            Some(Ok(charge)) => Verdict::Charge(Box::new(charge)),
            _ => ambiguous("without a readable charge id"),
        },
        (500, Some(Meaning::Declined(Decline::ProcessingFailure))) => Verdict::Declined(Decline::ProcessingFailure),
        (..=399 | 408 | 425 | 429 | 500.., _) => ambiguous(note),
        // From here on the other 4xx.
        (_, Some(Meaning::Declined(decline))) => Verdict::Declined(decline),
        (_, Some(Meaning::MonthlyLimit)) => Verdict::Refused(Refusal::MonthlyLimit),
        (_, Some(Meaning::PermissionStatus)) => Verdict::Refused(Refusal::PermissionStatus),
        (_, Some(Meaning::NewCheckout)) => Verdict::Refused(Refusal::NewCheckout(shown)),
        (_, Some(Meaning::DuplicateKey)) => Verdict::DuplicateKey,
        (_, Some(Meaning::AccountFault)) | (401 | 403, _) => Verdict::AccountFault(shown),
        (_, Some(Meaning::Ambiguous)) => ambiguous(note),
        // A code that we could not read is not the same as one that is not there.
        (_, None) if body.is_none() => ambiguous("with an unreadable body"),
        (422, None) => Verdict::Refused(Refusal::NewCheckout(shown)),
        (_, Some(Meaning::Mistake) | None) => Verdict::Refused(Refusal::NotUnderstood(shown)),
    }
}

/// Seconds, or an HTTP date counted from the answer's own; `None` if it is neither.
pub(super) fn bounded_retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    let (least, most) = RETRY_AFTER_BOUNDS;
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that do not fit are simply very many seconds.
        return Some(value.parse().map_or(most, Duration::from_secs).clamp(least, most));
    }
    let parser = rfc2822::DateTimeParser::new();
    let until = parser.parse_timestamp(value).ok()?;
    let from = parser.parse_timestamp(date?.trim()).ok()?;
    // A date in the past is a negative duration: due at once.
    Some(Duration::try_from(until.duration_since(from)).unwrap_or(least).clamp(least, most))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::amazon_pay::reasons::REASONS;
    use crate::model::charge::ChargeState;

    fn reply(status: u16, body: &[u8]) -> Verdict {
        classify(Answer::Reply { status, retry_after: None, date: None, body: Some(body) })
    }

    fn error(status: u16, code: &str) -> Verdict {
        reply(status, format!(r#"{{"reasonCode":"{code}","message":"secret 4111"}}"#).as_bytes())
    }

    fn not_understood(code: &str) -> Verdict {
        Verdict::Refused(Refusal::NotUnderstood(code.to_owned()))
    }

    fn new_checkout(code: &str) -> Verdict {
        Verdict::Refused(Refusal::NewCheckout(code.to_owned()))
    }

    fn is_ambiguous(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Ambiguous { .. })
    }

    #[test]
    fn every_documented_error_has_its_verdict() {
        for reason in REASONS {
            let code = reason.code;
            let verdict = error(reason.documented_status, code);
            let expected = match reason.meaning {
                Meaning::Declined(decline) => Verdict::Declined(decline),
                Meaning::MonthlyLimit => Verdict::Refused(Refusal::MonthlyLimit),
                Meaning::PermissionStatus => Verdict::Refused(Refusal::PermissionStatus),
                Meaning::NewCheckout => new_checkout(code),
                Meaning::DuplicateKey => Verdict::DuplicateKey,
                Meaning::AccountFault => Verdict::AccountFault(code.to_owned()),
                Meaning::Mistake => not_understood(code),
                Meaning::Ambiguous => {
                    assert!(is_ambiguous(&verdict), "{code}");
                    continue;
                }
            };
            assert_eq!(verdict, expected, "{} {code}", reason.documented_status);
        }
        for code in ["InvalidChargeStatus", "ChargePermissionNotModifiable", "InvalidCheckoutSessionStatus"] {
            assert_eq!(error(422, code), new_checkout(code), "not one of Create Charge: unknown, and 422");
        }
        for (status, code) in [(425, "TooEarly"), (502, ""), (504, ""), (408, "")] {
            assert!(is_ambiguous(&error(status, code)), "{status} {code}");
        }
    }

    #[test]
    fn a_mistake_under_401_or_403_is_the_accounts_fault_and_throttling_is_no_decline_under_any_status() {
        assert_eq!(error(403, "InvalidParameterValue"), Verdict::AccountFault("InvalidParameterValue".to_owned()));
        assert!(is_ambiguous(&error(400, "TooManyRequests")));
        assert!(is_ambiguous(&error(422, "ServiceUnavailable")));
    }

    #[test]
    fn the_code_decides_whatever_the_4xx_but_not_where_the_request_was_not_finished() {
        for decline in Decline::ALL {
            for status in [400, 401, 402, 403, 404, 409, 410, 422, 499] {
                assert_eq!(error(status, decline.as_str()), Verdict::Declined(decline), "{status} {decline:?}");
            }
            for status in [100, 301, 302, 307, 308, 408, 425, 429, 501, 502, 503, 504, 599, 0, 600, 999] {
                assert!(is_ambiguous(&error(status, decline.as_str())), "{status} {decline:?}");
            }
            assert_eq!(is_ambiguous(&error(500, decline.as_str())), decline != Decline::ProcessingFailure);
        }
        assert_eq!(error(422, "DuplicateIdempotencyKey"), Verdict::DuplicateKey);
        assert_eq!(error(422, "PeriodicAmountExceeded"), Verdict::Refused(Refusal::MonthlyLimit));
        let fault = Verdict::AccountFault("InvalidRequestSignature".to_owned());
        assert_eq!(error(400, "InvalidRequestSignature"), fault);
    }

    #[test]
    fn success_is_a_charge_id_and_nothing_else() {
        for status in [200, 201, 202] {
            let verdict = reply(status, br#"{"chargeId":"S01-1-2-C3","statusDetails":{"state":"Captured"}}"#);
            let Verdict::Charge(charge) = verdict else { panic!("{verdict:?}") };
            assert_eq!(charge.state, ChargeState::Captured);
        }
        for body in ["", "{}", "<html>", r#"{"chargeId":"a b"}"#, r#"{"reasonCode":"SoftDeclined"}"#] {
            assert!(is_ambiguous(&reply(201, body.as_bytes())), "{body}");
        }
        assert!(is_ambiguous(&classify(Answer::Reply { status: 201, retry_after: None, date: None, body: None })));
    }

    #[test]
    fn unknown_and_unreadable_errors_go_by_their_status() {
        assert_eq!(error(422, "SomethingNew"), new_checkout("SomethingNew"));
        assert_eq!(error(400, "SomethingNew"), not_understood("SomethingNew"));
        assert_eq!(reply(422, b"<html>"), new_checkout("HTTP422"));
        assert_eq!(reply(404, b""), not_understood("HTTP404"));
        assert_eq!(reply(401, b""), Verdict::AccountFault("HTTP401".to_owned()));
        assert_eq!(error(400, "soft declined\\n"), not_understood("soft_declined_"));
        let cut = |status| classify(Answer::Reply { status, retry_after: None, date: None, body: None });
        assert!(is_ambiguous(&cut(422)) && is_ambiguous(&cut(400)));
        assert_eq!(cut(403), Verdict::AccountFault("HTTP403".to_owned()));
    }

    #[test]
    fn no_answer_at_all_is_ambiguous() {
        for why in [NoReply::TimedOut, NoReply::NotConnected, NoReply::Lost] {
            assert_eq!(classify(Answer::Nothing(why)), Verdict::Ambiguous { why: why.to_string(), retry_after: None });
        }
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let date = Some("Sun, 22 Nov 2026 01:00:00 GMT");
        for (value, date, seconds) in [
            ("30", None, Some(30)),
            (" 30 ", None, Some(30)),
            ("0", None, Some(1)),
            ("86400", None, Some(900)),
            ("99999999999999999999999", None, Some(900)),
            ("Sun, 22 Nov 2026 01:02:00 GMT", date, Some(120)),
            ("Sun, 22 Nov 2026 00:00:00 GMT", date, Some(1)),
            ("Mon, 23 Nov 2026 01:00:00 GMT", date, Some(900)),
            ("Sun, 22 Nov 2026 01:02:00 GMT", None, None),
            ("-5", None, None),
            ("1.5", None, None),
            ("", None, None),
            ("soon", date, None),
        ] {
            let verdict = classify(Answer::Reply { status: 429, retry_after: Some(value), date, body: Some(b"") });
            let Verdict::Ambiguous { retry_after, .. } = verdict else { panic!("{verdict:?}") };
            assert_eq!(retry_after, seconds.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn an_ambiguous_answer_says_why_without_quoting_the_body() {
        let Verdict::Ambiguous { why, .. } = error(503, "ServiceUnavailable") else { panic!() };
        assert_eq!(why, "HTTP 503 ServiceUnavailable");
        let Verdict::Ambiguous { why, .. } = reply(502, b"<html>secret") else { panic!() };
        assert_eq!(why, "HTTP 502");
    }

    proptest! {
        #[test]
        fn any_answer_gets_a_verdict_and_only_2xx_gets_a_charge(
            status in any::<u16>(),
            body in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
            retry_after in proptest::option::of(".{0,40}"),
            date in proptest::option::of(".{0,40}"),
        ) {
            let verdict = classify(Answer::Reply {
                status,
                retry_after: retry_after.as_deref(),
                date: date.as_deref(),
                body: body.as_deref(),
            });
            if let Verdict::Ambiguous { retry_after: Some(wait), .. } = &verdict {
                prop_assert!((RETRY_AFTER_BOUNDS.0..=RETRY_AFTER_BOUNDS.1).contains(wait));
            }
            prop_assert!(!matches!(verdict, Verdict::Charge(_)) || (200..300).contains(&status));
        }

        #[test]
        fn any_code_under_any_status_gets_a_verdict_and_a_decline_only_from_its_own_code(
            status in 0_u16..700,
            code in prop_oneof![
                "[A-Za-z]{1,20}",
                ".{0,80}",
                proptest::sample::select(Decline::ALL.map(|decline| decline.as_str().to_owned()).to_vec()),
            ],
        ) {
            let body = serde_json::json!({"reasonCode": code}).to_string();
            let verdict = reply(status, body.as_bytes());
            if let Verdict::Declined(decline) = verdict {
                prop_assert_eq!(decline.as_str(), code);
                prop_assert!((400..=500).contains(&status));
            }
        }
    }
}
