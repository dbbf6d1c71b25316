//! The `data` of every event as a type: what the JSON Schemas are made from.
//!
//! In builds with debug assertions (tests, the demo, the simulation) each event is read as its type when it is made, and must come back the
//! same: a field that is not declared here, or is left out where it was promised, ends that run.
//!
//! `Option` is a field that may be left out; [`Unmatched`] and the permission's kind say `null` instead.

#![expect(clippy::struct_field_names, reason = "fields have the names that they have in JSON, as Amazon spells them")]

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alert::Attention;
use crate::model::charge_intent::{Outcome, Trigger, Why};
use crate::model::hint::ObjectType;
use crate::model::ids::{ChargeId, ChargePermissionId, DisputeId, IntentId, ObjectId, RefundId};
use crate::model::money::Money;
use crate::model::permission::{PermissionKind, PermissionState};

/// What every event about a charge of ours carries.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfCharge {
    /// Your id of the charge.
    id: IntentId,
    /// The permission.
    charge_permission_id: ChargePermissionId,
    /// The amount of the charge.
    charge_amount: Money,
    /// 0, 1, 2 ...: which idempotency key of the charge. Keep the highest one you saw.
    number: u32,
    /// Attempts so far that count: declines, and the one that was captured.
    attempts: u32,
}

/// What an event about the capture of an authorisation carries besides.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfCapture {
    /// 0, 1, 2 ...: which idempotency key of the captures. It is no `lastNumber`.
    #[serde(skip_serializing_if = "Option::is_none")]
    capture_number: Option<u32>,
    /// What is to be captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    capture_amount: Option<Money>,
}

/// The event is about a capture.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AboutCapture {
    Capture,
}

/// A send is planned.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scheduled {
    #[serde(flatten)]
    charge: OfCharge,
    /// `capture`: of an authorisation. Absent: of the charge itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    send: Option<AboutCapture>,
    #[serde(flatten)]
    capture: OfCapture,
    /// Not before.
    at: Timestamp,
    /// Whether it is a new number or the same one again, and why.
    why: Why,
    /// A reason code, or a few words such as `HTTP 503`.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_reason: Option<String>,
}

/// What is sent.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Sent {
    /// A number for the first time.
    New,
    /// A number again.
    Repeat,
    /// A capture; `repeat` says whether again.
    Capture,
}

/// A send was marked: it goes out now, once, or never.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempted {
    #[serde(flatten)]
    charge: OfCharge,
    send: Sent,
    #[serde(flatten)]
    capture: OfCapture,
    /// Of a capture: whether this number was sent before.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat: Option<bool>,
    /// Of a capture: the charge.
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_id: Option<ChargeId>,
}

/// Amazon made a charge and is still deciding.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    #[serde(flatten)]
    charge: OfCharge,
    /// The charge at Amazon.
    charge_id: ChargeId,
    /// As Amazon spells it.
    charge_state: String,
}

/// Authorised, not captured.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authorized {
    #[serde(flatten)]
    charge: OfCharge,
    /// The charge at Amazon.
    charge_id: ChargeId,
    /// When the authorisation lapses, if Amazon says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

/// The money is yours. Terminal.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Captured {
    #[serde(flatten)]
    charge: OfCharge,
    /// The charge at Amazon.
    charge_id: ChargeId,
    /// What Amazon says was captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    capture_amount: Option<Money>,
    /// What brought about the attempt that succeeded.
    recovered_by: Trigger,
}

/// A definite decline or refusal of `number`, or of the capture `captureNumber`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Declined {
    #[serde(flatten)]
    charge: OfCharge,
    /// `capture`: of an authorisation. Absent: of the charge itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    send: Option<AboutCapture>,
    #[serde(flatten)]
    capture: OfCapture,
    /// As Amazon spells it.
    reason_code: String,
    /// The charge at Amazon, where one was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_id: Option<ChargeId>,
}

/// For whom a charge waits.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum WaitsFor {
    /// The buyer.
    Instrument,
    /// A person of yours.
    Attention,
}

/// Waits for somebody.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Parked {
    #[serde(flatten)]
    charge: OfCharge,
    r#for: WaitsFor,
    /// What Amazon said, or what was not understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<String>,
    /// Given up then, as things are.
    parked_until: Timestamp,
}

/// What the buyer must do.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// At `updateUrl`.
    UpdatePaymentMethod,
}

/// The buyer must do something.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionRequired {
    #[serde(flatten)]
    charge: OfCharge,
    action: Action,
    /// What Amazon said.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<String>,
    /// Where the buyer does it.
    update_url: String,
    /// Until when it helps.
    before: Timestamp,
    /// 1, 2 ...; the first one has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    reminder: Option<u32>,
}

/// Nothing is sent for it until a person looks.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    #[serde(flatten)]
    charge: OfCharge,
    /// A stable word, or Amazon's code.
    reason: String,
}

/// An authorisation that nobody captured lapses soon.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expiring {
    #[serde(flatten)]
    charge: OfCharge,
    /// The charge at Amazon.
    charge_id: ChargeId,
    /// When.
    expires_at: Timestamp,
    /// One English sentence.
    what_to_do: String,
}

/// What was paused.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum PausedBy {
    /// This charge.
    Charge,
    /// The whole permission.
    ChargePermission,
}

/// Somebody paused it, or that pause is over.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Paused {
    #[serde(flatten)]
    charge: OfCharge,
    by: PausedBy,
}

/// You canceled. Terminal.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Canceled {
    #[serde(flatten)]
    charge: OfCharge,
    outcome: Outcome,
}

/// Who closed a permission.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ClosedBy {
    Buyer,
    Merchant,
    Amazon,
    Expiry,
    Unknown,
}

/// Given up. Terminal.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Abandoned {
    #[serde(flatten)]
    charge: OfCharge,
    /// A reason code, what the last look said, or a stable word.
    reason: String,
    outcome: Outcome,
    /// One English sentence.
    what_to_do: String,
    /// Once the permission is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_by: Option<ClosedBy>,
    /// Once the permission is closed: the reasons of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_codes: Option<Vec<String>>,
    /// The charge at Amazon that came to nothing, where it was found out by looking.
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_id: Option<ChargeId>,
    /// `capture`: the capture of an authorisation ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    send: Option<AboutCapture>,
}

/// A charge that this service did not make, or whose record is gone. Unknown fields are `null`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unmatched {
    /// The charge at Amazon.
    charge_id: ChargeId,
    /// The permission.
    charge_permission_id: Option<ChargePermissionId>,
    charge_amount: Option<Money>,
    /// As Amazon spells it.
    charge_state: String,
    reason_code: Option<String>,
}

/// What is seen of a charge permission.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Permission {
    /// The permission.
    charge_permission_id: ChargePermissionId,
    /// The kind of consent; `null` if Amazon does not say.
    charge_permission_type: Option<PermissionKind>,
    state: PermissionState,
    /// As Amazon spells them.
    reason_codes: Vec<String>,
}

/// No charge is possible without new consent.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PermissionClosed {
    #[serde(flatten)]
    permission: Permission,
    closed_by: ClosedBy,
    /// Your ids of the charges that had not ended.
    open_charges: Vec<IntentId>,
    /// True for a one-time permission whose order is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    order_completed: Option<bool>,
    /// One English sentence; absent if nothing needs to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    what_to_do: Option<String>,
}

/// The payment descriptor differs from the one seen before.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstrumentUpdated {
    /// The permission.
    charge_permission_id: ChargePermissionId,
    /// The kind of consent; `null` if Amazon does not say.
    charge_permission_type: Option<PermissionKind>,
}

/// What is seen of a refund.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refund {
    /// Your id of the charge, if this service made it and remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<IntentId>,
    /// The permission.
    charge_permission_id: ChargePermissionId,
    /// The refund at Amazon.
    refund_id: RefundId,
    /// The charge at Amazon.
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_id: Option<ChargeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_amount: Option<Money>,
    /// As Amazon spells it.
    state: String,
    /// As Amazon spells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<String>,
}

/// What is seen of a dispute. All texts are Amazon's.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dispute {
    /// Your id of the charge, if this service made it and remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<IntentId>,
    /// The permission.
    charge_permission_id: ChargePermissionId,
    /// The dispute at Amazon.
    dispute_id: DisputeId,
    /// The charge at Amazon.
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_id: Option<ChargeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dispute_amount: Option<Money>,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<String>,
    /// Answer before then.
    #[serde(skip_serializing_if = "Option::is_none")]
    merchant_response_deadline: Option<Timestamp>,
}

/// A dispute was filed, or something about it changed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisputeUpdated {
    #[serde(flatten)]
    dispute: Dispute,
    #[serde(skip_serializing_if = "Option::is_none")]
    dispute_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filing_reason: Option<String>,
}

/// A genuine message was kept aside, or a hint of one.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// The SNS message; empty for what an operator asked to look at.
    message_id: String,
    /// Of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic_arn: Option<String>,
    /// Of a hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_permission_id: Option<ChargePermissionId>,
    /// Of a hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    object_type: Option<ObjectType>,
    /// Of a hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    object_id: Option<ObjectId>,
    /// In words.
    reason: String,
}

/// What became of a subscription.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SubscriptionNews {
    Confirmed,
    /// No notifications will come until somebody subscribes again.
    Ended,
}

/// A subscription was confirmed, or somebody ended it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    topic_arn: String,
    message_id: String,
    subscription: SubscriptionNews,
}

/// Does something with the type of each event's data.
pub(super) trait ForData {
    /// What comes of it.
    type Done;

    /// For one type.
    fn with<T: Serialize + serde::de::DeserializeOwned + JsonSchema>(self) -> Self::Done;
}

/// The type of the data of each event.
pub(super) fn for_data_of<F: ForData>(kind: super::EventType, done: F) -> F::Done {
    use super::EventType as Of;
    match kind {
        Of::PermissionChargeable | Of::PermissionNonChargeable => done.with::<Permission>(),
        Of::PermissionClosed => done.with::<PermissionClosed>(),
        Of::InstrumentUpdated => done.with::<InstrumentUpdated>(),
        Of::ChargeScheduled => done.with::<Scheduled>(),
        Of::ChargeAttempted => done.with::<Attempted>(),
        Of::ChargePending => done.with::<Pending>(),
        Of::ChargeAuthorized => done.with::<Authorized>(),
        Of::ChargeCaptured => done.with::<Captured>(),
        Of::ChargeDeclined => done.with::<Declined>(),
        Of::ChargeParked => done.with::<Parked>(),
        Of::ChargeActionRequired => done.with::<ActionRequired>(),
        Of::ChargeHeld => done.with::<Held>(),
        Of::ChargeExpiring => done.with::<Expiring>(),
        Of::ChargePaused | Of::ChargeResumed => done.with::<Paused>(),
        Of::ChargeCanceled => done.with::<Canceled>(),
        Of::ChargeAbandoned => done.with::<Abandoned>(),
        Of::ChargeUnmatched => done.with::<Unmatched>(),
        Of::RefundCompleted | Of::RefundDeclined => done.with::<Refund>(),
        Of::DisputeUpdated => done.with::<DisputeUpdated>(),
        Of::IpnQuarantined => done.with::<Quarantined>(),
        Of::IpnSubscription => done.with::<Subscription>(),
        Of::AccountAttention => done.with::<Attention>(),
    }
}
