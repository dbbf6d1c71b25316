//! Asking the buyer again to update the instrument, while a charge is parked for that.

use jiff::Timestamp;

use super::decide::Context;
use super::draft::Draft;
use super::policy::{Policy, later};
use crate::model::charge_intent::{ChargeIntent, Park, Stage};
use crate::model::ids::Region;
use crate::model::permission::Look;

/// When reminder `index` (from 0) of the park is due: its time, or the end of the quiet hours that it falls into, because it reaches
/// the buyer by the merchant's mail. `None` if there is none before the park ends.
fn at(intent: &ChargeIntent, policy: &Policy, index: u32) -> Option<Timestamp> {
    let Stage::Parked { since, park: Park::Instrument { .. } } = intent.stage() else { return None };
    let planned = later(*since, *policy.reminders.get(usize::try_from(index).ok()?)?);
    let quiet = policy.quiet.as_ref().and_then(|quiet| quiet.end_after(planned));
    Some(quiet.unwrap_or(planned)).filter(|at| *at < policy.attempts_end(intent))
}

/// When the next reminder is due. The look before it is planned for then.
#[must_use]
pub fn next_at(intent: &ChargeIntent, policy: &Policy) -> Option<Timestamp> {
    let at = at(intent, policy, intent.progress.reminders_sent)?;
    Some(intent.progress.remind_after.map_or(at, |after| after.max(at)))
}

/// All reminders of the park, as `policy explain` shows them.
pub(super) fn of_park(intent: &ChargeIntent, policy: &Policy) -> Vec<(u32, Timestamp)> {
    (0..).map_while(|index| Some((index + 1, at(intent, policy, index)?))).collect()
}

/// Reminds, if it is time and a look has just shown that the instrument is not mended. Of several that are due, after an outage or
/// with the first start of a version that reminds, only the last one is told.
pub(super) fn remind(draft: &mut Draft, context: &Context<'_>) {
    let (now, policy) = (context.now, context.policy_of(draft));
    let due = of_park(&draft.intent, policy).into_iter().take_while(|(_, at)| *at <= now).map(|(number, _)| number);
    let Some(number) = due.last().filter(|number| *number > draft.intent.progress.reminders_sent) else { return };
    // What is late, because something was down, waits for the end of the quiet hours too.
    let quiet_until = policy.quiet.as_ref().and_then(|quiet| quiet.end_after(now));
    match (context.look, quiet_until) {
        (Look::Failed | Look::AccountFault | Look::Refused | Look::NotAsked, _) => return,
        (Look::Seen(_), None) => draft.ask_the_buyer(policy, Some(number)),
        (Look::Seen(_), Some(until)) if until < policy.attempts_end(&draft.intent) => {
            draft.intent.progress.remind_after = Some(until);
            return;
        }
        // Too late for it; or Amazon does not know the permission, and its link would lead nowhere.
        (Look::Seen(_) | Look::NotFound, _) => {}
    }
    draft.intent.progress.reminders_sent = number;
}

/// Whether the link to which the buyer is sent is documented for the region: for the European one Amazon documents none.
#[must_use]
pub fn link_warning(region: Region, policy: &Policy) -> Option<&'static str> {
    let stands_in = policy.update_url == Policy::for_region(region).update_url;
    (region == Region::Eu && stands_in).then_some(
        "Amazon documents no page for this region where the buyer updates the payment method: the one of the guides stands in. Try it, or set UPDATE_PAYMENT_METHOD_URL",
    )
}
