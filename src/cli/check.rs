//! `check`: says what is wrong before money depends on it, what it means and how to mend it.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::mistakes::{self, EXIT_USAGE};
use crate::amazon_pay::{AmazonPay, ClientError};
use crate::app::checks;
use crate::clock::Clock;
use crate::config::{self, Given, Settings};
use crate::model::charge_request::ChargeRequest;
use crate::model::ids::{Account, ChargePermissionId, Environment, IntentId, Region};
use crate::model::verdict::Verdict;
use crate::preflight::{Check, Finding, Severity, amazon, settings};
use crate::store::Store;

/// A call that would wait longer than this is no check.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Looks at the settings, Redis and Amazon before the service depends on them.
///
/// Takes the settings of `serve`; nothing is written to Redis, and what is asked of Amazon has no effect there (but for
/// `--sandbox-charge`). docs/PREFLIGHT.md lists every check. Exit status: 0 no errors (warnings do not count), 1 errors, 2 wrong usage
/// or settings.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Findings as JSON
    #[arg(long)]
    json: bool,
    /// Ask nothing of Amazon, SNS included
    #[arg(long)]
    offline: bool,
    /// Sandbox only: measure with this chargeable permission whether Amazon repeats a decline under the same key. Makes one charge of 1 or
    /// 100 units of the region's currency that is declined by simulation, and perhaps an authorisation, which is canceled
    #[arg(long, value_name = "CHARGE_PERMISSION_ID", conflicts_with = "offline")]
    sandbox_charge: Option<ChargePermissionId>,
    #[command(flatten)]
    given: Given,
}

/// Runs the command.
pub async fn run(args: CheckArgs) -> ExitCode {
    let settings = match config::read(args.given) {
        Ok(settings) => settings,
        Err(wrong) => return mistakes::report(&wrong),
    };
    if args.sandbox_charge.is_some() && settings.account.environment == Environment::Live {
        let _ = writeln!(std::io::stderr().lock(), "error: --sandbox-charge charges, and this is a live environment");
        return EXIT_USAGE.into();
    }
    let findings = look(&settings, args.offline, args.sandbox_charge.as_ref()).await;
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let written = if args.json { as_json(&findings) } else { as_text(&settings.account, &findings) };
    match written {
        Err(_) => EXIT_USAGE.into(),
        Ok(()) if errors == 0 => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
    }
}

async fn look(given: &Settings, offline: bool, sandbox_charge: Option<&ChargePermissionId>) -> Vec<Finding> {
    let clock = given.clock();
    let mut of_client = given.amazon_pay.clone();
    of_client.timeout = of_client.timeout.min(CALL_TIMEOUT);
    let client = AmazonPay::new(of_client, clock.clone());
    let mut findings = vec![settings::key(client.as_ref().map(|_| ()).map_err(ClientError::to_string))];
    findings.extend(checks::of_settings(given));
    match Store::connect(given.store.clone(), given.account.clone(), clock.clone()) {
        Ok(store) => findings.extend(checks::of_redis(&store, given.accept_unsafe_durability).await),
        Err(error) => findings.push(Finding::new(Check::RedisReachable, Severity::Error, error.to_string())),
    }
    if offline {
        return findings;
    }
    if let Ok(client) = &client {
        let first = checks::of_amazon(client).await;
        let accepted =
            first.iter().any(|found| found.check == Check::AmazonSignature && found.severity == Severity::Ok);
        findings.extend(first);
        // Who is not believed now is not believed with an old date either.
        if accepted {
            findings.push(checks::of_date_tolerance(client, given.store.confirmation_delay).await);
            if let Some(permission) = sandbox_charge {
                findings.push(decline_twice(client, &given.account, permission, &clock).await);
            }
        }
    }
    findings.push(checks::of_certificate_hosts(&given.sns).await);
    findings
}

/// A simulated decline, and the same request without the simulation under the same key. Only in a sandbox.
async fn decline_twice(
    client: &AmazonPay,
    account: &Account,
    permission: &ChargePermissionId,
    clock: &Clock,
) -> Finding {
    let unclear = |why: String| Finding::new(Check::AmazonDeclines, Severity::Unknown, why);
    let id: Result<IntentId, _> = format!("preflight-{}", clock.now().as_millisecond()).parse();
    let (Ok(id), Some(request)) = (id, small_charge(account, permission)) else {
        return unclear("the request could not be made".to_owned());
    };
    let simulated = ChargeRequest { simulation_code: Some("SoftDeclined".to_owned()), ..request.clone() };
    let mut answers = Vec::with_capacity(2);
    for request in [&simulated, &request] {
        match client.sign_create_charge(request, &id, 0) {
            Ok(signed) => answers.push(client.send(signed).await),
            Err(error) => return unclear(error.to_string()),
        }
    }
    let [first, second] = answers.as_slice() else { return unclear("the request was not sent".to_owned()) };
    for verdict in [first, second] {
        if let Verdict::Charge(charge) = verdict {
            // What becomes of it changes nothing about what was learnt.
            let _ = client.cancel_charge(&charge.id, "preflight").await;
        }
    }
    amazon::declines(Some((first, second)))
}

fn small_charge(account: &Account, permission: &ChargePermissionId) -> Option<ChargeRequest> {
    let (amount, currency) = match account.region {
        Region::Na => ("1.00", "USD"),
        Region::Eu => ("1.00", "EUR"),
        Region::Jp => ("100", "JPY"),
    };
    let request = json!({
        "chargePermissionId": permission, "captureNow": false,
        "chargeAmount": { "amount": amount, "currencyCode": currency },
    });
    serde_json::from_value(request).ok()
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|finding| finding.severity == severity).count()
}

fn as_json(findings: &[Finding]) -> std::io::Result<()> {
    let errors = count(findings, Severity::Error);
    let report = json!({
        "ok": errors == 0,
        "errors": errors,
        "warnings": count(findings, Severity::Warning),
        "unknown": count(findings, Severity::Unknown),
        "findings": findings,
    });
    writeln!(std::io::stdout().lock(), "{report:#}")
}

fn as_text(account: &Account, findings: &[Finding]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let coloured = out.is_terminal();
    let paint = |text: &str, severity: Severity| {
        let colour = match severity {
            Severity::Ok => 32,
            Severity::Unknown => 36,
            Severity::Warning => 33,
            Severity::Error => 31,
        };
        if coloured { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    };
    writeln!(out, "merchant {}, {}, region {}\n", account.merchant, account.environment, account.region.as_str())?;
    for finding in findings {
        let severity = finding.severity;
        let label = paint(&format!("{:<8}", severity.as_str()), severity);
        writeln!(out, "{label} {:<23} {}", finding.check.as_str(), finding.found)?;
        if severity != Severity::Ok {
            writeln!(out, "{:9}means   {}", "", finding.check.means())?;
            writeln!(out, "{:9}mend    {}", "", finding.check.mend())?;
        }
    }
    let of = |severity| count(findings, severity);
    writeln!(
        out,
        "\n{} errors, {} warnings, {} not known, {} ok",
        of(Severity::Error),
        of(Severity::Warning),
        of(Severity::Unknown),
        of(Severity::Ok)
    )
}
