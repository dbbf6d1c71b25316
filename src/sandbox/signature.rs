//! Checks the signature of a request as Amazon Pay does, from the raw request line and the raw body.
//!
//! Written with the `rsa` and `sha2` crates and from the documentation alone, so that it shares no mistake with the service's
//! own signer. Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/signing-requests.html>.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Method};
use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rsa::{Pss, RsaPublicKey};
use sha2::{Digest, Sha256};

/// The headers that must be signed on every request; POST adds [`IDEMPOTENCY_KEY`].
const ALWAYS_SIGNED: [&str; 5] = ["accept", "content-type", "x-amz-pay-date", "x-amz-pay-host", "x-amz-pay-region"];

/// The header with the idempotency key.
pub(super) const IDEMPOTENCY_KEY: &str = "x-amz-pay-idempotency-key";

/// A request as it came over the wire.
#[derive(Debug, Clone)]
pub(super) struct RawRequest {
    pub(super) method: Method,
    /// Exactly as sent, not decoded.
    pub(super) path: String,
    /// Exactly as sent, without the question mark.
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl RawRequest {
    /// The one value of a header; `None` if it is absent, repeated or not text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }
}

/// Whose signatures are accepted, and how old they may be.
pub(super) struct Verifier {
    pub(super) public_key: RsaPublicKey,
    pub(super) public_key_id: String,
    pub(super) tolerance: Duration,
}

/// Why a request is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignatureError {
    #[error("expected one authorization header")]
    NoAuthorization,
    #[error("expected `ALGORITHM PublicKeyId=.., SignedHeaders=.., Signature=..`")]
    Grammar,
    #[error("expected AMZN-PAY-RSASSA-PSS-V2 or AMZN-PAY-RSASSA-PSS, got {0}")]
    Algorithm(String),
    #[error("expected the public key id of this account, got {0}")]
    PublicKeyId(String),
    #[error("expected SignedHeaders in lower case, sorted and without repetition")]
    SignedHeadersOrder,
    #[error("expected {0} among the SignedHeaders")]
    NotSigned(&'static str),
    #[error("expected one {0} header, as SignedHeaders says")]
    HeaderMissing(String),
    #[error("expected x-amz-pay-host to equal Host, got {0}")]
    Host(String),
    #[error("expected x-amz-pay-date as yyyyMMddTHHmmssZ, got {0}")]
    DateFormat(String),
    #[error("expected x-amz-pay-date within {tolerance_s} s of now, got {date}")]
    DateTooFar { tolerance_s: u64, date: String },
    #[error("the signature does not fit the string to sign {0}")]
    Mismatch(String),
}

impl SignatureError {
    /// The string to sign as Amazon echoes it, one line after the other.
    pub(super) fn string_to_sign(&self) -> &str {
        match self {
            Self::Mismatch(text) => text,
            _ => "",
        }
    }
}

struct Authorization<'a> {
    algorithm: &'a str,
    public_key_id: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (algorithm, rest) = text.split_once(" PublicKeyId=")?;
        let (public_key_id, rest) = rest.split_once(", SignedHeaders=")?;
        let (signed_headers, signature) = rest.split_once(", Signature=")?;
        let token = |text: &str, extra: &[u8]| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
        };
        (token(algorithm, b"-")
            && token(public_key_id, b"-")
            && token(signed_headers, b"-;")
            && token(signature, b"+/="))
        .then_some(Self { algorithm, public_key_id, signed_headers, signature })
    }
}

impl Verifier {
    /// Whether the merchant signed exactly this request a short time ago.
    pub(super) fn verify(&self, request: &RawRequest, now: Timestamp) -> Result<(), SignatureError> {
        let text = request.header("authorization").ok_or(SignatureError::NoAuthorization)?;
        let authorization = Authorization::parse(text).ok_or(SignatureError::Grammar)?;
        let salt_length = match authorization.algorithm {
            "AMZN-PAY-RSASSA-PSS-V2" => 32,
            "AMZN-PAY-RSASSA-PSS" => 20,
            other => return Err(SignatureError::Algorithm(other.to_owned())),
        };
        if authorization.public_key_id != self.public_key_id {
            return Err(SignatureError::PublicKeyId(authorization.public_key_id.to_owned()));
        }
        let names: Vec<&str> = authorization.signed_headers.split(';').collect();
        check_signed_headers(&names, request)?;
        self.check_date(request, now)?;

        let canonical = canonical_request(request, &names)?;
        let string_to_sign = format!("{}\n{}", authorization.algorithm, sha256_hex(canonical.as_bytes()));
        let mismatch = || SignatureError::Mismatch(string_to_sign.clone());
        let signature = BASE64.decode(authorization.signature.as_bytes()).map_err(|_| mismatch())?;
        let hashed = Sha256::digest(string_to_sign.as_bytes());
        self.public_key.verify(Pss::new_with_salt::<Sha256>(salt_length), &hashed, &signature).map_err(|_| mismatch())
    }

    fn check_date(&self, request: &RawRequest, now: Timestamp) -> Result<(), SignatureError> {
        let text = request.header("x-amz-pay-date").unwrap_or_default();
        let date = parse_date(text).ok_or_else(|| SignatureError::DateFormat(text.to_owned()))?;
        if now.duration_since(date).unsigned_abs() > self.tolerance {
            let tolerance_s = self.tolerance.as_secs();
            return Err(SignatureError::DateTooFar { tolerance_s, date: text.to_owned() });
        }
        Ok(())
    }
}

fn check_signed_headers(names: &[&str], request: &RawRequest) -> Result<(), SignatureError> {
    let sorted = names.is_sorted_by(|left, right| left < right);
    if !sorted || names.iter().any(|name| name.bytes().any(|byte| byte.is_ascii_uppercase())) {
        return Err(SignatureError::SignedHeadersOrder);
    }
    // A POST without a key is refused later, as MissingHeader; one whose key is not covered is not to be believed.
    let keyed = request.method == Method::POST && request.headers.contains_key(IDEMPOTENCY_KEY);
    for required in ALWAYS_SIGNED.into_iter().chain(keyed.then_some(IDEMPOTENCY_KEY)) {
        if !names.contains(&required) {
            return Err(SignatureError::NotSigned(required));
        }
    }
    let host = request.header("x-amz-pay-host").unwrap_or_default();
    if host.is_empty() || request.header("host") != Some(host) {
        return Err(SignatureError::Host(host.to_owned()));
    }
    Ok(())
}

/// The text that is hashed and signed.
fn canonical_request(request: &RawRequest, names: &[&str]) -> Result<String, SignatureError> {
    let path = if request.path.is_empty() { "/" } else { &request.path };
    let mut query: Vec<&str> = request.query.split('&').filter(|pair| !pair.is_empty()).collect();
    query.sort_unstable();
    let mut lines = vec![request.method.to_string(), path.to_owned(), query.join("&")];
    for name in names {
        let value = request.header(name).ok_or_else(|| SignatureError::HeaderMissing((*name).to_owned()))?;
        let value: Vec<&str> = value.split_ascii_whitespace().collect();
        lines.push(format!("{name}:{}", value.join(" ")));
    }
    lines.extend([String::new(), names.join(";"), sha256_hex(&request.body)]);
    Ok(lines.join("\n"))
}

/// Both forms occur: PHP, Java and .NET send the compact one, Node the extended one.
fn parse_date(text: &str) -> Option<Timestamp> {
    let format = match text.len() {
        16 => "%Y%m%dT%H%M%SZ",
        20 => "%Y-%m-%dT%H:%M:%SZ",
        _ => return None,
    };
    DateTime::strptime(format, text).ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::super::testing::{PUBLIC_KEY_ID, Signer};
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn verifier() -> Verifier {
        Verifier {
            public_key: keys::shared().unwrap().merchant.to_public_key(),
            public_key_id: PUBLIC_KEY_ID.to_owned(),
            tolerance: Duration::from_mins(5),
        }
    }

    fn signer() -> Signer {
        Signer::new("pay-api.amazon.com", now())
    }

    fn post() -> RawRequest {
        signer().sign("POST", "/v2/charges", Some("key-1"), br#"{"captureNow":true}"#)
    }

    /// What the verifier says after one part of a well signed request was changed.
    fn after(change: impl FnOnce(&mut RawRequest)) -> SignatureError {
        let mut request = post();
        assert_eq!(verifier().verify(&request, now()), Ok(()));
        change(&mut request);
        verifier().verify(&request, now()).unwrap_err()
    }

    fn set(name: &'static str, value: &str) -> impl FnOnce(&mut RawRequest) {
        let value = value.parse().unwrap();
        move |request| drop(request.headers.insert(name, value))
    }

    #[test]
    fn canonical_requests_have_the_hashes_of_the_official_vectors() {
        // Source: amazon-pay-api-sdk-dotnet, CreateStringToSignTest.cs.
        let cases = [
            ("GET", "/", "", "13fdf6db844bdfb9e9c0e27a4251ca04e60c29ca2132249c5dd1cb09c26e22f5"),
            ("POST", "/", "", "322307b5dae22c3d59350c3de9202a488f337f674c8f430b186282008264bd2b"),
            ("POST", "/", "foo=bar", "9d61b5abddbfdcaf7810a8e83dfffe0a5d5f272d2676c0550d974d5383e94cd5"),
            ("GET", "/", "foo=b&foo=a", "937de37fb8aed8af4214c373580c72f40c525202d1975df6836ba6ed0062b902"),
        ];
        for (method, path, query, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("accept", "application/json"),
                ("content-type", "application/json"),
                ("x-amz-pay-date", "20180524T223710Z"),
                ("x-amz-pay-host", "pay-api.amazon.eu"),
                ("x-amz-pay-region", "eu"),
            ] {
                headers.insert(name, value.parse().unwrap());
            }
            let request = RawRequest {
                method: method.parse().unwrap(),
                path: path.to_owned(),
                query: query.to_owned(),
                headers,
                body: Bytes::new(),
            };
            let canonical = canonical_request(&request, &ALWAYS_SIGNED).unwrap();
            assert_eq!(sha256_hex(canonical.as_bytes()), expected, "{method} {path} {query}");
        }
    }

    #[test]
    fn a_correctly_signed_request_is_accepted() {
        assert_eq!(verifier().verify(&post(), now()), Ok(()));
        let get = signer().sign("GET", "/v2/charges/C01-0000000-0000000-C000001", None, b"");
        assert_eq!(verifier().verify(&get, now()), Ok(()));
    }

    #[test]
    fn every_manipulated_part_is_refused() {
        let mismatches: [SignatureError; 7] = [
            after(|request| request.method = Method::PUT),
            after(|request| request.path.push('/')),
            after(|request| request.query.push_str("a=b")),
            after(|request| request.body = Bytes::from_static(br#"{"captureNow":false}"#)),
            after(set(IDEMPOTENCY_KEY, "key-2")),
            after(set("x-amz-pay-region", "eu")),
            after(set("x-amz-pay-date", "20261122T100001Z")),
        ];
        for error in mismatches {
            assert!(matches!(error, SignatureError::Mismatch(_)), "{error}");
        }
        assert!(matches!(after(set("host", "elsewhere")), SignatureError::Host(_)));
        assert!(matches!(after(set("x-amz-pay-host", "elsewhere")), SignatureError::Host(_)));
        assert!(matches!(after(set("x-amz-pay-date", "today")), SignatureError::DateFormat(_)));
        let missing = after(|request| drop(request.headers.remove("accept")));
        assert_eq!(missing, SignatureError::HeaderMissing("accept".to_owned()));
    }

    #[test]
    fn a_repeated_header_is_refused() {
        let error = after(|request| {
            request.headers.append("accept", "text/html".parse().unwrap());
        });
        assert_eq!(error, SignatureError::HeaderMissing("accept".to_owned()));
    }

    #[test]
    fn old_and_future_dates_are_refused() {
        let late = now() + Duration::from_secs(301);
        let early = now() - Duration::from_secs(301);
        for moment in [late, early] {
            let error = verifier().verify(&post(), moment).unwrap_err();
            assert!(matches!(error, SignatureError::DateTooFar { tolerance_s: 300, .. }), "{error}");
        }
        assert_eq!(verifier().verify(&post(), now() + Duration::from_mins(5)), Ok(()));
    }

    #[test]
    fn a_salt_of_twenty_bytes_is_refused_for_version_two() {
        let request = Signer { salt_length: 20, ..signer() }.sign("POST", "/v2/charges", Some("key-1"), b"{}");
        assert!(matches!(verifier().verify(&request, now()), Err(SignatureError::Mismatch(_))));
        let version_one = Signer { salt_length: 20, algorithm: "AMZN-PAY-RSASSA-PSS", ..signer() };
        assert_eq!(verifier().verify(&version_one.sign("GET", "/v2/x", None, b""), now()), Ok(()));
    }

    #[test]
    fn headers_that_must_be_signed_are_demanded() {
        let unsigned = Signer { leave_unsigned: Some(IDEMPOTENCY_KEY), ..signer() };
        let request = unsigned.sign("POST", "/v2/charges", Some("key-1"), b"{}");
        assert_eq!(verifier().verify(&request, now()), Err(SignatureError::NotSigned(IDEMPOTENCY_KEY)));
        for name in ALWAYS_SIGNED {
            let request = Signer { leave_unsigned: Some(name), ..signer() }.sign("GET", "/v2/x", None, b"");
            assert_eq!(verifier().verify(&request, now()), Err(SignatureError::NotSigned(name)));
        }
    }

    #[test]
    fn the_authorization_grammar_is_strict() {
        let authorization = post().header("authorization").unwrap().to_owned();
        for bad in [
            String::new(),
            "AMZN-PAY-RSASSA-PSS-V2".to_owned(),
            authorization.replace(", ", ","),
            authorization.replace(", ", ",  "),
            authorization.replace("PublicKeyId", "publickeyid"),
            format!("{authorization} "),
            format!("{authorization}, More=1"),
        ] {
            let error = after(set("authorization", &bad));
            assert_eq!(error, SignatureError::Grammar, "{bad}");
        }
        let algorithm = after(set("authorization", &authorization.replace("PSS-V2", "PSS-V3")));
        assert!(matches!(algorithm, SignatureError::Algorithm(_)));
        let key = after(set("authorization", &authorization.replace(PUBLIC_KEY_ID, "SANDBOX-OTHER")));
        assert!(matches!(key, SignatureError::PublicKeyId(_)));
        let unsorted =
            after(set("authorization", &authorization.replace("accept;content-type", "content-type;accept")));
        assert_eq!(unsorted, SignatureError::SignedHeadersOrder);
    }
}
