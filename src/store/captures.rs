//! Captures of an authorisation: the caller's wish, and the mark of its send.

use serde_json::{Value, json};

use super::reconciliations::{Claim, Marked};
use super::record::{read_time, time_text, wish_text};
use super::script::{MARK_CAPTURE, REQUEST_CAPTURE};
use super::{Store, StoreError, millis};
use crate::model::capture::{CaptureIntent, CaptureWish};
use crate::model::charge_intent::{ChargeIntent, Number, NumberStatus};
use crate::model::event::{Event, EventType};
use crate::model::ids::ChargeId;

/// What became of the wish to capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaptureRequested {
    /// Accepted now.
    Accepted,
    /// The same was accepted before; it may be done, or have ended in another way, by now.
    Same,
    /// Another capture was accepted before. The state of the charge.
    Conflict(String),
    /// There is no authorisation to capture. The state of the charge.
    NotAuthorized(String),
    /// A cancellation was accepted before.
    Canceling,
    /// There is no such charge.
    Unknown,
}

/// A capture about to be sent.
#[derive(Debug)]
pub struct CaptureSend<'a> {
    /// The intent as the worker decided about it.
    pub intent: &'a ChargeIntent,
    /// The charge that is captured.
    pub charge: &'a ChargeId,
    /// What is captured.
    pub wish: &'a CaptureWish,
    /// The number, as the worker knows it.
    pub number: &'a Number,
    /// What must be left of the lease: the call's time-out and a margin.
    pub needed: std::time::Duration,
}

impl Store {
    /// Accepts the wish to capture the authorisation of an intent. `intent` is as read just before; what never changes of it counts.
    ///
    /// # Errors
    /// When it is not certain that it was stored; the same again is safe.
    pub async fn request_capture(
        &self,
        intent: &ChargeIntent,
        wish: &CaptureWish,
    ) -> Result<CaptureRequested, StoreError> {
        let inner = &self.0;
        let permission = &intent.request.charge_permission_id;
        let capture = CaptureIntent {
            wish: Some(wish.clone()),
            requested_at: None,
            number: intent.capture.as_ref().map_or_else(|| Number::fresh(0), |capture| capture.number.clone()),
            cleared: None,
        };
        let intent = ChargeIntent { capture: Some(capture), ..intent.clone() };
        let extra = json!({ "at": inner.clock.now(), "why": "attempt" });
        let event = Event::of_capture(EventType::ChargeScheduled, &intent, extra);
        let keys = [
            inner.keys.marker(),
            inner.keys.intent(&intent.id),
            inner.keys.permission(permission),
            inner.keys.open(permission),
            inner.keys.schedule(),
            inner.keys.events(),
        ];
        let args = [
            &inner.source,
            &self.now_text(),
            permission.as_str(),
            intent.id.as_str(),
            &wish_text(wish),
            &inner.settings.bounds.events.to_string(),
            event.kind,
            &event.data,
        ];
        let mut reply = self.run(&REQUEST_CAPTURE, &keys, &args).await?;
        match reply.outcome() {
            "accepted" => {
                self.nudge();
                Ok(CaptureRequested::Accepted)
            }
            "same" => Ok(CaptureRequested::Same),
            "conflict" => Ok(CaptureRequested::Conflict(reply.take(1)?)),
            "not_authorized" => Ok(CaptureRequested::NotAuthorized(reply.take(1)?)),
            "canceling" => Ok(CaptureRequested::Canceling),
            "unknown" => Ok(CaptureRequested::Unknown),
            "full" => Err(StoreError::Full("the event stream")),
            _ => Err(reply.unexpected()),
        }
    }

    /// Marks the send of a capture. Only after [`Marked::Yes`] may the request, signed before, go out; once.
    ///
    /// # Errors
    /// When it is not certain that the mark was written: then nothing may be sent. The number counts as unknown.
    pub async fn mark_capture(&self, claim: &Claim, send: &CaptureSend<'_>) -> Result<Marked, StoreError> {
        let inner = &self.0;
        let (intent, number) = (send.intent, send.number);
        let kind = if number.status == NumberStatus::Fresh { "new" } else { "repeat" };
        let extra = json!({ "repeat": kind == "repeat", "chargeId": send.charge });
        let event = Event::of_capture(EventType::ChargeAttempted, intent, extra);
        let keys = [
            inner.keys.marker(),
            inner.keys.permission(&claim.permission),
            inner.keys.intent(&intent.id),
            inner.keys.events(),
            inner.keys.open(&claim.permission),
        ];
        let args = [
            &inner.source,
            &self.now_text(),
            claim.permission.as_str(),
            &claim.token,
            &number.value.to_string(),
            kind,
            send.charge.as_str(),
            &millis(send.needed).to_string(),
            &millis(inner.settings.confirmation_delay).to_string(),
            &inner.settings.bounds.events.to_string(),
            &wish_text(send.wish),
            event.kind,
            &event.data,
            intent.id.as_str(),
        ];
        let mut reply = self.run(&MARK_CAPTURE, &keys, &args).await?;
        match reply.outcome() {
            "marked" => {
                let (tainted, at): (String, String) = (reply.take(1)?, reply.take(2)?);
                let (sends, first): (String, String) = (reply.take(3)?, reply.take(4)?);
                Ok(Marked::Yes(Number {
                    value: number.value,
                    status: NumberStatus::Unknown,
                    sends: sends.parse().map_err(|_| reply.unexpected())?,
                    first_mark: read_time(&first),
                    last_mark: read_time(&at),
                    tainted: tainted == "1",
                    instrument: None,
                }))
            }
            "stopped" => Ok(Marked::Stopped),
            "refused" => Ok(Marked::Refused(reply.take(1)?)),
            "full" => Ok(Marked::EventsFull),
            "lost_lease" => Ok(Marked::LostLease),
            _ => Err(reply.unexpected()),
        }
    }
}

/// What a commit writes of captures: the number, which is the worker's, and the wish that it gave up. Never a wish, which is the
/// caller's.
pub(super) fn capture_change(capture: &CaptureIntent) -> Value {
    let number = &capture.number;
    json!({
        "value": number.value.to_string(),
        "status": number.status.as_str(),
        "sends": number.sends.to_string(),
        "first_mark": time_text(number.first_mark),
        "last_mark": time_text(number.last_mark),
        "tainted": if number.tainted { "1" } else { "0" },
        "clear": capture.cleared.as_ref().map(wish_text).unwrap_or_default(),
    })
}
