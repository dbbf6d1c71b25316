//! The policies that charges choose from, and which one holds for a charge.

use std::collections::BTreeMap;

use serde_json::json;

use super::draft::Draft;
use super::explain::{most_within, retries_of};
use super::policy::{DAY, Lot, Policy};
use crate::model::charge_intent::{ChargeIntent, Stage};
use crate::model::ids::PolicyName;
use crate::model::verdict::Decline;

/// The name by which the policy of all other charges can be asked for.
pub const DEFAULT: &str = "default";

/// Attempts that card schemes allow within 30 days, as a payment provider quotes them; Amazon documents no number. Beyond them a scheme
/// may fine or refuse. Source: <https://docs.solidgate.com/payments/payments-insights/error-codes/>.
const CEILINGS: [(&str, usize); 2] = [("Mastercard", 10), ("Visa", 15)];

/// The default policy, and those with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Policies {
    default: Policy,
    named: BTreeMap<PolicyName, Policy>,
}

impl From<Policy> for Policies {
    fn from(default: Policy) -> Self {
        Self { default, named: BTreeMap::new() }
    }
}

impl Policies {
    /// A default policy, and others by name.
    #[must_use]
    pub fn new(default: Policy, named: BTreeMap<PolicyName, Policy>) -> Self {
        Self { default, named }
    }

    /// The policy of charges that choose none.
    #[must_use]
    pub fn default_policy(&self) -> &Policy {
        &self.default
    }

    /// The policy of this name, if there is one.
    #[must_use]
    pub fn get(&self, name: &PolicyName) -> Option<&Policy> {
        if name.as_str() == DEFAULT { Some(&self.default) } else { self.named.get(name) }
    }

    /// The policy of a charge; the default one if that of its name is gone.
    #[must_use]
    pub fn of(&self, intent: &ChargeIntent) -> &Policy {
        intent.policy.as_ref().and_then(|name| self.get(name)).unwrap_or(&self.default)
    }

    /// The names that a charge may choose, `default` first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(DEFAULT).chain(self.named.keys().map(PolicyName::as_str))
    }

    /// Every policy with its name, the default one first.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Policy)> {
        std::iter::once((DEFAULT, &self.default)).chain(self.named.iter().map(|(name, policy)| (name.as_str(), policy)))
    }

    /// What is allowed here and yet unwise, each with the name of its policy.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let warn =
            |(name, policy)| warnings(policy).into_iter().map(move |warning| format!("policy {name}: {warning}"));
        self.all().flat_map(warn).collect()
    }

    /// Tells once of an open charge whose policy is gone: it goes on by the default one.
    pub(super) fn miss(&self, draft: &mut Draft) {
        let Some(name) = draft.intent.policy.clone() else { return };
        // Nothing is planned for what is held or has ended; and of what a recovery holds the note could not be stored.
        if draft.intent.stage().is_terminal() || matches!(draft.intent.stage(), Stage::Held { .. }) {
            return;
        }
        let missing = self.get(&name).is_none();
        if missing && !draft.intent.progress.policy_missed {
            let known: Vec<&str> = self.names().collect();
            let message = "the policy of a charge is not in the policy file any more: the default one is used";
            draft.alert("policy_missing", message, json!({ "policy": name, "known": known }));
        }
        draft.intent.progress.policy_missed = missing;
    }
}

/// What is allowed in this policy and yet unwise: more attempts than card schemes allow. Each kind of decline is judged by itself, at
/// its quickest.
#[must_use]
pub fn warnings(policy: &Policy) -> Vec<String> {
    let quickest = Policy { lot: Lot::Fixed(0.0), ..policy.clone() };
    let mut warnings = Vec::new();
    for (key, reason) in [("soft_declined", Decline::SoftDeclined), ("processing_failure", Decline::ProcessingFailure)]
    {
        let most = most_within(&retries_of(reason, &quickest), 30 * DAY);
        for (scheme, ceiling) in CEILINGS.iter().filter(|(_, ceiling)| most > *ceiling) {
            warnings.push(format!(
                "{key}: {most} attempts are possible within 30 days; {scheme} is said to allow {ceiling}"
            ));
        }
    }
    warnings
}
