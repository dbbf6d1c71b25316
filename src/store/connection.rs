//! One multiplexed connection to Redis that makes itself anew when it is lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult,
    ServerErrorKind, Value,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tracing::warn;

use super::failure::{explain, is_authentication};
use super::route::{Place, Route};
use super::target::Target;
use super::tls::TlsSettings;
use crate::clock::Stopwatch;

/// Longer than a slow fsync, shorter than SNS's 15 s. What the network has not acknowledged by then the kernel gives up (Linux), so that
/// a command that nobody waits for cannot arrive long after.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// The way is asked again this often while a connection is in use, unless the URL itself names the server.
const WAY_ASKED_AFTER: Duration = Duration::from_secs(10);
/// As often at most when the server says that it has lost its replicas.
const DOUBTED_AFTER: Duration = Duration::from_secs(1);
/// A connection is tried a second time after this, unless the first try took its whole time; then the caller answers 503 or comes back
/// later, it does not queue.
const RECONNECT_DELAY: Duration = Duration::from_millis(50);

/// A connection; handles share the socket.
pub(super) struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    route: Route,
    current: Mutex<Current>,
}

/// A connection, and where it leads if the URL does not say it.
type Made = (MultiplexedConnection, Option<Place>);
/// What a connection that is being made comes to.
type Making = watch::Receiver<Option<RedisResult<Made>>>;

#[derive(Default)]
struct Current {
    /// Made by the first command that needs it.
    making: Option<Making>,
    /// Which replacement this is, so that of many commands that fail at once one replaces it.
    generation: u64,
    /// Since the way was asked last.
    asked: Option<Stopwatch>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Prepares a connection to the server of the URL, or to the one that holds `key`; nothing is sent yet.
    pub(super) fn open(url: &SecretString, tls: &TlsSettings, key: &str) -> RedisResult<Self> {
        let wrong = |why: String| RedisError::from((ErrorKind::InvalidClientConfig, "REDIS_URL", why));
        let target = Target::parse(url.expose_secret()).map_err(wrong)?;
        let route = Route::new(target, tls.certificates(), tcp(), key);
        route.check()?;
        Ok(Self { shared: Arc::new(Shared { route, current: Mutex::default() }) })
    }

    /// Whether another server may take the place of this one: the URL names Sentinels or a cluster.
    pub(super) fn fails_over(&self) -> bool {
        !self.shared.route.is_direct()
    }

    /// Whether the URL names a cluster: then other accounts may be at servers that this one does not see.
    pub(super) fn is_cluster(&self) -> bool {
        self.shared.route.is_cluster()
    }

    /// A handle to send commands with.
    pub(super) fn handle(&self) -> Handle {
        Handle { used: None, shared: Arc::clone(&self.shared) }
    }

    /// Why there is no connection, in words, found out by another attempt where the error itself does not say.
    pub(super) async fn why(&self, error: RedisError) -> String {
        let info = self.shared.route.info();
        if !self.shared.route.is_direct() {
            return explain(&error);
        }
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
        let attempt = async { self.shared.route.introducing_client()?.get_multiplexed_async_connection().await };
        explain(&attempt.await.err().unwrap_or(error))
    }

    /// A connection of its own, for commands that block: on the shared one they would hold up everything behind them.
    pub(super) async fn dedicated(&self) -> RedisResult<MultiplexedConnection> {
        Ok(self.shared.route.connect(&config()).await?.0)
    }
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_connection_timeout(Some(CONNECTION_TIMEOUT))
}

fn tcp() -> TcpSettings {
    // Many tasks share the socket: a command does not wait until the one before it is acknowledged.
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(RESPONSE_TIMEOUT);
    settings
}

impl Shared {
    /// The connection of now and its generation. It is made in a task of its own, so that it gets ready even if the one who asked first
    /// has gone.
    fn current(self: &Arc<Self>) -> (u64, Making) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.ask_again(&mut current, WAY_ASKED_AFTER);
        let generation = current.generation;
        if current.making.is_none() {
            current.asked = Some(Stopwatch::start());
        }
        let making = current.making.get_or_insert_with(|| {
            let (done, making) = watch::channel(None);
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                let made = shared.connect().await;
                done.send_replace(Some(made));
            });
            making
        });
        (generation, making.clone())
    }

    /// Asks for the way again, beside the commands, if the last time is so long ago; the connection is replaced if it leads elsewhere.
    fn ask_again(self: &Arc<Self>, current: &mut Current, after: Duration) {
        if current.asked.as_ref().is_none_or(|asked| asked.elapsed() < after) {
            return;
        }
        let made = current.making.as_ref().and_then(|making| making.borrow().clone());
        let Some(Ok((_, Some(place)))) = made else { return };
        current.asked = Some(Stopwatch::start());
        let (shared, generation) = (Arc::clone(self), current.generation);
        tokio::spawn(async move {
            if shared.route.leads_away_from(&place).await {
                warn!("Redis is somewhere else by now: the connection to the old place is given up");
                shared.replace(generation);
            }
        });
    }

    /// The server may be one that was cut off.
    fn doubt(self: &Arc<Self>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.ask_again(&mut current, DOUBTED_AFTER);
    }

    async fn connect(&self) -> RedisResult<Made> {
        match self.route.connect(&config()).await {
            Err(error) if !error.is_timeout() => {
                tokio::time::sleep(RECONNECT_DELAY).await;
                self.route.connect(&config()).await
            }
            made => made,
        }
    }

    /// The next command makes another connection; those that still wait for this one keep it.
    fn replace(&self, generation: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.generation == generation {
            *current = Current { making: None, generation: generation + 1, asked: None };
        }
    }
}

/// Sends commands over the shared socket: all of one handle over the same connection, to the same server.
pub(super) struct Handle {
    used: Option<(u64, MultiplexedConnection)>,
    shared: Arc<Shared>,
}

impl Handle {
    async fn connection(&mut self) -> RedisResult<&mut (u64, MultiplexedConnection)> {
        if self.used.is_none() {
            let (generation, mut making) = self.shared.current();
            let made = match making.wait_for(Option::is_some).await {
                Ok(made) => made.clone(),
                Err(_) => None,
            };
            // None: the task was ended, and with it the connection.
            let made = made.unwrap_or_else(|| Err((ErrorKind::Io, "the connection was given up").into()));
            match made {
                Ok((connection, _)) => self.used = Some((generation, connection)),
                Err(error) => {
                    self.shared.replace(generation);
                    return Err(error);
                }
            }
        }
        self.used.as_mut().ok_or_else(|| (ErrorKind::Client, "no connection").into())
    }

    /// Which connection it uses from now on; makes it if need be.
    pub(super) async fn generation(&mut self) -> RedisResult<u64> {
        Ok(self.connection().await?.0)
    }

    /// Another handle on the very same connection, if there is still one.
    pub(super) fn same(&self) -> Self {
        Self { used: self.used.clone(), shared: Arc::clone(&self.shared) }
    }

    /// Whether it still uses that connection.
    pub(super) fn is_on(&self, generation: u64) -> bool {
        self.used.as_ref().is_some_and(|(used, _)| *used == generation)
    }

    /// Whether the others use another connection by now: what is written goes there.
    pub(super) fn is_left(&self) -> bool {
        let current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner).generation;
        !self.is_on(current)
    }

    /// Has the way asked again: this server has lost its replicas, and may be the one that was cut off.
    pub(super) fn doubt(&self) {
        self.shared.doubt();
    }

    /// One that was closed, could not be set up (a password that was wrong for a moment), does not answer, or leads to what is not the
    /// right server any more, is replaced here, for the next command: the one that failed is never sent again, and those that still wait
    /// for the old connection keep it.
    fn look_at<T>(&mut self, result: RedisResult<T>) -> RedisResult<T> {
        if result.as_ref().is_err_and(|error| error.code() == Some("NOREPLICAS")) {
            self.doubt();
        }
        if let Err(error) = &result
            && needs_another_connection(error)
            && let Some((generation, _)) = self.used.take()
        {
            self.shared.replace(generation);
        }
        result
    }
}

fn needs_another_connection(error: &RedisError) -> bool {
    let of_the_setup = [ErrorKind::InvalidClientConfig, ErrorKind::Client, ErrorKind::RESP3NotSupported];
    // A failover that does not close connections, or a slot that has moved: the way leads elsewhere by now, or soon.
    let of_the_way = [
        ServerErrorKind::ReadOnly,
        ServerErrorKind::MasterDown,
        ServerErrorKind::Moved,
        ServerErrorKind::ClusterDown,
        ServerErrorKind::BusyLoading,
    ]
    .map(ErrorKind::Server);
    // Unblocked: a master that became a replica while we waited for its replicas. The last is SELECT, for URLs that name a database.
    error.is_io_error()
        || error.is_unrecoverable_error()
        || is_authentication(error)
        || of_the_setup.contains(&error.kind())
        || of_the_way.contains(&error.kind())
        || error.code() == Some("UNBLOCKED")
        || error.to_string().contains("refused to switch database")
}

impl ConnectionLike for Handle {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let result = self.connection().await?.1.send_packed_command(cmd).await;
            // What the server refuses is an answer to the connection.
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
            let result = self.connection().await?.1.send_packed_commands(pipeline, offset, count).await;
            self.look_at(result)
        })
    }

    fn get_db(&self) -> i64 {
        self.shared.route.info().redis_settings().db()
    }
}
