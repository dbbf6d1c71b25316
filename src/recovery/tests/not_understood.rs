//! What this version does not know of a permission (its kind, its state, a reason) is kept as text, not charged, and alerted on once; and
//! what it knows in two spellings is the same in both.

use super::*;
use crate::model::permission::{PermissionKind, PermissionView};
use crate::recovery::draft::testing::intent;

#[test]
fn a_kind_of_permission_that_is_not_known_is_not_charged_whatever_its_state() {
    for (state, reasons) in [
        (PermissionState::Chargeable, &[][..]),
        (PermissionState::NonChargeable, &["PaymentMethodInvalid"][..]),
        (PermissionState::Other("Napping".to_owned()), &[][..]),
    ] {
        let kind = Some(PermissionKind::Other("Layaway".to_owned()));
        let look = Look::Seen(PermissionView { kind, ..view(state, reasons) });
        let decision = decided(intent(), look, start());
        assert_eq!(decision.act, Act::Nothing);
        assert!(alerts(&decision.events).contains(&"unknown_permission_kind".to_owned()));
        let draft = only(decision);
        assert!(is_parked_for_attention(&draft), "{:?}", draft.intent.stage());
        assert_eq!(draft.intent.progress.last_reason.as_deref(), Some("ChargePermissionTypeUnknown"));
    }
}

#[test]
fn every_known_kind_may_be_charged_and_so_may_one_that_amazon_left_out() {
    for kind in [
        None,
        Some(PermissionKind::OneTime),
        Some(PermissionKind::Recurring),
        Some(PermissionKind::PaymentMethodOnFile),
    ] {
        let look = Look::Seen(PermissionView { kind, ..view(PermissionState::Chargeable, &[]) });
        assert_eq!(decided(intent(), look, start()).act, Act::Send(0));
    }
}

#[test]
fn a_reason_that_is_not_known_is_not_charged_and_is_alerted_on_once_for_each_change() {
    let look = Look::Seen(view(PermissionState::Chargeable, &["Sunspots"]));
    let decision = decided(intent(), look.clone(), start());
    assert_eq!(decision.act, Act::Nothing);
    assert_eq!(alerts(&decision.events), ["unknown_permission_reason", "charge_parked"]);
    assert!(is_parked_for_attention(&only(decision)));
    let mut case = case(Vec::new());
    let mut told = Vec::new();
    let looks = [
        look.clone(),
        look.clone(),
        Look::Seen(view(PermissionState::NonChargeable, &["PaymentMethodInvalid", "Sunspots"])),
        Look::Seen(view(PermissionState::Closed, &["Sunspots", "Moonshine"])),
        Look::Seen(view(PermissionState::Closed, &["Sunspots", "Moonshine"])),
    ];
    for look in looks {
        let decision = decide(&case, &findings(look), start(), &policies(), OURS);
        told.push(alerts(&decision.events).len());
        case.record = decision.record;
    }
    assert_eq!(told, [1, 0, 0, 1, 0]);
}

#[test]
fn both_spellings_of_who_closed_a_permission_are_understood_and_need_no_alert() {
    for (reason, by) in [
        ("BuyerCanceled", "buyer"),
        ("BuyerClosed", "buyer"),
        ("MerchantCanceled", "merchant"),
        ("MerchantClosed", "merchant"),
        ("AmazonCanceled", "amazon"),
        ("AmazonClosed", "amazon"),
        ("Expired", "expiry"),
    ] {
        let decision = decided(intent(), Look::Seen(view(PermissionState::Closed, &[reason])), start());
        assert_eq!(alerts(&decision.events), Vec::<String>::new(), "{reason}");
        let data: Value = serde_json::from_str(&decision.events[0].data).unwrap();
        assert_eq!((data["closedBy"].as_str(), data["orderCompleted"].as_bool()), (Some(by), None), "{reason}");
    }
}

#[test]
fn a_one_time_permission_that_amazon_closed_is_a_completed_order() {
    let closed = |kind, reason| {
        let look = Look::Seen(PermissionView { kind: Some(kind), ..view(PermissionState::Closed, &[reason]) });
        let decision = decide(&case(Vec::new()), &findings(look), start(), &policies(), OURS);
        let data: Value = serde_json::from_str(&decision.events[0].data).unwrap();
        data["orderCompleted"].as_bool()
    };
    assert_eq!(closed(PermissionKind::OneTime, "AmazonClosed"), Some(true));
    assert_eq!(closed(PermissionKind::OneTime, "AmazonCanceled"), None);
    assert_eq!(closed(PermissionKind::Recurring, "AmazonClosed"), None);
}
