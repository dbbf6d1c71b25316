//! A verified SNS message becomes an Instant Payment Notification, or goes to quarantine with the reason.
//!
//! A notification only names an object that changed, so every `NotificationType` is treated alike. Nothing here is answered
//! with an error to the sender: Amazon would not send the message again in a form that we understand.
//! Source: <https://developer.amazon.com/docs/amazon-pay-checkout/set-up-instant-payment-notifications.html>.

use serde_json::{Map, Value};

use crate::model::hint::ObjectType;
use crate::model::ids::{ChargePermissionId, MerchantId, ObjectId};
use crate::sns::{Content, Envelope, Verified};

/// The object that Amazon's test notifications name. It does not exist, so looking it up would fail for ever.
pub const TEST_OBJECT_ID: &str = "P01-0000000-0000000-000000";

/// The only message format there is. It has nothing to do with the API's version.
const NOTIFICATION_VERSION: &str = "V2";

/// Texts of the message that are stored as they are may not be longer; genuine ones have at most 36 characters.
const MAX_TEXT_CHARS: usize = 100;

/// A message that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ipn {
    /// An object changed.
    Notification(Notification),
    /// A test of the connection; nothing happened.
    Test,
}

/// "This object of this charge permission changed, go and look."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The merchant: always the account's own.
    pub merchant_id: MerchantId,
    /// The kind of object that changed.
    pub object_type: ObjectType,
    /// The object that changed.
    pub object_id: ObjectId,
    /// The charge permission it belongs to.
    pub charge_permission_id: ChargePermissionId,
    /// `STATE_CHANGE`, `ATTRIBUTE_CHANGE` or something newer: for the journal only, it changes nothing.
    pub notification_type: String,
    /// Amazon's id of the notification, "for tracking only". Two of them may announce one change.
    pub notification_id: String,
}

/// Reads the notification in a verified message for the account of `merchant`.
///
/// # Errors
///
/// [`Quarantine`] says why the message is to be kept for a person instead.
pub fn read(message: &Verified<Envelope>, merchant: &MerchantId) -> Result<Ipn, Quarantine> {
    match &message.content {
        Content::Notification { .. } => parse(&message.message, merchant),
        Content::SubscriptionConfirmation(_) | Content::UnsubscribeConfirmation(_) => {
            Err(not_understood("a confirmation of SNS, not a notification"))
        }
    }
}

/// The merchant that a message names, whatever else it holds; `None` if it names none.
#[must_use]
pub fn merchant_id(message: &Verified<Envelope>) -> Option<MerchantId> {
    let fields: Map<String, Value> = serde_json::from_str(&message.message).ok()?;
    id(&fields, "MerchantID", "merchantID").ok()
}

/// Reads the text that a notification carries as its `Message`.
///
/// This proves nothing: anybody can write such a text. What acts on a notification has it from [`read`], which takes only a message
/// that was verified; this is for trying the parser by itself.
///
/// # Errors
///
/// As [`read`].
pub fn parse(text: &str, merchant: &MerchantId) -> Result<Ipn, Quarantine> {
    let fields: Map<String, Value> =
        // The error quotes a text that is no object, however long.
        serde_json::from_str(text).map_err(|error| not_understood(format!("no JSON object: {}", cut(&error.to_string()))))?;
    // Before everything else: how complete a test message is, is not documented.
    let names_test_object = |name, camel| field(&fields, name, camel).is_ok_and(|id: &str| id == TEST_OBJECT_ID);
    if names_test_object("ObjectId", "objectId") || names_test_object("ChargePermissionId", "chargePermissionId") {
        return Ok(Ipn::Test);
    }
    let version = field(&fields, "NotificationVersion", "notificationVersion")?;
    if version != NOTIFICATION_VERSION {
        return Err(not_understood(format!("NotificationVersion {:?}", cut(version))));
    }
    let kind = field(&fields, "ObjectType", "objectType")?;
    let notification = Notification {
        merchant_id: id(&fields, "MerchantID", "merchantID")?,
        object_type: ObjectType::parse(kind).ok_or_else(|| not_understood(format!("ObjectType {:?}", cut(kind))))?,
        object_id: id(&fields, "ObjectId", "objectId")?,
        charge_permission_id: id(&fields, "ChargePermissionId", "chargePermissionId")?,
        notification_type: short(&fields, "NotificationType", "notificationType")?,
        notification_id: short(&fields, "NotificationId", "notificationId")?,
    };
    if notification.merchant_id != *merchant {
        return Err(Quarantine::OtherMerchant(notification.merchant_id));
    }
    Ok(Ipn::Notification(notification))
}

/// The text of a field. Amazon sends `PascalCase`; one table of its documentation says camelCase.
fn field<'a>(fields: &'a Map<String, Value>, name: &str, camel: &str) -> Result<&'a str, Quarantine> {
    match fields.get(name).or_else(|| fields.get(camel)) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(not_understood(format!("{name} is not a text"))),
        None => Err(not_understood(format!("{name} is missing"))),
    }
}

fn id<T: std::str::FromStr>(fields: &Map<String, Value>, name: &str, camel: &str) -> Result<T, Quarantine>
where
    T::Err: std::fmt::Display,
{
    field(fields, name, camel)?.parse().map_err(|error| not_understood(format!("{name}: {error}")))
}

fn short(fields: &Map<String, Value>, name: &str, camel: &str) -> Result<String, Quarantine> {
    let text = field(fields, name, camel)?;
    if text.is_empty() || text.chars().nth(MAX_TEXT_CHARS).is_some() || text.chars().any(char::is_control) {
        return Err(not_understood(format!("{name} is empty, too long or has control characters: {:?}", cut(text))));
    }
    Ok(text.to_owned())
}

fn not_understood(why: impl Into<String>) -> Quarantine {
    Quarantine::NotUnderstood(why.into())
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

/// Why a genuine message is kept for a person instead of being acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Quarantine {
    /// Not an IPN of the form that this version knows.
    #[error("not understood: {0}")]
    NotUnderstood(String),
    /// An IPN of another merchant, who gave our address as theirs, or whose account this process should serve.
    #[error("for another merchant: {0}")]
    OtherMerchant(MerchantId),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const REFUSED_VERSIONS: [&str; 4] = ["V1", "v2", "", "2"];

    fn merchant() -> MerchantId {
        "A1O8CIV1A24A6X".parse().unwrap()
    }

    fn sample() -> Value {
        json!({
            "MerchantID": "A1O8CIV1A24A6X", "ChargePermissionId": "S02-6865442-5879427", "ObjectType": "CHARGE",
            "ObjectId": "S02-6865442-5879427-C004671", "NotificationType": "STATE_CHANGE",
            "NotificationId": "b874df54-f74d-49a2-90b0-b575c48a3719", "NotificationVersion": "V2", "log_level": "info"
        })
    }

    fn read_value(value: &Value) -> Result<Ipn, Quarantine> {
        parse(&value.to_string(), &merchant())
    }

    fn with(field: &str, value: Value) -> Result<Ipn, Quarantine> {
        let mut message = sample();
        message[field] = value;
        read_value(&message)
    }

    fn envelope(extra: &str) -> Verified<Envelope> {
        let message = serde_json::to_string(&sample().to_string()).unwrap();
        let body = format!(
            r#"{{"MessageId":"c0e5a280-53c9-5a98-93bb-c0a560b3d192","TopicArn":"arn:t","Message":{message},
                "Timestamp":"2026-03-06T19:55:38.000Z","SignatureVersion":"1","Signature":"s","SigningCertURL":"u",{extra}}}"#
        );
        Verified::for_test(Envelope::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn a_notification_of_ours_is_understood() {
        let Ok(Ipn::Notification(notification)) = read(&envelope(r#""Type":"Notification""#), &merchant()) else {
            panic!("refused");
        };
        assert_eq!(notification.object_type, ObjectType::Charge);
        assert_eq!(notification.object_id.as_str(), "S02-6865442-5879427-C004671");
        assert_eq!(notification.charge_permission_id.as_str(), "S02-6865442-5879427");
        assert_eq!(notification.notification_id, "b874df54-f74d-49a2-90b0-b575c48a3719");
    }

    #[test]
    fn confirmations_are_no_notifications() {
        let message = envelope(r#""Type":"SubscriptionConfirmation","Token":"ab","SubscribeURL":"u""#);
        assert!(matches!(read(&message, &merchant()), Err(Quarantine::NotUnderstood(_))));
    }

    #[test]
    fn camel_case_is_tolerated_and_pascal_case_wins() {
        let text = sample().to_string();
        let mut camel = text.clone();
        for name in [
            "MerchantID",
            "ChargePermissionId",
            "ObjectType",
            "ObjectId",
            "NotificationType",
            "NotificationId",
            "NotificationVersion",
        ] {
            let lower = format!("{}{}", name[..1].to_lowercase(), &name[1..]);
            camel = camel.replace(&format!("\"{name}\""), &format!("\"{lower}\""));
        }
        assert_ne!(camel, text);
        assert_eq!(parse(&camel, &merchant()), read_value(&sample()));
        assert_eq!(with("objectId", json!("another")), read_value(&sample()));
    }

    #[test]
    fn every_notification_type_is_treated_alike() {
        for kind in ["STATE_CHANGE", "ATTRIBUTE_CHANGE", "SOMETHING_NEW"] {
            let Ok(Ipn::Notification(notification)) = with("NotificationType", json!(kind)) else { panic!("{kind}") };
            assert_eq!(notification.notification_type, kind);
        }
    }

    #[test]
    fn every_object_type_is_understood_and_unknown_ones_are_kept() {
        for kind in ["CHARGE_PERMISSION", "CHARGE", "REFUND", "CHARGEBACK"] {
            assert!(with("ObjectType", json!(kind)).is_ok(), "{kind}");
        }
        assert!(matches!(with("ObjectType", json!("REPORT")), Err(Quarantine::NotUnderstood(_))));
    }

    #[test]
    fn what_lacks_a_field_or_has_another_form_is_kept_for_a_person() {
        for field in [
            "MerchantID",
            "ChargePermissionId",
            "ObjectType",
            "ObjectId",
            "NotificationType",
            "NotificationId",
            "NotificationVersion",
        ] {
            let mut message = sample();
            message.as_object_mut().unwrap().remove(field);
            assert!(matches!(read_value(&message), Err(Quarantine::NotUnderstood(_))), "{field} missing");
            for value in [json!(null), json!(1), json!(""), json!("a b\n"), json!("x".repeat(200))] {
                assert!(matches!(with(field, value), Err(Quarantine::NotUnderstood(_))), "{field}");
            }
        }
        for version in REFUSED_VERSIONS {
            assert!(with("NotificationVersion", json!(version)).is_err(), "{version}");
        }
        for text in ["", "[]", "null", "<xml/>", "{"] {
            assert!(matches!(parse(text, &merchant()), Err(Quarantine::NotUnderstood(_))), "{text}");
        }
    }

    #[test]
    fn the_reason_repeats_no_more_than_a_line_of_the_message() {
        let long = "x".repeat(5000);
        for message in [json!(long), json!([long]), json!({ "NotificationVersion": long }), json!({ long: 1 })] {
            let Err(Quarantine::NotUnderstood(why)) = read_value(&message) else { panic!("understood") };
            assert!(why.len() < 200, "{why}");
        }
    }

    #[test]
    fn another_merchants_notification_is_not_ours() {
        let other: MerchantId = "A2K7NDRCTOTPW9".parse().unwrap();
        assert_eq!(with("MerchantID", json!("A2K7NDRCTOTPW9")), Err(Quarantine::OtherMerchant(other)));
    }

    #[test]
    fn the_test_object_is_a_test_whatever_else_the_message_lacks() {
        assert_eq!(with("ObjectId", json!(TEST_OBJECT_ID)), Ok(Ipn::Test));
        assert_eq!(with("ChargePermissionId", json!(TEST_OBJECT_ID)), Ok(Ipn::Test));
        assert_eq!(read_value(&json!({"ObjectId": TEST_OBJECT_ID, "IsSample": true})), Ok(Ipn::Test));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = parse(&text, &merchant());
        }

        #[test]
        fn arbitrary_field_values_never_panic(field in "MerchantID|ObjectType|ObjectId|NotificationId", value in ".{0,120}") {
            let _ = with(&field, json!(value));
        }
    }
}
