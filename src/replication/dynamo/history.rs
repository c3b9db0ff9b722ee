//! What a converging log has led to: the vector of all that is in it, the members,
//! and from where in it a peer can be served.
//!
//! ```text
//!   index      1 … 256 │ 257 … 512 │ 513 …            a mark every so many entries: what
//!   mark         V₁    │    V₂     │  V₃              was there before that index
//! ```
//!
//! A peer that has V₂ needs nothing from before index 257. Where the log was cut the
//! marks begin later: a peer that lacks something from before the first one needs a
//! state. Where a state was taken over, what came by it is in no entry here: a peer needs
//! that beside each earlier mark, from those who wrote it, or a state, too.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::entry::{Content, Decoded, Dotted, versions_of};
use super::members::{MemberChange, Members};
use super::times::Times;
use super::vector::{Origin, Row, VersionVector};

/// Entries between two marks.
const MARK_EVERY: u64 = 256;

/// What a snapshot says of its S, beside the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotVector {
    /// All that is in the log up to S.
    pub vector: VersionVector,
    /// The members as of S.
    pub members: Members,
    /// What there may be, in part, beyond the vector: states came ahead of their entries.
    #[serde(default)]
    pub ahead: BTreeMap<Origin, u64>,
    /// In a log's entry: streams that have forked, of which what was here before counts no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Origin>,
}

impl SnapshotVector {
    /// The latest time of all that it stands for.
    pub fn latest(&self) -> u64 {
        self.ahead.values().copied().max().unwrap_or(0).max(self.vector.latest())
    }

    /// The bytes for a snapshot's trailer.
    pub fn encode(&self) -> Vec<u8> {
        // Writing plain fields into memory can't fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`SnapshotVector::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<SnapshotVector> {
        let state: SnapshotVector = serde_json::from_slice(bytes).ok()?;
        state.vector.is_sorted().then_some(state)
    }
}

/// What the log has led to.
#[derive(Clone, Debug)]
pub struct History {
    /// All that is here.
    pub vector: VersionVector,
    /// Who belongs to the cluster.
    pub members: Members,
    /// Times of states that came ahead of their entries.
    ahead: BTreeMap<Origin, u64>,
    /// There was no write in it, and nothing was taken over: at most it says who the members are.
    is_new: bool,
    next_index: u64,
    /// Index, and what was there before it. Never empty.
    marks: VecDeque<(u64, VersionVector)>,
    /// Of the last entries.
    times: Times,
    /// Streams of which nothing before this index counts.
    dropped: BTreeMap<Origin, u64>,
}

impl History {
    /// Behind entry `index`, up to which a snapshot has everything.
    pub fn new(index: u64, state: SnapshotVector) -> History {
        let SnapshotVector { vector, members, ahead, .. } = state;
        let marks = VecDeque::from([(index + 1, vector.clone())]);
        let is_new = vector.rows().iter().all(|row| row.sequence <= 1);
        let (times, dropped) = (Times::of(&vector), BTreeMap::new());
        History { vector, members, ahead, is_new, next_index: index + 1, marks, times, dropped }
    }

    /// What a snapshot that is made now says.
    pub fn state(&self) -> SnapshotVector {
        SnapshotVector {
            vector: self.vector.clone(),
            members: self.members.clone(),
            ahead: self.ahead.clone(),
            dropped: Vec::new(),
        }
    }

    /// The latest time of all that is here.
    pub fn latest(&self) -> u64 {
        self.ahead.values().copied().max().unwrap_or(0).max(self.vector.latest())
    }

    /// Whether there never was any key: what is here can bring nothing back. Two nodes that join at once may have
    /// heard of each other before a member has let them in.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// What it occupies, in bytes: most of it are the marks.
    pub fn memory_bytes(&self) -> usize {
        let marks: usize = self.marks.iter().map(|(_, before)| before.memory_bytes()).sum();
        marks + self.marks.capacity() * size_of::<(u64, VersionVector)>() + self.times.memory_bytes()
    }

    /// Whether something may be here, in part, that the vector doesn't have.
    pub fn is_ahead(&self) -> bool {
        self.ahead.iter().any(|(origin, time)| *time > self.vector.row(*origin).time)
    }

    fn goes_ahead(&mut self, origin: Origin, time: u64) {
        let ahead = self.ahead.entry(origin).or_default();
        *ahead = time.max(*ahead);
    }

    /// From here on a peer will be served that has what is here now.
    pub fn mark(&mut self) {
        if self.marks.back().is_none_or(|(last, _)| *last < self.next_index) {
            self.marks.push_back((self.next_index, self.vector.clone()));
        }
    }

    /// Behind the last entry.
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// The next entry of the log. Says whether it changed the members.
    pub fn take(&mut self, index: u64, entry: &Decoded) -> bool {
        if self.marks.back().is_none_or(|(last, _)| index >= last + MARK_EVERY) {
            self.marks.push_back((index, self.vector.clone()));
        }
        self.next_index = index + 1;
        self.is_new &= matches!(entry, Decoded::Dotted(Dotted { content, .. }) if !matches!(content, Content::Writes(_)));
        match entry {
            Decoded::Dotted(dotted) => {
                self.vector.raise(dotted.row());
                self.times.raise(dotted.row());
                let Content::Members(body) = &dotted.content else { return false };
                let Some(change) = MemberChange::decode(body) else { return false };
                self.members.apply(&change, dotted.stamp().version(0));
                true
            }
            Decoded::Seen(state) => {
                self.members.merge(&state.members);
                state.dropped.iter().for_each(|origin| self.drop_stream(*origin));
                // What is here by entries can still be sent as entries.
                let is_new = |row: &&Row| self.vector.sequence(row.origin) < row.sequence;
                let came: Vec<Row> = state.vector.rows().iter().filter(is_new).copied().collect();
                came.iter().for_each(|row| self.times.raise(*row));
                if !came.is_empty() {
                    for before in self.marks.iter_mut().map(|(_, before)| before).chain([&mut self.vector]) {
                        came.iter().for_each(|row| before.raise(*row));
                    }
                    self.mark();
                }
                true
            }
            Decoded::States { vector, states, .. } => {
                // The vector, too: what it has deleted may be gone here already.
                vector.rows().iter().for_each(|row| self.goes_ahead(row.origin, row.time));
                versions_of(states).for_each(|version| self.goes_ahead(version.ordinal, version.index));
                let vector = &self.vector;
                self.ahead.retain(|origin, time| *time > vector.row(*origin).time);
                false
            }
            Decoded::Forgotten(_) => false,
        }
    }

    /// What is here of a stream counts no more: it has forked, and it is taken over as another one has it.
    fn drop_stream(&mut self, origin: Origin) {
        let marks = self.marks.iter_mut().map(|(_, before)| before);
        marks.chain([&mut self.vector]).for_each(|vector| vector.remove(origin));
        self.times.forget(origin);
        self.dropped.insert(origin, self.next_index);
    }

    /// Whether an entry of a stream is from before that was dropped.
    pub(super) fn is_dropped(&self, index: u64, origin: Origin) -> bool {
        self.dropped.get(&origin).is_some_and(|from| index < *from)
    }

    /// The last time of the entry in this place, if that is remembered.
    pub(super) fn time(&self, origin: Origin, sequence: u64) -> Option<u64> {
        self.times.time(origin, sequence)
    }

    /// Whether who has a stream up to this can't have all of it that is here; and then, whether in
    /// one place the entry here is the later one. What can't be told is taken to be the same.
    pub(super) fn contradicts(&self, row: &Row) -> Option<bool> {
        let own = self.vector.row(row.origin);
        if own.sequence == 0 || row.sequence == 0 {
            return None;
        }
        if row.sequence > own.sequence {
            return (row.time <= own.time).then_some(true);
        }
        if let Some(time) = self.times.time(row.origin, row.sequence) {
            return (time != row.time).then_some(time > row.time);
        }
        let next = self.marks.partition_point(|(_, before)| before.sequence(row.origin) <= row.sequence);
        let at = |place: Option<usize>| Some(self.marks.get(place?)?.1.row(row.origin));
        if let Some(below) = at(next.checked_sub(1)).filter(|below| below.contradicts(row)) {
            return Some(below.time >= row.time);
        }
        at(Some(next)).filter(|above| above.contradicts(row)).map(|_| false)
    }

    /// From which index on a peer that has this is sent what it lacks; `None`: the
    /// log doesn't reach back far enough.
    pub fn position(&self, has: &VersionVector) -> Option<u64> {
        let covered = self.marks.partition_point(|(_, before)| has.covers(before));
        covered.checked_sub(1).map(|place| self.marks[place].0)
    }

    /// What a peer must have to be sent the rest as entries.
    pub fn must_have(&self) -> Option<&VersionVector> {
        self.marks.front().map(|(_, before)| before)
    }

    /// The log begins at this index now.
    pub fn cut(&mut self, first_index: u64) {
        self.marks.retain(|(index, _)| *index >= first_index);
        if self.marks.is_empty() {
            self.marks.push_back((self.next_index, self.vector.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Seen;
    use crate::replication::dynamo::entry::encode_state;
    use crate::replication::dynamo::vector::Row;

    fn watermark(origin: u32, sequence: u64) -> Decoded {
        let (first, requests) = (sequence * 10, 1);
        let (context, content) = (Seen::default(), Content::Watermark);
        Decoded::Dotted(Dotted { origin, sequence, first, requests, context, content })
    }

    fn has(origin: u32, sequence: u64) -> VersionVector {
        let mut vector = VersionVector::default();
        vector.raise(Row { origin, sequence, time: sequence * 10 });
        vector
    }

    #[test]
    fn a_peer_is_served_from_the_last_mark_that_it_covers() {
        let mut history = History::new(0, SnapshotVector::default());
        for index in 1..=600 {
            history.take(index, &watermark(1, index));
        }
        assert_eq!(history.position(&VersionVector::default()), Some(1));
        assert_eq!(history.position(&has(1, 255)), Some(1));
        assert_eq!(history.position(&has(1, 256)), Some(257));
        assert_eq!(history.position(&has(1, 600)), Some(513));
        history.cut(300);
        assert_eq!(history.position(&has(1, 511)), None, "what it lacks was cut");
        assert_eq!(history.position(&has(1, 512)), Some(513));
        history.cut(590);
        assert_eq!(history.position(&has(1, 599)), None);
        assert_eq!(history.position(&has(1, 600)), Some(601));
    }

    #[test]
    fn states_are_ahead_until_the_vector_has_them_and_a_clock_stands_above_them_at_once() {
        let mut history = History::new(0, SnapshotVector::default());
        let mut states = bytes::BytesMut::new();
        let version = crate::version::Version { index: 70, ordinal: 2 };
        encode_state(&mut states, &crate::engine::Entry::new(version, b"k", Some(b"1"), None));
        let same = crate::engine::SameVersion::Ours;
        history.take(1, &Decoded::States { vector: has(2, 3), same, states: states.freeze() });
        assert!(history.is_ahead() && history.latest() == 70);
        let recovered = History::new(1, SnapshotVector::decode(&history.state().encode()).unwrap());
        assert!(recovered.is_ahead() && recovered.latest() == 70, "a snapshot says so, too");
        history.take(2, &Decoded::Seen(SnapshotVector { vector: has(2, 7), ..SnapshotVector::default() }));
        assert!(!history.is_ahead());
    }

    #[test]
    fn what_came_as_a_state_can_t_be_sent_as_entries() {
        let mut history = History::new(0, SnapshotVector::default());
        history.take(1, &watermark(1, 1));
        history.take(2, &Decoded::Seen(SnapshotVector { vector: has(2, 9), ..SnapshotVector::default() }));
        history.take(3, &watermark(1, 2));
        assert_eq!(history.position(&has(1, 1)), None);
        assert_eq!(history.position(&has(2, 8)), None);
        let mut both = has(1, 1);
        both.merge(&has(2, 9));
        assert_eq!(history.position(&both), Some(3));
        assert_eq!(history.position(&has(2, 9)), Some(1), "what it lacks did come by entries");
        assert_eq!(history.vector.sequence(2), 9);
    }
}
