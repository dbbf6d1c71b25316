//! The kinds of work. Each drives one story through the public interfaces only, whatever is struck on the way, and ends as it ends when
//! nothing is struck.

use std::time::Duration;

use amazon_pay_ipn::sandbox::{
    DeclineCode, DisputeMove, DisputeSpec, DisputeState, Fault, Gate, NotificationType, ObjectType, Operation, Outcome,
    Reading, SignatureVersion,
};
use serde_json::{Value, json};

use crate::world::{Strike, World};

const HOUR: Duration = Duration::from_hours(1);

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal;)+) => {
        /// A kind of work.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// A new charge, captured at once; its notifications.
    Captured = "captured";
    /// A soft decline, and the next attempt a day later.
    SoftDecline = "soft decline";
    /// Nobody hears the decline; the repeat is tainted, and its decline is confirmed after X.
    TimeOut = "time-out, taint";
    /// Nobody hears of the success; the repeat learns of it.
    AnswerLost = "answer lost";
    /// A decline that is heard, and a success that is not; SNS is silent. A decline that is committed late would be a second charge.
    DeclineThenLost = "decline, then answer lost";
    /// A copy of the request arrives after its process was killed and its number was asked again.
    DelayedCopy = "delayed copy";
    /// The process is killed between Amazon's success and its answer.
    KilledInCall = "killed in the call";
    /// A hard decline: parked, released by the buyer's update.
    HardDecline = "hard decline, update";
    /// Authorised, captured on demand.
    AuthorizeCapture = "authorise, capture";
    /// Nobody hears of the capture.
    CaptureLost = "capture's answer lost";
    /// Amazon decides later.
    Pending = "pending";
    /// Cancelled before anything was sent.
    CancelPlanned = "cancel planned";
    /// Cancelled while nobody knows; it was charged.
    CancelUnknown = "cancel unknown";
    /// Cancelled while nobody knows; it was authorised, which is canceled at Amazon.
    CancelUnknownAuthorized = "cancel unknown, authorised";
    /// Cancelled when authorised.
    CancelAuthorized = "cancel authorised";
    /// The caller closes the permission.
    CloseByCaller = "close by the caller";
    /// The buyer closes it between two attempts.
    ClosedByBuyer = "closed by the buyer";
    /// A refund and a dispute of a captured charge.
    RefundAndDispute = "refund, dispute";
    /// Three charges, and quota for less.
    QuotaWaits = "quota";
    /// Amazon throttles, then refuses the account.
    AccountFault = "throttled, account fault";
    /// The stop switch on, and off.
    StopSwitch = "stop switch";
    /// Pause, resume, a look, and a retry.
    Wishes = "operator's wishes";
    /// Held, and given up by the operator.
    Held = "held, resolved";
    /// A subscription is confirmed.
    Subscription = "subscription";
    /// A genuine message about another merchant.
    Quarantine = "quarantine";
    /// SIGTERM while Amazon works on a charge.
    Terminated = "SIGTERM in the call";
    /// SIGTERM between two looks of one reconciliation.
    TerminatedBetween = "SIGTERM between looks";
    /// A worker is too slow: its lease ends, another goes on, and then it hears of its success.
    LostLease = "lost lease";
}

impl Kind {
    /// What Amazon does with used keys: where nothing else is wanted, the reading under which mistakes charge twice.
    fn reading(self) -> Reading {
        match self {
            // The decline has to be the same when it is asked for again.
            Self::HardDecline | Self::ClosedByBuyer | Self::Wishes | Self::Held => Reading::ReplayAll,
            Self::AnswerLost => Reading::StatusFirst,
            _ => Reading::ReEvaluate,
        }
    }

    fn share(self) -> &'static str {
        if self == Self::QuotaWaits { "0.01" } else { "1" }
    }

    /// How the charges of this kind end: the contract, whatever is struck.
    pub fn ends(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::CancelPlanned | Self::CancelAuthorized | Self::CancelUnknownAuthorized => &[("first", "canceled")],
            Self::CloseByCaller | Self::ClosedByBuyer | Self::Held => &[("first", "abandoned")],
            Self::QuotaWaits => &[("first", "captured"), ("second", "captured"), ("third", "captured")],
            Self::Subscription | Self::Quarantine => &[],
            _ => &[("first", "captured")],
        }
    }

    /// Does the work from begin to end in a world of its own.
    pub async fn run(self, redis_url: &str, prefix: &str, strike: Option<Strike>) -> World {
        let mut world = World::start(redis_url, prefix, self.reading(), self.share(), strike).await;
        self.drive(&mut world).await;
        world.settle().await;
        world.finish().await;
        world
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each kind of work, to be read from top to bottom")]
    async fn drive(self, w: &mut World) {
        match self {
            Self::Captured => {
                let permission = w.permission();
                w.submit("first", &permission, &Value::Null).await;
            }
            Self::SoftDecline => {
                let permission = w.permission();
                script(w, &permission, &[Outcome::Decline(DeclineCode::SoftDeclined)]);
                w.submit("first", &permission, &Value::Null).await;
            }
            Self::TimeOut => {
                let permission = w.permission();
                script(w, &permission, &[const { Outcome::Decline(DeclineCode::SoftDeclined) }; 2]);
                w.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
                w.submit("first", &permission, &Value::Null).await;
            }
            Self::AnswerLost => {
                let permission = w.permission();
                w.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
                w.submit("first", &permission, &Value::Null).await;
            }
            Self::DeclineThenLost => {
                let permission = w.permission();
                script(w, &permission, &[Outcome::Decline(DeclineCode::SoftDeclined)]);
                w.sandbox.inject(Operation::CreateCharge, Fault::Delay(Duration::ZERO));
                w.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
                w.submit("first", &permission, &Value::Null).await;
                w.until_unheard("first", "captured", |_| false).await;
            }
            Self::DelayedCopy => killed_in_the_call(w, Fault::HoldBefore).await,
            Self::KilledInCall => killed_in_the_call(w, Fault::HoldAfter).await,
            Self::HardDecline => {
                let permission = w.permission();
                script(w, &permission, &[Outcome::Decline(DeclineCode::HardDeclined)]);
                w.submit("first", &permission, &Value::Null).await;
                w.until("first", "parked", |charge| charge["state"] == "parked").await;
                w.advance(HOUR);
                w.sandbox.buyer_updates_instrument(&permission, "Visa ****2222").expect("a permission");
            }
            Self::AuthorizeCapture => {
                authorized(w).await;
                w.post("/v1/charges/first/capture", &json!({})).await;
            }
            Self::CaptureLost => {
                authorized(w).await;
                w.sandbox.inject(Operation::CaptureCharge, Fault::DropAfter);
                w.post("/v1/charges/first/capture", &json!({})).await;
            }
            Self::Pending => {
                let permission = w.permission();
                script(w, &permission, &[Outcome::Pend]);
                w.submit("first", &permission, &json!({ "canHandlePendingAuthorization": true })).await;
                w.until("first", "pending", |charge| charge["state"] == "pending").await;
                let charge = w.sandbox.charges_of(&permission)[0].charge_id.clone();
                w.sandbox.decide(&charge, None).expect("a pending charge");
            }
            Self::CancelPlanned => {
                let permission = w.permission();
                let later = w.in_days(2);
                w.submit("first", &permission, &json!({ "notBefore": later })).await;
                w.cancel("first").await;
            }
            Self::CancelUnknown | Self::CancelUnknownAuthorized => {
                let permission = w.permission();
                w.sandbox.inject(Operation::CreateCharge, Fault::DropAfter);
                w.submit("first", &permission, &json!({ "captureNow": self == Self::CancelUnknown })).await;
                // Struck before that was stored, it has asked again, and knows.
                let told = |charge: &Value| charge["numberStatus"] == "unknown" || charge["state"] == "authorized";
                w.until_unheard("first", "unknown, or authorized", told).await;
                w.cancel("first").await;
            }
            Self::CancelAuthorized => {
                authorized(w).await;
                w.cancel("first").await;
            }
            Self::CloseByCaller => {
                let permission = w.permission();
                let later = w.in_days(2);
                w.submit("first", &permission, &json!({ "notBefore": later })).await;
                let body = json!({ "closureReason": "the subscription has ended", "cancelPendingCharges": true });
                w.post(&format!("/v1/charge-permissions/{permission}/close"), &body).await;
            }
            Self::ClosedByBuyer => {
                let permission = w.permission();
                script(w, &permission, &[Outcome::Decline(DeclineCode::SoftDeclined)]);
                w.submit("first", &permission, &Value::Null).await;
                w.until("first", "declined", |charge| charge["attempts"] == 1 && charge["numberStatus"] == "fresh")
                    .await;
                w.sandbox.buyer_closes(&permission).expect("a permission");
            }
            Self::RefundAndDispute => refund_and_dispute(w).await,
            Self::QuotaWaits => {
                for id in ["first", "second", "third"] {
                    let permission = w.permission();
                    w.submit(id, &permission, &Value::Null).await;
                }
            }
            Self::AccountFault => {
                let permission = w.permission();
                w.sandbox.inject(Operation::CreateCharge, Fault::status(429, "TooManyRequests"));
                w.submit("first", &permission, &Value::Null).await;
                w.until("first", "unknown", |charge| charge["numberStatus"] == "unknown").await;
                w.sandbox.inject(Operation::GetChargePermission, Fault::status(401, "UnauthorizedAccess"));
                w.post(&format!("/v1/charge-permissions/{permission}/reconcile"), &json!({})).await;
            }
            Self::StopSwitch => {
                let permission = w.permission();
                w.post("/v1/stop", &Value::Null).await;
                w.submit("first", &permission, &Value::Null).await;
                w.until("first", "put off", |charge| charge["state"] == "scheduled").await;
                w.order(reqwest::Method::DELETE, "/v1/stop", &Value::Null).await;
            }
            Self::Wishes => wishes(w).await,
            Self::Held => {
                let permission = w.permission();
                // No charge comes of it, and Amazon says for ever that the key was used for something else.
                script(w, &permission, &[Outcome::Decline(DeclineCode::SoftDeclined)]);
                let code = "DuplicateIdempotencyKey".to_owned();
                w.sandbox.inject(Operation::CreateCharge, Fault::StatusKept(400, code));
                w.submit("first", &permission, &Value::Null).await;
                w.until("first", "held", |charge| charge["state"] == "held").await;
                w.post("/v1/charges/first/resolve", &json!({ "as": "abandoned" })).await;
            }
            Self::Subscription => {
                let message = w.sandbox.sign_subscription_confirmation(SignatureVersion::V2);
                w.send(message);
            }
            Self::Quarantine => {
                let permission = "C01-0000000-0000009";
                let object = (ObjectType::ChargePermission, permission);
                let mut ipn = w.sandbox.ipn(object, permission, NotificationType::StateChange);
                "A3URCZVLDMDI45".clone_into(&mut ipn.merchant_id);
                let message = w.sandbox.sign(&ipn, SignatureVersion::V2);
                w.send(message);
            }
            Self::Terminated => {
                let permission = w.permission();
                let gate = Gate::new();
                w.sandbox.inject(Operation::CreateCharge, Fault::HoldAfter(gate.clone()));
                w.submit("first", &permission, &Value::Null).await;
                w.at_gate(&gate).await;
                w.terminate(|| gate.release()).await;
            }
            Self::TerminatedBetween => {
                let permission = authorized(w).await;
                let gate = Gate::new();
                w.sandbox.inject(Operation::GetChargePermission, Fault::HoldAfter(gate.clone()));
                w.post(&format!("/v1/charge-permissions/{permission}/reconcile"), &json!({})).await;
                w.at_gate(&gate).await;
                w.terminate(|| gate.release()).await;
                w.post("/v1/charges/first/capture", &json!({})).await;
            }
            Self::LostLease => {
                let permission = w.permission();
                let gate = Gate::new();
                w.sandbox.inject(Operation::CreateCharge, Fault::HoldAfter(gate.clone()));
                w.submit("first", &permission, &Value::Null).await;
                w.at_gate(&gate).await;
                w.advance(Duration::from_secs(181));
                w.start_another().await;
                w.until("first", "captured by the other", |_| false).await;
                gate.release();
                w.other_has_said("the lease was lost").await;
            }
        }
    }
}

fn script(w: &World, permission: &str, outcomes: &[Outcome]) {
    for outcome in outcomes {
        w.sandbox.script_charge(permission, outcome.clone()).expect("a permission");
    }
}

async fn authorized(w: &mut World) -> String {
    let permission = w.permission();
    w.submit("first", &permission, &json!({ "captureNow": false })).await;
    w.until("first", "authorized", |charge| charge["state"] == "authorized").await;
    permission
}

async fn killed_in_the_call(w: &mut World, hold: fn(Gate) -> Fault) {
    let permission = w.permission();
    let gate = Gate::new();
    w.sandbox.inject(Operation::CreateCharge, hold(gate.clone()));
    w.submit("first", &permission, &Value::Null).await;
    w.at_gate(&gate).await;
    w.kill_from_outside().await;
    w.until("first", "captured", |_| false).await;
    gate.release();
    gate.done().await;
}

async fn refund_and_dispute(w: &mut World) {
    let permission = w.permission();
    w.submit("first", &permission, &Value::Null).await;
    w.until("first", "captured", |_| false).await;
    let charge = w.sandbox.charges_of(&permission)[0].charge_id.clone();
    let refund = w.sandbox.refund(&charge, "4.00".parse().expect("a number")).expect("a captured charge");
    w.until("first", "told of the refund", |_| true).await;
    w.sandbox.settle_refund(&refund, None).expect("a refund");
    let dispute = w.sandbox.open_dispute(&charge, DisputeSpec::chargeback("Fraudulent")).expect("a charge");
    w.until("first", "told of the dispute", |_| true).await;
    let resolved = DisputeMove::to(DisputeState::Resolved).with_resolution("MerchantWon");
    w.sandbox.move_dispute(&dispute, resolved).expect("a dispute");
}

async fn wishes(w: &mut World) {
    let permission = w.permission();
    script(w, &permission, &[Outcome::DeclineStayingChargeable(DeclineCode::HardDeclined)]);
    w.submit("first", &permission, &Value::Null).await;
    w.until("first", "parked", |charge| charge["state"] == "parked").await;
    w.post("/v1/charges/first/pause", &Value::Null).await;
    w.post(&format!("/v1/charge-permissions/{permission}/reconcile"), &json!({})).await;
    w.post("/v1/charges/first/resume", &Value::Null).await;
    w.post("/v1/charges/first/retry", &Value::Null).await;
}
