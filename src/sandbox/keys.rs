//! The sandbox's keys and certificates: the merchant's key pair, and a signing certificate such as SNS serves.
//!
//! RSA keys take a noticeable part of a second each, so all of them are made at most once per process.

use std::sync::OnceLock;

use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, date_time_ymd,
};
use rsa::RsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};
use rsa::rand_core::OsRng;
use rustls_pki_types::PrivatePkcs8KeyDer;
use sha2::{Digest, Sha256};

/// The name of the certificate that SNS signs with in the default regions.
pub(super) const CERTIFICATE_NAME: &str = "sns.amazonaws.com";

const BITS: usize = 2048;

/// A key or certificate that could not be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// The RSA key.
    #[error("expected a new RSA key, got: {0}")]
    Rsa(String),
    /// The certificate.
    #[error("expected a new certificate, got: {0}")]
    Certificate(String),
}

impl From<rcgen::Error> for KeyError {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error.to_string())
    }
}

/// A key that signs SNS messages, with the certificate that it serves for them.
pub(super) struct SnsIdentity {
    pub(super) key: RsaPrivateKey,
    /// The leaf only, as genuine SNS serves it.
    pub(super) leaf_pem: String,
    pub(super) anchor_pem: String,
    /// `SimpleNotificationService-<32 hex>.pem`.
    pub(super) file_name: String,
}

/// Everything that is made once per process.
pub(super) struct Keys {
    pub(super) merchant: RsaPrivateKey,
    pub(super) merchant_pem: String,
    pub(super) sns: SnsIdentity,
}

static FORGER: OnceLock<Result<SnsIdentity, KeyError>> = OnceLock::new();

/// The keys of this process.
pub(super) fn shared() -> Result<&'static Keys, KeyError> {
    static KEYS: OnceLock<Result<Keys, KeyError>> = OnceLock::new();
    KEYS.get_or_init(generate).as_ref().map_err(Clone::clone)
}

/// Somebody who can sign, has a certificate of the right name, but not from the trusted issuer.
pub(super) fn forger() -> Result<&'static SnsIdentity, KeyError> {
    let make = || {
        let key = new_key()?;
        identity(key.clone(), &key, "Forged CA")
    };
    FORGER.get_or_init(make).as_ref().map_err(Clone::clone)
}

/// The forger, if anything was forged yet.
pub(super) fn made_forger() -> Option<&'static SnsIdentity> {
    FORGER.get()?.as_ref().ok()
}

fn generate() -> Result<Keys, KeyError> {
    // The three are independent, so they are made side by side.
    let (merchant, leaf, issuer) = std::thread::scope(|scope| {
        let merchant = scope.spawn(new_key);
        let leaf = scope.spawn(new_key);
        let issuer = new_key();
        let died = |_| Err(KeyError::Rsa("the generating thread died".to_owned()));
        (merchant.join().unwrap_or_else(died), leaf.join().unwrap_or_else(died), issuer)
    });
    let merchant = merchant?;
    let merchant_pem =
        merchant.to_pkcs8_pem(LineEnding::LF).map_err(|error| KeyError::Rsa(error.to_string()))?.to_string();
    Ok(Keys { merchant, merchant_pem, sns: identity(leaf?, &issuer?, "Sandbox RSA 2048 CA")? })
}

fn new_key() -> Result<RsaPrivateKey, KeyError> {
    RsaPrivateKey::new(&mut OsRng, BITS).map_err(|error| KeyError::Rsa(error.to_string()))
}

/// rcgen on ring signs with RSA keys but cannot make them, hence the way through PKCS#8.
fn import(key: &RsaPrivateKey) -> Result<KeyPair, KeyError> {
    let der = key.to_pkcs8_der().map_err(|error| KeyError::Rsa(error.to_string()))?;
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der.as_bytes()), &PKCS_RSA_SHA256)?)
}

fn identity(key: RsaPrivateKey, issuer_key: &RsaPrivateKey, issuer_name: &str) -> Result<SnsIdentity, KeyError> {
    let mut anchor = params(issuer_name);
    anchor.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    anchor.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let issuer_key = import(issuer_key)?;
    let anchor_pem = anchor.self_signed(&issuer_key)?.pem();

    let mut leaf = params(CERTIFICATE_NAME);
    leaf.subject_alt_names = CertificateParams::new(vec![CERTIFICATE_NAME.to_owned()])?.subject_alt_names;
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&import(&key)?, &Issuer::new(anchor, issuer_key))?;

    let digest = HEXLOWER.encode(&Sha256::digest(leaf.der())[..16]);
    let file_name = format!("SimpleNotificationService-{digest}.pem");
    Ok(SnsIdentity { key, leaf_pem: leaf.pem(), anchor_pem, file_name })
}

/// Valid for decades: demo and tests move the clock by months.
fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params
}

#[cfg(test)]
mod tests {
    use x509_parser::pem::parse_x509_pem;

    use super::*;

    #[test]
    fn the_signing_certificate_looks_like_the_one_of_sns() {
        let sns = &shared().unwrap().sns;
        let (rest, leaf) = parse_x509_pem(sns.leaf_pem.as_bytes()).unwrap();
        assert!(rest.is_empty(), "one PEM block: the leaf only");
        let leaf = leaf.parse_x509().unwrap();
        let (_, anchor) = parse_x509_pem(sns.anchor_pem.as_bytes()).unwrap();
        let anchor = anchor.parse_x509().unwrap();

        leaf.verify_signature(Some(anchor.public_key())).unwrap();
        assert_eq!(leaf.issuer(), anchor.subject());
        assert_eq!(leaf.subject().to_string(), "CN=sns.amazonaws.com");
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert_eq!(format!("{:?}", names.value.general_names), "[DNSName(\"sns.amazonaws.com\")]");
        assert!(!leaf.basic_constraints().unwrap().unwrap().value.ca);
        assert!(leaf.extended_key_usage().unwrap().unwrap().value.server_auth);
        assert!(anchor.basic_constraints().unwrap().unwrap().value.ca);
    }

    #[test]
    fn the_keys_are_made_once() {
        assert!(std::ptr::eq(shared().unwrap(), shared().unwrap()));
        assert!(shared().unwrap().merchant_pem.starts_with("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn the_forger_has_the_right_name_and_the_wrong_issuer() {
        let (_, leaf) = parse_x509_pem(forger().unwrap().leaf_pem.as_bytes()).unwrap();
        let (_, anchor) = parse_x509_pem(shared().unwrap().sns.anchor_pem.as_bytes()).unwrap();
        let (leaf, anchor) = (leaf.parse_x509().unwrap(), anchor.parse_x509().unwrap());
        assert_eq!(leaf.subject().to_string(), "CN=sns.amazonaws.com");
        assert!(leaf.verify_signature(Some(anchor.public_key())).is_err());
    }
}
