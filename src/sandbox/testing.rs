//! A small signer and client for the sandbox's own tests.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderMap;
use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use rsa::Pss;
use rsa::rand_core::OsRng;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::signature::RawRequest;
use super::{PermissionSpec, Sandbox, SandboxSettings, keys};
use crate::clock::Clock;

pub(super) use super::PUBLIC_KEY_ID;

/// Signs as the documentation says, with knobs to do it wrong.
pub(super) struct Signer {
    pub(super) host: String,
    pub(super) now: Timestamp,
    pub(super) salt_length: usize,
    pub(super) algorithm: &'static str,
    pub(super) leave_unsigned: Option<&'static str>,
}

impl Signer {
    pub(super) fn new(host: &str, now: Timestamp) -> Self {
        let algorithm = "AMZN-PAY-RSASSA-PSS-V2";
        Self { host: host.to_owned(), now, salt_length: 32, algorithm, leave_unsigned: None }
    }

    pub(super) fn sign(&self, method: &str, path: &str, key: Option<&str>, body: &[u8]) -> RawRequest {
        let date = self.now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut all = vec![
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("x-amz-pay-date", &date),
            ("x-amz-pay-host", &self.host),
        ];
        all.extend(key.map(|key| ("x-amz-pay-idempotency-key", key)));
        all.push(("x-amz-pay-region", "na"));
        let signed: Vec<_> = all.iter().filter(|(name, _)| Some(*name) != self.leave_unsigned).collect();
        let lines: String = signed.iter().flat_map(|(name, value)| [name, ":", value, "\n"]).collect();
        let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let hash = |bytes: &[u8]| HEXLOWER.encode(&Sha256::digest(bytes));
        let canonical = format!("{method}\n{path}\n\n{lines}\n{names}\n{}", hash(body));
        let hashed = Sha256::digest(format!("{}\n{}", self.algorithm, hash(canonical.as_bytes())));
        let pss = Pss::new_with_salt::<Sha256>(self.salt_length);
        let signature = keys::shared().unwrap().merchant.sign_with_rng(&mut OsRng, pss, &hashed).unwrap();
        let signature = BASE64.encode(&signature);

        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.insert(name, value.parse().unwrap());
        }
        headers.insert("host", self.host.parse().unwrap());
        let authorization =
            format!("{} PublicKeyId={PUBLIC_KEY_ID}, SignedHeaders={names}, Signature={signature}", self.algorithm);
        headers.insert("authorization", authorization.parse().unwrap());
        RawRequest {
            method: method.parse().unwrap(),
            path: path.to_owned(),
            query: String::new(),
            headers,
            body: Bytes::copy_from_slice(body),
        }
    }
}

/// An answer as a client sees it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Reply {
    pub(super) fn reason(&self) -> &str {
        self.body["reasonCode"].as_str().unwrap_or_default()
    }

    /// Status and reason code, for short assertions.
    pub(super) fn short(&self) -> (u16, &str) {
        (self.status, self.reason())
    }
}

/// A client with the merchant's key.
#[derive(Clone)]
pub(super) struct Client {
    base_url: String,
    clock: Clock,
    http: reqwest::Client,
}

impl Client {
    pub(super) fn of(sandbox: &Sandbox, clock: &Clock) -> Self {
        let http = super::delivery::http_client(Duration::from_secs(20)).unwrap();
        Self { base_url: sandbox.base_url().to_owned(), clock: clock.clone(), http }
    }

    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &[u8],
        simulation: Option<&str>,
    ) -> reqwest::Result<Reply> {
        let host = self.base_url.trim_start_matches("http://");
        let mut signed = Signer::new(host, self.clock.now()).sign(method, path, key, body);
        if let Some(code) = simulation {
            signed.headers.insert("x-amz-pay-simulation-code", code.parse().unwrap());
        }
        let url = format!("{}{path}", self.base_url);
        let answer = self.http.request(signed.method, url).headers(signed.headers).body(signed.body).send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = serde_json::from_str(&answer.text().await?).unwrap_or(Value::Null);
        Ok(Reply { status, headers, body })
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, None, b"", None).await.unwrap()
    }

    pub(super) async fn delete(&self, path: &str, body: &str) -> Reply {
        self.send("DELETE", path, None, body.as_bytes(), None).await.unwrap()
    }

    pub(super) async fn charge(&self, permission: &str, key: &str, amount: &str) -> Reply {
        self.try_charge(permission, key, amount).await.unwrap()
    }

    pub(super) async fn try_charge(&self, permission: &str, key: &str, amount: &str) -> reqwest::Result<Reply> {
        self.send("POST", "/v2/charges", Some(key), charge_body(permission, amount).as_bytes(), None).await
    }
}

/// The body of a plain charge of USD that is captured at once.
pub(super) fn charge_body(permission: &str, amount: &str) -> String {
    serde_json::json!({
        "chargePermissionId": permission,
        "chargeAmount": { "amount": amount, "currencyCode": "USD" },
        "captureNow": true,
        "merchantMetadata": { "customInformation": "amazon-pay-ipn/v1/sub-42/0" },
    })
    .to_string()
}

/// A sandbox, its movable clock, a client and one recurring permission.
pub(super) async fn start() -> (Sandbox, Clock, Client, String) {
    let clock = Clock::movable();
    let sandbox = Sandbox::start(SandboxSettings::new(clock.clone())).await.unwrap();
    let client = Client::of(&sandbox, &clock);
    let permission = sandbox.create_permission(PermissionSpec::recurring("USD"));
    (sandbox, clock, client, permission)
}
