//! What shards append: parts of multi-key writes meet, and what is complete
//! gathers for the next entry of the log.
//!
//! ```text
//! shard 0 ─ singles, parts ─┐  looked at in this office?          ┌─► group ─► one entry
//! shard 1 ─ singles, parts ─┴─► singles: kept, or dropped ────────┤
//!                               parts: meet, whatever their office └─► let go: the shards that wait
//! ```
//!
//! Every append says in which office its shard looked at the conditions (see
//! `office.rs`; always 0 on a node that is on its own). A write from an earlier
//! one is dropped without a word: its shard has answered it, or will when it
//! hears that the office ended. A part has to meet the others first, so that none
//! of them waits for ever, and counts only if all of them are of this office.

use std::collections::VecDeque;

use crate::engine::{Append, PartAppend};
use crate::error::{Code, Error};
use crate::ordering::{Arrival, Meeting};
use crate::replication::group::Group;

/// A part and where it comes from.
#[derive(Debug)]
struct ShardPart {
    shard: usize,
    part: PartAppend,
    office: u64,
}

/// The last part of a multi-key write came.
#[derive(Debug, PartialEq)]
pub struct Met {
    /// Which write.
    pub multi: u64,
    /// It goes to the log, or these shards are to let go of these writes, for this reason.
    pub let_go: Option<(Vec<(usize, u32)>, Error)>,
}

/// What gathers for the log.
pub struct Appends {
    meeting: Meeting<ShardPart>,
    group: Group,
    /// A group with so many bytes takes no more: an entry is sent whole.
    group_bytes_wanted: usize,
    /// Those that take no more, oldest first.
    closed: VecDeque<Group>,
}

impl Appends {
    /// Nothing yet. A group takes no more once it has `group_bytes_wanted`.
    pub fn new(group_bytes_wanted: usize) -> Appends {
        let (meeting, group, closed) = (Meeting::default(), Group::default(), VecDeque::new());
        Appends { meeting, group, group_bytes_wanted, closed }
    }

    /// Whether nothing waits to become an entry.
    pub fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.group.requests == 0
    }

    /// Whether there is a group that takes no more: it has nothing to wait for.
    pub fn has_closed_group(&self) -> bool {
        !self.closed.is_empty()
    }

    /// Takes what gathered first, for the next entry.
    pub fn take_group(&mut self) -> Option<Group> {
        self.close_group_of(1);
        self.closed.pop_front()
    }

    fn close_group_of(&mut self, bytes: usize) {
        if self.group.requests > 0 && self.group.bytes >= bytes {
            self.closed.push_back(std::mem::take(&mut self.group));
        }
    }

    /// What gathered is not to be proposed any more: its shards answer it.
    pub fn office_ended(&mut self) {
        self.group = Group::default();
        self.closed.clear();
    }

    /// A shard's append, looked at in office `looked_at`, comes in `office`. Gives
    /// the multi-key writes whose last part it brought.
    pub fn append(&mut self, shard: usize, append: Append, looked_at: u64, office: u64) -> Vec<Met> {
        let Append { bytes, writes, parts } = append;
        // What was looked at in an earlier office is answered when that ends.
        if !writes.is_empty() && looked_at == office {
            self.group.push_singles(shard, bytes, writes);
            self.close_group_of(self.group_bytes_wanted);
        }
        let parts = parts.into_iter().map(|part| ShardPart { shard, part, office: looked_at });
        parts.filter_map(|part| self.part(part, office)).collect()
    }

    fn part(&mut self, mut part: ShardPart, office: u64) -> Option<Met> {
        let (multi, parts, refusal) = (part.part.multi, part.part.parts, part.part.refusal.take());
        let let_go = match self.meeting.arrive(multi, parts, part, refusal) {
            Arrival::Waiting => return None,
            Arrival::Complete(parts) if parts.iter().all(|part| part.office == office) => {
                self.group.push_multi(parts.into_iter().map(|part| (part.shard, part.part)));
                self.close_group_of(self.group_bytes_wanted);
                None
            }
            Arrival::Complete(parts) => {
                let changed = Error::new(Code::NoLeader, "leadership changed while the write's parts met");
                Some((waiting(parts, office), changed))
            }
            Arrival::Refused(parts, error) => Some((waiting(parts, office), error)),
        };
        Some(Met { multi, let_go })
    }
}

/// The parts that their shards still have in flight. The others are answered:
/// they were refused, or their office has ended.
fn waiting(parts: Vec<ShardPart>, office: u64) -> Vec<(usize, u32)> {
    let waits = parts.into_iter().filter(|part| part.office == office);
    waits.filter_map(|part| Some((part.shard, part.part.write?))).collect()
}

impl PartialEq for ShardPart {
    fn eq(&self, other: &Self) -> bool {
        (self.shard, self.part.write, self.office) == (other.shard, other.part.write, other.office)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::group::Acknowledgement;

    fn single(write: u32) -> Append {
        Append { bytes: vec![0], writes: vec![write], parts: Vec::new() }
    }

    fn part(write: Option<u32>, refusal: Option<Error>) -> Append {
        let part = PartAppend { write, multi: 7, parts: 2, effects: 0, bytes: Vec::new(), refusal };
        Append { parts: vec![part], ..Append::default() }
    }

    #[test]
    fn a_write_of_an_earlier_office_is_not_proposed_and_nobody_is_told() {
        let mut appends = Appends::new(usize::MAX);
        assert!(appends.append(0, single(1), 1, 3).is_empty());
        assert!(appends.is_empty());
        appends.append(0, single(2), 3, 3);
        let group = appends.take_group().expect("a write");
        assert_eq!(group.acknowledgements, [Acknowledgement::Singles { shard: 0, writes: vec![2] }]);
        assert!(appends.is_empty());
    }

    #[test]
    fn parts_of_two_offices_meet_and_only_the_shard_that_waits_is_told() {
        let mut appends = Appends::new(usize::MAX);
        assert!(appends.append(0, part(Some(4), None), 1, 1).is_empty());
        let met = appends.append(1, part(Some(5), None), 3, 3);
        let [Met { multi: 7, let_go: Some((told, error)) }] = &met[..] else { panic!("{met:?}") };
        assert_eq!((&told[..], error.code), (&[(1, 5)][..], Code::NoLeader));
        assert!(appends.is_empty(), "the write was not made, as both are told");
    }

    #[test]
    fn a_refused_part_lets_the_others_go_with_its_reason() {
        let mut appends = Appends::new(usize::MAX);
        let full = Error::new(Code::OutOfMemory, "full");
        appends.append(0, part(None, Some(full.clone())), 1, 1);
        let met = appends.append(1, part(Some(5), None), 1, 1);
        assert_eq!(met, [Met { multi: 7, let_go: Some((vec![(1, 5)], full)) }]);
    }

    #[test]
    fn what_gathered_goes_with_its_office() {
        let mut appends = Appends::new(usize::MAX);
        appends.append(0, part(Some(4), None), 1, 1);
        let met = appends.append(1, part(Some(5), None), 1, 1);
        assert_eq!(met, [Met { multi: 7, let_go: None }]);
        assert!(!appends.is_empty());
        appends.office_ended();
        assert!(appends.take_group().is_none());
    }

    #[test]
    fn a_group_that_is_large_enough_takes_no_more() {
        let mut appends = Appends::new(2);
        (0..5).for_each(|write| assert!(appends.append(0, single(write), 0, 0).is_empty()));
        assert!(appends.has_closed_group());
        let sizes: Vec<usize> =
            std::iter::from_fn(|| appends.take_group()).map(|group| group.requests).collect();
        assert_eq!(sizes, [2, 2, 1], "in their order");
    }
}
