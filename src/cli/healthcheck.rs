//! `healthcheck`: asks the process of this container whether it is ready. For `HEALTHCHECK` in images without a shell.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::mistakes;
use crate::config::{self, Given};

const TIMEOUT: Duration = Duration::from_secs(4);

/// Exit status: 0 ready, 1 not ready, 2 wrong settings.
pub async fn run(given: Given) -> ExitCode {
    let address = match config::read_internal_address(given) {
        Ok(address) => address,
        Err(wrong) => return mistakes::report(&wrong),
    };
    match ask(&format!("http://{address}/readyz")).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => mistakes::fail(&error),
    }
}

async fn ask(url: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    let answer = client.get(url).send().await.context("the service does not answer")?;
    ensure!(answer.status().is_success(), "the service is not ready: {}", answer.status());
    Ok(())
}
