//! Disputes: chargebacks that a buyer's bank files, and what becomes of them.
//!
//! Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/dispute.html>.

use std::time::Duration;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::ledger::Books;
use super::sns::ObjectType;
use super::wire::{Answer, Refusal, compact, price};
use super::{Sandbox, SandboxError};

/// The state of a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisputeState {
    /// Somebody looks into it.
    UnderReview,
    /// The merchant has to answer.
    ActionRequired,
    /// Decided.
    Resolved,
    /// Over.
    Closed,
}

impl DisputeState {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnderReview => "UnderReview",
            Self::ActionRequired => "ActionRequired",
            Self::Resolved => "Resolved",
            Self::Closed => "Closed",
        }
    }
}

/// What a new dispute is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisputeSpec {
    /// `None`: the whole charge.
    pub amount: Option<Decimal>,
    /// `Fraudulent`, `ProductNotReceived`, …
    pub filing_reason: String,
    /// The state that it begins in.
    pub state: DisputeState,
    /// Why it is in that state.
    pub reason_code: Option<String>,
    /// How long the merchant has to answer; `None` shows no deadline.
    pub response_within: Option<Duration>,
}

impl DisputeSpec {
    /// About the whole charge: ActionRequired/MerchantResponseRequired, to be answered within 11 days.
    #[must_use]
    pub fn chargeback(filing_reason: &str) -> Self {
        Self {
            amount: None,
            filing_reason: filing_reason.to_owned(),
            state: DisputeState::ActionRequired,
            reason_code: Some("MerchantResponseRequired".to_owned()),
            response_within: Some(Duration::from_hours(11 * 24)),
        }
    }
}

/// Where a dispute goes next. What is not given is null from then on, but the deadline stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisputeMove {
    /// The new state.
    pub state: DisputeState,
    /// `BuyerWon`, `MerchantWon`, `NoFault`.
    pub resolution: Option<String>,
    /// `InvestigatorResolved`, `MerchantResponseDeadlineExpired`, …
    pub reason_code: Option<String>,
    /// Another deadline.
    pub deadline: Option<Timestamp>,
}

impl DisputeMove {
    /// To this state, nothing else said.
    #[must_use]
    pub fn to(state: DisputeState) -> Self {
        Self { state, resolution: None, reason_code: None, deadline: None }
    }

    /// The same with a resolution.
    #[must_use]
    pub fn with_resolution(self, resolution: &str) -> Self {
        Self { resolution: Some(resolution.to_owned()), ..self }
    }

    /// The same with a reason code.
    #[must_use]
    pub fn with_reason(self, code: &str) -> Self {
        Self { reason_code: Some(code.to_owned()), ..self }
    }

    /// The same with another deadline for the merchant.
    #[must_use]
    pub fn with_deadline(self, deadline: Timestamp) -> Self {
        Self { deadline: Some(deadline), ..self }
    }
}

/// A dispute as Amazon keeps it, and as the auditor sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerDispute {
    /// The dispute.
    pub dispute_id: String,
    /// What is disputed.
    pub charge_id: String,
    /// The permission that was charged.
    pub permission: String,
    /// The amount.
    pub amount: Decimal,
    /// ISO 4217.
    pub currency: String,
    /// Why the buyer disputes it.
    pub filing_reason: String,
    /// The state now.
    pub state: DisputeState,
    /// Who won.
    pub resolution: Option<String>,
    /// Why it is in its state.
    pub reason_code: Option<String>,
    /// Until when the merchant can answer.
    pub deadline: Option<Timestamp>,
    /// When it was filed.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl LedgerDispute {
    fn body(&self) -> Value {
        json!({
            "disputeId": self.dispute_id,
            "releaseEnvironment": "Sandbox",
            "chargeId": self.charge_id,
            "disputeType": "Chargeback",
            "disputeAmount": price(self.amount, &self.currency),
            "filingReason": self.filing_reason,
            "statusDetails": {
                "state": self.state.as_str(),
                "resolution": self.resolution,
                "reasonCode": self.reason_code,
                "reasonDescription": self.reason_code.as_ref().map(|code| format!("Sandbox: {code}")),
            },
            "merchantEvidences": [],
            "merchantResponseDeadline": self.deadline.map(compact),
            "resolutionAuthority": self.resolution.as_ref().map(|_| "AmazonPay"),
            "creationTimestamp": compact(self.created_at),
        })
    }
}

impl Books {
    fn enter_dispute(&mut self, charge_id: &str, spec: DisputeSpec, now: Timestamp) -> Result<String, SandboxError> {
        let place = *self.charge_places.get(charge_id).ok_or_else(|| SandboxError::unknown("charge", charge_id))?;
        let charge = &self.charges[place];
        let permission = charge.request.permission_id.clone();
        let dispute_id = format!("{permission}-B{:06}", self.disputes.len() + 1);
        self.dispute_places.insert(dispute_id.clone(), self.disputes.len());
        self.disputes.push(LedgerDispute {
            dispute_id: dispute_id.clone(),
            charge_id: charge_id.to_owned(),
            permission: permission.clone(),
            amount: spec.amount.or(charge.captured).unwrap_or(charge.request.price.amount),
            currency: charge.request.price.currency.clone(),
            filing_reason: spec.filing_reason,
            state: spec.state,
            resolution: None,
            reason_code: spec.reason_code,
            deadline: spec.response_within.and_then(|time| now.checked_add(time).ok()),
            created_at: now,
            updated_at: now,
        });
        self.notify((ObjectType::Chargeback, &dispute_id), &permission, now);
        Ok(dispute_id)
    }

    fn move_dispute(&mut self, id: &str, change: DisputeMove, now: Timestamp) -> Result<(), SandboxError> {
        let place = *self.dispute_places.get(id).ok_or_else(|| SandboxError::unknown("dispute", id))?;
        let old = &self.disputes[place];
        let moved = LedgerDispute {
            state: change.state,
            resolution: change.resolution,
            reason_code: change.reason_code,
            deadline: change.deadline.or(old.deadline),
            ..old.clone()
        };
        if moved != *old {
            let permission = moved.permission.clone();
            self.disputes[place] = LedgerDispute { updated_at: now, ..moved };
            self.notify((ObjectType::Chargeback, id), &permission, now);
        }
        Ok(())
    }

    /// Get Dispute.
    pub(super) fn get_dispute(&self, id: &str) -> Result<Answer, Refusal> {
        let place = *self.dispute_places.get(id).ok_or_else(|| Refusal::not_found(id))?;
        let dispute = &self.disputes[place];
        Ok(Answer::of_object(200, dispute.body(), id, &dispute.charge_id, &dispute.permission))
    }
}

/// Disputes.
impl Sandbox {
    /// The buyer disputes a charge; gives the id of the dispute. Notified.
    ///
    /// # Errors
    /// If there is no such charge.
    pub fn open_dispute(&self, charge_id: &str, spec: DisputeSpec) -> Result<String, SandboxError> {
        let now = self.0.app.clock.now();
        self.books(|books| books.enter_dispute(charge_id, spec, now))
    }

    /// Moves a dispute. Notified if anything is different then.
    ///
    /// # Errors
    /// If there is no such dispute.
    pub fn move_dispute(&self, dispute_id: &str, change: DisputeMove) -> Result<(), SandboxError> {
        let now = self.0.app.clock.now();
        self.books(|books| books.move_dispute(dispute_id, change, now))
    }
}
