//! The signed text has no lengths, so text can be shifted between fields without changing it: one signature of SNS serves for another
//! message, with another `MessageId`, if a field takes line breaks.
//!
//! SNS signed a message whose Message (which strangers may influence) holds names and values of the fields that follow. Shifted, those
//! become the fields, and what really followed is swallowed by one of them.

use amazon_pay_ipn::sns::Check;

use crate::case::Corpus;
use crate::message::{
    Message, NOTIFICATION, PUBLISHED, SUBSCRIPTION, TOPIC, UNSUBSCRIPTION, ipn, signed_fields, uuid_of,
};

pub(super) fn add(corpus: &mut Corpus<'_>) {
    corpus.family("newline_shift");
    for kind in [NOTIFICATION, SUBSCRIPTION, UNSUBSCRIPTION] {
        let fields: Vec<&str> = signed_fields(kind).iter().copied().filter(|field| *field != "Message").collect();
        for swallower in &fields {
            // The subject may be in the genuine message, in the shifted one, or in both.
            let subjects: &[(bool, bool)] = match (kind, *swallower) {
                (NOTIFICATION, "Subject") => &[(false, true), (true, true)],
                (NOTIFICATION, _) => &[(false, false), (true, false), (false, true), (true, true)],
                _ => &[(false, false)],
            };
            for &(genuine, shifted) in subjects {
                shift(corpus, kind, &fields, swallower, (genuine, shifted));
            }
        }
    }
}

fn shift(corpus: &mut Corpus<'_>, kind: &str, fields: &[&str], swallower: &str, subject: (bool, bool)) {
    let with = |subject: bool| if subject { "with" } else { "no" };
    let variant = format!("{kind}_{swallower}_{}_subject_to_{}_subject", with(subject.0), with(subject.1));
    let place = fields.iter().position(|field| *field == swallower).expect("a signed field");
    let there = |field: &&str, subject: bool| *field != "Subject" || subject;

    let wanted = ipn("the attacker's").to_string();
    let mut genuine = corpus.message(&variant, kind);
    if subject.0 {
        genuine = genuine.subject("the real subject");
    }
    // A subject that comes after the swallower stays what it is.
    if place < 1 && subject.0 != subject.1 {
        return;
    }
    let attackers = |field: &str| match field {
        "MessageId" => uuid_of("the attacker's"),
        "Subject" => "the attacker's subject".to_owned(),
        "Timestamp" => PUBLISHED.to_owned(),
        "TopicArn" => TOPIC.to_owned(),
        "Type" => kind.to_owned(),
        "Token" => "ab".repeat(32),
        "SubscribeURL" => "https://evil.example/".to_owned(),
        other => panic!("{other} is not signed"),
    };
    let lines = |fields: Vec<(&str, String)>| -> String {
        let lines: Vec<String> = fields.into_iter().map(|(field, value)| format!("\n{field}\n{value}")).collect();
        lines.concat()
    };
    let before: Vec<&str> = fields[..=place].iter().copied().filter(|field| there(field, subject.1)).collect();
    let injected = lines(before.iter().map(|field| (*field, attackers(field))).collect());
    let genuine = genuine.with("Message", format!("{wanted}{injected}")).signed();

    let real: Vec<&str> = fields[..=place].iter().copied().filter(|field| there(field, subject.0)).collect();
    let gone = lines(real.iter().map(|field| (*field, genuine.get(field).to_owned())).collect());
    let mut shifted = genuine.clone().with("Message", wanted);
    if place >= 1 && !subject.1 {
        shifted = shifted.without("Subject");
    }
    for field in &before {
        let value = attackers(field);
        let value = if *field == swallower { format!("{value}{gone}") } else { value };
        shifted =
            if *field == "Subject" { shifted.without("Subject").subject(value) } else { shifted.with(field, value) };
    }
    check_that_one_signature_serves_for_both(&genuine, &shifted, kind, &variant);
    match swallower {
        "TopicArn" => corpus.forbidden(&variant, shifted.body(), Check::Topic),
        _ => corpus.malformed(&variant, shifted.body(), Check::Envelope),
    };
}

fn check_that_one_signature_serves_for_both(genuine: &Message, shifted: &Message, kind: &str, variant: &str) {
    let fields = signed_fields(kind);
    assert_eq!(genuine.text_of(fields), shifted.text_of(fields), "{variant} is no attack");
    assert_ne!(genuine.get("MessageId"), shifted.get("MessageId"), "{variant} is no attack");
}
