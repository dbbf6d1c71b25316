//! Takes the queued notifications, signs or forges them, and posts them as SNS does: once, no redirects, and the status is
//! all that counts.

use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};

use super::sns::{
    self, Envelope, Forgery, Ipn, MessageType, NotificationType, ObjectType, SignatureVersion, SignedMessage,
};
use super::{Sandbox, SandboxError, keys};

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
pub(super) fn http_client(timeout: Duration) -> reqwest::Result<reqwest::Client> {
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
            builder.tls_backend_preconfigured(config).build()
        }
        Err(_) => builder.build(),
    }
}

/// Posting.
impl Sandbox {
    /// Posts a message and gives the status of the answer.
    ///
    /// # Errors
    /// If there was no answer within 15 seconds.
    pub async fn deliver(&self, url: &str, message: &SignedMessage) -> Result<u16, SandboxError> {
        let mut request = self.http().post(url).body(message.body.clone());
        for (name, value) in &message.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.map_err(|error| SandboxError::Delivery(error.to_string()))?;
        Ok(answer.status().as_u16())
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

    pub(super) fn new_http_client() -> Result<reqwest::Client, SandboxError> {
        http_client(TIMEOUT).map_err(|error| SandboxError::Delivery(error.to_string()))
    }
}

/// Taking, signing and forging.
impl Sandbox {
    /// Takes the notifications that wait to be sent, oldest first.
    #[must_use]
    pub fn notifications(&self) -> Vec<Ipn> {
        self.books(|books| books.outbox.drain(..).collect())
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
        self.notification(ipn, version, &self.0.topic_arn).seal(&self.0.app.keys.sns.key)
    }

    /// What SNS sends when somebody subscribes the endpoint.
    #[must_use]
    pub fn sign_subscription_confirmation(&self, version: SignatureVersion) -> SignedMessage {
        let message = format!(
            "You have chosen to subscribe to the topic {}.\nTo confirm the subscription, visit the SubscribeURL included \
             in this message.",
            self.0.topic_arn
        );
        self.other(MessageType::SubscriptionConfirmation, message, version)
    }

    /// What SNS sends when the subscription has ended.
    #[must_use]
    pub fn sign_unsubscribe_confirmation(&self, version: SignatureVersion) -> SignedMessage {
        let message = format!(
            "You have chosen to deactivate subscription {}.\nTo cancel this operation and restore the subscription, visit \
             the SubscribeURL included in this message.",
            self.0.topic_arn
        );
        self.other(MessageType::UnsubscribeConfirmation, message, version)
    }

    /// A message that must be refused.
    ///
    /// # Errors
    /// If the forger's key cannot be made.
    pub fn forge(&self, ipn: &Ipn, forgery: Forgery) -> Result<SignedMessage, SandboxError> {
        const STRANGER: &str = "A3URCZVLDMDI45";
        let version = SignatureVersion::V2;
        let genuine_key = &self.0.app.keys.sns.key;
        let envelope = self.notification(ipn, version, &self.0.topic_arn);
        Ok(match forgery {
            Forgery::OtherKey => envelope.seal(&keys::forger()?.key),
            Forgery::UntrustedCertificate => {
                let forger = keys::forger()?;
                let certificate_url = format!("{}/{}", self.0.base_url, forger.file_name);
                Envelope { certificate_url, ..envelope }.seal(&forger.key)
            }
            Forgery::ForeignTopic => {
                let topic = sns::topic_arn(self.0.app.region, STRANGER);
                self.notification(ipn, version, &topic).seal(genuine_key)
            }
            Forgery::ForeignMerchant => {
                let ipn = Ipn { merchant_id: STRANGER.to_owned(), ..ipn.clone() };
                self.notification(&ipn, version, &self.0.topic_arn).seal(genuine_key)
            }
            Forgery::Altered => {
                let sealed = envelope.seal(genuine_key);
                let body = sealed.body.replace(&ipn.notification_id, &sns::new_uuid());
                SignedMessage { body, ..sealed }
            }
        })
    }

    fn notification<'a>(&self, ipn: &Ipn, version: SignatureVersion, topic_arn: &'a str) -> Envelope<'a> {
        Envelope {
            kind: MessageType::Notification,
            topic_arn,
            message: ipn.message(),
            at: ipn.at,
            version,
            certificate_url: self.certificate_url(),
        }
    }

    fn other(&self, kind: MessageType, message: String, version: SignatureVersion) -> SignedMessage {
        let (at, certificate_url) = (self.0.app.clock.now(), self.certificate_url());
        let envelope = Envelope { kind, topic_arn: &self.0.topic_arn, message, at, version, certificate_url };
        envelope.seal(&self.0.app.keys.sns.key)
    }

    fn certificate_url(&self) -> String {
        format!("{}/{}", self.0.base_url, self.certificate_file_name())
    }
}
