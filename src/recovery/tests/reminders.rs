//! Asking the buyer again.

use jiff::civil::time as clock_time;
use jiff::tz::TimeZone;

use super::*;
use crate::recovery::quiet::QuietHours;
use crate::recovery::reminders::{link_warning, next_at};

/// Parked at the start by a hard decline.
fn parked_by(policies: &Policies) -> ChargeIntent {
    let mut draft = Draft::new(sent());
    settle(&mut draft, &Verdict::Declined(Decline::HardDeclined), start(), policies.default_policy());
    assert!(is_parked_for_instrument(&draft));
    let look = Look::Seen(view(PermissionState::NonChargeable, &["PaymentMethodInvalid"]));
    only(decide(&case(vec![draft.intent]), &findings(look), start(), policies, OURS)).intent
}

fn looked(intent: &ChargeIntent, look: Look, now: Timestamp, policies: &Policies) -> Draft {
    only(decide(&case(vec![intent.clone()]), &findings(look), now, policies, OURS))
}

fn reminder(draft: &Draft) -> Option<Value> {
    let told: Vec<Value> = draft.events.iter().map(|event| serde_json::from_str(&event.data).unwrap()).collect();
    assert!(told.len() <= 1, "{told:?}");
    told.first().map(|told| told["reminder"].clone())
}

/// Days at which a reminder is told, with its number, when every look that is due is made.
fn walk(policies: &Policies, look: &Look) -> Vec<(i64, Value)> {
    let mut intent = parked_by(policies);
    let (mut told, mut now) = (Vec::new(), start());
    for _ in 0..200 {
        let draft = looked(&intent, look.clone(), now, policies);
        if draft.intent.stage().is_terminal() {
            break;
        }
        told.extend(reminder(&draft).map(|number| (now.duration_since(start()).as_hours() / 24, number)));
        intent = draft.intent;
        let next = crate::recovery::due::due(&intent, policies.default_policy()).unwrap();
        assert!(next > now, "{:?}", intent.progress);
        now = next;
    }
    told
}

#[test]
fn the_buyer_is_reminded_at_the_times_of_the_policy_and_never_after_the_park() {
    let declined = not_chargeable("PaymentMethodInvalid");
    let expected = [(3, 1), (7, 2), (14, 3), (21, 4)].map(|(day, number)| (day, Value::from(number)));
    assert_eq!(walk(&policies(), &declined), expected);
    let short = Policies::from(Policy { hard_window: Some(10 * DAY), ..policy() });
    assert_eq!(walk(&short, &declined), expected[..2]);
    let none = Policies::from(Policy { reminders: vec![], ..policy() });
    assert_eq!(walk(&none, &declined), []);
}

#[test]
fn nobody_is_reminded_without_a_look_or_when_amazon_does_not_know_the_permission() {
    let parked = parked_by(&policies());
    for look in [Look::Failed, Look::NotAsked, Look::AccountFault, Look::NotFound, closed(), chargeable()] {
        let draft = looked(&parked, look.clone(), after(3 * DAY), &policies());
        let reminded = draft.events.iter().any(|event| event.kind == "amazonpay.charge.action_required.v1");
        assert!(!reminded, "{look:?}");
    }
    let refused = looked(&parked, Look::NotFound, after(3 * DAY), &policies());
    assert_eq!(next_at(&refused.intent, &policy()), Some(after(7 * DAY)), "skipped, not put off");
    let failed = looked(&parked, Look::Failed, after(3 * DAY), &policies());
    assert_eq!(next_at(&failed.intent, &policy()), Some(after(3 * DAY)), "put off, not skipped");
}

#[test]
fn several_that_are_late_are_told_as_one() {
    let parked = parked_by(&policies());
    let draft = looked(&parked, not_chargeable("PaymentMethodInvalid"), after(15 * DAY), &policies());
    assert_eq!(reminder(&draft), Some(3.into()));
    assert_eq!(next_at(&draft.intent, &policy()), Some(after(21 * DAY)));
    let again = looked(&draft.intent, not_chargeable("PaymentMethodInvalid"), after(15 * DAY), &policies());
    assert_eq!(reminder(&again), None, "once each");
}

#[test]
fn a_reminder_waits_for_the_end_of_the_quiet_hours_also_when_it_is_late() {
    // The start is 10:00 UTC.
    let quiet = QuietHours { from: clock_time(9, 0, 0, 0), to: clock_time(17, 0, 0, 0), zone: TimeZone::UTC };
    let policies = Policies::from(Policy { quiet: Some(quiet), ..policy() });
    let parked = parked_by(&policies);
    let morning = after(3 * DAY + 7 * HOUR);
    assert_eq!(next_at(&parked, policies.default_policy()), Some(morning));
    let declined = || not_chargeable("PaymentMethodInvalid");
    assert_eq!(reminder(&looked(&parked, declined(), after(3 * DAY + 6 * HOUR), &policies)), None);
    assert_eq!(reminder(&looked(&parked, declined(), morning, &policies)), Some(1.into()));
    let late = looked(&parked, declined(), after(4 * DAY), &policies);
    assert_eq!(reminder(&late), None);
    let next = after(4 * DAY + 7 * HOUR);
    assert_eq!(
        (next_at(&late.intent, policies.default_policy()), late.intent.progress.look_at),
        (Some(next), Some(next))
    );
    assert_eq!(reminder(&looked(&late.intent, declined(), next, &policies)), Some(1.into()));
    assert_eq!(walk(&policies, &declined()).len(), 4);
}

#[test]
fn a_new_park_begins_anew_and_an_old_record_without_the_field_is_read() {
    let mut intent = sent();
    intent.progress.reminders_sent = 3;
    let draft = answered(intent, &Verdict::Declined(Decline::HardDeclined), start());
    assert_eq!(draft.intent.progress.reminders_sent, 0);
    let text = serde_json::to_string(&draft.intent.progress).unwrap();
    assert!(!text.contains("remind"), "as the version before wrote it: {text}");
}

#[test]
fn a_region_without_a_documented_link_is_warned_of_unless_another_is_set() {
    for (region, warned) in [(Region::Na, false), (Region::Eu, true), (Region::Jp, false)] {
        assert_eq!(link_warning(region, &Policy::for_region(region)).is_some(), warned, "{region:?}");
    }
    let own =
        Policy { update_url: "https://shop.example/{chargePermissionId}".to_owned(), ..Policy::for_region(Region::Eu) };
    assert_eq!(link_warning(Region::Eu, &own), None);
}
