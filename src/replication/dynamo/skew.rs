//! Whose clock is wrong.
//!
//! Peers say with each pulse what time it is. What a pulse takes on its way, or waits
//! in a queue, makes its sender seem behind; so the latest of a few seconds counts.
//! With three or more nodes the median is right; with two nobody can tell.

use std::collections::{BTreeMap, VecDeque};

use super::clock::SKEW_MAX_MS;
use crate::replication::message::NodeId;

/// For how many ticks a pulse counts.
const KEPT_TICKS: u64 = 60;

/// What the peers' clocks say.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    offsets: BTreeMap<NodeId, VecDeque<(u64, i64)>>,
}

/// How this node's clock stands to the others'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skew {
    /// By how many milliseconds it is ahead of the median; negative: behind.
    pub ahead_ms: i64,
    /// It is so far from it that others must be right.
    pub is_wrong: bool,
    /// The only other clock is that far away.
    pub is_doubtful: bool,
}

impl Clocks {
    /// A peer's clock is ahead of this node's by so much.
    pub fn heard(&mut self, from: NodeId, tick: u64, ahead_ms: i64) {
        self.offsets.entry(from).or_default().push_back((tick, ahead_ms));
    }

    /// A peer counts no more.
    pub fn forget(&mut self, peer: NodeId) {
        self.offsets.remove(&peer);
    }

    /// How this node's clock stands at this tick.
    pub fn skew(&mut self, tick: u64) -> Skew {
        let mut offsets: Vec<i64> = vec![0];
        for heard in self.offsets.values_mut() {
            while heard.front().is_some_and(|(at, _)| at + KEPT_TICKS < tick) {
                heard.pop_front();
            }
            offsets.extend(heard.iter().map(|(_, ahead)| *ahead).max());
        }
        offsets.sort_unstable();
        let middle = offsets.len() / 2;
        let median = match offsets.len() % 2 {
            1 => offsets[middle],
            _ => (offsets[middle - 1] + offsets[middle]) / 2,
        };
        let is_far = |by: i64| by.unsigned_abs() > SKEW_MAX_MS;
        let other = offsets.iter().find(|offset| **offset != 0).copied().unwrap_or(0);
        Skew {
            ahead_ms: -median,
            is_wrong: offsets.len() >= 3 && is_far(median),
            is_doubtful: offsets.len() == 2 && is_far(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_is_far_from_the_median_is_wrong() {
        let mut clocks = Clocks::default();
        clocks.heard(2, 1, -10_000);
        assert_eq!(clocks.skew(1), Skew { ahead_ms: 5_000, is_wrong: false, is_doubtful: true });
        clocks.heard(3, 1, -10_001);
        let skew = clocks.skew(1);
        assert!(skew.is_wrong && skew.ahead_ms == 10_000);
        let mut right = Clocks::default();
        right.heard(2, 1, 10_000);
        right.heard(3, 1, 3);
        assert_eq!(right.skew(1), Skew { ahead_ms: -3, is_wrong: false, is_doubtful: false });
    }

    #[test]
    fn a_pulse_that_was_late_doesn_t_count_beside_one_in_time_and_old_ones_are_forgotten() {
        let mut clocks = Clocks::default();
        for peer in [2, 3] {
            clocks.heard(peer, 1, -1);
            clocks.heard(peer, 2, -3_000);
        }
        assert!(!clocks.skew(3).is_wrong);
        assert!(clocks.skew(1 + KEPT_TICKS + 1).is_wrong, "only the late one is left");
        assert_eq!(clocks.skew(1_000), Skew::default());
    }
}
