//! Messages that SNS did sign, of topics that are not ours: any AWS account can make them.

use amazon_pay_ipn::sns::Check;

use crate::case::{Corpus, Form};
use crate::message::{SUBSCRIPTION, TOPIC, UNSUBSCRIPTION};

pub(super) fn add(corpus: &mut Corpus<'_>) {
    corpus.family("other_topic");
    let topics: Vec<(&str, String)> = vec![
        ("another_account", TOPIC.replace("291180941288", "123456789012")),
        ("another_region", TOPIC.replace("us-east-1", "us-west-2")),
        ("another_partition", TOPIC.replace("arn:aws:", "arn:aws-cn:")),
        ("another_name", TOPIC.replace("A3BXB0YN3XH17HA2K7NDRCTOTPW9", "A3BXB0YN3XH17HA1O8CIV1A24A6X")),
        ("name_that_begins_as_ours", format!("{TOPIC}X")),
        ("name_that_ours_begins_with", TOPIC[..TOPIC.len() - 1].to_owned()),
        ("something_before", format!("x{TOPIC}")),
        ("lower_case", TOPIC.to_lowercase()),
        ("upper_case", TOPIC.to_uppercase()),
        ("fifo", format!("{TOPIC}.fifo")),
        ("subscription", format!("{TOPIC}:b24e11a2-06bd-4e73-aa29-0ed2de3b41b5")),
        ("colon_after", format!("{TOPIC}:")),
        ("empty", String::new()),
        ("space_after", format!("{TOPIC} ")),
        ("newline_after", format!("{TOPIC}\n")),
        ("newline_before", format!("\n{TOPIC}")),
        ("nul_after", format!("{TOPIC}\0")),
        ("two_of_them", format!("{TOPIC},{TOPIC}")),
        ("wildcard", "arn:aws:sns:us-east-1:291180941288:*".to_owned()),
        ("anything", "*".to_owned()),
        ("queue", TOPIC.replace(":sns:", ":sqs:")),
        ("percent_encoded", TOPIC.replace(':', "%3A")),
        ("cyrillic_letter", TOPIC.replacen('A', "\u{410}", 1)),
        ("region_that_is_a_host", TOPIC.replace("us-east-1", "evil.example/")),
        ("region_of_a_bucket", TOPIC.replace("us-east-1", "s3-us-west-2")),
    ];
    for (variant, topic) in topics {
        let message = corpus.notification(variant).with("TopicArn", topic).signed();
        corpus.forbidden(variant, message.body(), Check::Topic);
    }
    for kind in [SUBSCRIPTION, UNSUBSCRIPTION] {
        let message = corpus.confirmation(kind, kind).with("TopicArn", TOPIC.replace("291180941288", "123456789012"));
        corpus.forbidden(kind, message.signed().body(), Check::Topic);
    }
    let bucket =
        "https://sns.s3-us-west-2.amazonaws.com/SimpleNotificationService-7506a1e35b36ef5a444dd1a8e7cc3ed8.pem";
    let message = corpus.notification("of_a_bucket").with("TopicArn", TOPIC.replace("us-east-1", "s3-us-west-2"));
    let message = message.with("SigningCertURL", bucket).signed();
    corpus.forbidden("of_a_bucket", message.body(), Check::Topic).form(Form::Live);
}
