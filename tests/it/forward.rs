//! One IPN URL for two: what was accepted reaches an older handler as Amazon signed it, at least once, and nothing here waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::forwarder::{ForwardSettings, Forwarder};
use amazon_pay_ipn::sandbox::{
    Forgery, NotificationType, ObjectType, PermissionSpec, Sandbox, SandboxSettings, SignatureVersion, SignedMessage,
};
use amazon_pay_ipn::sns::{Headers, Verifier};
use amazon_pay_ipn::store::account::Init;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use tokio_util::sync::CancellationToken;

use crate::process::{Environment, Served, run, text, until};
use crate::support::servers::Redis;
use crate::support::{DAY, HOUR, MINUTE, TestApp};

/// What the older handler was sent: body and headers.
type Received = (String, BTreeMap<String, String>);

/// Instead of a status: no answer.
const NEVER: u16 = 0;

/// The handler that was there before.
#[derive(Clone)]
struct OldHandler {
    url: String,
    inner: Arc<Mutex<(u16, Vec<Received>)>>,
}

impl OldHandler {
    async fn start() -> Self {
        let inner = Arc::new(Mutex::new((200, Vec::new())));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/old/ipn.php?shop=7", listener.local_addr().expect("an address"));
        let handler = Self { url, inner };
        let take = |State(handler): State<Self>, headers: HeaderMap, body: Bytes| async move {
            match handler.take(&headers, &body) {
                NEVER => std::future::pending().await,
                status => {
                    let status = StatusCode::from_u16(status).expect("a status");
                    (status, [(header::LOCATION, "/elsewhere")]).into_response()
                }
            }
        };
        // Whatever comes elsewhere is noted too: nothing should.
        let router = Router::new().route("/old/ipn.php", post(take)).fallback(take).with_state(handler.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        handler
    }

    /// Keeps a request, and says how to answer it.
    fn take(&self, headers: &HeaderMap, body: &Bytes) -> u16 {
        let text = |value: &header::HeaderValue| value.to_str().expect("text").to_owned();
        let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let mut inner = self.inner.lock().expect("nobody panicked");
        inner.1.push((String::from_utf8(body.to_vec()).expect("UTF-8"), headers));
        inner.0
    }

    fn answers(&self, status: u16) {
        self.inner.lock().expect("nobody panicked").0 = status;
    }

    fn received(&self) -> Vec<Received> {
        self.inner.lock().expect("nobody panicked").1.clone()
    }

    fn bodies(&self) -> Vec<String> {
        self.received().into_iter().map(|(body, _)| body).collect()
    }

    fn settings(&self) -> ForwardSettings {
        ForwardSettings {
            url: self.url.clone().into(),
            at_once: 16,
            timeout: Duration::from_secs(10),
            give_up: ForwardSettings::GIVE_UP,
        }
    }

    async fn forwarder(&self, app: &TestApp) -> Forwarder {
        let forwarder =
            Forwarder::new(self.settings(), app.store.clone(), CancellationToken::new()).expect("a forwarder");
        forwarder.begin().await.expect("Redis answers");
        forwarder
    }
}

/// Delivers a notification and returns its body.
async fn accept(app: &TestApp) -> String {
    let message = app.notification(&app.permission());
    assert_eq!(app.deliver(&message).await, 200);
    message.body
}

/// They go at the same time, so they come in any order.
fn sorted(bodies: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut bodies: Vec<String> = bodies.into_iter().collect();
    bodies.sort();
    bodies
}

async fn step(forwarder: &Forwarder) -> usize {
    forwarder.step().await.expect("Redis answers")
}

async fn waiting(app: &TestApp) -> usize {
    app.store.levels().await.expect("Redis answers").forward
}

#[tokio::test]
async fn what_was_accepted_reaches_the_older_handler_once_as_amazon_signed_it() {
    let app = TestApp::start().await;
    let old = OldHandler::start().await;
    let forwarder = old.forwarder(&app).await;
    let permission = app.permission();
    let messages = [SignatureVersion::V1, SignatureVersion::V2].map(|version| {
        let object = (ObjectType::ChargePermission, permission.as_str());
        let ipn = app.sandbox.ipn(object, &permission, NotificationType::StateChange);
        app.sandbox.sign(&ipn, version)
    });
    for message in &messages {
        assert_eq!(app.deliver(message).await, 200);
        // SNS delivers at least once.
        assert_eq!(app.deliver(message).await, 200);
    }
    let mut forged: SignedMessage = app.notification(&permission);
    forged.body = forged.body.replace("STATE_CHANGE", "STATE_CHANG3");
    assert_ne!(app.deliver(&forged).await, 200);

    assert_eq!(step(&forwarder).await, 2);
    assert_eq!(step(&forwarder).await, 0);
    assert_eq!(sorted(old.bodies()), sorted(messages.clone().map(|message| message.body)));
    // The handler checks for itself, as it did when SNS called it.
    let verifier = Verifier::new(app.settings.sns.clone(), app.clock.clone()).expect("a verifier");
    for (body, headers) in old.received() {
        let of = |name: &str| headers.get(name).map(String::as_str);
        let given = Headers {
            message_type: of("x-amz-sns-message-type"),
            message_id: of("x-amz-sns-message-id"),
            topic_arn: of("x-amz-sns-topic-arn"),
            raw_delivery: false,
        };
        assert!(given.message_type.is_some() && given.message_id.is_some() && given.topic_arn.is_some());
        assert_eq!(of("content-type"), Some("text/plain; charset=UTF-8"));
        verifier.verify(&given, body.as_bytes()).await.expect("genuine");
    }
    assert_eq!(waiting(&app).await, 0);
    app.finish().await;
}

#[tokio::test]
async fn what_is_not_taken_is_tried_again_ever_more_seldom_until_it_is() {
    let app = TestApp::start().await;
    let old = OldHandler::start().await;
    let forwarder = old.forwarder(&app).await;
    // A redirect is not followed: what was signed goes to nobody else.
    accept(&app).await;
    for (tries, (status, wait)) in (1..).zip([(500, 6), (302, 11), (429, 20)]) {
        old.answers(status);
        assert_eq!(step(&forwarder).await, 1);
        assert_eq!((step(&forwarder).await, old.received().len()), (0, tries));
        assert_eq!(waiting(&app).await, 1);
        app.advance(Duration::from_secs(wait));
    }
    // It has waited 37 s, so it waits about as long again.
    assert_eq!(step(&forwarder).await, 1);
    app.advance(Duration::from_secs(20));
    assert_eq!(step(&forwarder).await, 0);
    app.advance(Duration::from_secs(20));
    old.answers(202);
    assert_eq!((step(&forwarder).await, waiting(&app).await), (1, 0));
    app.advance(DAY);
    assert_eq!(step(&forwarder).await, 0);
    assert_eq!(old.received().len(), 5);
    app.finish().await;
}

#[tokio::test]
async fn a_handler_that_is_not_there_loses_nothing_and_another_one_goes_on_where_it_was() {
    let app = TestApp::start().await;
    let old = OldHandler::start().await;
    let nobody = ForwardSettings { url: "http://127.0.0.1:1/ipn".to_owned().into(), ..old.settings() };
    let forwarder = Forwarder::new(nobody, app.store.clone(), CancellationToken::new()).expect("a forwarder");
    forwarder.begin().await.expect("Redis answers");
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(accept(&app).await);
    }
    assert_eq!(step(&forwarder).await, 3);
    let forwarder = old.forwarder(&app).await;
    app.advance(HOUR);
    assert_eq!(step(&forwarder).await, 3);
    assert_eq!(sorted(old.bodies()), sorted(sent));
    app.finish().await;
}

#[tokio::test]
async fn a_notification_that_is_never_taken_is_given_up_and_told_once_a_day() {
    let app = TestApp::start().await;
    let old = OldHandler::start().await;
    let forwarder = old.forwarder(&app).await;
    old.answers(503);
    for _ in 0..2 {
        accept(&app).await;
    }
    assert_eq!(step(&forwarder).await, 2);
    app.advance(3 * DAY - HOUR);
    // One at a time, to see whether it is there again.
    for expected in [1, 1, 0] {
        assert_eq!((step(&forwarder).await, waiting(&app).await), (expected, 2));
    }
    app.advance(HOUR);
    for left in [1, 0] {
        assert_eq!((step(&forwarder).await, waiting(&app).await), (1, left));
    }
    let alerts = app.events_of("account.attention").await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["kind"], "not_forwarded");
    app.finish().await;
}

#[tokio::test]
async fn what_the_handler_calls_wrong_is_tried_for_an_hour_from_then_on_and_is_no_alert() {
    let app = TestApp::start().await;
    let old = OldHandler::start().await;
    let forwarder = old.forwarder(&app).await;
    // It was away for a day, and when it comes back it calls wrong what it takes a little later.
    old.answers(502);
    let late = accept(&app).await;
    assert_eq!(step(&forwarder).await, 1);
    app.advance(DAY);
    old.answers(400);
    assert_eq!((step(&forwarder).await, waiting(&app).await), (1, 1));
    app.advance(HOUR / 2 + MINUTE);
    old.answers(200);
    assert_eq!((step(&forwarder).await, waiting(&app).await), (1, 0));
    assert_eq!(old.bodies(), [late.clone(), late.clone(), late]);
    // What it calls wrong for an hour it does not want; another answer in between begins the hour anew.
    old.answers(400);
    accept(&app).await;
    assert_eq!(step(&forwarder).await, 1);
    for (status, wait) in [(400, HOUR - MINUTE), (500, HOUR), (400, HOUR), (400, HOUR - MINUTE)] {
        app.advance(wait);
        old.answers(status);
        assert_eq!((step(&forwarder).await, waiting(&app).await), (1, 1), "{status}");
    }
    app.advance(HOUR);
    assert_eq!((step(&forwarder).await, waiting(&app).await), (1, 0));
    assert_eq!(app.events_of("account.attention").await.len(), 0);
    assert_eq!(app.journal().await.len(), 2);
    app.finish().await;
}

#[tokio::test]
async fn one_that_hangs_keeps_nothing_else_waiting() {
    let app = TestApp::start().await;
    let old = OldHandler::start().await;
    let forwarder = old.forwarder(&app).await;
    let stop = CancellationToken::new();
    let running = {
        let (forwarder, stop) = (forwarder.clone(), stop.clone());
        tokio::spawn(async move { stop.run_until_cancelled(forwarder.run()).await })
    };
    old.answers(NEVER);
    let hanging = accept(&app).await;
    until("the one that hangs", || old.bodies() == [hanging.clone()]).await;
    // Nor does what they are about wait for it.
    app.run_due().await;
    assert_eq!(app.store.levels().await.expect("Redis answers").due, 0);
    old.answers(200);
    let next = accept(&app).await;
    until("the next one", || old.bodies().contains(&next)).await;
    stop.cancel();
    running.await.expect("no panic");
    app.finish().await;
}

#[tokio::test]
async fn what_waited_for_too_long_before_it_was_tried_is_told_and_not_left_out_in_silence() {
    let app = TestApp::start().await;
    let old = OldHandler::start().await;
    let forwarder = old.forwarder(&app).await;
    let message = app.notification(&app.permission());
    // Accepted in 1970, as it were.
    let () = redis::cmd("XADD")
        .arg(app.store.keys().journal())
        .arg(&["1-1", "message_id", &message.message_id, "topic_arn", app.sandbox.topic_arn(), "body", &message.body])
        .exec_async(&mut app.connection().await)
        .await
        .expect("XADD");
    assert_eq!((step(&forwarder).await, waiting(&app).await), (1, 0));
    assert_eq!(old.bodies().len(), 0);
    assert_eq!(app.events_of("account.attention").await[0]["kind"], "not_forwarded");
    app.finish().await;
}

#[tokio::test]
async fn after_a_loss_of_data_everything_that_comes_is_forwarded() {
    let app = TestApp::start().await;
    let old = OldHandler::start().await;
    let forwarder = old.forwarder(&app).await;
    accept(&app).await;
    app.lose_everything().await;
    assert!(forwarder.step().await.is_err(), "without its marker nothing is done");
    app.store.init(Init::First).await.expect("Redis answers");
    assert_eq!(step(&forwarder).await, 0);
    // Another instance that starts after that leaves nothing out.
    let after = accept(&app).await;
    let another = old.forwarder(&app).await;
    assert_eq!(step(&another).await, 1);
    assert_eq!(old.bodies(), [after]);
    app.finish().await;
}

#[tokio::test]
async fn what_a_dead_instance_had_in_hand_is_sent_by_another() {
    let app = TestApp::start().await;
    let old = OldHandler::start().await;
    let forwarder = old.forwarder(&app).await;
    let body = accept(&app).await;
    let hold = Duration::from_secs(40);
    let taken = app.store.take_forwards(10, hold, DAY).await.expect("Redis answers");
    assert_eq!(taken.forwards.len(), 1);
    // It dies here. As long as it may be at work nobody else takes it.
    assert_eq!(step(&forwarder).await, 0);
    app.advance(hold);
    assert_eq!(step(&forwarder).await, 1);
    assert_eq!(old.bodies(), [body]);
    app.finish().await;
}

#[tokio::test]
async fn forwarding_begins_with_what_comes_then_and_goes_on_where_it_was_after_a_restart() {
    let mut app = TestApp::start().await;
    let old = OldHandler::start().await;
    accept(&app).await;
    let forwarder = old.forwarder(&app).await;
    assert_eq!(step(&forwarder).await, 0);
    let first = accept(&app).await;
    assert_eq!(step(&forwarder).await, 1);
    drop(forwarder);
    // Without a forwarder for a while.
    let second = accept(&app).await;
    app.restart().await;
    let forwarder = old.forwarder(&app).await;
    assert_eq!(step(&forwarder).await, 1);
    assert_eq!(old.bodies(), [first, second]);
    app.finish().await;
}

#[tokio::test]
async fn many_are_sent_some_at_a_time_and_each_of_them_once_by_two_instances() {
    let app = TestApp::start().await;
    let old = OldHandler::start().await;
    let (one, other) = (old.forwarder(&app).await, old.forwarder(&app).await);
    let mut sent = Vec::new();
    for _ in 0..40 {
        sent.push(accept(&app).await);
    }
    let (first, second) = tokio::join!(step(&one), step(&other));
    assert_eq!((first, second), (16, 16));
    assert_eq!(step(&one).await + step(&other).await, 8);
    assert_eq!(sorted(old.bodies()), sorted(sent));
    app.finish().await;
}

#[tokio::test]
async fn what_is_no_notification_is_not_forwarded_and_what_needs_a_person_is() {
    let app = TestApp::start().await;
    let old = OldHandler::start().await;
    let forwarder = old.forwarder(&app).await;
    for message in [
        app.sandbox.sign_subscription_confirmation(SignatureVersion::V1),
        app.sandbox.sign_unsubscribe_confirmation(SignatureVersion::V1),
    ] {
        assert_eq!(app.deliver(&message).await, 200);
    }
    // Genuine, of our topic, and about another merchant: SNS would have sent it to the older handler too.
    let permission = app.permission();
    let ipn = app.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let strange = app.sandbox.forge(&ipn, Forgery::ForeignMerchant).expect("a message");
    assert_eq!(app.deliver(&strange).await, 200);
    assert_eq!(app.quarantine().await.len(), 1);
    while step(&forwarder).await > 0 {}
    assert_eq!(old.bodies(), [strange.body]);
    app.finish().await;
}

#[tokio::test]
async fn a_real_process_forwards_and_what_it_had_in_hand_when_it_was_killed_is_sent_by_the_next_one() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redis = Redis::start_own();
    let sandbox = Sandbox::start(SandboxSettings::new(Clock::system())).await.expect("the sandbox");
    let old = OldHandler::start().await;
    let mut environment = Environment::of(&redis, &sandbox);
    let file = |name: &str, text: &str| {
        let path = environment.folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (anchors, clock) = (file("anchors", sandbox.trust_anchor_pem()), file("clock", "0"));
    for (name, value) in [
        ("SNS_CERTIFICATE_BASE_URL", sandbox.certificate_base_url().to_owned()),
        ("SNS_CERTIFICATE_NAME", sandbox.certificate_name().to_owned()),
        ("SNS_TRUST_ANCHORS_FILE", anchors),
        ("CLOCK_OFFSET_FILE", clock.clone()),
        ("FORWARD_URL", old.url.clone()),
    ] {
        environment.set(name, value);
    }
    let output = run(&mut environment.program(&["init", "--first"]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let served = Served::start(&environment);
    old.answers(NEVER);
    let permission = sandbox.create_permission(PermissionSpec::recurring("USD"));
    let ipn = sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
    let message = sandbox.sign(&ipn, SignatureVersion::V2);
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().expect("a client");
    let answer = http.post(format!("http://{}/ipn", served.public)).body(message.body.clone()).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
    until("the message at the older handler", || old.received().len() == 1).await;
    // SIGKILL, with the answer outstanding.
    drop(served);
    old.answers(200);
    std::fs::write(&clock, Duration::from_mins(1).as_millis().to_string()).expect("a file");
    let mut served = Served::start(&environment);
    until("the message again", || old.received().len() == 2).await;
    assert_eq!(old.bodies(), [message.body.clone(), message.body]);
    served.terminate();
    assert_eq!(served.ended().await.code(), Some(0));
}
