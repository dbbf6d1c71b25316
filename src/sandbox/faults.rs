//! What can go wrong on the wire, by order: queued per operation, each used by one request.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// The calls of the Amazon Pay API that the sandbox knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `POST /v2/charges`
    CreateCharge,
    /// `GET /v2/charges/{id}`
    GetCharge,
    /// `POST /v2/charges/{id}/capture`
    CaptureCharge,
    /// `DELETE /v2/charges/{id}/cancel`
    CancelCharge,
    /// `GET /v2/chargePermissions/{id}`
    GetChargePermission,
    /// `DELETE /v2/chargePermissions/{id}/close`
    CloseChargePermission,
    /// `POST /v2/refunds`
    CreateRefund,
    /// `GET /v2/refunds/{id}`
    GetRefund,
    /// `GET /v2/disputes/{id}`
    GetDispute,
}

impl Operation {
    /// Every call.
    pub const ALL: [Self; 9] = [
        Self::CreateCharge,
        Self::GetCharge,
        Self::CaptureCharge,
        Self::CancelCharge,
        Self::GetChargePermission,
        Self::CloseChargePermission,
        Self::CreateRefund,
        Self::GetRefund,
        Self::GetDispute,
    ];

    /// The name as in Amazon's documentation, without blanks.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateCharge => "CreateCharge",
            Self::GetCharge => "GetCharge",
            Self::CaptureCharge => "CaptureCharge",
            Self::CancelCharge => "CancelCharge",
            Self::GetChargePermission => "GetChargePermission",
            Self::CloseChargePermission => "CloseChargePermission",
            Self::CreateRefund => "CreateRefund",
            Self::GetRefund => "GetRefund",
            Self::GetDispute => "GetDispute",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One mishap. "Evaluates" means: Amazon looks at the request and does what it says.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers with this status and reason code; does not evaluate, remembers nothing under the idempotency key.
    Status(u16, String),
    /// Evaluates, then answers with this status and reason code; the same key gives the true answer later.
    StatusAfter(u16, String),
    /// Evaluates, then answers with this status and reason code and keeps *that* answer under the idempotency key for ever.
    StatusKept(u16, String),
    /// Answers only after this (real) time, evaluated at its end.
    Delay(Duration),
    /// Evaluates, then answers only after this (real) time.
    DelayAfter(Duration),
    /// Closes the connection; does not evaluate.
    DropBefore,
    /// Evaluates, then closes the connection without an answer.
    DropAfter,
    /// The request has left the client but arrives only when the gate is released: its signature is checked and it is
    /// evaluated then, even if the client has gone. This is the delayed copy of a request.
    HoldBefore(Gate),
    /// Cuts the connection at once, and goes on like [`Fault::HoldBefore`]: the client has given up, its request is still on its way.
    Late(Gate),
    /// Arrives and passes the signature check, is evaluated only when the gate is released, even if the client has gone:
    /// slow processing inside Amazon.
    HoldInside(Gate),
    /// Evaluates, then keeps the answer back until the gate is released.
    HoldAfter(Gate),
    /// Evaluates, then answers with the status of success and a body without any of its fields.
    Garbled,
    /// Evaluates, then answers with the first text replaced by the second wherever it stands in the body: what a later version of Amazon
    /// Pay might say.
    Rewritten(&'static str, &'static str),
}

impl Fault {
    /// [`Fault::Status`] from text.
    #[must_use]
    pub fn status(status: u16, reason_code: &str) -> Self {
        Self::Status(status, reason_code.to_owned())
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    reached: bool,
    released: bool,
    done: bool,
}

/// Holds one request until the test lets it go on. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<Progress>>);

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Progress::default())))
    }

    /// Waits until a request stands at the gate: received for the `HoldBefore` and `HoldInside` faults, committed for
    /// `HoldAfter`. Returns also if the request ended without coming that far, for example refused for its signature.
    pub async fn reached(&self) {
        self.wait(|progress| progress.reached || progress.done).await;
    }

    /// Lets the request go on; also before it came.
    pub fn release(&self) {
        self.0.send_modify(|progress| progress.released = true);
    }

    /// Waits until the request that passed the gate was evaluated and recorded.
    pub async fn done(&self) {
        self.wait(|progress| progress.done).await;
    }

    pub(super) async fn hold(&self) {
        self.0.send_modify(|progress| progress.reached = true);
        self.wait(|progress| progress.released).await;
    }

    pub(super) fn finish(&self) {
        self.0.send_modify(|progress| progress.done = true);
    }

    async fn wait(&self, condition: fn(&Progress) -> bool) {
        // The sender lives in this very gate, so the channel cannot be closed while we wait.
        let _ = self.0.subscribe().wait_for(condition).await;
    }
}

/// The queues of faults.
#[derive(Debug, Default)]
pub(super) struct Faults(HashMap<Operation, VecDeque<Fault>>);

impl Faults {
    pub(super) fn push(&mut self, operation: Operation, fault: Fault) {
        self.0.entry(operation).or_default().push_back(fault);
    }

    pub(super) fn pop(&mut self, operation: Operation) -> Option<Fault> {
        self.0.get_mut(&operation)?.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_used_in_order_and_per_operation() {
        let mut faults = Faults::default();
        faults.push(Operation::CreateCharge, Fault::DropBefore);
        faults.push(Operation::CreateCharge, Fault::Garbled);
        assert!(faults.pop(Operation::GetCharge).is_none());
        assert!(matches!(faults.pop(Operation::CreateCharge), Some(Fault::DropBefore)));
        assert!(matches!(faults.pop(Operation::CreateCharge), Some(Fault::Garbled)));
        assert!(faults.pop(Operation::CreateCharge).is_none());
    }

    #[tokio::test]
    async fn a_gate_released_early_holds_nobody() {
        let gate = Gate::new();
        gate.release();
        gate.hold().await;
        gate.reached().await;
    }
}
