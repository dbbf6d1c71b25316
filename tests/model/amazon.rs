//! Amazon Pay in its three readings: what it does with a request under a used key is documented for a success only.

use super::rules::Rules;
use super::state::{Copied, Left, SLOTS};
use super::values::ChargeRef;

/// Numbers of an intent that are told apart; beyond them a state is out of bounds.
pub const NUMBERS: usize = 4;
/// Charge objects under one key at most.
pub const GENERATIONS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reading {
    /// Every answer is replayed.
    ReplaysAll,
    /// Only a success is replayed; a decline is evaluated anew.
    Reevaluates,
    /// As the one before, and the state of the permission is looked at before the key.
    StatusFirst,
}

/// The state of a charge object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChargeCode {
    None,
    AuthorizationInitiated,
    CaptureInitiated,
    Captured,
    Declined,
}

impl ChargeCode {
    /// Money is taken or being taken.
    pub fn is_success(self) -> bool {
        matches!(self, Self::CaptureInitiated | Self::Captured)
    }

    pub fn is_pending(self) -> bool {
        matches!(self, Self::AuthorizationInitiated | Self::CaptureInitiated)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeclineCode {
    Soft,
    Hard,
    Failure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PermissionCode {
    Chargeable,
    /// `PaymentMethodDeleted` or `PaymentMethodInvalid`.
    NonChargeable,
    Closed,
}

/// What Amazon knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The decline that it would replay.
    pub declined: Option<DeclineCode>,
    pub charges: [ChargeCode; GENERATIONS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Amazon {
    pub permission: PermissionCode,
    /// The instrument: 1, 2 ...
    pub card: u8,
    pub keys: [[Key; NUMBERS]; SLOTS],
}

/// What comes back from Create Charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    Charge(ChargeRef, ChargeCode),
    Declined(DeclineCode),
    /// `InvalidChargePermissionStatus`.
    PermissionStatus,
    /// 503.
    Unavailable,
    /// Nothing within the time-out.
    Nothing,
}

/// What one arrival of a request may come to.
pub type Outcome = (&'static str, Amazon, Left, Answer);

impl Amazon {
    pub const NEW: Self = Self {
        permission: PermissionCode::Chargeable,
        card: 1,
        keys: [[Key { declined: None, charges: [ChargeCode::None; GENERATIONS] }; NUMBERS]; SLOTS],
    };

    pub fn charge(&self, charge: ChargeRef) -> ChargeCode {
        self.keys[charge.slot as usize][charge.number as usize].charges[charge.generation as usize]
    }

    pub fn set(&mut self, charge: ChargeRef, code: ChargeCode) {
        self.keys[charge.slot as usize][charge.number as usize].charges[charge.generation as usize] = code;
    }

    /// Every charge object.
    pub fn charges(&self) -> Vec<(ChargeRef, ChargeCode)> {
        const UNUSED: [ChargeCode; GENERATIONS] = [ChargeCode::None; GENERATIONS];
        let mut charges = Vec::new();
        for slot in 0..SLOTS {
            for number in 0..NUMBERS {
                let codes = self.keys[slot][number].charges;
                if codes == UNUSED {
                    continue;
                }
                for (generation, code) in codes.into_iter().enumerate().filter(|(_, code)| *code != ChargeCode::None) {
                    let charge = ChargeRef { slot: slot as u8, number: number as u8, generation: generation as u8 };
                    charges.push((charge, code));
                }
            }
        }
        charges
    }

    /// Successes of an intent.
    pub fn successes(&self, slot: usize) -> usize {
        self.charges().iter().filter(|(charge, code)| charge.slot as usize == slot && code.is_success()).count()
    }

    pub fn is_busy(&self) -> bool {
        self.charges().iter().any(|(_, code)| code.is_pending())
    }

    /// A request arrives: all that Amazon may make of it.
    pub fn receive(&self, request: Copied, reading: Reading, rules: &Rules, left: Left, kinds: &Kinds) -> Vec<Outcome> {
        if request.age > 0 && rules.old_dates_are_refused {
            // For the worker, if one still listens, as good as no answer.
            return vec![("too old", *self, left, Answer::Nothing)];
        }
        let refused = ("InvalidChargePermissionStatus", *self, left, Answer::PermissionStatus);
        if reading == Reading::StatusFirst && self.permission != PermissionCode::Chargeable {
            return vec![refused];
        }
        let key = self.keys[request.slot as usize][request.number as usize];
        let at =
            |generation: usize| ChargeRef { slot: request.slot, number: request.number, generation: generation as u8 };
        let live = (0..GENERATIONS).rev().find(|i| key.charges[*i].is_pending() || key.charges[*i].is_success());
        if let Some(generation) = live {
            return vec![("replays the charge", *self, left, Answer::Charge(at(generation), key.charges[generation]))];
        }
        let last = (0..GENERATIONS).rev().find(|i| key.charges[*i] != ChargeCode::None);
        if reading == Reading::ReplaysAll {
            if let Some(decline) = key.declined {
                return vec![("replays the decline", *self, left, Answer::Declined(decline))];
            }
            if let Some(generation) = last {
                let answer = Answer::Charge(at(generation), key.charges[generation]);
                return vec![("replays the charge", *self, left, answer)];
            }
        }
        if self.permission != PermissionCode::Chargeable {
            return vec![refused];
        }
        self.evaluate(request, last.map_or(0, |last| last + 1), left, kinds)
    }

    fn evaluate(&self, request: Copied, generation: usize, left: Left, kinds: &Kinds) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let charge = ChargeRef { slot: request.slot, number: request.number, generation: generation as u8 };
        if generation >= GENERATIONS {
            // More objects under one key than are told apart.
            return vec![("503, and nothing happens", *self, left, Answer::Unavailable)];
        }
        let mut charges = |what, code: ChargeCode, left: Left| {
            let mut amazon = *self;
            amazon.set(charge, code);
            outcomes.push((what, amazon, left, Answer::Charge(charge, code)));
        };
        charges("captures", ChargeCode::Captured, left);
        if left.pendings > 0 {
            let less = Left { pendings: left.pendings - 1, ..left };
            charges("authorises later", ChargeCode::AuthorizationInitiated, less);
            charges("captures later", ChargeCode::CaptureInitiated, less);
        }
        if left.declines > 0 {
            let left = Left { declines: left.declines - 1, ..left };
            for (what, code, breaks) in [
                ("SoftDeclined", DeclineCode::Soft, false),
                ("HardDeclined", DeclineCode::Hard, false),
                ("HardDeclined, and the permission turns NonChargeable", DeclineCode::Hard, true),
                ("ProcessingFailure", DeclineCode::Failure, false),
            ] {
                if (code == DeclineCode::Hard && !kinds.hard) || (code == DeclineCode::Failure && !kinds.failure) {
                    continue;
                }
                let mut amazon = *self;
                amazon.keys[request.slot as usize][request.number as usize].declined = Some(code);
                if kinds.declined_objects && generation + 1 < GENERATIONS {
                    amazon.set(charge, ChargeCode::Declined);
                }
                if breaks {
                    amazon.permission = PermissionCode::NonChargeable;
                }
                outcomes.push((what, amazon, left, Answer::Declined(code)));
            }
        }
        if left.errors > 0 {
            let left = Left { errors: left.errors - 1, ..left };
            outcomes.push(("503, and nothing happens", *self, left, Answer::Unavailable));
        }
        outcomes
    }
}

/// Which kinds of declines a scenario has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds {
    /// A decline leaves a charge object in state Declined.
    pub declined_objects: bool,
    /// `HardDeclined`.
    pub hard: bool,
    /// `ProcessingFailure`.
    pub failure: bool,
}
