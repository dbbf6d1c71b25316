//! `serve`: the service itself; `serve --learn`: the same address, to find out which topic to accept.

use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing::error;

use super::mistakes;
use crate::app::{App, Learner};
use crate::config::{self, Given};
use crate::telemetry::{self, trace::Traces};

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    settings: Given,
    /// Find out the topic ARN: answer 503 to everything, store nothing, and show the topic of each genuine notification that names
    /// `AMAZON_PAY_MERCHANT_ID`. Needs that, `AMAZON_PAY_REGION` and `AMAZON_PAY_PUBLIC_KEY_ID`, and neither Redis nor a private key
    #[arg(long)]
    learn: bool,
    #[cfg(feature = "sandbox")]
    #[command(flatten)]
    crash: config::crash_at::CrashAt,
}

/// Serves until SIGTERM or SIGINT, then drains. Exit status: 0 stopped as asked, 1 failed, 2 wrong settings.
pub async fn run(args: ServeArgs) -> ExitCode {
    // A core file would hold the private key and what buyers' notifications say. A system that refuses this writes none.
    let _ = rlimit::Resource::CORE.set(0, 0);
    if args.learn { learn(args.settings).await } else { serve(args).await }
}

async fn serve(args: ServeArgs) -> ExitCode {
    let (format, filter) = config::logging(&args.settings);
    let settings = match config::read(args.settings) {
        Ok(settings) => settings,
        Err(wrong) => return mistakes::report(&wrong),
    };
    #[cfg(feature = "sandbox")]
    match config::crash_at::read(&args.crash, settings.account.environment) {
        Ok(crash) => crash.into_iter().for_each(crate::crash::arm),
        Err(wrong) => return mistakes::report(&wrong),
    }
    let traces = match settings.traces.as_ref().map(Traces::start).transpose() {
        Ok(traces) => traces,
        Err(error) => return mistakes::fail(&anyhow::Error::new(error).context("traces cannot be sent")),
    };
    telemetry::start_logging(format, &filter, traces.as_ref());
    // Before anything is ready: a signal that comes first would end the process without a drain.
    let stop = told_to_stop();
    let metrics = telemetry::start_metrics();
    let clock = settings.clock();
    let result = match App::start(settings, clock, metrics).await {
        Ok(app) => app.run_until(stop).await,
        Err(error) => return mistakes::fail(&error),
    };
    let exit = ended(result);
    if let Some(traces) = traces {
        // It waits for the collector, on a thread where that is allowed.
        let _ = tokio::task::spawn_blocking(move || traces.end()).await;
    }
    exit
}

async fn learn(given: Given) -> ExitCode {
    // A person watches this one.
    let given = Given { log_format: given.log_format.or_else(|| Some("text".to_owned())), ..given };
    let (format, filter) = config::logging(&given);
    let (settings, clock) = match config::read_learning(given) {
        Ok(read) => read,
        Err(wrong) => return mistakes::report(&wrong),
    };
    telemetry::start_logging(format, &filter, None);
    let stop = told_to_stop();
    match Learner::start(settings, clock).await {
        Ok(learner) => ended(learner.run_until(stop).await),
        Err(error) => mistakes::fail(&error),
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = %format!("{error:#}"), "the service ended");
            ExitCode::FAILURE
        }
    }
}

/// Listens from the call on; completes with the first signal.
pub(super) fn told_to_stop() -> impl Future<Output = ()> + Send {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            error!("signals cannot be received: stop this process with SIGKILL");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
