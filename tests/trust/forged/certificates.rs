//! The certificate at an acceptable address: of another name, another use, another time, another key, or none at all.

use amazon_pay_ipn::sns::Check;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose, PublicKeyData, SigningKey, date_time_ymd};

use crate::authority::{
    Key, NAME, issued, issued_by_impostor, issued_der, issued_with_sha1, keys, labelled, named, other_kind, params,
    pem, self_signed,
};
use crate::case::{Case, Corpus, Form};
use crate::net::Reply;

pub(super) fn add(corpus: &mut Corpus<'_>) {
    names(corpus);
    uses(corpus);
    times(corpus);
    kinds_of_keys(corpus);
    chains(corpus);
    not_fetched(corpus);
    not_a_certificate(corpus);
}

/// A notification that names a certificate of its own, signed by `key`.
fn body(corpus: &Corpus<'_>, variant: &str, reply: Reply, key: &Key) -> Vec<u8> {
    let address = corpus.net.certificates.serve(&corpus.name(variant), reply);
    corpus.notification(variant).with("SigningCertURL", address).signed_by(key).body()
}

fn refused<'c>(corpus: &'c mut Corpus<'_>, variant: &str, certificate: String, check: Check) -> &'c mut Case {
    let body = body(corpus, variant, Reply::pem(certificate), &keys().genuine);
    corpus.forbidden(variant, body, check).fetched()
}

fn names(corpus: &mut Corpus<'_>) {
    corpus.family("certificate_name");
    for (variant, alternative, common) in [
        ("another", &["sns.evil.example"][..], "sns.evil.example"),
        ("right_common_name_beside_wrong_alternative", &["evil.example"], NAME),
        ("right_common_name_beside_an_address", &["127.0.0.1"], NAME),
        ("wildcard", &["*.amazonaws.com"], "x"),
        ("wildcard_of_everything", &["*"], "x"),
        ("wildcard_common_name", &[], "*.amazonaws.com"),
        ("name_as_prefix", &["sns.amazonaws.com.evil.example"], "x"),
        ("name_as_suffix", &["evil-sns.amazonaws.com"], "x"),
        ("regional_host", &["sns.us-east-1.amazonaws.com"], "x"),
        ("name_of_another_region", &["sns-signing.eu-south-2.amazonaws.com"], "x"),
        ("upper_case", &["SNS.AMAZONAWS.COM"], "x"),
        ("trailing_dot", &["sns.amazonaws.com."], "x"),
        ("two_wrong_ones", &["sqs.amazonaws.com", "s3.amazonaws.com"], "x"),
        ("two_names_in_one", &["sns.amazonaws.com,evil.example"], "x"),
        ("nul_after_the_name", &["sns.amazonaws.com\0.evil.example"], "x"),
        ("wrong_common_name_alone", &[], "evil.example"),
        ("none", &[], ""),
    ] {
        let certificate = issued(&named(alternative, common), &keys().genuine);
        refused(corpus, variant, certificate, Check::CertificateName);
    }
    let sandwich =
        [issued(&named(&["evil.example"], "evil.example"), &keys().genuine), issued(&params(), &keys().genuine)]
            .concat();
    refused(corpus, "wrong_one_before_the_right_one", sandwich, Check::CertificateName);
}

fn uses(corpus: &mut Corpus<'_>) {
    corpus.family("certificate_use");
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = params();
        change(&mut params);
        params
    };
    for (variant, params) in [
        ("authority", with(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("authority_of_leaves_only", with(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)))),
        ("may_sign_certificates", with(&|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign])),
        (
            "may_sign_certificates_too",
            with(&|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign]),
        ),
    ] {
        refused(corpus, variant, issued(&params, &keys().genuine), Check::CertificateUse);
    }
    let own_authority = with(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    refused(corpus, "self_signed_authority", self_signed(&own_authority, &keys().genuine), Check::CertificateUse);
}

/// The clock of the corpus stands at 2026-03-06T20:00:00Z.
fn times(corpus: &mut Corpus<'_>) {
    corpus.family("certificate_validity");
    let midnight = || date_time_ymd(2026, 3, 6);
    let second = std::time::Duration::from_secs(1);
    let now = midnight() + 20 * 3600 * second;
    for (variant, until) in [
        ("expired_a_second_ago", now - second),
        ("expired_today", midnight()),
        ("expired_years_ago", date_time_ymd(2022, 8, 17)),
    ] {
        let mut params = params();
        params.not_before = date_time_ymd(2021, 9, 7);
        params.not_after = until;
        refused(corpus, variant, issued(&params, &keys().genuine), Check::CertificateValidity);
    }
    for (variant, from) in [
        ("valid_in_a_second", now + second),
        ("valid_tomorrow", date_time_ymd(2026, 3, 7)),
        ("valid_in_years", date_time_ymd(2036, 1, 1)),
    ] {
        let mut params = params();
        params.not_before = from;
        params.not_after = date_time_ymd(2040, 1, 1);
        let body = body(corpus, variant, Reply::pem(issued(&params, &keys().genuine)), &keys().genuine);
        corpus.unavailable(variant, body, Check::CertificateValidity).fetched();
    }
    let mut reversed = params();
    reversed.not_before = date_time_ymd(2026, 10, 14);
    reversed.not_after = date_time_ymd(2025, 11, 10);
    let body = body(corpus, "ends_before_it_begins", Reply::pem(issued(&reversed, &keys().genuine)), &keys().genuine);
    // It is from the future as well, and that may be our clock.
    corpus.unavailable("ends_before_it_begins", body, Check::CertificateValidity).fetched();
}

fn kinds_of_keys(corpus: &mut Corpus<'_>) {
    corpus.family("certificate_key");
    let sound = params();
    refused(corpus, "rsa_1024_and_a_long_signature", issued(&sound, &keys().weak), Check::CertificateKey);
    let elliptic = other_kind(&rcgen::PKCS_ECDSA_P256_SHA256);
    let edwards = other_kind(&rcgen::PKCS_ED25519);
    refused(corpus, "elliptic_curve", issued(&sound, &elliptic), Check::CertificateKey);
    refused(corpus, "edwards_curve", issued(&sound, &edwards), Check::CertificateKey);
    refused(corpus, "sha1_certificate", issued_with_sha1(&sound, &keys().genuine), Check::CertificateAlgorithm);
    let elliptic_issuer = pem(sound.self_signed(&edwards).expect("a certificate").der());
    refused(corpus, "edwards_curve_self_signed", elliptic_issuer, Check::CertificateKey);

    // Signed by those very keys: too short to be RSA of 2048 bits, so not even the certificate is asked for.
    let text = |message: &crate::message::Message| message.signed_text().into_bytes();
    for version in ["1", "2"] {
        let variant = format!("rsa_1024_signs_version_{version}");
        let message = corpus.notification(&variant).with("SignatureVersion", version).signed_by(&keys().weak);
        corpus.malformed(&variant, message.body(), Check::SignatureEncoding);
    }
    let signers: [(&str, &dyn SigningKey); 2] =
        [("elliptic_curve_signs", &elliptic), ("edwards_curve_signs", &edwards)];
    for (variant, key) in signers {
        let message = corpus.notification(variant).with("SignatureVersion", "2");
        let signature = key.sign(&text(&message)).expect("a signature");
        corpus.malformed(variant, message.with_signature(&signature).body(), Check::SignatureEncoding);
    }

    corpus.family("certificate_other_key");
    // A key that SNS's certificate does not hold, under the genuine address and under one of its own.
    for (variant, key, version) in [
        ("version_1", &keys().attacker, "1"),
        ("version_2", &keys().attacker, "2"),
        ("longer_key_version_1", &keys().attacker_4096, "1"),
        ("longer_key_version_2", &keys().attacker_4096, "2"),
        ("the_issuers_key", &keys().root, "2"),
    ] {
        let message = corpus.notification(variant).with("SignatureVersion", version).signed_by(key);
        corpus.forbidden(variant, message.body(), Check::Signature);
    }
    for (variant, certificate) in [
        ("attackers_certificate_after_the_right_one", {
            [issued(&params(), &keys().genuine), self_signed(&params(), &keys().attacker)].concat()
        }),
        ("genuine_certificate_of_another_key", issued(&params(), &keys().bits_3072)),
    ] {
        let body = body(corpus, variant, Reply::pem(certificate), &keys().attacker);
        corpus.forbidden(variant, body, Check::Signature).fetched();
    }
}

/// The issuer is known: then its signature must be on it.
fn chains(corpus: &mut Corpus<'_>) {
    corpus.family("certificate_chain");
    let mut flipped = issued_der(&params(), &keys().genuine);
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let mut renamed = issued_der(&params(), &keys().genuine);
    // Another key in a certificate that the root did sign.
    let at = renamed.windows(32).position(|found| found == &keys().genuine.der_bytes()[16..48]).expect("the key");
    renamed[at] ^= 1;
    for (variant, certificate) in [
        ("issuers_name_and_anothers_signature", issued_by_impostor(&params(), &keys().genuine)),
        ("one_bit_of_the_issuers_signature", pem(&flipped)),
        ("one_bit_of_the_signed_part", pem(&renamed)),
    ] {
        refused(corpus, variant, certificate, Check::CertificateChain).form(Form::Anchored);
    }
}

/// 503: it may pass, and a genuine message must not be lost for it.
fn not_fetched(corpus: &mut Corpus<'_>) {
    corpus.family("certificate_not_served");
    let good = || issued(&params(), &keys().attacker).into_bytes();
    let evil = format!("location: {}/{}\r\n", corpus.net.evil.base(), crate::net::file_name("redirect"));
    let home = format!("location: {}\r\n", corpus.net.genuine);
    let cut_off = [&b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\nconnection: close\r\n\r\n"[..], &good()].concat();
    let padded = [good(), vec![b'\n'; 64 * 1024]].concat();
    for (variant, reply) in [
        ("not_found", Reply::status("404 Not Found", "")),
        ("gone", Reply::status("410 Gone", "")),
        ("forbidden", Reply::status("403 Forbidden", "")),
        ("too_many_requests", Reply::status("429 Too Many Requests", "retry-after: 1\r\n")),
        ("server_error", Reply::status("500 Internal Server Error", "")),
        ("unavailable", Reply::status("503 Service Unavailable", "")),
        ("created", Reply::status("201 Created", "")),
        ("no_content", Reply::Bytes(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".into())),
        ("redirect_301", Reply::status("301 Moved Permanently", &evil)),
        ("redirect_302", Reply::status("302 Found", &evil)),
        ("redirect_303", Reply::status("303 See Other", &evil)),
        ("redirect_307", Reply::status("307 Temporary Redirect", &evil)),
        ("redirect_308", Reply::status("308 Permanent Redirect", &evil)),
        ("redirect_to_the_right_one", Reply::status("302 Found", &home)),
        ("connection_closed", Reply::Bytes(Vec::new())),
        ("no_http", Reply::Bytes(b"220 mail.evil.example ESMTP\r\n".into())),
        ("cut_off", Reply::Bytes(cut_off)),
        ("huge", Reply::Body(padded)),
        ("endless", Reply::Endless(vec![b'-'; 4096])),
    ] {
        let body = body(corpus, variant, reply, &keys().attacker);
        corpus.unavailable(variant, body, Check::Certificate).fetched();
    }
}

fn not_a_certificate(corpus: &mut Corpus<'_>) {
    corpus.family("certificate_is_none");
    let der = || issued_der(&params(), &keys().genuine);
    let good = issued(&params(), &keys().genuine);
    let request = params().serialize_request(&keys().genuine).expect("a request");
    for (variant, bytes) in [
        ("empty", Vec::new()),
        ("white_space", b" \r\n\t".to_vec()),
        ("html", b"<html><body>-----BEGIN-----</body></html>".to_vec()),
        ("json", b"{\"certificate\":\"\"}".to_vec()),
        ("der_for_pem", der()),
        ("base64_without_armour", data_encoding::BASE64.encode(&der()).into_bytes()),
        ("armour_without_end", good.as_bytes()[..good.len() - 30].to_vec()),
        ("armour_around_nothing", labelled("CERTIFICATE", b"").into_bytes()),
        ("armour_around_text", labelled("CERTIFICATE", b"no DER").into_bytes()),
        ("private_key", labelled("PRIVATE KEY", &der()).into_bytes()),
        ("private_key_before_the_right_one", [labelled("PRIVATE KEY", b"x"), good.clone()].concat().into_bytes()),
        ("public_key_alone", labelled("RSA PUBLIC KEY", keys().genuine.der_bytes()).into_bytes()),
        ("signing_request", labelled("CERTIFICATE REQUEST", request.der()).into_bytes()),
        ("trusted_certificate_of_openssl", labelled("TRUSTED CERTIFICATE", &der()).into_bytes()),
        ("bytes_after_the_certificate", labelled("CERTIFICATE", &[der(), vec![0]].concat()).into_bytes()),
        ("truncated_certificate", labelled("CERTIFICATE", &der()[..400]).into_bytes()),
        ("two_certificates_in_one_block", labelled("CERTIFICATE", &[der(), der()].concat()).into_bytes()),
        ("utf_16", good.encode_utf16().flat_map(u16::to_le_bytes).collect()),
    ] {
        let body = body(corpus, variant, Reply::Body(bytes), &keys().genuine);
        corpus.unavailable(variant, body, Check::Certificate).fetched();
    }
}

/// Hosts that keep us waiting: each is given up after seconds, so they are judged side by side.
pub fn slow(corpus: &mut Corpus<'_>) {
    corpus.family("certificate_slow");
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n-----BEGIN".to_vec();
    for (variant, reply) in [("no_answer", Reply::Stalled(Vec::new())), ("half_an_answer", Reply::Stalled(head))] {
        let body = body(corpus, variant, reply, &keys().genuine);
        corpus.unavailable(variant, body, Check::Certificate).fetched();
    }
}
