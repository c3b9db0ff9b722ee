//! The best few of many: a bounded heap in the one order of all ranked results,
//! score descending, then key ascending.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::engine::Entry;

/// An entry with its score.
#[derive(Clone, Debug)]
pub struct Hit {
    /// Higher is better.
    pub score: f64,
    /// What was found.
    pub entry: Entry,
}

/// The order of ranked results: the better one is the lesser.
pub fn by_rank(left: (f64, &[u8]), right: (f64, &[u8])) -> Ordering {
    right.0.total_cmp(&left.0).then_with(|| left.1.cmp(right.1))
}

#[derive(Debug)]
struct Ranked(f64, Entry);

impl Ranked {
    fn rank(&self) -> (f64, &[u8]) {
        (self.0, self.1.key())
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        by_rank(self.rank(), other.rank())
    }
}

/// Keeps the best `limit` of all that it is offered.
#[derive(Debug)]
pub(super) struct Top {
    limit: usize,
    /// The worst one is on top.
    heap: BinaryHeap<Ranked>,
    /// Whether something that qualified had to go.
    overflowed: bool,
}

impl Top {
    pub(super) fn new(limit: usize) -> Top {
        Top { limit, heap: BinaryHeap::with_capacity(limit.min(1024)), overflowed: false }
    }

    /// The score below which an offer is in vain.
    pub(super) fn floor(&self) -> f64 {
        match self.heap.peek() {
            Some(worst) if self.heap.len() >= self.limit => worst.0,
            _ => f64::NEG_INFINITY,
        }
    }

    pub(super) fn offer(&mut self, score: f64, entry: &Entry) {
        if self.heap.len() < self.limit {
            self.heap.push(Ranked(score, entry.clone()));
            return;
        }
        self.overflowed = true;
        if let Some(mut worst) = self.heap.peek_mut()
            && by_rank((score, entry.key()), worst.rank()).is_lt()
        {
            *worst = Ranked(score, entry.clone());
        }
    }

    /// Notes that something with a score below the floor was passed over.
    pub(super) fn pass_over(&mut self) {
        self.overflowed = true;
    }

    /// The best, in order, and whether there was more than fits.
    pub(super) fn finish(self) -> (Vec<Hit>, bool) {
        let hits = self.heap.into_sorted_vec();
        (hits.into_iter().map(|Ranked(score, entry)| Hit { score, entry }).collect(), self.overflowed)
    }
}
