//! `serve --learn`: the first hour of a merchant, who does not know the topic yet.

use amazon_pay_ipn::app::Learner;
use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::config::LearnSettings;
use amazon_pay_ipn::model::ids::{Account, Environment, Region};
use amazon_pay_ipn::sandbox::{
    Forgery, NotificationType, ObjectType, Sandbox, SandboxSettings, SignatureVersion, SignedMessage,
};
use amazon_pay_ipn::sns::SnsSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PERMISSION: &str = "S01-5105180-3221187";

struct Lesson {
    sandbox: Sandbox,
    learner: amazon_pay_ipn::http::learning::Learning,
    url: String,
    stop: CancellationToken,
    served: JoinHandle<anyhow::Result<()>>,
}

impl Lesson {
    async fn start(region: Region) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = Clock::movable();
        let sandbox = Sandbox::start(SandboxSettings::new(clock.clone())).await.expect("the sandbox");
        let merchant = sandbox.merchant_id().parse().expect("a merchant id");
        let settings = LearnSettings {
            account: Account { merchant, environment: Environment::Sandbox, region },
            listen_addr: "127.0.0.1:0".parse().expect("an address"),
            sns: SnsSettings {
                certificate_base_url: Some(sandbox.certificate_base_url().to_owned()),
                certificate_name: Some(sandbox.certificate_name().to_owned()),
                trust_anchors_pem: Some(sandbox.trust_anchor_pem().as_bytes().to_vec()),
                ..SnsSettings::for_topics(Vec::new())
            },
        };
        let learner = Learner::start(settings, clock).await.expect("it starts");
        let url = format!("http://{}/ipn", learner.public_addr().expect("an address"));
        let (stop, learning) = (CancellationToken::new(), learner.learning());
        let served = tokio::spawn(learner.run_until(stop.clone().cancelled_owned()));
        Self { sandbox, learner: learning, url, stop, served }
    }

    fn ipn(&self) -> amazon_pay_ipn::sandbox::Ipn {
        self.sandbox.ipn((ObjectType::ChargePermission, PERMISSION), PERMISSION, NotificationType::StateChange)
    }

    async fn post(&self, message: &SignedMessage) {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut request = client.post(&self.url).body(message.body.clone());
        for (name, value) in &message.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.text().await.expect("a body").as_str()), (503, ""));
    }

    fn topics(&self) -> Vec<String> {
        self.learner.found().into_keys().collect()
    }

    async fn end(self) {
        self.stop.cancel();
        self.served.await.expect("no panic").expect("it ends well");
    }
}

#[tokio::test]
async fn a_genuine_notification_that_names_the_merchant_shows_its_topic_and_is_still_answered_503() {
    let lesson = Lesson::start(Region::Na).await;
    for version in [SignatureVersion::V1, SignatureVersion::V2] {
        lesson.post(&lesson.sandbox.sign(&lesson.ipn(), version)).await;
    }
    assert_eq!(lesson.topics(), [lesson.sandbox.topic_arn()]);
    lesson.end().await;
}

#[tokio::test]
async fn what_is_forged_or_names_no_merchant_of_ours_shows_no_topic() {
    let lesson = Lesson::start(Region::Na).await;
    for forgery in [Forgery::OtherKey, Forgery::UntrustedCertificate, Forgery::Altered, Forgery::ForeignMerchant] {
        lesson.post(&lesson.sandbox.forge(&lesson.ipn(), forgery).expect("a forgery")).await;
    }
    lesson.post(&lesson.sandbox.sign_unsubscribe_confirmation(SignatureVersion::V1)).await;
    assert_eq!(lesson.topics(), Vec::<String>::new());
    lesson.end().await;
}

#[tokio::test]
async fn the_announcement_of_a_subscription_shows_its_topic_with_a_doubt_that_a_notification_takes_away() {
    let lesson = Lesson::start(Region::Na).await;
    lesson.post(&lesson.sandbox.sign_subscription_confirmation(SignatureVersion::V2)).await;
    let doubts = |lesson: &Lesson| lesson.learner.found()[lesson.sandbox.topic_arn()].len();
    let first = doubts(&lesson);
    assert!(first > 0);
    assert!(lesson.sandbox.confirmed_tokens().is_empty(), "nothing is confirmed while learning");
    lesson.post(&lesson.sandbox.sign(&lesson.ipn(), SignatureVersion::V1)).await;
    assert_eq!(doubts(&lesson), first - 1);
    lesson.post(&lesson.sandbox.sign_subscription_confirmation(SignatureVersion::V1)).await;
    assert_eq!(doubts(&lesson), first - 1, "what is known better is not taken back");
    lesson.end().await;
}

#[tokio::test]
async fn the_topic_of_somebody_else_who_names_the_merchant_is_shown_with_what_is_odd_about_it() {
    let lesson = Lesson::start(Region::Na).await;
    lesson.post(&lesson.sandbox.forge(&lesson.ipn(), Forgery::ForeignTopic).expect("a forgery")).await;
    let found = lesson.learner.found();
    let [(topic, oddities)] = &found.iter().collect::<Vec<_>>()[..] else { panic!("{found:?}") };
    assert_ne!(topic.as_str(), lesson.sandbox.topic_arn());
    assert!(oddities.iter().any(|oddity| oddity.contains("does not end in the merchant id")), "{oddities:?}");
    lesson.end().await;
}

#[tokio::test]
async fn topics_of_other_regions_are_not_even_looked_at() {
    let lesson = Lesson::start(Region::Eu).await;
    lesson.post(&lesson.sandbox.sign(&lesson.ipn(), SignatureVersion::V2)).await;
    assert_eq!(lesson.topics(), Vec::<String>::new());
    lesson.end().await;
}

#[tokio::test]
async fn who_sends_slowly_keeps_nobody_from_learning() {
    let lesson = Lesson::start(Region::Na).await;
    let address = lesson.url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/ipn")).expect("an address");
    let mut slow = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let head = "POST /ipn HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("it is sent");
        // Whoever is told to go on is being read, and sends nothing more; whoever is not told is turned away.
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        slow.push(stream);
    }
    lesson.post(&lesson.sandbox.sign(&lesson.ipn(), SignatureVersion::V2)).await;
    assert_eq!(lesson.topics(), [lesson.sandbox.topic_arn()]);
    drop(slow);
    lesson.end().await;
}
