//! The operator page: what a person on call wants to see at a glance, and the few things that he may do. Rendered here, without a build
//! step; it works without JavaScript. Everything on it comes from the internal API's own resources, and every button does what the API does.
//!
//! Texts on it come from callers, buyers and Amazon: maud escapes all of them, and the content security policy lets nothing inline run.

mod actions;
mod chart;
mod figures;
mod layout;
mod lists;
mod overview;
mod session;
mod single;

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{FromRef, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use maud::{Markup, html};
use secrecy::ExposeSecret;
use serde::Deserialize;
use subtle::ConstantTimeEq;
use tokio::sync::Mutex;
use tracing::{info, warn};

use self::layout::bare;
use self::overview::Week;
use self::session::{Session, Sessions};
use super::internal::ApiState;
use super::problem::Problem;

const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");
/// Nothing but what this listener serves, nothing inline, in no frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// What the page works with.
#[derive(Debug, Clone)]
pub(super) struct PageState {
    api: ApiState,
    sessions: Sessions,
    week: Arc<Mutex<Week>>,
}

impl FromRef<PageState> for ApiState {
    fn from_ref(state: &PageState) -> Self {
        state.api.clone()
    }
}

/// Below `/operator`.
pub(super) fn router(api: ApiState) -> Router<ApiState> {
    let sessions = Sessions::new(api.0.token.expose_secret());
    let state = PageState { api, sessions, week: Arc::default() };
    Router::new()
        .route("/", get(overview::show))
        .route("/login", get(ask).post(log_in))
        .route("/logout", post(log_out))
        .route("/charges", get(lists::charges))
        .route("/charges/{id}", get(single::charge))
        .route("/permissions", get(lists::permissions))
        .route("/permissions/{id}", get(single::permission))
        .route("/quarantine", get(lists::quarantine))
        .route("/quarantine/{id}", get(single::quarantined))
        .route("/do", post(actions::act))
        .route("/page.css", get(|| async { asset("text/css; charset=utf-8", CSS) }))
        .route("/page.js", get(|| async { asset("text/javascript; charset=utf-8", JS) }))
        .fallback(|| async { Failed(Problem::NotFound("page")) })
        .method_not_allowed_fallback(|| async { Failed(Problem::WrongMethod) })
        .layer(from_fn(guard))
        .with_state(state)
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Every answer tells the browser what it may do with it.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: with that a browser sends `Origin: null` with its own forms, and [`is_own`] refuses them.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Somebody who is logged in, with what his forms carry.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    session: Session,
    form_code: String,
}

impl FromRequestParts<PageState> for Operator {
    type Rejection = Redirect;

    async fn from_request_parts(parts: &mut Parts, state: &PageState) -> Result<Self, Redirect> {
        let session = state.sessions.of(&parts.headers, state.api.0.clock.now());
        let session = session.ok_or_else(|| Redirect::to("/operator/login"))?;
        let form_code = state.sessions.form_code(&session);
        Ok(Self { session, form_code })
    }
}

/// A page instead of what was asked for.
#[derive(Debug)]
pub(super) struct Failed(Problem);

impl<E: Into<Problem>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let (status, text) = self.0.said();
        let body = html! {
            section {
                h1 { "That did not work" }
                p class="error" { (text) }
                p { a href="/operator" { "Back to the overview" } }
            }
        };
        (status, bare("That did not work", &body)).into_response()
    }
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

async fn ask() -> Response {
    login_form(None).into_response()
}

fn login_form(wrong: Option<&str>) -> Markup {
    let body = html! {
        section class="login" {
            h1 { "amazon-pay-ipn" }
            form method="post" action="/operator/login" {
                label { "Token of the internal API "
                    input type="password" name="token" autocomplete="current-password" required autofocus;
                }
                @if let Some(wrong) = wrong { p class="error" role="alert" { (wrong) } }
                button class="sure" { "Log in" }
            }
        }
    };
    bare("Log in", &body)
}

async fn log_in(
    State(state): State<PageState>,
    headers: HeaderMap,
    form: Result<Form<Login>, FormRejection>,
) -> Response {
    if !is_own(&headers) {
        return Failed(foreign()).into_response();
    }
    let Ok(Form(Login { token })) = form else {
        return (StatusCode::BAD_REQUEST, login_form(Some("Expected the token."))).into_response();
    };
    let inner = &state.api.0;
    if !bool::from(token.trim().as_bytes().ct_eq(inner.token.expose_secret().as_bytes())) {
        warn!("somebody gave a wrong token to the operator page");
        return (StatusCode::FORBIDDEN, login_form(Some("That is not the token."))).into_response();
    }
    info!("somebody logged in to the operator page");
    let cookie = state.sessions.begin(inner.clock.now());
    ([(header::SET_COOKIE, cookie)], Redirect::to("/operator")).into_response()
}

#[derive(Deserialize)]
struct Leaving {
    code: String,
}

async fn log_out(
    State(state): State<PageState>,
    operator: Operator,
    headers: HeaderMap,
    form: Result<Form<Leaving>, FormRejection>,
) -> Response {
    let own = form.is_ok_and(|Form(Leaving { code })| state.sessions.made(&operator.session, &code));
    if !own || !is_own(&headers) {
        return Failed(foreign()).into_response();
    }
    ([(header::SET_COOKIE, Sessions::end())], Redirect::to("/operator/login")).into_response()
}

/// Whether a browser says that one of our pages sent this: by `Sec-Fetch-Site`, which it leaves out over plain HTTP, and by `Origin`, which
/// it sends with every POST. What says nothing is no browser; then the code in the form counts.
fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    if let Some(site) = headers.get("sec-fetch-site")
        && site != "same-origin"
        && site != "none"
    {
        return false;
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, from)| from == host),
        (Some(_), None) => false,
        (None, _) => true,
    }
}

fn foreign() -> Problem {
    Problem::Conflict("the request does not come from this page".to_owned())
}
