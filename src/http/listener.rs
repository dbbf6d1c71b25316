//! The accept loop of both listeners. Everything that a peer can hold or draw out has a bound here: open connections, the time for
//! headers and between requests, the size of headers, the time in which it must take an answer.
//!
//! hyper's header time-out runs from the moment a connection is opened or has become idle until a header is complete (hyper 1.12,
//! `Conn::poll_read_head`), so it covers a peer that sends nothing, half a header, or keeps an idle connection. It does not cover a
//! body, which is bounded by whoever reads it, nor a peer that does not take its answers: [`ImpatientStream`].

use std::io::{self, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::clock::Stopwatch;
use crate::telemetry::metric;

/// All that a connection says that is not served.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// A refused peer may finish its request for so long, so that it hears the answer. Closing on unread bytes resets the connection.
const LINGER: Duration = Duration::from_secs(1);
/// Refused connections that linger at a time; more are closed as soon as the answer is written.
const LINGERING: usize = 64;
/// Log lines about one thing come at most once in this time, with how often it happened.
const LOG_INTERVAL: Duration = Duration::from_mins(1);
/// A pause after an error such as "too many open files", which stays until something is closed.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// A listener that only fails for a minute is deaf.
const DEAF_AFTER: u32 = 60;

/// The bounds of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What logs and metrics call the listener.
    pub name: &'static str,
    /// Open connections; more are answered 503 and closed.
    pub connections: usize,
    /// Time to send a header, counted from opening the connection or from the answer before.
    pub header_read: Duration,
    /// Headers of a request; more are answered 431.
    pub headers: usize,
    /// Bytes of a request line with its headers, and of hyper's buffer; more are answered 431. At least 8192.
    pub buffer_bytes: usize,
    /// Time without the peer taking a byte of an answer.
    pub write: Duration,
}

impl Limits {
    /// SNS needs few connections: a message takes milliseconds. The number is for peers that hold connections and send nothing, and is four
    /// times the messages that may be in hand. SNS sends a dozen headers of less than 2 KiB and gives up after 15 s.
    pub const PUBLIC: Self = Self {
        name: "public",
        connections: 4096,
        header_read: Duration::from_secs(10),
        headers: 64,
        buffer_bytes: 16 * 1024,
        write: Duration::from_secs(10),
    };

    /// Systems of the merchant, which keep connections open between requests. Half of the drain, so that half a header does not hold it up.
    pub const INTERNAL: Self =
        Self { name: "internal", connections: 256, header_read: Duration::from_secs(30), ..Self::PUBLIC };

    /// No more connections than a quarter of the files that the process may open: Redis, Amazon and the other listener need files too, and
    /// a flood must not stop charges.
    #[must_use]
    pub fn within(self, open_files: u64) -> Self {
        let share = usize::try_from(open_files / 4).unwrap_or(usize::MAX).max(1);
        if share < self.connections {
            warn!(
                listener = self.name,
                connections = share,
                open_files,
                "fewer connections: the limit of open files is low"
            );
        }
        Self { connections: self.connections.min(share), ..self }
    }
}

/// Raises the limit of open files to what the listeners may use, as far as the system lets it, and says what it is.
#[must_use]
pub fn open_files() -> u64 {
    let wanted = (Limits::PUBLIC.connections as u64).saturating_mul(4);
    match rlimit::Resource::NOFILE.get() {
        Ok((soft, _)) if soft >= wanted => soft,
        Ok((soft, _)) => rlimit::increase_nofile_limit(wanted).unwrap_or(soft),
        // A system without the limit.
        Err(_) => u64::MAX,
    }
}

/// A listener accepted nothing but errors for too long.
#[derive(Debug, thiserror::Error)]
#[error("no connection could be accepted for a minute")]
pub struct Deaf(#[source] io::Error);

/// Serves until told to stop; then accepts no more, closes idle connections at once, and returns when the requests in hand are answered.
///
/// # Errors
/// When nothing but errors was accepted for a minute.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) -> Result<(), Deaf> {
    let places = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let mut door = Door::new(limits.name);
    let mut faults = Faults::default();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                faults.in_a_row = 0;
                match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        let open = Open::new(place, limits.name);
                        connections.spawn(converse(stream, router.clone(), limits, shutdown.clone(), open));
                    }
                    Err(_) => door.refuse(stream, &connections),
                }
            }
            Err(error) if belongs_to_one_connection(&error) => {}
            Err(error) => {
                faults.note(limits.name, error)?;
                let _ = shutdown.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

/// One connection, from its opening to its end.
async fn converse(stream: TcpStream, router: Router, limits: Limits, shutdown: CancellationToken, open: Open) {
    // Answers are one small segment: waiting for more to send only delays them. Without it they still arrive.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_headers(limits.headers)
        .max_buf_size(limits.buffer_bytes);
    let io = TokioIo::new(ImpatientStream { inner: stream, patience: limits.write, stuck: None });
    // Without `with_upgrades`: HTTP/1 is all there is.
    let mut connection = std::pin::pin!(http.serve_connection(io, TowerToHyperService::new(router)));
    let ended = if let Some(ended) = shutdown.run_until_cancelled(connection.as_mut()).await {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    if let Err(error) = ended {
        // What strangers send is no news.
        debug!(listener = limits.name, error = &error as &dyn std::error::Error, "a connection broke off");
    }
    drop(open);
}

/// An open connection: its place and its count.
struct Open {
    gauge: metrics::Gauge,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(place: OwnedSemaphorePermit, listener: &'static str) -> Self {
        let gauge = metrics::gauge!(metric::OPEN_CONNECTIONS, "listener" => listener);
        gauge.increment(1.0);
        Self { gauge, _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.decrement(1.0);
    }
}

/// Turns connections away.
struct Door {
    listener: &'static str,
    refused: metrics::Counter,
    lingering: Arc<Semaphore>,
    log: Seldom,
}

impl Door {
    fn new(listener: &'static str) -> Self {
        let refused = metrics::counter!(metric::CONNECTIONS_REFUSED, "listener" => listener);
        Self { listener, refused, lingering: Arc::new(Semaphore::new(LINGERING)), log: Seldom::default() }
    }

    fn refuse(&mut self, stream: TcpStream, connections: &TaskTracker) {
        self.refused.increment(1);
        if let Some(times) = self.log.due() {
            warn!(listener = self.listener, times, "connections were refused: too many are open");
        }
        // The standard library's socket is not asked to wait until it is writable. The send buffer of a new one is empty, so it takes
        // these few bytes whole, or the peer is gone.
        let Ok(stream) = stream.into_std() else { return };
        if !matches!((&stream).write(REFUSAL), Ok(written) if written == REFUSAL.len()) {
            return;
        }
        if stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let Ok(place) = Arc::clone(&self.lingering).try_acquire_owned() else { return };
        let Ok(mut stream) = TcpStream::from_std(stream) else { return };
        connections.spawn(async move {
            let mut ignored = [0; 4096];
            let rest = async { while matches!(stream.read(&mut ignored).await, Ok(read) if read > 0) {} };
            let _ = tokio::time::timeout(LINGER, rest).await;
            drop(place);
        });
    }
}

/// The peer went away before it was accepted; the next one may be well.
fn belongs_to_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Errors of accepting, such as "too many open files".
#[derive(Default)]
struct Faults {
    in_a_row: u32,
    log: Seldom,
}

impl Faults {
    fn note(&mut self, listener: &'static str, error: io::Error) -> Result<(), Deaf> {
        self.in_a_row += 1;
        if self.in_a_row >= DEAF_AFTER {
            return Err(Deaf(error));
        }
        if let Some(times) = self.log.due() {
            warn!(listener, times, error = &error as &dyn std::error::Error, "a connection could not be accepted");
        }
        Ok(())
    }
}

/// Lets a log line through once in [`LOG_INTERVAL`].
#[derive(Default)]
struct Seldom {
    last: Option<Stopwatch>,
    times: u64,
}

impl Seldom {
    /// Counts; when a line is due, how often it happened since the last one.
    fn due(&mut self) -> Option<u64> {
        self.times = self.times.saturating_add(1);
        if self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return None;
        }
        self.last = Some(Stopwatch::start());
        Some(std::mem::take(&mut self.times))
    }
}

/// A connection that fails when its peer takes nothing of an answer for too long. hyper waits for ever: a peer that sends requests
/// without reading the answers would keep its place.
struct ImpatientStream<S> {
    inner: S,
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncWrite + Unpin> ImpatientStream<S> {
    fn impatiently<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(done) = write(Pin::new(&mut self.inner), context) {
            self.stuck = None;
            return Poll::Ready(done);
        }
        let patience = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stuck.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ImpatientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ImpatientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.impatiently(context, |inner, context| inner.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.impatiently(context, |inner, context| inner.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    // A socket flushes and shuts down without waiting.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::AsyncWriteExt;
    use tokio::task::JoinHandle;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(50);

    struct Served {
        address: SocketAddr,
        shutdown: CancellationToken,
        task: JoinHandle<Result<(), Deaf>>,
    }

    async fn start(router: Router, limits: Limits) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(listener, router, limits, shutdown.clone()));
        Served { address, shutdown, task }
    }

    impl Served {
        async fn send(&self, request: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            stream
        }

        async fn answer(&self, path: &str) -> String {
            let mut stream = self.send(&format!("GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        }

        async fn stop(self) {
            self.shutdown.cancel();
            tokio::time::timeout(PATIENCE, self.task).await.expect("it stops").unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_handler_that_panics_takes_only_its_connection_along() {
        let router = Router::new()
            .route("/ok", get(|| async { "fine" }))
            .route("/panic", get(|| async { panic!("a bug") as &str }));
        let served = start(router, Limits { connections: 1, ..Limits::PUBLIC }).await;
        let mut broke_off = 0;
        while broke_off < 3 {
            // The place of the connection before may be given back a moment after its socket was closed: then this one is refused.
            broke_off += usize::from(served.answer("/panic").await.is_empty());
        }
        while !served.answer("/ok").await.ends_with("fine") {}
        served.stop().await;
    }

    #[tokio::test]
    async fn a_peer_that_does_not_take_its_answer_is_let_go() {
        let large = "x".repeat(32 * 1024 * 1024);
        let router = Router::new().route("/", get(|| async { large }));
        let served = start(router, Limits { write: SHORT, ..Limits::PUBLIC }).await;
        let mut stream = served.send("GET / HTTP/1.1\r\n\r\n").await;
        // The first bytes are here, so the answer is under way, and it does not fit into the buffers.
        assert!(stream.read(&mut [0; 16]).await.unwrap() > 0);
        served.stop().await;
    }

    #[tokio::test]
    async fn a_peer_that_takes_its_answer_slowly_gets_all_of_it() {
        let (stream, mut peer) = tokio::io::duplex(4);
        let mut stream = ImpatientStream { inner: stream, patience: PATIENCE, stuck: None };
        let sent = tokio::spawn(async move { stream.write_all(b"a long answer").await });
        let mut answer = String::new();
        peer.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "a long answer");
        sent.await.unwrap().unwrap();
    }

    #[test]
    fn too_many_open_files_is_waited_out_for_a_minute_and_then_fails() {
        let error = || io::Error::from_raw_os_error(24);
        assert!(!belongs_to_one_connection(&error()));
        let mut faults = Faults::default();
        for _ in 1..DEAF_AFTER {
            faults.note("public", error()).unwrap();
        }
        assert!(faults.note("public", error()).is_err());
        assert_eq!(ACCEPT_PAUSE * DEAF_AFTER, Duration::from_mins(1), "as the error says");
    }

    #[test]
    fn a_peer_that_went_away_before_it_was_accepted_is_no_fault_of_the_listener() {
        assert!(belongs_to_one_connection(&io::ErrorKind::ConnectionAborted.into()));
    }

    #[test]
    fn a_flood_is_one_log_line_a_minute() {
        let mut log = Seldom::default();
        assert_eq!(log.due(), Some(1));
        for _ in 0..1000 {
            assert_eq!(log.due(), None);
        }
        log.last = None;
        assert_eq!(log.due(), Some(1001), "what was not told is counted");
    }

    #[test]
    fn connections_leave_files_for_redis_and_amazon() {
        let both = |open_files| {
            Limits::PUBLIC.within(open_files).connections
                + Limits::INTERNAL.within(open_files).connections
                + 2 * LINGERING
        };
        for open_files in [1024, 4096, 16_384, 1_048_576] {
            assert!(both(open_files) as u64 <= open_files * 3 / 4, "{open_files}");
        }
        assert_eq!(Limits::PUBLIC.within(1024).connections, 256);
        assert_eq!(Limits::PUBLIC.within(u64::MAX), Limits::PUBLIC);
        assert!(open_files() >= 256);
    }
}
