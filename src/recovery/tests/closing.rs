//! The caller's wish to close: what it stops, when Amazon is asked, and what follows once it is closed.

use super::*;
use crate::model::closing::CloseWish;
use crate::recovery::closing::{Tried, due as closing_due, tried};
use crate::recovery::draft::testing::intent;
use crate::recovery::plan::plan;

const A: &str = "C01-0000000-0000001-C000001";

fn wished(intents: Vec<ChargeIntent>) -> Case {
    let wish = CloseWish { asked_at: start(), reason: "moved".to_owned(), cancel_pending: true };
    Case { close: Some(wish), ..case(intents) }
}

fn made(case: &Case, look: Look, now: Timestamp) -> Decision {
    decide(case, &findings(look), now, &policies(), OURS)
}

/// As the reconciler does it: decide, call, look, decide again.
fn closing(case: &Case, came_to: &Tried, look: Look, now: Timestamp) -> Decision {
    let mut decision = made(case, chargeable(), now);
    assert_eq!(decision.act, Act::ClosePermission);
    tried(&mut decision.record, case, came_to, now, &mut decision.events);
    decide_again(case, decision, look, now, &policies(), OURS)
}

#[test]
fn a_wish_is_looked_at_and_carried_out_before_anything_else() {
    let unknown = answered(sent(), &silence(), start()).intent;
    let case = wished(vec![unknown, ChargeIntent { id: "renewal-2".parse().unwrap(), ..intent() }]);
    assert!(plan(&case, start()).permission);
    for look in [chargeable(), not_chargeable("PaymentMethodInvalid"), Look::Failed, Look::NotFound] {
        let decision = made(&case, look.clone(), after(HOUR));
        assert_eq!(decision.act, Act::ClosePermission, "{look:?}");
        assert!(decision.drafts.iter().all(|draft| draft.events.is_empty()), "nobody is asked for anything");
    }
    assert_eq!(made(&case, Look::AccountFault, after(HOUR)).act, Act::Nothing);
    assert_eq!(made(&case, closed(), after(MINUTE)).act, Act::Nothing, "it is closed already");
}

#[test]
fn once_it_is_closed_fresh_charges_end_and_an_unknown_number_is_asked_about_at_x() {
    let unknown = answered(sent(), &silence(), start()).intent;
    let case = wished(vec![unknown, ChargeIntent { id: "renewal-2".parse().unwrap(), ..intent() }]);
    let look = Look::Seen(view(PermissionState::Closed, &["MerchantClosed"]));
    let decision = closing(&case, &Tried::MayHaveClosed, look, after(MINUTE));
    assert!(decision.closed && decision.record.closing.is_none());
    assert_eq!(planned(&decision.drafts[0]), (after(X), Why::Closing));
    assert_eq!(end(&decision.drafts[1]), ("charge_permission_closed", Outcome::Verified));
    let told: Value = serde_json::from_str(&decision.drafts[1].events[0].data).unwrap();
    assert_eq!((&told["closedBy"], &told["reasonCodes"]), (&"merchant".into(), &serde_json::json!(["MerchantClosed"])));
    let closed = decision.events.iter().find(|event| event.kind == "amazonpay.charge_permission.closed.v1").unwrap();
    let closed: Value = serde_json::from_str(&closed.data).unwrap();
    assert_eq!(closed["openCharges"], serde_json::json!(["renewal-1", "renewal-2"]));
    // The wish is still in the claim of a reconciliation that raced with the commit: it means nothing any more.
    let over = Case { closed: true, record: decision.record, ..wished(vec![decision.drafts[0].intent.clone()]) };
    assert_eq!(made(&over, Look::NotAsked, after(X)).act, Act::Send(0));
}

#[test]
fn a_closing_that_fails_is_tried_again_ever_later_and_told_of_once_after_the_fourth_try() {
    let mut case = wished(vec![intent()]);
    let (mut now, mut told) = (start(), Vec::new());
    for (tries, minutes) in (1..).zip([1, 5, 15, 60, 180, 360, 360, 360]) {
        let decision = closing(&case, &Tried::MayHaveClosed, chargeable(), now);
        told.extend(alerts(&decision.events).iter().filter(|kind| *kind == "closing_failed").map(|_| tries));
        let next = later(now, minutes * MINUTE);
        assert_eq!(closing_due(&decision.record), Some(next));
        assert_eq!(planned(&decision.drafts[0]), (next, Why::Attempt), "what is due waits for it");
        case.record = decision.record;
        case.intents = vec![decision.drafts[0].intent.clone()];
        let before = later(now, (minutes - 1) * MINUTE);
        assert_eq!(made(&case, chargeable(), before).act, Act::Nothing);
        now = next;
    }
    assert_eq!(told, [4]);
}

#[test]
fn an_account_fault_is_not_counted_as_a_try() {
    let decision = closing(&wished(vec![]), &Tried::AccountFault, Look::NotAsked, start());
    assert_eq!(closing_due(&decision.record), Some(after(15 * MINUTE)));
    assert_eq!(decision.record.closing.unwrap().tries, 0);
}

#[test]
fn a_request_that_amazon_calls_wrong_is_told_of_once_and_not_repeated_and_nothing_is_sent() {
    let mut case = wished(vec![intent()]);
    let decision = closing(&case, &Tried::Refused("InvalidParameterValue".to_owned()), chargeable(), start());
    assert_eq!(alerts(&decision.events), ["closing_refused"]);
    assert_eq!(closing_due(&decision.record), None);
    case.record = decision.record;
    case.intents = vec![decision.drafts[0].intent.clone()];
    let quiet = made(&case, chargeable(), after(DAY));
    assert_eq!((quiet.act.clone(), alerts(&quiet.events)), (Act::Nothing, vec![]));
    // Another wish is tried at once.
    case.close.as_mut().unwrap().asked_at = after(DAY);
    assert_eq!(made(&case, chargeable(), after(DAY)).act, Act::ClosePermission);
}

#[test]
fn a_permission_of_the_other_environment_is_not_closed() {
    let mut foreign = view(PermissionState::Chargeable, &[]);
    foreign.release_environment = Some(Environment::Live);
    let mut case = wished(vec![]);
    let decision = made(&case, Look::Seen(foreign.clone()), start());
    assert_eq!((decision.act, alerts(&decision.events)), (Act::Nothing, vec!["closing_refused".to_owned()]));
    case.record = decision.record;
    assert!(alerts(&made(&case, Look::Seen(foreign), start()).events).is_empty());
}

#[test]
fn a_charge_that_stands_while_its_permission_closes_is_read_at_once_and_hourly_for_a_day() {
    let mut for_later = sent();
    for_later.request.capture_now = false;
    let authorized = answered(for_later, &as_answer(charge(A, ChargeState::Authorized, 0)), start()).intent;
    let decision = made(&case(vec![authorized]), closed(), after(HOUR));
    let found = Case { closed: true, ..case(vec![decision.drafts[0].intent.clone()]) };
    let found = Case { record: decision.record, ..found };
    assert_eq!(plan(&found, after(HOUR)).charges, [A.parse().unwrap()]);
    let seen = |state, now| {
        let view = charge(A, state, 0);
        let charges = vec![(
            view.id.clone(),
            ChargeLook::Seen(ChargeView { reason: Some("ChargePermissionCanceled".to_owned()), ..view }),
        )];
        only(decide(&found, &Findings { look: Look::NotAsked, charges, may_act: true }, now, &policies(), OURS))
    };
    let still = seen(ChargeState::Authorized, after(HOUR));
    assert_eq!(still.intent.progress.look_at, Some(after(2 * HOUR)));
    assert_eq!(seen(ChargeState::Authorized, after(2 * DAY)).intent.progress.look_at, Some(after(3 * DAY)));
    let gone = seen(ChargeState::Canceled, after(HOUR));
    assert_eq!(end(&gone), ("ChargePermissionCanceled", Outcome::Verified));
    let told: Value = serde_json::from_str(&gone.events[0].data).unwrap();
    assert_eq!(told["closedBy"], "buyer");
}

#[test]
fn what_to_do_fits_the_kind_of_consent() {
    for (kind, words) in [
        (crate::model::permission::PermissionKind::Recurring, "new checkout"),
        (crate::model::permission::PermissionKind::PaymentMethodOnFile, "Saved Wallet"),
    ] {
        let mut over = view(PermissionState::Closed, &["AmazonCanceled"]);
        over.kind = Some(kind);
        let decision = made(&case(vec![intent()]), Look::Seen(over), start());
        for event in decision.events.iter().chain(&decision.drafts[0].events) {
            let told: Value = serde_json::from_str(&event.data).unwrap();
            assert!(told["whatToDo"].as_str().unwrap().contains(words), "{told}");
            assert_eq!(told["closedBy"], "amazon");
        }
    }
}
