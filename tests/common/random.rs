//! Randomness that a failed run can be repeated with.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;

use datastore::persistence::next_random;

/// Takes the seed from this variable when it is set.
pub const SEED_VARIABLE: &str = "DATASTORE_TEST_SEED";

/// The run's seed, printed so that a failure can be repeated.
pub fn seed() -> u64 {
    let given = std::env::var(SEED_VARIABLE).ok();
    let seed = match given {
        Some(text) => text.parse().expect("the seed is a number"),
        None => RandomState::new().build_hasher().finish(),
    };
    eprintln!("{SEED_VARIABLE}={seed}");
    seed
}

/// SplitMix64.
pub struct Random(u64);

impl Random {
    /// The same seed and stream give the same numbers.
    pub fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    /// A sequence of the run's seed.
    pub fn seeded() -> Random {
        Random::new(seed(), 0)
    }

    /// A sequence of its own, for another thread.
    pub fn fork(&mut self) -> Random {
        Random(self.next())
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        next_random(&mut self.0)
    }

    /// From 0 to `bound` − 1.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A number of the range.
    pub fn of(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// One of these.
    pub fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }
}
