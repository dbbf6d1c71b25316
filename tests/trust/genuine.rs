//! Messages that SNS did sign, for us, as SNS and others write them: none may be turned away.

use rcgen::{IsCa, KeyUsagePurpose, date_time_ymd};
use serde_json::{Value, json};

use crate::authority::{Key, NAME, issued, issued_der, keys, labelled, named, params, root_pem, self_signed};
use crate::case::{Corpus, Form, Kept};
use crate::message::{Layout, Message, OTHER_TOPIC, PERMISSION, SUBSCRIPTION, Spelling, UNSUBSCRIPTION, ipn, uuid_of};
use crate::net::{Net, Reply, file_name};

/// The largest body that is read, by `docs/ARCHITECTURE.md`.
const LIMIT: usize = 512 * 1024;

/// The message that the family `replay` sends again.
pub fn replayed(net: &Net) -> Message {
    Message::notification(net, "genuine_replay/first").signed()
}

pub fn add(corpus: &mut Corpus<'_>) {
    subjects(corpus);
    writings(corpus);
    texts(corpus);
    times(corpus);
    headers(corpus);
    certificates(corpus);
    unsigned_fields(corpus);
    payloads(corpus);
    confirmations(corpus);
    replays(corpus);
    sizes(corpus);
}

fn work(corpus: &mut Corpus<'_>, variant: &str, message: &Message) {
    corpus.genuine(variant, message, message.body(), Kept::Work);
}

/// An IPN that also says `note`: it is tolerated, and brings any text into Message.
fn with_note(name: &str, note: &str) -> Value {
    let mut payload = ipn(name);
    payload["Note"] = json!(note);
    payload
}

fn subjects(corpus: &mut Corpus<'_>) {
    corpus.family("genuine_subject");
    for version in ["1", "2"] {
        for (what, subject) in [
            ("absent", None),
            ("null", Some(Value::Null)),
            ("empty", Some(json!(""))),
            ("short", Some(json!("Amazon Pay"))),
            ("longest", Some(json!("s".repeat(100)))),
            ("accents", Some(json!("Benachrichtigung über Zahlungen – dès maintenant"))),
            ("japanese", Some(json!("お支払いのお知らせ"))),
            ("emoji", Some(json!("💳 paid"))),
            ("looks_like_another_field", Some(json!("MessageId"))),
        ] {
            let variant = format!("{what}_version_{version}");
            let message = corpus.notification(&variant).with("SignatureVersion", version);
            let message = subject.into_iter().fold(message, Message::subject).signed();
            work(corpus, &variant, &message);
        }
    }
}

/// One message in every layout, spelling and order.
fn writings(corpus: &mut Corpus<'_>) {
    corpus.family("genuine_writing");
    let note = "caf\u{e9} / \u{1f4b3} \u{2028} \"quoted\" \\ \u{7f}\u{85}";
    for version in ["1", "2"] {
        for layout in [Layout::Sns, Layout::Compact, Layout::Pretty, Layout::Crlf, Layout::Wide] {
            for spelling in
                [Spelling::Plain, Spelling::Ascii, Spelling::UpperHex, Spelling::Slashes, Spelling::Everything]
            {
                let variant = format!("{layout:?}_{spelling:?}_version_{version}");
                let message = corpus.notification(&variant).subject("Gr\u{fc}\u{df}e / \u{1f600}");
                let message = message.with("SignatureVersion", version);
                let message = message.with("Message", with_note(&variant, note).to_string()).signed();
                let body = message.text(layout, spelling);
                corpus.genuine(&variant, &message, body, Kept::Work);
            }
        }
    }
    corpus.family("genuine_order");
    for variant in ["reversed", "alphabetical", "signature_first", "type_last"] {
        let mut message = corpus.notification(variant).subject("a subject").signed();
        match variant {
            "reversed" => message.0.reverse(),
            "alphabetical" => message.0.sort_by(|a, b| a.0.cmp(&b.0)),
            "signature_first" => message.0.sort_by_key(|(name, _)| name != "Signature"),
            _ => message.0.rotate_left(1),
        }
        work(corpus, variant, &message);
    }
    let mut message = corpus.notification("names_in_escapes").signed();
    message.0.iter_mut().filter(|(name, _)| name == "MessageId").for_each(|(name, _)| *name = "Message\\u0049d".into());
    let body = message.body();
    let message = message.and("MessageId", uuid_of(&corpus.name("names_in_escapes")));
    corpus.genuine("names_in_escapes", &message, body, Kept::Work);
}

fn texts(corpus: &mut Corpus<'_>) {
    corpus.family("genuine_message");
    let pretty = serde_json::to_string_pretty(&ipn("pretty")).expect("JSON");
    for (variant, text) in [
        ("lines", pretty.clone()),
        ("lines_of_windows", pretty.replace('\n', "\r\n")),
        ("tabs", pretty.replace("  ", "\t")),
        ("newline_after", format!("{pretty}\n")),
        ("escapes_of_its_own", with_note("escapes", "caf\u{e9}").to_string().replace('\u{e9}', "\\u00e9")),
        ("escaped_controls", with_note("controls", "\0\u{8}\u{b}\u{c}\u{1b}\n\r\t").to_string()),
        ("right_to_left", with_note("hebrew", "\u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{202e}abc").to_string()),
        ("combining", with_note("combining", "cafe\u{301} \u{1100}\u{1161}").to_string()),
        ("beyond_the_first_plane", with_note("planes", "\u{1f468}\u{200d}\u{1f469} \u{10ffff} \u{20bb7}").to_string()),
        ("byte_order_mark_within", with_note("mark", "\u{feff}x").to_string()),
    ] {
        let message = corpus.notification(variant).with("Message", text).signed();
        work(corpus, variant, &message);
    }
    // Nothing that we understand, and yet SNS's word.
    for (variant, text) in [
        ("empty", String::new()),
        ("plain_text", "hello".to_owned()),
        ("controls", "\0\u{8}\u{c}\u{1b}\u{7f}".to_owned()),
        ("names_of_fields", "foo\nMessageId\nc0e5a280-53c9-5a98-93bb-c0a560b3d192\nSubject\nbar".to_owned()),
        ("no_object", "[1, 2]".to_owned()),
    ] {
        let message = corpus.notification(variant).with("Message", text).signed();
        corpus.genuine(variant, &message, message.body(), Kept::Quarantine);
    }
}

/// The clock of the corpus stands still at 2026-03-06T20:00:00Z; messages may be 15 days old and 5 minutes early.
fn times(corpus: &mut Corpus<'_>) {
    corpus.family("genuine_time");
    for (variant, at) in [
        ("now", "2026-03-06T20:00:00.000Z"),
        ("zero_milliseconds", "2026-03-06T19:55:38.000Z"),
        ("some_milliseconds", "2026-03-06T19:55:38.903Z"),
        ("tens_of_milliseconds", "2026-03-06T19:55:38.010Z"),
        ("oldest", "2026-02-19T20:00:00.000Z"),
        ("retried_for_days", "2026-02-21T03:04:05.006Z"),
        ("last_millisecond_of_a_month", "2026-02-28T23:59:59.999Z"),
        ("a_minute_early", "2026-03-06T20:01:00.000Z"),
        ("as_early_as_may_be", "2026-03-06T20:05:00.000Z"),
    ] {
        for version in ["1", "2"] {
            let variant = format!("{variant}_version_{version}");
            let message = corpus.notification(&variant).with("Timestamp", at).with("SignatureVersion", version);
            work(corpus, &variant, &message.signed());
        }
    }
}

fn headers(corpus: &mut Corpus<'_>) {
    corpus.family("genuine_headers");
    for (variant, kept, added) in [
        ("none", &[][..], None),
        ("type_alone", &["x-amz-sns-message-type"], None),
        ("type_and_content_type", &["x-amz-sns-message-type", "content-type"], None),
        ("all_but_content_type", &["x-amz-sns"], None),
        ("raw_delivery_false", &["x-amz-sns", "content-type"], Some(("x-amz-sns-rawdelivery", "false"))),
        ("json", &["x-amz-sns"], Some(("content-type", "application/json"))),
        ("json_with_charset", &["x-amz-sns"], Some(("content-type", "application/json; charset=utf-8"))),
        ("plain_text_without_charset", &["x-amz-sns"], Some(("content-type", "text/plain"))),
        ("plain_text_in_upper_case", &["x-amz-sns"], Some(("content-type", "TEXT/PLAIN;CHARSET=UTF-8"))),
        ("another_charset", &["x-amz-sns"], Some(("content-type", "text/plain; charset=ISO-8859-1"))),
        ("form", &["x-amz-sns"], Some(("content-type", "application/x-www-form-urlencoded"))),
        ("bytes", &["x-amz-sns"], Some(("content-type", "application/octet-stream"))),
        ("no_content_type_at_all", &["x-amz-sns"], Some(("content-type", "nonsense"))),
        ("accepts_gzip", &["x-amz-sns", "content-type"], Some(("accept-encoding", "gzip,deflate"))),
        ("forwarded", &["x-amz-sns", "content-type"], Some(("x-forwarded-for", "203.0.113.7"))),
    ] {
        let message = corpus.notification(variant).signed();
        let mut headers = message.headers();
        headers.retain(|(name, _)| kept.iter().any(|prefix| name.starts_with(prefix)));
        headers.extend(added.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
        corpus.genuine(variant, &message, message.body(), Kept::Work).headers(headers);
    }
}

fn certificates(corpus: &mut Corpus<'_>) {
    corpus.family("genuine_certificate");
    let genuine = &keys().genuine;
    let one = issued(&params(), genuine);
    let with = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = params();
        change(&mut params);
        issued(&params, genuine)
    };
    let now = || date_time_ymd(2026, 3, 6) + std::time::Duration::from_hours(20);
    let elliptic = crate::authority::other_kind(&rcgen::PKCS_ECDSA_P256_SHA256);
    let by_elliptic = params()
        .signed_by(genuine, &rcgen::Issuer::from_params(&crate::authority::root_params(), &elliptic))
        .expect("a certificate");
    let served: Vec<(&str, &Key, String)> = vec![
        ("of_its_own", genuine, one.clone()),
        ("rsa_3072", &keys().bits_3072, issued(&params(), &keys().bits_3072)),
        ("rsa_4096", &keys().bits_4096, issued(&params(), &keys().bits_4096)),
        ("several_names", genuine, issued(&named(&["sns.test", NAME, "x.test"], "x"), genuine)),
        ("a_name_and_an_address", genuine, issued(&named(&["192.0.2.1", NAME], "x"), genuine)),
        ("wrong_common_name_beside_the_right_alternative", genuine, issued(&named(&[NAME], "x"), genuine)),
        ("common_name_alone", genuine, issued(&named(&[], NAME), genuine)),
        ("self_signed", genuine, self_signed(&params(), genuine)),
        ("issued_by_an_elliptic_key", genuine, labelled("CERTIFICATE", by_elliptic.der())),
        ("with_its_issuer", genuine, [one.clone(), root_pem()].concat()),
        ("lines_of_windows", genuine, one.replace('\n', "\r\n")),
        ("text_before_it", genuine, format!("subject=CN = {NAME}\nissuer=C = US\n{one}")),
        ("says_nothing_of_authority", genuine, with(&|params| params.is_ca = IsCa::NoCa)),
        ("says_its_use", genuine, with(&|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature])),
        ("valid_since_now", genuine, with(&|params| params.not_before = now())),
        ("valid_until_now", genuine, with(&|params| params.not_after = now())),
        ("valid_for_ever", genuine, with(&|params| params.not_after = date_time_ymd(9999, 12, 31))),
    ];
    for (variant, key, certificate) in served {
        let version = if variant.len() % 2 == 0 { "1" } else { "2" };
        let address = corpus.net.certificates.serve(&corpus.name(variant), Reply::pem(certificate));
        let message = corpus.notification(variant).with("SigningCertURL", address).with("SignatureVersion", version);
        let message = message.signed_by(key);
        corpus.genuine(variant, &message, message.body(), Kept::Work).fetched();
    }
    for version in ["1", "2"] {
        let variant = format!("of_an_anchor_version_{version}");
        let pem = labelled("CERTIFICATE", &issued_der(&params(), genuine));
        let address = corpus.net.certificates.serve(&corpus.name(&variant), Reply::pem(pem));
        let message = corpus.notification(&variant).with("SigningCertURL", address).with("SignatureVersion", version);
        let message = message.signed();
        corpus.genuine(&variant, &message, message.body(), Kept::Work).form(Form::Anchored).fetched();
    }
    let message = corpus.notification("of_another_allowed_topic").with("TopicArn", OTHER_TOPIC).signed();
    work(corpus, "of_another_allowed_topic", &message);
}

/// Fields that SNS does not sign change nothing, whatever they say.
fn unsigned_fields(corpus: &mut Corpus<'_>) {
    corpus.family("genuine_unsigned");
    let evil = format!("{}/{}", corpus.net.evil.base(), file_name("unsigned"));
    let attributes = json!({
        "AWS.SNS.MOBILE.MPNS.Type": { "Type": "String", "Value": "token" }, "n": { "Type": "Number", "Value": "1e400" },
        "list": { "Type": "String.Array", "Value": "[\"a\",null]" }
    });
    let nested = (0..64).fold(json!(1), |value, _| json!([value]));
    for (variant, name, value) in [
        ("attributes", "MessageAttributes", attributes),
        ("empty_attributes", "MessageAttributes", json!({})),
        ("unknown_text", "SomethingNew", json!("x")),
        ("unknown_number", "SequenceNumber", json!(10_000_000_000_000_003_000_u64)),
        ("unknown_null", "SomethingNew", Value::Null),
        ("unknown_list", "SomethingNew", json!([1, [2], {"3": 4}])),
        ("unknown_and_nested", "SomethingNew", nested),
        ("empty_name", "", json!("x")),
        ("unsubscribe_link_of_the_attacker", "UnsubscribeURL", json!(evil)),
        ("unsubscribe_link_that_is_none", "UnsubscribeURL", json!(7)),
        ("lambda_spelling_beside", "SigningCertUrl", json!(evil)),
        ("lower_case_id_beside", "messageId", json!(uuid_of("another"))),
        ("lower_case_message_beside", "message", json!(ipn("another").to_string())),
        ("upper_case_signature_beside", "SIGNATURE", json!("x")),
        ("name_with_a_space_beside", "Type ", json!(SUBSCRIPTION)),
        ("token", "Token", json!("ab")),
        ("token_null", "Token", Value::Null),
        ("subscribe_link_of_the_attacker", "SubscribeURL", json!(evil)),
        ("subscribe_link_null", "SubscribeURL", Value::Null),
    ] {
        let message = corpus.notification(variant).signed().with(name, value);
        work(corpus, variant, &message);
    }
    let message = corpus.notification("no_unsubscribe_link").signed().without("UnsubscribeURL");
    work(corpus, "no_unsubscribe_link", &message);
    let message = corpus.confirmation("subject_of_a_confirmation", UNSUBSCRIPTION).signed().subject("not signed here");
    corpus.genuine("subject_of_a_confirmation", &message, message.body(), Kept::Ended);
    let message = corpus.confirmation("attributes_of_a_confirmation", SUBSCRIPTION).signed();
    let message = message.with("MessageAttributes", json!({})).with("UnsubscribeURL", evil);
    corpus.genuine("attributes_of_a_confirmation", &message, message.body(), Kept::Confirmed);
}

fn payloads(corpus: &mut Corpus<'_>) {
    corpus.family("genuine_payload");
    let with = |variant: &str, changes: &[(&str, &str)]| {
        let mut payload = ipn(variant);
        for (name, value) in changes {
            payload[*name] = json!(value);
        }
        payload
    };
    let charge = format!("{PERMISSION}-C000007");
    let refund = format!("{PERMISSION}-R000007");
    for (variant, changes) in [
        ("charge_permission", vec![("ObjectType", "CHARGE_PERMISSION"), ("ObjectId", PERMISSION)]),
        ("charge", vec![("ObjectType", "CHARGE"), ("ObjectId", &charge)]),
        ("refund", vec![("ObjectType", "REFUND"), ("ObjectId", &refund)]),
        ("chargeback", vec![("ObjectType", "CHARGEBACK"), ("ObjectId", &charge)]),
        ("attribute_change", vec![("NotificationType", "ATTRIBUTE_CHANGE")]),
        ("notification_type_of_tomorrow", vec![("NotificationType", "SOMETHING_NEW")]),
        ("more_fields", vec![("log_level", "info")]),
    ] {
        let message = corpus.notification(variant).with("Message", with(variant, &changes).to_string()).signed();
        work(corpus, variant, &message);
    }
    for version in ["1", "2"] {
        let variant = format!("test_version_{version}");
        let payload = with(&variant, &[("ObjectId", "P01-0000000-0000000-000000")]);
        let message = corpus.notification(&variant).with("Message", payload.to_string());
        let message = message.with("SignatureVersion", version).signed();
        corpus.genuine(&variant, &message, message.body(), Kept::Test);
        // Another merchant gave our address as theirs: acknowledged, kept aside, and nothing to do.
        let variant = format!("another_merchant_version_{version}");
        let payload = with(&variant, &[("MerchantID", "A1O8CIV1A24A6X")]);
        let message = corpus.notification(&variant).with("Message", payload.to_string());
        let message = message.with("SignatureVersion", version).signed();
        corpus.genuine(&variant, &message, message.body(), Kept::Quarantine);
    }
    for (variant, changes) in [
        ("merchant_in_lower_case", [("MerchantID", "a2k7ndrctotpw9")]),
        ("format_of_tomorrow", [("NotificationVersion", "V3")]),
        ("object_of_tomorrow", [("ObjectType", "PAYOUT")]),
    ] {
        let message = corpus.notification(variant).with("Message", with(variant, &changes).to_string()).signed();
        corpus.genuine(variant, &message, message.body(), Kept::Quarantine);
    }
}

fn confirmations(corpus: &mut Corpus<'_>) {
    corpus.family("genuine_confirmation");
    for version in ["1", "2"] {
        for (kind, kept) in [(SUBSCRIPTION, Kept::Confirmed), (UNSUBSCRIPTION, Kept::Ended)] {
            for (layout, spelling) in [
                (Layout::Sns, Spelling::Plain),
                (Layout::Compact, Spelling::Ascii),
                (Layout::Crlf, Spelling::Slashes),
                (Layout::Wide, Spelling::Everything),
            ] {
                let variant = format!("{kind}_{layout:?}_version_{version}");
                let message = corpus.confirmation(&variant, kind).with("SignatureVersion", version).signed();
                let body = message.text(layout, spelling);
                corpus.genuine(&variant, &message, body, kept);
            }
        }
    }
    let message = corpus.confirmation("short_token", SUBSCRIPTION).with("Token", "2336412f").signed();
    corpus.genuine("short_token", &message, message.body(), Kept::Confirmed);
    let message = corpus.confirmation("without_headers", SUBSCRIPTION).signed();
    corpus.genuine("without_headers", &message, message.body(), Kept::Confirmed).headers(Vec::new());
    // The link is signed, and still never visited: neither the message's nor where it might lead.
    let evil = corpus.net.evil.base();
    let message = corpus.confirmation("link_to_the_attacker", SUBSCRIPTION).with("SubscribeURL", evil).signed();
    corpus.genuine("link_to_the_attacker", &message, message.body(), Kept::Confirmed);
}

fn replays(corpus: &mut Corpus<'_>) {
    corpus.family("genuine_replay");
    let first = replayed(corpus.net);
    work(corpus, "first", &first);
    corpus.genuine("same_again", &first, first.body(), Kept::Duplicate);
    let body = first.text(Layout::Compact, Spelling::Everything);
    corpus.genuine("written_otherwise", &first, body, Kept::Duplicate);
    let second = first.clone().with("SignatureVersion", "2").signed();
    corpus.genuine("in_the_other_version", &second, second.body(), Kept::Duplicate);
    // SNS never signs two messages of one id. If it did, the first would stand.
    let other = first.with("Message", ipn("other content").to_string()).signed();
    corpus.genuine("same_id_and_other_content_truly_signed", &other, other.body(), Kept::Duplicate);
}

fn sizes(corpus: &mut Corpus<'_>) {
    corpus.family("genuine_size");
    for (variant, note) in [
        ("64_kib", "x".repeat(64 * 1024)),
        ("256_kib", "x".repeat(256 * 1024 - 512)),
        ("quotes_that_double", "\"".repeat(60 * 1024)),
        ("three_bytes_each", "\u{20ac}".repeat(80 * 1024)),
    ] {
        let message = corpus.notification(variant).with("Message", with_note(variant, &note).to_string()).signed();
        work(corpus, variant, &message);
    }
    for (variant, size) in [("as_large_as_may_be", LIMIT), ("a_byte_less", LIMIT - 1)] {
        let message = corpus.notification(variant).signed();
        let mut body = message.body();
        body.resize(size, b' ');
        corpus.genuine(variant, &message, body, Kept::Work);
    }
}
