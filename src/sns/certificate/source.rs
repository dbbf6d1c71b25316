//! How signing certificates are come by: fetched within bounds, and kept while they are acceptable.
//!
//! A failed or unacceptable certificate is remembered for seconds only, and per address, so that a flood for one bad address
//! costs one request and never blocks the genuine one. Addresses can be invented, so fetches have a budget; an address that proved
//! good before is exempt from it, and so is every certificate that is held already.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use moka::future::Cache;
use tokio::sync::Semaphore;

use super::chain::Authorities;
use super::{CertificateUrl, InvalidCertificate, SigningCertificate};
use crate::clock::Clock;
use crate::sns::explanation::Trail;
use crate::telemetry::metric;

/// SNS waits 15 s for our answer; a certificate that takes longer than this is asked for again with the next delivery.
const FETCH_TIMEOUT: Duration = Duration::from_secs(4);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Genuine ones have about 2 KiB.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// One certificate per region and year is normal.
const MAX_HELD: u64 = 64;
const MAX_FAILURES_HELD: u64 = 1024;
const FAILURE_LIFE: Duration = Duration::from_secs(10);
/// Senders who know an allow-listed ARN can invent addresses; each costs one request to AWS until the budget is used up.
/// Refilled evenly, so that a genuine new address always has a chance against a flood.
const BUDGET_INTERVAL_MS: i64 = 100;
/// What may be fetched at once after a quiet time.
const BUDGET_BURST: i64 = 120;
/// Messages that wait for a fetch at a time: half of those that may be in hand, so that a slow host and a flood of messages that name it
/// leave room for those whose certificate is held.
const MAX_WAITING: usize = 512;
/// Addresses that are exempt from the budget: those of the last notifications in the journal.
const MAX_EXPECTED: usize = 8;

/// Where signing certificates come from.
#[derive(Debug)]
pub(in crate::sns) enum CertificateSource {
    /// Fetched from the address in the message once that address has been accepted.
    Web(Box<Web>),
    /// One that the operator gave (`verify --certificate`).
    Fixed(Arc<SigningCertificate>),
}

/// What is counted, so that it is there at zero before it first happens: alarms need that.
const OUTCOMES: [&str; 6] = ["held", "fetched", "unacceptable", "failed", "remembered", "over_budget"];

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

    /// Fetches the certificate at an address that proved good before, now and whenever it is needed, without regard to the budget.
    pub(in crate::sns) async fn expect(&self, url: &CertificateUrl, expected_name: &str) -> Result<(), FetchError> {
        match self {
            Self::Web(web) => web.expect(url, expected_name).await,
            Self::Fixed(_) => Ok(()),
        }
    }
}

/// Fetches certificates and keeps those that are acceptable.
#[derive(Debug)]
pub(in crate::sns) struct Web {
    client: reqwest::Client,
    authorities: Authorities,
    clock: Clock,
    held: Cache<String, Arc<SigningCertificate>>,
    failures: Cache<String, Failure>,
    budget: Budget,
    waiting: Semaphore,
    /// Exempt from the budget and from the bound on those who wait, at most [`MAX_EXPECTED`].
    expected: Mutex<Vec<String>>,
}

/// What an address last came to, when that was no good.
#[derive(Debug, Clone)]
struct Failure {
    at: Timestamp,
    what: Result<Arc<SigningCertificate>, FetchError>,
}

impl Web {
    /// A fetcher. Addresses must be https, unless a sandbox's `base` URL replaces their origin.
    pub(in crate::sns) fn new(authorities: Authorities, clock: Clock, base: Option<&str>) -> Result<Self, FetchError> {
        Self::with_timeout(authorities, clock, base, FETCH_TIMEOUT)
    }

    fn with_timeout(
        authorities: Authorities,
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
        for outcome in OUTCOMES {
            counter(outcome).increment(0);
        }
        let held = Cache::new(MAX_HELD);
        let failures = Cache::builder().max_capacity(MAX_FAILURES_HELD).time_to_live(FAILURE_LIFE).build();
        let (budget, waiting, expected) = (Budget::default(), Semaphore::new(MAX_WAITING), Mutex::default());
        Ok(Self { client, authorities, clock, held, failures, budget, waiting, expected })
    }

    async fn obtain(&self, url: &CertificateUrl, expected_name: &str) -> Result<Arc<SigningCertificate>, FetchError> {
        let acceptable = |certificate: &SigningCertificate| is_acceptable(certificate, expected_name, self.clock.now());
        match self.held.get(&url.0).await {
            Some(held) if acceptable(&held) => {
                count("held");
                return Ok(held);
            }
            // It was acceptable once. Amazon renews under another address, so this one is asked again, but not at each message.
            Some(held) => {
                let failure = self.remember_failure(url, Ok(held)).await;
                self.held.invalidate(&url.0).await;
                count("unacceptable");
                return failure.what;
            }
            None => {}
        }
        if let Some(failure) = self.recent_failure(url).await {
            count("remembered");
            return failure.what;
        }
        let _waiting = match self.waiting.try_acquire() {
            Ok(place) => Some(place),
            Err(_) if self.is_expected(url) => None,
            Err(_) => {
                count("over_budget");
                return Err(FetchError::Budget);
            }
        };
        // Concurrent callers for one address share one fetch and its outcome.
        let loaded = self.held.try_get_with_by_ref(url.0.as_str(), self.load(url, expected_name)).await;
        loaded.or_else(|failure| failure.what.clone())
    }

    async fn expect(&self, url: &CertificateUrl, expected_name: &str) -> Result<(), FetchError> {
        {
            let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
            if expected.len() < MAX_EXPECTED && !expected.contains(&url.0) {
                expected.push(url.0.clone());
            }
        }
        self.obtain(url, expected_name).await.map(|_| ())
    }

    fn is_expected(&self, url: &CertificateUrl) -> bool {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).contains(&url.0)
    }

    /// Fetches within the budget. Only what is acceptable comes to be held, so that nothing else can push it out.
    async fn load(&self, url: &CertificateUrl, expected_name: &str) -> Result<Arc<SigningCertificate>, Failure> {
        let now = self.clock.now();
        if !self.is_expected(url) && !self.budget.take(now) {
            count("over_budget");
            // Not remembered: the address itself has done nothing wrong.
            return Err(Failure { at: now, what: Err(FetchError::Budget) });
        }
        match self.fetch(url).await.map(Arc::new) {
            Ok(certificate) if is_acceptable(&certificate, expected_name, self.clock.now()) => {
                count("fetched");
                Ok(certificate)
            }
            Ok(certificate) => {
                count("unacceptable");
                Err(self.remember_failure(url, Ok(certificate)).await)
            }
            Err(error) => {
                count("failed");
                Err(self.remember_failure(url, Err(error)).await)
            }
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
        Ok(SigningCertificate::parse(&pem, &self.authorities)?)
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

/// Fetches at an even pace, with a burst after a quiet time (the generic cell rate algorithm).
#[derive(Debug, Default)]
struct Budget(Mutex<Option<Timestamp>>);

impl Budget {
    /// Whether one more fetch may be made.
    fn take(&self, now: Timestamp) -> bool {
        const INTERVAL: SignedDuration = SignedDuration::from_millis(BUDGET_INTERVAL_MS);
        const FULL: SignedDuration = SignedDuration::from_millis(BUDGET_INTERVAL_MS * BUDGET_BURST);
        // The value is whole at any time, so a panic elsewhere leaves nothing to repair.
        let mut paid_until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead =
            paid_until.map_or(SignedDuration::ZERO, |until| until.duration_since(now)).max(SignedDuration::ZERO);
        // Further ahead than it can be paid: the clock was set back.
        let ahead = if ahead > FULL { SignedDuration::ZERO } else { ahead };
        let has_room = ahead + INTERVAL <= FULL;
        if has_room {
            *paid_until = Some(now + ahead + INTERVAL);
        }
        has_room
    }
}

fn counter(outcome: &'static str) -> metrics::Counter {
    metrics::counter!(metric::SNS_CERTIFICATES, "outcome" => outcome)
}

fn count(outcome: &'static str) {
    counter(outcome).increment(1);
}

fn is_acceptable(certificate: &SigningCertificate, expected_name: &str, now: Timestamp) -> bool {
    certificate.judge(expected_name, now, &mut Trail::unkept()).is_ok()
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
    /// Too many addresses were named lately.
    #[error("no budget left: too many certificates were asked for at new addresses")]
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

    fn burst() -> usize {
        usize::try_from(BUDGET_BURST).unwrap()
    }

    fn url(host: &Host) -> CertificateUrl {
        let text = format!("{}{FILE}", host.base);
        CertificateUrl::parse(&text, &format!("{}/SimpleNotificationService-", host.base)).unwrap()
    }

    fn amazon() -> Authorities {
        Authorities::amazon(None, false).unwrap()
    }

    fn web(clock: &Clock) -> Web {
        Web::new(amazon(), clock.clone(), Some(BASE)).unwrap()
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
        let web = Web::with_timeout(amazon(), Clock::movable(), Some(BASE), impatient).unwrap();
        let error = web.obtain(&url(&host), NAME).await.unwrap_err();
        assert!(matches!(error, FetchError::Request(error) if error.is_timeout()));
    }

    #[tokio::test]
    async fn messages_that_wait_for_a_slow_host_leave_room_for_those_whose_certificate_is_held() {
        let (good, slow) = (serving(good_certificate()).await, Host::start(std::future::pending).await);
        let (other_slow, known) = (Host::start(std::future::pending).await, serving(good_certificate()).await);
        let web = Arc::new(web(&Clock::movable()));
        web.obtain(&url(&good), NAME).await.unwrap();
        let mut flood = tokio::task::JoinSet::new();
        for _ in 0..MAX_WAITING {
            let (web, url) = (Arc::clone(&web), url(&slow));
            flood.spawn(async move { web.obtain(&url, NAME).await.map(|_| ()) });
        }
        while web.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(web.obtain(&url(&other_slow), NAME).await, Err(FetchError::Budget)));
        assert_eq!(other_slow.hits(), 0);
        web.obtain(&url(&good), NAME).await.unwrap();
        web.expect(&url(&known), NAME).await.unwrap();
        flood.shutdown().await;
        assert_eq!(web.waiting.available_permits(), MAX_WAITING);
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
    fn the_budget_is_a_burst_and_then_an_even_pace() {
        let (budget, now) = (Budget::default(), NOW.parse::<Timestamp>().unwrap());
        assert_eq!((0..burst() + 5).filter(|_| budget.take(now)).count(), burst());
        let later = now + SignedDuration::from_millis(3 * BUDGET_INTERVAL_MS);
        assert_eq!((0..10).filter(|_| budget.take(later)).count(), 3);
        assert!(!budget.take(later));
        // Setting the clock back by more than the burst must not stop fetching until it has caught up.
        assert!(budget.take(now - SignedDuration::from_hours(1)));
    }

    #[tokio::test]
    async fn an_address_that_proved_good_before_needs_no_budget() {
        let clock = Clock::movable();
        let (host, web) = (serving(good_certificate()).await, web(&clock));
        while web.budget.take(clock.now()) {}
        web.expect(&url(&host), NAME).await.unwrap();
        assert!(web.obtain(&url(&host), NAME).await.is_ok());
        assert_eq!(host.hits(), 1);
    }

    #[tokio::test]
    async fn a_flood_of_invented_addresses_pushes_no_genuine_certificate_out() {
        let clock = Clock::fixed(NOW.parse().unwrap());
        let genuine = serving(good_certificate()).await;
        let bad = serving(self_signed(&params(&["x.test"], "x"), Key::other())).await;
        let web = web(&clock);
        assert!(web.obtain(&url(&genuine), NAME).await.is_ok());
        let prefix = format!("{}/SimpleNotificationService-", bad.base);
        for invented in 0..2 * MAX_HELD {
            let address = CertificateUrl::parse(&format!("{prefix}{invented:032x}.pem"), &prefix).unwrap();
            let _ = web.obtain(&address, NAME).await;
        }
        assert_eq!(bad.hits(), burst() - 1, "each address that the budget allows is asked once");
        web.held.run_pending_tasks().await;
        assert!(web.obtain(&url(&genuine), NAME).await.is_ok());
        assert_eq!((genuine.hits(), web.held.entry_count()), (1, 1));
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
        let web = Web::new(amazon(), Clock::movable(), None).unwrap();
        assert!(matches!(web.obtain(&url(&host), NAME).await, Err(FetchError::Request(_))));
        assert_eq!(host.hits(), 0);
    }

    /// Serves `pem` over TLS with a certificate that no web root vouches for; says what it was asked.
    fn impostor(pem: String) -> (String, std::thread::JoinHandle<Result<usize, std::io::Error>>) {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let rcgen::CertifiedKey { cert, signing_key } =
                rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            let key = rustls_pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
            let config = rustls::ServerConfig::builder().with_no_client_auth();
            let config = config.with_single_cert(vec![cert.der().clone()], key).unwrap();
            let connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, listener.accept()?.0);
            let asked = stream.read(&mut [0; 4096])?;
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{pem}", pem.len())?;
            Ok(asked)
        });
        (base, served)
    }

    #[tokio::test]
    async fn a_host_that_the_web_roots_do_not_vouch_for_is_asked_nothing() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (base, served) = impostor(good_certificate());
        let prefix = format!("{base}/SimpleNotificationService-");
        let url = CertificateUrl::parse(&format!("{base}{FILE}"), &prefix).unwrap();
        let web = Web::new(amazon(), Clock::movable(), Some(&base)).unwrap();
        let FetchError::Request(error) = web.obtain(&url, NAME).await.unwrap_err() else { panic!("another failure") };
        assert!(error.is_connect(), "{error:?}");
        assert!(served.join().unwrap().is_err(), "the handshake must fail before anything is asked");
    }
}
