//! The program as a process: how users and supervisors meet it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use amazon_pay_ipn::sandbox::Sandbox;
use tempfile::TempDir;

use crate::support::servers::Redis;

pub const TOKEN: &str = "a-token-for-tests-only";
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// The program with these arguments and nothing in its environment but a path.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amazon-pay-ipn"));
    command.args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null());
    command
}

pub fn run(command: &mut Command) -> Output {
    command.output().expect("the program runs")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Settings of a sandbox account, as environment variables; secrets are files of the folder.
pub struct Environment {
    pub folder: TempDir,
    variables: Vec<(String, String)>,
}

impl Environment {
    pub fn of(redis: &Redis, sandbox: &Sandbox) -> Self {
        let mut environment = Self::at(redis.url.clone(), sandbox);
        environment.set("REDIS_CA_FILE", redis.ca_file.clone().unwrap_or_default());
        // Where users are restricted they may use these keys.
        environment.set("KEY_PREFIX", "test".to_owned());
        environment
    }

    pub fn at(redis_url: String, sandbox: &Sandbox) -> Self {
        let folder = TempDir::new().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path.display().to_string()
        };
        let variables = [
            ("LISTEN_ADDR", "127.0.0.1:0".to_owned()),
            ("INTERNAL_LISTEN_ADDR", "127.0.0.1:0".to_owned()),
            ("INTERNAL_API_TOKEN_FILE", write("token", TOKEN)),
            ("REDIS_URL", redis_url),
            ("AMAZON_PAY_REGION", "na".to_owned()),
            ("AMAZON_PAY_PUBLIC_KEY_ID", sandbox.public_key_id().to_owned()),
            ("AMAZON_PAY_PRIVATE_KEY_FILE", write("key", sandbox.merchant_private_key_pem())),
            ("AMAZON_PAY_MERCHANT_ID", sandbox.merchant_id().to_owned()),
            ("AMAZON_PAY_API_BASE_URL", sandbox.base_url().to_owned()),
            ("SNS_TOPIC_ARNS", sandbox.topic_arn().to_owned()),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { folder, variables }
    }

    /// The settings in a file of `NAME=value` lines, such as `sandbox` writes.
    pub fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).expect("a file of settings");
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        let variables = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { folder: TempDir::new().expect("a folder"), variables }
    }

    pub fn value(&self, name: &str) -> &str {
        let found = self.variables.iter().find(|(given, _)| given == name);
        &found.unwrap_or_else(|| panic!("{name} is not set")).1
    }

    pub fn set(&mut self, name: &'static str, value: String) {
        self.variables.retain(|(given, _)| given != name);
        self.variables.push((name.to_owned(), value));
    }

    pub fn program(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A running `serve`; killed if the test does not end it.
pub struct Served {
    child: Child,
    pub public: String,
    pub internal: String,
}

impl Served {
    /// Starts it and waits until it says where it listens.
    pub fn start(environment: &Environment) -> Self {
        let mut child = environment.program(&["serve"]).stdout(Stdio::piped()).spawn().expect("the program runs");
        let mut lines = BufReader::new(child.stdout.take().expect("standard output"));
        let mut line = String::new();
        while lines.read_line(&mut line).expect("a line") > 0 {
            let said: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            if said["message"] == "serving" {
                // The rest is read, so that the program never waits for a reader.
                std::thread::spawn(move || std::io::copy(&mut lines.by_ref(), &mut std::io::sink()));
                let address = |name: &str| {
                    let address = said[name].as_str().expect("an address");
                    address.to_owned()
                };
                return Self { child, public: address("public"), internal: address("internal") };
            }
            line.clear();
        }
        panic!("the service did not start: {:?}", child.wait());
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn terminate(&self) {
        signal("TERM", self.child.id());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_none()
    }

    pub async fn ended(&mut self) -> ExitStatus {
        ended(&mut self.child).await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(name: &str, process: u32) {
    let told = Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status().expect("sh");
    assert!(told.success());
}

/// Waits for the end of a process, not for ever.
pub async fn ended(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the process to end", || {
        status = child.try_wait().expect("a status");
        status.is_some()
    })
    .await;
    status.expect("an exit status")
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "how long the test itself has waited")]
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Processes that name the folder in their arguments or environment: what was started there and is still running.
pub fn processes_of(folder: &Path) -> Vec<String> {
    let named = folder.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let read = |file: &str| text(&std::fs::read(entry.path().join(file)).unwrap_or_default());
        let (arguments, environment) = (read("cmdline"), read("environ"));
        if arguments.contains(&named) || environment.contains(&named) {
            found.push(format!("{} {}", entry.file_name().display(), arguments.replace('\0', " ")));
        }
    }
    found
}
