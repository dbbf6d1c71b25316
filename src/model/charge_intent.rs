//! A charge intent: something a caller wants charged exactly once, and how far it has come.
//!
//! A *number* (0, 1, 2 ...) names one idempotency key of the intent. The send protocol of `docs/ARCHITECTURE.md` rests on three facts
//! kept here: whether the number was ever marked, when it was marked last, and whether that send was tainted.

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::capture::{CaptureIntent, CapturePlan};
use super::charge_request::ChargeRequest;
use super::ids::{ChargeId, IntentId, PolicyName};
use super::permission::InstrumentDigest;

/// Why an intent is held after a loss of data.
pub const RECOVERY: &str = "recovery";

/// What is known about the current number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NumberStatus {
    /// Never marked: nothing can have been sent under its key.
    Fresh,
    /// Marked, and not resolved by an answer: a charge may or may not exist under its key.
    Unknown,
    /// An answer named a charge under its key; that charge's state says the rest.
    Answered,
}

impl NumberStatus {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Unknown => "unknown",
            Self::Answered => "answered",
        }
    }

    /// Reads what is stored.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Fresh, Self::Unknown, Self::Answered].into_iter().find(|status| status.as_str() == text)
    }
}

/// The current number of an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    /// 0, 1, 2 ...
    pub value: u32,
    /// What is known about it.
    pub status: NumberStatus,
    /// Sends marked under it.
    pub sends: u32,
    /// Its first mark, by Redis time.
    pub first_mark: Option<Timestamp>,
    /// Its last mark, by Redis time.
    pub last_mark: Option<Timestamp>,
    /// Whether the last send was marked while an earlier copy could still be accepted by Amazon.
    pub tainted: bool,
    /// The instrument seen by the Get Charge Permission that allowed its first send.
    pub instrument: Option<InstrumentDigest>,
}

impl Number {
    /// A number that was never marked.
    #[must_use]
    pub fn fresh(value: u32) -> Self {
        Self {
            value,
            status: NumberStatus::Fresh,
            sends: 0,
            first_mark: None,
            last_mark: None,
            tainted: false,
            instrument: None,
        }
    }

    /// The number that follows once this one is resolved.
    #[must_use]
    pub fn next(&self) -> Self {
        Self::fresh(self.value.saturating_add(1))
    }
}

/// Whether the end of an intent is certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// No number was unknown when the intent ended.
    Verified,
    /// A number was still unknown: one `captured` may follow.
    Unverified,
}

/// What brought about the current attempt; `charge.captured` tells it as `recoveredBy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The submission itself.
    Submit,
    /// The retry schedule of the policy.
    Schedule,
    /// The buyer updated the payment instrument.
    InstrumentUpdate,
    /// The monthly limit began anew.
    NewMonth,
    /// A person asked.
    Operator,
}

/// Why something is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A new number.
    Attempt,
    /// The same number again, because nobody knows what the last send did.
    Repeat,
    /// The same number once more, because its decline came while an earlier copy could still be accepted.
    Confirmation,
    /// The same number a last time, because the permission is closed.
    Closing,
}

/// What a parked intent waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum Park {
    /// The buyer must update the instrument.
    #[serde(rename_all = "camelCase")]
    Instrument {
        /// The instrument that was declined, or that was there when the permission stopped being chargeable.
        baseline: Option<InstrumentDigest>,
        /// Whether the permission was seen `NonChargeable` (for another reason than a running charge) since.
        non_chargeable_seen: bool,
        /// One more look, because a notification came so early that it may be the echo of our own decline.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        echo_look_at: Option<Timestamp>,
    },
    /// A person must look: something we do not understand.
    Attention,
}

/// Where an intent stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Stage {
    /// The next send happens at `at` (Redis permitting, Amazon permitting).
    Scheduled {
        /// Not before.
        at: Timestamp,
        /// New number or the same again.
        why: Why,
    },
    /// Waits for somebody.
    Parked {
        /// Since when.
        since: Timestamp,
        /// For whom.
        #[serde(flatten)]
        park: Park,
    },
    /// A charge exists and Amazon is still deciding.
    Pending {
        /// The charge.
        charge: ChargeId,
        /// Since when.
        since: Timestamp,
        /// Whether the 24-hour alert was given.
        alerted: bool,
    },
    /// Authorised; waits for its capture.
    Authorized {
        /// The charge.
        charge: ChargeId,
        /// When the authorisation lapses.
        expires_at: Option<Timestamp>,
    },
    /// Stopped until an operator resolves it.
    Held {
        /// Why.
        reason: String,
    },
    /// Terminal: the money is ours.
    Captured {
        /// The charge.
        charge: ChargeId,
        /// When we learned it.
        at: Timestamp,
    },
    /// Terminal: the caller canceled.
    Canceled {
        /// When.
        at: Timestamp,
        /// Whether that is certain.
        outcome: Outcome,
    },
    /// Terminal: given up.
    Abandoned {
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
        /// Whether that is certain.
        outcome: Outcome,
    },
}

impl Stage {
    /// The names of all states.
    pub const NAMES: [&'static str; 8] =
        ["scheduled", "parked", "pending", "authorized", "held", "captured", "canceled", "abandoned"];

    /// The name of the state, as stored, shown and filtered by.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Scheduled { .. } => "scheduled",
            Self::Parked { .. } => "parked",
            Self::Pending { .. } => "pending",
            Self::Authorized { .. } => "authorized",
            Self::Held { .. } => "held",
            Self::Captured { .. } => "captured",
            Self::Canceled { .. } => "canceled",
            Self::Abandoned { .. } => "abandoned",
        }
    }

    /// Whether the intent has ended.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Captured { .. } | Self::Canceled { .. } | Self::Abandoned { .. })
    }

    /// Whether the end is certain; `None` before the end.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Captured { .. } => Some(Outcome::Verified),
            Self::Canceled { outcome, .. } | Self::Abandoned { outcome, .. } => Some(*outcome),
            _ => None,
        }
    }
}

/// The part of an intent that only the holder of the permission's lease writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub struct Progress {
    /// Where it stands.
    pub stage: Stage,
    /// Attempts that count toward the policy's maximum.
    #[serde(default)]
    pub attempts: u32,
    /// When the window of the policy began: the later of submission and `notBefore`.
    pub window_from: Timestamp,
    /// How long the window has stood still (month parks, stop switch, account faults), in milliseconds.
    #[serde(default)]
    pub stood_still_ms: i64,
    /// What brought about the current attempt.
    pub trigger: Trigger,
    /// The last reason code or reason in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reason: Option<String>,
    /// The charge that an answer named, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<ChargeId>,
    /// A charge seen `Declined` whose decline is being confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declined_charge: Option<ChargeId>,
    /// Month parks so far.
    #[serde(default)]
    pub month_parks: u32,
    /// The month park that is going on, or was last: for what stood still besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month_park: Option<MonthWait>,
    /// The turn of the month that the last month park waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month_turn: Option<Timestamp>,
    /// `InvalidChargePermissionStatus` answers in a row although the permission looked chargeable.
    #[serde(default)]
    pub conflicts: u32,
    /// When a bare notification last released this intent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_by_notification_at: Option<Timestamp>,
    /// When the permission was found closed while the number was unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing_since: Option<Timestamp>,
    /// When a cancellation at Amazon that failed is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_retry_at: Option<Timestamp>,
    /// When the permission, or the pending charge, is to be looked at even if nothing happens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_at: Option<Timestamp>,
    /// Whether it was told that the policy of the intent is no longer in the file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub policy_missed: bool,
    /// When the charge was seen authorised first; `None` where it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorized_at: Option<Timestamp>,
    /// Whether `charge.expiring` was told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expiring_told: bool,
    /// When the capture is sent next; `None` as long as nothing came of the wish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_plan: Option<CapturePlan>,
    /// Reminders that the buyer was due since the park began.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reminders_sent: u32,
    /// No reminder before this time: it was late, and it was quiet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remind_after: Option<Timestamp>,
    /// No new number before this time: until then a request that the caller made before he handed the charge over may still be
    /// accepted by Amazon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest_send: Option<Timestamp>,
    /// Parked at the hand-over: the first look at the permission only says which instrument was declined.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_baseline: bool,
    /// Whether a `ProcessingFailure` was answered under the current number: the next one is its confirmation. How often the number was
    /// marked does not say that, for a mark is no send.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failure_answered: bool,
}

/// A wait for the next month. The window stands still for all of it; a stop or a pause within it must not count a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MonthWait {
    /// Since when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// `stopped_ms` of the intent when it began.
    pub stopped_ms: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Progress {
    /// The progress of a new intent.
    #[must_use]
    pub fn new(stage: Stage, window_from: Timestamp) -> Self {
        Self {
            stage,
            attempts: 0,
            window_from,
            stood_still_ms: 0,
            trigger: Trigger::Submit,
            last_reason: None,
            charge: None,
            declined_charge: None,
            month_parks: 0,
            month_park: None,
            month_turn: None,
            conflicts: 0,
            released_by_notification_at: None,
            closing_since: None,
            cancel_retry_at: None,
            look_at: None,
            policy_missed: false,
            authorized_at: None,
            expiring_told: false,
            capture_plan: None,
            reminders_sent: 0,
            remind_after: None,
            earliest_send: None,
            awaits_baseline: false,
            failure_answered: false,
        }
    }

    /// Lets the window stand still for a while: nothing is abandoned because we could not ask.
    pub fn stand_still(&mut self, span: Duration) {
        let ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        self.stood_still_ms = self.stood_still_ms.saturating_add(ms);
    }
}

/// What people asked for that a reconciliation reads and others write, lease or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Since when the charge itself is paused.
    pub paused_since: Option<Timestamp>,
    /// Since when its charge permission is paused.
    pub permission_paused_since: Option<Timestamp>,
    /// "Try it now."
    pub retry: Option<RetryWish>,
    /// When an operator said what became of it.
    pub resolved_at: Option<Timestamp>,
}

/// "Try it now": stays until a commit says that exactly this one was seen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryWish {
    /// The wake number of the wish: another wish has another.
    pub wish: u64,
    /// Whether the plan follows it already.
    pub done: bool,
}

/// A charge intent as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct ChargeIntent {
    /// The caller's id.
    pub id: IntentId,
    /// What is to be charged; never changes.
    pub request: ChargeRequest,
    /// The recovery policy it was submitted with; never changes. `None` is the default one.
    pub policy: Option<PolicyName>,
    /// When it was submitted, by Redis time.
    pub submitted_at: Timestamp,
    /// The current number.
    pub number: Number,
    /// When the caller asked to cancel.
    pub cancel_requested_at: Option<Timestamp>,
    /// What is to be captured of its authorisation, and how far that is; `None` as long as nobody asked.
    pub capture: Option<CaptureIntent>,
    /// How long the stop switch was on, or the charge or its permission paused, since the submission, in milliseconds; what overlaps
    /// counts once. Read with the intent, not part of it.
    pub stopped_ms: i64,
    /// What people asked for; read with the intent.
    pub wishes: Wishes,
    /// Everything else.
    pub progress: Progress,
}

impl ChargeIntent {
    /// Where it stands.
    #[must_use]
    pub fn stage(&self) -> &Stage {
        &self.progress.stage
    }

    /// Whether money may still be taken for the intent: until it has ended, and after an end that is not certain.
    #[must_use]
    pub fn may_still_charge(&self) -> bool {
        self.stage().outcome() != Some(Outcome::Verified)
    }

    /// Whether nothing may be sent for it: it, or its permission, is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.wishes.paused_since.is_some() || self.wishes.permission_paused_since.is_some()
    }

    /// Attempts that count: numbers that were declined in a way that counts, and the one that was captured. What events and the API show.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        let captured = matches!(self.stage(), Stage::Captured { .. });
        self.progress.attempts.saturating_add(u32::from(captured))
    }

    /// Why it is where it is: what the end or the hold gives as its reason, else the last reason heard. None where that reason is
    /// history: what is captured, canceled or under way at Amazon must not look declined.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self.stage() {
            Stage::Abandoned { reason, .. } | Stage::Held { reason } => Some(reason),
            Stage::Scheduled { .. } | Stage::Parked { .. } => self.progress.last_reason.as_deref(),
            Stage::Authorized { .. } => self.progress.last_reason.as_deref().filter(|_| self.was_capture_sent()),
            Stage::Pending { .. } | Stage::Captured { .. } | Stage::Canceled { .. } => None,
        }
    }

    /// The last reason heard, where it is not why the charge is where it is.
    #[must_use]
    pub fn earlier_reason(&self) -> Option<&str> {
        self.progress.last_reason.as_deref().filter(|_| self.reason().is_none())
    }

    /// Whether a capture of its authorisation was ever sent: then the last reason is what came of that.
    fn was_capture_sent(&self) -> bool {
        self.capture.as_ref().is_some_and(|capture| capture.number.value > 0 || capture.number.sends > 0)
    }

    /// Whether the next send would repeat a number that was marked before.
    #[must_use]
    pub fn next_send_repeats(&self) -> bool {
        self.number.status != NumberStatus::Fresh
    }
}
