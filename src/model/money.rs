//! Money as decimals in the currency's own precision. Never a float.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use iso_currency::Currency as Iso;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::ids::Region;

/// An amount or currency that cannot be charged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not of the form `digits[.digits]`.
    #[error("expected a decimal string such as \"14.00\", got {0:?}")]
    NotADecimal(String),
    /// More decimals than the currency has.
    #[error("expected at most {allowed} decimals for {currency}, got {got:?}")]
    TooPrecise {
        /// Decimals of the currency.
        allowed: u32,
        /// ISO 4217 code.
        currency: &'static str,
        /// The text given.
        got: String,
    },
    /// Zero.
    #[error("expected an amount above zero, got {0:?}")]
    NotPositive(String),
    /// Not a currency that Amazon Pay charges in.
    #[error("expected one of AUD, CHF, DKK, EUR, GBP, HKD, JPY, NOK, NZD, SEK, USD, ZAR, got {0:?}")]
    UnknownCurrency(String),
}

/// A currency that Amazon Pay charges in.
/// Source: <https://developer.amazon.com/docs/amazon-pay-checkout/multi-currency-integration.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency(Iso);

impl Currency {
    const ALL: [Iso; 12] = [
        Iso::AUD,
        Iso::CHF,
        Iso::DKK,
        Iso::EUR,
        Iso::GBP,
        Iso::HKD,
        Iso::JPY,
        Iso::NOK,
        Iso::NZD,
        Iso::SEK,
        Iso::USD,
        Iso::ZAR,
    ];

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().map(Self)
    }

    /// The ISO 4217 code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// Whether an account of this region can charge in the currency.
    #[must_use]
    pub fn is_charged_in(self, region: Region) -> bool {
        match region {
            Region::Na => self.0 == Iso::USD,
            Region::Jp => self.0 == Iso::JPY,
            Region::Eu => true,
        }
    }

    /// The codes that an account of this region can charge in, for messages.
    #[must_use]
    pub fn codes_of(region: Region) -> String {
        let codes: Vec<&str> =
            Self::ALL.iter().map(|iso| Self(*iso)).filter(|c| c.is_charged_in(region)).map(Self::code).collect();
        codes.join(", ")
    }

    /// The most that one charge may take, where Amazon documents it: for the ledger currencies of its regions.
    /// Source: <https://developer.amazon.com/docs/amazon-pay-paymentmethodonfile/charge.html>.
    #[must_use]
    pub fn most_charged_at_once(self, region: Region) -> Option<Money> {
        let most = match (region, self.0) {
            (Region::Na, Iso::USD) | (Region::Eu, Iso::EUR | Iso::GBP) => 150_000,
            (Region::Jp, Iso::JPY) => 10_000_000,
            _ => return None,
        };
        let mut amount = Decimal::from(most);
        amount.rescale(self.decimals());
        Some(Money { amount, currency: self })
    }

    fn decimals(self) -> u32 {
        self.0.exponent().map_or(2, u32::from)
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        Self::ALL
            .iter()
            .find(|iso| iso.code() == text)
            .map(|iso| Self(*iso))
            .ok_or_else(|| MoneyError::UnknownCurrency(text.chars().take(20).collect()))
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;

    fn try_from(text: String) -> Result<Self, MoneyError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.code().to_owned()
    }
}

/// A positive amount in a currency, written with exactly the currency's decimals (`14.00` USD, `1400` JPY).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Price", into = "Price")]
pub struct Money {
    amount: Decimal,
    currency: Currency,
}

impl Money {
    /// Parses an amount that is to be charged.
    ///
    /// # Errors
    /// When the text is not a plain decimal, has more decimals than the currency, or is zero.
    pub fn parse(amount: &str, currency: Currency) -> Result<Self, MoneyError> {
        let money = Self::parse_balance(amount, currency)?;
        if money.amount.is_zero() {
            return Err(MoneyError::NotPositive(shown(amount)));
        }
        Ok(money)
    }

    /// Parses an amount that may be zero, such as what is left of a monthly limit.
    ///
    /// # Errors
    /// As [`Money::parse`], but zero is fine.
    pub fn parse_balance(amount: &str, currency: Currency) -> Result<Self, MoneyError> {
        let (whole, fraction) = match amount.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (amount, None),
        };
        let digits =
            |text: &str| !text.is_empty() && text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || fraction.is_some_and(|fraction| !digits(fraction)) {
            return Err(MoneyError::NotADecimal(shown(amount)));
        }
        let allowed = currency.decimals();
        if fraction.is_some_and(|fraction| fraction.trim_end_matches('0').len() > allowed as usize) {
            return Err(MoneyError::TooPrecise { allowed, currency: currency.code(), got: shown(amount) });
        }
        let mut value = Decimal::from_str_exact(amount).map_err(|_| MoneyError::NotADecimal(shown(amount)))?;
        value.rescale(allowed);
        Ok(Self { amount: value, currency })
    }

    /// The amount as Amazon wants it: a decimal string with the currency's decimals.
    #[must_use]
    pub fn amount(&self) -> String {
        self.amount.to_string()
    }

    /// The amount as near as a double comes to it: for figures, never for what is charged.
    #[must_use]
    pub fn approximate(&self) -> f64 {
        self.amount.to_f64().unwrap_or_default()
    }

    /// The currency.
    #[must_use]
    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// Both together; `None` when the currencies differ, or the sum is too large.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Option<Self> {
        let amount = self.amount.checked_add(other.amount).filter(|_| self.currency == other.currency)?;
        Some(Self { amount, currency: self.currency })
    }

    /// Whether this is more than `other`; `false` when the currencies differ, because then nothing can be said.
    #[must_use]
    pub fn exceeds(&self, other: &Self) -> bool {
        self.currency == other.currency && self.amount > other.amount
    }
}

impl JsonSchema for Money {
    fn schema_name() -> Cow<'static, str> {
        "Money".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let codes = Currency::ALL.map(|iso| iso.code());
        json_schema!({
            "type": "object",
            "description": "An amount in a currency, with exactly the decimals of the currency. Never a float.",
            "properties": {
                "amount": { "type": "string", "pattern": "^[0-9]{1,15}(\\.[0-9]{1,15})?$" },
                "currencyCode": { "type": "string", "enum": codes },
            },
            "required": ["amount", "currencyCode"],
        })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount, self.currency.code())
    }
}

/// Money as Amazon spells it in JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// Decimal string.
    pub amount: String,
    /// ISO 4217 code.
    pub currency_code: String,
}

impl TryFrom<Price> for Money {
    type Error = MoneyError;

    fn try_from(price: Price) -> Result<Self, MoneyError> {
        Self::parse_balance(&price.amount, price.currency_code.parse()?)
    }
}

impl From<Money> for Price {
    fn from(money: Money) -> Self {
        Self { amount: money.amount(), currency_code: money.currency.code().to_owned() }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd() -> Currency {
        "USD".parse().unwrap()
    }

    #[test]
    fn amounts_are_written_with_the_currencys_own_decimals() {
        assert_eq!(Money::parse("14", usd()).unwrap().amount(), "14.00");
        assert_eq!(Money::parse("14.5", usd()).unwrap().amount(), "14.50");
        assert_eq!(Money::parse("0.10", usd()).unwrap().amount(), "0.10");
        assert_eq!(Money::parse("1400", "JPY".parse().unwrap()).unwrap().amount(), "1400");
        assert_eq!(Money::parse("1400.00", "JPY".parse().unwrap()).unwrap().amount(), "1400");
    }

    #[test]
    fn anything_but_a_plain_positive_decimal_is_refused() {
        for bad in
            ["", ".5", "5.", "-1", "+1", "1e3", "1,00", " 1", "1 ", "0x1", "NaN", "0", "0.00", "12345678901234567890"]
        {
            assert!(Money::parse(bad, usd()).is_err(), "{bad:?}");
        }
        assert!(Money::parse("1.001", usd()).is_err());
        assert!(Money::parse("1.5", "JPY".parse().unwrap()).is_err());
    }

    #[test]
    fn a_currency_belongs_to_the_regions_that_charge_in_it() {
        assert!(usd().is_charged_in(Region::Na));
        assert!(!usd().is_charged_in(Region::Jp));
        assert!("GBP".parse::<Currency>().unwrap().is_charged_in(Region::Eu));
        assert_eq!(Currency::codes_of(Region::Jp), "JPY");
        assert!("XXX".parse::<Currency>().is_err());
        assert!("usd".parse::<Currency>().is_err());
    }

    #[test]
    fn amounts_of_different_currencies_are_never_compared() {
        let ten = Money::parse("10", usd()).unwrap();
        let nine = Money::parse("9", usd()).unwrap();
        let yen = Money::parse("1", "JPY".parse().unwrap()).unwrap();
        assert!(ten.exceeds(&nine) && !nine.exceeds(&ten) && !ten.exceeds(&yen));
    }
}
