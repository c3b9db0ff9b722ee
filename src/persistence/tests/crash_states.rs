//! Every moment of many histories, crashed in many ways. `DATASTORE_CRASH_STATES`
//! is how many states to try (12,000 otherwise),
//! `DATASTORE_CRASH_SEED` the first seed.

use super::super::drop_rate::next_random;
use super::super::mutant::Mutant;
use super::super::{CrashKind, FaultyDisk, MemoryDisk, Replay, initialise};
use super::history::History;
use super::{append, identity, open, options};

pub(super) const STATES_DEFAULT: u64 = 12_000;
const RANDOM_CRASHES: u64 = 6;

pub(super) fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Crashes one history at every moment; how many states that were.
fn crash_everywhere(seed: u64, actions: usize, mutant: Option<Mutant>) -> Result<u64, String> {
    let mut history = History::new(seed, mutant);
    history.run(actions).map_err(|problem| format!("seed {seed}: {problem}"))?;
    crash_at_each_step(&history.disk, seed, &|crashed, step, seed| history.check(crashed, step, seed))
}

/// Crashes what was done to `disk` at every moment in many ways, and lets
/// `check` judge each: the crashed disk, the step, a seed.
pub(super) fn crash_at_each_step(
    disk: &MemoryDisk,
    seed: u64,
    check: &dyn Fn(&MemoryDisk, usize, u64) -> Result<(), String>,
) -> Result<u64, String> {
    let replayed = MemoryDisk::new();
    let mut random = seed;
    let mut states = 0;
    for step in 0..=disk.steps() {
        let mut kinds =
            vec![CrashKind::LoseAll, CrashKind::KeepAll, CrashKind::LoseNames, CrashKind::LoseBytes];
        kinds.extend((0..RANDOM_CRASHES).map(|_| CrashKind::Random(next_random(&mut random))));
        if !replayed.has_pending() {
            kinds.truncate(1);
        }
        let fail = |how: &str, problem: String| format!("seed {seed}, step {step}, {how}: {problem}");
        for kind in kinds {
            states += 1;
            let crashed = replayed.crash(kind);
            check(&crashed, step, seed ^ step as u64)
                .map_err(|problem| fail(&format!("{kind:?}"), problem))?;
        }
        states += 1;
        check(&replayed.clone_state(), step, seed).map_err(|problem| fail("process killed", problem))?;
        if step < disk.steps() {
            disk.advance(&replayed);
        }
    }
    Ok(states)
}

#[test]
fn no_crash_loses_an_acknowledged_entry_or_brings_a_refused_one_back() {
    let wanted = from_environment("DATASTORE_CRASH_STATES").unwrap_or(STATES_DEFAULT);
    let first_seed = from_environment("DATASTORE_CRASH_SEED").unwrap_or(1);
    let (mut states, mut seed) = (0, first_seed);
    while states < wanted {
        let actions = 5 + (seed % 60) as usize;
        match crash_everywhere(seed, actions, None) {
            Ok(count) => states += count,
            Err(problem) => panic!("{problem}"),
        }
        seed += 1;
    }
    println!(
        "{states} crash states of {} histories, first seed {first_seed}: 0 lost, 0 resurrected",
        seed - first_seed
    );
}

#[test]
fn every_fault_put_in_on_purpose_is_found() {
    let mutants = [
        Mutant::AcknowledgeBeforeSync,
        Mutant::SegmentNotSynced,
        Mutant::SegmentNameNotSynced,
        Mutant::NoSeal,
        Mutant::SealKeepsRefusedFrame,
        Mutant::UnsealedIsRefused,
        Mutant::GrowsBesideSuccessor,
        Mutant::HalfCutIsDamage,
        Mutant::NoSalt,
        Mutant::RecoveryTrustsCache,
    ];
    const SEEDS_MAX: u64 = 300;
    for mutant in mutants {
        let found = (1..=SEEDS_MAX)
            .find_map(|seed| crash_everywhere(seed, 5 + (seed % 60) as usize, Some(mutant)).err());
        match found {
            Some(problem) => println!("{mutant:?}: {problem}"),
            None => panic!("{mutant:?} was not found in {SEEDS_MAX} histories"),
        }
    }
}

#[test]
fn with_faults_at_random_what_was_acknowledged_is_what_is_there() {
    for seed in 0..20 {
        let memory = MemoryDisk::new();
        initialise(&memory, &options(8192), &identity(), 3).unwrap();
        let faulty = FaultyDisk::new(memory.clone(), 0.3, seed);
        let (mut log, _, _) = open(faulty, &options(8192), Replay::default(), seed).unwrap();
        let mut acknowledged = Vec::new();
        for number in 0..200u32 {
            let payload = [number.to_le_bytes(); 30].concat();
            if let Ok(appended) = append(&mut log, &[&payload], None) {
                acknowledged.push((appended.first_index, payload));
            }
        }
        let faults = log.disk().figures();
        assert_eq!(faults.syncs, 200);
        assert_eq!(faults.lost + faults.kept, log.figures().sync_failures);
        assert!(faults.lost > 10 && faults.kept > 10, "{faults:?}");
        for kind in [CrashKind::LoseAll, CrashKind::KeepAll, CrashKind::Random(seed)] {
            let (_, report, entries) =
                open(memory.crash(kind), &options(8192), Replay::default(), 5).unwrap();
            assert_eq!(entries, acknowledged, "seed {seed}");
            assert_eq!(report.torn, None);
        }
    }
}
