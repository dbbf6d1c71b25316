//! The public listener: `POST /ipn` and nothing else.
//!
//! 200 only after the message is stored (or was before). Whatever may pass is 503, so that SNS delivers again. 4xx only for what can
//! never become good: SNS does not repeat those. Bodies say no more than a class; the log says which check failed.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use metrics::{Counter, Histogram};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tracing::{Instrument, Span, error, info, warn};

use super::ipn_body::{self, BLOCK_BYTES, Unread, Whole};
use super::openapi::{self, Operation, Route};
use super::refusals::RefusalLog;
use crate::clock::Stopwatch;
use crate::ipn::{self, Ipn, Notification, Quarantine};
use crate::model::event::{Event, EventType};
use crate::model::ids::MerchantId;
use crate::sns::{Check, Envelope, Headers, MessageType, RefusedClass, Subscriber, Verified, Verifier};
use crate::store::notifications::{Accepted, Delivery, Named};
use crate::store::{Store, StoreError};
use crate::telemetry::{metric, trace};

/// The bounds of requests to `POST /ipn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Time to send the body.
    pub body_read: Duration,
    /// Time from the end of the headers to the answer.
    pub answer: Duration,
    /// Messages in verification and storage at a time; more stand in line. A message takes its place when it is read, so that slow
    /// senders hold none.
    pub places: usize,
    /// Time in line for a place; then 503.
    pub line: Duration,
    /// Bytes that all bodies may hold together, without the first 16 KiB of each.
    pub shared_bytes: usize,
}

impl RequestLimits {
    /// SNS gives up after 15 s: an answer after that is a failure for it anyway. Its messages have a few KiB, and 256 KiB at most. With 4096
    /// connections all bodies hold at most 4096 * 16 KiB + 32 MiB = 96 MiB, and as many connections' buffers 64 MiB more.
    ///
    /// A refusal costs a quarter of an acceptance, and whoever was refused may send again at once: refused without a wait, four times the
    /// capacity left three tenths of it. What stands in line does not send: with 4096 connections there are at most 3072 refusals in half
    /// a second, however much is offered, and the rest of the time is for messages. And a short burst is not refused at all.
    pub const PUBLIC: Self = Self {
        body_read: Duration::from_secs(5),
        answer: Duration::from_secs(12),
        places: 1024,
        line: Duration::from_millis(500),
        shared_bytes: 32 * 1024 * 1024,
    };
}

/// What `POST /ipn` works with.
#[derive(Debug, Clone)]
pub struct IpnState(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    verifier: Verifier,
    subscriber: Subscriber,
    store: Store,
    merchant: MerchantId,
    limits: RequestLimits,
    places: Semaphore,
    blocks: Semaphore,
    refusals: RefusalLog,
    meters: Meters,
}

/// Counters and histograms of what came, found once: to find them by name costs more than to count.
#[derive(Debug)]
struct Meters {
    outcomes: [Counter; Received::ALL.len()],
    /// By status, in the order of the outcomes.
    seconds: [Histogram; Received::ALL.len()],
}

impl Meters {
    fn new() -> Self {
        let outcome = |received: Received| metrics::counter!(metric::IPN, "outcome" => received.label());
        let seconds = |received: Received| {
            let status = received.status().as_u16().to_string();
            metrics::histogram!(metric::IPN_SECONDS, "status" => status)
        };
        Self { outcomes: Received::ALL.map(outcome), seconds: Received::ALL.map(seconds) }
    }

    fn note(&self, received: Received, took: Duration) {
        let place = received as usize;
        if let (Some(outcome), Some(seconds)) = (self.outcomes.get(place), self.seconds.get(place)) {
            outcome.increment(1);
            seconds.record(took);
        }
    }
}

impl IpnState {
    /// The state of the public listener.
    #[must_use]
    pub fn new(
        verifier: Verifier,
        subscriber: Subscriber,
        store: Store,
        merchant: MerchantId,
        limits: RequestLimits,
    ) -> Self {
        for check in Check::ALL {
            refusals(check.as_str()).increment(0);
        }
        let places = Semaphore::new(limits.places);
        let blocks = Semaphore::new(limits.shared_bytes / BLOCK_BYTES);
        let (refusals, meters) = (RefusalLog::new(), Meters::new());
        Self(Arc::new(Inner { verifier, subscriber, store, merchant, limits, places, blocks, refusals, meters }))
    }

    /// Fetches the certificates that the last notifications named, before they are needed. A flood of invented addresses then cannot
    /// stand between a fresh process and the genuine certificate (`docs/adr/0012`).
    pub async fn expect_certificates(&self) {
        let bodies = match self.0.store.latest_bodies().await {
            Ok(bodies) => bodies,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "the journal was not read for certificate addresses");
                return;
            }
        };
        for body in bodies {
            if let Err(error) = self.0.verifier.expect(body.as_bytes()).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the certificate of an earlier notification is not there now"
                );
            }
        }
    }
}

/// The router of the public listener.
pub fn router(state: IpnState) -> Router {
    routes().into_iter().fold(Router::new(), |router, route| router.route(route.path, route.handler)).with_state(state)
}

fn routes() -> Vec<Route<IpnState>> {
    let operation = Operation::new("receiveNotification", "A message of Amazon SNS: the IPN end point")
        .looks_at(&[
            ("x-amz-sns-message-type", "If it is there it must be the `Type` of the body"),
            ("x-amz-sns-message-id", "If it is there it must be the `MessageId` of the body"),
            ("x-amz-sns-topic-arn", "If it is there it must be the `TopicArn` of the body"),
        ])
        .takes_given(&["text/plain", "application/json"], message_schema())
        .answers_text(200, "Stored, or stored before; SNS does not deliver it again")
        .answers_text(400, "No SNS message, or one that can never become good")
        .answers_text(403, "A topic, certificate or signature that is not accepted, or too old")
        .answers_text(413, "Too large")
        .answers_text(503, "It may pass later: SNS delivers it again");
    vec![Route::post("/ipn", receive, operation)]
}

/// The envelope of SNS. Source: <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>.
fn message_schema() -> Value {
    let texts = [
        "MessageId",
        "TopicArn",
        "Subject",
        "Message",
        "Timestamp",
        "SignatureVersion",
        "Signature",
        "SigningCertURL",
        "Token",
        "SubscribeURL",
    ];
    let mut properties: serde_json::Map<String, Value> =
        texts.iter().map(|name| ((*name).to_owned(), json!({ "type": "string" }))).collect();
    let types = MessageType::ALL.map(MessageType::as_str);
    properties.insert("Type".to_owned(), json!({ "type": "string", "enum": types }));
    let required =
        ["Type", "MessageId", "TopicArn", "Message", "Timestamp", "SignatureVersion", "Signature", "SigningCertURL"];
    json!({ "type": "object", "properties": properties, "required": required })
}

/// The OpenAPI document of the public listener.
#[must_use]
pub fn document(version: &str) -> Value {
    let description = "The public listener of amazon-pay-ipn: POST /ipn and nothing else. Bodies of answers say no more than the class.";
    openapi::document("amazon-pay-ipn: public listener", description, version, &routes(), &[])
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    Stored,
    Duplicate,
    Test,
    Quarantined,
    Subscription,
    Unsubscription,
    Malformed,
    Forbidden,
    TooLarge,
    /// The body broke off, was slow, or found no room.
    Unread,
    /// As many messages as there may be are being verified and stored, and none of them was done soon.
    Overloaded,
    Unavailable,
}

impl Received {
    /// In the order of their declaration: the meters are found by it.
    const ALL: [Self; 12] = [
        Self::Stored,
        Self::Duplicate,
        Self::Test,
        Self::Quarantined,
        Self::Subscription,
        Self::Unsubscription,
        Self::Malformed,
        Self::Forbidden,
        Self::TooLarge,
        Self::Unread,
        Self::Overloaded,
        Self::Unavailable,
    ];

    fn status(self) -> StatusCode {
        match self {
            Self::Stored
            | Self::Duplicate
            | Self::Test
            | Self::Quarantined
            | Self::Subscription
            | Self::Unsubscription => StatusCode::OK,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unread | Self::Overloaded | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Test => "test",
            Self::Quarantined => "quarantined",
            Self::Subscription => "subscription",
            Self::Unsubscription => "unsubscription",
            Self::Malformed | Self::Forbidden | Self::TooLarge => "refused",
            Self::Unread => "unread",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
        }
    }
}

async fn receive(State(state): State<IpnState>, request: Request) -> Response {
    let stopwatch = Stopwatch::start();
    let span = trace::receipt();
    let handled = handle(&state.0, request).instrument(span.clone());
    let handled = tokio::time::timeout(state.0.limits.answer, handled).await;
    let received = handled.unwrap_or(Received::Unavailable);
    let status = received.status();
    trace::received(&span, status.as_u16(), received.label());
    state.0.meters.note(received, stopwatch.elapsed());
    // The reason phrase of the class is all that a sender learns.
    (status, status.canonical_reason().unwrap_or_default()).into_response()
}

async fn handle(inner: &Inner, request: Request) -> Received {
    let (parts, body) = request.into_parts();
    let body = match read(inner, body).await {
        Ok(body) => body,
        Err(received) => return received,
    };
    // It stands in line with its body read: a connection whose body is not is one that waits for its peer, and may have to make room.
    let place = tokio::time::timeout(inner.limits.line, inner.places.acquire()).await;
    let Ok(Ok(_place)) = place else { return Received::Overloaded };
    let message = match inner.verifier.verify(&headers(&parts.headers), &body.bytes).await {
        Ok(message) => message,
        Err(refused) => {
            refusals(refused.check()).increment(1);
            inner.refusals.tell(&refused);
            return match refused.class() {
                RefusedClass::Malformed => Received::Malformed,
                RefusedClass::Forbidden => Received::Forbidden,
                RefusedClass::Unavailable => Received::Unavailable,
            };
        }
    };
    // Verified, so it is valid UTF-8 as a whole; the fallback keeps this total.
    let body = String::from_utf8_lossy(&body.bytes);
    let result = match message.message_type() {
        MessageType::Notification => notification(inner, &message, &body).await,
        MessageType::SubscriptionConfirmation => subscription(inner, &message).await,
        MessageType::UnsubscribeConfirmation => unsubscription(inner, &message).await,
    };
    let received = result.unwrap_or_else(|error| {
        error!(
            error = &error as &dyn std::error::Error,
            message_id = message.message_id,
            "a genuine message could not be stored"
        );
        Received::Unavailable
    });
    match received {
        Received::Stored => trace::first_of_message(&Span::current(), &message.message_id),
        Received::Duplicate => trace::again(&Span::current(), &message.message_id),
        _ => trace::of_message(&Span::current(), &message.message_id),
    }
    received
}

fn refusals(check: &'static str) -> metrics::Counter {
    metrics::counter!(metric::IPN_REFUSED, "check" => check)
}

/// Reads the body up to its limits. A body that breaks off, is slow, or finds no room may do better next time.
async fn read(inner: &Inner, body: Body) -> Result<Whole<'_>, Received> {
    match tokio::time::timeout(inner.limits.body_read, ipn_body::read(body, &inner.blocks)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(Unread::TooLarge)) => Err(Received::TooLarge),
        Ok(Err(Unread::BrokenOff | Unread::NoRoom)) | Err(_) => Err(Received::Unread),
    }
}

pub(super) fn headers(headers: &HeaderMap) -> Headers<'_> {
    let raw =
        headers.get_all("x-amz-sns-rawdelivery").iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    // A header that is no text, or says two things, cannot agree with anything.
    let text = |name| {
        let mut values = headers.get_all(name).iter();
        let first = values.next()?;
        Some(if values.next().is_none() { first.to_str().unwrap_or("") } else { "" })
    };
    Headers {
        message_type: text("x-amz-sns-message-type"),
        message_id: text("x-amz-sns-message-id"),
        topic_arn: text("x-amz-sns-topic-arn"),
        raw_delivery: raw,
    }
}

async fn notification(inner: &Inner, message: &Verified<Envelope>, body: &str) -> Result<Received, StoreError> {
    let delivery = delivery(message, body);
    match ipn::read(message, &inner.merchant) {
        Ok(Ipn::Notification(notification)) => {
            crash_point!(AcceptBefore);
            let accepted = inner.store.accept_notification(&delivery, &named(&notification)).await?;
            crash_point!(AcceptAfter);
            info!(
                message_id = message.message_id,
                permission = %notification.charge_permission_id,
                object_type = notification.object_type.as_str(),
                object = %notification.object_id,
                duplicate = accepted == Accepted::Duplicate,
                "notification accepted"
            );
            Ok(if accepted == Accepted::Stored { Received::Stored } else { Received::Duplicate })
        }
        Ok(Ipn::Test) => {
            inner.store.journal_message(&delivery, None).await?;
            info!(message_id = message.message_id, "test notification accepted");
            Ok(Received::Test)
        }
        Err(why) => {
            let kind = match why {
                Quarantine::NotUnderstood(_) => "not understood",
                Quarantine::OtherMerchant(_) => "for another merchant",
            };
            crash_point!(QuarantineBefore);
            inner.store.quarantine_notification(&delivery, &why.to_string()).await?;
            crash_point!(QuarantineAfter);
            error!(message_id = message.message_id, kind, reason = %why, "a genuine notification was put into quarantine");
            Ok(Received::Quarantined)
        }
    }
}

/// Confirms through the SNS API, never by visiting the URL in the message.
async fn subscription(inner: &Inner, message: &Verified<Envelope>) -> Result<Received, StoreError> {
    // It is stored after it was confirmed: then SNS has not heard our 200, or somebody repeats what he has overheard.
    if inner.store.is_known(&message.message_id).await? {
        return Ok(Received::Duplicate);
    }
    crash_point!(SubscriptionBefore);
    if let Err(error) = inner.subscriber.confirm(message).await {
        error!(
            error = &error as &dyn std::error::Error,
            topic = message.topic_arn,
            "a subscription could not be confirmed"
        );
        // Also when SNS will never accept it: the answer 200 would say that the subscription stands.
        return Ok(Received::Unavailable);
    }
    info!(topic = message.topic_arn, "subscription confirmed");
    crash_point!(SubscriptionConfirmed);
    keep_subscription(inner, message, "confirmed").await?;
    crash_point!(SubscriptionAfter);
    Ok(Received::Subscription)
}

/// Somebody ended the subscription: an alert. Following the message's link would subscribe again, which is not ours to decide.
async fn unsubscription(inner: &Inner, message: &Verified<Envelope>) -> Result<Received, StoreError> {
    if inner.store.is_known(&message.message_id).await? {
        return Ok(Received::Duplicate);
    }
    error!(topic = message.topic_arn, "SNS says that our subscription has ended: no notifications will come");
    keep_subscription(inner, message, "ended").await?;
    Ok(Received::Unsubscription)
}

async fn keep_subscription(inner: &Inner, message: &Verified<Envelope>, what: &str) -> Result<(), StoreError> {
    let data = json!({ "topicArn": message.topic_arn, "messageId": message.message_id, "subscription": what });
    let event = Event::new(EventType::IpnSubscription, &data);
    // The body holds a token that confirms subscriptions: it is not kept.
    inner.store.journal_message(&delivery(message, ""), Some(&event)).await?;
    Ok(())
}

fn delivery<'a>(message: &'a Verified<Envelope>, body: &'a str) -> Delivery<'a> {
    Delivery { message_id: &message.message_id, topic_arn: &message.topic_arn, published_at: message.timestamp, body }
}

fn named(notification: &Notification) -> Named<'_> {
    Named {
        object_type: notification.object_type,
        object_id: &notification.object_id,
        charge_permission_id: &notification.charge_permission_id,
        notification_type: &notification.notification_type,
        notification_id: &notification.notification_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_the_place_of_its_meters() {
        for (place, received) in Received::ALL.into_iter().enumerate() {
            assert_eq!(received as usize, place, "{received:?}");
        }
        assert_eq!(Received::ALL.len(), Received::Unavailable as usize + 1, "the last one that is declared");
    }
}
