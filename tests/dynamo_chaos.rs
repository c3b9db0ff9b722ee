//! Promise: whatever happens to the nodes of dynamo mode and the network between them, as
//! soon as they reach each other again all hold the same: every acknowledged write, or a
//! later one of its key, and nothing that was deleted.
//!
//! Five clients write the same few keys at all nodes meanwhile. `DATASTORE_FAULT_ROUNDS`
//! says how many faults there are (30 unless given), `DATASTORE_TEST_SEED` repeats the
//! choices of a run. A long run:
//!
//! ```text
//! DATASTORE_FAULT_ROUNDS=500 cargo test --release -p datastore-node --test dynamo_chaos nothing -- --nocapture
//! ```

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::time::{Duration, Instant};

use cluster::Cluster;
use cluster::directories::Back;
use cluster::network::Id;
use cluster::under_load::rounds;
use cluster::writers::Writers;
use common::random::Random;
use serde_json::{Value, json};

const FAULTS_DEFAULT: usize = 30;
const NODES: u64 = 3;
const CLIENTS: usize = 5;
/// Faults before all is mended, at most.
const FAULTS_AT_ONCE: usize = 4;
/// Logs are cut often, so that some nodes take a state over.
const FLAGS: [&str; 4] = ["--segment-bytes", "65536", "--snapshot-every-bytes", "131072"];
/// Far more than clocks may differ.
const SKEW: [&str; 2] = ["-10000", "10000"];

/// A number below which so many of a hundred lie.
fn percentile(sorted: &[Duration], of_100: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * of_100 / 100).copied().unwrap_or_default()
}

fn shown(name: &str, mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let (half, most) = (percentile(&times, 50), percentile(&times, 99));
    format!("{name}: p50 {half:?}, p99 {most:?}, of {}", times.len())
}

/// What is wrong with the nodes now.
#[derive(Default)]
struct Faults {
    count: usize,
    kills: usize,
    parts: usize,
    pauses: usize,
    skews: usize,
    skewed: Vec<Id>,
    losses: usize,
    /// An older copy of a node's directory.
    kept: Option<(Id, tempfile::TempDir)>,
}

impl Faults {
    /// One more.
    fn make(&mut self, cluster: &mut Cluster, random: &mut Random) {
        self.count += 1;
        let healthy: Vec<Id> = cluster.running().into_iter().filter(|id| !self.skewed.contains(id)).collect();
        if healthy.len() < 2 {
            // Somebody must take writes.
            return self.kill(cluster, random);
        }
        match random.below(20) {
            0..=6 => self.kill(cluster, random),
            7..=15 => self.part(cluster, random),
            16..=18 => {
                self.pauses += 1;
                cluster.pause(*random.pick(&healthy));
            }
            _ => self.skew(cluster, *random.pick(&healthy), random),
        }
    }

    fn kill(&mut self, cluster: &mut Cluster, random: &mut Random) {
        self.kills += 1;
        let running = cluster.running();
        let one = *random.pick(&running);
        let victims = if random.below(3) == 0 { running.clone() } else { vec![one] };
        victims.iter().for_each(|id| cluster.kill(*id));
        // It stays away if others can do without it.
        if victims.len() > 1 || running.len() == 1 || random.below(2) == 0 {
            cluster.mend();
        }
    }

    fn part(&mut self, cluster: &mut Cluster, random: &mut Random) {
        self.parts += 1;
        if random.below(3) == 0 {
            cluster.heal();
        }
        let ids = cluster.ids();
        let one = *random.pick(&ids);
        let others = cluster.others(one);
        match random.below(4) {
            0 => cluster.isolate(one),
            // Every node alone.
            1 => ids.iter().for_each(|id| cluster.isolate(*id)),
            2 => cluster.part(&[one], &[*random.pick(&others)]),
            _ => cluster.cut(one, *random.pick(&others)),
        }
    }

    /// Its clock is wrong from its next start on, and that is now.
    fn skew(&mut self, cluster: &mut Cluster, id: Id, random: &mut Random) {
        self.skews += 1;
        let offset = *random.pick(&SKEW);
        let flags: Vec<&str> = FLAGS.into_iter().chain(["--clock-offset-ms", offset]).collect();
        cluster.set_dynamo_flags(id, &flags);
        cluster.kill(id);
        cluster.restart(id);
        self.skewed.push(id);
    }

    /// A node loses its data or some of it, when all others have all of it; mostly none does.
    fn lose(&mut self, cluster: &mut Cluster, random: &mut Random) {
        let ids = cluster.ids();
        let id = *random.pick(&ids);
        match (random.below(6), self.kept.take()) {
            (0, _) => {
                self.losses += 1;
                cluster.kill(id);
                cluster.evict(*random.pick(&cluster.others(id)), id);
                cluster.wipe(id);
                cluster.restart(id);
                // Had it data before it was let in, it would not be.
                cluster.wait_for_contact(&ids);
            }
            (1 | 2, Some((id, kept))) => {
                self.losses += 1;
                cluster.kill(id);
                cluster.put_back(id, kept.path(), Back::Restored);
                cluster.restart(id);
            }
            (_, None) => {
                cluster.kill(id);
                self.kept = Some((id, cluster.backup(id)));
                cluster.restart(id);
            }
            (_, kept) => self.kept = kept,
        }
    }

    /// Clocks are set right; says whether any was wrong.
    fn set_clocks(&mut self, cluster: &mut Cluster) -> bool {
        let skewed = std::mem::take(&mut self.skewed);
        for id in &skewed {
            cluster.set_dynamo_flags(*id, &FLAGS);
            if cluster.is_started(*id) {
                cluster.kill(*id);
            }
        }
        !skewed.is_empty()
    }
}

/// How long it takes until another node shows a write, while nothing else goes on.
fn replication_latency(cluster: &Cluster) -> Vec<Duration> {
    let measure = |number: u64| {
        let (from, to) = (1 + number % NODES, 1 + (number + 1) % NODES);
        let written = cluster.ok_at(from, &json!({"op": "set", "key": "latency", "value": number}));
        let begin = Instant::now();
        while cluster.ok_at(to, &json!({"op": "get", "key": "latency"}))["version"] != written["version"] {
            assert!(begin.elapsed() < common::PATIENCE, "it never came");
        }
        begin.elapsed()
    };
    (0..100).map(measure).collect()
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_deleted_returns_over_random_faults() {
    let mut random = Random::seeded();
    let mut cluster = Cluster::dynamo(NODES, &FLAGS);
    let latency = replication_latency(&cluster);
    let mut writers = Writers::start(&cluster, &cluster.ids(), CLIENTS, &mut random);
    let (mut faults, mut times, mut skewed_times) = (Faults::default(), Vec::new(), Vec::new());
    let mut taken = 0;
    while faults.count < rounds(FAULTS_DEFAULT) {
        for _ in 0..=random.below(FAULTS_AT_ONCE) {
            faults.make(&mut cluster, &mut random);
            writers.wait_for_more(&cluster, 5 + random.below(60));
        }
        let times = if faults.set_clocks(&mut cluster) { &mut skewed_times } else { &mut times };
        let (_, took) = writers.settle_check_and(&mut cluster, |cluster| faults.lose(cluster, &mut random));
        times.push(took);
        for id in cluster.ids() {
            assert_eq!(cluster.differences(id), 0, "{}", cluster.describe());
            taken += cluster.dynamo_view(id)["states_taken"].as_u64().unwrap_or_default();
        }
    }
    let (_, took) = writers.settle_and_check(&mut cluster);
    times.push(took);
    let conflicts =
        cluster.ids().iter().filter_map(|id| cluster.dynamo_view(*id)["conflicts"].as_u64()).max();
    let counts = writers.stop();
    let contents = cluster.settle();
    writers.check(&contents);
    writers.would_find(&contents);
    cluster.wait_for_equal_states(&cluster.ids());
    cluster.wait_until("all deletes are forgotten", |cluster| {
        cluster.ids().into_iter().all(|id| cluster.tombstones(id) == 0)
    });
    let Faults { count, kills, parts, pauses, skews, losses, .. } = faults;
    println!(
        "faults: {count} (kills {kills}, partitions {parts}, pauses {pauses}, wrong clocks {skews}), directories lost or set back: {losses}"
    );
    println!("{counts:?}, lost: 0, deleted and back: 0");
    let conflicts = conflicts.unwrap_or_default();
    println!("conflicts seen since the last start: {conflicts}; parts of states taken over: {taken}");
    println!("{}", shown("from healed to equal", times));
    println!("{}", shown("… with a clock that was wrong", skewed_times));
    println!("{}", shown("from a write's ok to its being read elsewhere", latency));
}

fn set(key: &str) -> Value {
    json!({"op": "set", "key": key, "value": "v"})
}

/// Node 3 with a wrong clock, that has taken a write before it heard of the others.
fn with_a_wrong_clock(offset_ms: &str) -> Cluster {
    let mut cluster = Cluster::dynamo(NODES, &[]);
    cluster.ok_at(3, &set("before"));
    cluster.settle();
    cluster.set_dynamo_flags(3, &["--clock-offset-ms", offset_ms]);
    (1..=3).for_each(|id| cluster.kill(id));
    cluster.restart(3);
    cluster.ok_at(3, &set("by a wrong clock"));
    cluster.restart_all();
    cluster.wait_until_refused(3, &set("refused"), "clock_skew");
    let error = cluster.refused(3, &set("refused"));
    assert_eq!((&error["outcome"], &error["retryable"]), (&json!("not_applied"), &json!(true)), "{error}");
    assert_eq!(cluster.dynamo_view(3)["clock"]["is_wrong"], true);
    cluster.ok_at(3, &json!({"op": "get", "key": "before"}));
    [1, 2].into_iter().for_each(|id| drop(cluster.ok_at(id, &set(&format!("by {id}")))));
    cluster
}

/// When it is right again, what was taken is everywhere, and it takes writes.
fn is_set_right(cluster: &mut Cluster) {
    cluster.set_dynamo_flags(3, &[]);
    cluster.kill(3);
    cluster.restart(3);
    let contents = cluster.settle();
    for key in ["before", "by a wrong clock", "by 1", "by 2"] {
        assert!(contents.contains_key(key), "{key}: {contents:?}");
    }
    assert!(contents.keys().all(|key| key != "refused" || contents[key]["value"] == "v"));
    cluster.ok_at(3, &set("by a right clock"));
    cluster.ok_at(1, &json!({"op": "delete", "key": "by a wrong clock"}));
    assert!(!cluster.settle().contains_key("by a wrong clock"), "a later delete wins");
}

#[test]
fn a_node_whose_clock_is_ahead_takes_no_writes_and_what_it_took_waits_and_comes() {
    let mut cluster = with_a_wrong_clock("10000");
    cluster.wait_for_log(1, "ahead of this node's clock: they wait");
    assert_eq!(cluster.ok_at(1, &json!({"op": "get", "key": "by a wrong clock"}))["found"], false);
    is_set_right(&mut cluster);
}

#[test]
fn a_node_whose_clock_is_behind_takes_no_writes_and_has_all_once_it_is_right() {
    let mut cluster = with_a_wrong_clock("-10000");
    cluster.wait_for_log(3, "ahead of this node's clock: they wait");
    is_set_right(&mut cluster);
}
