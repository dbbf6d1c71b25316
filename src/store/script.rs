//! Scripts by their SHA, and their answers: an array whose first element names the outcome.

use std::sync::LazyLock;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, Script, ServerErrorKind, Value};

use super::connection::Handle;
use super::{Store, StoreError};
use crate::clock::Stopwatch;
use crate::telemetry::metric;

/// A script of `lua/`, with the prelude and the parts that it uses before it.
pub(super) struct NamedScript {
    pub(super) name: &'static str,
    script: LazyLock<Script>,
}

impl NamedScript {
    /// All in one buffer: the crate's own invocation makes one for each key and argument.
    fn command<K: AsRef<str>>(&self, keys: &[K], offset: &str, args: &[&str]) -> Cmd {
        let bytes = keys.iter().map(|key| key.as_ref().len()).chain(args.iter().map(|arg| arg.len())).sum::<usize>();
        let mut command = Cmd::with_capacity(keys.len() + args.len() + 4, bytes + 80);
        command.arg("EVALSHA").arg(self.script.get_hash()).arg(keys.len());
        for key in keys {
            command.arg(key.as_ref());
        }
        command.arg(offset).arg(args);
        command
    }

    /// A server that does not know the script is given it, and asked again: it has done nothing.
    async fn invoke(&self, command: &Cmd, handle: &mut Handle) -> RedisResult<Vec<Value>> {
        match command.query_async(handle).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.script.load_async(handle).await?;
                command.query_async(handle).await
            }
            result => result,
        }
    }
}

macro_rules! scripts {
    ($($constant:ident = $name:literal $(, $part:literal)*;)*) => {
        $(pub(super) static $constant: NamedScript = NamedScript {
            name: $name,
            script: LazyLock::new(|| {
                Script::new(concat!(
                    include_str!("lua/prelude.lua"), "\n",
                    $(include_str!(concat!("lua/parts/", $part, ".lua")), "\n",)*
                    include_str!(concat!("lua/", $name, ".lua")),
                ))
            }),
        };)*

        /// Name, parts and text of each.
        #[cfg(test)]
        const ALL: &[(&str, &[&str], &str)] =
            &[$(($name, &[$($part),*], include_str!(concat!("lua/", $name, ".lua")))),*];
    };
}

scripts! {
    ACCEPT_NOTIFICATIONS = "accept_notifications", "wake";
    KEEP_NOTIFICATION = "keep_notification", "events";
    SUBMIT_CHARGE = "submit_charge", "halts", "wake", "events", "lists";
    CANCEL_CHARGE = "cancel_charge", "wake", "events", "lists";
    CLAIM_PERMISSION = "claim_permission", "halts", "wake";
    RENEW_LEASE = "renew_lease", "wake";
    RELEASE_LEASE = "release_lease";
    MARK_SEND = "mark_send", "halts", "events", "server", "lists";
    REQUEST_CAPTURE = "request_capture", "wake", "events";
    MARK_CAPTURE = "mark_capture", "halts", "events", "server";
    COMMIT_RECONCILIATION = "commit_reconciliation", "wake", "events", "lists", "quota";
    ADD_HINT = "add_hint", "wake";
    REPLAY_QUARANTINED = "replay_quarantined", "wake";
    SET_STOP = "set_stop", "halts", "events";
    INIT_ACCOUNT = "init_account", "halts", "server";
    HOLD_INTENT = "hold_intent", "events", "lists";
    REQUEST_CLOSE = "request_close", "wake";
    REQUEST_LOOK = "request_look", "wake";
    RETRY_CHARGE = "retry_charge", "halts", "wake";
    SET_PAUSE = "set_pause", "halts", "wake", "events", "lists";
    RESOLVE_INTENT = "resolve_intent", "halts", "wake", "events", "lists";
    LIST_INTENT = "list_intent", "lists";
    TRIM_LISTS = "trim_lists", "lists";
    TRIM_EVENTS = "trim_events", "events";
    TELL_NEVER_HEARD = "tell_never_heard", "events";
    NOTE_ARRIVALS = "note_arrivals";
    TAKE_FORWARDS = "take_forwards";
    PUT_OFF_FORWARD = "put_off_forward";
    GIVE_UP_FORWARD = "give_up_forward", "events";
    LIST_DUE = "list_due", "quota";
    RESERVE_QUOTA = "reserve_quota", "wake", "quota";
    NOTE_THROTTLED = "note_throttled", "quota";
    SET_FAULT = "set_fault", "halts", "events";
    PUT_OFF = "put_off", "wake", "events", "quota";
}

/// Scripts after which somebody is told that something is so, or a request goes out: with `WAIT_REPLICAS` they count only once replicas
/// have confirmed them. What the others write is found again by looking at Amazon, or is asked for again.
const PROMISES: [&str; 15] = [
    "accept_notifications",
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
    pub(super) async fn run<K: AsRef<str> + Sync>(
        &self,
        script: &'static NamedScript,
        keys: &[K],
        args: &[&str],
    ) -> Result<Reply, StoreError> {
        let stopwatch = Stopwatch::start();
        let waiting = self.0.waiting.as_ref().filter(|_| PROMISES.contains(&script.name));
        let offset = self.0.clock.offset_ms();
        let offset = if waiting.is_some() { format!("{offset} promise") } else { offset.to_string() };
        let command = script.command(keys, &offset, args);
        let mut promise = match waiting {
            Some(waiting) => Some(waiting.promise().await?),
            None => None,
        };
        let result = match &mut promise {
            Some(promise) => script.invoke(&command, &mut promise.handle).await,
            None => script.invoke(&command, &mut self.0.connection.handle()).await,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ALL;

    const PARTS: [(&str, &str); 6] = [
        ("halts", include_str!("lua/parts/halts.lua")),
        ("wake", include_str!("lua/parts/wake.lua")),
        ("events", include_str!("lua/parts/events.lua")),
        ("server", include_str!("lua/parts/server.lua")),
        ("lists", include_str!("lua/parts/lists.lua")),
        ("quota", include_str!("lua/parts/quota.lua")),
    ];

    /// What a part defines at its top.
    fn defines(text: &str) -> BTreeSet<&str> {
        let names = text.lines().filter_map(|line| line.strip_prefix("local "));
        names.filter_map(|name| name.trim_start_matches("function ").split(['(', ' ']).next()).collect()
    }

    /// Words outside comments.
    fn words(text: &str) -> BTreeSet<&str> {
        let code = text.lines().map(|line| line.split("--").next().unwrap_or_default());
        code.flat_map(|line| line.split(|letter: char| !letter.is_alphanumeric() && letter != '_')).collect()
    }

    #[test]
    fn every_script_is_given_the_parts_that_it_uses_and_no_others() {
        for (name, parts, text) in ALL {
            let used = PARTS.iter().filter(|(_, part)| !defines(part).is_disjoint(&words(text)));
            assert_eq!(used.map(|(name, _)| *name).collect::<Vec<_>>(), *parts, "{name}");
        }
        for (name, part) in PARTS {
            let others =
                PARTS.iter().filter(|(other, text)| *other != name && !defines(text).is_disjoint(&words(part)));
            assert_eq!(others.count(), 0, "{name} works by itself");
        }
    }
}
