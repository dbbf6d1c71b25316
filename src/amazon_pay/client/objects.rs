//! Get Refund and Get Dispute.

use super::{AmazonPay, Reply, wire};
use crate::model::dispute::{DisputeState, DisputeView};
use crate::model::hint::ObjectLook;
use crate::model::ids::{DisputeId, RefundId};
use crate::model::refund::{RefundState, RefundView};

impl AmazonPay {
    /// Get Refund.
    pub async fn refund(&self, id: &RefundId) -> ObjectLook<RefundView> {
        const OPERATION: &str = "get_refund";
        let reply = self.look(OPERATION, &format!("refunds/{id}")).await;
        let says_something = |view: &RefundView| view.id == *id && view.state != RefundState::Other(String::new());
        look(OPERATION, reply, |body| wire::objects::refund(body).ok().filter(says_something))
    }

    /// Get Dispute.
    pub async fn dispute(&self, id: &DisputeId) -> ObjectLook<DisputeView> {
        const OPERATION: &str = "get_dispute";
        let reply = self.look(OPERATION, &format!("disputes/{id}")).await;
        let says_something = |view: &DisputeView| view.id == *id && view.state != DisputeState::Other(String::new());
        look(OPERATION, reply, |body| wire::objects::dispute(body).ok().filter(says_something))
    }
}

/// What an answer comes to. `read` gives nothing if the body is not the object that was asked for, with a state.
fn look<V>(operation: &'static str, reply: Option<Reply>, read: impl FnOnce(&[u8]) -> Option<V>) -> ObjectLook<V> {
    let Some(reply) = reply else { return ObjectLook::Failed };
    match reply.status {
        200..=299 => reply.body.as_deref().and_then(read).map_or_else(
            || {
                tracing::warn!(
                    operation,
                    "an unreadable answer, another object than was asked for, or one without a state"
                );
                ObjectLook::Failed
            },
            ObjectLook::Seen,
        ),
        status @ (400 | 403 | 404) => ObjectLook::Refused(status),
        401 => ObjectLook::AccountFault,
        _ => ObjectLook::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: Option<&str>) -> ObjectLook<String> {
        let reply = Reply { status, retry_after: None, date: None, body: body.map(|body| body.as_bytes().to_vec()) };
        look("test", Some(reply), |body| String::from_utf8(body.to_vec()).ok().filter(|text| text == "it"))
    }

    #[test]
    fn every_answer_is_a_sight_a_refusal_the_accounts_fault_or_nothing() {
        assert_eq!(of(200, Some("it")), ObjectLook::Seen("it".to_owned()));
        for (status, expected) in [
            (400, ObjectLook::Refused(400)),
            (403, ObjectLook::Refused(403)),
            (404, ObjectLook::Refused(404)),
            (401, ObjectLook::AccountFault),
            (302, ObjectLook::Failed),
            (405, ObjectLook::Failed),
            (408, ObjectLook::Failed),
            (429, ObjectLook::Failed),
            (500, ObjectLook::Failed),
            (503, ObjectLook::Failed),
        ] {
            assert_eq!(of(status, Some("it")), expected, "{status}");
        }
        assert_eq!(of(200, Some("another")), ObjectLook::Failed);
        assert_eq!(of(200, None), ObjectLook::Failed, "broken off");
        assert_eq!(look::<String>("test", None, |_| None), ObjectLook::Failed);
    }
}
