//! Random choices that can be repeated from a printed seed.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

/// The environment variable that repeats a run.
const SEED_VARIABLE: &str = "DATASTORE_TEST_SEED";

/// SplitMix64: every seed gives another sequence.
pub struct Random(u64);

impl Random {
    /// A sequence of the seed in `DATASTORE_TEST_SEED`, or of a fresh one; it is printed either way.
    pub fn seeded(test: &str) -> Random {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(given) => given.parse().expect("a seed is a number"),
            Err(_) => RandomState::new().hash_one(test),
        };
        println!("{test}: {SEED_VARIABLE}={seed}");
        Random(seed)
    }

    /// A sequence of its own, for another thread.
    pub fn fork(&mut self) -> Random {
        Random(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of the range.
    pub fn of(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }
}
