//! The ceiling: what `POST /ipn` costs when nothing is done but verify with a key that is held, and one short script. No other check, no
//! logs, no metrics. And less than that: an axum that only answers. Both run as processes of their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use amazon_pay_ipn::clock::Stopwatch;
use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use data_encoding::BASE64;
use redis::Script;
use redis::aio::MultiplexedConnection;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde::Deserialize;
use x509_parser::pem::parse_x509_pem;

/// The same as a peer's.
pub const ACCEPT: &str = "
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('XADD', KEYS[2], '*', 'id', ARGV[1], 'body', ARGV[2])
redis.call('SET', KEYS[1], '1', 'PX', ARGV[3])
return 1";
pub const SEEN_MS: u64 = 16 * 24 * 3600 * 1000;
const VERIFICATIONS: u32 = 50_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    message: std::borrow::Cow<'a, str>,
    message_id: &'a str,
    timestamp: &'a str,
    topic_arn: &'a str,
    r#type: &'a str,
    signature: &'a str,
}

struct Endpoint {
    key: UnparsedPublicKey<Vec<u8>>,
    topic: String,
    redis: MultiplexedConnection,
    script: Script,
}

/// The key of a certificate.
pub fn key_of(pem: &[u8]) -> anyhow::Result<UnparsedPublicKey<Vec<u8>>> {
    let (_, pem) = parse_x509_pem(pem)?;
    let certificate = pem.parse_x509()?;
    let key = certificate.public_key().subject_public_key.data.to_vec();
    Ok(UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key))
}

/// Serves until it is killed. `kind` is `prototype` or `echo`.
pub async fn serve(kind: &str, certificate: &str, topic: &str, redis: &str) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    let router = if kind == "echo" {
        Router::new().route(
            "/ipn",
            post(async |body: Bytes| if body.is_empty() { StatusCode::BAD_REQUEST } else { StatusCode::OK }),
        )
    } else {
        let endpoint = Endpoint {
            key: key_of(&std::fs::read(certificate)?)?,
            topic: topic.to_owned(),
            redis: redis::Client::open(redis)?.get_multiplexed_async_connection().await?,
            script: Script::new(ACCEPT),
        };
        Router::new().route("/ipn", post(accept)).with_state(Arc::new(endpoint))
    };
    println!("{address}");
    Ok(axum::serve(listener, router).await?)
}

/// What is signed, and the signature.
fn signed_of(envelope: &Envelope<'_>) -> Option<(String, Vec<u8>)> {
    let signed = [
        "Message\n",
        &envelope.message,
        "\nMessageId\n",
        envelope.message_id,
        "\nTimestamp\n",
        envelope.timestamp,
        "\nTopicArn\n",
        envelope.topic_arn,
        "\nType\n",
        envelope.r#type,
        "\n",
    ]
    .concat();
    Some((signed, BASE64.decode(envelope.signature.as_bytes()).ok()?))
}

async fn accept(State(endpoint): State<Arc<Endpoint>>, body: Bytes) -> StatusCode {
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(&body) else { return StatusCode::BAD_REQUEST };
    let Some((signed, signature)) = signed_of(&envelope) else { return StatusCode::BAD_REQUEST };
    if envelope.topic_arn != endpoint.topic || endpoint.key.verify(signed.as_bytes(), &signature).is_err() {
        return StatusCode::FORBIDDEN;
    }
    let mut redis = endpoint.redis.clone();
    let mut call = endpoint.script.key(format!("bench:seen:{}", envelope.message_id));
    call.key("bench:journal").arg(envelope.message_id).arg(&body[..]).arg(SEEN_MS);
    if call.invoke_async::<u8>(&mut redis).await.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// What one verification takes here, with nothing else to do.
pub fn time_verification(pem: &[u8], body: &[u8]) -> anyhow::Result<Duration> {
    let key = key_of(pem)?;
    let envelope: Envelope<'_> = serde_json::from_slice(body)?;
    let (signed, signature) = signed_of(&envelope).context("no signature")?;
    let started = Stopwatch::start();
    for _ in 0..VERIFICATIONS {
        key.verify(signed.as_bytes(), &signature).ok().context("the message does not verify")?;
    }
    Ok(started.elapsed() / VERIFICATIONS)
}
