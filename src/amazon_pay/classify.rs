//! What an answer to Create Charge means: status, headers and body, or none of them, become a [`Verdict`].
//!
//! Pure, total, and the only place that reads reason codes of Create Charge. The reason code decides, not the HTTP number, with
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

    // The table: the first row that fits decides.
    match (status, code.as_deref()) {
        (200..=299, _) => match body.map(wire::charge) {
            Some(Ok(charge)) => Verdict::Charge(Box::new(charge)),
            _ => ambiguous("without a readable charge id"),
        },
        (500, Some("ProcessingFailure")) => Verdict::Declined(Decline::ProcessingFailure),
        (..=399 | 408 | 425 | 429 | 500.., _) => ambiguous(note),
        // From here on the other 4xx, where the code decides.
        (_, Some("SoftDeclined")) => Verdict::Declined(Decline::SoftDeclined),
        (_, Some("HardDeclined")) => Verdict::Declined(Decline::HardDeclined),
        (_, Some("TransactionTimedOut")) => Verdict::Declined(Decline::TransactionTimedOut),
        (_, Some("ProcessingFailure")) => Verdict::Declined(Decline::ProcessingFailure),
        (_, Some("AmazonRejected")) => Verdict::Declined(Decline::AmazonRejected),
        (_, Some("PeriodicAmountExceeded")) => Verdict::Refused(Refusal::MonthlyLimit),
        (_, Some("InvalidChargePermissionStatus")) => Verdict::Refused(Refusal::PermissionStatus),
        (
            _,
            Some(
                "PaymentMethodNotAllowed"
                | "MFANotCompleted"
                | "TransactionAmountExceeded"
                | "TransactionCountExceeded",
            ),
        ) => Verdict::Refused(Refusal::NewCheckout(shown)),
        (_, Some("DuplicateIdempotencyKey")) => Verdict::DuplicateKey,
        (401 | 403, _) | (_, Some("UnauthorizedAccess" | "InvalidAccountStatus" | "InvalidRequestSignature")) => {
            Verdict::AccountFault(shown)
        }
        // A code that we could not read is not the same as one that is not there.
        (_, None) if body.is_none() => ambiguous("with an unreadable body"),
        (422, _) => Verdict::Refused(Refusal::NewCheckout(shown)),
        _ => Verdict::Refused(Refusal::NotUnderstood(shown)),
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
        for code in [
            "InvalidHeaderValue",
            "InvalidRequest",
            "InvalidParameterValue",
            "InvalidRequestFormat",
            "MissingHeader",
            "MissingHeaderValue",
            "MissingParameterValue",
            "UnrecognizedField",
            "InvalidSandboxSimulationSpecified",
            "InvalidParameterCombination",
            "CurrencyMismatch",
            "InvalidAPIVersion",
            "CheckoutSessionCanceled",
        ] {
            assert_eq!(error(400, code), not_understood(code), "400 {code}");
        }
        let rows = [
            (400, "DuplicateIdempotencyKey", Verdict::DuplicateKey),
            (400, "TransactionAmountExceeded", new_checkout("TransactionAmountExceeded")),
            (400, "PeriodicAmountExceeded", Verdict::Refused(Refusal::MonthlyLimit)),
            (401, "UnauthorizedAccess", Verdict::AccountFault("UnauthorizedAccess".to_owned())),
            (403, "InvalidAccountStatus", Verdict::AccountFault("InvalidAccountStatus".to_owned())),
            (403, "InvalidRequestSignature", Verdict::AccountFault("InvalidRequestSignature".to_owned())),
            (404, "ResourceNotFound", not_understood("ResourceNotFound")),
            (405, "UnsupportedOperation", not_understood("UnsupportedOperation")),
            (405, "RequestNotSupported", not_understood("RequestNotSupported")),
            (409, "AmountMismatch", not_understood("AmountMismatch")),
            (422, "SoftDeclined", Verdict::Declined(Decline::SoftDeclined)),
            (422, "HardDeclined", Verdict::Declined(Decline::HardDeclined)),
            (422, "AmazonRejected", Verdict::Declined(Decline::AmazonRejected)),
            (422, "TransactionTimedOut", Verdict::Declined(Decline::TransactionTimedOut)),
            (422, "PaymentMethodNotAllowed", new_checkout("PaymentMethodNotAllowed")),
            (422, "MFANotCompleted", new_checkout("MFANotCompleted")),
            (422, "TransactionCountExceeded", new_checkout("TransactionCountExceeded")),
            (422, "InvalidChargePermissionStatus", Verdict::Refused(Refusal::PermissionStatus)),
            (422, "InvalidChargeStatus", new_checkout("InvalidChargeStatus")),
            (422, "ChargePermissionNotModifiable", new_checkout("ChargePermissionNotModifiable")),
            (422, "InvalidCheckoutSessionStatus", new_checkout("InvalidCheckoutSessionStatus")),
            (500, "ProcessingFailure", Verdict::Declined(Decline::ProcessingFailure)),
        ];
        for (status, code, expected) in rows {
            assert_eq!(error(status, code), expected, "{status} {code}");
        }
        for (status, code) in [
            (425, "TooEarly"),
            (429, "TooManyRequests"),
            (500, "InternalServerError"),
            (502, ""),
            (504, ""),
            (408, ""),
            (503, "ServiceUnavailable"),
        ] {
            assert!(is_ambiguous(&error(status, code)), "{status} {code}");
        }
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
