//! A call without effect, to learn whether Amazon accepts what we sign, and how old a date it takes.

use std::time::Duration;

use reqwest::Method;

use super::{AmazonPay, wire};
use crate::amazon_pay::transport::Way;
use crate::model::ids::{Environment, Region};
use crate::model::probe::Probe;

impl AmazonPay {
    /// Get Charge Permission of an id that nobody has, signed as if it were `age` ago. It changes nothing at Amazon, and its answer
    /// says nothing about any permission.
    pub async fn probe(&self, age: Duration) -> Probe {
        // A look, under the name by which its quota is counted.
        const OPERATION: &str = "get_charge_permission";
        let account = &self.inner.account;
        let environment = match account.environment {
            Environment::Live => 'P',
            Environment::Sandbox => 'S',
        };
        let region = match account.region {
            Region::Na => "01",
            Region::Eu => "02",
            Region::Jp => "03",
        };
        let path = format!("chargePermissions/{environment}{region}-0000000-0000000");
        let signed_at = self.inner.clock.now().checked_sub(age).unwrap_or_default();
        let outgoing = match self.prepare(OPERATION, Method::GET, &path, Vec::new(), None, signed_at) {
            Ok(outgoing) => outgoing,
            Err(error) => return Probe::Silent(error.to_string()),
        };
        match self.inner.transport.call(Way::Pooled, outgoing).await {
            Ok(reply) => Probe::Answered {
                status: reply.status,
                reason: reply.body.as_deref().and_then(wire::reason_code).map(|code| wire::printable(&code)),
            },
            Err(why) => Probe::Silent(why.to_string()),
        }
    }
}
