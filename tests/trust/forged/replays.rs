//! What was accepted before, sent again by somebody who changed it.

use amazon_pay_ipn::sns::Check;

use crate::authority::keys;
use crate::case::Corpus;
use crate::genuine::replayed;
use crate::message::{ipn, uuid_of};

pub(super) fn add(corpus: &mut Corpus<'_>) {
    corpus.family("replay");
    let seen = replayed(corpus.net);
    let id = seen.get("MessageId").to_owned();
    for (variant, message) in [
        ("other_content", seen.clone().with("Message", ipn("other").to_string())),
        ("other_content_signed_by_another_key", {
            seen.clone().with("Message", ipn("other").to_string()).signed_by(&keys().attacker)
        }),
        ("fresh_id", seen.clone().with("MessageId", uuid_of("fresh"))),
        ("id_in_upper_case", seen.clone().with("MessageId", id.to_uppercase())),
        ("fresh_time", seen.clone().with("Timestamp", "2026-03-06T19:59:59.000Z")),
        ("subject_added", seen.clone().subject("x")),
        ("as_version_2", seen.clone().with("SignatureVersion", "2")),
        ("signed_by_another_key", seen.clone().signed_by(&keys().attacker)),
    ] {
        corpus.forbidden(variant, message.body(), Check::Signature);
    }
}
