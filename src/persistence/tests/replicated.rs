//! A replicated log: entries replaced, final at their commit, read back, and
//! begun anew; step by step, and after every crash.

use std::io::ErrorKind;

use super::super::mutant::Mutant;
use super::super::{
    AppendEntry, AppendError, CrashKind, Disk, EntryPlaces, FailedSync, Fault, FileDisk, FrameRun, Log,
    LogOptions, MemoryDisk, OpenError, Operation, OwnedEntry, ReadError, RecoveredEntry, Replay, SyncPurpose,
    VisitError, first_retained_index, initialise, prepare_spare, read_entries, read_readable, segment_name,
};
use super::crash_states::{STATES_DEFAULT, crash_at_each_step, from_environment};
use super::replicated_history::{Found, ReplicatedHistory, commit_of, hard_state, open_replicated};
use super::{NODE, append, fresh, identity, open, options, salts};

/// A replicated log without entries.
fn begun(segment_bytes: u64) -> (MemoryDisk, Log<MemoryDisk>) {
    let disk = MemoryDisk::new();
    initialise(&disk, &options(segment_bytes), &identity(), 11).unwrap();
    let found = open_replicated(&disk, &options(segment_bytes), 0, 1).unwrap();
    (disk, found.log)
}

/// Appends one entry of each payload, all of one term; a commit index of 0 is no hard state.
fn write(
    log: &mut Log<MemoryDisk>,
    places: &mut EntryPlaces,
    first_index: u64,
    term: u64,
    payloads: &[&[u8]],
    commit: u64,
) -> Result<(), AppendError> {
    let pieces: Vec<[&[u8]; 1]> = payloads.iter().map(|payload| [*payload]).collect();
    let entries: Vec<AppendEntry<'_>> =
        pieces.iter().map(|payload| AppendEntry { kind: 1, term, payload }).collect();
    let state = hard_state(1, commit);
    let appended = log.append_at(first_index, &entries, (commit > 0).then_some(&state[..]))?;
    places.appended(&appended, entries.iter().map(|entry| entry.term));
    Ok(())
}

/// Index and payload of what a recovery hands over.
fn visited(found: &Found) -> Vec<(u64, Vec<u8>)> {
    found.visited.iter().map(|entry| (entry.0, entry.3.to_vec())).collect()
}

fn tail(found: &Found) -> Vec<(u64, u64)> {
    found.recovery.tail.iter().map(|entry| (entry.index, entry.term)).collect()
}

fn read(disk: &MemoryDisk, places: &EntryPlaces, low: u64, high: u64, bytes_max: u64) -> Vec<Vec<u8>> {
    let runs = places.between(low, high, bytes_max);
    let entries = read_entries(disk, &runs, low, high, bytes_max).unwrap();
    assert!(entries.iter().map(|entry| entry.index).eq(low..low + entries.len() as u64));
    entries.into_iter().map(|entry| entry.payload.to_vec()).collect()
}

#[test]
fn a_replacing_frame_is_these_bytes() {
    let (disk, mut log) = begun(8192);
    let mut places = EntryPlaces::new(1, None);
    write(&mut log, &mut places, 1, 3, &[b"one", b"two"], 0).unwrap();
    write(&mut log, &mut places, 2, 4, &[b"hello"], 1).unwrap();
    let bytes = disk.bytes("log/00000001.wal").unwrap();
    let offset = log.figures().frame_bytes as usize + 4096 - 104;
    let hex: String = bytes[offset..offset + 104].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN_REPLACING_FRAME);
}

const GOLDEN_REPLACING_FRAME: &str = "46524d3102001000250000000100000070977e1f18d31a5d040000000000000002000000000000000200000000000000\
     0100000000000000000000000f668ced010000000000000001000000000000000500000001000000040000000000000068656c6c6f000000";

#[test]
fn a_replaced_suffix_is_gone_and_what_is_final_is_handed_over() {
    let (disk, mut log) = begun(8192);
    let mut places = EntryPlaces::new(1, None);
    write(&mut log, &mut places, 1, 1, &[b"1", b"2", b"3", b"4"], 0).unwrap();
    write(&mut log, &mut places, 5, 1, &[b"5"], 2).unwrap();
    assert_eq!(log.replaceable_from(), 3);
    write(&mut log, &mut places, 3, 2, &[b"3'", b"4'"], 0).unwrap();
    assert_eq!((log.next_index(), log.figures().durable_index), (5, 4));
    write(&mut log, &mut places, 5, 2, &[b"5'"], 3).unwrap();
    let found = open_replicated(&disk, &options(8192), 1, 1).unwrap();
    assert_eq!(visited(&found), [(2, b"2".to_vec()), (3, b"3'".to_vec())]);
    assert_eq!(tail(&found), [(4, 2), (5, 2)]);
    assert_eq!((found.recovery.final_index, found.recovery.report.frames), (3, 4));
    assert_eq!(found.recovery.hard_state, Some(hard_state(1, 3)));
    for places in [&places, &found.recovery.places] {
        assert_eq!(
            (1..=6).map(|index| places.term(index)).collect::<Vec<_>>(),
            [Some(1), Some(1), Some(2), Some(2), Some(2), None]
        );
        assert_eq!(read(&disk, places, 1, 6, u64::MAX), [&b"1"[..], b"2", b"3'", b"4'", b"5'"]);
        assert_eq!(read(&disk, places, 2, 6, 3), [&b"2"[..], b"3'"]);
        assert_eq!(read(&disk, places, 4, 6, 0), [b"4'"], "one, however long");
    }
}

/// A snapshot shows entries up to its E, so they were committed, whatever the hard state says yet.
#[test]
fn what_a_snapshot_shows_is_final() {
    let (disk, mut log) = begun(8192);
    let mut places = EntryPlaces::new(1, None);
    write(&mut log, &mut places, 1, 1, &[b"1", b"2", b"3", b"4"], 1).unwrap();
    let replay = Replay { after: 1, must_reach: 3, truncate_damaged: false };
    let mut indexes = Vec::new();
    let mut visit = |entry: super::super::RecoveredEntry<'_>| {
        indexes.push(entry.index);
        Ok(())
    };
    let (log, recovery) =
        Log::open_replicated(disk, options(8192), &identity(), replay, commit_of, salts(1), &mut visit)
            .unwrap();
    assert_eq!((indexes, recovery.tail.len(), log.replaceable_from()), (vec![2, 3], 1, 4));
}

#[test]
fn only_what_is_not_final_can_be_replaced_and_only_without_a_gap() {
    let (disk, mut log) = begun(8192);
    let mut places = EntryPlaces::new(1, None);
    write(&mut log, &mut places, 1, 1, &[b"1", b"2", b"3", b"4"], 2).unwrap();
    let steps = disk.steps();
    for (first_index, payloads) in [(0, &[&b"x"[..]][..]), (2, &[b"x"]), (6, &[b"x"]), (4, &[])] {
        let refused = write(&mut log, &mut places, first_index, 2, payloads, 0);
        let Err(AppendError::NotReplaceable { replaceable_from: 3, next_index: 5, .. }) = refused else {
            panic!("{first_index}: {refused:?}");
        };
    }
    log.cut(3).unwrap();
    assert!(write(&mut log, &mut places, 3, 2, &[b"x"], 0).is_err(), "a snapshot has it");
    assert!(log.restart_at(2, 2, &hard_state(1, 2)).is_err(), "entry 3 is final and not in the snapshot");
    assert_eq!(disk.steps(), steps);
    write(&mut log, &mut places, 4, 2, &[b"4'"], 0).unwrap();
}

#[test]
fn a_log_that_is_not_replicated_has_no_replaced_entries() {
    let (_, mut plain) = fresh(8192);
    append(&mut plain, &[b"1", b"2"], None).unwrap();
    let payload: [&[u8]; 1] = [b"x"];
    let refused = plain.append_at(2, &[AppendEntry { kind: 1, term: 1, payload: &payload }], None);
    assert!(matches!(refused, Err(AppendError::NotReplaceable { replaceable_from: 3, .. })));
    let (disk, mut log) = begun(8192);
    let mut places = EntryPlaces::new(1, None);
    write(&mut log, &mut places, 1, 1, &[b"1", b"2"], 0).unwrap();
    write(&mut log, &mut places, 2, 2, &[b"2'"], 0).unwrap();
    let error = open(disk, &options(8192), Replay::default(), 1).map(drop).unwrap_err();
    assert_eq!(
        error.to_string(),
        "log/00000001.wal is damaged at byte 4200, where entry 3 was expected: \
         a frame replaces entries, and without replication all are final"
    );
}

#[test]
fn committed_entries_that_are_replaced_are_damage() {
    let (disk, _) = begun(8192);
    let broken = LogOptions { mutant: Some(Mutant::CommittedReplaced), ..options(8192) };
    let mut log = open_replicated(&disk, &broken, 0, 1).unwrap().log;
    let mut places = EntryPlaces::new(1, None);
    write(&mut log, &mut places, 1, 1, &[b"1", b"2"], 2).unwrap();
    write(&mut log, &mut places, 2, 2, &[b"2'"], 0).unwrap();
    let error = open_replicated(&disk, &options(8192), 0, 1).map(drop).unwrap_err();
    let OpenError::Damaged(damage) = &error else { panic!("{error}") };
    assert_eq!((damage.file.as_str(), damage.expected_index), ("log/00000001.wal", 3));
    assert_eq!(damage.reason, "a frame replaces entries that were committed");
}

#[test]
fn a_refused_replacement_leaves_the_old_entries() {
    for how in [FailedSync::Kept, FailedSync::Lost, FailedSync::Limbo] {
        let (disk, mut log) = begun(8192);
        let mut places = EntryPlaces::new(1, None);
        write(&mut log, &mut places, 1, 1, &[b"1", b"2", b"3"], 1).unwrap();
        let operation = Operation::Sync(SyncPurpose::Append, how);
        disk.inject(Fault { operation, after: 0, kind: ErrorKind::Other });
        let refused = write(&mut log, &mut places, 2, 2, &[b"2'"], 0);
        assert!(matches!(refused, Err(AppendError::Refused { .. })));
        assert_eq!((log.next_index(), log.replaceable_from()), (4, 2));
        assert_eq!(read(&disk, &places, 1, 4, 100), [b"1", b"2", b"3"]);
        write(&mut log, &mut places, 4, 2, &[b"4"], 4).unwrap();
        let found = open_replicated(&disk.crash(CrashKind::KeepAll), &options(8192), 0, 1).unwrap();
        let payloads: Vec<Vec<u8>> = visited(&found).into_iter().map(|(_, payload)| payload).collect();
        assert_eq!(payloads, [b"1", b"2", b"3", b"4"]);
    }
}

/// Segments that begin at 1, 11, 6 and 9: see the drawing in `cut.rs`.
#[test]
fn a_cut_takes_only_what_is_below_it_when_indexes_have_gone_back() {
    let (disk, mut log) = begun(8192);
    let mut places = EntryPlaces::new(1, None);
    let large = [5; 1500];
    for first_index in [1, 6] {
        write(&mut log, &mut places, first_index, 1, &[&[1; 100][..]; 5], 4).unwrap();
    }
    write(&mut log, &mut places, 11, 1, &[&large, &large], 0).unwrap();
    write(&mut log, &mut places, 5, 2, &[&[5; 10]], 0).unwrap();
    write(&mut log, &mut places, 6, 2, &[&large, &large, &[8; 10]], 0).unwrap();
    write(&mut log, &mut places, 9, 2, &[&large, &large], 8).unwrap();
    let begins = |log: &Log<MemoryDisk>| log.segments.iter().map(|one| one.first_index).collect::<Vec<u64>>();
    assert_eq!(begins(&log), [1, 11, 6, 9]);
    assert_eq!(log.cut(4).unwrap().segments, 0);
    // A crash after the first removal leaves 11, 6, 9: the snapshot still reaches it.
    let half_way = disk.clone_state();
    half_way.remove("log/00000001.wal").unwrap();
    assert_eq!(first_retained_index(&half_way, NODE).unwrap(), 6);
    let found = open_replicated(&half_way, &options(8192), 7, 1).unwrap();
    assert_eq!((visited(&found).len(), tail(&found)), (1, vec![(9, 2), (10, 2)]));
    let report = log.cut(7).unwrap();
    assert_eq!((report.segments, report.first_index, begins(&log)), (2, 6, vec![6, 9]));
    places.cut(report.first_index);
    assert_eq!((places.first_index(), places.term(5)), (6, Some(2)));
    assert_eq!(read(&disk, &places, 8, 11, u64::MAX).len(), 3);
    assert!(places.between(5, 8, 100).is_empty());
    let found = open_replicated(&disk, &options(8192), 7, 1).unwrap();
    assert_eq!(visited(&found), [(8, vec![8; 10])]);
    let error = open_replicated(&disk, &options(8192), 4, 1).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Gap { needed: 5, first: 6 }), "{error}");
}

#[test]
fn a_log_begins_anew_behind_a_snapshot() {
    let (disk, mut log) = begun(8192);
    let mut places = EntryPlaces::new(1, None);
    write(&mut log, &mut places, 1, 1, &[&[1; 3000]], 1).unwrap();
    write(&mut log, &mut places, 2, 1, &[&[2; 3000]], 0).unwrap();
    let before = places.clone();
    let restarted = log.restart_at(1000, 7, &hard_state(2, 1000)).unwrap();
    places.restarted(&restarted, 7);
    assert_eq!((log.next_index(), log.figures().first_index, log.figures().segments), (1001, 1001, 1));
    assert_eq!((places.term(1000), places.term(999), places.term(1001)), (Some(7), None, None));
    assert!(!log.needs_idle_frame(), "its segment has its name");
    write(&mut log, &mut places, 1001, 8, &[b"x"], 0).unwrap();
    let found = open_replicated(&disk, &options(8192), 1000, 1).unwrap();
    assert_eq!((visited(&found).len(), tail(&found)), (0, vec![(1001, 8)]));
    assert_eq!(found.recovery.hard_state, Some(hard_state(2, 1000)));
    assert_eq!(found.recovery.places.term(1000), Some(7));
    let error = open_replicated(&disk, &options(8192), 999, 1).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Gap { needed: 1000, first: 1001 }), "{error}");
    let gone = read_entries(&disk, &before.between(1, 3, 9000), 1, 3, 9000);
    assert!(matches!(gone, Err(ReadError::Gone { .. })), "{gone:?}");
}

/// A crash between the snapshot and the restart: nothing is handed over, and the owner can tell.
#[test]
fn a_log_that_ends_before_an_installed_snapshot_can_still_begin_anew() {
    let (disk, mut log) = begun(8192);
    let mut places = EntryPlaces::new(1, None);
    write(&mut log, &mut places, 1, 1, &[b"1", b"2"], 1).unwrap();
    let mut found = open_replicated(&disk, &options(8192), 1000, 1).unwrap();
    assert_eq!((visited(&found).len(), tail(&found).len()), (0, 0));
    assert_eq!((found.recovery.report.last_index, found.recovery.places.term(1000)), (2, None));
    found.log.restart_at(1000, 7, &hard_state(2, 1000)).unwrap();
    assert_eq!(found.log.next_index(), 1001);
}

#[test]
fn a_refused_restart_leaves_the_old_log() {
    let (disk, mut log) = begun(8192);
    let mut places = EntryPlaces::new(1, None);
    write(&mut log, &mut places, 1, 1, &[b"1", b"2"], 1).unwrap();
    let operations = [
        Operation::Write,
        Operation::Sync(SyncPurpose::Other, FailedSync::Kept),
        Operation::Rename,
        Operation::SyncDirectory,
    ];
    for operation in operations {
        disk.inject(Fault { operation, after: 0, kind: ErrorKind::Other });
        let refused = log.restart_at(1000, 7, &hard_state(2, 1000));
        assert!(matches!(refused, Err(AppendError::Refused { .. })), "{operation:?}: {refused:?}");
        assert_eq!(log.next_index(), 3, "{operation:?}");
        for kind in [CrashKind::KeepAll, CrashKind::LoseAll] {
            let found = open_replicated(&disk.crash(kind), &options(8192), 0, 1).unwrap();
            assert_eq!((visited(&found).len(), tail(&found)), (1, vec![(2, 1)]), "{operation:?}");
        }
    }
}

#[test]
fn the_frame_that_a_log_began_anew_with_is_never_torn() {
    let (disk, mut log) = begun(8192);
    log.restart_at(1000, 7, &hard_state(2, 1000)).unwrap();
    let name = segment_name(log.segments[0].number);
    let mut bytes = disk.bytes(&name).unwrap();
    bytes[4096 + 70] ^= 1;
    disk.set_bytes(&name, bytes);
    let error = open_replicated(&disk, &options(8192), 1000, 1).map(drop).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.offset == 4096), "{error}");
}

#[test]
fn small_frames_share_a_place_and_a_changed_one_is_not_read() {
    let (disk, mut log) = begun(64 * 1024);
    let mut places = EntryPlaces::new(1, None);
    for index in 1..=200 {
        write(&mut log, &mut places, index, 1, &[&[index as u8; 40]], 0).unwrap();
    }
    let runs = places.between(1, 201, u64::MAX);
    assert!(runs.len() <= 2, "{} places", runs.len());
    assert_eq!(read(&disk, &places, 1, 201, u64::MAX).len(), 200);
    assert_eq!(read(&disk, &places, 150, 201, 100).len(), 2);
    for entry in read_entries(&disk, &runs, 1, 201, u64::MAX).unwrap() {
        // Whoever keeps one of them doesn't keep the others of its place.
        assert_eq!(entry.payload.try_into_mut().map(|alone| alone.capacity()), Ok(40));
    }
    let name = segment_name(1);
    let mut bytes = disk.bytes(&name).unwrap();
    bytes[4096 + 64 + 20] ^= 1;
    disk.set_bytes(&name, bytes);
    let (before, unreadable) = read_readable(&disk, &runs, 1, 201, u64::MAX);
    assert!(before.is_empty() && unreadable.is_some_and(|unreadable| unreadable.index == 1));
    let changed = read_entries(&disk, &runs, 1, 2, 100);
    assert!(matches!(changed, Err(ReadError::NotWhole { offset: 4096, expected_index: 1, .. })));
    bytes = disk.bytes(&name).unwrap();
    bytes.truncate(4096 + 64);
    disk.set_bytes(&name, bytes);
    let cut = read_entries(&disk, &runs, 199, 200, 100);
    assert!(matches!(cut, Err(ReadError::NotWhole { .. })));
}

#[test]
fn what_lies_before_a_changed_frame_is_read_and_the_changed_one_is_named() {
    let (disk, mut log) = begun(64 * 1024);
    let mut places = EntryPlaces::new(1, None);
    let mut frames = Vec::new();
    for index in 1..=100 {
        frames.push(log.figures().frame_bytes);
        write(&mut log, &mut places, index, 1, &[&[index as u8; 40]], 0).unwrap();
    }
    let mut bytes = disk.bytes(&segment_name(1)).unwrap();
    bytes[4096 + frames[59] as usize + 80] ^= 1;
    disk.set_bytes(&segment_name(1), bytes);
    let runs = places.between(1, 101, u64::MAX);
    let (before, unreadable) = read_readable(&disk, &runs, 1, 101, u64::MAX);
    assert!(before.iter().map(|entry| entry.index).eq(1..60));
    let unreadable = unreadable.unwrap();
    assert_eq!(unreadable.index, 60);
    assert!(places.has_at(60, &unreadable.run.place), "it was not cut");
    assert!(!unreadable.error.may_pass());
    places.cut(70);
    assert!(!places.has_at(60, &unreadable.run.place));
}

#[test]
fn a_segment_is_left_so_that_it_can_be_cut() {
    let (_, mut log) = begun(64 * 1024);
    let mut places = EntryPlaces::new(1, None);
    (1..=10).for_each(|index| write(&mut log, &mut places, index, 1, &[b"w"], 0).unwrap());
    log.leave_segment_of(5).unwrap();
    assert_eq!(log.figures().segments, 2);
    log.leave_segment_of(5).unwrap();
    assert_eq!(log.figures().segments, 2, "it is left already");
    write(&mut log, &mut places, 11, 1, &[b"w"], 11).unwrap();
    log.leave_segment_of(10).unwrap();
    assert_eq!(log.figures().segments, 2, "what is in the way is in an earlier one");
    assert_eq!(log.cut(10).unwrap().segments, 1);
    assert_eq!(log.figures().first_index, 11);
}

/// The reader has only places and a disk; meanwhile the log goes on, goes back and is cut.
#[test]
fn another_thread_reads_what_was_there_or_is_told_that_it_is_gone() {
    let (disk, mut log) = begun(8192);
    let mut places = EntryPlaces::new(1, None);
    // Bounded, so that the reader is never so far behind that all is gone.
    let (sender, receiver) = std::sync::mpsc::sync_channel::<(Vec<FrameRun>, u64, u64)>(2);
    std::thread::scope(|scope| {
        let disk = &disk;
        let reader = scope.spawn(move || {
            let (mut read, mut gone) = (0, 0);
            for (runs, low, high) in receiver {
                match read_entries(disk, &runs, low, high, u64::MAX) {
                    Ok(entries) => {
                        assert!(entries.iter().map(|entry| entry.index).eq(low..high));
                        // Each payload says which entry it is.
                        let is_right = |entry: &OwnedEntry| entry.payload[..8] == entry.index.to_le_bytes();
                        assert!(entries.iter().all(is_right));
                        read += 1;
                    }
                    Err(ReadError::Gone { .. } | ReadError::NotWhole { .. }) => gone += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            (read, gone)
        });
        for round in 0..400u64 {
            let next = log.next_index();
            let first_index = if round % 5 == 4 { next - 1 } else { next };
            let payload = [first_index.to_le_bytes(); 60].concat();
            write(&mut log, &mut places, first_index, round, &[&payload], next - 1 - u64::from(next > 1))
                .unwrap();
            let low = places.first_index();
            sender.send((places.between(low, log.next_index(), u64::MAX), low, log.next_index())).unwrap();
            if round % 20 == 19 {
                log.cut(log.next_index() - 10).unwrap();
                places.cut(log.figures().first_index);
                prepare_spare(log.disk(), round, 8192).unwrap();
            }
        }
        drop(sender);
        let (read, gone) = reader.join().unwrap();
        println!("{read} reads, {gone} gone");
        assert!(read > 0 && read + gone == 400);
    });
}

/// `cargo test --release -- --ignored --nocapture replicated_speed`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::disallowed_methods, reason = "a measurement needs a clock")]
fn replicated_speed() {
    const FRAMES: u64 = 500;
    const ENTRIES: u64 = 1000;
    // How many frames the commit index is behind; 500: nothing is final before the end.
    for behind in [1, 10, FRAMES] {
        let root = std::env::temp_dir().join(format!("datastore-replicated-{}", std::process::id()));
        let disk = FileDisk::open(&root).unwrap();
        let options = LogOptions::default();
        initialise(&disk, &options, &identity(), 1).unwrap();
        let open = |visit: &mut dyn FnMut(RecoveredEntry<'_>) -> Result<(), VisitError>| {
            let (disk, replay) = (disk.clone(), Replay::default());
            Log::open_replicated(disk, options.clone(), &identity(), replay, commit_of, salts(1), visit)
                .unwrap()
        };
        let (mut log, _) = open(&mut |_| Ok(()));
        let payload = vec![5u8; 1000];
        let pieces = [&payload[..]; 1];
        let entries = vec![AppendEntry { kind: 1, term: 1, payload: &pieces }; ENTRIES as usize];
        for frame in 1..=FRAMES {
            let state = hard_state(1, frame.saturating_sub(behind) * ENTRIES);
            log.append(&entries, Some(&state)).unwrap();
        }
        log.append(&[], Some(&hard_state(1, FRAMES * ENTRIES))).unwrap();
        drop(log);
        let began = std::time::Instant::now();
        let mut count = 0;
        let (_, recovery) = open(&mut |_| {
            count += 1;
            Ok(())
        });
        let megabytes = recovery.report.bytes as f64 / 1e6;
        let recovered = megabytes / began.elapsed().as_secs_f64();
        let began = std::time::Instant::now();
        let (mut low, high) = (1, FRAMES * ENTRIES + 1);
        while low < high {
            let runs = recovery.places.between(low, high, 8 << 20);
            low += read_entries(&disk, &runs, low, high, 8 << 20).unwrap().len() as u64;
        }
        let read = megabytes / began.elapsed().as_secs_f64();
        println!(
            "{behind} frames behind: {count} entries recovered at {recovered:.0} MB/s, read back at {read:.0} MB/s"
        );
        std::fs::remove_dir_all(root).unwrap();
    }
}

/// The last frame replaces entries: if it is not whole, it looks torn, and the old ones are there.
#[test]
fn every_flipped_bit_is_found_or_shows_the_log_before_its_last_frame() {
    let (disk, mut log) = begun(8192);
    let mut places = EntryPlaces::new(1, None);
    write(&mut log, &mut places, 1, 1, &[b"1", b"2", b"3"], 1).unwrap();
    write(&mut log, &mut places, 2, 2, &[b"2'"], 0).unwrap();
    write(&mut log, &mut places, 3, 2, &[b"3'", b"4'"], 2).unwrap();
    write(&mut log, &mut places, 3, 3, &[b"3''"], 0).unwrap();
    let bytes = disk.bytes("log/00000001.wal").unwrap();
    let end = 4096 + log.figures().frame_bytes as usize;
    let mut found = [0; 3];
    for bit in (0..92 * 8).chain(4096 * 8..end * 8) {
        let changed = disk.clone_state();
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        changed.set_bytes("log/00000001.wal", flipped);
        let Ok(opened) = open_replicated(&changed, &options(8192), 0, 1) else {
            found[0] += 1;
            continue;
        };
        assert_eq!(visited(&opened), [(1, b"1".to_vec()), (2, b"2'".to_vec())], "bit {bit}");
        if opened.recovery.report.torn.is_some() {
            found[1] += 1;
            assert_eq!(tail(&opened), [(3, 2), (4, 2)], "bit {bit}");
        } else {
            found[2] += 1;
            assert_eq!(tail(&opened), [(3, 3)], "bit {bit}");
        }
    }
    println!("flipped bits: {} refused, {} torn, {} of no consequence", found[0], found[1], found[2]);
    assert!(found[0] > 1_000 && found[1] > 500 && found[2] == 0);
}

/// Crashes one history at every moment: states, replacements, restarts.
fn crash_everywhere(seed: u64, actions: usize, mutant: Option<Mutant>) -> Result<(u64, u64, u64), String> {
    let mut history = ReplicatedHistory::new(seed, mutant);
    history.run(actions).map_err(|problem| format!("seed {seed}: {problem}"))?;
    let check = |crashed: &MemoryDisk, step, seed| history.check(crashed, step, seed);
    let states = crash_at_each_step(&history.disk, seed, &check)?;
    Ok((states, history.replacements, history.restarts))
}

#[test]
fn no_crash_loses_what_is_durable_or_shows_what_was_replaced() {
    let wanted = from_environment("DATASTORE_CRASH_STATES").unwrap_or(STATES_DEFAULT);
    let first_seed = from_environment("DATASTORE_CRASH_SEED").unwrap_or(1);
    let (mut states, mut replacements, mut restarts, mut seed) = (0, 0, 0, first_seed);
    while states < wanted {
        match crash_everywhere(seed, 5 + (seed % 60) as usize, None) {
            Ok(tried) => {
                states += tried.0;
                replacements += tried.1;
                restarts += tried.2;
            }
            Err(problem) => panic!("{problem}"),
        }
        seed += 1;
    }
    println!(
        "{states} crash states of {} histories with {replacements} replacements and {restarts} restarts, \
         first seed {first_seed}: 0 lost, 0 superseded shown",
        seed - first_seed
    );
}

#[test]
fn every_fault_put_into_a_replicated_log_is_found() {
    let mutants = [
        Mutant::SupersededStays,
        Mutant::CommitIgnored,
        Mutant::ReplacedTooEarly,
        Mutant::CommittedReplaced,
        Mutant::CutTooFar,
        Mutant::OldestHeaderCounts,
        Mutant::RestartRemovesFirst,
        Mutant::RestartFrameLater,
        // And those that any log can have.
        Mutant::AcknowledgeBeforeSync,
        Mutant::SegmentNotSynced,
        Mutant::SegmentNameNotSynced,
        Mutant::NoSeal,
        Mutant::SealKeepsRefusedFrame,
        Mutant::UnsealedIsRefused,
        Mutant::GrowsBesideSuccessor,
        Mutant::HalfCutIsDamage,
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
