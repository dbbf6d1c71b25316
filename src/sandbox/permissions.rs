//! Charge permissions: the buyers' consents, and what buyers, Amazon and declines do to them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

use super::charges::Outcome;
use super::ledger::{Books, ChargeState};
use super::sns::NotificationType;
use super::wire::{Answer, Refusal, permission_body};

/// The type of a charge permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PermissionKind {
    /// `S01-…`: one order.
    OneTime,
    /// `C01-…`: a subscription.
    Recurring,
    /// `B01-…`: a saved wallet.
    PaymentMethodOnFile,
}

impl PermissionKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::OneTime => "OneTime",
            Self::Recurring => "Recurring",
            Self::PaymentMethodOnFile => "PaymentMethodOnFile",
        }
    }

    pub(super) fn prefix(self) -> char {
        match self {
            Self::OneTime => 'S',
            Self::Recurring => 'C',
            Self::PaymentMethodOnFile => 'B',
        }
    }

    /// 180 days, 13 months, or never.
    pub(super) fn lifetime_days(self) -> Option<i64> {
        match self {
            Self::OneTime => Some(180),
            Self::Recurring => Some(396),
            Self::PaymentMethodOnFile => None,
        }
    }
}

/// What a new charge permission is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionSpec {
    /// The type.
    pub kind: PermissionKind,
    /// ISO 4217; a charge of another currency is refused.
    pub currency: String,
    /// What may be charged in a calendar month; `None` is shown as null, as in Amazon's sandbox, and limits nothing.
    pub monthly_limit: Option<Decimal>,
    /// The buyer's payment method as the buyer sees it.
    pub descriptor: String,
}

impl PermissionSpec {
    /// A permission of this type without a monthly limit.
    #[must_use]
    pub fn new(kind: PermissionKind, currency: &str) -> Self {
        let descriptor = "Visa ****1111 (Amazon Pay)".to_owned();
        Self { kind, currency: currency.to_owned(), monthly_limit: None, descriptor }
    }

    /// A recurring permission without a monthly limit.
    #[must_use]
    pub fn recurring(currency: &str) -> Self {
        Self::new(PermissionKind::Recurring, currency)
    }

    /// The same with a monthly limit.
    #[must_use]
    pub fn with_monthly_limit(self, limit: Decimal) -> Self {
        Self { monthly_limit: Some(limit), ..self }
    }
}

/// The state of a charge permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PermissionState {
    /// May be charged.
    Chargeable,
    /// May not be charged now.
    NonChargeable,
    /// Can never be charged again.
    Closed,
}

impl PermissionState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Chargeable => "Chargeable",
            Self::NonChargeable => "NonChargeable",
            Self::Closed => "Closed",
        }
    }
}

/// A charge permission with its inner life.
#[derive(Debug)]
pub(super) struct Permission {
    pub(super) id: String,
    pub(super) spec: PermissionSpec,
    /// `None` after the buyer deleted the payment method.
    pub(super) descriptor: Option<String>,
    pub(super) state: PermissionState,
    pub(super) reasons: Vec<String>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    /// What the next evaluations of Create Charge do.
    pub(super) script: std::collections::VecDeque<Outcome>,
    /// What the next evaluations of Capture Charge do.
    pub(super) capture_script: std::collections::VecDeque<Outcome>,
    /// The charges of this permission, by their place in the ledger.
    pub(super) charges: Vec<usize>,
}

/// The reason of a permission that waits for its own pending charge.
pub(super) const CHARGE_IN_PROGRESS: &str = "ChargeInProgress";

impl Permission {
    fn has_reason(&self, reason: &str) -> bool {
        self.reasons.iter().any(|own| own == reason)
    }
}

impl Books {
    /// A new permission, Chargeable. Sends no notification: the merchant learns of it at the checkout.
    pub(super) fn create_permission(&mut self, spec: PermissionSpec, now: Timestamp) -> String {
        let id = self.next_permission_id(spec.kind.prefix());
        let permission = Permission {
            id: id.clone(),
            descriptor: Some(spec.descriptor.clone()),
            spec,
            state: PermissionState::Chargeable,
            reasons: Vec::new(),
            created_at: now,
            updated_at: now,
            script: std::collections::VecDeque::new(),
            capture_script: std::collections::VecDeque::new(),
            charges: Vec::new(),
        };
        self.permissions.insert(id.clone(), permission);
        id
    }

    /// Changes the state and tells the merchant if it is truly another one. Closed is final.
    pub(super) fn turn(&mut self, id: &str, state: PermissionState, reasons: &[&str], now: Timestamp) {
        let Some(permission) = self.permissions.get_mut(id) else { return };
        let same = permission.state == state && permission.reasons == reasons;
        if same || permission.state == PermissionState::Closed {
            return;
        }
        let (was, is) = (permission.has_reason(CHARGE_IN_PROGRESS), reasons.contains(&CHARGE_IN_PROGRESS));
        permission.state = state;
        permission.reasons = reasons.iter().map(|reason| (*reason).to_owned()).collect();
        permission.updated_at = now;
        // A pending charge is announced by its own CHARGE notification; nothing documents a second one for the permission.
        let only_pending = is || (was && state == PermissionState::Chargeable);
        if !only_pending {
            self.notify_permission(id, NotificationType::StateChange, now);
        }
    }

    /// The buyer chose another payment method, or mended the one there is.
    pub(super) fn update_instrument(&mut self, id: &str, descriptor: &str, now: Timestamp) {
        let Some(permission) = self.permissions.get_mut(id) else { return };
        if permission.state == PermissionState::Closed {
            return;
        }
        permission.descriptor = Some(descriptor.to_owned());
        permission.updated_at = now;
        if permission.state == PermissionState::NonChargeable && !permission.has_reason(CHARGE_IN_PROGRESS) {
            self.turn(id, PermissionState::Chargeable, &[], now);
        } else {
            self.notify_permission(id, NotificationType::AttributeChange, now);
        }
    }

    /// The buyer deleted the payment method.
    pub(super) fn delete_instrument(&mut self, id: &str, now: Timestamp) {
        if let Some(permission) = self.permissions.get_mut(id) {
            permission.descriptor = None;
        }
        self.turn(id, PermissionState::NonChargeable, &["PaymentMethodDeleted"], now);
    }

    /// Ends `ChargeInProgress` once no charge is pending any more.
    pub(super) fn settle(&mut self, id: &str, now: Timestamp) {
        let Some(permission) = self.permissions.get(id) else { return };
        let is_pending = |place: &usize| self.charges[*place].state.is_pending();
        if permission.has_reason(CHARGE_IN_PROGRESS) && !permission.charges.iter().any(is_pending) {
            self.turn(id, PermissionState::Chargeable, &[], now);
        }
    }

    /// Get Charge Permission.
    pub(super) fn get_permission(&self, id: &str, now: Timestamp) -> Result<Answer, Refusal> {
        let permission = self.permissions.get(id).ok_or_else(|| Refusal::not_found(id))?;
        Ok(Answer::of_permission(permission_body(permission, self.balance(permission, now))))
    }

    /// Close Charge Permission.
    pub(super) fn close_permission(
        &mut self,
        id: &str,
        cancel_pending: bool,
        reason: &str,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let permission = self.permissions.get(id).ok_or_else(|| Refusal::not_found(id))?;
        if permission.state == PermissionState::Closed {
            let message = format!("The Charge Permission {id} is Closed");
            return Err(Refusal::new(422, "InvalidChargePermissionStatus", message));
        }
        let places = permission.charges.clone();
        self.turn(id, PermissionState::Closed, &[reason], now);
        for place in places {
            let open =
                matches!(self.charges[place].state, ChargeState::AuthorizationInitiated | ChargeState::Authorized);
            if cancel_pending && open {
                self.move_charge(place, ChargeState::Canceled, Some("ChargePermissionCanceled"), now);
            }
        }
        self.get_permission(id, now)
    }

    /// What is left of the monthly limit; `None` without a limit.
    ///
    /// The month is the calendar month in UTC: Amazon resets on the 1st, the time zone is not documented.
    pub(super) fn balance(&self, permission: &Permission, now: Timestamp) -> Option<Decimal> {
        let limit = permission.spec.monthly_limit?;
        let month = |timestamp: Timestamp| timestamp.to_zoned(TimeZone::UTC).date().first_of_month();
        let spent: Decimal = permission
            .charges
            .iter()
            .map(|place| &self.charges[*place])
            .filter(|charge| month(charge.created_at) == month(now))
            .filter(|charge| !matches!(charge.state, ChargeState::Canceled | ChargeState::Declined))
            .map(|charge| charge.captured.unwrap_or(charge.request.price.amount))
            .sum();
        Some((limit - spent).max(Decimal::ZERO))
    }
}
