//! Who issued a signing certificate, and how far that can be proven.
//!
//! SNS serves the leaf alone, so a chain can be built only through intermediates that are known beforehand: the bundled ones of Amazon
//! Trust Services and those of the operator. An issuer that is not among them proves nothing against a certificate, because
//! intermediates are renewed without notice; what vouches for it then is TLS to the one expected host. Why: `docs/adr/0011`.

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring as algorithms};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{Pem, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::{InvalidCertificate, timestamp};

/// Roots and intermediates of Amazon Trust Services. Source: <https://www.amazontrust.com/repository/>.
const AMAZON: &[u8] = include_bytes!("amazon.pem");

/// SHA-256 or better, for RSA of 2048 bits or more and for the NIST curves.
static SOUND: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
];

/// What to do with a certificate whose issuer is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnknownIssuer {
    /// The host that served it vouches.
    Accepted,
    /// It cannot be judged by this version (`REQUIRE_CHAIN`).
    Unavailable,
    /// It is not one of those that the sandbox trusts.
    Refused,
}

/// The authorities that signing certificates are held against.
#[derive(Debug)]
pub(in crate::sns) struct Authorities {
    roots: Vec<Authority>,
    intermediates: Vec<Authority>,
    unknown: UnknownIssuer,
}

#[derive(Debug)]
struct Authority {
    der: CertificateDer<'static>,
    subject: Vec<u8>,
    key_id: Option<Vec<u8>>,
    has_rsa_key: bool,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// What is known of a certificate's issuer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chain {
    /// It is itself what the sandbox trusts.
    Pinned,
    /// A path to a root holds while its issuer is valid.
    Proven {
        /// The issuer is valid from here on.
        from: Timestamp,
        /// The issuer is valid until here.
        until: Timestamp,
    },
    /// Its issuer is not known here.
    Unproven,
    /// It bears the name of an issuer that is known and did not issue it, or not for this use.
    Broken(String),
}

impl Authorities {
    /// Amazon's, and the operator's further intermediates (PEM). They must lead to Amazon's roots, so they move no trust.
    ///
    /// # Errors
    /// If `intermediates` holds no certificates.
    pub(in crate::sns) fn amazon(
        intermediates: Option<&[u8]>,
        require_chain: bool,
    ) -> Result<Self, InvalidCertificate> {
        let (roots, mut known): (Vec<_>, Vec<_>) =
            authorities(AMAZON)?.into_iter().partition(|(_, self_issued)| *self_issued);
        if let Some(pem) = intermediates {
            known.extend(authorities(pem)?);
        }
        let unknown = if require_chain { UnknownIssuer::Unavailable } else { UnknownIssuer::Accepted };
        let only = |with_kind: Vec<(Authority, bool)>| with_kind.into_iter().map(|(authority, _)| authority).collect();
        Ok(Self { roots: only(roots), intermediates: only(known), unknown })
    }

    /// A sandbox's own (PEM), and none else: a signing certificate must be one of them or be issued by one.
    ///
    /// # Errors
    /// If `pem` holds no certificates.
    pub(in crate::sns) fn only(pem: &[u8]) -> Result<Self, InvalidCertificate> {
        let roots = authorities(pem)?.into_iter().map(|(authority, _)| authority).collect();
        Ok(Self { roots, intermediates: Vec::new(), unknown: UnknownIssuer::Refused })
    }

    pub(super) fn unknown(&self) -> UnknownIssuer {
        self.unknown
    }

    /// Tries to prove who issued `leaf`, whose encoding is `der`.
    pub(super) fn chain(&self, leaf: &X509Certificate<'_>, der: &[u8]) -> Chain {
        if self.unknown == UnknownIssuer::Refused && self.roots.iter().any(|root| root.der.as_ref() == der) {
            return Chain::Pinned;
        }
        let mut chain = Chain::Unproven;
        for issuer in self.roots.iter().chain(&self.intermediates).filter(|authority| authority.is_issuer_of(leaf)) {
            // webpki does not tell it from an algorithm that it does not know.
            if issuer.has_rsa_key != is_signed_with_rsa(leaf) {
                chain = Chain::Broken("signed by an algorithm that its issuer's key cannot make".to_owned());
                continue;
            }
            match self.path(leaf, der, issuer) {
                Some(Ok(())) => return Chain::Proven { from: issuer.not_before, until: issuer.not_after },
                Some(Err(why)) => chain = Chain::Broken(why),
                None => {}
            }
        }
        chain
    }

    /// Whether a path leads from `leaf` over `issuer` to a root; `None` where that cannot be told.
    ///
    /// It is built at a time when both are valid. Their validity is judged at each use, by the caller.
    fn path(&self, leaf: &X509Certificate<'_>, der: &[u8], issuer: &Authority) -> Option<Result<(), String>> {
        let from = timestamp(leaf.validity().not_before.timestamp()).max(issuer.not_before);
        let until = timestamp(leaf.validity().not_after.timestamp()).min(issuer.not_after);
        let at = std::time::Duration::try_from(from.as_duration()).ok().filter(|_| from <= until)?;
        let der = CertificateDer::from(der);
        let Ok(leaf) = EndEntityCert::try_from(&der) else {
            return Some(Err("a certificate that cannot be put into a chain".to_owned()));
        };
        let anchors: Vec<_> = self.roots.iter().filter_map(|root| anchor_from_trusted_cert(&root.der).ok()).collect();
        let intermediates: Vec<_> = self.intermediates.iter().map(|authority| authority.der.clone()).collect();
        let at = UnixTime::since_unix_epoch(at);
        let usage = KeyUsage::server_auth();
        match leaf.verify_for_usage(SOUND, &anchors, &intermediates, at, usage, None, None) {
            Ok(_) => Some(Ok(())),
            // Limits of this check, not signs of a forgery.
            Err(
                webpki::Error::UnsupportedCriticalExtension
                | webpki::Error::UnsupportedSignatureAlgorithmContext(_)
                | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
                | webpki::Error::CertExpired { .. }
                | webpki::Error::CertNotValidYet { .. },
            ) => None,
            Err(error) => Some(Err(format!("no path to a root: {error:?}"))),
        }
    }
}

impl Authority {
    /// Whether `leaf` names this authority as its issuer: by name and, where both say one, by key. A renewed authority of the
    /// same name has another key; what it issues is not refused for the old one's sake.
    fn is_issuer_of(&self, leaf: &X509Certificate<'_>) -> bool {
        let named = key_id(leaf, |extension| match extension {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
            _ => None,
        });
        let same_key = match (&named, &self.key_id) {
            (Some(named), Some(own)) => named == own,
            _ => true,
        };
        leaf.issuer().as_raw() == self.subject && same_key
    }
}

/// The certificates in a PEM text, each with whether it issued itself; at least one.
fn authorities(pem: &[u8]) -> Result<Vec<(Authority, bool)>, InvalidCertificate> {
    let bad = InvalidCertificate::because;
    let mut found = Vec::new();
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| bad(&error))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&block.contents).map_err(|error| bad(&error))?;
        let self_issued = parsed.subject().as_raw() == parsed.issuer().as_raw();
        let authority = Authority {
            subject: parsed.subject().as_raw().to_vec(),
            key_id: key_id(&parsed, |extension| match extension {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
                _ => None,
            }),
            has_rsa_key: matches!(parsed.public_key().parsed(), Ok(PublicKey::RSA(_))),
            not_before: timestamp(parsed.validity().not_before.timestamp()),
            not_after: timestamp(parsed.validity().not_after.timestamp()),
            der: CertificateDer::from(block.contents.clone()),
        };
        found.push((authority, self_issued));
    }
    if found.is_empty() { Err(bad(&"no PEM block")) } else { Ok(found) }
}

/// Every algorithm of PKCS #1 (RFC 8017) is RSA, and no other is.
fn is_signed_with_rsa(certificate: &X509Certificate<'_>) -> bool {
    certificate.signature_algorithm.algorithm.to_id_string().starts_with("1.2.840.113549.1.1.")
}

fn key_id<'a>(
    certificate: &'a X509Certificate<'_>,
    pick: impl Fn(&'a ParsedExtension<'a>) -> Option<&'a [u8]>,
) -> Option<Vec<u8>> {
    certificate.extensions().iter().find_map(|extension| pick(extension.parsed_extension())).map(<[u8]>::to_vec)
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use data_encoding::HEXLOWER;
    use rcgen::{BasicConstraints, CertificateParams, IsCa};

    use super::*;
    use crate::sns::test_authority::{Key, NAME, good_certificate, issued, params, self_signed};

    const ROOTS: [&str; 4] = [
        "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
        "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
        "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
        "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
    ];

    fn chain(authorities: &Authorities, pem: &str) -> Chain {
        let block = Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap();
        authorities.chain(&block.parse_x509().unwrap(), &block.contents)
    }

    fn authority(name: &str) -> CertificateParams {
        let mut root = params(&[], name);
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root
    }

    fn is_proven(chain: &Chain) -> bool {
        matches!(chain, Chain::Proven { .. })
    }

    fn is_broken(chain: &Chain) -> bool {
        matches!(chain, Chain::Broken(_))
    }

    #[test]
    fn the_bundled_roots_are_amazons_and_lead_to_every_bundled_intermediate() {
        let amazon = Authorities::amazon(None, false).unwrap();
        let fingerprint = |authority: &Authority| {
            HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, &authority.der).as_ref())
        };
        assert!(amazon.roots.iter().map(fingerprint).eq(ROOTS));
        assert_eq!(amazon.intermediates.len(), 4);
        for intermediate in &amazon.intermediates {
            let (_, parsed) = x509_parser::parse_x509_certificate(&intermediate.der).unwrap();
            let root = amazon.roots.iter().find(|root| root.subject == parsed.issuer().as_raw()).unwrap();
            let anchor = anchor_from_trusted_cert(&root.der).unwrap();
            let (_, root) = x509_parser::parse_x509_certificate(&root.der).unwrap();
            assert_eq!(anchor.subject.as_ref(), x509_body(root.subject().as_raw()));
            parsed.verify_signature(Some(root.public_key())).unwrap();
        }
    }

    /// A name without its outer tag and length, as webpki keeps it.
    fn x509_body(name: &[u8]) -> &[u8] {
        &name[2..]
    }

    #[test]
    fn a_known_issuer_must_really_have_signed() {
        let root = authority("Root");
        let own = |pem: &str| Authorities::only(pem.as_bytes()).unwrap();
        let (leaf, root_pem) = (params(&[NAME], NAME), self_signed(&root, Key::other()));
        let impostor = self_signed(&root, Key::main());
        let signed_by_root = issued(&leaf, Key::main(), &root, Key::other());
        assert!(is_proven(&chain(&own(&root_pem), &signed_by_root)));
        assert!(is_proven(&chain(&own(&format!("{impostor}{root_pem}")), &signed_by_root)));
        assert!(is_broken(&chain(&own(&impostor), &signed_by_root)));
        assert_eq!(chain(&own(&root_pem), &good_certificate()), Chain::Unproven);
    }

    #[test]
    fn an_intermediate_proves_nothing_without_a_root_above_it() {
        let (root, middle) = (authority("Root"), authority("Middle"));
        let middle_pem = issued(&middle, Key::other(), &root, Key::main());
        let leaf = issued(&params(&[NAME], NAME), Key::main(), &middle, Key::other());
        let with = |roots: &str| {
            let mut known = Authorities::only(roots.as_bytes()).unwrap();
            known.intermediates = authorities(middle_pem.as_bytes()).unwrap().into_iter().map(|(one, _)| one).collect();
            known
        };
        assert!(is_proven(&chain(&with(&self_signed(&root, Key::main())), &leaf)));
        assert!(is_broken(&chain(&with(&self_signed(&authority("Another"), Key::main())), &leaf)));
        assert!(is_broken(&chain(&with(&self_signed(&root, Key::other())), &leaf)));
    }

    #[test]
    fn the_operators_intermediates_must_lead_to_amazon_too() {
        let middle = self_signed(&authority("Middle"), Key::other());
        let leaf = issued(&params(&[NAME], NAME), Key::main(), &authority("Middle"), Key::other());
        assert_eq!(chain(&Authorities::amazon(None, false).unwrap(), &leaf), Chain::Unproven);
        assert!(is_broken(&chain(&Authorities::amazon(Some(middle.as_bytes()), false).unwrap(), &leaf)));
        assert!(Authorities::amazon(Some(b"none"), false).is_err());
    }

    /// An authority of the name that one of Amazon's has.
    fn named_as(common_name: &str) -> CertificateParams {
        let mut issuer = authority(common_name);
        let mut name = rcgen::DistinguishedName::new();
        let printable = |text: &str| rcgen::DnValue::PrintableString(text.try_into().unwrap());
        name.push(rcgen::DnType::CountryName, printable("US"));
        name.push(rcgen::DnType::OrganizationName, printable("Amazon"));
        name.push(rcgen::DnType::CommonName, printable(common_name));
        issuer.distinguished_name = name;
        issuer
    }

    #[test]
    fn a_leaf_that_claims_to_come_from_amazon_is_held_to_it() {
        let amazon = Authorities::amazon(None, false).unwrap();
        let issuer = named_as("Amazon RSA 2048 M01");
        let mut leaf = params(&[NAME], NAME);
        assert!(is_broken(&chain(&amazon, &issued(&leaf, Key::main(), &issuer, Key::other()))));
        // Of the same name and another key: another authority, of which nothing is known.
        leaf.use_authority_key_identifier_extension = true;
        assert_eq!(chain(&amazon, &issued(&leaf, Key::main(), &issuer, Key::other())), Chain::Unproven);
    }

    #[test]
    fn an_algorithm_that_the_issuers_key_cannot_make_does_not_make_the_issuer_unknown() {
        let amazon = Authorities::amazon(None, false).unwrap();
        for (algorithm, name) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, "Amazon RSA 2048 M01"),
            (&rcgen::PKCS_ECDSA_P384_SHA384, "Amazon RSA 2048 M02"),
            (&rcgen::PKCS_ED25519, "Amazon RSA 2048 M03"),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let issuer = rcgen::Issuer::new(named_as(name), key);
            let leaf = params(&[NAME], NAME).signed_by(Key::main(), &issuer).unwrap();
            let (_, parsed) = x509_parser::parse_x509_certificate(leaf.der()).unwrap();
            assert!(is_broken(&amazon.chain(&parsed, leaf.der())), "{name}");
        }
    }

    #[test]
    fn only_a_sandbox_may_pin_the_signing_certificate_itself() {
        let mut own = params(&[NAME], NAME);
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = self_signed(&own, Key::main());
        assert_eq!(chain(&Authorities::only(pem.as_bytes()).unwrap(), &pem), Chain::Pinned);
        let amazon = Authorities::amazon(None, true).unwrap();
        let root = String::from_utf8(AMAZON.to_vec()).unwrap();
        assert_ne!(chain(&amazon, &root), Chain::Pinned);
    }
}
