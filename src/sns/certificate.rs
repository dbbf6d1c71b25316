//! The signing certificate: which address it may have, and what it must be. How it is come by is in [`source`].
//!
//! The address is compared on the raw string, because URL parsers disagree about userinfo, case, dots and escapes. Who issued it
//! is in [`chain`].

pub(super) mod chain;
pub(super) mod host;
pub(super) mod source;

use jiff::Timestamp;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{GeneralName, Pem, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::explanation::{Check, Refused, RefusedClass, Trail, shown};
use super::topic::TopicArn;
use chain::{Authorities, Chain, UnknownIssuer};

/// What 112 bits of security need, and the least that ring verifies.
const MIN_RSA_BITS: usize = 2048;

/// The address of a signing certificate, of the one form that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertificateUrl(String);

impl CertificateUrl {
    /// What addresses for messages of `topic` must begin with. `base` replaces the origin, in sandboxes only.
    pub(super) fn expected_prefix(topic: &TopicArn, base: Option<&str>) -> String {
        let origin = base.map_or_else(|| format!("https://{}", topic.certificate_host()), str::to_owned);
        format!("{}/SimpleNotificationService-", origin.trim_end_matches('/'))
    }

    /// Reads an address: exactly the prefix, 32 lower-case hex digits, `.pem`.
    pub(super) fn parse(text: &str, prefix: &str) -> Option<Self> {
        let digits = text.strip_prefix(prefix)?.strip_suffix(".pem")?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digits.len() == 32 && digits.bytes().all(hex)).then(|| Self(text.to_owned()))
    }
}

/// What is to be known of a certificate.
#[derive(Debug)]
pub(super) struct SigningCertificate {
    names: Vec<String>,
    is_authority: bool,
    /// DER of the RSA public key and its length; `None` if the key is not RSA.
    key: Option<(Vec<u8>, usize)>,
    algorithm: Algorithm,
    issuer: String,
    chain: Chain,
    /// What an unknown issuer means.
    unknown_issuer: UnknownIssuer,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// The algorithm that the certificate itself is signed with.
#[derive(Debug)]
struct Algorithm {
    name: String,
    is_sound: bool,
}

impl SigningCertificate {
    /// Reads the first PEM block; whatever follows it is no leaf and is ignored.
    pub(super) fn parse(pem: &[u8], authorities: &Authorities) -> Result<Self, InvalidCertificate> {
        let not_one = InvalidCertificate::because;
        let block = Pem::iter_from_buffer(pem)
            .next()
            .ok_or_else(|| not_one(&"no PEM block"))?
            .map_err(|error| not_one(&error))?;
        if block.label != "CERTIFICATE" {
            return Err(not_one(&format_args!("a PEM block {}", block.label)));
        }
        let (rest, leaf) = x509_parser::parse_x509_certificate(&block.contents).map_err(|error| not_one(&error))?;
        if !rest.is_empty() {
            return Err(not_one(&"bytes after the certificate"));
        }
        let key = match leaf.public_key().parsed() {
            Ok(PublicKey::RSA(rsa)) => {
                Some((leaf.public_key().subject_public_key.data.to_vec(), bit_length(rsa.modulus)))
            }
            _ => None,
        };
        let authority = leaf.basic_constraints().map_err(|error| not_one(&error))?.is_some_and(|found| found.value.ca)
            || leaf.key_usage().map_err(|error| not_one(&error))?.is_some_and(|found| found.value.key_cert_sign());
        Ok(Self {
            names: names(&leaf).map_err(|error| not_one(&error))?,
            is_authority: authority,
            key,
            algorithm: Algorithm::of(&leaf),
            issuer: leaf.issuer().to_string(),
            chain: authorities.chain(&leaf, &block.contents),
            unknown_issuer: authorities.unknown(),
            not_before: timestamp(leaf.validity().not_before.timestamp()),
            not_after: timestamp(leaf.validity().not_after.timestamp()),
        })
    }

    /// Every requirement on the certificate, judged at `now`. This is made at each use, not only when it is fetched.
    pub(super) fn judge(&self, expected_name: &str, now: Timestamp, trail: &mut Trail) -> Result<(), Refused> {
        use RefusedClass::{Forbidden, Unavailable};
        let is_named = self.names.iter().any(|name| name == expected_name);
        trail.judge(Check::CertificateName, is_named, Forbidden, || (expected_name, shown(&self.names.join(", "))))?;
        let signs_messages = !self.is_authority || self.chain == Chain::Pinned;
        trail.judge(Check::CertificateUse, signs_messages, Forbidden, || {
            ("no certificate authority", if self.is_authority { "a certificate authority" } else { "an end entity" })
        })?;
        let key_bits = self.key.as_ref().map(|(_, bits)| *bits);
        trail.judge(Check::CertificateKey, key_bits.is_some_and(|bits| bits >= MIN_RSA_BITS), Forbidden, || {
            let found = key_bits.map_or_else(|| "another kind of key".to_owned(), |bits| format!("RSA, {bits} bits"));
            (format!("an RSA key of at least {MIN_RSA_BITS} bits"), found)
        })?;
        trail.judge(Check::CertificateAlgorithm, self.algorithm.is_sound, Forbidden, || {
            ("to be signed by RSA or ECDSA with SHA-256 or better", self.algorithm.name.as_str())
        })?;
        self.judge_chain(now, trail)?;
        // A certificate from the future points at our own clock: that may pass, so the message must come again.
        let class = if now < self.not_before { Unavailable } else { Forbidden };
        trail.judge(Check::CertificateValidity, self.not_before <= now && now <= self.not_after, class, || {
            (format!("to be valid at {now}"), format!("valid from {} to {}", self.not_before, self.not_after))
        })
    }

    fn judge_chain(&self, now: Timestamp, trail: &mut Trail) -> Result<(), Refused> {
        use RefusedClass::{Forbidden, Unavailable};
        let (ok, class, found) = match (&self.chain, self.unknown_issuer) {
            (Chain::Pinned, _) => (true, Forbidden, "the very certificate that is trusted"),
            (Chain::Broken(why), _) => (false, Forbidden, why.as_str()),
            _ if self.is_proven(now) => (true, Forbidden, "a path to a trusted root"),
            (_, UnknownIssuer::Accepted) => (true, Forbidden, "unproven: no issuer that is known here"),
            (_, UnknownIssuer::Unavailable) => (false, Unavailable, "no issuer that is known here"),
            (_, UnknownIssuer::Refused) => (false, Forbidden, "no issuer that is trusted"),
        };
        trail.judge(Check::CertificateChain, ok, class, || {
            let expected = match self.unknown_issuer {
                UnknownIssuer::Accepted => {
                    "a path to a root of Amazon, where the issuer is known (else its host vouches)"
                }
                UnknownIssuer::Unavailable => "a path to a root of Amazon (REQUIRE_CHAIN)",
                UnknownIssuer::Refused => "a trust anchor, or issued by one that is valid now",
            };
            (expected, format!("{found}; issued by {}", shown(&self.issuer)))
        })
    }

    fn is_proven(&self, now: Timestamp) -> bool {
        matches!(self.chain, Chain::Proven { from, until } if from <= now && now <= until)
    }

    /// What [`Self::chain_label`] may say.
    pub(super) const CHAIN_LABELS: [&str; 3] = ["pinned", "proven", "unproven"];

    /// How far the issuer is proven, as the metrics name it.
    pub(super) fn chain_label(&self, now: Timestamp) -> &'static str {
        let [pinned, proven, unproven] = Self::CHAIN_LABELS;
        match self.chain {
            Chain::Pinned => pinned,
            _ if self.is_proven(now) => proven,
            _ => unproven,
        }
    }

    /// DER of the RSA public key; empty, and so good for no signature, if the key is of another kind.
    pub(super) fn key(&self) -> &[u8] {
        self.key.as_ref().map_or(&[], |(der, _)| der)
    }
}

impl Algorithm {
    fn of(leaf: &X509Certificate<'_>) -> Self {
        let sound = [
            (oid::OID_PKCS1_SHA256WITHRSA, "RSA with SHA-256"),
            (oid::OID_PKCS1_SHA384WITHRSA, "RSA with SHA-384"),
            (oid::OID_PKCS1_SHA512WITHRSA, "RSA with SHA-512"),
            (oid::OID_SIG_ECDSA_WITH_SHA256, "ECDSA with SHA-256"),
            (oid::OID_SIG_ECDSA_WITH_SHA384, "ECDSA with SHA-384"),
            (oid::OID_SIG_ECDSA_WITH_SHA512, "ECDSA with SHA-512"),
        ];
        let (inner, outer) = (&leaf.tbs_certificate.signature.algorithm, &leaf.signature_algorithm.algorithm);
        match sound.iter().find(|(oid, _)| oid == outer && inner == outer) {
            Some((_, name)) => Self { name: (*name).to_owned(), is_sound: true },
            None => Self { name: format!("the algorithm {}", outer.to_id_string()), is_sound: false },
        }
    }
}

/// Subject alternative DNS names; the common names only where there is no such extension (RFC 6125 section 6.4.4).
fn names(leaf: &X509Certificate<'_>) -> Result<Vec<String>, x509_parser::error::X509Error> {
    Ok(match leaf.subject_alternative_name()? {
        Some(alternatives) => alternatives
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
            .collect(),
        None => {
            leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(ToOwned::to_owned).collect()
        }
    })
}

fn bit_length(modulus: &[u8]) -> usize {
    let significant: &[u8] = modulus.iter().position(|&byte| byte != 0).map_or(&[], |first| &modulus[first..]);
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}

/// Certificates may be valid until the year 9999, a little beyond what a timestamp can hold.
fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// A text that is not one PEM certificate, or whose certificate cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no certificate: {0}")]
pub struct InvalidCertificate(String);

impl InvalidCertificate {
    fn because(why: &dyn std::fmt::Display) -> Self {
        Self(shown(&why.to_string()))
    }
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use super::super::test_authority::{Key, NAME, NOW, good_certificate, issued, params, pem, self_signed};
    use super::*;

    const OID_SHA256_WITH_RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    const OID_SHA1_WITH_RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05];

    /// The first check that a certificate fails.
    fn failed(text: &str, anchors: Option<&str>) -> Option<Check> {
        let authorities = match anchors {
            Some(own) => Authorities::only(own.as_bytes()),
            None => Authorities::amazon(None, false),
        };
        let certificate = SigningCertificate::parse(text.as_bytes(), &authorities.unwrap()).unwrap();
        let refused = certificate.judge(NAME, NOW.parse().unwrap(), &mut Trail::unkept()).err()?;
        assert_eq!(refused.class(), RefusedClass::Forbidden);
        Check::ALL.into_iter().find(|check| check.as_str() == refused.check())
    }

    fn replaced(der: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        let mut der = der.to_vec();
        let places: Vec<usize> =
            der.windows(from.len()).enumerate().filter(|(_, window)| *window == from).map(|(at, _)| at).collect();
        for at in places {
            der[at..at + to.len()].copy_from_slice(to);
        }
        der
    }

    #[test]
    fn a_certificate_must_bear_the_expected_name() {
        assert_eq!(failed(&self_signed(&params(&[NAME], "x"), Key::main()), None), None);
        assert_eq!(failed(&self_signed(&params(&["x.test", NAME], "x"), Key::main()), None), None);
        assert_eq!(failed(&self_signed(&params(&[], NAME), Key::main()), None), None);
        for other in [
            params(&["x.test"], NAME),
            params(&["127.0.0.1"], NAME),
            params(&["*.amazonaws.com"], "x"),
            params(&["sns.amazonaws.com.evil.test"], "x"),
            params(&[], "x"),
        ] {
            assert_eq!(failed(&self_signed(&other, Key::main()), None), Some(Check::CertificateName));
        }
    }

    #[test]
    fn an_authoritys_certificate_signs_no_messages() {
        let mut authority = params(&[NAME], NAME);
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        assert_eq!(failed(&self_signed(&authority, Key::main()), None), Some(Check::CertificateUse));
        let mut authority = params(&[NAME], NAME);
        authority.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        assert_eq!(failed(&self_signed(&authority, Key::main()), None), Some(Check::CertificateUse));
    }

    #[test]
    fn weak_keys_other_keys_and_broken_algorithms_are_refused() {
        let sound = params(&[NAME], NAME);
        assert_eq!(failed(&self_signed(&sound, Key::weak()), None), Some(Check::CertificateKey));
        let elliptic = sound.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        assert_eq!(failed(&pem(elliptic.der()), None), Some(Check::CertificateKey));
        let der = sound.self_signed(Key::main()).unwrap();
        let sha1 = replaced(der.der(), &OID_SHA256_WITH_RSA, &OID_SHA1_WITH_RSA);
        assert_eq!(failed(&pem(&sha1), None), Some(Check::CertificateAlgorithm));
    }

    #[test]
    fn with_trust_anchors_one_of_them_must_have_signed_the_certificate() {
        let mut root = params(&[], "Root");
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let (leaf, root_pem) = (params(&[NAME], NAME), self_signed(&root, Key::other()));
        let impostor = self_signed(&root, Key::main());
        let signed_by_root = issued(&leaf, Key::main(), &root, Key::other());
        assert_eq!(failed(&signed_by_root, Some(&root_pem)), None);
        assert_eq!(failed(&signed_by_root, Some(&format!("{impostor}{root_pem}"))), None);
        assert_eq!(failed(&signed_by_root, Some(&impostor)), Some(Check::CertificateChain));
        assert_eq!(failed(&good_certificate(), Some(&root_pem)), Some(Check::CertificateChain));
        root.not_after = rcgen::date_time_ymd(2026, 3, 1);
        let expired = self_signed(&root, Key::other());
        assert_eq!(failed(&signed_by_root, Some(&expired)), Some(Check::CertificateChain));
    }

    #[test]
    fn only_the_first_block_counts_and_it_must_be_a_certificate() {
        let (good, other) = (good_certificate(), self_signed(&params(&["x.test"], "x"), Key::other()));
        assert_eq!(failed(&format!("{good}{other}"), None), None);
        assert_eq!(failed(&format!("{other}{good}"), None), Some(Check::CertificateName));
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let trailing =
            pem(&[params(&[NAME], NAME).self_signed(Key::main()).unwrap().der().as_ref(), &[0][..]].concat());
        for text in ["", "<html>", "-----BEGIN CERTIFICATE-----\n", &pem(b"no DER"), &format!("{key}{good}"), &trailing]
        {
            let parsed = SigningCertificate::parse(text.as_bytes(), &Authorities::amazon(None, false).unwrap());
            assert!(parsed.is_err(), "{text}");
        }
    }
}
