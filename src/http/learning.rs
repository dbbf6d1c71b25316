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

use super::ipn_body::{self, BLOCK_BYTES, Unread};
use super::public;
use super::refusals::RefusalLog;
use crate::ipn;
use crate::model::ids::MerchantId;
use crate::sns::{MessageType, TopicArn, Verifier};

/// Bytes that all bodies may hold together, without the first 16 KiB of each; Amazon's notifications have 2 to 4 KiB.
const SHARED_BYTES: usize = 8 * 1024 * 1024;
/// Time to send the body.
const BODY_READ: Duration = Duration::from_secs(5);
/// SNS gives up after 15 s.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Messages in hand at a time. A message takes its place when it is read, so that slow senders hold none.
const MAX_CONCURRENT: usize = 32;
/// More topics than this that name one merchant are an attack; they are not shown. Those with something odd about them, which anybody
/// can make, are counted apart from those without, so that they keep no topic of Amazon Pay's account out.
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
    refusals: RefusalLog,
    found: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Learning {
    /// Learns with `verifier`, which must be one of [`Verifier::learning`].
    #[must_use]
    pub fn new(verifier: Verifier, merchant: MerchantId) -> Self {
        let (places, blocks) = (Semaphore::new(MAX_CONCURRENT), Semaphore::new(SHARED_BYTES / BLOCK_BYTES));
        Self(Arc::new(Inner {
            verifier,
            merchant,
            places,
            blocks,
            refusals: RefusalLog::new(),
            found: Mutex::default(),
        }))
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
    let read = tokio::time::timeout(BODY_READ, ipn_body::read(body, &inner.blocks)).await;
    let Ok(body) = read.unwrap_or(Err(Unread::BrokenOff)) else {
        warn!("a request's body was larger than a notification, too slow, or broke off");
        return;
    };
    let Ok(_place) = inner.places.try_acquire() else { return };
    let message = match inner.verifier.verify(&public::headers(&parts.headers), &body.bytes).await {
        Ok(message) => message,
        Err(refused) => {
            inner.refusals.tell(&refused);
            return;
        }
    };
    // Verified by a learning verifier, so it is a topic.
    let Ok(topic) = message.topic_arn.parse::<TopicArn>() else { return };
    let mut oddities = topic.oddities(&inner.merchant);
    match message.message_type() {
        MessageType::Notification if ipn::merchant_id(&message).as_ref() == Some(&inner.merchant) => {}
        // Before a subscription is confirmed nothing else is sent, and only the topic's name can speak of the merchant.
        MessageType::SubscriptionConfirmation if topic.is_named_after(&inner.merchant) => oddities.push(
            "it came as the confirmation of a subscription, which names the merchant in the topic's name alone; anybody can \
             name a topic so"
                .to_owned(),
        ),
        kind => {
            warn!(
                kind = kind.as_str(),
                "a genuine message that does not name AMAZON_PAY_MERCHANT_ID was turned away; its topic is not shown"
            );
            return;
        }
    }
    show(inner, &topic, oddities);
}

fn show(inner: &Inner, topic: &TopicArn, oddities: Vec<String>) {
    {
        let mut found = inner.found.lock().unwrap_or_else(PoisonError::into_inner);
        // Again only if less speaks against it now.
        if found.get(topic.as_str()).is_some_and(|known| known.len() <= oddities.len()) {
            return;
        }
        let alike = found.values().filter(|known| known.is_empty() == oddities.is_empty()).count();
        if alike >= MAX_TOPICS {
            return;
        }
        found.insert(topic.as_str().to_owned(), oddities.clone());
        if alike + 1 == MAX_TOPICS {
            warn!("too many topics name AMAZON_PAY_MERCHANT_ID, which is an attack: no more of this kind are shown");
        }
    }
    info!("a genuine message names AMAZON_PAY_MERCHANT_ID. To accept its topic: SNS_TOPIC_ARNS={topic}");
    for oddity in oddities {
        warn!(%topic, "before you accept this topic: {oddity}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::sns::SnsSettings;

    const MERCHANT: &str = "A2K7NDRCTOTPW9";

    #[test]
    fn strangers_with_many_topics_do_not_hide_the_topic_that_has_nothing_odd() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let verifier = Verifier::learning(SnsSettings::for_topics(Vec::new()), Clock::movable(), &["us-east-1"]);
        let learning = Learning::new(verifier.unwrap(), MERCHANT.parse().unwrap());
        let see = |account: &str, name: &str| {
            let topic: TopicArn = format!("arn:aws:sns:us-east-1:{account}:{name}").parse().unwrap();
            show(&learning.0, &topic, topic.oddities(&learning.0.merchant));
            learning.found().contains_key(topic.as_str())
        };
        let shown = (0..2 * MAX_TOPICS).filter(|number| see("123456789012", &format!("stranger{number}{MERCHANT}")));
        assert_eq!(shown.count(), MAX_TOPICS);
        assert!(see("291180941288", &format!("A3BXB0YN3XH17H{MERCHANT}")));
    }
}
