//! Every signed field of every type changed, emptied, removed or added after SNS signed the message.

use amazon_pay_ipn::sns::Check;
use serde_json::{Value, json};

use crate::case::Corpus;
use crate::message::{
    Message, NOTIFICATION, OTHER_TOPIC, PERMISSION, SUBSCRIPTION, UNSUBSCRIPTION, ipn, signed_fields, uuid_of,
};

pub(super) fn add(corpus: &mut Corpus<'_>) {
    for (family, kind) in [
        ("changed_notification", NOTIFICATION),
        ("changed_subscription", SUBSCRIPTION),
        ("changed_unsubscription", UNSUBSCRIPTION),
    ] {
        corpus.family(family);
        changed(corpus, kind);
        removed(corpus, kind);
    }
    subjects(corpus);
    not_texts(corpus);
}

/// A signed message of that type; a notification has a subject.
fn genuine(corpus: &Corpus<'_>, variant: &str, kind: &str) -> Message {
    let message = corpus.message(variant, kind);
    if kind == NOTIFICATION { message.subject("a subject").signed() } else { message.signed() }
}

fn changed(corpus: &mut Corpus<'_>, kind: &str) {
    let other = if kind == SUBSCRIPTION { UNSUBSCRIPTION } else { SUBSCRIPTION };
    let elsewhere = format!("{}/?Action=ConfirmSubscription", corpus.net.evil.base());
    let mut changes: Vec<(&str, &str, String, Check)> = vec![
        ("message", "Message", ipn("somebody else's").to_string(), Check::Signature),
        ("message_emptied", "Message", String::new(), Check::Signature),
        ("message_with_a_newline_after", "Message", "\n".to_owned(), Check::Signature),
        ("id", "MessageId", uuid_of("a fresh one"), Check::Signature),
        ("id_in_upper_case", "MessageId", String::new(), Check::Signature),
        ("id_emptied", "MessageId", String::new(), Check::Envelope),
        ("id_without_dashes", "MessageId", uuid_of("x").replace('-', ""), Check::Envelope),
        ("id_in_braces", "MessageId", format!("{{{}}}", uuid_of("x")), Check::Envelope),
        ("id_as_urn", "MessageId", format!("urn:uuid:{}", uuid_of("x")), Check::Envelope),
        ("id_no_uuid", "MessageId", "1".to_owned(), Check::Envelope),
        ("id_with_key_separators", "MessageId", "x}:journal".to_owned(), Check::Envelope),
        ("time_by_a_millisecond", "Timestamp", "2026-03-06T19:59:00.001Z".to_owned(), Check::Signature),
        ("time_by_a_day", "Timestamp", "2026-03-05T19:59:00.000Z".to_owned(), Check::Signature),
        ("time_emptied", "Timestamp", String::new(), Check::Envelope),
        ("topic_to_another_allowed_one", "TopicArn", OTHER_TOPIC.to_owned(), Check::Signature),
        ("topic_emptied", "TopicArn", String::new(), Check::Topic),
        ("type_emptied", "Type", String::new(), Check::Envelope),
        ("type_in_lower_case", "Type", kind.to_lowercase(), Check::Envelope),
        ("type_with_a_space", "Type", format!("{kind} "), Check::Envelope),
        ("type_unknown", "Type", "Notifications".to_owned(), Check::Envelope),
    ];
    if kind == NOTIFICATION {
        let retold = ipn("x").to_string().replace(PERMISSION, "B01-9999999-9999999");
        changes.push(("message_about_another_permission", "Message", retold, Check::Signature));
        // A confirmation needs more than a notification has.
        changes.push(("type", "Type", other.to_owned(), Check::Envelope));
    } else {
        changes.push(("type", "Type", other.to_owned(), Check::Signature));
        changes.push(("type_to_notification", "Type", NOTIFICATION.to_owned(), Check::Signature));
        changes.push(("link", "SubscribeURL", elsewhere, Check::Signature));
        changes.push(("link_emptied", "SubscribeURL", String::new(), Check::Signature));
        changes.push(("token", "Token", "ab".repeat(144), Check::Signature));
        changes.push(("token_emptied", "Token", String::new(), Check::Envelope));
        changes.push(("token_not_hexadecimal", "Token", "xyz".to_owned(), Check::Envelope));
        changes.push(("token_with_more_parameters", "Token", "ab&TopicArn=x".to_owned(), Check::Envelope));
        changes.push(("token_too_long", "Token", "a".repeat(1025), Check::Envelope));
    }
    for (variant, field, value, check) in changes {
        let message = genuine(corpus, variant, kind);
        let value = match variant {
            "id_in_upper_case" => message.get(field).to_uppercase(),
            "message_with_a_newline_after" => format!("{}\n", message.get(field)),
            _ => value,
        };
        let body = message.with(field, value).body();
        match check {
            Check::Envelope => corpus.malformed(variant, body, check),
            _ => corpus.forbidden(variant, body, check),
        };
    }
}

fn removed(corpus: &mut Corpus<'_>, kind: &str) {
    let unsigned = ["SignatureVersion", "Signature", "SigningCertURL"];
    for field in signed_fields(kind).iter().chain(&unsigned).filter(|field| **field != "Subject") {
        let variant = format!("without_{field}");
        let body = genuine(corpus, &variant, kind).without(field).body();
        corpus.malformed(&variant, body, Check::Envelope);
    }
}

/// The one signed field that may be absent.
fn subjects(corpus: &mut Corpus<'_>) {
    corpus.family("changed_subject");
    for (variant, before, after) in [
        ("added", None, Some(json!("a subject"))),
        ("added_empty", None, Some(json!(""))),
        ("removed", Some(json!("a subject")), None),
        ("changed", Some(json!("a subject")), Some(json!("A subject"))),
        ("space_added", Some(json!("a subject")), Some(json!("a subject "))),
        ("emptied", Some(json!("a subject")), Some(json!(""))),
        ("nulled", Some(json!("a subject")), Some(Value::Null)),
        ("empty_one_removed", Some(json!("")), None),
        ("empty_one_nulled", Some(json!("")), Some(Value::Null)),
        ("null_one_emptied", Some(Value::Null), Some(json!(""))),
        ("composed_otherwise", Some(json!("caf\u{e9}")), Some(json!("cafe\u{301}"))),
    ] {
        for version in ["1", "2"] {
            let variant = format!("{variant}_version_{version}");
            let message = corpus.notification(&variant).with("SignatureVersion", version);
            let message = before.clone().into_iter().fold(message, Message::subject).signed().without("Subject");
            let message = after.clone().into_iter().fold(message, Message::subject);
            corpus.forbidden(&variant, message.body(), Check::Signature);
        }
    }
    for (variant, subject) in [
        ("line_break", "a\nb"),
        ("carriage_return", "a\rb"),
        ("tab", "a\tb"),
        ("nul", "a\0b"),
        ("escape", "\u{1b}[31m"),
        ("next_line", "a\u{85}b"),
        ("delete", "a\u{7f}b"),
    ] {
        // Truly signed: the grammar alone refuses it.
        let body = corpus.notification(variant).subject(subject).signed().body();
        corpus.malformed(variant, body, Check::Envelope);
    }
}

/// Values that are no texts, where a text belongs.
fn not_texts(corpus: &mut Corpus<'_>) {
    corpus.family("not_a_text");
    let values = [
        ("number", json!(1)),
        ("truth", json!(true)),
        ("null", Value::Null),
        ("list", json!(["x"])),
        ("object", json!({"x": "y"})),
    ];
    for (kind, fields) in [
        (
            NOTIFICATION,
            &[
                "Type",
                "MessageId",
                "TopicArn",
                "Message",
                "Timestamp",
                "Signature",
                "SigningCertURL",
                "Subject",
                "Token",
                "SubscribeURL",
            ][..],
        ),
        (SUBSCRIPTION, &["Token", "SubscribeURL"]),
        (UNSUBSCRIPTION, &["Token", "SubscribeURL"]),
    ] {
        for field in fields {
            for (what, value) in &values {
                let optional = kind == NOTIFICATION && ["Subject", "Token", "SubscribeURL"].contains(field);
                if optional && value.is_null() {
                    // As absent: among the genuine ones.
                    continue;
                }
                let variant = format!("{kind}_{field}_{what}");
                let body = corpus.message(&variant, kind).signed().with(field, value.clone()).body();
                corpus.malformed(&variant, body, Check::Envelope);
            }
        }
    }
}
