//! Snapshots: the format to the byte, damage, crashes, falling back.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use super::super::{
    CrashKind, FailedSync, Fault, FileDisk, MemoryDisk, Operation, Replay, SnapshotError, SnapshotFile,
    SnapshotHeader, SnapshotInfo, SnapshotReader, SnapshotReport, SyncPurpose, first_retained_index,
    list_snapshots, newest_valid_snapshot, parse_line, prepare_spare, remove_old_snapshots, verify_snapshot,
};
use super::{NODE, append, fresh, open, options};
use crate::engine::{Entry, Version};

fn entries(count: u64) -> Vec<Entry> {
    (0..count)
        .map(|number| {
            let key = format!("key-{number}\n");
            let vector = [number as f32, 0.1];
            let vector = (number % 3 == 0).then_some(&vector[..]);
            let value = format!("{{\"number\":{number}}}");
            let value = (number % 3 != 1 || vector.is_none()).then_some(value.as_bytes());
            Entry::new(Version { index: number + 1, ordinal: 2 }, key.as_bytes(), value, vector)
        })
        .collect()
}

fn write(
    disk: &MemoryDisk,
    after: u64,
    through: u64,
    entries: &[Entry],
    level: Option<i32>,
) -> Result<SnapshotReport, SnapshotError> {
    let mut file = SnapshotFile::create(disk.clone(), SnapshotHeader { node: NODE, after }, level)?;
    for entry in entries {
        file.write_entry(entry)?;
    }
    file.finish(through, b"members")
}

fn read(disk: &MemoryDisk, info: &SnapshotInfo) -> Result<Vec<Entry>, SnapshotError> {
    let mut reader = SnapshotReader::open(disk, info, NODE)?;
    let mut found = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        for line in chunk.lines() {
            let line =
                parse_line(line).map_err(|source| SnapshotError::Line { file: info.name.clone(), source })?;
            found.push(Entry::new(line.version, &line.key, line.value, line.vector.as_deref()));
        }
    }
    assert_eq!(reader.trailer().unwrap().state, b"members");
    Ok(found)
}

fn same(one: &[Entry], other: &[Entry]) -> bool {
    format!("{one:?}") == format!("{other:?}")
}

#[test]
fn a_snapshot_is_these_bytes() {
    let disk = MemoryDisk::new();
    let report = write(&disk, 3, 9, &entries(2), None).unwrap();
    let text = String::from_utf8(disk.bytes("snapshots/00000000000000000009.jsonl").unwrap()).unwrap();
    assert_eq!(text, GOLDEN);
    assert_eq!((report.after, report.through, report.entries), (3, 9, 2));
}

const GOLDEN: &str = r#"{"snapshot":1,"node":"07070707070707070707070707070707","after":3}
{"key":"key-0\u000a","version":[1,2],"vector":[0.0,0.1],"value":{"number":0}}
{"key":"key-1\u000a","version":[2,2],"value":{"number":1}}
{"entries":2,"bytes":204,"through":9,"state":"6d656d62657273","crc32":3557958832}
"#;

#[test]
fn plain_and_compressed_snapshots_come_back() {
    for level in [None, Some(3)] {
        for count in [0, 1, 60_000] {
            let disk = MemoryDisk::new();
            let written = entries(count);
            let report = write(&disk, 1, 70_000, &written, level).unwrap();
            assert_eq!(report.entries, count);
            let listed = list_snapshots(&disk).unwrap();
            assert_eq!((listed.len(), listed[0].through), (1, 70_000));
            assert!(same(&read(&disk, &listed[0]).unwrap(), &written));
            assert_eq!(disk.bytes("snapshots/unfinished"), None);
        }
    }
}

#[test]
fn every_flipped_bit_and_every_cut_end_is_found() {
    for level in [None, Some(3)] {
        let disk = MemoryDisk::new();
        let written = entries(5);
        write(&disk, 1, 9, &written, level).unwrap();
        let info = list_snapshots(&disk).unwrap().remove(0);
        let bytes = disk.bytes(&info.name).unwrap();
        let changed = |bytes: Vec<u8>| {
            let disk = disk.clone_state();
            disk.set_bytes(&info.name, bytes);
            // A few bits of a zstd frame's own header mean nothing: then all entries are there.
            verify_snapshot(&disk, &info, NODE).is_err() || same(&read(&disk, &info).unwrap(), &written)
        };
        let mut flipped = bytes.clone();
        for bit in 0..bytes.len() * 8 {
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(changed(flipped.clone()), "bit {bit} with {level:?}");
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..bytes.len() {
            let disk = disk.clone_state();
            disk.set_bytes(&info.name, bytes[..length].to_vec());
            assert!(verify_snapshot(&disk, &info, NODE).is_err(), "cut at {length} with {level:?}");
        }
        let longer = disk.clone_state();
        longer.set_bytes(&info.name, [&bytes[..], &bytes[..]].concat());
        assert!(verify_snapshot(&longer, &info, NODE).is_err());
    }
}

#[test]
fn a_snapshot_is_whole_or_absent_after_every_crash() {
    let disk = MemoryDisk::new();
    let old = entries(40);
    write(&disk, 1, 40, &old, None).unwrap();
    let first_steps = disk.steps();
    let new = entries(9_000);
    write(&disk, 40, 9_000, &new, Some(1)).unwrap();
    assert_eq!(remove_old_snapshots(&disk, 1).unwrap(), 1);
    let mut states = 0;
    for step in first_steps..=disk.steps() {
        let replayed = disk.at_step(step);
        let mut kinds =
            vec![CrashKind::LoseAll, CrashKind::KeepAll, CrashKind::LoseNames, CrashKind::LoseBytes];
        kinds.extend((0..10).map(|seed| CrashKind::Random(seed + step as u64 * 10)));
        for kind in kinds {
            let crashed = replayed.crash(kind);
            let (report, passed_over) = newest_valid_snapshot(&crashed, NODE, 2).unwrap();
            assert!(passed_over.is_empty(), "step {step}, {kind:?}: {passed_over:?}");
            let report = report.unwrap();
            let info = SnapshotInfo { name: report.name, through: report.through };
            let expected = if report.through == 40 { &old } else { &new };
            assert!(same(&read(&crashed, &info).unwrap(), expected), "step {step}, {kind:?}");
            states += 1;
        }
    }
    println!("{states} crash states of a snapshot");
}

/// Appends, snapshots and cuts in turn; what the disk has been through, and how
/// many entries were acknowledged from which step on.
fn rounds_of_appends_snapshots_and_cuts() -> (MemoryDisk, Vec<(usize, u64)>) {
    let (disk, mut log) = fresh(8192);
    let mut acknowledged = vec![(disk.steps(), 0)];
    let mut snapshots = vec![0];
    for round in 0..4u64 {
        for _ in 0..5 {
            let appended = append(&mut log, &[&[round as u8; 1500]], None).unwrap();
            acknowledged.push((disk.steps(), appended.last_index));
        }
        // The walk began two entries ago.
        let through = log.next_index() - 1;
        write(&disk, through - 2, through, &entries(through), Some(1)).unwrap();
        snapshots.push(through - 2);
        // As far as the snapshot before the newest allows.
        log.cut(snapshots[snapshots.len() - 2]).unwrap();
        remove_old_snapshots(&disk, 2).unwrap();
        prepare_spare(&disk, round, 8192).unwrap();
    }
    (disk, acknowledged)
}

#[test]
fn snapshot_and_log_together_have_everything_after_every_crash() {
    let (disk, acknowledged) = rounds_of_appends_snapshots_and_cuts();
    let mut states = 0;
    for step in acknowledged[0].0..=disk.steps() {
        let replayed = disk.at_step(step);
        let place = acknowledged.partition_point(|(from, _)| *from <= step);
        let (mut kinds, promised) = (vec![CrashKind::LoseAll], acknowledged[place - 1].1);
        if replayed.has_pending() {
            kinds.extend([CrashKind::KeepAll, CrashKind::LoseNames, CrashKind::LoseBytes]);
            kinds.extend((0..6).map(|seed| CrashKind::Random(seed + step as u64 * 6)));
        }
        for kind in kinds {
            let crashed = replayed.crash(kind);
            let begins = first_retained_index(&crashed, NODE).unwrap();
            let (report, passed_over) = newest_valid_snapshot(&crashed, NODE, begins).unwrap();
            assert!(passed_over.is_empty(), "step {step}, {kind:?}: {passed_over:?}");
            let (after, must_reach) = report.map_or((0, 0), |report| (report.after, report.through));
            let replay = Replay { after, must_reach, truncate_damaged: false };
            let (_, report, replayed) = open(crashed, &options(8192), replay, 1).unwrap();
            assert!(report.last_index >= promised, "step {step}, {kind:?}");
            assert_eq!(replayed.len() as u64, report.last_index - after);
            states += 1;
        }
    }
    println!("{states} crash states of snapshots and cuts");
}

#[test]
fn a_damaged_snapshot_falls_back_while_the_log_reaches() {
    let (disk, mut log) = fresh(8192);
    for _ in 0..6 {
        append(&mut log, &[&[1; 3000]], None).unwrap();
    }
    write(&disk, 2, 3, &entries(3), None).unwrap();
    write(&disk, 5, 6, &entries(6), None).unwrap();
    log.cut(2).unwrap();
    let begins = first_retained_index(&disk, NODE).unwrap();
    assert_eq!(begins, 3);
    let (newest, _) = newest_valid_snapshot(&disk, NODE, begins).unwrap();
    assert_eq!(newest.unwrap().through, 6);
    let name = "snapshots/00000000000000000006.jsonl";
    let mut bytes = disk.bytes(name).unwrap();
    bytes[100] ^= 1;
    disk.set_bytes(name, bytes);
    let (report, passed_over) = newest_valid_snapshot(&disk, NODE, begins).unwrap();
    let report = report.unwrap();
    assert_eq!((report.after, report.through, passed_over.len()), (2, 3, 1));
    let replay = Replay { after: report.after, must_reach: report.through, truncate_damaged: false };
    assert_eq!(open(disk.clone(), &options(8192), replay, 1).unwrap().2.len(), 4);
    log.cut(5).unwrap();
    let error = newest_valid_snapshot(&disk, NODE, 6).map(|_| ()).unwrap_err();
    assert!(matches!(&error, SnapshotError::NoneUsable { file, .. } if file == name), "{error}");
}

#[test]
fn a_snapshot_that_fails_leaves_the_old_one() {
    for (operation, after) in [
        (Operation::Write, 0),
        (Operation::Sync(SyncPurpose::Other, FailedSync::Lost), 0),
        (Operation::Rename, 0),
        (Operation::SyncDirectory, 0),
        (Operation::Create, 0),
    ] {
        let disk = MemoryDisk::new();
        write(&disk, 1, 4, &entries(4), None).unwrap();
        disk.inject(Fault { operation, after, kind: ErrorKind::StorageFull });
        assert!(write(&disk, 4, 9, &entries(9), None).is_err());
        let crashed = disk.crash(CrashKind::LoseAll);
        assert_eq!(newest_valid_snapshot(&crashed, NODE, 1).unwrap().0.unwrap().through, 4);
        write(&disk, 4, 9, &entries(9), None).unwrap();
        assert_eq!(newest_valid_snapshot(&disk, NODE, 1).unwrap().0.unwrap().through, 9);
    }
}

/// `cargo test --release -- --ignored --nocapture snapshot_speed`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::disallowed_methods, reason = "a measurement needs a clock")]
fn snapshot_speed() {
    let root = std::env::temp_dir().join(format!("datastore-snapshot-{}", std::process::id()));
    let disk = FileDisk::open(&root).unwrap();
    const ENTRIES: u64 = 2_000_000;
    let mut lines = BTreeMap::new();
    for level in [None, Some(1)] {
        let began = std::time::Instant::now();
        let mut file =
            SnapshotFile::create(disk.clone(), SnapshotHeader { node: NODE, after: 1 }, level).unwrap();
        for number in 0..ENTRIES {
            let key = format!("key-{number:012}");
            let value = format!("\"{number:030}\"");
            let version = Version { index: number + 1, ordinal: 0 };
            file.write_entry(&Entry::new(version, key.as_bytes(), Some(value.as_bytes()), None)).unwrap();
        }
        file.finish(ENTRIES, b"").unwrap();
        let wrote = began.elapsed().as_secs_f64();
        let info = list_snapshots(&disk).unwrap().into_iter().next_back().unwrap();
        let began = std::time::Instant::now();
        let report = verify_snapshot(&disk, &info, NODE).unwrap();
        let verified = began.elapsed().as_secs_f64();
        let began = std::time::Instant::now();
        let mut reader = SnapshotReader::open(&disk, &info, NODE).unwrap();
        let mut bytes = 0;
        while let Some(chunk) = reader.next_chunk().unwrap() {
            bytes += chunk
                .lines()
                .map(|line| parse_line(line).unwrap().value.map_or(0, <[u8]>::len))
                .sum::<usize>();
        }
        let parsed = began.elapsed().as_secs_f64();
        lines.insert(level, bytes);
        let rate = |seconds: f64| ENTRIES as f64 / 1e6 / seconds;
        println!(
            "{level:?}: write+verify {:.2}, verify {:.2}, read+parse {:.2} M lines/s; {} MB in the file",
            rate(wrote),
            rate(verified),
            rate(parsed),
            report.file_bytes / 1_000_000
        );
    }
    std::fs::remove_dir_all(root).unwrap();
}
