//! Answers as people read them. Texts come from callers, buyers and Amazon: nothing of them reaches a terminal that it could act on.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde_json::Value;

/// A table with these headings, without lines.
pub(super) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings.iter().map(|heading| Cell::new(heading).add_attribute(Attribute::Bold)));
    table
}

/// The text of a field, at a path such as `chargeAmount/amount`; empty if there is none.
pub(super) fn text(value: &Value, path: &str) -> String {
    path.split('/').try_fold(value, |value, name| value.get(name)).map_or_else(String::new, plain)
}

/// A value by itself; a list with commas.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        Value::Array(parts) => parts.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => printable(&other.to_string()),
    }
}

/// Each field of an answer with its name, one a line, without those that say nothing.
pub(super) fn fields(answer: &Value, but: &[&str]) -> Table {
    let mut fields = table(&["FIELD", "VALUE"]);
    for (name, value) in answer.as_object().into_iter().flatten().filter(|(name, _)| !but.contains(&name.as_str())) {
        let shown = match value {
            Value::Object(parts) if parts.contains_key("currencyCode") => money(answer, name),
            Value::Object(parts) => {
                parts.keys().map(|part| format!("{part} {}", field(value, part))).collect::<Vec<_>>().join(", ")
            }
            _ => field(answer, name),
        };
        if !shown.is_empty() {
            fields.add_row([name.clone(), shown]);
        }
    }
    fields
}

/// By its name: an id may look like a time.
fn field(value: &Value, name: &str) -> String {
    if ["At", "Since", "Until", "since"].iter().any(|end| name.ends_with(end)) {
        time(value, name)
    } else {
        text(value, name)
    }
}

/// A time to the second, as it is elsewhere when it is none.
pub(super) fn time(value: &Value, path: &str) -> String {
    let text = text(value, path);
    text.parse::<Timestamp>().map_or(text, |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// An amount with its currency.
pub(super) fn money(value: &Value, path: &str) -> String {
    let of = |field: &str| text(value, &format!("{path}/{field}"));
    format!("{} {}", of("amount"), of("currencyCode")).trim().to_owned()
}

/// A state in the colour of how much it needs somebody.
pub(super) fn state(value: &Value, path: &str) -> Cell {
    let text = text(value, path);
    let color = match text.as_str() {
        "captured" => Some(Color::Green),
        "held" => Some(Color::Red),
        "parked" => Some(Color::Yellow),
        "canceled" | "abandoned" => Some(Color::DarkGrey),
        _ => None,
    };
    match color {
        Some(color) => Cell::new(text).fg(color),
        None => Cell::new(text),
    }
}

/// Without control characters, escape sequences and marks that turn the direction of writing.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_acted_on(c) { '\u{fffd}' } else { c }).collect()
}

/// Whether a terminal may do something else with it than show it.
pub(super) fn is_acted_on(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    );
    c.is_control() || turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_an_answer_are_shown_as_people_read_them() {
        let answer = serde_json::json!({
            "id": "20260130T100000Z", "chargeAmount": { "amount": "14.00", "currencyCode": "USD" }, "mayStillCharge": true,
            "parkedSince": "2026-11-23T03:38:14.778Z", "reasonCodes": ["ChargeInProgress", "B"], "updateUrl": null,
            "waitingForQuota": { "ahead": 0, "estimatedAt": "2026-11-23T03:38:18Z" }, "openCharges": [{}],
        });
        let shown = fields(&answer, &["openCharges"]).to_string();
        let lines: Vec<String> =
            shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        FIELD VALUE
        id 20260130T100000Z
        chargeAmount 14.00 USD
        mayStillCharge true
        parkedSince 2026-11-23 03:38:14Z
        reasonCodes ChargeInProgress, B
        waitingForQuota ahead 0, estimatedAt 2026-11-23 03:38:18Z
        ");
    }

    #[test]
    fn nothing_that_a_terminal_acts_on_is_printed() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nc\u{202e}d\u{9b}e"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d\u{fffd}e");
    }
}
