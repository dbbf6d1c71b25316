//! Properties of the verifier that no list of cases can show. Certificates are given, so nothing is fetched.

use std::sync::LazyLock;

use amazon_pay_ipn::sns::{Content, Envelope, Headers, Verified, Verifier};
use proptest::prelude::*;
use serde_json::json;

use crate::authority::{issued, keys, params};
use crate::case::Form;
use crate::message::{Message, NOTIFICATION, SUBSCRIPTION, UNSUBSCRIPTION, signed_fields};
use crate::net::file_name;
use crate::stage::{clock, sns_settings};

/// Nobody is asked there: the certificate is given.
const BASE: &str = "http://127.0.0.1:9";

fn verifier() -> &'static Verifier {
    static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
        let pem = issued(&params(), &keys().genuine);
        Verifier::with_certificate(sns_settings(Form::Sandbox, BASE, BASE), clock(), pem.as_bytes())
            .expect("a verifier")
    });
    &VERIFIER
}

fn judged(body: &[u8]) -> Option<Verified<Envelope>> {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));
    RUNTIME.block_on(verifier().verify(&Headers::default(), body)).ok()
}

/// A genuine message of each type, and a notification with a subject; in both versions. Signed once.
fn genuine(kind: usize, version: &str) -> Message {
    static MESSAGES: LazyLock<Vec<[Message; 2]>> =
        LazyLock::new(|| (0..4).map(|kind| ["1", "2"].map(|version| made(kind, version))).collect());
    MESSAGES[kind][usize::from(version == "2")].clone()
}

fn made(kind: usize, version: &str) -> Message {
    let name = format!("property {kind} {version}");
    let message = match kind {
        0 => Message::notification_at(BASE, &name),
        1 => Message::notification_at(BASE, &name).subject("Gr\u{fc}\u{df}e \u{1f4b3}"),
        2 => Message::confirmation_at(BASE, &name, SUBSCRIPTION),
        _ => Message::confirmation_at(BASE, &name, UNSUBSCRIPTION),
    };
    let message = message.with("SigningCertURL", format!("{BASE}/{}", file_name("property")));
    message.with("SignatureVersion", version).signed()
}

type SignedPart = (String, String, String, jiff::Timestamp, Content);

/// What is signed and handed on, of a message that was believed.
fn signed_part(envelope: &Envelope) -> SignedPart {
    let Envelope { message_id, topic_arn, message, timestamp, content, .. } = envelope;
    (message_id.clone(), topic_arn.clone(), message.clone(), *timestamp, content.clone())
}

/// The members of the body in which a changed bit may go unnoticed, with everything between name and value: SNS signs none of them.
/// (`SignatureVersion` and `Signature` are not signed either, but no other value of theirs fits, and the corpus has no
/// `MessageAttributes`.) `SigningCertURL` decides which certificate is fetched, and that must be SNS's; here it is given.
fn unsigned_spans(body: &str) -> Vec<std::ops::Range<usize>> {
    let member = |name: &str| {
        let start = body.find(&format!("\"{name}\""))?;
        Some(start..start + body[start..].find('\n').unwrap_or(body.len() - start))
    };
    ["SigningCertURL", "UnsubscribeURL"].into_iter().filter_map(member).collect()
}

#[test]
fn a_flipped_bit_is_refused_or_changes_nothing_that_is_signed() {
    for (kind, version) in [(1, "1"), (2, "2")] {
        let body = genuine(kind, version).body();
        let spans = unsigned_spans(std::str::from_utf8(&body).expect("UTF-8"));
        let original = signed_part(&judged(&body).expect("a genuine message"));
        let mut survived = 0;
        for at in 0..body.len() * 8 {
            let mut flipped = body.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let Some(envelope) = judged(&flipped) else { continue };
            survived += 1;
            let text = String::from_utf8_lossy(&flipped);
            assert!(signed_part(&envelope) == original, "bit {at} changes what is signed: {text}");
            assert!(spans.iter().any(|span| span.contains(&(at / 8))), "bit {at} is in no unsigned field: {text}");
        }
        assert!(survived > 0, "the digits of the certificate's address are not signed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Insert, delete or replace one character of any signed field.
    #[test]
    fn any_single_change_to_a_signed_field_is_refused(
        kind in 0_usize..4, version in "[12]", field in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(), new in proptest::option::of(any::<char>()), insert in any::<bool>(),
    ) {
        let message = genuine(kind, &version);
        let fields = signed_fields(message.get("Type"));
        let field = fields[field.index(fields.len())];
        let mut text: Vec<char> = message.get(field).chars().collect();
        let place = place.index(text.len() + 1);
        match new {
            Some(new) if insert || place == text.len() => text.insert(place, new),
            Some(new) => text[place] = new,
            None if place < text.len() => drop(text.remove(place)),
            None => text.push('x'),
        }
        let text: String = text.into_iter().collect();
        // The notification without a subject: an empty one is a change too.
        prop_assume!(text != message.get(field));
        prop_assert!(judged(&message.body()).is_some());
        prop_assert!(judged(&message.with(field, text).body()).is_none());
    }

    /// A signed field taken away, nulled or given as something else than a text.
    #[test]
    fn no_signed_field_can_be_left_out_or_given_as_something_else(
        kind in 1_usize..4, version in "[12]", field in any::<prop::sample::Index>(), how in 0_usize..5,
    ) {
        let message = genuine(kind, &version);
        let fields = signed_fields(message.get("Type"));
        let field = fields[field.index(fields.len())];
        let changed = match how {
            0 => message.without(field),
            1 => message.with(field, json!(null)),
            2 => { let text = message.get(field).to_owned(); message.with(field, json!([text])) }
            3 => message.with(field, json!(1)),
            _ => message.with(field, json!({})),
        };
        prop_assert!(judged(&changed.body()).is_none());
    }

    /// Any bytes of the body replaced by any others: refused, or nothing that is signed has changed.
    #[test]
    fn any_edit_of_the_body_is_refused_or_changes_nothing_that_is_signed(
        kind in 0_usize..4, version in "[12]", at in any::<prop::sample::Index>(), gone in 0_usize..4,
        new in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let body = genuine(kind, &version).body();
        let at = at.index(body.len());
        let end = (at + gone).min(body.len());
        let edited = [&body[..at], &new, &body[end..]].concat();
        let original = signed_part(&judged(&body).expect("a genuine message"));
        if let Some(envelope) = judged(&edited) {
            prop_assert!(signed_part(&envelope) == original, "{}", String::from_utf8_lossy(&edited));
        }
    }

    /// Two genuine messages never lend each other a field.
    #[test]
    fn no_signed_field_of_another_genuine_message_fits(
        (kind, other) in (0_usize..4, 0_usize..4), version in "[12]", field in any::<prop::sample::Index>(),
    ) {
        let (message, other) = (genuine(kind, &version), genuine(other, "2"));
        let fields = signed_fields(message.get("Type"));
        let field = fields[field.index(fields.len())];
        let text = other.get(field).to_owned();
        prop_assume!(text != message.get(field));
        prop_assert!(judged(&message.with(field, text).body()).is_none());
    }
}

#[test]
fn every_message_of_the_properties_is_genuine() {
    for kind in 0..4 {
        for version in ["1", "2"] {
            let message = genuine(kind, version);
            assert!(judged(&message.body()).is_some(), "{kind} {version}");
            assert_eq!(message.get("Type") == NOTIFICATION, kind < 2);
        }
    }
}
