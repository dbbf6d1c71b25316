//! SNS messages as SNS and others write them, and the text that SNS signs, from AWS's documentation:
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message-verify-message-signature.html>.

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::authority::{Key, Scheme, keys};
use crate::net::{Net, hex_of};

pub const TOPIC: &str = "arn:aws:sns:us-east-1:291180941288:A3BXB0YN3XH17HA2K7NDRCTOTPW9";
/// Allow-listed too, in another region.
pub const OTHER_TOPIC: &str = "arn:aws:sns:eu-west-1:291180941288:A3BXB0YN3XH17HA2K7NDRCTOTPW9";
pub const MERCHANT: &str = "A2K7NDRCTOTPW9";
pub const PERMISSION: &str = "B01-1234567-7654321";
/// A minute before the clock of the corpus.
pub const PUBLISHED: &str = "2026-03-06T19:59:00.000Z";

pub const NOTIFICATION: &str = "Notification";
pub const SUBSCRIPTION: &str = "SubscriptionConfirmation";
pub const UNSUBSCRIPTION: &str = "UnsubscribeConfirmation";

const NOTIFICATION_FIELDS: &[&str] = &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
const CONFIRMATION_FIELDS: &[&str] =
    &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];

/// The fields that are signed for a type, in the order in which they are signed.
pub fn signed_fields(kind: &str) -> &'static [&'static str] {
    if kind == NOTIFICATION { NOTIFICATION_FIELDS } else { CONFIRMATION_FIELDS }
}

/// The members of the object in order. A name stands as it is spelt between the quotes, so that one may be given twice.
#[derive(Debug, Clone)]
pub struct Message(pub Vec<(String, Value)>);

/// Who puts which spaces where.
#[derive(Debug, Clone, Copy)]
pub enum Layout {
    /// As SNS: two spaces, and spaces around the colon.
    Sns,
    Compact,
    /// As most libraries.
    Pretty,
    /// As SNS, with CRLF.
    Crlf,
    /// Every kind of white space that JSON knows, everywhere.
    Wide,
}

/// How texts are written in JSON.
#[derive(Debug, Clone, Copy)]
pub enum Spelling {
    /// Non-ASCII characters as they are.
    Plain,
    /// `\u00e9`, and surrogate pairs.
    Ascii,
    /// `\u00E9`.
    UpperHex,
    /// `\/`.
    Slashes,
    /// Every character as an escape.
    Everything,
}

impl Spelling {
    fn text(self, value: &str) -> String {
        let units = |text: &str, upper: bool| -> String {
            let escape = |unit: u16| if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
            text.encode_utf16().map(escape).collect()
        };
        let plain = serde_json::to_string(value).expect("JSON");
        match self {
            Self::Plain => plain,
            Self::Slashes => plain.replace('/', "\\/"),
            Self::Everything => format!("\"{}\"", units(value, false)),
            Self::Ascii | Self::UpperHex => {
                plain
                    .chars()
                    .map(|c| {
                        if c.is_ascii() { c.to_string() } else { units(&c.to_string(), matches!(self, Self::UpperHex)) }
                    })
                    .collect()
            }
        }
    }
}

/// A UUID that belongs to a name.
pub fn uuid_of(name: &str) -> String {
    let hex = hex_of(&format!("id of {name}"));
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

/// An Amazon Pay notification of ours.
pub fn ipn(name: &str) -> Value {
    json!({
        "MerchantID": MERCHANT, "ObjectType": "CHARGE", "ObjectId": format!("{PERMISSION}-C000001"),
        "ChargePermissionId": PERMISSION, "NotificationType": "STATE_CHANGE",
        "NotificationId": uuid_of(&format!("notification {name}")), "NotificationVersion": "V2"
    })
}

impl Message {
    /// A notification in the order of SNS, unsigned.
    pub fn notification(net: &Net, name: &str) -> Self {
        Self::notification_at(&net.links.base(), name).with("SigningCertURL", net.genuine.as_str())
    }

    /// A confirmation in the order of SNS, unsigned.
    pub fn confirmation(net: &Net, name: &str, kind: &str) -> Self {
        Self::confirmation_at(&net.links.base(), name, kind).with("SigningCertURL", net.genuine.as_str())
    }

    /// With links to this origin, and no address of a certificate yet.
    pub fn notification_at(links: &str, name: &str) -> Self {
        Self::of(&[
            ("Type", NOTIFICATION),
            ("MessageId", &uuid_of(name)),
            ("TopicArn", TOPIC),
            ("Message", &ipn(name).to_string()),
            ("Timestamp", PUBLISHED),
            ("SignatureVersion", "1"),
            ("Signature", ""),
            ("SigningCertURL", ""),
            ("UnsubscribeURL", &format!("{links}/?Action=Unsubscribe&SubscriptionArn={TOPIC}:x")),
        ])
    }

    /// With links to this origin, and no address of a certificate yet.
    pub fn confirmation_at(links: &str, name: &str, kind: &str) -> Self {
        let token = hex_of(&format!("token of {name}")).repeat(4);
        Self::of(&[
            ("Type", kind),
            ("MessageId", &uuid_of(name)),
            ("Token", &token),
            ("TopicArn", TOPIC),
            ("Message", "You have chosen to subscribe to the topic.\nTo confirm, visit the SubscribeURL."),
            ("SubscribeURL", &format!("{links}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={token}")),
            ("Timestamp", PUBLISHED),
            ("SignatureVersion", "1"),
            ("Signature", ""),
            ("SigningCertURL", ""),
        ])
    }

    fn of(fields: &[(&str, &str)]) -> Self {
        Self(fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect())
    }

    /// The text of a field; empty if it is absent or no text.
    pub fn get(&self, name: &str) -> &str {
        self.value(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    /// With a field changed in its place, or added at the end.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        match self.0.iter_mut().find(|(found, _)| found == name) {
            Some((_, place)) => *place = value,
            None => self.0.push((name.to_owned(), value)),
        }
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.0.retain(|(found, _)| found != name);
        self
    }

    /// One more member, whether there is one of that name or not.
    pub fn and(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.push((name.to_owned(), value.into()));
        self
    }

    /// With a Subject where SNS puts it: before Message.
    pub fn subject(mut self, value: impl Into<Value>) -> Self {
        let place = self.0.iter().position(|(name, _)| name == "Message").expect("a Message");
        self.0.insert(place, ("Subject".to_owned(), value.into()));
        self
    }

    /// The text that SNS signs: name and value of each field of the type that is there, each ended by a newline.
    pub fn signed_text(&self) -> String {
        self.text_of(signed_fields(self.get("Type")))
    }

    pub fn text_of(&self, fields: &[&str]) -> String {
        let line = |name: &&str| Some(format!("{name}\n{}\n", self.value(name)?.as_str()?));
        fields.iter().filter_map(line).collect()
    }

    /// Signed by SNS, by the version that the message names.
    pub fn signed(self) -> Self {
        self.signed_by(&keys().genuine)
    }

    pub fn signed_by(self, key: &Key) -> Self {
        let scheme = if self.get("SignatureVersion") == "2" { Scheme::Sha256 } else { Scheme::Sha1 };
        self.signed_with(key, scheme)
    }

    pub fn signed_with(self, key: &Key, scheme: Scheme) -> Self {
        let text = self.signed_text();
        self.with_signature(&key.sign(scheme, text.as_bytes()))
    }

    pub fn with_signature(self, signature: &[u8]) -> Self {
        self.with("Signature", BASE64.encode(signature))
    }

    pub fn signature(&self) -> Vec<u8> {
        BASE64.decode(self.get("Signature").as_bytes()).expect("a signed message")
    }

    /// The body as SNS writes it.
    pub fn body(&self) -> Vec<u8> {
        self.text(Layout::Sns, Spelling::Plain).into_bytes()
    }

    pub fn text(&self, layout: Layout, spelling: Spelling) -> String {
        let (open, colon, comma, close) = match layout {
            Layout::Sns => ("{\n  ", " : ", ",\n  ", "\n}"),
            Layout::Compact => ("{", ":", ",", "}"),
            Layout::Pretty => ("{\n  ", ": ", ",\n  ", "\n}\n"),
            Layout::Crlf => ("{\r\n  ", " : ", ",\r\n  ", "\r\n}\r\n"),
            Layout::Wide => (" \t\r\n{\t\n ", " \r\n\t:\t ", " \n,\r \t", "\n\t}\r\n\t "),
        };
        let member = |(name, value): &(String, Value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), |text| spelling.text(text));
            format!("\"{name}\"{colon}{value}")
        };
        let members: Vec<String> = self.0.iter().map(member).collect();
        format!("{open}{}{close}", members.join(comma))
    }

    /// The headers that SNS sends with it.
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        let mut headers = vec![
            ("x-amz-sns-message-type", self.get("Type")),
            ("x-amz-sns-message-id", self.get("MessageId")),
            ("x-amz-sns-topic-arn", self.get("TopicArn")),
            ("content-type", "text/plain; charset=UTF-8"),
            ("user-agent", "Amazon Simple Notification Service Agent"),
        ];
        let subscription = format!("{}:b24e11a2-06bd-4e73-aa29-0ed2de3b41b5", self.get("TopicArn"));
        if self.get("Type") != SUBSCRIPTION {
            headers.push(("x-amz-sns-subscription-arn", &subscription));
        }
        headers.into_iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect()
    }
}
