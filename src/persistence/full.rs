//! When the disk counts as full: before it is.
//!
//! A snapshot is the only thing that gives the log's room back, and a sealed
//! segment needs a new one. So writes stop (`disk_full`; reads and deletes go
//! on) while there is still room for both:
//!
//! ```text
//! free  │  writes go on        │ hysteresis │  writes refused          0
//!       └──────────────────────┴────────────┴──────────────────────────┘
//!                        leave above    enter below
//!                                       reserve = snapshot + 1/8, spare segments, a little
//! ```
//!
//! The log and the snapshots may lie on file systems of their own: then each must have its part of the reserve.

use std::io;

use super::disk::{Disk, LOG_DIRECTORY, SNAPSHOT_DIRECTORY};

/// Segments that must fit beside a snapshot: the next one, and one to seal with.
const RESERVED_SEGMENTS: u64 = 2;
/// For what is small: the identity, directories, the file system's own books.
const RESERVED_EXTRA_BYTES: u64 = 1024 * 1024;
/// The share of a quantity that is added to it as a margin.
const MARGIN_DIVISOR: u64 = 8;

/// What must stay free for the log.
fn log_reserve_bytes(segment_bytes: u64) -> u64 {
    segment_bytes.saturating_mul(RESERVED_SEGMENTS).saturating_add(RESERVED_EXTRA_BYTES)
}

/// What must stay free for the next snapshot, which takes `snapshot_bytes`.
fn snapshot_reserve_bytes(snapshot_bytes: u64) -> u64 {
    snapshot_bytes.saturating_add(snapshot_bytes / MARGIN_DIVISOR)
}

/// Whether the room of one file system is used up, with hysteresis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Gauge {
    full: bool,
}

impl Gauge {
    /// Takes a new measurement: full below the reserve, and then until an eighth
    /// more than it is free again.
    fn measure(&mut self, free_bytes: u64, reserve_bytes: u64) -> bool {
        let leave_above = reserve_bytes.saturating_add(reserve_bytes / MARGIN_DIVISOR);
        self.full = if self.full { free_bytes <= leave_above } else { free_bytes < reserve_bytes };
        self.full
    }
}

/// Whether the disk counts as full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskGauge {
    log: Gauge,
    snapshots: Gauge,
}

/// What there was at a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Whether writes are to be refused.
    pub full: bool,
    /// What is free where the log is.
    pub log_bytes: u64,
    /// What is free where the snapshots are.
    pub snapshots_bytes: u64,
    /// What must be free for both together.
    pub reserve_bytes: u64,
}

impl DiskGauge {
    /// Whether writes are to be refused.
    pub fn is_full(&self) -> bool {
        self.log.full || self.snapshots.full
    }

    /// Measures what is free for the next snapshot, of about `snapshot_bytes`, and for segments.
    pub fn measure<D: Disk>(
        &mut self,
        disk: &D,
        snapshot_bytes: u64,
        segment_bytes: u64,
    ) -> io::Result<Room> {
        let shared = disk.shares_room(LOG_DIRECTORY, SNAPSHOT_DIRECTORY)?;
        let (for_log, for_snapshot) =
            (log_reserve_bytes(segment_bytes), snapshot_reserve_bytes(snapshot_bytes));
        let reserve_bytes = for_log.saturating_add(for_snapshot);
        let (log_bytes, snapshots_bytes) =
            (disk.free_bytes(LOG_DIRECTORY)?, disk.free_bytes(SNAPSHOT_DIRECTORY)?);
        self.log.measure(log_bytes, if shared { reserve_bytes } else { for_log });
        self.snapshots.measure(snapshots_bytes, if shared { reserve_bytes } else { for_snapshot });
        Ok(Room { full: self.is_full(), log_bytes, snapshots_bytes, reserve_bytes })
    }
}

/// When a full disk is a reason to make a snapshot: at once, and again when that has failed and the next one may fit,
/// since keys were deleted or room was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotForRoom {
    /// What was free beyond what the snapshot needed when the last one was asked for; as little as can be where that
    /// was not known.
    surplus_asked: Option<i128>,
}

impl SnapshotForRoom {
    /// Whether to ask now. `needed_bytes`: what it will take, as far as that is known; `lets_go`: behind it segments
    /// of the log could go; `is_late`: the last time is long ago, or has brought a snapshot.
    pub fn is_due(&mut self, room: &Room, needed_bytes: Option<u64>, lets_go: bool, is_late: bool) -> bool {
        if !room.full {
            self.surplus_asked = None;
            return false;
        }
        const UNKNOWN: i128 = i128::MIN / 2;
        let surplus = needed_bytes.map(|needed| i128::from(room.snapshots_bytes) - i128::from(needed));
        let step = i128::from((needed_bytes.unwrap_or(0) / MARGIN_DIVISOR).max(RESERVED_EXTRA_BYTES));
        let is_due = match (self.surplus_asked, surplus) {
            // A quota that is used up makes the disk full by turns: that is no reason to try without a pause.
            (None, _) => is_late,
            (Some(before), Some(now)) => lets_go && now >= 0 && (is_late || now - before >= step),
            (Some(_), None) => lets_go && is_late,
        };
        if is_due {
            self.surplus_asked = Some(surplus.unwrap_or(UNKNOWN));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::MemoryDisk;

    const MIB: u64 = 1 << 20;

    #[test]
    fn full_is_entered_below_the_reserve_and_left_above_it() {
        let mut gauge = Gauge::default();
        let steps =
            [(1_000, false), (800, false), (799, true), (850, true), (900, true), (901, false), (800, false)];
        for (free, full) in steps {
            assert_eq!(gauge.measure(free, 800), full, "{free} bytes free");
        }
    }

    #[test]
    fn the_reserve_holds_a_snapshot_and_two_segments() {
        let disk = MemoryDisk::new();
        let mut gauge = DiskGauge::default();
        let room = gauge.measure(&disk, 1 << 30, 64 * MIB).unwrap();
        assert_eq!(room.reserve_bytes, (1 << 30) + (1 << 27) + 2 * 64 * MIB + MIB);
        assert!(!room.full && gauge.measure(&disk, u64::MAX, u64::MAX).is_ok());
        disk.set_free_bytes(room.reserve_bytes - 1);
        assert!(DiskGauge::default().measure(&disk, 1 << 30, 64 * MIB).unwrap().full);
    }

    #[test]
    fn the_log_and_the_snapshots_are_measured_where_they_are() {
        let disk = MemoryDisk::new();
        let full = |log, snapshots| {
            disk.set_free_bytes_apart(log, snapshots);
            DiskGauge::default().measure(&disk, 800 * MIB, 64 * MIB).unwrap().full
        };
        assert!(!full(129 * MIB, 900 * MIB), "each has its own part");
        assert!(full(129 * MIB - 1, 10_000 * MIB), "the log's volume is small and full");
        assert!(full(10_000 * MIB, 900 * MIB - 1), "the snapshots' is");
    }

    #[test]
    fn a_snapshot_is_asked_for_at_once_and_again_when_it_may_fit() {
        let mut wish = SnapshotForRoom::default();
        let room = |full, free| Room { full, log_bytes: 0, snapshots_bytes: free * MIB, reserve_bytes: 0 };
        let mut due = |free, needed: u64, lets_go, is_late| {
            wish.is_due(&room(true, free), Some(needed * MIB), lets_go, is_late)
        };
        assert!(due(30, 80, true, true), "the disk has become full");
        assert!(!due(30, 80, true, true) && !due(60, 80, true, true), "it would not fit");
        assert!(due(60, 50, true, false), "keys were deleted");
        assert!(!due(60, 50, true, false) && due(60, 50, true, true), "it has failed for another reason");
        assert!(!due(500, 50, false, true), "nothing would go");
        assert!(due(100, 50, true, false), "room was given");
        assert!(!wish.is_due(&room(false, 100), None, true, true), "there is room");
        assert!(!wish.is_due(&room(true, 30), None, false, false), "a quota is full anew every two seconds");
        assert!(wish.is_due(&room(true, 30), None, false, true), "full anew");
        assert!(!wish.is_due(&room(true, 30), None, true, false), "it is under way");
        assert!(!wish.is_due(&room(true, 30), Some(80 * MIB), true, true), "it has shown what it needs");
        assert!(wish.is_due(&room(true, 30), Some(29 * MIB), true, false), "keys were deleted");
    }
}
