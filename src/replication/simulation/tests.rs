//! The runs.

use super::checker::Counts;
use super::faults::Figures;
use super::{Cluster, Mutant, Report};
use crate::replication::raft::Mistake;

const SEED: &str = "DATASTORE_SIMULATION_SEED";
const FIRST: &str = "DATASTORE_SIMULATION_FIRST";
const SEEDS: &str = "DATASTORE_SIMULATION_SEEDS";
const SEEDS_DEFAULT: u64 = 8;
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

#[test]
fn nothing_that_must_hold_is_broken_by_any_seed() {
    let mut sum = Report::default();
    for seed in seeds() {
        for nodes in [2, 3, 5] {
            eprintln!("{SEED}={seed}, {nodes} nodes");
            add_report(&mut sum, &Cluster::new(seed, nodes, None).run(RUN_MS));
        }
    }
    println!("{:.2} simulated hours: {sum:?}", sum.milliseconds as f64 / 3_600_000.0);
    let Counts { acknowledged_bulks, acknowledged_conditional, reads, refused_by_condition, .. } = sum.counts;
    for (what, count) in [
        ("bulks", acknowledged_bulks),
        ("conditional writes", acknowledged_conditional),
        ("reads", reads),
        ("refusals by a condition", refused_by_condition),
        ("hashes", sum.counts.hashes),
    ] {
        assert!(count > 100, "{count} {what} show nothing");
    }
}

#[test]
fn nothing_that_must_hold_is_broken_by_older_copies() {
    let mut sum = Report::default();
    for seed in seeds() {
        for nodes in [2, 3, 5] {
            eprintln!("{SEED}={seed}, {nodes} nodes, older copies");
            let cluster = Cluster::new(seed, nodes, None).with_older_copies();
            // In some of them a node can't read a doubt.
            let is_mixed = seed % 4 == 3;
            let cluster = if is_mixed {
                cluster.with_earlier_version(seed as usize / 4 % nodes as usize)
            } else {
                cluster
            };
            add_report(&mut sum, &cluster.run(RUN_MS));
        }
        for (nodes, sizes) in OPERATED {
            eprintln!("{SEED}={seed}, nodes and machines {nodes:?}, {sizes:?} wanted, older copies");
            add_report(
                &mut sum,
                &Cluster::operated(seed, nodes, sizes, None).with_older_copies().run(RUN_MS),
            );
        }
    }
    println!("{:.2} simulated hours: {sum:?}", sum.milliseconds as f64 / 3_600_000.0);
    let Figures { set_back, doubts_ended, .. } = sum.figures;
    assert!(set_back.min(doubts_ended) > 0 || variable(SEED).is_some(), "{set_back} and {doubts_ended}");
}

/// Nodes at first and machines, and how many nodes there shall be.
const OPERATED: [((u64, u64), (usize, usize)); 3] = [((1, 5), (1, 5)), ((2, 2), (2, 2)), ((3, 4), (2, 4))];

#[test]
fn nothing_that_must_hold_is_broken_by_an_operator() {
    let mut sum = Report::default();
    for seed in seeds() {
        for (nodes, sizes) in OPERATED {
            eprintln!("{SEED}={seed}, nodes and machines {nodes:?}, {sizes:?} wanted");
            add_report(&mut sum, &Cluster::operated(seed, nodes, sizes, None).run(RUN_MS));
        }
    }
    println!("{:.2} simulated hours: {sum:?}", sum.milliseconds as f64 / 3_600_000.0);
    let Figures { changes, adoptions, wipes, hand_backs, .. } = sum.figures;
    for (what, count) in
        [("changes", changes), ("adoptions", adoptions), ("wipes", wipes), ("hand-backs", hand_backs)]
    {
        assert!(count > 0 || variable(SEED).is_some(), "{count} {what} show nothing");
    }
}

fn add_report(sum: &mut Report, report: &Report) {
    sum.milliseconds += report.milliseconds;
    sum.committed += report.committed;
    add(&mut sum.counts, &report.counts);
    sum.figures.add(&report.figures);
}

fn add(sum: &mut Counts, more: &Counts) {
    sum.acknowledged += more.acknowledged;
    sum.acknowledged_bulks += more.acknowledged_bulks;
    sum.acknowledged_conditional += more.acknowledged_conditional;
    sum.refused += more.refused;
    sum.refused_by_condition += more.refused_by_condition;
    sum.unknown += more.unknown;
    sum.reads += more.reads;
    sum.replica_reads += more.replica_reads;
    sum.local_reads += more.local_reads;
    sum.hashes += more.hashes;
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = || {
        let report = Cluster::new(7, 3, None).run(RUN_MS);
        format!("{report:?}")
    };
    assert_eq!(run(), run());
}

#[test]
fn the_lowest_id_leads_and_the_next_one_takes_over() {
    let mut cluster = Cluster::calm(1, 3, None);
    cluster.run_until(3_000);
    assert_eq!(cluster.leader(), Some(1));
    cluster.crash(0);
    let before = cluster.acknowledged();
    cluster.run_until(5_000);
    assert_eq!(cluster.leader(), Some(2));
    assert!(cluster.acknowledged() > before, "two of three go on within two seconds");
    cluster.start(0);
    cluster.run_until(15_000);
    assert_eq!(cluster.leader(), Some(2), "who comes back changes nothing");
    cluster.crash(1);
    cluster.run_until(17_000);
    assert_eq!(cluster.leader(), Some(1));
}

#[test]
fn without_a_majority_nothing_is_acknowledged() {
    let mut cluster = Cluster::calm(1, 3, None);
    cluster.run_until(3_000);
    cluster.crash(1);
    cluster.crash(2);
    cluster.run_until(4_000);
    let before = cluster.acknowledged();
    cluster.run_until(20_000);
    assert_eq!(cluster.acknowledged(), before);
    assert_eq!(cluster.leader(), None, "a leader that hears of no majority steps down");
    cluster.start(2);
    cluster.run_until(23_000);
    assert!(cluster.acknowledged() > before);
}

#[test]
fn a_higher_id_that_alone_is_up_to_date_wins_and_hands_over() {
    let mut cluster = Cluster::calm(1, 3, None);
    cluster.run_until(3_000);
    cluster.crash(0); // nodes 2 and 3 go on
    cluster.run_until(10_000);
    cluster.crash(1);
    cluster.start(0); // node 3 alone has all; node 1 lags
    cluster.run_until(20_000);
    assert_eq!(cluster.leader(), Some(1), "node 3 was elected and handed over");
}

/// Where a bug may show.
fn run_with(seed: u64, mutant: Mutant) -> Report {
    let cluster = match mutant {
        Mutant::ForcedTwice => forced_twice(seed, Some(mutant)),
        Mutant::PartsNotLetGo => Cluster::restless(seed, 3, Some(mutant)),
        Mutant::WipedVotes => Cluster::operated(seed, (2, 2), (2, 2), Some(mutant)),
        Mutant::WitnessCampaigns | Mutant::WitnessBeforeDisk => Cluster::new(seed, 2, Some(mutant)),
        Mutant::CopyNotKnown | Mutant::OfReplica(_) => {
            Cluster::new(seed, [3, 5][seed as usize % 2], Some(mutant)).with_older_copies()
        }
        _ => Cluster::new(seed, 3, Some(mutant)),
    };
    cluster.run(RUN_MS)
}

/// Two nodes, parted and forced on both sides, that reach each other again; then one is wiped.
fn forced_twice(seed: u64, mutant: Option<Mutant>) -> Cluster {
    let mut cluster = Cluster::calm(seed, 2, mutant);
    cluster.run_until(3_000);
    cluster.part(0, true, true);
    cluster.run_until(6_000);
    cluster.force(0, true);
    cluster.force(1, false);
    cluster.run_until(8_000);
    // Of another term than the other one, which would pass over what it says.
    cluster.crash(1);
    cluster.start(1);
    cluster.run_until(10_000);
    cluster.faults.heal();
    cluster.run_until(12_000);
    let before = cluster.acknowledged();
    cluster.run_until(15_000);
    assert!(cluster.acknowledged() > before, "the one that was forced listens to the other side");
    cluster.wipe(1);
    cluster
}

#[test]
fn who_was_forced_apart_and_is_wiped_belongs_to_the_cluster_again() {
    let report = forced_twice(0, None).run(RUN_MS);
    assert_eq!((report.figures.forced, report.figures.adoptions), (2, 1));
}

/// Runs with a bug until a seed catches it; gives what was said.
fn caught(mutant: Mutant) -> Option<(u64, String)> {
    const TRIED_MAX: u64 = 200;
    // Rare ones begin where they were found last, to spare time; a change of the schedule moves that.
    let first = match mutant {
        Mutant::VoteNotPersisted => 150,
        Mutant::TermNotPersisted => 15,
        Mutant::RefusalWithoutRound => 220,
        Mutant::PartsNotLetGo => 25,
        _ => 0,
    };
    (first..first + TRIED_MAX).find_map(|seed| {
        let run = std::panic::catch_unwind(|| run_with(seed, mutant));
        let said = run.err()?;
        let text = said.downcast_ref::<String>().cloned();
        Some((
            seed,
            text.or_else(|| said.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default(),
        ))
    })
}

#[test]
fn every_seeded_bug_is_caught() {
    const ALL: [Mutant; 29] = [
        Mutant::PersistedBeforeSync,
        Mutant::PromisesBeforeSync,
        Mutant::VoteNotPersisted,
        Mutant::TermNotPersisted,
        Mutant::ReadWithoutRound,
        Mutant::ReadBeforeApply,
        Mutant::ForgottenTruncation,
        Mutant::AcknowledgedAtPropose,
        Mutant::AcknowledgedAtOwnSync,
        Mutant::AcknowledgedByIndex,
        Mutant::TailAppliedAtRestart,
        Mutant::RefusedButProposed,
        Mutant::OfficeNumberIgnored,
        Mutant::OfficeAtElection,
        Mutant::ConditionWithoutWaiting,
        Mutant::RefusalWithoutRound,
        Mutant::LostAnsweredNotApplied,
        Mutant::GuardByIndexAlone,
        Mutant::InstallOvertakes,
        Mutant::PartAlone,
        Mutant::PartsNotLetGo,
        Mutant::GroupOutlivesOffice,
        Mutant::WalkNotReplayed,
        Mutant::WipedVotes,
        Mutant::WitnessCampaigns,
        Mutant::WitnessBeforeDisk,
        Mutant::ForcedTwice,
        Mutant::CopyNotKnown,
        Mutant::OfReplica(Mistake::DoubtIgnoredInElections),
    ];
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {})); // each of them is expected to panic
    let results = ALL.map(|mutant| (mutant, caught(mutant)));
    std::panic::set_hook(report);
    for (mutant, result) in &results {
        println!("{mutant:?}: {result:?}");
    }
    for (mutant, result) in results {
        assert!(result.is_some(), "{mutant:?} was not caught");
    }
}
