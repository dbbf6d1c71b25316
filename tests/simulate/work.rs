//! How workers move: step by step, until nothing is due, to a gate, or until they are stopped; and how time passes.

use std::time::Duration;

use amazon_pay_ipn::reconciler::StepOutcome;
use amazon_pay_ipn::sandbox::{Fault, Gate, Operation, Sandbox};
use amazon_pay_ipn::store::StoreError;
use tokio::task::JoinError;

use crate::hold::{Brake, Held, Place, Stop};
use crate::world::{DAY, World};

/// Steps after which the service is surely in a loop.
const MAX_STEPS: usize = 400;
/// Slower than this Amazon is never, by assumption.
const AMAZON_IS_SLOW: Duration = Duration::from_secs(25);

/// Minutes in which those who wait for quota get their turn at the end: each brings as many calls as a bucket holds.
const TURNS: usize = 60;

impl World {
    fn outcome(
        &mut self,
        at: usize,
        result: Result<Result<StepOutcome, StoreError>, JoinError>,
    ) -> Option<StepOutcome> {
        match result {
            Ok(Ok(outcome)) => {
                if outcome != StepOutcome::Idle {
                    self.say(format!("  instance {at}: {outcome:?}"));
                }
                Some(outcome)
            }
            Ok(Err(error)) => {
                self.say(format!("  instance {at}: {error}"));
                let instance = &mut self.instances[at];
                if self.redis_is_up {
                    if instance.excused == 0 {
                        self.violations.push(format!("a step failed: {error}"));
                    }
                    instance.excused = instance.excused.saturating_sub(1);
                }
                None
            }
            Err(error) => {
                self.violations.push(format!("a step panicked: {error}"));
                None
            }
        }
    }

    /// One step of one instance, to its end.
    pub async fn step(&mut self, at: usize) -> Option<StepOutcome> {
        let result = self.instances[at].reconciler.step().await;
        self.outcome(at, Ok(result))
    }

    /// Steps of all instances in an order of the seed, until nothing is due for any of them.
    pub async fn work(&mut self) {
        if !self.redis_is_up {
            let at = self.any();
            self.step(at).await;
            return;
        }
        let mut idle = 0;
        for _ in 0..MAX_STEPS {
            let at = self.any();
            match self.step(at).await {
                Some(StepOutcome::Idle) => idle += 1,
                _ => idle = 0,
            }
            if idle > self.instances.len() {
                return;
            }
        }
        self.violations.push(format!("still due after {MAX_STEPS} steps"));
    }

    /// All instances step at the same moment.
    pub async fn race(&mut self) {
        let tasks: Vec<_> = (0..self.instances.len().max(2))
            .map(|nth| {
                let at = nth % self.instances.len();
                let reconciler = self.instances[at].reconciler.clone();
                (at, tokio::spawn(async move { reconciler.step().await }))
            })
            .collect();
        for (at, task) in tasks {
            let result = task.await;
            self.outcome(at, result);
        }
    }

    /// A worker steps until one of its requests stands at a gate.
    pub async fn hold_at_gate(&mut self, operation: Operation, place: Place) -> bool {
        let (at, gate) = (self.any(), Gate::new());
        let fault = match place {
            Place::Before => Fault::HoldBefore(gate.clone()),
            Place::Inside => Fault::HoldInside(gate.clone()),
            Place::After => Fault::HoldAfter(gate.clone()),
        };
        self.sandbox.inject(operation, fault);
        for _ in 0..4 {
            let reconciler = self.instances[at].reconciler.clone();
            let mut task = tokio::spawn(async move { reconciler.step().await });
            tokio::select! {
                result = &mut task => {
                    if matches!(self.outcome(at, result), None | Some(StepOutcome::Idle)) {
                        break;
                    }
                }
                () = gate.reached() => {
                    self.say(format!("  instance {at} stands: {operation} {place:?}"));
                    self.count(&format!("held {place:?} {operation}"));
                    self.deeds.interrupted = true;
                    self.held.push(Held { task, stop: Stop::Gate(gate, place), instance: at });
                    return true;
                }
            }
        }
        gate.release();
        false
    }

    /// A worker is not polled any more after a number of polls.
    pub async fn suspend(&mut self, polls: u32) -> bool {
        let (at, brake) = (self.any(), Brake::after(polls));
        let reconciler = self.instances[at].reconciler.clone();
        let mut task = tokio::spawn(brake.hold(async move { reconciler.step().await }));
        tokio::select! {
            result = &mut task => {
                self.outcome(at, result);
                false
            }
            () = brake.reached() => {
                self.say(format!("  instance {at} is suspended after {polls} polls"));
                self.count("worker suspended");
                self.deeds.interrupted = true;
                self.held.push(Held { task, stop: Stop::Brake(brake), instance: at });
                true
            }
        }
    }

    /// A worker has its look at the permission, and stands somewhere between that and the end of its send.
    pub async fn stand_before_the_mark(&mut self, polls: u32) -> bool {
        let (at, gate, brake) = (self.any(), Gate::new(), Brake::after(u32::MAX));
        self.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
        let reconciler = self.instances[at].reconciler.clone();
        let mut task = tokio::spawn(brake.hold(async move { reconciler.step().await }));
        let early = tokio::select! {
            result = &mut task => Some(result),
            () = gate.reached() => None,
        };
        brake.stop_after(polls);
        gate.release();
        let ended = if early.is_some() {
            early
        } else {
            tokio::select! {
                result = &mut task => Some(result),
                () = brake.reached() => None,
            }
        };
        if let Some(result) = ended {
            self.outcome(at, result);
            return false;
        }
        self.say(format!("  instance {at} has looked, and stands {polls} polls later"));
        self.count("worker suspended between its look and its answer");
        self.deeds.interrupted = true;
        self.held.push(Held { task, stop: Stop::Brake(brake), instance: at });
        true
    }

    /// A worker that stands goes on to the end of its step.
    pub async fn let_go(&mut self, nth: usize) {
        let held = self.held.remove(nth);
        let asked =
            |sandbox: &Sandbox| sandbox.ledger().requests.iter().map(|request| request.received).max().unwrap_or(0);
        let before = asked(&self.sandbox);
        held.release();
        let at = held.instance;
        self.say(format!("  instance {at} goes on"));
        let result = held.task.await;
        self.deeds.woken.push(before + 1..=asked(&self.sandbox));
        self.outcome(at, result);
    }

    /// A worker that stands dies there. What it sent may still arrive.
    pub async fn kill_worker(&mut self, nth: usize) {
        let held = self.held.remove(nth);
        held.task.abort();
        let _ = held.task.await;
        self.say(format!("  a worker of instance {} dies where it stands", held.instance));
        self.count("worker died");
        if let Stop::Gate(gate, place) = held.stop {
            if place == Place::Inside && !self.profile.beyond {
                self.inside.push(gate);
            } else {
                self.late.push(gate);
            }
        }
    }

    /// Requests that were on their way arrive; their clients have gone.
    pub async fn arrive(&mut self, at_most: usize) {
        for _ in 0..at_most.min(self.late.len()) {
            let nth = self.dice.below(self.late.len());
            self.late.swap_remove(nth).release();
            self.say("  a request arrives late");
            self.count("request arrived late");
        }
        self.others_move().await;
    }

    /// Lets the tasks of the sandbox run.
    async fn others_move(&self) {
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
    }

    /// Time passes. What Amazon is working on is done before, or it would be slower than we assume.
    pub async fn pass(&mut self, time: Duration) {
        if time > AMAZON_IS_SLOW && !self.profile.beyond {
            while let Some(nth) = self.held.iter().position(Held::is_inside_amazon) {
                self.let_go(nth).await;
            }
            for gate in self.inside.drain(..) {
                gate.release();
            }
            self.others_move().await;
        }
        self.advance(time);
    }

    /// Everything that is broken is mended. What stands goes on; what is on its way arrives.
    pub async fn heal(&mut self) {
        self.say("everything is mended");
        if !self.redis_is_up {
            self.start_redis();
        }
        self.sandbox.clear_faults();
        self.sandbox.set_throttle(None);
        while !self.held.is_empty() {
            self.let_go(0).await;
        }
        self.late.append(&mut self.inside);
        self.arrive(usize::MAX).await;
        self.mend_clocks();
        self.outage = false;
        if self.stopped {
            self.lift_stop().await;
        }
        // What is submitted again is accepted now.
        self.submit_again().await;
        self.collect();
        self.deliver(usize::MAX, 1).await;
        self.work().await;
        // The account's fault ends with its next probe.
        self.pass(Duration::from_mins(16)).await;
        self.work().await;
    }

    /// A calm stretch: nothing new breaks, no notification comes. Everything that changed before it is seen in it, where there is open
    /// work.
    pub async fn calm(&mut self) {
        self.heal().await;
        let before = self.open_permissions().await;
        let begin = self.amazon.now().as_millisecond();
        for _ in 0..5 {
            self.pass(Duration::from_hours(6)).await;
            self.work().await;
        }
        let after = self.open_permissions().await;
        for permission in before.iter().filter(|id| after.contains(id)) {
            let Some(changed) = self.deeds.changes.get(permission).copied().filter(|at| *at < begin) else { continue };
            if !self.was_looked_at(permission, changed - 1) {
                self.violations
                    .push(format!("{permission} changed, has open work, and was not looked at within 30 h of calm"));
            }
        }
        self.count("calm stretch");
    }

    /// The end: nothing breaks any more, time passes, and everything must settle.
    pub async fn settle(&mut self) {
        self.calm().await;
        for id in std::mem::take(&mut self.paused) {
            self.resume(&id).await;
        }
        let buyers_help = self.dice.percent(60);
        let mut passed = Duration::from_hours(30);
        let steps = [Duration::from_mins(40), Duration::from_hours(3), DAY, 3 * DAY];
        for nth in 0..80 {
            if buyers_help && nth == 4 {
                self.all_update_cards();
            }
            if !self.profile.beyond {
                self.decide_all_pending(nth);
            }
            self.collect();
            self.deliver(usize::MAX, 1).await;
            self.work().await;
            if self.all_ended().await {
                self.collect();
                self.deliver(usize::MAX, 1).await;
                self.work().await;
                for _ in 0..TURNS {
                    if !self.somebody_waits().await {
                        break;
                    }
                    self.pass(Duration::from_mins(1)).await;
                    self.work().await;
                }
                break;
            }
            let step = steps.get(nth).copied().unwrap_or(3 * DAY);
            self.pass(step).await;
            passed += step;
            self.work().await;
        }
        self.say(format!("settled after {} days", passed.as_secs() / 86_400));
    }
}
