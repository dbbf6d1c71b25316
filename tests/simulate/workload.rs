//! One run: operations drawn from the seed, a calm stretch now and then, and the end at which everything must settle.

use std::time::Duration;

use amazon_pay_ipn::sandbox::Operation;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::dice::Dice;
use crate::hold::Place;
use crate::world::{DAY, Profile, World};

/// Polls of a step after which a worker may be stopped.
const POLLS: u64 = 60;

#[derive(Debug, Clone, Copy)]
enum Deed {
    Want,
    Ask,
    Happen,
    HappenToCharge,
    Work,
    Step,
    Race,
    HoldAtGate,
    HoldCreate,
    Suspend,
    LetGo,
    KillWorker,
    Arrive,
    PassSeconds,
    PassLease,
    PassX,
    PassHours,
    PassDays,
    Deliver,
    LoseLetters,
    Outage,
    Forge,
    Fault,
    AccountFault,
    Throttle,
    Skew,
    StopSwitch,
    Redis,
    Process,
    Calm,
}

const DEEDS: &[(u32, Deed)] = &[
    (12, Deed::Want),
    (8, Deed::Ask),
    (7, Deed::Happen),
    (4, Deed::HappenToCharge),
    (16, Deed::Work),
    (6, Deed::Step),
    (4, Deed::Race),
    (7, Deed::HoldAtGate),
    (8, Deed::HoldCreate),
    (8, Deed::Suspend),
    (10, Deed::LetGo),
    (5, Deed::KillWorker),
    (6, Deed::Arrive),
    (6, Deed::PassSeconds),
    (8, Deed::PassLease),
    (8, Deed::PassX),
    (7, Deed::PassHours),
    (7, Deed::PassDays),
    (12, Deed::Deliver),
    (3, Deed::LoseLetters),
    (2, Deed::Outage),
    (2, Deed::Forge),
    (12, Deed::Fault),
    (1, Deed::AccountFault),
    (1, Deed::Throttle),
    (1, Deed::Skew),
    (3, Deed::StopSwitch),
    (2, Deed::Redis),
    (3, Deed::Process),
    (1, Deed::Calm),
];

/// Runs one seed; the world says what was found.
pub async fn run(seed: u64, instances: Option<usize>, beyond: bool, metrics: &PrometheusHandle) -> World {
    let mut dice = Dice::new(seed);
    let profile = Profile::draw(seed, instances, beyond, &mut dice);
    let operations = profile.operations;
    let mut world = World::start(profile, dice, metrics).await;
    world.say(format!("{:?}", world.profile));
    world.new_permission();
    world.want().await;
    for _ in 0..operations {
        let stopwatch = amazon_pay_ipn::clock::Stopwatch::start();
        world.one(metrics).await;
        if stopwatch.elapsed() > Duration::from_millis(200) {
            world.say(format!("SLOW {:?}", stopwatch.elapsed()));
        }
        world.collect();
        world.glance();
        if !world.violations.is_empty() {
            return world;
        }
    }
    world.settle().await;
    world.audit(true).await;
    world
}

impl World {
    async fn one(&mut self, metrics: &PrometheusHandle) {
        let deed = self.dice.weighted(DEEDS);
        match deed {
            Deed::Want => self.want().await,
            Deed::Ask => self.ask().await,
            Deed::Happen => self.happen(),
            Deed::HappenToCharge => self.happen_to_charge(),
            Deed::Work => {
                self.say("work");
                self.work().await;
            }
            Deed::Step => {
                let at = self.any();
                self.say("step");
                self.step(at).await;
            }
            Deed::Race => {
                self.make_due().await;
                self.say("race");
                self.race().await;
            }
            Deed::HoldAtGate | Deed::HoldCreate => self.hold(matches!(deed, Deed::HoldCreate)).await,
            Deed::Suspend => {
                let polls = self.dice.between(1, POLLS);
                self.make_due().await;
                self.say("suspend");
                self.suspend(u32::try_from(polls).unwrap_or(1)).await;
            }
            Deed::LetGo => {
                if !self.held.is_empty() {
                    let nth = self.dice.below(self.held.len());
                    self.let_go(nth).await;
                }
            }
            Deed::KillWorker => {
                if !self.held.is_empty() {
                    let nth = self.dice.below(self.held.len());
                    self.kill_worker(nth).await;
                }
            }
            Deed::Arrive => self.arrive(1).await,
            Deed::PassSeconds => self.pass_some(1, 120).await,
            Deed::PassLease => self.pass_some(170, 400).await,
            Deed::PassX => self.pass_some(1500, 2100).await,
            Deed::PassHours => self.pass_some(3600, 6 * 3600).await,
            Deed::PassDays => {
                let days = self.dice.weighted(&[(4, 1), (2, 3), (1, 7), (1, 14)]);
                self.say(format!("{days} days pass"));
                self.pass(days * DAY).await;
            }
            Deed::Deliver => self.deliver_some().await,
            Deed::LoseLetters => self.drop_letters(),
            Deed::Outage => {
                self.outage = !self.outage;
                self.say(format!("SNS loses everything: {}", self.outage));
            }
            Deed::Forge => self.forge().await,
            Deed::Fault => self.fault(),
            Deed::AccountFault => self.account_fault(),
            Deed::Throttle => self.throttle(),
            Deed::Skew => self.skew().await,
            Deed::StopSwitch if self.stopped => self.lift_stop().await,
            Deed::StopSwitch => self.throw_stop().await,
            Deed::Redis => self.redis_crashes(metrics).await,
            Deed::Process => self.process_ends(metrics).await,
            Deed::Calm => self.calm().await,
        }
    }

    async fn pass_some(&mut self, from: u64, to: u64) {
        let time = self.dice.seconds(from, to);
        self.say(format!("{} pass", humantime::format_duration(time)));
        self.pass(time).await;
    }

    async fn hold(&mut self, create: bool) {
        let drawn = self.dice.weighted(&[
            (5, Operation::GetChargePermission),
            (2, Operation::GetCharge),
            (3, Operation::CaptureCharge),
            (1, Operation::CancelCharge),
            (1, Operation::CloseChargePermission),
        ]);
        let operation = if create { Operation::CreateCharge } else { drawn };
        let place = self.dice.weighted(&[(4, Place::Before), (3, Place::Inside), (4, Place::After)]);
        if create || self.dice.percent(50) {
            self.make_due().await;
        }
        self.say(format!("hold a worker at {operation}"));
        self.hold_at_gate(operation, place).await;
    }

    async fn deliver_some(&mut self) {
        let count = self.dice.weighted(&[(2, 1), (2, 3), (3, usize::MAX)]);
        let copies = self.dice.weighted(&[(6, 1), (2, 2), (1, 3)]);
        self.say("deliver");
        self.deliver(count, copies).await;
    }
}

/// Long enough for a run that hangs to be seen as one.
pub const PATIENCE: Duration = Duration::from_secs(120);
