//! What a disk can do beside losing what was not synced: refuse for want of a quota's room, fail to read,
//! and hold files of earlier faults for ever.

use std::io::ErrorKind;

use super::super::segment::SegmentHeader;
use super::super::{
    AppendError, Disk, FailedSync, Fault, Log, MemoryDisk, OpenError, Operation, Replay, SnapshotError,
    SnapshotFile, SnapshotHeader, SyncPurpose, first_retained_index, list_snapshots, newest_valid_snapshot,
    prepare_spare, ready_spares, segment_name,
};
use super::logs::change_header;
use super::{NODE, append, fresh, open, options};
use crate::engine::{Entry, Version};

const SEGMENT_BYTES: u64 = 8 * 1024;

fn fail(disk: &MemoryDisk, operation: Operation, after: u32, kind: ErrorKind) {
    disk.inject(Fault { operation, after, kind });
}

/// A snapshot of so many entries; whether it was made.
fn snapshot(disk: &MemoryDisk, after: u64, through: u64, level: Option<i32>) -> Result<(), SnapshotError> {
    let mut file = SnapshotFile::create(disk.clone(), SnapshotHeader { node: NODE, after }, level)?;
    for index in 1..=through {
        let value = format!("{{\"number\":{index}}}");
        let version = Version { index, ordinal: 0 };
        file.write_entry(&Entry::new(
            version,
            format!("key-{index}").as_bytes(),
            Some(value.as_bytes()),
            None,
        ))?;
    }
    file.finish(through, b"").map(drop)
}

#[test]
fn a_quota_is_a_full_disk_to_the_log_and_to_snapshots() {
    let (disk, mut log) = fresh(SEGMENT_BYTES);
    prepare_spare(&disk, 1, SEGMENT_BYTES).unwrap();
    fail(&disk, Operation::Write, 0, ErrorKind::QuotaExceeded);
    fail(&disk, Operation::Create, 0, ErrorKind::QuotaExceeded);
    assert!(matches!(append(&mut log, &[b"x"], None), Err(AppendError::DiskFull { .. })));
    assert_eq!(ready_spares(&disk).unwrap(), 0, "a seal without room takes the spare, which has its own");
    assert_eq!(append(&mut log, &[b"y"], None).unwrap().first_index, 1);

    for operation in [Operation::Create, Operation::Write] {
        fail(&disk, operation, 0, ErrorKind::QuotaExceeded);
        let error = snapshot(&disk, 1, 1, None).unwrap_err();
        assert!(error.is_disk_full(), "{error}");
    }
}

/// What can't be read now may be read later: it is no reason to take an older snapshot, nor to set it aside.
#[test]
fn a_snapshot_that_the_disk_does_not_give_is_no_damaged_one() {
    for level in [None, Some(1)] {
        for (operation, after) in [(Operation::Open, 0), (Operation::Read, 0), (Operation::Read, 1)] {
            for kind in [ErrorKind::Other, ErrorKind::PermissionDenied] {
                let disk = MemoryDisk::new();
                snapshot(&disk, 1, 40, level).unwrap();
                snapshot(&disk, 40, 9_000, level).unwrap();
                fail(&disk, operation, after, kind);
                let error = newest_valid_snapshot(&disk, NODE, 1).map(|_| ()).unwrap_err();
                let is_the_disk_s = matches!(&error, SnapshotError::Io { file, source }
                    if file.contains("9000.jsonl") && source.kind() == kind);
                assert!(is_the_disk_s, "{operation:?}, {level:?}: {error}");
                let (newest, passed_over) = newest_valid_snapshot(&disk, NODE, 1).unwrap();
                assert_eq!((newest.unwrap().through, passed_over.len()), (9_000, 0), "it is well again");
            }
        }
    }
}

/// A file whose name is taken replaces a good snapshot: a fault while it is read back leaves that one.
#[test]
fn a_snapshot_that_can_not_be_read_back_takes_no_good_one_along() {
    for after in 0..20 {
        let disk = MemoryDisk::new();
        snapshot(&disk, 40, 90, None).unwrap();
        fail(&disk, Operation::Read, after, ErrorKind::Other);
        let made = snapshot(&disk, 90, 90, None);
        let has_failed = made.is_err();
        disk.clear_faults();
        let newest = newest_valid_snapshot(&disk, NODE, 1).unwrap().0.map(|report| report.through);
        assert_eq!(newest, Some(90), "failed at read {after}: {has_failed}");
        assert_eq!(list_snapshots(&disk).unwrap().len(), 1);
    }
}

/// Four segments with an entry each.
fn four_segments() -> (MemoryDisk, Log<MemoryDisk>) {
    let (disk, mut log) = fresh(SEGMENT_BYTES);
    for number in 1..=4u8 {
        append(&mut log, &[&[number; 3000]], None).unwrap();
    }
    assert_eq!(log.figures().segments, 4);
    (disk, log)
}

#[test]
fn a_segment_that_does_not_continue_the_one_before_is_cut_for_good() {
    let changes: [fn(&mut SegmentHeader); 3] = [
        |header| header.first_index += 1,
        |header| header.first_frame += 1,
        |header| header.predecessor_crc ^= 1,
    ];
    for change in changes {
        let (disk, log) = four_segments();
        drop(log);
        change_header(&disk, 3, change);
        let refused = open(disk.clone(), &options(SEGMENT_BYTES), Replay::default(), 1).map(|_| ());
        assert!(matches!(refused, Err(OpenError::Damaged(damage)) if damage.file == "log/00000003.wal"));
        let told = Replay { truncate_damaged: true, ..Replay::default() };
        let (mut log, report, entries) = open(disk.clone(), &options(SEGMENT_BYTES), told, 1).unwrap();
        assert_eq!((entries.len(), report.last_index), (2, 2));
        assert_eq!(report.set_aside, ["log/damaged-00000004", "log/damaged-00000003"]);
        append(&mut log, &[b"new"], None).unwrap();
        let (_, report, entries) = open(disk, &options(SEGMENT_BYTES), Replay::default(), 1).unwrap();
        assert_eq!((entries.len(), report.truncated), (3, None), "the next start takes it as it is");
    }
}

/// What a seal has cut off is gone for ever, also when the segment that says so is given up.
#[test]
fn a_refused_frame_does_not_come_back_with_the_seal_cut() {
    let (disk, mut log) = fresh(SEGMENT_BYTES);
    append(&mut log, &[b"good"], None).unwrap();
    fail(&disk, Operation::Sync(SyncPurpose::Append, FailedSync::Kept), 0, ErrorKind::Other);
    let before = disk.bytes(&segment_name(1)).unwrap();
    assert!(matches!(append(&mut log, &[b"refused"], None), Err(AppendError::Refused { .. })));
    drop(log);
    assert!(disk.bytes(&segment_name(1)).unwrap().len() < before.len(), "cut to what was durable");
    change_header(&disk, 2, |header| header.first_index += 1);
    let told = Replay { truncate_damaged: true, ..Replay::default() };
    let (_, _, entries) = open(disk.clone(), &options(SEGMENT_BYTES), told, 1).unwrap();
    assert_eq!(entries, [(1, b"good".to_vec())]);
    let (_, _, entries) = open(disk, &options(SEGMENT_BYTES), Replay::default(), 1).unwrap();
    assert_eq!(entries, [(1, b"good".to_vec())]);
}

#[test]
fn a_cut_syncs_the_directory_once_however_many_segments_go() {
    let (disk, mut log) = fresh(SEGMENT_BYTES);
    for number in 1..=40u8 {
        append(&mut log, &[&[number; 3000]], None).unwrap();
    }
    let before = disk.syncs_of("log");
    assert_eq!(log.cut(39).unwrap().segments, 39);
    assert_eq!(disk.syncs_of("log") - before, 1);
}

/// A crash in a cut may leave any of the segments that were to go.
#[test]
fn a_hole_in_front_of_what_the_snapshot_has_is_the_rest_of_a_cut_and_any_other_is_damage() {
    let (disk, log) = four_segments();
    drop(log);
    disk.remove(&segment_name(2)).unwrap();
    let replay = |after| Replay { after, must_reach: after, truncate_damaged: false };
    for after in [0, 1] {
        let refused = open(disk.clone_state(), &options(SEGMENT_BYTES), replay(after), 1).map(|_| ());
        let Err(OpenError::Damaged(damage)) = refused else { panic!("served behind {after}") };
        assert_eq!((damage.file.as_str(), damage.reason), ("log/00000002.wal", "the segment is missing"));
    }
    assert_eq!(first_retained_index(&disk, NODE).unwrap(), 1, "whether that counts, the snapshot tells");
    let steps = |disk: &MemoryDisk| disk.list("log").unwrap().len();
    for after in [2, 3, 4] {
        let disk = disk.clone_state();
        assert_eq!(steps(&disk), 3);
        let (mut log, report, entries) =
            open(disk.clone(), &options(SEGMENT_BYTES), replay(after), 1).unwrap();
        assert_eq!((entries.len() as u64, report.first_index, report.segments), (4 - after, 3, 2));
        assert_eq!(report.rest_of_cut, 1, "it is said");
        append(&mut log, &[b"more"], None).unwrap();
        let (_, report, entries) = open(disk, &options(SEGMENT_BYTES), replay(after), 1).unwrap();
        assert_eq!((entries.len() as u64, report.rest_of_cut), (5 - after, 0));
    }
}
