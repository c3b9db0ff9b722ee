//! A queue that is fair to who asks: each has a lane, and the lanes take turns.
//! Who has much waiting makes others wait for one of it, not for all.

use std::collections::{HashMap, VecDeque};

/// What waits, by who asked.
pub(crate) struct FairQueue<T> {
    lanes: HashMap<usize, VecDeque<T>>,
    /// Lanes that have something, the one whose turn is next in front. Each stands here once.
    turns: VecDeque<usize>,
    length: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> FairQueue<T> {
        FairQueue { lanes: HashMap::new(), turns: VecDeque::new(), length: 0 }
    }
}

impl<T> FairQueue<T> {
    /// The asker's next one, behind those that it has waiting.
    pub(crate) fn push(&mut self, asker: usize, item: T) {
        self.lane(asker).push_back(item);
    }

    /// What was begun and isn't done: the first of its lane, whose turn is over.
    pub(crate) fn push_again(&mut self, asker: usize, item: T) {
        self.lane(asker).push_front(item);
    }

    fn lane(&mut self, asker: usize) -> &mut VecDeque<T> {
        self.length += 1;
        let lane = self.lanes.entry(asker).or_default();
        if lane.is_empty() {
            self.turns.push_back(asker);
        }
        lane
    }

    /// The one whose turn it is, and who asked. The lane's next turn comes when all others had theirs.
    pub(crate) fn pop(&mut self) -> Option<(usize, T)> {
        let asker = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&asker)?;
        let item = lane.pop_front()?;
        self.length -= 1;
        if lane.is_empty() {
            self.lanes.remove(&asker);
        } else {
            self.turns.push_back(asker);
        }
        Some((asker, item))
    }

    /// Everything that waits, in no order.
    pub(crate) fn for_each(&mut self, visit: impl FnMut(&mut T)) {
        self.lanes.values_mut().flatten().for_each(visit);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_take_turns_and_keep_their_order() {
        let mut queue = FairQueue::default();
        (0..5).for_each(|number| queue.push(1, (1, number)));
        (0..2).for_each(|number| queue.push(2, (2, number)));
        queue.push(3, (3, 0));
        assert_eq!(queue.len(), 8);
        let order: Vec<(usize, u32)> = std::iter::from_fn(|| queue.pop()).map(|(_, item)| item).collect();
        assert_eq!(order, [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2), (1, 3), (1, 4)]);
        assert!(queue.is_empty() && queue.lanes.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn what_goes_on_later_is_the_first_of_its_lane_in_its_next_turn() {
        let mut queue = FairQueue::default();
        queue.push(1, "long");
        queue.push(1, "second");
        queue.push(2, "other");
        let (asker, long) = queue.pop().unwrap();
        queue.push_again(asker, long);
        let order: Vec<&str> = std::iter::from_fn(|| queue.pop()).map(|(_, item)| item).collect();
        assert_eq!(order, ["other", "long", "second"]);
        // Also when nothing else of its lane waits.
        queue.push(1, "long");
        let (asker, long) = queue.pop().unwrap();
        queue.push(2, "other");
        queue.push_again(asker, long);
        assert_eq!([queue.pop(), queue.pop()], [Some((2, "other")), Some((1, "long"))]);
    }
}
