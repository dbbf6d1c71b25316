//! Amazon's JSON. These types never leave: they become model types at once, and buyer data is not even deserialised.
//!
//! Reading is lenient where Amazon varies (null arrays, two shapes of timestamps, unknown fields) and where losing the rest would
//! be worse: of a charge only its id must be readable, because a charge that is dropped is money nobody knows of. It is strict
//! where a guess could let a charge through: an unreadable limit of a permission is an unreadable permission.
//!
//! Sources: <https://developer.amazon.com/docs/amazon-pay-api-v2/charge-permission.html>,
//! <https://developer.amazon.com/docs/amazon-pay-api-v2/charge.html>,
//! <https://developer.amazon.com/docs/amazon-pay-api-v2/error-handling.html>.

pub(super) mod objects;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::model::capture::CaptureWish;
use crate::model::charge::{ChargeState, ChargeView};
use crate::model::charge_request::{Channel, ChargeInitiator, ChargeRequest, MerchantMetadata, ProviderMetadata};
use crate::model::ids::{ChargePermissionId, ChargeTag, Environment, InvalidId, MerchantId};
use crate::model::money::{Money, MoneyError, Price};
use crate::model::permission::{InstrumentDigest, PermissionKind, PermissionState, PermissionView};

/// The longest `cancellationReason` that we send. Amazon documents none; its other reasons end at 255.
const MAX_REASON_CHARS: usize = 255;

/// Codes of Amazon are kept and logged up to this length.
const MAX_CODE_CHARS: usize = 64;

/// Reads the answer of Get Charge Permission.
pub(super) fn permission(body: &[u8], merchant: &MerchantId) -> Result<PermissionView, WireError> {
    let reply: PermissionReply = serde_json::from_slice(body)?;
    let id: ChargePermissionId = reply.charge_permission_id.parse()?;
    let descriptor = reply
        .payment_preferences
        .into_iter()
        .flatten()
        .flatten()
        .find_map(|preference| preference.payment_descriptor)
        .filter(|descriptor| !descriptor.is_empty());
    let instrument = descriptor.map(|descriptor| InstrumentDigest::of(merchant, &id, &descriptor));
    let limits = reply.limits.unwrap_or_default();
    let reasons = reply.status_details.reasons.into_iter().flatten().flatten();
    let state = match PermissionState::from(reply.status_details.state.as_str()) {
        PermissionState::Other(text) => PermissionState::Other(printable(&text)),
        known => known,
    };
    Ok(PermissionView {
        id,
        kind: reply.charge_permission_type.map(|kind| match PermissionKind::from(kind.as_str().unwrap_or_default()) {
            PermissionKind::Other(text) => PermissionKind::Other(printable(&text)),
            known => known,
        }),
        state,
        reasons: reasons.map(|reason| printable(&reason.reason_code.unwrap_or_default())).collect(),
        release_environment: environment(reply.release_environment.as_deref()),
        amount_limit: limits.amount_limit.map_or(Ok(None), NullablePrice::money)?,
        amount_balance: limits.amount_balance.map_or(Ok(None), NullablePrice::money)?,
        instrument,
    })
}

/// Reads a charge: the answer of Create Charge or of Get Charge. Only the id must be there; a state that Amazon left out is
/// `Other("")`.
pub(super) fn charge(body: &[u8]) -> Result<ChargeView, WireError> {
    let reply: ChargeReply = serde_json::from_slice(body)?;
    let status = reply.status_details.unwrap_or_default();
    let custom_information = reply.merchant_metadata.and_then(|metadata| metadata.custom_information);
    let state = match ChargeState::from(status.state.unwrap_or_default().as_str()) {
        ChargeState::Other(text) => ChargeState::Other(printable(&text)),
        known => known,
    };
    Ok(ChargeView {
        id: reply.charge_id.parse()?,
        permission: reply.charge_permission_id.and_then(|id| id.parse().ok()),
        state,
        reason: status.reason_code.filter(|code| !code.is_empty()).map(|code| printable(&code)),
        tag: custom_information.and_then(|text| ChargeTag::parse(&text)),
        amount: reply.charge_amount.and_then(|price| Money::try_from(price).ok()),
        captured: reply.capture_amount.and_then(|price| Money::try_from(price).ok()),
        // jiff reads the compact form (20211215T152829Z) and RFC 3339 alike.
        expires_at: reply.expiration_timestamp.and_then(|text| text.parse::<Timestamp>().ok()),
        release_environment: environment(reply.release_environment.as_deref()),
    })
}

/// The `reasonCode` of an error, exactly as Amazon spells it; `None` if there is none.
pub(super) fn reason_code(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<ErrorReply>(body).ok()?.reason_code.filter(|code| !code.is_empty())
}

/// Makes a text of Amazon's fit for logs and events: letters and digits, at most 64. Anything else becomes `_` and is not
/// dropped, lest an unknown code turn into a known one.
pub(super) fn printable(code: &str) -> String {
    code.chars().take(MAX_CODE_CHARS).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// The body of Create Charge: a pure function of its arguments, to the byte.
///
/// Amazon answers `DuplicateIdempotencyKey` when other bytes come under a used key, so no release may change the bytes of an
/// existing request: the order of the fields is the order below, and a field that is absent stays absent.
pub(super) fn create_charge_body(request: &ChargeRequest, tag: &ChargeTag) -> Result<Vec<u8>, WireError> {
    // Taken apart by name, so that a new field of the request cannot be forgotten here. The simulation code is a header.
    let ChargeRequest {
        charge_permission_id,
        charge_amount,
        capture_now,
        soft_descriptor,
        can_handle_pending_authorization,
        merchant_metadata,
        provider_metadata,
        charge_initiator,
        channel,
        platform_id,
        simulation_code: _,
    } = request;
    let none = MerchantMetadata::default();
    let MerchantMetadata { merchant_reference_id, merchant_store_name, note_to_buyer } =
        merchant_metadata.as_ref().unwrap_or(&none);
    let body = CreateChargeBody {
        charge_permission_id: charge_permission_id.as_str(),
        charge_amount: Price::from(*charge_amount),
        capture_now: *capture_now,
        soft_descriptor: soft_descriptor.as_deref(),
        can_handle_pending_authorization: *can_handle_pending_authorization,
        merchant_metadata: MerchantMetadataBody {
            merchant_reference_id: merchant_reference_id.as_deref(),
            merchant_store_name: merchant_store_name.as_deref(),
            note_to_buyer: note_to_buyer.as_deref(),
            custom_information: tag.to_string(),
        },
        provider_metadata: provider_metadata.as_ref().map(|ProviderMetadata { provider_reference_id }| {
            ProviderMetadataBody { provider_reference_id: provider_reference_id.as_deref() }
        }),
        charge_initiator: *charge_initiator,
        channel: *channel,
        platform_id: platform_id.as_deref(),
    };
    Ok(serde_json::to_vec(&body)?)
}

/// The body of Capture Charge: a pure function of the wish, to the byte, as [`create_charge_body`] is of its request.
pub(super) fn capture_body(wish: &CaptureWish) -> Result<Vec<u8>, WireError> {
    let CaptureWish { capture_amount, soft_descriptor } = wish;
    let body =
        CaptureBody { capture_amount: Price::from(*capture_amount), soft_descriptor: soft_descriptor.as_deref() };
    Ok(serde_json::to_vec(&body)?)
}

/// The body of Cancel Charge.
pub(super) fn cancel_body(reason: &str) -> Result<Vec<u8>, WireError> {
    let cancellation_reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
    Ok(serde_json::to_vec(&CancelBody { cancellation_reason })?)
}

/// The body of Close Charge Permission.
pub(super) fn close_body(reason: &str, cancel_pending_charges: bool) -> Result<Vec<u8>, WireError> {
    let closure_reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
    Ok(serde_json::to_vec(&CloseBody { closure_reason, cancel_pending_charges })?)
}

// No Debug on what Amazon sends: nothing can print a payment descriptor by accident.

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PermissionReply {
    charge_permission_id: String,
    // What is there and is no text is a kind that we do not know, not a kind that was left out.
    #[serde(default)]
    charge_permission_type: Option<serde_json::Value>,
    #[serde(default, deserialize_with = "lenient")]
    payment_preferences: Option<Vec<Option<PaymentPreference>>>,
    status_details: PermissionStatus,
    #[serde(default)]
    limits: Option<Limits>,
    #[serde(default, deserialize_with = "lenient")]
    release_environment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PaymentPreference {
    #[serde(default)]
    payment_descriptor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PermissionStatus {
    state: String,
    // Strict, unlike a charge's: `ChargeInProgress` and "the buyer must act" differ by their reasons alone.
    #[serde(default)]
    reasons: Option<Vec<Option<Reason>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reason {
    #[serde(default)]
    reason_code: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Limits {
    #[serde(default)]
    amount_limit: Option<NullablePrice>,
    #[serde(default)]
    amount_balance: Option<NullablePrice>,
}

/// A price whose members can be null, which means the same as no price.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NullablePrice {
    #[serde(default)]
    amount: Option<String>,
    #[serde(default)]
    currency_code: Option<String>,
}

impl NullablePrice {
    fn money(self) -> Result<Option<Money>, WireError> {
        match (self.amount, self.currency_code) {
            (None, _) => Ok(None),
            (Some(amount), code) => {
                Ok(Some(Money::try_from(Price { amount, currency_code: code.unwrap_or_default() })?))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChargeReply {
    charge_id: String,
    #[serde(default, deserialize_with = "lenient")]
    charge_permission_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    charge_amount: Option<Price>,
    #[serde(default, deserialize_with = "lenient")]
    capture_amount: Option<Price>,
    #[serde(default, deserialize_with = "lenient")]
    status_details: Option<ChargeStatus>,
    #[serde(default, deserialize_with = "lenient")]
    merchant_metadata: Option<MerchantMetadataReply>,
    #[serde(default, deserialize_with = "lenient")]
    expiration_timestamp: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    release_environment: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChargeStatus {
    #[serde(default, deserialize_with = "lenient")]
    state: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    reason_code: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MerchantMetadataReply {
    #[serde(default, deserialize_with = "lenient")]
    custom_information: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorReply {
    #[serde(default, deserialize_with = "lenient")]
    reason_code: Option<String>,
}

/// The order of these fields is the order of the bytes. Never reorder, rename or add one that is not skipped when absent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CreateChargeBody<'a> {
    charge_permission_id: &'a str,
    charge_amount: Price,
    capture_now: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    soft_descriptor: Option<&'a str>,
    can_handle_pending_authorization: bool,
    merchant_metadata: MerchantMetadataBody<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_metadata: Option<ProviderMetadataBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    charge_initiator: Option<ChargeInitiator>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<Channel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MerchantMetadataBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    merchant_reference_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    merchant_store_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note_to_buyer: Option<&'a str>,
    custom_information: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProviderMetadataBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_reference_id: Option<&'a str>,
}

/// As [`CreateChargeBody`]: the order of the fields is the order of the bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CaptureBody<'a> {
    capture_amount: Price,
    #[serde(skip_serializing_if = "Option::is_none")]
    soft_descriptor: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CancelBody {
    cancellation_reason: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CloseBody {
    closure_reason: String,
    cancel_pending_charges: bool,
}

/// Reads a field, or takes it as absent if it is not of the expected shape.
fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// `Live` or `Sandbox`; `None` for anything else, which the reader of the view treats as a mismatch.
fn environment(text: Option<&str>) -> Option<Environment> {
    let text = text?;
    [Environment::Live, Environment::Sandbox].into_iter().find(|one| text.eq_ignore_ascii_case(one.as_str()))
}

/// JSON that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// Not the JSON we expect. serde's message names fields and types, and may quote a scalar: not for logs.
    #[error("not the expected JSON")]
    Json(#[from] serde_json::Error),
    /// An identifier that would not be safe in a key or a path.
    #[error("an identifier is not of the expected form")]
    Id(#[from] InvalidId),
    /// A limit that cannot be read.
    #[error("a limit of the charge permission cannot be read")]
    Money(#[from] MoneyError),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merchant() -> MerchantId {
        "A2K7NDRCTOTPW9".parse().unwrap()
    }

    fn minimal() -> ChargeRequest {
        serde_json::from_value(json!({
            "chargePermissionId": "B01-0000000-0000000",
            "chargeAmount": {"amount": "14", "currencyCode": "USD"},
        }))
        .unwrap()
    }

    fn full() -> ChargeRequest {
        serde_json::from_value(json!({
            "chargePermissionId": "C01-5105180-3221187",
            "chargeAmount": {"amount": "14.00", "currencyCode": "USD"},
            "captureNow": true,
            "softDescriptor": "ACME",
            "canHandlePendingAuthorization": false,
            "merchantMetadata": {"merchantReferenceId": "r-1", "merchantStoreName": "Ü \"store\"", "noteToBuyer": "thanks"},
            "providerMetadata": {"providerReferenceId": "p-1"},
            "chargeInitiator": "MITR",
            "channel": "Web",
            "platformId": "PLAT",
            "simulationCode": "SoftDeclined",
        }))
        .unwrap()
    }

    fn tag(number: u32) -> ChargeTag {
        ChargeTag { intent: "sub-42.2026-11".parse().unwrap(), number }
    }

    fn seen(value: &serde_json::Value) -> Result<PermissionView, WireError> {
        permission(value.to_string().as_bytes(), &merchant())
    }

    /// The pinned bytes. If one of these fails, do not change the expectation: an upgrade would turn every open number into a
    /// `DuplicateIdempotencyKey`.
    #[test]
    fn the_bytes_of_create_charge_are_pinned() {
        let body = String::from_utf8(create_charge_body(&minimal(), &tag(0)).unwrap()).unwrap();
        assert_eq!(
            body,
            r#"{"chargePermissionId":"B01-0000000-0000000","chargeAmount":{"amount":"14.00","currencyCode":"USD"},"captureNow":false,"canHandlePendingAuthorization":false,"merchantMetadata":{"customInformation":"amazon-pay-ipn/v1/sub-42.2026-11/0"}}"#
        );
        let body = String::from_utf8(create_charge_body(&full(), &tag(3)).unwrap()).unwrap();
        assert_eq!(
            body,
            r#"{"chargePermissionId":"C01-5105180-3221187","chargeAmount":{"amount":"14.00","currencyCode":"USD"},"captureNow":true,"softDescriptor":"ACME","canHandlePendingAuthorization":false,"merchantMetadata":{"merchantReferenceId":"r-1","merchantStoreName":"Ü \"store\"","noteToBuyer":"thanks","customInformation":"amazon-pay-ipn/v1/sub-42.2026-11/3"},"providerMetadata":{"providerReferenceId":"p-1"},"chargeInitiator":"MITR","channel":"Web","platformId":"PLAT"}"#
        );
    }

    #[test]
    fn the_bytes_of_capture_charge_are_pinned() {
        let mut wish = CaptureWish {
            capture_amount: Money::parse("10.5", "USD".parse().unwrap()).unwrap(),
            soft_descriptor: None,
        };
        let body = |wish: &CaptureWish| String::from_utf8(capture_body(wish).unwrap()).unwrap();
        assert_eq!(body(&wish), r#"{"captureAmount":{"amount":"10.50","currencyCode":"USD"}}"#);
        wish.soft_descriptor = Some("ACME".to_owned());
        let bytes = r#"{"captureAmount":{"amount":"10.50","currencyCode":"USD"},"softDescriptor":"ACME"}"#;
        assert_eq!(body(&wish), bytes);
        let stored = serde_json::to_string(&wish).unwrap();
        assert_eq!(body(&serde_json::from_str(&stored).unwrap()), bytes);
    }

    #[test]
    fn the_bytes_of_create_charge_survive_the_store() {
        for request in [minimal(), full()] {
            let stored = serde_json::to_string(&request).unwrap();
            let read: ChargeRequest = serde_json::from_str(&stored).unwrap();
            assert_eq!(
                create_charge_body(&request, &tag(1)).unwrap(),
                create_charge_body(&read, &tag(1)).unwrap(),
                "{stored}"
            );
        }
    }

    #[test]
    fn the_simulation_code_is_not_part_of_the_body() {
        let plain = ChargeRequest { simulation_code: None, ..full() };
        assert_eq!(create_charge_body(&plain, &tag(0)).unwrap(), create_charge_body(&full(), &tag(0)).unwrap());
    }

    #[test]
    fn a_cancellation_reason_is_cut_to_what_amazon_takes() {
        let body = cancel_body(&"ä".repeat(300)).unwrap();
        assert_eq!(String::from_utf8(body).unwrap(), format!(r#"{{"cancellationReason":"{}"}}"#, "ä".repeat(255)));
    }

    #[test]
    fn a_charge_permission_becomes_a_view_without_buyer_data() {
        let reply = json!({
            "chargePermissionId": "C01-5105180-3221187", "chargePermissionReferenceId": null,
            "chargePermissionType": "Recurring",
            "recurringMetadata": {"frequency": {"unit": "Month", "value": "1"}, "amount": {"amount": null, "currencyCode": null}},
            "buyer": {"buyerId": "amzn1.account.X", "name": "Jane Roe", "email": "jane@example.com", "phoneNumber": "555"},
            "shippingAddress": {"addressLine1": "1 Secret Road"}, "billingAddress": null,
            "paymentPreferences": [null, {"paymentDescriptor": "Visa ****1111"}],
            "statusDetails": {"state": "NonChargeable",
                "reasons": [{"reasonCode": "PaymentMethodInvalid", "reasonDescription": "x"}],
                "lastUpdatedTimestamp": "20211215T152829Z"},
            "limits": {"amountLimit": {"amount": "1000.00", "currencyCode": "USD"}, "amountBalance": {"amount": "0", "currencyCode": "USD"}},
            "releaseEnvironment": "Sandbox", "somethingNew": [1, 2],
        });
        let view = seen(&reply).unwrap();
        assert_eq!(view.kind, Some(PermissionKind::Recurring));
        assert_eq!(view.state, PermissionState::NonChargeable);
        assert_eq!(view.reasons, ["PaymentMethodInvalid"]);
        assert_eq!(view.release_environment, Some(Environment::Sandbox));
        assert_eq!(view.amount_limit.unwrap().amount(), "1000.00");
        assert_eq!(view.amount_balance.unwrap().amount(), "0.00");
        assert_eq!(view.instrument, Some(InstrumentDigest::of(&merchant(), &view.id, "Visa ****1111")));
        let printed = format!("{view:?}");
        for private in ["Jane", "jane@", "555", "Secret", "Visa", "1111", "amzn1"] {
            assert!(!printed.replace("C01-5105180-3221187", "").contains(private), "{private}: {printed}");
        }
    }

    #[test]
    fn null_members_of_a_charge_permission_mean_absent() {
        let reply = json!({
            "chargePermissionId": "B01-1", "chargePermissionType": null, "paymentPreferences": null,
            "statusDetails": {"state": "Chargeable", "reasons": null},
            "limits": {"amountLimit": null, "amountBalance": {"amount": null, "currencyCode": null}},
            "releaseEnvironment": null,
        });
        let view = seen(&reply).unwrap();
        assert_eq!((view.kind, view.instrument, view.release_environment), (None, None, None));
        assert_eq!((view.amount_limit, view.amount_balance), (None, None));
        assert!(view.reasons.is_empty());
        let bare = json!({"chargePermissionId": "B01-1", "statusDetails": {"state": "Chargeable"}, "paymentPreferences": [{"paymentDescriptor": null}]});
        assert_eq!(seen(&bare).unwrap().instrument, None);
    }

    #[test]
    fn a_charge_permission_whose_guards_cannot_be_read_is_unreadable() {
        let good = json!({"chargePermissionId": "B01-1", "statusDetails": {"state": "Chargeable"}});
        assert!(seen(&good).is_ok());
        for (field, bad) in [
            ("chargePermissionId", json!("a/b")),
            ("statusDetails", json!({})),
            ("statusDetails", json!({"state": "NonChargeable", "reasons": "ChargeInProgress"})),
            ("limits", json!({"amountBalance": {"amount": "12", "currencyCode": "XXX"}})),
            ("limits", json!({"amountBalance": {"amount": "-12", "currencyCode": "USD"}})),
            ("limits", json!({"amountBalance": {"amount": "12"}})),
        ] {
            let mut reply = good.clone();
            reply[field] = bad;
            assert!(seen(&reply).is_err(), "{reply}");
        }
    }

    #[test]
    fn unknown_states_are_kept_printable_and_never_become_known_ones() {
        let reply = json!({"chargePermissionId": "B01-1", "statusDetails": {"state": "Charge able\n", "reasons": [{"reasonCode": "Charge-InProgress"}]}});
        let view = seen(&reply).unwrap();
        assert_eq!(view.state, PermissionState::Other("Charge_able_".to_owned()));
        assert_eq!(view.reasons, ["Charge_InProgress"]);
        assert!(!view.is_only_busy());
        assert_eq!(printable(&"x".repeat(100)).len(), 64);
    }

    #[test]
    fn a_charge_is_read_with_its_tag_whatever_shape_the_conversion_has() {
        for converted in [json!("14.00"), json!({"amount": "14.00", "currencyCode": "USD"}), json!(null)] {
            for expires in ["20211215T152829Z", "2021-12-15T15:28:29Z", "2021-12-15T15:28:29.000Z"] {
                let reply = json!({
                    "chargeId": "C01-5105180-3221187-C056351", "chargePermissionId": "C01-5105180-3221187",
                    "chargeAmount": {"amount": "14.00", "currencyCode": "USD"}, "convertedAmount": converted, "conversionRate": 1.0,
                    "merchantMetadata": {"merchantReferenceId": null, "customInformation": tag(2).to_string()},
                    "statusDetails": {"state": "Declined", "reasonCode": "SoftDeclined", "reasonDescription": null},
                    "expirationTimestamp": expires, "releaseEnvironment": "Live",
                });
                let view = charge(reply.to_string().as_bytes()).unwrap();
                assert_eq!(view.id.as_str(), "C01-5105180-3221187-C056351");
                assert_eq!(view.permission.unwrap().as_str(), "C01-5105180-3221187");
                assert_eq!((view.state, view.reason.as_deref()), (ChargeState::Declined, Some("SoftDeclined")));
                assert_eq!(view.tag, Some(tag(2)));
                assert_eq!(view.amount.unwrap().amount(), "14.00");
                assert_eq!(view.expires_at, Some("2021-12-15T15:28:29Z".parse().unwrap()));
                assert_eq!(view.release_environment, Some(Environment::Live));
            }
        }
    }

    #[test]
    fn a_charge_with_nothing_readable_but_its_id_is_still_a_charge() {
        let reply = json!({
            "chargeId": "S01-1-2-C3", "chargePermissionId": 7, "chargeAmount": "14", "merchantMetadata": [], "statusDetails": "odd",
            "expirationTimestamp": "never", "releaseEnvironment": "Mars",
        });
        let view = charge(reply.to_string().as_bytes()).unwrap();
        assert_eq!(view.id.as_str(), "S01-1-2-C3");
        assert_eq!(view.state, ChargeState::Other(String::new()));
        assert_eq!((view.permission, view.reason, view.tag, view.amount), (None, None, None, None));
        assert_eq!((view.expires_at, view.release_environment), (None, None));
        for bad in ["", "[]", "{}", r#"{"chargeId":null}"#, r#"{"chargeId":"a/b"}"#, r#"{"chargeId":""}"#] {
            assert!(charge(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reason_code_is_read_from_an_error_and_nothing_else() {
        assert_eq!(reason_code(br#"{"reasonCode":"SoftDeclined","message":null}"#).as_deref(), Some("SoftDeclined"));
        for none in ["", "<html>", "[]", "{}", r#"{"reasonCode":""}"#, r#"{"reasonCode":5}"#] {
            assert_eq!(reason_code(none.as_bytes()), None, "{none}");
        }
    }
}
