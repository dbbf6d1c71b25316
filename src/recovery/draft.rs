//! An intent while it is being decided about: the value, and the events of the transitions made so far.
//!
//! Every transition of an intent is one method here, so that no state changes without its event.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::authorization::next_look;
use super::capture;
use super::policy::{LAST_CHANCE, MonthPark, Policy, Sweep, later};
use crate::model::charge_intent::{ChargeIntent, MonthWait, NumberStatus, Outcome, Park, Stage, Trigger, Why};
use crate::model::event::{Event, EventType};
use crate::model::ids::ChargeId;
use crate::model::money::Money;
use crate::model::permission::{InstrumentDigest, PermissionKind};

/// An intent under decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The intent as it will be.
    pub intent: ChargeIntent,
    /// What is told with the transition: written only if the transition takes place.
    pub events: Vec<Event>,
    /// What a person must know whether or not the intent changes.
    pub alerts: Vec<Event>,
    /// Authorisations that appeared after the intent was canceled: to be canceled at Amazon, one in each reconciliation.
    pub left_over: Vec<ChargeId>,
    /// What the events say about the permission.
    pub about: About,
}

/// What is known about the permission of a charge that is being decided about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The kind of consent.
    pub kind: Option<PermissionKind>,
    /// Who closed it, once it is closed.
    pub closed_by: Option<&'static str>,
    /// The reasons of its state.
    pub reasons: Vec<String>,
}

impl Draft {
    /// Starts from what is stored.
    #[must_use]
    pub fn new(intent: ChargeIntent) -> Self {
        Self { intent, events: Vec::new(), alerts: Vec::new(), left_over: Vec::new(), about: About::default() }
    }

    /// Adds an event about the intent as it is now.
    pub fn tell(&mut self, kind: EventType, extra: Value) {
        self.events.push(Event::of_charge(kind, &self.intent, extra));
    }

    /// Asks for a person.
    pub fn alert(&mut self, kind: &str, message: &str, extra: Value) {
        let mut data = json!({ "id": self.intent.id, "chargePermissionId": self.intent.request.charge_permission_id });
        if let (Some(data), Value::Object(extra)) = (data.as_object_mut(), extra) {
            data.extend(extra);
        }
        self.alerts.push(Event::attention(kind, message, data));
    }

    /// Enters a stage. A plan told of earlier in the same decision is taken back: only the last one happens, and nobody is asked to
    /// mend the instrument of a permission that the same decision finds closed.
    fn enter(&mut self, stage: Stage) {
        let plans = [EventType::ChargeScheduled, EventType::ChargeParked, EventType::ChargeActionRequired];
        self.events.retain(|event| plans.iter().all(|plan| event.kind != plan.as_str()));
        self.intent.progress.stage = stage;
    }

    /// Plans a send.
    pub fn schedule(&mut self, at: Timestamp, why: Why) {
        self.enter(Stage::Scheduled { at, why });
        let reason = self.intent.progress.last_reason.clone();
        self.tell(EventType::ChargeScheduled, json!({ "at": at, "why": why, "lastReason": reason }));
    }

    /// Moves a planned send without telling: the plan is the same, only the asking has to wait.
    pub fn defer(&mut self, until: Timestamp) {
        if let Stage::Scheduled { at, .. } = &mut self.intent.progress.stage {
            *at = until.max(*at);
        }
    }

    /// Waits for the buyer: the instrument must be updated.
    pub fn park_for_instrument(
        &mut self,
        now: Timestamp,
        policy: &Policy,
        baseline: Option<InstrumentDigest>,
        non_chargeable_seen: bool,
    ) {
        let park = Park::Instrument { baseline, non_chargeable_seen, echo_look_at: None };
        self.intent.progress.reminders_sent = 0;
        self.intent.progress.remind_after = None;
        self.enter(Stage::Parked { since: now, park });
        let reason = self.intent.progress.last_reason.clone();
        let until = policy.attempts_end(&self.intent);
        self.tell(EventType::ChargeParked, json!({ "for": "instrument", "reasonCode": reason, "parkedUntil": until }));
        self.ask_the_buyer(policy, None);
    }

    /// Asks for an update of the instrument; `reminder` counts from 1.
    pub(super) fn ask_the_buyer(&mut self, policy: &Policy, reminder: Option<u32>) {
        let extra = json!({
            "action": "update_payment_method",
            "reasonCode": self.intent.progress.last_reason,
            "updateUrl": policy.update_link(&self.intent),
            "before": policy.attempts_end(&self.intent),
            "reminder": reminder,
        });
        self.tell(EventType::ChargeActionRequired, extra);
    }

    /// Waits for a person: something we do not understand.
    pub fn park_for_attention(&mut self, now: Timestamp, policy: &Policy, reason: &str) {
        self.intent.progress.last_reason = Some(reason.to_owned());
        self.enter(Stage::Parked { since: now, park: Park::Attention });
        let until = policy.attempts_end(&self.intent);
        self.tell(EventType::ChargeParked, json!({ "for": "attention", "reasonCode": reason, "parkedUntil": until }));
        self.alert(
            "charge_parked",
            "a charge was parked because its answer is not understood",
            json!({ "reasonCode": reason }),
        );
    }

    /// Waits for the next month; gives up when that was done often enough. The window stands still meanwhile.
    pub fn park_for_month(&mut self, now: Timestamp, policy: &Policy) {
        self.intent.progress.last_reason = Some("PeriodicAmountExceeded".to_owned());
        let at = match policy.month_park(&self.intent, now) {
            MonthPark::GiveUp => {
                self.abandon(now, "PeriodicAmountExceeded", Outcome::Verified);
                return;
            }
            MonthPark::StillTheOldMonth { at } => at,
            MonthPark::Until { at, turn } if self.intent.progress.month_turn == Some(turn) => {
                // Still the same park: it was counted, and the window stands still for it already. Another number has another place in
                // the spread; should that be past the end of the window, the window stands still for the rest too.
                let end = policy.attempts_end(&self.intent);
                if now < end && later(at, LAST_CHANCE) > end {
                    let rest = later(at, LAST_CHANCE).duration_since(end);
                    self.intent.progress.stand_still(rest.try_into().unwrap_or_default());
                }
                return self.schedule_month(at);
            }
            MonthPark::Until { turn, at } => {
                self.intent.progress.month_parks = self.intent.progress.month_parks.saturating_add(1);
                self.intent.progress.month_turn = Some(turn);
                at
            }
        };
        self.intent.progress.stand_still(at.duration_since(now).try_into().unwrap_or_default());
        self.intent.progress.month_park = Some(MonthWait { from: now, until: at, stopped_ms: self.intent.stopped_ms });
        self.schedule_month(at);
    }

    /// Once a month was waited for: what was stopped or paused within the wait stood still already. What stood still since its end is
    /// taken to be of after it, as far as it can be: in doubt the window is longer.
    pub(super) fn count_the_month_once(&mut self, now: Timestamp) {
        let Some(MonthWait { from, until, stopped_ms }) = self.intent.progress.month_park else { return };
        if now < until || self.intent.stage().is_terminal() {
            return;
        }
        let ms = |from: Timestamp, until: Timestamp| until.as_millisecond().saturating_sub(from.as_millisecond());
        let besides = self.intent.stopped_ms.saturating_sub(stopped_ms).saturating_sub(ms(until, now));
        let twice = besides.clamp(0, ms(from, until).max(0));
        self.intent.progress.stood_still_ms = self.intent.progress.stood_still_ms.saturating_sub(twice);
        self.intent.progress.month_park = None;
    }

    fn schedule_month(&mut self, at: Timestamp) {
        self.intent.progress.trigger = Trigger::NewMonth;
        self.schedule(at, Why::Attempt);
    }

    /// Stops until an operator resolves it.
    pub fn hold(&mut self, reason: &str) {
        self.enter(Stage::Held { reason: reason.to_owned() });
        self.tell(EventType::ChargeHeld, json!({ "reason": reason }));
        self.alert("charge_held", "a charge is held and needs an operator", json!({ "reason": reason }));
    }

    /// A charge exists and Amazon is deciding.
    pub fn pend(&mut self, charge: &ChargeId, now: Timestamp, state: &str) {
        self.intent.progress.charge = Some(charge.clone());
        self.intent.progress.look_at = Some(Sweep::Pending(now).next(now));
        self.enter(Stage::Pending { charge: charge.clone(), since: now, alerted: false });
        self.tell(EventType::ChargePending, json!({ "chargeId": charge, "chargeState": state }));
    }

    /// Authorised; waits for its capture, or, if the caller canceled meanwhile, for its own cancellation now.
    pub fn authorize(&mut self, charge: &ChargeId, now: Timestamp, expires_at: Option<Timestamp>) {
        let canceling = self.intent.cancel_requested_at.is_some();
        self.intent.progress.charge = Some(charge.clone());
        self.intent.progress.authorized_at.get_or_insert(now);
        self.enter(Stage::Authorized { charge: charge.clone(), expires_at });
        self.intent.progress.look_at = Some(if canceling { now } else { next_look(&self.intent, now) });
        self.tell(EventType::ChargeAuthorized, json!({ "chargeId": charge, "expiresAt": expires_at }));
    }

    /// The money is ours. `number` is the number the charge was made under, `captured` what Amazon says was captured.
    pub fn capture(&mut self, charge: &ChargeId, captured: Option<Money>, number: u32, now: Timestamp) {
        self.intent.progress.charge = Some(charge.clone());
        self.enter(Stage::Captured { charge: charge.clone(), at: now });
        let progress = &self.intent.progress;
        let extra = json!({
            "chargeId": charge,
            "captureAmount": captured,
            "recoveredBy": progress.trigger,
        });
        self.events.push(Event::of_number(EventType::ChargeCaptured, &self.intent, number, extra));
    }

    /// No end is certain while a number is unknown.
    fn certain(&self, outcome: Outcome) -> Outcome {
        if self.is_unknown() { Outcome::Unverified } else { outcome }
    }

    /// Canceled by the caller.
    pub fn cancel(&mut self, now: Timestamp, outcome: Outcome) {
        let outcome = self.certain(outcome);
        self.enter(Stage::Canceled { at: now, outcome });
        self.tell(EventType::ChargeCanceled, json!({ "outcome": outcome }));
    }

    /// Given up. The event says what the merchant can do.
    pub fn abandon(&mut self, now: Timestamp, reason: &str, outcome: Outcome) {
        self.abandon_with(now, reason, outcome, json!({}));
    }

    /// As [`Self::abandon`], with more to say.
    pub fn abandon_with(&mut self, now: Timestamp, reason: &str, outcome: Outcome, extra: Value) {
        let outcome = self.certain(outcome);
        self.enter(Stage::Abandoned { at: now, reason: reason.to_owned(), outcome });
        let mut data = json!({ "reason": reason, "outcome": outcome, "whatToDo": what_to_do(reason, outcome, self.about.kind.as_ref()) });
        if let Some(by) = self.about.closed_by {
            data["closedBy"] = json!(by);
            data["reasonCodes"] = json!(self.about.reasons);
        }
        if let (Some(data), Value::Object(extra)) = (data.as_object_mut(), extra) {
            data.extend(extra);
        }
        self.tell(EventType::ChargeAbandoned, data);
    }

    /// Resolves the current number by a definite answer: the next send takes the next number. The charge of the number before is no
    /// longer the intent's: what a late notification says about it must not settle the new number.
    pub fn next_number(&mut self) {
        self.intent.number = self.intent.number.next();
        self.intent.progress.charge = None;
        self.intent.progress.declined_charge = None;
        self.intent.progress.authorized_at = None;
        self.intent.progress.expiring_told = false;
        self.intent.progress.failure_answered = false;
        if self.intent.capture_wish().is_some() {
            capture::forget(self);
        }
    }

    /// Ends an intent whose number is still unknown, as the caller wished or because time is up.
    pub fn end_unverified(&mut self, now: Timestamp, reason: &str) {
        if self.intent.cancel_requested_at.is_some() {
            self.cancel(now, Outcome::Unverified);
        } else {
            self.abandon(now, reason, Outcome::Unverified);
        }
    }

    /// Whether a number is unknown.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.intent.number.status == NumberStatus::Unknown
    }
}

/// What the merchant does about an abandoned charge (guides REC G9, G18; SW G16).
fn what_to_do(reason: &str, outcome: Outcome, kind: Option<&PermissionKind>) -> &'static str {
    if outcome == Outcome::Unverified {
        return "look in Seller Central whether a charge exists before charging in another way";
    }
    match reason {
        "ExpiredUnused" => {
            "the authorisation lapsed before it was captured: submit a new charge under another id, and capture it within 30 days"
        }
        "TransactionAmountExceeded" => "charge a smaller amount, or ask for another payment method",
        "PeriodicAmountExceeded" => "the monthly limit stays in the way: ask for another payment method",
        _ => reengage(kind),
    }
}

/// What brings a consent back (guides REC G9, G16, G18; SW G16).
pub(super) fn reengage(kind: Option<&PermissionKind>) -> &'static str {
    match kind {
        Some(PermissionKind::Recurring) => "re-engage the buyer before the next cycle: a new checkout is needed",
        Some(PermissionKind::PaymentMethodOnFile) => {
            "re-engage the buyer before the next charge: the Saved Wallet has to be set up again"
        }
        Some(PermissionKind::OneTime) => "ask the buyer for a new checkout",
        None | Some(PermissionKind::Other(_)) => {
            "re-engage the buyer before the next cycle: a new checkout (recurring), or setting up the Saved Wallet again"
        }
    }
}

/// The kind of consent in words, for events.
#[must_use]
pub fn kind_text(kind: Option<&PermissionKind>) -> Option<&str> {
    kind.map(PermissionKind::as_str)
}

#[cfg(test)]
pub(crate) mod testing {
    //! Values that the tests of the pure core start from.

    use super::*;
    use crate::model::charge_intent::{Number, Progress, Wishes};
    use crate::model::charge_request::ChargeRequest;
    use crate::model::money::Money;
    use crate::model::permission::{PermissionState, PermissionView};

    pub(crate) fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    pub(crate) fn start() -> Timestamp {
        at("2026-01-30T10:00:00Z")
    }

    pub(crate) fn intent() -> ChargeIntent {
        let request = ChargeRequest {
            charge_permission_id: "C01-0000000-0000001".parse().unwrap(),
            charge_amount: Money::parse("14.00", "USD".parse().unwrap()).unwrap(),
            capture_now: true,
            soft_descriptor: None,
            can_handle_pending_authorization: false,
            merchant_metadata: None,
            provider_metadata: None,
            charge_initiator: None,
            channel: None,
            platform_id: None,
            simulation_code: None,
        };
        ChargeIntent {
            id: "renewal-1".parse().unwrap(),
            request,
            policy: None,
            submitted_at: start(),
            number: Number::fresh(0),
            cancel_requested_at: None,
            capture: None,
            stopped_ms: 0,
            wishes: Wishes::default(),
            progress: Progress::new(Stage::Scheduled { at: start(), why: Why::Attempt }, start()),
        }
    }

    /// The intent after its number was marked `sends` times, the last time at `last`.
    pub(crate) fn marked(sends: u32, last: Timestamp, tainted: bool) -> ChargeIntent {
        let mut intent = intent();
        intent.number.status = NumberStatus::Unknown;
        intent.number.sends = sends;
        intent.number.first_mark = Some(start());
        intent.number.last_mark = Some(last);
        intent.number.tainted = tainted;
        intent
    }

    pub(crate) fn view(state: PermissionState, reasons: &[&str]) -> PermissionView {
        PermissionView {
            id: "C01-0000000-0000001".parse().unwrap(),
            kind: Some(PermissionKind::Recurring),
            state,
            reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
            release_environment: Some(crate::model::ids::Environment::Sandbox),
            amount_limit: None,
            amount_balance: None,
            instrument: Some(digest("Visa ****1111")),
        }
    }

    pub(crate) fn digest(descriptor: &str) -> InstrumentDigest {
        InstrumentDigest::of(&"A1".parse().unwrap(), &"C01-0000000-0000001".parse().unwrap(), descriptor)
    }

    pub(crate) fn kinds(draft: &Draft) -> Vec<&'static str> {
        draft.events.iter().map(|event| event.kind.trim_start_matches("amazonpay.").trim_end_matches(".v1")).collect()
    }
}
