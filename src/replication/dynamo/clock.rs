//! The hybrid clock: real time as long as it advances, and a count where it doesn't.
//!
//! ```text
//!   63                               16 15              0
//!   │ milliseconds since 1970, 48 bits │ counter, 16 bits │
//! ```
//!
//! A stamp is above every time that this node has stamped or seen, so that a write
//! stands above all that its node knew, whatever the real clocks say. That is what
//! keeps a later write of a client from losing to an earlier one.
//!
//! A clock that is far ahead would draw all others along: entries and vectors from
//! more than [`SKEW_MAX_MS`] ahead are held back before they come here.

/// Real clocks may differ by so much; beyond it entries are held back, and writes refused.
pub const SKEW_MAX_MS: u64 = 500;

const COUNTER_BITS: u32 = 16;

/// A node's clock. Real time is an argument.
#[derive(Clone, Copy, Debug, Default)]
pub struct HybridClock {
    last: u64,
}

impl HybridClock {
    /// Stamps `count` requests, one after the other: gives the first one's time.
    pub fn stamp(&mut self, now_ms: u64, count: u32) -> u64 {
        let first = (now_ms << COUNTER_BITS).max(self.last + 1);
        self.last = first + u64::from(count.max(1)) - 1;
        first
    }

    /// Someone else has stamped this: what is stamped from now on is above it.
    pub fn observe(&mut self, time: u64) {
        self.last = self.last.max(time);
    }

    /// The last time that was stamped or seen.
    pub fn last(&self) -> u64 {
        self.last
    }
}

/// The real time that a stamp was made at, at the latest.
pub fn milliseconds(time: u64) -> u64 {
    time >> COUNTER_BITS
}

/// Whether a stamp is from so far ahead of this node's clock that it has to wait.
pub fn is_ahead(time: u64, now_ms: u64) -> bool {
    milliseconds(time) > now_ms + SKEW_MAX_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back_and_stands_above_all_that_it_has_seen() {
        let mut clock = HybridClock::default();
        let first = clock.stamp(1_000, 3);
        assert_eq!((milliseconds(first), clock.last()), (1_000, first + 2));
        assert_eq!(clock.stamp(900, 1), first + 3, "real time went back");
        clock.observe(2_000 << COUNTER_BITS);
        assert_eq!(clock.stamp(1_001, 1), (2_000 << COUNTER_BITS) + 1);
        assert_eq!(clock.stamp(3_000, 1), 3_000 << COUNTER_BITS);
    }

    #[test]
    fn a_count_that_runs_over_goes_on_in_the_next_millisecond() {
        let mut clock = HybridClock::default();
        let first = clock.stamp(7, 70_000);
        assert_eq!(milliseconds(first + 69_999), 8);
        assert!(clock.stamp(7, 1) > first + 69_999);
    }

    #[test]
    fn what_is_ahead_by_more_than_the_bound_waits() {
        assert!(!is_ahead((1_500 << COUNTER_BITS) | 9, 1_000) && is_ahead(1_501 << COUNTER_BITS, 1_000));
    }
}
