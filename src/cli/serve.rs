//! `serve`: the service itself.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tracing::error;

use super::mistakes;
use crate::app::App;
use crate::config::{self, Given};
use crate::telemetry;

/// Serves until SIGTERM or SIGINT, then drains. Exit status: 0 stopped as asked, 1 failed, 2 wrong settings.
pub async fn run(given: Given) -> ExitCode {
    let (format, filter) = config::logging(&given);
    let settings = match config::read(given) {
        Ok(settings) => settings,
        Err(wrong) => return mistakes::report(&wrong),
    };
    telemetry::start_logging(format, &filter);
    // Before anything is ready: a signal that comes first would end the process without a drain.
    let stop = told_to_stop();
    let metrics = telemetry::start_metrics();
    let clock = settings.clock();
    let result = match App::start(settings, clock, metrics).await {
        Ok(app) => app.run_until(stop).await,
        Err(error) => return mistakes::fail(&error),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = %format!("{error:#}"), "the service ended");
            ExitCode::FAILURE
        }
    }
}

/// Listens from the call on; completes with the first signal.
fn told_to_stop() -> impl Future<Output = ()> + Send {
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
