//! Seeded simulation: the real service in this process against a real Redis and the sandbox, on moved clocks, with everything going
//! wrong that the protocol claims to survive. Docs: docs/reliability/simulation.md.
//!
//! Settings of a run, as environment variables: `SEEDS` (how many, 20), `FROM` (the first one, 1), `SEED` (one, with its log), `JOBS`
//! (threads, 2), `INSTANCES` (1 to 8; 1 to 3 drawn from the seed), `MINUTES` (stop after), `ENOUGH` (seeds with a violation after which it
//! gives up, 5), `BEYOND=1` (faults beyond the assumptions).
#![expect(clippy::print_stdout, reason = "this is a program with a report")]
#![expect(unreachable_pub, reason = "pub says what a module offers to its neighbours, as in the other tests")]

mod auditor;
mod dice;
mod evidence;
mod hold;
mod people;
mod trouble;
mod work;
mod workload;
mod world;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use amazon_pay_ipn::clock::Stopwatch;
use amazon_pay_ipn::telemetry;
use metrics_exporter_prometheus::PrometheusHandle;

struct Arguments {
    from: u64,
    seeds: u64,
    only: Option<u64>,
    jobs: u64,
    instances: Option<usize>,
    minutes: Option<u64>,
    beyond: bool,
    enough: usize,
}

#[expect(clippy::disallowed_methods, reason = "settings of a program of the tests, not of the service")]
fn set(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

impl Arguments {
    fn read() -> Self {
        Self {
            from: set("FROM").unwrap_or(1),
            seeds: set("SEEDS").unwrap_or(20),
            only: set("SEED"),
            jobs: set("JOBS").unwrap_or(2).max(1),
            instances: set("INSTANCES").and_then(|count| usize::try_from(count).ok()).map(|count| count.clamp(1, 8)),
            minutes: set("MINUTES"),
            beyond: set("BEYOND").is_some_and(|value| value != 0),
            enough: set("ENOUGH").and_then(|count| usize::try_from(count).ok()).unwrap_or(5),
        }
    }
}

#[derive(Default)]
struct Report {
    counts: BTreeMap<String, u64>,
    operations: u64,
    failed: Vec<(u64, Vec<String>)>,
}

/// What is left of a run.
struct Finished {
    violations: Vec<String>,
    log: Vec<String>,
    counts: BTreeMap<String, u64>,
}

fn run_seed(seed: u64, arguments: &Arguments, metrics: &PrometheusHandle) -> Finished {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let finished = runtime.block_on(async {
        let run = workload::run(seed, arguments.instances, arguments.beyond, metrics);
        match tokio::time::timeout(world::PATIENCE, run).await {
            Ok(mut world) => {
                let (violations, log) = (std::mem::take(&mut world.violations), std::mem::take(&mut world.log));
                let counts = std::mem::take(&mut world.counts);
                world.end().await;
                Finished { violations, log, counts }
            }
            Err(_) => Finished {
                violations: vec![format!("the run did not end within {:?}", world::PATIENCE)],
                log: Vec::new(),
                counts: BTreeMap::new(),
            },
        }
    });
    runtime.shutdown_background();
    finished
}

fn print_failure(seed: u64, finished: &Finished) {
    println!("seed {seed}: {} violations", finished.violations.len());
    for violation in &finished.violations {
        println!("  VIOLATION {violation}");
    }
    println!("  what was done (SEED={seed} replays it):");
    for line in &finished.log {
        println!("    {line}");
    }
}

/// Starts this program anew with two settings of the environment, unless it has them. Every client of the service reads the system's
/// roots when it is built, which takes longer than the rest of a run, and nothing here speaks TLS. The data of Redis need not survive
/// this machine, only Redis.
fn with_a_quick_environment() {
    const ROOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sns/certificate/amazon.pem");
    if set("SIMULATION_STARTED").is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env("SIMULATION_STARTED", "1");
    command.env("SSL_CERT_FILE", ROOTS).env("SSL_CERT_DIR", "/nonexistent");
    let shared = Path::new("/dev/shm");
    if shared.is_dir() {
        command.env("TMPDIR", shared);
    }
    // Returns only if it fails; then it runs as it is.
    let _ = command.exec();
}

fn main() -> ExitCode {
    // `cargo test -- --list` asks every test binary.
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    with_a_quick_environment();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::read();
    let metrics = telemetry::start_metrics();
    let stopwatch = Stopwatch::start();
    if let Some(seed) = arguments.only {
        telemetry::start_logging(telemetry::LogFormat::Text, "warn", None);
        let finished = run_seed(seed, &arguments, &metrics);
        print_failure(seed, &finished);
        return if finished.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (next, done, enough) = (AtomicU64::new(arguments.from), AtomicU64::new(0), AtomicBool::new(false));
    let end = arguments.from.saturating_add(arguments.seeds);
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while !enough.load(Ordering::SeqCst) {
                    let late = arguments.minutes.is_some_and(|minutes| stopwatch.elapsed().as_secs() >= minutes * 60);
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= end || late {
                        return;
                    }
                    let finished = run_seed(seed, &arguments, &metrics);
                    let count = done.fetch_add(1, Ordering::SeqCst) + 1;
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    for (kind, count) in &finished.counts {
                        *report.counts.entry(kind.clone()).or_default() += count;
                    }
                    report.operations += finished.log.len() as u64;
                    if !finished.violations.is_empty() {
                        print_failure(seed, &finished);
                        report.failed.push((seed, finished.violations));
                        enough.store(report.failed.len() >= arguments.enough, Ordering::SeqCst);
                    }
                    if count % 100 == 0 {
                        println!("{count} seeds, {} with violations, {:?}", report.failed.len(), stopwatch.elapsed());
                    }
                }
            });
        }
    });
    let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seeds = done.load(Ordering::SeqCst);
    println!(
        "simulation: {seeds} seeds from {}, {} lines of log, {:?}",
        arguments.from,
        report.operations,
        stopwatch.elapsed()
    );
    for (kind, count) in &report.counts {
        println!("  {count:>8}  {kind}");
    }
    let violations: usize = report.failed.iter().map(|(_, violations)| violations.len()).sum();
    println!("{violations} violations in {} seeds", report.failed.len());
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
