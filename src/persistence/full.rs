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

/// Segments that must fit beside a snapshot: the next one, and one to seal with.
const RESERVED_SEGMENTS: u64 = 2;
/// For what is small: the identity, directories, the file system's own books.
const RESERVED_EXTRA_BYTES: u64 = 1024 * 1024;
/// The share of a quantity that is added to it as a margin.
const MARGIN_DIVISOR: u64 = 8;

/// What must stay free. `snapshot_bytes` is an estimate of the next snapshot:
/// the last one's size, or what the entries occupy in memory.
pub fn reserve_bytes(snapshot_bytes: u64, segment_bytes: u64) -> u64 {
    snapshot_bytes
        .saturating_add(snapshot_bytes / MARGIN_DIVISOR)
        .saturating_add(segment_bytes.saturating_mul(RESERVED_SEGMENTS))
        .saturating_add(RESERVED_EXTRA_BYTES)
}

/// Whether the disk counts as full, with hysteresis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskGauge {
    full: bool,
}

impl DiskGauge {
    /// Whether writes are to be refused.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Takes a new measurement: full below the reserve, and then until an eighth
    /// more than it is free again.
    pub fn measure(&mut self, free_bytes: u64, reserve_bytes: u64) -> bool {
        let leave_above = reserve_bytes.saturating_add(reserve_bytes / MARGIN_DIVISOR);
        self.full = if self.full { free_bytes <= leave_above } else { free_bytes < reserve_bytes };
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_is_entered_below_the_reserve_and_left_above_it() {
        let mut gauge = DiskGauge::default();
        let steps =
            [(1_000, false), (800, false), (799, true), (850, true), (900, true), (901, false), (800, false)];
        for (free, full) in steps {
            assert_eq!(gauge.measure(free, 800), full, "{free} bytes free");
            assert_eq!(gauge.is_full(), full);
        }
    }

    #[test]
    fn the_reserve_holds_a_snapshot_and_two_segments() {
        assert!(reserve_bytes(1 << 30, 64 << 20) > (1 << 30) + 2 * (64 << 20));
        assert_eq!(reserve_bytes(u64::MAX, u64::MAX), u64::MAX);
    }
}
