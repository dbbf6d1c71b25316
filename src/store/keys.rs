//! Every key of the service. Nothing else builds a key name; `docs/KEYSPACE.md` says what each holds, who writes it and what bounds it.
//!
//! All keys of an account share one hash tag, `{<environment>:<merchant>}`: every script is atomic on a plain server and on a cluster.

use crate::model::charge_intent::Stage;
use crate::model::ids::{Account, ChargePermissionId, IntentId};

/// The list of ends that are unverified and that no operator has resolved.
pub(super) const UNVERIFIED: &str = "unverified";

/// Key names of one account.
#[derive(Debug, Clone)]
pub struct Keys {
    base: String,
}

impl Keys {
    /// The keys of an account under a prefix (`KEY_PREFIX`).
    #[must_use]
    pub fn new(prefix: &str, account: &Account) -> Self {
        Self { base: format!("{prefix}:{{{}:{}}}:", account.environment, account.merchant) }
    }

    fn of(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    /// Hash: the account's marker, stop switch and server identity.
    #[must_use]
    pub fn marker(&self) -> String {
        self.of("marker")
    }

    /// Sorted set: charge permission id by due time (ms).
    #[must_use]
    pub fn schedule(&self) -> String {
        self.of("schedule")
    }

    /// Hash: a token bucket for each operation, and what is waited for by class and operation.
    #[must_use]
    pub fn quota(&self) -> String {
        self.of("quota")
    }

    /// Sorted set: charge permission ids that wait for tokens, by class and since when.
    #[must_use]
    pub fn waiting(&self) -> String {
        self.of("waiting")
    }

    /// Hash: what each permission that waits, or was let in, needs.
    #[must_use]
    pub fn tickets(&self) -> String {
        self.of("tickets")
    }

    /// Stream: what we tell consumers.
    #[must_use]
    pub fn events(&self) -> String {
        self.of("events")
    }

    /// Stream: every accepted notification.
    #[must_use]
    pub fn journal(&self) -> String {
        self.of("journal")
    }

    /// Hash: how many messages the journal had taken by the end of each hour.
    #[must_use]
    pub fn arrivals(&self) -> String {
        self.of("arrivals")
    }

    /// Sorted set: messages that were tried and that the handler at `FORWARD_URL` has not taken, by when they are due (ms).
    #[must_use]
    pub fn forward(&self) -> String {
        self.of("forward")
    }

    /// Sorted set: permissions that the stop switch holds back, since when (ms).
    #[must_use]
    pub fn held_back(&self) -> String {
        self.of("held_back")
    }

    /// Stream: what is kept aside.
    #[must_use]
    pub fn quarantine(&self) -> String {
        self.of("quarantine")
    }

    /// String with a TTL: this `MessageId` was accepted.
    #[must_use]
    pub fn seen(&self, message_id: &str) -> String {
        self.of(&format!("seen:{message_id}"))
    }

    /// Hash: wake number, lease and record of a charge permission.
    #[must_use]
    pub fn permission(&self, id: &ChargePermissionId) -> String {
        self.of(&format!("permission:{id}"))
    }

    /// Hash: hints of a charge permission by object.
    #[must_use]
    pub fn hints(&self, id: &ChargePermissionId) -> String {
        self.of(&format!("permission:{id}:hints"))
    }

    /// Sorted set: open intents of a charge permission by due time (ms).
    #[must_use]
    pub fn open(&self, id: &ChargePermissionId) -> String {
        self.of(&format!("permission:{id}:open"))
    }

    /// Hash: a charge intent.
    #[must_use]
    pub fn intent(&self, id: &IntentId) -> String {
        self.of(&format!("intent:{id}"))
    }

    /// Sorted set, in the order of its members: what an operator looks charges up by; one for each state, and one of unverified ends.
    #[must_use]
    pub fn index(&self, list: &str) -> String {
        self.of(&format!("index:{list}"))
    }

    /// Sorted set: entries of those lists that may go, by time (ms).
    #[must_use]
    pub fn index_expiry(&self) -> String {
        self.of("index:expiry")
    }

    /// The lists, in the order in which scripts want them: the last of their keys.
    #[must_use]
    pub fn lists(&self) -> Vec<String> {
        let mut lists: Vec<String> = Stage::NAMES.iter().map(|state| self.index(state)).collect();
        lists.extend([self.index(UNVERIFIED), self.index_expiry()]);
        lists
    }

    /// The pattern that finds every intent, for the recovery after a loss.
    #[must_use]
    pub fn intent_pattern(&self) -> String {
        // The hash tag's braces are not special in a pattern.
        self.of("intent:*")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{Environment, Region};

    #[test]
    fn every_key_of_an_account_lies_in_one_slot_and_names_its_environment() {
        let account =
            Account { merchant: "A1".parse().unwrap(), environment: Environment::Sandbox, region: Region::Eu };
        let keys = Keys::new("amazon-pay", &account);
        let permission = "C01-1".parse().unwrap();
        for key in [
            keys.marker(),
            keys.schedule(),
            keys.quota(),
            keys.waiting(),
            keys.tickets(),
            keys.held_back(),
            keys.arrivals(),
            keys.seen("m"),
            keys.permission(&permission),
            keys.hints(&permission),
            keys.open(&permission),
            keys.intent(&"i".parse().unwrap()),
            keys.index("held"),
            keys.index_expiry(),
        ] {
            assert!(key.starts_with("amazon-pay:{sandbox:A1}:"), "{key}");
        }
    }
}
