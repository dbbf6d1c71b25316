//! Which points are struck in which kinds, and what came of it.

#![expect(clippy::print_stdout, reason = "a matrix that prints what it did")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use amazon_pay_ipn::crash::CrashPoint;
use amazon_pay_ipn::sandbox::redis_server::RedisServer;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::audit::{Found, Summary, audit};
use crate::kinds::Kind;
use crate::world::{How, Strike};

/// Worlds at a time. They mostly wait for the poll of a worker.
const LANES: usize = 12;
/// Redis servers that they share, each world under a prefix of its own.
const SERVERS: usize = 2;

/// Times that a point is struck in the kind of refunds and disputes.
const OF_OBJECTS: u32 = 6;

/// Struck whatever else is chosen: here a commit without its fence charges twice.
const ALWAYS: [(Kind, Strike); 2] = [
    (Kind::DeclineThenLost, Strike { point: CrashPoint::Answered, occurrence: 1, how: How::Overtaken }),
    (Kind::DeclineThenLost, Strike { point: CrashPoint::CommitBefore, occurrence: 1, how: How::Overtaken }),
];

/// Strikes of one sort.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    pub how: How,
    /// Each point in at most so many kinds.
    pub kinds: usize,
    /// At the first, the second, ... time that a process comes by.
    pub occurrences: u32,
}

/// What came of one run.
struct Came {
    kind: Kind,
    strike: Option<Strike>,
    struck: bool,
    found: Found,
    reached: BTreeMap<String, u32>,
}

/// Everything that was run.
pub struct Matrix {
    baselines: BTreeMap<Kind, Came>,
    came: Vec<Came>,
    took: Duration,
}

impl Matrix {
    /// Runs each kind unharmed, sees which points lie on its way, and then strikes.
    pub async fn run(choices: &[Choice]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        #[expect(clippy::disallowed_methods, reason = "how long the harness itself takes")]
        let since = Instant::now();
        let redis: Vec<RedisServer> = (0..SERVERS).map(|_| RedisServer::start().expect("a private Redis")).collect();
        let kinds = Kind::ALL.iter().filter(|kind| is_wanted("CRASH_KIND", kind.name()));
        let unharmed = all(&redis, "unharmed", kinds.map(|kind| (*kind, None)).collect()).await;
        let baselines: BTreeMap<Kind, Came> = unharmed.into_iter().map(|came| (came.kind, came)).collect();
        let mut work: Vec<_> = choices.iter().flat_map(|choice| choose(&baselines, *choice)).collect();
        work.extend(ALWAYS.iter().filter(|_| !is_narrowed()).map(|(kind, strike)| (*kind, Some(*strike))));
        let mut came = all(&redis, "struck", work).await;
        for round in 0.. {
            let instead = choices.iter().flat_map(|choice| spared(&baselines, &came, choice.how)).collect::<Vec<_>>();
            if instead.is_empty() {
                break;
            }
            came.extend(all(&redis, &format!("instead-{round}"), instead).await);
        }
        Self { baselines, came, took: since.elapsed() }
    }

    /// Prints the table and every violation, and fails if there is one.
    pub fn report_and_judge(&self) {
        let mut wrong: Vec<String> = Vec::new();
        for (kind, came) in &self.baselines {
            wrong.extend(came.found.wrong.iter().map(|why| format!("{}, unharmed: {why}", kind.name())));
        }
        for came in &self.came {
            let Some(strike) = came.strike else { continue };
            let (kind, point, occurrence, how) =
                (came.kind.name(), strike.point.as_str(), strike.occurrence, strike.how);
            let mut say = |why: &str| wrong.push(format!("{kind}, {how:?} at {point}:{occurrence}: {why}"));
            came.found.wrong.iter().for_each(|why| say(why));
            let (ended, unharmed) = (&came.found.summary, &self.baselines[&came.kind].found.summary);
            if came.found.wrong.is_empty() && ended != unharmed {
                say(&format!("it ended {ended:?}, unharmed it ends {unharmed:?}\n{}", came.found.trail.join("\n")));
            }
        }
        self.print_table();
        let less_certain =
            self.came.iter().filter(|came| came.found.unverified > self.baselines[&came.kind].found.unverified);
        let less_certain = less_certain.count();
        let count = |how: How| {
            self.came.iter().filter(|came| came.struck && came.strike.is_some_and(|at| at.how == how)).count()
        };
        let missed = self.came.iter().filter(|came| !came.struck).count();
        println!(
            "crash points: {} points, {} kinds of work, {} pairs of the two; process killed and started anew {}, frozen \
             past its lease {} and until it was overtaken {}, Redis killed {}; point not come by {missed}; audited {}; ends less certain than unharmed {}; violations {}; {:.0} s",
            CrashPoint::ALL.len(),
            self.baselines.len(),
            self.pairs().len(),
            count(How::Killed),
            count(How::Frozen),
            count(How::Overtaken),
            count(How::RedisKilled),
            self.came.len() + self.baselines.len(),
            less_certain,
            wrong.len(),
            self.took.as_secs_f64(),
        );
        assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
        if is_narrowed() {
            return;
        }
        let hows: BTreeSet<How> = self.came.iter().filter_map(|came| came.strike.map(|strike| strike.how)).collect();
        let unmet: Vec<(How, &str)> = hows
            .into_iter()
            .flat_map(|how| CrashPoint::ALL.iter().map(move |point| (how, *point)))
            .filter(|(how, point)| is_struck(*how, *point) && !was_struck(&self.came, *how, *point))
            .map(|(how, point)| (how, point.as_str()))
            .collect();
        assert!(unmet.is_empty(), "nobody was struck at {unmet:?}");
        let spared: Vec<&str> = Kind::ALL
            .iter()
            .filter(|kind| !self.pairs().iter().any(|(_, struck)| struck == *kind))
            .map(|kind| kind.name())
            .collect();
        assert!(spared.is_empty(), "nobody died in {spared:?}");
    }

    /// The pairs in which a process was killed.
    fn pairs(&self) -> BTreeSet<(CrashPoint, Kind)> {
        let killed = self.came.iter().filter(|came| came.struck);
        let killed = killed.filter_map(|came| came.strike.map(|strike| (strike, came.kind)));
        killed.filter(|(strike, _)| strike.how == How::Killed).map(|(strike, kind)| (strike.point, kind)).collect()
    }

    /// How often a process was struck, by point and kind; a dot: the point does not lie on the way of that kind; a dash: not tried.
    fn print_table(&self) {
        for (column, kind) in self.baselines.keys().enumerate() {
            println!("{:>4} {}", column + 1, kind.name());
        }
        let columns: Vec<String> = (1..=self.baselines.len()).map(|column| format!("{column:>3}")).collect();
        println!("{:<24}{}", "", columns.concat());
        for point in CrashPoint::ALL {
            print!("{:<24}", point.as_str());
            for (kind, unharmed) in &self.baselines {
                let here =
                    |came: &&Came| came.kind == *kind && came.strike.is_some_and(|strike| strike.point == *point);
                let struck = self.came.iter().filter(here).filter(|came| came.struck).count();
                let on_its_way = unharmed.reached.contains_key(point.as_str());
                match (on_its_way, struck) {
                    (false, _) => print!("  ."),
                    (true, 0) => print!("  -"),
                    (true, times) => print!("{times:>3}"),
                }
            }
            println!();
        }
    }
}

/// Each point in so many kinds that come by it: those first that were chosen least, so that every kind has its share.
fn choose(baselines: &BTreeMap<Kind, Came>, choice: Choice) -> Vec<(Kind, Option<Strike>)> {
    if !is_wanted("CRASH_HOW", &format!("{:?}", choice.how).to_lowercase()) {
        return Vec::new();
    }
    let mut chosen: BTreeMap<Kind, usize> = BTreeMap::new();
    let mut work = Vec::new();
    for point in CrashPoint::ALL.iter().filter(|point| is_wanted("CRASH_POINT", point.as_str())) {
        if !is_struck(choice.how, *point) {
            continue;
        }
        let mut by_it: Vec<Kind> = baselines
            .iter()
            .filter(|(_, came)| came.reached.contains_key(point.as_str()))
            .map(|(kind, _)| *kind)
            .collect();
        by_it.sort_by_key(|kind| chosen.get(kind).copied().unwrap_or_default());
        for kind in by_it.into_iter().take(choice.kinds) {
            *chosen.entry(kind).or_default() += 1;
            let reached = baselines[&kind].reached[point.as_str()];
            // Nothing but its notification tells of a refund or a dispute, so there the later times are those that count.
            let occurrences = match (kind, choice.occurrences) {
                (Kind::RefundAndDispute, 1) => reached..=reached,
                (Kind::RefundAndDispute, _) => 1..=reached.min(OF_OBJECTS),
                (_, most) => 1..=reached.min(most),
            };
            for occurrence in occurrences {
                work.push((kind, Some(Strike { point: *point, occurrence, how: choice.how })));
            }
        }
    }
    work
}

/// What is struck instead, where a point was not come by in any of the kinds chosen for it: which way a kind takes after a call without an
/// answer depends on whether the notification or the repeated call is first. A kind that was not tried yet, for each such point.
fn spared(baselines: &BTreeMap<Kind, Came>, came: &[Came], how: How) -> Vec<(Kind, Option<Strike>)> {
    let tried = |kind: Kind, point: CrashPoint| {
        came.iter().any(|came| came.kind == kind && came.strike.is_some_and(|at| at.how == how && at.point == point))
    };
    let points = CrashPoint::ALL
        .iter()
        .filter(|point| came.iter().any(|came| came.strike.is_some_and(|at| at.how == how && at.point == **point)));
    points
        .filter(|point| !was_struck(came, how, **point))
        .filter_map(|point| {
            let by_it =
                |(kind, came): &(&Kind, &Came)| came.reached.contains_key(point.as_str()) && !tried(**kind, *point);
            let (kind, _) = baselines.iter().find(by_it)?;
            Some((*kind, Some(Strike { point: *point, occurrence: 1, how })))
        })
        .collect()
}

fn was_struck(came: &[Came], how: How, point: CrashPoint) -> bool {
    came.iter().any(|came| came.struck && came.strike.is_some_and(|at| at.how == how && at.point == point))
}

/// Whether this point is one for such a strike.
fn is_struck(how: How, point: CrashPoint) -> bool {
    match how {
        How::Killed => true,
        How::Frozen | How::Overtaken => !has_an_opposite(point),
        How::RedisKilled => is_beside_a_write(point),
    }
}

/// A pause that a frozen process carries out after the caller had the charge resumed elsewhere stands, as it must: nobody knows that its
/// caller has gone.
fn has_an_opposite(point: CrashPoint) -> bool {
    matches!(point, CrashPoint::PauseBefore | CrashPoint::StopBefore)
}

/// Redis is killed where the process has just written, or is about to.
fn is_beside_a_write(point: CrashPoint) -> bool {
    let name = point.as_str();
    ["accept-", "mark-", "capture-mark-", "commit-", "submit-", "cancel-before", "cancel-after", "claimed"]
        .iter()
        .any(|start| name.starts_with(start))
}

async fn one(kind: Kind, strike: Option<Strike>, redis_url: String, prefix: String) -> Came {
    let run = tokio::spawn(async move {
        let world = kind.run(&redis_url, &prefix, strike).await;
        let found = audit(&world, kind).await;
        Came { kind, strike, struck: world.struck, found, reached: world.reached.clone() }
    });
    run.await.unwrap_or_else(|error| {
        let panic = error.into_panic();
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let wrong = vec![text.unwrap_or_else(|| "a panic".to_owned())];
        let found = Found { wrong, summary: Summary::new(), unverified: 0, trail: Vec::new() };
        Came { kind, strike, struck: true, found, reached: BTreeMap::new() }
    })
}

/// Runs them all, some at a time.
async fn all(redis: &[RedisServer], batch: &str, work: Vec<(Kind, Option<Strike>)>) -> Vec<Came> {
    let lanes = Arc::new(Semaphore::new(LANES));
    let mut running = JoinSet::new();
    for (place, (kind, strike)) in work.into_iter().enumerate() {
        let (lanes, url) = (Arc::clone(&lanes), redis[place % redis.len()].url());
        let prefix = format!("{batch}-{place}");
        running.spawn(async move {
            let _lane = lanes.acquire_owned().await.expect("a lane");
            let came = one(kind, strike, url, prefix).await;
            for why in &came.found.wrong {
                println!("{}, {strike:?}: {why}", kind.name());
            }
            came
        });
    }
    running.join_all().await
}

#[expect(clippy::disallowed_methods, reason = "a switch of the harness, not a setting of the service")]
pub fn switch(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_wanted(name: &str, value: &str) -> bool {
    switch(name).is_none_or(|wanted| wanted == value)
}

fn is_narrowed() -> bool {
    ["CRASH_POINT", "CRASH_KIND", "CRASH_HOW"].iter().any(|name| switch(name).is_some())
}
