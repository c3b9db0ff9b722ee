//! Durable writes of three nodes beside three members of etcd.
//!
//! Rounds of all shapes, nodes and etcd in turn, one generator for both. A ratio
//! is that of two runs next to each other. The marks are held more strictly than
//! that: to the best that etcd shows in the same round at any shape, or in its own
//! `check perf`.

use std::time::Duration;

use datastore_utilities::bench::Spread;
use datastore_utilities::load::{Data, Order, Outcome, Plan, Until, Values};

use crate::bench::Bench;
use crate::etcd::Etcd;
use crate::marks;
use crate::nodes::Nodes;
use crate::report::{CheckPerf, Held, Pair, Side, Writes};

/// Members of a cluster.
pub const MEMBERS: usize = 3;
/// Connections and requests of a batch: the last one has the most clients.
const SHAPES: [(usize, usize); 3] = [(50, 64), (50, 16), (500, 1)];
const PIPELINED: usize = 0;
const CLIENTS: usize = 2;

/// How it is measured.
pub struct Method {
    /// Keys of each side.
    pub keys: u64,
    /// Rounds.
    pub rounds: usize,
    /// How long a run is.
    pub time: Duration,
    /// What random choices begin with.
    pub seed: u64,
}

impl Method {
    /// Keys and values of every comparison.
    pub fn data(&self) -> Result<Data, String> {
        Data::new("key:", Values::Letters { value_bytes: 32 })
    }

    /// The plan of a run in this round: the same keys for both sides.
    pub fn plan<'d>(
        &self,
        data: &'d Data,
        (connections, pipeline): (usize, usize),
        reads: f64,
        round: usize,
    ) -> Plan<'d> {
        Plan {
            data,
            connections,
            pipeline,
            keys: self.keys,
            order: Order::Random,
            reads,
            until: Until::Time(self.time),
            seed: self.seed + round as u64,
        }
    }
}

/// The runs of a round, shape by shape.
struct Round {
    ours: Vec<Outcome>,
    etcd: Vec<Outcome>,
}

/// Compares nodes with these arguments.
pub fn compare(
    bench: &Bench,
    title: &str,
    arguments: &[&str],
    etcd: Option<&Etcd>,
    check_perf: &[CheckPerf],
    method: &Method,
) -> Result<Writes, String> {
    let data = method.data()?;
    let mut nodes = Nodes::start(bench, &bench.node, MEMBERS, arguments)?;
    let mut rounds = Vec::new();
    for number in 0..method.rounds {
        let mut round = Round { ours: Vec::new(), etcd: Vec::new() };
        for shape in SHAPES {
            let plan = method.plan(&data, shape, 0.0, number);
            let of_etcd = etcd.map_or(&[][..], |etcd| &etcd.members);
            round.ours.push(nodes.run(&plan, of_etcd)?);
            if let Some(etcd) = etcd {
                round.etcd.push(etcd.run(&plan, &nodes.members)?);
            }
        }
        eprintln!("{title}: round {} of {}, {}", number + 1, method.rounds, described(&round));
        rounds.push(round);
    }
    let rows = SHAPES.iter().enumerate().map(|(place, shape)| row(&rounds, place, *shape)).collect();
    let best_of = |clients: Option<usize>| {
        let perf =
            check_perf.iter().filter(|perf| clients.is_none_or(|clients| perf.clients == clients as u64));
        perf.map(|perf| perf.per_second).fold(0.0, f64::max)
    };
    let held = |place: usize, best: &dyn Fn(&Round) -> f64, mark| {
        let ratios = rounds.iter().map(|round| round.ours[place].per_second() / best(round));
        etcd.map(|_| Held::new(ratios, mark))
    };
    let best = best_of(None);
    let best_of_any = |round: &Round| round.etcd.iter().map(Outcome::per_second).fold(best, f64::max);
    let best_of_clients =
        |round: &Round| round.etcd[CLIENTS].per_second().max(best_of(Some(SHAPES[CLIENTS].0)));
    Ok(Writes {
        title: title.into(),
        rows,
        pipelined: held(PIPELINED, &best_of_any, marks::PIPELINED),
        by_check_perf: (best > 0.0)
            .then(|| Spread::of(rounds.iter().map(|round| round.ours[PIPELINED].per_second() / best))),
        clients: held(CLIENTS, &best_of_clients, marks::CLIENTS),
        repeated: nodes.repeated,
    })
}

fn row(rounds: &[Round], place: usize, (connections, pipeline): (usize, usize)) -> Pair {
    let has_etcd = rounds.iter().all(|round| round.etcd.len() > place);
    let ratios =
        || rounds.iter().map(|round| round.ours[place].per_second() / round.etcd[place].per_second());
    Pair {
        operation: "SET",
        connections,
        pipeline,
        ours: Side::of(rounds.iter().map(|round| &round.ours[place])),
        other: has_etcd.then(|| Side::of(rounds.iter().map(|round| &round.etcd[place]))),
        ratio: has_etcd.then(|| Spread::of(ratios())),
        marked: None,
    }
}

/// The round's figures, so that whoever waits sees something.
fn described(round: &Round) -> String {
    let list = |runs: &[Outcome]| {
        let figures: Vec<String> = runs.iter().map(|run| format!("{:.0}", run.per_second())).collect();
        figures.join(", ")
    };
    format!("writes a second: nodes {}; etcd {}", list(&round.ours), list(&round.etcd))
}
