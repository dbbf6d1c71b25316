//! The body of `POST /v1/charges`, checked before anything is stored. Every wrong field is named.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::json_body;
use super::problem::FieldError;
use crate::model::charge_request::{Channel, ChargeInitiator, ChargeRequest, MerchantMetadata, ProviderMetadata};
use crate::model::handover::{HandedOver, NEW_CHECKOUT, PriorDecline};
use crate::model::ids::{Account, ChargePermissionId, Environment, IntentId, PolicyName};
use crate::model::money::{Currency, Money};
use crate::recovery::policies::Policies;
use crate::store::charges::{Declared, Submission};

/// Longest soft descriptor (guides G12).
const MAX_SOFT_DESCRIPTOR_CHARS: usize = 16;
/// So many digits in a row may be a card or bank number (guides G12: nothing sensitive); card numbers have 12 to 19.
const SENSITIVE_DIGITS: usize = 12;
/// Longest simulation code. The documented ones have at most 50 letters.
const MAX_SIMULATION_CODE_CHARS: usize = 64;
/// Longest text of metadata that Amazon takes.
const MAX_METADATA_CHARS: usize = 255;
/// Of a wrong value so much is shown.
const MAX_SHOWN_CHARS: usize = 80;
/// No intent comes near this number.
const MAX_NUMBER: u32 = 10_000;
/// No charge is planned further ahead than this many days.
const MAX_AHEAD_DAYS: i64 = 366;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ChargeSubmission")]
pub(super) struct Body {
    id: String,
    charge_permission_id: String,
    charge_amount: Amount,
    #[serde(default)]
    capture_now: bool,
    soft_descriptor: Option<String>,
    #[serde(default)]
    can_handle_pending_authorization: bool,
    merchant_metadata: Option<MerchantMetadataBody>,
    provider_metadata: Option<ProviderMetadata>,
    charge_initiator: Option<ChargeInitiator>,
    channel: Option<Channel>,
    platform_id: Option<String>,
    simulation_code: Option<String>,
    #[serde(default, deserialize_with = "optional_time")]
    #[schemars(with = "Option<Timestamp>")]
    not_before: Option<Timestamp>,
    policy: Option<String>,
    #[serde(default)]
    new: bool,
    last_number: Option<u32>,
    declined: Option<Declined>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "HandedOver")]
struct Declined {
    reason_code: String,
    #[serde(deserialize_with = "time")]
    #[schemars(with = "Timestamp")]
    at: Timestamp,
    attempts: u32,
}

/// An amount as Amazon spells it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Amount {
    amount: String,
    currency_code: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "MerchantMetadata")]
struct MerchantMetadataBody {
    merchant_reference_id: Option<String>,
    merchant_store_name: Option<String>,
    note_to_buyer: Option<String>,
    #[schemars(skip)]
    custom_information: Option<IgnoredAny>,
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(MAX_SHOWN_CHARS).collect();
        D::Error::custom(format!("expected a time such as \"2026-01-30T10:00:00Z\", got {shown:?}"))
    })
}

fn optional_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    #[derive(Deserialize)]
    struct Time(#[serde(deserialize_with = "time")] Timestamp);

    Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
}

/// Reads a submission for the account, which may choose one of the policies.
pub(super) fn read(
    bytes: &[u8],
    account: &Account,
    policies: &Policies,
    now: Timestamp,
) -> Result<Submission, Vec<FieldError>> {
    let body: Body = json_body::parse(bytes)?;
    let mut checker = Checker { errors: Vec::new() };
    let submission = checker.check(body, account, policies, now);
    match submission {
        Some(submission) if checker.errors.is_empty() => Ok(submission),
        _ => Err(checker.errors),
    }
}

/// Collects what is wrong.
pub(super) struct Checker {
    pub(super) errors: Vec<FieldError>,
}

impl Checker {
    pub(super) fn wrong(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push(FieldError { field: field.to_owned(), message: message.into() });
    }

    fn parsed<T>(&mut self, field: &str, text: &str) -> Option<T>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        text.parse().map_err(|error: T::Err| self.wrong(field, error.to_string())).ok()
    }

    fn check(&mut self, body: Body, account: &Account, policies: &Policies, now: Timestamp) -> Option<Submission> {
        let id = self.parsed::<IntentId>("id", &body.id);
        let permission = self.parsed::<ChargePermissionId>("chargePermissionId", &body.charge_permission_id);
        let amount = self.charge_amount(&body.charge_amount, account);
        self.soft_descriptor(body.soft_descriptor.as_deref());
        if body.soft_descriptor.is_some() && !body.capture_now {
            let message =
                "expected only with captureNow: true; for a later capture give it to POST /v1/charges/{id}/capture";
            self.wrong("softDescriptor", message);
        }
        let merchant_metadata = body.merchant_metadata.map(|metadata| self.merchant_metadata(metadata));
        if let Some(provider) = &body.provider_metadata {
            self.text("providerMetadata.providerReferenceId", provider.provider_reference_id.as_deref());
        }
        self.text("platformId", body.platform_id.as_deref());
        self.simulation_code(body.simulation_code.as_deref(), account);
        if body.not_before.is_some_and(|at| at.duration_since(now).as_hours() > MAX_AHEAD_DAYS * 24) {
            self.wrong("notBefore", format!("expected a time within {MAX_AHEAD_DAYS} days"));
        }
        let policy = body.policy.as_deref().map(|name| self.policy(name, policies));
        let declared = match (body.new, body.last_number) {
            (true, Some(_)) => {
                self.wrong("lastNumber", "cannot be given with new: true");
                None
            }
            (true, None) => Some(Declared::New),
            (false, Some(number)) if number > MAX_NUMBER => {
                self.wrong("lastNumber", format!("expected at most {MAX_NUMBER}"));
                None
            }
            (false, Some(number)) => Some(Declared::LastNumber(number)),
            (false, None) => Some(Declared::Nothing),
        };
        let handed_over = body.declined.map(|declined| self.declined(&declined, now));
        Some(Submission {
            id: id?,
            request: ChargeRequest {
                charge_permission_id: permission?,
                charge_amount: amount?,
                capture_now: body.capture_now,
                soft_descriptor: body.soft_descriptor,
                can_handle_pending_authorization: body.can_handle_pending_authorization,
                merchant_metadata,
                provider_metadata: body.provider_metadata,
                charge_initiator: body.charge_initiator,
                channel: body.channel,
                platform_id: body.platform_id,
                simulation_code: body.simulation_code,
            },
            policy: policy.map_or(Some(None), |chosen| chosen.map(Some))?,
            not_before: body.not_before,
            declared: declared?,
            handed_over: handed_over.map_or(Some(None), |handed_over| handed_over.map(Some))?,
        })
    }

    fn charge_amount(&mut self, amount: &Amount, account: &Account) -> Option<Money> {
        let money = self.amount("chargeAmount", amount, account)?;
        let most = money.currency().most_charged_at_once(account.region);
        if let Some(most) = most.filter(|most| money.exceeds(most)) {
            self.wrong(
                "chargeAmount.amount",
                format!("expected at most {most}, Amazon's limit of one charge, got {money}"),
            );
        }
        Some(money)
    }

    /// An amount above zero, in a currency that the account charges in, with the decimals of that currency (guides G11).
    pub(super) fn amount(&mut self, field: &str, amount: &Amount, account: &Account) -> Option<Money> {
        let code_field = format!("{field}.currencyCode");
        let currency = self.parsed::<Currency>(&code_field, &amount.currency_code)?;
        if !currency.is_charged_in(account.region) {
            let codes = Currency::codes_of(account.region);
            let region = account.region.as_str();
            self.wrong(&code_field, format!("expected {codes} in region {region}, got {}", currency.code()));
        }
        Money::parse(&amount.amount, currency)
            .map_err(|error| self.wrong(&format!("{field}.amount"), error.to_string()))
            .ok()
    }

    /// What the buyer reads on the statement (guides G12).
    pub(super) fn soft_descriptor(&mut self, text: Option<&str>) {
        let Some(text) = text else { return };
        let printable = !text.chars().any(|letter| letter.is_control() || is_invisible(letter));
        if text.trim().is_empty() || text.chars().count() > MAX_SOFT_DESCRIPTOR_CHARS || !printable {
            self.wrong("softDescriptor", format!("expected 1 to {MAX_SOFT_DESCRIPTOR_CHARS} printable characters"));
        } else if text.contains('@') || longest_digits(text) >= SENSITIVE_DIGITS {
            let message =
                "expected nothing that identifies the buyer: no e-mail address, no number of 12 or more digits";
            self.wrong("softDescriptor", message);
        }
    }

    /// Becomes a header.
    fn simulation_code(&mut self, code: Option<&str>, account: &Account) {
        let Some(code) = code else { return };
        if account.environment == Environment::Live {
            self.wrong("simulationCode", "is for sandboxes only");
        }
        if code.is_empty()
            || code.len() > MAX_SIMULATION_CODE_CHARS
            || !code.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        {
            let message = format!(
                "expected 1 to {MAX_SIMULATION_CODE_CHARS} of A-Z, a-z, 0-9, '-' and '_', such as SoftDeclined"
            );
            self.wrong("simulationCode", message);
        }
    }

    fn merchant_metadata(&mut self, metadata: MerchantMetadataBody) -> MerchantMetadata {
        if metadata.custom_information.is_some() {
            let message =
                "is used by this service to recognise its charges; put your reference into merchantReferenceId";
            self.wrong("merchantMetadata.customInformation", message);
        }
        self.text("merchantMetadata.merchantReferenceId", metadata.merchant_reference_id.as_deref());
        self.text("merchantMetadata.merchantStoreName", metadata.merchant_store_name.as_deref());
        self.text("merchantMetadata.noteToBuyer", metadata.note_to_buyer.as_deref());
        MerchantMetadata {
            merchant_reference_id: metadata.merchant_reference_id,
            merchant_store_name: metadata.merchant_store_name,
            note_to_buyer: metadata.note_to_buyer,
        }
    }

    fn policy(&mut self, name: &str, policies: &Policies) -> Option<PolicyName> {
        let chosen = name.parse().ok().filter(|name| policies.get(name).is_some());
        if chosen.is_none() {
            let known: Vec<&str> = policies.names().collect();
            let name: String = name.chars().take(MAX_SHOWN_CHARS).collect();
            self.wrong("policy", format!("expected one of the policy file: {}; got {name:?}", known.join(", ")));
        }
        chosen
    }

    /// What is handed over must be recoverable; whether the policy leaves an attempt is decided with the plan.
    fn declined(&mut self, declined: &Declined, now: Timestamp) -> Option<HandedOver> {
        if declined.at > now {
            self.wrong("declined.at", format!("expected a time that is not in the future; it is {now}"));
        }
        if declined.attempts == 0 {
            self.wrong("declined.attempts", "expected how many attempts were declined, from 1");
        }
        let code = declined.reason_code.as_str();
        let reason_code = PriorDecline::parse(code);
        if NEW_CHECKOUT.contains(&code) {
            let message = format!(
                "after {code} there is nothing to recover: only a new checkout, a smaller amount or another method helps"
            );
            self.wrong("declined.reasonCode", message);
        } else if reason_code.is_none() {
            let known: Vec<&str> = PriorDecline::ALL.iter().map(|reason| reason.as_str()).collect();
            let shown: String = code.chars().take(MAX_SHOWN_CHARS).collect();
            self.wrong("declined.reasonCode", format!("expected one of {}; got {shown:?}", known.join(", ")));
        }
        Some(HandedOver { reason_code: reason_code?, at: declined.at, attempts: declined.attempts })
    }

    fn text(&mut self, field: &str, text: Option<&str>) {
        if text.is_some_and(|text| text.chars().count() > MAX_METADATA_CHARS || text.chars().any(char::is_control)) {
            self.wrong(
                field,
                format!("expected at most {MAX_METADATA_CHARS} characters, none of them control characters"),
            );
        }
    }
}

/// Direction marks, joiners and the like: they change what is read, or hide what is there.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The longest run of digits; blanks and dashes do not end it, as card numbers are written with them.
fn longest_digits(text: &str) -> usize {
    let runs = text.split(|letter: char| !letter.is_numeric() && !matches!(letter, ' ' | '-'));
    runs.map(|run| run.chars().filter(|letter| letter.is_numeric()).count()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::ids::Region;
    use crate::recovery::policy::Policy;

    fn account() -> Account {
        Account { merchant: "A1".parse().unwrap(), environment: Environment::Live, region: Region::Na }
    }

    fn policies() -> Policies {
        let policy = Policy::for_region(Region::Na);
        Policies::new(policy.clone(), [("gentle".parse().unwrap(), policy)].into())
    }

    fn body() -> Value {
        json!({
            "id": "renewal-1", "chargePermissionId": "C01-0000000-0000001",
            "chargeAmount": { "amount": "14.00", "currencyCode": "USD" }, "captureNow": true,
        })
    }

    fn wrong_fields(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut body = body();
        change(&mut body);
        let now = "2026-01-30T10:00:00Z".parse().unwrap();
        match read(body.to_string().as_bytes(), &account(), &policies(), now) {
            Ok(_) => vec![],
            Err(errors) => errors.into_iter().map(|error| error.field).collect(),
        }
    }

    #[test]
    fn a_plain_charge_is_accepted() {
        assert_eq!(wrong_fields(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn each_wrong_field_is_named() {
        assert_eq!(wrong_fields(|body| body["chargeAmount"]["amount"] = json!(14.0)), ["chargeAmount.amount"]);
        assert_eq!(wrong_fields(|body| body["chargeAmount"]["amount"] = json!("14,00")), ["chargeAmount.amount"]);
        assert_eq!(
            wrong_fields(|body| body["chargeAmount"]["currencyCode"] = json!("JPY")),
            ["chargeAmount.currencyCode"]
        );
        assert_eq!(
            wrong_fields(|body| body["merchantMetadata"] = json!({ "customInformation": "x" })),
            ["merchantMetadata.customInformation"]
        );
        assert_eq!(wrong_fields(|body| body["softDescriptor"] = json!("seventeen letters")), ["softDescriptor"]);
        assert_eq!(wrong_fields(|body| body["amount"] = json!("1")), ["amount"]);
        assert_eq!(wrong_fields(|body| body["simulationCode"] = json!("SoftDeclined")), ["simulationCode"]);
        assert_eq!(wrong_fields(|body| body["chargePermissionId"] = json!("a/b")), ["chargePermissionId"]);
        assert_eq!(wrong_fields(|body| body["merchantMetadata"] = json!({ "nope": 1 })), ["merchantMetadata.nope"]);
        assert_eq!(
            wrong_fields(|body| {
                body.as_object_mut().unwrap().remove("id");
            }),
            ["id"]
        );
    }

    #[test]
    fn a_time_that_is_none_is_refused_with_an_example() {
        let now = "2026-01-30T10:00:00Z".parse().unwrap();
        for (field, time) in [("notBefore", "tomorrow"), ("notBefore", "2026-02-01"), ("declined.at", "yesterday")] {
            let mut wrong = body();
            match field {
                "notBefore" => wrong["notBefore"] = json!(time),
                _ => wrong["declined"] = json!({ "reasonCode": "SoftDeclined", "at": time, "attempts": 1 }),
            }
            let errors = read(wrong.to_string().as_bytes(), &account(), &policies(), now).unwrap_err();
            assert_eq!((errors.len(), errors[0].field.as_str()), (1, field));
            let message = &errors[0].message;
            assert!(message.starts_with("expected a time such as \"2026-01-30T10:00:00Z\", got "), "{message}");
        }
        assert_eq!(wrong_fields(|body| body["notBefore"] = json!(null)), Vec::<String>::new());
        assert_eq!(wrong_fields(|body| body["notBefore"] = json!("2026-02-01T10:00:00+02:00")), Vec::<String>::new());
    }

    #[test]
    fn a_policy_must_be_known_and_the_answer_lists_those_that_are() {
        for name in ["gentle", "default"] {
            assert_eq!(wrong_fields(|body| body["policy"] = json!(name)), Vec::<String>::new(), "{name}");
        }
        for name in ["Gentle", "harsh", "", "../x"] {
            assert_eq!(wrong_fields(|body| body["policy"] = json!(name)), ["policy"], "{name}");
        }
        let mut unknown = body();
        unknown["policy"] = json!("harsh");
        let now = "2026-01-30T10:00:00Z".parse().unwrap();
        let errors = read(unknown.to_string().as_bytes(), &account(), &policies(), now).unwrap_err();
        assert_eq!(errors[0].message, "expected one of the policy file: default, gentle; got \"harsh\"");
    }

    /// The wrong fields of a submission in another account.
    fn wrong_in(account: &Account, change: impl FnOnce(&mut Value)) -> Vec<(String, String)> {
        let mut body = body();
        change(&mut body);
        let now = "2026-01-30T10:00:00Z".parse().unwrap();
        match read(body.to_string().as_bytes(), account, &policies(), now) {
            Ok(_) => vec![],
            Err(errors) => errors.into_iter().map(|error| (error.field, error.message)).collect(),
        }
    }

    fn amount_in(region: Region, amount: &str, currency: &str) -> Vec<(String, String)> {
        wrong_in(&Account { region, ..account() }, |body| {
            body["chargeAmount"] = json!({ "amount": amount, "currencyCode": currency });
        })
    }

    #[test]
    fn a_hand_over_must_be_recoverable_and_past() {
        let declined = |reason: &str, at: &str, attempts: i64| {
            let declined = json!({ "reasonCode": reason, "at": at, "attempts": attempts });
            wrong_fields(move |body| body["declined"] = declined)
        };
        let (past, now) = ("2026-01-29T10:00:00Z", "2026-01-30T10:00:00Z");
        for reason in PriorDecline::ALL {
            assert_eq!(declined(reason.as_str(), now, 1), Vec::<String>::new());
        }
        for reason in NEW_CHECKOUT.into_iter().chain(["softdeclined", "", "Sunspots"]) {
            assert_eq!(declined(reason, past, 1), ["declined.reasonCode"], "{reason}");
        }
        assert_eq!(declined("SoftDeclined", "2026-01-30T10:00:01Z", 1), ["declined.at"]);
        assert_eq!(declined("SoftDeclined", past, 0), ["declined.attempts"]);
        assert_eq!(declined("SoftDeclined", past, -1), ["declined.attempts"]);
        assert_eq!(wrong_fields(|body| body["declined"] = json!({ "reasonCode": "SoftDeclined" })), ["declined.at"]);
    }

    #[test]
    fn g3_g12_a_soft_descriptor_without_capture_now_belongs_to_the_capture() {
        let wrong = wrong_in(&account(), |body| {
            body["softDescriptor"] = json!("SHOP");
            body["captureNow"] = json!(false);
        });
        assert_eq!(wrong.len(), 1);
        assert_eq!(wrong[0].0, "softDescriptor");
        assert!(wrong[0].1.contains("POST /v1/charges/{id}/capture"), "{}", wrong[0].1);
    }

    #[test]
    fn g12_a_soft_descriptor_has_at_most_16_printable_characters() {
        for good in ["SHOP", "SHOP*SUB 42", "sixteen letters!", "ＡＢＣストア", "0123 456-789"] {
            assert_eq!(wrong_fields(|body| body["softDescriptor"] = json!(good)), Vec::<String>::new(), "{good}");
        }
        for bad in ["", "   ", "seventeen letters", "a\u{7}", "a\nb", "a\u{202e}b", "\u{200b}"] {
            assert_eq!(wrong_fields(|body| body["softDescriptor"] = json!(bad)), ["softDescriptor"], "{bad:?}");
        }
    }

    #[test]
    fn g12_a_soft_descriptor_holds_nothing_that_identifies_the_buyer() {
        for bad in ["me@example.com", "411111111111", "4111 1111 1111", "4111-1111-1111", "x123456789012y"] {
            assert_eq!(wrong_fields(|body| body["softDescriptor"] = json!(bad)), ["softDescriptor"], "{bad}");
        }
        assert_eq!(wrong_fields(|body| body["softDescriptor"] = json!("INV 12345678901")), Vec::<String>::new());
    }

    #[test]
    fn g11_an_amount_is_above_zero_and_has_the_decimals_of_its_currency() {
        for (region, amount, currency) in [
            (Region::Na, "14.00", "USD"),
            (Region::Na, "0.01", "USD"),
            (Region::Jp, "1400", "JPY"),
            (Region::Eu, "1.5", "SEK"),
        ] {
            assert_eq!(amount_in(region, amount, currency), [], "{amount} {currency}");
        }
        for (region, amount, currency) in [
            (Region::Na, "0", "USD"),
            (Region::Na, "0.00", "USD"),
            (Region::Na, "-1", "USD"),
            (Region::Na, "1.005", "USD"),
            (Region::Jp, "0.5", "JPY"),
            (Region::Jp, "1400.50", "JPY"),
        ] {
            let wrong = amount_in(region, amount, currency);
            assert_eq!(wrong.len(), 1, "{amount} {currency}");
            assert_eq!(wrong[0].0, "chargeAmount.amount", "{amount} {currency}");
        }
    }

    #[test]
    fn g11_a_currency_is_one_that_the_region_charges_in_and_the_message_lists_them() {
        for (region, currency, expected) in [
            (Region::Na, "EUR", "expected USD in region na, got EUR"),
            (Region::Jp, "USD", "expected JPY in region jp, got USD"),
        ] {
            let wrong = amount_in(region, "1", currency);
            assert_eq!(wrong, [("chargeAmount.currencyCode".to_owned(), expected.to_owned())]);
        }
        for code in ["AUD", "CHF", "DKK", "EUR", "GBP", "HKD", "JPY", "NOK", "NZD", "SEK", "USD", "ZAR"] {
            assert_eq!(amount_in(Region::Eu, "1", code), [], "{code}");
        }
        // Three decimals, none of Amazon Pay's: refused as a currency, before anybody asks for its precision.
        for code in ["KWD", "BHD", "usd", "", "XXX"] {
            let wrong = amount_in(Region::Eu, "1.234", code);
            assert_eq!(wrong.len(), 1, "{code}");
            assert!(wrong[0].1.starts_with("expected one of AUD, CHF"), "{}", wrong[0].1);
        }
    }

    #[test]
    fn g11_an_amount_above_what_amazon_charges_at_once_is_refused_before_it_is_sent() {
        for (region, most, more, currency) in [
            (Region::Na, "150000", "150000.01", "USD"),
            (Region::Eu, "150000", "150000.01", "EUR"),
            (Region::Eu, "150000", "150000.01", "GBP"),
            (Region::Jp, "10000000", "10000001", "JPY"),
        ] {
            assert_eq!(amount_in(region, most, currency), [], "{most} {currency}");
            let wrong = amount_in(region, more, currency);
            assert_eq!(wrong.len(), 1, "{more} {currency}");
            assert!(wrong[0].1.starts_with("expected at most "), "{}", wrong[0].1);
        }
        // No limit is documented for the other currencies of a European account: Amazon says no, if it must.
        assert_eq!(amount_in(Region::Eu, "1000000", "SEK"), []);
    }

    #[test]
    fn g13_g14_flags_enums_and_metadata_are_of_their_kind() {
        let pending = |value: Value| wrong_fields(|body| body["canHandlePendingAuthorization"] = value);
        assert_eq!(pending(json!(true)), Vec::<String>::new());
        assert_eq!(pending(json!("true")), ["canHandlePendingAuthorization"]);
        for (field, good, bad) in [("chargeInitiator", "MITR", "mitr"), ("channel", "PointOfSale", "Shop")] {
            assert_eq!(wrong_fields(|body| body[field] = json!(good)), Vec::<String>::new());
            let wrong = wrong_in(&account(), |body| body[field] = json!(bad));
            assert_eq!(wrong[0].0, field);
            assert!(wrong[0].1.contains(good), "the message lists what is expected: {}", wrong[0].1);
        }
        let (long, fits) = ("x".repeat(256), "x".repeat(255));
        for (parent, field) in [
            ("merchantMetadata", "merchantReferenceId"),
            ("merchantMetadata", "merchantStoreName"),
            ("merchantMetadata", "noteToBuyer"),
            ("providerMetadata", "providerReferenceId"),
        ] {
            let wrong = |text: &str| wrong_fields(|body| body[parent] = json!({ field: text }));
            assert_eq!(wrong(&long), [format!("{parent}.{field}")]);
            assert_eq!(wrong("a\u{0}b"), [format!("{parent}.{field}")]);
            assert_eq!(wrong(&fits), Vec::<String>::new());
        }
        assert_eq!(wrong_fields(|body| body["platformId"] = json!(long)), ["platformId"]);
    }

    #[test]
    fn a_simulation_code_is_for_sandboxes_and_fits_a_header() {
        let sandbox = Account { environment: Environment::Sandbox, ..account() };
        let wrong = |account: &Account, code: &str| {
            wrong_in(account, |body| body["simulationCode"] = json!(code))
                .into_iter()
                .map(|(field, _)| field)
                .collect::<Vec<_>>()
        };
        assert_eq!(wrong(&sandbox, "SoftDeclined"), Vec::<String>::new());
        assert_eq!(wrong(&account(), "SoftDeclined"), ["simulationCode"]);
        for bad in ["", "a b", "a\r\nx: y", "ä", &"x".repeat(65)] {
            assert_eq!(wrong(&sandbox, bad), ["simulationCode"], "{bad:?}");
        }
    }

    #[test]
    fn several_wrong_fields_are_named_at_once() {
        let wrong = wrong_fields(|body| {
            body["id"] = json!("a b");
            body["chargeAmount"]["amount"] = json!("-1");
        });
        assert_eq!(wrong, ["id", "chargeAmount.amount"]);
    }

    #[test]
    fn a_body_that_is_no_json_object_is_refused() {
        let fields = r#"["a","C01-1",{"amount":"1","currencyCode":"USD"}]"#;
        for text in ["", "[]", fields, "null", "\"{}\""] {
            let errors = read(text.as_bytes(), &account(), &policies(), Timestamp::UNIX_EPOCH).unwrap_err();
            assert_eq!(errors[0].message, "expected one JSON object", "{text}");
        }
        for text in ["{", "{}{}"] {
            assert!(read(text.as_bytes(), &account(), &policies(), Timestamp::UNIX_EPOCH).is_err(), "{text}");
        }
    }
}
