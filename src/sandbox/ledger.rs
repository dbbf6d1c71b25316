//! The sandbox's books: what Amazon knows, and the ledger that tests and the demo audit.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use rsa::rand_core::{OsRng, RngCore};
use rust_decimal::Decimal;

use super::Reading;
use super::agenda::{AUTHORIZATION_EXPIRES_AFTER, Due};
use super::disputes::LedgerDispute;
use super::faults::{Faults, Operation};
use super::permissions::Permission;
use super::refunds::{LedgerRefund, RefundState};
use super::sns::{Ipn, NotificationType, ObjectType};
use super::throttle::Throttling;
use super::wire::{Answer, ChargeRequest, Refusal};

/// The state of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeState {
    /// Authorisation pending.
    AuthorizationInitiated,
    /// Authorised, waits for its capture.
    Authorized,
    /// Capture pending.
    CaptureInitiated,
    /// The buyer has paid.
    Captured,
    /// Canceled.
    Canceled,
    /// Declined.
    Declined,
}

impl ChargeState {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationInitiated => "AuthorizationInitiated",
            Self::Authorized => "Authorized",
            Self::CaptureInitiated => "CaptureInitiated",
            Self::Captured => "Captured",
            Self::Canceled => "Canceled",
            Self::Declined => "Declined",
        }
    }

    /// Whether Amazon still has to decide.
    #[must_use]
    pub fn is_pending(self) -> bool {
        matches!(self, Self::AuthorizationInitiated | Self::CaptureInitiated)
    }
}

impl fmt::Display for ChargeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A charge as Amazon keeps it.
#[derive(Debug, Clone)]
pub(super) struct Charge {
    pub(super) id: String,
    pub(super) request: ChargeRequest,
    pub(super) key: String,
    pub(super) state: ChargeState,
    pub(super) reason_code: Option<String>,
    pub(super) captured: Option<Decimal>,
    /// What buyers got back, and what is still to be decided.
    pub(super) refunded: Decimal,
    pub(super) refunding: Decimal,
    pub(super) soft_descriptor: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

impl Charge {
    /// The refusal of a call that does not fit the state.
    pub(super) fn invalid_status(&self) -> Refusal {
        Refusal::new(422, "InvalidChargeStatus", format!("The charge {} is {}", self.id, self.state))
    }
}

/// What is kept under an idempotency key, for ever.
#[derive(Debug)]
pub(super) struct Kept {
    /// Path and body of the first request.
    pub(super) fingerprint: (String, serde_json::Value),
    pub(super) answer: Answer,
    /// Repeated whatever the reading: an answer that a fault put here.
    pub(super) pinned: bool,
}

/// Everything that the sandbox knows.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) merchant_id: String,
    pub(super) reading: Reading,
    pub(super) permissions: HashMap<String, Permission>,
    pub(super) charges: Vec<Charge>,
    pub(super) charge_places: HashMap<String, usize>,
    pub(super) refunds: Vec<LedgerRefund>,
    pub(super) refund_places: HashMap<String, usize>,
    pub(super) disputes: Vec<LedgerDispute>,
    pub(super) dispute_places: HashMap<String, usize>,
    pub(super) keys: HashMap<String, Kept>,
    pub(super) requests: Vec<RequestRecord>,
    pub(super) outbox: VecDeque<Ipn>,
    pub(super) faults: Faults,
    pub(super) throttling: Throttling,
    /// How often an operation was answered with a status.
    pub(super) answers: HashMap<(Operation, u16), u64>,
    pub(super) confirmed_tokens: Vec<String>,
    /// Requests that have reached the sandbox, evaluated or not.
    pub(super) received: u64,
    /// By time, then by order of entry.
    pub(super) agenda: BTreeMap<(Timestamp, u64), Due>,
    pub(super) agenda_count: u64,
    /// How long what nobody decides is pending; `None`: until somebody does.
    pub(super) settle_after: Option<Duration>,
    region_digit: char,
    session: u32,
    permission_count: u32,
}

impl Books {
    pub(super) fn new(merchant_id: String, reading: Reading, region_digit: char, session: Option<u32>) -> Self {
        Self {
            merchant_id,
            reading,
            permissions: HashMap::new(),
            charges: Vec::new(),
            charge_places: HashMap::new(),
            refunds: Vec::new(),
            refund_places: HashMap::new(),
            disputes: Vec::new(),
            dispute_places: HashMap::new(),
            keys: HashMap::new(),
            requests: Vec::new(),
            outbox: VecDeque::new(),
            faults: Faults::default(),
            throttling: Throttling::default(),
            answers: HashMap::new(),
            confirmed_tokens: Vec::new(),
            received: 0,
            agenda: BTreeMap::new(),
            agenda_count: 0,
            settle_after: None,
            region_digit,
            // Two sandboxes that meet in one Redis must not give out the same ids.
            session: session.unwrap_or_else(|| OsRng.next_u32()) % 10_000_000,
            permission_count: 0,
        }
    }

    pub(super) fn next_permission_id(&mut self, prefix: char) -> String {
        self.permission_count += 1;
        format!("{prefix}0{}-{:07}-{:07}", self.region_digit, self.session, self.permission_count)
    }

    /// Enters a new charge; `None` if its permission is unknown.
    pub(super) fn enter_charge(&mut self, mut charge: Charge, now: Timestamp) -> Option<usize> {
        let permission = self.permissions.get_mut(&charge.request.permission_id)?;
        let place = self.charges.len();
        charge.id = format!("{}-C{:06}", permission.id, place + 1);
        permission.charges.push(place);
        self.charge_places.insert(charge.id.clone(), place);
        let (state, permission) = (charge.state, charge.request.permission_id.clone());
        self.charges.push(charge);
        self.notify_charge(place, now);
        if state == ChargeState::Authorized {
            self.schedule(now, AUTHORIZATION_EXPIRES_AFTER, Due::AuthorizationEnd(place));
        }
        if state != ChargeState::Declined {
            self.push_end_out(&permission, now);
        }
        Some(place)
    }

    /// Moves a charge to another state and tells the merchant.
    pub(super) fn move_charge(&mut self, place: usize, state: ChargeState, reason: Option<&str>, now: Timestamp) {
        let charge = &mut self.charges[place];
        charge.state = state;
        charge.reason_code = reason.map(str::to_owned);
        charge.updated_at = now;
        if state == ChargeState::Captured && charge.captured.is_none() {
            charge.captured = Some(charge.request.price.amount);
        }
        if matches!(state, ChargeState::Canceled | ChargeState::Declined) {
            charge.captured = None;
        }
        let permission = charge.request.permission_id.clone();
        if state == ChargeState::Authorized {
            self.schedule(now, AUTHORIZATION_EXPIRES_AFTER, Due::AuthorizationEnd(place));
        }
        self.notify_charge(place, now);
        self.settle(&permission, now);
    }

    fn notify_charge(&mut self, place: usize, now: Timestamp) {
        let charge = &self.charges[place];
        let (object, permission) = (charge.id.clone(), charge.request.permission_id.clone());
        self.notify((ObjectType::Charge, &object), &permission, now);
    }

    /// Tells the merchant of another state.
    pub(super) fn notify(&mut self, object: (ObjectType, &str), permission: &str, now: Timestamp) {
        self.outbox.push_back(Ipn::new(&self.merchant_id, object, permission, NotificationType::StateChange, now));
    }

    pub(super) fn notify_permission(&mut self, id: &str, kind: NotificationType, now: Timestamp) {
        self.outbox.push_back(Ipn::new(&self.merchant_id, (ObjectType::ChargePermission, id), id, kind, now));
    }

    pub(super) fn note(&mut self, record: RequestRecord) {
        *self.answers.entry((record.operation, record.status)).or_default() += 1;
        self.requests.push(record);
    }

    /// The client of a request waits no longer.
    pub(super) fn note_answered(&mut self, received: u64) {
        let now = self.received;
        // It is one of the newest, unless it was held.
        if let Some(record) = self.requests.iter_mut().rev().find(|record| record.received == received) {
            record.answered = Some(now);
        }
    }

    /// A copy of what an auditor may see.
    pub(super) fn ledger(&self) -> Ledger {
        let charges = self.charges.iter().map(LedgerCharge::from).collect();
        Ledger {
            charges,
            refunds: self.refunds.clone(),
            disputes: self.disputes.clone(),
            requests: self.requests.clone(),
        }
    }
}

/// A charge as the auditor sees it, declined ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerCharge {
    /// The charge.
    pub charge_id: String,
    /// The permission that was charged.
    pub permission: String,
    /// The amount asked for.
    pub amount: Decimal,
    /// The amount captured; `None` unless a capture succeeded or is pending.
    pub captured: Option<Decimal>,
    /// ISO 4217.
    pub currency: String,
    /// The state now.
    pub state: ChargeState,
    /// Why it was declined or canceled.
    pub reason_code: Option<String>,
    /// The key of the Create Charge that made it.
    pub idempotency_key: String,
    /// `merchantMetadata.customInformation`.
    pub custom_information: Option<String>,
    /// When it was evaluated.
    pub created_at: Timestamp,
}

impl From<&Charge> for LedgerCharge {
    fn from(charge: &Charge) -> Self {
        Self {
            charge_id: charge.id.clone(),
            permission: charge.request.permission_id.clone(),
            amount: charge.request.price.amount,
            captured: charge.captured,
            currency: charge.request.price.currency.clone(),
            state: charge.state,
            reason_code: charge.reason_code.clone(),
            idempotency_key: charge.key.clone(),
            custom_information: charge.request.custom_information(),
            created_at: charge.created_at,
        }
    }
}

/// One request to the API, noted when it was evaluated or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// The sandbox's time.
    pub at: Timestamp,
    /// Its place in the order in which requests left their clients; a request that was held is evaluated after later ones.
    pub received: u64,
    /// When it left its client.
    pub received_at: Timestamp,
    /// How many requests had left their clients when its answer, or the end of its connection, did: whatever came after it and up to
    /// then came while its client was waiting. `None` while the client still waits.
    pub answered: Option<u64>,
    /// What was asked for.
    pub operation: Operation,
    /// The charge permission that the request named, in its path or body, or that the refund or dispute belongs to.
    pub permission: Option<String>,
    /// The charge that the request named or made.
    pub charge: Option<String>,
    /// The refund or dispute that the request named or made.
    pub object: Option<String>,
    /// The idempotency key it carried.
    pub idempotency_key: Option<String>,
    /// `merchantMetadata.customInformation` of a Create Charge.
    pub custom_information: Option<String>,
    /// The status of the evaluation: what a client would see without faults that strike afterwards; 0 if the connection was
    /// closed before.
    pub status: u16,
    /// The reason code of that answer.
    pub reason_code: Option<String>,
    /// The state of the charge or permission that the answer shows.
    pub state: Option<String>,
    /// Whether the answer was repeated from the idempotency key.
    pub replayed: bool,
    /// Whether the signature was right; false also if the connection was closed before it could be checked.
    pub signature_ok: bool,
}

/// The auditor's truth: a copy, taken at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Every charge that came into being, oldest first.
    pub charges: Vec<LedgerCharge>,
    /// Every refund, oldest first.
    pub refunds: Vec<LedgerRefund>,
    /// Every dispute, oldest first.
    pub disputes: Vec<LedgerDispute>,
    /// Every request, in the order of their evaluation.
    pub requests: Vec<RequestRecord>,
}

impl Ledger {
    /// The charges of a permission.
    #[must_use]
    pub fn charges_of(&self, permission: &str) -> Vec<&LedgerCharge> {
        self.charges.iter().filter(|charge| charge.permission == permission).collect()
    }

    /// The captured charges of a permission.
    #[must_use]
    pub fn captured_of(&self, permission: &str) -> Vec<&LedgerCharge> {
        self.charges_of(permission).into_iter().filter(|charge| charge.state == ChargeState::Captured).collect()
    }

    /// What the buyer behind a permission has paid.
    #[must_use]
    pub fn captured_total_of(&self, permission: &str) -> Decimal {
        self.captured_of(permission).iter().filter_map(|charge| charge.captured).sum()
    }

    /// What all buyers have paid, whatever the currency.
    #[must_use]
    pub fn captured_total(&self) -> Decimal {
        let captured = self.charges.iter().filter(|charge| charge.state == ChargeState::Captured);
        captured.filter_map(|charge| charge.captured).sum()
    }

    /// What the buyer behind a permission got back.
    #[must_use]
    pub fn refunded_total_of(&self, permission: &str) -> Decimal {
        let refunded = self.refunds.iter().filter(|refund| refund.state == RefundState::Refunded);
        refunded.filter(|refund| refund.permission == permission).map(|refund| refund.amount).sum()
    }

    /// The requests of one operation.
    #[must_use]
    pub fn requests_of(&self, operation: Operation) -> Vec<&RequestRecord> {
        self.requests.iter().filter(|request| request.operation == operation).collect()
    }
}
