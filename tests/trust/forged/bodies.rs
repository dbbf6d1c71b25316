//! Bodies that are no SNS message, or two in one: JSON that parsers read differently, fields given twice, broken and huge bodies.

use amazon_pay_ipn::sns::Check;

use crate::case::{Corpus, Expected};
use crate::message::{Layout, Message, NOTIFICATION, SUBSCRIPTION, Spelling, ipn, uuid_of};

/// The largest body that is read, by `docs/ARCHITECTURE.md`.
pub const LIMIT: usize = 512 * 1024;

pub(super) fn add(corpus: &mut Corpus<'_>) {
    twice(corpus);
    other_case(corpus);
    forms(corpus);
    truncated(corpus);
    texts(corpus);
    sizes(corpus);
}

/// Every field that is read, given twice, in every order and spelling: no parser may choose.
fn twice(corpus: &mut Corpus<'_>) {
    corpus.family("given_twice");
    let kinds: [(&str, &[&str]); 2] = [
        (
            NOTIFICATION,
            &[
                "Type",
                "MessageId",
                "TopicArn",
                "Subject",
                "Message",
                "Timestamp",
                "SignatureVersion",
                "Signature",
                "SigningCertURL",
            ],
        ),
        (SUBSCRIPTION, &["Token", "SubscribeURL"]),
    ];
    for (kind, fields) in kinds {
        for field in fields {
            let message = |variant: &str, corpus: &Corpus<'_>| {
                let message = corpus.message(variant, kind);
                if kind == NOTIFICATION { message.subject("a subject").signed() } else { message.signed() }
            };
            let evil = match *field {
                "Message" => ipn("the attacker's").to_string(),
                "MessageId" => uuid_of("the attacker's"),
                _ => "x".to_owned(),
            };
            let (first, rest) = field.split_at(1);
            let escaped_first = format!("\\u{:04x}{rest}", u32::from(first.as_bytes()[0]));
            let (head, last) = field.split_at(field.len() - 1);
            let escaped_last = format!("{head}\\u{:04X}", u32::from(last.as_bytes()[0]));
            for (variant, name, value, before) in [
                ("same_value", (*field).to_owned(), None, false),
                ("other_value_after", (*field).to_owned(), Some(evil.clone()), false),
                ("other_value_before", (*field).to_owned(), Some(evil.clone()), true),
                ("escaped_after", escaped_last, Some(evil.clone()), false),
                ("escaped_before", escaped_first, Some(evil.clone()), true),
            ] {
                let variant = format!("{field}_{variant}");
                let message = message(&variant, corpus);
                let value = value.unwrap_or_else(|| message.get(field).to_owned());
                let mut message = message.and(&name, value);
                if before {
                    message.0.rotate_right(1);
                }
                corpus.malformed(&variant, message.body(), Check::Envelope);
            }
            let variant = format!("{field}_null_after");
            let body = message(&variant, corpus).and(field, serde_json::Value::Null).body();
            corpus.malformed(&variant, body, Check::Envelope);
        }
    }
}

/// Fields that nobody reads are JSON all the same: UTF-8, and each given once. Issue 3, item 1: duplicate keys refused.
pub(super) fn unread(corpus: &mut Corpus<'_>) {
    corpus.family("unread_field");
    for (variant, name) in
        [("unsubscribe_link", "UnsubscribeURL"), ("attributes", "MessageAttributes"), ("unknown", "X")]
    {
        let variant = format!("{variant}_given_twice");
        let message = corpus.notification(&variant).signed().with(name, "x").and(name, "y");
        corpus.malformed(&variant, message.body(), Check::Envelope);
    }
    for (variant, field) in [
        ("byte_ff_in_a_value", &b"\"X\":\"\xff\","[..]),
        ("latin_1_in_a_value", b"\"X\":\"caf\xe9\","),
        ("surrogate_in_a_value", b"\"X\":\"\xed\xa0\x80\","),
        ("byte_ff_in_a_name", b"\"\xff\":1,"),
    ] {
        let body = corpus.notification(variant).signed().body();
        corpus.malformed(variant, [b"{", field, &body[1..]].concat(), Check::Envelope);
    }
}

/// Names in another case are other names.
fn other_case(corpus: &mut Corpus<'_>) {
    corpus.family("name_in_another_case");
    for field in
        ["Type", "MessageId", "TopicArn", "Message", "Timestamp", "SignatureVersion", "Signature", "SigningCertURL"]
    {
        for (how, name) in [
            ("lower", field.to_lowercase()),
            ("camel", format!("{}{}", field[..1].to_lowercase(), &field[1..])),
            ("space", format!("{field} ")),
        ] {
            let variant = format!("{field}_{how}");
            let mut message = corpus.notification(&variant).signed();
            message.0.iter_mut().filter(|(found, _)| found == field).for_each(|(found, _)| found.clone_from(&name));
            corpus.malformed(&variant, message.body(), Check::Envelope);
        }
    }
}

/// Not one JSON object, or not JSON.
fn forms(corpus: &mut Corpus<'_>) {
    corpus.family("json_form");
    let good = |corpus: &Corpus<'_>| corpus.notification("form").signed();
    let text = String::from_utf8(good(corpus).body()).expect("UTF-8");
    let compact = good(corpus).text(Layout::Compact, Spelling::Plain);
    let inner = compact.trim_matches(['{', '}']).to_owned();
    let values: Vec<String> = good(corpus).0.iter().map(|(_, value)| value.to_string()).collect();
    let deep = |open: &str, close: &str| [open.repeat(80_000), close.repeat(80_000)].concat();
    let message_of = |value: &str| text.replacen("\"Message\" : \"", &format!("\"Message\" : {value}, \"x\" : \""), 1);

    for (variant, body) in [
        ("empty", String::new()),
        ("white_space", " \r\n\t".to_owned()),
        ("empty_object", "{}".to_owned()),
        ("null", "null".to_owned()),
        ("true", "true".to_owned()),
        ("number", "1".to_owned()),
        ("text", "\"Notification\"".to_owned()),
        ("message_as_text", serde_json::to_string(&compact).expect("JSON")),
        ("plain_text", "You have chosen to subscribe".to_owned()),
        ("html", "<html>{\"Type\":\"Notification\"}</html>".to_owned()),
        ("xml", "<Message><Type>Notification</Type></Message>".to_owned()),
        ("form", "Type=Notification&MessageId=1".to_owned()),
        ("list_of_one", format!("[{compact}]")),
        ("list_of_values", format!("[{}]", values.join(","))),
        ("list_of_pairs", format!("[[{}]]", values.join(","))),
        ("in_another_object", format!("{{\"Records\":[{{\"Sns\":{compact}}}]}}")),
        ("two_objects", format!("{compact}{compact}")),
        ("two_lines_of_objects", format!("{compact}\n{compact}")),
        ("two_objects_with_a_comma", format!("{compact},{compact}")),
        ("text_after", format!("{compact}x")),
        ("brace_after", format!("{compact}}}")),
        ("nul_after", format!("{compact}\0")),
        ("nul_before", format!("\0{compact}")),
        ("nul_between", compact.replacen(',', "\0,", 1)),
        ("byte_order_mark", format!("\u{feff}{compact}")),
        ("no_break_space_before", format!("\u{a0}{compact}")),
        ("form_feed_before", format!("\u{c}{compact}")),
        ("vertical_tab_between", compact.replacen(',', "\u{b},", 1)),
        ("script_guard", format!(")]}}',\n{compact}")),
        ("callback", format!("callback({compact})")),
        ("comma_after_the_last", format!("{{{inner},}}")),
        ("comma_before_the_first", format!("{{,{inner}}}")),
        ("two_commas", compact.replacen(",\"", ",,\"", 1)),
        ("no_comma", compact.replacen(",\"", "\"", 1)),
        ("no_colon", compact.replacen(':', "", 1)),
        ("equals_sign", compact.replacen(':', "=", 1)),
        ("line_comment", text.replacen('\n', "// a comment\n", 1)),
        ("block_comment", compact.replacen('{', "{/* a comment */", 1)),
        ("comment_hides_a_field", compact.replacen('{', "{/*\"MessageId\":\"x\",*/", 1)),
        ("single_quotes", compact.replace('"', "'")),
        ("one_name_in_single_quotes", compact.replacen("\"Type\"", "'Type'", 1)),
        ("name_without_quotes", compact.replacen("\"Type\"", "Type", 1)),
        ("value_without_quotes", compact.replacen("\"Notification\"", "Notification", 1)),
        ("back_quotes", compact.replacen("\"Notification\"", "`Notification`", 1)),
        ("not_a_number", message_of("NaN")),
        ("infinity", message_of("-Infinity")),
        ("undefined", message_of("undefined")),
        ("huge_number", message_of(&"9".repeat(100_000))),
        ("huge_exponent", message_of("1e999999999")),
        ("huge_fraction", message_of(&format!("0.{}", "1".repeat(100_000)))),
        ("hexadecimal_number", message_of("0x10")),
        ("zeros_before_a_number", message_of("007")),
        ("nan_in_an_unknown_field", format!("{{{inner},\"x\":NaN}}")),
        ("zeros_in_an_unknown_field", format!("{{{inner},\"x\":007}}")),
        ("deep_list", deep("[", "]")),
        ("deep_object", deep("{\"a\":", "}")),
        ("deep_list_as_the_message", message_of(&deep("[", "]"))),
        ("deep_object_as_the_message", message_of(&"{\"a\":".repeat(50_000))),
        ("deep_list_unclosed_in_an_unknown_field", format!("{{{inner},\"x\":{}}}", "[".repeat(200_000))),
        ("only_braces", "{".repeat(100_000)),
        ("only_quotes", "\"".repeat(100_001)),
        ("many_names", format!("{{{}}}", vec!["\"a\":1"; 50_000].join(","))),
    ] {
        corpus.malformed(variant, body, Check::Envelope);
    }
}

fn truncated(corpus: &mut Corpus<'_>) {
    corpus.family("truncated");
    let body = corpus.notification("body").signed().body();
    let end = body.len() - 1;
    let places = (0..20).map(|part| 1 + part * end / 20).chain([end - 2, end - 1, end]);
    for at in places {
        corpus.malformed(&format!("at_{at}"), &body[..at], Check::Envelope);
    }
    corpus.malformed("first_byte_missing", &body[1..], Check::Envelope);
    corpus.malformed("first_half_missing", &body[end / 2..], Check::Envelope);
}

/// Texts that are no Unicode, or not written as JSON writes it.
fn texts(corpus: &mut Corpus<'_>) {
    const MARK: &str = "MARK";
    corpus.family("json_text");
    let marked = |corpus: &Corpus<'_>| -> Vec<u8> {
        let message = corpus.notification("text").with("Message", format!("{{\"a\":\"{MARK}\"}}")).signed();
        message.body()
    };
    let replaced = |corpus: &Corpus<'_>, bytes: &[u8]| {
        let body = marked(corpus);
        let at = body.windows(4).position(|found| found == MARK.as_bytes()).expect("the mark");
        [&body[..at], bytes, &body[at + 4..]].concat()
    };
    for (variant, bytes) in [
        ("byte_ff", &b"\xff"[..]),
        ("latin_1", b"caf\xe9"),
        ("continuation_alone", b"\x80"),
        ("sequence_cut_off", b"\xe2\x82"),
        ("overlong_slash", b"\xc0\xaf"),
        ("overlong_quote", b"\xc0\xa2"),
        ("overlong_nul", b"\xc0\x80"),
        ("surrogate_in_utf_8", b"\xed\xa0\x80"),
        ("pair_in_cesu_8", b"\xed\xa0\xbd\xed\xb8\x80"),
        ("beyond_unicode", b"\xf4\x90\x80\x80"),
        ("five_bytes", b"\xf8\x88\x80\x80\x80"),
        ("high_surrogate_alone", b"\\ud83d"),
        ("low_surrogate_alone", b"\\ude00"),
        ("surrogates_in_the_wrong_order", b"\\ude00\\ud83d"),
        ("high_surrogate_and_a_letter", b"\\ud83dx"),
        ("two_high_surrogates", b"\\ud83d\\ud83d"),
        ("line_break", b"a\nb"),
        ("tab", b"a\tb"),
        ("nul", b"a\0b"),
        ("escape_character", b"\x1b[31m"),
        ("unit_separator", b"\x1f"),
        ("unknown_escape", b"\\q"),
        ("escaped_single_quote", b"\\'"),
        ("hexadecimal_escape", b"\\x41"),
        ("octal_escape", b"\\101"),
        ("braced_escape", b"\\u{41}"),
        ("upper_case_escape", b"\\U0041"),
        ("escape_of_three_digits", b"\\u041 "),
        ("escape_with_a_sign", b"\\u+041"),
        ("escape_of_foreign_digits", "\\u００41".as_bytes()),
        ("escaped_line_break", b"\\\n"),
        ("quote_that_ends_it", b"\""),
    ] {
        let body = replaced(corpus, bytes);
        corpus.malformed(variant, body, Check::Envelope);
    }
    let text = String::from_utf8(marked(corpus)).expect("UTF-8");
    for (variant, body) in [
        ("utf_16", text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()),
        ("utf_16_with_mark", [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect()),
        ("utf_32", text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect()),
        ("utf_7", text.replace('"', "+ACI-").into_bytes()),
        ("gzip", [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], text.as_bytes()].concat()),
    ] {
        corpus.malformed(variant, body, Check::Envelope);
    }
}

fn sizes(corpus: &mut Corpus<'_>) {
    corpus.family("size");
    let padded = |message: &Message, size: usize| {
        let mut body = message.body();
        body.resize(size, b' ');
        body
    };
    let message = corpus.notification("one_byte_too_many").signed();
    corpus.add("one_byte_too_many", padded(&message, LIMIT + 1), Expected::TooLarge).headers(message.headers());
    corpus.add("a_megabyte", padded(&message, 1024 * 1024), Expected::TooLarge);
    corpus.add("two_megabytes_of_braces", vec![b'{'; 2 * 1024 * 1024], Expected::TooLarge);
    corpus.add("zeros", vec![0; LIMIT + 1], Expected::TooLarge);
    let long = message.with("Message", "x".repeat(LIMIT)).signed();
    corpus.add("message_too_long", long.body(), Expected::TooLarge);

    // Just under it they are judged.
    let message = corpus.notification("forged_and_as_large_as_may_be").with_signature(&[7; 256]);
    corpus.forbidden("forged_and_as_large_as_may_be", padded(&message, LIMIT), Check::Signature);
    corpus.malformed("zeros_as_many_as_may_be", vec![0; LIMIT], Check::Envelope);
    corpus.malformed("braces_as_many_as_may_be", vec![b'{'; LIMIT], Check::Envelope);
    corpus.malformed("brackets_after_a_brace", [b"{\"a\":".to_vec(), vec![b'['; LIMIT - 5]].concat(), Check::Envelope);
}
