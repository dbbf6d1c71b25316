//! What must hold for any bytes at all: one function per fuzz target. They panic when it does not.
//!
//! `fuzz_targets/` gives them to libFuzzer; `tests/fuzz_seeds.rs` of the service gives them the seeds. `genuine/` holds messages that were
//! signed once, by `make-seeds`, with a key that nobody has kept: whatever else verifies is a forgery.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use amazon_pay_ipn::clock::Clock;
use amazon_pay_ipn::ipn::{self, Ipn, Quarantine};
use amazon_pay_ipn::model::ids::MerchantId;
use amazon_pay_ipn::sns::{Content, Envelope, Headers, SnsSettings, Verifier};
use serde_json::value::RawValue;
use serde_json::{Value, json};

const TOPIC: &str = "arn:aws:sns:us-east-1:291180941288:A1O8CIV1A24A6X";
/// Shortly after the Timestamp of the genuine messages.
const NOW: &str = "2030-01-01T00:00:00Z";
const MERCHANT: &str = "A1O8CIV1A24A6X";

/// The certificate whose key signed the genuine messages, and the root that issued it.
const CERTIFICATE: &str = include_str!("../genuine/certificate.pem");
const ROOT: &str = include_str!("../genuine/root.pem");
/// Each type, each signature version, with and without Subject.
const GENUINE: [&str; 8] = [
    include_str!("../genuine/notification-1.json"),
    include_str!("../genuine/notification-2.json"),
    include_str!("../genuine/subject-1.json"),
    include_str!("../genuine/subject-2.json"),
    include_str!("../genuine/subscription-1.json"),
    include_str!("../genuine/subscription-2.json"),
    include_str!("../genuine/unsubscription-1.json"),
    include_str!("../genuine/unsubscription-2.json"),
];

/// What SNS signs, in any type.
const SIGNED: [&str; 8] = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];
/// Every field that an envelope is read from.
const KNOWN: [&str; 11] = [
    "Message",
    "MessageId",
    "Subject",
    "SubscribeURL",
    "Timestamp",
    "Token",
    "TopicArn",
    "Type",
    "SignatureVersion",
    "Signature",
    "SigningCertURL",
];

/// Any body: what is read as an envelope is read the same from other spellings of its fields, and cannot shift text between them.
pub fn envelope(body: &[u8]) {
    let Ok(envelope) = Envelope::parse(body) else { return };
    let fields = known_fields(body);
    // Another order, other spacing, an unknown field, every character as an escape.
    let escaped: Vec<String> =
        fields.iter().rev().map(|(name, value)| format!("{} :\n{}", escape(name), escape(value))).collect();
    let again = format!(" {{ \"Unknown\" : [1e999, {{}}],\t{}\r\n}} ", escaped.join(" , "));
    assert_eq!(Envelope::parse(again.as_bytes()).expect("the same fields"), envelope);

    let plain = |name: &str| fields.get(name).is_none_or(|text| !text.chars().any(char::is_control));
    assert!(plain("MessageId") && plain("Timestamp") && plain("Type"), "a control character in an identifier");
    assert_eq!(fields.get("MessageId"), Some(&envelope.message_id));
    assert_eq!(fields.get("Message"), Some(&envelope.message));
    assert_eq!(fields.get("TopicArn"), Some(&envelope.topic_arn));
    assert_eq!(fields.get("Type").map(String::as_str), Some(envelope.message_type().as_str()));
    assert!(fields["Timestamp"].starts_with(&envelope.timestamp.to_string()[..19]), "another time");
    match &envelope.content {
        Content::Notification { subject } => {
            assert_eq!(fields.get("Subject"), subject.as_ref());
            assert!(plain("Subject"), "a control character in Subject");
        }
        Content::SubscriptionConfirmation(link) | Content::UnsubscribeConfirmation(link) => {
            assert_eq!(fields.get("Token"), Some(&link.token));
            assert!(plain("Token") && plain("SubscribeURL"), "a control character in a confirmation");
        }
    }
}

/// Any text of a notification: what is understood names our merchant and holds nothing that could break a line of the log.
pub fn ipn(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let ours: MerchantId = MERCHANT.parse().expect("a merchant id");
    match ipn::parse(text, &ours) {
        Ok(Ipn::Notification(notification)) => {
            assert_eq!(notification.merchant_id, ours);
            let same = json!({
                "MerchantID": MERCHANT, "ObjectType": notification.object_type.as_str(),
                "ObjectId": notification.object_id.as_str(),
                "ChargePermissionId": notification.charge_permission_id.as_str(),
                "NotificationType": notification.notification_type, "NotificationId": notification.notification_id,
                "NotificationVersion": "V2",
            });
            for value in same.as_object().into_iter().flat_map(|fields| fields.values()).filter_map(Value::as_str) {
                assert!((1..=100).contains(&value.chars().count()), "{value:?}");
                assert!(!value.chars().any(char::is_control), "{value:?}");
            }
            assert_eq!(ipn::parse(&same.to_string(), &ours), Ok(Ipn::Notification(notification)));
        }
        Ok(Ipn::Test) => assert!(serde_json::from_str::<serde_json::Map<String, Value>>(text).is_ok()),
        Err(Quarantine::OtherMerchant(other)) => assert_ne!(other, ours),
        Err(Quarantine::NotUnderstood(why)) => assert!(why.len() < 2000, "{why:?}"),
    }
}

/// Any certificate, the first byte says in which role: no message is genuine unless the key that signed it is in what was given.
pub fn certificate(data: &[u8]) {
    let Some((&role, given)) = data.split_first() else { return };
    let (certificate, anchors, keys) = match role {
        b'd' => (pem(given), None, [CERTIFICATE, CERTIFICATE]),
        b'a' => (given.to_vec(), Some(ROOT.as_bytes().to_vec()), [CERTIFICATE, CERTIFICATE]),
        // The genuine certificate: then its issuer, or itself, must be among the anchors.
        b't' => (CERTIFICATE.as_bytes().to_vec(), Some(given.to_vec()), [CERTIFICATE, ROOT]),
        b'u' => (CERTIFICATE.as_bytes().to_vec(), Some(pem(given)), [CERTIFICATE, ROOT]),
        _ => (given.to_vec(), None, [CERTIFICATE, CERTIFICATE]),
    };
    let searched = if matches!(role, b'd' | b'u') { vec![given.to_vec()] } else { base64_runs(given) };
    let settings = SnsSettings { trust_anchors_pem: anchors, ..settings() };
    let Ok(verifier) = Verifier::with_certificate(settings, clock(), &certificate) else { return };
    for message in &GENUINE[..2] {
        if is_genuine(&verifier, message.as_bytes()) {
            let holds = |key: &str| searched.iter().any(|bytes| contains(bytes, modulus(key)));
            assert!(keys.into_iter().any(holds), "believed without the key");
        }
    }
}

/// Any body (first byte `r`), or a genuine message with edits (`e`): it is genuine only if it says what a genuine one says.
pub fn message(data: &[u8]) {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    let verifier = VERIFIER.get_or_init(|| {
        Verifier::with_certificate(settings(), clock(), CERTIFICATE.as_bytes()).expect("the genuine certificate")
    });
    let body = match data.split_first() {
        Some((b'e', program)) => edited(program).into_bytes(),
        Some((_, body)) => body.to_vec(),
        None => return,
    };
    if is_genuine(verifier, &body) {
        assert!(GENUINE.iter().any(|genuine| signed_fields(genuine.as_bytes()) == signed_fields(&body)), "a forgery");
    }
}

/// How many of the genuine messages verify: all, or the other properties say nothing.
#[must_use]
pub fn genuine_messages_verify() -> bool {
    let verifier = Verifier::with_certificate(settings(), clock(), CERTIFICATE.as_bytes()).expect("a certificate");
    GENUINE.iter().all(|message| is_genuine(&verifier, message.as_bytes()))
}

fn settings() -> SnsSettings {
    SnsSettings::for_topics(vec![TOPIC.parse().expect("a topic")])
}

fn clock() -> Clock {
    Clock::fixed(NOW.parse().expect("a time"))
}

/// The verdict, and that the explanation agrees with it. With a given certificate nothing is ever awaited, let alone fetched.
fn is_genuine(verifier: &Verifier, body: &[u8]) -> bool {
    let headers = Headers::default();
    let refused = now(verifier.explain(&headers, body)).refused;
    assert_eq!(refused, now(verifier.verify(&headers, body)).err(), "explanation and verdict disagree");
    refused.is_none()
}

fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the verifier waits for something"),
    }
}

/// The known fields of an accepted body, read without the envelope's struct. Fields that are not known may hold anything, invalid UTF-8
/// included.
fn known_fields(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let all: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&text).expect("an accepted body is an object");
    KNOWN
        .iter()
        .filter_map(|&name| {
            let value: Option<String> = serde_json::from_str(all.get(name)?.get()).expect("a text or null");
            Some((name.to_owned(), value?))
        })
        .collect()
}

/// What of a body is covered by its signature: the lists differ by type, other fields are not looked at.
fn signed_fields(body: &[u8]) -> BTreeMap<String, String> {
    let mut fields = known_fields(body);
    let is_notification = fields["Type"] == "Notification";
    fields.retain(|name, _| {
        SIGNED.contains(&name.as_str())
            && match name.as_str() {
                "Subject" => is_notification,
                "Token" | "SubscribeURL" => !is_notification,
                _ => true,
            }
    });
    fields
}

/// A genuine message after a program of edits: each takes an operation, a field, a place and a text from the input.
fn edited(program: &[u8]) -> String {
    let mut program = program.iter().copied();
    let mut byte = || usize::from(program.next().unwrap_or(0));
    let fields_of = |index: usize| known_fields(GENUINE[index % GENUINE.len()].as_bytes());
    let mut fields: Vec<(String, Option<String>)> =
        fields_of(byte()).into_iter().map(|(name, value)| (name, Some(value))).collect();
    // Twelve edits are plenty; the program may be shorter.
    for _ in 0..byte() % 13 {
        let (operation, name, place, length) =
            (byte(), KNOWN[byte() % KNOWN.len()], byte() * 256 + byte(), byte() % 64);
        let bytes: Vec<u8> = (0..length).map(|_| u8::try_from(byte()).unwrap_or(0)).collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let at = fields.iter().position(|(field, _)| field == name);
        let mut value: Vec<char> = at.and_then(|at| fields[at].1.as_deref()).unwrap_or_default().chars().collect();
        let point = place % (value.len() + 1);
        let changed = match operation % 8 {
            0 => Some(text),
            1 => {
                value.splice(point..point, text.chars());
                Some(value.into_iter().collect())
            }
            2 => {
                value.drain(point..(point + length).min(value.len()));
                Some(value.into_iter().collect())
            }
            3 => fields_of(place).remove(name),
            4 => None,
            5 => {
                fields.retain(|(field, _)| field != name);
                continue;
            }
            6 => {
                fields.push((name.to_owned(), Some(text)));
                continue;
            }
            // Text moves to the end of another field, as whoever shifts the boundaries of the signed text would have it.
            _ => {
                let moved: String = value.drain(point..).collect();
                let other = KNOWN[length % KNOWN.len()];
                if let Some((_, Some(target))) = fields.iter_mut().find(|(field, _)| field == other) {
                    target.push_str(&moved);
                }
                Some(value.into_iter().collect())
            }
        };
        match at {
            Some(at) => fields[at].1 = changed,
            None => fields.push((name.to_owned(), changed)),
        }
    }
    let members: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{}", json!(name), json!(value))).collect();
    format!("{{{}}}", members.join(","))
}

fn escape(text: &str) -> String {
    let units: Vec<String> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{}\"", units.concat())
}

fn pem(der: &[u8]) -> Vec<u8> {
    let text = data_encoding::BASE64.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n")).into_bytes()
}

/// What may be Base64 in a text, decoded as leniently as can be, so that no reader of PEM finds more: between marks (`-----`), every
/// character of the alphabet counts and no other.
fn base64_runs(text: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(text);
    text.split("-----")
        .map(|run| {
            let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
            for letter in run.bytes() {
                let six = match letter {
                    b'A'..=b'Z' => letter - b'A',
                    b'a'..=b'z' => letter - b'a' + 26,
                    b'0'..=b'9' => letter - b'0' + 52,
                    b'+' => 62,
                    b'/' => 63,
                    _ => continue,
                };
                (bits, held) = ((bits << 6) | u32::from(six), held + 6);
                if held >= 8 {
                    held -= 8;
                    bytes.push(u8::try_from((bits >> held) & 0xff).unwrap_or(0));
                }
            }
            bytes
        })
        .collect()
}

/// The 256 bytes of the RSA modulus of a genuine certificate, found by the form that openssl gave it: INTEGER, 257 bytes, a zero.
fn modulus(certificate: &str) -> &'static [u8] {
    static KEYS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        [CERTIFICATE, ROOT].map(|text| {
            let der = base64_runs(text.as_bytes()).swap_remove(2);
            let at = der.windows(5).position(|window| window == [0x02, 0x82, 0x01, 0x01, 0x00]).expect("an RSA key");
            der[at + 5..at + 5 + 256].to_vec()
        })
    });
    if certificate == ROOT { &keys[1] } else { &keys[0] }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
