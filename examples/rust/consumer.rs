//! A consumer of the events, in Rust with the `redis` crate. Any number of these may run in one group.
//!
//! Each event is handled at least once: read, handled, remembered, acknowledged, in this order. What a worker left unacknowledged when it
//! died is taken over by another one after a minute. Stop it with SIGTERM or Ctrl-C.
//!
//! It needs `redis` (features `tokio-comp`, `streams`), `tokio`, `serde_json`, `anyhow`. Run it with
//! `EVENTS='amazon-pay:{live:YOUR_MERCHANT_ID}:events' cargo run --example consumer`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example that says what it did")]

use std::collections::HashMap;

use anyhow::{Context, Result};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamAutoClaimOptions, StreamAutoClaimReply, StreamId, StreamReadOptions, StreamReadReply};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

/// Entries at a time.
const COUNT: usize = 10;
/// How long to wait for new ones, in milliseconds.
const BLOCK_MS: usize = 1_000;
/// How long a handled id is remembered, in seconds: longer than the service keeps events.
const REMEMBER_S: u64 = 90 * 24 * 3600;

struct Consumer {
    redis: MultiplexedConnection,
    stream: String,
    group: String,
    name: String,
    /// An entry that nobody acknowledged for so long was left by a worker that died. Longer than handling COUNT of them may take.
    claim_after_ms: usize,
}

/// What your system does. It may be called again with the same event if the process dies right after it.
fn handle(kind: &str, data: &Value) {
    match kind {
        "amazonpay.charge.captured.v1" => {
            // Money is a decimal string: keep it one, or use a decimal type. Never a float.
            let amount = &data["chargeAmount"];
            eprintln!("paid: {} {} {}", text(&data["id"]), text(&amount["amount"]), text(&amount["currencyCode"]));
        }
        "amazonpay.charge.action_required.v1" => eprintln!("ask the buyer to go to {}", text(&data["updateUrl"])),
        "amazonpay.account.attention.v1" => eprintln!("for the operators: {}", text(&data["message"])),
        // Types that you do not know are no mistake: new ones may come at any time.
        _ => {}
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Consumer {
    async fn create_group(&mut self) -> Result<()> {
        let created: redis::RedisResult<()> = self.redis.xgroup_create_mkstream(&self.stream, &self.group, "0").await;
        match created {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Takes over what other workers left behind.
    async fn reclaim(&mut self) -> Result<()> {
        let mut from = "0-0".to_owned();
        loop {
            let options = StreamAutoClaimOptions::default().count(COUNT);
            let reply: StreamAutoClaimReply = self
                .redis
                .xautoclaim_options(&self.stream, &self.group, &self.name, self.claim_after_ms, &from, options)
                .await?;
            for entry in reply.claimed {
                self.take(entry).await?;
            }
            if reply.next_stream_id == "0-0" {
                return Ok(());
            }
            from = reply.next_stream_id;
        }
    }

    /// Reads what nobody in the group has got yet.
    async fn read(&mut self) -> Result<()> {
        let options = StreamReadOptions::default().group(&self.group, &self.name).count(COUNT).block(BLOCK_MS);
        let reply: Option<StreamReadReply> = self.redis.xread_options(&[&self.stream], &[">"], &options).await?;
        for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
            self.take(entry).await?;
        }
        Ok(())
    }

    async fn take(&mut self, entry: StreamId) -> Result<()> {
        let event: HashMap<&str, String> =
            ["id", "type", "data"].into_iter().filter_map(|name| Some((name, entry.get(name)?))).collect();
        let id = event.get("id").context("an event without an id")?;
        let kind = event.get("type").context("an event without a type")?;
        // Better: write the id in the same transaction of your own database as the effect of the event.
        let handled = format!("{}:handled:{id}", self.group);
        if !self.redis.exists::<_, bool>(&handled).await? {
            match serde_json::from_str(event.get("data").context("an event without data")?) {
                Ok(data) => handle(kind, &data),
                Err(error) => {
                    // One event that cannot be handled must not stop those after it.
                    eprintln!("not handled, tried again later: {id}: {error}");
                    return Ok(());
                }
            }
            let () = self.redis.set_ex(&handled, 1, REMEMBER_S).await?;
            println!("{id} {kind}");
        }
        let () = self.redis.xack(&self.stream, &self.group, &[&entry.id]).await?;
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "an example is no part of the service: it reads its own environment")]
fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

#[tokio::main]
async fn main() -> Result<()> {
    let client = redis::Client::open(setting("REDIS_URL", "redis://127.0.0.1:6379"))?;
    // Longer than a read blocks: a server that went away without a word is noticed.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(std::time::Duration::from_secs(10)));
    let mut consumer = Consumer {
        redis: client.get_multiplexed_async_connection_with_config(&config).await?,
        stream: setting("EVENTS", ""),
        group: setting("GROUP", "billing"),
        name: setting("CONSUMER", "worker-1"),
        claim_after_ms: setting("CLAIM_AFTER_MS", "60000").parse()?,
    };
    anyhow::ensure!(!consumer.stream.is_empty(), "set EVENTS to the name of the stream");
    consumer.create_group().await?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    loop {
        // Between events only: what was begun is finished.
        tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = std::future::ready(()) => {}
        }
        consumer.reclaim().await?;
        consumer.read().await?;
    }
}
