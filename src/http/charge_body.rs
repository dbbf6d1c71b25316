//! The body of `POST /v1/charges`, checked before anything is stored. Every wrong field is named.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::problem::FieldError;
use crate::model::charge_request::{Channel, ChargeInitiator, ChargeRequest, MerchantMetadata, ProviderMetadata};
use crate::model::handover::{HandedOver, NEW_CHECKOUT, PriorDecline};
use crate::model::ids::{Account, ChargePermissionId, Environment, IntentId, PolicyName};
use crate::model::money::{Currency, Money};
use crate::recovery::policies::Policies;
use crate::store::charges::{Declared, Submission};

/// Longest soft descriptor (guides G12).
const MAX_SOFT_DESCRIPTOR_CHARS: usize = 16;
/// Longest text of metadata that Amazon takes.
const MAX_METADATA_CHARS: usize = 255;
/// Of a wrong value so much is shown.
const MAX_SHOWN_CHARS: usize = 80;
/// No intent comes near this number.
const MAX_NUMBER: u32 = 10_000;
/// No charge is planned further ahead than this many days.
const MAX_AHEAD_DAYS: i64 = 366;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
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
    not_before: Option<Timestamp>,
    policy: Option<String>,
    #[serde(default)]
    new: bool,
    last_number: Option<u32>,
    declined: Option<Declined>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Declined {
    reason_code: String,
    at: Timestamp,
    attempts: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Amount {
    amount: String,
    currency_code: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MerchantMetadataBody {
    merchant_reference_id: Option<String>,
    merchant_store_name: Option<String>,
    note_to_buyer: Option<String>,
    custom_information: Option<IgnoredAny>,
}

/// Reads a submission for the account, which may choose one of the policies.
pub(super) fn read(
    bytes: &[u8],
    account: &Account,
    policies: &Policies,
    now: Timestamp,
) -> Result<Submission, Vec<FieldError>> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let body: Body = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        vec![FieldError { field: field_of(&path, error.inner()), message: error.inner().to_string() }]
    })?;
    if deserializer.end().is_err() {
        return Err(vec![FieldError {
            field: String::new(),
            message: "expected one JSON object and nothing after it".to_owned(),
        }]);
    }
    let mut checker = Checker { errors: Vec::new() };
    let submission = checker.check(body, account, policies, now);
    match submission {
        Some(submission) if checker.errors.is_empty() => Ok(submission),
        _ => Err(checker.errors),
    }
}

/// serde reports an unknown or missing field at its parent; the name is in the message.
fn field_of(path: &str, error: &serde_json::Error) -> String {
    let message = error.to_string();
    let named = ["unknown field `", "missing field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start))
        .and_then(|rest| rest.split('`').next());
    match (path, named) {
        (".", Some(name)) => name.to_owned(),
        (path, Some(name)) if !path.ends_with(name) => format!("{path}.{name}"),
        (".", None) => String::new(),
        (path, _) => path.to_owned(),
    }
}

struct Checker {
    errors: Vec<FieldError>,
}

impl Checker {
    fn wrong(&mut self, field: &str, message: impl Into<String>) {
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
        let amount = self.amount(&body.charge_amount, account);
        self.soft_descriptor(body.soft_descriptor.as_deref(), body.capture_now);
        let merchant_metadata = body.merchant_metadata.map(|metadata| self.merchant_metadata(metadata));
        if let Some(provider) = &body.provider_metadata {
            self.text("providerMetadata.providerReferenceId", provider.provider_reference_id.as_deref());
        }
        self.text("platformId", body.platform_id.as_deref());
        if body.simulation_code.is_some() && account.environment == Environment::Live {
            self.wrong("simulationCode", "is for sandboxes only");
        }
        self.text("simulationCode", body.simulation_code.as_deref());
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

    fn amount(&mut self, amount: &Amount, account: &Account) -> Option<Money> {
        let currency = self.parsed::<Currency>("chargeAmount.currencyCode", &amount.currency_code)?;
        if !currency.is_charged_in(account.region) {
            let codes = Currency::codes_of(account.region);
            let region = account.region.as_str();
            self.wrong(
                "chargeAmount.currencyCode",
                format!("expected {codes} in region {region}, got {}", currency.code()),
            );
        }
        Money::parse(&amount.amount, currency)
            .map_err(|error| self.wrong("chargeAmount.amount", error.to_string()))
            .ok()
    }

    fn soft_descriptor(&mut self, text: Option<&str>, capture_now: bool) {
        let Some(text) = text else { return };
        if text.is_empty() || text.chars().count() > MAX_SOFT_DESCRIPTOR_CHARS || text.chars().any(char::is_control) {
            self.wrong("softDescriptor", format!("expected 1 to {MAX_SOFT_DESCRIPTOR_CHARS} characters"));
        }
        if !capture_now {
            self.wrong("softDescriptor", "expected only with captureNow: true");
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
    fn a_soft_descriptor_needs_capture_now() {
        let wrong = wrong_fields(|body| {
            body["softDescriptor"] = json!("SHOP");
            body["captureNow"] = json!(false);
        });
        assert_eq!(wrong, ["softDescriptor"]);
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
        for text in ["", "[]", "{", "null", "{}{}"] {
            assert!(read(text.as_bytes(), &account(), &policies(), Timestamp::UNIX_EPOCH).is_err(), "{text}");
        }
    }
}
