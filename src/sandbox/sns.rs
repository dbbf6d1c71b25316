//! Notifications as Amazon Pay sends them through SNS: the message, its envelope and its signature.
//!
//! Sources: <https://docs.aws.amazon.com/sns/latest/dg/http-notification-json.html>,
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>.

use std::fmt;

use data_encoding::BASE64;
use jiff::Timestamp;
use rsa::RsaPrivateKey;
use rsa::pkcs1v15::SigningKey;
use rsa::rand_core::{OsRng, RngCore};
use rsa::signature::{SignatureEncoding, Signer};
use serde::Serialize;
use sha1::Sha1;
use sha2::Sha256;

use super::keys::{self, KeyError, SnsIdentity};
use crate::model::ids::Region;

/// Another merchant than any of ours.
const STRANGER: &str = "A3URCZVLDMDI45";

/// What an IPN is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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

/// What happened to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NotificationType {
    /// Its state is another one.
    StateChange,
    /// Something else about it changed.
    AttributeChange,
}

/// An Amazon Pay notification before SNS wraps it. It says what to look at, not what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ipn {
    /// The merchant.
    #[serde(rename = "MerchantID")]
    pub merchant_id: String,
    /// The kind of object.
    pub object_type: ObjectType,
    /// The object.
    pub object_id: String,
    /// The charge permission it belongs to.
    pub charge_permission_id: String,
    /// What happened.
    pub notification_type: NotificationType,
    /// Random, "for tracking only".
    pub notification_id: String,
    /// `V2`.
    pub notification_version: String,
    /// When Amazon sends it: the envelope's Timestamp. Not part of the message.
    #[serde(skip)]
    pub at: Timestamp,
}

impl Ipn {
    /// A notification of this object, with an id of its own.
    #[must_use]
    pub fn new(
        merchant_id: &str,
        (object_type, object_id): (ObjectType, &str),
        charge_permission_id: &str,
        notification_type: NotificationType,
        at: Timestamp,
    ) -> Self {
        Self {
            merchant_id: merchant_id.to_owned(),
            object_type,
            object_id: object_id.to_owned(),
            charge_permission_id: charge_permission_id.to_owned(),
            notification_type,
            notification_id: new_uuid(),
            notification_version: "V2".to_owned(),
            at,
        }
    }

    /// The JSON text that becomes the string `Message` of the envelope.
    #[must_use]
    pub fn message(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// In one line: `CHARGE STATE_CHANGE S01-0000000-0000000-C000001`.
impl fmt::Display for Ipn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = match self.object_type {
            ObjectType::ChargePermission => "CHARGE_PERMISSION",
            ObjectType::Charge => "CHARGE",
            ObjectType::Refund => "REFUND",
            ObjectType::Chargeback => "CHARGEBACK",
        };
        let kind = match self.notification_type {
            NotificationType::StateChange => "STATE_CHANGE",
            NotificationType::AttributeChange => "ATTRIBUTE_CHANGE",
        };
        write!(f, "{object} {kind} {}", self.object_id)
    }
}

/// How SNS signs. The owner of the topic chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SignatureVersion {
    /// SHA-1, the default.
    #[value(name = "1")]
    V1,
    /// SHA-256.
    #[value(name = "2")]
    V2,
}

impl SignatureVersion {
    fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1",
            Self::V2 => "2",
        }
    }

    fn sign(self, key: &RsaPrivateKey, text: &str) -> String {
        let signature = match self {
            Self::V1 => SigningKey::<Sha1>::new(key.clone()).sign(text.as_bytes()).to_vec(),
            Self::V2 => SigningKey::<Sha256>::new(key.clone()).sign(text.as_bytes()).to_vec(),
        };
        BASE64.encode(&signature)
    }
}

/// The three types of messages that SNS posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// Something happened.
    Notification,
    /// Somebody subscribed this endpoint.
    SubscriptionConfirmation,
    /// Somebody ended the subscription.
    UnsubscribeConfirmation,
}

impl MessageType {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notification => "Notification",
            Self::SubscriptionConfirmation => "SubscriptionConfirmation",
            Self::UnsubscribeConfirmation => "UnsubscribeConfirmation",
        }
    }
}

/// A message that should be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Forgery {
    /// Signed by another key, naming the genuine certificate.
    OtherKey,
    /// Signed by another key, naming a certificate of the right name from an issuer that nobody trusts.
    UntrustedCertificate,
    /// Genuine, from a topic of another merchant.
    ForeignTopic,
    /// Genuine topic and signature, about another merchant.
    ForeignMerchant,
    /// The message was changed after it was signed.
    Altered,
}

/// A signed message, ready to be posted any number of times; a repetition carries the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedMessage {
    /// The envelope, pretty-printed as SNS does.
    pub body: String,
    /// The headers of the request, content type included.
    pub headers: Vec<(String, String)>,
    /// The id in the envelope and in the header.
    pub message_id: String,
}

/// What SNS has to say, before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letter {
    /// Amazon Pay published a notification, with the `Subject` if there is one.
    Notification(Ipn, Option<String>),
    /// Somebody subscribed this endpoint at this time.
    Subscription(Timestamp),
    /// Somebody ended the subscription at this time.
    Unsubscription(Timestamp),
}

impl Letter {
    /// The type of the message.
    #[must_use]
    pub fn message_type(&self) -> MessageType {
        match self {
            Self::Notification(..) => MessageType::Notification,
            Self::Subscription(_) => MessageType::SubscriptionConfirmation,
            Self::Unsubscription(_) => MessageType::UnsubscribeConfirmation,
        }
    }

    fn at(&self) -> Timestamp {
        match self {
            Self::Notification(Ipn { at, .. }, _) | Self::Subscription(at) | Self::Unsubscription(at) => *at,
        }
    }

    fn message(&self, topic_arn: &str) -> String {
        match self {
            Self::Notification(ipn, _) => ipn.message(),
            Self::Subscription(_) => format!(
                "You have chosen to subscribe to the topic {topic_arn}.\nTo confirm the subscription, visit the \
                 SubscribeURL included in this message."
            ),
            Self::Unsubscription(_) => format!(
                "You have chosen to deactivate subscription {topic_arn}.\nTo cancel this operation and restore the \
                 subscription, visit the SubscribeURL included in this message."
            ),
        }
    }

    /// The same about another merchant; SNS's own messages name none.
    fn about(&self, merchant_id: &str) -> Self {
        match self.clone() {
            Self::Notification(ipn, subject) => {
                Self::Notification(Ipn { merchant_id: merchant_id.to_owned(), ..ipn }, subject)
            }
            other => other,
        }
    }
}

/// A topic that signs what it sends.
#[derive(Debug, Clone, Copy)]
pub struct Topic<'a> {
    /// Key and certificate.
    pub identity: &'a SnsIdentity,
    /// The topic.
    pub arn: &'a str,
    /// Where certificates are served, without a slash at the end; `SigningCertURL` begins with it.
    pub certificate_base_url: &'a str,
}

impl Topic<'_> {
    /// Signs a new message.
    #[must_use]
    pub fn sign(&self, letter: &Letter, version: SignatureVersion) -> SignedMessage {
        self.seal(letter, version, &self.identity.key, &new_token())
    }

    /// A message that must be refused, or, if it is about a foreign merchant, kept for a person.
    ///
    /// # Errors
    /// If the forger's key cannot be made.
    pub fn forge(
        &self,
        letter: &Letter,
        version: SignatureVersion,
        forgery: Forgery,
    ) -> Result<SignedMessage, KeyError> {
        let (key, token) = (&self.identity.key, new_token());
        Ok(match forgery {
            Forgery::OtherKey => self.seal(letter, version, &keys::forger()?.key, &token),
            Forgery::UntrustedCertificate => Topic { identity: keys::forger()?, ..*self }.sign(letter, version),
            Forgery::ForeignTopic => {
                let (owner, _) = self.arn.rsplit_once(':').unwrap_or_default();
                Topic { arn: &format!("{owner}:{STRANGER}"), ..*self }.sign(letter, version)
            }
            Forgery::ForeignMerchant => self.sign(&letter.about(STRANGER), version),
            Forgery::Altered => {
                let sealed = self.seal(letter, version, key, &token);
                let body = match letter {
                    Letter::Notification(ipn, _) => sealed.body.replace(&ipn.notification_id, &new_uuid()),
                    _ => sealed.body.replace(&token, &new_token()),
                };
                SignedMessage { body, ..sealed }
            }
        })
    }

    /// Signs, and writes the body with the keys, their order and the spacing of genuine messages.
    fn seal(&self, letter: &Letter, version: SignatureVersion, key: &RsaPrivateKey, token: &str) -> SignedMessage {
        let (message_id, kind) = (new_uuid(), letter.message_type());
        // Milliseconds always, `.000` included.
        let timestamp = letter.at().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let sns = sns_url(self.arn);
        let subscription_arn = format!("{}:{}", self.arn, new_uuid());
        let mut members = vec![("Type", kind.as_str().to_owned()), ("MessageId", message_id.clone())];
        if kind != MessageType::Notification {
            members.push(("Token", token.to_owned()));
        }
        members.push(("TopicArn", self.arn.to_owned()));
        let last = if let Letter::Notification(_, subject) = letter {
            members.extend(subject.clone().map(|subject| ("Subject", subject)));
            members.push(("Message", letter.message(self.arn)));
            Some(("UnsubscribeURL", format!("{sns}/?Action=Unsubscribe&SubscriptionArn={subscription_arn}")))
        } else {
            members.push(("Message", letter.message(self.arn)));
            let url = format!("{sns}/?Action=ConfirmSubscription&TopicArn={}&Token={token}", self.arn);
            members.push(("SubscribeURL", url));
            None
        };
        members.push(("Timestamp", timestamp));
        let signature = version.sign(key, &string_to_sign(&members));
        members.push(("SignatureVersion", version.as_str().to_owned()));
        members.push(("Signature", signature));
        members.push(("SigningCertURL", format!("{}/{}", self.certificate_base_url, self.identity.file_name)));
        members.extend(last);

        let subscription = (kind != MessageType::SubscriptionConfirmation).then_some(subscription_arn);
        let headers = headers(kind, &message_id, self.arn, subscription);
        SignedMessage { body: pretty(&members), headers, message_id }
    }
}

fn headers(
    kind: MessageType,
    message_id: &str,
    topic_arn: &str,
    subscription_arn: Option<String>,
) -> Vec<(String, String)> {
    let mut headers = vec![
        ("x-amz-sns-message-type", kind.as_str().to_owned()),
        ("x-amz-sns-message-id", message_id.to_owned()),
        ("x-amz-sns-topic-arn", topic_arn.to_owned()),
        ("content-type", "text/plain; charset=UTF-8".to_owned()),
        ("user-agent", "Amazon Simple Notification Service Agent".to_owned()),
    ];
    headers.extend(subscription_arn.map(|arn| ("x-amz-sns-subscription-arn", arn)));
    headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// `Name\nValue\n` of the signed members in byte order.
fn string_to_sign(members: &[(&str, String)]) -> String {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    sorted.iter().flat_map(|(name, value)| [name, "\n", value.as_str(), "\n"]).collect()
}

fn pretty(members: &[(&str, String)]) -> String {
    let lines: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("  \"{name}\" : {}", serde_json::Value::from(value.as_str())))
        .collect();
    format!("{{\n{}\n}}", lines.join(",\n"))
}

fn sns_url(topic_arn: &str) -> String {
    let region = topic_arn.split(':').nth(3).unwrap_or_default();
    format!("https://sns.{region}.amazonaws.com")
}

/// What SNS's query API answers to `Action=ConfirmSubscription`: the token and the answer; `None` to anything else.
pub(super) fn confirmed(form: &str) -> Option<(String, String)> {
    let value = |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let (Some("ConfirmSubscription"), Some(token)) = (value("Action"), value("Token")) else { return None };
    let arn = value("TopicArn").unwrap_or_default().replace("%3A", ":");
    let answer = format!(
        "<ConfirmSubscriptionResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><ConfirmSubscriptionResult>\
         <SubscriptionArn>{arn}:{}</SubscriptionArn></ConfirmSubscriptionResult><ResponseMetadata><RequestId>{}\
         </RequestId></ResponseMetadata></ConfirmSubscriptionResponse>",
        new_uuid(),
        new_uuid()
    );
    Some((token.to_owned(), answer))
}

/// Account 291180941288 and the prefixes of `na` and `eu` are those of genuine samples; nothing is known of `jp`, whose
/// values here are made up.
#[must_use]
pub fn topic_arn(region: Region, merchant_id: &str) -> String {
    let (aws_region, prefix) = match region {
        Region::Na => ("us-east-1", "A3BXB0YN3XH17H"),
        Region::Eu => ("eu-west-1", "A1G8446IYHA4MR"),
        Region::Jp => ("ap-northeast-1", "A2JPSANDBOX0MR"),
    };
    format!("arn:aws:sns:{aws_region}:291180941288:{prefix}{merchant_id}")
}

/// Random, because ids of different sandboxes may meet in one Redis that removes duplicates.
pub(super) fn new_uuid() -> String {
    let mut bytes = [0_u8; 16];
    OsRng.fill_bytes(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// Random: 128 hexadecimal digits, as long as SNS makes them.
#[must_use]
pub fn new_token() -> String {
    let mut bytes = [0_u8; 64];
    OsRng.fill_bytes(&mut bytes);
    data_encoding::HEXLOWER.encode(&bytes)
}

#[cfg(test)]
mod tests {
    use rsa::pkcs1v15::{Signature, VerifyingKey};
    use rsa::signature::Verifier;
    use serde_json::Value;

    use super::super::keys;
    use super::*;

    const TOPIC: &str = "arn:aws:sns:us-east-1:291180941288:A3BXB0YN3XH17HA2K7NDRCTOTPW9";

    fn ipn() -> Ipn {
        let at = "2026-11-22T10:00:00Z".parse().unwrap();
        let object = (ObjectType::ChargePermission, "C01-0000000-0000000");
        Ipn::new("A2K7NDRCTOTPW9", object, object.1, NotificationType::StateChange, at)
    }

    fn sealed(letter: &Letter, version: SignatureVersion) -> SignedMessage {
        let identity = &keys::shared().unwrap().sns;
        Topic { identity, arn: TOPIC, certificate_base_url: "http://127.0.0.1:1" }.sign(letter, version)
    }

    fn notification(subject: Option<&str>) -> Letter {
        Letter::Notification(ipn(), subject.map(str::to_owned))
    }

    /// Rebuilds the string to sign from the body, by the list of the documentation.
    fn verifies(body: &str) -> bool {
        let body: Value = serde_json::from_str(body).unwrap();
        let names: &[&str] = match body["Type"].as_str().unwrap() {
            "Notification" => &["Message", "MessageId", "Timestamp", "TopicArn", "Type"],
            _ => &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
        };
        let mut names = names.to_vec();
        if body.get("Subject").is_some() {
            names.insert(2, "Subject");
        }
        let text: String = names.iter().flat_map(|name| [name, "\n", body[name].as_str().unwrap(), "\n"]).collect();
        let signature = BASE64.decode(body["Signature"].as_str().unwrap().as_bytes()).unwrap();
        let signature = Signature::try_from(signature.as_slice()).unwrap();
        let key = keys::shared().unwrap().sns.key.to_public_key();
        match body["SignatureVersion"].as_str().unwrap() {
            "1" => VerifyingKey::<Sha1>::new(key).verify(text.as_bytes(), &signature).is_ok(),
            _ => VerifyingKey::<Sha256>::new(key).verify(text.as_bytes(), &signature).is_ok(),
        }
    }

    #[test]
    fn envelopes_of_every_type_and_version_verify() {
        let letters = [
            notification(None),
            notification(Some("Grüße")),
            Letter::Subscription(ipn().at),
            Letter::Unsubscription(ipn().at),
        ];
        for version in [SignatureVersion::V1, SignatureVersion::V2] {
            for letter in &letters {
                let message = sealed(letter, version);
                assert!(verifies(&message.body), "{letter:?} {version:?}");
                assert!(!verifies(&message.body.replace("A2K7NDRCTOTPW9", "A2K7NDRCTOTPW8")));
            }
        }
    }

    #[test]
    fn a_notification_has_the_keys_the_order_and_the_spacing_of_genuine_ones() {
        let message = sealed(&notification(Some("s")), SignatureVersion::V1);
        let names: Vec<&str> = message.body.lines().filter_map(|line| line.split('"').nth(1)).collect();
        let expected = [
            "Type",
            "MessageId",
            "TopicArn",
            "Subject",
            "Message",
            "Timestamp",
            "SignatureVersion",
            "Signature",
            "SigningCertURL",
            "UnsubscribeURL",
        ];
        assert_eq!(names, expected);
        assert!(message.body.starts_with("{\n  \"Type\" : \"Notification\",\n  \"MessageId\" : \""));
        assert!(message.body.contains("\"Timestamp\" : \"2026-11-22T10:00:00.000Z\""));
        assert!(message.headers.contains(&("x-amz-sns-message-id".to_owned(), message.message_id.clone())));
        assert!(message.headers.contains(&("content-type".to_owned(), "text/plain; charset=UTF-8".to_owned())));
    }

    #[test]
    fn what_is_altered_or_signed_by_another_key_does_not_verify() {
        let identity = &keys::shared().unwrap().sns;
        let topic = Topic { identity, arn: TOPIC, certificate_base_url: "http://127.0.0.1:1" };
        for letter in [notification(None), Letter::Subscription(ipn().at), Letter::Unsubscription(ipn().at)] {
            for (forgery, good) in
                [(Forgery::OtherKey, false), (Forgery::Altered, false), (Forgery::ForeignTopic, true)]
            {
                let message = topic.forge(&letter, SignatureVersion::V1, forgery).unwrap();
                assert_eq!(verifies(&message.body), good, "{letter:?} {forgery:?}");
            }
        }
    }

    #[test]
    fn the_inner_message_is_pascal_case_and_carries_no_state() {
        let message: Value = serde_json::from_str(&ipn().message()).unwrap();
        let names: Vec<&str> = message.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "MerchantID",
            "ObjectType",
            "ObjectId",
            "ChargePermissionId",
            "NotificationType",
            "NotificationId",
            "NotificationVersion",
        ];
        assert_eq!(names, expected);
        assert_eq!(message["ObjectType"], "CHARGE_PERMISSION");
        assert_eq!(message["NotificationType"], "STATE_CHANGE");
        assert_eq!(message["NotificationVersion"], "V2");
    }
}
