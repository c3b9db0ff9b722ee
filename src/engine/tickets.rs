//! The tickets of one key's writes that are on their way to the disk.
//!
//! Almost always there is one, and almost always the oldest is settled first. But a
//! client may send very many writes of one key at once, so that neither taking the
//! oldest nor one behind it may cost more for it.

use smallvec::SmallVec;

/// From so many settled tickets on their room is given back, once they are half of all.
const SETTLED_MIN: usize = 16;

/// Tickets in ascending order.
#[derive(Default)]
pub(super) struct Tickets {
    /// Those settled, which are still to be removed, and behind them those outstanding.
    tickets: SmallVec<[u64; 2]>,
    /// How many of them are settled.
    settled: usize,
}

impl Tickets {
    /// A ticket above all that were here.
    pub(super) fn push(&mut self, ticket: u64) {
        debug_assert!(self.tickets.last().is_none_or(|&last| last < ticket));
        self.tickets.push(ticket);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.settled == self.tickets.len()
    }

    /// The oldest that is outstanding.
    pub(super) fn first(&self) -> Option<u64> {
        self.tickets.get(self.settled).copied()
    }

    /// This one is settled. The oldest costs a step, whatever the number of the others.
    pub(super) fn settle(&mut self, ticket: u64) {
        if self.first() == Some(ticket) {
            self.settled += 1;
        } else if let Ok(place) = self.tickets[self.settled..].binary_search(&ticket) {
            // A part of a multi-key write is ahead of it, still to meet the others: moving what is ahead
            // costs as many steps as there are such parts, of which each connection has one.
            let place = self.settled + place;
            self.tickets[self.settled..=place].rotate_right(1);
            self.settled += 1;
        }
        if self.is_empty() {
            self.tickets.clear();
            self.settled = 0;
        } else if self.settled >= SETTLED_MIN && self.settled * 2 >= self.tickets.len() {
            self.tickets.drain(..self.settled);
            self.tickets.shrink_to_fit();
            self.settled = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_settled_in_any_order() {
        let mut tickets = Tickets::default();
        (1..=100).for_each(|ticket| tickets.push(ticket));
        for settled in (2..=100).step_by(2).chain([1, 1, 1_000]) {
            tickets.settle(settled);
        }
        assert_eq!((tickets.first(), tickets.is_empty()), (Some(3), false));
        (2..=48).rev().for_each(|half| tickets.settle(2 * half + 1));
        tickets.settle(3);
        tickets.push(200);
        assert_eq!(tickets.first(), Some(99));
        tickets.settle(99);
        tickets.settle(200);
        assert_eq!((tickets.first(), tickets.is_empty()), (None, true));
    }

    /// Where each of these costs as much as there are others, this takes minutes.
    #[test]
    fn a_million_tickets_of_one_key_cost_a_step_each() {
        let mut tickets = Tickets::default();
        // A part that hasn't met the others is ahead of all.
        (0..1_000_000).for_each(|ticket| tickets.push(ticket));
        (1..1_000_000).for_each(|ticket| tickets.settle(ticket));
        assert_eq!(tickets.first(), Some(0));
        assert!(tickets.tickets.capacity() < 64, "{}", tickets.tickets.capacity());
    }
}
