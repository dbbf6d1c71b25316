//! One worker at a time: while a request about a permission waits for its answer, nobody else asks Amazon about that permission.
//!
//! But a worker that stood still while its lease ran out still has its look when it goes on: nobody can fence what only reads. Its mark and
//! its commit are refused. If it stood between its mark and its send, the send goes out: Amazon refuses a signature that old.

use std::collections::BTreeMap;

use amazon_pay_ipn::sandbox::{Operation, RequestRecord};

use super::Violations;
use crate::evidence::Evidence;

/// A lease is renewed a little before its request leaves.
const BEFORE_IT_LEFT_MS: i64 = 5_000;

pub fn audit(evidence: &Evidence, found: &mut Violations) {
    let owner: BTreeMap<&str, &str> =
        evidence.ledger.charges.iter().map(|charge| (charge.charge_id.as_str(), charge.permission.as_str())).collect();
    let mut of_permission: BTreeMap<&str, Vec<&RequestRecord>> = BTreeMap::new();
    for request in &evidence.ledger.requests {
        let of_charge = || owner.get(request.charge.as_deref()?).copied();
        if let Some(permission) = request.permission.as_deref().or_else(of_charge) {
            of_permission.entry(permission).or_default().push(request);
        }
    }
    let is_late_and_harmless = |request: &RequestRecord| {
        let looks = matches!(
            request.operation,
            Operation::GetChargePermission | Operation::GetCharge | Operation::GetRefund | Operation::GetDispute
        );
        (looks || !request.signature_ok)
            && evidence.deeds.woken.iter().any(|requests| requests.contains(&request.received))
    };
    for (permission, mut requests) in of_permission {
        requests.retain(|request| !is_late_and_harmless(request));
        requests.sort_by_key(|request| request.received);
        for (nth, request) in requests.iter().enumerate() {
            let Some(next) = requests.get(nth + 1) else { continue };
            let waits = request.answered.is_none_or(|answered| next.received <= answered);
            let after_ms = next.received_at.as_millisecond() - request.received_at.as_millisecond();
            if waits && after_ms < evidence.rules.lease_ms - BEFORE_IT_LEFT_MS {
                let (first, second) = (request.operation, next.operation);
                found.push(format!(
                    "two workers at {permission}: {second} came {after_ms} ms after {first}, which was not answered yet"
                ));
            }
        }
    }
}
