//! The public listener of `serve --learn`: finds out which topic is the merchant's, and does nothing else.
//!
//! Everything is answered 503, so that SNS counts nothing as delivered. Nothing is stored. What is shown comes from *some* AWS account:
//! anybody can publish, correctly signed and naming any merchant, from a topic of their own. So it is shown for a person to judge, with
//! what is odd about it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::{ipn_body, public};
use crate::ipn;
use crate::model::ids::MerchantId;
use crate::sns::{MessageType, TopicArn, Verifier};

/// Blocks of 16 KiB that all bodies may hold together besides the first of each. Amazon's notifications have 2 to 4 KiB.
const SHARED_BLOCKS: usize = 64;
/// SNS gives up after 15 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Messages in verification at a time. A message takes its place when it is read, so that slow senders hold none.
const MAX_CONCURRENT: usize = 32;
/// More topics than this that name one merchant are an attack; they are not shown.
const MAX_TOPICS: usize = 16;

/// Topics whose genuine notifications named the merchant.
#[derive(Debug, Clone)]
pub struct Learning(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    verifier: Verifier,
    merchant: MerchantId,
    places: Semaphore,
    blocks: Semaphore,
    found: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Learning {
    /// Learns with `verifier`, which must be one of [`Verifier::learning`].
    #[must_use]
    pub fn new(verifier: Verifier, merchant: MerchantId) -> Self {
        let (places, blocks) = (Semaphore::new(MAX_CONCURRENT), Semaphore::new(SHARED_BLOCKS));
        Self(Arc::new(Inner { verifier, merchant, places, blocks, found: Mutex::default() }))
    }

    /// The topics that were shown so far, each with what is odd about it.
    #[must_use]
    pub fn found(&self) -> BTreeMap<String, Vec<String>> {
        self.0.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The router of `serve --learn`.
pub fn router(learning: Learning) -> Router {
    Router::new().fallback(receive).with_state(learning)
}

async fn receive(State(learning): State<Learning>, request: Request) -> StatusCode {
    // Too late, too large, too many, forged: it is all one to the sender.
    let _ = tokio::time::timeout(TIMEOUT, look(&learning.0, request)).await;
    StatusCode::SERVICE_UNAVAILABLE
}

async fn look(inner: &Inner, request: Request) {
    let (parts, body) = request.into_parts();
    let Ok(body) = ipn_body::read(body, &inner.blocks).await else {
        warn!("a request's body was larger than a notification, or broke off");
        return;
    };
    let Ok(_place) = inner.places.try_acquire() else { return };
    let message = match inner.verifier.verify(&public::headers(&parts.headers), &body.bytes).await {
        Ok(message) => message,
        Err(refused) => {
            warn!(check = refused.check(), reason = %refused, "a message that is not genuine, or cannot be judged, was turned away");
            return;
        }
    };
    if message.message_type() != MessageType::Notification {
        let kind = message.message_type().as_str();
        info!(
            kind,
            "a genuine message of SNS that names no merchant: its topic is not shown; send a test notification"
        );
        return;
    }
    // Verified by a learning verifier, so it is a topic.
    let (Ok(topic), merchant) = (message.topic_arn.parse::<TopicArn>(), ipn::merchant_id(&message)) else { return };
    if merchant.as_ref() != Some(&inner.merchant) {
        warn!(
            "a genuine notification that does not name AMAZON_PAY_MERCHANT_ID was turned away; its topic is not shown"
        );
        return;
    }
    show(inner, &topic);
}

fn show(inner: &Inner, topic: &TopicArn) {
    let oddities = topic.oddities(&inner.merchant);
    {
        let mut found = inner.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= MAX_TOPICS || found.contains_key(topic.as_str()) {
            return;
        }
        found.insert(topic.as_str().to_owned(), oddities.clone());
    }
    info!("a genuine notification names AMAZON_PAY_MERCHANT_ID. To accept its topic: SNS_TOPIC_ARNS={topic}");
    for oddity in oddities {
        warn!(%topic, "before you accept this topic: {oddity}");
    }
}
