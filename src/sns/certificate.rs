//! The signing certificate: which address it may have, how it is fetched and kept, and what it must be.
//!
//! The address is compared on the raw string, because URL parsers disagree about userinfo, case, dots and escapes. A failed or
//! unacceptable certificate is remembered for seconds only, and per address, so that a flood for one bad address costs one
//! request and never blocks the genuine one. Building a chain through intermediates is not here: SNS serves the leaf alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use moka::future::Cache;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{GeneralName, Pem, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::explanation::{Check, RefusedClass, Step, shown};
use super::topic::TopicArn;
use crate::clock::Clock;

/// SNS waits 15 s for our answer; a certificate that takes longer than this is asked for again with the next delivery.
const FETCH_TIMEOUT: Duration = Duration::from_secs(4);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Genuine ones have about 2 KiB.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// One certificate per region and year is normal.
const MAX_HELD: u64 = 64;
const MAX_FAILURES_HELD: u64 = 1024;
const FAILURE_LIFE: Duration = Duration::from_secs(10);
/// Senders who know an allow-listed ARN can invent addresses; each costs one request to AWS until this is used up.
const MAX_FETCHES_PER_MINUTE: u32 = 120;
/// What 112 bits of security need, and the least that ring verifies.
const MIN_RSA_BITS: usize = 2048;

/// The address of a signing certificate, of the one form that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertificateUrl(String);

impl CertificateUrl {
    /// What addresses for messages of `topic` must begin with. `base` replaces the origin, in sandboxes only.
    pub(super) fn expected_prefix(topic: &TopicArn, base: Option<&str>) -> String {
        let origin = base.map_or_else(|| format!("https://{}", topic.certificate_host()), str::to_owned);
        format!("{}/SimpleNotificationService-", origin.trim_end_matches('/'))
    }

    /// Reads an address: exactly the prefix, 32 lower-case hex digits, `.pem`.
    pub(super) fn parse(text: &str, prefix: &str) -> Option<Self> {
        let digits = text.strip_prefix(prefix)?.strip_suffix(".pem")?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digits.len() == 32 && digits.bytes().all(hex)).then(|| Self(text.to_owned()))
    }
}

/// What is to be known of a certificate.
#[derive(Debug)]
pub(super) struct SigningCertificate {
    names: Vec<String>,
    is_authority: bool,
    /// DER of the RSA public key and its length; `None` if the key is not RSA.
    key: Option<(Vec<u8>, usize)>,
    algorithm: Algorithm,
    issuer: String,
    anchoring: Anchoring,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// The algorithm that the certificate itself is signed with.
#[derive(Debug)]
struct Algorithm {
    oid: String,
    is_sound: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Anchoring {
    /// No anchors are configured: TLS to the expected host vouches for the certificate.
    NotAsked,
    /// Issued by an anchor that is itself valid within these times.
    Anchored(Timestamp, Timestamp),
    /// Issued by none of them.
    Unanchored,
}

impl SigningCertificate {
    /// Reads the first PEM block; whatever follows it is no leaf and is ignored.
    pub(super) fn parse(pem: &[u8], anchors: &TrustAnchors) -> Result<Self, FetchError> {
        let not_one = |why: &dyn std::fmt::Display| FetchError::NotACertificate(shown(&why.to_string()));
        let block = Pem::iter_from_buffer(pem)
            .next()
            .ok_or_else(|| not_one(&"no PEM block"))?
            .map_err(|error| not_one(&error))?;
        if block.label != "CERTIFICATE" {
            return Err(not_one(&format_args!("a PEM block {}", block.label)));
        }
        let (rest, leaf) = x509_parser::parse_x509_certificate(&block.contents).map_err(|error| not_one(&error))?;
        if !rest.is_empty() {
            return Err(not_one(&"bytes after the certificate"));
        }
        let key = match leaf.public_key().parsed() {
            Ok(PublicKey::RSA(rsa)) => {
                Some((leaf.public_key().subject_public_key.data.to_vec(), bit_length(rsa.modulus)))
            }
            _ => None,
        };
        let authority = leaf.basic_constraints().map_err(|error| not_one(&error))?.is_some_and(|found| found.value.ca)
            || leaf.key_usage().map_err(|error| not_one(&error))?.is_some_and(|found| found.value.key_cert_sign());
        Ok(Self {
            names: names(&leaf).map_err(|error| not_one(&error))?,
            is_authority: authority,
            key,
            algorithm: Algorithm::of(&leaf),
            issuer: leaf.issuer().to_string(),
            anchoring: anchors.anchoring(&leaf),
            not_before: timestamp(leaf.validity().not_before.timestamp()),
            not_after: timestamp(leaf.validity().not_after.timestamp()),
        })
    }

    /// Every requirement on the certificate, judged at `now`. This is made at each use, not only when it is fetched.
    pub(super) fn judge(&self, expected_name: &str, now: Timestamp) -> Vec<Step> {
        use RefusedClass::{Forbidden, Unavailable};
        let key_bits = self.key.as_ref().map(|(_, bits)| *bits);
        let (anchored, anchors_expected) = match self.anchoring {
            Anchoring::NotAsked => (true, "any issuer (no trust anchors are set: the host that served it vouches)"),
            Anchoring::Anchored(from, until) => (from <= now && now <= until, "signed by a trust anchor valid now"),
            Anchoring::Unanchored => (false, "signed by a trust anchor"),
        };
        // A certificate from the future points at our own clock: that may pass, so the message must come again.
        let validity_class = if now < self.not_before { Unavailable } else { Forbidden };
        vec![
            Step::judged(
                Check::CertificateName,
                self.names.iter().any(|name| name == expected_name),
                Forbidden,
                expected_name,
                shown(&self.names.join(", ")),
            ),
            Step::judged(
                Check::CertificateUse,
                !self.is_authority,
                Forbidden,
                "no certificate authority",
                if self.is_authority { "a certificate authority" } else { "an end entity" },
            ),
            Step::judged(
                Check::CertificateKey,
                key_bits.is_some_and(|bits| bits >= MIN_RSA_BITS),
                Forbidden,
                format!("an RSA key of at least {MIN_RSA_BITS} bits"),
                key_bits.map_or_else(|| "another kind of key".to_owned(), |bits| format!("RSA, {bits} bits")),
            ),
            Step::judged(
                Check::CertificateAlgorithm,
                self.algorithm.is_sound,
                Forbidden,
                "signed with RSA or ECDSA and SHA-256, SHA-384 or SHA-512",
                self.algorithm.oid.as_str(),
            ),
            Step::judged(Check::CertificateChain, anchored, Forbidden, anchors_expected, shown(&self.issuer)),
            Step::judged(
                Check::CertificateValidity,
                self.not_before <= now && now <= self.not_after,
                validity_class,
                format!("valid at {now}"),
                format!("valid from {} to {}", self.not_before, self.not_after),
            ),
        ]
    }

    /// DER of the RSA public key; empty, and so good for no signature, if the key is of another kind.
    pub(super) fn key(&self) -> &[u8] {
        self.key.as_ref().map_or(&[], |(der, _)| der)
    }

    fn is_acceptable(&self, expected_name: &str, now: Timestamp) -> bool {
        self.judge(expected_name, now).iter().all(Step::passed)
    }
}

impl Algorithm {
    fn of(leaf: &X509Certificate<'_>) -> Self {
        let sound = [
            oid::OID_PKCS1_SHA256WITHRSA,
            oid::OID_PKCS1_SHA384WITHRSA,
            oid::OID_PKCS1_SHA512WITHRSA,
            oid::OID_SIG_ECDSA_WITH_SHA256,
            oid::OID_SIG_ECDSA_WITH_SHA384,
            oid::OID_SIG_ECDSA_WITH_SHA512,
        ];
        let (inner, outer) = (&leaf.tbs_certificate.signature.algorithm, &leaf.signature_algorithm.algorithm);
        Self { oid: outer.to_id_string(), is_sound: inner == outer && sound.contains(outer) }
    }
}

/// Certificates (DER) that must have issued the signing certificate; `None` asks for none.
#[derive(Debug, Default)]
pub(super) struct TrustAnchors(Option<Vec<Vec<u8>>>);

impl TrustAnchors {
    /// Reads all certificates of a PEM file; at least one is needed.
    pub(super) fn parse(pem: Option<&[u8]>) -> Result<Self, FetchError> {
        let Some(pem) = pem else { return Ok(Self(None)) };
        let bad = |why: &dyn std::fmt::Display| FetchError::NotACertificate(shown(&why.to_string()));
        let mut anchors = Vec::new();
        for block in Pem::iter_from_buffer(pem) {
            let block = block.map_err(|error| bad(&error))?;
            x509_parser::parse_x509_certificate(&block.contents).map_err(|error| bad(&error))?;
            anchors.push(block.contents);
        }
        if anchors.is_empty() {
            return Err(bad(&"no PEM block"));
        }
        Ok(Self(Some(anchors)))
    }

    fn anchoring(&self, leaf: &X509Certificate<'_>) -> Anchoring {
        let Some(anchors) = &self.0 else { return Anchoring::NotAsked };
        let issuers = anchors.iter().filter_map(|der| x509_parser::parse_x509_certificate(der).ok());
        issuers
            .map(|(_, anchor)| anchor)
            .filter(|anchor| anchor.subject().as_raw() == leaf.issuer().as_raw())
            .find(|anchor| leaf.verify_signature(Some(anchor.public_key())).is_ok())
            .map_or(Anchoring::Unanchored, |anchor| {
                let validity = anchor.validity();
                Anchoring::Anchored(
                    timestamp(validity.not_before.timestamp()),
                    timestamp(validity.not_after.timestamp()),
                )
            })
    }
}

/// Where signing certificates come from.
#[derive(Debug)]
pub(super) enum CertificateSource {
    /// Fetched from the address in the message once that address has been accepted.
    Web(Box<Web>),
    /// One that the operator gave (`verify --certificate`).
    Fixed(Arc<SigningCertificate>),
}

impl CertificateSource {
    /// The certificate at `url`. It need not be acceptable: the caller judges it.
    pub(super) async fn obtain(
        &self,
        url: &CertificateUrl,
        expected_name: &str,
    ) -> Result<Arc<SigningCertificate>, FetchError> {
        match self {
            Self::Web(web) => web.obtain(url, expected_name).await,
            Self::Fixed(certificate) => Ok(Arc::clone(certificate)),
        }
    }
}

/// Fetches certificates and keeps those that are acceptable.
#[derive(Debug)]
pub(super) struct Web {
    client: reqwest::Client,
    anchors: TrustAnchors,
    clock: Clock,
    held: Cache<String, Arc<SigningCertificate>>,
    failures: Cache<String, Failure>,
    budget: Budget,
}

/// What an address last came to, when that was no good.
#[derive(Debug, Clone)]
struct Failure {
    at: Timestamp,
    what: Result<Arc<SigningCertificate>, FetchError>,
}

impl Web {
    /// A fetcher; `plain_http` allows `http` addresses, which a sandbox's overridden base URL may have.
    pub(super) fn new(anchors: TrustAnchors, clock: Clock, plain_http: bool) -> Result<Self, FetchError> {
        Self::with_timeout(anchors, clock, plain_http, FETCH_TIMEOUT)
    }

    fn with_timeout(
        anchors: TrustAnchors,
        clock: Clock,
        plain_http: bool,
        timeout: Duration,
    ) -> Result<Self, FetchError> {
        let client = reqwest::Client::builder()
            .https_only(!plain_http)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .build()
            .map_err(|error| FetchError::Request(Arc::new(error)))?;
        let held = Cache::new(MAX_HELD);
        let failures = Cache::builder().max_capacity(MAX_FAILURES_HELD).time_to_live(FAILURE_LIFE).build();
        Ok(Self { client, anchors, clock, held, failures, budget: Budget::default() })
    }

    async fn obtain(&self, url: &CertificateUrl, expected_name: &str) -> Result<Arc<SigningCertificate>, FetchError> {
        if let Some(failure) = self.recent_failure(url).await {
            return failure.what;
        }
        // Concurrent callers for one address share one fetch and its outcome.
        match self.held.try_get_with_by_ref(url.0.as_str(), self.load(url, expected_name)).await {
            Ok(certificate) if certificate.is_acceptable(expected_name, self.clock.now()) => Ok(certificate),
            Ok(expired) => {
                self.held.invalidate(&url.0).await;
                self.remember_failure(url, Ok(expired)).await.what
            }
            Err(failure) => failure.what.clone(),
        }
    }

    /// Fetches; only what is acceptable comes back as `Ok` and is held.
    async fn load(&self, url: &CertificateUrl, expected_name: &str) -> Result<Arc<SigningCertificate>, Failure> {
        let now = self.clock.now();
        if !self.budget.take(now) {
            // Not remembered: the address itself has done nothing wrong.
            return Err(Failure { at: now, what: Err(FetchError::Budget) });
        }
        match self.fetch(url).await.map(Arc::new) {
            Ok(certificate) if certificate.is_acceptable(expected_name, self.clock.now()) => Ok(certificate),
            what => Err(self.remember_failure(url, what).await),
        }
    }

    async fn fetch(&self, url: &CertificateUrl) -> Result<SigningCertificate, FetchError> {
        let failed = |error| FetchError::Request(Arc::new(error));
        let mut response = self.client.get(&url.0).send().await.map_err(failed)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut pem = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if pem.len() + chunk.len() > MAX_CERTIFICATE_BYTES {
                return Err(FetchError::TooLarge);
            }
            pem.extend_from_slice(&chunk);
        }
        SigningCertificate::parse(&pem, &self.anchors)
    }

    /// The failure of the last seconds, by our clock, so that a moved clock moves this too.
    async fn recent_failure(&self, url: &CertificateUrl) -> Option<Failure> {
        let failure = self.failures.get(&url.0).await?;
        let age = self.clock.now().duration_since(failure.at);
        (!age.is_negative() && age.unsigned_abs() < FAILURE_LIFE).then_some(failure)
    }

    async fn remember_failure(
        &self,
        url: &CertificateUrl,
        what: Result<Arc<SigningCertificate>, FetchError>,
    ) -> Failure {
        let failure = Failure { at: self.clock.now(), what };
        self.failures.insert(url.0.clone(), failure.clone()).await;
        failure
    }
}

/// Counts the fetches of a minute.
#[derive(Debug, Default)]
struct Budget(Mutex<Option<(Timestamp, u32)>>);

impl Budget {
    /// Whether one more fetch may be made.
    fn take(&self, now: Timestamp) -> bool {
        // The value is whole at any time, so a panic elsewhere leaves nothing to repair.
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, used) =
            window.filter(|(start, _)| now.duration_since(*start).abs().as_secs() < 60).unwrap_or((now, 0));
        *window = Some((start, used.saturating_add(1)));
        used < MAX_FETCHES_PER_MINUTE
    }
}

/// Subject alternative DNS names; the common names only where there is no such extension (RFC 6125 section 6.4.4).
fn names(leaf: &X509Certificate<'_>) -> Result<Vec<String>, x509_parser::error::X509Error> {
    Ok(match leaf.subject_alternative_name()? {
        Some(alternatives) => alternatives
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
            .collect(),
        None => {
            leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(ToOwned::to_owned).collect()
        }
    })
}

fn bit_length(modulus: &[u8]) -> usize {
    let significant: &[u8] = modulus.iter().position(|&byte| byte != 0).map_or(&[], |first| &modulus[first..]);
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}

/// Certificates may be valid until the year 9999, a little beyond what a timestamp can hold.
fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// Why there is no certificate. All of it may pass.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The request failed, timed out or was cut off.
    #[error("no answer from the certificate's host: {0}")]
    Request(#[source] Arc<reqwest::Error>),
    /// Another status than 200; redirects are not followed.
    #[error("status {0} from the certificate's host")]
    Status(u16),
    /// More than 16 KiB.
    #[error("a body of more than {MAX_CERTIFICATE_BYTES} bytes")]
    TooLarge,
    /// The body is not one PEM certificate.
    #[error("a body that is no certificate: {0}")]
    NotACertificate(String),
    /// Too many certificates were asked for within a minute.
    #[error("no budget left: {MAX_FETCHES_PER_MINUTE} certificates were fetched within a minute")]
    Budget,
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use axum::http::{StatusCode, header};
    use axum::response::{IntoResponse, Redirect};

    use super::super::explanation::Outcome;
    use super::super::test_authority::{
        FILE, Host, Key, NAME, NOW, good_certificate, issued, params, pem, self_signed,
    };
    use super::*;

    const OID_SHA256_WITH_RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    const OID_SHA1_WITH_RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05];

    /// The first check that a certificate fails.
    fn failed(text: &str, anchors: Option<&str>) -> Option<Check> {
        let anchors = TrustAnchors::parse(anchors.map(str::as_bytes)).unwrap();
        let certificate = SigningCertificate::parse(text.as_bytes(), &anchors).unwrap();
        let steps = certificate.judge(NAME, NOW.parse().unwrap());
        steps.iter().find(|step| !step.passed()).map(|step| {
            assert_eq!(step.outcome, Outcome::Failed(RefusedClass::Forbidden));
            step.check
        })
    }

    fn replaced(der: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        let mut der = der.to_vec();
        let places: Vec<usize> =
            der.windows(from.len()).enumerate().filter(|(_, window)| *window == from).map(|(at, _)| at).collect();
        for at in places {
            der[at..at + to.len()].copy_from_slice(to);
        }
        der
    }

    fn url(host: &Host) -> CertificateUrl {
        let text = format!("{}{FILE}", host.base);
        CertificateUrl::parse(&text, &format!("{}/SimpleNotificationService-", host.base)).unwrap()
    }

    fn web(clock: &Clock) -> Web {
        Web::new(TrustAnchors::default(), clock.clone(), true).unwrap()
    }

    /// Serves `pem`, made beforehand: generating a key within the request would block the client too.
    async fn serving(pem: String) -> Host {
        Host::answering(move || pem.clone()).await
    }

    #[test]
    fn a_certificate_must_bear_the_expected_name() {
        assert_eq!(failed(&self_signed(&params(&[NAME], "x"), Key::main()), None), None);
        assert_eq!(failed(&self_signed(&params(&["x.test", NAME], "x"), Key::main()), None), None);
        assert_eq!(failed(&self_signed(&params(&[], NAME), Key::main()), None), None);
        for other in [
            params(&["x.test"], NAME),
            params(&["127.0.0.1"], NAME),
            params(&["*.amazonaws.com"], "x"),
            params(&["sns.amazonaws.com.evil.test"], "x"),
            params(&[], "x"),
        ] {
            assert_eq!(failed(&self_signed(&other, Key::main()), None), Some(Check::CertificateName));
        }
    }

    #[test]
    fn an_authoritys_certificate_signs_no_messages() {
        let mut authority = params(&[NAME], NAME);
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        assert_eq!(failed(&self_signed(&authority, Key::main()), None), Some(Check::CertificateUse));
        let mut authority = params(&[NAME], NAME);
        authority.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        assert_eq!(failed(&self_signed(&authority, Key::main()), None), Some(Check::CertificateUse));
    }

    #[test]
    fn weak_keys_other_keys_and_broken_algorithms_are_refused() {
        let sound = params(&[NAME], NAME);
        assert_eq!(failed(&self_signed(&sound, Key::weak()), None), Some(Check::CertificateKey));
        let elliptic = sound.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        assert_eq!(failed(&pem(elliptic.der()), None), Some(Check::CertificateKey));
        let der = sound.self_signed(Key::main()).unwrap();
        let sha1 = replaced(der.der(), &OID_SHA256_WITH_RSA, &OID_SHA1_WITH_RSA);
        assert_eq!(failed(&pem(&sha1), None), Some(Check::CertificateAlgorithm));
    }

    #[test]
    fn with_trust_anchors_one_of_them_must_have_signed_the_certificate() {
        let mut root = params(&[], "Root");
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let (leaf, root_pem) = (params(&[NAME], NAME), self_signed(&root, Key::other()));
        let impostor = self_signed(&root, Key::main());
        let signed_by_root = issued(&leaf, Key::main(), &root, Key::other());
        assert_eq!(failed(&signed_by_root, Some(&root_pem)), None);
        assert_eq!(failed(&signed_by_root, Some(&format!("{impostor}{root_pem}"))), None);
        assert_eq!(failed(&signed_by_root, Some(&impostor)), Some(Check::CertificateChain));
        assert_eq!(failed(&good_certificate(), Some(&root_pem)), Some(Check::CertificateChain));
        root.not_after = rcgen::date_time_ymd(2026, 3, 1);
        let expired = self_signed(&root, Key::other());
        assert_eq!(failed(&signed_by_root, Some(&expired)), Some(Check::CertificateChain));
    }

    #[test]
    fn only_the_first_block_counts_and_it_must_be_a_certificate() {
        let (good, other) = (good_certificate(), self_signed(&params(&["x.test"], "x"), Key::other()));
        assert_eq!(failed(&format!("{good}{other}"), None), None);
        assert_eq!(failed(&format!("{other}{good}"), None), Some(Check::CertificateName));
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let trailing =
            pem(&[params(&[NAME], NAME).self_signed(Key::main()).unwrap().der().as_ref(), &[0][..]].concat());
        for text in ["", "<html>", "-----BEGIN CERTIFICATE-----\n", &pem(b"no DER"), &format!("{key}{good}"), &trailing]
        {
            let parsed = SigningCertificate::parse(text.as_bytes(), &TrustAnchors::default());
            assert!(matches!(parsed, Err(FetchError::NotACertificate(_))), "{text}");
        }
    }

    #[tokio::test]
    async fn a_host_that_does_not_serve_a_certificate_is_a_failed_fetch() {
        let refused = async |host: Host| web(&Clock::movable()).obtain(&url(&host), NAME).await.unwrap_err();
        let missing = Host::answering(|| StatusCode::NOT_FOUND).await;
        assert!(matches!(refused(missing).await, FetchError::Status(404)));
        let target = serving(good_certificate()).await;
        let address = format!("{}{FILE}", target.base);
        let redirecting = Host::answering(move || Redirect::temporary(&address)).await;
        assert!(matches!(refused(redirecting).await, FetchError::Status(307)));
        assert_eq!(target.hits(), 0);
        let oversized = serving(format!("{}{}", good_certificate(), "x".repeat(MAX_CERTIFICATE_BYTES))).await;
        assert!(matches!(refused(oversized).await, FetchError::TooLarge));
        let page = Host::answering(|| "<html>").await;
        assert!(matches!(refused(page).await, FetchError::NotACertificate(_)));
        let cut_off = Host::answering(|| ([(header::CONTENT_LENGTH, "5000")], "short").into_response()).await;
        assert!(matches!(refused(cut_off).await, FetchError::Request(_) | FetchError::NotACertificate(_)));
    }

    #[tokio::test]
    async fn a_host_that_never_answers_is_given_up() {
        let host = Host::start(std::future::pending).await;
        let impatient = Duration::from_millis(100);
        let web = Web::with_timeout(TrustAnchors::default(), Clock::movable(), true, impatient).unwrap();
        let error = web.obtain(&url(&host), NAME).await.unwrap_err();
        assert!(matches!(error, FetchError::Request(error) if error.is_timeout()));
    }

    #[tokio::test]
    async fn a_failure_is_remembered_for_seconds_and_only_for_its_address() {
        let clock = Clock::movable();
        let (host, web) = (Host::answering(|| StatusCode::NOT_FOUND).await, web(&clock));
        for _ in 0..3 {
            assert!(web.obtain(&url(&host), NAME).await.is_err());
        }
        assert_eq!(host.hits(), 1);
        let prefix = format!("{}/SimpleNotificationService-", host.base);
        let other = CertificateUrl::parse(&format!("{prefix}{}.pem", "a".repeat(32)), &prefix).unwrap();
        assert!(web.obtain(&other, NAME).await.is_err());
        assert_eq!(host.hits(), 2);
        clock.advance(FAILURE_LIFE);
        assert!(web.obtain(&url(&host), NAME).await.is_err());
        assert_eq!(host.hits(), 3);
    }

    #[tokio::test]
    async fn an_unacceptable_certificate_is_not_kept_beyond_seconds() {
        let clock = Clock::movable();
        let host = serving(self_signed(&params(&["x.test"], "x"), Key::other())).await;
        let web = web(&clock);
        for _ in 0..3 {
            assert!(!web.obtain(&url(&host), NAME).await.unwrap().is_acceptable(NAME, clock.now()));
        }
        assert_eq!(host.hits(), 1);
        clock.advance(FAILURE_LIFE);
        assert!(web.obtain(&url(&host), NAME).await.is_ok());
        assert_eq!(host.hits(), 2);
    }

    #[tokio::test]
    async fn a_held_certificate_that_expired_is_fetched_again() {
        let clock = Clock::movable();
        let mut ending = params(&[NAME], NAME);
        ending.not_after = rcgen::date_time_ymd(2100, 1, 1);
        let host = serving(self_signed(&ending, Key::main())).await;
        let web = web(&clock);
        for _ in 0..2 {
            assert!(web.obtain(&url(&host), NAME).await.unwrap().is_acceptable(NAME, clock.now()));
        }
        assert_eq!(host.hits(), 1);
        clock.advance(Duration::from_hours(24 * 366 * 80));
        for _ in 0..2 {
            assert!(!web.obtain(&url(&host), NAME).await.unwrap().is_acceptable(NAME, clock.now()));
        }
        assert_eq!(host.hits(), 1, "the expired one is remembered as a failure first");
        clock.advance(FAILURE_LIFE);
        assert!(web.obtain(&url(&host), NAME).await.is_ok());
        assert_eq!(host.hits(), 2);
    }

    #[test]
    fn no_more_than_the_budget_is_fetched_within_a_minute() {
        let (budget, now) = (Budget::default(), NOW.parse::<Timestamp>().unwrap());
        let taken = (0..MAX_FETCHES_PER_MINUTE + 5).filter(|_| budget.take(now)).count();
        assert_eq!(taken, MAX_FETCHES_PER_MINUTE as usize);
        assert!(!budget.take(now + Duration::from_secs(59)));
        assert!(budget.take(now + Duration::from_mins(1)));
    }

    #[tokio::test]
    async fn plain_http_is_refused_unless_a_sandbox_asks_for_it() {
        let host = serving(good_certificate()).await;
        let web = Web::new(TrustAnchors::default(), Clock::movable(), false).unwrap();
        assert!(matches!(web.obtain(&url(&host), NAME).await, Err(FetchError::Request(_))));
        assert_eq!(host.hits(), 0);
    }
}
