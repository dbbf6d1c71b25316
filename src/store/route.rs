//! The way to the server that takes the commands: given by the URL, told by Sentinels, or by the nodes of a cluster. It is looked for
//! anew for every connection, and while one lasts: an old primary that was cut off closes nothing.
//!
//! All keys of an account are in one slot, so on a cluster too everything goes to one server. Its own identity is then what the mark
//! compares, `WAIT` counts its replicas, and nothing has to be spread or gathered.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult, ServerErrorKind,
    TlsCertificates, Value,
};
use tokio::task::JoinSet;

use super::target::{Kind, Target};

/// For one question about the way. All are asked at the same time, so a silent one costs this much, once a connection.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);
/// Nodes of a cluster that are remembered beyond those of the URL.
const MOST_NODES: usize = 32;

/// Host and port.
type Address = (String, u16);

/// Where the way led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the configuration of the Sentinels that said so; 0 on a cluster, where votes count.
    epoch: u64,
    address: Address,
}

/// The way to a server.
pub(super) struct Route {
    target: Target,
    certificates: Option<TlsCertificates>,
    tcp: TcpSettings,
    /// The key whose slot decides, on a cluster.
    key: String,
    nodes: Mutex<Vec<Address>>,
    last: Mutex<Option<Address>>,
}

impl Route {
    pub(super) fn new(target: Target, certificates: Option<TlsCertificates>, tcp: TcpSettings, key: &str) -> Self {
        Self { target, certificates, tcp, key: key.to_owned(), nodes: Mutex::default(), last: Mutex::default() }
    }

    /// Whether connections can be made of the URL and the certificates at all.
    pub(super) fn check(&self) -> RedisResult<()> {
        self.client(self.info().clone()).map(|_| ())
    }

    /// Whether the URL names the server itself.
    pub(super) fn is_direct(&self) -> bool {
        matches!(self.target.kind, Kind::Direct)
    }

    /// Whether the nodes of a cluster share the accounts.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.target.kind, Kind::Cluster)
    }

    /// How the server of the URL is reached; with Sentinels and clusters the first of those that are asked.
    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.target.servers[0]
    }

    /// A connection to the server that takes the commands now, and where that is if the URL does not say it.
    pub(super) async fn connect(
        &self,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<(MultiplexedConnection, Option<Place>)> {
        let info = self.target.servers[0].clone();
        let Some(place) = self.find(false).await? else {
            return Ok((self.client(info)?.get_multiplexed_async_connection_with_config(config).await?, None));
        };
        let client = self.client(at(info, &place.address))?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.address.clone());
        let mut connection = client.get_multiplexed_async_connection_with_config(config).await?;
        if matches!(self.target.kind, Kind::Sentinel { .. }) {
            // A Sentinel that was cut off may name what is none any more.
            let replication: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
            if !replication.lines().any(|line| line == "role:master") {
                return Err(refused(ServerErrorKind::ReadOnly, "the Sentinels name a server that is no master"));
            }
        }
        Ok((connection, Some(place)))
    }

    /// Whether the way leads somewhere else by now. Where nobody answers, or only who knows less than was known when we came (Sentinels
    /// that were cut off), it does not: a connection that works is not given up for that.
    pub(super) async fn leads_away_from(&self, here: &Place) -> bool {
        let found = self.find(true).await.ok().flatten();
        found.is_some_and(|found| found.address != here.address && found.epoch >= here.epoch)
    }

    /// `None` if the URL itself says it. `staying`: between equal answers of a cluster the place of now is the right one, not the other.
    async fn find(&self, staying: bool) -> RedisResult<Option<Place>> {
        match &self.target.kind {
            Kind::Direct => Ok(None),
            Kind::Sentinel { name, .. } => {
                let (epoch, address) = self.ask_sentinels(name).await?;
                Ok(Some(Place { epoch, address }))
            }
            Kind::Cluster => Ok(Some(Place { epoch: 0, address: self.ask_nodes(staying).await? })),
        }
    }

    /// To the server of the URL, saying who we are, so that there is an answer to wait for.
    pub(super) fn introducing_client(&self) -> RedisResult<Client> {
        let info = self.info().clone();
        let redis = info.redis_settings().clone().set_lib_name("amazon-pay-ipn", env!("CARGO_PKG_VERSION"));
        self.client_as_is(info.set_redis_settings(redis))
    }

    fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        // Naming the library would be two more commands to permit (CLIENT SETINFO), for nothing.
        let redis = info.redis_settings().clone().set_skip_set_lib_name();
        self.client_as_is(info.set_redis_settings(redis))
    }

    fn client_as_is(&self, info: ConnectionInfo) -> RedisResult<Client> {
        let info = info.set_tcp_settings(self.tcp.clone());
        match &self.certificates {
            None => Client::open(info),
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        }
    }

    /// What the Sentinels call the master, by the newest configuration that any of them knows.
    async fn ask_sentinels(&self, name: &str) -> RedisResult<(u64, Address)> {
        let mut asked = JoinSet::new();
        for server in &self.target.servers {
            let Kind::Sentinel { login, .. } = &self.target.kind else { continue };
            let client = self.client(server.clone().set_redis_settings(login.clone()))?;
            let name = name.to_owned();
            asked.spawn(async move { ask_sentinel(&client, &name).await });
        }
        let (mut newest, mut why) = (None, None);
        for answer in asked.join_all().await {
            match answer {
                Ok((epoch, address)) if newest.as_ref().is_none_or(|(known, _)| *known < epoch) => {
                    newest = Some((epoch, address));
                }
                Ok(_) => {}
                Err(error) => why = Some(worse(why, error)),
            }
        }
        newest.ok_or_else(|| why.unwrap_or_else(nobody))
    }

    /// The master of the account's slot, by the most of the nodes that answer. One that was cut off believes in its own time.
    async fn ask_nodes(&self, staying: bool) -> RedisResult<Address> {
        let mut asked = JoinSet::new();
        let mut infos = self.target.servers.clone();
        let first = &self.target.servers[0];
        for address in self.nodes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let info = at(first.clone(), address);
            if infos.iter().all(|known| known.addr() != info.addr()) {
                infos.push(info);
            }
        }
        for info in infos {
            let (client, key) = (self.client(info)?, self.key.clone());
            asked.spawn(async move { ask_node(&client, &key).await });
        }
        let (mut votes, mut why) = (BTreeMap::<Address, usize>::new(), None);
        let mut nodes: Vec<Address> = Vec::new();
        for answer in asked.join_all().await {
            match answer {
                Ok(map) => {
                    if let Some(owner) = map.owner {
                        *votes.entry(owner).or_default() += 1;
                    }
                    nodes.extend(map.nodes);
                }
                Err(error) => why = Some(worse(why, error)),
            }
        }
        nodes.sort();
        nodes.dedup();
        nodes.truncate(MOST_NODES);
        let answered = !nodes.is_empty();
        if answered {
            *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Between equals the one that has not just failed us; if none has, the one where we are.
        let owner =
            votes.into_iter().max_by_key(|(address, votes)| (*votes, (last.as_ref() == Some(address)) == staying));
        match owner {
            Some((owner, _)) => Ok(owner),
            None if answered => {
                Err(refused(ServerErrorKind::ClusterDown, "no master of the cluster holds the slot of this account"))
            }
            None => Err(why.unwrap_or_else(nobody)),
        }
    }
}

fn at(info: ConnectionInfo, (host, port): &Address) -> ConnectionInfo {
    let (host, port) = (host.clone(), *port);
    let addr = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.set_addr(addr)
}

fn questions() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_response_timeout(Some(QUESTION_TIMEOUT))
        .set_connection_timeout(Some(QUESTION_TIMEOUT))
}

fn refused(kind: ServerErrorKind, what: &'static str) -> RedisError {
    (ErrorKind::Server(kind), what).into()
}

fn nobody() -> RedisError {
    (ErrorKind::Io, "none of the hosts of REDIS_URL answers").into()
}

/// Of two reasons the one that says more: what a server answers, rather than that another is not there.
fn worse(one: Option<RedisError>, other: RedisError) -> RedisError {
    one.filter(|error| !error.is_io_error() || other.is_io_error()).unwrap_or(other)
}

/// The master of that name and the epoch of the configuration that says so. While the other replicas are led to a new master `MASTER`
/// still names the old one, under the new epoch; the address of the promoted one is told by the other command.
async fn ask_sentinel(client: &Client, name: &str) -> RedisResult<(u64, Address)> {
    let mut connection = client.get_multiplexed_async_connection_with_config(&questions()).await?;
    // In this order: a new address under the old epoch loses against who knows better, an old one under the new epoch would win.
    let fields: BTreeMap<String, String> =
        redis::cmd("SENTINEL").arg("MASTER").arg(name).query_async(&mut connection).await?;
    let address: Option<(String, String)> =
        redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name).query_async(&mut connection).await?;
    let epoch = fields.get("config-epoch").and_then(|text| text.parse().ok()).unwrap_or_default();
    let address =
        address.and_then(|(host, port)| Some((host, port.parse().ok()?)).filter(|(host, _)| !host.is_empty()));
    address.map(|address| (epoch, address)).ok_or_else(|| (ErrorKind::Parse, "a Sentinel names no address").into())
}

/// What one node says of its cluster.
#[derive(Debug, Default, PartialEq, Eq)]
struct Map {
    /// The master of the slot.
    owner: Option<Address>,
    /// Every node that is named.
    nodes: Vec<Address>,
}

async fn ask_node(client: &Client, key: &str) -> RedisResult<Map> {
    let mut connection = client.get_multiplexed_async_connection_with_config(&questions()).await?;
    let mut pipe = redis::pipe();
    pipe.cmd("CLUSTER").arg("KEYSLOT").arg(key).cmd("CLUSTER").arg("SLOTS");
    let (slot, ranges): (u16, Vec<Value>) = pipe.query_async(&mut connection).await?;
    let asked = match client.get_connection_info().addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        _ => String::new(),
    };
    Ok(read_map(slot, &ranges, &asked))
}

/// `[[first slot, last slot, [host, port, ...] of the master, of a replica ...] ...]`. What cannot be read is left out.
fn read_map(slot: u16, ranges: &[Value], asked: &str) -> Map {
    let mut map = Map::default();
    for range in ranges {
        let Value::Array(parts) = range else { continue };
        let [Value::Int(first), Value::Int(last), nodes @ ..] = parts.as_slice() else { continue };
        for (index, node) in nodes.iter().enumerate() {
            let Some(address) = read_node(node, asked) else { continue };
            if index == 0 && (*first..=*last).contains(&i64::from(slot)) {
                map.owner = Some(address.clone());
            }
            map.nodes.push(address);
        }
    }
    map
}

/// No host, or an empty one, is the one that was asked; `?` is a node that does not know its name.
fn read_node(node: &Value, asked: &str) -> Option<Address> {
    let Value::Array(parts) = node else { return None };
    let [host, Value::Int(port), ..] = parts.as_slice() else { return None };
    let port = u16::try_from(*port).ok().filter(|port| *port != 0)?;
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        Value::Nil => "",
        _ => return None,
    };
    match host {
        "?" => None,
        "" => Some((asked.to_owned(), port)),
        host => Some((host.to_owned(), port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), Value::BulkString(b"an id".to_vec()), Value::Array(Vec::new())])
    }

    fn named(host: &str, port: i64) -> Value {
        node(Value::BulkString(host.as_bytes().to_vec()), port)
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
    }

    #[test]
    fn the_owner_is_the_first_node_of_the_range_that_holds_the_slot() {
        let ranges = [range(0, 99, vec![named("a", 1), named("b", 2)]), range(100, 200, vec![named("c", 3)])];
        let owner = |slot| read_map(slot, &ranges, "x").owner;
        assert_eq!(owner(99), Some(("a".to_owned(), 1)));
        assert_eq!(owner(100), Some(("c".to_owned(), 3)));
        assert_eq!(owner(201), None);
        assert_eq!(read_map(0, &ranges, "x").nodes.len(), 3);
    }

    #[test]
    fn a_host_that_is_left_out_is_the_one_that_was_asked_and_what_cannot_be_read_is_none() {
        let of = |node| read_map(0, &[range(0, 0, vec![node])], "asked").owner;
        assert_eq!(of(node(Value::Nil, 7)), Some(("asked".to_owned(), 7)));
        assert_eq!(of(named("", 7)), Some(("asked".to_owned(), 7)));
        for broken in [named("?", 7), named("a", 0), named("a", 70_000), Value::Nil, node(Value::Int(1), 7)] {
            assert_eq!(of(broken), None);
        }
        assert_eq!(read_map(0, &[Value::Nil, Value::Array(Vec::new())], "x"), Map::default());
    }
}
