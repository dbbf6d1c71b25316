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
use super::settings::SnsSettings;
use super::verifier::Verified;

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

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::http::{HeaderMap, StatusCode, header};

    use super::super::test_authority::{TOPIC, confirmation, notification, serve, settings};
    use super::*;

    const CONFIRMED: &str = "<ConfirmSubscriptionResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\">\
        <ConfirmSubscriptionResult><SubscriptionArn>arn:aws:sns:us-east-1:291180941288:t:u</SubscriptionArn>\
        </ConfirmSubscriptionResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></ConfirmSubscriptionResponse>";

    struct Api {
        subscriber: Subscriber,
        requests: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    }

    async fn api(status: StatusCode, answer: &'static str) -> Api {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let base = serve(Router::new().fallback(move |headers: HeaderMap, body: String| {
            seen.lock().unwrap().push((headers, body));
            async move { (status, [(header::CONTENT_TYPE, "text/xml")], answer) }
        }))
        .await;
        let settings = SnsSettings { api_base_url: Some(base), ..settings("http://127.0.0.1:9") };
        Api { subscriber: Subscriber::new(&settings), requests }
    }

    fn error(code: &str) -> &'static str {
        format!("<ErrorResponse><Error><Type>x</Type><Code>{code}</Code><Message>m</Message></Error></ErrorResponse>")
            .leak()
    }

    fn message(mut value: serde_json::Value) -> Verified<Envelope> {
        value["Signature"] = serde_json::json!("s");
        Verified::for_test(Envelope::parse(value.to_string().as_bytes()).unwrap())
    }

    fn announcement() -> Verified<Envelope> {
        message(confirmation("http://127.0.0.1:9", "SubscriptionConfirmation"))
    }

    #[tokio::test]
    async fn a_subscription_is_confirmed_by_token_without_credentials() {
        let api = api(StatusCode::OK, CONFIRMED).await;
        api.subscriber.confirm(&announcement()).await.unwrap();
        let requests = api.requests.lock().unwrap();
        let [(headers, body)] = requests.as_slice() else { panic!("{} requests", requests.len()) };
        assert!(!headers.contains_key(header::AUTHORIZATION));
        let mut fields: Vec<&str> = body.split('&').collect();
        fields.sort_unstable();
        let topic = format!("TopicArn={}", TOPIC.replace(':', "%3A"));
        let token = "Token=2336412f37fb687f5d51e6e2425929f52e8e";
        assert_eq!(fields, ["Action=ConfirmSubscription", token, &topic, "Version=2010-03-31"]);
    }

    #[tokio::test]
    async fn only_what_may_pass_is_transient_and_it_is_tried_twice() {
        for (status, code, transient, tries) in [
            (StatusCode::INTERNAL_SERVER_ERROR, "InternalError", true, 2),
            (StatusCode::BAD_REQUEST, "Throttling", true, 2),
            (StatusCode::BAD_REQUEST, "InvalidParameter", false, 1),
            (StatusCode::FORBIDDEN, "AuthorizationError", false, 1),
            (StatusCode::NOT_FOUND, "NotFound", false, 1),
        ] {
            let api = api(status, error(code)).await;
            let refused = api.subscriber.confirm(&announcement()).await.unwrap_err();
            assert_eq!((refused.transient, api.requests.lock().unwrap().len()), (transient, tries), "{refused}");
            assert!(refused.to_string().contains(code) && !refused.to_string().contains("2336412f"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_server_that_cannot_be_reached_is_transient() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let subscriber = Subscriber::new(&SnsSettings { api_base_url: Some(base), ..settings("http://127.0.0.1:9") });
        assert!(subscriber.confirm(&announcement()).await.unwrap_err().transient);
    }

    #[tokio::test]
    async fn nothing_else_is_ever_confirmed() {
        let api = api(StatusCode::OK, CONFIRMED).await;
        let base = "http://127.0.0.1:9";
        let mut elsewhere = confirmation(base, "SubscriptionConfirmation");
        elsewhere["TopicArn"] = serde_json::json!("arn:aws:sns:us-east-1:291180941288:another");
        for other in [notification(base), confirmation(base, "UnsubscribeConfirmation"), elsewhere] {
            let refused = api.subscriber.confirm(&message(other)).await.unwrap_err();
            assert!(!refused.transient);
        }
        assert!(api.requests.lock().unwrap().is_empty());
    }
}
