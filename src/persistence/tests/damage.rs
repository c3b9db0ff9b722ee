//! A log whose bytes were changed: every bit, every prefix, and at random.

use super::super::drop_rate::next_random;
use super::super::{Log, MemoryDisk, OpenError, Replay, segment_name};
use super::{Entries, append, fresh, open, options};

const SEGMENT_BYTES: u64 = 5 * 1024;

/// A small log of three segments; the last frame holds the last entry.
fn small_log() -> (MemoryDisk, Entries) {
    let (disk, mut log) = fresh(SEGMENT_BYTES);
    let mut entries = Vec::new();
    for number in 0..7u8 {
        let payload = vec![number; 200];
        let appended = append(&mut log, &[&payload, b"second"], Some(&[number])).unwrap();
        entries.push((appended.first_index, payload));
        entries.push((appended.last_index, b"second".to_vec()));
    }
    assert_eq!(log.figures().segments, 3);
    (disk.crash(super::super::CrashKind::LoseAll), entries)
}

/// What a recovery of a changed log may be: refused, or all that was written,
/// or, if `last_frame` may be gone, all but its entries.
fn judge(
    result: Result<(Log<MemoryDisk>, super::RecoveryReport, Entries), OpenError>,
    written: &Entries,
    last_frame_entries: usize,
    what: &str,
) -> &'static str {
    match result {
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("log/") || matches!(error, OpenError::LogMissing), "{what}: {text}");
            "refused"
        }
        Ok((_, report, entries)) if entries.len() == written.len() => {
            assert_eq!(&entries, written, "{what}");
            assert_eq!(report.truncated, None);
            "whole"
        }
        Ok((_, report, entries)) => {
            let kept = written.len() - last_frame_entries;
            assert_eq!(entries, written[..kept], "{what}");
            assert!(report.torn.is_some(), "{what}: {report:?}");
            "torn"
        }
    }
}

#[test]
fn every_flipped_bit_is_found_or_lies_where_nobody_looks() {
    let (disk, written) = small_log();
    let mut found = std::collections::BTreeMap::new();
    for number in 1..=3 {
        let name = segment_name(number);
        let bytes = disk.bytes(&name).unwrap();
        // The header's padding and the tail of zeroes are sampled, the rest is not.
        for bit in (0..bytes.len() * 8).filter(|bit| !(1_000..32_000).contains(bit) || bit % 97 == 0) {
            let flipped = disk.clone_state();
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            flipped.set_bytes(&name, changed);
            let result = open(flipped, &options(SEGMENT_BYTES), Replay::default(), 1);
            let last = if number == 3 { 2 } else { 0 };
            let verdict = judge(result, &written, last, &format!("{name} bit {bit}"));
            assert!(verdict != "torn" || number == 3, "{name} bit {bit}");
            *found.entry((number, verdict)).or_insert(0) += 1;
        }
    }
    println!("flipped bits: {found:?}");
    assert!(found[&(1, "refused")] > 1_000 && found[&(3, "torn")] > 1_000);
}

#[test]
fn behind_an_idle_frame_no_flipped_bit_of_an_entry_looks_torn() {
    let (disk, mut log) = fresh(64 * 1024);
    append(&mut log, &[b"first"], None).unwrap();
    append(&mut log, &[b"last"], None).unwrap();
    assert!(log.needs_idle_frame());
    let idle = log.append_idle_frame().unwrap();
    assert!(!log.needs_idle_frame());
    assert_eq!((idle.first_index, idle.last_index), (3, 2));
    let bytes = disk.bytes("log/00000001.wal").unwrap();
    let end = log.figures().frame_bytes as usize + 4096;
    for bit in 4096 * 8..end * 8 {
        let flipped = disk.clone_state();
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        flipped.set_bytes("log/00000001.wal", changed);
        match open(flipped, &options(64 * 1024), Replay::default(), 1) {
            Ok((_, _, entries)) => assert_eq!(entries.len(), 2, "bit {bit}"),
            Err(OpenError::Damaged(damage)) => assert!(damage.offset < end as u64 - 64, "bit {bit}"),
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
}

#[test]
fn every_prefix_recovers_or_is_refused() {
    let (disk, written) = small_log();
    for number in 1..=3u64 {
        let name = segment_name(number);
        let bytes = disk.bytes(&name).unwrap();
        for length in 0..bytes.len() {
            let cut = disk.clone_state();
            cut.set_bytes(&name, bytes[..length].to_vec());
            match open(cut, &options(SEGMENT_BYTES), Replay::default(), 1) {
                Ok((_, _, entries)) => {
                    assert_eq!(entries, written[..entries.len()], "{name} cut at {length}");
                    // A lost end of the last file is not to be told from one never written.
                    assert!(number == 3 || entries.len() == written.len(), "{name} cut at {length}");
                }
                Err(OpenError::Damaged(_)) => {}
                Err(error) => panic!("{name} cut at {length}: {error}"),
            }
        }
    }
}

#[test]
fn changed_logs_never_panic_and_never_show_what_was_not_written() {
    let seed = std::env::var("DATASTORE_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u64);
    let rounds =
        std::env::var("DATASTORE_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3_000);
    println!("{rounds} changed logs, seed {seed}");
    let (disk, written) = small_log();
    let mut random = seed;
    for round in 0..rounds {
        let changed = disk.clone_state();
        for _ in 0..=next_random(&mut random) % 4 {
            let name = segment_name(1 + next_random(&mut random) % 3);
            let mut bytes = changed.bytes(&name).unwrap();
            if bytes.is_empty() {
                continue;
            }
            let length = bytes.len() as u64;
            let at = (next_random(&mut random) % length) as usize;
            let count = (next_random(&mut random) % 200).min(length - at as u64) as usize;
            match next_random(&mut random) % 4 {
                0 => bytes[at] = next_random(&mut random) as u8,
                1 => bytes[at..at + count].fill(0),
                2 => {
                    let from = (next_random(&mut random) % (length - count as u64 + 1)) as usize;
                    bytes.copy_within(from..from + count, at.min(length as usize - count));
                }
                _ => bytes.truncate(at),
            }
            changed.set_bytes(&name, bytes);
        }
        for truncate_damaged in [false, true] {
            let replay = Replay { truncate_damaged, ..Replay::default() };
            let disk = changed.clone_state();
            if let Ok((mut log, report, entries)) = open(disk.clone(), &options(SEGMENT_BYTES), replay, 1) {
                assert_eq!(entries, written[..entries.len()], "seed {seed}, round {round}");
                assert_eq!(report.last_index, entries.len() as u64);
                append(&mut log, &[b"more"], None).unwrap();
                // What a start has served, the next one serves, without being told to cut anything.
                let again = open(disk, &options(SEGMENT_BYTES), Replay::default(), 1)
                    .map(|(_, _, found)| found.len());
                let again = again.map_err(|error| error.to_string());
                assert_eq!(again, Ok(entries.len() + 1), "seed {seed}, round {round}");
            }
        }
    }
}

#[test]
fn damage_is_got_past_only_when_told_to_and_then_for_good() {
    let (disk, written) = small_log();
    let mut bytes = disk.bytes("log/00000002.wal").unwrap();
    bytes[4096 + 70] ^= 1;
    disk.set_bytes("log/00000002.wal", bytes);
    let refused = open(disk.clone(), &options(SEGMENT_BYTES), Replay::default(), 1);
    let Err(OpenError::Damaged(damage)) = refused else { panic!("not refused") };
    assert_eq!((damage.file.as_str(), damage.offset, damage.expected_index), ("log/00000002.wal", 4096, 7));
    let told = Replay { truncate_damaged: true, ..Replay::default() };
    let (mut log, report, entries) = open(disk.clone(), &options(SEGMENT_BYTES), told, 1).unwrap();
    assert_eq!(entries, written[..6]);
    assert_eq!(report.truncated, Some(damage));
    assert_eq!(report.set_aside, ["log/torn-00000002-4096", "log/damaged-00000003"]);
    assert_eq!(append(&mut log, &[b"new"], None).unwrap().first_index, 7);
    let (_, report, entries) = open(disk, &options(SEGMENT_BYTES), Replay::default(), 1).unwrap();
    assert_eq!((entries.len(), report.truncated), (7, None));
}

#[test]
fn a_log_that_ends_before_the_snapshot_is_not_truncated() {
    let (disk, _) = small_log();
    let mut bytes = disk.bytes("log/00000002.wal").unwrap();
    bytes[4096 + 70] ^= 1;
    disk.set_bytes("log/00000002.wal", bytes);
    let steps = disk.steps();
    let replay = Replay { after: 2, must_reach: 9, truncate_damaged: true };
    let result = open(disk.clone(), &options(SEGMENT_BYTES), replay, 1);
    assert!(matches!(result, Err(OpenError::EndsTooEarly { last: 6, must_reach: 9 })));
    assert_eq!(disk.steps(), steps, "nothing was written");
}
