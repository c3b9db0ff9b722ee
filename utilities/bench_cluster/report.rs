//! What the bench found, as it is written to JSON.

use datastore_utilities::bench::{Machine, Mark, Marked, Settings, Spread};
use datastore_utilities::load::Outcome;
use serde::Serialize;

/// Everything.
#[derive(Serialize)]
pub struct Report {
    /// Where it was measured.
    pub machine: Machine,
    /// How.
    pub settings: Settings,
    /// The node's version.
    pub node: String,
    /// etcd's version, where it is installed.
    pub etcd: Option<String>,
    /// What etcd's own tool says.
    pub check_perf: Vec<CheckPerf>,
    /// Writes of a cluster, by its settings.
    pub writes: Vec<Writes>,
    /// Reads of a cluster.
    pub reads: Vec<Reads>,
    /// How soon replicas show a write.
    pub replication: Option<Replication>,
    /// How long nothing is acknowledged when the leader is killed.
    pub failover: Option<Failover>,
    /// The same of two nodes.
    pub failover_of_two: Option<Failover>,
    /// A node without peers beside one of another build.
    pub alone: Vec<Pair>,
    /// Three nodes of dynamo mode.
    pub dynamo: Option<Dynamo>,
}

/// Three nodes of dynamo mode.
#[derive(Serialize)]
pub struct Dynamo {
    /// How soon the others show a write.
    pub replication: Replication,
    /// What a write costs the node that takes it.
    pub cost: Vec<DynamoCost>,
    /// What a node that is down costs the others.
    pub down: DynamoDown,
}

/// Processor time of a write under one load.
#[derive(Serialize)]
pub struct DynamoCost {
    /// Connections.
    pub connections: usize,
    /// Requests of a batch.
    pub pipeline: usize,
    /// Microseconds of the node that takes it.
    pub ours_us: Spread,
    /// Of a node on its own.
    pub single_us: Spread,
    /// The one by the other, pair by pair.
    pub ratio: Spread,
    /// The median beside its mark.
    pub marked: Marked,
}

/// One of three is down.
#[derive(Serialize)]
pub struct DynamoDown {
    /// Writes that it missed.
    pub writes: u64,
    /// Memory of the node that took them, before.
    pub before_bytes: u64,
    /// The most that was seen meanwhile.
    pub most_bytes: u64,
    /// At rest afterwards.
    pub after_bytes: u64,
    /// From the start of the one that was down until it has all.
    pub caught_up_s: f64,
    /// By entries of the log alone.
    pub by_log: bool,
}

/// One load of `etcdctl check perf`: one minute, keys of 256 bytes, values of 1 KiB.
#[derive(Serialize)]
pub struct CheckPerf {
    /// The load's name.
    pub load: &'static str,
    /// Its clients, each with one request at a time.
    pub clients: u64,
    /// It asks for no more than this.
    pub target_per_second: u64,
    /// What it got.
    pub per_second: f64,
}

/// Writes to three nodes with one kind of settings.
#[derive(Serialize)]
pub struct Writes {
    /// What stands above it.
    pub title: String,
    /// The cells.
    pub rows: Vec<Pair>,
    /// At the deepest pipeline, by the best that etcd showed at any of its shapes,
    /// round by round.
    pub pipelined: Option<Held>,
    /// The same by the best of `check perf` alone, which is not held to a mark.
    pub by_check_perf: Option<Spread>,
    /// With most clients, by etcd's best with so many.
    pub clients: Option<Held>,
    /// Runs repeated since another node had come to lead.
    pub repeated: usize,
}

/// One load on two sides, alternating.
#[derive(Serialize)]
pub struct Pair {
    /// `SET` or `GET`.
    pub operation: &'static str,
    /// Connections.
    pub connections: usize,
    /// Requests of a batch.
    pub pipeline: usize,
    /// This build's node or nodes.
    pub ours: Side,
    /// What it is compared with, where that is there.
    pub other: Option<Side>,
    /// The one's throughput by the other's, pair by pair.
    pub ratio: Option<Spread>,
    /// What the ratio is held to, if anything.
    pub marked: Option<Marked>,
}

/// A ratio and what it is held to.
#[derive(Serialize)]
pub struct Held {
    /// The ratio, round by round.
    pub ratio: Spread,
    /// Its median beside the mark.
    pub marked: Marked,
}

impl Held {
    /// Holds the median to the mark.
    pub fn new(ratios: impl IntoIterator<Item = f64>, mark: Mark) -> Held {
        let ratio = Spread::of(ratios);
        Held { ratio, marked: Marked::new(ratio.median, mark) }
    }
}

/// The runs of one side.
#[derive(Serialize)]
pub struct Side {
    /// Operations in a second.
    pub per_second: Spread,
    /// Half of the replies came within this; the median of the runs.
    pub p50_us: f64,
    /// 99 of 100 did.
    pub p99_us: f64,
    /// Part of the time in which the generator was busy, 0 to 1.
    pub generator_share: f64,
    /// Replies in all runs, each as it should be.
    pub answered: u64,
}

impl Side {
    /// Of at least one run.
    pub fn of<'r>(runs: impl Iterator<Item = &'r Outcome> + Clone) -> Side {
        let median = |figure: &dyn Fn(&Outcome) -> f64| Spread::of(runs.clone().map(figure)).median;
        Side {
            per_second: Spread::of(runs.clone().map(Outcome::per_second)),
            p50_us: median(&|run| run.latency_us(0.5)),
            p99_us: median(&|run| run.latency_us(0.99)),
            generator_share: median(&|run| run.generator_cpu.as_secs_f64() / run.elapsed.as_secs_f64()),
            answered: runs.clone().map(|run| run.answered).sum(),
        }
    }
}

/// Reads of one kind.
#[derive(Serialize)]
pub struct Reads {
    /// Who answers, and how.
    pub what: &'static str,
    /// Connections.
    pub connections: usize,
    /// Requests of a batch.
    pub pipeline: usize,
    /// The figures.
    pub side: Side,
}

/// The middle and the end of many figures.
#[derive(Serialize)]
pub struct Percentiles {
    /// How many there are.
    pub samples: usize,
    /// The middle one.
    pub median: f64,
    /// 99 of 100 are no greater.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Percentiles {
    /// Of at least one figure.
    pub fn of(mut figures: Vec<f64>) -> Percentiles {
        figures.sort_by(f64::total_cmp);
        let last = figures.len().saturating_sub(1);
        let p99 = (figures.len() * 99).div_ceil(100).saturating_sub(1);
        let at = |place: usize| figures.get(place).copied().unwrap_or(f64::NAN);
        Percentiles {
            samples: figures.len(),
            median: Spread::of(figures.iter().copied()).median,
            p99: at(p99),
            max: at(last),
        }
    }
}

/// How soon replicas show a write.
#[derive(Serialize)]
pub struct Replication {
    /// From the answer of the primary until a replica shows it; 0 when it showed
    /// it before.
    pub from_answer_ms: Percentiles,
    /// From the sending of the write.
    pub from_sending_ms: Percentiles,
    /// From the sending of the write to its answer.
    pub answer_ms: Percentiles,
    /// Replicas that were watched.
    pub replicas: usize,
    /// The median from the answer beside its mark.
    pub marked: Marked,
}

/// What killing the leader costs.
#[derive(Serialize)]
pub struct Failover {
    /// Nodes of the cluster.
    pub members: usize,
    /// Longest times between two acknowledged writes, one for each kill.
    pub gap_s: Percentiles,
    /// From a killed node's start until it had all and counted as serving.
    pub caught_up_s: Percentiles,
    /// Writes acknowledged in all.
    pub acknowledged: u64,
    /// Of them, not there at the end.
    pub lost: u64,
    /// The longest gap beside its mark.
    pub gap_marked: Marked,
    /// The lost writes beside theirs.
    pub lost_marked: Marked,
}

#[cfg(test)]
mod tests {
    use super::Percentiles;

    #[test]
    fn percentiles_count_from_below() {
        let of_200 = Percentiles::of((1..=200).rev().map(f64::from).collect());
        assert_eq!((of_200.samples, of_200.median, of_200.p99, of_200.max), (200, 100.5, 198.0, 200.0));
        let of_one = Percentiles::of(vec![3.0]);
        assert_eq!((of_one.median, of_one.p99, of_one.max), (3.0, 3.0, 3.0));
    }
}
