//! The buttons. Each asks back before it does anything, and then does what the API does: the same handlers, the same answers.

use axum::Form;
use axum::body::Bytes;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;
use serde::Deserialize;
use serde_json::json;
use tracing::warn;

use super::layout::{self, segment};
use super::{Failed, Operator, PageState, foreign, is_own};
use crate::http::internal::ApiState;
use crate::http::problem::{FieldError, Problem};
use crate::http::{charge_actions, charge_permissions, charges, quarantine, quota, resolve, stop};

macro_rules! verbs {
    ($($verb:ident = $name:literal, $label:literal, $final:literal, $question:literal;)*) => {
        /// What a button asks for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Verb {
            $(#[doc = $question] $verb,)*
        }

        impl Verb {
            fn parse(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$verb),)*
                    _ => None,
                }
            }

            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$verb => $name,)* }
            }

            pub(super) fn label(self) -> &'static str {
                match self { $(Self::$verb => $label,)* }
            }

            /// Whether it cannot be undone.
            pub(super) fn is_final(self) -> bool {
                match self { $(Self::$verb => $final,)* }
            }

            fn question(self) -> &'static str {
                match self { $(Self::$verb => $question,)* }
            }
        }
    };
}

verbs! {
    Retry = "retry", "Retry now", false, "Try this charge now? What must come before a new number still comes before it.";
    Pause = "pause", "Pause", false, "Send nothing for this charge until it is resumed?";
    Resume = "resume", "Resume", false, "Go on with this charge? What is due is sent at once.";
    Cancel = "cancel", "Cancel", true, "Cancel this charge? It is not sent anew; whether one may still come of it is said.";
    Found = "resolve-captured", "There is a charge", false, "Name the charge that Seller Central shows for this. It is read at Amazon and matched, so that nothing is believed.";
    GiveUp = "resolve-abandoned", "There is none: give up", true, "Does Seller Central show no charge for this? Then it ends here, and nothing more is sent for it.";
    Anew = "resolve-new-number", "There is none: charge anew", true, "Look in Seller Central first: if there is a charge for this after all, the buyer is charged twice.";
    Reconcile = "reconcile", "Look now", false, "Look at this charge permission at Amazon now?";
    PausePermission = "pause-permission", "Pause all", false, "Send nothing for this charge permission until it is resumed?";
    ResumePermission = "resume-permission", "Resume all", false, "Go on with this charge permission? What is due is sent at once.";
    Close = "close", "Close at Amazon", true, "Close this charge permission at Amazon? Nothing can be charged to it afterwards. Charges that Amazon has not decided are not canceled.";
    Replay = "replay", "Replay", false, "Have what this names looked at now? It leaves the quarantine.";
    Drop = "drop", "Drop", true, "Drop this for good?";
    Stop = "stop", "Stop all charges", true, "Throw the stop switch? Then no charge is sent on any instance until it is lifted. Notifications are taken as ever.";
    Lift = "lift", "Lift the stop switch", false, "Lift the stop switch? Charges that are due are sent at once.";
    Probe = "probe", "Ask Amazon now", false, "Ask Amazon now whether the account works again?";
}

impl Verb {
    /// What has to be said besides.
    fn asks_for(self, id: &str) -> Option<String> {
        match self {
            Self::Found => Some("Its id at Amazon".to_owned()),
            Self::Anew => Some(format!("To confirm, type: {}", resolve::sentence(id))),
            _ => None,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    code: String,
    verb: String,
    id: String,
    #[serde(default)]
    sure: String,
    #[serde(default)]
    said: String,
}

/// `POST /operator/do`: asks back; with `sure` it is done.
pub(super) async fn act(
    State(state): State<PageState>,
    operator: Operator,
    headers: HeaderMap,
    asked: Result<Form<Asked>, FormRejection>,
) -> Result<Response, Failed> {
    let Form(asked) = asked.map_err(|rejection| wrong(rejection.body_text()))?;
    if !is_own(&headers) || !state.sessions.made(&operator.session, &asked.code) {
        warn!("a form was sent to the operator page that it had not made");
        return Err(foreign().into());
    }
    let verb = Verb::parse(&asked.verb).ok_or_else(|| wrong("there is no such button".to_owned()))?;
    if asked.sure != "yes" {
        return Ok(question(&state, &operator, verb, &asked.id));
    }
    warn!(verb = verb.name(), id = asked.id, "an operator asked for something on the page");
    done(&state.api, verb, asked.id.clone(), asked.said.trim()).await?;
    Ok(Redirect::to(&target(verb, &asked.id)).into_response())
}

fn wrong(message: String) -> Problem {
    Problem::Invalid(vec![FieldError { field: "form".to_owned(), message }])
}

fn question(state: &PageState, operator: &Operator, verb: Verb, id: &str) -> Response {
    let class = if verb.is_final() { "sure danger" } else { "sure" };
    let body = html! {
        section {
            @if !id.is_empty() { p { b { (id) } } }
            p { (verb.question()) }
            div class="actions" {
                form method="post" action="/operator/do" {
                    input type="hidden" name="code" value=(operator.form_code);
                    input type="hidden" name="verb" value=(verb.name());
                    input type="hidden" name="id" value=(id);
                    input type="hidden" name="sure" value="yes";
                    @if let Some(wanted) = verb.asks_for(id) {
                        label { (wanted) input name="said" required autocomplete="off" autofocus; }
                        button class=(class) { (verb.label()) }
                    } @else {
                        button class=(class) autofocus { (verb.label()) }
                    }
                }
                a href=(target(verb, id)) { "No, back" }
            }
        }
    };
    (StatusCode::OK, layout::question(&state.api, operator, verb.label(), &body)).into_response()
}

/// Where the outcome is to be seen.
fn target(verb: Verb, id: &str) -> String {
    match verb {
        Verb::Retry | Verb::Pause | Verb::Resume | Verb::Cancel | Verb::Found | Verb::GiveUp | Verb::Anew => {
            format!("/operator/charges/{}", segment(id))
        }
        Verb::Reconcile | Verb::PausePermission | Verb::ResumePermission | Verb::Close => {
            format!("/operator/permissions/{}", segment(id))
        }
        Verb::Replay | Verb::Drop => "/operator/quarantine".to_owned(),
        Verb::Stop | Verb::Lift | Verb::Probe => "/operator".to_owned(),
    }
}

async fn done(api: &ApiState, verb: Verb, id: String, said: &str) -> Result<(), Problem> {
    let (api, path) = (State(api.clone()), Path(id));
    let body = |value: serde_json::Value| Ok(Bytes::from(value.to_string()));
    match verb {
        Verb::Retry => charge_actions::retry(api, path).await,
        Verb::Pause => charge_actions::pause(api, path).await,
        Verb::Resume => charge_actions::resume(api, path).await,
        Verb::Cancel => charges::cancel(api, path).await,
        Verb::Found => resolve::resolve(api, path, body(json!({ "as": "captured", "chargeId": said }))).await,
        Verb::GiveUp => resolve::resolve(api, path, body(json!({ "as": "abandoned" }))).await,
        Verb::Anew => resolve::resolve(api, path, body(json!({ "as": "new_number", "confirm": said }))).await,
        Verb::Reconcile => charge_permissions::reconcile(api, path, body(json!({}))).await,
        Verb::PausePermission => charge_actions::pause_permission(api, path).await,
        Verb::ResumePermission => charge_actions::resume_permission(api, path).await,
        Verb::Close => {
            let reason = json!({ "closureReason": "closed by an operator", "cancelPendingCharges": false });
            charge_permissions::close(api, path, body(reason)).await
        }
        Verb::Replay => quarantine::replay(api, path).await,
        Verb::Drop => quarantine::discard(api, path).await,
        Verb::Stop => stop::throw(api).await,
        Verb::Lift => stop::lift(api).await,
        Verb::Probe => quota::probe(api).await,
    }
    .map(|_| ())
}
