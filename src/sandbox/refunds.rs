//! Refunds: asked for by the merchant or made in Seller Central, always decided later.
//!
//! Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/refund.html>.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::ledger::{Books, ChargeState};
use super::sns::ObjectType;
use super::wire::{Answer, Fields, Price, Refusal, check_soft_descriptor, compact, price, read_json};
use super::{Sandbox, SandboxError};

/// The state of a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundState {
    /// Asked for.
    RefundInitiated,
    /// The buyer has the money.
    Refunded,
    /// Will not be.
    Declined,
}

impl RefundState {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RefundInitiated => "RefundInitiated",
            Self::Refunded => "Refunded",
            Self::Declined => "Declined",
        }
    }
}

/// A refund as Amazon keeps it, and as the auditor sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRefund {
    /// The refund.
    pub refund_id: String,
    /// What is refunded.
    pub charge_id: String,
    /// The permission that was charged.
    pub permission: String,
    /// The amount.
    pub amount: Decimal,
    /// ISO 4217.
    pub currency: String,
    /// The state now.
    pub state: RefundState,
    /// Why it was declined.
    pub reason_code: Option<String>,
    /// The key of the Create Refund that made it; `None` from Seller Central.
    pub idempotency_key: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it came to its state.
    pub updated_at: Timestamp,
    /// What the buyer reads.
    pub(super) soft_descriptor: Option<String>,
}

impl LedgerRefund {
    fn body(&self) -> Value {
        json!({
            "refundId": self.refund_id,
            "chargeId": self.charge_id,
            "refundAmount": price(self.amount, &self.currency),
            "softDescriptor": self.soft_descriptor,
            "creationTimestamp": compact(self.created_at),
            "statusDetails": {
                "state": self.state.as_str(),
                "reasonCode": self.reason_code,
                "reasonDescription": self.reason_code.as_ref().map(|code| format!("Sandbox: {code}")),
                "lastUpdatedTimestamp": compact(self.updated_at),
            },
            "releaseEnvironment": "Sandbox",
        })
    }

    fn answer(&self, status: u16) -> Answer {
        Answer::of_object(status, self.body(), &self.refund_id, &self.charge_id, &self.permission)
    }
}

/// The body of Create Refund, checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RefundRequest {
    pub(super) charge_id: String,
    pub(super) price: Price,
    pub(super) soft_descriptor: Option<String>,
    body: Value,
}

impl RefundRequest {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let body = read_json(bytes)?;
        let mut fields = Fields::new(body.clone(), "")?;
        let charge_id = fields.required_text("chargeId")?;
        let price = Price::read(fields.required("refundAmount")?, "refundAmount.")?;
        let soft_descriptor = fields.text("softDescriptor")?;
        fields.finish()?;
        check_soft_descriptor(soft_descriptor.as_deref())?;
        Ok(Self { charge_id, price, soft_descriptor, body })
    }
}

/// What may be refunded in all: more than was captured by 15 % or 75 USD, GBP or EUR or 8,400 JPY, whichever is less.
fn most(captured: Decimal, currency: &str) -> Decimal {
    let extra = match currency {
        "JPY" => Decimal::from(8_400),
        "USD" | "GBP" | "EUR" => Decimal::from(75),
        _ => Decimal::ZERO,
    };
    captured + extra.min(captured * Decimal::new(15, 2))
}

impl Books {
    /// Create Refund, its headers and body having been read.
    pub(super) fn create_refund(&mut self, key: &str, request: &RefundRequest, now: Timestamp) -> Answer {
        let fingerprint = ("/v2/refunds".to_owned(), request.body.clone());
        if let Some(answer) = self.kept_answer(key, &fingerprint) {
            return answer;
        }
        let evaluated = self.enter_refund(Some(key), request, now);
        let answer = evaluated.map_or_else(Answer::from, |place| self.refunds[place].answer(201));
        self.keep(key, fingerprint, &answer);
        answer
    }

    fn enter_refund(&mut self, key: Option<&str>, request: &RefundRequest, now: Timestamp) -> Result<usize, Refusal> {
        let place = self.find(&request.charge_id, now)?;
        let charge = &mut self.charges[place];
        let Some(captured) = charge.captured.filter(|_| charge.state == ChargeState::Captured) else {
            return Err(charge.invalid_status());
        };
        if request.price.currency != charge.request.price.currency {
            return Err(Refusal::new(400, "CurrencyMismatch", "The currency is not the one of the charge"));
        }
        if charge.refunded + charge.refunding + request.price.amount > most(captured, &request.price.currency) {
            return Err(Refusal::new(400, "TransactionAmountExceeded", "More than may be refunded of this charge"));
        }
        charge.refunding += request.price.amount;
        let permission = charge.request.permission_id.clone();
        let place = self.refunds.len();
        let refund_id = format!("{permission}-R{:06}", place + 1);
        self.refund_places.insert(refund_id.clone(), place);
        self.refunds.push(LedgerRefund {
            refund_id: refund_id.clone(),
            charge_id: request.charge_id.clone(),
            permission: permission.clone(),
            amount: request.price.amount,
            currency: request.price.currency.clone(),
            state: RefundState::RefundInitiated,
            reason_code: None,
            idempotency_key: key.map(str::to_owned),
            created_at: now,
            updated_at: now,
            soft_descriptor: request.soft_descriptor.clone(),
        });
        self.notify((ObjectType::Refund, &refund_id), &permission, now);
        Ok(place)
    }

    /// Get Refund.
    pub(super) fn get_refund(&self, id: &str) -> Result<Answer, Refusal> {
        let place = *self.refund_places.get(id).ok_or_else(|| Refusal::not_found(id))?;
        Ok(self.refunds[place].answer(200))
    }

    /// Amazon's decision on a refund; false if there is none such that waits for it.
    pub(super) fn settle_refund(&mut self, id: &str, decline: Option<&str>, now: Timestamp) -> bool {
        let Some(place) = self.refund_places.get(id).copied() else { return false };
        let refund = &mut self.refunds[place];
        if refund.state != RefundState::RefundInitiated {
            return false;
        }
        refund.state = if decline.is_some() { RefundState::Declined } else { RefundState::Refunded };
        refund.reason_code = decline.map(str::to_owned);
        refund.updated_at = now;
        if let Some(charge) = self.charge_places.get(&refund.charge_id) {
            let charge = &mut self.charges[*charge];
            charge.refunding -= refund.amount;
            if decline.is_none() {
                charge.refunded += refund.amount;
            }
        }
        let permission = refund.permission.clone();
        self.notify((ObjectType::Refund, id), &permission, now);
        true
    }
}

/// Refunds.
impl Sandbox {
    /// Refunds so much of a captured charge, as somebody does in Seller Central; gives the id of the refund, which waits for
    /// [`Sandbox::settle_refund`]. Notified.
    ///
    /// # Errors
    /// If there is no such charge, it is not captured, or the amount is too much.
    pub fn refund(&self, charge_id: &str, amount: Decimal) -> Result<String, SandboxError> {
        let now = self.0.app.clock.now();
        self.books(|books| {
            let place =
                *books.charge_places.get(charge_id).ok_or_else(|| SandboxError::unknown("charge", charge_id))?;
            let currency = books.charges[place].request.price.currency.clone();
            let price = Price { amount, currency };
            let request =
                RefundRequest { charge_id: charge_id.to_owned(), price, soft_descriptor: None, body: Value::Null };
            let place = books.enter_refund(None, &request, now).map_err(SandboxError::from)?;
            Ok(books.refunds[place].refund_id.clone())
        })
    }

    /// Decides a refund: `None` is Refunded, a reason code (`AmazonRejected`, `ProcessingFailure`, or one that nobody knows) is
    /// Declined. Notified.
    ///
    /// # Errors
    /// If there is no such refund, or it is decided.
    pub fn settle_refund(&self, refund_id: &str, decline: Option<&str>) -> Result<(), SandboxError> {
        let now = self.0.app.clock.now();
        let done = self.books(|books| books.settle_refund(refund_id, decline, now));
        done.then_some(()).ok_or_else(|| SandboxError::NotPending(refund_id.to_owned()))
    }
}
