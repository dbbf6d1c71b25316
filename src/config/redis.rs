//! Where Redis is and how the connection is trusted.

use secrecy::{ExposeSecret, SecretString};

use super::reader::Reader;
use crate::store::{ClientIdentity, IdentityMistake, TlsSettings, check_ca, check_url, is_tls};

const CERTIFICATE: &str = "REDIS_CLIENT_CERTIFICATE_FILE";
const KEY: &str = "REDIS_CLIENT_KEY_FILE";

impl Reader {
    pub(super) fn redis_url(&mut self) -> Option<SecretString> {
        let (name, url) = match (self.given.redis_url.clone(), self.given.redis_url_file.clone()) {
            (Some(_), Some(_)) => {
                self.mistake("REDIS_URL", "is set beside REDIS_URL_FILE; expected one of them");
                return None;
            }
            (None, None) => {
                self.mistake("REDIS_URL", "is not set; expected for example redis://127.0.0.1:6379");
                return None;
            }
            (Some(url), None) => ("REDIS_URL", SecretString::from(url)),
            (None, Some(path)) => ("REDIS_URL_FILE", self.file("REDIS_URL_FILE", &path)?),
        };
        if let Err(why) = check_url(url.expose_secret()) {
            self.mistake(name, format!("expected redis://host:port or rediss://host:port: {why}"));
            return None;
        }
        Some(url)
    }

    /// Files are read even when the URL is wrong, so that all mistakes are found at once.
    pub(super) fn redis_tls(&mut self, url: Option<&SecretString>) -> Option<TlsSettings> {
        let ca_file = self.given.redis_ca_file.clone();
        let certificate_file = self.given.redis_client_certificate_file.clone();
        let key_file = self.given.redis_client_key_file.clone();
        let given = [("REDIS_CA_FILE", &ca_file), (CERTIFICATE, &certificate_file), (KEY, &key_file)];
        let given: Vec<&'static str> = given.iter().filter(|(_, file)| file.is_some()).map(|(name, _)| *name).collect();
        if url.is_some_and(|url| !is_tls(url.expose_secret())) {
            for name in given {
                self.mistake(
                    name,
                    "is set, but the Redis URL does not begin with rediss://: nothing would be encrypted",
                );
            }
        }
        let before = self.mistakes.len();
        let ca_pem = ca_file.and_then(|path| self.file("REDIS_CA_FILE", &path));
        let ca_pem = ca_pem.map(|pem| pem.expose_secret().to_owned());
        if let Some(Err(why)) = ca_pem.as_deref().map(check_ca) {
            self.mistake("REDIS_CA_FILE", why);
        }
        let identity = self.redis_identity(certificate_file, key_file);
        (self.mistakes.len() == before).then_some(TlsSettings { ca_pem, identity })
    }

    fn redis_identity(&mut self, certificate: Option<String>, key: Option<String>) -> Option<ClientIdentity> {
        let (certificate, key) = match (certificate, key) {
            (None, None) => return None,
            (Some(certificate), Some(key)) => (self.file(CERTIFICATE, &certificate), self.file(KEY, &key)),
            (Some(_), None) => {
                self.mistake(KEY, format!("is not set; expected the key of {CERTIFICATE}"));
                return None;
            }
            (None, Some(_)) => {
                self.mistake(CERTIFICATE, format!("is not set; expected the certificate of {KEY}"));
                return None;
            }
        };
        match ClientIdentity::new(certificate?.expose_secret().to_owned(), key?) {
            Ok(identity) => return Some(identity),
            Err(IdentityMistake::Certificate(why)) => self.mistake(CERTIFICATE, why),
            Err(IdentityMistake::Key(why)) => self.mistake(KEY, why),
        }
        None
    }
}
