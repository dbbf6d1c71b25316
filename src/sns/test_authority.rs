//! A signer of SNS messages for tests: its own keys, certificates and signed text, independent of the code under test.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, PublicKeyData, SignatureAlgorithm, SigningKey};
use rsa::pkcs1::EncodeRsaPublicKey;
use rsa::{Pkcs1v15Sign, RsaPrivateKey};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::settings::SnsSettings;
use super::topic::TopicArn;

pub(crate) const NAME: &str = "sns.amazonaws.com";
pub(crate) const TOPIC: &str = "arn:aws:sns:us-east-1:291180941288:A3BXB0YN3XH17HA2K7NDRCTOTPW9";
pub(crate) const FILE: &str = "/SimpleNotificationService-7506a1e35b36ef5a444dd1a8e7cc3ed8.pem";
/// Shortly after the Timestamp of [`notification`].
pub(crate) const NOW: &str = "2026-03-06T20:00:00Z";

pub(crate) struct Key {
    private: RsaPrivateKey,
    public_der: Vec<u8>,
}

impl Key {
    fn generate(bits: usize) -> Self {
        let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).unwrap();
        let public_der = private.to_public_key().to_pkcs1_der().unwrap().into_vec();
        Self { private, public_der }
    }

    pub(crate) fn main() -> &'static Self {
        static KEY: OnceLock<Key> = OnceLock::new();
        KEY.get_or_init(|| Self::generate(2048))
    }

    pub(crate) fn other() -> &'static Self {
        static KEY: OnceLock<Key> = OnceLock::new();
        KEY.get_or_init(|| Self::generate(2048))
    }

    pub(crate) fn weak() -> &'static Self {
        static KEY: OnceLock<Key> = OnceLock::new();
        KEY.get_or_init(|| Self::generate(1024))
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public_der
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_RSA_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.private.sign(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(message)).unwrap())
    }
}

pub(crate) fn params(alternative_names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = alternative_names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

pub(crate) fn self_signed(params: &CertificateParams, key: &Key) -> String {
    pem(params.self_signed(key).unwrap().der())
}

pub(crate) fn issued(params: &CertificateParams, key: &Key, root: &CertificateParams, root_key: &Key) -> String {
    pem(params.signed_by(key, &Issuer::from_params(root, root_key)).unwrap().der())
}

/// The certificate that everything in order has.
pub(crate) fn good_certificate() -> String {
    self_signed(&params(&[NAME], NAME), Key::main())
}

pub(crate) fn pem(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

pub(crate) fn notification(base: &str) -> Value {
    json!({
        "Type": "Notification", "MessageId": "c0e5a280-53c9-5a98-93bb-c0a560b3d192", "TopicArn": TOPIC,
        "Message": "{\"a\":\"b\"}\nGrüße", "Timestamp": "2026-03-06T19:55:38.000Z", "SignatureVersion": "1",
        "SigningCertURL": format!("{base}{FILE}"),
        "UnsubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe"
    })
}

pub(crate) fn confirmation(base: &str, kind: &str) -> Value {
    let mut message = notification(base);
    message["Type"] = json!(kind);
    message["Token"] = json!("2336412f37fb687f5d51e6e2425929f52e8e");
    message["SubscribeURL"] = json!("https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription");
    message
}

/// Signs by the version that the message names.
pub(crate) fn signed(mut message: Value, key: &Key) -> Value {
    let fields: &[&str] = if message["Type"] == "Notification" {
        &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    } else {
        &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    };
    let text: String = fields
        .iter()
        .filter_map(|field| message.get(*field).and_then(Value::as_str).map(|value| format!("{field}\n{value}\n")))
        .collect();
    let signature = if message["SignatureVersion"] == "2" {
        key.private.sign(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(text.as_bytes()))
    } else {
        key.private.sign(Pkcs1v15Sign::new::<Sha1>(), &Sha1::digest(text.as_bytes()))
    };
    message["Signature"] = json!(BASE64.encode(&signature.unwrap()));
    message
}

pub(crate) fn settings(base: &str) -> SnsSettings {
    SnsSettings {
        max_message_age: std::time::Duration::from_hours(24),
        certificate_base_url: Some(base.to_owned()),
        ..SnsSettings::for_topics(vec![TOPIC.parse::<TopicArn>().unwrap()])
    }
}

/// A loopback server that counts its requests.
pub(crate) struct Host {
    pub(crate) base: String,
    hits: Arc<AtomicUsize>,
}

impl Host {
    pub(crate) async fn answering<A: IntoResponse>(answer: impl Fn() -> A + Clone + Send + Sync + 'static) -> Self {
        Self::start(move || {
            let response = answer().into_response();
            async move { response }
        })
        .await
    }

    pub(crate) async fn start<F>(answer: impl Fn() -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let hits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&hits);
        let router = Router::new().fallback(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            answer()
        });
        Self { base: serve(router).await, hits }
    }

    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

/// Serves on a free port of the loopback interface until the test's runtime ends.
pub(crate) async fn serve(router: Router) -> String {
    // Every test that talks HTTP comes by here, and the first one installs the provider for all.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}
