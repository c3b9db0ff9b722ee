//! What is kept: snapshots with the log that they need, and files that recoveries have put aside.

use super::super::{
    Disk, Log, MemoryDisk, NodeUuid, Replay, SnapshotError, SnapshotFile, SnapshotHeader,
    first_retained_index, keep_newest_snapshots, list_snapshots, newest_valid_snapshot, put_aside,
    remove_all_but_newest_whole, remove_older_aside,
};
use super::{NODE, append, fresh, open, options};

const SEGMENT_BYTES: u64 = 8 * 1024;

fn snapshot(disk: &MemoryDisk, after: u64, through: u64, level: Option<i32>) {
    let file = SnapshotFile::create(disk.clone(), SnapshotHeader { node: NODE, after }, level).unwrap();
    file.finish(through, b"").unwrap();
}

fn damage(disk: &MemoryDisk, name: &str) {
    let mut bytes = disk.bytes(name).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    disk.set_bytes(name, bytes);
}

/// How many entries come back; the node doesn't start on an error.
fn recovered(disk: &MemoryDisk) -> Result<u64, String> {
    let begins = first_retained_index(disk, NODE).map_err(|error| error.to_string())?;
    let (newest, _) = newest_valid_snapshot(disk, NODE, begins).map_err(|error| error.to_string())?;
    let (after, must_reach) = newest.map_or((0, 0), |report| (report.after, report.through));
    let replay = Replay { after, must_reach, truncate_damaged: false };
    let (_, report, _) =
        open(disk.clone(), &options(SEGMENT_BYTES), replay, 1).map_err(|error| error.to_string())?;
    Ok(report.last_index)
}

fn append_three(log: &mut Log<MemoryDisk>) {
    for _ in 0..3 {
        append(log, &[&[1; 3000]], None).unwrap();
    }
}

/// Each snapshot is asked for with or without a write before it, or is plain where the one before was not.
#[test]
fn any_one_snapshot_may_be_damaged_however_they_were_asked_for() {
    let compressions: [fn(u64) -> Option<i32>; 2] = [|_| Some(1), |number| (number % 3 == 0).then_some(1)];
    for (compression, writes) in
        compressions.into_iter().flat_map(|level| (0..32u32).map(move |writes| (level, writes)))
    {
        let (disk, mut log) = fresh(SEGMENT_BYTES);
        append_three(&mut log);
        for number in 0..5u64 {
            if writes & (1 << number) != 0 {
                append_three(&mut log);
            }
            let through = log.next_index() - 1;
            snapshot(&disk, through, through, compression(number));
            if let Some(through) = keep_newest_snapshots(&disk, NODE, 2).unwrap() {
                log.cut(through).unwrap();
            }
            let found = list_snapshots(&disk).unwrap();
            assert!(found.len() <= 2);
            for info in found {
                let disk = disk.clone_state();
                damage(&disk, &info.name);
                let what = format!("snapshot {number}, writes {writes:b}, {} is damaged", info.name);
                assert_eq!(recovered(&disk), Ok(log.next_index() - 1), "{what}");
            }
        }
    }
}

#[test]
fn without_room_the_newest_is_enough_once_it_was_read() {
    let disk = MemoryDisk::new();
    assert_eq!(remove_all_but_newest_whole(&disk, NODE).unwrap(), None);
    snapshot(&disk, 40, 50, None);
    assert_eq!(remove_all_but_newest_whole(&disk, NODE).unwrap(), None, "it is the only one");
    snapshot(&disk, 80, 90, None);
    let damaged = disk.clone_state();
    damage(&damaged, &list_snapshots(&disk).unwrap()[1].name);
    assert!(matches!(remove_all_but_newest_whole(&damaged, NODE), Err(SnapshotError::Damaged { .. })));
    assert_eq!(list_snapshots(&damaged).unwrap().len(), 2);
    assert_eq!(remove_all_but_newest_whole(&disk, NODE).unwrap(), Some(80));
    assert_eq!(list_snapshots(&disk).unwrap().len(), 1);
}

#[test]
fn where_a_snapshot_needs_the_log_is_unknown_the_log_stays() {
    let disk = MemoryDisk::new();
    snapshot(&disk, 40, 50, None);
    snapshot(&disk, 80, 90, None);
    assert_eq!(keep_newest_snapshots(&disk, NODE, 2).unwrap(), Some(40));
    let stranger = NodeUuid([8; 16]);
    assert!(keep_newest_snapshots(&disk, stranger, 2).is_err());
    assert_eq!(keep_newest_snapshots(&disk, NODE, 3).unwrap(), None, "one more would be kept");
}

fn put(disk: &MemoryDisk, names: &[&str]) {
    for name in names {
        disk.create_new(name).unwrap();
    }
}

fn names(disk: &MemoryDisk, directory: &str) -> Vec<String> {
    let mut names = disk.list(directory).unwrap();
    names.sort();
    names
}

#[test]
fn the_last_few_of_what_was_put_aside_stay_and_all_of_this_start() {
    let disk = MemoryDisk::new();
    put(
        &disk,
        &["log/torn-00000002-900", "log/torn-00000002-4096", "log/torn-00000010-4096", "log/00000001.wal"],
    );
    put(&disk, &["log/torn-00000002-900-1", "log/torn-00000001-70000", "log/damaged-00000001"]);
    let fresh = ["log/torn-00000001-70000".to_string()];
    let removed = remove_older_aside(&disk, "log", "torn-", &fresh).unwrap();
    assert_eq!(
        removed,
        ["log/torn-00000002-900"],
        "four are kept: this start's, and the newest of the others"
    );
    assert_eq!(names(&disk, "log").len(), 6);
    assert_eq!(remove_older_aside(&disk, "log", "torn-", &fresh).unwrap(), Vec::<String>::new());
    // Segments that were put aside together stay together.
    let fresh: Vec<String> = (10..20).map(|number| format!("log/damaged-{number:08}")).collect();
    fresh.iter().for_each(|name| put(&disk, &[name]));
    assert_eq!(remove_older_aside(&disk, "log", "damaged-", &fresh).unwrap(), ["log/damaged-00000001"]);
}

#[test]
fn what_is_put_aside_takes_no_other_one_s_place() {
    let disk = MemoryDisk::new();
    for expected in ["snapshots/damaged-x", "snapshots/damaged-x-1", "snapshots/damaged-x-2"] {
        put(&disk, &["snapshots/x"]);
        assert_eq!(put_aside(&disk, "snapshots", "snapshots/x", "snapshots/damaged-x").unwrap(), expected);
    }
    assert_eq!(names(&disk, "snapshots"), ["damaged-x", "damaged-x-1", "damaged-x-2"]);
}

/// A disk that tears a tail before each start doesn't fill up with copies.
#[test]
fn torn_tails_leave_the_last_few_copies() {
    let (disk, mut log) = fresh(64 * 1024);
    let mut kept = Vec::new();
    for round in 0..10u8 {
        append(&mut log, &[&[round; 100]], None).unwrap();
        let end = 4096 + log.figures().frame_bytes as usize;
        drop(log);
        let mut bytes = disk.bytes("log/00000001.wal").unwrap();
        bytes[end..end + 40].fill(7);
        disk.set_bytes("log/00000001.wal", bytes);
        let (reopened, report, _) = open(disk.clone(), &options(64 * 1024), Replay::default(), 1).unwrap();
        log = reopened;
        kept.push(report.torn.unwrap().copied_to.unwrap());
        assert_eq!(report.removed_aside.len(), usize::from(round >= 4), "{:?}", report.removed_aside);
    }
    let left: Vec<String> =
        names(&disk, "log").into_iter().filter(|name| name.starts_with("torn-")).collect();
    assert_eq!(left.len(), 4);
    assert!(kept[6..].iter().all(|name| disk.bytes(name).is_some()));
}
