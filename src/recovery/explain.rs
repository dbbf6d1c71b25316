//! What a policy comes to: the times at which a charge would be tried if Amazon gave the same answer each time.
//!
//! Nothing is computed twice: the walk settles one answer after the other by the very rules that the service goes by, and reads the
//! plan off the intent.

use std::time::Duration;

use jiff::Timestamp;

use super::decide::FIRST_PROBE;
use super::draft::Draft;
use super::policy::{Lot, MONTH_DOUBT, Policy, later};
use super::reminders;
use super::settle::settle;
use crate::model::charge_intent::{ChargeIntent, Number, NumberStatus, Park, Progress, Stage, Why, Wishes};
use crate::model::charge_request::ChargeRequest;
use crate::model::ids::IntentId;
use crate::model::money::Money;
use crate::model::verdict::{Decline, Refusal, Verdict};

/// Longer than any walk: at most 20 attempts with a confirmation each, and 12 months of 18 looks each.
const MAX_STEPS: usize = 500;

/// What happens at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The n-th attempt, from 1: a new number.
    Attempt(u32),
    /// The same number once more, to confirm its decline.
    Confirmation,
    /// An attempt soon after the turn of the month, because Amazon's month may turn later than ours; every 2 hours while that may be.
    OldMonth,
    /// An attempt in the month that begins then.
    NewMonth(Timestamp),
    /// The buyer is asked for the n-th time again, from 1.
    Reminder(u32),
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// So many attempts have counted.
    AttemptsUsedUp(u32),
    /// The next attempt would not be before this time, at which the time for attempts ends.
    WindowEnds(Timestamp),
    /// Given up with the answer.
    AtOnce,
    /// So many months were waited for.
    MonthsUsedUp(u32),
    /// Waits for the buyer, at most until then.
    WaitsForBuyer(Timestamp),
    /// Waits for a person, at most until then.
    WaitsForPerson(Timestamp),
    /// Held until an operator resolves it.
    Held,
    /// The same number again, for the first time then, until there is an answer that says something.
    Repeats(Timestamp),
}

/// A step, at the earliest and at the latest; the same for a certain charge. `None`: at the latest it would be too late.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What happens.
    pub what: What,
    /// With the lowest lot.
    pub earliest: Timestamp,
    /// With the highest.
    pub latest: Option<Timestamp>,
}

/// The answer to "what would it do?".
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What happens, in order; the attempt that got the answer first.
    pub steps: Vec<Step>,
    /// How it ends; two ends if that depends on the lot.
    pub ends: Vec<End>,
}

/// What follows if each answer of Amazon is `verdict`, the first of them at `from`; for the charge of this id, or for the earliest and
/// the latest lot.
#[must_use]
pub fn explain(verdict: &Verdict, from: Timestamp, policy: &Policy, id: Option<&IntentId>) -> Explanation {
    let with = |lot| Policy { lot, ..policy.clone() };
    let earliest = walk(verdict, from, &with(Lot::Fixed(0.0)), None);
    let latest = walk(verdict, from, &with(Lot::Fixed(Lot::LATEST)), None);
    let steps = earliest.steps.iter().enumerate().map(|(index, (what, at))| {
        let latest = latest.steps.get(index).filter(|(other, _)| other == what).map(|(_, at)| *at);
        Step { what: *what, earliest: *at, latest }
    });
    let mut ends = vec![earliest.end];
    ends.extend((latest.end != earliest.end).then_some(latest.end));
    let ranges = Explanation { steps: steps.collect(), ends };
    let Some(id) = id else { return ranges };
    let exact = walk(verdict, from, &with(Lot::OfTheCharge), Some(id));
    let steps = exact.steps.iter().map(|(what, at)| Step { what: *what, earliest: *at, latest: Some(*at) });
    let mut steps: Vec<Step> = steps.collect();
    if *verdict == Verdict::Refused(Refusal::MonthlyLimit) {
        // The lot hangs on the number, and how many numbers a month takes depends on what the looks at the permission say.
        let first = steps.iter().position(|step| matches!(step.what, What::NewMonth(_))).map_or(1, |first| first + 1);
        steps.truncate(first);
        steps.extend(ranges.steps.into_iter().skip(first));
    }
    Explanation { steps, ends: vec![exact.end] }
}

/// The times of the attempts, if each of them is declined in this way.
pub(super) fn retries_of(reason: Decline, policy: &Policy) -> Vec<Timestamp> {
    let walk = walk(&Verdict::Declined(reason), Timestamp::UNIX_EPOCH, policy, None);
    walk.steps.iter().filter(|(what, _)| matches!(what, What::Attempt(_))).map(|(_, at)| *at).collect()
}

/// How many of these times, which ascend, lie within the same span at most.
pub(super) fn most_within(times: &[Timestamp], span: Duration) -> usize {
    let within =
        |(index, first): (usize, &Timestamp)| times[index..].iter().take_while(|at| **at < later(*first, span)).count();
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

struct Walk {
    steps: Vec<(What, Timestamp)>,
    end: End,
}

fn walk(verdict: &Verdict, from: Timestamp, policy: &Policy, id: Option<&IntentId>) -> Walk {
    let mut steps = vec![(What::Attempt(1), from)];
    let Some(intent) = intent(from, id) else { return Walk { steps, end: End::AtOnce } };
    let mut draft = Draft::new(intent);
    let (mut now, mut attempts) = (from, 1);
    for _ in 0..MAX_STEPS {
        let parks = draft.intent.progress.month_parks;
        mark(&mut draft.intent, now, policy.confirmation_delay);
        settle(&mut draft, verdict, now, policy);
        draft.events.clear();
        let (at, why) = match draft.intent.stage() {
            Stage::Scheduled { at, why } => (*at, *why),
            _ => break,
        };
        let progress = &draft.intent.progress;
        now = match why {
            // Before the first probe of the account nobody sends.
            Why::Repeat if matches!(verdict, Verdict::AccountFault(_)) => {
                return Walk { steps, end: End::Repeats(at.max(later(now, FIRST_PROBE))) };
            }
            Why::Repeat | Why::Closing => return Walk { steps, end: End::Repeats(at) },
            Why::Confirmation => {
                steps.push((What::Confirmation, at));
                at
            }
            Why::Attempt if *verdict != Verdict::Refused(Refusal::MonthlyLimit) => {
                // As the gate before a new number judges.
                if at >= policy.attempts_end(&draft.intent) {
                    return Walk { steps, end: End::WindowEnds(policy.attempts_end(&draft.intent)) };
                }
                attempts += 1;
                steps.push((What::Attempt(attempts), at));
                at
            }
            Why::Attempt => {
                if let Some(turn) = progress.month_turn.filter(|_| progress.month_parks > parks) {
                    steps.push((What::NewMonth(turn), at));
                    // Had it been Amazon's old month still, nothing but time would have been lost.
                    at.max(later(turn, MONTH_DOUBT))
                } else {
                    if steps.len() == 1 {
                        steps.push((What::OldMonth, at));
                    }
                    at
                }
            }
        };
    }
    let reminders = reminders::of_park(&draft.intent, policy);
    steps.extend(reminders.into_iter().map(|(number, at)| (What::Reminder(number), at)));
    let end = end_of(&draft.intent, verdict, policy);
    Walk { steps, end }
}

/// As the script that marks a send does it.
fn mark(intent: &mut ChargeIntent, now: Timestamp, x: Duration) {
    let number = &mut intent.number;
    number.tainted = number.last_mark.is_some_and(|last| now < later(last, x));
    number.status = NumberStatus::Unknown;
    number.sends = number.sends.saturating_add(1);
    number.first_mark = number.first_mark.or(Some(now));
    number.last_mark = Some(now);
}

fn end_of(intent: &ChargeIntent, verdict: &Verdict, policy: &Policy) -> End {
    let until = policy.attempts_end(intent);
    match intent.stage() {
        Stage::Held { .. } => End::Held,
        Stage::Parked { park: Park::Instrument { .. }, .. } => End::WaitsForBuyer(until),
        Stage::Parked { park: Park::Attention, .. } => End::WaitsForPerson(until),
        _ if policy.is_used_up(intent) => End::AttemptsUsedUp(intent.progress.attempts),
        _ => match verdict {
            Verdict::Declined(decline) if policy.retries_after(*decline).is_some() => End::WindowEnds(until),
            Verdict::Refused(Refusal::MonthlyLimit) => End::MonthsUsedUp(intent.progress.month_parks),
            _ => End::AtOnce,
        },
    }
}

/// A charge like any other: its times depend on its id and on nothing else of it. `None` never happens; the parts are fixed here.
fn intent(from: Timestamp, id: Option<&IntentId>) -> Option<ChargeIntent> {
    let stage = Stage::Scheduled { at: from, why: Why::Attempt };
    Some(ChargeIntent {
        id: id.cloned().or_else(|| "any".parse().ok())?,
        request: ChargeRequest {
            charge_permission_id: "C01-0000000-0000000".parse().ok()?,
            charge_amount: Money::parse("1.00", "USD".parse().ok()?).ok()?,
            capture_now: true,
            soft_descriptor: None,
            can_handle_pending_authorization: false,
            merchant_metadata: None,
            provider_metadata: None,
            charge_initiator: None,
            channel: None,
            platform_id: None,
            simulation_code: None,
        },
        policy: None,
        submitted_at: from,
        number: Number::fresh(0),
        cancel_requested_at: None,
        capture: None,
        stopped_ms: 0,
        wishes: Wishes::default(),
        progress: Progress::new(stage, from),
    })
}
