//! What a caller asks for: the fields of Create Charge, checked before anything is stored.
//!
//! The request is kept as submitted for the life of the intent, because the bytes that we send to Amazon are a pure function of it
//! and of the number.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::ChargePermissionId;
use super::money::Money;

/// The Create Charge fields of a charge intent.
/// Source: <https://developer.amazon.com/docs/amazon-pay-api-v2/charge.html#create-charge>.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChargeRequest {
    /// The permission to charge.
    pub charge_permission_id: ChargePermissionId,
    /// The amount.
    pub charge_amount: Money,
    /// Capture at once (`true`), or only authorise.
    #[serde(default)]
    pub capture_now: bool,
    /// At most 16 characters on the buyer's statement; only with `capture_now`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_descriptor: Option<String>,
    /// Allow an asynchronous authorisation of up to 24 hours.
    #[serde(default)]
    pub can_handle_pending_authorization: bool,
    /// The caller's metadata; `customInformation` is ours and never set here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merchant_metadata: Option<MerchantMetadata>,
    /// For payment service providers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_metadata: Option<ProviderMetadata>,
    /// Who starts the charge, and how often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_initiator: Option<ChargeInitiator>,
    /// Where the buyer is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// The id of a solution provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_id: Option<String>,
    /// Sandbox only: asks Amazon to answer in a certain way (`x-amz-pay-simulation-code`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulation_code: Option<String>,
}

/// `merchantMetadata` without `customInformation`, which carries our own tag.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MerchantMetadata {
    /// The merchant's order or invoice number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merchant_reference_id: Option<String>,
    /// The shop's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merchant_store_name: Option<String>,
    /// A note in the mail to the buyer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note_to_buyer: Option<String>,
}

/// `providerMetadata`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderMetadata {
    /// The provider's own reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_reference_id: Option<String>,
}

/// Customer- or merchant-initiated, unscheduled or recurring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChargeInitiator {
    /// Customer-initiated, unscheduled.
    Citu,
    /// Merchant-initiated, unscheduled.
    Mitu,
    /// Customer-initiated, recurring.
    Citr,
    /// Merchant-initiated, recurring.
    Mitr,
}

/// The channel of the purchase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Channel {
    /// Web shop.
    Web,
    /// By phone.
    Phone,
    /// Mobile app.
    App,
    /// Alexa.
    Alexa,
    /// Point of sale.
    PointOfSale,
    /// Fire TV.
    FireTv,
    /// Offline.
    Offline,
    /// Amazon's own shop.
    Amazon,
}
