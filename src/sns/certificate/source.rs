//! How signing certificates are come by: fetched within bounds, and kept while they are acceptable.
//!
//! A failed or unacceptable certificate is remembered for seconds only, and per address, so that a flood for one bad address
//! costs one request and never blocks the genuine one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use moka::future::Cache;

use super::{CertificateUrl, InvalidCertificate, SigningCertificate, TrustAnchors};
use crate::clock::Clock;
use crate::sns::explanation::Step;

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
/// Where signing certificates come from.
#[derive(Debug)]
pub(in crate::sns) enum CertificateSource {
    /// Fetched from the address in the message once that address has been accepted.
    Web(Box<Web>),
    /// One that the operator gave (`verify --certificate`).
    Fixed(Arc<SigningCertificate>),
}

impl CertificateSource {
    /// The certificate at `url`. It need not be acceptable: the caller judges it.
    pub(in crate::sns) async fn obtain(
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
pub(in crate::sns) struct Web {
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
    /// A fetcher. Addresses must be https, unless a sandbox's `base` URL replaces their origin.
    pub(in crate::sns) fn new(anchors: TrustAnchors, clock: Clock, base: Option<&str>) -> Result<Self, FetchError> {
        Self::with_timeout(anchors, clock, base, FETCH_TIMEOUT)
    }

    fn with_timeout(
        anchors: TrustAnchors,
        clock: Clock,
        base: Option<&str>,
        timeout: Duration,
    ) -> Result<Self, FetchError> {
        // reqwest is built without a provider of its own and would panic.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(FetchError::NoCryptoProvider);
        }
        if let Some(base) = base {
            let url = reqwest::Url::parse(base).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            if url.is_none_or(|url| url.query().is_some() || url.fragment().is_some()) {
                return Err(FetchError::BaseUrl(base.to_owned()));
            }
        }
        let client = reqwest::Client::builder()
            .https_only(base.is_none())
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
        match self.held.try_get_with_by_ref(url.0.as_str(), self.load(url)).await {
            Ok(certificate) if is_acceptable(&certificate, expected_name, self.clock.now()) => Ok(certificate),
            Ok(unacceptable) => {
                // Remembered before it is let go, so that no other caller finds neither and fetches again.
                let failure = self.remember_failure(url, Ok(unacceptable)).await;
                self.held.invalidate(&url.0).await;
                failure.what
            }
            Err(failure) => failure.what.clone(),
        }
    }

    /// Fetches within the budget.
    async fn load(&self, url: &CertificateUrl) -> Result<Arc<SigningCertificate>, Failure> {
        let now = self.clock.now();
        if !self.budget.take(now) {
            // Not remembered: the address itself has done nothing wrong.
            return Err(Failure { at: now, what: Err(FetchError::Budget) });
        }
        match self.fetch(url).await {
            Ok(certificate) => Ok(Arc::new(certificate)),
            Err(error) => Err(self.remember_failure(url, Err(error)).await),
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
        Ok(SigningCertificate::parse(&pem, &self.anchors)?)
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

fn is_acceptable(certificate: &SigningCertificate, expected_name: &str, now: Timestamp) -> bool {
    certificate.judge(expected_name, now).iter().all(Step::passed)
}

/// Why there is no certificate.
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
    #[error(transparent)]
    NotACertificate(#[from] InvalidCertificate),
    /// The process has not chosen a TLS provider, so no client can be built.
    #[error("no TLS provider is installed: main must install ring's")]
    NoCryptoProvider,
    /// The base URL for certificates is no http(s) URL, or has a query or a fragment.
    #[error("not a base URL for certificates: {0:?}")]
    BaseUrl(String),
    /// Too many certificates were asked for within a minute.
    #[error("no budget left: {MAX_FETCHES_PER_MINUTE} certificates were fetched within a minute")]
    Budget,
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use axum::http::{StatusCode, header};
    use axum::response::{IntoResponse, Redirect};

    use super::*;
    use crate::sns::test_authority::{FILE, Host, Key, NAME, NOW, good_certificate, params, self_signed};

    /// That there is a base URL allows plain http.
    const BASE: &str = "http://127.0.0.1:9";

    fn url(host: &Host) -> CertificateUrl {
        let text = format!("{}{FILE}", host.base);
        CertificateUrl::parse(&text, &format!("{}/SimpleNotificationService-", host.base)).unwrap()
    }

    fn web(clock: &Clock) -> Web {
        Web::new(TrustAnchors::default(), clock.clone(), Some(BASE)).unwrap()
    }

    /// Serves `pem`, made beforehand: generating a key within the request would block the client too.
    async fn serving(pem: String) -> Host {
        Host::answering(move || pem.clone()).await
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
        let web = Web::with_timeout(TrustAnchors::default(), Clock::movable(), Some(BASE), impatient).unwrap();
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
            assert!(!is_acceptable(&web.obtain(&url(&host), NAME).await.unwrap(), NAME, clock.now()));
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
            assert!(is_acceptable(&web.obtain(&url(&host), NAME).await.unwrap(), NAME, clock.now()));
        }
        assert_eq!(host.hits(), 1);
        clock.advance(Duration::from_hours(24 * 366 * 80));
        for _ in 0..2 {
            assert!(!is_acceptable(&web.obtain(&url(&host), NAME).await.unwrap(), NAME, clock.now()));
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
    async fn without_budget_nothing_is_fetched_and_the_address_is_not_blamed() {
        let clock = Clock::movable();
        let (host, web) = (serving(good_certificate()).await, web(&clock));
        while web.budget.take(clock.now()) {}
        assert!(matches!(web.obtain(&url(&host), NAME).await, Err(FetchError::Budget)));
        assert_eq!(host.hits(), 0);
        *web.budget.0.lock().unwrap() = None;
        assert!(web.obtain(&url(&host), NAME).await.is_ok());
    }

    #[tokio::test]
    async fn plain_http_is_refused_unless_a_sandbox_asks_for_it() {
        let host = serving(good_certificate()).await;
        let web = Web::new(TrustAnchors::default(), Clock::movable(), None).unwrap();
        assert!(matches!(web.obtain(&url(&host), NAME).await, Err(FetchError::Request(_))));
        assert_eq!(host.hits(), 0);
    }
}
