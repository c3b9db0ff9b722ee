//! A disk in memory that remembers what is durable, what is not, and what was
//! done: every state that a crash can leave can be made from it.
//!
//! ```text
//! write, set_length ──► pending of the file ── sync ──► durable bytes
//! create, rename, remove ──► pending of the directory ── sync_directory ──► durable names
//! ```
//!
//! A crash keeps the durable part and any part of the pending one: writes are
//! kept, lost or torn at sectors of 512 bytes; changes of names are kept or lost
//! one by one. [`MemoryDisk::crash`] draws one such state. A process that is
//! killed loses nothing ([`MemoryDisk::clone_state`]): the next one reads the
//! page cache, pending or not.
//!
//! A sync that fails does one of three things to what was pending
//! ([`FailedSync`]); in all three the cache calls the bytes clean afterwards, so
//! that a later sync doesn't write them.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, LOG_DIRECTORY, SyncPurpose};
use super::memory_state::{CrashKind, Fault, Inode, Operation, State, Step, directory_of, draw};

/// A disk in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryFile {
    inode: usize,
}

impl Default for MemoryDisk {
    fn default() -> MemoryDisk {
        MemoryDisk::new()
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::from_state(State { free_bytes: u64::MAX, ..State::default() })
    }

    fn from_state(state: State) -> MemoryDisk {
        MemoryDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What [`Disk::free_bytes`] says.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.state().free_bytes = bytes;
    }

    /// The same, with the log on a disk of its own.
    pub fn set_free_bytes_apart(&self, log: u64, others: u64) {
        let mut state = self.state();
        (state.log_free_bytes, state.free_bytes) = (Some(log), others);
    }

    /// Lets an operation fail.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Forgets the faults that have not happened.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// The power fails after so many more changes: nothing that is done from then
    /// on reaches the disk, and it fails. Made for a process that is about to be
    /// given up; what there is afterwards, [`MemoryDisk::crash`] says.
    pub fn power_off_after(&self, changes: usize) {
        self.state().power_off_after = Some(changes);
    }

    /// How many operations have changed the disk: each is a moment at which it can crash.
    pub fn steps(&self) -> usize {
        self.state().history.len()
    }

    /// How often a directory was synced.
    #[cfg(test)]
    pub(super) fn syncs_of(&self, directory: &str) -> usize {
        let synced = |step: &&Step| matches!(step, Step::SyncDirectory { directory: of } if of == directory);
        self.state().history.iter().filter(synced).count()
    }

    /// The disk as it was after the first `steps` operations, with what was
    /// pending then. The disk must have begun empty.
    pub fn at_step(&self, steps: usize) -> MemoryDisk {
        let replay = MemoryDisk::new();
        {
            let state = self.state();
            let mut replayed = replay.state();
            state.history[..steps].iter().for_each(|step| replayed.apply(step.clone()));
        }
        replay
    }

    /// The disk one operation later than `other`, which [`MemoryDisk::at_step`]
    /// made: cheaper than making it anew.
    pub fn advance(&self, other: &MemoryDisk) {
        let mut other = other.state();
        let step = self.state().history[other.history.len()].clone();
        other.apply(step);
    }

    /// Whether anything is pending, so that crashes differ.
    pub fn has_pending(&self) -> bool {
        let state = self.state();
        !state.pending_names.is_empty()
            || state.inodes.iter().any(|inode| !inode.pending.is_empty() || !inode.limbo.is_empty())
    }

    /// The same state in a disk of its own: a process that was killed.
    pub fn clone_state(&self) -> MemoryDisk {
        let mut state = self.state().clone();
        state.faults.clear();
        MemoryDisk::from_state(state)
    }

    /// The disk after a crash.
    pub fn crash(&self, kind: CrashKind) -> MemoryDisk {
        let state = self.state();
        let mut random = if let CrashKind::Random(seed) = kind { seed } else { 0 };
        let inodes = state.inodes.iter().map(|inode| inode.crash(kind, &mut random)).collect();
        let mut names = state.durable_names.clone();
        for change in &state.pending_names {
            let keeps = match kind {
                CrashKind::LoseAll | CrashKind::LoseNames => false,
                CrashKind::KeepAll | CrashKind::LoseBytes => true,
                CrashKind::Random(_) => draw(&mut random, 2) == 0,
            };
            if keeps {
                change.apply(&mut names);
            }
        }
        MemoryDisk::from_state(State {
            inodes,
            durable_names: names.clone(),
            cached_names: names,
            free_bytes: state.free_bytes,
            ..State::default()
        })
    }

    /// A file's bytes as a process sees them.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.cached_names.get(name).map(|&inode| state.inodes[inode].cached.clone())
    }

    /// Replaces a file's bytes, durably, past everything: damage.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        if let Some(&inode) = state.cached_names.get(name) {
            state.inodes[inode] = Inode { durable: bytes.clone(), cached: bytes, ..Inode::default() };
        }
    }
}

fn injected(fault: Fault) -> io::Error {
    io::Error::new(fault.kind, "injected")
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, name.to_string())
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        let names = state.cached_names.keys().filter(|name| directory_of(name) == directory);
        Ok(names.map(|name| name.rsplit('/').next().unwrap_or(name).to_string()).collect())
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.state();
        if let Some(fault) = state.injected_fault(|operation| operation == Operation::Open) {
            return Err(injected(fault));
        }
        let inode = state.cached_names.get(name).copied();
        inode.map(|inode| MemoryFile { inode }).ok_or_else(|| not_found(name))
    }

    fn create_new(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.state();
        if state.cached_names.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, name.to_string()));
        }
        if let Some(fault) = state.fault(|operation| operation == Operation::Create) {
            return Err(injected(fault));
        }
        let inode = state.inodes.len();
        state.apply(Step::Create { name: name.to_string(), inode });
        Ok(MemoryFile { inode })
    }

    fn read_at(&self, file: &MemoryFile, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        if let Some(fault) = state.injected_fault(|operation| operation == Operation::Read) {
            return Err(injected(fault));
        }
        let bytes = state.inodes[file.inode].cached.get(offset as usize..).unwrap_or(&[]);
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_at(&self, file: &mut MemoryFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let fault = state.fault(|operation| operation == Operation::Write);
        let written = if fault.is_some() { bytes.len() / 2 } else { bytes.len() };
        state.apply(Step::Write { inode: file.inode, offset, bytes: bytes[..written].into() });
        fault.map_or(Ok(()), |fault| Err(injected(fault)))
    }

    fn sync(&self, file: &mut MemoryFile, purpose: SyncPurpose) -> io::Result<()> {
        let mut state = self.state();
        let fault =
            state.fault(|operation| matches!(operation, Operation::Sync(wanted, _) if wanted == purpose));
        match fault {
            Some(fault) => {
                if let Operation::Sync(_, how) = fault.operation {
                    state.apply(Step::FailedSync { inode: file.inode, how });
                }
                Err(injected(fault))
            }
            None => {
                state.apply(Step::Sync { inode: file.inode });
                Ok(())
            }
        }
    }

    fn set_length(&self, file: &mut MemoryFile, length: u64) -> io::Result<()> {
        self.state().apply(Step::SetLength { inode: file.inode, length });
        Ok(())
    }

    fn length(&self, file: &MemoryFile) -> io::Result<u64> {
        Ok(self.state().inodes[file.inode].cached.len() as u64)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        if !state.cached_names.contains_key(from) {
            return Err(not_found(from));
        }
        if let Some(fault) = state.fault(|operation| operation == Operation::Rename) {
            return Err(injected(fault));
        }
        state.apply(Step::Rename { from: from.to_string(), to: to.to_string() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if !state.cached_names.contains_key(name) {
            return Err(not_found(name));
        }
        state.apply(Step::Remove { name: name.to_string() });
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let mut state = self.state();
        if let Some(fault) = state.fault(|operation| operation == Operation::SyncDirectory) {
            return Err(injected(fault));
        }
        state.apply(Step::SyncDirectory { directory: directory.to_string() });
        Ok(())
    }

    fn free_bytes(&self, directory: &str) -> io::Result<u64> {
        let state = self.state();
        Ok(state.log_free_bytes.filter(|_| directory == LOG_DIRECTORY).unwrap_or(state.free_bytes))
    }

    fn shares_room(&self, one: &str, other: &str) -> io::Result<bool> {
        let apart = self.state().log_free_bytes.is_some();
        Ok(!apart || (one == LOG_DIRECTORY) == (other == LOG_DIRECTORY))
    }
}
