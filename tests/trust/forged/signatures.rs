//! The signature: of another algorithm than it is said to be, of something else, or written in another way.

use amazon_pay_ipn::sns::Check;
use data_encoding::{BASE64, BASE64_MIME, BASE64_NOPAD, BASE64URL, HEXLOWER};
use serde_json::{Value, json};

use crate::authority::{Scheme, keys};
use crate::case::Corpus;
use crate::message::{Message, NOTIFICATION, SUBSCRIPTION, UNSUBSCRIPTION};

pub(super) fn add(corpus: &mut Corpus<'_>) {
    algorithms(corpus);
    versions(corpus);
    encodings(corpus);
    of_something_else(corpus);
}

/// By SNS's own key, so that only the algorithm is not what the version says.
fn algorithms(corpus: &mut Corpus<'_>) {
    corpus.family("algorithm");
    for (variant, version, scheme) in [
        ("sha1_named_2", "2", Scheme::Sha1),
        ("sha256_named_1", "1", Scheme::Sha256),
        ("sha384_named_2", "2", Scheme::Sha384),
        ("sha512_named_2", "2", Scheme::Sha512),
        ("md5_named_1", "1", Scheme::Md5),
        ("md5_named_2", "2", Scheme::Md5),
        ("pss_sha1_named_1", "1", Scheme::PssSha1),
        ("pss_sha256_named_2", "2", Scheme::PssSha256),
        ("pss_sha256_named_1", "1", Scheme::PssSha256),
        ("digest_without_its_algorithm", "2", Scheme::BareSha256),
        ("digest_of_the_digest", "2", Scheme::TwiceSha256),
        ("sha1_without_parameters", "1", Scheme::Sha1WithoutNull),
        ("sha256_without_parameters", "2", Scheme::Sha256WithoutNull),
        ("sha1_with_garbage_after_the_digest", "1", Scheme::Sha1WithGarbage),
        ("sha256_with_garbage_after_the_digest", "2", Scheme::Sha256WithGarbage),
    ] {
        let message = corpus.notification(variant).with("SignatureVersion", version);
        let message = message.signed_with(&keys().genuine, scheme);
        corpus.forbidden(variant, message.body(), Check::Signature);
    }
    for kind in [SUBSCRIPTION, UNSUBSCRIPTION] {
        for (version, scheme) in [("1", Scheme::Sha256), ("2", Scheme::Sha1)] {
            let variant = format!("{kind}_of_another_version_named_{version}");
            let message = corpus.confirmation(&variant, kind).with("SignatureVersion", version);
            corpus.forbidden(&variant, message.signed_with(&keys().genuine, scheme).body(), Check::Signature);
        }
    }
}

/// Each is signed with SHA-1, which a verifier would take that reads them as 1 or as "anything else".
fn versions(corpus: &mut Corpus<'_>) {
    corpus.family("signature_version");
    for (variant, version) in [
        ("three", "3"),
        ("zero", "0"),
        ("minus_one", "-1"),
        ("empty", ""),
        ("zero_before", "01"),
        ("space_before", " 1"),
        ("space_after", "1 "),
        ("newline_after", "1\n"),
        ("nul_after", "1\0"),
        ("plus", "+1"),
        ("fraction", "1.0"),
        ("exponent", "1e0"),
        ("hexadecimal", "0x1"),
        ("letter", "v1"),
        ("list", "1,2"),
        ("name_of_the_algorithm", "SHA1"),
        ("none", "none"),
        ("arabic_digit", "١"),
        ("full_width_digit", "１"),
        ("superscript_digit", "¹"),
    ] {
        let message = corpus.notification(variant).with("SignatureVersion", version).signed();
        corpus.malformed(variant, message.body(), Check::SignatureVersion);
    }
    for (variant, version) in
        [("number_1", json!(1)), ("number_2", json!(2)), ("null", Value::Null), ("list_of_1", json!(["1"]))]
    {
        let message = corpus.notification(variant).signed().with("SignatureVersion", version);
        corpus.malformed(variant, message.body(), Check::Envelope);
    }
    let message = corpus.notification("absent").signed().without("SignatureVersion");
    corpus.malformed("absent", message.body(), Check::Envelope);
}

fn encodings(corpus: &mut Corpus<'_>) {
    corpus.family("signature_encoding");
    // Both characters that differ between the alphabets occur in nearly every signature; a nonce makes sure of it.
    let message = (0..100)
        .map(|nonce| corpus.notification(&format!("nonce {nonce}")).signed())
        .find(|message| message.get("Signature").contains('+') && message.get("Signature").contains('/'))
        .expect("a signature with both");
    let (text, bytes) = (message.get("Signature").to_owned(), message.signature());
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        BASE64.encode(&bytes)
    };
    // 256 bytes end in one character of which two bits count, and two signs of padding.
    let (head, tail) = text.split_at(text.len() - 3);
    let next = char::from(tail.as_bytes()[0] + 1);

    for (variant, signature) in [
        ("no_base64", "%%%".to_owned()),
        ("empty", String::new()),
        ("alphabet_of_urls", BASE64URL.encode(&bytes)),
        ("one_character_of_urls", text.replacen('+', "-", 1)),
        ("no_padding", BASE64_NOPAD.encode(&bytes)),
        ("half_of_the_padding", text[..text.len() - 1].to_owned()),
        ("too_much_padding", format!("{text}==")),
        ("padding_in_the_middle", format!("{}=={}", &text[..16], &text[16..])),
        ("lines_as_in_mail", BASE64_MIME.encode(&bytes)),
        ("space_before", format!(" {text}")),
        ("space_after", format!("{text} ")),
        ("newline_after", format!("{text}\n")),
        ("space_in_the_middle", format!("{} {}", &text[..100], &text[100..])),
        ("plus_read_as_space", text.replace('+', " ")),
        ("percent_encoded", text.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")),
        ("nul_after", format!("{text}\0")),
        ("bits_that_do_not_count", format!("{head}{next}==")),
        ("truncated_by_a_byte", changed(&|bytes| bytes.truncate(255))),
        ("truncated_at_the_front", changed(&|bytes| *bytes = bytes[1..].to_vec())),
        ("truncated_to_half", changed(&|bytes| bytes.truncate(128))),
        ("one_byte", BASE64.encode(&[0])),
        ("longer_than_any_key", changed(&|bytes| bytes.resize(1025, 0))),
        ("very_long", BASE64.encode(&vec![7; 100_000])),
        ("data_address", format!("data:;base64,{text}")),
    ] {
        let message = message.clone().with("Signature", signature);
        corpus.malformed(variant, message.body(), Check::SignatureEncoding);
    }
    for (variant, signature) in [
        ("first_bit", changed(&|bytes| bytes[0] ^= 0x80)),
        ("a_bit_in_the_middle", changed(&|bytes| bytes[127] ^= 0x10)),
        ("last_bit", changed(&|bytes| bytes[255] ^= 1)),
        ("two_bytes_swapped", changed(&|bytes| bytes.swap(3, 250))),
        ("reversed", changed(&|bytes| bytes.reverse())),
        ("zero_byte_before", changed(&|bytes| bytes.insert(0, 0))),
        ("zero_byte_after", changed(&|bytes| bytes.push(0))),
        ("twice", changed(&|bytes| bytes.extend_from_within(..))),
        ("modulus_added", BASE64.encode(&keys().genuine.beyond_modulus(&bytes))),
        ("zeros", BASE64.encode(&[0; 256])),
        ("one", changed(&|bytes| (bytes.fill(0), bytes[255] = 1).0)),
        ("all_ones", BASE64.encode(&[0xff; 256])),
        ("base64_twice", BASE64.encode(text.as_bytes())),
        ("hexadecimal", HEXLOWER.encode(&bytes)),
        ("the_signed_text", BASE64.encode(&message.signed_text().into_bytes())),
    ] {
        let message = message.clone().with("Signature", signature);
        corpus.forbidden(variant, message.body(), Check::Signature);
    }
}

/// SNS did sign that: but not this.
fn of_something_else(corpus: &mut Corpus<'_>) {
    corpus.family("signature_of_something_else");
    let kinds = [NOTIFICATION, SUBSCRIPTION, UNSUBSCRIPTION];
    for kind in kinds {
        let variant = format!("{kind}_of_another_message");
        let other = corpus.message("another", kind).signed();
        let message = corpus.message(&variant, kind).with_signature(&other.signature());
        corpus.forbidden(&variant, message.body(), Check::Signature);
        for other in kinds.into_iter().filter(|other| *other != kind) {
            let variant = format!("{kind}_of_a_{other}");
            let id = corpus.name(&variant);
            let donor = Message::confirmation(corpus.net, &id, other).signed();
            let donor = if other == NOTIFICATION { Message::notification(corpus.net, &id).signed() } else { donor };
            let message = corpus.message(&variant, kind).with_signature(&donor.signature());
            corpus.forbidden(&variant, message.body(), Check::Signature);
        }
    }
    // Texts that other verifiers sign: not the list of the type, not the fields as they came.
    let notification = |variant: &str| corpus.notification(variant).subject("a subject");
    let signed = |message: Message, text: String| {
        message.with_signature(&keys().genuine.sign(Scheme::Sha1, text.as_bytes())).body()
    };
    let mut texts: Vec<(&str, Vec<u8>)> = Vec::new();
    for (variant, fields) in [
        ("without_the_subject", &["Message", "MessageId", "Timestamp", "TopicArn", "Type"][..]),
        ("without_the_type", &["Message", "MessageId", "Subject", "Timestamp", "TopicArn"]),
        ("without_the_topic", &["Message", "MessageId", "Subject", "Timestamp", "Type"]),
        ("message_alone", &["Message"]),
        ("in_another_order", &["Type", "TopicArn", "Timestamp", "Subject", "MessageId", "Message"]),
        ("nothing", &[]),
        (
            "every_field",
            &["Message", "MessageId", "SigningCertURL", "Subject", "Timestamp", "TopicArn", "Type", "UnsubscribeURL"],
        ),
    ] {
        let message = notification(variant);
        let text = message.text_of(fields);
        texts.push((variant, signed(message, text)));
    }
    let message = notification("without_the_last_newline");
    let text = message.signed_text();
    texts.push(("without_the_last_newline", signed(message, text.trim_end().to_owned())));
    let message = notification("with_crlf");
    let text = message.signed_text().replace('\n', "\r\n");
    texts.push(("with_crlf", signed(message, text)));
    let message = notification("timestamp_without_its_zeros");
    let text = message.signed_text().replace(".000Z", "Z");
    texts.push(("timestamp_without_its_zeros", signed(message, text)));
    let message = notification("escapes_undecoded").with("Message", "{\"a\":\"é\"}");
    let text = message.signed_text().replace('"', "\\\"").replace('é', "\\u00e9");
    texts.push(("escapes_undecoded", signed(message, text)));
    let message = notification("latin_1").with("Message", "é");
    let latin: Vec<u8> = message.signed_text().chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect();
    texts.push(("latin_1", message.with_signature(&keys().genuine.sign(Scheme::Sha1, &latin)).body()));
    for (variant, body) in texts {
        corpus.forbidden(variant, body, Check::Signature);
    }
    // The list of a notification for an unsubscription, as AWS's own library for JavaScript has it; and all that is signable.
    let message = corpus.confirmation("list_of_another_type", UNSUBSCRIPTION);
    let text = message.text_of(&["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]);
    let body = signed(message, text);
    corpus.forbidden("list_of_another_type", body, Check::Signature);
    let message = corpus.notification("signable_fields_that_are_there").and("Token", "ab").and("SubscribeURL", "x");
    let text = message.text_of(&["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]);
    let body = signed(message, text);
    corpus.forbidden("signable_fields_that_are_there", body, Check::Signature);
    let message = corpus.notification("null_subject_signed_as_empty").subject(Value::Null);
    let text = message.signed_text().replace("\nTimestamp\n", "\nSubject\n\nTimestamp\n");
    let body = signed(message, text);
    corpus.forbidden("null_subject_signed_as_empty", body, Check::Signature);
}
