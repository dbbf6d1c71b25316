//! What a Redis URL says: which servers are asked, and how the one that takes the commands is found through them.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, parse_redis_url};
use std::net::IpAddr;

const SENTINEL_PORT: u16 = 26379;
const REDIS_PORT: u16 = 6379;

/// How the server that takes the commands is found.
#[derive(Clone)]
pub(super) enum Kind {
    /// It is the one of the URL.
    Direct,
    /// Sentinels tell which one is the master of this name.
    Sentinel {
        /// The name under which they watch it.
        name: String,
        /// Who we are to the Sentinels, which have users of their own.
        login: RedisConnectionInfo,
    },
    /// The nodes of a cluster tell which one holds the account's slot.
    Cluster,
}

/// A URL, read.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) kind: Kind,
    /// Where to begin; all of them are equal. Never empty.
    pub(super) servers: Vec<ConnectionInfo>,
}

impl Target {
    /// Reads a URL; the error says what is wrong, without the password.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if url.contains('#') {
            // The crate knows one fragment, #insecure.
            return Err(
                "expected no # in it (in a password it is %23); certificates are always verified, a private CA is set \
                        with REDIS_CA_FILE"
                    .to_owned(),
            );
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(not_a_url)?;
        let direct = || Ok(Self { kind: Kind::Direct, servers: vec![info(url)?] });
        let (single, port) = match scheme {
            "redis-cluster" => ("redis", REDIS_PORT),
            "rediss-cluster" => ("rediss", REDIS_PORT),
            "redis-sentinel" => ("redis", SENTINEL_PORT),
            "rediss-sentinel" => ("rediss", SENTINEL_PORT),
            _ => return direct(),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let servers: Vec<ConnectionInfo> = hosts
            .split(',')
            .map(|host| match host.trim() {
                "" => Err("expected hosts separated by commas".to_owned()),
                host => info(&format!("{single}://{user}{}", with_port(host, port))),
            })
            .collect::<Result<_, _>>()?;
        if scheme.ends_with("cluster") {
            if !path.is_empty() || !query.is_empty() {
                return Err("expected nothing behind the hosts of a cluster: it has one database".to_owned());
            }
            return Ok(Self { kind: Kind::Cluster, servers });
        }
        if path.is_empty() || path.contains('/') {
            return Err("expected the name of the master behind the hosts of the Sentinels: h1,h2/name".to_owned());
        }
        Ok(Self { kind: Kind::Sentinel { name: path.to_owned(), login: login(query)? }, servers })
    }

    /// Whether connections are encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.servers.iter().any(|server| matches!(server.addr(), ConnectionAddr::TcpTls { .. }))
    }

    /// The first host to which everything, the password included, goes unencrypted; `None` with TLS and within this machine.
    pub(super) fn unencrypted_host(&self) -> Option<String> {
        self.servers.iter().find_map(|server| match server.addr() {
            ConnectionAddr::Tcp(host, _) => {
                let loopback = host.parse().map_or(host == "localhost", |ip: IpAddr| ip.to_canonical().is_loopback());
                (!loopback).then(|| host.clone())
            }
            _ => None,
        })
    }
}

/// `?sentinel_user=..&sentinel_password=..`, percent-encoded.
fn login(query: &str) -> Result<RedisConnectionInfo, String> {
    let mut login = RedisConnectionInfo::default();
    // Any host: only the query is read.
    let url = parse_redis_url(&format!("redis://localhost/?{query}")).ok_or_else(not_a_url)?;
    for (name, value) in url.query_pairs() {
        login = match name.as_ref() {
            "sentinel_user" => login.set_username(value),
            "sentinel_password" => login.set_password(value),
            _ => return Err("expected nothing but sentinel_user and sentinel_password behind the ?".to_owned()),
        };
    }
    Ok(login)
}

fn with_port(host: &str, port: u16) -> String {
    // The colons of an IPv6 address are in brackets.
    let behind = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
    if behind.contains(':') { host.to_owned() } else { format!("{host}:{port}") }
}

fn info(url: &str) -> Result<ConnectionInfo, String> {
    url.into_connection_info().map_err(|_| not_a_url())
}

fn not_a_url() -> String {
    "not a Redis URL".to_owned()
}

/// Whether a text is a Redis URL this service can use; the error says why not, without the password.
///
/// # Errors
/// When it is not.
pub fn check_url(url: &str) -> Result<(), String> {
    Target::parse(url).map(|_| ())
}

/// Whether connections to this URL are encrypted.
#[must_use]
pub fn is_tls(url: &str) -> bool {
    Target::parse(url).is_ok_and(|target| target.is_tls())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(target: &Target) -> Vec<String> {
        target.servers.iter().map(|server| server.addr().to_string()).collect()
    }

    #[test]
    fn several_hosts_share_user_and_password_and_have_the_port_of_their_kind() {
        let target = Target::parse("redis-cluster://u:p%40ss@h1,h2:7001,[::1],[::1]:7002").unwrap();
        assert!(matches!(target.kind, Kind::Cluster));
        assert_eq!(hosts(&target), ["h1:6379", "h2:7001", "::1:6379", "::1:7002"]);
        for server in &target.servers {
            assert_eq!(server.redis_settings().username(), Some("u"));
            assert_eq!(server.redis_settings().password(), Some("p@ss"));
        }
        let target = Target::parse("rediss-sentinel://h1,h2:1/primary").unwrap();
        assert!(target.is_tls() && matches!(&target.kind, Kind::Sentinel { name, .. } if name == "primary"));
        assert_eq!(hosts(&target), ["h1:26379", "h2:1"]);
    }

    #[test]
    fn sentinels_have_a_login_of_their_own() {
        let url = "redis-sentinel://u:p@h/name?sentinel_user=s&sentinel_password=a%2Bb%26c";
        let target = Target::parse(url).unwrap();
        let Kind::Sentinel { login, .. } = &target.kind else { panic!("it is of Sentinels") };
        assert_eq!((login.username(), login.password()), (Some("s"), Some("a+b&c")));
        assert_eq!(target.servers[0].redis_settings().password(), Some("p"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason_and_without_the_password() {
        for (url, why) in [
            ("redis-sentinel://u:secret@h1,h2", "name of the master"),
            ("redis-sentinel://u:secret@h1/a/b", "name of the master"),
            ("redis-sentinel://u:secret@h1/a?secret=1", "nothing but sentinel_user"),
            ("redis-cluster://u:secret@h1,", "separated by commas"),
            ("redis-cluster://u:secret@h1/1", "one database"),
            ("redis-cluster://u:secret@h1:port", "not a Redis URL"),
            ("rediss-cluster://u:secret@h1#insecure", "always verified"),
            ("http://u:secret@h1", "not a Redis URL"),
            ("secret", "not a Redis URL"),
        ] {
            let error = check_url(url).expect_err(url);
            assert!(error.contains(why) && !error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn one_unencrypted_host_of_several_is_enough_to_warn() {
        let host = |url| Target::parse(url).unwrap().unencrypted_host();
        assert_eq!(host("redis-cluster://127.0.0.1,10.0.0.7,localhost").as_deref(), Some("10.0.0.7"));
        assert_eq!(host("redis-sentinel://127.0.0.1,localhost/name"), None);
        assert_eq!(host("rediss-cluster://10.0.0.7"), None);
    }
}
