//! The documented throttle over HTTP, and the sandbox at scale.

use super::super::charges::Keyed;
use super::super::ledger::Books;
use super::super::wire::ChargeRequest;
use super::*;
use crate::clock::Stopwatch;

#[tokio::test]
async fn a_throttled_request_is_a_429_that_leaves_no_trace_under_its_key() {
    let (sandbox, clock, client, permission) = start().await;
    assert_eq!(client.charge(&permission, "key-0", "1.00").await.status, 201, "off by default");
    sandbox.set_throttle(Some(Throttle::sandbox()));
    for key in ["key-1", "key-2"] {
        assert_eq!(client.charge(&permission, key, "1.00").await.status, 201);
    }
    // The clock of this test stands still only nearly: a token takes a second to come back.
    let refused = client.charge(&permission, "key-3", "1.00").await;
    assert_eq!(refused.short(), (429, "TooManyRequests"));
    assert!(!refused.headers.contains_key("retry-after"), "Amazon documents none");
    assert_eq!(client.get(&format!("/v2/chargePermissions/{permission}")).await.status, 200, "a bucket of its own");
    assert_eq!((sandbox.charges_of(&permission).len(), sandbox.answers(Operation::CreateCharge, 429)), (3, 1));
    clock.advance(Duration::from_secs(1));
    let same_key_other_values = client.charge(&permission, "key-3", "2.00").await;
    assert_eq!(same_key_other_values.status, 201, "the key was never used");
    sandbox.set_throttle(Some(Throttle::sandbox().with_retry_after()));
    for key in ["key-4", "key-5"] {
        client.charge(&permission, key, "1.00").await;
    }
    let refused = client.charge(&permission, "key-6", "1.00").await;
    assert_eq!((refused.status, refused.headers["retry-after"].to_str().unwrap()), (429, "1"));
    sandbox.set_throttle(None);
    for number in 0..20 {
        assert_eq!(client.charge(&permission, &format!("key-7-{number}"), "1.00").await.status, 201);
    }
    let ledger = sandbox.ledger();
    let throttled = ledger.requests.iter().filter(|request| request.reason_code.as_deref() == Some("TooManyRequests"));
    assert_eq!((throttled.count(), sandbox.answers(Operation::CreateCharge, 201)), (2, 26));
}

#[tokio::test]
async fn a_stranger_without_a_signature_uses_up_nobodys_quota() {
    let (sandbox, clock, client, permission) = start().await;
    sandbox.set_throttle(Some(Throttle::sandbox()));
    let stranger = Client::of(&sandbox, &Clock::fixed(clock.now() - Duration::from_hours(1)));
    for _ in 0..9 {
        assert_eq!(stranger.charge(&permission, "key-1", "1.00").await.status, 403);
    }
    assert_eq!(client.charge(&permission, "key-1", "1.00").await.status, 201);
}

#[test]
fn a_request_costs_the_same_among_a_hundred_thousand_permissions_as_among_a_thousand() {
    let now = Clock::system().now();
    let took = |permissions: u32| {
        let mut books = Books::new("A1".to_owned(), Reading::ReplayAll, '1', None);
        let spec = PermissionSpec::recurring("USD").with_monthly_limit(Decimal::from(100));
        let ids: Vec<String> = (0..permissions).map(|_| books.create_permission(spec.clone(), now)).collect();
        let stopwatch = Stopwatch::start();
        for (number, id) in ids.iter().rev().take(500).enumerate() {
            let request = ChargeRequest::read(charge_body(id, "14.00").as_bytes()).unwrap();
            let key = format!("key-{number}");
            let answer = books.create_charge(Keyed { key: &key, simulated: None }, &request, now);
            assert_eq!(answer.status, 201);
            let charge = answer.charge_id.unwrap();
            assert!(books.get_charge(&charge).is_ok() && books.get_permission(id, now).is_ok());
        }
        stopwatch.elapsed()
    };
    // A scan per request would make it a hundred times as long; the rest is for a busy machine.
    let (few, many) = (took(1_000), took(100_000));
    assert!(many < few * 20 + Duration::from_secs(1), "{few:?} among few, {many:?} among many");
}
