//! The service as a process of its own: the same program, started with `serve`, ended with its owner.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long it may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lines of its log that are kept.
const LOG_LINES: usize = 500;

/// What every process of the demo is started with.
pub(super) struct Launch {
    program: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Launch {
    pub(super) fn new(environment: Vec<(&'static str, String)>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        Ok(Self { program, environment })
    }

    fn prepared(&self, mut command: Command, arguments: &[&str]) -> Command {
        // Nothing but these: neither a proxy nor a setting of whoever started the demo.
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command
            .args(arguments)
            .env_clear()
            .env("PATH", path)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Where it exists, setpriv ends the process even if the demo is killed.
    fn spawn(&self, arguments: &[&str]) -> anyhow::Result<Child> {
        let mut guarded = Command::new("setpriv");
        guarded.args(["--pdeathsig", "KILL"]).arg(&self.program);
        self.prepared(guarded, arguments)
            .spawn()
            .or_else(|_| self.prepared(Command::new(&self.program), arguments).spawn())
            .with_context(|| format!("cannot start {}", self.program.display()))
    }

    /// Runs a command to its end; gives what it said.
    pub(super) async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output =
            timeout(PATIENCE, self.spawn(arguments)?.wait_with_output()).await.context("it does not end")??;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let complaints = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(output.status.success(), "`{}` failed: {said} {complaints}", arguments.join(" "));
        Ok(said)
    }
}

type Log = Arc<Mutex<VecDeque<String>>>;

/// A running `serve`.
pub(super) struct Service {
    child: Child,
    log: Log,
    /// `http://127.0.0.1:PORT` of `POST /ipn`.
    pub(super) public: String,
    /// `http://127.0.0.1:PORT` of `/v1`.
    pub(super) internal: String,
}

impl Service {
    /// Starts `serve` on free ports and waits until it says which.
    pub(super) async fn start(launch: &Launch) -> anyhow::Result<Self> {
        let mut child = launch.spawn(&["serve"])?;
        let log = Log::default();
        if let Some(errors) = child.stderr.take() {
            tokio::spawn(keep(BufReader::new(errors), Arc::clone(&log)));
        }
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?);
        let serving = timeout(PATIENCE, first_words(&mut lines, &log)).await.context("the service does not start")?;
        let Some((public, internal)) = serving? else {
            let status = child.wait().await?;
            bail!("the service ended ({status}): {}", newest(&log));
        };
        tokio::spawn(keep(lines, Arc::clone(&log)));
        Ok(Self { child, log, public, internal })
    }

    /// SIGKILL: no chance to do anything more.
    pub(super) async fn kill(mut self) -> anyhow::Result<ExitStatus> {
        self.child.start_kill()?;
        Ok(self.child.wait().await?)
    }

    /// SIGTERM, and waits for the end.
    pub(super) async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let process = self.child.id().context("the service has ended by itself")?.to_string();
        // The standard library knows no signal but SIGKILL.
        let told = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &process]).status().await?;
        ensure!(told.success(), "the service could not be told to stop");
        Ok(timeout(PATIENCE, self.child.wait()).await.context("the service does not stop")??)
    }

    /// The checks that refused messages so far, by the service's own log.
    pub(super) fn refusals(&self) -> Vec<String> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter_map(|line| Some(line["check"].as_str()?.to_owned())).collect()
    }

    /// The newest warnings and errors of the log, for a run that went wrong.
    pub(super) fn complaints(&self) -> String {
        newest(&self.log)
    }
}

/// Reads the log up to the line that names the ports; `None` if it ends before.
async fn first_words<R: AsyncRead + Unpin + Send>(
    lines: &mut BufReader<R>,
    log: &Log,
) -> anyhow::Result<Option<(String, String)>> {
    let mut line = String::new();
    while lines.read_line(&mut line).await? > 0 {
        let said: Value = serde_json::from_str(&line).unwrap_or_default();
        remember(log, std::mem::take(&mut line));
        if said["message"] == "serving" {
            let address = |name: &str| {
                let text = said[name].as_str().unwrap_or_default();
                format!("http://{text}")
            };
            return Ok(Some((address("public"), address("internal"))));
        }
    }
    Ok(None)
}

/// Reads the rest, so that the process never waits for a reader.
async fn keep<R: AsyncRead + Unpin + Send>(mut lines: BufReader<R>, log: Log) {
    let mut line = String::new();
    while lines.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        remember(&log, std::mem::take(&mut line));
    }
}

fn remember(log: &Log, line: String) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if log.len() == LOG_LINES {
        log.pop_front();
    }
    log.push_back(line);
}

fn newest(log: &Log) -> String {
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    let told: Vec<&str> =
        log.iter().rev().filter(|line| !line.contains("\"INFO\"")).take(5).map(|l| l.trim()).collect();
    told.into_iter().rev().collect::<Vec<_>>().join("\n")
}
