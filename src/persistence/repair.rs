//! The writing half of recovery: after it, what was read is durable, and what
//! was not whole is gone.
//!
//! The order matters, since each step may be the last before a crash, and the
//! next recovery must come to the same result: first the tail is copied, then it
//! is zeroed, then segments behind damage are set aside from the highest down
//! (each alone still looks damaged), then leftovers go.

use std::io;

use super::disk::{Disk, LOG_DIRECTORY, SyncPurpose, read_range, write_zeroes};
use super::recovery::{remove_leftovers, segment_numbers};
use super::recovery_report::{OpenError, RecoveryReport, TornTail, at};
use super::scan::{Scan, Tail};
use super::segment::segment_name;

/// How often a free name is looked for.
const COPIES_MAX: u32 = 10_000;

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
    let length = disk.length(&file).map_err(at(&name))?;
    if let Tail::Torn { offset, end } = tail {
        let copied_to = copy_aside(disk, &file, last, offset, end).map_err(at(&name))?;
        write_zeroes(disk, &mut file, offset, end).map_err(at(&name))?;
        report.torn = Some(TornTail {
            file: name.clone(),
            offset,
            bytes: end - offset,
            expected_index: scan.position.next_index,
            copied_to,
        });
    } else if report.truncated.is_some() {
        let valid = scan.segments[chain.len() - 1].valid_bytes;
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
    for copy in 0..COPIES_MAX {
        // An earlier start that crashed half-way may have left its copy: it is kept.
        let suffix = if copy == 0 { String::new() } else { format!("-{copy}") };
        let name = format!("{LOG_DIRECTORY}/torn-{segment:08}-{from}{suffix}");
        match disk.create_new(&name) {
            Ok(mut target) => {
                disk.write_at(&mut target, 0, &bytes)?;
                disk.sync(&mut target, SyncPurpose::Other)?;
                disk.sync_directory(LOG_DIRECTORY)?;
                return Ok(name);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many copies of torn tails"))
}

/// Renames every segment behind `last` to "log/damaged-<number>", highest first.
fn set_aside<D: Disk>(disk: &D, last: u64, report: &mut RecoveryReport) -> Result<(), OpenError> {
    for number in segment_numbers(disk)?.into_iter().rev().take_while(|&number| number > last) {
        let name = segment_name(number);
        let target = format!("{LOG_DIRECTORY}/damaged-{number:08}");
        disk.rename(&name, &target).map_err(at(&name))?;
        disk.sync_directory(LOG_DIRECTORY).map_err(at(LOG_DIRECTORY))?;
        report.set_aside.push(target);
    }
    Ok(())
}
