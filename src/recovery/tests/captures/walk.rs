//! A random walk: the real rules against a toy of Amazon's captures (all three readings of its idempotency) and a toy of the store, on a
//! virtual clock, with lost answers, delayed copies, crashes, cancellations and new wishes.

use std::collections::BTreeMap;

use super::*;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    ReplaysAll,
    ReEvaluates,
    StatusFirst,
}

/// One authorised charge, and the captures that reach it.
struct ToyAmazon {
    reading: Reading,
    state: ChargeState,
    reason: Option<&'static str>,
    captured: Option<u32>,
    answers: BTreeMap<u32, (u32, Verdict)>,
    under_way: Vec<(Timestamp, u32, u32)>,
}

impl ToyAmazon {
    fn view(&self) -> ChargeView {
        ChargeView { reason: self.reason.map(str::to_owned), ..charge(A, self.state.clone(), 0) }
    }

    fn get(&mut self, now: Timestamp, tape: &mut Tape) -> ChargeLook {
        if self.state == ChargeState::Authorized && now > after(30 * DAY) {
            (self.state, self.reason) = (ChargeState::Canceled, Some("ExpiredUnused"));
        }
        if self.state == ChargeState::CaptureInitiated {
            match tape.pick(3) {
                0 => self.state = ChargeState::Captured,
                1 => (self.state, self.reason) = (ChargeState::Declined, Some("SoftDeclined")),
                _ => {}
            }
        }
        if tape.pick(12) == 11 { ChargeLook::Failed } else { ChargeLook::Seen(self.view()) }
    }

    fn receive(&mut self, number: u32, units: u32, now: Timestamp, tape: &mut Tape) -> Verdict {
        let conflict = refusal("InvalidChargeStatus");
        if self.state == ChargeState::Authorized && now > after(30 * DAY) {
            (self.state, self.reason) = (ChargeState::Canceled, Some("ExpiredUnused"));
        }
        if self.reading == Reading::StatusFirst && self.state != ChargeState::Authorized {
            return conflict;
        }
        if let Some((before, verdict)) = self.answers.get(&number) {
            if *before != units {
                return Verdict::DuplicateKey;
            }
            if matches!(verdict, Verdict::Charge(_)) {
                return as_answer(self.view());
            }
            if self.reading != Reading::ReEvaluates {
                return verdict.clone();
            }
        }
        if self.state != ChargeState::Authorized {
            return conflict;
        }
        let verdict = match tape.pick(8) {
            0 | 1 => self.capture(ChargeState::Captured, units),
            2 => self.capture(ChargeState::CaptureInitiated, units),
            3 => {
                (self.state, self.reason) = (ChargeState::Declined, Some("SoftDeclined"));
                Verdict::Declined(Decline::SoftDeclined)
            }
            4 => Verdict::Declined(Decline::ProcessingFailure),
            5 => refusal("TransactionAmountExceeded"),
            6 => conflict,
            _ => return silence(),
        };
        self.answers.insert(number, (units, verdict.clone()));
        verdict
    }

    fn capture(&mut self, state: ChargeState, units: u32) -> Verdict {
        assert_eq!(self.captured, None, "captured twice");
        (self.state, self.captured) = (state, Some(units));
        as_answer(self.view())
    }

    fn deliver(&mut self, now: Timestamp, tape: &mut Tape) {
        self.under_way.sort();
        while self.under_way.first().is_some_and(|(at, ..)| *at <= now) {
            let (at, number, units) = self.under_way.remove(0);
            let _nobody_hears = self.receive(number, units, at, tape);
        }
    }
}

fn units_of(wish: &CaptureWish) -> u32 {
    wish.capture_amount.amount().trim_end_matches(".00").parse().unwrap()
}

struct World {
    now: Timestamp,
    amazon: ToyAmazon,
    intent: ChargeIntent,
    ends: usize,
}

impl World {
    fn step(&mut self, tape: &mut Tape) -> bool {
        match tape.pick(10) {
            7 => self.ask(u32::from(tape.pick(9)) + 1),
            8 if tape.pick(3) == 0 && !self.intent.stage().is_terminal() => {
                self.intent.cancel_requested_at.get_or_insert(self.now);
                self.intent.progress.look_at = Some(self.now);
            }
            _ => {}
        }
        let Some(next) = due(&self.intent, &policy()) else { return false };
        self.now = later(self.now.max(next), Duration::from_secs(1));
        self.amazon.deliver(self.now, tape);
        self.reconcile(tape);
        true
    }

    /// As `request_capture.lua`.
    fn ask(&mut self, units: u32) {
        let free = matches!(self.intent.stage(), Stage::Authorized { .. })
            && self.intent.cancel_requested_at.is_none()
            && self.intent.capture_wish().is_none();
        if free {
            let number = self.intent.capture.as_ref().map_or(Number::fresh(0), |capture| capture.number.clone());
            self.intent.capture =
                Some(CaptureIntent { wish: Some(wish(units)), requested_at: Some(self.now), number, cleared: None });
        }
    }

    /// As `mark_capture.lua`.
    fn mark(&mut self) -> Number {
        let now = self.now;
        assert!(self.intent.cancel_requested_at.is_none() && matches!(self.intent.stage(), Stage::Authorized { .. }));
        let number = &mut self.intent.capture.as_mut().unwrap().number;
        if number.status == NumberStatus::Fresh {
            // At most one number in flight: nothing of an older one can still be accepted.
            let older = self.amazon.under_way.iter().filter(|(_, under_way, _)| *under_way != number.value).count();
            assert_eq!(older, 0, "number {} beside an older copy", number.value);
            number.first_mark = Some(now);
        }
        number.tainted = number.last_mark.is_some_and(|last| now < later(last, X));
        number.sends += 1;
        number.last_mark = Some(now);
        number.status = NumberStatus::Unknown;
        number.clone()
    }

    fn reconcile(&mut self, tape: &mut Tape) {
        let case = case(vec![self.intent.clone()]);
        let plan = plan(&case, self.now);
        let charges = plan.charges.into_iter().map(|id| (id, self.amazon.get(self.now, tape))).collect();
        let findings = Findings { look: Look::NotAsked, charges, may_act: true };
        let mut decision = decide(&case, &findings, self.now, &policies(), OURS);
        match decision.act.clone() {
            Act::Nothing => {}
            Act::Send(_) => panic!("an authorised charge is charged again"),
            Act::ClosePermission => panic!("nobody asked for a closing"),
            Act::CancelCharge(index, _) => {
                let draft = &mut decision.drafts[index];
                if self.amazon.state == ChargeState::Authorized {
                    self.amazon.state = ChargeState::Canceled;
                    draft.cancel(self.now, Outcome::Verified);
                } else {
                    draft.intent.progress.look_at = Some(self.now);
                    draft.intent.progress.cancel_retry_at = Some(later(self.now, 5 * MINUTE));
                }
            }
            Act::Capture(index) => {
                let number = self.mark();
                let draft = &mut decision.drafts[index];
                let units = units_of(draft.intent.capture_wish().unwrap());
                let crashes = tape.pick(8) == 7;
                let verdict = self.send(number.value, units, tape);
                if crashes {
                    return;
                }
                draft.intent.capture.as_mut().unwrap().number = number;
                settle_capture(draft, &verdict, self.now, &policy());
            }
        }
        let draft = decision.drafts.remove(0);
        let ends = ["charge.captured", "charge.canceled", "charge.abandoned"];
        self.ends += kinds(&draft).iter().filter(|kind| ends.contains(kind)).count();
        let may_become =
            !self.intent.stage().is_terminal() || self.intent.stage().outcome() == Some(Outcome::Unverified);
        if may_become {
            self.intent = draft.intent;
            if let Some(capture) = &mut self.intent.capture {
                capture.cleared = None;
            }
        }
    }

    fn send(&mut self, number: u32, units: u32, tape: &mut Tape) -> Verdict {
        match tape.pick(8) {
            5 => {
                let _lost = self.amazon.receive(number, units, self.now, tape);
                silence()
            }
            6 => {
                let delay = Duration::from_mins(u64::from(tape.pick(TOLERANCE_MINUTES)));
                self.amazon.under_way.push((later(self.now, delay), number, units));
                silence()
            }
            7 => silence(),
            _ => self.amazon.receive(number, units, self.now, tape),
        }
    }

    fn check(&self) {
        assert!(self.ends <= 1, "ended {} times", self.ends);
        if self.intent.stage().outcome() == Some(Outcome::Verified)
            && !matches!(self.intent.stage(), Stage::Captured { .. })
        {
            assert!(
                matches!(self.amazon.state, ChargeState::Canceled | ChargeState::Declined),
                "ended verified, and yet the charge is {:?}",
                self.amazon.state
            );
        }
        if let Some(wish) = self.intent.capture_wish() {
            let captured = self.amazon.captured;
            assert!(
                captured.is_none_or(|units| units == units_of(wish)),
                "{captured:?} was captured, {wish:?} is wished"
            );
        }
    }
}

fn walk(reading: Reading, bytes: Vec<u8>) {
    let amazon = ToyAmazon {
        reading,
        state: ChargeState::Authorized,
        reason: None,
        captured: None,
        answers: BTreeMap::new(),
        under_way: Vec::new(),
    };
    let mut world = World { now: start(), amazon, intent: wished(), ends: 0 };
    let mut tape = Tape { bytes, next: 0 };
    for _ in 0..1500 {
        if !world.step(&mut tape) {
            break;
        }
        world.check();
    }
    world.amazon.deliver(Timestamp::MAX, &mut tape);
    world.check();
    let over = world.intent.stage().is_terminal() || matches!(world.intent.stage(), Stage::Held { .. });
    assert!(over, "it never comes to an end: {:?}", world.intent.progress);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_wished_is_captured_once_or_nothing_when_amazon_replays_every_answer(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
        walk(Reading::ReplaysAll, bytes);
    }

    #[test]
    fn what_was_wished_is_captured_once_or_nothing_when_amazon_evaluates_anew(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
        walk(Reading::ReEvaluates, bytes);
    }

    #[test]
    fn what_was_wished_is_captured_once_or_nothing_when_amazon_looks_at_the_charge_first(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
        walk(Reading::StatusFirst, bytes);
    }
}
