//! Confirms a subscription by calling the SNS API, unsigned, in the region of the configured topic.
//!
//! `SubscribeURL` is never visited: it is the sender's text, and fetching it is how others got server-side request forgery.
//! Unsubscribing is never undone. Source: <https://docs.aws.amazon.com/sns/latest/api/API_ConfirmSubscription.html>.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_sns::Client;
use aws_sdk_sns::config::retry::RetryConfig;
use aws_sdk_sns::config::timeout::TimeoutConfig;
use aws_sdk_sns::config::{BehaviorVersion, Region, StalledStreamProtectionConfig};
use aws_sdk_sns::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sns::operation::confirm_subscription::ConfirmSubscriptionError;
use aws_smithy_http_client::tls;

use super::envelope::{Content, Envelope};
use super::verifier::{SnsSettings, Verified};

/// SNS waits 15 s for our answer to the confirmation message; this leaves room for the rest of the request.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(9);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The first try and one more; SNS itself sends the message again after a 503.
const MAX_ATTEMPTS: u32 = 2;

/// Confirms subscriptions of our endpoint to allow-listed topics.
#[derive(Debug)]
pub struct Subscriber {
    /// One client per configured topic ARN: the region is never taken from a message.
    clients: BTreeMap<String, Client>,
}

impl Subscriber {
    /// A subscriber for the topics of `settings`. Connects to nothing yet and needs no AWS credentials.
    #[must_use]
    pub fn new(settings: &SnsSettings) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(TOTAL_TIMEOUT)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(MAX_ATTEMPTS)
            .with_initial_backoff(Duration::from_millis(200))
            .with_max_backoff(Duration::from_millis(500));
        let mut config = aws_sdk_sns::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .timeout_config(timeouts)
            .retry_config(retries)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // The token is the proof; the operation needs no signature unless unsubscribing shall be authenticated.
            .allow_no_auth();
        config.set_endpoint_url(settings.api_base_url.clone());
        let client = |region: &str| Client::from_conf(config.clone().region(Region::new(region.to_owned())).build());
        let clients = settings.topics.iter().map(|topic| (topic.as_str().to_owned(), client(topic.region()))).collect();
        Self { clients }
    }

    /// Confirms the subscription that `message` announces. Takes 9 s at most; may be repeated.
    ///
    /// # Errors
    ///
    /// [`ConfirmError`]; if it is transient, the sender should be asked to send the message again.
    pub async fn confirm(&self, message: &Verified<Envelope>) -> Result<(), ConfirmError> {
        let Content::SubscriptionConfirmation(confirmation) = &message.content else {
            return Err(ConfirmError::permanent("the message announces no subscription"));
        };
        let Some(client) = self.clients.get(&message.topic_arn) else {
            return Err(ConfirmError::permanent("the topic is not allow-listed"));
        };
        let request = client.confirm_subscription().topic_arn(&message.topic_arn).token(&confirmation.token);
        request.send().await.map(|_| ()).map_err(|error| ConfirmError::from_sdk(&error))
    }
}

/// A subscription that could not be confirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the subscription was not confirmed: {why}")]
pub struct ConfirmError {
    /// Whether trying again may help: no answer, throttled, or a fault of the server's.
    pub transient: bool,
    /// What happened: SNS's error code and text, or the failure to reach it. Holds no token.
    pub why: String,
}

impl ConfirmError {
    fn permanent(why: &str) -> Self {
        Self { transient: false, why: why.to_owned() }
    }

    fn from_sdk(error: &SdkError<ConfirmSubscriptionError>) -> Self {
        match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                let code = answer.err().code().unwrap_or("no error code");
                let transient = status == 429 || status >= 500 || code.starts_with("Thrott");
                let message: String = answer.err().message().unwrap_or_default().chars().take(200).collect();
                Self { transient, why: format!("SNS answered {status} {code:?} {message:?}") }
            }
            SdkError::ConstructionFailure(_) => Self::permanent("the request could not be built"),
            SdkError::TimeoutError(_) => Self { transient: true, why: "no answer from SNS in time".to_owned() },
            SdkError::DispatchFailure(failure) => {
                let cause = failure.as_connector_error().map_or_else(String::new, |error| format!(": {error}"));
                Self { transient: true, why: format!("SNS could not be reached{cause}") }
            }
            _ => Self { transient: true, why: "SNS's answer could not be read".to_owned() },
        }
    }
}
