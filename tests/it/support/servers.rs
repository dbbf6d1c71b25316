//! The kinds of Redis on which the stories run: `TEST_REDIS` is `plain` (the default), `valkey`, `acl`, `tls`, `sentinel` or `cluster`;
//! `scripts/redis-matrix` runs all of them. Everything listens on loopback and ends with the tests.

use std::cell::RefCell;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use amazon_pay_ipn::sandbox::redis_server::RedisServer;
use amazon_pay_ipn::store::TlsSettings;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::support::MINUTE;

/// What `start` of a server or the agreement of several may take.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// The merchant of the harness on every kind but `cluster`, where each test has an account of its own.
const MERCHANT: &str = "A2K7NDRCTOTPW9";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Valkey,
    Acl,
    Tls,
    Sentinel,
    Cluster,
}

/// The kind of this run.
#[expect(clippy::disallowed_methods, reason = "a switch of the harness, not a setting of the service")]
pub fn kind() -> Kind {
    match std::env::var("TEST_REDIS").unwrap_or_default().as_str() {
        "" | "plain" => Kind::Plain,
        "valkey" => Kind::Valkey,
        "acl" => Kind::Acl,
        "tls" => Kind::Tls,
        "sentinel" => Kind::Sentinel,
        "cluster" => Kind::Cluster,
        other => panic!("TEST_REDIS is {other}; expected plain, valkey, acl, tls, sentinel or cluster"),
    }
}

/// The Redis of one test, and how the service reaches it.
pub struct Redis {
    place: Place,
    /// For the service.
    pub url: String,
    pub tls: TlsSettings,
    /// The CA of `tls`, as a file.
    pub ca_file: Option<String>,
    /// The account that this test has.
    pub merchant: String,
    moved_to: Option<String>,
    /// How the Sentinels watch it.
    _watched: Option<Watched>,
}

enum Place {
    Own(RedisServer),
    Shared(Arc<Cluster>),
}

impl From<RedisServer> for Redis {
    /// A server that the test has set up for itself; it is reached over its socket unless the test says otherwise.
    fn from(server: RedisServer) -> Self {
        Self {
            url: server.url(),
            tls: TlsSettings::default(),
            ca_file: None,
            merchant: MERCHANT.to_owned(),
            moved_to: None,
            _watched: None,
            place: Place::Own(server),
        }
    }
}

impl Redis {
    /// Of the kind of this run. A cluster is shared by all tests of the process, each with an account of its own.
    pub fn start() -> Self {
        if kind() == Kind::Cluster { Self::on_the_shared_cluster() } else { Self::start_own() }
    }

    /// As [`Self::start`], but no other test is on it, so that it may be killed: a cluster of one node where the others are shared.
    pub fn start_own() -> Self {
        match kind() {
            Kind::Plain => RedisServer::start().expect("a private Redis").into(),
            Kind::Valkey => {
                let server = RedisServer::start().expect("a private Valkey");
                let info: String = admin_now(&server, &["INFO", "server"]);
                assert!(info.contains("server_name:valkey"), "the redis-server in the PATH is no Valkey: {info}");
                server.into()
            }
            Kind::Acl => {
                let rules = service_rules(MERCHANT);
                let user: Vec<&str> = ["--user", "ipn-service"].into_iter().chain(rules.split(' ')).collect();
                let redis = Self::from(RedisServer::start_with(&user).expect("a Redis with users"));
                let url = format!("{}?user=ipn-service&pass=secret", redis.url);
                Self { url, ..redis }
            }
            Kind::Tls => {
                let authority = authority();
                let server = authority.serve("redis", &[]);
                let tls = TlsSettings { ca_pem: Some(authority.read("ca.pem")), identity: None };
                let url = server.tls();
                Self { url, tls, ca_file: Some(authority.path("ca.pem")), ..Self::from(server.redis) }
            }
            Kind::Sentinel => {
                let server = Server::start("--port", &[]);
                Self::watched_by(&sentinels().ports, 2, server)
            }
            Kind::Cluster => {
                let node = Server::cluster_of_one("--port", &[]);
                Self { url: format!("redis-cluster://127.0.0.1:{}", node.port), ..Self::from(node.redis) }
            }
        }
    }

    fn on_the_shared_cluster() -> Self {
        Self::account_on(shared_cluster())
    }

    /// Another account on a cluster.
    pub fn account_on(cluster: &Arc<Cluster>) -> Self {
        static ACCOUNTS: AtomicUsize = AtomicUsize::new(0);
        Self {
            url: cluster.url(),
            tls: TlsSettings::default(),
            ca_file: None,
            merchant: format!("A2K7NDR{:07}", ACCOUNTS.fetch_add(1, Ordering::Relaxed)),
            moved_to: None,
            _watched: None,
            place: Place::Shared(Arc::clone(cluster)),
        }
    }

    /// A server that Sentinels watch from now on, under a name of its own.
    pub fn watched_by(sentinels: &[u16], quorum: usize, server: Server) -> Self {
        static NAMES: AtomicUsize = AtomicUsize::new(0);
        let name = format!("primary-{}", NAMES.fetch_add(1, Ordering::Relaxed));
        let (port, quorum) = (server.port.to_string(), quorum.to_string());
        for sentinel in sentinels {
            let () = call_now(*sentinel, &["SENTINEL", "MONITOR", &name, "127.0.0.1", &port, &quorum]);
            let () = call_now(*sentinel, &["SENTINEL", "SET", &name, "down-after-milliseconds", "1000"]);
            let () = call_now(*sentinel, &["SENTINEL", "SET", &name, "failover-timeout", "5000"]);
        }
        let hosts: Vec<String> = sentinels.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Self {
            url: format!("redis-sentinel://{}/{name}", hosts.join(",")),
            _watched: Some(Watched { name, sentinels: sentinels.to_vec() }),
            ..Self::from(server.redis)
        }
    }

    fn own(&mut self) -> &mut RedisServer {
        match &mut self.place {
            Place::Own(server) => server,
            Place::Shared(_) => panic!("this server is shared: a test that kills it uses TestApp::on_an_own_server"),
        }
    }

    pub fn kill(&mut self) {
        self.own().kill();
    }

    pub fn start_again(&mut self) {
        let server = self.own();
        server.start_again().expect("Redis starts again");
        if admin_now::<String>(server, &["INFO", "cluster"]).contains("cluster_enabled:1") {
            // A master that comes back takes no commands for two seconds.
            until("the cluster of one node", || cluster_is_ok(server));
        }
    }

    /// After a failover: where the data is now. The server that was its place stays, to be started again.
    pub fn now_at(&mut self, url: String) {
        self.moved_to = Some(url);
    }

    pub fn url_of_own(&self) -> String {
        match &self.place {
            Place::Own(server) => server.url(),
            Place::Shared(_) => panic!("this server is shared"),
        }
    }

    /// What was the primary comes back as a replica of the one on that port, as Sentinels would make it, and has everything.
    pub fn follow(&mut self, primary: u16) {
        let server = self.own();
        let () = admin_now(server, &["REPLICAOF", "127.0.0.1", &primary.to_string()]);
        let told = || admin_now::<String>(server, &["INFO", "replication"]);
        until_or("the old primary to follow", || follows(server), told);
    }

    /// Whether other tests have keys on it.
    pub fn is_shared(&self) -> bool {
        matches!(self.place, Place::Shared(_))
    }

    /// As who may do everything, on the server that holds this key.
    pub async fn admin(&self, key: &str) -> MultiplexedConnection {
        match &self.place {
            Place::Own(server) => connected(self.moved_to.as_ref().unwrap_or(&server.url())).await,
            Place::Shared(cluster) => cluster.admin(key).await,
        }
    }
}

/// What Sentinels watch, until the test ends.
struct Watched {
    name: String,
    sentinels: Vec<u16>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        for port in &self.sentinels {
            // The Sentinels of one test may be gone before it.
            let _: redis::RedisResult<()> =
                ask(&format!("redis://127.0.0.1:{port}"), &["SENTINEL", "REMOVE", &self.name]);
        }
    }
}

/// What docs/REDIS.md gives the service, `SCAN` included: the stories also recover after losses. And what the stories do in the place of
/// consumers and of who makes their groups, over the same store.
fn service_rules(merchant: &str) -> String {
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/REDIS.md")).expect("it");
    let line = document.split("ACL SETUSER ipn-service reset ").nth(1).and_then(|rest| rest.lines().next());
    let rules = line.expect("the line of the service").replace(">PASSWORD", ">secret");
    let rules = rules.replace("amazon-pay:{live:A2K7NDRCTOTPW9}:", &format!("test:{{sandbox:{merchant}}}:"));
    format!("{rules} +scan +xgroup +xreadgroup +xack +xautoclaim")
}

// --- One server ------------------------------------------------------------------------------------------------------------------

/// A free port below those that the system gives to outgoing connections, so that a server that is started again finds it free.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..10_000 {
        let turn = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)) + std::process::id() * 211;
        let port = 11_000 + u16::try_from(turn % 20_000).expect("below 20,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// A server on a loopback port.
pub struct Server {
    pub redis: RedisServer,
    pub port: u16,
}

impl Server {
    pub fn start(kind_of_port: &str, more: &[&str]) -> Self {
        // Somebody may take the port in between; then another one is tried.
        for _ in 0..5 {
            let port = free_port();
            // A replica is served at once, not after five seconds in which others might ask as well.
            let first = [kind_of_port, &port.to_string(), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"];
            let first = first.map(str::to_owned);
            let first: Vec<&str> = first.iter().map(String::as_str).collect();
            if let Ok(redis) = RedisServer::start_with(&[&first, more].concat()) {
                return Self { redis, port };
            }
        }
        panic!("redis-server does not start with {more:?}");
    }

    pub fn tls(&self) -> String {
        format!("rediss://localhost:{}", self.port)
    }

    /// A cluster of one node.
    pub fn cluster_of_one(kind_of_port: &str, more: &[&str]) -> Self {
        let node = cluster_node(kind_of_port, more);
        let () = admin_now(&node.redis, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        until("the cluster of one node", || cluster_is_ok(&node.redis));
        node
    }

    /// A server and its replica, which has everything that it has.
    pub fn with_replica() -> (Self, Self) {
        Self::pair("--port", &[])
    }

    /// As [`Self::with_replica`], with more settings of both.
    pub fn pair(kind_of_port: &str, more: &[&str]) -> (Self, Self) {
        let primary = Self::start(kind_of_port, more);
        // Among its settings, so that it is a replica again when it is started again.
        let leader = ["--replicaof", "127.0.0.1", &primary.port.to_string()];
        let replica = Self::start(kind_of_port, &[more, &leader].concat());
        until("the replica to follow", || follows(&replica.redis));
        (primary, replica)
    }
}

/// Stops or continues (`STOP`, `CONT`) a server that this test has started.
pub fn signal(server: &RedisServer, name: &str, process: u32) {
    crate::process::signal(name, process);
    if name == "CONT" {
        until("the server to answer", || ask::<String>(&server.url(), &["PING"]).is_ok());
    }
}

pub fn process_of(server: &RedisServer) -> u32 {
    let info: String = admin_now(server, &["INFO", "server"]);
    let line = info.lines().find_map(|line| line.strip_prefix("process_id:")).expect("a process id");
    line.trim().parse().expect("a number")
}

/// How many bytes of what the primary has written the replica has not.
pub fn lag(primary: &str, replica: &str) -> u64 {
    let offset = |url: &str, name: &str| -> u64 {
        let info: String = ask(url, &["INFO", "replication"]).expect("it answers");
        let line = info.lines().find_map(|line| line.strip_prefix(name)).expect("an offset");
        line.trim().parse().expect("a number")
    };
    let has = offset(replica, "slave_repl_offset:");
    offset(primary, "master_repl_offset:").saturating_sub(has)
}

/// A server that changes its part closes its connections: then the answer is no, for now.
pub fn says(server: &RedisServer, section: &str, line: &str) -> bool {
    ask::<String>(&server.url(), &["INFO", section]).is_ok_and(|info| info.lines().any(|found| found == line))
}

pub fn follows(server: &RedisServer) -> bool {
    says(server, "replication", "master_link_status:up")
}

pub async fn connected(url: &str) -> MultiplexedConnection {
    use redis::IntoConnectionInfo;
    let info = url.into_connection_info().expect("a URL");
    // Newer servers know CLIENT SETINFO, and would note that a restricted user may not.
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    let client = redis::Client::open(info.set_redis_settings(settings)).expect("a URL");
    // Half a second and a whole one, the defaults, are little where everything is read at once and the machine is busy.
    let patient =
        redis::AsyncConnectionConfig::new().set_response_timeout(Some(MINUTE)).set_connection_timeout(Some(MINUTE));
    client.get_multiplexed_async_connection_with_config(&patient).await.expect("a connection")
}

/// One command over the server's socket, as the default user.
pub fn admin_now<T: redis::FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    ask(&server.url(), words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

pub fn call_now<T: redis::FromRedisValue>(port: u16, words: &[&str]) -> T {
    ask(&format!("redis://127.0.0.1:{port}"), words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

pub fn ask<T: redis::FromRedisValue>(url: &str, words: &[&str]) -> redis::RedisResult<T> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query(&mut connection)
}

/// Waits for what several processes have to agree on; not for ever.
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    until_or(what, holds, String::new);
}

fn until_or(what: &str, mut holds: impl FnMut() -> bool, told: impl Fn() -> String) {
    #[expect(clippy::disallowed_methods, reason = "how long the test itself has waited")]
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}: {}", told());
        std::thread::sleep(PAUSE);
    }
}

/// What all tests of the process share. A thread that lasts starts it: servers end with the thread that started them.
fn lasting<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = tell.send(start());
        loop {
            std::thread::park();
        }
    });
    told.recv().expect("the shared servers start")
}

// --- TLS -------------------------------------------------------------------------------------------------------------------------

/// A CA with what it issued, as files.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> &'static Authority {
    static SHARED: OnceLock<Authority> = OnceLock::new();
    SHARED.get_or_init(|| {
        let authority = Authority::new();
        authority.issue("redis", "localhost", |_| {});
        authority
    })
}

impl Authority {
    pub fn new() -> Self {
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "A private CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let folder = TempDir::new().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), ca.self_signed(&key).expect("a CA").pem()).expect("a file");
        Self { folder, issuer: Issuer::new(ca, key) }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file")
    }

    /// Writes `<name>.pem` and `<name>.key`.
    pub fn issue(&self, name: &str, host: &str, change: impl FnOnce(&mut CertificateParams)) {
        let mut leaf = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut leaf);
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("a file");
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("a file");
    }

    /// What a server shows, as its settings.
    pub fn settings(&self, certificate: &str) -> Vec<String> {
        let (file, key) = (self.path(&format!("{certificate}.pem")), self.path(&format!("{certificate}.key")));
        let ca = self.path("ca.pem");
        let settings = ["--tls-cert-file", &file, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        settings.into_iter().chain(["--tls-auth-clients", "no"]).map(str::to_owned).collect()
    }

    /// A server that shows a certificate on a loopback port.
    pub fn serve(&self, certificate: &str, more: &[&str]) -> Server {
        let settings = self.settings(certificate);
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        Server::start("--tls-port", &[&settings, more].concat())
    }
}

// --- Sentinel --------------------------------------------------------------------------------------------------------------------

/// Three Sentinels.
pub struct Sentinels {
    pub ports: Vec<u16>,
    children: Vec<Child>,
    _folder: TempDir,
}

/// Those that all tests of the process share.
pub fn sentinels() -> &'static Sentinels {
    static SHARED: OnceLock<Sentinels> = OnceLock::new();
    SHARED.get_or_init(|| lasting(|| Sentinels::start("")))
}

impl Sentinels {
    /// With more lines of their configuration.
    pub fn start(more: &str) -> Self {
        Self::start_each(|| more.to_owned())
    }

    /// Also at another port each, over TLS, and with nothing but TLS between them and the servers that they watch. Returns these ports, too.
    pub fn start_over_tls(authority: &Authority, certificate: &str) -> (Self, Vec<u16>) {
        let ports = RefCell::new(Vec::new());
        let sentinels = Self::start_each(|| {
            let port = free_port();
            ports.borrow_mut().push(port);
            let settings = authority.settings(certificate);
            let words = settings.iter().map(|word| word.strip_prefix("--").map_or(format!(" {word}\n"), str::to_owned));
            format!("tls-port {port}\ntls-replication yes\n{}", words.collect::<String>())
        });
        (sentinels, ports.into_inner())
    }

    fn start_each(more: impl Fn() -> String) -> Self {
        let folder = TempDir::with_prefix("amazon-pay-ipn-sentinels-").expect("a folder");
        let mut ports = Vec::new();
        let mut children = Vec::new();
        for _ in 0..3 {
            let port = free_port();
            let file = folder.path().join(format!("{port}.conf"));
            let place = folder.path().display();
            let more = more();
            let settings = format!("port {port}\nbind 127.0.0.1\ndir {place}\nloglevel warning\n{more}\n");
            std::fs::write(&file, settings).expect("a file");
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "redis-server"]).arg(&file).arg("--sentinel");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            children.push(command.spawn().expect("a Sentinel"));
            until("the Sentinel to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
            ports.push(port);
        }
        Self { ports, children, _folder: folder }
    }
}

impl Sentinels {
    /// Waits until each has found a replica of that master: without one it has nobody to promote.
    pub fn know_a_replica_of(&self, name: &str) {
        let knows = |port: &u16| {
            let replicas: Vec<redis::Value> = call_now(*port, &["SENTINEL", "REPLICAS", name]);
            let others: Vec<redis::Value> = call_now(*port, &["SENTINEL", "SENTINELS", name]);
            replicas.len() == 1 && others.len() == 2
        };
        until("the Sentinels to know the replica", || self.ports.iter().all(knows));
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

// --- Cluster ---------------------------------------------------------------------------------------------------------------------

/// Three masters with a replica each: the replica of node n is node n + 3.
pub struct Cluster {
    pub nodes: Vec<Server>,
}

fn shared_cluster() -> &'static Arc<Cluster> {
    static SHARED: OnceLock<Arc<Cluster>> = OnceLock::new();
    SHARED.get_or_init(|| lasting(|| Arc::new(Cluster::start(&[]))))
}

fn cluster_node(kind_of_port: &str, more: &[&str]) -> Server {
    let bus = free_port().to_string();
    let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--cluster-port", &bus];
    let settings = [&settings[..], &["--cluster-require-full-coverage", "no"]].concat();
    Server::start(kind_of_port, &[&settings, more].concat())
}

fn cluster_is_ok(node: &RedisServer) -> bool {
    admin_now::<String>(node, &["CLUSTER", "INFO"]).contains("cluster_state:ok")
}

impl Cluster {
    /// Six processes, with more of the server's settings.
    pub fn start(more: &[&str]) -> Self {
        let nodes: Vec<Server> = (0..6).map(|_| cluster_node("--port", more)).collect();
        for (index, node) in nodes.iter().enumerate() {
            let () = admin_now(&node.redis, &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        for (node, (first, last)) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
            let () = admin_now(&node.redis, &["CLUSTER", "ADDSLOTSRANGE", first, last]);
        }
        // All of them of all, so that nobody has to wait for the gossip.
        for node in &nodes {
            for other in &nodes {
                let bus = admin_now::<(String, String)>(&other.redis, &["CONFIG", "GET", "cluster-port"]).1;
                let () = admin_now(&node.redis, &["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), &bus]);
            }
        }
        let agreed = |node: &Server| {
            let known: String = admin_now(&node.redis, &["CLUSTER", "NODES"]);
            known.lines().count() == 6 && !known.contains("handshake") && cluster_is_ok(&node.redis)
        };
        until("six nodes to know each other", || nodes.iter().all(agreed));
        for (replica, master) in nodes[3..].iter().zip(&nodes) {
            let id: String = admin_now(&master.redis, &["CLUSTER", "MYID"]);
            let () = admin_now(&replica.redis, &["CLUSTER", "REPLICATE", &id]);
        }
        until("the replicas to follow", || nodes[3..].iter().all(|node| follows(&node.redis)));
        // Every node tells who replicates whom: without that a failover finds nobody to elect.
        let told = |node: &Server| {
            let slots: Vec<Vec<redis::Value>> = admin_now(&node.redis, &["CLUSTER", "SLOTS"]);
            slots.len() == 3 && slots.iter().all(|range| range.len() == 4)
        };
        until("the replicas to be known", || nodes.iter().all(told));
        Self { nodes }
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis-cluster://{}", hosts.join(","))
    }

    /// The slot of a key.
    pub fn slot(&self, key: &str) -> u16 {
        let answers = |node: &&Server| ask::<u16>(&node.redis.url(), &["CLUSTER", "KEYSLOT", key]).ok();
        self.nodes.iter().find_map(|node| answers(&node)).expect("a node answers")
    }

    /// The index of the node that believes itself to be the master of the key's slot.
    pub fn master_of(&self, key: &str) -> Option<usize> {
        let slot = i64::from(self.slot(key));
        self.nodes.iter().position(|node| {
            let slots: Vec<Vec<redis::Value>> = ask(&node.redis.url(), &["CLUSTER", "SLOTS"]).unwrap_or_default();
            slots.iter().any(|range| {
                let [redis::Value::Int(first), redis::Value::Int(last), redis::Value::Array(master), ..] = &range[..]
                else {
                    return false;
                };
                (*first..=*last).contains(&slot) && master.get(1) == Some(&redis::Value::Int(i64::from(node.port)))
            })
        })
    }

    /// Whether the replica of a master has everything.
    pub fn replica_has_everything(&self, master: usize) -> bool {
        lag(&self.nodes[master].redis.url(), &self.nodes[master + 3].redis.url()) == 0
    }

    /// As who may do everything, on the master that holds this key.
    pub async fn admin(&self, key: &str) -> MultiplexedConnection {
        let master = self.master_of(key).expect("a master of the slot");
        connected(&self.nodes[master].redis.url()).await
    }
}
