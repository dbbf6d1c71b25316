//! What goes wrong: the network, Amazon, SNS, Redis, our processes, the clocks.

use std::time::Duration;

use amazon_pay_ipn::sandbox::{
    Fault, Forgery, Gate, NotificationType, ObjectType, Operation, SignatureVersion, Throttle,
};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::world::{DAY, Letter, World};

/// Notifications.
impl World {
    /// What Amazon has published since, signed; or lost, while SNS does not deliver.
    pub fn collect(&mut self) {
        for ipn in self.sandbox.notifications() {
            if self.outage {
                self.count("notification lost");
                continue;
            }
            let version = if self.dice.percent(70) { SignatureVersion::V1 } else { SignatureVersion::V2 };
            // Amazon may publish the same thing twice: two messages, two ids.
            for _ in 0..if self.dice.percent(10) { 2 } else { 1 } {
                self.letters.push(Letter { message: self.sandbox.sign(&ipn, version), ipn: ipn.clone() });
            }
        }
    }

    /// Posts some of the letters, each so many times, in an order of the seed.
    pub async fn deliver(&mut self, at_most: usize, copies: usize) {
        self.dice.shuffle(&mut self.letters);
        let count = at_most.min(self.letters.len());
        let letters: Vec<Letter> = self.letters.drain(..count).collect();
        for letter in letters {
            let (mut status, at) = (0, self.any());
            let url = format!("{}/ipn", self.instances[at].public);
            for _ in 0..copies {
                status = match self.sandbox.deliver(&url, &letter.message).await {
                    Ok(status) => status,
                    Err(error) => {
                        self.violations.push(format!("a notification was not answered: {error}"));
                        0
                    }
                };
                self.note_delivery(at, &letter, status);
            }
            self.say(format!("  {} to instance {at}, {copies} times: {status}", letter.ipn));
            if status == 503 {
                self.letters.push(letter);
            }
        }
        if copies > 1 {
            self.count("notification repeated");
        }
    }

    fn note_delivery(&mut self, at: usize, letter: &Letter, status: u16) {
        let id = letter.message.message_id.clone();
        self.deeds.posted.insert(id.clone());
        let published = letter.ipn.at.as_millisecond();
        let age = self.clock.now().as_millisecond() - published;
        let too_old = age > 15 * i64::try_from(DAY.as_millis()).unwrap_or(i64::MAX);
        let from_the_future = age < -290_000;
        match status {
            200 => {
                self.deeds.accepted.insert(id, (letter.ipn.object_id.clone(), published));
            }
            503 if !self.redis_is_up || from_the_future || self.profile.hints.is_some() => {}
            503 if self.instances[at].excused > 0 => self.instances[at].excused -= 1,
            403 if too_old => {}
            status => {
                let ipn = &letter.ipn;
                self.violations.push(format!("the genuine {ipn}, {age} ms old, was answered {status}"));
            }
        }
    }

    pub fn drop_letters(&mut self) {
        let before = self.letters.len();
        let percent = self.dice.between(30, 100);
        let dice = &mut self.dice;
        self.letters.retain(|_| !dice.percent(percent));
        let lost = before - self.letters.len();
        for _ in 0..lost {
            self.count("notification lost");
        }
        self.say(format!("{lost} notifications are lost"));
    }

    /// A forged message: refused, and without any effect.
    pub async fn forge(&mut self) {
        let forgery = *self.dice.pick(&[
            Forgery::OtherKey,
            Forgery::UntrustedCertificate,
            Forgery::ForeignTopic,
            Forgery::ForeignMerchant,
            Forgery::Altered,
        ]);
        // Nobody else names this permission.
        let permission = format!("C01-9999999-{:07}", self.deeds.forged_objects.len());
        let ipn =
            self.sandbox.ipn((ObjectType::ChargePermission, &permission), &permission, NotificationType::StateChange);
        let message = self.sandbox.forge(&ipn, forgery).expect("a forgery");
        self.deeds.forged_objects.insert(permission);
        let is_stranger = forgery == Forgery::ForeignMerchant;
        let at = self.any();
        let url = format!("{}/ipn", self.instances[at].public);
        let status = self.sandbox.deliver(&url, &message).await.unwrap_or_default();
        self.say(format!("a message forged as {forgery:?}: {status}"));
        self.count("forged notification");
        let excused = self.instances[at].excused > 0 || !self.redis_is_up || self.skew_s > 0;
        match (status, is_stranger) {
            (200, true) => {
                self.deeds.strangers.insert(message.message_id);
            }
            (403, false) => {
                self.deeds.forged.insert(message.message_id);
            }
            // A message from the future is put off before anything else is looked at.
            (503, _) if excused => {}
            (status, _) => self.violations.push(format!("a message forged as {forgery:?} was answered {status}")),
        }
    }
}

/// The network and Amazon.
impl World {
    /// The next calls of an operation meet a fault.
    pub fn fault(&mut self) {
        let operation = self.dice.weighted(&[
            (10, Operation::CreateCharge),
            (6, Operation::GetChargePermission),
            (3, Operation::GetCharge),
            (3, Operation::CaptureCharge),
            (1, Operation::CancelCharge),
            (1, Operation::CloseChargePermission),
            (1, Operation::GetRefund),
        ]);
        let writes = matches!(operation, Operation::CreateCharge | Operation::CaptureCharge);
        for _ in 0..self.dice.weighted(&[(5, 1), (2, 2), (1, 4)]) {
            let status = *self.dice.pick(&[500, 502, 503, 504]);
            let (name, fault) = match self.dice.below(if writes { 12 } else { 8 }) {
                0 => ("connection reset before Amazon saw it", Fault::DropBefore),
                1..=2 => ("answer lost after Amazon did it", Fault::DropAfter),
                3 => ("5xx, not done", Fault::status(status, "ServiceUnavailable")),
                4 => ("5xx, done", Fault::StatusAfter(status, "InternalServerError".to_owned())),
                5 => ("429", Fault::status(429, "TooManyRequests")),
                6 => ("unreadable answer", Fault::Garbled),
                7 => ("404", Fault::status(404, "ResourceNotFound")),
                8 => ("5xx, done, and kept under the key", Fault::StatusKept(500, "InternalServerError".to_owned())),
                9 => ("4xx that means nothing", Fault::status(400, "InvalidParameterValue")),
                _ => {
                    let gate = Gate::new();
                    self.late.push(gate.clone());
                    ("given up, still on its way", Fault::Late(gate))
                }
            };
            self.say(format!("the next {operation}: {name}"));
            self.count(name);
            self.sandbox.inject(operation, fault);
        }
    }

    pub fn account_fault(&mut self) {
        let (status, code) = *self.dice.pick(&[(401, "UnauthorizedAccess"), (403, "InvalidAccountStatus")]);
        for _ in 0..self.dice.between(1, 3) {
            for operation in [Operation::GetChargePermission, Operation::CreateCharge] {
                self.sandbox.inject(operation, Fault::status(status, code));
            }
        }
        self.say(format!("the account is refused: {status} {code}"));
        self.count("account refused");
    }

    pub fn throttle(&mut self) {
        let throttle = *self.dice.pick(&[None, Some(Throttle::sandbox()), Some(Throttle::live().with_retry_after())]);
        self.say(format!("Amazon throttles: {throttle:?}"));
        if throttle.is_some() {
            self.count("throttled by Amazon");
        }
        self.sandbox.set_throttle(throttle);
    }

    /// Amazon's clock and ours come apart: by more than is allowed, and by less than X and the tolerance bear.
    pub async fn skew(&mut self) {
        if self.skew_s != 0 {
            return self.mend_clocks();
        }
        let most = (28_u64 * 60).saturating_sub(self.profile.tolerance.as_secs()).min(20 * 60);
        let by = self.dice.seconds(310, most.max(400));
        self.deeds.skewed = true;
        self.count("clock skew");
        let seconds = i64::try_from(by.as_secs()).unwrap_or_default();
        // A clock that jumps is time that passes, for what Amazon is working on.
        self.pass(Duration::from_secs(26)).await;
        if self.dice.percent(50) {
            self.amazon.advance(by);
            self.skew_s = seconds;
        } else {
            self.clock.advance(by);
            self.skew_s = -seconds;
        }
        self.say(format!("Amazon's clock is {} s ahead of ours", self.skew_s));
    }

    pub fn mend_clocks(&mut self) {
        let by = Duration::from_secs(self.skew_s.unsigned_abs());
        if self.skew_s > 0 {
            self.clock.advance(by);
        } else {
            self.amazon.advance(by);
        }
        self.skew_s = 0;
    }
}

/// Processes.
impl World {
    pub async fn redis_crashes(&mut self, metrics: &PrometheusHandle) {
        self.say("Redis is killed");
        self.count("Redis killed");
        self.kill_redis();
        // What happens meanwhile.
        for _ in 0..self.dice.below(3) {
            match self.dice.below(4) {
                0 => self.deliver(2, 1).await,
                1 => self.work().await,
                2 => self.want().await,
                _ => {
                    let time = self.dice.seconds(1, 900);
                    self.pass(time).await;
                }
            }
        }
        self.start_redis();
        self.say("Redis is back");
        if self.dice.percent(30) {
            let at = self.any();
            self.restart(at, false, metrics).await;
        }
    }

    pub async fn process_ends(&mut self, metrics: &PrometheusHandle) {
        let (at, gracefully) = (self.any(), self.dice.percent(40));
        self.say(format!("instance {at} {}", if gracefully { "is stopped" } else { "crashes" }));
        self.count(if gracefully { "process stopped" } else { "process crashed" });
        self.restart(at, gracefully, metrics).await;
    }
}
