//! What a [`super::MemoryDisk`] holds: durable and pending parts, and how a
//! crash makes one of both.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::disk::SyncPurpose;

/// What a device writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What a sync that fails does with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedSync {
    /// They are on the disk all the same.
    Kept,
    /// They are not, but the cache still shows them until a crash.
    Lost,
    /// They may be or not, each write for itself, for ever.
    Limbo,
}

/// An operation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`super::Disk::write_at`]; some of the bytes are written.
    Write,
    /// [`super::Disk::sync`] for this purpose.
    Sync(SyncPurpose, FailedSync),
    /// [`super::Disk::sync_directory`]; the names stay pending.
    SyncDirectory,
    /// [`super::Disk::create_new`], for want of room.
    Create,
    /// [`super::Disk::rename`].
    Rename,
    /// [`super::Disk::open`].
    Open,
    /// [`super::Disk::read_at`].
    Read,
}

/// A failure that is going to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which operation.
    pub operation: Operation,
    /// How many operations of that kind succeed before it.
    pub after: u32,
    /// With which error.
    pub kind: io::ErrorKind,
}

/// What was done to the disk, as far as crashes are concerned.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Write { inode: usize, offset: u64, bytes: Arc<[u8]> },
    SetLength { inode: usize, length: u64 },
    Sync { inode: usize },
    FailedSync { inode: usize, how: FailedSync },
    Create { name: String, inode: usize },
    Rename { from: String, to: String },
    Remove { name: String },
    SyncDirectory { directory: String },
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write(u64, Arc<[u8]>),
    SetLength(u64),
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) durable: Vec<u8>,
    pub(super) cached: Vec<u8>,
    pub(super) pending: Vec<Change>,
    /// Changes of failed syncs in limbo: a crash keeps or loses them, a sync leaves them.
    pub(super) limbo: Vec<Change>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) inodes: Vec<Inode>,
    pub(super) durable_names: BTreeMap<String, usize>,
    pub(super) cached_names: BTreeMap<String, usize>,
    pub(super) pending_names: Vec<NameChange>,
    pub(super) history: Vec<Step>,
    pub(super) faults: Vec<Fault>,
    pub(super) free_bytes: u64,
    /// Of the log, if it lies elsewhere.
    pub(super) log_free_bytes: Option<u64>,
    /// So many changes reach the disk, and none after them.
    pub(super) power_off_after: Option<usize>,
}

/// How a crash treats what is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashKind {
    /// All of it is lost.
    LoseAll,
    /// All of it is kept.
    KeepAll,
    /// All changes of files are kept, all changes of names lost.
    LoseNames,
    /// All changes of names are kept, all changes of files lost.
    LoseBytes,
    /// Each change is kept, lost or torn as the seed says.
    Random(u64),
}

pub(super) fn draw(random: &mut u64, below: u64) -> u64 {
    super::drop_rate::next_random(random) % below
}

fn write_into(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

impl Change {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(offset, data) => write_into(bytes, *offset as usize, data),
            Change::SetLength(length) => bytes.resize(*length as usize, 0),
        }
    }

    /// Applies only some of the sectors that it touches.
    pub(super) fn apply_torn(&self, bytes: &mut Vec<u8>, random: &mut u64) {
        let Change::Write(offset, data) = self else { return self.apply(bytes) };
        let (mut at, end) = (*offset as usize, *offset as usize + data.len());
        // Half of the torn writes lose their end, as a device does that writes in order.
        let ends_at = (draw(random, 2) == 0).then(|| at + draw(random, data.len() as u64 + 1) as usize);
        while at < end {
            let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
            if ends_at.map_or_else(|| draw(random, 2) == 0, |ends_at| next <= ends_at) {
                write_into(bytes, at, &data[at - *offset as usize..next - *offset as usize]);
            }
            at = next;
        }
    }
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Create(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }

    pub(super) fn is_in(&self, directory: &str) -> bool {
        let (NameChange::Create(name, _) | NameChange::Rename(_, name) | NameChange::Remove(name)) = self;
        directory_of(name) == directory
    }
}

pub(super) fn directory_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

impl Inode {
    pub(super) fn crash(&self, kind: CrashKind, random: &mut u64) -> Inode {
        let mut bytes = self.durable.clone();
        for change in self.limbo.iter().chain(&self.pending) {
            match kind {
                CrashKind::LoseAll | CrashKind::LoseBytes => {}
                CrashKind::KeepAll | CrashKind::LoseNames => change.apply(&mut bytes),
                CrashKind::Random(_) => match draw(random, 4) {
                    0 => {}
                    1 | 2 => change.apply_torn(&mut bytes, random),
                    _ => change.apply(&mut bytes),
                },
            }
        }
        Inode { durable: bytes.clone(), cached: bytes, ..Inode::default() }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.pending.push(change);
    }

    fn flush(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
    }
}

impl State {
    pub(super) fn apply(&mut self, step: Step) {
        match &mut self.power_off_after {
            Some(0) => return,
            Some(left) => *left -= 1,
            None => {}
        }
        match &step {
            Step::Write { inode, offset, bytes } => {
                self.inodes[*inode].change(Change::Write(*offset, Arc::clone(bytes)));
            }
            Step::SetLength { inode, length } => self.inodes[*inode].change(Change::SetLength(*length)),
            Step::Sync { inode } => self.inodes[*inode].flush(),
            Step::FailedSync { inode, how } => {
                let inode = &mut self.inodes[*inode];
                match how {
                    FailedSync::Kept => inode.flush(),
                    FailedSync::Lost => inode.pending.clear(),
                    FailedSync::Limbo => inode.limbo.append(&mut inode.pending),
                }
            }
            Step::Create { name, inode } => {
                self.inodes.push(Inode::default());
                self.change_names(NameChange::Create(name.clone(), *inode));
            }
            Step::Rename { from, to } => self.change_names(NameChange::Rename(from.clone(), to.clone())),
            Step::Remove { name } => self.change_names(NameChange::Remove(name.clone())),
            Step::SyncDirectory { directory } => {
                let (synced, rest) = std::mem::take(&mut self.pending_names)
                    .into_iter()
                    .partition(|change| change.is_in(directory));
                self.pending_names = rest;
                let synced: Vec<NameChange> = synced;
                synced.iter().for_each(|change| change.apply(&mut self.durable_names));
            }
        }
        self.history.push(step);
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.cached_names);
        self.pending_names.push(change);
    }

    /// The fault that is due for an operation, if any.
    pub(super) fn fault(&mut self, matches: impl Fn(Operation) -> bool) -> Option<Fault> {
        if self.power_off_after == Some(0) {
            return Some(Fault { operation: Operation::Write, after: 0, kind: io::ErrorKind::Other });
        }
        self.injected_fault(matches)
    }

    /// The one that a test has put in: a disk without power still gives what is in the cache.
    pub(super) fn injected_fault(&mut self, matches: impl Fn(Operation) -> bool) -> Option<Fault> {
        let place = self.faults.iter().position(|fault| matches(fault.operation))?;
        if self.faults[place].after > 0 {
            self.faults[place].after -= 1;
            return None;
        }
        Some(self.faults.remove(place))
    }
}
