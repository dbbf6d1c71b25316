//! What a Redis server says about itself, as far as it matters to whoever keeps money in it.

/// From `INFO` and, where it is permitted, `CONFIG GET`. What the server did not say is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// `redis`, or the name of what speaks its protocol.
    pub product: String,
    /// The version of Redis that it is, or is compatible with.
    pub version: Option<(u32, u32, u32)>,
    /// It is a replica: nothing can be written to it.
    pub is_replica: bool,
    /// Replicas that are connected.
    pub replicas: u32,
    /// Replicas that must confirm what is promised (`WAIT_REPLICAS`): our own setting.
    pub replicas_wanted: u32,
    /// It is reached by way of Sentinels or a cluster, so that another server may take its place: by our own setting.
    pub fails_over: bool,
    /// Writes are refused unless so many replicas are there and keep up; the number that does.
    pub good_replicas_demanded: Option<u32>,
    /// `appendonly`.
    pub append_only: Option<bool>,
    /// `appendfsync`; only `CONFIG GET` tells.
    pub append_fsync: Option<String>,
    /// `no-appendfsync-on-rewrite`: nothing is synced while the file is rewritten, whatever `appendfsync` says; only `CONFIG GET` tells.
    pub rewrite_skips_fsync: Option<bool>,
    /// `maxmemory-policy`.
    pub eviction: Option<String>,
    /// `maxmemory` in bytes; 0 is no limit.
    pub max_memory: Option<u64>,
    /// Bytes in use.
    pub used_memory: Option<u64>,
    /// Memory of the machine in bytes.
    pub machine_memory: Option<u64>,
    /// Whether the last write of the append-only file succeeded.
    pub append_write_ok: Option<bool>,
    /// Whether the last rewrite of the append-only file succeeded.
    pub append_rewrite_ok: Option<bool>,
    /// Whether the last snapshot succeeded.
    pub snapshot_ok: Option<bool>,
}

impl ServerFacts {
    /// Reads the answer of `INFO`.
    #[must_use]
    pub fn read(info: &str) -> Self {
        let field = |name: &str| {
            let lines = info.lines().filter_map(|line| line.trim_end().split_once(':'));
            lines.filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).next()
        };
        let bytes = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok());
        let count = |name: &str| field(name).and_then(|text| text.parse::<u32>().ok());
        let is_ok = |name: &str| field(name).map(|text| text == "ok");
        Self {
            product: field("server_name").unwrap_or_else(|| "redis".to_owned()),
            version: field("redis_version").and_then(|text| version(&text)),
            is_replica: field("role").is_some_and(|role| role == "slave"),
            replicas: count("connected_slaves").unwrap_or_default(),
            replicas_wanted: 0,
            fails_over: false,
            good_replicas_demanded: count("min_slaves_good_slaves"),
            append_only: field("aof_enabled").map(|text| text == "1"),
            append_fsync: None,
            rewrite_skips_fsync: None,
            eviction: field("maxmemory_policy"),
            max_memory: bytes("maxmemory"),
            used_memory: bytes("used_memory"),
            machine_memory: bytes("total_system_memory"),
            append_write_ok: is_ok("aof_last_write_status"),
            append_rewrite_ok: is_ok("aof_last_bgrewrite_status"),
            snapshot_ok: is_ok("rdb_last_bgsave_status"),
        }
    }
}

fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    let (major, minor) = (parts.next()??, parts.next()??);
    Some((major, minor, parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_info_says_is_read_and_what_it_leaves_out_is_not_guessed() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrole:slave\r\nconnected_slaves:2\r\nmin_slaves_good_slaves:1\r\n\
                    aof_enabled:1\r\nmaxmemory_policy:noeviction\r\nmaxmemory:0\r\nused_memory:100\r\n\
                    total_system_memory:1000\r\naof_last_write_status:err\r\naof_last_bgrewrite_status:ok\r\n\
                    rdb_last_bgsave_status:ok\r\n";
        let facts = ServerFacts::read(info);
        assert_eq!((facts.product.as_str(), facts.version), ("redis", Some((7, 0, 15))));
        assert!(facts.is_replica && facts.replicas == 2 && facts.good_replicas_demanded == Some(1));
        assert_eq!((facts.append_only, facts.eviction.as_deref()), (Some(true), Some("noeviction")));
        assert_eq!((facts.max_memory, facts.used_memory, facts.machine_memory), (Some(0), Some(100), Some(1000)));
        assert_eq!(
            (facts.append_write_ok, facts.append_rewrite_ok, facts.snapshot_ok),
            (Some(false), Some(true), Some(true))
        );
        let silent = ServerFacts::read("");
        assert_eq!(silent, ServerFacts { product: "redis".to_owned(), ..ServerFacts::default() });
        assert_eq!(ServerFacts::read("server_name:valkey\nredis_version:7.2").version, Some((7, 2, 0)));
    }
}
