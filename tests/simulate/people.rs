//! What the outside world does by itself: the merchant's systems, operators, buyers and Amazon.

use std::time::Duration;

use amazon_pay_ipn::sandbox::{
    ChargeState, DeclineCode, DisputeSpec, Operation, Outcome, PermissionKind, PermissionSpec, PermissionState,
};
use jiff::Timestamp;
use reqwest::Method;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::evidence::{Span, Submission};
use crate::world::{Wanted, World};

/// The merchant's systems.
impl World {
    pub fn new_permission(&mut self) {
        let kind = *self.dice.pick(&[PermissionKind::Recurring, PermissionKind::PaymentMethodOnFile]);
        let mut spec = PermissionSpec::new(kind, "USD");
        if self.dice.percent(15) {
            let limit = self.dice.between(20, 60);
            spec = spec.with_monthly_limit(Decimal::from(limit));
        }
        let id = self.sandbox.create_permission(spec);
        for _ in 0..self.dice.below(4) {
            let outcome = self.outcome_of_charge();
            self.say(format!("  {id}: an attempt comes to {outcome:?}"));
            self.sandbox.script_charge(&id, outcome).expect("a permission");
        }
        self.say(format!("permission {id}"));
        self.permissions.push(id);
    }

    pub fn outcome_of_charge(&mut self) -> Outcome {
        let decline = self.dice.weighted(&[
            (8, DeclineCode::SoftDeclined),
            (4, DeclineCode::HardDeclined),
            (3, DeclineCode::ProcessingFailure),
            (2, DeclineCode::TransactionTimedOut),
            (1, DeclineCode::AmazonRejected),
            (1, DeclineCode::PaymentMethodNotAllowed),
            (1, DeclineCode::TransactionCountExceeded),
        ]);
        match self.dice.below(20) {
            0..=10 => Outcome::Decline(decline),
            11..=12 => Outcome::DeclineStayingChargeable(decline),
            13 => Outcome::Pend,
            14 => Outcome::PendCapture,
            15 => Outcome::PendThen(Some(decline)),
            16 => Outcome::PendCaptureThen(None),
            17 => Outcome::Answer(422, "InvalidChargePermissionStatus".to_owned()),
            18 => Outcome::Answer(400, "PeriodicAmountExceeded".to_owned()),
            _ => Outcome::Answer(500, "InternalServerError".to_owned()),
        }
    }

    pub async fn want(&mut self) {
        if self.permissions.is_empty() || (self.permissions.len() < 3 && self.dice.percent(25)) {
            self.new_permission();
        }
        let nth = self.dice.below(self.permissions.len());
        self.want_on(nth).await;
    }

    async fn want_on(&mut self, nth: usize) {
        let permission = self.permissions[nth].clone();
        let id = format!("s{}-{}", self.profile.seed, self.wanted.len());
        let capture_now = self.dice.percent(70);
        let amount = self.dice.between(5, 30);
        let mut body = json!({
            "id": id, "chargePermissionId": permission, "captureNow": capture_now,
            "chargeAmount": { "amount": format!("{amount}.00"), "currencyCode": "USD" },
        });
        if self.dice.percent(30) {
            body["canHandlePendingAuthorization"] = json!(!capture_now);
        }
        if self.dice.percent(10) {
            let at = self.clock.now().checked_add(Duration::from_hours(self.dice.between(1, 72))).expect("a time");
            body["notBefore"] = json!(at);
        }
        let mut attempts_before = 0;
        if self.dice.percent(8) {
            let reason = *self.dice.pick(&["SoftDeclined", "HardDeclined", "ProcessingFailure"]);
            let at = self.clock.now().checked_sub(Duration::from_mins(self.dice.between(1, 600))).expect("a time");
            attempts_before = 1;
            body["declined"] = json!({ "reasonCode": reason, "at": at, "attempts": attempts_before });
        }
        self.wanted.push(Wanted { id, permission, body, attempts_before, accepted: false });
        self.submit(self.wanted.len() - 1).await;
    }

    /// Submits, for the first time or again.
    pub async fn submit(&mut self, nth: usize) {
        let wanted = self.wanted[nth].clone();
        let answer = self.api(Method::POST, "/v1/charges", Some(&wanted.body)).await;
        self.say(format!("submit {}: {} {}", wanted.id, answer.status, wanted.body));
        // A first submission whose answer was lost may have been accepted: then this one is answered 200.
        if matches!(answer.status, 200 | 202) {
            self.wanted[nth].accepted = true;
            let submission = Submission { permission: wanted.permission, attempts_before: wanted.attempts_before };
            self.deeds.submissions.entry(wanted.id).or_insert(submission);
        }
    }

    pub async fn submit_again(&mut self) {
        for nth in 0..self.wanted.len() {
            if !self.wanted[nth].accepted {
                self.submit(nth).await;
            }
        }
    }

    /// Something becomes due, so that a worker has something to stand at.
    pub async fn make_due(&mut self) {
        if self.stopped && self.dice.percent(80) {
            self.lift_stop().await;
        }
        let Some(id) = self.any_charge() else { return self.want().await };
        match self.dice.below(12) {
            0..=4 => {
                if self.dice.percent(if self.permissions.len() < 4 { 70 } else { 25 }) {
                    self.new_permission();
                }
                self.want_on(self.permissions.len() - 1).await;
            }
            10..=11 => self.want().await,
            5..=6 => self.post(&format!("/v1/charges/{id}/retry"), None).await,
            7 => self.all_update_cards(),
            _ => {
                let answer = self.api(Method::GET, &format!("/v1/charges/{id}"), None).await;
                let next = answer.body["nextAttemptAt"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
                let wait = next.and_then(|next| Duration::try_from(next.duration_since(self.clock.now())).ok());
                if let Some(wait) = wait.filter(|wait| *wait < 16 * crate::world::DAY) {
                    self.say(format!("the next attempt of {id} comes"));
                    self.pass(wait + Duration::from_millis(5)).await;
                }
            }
        }
    }

    fn any_charge(&mut self) -> Option<String> {
        let known: Vec<_> =
            self.wanted.iter().filter(|wanted| wanted.accepted).map(|wanted| wanted.id.clone()).collect();
        if known.is_empty() { None } else { Some(self.dice.pick(&known).clone()) }
    }

    /// One of the things that the merchant or an operator can ask for.
    pub async fn ask(&mut self) {
        if let Some(id) = self.any_charge() {
            self.ask_about(id).await;
        }
    }

    /// The same of a charge of a permission; the newest are the likeliest to be under way.
    pub async fn ask_about_one_of(&mut self, permission: &str) {
        let accepted = self.wanted.iter().filter(|wanted| wanted.accepted && wanted.permission == permission);
        let newest: Vec<_> = accepted.rev().take(2).map(|wanted| wanted.id.clone()).collect();
        if !newest.is_empty() {
            let id = self.dice.pick(&newest).clone();
            match self.dice.below(10) {
                0..=2 => self.cancel(&id).await,
                3..=4 => self.close(permission).await,
                5 => self.pause(&id, "charges").await,
                6 => self.pause(permission, "charge-permissions").await,
                7 if !self.stopped => self.throw_stop().await,
                _ => self.ask_about(id).await,
            }
        }
    }

    async fn ask_about(&mut self, id: String) {
        let permission = self.deeds.submissions[&id].permission.clone();
        match self.dice.below(20) {
            0..=3 => self.cancel(&id).await,
            4..=5 => self.pause(&id, "charges").await,
            6 => self.pause(&permission, "charge-permissions").await,
            7..=8 => {
                if let Some(paused) = self.paused.pop() {
                    self.resume(&paused).await;
                }
            }
            9..=11 => self.post(&format!("/v1/charges/{id}/retry"), None).await,
            12..=14 => {
                let amount = self.dice.between(1, 5);
                let body = json!({ "captureAmount": { "amount": format!("{amount}.00"), "currencyCode": "USD" } });
                let body = if self.dice.percent(50) { json!({}) } else { body };
                self.post(&format!("/v1/charges/{id}/capture"), Some(&body)).await;
            }
            15 => self.close(&permission).await,
            16 => self.post(&format!("/v1/charge-permissions/{permission}/reconcile"), None).await,
            17..=18 => self.resolve(&id).await,
            _ => self.submit_same(&id).await,
        }
    }

    async fn submit_same(&mut self, id: &str) {
        if let Some(nth) = self.wanted.iter().position(|wanted| wanted.id == id) {
            self.submit(nth).await;
        }
    }

    async fn post(&mut self, path: &str, body: Option<&Value>) {
        let answer = self.api(Method::POST, path, body).await;
        self.say(format!("POST {path}: {}", answer.status));
    }

    async fn cancel(&mut self, id: &str) {
        let answer = self.api(Method::DELETE, &format!("/v1/charges/{id}"), None).await;
        self.say(format!("cancel {id}: {}", answer.status));
        if matches!(answer.status, 200 | 202) {
            let place = self.now_in_stream().await;
            self.deeds.cancellations.push((id.to_owned(), place));
        }
    }

    async fn close(&mut self, permission: &str) {
        let cancel = self.dice.percent(50);
        let body = json!({ "closureReason": "simulation", "cancelPendingCharges": cancel });
        let answer = self.api(Method::POST, &format!("/v1/charge-permissions/{permission}/close"), Some(&body)).await;
        self.say(format!("close {permission}: {}", answer.status));
        if answer.status == 202 {
            let place = self.now_in_stream().await;
            self.deeds.closings.push((permission.to_owned(), place));
        }
    }

    async fn pause(&mut self, id: &str, kind: &str) {
        let answer = self.api(Method::POST, &format!("/v1/{kind}/{id}/pause"), None).await;
        self.say(format!("pause {id}: {}", answer.status));
        if answer.status == 200 {
            let from = self.now_in_stream().await;
            self.deeds.pauses.push((id.to_owned(), Span { from, to: None }));
            self.paused.push(id.to_owned());
        }
    }

    pub async fn resume(&mut self, id: &str) {
        let kind = if self.permissions.iter().any(|own| own == id) { "charge-permissions" } else { "charges" };
        if !self.redis_is_up {
            self.paused.push(id.to_owned());
            return;
        }
        let before = self.now_in_stream().await;
        let answer = self.api(Method::POST, &format!("/v1/{kind}/{id}/resume"), None).await;
        self.say(format!("resume {id}: {}", answer.status));
        if answer.status == 503 {
            self.paused.push(id.to_owned());
            return;
        }
        for (_, span) in self.deeds.pauses.iter_mut().filter(|(of, span)| of == id && span.to.is_none()) {
            span.to = Some(before);
        }
    }

    pub async fn throw_stop(&mut self) {
        let answer = self.api(Method::POST, "/v1/stop", None).await;
        self.say(format!("stop: {}", answer.status));
        if answer.status < 300 {
            self.count("stop switch");
            let from = self.now_in_stream().await;
            self.deeds.stops.push(Span { from, to: None });
            self.stopped = true;
        }
    }

    pub async fn lift_stop(&mut self) {
        let before = self.now_in_stream().await;
        for _ in 0..12 {
            let answer = self.api(Method::DELETE, "/v1/stop", None).await;
            self.say(format!("stop lifted: {}", answer.status));
            if answer.status != 503 {
                break;
            }
        }
        for span in self.deeds.stops.iter_mut().filter(|span| span.to.is_none()) {
            span.to = Some(before);
        }
        self.stopped = false;
    }

    /// An operator looks in Seller Central first, as the confirmation says.
    async fn resolve(&mut self, id: &str) {
        let charges = self.sandbox.ledger().charges;
        let own = charges.iter().filter(|charge| crate::auditor::tag_of(charge).is_some_and(|(of, _)| of == id));
        let standing =
            own.filter(|charge| crate::auditor::is_success(charge)).map(|charge| charge.charge_id.clone()).next_back();
        let on_its_way = !self.held.is_empty() || !self.late.is_empty() || !self.inside.is_empty();
        let body = match standing {
            Some(charge) if self.dice.percent(70) => json!({ "as": "captured", "chargeId": charge }),
            None if !on_its_way && self.dice.percent(50) => {
                json!({ "as": "new_number", "confirm": format!("Seller Central shows no charge for {id}") })
            }
            _ => json!({ "as": "abandoned" }),
        };
        let answer = self.api(Method::POST, &format!("/v1/charges/{id}/resolve"), Some(&body)).await;
        self.say(format!("resolve {id} {}: {}", body["as"], answer.status));
        if matches!(answer.status, 200 | 202) {
            self.deeds.resolved.insert(id.to_owned());
            if body["as"] == "new_number" {
                self.deeds.new_numbers.insert(id.to_owned());
            }
        }
    }

    /// The permissions with a charge that has not ended.
    pub async fn open_permissions(&mut self) -> Vec<String> {
        let mut open = Vec::new();
        for (id, submission) in self.deeds.submissions.clone() {
            let answer = self.api(Method::GET, &format!("/v1/charges/{id}"), None).await;
            // A permission is looked at for what is parked and between two attempts; for what is pending or authorised its charge is.
            // The first attempt has a look of its own; what is paused is looked at less, what is held not at all.
            let state = answer.body["state"].as_str().unwrap_or_default();
            let between = state == "scheduled" && answer.body["number"] != 0;
            let waits = (between || state == "parked") && answer.body["paused"] != true;
            if waits && !open.contains(&submission.permission) {
                open.push(submission.permission);
            }
        }
        open
    }

    pub async fn all_ended(&mut self) -> bool {
        for id in self.deeds.submissions.keys().cloned().collect::<Vec<_>>() {
            let answer = self.api(Method::GET, &format!("/v1/charges/{id}"), None).await;
            if !is_ended(&answer.body) && answer.body["state"] != "held" {
                return false;
            }
        }
        true
    }

    /// Whether a permission waits for Amazon's quota: the calls that it may make come with time, whatever else has ended.
    pub async fn somebody_waits(&mut self) -> bool {
        let quota = self.api(Method::GET, "/v1/quota", None).await;
        quota.body["waitingTotal"].as_u64() != Some(0)
    }
}

fn is_ended(charge: &Value) -> bool {
    ["captured", "canceled", "abandoned"].contains(&charge["state"].as_str().unwrap_or_default())
}

/// Buyers and Amazon.
impl World {
    pub fn changed(&mut self, permission: &str) {
        let now = self.amazon.now().as_millisecond();
        self.deeds.changes.insert(permission.to_owned(), now);
    }

    /// Something happens to a permission.
    pub fn happen(&mut self) {
        if self.permissions.is_empty() {
            return;
        }
        let id = self.dice.pick(&self.permissions).clone();
        let digits = self.dice.between(1000, 9999);
        let card = format!("Visa ****{digits} (Amazon Pay)");
        let what = self.dice.below(16);
        self.changed(&id);
        let said = match what {
            0..=5 => self.sandbox.buyer_updates_instrument(&id, &card).map(|()| "the buyer updates the card"),
            6 => self.sandbox.buyer_closes(&id).map(|()| "the buyer closes"),
            7 => self.sandbox.amazon_closes(&id).map(|()| "Amazon closes"),
            8..=10 => self.sandbox.buyer_deletes_instrument(&id).map(|()| "the buyer deletes the card"),
            11..=12 => {
                let reason = *self.dice.pick(&["PaymentMethodExpired", "BillingAddressDeleted", "MFAFailed"]);
                self.sandbox.set_permission(&id, PermissionState::NonChargeable, &[reason]).map(|()| "not chargeable")
            }
            13 => self.sandbox.set_permission(&id, PermissionState::Chargeable, &[]).map(|()| "chargeable"),
            _ => {
                let outcome = self.outcome_of_charge();
                self.say(format!("  {outcome:?}"));
                self.sandbox.script_charge(&id, outcome).map(|()| "the next attempt will be")
            }
        };
        self.say(format!("{id}: {}", said.expect("a permission")));
    }

    /// A permission changes, and its notification is accepted; whether it was open, and is heard of.
    pub async fn happen_and_tell(&mut self, permission: &str) -> bool {
        let was_open = self.sandbox.permission_state(permission).is_some_and(|state| state != PermissionState::Closed);
        let done = match self.dice.below(3) {
            0 => self.sandbox.buyer_closes(permission),
            1 => self.sandbox.buyer_deletes_instrument(permission),
            _ => self.sandbox.buyer_updates_instrument(permission, "Visa ****3333 (Amazon Pay)"),
        };
        done.expect("a permission");
        self.say(format!("{permission} changes"));
        self.changed(permission);
        let heard = |world: &Self| world.deeds.accepted.values().filter(|(object, _)| object == permission).count();
        let before = heard(self);
        self.collect();
        self.deliver(usize::MAX, 1).await;
        // A card that is deleted twice is no news.
        was_open && heard(self) > before
    }

    /// Whether Amazon has shown a permission since then (ms, its clock).
    pub fn was_looked_at(&self, permission: &str, since: i64) -> bool {
        self.sandbox.ledger().requests.iter().any(|request| {
            request.operation == Operation::GetChargePermission
                && request.permission.as_deref() == Some(permission)
                && request.status == 200
                && request.at.as_millisecond() > since
        })
    }

    /// The permission that was made last is not chargeable any more.
    pub fn break_the_newest(&mut self) {
        let Some(id) = self.permissions.last().cloned() else { return };
        self.changed(&id);
        let (what, done) = if self.dice.percent(70) {
            ("the buyer deletes the card", self.sandbox.buyer_deletes_instrument(&id))
        } else {
            ("the buyer closes", self.sandbox.buyer_closes(&id))
        };
        done.expect("a permission");
        self.say(format!("{id}: {what}"));
    }

    pub fn all_update_cards(&mut self) {
        self.say("all buyers update their cards");
        for id in self.permissions.clone() {
            self.sandbox.buyer_updates_instrument(&id, "Visa ****2222 (Amazon Pay)").expect("a permission");
            self.changed(&id);
        }
    }

    /// Something happens to a charge.
    pub fn happen_to_charge(&mut self) {
        let charges: Vec<_> = self.permissions.iter().flat_map(|id| self.sandbox.charges_of(id)).collect();
        if charges.is_empty() {
            return;
        }
        let charge = self.dice.pick(&charges).clone();
        let id = charge.charge_id.as_str();
        let said = match charge.state {
            state if state.is_pending() => {
                let decline =
                    *self.dice.pick(&[None, None, Some(DeclineCode::HardDeclined), Some(DeclineCode::SoftDeclined)]);
                self.sandbox.decide(id, decline).map(|()| format!("is decided: {decline:?}"))
            }
            ChargeState::Authorized => {
                if self.dice.percent(50) {
                    self.sandbox
                        .set_charge(id, ChargeState::Canceled, Some("BuyerCanceled"))
                        .map(|()| "the buyer cancels".to_owned())
                } else {
                    let outcome = *self.dice.pick(&[DeclineCode::SoftDeclined, DeclineCode::ProcessingFailure]);
                    let script = self.sandbox.script_capture(&charge.permission, Outcome::Decline(outcome));
                    script.map(|()| format!("its capture will be {outcome:?}"))
                }
            }
            ChargeState::Captured => {
                if self.dice.percent(50) {
                    self.sandbox.refund(id, Decimal::ONE).map(|refund| format!("refund {refund}"))
                } else {
                    let spec = DisputeSpec::chargeback("Fraudulent");
                    self.sandbox.open_dispute(id, spec).map(|dispute| format!("dispute {dispute}"))
                }
            }
            _ => return,
        };
        let said = said.unwrap_or_else(|error| error.to_string());
        self.say(format!("{id}: {said}"));
    }

    /// Amazon does not leave anything pending for ever.
    pub fn decide_all_pending(&mut self, nth: usize) {
        if nth < 3 {
            return;
        }
        for id in self.permissions.clone() {
            for charge in self.sandbox.charges_of(&id) {
                if charge.state.is_pending() {
                    let _ = self.sandbox.decide(&charge.charge_id, None);
                }
            }
        }
    }
}
