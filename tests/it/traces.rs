//! Traces as a collector gets them: which notification led to which look, over real HTTP, from a real process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::sandbox::{
    NotificationType, ObjectType, PermissionSpec, Sandbox, SandboxSettings, SignatureVersion, SignedMessage,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use ring::digest::{SHA256, digest};

use crate::process::{Environment, Served, run, text, until};
use crate::support::servers::Redis;

/// Every span that came.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let take = |State(collector): State<Self>, body: Bytes| async move {
            let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            collector.0.lock().expect("nobody panicked").extend(scopes.flat_map(|scope| scope.spans));
        };
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, address)
    }

    fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.0.lock().expect("nobody panicked");
        spans.iter().filter(|span| span.name == name).cloned().collect()
    }
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

struct World {
    _redis: Redis,
    sandbox: Sandbox,
    environment: Environment,
    http: reqwest::Client,
}

impl World {
    async fn start(more: &[(&'static str, String)]) -> (Self, Served) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let redis = Redis::start_own();
        let sandbox = Sandbox::start(SandboxSettings::new(Clock::system())).await.expect("the sandbox");
        let mut environment = Environment::of(&redis, &sandbox);
        let anchors = environment.folder.path().join("anchors");
        std::fs::write(&anchors, sandbox.trust_anchor_pem()).expect("a file");
        let of_sns = [
            ("SNS_CERTIFICATE_BASE_URL", sandbox.certificate_base_url().to_owned()),
            ("SNS_CERTIFICATE_NAME", sandbox.certificate_name().to_owned()),
            ("SNS_TRUST_ANCHORS_FILE", anchors.display().to_string()),
            // Batches soon, so that nobody waits.
            ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ];
        for (name, value) in of_sns.into_iter().chain(more.iter().cloned()) {
            environment.set(name, value);
        }
        let output = run(&mut environment.program(&["init", "--first"]));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let served = Served::start(&environment);
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().expect("a client");
        (Self { _redis: redis, sandbox, environment, http }, served)
    }

    async fn deliver(&self, served: &Served, message: &SignedMessage) {
        let request = self.http.post(format!("http://{}/ipn", served.public)).body(message.body.clone()).send().await;
        assert_eq!(request.expect("an answer").status(), 200);
    }

    fn about(&self, permission: &str) -> SignedMessage {
        let ipn =
            self.sandbox.ipn((ObjectType::ChargePermission, permission), permission, NotificationType::StateChange);
        self.sandbox.sign(&ipn, SignatureVersion::V2)
    }
}

#[tokio::test]
async fn a_trace_leads_from_a_notification_to_its_reconciliation_and_to_the_call_at_amazon() {
    let (collector, address) = Collector::start().await;
    let (world, mut served) = World::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", address)]).await;
    let permission = world.sandbox.create_permission(PermissionSpec::recurring("USD"));
    let message = world.about(&permission);
    world.deliver(&served, &message).await;
    until("the call", || !collector.named("get_charge_permission").is_empty()).await;
    until("the reconciliation", || !collector.named("reconcile").is_empty()).await;
    world.deliver(&served, &message).await;
    served.terminate();
    assert_eq!(served.ended().await.code(), Some(0), "the last spans leave before the process ends");

    let receipts = collector.named("POST /ipn");
    let [first, again] = receipts.as_slice() else { panic!("two deliveries: {receipts:#?}") };
    let digest = digest(&SHA256, message.message_id.as_bytes());
    assert_eq!((&first.trace_id[..], &first.span_id[..]), (&digest.as_ref()[..16], &digest.as_ref()[16..24]));
    assert_eq!(attribute(first, "amazon_pay.outcome").as_deref(), Some("stored"));
    assert_eq!(attribute(first, "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(attribute(again, "amazon_pay.outcome").as_deref(), Some("duplicate"));
    assert_ne!(again.span_id, first.span_id);
    assert_eq!(again.links[0].span_id, first.span_id, "another delivery points to the first");

    let reconciliations = collector.named("reconcile");
    let caused = reconciliations.iter().find(|span| !span.links.is_empty()).expect("one with a cause");
    assert_eq!((&caused.links[0].trace_id, &caused.links[0].span_id), (&first.trace_id, &first.span_id));
    assert_eq!(attribute(caused, "amazon_pay.charge_permission.id").as_deref(), Some(permission.as_str()));
    assert_eq!(attribute(caused, "amazon_pay.outcome").as_deref(), Some("committed"));
    let calls = collector.named("get_charge_permission");
    let call = calls.iter().find(|call| call.parent_span_id == caused.span_id).expect("the call is a part of it");
    assert_eq!(call.trace_id, caused.trace_id);
    assert_eq!(attribute(call, "http.response.status_code").as_deref(), Some("200"));
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_spans_and_nothing_else() {
    let nowhere = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1".to_owned());
    let (world, mut served) = World::start(&[nowhere]).await;
    let permission = world.sandbox.create_permission(PermissionSpec::recurring("USD"));
    let mut looks = world.sandbox.subscribe();
    world.deliver(&served, &world.about(&permission)).await;
    until("the look at the permission", || {
        looks.try_recv().is_ok_and(|record| record.permission.as_deref() == Some(permission.as_str()))
    })
    .await;
    served.terminate();
    assert_eq!(served.ended().await.code(), Some(0));
    drop(world.environment);
}
