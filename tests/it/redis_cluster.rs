//! A Redis Cluster of six processes: several accounts on different shards, a slot that moves under work, a master that dies.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use amazon_pay_ipn::sandbox::{DeclineCode, Outcome};
use amazon_pay_ipn::store::Failure;
use amazon_pay_ipn::store::account::{Init, Initialised};

use crate::process;
use crate::support::servers::{Cluster, Redis, admin_now, process_of};
use crate::support::{HOUR, MINUTE, Options, TestApp, X};

/// One account on each of the three shards, by the index of its master.
async fn accounts(cluster: &Arc<Cluster>) -> BTreeMap<usize, TestApp> {
    let mut accounts = BTreeMap::new();
    while accounts.len() < 3 {
        let redis = Redis::account_on(cluster);
        let marker = format!("test:{{sandbox:{}}}:marker", redis.merchant);
        let master = cluster.master_of(&marker).expect("a master");
        if let Entry::Vacant(free) = accounts.entry(master) {
            free.insert(TestApp::on(redis, Options::default()).await);
        }
    }
    accounts
}

/// A charge that is declined once and then captured, and a notification: everything that has a script.
async fn story(app: &TestApp, id: &str) {
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit(id, &permission).await;
    assert_eq!(app.deliver(&app.notification(&permission)).await, 200);
    app.pass(60 * HOUR, 6 * HOUR).await;
    assert_eq!(app.state(id).await, "captured");
    assert_eq!(app.ledger().captured_of(&permission).len(), 1);
}

/// The slot of the account goes to another master while there is work; `halfway` sees it in between, when that key is there already and the
/// others are not.
async fn move_slot(cluster: &Cluster, app: &TestApp, to: usize, first: &str, halfway: impl AsyncFnOnce()) {
    let marker = app.store.keys().marker();
    let from = cluster.master_of(&marker).expect("a master");
    let slot = cluster.slot(&marker).to_string();
    let id = |index: usize| admin_now::<String>(&cluster.nodes[index].redis, &["CLUSTER", "MYID"]);
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
    let () = admin_now(&target.redis, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
    let () = admin_now(&source.redis, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    let port = target.port.to_string();
    let migrate = |key: &str| {
        let () = admin_now(&source.redis, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
    };
    migrate(first);
    halfway().await;
    let keys: Vec<String> = admin_now(&source.redis, &["CLUSTER", "GETKEYSINSLOT", &slot, "10000"]);
    for key in &keys {
        migrate(key);
    }
    for node in [target, source] {
        let () = admin_now(&node.redis, &["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
    }
}

#[tokio::test]
async fn accounts_on_three_shards_outlive_a_slot_that_moves_and_a_master_that_dies() {
    let cluster = Arc::new(Cluster::start(&[]));
    let accounts = accounts(&cluster).await;
    for app in accounts.values() {
        story(app, "first").await;
    }

    // A slot moves from the first shard to the second.
    let app = &accounts[&0];
    let permission = app.permission();
    app.submit("under-way", &permission).await;
    let message = app.notification(&permission);
    move_slot(&cluster, app, 1, &app.store.keys().marker(), async || {
        for _ in 0..2 {
            assert_eq!(app.deliver(&message).await, 503, "its keys are on two nodes");
        }
        let error = app.store.set_stop(false).await.expect_err("its keys are on two nodes");
        assert_eq!(error.failure(), Some(Failure::SlotMoved), "{error}");
        let unready = app.get("/readyz").await;
        assert_eq!(unready.status, 503);
        assert!(
            unready.body["detail"].as_str().expect("a detail").contains("moves to another node"),
            "{}",
            unready.body
        );
        assert!(app.reconciler.step().await.is_err());
        assert_eq!(app.creates(), 2, "nothing is sent that cannot be marked");
        for other in [1, 2] {
            assert_eq!(accounts[&other].get("/readyz").await.status, 200, "the other accounts do not notice");
        }
    })
    .await;
    // MOVED, and then the right way.
    let answers = [app.deliver(&message).await, app.deliver(&message).await];
    assert_eq!(answers, [503, 200]);
    assert_eq!(cluster.master_of(&app.store.keys().marker()), Some(1));
    // Another server: its marks count as lost for X, so the first answer is asked for again if it is a decline.
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.run_due().await;
    assert_eq!(app.charge("under-way").await["numberStatus"], "unknown", "the send was tainted");
    app.pass(2 * X, 10 * MINUTE).await;
    app.pass(60 * HOUR, 6 * HOUR).await;
    assert_eq!(app.state("under-way").await, "captured");
    assert_eq!(app.ledger().captured_of(&permission).len(), 1);

    // The master of the third shard dies; its replica takes over.
    let app = &accounts[&2];
    let permission = app.permission();
    app.submit("at-the-failover", &permission).await;
    let marker = app.store.keys().marker();
    process::until("its replica to have everything", || cluster.replica_has_everything(2)).await;
    process::signal("KILL", process_of(&cluster.nodes[2].redis));
    process::until("the replica to take over", || cluster.master_of(&marker) == Some(5)).await;
    let message = app.notification(&permission);
    let mut answers = Vec::new();
    while answers.last() != Some(&200) && answers.len() < 500 {
        answers.push(app.deliver(&message).await);
    }
    assert_eq!(answers.pop(), Some(200));
    assert!(answers.iter().all(|status| *status == 503), "{answers:?}");
    for other in [0, 1] {
        assert_eq!(accounts[&other].get("/readyz").await.status, 200, "the other accounts do not notice");
    }
    app.run_due().await;
    assert_eq!(app.state("at-the-failover").await, "captured");
    story(app, "after-the-failover").await;
    for (_, app) in accounts {
        app.finish().await;
    }
}

/// `SCAN` names no key, so the node that an account is leaving goes on answering it, with what it still has.
#[tokio::test]
async fn a_recovery_that_could_not_see_all_charges_because_the_slot_was_moving_is_no_success() {
    let cluster = Arc::new(Cluster::start(&[]));
    let accounts = accounts(&cluster).await;
    let app = &accounts[&0];
    let permission = app.permission();
    app.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined)).expect("a permission");
    app.submit("waiting", &permission).await;
    assert_eq!(app.deliver(&app.notification(&permission)).await, 200);
    app.run_due().await;
    let intent = app.store.keys().intent(&"waiting".parse().expect("an id"));
    move_slot(&cluster, app, 1, &intent, async || {
        let error = app.store.init(Init::AfterRestore).await.expect_err("one charge is at the other node already");
        assert_eq!(error.failure(), Some(Failure::SlotMoved), "{error}");
        // The keys of its script are all here still, so it was the walk that failed.
        assert!(app.store.account().await.expect("Redis answers").recovering);
    })
    .await;
    // MOVED, and then the right way.
    let again = [app.store.init(Init::AfterRestore).await, app.store.init(Init::AfterRestore).await];
    assert_eq!(again[0].as_ref().expect_err("it has moved").failure(), Some(Failure::SlotMoved));
    assert_eq!(*again[1].as_ref().expect("Redis answers"), Initialised::Done { held: 1 });
    assert_eq!(app.state("waiting").await, "held");
    assert_eq!(app.delete("/v1/stop").await.status, 200);
    app.pass(60 * HOUR, 6 * HOUR).await;
    assert_eq!(app.creates(), 1, "what is held is not sent");

    // Accounts of the same prefix on other nodes are not seen, and the preflight must not say that there are none.
    let seen = app.store.accounts_under_prefix().await.expect("Redis answers");
    assert!(seen.found.contains(&seen.own) && seen.found.len() < accounts.len(), "{seen:?}");
    assert!(seen.left_out.is_some_and(|why| why.contains("cluster")), "{seen:?}");
    for (_, app) in accounts {
        app.finish().await;
    }
}
