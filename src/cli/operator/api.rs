//! The client of the internal API. Every answer that is an error is RFC 9457 problem details.

use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::table::printable;
use crate::cli::progress;

/// The service answers within 20 s.
const TIMEOUT: Duration = Duration::from_secs(25);
/// No answer of the API is larger: a page of 200 charges is far below it.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

const NOT_KNOWN: &str = "the service did not answer in time: whether it was done is not known; the same again is safe";

/// Why the service did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// The base URL is none.
    #[error("--api: expected a URL such as http://127.0.0.1:8081")]
    Url,
    /// Nobody answered.
    #[error("the service does not answer; does it run, and is --api its internal listener?")]
    Unreachable(#[source] reqwest::Error),
    /// 503: later perhaps.
    #[error("{0}")]
    Unavailable(String),
    /// 404.
    #[error("{0}")]
    Missing(String),
    /// Any other error; what it says.
    #[error("{0}")]
    Refused(String),
    /// Something that no version of the service answers.
    #[error("the answer is none of amazon-pay-ipn ({0}): is --api its internal listener?")]
    Foreign(StatusCode),
}

pub(super) struct Api {
    client: reqwest::Client,
    base: Url,
    token: SecretString,
}

impl Api {
    pub(super) fn new(base: &str, token: SecretString) -> Result<Self, ApiError> {
        let base: Url = base.parse().map_err(|_| ApiError::Url)?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(ApiError::Url);
        }
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(ApiError::Unreachable)?;
        Ok(Self { client, base, token })
    }

    /// `path` below `/v1`, each segment as it is: an id may hold what a URL may not.
    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, ApiError> {
        // They would be taken for steps of the path, and something else be asked for.
        if let Some(step) = path.iter().find(|segment| matches!(**segment, "." | ".." | "")) {
            return Err(ApiError::Refused(format!("{step:?} is no id")));
        }
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| ApiError::Url)?.pop_if_empty().push("v1").extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    pub(super) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, ApiError> {
        self.call(Method::GET, self.url(path, query)?, None).await
    }

    pub(super) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, ApiError> {
        self.call(Method::POST, self.url(path, &[])?, Some(body)).await
    }

    pub(super) async fn delete(&self, path: &[&str]) -> Result<Value, ApiError> {
        self.call(Method::DELETE, self.url(path, &[])?, None).await
    }

    async fn call(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Value, ApiError> {
        let mut request = self.client.request(method, url).bearer_auth(self.token.expose_secret());
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut answer = request.send().await.map_err(ApiError::Unreachable)?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(ApiError::Unreachable)? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(ApiError::Foreign(status));
            }
            bytes.extend_from_slice(&chunk);
        }
        let value: Value = match serde_json::from_slice(&bytes) {
            Ok(value) => value,
            // The service's own time-out, or that of a proxy before it.
            Err(_) if matches!(status.as_u16(), 502..=504) => return Err(ApiError::Unavailable(NOT_KNOWN.to_owned())),
            Err(_) => return Err(ApiError::Foreign(status)),
        };
        if status.is_success() {
            return Ok(value);
        }
        let text = problem(&value).ok_or(ApiError::Foreign(status))?;
        Err(match status {
            StatusCode::NOT_FOUND => ApiError::Missing(text),
            StatusCode::SERVICE_UNAVAILABLE => ApiError::Unavailable(text),
            _ => ApiError::Refused(text),
        })
    }

    /// All entries of a list, page by page, at most `most` of them; and whether there are more.
    pub(super) async fn list(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        entries: &str,
        most: usize,
    ) -> Result<(Vec<Value>, bool), ApiError> {
        let mut all: Vec<Value> = Vec::new();
        let mut cursor: Option<String> = None;
        let bar = progress::counted("read");
        loop {
            let limit = most.saturating_sub(all.len()).clamp(1, 200).to_string();
            let mut query = query.to_vec();
            query.push(("limit", &limit));
            if let Some(cursor) = &cursor {
                query.push(("cursor", cursor));
            }
            let mut page = self.get(path, &query).await?;
            if let Some(Value::Array(part)) = page.get_mut(entries).map(Value::take) {
                bar.inc(part.len().try_into().unwrap_or(0));
                all.extend(part);
            }
            cursor = page.get("nextCursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() || all.len() >= most {
                return Ok((all, cursor.is_some()));
            }
        }
    }
}

/// What problem details say, with every wrong field.
fn problem(value: &Value) -> Option<String> {
    let mut text = printable(value.get("detail").or_else(|| value.get("title"))?.as_str()?);
    for error in value.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let part = |name| printable(error.get(name).and_then(Value::as_str).unwrap_or_default());
        text = format!("{text}; {}: {}", part("field"), part("message"));
    }
    Some(text)
}
