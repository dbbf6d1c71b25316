//! The answers of Get Refund and Get Dispute. As of a charge, only the id must be readable; a state that Amazon left out is `Other("")`.
//! Of a dispute's evidence nothing is read, for it is about the buyer.
//!
//! Sources: <https://developer.amazon.com/docs/amazon-pay-api-v2/refund.html>,
//! <https://developer.amazon.com/docs/amazon-pay-api-v2/dispute.html>.

use jiff::Timestamp;
use serde::Deserialize;

use super::{WireError, environment, lenient, printable};
use crate::model::dispute::{DisputeState, DisputeView};
use crate::model::money::{Money, Price};
use crate::model::refund::{RefundState, RefundView};

/// Reads the answer of Get Refund.
pub(in crate::amazon_pay) fn refund(body: &[u8]) -> Result<RefundView, WireError> {
    let reply: RefundReply = serde_json::from_slice(body)?;
    let status = reply.status_details.unwrap_or_default();
    let state = match RefundState::from(status.state.unwrap_or_default().as_str()) {
        RefundState::Other(text) => RefundState::Other(printable(&text)),
        known => known,
    };
    Ok(RefundView {
        id: reply.refund_id.parse()?,
        charge: reply.charge_id.and_then(|id| id.parse().ok()),
        state,
        reason: code(status.reason_code),
        amount: reply.refund_amount.and_then(|price| Money::try_from(price).ok()),
        release_environment: environment(reply.release_environment.as_deref()),
    })
}

/// Reads the answer of Get Dispute.
pub(in crate::amazon_pay) fn dispute(body: &[u8]) -> Result<DisputeView, WireError> {
    let reply: DisputeReply = serde_json::from_slice(body)?;
    let status = reply.status_details.unwrap_or_default();
    let state = match DisputeState::from(status.state.unwrap_or_default().as_str()) {
        DisputeState::Other(text) => DisputeState::Other(printable(&text)),
        known => known,
    };
    Ok(DisputeView {
        id: reply.dispute_id.parse()?,
        charge: reply.charge_id.and_then(|id| id.parse().ok()),
        kind: code(reply.dispute_type),
        filing_reason: code(reply.filing_reason),
        state,
        resolution: code(status.resolution),
        reason: code(status.reason_code),
        amount: reply.dispute_amount.and_then(|price| Money::try_from(price).ok()),
        deadline: reply.merchant_response_deadline.and_then(|text| text.parse::<Timestamp>().ok()),
        release_environment: environment(reply.release_environment.as_deref()),
    })
}

fn code(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(|text| printable(&text))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefundReply {
    refund_id: String,
    #[serde(default, deserialize_with = "lenient")]
    charge_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    refund_amount: Option<Price>,
    #[serde(default, deserialize_with = "lenient")]
    status_details: Option<Status>,
    #[serde(default, deserialize_with = "lenient")]
    release_environment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DisputeReply {
    dispute_id: String,
    #[serde(default, deserialize_with = "lenient")]
    charge_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    dispute_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    dispute_amount: Option<Price>,
    #[serde(default, deserialize_with = "lenient")]
    filing_reason: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    status_details: Option<Status>,
    #[serde(default, deserialize_with = "lenient")]
    merchant_response_deadline: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    release_environment: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default, deserialize_with = "lenient")]
    state: Option<String>,
    /// Of disputes only.
    #[serde(default, deserialize_with = "lenient")]
    resolution: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    reason_code: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::ids::Environment;

    fn a_refund() -> Value {
        json!({
            "refundId": "S01-5105180-3221187-R022311",
            "chargeId": "S01-5105180-3221187-C056351",
            "refundAmount": { "amount": "14.00", "currencyCode": "USD" },
            "softDescriptor": "Descriptor",
            "creationTimestamp": "20190714T155300Z",
            "statusDetails": {
                "state": "RefundInitiated", "reasonCode": null, "reasonDescription": null,
                "lastUpdatedTimestamp": "20190714T155300Z"
            },
            "releaseEnvironment": "Sandbox"
        })
    }

    fn a_dispute() -> Value {
        json!({
            "disputeId": "S01-5105180-3221187-B022311",
            "releaseEnvironment": "Live",
            "chargeId": "S01-5105180-3221187-C056351",
            "disputeType": "Chargeback",
            "disputeAmount": { "amount": "14.00", "currencyCode": "EUR" },
            "filingReason": "ProductNotReceived",
            "statusDetails": {
                "state": "ActionRequired", "resolution": null, "reasonCode": "MerchantResponseRequired",
                "reasonDescription": "Answer, please", "lastUpdatedTimestamp": "20250514T155300Z"
            },
            "merchantEvidences": [{ "evidenceType": "TrackingNumber", "fileId": "f", "evidenceText": "Jane Doe, 1 Main St" }],
            "merchantResponseDeadline": "20250525T155300Z",
            "resolutionAuthority": null,
            "creationTimestamp": "20250514T155300Z"
        })
    }

    fn read_refund(value: &Value) -> Result<RefundView, WireError> {
        refund(value.to_string().as_bytes())
    }

    fn read_dispute(value: &Value) -> Result<DisputeView, WireError> {
        dispute(value.to_string().as_bytes())
    }

    #[test]
    fn a_refund_is_read_as_amazon_shows_it() {
        let view = read_refund(&a_refund()).unwrap();
        assert_eq!(view.id.as_str(), "S01-5105180-3221187-R022311");
        assert_eq!(view.charge.unwrap().as_str(), "S01-5105180-3221187-C056351");
        assert_eq!((view.state, view.reason), (RefundState::RefundInitiated, None));
        assert_eq!(
            view.amount.unwrap().to_string(),
            Money::parse("14.00", "USD".parse().unwrap()).unwrap().to_string()
        );
        assert_eq!(view.release_environment, Some(Environment::Sandbox));
    }

    #[test]
    fn a_dispute_is_read_as_amazon_shows_it_and_without_its_evidence() {
        let view = read_dispute(&a_dispute()).unwrap();
        assert_eq!(view.id.as_str(), "S01-5105180-3221187-B022311");
        assert_eq!(view.state, DisputeState::ActionRequired);
        assert_eq!((view.resolution.as_deref(), view.reason.as_deref()), (None, Some("MerchantResponseRequired")));
        assert_eq!(
            (view.kind.as_deref(), view.filing_reason.as_deref()),
            (Some("Chargeback"), Some("ProductNotReceived"))
        );
        assert_eq!(view.deadline, Some("2025-05-25T15:53:00Z".parse().unwrap()));
        assert_eq!(view.release_environment, Some(Environment::Live));
        assert!(!format!("{view:?}").contains("Jane"));
    }

    #[test]
    fn unknown_states_and_codes_are_kept_as_text_that_is_fit_for_a_log() {
        let mut value = a_refund();
        value["statusDetails"] = json!({ "state": "Half way\n", "reasonCode": "New Reason" });
        let view = read_refund(&value).unwrap();
        assert_eq!(
            (view.state, view.reason.as_deref()),
            (RefundState::Other("Half_way_".to_owned()), Some("New_Reason"))
        );
        let mut value = a_dispute();
        value["statusDetails"] = json!({ "state": "Appealed", "resolution": "Draw!", "reasonCode": 7 });
        let view = read_dispute(&value).unwrap();
        assert_eq!(view.state, DisputeState::Other("Appealed".to_owned()));
        assert_eq!((view.resolution.as_deref(), view.reason), (Some("Draw_"), None));
    }

    #[test]
    fn what_is_missing_or_of_another_shape_costs_only_itself_and_an_id_that_is_unsafe_costs_all() {
        for field in ["chargeId", "refundAmount", "statusDetails", "releaseEnvironment"] {
            for other in [json!(null), json!(7), json!({ "amount": 1 }), json!("a/../b")] {
                let mut value = a_refund();
                value[field] = other.clone();
                let view = read_refund(&value).unwrap();
                assert_eq!(view.id.as_str(), "S01-5105180-3221187-R022311", "{field} {other}");
            }
        }
        for field in
            ["chargeId", "disputeType", "disputeAmount", "filingReason", "statusDetails", "merchantResponseDeadline"]
        {
            for other in [json!(null), json!([]), json!("soon"), json!("a/../b")] {
                let mut value = a_dispute();
                value[field] = other.clone();
                assert!(read_dispute(&value).is_ok(), "{field} {other}");
            }
        }
        for bad in [json!(null), json!("a/b"), json!(""), json!(1)] {
            let (mut a, mut b) = (a_refund(), a_dispute());
            a["refundId"] = bad.clone();
            b["disputeId"] = bad.clone();
            assert!(read_refund(&a).is_err() && read_dispute(&b).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (refund(&bytes), dispute(&bytes));
        }
    }
}
