//! `wal verify`: a stopped node's log and snapshots, checked without a change.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use datastore::persistence::{
    FileDisk, Identity, LOCK_FILE, LogInspection, OpenError, SegmentEnd, SegmentInspection, SnapshotError,
    SnapshotInfo, SnapshotReport, inspect_log, list_snapshots, verify_snapshot,
};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{Format, Output};

/// A data directory that no node uses as long as this lives.
pub struct Directory {
    pub disk: FileDisk,
    pub identity: Identity,
    _lock: Option<File>,
}

impl Directory {
    /// Opens a stopped node's directory to read it.
    pub fn open(path: &Path) -> Result<Directory, Failure> {
        if !path.is_dir() {
            return Err(Failure::file(path, "no such directory"));
        }
        let lock = lock(path)?;
        let disk = FileDisk::read_only(path);
        let identity = match Identity::load(&disk) {
            Ok(Some(identity)) => identity,
            Ok(None) => return Err(Failure::file(path, "no node's data directory: it has no identity.json")),
            Err(error) => return Err(Failure::damaged(format!("{}: {error}", path.display()))),
        };
        Ok(Directory { disk, identity, _lock: lock })
    }
}

/// Keeps nodes out, and lets others read. A copy of a directory may have no
/// lock file, and then none is made.
fn lock(path: &Path) -> Result<Option<File>, Failure> {
    let file = match File::open(path.join(LOCK_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::file(&path.join(LOCK_FILE), error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::file(path, "a node uses this directory: stop it first, or look at a copy"))
        }
        Err(TryLockError::Error(error)) => Err(Failure::file(path, error)),
    }
}

/// What keeps a log from being read: damage, or the disk.
pub fn log_failure(path: &Path, error: &OpenError) -> Failure {
    match error {
        OpenError::Io { .. } | OpenError::NewerFormat { .. } => Failure::file(path, error),
        _ => Failure::damaged(format!("{}: {error}", path.display())),
    }
}

/// A snapshot, and what its check gave.
type Checked = (SnapshotInfo, Result<SnapshotReport, SnapshotError>);

pub fn verify(path: &Path, output: &mut Output) -> Result<(), Failure> {
    let directory = Directory::open(path)?;
    let Directory { disk, identity, .. } = &directory;
    let log = inspect_log(disk, identity.node, &mut |_| Ok(())).map_err(|error| log_failure(path, &error))?;
    let infos = list_snapshots(disk).map_err(|error| Failure::file(path, error))?;
    let snapshots: Vec<Checked> =
        infos.into_iter().map(|info| (info.clone(), verify_snapshot(disk, &info, identity.node))).collect();
    print_segments(&log, output)?;
    print_snapshots(&snapshots, output)?;
    let problems = problems(&log, &snapshots);
    if output.format == Format::Json {
        let last_index = log.segments.last().map_or(0, |segment| segment.last_index);
        output.json(
            &json!({ "node": identity.node.to_string(), "last_index": last_index, "problems": problems }),
        )?;
    }
    match problems.as_slice() {
        [] => Ok(()),
        problems => Err(Failure::damaged(format!("{}: {}", path.display(), problems.join("; ")))),
    }
}

fn print_segments(log: &LogInspection, output: &mut Output) -> Result<(), Failure> {
    if output.format == Format::Json {
        return log.segments.iter().try_for_each(|segment| output.json(&segment_json(segment)));
    }
    let header = ["segment", "first", "last", "entries", "frames", "bytes", "end"];
    let row = |segment: &SegmentInspection| {
        let numbers =
            [segment.first_index, segment.last_index, segment.entries, segment.frames, segment.valid_bytes];
        let mut row = vec![segment.file.clone()];
        row.extend(numbers.iter().map(u64::to_string));
        row.push(match &segment.end {
            SegmentEnd::Clean => "clean".to_string(),
            SegmentEnd::Torn { offset, bytes } => {
                format!("torn at byte {offset}: {bytes} bytes that a crash cut short, no damage")
            }
            SegmentEnd::Damaged(damage) => format!("damaged at byte {}: {}", damage.offset, damage.reason),
        });
        row
    };
    output.rows(&header, &log.segments.iter().map(row).collect::<Vec<_>>())
}

fn segment_json(segment: &SegmentInspection) -> Value {
    let (end, offset) = match &segment.end {
        SegmentEnd::Clean => ("clean", None),
        SegmentEnd::Torn { offset, .. } => ("torn", Some(*offset)),
        SegmentEnd::Damaged(damage) => ("damaged", Some(damage.offset)),
    };
    json!({
        "segment": segment.file,
        "first_index": segment.first_index,
        "last_index": segment.last_index,
        "entries": segment.entries,
        "frames": segment.frames,
        "valid_bytes": segment.valid_bytes,
        "file_bytes": segment.file_bytes,
        "end": end,
        "end_offset": offset,
    })
}

fn print_snapshots(snapshots: &[Checked], output: &mut Output) -> Result<(), Failure> {
    if output.format == Format::Json {
        let object = |(info, checked): &Checked| match checked {
            Ok(report) => json!({
                "snapshot": info.name, "whole": true, "after": report.after, "through": report.through,
                "entries": report.entries, "file_bytes": report.file_bytes,
            }),
            Err(error) => json!({ "snapshot": info.name, "whole": false, "reason": error.to_string() }),
        };
        return snapshots.iter().try_for_each(|snapshot| output.json(&object(snapshot)));
    }
    if snapshots.is_empty() {
        return Ok(());
    }
    let header = ["snapshot", "after", "through", "entries", "bytes", "state"];
    let row = |(info, checked): &Checked| match checked {
        Ok(report) => {
            let numbers = [report.after, report.through, report.entries, report.file_bytes];
            let numbers = numbers.iter().map(u64::to_string);
            [info.name.clone()].into_iter().chain(numbers).chain(["whole".to_string()]).collect()
        }
        Err(error) => {
            let nothing = || String::from("–");
            vec![
                info.name.clone(),
                nothing(),
                info.through.to_string(),
                nothing(),
                nothing(),
                error.to_string(),
            ]
        }
    };
    output.rows(&header, &snapshots.iter().map(row).collect::<Vec<_>>())
}

/// All that is wrong, in words.
fn problems(log: &LogInspection, snapshots: &[Checked]) -> Vec<String> {
    let mut problems: Vec<String> = log.damages().map(ToString::to_string).collect();
    problems.extend(snapshots.iter().filter_map(|(_, checked)| Some(checked.as_ref().err()?.to_string())));
    // Whether snapshot and log together are a state says something only where each is whole.
    if problems.is_empty()
        && let (Some(oldest), Some(newest)) = (log.segments.first(), log.segments.last())
    {
        let whole = snapshots.iter().rev().find_map(|(_, checked)| checked.as_ref().ok());
        let (after, must_reach) = whole.map_or((0, 0), |report| (report.after, report.through));
        if oldest.first_index > after + 1 {
            problems.push(OpenError::Gap { needed: after + 1, first: oldest.first_index }.to_string());
        }
        if newest.last_index < must_reach {
            problems.push(OpenError::EndsTooEarly { last: newest.last_index, must_reach }.to_string());
        }
    }
    problems
}
