//! What all pages have in common, and how values look.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};
use serde_json::Value;

use super::Operator;
use super::actions::Verb;
use crate::http::internal::ApiState;

/// A page of somebody who is logged in; it is kept up to date.
pub(super) fn page(state: &ApiState, operator: &Operator, title: &str, body: &Markup) -> Markup {
    framed(state, operator, title, &html! { main data-live="" { h1 { (title) } (body) } })
}

/// A question to somebody who is logged in: it stays as it is.
pub(super) fn question(state: &ApiState, operator: &Operator, title: &str, body: &Markup) -> Markup {
    framed(state, operator, title, &html! { main { h1 { (title) } (body) } })
}

fn framed(state: &ApiState, operator: &Operator, title: &str, main: &Markup) -> Markup {
    let account = &state.0.account;
    frame(
        title,
        &html! {
            header {
                strong { a href="/operator" { "amazon-pay-ipn" } }
                span class="account" { (account.environment) " " (account.merchant) " " (account.region.as_str()) }
                a href="/operator/charges?state=held" { "Charges" }
                a href="/operator/permissions" { "Permissions" }
                a href="/operator/quarantine" { "Quarantine" }
                span id="live" class="dim" { "without live updates" }
                form method="post" action="/operator/logout" {
                    input type="hidden" name="code" value=(operator.form_code);
                    button { "Log out" }
                }
            }
            (main)
            script src="/operator/page.js" defer {}
        },
    )
}

/// A page of nobody.
pub(super) fn bare(title: &str, body: &Markup) -> Markup {
    frame(title, &html! { main { (body) } })
}

fn frame(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " - amazon-pay-ipn" }
                link rel="stylesheet" href="/operator/page.css";
            }
            body { (body) }
        }
    }
}

/// A button that asks for something; the first press asks back.
pub(super) fn button(operator: &Operator, verb: Verb, id: &str) -> Markup {
    html! {
        form method="post" action="/operator/do" {
            input type="hidden" name="code" value=(operator.form_code);
            input type="hidden" name="verb" value=(verb.name());
            input type="hidden" name="id" value=(id);
            button class=[verb.is_final().then_some("danger")] { (verb.label()) }
        }
    }
}

/// The text of a field, at a path such as `chargeAmount/amount`; empty if there is none.
pub(super) fn text(value: &Value, path: &str) -> String {
    match path.split('/').filter(|name| !name.is_empty()).try_fold(value, |value, name| value.get(name)) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// An amount with its currency.
pub(super) fn money(value: &Value, path: &str) -> String {
    let part = |name: &str| text(value, &format!("{path}/{name}"));
    format!("{} {}", part("amount"), part("currencyCode")).trim().to_owned()
}

/// The amount that was authorised; where less is captured, or is to be, both.
fn amount(charge: &Value) -> String {
    let (whole, part) = (money(charge, "chargeAmount"), money(charge, "capture/captureAmount"));
    if part.is_empty() || part == whole { whole } else { format!("{part} of {whole}") }
}

/// A time to the second, in UTC.
pub(super) fn time(value: &Value, path: &str) -> String {
    let text = text(value, path);
    text.parse::<Timestamp>().map_or(text, instant)
}

/// A time to the second, in UTC.
pub(super) fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A state in the colour of how much it needs somebody.
pub(super) fn state_of(value: &Value) -> Markup {
    let state = text(value, "state");
    html! { span class=(format!("state {state}")) { (state) } }
}

pub(super) fn charge_link(id: &str) -> Markup {
    html! { a href=(format!("/operator/charges/{}", segment(id))) { (id) } }
}

pub(super) fn permission_link(id: &str) -> Markup {
    html! { a href=(format!("/operator/permissions/{}", segment(id))) { (id) } }
}

/// A text as one segment of a path (RFC 3986): what is not unreserved is percent-encoded.
pub(super) fn segment(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes()
        .map(|byte| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Charges as a table.
pub(super) fn charges_table(charges: &[Value]) -> Markup {
    html! {
        @if charges.is_empty() { p class="dim" { "None." } }
        @else {
            div class="scroll" { table {
                thead { tr { th { "Charge" } th class="wide" { "Permission" } th { "Amount" } th { "State" } th class="wide" { "Attempts" } th { "Reason" } th { "Next attempt (UTC)" } } }
                tbody { @for charge in charges {
                    tr {
                        td { (charge_link(&text(charge, "id"))) }
                        td class="wide" { (permission_link(&text(charge, "chargePermissionId"))) }
                        td { (amount(charge)) }
                        td { (state_of(charge)) }
                        td class="wide" { (text(charge, "attempts")) }
                        td { (text(charge, "reasonCode")) }
                        td class="time" { (next(charge)) }
                    }
                } }
            } }
        }
    }
}

/// When a charge is tried next, or what keeps it from that.
fn next(charge: &Value) -> String {
    let is = |name: &str| charge.get(name) == Some(&Value::Bool(true));
    let mut parts = vec![time(charge, "nextAttemptAt")];
    parts.extend(is("canceling").then(|| "canceling".to_owned()));
    parts.extend(is("paused").then(|| "paused".to_owned()));
    parts.extend(charge.get("waitingForQuota").map(|_| "waits for quota".to_owned()));
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

/// Every field of a resource, those without a value left out.
pub(super) fn fields(value: &Value, without: &[&str]) -> Markup {
    html! {
        div class="scroll" { table class="fields" { tbody {
            @for (name, field) in value.as_object().into_iter().flatten() {
                @let shown = shown(value, name, field);
                @if !without.contains(&name.as_str()) && !shown.is_empty() { tr { th { (name) } td { (shown) } } }
            }
        } } }
    }
}

fn shown(value: &Value, name: &str, field: &Value) -> String {
    match field {
        Value::Object(parts) if parts.contains_key("currencyCode") => money(value, name),
        Value::Array(parts) => parts.iter().map(|part| text(part, "")).collect::<Vec<_>>().join(", "),
        Value::String(_) if name.ends_with("At") || name.ends_with("Since") || name == "since" => time(value, name),
        _ => text(value, name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hostile_text_stays_text_in_tables_and_links() {
        let hostile = "<script>alert(1)</script>\"'/../x";
        let charge = json!({ "id": hostile, "chargePermissionId": hostile, "state": hostile, "reasonCode": hostile });
        for drawn in [charges_table(std::slice::from_ref(&charge)).into_string(), fields(&charge, &[]).into_string()] {
            assert!(!drawn.contains("<script") && !drawn.contains("\"'/"), "{drawn}");
        }
        assert_eq!(segment("a/b ?%é"), "a%2Fb%20%3F%25%C3%A9");
    }

    #[test]
    fn of_a_charge_that_is_captured_in_part_both_amounts_are_shown() {
        let of = |amount: &str| json!({ "amount": amount, "currencyCode": "USD" });
        let captured = |part: &str| json!({ "chargeAmount": of("14.00"), "capture": { "captureAmount": of(part) } });
        assert_eq!(amount(&captured("9.50")), "9.50 USD of 14.00 USD");
        assert_eq!(amount(&captured("14.00")), "14.00 USD");
        assert_eq!(amount(&json!({ "chargeAmount": of("14.00") })), "14.00 USD");
    }
}
