//! Charges: what Create, Capture, Cancel and Get do, under each of the readings of Amazon's idempotency.

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;

use super::Reading;
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

/// What one evaluation of Create Charge or Capture Charge does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Succeeds as asked: Captured with `captureNow`, else Authorized.
    Capture,
    /// Only authorises, though a capture was asked for.
    Authorize,
    /// `AuthorizationInitiated` if the merchant can handle that, else declines as timed out.
    Pend,
    /// `CaptureInitiated`.
    PendCapture,
    /// Declines, with the usual effect on the permission.
    Decline(DeclineCode),
    /// Declines and leaves the permission as it is.
    DeclineStayingChargeable(DeclineCode),
    /// Declines and turns the permission NonChargeable/PaymentMethodInvalid.
    DeclineTurningNonChargeable(DeclineCode),
    /// Answers with any status and reason code, known or not, and makes no charge.
    Answer(u16, String),
}

/// What an evaluation comes to, before anything is written.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Success(ChargeState),
    Declined(DeclineCode, Option<(PermissionState, &'static str)>),
    Refused(Refusal),
}

const CAPTURE_IS_ASYNCHRONOUS_AFTER: SignedDuration = SignedDuration::from_hours(7 * 24);
const AUTHORIZATION_EXPIRES_AFTER: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The outcome that the header `x-amz-pay-simulation-code` orders on Create Charge.
///
/// The documented codes; how the `Pending…` variants go on is not documented, so every one of them pends.
pub(super) fn simulated(code: &str, request: &ChargeRequest) -> Result<Outcome, Refusal> {
    match code {
        "SoftDeclined" => Ok(Outcome::Decline(DeclineCode::SoftDeclined)),
        "HardDeclined" => Ok(Outcome::Decline(DeclineCode::HardDeclined)),
        "AmazonRejected" => Ok(Outcome::Decline(DeclineCode::AmazonRejected)),
        "TransactionTimedOut" => Ok(Outcome::Decline(DeclineCode::TransactionTimedOut)),
        "CaptureInitiated" if request.capture_now => Ok(Outcome::PendCapture),
        _ if code.starts_with("Pending") && request.can_pend => Ok(Outcome::Pend),
        _ => Err(invalid_simulation(code)),
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
        Outcome::Pend if request.can_pend => Verdict::Success(ChargeState::AuthorizationInitiated),
        Outcome::Pend => Verdict::Declined(DeclineCode::TransactionTimedOut, None),
        Outcome::PendCapture => Verdict::Success(ChargeState::CaptureInitiated),
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
        let scripted = self.permissions.get_mut(id).and_then(|permission| permission.script.pop_front());
        let outcome = simulated.or(scripted).unwrap_or(Outcome::Capture);
        match verdict(outcome, request) {
            Verdict::Refused(refusal) => Err(refusal),
            Verdict::Success(state) => {
                let place = self.enter(key, request, state, None, now)?;
                if state.is_pending() {
                    self.turn(id, PermissionState::NonChargeable, &[CHARGE_IN_PROGRESS], now);
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

    /// The place of a charge, after letting it expire if its time has come.
    pub(super) fn find(&mut self, id: &str, now: Timestamp) -> Result<usize, Refusal> {
        let place = *self.charge_places.get(id).ok_or_else(|| Refusal::not_found(id))?;
        let charge = &self.charges[place];
        if charge.state == ChargeState::Authorized
            && now.duration_since(charge.created_at) > AUTHORIZATION_EXPIRES_AFTER
        {
            self.move_charge(place, ChargeState::Canceled, Some("ExpiredUnused"), now);
        }
        Ok(place)
    }

    /// Get Charge.
    pub(super) fn get_charge(&mut self, id: &str, now: Timestamp) -> Result<Answer, Refusal> {
        let place = self.find(id, now)?;
        Ok(Answer::of_charge(200, &self.charges[place]))
    }

    /// Cancel Charge.
    pub(super) fn cancel_charge(&mut self, id: &str, now: Timestamp) -> Result<Answer, Refusal> {
        let place = self.find(id, now)?;
        if !matches!(self.charges[place].state, ChargeState::AuthorizationInitiated | ChargeState::Authorized) {
            return Err(self.charges[place].invalid_status());
        }
        self.move_charge(place, ChargeState::Canceled, Some("MerchantCanceled"), now);
        Ok(Answer::of_charge(200, &self.charges[place]))
    }

    /// Capture Charge, its headers and body having been read.
    pub(super) fn capture_charge(&mut self, id: &str, key: &str, request: &CaptureRequest, now: Timestamp) -> Answer {
        let place = match self.find(id, now) {
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
        let code = match scripted.unwrap_or(if late { Outcome::PendCapture } else { Outcome::Capture }) {
            Outcome::Answer(status, code) => return Err(Refusal::new(status, code, "Scripted answer")),
            Outcome::Decline(code)
            | Outcome::DeclineStayingChargeable(code)
            | Outcome::DeclineTurningNonChargeable(code) => code,
            outcome => {
                let pending = matches!(outcome, Outcome::Pend | Outcome::PendCapture);
                let state = if pending { ChargeState::CaptureInitiated } else { ChargeState::Captured };
                self.charges[place].captured = Some(request.price.amount);
                self.charges[place].soft_descriptor.clone_from(&request.soft_descriptor);
                self.move_charge(place, state, None, now);
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
