//! The verifier: every check of an SNS message in one sequence, and the only place that makes a [`Verified`].

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RsaParameters, UnparsedPublicKey,
};

use super::canonical::string_to_sign;
use super::certificate::chain::Authorities;
use super::certificate::source::{CertificateSource, FetchError, Web};
use super::certificate::{CertificateUrl, InvalidCertificate, SigningCertificate};
use super::envelope::Envelope;
use super::explanation::{Check, Explanation, Refused, RefusedClass, Trail, shown};
use super::settings::SnsSettings;
use super::topic::TopicArn;
use crate::clock::Clock;
use crate::telemetry::metric;

/// Bytes of an RSA signature by keys of 2048 to 8192 bits.
const SIGNATURE_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
const WELL_FORMED: &str = "a well-formed SNS message";

/// What the request's headers say. They are not signed, so nothing is decided in the message's favour by them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a> {
    /// `x-amz-sns-message-type`, if given.
    pub message_type: Option<&'a str>,
    /// `x-amz-sns-message-id`, if given.
    pub message_id: Option<&'a str>,
    /// `x-amz-sns-topic-arn`, if given.
    pub topic_arn: Option<&'a str>,
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
    topics: Topics,
    clock: Clock,
    certificates: CertificateSource,
}

/// Whose messages are let through to the signature.
#[derive(Debug)]
enum Topics {
    /// Those of the settings.
    Listed,
    /// Any of these regions, to find out which one is to be listed. Nothing may be done with such a message but to show its topic.
    AnyIn(&'static [&'static str]),
}

impl Verifier {
    /// A verifier that fetches certificates.
    ///
    /// # Errors
    ///
    /// [`SnsError`] if the settings contradict themselves or no HTTP client can be built.
    pub fn new(settings: SnsSettings, clock: Clock) -> Result<Self, SnsError> {
        let base = settings.certificate_base_url.as_deref();
        let web = Web::new(authorities(&settings)?, clock.clone(), base).map_err(SnsError::Fetching)?;
        for chain in SigningCertificate::CHAIN_LABELS {
            for version in ["1", "2"] {
                verified(chain, version).increment(0);
            }
        }
        Ok(Self { settings, topics: Topics::Listed, clock, certificates: CertificateSource::Web(Box::new(web)) })
    }

    /// A verifier that never fetches: messages must be signed by the given certificate (PEM), whatever their address for it.
    ///
    /// # Errors
    ///
    /// [`SnsError`] if the PEM holds no certificate, or the settings contradict themselves.
    pub fn with_certificate(settings: SnsSettings, clock: Clock, pem: &[u8]) -> Result<Self, SnsError> {
        let certificate = SigningCertificate::parse(pem, &authorities(&settings)?).map_err(SnsError::Certificate)?;
        let certificates = CertificateSource::Fixed(Arc::new(certificate));
        Ok(Self { settings, topics: Topics::Listed, clock, certificates })
    }

    /// A verifier that accepts every topic of `regions`, to learn which topic is the merchant's. What it verifies comes from *some*
    /// AWS account: show it to a person, and act on nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn learning(settings: SnsSettings, clock: Clock, regions: &'static [&'static str]) -> Result<Self, SnsError> {
        Ok(Self { topics: Topics::AnyIn(regions), ..Self::new(settings, clock)? })
    }

    /// Takes the certificate address of a message that was verified before (the journal keeps them) as known: it is fetched now, and
    /// later without regard to the budget that holds against floods of invented addresses.
    ///
    /// # Errors
    ///
    /// [`FetchError`] if the certificate cannot be had now. It is asked for again with the next message.
    pub async fn expect(&self, body: &[u8]) -> Result<(), FetchError> {
        let mut trail = Trail::unkept();
        let Ok(envelope) = parsed(&Headers::default(), body, &mut trail) else { return Ok(()) };
        let Ok(topic) = self.allowed_topic(&envelope, &mut trail) else { return Ok(()) };
        let Ok(url) = self.certificate_url(&envelope, &topic, &mut trail) else { return Ok(()) };
        self.certificates.expect(&url, &self.expected_name(&topic)).await
    }

    /// Proves that a message is genuine, recent, and of an allow-listed topic.
    ///
    /// # Errors
    ///
    /// [`Refused`] by the first check that fails; its class says whether sending again can help.
    pub async fn verify(&self, headers: &Headers<'_>, body: &[u8]) -> Result<Verified<Envelope>, Refused> {
        self.judge(headers, body, &mut Trail::unkept()).await
    }

    /// Makes the same checks and says what each came to.
    pub async fn explain(&self, headers: &Headers<'_>, body: &[u8]) -> Explanation {
        let mut trail = Trail::kept();
        let refused = self.judge(headers, body, &mut trail).await.err();
        trail.into_explanation(refused)
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
        let url = self.certificate_url(&envelope, &topic, trail)?;
        let algorithm = self.signature_algorithm(&envelope, trail)?;
        self.age(&envelope, trail)?;
        let signature = decoded_signature(&envelope, trail)?;
        let certificate = self.certificate(&topic, &url, trail).await?;
        let key = UnparsedPublicKey::new(algorithm, certificate.key());
        let genuine = key.verify(string_to_sign(&envelope).as_bytes(), &signature).is_ok();
        trail.judge(Check::Signature, genuine, RefusedClass::Forbidden, || {
            let found = if genuine { "that signature" } else { "a signature of something else, or by another key" };
            ("a signature over exactly this message by the certificate's key", found)
        })?;
        let (chain, version) = (certificate.chain_label(self.clock.now()), version_label(&envelope));
        verified(chain, version).increment(1);
        Ok(Verified(envelope))
    }

    /// The configured topic that the message names. What follows is derived from the configured one.
    fn allowed_topic(&self, envelope: &Envelope, trail: &mut Trail) -> Result<Cow<'_, TopicArn>, Refused> {
        if let Topics::AnyIn(regions) = self.topics {
            let topic = envelope.topic_arn.parse().ok();
            let topic = topic.filter(|topic: &TopicArn| regions.contains(&topic.region())).map(Cow::Owned);
            return trail.require(Check::Topic, RefusedClass::Forbidden, topic, || {
                (format!("any topic in {}", regions.join(" or ")), shown(&envelope.topic_arn))
            });
        }
        let topic = self.settings.topics.iter().find(|topic| topic.as_str() == envelope.topic_arn).map(Cow::Borrowed);
        trail.require(Check::Topic, RefusedClass::Forbidden, topic, || {
            let expected = match self.settings.topics.as_slice() {
                [] => "no topic at all: none is allow-listed".to_owned(),
                [only] => only.to_string(),
                many => format!("one of the {} allow-listed topics", many.len()),
            };
            (expected, shown(&envelope.topic_arn))
        })
    }

    fn certificate_url(
        &self,
        envelope: &Envelope,
        topic: &TopicArn,
        trail: &mut Trail,
    ) -> Result<CertificateUrl, Refused> {
        let prefix = CertificateUrl::expected_prefix(topic, self.settings.certificate_base_url.as_deref());
        let url = CertificateUrl::parse(&envelope.signing_cert_url, &prefix);
        trail.require(Check::CertificateUrl, RefusedClass::Forbidden, url, || {
            (format!("{prefix}<32 hex digits>.pem"), shown(&envelope.signing_cert_url))
        })
    }

    fn expected_name(&self, topic: &TopicArn) -> String {
        self.settings.certificate_name.clone().unwrap_or_else(|| topic.certificate_name())
    }

    /// Anything but the two known versions is refused; a default would let the sender choose.
    fn signature_algorithm(&self, envelope: &Envelope, trail: &mut Trail) -> Result<&'static RsaParameters, Refused> {
        let only_v2 = self.settings.require_signature_v2;
        let (algorithm, class) = match envelope.signature_version.as_str() {
            // Genuine, perhaps, and the operator may think better of it: SNS must send it again.
            "1" if only_v2 => (None, RefusedClass::Unavailable),
            // Amazon Pay's topics sign with SHA-1, and only their owner can change it. Forging needs a second preimage.
            "1" => (Some(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY), RefusedClass::Malformed),
            "2" => (Some(&RSA_PKCS1_2048_8192_SHA256), RefusedClass::Malformed),
            _ => (None, RefusedClass::Malformed),
        };
        trail.require(Check::SignatureVersion, class, algorithm, || {
            let expected =
                if only_v2 { "2 (SHA-256; REQUIRE_SIGNATURE_V2 is set)" } else { "1 (SHA-1) or 2 (SHA-256)" };
            (expected, shown(&envelope.signature_version))
        })
    }

    fn age(&self, envelope: &Envelope, trail: &mut Trail) -> Result<(), Refused> {
        let now = self.clock.now();
        let age = now.duration_since(envelope.timestamp);
        let (ahead, max_age) = (age.is_negative(), self.settings.max_message_age);
        let (ok, class) = if ahead {
            (age.unsigned_abs() <= SnsSettings::MAX_FUTURE, RefusedClass::Unavailable)
        } else {
            (age.unsigned_abs() <= max_age, RefusedClass::Forbidden)
        };
        trail.judge(Check::Timestamp, ok, class, || {
            let (before, after) = (in_words(max_age), in_words(SnsSettings::MAX_FUTURE));
            (format!("at most {before} before and {after} after {now}"), envelope.timestamp_text.as_str())
        })
    }

    async fn certificate(
        &self,
        topic: &TopicArn,
        url: &CertificateUrl,
        trail: &mut Trail,
    ) -> Result<Arc<SigningCertificate>, Refused> {
        let name = self.expected_name(topic);
        let obtained = self.certificates.obtain(url, &name).await;
        let error = obtained.as_ref().err().cloned();
        let certificate = trail.require(Check::Certificate, RefusedClass::Unavailable, obtained.ok(), || {
            match (&self.certificates, error) {
                (CertificateSource::Fixed(_), _) => ("the certificate that was given", "a PEM certificate".to_owned()),
                (_, None) => ("a certificate at that address", "a PEM certificate".to_owned()),
                (_, Some(error)) => ("a certificate at that address", with_causes(&error)),
            }
        })?;
        certificate.judge(&name, self.clock.now(), trail)?;
        if certificate.chain_label(self.clock.now()) != "unproven" {
            trail.chain_is_proven();
        }
        Ok(certificate)
    }
}

fn parsed(headers: &Headers<'_>, body: &[u8], trail: &mut Trail) -> Result<Envelope, Refused> {
    use RefusedClass::Malformed;
    trail.judge(Check::Delivery, !headers.raw_delivery, Malformed, || {
        let found =
            if headers.raw_delivery { "raw delivery, which carries no signature" } else { "no sign of raw delivery" };
        ("a message in its SNS envelope", found)
    })?;

    let envelope = match Envelope::parse(body) {
        Ok(envelope) => {
            trail.judge(Check::Envelope, true, Malformed, || {
                (WELL_FORMED, format!("a {}", envelope.message_type().as_str()))
            })?;
            envelope
        }
        Err(error) => {
            let found = || (WELL_FORMED, shown(&error.to_string()));
            return trail.require(Check::Envelope, Malformed, None, found);
        }
    };

    let kind = envelope.message_type().as_str();
    let pairs = [
        ("x-amz-sns-message-type", headers.message_type, kind),
        ("x-amz-sns-message-id", headers.message_id, envelope.message_id.as_str()),
        ("x-amz-sns-topic-arn", headers.topic_arn, envelope.topic_arn.as_str()),
    ];
    let odd =
        pairs.into_iter().find_map(|(name, header, body)| Some((name, header.filter(|text| *text != body)?, body)));
    trail.judge(Check::Headers, odd.is_none(), Malformed, || {
        odd.map_or_else(
            || ("headers that agree with the body, where they are given".to_owned(), "no disagreement".to_owned()),
            |(name, header, body)| (format!("the header {name} to say {}", shown(body)), shown(header)),
        )
    })?;
    Ok(envelope)
}

fn verified(chain: &'static str, version: &'static str) -> metrics::Counter {
    metrics::counter!(metric::SNS_VERIFIED, "chain" => chain, "signature_version" => version)
}

fn version_label(envelope: &Envelope) -> &'static str {
    if envelope.signature_version == "2" { "2" } else { "1" }
}

fn authorities(settings: &SnsSettings) -> Result<Authorities, SnsError> {
    match settings.trust_anchors_pem.as_deref() {
        Some(own) => Authorities::only(own),
        None => Authorities::amazon(settings.intermediates_pem.as_deref(), settings.require_chain),
    }
    .map_err(SnsError::TrustAnchors)
}

fn decoded_signature(envelope: &Envelope, trail: &mut Trail) -> Result<Vec<u8>, Refused> {
    let decoded = BASE64.decode(envelope.signature.as_bytes()).ok();
    let length = decoded.as_ref().map(Vec::len);
    let signature = decoded.filter(|bytes| SIGNATURE_BYTES.contains(&bytes.len()));
    trail.require(Check::SignatureEncoding, RefusedClass::Malformed, signature, || {
        let found = length.map_or_else(|| "no strict Base64".to_owned(), |length| format!("{length} bytes"));
        ("Base64 of an RSA signature (256 to 1024 bytes)", found)
    })
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
    /// The trust anchors or the intermediates hold something else than certificates.
    #[error("the trust anchors or intermediates cannot be read")]
    TrustAnchors(#[source] InvalidCertificate),
    /// The given certificate is none.
    #[error("the certificate cannot be read")]
    Certificate(#[source] InvalidCertificate),
    /// No certificate could ever be fetched: a wrong base URL, no TLS provider, no system roots.
    #[error("certificates cannot be fetched")]
    Fetching(#[source] FetchError),
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::test_authority::{
        FILE, Host, Key, NAME, NOW, confirmation, good_certificate, notification, params, self_signed, settings, signed,
    };
    use super::*;
    use RefusedClass::{Forbidden, Malformed, Unavailable};

    /// A host that no test ever asks: certificates are given.
    const BASE: &str = "http://127.0.0.1:9";

    fn at(time: &str) -> Clock {
        Clock::fixed(time.parse().unwrap())
    }

    fn with_certificate(pem: &str, time: &str) -> Verifier {
        Verifier::with_certificate(settings(BASE), at(time), pem.as_bytes()).unwrap()
    }

    fn offline() -> Verifier {
        with_certificate(&good_certificate(), NOW)
    }

    async fn outcome(verifier: &Verifier, message: &Value) -> Result<(), (RefusedClass, &'static str)> {
        let result = verifier.verify(&Headers::default(), message.to_string().as_bytes()).await;
        result.map(|_| ()).map_err(|refused| (refused.class(), refused.check()))
    }

    fn edited(field: &str, value: &str) -> Value {
        let mut message = signed(notification(BASE), Key::main());
        message[field] = json!(value);
        message
    }

    #[tokio::test]
    async fn genuine_messages_of_every_type_and_both_versions_are_verified() {
        let verifier = offline();
        for version in ["1", "2"] {
            for mut message in [
                notification(BASE),
                confirmation(BASE, "SubscriptionConfirmation"),
                confirmation(BASE, "UnsubscribeConfirmation"),
            ] {
                message["SignatureVersion"] = json!(version);
                assert_eq!(outcome(&verifier, &signed(message, Key::main())).await, Ok(()));
            }
            for subject in [json!("Grüße"), json!(""), Value::Null] {
                let mut message = notification(BASE);
                message["SignatureVersion"] = json!(version);
                message["Subject"] = subject;
                assert_eq!(outcome(&verifier, &signed(message, Key::main())).await, Ok(()));
            }
        }
    }

    #[tokio::test]
    async fn escapes_and_spacing_of_the_json_do_not_matter() {
        let message = signed(notification(BASE), Key::main());
        let pretty = format!("{message:#}").replace('ü', "\\u00fc").replace("{\\\"a", "\\u007b\\\"a");
        let verified = offline().verify(&Headers::default(), pretty.as_bytes()).await.unwrap();
        assert_eq!(verified.message, message["Message"].as_str().unwrap());
    }

    #[tokio::test]
    async fn headers_can_only_speak_against_a_message() {
        let (verifier, body) = (offline(), signed(notification(BASE), Key::main()).to_string());
        let id = "c0e5a280-53c9-5a98-93bb-c0a560b3d192";
        let right = Headers {
            message_type: Some("Notification"),
            message_id: Some(id),
            topic_arn: Some(super::super::test_authority::TOPIC),
            raw_delivery: false,
        };
        for (headers, check) in [
            (Headers::default(), None),
            (right, None),
            (Headers { message_type: Some("SubscriptionConfirmation"), ..right }, Some("headers")),
            (Headers { message_type: Some("notification"), ..right }, Some("headers")),
            (Headers { message_id: Some("9d2c5580-b61d-550c-8583-37a582870907"), ..right }, Some("headers")),
            (Headers { message_id: Some(""), ..right }, Some("headers")),
            (Headers { topic_arn: Some(TOPIC_OF_SOMEBODY_ELSE), ..right }, Some("headers")),
            (Headers { raw_delivery: true, ..right }, Some("delivery")),
        ] {
            let result = verifier.verify(&headers, body.as_bytes()).await;
            assert_eq!(result.as_ref().err().map(Refused::check), check, "{headers:?}");
            assert!(result.is_ok() || result.is_err_and(|refused| refused.class() == Malformed));
        }
    }

    #[tokio::test]
    async fn each_flaw_is_refused_by_its_check() {
        let verifier = offline();
        let long_ago = signed(edited("Timestamp", "2026-03-05T19:59:59.999Z"), Key::main());
        let just_so = signed(edited("Timestamp", "2026-03-05T20:00:00.000Z"), Key::main());
        let ahead = signed(edited("Timestamp", "2026-03-06T20:05:00.001Z"), Key::main());
        let slightly_ahead = signed(edited("Timestamp", "2026-03-06T20:05:00.000Z"), Key::main());
        let other_topic = TOPIC_OF_SOMEBODY_ELSE;
        for (message, expected) in [
            (edited("Message", "m"), Err((Forbidden, "signature"))),
            (signed(notification(BASE), Key::other()), Err((Forbidden, "signature"))),
            (signed(edited("TopicArn", other_topic), Key::main()), Err((Forbidden, "topic"))),
            (edited("SignatureVersion", "2"), Err((Forbidden, "signature"))),
            (long_ago, Err((Forbidden, "timestamp"))),
            (just_so, Ok(())),
            (ahead, Err((Unavailable, "timestamp"))),
            (slightly_ahead, Ok(())),
            (edited("MessageId", "1"), Err((Malformed, "envelope"))),
            (edited("SigningCertURL", "http://127.0.0.1:9/x.pem"), Err((Forbidden, "certificate_url"))),
        ] {
            assert_eq!(outcome(&verifier, &message).await, expected, "{message}");
        }
        for version in ["", "0", "3", "01", "1 ", "2\n", "SHA256"] {
            assert_eq!(
                outcome(&verifier, &edited("SignatureVersion", version)).await,
                Err((Malformed, "signature_version"))
            );
        }
        let genuine = signed(notification(BASE), Key::main())["Signature"].as_str().unwrap().to_owned();
        let unpadded = genuine.trim_end_matches('=').to_owned();
        for signature in
            ["", "%%%", "AAAA", &unpadded, &format!("{genuine}\n"), &genuine.replace('/', "_").replace('+', "-")]
        {
            let refused = outcome(&verifier, &edited("Signature", signature)).await;
            assert!(signature == genuine || refused == Err((Malformed, "signature_encoding")), "{signature}");
        }
    }

    const TOPIC_OF_SOMEBODY_ELSE: &str = "arn:aws:sns:us-east-1:291180941288:A3BXB0YN3XH17HA2K7NDRCTOTPW8";

    #[tokio::test]
    async fn an_empty_list_of_topics_accepts_none() {
        let settings = SnsSettings { topics: Vec::new(), ..settings(BASE) };
        let verifier = Verifier::with_certificate(settings, at(NOW), good_certificate().as_bytes()).unwrap();
        assert_eq!(outcome(&verifier, &signed(notification(BASE), Key::main())).await, Err((Forbidden, "topic")));
    }

    #[tokio::test]
    async fn the_certificates_host_is_the_configured_topics_and_no_trick_changes_it() {
        let settings = SnsSettings { certificate_base_url: None, ..settings(BASE) };
        let verifier = Verifier::with_certificate(settings, at(NOW), good_certificate().as_bytes()).unwrap();
        let host = "https://sns.us-east-1.amazonaws.com";
        assert_eq!(outcome(&verifier, &signed(notification(host), Key::main())).await, Ok(()));
        let file = FILE.strip_prefix('/').unwrap();
        let upper = FILE.replace("7506a1e3", "7506A1E3");
        for url in [
            format!("http://sns.us-east-1.amazonaws.com{FILE}"),
            format!("HTTPS://sns.us-east-1.amazonaws.com{FILE}"),
            format!("https://x@sns.us-east-1.amazonaws.com{FILE}"),
            format!("https://sns.us-east-1.amazonaws.com@evil.example{FILE}"),
            format!("https://sns.us-east-1.amazonaws.com:443{FILE}"),
            format!("https://sns.us-east-1.amazonaws.com.{FILE}"),
            format!("https://SNS.us-east-1.amazonaws.com{FILE}"),
            format!("https://sns.s3-us-west-2.amazonaws.com{FILE}"),
            format!("https://sns.us-west-2.amazonaws.com{FILE}"),
            format!("https://sns.us-east-1.amazonaws.com.cn{FILE}"),
            format!("https://sns.us-east-1.amazonaws.com.evil.example{FILE}"),
            format!("{host}{FILE}?a=.pem"),
            format!("{host}{FILE}#.pem"),
            format!("{host}{FILE}\n"),
            format!(" {host}{FILE}"),
            format!("{host}/{FILE}"),
            format!("{host}/../{file}"),
            format!("{host}/x/..{FILE}"),
            format!("{host}\\{file}"),
            format!("{host}/%53{}", file.strip_prefix('S').unwrap()),
            format!("{host}{}", FILE.replace("7506", "%37506")),
            format!("{host}{upper}"),
            format!("{host}{}", FILE.replace("7506a1e3", "7506a1e")),
            format!("{host}/SimpleNotificationService.pem"),
            format!("{host}{FILE}.pem"),
            String::new(),
        ] {
            let mut message = signed(notification(host), Key::main());
            message["SigningCertURL"] = json!(url);
            assert_eq!(outcome(&verifier, &message).await, Err((Forbidden, "certificate_url")), "{url:?}");
        }
    }

    #[tokio::test]
    async fn version_1_can_be_turned_away_and_may_be_sent_again() {
        let settings = SnsSettings { require_signature_v2: true, ..settings(BASE) };
        let verifier = Verifier::with_certificate(settings, at(NOW), good_certificate().as_bytes()).unwrap();
        for (version, expected) in [
            ("1", Err((Unavailable, "signature_version"))),
            ("2", Ok(())),
            ("3", Err((Malformed, "signature_version"))),
        ] {
            assert_eq!(outcome(&verifier, &signed(edited("SignatureVersion", version), Key::main())).await, expected);
        }
    }

    #[tokio::test]
    async fn a_certificate_of_an_unknown_issuer_is_accepted_unless_a_chain_is_required() {
        let message = signed(notification(BASE), Key::main());
        for (require_chain, expected) in [(false, Ok(())), (true, Err((Unavailable, "certificate_chain")))] {
            let settings = SnsSettings { require_chain, ..settings(BASE) };
            let verifier = Verifier::with_certificate(settings, at(NOW), good_certificate().as_bytes()).unwrap();
            assert_eq!(outcome(&verifier, &message).await, expected);
        }
    }

    #[tokio::test]
    async fn a_learning_verifier_takes_any_topic_of_its_regions_and_nothing_else_is_laxer() {
        let settings = || SnsSettings { topics: Vec::new(), ..settings(BASE) };
        let host = Host::answering(good_certificate).await;
        let base = Some(host.base.clone());
        let settings = || SnsSettings { certificate_base_url: base.clone(), ..settings() };
        let verifier = Verifier::learning(settings(), at(NOW), &["us-east-1"]).unwrap();
        let with_topic = |topic: &str| {
            let mut message = notification(&host.base);
            message["TopicArn"] = json!(topic);
            signed(message, Key::main())
        };
        assert_eq!(outcome(&verifier, &with_topic(TOPIC_OF_SOMEBODY_ELSE)).await, Ok(()));
        let fetched = host.hits();
        for topic in [
            TOPIC_OF_SOMEBODY_ELSE.replace("us-east-1", "eu-west-1"),
            TOPIC_OF_SOMEBODY_ELSE.replace("us-east-1", "us-east-1.evil.test/"),
            "arn:x".to_owned(),
        ] {
            assert_eq!(outcome(&verifier, &with_topic(&topic)).await, Err((Forbidden, "topic")), "{topic}");
        }
        let mut altered = with_topic(TOPIC_OF_SOMEBODY_ELSE);
        altered["Message"] = json!("altered");
        assert_eq!(outcome(&verifier, &altered).await, Err((Forbidden, "signature")));
        assert_eq!(host.hits(), fetched);
    }

    #[tokio::test]
    async fn what_was_verified_before_is_fetched_ahead_and_nothing_else() {
        let host = Host::answering(good_certificate).await;
        let verifier = Verifier::new(settings(&host.base), at(NOW)).unwrap();
        let mut foreign = notification(&host.base);
        foreign["TopicArn"] = json!(TOPIC_OF_SOMEBODY_ELSE);
        let mut elsewhere = notification(&host.base);
        elsewhere["SigningCertURL"] = json!(format!("{}/other.pem", host.base));
        for body in [signed(foreign, Key::main()), signed(elsewhere, Key::main()), json!({})] {
            verifier.expect(body.to_string().as_bytes()).await.unwrap();
        }
        assert_eq!(host.hits(), 0);
        let body = signed(notification(&host.base), Key::main());
        verifier.expect(body.to_string().as_bytes()).await.unwrap();
        assert_eq!(host.hits(), 1);
        assert_eq!(outcome(&verifier, &body).await, Ok(()));
        assert_eq!(host.hits(), 1);
    }

    #[tokio::test]
    async fn each_topic_has_the_host_of_its_own_region() {
        let elsewhere = "arn:aws:sns:eu-west-1:291180941288:A1G8446IYHA4MRA36VZZYZOVN3S6";
        let mut settings = SnsSettings { certificate_base_url: None, ..settings(BASE) };
        settings.topics.push(elsewhere.parse().unwrap());
        let verifier = Verifier::with_certificate(settings, at(NOW), good_certificate().as_bytes()).unwrap();
        for (host, expected) in [
            ("https://sns.eu-west-1.amazonaws.com", Ok(())),
            ("https://sns.us-east-1.amazonaws.com", Err((Forbidden, "certificate_url"))),
        ] {
            let mut message = notification(host);
            message["TopicArn"] = json!(elsewhere);
            assert_eq!(outcome(&verifier, &signed(message, Key::main())).await, expected, "{host}");
        }
    }

    #[tokio::test]
    async fn a_failed_fetch_may_pass_and_a_wrong_certificate_does_not() {
        let absent = Host::answering(|| axum::http::StatusCode::NOT_FOUND).await;
        let verifier = Verifier::new(settings(&absent.base), at(NOW)).unwrap();
        let message = signed(notification(&absent.base), Key::main());
        assert_eq!(outcome(&verifier, &message).await, Err((Unavailable, "certificate")));

        let pem = self_signed(&params(&["sns.test"], "sns.test"), Key::main());
        let sandbox = Host::answering(move || pem.clone()).await;
        let message = signed(notification(&sandbox.base), Key::main());
        let verifier = Verifier::new(settings(&sandbox.base), at(NOW)).unwrap();
        assert_eq!(outcome(&verifier, &message).await, Err((Forbidden, "certificate_name")));
        let renamed = SnsSettings { certificate_name: Some("sns.test".to_owned()), ..settings(&sandbox.base) };
        let verifier = Verifier::new(renamed, at(NOW)).unwrap();
        assert_eq!(outcome(&verifier, &message).await, Ok(()));
    }

    #[tokio::test]
    async fn text_cannot_be_shifted_from_the_message_into_another_field() {
        // Both have the same signed text; without the grammar of the identifiers one signature would serve for both.
        let (first, second) = ("c0e5a280-53c9-5a98-93bb-c0a560b3d192", "9d2c5580-b61d-550c-8583-37a582870907");
        let mut published = notification(BASE);
        published["Message"] = json!(format!("foo\nMessageId\n{first}\nSubject\nbar"));
        published["MessageId"] = json!(second);
        let published = signed(published, Key::main());
        let mut shifted = published.clone();
        shifted["Message"] = json!("foo");
        shifted["MessageId"] = json!(first);
        shifted["Subject"] = json!(format!("bar\nMessageId\n{second}"));
        let verifier = offline();
        assert_eq!(outcome(&verifier, &published).await, Ok(()));
        assert_eq!(outcome(&verifier, &shifted).await, Err((Malformed, "envelope")));
    }

    #[tokio::test]
    async fn a_certificate_must_be_valid_at_the_time_of_use() {
        let mut dated = params(&[NAME], NAME);
        dated.not_before = rcgen::date_time_ymd(2026, 3, 1);
        dated.not_after = rcgen::date_time_ymd(2026, 3, 7);
        let pem = self_signed(&dated, Key::main());
        for (now, published, expected) in [
            (NOW, "2026-03-06T19:55:38.000Z", Ok(())),
            ("2026-03-07T00:00:01Z", "2026-03-06T19:55:38.000Z", Err((Forbidden, "certificate_validity"))),
            ("2026-02-28T23:59:59Z", "2026-02-28T23:59:59.000Z", Err((Unavailable, "certificate_validity"))),
        ] {
            let mut message = notification(BASE);
            message["Timestamp"] = json!(published);
            let message = signed(message, Key::main());
            assert_eq!(outcome(&with_certificate(&pem, now), &message).await, expected, "{now}");
        }
    }

    #[tokio::test]
    async fn an_explanation_shows_every_check_and_agrees_with_the_verdict() {
        let (verifier, headers) = (offline(), Headers::default());
        let genuine = signed(notification(BASE), Key::main()).to_string();
        let explanation = verifier.explain(&headers, genuine.as_bytes()).await;
        assert!(explanation.refused.is_none() && explanation.steps.iter().all(crate::sns::Step::passed));
        assert!(explanation.steps.iter().map(|step| step.check).eq(Check::ALL));

        for forged in [edited("Message", "m"), edited("Signature", "x"), edited("TopicArn", "arn:x"), json!(null)] {
            let explanation = verifier.explain(&headers, forged.to_string().as_bytes()).await;
            let result = verifier.verify(&headers, forged.to_string().as_bytes()).await;
            assert_eq!(explanation.refused, result.err());
            assert!(explanation.steps.iter().map(|step| step.check).eq(Check::ALL));
            let failed = explanation.steps.iter().find(|step| !step.passed()).unwrap();
            assert_eq!(Some(failed.check.as_str()), explanation.refused.as_ref().map(Refused::check));
        }
    }

    #[tokio::test]
    async fn nothing_is_fetched_for_a_message_that_is_refused_without_a_certificate() {
        let pem = good_certificate();
        let host = Host::answering(move || pem.clone()).await;
        let verifier = Verifier::new(settings(&host.base), at(NOW)).unwrap();
        let sound = signed(notification(&host.base), Key::main());
        for (field, value) in [
            ("MessageId", "1"),
            ("Type", "Other"),
            ("TopicArn", TOPIC_OF_SOMEBODY_ELSE),
            ("SigningCertURL", "x"),
            ("SignatureVersion", "3"),
            ("Timestamp", "2026-01-06T19:55:38.000Z"),
            ("Timestamp", "2026-04-06T19:55:38.000Z"),
            ("Signature", "%%%"),
        ] {
            let mut message = sound.clone();
            message[field] = json!(value);
            assert!(outcome(&verifier, &message).await.is_err(), "{field}");
        }
        let raw = Headers { raw_delivery: true, ..Headers::default() };
        assert!(verifier.verify(&raw, sound.to_string().as_bytes()).await.is_err());
        let headers = Headers { message_type: Some("UnsubscribeConfirmation"), ..Headers::default() };
        assert!(verifier.verify(&headers, sound.to_string().as_bytes()).await.is_err());
        assert_eq!(host.hits(), 0);
        assert_eq!(outcome(&verifier, &sound).await, Ok(()));
        assert_eq!(host.hits(), 1);
    }

    #[tokio::test]
    async fn concurrent_and_later_messages_share_one_fetch() {
        let gate = Arc::new(tokio::sync::Notify::new());
        let (held, pem) = (Arc::clone(&gate), good_certificate());
        let host = Host::start(move || {
            let (held, pem) = (Arc::clone(&held), pem.clone());
            async move {
                held.notified().await;
                axum::response::IntoResponse::into_response(pem)
            }
        })
        .await;
        let verifier = Arc::new(Verifier::new(settings(&host.base), at(NOW)).unwrap());
        let message = signed(notification(&host.base), Key::main());
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (verifier, message) = (Arc::clone(&verifier), message.clone());
            running.spawn(async move { outcome(&verifier, &message).await });
        }
        // One permit: a second request would find no answer and time out.
        gate.notify_one();
        while let Some(verified) = running.join_next().await {
            assert_eq!(verified.unwrap(), Ok(()));
        }
        assert_eq!(outcome(&verifier, &message).await, Ok(()));
        assert_eq!(host.hits(), 1);
    }

    #[tokio::test]
    async fn settings_that_contradict_themselves_are_refused() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for base in ["", "sns.test", "ftp://sns.test", "http://sns.test/?a=b", "http://sns.test/#x"] {
            assert!(
                matches!(Verifier::new(settings(base), at(NOW)), Err(SnsError::Fetching(FetchError::BaseUrl(_)))),
                "{base}"
            );
        }
        let settings = SnsSettings { trust_anchors_pem: Some(b"none".to_vec()), ..settings(BASE) };
        assert!(matches!(Verifier::new(settings.clone(), at(NOW)), Err(SnsError::TrustAnchors(_))));
        assert!(Verifier::with_certificate(settings, at(NOW), good_certificate().as_bytes()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_single_change_to_a_signed_field_is_refused(
            kind in 0_usize..4, field in 0_usize..7, position in any::<prop::sample::Index>(),
            replacement in proptest::option::of(any::<char>()), insert in any::<bool>(), version in "[12]",
        ) {
            let (mut message, fields): (Value, &[&str]) = match kind {
                0 | 1 => (notification(BASE), &["Message", "MessageId", "Timestamp", "TopicArn", "Type", "Subject"]),
                2 => (confirmation(BASE, "SubscriptionConfirmation"),
                    &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]),
                _ => (confirmation(BASE, "UnsubscribeConfirmation"),
                    &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]),
            };
            if kind == 1 { message["Subject"] = json!("a subject") }
            message["SignatureVersion"] = json!(version);
            let genuine = signed(message, Key::main());
            let field = fields[field % fields.len()];
            let mut text: Vec<char> = genuine.get(field).and_then(Value::as_str).unwrap_or_default().chars().collect();
            let place = position.index(text.len() + 1);
            if insert || place == text.len() {
                text.insert(place, replacement.unwrap_or('x'));
            } else if let Some(replacement) = replacement {
                text[place] = replacement;
            } else {
                text.remove(place);
            }
            let mut changed = genuine.clone();
            changed[field] = json!(text.into_iter().collect::<String>());
            prop_assume!(changed != genuine);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let verifier = offline();
            prop_assert_eq!(runtime.block_on(outcome(&verifier, &genuine)), Ok(()));
            prop_assert!(runtime.block_on(outcome(&verifier, &changed)).is_err());
        }
    }
}
