//! Captures: what each answer does, what holds for every input, and a random walk against a toy of Amazon.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::properties::{arbitrary_intent, situation, time, verdict};
use super::*;
use crate::model::capture::{CaptureIntent, CaptureWish};
use crate::model::charge_intent::{Number, NumberStatus, Progress};
use crate::model::money::Money;
use crate::recovery::authorization::expires_at;
use crate::recovery::capture::settle_capture;
use crate::recovery::draft::testing::{intent, kinds};
use crate::recovery::due::due;
use crate::recovery::plan::plan;

const A: &str = "C01-0000000-0000001-C000001";

fn wish(units: u32) -> CaptureWish {
    let capture_amount = Money::parse(&units.to_string(), "USD".parse().unwrap()).unwrap();
    CaptureWish { capture_amount, soft_descriptor: None }
}

/// An authorised intent of which 5 USD are to be captured.
fn wished() -> ChargeIntent {
    let mut intent = intent();
    intent.request.capture_now = false;
    intent.number.status = NumberStatus::Answered;
    let stage = Stage::Authorized { charge: A.parse().unwrap(), expires_at: None };
    intent.progress = Progress { authorized_at: Some(start()), ..Progress::new(stage, start()) };
    intent.progress.charge = Some(A.parse().unwrap());
    intent.progress.look_at = Some(after(DAY));
    let number = Number::fresh(0);
    intent.capture = Some(CaptureIntent { wish: Some(wish(5)), requested_at: Some(start()), number, cleared: None });
    intent
}

/// The same after its capture was marked `sends` times, the last time at the start.
fn capturing(sends: u32, tainted: bool) -> ChargeIntent {
    let mut intent = wished();
    let number = Number { sends, tainted, ..marked(sends, start(), tainted).number };
    intent.capture.as_mut().unwrap().number = Number { value: 0, ..number };
    intent
}

fn settled(intent: ChargeIntent, verdict: &Verdict, now: Timestamp) -> Draft {
    let mut draft = Draft::new(intent);
    settle_capture(&mut draft, verdict, now, &policy());
    draft
}

fn captured(intent: &ChargeIntent) -> &CaptureIntent {
    intent.capture.as_ref().unwrap()
}

fn planned_at(draft: &Draft) -> Option<Timestamp> {
    draft.intent.progress.capture_plan.as_ref().map(|plan| plan.at)
}

fn refusal(code: &str) -> Verdict {
    Verdict::Refused(Refusal::NewCheckout(code.to_owned()))
}

#[test]
fn a_capture_is_wanted_only_when_get_charge_of_this_reconciliation_says_authorized() {
    let look = |state| vec![charge(A, state, 0)];
    assert_eq!(read_charges(wished(), look(ChargeState::Authorized), after(HOUR)).act, Act::Capture(0));
    assert_eq!(decided(wished(), Look::NotAsked, after(HOUR)).act, Act::Nothing, "nobody looked");
    assert_eq!(decided(wished(), chargeable(), after(HOUR)).act, Act::Nothing, "the permission says nothing about it");
    for state in [ChargeState::Captured, ChargeState::CaptureInitiated, ChargeState::Canceled, ChargeState::Declined] {
        assert_eq!(read_charges(wished(), look(state), after(HOUR)).act, Act::Nothing);
    }
    let foreign = ChargeView { release_environment: Some(Environment::Live), ..charge(A, ChargeState::Authorized, 0) };
    assert_eq!(read_charges(wished(), vec![foreign], after(HOUR)).act, Act::Nothing, "sandbox and live never meet");
    for failed in [ChargeLook::Failed, ChargeLook::Refused(404)] {
        let findings = Findings { look: Look::NotAsked, charges: vec![(A.parse().unwrap(), failed)], may_act: true };
        let decision = decide(&case(vec![wished()]), &findings, after(HOUR), &policies(), OURS);
        assert_eq!(decision.act, Act::Nothing);
        assert_eq!(planned_at(&only(decision)), Some(after(HOUR + MINUTE)), "asked again later");
    }
    assert_eq!(plan(&case(vec![wished()]), after(HOUR)).charges, [A.parse().unwrap()], "so it is asked for");
}

#[test]
fn a_permission_that_is_closed_or_not_chargeable_does_not_keep_a_capture_back() {
    for look in [closed(), not_chargeable("PaymentMethodDeleted"), Look::NotFound, Look::Failed] {
        let charges = vec![(A.parse().unwrap(), ChargeLook::Seen(charge(A, ChargeState::Authorized, 0)))];
        let findings = Findings { look: look.clone(), charges, may_act: true };
        let decision = decide(&case(vec![wished()]), &findings, after(HOUR), &policies(), OURS);
        assert_eq!(decision.act, Act::Capture(0), "{look:?}");
    }
}

#[test]
fn a_canceled_intent_captures_nothing_and_cancels_only_what_no_copy_can_capture() {
    let authorized = || vec![charge(A, ChargeState::Authorized, 0)];
    let cancel = Act::CancelCharge(0, A.parse().unwrap());
    let mut fresh = wished();
    fresh.cancel_requested_at = Some(start());
    assert_eq!(read_charges(fresh, authorized(), after(HOUR)).act, cancel);
    let mut unknown = capturing(1, false);
    unknown.cancel_requested_at = Some(start());
    let waiting = read_charges(unknown.clone(), authorized(), after(MINUTE));
    assert_eq!(waiting.act, Act::Nothing, "a copy may still be accepted");
    assert_eq!(due(&only(waiting).intent, &policy()), Some(after(X)));
    assert_eq!(decided(unknown.clone(), Look::NotAsked, after(X)).act, Act::Nothing, "and nothing without a look");
    let resolved = read_charges(unknown, authorized(), after(X));
    assert_eq!(resolved.act, cancel);
    assert_eq!(captured(&only(resolved).intent).number, Number::fresh(1));
}

#[test]
fn the_answers_to_a_first_capture() {
    let now = after(MINUTE);
    let answer = |state| as_answer(charge(A, state, 0));
    let draft = settled(capturing(1, false), &answer(ChargeState::Captured), now);
    assert_eq!(
        (draft.intent.stage().name(), captured(&draft.intent).number.status),
        ("captured", NumberStatus::Answered)
    );
    let draft = settled(capturing(1, false), &answer(ChargeState::CaptureInitiated), now);
    assert_eq!(
        (draft.intent.stage().name(), captured(&draft.intent).number.status),
        ("pending", NumberStatus::Answered)
    );
    let draft = settled(capturing(1, false), &declined_as_answer("SoftDeclined"), now);
    assert_eq!(end(&draft), ("SoftDeclined", Outcome::Verified));
    for unclear in
        [answer(ChargeState::Authorized), as_answer(charge("C01-0000000-0000001-C000009", ChargeState::Captured, 0))]
    {
        let draft = settled(capturing(1, false), &unclear, now);
        assert_eq!(
            (draft.intent.stage().name(), draft.intent.is_capture_unknown()),
            ("authorized", true),
            "{unclear:?}"
        );
    }
    for decline in [Decline::SoftDeclined, Decline::HardDeclined, Decline::TransactionTimedOut, Decline::AmazonRejected]
    {
        let draft = settled(capturing(1, false), &Verdict::Declined(decline), now);
        assert_eq!(end(&draft), (decline.as_str(), Outcome::Verified));
        assert_eq!(kinds(&draft), ["charge.declined", "charge.abandoned"]);
        assert_eq!(draft.intent.number.value, 0, "and no new charge");
    }
    let draft = settled(capturing(1, false), &Verdict::Declined(Decline::ProcessingFailure), now);
    assert_eq!((planned_at(&draft), draft.intent.is_capture_unknown()), (Some(after(X)), true), "a 500 is confirmed");
    let draft = settled(capturing(1, false), &Verdict::DuplicateKey, now);
    assert_eq!((draft.intent.stage().name(), draft.intent.is_capture_unknown()), ("held", true));
    let draft = settled(capturing(1, false), &Verdict::AccountFault("UnauthorizedAccess".to_owned()), now);
    assert_eq!((planned_at(&draft), draft.intent.is_capture_unknown()), (Some(after(16 * MINUTE)), true));
    assert_eq!(alerts(&draft.alerts), ["account_fault"]);
    let draft = settled(capturing(1, false), &silence(), now);
    assert!(draft.intent.is_capture_unknown() && planned_at(&draft) > Some(now));
}

fn declined_as_answer(reason: &str) -> Verdict {
    as_answer(declined_charge(A, reason, 0))
}

#[test]
fn a_refusal_of_a_first_capture_gives_the_wish_up_or_asks_get_charge() {
    for code in ["TransactionAmountExceeded", "TransactionCountExceeded", "InvalidRequest", "ResourceNotFound"] {
        let draft = settled(capturing(1, false), &refusal(code), after(MINUTE));
        let capture = captured(&draft.intent);
        assert_eq!(
            (draft.intent.stage().name(), &capture.wish, &capture.cleared),
            ("authorized", &None, &Some(wish(5)))
        );
        assert_eq!(capture.number, Number::fresh(1));
        assert_eq!(
            (kinds(&draft), alerts(&draft.alerts)),
            (vec!["charge.declined"], vec!["capture_refused".to_owned()])
        );
    }
    let mut intent = capturing(1, false);
    for tries in 1..=3_u32 {
        let draft = settled(intent, &refusal("InvalidChargeStatus"), after(MINUTE));
        assert_eq!(captured(&draft.intent).number, Number::fresh(tries));
        assert_eq!(draft.intent.progress.look_at, Some(after(MINUTE)), "Get Charge decides, now");
        assert_eq!(planned_at(&draft), Some(after(HOUR + MINUTE)), "and if it contradicts, later");
        intent = draft.intent;
        let number = &mut intent.capture.as_mut().unwrap().number;
        *number = Number { value: tries, ..marked(1, start(), false).number };
    }
    let draft = settled(intent, &refusal("InvalidChargeStatus"), after(MINUTE));
    assert_eq!((&captured(&draft.intent).wish, alerts(&draft.alerts)), (&None, vec!["capture_refused".to_owned()]));
}

#[test]
fn a_charge_that_was_authorised_and_is_declined_ends_its_intent_and_a_pending_one_goes_to_its_row() {
    let draft = only(read_charges(wished(), vec![declined_charge(A, "SoftDeclined", 0)], after(HOUR)));
    assert_eq!(end(&draft), ("SoftDeclined", Outcome::Verified));
    let mut pending = wished();
    pending.capture = None;
    pending.progress.authorized_at = None;
    pending.progress.stage = Stage::Pending { charge: A.parse().unwrap(), since: start(), alerted: false };
    let draft = only(read_charges(pending.clone(), vec![declined_charge(A, "SoftDeclined", 0)], after(HOUR)));
    assert_eq!((planned(&draft).1, draft.intent.number.value), (Why::Attempt, 1));
    pending.progress.authorized_at = Some(start());
    let draft = only(read_charges(pending, vec![declined_charge(A, "SoftDeclined", 0)], after(HOUR)));
    assert_eq!(end(&draft), ("SoftDeclined", Outcome::Verified), "its capture was pending");
}

#[test]
fn news_of_a_charge_that_is_lost_waits_for_the_copies_that_are_out() {
    let canceled = ChargeView { reason: Some("ExpiredUnused".to_owned()), ..charge(A, ChargeState::Canceled, 0) };
    for view in [declined_charge(A, "HardDeclined", 0), canceled] {
        let draft = only(read_charges(capturing(2, true), vec![view.clone()], after(MINUTE)));
        assert_eq!(draft.intent.stage().name(), "authorized", "{view:?}");
        assert_eq!(due(&draft.intent, &policy()), Some(after(X)));
        let draft = only(read_charges(capturing(2, true), vec![view.clone()], after(X)));
        assert_eq!(end(&draft), (view.reason.as_deref().unwrap(), Outcome::Verified));
    }
}

#[test]
fn an_authorisation_is_looked_at_when_it_is_announced_and_when_it_is_over() {
    let mut intent = wished();
    intent.capture = None;
    let seen = |intent: &ChargeIntent, now| {
        only(read_charges(intent.clone(), vec![charge(A, ChargeState::Authorized, 0)], now))
    };
    assert_eq!(expires_at(&intent), Some(after(30 * DAY)), "30 days, where Amazon does not say");
    let early = seen(&intent, after(24 * DAY + 12 * HOUR));
    assert_eq!((kinds(&early), early.intent.progress.look_at), (vec![], Some(after(25 * DAY))));
    let warned = seen(&intent, after(25 * DAY));
    assert_eq!(kinds(&warned), ["charge.expiring"]);
    assert_eq!(kinds(&seen(&warned.intent, after(26 * DAY))), Vec::<&str>::new(), "once");
    let late = seen(&warned.intent, after(29 * DAY + 12 * HOUR));
    assert_eq!(late.intent.progress.look_at, Some(after(30 * DAY + HOUR)));
    let over = seen(&intent, after(30 * DAY + HOUR));
    assert_eq!((kinds(&over), over.intent.progress.look_at), (vec![], Some(after(30 * DAY + 2 * HOUR))));
    let overdue = seen(&intent, after(37 * DAY));
    assert_eq!((overdue.intent.stage().name(), alerts(&overdue.alerts).len()), ("held", 0));
    let decision = read_charges(intent.clone(), vec![charge(A, ChargeState::Authorized, 0)], after(37 * DAY));
    assert_eq!(alerts(&decision.events), ["charge_held"]);
    let mut said = charge(A, ChargeState::Authorized, 0);
    said.expires_at = Some(after(10 * DAY));
    let known = only(read_charges(intent, vec![said], after(DAY)));
    assert_eq!(expires_at(&known.intent), Some(after(10 * DAY)), "what Amazon says counts");
}

#[test]
fn a_second_charge_whose_capture_runs_is_followed_and_told() {
    let mut pending = intent();
    pending.number.status = NumberStatus::Answered;
    pending.progress.charge = Some(A.parse().unwrap());
    pending.progress.stage = Stage::Pending { charge: A.parse().unwrap(), since: start(), alerted: false };
    let other = "C01-0000000-0000001-C000002";
    let decision = read_charges(pending, vec![charge(other, ChargeState::CaptureInitiated, 0)], after(HOUR));
    assert_eq!(alerts(&decision.events), ["duplicate_charge"]);
    let followed = only(decision).intent;
    assert!(matches!(followed.stage(), Stage::Pending { charge, .. } if charge.as_str() == other));
    let draft = only(read_charges(followed, vec![declined_charge(A, "SoftDeclined", 0)], after(2 * HOUR)));
    assert_eq!(draft.intent.stage().name(), "pending", "the first one's decline makes no new number meanwhile");
}

/// An authorised intent whose capture was just marked.
fn just_marked() -> impl Strategy<Value = ChargeIntent> {
    (arbitrary_intent().boxed(), 1_u32..5, any::<bool>(), time()).prop_map(|(mut intent, sends, tainted, last)| {
        intent.progress.stage = Stage::Authorized { charge: A.parse().unwrap(), expires_at: None };
        intent.request.capture_now = false;
        intent.number.status = NumberStatus::Answered;
        intent.number.tainted = false;
        let number = marked(sends, last, tainted).number;
        intent.capture = Some(CaptureIntent { wish: Some(wish(5)), requested_at: Some(last), number, cleared: None });
        intent
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn settling_a_capture_is_total_deterministic_and_advances_only_on_a_final_answer(
        intent in just_marked(),
        verdict in verdict(),
        now in time(),
    ) {
        let draft = settled(intent.clone(), &verdict, now);
        prop_assert_eq!(&draft, &settled(intent.clone(), &verdict, now));
        // Unless the charge turns out to be of another number, and to have come to nothing.
        let number_of = |view: &ChargeView| view.tag.as_ref().map(|tag| tag.number);
        let other = matches!(&verdict, Verdict::Charge(view) if number_of(view).is_some_and(|n| n != intent.number.value));
        prop_assert!(other || draft.intent.number == intent.number, "the numbers of Create Charge are others");
        let (before, after) = (&captured(&intent).number, &captured(&draft.intent).number);
        let advanced = after.value > before.value;
        prop_assert!((before.value..=before.value + 1).contains(&after.value));
        prop_assert_eq!(advanced, after.status == NumberStatus::Fresh);
        let doubtful = before.sends > 1 || before.tainted;
        let ended = draft.intent.stage().is_terminal();
        match &verdict {
            Verdict::Ambiguous { .. } | Verdict::AccountFault(_) | Verdict::DuplicateKey => {
                prop_assert!(!advanced && after.status == NumberStatus::Unknown && !ended);
            }
            Verdict::Refused(_) => prop_assert_eq!(advanced, !doubtful),
            Verdict::Declined(decline) => {
                let wait = before.tainted || (*decline == Decline::ProcessingFailure && before.sends == 1);
                prop_assert_eq!(after.status == NumberStatus::Unknown, wait);
                prop_assert!(!wait || !ended, "a tainted decline never ends");
            }
            Verdict::Charge(view) => prop_assert!((!advanced || other) && (view.id.as_str() == A || !ended)),
        }
        let wish_is_kept = captured(&draft.intent).wish.is_some() || captured(&draft.intent).cleared == Some(wish(5));
        prop_assert!(wish_is_kept, "what is removed is named");
        if !ended && !matches!(draft.intent.stage(), Stage::Held { .. }) {
            prop_assert!(due(&draft.intent, &policy()).is_some());
        }
    }

    #[test]
    fn a_capture_is_sent_only_of_a_charge_that_was_just_seen_authorised((case, findings, now) in situation().boxed()) {
        let decision = decide(&case, &findings, now, &policies(), OURS);
        if let Act::Capture(index) = decision.act {
            let intent = &decision.drafts[index].intent;
            let Stage::Authorized { charge, .. } = intent.stage() else { panic!("{:?}", intent.stage()) };
            let seen = findings.charges.iter().any(|(id, look)| {
                id == charge && matches!(look, ChargeLook::Seen(view) if view.state == ChargeState::Authorized)
            });
            prop_assert!(seen && intent.cancel_requested_at.is_none() && intent.capture_wish().is_some());
        }
    }

    #[test]
    fn a_decision_gives_no_unknown_capture_a_successor_unless_it_was_canceled_and_no_copy_is_out((case, findings, now) in situation().boxed()) {
        let decision = decide(&case, &findings, now, &policies(), OURS);
        for (before, draft) in case.intents.iter().zip(&decision.drafts) {
            let (Some(before_capture), Some(after)) = (&before.capture, &draft.intent.capture) else { continue };
            if before.is_capture_unknown() && after.number.value > before_capture.number.value {
                let copies_until = before_capture.number.last_mark.map(|mark| later(mark, X));
                let canceled = before.cancel_requested_at.is_some() && copies_until.is_none_or(|until| until <= now);
                // Or the charge itself came to nothing and another number of Create Charge is asked about.
                prop_assert!(canceled || after.wish.is_none(), "{before:?}");
            }
        }
    }
}

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
