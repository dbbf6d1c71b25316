//! The string that SNS signs: a pure function of the message, with one list of fields per type.
//!
//! The lists are per type on purpose. A verifier that signs "whatever signable fields are present" lets the sender choose.
//! Source: <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message-verify-message-signature.html>.

use super::envelope::{Content, Envelope};

/// The signed text of `envelope`: for each signed field, in byte order, the name and the value, each ended by a newline.
///
/// The values are the received ones after JSON decoding, never re-formatted. Values have no lengths in this format, so it is
/// unambiguous only because [`Envelope::parse`] keeps line breaks out of every field but `Message`, and because the field that
/// follows `Message` must be a UUID.
pub(super) fn string_to_sign(envelope: &Envelope) -> String {
    let Envelope { message, message_id, topic_arn, timestamp_text, .. } = envelope;
    let kind = envelope.message_type().as_str();
    let common = [("Timestamp", timestamp_text.as_str()), ("TopicArn", topic_arn), ("Type", kind)];
    let mut text = String::with_capacity(message.len() + 1024);
    let mut add = |name: &str, value: &str| {
        for part in [name, "\n", value, "\n"] {
            text.push_str(part);
        }
    };
    add("Message", message);
    add("MessageId", message_id);
    match &envelope.content {
        Content::Notification { subject } => {
            // An empty subject is signed, an absent one is not: AWS's SDKs for Java, JavaScript and PHP agree on it.
            if let Some(subject) = subject {
                add("Subject", subject);
            }
            for (name, value) in common {
                add(name, value);
            }
        }
        Content::SubscriptionConfirmation(link) | Content::UnsubscribeConfirmation(link) => {
            let [timestamp, topic, kind] = common;
            for (name, value) in
                [("SubscribeURL", link.subscribe_url.as_str()), timestamp, ("Token", &link.token), topic, kind]
            {
                add(name, value);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "c0e5a280-53c9-5a98-93bb-c0a560b3d192";

    fn signed(fields: &str) -> String {
        let body = format!(
            r#"{{"MessageId":"{ID}","TopicArn":"arn:t","Message":"caf\u00e9\nline","Timestamp":"2026-03-06T19:55:38.000Z",
                "SignatureVersion":"1","Signature":"s","SigningCertURL":"u",{fields}}}"#
        );
        string_to_sign(&Envelope::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn a_notification_without_subject_signs_five_fields() {
        assert_eq!(
            signed(r#""Type":"Notification","Subject":null,"Token":"ab","SubscribeURL":"x""#),
            format!(
                "Message\ncafé\nline\nMessageId\n{ID}\nTimestamp\n2026-03-06T19:55:38.000Z\nTopicArn\narn:t\nType\nNotification\n"
            )
        );
    }

    #[test]
    fn a_subject_is_signed_even_when_it_is_empty() {
        assert!(signed(r#""Type":"Notification","Subject":"Hi""#).contains(&format!("{ID}\nSubject\nHi\nTimestamp\n")));
        assert!(signed(r#""Type":"Notification","Subject":"""#).contains(&format!("{ID}\nSubject\n\nTimestamp\n")));
    }

    #[test]
    fn both_confirmations_sign_link_and_token_and_never_a_subject() {
        for kind in ["SubscriptionConfirmation", "UnsubscribeConfirmation"] {
            assert_eq!(
                signed(&format!(r#""Type":"{kind}","Token":"2336","SubscribeURL":"https://s","Subject":"no""#)),
                format!(
                    "Message\ncafé\nline\nMessageId\n{ID}\nSubscribeURL\nhttps://s\nTimestamp\n2026-03-06T19:55:38.000Z\nToken\n2336\n\
                     TopicArn\narn:t\nType\n{kind}\n"
                )
            );
        }
    }

    /// Reads a signed text from its end, where everything is a line of its own until `Message` is left. That there is such a reading
    /// shows that no two messages, of whatever types, have one text.
    fn read_back(text: &str) -> Vec<(&str, &str)> {
        let mut left = text.strip_suffix('\n').unwrap();
        let mut line = || {
            let (rest, last) = left.rsplit_once('\n').unwrap();
            left = rest;
            last
        };
        let mut fields = Vec::new();
        while fields.last().is_none_or(|(name, _)| *name != "MessageId") {
            let (value, name) = (line(), line());
            fields.push((name, value));
        }
        fields.push(("Message", left.strip_prefix("Message\n").unwrap()));
        fields
    }

    /// Texts that are made of what a signed text is made of.
    fn adversarial() -> impl Strategy<Value = String> {
        let names = "Message|MessageId|Subject|SubscribeURL|Timestamp|Token|TopicArn|Type";
        let values = "Notification|SubscriptionConfirmation|[0-9a-f]{8}-0000-0000-0000-000000000000|2026-03-06T19:55:38.000Z|arn:t|ab";
        let line = prop_oneof![names, values, Just("\u{2028}".to_owned()), Just("\r".to_owned()), ".{0,3}"];
        proptest::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
    }

    proptest! {
        #[test]
        fn a_signed_text_can_be_read_in_one_way_only(
            kind in "Notification|SubscriptionConfirmation|UnsubscribeConfirmation", message in adversarial(),
            line in proptest::option::of(prop_oneof![adversarial(), "Timestamp|TopicArn|[0-9a-f]{8}-0000-0000-0000-000000000000|\u{2028}|.{0,3}"]),
            token in "[0-9a-fA-F]{1,9}",
        ) {
            let confirms = kind != "Notification";
            let of_type = |text: &str, is: bool| if is { json!(text) } else { Value::Null };
            let link = line.clone().unwrap_or_default();
            let body = json!({
                "Type": kind, "Message": message, "MessageId": ID, "Timestamp": "2026-03-06T19:55:38.000Z", "TopicArn": "arn:t",
                "Token": of_type(&token, confirms), "SubscribeURL": of_type(&link, confirms),
                "Subject": of_type(&link, !confirms && line.is_some()),
                "SignatureVersion": "1", "Signature": "s", "SigningCertURL": "u",
            });
            let Ok(envelope) = Envelope::parse(body.to_string().as_bytes()) else {
                prop_assert!(link.chars().any(char::is_control));
                return Ok(());
            };
            let signed = string_to_sign(&envelope);
            let fields = read_back(&signed);
            let signs = ["Type", "TopicArn", "Token", "Timestamp", "Subject", "SubscribeURL", "MessageId", "Message"];
            let expected: Vec<(&str, &str)> = signs.iter().filter_map(|name| Some((*name, body[*name].as_str()?))).collect();
            prop_assert_eq!(fields, expected);
        }
    }
}
