//! One multiplexed connection to Redis that makes itself anew when it is lost.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisResult};
use secrecy::{ExposeSecret, SecretString};

/// Longer than a slow fsync, shorter than SNS's 15 s.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// One retry per command that finds the connection lost: the caller answers 503 or comes back later, it does not queue.
const RECONNECT_ATTEMPTS: usize = 1;
const RECONNECT_DELAY: Duration = Duration::from_millis(50);

/// A connection; handles share the socket.
pub(super) struct Connection {
    shared: ConnectionManager,
    client: Client,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Prepares a connection; nothing is sent yet.
    pub(super) fn open(url: &SecretString) -> RedisResult<Self> {
        let client = Client::open(url.expose_secret())?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            .set_number_of_retries(RECONNECT_ATTEMPTS)
            .set_min_delay(RECONNECT_DELAY);
        Ok(Self { shared: ConnectionManager::new_lazy_with_config(client.clone(), config)?, client })
    }

    /// A handle to send commands with.
    pub(super) fn handle(&self) -> ConnectionManager {
        self.shared.clone()
    }

    /// A connection of its own, for commands that block: on the shared one they would hold up everything behind them.
    pub(super) async fn dedicated(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_connection_timeout(Some(CONNECTION_TIMEOUT));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }
}

/// Whether a text is a Redis URL this service can use; the error says why not, without the password.
///
/// # Errors
/// When it is not.
pub fn check_url(url: &str) -> Result<(), String> {
    let scheme = url.split("://").next().unwrap_or_default();
    match scheme {
        "redis-cluster" | "redis-sentinel" => Err(format!("{scheme}:// is not supported by this version yet")),
        _ => url.into_connection_info().map(|_| ()).map_err(|_| "not a Redis URL".to_owned()),
    }
}
