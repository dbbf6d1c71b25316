//! What the pure core costs per charge and per notification, without network or Redis: `make bench`.
//!
//! These are parts of a request that takes tens of microseconds; they show a slip of the core, not the service's speed.

use amazon_pay_ipn::model::ids::{
    Account, ChargePermissionId, ChargeTag, Environment, IdempotencyKey, IntentId, Region,
};
use amazon_pay_ipn::model::money::{Currency, Money};
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

/// Once per number, before each mark.
#[divan::bench]
fn idempotency_key(bencher: Bencher<'_, '_>) {
    let merchant = "A2K7NDRCTOTPW9".parse().expect("a merchant id");
    let account = Account { merchant, environment: Environment::Live, region: Region::Na };
    let intent: IntentId = "sub-42.2026-11".parse().expect("an intent id");
    bencher.bench(|| IdempotencyKey::derive(black_box(&account), black_box(&intent), black_box(3)));
}

/// Once per charge that Amazon shows us.
#[divan::bench]
fn charge_tag_of_our_charge() -> Option<ChargeTag> {
    ChargeTag::parse(black_box("amazon-pay-ipn/v1/sub-42.2026-11/3"))
}

/// Once per notification.
#[divan::bench]
fn charge_permission_id() -> Option<ChargePermissionId> {
    black_box("C01-0000000-0000000").parse().ok()
}

/// Twice per read permission (limit and balance), once per submitted charge.
#[divan::bench(args = ["14", "14.00", "999999.99"])]
fn money(bencher: Bencher<'_, '_>, amount: &str) {
    let currency: Currency = "USD".parse().expect("a currency");
    bencher.bench(|| Money::parse(black_box(amount), black_box(currency)));
}
