//! The accept loop of both listeners. Everything that a peer can hold or draw out has a bound here: open connections, the time for
//! headers and between requests, the size of headers, the time in which it must take an answer.
//!
//! When all places are taken, the connection that has waited longest for its peer makes room for a new one (`listener/waiting.rs`). Only if none
//! waits, because a request is handled on each, the new one is refused.
//!
//! hyper's header time-out runs from the moment a connection is opened or has become idle until a header is complete (hyper 1.12,
//! `Conn::poll_read_head`), so it covers a peer that sends nothing, half a header, or keeps an idle connection. It does not cover a
//! body, which is bounded by whoever reads it, nor a peer that does not take its answers: `listener/conversation.rs`.

mod conversation;
mod waiting;

use std::any::Any;
use std::io::{self, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{error, warn};

use self::conversation::converse;
use self::waiting::{Seat, Waiting};
use crate::clock::Stopwatch;
use crate::telemetry::metric;

/// All that a connection says that is not served.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// A refused peer may finish its request for so long, so that it hears the answer. Closing on unread bytes resets the connection.
const LINGER: Duration = Duration::from_secs(1);
/// Refused connections that linger at a time; more are closed as soon as the answer is written.
const LINGERING: usize = 64;
/// An evicted connection gives its place back as soon as its task runs, which takes far less. Longer, and the listener would be deaf.
const EVICTION: Duration = Duration::from_secs(1);
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
    /// Open connections. One more takes the place of the one that has waited longest for its peer; if none waits, it is answered 503.
    pub connections: usize,
    /// Time to send a header, counted from opening the connection or from the answer before: so long may a connection be idle.
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
    /// times the messages that may be in hand, so that there is always one that can make room. SNS sends a dozen headers of less than 2 KiB.
    ///
    /// A proxy keeps idle connections for 60 s (AWS's load balancers and nginx, unless told otherwise). Whoever closes earlier than the proxy
    /// sometimes closes a connection on which the proxy is just sending a message: the proxy answers 502. So the proxy must be the first.
    /// That silent connections last so long does no harm: they make room when it is needed.
    pub const PUBLIC: Self = Self {
        name: "public",
        connections: 4096,
        header_read: Duration::from_secs(75),
        headers: 64,
        buffer_bytes: 16 * 1024,
        write: Duration::from_secs(10),
    };

    /// Systems of the merchant, which keep connections open between requests.
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

/// Serves until told to stop; then accepts no more, closes connections without a whole head at once, and returns when the requests in hand
/// are answered. A handler that panics is answered 503.
///
/// # Errors
/// When nothing but errors was accepted for a minute.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) -> Result<(), Deaf> {
    let router = router.layer(CatchPanicLayer::custom(panicked));
    let mut room = Room::new(limits);
    let connections = TaskTracker::new();
    let mut door = Door::new(limits.name);
    let mut faults = Faults::default();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                faults.in_a_row = 0;
                match room.seat().await {
                    Some(seat) => {
                        connections.spawn(converse(stream, router.clone(), limits, shutdown.clone(), seat));
                    }
                    None => door.refuse(stream, &connections),
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

/// A bug. What was stored is found again when the caller repeats, so it may.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    // What it said is on standard error: the panic hook writes it.
    error!("a handler panicked");
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

/// The places of a listener.
struct Room {
    listener: &'static str,
    places: Arc<Semaphore>,
    waiting: Arc<Waiting>,
    evicted: metrics::Counter,
    log: Seldom,
}

impl Room {
    fn new(limits: Limits) -> Self {
        Self {
            listener: limits.name,
            places: Arc::new(Semaphore::new(limits.connections)),
            waiting: Arc::default(),
            evicted: metrics::counter!(metric::CONNECTIONS_EVICTED, "listener" => limits.name),
            log: Seldom::default(),
        }
    }

    /// A free place, or that of the connection that has waited longest for its peer. None: no connection waits.
    async fn seat(&mut self) -> Option<Arc<Seat>> {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => self.evict().await?,
        };
        Some(Seat::new(&self.waiting, Open::new(place, self.listener)))
    }

    async fn evict(&mut self) -> Option<OwnedSemaphorePermit> {
        if !self.waiting.evict() {
            return None;
        }
        self.evicted.increment(1);
        if let Some(times) = self.log.due() {
            warn!(
                listener = self.listener,
                times, "connections that waited for their peer were closed: too many are open"
            );
        }
        tokio::time::timeout(EVICTION, Arc::clone(&self.places).acquire_owned()).await.ok()?.ok()
    }
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::{get, post};
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::AsyncWriteExt;
    use tokio::task::JoinHandle;

    use super::*;

    pub(super) const PATIENCE: Duration = Duration::from_secs(20);
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
            read(self.send(&format!("GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n")).await).await
        }

        async fn stop(self) {
            self.shutdown.cancel();
            tokio::time::timeout(PATIENCE, self.task).await.expect("it stops").unwrap().unwrap();
        }
    }

    /// All that comes until the other side closes.
    async fn read(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(PATIENCE, read).await.expect("it is closed");
        String::from_utf8(answer).unwrap()
    }

    /// The seat of a connection without company.
    pub(super) fn new_seat() -> Arc<Seat> {
        Seat::new(&Arc::default(), new_open())
    }

    pub(super) fn new_open() -> Open {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Open::new(place, "test")
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_answered_503_and_the_connection_goes_on() {
        let router = Router::new()
            .route("/ok", get(|| async { "fine" }))
            .route("/panic", get(|| async { panic!("a bug") as &str }));
        let served = start(router, Limits { connections: 1, ..Limits::PUBLIC }).await;
        let requests = "GET /panic HTTP/1.1\r\n\r\nGET /ok HTTP/1.1\r\nconnection: close\r\n\r\n";
        let answers = read(served.send(requests).await).await;
        assert!(answers.starts_with("HTTP/1.1 503 ") && !answers.contains("bug"), "{answers}");
        assert!(answers.contains("HTTP/1.1 200 ") && answers.ends_with("fine"), "{answers}");
        served.stop().await;
    }

    /// A route that lets the test know that it has begun, and lets it say when it may end.
    fn gate() -> (Router, Arc<Semaphore>, Arc<Semaphore>) {
        let (begun, may_end) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let handler = {
            let (begun, may_end) = (Arc::clone(&begun), Arc::clone(&may_end));
            move |body: String| async move {
                begun.add_permits(1);
                may_end.acquire().await.unwrap().forget();
                body
            }
        };
        (Router::new().route("/", post(handler)), begun, may_end)
    }

    #[tokio::test]
    async fn when_a_request_is_handled_on_every_connection_new_ones_get_503_and_those_are_answered() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _recorded = metrics::set_default_local_recorder(&recorder);
        let (router, begun, may_end) = gate();
        let served = start(router, Limits { connections: 3, ..Limits::PUBLIC }).await;
        let mut in_hand = Vec::new();
        for _ in 0..3 {
            in_hand.push(served.send("POST / HTTP/1.1\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody").await);
            begun.acquire().await.unwrap().forget();
        }
        for _ in 0..5 {
            assert_eq!(served.answer("/").await.as_bytes(), REFUSAL, "without a word more");
        }
        // More than the buffers of both ends hold: the answer is heard, not a reset.
        let large = "x".repeat(4 * 1024 * 1024);
        let request = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{large}", large.len());
        assert_eq!(read(served.send(&request).await).await.as_bytes(), REFUSAL);
        let counted = recorder.handle().render();
        for line in [r#"refused_total{listener="public"} 6"#, r#"amazon_pay_ipn_open_connections{listener="public"} 3"#]
        {
            assert!(counted.contains(line), "{counted}");
        }
        assert!(counted.contains(r#"amazon_pay_ipn_connections_evicted_total{listener="public"} 0"#), "{counted}");
        may_end.add_permits(3);
        for stream in in_hand {
            let answer = read(stream).await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("body"), "{answer}");
        }
        served.stop().await;
    }

    #[tokio::test]
    async fn a_request_that_is_handled_makes_no_room_whether_it_had_a_body_or_not() {
        for request in ["POST / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi"] {
            let (router, begun, may_end) = gate();
            let served = start(router, Limits { connections: 2, ..Limits::PUBLIC }).await;
            let mut in_hand = served.send(request).await;
            begun.acquire().await.unwrap().forget();
            let mut silent = served.send("").await;
            for _ in 0..5 {
                let next = served.send("").await;
                assert_eq!(read(silent).await, "", "it makes room, and not the older one");
                silent = next;
            }
            may_end.add_permits(1);
            let mut status = [0; 12];
            in_hand.read_exact(&mut status).await.unwrap();
            assert_eq!(&status, b"HTTP/1.1 200");
            served.stop().await;
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_not_taken_makes_room() {
        let large = "x".repeat(32 * 1024 * 1024);
        let router = Router::new().route("/large", get(|| async { large })).route("/ok", get(|| async { "fine" }));
        let served = start(router, Limits { connections: 1, write: PATIENCE * 10, ..Limits::PUBLIC }).await;
        let mut stream = served.send("GET /large HTTP/1.1\r\n\r\n").await;
        assert!(stream.read(&mut [0; 16]).await.unwrap() > 0);
        // Until the buffers are full the answer is being written, and the next connection is refused.
        let served_next = async { while !served.answer("/ok").await.ends_with("fine") {} };
        tokio::time::timeout(PATIENCE, served_next).await.expect("there is room");
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
