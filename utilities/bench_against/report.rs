//! What a bench found, as it is written to JSON and drawn from.

use serde::Serialize;

use crate::machine::Machine;
use crate::marks::Mark;

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

/// How it was measured.
#[derive(Serialize)]
pub struct Settings {
    /// Keys of each server.
    pub keys: u64,
    /// Pairs of runs for a cell.
    pub rounds: usize,
    /// Seconds of a run.
    pub seconds: f64,
    /// What random choices begin with.
    pub seed: u64,
    /// Whether the figures mean nothing, since the run was only to see that all works.
    pub is_quick: bool,
    /// Whether the programs were built without optimisation.
    pub is_debug_build: bool,
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

/// The middle of some figures and how far they lie apart.
#[derive(Clone, Copy, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Spread {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let at = |place: usize| figures.get(place).copied().unwrap_or(f64::NAN);
        let last = figures.len().saturating_sub(1);
        // Of an even number the mean of the middle two.
        Spread { min: at(0), median: (at(last / 2) + at(figures.len() / 2)) / 2.0, max: at(last) }
    }
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

/// A figure beside its mark.
#[derive(Serialize)]
pub struct Marked {
    /// What is held to it.
    pub figure: f64,
    /// What it is held to.
    pub mark: Mark,
    /// Whether it is as good.
    pub is_met: bool,
}

impl Marked {
    /// Holds a figure to its mark.
    pub fn new(figure: f64, mark: Mark) -> Marked {
        Marked { figure, mark, is_met: mark.is_met(figure) }
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]).median, 2.5);
        assert_eq!(Spread::of([7.0]).median, 7.0);
    }
}
