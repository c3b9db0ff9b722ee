//! How long a restarted server takes until it answers again.
//!
//! The time runs from the start of the process to the answer to a read, so all of
//! starting is in it. The files were just written: they come from the page cache.

use std::time::{Duration, Instant};

use datastore_utilities::bench::{Marked, Spread, ask_node, ask_redis};
use datastore_utilities::load::{Data, Values};
use serde_json::json;

use crate::marks;
use crate::report::RecoveryRow;
use crate::server::{Bench, Kind, Server};
use crate::sides::{expect_keys, fill};

/// Neither server makes a snapshot or rewrites its log until it is told to.
const NODE_ALONE: [&str; 4] = ["--indexes", "none", "--snapshot-every-bytes", "1099511627776"];
const REDIS_ALONE: [&str; 2] = ["--auto-aof-rewrite-percentage", "0"];
/// Longer than any index takes to be built.
const INDEXES_PATIENCE: Duration = Duration::from_secs(300);
const POLL_EVERY: Duration = Duration::from_millis(1);

/// Restarts both servers from their logs, from their snapshots, and the node with
/// all indexes.
pub fn recover(bench: &Bench, keys: u64, rounds: usize, seed: u64) -> Result<Vec<RecoveryRow>, String> {
    let data = Data::new("key:", Values::Letters { value_bytes: 32 })?;
    let mut node = bench.start(Kind::Node, &NODE_ALONE)?;
    let mut redis = bench.start(Kind::Redis, &REDIS_ALONE)?;
    for server in [&node, &redis] {
        fill(server, &data, keys, seed)?;
    }
    expect_snapshot(&node, false)?;
    let [node_log, redis_log] = restart(bench, [&mut node, &mut redis], keys, rounds)?;
    ask_node(node.address, &json!({"op": "snapshot"}))?;
    expect_snapshot(&node, true)?;
    ask_redis(redis.address, "BGREWRITEAOF")?;
    bench.rest(&[&node, &redis])?;
    let [node_snapshot, redis_rewritten] = restart(bench, [&mut node, &mut redis], keys, rounds)?;
    drop((node, redis));

    let (indexed, until_indexed) = restart_indexed(bench, keys, rounds, seed)?;
    let row = |source: &str, answers_s: Spread, indexed_s, is_marked: bool| {
        let items_per_second = keys as f64 / answers_s.median;
        let marked = is_marked.then(|| Marked::new(items_per_second, marks::RECOVERED_PER_SECOND));
        RecoveryRow { source: source.into(), items: keys, answers_s, indexed_s, items_per_second, marked }
    };
    Ok(vec![
        row("node, from its log alone", node_log, None, true),
        row("node, from a snapshot", node_snapshot, None, true),
        row("node with all indexes, from its log", indexed, Some(until_indexed), false),
        row("Redis, from its append-only file", redis_log, None, false),
        row("Redis, from a rewritten file", redis_rewritten, None, false),
    ])
}

/// Restarts two servers in turn.
fn restart(
    bench: &Bench,
    [node, redis]: [&mut Server; 2],
    keys: u64,
    rounds: usize,
) -> Result<[Spread; 2], String> {
    let mut took_s = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (server, took_s) in [&mut *node, &mut *redis].into_iter().zip(&mut took_s) {
            bench.rest(&[server])?;
            took_s.push(server.restart()?.as_secs_f64());
            expect_keys(server, keys)?;
        }
    }
    let spreads = took_s.map(Spread::of);
    eprintln!("recovery: node {:.2} s, Redis {:.2} s", spreads[0].median, spreads[1].median);
    Ok(spreads)
}

/// Restarts a node with all indexes: until it answers, and until they are built.
fn restart_indexed(bench: &Bench, keys: u64, rounds: usize, seed: u64) -> Result<(Spread, Spread), String> {
    let mut node = bench.start(Kind::Node, &NODE_ALONE[2..])?;
    fill(&node, &Data::new("key:", Values::Words { words: 5 })?, keys, seed)?;
    let (mut answers_s, mut indexed_s) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        bench.rest(&[&node])?;
        let took = node.restart()?;
        let answered = Instant::now();
        while ask_node(node.address, &json!({"op": "stats", "section": "indexes"}))?["indexes"]["progress"]
            != 1.0
        {
            if answered.elapsed() > INDEXES_PATIENCE {
                return Err("the indexes were not built".into());
            }
            std::thread::sleep(POLL_EVERY);
        }
        answers_s.push(took.as_secs_f64());
        indexed_s.push((took + answered.elapsed()).as_secs_f64());
        expect_keys(&node, keys)?;
    }
    Ok((Spread::of(answers_s), Spread::of(indexed_s)))
}

/// Makes sure that the node has a snapshot, or that it has none.
fn expect_snapshot(node: &Server, is_wanted: bool) -> Result<(), String> {
    let wal = ask_node(node.address, &json!({"op": "stats", "section": "wal"}))?;
    let is_there = wal["wal"]["snapshot"]["last_index"] != 0;
    if is_there == is_wanted {
        Ok(())
    } else {
        Err(format!("the node's snapshots are {}", wal["wal"]["snapshot"]))
    }
}
