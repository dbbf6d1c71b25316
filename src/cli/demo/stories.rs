//! The stories. Each plays on real parts, and checks what it claims against Amazon's own books.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::Value;

use super::stage::{Patience, Stage};
use super::timeline::{Actor, paragraph};
use crate::sandbox::{
    DeclineCode, Fault, Forgery, Gate, NotificationType, ObjectType, Operation, Outcome, SignatureVersion,
};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// A second after something is due.
const SOON: Duration = Duration::from_secs(1);

/// What is told before a story, and after its number in the summary.
pub(super) const TITLES: [(&str, &str); 6] = [
    (
        "A renewal is declined and recovered a day later",
        "The card is short of money today. The service tries again a day later, under a new idempotency key.",
    ),
    (
        "The card has expired: the buyer is asked, replaces it, and is charged once",
        "Trying again is pointless, so the charge waits and billing gets the link to mail to the buyer. Two days later \
         Amazon announces the new card, and SNS delivers the notification twice.",
    ),
    (
        "A buyer cancels while a retry is planned",
        "Amazon says that the permission is closed. The charge ends, and Amazon is never asked for it again.",
    ),
    (
        "Forged notifications",
        "Anybody can post to a public address. One message is signed with another key; one is truly signed by SNS, but for \
         somebody else's topic.",
    ),
    (
        "The service is killed in the middle of a charge",
        "Amazon has taken the money, the answer is on its way, and the service gets SIGKILL before it hears it. The new process \
         asks again under the same idempotency key, so Amazon repeats its answer instead of charging again.",
    ),
    (
        "Redis is down when the buyer's new card is announced",
        "What cannot be stored is not acknowledged: 503, so that SNS sends it again. Nothing is lost.",
    ),
];

/// How often Amazon was asked to charge.
fn creates(stage: &Stage, permission: &str) -> usize {
    let ledger = stage.sandbox.ledger();
    ledger.requests_of(Operation::CreateCharge).iter().filter(|r| r.permission.as_deref() == Some(permission)).count()
}

fn captured(stage: &Stage, permission: &str) -> usize {
    stage.sandbox.ledger().captured_of(permission).len()
}

fn all(statuses: &[u16]) -> String {
    statuses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn next_attempt(charge: &Value) -> anyhow::Result<Timestamp> {
    let at = charge["nextAttemptAt"].as_str().context("the charge has no next attempt")?;
    Ok(at.parse::<Timestamp>()?.checked_add(SOON)?)
}

pub(super) async fn soft_decline(stage: &mut Stage) -> anyhow::Result<()> {
    let id = "renewal-1";
    let permission = stage.new_buyer("declined, recovered a day later", true, 2)?;
    stage.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined))?;
    stage.submit(id, &permission).await?;
    let submitted = stage.clock.now();
    let waiting = wait_for_attempt(stage, id, &permission, 1).await?;
    stage.deliver(1).await?;
    stage.settle(&permission).await?;
    let at = next_attempt(&waiting)?;
    stage.move_to(at, "the retry is due")?;
    stage.watch(id, &permission, "captured").await?;
    stage.deliver(1).await?;
    stage.settle(&permission).await?;
    let days = at.duration_since(submitted).as_hours() / 24;
    stage.checks.same("days until the retry", "1", &days.to_string());
    stage.checks.count("Amazon was asked to charge", 2, creates(stage, &permission));
    stage.checks.count("charges captured", 1, captured(stage, &permission));
    Ok(())
}

/// Waits until so many attempts were declined and the next one is planned.
async fn wait_for_attempt(stage: &mut Stage, id: &str, permission: &str, attempts: u32) -> anyhow::Result<Value> {
    let patience = Patience::new();
    loop {
        let charge = stage.charge(id).await?;
        if charge["attempts"] == attempts {
            return stage.watch(id, permission, "scheduled").await;
        }
        patience.pause(&format!("{id} to be attempted")).await?;
    }
}

pub(super) async fn hard_decline(stage: &mut Stage) -> anyhow::Result<()> {
    let id = "renewal-2";
    let permission = stage.new_buyer("card expired, replaced by the buyer", true, 2)?;
    stage.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined))?;
    stage.submit(id, &permission).await?;
    stage.watch(id, &permission, "parked").await?;
    stage.deliver(1).await?;
    stage.settle(&permission).await?;
    stage.pass(2 * DAY, "the buyer has read the mail")?;
    stage.note(Actor::Buyer, "follows the link and replaces the card");
    stage.sandbox.buyer_updates_instrument(&permission, "Mastercard ****4444 (Amazon Pay)")?;
    let statuses = stage.deliver(2).await?;
    stage.watch(id, &permission, "captured").await?;
    stage.deliver(1).await?;
    stage.settle(&permission).await?;
    stage.checks.same("the notification and its repetition are answered", "200 200", &all(&statuses));
    stage.checks.count("Amazon was asked to charge (declined, then captured)", 2, creates(stage, &permission));
    stage.checks.count("charges captured", 1, captured(stage, &permission));
    Ok(())
}

pub(super) async fn buyer_closes(stage: &mut Stage) -> anyhow::Result<()> {
    let id = "renewal-3";
    let permission = stage.new_buyer("canceled by the buyer", false, 1)?;
    stage.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::SoftDeclined))?;
    stage.submit(id, &permission).await?;
    let waiting = wait_for_attempt(stage, id, &permission, 1).await?;
    stage.deliver(1).await?;
    stage.settle(&permission).await?;
    stage.pass(6 * HOUR, "the buyer has had enough")?;
    stage.note(Actor::Buyer, "closes the permission at pay.amazon.com");
    stage.sandbox.buyer_closes(&permission)?;
    stage.deliver(1).await?;
    stage.watch(id, &permission, "abandoned").await?;
    let closed_at = stage.clock.now();
    stage.move_to(next_attempt(&waiting)?.checked_add(7 * DAY)?, "a week after the planned retry")?;
    stage.settle(&permission).await?;
    let later = stage.sandbox.ledger().requests.iter().filter(|r| r.at > closed_at).count();
    stage.note(Actor::AmazonLog, format!("requests since the charge ended: {later}"));
    stage.timeline.flush()?;
    stage.checks.count("Amazon was asked to charge (before the buyer canceled)", 1, creates(stage, &permission));
    stage.checks.count("requests about it afterwards", 0, later);
    stage.checks.count("charges captured", 0, captured(stage, &permission));
    Ok(())
}

pub(super) async fn forgeries(stage: &mut Stage) -> anyhow::Result<()> {
    let permission = stage.buyers.first().context("no buyer")?.permission.clone();
    let requests = stage.sandbox.ledger().requests.len();
    let object = (ObjectType::ChargePermission, permission.as_str());
    let ipn = stage.sandbox.ipn(object, &permission, NotificationType::StateChange);
    let mut statuses = Vec::new();
    for (forgery, how) in
        [(Forgery::OtherKey, "signed with another key"), (Forgery::ForeignTopic, "of a foreign topic")]
    {
        let message = stage.sandbox.forge(&ipn, forgery)?;
        let known = stage.service()?.refusals().len();
        statuses.push(stage.post(Actor::Attacker, &message, &format!("{how}, about {permission}")).await?);
        let patience = Patience::new();
        while stage.service()?.refusals().len() <= known {
            patience.pause("the refusal in the log").await?;
        }
        let check = stage.service()?.refusals().pop().unwrap_or_default();
        stage.note(
            Actor::ServiceLog,
            format!("an SNS message was refused by the check \"{}\"", check.replace('_', " ")),
        );
    }
    stage.settle(&permission).await?;
    stage.checks.same("both are answered", "403 403", &all(&statuses));
    let caused = stage.sandbox.ledger().requests.len() - requests;
    stage.checks.count("requests to Amazon that they caused", 0, caused);
    Ok(())
}

pub(super) async fn killed(stage: &mut Stage) -> anyhow::Result<()> {
    let id = "renewal-5";
    let permission = stage.new_buyer("service killed between charge and answer", true, 2)?;
    let gate = Gate::new();
    stage.sandbox.inject(Operation::CreateCharge, Fault::HoldAfter(gate.clone()));
    stage.submit(id, &permission).await?;
    tokio::time::timeout(Duration::from_secs(20), gate.reached()).await.context("the charge was not sent")?;
    stage.collect().await?;
    let taken = captured(stage, &permission);
    stage.kill_service().await?;
    stage.note(Actor::Operations, "SIGKILL to the service, which has not got this answer");
    gate.release();
    stage.start_service().await?;
    stage.note(Actor::Operations, "a new process of the service starts");
    let (answer, charge) = stage.ask(id).await?;
    let status = charge["numberStatus"].as_str().unwrap_or_default();
    let known = format!("number {} {status}, mayStillCharge {}", charge["number"], charge["mayStillCharge"]);
    stage.note(Actor::Shop, format!("GET /v1/charges/{id} → {answer} {known}"));
    stage.pass(3 * MINUTE + SOON, "the lease of the killed process has run out")?;
    stage.watch(id, &permission, "captured").await?;
    stage.deliver(1).await?;
    stage.settle(&permission).await?;

    let ledger = stage.sandbox.ledger();
    let sends = ledger.requests_of(Operation::CreateCharge).into_iter();
    let keys: Vec<String> = sends
        .filter(|request| request.permission.as_deref() == Some(&permission))
        .filter_map(|request| request.idempotency_key.clone())
        .collect();
    for (key, when) in keys.iter().zip(["before the kill", "after it       "]) {
        paragraph(&format!("idempotency key {when}  {key}"))?;
    }
    stage.checks.count("the money was taken before the kill", 1, taken);
    stage.checks.count("requests to charge", 2, keys.len());
    let (first, second) = (keys.first().cloned().unwrap_or_default(), keys.last().cloned().unwrap_or_default());
    stage.checks.same("both carry the same idempotency key", &first, &second);
    stage.checks.count("charges captured", 1, captured(stage, &permission));
    Ok(())
}

pub(super) async fn redis_down(stage: &mut Stage) -> anyhow::Result<()> {
    let id = "renewal-6";
    let permission = stage.new_buyer("new card announced while Redis was down", true, 2)?;
    stage.sandbox.script_charge(&permission, Outcome::Decline(DeclineCode::HardDeclined))?;
    stage.submit(id, &permission).await?;
    stage.watch(id, &permission, "parked").await?;
    stage.deliver(1).await?;
    stage.settle(&permission).await?;
    stage.pass(DAY, "the buyer has read the mail")?;
    // A parked charge is looked at after a day. Was Redis gone in the middle of that look, its lease would hold for three minutes of a
    // clock that nobody moves any more.
    stage.settle(&permission).await?;
    stage.redis.kill();
    stage.note(Actor::Operations, "Redis crashes");
    stage.note(Actor::Buyer, "replaces the card");
    stage.sandbox.buyer_updates_instrument(&permission, "Mastercard ****4444 (Amazon Pay)")?;
    let ipn = stage.sandbox.notifications().pop().context("no notification")?;
    let message = stage.sandbox.sign(&ipn, SignatureVersion::V1);
    let refused = stage.post(Actor::Sns, &message, &ipn.to_string()).await?;
    stage.redis.start_again()?;
    stage.note(Actor::Operations, "Redis starts again on its data");
    let mut accepted = 503;
    let patience = Patience::new();
    while accepted == 503 {
        stage.pass(20 * SOON, "SNS tries again")?;
        accepted = stage.post(Actor::Sns, &message, &format!("again: {ipn}")).await?;
        if accepted == 503 {
            patience.pause("the notification to be accepted").await?;
        }
    }
    stage.watch(id, &permission, "captured").await?;
    stage.deliver(1).await?;
    stage.settle(&permission).await?;
    stage.checks.same("the notification is answered, first and again", "503 200", &all(&[refused, accepted]));
    stage.checks.count("charges captured", 1, captured(stage, &permission));
    Ok(())
}
