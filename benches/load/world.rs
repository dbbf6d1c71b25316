//! The parts of a load: a private Redis, a sandbox in this process, and the real program as processes of their own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::sandbox::redis_server::RedisServer;
use amazon_pay_ipn::sandbox::{Sandbox, SandboxSettings};
use anyhow::{Context, bail};
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

pub const TOKEN: &str = "a-token-for-loads-only";

/// Whether the time of the run can be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    Real,
    Movable,
}

pub struct World {
    folder: TempDir,
    pub redis: RedisServer,
    pub sandbox: Sandbox,
    variables: Vec<(String, String)>,
    clock_file: PathBuf,
    offset: Duration,
}

impl World {
    /// An empty Redis with a marker, and a sandbox; no service yet. `more` are settings of the service.
    pub async fn start(time: Time, more: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("amazon-pay-ipn-load-")?;
        let clock_file = folder.path().join("clock");
        std::fs::write(&clock_file, "0")?;
        let clock = if time == Time::Movable { Clock::from_offset_file(clock_file.clone()) } else { Clock::system() };
        let redis = RedisServer::start()?;
        let sandbox = Sandbox::start(SandboxSettings::new(clock)).await?;
        let write = |name: &str, text: &str| -> anyhow::Result<String> {
            let path = folder.path().join(name);
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let mut variables = vec![
            ("LISTEN_ADDR", "127.0.0.1:0".to_owned()),
            ("INTERNAL_LISTEN_ADDR", "127.0.0.1:0".to_owned()),
            ("INTERNAL_API_TOKEN_FILE", write("token", TOKEN)?),
            ("REDIS_URL", redis.url()),
            ("AMAZON_PAY_REGION", "na".to_owned()),
            ("AMAZON_PAY_PUBLIC_KEY_ID", sandbox.public_key_id().to_owned()),
            ("AMAZON_PAY_PRIVATE_KEY_FILE", write("private-key.pem", sandbox.merchant_private_key_pem())?),
            ("AMAZON_PAY_MERCHANT_ID", sandbox.merchant_id().to_owned()),
            ("AMAZON_PAY_API_BASE_URL", sandbox.base_url().to_owned()),
            ("SNS_TOPIC_ARNS", sandbox.topic_arn().to_owned()),
            ("SNS_API_BASE_URL", sandbox.base_url().to_owned()),
            ("SNS_CERTIFICATE_BASE_URL", sandbox.certificate_base_url().to_owned()),
            ("SNS_CERTIFICATE_NAME", sandbox.certificate_name().to_owned()),
            ("SNS_TRUST_ANCHORS_FILE", write("trust-anchor.pem", sandbox.trust_anchor_pem())?),
        ];
        if time == Time::Movable {
            variables.push(("CLOCK_OFFSET_FILE", clock_file.display().to_string()));
        }
        variables.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let world = Self { folder, redis, sandbox, variables, clock_file, offset: Duration::ZERO };
        let init = world.program(&["init", "--first"], None).stdout(Stdio::null()).status()?;
        if !init.success() {
            bail!("init failed: {init}");
        }
        Ok(world)
    }

    fn program(&self, arguments: &[&str], cores: Option<&str>) -> Command {
        let program = env!("CARGO_BIN_EXE_amazon-pay-ipn");
        let mut command = match cores {
            None => Command::new(program),
            Some(cores) => {
                let mut command = Command::new("taskset");
                command.args(["-c", cores, program]);
                command
            }
        };
        command.args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A running service; its log of warnings goes to a file of the run.
    pub fn serve(&self, name: &str, cores: Option<&str>) -> anyhow::Result<Service> {
        let log = self.folder.path().join(format!("{name}.log"));
        Service::start(self.program(&["serve"], cores).env("RUST_LOG", "warn,amazon_pay_ipn::app=info"), log)
    }

    /// A process that logs as it does by default, a line for each notification, into a file.
    pub async fn serve_logging(&self, name: &str) -> anyhow::Result<Service> {
        let log = self.folder.path().join(format!("{name}.log"));
        let file = std::fs::File::create(&log)?;
        let mut child = self.program(&["serve"], None).env_remove("RUST_LOG").stdout(file).spawn()?;
        while child.try_wait()?.is_none() {
            let text = std::fs::read_to_string(&log)?;
            // The last line may not be whole yet.
            let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            if let Some((public, internal)) = lines.find_map(addresses) {
                return Ok(Service { child, public, internal });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bail!("the service did not start: {:?}", child.wait())
    }

    /// A place for a file that goes with the run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Moves the time of the service and the sandbox forward.
    pub fn advance(&mut self, by: Duration) -> anyhow::Result<()> {
        self.offset += by;
        // Written aside and moved, so that nobody reads half a number.
        let aside = self.clock_file.with_extension("next");
        std::fs::write(&aside, self.offset.as_millis().to_string())?;
        Ok(std::fs::rename(aside, &self.clock_file)?)
    }

    pub fn advanced(&self) -> Duration {
        self.offset
    }

    /// How often a process of this run has said this.
    pub fn said(&self, part: &str) -> anyhow::Result<u64> {
        let mut count = 0;
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                count += std::fs::read_to_string(path)?.lines().filter(|line| line.contains(part)).count() as u64;
            }
        }
        Ok(count)
    }

    pub async fn connection(&self) -> anyhow::Result<MultiplexedConnection> {
        // Half a second, the default, is little on a busy machine.
        let patient = redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(Duration::from_secs(30)))
            .set_connection_timeout(Some(Duration::from_secs(30)));
        Ok(redis::Client::open(self.redis.url())?.get_multiplexed_async_connection_with_config(&patient).await?)
    }

    /// The full name of a key of the account.
    pub fn key(&self, name: &str) -> String {
        format!("amazon-pay:{{sandbox:{}}}:{name}", self.sandbox.merchant_id())
    }
}

/// The program at work; killed when dropped.
pub struct Service {
    child: Child,
    pub public: SocketAddr,
    pub internal: String,
}

/// Where it listens, if that is what the line says.
fn addresses(line: &str) -> Option<(SocketAddr, String)> {
    let said: serde_json::Value = serde_json::from_str(line).ok()?;
    let serving = said["message"] == "serving";
    let public = serving.then(|| said["public"].as_str()?.parse().ok()).flatten()?;
    Some((public, format!("http://{}", said["internal"].as_str()?)))
}

impl Service {
    fn start(command: &mut Command, log: PathBuf) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("the program does not start")?;
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 {
            if let Some((public, internal)) = addresses(&line) {
                let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
                std::thread::spawn(move || std::io::copy(&mut lines.by_ref(), &mut file));
                return Ok(Self { child, public, internal });
            }
            line.clear();
        }
        bail!("the service did not start: {:?}", child.wait())
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it in order.
    pub async fn terminate(mut self) -> anyhow::Result<()> {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        if !told.success() {
            bail!("it was gone before it was told to end");
        }
        for _ in 0..600 {
            if let Some(status) = self.child.try_wait()? {
                return if status.success() { Ok(()) } else { bail!("it ended with {status}") };
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("it did not end within a minute")
    }

    /// What the process holds now.
    pub fn holds(&self) -> anyhow::Result<Holds> {
        Holds::of(self.id())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resources of a process, from /proc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holds {
    pub rss_kib: u64,
    pub files: usize,
    pub threads: u64,
}

impl Holds {
    pub fn of(process: u32) -> anyhow::Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim_matches([':', ' ', '\t', 'k', 'B']).parse().ok()).unwrap_or(0)
        };
        let files = std::fs::read_dir(format!("/proc/{process}/fd"))?.count();
        Ok(Self { rss_kib: number("VmRSS"), files, threads: number("Threads") })
    }
}
