//! RSA keys for the tests of this module, made at run time so that no private key lies in the repository.

use std::sync::OnceLock;

use rsa::RsaPrivateKey;
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};
use rsa::rand_core::OsRng;

/// One 2048-bit key for the whole test process.
pub(super) fn rsa_key() -> &'static RsaPrivateKey {
    static KEY: OnceLock<RsaPrivateKey> = OnceLock::new();
    KEY.get_or_init(|| RsaPrivateKey::new(&mut OsRng, 2048).unwrap())
}

/// The key as `BEGIN PRIVATE KEY`.
pub(super) fn pkcs8_pem() -> String {
    rsa_key().to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
}

/// The key as `BEGIN RSA PRIVATE KEY`.
pub(super) fn pkcs1_pem() -> String {
    rsa_key().to_pkcs1_pem(LineEnding::LF).unwrap().to_string()
}

/// A key that Amazon would never issue: 1024 bits.
pub(super) fn short_pem() -> String {
    RsaPrivateKey::new(&mut OsRng, 1024).unwrap().to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
}
