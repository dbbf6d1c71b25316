//! What is measured, as processes: the service, the ceiling, the peers. And what they use, from /proc.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use amazon_pay_ipn::clock::Stopwatch;
use anyhow::{Context, bail};

/// /proc counts in hundredths of a second, whatever the kernel.
const TICK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that is not the service; killed with its children when dropped.
pub struct Other {
    child: Child,
    pub address: SocketAddr,
}

impl Other {
    /// The ceiling, or an axum that only answers: this program again.
    pub fn prototype(kind: &str, certificate: &Path, topic: &str, redis: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(kind).arg(certificate).args([topic, redis]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut line)?;
        Ok(Self { address: line.trim().parse().context("no address")?, child })
    }

    /// A peer of `benches/peers`, with so many processes.
    pub fn peer(
        name: &str,
        processes: u32,
        certificate: &Path,
        topic: &str,
        redis_socket: &Path,
    ) -> anyhow::Result<Self> {
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let mut command = Command::new("node");
        command
            .arg("server.js")
            .current_dir(folder(name))
            .env("NODE_ENV", "production")
            .env("PORT", address.port().to_string())
            .env("PROCESSES", processes.to_string())
            .env("TOPIC", topic)
            .env("CERTIFICATE", certificate)
            .env("REDIS_SOCKET", redis_socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let started = Stopwatch::start();
        let mut other = Self { child: command.spawn().context("node does not start")?, address };
        while TcpStream::connect(address).is_err() {
            if started.elapsed() > PATIENCE || other.child.try_wait()?.is_some() {
                bail!("{name} does not listen");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(other)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let family = family(self.child.id());
        let _ = self.child.kill();
        let _ = self.child.wait();
        for process in family {
            // Those that ended with their parent are gone already.
            let _ = Command::new("kill").args(["-KILL", &process.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

/// Installs what a peer needs, from its lock file.
pub fn install(name: &str) -> anyhow::Result<()> {
    let done = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--silent"])
        .current_dir(folder(name))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("npm does not start")?;
    if done.success() { Ok(()) } else { bail!("npm ci of {name}: {done}") }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(name)
}

/// A process and all that it started.
fn family(process: u32) -> Vec<u32> {
    let children = |of: u32| -> Vec<u32> {
        let path = format!("/proc/{of}/task/{of}/children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().filter_map(|id| id.parse().ok()).collect()
    };
    let (mut all, mut next) = (vec![process], 0);
    while next < all.len() {
        all.extend(children(all[next]));
        next += 1;
    }
    all
}

/// Processor time that a process and its children have used.
pub fn processor(process: u32) -> Duration {
    family(process).into_iter().map(processor_alone).sum()
}

/// Processor time that a process itself has used.
pub fn processor_alone(process: u32) -> Duration {
    let ticks = || -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name of the program stands in brackets and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?)
    };
    TICK * ticks().unwrap_or(0)
}

/// Resident memory of a process and its children.
pub fn memory_kib(process: u32) -> u64 {
    let of = |id: u32| crate::world::Holds::of(id).map_or(0, |held| held.rss_kib);
    family(process).into_iter().map(of).sum()
}
