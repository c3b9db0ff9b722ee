//! Throughput and latency: the cells of a table.

use std::time::Duration;

use datastore_utilities::bench::Spread;
use datastore_utilities::load::{Data, Order, Outcome, Plan, Until, Values};

use crate::marks;
use crate::report::{Cell, Side, Table};
use crate::server::{Bench, Kind, Server};
use crate::sides::fill;

/// What a table compares.
pub struct Comparison {
    /// What stands above it.
    pub title: String,
    /// What is written.
    pub values: Values,
    /// The node's arguments.
    pub node_arguments: &'static [&'static str],
    /// Whether the node has its indexes on.
    pub is_indexed: bool,
}

/// How it is measured.
pub struct Method {
    /// Connections and requests of a batch.
    pub cells: Vec<(usize, usize)>,
    /// Keys of each server.
    pub keys: u64,
    /// Pairs of runs for a cell.
    pub rounds: usize,
    /// How long a run is.
    pub time: Duration,
    /// What random choices begin with.
    pub seed: u64,
}

/// One run.
struct Run {
    outcome: Outcome,
    server_cpu: Duration,
}

/// Fills both servers and measures every cell.
pub fn compare(bench: &Bench, comparison: &Comparison, method: &Method) -> Result<Table, String> {
    let data = Data::new("key:", comparison.values)?;
    let node = bench.start(Kind::Node, comparison.node_arguments)?;
    let redis = bench.start(Kind::Redis, &[])?;
    for server in [&node, &redis] {
        eprintln!("{}: filling {}", comparison.title, server.kind.name());
        fill(server, &data, method.keys, method.seed)?;
    }
    let mut cells = Vec::new();
    for (operation, reads) in [("SET", 0.0), ("GET", 1.0)] {
        for &shape in &method.cells {
            let measured = measure(bench, [&node, &redis], &data, method, reads, shape)?;
            let cell = judge(comparison.is_indexed, operation, shape, measured);
            eprintln!("{operation} {:?}: {:.2} times Redis", shape, cell.ratio.median);
            cells.push(cell);
        }
    }
    Ok(Table { title: comparison.title.clone(), is_indexed: comparison.is_indexed, cells })
}

/// Pairs of runs, one after the other.
fn measure(
    bench: &Bench,
    servers: [&Server; 2],
    data: &Data,
    method: &Method,
    reads: f64,
    (connections, pipeline): (usize, usize),
) -> Result<Vec<[Run; 2]>, String> {
    let mut rounds = Vec::new();
    for round in 0..method.rounds {
        let plan = Plan {
            data,
            connections,
            pipeline,
            keys: method.keys,
            order: Order::Random,
            reads,
            until: Until::Time(method.time),
            // The same keys for both, others in each round.
            seed: method.seed + round as u64,
        };
        let run = |server: &Server| {
            bench.rest(&servers)?;
            let before = server.cpu()?;
            let outcome = server.run(&plan)?;
            Ok::<Run, String>(Run { outcome, server_cpu: server.cpu()?.saturating_sub(before) })
        };
        rounds.push([run(servers[0])?, run(servers[1])?]);
    }
    Ok(rounds)
}

fn judge(is_indexed: bool, operation: &'static str, shape: (usize, usize), rounds: Vec<[Run; 2]>) -> Cell {
    let ratios = rounds.iter().map(|[node, redis]| node.outcome.per_second() / redis.outcome.per_second());
    let ratio = Spread::of(ratios);
    let [node, redis] = [0, 1].map(|server| side(rounds.iter().map(|round| &round[server]).collect()));
    let mark = marks::of_ratio(is_indexed, operation == "GET", shape, redis.per_second);
    let is_met = mark.map(|mark| mark.is_met(ratio.median));
    Cell { operation, connections: shape.0, pipeline: shape.1, ratio, mark, is_met, node, redis }
}

fn side(runs: Vec<&Run>) -> Side {
    let median = |figure: &dyn Fn(&Run) -> f64| Spread::of(runs.iter().map(|run| figure(run))).median;
    let each_us = |time: Duration, run: &Run| time.as_secs_f64() * 1e6 / run.outcome.answered as f64;
    Side {
        per_second: median(&|run| run.outcome.per_second()),
        p50_us: median(&|run| run.outcome.latency_us(0.5)),
        p99_us: median(&|run| run.outcome.latency_us(0.99)),
        server_cpu_us: median(&|run| each_us(run.server_cpu, run)),
        generator_cpu_us: median(&|run| each_us(run.outcome.generator_cpu, run)),
        generator_share: median(&|run| {
            run.outcome.generator_cpu.as_secs_f64() / run.outcome.elapsed.as_secs_f64()
        }),
        answered: runs.iter().map(|run| run.outcome.answered).sum(),
        errors: runs.iter().map(|run| run.outcome.refusals() + run.outcome.wrong).sum(),
    }
}
