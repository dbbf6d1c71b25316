//! Charges that are to be read at Amazon although no notification names them.

use serde_json::json;

use super::script::ADD_HINT;
use super::{Store, StoreError};
use crate::model::charge_intent::ChargeIntent;
use crate::model::hint::{Hint, HintNote, ObjectType};
use crate::model::ids::{ChargeId, ChargePermissionId, IntentId};

impl Store {
    /// Notes a charge that is to be read and matched, without a notification.
    ///
    /// # Errors
    /// When it is not certain that it was noted. The same again is safe.
    pub async fn note_charge(&self, permission: &ChargePermissionId, charge: &ChargeId) -> Result<(), StoreError> {
        self.note(permission, charge, None).await
    }

    /// Notes a charge that is to be read; with an intent, if an operator says that it is the one of it.
    async fn note(
        &self,
        permission: &ChargePermissionId,
        charge: &ChargeId,
        for_intent: Option<&IntentId>,
    ) -> Result<(), StoreError> {
        let inner = &self.0;
        let hint = Hint {
            object_type: ObjectType::Charge,
            object_id: charge.clone().into(),
            note: HintNote {
                message_id: String::new(),
                published_at: inner.clock.now(),
                refusals: 0,
                not_before: None,
                swept_since: None,
                for_intent: for_intent.cloned(),
            },
        };
        let keys = [
            inner.keys.marker(),
            inner.keys.permission(permission),
            inner.keys.hints(permission),
            inner.keys.schedule(),
        ];
        let reply =
            self.run(&ADD_HINT, &keys, &[permission.as_str(), &hint.field(), &json!(hint.note).to_string()]).await?;
        if reply.outcome() != "noted" {
            return Err(reply.unexpected());
        }
        self.nudge();
        Ok(())
    }

    /// Notes that an operator says: this charge is the one of this intent. It is read at Amazon and matched; nothing is believed.
    ///
    /// # Errors
    /// When it is not certain that it was noted. The same again is safe.
    pub async fn claim_charge(&self, intent: &ChargeIntent, charge: &ChargeId) -> Result<(), StoreError> {
        self.note(&intent.request.charge_permission_id, charge, Some(&intent.id)).await
    }
}
