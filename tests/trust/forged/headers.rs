//! Headers: they are not signed, so they can only speak against a message.

use amazon_pay_ipn::sns::Check;

use crate::case::Corpus;
use crate::message::{NOTIFICATION, SUBSCRIPTION, TOPIC, UNSUBSCRIPTION, ipn, uuid_of};

/// The check of what the headers say.
const HEADER_CHECK: Check = Check::Headers;

pub(super) fn add(corpus: &mut Corpus<'_>) {
    corpus.family("raw_delivery");
    for (variant, value) in [("lower_case", "true"), ("mixed_case", "True"), ("upper_case", "TRUE")] {
        let message = corpus.notification(variant).signed();
        corpus
            .malformed(variant, message.body(), Check::Delivery)
            .headers(message.headers())
            .header("x-amz-sns-rawdelivery", value);
        // Raw delivery is the payload alone.
        let variant = format!("{variant}_payload");
        let body = ipn(&variant).to_string();
        corpus.malformed(&variant, body, Check::Delivery).header("x-amz-sns-rawdelivery", value);
    }
    corpus.malformed("payload_without_the_header", ipn("raw").to_string(), Check::Envelope);

    corpus.family("header_type");
    for kind in [NOTIFICATION, SUBSCRIPTION, UNSUBSCRIPTION] {
        for value in [
            NOTIFICATION,
            SUBSCRIPTION,
            UNSUBSCRIPTION,
            "",
            "notification",
            "Notifications",
            "Notification, SubscriptionConfirmation",
        ] {
            if value == kind {
                continue;
            }
            let variant = format!("{kind}_said_to_be_{value:?}");
            let body = corpus.message(&variant, kind).signed().body();
            corpus.malformed(&variant, body, HEADER_CHECK).header("x-amz-sns-message-type", value);
        }
        let variant = format!("{kind}_said_to_be_no_text");
        let body = corpus.message(&variant, kind).signed().body();
        corpus.malformed(&variant, body, HEADER_CHECK).header("x-amz-sns-message-type", b"Notific\xe4tion");
    }
}

/// The type given twice: one of the two does not agree with the body.
pub(super) fn two_types(corpus: &mut Corpus<'_>) {
    corpus.family("header_given_twice");
    for (variant, first, second) in
        [("right_one_first", NOTIFICATION, SUBSCRIPTION), ("right_one_last", SUBSCRIPTION, NOTIFICATION)]
    {
        let body = corpus.notification(variant).signed().body();
        corpus
            .malformed(variant, body, HEADER_CHECK)
            .header("x-amz-sns-message-type", first)
            .header("x-amz-sns-message-type", second);
    }
}

/// `x-amz-sns-message-id` and `x-amz-sns-topic-arn` must agree with the body where they are given: issue 3, item 1.
pub fn agreement(corpus: &mut Corpus<'_>) {
    corpus.family("header_agreement");
    for kind in [NOTIFICATION, SUBSCRIPTION, UNSUBSCRIPTION] {
        let no_text = b"\xe4rn".to_vec();
        for (variant, header, value) in [
            ("another_id", "x-amz-sns-message-id", uuid_of("another").into_bytes()),
            ("empty_id", "x-amz-sns-message-id", Vec::new()),
            ("id_that_is_none", "x-amz-sns-message-id", b"1".to_vec()),
            ("id_that_is_no_text", "x-amz-sns-message-id", no_text.clone()),
            ("another_topic", "x-amz-sns-topic-arn", TOPIC.replace("291180941288", "123456789012").into_bytes()),
            ("topic_in_lower_case", "x-amz-sns-topic-arn", TOPIC.to_lowercase().into_bytes()),
            ("subscription_for_topic", "x-amz-sns-topic-arn", format!("{TOPIC}:x").into_bytes()),
            ("empty_topic", "x-amz-sns-topic-arn", Vec::new()),
            ("topic_that_is_no_text", "x-amz-sns-topic-arn", no_text),
        ] {
            let variant = format!("{kind}_{variant}");
            let message = corpus.message(&variant, kind).signed();
            let mut headers = message.headers();
            headers.retain(|(name, _)| name != header);
            corpus.malformed(&variant, message.body(), HEADER_CHECK).headers(headers).header(header, value);
        }
    }
}
