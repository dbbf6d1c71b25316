//! The real `serve`, as a supervisor has it: started, watched, killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::matrix::switch;

/// A running `serve`. Killed when it is dropped.
pub struct Served {
    child: Child,
    pub public: String,
    pub internal: String,
    log: Arc<Mutex<Vec<Value>>>,
    reader: Option<JoinHandle<()>>,
}

/// What a supervisor sees of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Running,
    Frozen,
    Ended(ExitStatus),
}

impl Served {
    /// Starts it and waits until it says where it listens.
    pub async fn start(variables: &[(String, String)], crash_at: &str) -> Self {
        let program = switch("CRASH_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_amazon-pay-ipn").to_owned());
        // Ends it even if the harness is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", &program, "serve"]);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("CRASH_AT", crash_at);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let lines = BufReader::new(child.stdout.take().expect("standard output"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (serving, started) = oneshot::channel();
        let kept = Arc::clone(&log);
        // Reads to the end, so that the program never waits for a reader.
        let reader = std::thread::spawn(move || {
            let mut serving = Some(serving);
            for line in lines.lines().map_while(Result::ok) {
                let said: Value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if said["message"] == "serving"
                    && let Some(serving) = serving.take()
                {
                    let address = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
                    let _ = serving.send((address("public"), address("internal")));
                }
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(said);
            }
        });
        let (public, internal) =
            started.await.unwrap_or_else(|_| panic!("the service did not start: {:?}", child.wait()));
        Self { child, public, internal, log, reader: Some(reader) }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn seen(&mut self) -> Seen {
        if let Some(status) = self.child.try_wait().expect("a status") {
            // Whatever it still said.
            self.reader.take().map(JoinHandle::join);
            return Seen::Ended(status);
        }
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // The state follows the name, which stands in parentheses.
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        if state == Some('T') { Seen::Frozen } else { Seen::Running }
    }

    /// Whether SIGKILL ended it.
    pub fn was_killed(status: ExitStatus) -> bool {
        status.signal() == Some(9)
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// It may have been struck a moment before.
    pub fn signal(&self, name: &str) {
        let _ = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .stderr(Stdio::null())
            .status();
    }

    fn log<T>(&self, read: impl FnOnce(&[Value]) -> T) -> T {
        read(&self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn has_said(&self, part: &str) -> bool {
        self.log(|lines| lines.iter().any(|line| line["message"].as_str().is_some_and(|said| said.contains(part))))
    }

    /// How often it said that it reached which crash point.
    pub fn reached(&self) -> BTreeMap<String, u32> {
        let mut reached = BTreeMap::new();
        self.log(|lines| {
            for point in lines.iter().filter_map(|line| line["point"].as_str()) {
                *reached.entry(point.to_owned()).or_default() += 1;
            }
        });
        reached
    }

    /// The last lines that it said, for the report of a failure.
    pub fn last_words(&self) -> String {
        self.log(|lines| {
            let from = lines.len().saturating_sub(12);
            lines[from..].iter().map(|line| format!("    {line}\n")).collect::<Vec<_>>().concat()
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}
