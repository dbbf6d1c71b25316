//! What came of charges, for the figures: captured at once, recovered, lost, canceled. A pure reading of the events of one charge.

use serde::Deserialize;

use crate::model::charge_intent::{ChargeIntent, Trigger};
use crate::model::event::{Event, EventType};
use crate::model::money::Money;

/// How a charge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Captured, and nothing was ever declined or refused.
    AtOnce,
    /// Captured after a decline or a refusal.
    Recovered,
    /// Given up.
    Lost,
    /// Canceled by the caller.
    Canceled,
}

impl End {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AtOnce, Self::Recovered, Self::Lost, Self::Canceled];

    /// The word for it in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtOnce => "at_once",
            Self::Recovered => "recovered",
            Self::Lost => "lost",
            Self::Canceled => "canceled",
        }
    }
}

/// The end of a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub end: End,
    /// The last reason why it was declined or refused; `none` if it never was, `other` for one without a name here.
    pub reason: &'static str,
    /// What was captured.
    pub money: Option<Money>,
}

/// Reasons that are told apart. A code is text from outside, and each label value is kept for ever: the others are one.
const REASONS: [&str; 11] = [
    "SoftDeclined",
    "HardDeclined",
    "TransactionTimedOut",
    "ProcessingFailure",
    "AmazonRejected",
    "PeriodicAmountExceeded",
    "InvalidChargePermissionStatus",
    "PaymentMethodNotAllowed",
    "MFANotCompleted",
    "TransactionAmountExceeded",
    "TransactionCountExceeded",
];

/// Every value of [`Ended::reason`].
pub fn reasons() -> impl Iterator<Item = &'static str> {
    REASONS.into_iter().chain(["none", "other"])
}

/// Whether a captured charge came back after a decline or a refusal. A refusal is no attempt that counts: what waited for the next month
/// is recovered at its first. What an operator asked for may be the first try of all.
#[must_use]
pub fn is_recovered(attempts: u64, by: Trigger) -> bool {
    attempts > 1 || matches!(by, Trigger::Schedule | Trigger::NewMonth | Trigger::InstrumentUpdate)
}

/// The ends that the events of a charge tell of: none as a rule, and two where a success comes after the charge was given up.
#[must_use]
pub fn ends(intent: &ChargeIntent, events: &[Event]) -> Vec<Ended> {
    events.iter().filter_map(|event| end(intent, event)).collect()
}

fn end(intent: &ChargeIntent, event: &Event) -> Option<Ended> {
    let reason = match intent.progress.last_reason.as_deref() {
        None => "none",
        Some(last) => REASONS.into_iter().find(|reason| *reason == last).unwrap_or("other"),
    };
    let is = |kind: EventType| event.kind == kind.as_str();
    if is(EventType::ChargeCaptured) {
        let told: Captured = serde_json::from_str(&event.data).ok()?;
        let money = told.capture_amount.or(told.charge_amount);
        return Some(if is_recovered(told.attempts, told.recovered_by) {
            Ended { end: End::Recovered, reason, money }
        } else {
            Ended { end: End::AtOnce, reason: "none", money }
        });
    }
    let end = if is(EventType::ChargeAbandoned) {
        End::Lost
    } else if is(EventType::ChargeCanceled) {
        End::Canceled
    } else {
        return None;
    };
    Some(Ended { end, reason, money: None })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Captured {
    attempts: u64,
    recovered_by: Trigger,
    capture_amount: Option<Money>,
    charge_amount: Option<Money>,
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::charge_intent::Outcome;
    use crate::recovery::draft::Draft;
    use crate::recovery::draft::testing::intent;

    fn told(change: impl FnOnce(&mut Draft)) -> Vec<(&'static str, &'static str, Option<String>)> {
        let mut draft = Draft::new(intent());
        change(&mut draft);
        let ends = ends(&draft.intent, &draft.events);
        ends.into_iter().map(|end| (end.end.as_str(), end.reason, end.money.map(|money| money.to_string()))).collect()
    }

    fn capture(draft: &mut Draft) {
        let charge = "S01-1234567-1234567-C000001".parse().unwrap();
        draft.capture(&charge, None, 0, Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn a_charge_that_is_captured_at_its_first_attempt_was_not_recovered() {
        assert_eq!(told(capture), [("at_once", "none", Some("14.00 USD".to_owned()))]);
    }

    #[test]
    fn a_charge_that_was_declined_is_recovered_under_its_last_reason() {
        let told = told(|draft| {
            draft.intent.progress.attempts = 2;
            draft.intent.progress.last_reason = Some("SoftDeclined".to_owned());
            capture(draft);
        });
        assert_eq!(told, [("recovered", "SoftDeclined", Some("14.00 USD".to_owned()))]);
    }

    #[test]
    fn what_amazon_captured_counts_and_not_what_was_asked_for() {
        let told = told(|draft| {
            draft.intent.progress.trigger = Trigger::InstrumentUpdate;
            let charge = "S01-1234567-1234567-C000001".parse().unwrap();
            draft.capture(&charge, Money::parse("9.00", "USD".parse().unwrap()).ok(), 0, Timestamp::UNIX_EPOCH);
        });
        assert_eq!(told, [("recovered", "none", Some("9.00 USD".to_owned()))]);
    }

    #[test]
    fn a_reason_of_which_nobody_heard_is_other_and_a_charge_given_up_is_lost() {
        let lost = told(|draft| {
            draft.intent.progress.last_reason = Some("SomethingNew".to_owned());
            draft.abandon(Timestamp::UNIX_EPOCH, "window_ended", Outcome::Verified);
        });
        assert_eq!(lost, [("lost", "other", None)]);
        let canceled = told(|draft| draft.cancel(Timestamp::UNIX_EPOCH, Outcome::Verified));
        assert_eq!(canceled, [("canceled", "none", None)]);
    }

    #[test]
    fn a_success_after_the_end_is_an_end_of_its_own() {
        let told = told(|draft| {
            draft.abandon(Timestamp::UNIX_EPOCH, "window_ended", Outcome::Unverified);
            draft.intent.progress.attempts = 2;
            capture(draft);
        });
        assert_eq!(told.iter().map(|end| end.0).collect::<Vec<_>>(), ["lost", "recovered"]);
    }
}
