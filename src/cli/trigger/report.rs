//! What the answer means, in words and as JSON.

use serde_json::json;

use super::Order;
use crate::sandbox::{CertificateHost, Forgery, Letter, SignedMessage};

/// What was sent and what came of it.
pub(super) struct Report<'a> {
    pub(super) order: &'a Order,
    pub(super) to: &'a str,
    pub(super) message: &'a SignedMessage,
    pub(super) statuses: &'a [u16],
    pub(super) host: &'a CertificateHost,
}

impl Report<'_> {
    /// Whether the service did what it should have done.
    pub(super) fn is_as_expected(&self) -> bool {
        self.statuses.iter().all(|status| *status == self.order.expected()) && self.confirmed_rightly()
    }

    /// A genuine subscription is confirmed, each time; nothing else is, ever.
    fn confirmed_rightly(&self) -> bool {
        let subscribes = matches!(self.order.letter, Letter::Subscription(_)) && self.order.expected() == 200;
        self.host.confirmations() == if subscribes { self.statuses.len() } else { 0 }
    }

    pub(super) fn as_text(&self) -> String {
        let statuses = self.statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let verdict = if self.is_as_expected() { "as expected" } else { "NOT AS EXPECTED" };
        let mut text = format!(
            "{}, MessageId {} -> {statuses}: {}; {verdict}\n",
            self.order.in_words(),
            self.message.message_id,
            self.meaning()
        );
        if let Some(hint) = self.hint() {
            text.push_str(&hint);
            text.push('\n');
        }
        text
    }

    pub(super) fn as_json(&self) -> String {
        let value = json!({
            "sent": self.order.in_words(), "messageId": self.message.message_id, "topicArn": self.order.topic.as_str(),
            "to": self.to, "statuses": self.statuses, "expected": self.order.expected(),
            "asExpected": self.is_as_expected(), "meaning": self.meaning(), "hint": self.hint(),
            "certificateFetches": self.host.fetches(), "confirmations": self.host.confirmations(),
        });
        format!("{value:#}\n")
    }

    /// The newest status: of several copies it is the one that stays.
    fn status(&self) -> u16 {
        self.statuses.last().copied().unwrap_or_default()
    }

    fn meaning(&self) -> &'static str {
        match (self.status(), &self.order.letter) {
            (200, Letter::Subscription(_)) => "the subscription is confirmed",
            (200, Letter::Unsubscription(_)) => "noted, an event tells that the subscription has ended",
            (200, _) if self.order.forgery == Some(Forgery::ForeignMerchant) => "kept in the quarantine for a person",
            (200, _) if self.order.is_test => "acknowledged, a test changes nothing",
            (200, _) => "stored, or known already",
            (400, _) => "refused as malformed, SNS would not send it again",
            (403, _) => "refused, SNS would not send it again",
            (413, _) => "refused as too large, SNS would not send it again",
            (503, _) => "not judged or not stored now, SNS would send it again",
            _ => "no answer that this service gives",
        }
    }

    /// What to look at when the answer is another one than expected.
    fn hint(&self) -> Option<String> {
        if self.is_as_expected() {
            return None;
        }
        let Order { topic, anchors, certificate_base_url: base, .. } = self.order;
        let anchors = anchors.display();
        let fetched = self.host.fetches() > 0;
        Some(match (self.status(), self.order.expected()) {
            (200, 200) => format!(
                "{} subscriptions were confirmed at {base}: the service's SNS_API_BASE_URL should be {base}",
                self.host.confirmations()
            ),
            (200, _) => "The service took what it must refuse. Do not run it like this.".to_owned(),
            (403, _) if fetched => format!(
                "The service fetched the certificate, so topic and address are right: its SNS_TRUST_ANCHORS_FILE should be \
                 {anchors}. Its log names the check."
            ),
            (403, _) => format!(
                "Its log names the check. The service needs SNS_TOPIC_ARNS with {topic}, SNS_CERTIFICATE_BASE_URL={base} and \
                 SNS_TRUST_ANCHORS_FILE={anchors}: `amazon-pay-ipn trigger settings` prints them."
            ),
            (503, _) if matches!(self.order.letter, Letter::Subscription(_)) => {
                format!("Its log says why. To confirm subscriptions here the service needs SNS_API_BASE_URL={base}.")
            }
            (503, _) => format!(
                "Its log says why: Redis is not ready, or the certificate cannot be fetched from {base} (a failed fetch is \
                 not repeated for 10 seconds)."
            ),
            (404 | 405, _) => "POST /ipn of the public listener is the place; --to says where.".to_owned(),
            _ => "Its log says why, if it is this service.".to_owned(),
        })
    }
}
