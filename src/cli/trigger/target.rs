//! Where the message goes: a service on this host or in this private network, never anybody else's.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail, ensure};
use reqwest::Url;

use crate::sandbox::{Courier, SandboxError, SignedMessage};

/// A service whose address was looked at.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Target {
    pub(super) url: Url,
    courier: Courier,
}

impl Target {
    /// Reads what the flag says. Looks the host up once; what is sent goes to the addresses that were found and checked.
    pub(in crate::cli) async fn find(flag: &str, text: &str) -> anyhow::Result<Self> {
        let url = Url::parse(text).with_context(|| format!("{flag}: {text:?} is no URL"))?;
        ensure!(
            url.scheme() == "http",
            "{flag}: expected http://, as the service speaks behind its TLS proxy, got {url}"
        );
        let host = url.host_str().with_context(|| format!("{flag}: the URL names no host"))?.to_owned();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((bare, url.port_or_known_default().unwrap_or(80))).await;
        let addresses: Vec<SocketAddr> = found.with_context(|| format!("{flag}: {host} has no address"))?.collect();
        if let Some(public) = addresses.iter().find(|address| !is_near(address.ip())) {
            bail!(
                "{flag}: {host} is {}, which is neither loopback nor private: this is for trying services of your own",
                public.ip()
            );
        }
        ensure!(!addresses.is_empty(), "{flag}: {host} has no address");
        Ok(Self { courier: Courier::bound_to(&host, &addresses)?, url })
    }

    /// Where a service has to listen to be this one; `None` unless that is on this host.
    pub(in crate::cli) fn loopback_address(&self) -> Option<SocketAddr> {
        let address: IpAddr = self.url.host_str()?.trim_matches(['[', ']']).parse().ok()?;
        address.is_loopback().then(|| SocketAddr::new(address, self.url.port_or_known_default().unwrap_or(80)))
    }

    /// Posts the message once.
    pub(in crate::cli) async fn deliver(&self, message: &SignedMessage) -> Result<u16, SandboxError> {
        self.courier.deliver(self.url.as_str(), message).await
    }

    /// Posts the message so many times; gives the statuses.
    pub(super) async fn post(&self, message: &SignedMessage, copies: u16) -> anyhow::Result<Vec<u16>> {
        let mut statuses = Vec::new();
        for _ in 0..copies {
            statuses.push(match self.deliver(message).await {
                Ok(status) => status,
                Err(SandboxError::NobodyListens(why)) => {
                    bail!("nobody listens at {}: start `serve`, or say where it is with --to ({why})", self.url)
                }
                Err(error) => return Err(error).with_context(|| format!("no answer from {}", self.url)),
            });
        }
        Ok(statuses)
    }
}

/// Loopback and private addresses (RFC 1918, RFC 4193). Link-local ones are not: clouds keep their metadata there.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_private(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_this_host_and_private_networks_are_sent_to() {
        for near in ["http://127.0.0.1:8080/ipn", "http://[::1]:8080/ipn", "http://10.1.2.3/", "http://[fd00::1]/ipn"] {
            assert_eq!(Target::find("--to", near).await.map(|target| target.url.to_string()).unwrap(), near);
        }
        for far in [
            "http://203.0.113.7/ipn",
            "http://8.8.8.8/",
            "http://169.254.169.254/latest",
            "http://172.32.0.1/",
            "http://0.0.0.0:8080/",
            "http://[2001:db8::1]/",
            "http://[::ffff:8.8.8.8]/",
            "http://[fe80::1]/",
            // Other spellings of 8.8.8.8.
            "http://134744072/",
            "http://0x08080808/",
        ] {
            let refused = Target::find("--to", far).await.err().unwrap().to_string();
            assert!(refused.contains("neither loopback nor private"), "{far}: {refused}");
        }
        for wrong in ["127.0.0.1:8080", "https://127.0.0.1/ipn", "ftp://127.0.0.1/", "http://", "ipn", ""] {
            assert!(Target::find("--to", wrong).await.is_err(), "{wrong}");
        }
    }
}
