//! Hands every genuine notification on to an older handler, as Amazon signed it, so that one IPN URL serves both (`FORWARD_URL`).
//!
//! The journal is the queue: what stands in it was verified, and is acted on here whatever the other side does. Each message is sent at
//! least once, and again, ever more seldom, until the other side says 2xx. Nothing here knows what a message means.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::Stopwatch;
use crate::store::forwards::Forward;
use crate::store::{Store, StoreError};
use crate::telemetry::metric;

/// How often an idle forwarder looks for more.
const POLL: Duration = Duration::from_secs(1);
/// Wait after an error of the store.
const ERROR_PAUSE: Duration = Duration::from_secs(5);
/// Until another instance may take a message, besides the time that the other side has.
const HOLD_MARGIN: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The first wait after a message was not taken.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The longest: a handler that is mended has everything within this and what it takes to send it.
const LONGEST_WAIT: Duration = Duration::from_mins(30);
/// How long a message is tried that the other side calls wrong, from its first such answer on: it may be in the middle of a change. SNS
/// would not try again at all; handlers answer so for what they do not know.
const REFUSED_FOR: Duration = Duration::from_hours(1);
/// So much of an answer is read, so that its connection can be used again. Nobody looks at it.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Where to forward to, and for how long.
#[derive(Debug, Clone)]
pub struct ForwardSettings {
    /// The older handler. Its path or query may hold a secret.
    pub url: SecretString,
    /// Messages on their way at a time.
    pub at_once: usize,
    /// What it may take for an answer.
    pub timeout: Duration,
    /// How long a message is tried.
    pub give_up: Duration,
}

impl ForwardSettings {
    /// Few: the other side may be a small pool of processes that also serves a shop.
    pub const AT_ONCE: usize = 4;
    /// SNS gives a handler 15 s. Source: <https://docs.aws.amazon.com/sns/latest/dg/SendMessageToHttp.prepare.html>.
    pub const TIMEOUT: Duration = Duration::from_secs(15);
    /// What is in hand when the process is told to stop is finished within 60 s.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(30);
    /// A weekend and a day. Amazon itself may give up after some hours.
    pub const GIVE_UP: Duration = Duration::from_hours(3 * 24);
}

/// Why there is no forwarder.
#[derive(Debug, thiserror::Error)]
pub enum ForwarderError {
    /// The address is none.
    #[error("FORWARD_URL is not an address that requests can be sent to")]
    Url,
    /// No client.
    #[error("no HTTP client could be made")]
    Client(#[from] reqwest::Error),
}

/// Sends messages to the other side. Every instance may run one.
#[derive(Debug, Clone)]
pub struct Forwarder(Arc<Inner>);

/// It may hold a secret, so it is not shown.
struct Address(reqwest::Url);

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FORWARD_URL")
    }
}

#[derive(Debug)]
struct Inner {
    store: Store,
    client: reqwest::Client,
    address: Address,
    settings: ForwardSettings,
    shutdown: CancellationToken,
    /// The last answer was a failure, or there was none. Said once, and once when it is over; meanwhile one message at a time goes.
    failing: AtomicBool,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The other side said 2xx.
    Taken,
    /// It failed, or said nothing; the message is put off.
    Failed,
    /// It called the message wrong; the message is put off.
    Refused,
    /// It failed for too long: the message is not tried again.
    GivenUp,
    /// It called the message wrong for long enough: it is not tried again.
    Unwanted,
    /// It is about this end point's own subscription, or is not in the journal any more.
    Dropped,
}

impl Outcome {
    const ALL: [Self; 6] = [Self::Taken, Self::Failed, Self::Refused, Self::GivenUp, Self::Unwanted, Self::Dropped];

    fn note(self, times: usize) {
        let label = match self {
            Self::Taken => "taken",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::GivenUp => "given_up",
            Self::Unwanted => "unwanted",
            Self::Dropped => "dropped",
        };
        metrics::counter!(metric::FORWARDS, "outcome" => label).increment(times.try_into().unwrap_or(u64::MAX));
    }
}

/// What the other side said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// 2xx.
    Taken,
    /// 4xx about the message, not about when, where or by whom it is sent.
    Refused,
    /// Anything else, or nothing.
    Failed,
}

impl Answer {
    fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Taken,
            401 | 403 | 404 | 405 | 407 | 408 | 425 | 429 => Self::Failed,
            400..=499 => Self::Refused,
            _ => Self::Failed,
        }
    }
}

/// Whether the other side is to have it. A confirmation is about this end point, and its token would subscribe nobody else.
fn is_for_others(body: &str) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "Type")]
        kind: String,
    }
    serde_json::from_str::<Kind>(body).is_ok_and(|message| message.kind == "Notification")
}

/// When it is tried again: each wait is as long as all before it. `None`: it was tried for long enough.
fn next_try(taken_at: Timestamp, now: Timestamp, give_up: Duration) -> Option<Timestamp> {
    let waited = Duration::try_from(now.duration_since(taken_at)).unwrap_or_default();
    let wait = waited.clamp(FIRST_WAIT, LONGEST_WAIT);
    (waited < give_up).then(|| now.checked_add(wait).ok()).flatten()
}

/// The headers that libraries for handlers look at, from what was signed.
fn headers(forward: &Forward) -> Option<HeaderMap> {
    let given = [
        (CONTENT_TYPE, "text/plain; charset=UTF-8"),
        (HeaderName::from_static("x-amz-sns-message-type"), "Notification"),
        (HeaderName::from_static("x-amz-sns-message-id"), &forward.message_id),
        (HeaderName::from_static("x-amz-sns-topic-arn"), &forward.topic_arn),
    ];
    given.into_iter().map(|(name, value)| Some((name, HeaderValue::from_str(value).ok()?))).collect()
}

impl Forwarder {
    /// A forwarder to `settings.url`. Follows no redirect: what was signed goes to nobody else.
    ///
    /// # Errors
    /// When the address is none, or no HTTP client can be made.
    pub fn new(settings: ForwardSettings, store: Store, shutdown: CancellationToken) -> Result<Self, ForwarderError> {
        let url = reqwest::Url::parse(settings.url.expose_secret()).map_err(|_| ForwarderError::Url)?;
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("amazon-pay-ipn/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(settings.timeout)
            .build()?;
        for outcome in Outcome::ALL {
            outcome.note(0);
        }
        Ok(Self(Arc::new(Inner {
            store,
            client,
            address: Address(url),
            settings,
            shutdown,
            failing: AtomicBool::new(false),
        })))
    }

    /// From now on what is accepted is forwarded. To be called before anything is accepted.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn begin(&self) -> Result<(), StoreError> {
        self.0.store.begin_forwarding().await
    }

    /// Sends until told to stop. A message that hangs holds up no other: as each ends the next is taken.
    pub async fn run(&self) {
        let mut under_way = JoinSet::new();
        while !self.0.shutdown.is_cancelled() {
            let pause = match self.take(&mut under_way).await {
                Ok(0) => POLL,
                Ok(_) => Duration::ZERO,
                Err(error) => {
                    error!(error = &error as &dyn std::error::Error, "forwarding failed at the store");
                    ERROR_PAUSE
                }
            };
            tokio::select! {
                () = self.0.shutdown.cancelled() => {}
                Some(ended) = under_way.join_next() => noted(ended),
                () = tokio::time::sleep(pause) => {}
            }
        }
        while let Some(ended) = under_way.join_next().await {
            noted(ended);
        }
    }

    /// Sends what is due now, as many as go at a time, waits for their answers, and returns how many it took up.
    ///
    /// # Errors
    /// When Redis does not answer. What was not noted is sent again.
    pub async fn step(&self) -> Result<usize, StoreError> {
        let mut under_way = JoinSet::new();
        let taken = self.take(&mut under_way).await?;
        while let Some(ended) = under_way.join_next().await {
            noted(ended);
        }
        Ok(taken)
    }

    /// How many may be on their way: one, to see whether the other side is there again.
    fn at_once(&self) -> usize {
        if self.0.failing.load(Ordering::Relaxed) { 1 } else { self.0.settings.at_once }
    }

    /// Takes up what is due, as far as there are places, and returns how many messages that were.
    async fn take(&self, under_way: &mut JoinSet<Result<Outcome, StoreError>>) -> Result<usize, StoreError> {
        let ForwardSettings { timeout, give_up, .. } = self.0.settings;
        let places = self.at_once().saturating_sub(under_way.len());
        if places == 0 {
            return Ok(0);
        }
        let taken = self.0.store.take_forwards(places, timeout + HOLD_MARGIN, give_up).await?;
        if taken.gone > 0 {
            warn!(times = taken.gone, "messages that were to be forwarded are not in the journal any more");
            Outcome::Dropped.note(taken.gone);
        }
        let (count, stopwatch) = (taken.forwards.len(), Stopwatch::start());
        for forward in taken.forwards {
            let forwarder = self.clone();
            under_way.spawn(async move { forwarder.forward(&forward, taken.now, stopwatch).await });
        }
        Ok(count)
    }

    async fn forward(&self, forward: &Forward, began: Timestamp, since: Stopwatch) -> Result<Outcome, StoreError> {
        let (store, give_up) = (&self.0.store, self.0.settings.give_up);
        if !is_for_others(&forward.body) {
            return store.forwarded(forward).await.map(|()| Outcome::Dropped);
        }
        if forward.late {
            return store.give_up_forward(forward).await.map(|()| Outcome::GivenUp);
        }
        let answer = self.send(forward).await;
        let now = began.saturating_add(since.elapsed()).unwrap_or(began);
        match answer {
            Answer::Taken => store.forwarded(forward).await.map(|()| Outcome::Taken),
            Answer::Refused => {
                let refused_since = forward.refused_since.unwrap_or(now);
                if next_try(refused_since, now, REFUSED_FOR).is_none() {
                    warn!(
                        message_id = forward.message_id,
                        "the handler at FORWARD_URL refuses a notification for good"
                    );
                    return store.forwarded(forward).await.map(|()| Outcome::Unwanted);
                }
                let due = next_try(forward.taken_at, now, Duration::MAX).unwrap_or(now);
                store.put_off_forward(forward, due, Some(refused_since)).await.map(|()| Outcome::Refused)
            }
            Answer::Failed => match next_try(forward.taken_at, now, give_up) {
                Some(due) => store.put_off_forward(forward, due, None).await.map(|()| Outcome::Failed),
                None => store.give_up_forward(forward).await.map(|()| Outcome::GivenUp),
            },
        }
    }

    async fn send(&self, forward: &Forward) -> Answer {
        // What is no header was not published by SNS; it cannot be sent, now or later.
        let Some(headers) = headers(forward) else { return Answer::Refused };
        let request = self.0.client.post(self.0.address.0.clone()).headers(headers).body(forward.body.clone());
        let message_id = &forward.message_id;
        let mut answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                if !self.0.failing.swap(true, Ordering::Relaxed) {
                    // Its address may hold a secret.
                    let error = error.without_url();
                    let error = &error as &dyn std::error::Error;
                    warn!(message_id, error, "the handler at FORWARD_URL was not reached");
                }
                return Answer::Failed;
            }
        };
        let mut read = 0;
        while read < MAX_ANSWER_BYTES
            && let Ok(Some(part)) = answer.chunk().await
        {
            read += part.len();
        }
        let status = answer.status().as_u16();
        let answer = Answer::of(status);
        if answer != Answer::Failed {
            if self.0.failing.swap(false, Ordering::Relaxed) {
                info!(message_id, "the handler at FORWARD_URL answers again");
            }
        } else if !self.0.failing.swap(true, Ordering::Relaxed) {
            warn!(message_id, status, "the handler at FORWARD_URL did not take a notification");
        }
        answer
    }
}

/// Counts what became of a message. What could not be noted is due again when its hold ends.
fn noted(ended: Result<Result<Outcome, StoreError>, JoinError>) {
    match ended {
        Ok(Ok(outcome)) => outcome.note(1),
        Ok(Err(error)) => {
            error!(
                error = &error as &dyn std::error::Error,
                "what became of a forwarded notification could not be noted"
            );
        }
        // A panic was printed where it happened.
        Err(_) => Outcome::Failed.note(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVE_UP: Duration = ForwardSettings::GIVE_UP;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    #[test]
    fn each_wait_is_as_long_as_all_before_it_up_to_half_an_hour() {
        let mut now = at(0);
        let mut waits = Vec::new();
        while let Some(next) = next_try(at(0), now, Duration::from_hours(2)) {
            waits.push(next.duration_since(now).as_secs());
            now = next;
        }
        assert_eq!(waits, [5, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800, 1800]);
    }

    #[test]
    fn what_was_tried_for_long_enough_is_tried_once_more_and_then_given_up() {
        let end = i64::try_from(GIVE_UP.as_secs()).unwrap();
        assert!(next_try(at(0), at(end - 1), GIVE_UP).is_some());
        assert_eq!(next_try(at(0), at(end), GIVE_UP), None);
        // A clock that went back is no age.
        assert_eq!(next_try(at(100), at(0), GIVE_UP), Some(at(5)));
    }

    #[test]
    fn what_means_later_or_elsewhere_is_no_refusal() {
        let told = |answer| (200..=599).filter(|status| Answer::of(*status) == answer).collect::<Vec<u16>>();
        assert_eq!(told(Answer::Taken), (200..300).collect::<Vec<u16>>());
        let later = [401, 403, 404, 405, 407, 408, 425, 429];
        assert_eq!(told(Answer::Refused), (400..500).filter(|status| !later.contains(status)).collect::<Vec<u16>>());
    }

    #[test]
    fn the_address_is_not_shown() {
        let url = "https://shop.example/ipn?key=secret";
        let address = Address(reqwest::Url::parse(url).unwrap());
        let settings =
            ForwardSettings { url: url.to_owned().into(), at_once: 1, timeout: FIRST_WAIT, give_up: GIVE_UP };
        assert!(!format!("{address:?}{settings:?}").contains("secret"));
    }

    #[test]
    fn only_notifications_are_for_others() {
        assert!(is_for_others(r#"{"Type":"Notification","Message":"{}"}"#));
        for body in [r#"{"Type":"SubscriptionConfirmation"}"#, r#"{"Type":"UnsubscribeConfirmation"}"#, "{}", "", "["] {
            assert!(!is_for_others(body), "{body}");
        }
    }
}
