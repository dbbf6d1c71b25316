//! The operations of Amazon Pay that this service uses.
//!
//! Create Charge is split in two, because the send protocol needs a place between them: [`AmazonPay::sign_create_charge`] makes
//! the signature, then the caller marks the send in its store, then [`AmazonPay::send`] consumes the signed request. Nothing here
//! ever repeats a call; when to ask again is the caller's decision.

mod objects;
mod probe;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};

use super::classify::{Answer, classify};
use super::reasons::{Meaning, meaning_of};
use super::signing::{Signable, SigningError, SigningKey};
use super::transport::{Outgoing, Reply, Transport, Way};
use super::wire;
use crate::clock::Clock;
use crate::model::capture::CaptureWish;
use crate::model::charge::{ChargeLook, ChargeState};
use crate::model::charge_request::ChargeRequest;
use crate::model::ids::{Account, ChargeId, ChargePermissionId, ChargeTag, Environment, IdempotencyKey, IntentId};
use crate::model::permission::Look;
use crate::model::quota::Operation;
use crate::model::verdict::Verdict;

/// The default of [`ClientSettings::timeout`]: Amazon answers Create Charge within 15 s (US, EU, UK) or 30 s (JP), so whoever
/// waits longer than that rarely has to ask twice.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45);

/// The only header that goes out unsigned on purpose; Amazon takes it either way.
const SIMULATION_CODE: HeaderName = HeaderName::from_static("x-amz-pay-simulation-code");

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The merchant account, its environment and its region.
    pub account: Account,
    /// The id that Seller Central gave with the key. If it begins with LIVE or SANDBOX, that must be the account's environment.
    pub public_key_id: String,
    /// The RSA private key, PEM.
    pub private_key_pem: SecretString,
    /// Replaces `https://<Amazon's host>`: scheme, host and port, nothing behind. Refused in the live environment.
    pub base_url: Option<String>,
    /// From connecting to the last byte of the answer; see [`DEFAULT_TIMEOUT`].
    pub timeout: Duration,
}

/// Amazon Pay's API for one account. Clones share their connections.
#[derive(Clone)]
pub struct AmazonPay {
    inner: Arc<Inner>,
    timeout: Duration,
}

struct Inner {
    account: Account,
    public_key_id: String,
    key: SigningKey,
    /// `https://host[:port]`.
    base_url: String,
    /// `host[:port]`.
    host: String,
    /// What comes before `/v2`.
    path_prefix: &'static str,
    clock: Clock,
    transport: Transport,
    /// The reason code with which Amazon last refused the account at a look.
    fault_code: Mutex<Option<String>>,
}

/// A signed Create Charge or Capture Charge. It goes out once, by [`AmazonPay::send`], or never: it can be neither cloned nor sent twice.
#[must_use = "a signed request that is dropped is never sent"]
pub struct SignedRequest {
    outgoing: Outgoing,
    signed_at: Timestamp,
}

impl SignedRequest {
    /// When it was signed, by our clock: the `x-amz-pay-date` that it carries, before rounding to the second.
    #[must_use]
    pub fn signed_at(&self) -> Timestamp {
        self.signed_at
    }
}

/// What a cancellation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// Amazon accepted it.
    Done,
    /// The charge can no longer be canceled (`InvalidChargeStatus`): read it to learn why.
    AlreadyFinal,
    /// No answer that says anything, or a refusal that we do not know; asking again later may help.
    Failed,
    /// The account's fault (401, 403).
    AccountFault,
}

/// What closing a permission came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseOutcome {
    /// Amazon accepted it.
    Done,
    /// It cannot be closed in its state (`InvalidChargePermissionStatus`): it probably is closed.
    AlreadyFinal,
    /// Amazon calls the request wrong (other 400, 404, 405), with this code: the same again would be too.
    Refused(String),
    /// No answer that says anything, or a refusal that we do not know; asking again later may help.
    Failed,
    /// The account's fault (401, 403).
    AccountFault,
}

impl AmazonPay {
    /// A client for one account. Needs rustls' process-wide crypto provider to be installed.
    ///
    /// # Errors
    /// When the settings contradict each other, the key cannot sign, or the HTTP client cannot be built.
    pub fn new(settings: ClientSettings, clock: Clock) -> Result<Self, ClientError> {
        let ClientSettings { account, public_key_id, private_key_pem, base_url, timeout } = settings;
        // It becomes part of a header whose separators are these.
        if public_key_id.is_empty() || !public_key_id.bytes().all(|b| b.is_ascii_graphic() && b != b',' && b != b'=') {
            return Err(ClientError::PublicKeyId);
        }
        let path_prefix = path_prefix(&public_key_id, account.environment)?;
        let (base_url, host, https_only) = match base_url {
            None => (format!("https://{}", account.region.api_host()), account.region.api_host().to_owned(), true),
            Some(_) if account.environment == Environment::Live => return Err(ClientError::BaseUrlInLive),
            Some(text) => overridden(&text)?,
        };
        // reqwest panics without one.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(ClientError::NoCryptoProvider);
        }
        let key = SigningKey::from_pem(private_key_pem.expose_secret())?;
        let transport = Transport::new(timeout, https_only, clock.clone()).map_err(ClientError::Http)?;
        let inner = Inner {
            account,
            public_key_id,
            key,
            base_url,
            host,
            path_prefix,
            clock,
            transport,
            fault_code: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner), timeout })
    }

    /// Get Charge Permission. Never [`Look::NotAsked`].
    pub async fn charge_permission(&self, id: &ChargePermissionId) -> Look {
        let Some(reply) = self.look("get_charge_permission", &format!("chargePermissions/{id}")).await else {
            return Look::Failed;
        };
        match (reply.status, reply.body) {
            (200..=299, Some(body)) => match wire::permission(&body, &self.inner.account.merchant) {
                Ok(view) if view.id == *id => Look::Seen(view),
                Ok(_) => {
                    tracing::warn!(operation = "get_charge_permission", "Amazon showed another charge permission");
                    Look::Failed
                }
                Err(error) => {
                    tracing::warn!(operation = "get_charge_permission", %error, "unreadable answer");
                    Look::Failed
                }
            },
            (404, _) => Look::NotFound,
            (401 | 403, body) => {
                self.note_fault(body.as_deref());
                Look::AccountFault
            }
            _ => Look::Failed,
        }
    }

    /// With which reason code the account was refused when a look last came to its fault; `None` if Amazon gave none. For people: with
    /// several looks at once it may be that of another one.
    #[must_use]
    pub fn fault_code(&self) -> Option<String> {
        self.inner.fault_code.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_fault(&self, body: Option<&[u8]>) {
        let code = body.and_then(wire::reason_code).map(|code| wire::printable(&code));
        *self.inner.fault_code.lock().unwrap_or_else(PoisonError::into_inner) = code;
    }

    /// Get Charge.
    pub async fn charge(&self, id: &ChargeId) -> ChargeLook {
        let Some(reply) = self.look("get_charge", &format!("charges/{id}")).await else {
            return ChargeLook::Failed;
        };
        match (reply.status, reply.body) {
            (200..=299, Some(body)) => match wire::charge(&body) {
                Ok(view) if view.id == *id && view.state != ChargeState::Other(String::new()) => ChargeLook::Seen(view),
                Ok(_) => {
                    tracing::warn!(operation = "get_charge", "Amazon showed another charge, or one without a state");
                    ChargeLook::Failed
                }
                Err(error) => {
                    tracing::warn!(operation = "get_charge", %error, "unreadable answer");
                    ChargeLook::Failed
                }
            },
            (401, body) => {
                self.note_fault(body.as_deref());
                ChargeLook::AccountFault
            }
            (403, body)
                if body.as_deref().and_then(wire::reason_code).is_some_and(|code| blames_the_account(&code)) =>
            {
                self.note_fault(body.as_deref());
                ChargeLook::AccountFault
            }
            (status @ (400 | 403 | 404), _) => ChargeLook::Refused(status),
            _ => ChargeLook::Failed,
        }
    }

    /// Signs Create Charge for `number` of `intent`. The date of the signature is fixed here, so sign before marking the send:
    /// then no time lost between the two can make Amazon see a younger date than the mark.
    ///
    /// # Errors
    /// When the request asks for a simulation that cannot be: in live, or with a code that is no header value.
    pub fn sign_create_charge(
        &self,
        request: &ChargeRequest,
        intent: &IntentId,
        number: u32,
    ) -> Result<SignedRequest, ClientError> {
        let key = IdempotencyKey::derive(&self.inner.account, intent, number);
        let tag = ChargeTag { intent: intent.clone(), number };
        let body = wire::create_charge_body(request, &tag).map_err(|_| ClientError::Body)?;
        let signed_at = self.inner.clock.now();
        let mut outgoing = self.prepare("create_charge", Method::POST, "charges", body, Some(&key), signed_at)?;
        if let Some(code) = &request.simulation_code {
            // Dropping the header would turn what was meant as a simulation into a real charge.
            if self.inner.account.environment != Environment::Sandbox {
                return Err(ClientError::SimulationInLive);
            }
            let code = HeaderValue::from_str(code).map_err(|_| ClientError::SimulationCode)?;
            outgoing.headers.insert(SIMULATION_CODE, code);
        }
        Ok(SignedRequest { outgoing, signed_at })
    }

    /// Signs Capture Charge of `charge` for the capture `number` of `intent`. As with [`AmazonPay::sign_create_charge`], before the
    /// send is marked.
    ///
    /// # Errors
    /// When the request cannot be written or signed.
    pub fn sign_capture(
        &self,
        charge: &ChargeId,
        wish: &CaptureWish,
        intent: &IntentId,
        number: u32,
    ) -> Result<SignedRequest, ClientError> {
        let key = IdempotencyKey::derive_capture(&self.inner.account, intent, number);
        let body = wire::capture_body(wish).map_err(|_| ClientError::Body)?;
        let signed_at = self.inner.clock.now();
        let path = format!("charges/{charge}/capture");
        let outgoing = self.prepare("capture_charge", Method::POST, &path, body, Some(&key), signed_at)?;
        Ok(SignedRequest { outgoing, signed_at })
    }

    /// Sends a signed Create Charge or Capture Charge, once, over a connection of its own, and says what the answer means.
    ///
    /// A caller that drops the future before its end knows as little as after a time-out: the number is unknown.
    pub async fn send(&self, request: SignedRequest) -> Verdict {
        let operation = request.outgoing.operation;
        let verdict = match self.inner.transport.call(Way::Once, request.outgoing).await {
            Ok(reply) => classify(Answer::Reply {
                status: reply.status,
                retry_after: reply.retry_after.as_deref(),
                date: reply.date.as_deref(),
                body: reply.body.as_deref(),
            }),
            Err(why) => classify(Answer::Nothing(why)),
        };
        if let Verdict::Ambiguous { why, .. } = &verdict {
            tracing::warn!(operation, why, "it is not known whether Amazon did it");
        }
        verdict
    }

    /// Cancel Charge. `reason` is for the merchant's records and is cut at 255 characters.
    pub async fn cancel_charge(&self, id: &ChargeId, reason: &str) -> CancelOutcome {
        const OPERATION: &str = "cancel_charge";
        let now = self.inner.clock.now();
        let path = format!("charges/{id}/cancel");
        let outgoing = wire::cancel_body(reason)
            .map_err(|_| ClientError::Body)
            .and_then(|body| self.prepare(OPERATION, Method::DELETE, &path, body, None, now));
        let Some(reply) = self.call(OPERATION, outgoing).await else { return CancelOutcome::Failed };
        let code = reply.body.as_deref().and_then(wire::reason_code);
        match (reply.status, code.as_deref()) {
            (200..=299, _) => CancelOutcome::Done,
            (400..=499, Some("InvalidChargeStatus")) => CancelOutcome::AlreadyFinal,
            (401 | 403, _) => CancelOutcome::AccountFault,
            _ => CancelOutcome::Failed,
        }
    }

    /// Close Charge Permission: no charge is possible afterwards. `reason` is for the merchant's records and is cut at 255 characters.
    pub async fn close_charge_permission(
        &self,
        id: &ChargePermissionId,
        reason: &str,
        cancel_pending: bool,
    ) -> CloseOutcome {
        const OPERATION: &str = "close_charge_permission";
        let now = self.inner.clock.now();
        let path = format!("chargePermissions/{id}/close");
        let outgoing = wire::close_body(reason, cancel_pending)
            .map_err(|_| ClientError::Body)
            .and_then(|body| self.prepare(OPERATION, Method::DELETE, &path, body, None, now));
        let Some(reply) = self.call(OPERATION, outgoing).await else { return CloseOutcome::Failed };
        let code = reply.body.as_deref().and_then(wire::reason_code);
        match (reply.status, code.as_deref()) {
            (200..=299, _) => CloseOutcome::Done,
            (400..=499, Some("InvalidChargePermissionStatus")) => CloseOutcome::AlreadyFinal,
            (401 | 403, _) => CloseOutcome::AccountFault,
            (_, Some(code)) if meaning_of(code) == Some(Meaning::AccountFault) => CloseOutcome::AccountFault,
            (status @ (400 | 404 | 405), code) => {
                CloseOutcome::Refused(code.map_or_else(|| format!("HTTP {status}"), wire::printable))
            }
            _ => CloseOutcome::Failed,
        }
    }

    /// Our clock minus Amazon's (`Date`) at the last answer of any kind, to the second; `None` before the first.
    #[must_use]
    pub fn clock_skew(&self) -> Option<SignedDuration> {
        self.inner.transport.clock_skew()
    }

    /// The operations that Amazon answered 429 since this was last asked, with the longest `Retry-After` of each (0 if it gave none).
    #[must_use]
    pub fn take_throttled(&self) -> Vec<(Operation, Duration)> {
        self.inner.transport.take_throttled()
    }

    /// How long a call takes at most.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn look(&self, operation: &'static str, path: &str) -> Option<Reply> {
        let now = self.inner.clock.now();
        let outgoing = self.prepare(operation, Method::GET, path, Vec::new(), None, now);
        self.call(operation, outgoing).await
    }

    async fn call(&self, operation: &'static str, outgoing: Result<Outgoing, ClientError>) -> Option<Reply> {
        match outgoing {
            Ok(outgoing) => self.inner.transport.call(Way::Pooled, outgoing).await.ok(),
            Err(error) => {
                tracing::error!(operation, %error, "the request could not be made");
                None
            }
        }
    }

    /// Builds and signs a request. `path` comes after `/v2/` and holds nothing that would need encoding, so what is signed is
    /// what is sent.
    fn prepare(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        body: Vec<u8>,
        idempotency_key: Option<&IdempotencyKey>,
        date: Timestamp,
    ) -> Result<Outgoing, ClientError> {
        let inner = &*self.inner;
        let path = format!("{}/v2/{path}", inner.path_prefix);
        let url: Url = format!("{}{path}", inner.base_url).parse().map_err(|_| ClientError::BaseUrl)?;
        let signable = Signable {
            method: method.as_str(),
            path: &path,
            query: Vec::new(),
            date,
            host: &inner.host,
            region: inner.account.region,
            idempotency_key,
            body: &body,
        };
        let authorization = signable.authorization(&inner.key, &inner.public_key_id)?;
        let mut headers = HeaderMap::new();
        for (name, value) in signable.headers() {
            let value = HeaderValue::try_from(value).map_err(|_| ClientError::BaseUrl)?;
            headers.insert(HeaderName::from_static(name), value);
        }
        headers.insert(AUTHORIZATION, HeaderValue::try_from(authorization).map_err(|_| ClientError::PublicKeyId)?);
        Ok(Outgoing { operation, method, url, headers, body })
    }
}

impl fmt::Debug for AmazonPay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmazonPay").field("host", &self.inner.host).finish_non_exhaustive()
    }
}

impl fmt::Debug for SignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedRequest").field("signed_at", &self.signed_at).finish_non_exhaustive()
    }
}

/// Reason codes of a 403 that do not speak of the object asked for.
fn blames_the_account(code: &str) -> bool {
    matches!(code, "InvalidRequestSignature" | "InvalidAccountStatus")
}

/// A public key id that names its environment leaves the path bare; any other needs the environment in the path.
/// Source: <https://developer.amazon.com/docs/amazon-pay-checkout/v1-check-api-version.html>.
fn path_prefix(public_key_id: &str, environment: Environment) -> Result<&'static str, ClientError> {
    let names = |prefix: &str| public_key_id.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    match (names("LIVE"), names("SANDBOX"), environment) {
        (true, _, Environment::Live) | (_, true, Environment::Sandbox) => Ok(""),
        (true, ..) | (_, true, _) => Err(ClientError::Environment(environment)),
        (.., Environment::Live) => Ok("/live"),
        (.., Environment::Sandbox) => Ok("/sandbox"),
    }
}

/// Base URL, host with port, and whether TLS is demanded.
fn overridden(text: &str) -> Result<(String, String, bool), ClientError> {
    let url: Url = text.parse().map_err(|_| ClientError::BaseUrl)?;
    let host = url.host_str().ok_or(ClientError::BaseUrl)?;
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let base_url = format!("{}://{host}", url.scheme());
    // Equal only if there is no path, query, fragment or password that would be dropped silently.
    if !matches!(url.scheme(), "http" | "https") || url.as_str() != format!("{base_url}/") || text.ends_with('/') {
        return Err(ClientError::BaseUrl);
    }
    Ok((base_url, host, url.scheme() == "https"))
}

/// Why a client cannot be made or a request not be signed. No message holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Empty, or with characters that have a meaning in the `Authorization` header.
    #[error("the public key id is empty or has characters that no public key id has")]
    PublicKeyId,
    /// The public key id names the other environment.
    #[error("the public key id belongs to the other environment than {0}")]
    Environment(Environment),
    /// Not a bare `scheme://host[:port]`.
    #[error("the base URL must be http[s]://host[:port] without anything behind")]
    BaseUrl,
    /// An override of the address where real money moves.
    #[error("the base URL cannot be replaced in the live environment")]
    BaseUrlInLive,
    /// The private key cannot sign.
    #[error(transparent)]
    Key(#[from] SigningError),
    /// The process installed no crypto provider for rustls.
    #[error("no crypto provider for TLS is installed in this process")]
    NoCryptoProvider,
    /// The HTTP client could not be built, for example for want of root certificates.
    #[error("the HTTP client could not be built")]
    Http(#[source] reqwest::Error),
    /// A simulation code in the live environment.
    #[error("a simulation code cannot be used in the live environment")]
    SimulationInLive,
    /// A simulation code that cannot be a header value.
    #[error("the simulation code cannot be sent as a header")]
    SimulationCode,
    /// The body could not be written as JSON.
    #[error("the body could not be written as JSON")]
    Body,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_prefix_follows_the_public_key_id_and_then_the_environment() {
        for (id, environment, expected) in [
            ("LIVE-ABC", Environment::Live, Some("")),
            ("live-abc", Environment::Live, Some("")),
            ("SANDBOX-ABC", Environment::Sandbox, Some("")),
            ("SandboxABC", Environment::Sandbox, Some("")),
            ("ABC", Environment::Live, Some("/live")),
            ("ABC", Environment::Sandbox, Some("/sandbox")),
            ("ABC-LIVE", Environment::Sandbox, Some("/sandbox")),
            ("LIVE-ABC", Environment::Sandbox, None),
            ("SANDBOX-ABC", Environment::Live, None),
        ] {
            assert_eq!(path_prefix(id, environment).ok(), expected, "{id} {environment}");
        }
    }

    #[test]
    fn a_base_url_is_scheme_host_and_port_and_nothing_else() {
        let (base_url, host, https_only) = overridden("http://127.0.0.1:8090").unwrap();
        assert_eq!((base_url.as_str(), host.as_str(), https_only), ("http://127.0.0.1:8090", "127.0.0.1:8090", false));
        let (base_url, host, https_only) = overridden("https://sandbox:443").unwrap();
        assert_eq!((base_url.as_str(), host.as_str(), https_only), ("https://sandbox", "sandbox", true));
        for bad in
            ["", "host", "ftp://a", "http://a/", "http://a/v2", "http://a?b", "http://a#b", "http://u:p@a", "data:,"]
        {
            assert!(overridden(bad).is_err(), "{bad}");
        }
    }

    #[cfg(feature = "sandbox")]
    mod against_a_server {
        use std::sync::Mutex;
        use std::sync::atomic::{AtomicUsize, Ordering};

        use axum::Router;
        use axum::body::{Body, to_bytes};
        use axum::http::{Request, StatusCode};
        use axum::response::{IntoResponse, Response};
        use ring::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
        use serde_json::{Value, json};
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio::net::TcpListener;

        use super::super::super::{signing, test_key};
        use super::*;
        use crate::model::verdict::{Decline, Refusal};

        const PERMISSION: &str = "C01-5105180-3221187";
        const CHARGE: &str = "C01-5105180-3221187-C056351";

        /// One request as the server saw it.
        struct Seen {
            method: String,
            path: String,
            headers: axum::http::HeaderMap,
            body: Vec<u8>,
        }

        impl Seen {
            fn header(&self, name: &str) -> Option<&str> {
                self.headers.get(name).map(|value| value.to_str().unwrap())
            }

            /// Rebuilds what was signed from what arrived, by the letter of the recipe, and checks the signature.
            fn assert_signed(&self) {
                let authorization = self.header("authorization").unwrap();
                let (names, signature) = authorization
                    .strip_prefix("AMZN-PAY-RSASSA-PSS-V2 PublicKeyId=SANDBOX-KEY, SignedHeaders=")
                    .unwrap()
                    .split_once(", Signature=")
                    .unwrap();
                let lines: Vec<String> =
                    names.split(';').map(|name| format!("{name}:{}\n", self.header(name).unwrap())).collect();
                let lines = lines.concat();
                let hash = |bytes: &[u8]| {
                    data_encoding::HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
                };
                let canonical = format!("{}\n{}\n\n{lines}\n{names}\n{}", self.method, self.path, hash(&self.body));
                let text = format!("AMZN-PAY-RSASSA-PSS-V2\n{}", hash(canonical.as_bytes()));
                let key = SigningKey::from_pem(&test_key::pkcs8_pem()).unwrap();
                UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key.public_key())
                    .verify(text.as_bytes(), &data_encoding::BASE64.decode(signature.as_bytes()).unwrap())
                    .unwrap();
            }
        }

        #[derive(Clone, Default)]
        struct Log(Arc<Mutex<Vec<Seen>>>);

        impl Log {
            fn only(&self) -> Seen {
                let mut seen = std::mem::take(&mut *self.0.lock().unwrap());
                assert_eq!(seen.len(), 1, "exactly one request was expected");
                seen.remove(0)
            }
        }

        fn settings(base_url: String) -> ClientSettings {
            ClientSettings {
                account: Account {
                    merchant: "A2K7NDRCTOTPW9".parse().unwrap(),
                    environment: Environment::Sandbox,
                    region: crate::model::ids::Region::Eu,
                },
                public_key_id: "SANDBOX-KEY".to_owned(),
                private_key_pem: SecretString::from(test_key::pkcs8_pem()),
                base_url: Some(base_url),
                timeout: Duration::from_secs(10),
            }
        }

        fn client(settings: ClientSettings) -> AmazonPay {
            let _ = rustls::crypto::ring::default_provider().install_default();
            AmazonPay::new(settings, Clock::system()).unwrap()
        }

        /// A server that gives every request the same answer, and a client of it.
        async fn amazon<A>(answer: A) -> (AmazonPay, Log)
        where
            A: Fn() -> Response + Clone + Send + Sync + 'static,
        {
            let log = Log::default();
            let seen = log.clone();
            let app = Router::new().fallback(move |request: Request<Body>| {
                let (seen, answer) = (seen.clone(), answer.clone());
                async move {
                    let (parts, body) = request.into_parts();
                    let one = Seen {
                        method: parts.method.to_string(),
                        path: parts.uri.path().to_owned(),
                        headers: parts.headers,
                        body: to_bytes(body, usize::MAX).await.unwrap().to_vec(),
                    };
                    seen.0.lock().unwrap().push(one);
                    answer()
                }
            });
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let base_url = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
            (client(settings(base_url)), log)
        }

        async fn amazon_says(status: u16, body: Value) -> (AmazonPay, Log) {
            amazon(move || (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()).await
        }

        /// A server below HTTP: it reads each request to its end, writes `answer`, then closes the connection or holds it open.
        async fn raw(answer: &'static [u8], hold: bool) -> (String, Arc<AtomicUsize>) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let base_url = format!("http://{}", listener.local_addr().unwrap());
            let requests = Arc::new(AtomicUsize::new(0));
            let counter = requests.clone();
            tokio::spawn(async move {
                loop {
                    let (mut socket, _) = listener.accept().await.unwrap();
                    let counter = counter.clone();
                    tokio::spawn(async move {
                        let (mut read, mut buffer) = (Vec::new(), [0_u8; 4096]);
                        while !(read.windows(4).any(|end| end == b"\r\n\r\n") && read.ends_with(b"}}")) {
                            let count = socket.read(&mut buffer).await.unwrap();
                            assert_ne!(count, 0, "the request broke off");
                            read.extend_from_slice(&buffer[..count]);
                        }
                        counter.fetch_add(1, Ordering::SeqCst);
                        socket.write_all(answer).await.unwrap();
                        while hold && socket.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
                    });
                }
            });
            (base_url, requests)
        }

        fn request(simulation_code: Option<&str>) -> ChargeRequest {
            serde_json::from_value(json!({
                "chargePermissionId": PERMISSION,
                "chargeAmount": {"amount": "14.00", "currencyCode": "EUR"},
                "captureNow": true,
                "simulationCode": simulation_code,
            }))
            .unwrap()
        }

        fn signed(client: &AmazonPay, simulation_code: Option<&str>) -> SignedRequest {
            client.sign_create_charge(&request(simulation_code), &"sub-42".parse().unwrap(), 1).unwrap()
        }

        fn charge_json(state: &str) -> Value {
            json!({"chargeId": CHARGE, "chargePermissionId": PERMISSION, "statusDetails": {"state": state}})
        }

        fn permission_json() -> Value {
            json!({"chargePermissionId": PERMISSION, "statusDetails": {"state": "Chargeable", "reasons": null},
                "buyer": {"name": "Jane Roe", "email": "jane@example.com"}, "shippingAddress": {"addressLine1": "1 Secret Road"},
                "paymentPreferences": [{"paymentDescriptor": "Visa ****4242"}]})
        }

        async fn send(client: &AmazonPay) -> Verdict {
            client.send(signed(client, None)).await
        }

        #[tokio::test]
        async fn a_charge_goes_out_signed_with_the_pinned_body_and_its_own_key() {
            let (client, log) = amazon_says(201, charge_json("Captured")).await;
            let Verdict::Charge(charge) = client.send(signed(&client, Some("HardDeclined"))).await else { panic!() };
            assert_eq!((charge.id.as_str(), charge.state), (CHARGE, ChargeState::Captured));
            let seen = log.only();
            assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v2/charges"));
            assert_eq!(
                String::from_utf8(seen.body.clone()).unwrap(),
                r#"{"chargePermissionId":"C01-5105180-3221187","chargeAmount":{"amount":"14.00","currencyCode":"EUR"},"captureNow":true,"canHandlePendingAuthorization":false,"merchantMetadata":{"customInformation":"amazon-pay-ipn/v1/sub-42/1"}}"#
            );
            let key = IdempotencyKey::derive(&client.inner.account, &"sub-42".parse().unwrap(), 1);
            assert_eq!(seen.header(signing::IDEMPOTENCY_KEY_HEADER), Some(key.as_str()));
            assert_eq!(seen.header("x-amz-pay-simulation-code"), Some("HardDeclined"));
            assert_eq!(seen.header("x-amz-pay-host"), seen.header("host"));
            assert_eq!(seen.header("x-amz-pay-region"), Some("eu"));
            assert_eq!(seen.header("accept"), Some("application/json"));
            assert_eq!(seen.header("user-agent"), Some(concat!("amazon-pay-ipn/", env!("CARGO_PKG_VERSION"))));
            assert!(!seen.header("authorization").unwrap().contains("simulation"));
            seen.assert_signed();
        }

        #[tokio::test]
        async fn the_date_is_that_of_the_signing_and_two_sends_of_a_number_differ_only_in_date_and_signature() {
            let (client, log) = amazon_says(201, charge_json("Captured")).await;
            let first = signed(&client, None);
            let date = signing::compact_date(first.signed_at());
            let second = signed(&client, None);
            assert!(matches!(client.send(first).await, Verdict::Charge(_)));
            let one = log.only();
            assert!(matches!(client.send(second).await, Verdict::Charge(_)));
            let two = log.only();
            assert_eq!(one.header("x-amz-pay-date"), Some(date.as_str()));
            assert_eq!(one.header("x-amz-pay-simulation-code"), None);
            assert_eq!(one.body, two.body);
            let key = signing::IDEMPOTENCY_KEY_HEADER;
            assert_eq!(one.header(key), two.header(key));
            assert_ne!(one.header("authorization"), two.header("authorization"), "each send has its own signature");
        }

        #[tokio::test]
        async fn declines_and_refusals_are_told_by_their_reason_code() {
            for (status, code, expected) in [
                (422, "SoftDeclined", Verdict::Declined(Decline::SoftDeclined)),
                (500, "ProcessingFailure", Verdict::Declined(Decline::ProcessingFailure)),
                (400, "PeriodicAmountExceeded", Verdict::Refused(Refusal::MonthlyLimit)),
                (403, "InvalidRequestSignature", Verdict::AccountFault("InvalidRequestSignature".to_owned())),
            ] {
                let (client, log) = amazon_says(status, json!({"reasonCode": code, "message": ""})).await;
                assert_eq!(send(&client).await, expected);
                log.only();
            }
        }

        #[tokio::test]
        async fn a_time_out_is_ambiguous_and_the_request_went_out_once() {
            let (base_url, requests) = raw(b"", true).await;
            let client = client(ClientSettings { timeout: Duration::from_millis(200), ..settings(base_url) });
            assert_eq!(client.timeout(), Duration::from_millis(200));
            let Verdict::Ambiguous { why, .. } = send(&client).await else { panic!() };
            assert_eq!(why, "no answer within the time-out");
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(requests.load(Ordering::SeqCst), 1);
        }

        #[tokio::test]
        async fn a_lost_connection_is_ambiguous_and_the_request_is_not_repeated() {
            let cut = b"HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 500\r\n\r\n{\"reasonCode\":\"HardDec";
            for (answer, expected) in [
                (b"".as_slice(), "connection lost before the answer"),
                (b"nonsense\r\n\r\n", "connection lost before the answer"),
                (cut.as_slice(), "HTTP 422 with an unreadable body"),
            ] {
                let (base_url, requests) = raw(answer, false).await;
                let client = client(settings(base_url));
                let Verdict::Ambiguous { why, .. } = send(&client).await else { panic!() };
                assert_eq!(why, expected);
                tokio::time::sleep(Duration::from_millis(300)).await;
                assert_eq!(requests.load(Ordering::SeqCst), 1);
            }
        }

        #[tokio::test]
        async fn each_charge_goes_out_over_a_connection_of_its_own() {
            // The server closes neither connection; a pool would take the first again.
            let (base_url, requests) = raw(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", true).await;
            let client = client(settings(base_url));
            for sent in 1..=3 {
                assert!(matches!(send(&client).await, Verdict::Ambiguous { .. }));
                // The server counts one request per connection.
                assert_eq!(requests.load(Ordering::SeqCst), sent);
            }
        }

        #[tokio::test]
        async fn an_unreachable_server_is_ambiguous_for_a_charge_and_a_failed_look_otherwise() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let base_url = format!("http://{}", listener.local_addr().unwrap());
            drop(listener);
            let client = client(settings(base_url));
            assert!(matches!(send(&client).await, Verdict::Ambiguous { .. }));
            assert_eq!(client.charge_permission(&PERMISSION.parse().unwrap()).await, Look::Failed);
            assert_eq!(client.charge(&CHARGE.parse().unwrap()).await, ChargeLook::Failed);
            assert_eq!(client.cancel_charge(&CHARGE.parse().unwrap(), "x").await, CancelOutcome::Failed);
            assert_eq!(client.clock_skew(), None);
        }

        #[tokio::test]
        async fn a_redirect_is_not_followed() {
            for status in [301, 302, 307, 308] {
                let (client, log) = amazon(move || {
                    (StatusCode::from_u16(status).unwrap(), [("location", "/elsewhere")]).into_response()
                })
                .await;
                assert!(matches!(send(&client).await, Verdict::Ambiguous { .. }));
                assert_eq!(log.only().path, "/v2/charges");
                assert_eq!(client.charge(&CHARGE.parse().unwrap()).await, ChargeLook::Failed);
                log.only();
            }
        }

        #[tokio::test]
        async fn a_body_over_the_bound_is_not_an_answer() {
            let mut charge = charge_json("Captured");
            charge["padding"] = json!("x".repeat(super::super::super::transport::MAX_BODY_BYTES));
            let (client, _log) = amazon_says(201, charge).await;
            assert!(matches!(send(&client).await, Verdict::Ambiguous { .. }));
            assert_eq!(client.charge(&CHARGE.parse().unwrap()).await, ChargeLook::Failed);
        }

        #[tokio::test]
        async fn the_skew_of_the_clocks_is_read_from_any_answer() {
            let (client, _log) =
                amazon(|| (StatusCode::NOT_FOUND, [("date", "Tue, 24 Nov 2020 01:00:00 GMT")]).into_response()).await;
            assert_eq!(client.clock_skew(), None);
            assert_eq!(client.charge(&CHARGE.parse().unwrap()).await, ChargeLook::Refused(404));
            let theirs: Timestamp = "2020-11-24T01:00:00Z".parse().unwrap();
            let expected = Clock::system().now().duration_since(theirs);
            let skew = client.clock_skew().unwrap();
            assert!((expected - skew).abs() < SignedDuration::from_secs(5), "{skew:?}");
            assert!(skew.is_positive(), "our clock is ahead");
        }

        #[tokio::test]
        async fn a_permission_is_seen_without_its_buyer() {
            let (client, log) = amazon_says(200, permission_json()).await;
            let Look::Seen(view) = client.charge_permission(&PERMISSION.parse().unwrap()).await else { panic!() };
            assert_eq!(view.id.as_str(), PERMISSION);
            assert!(view.instrument.is_some());
            let printed = format!("{view:?}");
            for private in ["Jane", "jane@", "Secret", "Visa", "4242"] {
                assert!(!printed.contains(private), "{private}: {printed}");
            }
            let seen = log.only();
            assert_eq!(
                (seen.method.as_str(), seen.path.clone()),
                ("GET", format!("/v2/chargePermissions/{PERMISSION}"))
            );
            assert_eq!(seen.header(signing::IDEMPOTENCY_KEY_HEADER), None);
            let (client, log) = amazon_says(200, charge_json("Declined")).await;
            assert!(matches!(client.charge(&CHARGE.parse().unwrap()).await, ChargeLook::Seen(_)));
            let get = log.only();
            assert!(get.body.is_empty());
            get.assert_signed();
        }

        #[tokio::test]
        async fn looks_that_show_nothing_say_why() {
            let error = json!({"reasonCode": "SomeReason"});
            for (status, look, charge) in [
                (400, Look::Failed, ChargeLook::Refused(400)),
                (401, Look::AccountFault, ChargeLook::AccountFault),
                (403, Look::AccountFault, ChargeLook::Refused(403)),
                (404, Look::NotFound, ChargeLook::Refused(404)),
                (429, Look::Failed, ChargeLook::Failed),
                (503, Look::Failed, ChargeLook::Failed),
                (200, Look::Failed, ChargeLook::Failed),
            ] {
                let (client, _log) = amazon_says(status, error.clone()).await;
                assert_eq!(client.charge_permission(&PERMISSION.parse().unwrap()).await, look, "{status}");
                assert_eq!(client.charge(&CHARGE.parse().unwrap()).await, charge, "{status}");
            }
        }

        #[tokio::test]
        async fn an_answer_about_another_object_or_without_a_state_is_no_answer() {
            let (client, _log) = amazon_says(200, permission_json()).await;
            assert_eq!(client.charge_permission(&"C01-9-9".parse().unwrap()).await, Look::Failed);
            let (client, _log) = amazon_says(200, charge_json("Captured")).await;
            assert_eq!(client.charge(&"C01-9-9-C1".parse().unwrap()).await, ChargeLook::Failed);
            let (client, _log) = amazon_says(200, json!({"chargeId": CHARGE})).await;
            assert_eq!(client.charge(&CHARGE.parse().unwrap()).await, ChargeLook::Failed);
        }

        #[tokio::test]
        async fn a_cancellation_is_a_signed_delete_with_a_reason() {
            let (client, log) = amazon_says(200, charge_json("Canceled")).await;
            assert_eq!(client.cancel_charge(&CHARGE.parse().unwrap(), "no longer due").await, CancelOutcome::Done);
            let seen = log.only();
            assert_eq!((seen.method.as_str(), seen.path.clone()), ("DELETE", format!("/v2/charges/{CHARGE}/cancel")));
            assert_eq!(seen.body, br#"{"cancellationReason":"no longer due"}"#);
            assert_eq!(seen.header(signing::IDEMPOTENCY_KEY_HEADER), None);
            seen.assert_signed();
            for (status, code, expected) in [
                (422, "InvalidChargeStatus", CancelOutcome::AlreadyFinal),
                (422, "InvalidChargePermissionStatus", CancelOutcome::Failed),
                (401, "UnauthorizedAccess", CancelOutcome::AccountFault),
                (403, "InvalidRequestSignature", CancelOutcome::AccountFault),
                (404, "ResourceNotFound", CancelOutcome::Failed),
                (503, "InvalidChargeStatus", CancelOutcome::Failed),
            ] {
                let (client, _log) = amazon_says(status, json!({"reasonCode": code})).await;
                assert_eq!(client.cancel_charge(&CHARGE.parse().unwrap(), "x").await, expected, "{status} {code}");
            }
        }

        #[tokio::test]
        async fn a_public_key_id_without_an_environment_puts_it_into_the_path() {
            let (base_url, log) = {
                let (client, log) = amazon_says(404, json!({})).await;
                (client.inner.base_url.clone(), log)
            };
            let client = client(ClientSettings { public_key_id: "AFLMNOP".to_owned(), ..settings(base_url) });
            assert_eq!(client.charge(&CHARGE.parse().unwrap()).await, ChargeLook::Refused(404));
            assert_eq!(log.only().path, format!("/sandbox/v2/charges/{CHARGE}"));
        }

        #[test]
        fn settings_that_could_reach_real_money_by_mistake_are_refused() {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let make = |change: &dyn Fn(&mut ClientSettings)| {
                let mut settings = settings("http://127.0.0.1:1".to_owned());
                change(&mut settings);
                AmazonPay::new(settings, Clock::system())
            };
            let live = |settings: &mut ClientSettings| {
                settings.account.environment = Environment::Live;
                settings.public_key_id = "LIVE-KEY".to_owned();
            };
            assert!(matches!(make(&live), Err(ClientError::BaseUrlInLive)));
            let foreign = make(&|settings| settings.public_key_id = "LIVE-KEY".to_owned());
            assert!(matches!(foreign, Err(ClientError::Environment(Environment::Sandbox))));
            for bad in ["", "a b", "a,b", "a=b", "ä"] {
                let client = make(&|settings| settings.public_key_id = bad.to_owned());
                assert!(matches!(client, Err(ClientError::PublicKeyId)), "{bad}");
            }
            let keyless = make(&|settings| settings.private_key_pem = SecretString::from("none"));
            assert!(matches!(keyless, Err(ClientError::Key(SigningError::NoKey))));

            let client = make(&|settings| {
                live(settings);
                settings.base_url = None;
            })
            .unwrap();
            assert_eq!(client.inner.base_url, "https://pay-api.amazon.eu");
            let simulated = client.sign_create_charge(&request(Some("SoftDeclined")), &"a".parse().unwrap(), 0);
            assert!(matches!(simulated, Err(ClientError::SimulationInLive)));
            assert!(client.sign_create_charge(&request(None), &"a".parse().unwrap(), 0).is_ok());
        }

        #[derive(Clone, Default)]
        struct Printed(Arc<Mutex<Vec<u8>>>);

        impl std::io::Write for Printed {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        #[tokio::test]
        async fn the_log_names_request_id_and_reason_and_no_body_key_or_buyer() {
            let mut body = permission_json();
            body["reasonCode"] = json!("SoftDeclined");
            body["message"] = json!("quoted to nobody");
            let (client, _log) = amazon(move || {
                let headers = [("x-amz-pay-request-id", "a1b2-c3")];
                (StatusCode::UNPROCESSABLE_ENTITY, headers, body.to_string()).into_response()
            })
            .await;
            let both = async || {
                assert_eq!(client.charge_permission(&PERMISSION.parse().unwrap()).await, Look::Failed);
                assert_eq!(send(&client).await, Verdict::Declined(Decline::SoftDeclined));
            };
            // tracing remembers for each log line of the process whether anybody listens. As long as one listener is alive, it asks
            // the thread that comes first, which may be another test's, without any. So: pass every line once, then install
            // ours next to a second that hears nothing; from then on it asks both.
            both().await;
            let printed = Printed::default();
            let sink = printed.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::DEBUG)
                .with_ansi(false)
                .with_writer(move || sink.clone())
                .finish();
            let _guard = tracing::subscriber::set_default(subscriber);
            let _second = tracing::Dispatch::new(tracing_subscriber::registry());
            both().await;
            let text = String::from_utf8(printed.0.lock().unwrap().clone()).unwrap();
            for wanted in ["get_charge_permission", "create_charge", "a1b2-c3", "SoftDeclined", "422", "duration_ms"] {
                assert!(text.contains(wanted), "{wanted}: {text}");
            }
            for private in ["quoted", "Jane", "Visa", "Signature=", "BEGIN", "customInformation", "sub-42"] {
                assert!(!text.contains(private), "{private}: {text}");
            }
        }

        #[test]
        fn nothing_secret_is_printed() {
            let client = client(settings("http://127.0.0.1:1".to_owned()));
            let printed = format!("{client:?} {:?} {:?}", signed(&client, None), settings(String::new()));
            for secret in ["BEGIN", "Signature=", "customInformation", PERMISSION] {
                assert!(!printed.contains(secret), "{printed}");
            }
        }
    }
}
