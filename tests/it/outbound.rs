//! Where the service's own requests go: to what the settings say, whatever else the environment of the process says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::sandbox::{
    NotificationType, ObjectType, RequestRecord, Sandbox, SandboxSettings, SignatureVersion, SignedMessage,
};
use tokio::net::TcpListener;

use crate::process::{Environment, Served, run, text, until};
use crate::support::servers::Redis;

const PERMISSION: &str = "S01-5105180-3221187";

/// Counts who comes, and hangs up.
async fn trap() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback address");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let caught = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&caught);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (url, caught)
}

/// What moves the requests of other programs: proxies, and everything by which AWS's tools are told of another endpoint or identity.
fn lures(trap: &str, folder: &std::path::Path) -> Vec<(&'static str, String)> {
    let config = folder.join("aws-config");
    let text = format!(
        "[default]\nregion = eu-west-1\nendpoint_url = {trap}\nuse_fips_endpoint = true\nservices = all\n\
         [services all]\nsns =\n  endpoint_url = {trap}\n[profile lure]\nendpoint_url = {trap}\ncredential_process = /bin/false\n"
    );
    std::fs::write(&config, text).expect("a file");
    let to_the_trap = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_SNS",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ];
    let others = [
        ("AWS_REGION", "eu-west-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "x".to_owned()),
        ("AWS_USE_FIPS_ENDPOINT", "true".to_owned()),
        ("AWS_USE_DUALSTACK_ENDPOINT", "true".to_owned()),
        ("AWS_PROFILE", "lure".to_owned()),
        ("AWS_CONFIG_FILE", config.display().to_string()),
        ("NO_PROXY", String::new()),
    ];
    to_the_trap.map(|name| (name, trap.to_owned())).into_iter().chain(others).collect()
}

#[tokio::test]
async fn no_variable_for_proxies_or_aws_tools_leads_a_request_elsewhere() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redis = Redis::start_own();
    let sandbox = Sandbox::start(SandboxSettings::new(Clock::system())).await.expect("the sandbox");
    let mut environment = Environment::of(&redis, &sandbox);
    let (trap, caught) = trap().await;
    let anchors = environment.folder.path().join("anchors");
    std::fs::write(&anchors, sandbox.trust_anchor_pem()).expect("a file");
    let lures = lures(&trap, environment.folder.path());
    let of_sns = [
        ("SNS_API_BASE_URL", sandbox.base_url().to_owned()),
        ("SNS_CERTIFICATE_BASE_URL", sandbox.certificate_base_url().to_owned()),
        ("SNS_CERTIFICATE_NAME", sandbox.certificate_name().to_owned()),
        ("SNS_TRUST_ANCHORS_FILE", anchors.display().to_string()),
    ];
    for (name, value) in lures.into_iter().chain(of_sns) {
        environment.set(name, value);
    }
    let output = run(&mut environment.program(&["init", "--first"]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let served = Served::start(&environment);
    let mut looks = sandbox.subscribe();

    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().expect("a client");
    let deliver = async |message: SignedMessage| {
        let request = http.post(format!("http://{}/ipn", served.public)).body(message.body).send().await;
        assert_eq!(request.expect("an answer").status(), 200);
    };
    let ipn = sandbox.ipn((ObjectType::ChargePermission, PERMISSION), PERMISSION, NotificationType::StateChange);
    deliver(sandbox.sign(&ipn, SignatureVersion::V1)).await;
    deliver(sandbox.sign_subscription_confirmation(SignatureVersion::V2)).await;
    assert_eq!(sandbox.confirmed_tokens().len(), 1, "confirmed where the settings say");
    let is_look = |record: RequestRecord| record.permission.as_deref() == Some(PERMISSION);
    until("the look at the permission", || looks.try_recv().is_ok_and(is_look)).await;
    assert_eq!(caught.load(Ordering::SeqCst), 0);
}
