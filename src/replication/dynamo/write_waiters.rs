//! Those who wait until so many have a write, or this node has it.
//!
//! What someone has of an origin is all up to a time. So of those who wait for writes of one
//! origin, in the same number of places, the earliest write's are answered first, and as long
//! as they aren't, nobody else need be looked at: however many wait, a look costs little.

use std::collections::BTreeMap;

use super::vector::Origin;
use crate::version::Version;

/// By a write's time and a number of their own, those who wait for it, until when.
type Group<D, T> = BTreeMap<(u64, u64), (D, T)>;

/// Who waits: `T` each, until the time `D`.
pub struct WriteWaiters<D, T> {
    /// By the write's origin and by how many must have it.
    waiting: BTreeMap<(Origin, usize), Group<D, T>>,
    /// Where each is, by when it is given up.
    due: BTreeMap<(D, u64), (usize, Version)>,
    next_number: u64,
}

impl<D: Ord + Copy, T> Default for WriteWaiters<D, T> {
    fn default() -> Self {
        WriteWaiters { waiting: BTreeMap::new(), due: BTreeMap::new(), next_number: 0 }
    }
}

impl<D: Ord + Copy, T> WriteWaiters<D, T> {
    /// Waits until `wanted` have this write, or until it is `due`.
    pub fn push(&mut self, wanted: usize, version: Version, due: D, who: T) {
        let number = self.next_number;
        self.next_number += 1;
        let group = self.waiting.entry((version.ordinal, wanted)).or_default();
        group.insert((version.index, number), (due, who));
        self.due.insert((due, number), (wanted, version));
    }

    /// Takes out those whose write so many have; `has` says it of a write and a number. Only these origins are
    /// looked at, since clients may name any, and very many, that no node has ever had.
    pub fn ready(
        &mut self,
        origins: impl Iterator<Item = Origin>,
        has: impl Fn(Version, usize) -> bool,
    ) -> Vec<T> {
        let mut ready = Vec::new();
        for origin in origins {
            let groups = self.waiting.range_mut((origin, 0)..=(origin, usize::MAX));
            let mut empty = Vec::new();
            for (&(_, wanted), group) in groups {
                while let Some(first) = group.first_entry() {
                    let (time, number) = *first.key();
                    if !has(Version { index: time, ordinal: origin }, wanted) {
                        break;
                    }
                    let (due, who) = first.remove();
                    self.due.remove(&(due, number));
                    ready.push(who);
                }
                if group.is_empty() {
                    empty.push((origin, wanted));
                }
            }
            for place in empty {
                self.waiting.remove(&place);
            }
        }
        ready
    }

    /// Takes out those who have waited for too long, with what they waited for.
    pub fn late(&mut self, now: D) -> Vec<(usize, Version, T)> {
        let mut late = Vec::new();
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now) {
            let (_, number) = *first.key();
            let (wanted, version) = first.remove();
            let place = (version.ordinal, wanted);
            if let Some(group) = self.waiting.get_mut(&place) {
                let who = group.remove(&(version.index, number));
                late.extend(who.map(|(_, who)| (wanted, version, who)));
                if group.is_empty() {
                    self.waiting.remove(&place);
                }
            }
        }
        late
    }

    /// What they occupy, in bytes; a tree's nodes are half full at the least.
    pub fn memory_bytes(&self) -> usize {
        let one = size_of::<((u64, u64), (D, T))>() + size_of::<((D, u64), (usize, Version))>();
        2 * self.due.len() * one
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn version(index: u64, ordinal: u32) -> Version {
        Version { index, ordinal }
    }

    #[test]
    fn those_whose_write_is_there_are_answered_and_the_others_when_they_are_late() {
        let mut waiters: WriteWaiters<u64, &str> = WriteWaiters::default();
        waiters.push(2, version(30, 1), 5, "third");
        waiters.push(2, version(10, 1), 6, "first");
        waiters.push(3, version(10, 1), 5, "three copies");
        waiters.push(2, version(10, 2), 7, "another origin");
        // Two have the first origin's writes up to 20.
        let has = |version: Version, wanted| version.ordinal == 1 && version.index <= 20 && wanted <= 2;
        assert_eq!(waiters.ready([1, 2].into_iter(), has), ["first"]);
        assert_eq!(waiters.late(4), []);
        let late: Vec<&str> = waiters.late(6).into_iter().map(|(_, _, who)| who).collect();
        assert_eq!(late, ["third", "three copies"]);
        assert_eq!(waiters.late(9), [(2, version(10, 2), "another origin")]);
        assert_eq!((waiters.memory_bytes(), waiters.waiting.len()), (0, 0));
    }

    #[test]
    fn a_look_costs_no_more_when_very_many_wait() {
        let mut waiters: WriteWaiters<u64, u64> = WriteWaiters::default();
        let looks = Cell::new(0);
        for write in 0..10_000 {
            waiters.push(2, version(write, 7), write, write);
            let ready = waiters.ready([7].into_iter(), |_, _| {
                looks.set(looks.get() + 1);
                false
            });
            assert!(ready.is_empty());
        }
        assert_eq!(looks.get(), 10_000);
        // Nor when they wait for very many origins that nobody has.
        (0..10_000).for_each(|origin| waiters.push(1, version(1, 1_000 + origin), 20_000, 0));
        assert_eq!(waiters.ready([7].into_iter(), |version, _| version.index < 9_000).len(), 9_000);
        assert_eq!(waiters.late(10_000).len(), 1_000);
    }
}
