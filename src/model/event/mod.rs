//! What we tell the merchant's other systems: CloudEvents 1.0 in a Redis stream.
//!
//! An event is written in the same script as the transition it tells of; its `id` is given there. What each carries is in [`data`] and
//! [`alert`]; [`schema`] makes the documents for machines from that.

pub mod alert;
pub mod asyncapi;
pub mod data;
pub mod schema;

use serde::Serialize;
use serde_json::{Value, json};

use super::charge_intent::ChargeIntent;

macro_rules! event_types {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// The type of an event, without the prefix `amazonpay.` and the suffix `.v1`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventType {
            $($(#[doc = $doc])* $variant,)*
        }

        impl EventType {
            /// Every type this version writes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What it tells, in words.
            #[must_use]
            pub fn means(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),*).trim_ascii(),)*
                }
            }

            /// The CloudEvents `type`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("amazonpay.", $name, ".v1"),)*
                }
            }
        }
    };
}

event_types! {
    /// The permission became chargeable.
    PermissionChargeable = "charge_permission.chargeable",
    /// The permission stopped being chargeable.
    PermissionNonChargeable = "charge_permission.non_chargeable",
    /// The permission is over.
    PermissionClosed = "charge_permission.closed",
    /// The buyer's instrument changed.
    InstrumentUpdated = "payment_instrument.updated",
    /// A send will happen at the time given.
    ChargeScheduled = "charge.scheduled",
    /// A send was marked; it goes out now, once, or never.
    ChargeAttempted = "charge.attempted",
    /// Amazon is deciding.
    ChargePending = "charge.pending",
    /// Authorised.
    ChargeAuthorized = "charge.authorized",
    /// The money is ours.
    ChargeCaptured = "charge.captured",
    /// A definite decline.
    ChargeDeclined = "charge.declined",
    /// Waits for somebody.
    ChargeParked = "charge.parked",
    /// The buyer must do something; carries the link.
    ChargeActionRequired = "charge.action_required",
    /// Stopped until an operator resolves it.
    ChargeHeld = "charge.held",
    /// An authorisation lapses soon.
    ChargeExpiring = "charge.expiring",
    /// Somebody paused it, or its permission.
    ChargePaused = "charge.paused",
    /// That pause is over.
    ChargeResumed = "charge.resumed",
    /// Terminal: canceled by the caller.
    ChargeCanceled = "charge.canceled",
    /// Terminal: given up.
    ChargeAbandoned = "charge.abandoned",
    /// A charge of this permission that is not ours.
    ChargeUnmatched = "charge.unmatched",
    /// The buyer has the money of a refund.
    RefundCompleted = "refund.completed",
    /// A refund came to nothing.
    RefundDeclined = "refund.declined",
    /// A dispute was filed, or something about it changed.
    DisputeUpdated = "dispute.updated",
    /// A notification was kept aside.
    IpnQuarantined = "ipn.quarantined",
    /// A subscription was confirmed, or somebody ended it.
    IpnSubscription = "ipn.subscription",
    /// A person must look.
    AccountAttention = "account.attention",
}

/// An event that is to be written with a transition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// CloudEvents `type`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The JSON data, already as text: the script passes it on as it is.
    pub data: String,
}

impl Event {
    /// An event with this data.
    #[must_use]
    pub fn new(kind: EventType, data: &Value) -> Self {
        debug_assert_eq!(schema::check_shape(kind, data), Ok(()));
        Self { kind: kind.as_str(), data: data.to_string() }
    }

    /// An event about a charge intent; `extra` is merged into what every charge event carries.
    #[must_use]
    pub fn of_charge(kind: EventType, intent: &ChargeIntent, extra: Value) -> Self {
        Self::of_number(kind, intent, intent.number.value, extra)
    }

    /// As [`Event::of_charge`], about a number that may no longer be the current one.
    #[must_use]
    pub fn of_number(kind: EventType, intent: &ChargeIntent, number: u32, extra: Value) -> Self {
        let mut data = json!({
            "id": intent.id,
            "chargePermissionId": intent.request.charge_permission_id,
            "chargeAmount": intent.request.charge_amount,
            "number": number,
            "attempts": intent.attempts(),
        });
        if let (Some(data), Value::Object(extra)) = (data.as_object_mut(), extra) {
            data.extend(extra.into_iter().filter(|(_, value)| !value.is_null()));
        }
        Self::new(kind, &data)
    }

    /// As [`Event::of_charge`], about the capture of an authorisation: says so, and names the capture's own number.
    #[must_use]
    pub fn of_capture(kind: EventType, intent: &ChargeIntent, extra: Value) -> Self {
        let capture = intent.capture.as_ref();
        let wish = capture.and_then(|capture| capture.wish.as_ref().or(capture.cleared.as_ref()));
        let mut data = json!({
            "send": "capture",
            "captureNumber": capture.map(|capture| capture.number.value),
            "captureAmount": wish.map(|wish| wish.capture_amount),
        });
        if let (Some(data), Value::Object(extra)) = (data.as_object_mut(), extra) {
            data.extend(extra);
        }
        Self::of_charge(kind, intent, data)
    }

    /// `account.attention`: a person must look. `kind` is a stable word, `message` says what is wrong and what to do.
    #[must_use]
    pub fn attention(kind: &str, message: &str, mut extra: Value) -> Self {
        if let Some(extra) = extra.as_object_mut() {
            extra.insert("kind".to_owned(), json!(kind));
            extra.insert("message".to_owned(), json!(message));
        }
        Self::new(EventType::AccountAttention, &extra)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_are_distinct_and_carry_prefix_and_version() {
        let mut names: Vec<_> = EventType::ALL.iter().map(|kind| kind.as_str()).collect();
        assert!(names.iter().all(|name| name.starts_with("amazonpay.") && name.strip_suffix(".v1").is_some()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), EventType::ALL.len());
    }
}
