//! Three nodes of dynamo mode: how soon the others show a write, what it costs the node
//! that takes it, and what a node that is down costs the others.

use std::time::{Duration, Instant};

use datastore_utilities::bench::{Marked, Spread, ask_node, process};
use datastore_utilities::load::{Order, Outcome, Plan, Until};
use serde_json::json;

use crate::bench::{Bench, perfect};
use crate::marks;
use crate::nodes::Nodes;
use crate::replication;
use crate::report::{Dynamo, DynamoCost, DynamoDown, Replication};
use crate::writes::{MEMBERS, Method};

/// Connections and requests of a batch.
const SHAPES: [(usize, usize); 3] = [(1, 1), (50, 1), (50, 16)];
const ARGUMENTS: [&str; 2] = ["--indexes", "none"];
/// Connections and requests of a batch while a node is down.
const DOWN_SHAPE: (usize, usize) = (50, 16);

/// All of it; `writes` are made while a node is down, `samples` watched on their way.
pub fn measure(bench: &Bench, method: &Method, samples: usize, writes: u64) -> Result<Dynamo, String> {
    let replication = of_replication(bench, samples)?;
    let cost = cost(bench, method)?;
    let down = while_down(bench, method, writes)?;
    Ok(Dynamo { replication, cost, down })
}

fn of_replication(bench: &Bench, samples: usize) -> Result<Replication, String> {
    let nodes = Nodes::start_dynamo(bench, MEMBERS, &[])?;
    replication::of_nodes(bench, &nodes, 0, samples)
}

/// Processor time of the node that takes the writes, by that of a node on its own.
fn cost(bench: &Bench, method: &Method) -> Result<Vec<DynamoCost>, String> {
    let data = method.data()?;
    let three = Nodes::start_dynamo(bench, MEMBERS, &ARGUMENTS)?;
    let alone = Nodes::start(bench, &bench.node, 1, &ARGUMENTS)?;
    let mut costs = Vec::new();
    for shape in SHAPES {
        let (mut per_write, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
        for round in 0..method.rounds {
            let plan = method.plan(&data, shape, 0.0, round);
            let mut us = [0.0; 2];
            for (place, nodes) in [&three, &alone].into_iter().enumerate() {
                bench.rest([&three.members, &alone.members])?;
                us[place] = us_per_write(bench, nodes, &plan)?;
                per_write[place].push(us[place]);
            }
            ratios.push(us[0] / us[1]);
        }
        let (connections, pipeline) = shape;
        let [ours, single] = per_write.map(Spread::of);
        let ratio = Spread::of(ratios);
        let marked = Marked::new(ratio.median, marks::DYNAMO_CPU);
        eprintln!(
            "dynamo {connections}, {pipeline}: {:.2} times a single node's processor time",
            ratio.median
        );
        costs.push(DynamoCost { connections, pipeline, ours_us: ours, single_us: single, ratio, marked });
    }
    Ok(costs)
}

fn us_per_write(bench: &Bench, nodes: &Nodes<'_>, plan: &Plan<'_>) -> Result<f64, String> {
    let node = &nodes.members[0];
    let before = node.cpu()?;
    let outcome: Outcome = perfect(nodes.load(0, plan)?, "the nodes")?;
    // What it does behind the answers, for itself and for the others, counts, too.
    bench.rest([std::slice::from_ref(node), &[]])?;
    Ok((node.cpu()? - before).as_secs_f64() * 1e6 / outcome.answered as f64)
}

/// One of three is killed; so many writes later it comes again.
fn while_down(bench: &Bench, method: &Method, writes: u64) -> Result<DynamoDown, String> {
    let data = method.data()?;
    let mut nodes = Nodes::start_dynamo(bench, MEMBERS, &ARGUMENTS)?;
    let plan = |writes: u64, seed: u64| Plan {
        data: &data,
        connections: DOWN_SHAPE.0,
        pipeline: DOWN_SHAPE.1,
        // So few that all of them are there after the first writes, and nothing grows by them.
        keys: 10_000.min(method.keys),
        order: Order::Random,
        reads: 0.0,
        until: Until::Count(writes),
        seed,
    };
    perfect(nodes.load(0, &plan(writes / 10, 1))?, "the nodes")?;
    let resident = |nodes: &Nodes<'_>| process::resident_bytes(nodes.members[0].id());
    bench.rest([&nodes.members, &[]])?;
    let before = resident(&nodes)?;
    nodes.members[2].kill()?;
    let mut most = before;
    for part in 0..10 {
        perfect(nodes.load(0, &plan(writes / 10, 2 + part))?, "the nodes")?;
        most = most.max(resident(&nodes)?);
    }
    bench.rest([&nodes.members[..2], &[]])?;
    let after = resident(&nodes)?;
    let last = ask_node(nodes.members[0].address, &json!({"op": "set", "key": "last", "value": 1}))?;
    nodes.members[2].start_again()?;
    let began = Instant::now();
    let read = json!({"op": "get", "key": "last", "after_version": last["version"]});
    let late = nodes.members[2].address;
    bench.wait("the node has caught up", || Ok(ask_node(late, &read).is_ok().then_some(())))?;
    let caught_up: Duration = began.elapsed();
    let taken = ask_node(late, &json!({"op": "cluster"}))?["dynamo"]["states_taken"].as_u64();
    Ok(DynamoDown {
        writes,
        before_bytes: before,
        most_bytes: most,
        after_bytes: after,
        caught_up_s: caught_up.as_secs_f64(),
        by_log: taken == Some(0),
    })
}
