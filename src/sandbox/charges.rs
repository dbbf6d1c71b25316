//! Charges: what Create, Capture, Cancel and Get do, under each of the readings of Amazon's idempotency.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

use super::Reading;
use super::agenda::{Due, SIMULATED_DECISION_AFTER};
use super::ledger::{Books, Charge, ChargeState, Kept};
use super::permissions::{CHARGE_IN_PROGRESS, Permission, PermissionState};
use super::wire::{Answer, CaptureRequest, ChargeRequest, Price, Refusal};

/// Why a charge is declined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeclineCode {
    /// 422; may succeed later.
    SoftDeclined,
    /// 422; turns the permission NonChargeable/PaymentMethodInvalid.
    HardDeclined,
    /// 422; closes the permission.
    AmazonRejected,
    /// 422.
    TransactionTimedOut,
    /// 500, and yet a decline.
    ProcessingFailure,
    /// 422; turns the permission NonChargeable/PaymentMethodNotAllowed.
    PaymentMethodNotAllowed,
    /// 422; turns the permission NonChargeable/MFAFailed.
    MfaNotCompleted,
    /// 422.
    TransactionCountExceeded,
}

impl DeclineCode {
    /// The reason code on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SoftDeclined => "SoftDeclined",
            Self::HardDeclined => "HardDeclined",
            Self::AmazonRejected => "AmazonRejected",
            Self::TransactionTimedOut => "TransactionTimedOut",
            Self::ProcessingFailure => "ProcessingFailure",
            Self::PaymentMethodNotAllowed => "PaymentMethodNotAllowed",
            Self::MfaNotCompleted => "MFANotCompleted",
            Self::TransactionCountExceeded => "TransactionCountExceeded",
        }
    }

    /// Every reason of a decline.
    pub const ALL: [Self; 8] = [
        Self::SoftDeclined,
        Self::HardDeclined,
        Self::AmazonRejected,
        Self::TransactionTimedOut,
        Self::ProcessingFailure,
        Self::PaymentMethodNotAllowed,
        Self::MfaNotCompleted,
        Self::TransactionCountExceeded,
    ];

    fn status(self) -> u16 {
        if self == Self::ProcessingFailure { 500 } else { 422 }
    }

    /// What such a decline usually does to the permission.
    fn effect(self) -> Option<(PermissionState, &'static str)> {
        match self {
            Self::HardDeclined => Some((PermissionState::NonChargeable, "PaymentMethodInvalid")),
            Self::PaymentMethodNotAllowed => Some((PermissionState::NonChargeable, "PaymentMethodNotAllowed")),
            Self::MfaNotCompleted => Some((PermissionState::NonChargeable, "MFAFailed")),
            Self::AmazonRejected => Some((PermissionState::Closed, "AmazonCanceled")),
            _ => None,
        }
    }

    fn refusal(self) -> Refusal {
        Refusal::new(self.status(), self.as_str(), format!("The charge was declined: {}", self.as_str()))
    }
}

impl std::str::FromStr for DeclineCode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|code| code.as_str() == text);
        found.ok_or_else(|| format!("expected the reason code of a decline such as SoftDeclined, got {text:?}"))
    }
}

/// Why a charge may be Canceled: the documented reason codes.
pub const CANCELED_REASONS: [&str; 5] =
    ["ExpiredUnused", "AmazonCanceled", "MerchantCanceled", "ChargePermissionCanceled", "BuyerCanceled"];

/// What one evaluation of Create Charge or Capture Charge does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Succeeds as asked: Captured with `captureNow`, else Authorized.
    Capture,
    /// Only authorises, though a capture was asked for.
    Authorize,
    /// `AuthorizationInitiated` if the merchant can handle that, else declines as timed out.
    Pend,
    /// As [`Outcome::Pend`], decided after 30 s: authorised (captured, if that was asked for) or declined.
    PendThen(Option<DeclineCode>),
    /// `CaptureInitiated`.
    PendCapture,
    /// As [`Outcome::PendCapture`], decided after 30 s: captured or declined.
    PendCaptureThen(Option<DeclineCode>),
    /// Declines, with the usual effect on the permission.
    Decline(DeclineCode),
    /// Declines and leaves the permission as it is.
    DeclineStayingChargeable(DeclineCode),
    /// Declines and turns the permission NonChargeable/PaymentMethodInvalid.
    DeclineTurningNonChargeable(DeclineCode),
    /// Answers with any status and reason code, known or not, and makes no charge.
    Answer(u16, String),
}

impl Outcome {
    /// What the payment method of Amazon's sandbox wallet with this ending does: 0701 pends and is authorised, 4354 pends and is
    /// declined, each only for who can handle that.
    fn of_card(descriptor: Option<&str>, request: &ChargeRequest) -> Self {
        let ends_in = |digits: &str| descriptor.is_some_and(|text| text.contains(digits));
        match () {
            () if request.can_pend && ends_in("0701") => Self::PendThen(None),
            () if request.can_pend && ends_in("4354") => Self::PendThen(Some(DeclineCode::HardDeclined)),
            () => Self::Capture,
        }
    }

    /// After which time Amazon decides what this leaves pending, and how; `None` if somebody else has to.
    fn decision(&self, settle_after: Option<Duration>) -> Option<(Duration, Option<DeclineCode>)> {
        match self {
            Self::PendThen(decline) | Self::PendCaptureThen(decline) => Some((SIMULATED_DECISION_AFTER, *decline)),
            _ => settle_after.map(|time| (time, None)),
        }
    }
}

/// What an evaluation comes to, before anything is written.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Success(ChargeState),
    Declined(DeclineCode, Option<(PermissionState, &'static str)>),
    Refused(Refusal),
}

const CAPTURE_IS_ASYNCHRONOUS_AFTER: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The outcome that the header `x-amz-pay-simulation-code` orders on Create Charge.
///
/// The documented codes. How the `Pending…` variants are spelled is not documented, so whatever begins like that pends, and is
/// declined after 30 s if a reason code of a decline follows (`PendingHardDeclined`), authorised otherwise.
pub(super) fn simulated(code: &str, request: &ChargeRequest) -> Result<Outcome, Refusal> {
    match code {
        "SoftDeclined" => Ok(Outcome::Decline(DeclineCode::SoftDeclined)),
        "HardDeclined" => Ok(Outcome::Decline(DeclineCode::HardDeclined)),
        "AmazonRejected" => Ok(Outcome::Decline(DeclineCode::AmazonRejected)),
        "TransactionTimedOut" => Ok(Outcome::Decline(DeclineCode::TransactionTimedOut)),
        "CaptureInitiated" if request.capture_now => Ok(Outcome::PendCapture),
        _ => match code.strip_prefix("Pending") {
            Some(end) if request.can_pend => Ok(Outcome::PendThen(end.parse().ok())),
            _ => Err(invalid_simulation(code)),
        },
    }
}

/// The refusal of a simulation code that does not fit the call.
pub(super) fn invalid_simulation(code: &str) -> Refusal {
    let message = format!("The simulation code {code} does not fit this request");
    Refusal::new(400, "InvalidSandboxSimulationSpecified", message)
}

/// What stands against charging this permission at all.
fn status_refusal(permission: &Permission) -> Option<Refusal> {
    (permission.state != PermissionState::Chargeable).then(|| {
        let message = format!("The Charge Permission {} is {}", permission.id, permission.state.as_str());
        Refusal::new(422, "InvalidChargePermissionStatus", message)
    })
}

/// What stands against this price: currency, limit of one charge, limit of the month.
fn price_refusal(permission: &Permission, balance: Option<Decimal>, price: &Price) -> Option<Refusal> {
    let most = Decimal::from(if price.currency == "JPY" { 10_000_000 } else { 150_000 });
    if price.currency != permission.spec.currency {
        Some(Refusal::new(400, "CurrencyMismatch", "The currency is not the one of the Charge Permission"))
    } else if price.amount > most {
        Some(Refusal::new(400, "TransactionAmountExceeded", "The amount exceeds the limit of one charge"))
    } else if balance.is_some_and(|balance| price.amount > balance) {
        let message = "You've exceeded the monthly limit for the Charge Permission and must wait until the next month to \
                       charge this buyer.";
        Some(Refusal::new(400, "PeriodicAmountExceeded", message))
    } else {
        None
    }
}

/// What an outcome means for this request.
fn verdict(outcome: Outcome, request: &ChargeRequest) -> Verdict {
    let invalid_method = Some((PermissionState::NonChargeable, "PaymentMethodInvalid"));
    match outcome {
        Outcome::Capture if request.capture_now => Verdict::Success(ChargeState::Captured),
        Outcome::Capture | Outcome::Authorize => Verdict::Success(ChargeState::Authorized),
        Outcome::Pend | Outcome::PendThen(_) if request.can_pend => {
            Verdict::Success(ChargeState::AuthorizationInitiated)
        }
        Outcome::Pend | Outcome::PendThen(_) => Verdict::Declined(DeclineCode::TransactionTimedOut, None),
        Outcome::PendCapture | Outcome::PendCaptureThen(_) => Verdict::Success(ChargeState::CaptureInitiated),
        Outcome::Decline(code) => Verdict::Declined(code, code.effect()),
        Outcome::DeclineStayingChargeable(code) => Verdict::Declined(code, None),
        Outcome::DeclineTurningNonChargeable(code) => Verdict::Declined(code, invalid_method),
        Outcome::Answer(status, code) => Verdict::Refused(Refusal::new(status, code, "Scripted answer")),
    }
}

/// A call that carries an idempotency key.
pub(super) struct Keyed<'a> {
    pub(super) key: &'a str,
    /// From the header; wins over the script.
    pub(super) simulated: Option<Outcome>,
}

impl Books {
    /// Create Charge, its headers and body having been read.
    pub(super) fn create_charge(&mut self, call: Keyed<'_>, request: &ChargeRequest, now: Timestamp) -> Answer {
        let permission = self.permissions.get(&request.permission_id);
        if self.reading == Reading::StatusFirst
            && let Some(refusal) = permission.and_then(status_refusal)
        {
            return refusal.into();
        }
        let fingerprint = ("/v2/charges".to_owned(), request.body.clone());
        if let Some(answer) = self.kept_answer(call.key, &fingerprint) {
            return answer;
        }
        let answer = self.evaluate(call.key, call.simulated, request, now).unwrap_or_else(Answer::from);
        self.keep(call.key, fingerprint, &answer);
        answer
    }

    /// What the idempotency key already answers, if anything.
    pub(super) fn kept_answer(&self, key: &str, fingerprint: &(String, serde_json::Value)) -> Option<Answer> {
        let kept = self.keys.get(key)?;
        if kept.fingerprint != *fingerprint {
            let message = "The idempotency key was used before with other values";
            return Some(Refusal::new(400, "DuplicateIdempotencyKey", message).into());
        }
        let again = self.reading == Reading::ReEvaluate && !kept.answer.is_success() && !kept.pinned;
        (!again).then(|| Answer { replayed: true, ..kept.answer.clone() })
    }

    pub(super) fn keep(&mut self, key: &str, fingerprint: (String, serde_json::Value), answer: &Answer) {
        // An id that does not exist gives nothing to evaluate.
        if answer.status != 404 {
            self.keys.insert(key.to_owned(), Kept { fingerprint, answer: answer.clone(), pinned: false });
        }
    }

    /// From now on the key answers this, whatever really happened.
    pub(super) fn pin(&mut self, key: &str, refusal: &Refusal) {
        if let Some(kept) = self.keys.get_mut(key) {
            kept.answer = refusal.clone().into();
            kept.pinned = true;
        }
    }

    fn evaluate(
        &mut self,
        key: &str,
        simulated: Option<Outcome>,
        request: &ChargeRequest,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let id = &request.permission_id;
        let permission = self.permissions.get(id).ok_or_else(|| Refusal::not_found(id))?;
        let balance = self.balance(permission, now);
        if let Some(refusal) = status_refusal(permission).or_else(|| price_refusal(permission, balance, &request.price))
        {
            return Err(refusal);
        }
        let by_card = Outcome::of_card(permission.descriptor.as_deref(), request);
        let scripted = self.permissions.get_mut(id).and_then(|permission| permission.script.pop_front());
        let outcome = simulated.or(scripted).unwrap_or(by_card);
        let decision = outcome.decision(self.settle_after);
        match verdict(outcome, request) {
            Verdict::Refused(refusal) => Err(refusal),
            Verdict::Success(state) => {
                let place = self.enter(key, request, state, None, now)?;
                if state.is_pending() {
                    self.turn(id, PermissionState::NonChargeable, &[CHARGE_IN_PROGRESS], now);
                    self.decide_later(place, decision, now);
                }
                Ok(Answer::of_charge(201, &self.charges[place]))
            }
            Verdict::Declined(code, effect) => {
                let place = self.enter(key, request, ChargeState::Declined, Some(code), now)?;
                if let Some((state, reason)) = effect {
                    self.turn(id, state, &[reason], now);
                }
                // The body of a decline names no charge; the notification does, so the ledger must.
                let charge_id = Some(self.charges[place].id.clone());
                Ok(Answer { charge_id, ..Answer::from(code.refusal()) })
            }
        }
    }

    fn enter(
        &mut self,
        key: &str,
        request: &ChargeRequest,
        state: ChargeState,
        reason: Option<DeclineCode>,
        now: Timestamp,
    ) -> Result<usize, Refusal> {
        let paid = matches!(state, ChargeState::Captured | ChargeState::CaptureInitiated);
        let charge = Charge {
            id: String::new(),
            request: request.clone(),
            key: key.to_owned(),
            state,
            reason_code: reason.map(|code| code.as_str().to_owned()),
            captured: paid.then_some(request.price.amount),
            // With the decimals of the amount.
            refunded: Decimal::new(0, request.price.amount.scale()),
            refunding: Decimal::ZERO,
            soft_descriptor: request.soft_descriptor.clone(),
            created_at: now,
            updated_at: now,
        };
        self.enter_charge(charge, now).ok_or_else(|| Refusal::not_found(&request.permission_id))
    }

    /// The place of a charge.
    pub(super) fn find(&self, id: &str) -> Result<usize, Refusal> {
        let place = *self.charge_places.get(id).ok_or_else(|| Refusal::not_found(id))?;
        Ok(place)
    }

    fn decide_later(&mut self, place: usize, decision: Option<(Duration, Option<DeclineCode>)>, now: Timestamp) {
        if let Some((after, decline)) = decision {
            let id = self.charges[place].id.clone();
            self.schedule(now, after, Due::Decision(id, decline));
        }
    }

    /// Get Charge.
    pub(super) fn get_charge(&self, id: &str) -> Result<Answer, Refusal> {
        let place = self.find(id)?;
        Ok(Answer::of_charge(200, &self.charges[place]))
    }

    /// Cancel Charge.
    pub(super) fn cancel_charge(&mut self, id: &str, now: Timestamp) -> Result<Answer, Refusal> {
        let place = self.find(id)?;
        if !matches!(self.charges[place].state, ChargeState::AuthorizationInitiated | ChargeState::Authorized) {
            return Err(self.charges[place].invalid_status());
        }
        self.move_charge(place, ChargeState::Canceled, Some("MerchantCanceled"), now);
        Ok(Answer::of_charge(200, &self.charges[place]))
    }

    /// Capture Charge, its headers and body having been read.
    pub(super) fn capture_charge(&mut self, id: &str, key: &str, request: &CaptureRequest, now: Timestamp) -> Answer {
        let place = match self.find(id) {
            Ok(place) => place,
            Err(refusal) => return refusal.into(),
        };
        if self.reading == Reading::StatusFirst && self.charges[place].state != ChargeState::Authorized {
            return self.charges[place].invalid_status().into();
        }
        let fingerprint = (format!("/v2/charges/{id}/capture"), request.body.clone());
        if let Some(answer) = self.kept_answer(key, &fingerprint) {
            return answer;
        }
        let answer = self.evaluate_capture(place, request, now).unwrap_or_else(Answer::from);
        self.keep(key, fingerprint, &answer);
        answer
    }

    fn evaluate_capture(&mut self, place: usize, request: &CaptureRequest, now: Timestamp) -> Result<Answer, Refusal> {
        let charge = &self.charges[place];
        if charge.state != ChargeState::Authorized {
            return Err(charge.invalid_status());
        }
        if request.price.currency != charge.request.price.currency {
            return Err(Refusal::new(400, "CurrencyMismatch", "The currency is not the one of the charge"));
        }
        if request.price.amount > charge.request.price.amount {
            return Err(Refusal::new(400, "TransactionAmountExceeded", "More than was authorised"));
        }
        let late = now.duration_since(charge.created_at) > CAPTURE_IS_ASYNCHRONOUS_AFTER;
        let permission = charge.request.permission_id.clone();
        let scripted = self.permissions.get_mut(&permission).and_then(|known| known.capture_script.pop_front());
        let outcome = scripted.unwrap_or(if late { Outcome::PendCapture } else { Outcome::Capture });
        let decision = outcome.decision(self.settle_after);
        let code = match outcome {
            Outcome::Answer(status, code) => return Err(Refusal::new(status, code, "Scripted answer")),
            Outcome::Decline(code)
            | Outcome::DeclineStayingChargeable(code)
            | Outcome::DeclineTurningNonChargeable(code) => code,
            outcome => {
                let pending = !matches!(outcome, Outcome::Capture | Outcome::Authorize);
                let state = if pending { ChargeState::CaptureInitiated } else { ChargeState::Captured };
                self.charges[place].captured = Some(request.price.amount);
                self.charges[place].soft_descriptor.clone_from(&request.soft_descriptor);
                self.move_charge(place, state, None, now);
                if pending {
                    self.decide_later(place, decision, now);
                }
                return Ok(Answer::of_charge(200, &self.charges[place]));
            }
        };
        // After an internal failure the authorisation still stands.
        if code != DeclineCode::ProcessingFailure {
            self.move_charge(place, ChargeState::Declined, Some(code.as_str()), now);
        }
        Err(code.refusal())
    }

    /// Amazon's late decision on a pending charge; false if the charge is unknown or not pending.
    pub(super) fn finish_pending(
        &mut self,
        id: &str,
        state: ChargeState,
        reason: Option<DeclineCode>,
        now: Timestamp,
    ) -> bool {
        let Some(place) = self.charge_places.get(id).copied() else { return false };
        if !self.charges[place].state.is_pending() {
            return false;
        }
        self.move_charge(place, state, reason.map(DeclineCode::as_str), now);
        let permission = self.charges[place].request.permission_id.clone();
        if let Some((state, reason)) = reason.and_then(DeclineCode::effect) {
            self.turn(&permission, state, &[reason], now);
        }
        true
    }
}
