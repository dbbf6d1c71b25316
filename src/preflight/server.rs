//! How Redis is set, and what it knows of the account.

use std::time::Duration;

use jiff::SignedDuration;

use super::{Check, Finding, Severity};
use crate::model::server::ServerFacts;

/// Scripts use ZRANGE ... BYLEX, XADD ... MINID and ZADD ... LT.
const OLDEST: (u32, u32) = (6, 2);
/// From here on a server says which permissions are missing; what the tests run on.
const TESTED: (u32, u32) = (7, 0);
/// Clocks further apart than this are a warning.
pub const CLOCK_WARNING: Duration = Duration::from_secs(30);
/// Clocks further apart than this are an error: as `MAX_CLOCK_SKEW` against Amazon.
pub const CLOCK_ERROR: Duration = Duration::from_mins(5);

/// What decides whether an answered write can be lost. An error of these keeps `serve` from starting, unless it is accepted.
pub const DURABILITY: [Check; 3] = [Check::RedisEviction, Check::RedisAppendOnly, Check::RedisAppendFsync];

/// What a server is set to. `accepted`: the operator knows that answered writes may be lost (`ACCEPT_UNSAFE_DURABILITY`).
#[must_use]
pub fn set_up(facts: &ServerFacts, accepted: bool) -> Vec<Finding> {
    let mut findings = vec![version(facts), role(facts)];
    findings
        .extend([eviction(facts), append_only(facts), append_fsync(facts)].map(|finding| accept(finding, accepted)));
    findings.extend([append_state(facts), snapshots(facts), memory(facts), replicas(facts)]);
    findings
}

/// Whether answered writes can be lost, by what is known.
#[must_use]
pub fn is_unsafe(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| DURABILITY.contains(&finding.check) && finding.severity >= Severity::Warning)
}

/// Why `serve` must not start on this server.
pub fn reasons_not_to_start(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    let fatal = |check: Check| check == Check::RedisVersion || DURABILITY.contains(&check);
    findings.iter().filter(move |finding| finding.severity == Severity::Error && fatal(finding.check))
}

/// Whether the check is about losing answered writes: that can be accepted, the rest cannot.
#[must_use]
pub fn is_durability(check: Check) -> bool {
    DURABILITY.contains(&check)
}

fn accept(finding: Finding, accepted: bool) -> Finding {
    match finding.severity {
        Severity::Error if accepted => Finding {
            severity: Severity::Warning,
            found: format!("{} (accepted by ACCEPT_UNSAFE_DURABILITY)", finding.found),
            ..finding
        },
        _ => finding,
    }
}

fn version(facts: &ServerFacts) -> Finding {
    let of = |severity, found: String| Finding::new(Check::RedisVersion, severity, found);
    match facts.version {
        None => of(Severity::Unknown, "the server does not say its version".to_owned()),
        Some((major, minor, patch)) => {
            let found = format!("{} {major}.{minor}.{patch}", facts.product);
            match (major, minor) {
                version if version < OLDEST => of(Severity::Error, found),
                version if version < TESTED => of(Severity::Warning, found),
                _ => of(Severity::Ok, found),
            }
        }
    }
}

fn role(facts: &ServerFacts) -> Finding {
    if facts.is_replica {
        Finding::new(Check::RedisRole, Severity::Error, "this Redis is a replica: nothing can be written to it")
    } else {
        Finding::new(Check::RedisRole, Severity::Ok, "primary")
    }
}

fn eviction(facts: &ServerFacts) -> Finding {
    let of = |severity, found: String| Finding::new(Check::RedisEviction, severity, found);
    match facts.eviction.as_deref() {
        None => of(Severity::Unknown, "the server does not say its maxmemory-policy".to_owned()),
        Some("noeviction") => of(Severity::Ok, "maxmemory-policy is noeviction".to_owned()),
        Some(policy) => of(Severity::Error, format!("maxmemory-policy is {policy}")),
    }
}

fn append_only(facts: &ServerFacts) -> Finding {
    let of = |severity, found| Finding::new(Check::RedisAppendOnly, severity, found);
    match facts.append_only {
        None => of(Severity::Unknown, "the server does not say whether appendonly is on"),
        Some(true) => of(Severity::Ok, "appendonly is on"),
        Some(false) => of(Severity::Error, "appendonly is off"),
    }
}

fn append_fsync(facts: &ServerFacts) -> Finding {
    let of = |severity, found: String| Finding::new(Check::RedisAppendFsync, severity, found);
    match (facts.append_only, facts.append_fsync.as_deref()) {
        (Some(false), _) => of(Severity::Ok, "of no account without appendonly".to_owned()),
        (_, None) => of(Severity::Unknown, "not known: CONFIG GET is not permitted".to_owned()),
        (_, Some("always")) if facts.rewrite_skips_fsync == Some(true) => of(
            Severity::Error,
            "no-appendfsync-on-rewrite is yes: nothing is synced while the file is rewritten".to_owned(),
        ),
        (_, Some("always")) => of(Severity::Ok, "appendfsync is always".to_owned()),
        (_, Some(other)) => of(Severity::Error, format!("appendfsync is {other}")),
    }
}

fn append_state(facts: &ServerFacts) -> Finding {
    let of = |severity, found| Finding::new(Check::RedisAppendState, severity, found);
    match (facts.append_write_ok, facts.append_rewrite_ok) {
        (Some(false), _) => of(Severity::Error, "the last write of the append-only file failed"),
        (_, Some(false)) => of(Severity::Warning, "the last rewrite of the append-only file failed"),
        (None, None) => of(Severity::Unknown, "the server does not say"),
        _ => of(Severity::Ok, "the append-only file is written"),
    }
}

fn snapshots(facts: &ServerFacts) -> Finding {
    let of = |severity, found| Finding::new(Check::RedisSnapshots, severity, found);
    match facts.snapshot_ok {
        None => of(Severity::Unknown, "the server does not say"),
        Some(true) => of(Severity::Ok, "no snapshot failed"),
        Some(false) => of(Severity::Warning, "the last snapshot failed"),
    }
}

/// Above four fifths of what there is: a warning; nearly full: an error.
fn memory(facts: &ServerFacts) -> Finding {
    let of = |severity, found: String| Finding::new(Check::RedisMemory, severity, found);
    let limit = facts.max_memory.filter(|limit| *limit > 0);
    let (Some(used), Some(room)) = (facts.used_memory, limit.or(facts.machine_memory).filter(|room| *room > 0)) else {
        return of(Severity::Unknown, "the server does not say how much memory there is".to_owned());
    };
    let percent = used.saturating_mul(100) / room;
    let of_what = if limit.is_some() { "maxmemory" } else { "the machine's memory (no maxmemory is set)" };
    let found = format!("{} MiB in use, {percent} % of {of_what}", used / (1 << 20));
    match percent {
        95.. => of(Severity::Error, found),
        80.. => of(Severity::Warning, found),
        _ => of(Severity::Ok, found),
    }
}

fn replicas(facts: &ServerFacts) -> Finding {
    let of = |severity, found: String| Finding::new(Check::RedisReplicas, severity, found);
    let wanted = facts.replicas_wanted;
    match (facts.replicas, facts.good_replicas_demanded) {
        // A replica has none of its own; that it is one says `role`.
        (count, _) if wanted > count && !facts.is_replica => of(
            Severity::Error,
            format!(
                "{count} of {wanted} replicas (WAIT_REPLICAS) are connected: notifications and submissions get 503, and nothing is charged"
            ),
        ),
        (count, _) if wanted > 0 => {
            of(Severity::Ok, format!("{count} connected; what is promised waits for {wanted} of them"))
        }
        (0, _) if facts.fails_over && !facts.is_replica => of(
            Severity::Warning,
            "REDIS_URL names Sentinels or a cluster, but no replica is connected: nobody can take over".to_owned(),
        ),
        (0, _) => {
            of(Severity::Ok, "none is connected: no other server can take over, so none can lack a write".to_owned())
        }
        (count, None) if facts.fails_over => of(
            Severity::Warning,
            format!(
                "{count} connected, writes wait for none of them, and a primary that is cut off goes on taking writes: two primaries can mark the same charge; set min-replicas-to-write 1 and WAIT_REPLICAS"
            ),
        ),
        (count, None) => of(Severity::Warning, format!("{count} connected, and writes wait for none of them")),
        (count, Some(good)) => of(
            Severity::Warning,
            format!(
                "{count} connected, {good} of them keep up as min-replicas-to-write demands; an answer waits for none"
            ),
        ),
    }
}

/// Our clock minus that of Redis.
#[must_use]
pub fn clock(ahead: SignedDuration) -> Finding {
    apart(Check::RedisClock, ahead, "Redis")
}

/// Two clocks: ours minus the other.
pub(super) fn apart(check: Check, ahead: SignedDuration, other: &str) -> Finding {
    let seconds = ahead.as_secs();
    let found = match seconds {
        0 => format!("within a second of {other}"),
        1.. => format!("our clock is {seconds} s ahead of {other}"),
        _ => format!("our clock is {} s behind {other}", -seconds),
    };
    let severity = match ahead.unsigned_abs() {
        apart if apart > CLOCK_ERROR => Severity::Error,
        apart if apart > CLOCK_WARNING => Severity::Warning,
        _ => Severity::Ok,
    };
    Finding::new(check, severity, found)
}

/// Who uses the prefix: `live:A2K7NDRCTOTPW9` and its like, of markers that were found; ours is `own`. `left_out`: why not all keys were
/// looked at.
#[must_use]
pub fn other_accounts(own: &str, found: &[String], left_out: Option<&str>) -> Finding {
    let of = |severity, found: String| Finding::new(Check::RedisOtherAccounts, severity, found);
    let others: Vec<&str> = found.iter().map(String::as_str).filter(|other| *other != own).collect();
    let merchant = |account: &str| account.split_once(':').map(|(_, merchant)| merchant.to_owned());
    let siblings: Vec<&str> = others.iter().copied().filter(|other| merchant(other) == merchant(own)).collect();
    if !siblings.is_empty() {
        return of(Severity::Warning, format!("the same merchant is here as {}, too", siblings.join(", ")));
    }
    if let Some(why) = left_out {
        return of(Severity::Unknown, format!("not all keys were looked at: {why}"));
    }
    if others.is_empty() {
        return of(Severity::Ok, "no other account is under this prefix".to_owned());
    }
    of(Severity::Ok, format!("{} other accounts are under this prefix, each with keys of its own", others.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> ServerFacts {
        ServerFacts {
            product: "redis".to_owned(),
            version: Some((7, 0, 15)),
            append_only: Some(true),
            append_fsync: Some("always".to_owned()),
            eviction: Some("noeviction".to_owned()),
            max_memory: Some(0),
            used_memory: Some(1),
            machine_memory: Some(1 << 30),
            append_write_ok: Some(true),
            append_rewrite_ok: Some(true),
            snapshot_ok: Some(true),
            ..ServerFacts::default()
        }
    }

    /// What is not ok after a change to a good server.
    fn after(change: impl FnOnce(&mut ServerFacts)) -> Vec<(&'static str, Severity)> {
        let mut facts = good();
        change(&mut facts);
        let bad = set_up(&facts, false).into_iter().filter(|finding| finding.severity != Severity::Ok);
        bad.map(|finding| (finding.check.as_str(), finding.severity)).collect()
    }

    #[test]
    fn a_server_as_it_should_be_has_only_good_findings() {
        assert_eq!(after(|_| {}), []);
        assert!(!is_unsafe(&set_up(&good(), false)));
        assert_eq!(reasons_not_to_start(&set_up(&good(), false)).count(), 0);
        assert_eq!(after(|facts| (facts.replicas, facts.replicas_wanted) = (2, 2)), []);
    }

    #[test]
    fn each_wrong_setting_is_one_finding() {
        use Severity::{Error, Unknown, Warning};
        type Change = fn(&mut ServerFacts);
        let cases: &[(Change, &str, Severity)] = &[
            (|facts| facts.version = Some((6, 0, 16)), "redis-version", Error),
            (|facts| facts.version = Some((6, 2, 0)), "redis-version", Warning),
            (|facts| facts.version = None, "redis-version", Unknown),
            (|facts| facts.is_replica = true, "redis-role", Error),
            (|facts| facts.eviction = Some("allkeys-lru".to_owned()), "redis-eviction", Error),
            (|facts| facts.eviction = Some("volatile-ttl".to_owned()), "redis-eviction", Error),
            (|facts| facts.eviction = None, "redis-eviction", Unknown),
            (|facts| facts.append_only = Some(false), "redis-append-only", Error),
            (|facts| facts.append_only = None, "redis-append-only", Unknown),
            (|facts| facts.append_fsync = Some("everysec".to_owned()), "redis-append-fsync", Error),
            (|facts| facts.append_fsync = Some("no".to_owned()), "redis-append-fsync", Error),
            (|facts| facts.append_fsync = None, "redis-append-fsync", Unknown),
            (|facts| facts.append_write_ok = Some(false), "redis-append-state", Error),
            (|facts| facts.append_rewrite_ok = Some(false), "redis-append-state", Warning),
            (|facts| facts.snapshot_ok = Some(false), "redis-snapshots", Warning),
            (|facts| facts.snapshot_ok = None, "redis-snapshots", Unknown),
            (|facts| facts.used_memory = Some(900 << 20), "redis-memory", Warning),
            (|facts| facts.used_memory = Some(1 << 30), "redis-memory", Error),
            (|facts| facts.used_memory = None, "redis-memory", Unknown),
            (|facts| (facts.max_memory, facts.used_memory) = (Some(100), Some(80)), "redis-memory", Warning),
            (|facts| facts.replicas = 1, "redis-replicas", Warning),
            (|facts| facts.fails_over = true, "redis-replicas", Warning),
            (|facts| (facts.replicas, facts.fails_over) = (1, true), "redis-replicas", Warning),
            (|facts| (facts.replicas, facts.good_replicas_demanded) = (2, Some(1)), "redis-replicas", Warning),
            (|facts| (facts.replicas, facts.replicas_wanted) = (1, 2), "redis-replicas", Error),
        ];
        for (index, (change, check, severity)) in cases.iter().enumerate() {
            assert_eq!(after(change), [(*check, *severity)], "case {index}");
        }
    }

    #[test]
    fn unsafe_durability_forbids_the_start_unless_it_is_accepted_and_then_stays_a_warning() {
        let all_wrong = ServerFacts { append_only: Some(false), eviction: Some("allkeys-lru".to_owned()), ..good() };
        for (facts, wrong) in [(all_wrong, 2), (ServerFacts { append_fsync: Some("everysec".to_owned()), ..good() }, 1)]
        {
            let (refused, accepted) = (set_up(&facts, false), set_up(&facts, true));
            assert_eq!(reasons_not_to_start(&refused).count(), wrong);
            assert_eq!(reasons_not_to_start(&accepted).count(), 0);
            assert!(is_unsafe(&refused) && is_unsafe(&accepted), "accepting does not make it safe");
            let said = accepted.iter().filter(|finding| finding.found.contains("ACCEPT_UNSAFE_DURABILITY")).count();
            assert_eq!(said, wrong);
        }
        let unknown = set_up(&ServerFacts { append_fsync: None, ..good() }, false);
        assert_eq!((reasons_not_to_start(&unknown).count(), is_unsafe(&unknown)), (0, false));
        let old = set_up(&ServerFacts { version: Some((5, 0, 0)), ..good() }, true);
        assert_eq!(reasons_not_to_start(&old).count(), 1, "too old is not a matter of durability");
    }

    #[test]
    fn clocks_are_judged_by_how_far_apart_they_are_in_either_direction() {
        for (seconds, severity) in [
            (0, Severity::Ok),
            (30, Severity::Ok),
            (31, Severity::Warning),
            (300, Severity::Warning),
            (301, Severity::Error),
        ] {
            for sign in [1, -1] {
                assert_eq!(clock(SignedDuration::from_secs(sign * seconds)).severity, severity, "{seconds}");
            }
        }
        assert!(clock(SignedDuration::from_secs(40)).found.contains("40 s ahead"));
        assert!(clock(SignedDuration::from_secs(-40)).found.contains("40 s behind"));
    }

    #[test]
    fn the_other_environment_of_the_same_merchant_is_said_and_other_merchants_are_counted() {
        let judged = |found: &[&str], left_out| {
            let found: Vec<String> = found.iter().map(|text| (*text).to_owned()).collect();
            other_accounts("live:A1", &found, left_out)
        };
        assert_eq!(judged(&["live:A1"], None).severity, Severity::Ok);
        let sibling = judged(&["live:A1", "sandbox:A1"], None);
        assert_eq!(sibling.severity, Severity::Warning);
        assert!(sibling.found.contains("sandbox:A1"));
        let others = judged(&["live:A1", "live:A2", "sandbox:A3"], None);
        assert_eq!((others.severity, others.found.contains('2')), (Severity::Ok, true));
        let partly = judged(&["live:A1"], Some("there are too many"));
        assert_eq!((partly.severity, partly.found.contains("too many")), (Severity::Unknown, true));
        let sibling = judged(&["live:A1", "sandbox:A1"], Some("there are too many"));
        assert_eq!(sibling.severity, Severity::Warning, "what was found counts, though it may not be all");
    }
}
