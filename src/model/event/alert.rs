//! `account.attention`: the alerts, each with its own fields.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::data::{Dispute, Permission, Refund};
use crate::model::ids::{ChargeId, ChargePermissionId, DisputeId, IntentId, PolicyName, RefundId};
use crate::model::money::Money;

/// A person must look.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Attention {
    /// What is wrong, and what to do, in English.
    message: String,
    #[serde(flatten)]
    alert: Alert,
}

/// The charge that an alert is about.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AboutCharge {
    /// Your id of the charge.
    id: IntentId,
    /// The permission.
    charge_permission_id: ChargePermissionId,
}

/// The kinds of alerts: stable words.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "camelCase")]
enum Alert {
    /// The stop switch was thrown.
    Stopped {},
    /// The stop switch was lifted.
    Resumed {},
    /// Amazon refuses the account or its key: outbound work pauses.
    AccountFault { reason_code: String },
    /// The account is answered again.
    AccountRecovered {},
    /// Our clock and Amazon's are too far apart: outbound work pauses.
    ClockSkew { skew_seconds: i64 },
    /// A newer version of the service wrote this permission or a charge of it.
    NewerRecords { charge_permission_id: ChargePermissionId },
    /// Amazon refuses this permission, and answers the account.
    PermissionRefused { charge_permission_id: ChargePermissionId },
    /// Amazon refuses this charge, and answers the account.
    ChargeRefused {
        #[serde(flatten)]
        charge: AboutCharge,
        reason_code: String,
    },
    /// An answer, or what a look said, is not understood.
    ChargeParked {
        #[serde(flatten)]
        charge: AboutCharge,
        reason_code: String,
    },
    /// A charge is held.
    ChargeHeld {
        #[serde(flatten)]
        charge: AboutCharge,
        reason: String,
    },
    /// An operator named a charge, and Amazon does not show it as a success that was made for it.
    ResolutionRefuted {
        #[serde(flatten)]
        charge: AboutCharge,
        charge_id: ChargeId,
        /// `null`: Amazon does not show it.
        charge_state: Option<String>,
    },
    /// Pending for more than 24 hours.
    ChargePending {
        #[serde(flatten)]
        charge: AboutCharge,
        since: Timestamp,
    },
    /// Amazon has not closed a permission although it was asked several times.
    ClosingFailed { charge_permission_id: ChargePermissionId, tries: u32 },
    /// Amazon calls the request to close a permission wrong.
    ClosingRefused { charge_permission_id: ChargePermissionId, reason_code: String },
    /// Old events are kept for groups that have not acknowledged them.
    ConsumersBehind { groups: Vec<String>, since: Timestamp },
    /// Events were removed that groups have not acknowledged.
    ConsumersLeftBehind { groups: Vec<String> },
    /// Changes were found that no notification told of.
    NotificationsMissing {},
    /// No notification has ever come.
    NeverHeard {},
    /// The handler at `FORWARD_URL` did not take a notification within `FORWARD_GIVE_UP`.
    NotForwarded {
        message_id: String,
        /// When it was tried first.
        since: Timestamp,
    },
    /// The policy that a charge chose is not in the policy file any more.
    PolicyMissing {
        #[serde(flatten)]
        charge: AboutCharge,
        policy: PolicyName,
        known: Vec<PolicyName>,
    },
    /// Two charges succeeded for one intent.
    DuplicateCharge {
        #[serde(flatten)]
        charge: AboutCharge,
        /// The first one may be `null`: it is not known.
        charge_ids: Vec<Option<ChargeId>>,
    },
    /// Amazon refuses to capture an authorisation that stands.
    CaptureRefused {
        #[serde(flatten)]
        charge: AboutCharge,
        reason_code: String,
        /// `null`: it is not known.
        charge_id: Option<ChargeId>,
    },
    /// An authorisation appeared after an unverified cancellation.
    LeftOverAuthorization {
        #[serde(flatten)]
        charge: AboutCharge,
        charge_id: ChargeId,
        /// Whether it was canceled at Amazon.
        canceled: bool,
    },
    /// A charge succeeded or was authorised for an intent that had ended.
    ChargeAfterEnd {
        #[serde(flatten)]
        charge: AboutCharge,
        charge_id: ChargeId,
        charge_state: String,
    },
    /// A permission, charge, refund or dispute of the other environment.
    EnvironmentMismatch {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<IntentId>,
        /// `null` if Amazon does not say of a charge what it belongs to.
        charge_permission_id: Option<ChargePermissionId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        charge_id: Option<ChargeId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        refund_id: Option<RefundId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        refund_amount: Option<Money>,
        #[serde(skip_serializing_if = "Option::is_none")]
        dispute_id: Option<DisputeId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        dispute_amount: Option<Money>,
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        resolution: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason_code: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        merchant_response_deadline: Option<Timestamp>,
    },
    /// A refund was not decided within 7 days.
    RefundPending {
        #[serde(flatten)]
        refund: Refund,
        since: Timestamp,
    },
    /// A charge state that this version does not know.
    UnknownChargeState {
        #[serde(flatten)]
        charge: AboutCharge,
        charge_id: ChargeId,
        charge_state: String,
    },
    /// A refund state that this version does not know.
    UnknownRefundState {
        #[serde(flatten)]
        refund: Refund,
    },
    /// A dispute state that this version does not know.
    UnknownDisputeState {
        #[serde(flatten)]
        dispute: Dispute,
    },
    /// A permission state that this version does not know.
    UnknownPermissionState {
        #[serde(flatten)]
        permission: Permission,
    },
    /// A reason code of a permission that this version does not know.
    UnknownPermissionReason {
        #[serde(flatten)]
        permission: Permission,
    },
    /// A kind of permission that this version does not know.
    UnknownPermissionKind {
        #[serde(flatten)]
        permission: Permission,
    },
}
