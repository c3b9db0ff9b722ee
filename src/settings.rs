//! What a node was started with, checked once: from here on every figure is
//! within its limits and every combination makes sense.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::address;
use crate::indexing::Kinds;
use crate::limits;
use crate::replication::protocol::PROTOCOL;

/// How replicas agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One primary takes the writes.
    Leader,
    /// Every node takes writes.
    Dynamo,
}

impl Mode {
    /// The word on the wire and in `--mode`.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Leader => "leader",
            Mode::Dynamo => "dynamo",
        }
    }
}

/// What a node is when it starts on an empty directory. Later starts go by the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartRole {
    /// It forms the cluster of itself and its peers.
    Primary,
    /// It waits until the primary of its cluster adopts it.
    Secondary,
}

/// Another node, as `--peers` names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its number in the cluster.
    pub node_id: u64,
    /// Its address or name.
    pub host: String,
    /// Its one port.
    pub port: u16,
}

/// How a snapshot file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotCompression {
    /// Plain JSON lines.
    None,
    /// JSON lines within a zstd stream.
    Zstd,
}

/// A node's settings as they were given, before any check.
#[derive(Clone, Debug)]
pub struct RawSettings {
    /// `--host`.
    pub host: String,
    /// `--advertise`.
    pub advertise: Option<String>,
    /// `--port`.
    pub port: u16,
    /// `--node-id`.
    pub node_id: u64,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// `--role secondary` was given.
    pub secondary: bool,
    /// `--mode`.
    pub mode: Mode,
    /// `--peers`.
    pub peers: Option<String>,
    /// `--drop-rate`.
    pub drop_rate: f64,
    /// `--indexes`.
    pub indexes: String,
    /// `--shards`.
    pub shards: Option<usize>,
    /// `--snapshot-every-bytes`.
    pub snapshot_every_bytes: u64,
    /// `--snapshot-compression`.
    pub snapshot_compression: SnapshotCompression,
    /// `--segment-bytes`.
    pub segment_bytes: u64,
    /// `--max-line-bytes`.
    pub line_bytes_max: usize,
    /// `--max-memory`, 0 for no bound.
    pub memory_bytes_max: u64,
    /// `--max-connections`.
    pub connections_max: usize,
    /// `--request-timeout-ms`.
    pub request_timeout_ms: u64,
    /// `--idle-timeout-ms`, 0 for never.
    pub idle_timeout_ms: u64,
    /// `--insecure`.
    pub insecure: bool,
    /// `--truncate-damaged-log`.
    pub truncate_damaged_log: bool,
    /// `--peer-protocol`.
    pub peer_protocol_max: u32,
    /// `--clock-offset-ms`.
    pub clock_offset_ms: i64,
}

/// A node's settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub host: IpAddr,
    /// Where clients are told that this node is; `None`: where they have reached it.
    pub advertise: Option<(String, u16)>,
    /// Where to listen; 0 lets the system choose.
    pub port: u16,
    /// This node's number in its cluster.
    pub node_id: u64,
    /// Where the data lies.
    pub data_dir: PathBuf,
    /// How replicas agree.
    pub mode: Mode,
    /// What it is on an empty directory.
    pub role: StartRole,
    /// The other nodes, ascending by node id; none for a node on its own.
    pub peers: Vec<Peer>,
    /// The share of log syncs that fail on purpose, 0 to 1.
    pub drop_rate: f64,
    /// Which indexes are kept.
    pub indexes: Kinds,
    /// Slices of the keyspace.
    pub shards: usize,
    /// The log's growth that triggers a snapshot.
    pub snapshot_every_bytes: u64,
    /// How snapshots are packed.
    pub snapshot_compression: SnapshotCompression,
    /// The size of a log segment.
    pub segment_bytes: u64,
    /// The longest request line.
    pub line_bytes_max: usize,
    /// What entries and indexes may occupy; `None` for no bound.
    pub memory_bytes_max: Option<u64>,
    /// Client connections at once.
    pub connections_max: usize,
    /// A request unanswered for so long is answered `timeout`.
    pub request_timeout_ms: u64,
    /// A client's connection on which nothing happens for so long is closed; `None` for never.
    pub idle_timeout_ms: Option<u64>,
    /// Damage in the log is cut away instead of refused.
    pub truncate_damaged_log: bool,
    /// The latest version of the peers' protocol that it speaks.
    pub peer_protocol_max: u32,
    /// What is added to the system's clock, in dynamo mode.
    pub clock_offset_ms: i64,
}

impl RawSettings {
    /// Checks every setting; `cores` is what the machine has. The error says
    /// which flag, what was given and what it wants.
    pub fn validate(self, cores: usize) -> Result<Settings, String> {
        if self.mode == Mode::Dynamo && self.secondary {
            return Err("--role secondary: in dynamo mode every node takes writes; leave --role out".into());
        }
        if self.mode == Mode::Leader && self.clock_offset_ms != 0 {
            return Err("--clock-offset-ms: only --mode dynamo looks at the clock".into());
        }
        let offset_ms_max = limits::CLOCK_OFFSET_MS_MAX;
        within("--clock-offset-ms", self.clock_offset_ms.unsigned_abs(), 0, offset_ms_max)?;
        within("--node-id", self.node_id, 1, limits::NODE_ID_MAX)?;
        let (earliest, latest) = PROTOCOL;
        within("--peer-protocol", self.peer_protocol_max.into(), earliest.into(), latest.into())?;
        let peers = parse_peers(self.peers.as_deref().unwrap_or_default(), self.node_id)?;
        if self.secondary && peers.is_empty() {
            return Err("--role secondary: wants --peers that name the primary and all other nodes".into());
        }
        let host = parse_host(&self.host)?;
        let advertise = self.advertise.as_deref().map(address::reachable_place).transpose();
        let advertise = advertise.map_err(|reason| format!("--advertise {reason}"))?;
        if !host.is_loopback() && !self.insecure {
            return Err(format!(
                "--host {host}: anyone who reaches this address could read and write everything, since there is no \
                 authentication or encryption yet; listen on 127.0.0.1, or add --insecure to accept that"
            ));
        }
        if !(0.0..=1.0).contains(&self.drop_rate) {
            return Err(format!("--drop-rate {}: wants a share from 0.0 to 1.0", self.drop_rate));
        }
        let shards = self.shards.unwrap_or_else(|| cores.saturating_sub(1).max(1));
        within("--shards", shards as u64, 1, limits::SHARDS_MAX as u64)?;
        within("--segment-bytes", self.segment_bytes, limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX)?;
        within(
            "--max-line-bytes",
            self.line_bytes_max as u64,
            limits::LINE_BYTES_MAX_SMALLEST as u64,
            limits::LINE_BYTES_MAX_LARGEST as u64,
        )?;
        within("--request-timeout-ms", self.request_timeout_ms, 1, 24 * 3_600_000)?;
        within("--idle-timeout-ms", self.idle_timeout_ms, 0, 24 * 3_600_000)?;
        within("--max-connections", self.connections_max as u64, 1, 1_000_000)?;
        within("--snapshot-every-bytes", self.snapshot_every_bytes, limits::SEGMENT_BYTES_MIN, u64::MAX)?;
        Ok(Settings {
            host,
            advertise,
            port: self.port,
            node_id: self.node_id,
            data_dir: self.data_dir,
            mode: self.mode,
            role: if self.secondary { StartRole::Secondary } else { StartRole::Primary },
            peers,
            drop_rate: self.drop_rate,
            indexes: Kinds::parse(&self.indexes).map_err(|reason| format!("--indexes: {reason}"))?,
            shards,
            snapshot_every_bytes: self.snapshot_every_bytes,
            snapshot_compression: self.snapshot_compression,
            segment_bytes: self.segment_bytes,
            line_bytes_max: self.line_bytes_max,
            memory_bytes_max: (self.memory_bytes_max > 0).then_some(self.memory_bytes_max),
            connections_max: self.connections_max,
            request_timeout_ms: self.request_timeout_ms,
            idle_timeout_ms: (self.idle_timeout_ms > 0).then_some(self.idle_timeout_ms),
            truncate_damaged_log: self.truncate_damaged_log,
            peer_protocol_max: self.peer_protocol_max,
            clock_offset_ms: self.clock_offset_ms,
        })
    }
}

fn parse_host(host: &str) -> Result<IpAddr, String> {
    if host == "localhost" {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    let bare = address::host(host).map_err(|reason| format!("--host: {reason}"))?;
    bare.parse().map_err(|_| format!("--host {host}: wants an IP address or localhost"))
}

/// Reads `--peers`: `[{"node_id":2,"host":"127.0.0.1","port":9001}, …]`.
fn parse_peers(given: &str, node_id: u64) -> Result<Vec<Peer>, String> {
    const WANTS: &str = r#"wants [{"node_id":2,"host":"127.0.0.1","port":9001}, …]"#;
    if given.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut peers: Vec<Peer> =
        serde_json::from_str(given).map_err(|error| format!("--peers: {error}; {WANTS}"))?;
    peers.sort_by_key(|peer| peer.node_id);
    let ids: Vec<u64> = peers.iter().map(|peer| peer.node_id).collect();
    if ids.contains(&node_id) {
        return Err(format!("--peers: node {node_id} is this node (--node-id); name only the others"));
    }
    if ids.contains(&0) || ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(format!("--peers: node ids {ids:?}: wants each once, and none 0"));
    }
    for peer in &mut peers {
        if peer.port == 0 {
            return Err(format!("--peers: node {}: port 0; {WANTS}", peer.node_id));
        }
        let host = address::reachable_host(&peer.host);
        peer.host = host.map_err(|reason| format!("--peers: node {}: {reason}; {WANTS}", peer.node_id))?;
    }
    if peers.len() + 1 > limits::MEMBERS_MAX {
        let most = limits::MEMBERS_MAX;
        return Err(format!("--peers: {} nodes; a cluster has at most {most}", peers.len() + 1));
    }
    Ok(peers)
}

fn within(flag: &str, given: u64, least: u64, most: u64) -> Result<(), String> {
    if (least..=most).contains(&given) {
        return Ok(());
    }
    Err(format!("{flag} {given}: wants a number from {least} to {most}"))
}
