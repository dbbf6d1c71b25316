//! A random walk: the real rules against a toy of Amazon (all three readings of design section 3) and a toy of the store, on a virtual
//! clock, with lost answers, delayed copies, crashes, cancellations, closings and new cards. No intent is ever charged twice.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::charge_intent::NumberStatus;
use crate::model::closing::CloseWish;
use crate::model::ids::IntentId;
use crate::recovery::case::HintFate;
use crate::recovery::closing::{self, Tried};
use crate::recovery::draft::testing::{digest, intent};
use crate::recovery::due::due;
use crate::recovery::plan::plan;

/// Amazon refuses a request whose date is older than this; X is longer.
const TOLERANCE_MINUTES: u8 = 25;

/// The choices of one walk. When they are used up, everything goes well.
struct Tape {
    bytes: Vec<u8>,
    next: usize,
}

impl Tape {
    fn pick(&mut self, of: u8) -> u8 {
        let byte = self.bytes.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        byte % of
    }
}

/// What Amazon does with a key that it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    ReplaysAll,
    ReEvaluates,
    StatusFirst,
}

struct ToyAmazon {
    reading: Reading,
    declines: BTreeMap<(IntentId, u32), Verdict>,
    charges: Vec<ChargeView>,
    reason: Option<&'static str>,
    closed: bool,
    card: u8,
    /// Copies still on their way: when they arrive, and their key.
    under_way: Vec<(Timestamp, IntentId, u32)>,
}

impl ToyAmazon {
    fn look(&self) -> Look {
        let busy = self.charges.iter().any(|charge| charge.state == ChargeState::CaptureInitiated);
        let (state, reason) = match self.reason {
            _ if self.closed => (PermissionState::Closed, Some("BuyerCanceled")),
            Some(reason) => (PermissionState::NonChargeable, Some(reason)),
            None if busy => (PermissionState::NonChargeable, Some("ChargeInProgress")),
            None => (PermissionState::Chargeable, None),
        };
        let mut view = view(state, reason.as_slice());
        view.instrument = Some(digest(&format!("card {}", self.card)));
        Look::Seen(view)
    }

    fn is_chargeable(&self) -> bool {
        matches!(self.look(), Look::Seen(view) if view.state == PermissionState::Chargeable)
    }

    /// One copy of a request reaches Amazon.
    fn receive(&mut self, intent: &IntentId, number: u32, tape: &mut Tape) -> Verdict {
        let conflict = Verdict::Refused(Refusal::PermissionStatus);
        if self.reading == Reading::StatusFirst && !self.is_chargeable() {
            return conflict;
        }
        let key = (intent.clone(), number);
        let tag = Some(ChargeTag { intent: intent.clone(), number });
        let made = self.charges.iter().rev().find(|charge| charge.tag == tag);
        if let Some(charge) = made
            && (charge.state != ChargeState::Declined || self.reading == Reading::ReplaysAll)
        {
            return as_answer(charge.clone());
        }
        if self.reading == Reading::ReplaysAll
            && let Some(decline) = self.declines.get(&key)
        {
            return decline.clone();
        }
        if !self.is_chargeable() {
            return conflict;
        }
        let verdict = self.evaluate(tag, tape);
        if matches!(verdict, Verdict::Declined(_)) {
            self.declines.insert(key, verdict.clone());
        }
        verdict
    }

    fn evaluate(&mut self, tag: Option<ChargeTag>, tape: &mut Tape) -> Verdict {
        match tape.pick(9) {
            0 | 1 => self.charge(ChargeState::Captured, tag),
            2 | 3 => Verdict::Declined(Decline::SoftDeclined),
            4 => Verdict::Declined(Decline::HardDeclined),
            5 => {
                self.reason = Some("PaymentMethodInvalid");
                Verdict::Declined(Decline::HardDeclined)
            }
            6 => Verdict::Declined(Decline::ProcessingFailure),
            7 => self.charge(ChargeState::CaptureInitiated, tag),
            _ => silence(),
        }
    }

    fn charge(&mut self, state: ChargeState, tag: Option<ChargeTag>) -> Verdict {
        let id = format!("C01-0000000-0000001-C{:06}", self.charges.len() + 1);
        let view = ChargeView { tag, ..charge(&id, state, 0) };
        self.charges.push(view.clone());
        as_answer(view)
    }

    /// Get Charge. A running charge comes to its end sooner or later.
    fn get(&mut self, id: &crate::model::ids::ChargeId, tape: &mut Tape) -> ChargeLook {
        let Some(charge) = self.charges.iter_mut().find(|charge| charge.id == *id) else {
            return ChargeLook::Refused(404);
        };
        if charge.state == ChargeState::CaptureInitiated {
            match tape.pick(4) {
                0 | 1 => charge.state = ChargeState::Captured,
                2 => {
                    charge.state = ChargeState::Declined;
                    charge.reason = Some("SoftDeclined".to_owned());
                }
                _ => {}
            }
        }
        ChargeLook::Seen(charge.clone())
    }

    fn deliver(&mut self, now: Timestamp, tape: &mut Tape) {
        self.under_way.sort();
        while self.under_way.first().is_some_and(|(at, ..)| *at <= now) {
            let (_, intent, number) = self.under_way.remove(0);
            let _nobody_hears = self.receive(&intent, number, tape);
        }
    }
}

struct World {
    now: Timestamp,
    amazon: ToyAmazon,
    closed: bool,
    close: Option<CloseWish>,
    record: PermissionRecord,
    hints: Vec<Hint>,
    intents: Vec<ChargeIntent>,
    ends: BTreeMap<IntentId, Vec<&'static str>>,
    not_before: Timestamp,
}

impl World {
    fn new(reading: Reading) -> Self {
        let second = ChargeIntent { id: "renewal-2".parse().unwrap(), ..intent() };
        let amazon = ToyAmazon {
            reading,
            declines: BTreeMap::new(),
            charges: Vec::new(),
            reason: None,
            closed: false,
            card: 1,
            under_way: Vec::new(),
        };
        Self {
            now: start(),
            amazon,
            closed: false,
            close: None,
            record: PermissionRecord::default(),
            hints: Vec::new(),
            intents: vec![intent(), second],
            ends: BTreeMap::new(),
            not_before: Timestamp::MIN,
        }
    }

    /// When something is to be done next; `None` when all has ended.
    fn next_due(&self) -> Option<Timestamp> {
        let intents = self.intents.iter().filter_map(|intent| due(intent, &policy())).min();
        let hints = self.hints.iter().map(|hint| hint.note.not_before.unwrap_or(self.now)).min();
        let intents = intents.map(|at| at.max(self.not_before));
        let known = |wish: &CloseWish| self.record.closing.as_ref().is_some_and(|it| it.asked_at == wish.asked_at);
        let closing = match &self.close {
            Some(wish) if !known(wish) => Some(self.now),
            _ => closing::due(&self.record),
        };
        [intents, hints, closing].into_iter().flatten().min()
    }

    fn step(&mut self, tape: &mut Tape) -> bool {
        self.outside(tape);
        let Some(next) = self.next_due() else { return false };
        self.now = later(self.now.max(next), Duration::from_secs(1));
        self.amazon.deliver(self.now, tape);
        self.reconcile(tape);
        true
    }

    /// What the world does between two reconciliations.
    fn outside(&mut self, tape: &mut Tape) {
        match tape.pick(14) {
            7 if !self.closed && self.close.is_none() && tape.pick(2) == 0 => {
                let reason = "moved".to_owned();
                self.close = Some(CloseWish { asked_at: self.now, reason, cancel_pending: false });
            }
            8 => {
                self.amazon.card += 1;
                self.amazon.reason = None;
                self.hints.push(heard(self.now));
            }
            9 if tape.pick(3) == 0 => self.amazon.closed = true,
            10 if tape.pick(2) == 0 => self.cancel(usize::from(tape.pick(2))),
            11 | 12 if !self.amazon.charges.is_empty() => {
                let length = u8::try_from(self.amazon.charges.len()).unwrap();
                let id = self.amazon.charges[usize::from(tape.pick(length))].id.clone();
                self.hints.push(hint(ObjectType::Charge, id.as_str(), self.now));
            }
            13 => self.hints.push(heard(self.now)),
            _ => {}
        }
    }

    /// As `cancel_charge.lua`.
    fn cancel(&mut self, index: usize) {
        let (now, intent) = (self.now, &mut self.intents[index]);
        if intent.stage().is_terminal() {
            return;
        }
        if intent.number.status == NumberStatus::Fresh {
            intent.progress.stage = Stage::Canceled { at: now, outcome: Outcome::Verified };
            self.ends.entry(intent.id.clone()).or_default().push("canceled");
        } else {
            intent.cancel_requested_at.get_or_insert(now);
        }
        self.not_before = now;
    }

    /// As `mark_send.lua`: refuses, or records the send and whether it is tainted.
    fn mark(&mut self, wanted: &ChargeIntent, look: &Look) -> Option<crate::model::charge_intent::Number> {
        let (now, closed) = (self.now, self.closed);
        let stored = self.intents.iter_mut().find(|stored| stored.id == wanted.id)?;
        assert!(!stored.stage().is_terminal() && stored.number.value == wanted.number.value);
        if self.close.is_some() {
            assert!(
                stored.number.status != NumberStatus::Fresh,
                "a new number was wanted while a closing is wished for"
            );
            assert!(self.amazon.closed, "a number was asked about before the closing at Amazon");
            return None;
        }
        let number = &mut stored.number;
        if number.status == NumberStatus::Fresh {
            assert!(!closed && stored.cancel_requested_at.is_none(), "a new number was wanted where none may be");
            number.first_mark = Some(now);
            number.instrument = look.view().and_then(|view| view.instrument.clone());
        }
        number.tainted = number.last_mark.is_some_and(|last| now < later(last, X));
        number.sends += 1;
        number.last_mark = Some(now);
        number.status = NumberStatus::Unknown;
        Some(number.clone())
    }

    fn reconcile(&mut self, tape: &mut Tape) {
        let mut case = Case {
            close: self.close.clone(),
            look_asked: false,
            permission: "C01-0000000-0000001".parse().unwrap(),
            closed: self.closed,
            record: self.record.clone(),
            hints: self.hints.clone(),
            intents: self.intents.iter().filter(|intent| !intent.stage().is_terminal()).cloned().collect(),
        };
        let plan = plan(&case, self.now);
        let look = match (plan.permission, tape.pick(12)) {
            (false, _) => Look::NotAsked,
            (true, 11) => Look::Failed,
            (true, _) => self.amazon.look(),
        };
        let charges: Vec<_> = plan.charges.into_iter().map(|id| (id.clone(), self.amazon.get(&id, tape))).collect();
        let named = |intent: &ChargeIntent| {
            charges.iter().any(|(_, look)| {
                matches!(look, ChargeLook::Seen(view) if view.tag.as_ref().is_some_and(|tag| tag.intent == intent.id))
            })
        };
        case.intents.extend(self.intents.iter().filter(|one| one.stage().is_terminal() && named(one)).cloned());
        let findings = Findings { look: look.clone(), charges, may_act: true };
        let mut decision = decide(&case, &findings, self.now, &policies(), OURS);
        if let Act::Send(index) = decision.act {
            let Some(number) = self.mark(&decision.drafts[index].intent, &look) else {
                decision.not_before = Some(later(self.now, Duration::from_secs(5)));
                return self.commit(decision);
            };
            let crashes = tape.pick(8) == 7;
            let verdict = self.send(&decision.drafts[index].intent, tape);
            if crashes {
                if let Verdict::Charge(view) = &verdict {
                    self.hints.push(hint(ObjectType::Charge, view.id.as_str(), self.now));
                }
                return;
            }
            let draft = &mut decision.drafts[index];
            draft.intent.number = number;
            settle(draft, &verdict, self.now, &policy());
            if draft.intent.number.status == NumberStatus::Fresh {
                decision = decide_again(&case, decision, self.amazon.look(), self.now, &policies(), OURS);
            }
        }
        if decision.act == Act::ClosePermission {
            let fate = tape.pick(4);
            self.amazon.closed |= fate < 3;
            if fate == 2 {
                // It is closed, and the worker dies before it hears of it.
                return;
            }
            closing::tried(&mut decision.record, &case, &Tried::MayHaveClosed, self.now, &mut decision.events);
            decision = decide_again(&case, decision, self.amazon.look(), self.now, &policies(), OURS);
        }
        self.commit(decision);
    }

    /// The request goes out once: it arrives, its answer is lost, it is delayed, or it never arrives.
    fn send(&mut self, intent: &ChargeIntent, tape: &mut Tape) -> Verdict {
        let number = intent.number.value;
        match tape.pick(8) {
            5 => {
                let _lost = self.amazon.receive(&intent.id, number, tape);
                silence()
            }
            6 => {
                let delay = Duration::from_mins(u64::from(tape.pick(TOLERANCE_MINUTES)));
                self.amazon.under_way.push((later(self.now, delay), intent.id.clone(), number));
                silence()
            }
            7 => silence(),
            _ => self.amazon.receive(&intent.id, number, tape),
        }
    }

    /// As `commit_reconciliation.lua`: monotone per intent.
    fn commit(&mut self, decision: Decision) {
        self.closed |= decision.closed;
        if self.closed {
            self.close = None;
        }
        self.record = decision.record;
        self.not_before = decision.not_before.unwrap_or(Timestamp::MIN);
        for draft in decision.drafts {
            let stored = self.intents.iter_mut().find(|stored| stored.id == draft.intent.id).unwrap();
            let reopens = stored.stage().outcome() == Some(Outcome::Unverified)
                && matches!(draft.intent.stage(), Stage::Captured { .. });
            if stored.stage().is_terminal() && !reopens {
                continue;
            }
            let terminal = ["captured", "canceled", "abandoned"];
            for kind in crate::recovery::draft::testing::kinds(&draft) {
                let kind = kind.trim_start_matches("charge.");
                if terminal.contains(&kind) {
                    self.ends.entry(draft.intent.id.clone()).or_default().push(kind);
                }
            }
            *stored = draft.intent;
        }
        let mut fates = decision.hints.into_iter();
        self.hints.retain_mut(|hint| match fates.next() {
            None | Some(HintFate::Keep) => true,
            Some(HintFate::Defer(note)) => {
                hint.note = note;
                true
            }
            Some(HintFate::Done | HintFate::Quarantine(_)) => false,
        });
    }

    fn check(&self) {
        for intent in &self.intents {
            let ours = |charge: &&ChargeView| charge.tag.as_ref().is_some_and(|tag| tag.intent == intent.id);
            let successes = self.amazon.charges.iter().filter(ours).filter(|charge| charge.state.is_success()).count();
            assert!(successes <= 1, "{} was charged {successes} times", intent.id);
            let ended_without = intent.stage().outcome() == Some(Outcome::Verified)
                && !matches!(intent.stage(), Stage::Captured { .. });
            assert!(!ended_without || successes == 0, "{} ended verified, and yet was charged", intent.id);
            assert!(intent.progress.attempts <= policy().max_attempts);
            let ends = self.ends.get(&intent.id).map_or(&[][..], Vec::as_slice);
            assert!(
                matches!(ends, [] | [_] | ["canceled" | "abandoned", "captured"]),
                "{} ended more than once: {ends:?}",
                intent.id
            );
        }
    }
}

fn walk(reading: Reading, bytes: Vec<u8>) {
    let mut tape = Tape { bytes, next: 0 };
    let mut world = World::new(reading);
    for _ in 0..1500 {
        if !world.step(&mut tape) {
            break;
        }
        world.check();
    }
    world.amazon.deliver(Timestamp::MAX, &mut tape);
    world.check();
    for intent in &world.intents {
        let over = intent.stage().is_terminal() || matches!(intent.stage(), Stage::Held { .. });
        assert!(over, "{} never comes to an end: {:?}", intent.id, intent.progress);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_charged_twice_when_amazon_replays_every_answer(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
        walk(Reading::ReplaysAll, bytes);
    }

    #[test]
    fn nobody_is_charged_twice_when_amazon_evaluates_declines_anew(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
        walk(Reading::ReEvaluates, bytes);
    }

    #[test]
    fn nobody_is_charged_twice_when_amazon_looks_at_the_permission_first(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
        walk(Reading::StatusFirst, bytes);
    }
}
