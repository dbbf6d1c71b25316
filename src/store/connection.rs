//! One multiplexed connection to Redis that makes itself anew when it is lost.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline,
    RedisError, RedisFuture, RedisResult, ServerErrorKind, Value,
};
use secrecy::{ExposeSecret, SecretString};

use super::failure::{explain, is_authentication};
use super::tls::TlsSettings;

/// Longer than a slow fsync, shorter than SNS's 15 s. What the network has not acknowledged by then the kernel gives up (Linux), so that
/// a command that nobody waits for cannot arrive long after.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// One retry per command that finds the connection lost: the caller answers 503 or comes back later, it does not queue.
const RECONNECT_ATTEMPTS: usize = 1;
const RECONNECT_DELAY: Duration = Duration::from_millis(50);

/// A connection; handles share the socket.
pub(super) struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    current: Mutex<Current>,
}

#[derive(Clone)]
struct Current {
    manager: ConnectionManager,
    /// Which replacement this is, so that of many commands that fail at once one replaces it.
    generation: u64,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Prepares a connection; nothing is sent yet.
    pub(super) fn open(url: &SecretString, tls: &TlsSettings) -> RedisResult<Self> {
        let info = url.expose_secret().into_connection_info()?;
        // Naming the library would be two more commands to permit (CLIENT SETINFO), for nothing.
        let redis = info.redis_settings().clone().set_skip_set_lib_name();
        let info = info.set_redis_settings(redis).set_tcp_settings(tcp());
        let client = match tls.certificates() {
            None => Client::open(info)?,
            Some(certificates) => Client::build_with_tls(info, certificates)?,
        };
        let current = Current { manager: manager(&client)?, generation: 0 };
        Ok(Self { shared: Arc::new(Shared { client, current: Mutex::new(current) }) })
    }

    /// A handle to send commands with.
    pub(super) fn handle(&self) -> Handle {
        let current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Handle { current, shared: Arc::clone(&self.shared) }
    }

    /// Why there is no connection, in words, found out by another attempt where the error itself does not say.
    pub(super) async fn why(&self, error: RedisError) -> String {
        let info = self.shared.client.get_connection_info();
        let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let (dropped, refused) = (error.is_connection_dropped(), error.is_connection_refusal());
        let hint = match (tls, dropped && !refused) {
            (true, _) if error.is_timeout() => {
                "; perhaps the port of REDIS_URL does not speak TLS, which rediss:// wants"
            }
            (false, true) => "; perhaps the port of REDIS_URL speaks TLS only, which redis:// does not",
            _ => "",
        };
        if !tls || !dropped || refused {
            return explain(&error) + hint;
        }
        // In TLS 1.3 a client that is not accepted is told so after the handshake. A connection that has something to say for its
        // set-up waits for the answer, and gets the alert instead.
        let redis = info.redis_settings().clone().set_lib_name("amazon-pay-ipn", env!("CARGO_PKG_VERSION"));
        let attempt =
            async { Client::open(info.clone().set_redis_settings(redis))?.get_multiplexed_async_connection().await };
        explain(&attempt.await.err().unwrap_or(error))
    }

    /// A connection of its own, for commands that block: on the shared one they would hold up everything behind them.
    pub(super) async fn dedicated(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_connection_timeout(Some(CONNECTION_TIMEOUT));
        self.shared.client.get_multiplexed_async_connection_with_config(&config).await
    }
}

fn tcp() -> TcpSettings {
    // Many tasks share the socket: a command does not wait until the one before it is acknowledged.
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(RESPONSE_TIMEOUT);
    settings
}

fn manager(client: &Client) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_connection_timeout(Some(CONNECTION_TIMEOUT))
        .set_number_of_retries(RECONNECT_ATTEMPTS)
        .set_min_delay(RECONNECT_DELAY);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

/// Sends commands over the shared socket.
pub(super) struct Handle {
    current: Current,
    shared: Arc<Shared>,
}

impl Handle {
    /// The manager connects again by itself only when a connection was closed. One that could not be set up (a password that was wrong
    /// for a moment), does not answer, or leads to what has become a replica, it would keep for ever. Such a one is replaced here, for
    /// the next command: the one that failed is never sent again, and those that still wait for the old connection keep it.
    fn look_at<T>(&self, result: RedisResult<T>) -> RedisResult<T> {
        if let Err(error) = &result
            && needs_another_connection(error)
        {
            let mut current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
            if current.generation == self.current.generation
                && let Ok(manager) = manager(&self.shared.client)
            {
                *current = Current { manager, generation: current.generation + 1 };
            }
        }
        result
    }
}

fn needs_another_connection(error: &RedisError) -> bool {
    let of_the_setup = [ErrorKind::InvalidClientConfig, ErrorKind::Client, ErrorKind::RESP3NotSupported];
    // A failover that does not close connections: the address leads elsewhere by now, or soon.
    let of_a_replica = [ServerErrorKind::ReadOnly, ServerErrorKind::MasterDown].map(ErrorKind::Server);
    // The last is SELECT, for URLs that name a database.
    error.is_timeout()
        || is_authentication(error)
        || of_the_setup.contains(&error.kind())
        || of_a_replica.contains(&error.kind())
        || error.to_string().contains("refused to switch database")
}

impl ConnectionLike for Handle {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let result = self.current.manager.send_packed_command(cmd).await;
            // What the server refuses is an answer to the manager.
            self.look_at(result.and_then(|answer| match answer {
                Value::ServerError(error) => Err(error.into()),
                answer => Ok(answer),
            }))
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let result = self.current.manager.send_packed_commands(pipeline, offset, count).await;
            self.look_at(result)
        })
    }

    fn get_db(&self) -> i64 {
        self.current.manager.get_db()
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
        // The crate knows one fragment, #insecure.
        _ if url.contains('#') => Err("expected no # in it (in a password it is %23); certificates are always \
             verified, a private CA is set with REDIS_CA_FILE"
            .to_owned()),
        _ => parsed(url).map(|_| ()).ok_or_else(|| "not a Redis URL".to_owned()),
    }
}

/// Whether connections to this URL are encrypted.
#[must_use]
pub fn is_tls(url: &str) -> bool {
    matches!(parsed(url).as_ref().map(ConnectionInfo::addr), Some(ConnectionAddr::TcpTls { .. }))
}

/// The host to which everything, the password included, goes unencrypted; `None` with TLS and within this machine.
pub(super) fn unencrypted_host(url: &SecretString) -> Option<String> {
    match parsed(url.expose_secret())?.addr() {
        ConnectionAddr::Tcp(host, _) => {
            let loopback = host.parse().map_or(host == "localhost", |ip: IpAddr| ip.to_canonical().is_loopback());
            (!loopback).then(|| host.clone())
        }
        _ => None,
    }
}

fn parsed(url: &str) -> Option<ConnectionInfo> {
    url.into_connection_info().ok()
}
