//! Room for deletes of keys that are not there.
//!
//! In dynamo mode each delete leaves a tombstone, for a `set` of the key may be under way
//! elsewhere. That of a key which was there takes less room than the key did. That of one which
//! wasn't takes room and makes none; while a member is down none goes, and so many could come that
//! nothing else had room any more. They are counted apart, and bounded:
//!
//! ```text
//!   the key is there, or a write of it is under way     goes on: it takes no more than the key had
//!   it has a tombstone                                  goes on: that is replaced
//!   else                                                takes room, or is refused
//! ```
//!
//! What peers have deleted counts, too, and so does a tombstone that comes with a peer's state: it
//! takes the same room. It is never refused: what one node has taken, all must have.

use super::entry::Entry;
use super::in_flight::WriteKind;
use super::slice::Slice;
use super::table::Table;
use crate::error::{Code, Detail, Error};
use crate::limits::ABSENT_TOMBSTONES_DIVISOR;

/// The bound, and what is on its way below it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AbsentDeletes {
    /// `None`: no bound.
    bytes_max: Option<usize>,
    /// For deletes that are not durable yet.
    reserved_bytes: usize,
}

/// What tombstones of keys that were not there may occupy on a node of this `--max-memory`, in bytes.
pub fn absent_tombstones_bytes_max(memory_bytes_max: u64) -> u64 {
    memory_bytes_max / ABSENT_TOMBSTONES_DIVISOR
}

/// A delete that finds no room: `memory_bytes_max` is the node's, and these members hold its tombstones back.
pub fn absent_refusal(is_bulk: bool, memory_bytes_max: u64, held_by: Vec<u64>) -> Error {
    let most = absent_tombstones_bytes_max(memory_bytes_max);
    let what = if is_bulk { "keys of it are not there" } else { "the key is not there" };
    let holders: Vec<String> = held_by.iter().map(u64::to_string).collect();
    let until = match &holders[..] {
        [] => "they go as soon as every member has everything up to them".to_string(),
        [one] => format!("node {one} holds them until it has caught up or is evicted"),
        many => format!("the nodes {} hold them until they have caught up or are evicted", many.join(", ")),
    };
    let message = format!(
        "nothing was changed: {what}, and deletes of such keys are remembered in at most 1/{ABSENT_TOMBSTONES_DIVISOR} of \
         --max-memory, {most} bytes, each shard its part, which is full; {until}. Deletes of keys that are there go on"
    );
    Error::new(Code::OutOfMemory, message).with_detail(Detail::HeldBy(held_by))
}

impl<T> Slice<T> {
    /// From now on tombstones of keys that were not there may occupy so many bytes here.
    pub fn bound_absent_deletes(&mut self, bytes_max: usize) {
        self.absent_deletes.bytes_max = Some(bytes_max);
    }

    /// Whether there is room for a delete of these keys, which are each given once.
    pub fn has_room_to_delete<'a>(&self, keys: impl Iterator<Item = (&'a [u8], u64)> + Clone) -> bool {
        let Some(bytes_max) = self.absent_deletes.bytes_max.filter(|_| self.seen.is_some()) else {
            return true;
        };
        let taken = self.table.absent_tombstones().1 + self.absent_deletes.reserved_bytes;
        // Mostly there is room, whether or not they are there.
        let most: usize = keys.clone().map(|(key, _)| Table::absent_tombstone_bytes(key)).sum();
        if taken + most <= bytes_max {
            return true;
        }
        let needed: usize = keys.map(|(key, hash)| self.needs_room(key, hash)).sum();
        needed == 0 || taken + needed <= bytes_max
    }

    /// What a delete of this key would take, in bytes.
    fn needs_room(&self, key: &[u8], hash: u64) -> usize {
        let takes_none = self.table.get(key, hash).is_some()
            || self.table.tombstone(key, hash).is_some()
            || self.keys.is_outstanding(key, hash);
        if takes_none { 0 } else { Table::absent_tombstone_bytes(key) }
    }

    /// This write goes to the log: gives what of the bound is held for it until it is settled.
    pub(super) fn reserve(&mut self, key: &[u8], hash: u64, kind: &WriteKind) -> u32 {
        if *kind != WriteKind::Delete || self.absent_deletes.bytes_max.is_none() || self.seen.is_none() {
            return 0;
        }
        let bytes = self.needs_room(key, hash);
        self.absent_deletes.reserved_bytes += bytes;
        bytes as u32
    }

    /// It is settled.
    pub(super) fn release(&mut self, reserved: u32) {
        self.absent_deletes.reserved_bytes -= reserved as usize;
    }
}

/// The tombstone of a delete, of a key that had this entry.
pub(super) fn tombstone_of(version: crate::version::Version, key: &[u8], old: Option<&Entry>) -> Entry {
    match old {
        Some(_) => Entry::tombstone(version, key),
        None => Entry::tombstone_of_absent(version, key),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::{Answer, Condition, Effect, Placement, SameVersion, Seen, Stamp};
    use crate::version::Version;

    const ORIGIN: u32 = 1;

    /// A slice with room for so many tombstones of keys of two bytes.
    fn slice(tombstones: usize) -> Slice<u32> {
        let table = Table::new(Placement::new((1, 2), 1), 0).with_tombstones();
        let mut slice = Slice::new(table, 0);
        slice.converge(Seen::default());
        slice.bound_absent_deletes(tombstones * Table::absent_tombstone_bytes(b"k0"));
        slice
    }

    fn hash(slice: &Slice<u32>, key: &str) -> u64 {
        slice.table().placement().hash(key.as_bytes())
    }

    fn has_room(slice: &Slice<u32>, keys: &[&str]) -> bool {
        slice.has_room_to_delete(keys.iter().map(|key| (key.as_bytes(), hash(slice, key))))
    }

    fn begin(slice: &mut Slice<u32>, key: &str, kind: WriteKind) {
        let arena = Bytes::copy_from_slice(key.as_bytes());
        let hash = hash(slice, key);
        slice.write(0, &arena, &arena, hash, kind, Condition::None);
    }

    /// Whatever was begun is durable, and stamped from here on.
    fn commit(slice: &mut Slice<u32>, first: u64) -> Vec<Answer> {
        let writes = std::mem::take(&mut slice.output().append).writes;
        let writes: Vec<(u32, u32)> = writes.into_iter().zip(0..).collect();
        slice.committed_at(first, Stamp { first, origin: ORIGIN }, &writes);
        slice.output().answers.drain(..).map(|(_, answer)| answer).collect()
    }

    fn set() -> WriteKind {
        WriteKind::Set(Bytes::from_static(b"1"))
    }

    fn delete(slice: &mut Slice<u32>, key: &str, first: u64) {
        assert!(has_room(slice, &[key]), "{key}");
        begin(slice, key, WriteKind::Delete);
        commit(slice, first);
    }

    fn of_absent(slice: &Slice<u32>) -> usize {
        slice.table().absent_tombstones().0
    }

    #[test]
    fn deletes_of_absent_keys_fill_their_room_and_those_of_keys_that_are_there_go_on() {
        let mut slice = slice(2);
        begin(&mut slice, "k0", set());
        commit(&mut slice, 10);
        (1..=2).for_each(|n| delete(&mut slice, &format!("k{n}"), 10 + n));
        assert_eq!(of_absent(&slice), 2);
        assert!(!has_room(&slice, &["k3"]), "it is full");
        assert!(!has_room(&slice, &["k0", "k3"]), "one of them needs room");
        assert!(has_room(&slice, &["k0"]) && has_room(&slice, &["k1", "k2"]), "these need none");
        delete(&mut slice, "k0", 20);
        delete(&mut slice, "k0", 21);
        delete(&mut slice, "k1", 22);
        assert_eq!((of_absent(&slice), slice.table().tombstones().0), (2, 3));
        assert_eq!(slice.collect_tombstones(30), 3);
        assert_eq!(slice.table().absent_tombstones(), (0, 0));
        assert_eq!(slice.table().memory_bytes(), 0);
        assert!(has_room(&slice, &["k3", "k4"]) && !has_room(&slice, &["k3", "k4", "k5"]));
    }

    #[test]
    fn what_is_under_way_holds_its_room_until_it_is_settled() {
        let mut slice = slice(2);
        begin(&mut slice, "k1", WriteKind::Delete);
        begin(&mut slice, "k1", WriteKind::Delete);
        begin(&mut slice, "k2", set());
        begin(&mut slice, "k2", WriteKind::Delete);
        assert!(has_room(&slice, &["k3"]), "k1 is one key, and k2 will be there");
        begin(&mut slice, "k3", WriteKind::Delete);
        assert!(!has_room(&slice, &["k4"]) && has_room(&slice, &["k2", "k3"]));
        let writes = std::mem::take(&mut slice.output().append).writes;
        slice.refused(writes.into_iter(), &Error::new(Code::SyncFailed, "no"));
        assert!(has_room(&slice, &["k4", "k5"]) && of_absent(&slice) == 0, "nothing is left of them");
        let keys = ["k1", "k2"]
            .map(|key| (Bytes::copy_from_slice(key.as_bytes()), hash(&slice, key), WriteKind::Delete));
        slice.write_part(0, 1, 1, keys.into_iter());
        assert!(!has_room(&slice, &["k3"]));
        commit(&mut slice, 10);
        assert!(!has_room(&slice, &["k3"]) && of_absent(&slice) == 2);
    }

    #[test]
    fn what_comes_from_peers_counts_and_a_set_and_its_delete_free_the_room() {
        let mut slice = slice(1);
        let hash_of = |key: &str| Placement::new((1, 2), 1).hash(key.as_bytes());
        let at = |index| Version { index, ordinal: 9 };
        let effect = (0, Effect::Delete { key: b"k1" }, hash_of("k1"));
        slice.merge_logged(1, (Stamp { first: 5, origin: 9 }, 5), &Seen::default(), [effect].into_iter());
        let state = [(Entry::tombstone(at(6), b"k2"), hash_of("k2"))];
        slice.merge_states(2, state.into_iter(), SameVersion::Ours, &Seen::default());
        assert_eq!(of_absent(&slice), 2, "never refused, whatever the bound");
        assert!(!has_room(&slice, &["k3"]));
        begin(&mut slice, "k1", set());
        commit(&mut slice, 10);
        assert_eq!(of_absent(&slice), 2, "its tombstone is still there");
        delete(&mut slice, "k1", 11);
        assert_eq!((of_absent(&slice), slice.table().tombstones().0), (1, 2));
        assert!(!has_room(&slice, &["k3"]));
    }

    #[test]
    fn where_no_bound_is_set_nothing_is_refused() {
        let table = Table::new(Placement::new((1, 2), 1), 0).with_tombstones();
        let mut slice: Slice<u32> = Slice::new(table, 0);
        slice.converge(Seen::default());
        (1..100).for_each(|n| delete(&mut slice, &format!("k{n}"), n));
        assert_eq!(of_absent(&slice), 99);
    }

    #[test]
    fn a_refusal_says_the_share_that_nothing_was_changed_and_who_holds_the_tombstones() {
        let error = absent_refusal(false, 16_000, vec![2, 3]);
        assert_eq!((error.code, &error.detail), (Code::OutOfMemory, &Detail::HeldBy(vec![2, 3])));
        for part in ["nothing was changed", "1/16 of --max-memory, 1000 bytes", "the nodes 2, 3 hold them"] {
            assert!(error.message.contains(part), "{error}");
        }
    }
}
