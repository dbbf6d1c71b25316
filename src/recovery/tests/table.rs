//! Every answer of Create Charge, on a first, a tainted and a repeated send, as one table to read.

use std::fmt::Write;

use super::*;
use crate::recovery::draft::testing::kinds;

#[test]
fn each_answer_and_what_we_do() {
    let mut rows = vec![
        ["Amazon answers", "send", "state", "what next", "counted", "number", "events"].map(str::to_owned).to_vec(),
    ];
    for (name, verdict) in answers() {
        for (send, sends, tainted) in [("first", 1, false), ("tainted", 2, true), ("repeat", 2, false)] {
            let draft = answered(marked(sends, start(), tainted), &verdict, after(MINUTE));
            rows.push(vec![
                name.clone(),
                send.to_owned(),
                draft.intent.stage().name().to_owned(),
                what_next(&draft),
                draft.intent.progress.attempts.to_string(),
                format!("{} {}", draft.intent.number.value, draft.intent.number.status.as_str()),
                kinds(&draft).join(", ").replace("charge.", ""),
            ]);
        }
    }
    insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("answers_of_create_charge", aligned(&rows));
    });
}

fn answers() -> Vec<(String, Verdict)> {
    let states = [
        ChargeState::Captured,
        ChargeState::Authorized,
        ChargeState::AuthorizationInitiated,
        ChargeState::CaptureInitiated,
        ChargeState::Canceled,
        ChargeState::Other("Hovering".to_owned()),
    ];
    let mut answers: Vec<_> = states
        .into_iter()
        .map(|state| (format!("201 {}", state.as_str()), as_answer(charge("C01-0000000-0000001-C000001", state, 0))))
        .collect();
    let declined = declined_charge("C01-0000000-0000001-C000001", "SoftDeclined", 0);
    answers.push(("201 Declined, SoftDeclined".to_owned(), as_answer(declined)));
    answers.extend(Decline::ALL.map(|decline| (decline.as_str().to_owned(), Verdict::Declined(decline))));
    answers.extend(refusals().into_iter().map(|refusal| (refusal.code().to_owned(), Verdict::Refused(refusal))));
    answers.push(("DuplicateIdempotencyKey".to_owned(), Verdict::DuplicateKey));
    answers.push(("401, 403".to_owned(), Verdict::AccountFault("UnauthorizedAccess".to_owned())));
    answers.push(("nothing, 429, 5xx".to_owned(), silence()));
    answers
}

fn what_next(draft: &Draft) -> String {
    match draft.intent.stage() {
        Stage::Scheduled { at, why } => {
            let minutes = at.duration_since(after(MINUTE)).as_mins();
            let why = match why {
                Why::Attempt => "next number",
                Why::Repeat => "same number",
                Why::Confirmation => "same number to confirm",
                Why::Closing => "same number a last time",
            };
            format!("{why} in {} d {:02} h {:02} min", minutes / 1440, minutes / 60 % 24, minutes % 60)
        }
        Stage::Parked { park: Park::Instrument { .. }, .. } => "waits for the instrument".to_owned(),
        Stage::Parked { park: Park::Attention, .. } => "waits for a person".to_owned(),
        Stage::Held { reason } => format!("held: {reason}"),
        Stage::Canceled { outcome, .. } => format!("{outcome:?}").to_lowercase(),
        Stage::Abandoned { reason, outcome, .. } => format!("{reason}, {}", format!("{outcome:?}").to_lowercase()),
        Stage::Pending { .. } | Stage::Authorized { .. } | Stage::Captured { .. } => String::new(),
    }
}

fn aligned(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
            write!(line, "{cell:width$}  ").unwrap();
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
