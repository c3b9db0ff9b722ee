//! What a bench found, as it is written to JSON and drawn from.

use datastore_utilities::bench::{Machine, Mark, Marked, Settings, Spread};
use serde::Serialize;

/// Everything.
#[derive(Serialize)]
pub struct Report {
    /// Where it was measured.
    pub machine: Machine,
    /// How.
    pub settings: Settings,
    /// The two servers.
    pub node: About,
    /// The other one.
    pub redis: About,
    /// Throughput and latency.
    pub tables: Vec<Table>,
    /// Memory per key.
    pub memory: Vec<MemoryRow>,
    /// Time until a restarted server answers.
    pub recovery: Vec<RecoveryRow>,
}

/// A server.
#[derive(Serialize)]
pub struct About {
    /// Its version, as it says itself.
    pub version: String,
    /// When a write is durable, as it was asked after it had started.
    pub durability: String,
}

/// The cells of one kind of data.
#[derive(Serialize)]
pub struct Table {
    /// What stands above it.
    pub title: String,
    /// Whether the node has its indexes on.
    pub is_indexed: bool,
    /// The rows.
    pub cells: Vec<Cell>,
}

/// One operation with one number of connections and requests at a time.
#[derive(Serialize)]
pub struct Cell {
    /// `SET` or `GET`.
    pub operation: &'static str,
    /// Connections.
    pub connections: usize,
    /// Requests of a batch.
    pub pipeline: usize,
    /// The node's throughput by Redis's, of each pair of runs.
    pub ratio: Spread,
    /// What the median ratio is held to.
    pub mark: Option<Mark>,
    /// Whether it is.
    pub is_met: Option<bool>,
    /// The node's figures.
    pub node: Side,
    /// Redis's figures.
    pub redis: Side,
}

/// Medians of a server's runs, and sums.
#[derive(Serialize)]
pub struct Side {
    /// Operations in a second.
    pub per_second: f64,
    /// Half of the replies came within this.
    pub p50_us: f64,
    /// 99 of 100 replies came within this.
    pub p99_us: f64,
    /// Processor time of the server for an operation.
    pub server_cpu_us: f64,
    /// Processor time of the generator for an operation.
    pub generator_cpu_us: f64,
    /// The part of the time in which the generator was busy, 0 to 1.
    pub generator_share: f64,
    /// Replies in all runs; each was checked.
    pub answered: u64,
    /// Of them, not as they should be: a bench with any ends without a report.
    pub errors: u64,
}

/// Memory that a fill took.
#[derive(Serialize)]
pub struct MemoryRow {
    /// What was filled in.
    pub data: String,
    /// Keys.
    pub keys: u64,
    /// Growth of the node's resident memory for a key.
    pub node_bytes_per_key: f64,
    /// Of Redis's; it has no indexes.
    pub redis_bytes_per_key: f64,
    /// What is held to the mark, if anything.
    pub marked: Option<Marked>,
}

/// Time from a process's start to its first answer, and what it amounts to.
#[derive(Serialize)]
pub struct RecoveryRow {
    /// The server and what it recovers from.
    pub source: String,
    /// Items recovered.
    pub items: u64,
    /// Seconds until a read is answered.
    pub answers_s: Spread,
    /// Seconds until every index is built, where there are any.
    pub indexed_s: Option<Spread>,
    /// Items a second until the first answer, by the median.
    pub items_per_second: f64,
    /// What is held to the mark, if anything.
    pub marked: Option<Marked>,
}
