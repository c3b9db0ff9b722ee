//! What a search may still cost.
//!
//! A search over many entries asks now and then whether anyone still wants its
//! answer, and gives up when nobody does. Whoever runs it says so by a function:
//! nothing here has a clock.

use std::cell::Cell;

/// The work of one search, in steps: one is about a posting, a key or 64 bytes of a vector.
pub struct Budget<'a> {
    wanted: &'a dyn Fn() -> bool,
    steps: Cell<u64>,
    ask_at: Cell<u64>,
}

/// Nobody wants the answer any more: there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GivenUp;

impl<'a> Budget<'a> {
    /// How many steps are taken before `wanted` is asked again: below a millisecond.
    pub const ASK_EVERY_STEPS: u64 = 1 << 14;

    /// A search that goes on as long as `wanted` says so.
    pub fn new(wanted: &'a dyn Fn() -> bool) -> Budget<'a> {
        Budget { wanted, steps: Cell::new(0), ask_at: Cell::new(Budget::ASK_EVERY_STEPS) }
    }

    /// A search that is done whatever it costs.
    pub fn unlimited() -> Budget<'static> {
        Budget::new(&|| true)
    }

    /// Notes work that is done or about to be done.
    pub fn spend(&self, steps: u64) -> Result<(), GivenUp> {
        self.steps.set(self.steps.get() + steps);
        if self.steps.get() < self.ask_at.get() {
            return Ok(());
        }
        self.ask_at.set(self.steps.get() + Budget::ASK_EVERY_STEPS);
        if (self.wanted)() { Ok(()) } else { Err(GivenUp) }
    }

    /// The work so far.
    pub fn steps(&self) -> u64 {
        self.steps.get()
    }
}
