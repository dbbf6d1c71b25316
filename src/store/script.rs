//! Scripts by their SHA, and their answers: an array whose first element names the outcome.

use std::sync::LazyLock;

use redis::{FromRedisValue, Script, Value};

use super::{Store, StoreError};
use crate::clock::Stopwatch;
use crate::telemetry::metric;

/// A script of `lua/`, with the prelude before it.
pub(super) struct NamedScript {
    pub(super) name: &'static str,
    script: LazyLock<Script>,
}

macro_rules! scripts {
    ($($constant:ident = $name:literal;)*) => {
        $(pub(super) static $constant: NamedScript = NamedScript {
            name: $name,
            script: LazyLock::new(|| {
                Script::new(concat!(include_str!("lua/prelude.lua"), "\n", include_str!(concat!("lua/", $name, ".lua"))))
            }),
        };)*
    };
}

scripts! {
    ACCEPT_NOTIFICATION = "accept_notification";
    KEEP_NOTIFICATION = "keep_notification";
    SUBMIT_CHARGE = "submit_charge";
    CANCEL_CHARGE = "cancel_charge";
    CLAIM_PERMISSION = "claim_permission";
    RENEW_LEASE = "renew_lease";
    RELEASE_LEASE = "release_lease";
    MARK_SEND = "mark_send";
    REQUEST_CAPTURE = "request_capture";
    MARK_CAPTURE = "mark_capture";
    COMMIT_RECONCILIATION = "commit_reconciliation";
    ADD_HINT = "add_hint";
    REPLAY_QUARANTINED = "replay_quarantined";
    SET_STOP = "set_stop";
    INIT_ACCOUNT = "init_account";
    HOLD_INTENT = "hold_intent";
    REQUEST_CLOSE = "request_close";
    REQUEST_LOOK = "request_look";
    RETRY_CHARGE = "retry_charge";
    SET_PAUSE = "set_pause";
    RESOLVE_INTENT = "resolve_intent";
    LIST_INTENT = "list_intent";
    TRIM_LISTS = "trim_lists";
    TRIM_EVENTS = "trim_events";
    TELL_NEVER_HEARD = "tell_never_heard";
    NOTE_ARRIVALS = "note_arrivals";
    TAKE_FORWARDS = "take_forwards";
    PUT_OFF_FORWARD = "put_off_forward";
    GIVE_UP_FORWARD = "give_up_forward";
    LIST_DUE = "list_due";
    RESERVE_QUOTA = "reserve_quota";
    NOTE_THROTTLED = "note_throttled";
    SET_FAULT = "set_fault";
    PUT_OFF = "put_off";
}

/// Scripts after which somebody is told that something is so, or a request goes out: with `WAIT_REPLICAS` they count only once replicas
/// have confirmed them. What the others write is found again by looking at Amazon, or is asked for again.
const PROMISES: [&str; 15] = [
    "accept_notification",
    "keep_notification",
    "submit_charge",
    "cancel_charge",
    "mark_send",
    "request_capture",
    "mark_capture",
    "set_stop",
    "set_pause",
    "init_account",
    "hold_intent",
    "request_close",
    "retry_charge",
    "resolve_intent",
    "replay_quarantined",
];

/// The answer of a script.
pub(super) struct Reply {
    script: &'static str,
    values: Vec<Value>,
}

impl Reply {
    /// The outcome.
    pub(super) fn outcome(&self) -> &str {
        match self.values.first() {
            Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).unwrap_or_default(),
            Some(Value::SimpleString(text)) => text,
            _ => "",
        }
    }

    /// How many elements there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The element at `index`, as the type asked for.
    pub(super) fn take<T: FromRedisValue>(&mut self, index: usize) -> Result<T, StoreError> {
        let value = self.values.get_mut(index).map_or(Value::Nil, |value| std::mem::replace(value, Value::Nil));
        T::from_redis_value(value).map_err(|_| self.unexpected())
    }

    /// The error for an answer that the wrapper does not know.
    pub(super) fn unexpected(&self) -> StoreError {
        let reply: String = format!("{:?}", self.values).chars().take(200).collect();
        StoreError::Unexpected { script: self.script, reply }
    }
}

impl Store {
    /// Runs a script. The clock offset is always the first argument; the outcomes that every script shares become errors. A promise is
    /// waited for whatever its outcome: that it was stored before, too, is true only if the replicas have it.
    pub(super) async fn run(
        &self,
        script: &'static NamedScript,
        keys: &[String],
        args: &[&str],
    ) -> Result<Reply, StoreError> {
        let stopwatch = Stopwatch::start();
        let mut invocation = script.script.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        let waiting = self.0.waiting.as_ref().filter(|_| PROMISES.contains(&script.name));
        let offset = self.0.clock.offset_ms();
        invocation.arg(if waiting.is_some() { format!("{offset} promise") } else { offset.to_string() });
        for arg in args {
            invocation.arg(*arg);
        }
        let mut promise = match waiting {
            Some(waiting) => Some(waiting.promise().await?),
            None => None,
        };
        let result: redis::RedisResult<Vec<Value>> = match &mut promise {
            Some(promise) => invocation.invoke_async(&mut promise.handle).await,
            None => invocation.invoke_async(&mut self.0.connection.handle()).await,
        };
        let mut reply = Reply { script: script.name, values: result? };
        let reply = match reply.outcome() {
            "no_marker" => Err(StoreError::NoMarker),
            "wrong_type" => Err(StoreError::WrongType(reply.take(1)?)),
            "newer" => Err(StoreError::Newer(reply.take(1)?)),
            "" => Err(reply.unexpected()),
            _ => Ok(reply),
        };
        if reply.is_ok()
            && let Some(promise) = promise
        {
            promise.kept().await?;
        }
        metrics::histogram!(metric::REDIS_SCRIPT_SECONDS, "script" => script.name).record(stopwatch.elapsed());
        reply
    }
}
