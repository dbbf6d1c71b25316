//! `demo`: the whole service at work, on real parts and a clock that moves.
//!
//! Nothing that is printed is made up: requests come from the sandbox's own log, statuses from real answers, events from the stream as a
//! consumer group reads it, and every claim is checked against the sandbox's ledger.

mod checks;
mod service;
mod stage;
mod stories;
mod timeline;
pub(super) mod words;

use std::process::ExitCode;
use std::time::Duration;

use rust_decimal::Decimal;
use tokio::signal::unix::{SignalKind, signal};

use super::mistakes;
use crate::clock::Stopwatch;
use crate::sandbox::Operation;
use stage::Stage;
use stories::TITLES;
use timeline::paragraph;

/// The exit status after Ctrl-C, as shells report it.
const EXIT_INTERRUPTED: u8 = 130;

const CAST: &str = "\
amazon-pay-ipn demo: the whole service at work, on real parts and simulated time.

service      this program as `serve`, in a process of its own, with its own private Redis
Amazon Pay   a local sandbox that checks every signature and keeps its own books of who was charged
Amazon SNS   signs Amazon's notifications (IPNs) and posts them to the service
shop         the merchant's system that submits charges over the internal API
billing      a consumer group that reads the service's events

Every buyer owes 14.00 USD. Each attempt to charge has a number (0, 1, ...) and under it its own idempotency key.
Times are simulated, in UTC.";

/// Plays the stories. Exit status: 0 everything was as it must be, 1 something was not, 130 interrupted.
pub async fn run() -> ExitCode {
    let played = tokio::select! {
        played = play() => played,
        // What was started ends with the future that owns it.
        () = interrupted() => return EXIT_INTERRUPTED.into(),
    };
    match played {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => mistakes::fail(&error),
    }
}

async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

async fn play() -> anyhow::Result<bool> {
    let stopwatch = Stopwatch::start();
    let mut stage = Stage::build().await?;
    paragraph(CAST)?;
    for (index, (title, intro)) in TITLES.iter().enumerate() {
        let story = index + 1;
        stage.checks.story = story;
        stage.timeline.headline(&format!("{story}  {title}"))?;
        paragraph(&format!("{intro}\n\n"))?;
        let played = match story {
            1 => stories::soft_decline(&mut stage).await,
            2 => stories::hard_decline(&mut stage).await,
            3 => stories::buyer_closes(&mut stage).await,
            4 => stories::forgeries(&mut stage).await,
            5 => stories::killed(&mut stage).await,
            _ => stories::redis_down(&mut stage).await,
        };
        if let Err(error) = played {
            stage.timeline.flush()?;
            stage.checks.broken(&error);
            let complaints = stage.service().map(service::Service::complaints).unwrap_or_default();
            stage.timeline.bad(&format!("{error:#}\n{complaints}"))?;
        }
    }
    books(&mut stage).await?;
    stage.end().await?;
    summary(&stage, stopwatch.elapsed())?;
    Ok(stage.checks.all_hold())
}

/// What Amazon's books say in the end, an hour after the last story.
async fn books(stage: &mut Stage) -> anyhow::Result<()> {
    stage.checks.story = 0;
    stage.timeline.headline("Amazon's books")?;
    stage.pass(Duration::from_hours(1), "time for anything that would still come")?;
    let permissions: Vec<String> = stage.buyers.iter().map(|buyer| buyer.permission.clone()).collect();
    for permission in &permissions {
        stage.settle(permission).await?;
    }
    let ledger = stage.sandbox.ledger();
    let header = format!("{:<42}{:<22}{:>5} {:>9} {:>9}", "buyer", "charge permission", "asked", "captured", "paid");
    paragraph(&format!("\n{header}"))?;
    let mut doubles = 0;
    for buyer in std::mem::take(&mut stage.buyers) {
        let permission = buyer.permission.as_str();
        let creates = ledger.requests_of(Operation::CreateCharge).into_iter();
        let asked = creates.filter(|request| request.permission.as_deref() == Some(permission)).count();
        let captured = ledger.captured_of(permission).len();
        doubles += captured.saturating_sub(1);
        let paid = ledger.captured_total_of(permission);
        let result = match captured {
            0 => "not charged".to_owned(),
            1 => "charged once".to_owned(),
            times => format!("CHARGED {times} TIMES"),
        };
        let line = format!("{:<42}{permission:<22}{asked:>5} {captured:>9} {paid:>9.2} USD  {result}", buyer.label);
        paragraph(&line)?;
        let told = |asked: usize, paid: Decimal| format!("asked {asked}, paid {paid:.2} USD");
        stage.checks.same(buyer.label, &told(buyer.asked, buyer.owes), &told(asked, paid));
    }
    let legend = "asked: requests to charge, those that were declined or got a known answer again included";
    paragraph(&format!("\n{legend}\n\ndouble charges: {doubles}"))?;
    stage.checks.count("double charges", 0, doubles);
    let unsigned = ledger.requests.iter().filter(|request| !request.signature_ok).count();
    stage.checks.count("requests to Amazon Pay with a wrong signature", 0, unsigned);
    Ok(())
}

fn summary(stage: &Stage, took: Duration) -> anyhow::Result<()> {
    let timeline = &stage.timeline;
    timeline.headline("Checks")?;
    let mut story = usize::MAX;
    for check in &stage.checks.done {
        if check.story != story {
            story = check.story;
            let title =
                story.checked_sub(1).and_then(|index| TITLES.get(index)).map_or("The run as a whole", |title| title.0);
            let number = if story == 0 { String::new() } else { format!("{story}  ") };
            paragraph(&format!("{number}{title}"))?;
        }
        match &check.mistake {
            None => timeline.good(&format!("{}: {}", check.what, check.found))?,
            Some((expected, found)) => {
                timeline.bad(&format!("{}: expected {expected}, found {found}", check.what))?;
            }
        }
    }
    let failed: Vec<String> = stage.checks.done.iter().filter_map(checks::Check::failure).collect();
    let wrong = failed.len();
    let all = stage.checks.done.len();
    let verdict = if wrong == 0 { format!("All {all} checks hold") } else { format!("{wrong} of {all} checks FAILED") };
    paragraph(&format!("\n{verdict}. The demo took {:.1} s.", took.as_secs_f64()))?;
    // Last, so that whoever sees only the end of the output knows what it was.
    for failure in failed {
        timeline.bad(&failure)?;
    }
    Ok(())
}
