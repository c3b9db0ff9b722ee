//! The command line, and the environment behind it.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Parser, ValueEnum};
use datastore::limits;
use datastore::replication::protocol::PROTOCOL;
use datastore::settings::{Mode, RawSettings, SnapshotCompression};

/// A durable key-value store with value, text and vector search, spoken to in
/// JSON lines over TCP. Every flag also reads an environment variable.
#[derive(Parser, Debug)]
#[command(name = "datastore-node", version)]
pub struct Flags {
    /// IP address to listen on
    #[arg(long, env = "DATASTORE_HOST", default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: String,
    /// Where clients are told that this node is; where they have reached it when absent
    #[arg(long, env = "DATASTORE_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// TCP port to listen on; 0 lets the system choose one, which the log names
    #[arg(long, env = "DATASTORE_PORT", default_value_t = 9000)]
    port: u16,
    /// This node's number, unique in its cluster
    #[arg(long, env = "DATASTORE_NODE_ID", default_value_t = 1, value_name = "NUMBER")]
    node_id: u64,
    /// Directory of log, snapshots and identity; made when absent
    #[arg(long, env = "DATASTORE_DATA_DIR", default_value = "./data", value_name = "DIRECTORY")]
    data_dir: PathBuf,
    /// What this node is when its cluster is formed
    #[arg(long, env = "DATASTORE_ROLE", value_enum, default_value_t = RoleFlag::Primary)]
    role: RoleFlag,
    /// How replicas agree
    #[arg(long, env = "DATASTORE_MODE", value_enum, default_value_t = ModeFlag::Leader)]
    mode: ModeFlag,
    /// The other nodes: [{"node_id":2,"host":"127.0.0.1","port":9001}, …]; none when absent
    #[arg(long, env = "DATASTORE_PEERS", value_name = "JSON")]
    peers: Option<String>,
    /// Share of log syncs that fail on purpose, 0.0 to 1.0; to test what clients do about it
    #[arg(long, env = "DATASTORE_DROP_RATE", default_value_t = 0.0, value_name = "RATE")]
    drop_rate: f64,
    /// Indexes to keep: a list of value, text, vector and order, or none
    #[arg(long, env = "DATASTORE_INDEXES", default_value = "value,text,vector,order", value_name = "LIST")]
    indexes: String,
    /// Slices of the keyspace, each with a thread; may change between two starts [default: cores − 1, at least 1]
    #[arg(long, env = "DATASTORE_SHARDS", value_name = "COUNT")]
    shards: Option<usize>,
    /// Bytes by which the log grows before a snapshot is made
    #[arg(long, env = "DATASTORE_SNAPSHOT_EVERY_BYTES", default_value_t = limits::SNAPSHOT_EVERY_BYTES_DEFAULT, value_name = "BYTES")]
    snapshot_every_bytes: u64,
    /// How snapshots are packed; either is read at a start, whatever this says
    #[arg(long, env = "DATASTORE_SNAPSHOT_COMPRESSION", value_enum, default_value_t = CompressionFlag::Zstd)]
    snapshot_compression: CompressionFlag,
    /// Bytes of a log segment
    #[arg(long, env = "DATASTORE_SEGMENT_BYTES", default_value_t = limits::SEGMENT_BYTES_DEFAULT, value_name = "BYTES")]
    segment_bytes: u64,
    /// Bytes of the longest request line
    #[arg(long, env = "DATASTORE_MAX_LINE_BYTES", default_value_t = limits::LINE_BYTES_MAX_DEFAULT, value_name = "BYTES")]
    max_line_bytes: usize,
    /// Bytes that entries and indexes may occupy before writes are refused; 0 for no bound
    #[arg(long, env = "DATASTORE_MAX_MEMORY", default_value_t = 0, value_name = "BYTES")]
    max_memory: u64,
    /// Client connections at once; fewer where the process may open fewer files
    #[arg(long, env = "DATASTORE_MAX_CONNECTIONS", default_value_t = limits::CONNECTIONS_MAX, value_name = "COUNT")]
    max_connections: usize,
    /// Milliseconds after which an unanswered request is answered `timeout`
    #[arg(long, env = "DATASTORE_REQUEST_TIMEOUT_MS", default_value_t = limits::REQUEST_TIMEOUT_MS_DEFAULT, value_name = "MILLISECONDS")]
    request_timeout_ms: u64,
    /// Milliseconds after which a client's connection is closed on which nothing happens; 0 for never
    #[arg(long, env = "DATASTORE_IDLE_TIMEOUT_MS", default_value_t = 0, value_name = "MILLISECONDS")]
    idle_timeout_ms: u64,
    /// Latest version of the nodes' own protocol to speak, while nodes of an earlier version are in the cluster
    #[arg(long, env = "DATASTORE_PEER_PROTOCOL", default_value_t = PROTOCOL.1, value_name = "VERSION")]
    peer_protocol: u32,
    /// Milliseconds added to the system's clock, which may be negative; to test what a wrong clock does in dynamo mode
    #[arg(
        long,
        env = "DATASTORE_CLOCK_OFFSET_MS",
        default_value_t = 0,
        allow_negative_numbers = true,
        value_name = "MILLISECONDS"
    )]
    clock_offset_ms: i64,
    /// How the node's own messages are written
    #[arg(long, env = "DATASTORE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Listen on an address that others can reach, without authentication or encryption
    #[arg(long, env = "DATASTORE_INSECURE", value_parser = BoolishValueParser::new())]
    insecure: bool,
    /// Start with a damaged log by cutting it at the damage: what was acknowledged behind it is lost
    #[arg(long, env = "DATASTORE_TRUNCATE_DAMAGED_LOG", value_parser = BoolishValueParser::new())]
    truncate_damaged_log: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum RoleFlag {
    Primary,
    Secondary,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeFlag {
    Leader,
    Dynamo,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CompressionFlag {
    None,
    Zstd,
}

/// How the node's own messages are written.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Flags {
    /// The settings as given, not yet checked.
    pub fn into_settings(self) -> RawSettings {
        RawSettings {
            host: self.host,
            advertise: self.advertise,
            port: self.port,
            node_id: self.node_id,
            data_dir: self.data_dir,
            secondary: self.role == RoleFlag::Secondary,
            mode: match self.mode {
                ModeFlag::Leader => Mode::Leader,
                ModeFlag::Dynamo => Mode::Dynamo,
            },
            peers: self.peers,
            drop_rate: self.drop_rate,
            indexes: self.indexes,
            shards: self.shards,
            snapshot_every_bytes: self.snapshot_every_bytes,
            snapshot_compression: match self.snapshot_compression {
                CompressionFlag::None => SnapshotCompression::None,
                CompressionFlag::Zstd => SnapshotCompression::Zstd,
            },
            segment_bytes: self.segment_bytes,
            line_bytes_max: self.max_line_bytes,
            memory_bytes_max: self.max_memory,
            connections_max: self.max_connections,
            request_timeout_ms: self.request_timeout_ms,
            idle_timeout_ms: self.idle_timeout_ms,
            insecure: self.insecure,
            truncate_damaged_log: self.truncate_damaged_log,
            peer_protocol_max: self.peer_protocol,
            clock_offset_ms: self.clock_offset_ms,
        }
    }
}
