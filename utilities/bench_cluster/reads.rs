//! Reads of a cluster: linearizable ones of the primary, local ones of a replica.

use datastore_utilities::load::{Answer, JsonLines, Protocol};

use crate::bench::{Bench, perfect};
use crate::nodes::Nodes;
use crate::report::{Reads, Side};
use crate::writes::{MEMBERS, Method};

/// Connections and requests of a batch.
const SHAPES: [(usize, usize); 2] = [(50, 16), (50, 1)];

/// JSON lines whose reads take what the node has.
#[derive(Clone)]
struct LocalReads;

impl Protocol for LocalReads {
    fn set(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        JsonLines.set(key, value, out);
    }

    fn get(&mut self, key: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"op":"get","key":""#);
        out.extend_from_slice(key);
        out.extend_from_slice(b"\",\"consistency\":\"local\"}\n");
    }

    fn reply<'a>(&mut self, input: &'a [u8]) -> Option<(Answer<'a>, usize)> {
        JsonLines.reply(input)
    }
}

/// Fills a cluster and reads it, the two kinds in turn.
pub fn measure(bench: &Bench, method: &Method) -> Result<Vec<Reads>, String> {
    let data = method.data()?;
    let mut nodes = Nodes::start(bench, &bench.node, MEMBERS, &[])?;
    nodes.fill(&data, method.keys, method.seed)?;
    let mut runs = SHAPES.map(|_| [Vec::new(), Vec::new()]);
    for round in 0..method.rounds {
        for (shape, [primary, replica]) in SHAPES.into_iter().zip(&mut runs) {
            let plan = method.plan(&data, shape, 1.0, round);
            primary.push(nodes.run(&plan, &[])?);
            bench.rest([&nodes.members, &[]])?;
            let leader = nodes.wait_for_leader()?;
            bench.wait("the replica has every key", || {
                Ok(nodes.has_caught_up((leader + 1) % MEMBERS, leader).then_some(()))
            })?;
            let address = nodes.members[(leader + 1) % MEMBERS].address;
            replica.push(perfect(bench.load(address, &LocalReads, &plan)?, "a replica")?);
        }
    }
    let rows = SHAPES.into_iter().zip(&runs).flat_map(|((connections, pipeline), [primary, replica])| {
        [("primary, linearizable", primary), ("replica, local", replica)].map(|(what, runs)| Reads {
            what,
            connections,
            pipeline,
            side: Side::of(runs.iter()),
        })
    });
    Ok(rows.collect())
}
