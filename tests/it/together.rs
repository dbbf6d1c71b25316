//! Notifications that come at once are stored in one call: each for itself nevertheless.

use amazon_pay_ipn::model::hint::ObjectType;
use amazon_pay_ipn::model::ids::ChargePermissionId;
use amazon_pay_ipn::sandbox::Operation;
use amazon_pay_ipn::sandbox::redis_server::RedisServer;
use amazon_pay_ipn::store::notifications::{Accepted, Delivery, Named};
use amazon_pay_ipn::store::{Failure, Store, StoreError};
use tokio::task::JoinHandle;

use crate::process::signal;
use crate::support::servers::{ask, process_of};
use crate::support::{Options, TestApp};

/// Begins to store; what it comes to is told later. All that begin before anything is awaited wait together.
fn begin(app: &TestApp, message_id: &str, permission: &str) -> JoinHandle<Result<Accepted, StoreError>> {
    let (store, published_at) = (app.store.clone(), app.clock.now());
    let (message_id, permission) = (message_id.to_owned(), permission.parse().expect("an id"));
    tokio::spawn(async move { accept(&store, &message_id, &permission, published_at).await })
}

async fn accept(
    store: &Store,
    message_id: &str,
    permission: &ChargePermissionId,
    published_at: jiff::Timestamp,
) -> Result<Accepted, StoreError> {
    let topic_arn = "arn:aws:sns:us-east-1:1:t";
    let delivery = Delivery { message_id, topic_arn, published_at, body: "{}" };
    let named = Named {
        object_type: ObjectType::ChargePermission,
        object_id: &permission.clone().into(),
        charge_permission_id: permission,
        notification_type: "STATE_CHANGE",
        notification_id: "n",
    };
    store.accept_notification(&delivery, &named).await
}

#[tokio::test]
async fn notifications_that_come_at_once_are_stored_in_few_calls_and_each_once() {
    let app = TestApp::on_an_own_server().await;
    let permissions: Vec<String> = (0..5).map(|_| app.permission()).collect();
    let calls = || {
        let stats: String = ask(&app.redis.url_of_own(), &["INFO", "commandstats"]).expect("it answers");
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=").map(str::to_owned));
        line.and_then(|line| line.split(',').next().and_then(|count| count.parse::<u32>().ok())).unwrap_or(0)
    };
    // The first one makes the connection and has the script loaded.
    assert_eq!(begin(&app, "first", &permissions[0]).await.expect("no panic").expect("stored"), Accepted::Stored);
    let before = calls();
    let mut storing: Vec<_> =
        (0..200).map(|number| begin(&app, &format!("message-{number}"), &permissions[number % 5])).collect();
    storing.push(begin(&app, "message-7", &permissions[2]));
    let mut outcomes = Vec::new();
    for stored in storing {
        outcomes.push(stored.await.expect("no panic").expect("stored"));
    }
    assert_eq!(outcomes.pop(), Some(Accepted::Duplicate), "the same message twice in one go");
    assert_eq!(outcomes, [Accepted::Stored; 200]);
    let calls = calls() - before;
    // Seven, and what else the service does meanwhile.
    assert!((7..=15).contains(&calls), "{calls} calls for 201 messages");
    let journal = app.journal().await;
    assert_eq!(journal.len(), 201);
    app.run_due().await;
    assert_eq!(app.ledger().requests_of(Operation::GetChargePermission).len(), 5, "each permission was looked at");
    app.finish().await;
}

#[tokio::test]
async fn a_permission_with_broken_keys_refuses_its_own_notifications_and_none_beside_them() {
    let app = TestApp::start().await;
    let (good, wake, hash, hints) = (app.permission(), app.permission(), app.permission(), app.permission());
    let keys = app.store.keys();
    let id = |permission: &str| permission.parse::<ChargePermissionId>().expect("an id");
    let mut redis = app.connection().await;
    let broken: [[String; 4]; 3] = [
        ["HSET", &keys.permission(&id(&wake)), "wake", "not a number"].map(str::to_owned),
        ["HSET", &keys.hints(&id(&hash)), "another", "0 0 {}"].map(str::to_owned),
        ["SADD", &keys.hints(&id(&hints)), "somebody", "else's"].map(str::to_owned),
    ];
    for words in &broken {
        let () = redis::cmd(&words[0]).arg(&words[1..]).query_async(&mut redis).await.expect("written");
    }
    let () = redis::cmd("SET").arg(keys.permission(&id(&hash))).arg("x").query_async(&mut redis).await.expect("set");
    let all = [&wake, &good, &hash, &hints, &good];
    let storing: Vec<_> =
        all.iter().enumerate().map(|(place, permission)| begin(&app, &format!("m{place}"), permission)).collect();
    let mut outcomes = Vec::new();
    for stored in storing {
        outcomes.push(stored.await.expect("no panic"));
    }
    let names = |outcome: &Result<Accepted, StoreError>, key: String| matches!(outcome, Err(StoreError::WrongType(found)) if *found == key);
    assert!(names(&outcomes[0], keys.permission(&id(&wake))), "{:?}", outcomes[0]);
    assert!(matches!(outcomes[1], Ok(Accepted::Stored)), "{:?}", outcomes[1]);
    assert!(names(&outcomes[2], keys.permission(&id(&hash))), "{:?}", outcomes[2]);
    assert!(names(&outcomes[3], keys.hints(&id(&hints))), "{:?}", outcomes[3]);
    assert!(matches!(outcomes[4], Ok(Accepted::Stored)), "{:?}", outcomes[4]);
    assert_eq!(app.journal().await.len(), 2);
    // Mended, the next delivery does everything.
    for permission in [&wake, &hash, &hints] {
        let keys = [keys.permission(&id(permission)), keys.hints(&id(permission))];
        let () = redis::cmd("DEL").arg(&keys).query_async(&mut redis).await.expect("deleted");
    }
    for (place, permission) in [(0, &wake), (2, &hash), (3, &hints)] {
        assert!(matches!(begin(&app, &format!("m{place}"), permission).await.expect("no panic"), Ok(Accepted::Stored)));
    }
    app.run_due().await;
    assert_eq!(app.ledger().requests_of(Operation::GetChargePermission).len(), 4);
    app.finish().await;
}

#[tokio::test]
async fn whoever_waits_behind_a_call_that_gets_no_answer_is_told_with_it_and_not_a_time_out_later() {
    let redis = RedisServer::start().expect("a private Redis");
    let process = process_of(&redis);
    let app = TestApp::on(redis, Options::default()).await;
    let permission = app.permission();
    begin(&app, "first", &permission).await.expect("no panic").expect("stored");
    signal("STOP", process);
    let storing: Vec<_> = (0..100).map(|number| begin(&app, &format!("m{number}"), &permission)).collect();
    // Senders that go away leave what they sent behind: also that has a bound.
    let gone: Vec<_> = (0..5000).map(|number| begin(&app, &format!("gone{number}"), &permission)).collect();
    let mut refused = 0;
    for stored in gone {
        refused += u32::from(matches!(stored.await.expect("no panic"), Err(StoreError::Full(_))));
    }
    assert_eq!(refused, 5100 - 4096, "as many as find no room: all came before the first call went out");
    for stored in storing {
        let error = stored.await.expect("no panic").expect_err("no answer");
        assert_eq!(error.failure(), Some(Failure::TimedOut), "{error}");
    }
    signal("CONT", process);
    // The call that was under way may have reached it; the rest was not sent to wait for a time-out of its own.
    let stored = app.journal().await.len();
    assert!(stored == 1 || stored == 33, "{stored}");
    for number in 0..100 {
        begin(&app, &format!("m{number}"), &permission).await.expect("no panic").expect("stored or known");
    }
    assert_eq!(app.journal().await.len(), 101, "sent again, each is there once");
    app.run_due().await;
    app.finish().await;
}

#[tokio::test]
async fn what_waits_is_stored_though_its_sender_has_gone() {
    let app = TestApp::start().await;
    let permission = app.permission();
    let storing: Vec<_> = (0..10).map(|number| begin(&app, &format!("m{number}"), &permission)).collect();
    tokio::task::yield_now().await;
    for stored in storing {
        stored.abort();
    }
    let mut connection = app.connection().await;
    let mut length = 0;
    while length < 10 {
        length =
            redis::cmd("XLEN").arg(app.store.keys().journal()).query_async(&mut connection).await.expect("a number");
    }
    assert_eq!(length, 10);
    app.run_due().await;
    app.finish().await;
}
