//! Where Redis is and how the connection is trusted.

use secrecy::{ExposeSecret, SecretString};

use super::reader::Reader;
use crate::store::{
    ClientIdentity, IdentityMistake, MAX_REPLICA_TIMEOUT, Replicas, TlsSettings, check_ca, check_url, is_tls,
};

const CERTIFICATE: &str = "REDIS_CLIENT_CERTIFICATE_FILE";
const KEY: &str = "REDIS_CLIENT_KEY_FILE";
/// More replicas than anybody has.
const MAX_REPLICAS: u32 = 16;

impl Reader {
    pub(super) fn redis_url(&mut self) -> Option<SecretString> {
        let (name, url) = match (self.given.redis_url.clone(), self.given.redis_url_file.clone()) {
            (Some(_), Some(_)) => {
                self.mistake("REDIS_URL", "is set beside REDIS_URL_FILE; expected one of them");
                return None;
            }
            (None, None) => {
                self.mistake("REDIS_URL", "is not set; expected for example redis://127.0.0.1:6379, here or in the file that REDIS_URL_FILE names");
                return None;
            }
            (Some(url), None) => ("REDIS_URL", SecretString::from(url)),
            (None, Some(path)) => ("REDIS_URL_FILE", self.file("REDIS_URL_FILE", &path)?),
        };
        if let Err(why) = check_url(url.expose_secret()) {
            let forms =
                "redis://host:port or rediss://host:port, redis[s]-sentinel://h1,h2/name or redis[s]-cluster://h1,h2";
            self.mistake(name, format!("expected {forms}: {why}"));
            return None;
        }
        Some(url)
    }

    /// How many replicas must have what is promised.
    pub(super) fn replicas(&mut self) -> Option<Replicas> {
        let default = Replicas::default();
        let wait_for = match self.given.wait_replicas.clone() {
            None => Some(default.wait_for),
            Some(text) => {
                let number = text.parse().ok().filter(|number| *number <= MAX_REPLICAS);
                if number.is_none() {
                    self.mistake("WAIT_REPLICAS", format!("expected a number from 0 to {MAX_REPLICAS}, got {text:?}"));
                }
                number
            }
        };
        let timeout = self.given.wait_replicas_timeout.clone();
        let timeout = self.duration("WAIT_REPLICAS_TIMEOUT", timeout, default.timeout)?;
        if timeout > MAX_REPLICA_TIMEOUT {
            let most = humantime::format_duration(MAX_REPLICA_TIMEOUT);
            self.mistake("WAIT_REPLICAS_TIMEOUT", format!("expected at most {most}: then the connection is given up"));
            return None;
        }
        Some(Replicas { wait_for: wait_for?, timeout })
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use crate::config::{Given, read_store};

    /// A folder with a CA, a certificate with its key, another key, and garbage.
    fn files() -> TempDir {
        let folder = TempDir::new().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&key).unwrap();
        write("certificate", &certificate.pem());
        write("key", &key.serialize_pem());
        write("another-key", &rcgen::KeyPair::generate().unwrap().serialize_pem());
        write("garbage", "-----BEGIN PRIVATE KEY-----\na secret\n-----BEGIN PRIVATE KEY-----");
        write("empty", "\n");
        folder
    }

    fn given(url: &str) -> Given {
        let text = |text: &str| Some(text.to_owned());
        Given {
            redis_url: text(url),
            amazon_pay_region: text("eu"),
            amazon_pay_public_key_id: text("SANDBOX-ABC"),
            amazon_pay_merchant_id: text("A2K7NDRCTOTPW9"),
            ..Given::default()
        }
    }

    /// `NAME: what was expected` of each mistake, with these files.
    fn mistakes(folder: &Path, url: &str, files: [&str; 3]) -> Vec<String> {
        let path = |name: &str| (!name.is_empty()).then(|| folder.join(name).display().to_string());
        let [ca, certificate, key] = files.map(path);
        let given = Given {
            redis_ca_file: ca,
            redis_client_certificate_file: certificate,
            redis_client_key_file: key,
            ..given(url)
        };
        let mistakes = read_store(given).err().unwrap_or_default();
        mistakes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_wrong_with_the_files_of_redis_is_said_all_at_once() {
        let folder = files();
        let wrong = |files| mistakes(folder.path(), "rediss://host", files);
        assert_eq!(wrong(["certificate", "certificate", "key"]), [""; 0]);
        assert_eq!(wrong(["", "", ""]), [""; 0]);
        let certificate = "expected at least one certificate, PEM";
        assert_eq!(wrong(["key", "", ""]), [format!("REDIS_CA_FILE: {certificate}")]);
        let both = wrong(["missing", "", "key"]);
        assert!(both[0].starts_with("REDIS_CA_FILE: the file ") && both[0].contains("cannot be read"), "{both:?}");
        assert!(both[1].starts_with("REDIS_CLIENT_CERTIFICATE_FILE: is not set"), "{both:?}");
        let one = wrong(["", "certificate", ""]);
        assert!(one.len() == 1 && one[0].starts_with("REDIS_CLIENT_KEY_FILE: is not set"), "{one:?}");
        let empty = wrong(["empty", "empty", "empty"]);
        assert!(empty.len() == 3 && empty.iter().all(|mistake| mistake.contains("is empty")), "{empty:?}");
        assert_eq!(
            wrong(["", "certificate", "another-key"]),
            ["REDIS_CLIENT_KEY_FILE: is not the key of REDIS_CLIENT_CERTIFICATE_FILE"]
        );
        assert_eq!(wrong(["", "key", "key"]), [format!("REDIS_CLIENT_CERTIFICATE_FILE: {certificate}")]);
        assert_eq!(wrong(["", "certificate", "garbage"]), ["REDIS_CLIENT_KEY_FILE: expected a private key, PEM"]);
    }

    #[test]
    fn files_for_tls_are_refused_where_nothing_would_be_encrypted() {
        let folder = files();
        for url in ["redis://host", "redis+unix:///tmp/redis.sock"] {
            let wrong = mistakes(folder.path(), url, ["certificate", "certificate", "key"]);
            assert!(wrong.len() == 3 && wrong.iter().all(|mistake| mistake.contains("rediss://")), "{wrong:?}");
        }
    }

    #[test]
    fn how_many_replicas_are_waited_for_and_how_long_has_bounds() {
        let with = |count: &str, timeout: &str| {
            let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            let given =
                Given { wait_replicas: text(count), wait_replicas_timeout: text(timeout), ..given("redis://host") };
            read_store(given).map(|(_, store, _)| (store.replicas.wait_for, store.replicas.timeout.as_millis()))
        };
        assert_eq!(with("", ""), Ok((0, 1000)));
        assert_eq!(with("2", "4s"), Ok((2, 4000)));
        for (count, timeout, name) in
            [("-1", "", "WAIT_REPLICAS"), ("17", "", "WAIT_REPLICAS"), ("all", "", "WAIT_REPLICAS")]
                .into_iter()
                .chain([("1", "5s", "WAIT_REPLICAS_TIMEOUT"), ("1", "0s", "WAIT_REPLICAS_TIMEOUT")])
        {
            let wrong = with(count, timeout).expect_err("out of bounds");
            assert!(wrong.len() == 1 && wrong[0].name == name, "{wrong:?}");
        }
    }

    #[test]
    fn verification_cannot_be_switched_off() {
        for url in
            ["rediss://host:1/#insecure", "rediss://u:p@host#insecure", "redis://host/#insecure", "rediss://u:a#b@host"]
        {
            let wrong = mistakes(Path::new("/"), url, ["", "", ""]);
            assert!(wrong.len() == 1 && wrong[0].contains("certificates are always verified"), "{url}: {wrong:?}");
            assert!(wrong[0].starts_with("REDIS_URL: ") && !wrong[0].contains("a#b"), "{wrong:?}");
        }
    }

    #[test]
    fn the_way_to_redis_is_unencrypted_unless_it_is_tls_or_stays_on_this_machine() {
        let host = |url: &str| read_store(given(url)).unwrap().1.unencrypted_host();
        for url in ["redis://u:secret@10.0.0.7:6379", "redis://u:secret@redis", "redis://[2001:db8::1]"] {
            let named = host(url).expect(url);
            assert!(url.contains(&named) && !named.contains("secret"), "{named}");
        }
        let within =
            ["redis://127.0.0.1", "redis://127.8.0.1:1", "redis://localhost", "redis://[::1]", "redis+unix:///x"];
        for url in within.iter().chain(&["redis://[::ffff:127.0.0.1]", "rediss://redis", "rediss://10.0.0.7"]) {
            assert_eq!(host(url), None, "{url}");
        }
    }

    #[test]
    fn secrets_of_redis_do_not_show_in_any_debug_text() {
        let folder = files();
        let path = |name: &str| Some(folder.path().join(name).display().to_string());
        let given = Given {
            redis_client_certificate_file: path("certificate"),
            redis_client_key_file: path("key"),
            ..given("rediss://a-user:a-password@host")
        };
        let before = format!("{given:?} {given:#?}");
        assert!(before.contains("REDIS_URL") && !before.contains("REDIS_CA_FILE"), "{before}");
        let store = read_store(given).unwrap().1;
        let key = std::fs::read_to_string(folder.path().join("key")).unwrap();
        for text in [before, format!("{store:?}"), format!("{store:#?}")] {
            for secret in ["a-password", key.lines().nth(1).unwrap(), "BEGIN PRIVATE"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
    }
}
