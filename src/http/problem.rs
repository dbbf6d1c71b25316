//! Errors of the internal API as RFC 9457 problem details.

use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use problem_details::ProblemDetails;
use schemars::JsonSchema;
use serde::Serialize;
use tracing::error;

use crate::store::StoreError;

/// A field of a request that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct FieldError {
    /// Path of the field.
    pub(super) field: String,
    /// What was expected.
    pub(super) message: String,
}

/// An answer that is an error.
#[derive(Debug)]
pub(super) enum Problem {
    /// 400: the request names its wrong fields.
    Invalid(Vec<FieldError>),
    /// The body could not be read: too large, or broken off.
    Unreadable(BytesRejection),
    /// 405.
    WrongMethod,
    /// 401: no or a wrong bearer token.
    Unauthorized,
    /// 404.
    NotFound(&'static str),
    /// 409: it cannot be done any more, or not again.
    Conflict(String),
    /// 503: it may work later.
    Unavailable(String),
}

/// Problem details as they are sent; the crate that writes them has no schema.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "Problem")]
#[expect(dead_code, reason = "a schema only")]
pub(super) struct ProblemBody {
    /// The status again.
    status: u16,
    /// Its reason phrase.
    title: String,
    /// What is wrong, for people.
    #[schemars(extend("minLength" = 1))]
    detail: String,
    /// 400: each wrong field.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<FieldError>>,
}

#[derive(Debug, Serialize)]
struct Errors {
    errors: Vec<FieldError>,
}

impl Problem {
    /// The status, and what a person reads.
    pub(super) fn said(&self) -> (StatusCode, String) {
        match self {
            Self::Invalid(errors) => {
                let errors: Vec<String> =
                    errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
                (StatusCode::BAD_REQUEST, errors.join("; "))
            }
            Self::Unreadable(rejection) => (rejection.status(), rejection.body_text()),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "the resource has no such method".to_owned()),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "expected `Authorization: Bearer` with the token of the internal API".to_owned(),
            ),
            Self::NotFound(what) => (StatusCode::NOT_FOUND, format!("there is no such {what}")),
            Self::Conflict(detail) => (StatusCode::CONFLICT, detail.clone()),
            Self::Unavailable(detail) => (StatusCode::SERVICE_UNAVAILABLE, detail.clone()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, detail) = self.said();
        match self {
            Self::Invalid(errors) => ProblemDetails::from_status_code(status)
                .with_detail("the request is not valid")
                .with_extensions(Errors { errors })
                .into_response(),
            _ => ProblemDetails::from_status_code(status).with_detail(detail).into_response(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        error!(error = &error as &dyn std::error::Error, "the internal API could not reach its data");
        Self::Unavailable(match error.failure() {
            Some(failure) => format!("{}; the same request again is safe", failure.as_str()),
            None => error.to_string(),
        })
    }
}
