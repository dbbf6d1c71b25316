//! Whether the Redis user may do all that the service does: asked once, before anything is done. `docs/REDIS.md` has the ACL; a test
//! holds it, this table and the scripts together.

use redis::Script;
use serde_json::json;

use super::account::Init;
use super::keys::Keys;
use super::{Store, StoreError};
use crate::model::ids::{ChargePermissionId, IntentId};

/// Every command of the service, of its scripts too, as a call: `K` stands for a key.
const COMMANDS: &[&str] = &[
    "PING",
    "TIME",
    "SCRIPT LOAD x",
    "EVALSHA x 1 K",
    "INFO server",
    "EXISTS K",
    "TYPE K",
    "PERSIST K",
    "PEXPIRE K 1",
    "SET K x",
    "HGET K x",
    "HMGET K x",
    "HGETALL K",
    "HLEN K",
    "HEXISTS K x",
    "HSET K x x",
    "HSETNX K x x",
    "HDEL K x",
    "HINCRBY K x 1",
    "ZADD K 1 x",
    "ZCARD K",
    "ZCOUNT K 0 1",
    "ZRANGE K 0 1",
    "ZRANGEBYSCORE K 0 1",
    "ZRANK K x",
    "ZREM K x",
    "ZSCORE K x",
    "XADD K * x x",
    "XDEL K 1-0",
    "XLEN K",
    "XRANGE K - + COUNT 1",
    "XREVRANGE K + - COUNT 1",
    "XTRIM K MINID 0",
    "XRANGE K - +",
    "XINFO GROUPS K",
    "XPENDING K x",
];

/// What a recovery after a loss needs besides. It shows the names of all keys of the server, hence not in every day's permissions.
const RECOVERY_COMMAND: &str = "SCAN 0";

/// What waiting for replicas needs besides (`WAIT_REPLICAS`).
const WAITING_COMMAND: &str = "WAIT 1 1";

const CHECK: &str = include_str!("lua/check_access.lua");

impl Store {
    /// Asks the server whether the user of this connection may run every command on every key, for `serve` or for a way of `init`.
    /// Servers before Redis 7 cannot tell; then nothing is found missing.
    ///
    /// # Errors
    /// [`StoreError::Forbidden`] with all that is missing, [`StoreError::NoConnection`] when there is no way to Redis; any other when the
    /// connection is lost meanwhile.
    pub async fn check_access(&self, init: Option<Init>) -> Result<(), StoreError> {
        let mut handle = self.0.connection.handle();
        // A server that wants a password takes only short commands before it has one, and calls the others a protocol error.
        if let Err(error) = redis::cmd("PING").exec_async(&mut handle).await {
            return Err(StoreError::NoConnection(self.0.connection.why(error).await));
        }
        let keys = samples(&self.0.keys);
        let scans = matches!(init, Some(Init::AfterLoss | Init::AfterRestore)).then_some(RECOVERY_COMMAND);
        let waits = self.0.waiting.as_ref().map(|_| WAITING_COMMAND);
        // A permission is for a command or for a key: each is asked about once, not each command with each key.
        let commands = COMMANDS.iter().copied().chain(scans).chain(waits).map(|call| words(call, &keys[0]));
        let accesses = keys.iter().map(|key| words("EVALSHA x 1 K", key));
        let calls: Vec<Vec<String>> = commands.chain(accesses).collect();
        let script = Script::new(CHECK);
        let mut invocation = script.prepare_invoke();
        for call in &calls {
            invocation.arg(json!(call).to_string());
        }
        let refused: Vec<String> = invocation.invoke_async(&mut handle).await?;
        if refused.is_empty() {
            return Ok(());
        }
        let is_refused = |call: &Vec<String>| refused.contains(&json!(call).to_string());
        let refused_keys: Vec<&String> = keys.iter().filter(|key| is_refused(&words("EVALSHA x 1 K", key))).collect();
        // Where EVALSHA itself is refused the server said so before this point: what it refuses here, it refuses for the key. Then
        // nothing is known of the commands that take that key.
        let mut missing: Vec<String> = match refused_keys.len() {
            all if all == keys.len() => vec![format!("use the keys {}*", keys[0].trim_end_matches("marker"))],
            _ => refused_keys.iter().map(|key| format!("use the key {key}")).collect(),
        };
        let of_a_refused_key = |call: &Vec<String>| call.iter().any(|word| refused_keys.contains(&word));
        missing.extend(
            calls.iter().filter(|call| is_refused(call) && !of_a_refused_key(call)).map(|call| command_of(call)),
        );
        missing.dedup();
        Err(StoreError::Forbidden(missing))
    }
}

/// One key of each kind.
fn samples(keys: &Keys) -> Vec<String> {
    let mut samples = vec![keys.marker(), keys.schedule(), keys.events(), keys.journal(), keys.quarantine()];
    samples.extend([keys.quota(), keys.waiting(), keys.tickets(), keys.held_back(), keys.forward(), keys.arrivals()]);
    samples.push(keys.seen("x"));
    samples.extend([keys.index("held"), keys.index_expiry()]);
    if let Ok(permission) = "C00-0000000-0000000".parse::<ChargePermissionId>() {
        samples.extend([keys.permission(&permission), keys.hints(&permission), keys.open(&permission)]);
    }
    if let Ok(intent) = "x".parse::<IntentId>() {
        samples.push(keys.intent(&intent));
    }
    samples
}

fn words(call: &str, key: &str) -> Vec<String> {
    call.split(' ').map(|word| if word == "K" { key } else { word }.to_owned()).collect()
}

/// As ACL rules write it: `run +script|load`.
fn command_of(call: &[String]) -> String {
    match call {
        [command, second, ..] if command == "SCRIPT" => format!("run +{command}|{second}").to_lowercase(),
        [command, ..] => format!("run +{command}").to_lowercase(),
        [] => String::new(),
    }
}
