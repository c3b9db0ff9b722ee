//! The runs.

use super::cluster::{Cluster, Figures, Report};
use super::endings::evicted_beside_an_older_copy;
use super::scenarios::older_copy;
use crate::replication::dynamo::mistake::Mistake;

const SEED: &str = "DATASTORE_SIMULATION_SEED";
const FIRST: &str = "DATASTORE_SIMULATION_FIRST";
const SEEDS: &str = "DATASTORE_SIMULATION_SEEDS";
const SEEDS_DEFAULT: u64 = 6;
const RUN_MS: u64 = 60_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn seeds() -> std::ops::Range<u64> {
    match variable(SEED) {
        Some(seed) => seed..seed + 1,
        None => {
            let first = variable(FIRST).unwrap_or(0);
            first..first + variable(SEEDS).unwrap_or(SEEDS_DEFAULT)
        }
    }
}

fn add(sum: &mut Figures, more: &Figures) {
    let rows = [
        (&mut sum.milliseconds, more.milliseconds),
        (&mut sum.acknowledged, more.acknowledged),
        (&mut sum.reads, more.reads),
        (&mut sum.refused, more.refused),
        (&mut sum.waits, more.waits),
        (&mut sum.crashes, more.crashes),
        (&mut sum.partitions, more.partitions),
        (&mut sum.failed_syncs, more.failed_syncs),
        (&mut sum.clock_jumps, more.clock_jumps),
        (&mut sum.held, more.held),
        (&mut sum.snapshots, more.snapshots),
        (&mut sum.cuts, more.cuts),
        (&mut sum.transfers, more.transfers),
        (&mut sum.broken_transfers, more.broken_transfers),
        (&mut sum.repairs, more.repairs),
        (&mut sum.evictions, more.evictions),
        (&mut sum.evicted_together, more.evicted_together),
        (&mut sum.excessive, more.excessive),
        (&mut sum.stranded, more.stranded),
        (&mut sum.restored, more.restored),
        (&mut sum.moved, more.moved),
        (&mut sum.began_anew, more.began_anew),
        (&mut sum.forked, more.forked),
        (&mut sum.collected, more.collected),
        (&mut sum.conflicts, more.conflicts),
        (&mut sum.differences, more.differences),
        (&mut sum.equal_roots, more.equal_roots),
        (&mut sum.lost, more.lost),
        (&mut sum.astray, more.astray),
    ];
    rows.into_iter().for_each(|(sum, more)| *sum += more);
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted[(sorted.len() - 1) * percent / 100]
}

#[test]
fn nothing_that_must_hold_is_broken_by_any_seed() {
    let (mut sum, mut converged, mut settled) = (Figures::default(), Vec::new(), Vec::new());
    for seed in seeds() {
        for nodes in [3, 5, 7] {
            eprintln!("{SEED}={seed}, {nodes} nodes");
            let Report { figures, converged_ms, settled_ms } = Cluster::new(seed, nodes, None).run(RUN_MS);
            add(&mut sum, &figures);
            converged.push(converged_ms);
            settled.push(settled_ms);
        }
    }
    converged.sort_unstable();
    settled.sort_unstable();
    println!(
        "{:.2} simulated hours: converged after p50 {} ms, p99 {} ms, settled after p50 {} ms, p99 {} ms, {sum:?}",
        sum.milliseconds as f64 / 3_600_000.0,
        percentile(&converged, 50),
        percentile(&converged, 99),
        percentile(&settled, 50),
        percentile(&settled, 99),
    );
    for (what, count) in [
        ("acknowledged writes", sum.acknowledged),
        ("transfers", sum.transfers),
        ("evictions", sum.evictions),
        ("older copies", sum.restored),
        ("older copies at another port", sum.moved),
        ("collected tombstones", sum.collected),
        ("conflicts", sum.conflicts),
        ("equal roots", sum.equal_roots),
    ] {
        assert!(count > 0 || variable(SEED).is_some(), "{count} {what} show nothing");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || format!("{:?}", Cluster::new(7, 3, None).run(RUN_MS / 3));
    assert_eq!(run(), run());
}

/// Runs with a mistake until a seed catches it; gives what was said.
fn caught(mistake: Mistake) -> Option<(u64, String)> {
    const TRIED_MAX: u64 = 60;
    (0..TRIED_MAX).find_map(|seed| {
        let run = std::panic::catch_unwind(|| match mistake {
            Mistake::SpeaksUnsure => drop(older_copy(seed, Some(mistake))),
            Mistake::EndedStreamsTaken => evicted_beside_an_older_copy(seed, Some(mistake)),
            _ => drop(Cluster::new(seed, 3, Some(mistake)).run(RUN_MS)),
        });
        let said = run.err()?;
        let text = said.downcast_ref::<String>().cloned();
        let text = text.or_else(|| said.downcast_ref::<&str>().map(ToString::to_string));
        Some((seed, text.unwrap_or_default()))
    })
}

#[test]
fn every_seeded_mistake_is_caught() {
    const ALL: [Mistake; 6] = [
        Mistake::NoPlusOne,
        Mistake::TombstonesByTime,
        Mistake::TombstonesWhenAllHaveThem,
        Mistake::OriginReused,
        Mistake::EndedStreamsTaken,
        Mistake::SpeaksUnsure,
    ];
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {})); // each of them is expected to panic
    let results = ALL.map(|mistake| (mistake, caught(mistake)));
    std::panic::set_hook(hook);
    for (mistake, result) in &results {
        println!("{mistake:?}: {result:?}");
    }
    for (mistake, result) in results {
        assert!(result.is_some(), "{mistake:?} was not caught");
    }
}
