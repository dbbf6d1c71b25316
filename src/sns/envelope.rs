//! The SNS envelope, parsed once and strictly. Verifier and consumer read the same struct, so they cannot disagree about it.
//!
//! Source: <https://docs.aws.amazon.com/sns/latest/dg/http-notification-json.html>. Only what is signed is offered to
//! consumers; `UnsubscribeURL` and `MessageAttributes` are not signed and therefore not even kept.

use std::fmt;

use jiff::Timestamp;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Longest token accepted; genuine ones have 288 hex digits.
const MAX_TOKEN_LENGTH: usize = 1024;
/// Genuine messages have at most 11; each name is compared with those before it.
const MAX_FIELDS: usize = 64;

/// An SNS message of well-formed shape. Whether it is genuine is what [`super::Verified`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// `MessageId`: a UUID with hyphens, the same for every delivery of one message.
    pub message_id: String,
    /// `TopicArn` as received.
    pub topic_arn: String,
    /// `Message`: the payload of a notification, or SNS's text for people.
    pub message: String,
    /// When the message was published, from `Timestamp`. A retry keeps it.
    pub timestamp: Timestamp,
    /// What the type adds.
    pub content: Content,
    /// `Timestamp` as received: this is what is signed, the parsed value would lose `.000`.
    pub(super) timestamp_text: String,
    /// `SignatureVersion` as received; not signed.
    pub(super) signature_version: String,
    /// `Signature` as received: Base64.
    pub(super) signature: String,
    /// `SigningCertURL` as received; not signed.
    pub(super) signing_cert_url: String,
}

/// What the message types have of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A published message.
    Notification {
        /// `Subject`; `None` if absent or null.
        subject: Option<String>,
    },
    /// Somebody subscribed our endpoint to the topic.
    SubscriptionConfirmation(Confirmation),
    /// Our endpoint was unsubscribed. Following its link would subscribe it again.
    UnsubscribeConfirmation(Confirmation),
}

/// What both confirmations carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// `Token`: hex digits; confirms the subscription within two days. A secret: keep it out of logs.
    pub token: String,
    /// `SubscribeURL`: part of what is signed, and never visited.
    pub(super) subscribe_url: String,
}

/// The type of an SNS message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// `Notification`.
    Notification,
    /// `SubscriptionConfirmation`.
    SubscriptionConfirmation,
    /// `UnsubscribeConfirmation`.
    UnsubscribeConfirmation,
}

impl MessageType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Notification, Self::SubscriptionConfirmation, Self::UnsubscribeConfirmation];

    /// As SNS spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notification => "Notification",
            Self::SubscriptionConfirmation => "SubscriptionConfirmation",
            Self::UnsubscribeConfirmation => "UnsubscribeConfirmation",
        }
    }
}

impl Envelope {
    /// Reads an SNS message from a request body.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] says what is wrong: no JSON object, a field given twice, missing, not a string, or out of its grammar.
    /// Unknown fields are tolerated and never used.
    pub fn parse(body: &[u8]) -> Result<Self, EnvelopeError> {
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(EnvelopeError::NotAnObject);
        }
        // As a whole: serde looks only at the fields that it keeps, and the journal keeps the body.
        let body = std::str::from_utf8(body).map_err(|_| EnvelopeError::NotUtf8)?;
        let wire: Wire = serde_json::from_str(body).map_err(EnvelopeError::Json)?;
        let content = match required("Type", wire.kind)?.as_str() {
            "Notification" => Content::Notification { subject: line("Subject", wire.subject)? },
            "SubscriptionConfirmation" => {
                Content::SubscriptionConfirmation(Confirmation::parse(wire.token, wire.subscribe_url)?)
            }
            "UnsubscribeConfirmation" => {
                Content::UnsubscribeConfirmation(Confirmation::parse(wire.token, wire.subscribe_url)?)
            }
            _ => return Err(EnvelopeError::UnknownType),
        };
        let message_id = required("MessageId", wire.message_id)?;
        if message_id.len() != 36 || uuid::Uuid::try_parse(&message_id).is_err() {
            return Err(EnvelopeError::Field { name: "MessageId", expected: "a UUID with hyphens" });
        }
        let timestamp_text = required("Timestamp", wire.timestamp)?;
        let timestamp = parse_timestamp(&timestamp_text)
            .ok_or(EnvelopeError::Field { name: "Timestamp", expected: "YYYY-MM-DDTHH:MM:SS.mmmZ" })?;
        Ok(Self {
            message_id,
            topic_arn: required("TopicArn", wire.topic_arn)?,
            message: required("Message", wire.message)?,
            timestamp,
            content,
            timestamp_text,
            signature_version: required("SignatureVersion", wire.signature_version)?,
            signature: required("Signature", wire.signature)?,
            signing_cert_url: required("SigningCertURL", wire.signing_cert_url)?,
        })
    }

    /// The type of the message.
    #[must_use]
    pub fn message_type(&self) -> MessageType {
        match self.content {
            Content::Notification { .. } => MessageType::Notification,
            Content::SubscriptionConfirmation(_) => MessageType::SubscriptionConfirmation,
            Content::UnsubscribeConfirmation(_) => MessageType::UnsubscribeConfirmation,
        }
    }
}

impl Confirmation {
    fn parse(token: Option<String>, subscribe_url: Option<String>) -> Result<Self, EnvelopeError> {
        let token = token
            .filter(|token| (1..=MAX_TOKEN_LENGTH).contains(&token.len()))
            .filter(|token| token.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .ok_or(EnvelopeError::Field { name: "Token", expected: "hex digits" })?;
        let subscribe_url = line("SubscribeURL", subscribe_url)?
            .ok_or(EnvelopeError::Field { name: "SubscribeURL", expected: "a text" })?;
        Ok(Self { token, subscribe_url })
    }
}

/// The fields as they come.
#[derive(Default)]
struct Wire {
    kind: Option<String>,
    message_id: Option<String>,
    topic_arn: Option<String>,
    message: Option<String>,
    timestamp: Option<String>,
    signature_version: Option<String>,
    signature: Option<String>,
    signing_cert_url: Option<String>,
    subject: Option<String>,
    token: Option<String>,
    subscribe_url: Option<String>,
}

impl Wire {
    fn field(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "Type" => &mut self.kind,
            "MessageId" => &mut self.message_id,
            "TopicArn" => &mut self.topic_arn,
            "Message" => &mut self.message,
            "Timestamp" => &mut self.timestamp,
            "SignatureVersion" => &mut self.signature_version,
            "Signature" => &mut self.signature,
            "SigningCertURL" => &mut self.signing_cert_url,
            "Subject" => &mut self.subject,
            "Token" => &mut self.token,
            "SubscribeURL" => &mut self.subscribe_url,
            _ => return None,
        })
    }
}

/// Written out because a derived one accepts any field twice that it does not know. A text that says two things about anything is not
/// what SNS sends.
impl<'de> Deserialize<'de> for Wire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WireVisitor)
    }
}

struct WireVisitor;

impl<'de> Visitor<'de> for WireVisitor {
    type Value = Wire;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wire, A::Error> {
        let mut wire = Wire::default();
        let mut names: Vec<String> = Vec::with_capacity(12);
        while let Some(name) = map.next_key::<String>()? {
            if names.contains(&name) {
                return Err(A::Error::custom("a field that is given twice"));
            }
            if names.len() == MAX_FIELDS {
                return Err(A::Error::custom("too many fields"));
            }
            match wire.field(&name) {
                Some(field) => *field = map.next_value()?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
            names.push(name);
        }
        Ok(wire)
    }
}

fn required(name: &'static str, value: Option<String>) -> Result<String, EnvelopeError> {
    value.ok_or(EnvelopeError::Field { name, expected: "a text" })
}

/// Refuses control characters. A line break would let the text of one signed field pass for another field: the signed string
/// has no lengths.
fn line(name: &'static str, text: Option<String>) -> Result<Option<String>, EnvelopeError> {
    match text {
        Some(text) if text.chars().any(char::is_control) => {
            Err(EnvelopeError::Field { name, expected: "a text without control characters" })
        }
        text => Ok(text),
    }
}

fn parse_timestamp(text: &str) -> Option<Timestamp> {
    const FORM: &[u8] = b"dddd-dd-ddTdd:dd:dd.dddZ";
    let fits = text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(byte, &form)| if form == b'd' { byte.is_ascii_digit() } else { byte == form });
    // jiff reads second 60 as 59; SNS never sends it.
    let fits = fits && &text[17..19] != "60";
    fits.then(|| text.parse().ok()).flatten()
}

/// Why a body is not an SNS message.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The body does not begin with `{`: raw delivery, another sender, or a proxy's page.
    #[error("a body that is no JSON object")]
    NotAnObject,
    /// Bytes that are no text.
    #[error("a body that is not UTF-8")]
    NotUtf8,
    /// Not JSON; or a field is given twice or is not a string; or there are too many.
    #[error("{0}")]
    Json(#[source] serde_json::Error),
    /// `Type` is none of the three known.
    #[error("an unknown Type")]
    UnknownType,
    /// A field is missing or does not have its form.
    #[error("{name} that is not {expected}")]
    Field {
        /// The field.
        name: &'static str,
        /// Its form, in words.
        expected: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn notification() -> Value {
        json!({
            "Type": "Notification", "MessageId": "c0e5a280-53c9-5a98-93bb-c0a560b3d192", "TopicArn": "arn:t",
            "Message": "m", "Timestamp": "2026-03-06T19:55:38.000Z", "SignatureVersion": "1", "Signature": "s",
            "SigningCertURL": "u", "UnsubscribeURL": "v", "MessageAttributes": {"a": {"Type": "String", "Value": "b"}}
        })
    }

    fn with(field: &str, value: Value) -> Result<Envelope, EnvelopeError> {
        let mut message = notification();
        message[field] = value;
        Envelope::parse(message.to_string().as_bytes())
    }

    fn confirmation_with(field: &str, value: Value) -> Result<Envelope, EnvelopeError> {
        let mut message = notification();
        message["Type"] = json!("SubscriptionConfirmation");
        message["Token"] = json!("2336412f");
        message["SubscribeURL"] = json!("https://s");
        message[field] = value;
        Envelope::parse(message.to_string().as_bytes())
    }

    #[test]
    fn the_timestamp_is_kept_as_received_beside_its_value() {
        let envelope = with("Message", json!("m")).unwrap();
        assert_eq!(envelope.timestamp_text, "2026-03-06T19:55:38.000Z");
        assert_eq!(envelope.timestamp.to_string(), "2026-03-06T19:55:38Z");
    }

    #[test]
    fn a_missing_or_null_subject_is_none_and_an_empty_one_is_kept() {
        let subject = |value| match with("Subject", value).unwrap().content {
            Content::Notification { subject } => subject,
            other => panic!("{other:?}"),
        };
        assert_eq!(subject(Value::Null), None);
        assert_eq!(subject(json!("")), Some(String::new()));
        assert_eq!(subject(json!("Grüße")), Some("Grüße".to_owned()));
    }

    #[test]
    fn control_characters_are_refused_where_they_could_shift_fields() {
        for text in ["a\nMessageId\nb", "a\r", "\t", "\u{0}", "\u{85}"] {
            assert!(with("Subject", json!(text)).is_err(), "{text:?}");
            assert!(confirmation_with("SubscribeURL", json!(text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_required_field_must_be_there_and_be_a_string() {
        for field in
            ["Type", "MessageId", "TopicArn", "Message", "Timestamp", "SignatureVersion", "Signature", "SigningCertURL"]
        {
            for value in [Value::Null, json!(1), json!(true), json!(["x"]), json!({"x": "y"})] {
                assert!(with(field, value).is_err(), "{field}");
            }
            let mut message = notification();
            message.as_object_mut().unwrap().remove(field);
            assert!(Envelope::parse(message.to_string().as_bytes()).is_err(), "{field} missing");
        }
        assert!(with("Subject", json!(7)).is_err());
        for field in ["Token", "SubscribeURL"] {
            assert!(confirmation_with(field, Value::Null).is_err(), "{field}");
        }
        assert!(confirmation_with("Message", json!("m")).is_ok());
    }

    #[test]
    fn a_field_given_twice_is_refused_however_it_is_spelt() {
        for twin in [
            r#""MessageId""#,
            r#""Message\u0049d""#,
            r#""Message""#,
            r#""Subject""#,
            r#""Type""#,
            r#""UnsubscribeURL""#,
            r#""MessageAttr\u0069butes""#,
        ] {
            let mut body = notification();
            body["Subject"] = json!("s");
            let body = body.to_string();
            let doubled = format!("{},{twin}:\"x\"}}", body.strip_suffix('}').unwrap());
            assert!(matches!(Envelope::parse(doubled.as_bytes()), Err(EnvelopeError::Json(_))), "{twin}");
        }
    }

    #[test]
    fn field_names_are_matched_exactly() {
        let text = notification().to_string();
        for (name, other) in [("SigningCertURL", "SigningCertUrl"), ("MessageId", "messageId"), ("Type", "type")] {
            let renamed = text.replace(&format!("\"{name}\":"), &format!("\"{other}\":"));
            assert!(Envelope::parse(renamed.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn bodies_that_are_not_one_json_object_are_refused() {
        let message = notification().to_string();
        let array = r#"["Notification","c0e5a280-53c9-5a98-93bb-c0a560b3d192","t","m","2026-03-06T19:55:38.000Z","1","s","u",null,null,null]"#;
        for body in
            ["", " ", "{}", "null", "plain text", "\u{feff}{}", array, &format!("{message}{message}"), &message[..40]]
        {
            assert!(Envelope::parse(body.as_bytes()).is_err(), "{body:?}");
        }
        for invalid in [&b"\"x\":\"\xff\""[..], b"\"\xff\":1", b"\"x\":{\"y\":\"\xed\xa0\x80\"}"] {
            let body = [b"{", invalid, b",", &message.as_bytes()[1..]].concat();
            assert!(matches!(Envelope::parse(&body), Err(EnvelopeError::NotUtf8)), "{}", invalid.escape_ascii());
        }
        assert!(Envelope::parse(format!(" \n{message}\n").as_bytes()).is_ok());
    }

    #[test]
    fn identifiers_times_and_tokens_have_one_spelling() {
        for id in [
            "",
            "c0e5a28053c95a9893bbc0a560b3d192",
            "{c0e5a280-53c9-5a98-93bb-c0a560b3d192}",
            "c0e5a280-53c9-5a98-93bb-c0a560b3d19\n",
        ] {
            assert!(with("MessageId", json!(id)).is_err(), "{id:?}");
        }
        for time in [
            "2026-03-06T19:55:38Z",
            "2026-03-06T19:55:38.9Z",
            "2026-03-06T19:55:38.903+00:00",
            "2026-03-06 19:55:38.903Z",
            "2026-02-30T19:55:38.903Z",
            "2026-03-06T24:00:00.000Z",
            "2026-12-31T23:59:60.000Z",
            "2026-03-06T19:55:38.903Z\n",
            "+026-03-06T19:55:38.903Z",
            "2026-03-06T19:55:38.90३Z",
        ] {
            assert!(with("Timestamp", json!(time)).is_err(), "{time:?}");
        }
        for token in ["", "xyz", "ab\ncd", "ab cd", &"a".repeat(MAX_TOKEN_LENGTH + 1)] {
            assert!(confirmation_with("Token", json!(token)).is_err(), "{token:?}");
        }
        assert!(with("Type", json!("notification")).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::parse(&body);
        }

        #[test]
        fn arbitrary_field_values_never_panic(field in "Type|MessageId|Timestamp|Token|Subject", value in ".{0,40}") {
            let _ = with(&field, json!(value));
            let _ = confirmation_with(&field, json!(value));
        }
    }
}
