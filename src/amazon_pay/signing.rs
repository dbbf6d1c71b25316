//! Request signing, `AMZN-PAY-RSASSA-PSS-V2`: request -> canonical request -> string to sign -> signature -> `Authorization`.
//!
//! Each stage is public and pure (but for the random salt of the last), so that each can be held against Amazon's own vectors.
//!
//! Why V2 and a salt of 32 bytes: the algorithm's name fixes the salt's length, 20 bytes in V1 and 32 in V2, and nothing else
//! differs. ring's [`RSA_PSS_SHA256`] always salts with as many bytes as the digest has, 32; it can make V2 and cannot make V1. A
//! signature with the other salt is refused as `InvalidRequestSignature`.
//!
//! Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/signing-requests.html>.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PSS_SHA256, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::model::ids::{IdempotencyKey, Region};

/// The algorithm's name: part of the string to sign and of the `Authorization` header.
pub const ALGORITHM: &str = "AMZN-PAY-RSASSA-PSS-V2";

/// The media type of every request and answer.
pub const JSON: &str = "application/json";

/// The header of the idempotency key. Amazon looks at it on POST only.
pub const IDEMPOTENCY_KEY_HEADER: &str = "x-amz-pay-idempotency-key";

/// A request as far as the signature covers it.
#[derive(Debug, Clone)]
pub struct Signable<'a> {
    /// The method in upper case.
    pub method: &'a str,
    /// The path, not percent-encoded, for example `/v2/charges`.
    pub path: &'a str,
    /// Query parameters, not encoded, in any order.
    pub query: Vec<(String, String)>,
    /// When it is signed: Amazon refuses what is too old.
    pub date: Timestamp,
    /// The host that is called, with the port if it is not the scheme's own.
    pub host: &'a str,
    /// The account's region.
    pub region: Region,
    /// The idempotency key; taken into account on POST only, because Amazon advises against sending it elsewhere.
    pub idempotency_key: Option<&'a IdempotencyKey>,
    /// The exact bytes of the body; empty if there is none.
    pub body: &'a [u8],
}

impl Signable<'_> {
    /// The headers that are signed and must be sent as they are, by ascending lower-case name.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        // Values are not trimmed or collapsed as Amazon's recipe asks: none can hold a blank.
        let mut headers = vec![
            ("accept", JSON.to_owned()),
            ("content-type", JSON.to_owned()),
            ("x-amz-pay-date", compact_date(self.date)),
            ("x-amz-pay-host", self.host.to_owned()),
        ];
        if let (Some(key), "POST") = (self.idempotency_key, self.method) {
            headers.push((IDEMPOTENCY_KEY_HEADER, key.as_str().to_owned()));
        }
        headers.push(("x-amz-pay-region", self.region.as_str().to_owned()));
        headers
    }

    /// The names of the signed headers, `accept;content-type;...`.
    #[must_use]
    pub fn signed_headers(&self) -> String {
        let names: Vec<&str> = self.headers().into_iter().map(|(name, _)| name).collect();
        names.join(";")
    }

    /// The first stage: one text for all spellings of the same request.
    #[must_use]
    pub fn canonical_request(&self) -> String {
        let headers: Vec<String> = self.headers().iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        format!(
            "{}\n{}\n{}\n{}\n{}\n{}",
            self.method,
            canonical_path(self.path),
            canonical_query(&self.query),
            headers.concat(),
            self.signed_headers(),
            sha256_hex(self.body)
        )
    }

    /// All stages: the value of the `Authorization` header.
    ///
    /// # Errors
    /// When the random generator of the system fails.
    pub fn authorization(&self, key: &SigningKey, public_key_id: &str) -> Result<String, SigningError> {
        let signature = key.sign(&string_to_sign(&self.canonical_request()))?;
        Ok(format!(
            "{ALGORITHM} PublicKeyId={public_key_id}, SignedHeaders={}, Signature={signature}",
            self.signed_headers()
        ))
    }
}

/// The second stage: what the key signs. PSS hashes it once more.
#[must_use]
pub fn string_to_sign(canonical_request: &str) -> String {
    format!("{ALGORITHM}\n{}", sha256_hex(canonical_request.as_bytes()))
}

/// The compact date of `x-amz-pay-date`, `20180524T223710Z`.
#[must_use]
pub fn compact_date(date: Timestamp) -> String {
    date.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The merchant's private key. It cannot be printed.
pub struct SigningKey {
    pair: RsaKeyPair,
    random: SystemRandom,
}

impl SigningKey {
    /// Reads an RSA key of 2048 to 4096 bits from PEM, PKCS#8 (`BEGIN PRIVATE KEY`) or PKCS#1 (`BEGIN RSA PRIVATE KEY`): Seller
    /// Central has given out both.
    ///
    /// # Errors
    /// When the text is not such a key. No message contains any part of it.
    pub fn from_pem(pem: &str) -> Result<Self, SigningError> {
        // Asked first, because the parser would only say "no key" (PKCS#8) or "bad base64" (PKCS#1).
        if pem.lines().any(|line| line.starts_with("-----BEGIN ENCRYPTED") || line.starts_with("Proc-Type:")) {
            return Err(SigningError::Encrypted);
        }
        let pair = match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
            Ok(PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            Ok(_) => return Err(SigningError::NotRsa),
            Err(_) => return Err(SigningError::NoKey),
        };
        // ring tells its reasons apart by their text only; a test pins the two that have an answer of their own.
        let pair = pair.map_err(|rejected| match rejected.to_string().as_str() {
            "WrongAlgorithm" => SigningError::NotRsa,
            "TooSmall" => SigningError::TooShort,
            reason => SigningError::Malformed(reason.to_owned()),
        })?;
        Ok(Self { pair, random: SystemRandom::new() })
    }

    /// The third stage: RSASSA-PSS with SHA-256 and a random salt of 32 bytes, in Base64. No two signatures are alike.
    ///
    /// # Errors
    /// When the random generator of the system fails.
    pub fn sign(&self, string_to_sign: &str) -> Result<String, SigningError> {
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(&RSA_PSS_SHA256, &self.random, string_to_sign.as_bytes(), &mut signature)
            .map_err(|_| SigningError::NoSignature)?;
        Ok(BASE64.encode(&signature))
    }

    /// The public half, as DER `RSAPublicKey`, to check a signature with.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        self.pair.public().as_ref()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

/// Runs of slashes become one; everything but unreserved characters and slashes is percent-encoded; empty becomes `/`.
fn canonical_path(path: &str) -> String {
    let mut canonical = String::from("/");
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        if !canonical.ends_with('/') {
            canonical.push('/');
        }
        canonical.push_str(&percent_encoded(segment));
    }
    if path.ends_with('/') && !canonical.ends_with('/') {
        canonical.push('/');
    }
    canonical
}

/// Encoded first, then sorted by name and value.
fn canonical_query(query: &[(String, String)]) -> String {
    let mut pairs: Vec<_> = query.iter().map(|(name, value)| (percent_encoded(name), percent_encoded(value))).collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// RFC 3986: letters, digits and `-._~` stay.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&data_encoding::HEXUPPER.encode(&[byte]));
        }
    }
    encoded
}

fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Why a key cannot be used or a request not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The key needs a passphrase.
    #[error("the private key is encrypted; decrypt it first: openssl pkey -in key.pem -out plain.pem")]
    Encrypted,
    /// An elliptic-curve key or another kind.
    #[error("the private key is not an RSA key; use the key that Seller Central gave for this public key id")]
    NotRsa,
    /// Less than 2048 bits.
    #[error("the private key is too short; Amazon Pay uses RSA keys of 2048 bits")]
    TooShort,
    /// Nothing like a private key in PEM.
    #[error("expected a PEM private key (BEGIN PRIVATE KEY or BEGIN RSA PRIVATE KEY), found none that can be read")]
    NoKey,
    /// A private key whose inside is wrong.
    #[error("the private key is malformed ({0})")]
    Malformed(String),
    /// The system gave no random salt.
    #[error("the signature could not be made: the random generator of the system failed")]
    NoSignature,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(method: &'a str, path: &'a str, query: &[(&str, &str)]) -> Signable<'a> {
        Signable {
            method,
            path,
            query: query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            date: "2018-05-24T22:37:10Z".parse().unwrap(),
            host: "pay-api.amazon.eu",
            region: Region::Eu,
            idempotency_key: None,
            body: b"",
        }
    }

    #[test]
    fn canonical_requests_match_amazons_golden_vectors() {
        let vectors = [
            (request("GET", "/", &[]), "13fdf6db844bdfb9e9c0e27a4251ca04e60c29ca2132249c5dd1cb09c26e22f5"),
            (request("GET", "///foo//", &[]), "d8e13e1857bc9b5056cc8ccb2699812faa2c68960e00483b1390fdaf4a991cc4"),
            (request("POST", "/", &[]), "322307b5dae22c3d59350c3de9202a488f337f674c8f430b186282008264bd2b"),
            (
                request("POST", "/", &[("foo", "bar")]),
                "9d61b5abddbfdcaf7810a8e83dfffe0a5d5f272d2676c0550d974d5383e94cd5",
            ),
            (
                request("GET", "/", &[("foo", "b"), ("foo", "a")]),
                "937de37fb8aed8af4214c373580c72f40c525202d1975df6836ba6ed0062b902",
            ),
        ];
        for (signable, expected) in vectors {
            let canonical = signable.canonical_request();
            assert_eq!(sha256_hex(canonical.as_bytes()), expected, "{canonical}");
            assert_eq!(string_to_sign(&canonical), format!("AMZN-PAY-RSASSA-PSS-V2\n{expected}"));
        }
    }

    #[test]
    fn a_canonical_request_has_exactly_the_documented_lines() {
        let mut signable = request("GET", "/v2/charges/C01-1-2-C3", &[]);
        signable.body = b"{}";
        assert_eq!(
            signable.canonical_request(),
            "GET\n/v2/charges/C01-1-2-C3\n\naccept:application/json\ncontent-type:application/json\n\
             x-amz-pay-date:20180524T223710Z\nx-amz-pay-host:pay-api.amazon.eu\nx-amz-pay-region:eu\n\n\
             accept;content-type;x-amz-pay-date;x-amz-pay-host;x-amz-pay-region\n\
             44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }

    #[test]
    fn paths_lose_double_slashes_and_are_encoded() {
        for (given, canonical) in
            [("", "/"), ("/", "/"), ("///", "/"), ("a", "/a"), ("/a b/ü~", "/a%20b/%C3%BC~"), ("/a//b/", "/a/b/")]
        {
            assert_eq!(canonical_path(given), canonical, "{given:?}");
        }
    }

    #[test]
    fn query_parameters_are_encoded_and_sorted() {
        let query = [("z", "1"), ("a b", "x&y=z"), ("a", "2"), ("a", "10")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(canonical_query(&query), "a=10&a=2&a%20b=x%26y%3Dz&z=1");
    }

    #[test]
    fn the_idempotency_key_is_signed_on_post_and_absent_elsewhere() {
        let account = crate::model::ids::Account {
            merchant: "A2K7NDRCTOTPW9".parse().unwrap(),
            environment: crate::model::ids::Environment::Sandbox,
            region: Region::Eu,
        };
        let key = IdempotencyKey::derive(&account, &"a".parse().unwrap(), 0);
        for (method, signed) in [("POST", true), ("GET", false), ("DELETE", false)] {
            let signable = Signable { idempotency_key: Some(&key), ..request(method, "/", &[]) };
            assert_eq!(signable.signed_headers().contains(IDEMPOTENCY_KEY_HEADER), signed, "{method}");
            assert_eq!(signable.canonical_request().contains(key.as_str()), signed, "{method}");
        }
        let post = Signable { idempotency_key: Some(&key), ..request("POST", "/", &[]) };
        assert_eq!(
            post.signed_headers(),
            "accept;content-type;x-amz-pay-date;x-amz-pay-host;x-amz-pay-idempotency-key;x-amz-pay-region"
        );
    }

    #[test]
    fn keys_that_cannot_sign_are_told_apart() {
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIF\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMIIF\n-----END RSA PRIVATE KEY-----\n";
        let sec1 = "-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----\n";
        let hollow = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n";
        assert_eq!(SigningKey::from_pem(encrypted).unwrap_err(), SigningError::Encrypted);
        assert_eq!(SigningKey::from_pem(legacy).unwrap_err(), SigningError::Encrypted);
        assert_eq!(SigningKey::from_pem(sec1).unwrap_err(), SigningError::NotRsa);
        assert!(matches!(SigningKey::from_pem(hollow).unwrap_err(), SigningError::Malformed(_)));
        for garbage in ["", "key", public, "-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n"] {
            assert_eq!(SigningKey::from_pem(garbage).unwrap_err(), SigningError::NoKey, "{garbage:?}");
        }
    }

    #[cfg(feature = "sandbox")]
    mod with_keys {
        use ring::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
        use rsa::pss::{Signature, VerifyingKey};
        use rsa::signature::Verifier;
        use sha2::Sha256;

        use super::super::super::test_key;
        use super::*;

        #[test]
        fn two_independent_verifiers_accept_the_signature_with_a_salt_of_32_bytes() {
            let text = string_to_sign(&request("POST", "/v2/charges", &[]).canonical_request());
            for pem in [test_key::pkcs8_pem(), test_key::pkcs1_pem()] {
                let key = SigningKey::from_pem(&pem).unwrap();
                let signature = BASE64.decode(key.sign(&text).unwrap().as_bytes()).unwrap();
                let public = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key.public_key());
                public.verify(text.as_bytes(), &signature).unwrap();
                assert!(public.verify(b"another text", &signature).is_err());

                let parsed = Signature::try_from(signature.as_slice()).unwrap();
                let with_salt = |length| {
                    VerifyingKey::<Sha256>::new_with_salt_len(test_key::rsa_key().to_public_key(), length)
                        .verify(text.as_bytes(), &parsed)
                };
                assert!(with_salt(32).is_ok(), "V2");
                assert!(with_salt(20).is_err(), "V1");
            }
        }

        #[test]
        fn the_authorization_header_has_amazons_form() {
            let key = SigningKey::from_pem(&test_key::pkcs8_pem()).unwrap();
            let value = request("GET", "/", &[]).authorization(&key, "SANDBOX-ABC").unwrap();
            let head = "AMZN-PAY-RSASSA-PSS-V2 PublicKeyId=SANDBOX-ABC, SignedHeaders=accept;content-type;x-amz-pay-date;x-amz-pay-host;x-amz-pay-region, Signature=";
            let signature = value.strip_prefix(head).unwrap();
            assert_eq!(BASE64.decode(signature.as_bytes()).unwrap().len(), 256);
        }

        #[test]
        fn short_keys_and_elliptic_curves_are_refused_by_name() {
            assert_eq!(SigningKey::from_pem(&test_key::short_pem()).unwrap_err(), SigningError::TooShort);
            let curve = rcgen::KeyPair::generate().unwrap().serialize_pem();
            assert_eq!(SigningKey::from_pem(&curve).unwrap_err(), SigningError::NotRsa);
        }

        #[test]
        fn a_key_does_not_print_itself() {
            assert_eq!(format!("{:?}", SigningKey::from_pem(&test_key::pkcs8_pem()).unwrap()), "SigningKey");
        }
    }
}
