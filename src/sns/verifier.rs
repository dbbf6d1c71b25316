//! The verifier: every check of an SNS message in one sequence, and the only place that makes a [`Verified`].

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RsaParameters, UnparsedPublicKey,
};

use super::canonical::string_to_sign;
use super::certificate::{CertificateSource, CertificateUrl, FetchError, SigningCertificate, TrustAnchors, Web};
use super::envelope::Envelope;
use super::explanation::{Check, Explanation, Refused, RefusedClass, Step, Trail, shown};
use super::topic::TopicArn;
use crate::clock::Clock;

/// How far ahead of our clock a message may be. Beyond it, it is our clock that is in doubt.
const MAX_FUTURE: Duration = Duration::from_mins(5);
/// Bytes of an RSA signature by keys of 2048 to 8192 bits.
const SIGNATURE_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// What the verifier and the subscriber go by.
#[derive(Debug, Clone)]
pub struct SnsSettings {
    /// The topics whose messages are accepted; none if empty.
    pub topics: Vec<TopicArn>,
    /// The oldest message that is accepted, by its signed Timestamp. Must cover the sender's retries.
    pub max_message_age: Duration,
    /// Replaces `https://sns.<region>.amazonaws.com` in certificate addresses. Sandboxes only.
    pub certificate_base_url: Option<String>,
    /// Replaces the name that certificates must bear. Sandboxes only.
    pub certificate_name: Option<String>,
    /// Certificates one of which must have issued the signing certificate (PEM).
    pub trust_anchors_pem: Option<Vec<u8>>,
    /// Replaces the SNS endpoint for confirming subscriptions. Sandboxes only.
    pub api_base_url: Option<String>,
}

/// What the request's headers say. They are not signed, so nothing is decided in the message's favour by them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a> {
    /// `x-amz-sns-message-type`, if given.
    pub message_type: Option<&'a str>,
    /// Whether `x-amz-sns-rawdelivery` is `true`.
    pub raw_delivery: bool,
}

/// Something that came with a valid signature of SNS for an allow-listed topic. Only a [`Verifier`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Stands in for a verification in tests of what comes after it.
    #[cfg(test)]
    pub(crate) fn for_test(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Judges SNS messages.
#[derive(Debug)]
pub struct Verifier {
    settings: SnsSettings,
    clock: Clock,
    certificates: CertificateSource,
}

impl Verifier {
    /// A verifier that fetches certificates.
    ///
    /// # Errors
    ///
    /// [`SnsError`] if the settings contradict themselves or no HTTP client can be built.
    pub fn new(settings: SnsSettings, clock: Clock) -> Result<Self, SnsError> {
        // reqwest is built without a provider of its own and would panic.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(SnsError::NoCryptoProvider);
        }
        if let Some(base) = &settings.certificate_base_url {
            let url = reqwest::Url::parse(base).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            if url.is_none_or(|url| url.query().is_some() || url.fragment().is_some()) {
                return Err(SnsError::CertificateBaseUrl(base.clone()));
            }
        }
        let anchors = TrustAnchors::parse(settings.trust_anchors_pem.as_deref()).map_err(SnsError::TrustAnchors)?;
        let plain_http = settings.certificate_base_url.is_some();
        let web = Web::new(anchors, clock.clone(), plain_http).map_err(SnsError::Client)?;
        Ok(Self { settings, clock, certificates: CertificateSource::Web(Box::new(web)) })
    }

    /// A verifier that never fetches: messages must be signed by the given certificate (PEM), whatever their address for it.
    ///
    /// # Errors
    ///
    /// [`SnsError`] if the PEM holds no certificate, or the settings contradict themselves.
    pub fn with_certificate(settings: SnsSettings, clock: Clock, pem: &[u8]) -> Result<Self, SnsError> {
        let anchors = TrustAnchors::parse(settings.trust_anchors_pem.as_deref()).map_err(SnsError::TrustAnchors)?;
        let certificate = SigningCertificate::parse(pem, &anchors).map_err(SnsError::Certificate)?;
        Ok(Self { settings, clock, certificates: CertificateSource::Fixed(Arc::new(certificate)) })
    }

    /// Proves that a message is genuine, recent, and of an allow-listed topic.
    ///
    /// # Errors
    ///
    /// [`Refused`] by the first check that fails; its class says whether sending again can help.
    pub async fn verify(&self, headers: &Headers<'_>, body: &[u8]) -> Result<Verified<Envelope>, Refused> {
        self.judge(headers, body, &mut Trail::default()).await
    }

    /// Makes the same checks and says what each came to.
    pub async fn explain(&self, headers: &Headers<'_>, body: &[u8]) -> Explanation {
        let mut trail = Trail::default();
        let refused = self.judge(headers, body, &mut trail).await.err();
        Explanation { steps: trail.into_steps(), refused }
    }

    /// The one sequence of checks; the order is that of [`Check::ALL`].
    async fn judge(
        &self,
        headers: &Headers<'_>,
        body: &[u8],
        trail: &mut Trail,
    ) -> Result<Verified<Envelope>, Refused> {
        let envelope = parsed(headers, body, trail)?;
        let topic = self.allowed_topic(&envelope, trail)?;
        let url = self.certificate_url(&envelope, topic, trail)?;
        let algorithm = signature_algorithm(&envelope, trail)?;
        trail.add(self.age(&envelope))?;
        let signature = decoded_signature(&envelope, trail)?;
        let certificate = self.certificate(topic, &url, trail).await?;
        let key = UnparsedPublicKey::new(algorithm, certificate.key());
        let genuine = key.verify(string_to_sign(&envelope).as_bytes(), &signature).is_ok();
        trail.add(Step::judged(
            Check::Signature,
            genuine,
            RefusedClass::Forbidden,
            "a signature over exactly this message by the certificate's key",
            if genuine { "that signature" } else { "a signature of something else, or by another key" },
        ))?;
        Ok(Verified(envelope))
    }

    /// The configured topic that the message names. What follows is derived from the configured one.
    fn allowed_topic(&self, envelope: &Envelope, trail: &mut Trail) -> Result<&TopicArn, Refused> {
        let topic = self.settings.topics.iter().find(|topic| topic.as_str() == envelope.topic_arn);
        let expected = match self.settings.topics.as_slice() {
            [] => "no topic at all: none is allow-listed".to_owned(),
            [only] => only.to_string(),
            many => format!("one of the {} allow-listed topics", many.len()),
        };
        let found = shown(&envelope.topic_arn);
        trail.require(Check::Topic, RefusedClass::Forbidden, expected, found, topic)
    }

    fn certificate_url(
        &self,
        envelope: &Envelope,
        topic: &TopicArn,
        trail: &mut Trail,
    ) -> Result<CertificateUrl, Refused> {
        let prefix = CertificateUrl::expected_prefix(topic, self.settings.certificate_base_url.as_deref());
        let url = CertificateUrl::parse(&envelope.signing_cert_url, &prefix);
        let expected = format!("{prefix}<32 hex digits>.pem");
        let found = shown(&envelope.signing_cert_url);
        trail.require(Check::CertificateUrl, RefusedClass::Forbidden, expected, found, url)
    }

    fn age(&self, envelope: &Envelope) -> Step {
        let now = self.clock.now();
        let age = now.duration_since(envelope.timestamp);
        let (ahead, max_age) = (age.is_negative(), self.settings.max_message_age);
        let (ok, class) = if ahead {
            (age.unsigned_abs() <= MAX_FUTURE, RefusedClass::Unavailable)
        } else {
            (age.unsigned_abs() <= max_age, RefusedClass::Forbidden)
        };
        let expected = format!("at most {} before and {} after {now}", in_words(max_age), in_words(MAX_FUTURE));
        Step::judged(Check::Timestamp, ok, class, expected, envelope.timestamp_text.as_str())
    }

    async fn certificate(
        &self,
        topic: &TopicArn,
        url: &CertificateUrl,
        trail: &mut Trail,
    ) -> Result<Arc<SigningCertificate>, Refused> {
        let name = self.settings.certificate_name.clone().unwrap_or_else(|| topic.certificate_name());
        let obtained = self.certificates.obtain(url, &name).await;
        let (expected, found) = match (&self.certificates, &obtained) {
            (CertificateSource::Fixed(_), _) => ("the certificate that was given", "a PEM certificate".to_owned()),
            (_, Ok(_)) => ("a certificate at that address", "a PEM certificate".to_owned()),
            (_, Err(error)) => ("a certificate at that address", with_causes(error)),
        };
        let certificate =
            trail.require(Check::Certificate, RefusedClass::Unavailable, expected, found, obtained.ok())?;
        for step in certificate.judge(&name, self.clock.now()) {
            trail.add(step)?;
        }
        Ok(certificate)
    }
}

fn parsed(headers: &Headers<'_>, body: &[u8], trail: &mut Trail) -> Result<Envelope, Refused> {
    use RefusedClass::Malformed;
    let found =
        if headers.raw_delivery { "raw delivery, which carries no signature" } else { "no sign of raw delivery" };
    let expected = "a message in its SNS envelope";
    trail.add(Step::judged(Check::Delivery, !headers.raw_delivery, Malformed, expected, found))?;

    let parsed = Envelope::parse(body);
    let found = match &parsed {
        Ok(envelope) => format!("a {}", envelope.message_type().as_str()),
        Err(error) => shown(&error.to_string()),
    };
    let envelope = trail.require(Check::Envelope, Malformed, "a well-formed SNS message", found, parsed.ok())?;

    let kind = envelope.message_type().as_str();
    let agrees = headers.message_type.is_none_or(|header| header == kind);
    let found = headers.message_type.map_or_else(|| "no such header".to_owned(), shown);
    let expected = format!("the header x-amz-sns-message-type, if given, to say {kind}");
    trail.add(Step::judged(Check::MessageType, agrees, Malformed, expected, found))?;
    Ok(envelope)
}

/// Anything but the two known versions is refused; a default would let the sender choose.
fn signature_algorithm(envelope: &Envelope, trail: &mut Trail) -> Result<&'static RsaParameters, Refused> {
    let algorithm = match envelope.signature_version.as_str() {
        // Amazon Pay's topics sign with SHA-1, and only their owner can change it. Forging needs a second preimage.
        "1" => Some(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY),
        "2" => Some(&RSA_PKCS1_2048_8192_SHA256),
        _ => None,
    };
    let (expected, found) = ("1 (SHA-1) or 2 (SHA-256)", shown(&envelope.signature_version));
    trail.require(Check::SignatureVersion, RefusedClass::Malformed, expected, found, algorithm)
}

fn decoded_signature(envelope: &Envelope, trail: &mut Trail) -> Result<Vec<u8>, Refused> {
    let decoded = BASE64.decode(envelope.signature.as_bytes()).ok();
    let found =
        decoded.as_ref().map_or_else(|| "no strict Base64".to_owned(), |bytes| format!("{} bytes", bytes.len()));
    let signature = decoded.filter(|bytes| SIGNATURE_BYTES.contains(&bytes.len()));
    let expected = "Base64 of an RSA signature (256 to 1024 bytes)";
    trail.require(Check::SignatureEncoding, RefusedClass::Malformed, expected, found, signature)
}

fn in_words(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 2 * 86_400 => format!("{} days", seconds / 86_400),
        seconds if seconds >= 2 * 3600 => format!("{} hours", seconds / 3600),
        seconds if seconds >= 120 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    }
}

/// The error with its causes: reqwest's own text says no more than that a request failed.
fn with_causes(error: &FetchError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error).and_then(std::error::Error::source);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Why a verifier or a subscriber cannot be built from its settings.
#[derive(Debug, thiserror::Error)]
pub enum SnsError {
    /// The process has not chosen a TLS provider.
    #[error("no TLS provider is installed: main must install ring's")]
    NoCryptoProvider,
    /// The certificate base URL is no http(s) URL, or has a query or a fragment.
    #[error("not a base URL for certificates: {0:?}")]
    CertificateBaseUrl(String),
    /// The trust anchors hold something else than certificates.
    #[error("the trust anchors cannot be read")]
    TrustAnchors(#[source] FetchError),
    /// The given certificate is none.
    #[error("the certificate cannot be read")]
    Certificate(#[source] FetchError),
    /// The HTTP client cannot be built, for example for want of system roots.
    #[error("the HTTP client cannot be built")]
    Client(#[source] FetchError),
}
