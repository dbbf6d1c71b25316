//! What the verifier and the subscriber go by.

use std::time::Duration;

use super::topic::TopicArn;

/// How messages are judged. Nothing in it switches a check off; what moves the trust is for sandboxes and refused in a live
/// environment by `config`.
#[derive(Debug, Clone)]
pub struct SnsSettings {
    /// The topics whose messages are accepted; none if empty.
    pub topics: Vec<TopicArn>,
    /// The oldest message that is accepted, by its signed Timestamp. Must cover the sender's retries.
    pub max_message_age: Duration,
    /// Whether `SignatureVersion` 1 (SHA-1) is refused. The topic's owner chooses the version, so only after version 2 was seen.
    pub require_signature_v2: bool,
    /// Whether a certificate of an issuer that is not known here is turned away with 503 instead of being accepted.
    pub require_chain: bool,
    /// Intermediates that are known besides the bundled ones (PEM); they must lead to a root of Amazon.
    pub intermediates_pem: Option<Vec<u8>>,
    /// Replaces `https://sns.<region>.amazonaws.com` in certificate addresses. Sandboxes only.
    pub certificate_base_url: Option<String>,
    /// Replaces the name that certificates must bear. Sandboxes only.
    pub certificate_name: Option<String>,
    /// Certificates (PEM) instead of Amazon's: a signing certificate must be one of them or be issued by one. Sandboxes only.
    pub trust_anchors_pem: Option<Vec<u8>>,
    /// Replaces the SNS endpoint for confirming subscriptions. Sandboxes only.
    pub api_base_url: Option<String>,
}

impl SnsSettings {
    /// The oldest message that is accepted unless told otherwise: Amazon Pay is said to have repeated them for 14 days.
    pub const DEFAULT_MAX_MESSAGE_AGE: Duration = Duration::from_hours(15 * 24);

    /// How far ahead of our clock a message may be. Beyond it, it is our clock that is in doubt.
    pub const MAX_FUTURE: Duration = Duration::from_mins(5);

    /// The settings of a merchant who sets nothing but the topics.
    #[must_use]
    pub fn for_topics(topics: Vec<TopicArn>) -> Self {
        Self {
            topics,
            max_message_age: Self::DEFAULT_MAX_MESSAGE_AGE,
            require_signature_v2: false,
            require_chain: false,
            intermediates_pem: None,
            certificate_base_url: None,
            certificate_name: None,
            trust_anchors_pem: None,
            api_base_url: None,
        }
    }

    /// Whether something else than Amazon is trusted, as a sandbox needs it.
    #[must_use]
    pub fn trusts_a_sandbox(&self) -> bool {
        self.certificate_base_url.is_some() || self.certificate_name.is_some() || self.trust_anchors_pem.is_some()
    }
}
