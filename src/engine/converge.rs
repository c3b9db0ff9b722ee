//! Dynamo mode: what becomes of a key when writes meet that were made on
//! different nodes, in whichever order they come.
//!
//! A key is three registers, and each keeps the highest version that it was given:
//!
//! ```text
//!   value     set           by its version          a delete takes away what is older
//!   vector    add_vector    by its version          than it, and suppresses what comes
//!   deleted   delete        the tombstone's         later and is older
//! ```
//!
//! A version is (hybrid clock, origin): no two writes have the same. So merging is
//! commutative, associative and idempotent, and all nodes that had the same writes
//! have the same keys.
//!
//! The higher version wins, whether or not its writer knew of the lower one. When
//! it didn't, somebody's write is lost that nobody decided to replace: that is told
//! exactly, by what the writer had seen, and reported as a [`Conflict`].

use bytes::Bytes;

use super::absent_deletes::tombstone_of;
use super::effect::Effect;
use super::entry::{Entry, Part};
use super::table::Table;
use crate::version::Version;

/// What an entry's requests are stamped with: request n has `first` + n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The first request's hybrid time.
    pub first: u64,
    /// Who wrote it.
    pub origin: u32,
}

impl Stamp {
    /// The version of the request of this ordinal.
    pub fn version(&self, ordinal: u32) -> Version {
        Version { index: self.first + u64::from(ordinal), ordinal: self.origin }
    }
}

/// How far someone has everything of each origin: all its writes up to a hybrid time,
/// which grows with an origin's writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Ascending by origin.
    rows: Vec<(u32, u64)>,
}

impl Seen {
    /// Of these rows: origin and time.
    pub fn of(rows: impl IntoIterator<Item = (u32, u64)>) -> Seen {
        let mut seen = Seen::default();
        rows.into_iter().for_each(|(origin, time)| seen.raise(origin, time));
        seen
    }

    /// Origin and time of each row, ascending by origin.
    pub fn rows(&self) -> &[(u32, u64)] {
        &self.rows
    }

    /// Whether this write is among them.
    pub fn covers(&self, version: Version) -> bool {
        let place = self.rows.binary_search_by_key(&version.ordinal, |row| row.0);
        place.is_ok_and(|place| version.index <= self.rows[place].1)
    }

    /// It has everything of this origin up to this time.
    pub fn raise(&mut self, origin: u32, time: u64) {
        match self.rows.binary_search_by_key(&origin, |row| row.0) {
            Ok(place) => self.rows[place].1 = self.rows[place].1.max(time),
            Err(place) => self.rows.insert(place, (origin, time)),
        }
    }
}

/// What a write did to its key.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// It removed it.
    Deleted,
    /// It gave it this value, as JSON text.
    Value(Bytes),
    /// It gave it this vector.
    Vector(Vec<f32>),
}

/// One of two writes that didn't know of each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// Its version.
    pub version: Version,
    /// What it did.
    pub written: Written,
}

/// Two writes of a key that didn't know of each other, of which one remains.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// The key's UTF-8.
    pub key: Bytes,
    /// What remains.
    pub winner: Side,
    /// What is lost.
    pub loser: Side,
}

impl Conflict {
    /// What it occupies, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let of = |side: &Side| match &side.written {
            Written::Deleted => 0,
            Written::Value(value) => value.len(),
            Written::Vector(vector) => vector.len() * 4,
        };
        size_of::<Conflict>() + self.key.len() + of(&self.winner) + of(&self.loser)
    }
}

/// Which of two writes of one version stays, where they differ: one of them is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameVersion {
    /// The one that is here.
    Ours,
    /// The one that came.
    Theirs,
    /// That with the greater bytes, and what only one of them has: both sides decide alike,
    /// and nobody can tell which of them is damaged.
    Greater,
}

/// How a merge changed a key.
pub(super) struct Merged {
    pub(super) old: Option<Entry>,
    pub(super) new: Option<Entry>,
}

fn text(bytes: &[u8]) -> Written {
    Written::Value(Bytes::copy_from_slice(bytes))
}

fn numbers(native: &[u8]) -> Written {
    Written::Vector(native.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// A vector as the log has it, as this machine has it.
fn native(vector: &[u8]) -> Vec<u8> {
    vector.chunks_exact(4).flat_map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).to_ne_bytes()).collect()
}

/// Hears of a lost race, and may have it put together: both values are copied for that.
pub(super) type Report<'a> = &'a mut dyn FnMut(&dyn Fn() -> Conflict);

/// Decides about one effect. `is_known` says of a version that is here whether the
/// effect's writer had seen it; `report` hears of lost races.
struct Meeting<'a> {
    key: &'a [u8],
    version: Version,
    is_known: &'a dyn Fn(Version) -> bool,
    report: Report<'a>,
}

impl Meeting<'_> {
    /// The effect's write meets another one of which only one can remain.
    fn meets(&mut self, other: Version, of_effect: impl Fn() -> Written, of_other: impl Fn() -> Written) {
        if other == self.version || (self.is_known)(other) {
            return;
        }
        let (key, version) = (self.key, self.version);
        (self.report)(&|| {
            let ours = Side { version, written: of_effect() };
            let theirs = Side { version: other, written: of_other() };
            let (winner, loser) = if version > other { (ours, theirs) } else { (theirs, ours) };
            Conflict { key: Bytes::copy_from_slice(key), winner, loser }
        });
    }

    /// A part is written: what its register holds then.
    fn write<'v>(
        &mut self,
        held: Option<Part<'v>>,
        deleted: Option<Version>,
        body: &'v [u8],
        shown: impl Fn(&[u8]) -> Written,
    ) -> Option<Part<'v>> {
        if let Some(deleted) = deleted {
            let suppresses = self.stays(deleted);
            // What is held behind a delete has met it already.
            if suppresses || held.is_none() {
                self.meets(deleted, || shown(body), || Written::Deleted);
            }
            if suppresses {
                return held;
            }
        }
        if let Some((other, theirs)) = held {
            self.meets(other, || shown(body), || shown(theirs));
            if self.stays(other) {
                return held;
            }
        }
        Some((self.version, body))
    }

    /// The key is deleted: what of a part remains.
    fn delete<'v>(&mut self, held: Option<Part<'v>>, shown: impl Fn(&[u8]) -> Written) -> Option<Part<'v>> {
        let (other, theirs) = held?;
        self.meets(other, || Written::Deleted, || shown(theirs));
        self.stays(other).then_some((other, theirs))
    }

    /// Whether what is here stays, where only one of the two can.
    fn stays(&self, other: Version) -> bool {
        #[cfg(test)]
        if mistake::breaks_no_ties() && other.index == self.version.index {
            return true;
        }
        other >= self.version
    }
}

/// Merges one effect into a table. `is_known`: whether the effect's writer had seen
/// a version that is here; `report` hears of the races that somebody lost by it.
pub(super) fn merge_effect(
    table: &mut Table,
    effect: &Effect<'_>,
    hash: u64,
    version: Version,
    is_known: &dyn Fn(Version) -> bool,
    report: Report<'_>,
) -> Merged {
    let key = effect.key();
    let deleted = table.tombstone(key, hash);
    let mut meeting = Meeting { key, version, is_known, report };
    let mut buried = None;
    let (old, new) = table.update(key, hash, |old| {
        let value = old.and_then(Entry::value_part);
        let vector = old.and_then(Entry::vector_part);
        match *effect {
            Effect::Set { value: body, .. } => {
                let value = meeting.write(value, deleted, body, text);
                Entry::of_parts(key, value, vector)
            }
            Effect::AddVector { vector: body, .. } => {
                let body = native(body);
                let vector = meeting.write(vector, deleted, &body, numbers);
                Entry::of_parts(key, value, vector)
            }
            Effect::Delete { .. } => {
                buried = Some(version).filter(|version| deleted.is_none_or(|deleted| deleted < *version));
                let (value, vector) = (meeting.delete(value, text), meeting.delete(vector, numbers));
                Entry::of_parts(key, value, vector)
            }
        }
    });
    if let Some(version) = buried {
        table.bury(tombstone_of(version, key, old.as_ref()), hash);
    }
    Merged { old, new }
}

/// Merges another node's whole state of a key: `theirs` is an entry, or the key's tombstone.
/// What of an entry that node had seen (`covered`) and has no more is gone; and where its
/// copy counts, so is what this one holds ahead of its entries (`seen` hasn't got it): it
/// came with a state whose sender is lost, and nobody will ever send it to the others.
pub(super) fn merge_state(
    table: &mut Table,
    theirs: &Entry,
    hash: u64,
    same: SameVersion,
    (covered, seen): (&Seen, &Seen),
) -> Merged {
    let key = theirs.key();
    let tells_nothing = theirs.is_tombstone();
    let is_astray = |ours: Version| same == SameVersion::Theirs && !seen.covers(ours);
    if table.tombstone(key, hash).is_some_and(is_astray) {
        table.unbury(key, hash);
    }
    let mut deleted = table.tombstone(key, hash);
    if theirs.is_tombstone() && deleted.is_none_or(|deleted| deleted < theirs.version()) {
        deleted = Some(theirs.version());
        let tombstone = tombstone_of(theirs.version(), key, table.get(key, hash));
        table.bury(tombstone, hash);
    }
    let lives = |part: &Part<'_>| deleted.is_none_or(|deleted| part.0 > deleted);
    // A key may have an entry beside its tombstone, each a state of its own.
    let stays = |ours: Part<'_>, theirs: Option<Part<'_>>| {
        // Where nobody knows whose copy is right, both sides keep what either has.
        let keeps = same == SameVersion::Greater;
        let is_gone = theirs.is_none() && !tells_nothing && !keeps && covered.covers(ours.0);
        !is_gone && !is_astray(ours.0)
    };
    let (old, new) = table.update(key, hash, |old| {
        let (value, vector) = (theirs.value_part(), theirs.vector_part());
        let our_value = old.and_then(Entry::value_part).filter(|ours| stays(*ours, value));
        let our_vector = old.and_then(Entry::vector_part).filter(|ours| stays(*ours, vector));
        let value = newer(our_value, value, same).filter(lives);
        let vector = newer(our_vector, vector, same).filter(lives);
        Entry::of_parts(key, value, vector)
    });
    Merged { old, new }
}

fn newer<'v>(ours: Option<Part<'v>>, theirs: Option<Part<'v>>, same: SameVersion) -> Option<Part<'v>> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours.0 == theirs.0 => Some(match same {
            SameVersion::Ours => ours,
            SameVersion::Theirs => theirs,
            SameVersion::Greater => ours.max(theirs),
        }),
        (Some(ours), Some(theirs)) => Some(if theirs.0 > ours.0 { theirs } else { ours }),
        (ours, theirs) => ours.or(theirs),
    }
}

/// Removes the parts of a key that `is_gone` names: another node, which had seen
/// them, has them no more.
pub(super) fn forget_parts(
    table: &mut Table,
    key: &[u8],
    hash: u64,
    is_gone: &dyn Fn(Version) -> bool,
) -> Merged {
    let (old, new) = table.update(key, hash, |old| {
        let stays = |part: &Part<'_>| !is_gone(part.0);
        let value = old.and_then(Entry::value_part).filter(stays);
        Entry::of_parts(key, value, old.and_then(Entry::vector_part).filter(stays))
    });
    Merged { old, new }
}

/// The mistake of letting the first of two writes of one time stay, whoever wrote them.
#[cfg(test)]
pub(crate) mod mistake {
    use std::cell::Cell;

    thread_local! {
        static BREAKS_NO_TIES: Cell<bool> = const { Cell::new(false) };
    }

    pub fn break_no_ties(is_on: bool) {
        BREAKS_NO_TIES.set(is_on);
    }

    pub(super) fn breaks_no_ties() -> bool {
        BREAKS_NO_TIES.get()
    }
}
