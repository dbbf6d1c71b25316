//! What the service could reach, as raw TCP listeners that count every accepted connection.
//!
//! Every answer ends its connection, so that one connection is one request, and a connection without a request counts too.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::authority::{issued, keys, params, self_signed};

const CONFIRMED: &str = "<ConfirmSubscriptionResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\">\
    <ConfirmSubscriptionResult><SubscriptionArn>arn:aws:sns:us-east-1:291180941288:t:u</SubscriptionArn>\
    </ConfirmSubscriptionResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></ConfirmSubscriptionResponse>";

/// Where our own connections come from; the service's come from 127.0.0.1.
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// What a listener does with a request.
#[derive(Clone)]
pub enum Reply {
    /// 200 with this body.
    Body(Vec<u8>),
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes again and again until the other side goes away.
    Endless(Vec<u8>),
    /// These bytes, or none, and then nothing for as long as the other side waits.
    Stalled(Vec<u8>),
}

impl Reply {
    pub fn pem(pem: String) -> Self {
        Self::Body(pem.into_bytes())
    }

    pub fn status(line: &str, headers: &str) -> Self {
        Self::Bytes(format!("HTTP/1.1 {line}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n").into_bytes())
    }
}

/// One listener.
pub struct Host {
    pub address: SocketAddr,
    replies: Arc<Mutex<BTreeMap<String, Reply>>>,
    accepted: watch::Receiver<Accepted>,
    /// One count at a time.
    counting: tokio::sync::Mutex<()>,
}

/// Connections so far: of others, and of our own, which are made only to count.
#[derive(Debug, Clone, Copy, Default)]
struct Accepted {
    others: usize,
    own: usize,
}

impl Host {
    /// Listens on a free port of `ip`; paths without a reply of their own get `otherwise`.
    async fn start(ip: &str, otherwise: Reply) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.expect("a loopback address");
        let address = listener.local_addr().expect("an address");
        let replies = Arc::new(Mutex::new(BTreeMap::new()));
        let (sender, accepted) = watch::channel(Accepted::default());
        let table = Arc::clone(&replies);
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                sender.send_modify(|accepted| match peer.ip() {
                    IpAddr::V4(OWN_ADDRESS) => accepted.own += 1,
                    _ => accepted.others += 1,
                });
                tokio::spawn(answer(stream, Arc::clone(&table), otherwise.clone()));
            }
        });
        Self { address, replies, accepted, counting: tokio::sync::Mutex::default() }
    }

    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves `reply` under a certificate's file name that nobody else has, and says the address.
    pub fn serve(&self, name: &str, reply: Reply) -> String {
        let path = format!("/{}", file_name(name));
        let before = self.replies.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), reply);
        assert!(before.is_none(), "{name} is served twice");
        format!("{}{path}", self.base())
    }

    /// Connections of others so far. One of our own is made now and waited for: whatever came before it has been accepted by then.
    pub async fn connections(&self) -> usize {
        let _one_at_a_time = self.counting.lock().await;
        let mut accepted = self.accepted.clone();
        let before = accepted.borrow_and_update().own;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((OWN_ADDRESS, 0).into()).expect("a loopback address");
        let probe = socket.connect(self.address).await.expect("a connection of our own");
        let seen = accepted.wait_for(|accepted| accepted.own > before).await.expect("the listener lives").others;
        drop(probe);
        seen
    }
}

async fn answer(mut stream: TcpStream, replies: Arc<Mutex<BTreeMap<String, Reply>>>, otherwise: Reply) {
    let mut request = Vec::new();
    let mut buffer = [0_u8; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
    let reply = replies.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned().unwrap_or(otherwise);
    let bytes = match reply {
        Reply::Body(body) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            [head.into_bytes(), body].concat()
        }
        Reply::Bytes(bytes) => bytes,
        Reply::Endless(bytes) => {
            if stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await.is_ok() {
                while stream.write_all(&bytes).await.is_ok() {}
            }
            return;
        }
        Reply::Stalled(bytes) => {
            let _ = stream.write_all(&bytes).await;
            while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
            return;
        }
    };
    if stream.write_all(&bytes).await.is_ok() && stream.shutdown().await.is_ok() {
        // Until the other side has read all: closing with bytes unread would break the answer off.
        while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    }
}

/// `SimpleNotificationService-<32 hex digits>.pem`, the digits from a name.
pub fn file_name(name: &str) -> String {
    format!("SimpleNotificationService-{}.pem", &hex_of(name)[..32])
}

pub fn hex_of(name: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(name))
}

/// How many connections each listener has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// For certificates.
    pub certificates: usize,
    /// For `ConfirmSubscription`.
    pub api: usize,
    /// The attacker's, the messages' own links, and Amazon Pay: always 0.
    pub forbidden: [usize; 3],
}

/// All that can be reached.
pub struct Net {
    /// `SNS_CERTIFICATE_BASE_URL` points here.
    pub certificates: Host,
    /// The attacker's: a certificate of the right name with the attacker's key, at every path.
    pub evil: Host,
    /// The SNS API.
    api: Host,
    /// What `SubscribeURL` and `UnsubscribeURL` point at.
    pub links: Host,
    /// Amazon Pay.
    amazon: Host,
    /// Where SNS's own certificate is.
    pub genuine: String,
    genuine_pem: String,
}

impl Net {
    pub async fn start() -> Self {
        let certificates = Host::start("127.0.0.1", Reply::status("404 Not Found", "")).await;
        let genuine_pem = issued(&params(), &keys().genuine);
        let genuine = certificates.serve("genuine", Reply::pem(genuine_pem.clone()));
        Self {
            certificates,
            evil: Host::start("127.0.0.2", Reply::pem(self_signed(&params(), &keys().attacker))).await,
            api: Host::start("127.0.0.1", Reply::Body(CONFIRMED.into())).await,
            links: Host::start("127.0.0.1", Reply::Body(CONFIRMED.into())).await,
            amazon: Host::start("127.0.0.1", Reply::status("404 Not Found", "")).await,
            genuine,
            genuine_pem,
        }
    }

    /// SNS's own certificate at an address of its own, as long as that of [`Self::genuine`].
    pub fn genuine_at(&self, name: &str) -> String {
        self.certificates.serve(&format!("genuine, for {name}"), Reply::pem(self.genuine_pem.clone()))
    }

    pub fn api_base(&self) -> String {
        self.api.base()
    }

    pub fn amazon_base(&self) -> String {
        self.amazon.base()
    }

    pub async fn connections(&self) -> Connections {
        Connections {
            certificates: self.certificates.connections().await,
            api: self.api.connections().await,
            forbidden: [self.evil.connections().await, self.links.connections().await, self.amazon.connections().await],
        }
    }
}
