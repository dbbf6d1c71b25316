//! `GET /readyz`: may this process be sent work, and what is not as it should be.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::internal::ApiState;
use super::problem::Problem;
use super::quota::FaultResource;
use crate::preflight::{Finding, Severity, server};
use crate::store::account::AccountStatus;
use crate::store::{Store, StoreError};
use crate::telemetry::metric;

/// What the preflight of this process found; it grows while the checks that go to Amazon run. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Noticed(Arc<Mutex<Vec<Finding>>>);

impl Noticed {
    /// Adds findings; those of the same check go.
    pub fn add(&self, findings: Vec<Finding>) {
        let mut noticed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noticed.retain(|old| !findings.iter().any(|new| new.check == old.check));
        noticed.extend(findings);
    }

    fn all(&self) -> Vec<Finding> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What `/readyz` shows.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Readiness")]
pub(super) struct ReadyResource {
    ready: bool,
    /// `null`: the stop switch is off.
    stopped_since: Option<Timestamp>,
    /// Whether data was lost or restored, and nobody has ended the recovery.
    recovering: bool,
    /// `null`: there is none.
    account_fault: Option<FaultResource>,
    /// What is wrong, for people.
    complaints: Vec<String>,
    findings: Vec<Finding>,
}

/// How this process and its account stand.
pub(super) struct Health {
    pub(super) ready: bool,
    pub(super) account: AccountStatus,
    /// What is not as it should be, in words.
    pub(super) complaints: Vec<String>,
    /// What else the preflight has found of this process and at Amazon.
    pub(super) findings: Vec<Finding>,
}

/// Ready means: Redis answers, knows the account, and is no replica. What is wrong with its durability, with the settings or at Amazon
/// is shown, and is no reason to stop: a process that is taken out of service for it mends nothing.
///
/// # Errors
/// When Redis does not answer.
pub(super) async fn health(state: &ApiState) -> Result<Health, StoreError> {
    let inner = &state.0;
    let account = inner.store.account().await?;
    let server = inner.store.server_facts().await?;
    let now = server::set_up(&server, inner.accepted);
    gauge(&now);
    let checks: Vec<_> = now.iter().map(|finding| finding.check).collect();
    let said = now.iter().filter(|finding| finding.severity >= Severity::Warning);
    let mut complaints: Vec<String> =
        said.map(|finding| format!("{}: {}", finding.found, finding.check.means())).collect();
    inner.noticed.add(now);
    complaints.extend(account.complaint());
    if let Some(fault) = &account.fault {
        complaints.push(format!(
            "the account is at fault since {} ({}): nothing is called but a probe",
            fault.since, fault.reason
        ));
    }
    let mut findings = inner.noticed.all();
    findings.retain(|finding| finding.severity >= Severity::Warning && !checks.contains(&finding.check));
    Ok(Health { ready: !server.is_replica, account, complaints, findings })
}

/// `GET /readyz`.
pub(super) async fn ready(State(state): State<ApiState>) -> Response {
    let Health { ready, account, complaints, .. } = match health(&state).await {
        Ok(health) => health,
        Err(error) => return Problem::from(error).into_response(),
    };
    let mut findings = state.0.noticed.all();
    findings.retain(|finding| finding.severity != Severity::Ok);
    findings.sort_by_key(|finding| finding.check);
    let body = ReadyResource {
        ready,
        stopped_since: account.stopped_since,
        recovering: account.recovering,
        account_fault: account.fault.map(FaultResource::from),
        complaints,
        findings,
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

/// For `/metrics`.
pub(super) async fn gauge_durability(store: &Store, accepted: bool) {
    if let Ok(server) = store.server_facts().await {
        gauge(&server::set_up(&server, accepted));
    }
}

fn gauge(findings: &[Finding]) {
    metrics::gauge!(metric::UNSAFE_DURABILITY).set(if server::is_unsafe(findings) { 1.0 } else { 0.0 });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Check;

    #[test]
    fn a_later_finding_takes_the_place_of_an_earlier_one_of_the_same_check() {
        let noticed = Noticed::default();
        let twin = noticed.clone();
        noticed.add(vec![Finding::new(Check::RedisRole, Severity::Ok, "primary")]);
        twin.add(vec![
            Finding::new(Check::RedisRole, Severity::Error, "a replica"),
            Finding::new(Check::AmazonClock, Severity::Ok, "fine"),
        ]);
        let found: Vec<_> = noticed.all().into_iter().map(|finding| (finding.check, finding.severity)).collect();
        assert_eq!(found, [(Check::RedisRole, Severity::Error), (Check::AmazonClock, Severity::Ok)]);
    }
}
