//! What each kind of place keeps in memory, in bytes: what `stats` shows of it.
//!
//! Whoever keeps something says how much, and takes it back when it is gone; nobody
//! walks over anything to answer `stats`. Together with the entries and the indexes
//! the figures explain what the system says of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// What all places of one kind keep together, in bytes.
#[derive(Debug, Default)]
pub struct Held(AtomicUsize);

impl Held {
    /// How much it is.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// The share of a place of this kind, which keeps nothing yet.
    pub fn share(self: &Arc<Held>) -> Share {
        Share { held: self.clone(), bytes: 0 }
    }

    /// The same bytes, counted as long as anyone has some of them.
    pub fn count(self: &Arc<Held>, bytes: Bytes) -> Bytes {
        let mut share = self.share();
        share.keeps(bytes.len() + COUNTED_OVERHEAD_BYTES);
        Bytes::from_owner(Counted { bytes, _share: share })
    }
}

/// What counted bytes cost beside themselves: the count, its handle, their own.
const COUNTED_OVERHEAD_BYTES: usize = 96;

/// One place's share of a figure; it goes with the place.
#[derive(Debug)]
pub struct Share {
    held: Arc<Held>,
    bytes: usize,
}

impl Share {
    /// It keeps so much now.
    pub fn keeps(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.held.0.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            self.held.0.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.keeps(0);
    }
}

/// What the system says the process occupies in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resident {
    /// All of it.
    pub bytes: u64,
    /// Of that, the program's own file and its libraries, as far as they were needed.
    pub program_bytes: u64,
}

impl Resident {
    /// Now; `None` where the system doesn't say.
    pub fn now() -> Option<Resident> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kib * 1024)
        };
        Some(Resident { bytes: bytes("VmRSS:")?, program_bytes: bytes("RssFile:")? })
    }

    /// What is not in a file.
    pub fn anonymous_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.program_bytes)
    }
}

struct Counted {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_as_long_as_anyone_has_some_of_them() {
        let held = Arc::new(Held::default());
        let bytes = held.count(Bytes::from(vec![7; 1000]));
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_eq!((&part[..], held.bytes()), (&[7; 10][..], 1000 + COUNTED_OVERHEAD_BYTES));
        drop(part);
        assert_eq!(held.bytes(), 0);
    }

    #[test]
    fn a_share_that_goes_keeps_nothing() {
        let held = Arc::new(Held::default());
        let (mut one, mut other) = (held.share(), held.share());
        one.keeps(100);
        other.keeps(30);
        one.keeps(50);
        assert_eq!(held.bytes(), 80);
        drop(one);
        assert_eq!(held.bytes(), 30);
    }
}
