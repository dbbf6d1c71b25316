//! What `rediss://` goes by: which certificates are believed, and what this service shows of itself. Nothing here switches a check off.

use redis::{ClientTlsConfig, TlsCertificates};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};
use secrecy::{ExposeSecret, SecretString};

/// How TLS to Redis is set; by default the system's roots and no certificate of our own.
#[derive(Debug, Clone, Default)]
pub struct TlsSettings {
    /// PEM: the only issuers believed, instead of the system's (`REDIS_CA_FILE`).
    pub ca_pem: Option<String>,
    /// What Redis is shown (`REDIS_CLIENT_CERTIFICATE_FILE`, `REDIS_CLIENT_KEY_FILE`).
    pub identity: Option<ClientIdentity>,
}

impl TlsSettings {
    /// For the client; `None` when everything is as by default.
    pub(super) fn certificates(&self) -> Option<TlsCertificates> {
        if self.ca_pem.is_none() && self.identity.is_none() {
            return None;
        }
        Some(TlsCertificates {
            client_tls: self.identity.as_ref().map(|identity| ClientTlsConfig {
                client_cert: identity.certificate_pem.as_bytes().to_vec(),
                client_key: identity.key_pem.expose_secret().as_bytes().to_vec(),
            }),
            root_cert: self.ca_pem.as_ref().map(|pem| pem.as_bytes().to_vec()),
        })
    }
}

/// A certificate of this service with its key; they belong together.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    certificate_pem: String,
    key_pem: SecretString,
}

/// Which of the two cannot be used, and why. Never holds a part of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityMistake {
    /// The certificate.
    Certificate(String),
    /// The key.
    Key(String),
}

impl ClientIdentity {
    /// Takes both, and tries them as the connection will use them.
    ///
    /// # Errors
    /// When one is not what it should be, or they do not belong together.
    pub fn new(certificate_pem: String, key_pem: SecretString) -> Result<Self, IdentityMistake> {
        let chain = certificates(&certificate_pem).map_err(IdentityMistake::Certificate)?;
        // What the parser says of a line may quote it; of a key nothing is quoted.
        let key = PrivateKeyDer::from_pem_slice(key_pem.expose_secret().as_bytes())
            .map_err(|_| IdentityMistake::Key("expected a private key, PEM".to_owned()))?;
        let provider = rustls::crypto::ring::default_provider();
        ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_root_certificates(RootCertStore::empty()))
            .and_then(|builder| builder.with_client_auth_cert(chain, key))
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    IdentityMistake::Key("is not the key of REDIS_CLIENT_CERTIFICATE_FILE".to_owned())
                }
                rustls::Error::InvalidCertificate(why) => IdentityMistake::Certificate(why.to_string()),
                _ => IdentityMistake::Key("expected an RSA, ECDSA or Ed25519 key that can sign".to_owned()),
            })?;
        Ok(Self { certificate_pem, key_pem })
    }
}

/// Whether a text is PEM of at least one certificate that can be a CA; the error says what is wrong.
///
/// # Errors
/// When it is not.
pub fn check_ca(pem: &str) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for (number, certificate) in (1..).zip(certificates(pem)?) {
        roots.add(certificate).map_err(|why| format!("certificate {number} in it cannot be used: {why}"))?;
    }
    Ok(())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err("expected at least one certificate, PEM".to_owned()),
    }
}
