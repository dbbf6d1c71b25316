//! What a decision is made from, and what it comes to: plain values.

use jiff::Timestamp;

use super::draft::Draft;
use crate::model::charge::ChargeLook;
use crate::model::charge_intent::ChargeIntent;
use crate::model::closing::CloseWish;
use crate::model::event::Event;
use crate::model::hint::{Hint, HintNote};
use crate::model::ids::{ChargeId, ChargePermissionId, DisputeId, RefundId};
use crate::model::permission::{Look, PermissionRecord};

/// Everything that is stored about a charge permission, as one claim reads it.
#[derive(Debug, Clone)]
pub struct Case {
    /// The permission.
    pub permission: ChargePermissionId,
    /// Whether a Closed state was ever seen.
    pub closed: bool,
    /// What the last looks showed.
    pub record: PermissionRecord,
    /// What notifications named.
    pub hints: Vec<Hint>,
    /// The open intents, oldest first; after gathering also ended ones that a charge names.
    pub intents: Vec<ChargeIntent>,
    /// The caller's wish that the permission be closed.
    pub close: Option<CloseWish>,
    /// Whether somebody asked for a look. That says nothing about what changed.
    pub look_asked: bool,
}

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Get Charge Permission.
    pub permission: bool,
    /// Get Charge, for each of these.
    pub charges: Vec<ChargeId>,
    /// Get Refund, for each of these.
    pub refunds: Vec<RefundId>,
    /// Get Dispute, for each of these.
    pub disputes: Vec<DisputeId>,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The permission.
    pub look: Look,
    /// The charges.
    pub charges: Vec<(ChargeId, ChargeLook)>,
    /// Whether a send may follow: off once one was made.
    pub may_act: bool,
}

impl Findings {
    /// Whether a look met the account's fault.
    #[must_use]
    pub fn blame_the_account(&self) -> bool {
        self.look == Look::AccountFault || self.charges.iter().any(|(_, look)| *look == ChargeLook::AccountFault)
    }
}

/// The one thing to do at Amazon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// Create Charge for the intent at this index of [`Decision::drafts`], under its current number.
    Send(usize),
    /// Capture Charge for the intent at this index, under its current capture number.
    Capture(usize),
    /// Cancel the authorisation of the intent at this index.
    CancelCharge(usize, ChargeId),
    /// Close the permission, as [`Case::close`] says.
    ClosePermission,
}

/// What becomes of a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HintFate {
    /// Dealt with.
    Done,
    /// Stays as it is, for the next reconciliation.
    Keep,
    /// Looked at again later.
    Defer(HintNote),
    /// Kept aside, with the reason.
    Quarantine(String),
}

/// What happens next.
#[derive(Debug, Clone)]
#[must_use = "a decision that is dropped is work that is lost"]
pub struct Decision {
    /// The intents as they become, with their events.
    pub drafts: Vec<Draft>,
    /// The record as it becomes.
    pub record: PermissionRecord,
    /// Whether Closed was seen by now.
    pub closed: bool,
    /// Events about the permission itself, and alerts.
    pub events: Vec<Event>,
    /// One fate for each hint of the case, in order.
    pub hints: Vec<HintFate>,
    /// What to do at Amazon.
    pub act: Act,
    /// Nothing is to be tried before this time, because Amazon did not answer a look; wakes ignore it.
    pub not_before: Option<Timestamp>,
    /// The stop switch kept a send from being marked: it is due, and tried as soon as the switch is lifted.
    pub held_back: bool,
}
