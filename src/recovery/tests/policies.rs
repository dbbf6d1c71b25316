//! What a policy file may state: which policy holds, limits for one kind of decline, quiet hours; and what holds whatever it states.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::model::charge_intent::{NumberStatus, Trigger};
use crate::recovery::draft::testing::{at, digest, intent};
use crate::recovery::due::due;
use crate::recovery::explain::{End, What, explain};
use crate::recovery::policies::warnings;
use crate::recovery::policy::{Jitter, Lot, Retries};
use crate::recovery::quiet::QuietHours;

fn quiet(from: (i8, i8), to: (i8, i8), zone: &str) -> QuietHours {
    let time = |(hour, minute)| Time::constant(hour, minute, 0, 0);
    QuietHours { from: time(from), to: time(to), zone: TimeZone::get(zone).unwrap() }
}

fn soft() -> Verdict {
    Verdict::Declined(Decline::SoftDeclined)
}

fn settled(intent: ChargeIntent, verdict: &Verdict, now: Timestamp, policy: &Policy) -> Draft {
    let mut draft = Draft::new(intent);
    settle(&mut draft, verdict, now, policy);
    draft
}

fn named(policy: Policy) -> Policies {
    Policies::new(self::policy(), [("gentle".parse().unwrap(), policy)].into())
}

fn chosen(name: &str) -> ChargeIntent {
    ChargeIntent { policy: Some(name.parse().unwrap()), ..intent() }
}

fn decided_by(policies: &Policies, intent: ChargeIntent, now: Timestamp) -> Decision {
    decide(&case(vec![intent]), &findings(chargeable()), now, policies, OURS)
}

// --- which policy ---

#[test]
fn a_charge_goes_by_the_policy_it_chose_and_any_other_by_the_default_one() {
    let policies = named(Policy { max_attempts: 2, ..policy() });
    assert_eq!(policies.of(&chosen("gentle")).max_attempts, 2);
    for other in [intent(), chosen("default"), chosen("gone")] {
        assert_eq!(policies.of(&other), policies.default_policy());
    }
    let mut tried = chosen("gentle");
    tried.progress.attempts = 2;
    assert!(only(decided_by(&policies, tried.clone(), after(HOUR))).intent.stage().is_terminal());
    tried.policy = None;
    assert_eq!(decided_by(&policies, tried, after(HOUR)).act, Act::Send(0));
}

#[test]
fn a_policy_that_is_gone_is_told_of_once_and_the_charge_goes_on() {
    let policies = Policies::from(policy());
    let first = decided_by(&policies, chosen("gentle"), after(HOUR));
    assert_eq!((alerts(&first.events), &first.act), (vec!["policy_missing".to_owned()], &Act::Send(0)));
    assert!(first.events[0].data.contains(r#""policy":"gentle","known":["default"]"#), "{}", first.events[0].data);
    let second = decided_by(&policies, only(first).intent, after(2 * HOUR));
    assert!(alerts(&second.events).is_empty());
    let back = only(decided_by(&named(policy()), only(second).intent, after(3 * HOUR))).intent;
    assert!(!back.progress.policy_missed, "should it go once more, that is news again");
}

#[test]
fn an_ended_charge_misses_no_policy() {
    let mut ended = chosen("gentle");
    ended.progress.stage = Stage::Canceled { at: start(), outcome: Outcome::Verified };
    assert!(decided_by(&Policies::from(policy()), ended, after(HOUR)).events.is_empty());
}

// --- limits for one kind of decline ---

#[test]
fn limits_for_one_kind_of_decline_tighten_those_of_the_policy_and_never_widen_them() {
    let tight = Retries { max_attempts: Some(1), ..policy().soft };
    let policy = Policy { soft: tight, ..policy() };
    assert_eq!(end(&settled(sent(), &soft(), start(), &policy)), ("SoftDeclined", Outcome::Verified));
    let mut failed = marked(2, after(X), false);
    failed.number.first_mark = Some(start());
    failed.progress.failure_answered = true;
    let next = settled(failed, &Verdict::Declined(Decline::ProcessingFailure), after(X), &policy);
    assert_eq!(planned(&next).1, Why::Attempt, "another kind of decline has its own limit");
    let wide = Policy { max_attempts: 1, soft: Retries { max_attempts: Some(9), ..policy.soft.clone() }, ..policy };
    assert_eq!(end(&settled(sent(), &soft(), start(), &wide)), ("SoftDeclined", Outcome::Verified));
}

#[test]
fn a_shorter_window_after_soft_declines_ends_them_and_one_for_the_buyer_ends_the_wait() {
    let policy =
        Policy { soft: Retries { window: Some(5 * DAY), ..policy().soft }, hard_window: Some(10 * DAY), ..policy() };
    let told = explain(&soft(), start(), &policy, None);
    assert_eq!((told.steps.len(), told.ends), (3, vec![End::WindowEnds(after(5 * DAY))]));
    let hard = explain(&Verdict::Declined(Decline::HardDeclined), start(), &policy, None);
    assert_eq!(hard.ends, [End::WaitsForBuyer(after(10 * DAY))]);
    let parked = settled(sent(), &Verdict::Declined(Decline::HardDeclined), start(), &policy);
    assert!(parked.events.iter().any(|event| event.data.contains(&format!(r#""before":"{}""#, after(10 * DAY)))));
    assert!(due(&parked.intent, &policy).unwrap() <= after(10 * DAY));
    let policies = Policies::from(policy);
    let looked = |by| only(decided_by(&policies, parked.intent.clone(), after(by)));
    assert!(is_parked_for_instrument(&looked(9 * DAY)));
    assert_eq!(end(&looked(10 * DAY)), ("HardDeclined", Outcome::Verified));
    let mut mended = parked.intent;
    mended.progress.stage = Stage::Scheduled { at: after(9 * DAY), why: Why::Attempt };
    let policy = policies.default_policy();
    assert_eq!(policy.attempts_end(&mended), after(30 * DAY), "what the buyer mended in time may be late");
}

#[test]
fn an_unknown_number_is_asked_about_until_the_window_of_the_policy_ends_whatever_a_decline_may_say() {
    let policy = Policy { soft: Retries { window: Some(DAY), ..policy().soft }, ..policy() };
    let mut unknown = marked(2, after(MINUTE), true);
    unknown.progress.last_reason = Some("SoftDeclined".to_owned());
    assert_eq!(policy.unknown_deadline(&unknown, Why::Repeat), after(30 * DAY));
}

// --- quiet hours ---

#[test]
fn an_attempt_planned_into_the_quiet_hours_is_made_at_their_end() {
    // 10:00Z is 11:00 in Berlin.
    let policy = Policy { quiet: Some(quiet((9, 0), (17, 30), "Europe/Berlin")), ..policy() };
    let draft = settled(sent(), &soft(), start(), &policy);
    assert_eq!(planned(&draft), (at("2026-01-31T17:30:00+01:00"), Why::Attempt));
    let conflict = settled(sent(), &Verdict::Refused(Refusal::PermissionStatus), start(), &policy);
    assert_eq!(planned(&conflict).0, at("2026-01-30T17:30:00+01:00"));
    let month = settled(sent(), &Verdict::Refused(Refusal::MonthlyLimit), start(), &policy);
    assert_eq!(planned(&month).0, at("2026-02-01T17:30:00+01:00"));
}

#[test]
fn an_attempt_that_is_late_waits_for_the_end_of_the_quiet_hours_unless_somebody_asked_for_it() {
    let policies = Policies::from(Policy { quiet: Some(quiet((9, 0), (17, 30), "Europe/Berlin")), ..policy() });
    for (trigger, waits) in [
        (Trigger::Submit, false),
        (Trigger::InstrumentUpdate, false),
        (Trigger::Operator, false),
        (Trigger::Schedule, true),
        (Trigger::NewMonth, true),
    ] {
        let mut due = intent();
        due.progress.trigger = trigger;
        let decision = decided_by(&policies, due, start());
        assert_eq!(decision.act == Act::Nothing, waits, "{trigger:?}");
        let expected = if waits { at("2026-01-30T17:30:00+01:00") } else { start() };
        assert_eq!(planned(&only(decision)).0, expected, "{trigger:?}");
    }
}

#[test]
fn the_same_number_is_asked_about_again_in_quiet_hours_too() {
    let policy = Policy { quiet: Some(quiet((9, 0), (17, 30), "Europe/Berlin")), ..policy() };
    let silent = settled(sent(), &silence(), start(), &policy);
    assert!(planned(&silent).0 < after(2 * MINUTE) && planned(&silent).1 == Why::Repeat);
    let failed = settled(sent(), &Verdict::Declined(Decline::ProcessingFailure), start(), &policy);
    assert_eq!(planned(&failed), (after(X), Why::Confirmation));
    let decision = decided_by(&Policies::from(policy), failed.intent, after(X));
    assert_eq!(decision.act, Act::Send(0));
}

#[test]
fn where_the_window_ends_inside_the_quiet_hours_the_last_attempt_keeps_its_time() {
    // Quiet from 10:30 to 08:00; the window ends at 10:00 on the second day, the retry falls on 04:00 of it.
    let policy = Policy {
        window: 44 * HOUR,
        soft: Retries::after(vec![42 * HOUR]),
        jitter: Jitter { percent: 0, cap: Duration::ZERO },
        quiet: Some(quiet((10, 30), (8, 0), "UTC")),
        ..policy()
    };
    let draft = settled(sent(), &soft(), start(), &policy);
    assert_eq!(planned(&draft).0, at("2026-02-01T04:00:00Z"));
    let decision = decided_by(&Policies::from(policy.clone()), draft.intent, at("2026-02-01T04:00:00Z"));
    assert_eq!(decision.act, Act::Send(0));
    let longer = Policy { window: 2 * DAY, ..policy };
    assert_eq!(planned(&settled(sent(), &soft(), start(), &longer)).0, at("2026-02-01T08:00:00Z"));
}

#[test]
fn a_night_in_which_the_clock_is_put_forward_moves_an_attempt_to_the_morning_on_the_wall() {
    let policy = Policy { quiet: Some(quiet((22, 0), (7, 0), "Europe/Berlin")), ..policy() };
    let told = explain(&soft(), at("2026-03-28T03:00:00+01:00"), &policy, None);
    assert_eq!(told.steps[1].earliest, at("2026-03-29T07:00:00+02:00"));
    assert_eq!(told.steps[1].latest, Some(at("2026-03-29T07:00:00+02:00")));
}

#[test]
fn an_attempt_is_not_moved_so_near_to_the_end_of_the_window_that_it_may_come_too_late() {
    // The window ends at 10:00 on the second day; quiet until half an hour before, or until an hour and a half before.
    let until = |to| Policy {
        window: 44 * HOUR,
        soft: Retries::after(vec![42 * HOUR]),
        jitter: Jitter { percent: 0, cap: Duration::ZERO },
        quiet: Some(quiet((3, 0), to, "UTC")),
        ..policy()
    };
    let end = until((5, 30)).window_end(&sent());
    assert_eq!(end, at("2026-02-01T06:00:00Z"));
    assert_eq!(planned(&settled(sent(), &soft(), start(), &until((5, 30)))).0, at("2026-02-01T04:00:00Z"));
    assert_eq!(planned(&settled(sent(), &soft(), start(), &until((4, 30)))).0, at("2026-02-01T04:30:00Z"));
}

// --- policies that change under an open charge ---

#[test]
fn a_charge_that_is_held_misses_no_policy() {
    let mut held = chosen("gentle");
    held.progress.stage = Stage::Held { reason: "restored".to_owned() };
    assert!(decided_by(&Policies::from(policy()), held, after(HOUR)).events.is_empty());
}

#[test]
fn a_window_that_was_shortened_drops_no_confirmation_that_is_planned() {
    let short = Policy { window: 2 * DAY, ..policy() };
    let failed = settled(sent(), &Verdict::Declined(Decline::ProcessingFailure), start(), &policy()).intent;
    let mut late = failed;
    late.number.last_mark = Some(after(5 * DAY));
    late.progress.stage = Stage::Scheduled { at: after(5 * DAY + X), why: Why::Confirmation };
    assert_eq!(short.unknown_deadline(&late, Why::Confirmation), after(5 * DAY + 2 * X));
    assert_eq!(short.unknown_deadline(&late, Why::Repeat), short.window_end(&late));
    let decision = decided_by(&Policies::from(short), late, after(5 * DAY + X));
    assert_eq!(decision.act, Act::Send(0));
}

#[test]
fn nobody_is_asked_for_a_card_when_the_time_to_wait_for_it_is_over() {
    let policies = Policies::from(Policy { hard_window: Some(DAY), ..policy() });
    let mut declined = intent();
    (declined.progress.trigger, declined.progress.attempts) = (Trigger::Schedule, 1);
    declined.progress.stage = Stage::Scheduled { at: after(3 * DAY), why: Why::Attempt };
    let findings = findings(not_chargeable("PaymentMethodInvalid"));
    let decision = decide(&case(vec![declined]), &findings, after(3 * DAY), &policies, OURS);
    let draft = only(decision);
    assert!(draft.intent.stage().is_terminal());
    assert!(draft.events.iter().all(|event| !event.kind.contains("action_required")), "{:?}", draft.events);
}

#[test]
fn a_later_place_in_the_spread_of_the_same_month_is_not_beyond_the_window() {
    let policy = Policy { window: DAY, month_spread: 3 * DAY, lot: Lot::Fixed(0.0), ..policy() };
    let first = settled(sent(), &Verdict::Refused(Refusal::MonthlyLimit), start(), &policy).intent;
    let last = Policy { lot: Lot::Fixed(Lot::LATEST), ..policy };
    let again = settled(first, &Verdict::Refused(Refusal::MonthlyLimit), after(2 * HOUR), &last);
    let (next, _) = planned(&again);
    assert!(next < last.attempts_end(&again.intent), "{next} is after {}", last.attempts_end(&again.intent));
}

// --- warnings ---

#[test]
fn more_attempts_than_card_schemes_allow_are_warned_of_and_the_built_in_policy_is_not() {
    assert!(warnings(&policy()).is_empty());
    let daily = |max_attempts| Policy { max_attempts, soft: Retries::after(vec![DAY]), ..policy() };
    assert!(warnings(&daily(10)).is_empty());
    let about_soft = |max| {
        let all = warnings(&daily(max));
        all.into_iter().filter(|warning| warning.starts_with("soft_declined")).collect::<Vec<_>>()
    };
    let mastercard = "soft_declined: 11 attempts are possible within 30 days; Mastercard is said to allow 10";
    assert_eq!(about_soft(11), [mastercard]);
    assert_eq!(about_soft(16).len(), 2);
    let slow = Policy { window: 90 * DAY, max_attempts: 20, soft: Retries::after(vec![4 * DAY]), ..policy() };
    assert!(!warnings(&slow).iter().any(|warning| warning.starts_with("soft_declined")), "20 in 76 days");
    let all = named(daily(11)).warnings();
    assert!(all.iter().all(|warning| warning.starts_with("policy gentle: ")) && !all.is_empty(), "{all:?}");
}

// --- explain ---

#[test]
fn explain_tells_the_times_of_a_charge_within_those_that_any_charge_may_have() {
    let all = explain(&soft(), start(), &policy(), None);
    let days: Vec<_> = all.steps.iter().map(|step| step.earliest.duration_since(start()).as_hours() / 24).collect();
    assert_eq!((days, &all.ends[..]), (vec![0, 1, 4, 11, 25], &[End::AttemptsUsedUp(5)][..]));
    let own = explain(&soft(), start(), &policy(), Some(&"renewal-1".parse().unwrap()));
    for (step, range) in own.steps.iter().zip(&all.steps).skip(1) {
        assert!(range.earliest < step.earliest && step.latest == Some(step.earliest));
        assert!(step.latest < range.latest);
    }
    let real = settled(sent(), &soft(), start(), &policy());
    assert_eq!(planned(&real).0, own.steps[1].earliest, "the service plans the same");
}

#[test]
fn explain_shows_confirmations_months_and_parks() {
    let kinds =
        |verdict| explain(&verdict, start(), &policy(), None).steps.iter().map(|step| step.what).collect::<Vec<_>>();
    let failure = kinds(Verdict::Declined(Decline::ProcessingFailure));
    assert_eq!(failure[..3], [What::Attempt(1), What::Confirmation, What::Attempt(2)]);
    let months = explain(&Verdict::Refused(Refusal::MonthlyLimit), start(), &policy(), None);
    let turns = [at("2026-02-01T00:00:00-08:00"), at("2026-03-01T00:00:00-08:00")];
    assert_eq!(
        months.steps.iter().map(|step| step.what).collect::<Vec<_>>(),
        [What::Attempt(1), What::NewMonth(turns[0]), What::NewMonth(turns[1])]
    );
    assert_eq!((months.steps[1].earliest, &months.ends[..]), (turns[0], &[End::MonthsUsedUp(2)][..]));
    assert!(months.steps[1].latest.unwrap() < later(turns[0], 6 * HOUR));
    let doubtful = explain(&Verdict::Refused(Refusal::MonthlyLimit), later(turns[0], HOUR), &policy(), None);
    assert_eq!((doubtful.steps[1].what, doubtful.steps[1].earliest), (What::OldMonth, later(turns[0], 3 * HOUR)));
    let conflict = explain(&Verdict::Refused(Refusal::PermissionStatus), start(), &policy(), None);
    assert_eq!((conflict.steps.len(), &conflict.ends[..]), (4, &[End::WaitsForPerson(after(30 * DAY))][..]));
    let rejected = explain(&Verdict::Declined(Decline::AmazonRejected), start(), &policy(), None);
    assert_eq!((rejected.steps.len(), &rejected.ends[..]), (1, &[End::AtOnce][..]));
    assert_eq!(explain(&Verdict::DuplicateKey, start(), &policy(), None).ends, [End::Held]);
    let refused = explain(&Verdict::AccountFault("x".to_owned()), start(), &policy(), None);
    assert_eq!(refused.ends, [End::Repeats(after(MINUTE))]);
}

// --- whatever a policy states ---

fn retries() -> impl Strategy<Value = Retries> {
    let wait = prop_oneof![1_u64..3000, 1_u64..60 * 1440].prop_map(Duration::from_mins);
    (vec(wait, 1..20), option::of(1_u32..20), option::of((1_u32..90).prop_map(|days| days * DAY)))
        .prop_map(|(schedule, max_attempts, window)| Retries { schedule, max_attempts, window })
}

fn quiet_hours() -> impl Strategy<Value = Option<QuietHours>> {
    let zones = vec!["UTC", "Europe/Berlin", "America/Los_Angeles", "Australia/Lord_Howe", "Pacific/Apia"];
    let minute = 0_i8..60;
    let span = ((0_i8..24, minute.clone()), (0_i8..24, minute), select(zones));
    option::weighted(0.8, span.prop_filter("a span", |(from, to, _)| from != to))
        .prop_map(|span| span.map(|(from, to, zone)| quiet(from, to, zone)))
}

prop_compose! {
    fn any_policy()(
        max_attempts in 1_u32..=20,
        window in (1_u32..=90).prop_map(|days| days * DAY),
        (soft, failure) in (retries(), retries()),
        hard_window in option::of((1_u32..90).prop_map(|days| days * DAY)),
        percent in 0_u32..=100,
        cap in (0_u64..=24).prop_map(Duration::from_hours),
        quiet in quiet_hours(),
        max_month_parks in 0_u32..=12,
        month_spread in (0_u64..=72).prop_map(Duration::from_hours),
    ) -> Policy {
        let jitter = Jitter { percent, cap };
        Policy { max_attempts, window, soft, failure, hard_window, jitter, quiet, max_month_parks, month_spread, ..policy() }
    }
}

fn answer() -> impl Strategy<Value = Verdict> {
    select(vec![
        soft(),
        Verdict::Declined(Decline::TransactionTimedOut),
        Verdict::Declined(Decline::ProcessingFailure),
        Verdict::Declined(Decline::HardDeclined),
        Verdict::Refused(Refusal::MonthlyLimit),
        Verdict::Refused(Refusal::PermissionStatus),
        silence(),
    ])
}

/// A new number is about to be sent: what must hold then, whatever the policy.
fn check_attempt(before: &ChargeIntent, now: Timestamp, policy: &Policy) {
    assert!(before.progress.attempts < policy.attempts_at_most(before));
    assert!(now < policy.window_end(before) && now < policy.attempts_end(before));
    let asked_for = matches!(before.progress.trigger, Trigger::Submit | Trigger::InstrumentUpdate);
    let quiet_end = policy.quiet.as_ref().and_then(|quiet| quiet.end_after(now));
    assert!(
        asked_for || quiet_end.is_none_or(|end| later(end, HOUR) >= policy.attempts_end(before)),
        "{now} is quiet until {quiet_end:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_policy_no_attempt_is_beyond_the_maximum_outside_the_window_or_in_quiet_hours(
        policy in any_policy(),
        answers in vec((answer(), 0_u64..2000), 1..60),
        begin in (0_i64..365 * 24).prop_map(|hours| start() + jiff::SignedDuration::from_hours(hours)),
    ) {
        let policies = Policies::from(policy.clone());
        let mut charge = intent();
        (charge.submitted_at, charge.progress.window_from) = (begin, begin);
        charge.progress.stage = Stage::Scheduled { at: begin, why: Why::Attempt };
        for (step, (verdict, late)) in answers.into_iter().enumerate() {
            let Some(due) = due(&charge, &policy) else { break };
            let now = if step == 0 { begin } else { later(due, Duration::from_mins(10 * late.saturating_sub(1000))) };
            let mut view = view(PermissionState::Chargeable, &[]);
            view.instrument = Some(digest(&format!("card {step}")));
            let decision = decide(&case(vec![charge.clone()]), &findings(Look::Seen(view)), now, &policies, OURS);
            let sends = decision.act == Act::Send(0);
            let mut draft = only(decision);
            if sends {
                if !draft.intent.next_send_repeats() {
                    check_attempt(&draft.intent, now, &policy);
                }
                let number = &mut draft.intent.number;
                number.tainted = number.last_mark.is_some_and(|last| now < later(last, X));
                number.status = NumberStatus::Unknown;
                number.sends += 1;
                number.first_mark = number.first_mark.or(Some(now));
                number.last_mark = Some(now);
                let again = settled(draft.intent.clone(), &verdict, now, &policy);
                settle(&mut draft, &verdict, now, &policy);
                prop_assert_eq!(&draft.intent, &again.intent, "the same inputs give the same times");
                if let Stage::Scheduled { at, .. } = draft.intent.stage() {
                    prop_assert!(*at > now, "{at} is not after {now}");
                }
            }
            prop_assert!(draft.intent.progress.attempts <= policy.max_attempts);
            charge = draft.intent;
        }
    }

    #[test]
    fn whatever_the_policy_explain_is_total_deterministic_and_its_earliest_is_not_after_its_latest(
        policy in any_policy(),
        verdict in prop_oneof![3 => answer(), 1 => Just(Verdict::DuplicateKey)],
        from in prop_oneof![
            9 => (0_i64..365 * 24).prop_map(|hours| start() + jiff::SignedDuration::from_hours(hours)),
            1 => select(vec![Timestamp::MIN, Timestamp::MAX, Timestamp::UNIX_EPOCH]),
        ],
    ) {
        let id = "renewal-1".parse().unwrap();
        let told = explain(&verdict, from, &policy, None);
        prop_assert_eq!(&told, &explain(&verdict, from, &policy, None));
        prop_assert!(told.steps.iter().all(|step| step.latest.is_none_or(|latest| step.earliest <= latest)));
        prop_assert!(told.steps.windows(2).all(|two| two[0].earliest <= two[1].earliest));
        let own = explain(&verdict, from, &policy, Some(&id));
        for (step, range) in own.steps.iter().zip(&told.steps) {
            prop_assert!(range.earliest <= step.earliest);
            prop_assert!(step.what != range.what || range.latest.is_none_or(|latest| step.earliest <= latest));
        }
        let attempts = told.steps.iter().filter(|step| matches!(step.what, What::Attempt(_))).count();
        let conflict = verdict == Verdict::Refused(Refusal::PermissionStatus);
        prop_assert!(conflict || u32::try_from(attempts).unwrap() <= policy.max_attempts);
        let _ = warnings(&policy);
    }

    #[test]
    fn whatever_the_policy_a_higher_lot_is_never_earlier(policy in any_policy(), lots in (0.0_f64..1.0, 0.0_f64..1.0)) {
        let (low, high) = (lots.0.min(lots.1), lots.0.max(lots.1));
        let with = |lot| Policy { lot: Lot::Fixed(lot), ..policy.clone() };
        let next = |policy: &Policy| match settled(sent(), &soft(), start(), policy).intent.stage() {
            Stage::Scheduled { at, .. } => Some(*at),
            _ => None,
        };
        match (next(&with(low)), next(&with(high))) {
            (Some(low), Some(high)) => prop_assert!(low <= high),
            (None, Some(high)) => prop_assert!(false, "only the higher lot is in time: {high}"),
            _ => {}
        }
    }
}
