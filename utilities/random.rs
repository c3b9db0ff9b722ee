//! Numbers that look random and come again from their seed.

use datastore::persistence::next_random;

/// SplitMix64: a few instructions a number.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A sequence for another thread.
    pub fn fork(&mut self) -> Random {
        Random(self.bits())
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        next_random(&mut self.0)
    }

    /// A number below `bound`, by multiplication: the bias is beyond noticing.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// Whether something of this share happens.
    pub fn happens(&mut self, share: f64) -> bool {
        ((self.bits() >> 11) as f64) < share * (1u64 << 53) as f64
    }
}
