//! `POST /ipn` side by side with what bounds it and with what people write today, in one run on one machine: every row is measured several
//! times, in turn, and the median stands. Printed as a table, and written as JSON and as a chart to `target/bench/`.

mod chart;
mod drive;
mod goals;
mod processes;
pub mod prototype;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use amazon_pay_ipn::clock::Stopwatch;
use anyhow::Context;
use comfy_table::{ContentArrangement, Table, presets};
use redis::aio::MultiplexedConnection;

use self::drive::{CONNECTIONS, Measured, Pace, Watched, drive, to_f64};
use self::processes::{Other, install, memory_kib};
use crate::messages::{self, Prepared};
use crate::world::{Service, Time, World};

/// Each message is used once in a run; afterwards all are made new again.
const POOL: usize = 100_000;
const PERMISSIONS: usize = 200;
const STARTS: usize = 5;
const OUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench");

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    Ours,
    OursEverysec,
    Duplicates,
    ForeignTopic,
    Forged,
    Prototype,
    PrototypeEverysec,
    Node,
    NodeTwo,
    Express,
    Echo,
    Script,
}

impl Row {
    pub const ALL: [Self; 12] = [
        Self::Ours,
        Self::OursEverysec,
        Self::Duplicates,
        Self::ForeignTopic,
        Self::Forged,
        Self::Prototype,
        Self::PrototypeEverysec,
        Self::Node,
        Self::NodeTwo,
        Self::Express,
        Self::Echo,
        Self::Script,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "amazon-pay-ipn: accepted",
            Self::OursEverysec => "amazon-pay-ipn: accepted, everysec",
            Self::Duplicates => "amazon-pay-ipn: duplicates",
            Self::ForeignTopic => "amazon-pay-ipn: another topic, refused",
            Self::Forged => "amazon-pay-ipn: wrong signature, refused",
            Self::Prototype => "ceiling: bare axum, ring, one script",
            Self::PrototypeEverysec => "ceiling, everysec",
            Self::Node => "Node without framework, 1 process",
            Self::NodeTwo => "Node without framework, 2 processes",
            Self::Express => "Express + sns-validator, 2 processes",
            Self::Echo => "floor: axum that only answers",
            Self::Script => "floor: the bare script, no HTTP",
        }
    }

    const fn everysec(self) -> bool {
        matches!(self, Self::OursEverysec | Self::PrototypeEverysec)
    }
}

/// The kinds of requests, each signed for itself or altered.
struct Requests {
    ids: Vec<String>,
    genuine: Arc<Vec<Vec<u8>>>,
    /// As Amazon names its certificates: what a peer expects.
    for_peers: Arc<Vec<Vec<u8>>>,
    foreign: Arc<Vec<Vec<u8>>>,
    forged: Arc<Vec<Vec<u8>>>,
}

struct Stand {
    world: World,
    service: Service,
    requests: Requests,
    certificate: PathBuf,
    redis: MultiplexedConnection,
    redis_process: u32,
}

/// One row, one round.
#[derive(Clone, Debug)]
pub struct Sample {
    pub measured: Measured,
    pub memory_kib: u64,
}

/// Everything that was found out.
pub struct Found {
    pub rows: Vec<(Row, Sample)>,
    /// At half of what was accepted: ours, and Redis by itself.
    pub half: Measured,
    pub half_redis: Duration,
    pub ready: Duration,
    /// One RSA verification on one core.
    pub verify: Duration,
}

/// Measures each row so many times; whether every answer was the expected one.
pub async fn run(rounds: usize) -> anyhow::Result<bool> {
    for peer in ["express", "node"] {
        install(peer)?;
    }
    let mut stand = Stand::set_up().await?;
    let ready = stand.ready().await?;
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); Row::ALL.len()];
    for round in 1..=rounds {
        for (place, row) in Row::ALL.into_iter().enumerate() {
            let sample = stand.measure(row).await.with_context(|| row.name())?;
            eprintln!(
                "{round}/{rounds} {}: {:.0}/s, {} wrong",
                row.name(),
                sample.measured.per_second,
                sample.measured.wrong
            );
            samples[place].push(sample);
        }
    }
    let wrong: u64 = samples.iter().flatten().map(|sample| sample.measured.wrong).sum();
    let rows: Vec<(Row, Sample)> = Row::ALL.into_iter().zip(samples.into_iter().map(median)).collect();
    let half = rows[0].1.measured.per_second / 2.0;
    let (mut ours, mut redis) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let watched = stand.watched(stand.service.id());
        let measured =
            drive(stand.service.public, stand.requests.genuine.clone(), Pace::Open(half), 200, watched).await?;
        stand.renew().await?;
        ours.push(Sample { measured, memory_kib: 0 });
        redis.push(Sample { measured: stand.script(Some(half)).await?, memory_kib: 0 });
        stand.renew().await?;
    }
    let by_p99 = |mut samples: Vec<Sample>| {
        samples.sort_by_key(|sample| sample.measured.p99);
        samples.swap_remove(samples.len() / 2).measured
    };
    let found = Found { rows, half: by_p99(ours), half_redis: by_p99(redis).p99, ready, verify: stand.verify()? };
    print(&found);
    goals::print(&found);
    std::fs::create_dir_all(OUT)?;
    std::fs::write(Path::new(OUT).join("speed.json"), goals::json(&found, rounds))?;
    std::fs::write(Path::new(OUT).join("speed.svg"), chart::draw(&found))?;
    println!("written to {OUT}/speed.json and speed.svg");
    if wrong > 0 {
        println!("BROKEN {wrong} answers were not the expected ones");
    }
    Ok(wrong == 0)
}

/// The one in the middle by what it did in a second.
fn median(mut samples: Vec<Sample>) -> Sample {
    samples.sort_by(|one, other| one.measured.per_second.total_cmp(&other.measured.per_second));
    samples.swap_remove(samples.len() / 2)
}

impl Stand {
    async fn set_up() -> anyhow::Result<Self> {
        let world = World::start(Time::Real, &[("ACCEPT_UNSAFE_DURABILITY", "true")]).await?;
        let mut redis = world.connection().await?;
        // A rewrite in the middle of a run would be somebody's bad luck.
        let () =
            redis::cmd("CONFIG").arg("SET").arg("auto-aof-rewrite-percentage").arg(0).query_async(&mut redis).await?;
        let server: String = redis::cmd("INFO").arg("server").query_async(&mut redis).await?;
        let process = server.lines().find_map(|line| line.strip_prefix("process_id:")).context("no process")?;
        let redis_process = process.trim().parse()?;
        println!("{POOL} messages are being signed");
        let requests = Requests::new(&world, messages::sign(&world.sandbox, POOL, PERMISSIONS));
        let certificate = world.file("certificate.pem");
        let address = format!("{}/{}", world.sandbox.certificate_base_url(), world.sandbox.certificate_file_name());
        std::fs::write(&certificate, reqwest::get(address).await?.error_for_status()?.bytes().await?)?;
        let service = world.serve_logging("serve").await?;
        Ok(Self { world, service, requests, certificate, redis, redis_process })
    }

    fn watched(&self, server: u32) -> Watched {
        Watched { server, redis: self.redis_process }
    }

    async fn measure(&mut self, row: Row) -> anyhow::Result<Sample> {
        let sync = if row.everysec() { "everysec" } else { "always" };
        let () = redis::cmd("CONFIG").arg("SET").arg("appendfsync").arg(sync).query_async(&mut self.redis).await?;
        let requests = &self.requests;
        let sample = match row {
            Row::Ours | Row::OursEverysec => self.ours(requests.genuine.clone(), 200).await?,
            Row::Duplicates => {
                // The first time they are new.
                self.ours(requests.genuine.clone(), 200).await?;
                self.ours(requests.genuine.clone(), 200).await?
            }
            Row::ForeignTopic => self.ours(requests.foreign.clone(), 403).await?,
            Row::Forged => self.ours(requests.forged.clone(), 403).await?,
            Row::Prototype | Row::PrototypeEverysec => {
                let other = self.prototype("prototype")?;
                self.other(&other, requests.genuine.clone()).await?
            }
            Row::Echo => {
                let other = self.prototype("echo")?;
                self.other(&other, requests.genuine.clone()).await?
            }
            Row::Node => self.other(&self.peer("node", 1)?, requests.for_peers.clone()).await?,
            Row::NodeTwo => self.other(&self.peer("node", 2)?, requests.for_peers.clone()).await?,
            Row::Express => self.other(&self.peer("express", 2)?, requests.for_peers.clone()).await?,
            Row::Script => Sample { measured: self.script(None).await?, memory_kib: 0 },
        };
        self.renew().await?;
        Ok(sample)
    }

    async fn ours(&self, messages: Arc<Vec<Vec<u8>>>, expected: u16) -> anyhow::Result<Sample> {
        let process = self.service.id();
        let measured = drive(self.service.public, messages, Pace::Closed, expected, self.watched(process)).await?;
        Ok(Sample { measured, memory_kib: memory_kib(process) })
    }

    async fn other(&self, other: &Other, messages: Arc<Vec<Vec<u8>>>) -> anyhow::Result<Sample> {
        let measured = drive(other.address, messages, Pace::Closed, 200, self.watched(other.id())).await?;
        Ok(Sample { measured, memory_kib: memory_kib(other.id()) })
    }

    fn prototype(&self, kind: &str) -> anyhow::Result<Other> {
        Other::prototype(kind, &self.certificate, self.world.sandbox.topic_arn(), &self.world.redis.url())
    }

    fn peer(&self, name: &str, processes: u32) -> anyhow::Result<Other> {
        let url = self.world.redis.url();
        let socket = url.trim_start_matches("redis+unix://").trim_start_matches("unix://");
        Other::peer(name, processes, &self.certificate, self.world.sandbox.topic_arn(), Path::new(socket))
    }

    /// The ceiling's script on one connection, as many at a time as there are connections elsewhere; or so many a second.
    async fn script(&self, rate: Option<f64>) -> anyhow::Result<Measured> {
        let connection = self.world.connection().await?;
        drive::scripts(
            connection,
            &self.requests.ids,
            messages::body(&self.requests.genuine[0]),
            rate,
            self.redis_process,
        )
        .await
    }

    /// All messages are new again, and the streams are empty.
    async fn renew(&mut self) -> anyhow::Result<()> {
        let ours = self.world.key("seen:");
        for ids in self.requests.ids.chunks(1000) {
            let keys: Vec<String> =
                ids.iter().flat_map(|id| [format!("{ours}{id}"), format!("bench:seen:{id}")]).collect();
            let () = redis::cmd("UNLINK").arg(keys).query_async(&mut self.redis).await?;
        }
        for stream in [self.world.key("journal"), "bench:journal".to_owned()] {
            let () = redis::cmd("XTRIM").arg(stream).arg("MAXLEN").arg(0).query_async(&mut self.redis).await?;
        }
        Ok(())
    }

    /// From the start of the program until it says that it is ready; the median of some.
    async fn ready(&self) -> anyhow::Result<Duration> {
        let mut took = Vec::new();
        for _ in 0..STARTS {
            let started = Stopwatch::start();
            let service = self.world.serve_logging("another").await?;
            while !reqwest::get(format!("{}/readyz", service.internal)).await?.status().is_success() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            took.push(started.elapsed());
            service.terminate().await?;
        }
        took.sort();
        Ok(took[STARTS / 2])
    }

    /// One verification with ring, on one core that does nothing else.
    fn verify(&self) -> anyhow::Result<Duration> {
        let body = messages::body(&self.requests.genuine[0]);
        prototype::time_verification(&std::fs::read(&self.certificate)?, body)
    }
}

impl Requests {
    fn new(world: &World, signed: Vec<Prepared>) -> Self {
        let sandbox = &world.sandbox;
        let base = sandbox.certificate_base_url();
        let topic = sandbox.topic_arn();
        let foreign: String = topic.chars().map(|letter| if letter == '2' { '3' } else { letter }).collect();
        let altered = |change: &dyn Fn(&str) -> String| -> Arc<Vec<Vec<u8>>> {
            Arc::new(signed.iter().map(|message| messages::altered(&message.bytes, change)).collect())
        };
        let for_peers = altered(&|text| text.replace(base, "https://sns.us-east-1.amazonaws.com"));
        let foreign = altered(&|text| text.replace(topic, &foreign));
        let forged =
            altered(&|text| text.replace("StateChange", "StateChangf").replace("STATE_CHANGE", "STATE_CHANGF"));
        let (ids, genuine) = signed.into_iter().map(|message| (message.message_id, message.bytes)).unzip();
        Self { ids, genuine: Arc::new(genuine), for_peers, foreign, forged }
    }
}

fn print(found: &Found) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header([
        "",
        "a second",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "server µs",
        "Redis µs",
        "load µs",
        "MB",
    ]);
    let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
    let micros = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6);
    for (row, Sample { measured, memory_kib }) in &found.rows {
        table.add_row([
            row.name().to_owned(),
            format!("{:.0}", measured.per_second),
            ms(measured.p50),
            ms(measured.p99),
            ms(measured.p999),
            micros(measured.server),
            micros(measured.redis),
            micros(measured.load),
            if *memory_kib == 0 { String::new() } else { format!("{:.0}", to_f64(*memory_kib) / 1024.0) },
        ]);
    }
    println!("\n{table}\n");
    println!(
        "{CONNECTIONS} connections, each sends the next when it has its answer; processor time is for one message"
    );
}
