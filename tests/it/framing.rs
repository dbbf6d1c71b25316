//! HTTP that two readers read differently. A proxy in front of the service may see one request where the service sees two: then what is
//! left over would be taken for the beginning of the next sender's message, which is lost.

use std::time::Duration;

use amazon_pay_ipn::sandbox::{NotificationType, ObjectType, SignatureVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::TestApp;

const PATIENCE: Duration = Duration::from_mins(1);

fn genuine(app: &TestApp) -> String {
    let permission = app.permission();
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    app.sandbox.sign(&ipn, SignatureVersion::V1).body
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

fn plain(body: &str) -> String {
    format!("POST /ipn HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Everything that is answered until the service closes the connection. Our own side stays open, so that it is the service who ends it.
async fn answered(app: &TestApp, sent: &str) -> String {
    let address = app.public.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let mut answer = Vec::new();
    let talk = async {
        let _ = stream.write_all(sent.as_bytes()).await;
        // Unread bytes reset the connection, which ends it as well.
        let _ = stream.read_to_end(&mut answer).await;
    };
    tokio::time::timeout(PATIENCE, talk).await.expect("the connection ends");
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn nothing_is_heard_after_a_request_that_is_framed_in_two_ways() {
    let app = TestApp::start().await;
    for (round, framing) in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        "transfer-encoding: chunked\r\nx: y\r\ncontent-length: 0\r\ncontent-length: 9\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let (body, smuggled) = (genuine(&app), genuine(&app));
        let first = format!("POST /ipn HTTP/1.1\r\nhost: x\r\n{framing}\r\n{}", chunked(&body));
        let answer = answered(&app, &(first + &plain(&smuggled))).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{framing:?}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{framing:?}: {answer}");
        let journal = app.journal().await;
        assert_eq!(journal.len(), round + 1, "{framing:?}");
        assert!(journal.iter().all(|entry| entry["body"] != smuggled), "{framing:?}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_request_without_one_clear_length_is_not_read() {
    let app = TestApp::start().await;
    let body = genuine(&app);
    let (length, chunks) = (body.len(), chunked(&body));
    for (framing, body) in [
        (format!("content-length: {length}\r\ncontent-length: 5\r\n"), &body),
        (format!("content-length: {length}, {length}\r\n"), &body),
        (format!("content-length: +{length}\r\n"), &body),
        (format!("content-length: 0x{length:x}\r\n"), &body),
        (format!("content-length : {length}\r\n"), &body),
        (format!("content-length:\r\n {length}\r\n"), &body),
        (format!("content-length: 99999999999999999999{length}\r\n"), &body),
        ("transfer-encoding: identity\r\n".to_owned(), &chunks),
        ("transfer-encoding: xchunked\r\n".to_owned(), &chunks),
        ("transfer-encoding: chunked, identity\r\n".to_owned(), &chunks),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n".to_owned(), &chunks),
        ("transfer-encoding : chunked\r\n".to_owned(), &chunks),
        ("transfer-encoding:\r\n chunked\r\n".to_owned(), &chunks),
        ("transfer-encoding: \u{b}chunked\r\n".to_owned(), &chunks),
        (format!("x: a\rb\r\ncontent-length: {length}\r\n"), &body),
    ] {
        let answer = answered(&app, &format!("POST /ipn HTTP/1.1\r\nhost: x\r\n{framing}\r\n{body}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{framing:?}: {answer}");
    }
    let answer = answered(&app, &format!("POST /ipn HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(app.journal().await.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn no_other_spelling_of_the_path_or_the_method_reaches_the_receiver() {
    let app = TestApp::start().await;
    let body = genuine(&app);
    let (close, length) = ("connection: close\r\n", body.len());
    for path in [
        "/ipn/",
        "//ipn",
        "/IPN",
        "/%69pn",
        "/ipn%2f",
        "/./ipn",
        "/x/../ipn",
        "/ipn;x",
        "*",
        "ipn",
        "/",
        "/v1/charges",
        "/metrics",
        "/healthz",
    ] {
        let sent = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{close}content-length: {length}\r\n\r\n{body}");
        let answer = answered(&app, &sent).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    for (method, more) in [
        ("GET", ""),
        ("GET", "x-http-method-override: POST\r\n"),
        ("PUT", ""),
        ("post", ""),
        ("CONNECT", ""),
        ("OPTIONS", ""),
        ("TRACE", ""),
    ] {
        let sent = format!("{method} /ipn HTTP/1.1\r\nhost: x\r\n{close}{more}content-length: {length}\r\n\r\n{body}");
        let answer = answered(&app, &sent).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{method} {more}: {answer}");
    }
    assert!(app.journal().await.is_empty());
    app.finish().await;
}
