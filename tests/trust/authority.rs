//! Our own test authority: keys, signatures and certificates, made at run time so that no private key lies in the repository.
//!
//! Nothing here is shared with `src/sns`: another RSA library, the padding's prefixes from RFC 8017, the signed text from AWS's
//! documentation (`message.rs`).

use std::net::IpAddr;
use std::sync::LazyLock;

use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PublicKeyData, SanType, SignatureAlgorithm, SigningKey, date_time_ymd,
};
use rsa::pkcs1::EncodeRsaPublicKey;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};
use rsa::rand_core::OsRng;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::{BigUint, Pkcs1v15Sign, Pss, RsaPrivateKey};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

/// The name that certificates of the common regions bear.
pub const NAME: &str = "sns.amazonaws.com";

/// `DigestInfo` of RFC 8017 section 9.2, without the digest.
const SHA1_INFO: &[u8] = &[0x30, 0x21, 0x30, 0x09, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0, 4, 0x14];
const SHA1_INFO_WITHOUT_NULL: &[u8] = &[0x30, 0x1f, 0x30, 0x07, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 4, 0x14];
const SHA256_INFO: &[u8] = &[0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];
const SHA256_INFO_WITHOUT_NULL: &[u8] = &[0x30, 0x2f, 0x30, 0x0b, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 4, 0x20];
const SHA384_INFO: &[u8] = &[0x30, 0x41, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2, 5, 0, 4, 0x30];
const SHA512_INFO: &[u8] = &[0x30, 0x51, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3, 5, 0, 4, 0x40];
const MD5_INFO: &[u8] = &[0x30, 0x20, 0x30, 0x0c, 6, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 5, 5, 0, 4, 0x10];

/// How a text is signed. SNS uses the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
    Md5,
    PssSha1,
    PssSha256,
    /// The digest alone, without the name of its algorithm.
    BareSha256,
    /// The digest of the digest.
    TwiceSha256,
    /// The algorithm's parameters left out, which some verifiers tolerate.
    Sha1WithoutNull,
    Sha256WithoutNull,
    /// Bytes after the digest, which verifiers that parse the padding from the left overlook (CVE-2006-4339).
    Sha1WithGarbage,
    Sha256WithGarbage,
}

pub struct Key {
    private: RsaPrivateKey,
    public_der: Vec<u8>,
}

/// Every RSA key of the corpus.
pub struct Keys {
    /// SNS's.
    pub genuine: Key,
    /// Of somebody else.
    pub attacker: Key,
    /// The issuer's.
    pub root: Key,
    /// Too short.
    pub weak: Key,
    pub bits_3072: Key,
    pub bits_4096: Key,
    /// Of somebody else, and longer than SNS's.
    pub attacker_4096: Key,
}

/// Made once per process; the slow ones side by side.
pub fn keys() -> &'static Keys {
    static KEYS: LazyLock<Keys> = LazyLock::new(|| {
        let new = |bits| move || RsaPrivateKey::new(&mut OsRng, bits).expect("a key");
        std::thread::scope(|scope| {
            let [genuine, attacker, root, spare] = [2048; 4].map(|bits| scope.spawn(new(bits)));
            let [genuine, attacker, root, spare] =
                [genuine, attacker, root, spare].map(|key| key.join().expect("a key"));
            let primes = |keys: &[(&RsaPrivateKey, usize)]| -> Vec<BigUint> {
                keys.iter().flat_map(|(key, count)| key.primes()[..*count].to_vec()).collect()
            };
            Keys {
                bits_3072: Key::of_primes(primes(&[(&spare, 2), (&root, 1)])),
                bits_4096: Key::of_primes(primes(&[(&spare, 2), (&root, 2)])),
                attacker_4096: Key::of_primes(primes(&[(&spare, 2), (&attacker, 2)])),
                genuine: Key::from(genuine),
                attacker: Key::from(attacker),
                root: Key::from(root),
                weak: Key::from(new(1024)()),
            }
        })
    });
    &KEYS
}

impl From<RsaPrivateKey> for Key {
    fn from(private: RsaPrivateKey) -> Self {
        let public_der = private.to_public_key().to_pkcs1_der().expect("DER").into_vec();
        Self { private, public_der }
    }
}

impl Key {
    /// A long key of the primes of short ones: finding primes of 2048 bits takes many seconds, and no verifier can tell.
    fn of_primes(primes: Vec<BigUint>) -> Self {
        Self::from(RsaPrivateKey::from_primes(primes, BigUint::from(65_537_u32)).expect("a key"))
    }

    /// The private key as `BEGIN PRIVATE KEY`.
    pub fn pem(&self) -> String {
        self.private.to_pkcs8_pem(LineEnding::LF).expect("PEM").to_string()
    }

    /// The signature plus the modulus: congruent to it, so that `s^e mod n` is the same.
    pub fn beyond_modulus(&self, signature: &[u8]) -> Vec<u8> {
        (BigUint::from_bytes_be(signature) + self.private.n()).to_bytes_be()
    }

    pub fn sign(&self, scheme: Scheme, text: &[u8]) -> Vec<u8> {
        let pss = |padding: Pss, digest: &[u8]| self.private.sign_with_rng(&mut OsRng, padding, digest).expect("PSS");
        let sha256 = Sha256::digest(text);
        match scheme {
            Scheme::Sha1 => self.pkcs1(&[SHA1_INFO, &Sha1::digest(text)]),
            Scheme::Sha256 => self.pkcs1(&[SHA256_INFO, &sha256]),
            Scheme::Sha384 => self.pkcs1(&[SHA384_INFO, &Sha384::digest(text)]),
            Scheme::Sha512 => self.pkcs1(&[SHA512_INFO, &Sha512::digest(text)]),
            Scheme::Md5 => self.pkcs1(&[MD5_INFO, &md5::Md5::digest(text)]),
            Scheme::PssSha1 => pss(Pss::new::<Sha1>(), &Sha1::digest(text)),
            Scheme::PssSha256 => pss(Pss::new::<Sha256>(), &sha256),
            Scheme::BareSha256 => self.pkcs1(&[&sha256]),
            Scheme::TwiceSha256 => self.pkcs1(&[SHA256_INFO, &Sha256::digest(sha256)]),
            Scheme::Sha1WithoutNull => self.pkcs1(&[SHA1_INFO_WITHOUT_NULL, &Sha1::digest(text)]),
            Scheme::Sha256WithoutNull => self.pkcs1(&[SHA256_INFO_WITHOUT_NULL, &sha256]),
            Scheme::Sha1WithGarbage => self.pkcs1(&[SHA1_INFO, &Sha1::digest(text), &[0x5a; 64]]),
            Scheme::Sha256WithGarbage => self.pkcs1(&[SHA256_INFO, &sha256, &[0x5a; 64]]),
        }
    }

    /// The RSA operation on `00 01 ff .. ff 00` and the parts.
    fn pkcs1(&self, parts: &[&[u8]]) -> Vec<u8> {
        let padding = Pkcs1v15Sign { hash_len: None, prefix: Box::default() };
        self.private.sign(padding, &parts.concat()).expect("a signature")
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
        Ok(Key::sign(self, Scheme::Sha256, message))
    }
}

/// A certificate to be: as genuine ones are, unless something is said.
pub fn params() -> CertificateParams {
    named(&[NAME], NAME)
}

/// As [`params`], of other names. No alternative names at all if there are none.
pub fn named(alternative: &[&str], common: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = alternative
        .iter()
        .map(|name| match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*name).try_into().expect("ASCII")),
        })
        .collect();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    params.not_before = date_time_ymd(2025, 11, 10);
    params.not_after = date_time_ymd(2026, 10, 14);
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// The authority that issued the genuine certificate.
pub fn root_params() -> CertificateParams {
    let mut params = named(&[], "Amazon RSA 2048 M01 of the tests");
    params.not_before = date_time_ymd(2015, 10, 22);
    params.not_after = date_time_ymd(2040, 10, 22);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages = Vec::new();
    params
}

pub fn root_pem() -> String {
    pem(root_params().self_signed(&keys().root).expect("a root").der())
}

/// DER of a certificate that the root issued.
pub fn issued_der(params: &CertificateParams, key: &impl PublicKeyData) -> Vec<u8> {
    params.signed_by(key, &Issuer::from_params(&root_params(), &keys().root)).expect("a certificate").der().to_vec()
}

pub fn issued(params: &CertificateParams, key: &impl PublicKeyData) -> String {
    pem(&issued_der(params, key))
}

/// The name of the root as issuer, and somebody else's signature.
pub fn issued_by_impostor(params: &CertificateParams, key: &Key) -> String {
    let root = root_params();
    let impostor = Issuer::from_params(&root, &keys().attacker);
    pem(params.signed_by(key, &impostor).expect("a certificate").der())
}

pub fn self_signed(params: &CertificateParams, key: &Key) -> String {
    pem(params.self_signed(key).expect("a certificate").der())
}

/// Truly signed by the root, with SHA-1.
pub fn issued_with_sha1(params: &CertificateParams, key: &Key) -> String {
    const SHA256_WITH_RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b];
    let mut der = issued_der(params, key);
    let places: Vec<usize> =
        der.windows(9).enumerate().filter(|(_, found)| *found == SHA256_WITH_RSA).map(|(at, _)| at).collect();
    assert_eq!(places.len(), 2, "once in the signed part, once outside of it");
    for at in places {
        der[at + 8] = 5;
    }
    // The outer SEQUENCE has a header of 4 bytes; the signed part begins there, and tells its length in the same form.
    let signed_length = 4 + usize::from(der[6]) * 256 + usize::from(der[7]);
    assert_eq!(der[4..6], [0x30, 0x82]);
    let signature = keys().root.sign(Scheme::Sha1, &der[4..4 + signed_length]);
    let end = der.len() - signature.len();
    der[end..].copy_from_slice(&signature);
    pem(&der)
}

/// A key pair of another kind.
pub fn other_kind(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).expect("a key")
}

pub fn pem(der: &[u8]) -> String {
    labelled("CERTIFICATE", der)
}

pub fn labelled(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
