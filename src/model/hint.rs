//! A hint: "this object of this charge permission changed, go and look". That is all a notification says.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{IntentId, ObjectId};

/// The kind of object a notification names (`ObjectType`).
/// Source: <https://developer.amazon.com/docs/amazon-pay-checkout/set-up-instant-payment-notifications.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ObjectType {
    /// A charge permission.
    ChargePermission,
    /// A charge.
    Charge,
    /// A refund.
    Refund,
    /// A dispute.
    Chargeback,
}

impl ObjectType {
    /// As Amazon spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ChargePermission => "CHARGE_PERMISSION",
            Self::Charge => "CHARGE",
            Self::Refund => "REFUND",
            Self::Chargeback => "CHARGEBACK",
        }
    }

    /// Reads Amazon's spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::ChargePermission, Self::Charge, Self::Refund, Self::Chargeback]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// A reason to look at one object. Hints of one object collapse into one: the newest notification stands for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// What kind of object changed.
    pub object_type: ObjectType,
    /// Which one.
    pub object_id: ObjectId,
    /// What is stored of it.
    pub note: HintNote,
}

/// The stored part of a hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HintNote {
    /// `MessageId` of the newest notification.
    pub message_id: String,
    /// Its SNS Timestamp (signed).
    pub published_at: Timestamp,
    /// Looks that Amazon refused (400, 403, 404) so far.
    #[serde(default)]
    pub refusals: u32,
    /// Not before this time; set when a look failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Set when no notification is behind the next look any more: the object was read, waits for Amazon since then, and is looked at
    /// again in case its next notification is lost. A new notification takes the place of the whole note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swept_since: Option<Timestamp>,
    /// An operator says that this charge is the one of this intent: it is read whatever is known of it, and if it is not so, that is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_intent: Option<IntentId>,
}

impl HintNote {
    /// Whether the object may be looked at now.
    #[must_use]
    pub fn is_ready(&self, now: Timestamp) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }
}

impl Hint {
    /// The field of the hints hash: `<object type>:<object id>`.
    #[must_use]
    pub fn field(&self) -> String {
        format!("{}:{}", self.object_type.as_str(), self.object_id)
    }
}

/// What a look at the object of a hint came to: Get Refund, Get Dispute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectLook<V> {
    /// Amazon showed it.
    Seen(V),
    /// 400, 403 or 404: asking again is unlikely to help.
    Refused(u16),
    /// The account's fault (401): calling on makes no sense for now.
    AccountFault,
    /// No answer that says anything.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_of_an_earlier_version_is_read_and_one_without_a_sweep_is_written_as_before() {
        let text = r#"{"messageId":"m","publishedAt":"2026-01-30T10:00:00Z","refusals":1}"#;
        let note: HintNote = serde_json::from_str(text).unwrap();
        assert_eq!((note.refusals, note.not_before, note.swept_since), (1, None, None));
        assert_eq!(serde_json::to_string(&note).unwrap(), text);
    }
}
