//! A Redis that moves or falls silent: the way to it is found again with the next command, without a restart.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use amazon_pay_ipn::sandbox::redis_server::RedisServer;
use amazon_pay_ipn::store::account::Init;
use amazon_pay_ipn::store::{Store, StoreError};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::support::{Options, TestApp};

/// The address of Redis as a name service or a load balancer gives it: where it leads to can change, for new connections.
struct Address {
    url: String,
    leads_to: Arc<Mutex<PathBuf>>,
    silence: CancellationToken,
}

impl Address {
    async fn of(redis: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("redis://{}", listener.local_addr().expect("an address"));
        let (leads_to, silence) = (Arc::new(Mutex::new(socket(redis))), CancellationToken::new());
        let (target, silent) = (Arc::clone(&leads_to), silence.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = target.lock().expect("no panic").clone();
                tokio::spawn(carry(client, target, silent.clone()));
            }
        });
        Self { url, leads_to, silence }
    }

    fn lead_to(&self, redis: &RedisServer) {
        *self.leads_to.lock().expect("no panic") = socket(redis);
    }

    /// The connections of now stay open and say nothing more; new ones work.
    fn fall_silent(&self) {
        self.silence.cancel();
    }
}

fn socket(redis: &RedisServer) -> PathBuf {
    redis.url().strip_prefix("redis+unix://").expect("a socket").into()
}

/// Carries until one side ends; `silent` takes effect on connections that were made before it.
async fn carry(mut client: TcpStream, target: PathBuf, silent: CancellationToken) {
    let mut server = UnixStream::connect(target).await.expect("a server");
    let silent = if silent.is_cancelled() { CancellationToken::new() } else { silent };
    let carried = silent.run_until_cancelled(tokio::io::copy_bidirectional(&mut client, &mut server)).await;
    if carried.is_none() {
        // Neither read nor closed, as behind a proxy whose backend is gone.
        std::future::pending::<()>().await;
    }
}

async fn reached_over(address: &Address, redis: RedisServer) -> TestApp {
    TestApp::on(redis, Options { redis_url: Some(address.url.clone()), ..Options::default() }).await
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_left_for_the_one_to_which_the_address_leads_now() {
    let (old, new) = (RedisServer::start().expect("a Redis"), RedisServer::start().expect("a Redis"));
    let address = Address::of(&old).await;
    let app = reached_over(&address, old).await;
    app.store.set_stop(true).await.expect("it can be written to");
    let mut settings = app.settings.store.clone();
    settings.url = new.url().into();
    let heir = Store::connect(settings, app.settings.account.clone(), app.clock.clone()).expect("a store");
    heir.init(Init::First).await.expect("the new primary has the marker");

    // A failover that closes nothing: `REPLICAOF` leaves the clients connected.
    let mut connection = app.connection().await;
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec_async(&mut connection).await.expect("it obeys");
    address.lead_to(&new);

    let refused = app.store.set_stop(false).await.expect_err("a replica is not written to");
    assert!(refused.to_string().starts_with("the Redis of REDIS_URL is a replica"), "{refused}");
    app.store.set_stop(true).await.expect("the new primary is");
    assert!(heir.account().await.expect("an answer").stopped_since.is_some());
    app.finish().await;
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_left_after_one_command() {
    let redis = RedisServer::start().expect("a Redis");
    let address = Address::of(&redis).await;
    let app = reached_over(&address, redis).await;
    app.store.account().await.expect("an answer");
    address.fall_silent();
    let lost = app.store.account().await.expect_err("nobody answers");
    assert!(matches!(lost, StoreError::Unavailable(ref error) if error.is_timeout()), "{lost}");
    app.store.account().await.expect("a new connection answers");
    app.finish().await;
}

#[tokio::test]
async fn on_a_replica_the_service_is_not_ready() {
    // A node of a cluster does not obey REPLICAOF.
    let app = TestApp::on(RedisServer::start().expect("a Redis"), Options::default()).await;
    assert_eq!(app.get("/readyz").await.status, 200);
    // Its primary does not exist: it goes on serving what it has, and refuses writes.
    let mut connection = app.connection().await;
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec_async(&mut connection).await.expect("it obeys");
    let answer = app.get("/readyz").await;
    assert_eq!((answer.status, &answer.body["ready"]), (503, &serde_json::json!(false)), "{}", answer.body);
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut connection).await.expect("it obeys");
    assert_eq!(app.get("/readyz").await.status, 200);
    app.finish().await;
}
