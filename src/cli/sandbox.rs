//! `sandbox`: a local Amazon Pay that stands alone, for trying any integration against it, this service's or another.
//!
//! The manual with a walk-through is `docs/SANDBOX.md`.

mod folder;
mod post;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use reqwest::Url;
use tokio::sync::broadcast::error::RecvError;

use super::demo::words;
use super::mistakes::{self, EXIT_USAGE};
use super::serve::told_to_stop;
use super::trigger::Target;
use crate::clock::Clock;
use crate::model::ids::{MerchantId, Region};
use crate::sandbox::redis_server::RedisServer;
use crate::sandbox::{Reading, Sandbox, SandboxSettings, SignatureVersion, Throttle};
use folder::Folder;

const EXAMPLES: &str = "\
Try it:
  amazon-pay-ipn sandbox --with-redis --notify http://127.0.0.1:8080/ipn
and in another shell:
  set -a; . .amazon-pay-ipn-sandbox/service.env; set +a
  amazon-pay-ipn init --first && amazon-pay-ipn serve
and in a third:
  curl -sX POST http://127.0.0.1:PORT/sandbox-control/permissions

docs/SANDBOX.md lists what /sandbox-control/ can do: buyers, outcomes of charges, refunds, disputes, throttling, faults, the clock.";

/// Run a local Amazon Pay that any integration can be tested against
///
/// It checks request signatures, answers as Amazon documents, and posts signed notifications. It forgets permissions and charges when it
/// ends; keys and the clock stay in its folder. Runs until SIGTERM or Ctrl-C. Exit status: 0 stopped as asked, 1 failed, 2 wrong usage.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SandboxArgs {
    /// Where it listens; port 0 takes a free one
    #[arg(long, env = "SANDBOX_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What others call it, if that is not the address, such as <http://sandbox:9000> in a network of containers
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Folder of keys, clock and settings; made at first use
    #[arg(long, value_name = "FOLDER", default_value = ".amazon-pay-ipn-sandbox")]
    directory: PathBuf,
    /// Post a notification of every change there: http:// and a loopback or private address
    #[arg(long, value_name = "URL")]
    notify: Option<String>,
    /// How SNS signs: 1 is SHA-1, 2 is SHA-256
    #[arg(long, value_enum, value_name = "VERSION", default_value = "1")]
    signature_version: SignatureVersion,
    /// What happens to an idempotency key that was used before; Amazon does not say
    #[arg(long, value_enum, default_value = "replay-all")]
    reading: Reading,
    /// Refuse too many requests, by the documented limits of Amazon's sandbox or of live accounts
    #[arg(long, value_enum, default_value = "off")]
    throttle: ThrottleChoice,
    /// After which time pending captures and refunds come to a good end by themselves
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    settle_after: humantime::Duration,
    /// The region of the account: na, eu or jp
    #[arg(long, value_name = "REGION", default_value = "na")]
    region: Region,
    /// The merchant
    #[arg(long, value_name = "ID", default_value = "A2K7NDRCTOTPW9")]
    merchant_id: MerchantId,
    /// Also start a private Redis for the service, which ends, with its data, with this command
    #[arg(long)]
    with_redis: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ThrottleChoice {
    Off,
    Sandbox,
    Live,
}

/// Runs the command.
pub async fn run(args: SandboxArgs) -> ExitCode {
    // Before anything is ready: a signal that comes first would end the process without a word.
    let stop = told_to_stop();
    let prepared = match Prepared::new(&args).await {
        Ok(prepared) => prepared,
        Err(error) => {
            mistakes::fail(&error);
            return EXIT_USAGE.into();
        }
    };
    match serve(args, prepared, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => mistakes::fail(&error),
    }
}

/// What is checked before anything is started.
struct Prepared {
    folder: Folder,
    target: Option<Target>,
}

impl Prepared {
    async fn new(args: &SandboxArgs) -> anyhow::Result<Self> {
        if let Some(text) = &args.base_url {
            let url = Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.path() == "/");
            let is_origin = url.is_some_and(|url| url.query().is_none()) && !text.ends_with('/');
            ensure!(is_origin, "--base-url: expected for example http://sandbox:9000, got {text:?}");
        }
        let target = match &args.notify {
            Some(text) => Some(Target::find("--notify", text).await?),
            None => None,
        };
        Ok(Self { folder: Folder::open(&args.directory).context("--directory")?, target })
    }
}

async fn serve(args: SandboxArgs, prepared: Prepared, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let Prepared { folder, target } = prepared;
    // On this thread, which lasts: Redis ends with the thread that started it.
    let redis = if args.with_redis { Some(RedisServer::start()?) } else { None };
    let clock = Clock::from_offset_file(folder.clock());
    let throttle = match args.throttle {
        ThrottleChoice::Off => None,
        ThrottleChoice::Sandbox => Some(Throttle::sandbox()),
        ThrottleChoice::Live => Some(Throttle::live()),
    };
    let sandbox = Sandbox::start(SandboxSettings {
        merchant_id: args.merchant_id.to_string(),
        region: args.region,
        reading: args.reading,
        throttle,
        settle_after: Some(args.settle_after.into()),
        listen: args.listen,
        base_url: args.base_url,
        keys_folder: Some(folder.path().to_owned()),
        control: Some(folder.clock()),
        ..SandboxSettings::new(clock.clone())
    });
    let sandbox = sandbox.await.with_context(|| format!("cannot start at {}", args.listen))?;
    let listens = target.as_ref().and_then(Target::loopback_address);
    folder.write_settings(&sandbox, args.region, redis.as_ref().map(RedisServer::url).as_deref(), listens)?;
    say(&introduction(&sandbox, &folder, &clock, args.notify.as_deref()));
    let told = tokio::select! {
        () = stop => Ok(()),
        () = post::deliver(&sandbox, target.as_ref(), args.signature_version) => Ok(()),
        result = tell(&sandbox) => result,
    };
    sandbox.stop().await;
    told
}

fn introduction(sandbox: &Sandbox, folder: &Folder, clock: &Clock, notify: Option<&str>) -> String {
    let base = sandbox.base_url();
    let hours_ahead = clock.offset_ms() / 3_600_000;
    let clock = match clock.offset_ms() {
        0 => "is the system's".to_owned(),
        _ => format!("is {}d {}h ahead", hours_ahead / 24, hours_ahead % 24),
    };
    let lines = [
        ("base URL", base.to_owned()),
        ("control", format!("{base}/sandbox-control/")),
        ("merchant id", sandbox.merchant_id().to_owned()),
        ("public key id", sandbox.public_key_id().to_owned()),
        ("private key", folder.private_key().display().to_string()),
        ("topic ARN", sandbox.topic_arn().to_owned()),
        ("certificates", sandbox.certificate_base_url().to_owned()),
        ("trust anchors", folder.trust_anchors().display().to_string()),
        ("notifications", notify.map_or("are kept: no --notify".to_owned(), |url| format!("go to {url}"))),
        ("clock", clock),
        ("for the service", format!("set -a; . {}; set +a", folder.service_env().display())),
    ];
    let mut text = "amazon-pay-ipn sandbox: a local Amazon Pay\n\n".to_owned();
    for (name, value) in lines {
        text.extend([&format!("{name:<16} {value}"), "\n"]);
    }
    text + "\nready\n"
}

/// Tells every request as it is answered.
async fn tell(sandbox: &Sandbox) -> anyhow::Result<()> {
    let mut records = sandbox.subscribe();
    loop {
        match records.recv().await {
            Ok(record) => say(&line(record.at, &words::request(&record))),
            Err(RecvError::Lagged(missed)) => say(&format!("({missed} requests are not shown)\n")),
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

fn line(at: Timestamp, text: &str) -> String {
    format!("{}  {text}\n", at.strftime("%Y-%m-%d %H:%M:%S"))
}

/// Where nobody reads, nobody has to be told.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
