//! `--drop-rate`: a disk whose syncs of appended frames fail at random.
//!
//! Half of the faults lose the bytes written since the file's last sync (what
//! was there before is put back), half of them keep the bytes: a sync that
//! failed says nothing about which. Only [`SyncPurpose::Append`] is faulted, so
//! that the node can do what it does about it: seal, refuse, go on.

use std::io;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use super::disk::{Disk, SyncPurpose, read_up_to};

/// A disk with faults.
pub struct FaultyDisk<D: Disk> {
    inner: D,
    rate: f64,
    state: Mutex<State>,
}

struct State {
    random: u64,
    faults: DropFigures,
}

/// What a [`FaultyDisk`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropFigures {
    /// Syncs of appended frames.
    pub syncs: u64,
    /// Those that failed and lost the bytes.
    pub lost: u64,
    /// Those that failed and kept the bytes.
    pub kept: u64,
}

/// A file, and what stood where it was written since its last sync.
pub struct FaultyFile<F> {
    inner: F,
    overwritten: Vec<(u64, Vec<u8>)>,
}

impl<D: Disk> FaultyDisk<D> {
    /// Faults a share `rate` (0 to 1) of the syncs; `seed` decides which.
    pub fn new(inner: D, rate: f64, seed: u64) -> FaultyDisk<D> {
        let state = State { random: seed, faults: DropFigures::default() };
        FaultyDisk { inner, rate, state: Mutex::new(state) }
    }

    /// How often it faulted.
    pub fn figures(&self) -> DropFigures {
        self.state().faults
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is two plain numbers: a panic elsewhere can't have left it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: no fault. `Some(lost)`: a fault.
    fn draw(&self) -> Option<bool> {
        let mut state = self.state();
        state.faults.syncs += 1;
        if unit(next_random(&mut state.random)) >= self.rate {
            return None;
        }
        let lost = next_random(&mut state.random) & 1 == 0;
        if lost {
            state.faults.lost += 1;
        } else {
            state.faults.kept += 1;
        }
        Some(lost)
    }
}

/// SplitMix64: every state gives another number, for 2^64 of them. Good enough to
/// decide which sync fails and to tell segments apart; not for secrets.
pub fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

impl<D: Disk> Disk for FaultyDisk<D> {
    type File = FaultyFile<D::File>;

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.inner.list(directory)
    }

    fn open(&self, name: &str) -> io::Result<Self::File> {
        Ok(FaultyFile { inner: self.inner.open(name)?, overwritten: Vec::new() })
    }

    fn create_new(&self, name: &str) -> io::Result<Self::File> {
        Ok(FaultyFile { inner: self.inner.create_new(name)?, overwritten: Vec::new() })
    }

    fn read_at(&self, file: &Self::File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(&file.inner, offset, into)
    }

    fn write_at(&self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.rate > 0.0 {
            let mut before = vec![0; bytes.len()];
            read_up_to(&self.inner, &file.inner, offset, &mut before)?;
            file.overwritten.push((offset, before));
        }
        self.inner.write_at(&mut file.inner, offset, bytes)
    }

    fn sync(&self, file: &mut Self::File, purpose: SyncPurpose) -> io::Result<()> {
        if purpose == SyncPurpose::Append
            && let Some(lost) = self.draw()
        {
            if lost {
                for (offset, before) in file.overwritten.drain(..).rev() {
                    self.inner.write_at(&mut file.inner, offset, &before)?;
                }
            }
            file.overwritten.clear();
            // In either half the disk gets what the file now says, so that a
            // crash can't undo the draw.
            self.inner.sync(&mut file.inner, SyncPurpose::Other)?;
            return Err(io::Error::other(if lost {
                "sync faulted on purpose, bytes lost"
            } else {
                "sync faulted on purpose, bytes kept"
            }));
        }
        file.overwritten.clear();
        self.inner.sync(&mut file.inner, purpose)
    }

    fn set_length(&self, file: &mut Self::File, length: u64) -> io::Result<()> {
        self.inner.set_length(&mut file.inner, length)
    }

    fn length(&self, file: &Self::File) -> io::Result<u64> {
        self.inner.length(&file.inner)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.inner.sync_directory(directory)
    }

    fn free_bytes(&self, directory: &str) -> io::Result<u64> {
        self.inner.free_bytes(directory)
    }

    fn shares_room(&self, one: &str, other: &str) -> io::Result<bool> {
        self.inner.shares_room(one, other)
    }
}
