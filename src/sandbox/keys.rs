//! The sandbox's keys and certificates: the merchant's key pair, and a signing certificate such as SNS serves.
//!
//! RSA keys take a noticeable part of a second each, so all of them are made at most once per process, or once per folder.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, date_time_ymd,
};
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, LineEnding};
use rsa::rand_core::OsRng;
use rsa::{RsaPrivateKey, RsaPublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

/// The name of the certificate that SNS signs with in the default regions.
pub(super) const CERTIFICATE_NAME: &str = "sns.amazonaws.com";

const BITS: usize = 2048;

/// The files of an identity that is kept in a folder.
const KEY_FILE: &str = "signing-key.pem";
const LEAF_FILE: &str = "certificate.pem";
const ANCHOR_FILE: &str = "trust-anchor.pem";

/// A key or certificate that could not be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// The RSA key.
    #[error("expected a new RSA key, got: {0}")]
    Rsa(String),
    /// The certificate.
    #[error("expected a new certificate, got: {0}")]
    Certificate(String),
    /// A folder of keys that cannot be made or read.
    #[error("{path}: {why}")]
    Folder {
        /// The folder, or the file in it.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

impl KeyError {
    fn at(path: &Path, why: &dyn std::fmt::Display) -> Self {
        Self::Folder { path: path.display().to_string(), why: why.to_string() }
    }
}

impl From<rcgen::Error> for KeyError {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error.to_string())
    }
}

/// A key that signs SNS messages, with the certificate that is served for them.
pub struct SnsIdentity {
    pub(super) key: RsaPrivateKey,
    /// The leaf only, as genuine SNS serves it.
    pub(super) leaf_pem: String,
    pub(super) anchor_pem: String,
    /// `SimpleNotificationService-<32 hex>.pem`.
    pub(super) file_name: String,
}

impl std::fmt::Debug for SnsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnsIdentity").field("file_name", &self.file_name).finish_non_exhaustive()
    }
}

/// An identity that outlives the process, so that whoever has its certificate in a cache keeps the right one.
impl SnsIdentity {
    /// The name in the certificate.
    pub const NAME: &str = CERTIFICATE_NAME;

    /// Reads the identity in this folder. A folder that is missing or empty gets a new one.
    ///
    /// # Errors
    /// If the folder cannot be read or written, or holds something else.
    pub fn open(folder: &Path) -> Result<Self, KeyError> {
        let is_empty = match std::fs::read_dir(folder) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(KeyError::at(folder, &error)),
        };
        if is_empty {
            Self::make(folder)?;
        }
        Self::read(folder)
    }

    /// The certificate that issued the signing certificate.
    #[must_use]
    pub fn anchor_file(folder: &Path) -> PathBuf {
        folder.join(ANCHOR_FILE)
    }

    /// The signing certificate.
    #[must_use]
    pub fn certificate_file(folder: &Path) -> PathBuf {
        folder.join(LEAF_FILE)
    }

    /// `SimpleNotificationService-<32 hex>.pem`: the name under which the certificate is served.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The issuer's key is not kept: nothing else can ever be issued in its name.
    fn make(folder: &Path) -> Result<(), KeyError> {
        let (key, issuer) = std::thread::scope(|scope| {
            let key = scope.spawn(new_key);
            let issuer = new_key();
            (key.join().unwrap_or_else(died), issuer)
        });
        let made = identity(key?, &issuer?, "Trigger RSA 2048 CA")?;
        let key_pem = pkcs8(&made.key)?;
        // Complete beside the folder, then moved into place at once: nobody ever finds half an identity. Of two processes
        // that make one at the same time the slower cannot move its own, and uses the other's.
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).create(parent).map_err(|error| KeyError::at(parent, &error))?;
        let draft = tempfile::Builder::new()
            .prefix(".making-keys-")
            .tempdir_in(parent)
            .map_err(|e| KeyError::at(parent, &e))?;
        let keys = draft.path().join("keys");
        DirBuilder::new().mode(0o700).create(&keys).map_err(|error| KeyError::at(&keys, &error))?;
        // A private key, even one of a test, is nothing to commit.
        let files = [
            (KEY_FILE, &*key_pem),
            (LEAF_FILE, &made.leaf_pem),
            (ANCHOR_FILE, &made.anchor_pem),
            (".gitignore", "*\n"),
        ];
        for (name, text) in files {
            let path = keys.join(name);
            let access = if name == KEY_FILE { 0o600 } else { 0o644 };
            let file = OpenOptions::new().write(true).create_new(true).mode(access).open(&path);
            file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| KeyError::at(&path, &error))?;
        }
        match std::fs::rename(&keys, folder) {
            Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => Err(KeyError::at(folder, &error)),
            _ => Ok(()),
        }
    }

    fn read(folder: &Path) -> Result<Self, KeyError> {
        let text = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(|error| KeyError::at(&path, &error))
        };
        let (key_pem, leaf_pem, anchor_pem) = (text(KEY_FILE)?, text(LEAF_FILE)?, text(ANCHOR_FILE)?);
        let wrong = |name: &str, why: &dyn std::fmt::Display| KeyError::at(&folder.join(name), why);
        let key = RsaPrivateKey::from_pkcs8_pem(&key_pem).map_err(|error| wrong(KEY_FILE, &error))?;
        let leaf = CertificateDer::from_pem_slice(leaf_pem.as_bytes()).map_err(|error| wrong(LEAF_FILE, &error))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).map_err(|error| wrong(LEAF_FILE, &error))?;
        let certified = RsaPublicKey::from_public_key_der(parsed.public_key().raw);
        if certified.as_ref().ok() != Some(key.as_ref()) {
            return Err(wrong(LEAF_FILE, &format_args!("is not the certificate of {KEY_FILE}")));
        }
        let file_name = file_name(&leaf);
        Ok(Self { key, leaf_pem, anchor_pem, file_name })
    }
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

const MERCHANT_KEY_FILE: &str = "private-key.pem";
/// The folder of the SNS identity beside it.
const SNS_FOLDER: &str = "sns";

/// Where the keys are that a sandbox keeps in a folder.
#[derive(Debug)]
pub struct KeptKeys;

impl KeptKeys {
    /// The merchant's private key, PKCS#8.
    #[must_use]
    pub fn merchant_private_key(folder: &Path) -> PathBuf {
        folder.join(MERCHANT_KEY_FILE)
    }

    /// The certificate that issued the signing certificate of SNS.
    #[must_use]
    pub fn trust_anchors(folder: &Path) -> PathBuf {
        SnsIdentity::anchor_file(&folder.join(SNS_FOLDER))
    }
}

/// The keys in this folder, made if it has none. They stay in memory until the process ends.
pub(super) fn kept(folder: &Path) -> Result<&'static Keys, KeyError> {
    let sns = SnsIdentity::open(&folder.join(SNS_FOLDER))?;
    let path = folder.join(MERCHANT_KEY_FILE);
    let merchant_pem = match std::fs::read_to_string(&path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let pem = pkcs8(&new_key()?)?;
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            file.and_then(|mut file| file.write_all(pem.as_bytes())).map_err(|error| KeyError::at(&path, &error))?;
            pem
        }
        Err(error) => return Err(KeyError::at(&path, &error)),
    };
    let merchant = RsaPrivateKey::from_pkcs8_pem(&merchant_pem).map_err(|error| KeyError::at(&path, &error))?;
    Ok(Box::leak(Box::new(Keys { merchant, merchant_pem, sns })))
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
        (merchant.join().unwrap_or_else(died), leaf.join().unwrap_or_else(died), issuer)
    });
    let merchant = merchant?;
    let merchant_pem = pkcs8(&merchant)?;
    Ok(Keys { merchant, merchant_pem, sns: identity(leaf?, &issuer?, "Sandbox RSA 2048 CA")? })
}

fn died(_: Box<dyn std::any::Any + Send>) -> Result<RsaPrivateKey, KeyError> {
    Err(KeyError::Rsa("the generating thread died".to_owned()))
}

fn pkcs8(key: &RsaPrivateKey) -> Result<String, KeyError> {
    Ok(key.to_pkcs8_pem(LineEnding::LF).map_err(|error| KeyError::Rsa(error.to_string()))?.to_string())
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

    Ok(SnsIdentity { key, leaf_pem: leaf.pem(), anchor_pem, file_name: file_name(leaf.der()) })
}

fn file_name(leaf: &[u8]) -> String {
    format!("SimpleNotificationService-{}.pem", HEXLOWER.encode(&Sha256::digest(leaf)[..16]))
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

    fn mode(path: &Path) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_identity_in_a_folder_is_made_once_and_its_key_is_its_owners_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("some/keys");
        let made = SnsIdentity::open(&folder).unwrap();
        let again = SnsIdentity::open(&folder).unwrap();
        assert_eq!((&made.key, &made.file_name), (&again.key, &again.file_name));
        assert_eq!((mode(&folder), mode(&folder.join(KEY_FILE))), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(place.path().join("some")).unwrap().count(), 1, "no draft is left behind");

        let empty = place.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        assert_ne!(SnsIdentity::open(&empty).unwrap().file_name, made.file_name);
        std::fs::copy(empty.join(LEAF_FILE), folder.join(LEAF_FILE)).unwrap();
        let mixed = SnsIdentity::open(&folder).unwrap_err().to_string();
        assert!(mixed.contains("is not the certificate of signing-key.pem"), "{mixed}");
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("letter"), "").unwrap();
        let refused = SnsIdentity::open(place.path()).unwrap_err().to_string();
        assert!(refused.contains(KEY_FILE), "{refused}");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn identities_made_at_the_same_time_are_one() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("keys");
        let names: Vec<String> = std::thread::scope(|scope| {
            let open = || SnsIdentity::open(&folder).unwrap().file_name;
            let both = [scope.spawn(open), scope.spawn(open)];
            both.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(names[0], names[1]);
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
