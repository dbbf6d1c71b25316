//! The sandbox's own wire types: what a Create Charge body may contain, and what Amazon's answers look like.
//!
//! Sources: <https://developer.amazon.com/docs/amazon-pay-api-v2/charge.html>,
//! <https://developer.amazon.com/docs/amazon-pay-api-v2/charge-permission.html>,
//! <https://developer.amazon.com/docs/amazon-pay-api-v2/error-handling.html>.

use std::borrow::Cow;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::ledger::Charge;
use super::permissions::{Permission, PermissionKind};

/// Buyer data as Amazon sends it with a charge permission. The service must never log, store or publish any of these.
pub const BUYER_SECRETS: [&str; 6] = [
    "Zebedee Quuxington",
    "zebedee.quuxington@example.com",
    "amzn1.account.ZQUUXBUYERID",
    "+1-206-555-0142",
    "4711 Quuxington Crescent",
    "Zymurgyville",
];

/// An error answer: `{"reasonCode", "message"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: Cow<'static, str>,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::new(404, "ResourceNotFound", format!("The resource {what} does not exist"))
    }
}

/// What the API answers, and what the ledger notes about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
    pub(super) reason_code: Option<String>,
    pub(super) permission_id: Option<String>,
    pub(super) charge_id: Option<String>,
    /// The refund or dispute.
    pub(super) object_id: Option<String>,
    /// Given before under the same idempotency key, and only repeated now.
    pub(super) replayed: bool,
    /// The header `Retry-After`.
    pub(super) retry_after_s: Option<u64>,
}

impl Answer {
    pub(super) fn of_charge(status: u16, charge: &Charge) -> Self {
        Self { charge_id: Some(charge.id.clone()), ..Self::of(status, charge_body(charge)) }
    }

    pub(super) fn of_permission(body: Value) -> Self {
        Self::of(200, body)
    }

    /// A refund or a dispute.
    pub(super) fn of_object(status: u16, body: Value, id: &str, charge_id: &str, permission_id: &str) -> Self {
        Self {
            permission_id: Some(permission_id.to_owned()),
            charge_id: Some(charge_id.to_owned()),
            object_id: Some(id.to_owned()),
            ..Self::of(status, body)
        }
    }

    fn of(status: u16, body: Value) -> Self {
        let (permission_id, charge_id, object_id) = (None, None, None);
        let (reason_code, retry_after_s) = (None, None);
        Self { status, body, reason_code, permission_id, charge_id, object_id, replayed: false, retry_after_s }
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let body = json!({ "reasonCode": refusal.code, "message": refusal.message });
        let reason_code = Some(refusal.code.into_owned());
        Self { reason_code, ..Self::of(refusal.status, body) }
    }
}

/// The members of a JSON object, each read once; what remains was not expected.
pub(super) struct Fields {
    map: Map<String, Value>,
    path: &'static str,
}

impl Fields {
    pub(super) fn new(value: Value, path: &'static str) -> Result<Self, Refusal> {
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            _ => Err(invalid(&format!("{path} must be an object"))),
        }
    }

    fn optional(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn required(&mut self, name: &str) -> Result<Value, Refusal> {
        let path = self.path;
        self.optional(name)
            .ok_or_else(|| Refusal::new(400, "MissingParameterValue", format!("The parameter {path}{name} is missing")))
    }

    pub(super) fn required_text(&mut self, name: &str) -> Result<String, Refusal> {
        text(name, self.required(name)?)
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        self.optional(name).map(|value| text(name, value)).transpose()
    }

    fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        match self.optional(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(invalid(&format!("{name} must be true or false"))),
        }
    }

    /// An object of texts, for example `merchantMetadata`.
    fn texts(&mut self, name: &'static str, allowed: &[&str]) -> Result<Value, Refusal> {
        let Some(value) = self.optional(name) else { return Ok(Value::Null) };
        let mut fields = Self::new(value.clone(), name)?;
        for allowed in allowed {
            fields.text(allowed)?;
        }
        fields.finish()?;
        Ok(value)
    }

    pub(super) fn finish(self) -> Result<(), Refusal> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) => Err(Refusal::new(400, "UnrecognizedField", format!("The field {name} is not recognized"))),
        }
    }
}

fn invalid(message: &str) -> Refusal {
    Refusal::new(400, "InvalidParameterValue", message)
}

fn text(name: &str, value: Value) -> Result<String, Refusal> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(invalid(&format!("{name} must be a string"))),
    }
}

/// An amount with its currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Price {
    pub(super) amount: Decimal,
    pub(super) currency: String,
}

impl Price {
    pub(super) fn read(value: Value, path: &'static str) -> Result<Self, Refusal> {
        let mut fields = Fields::new(value, path)?;
        let (amount, currency) = (fields.required_text("amount")?, fields.required_text("currencyCode")?);
        fields.finish()?;
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid("currencyCode must be an ISO 4217 code"));
        }
        let plain = amount.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let parsed: Option<Decimal> = amount.parse().ok().filter(|parsed: &Decimal| plain && *parsed > Decimal::ZERO);
        let decimals = if currency == "JPY" { 0 } else { 2 };
        match parsed {
            Some(parsed) if parsed.scale() <= decimals => Ok(Self { amount: parsed, currency }),
            _ => Err(invalid("amount must be a positive decimal in the precision of its currency")),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        price(self.amount, &self.currency)
    }
}

pub(super) fn price(amount: Decimal, currency: &str) -> Value {
    json!({ "amount": amount.to_string(), "currencyCode": currency })
}

/// The body of Create Charge, checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChargeRequest {
    pub(super) permission_id: String,
    pub(super) price: Price,
    pub(super) capture_now: bool,
    pub(super) can_pend: bool,
    pub(super) soft_descriptor: Option<String>,
    pub(super) merchant_metadata: Value,
    provider_metadata: Value,
    web_checkout_details: Value,
    platform_id: Option<String>,
    charge_initiator: Option<String>,
    channel: Option<String>,
    /// The body as it was sent: the same idempotency key must always come with the same.
    pub(super) body: Value,
}

impl ChargeRequest {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let body = read_json(bytes)?;
        let mut fields = Fields::new(body.clone(), "")?;
        let request = Self {
            permission_id: fields.required_text("chargePermissionId")?,
            price: Price::read(fields.required("chargeAmount")?, "chargeAmount.")?,
            capture_now: fields.flag("captureNow")?,
            can_pend: fields.flag("canHandlePendingAuthorization")?,
            soft_descriptor: fields.text("softDescriptor")?,
            merchant_metadata: fields.texts(
                "merchantMetadata",
                &["merchantReferenceId", "merchantStoreName", "noteToBuyer", "customInformation"],
            )?,
            provider_metadata: fields.texts("providerMetadata", &["providerReferenceId"])?,
            web_checkout_details: fields.texts("webCheckoutDetails", &["checkoutResultReturnUrl"])?,
            platform_id: fields.text("platformId")?,
            charge_initiator: fields.text("chargeInitiator")?,
            channel: fields.text("channel")?,
            body,
        };
        fields.finish()?;
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), Refusal> {
        const INITIATORS: [&str; 4] = ["CITU", "MITU", "CITR", "MITR"];
        const CHANNELS: [&str; 8] = ["Web", "Phone", "App", "Alexa", "PointOfSale", "FireTv", "Offline", "Amazon"];
        check_soft_descriptor(self.soft_descriptor.as_deref())?;
        if self.soft_descriptor.is_some() && !self.capture_now {
            let message = "softDescriptor can only be given when captureNow is true";
            return Err(Refusal::new(400, "InvalidParameterCombination", message));
        }
        if self.charge_initiator.as_deref().is_some_and(|value| !INITIATORS.contains(&value)) {
            return Err(invalid("chargeInitiator must be CITU, MITU, CITR or MITR"));
        }
        if self.channel.as_deref().is_some_and(|value| !CHANNELS.contains(&value)) {
            return Err(invalid("channel is not one of the known channels"));
        }
        Ok(())
    }

    /// The merchant's own mark on the charge.
    pub(super) fn custom_information(&self) -> Option<String> {
        self.merchant_metadata["customInformation"].as_str().map(str::to_owned)
    }
}

pub(super) fn check_soft_descriptor(text: Option<&str>) -> Result<(), Refusal> {
    if text.is_some_and(|text| text.chars().count() > 16) {
        return Err(invalid("softDescriptor must have at most 16 characters"));
    }
    Ok(())
}

/// The body of Capture Charge, checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CaptureRequest {
    pub(super) price: Price,
    pub(super) soft_descriptor: Option<String>,
    pub(super) body: Value,
}

impl CaptureRequest {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let body = read_json(bytes)?;
        let mut fields = Fields::new(body.clone(), "")?;
        let price = Price::read(fields.required("captureAmount")?, "captureAmount.")?;
        let soft_descriptor = fields.text("softDescriptor")?;
        fields.finish()?;
        check_soft_descriptor(soft_descriptor.as_deref())?;
        Ok(Self { price, soft_descriptor, body })
    }
}

/// Checks the body of Cancel Charge.
pub(super) fn read_cancellation(bytes: &[u8]) -> Result<(), Refusal> {
    let mut fields = Fields::new(read_json(bytes)?, "")?;
    fields.required_text("cancellationReason").and_then(|reason| at_most_255(&reason))?;
    fields.finish()
}

/// Reads `cancelPendingCharges` from the body of Close Charge Permission.
pub(super) fn read_closure(bytes: &[u8]) -> Result<bool, Refusal> {
    let mut fields = Fields::new(read_json(bytes)?, "")?;
    fields.required_text("closureReason").and_then(|reason| at_most_255(&reason))?;
    let cancel_pending = fields.flag("cancelPendingCharges")?;
    fields.finish()?;
    Ok(cancel_pending)
}

fn at_most_255(text: &str) -> Result<(), Refusal> {
    if text.chars().count() > 255 { Err(invalid("a reason must have at most 255 characters")) } else { Ok(()) }
}

pub(super) fn read_json(bytes: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|_| Refusal::new(400, "InvalidRequestFormat", "The request body is not valid JSON"))
}

/// `yyyyMMdd'T'HHmmss'Z'`, the form of every timestamp in the API.
pub(super) fn compact(timestamp: Timestamp) -> String {
    timestamp.strftime("%Y%m%dT%H%M%SZ").to_string()
}

const DAY_S: i64 = 86_400;

/// The charge object, as Create, Get, Capture and Cancel answer it.
pub(super) fn charge_body(charge: &Charge) -> Value {
    let currency = &charge.request.price.currency;
    let request = &charge.request;
    json!({
        "chargeId": charge.id,
        "chargePermissionId": request.permission_id,
        "chargeAmount": request.price.to_json(),
        "captureAmount": charge.captured.map(|amount| price(amount, currency)),
        "refundedAmount": charge.captured.map(|_| price(charge.refunded, currency)),
        // A bare string, as in Amazon's own sample; their SDK expects an object. Readers have to be lenient.
        "convertedAmount": charge.captured.map(|amount| amount.to_string()),
        "conversionRate": charge.captured.map(|_| "1.00"),
        "softDescriptor": charge.soft_descriptor,
        "captureNow": request.capture_now,
        "canHandlePendingAuthorization": request.can_pend,
        "merchantMetadata": request.merchant_metadata,
        "providerMetadata": request.provider_metadata,
        "webCheckoutDetails": request.web_checkout_details,
        "platformId": request.platform_id,
        "channel": request.channel,
        "chargeInitiator": request.charge_initiator,
        "statusDetails": {
            "state": charge.state.as_str(),
            "reasonCode": charge.reason_code,
            "reasonDescription": charge.reason_code.as_ref().map(|code| format!("Sandbox: {code}")),
            "lastUpdatedTimestamp": compact(charge.updated_at),
        },
        "creationTimestamp": compact(charge.created_at),
        "expirationTimestamp": compact(later(charge.created_at, 30)),
        "releaseEnvironment": "Sandbox",
    })
}

/// The charge permission object; `balance` is what is left of the monthly limit.
pub(super) fn permission_body(permission: &Permission, balance: Option<Decimal>) -> Value {
    let currency = &permission.spec.currency;
    let limit = |amount: Option<Decimal>| amount.map(|amount| price(amount, currency));
    let [name, email, buyer_id, phone, street, city] = BUYER_SECRETS;
    let address = json!({
        "name": name, "addressLine1": street, "addressLine2": null, "addressLine3": null, "city": city,
        "county": null, "district": null, "stateOrRegion": "WA", "postalCode": "98121", "countryCode": "US",
        "phoneNumber": phone,
    });
    let reasons: Vec<Value> = permission
        .reasons
        .iter()
        .map(|code| json!({ "reasonCode": code, "reasonDescription": format!("Sandbox: {code}") }))
        .collect();
    let recurring = (permission.spec.kind == PermissionKind::Recurring)
        .then(|| json!({ "frequency": { "unit": "Month", "value": "1" }, "amount": { "amount": null, "currencyCode": null } }));
    let on_file = (permission.spec.kind == PermissionKind::PaymentMethodOnFile).then(|| json!({ "setupOnly": false }));
    json!({
        "chargePermissionId": permission.id,
        "chargePermissionReferenceId": null,
        "chargePermissionType": permission.spec.kind.as_str(),
        "recurringMetadata": recurring,
        "paymentMethodOnFileMetadata": on_file,
        "buyer": {
            "buyerId": buyer_id, "name": name, "email": email, "phoneNumber": phone, "primeMembershipTypes": null,
        },
        "shippingAddress": address,
        "billingAddress": address,
        "paymentPreferences": [{ "paymentDescriptor": permission.descriptor }],
        "statusDetails": {
            "state": permission.state.as_str(),
            "reasons": if reasons.is_empty() { Value::Null } else { Value::Array(reasons) },
            "lastUpdatedTimestamp": compact(permission.updated_at),
        },
        "creationTimestamp": compact(permission.created_at),
        "expirationTimestamp": permission.spec.kind.lifetime_days().map(|days| compact(later(permission.created_at, days))),
        "merchantMetadata": {
            "merchantReferenceId": null, "merchantStoreName": null, "noteToBuyer": null, "customInformation": null,
        },
        "platformId": null,
        "limits": { "amountLimit": limit(permission.spec.monthly_limit), "amountBalance": limit(balance) },
        "presentmentCurrency": currency,
        "releaseEnvironment": "Sandbox",
    })
}

fn later(timestamp: Timestamp, days: i64) -> Timestamp {
    Timestamp::from_second(timestamp.as_second().saturating_add(days * DAY_S)).unwrap_or(Timestamp::MAX)
}
