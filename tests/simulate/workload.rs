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
    Critical,
    Between,
    Overtake,
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

impl Deed {
    /// Whether calls may be made long after their tokens were taken.
    fn disturbs_the_count(self) -> bool {
        matches!(
            self,
            Self::HoldAtGate
                | Self::HoldCreate
                | Self::Suspend
                | Self::Critical
                | Self::Between
                | Self::Overtake
                | Self::Skew
                | Self::Redis
                | Self::Process
        )
    }
}

const DEEDS: &[(u32, Deed)] = &[
    (6, Deed::Want),
    (8, Deed::Ask),
    (7, Deed::Happen),
    (4, Deed::HappenToCharge),
    (16, Deed::Work),
    (6, Deed::Step),
    (4, Deed::Race),
    (7, Deed::HoldAtGate),
    (5, Deed::HoldCreate),
    (6, Deed::Suspend),
    (35, Deed::Critical),
    (25, Deed::Between),
    (5, Deed::Overtake),
    (10, Deed::LetGo),
    (5, Deed::KillWorker),
    (6, Deed::Arrive),
    (6, Deed::PassSeconds),
    (8, Deed::PassLease),
    (10, Deed::PassX),
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
        if stopwatch.elapsed() > Duration::from_secs(1) {
            world.say(format!("  that took {:?}", stopwatch.elapsed()));
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
        if self.profile.steady && deed.disturbs_the_count() {
            return self.burst().await;
        }
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
            Deed::Critical => self.critical(metrics).await,
            Deed::Between => self.between().await,
            Deed::Overtake => self.overtake().await,
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
            // Beyond the assumptions a second charge is found by its notification, or not at all.
            Deed::LoseLetters | Deed::Outage if self.profile.beyond => {}
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

    /// A worker stands where it hurts, and the world goes on.
    async fn critical(&mut self, metrics: &PrometheusHandle) {
        self.make_due().await;
        if self.dice.percent(40) {
            self.make_due().await;
        }
        // So that there is more to decide than to send.
        if self.dice.percent(25) {
            self.break_the_newest();
        }
        let stands = if self.dice.percent(60) {
            let polls = self.dice.between(1, 14);
            self.say("stop a worker before its mark");
            self.stand_before_the_mark(u32::try_from(polls).unwrap_or(1)).await
        } else {
            let place = self.dice.weighted(&[(4, Place::Before), (2, Place::Inside), (4, Place::After)]);
            self.say("hold a worker at its send");
            self.hold_at_gate(Operation::CreateCharge, place).await
        };
        if !stands {
            return;
        }
        // The look before it was the newest request.
        let at_hand = self.at_hand();
        for _ in 0..self.dice.weighted(&[(3, 1), (3, 2), (1, 3)]) {
            match (self.dice.below(12), &at_hand) {
                (0..=4, Some(permission)) => self.ask_about_one_of(permission).await,
                _ => self.go_on(metrics).await,
            }
            self.glance();
        }
        let last = self.held.len().saturating_sub(1);
        match self.dice.below(10) {
            0..=5 if !self.held.is_empty() => self.let_go(last).await,
            6..=7 if !self.held.is_empty() => self.kill_worker(last).await,
            _ => {}
        }
    }

    /// A worker has decided; before it can act on that somebody wants something else of this very charge.
    async fn between(&mut self) {
        self.make_due().await;
        if self.dice.percent(30) {
            self.break_the_newest();
        }
        let polls = self.dice.between(1, 10);
        self.say("stop a worker between its decision and its deed");
        if !self.stand_before_the_mark(u32::try_from(polls).unwrap_or(1)).await {
            return;
        }
        if let Some(permission) = self.at_hand() {
            self.ask_about_one_of(&permission).await;
        }
        let last = self.held.len() - 1;
        self.let_go(last).await;
        self.glance();
    }

    /// Nothing is broken. A worker has seen what a notification told; the next change, and its notification, come before its commit.
    async fn overtake(&mut self) {
        self.heal().await;
        self.happen();
        self.collect();
        self.deliver(usize::MAX, 1).await;
        self.say("hold a worker after its look");
        if !self.hold_at_gate(Operation::GetChargePermission, Place::After).await {
            return;
        }
        let at_hand = self.at_hand();
        let begin = self.amazon.now().as_millisecond();
        let heard = match &at_hand {
            Some(permission) => self.happen_and_tell(permission).await,
            None => false,
        };
        let last = self.held.len() - 1;
        self.let_go(last).await;
        self.work().await;
        // Quota comes back.
        self.pass_some(600, 1000).await;
        self.work().await;
        if let Some(permission) = at_hand.filter(|_| heard)
            && !self.was_looked_at(&permission, begin)
        {
            self.violations
                .push(format!("{permission} changed while a worker was at it, was notified, and not looked at again"));
        }
    }

    /// The permission of the newest request.
    fn at_hand(&self) -> Option<String> {
        self.sandbox.ledger().requests.last()?.permission.clone()
    }

    /// Scarce quota, and all at once.
    async fn burst(&mut self) {
        // Each takes as long as a whole run of others.
        if self.counts.get("burst").copied().unwrap_or_default() >= 2 {
            return self.work().await;
        }
        self.say("everybody at once");
        self.count("burst");
        while self.permissions.len() < 14 {
            self.new_permission();
        }
        self.all_update_cards();
        self.collect();
        self.deliver(usize::MAX, 1).await;
        self.work().await;
    }

    /// What else may happen while a worker stands.
    async fn go_on(&mut self, metrics: &PrometheusHandle) {
        match self.dice.below(9) {
            0 if !self.stopped => self.throw_stop().await,
            1..=2 => {
                self.happen();
                self.collect();
                self.deliver(usize::MAX, 1).await;
            }
            3 => self.fault(),
            4 if self.dice.percent(30) => self.redis_crashes(metrics).await,
            _ => {
                self.pass_some(175, 240).await;
                self.say("work");
                self.work().await;
            }
        }
    }

    async fn deliver_some(&mut self) {
        let count = self.dice.weighted(&[(2, 1), (2, 3), (3, usize::MAX)]);
        let copies = self.dice.weighted(&[(6, 1), (2, 2), (1, 3)]);
        self.say("deliver");
        self.deliver(count, copies).await;
    }
}
