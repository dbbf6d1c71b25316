//! The event stream as others use it: read again, and trimmed only once every consumer group has had its events.

use std::time::Duration;

use amazon_pay_ipn::store::{Store, StoreSettings};
use serde_json::{Value, json};

use crate::process::{Environment, run, text};
use crate::support::{CENTURY, DAY, TestApp};

fn lines(output: &std::process::Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn environment(app: &TestApp) -> Environment {
    Environment::of(&app.redis, &app.sandbox)
}

#[tokio::test]
async fn a_consumer_that_lost_its_place_gets_its_events_again_and_no_group_is_touched() {
    let app = TestApp::start().await;
    let (one, other) = (app.permission(), app.permission());
    app.submit("first", &one).await;
    app.submit("second", &other).await;
    app.run_due().await;
    app.store.create_group("billing").await.expect("a group");
    let before = app.store.event_groups().await.expect("groups");
    let environment = environment(&app);

    let events = app.events().await;
    let replayed = run(&mut environment.program(&["events", "replay"]));
    assert_eq!(replayed.status.code(), Some(0), "{}", text(&replayed.stderr));
    let all = lines(&replayed);
    let ids = |lines: &[Value]| {
        lines.iter().map(|line| line["id"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&all), events.iter().map(|event| event["id"].clone()).collect::<Vec<_>>());
    assert_eq!(all[0]["data"]["chargeAmount"]["amount"], "14.00");

    let of_one = lines(&run(&mut environment.program(&[
        "events",
        "replay",
        "--permission",
        &one,
        "--since",
        "2020-01-01T00:00:00Z",
    ])));
    let expected: Vec<Value> = all.iter().filter(|line| line["subject"] == one.as_str()).cloned().collect();
    assert!(!expected.is_empty() && expected.len() < all.len());
    assert_eq!(of_one, expected);
    let captured = ["events", "replay", "--permission", &one, "--type", "amazonpay.charge.captured.v1"];
    assert_eq!(lines(&run(&mut environment.program(&captured)))[0]["data"]["id"], "first");
    let last_but_one = all[all.len() - 2]["entry"].as_str().expect("an entry");
    assert_eq!(
        lines(&run(&mut environment.program(&["events", "replay", "--after", last_but_one]))),
        all[all.len() - 1..]
    );
    assert!(lines(&run(&mut environment.program(&["events", "replay", "--since", "2999-01-01T00:00:00Z"]))).is_empty());
    assert_eq!(
        run(&mut environment.program(&["events", "replay", "--type", "charge.captured"])).status.code(),
        Some(2)
    );

    let tail = run(&mut environment.program(&["events", "tail", "--limit", "2"]));
    let shown = text(&tail.stdout);
    assert_eq!(shown.lines().count(), 3, "{shown}");
    assert!(shown.starts_with("TIME ") && shown.contains("charge.captured"), "{shown}");
    assert_eq!(
        lines(&run(&mut environment.program(&["events", "tail", "--limit", "2", "--json"]))),
        all[all.len() - 2..]
    );

    assert_eq!(app.events().await, events, "nothing was written");
    let places = |groups: &[amazon_pay_ipn::store::groups::Group]| -> Vec<_> {
        groups.iter().map(|group| (group.name.clone(), group.pending, group.oldest)).collect()
    };
    assert_eq!(places(&app.store.event_groups().await.expect("groups")), places(&before));

    // What is gone is said.
    let key = app.store.keys().events();
    let () = redis::cmd("XTRIM")
        .arg(&key)
        .arg("MINID")
        .arg(last_but_one)
        .query_async(&mut app.connection().await)
        .await
        .expect("XTRIM");
    let rest = run(&mut environment.program(&["events", "replay"]));
    assert_eq!((rest.status.code(), lines(&rest).len()), (Some(3), 2));
    assert!(text(&rest.stderr).contains("were removed"), "{}", text(&rest.stderr));
    assert_eq!(run(&mut environment.program(&["events", "replay", "--after", last_but_one])).status.code(), Some(0));
    app.finish().await;
}

#[tokio::test]
async fn old_events_stay_for_the_slowest_group_until_it_was_waited_for_long_enough() {
    let app = TestApp::with_old_events_for(&["quick-group", "slow-group"]).await;
    let key = app.store.keys().events();
    let mut connection = app.connection().await;
    let waiting_for = |limit| {
        let settings =
            StoreSettings { event_retention: 30 * DAY, event_retention_limit: limit, ..app.settings.store.clone() };
        Store::connect(settings, app.settings.account.clone(), app.clock.clone()).expect("a store")
    };
    let read = async |group: &str, count: usize| {
        let events = app.store.read_group(group, "worker", count, Duration::from_millis(1)).await.expect("events");
        events.into_iter().map(|event| event.entry).collect::<Vec<_>>()
    };
    let patient = waiting_for(CENTURY);

    // Nobody has read anything: everything stays, and that is told, once a day.
    assert_eq!(patient.trim_events().await.expect("trimmed"), 0);
    assert_eq!(patient.trim_events().await.expect("trimmed"), 0);
    let alerts = app.alerts_about_groups().await;
    assert_eq!(alerts, [json!({ "kind": "consumers_behind", "groups": ["quick-group", "slow-group"] })]);

    // The slower one has acknowledged one, and has another in hand.
    let quick = read("quick-group", 100).await;
    assert_eq!(quick.len(), 4, "three and the alert");
    app.store
        .acknowledge("quick-group", &quick.iter().map(String::as_str).collect::<Vec<_>>())
        .await
        .expect("acknowledged");
    assert_eq!(read("slow-group", 2).await, ["1000-0", "2000-0"]);
    assert_eq!(patient.trim_events().await.expect("trimmed"), 0, "read is not acknowledged");
    app.store.acknowledge("slow-group", &["1000-0"]).await.expect("acknowledged");
    assert_eq!(patient.trim_events().await.expect("trimmed"), 1);
    let groups = app.store.event_groups().await.expect("groups");
    let slow = groups.iter().find(|group| group.name == "slow-group").expect("the group");
    assert_eq!((slow.pending, slow.oldest.map(|entry| entry.ms)), (1, Some(2000)));
    assert!(slow.behind_s > 40 * 365 * 86_400, "{slow:?}");
    let metrics = app.get("/metrics").await.body;
    let metrics = metrics.as_str().expect("text");
    assert!(metrics.contains("amazon_pay_ipn_consumer_pending{group=\"slow-group\"} 1"), "{metrics}");
    assert!(metrics.contains("amazon_pay_ipn_consumer_behind_seconds{group=\"quick-group\"} 0"), "{metrics}");

    // It does not come back: at the limit its events go, and that is told too.
    assert_eq!(waiting_for(60 * DAY).trim_events().await.expect("trimmed"), 2);
    let alerts = app.alerts_about_groups().await;
    assert_eq!(alerts[1..], [json!({ "kind": "consumers_left_behind", "groups": ["slow-group"] })]);

    // A group that is gone keeps nothing and shows nothing.
    let () = redis::cmd("XGROUP")
        .arg("DESTROY")
        .arg(&key)
        .arg("slow-group")
        .query_async(&mut connection)
        .await
        .expect("XGROUP");
    let metrics = app.get("/metrics").await.body;
    assert!(metrics.as_str().expect("text").contains("amazon_pay_ipn_consumer_pending{group=\"slow-group\"} 0"));
    app.finish().await;
}

#[tokio::test]
async fn a_dead_group_stops_no_charge_a_stream_that_is_half_full_waits_for_nobody() {
    let app = TestApp::with_old_events_for(&["dead"]).await;
    let of = |events| {
        let bounds = amazon_pay_ipn::store::Bounds { events, ..app.settings.store.bounds };
        let settings = StoreSettings { event_retention_limit: CENTURY, bounds, ..app.settings.store.clone() };
        Store::connect(settings, app.settings.account.clone(), app.clock.clone()).expect("a store")
    };
    assert_eq!(of(20).trim_events().await.expect("trimmed"), 0, "there is room");
    assert_eq!(of(4).trim_events().await.expect("trimmed"), 3);
    assert_eq!(app.alerts_about_groups().await.len(), 2);
    app.finish().await;
}

impl TestApp {
    /// Three events of the first seconds of 1970, and groups that have read none of them. The service is away meanwhile: it removes what
    /// nobody waits for.
    async fn with_old_events_for(groups: &[&str]) -> Self {
        let mut app = Self::start().await;
        app.stop_service().await;
        let (key, mut connection) = (app.store.keys().events(), app.connection().await);
        for group in groups {
            app.store.create_group(group).await.expect("a group");
        }
        for ms in [1000, 2000, 3000] {
            let mut add = redis::cmd("XADD");
            add.arg(&key).arg(format!("{ms}-0")).arg("id").arg(ms);
            let () = add.query_async(&mut connection).await.expect("XADD");
        }
        app.restart().await;
        app
    }

    /// Kinds and groups of the alerts that name groups.
    async fn alerts_about_groups(&self) -> Vec<Value> {
        let events = self.events().await;
        let data = events.iter().filter_map(|event| serde_json::from_str::<Value>(event.get("data")?).ok());
        data.filter(|data| data["groups"].is_array())
            .map(|data| json!({ "kind": data["kind"], "groups": data["groups"] }))
            .collect()
    }
}
