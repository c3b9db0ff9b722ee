//! The writing half of recovery: after it, what was read is durable, and what
//! was not whole is gone.
//!
//! The order matters, since each step may be the last before a crash, and the
//! next recovery must come to the same result: first the tail is copied, then it
//! is zeroed, then segments behind damage are set aside from the highest down
//! (each alone still looks damaged), then leftovers go.

use std::io;

use super::aside::{put_aside, remove_older_aside, with_free_name};
use super::disk::{Disk, LOG_DIRECTORY, SyncPurpose, read_range, write_zeroes};
use super::recovery::{remove_leftovers, segment_numbers};
use super::recovery_report::{OpenError, RecoveryReport, TornTail, at};
use super::rotation::is_disk_full;
use super::scan::{Scan, Tail};
use super::segment::segment_name;

/// How the names of copies of torn tails begin.
const TORN: &str = "torn-";
/// How the names of segments behind damage begin.
const DAMAGED: &str = "damaged-";

/// Makes the log on disk equal to what `scan` has read, and gives the last
/// segment's file.
pub(super) fn repair<D: Disk>(
    disk: &D,
    chain: &[u64],
    scan: &Scan,
    tail: Tail,
    report: &mut RecoveryReport,
    trusts_cache: bool,
) -> Result<D::File, OpenError> {
    let last = chain[chain.len() - 1];
    let name = segment_name(last);
    let mut file = disk.open(&name).map_err(at(&name))?;
    let valid = scan.segments[chain.len() - 1].valid_bytes;
    let mut length = disk.length(&file).map_err(at(&name))?;
    if length < valid {
        // It ends within its header's room, and its successor will say that it is as long as that.
        disk.set_length(&mut file, valid).map_err(at(&name))?;
        length = valid;
    }
    if let Tail::Torn { offset, end } = tail {
        let copied_to = match copy_aside(disk, &file, last, offset, end) {
            Ok(copy) => Some(copy),
            // Nobody was told of that write, and a node must start on a full disk.
            Err(error) if is_disk_full(&error) => None,
            Err(error) => return Err(at(&name)(error)),
        };
        write_zeroes(disk, &mut file, offset, end).map_err(at(&name))?;
        report.torn = Some(TornTail {
            file: name.clone(),
            offset,
            bytes: end - offset,
            expected_index: scan.position.next_index,
            copied_to,
        });
    } else if report.truncated.is_some() {
        let end = valid + written_bytes(disk, &file, valid, length).map_err(at(&name))?;
        if end > valid {
            report.set_aside.push(copy_aside(disk, &file, last, valid, end).map_err(at(&name))?);
        }
        write_zeroes(disk, &mut file, valid, length).map_err(at(&name))?;
    }
    if scan.last_frame.segment == last && !trusts_cache {
        disk.write_at(&mut file, scan.last_frame.offset, &scan.last_frame.bytes).map_err(at(&name))?;
    }
    if !trusts_cache {
        disk.sync(&mut file, SyncPurpose::Other).map_err(at(&name))?;
    }
    if report.truncated.is_some() {
        set_aside(disk, last, report)?;
    }
    if !trusts_cache {
        disk.sync_directory(LOG_DIRECTORY).map_err(at(LOG_DIRECTORY))?;
    }
    remove_leftovers(disk, chain)?;
    remove_older_copies(disk, report);
    Ok(file)
}

/// How many bytes there are up to the last one that is not zero.
fn written_bytes<D: Disk>(disk: &D, file: &D::File, from: u64, to: u64) -> io::Result<u64> {
    let bytes = read_range(disk, file, from, to)?;
    Ok(bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1))
}

/// Copies a part of a segment to "log/torn-<segment>-<offset>", durably.
fn copy_aside<D: Disk>(disk: &D, file: &D::File, segment: u64, from: u64, to: u64) -> io::Result<String> {
    let bytes = read_range(disk, file, from, to)?;
    let wanted = format!("{LOG_DIRECTORY}/{TORN}{segment:08}-{from}");
    let (name, mut target) = with_free_name(&wanted, |name| disk.create_new(name))?;
    let copied = disk
        .write_at(&mut target, 0, &bytes)
        .and_then(|()| disk.sync(&mut target, SyncPurpose::Other))
        .and_then(|()| disk.sync_directory(LOG_DIRECTORY));
    if copied.is_err() {
        // A part of a copy is none, and takes room.
        let _ = disk.remove(&name);
    }
    copied.map(|()| name)
}

/// Renames every segment behind `last` to "log/damaged-<number>", highest first.
fn set_aside<D: Disk>(disk: &D, last: u64, report: &mut RecoveryReport) -> Result<(), OpenError> {
    for number in segment_numbers(disk)?.into_iter().rev().take_while(|&number| number > last) {
        let name = segment_name(number);
        let target = format!("{LOG_DIRECTORY}/{DAMAGED}{number:08}");
        report.set_aside.push(put_aside(disk, LOG_DIRECTORY, &name, &target).map_err(at(&name))?);
    }
    Ok(())
}

/// Removes what earlier starts have put aside, but for the last few. It is of no consequence if that fails.
fn remove_older_copies<D: Disk>(disk: &D, report: &mut RecoveryReport) {
    let mut fresh = report.set_aside.clone();
    fresh.extend(report.torn.iter().filter_map(|torn| torn.copied_to.clone()));
    let mut removed = remove_older_aside(disk, LOG_DIRECTORY, TORN, &fresh).unwrap_or_default();
    // Acknowledged writes may be in those of one cut: they go together, and when there are others.
    if report.truncated.is_some() {
        removed.extend(remove_older_aside(disk, LOG_DIRECTORY, DAMAGED, &fresh).unwrap_or_default());
    }
    report.removed_aside = removed;
}
