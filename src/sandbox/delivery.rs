//! Takes the queued notifications, signs or forges them, and posts them as SNS does: once, no redirects, and the status is
//! all that counts.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};

use super::sns::{Forgery, Ipn, Letter, NotificationType, ObjectType, SignatureVersion, SignedMessage, Topic};
use super::{Sandbox, SandboxError};

/// In which order the queued notifications are posted. SNS promises none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOrder {
    /// Oldest first.
    InOrder,
    /// Newest first.
    Reversed,
}

/// SNS gives an endpoint 15 seconds.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A client for plain HTTP; every request on a connection of its own.
#[cfg(test)]
pub(super) fn http_client(timeout: Duration) -> reqwest::Result<reqwest::Client> {
    builder(timeout).build()
}

fn builder(timeout: Duration) -> reqwest::ClientBuilder {
    // No endpoint of a sandbox speaks TLS, but the client insists on a provider of cryptography: one without any roots.
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = reqwest::Client::builder()
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(0)
        .no_proxy();
    match ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
        Ok(config) => {
            let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            builder.tls_backend_preconfigured(config)
        }
        Err(_) => builder,
    }
}

/// Posts messages as SNS does.
#[derive(Debug, Clone)]
pub struct Courier(reqwest::Client);

impl Courier {
    /// To anywhere.
    ///
    /// # Errors
    /// If there can be no HTTP client.
    pub fn new() -> Result<Self, SandboxError> {
        Self::built(builder(TIMEOUT))
    }

    /// Where `host` is meant, to these addresses and no other.
    ///
    /// # Errors
    /// If there can be no HTTP client.
    pub fn bound_to(host: &str, addresses: &[SocketAddr]) -> Result<Self, SandboxError> {
        Self::built(builder(TIMEOUT).resolve_to_addrs(host, addresses))
    }

    fn built(builder: reqwest::ClientBuilder) -> Result<Self, SandboxError> {
        builder.build().map(Self).map_err(|error| SandboxError::Delivery(error.to_string()))
    }

    /// Posts a message and gives the status of the answer.
    ///
    /// # Errors
    /// If nobody listens, or there was no answer within 15 seconds.
    pub async fn deliver(&self, url: &str, message: &SignedMessage) -> Result<u16, SandboxError> {
        let mut request = self.0.post(url).body(message.body.clone());
        for (name, value) in &message.headers {
            request = request.header(name, value);
        }
        match request.send().await {
            Ok(answer) => Ok(answer.status().as_u16()),
            Err(error) if error.is_connect() => Err(SandboxError::NobodyListens(with_causes(&error))),
            Err(error) => Err(SandboxError::Delivery(with_causes(&error))),
        }
    }
}

/// The error with its causes: reqwest's own text says no more than that a request failed.
fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Posting.
impl Sandbox {
    /// Posts a message and gives the status of the answer.
    ///
    /// # Errors
    /// If there was no answer within 15 seconds.
    pub async fn deliver(&self, url: &str, message: &SignedMessage) -> Result<u16, SandboxError> {
        self.0.courier.deliver(url, message).await
    }

    /// Takes the queued notifications, signs each once and posts each `copies` times; gives the statuses in the order of
    /// posting.
    ///
    /// # Errors
    /// At the first message without an answer; it and those after it are queued again.
    pub async fn deliver_pending(
        &self,
        url: &str,
        order: DeliveryOrder,
        copies: usize,
        version: SignatureVersion,
    ) -> Result<Vec<u16>, SandboxError> {
        let mut ipns: Vec<Ipn> = self.notifications();
        if order == DeliveryOrder::Reversed {
            ipns.reverse();
        }
        let mut statuses = Vec::new();
        for (done, ipn) in ipns.iter().enumerate() {
            let message = self.sign(ipn, version);
            for _ in 0..copies {
                match self.deliver(url, &message).await {
                    Ok(status) => statuses.push(status),
                    Err(error) => {
                        self.requeue(&ipns[done..]);
                        return Err(error);
                    }
                }
            }
        }
        Ok(statuses)
    }
}

/// Taking, signing and forging.
impl Sandbox {
    /// Takes the notifications that wait to be sent, oldest first.
    #[must_use]
    pub fn notifications(&self) -> Vec<Ipn> {
        self.books(|books| books.outbox.drain(..).collect())
    }

    /// Keeps the newest so many notifications that wait to be sent.
    pub fn forget_notifications_over(&self, count: usize) {
        self.books(|books| {
            let over = books.outbox.len().saturating_sub(count);
            books.outbox.drain(..over);
        });
    }

    fn requeue(&self, ipns: &[Ipn]) {
        self.books(|books| books.outbox.extend(ipns.iter().cloned()));
    }

    /// A notification about any object, for example one that does not exist.
    #[must_use]
    pub fn ipn(&self, object: (ObjectType, &str), permission: &str, kind: NotificationType) -> Ipn {
        Ipn::new(&self.0.merchant_id, object, permission, kind, self.0.app.clock.now())
    }

    /// Signs a notification as a new SNS message.
    #[must_use]
    pub fn sign(&self, ipn: &Ipn, version: SignatureVersion) -> SignedMessage {
        self.topic().sign(&Letter::Notification(ipn.clone(), None), version)
    }

    /// What SNS sends when somebody subscribes the endpoint.
    #[must_use]
    pub fn sign_subscription_confirmation(&self, version: SignatureVersion) -> SignedMessage {
        self.topic().sign(&Letter::Subscription(self.0.app.clock.now()), version)
    }

    /// What SNS sends when the subscription has ended.
    #[must_use]
    pub fn sign_unsubscribe_confirmation(&self, version: SignatureVersion) -> SignedMessage {
        self.topic().sign(&Letter::Unsubscription(self.0.app.clock.now()), version)
    }

    /// A message that must be refused.
    ///
    /// # Errors
    /// If the forger's key cannot be made.
    pub fn forge(&self, ipn: &Ipn, forgery: Forgery) -> Result<SignedMessage, SandboxError> {
        Ok(self.topic().forge(&Letter::Notification(ipn.clone(), None), SignatureVersion::V2, forgery)?)
    }

    fn topic(&self) -> Topic<'_> {
        Topic { identity: &self.0.app.keys.sns, arn: &self.0.topic_arn, certificate_base_url: &self.0.base_url }
    }
}
