//! Who is logged in to the operator page: a signed cookie, so that every instance knows it and nothing is stored.
//!
//! The key is derived from the token of the internal API: a new token ends every session. Forms carry a second code made from the cookie,
//! because a browser sends cookies also with requests that another site makes it send (cross-site request forgery). Source of both:
//! RFC 2104 (HMAC); OWASP's signed double submit, <https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html>.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use ring::hmac;
use subtle::ConstantTimeEq;

/// A day of work; then the token is asked for again.
const LASTS: Duration = Duration::from_hours(12);
const COOKIE: &str = "amazon-pay-ipn-session";
/// Where the cookie is sent.
pub(super) const PATH: &str = "/operator";
/// Longer ones are none of ours.
const MAX_COOKIE_CHARS: usize = 256;

/// Signs and checks sessions.
#[derive(Clone)]
pub(super) struct Sessions {
    key: hmac::Key,
}

/// Somebody who knew the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// The cookie's value.
    value: String,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    /// For the token of the internal API.
    pub(super) fn new(token: &str) -> Self {
        let of_token = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
        let derived = hmac::sign(&of_token, b"amazon-pay-ipn operator page v1");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) }
    }

    /// The header that begins a session, for who has shown the token.
    pub(super) fn begin(&self, now: Timestamp) -> String {
        let until = now.as_second().saturating_add(i64::try_from(LASTS.as_secs()).unwrap_or(i64::MAX));
        let value = format!("{until}.{}", self.code("session", &until.to_string()));
        let seconds = LASTS.as_secs();
        format!("{COOKIE}={value}; Path={PATH}; Max-Age={seconds}; HttpOnly; SameSite=Strict")
    }

    /// The header that ends it in the browser.
    pub(super) fn end() -> String {
        format!("{COOKIE}=; Path={PATH}; Max-Age=0; HttpOnly; SameSite=Strict")
    }

    /// The session of a request, if it has one that holds.
    pub(super) fn of(&self, headers: &HeaderMap, now: Timestamp) -> Option<Session> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut ours = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = ours.find(|(name, _)| *name == COOKIE)?;
        if value.len() > MAX_COOKIE_CHARS {
            return None;
        }
        let (until, code) = value.split_once('.')?;
        let good = code.as_bytes().ct_eq(self.code("session", until).as_bytes());
        let in_time = until.parse::<i64>().is_ok_and(|until| now.as_second() < until);
        (bool::from(good) && in_time).then(|| Session { value: value.to_owned() })
    }

    /// What the forms of a session carry.
    pub(super) fn form_code(&self, session: &Session) -> String {
        self.code("form", &session.value)
    }

    /// Whether a form was made by us for this session.
    pub(super) fn made(&self, session: &Session, code: &str) -> bool {
        code.as_bytes().ct_eq(self.form_code(session).as_bytes()).into()
    }

    fn code(&self, what: &str, text: &str) -> String {
        BASE64URL_NOPAD.encode(hmac::sign(&self.key, format!("{what} {text}").as_bytes()).as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-30T10:00:00Z".parse().expect("a time")
    }

    fn sent(cookie: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let pair = cookie.split(';').next().unwrap_or_default();
        headers.insert(header::COOKIE, format!("other=1; {pair}").parse().expect("a header"));
        headers
    }

    #[test]
    fn a_session_lasts_half_a_day_and_ends_with_its_token() {
        let sessions = Sessions::new("a-token-of-the-merchant");
        let headers = sent(&sessions.begin(now()));
        assert!(sessions.of(&headers, now()).is_some());
        assert!(sessions.of(&headers, now() + Duration::from_secs(12 * 3600 - 1)).is_some());
        assert_eq!(sessions.of(&headers, now() + LASTS), None);
        assert_eq!(Sessions::new("another-token-of-his").of(&headers, now()), None);
        assert_eq!(sessions.of(&HeaderMap::new(), now()), None);
        assert_eq!(sessions.of(&sent(&Sessions::end()), now()), None);
    }

    #[test]
    fn nobody_lengthens_a_session_or_makes_a_form_for_it() {
        let sessions = Sessions::new("a-token-of-the-merchant");
        let cookie = sessions.begin(now());
        let value = cookie.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie").1;
        let (until, code) = value.split_once('.').expect("two parts");
        let later = until.parse::<i64>().expect("a time") + 1;
        for wrong in
            [format!("{later}.{code}"), format!("{until}."), format!("{until}.x"), until.to_owned(), String::new()]
        {
            assert_eq!(sessions.of(&sent(&format!("{COOKIE}={wrong}")), now()), None, "{wrong}");
        }
        let session = sessions.of(&sent(&cookie), now()).expect("a session");
        assert!(sessions.made(&session, &sessions.form_code(&session)));
        for wrong in ["", code, &sessions.form_code(&Session { value: "x".to_owned() })] {
            assert!(!sessions.made(&session, wrong), "{wrong}");
        }
    }
}
