//! Promise: what was acknowledged survives a kill, what was refused never
//! shows, a bulk is whole or absent, and the indexes agree with the keyspace.
//!
//! Rounds of load and SIGKILL on one directory, with segments and snapshots so
//! small that the kills fall into rotations, snapshots and cuts. A kill keeps
//! the page cache, so this can't find a missing sync; the tests of crash states
//! in `src/persistence` do that.
//!
//! `DATASTORE_KILL_ROUNDS` says how many rounds (5 unless given),
//! `DATASTORE_TEST_SEED` repeats the choices of a run.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

mod common;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Node, Options, PATIENCE, random, temporary_directory};
use datastore_utilities::proof::{self, Book, Fault, Names, Writers};
use datastore_utilities::random::Random;
use serde_json::{Value, json};

const ROUNDS_DEFAULT: usize = 5;
/// Rounds end after a number of acknowledged writes within this range.
const ACKNOWLEDGED_PER_ROUND: Range<u64> = 50..1_500;
/// One in so many restarts is killed as soon as it serves.
const SECOND_KILL: u64 = 4;
/// Connections that write at once.
const WRITERS: usize = 3;

#[test]
fn nothing_acknowledged_is_lost_over_kills() {
    kill_rounds("0");
}

#[test]
fn nothing_refused_ever_shows_over_kills_with_failing_syncs() {
    kill_rounds("0.3");
}

#[test]
fn snapshots_made_while_writes_go_on_hold_what_was_acknowledged() {
    let mut random = Random::new(random::seed());
    let directory = temporary_directory();
    // No snapshot but those that are asked for.
    let mut node = Options::in_directory(directory.path()).start();
    let book = Arc::new(Book::new(Names::new("kill")));
    for round in 0..2 {
        let writers = Writers::start(node.address, WRITERS, &book, &mut random);
        let mut client = node.client();
        for part in 1..=4 {
            assert!(book.wait_for(part * 200, PATIENCE));
            client.ok(json!({"op": "snapshot"}));
        }
        let killed = node.kill();
        writers.join();
        node = killed.start();
        let recovered: Value =
            serde_json::from_str(&node.wait_for_log("\"recovered\"")).expect("a JSON line");
        assert!(recovered["fields"]["snapshot_entries"].as_u64() > Some(0), "{recovered}");
        verify(&node, &book, round);
    }
}

fn rounds() -> usize {
    std::env::var("DATASTORE_KILL_ROUNDS").map_or(ROUNDS_DEFAULT, |rounds| rounds.parse().expect("a number"))
}

fn kill_rounds(drop_rate: &str) {
    let mut random = Random::new(random::seed());
    let directory = temporary_directory();
    let flags = ["--drop-rate", drop_rate, "--segment-bytes", "65536", "--snapshot-every-bytes", "131072"];
    let mut node = Options::in_directory(directory.path()).with(&flags).start();
    let book = Arc::new(Book::new(Names::new("kill")));
    let mut recoveries = Vec::new();
    let mut kills = 0;
    for round in 0..rounds() {
        let writers = Writers::start(node.address, WRITERS, &book, &mut random);
        let Range { start, end } = ACKNOWLEDGED_PER_ROUND;
        assert!(book.wait_for(start + random.below(end - start), PATIENCE));
        let mut killed = node.kill();
        kills += 1;
        writers.join();
        if random.below(SECOND_KILL) == 0 {
            killed = killed.start().kill();
            kills += 1;
        }
        let began = Instant::now();
        node = killed.start();
        recoveries.push(began.elapsed());
        verify(&node, &book, round);
    }
    report(drop_rate, kills, &book, recoveries);
}

fn report(drop_rate: &str, kills: usize, book: &Book, mut recoveries: Vec<Duration>) {
    recoveries.sort();
    let percentile = |percent: usize| recoveries[(recoveries.len() - 1) * percent / 100];
    let figures = book.with(|ledger| ledger.figures);
    println!(
        "drop rate {drop_rate}: kills {kills}, writes acknowledged {} refused {} unknown {}, registers verified {}, \
         start to serving p50 {:?} p99 {:?}",
        figures.acknowledged,
        figures.refused,
        figures.unknown,
        figures.registers_verified,
        percentile(50),
        percentile(99),
    );
}

/// Holds the restarted node to the book.
fn verify(node: &Node, book: &Book, round: usize) {
    let verified = book.with(|ledger| proof::verify(node.address, &book.names, ledger));
    let faults: Vec<String> = verified.expect("the node answers").iter().map(Fault::to_string).collect();
    assert!(faults.is_empty(), "round {round}: {} faults\n{}", faults.len(), faults.join("\n"));
}
