//! A node without peers beside a node of another build: whether the ways of a
//! cluster cost anything where there is none.

use std::path::Path;

use datastore_utilities::bench::{Marked, Spread};
use datastore_utilities::load::Outcome;

use crate::bench::Bench;
use crate::marks;
use crate::nodes::Nodes;
use crate::report::{Pair, Side};
use crate::writes::Method;

/// Connections and requests of a batch.
const SHAPES: [(usize, usize); 5] = [(1, 1), (1, 16), (50, 1), (50, 16), (50, 64)];
const ARGUMENTS: [&str; 2] = ["--indexes", "none"];

/// Fills both and measures them in turn.
pub fn compare(bench: &Bench, other: &Path, method: &Method) -> Result<Vec<Pair>, String> {
    let data = method.data()?;
    let mut ours = Nodes::start(bench, &bench.node, 1, &ARGUMENTS)?;
    let mut other = Nodes::start(bench, other, 1, &ARGUMENTS)?;
    for node in [&mut ours, &mut other] {
        node.fill(&data, method.keys, method.seed)?;
    }
    let mut pairs = Vec::new();
    for (operation, reads) in [("SET", 0.0), ("GET", 1.0)] {
        for shape in SHAPES {
            let mut runs = Vec::new();
            for round in 0..method.rounds {
                let plan = method.plan(&data, shape, reads, round);
                runs.push([ours.run(&plan, &other.members)?, other.run(&plan, &ours.members)?]);
            }
            pairs.push(pair(operation, shape, &runs));
        }
    }
    Ok(pairs)
}

fn pair(operation: &'static str, (connections, pipeline): (usize, usize), runs: &[[Outcome; 2]]) -> Pair {
    let ratio = Spread::of(runs.iter().map(|[ours, other]| ours.per_second() / other.per_second()));
    eprintln!("{operation} {connections}, {pipeline}: {:.2} times the other build", ratio.median);
    Pair {
        operation,
        connections,
        pipeline,
        ours: Side::of(runs.iter().map(|[ours, _]| ours)),
        other: Some(Side::of(runs.iter().map(|[_, other]| other))),
        ratio: Some(ratio),
        marked: Some(Marked::new(ratio.median, marks::ALONE)),
    }
}
