//! The log step by step: the format to the byte, rotation, cutting, refusals.

use std::io::ErrorKind;

use super::super::segment::SegmentHeader;
use super::super::{
    AppendEntry, AppendError, CrashKind, Disk, FailedSync, Fault, FileDisk, Identity, Log, MemoryDisk,
    NodeUuid, OpenError, Operation, Replay, SyncPurpose, initialise, prepare_spare, ready_spares,
    segment_name,
};
use super::{NODE, append, fresh, identity, open, options, salts};
use crate::limits::SEAL_ATTEMPTS_MAX;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sync_fails(disk: &MemoryDisk, purpose: SyncPurpose, how: FailedSync, times: u32) {
    for _ in 0..times {
        let operation = Operation::Sync(purpose, how);
        disk.inject(Fault { operation, after: 0, kind: ErrorKind::Other });
    }
}

#[test]
fn a_segment_of_two_frames_is_these_bytes() {
    let (disk, mut log) = fresh(8192);
    let payload: [&[u8]; 2] = [b"he", b"llo"];
    log.append(&[AppendEntry { kind: 2, term: 3, payload: &payload }], Some(b"hard")).unwrap();
    log.append_idle_frame().unwrap();
    let bytes = disk.bytes("log/00000001.wal").unwrap();
    assert_eq!(bytes.len(), 8192);
    assert_eq!(hex(&bytes[..92]), GOLDEN_HEADER);
    assert_eq!(hex(&bytes[4096..4096 + 96]), GOLDEN_FRAME);
    assert_eq!(hex(&bytes[4096 + 96..4096 + 160]), GOLDEN_IDLE_FRAME);
    assert!(bytes[92..4096].iter().chain(&bytes[4096 + 160..]).all(|&byte| byte == 0));
}

const GOLDEN_HEADER: &str = "4453545257414c0a01000000000000000707070707070707070707070707070701000000000000000b00000000000000\
     00000000000000000000000000000000010000000000000001000000000000000000000000000000ee09d676";
const GOLDEN_FRAME: &str = "46524d31010004001900000001000000fd2af21300000000030000000000000001000000000000000100000000000000\
     00000000000000000000000099ff8f44686172640500000002000000030000000000000068656c6c6f00000000000000";
const GOLDEN_IDLE_FRAME: &str = "46524d310100000000000000000000003fc3483899ff8f44030000000000000002000000000000000200000000000000\
     01000000000000000000000086a9cb80";

#[test]
fn the_identity_is_these_bytes_and_comes_back() {
    let (disk, _) = fresh(8192);
    let text = String::from_utf8(disk.bytes("identity.json").unwrap()).unwrap();
    assert_eq!(
        text,
        "{\"format\":1,\"node\":\"07070707070707070707070707070707\",\"cluster\":null,\"mode\":\"single\",\
         \"placement_seed\":[\"0000000000000001\",\"0000000000000002\"],\"created_by\":\"0.1.0\"}\n"
    );
    assert_eq!(Identity::load(&disk).unwrap(), Some(identity()));
    disk.set_bytes("identity.json", text.replace("\"format\":1", "\"format\":2").into_bytes());
    assert_eq!(
        Identity::load(&disk).unwrap_err().to_string(),
        "identity.json has format 2, this version reads up to 1: start the version that wrote it"
    );
    disk.set_bytes("identity.json", Vec::new());
    assert!(Identity::load(&disk).is_err(), "never taken for a new directory");
}

#[test]
fn a_directory_with_data_never_starts_empty() {
    let (disk, mut log) = fresh(8192);
    append(&mut log, &[b"x"], None).unwrap();
    let again = initialise(&disk, &options(8192), &identity(), 5);
    assert!(matches!(again, Err(OpenError::AlreadyInitialised)));
    disk.remove("identity.json").unwrap();
    let again = initialise(&disk, &options(8192), &identity(), 5);
    assert!(matches!(again, Err(OpenError::IdentityMissing { .. })));
    disk.remove("log/00000001.wal").unwrap();
    assert!(matches!(open(disk, &options(8192), Replay::default(), 1), Err(OpenError::LogMissing)));
}

#[test]
fn entries_larger_than_a_segment_get_one_of_their_own_size() {
    let (disk, mut log) = fresh(8192);
    let large = vec![7; 50_000];
    append(&mut log, &[b"small"], None).unwrap();
    append(&mut log, &[&large, &large], None).unwrap();
    append(&mut log, &[b"small"], None).unwrap();
    assert_eq!(log.figures().segments, 3);
    let (_, report, entries) = open(disk, &options(8192), Replay::default(), 1).unwrap();
    assert_eq!((entries.len(), report.frames, report.torn), (4, 3, None));
    assert_eq!(entries[1].1, large);
}

#[test]
fn a_spare_is_used_and_a_cut_segment_becomes_one_again() {
    let (disk, mut log) = fresh(8192);
    assert!(log.needs_spare());
    prepare_spare(&disk, 1, 8192).unwrap();
    assert_eq!(ready_spares(&disk).unwrap(), 1);
    let payload = vec![1; 3000];
    append(&mut log, &[&payload], None).unwrap();
    append(&mut log, &[&payload], None).unwrap();
    assert_eq!(ready_spares(&disk).unwrap(), 0);
    assert_eq!(log.cut(0).unwrap().segments, 0);
    let report = log.cut(1).unwrap();
    assert_eq!((report.segments, report.bytes, report.first_index), (1, 8192, 2));
    assert!(disk.bytes("log/retired-1").is_some());
    prepare_spare(&disk, 2, 8192).unwrap();
    assert!(disk.bytes("log/spare-2").unwrap().iter().all(|&byte| byte == 0));
    append(&mut log, &[&payload], None).unwrap();
    assert_eq!(log.cut(u64::MAX).unwrap().first_index, 3, "the current segment stays");
    let first = open(disk.clone(), &options(8192), Replay { after: 1, ..Replay::default() }, 1);
    assert!(matches!(first, Err(OpenError::Gap { needed: 2, first: 3 })));
    let (_, _, entries) = open(disk, &options(8192), Replay { after: 2, ..Replay::default() }, 1).unwrap();
    assert_eq!(entries, [(3, payload)]);
}

#[test]
fn the_hard_state_outlives_its_segment() {
    let (disk, mut log) = fresh(8192);
    let payload = vec![1; 3000];
    append(&mut log, &[&payload], Some(b"state")).unwrap();
    append(&mut log, &[&payload], None).unwrap();
    append(&mut log, &[&payload], None).unwrap();
    assert_eq!(log.cut(2).unwrap().segments, 2);
    let (log, _, _) = open(disk, &options(8192), Replay { after: 2, ..Replay::default() }, 1).unwrap();
    assert_eq!(log.hard_state(), Some(&b"state"[..]));
}

#[test]
fn a_refused_frame_is_gone_whatever_the_disk_kept() {
    for how in [FailedSync::Kept, FailedSync::Lost, FailedSync::Limbo] {
        let (disk, mut log) = fresh(8192);
        append(&mut log, &[b"good"], None).unwrap();
        sync_fails(&disk, SyncPurpose::Append, how, 1);
        let refused = append(&mut log, &[b"bad", b"worse"], Some(b"never"));
        assert!(matches!(refused, Err(AppendError::Refused { .. })));
        assert_eq!(log.next_index(), 2);
        let crashed = disk.crash(CrashKind::KeepAll);
        let (reopened, _, entries) = open(crashed, &options(8192), Replay::default(), 1).unwrap();
        assert_eq!((entries.len(), reopened.hard_state()), (1, None));
        assert_eq!(append(&mut log, &[b"next"], None).unwrap().first_index, 2);
        let (_, report, entries) = open(disk.clone(), &options(8192), Replay::default(), 1).unwrap();
        assert_eq!(entries, [(1, b"good".to_vec()), (2, b"next".to_vec())]);
        assert_eq!((report.segments, report.torn), (2, None));
        let figures = log.figures();
        assert_eq!((figures.sync_failures, figures.seals), (1, 1));
        // The sealed file was cut to its valid length: header, one frame of one entry of 4 bytes.
        assert_eq!(disk.bytes("log/00000001.wal").unwrap().len(), 4096 + 64 + 24);
    }
}

#[test]
fn a_seal_is_tried_again_and_then_the_log_stops() {
    let (disk, mut log) = fresh(8192);
    sync_fails(&disk, SyncPurpose::Append, FailedSync::Kept, 1);
    sync_fails(&disk, SyncPurpose::Seal, FailedSync::Lost, SEAL_ATTEMPTS_MAX - 1);
    assert!(matches!(append(&mut log, &[b"a"], None), Err(AppendError::Refused { .. })));
    assert_eq!(log.figures().segment_failures, u64::from(SEAL_ATTEMPTS_MAX) - 1);
    sync_fails(&disk, SyncPurpose::Append, FailedSync::Kept, 1);
    sync_fails(&disk, SyncPurpose::Seal, FailedSync::Lost, SEAL_ATTEMPTS_MAX);
    assert!(matches!(append(&mut log, &[b"b"], None), Err(AppendError::Unsealed { .. })));
    disk.clear_faults();
    assert!(matches!(append(&mut log, &[b"c"], None), Err(AppendError::Unsealed { .. })));
    let (_, _, entries) = open(disk, &options(8192), Replay::default(), 1).unwrap();
    assert_eq!(entries, [(1, b"b".to_vec())], "its outcome was unknown, and it is here");
}

/// Else a disk whose syncs all fail would be given a new segment ten times a second.
#[test]
fn a_failed_idle_frame_is_not_tried_again() {
    let (disk, mut log) = fresh(8192);
    append(&mut log, &[b"x"], None).unwrap();
    assert!(log.needs_idle_frame());
    sync_fails(&disk, SyncPurpose::Append, FailedSync::Lost, 1);
    assert!(matches!(log.append_idle_frame(), Err(AppendError::Refused { .. })));
    assert!(!log.needs_idle_frame(), "the segment that seals it off proves the frame");
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let (disk, mut log) = fresh(8192);
    let payload = vec![1; 3000];
    append(&mut log, &[&payload], None).unwrap();
    disk.inject(Fault { operation: Operation::Create, after: 0, kind: ErrorKind::StorageFull });
    assert!(matches!(append(&mut log, &[&payload], None), Err(AppendError::DiskFull { .. })));
    assert_eq!(append(&mut log, &[&payload], None).unwrap().first_index, 2);
    // A frame whose write finds no room is sealed off, if need be in a spare.
    prepare_spare(&disk, 1, 8192).unwrap();
    disk.inject(Fault { operation: Operation::Write, after: 0, kind: ErrorKind::StorageFull });
    disk.inject(Fault { operation: Operation::Create, after: 0, kind: ErrorKind::StorageFull });
    assert!(matches!(append(&mut log, &[b"x"], None), Err(AppendError::DiskFull { .. })));
    assert_eq!(ready_spares(&disk).unwrap(), 0);
    append(&mut log, &[b"y"], None).unwrap();
    let (_, _, entries) = open(disk, &options(8192), Replay::default(), 1).unwrap();
    assert_eq!(entries.last(), Some(&(3, b"y".to_vec())));
}

#[test]
fn a_torn_tail_is_copied_aside_and_said_once() {
    let (disk, mut log) = fresh(8192);
    append(&mut log, &[b"good"], None).unwrap();
    append(&mut log, &[&[9; 600]], None).unwrap();
    let mut bytes = disk.bytes("log/00000001.wal").unwrap();
    bytes[4096 + 88 + 512..].fill(0);
    disk.set_bytes("log/00000001.wal", bytes.clone());
    let (_, report, entries) = open(disk.clone(), &options(8192), Replay::default(), 1).unwrap();
    let torn = report.torn.unwrap();
    assert_eq!((entries.len(), torn.offset, torn.bytes, torn.expected_index), (1, 4184, 512, 2));
    assert_eq!(disk.bytes(&torn.copied_to.unwrap()).unwrap(), bytes[4184..4184 + 512]);
    let (_, report, _) = open(disk, &options(8192), Replay::default(), 1).unwrap();
    assert_eq!(report.torn, None);
}

/// Changes a segment's header and makes its CRC right again.
pub(super) fn change_header(disk: &MemoryDisk, number: u64, change: impl FnOnce(&mut SegmentHeader)) {
    let name = segment_name(number);
    let mut bytes = disk.bytes(&name).unwrap();
    let mut header = SegmentHeader::decode(&bytes).unwrap();
    change(&mut header);
    bytes[..4096].copy_from_slice(&header.encode());
    disk.set_bytes(&name, bytes);
}

#[test]
fn segments_of_others_and_of_newer_versions_are_refused_by_name() {
    let (disk, _) = fresh(8192);
    let foreign = disk.clone_state();
    change_header(&foreign, 1, |header| header.node = NodeUuid([8; 16]));
    let error = open(foreign, &options(8192), Replay::default(), 1).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::ForeignSegment { expected: NODE, .. }), "{error}");
    let mut bytes = disk.bytes("log/00000001.wal").unwrap();
    bytes[8] = 9;
    disk.set_bytes("log/00000001.wal", bytes);
    let error = open(disk, &options(8192), Replay::default(), 1).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "log/00000001.wal has format 9, this version reads up to 1: start the version that wrote it"
    );
}

#[test]
fn a_missing_segment_is_damage_and_a_missing_beginning_a_gap() {
    let (disk, mut log) = fresh(8192);
    for _ in 0..3 {
        append(&mut log, &[&[1; 3000]], None).unwrap();
    }
    let middle = disk.clone_state();
    middle.remove("log/00000002.wal").unwrap();
    let error = open(middle, &options(8192), Replay::default(), 1).map(|_| ()).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.file == "log/00000002.wal"), "{error}");
    disk.remove("log/00000001.wal").unwrap();
    let error = open(disk.clone(), &options(8192), Replay::default(), 1).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Gap { needed: 1, first: 2 }), "{error}");
    let replay = Replay { after: 1, must_reach: 4, truncate_damaged: false };
    let error = open(disk, &options(8192), replay, 1).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::EndsTooEarly { last: 3, must_reach: 4 }), "{error}");
}

#[test]
fn a_real_directory_does_the_same() {
    let root = std::env::temp_dir().join(format!("datastore-log-{}", std::process::id()));
    let disk = FileDisk::open(&root).unwrap();
    initialise(&disk, &options(64 * 1024), &identity(), 1).unwrap();
    prepare_spare(&disk, 1, 64 * 1024).unwrap();
    let (mut log, _, _) = open(disk.clone(), &options(64 * 1024), Replay::default(), 1).unwrap();
    let mut written = Vec::new();
    for number in 0..40u8 {
        let payload = vec![number; 5000];
        written.push((append(&mut log, &[&payload], None).unwrap().last_index, payload));
    }
    assert!(log.figures().segments > 3 && disk.free_bytes("log").unwrap() > 0);
    drop(log);
    let (mut log, report, entries) = open(disk.clone(), &options(64 * 1024), Replay::default(), 1).unwrap();
    assert_eq!((entries, report.torn), (written, None));
    assert!(log.cut(39).unwrap().segments > 0);
    assert_eq!(disk.create_new("identity.json").map(|_| ()).unwrap_err().kind(), ErrorKind::AlreadyExists);
    std::fs::remove_dir_all(root).unwrap();
}

/// `cargo test --release -- --ignored --nocapture recovery_speed`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::disallowed_methods, reason = "a measurement needs a clock")]
fn recovery_speed() {
    let root = std::env::temp_dir().join(format!("datastore-recovery-{}", std::process::id()));
    let disk = FileDisk::open(&root).unwrap();
    let options = super::super::LogOptions::default();
    initialise(&disk, &options, &identity(), 1).unwrap();
    let (mut log, _, _) = open(disk.clone(), &options, Replay::default(), 1).unwrap();
    let payload = vec![5u8; 1000];
    let pieces = [&payload[..]; 1];
    let entries = vec![AppendEntry { kind: 1, term: 1, payload: &pieces }; 1000];
    for _ in 0..500 {
        log.append(&entries, None).unwrap();
    }
    drop(log);
    let began = std::time::Instant::now();
    let mut count = 0u64;
    let mut visit = |_: super::super::RecoveredEntry<'_>| {
        count += 1;
        Ok(())
    };
    let (_, report) = Log::open(disk, options, &identity(), Replay::default(), salts(1), &mut visit).unwrap();
    let seconds = began.elapsed().as_secs_f64();
    println!("{count} entries, {:.0} MB/s", report.bytes as f64 / 1e6 / seconds);
    std::fs::remove_dir_all(root).unwrap();
}
