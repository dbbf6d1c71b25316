//! The audit at the end: the local Amazon Pay's ledger, the public streams, the public API, and the keys that are left.

use std::collections::{BTreeMap, BTreeSet};

use amazon_pay_ipn::sandbox::{ChargeState, Ledger};
use anyhow::Context;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamRangeReply;
use serde_json::Value;

use crate::world::TOKEN;

/// The page that names every key.
const KEYSPACE: &str = include_str!("../../docs/KEYSPACE.md");

pub struct Audit<'a> {
    pub ledger: Ledger,
    /// Charges that were taken, with their permissions.
    pub charges: &'a [(String, String)],
    /// Message ids that were answered 200.
    pub acknowledged: &'a [String],
    pub http: &'a reqwest::Client,
    pub internal: &'a str,
}

impl Audit<'_> {
    pub async fn all(&self, mut redis: MultiplexedConnection, prefix: &str) -> anyhow::Result<Vec<(String, bool)>> {
        let mut held = self.ends_and_journal(redis.clone(), prefix).await?;
        held.extend(keys(&mut redis, prefix).await?);
        Ok(held)
    }

    /// All but the keys that are left.
    pub async fn ends_and_journal(
        &self,
        mut redis: MultiplexedConnection,
        prefix: &str,
    ) -> anyhow::Result<Vec<(String, bool)>> {
        let mut held = self.charges().await?;
        let journal: BTreeSet<String> =
            entries(&mut redis, &format!("{prefix}journal"), "message_id").await?.into_iter().collect();
        let lost = self.acknowledged.iter().filter(|id| !journal.contains(*id)).count();
        held.push((
            format!("{} notifications acknowledged, not in the journal: {lost}", self.acknowledged.len()),
            lost == 0,
        ));
        Ok(held)
    }

    /// Each charge ended, once, as the ledger says.
    async fn charges(&self) -> anyhow::Result<Vec<(String, bool)>> {
        let (mut twice, mut open, mut wrong, mut ends) = (0, Vec::new(), Vec::new(), BTreeMap::<String, u64>::new());
        let mut paid = BTreeMap::<(&str, &str), usize>::new();
        for charge in self.ledger.charges.iter().filter(|charge| charge.state == ChargeState::Captured) {
            let label = charge.custom_information.as_deref().unwrap_or_default();
            *paid.entry((made_for(label), &charge.permission)).or_default() += 1;
        }
        let mut known = 0;
        for (id, permission) in self.charges {
            let captured = paid.get(&(id.as_str(), permission.as_str())).copied().unwrap_or(0);
            known += captured;
            twice += usize::from(captured > 1);
            let url = format!("{}/v1/charges/{id}", self.internal);
            let text = self.http.get(url).bearer_auth(TOKEN).send().await?.text().await?;
            let charge: Value = serde_json::from_str(&text)?;
            let state = charge["state"].as_str().with_context(|| format!("{id}: {text}"))?.to_owned();
            if !["captured", "canceled", "abandoned"].contains(&state.as_str()) {
                open.push(format!("{id} {state}: {charge}"));
            } else if (state == "captured") != (captured == 1) {
                wrong.push(format!("{id} {state}, in the ledger {captured}"));
            }
            *ends.entry(state).or_default() += 1;
        }
        for line in open.iter().chain(&wrong).take(20) {
            println!("    {line}");
        }
        Ok(vec![
            (format!("{} charges ended: {ends:?}; still open: {}", self.charges.len(), open.len()), open.is_empty()),
            (format!("charged twice: {twice}"), twice == 0),
            (
                format!("captured for nobody: {}", paid.values().sum::<usize>() - known),
                paid.values().sum::<usize>() == known,
            ),
            (format!("another end than the ledger's: {}", wrong.len()), wrong.is_empty()),
        ])
    }
}

/// The charge that a label of ours names, `amazon-pay-ipn/v1/<id>/<number>`.
fn made_for(label: &str) -> &str {
    let tag = label.strip_prefix("amazon-pay-ipn/v1/").unwrap_or(label);
    tag.rsplit_once('/').map_or(tag, |(id, _)| id)
}

async fn entries(redis: &mut MultiplexedConnection, key: &str, field: &str) -> anyhow::Result<Vec<String>> {
    let (mut found, mut from) = (Vec::new(), "-".to_owned());
    loop {
        let reply: StreamRangeReply =
            redis::cmd("XRANGE").arg(key).arg(&from).arg("+").arg("COUNT").arg(1000).query_async(redis).await?;
        let Some(last) = reply.ids.last() else { return Ok(found) };
        from = format!("({}", last.id);
        found.extend(reply.ids.iter().filter_map(|entry| entry.get::<String>(field)));
    }
}

/// Every key is one of `docs/KEYSPACE.md`, and nothing that ends with the work is left.
async fn keys(redis: &mut MultiplexedConnection, prefix: &str) -> anyhow::Result<Vec<(String, bool)>> {
    let known = known();
    let (mut counts, mut strangers, mut cursor) = (BTreeMap::<String, (u64, u64)>::new(), Vec::new(), 0_u64);
    loop {
        let (next, page): (u64, Vec<String>) =
            redis::cmd("SCAN").arg(cursor).arg("COUNT").arg(1000).query_async(redis).await?;
        for key in page {
            let kind = key.strip_prefix(prefix).and_then(|name| known.iter().find(|pattern| pattern.fits(name)));
            let Some(kind) = kind else {
                strangers.push(key);
                continue;
            };
            let ttl: i64 = redis::cmd("PTTL").arg(&key).query_async(redis).await?;
            let count = counts.entry(kind.text.clone()).or_default();
            *count = (count.0 + 1, count.1 + u64::from(ttl < 0));
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    println!("keys that are left (of them without a time to live):");
    for (kind, (count, lasting)) in &counts {
        println!("    {kind}: {count} ({lasting})");
    }
    strangers.truncate(5);
    // The lists of charges are of the account, one for each state.
    let of_one = |kind: &str| kind.contains('<') && kind != "index:<list>";
    let lasting: u64 = counts.iter().filter(|(kind, _)| of_one(kind)).map(|(_, (_, lasting))| lasting).sum();
    Ok(vec![
        (format!("keys that docs/KEYSPACE.md does not name: {strangers:?}"), strangers.is_empty()),
        (format!("keys of single permissions, charges or messages without a time to live: {lasting}"), lasting == 0),
    ])
}

/// A name such as `permission:<charge permission id>:hints`.
struct Pattern {
    text: String,
    parts: Vec<String>,
}

impl Pattern {
    fn fits(&self, name: &str) -> bool {
        let Some((first, rest)) = self.parts.split_first() else { return false };
        let Some(mut left) = name.strip_prefix(first.as_str()) else { return false };
        let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
        for part in middle {
            let Some(at) = left.find(part.as_str()) else { return false };
            left = &left[at + part.len()..];
        }
        // An id holds no colon, so `permission:<id>` is not `permission:<id>:open`.
        left.strip_suffix(last.as_str()).is_some_and(|id| !id.is_empty() && !id.contains(':'))
    }
}

fn known() -> Vec<Pattern> {
    let rows = KEYSPACE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    rows.map(|(text, _)| {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('<') {
            parts.push(before.to_owned());
            rest = after.split_once('>').map_or("", |(_, after)| after);
        }
        parts.push(rest.to_owned());
        Pattern { text: text.to_owned(), parts }
    })
    .collect()
}
