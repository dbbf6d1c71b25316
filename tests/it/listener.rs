//! What strangers may do to the public listener: nothing that keeps a genuine message out for long. Raw sockets, small bounds.

use std::time::Duration;

use amazon_pay_ipn::app::App;
use amazon_pay_ipn::http::listener::Limits;
use amazon_pay_ipn::http::public::RequestLimits;
use amazon_pay_ipn::sandbox::{NotificationType, ObjectType, SignatureVersion};
use amazon_pay_ipn::telemetry::metric;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{self, TestApp};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_mins(1);
/// A bound that a test reaches.
const SHORT: Duration = Duration::from_millis(200);
/// A bound that no test reaches: what ends within [`PATIENCE`] was not ended by it.
const NEVER: Duration = Duration::from_mins(10);

const CONNECTION: Limits = Limits { header_read: NEVER, write: NEVER, ..Limits::PUBLIC };
const REQUEST: RequestLimits = RequestLimits { body_read: NEVER, answer: NEVER, line: SHORT, ..RequestLimits::PUBLIC };

/// A second service on the same Redis, with bounds of its own.
struct Bounded {
    app: TestApp,
    address: String,
    stop: CancellationToken,
    served: JoinHandle<anyhow::Result<()>>,
}

impl Bounded {
    async fn start(connection: Limits, request: RequestLimits) -> Self {
        let app = TestApp::start().await;
        let service = App::start(app.settings.clone(), app.clock.clone(), support::metrics()).await.expect("it starts");
        let service = service.with_public_limits(connection, request);
        let address = service.public_addr().expect("an address").to_string();
        let stop = CancellationToken::new();
        let served = tokio::spawn(service.serve_until(stop.clone().cancelled_owned()));
        Self { app, address, stop, served }
    }

    async fn connect(&self) -> Peer {
        Peer { stream: TcpStream::connect(&self.address).await.expect("a connection"), heard: String::new() }
    }

    async fn say(&self, text: &str) -> Peer {
        let mut peer = self.connect().await;
        peer.say(text).await;
        peer
    }

    /// A genuine notification as one HTTP request.
    fn genuine(&self) -> String {
        let permission = self.app.permission();
        let object = (ObjectType::ChargePermission, permission.as_str());
        let ipn = self.app.sandbox.ipn(object, &permission, NotificationType::StateChange);
        let message = self.app.sandbox.sign(&ipn, SignatureVersion::V1);
        request(message.body.len(), &message.body)
    }

    async fn stop(self) {
        self.stop.cancel();
        within(self.served).await.expect("no panic").expect("it stopped in order");
        self.app.finish().await;
    }
}

/// One end of a connection, with what was heard on it and not yet looked at.
struct Peer {
    stream: TcpStream,
    heard: String,
}

impl Peer {
    async fn say(&mut self, text: &str) {
        within(self.stream.write_all(text.as_bytes())).await.expect("it is taken");
    }

    /// Waits for text and takes everything up to its end.
    async fn hear(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.heard.find(text) {
                let rest = self.heard.split_off(at + text.len());
                return std::mem::replace(&mut self.heard, rest);
            }
            let mut buffer = [0; 4096];
            let read = within(self.stream.read(&mut buffer)).await.expect("a connection");
            assert!(read > 0, "closed after {:?}, without {text:?}", self.heard);
            self.heard.push_str(std::str::from_utf8(&buffer[..read]).expect("text"));
        }
    }

    /// Reads to the end, however it comes. What is sent into a closed connection resets it.
    async fn end(mut self) -> String {
        let mut rest = Vec::new();
        let _ = within(self.stream.read_to_end(&mut rest)).await;
        self.heard + &String::from_utf8(rest).expect("text")
    }

    async fn status(&mut self) -> u16 {
        let head = self.hear("\r\n\r\n").await;
        head.split(' ').nth(1).expect("a status").parse().expect("a number")
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

fn request(length: usize, body: &str) -> String {
    format!("POST /ipn HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// `100 Continue` comes when the handler reads the body: then the request is surely in hand.
const EXPECTING: &str = "POST /ipn HTTP/1.1\r\nhost: x\r\ncontent-length: 2000\r\nexpect: 100-continue\r\n\r\n";

async fn counted(app: &TestApp, metric: &str) -> f64 {
    let page = app.get("/metrics").await.body;
    let line = page.as_str().expect("text").lines().find_map(|line| line.strip_prefix(metric)).map(str::trim);
    line.expect("the metric").parse().expect("a number")
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed() {
    let bounded = Bounded::start(Limits { header_read: SHORT, ..CONNECTION }, REQUEST).await;
    assert_eq!(bounded.connect().await.end().await, "");
    bounded.stop().await;
}

#[tokio::test]
async fn a_connection_that_sends_half_a_header_is_closed_also_when_it_trickles() {
    let bounded = Bounded::start(Limits { header_read: SHORT, ..CONNECTION }, REQUEST).await;
    assert_eq!(bounded.say(HALF).await.end().await, "");
    let mut peer = bounded.say(HALF).await;
    within(trickle(&mut peer)).await;
    assert_eq!(peer.end().await, "");
    bounded.stop().await;
}

/// Sends a byte now and then until the other side speaks or closes.
async fn trickle(peer: &mut Peer) {
    while tokio::time::timeout(SHORT / 20, peer.stream.peek(&mut [0])).await.is_err() {
        if peer.stream.write_all(b"x").await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_answer() {
    let bounded = Bounded::start(Limits { header_read: SHORT, ..CONNECTION }, REQUEST).await;
    let mut peer = bounded.say("GET /nothing HTTP/1.1\r\n\r\n").await;
    assert_eq!(peer.status().await, 404);
    assert_eq!(peer.end().await, "");
    bounded.stop().await;
}

#[tokio::test]
async fn a_peer_that_reads_no_answers_loses_its_connection() {
    let bounded = Bounded::start(Limits { write: SHORT, ..CONNECTION }, REQUEST).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    // Little room, so that few answers fill it.
    socket.set_recv_buffer_size(4096).expect("a smaller buffer");
    let mut stream = socket.connect(bounded.address.parse().expect("an address")).await.expect("a connection");
    let requests = "GET /nothing HTTP/1.1\r\n\r\n".repeat(100);
    let flood = async { while stream.write_all(requests.as_bytes()).await.is_ok() {} };
    within(flood).await;
    bounded.stop().await;
}

#[tokio::test]
async fn trickling_bodies_are_ended_and_keep_no_genuine_message_out() {
    let limits = RequestLimits { body_read: SHORT, places: 1, ..REQUEST };
    let bounded = Bounded::start(CONNECTION, limits).await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut peer = bounded.say(EXPECTING).await;
        peer.hear("100 Continue\r\n\r\n").await;
        peer.say("{").await;
        slow.push(peer);
    }
    let mut genuine = bounded.say(&bounded.genuine()).await;
    assert_eq!(genuine.status().await, 200);
    for mut peer in slow {
        within(trickle(&mut peer)).await;
        let answer = peer.end().await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    assert_eq!(bounded.app.journal().await.len(), 1);
    bounded.stop().await;
}

#[tokio::test]
async fn large_bodies_that_use_up_the_memory_keep_no_genuine_message_out() {
    let bounded = Bounded::start(CONNECTION, RequestLimits { shared_bytes: 0, ..REQUEST }).await;
    let large = "x".repeat(17 * 1024);
    let mut peer = bounded.say(&request(large.len(), &large)).await;
    assert_eq!(peer.status().await, 503, "not 413: SNS must repeat it");
    let mut genuine = bounded.say(&bounded.genuine()).await;
    assert_eq!(genuine.status().await, 200);
    bounded.stop().await;
}

/// The start of a head.
const HALF: &str = "POST /ipn HTTP/1.1\r\nhost: x\r\nx-slow: ";

impl Bounded {
    /// With one place for messages: a connection whose message has it and waits for Redis, and one whose message was turned away.
    async fn one_waits_for_redis(&self) -> (Peer, Peer) {
        self.pause(&["PAUSE", "60000", "WRITE"]).await;
        let mut one = self.say(&self.genuine()).await;
        let mut other = self.say(&self.genuine()).await;
        // The other does not wait for anything.
        tokio::select! {
            status = one.status() => { assert_eq!(status, 503); (other, one) }
            status = other.status() => { assert_eq!(status, 503); (one, other) }
        }
    }

    async fn unpause(&self) {
        self.pause(&["UNPAUSE"]).await;
    }

    async fn pause(&self, words: &[&str]) {
        let mut redis = self.app.connection().await;
        let () = redis::cmd("CLIENT").arg(words).query_async(&mut redis).await.expect("CLIENT PAUSE");
    }

    async fn evicted(&self) -> f64 {
        counted(&self.app, &format!("{}{{listener=\"public\"}}", metric::CONNECTIONS_EVICTED)).await
    }

    /// A connection that is idle after an answer. Those opened before it are accepted.
    async fn idle(&self) -> Peer {
        let mut peer = self.say("GET /nothing HTTP/1.1\r\n\r\n").await;
        assert_eq!(peer.status().await, 404);
        peer
    }
}

#[tokio::test]
async fn silent_connections_that_fill_the_table_keep_no_genuine_message_out() {
    let bounded = Bounded::start(Limits { connections: 8, ..CONNECTION }, REQUEST).await;
    let before = bounded.evicted().await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(bounded.idle().await);
        silent.push(bounded.say(HALF).await);
        for _ in 0..6 {
            silent.push(bounded.connect().await);
        }
        let mut genuine = bounded.say(&bounded.genuine()).await;
        assert_eq!(genuine.status().await, 200);
    }
    assert_eq!(bounded.app.journal().await.len(), 4);
    // 36 connections, of which 8 are left and 4 ended by themselves. Other tests count too.
    assert!(bounded.evicted().await >= before + 24.0);
    bounded.stop().await;
}

#[tokio::test]
async fn the_connection_that_has_waited_longest_makes_room() {
    let bounded = Bounded::start(Limits { connections: 4, ..CONNECTION }, REQUEST).await;
    let mut first = bounded.connect().await;
    let silent = bounded.connect().await;
    let half = bounded.say(HALF).await;
    let idle = bounded.idle().await;
    // Opened before all others, and answered after them.
    first.say("GET /nothing HTTP/1.1\r\n\r\n").await;
    assert_eq!(first.status().await, 404);
    let mut younger = Vec::new();
    for victim in [silent, half, idle] {
        let mut genuine = bounded.say(&bounded.genuine()).await;
        assert_eq!(genuine.status().await, 200);
        assert_eq!(victim.end().await, "", "it made room");
        younger.push(genuine);
    }
    first.say(&bounded.genuine()).await;
    assert_eq!(first.status().await, 200, "it waited less long");
    bounded.stop().await;
}

#[tokio::test]
async fn bodies_that_do_not_come_make_room_and_fill_no_table() {
    let bounded = Bounded::start(Limits { connections: 2, ..CONNECTION }, REQUEST).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        for _ in 0..2 {
            let mut peer = bounded.say(EXPECTING).await;
            peer.hear("100 Continue\r\n\r\n").await;
            peer.say("{").await;
            slow.push(peer);
        }
        let mut genuine = bounded.say(&bounded.genuine()).await;
        assert_eq!(genuine.status().await, 200);
    }
    let mut last = slow.pop().expect("a peer");
    for peer in slow {
        assert_eq!(peer.end().await, "", "it made room");
    }
    bounded.stop.cancel();
    // The youngest is still there, and a stop waits for its body.
    last.say(&"x".repeat(1999)).await;
    assert_eq!(last.status().await, 400);
    bounded.stop().await;
}

#[tokio::test]
async fn a_message_in_hand_makes_no_room_however_many_come() {
    let bounded = Bounded::start(Limits { connections: 2, ..CONNECTION }, RequestLimits { places: 1, ..REQUEST }).await;
    let (mut waiting, mut silent) = bounded.one_waits_for_redis().await;
    for _ in 0..5 {
        let next = bounded.connect().await;
        // It makes room, and not the older one.
        silent.end().await;
        silent = next;
    }
    bounded.unpause().await;
    assert_eq!(waiting.status().await, 200);
    assert_eq!(bounded.app.journal().await.len(), 1);
    bounded.stop().await;
}

#[tokio::test]
async fn http_1_0_is_answered_and_then_closed() {
    let bounded = Bounded::start(CONNECTION, REQUEST).await;
    let message = bounded.genuine().replacen("HTTP/1.1", "HTTP/1.0", 1);
    let answer = bounded.say(&message).await.end().await;
    assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("OK"), "{answer}");
    bounded.stop().await;
}

#[tokio::test]
async fn headers_that_are_too_many_or_too_large_are_refused() {
    let bounded = Bounded::start(CONNECTION, REQUEST).await;
    let many = "x: y\r\n".repeat(CONNECTION.headers + 1);
    let large = format!("x: {}\r\n", "y".repeat(CONNECTION.buffer_bytes));
    for headers in [many, large] {
        let answer = bounded.say(&format!("POST /ipn HTTP/1.1\r\n{headers}\r\n")).await.end().await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "no body: {answer}");
    }
    bounded.stop().await;
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order_also_when_they_come_at_once() {
    let bounded = Bounded::start(CONNECTION, REQUEST).await;
    let mut peer = bounded.say(&bounded.genuine()).await;
    assert_eq!(peer.status().await, 200);
    peer.hear("OK").await;
    let all = [
        "GET /nothing HTTP/1.1\r\n\r\n".to_owned(),
        bounded.genuine(),
        "GET /ipn HTTP/1.1\r\n\r\n".to_owned(),
        request(2, "{}"),
        bounded.genuine(),
    ];
    peer.say(&all.concat()).await;
    let mut statuses = Vec::new();
    for body in ["", "OK", "", "Bad Request", "OK"] {
        statuses.push(peer.status().await);
        peer.hear(body).await;
    }
    assert_eq!(statuses, [404, 200, 405, 400, 200]);
    assert_eq!(bounded.app.journal().await.len(), 3);
    bounded.stop().await;
}

#[tokio::test]
async fn answers_say_no_more_than_they_must() {
    let bounded = Bounded::start(CONNECTION, REQUEST).await;
    let last = "connection: close\r\n\r\n";
    for (start, status, allowed) in [
        ("GET / HTTP/1.1\r\n", "404", ""),
        ("GET /ipn HTTP/1.1\r\n", "405", "allow: POST\r\n"),
        ("GET /ipn HTTP/1.1\r\nupgrade: h2c\r\n", "405", "allow: POST\r\n"),
    ] {
        let answer = bounded.say(&format!("{start}{last}")).await.end().await;
        let date = answer.lines().find(|line| line.starts_with("date: ")).map(|line| format!("{line}\r\n"));
        let answer = answer.replace(&date.expect("a date"), "");
        let (first, rest) = answer.split_once("\r\n").expect("a status line");
        assert!(first.starts_with(&format!("HTTP/1.1 {status} ")), "{first}");
        assert_eq!(rest, format!("{allowed}connection: close\r\ncontent-length: 0\r\n\r\n"));
    }
    let answer = bounded.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.end().await;
    assert!(!answer.contains(" 200 "), "HTTP/2 is not spoken: {answer}");
    bounded.stop().await;
}

#[tokio::test]
async fn messages_above_the_bound_get_503_while_others_are_in_hand() {
    let bounded = Bounded::start(CONNECTION, RequestLimits { places: 1, ..REQUEST }).await;
    let (mut waiting, _) = bounded.one_waits_for_redis().await;
    bounded.unpause().await;
    assert_eq!(waiting.status().await, 200);
    assert_eq!(bounded.app.journal().await.len(), 1);
    bounded.stop().await;
}

#[tokio::test]
async fn a_message_above_the_bound_stands_in_line_until_another_is_done_and_makes_no_room() {
    let limits = RequestLimits { places: 1, line: NEVER, ..REQUEST };
    let bounded = Bounded::start(Limits { connections: 3, ..CONNECTION }, limits).await;
    bounded.pause(&["PAUSE", "60000", "WRITE"]).await;
    let mut messages = [bounded.say(&bounded.genuine()).await, bounded.say(&bounded.genuine()).await];
    let mut silent = bounded.idle().await;
    for _ in 0..5 {
        let next = bounded.connect().await;
        assert_eq!(silent.end().await, "", "it makes room, and neither of the older ones");
        silent = next;
    }
    bounded.unpause().await;
    for peer in &mut messages {
        assert_eq!(peer.status().await, 200);
    }
    assert_eq!(bounded.app.journal().await.len(), 2);
    bounded.stop().await;
}

#[tokio::test]
async fn a_stop_finishes_the_request_in_hand_and_closes_connections_without_a_whole_head_at_once() {
    let bounded = Bounded::start(CONNECTION, REQUEST).await;
    let silent = bounded.connect().await;
    let half = bounded.say(HALF).await;
    let mut half_of_the_second = bounded.idle().await;
    half_of_the_second.say(HALF).await;
    let idle = bounded.idle().await;
    let message = bounded.genuine();
    let (head, body) = message.split_once("\r\n\r\n").expect("a head");
    let mut in_hand = bounded.say(&format!("{head}\r\nexpect: 100-continue\r\n\r\n")).await;
    in_hand.hear("100 Continue\r\n\r\n").await;
    bounded.stop.cancel();
    for peer in [silent, half, half_of_the_second, idle] {
        assert_eq!(peer.end().await, "");
    }
    assert!(!bounded.served.is_finished(), "a request is in hand");
    assert!(TcpStream::connect(&bounded.address).await.is_err(), "nothing new is accepted");
    in_hand.say(body).await;
    let answer = in_hand.hear("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(bounded.app.journal().await.len(), 1);
    bounded.stop().await;
}

#[tokio::test]
async fn open_connections_are_counted() {
    let app = TestApp::start().await;
    // Other tests run beside this one: what can be said is that the connection that asks is counted.
    assert!(counted(&app, &format!("{}{{listener=\"internal\"}}", metric::OPEN_CONNECTIONS)).await >= 1.0);
    app.finish().await;
}

#[test]
fn the_bounds_fit_together() {
    let sns_gives_up = Duration::from_secs(15);
    let (connection, request) = (Limits::PUBLIC, RequestLimits::PUBLIC);
    assert!(request.body_read < request.answer && request.answer < sns_gives_up);
    assert!(request.line < Duration::from_secs(1), "a refusal comes soon");
    let proxies_keep_idle_connections = Duration::from_mins(1);
    assert!(connection.header_read > proxies_keep_idle_connections, "the proxy is the first to close");
    assert!(request.places < connection.connections, "not all connections have a message in hand: one can make room");
    let drain = Duration::from_mins(1);
    for limits in [Limits::PUBLIC, Limits::INTERNAL] {
        assert!(
            request.answer + limits.write < drain,
            "a request does not hold up a stop, and half a header not at all"
        );
    }
    let kib = 1024;
    assert_eq!(connection.connections * 16 * kib + request.shared_bytes, 96 * kib * kib, "as the comment says");
    assert_eq!(connection.connections * connection.buffer_bytes, 64 * kib * kib, "as the comment says");
}
