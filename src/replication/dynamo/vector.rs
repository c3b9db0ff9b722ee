//! What a node has of each origin: a version vector.
//!
//! An *origin* numbers its log entries 1, 2, 3 …; origin and sequence together are
//! an entry's *dot*. Entries are taken in sequence only, so that "up to which" says
//! all. Beside the sequence stands the time of the last request in it: times grow
//! with sequences, so that a single version, which has a time and no sequence, can be
//! found among what is covered.

use bytes::{Buf, BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use crate::engine::Seen;
use crate::version::Version;

/// Names one stream of entries: a node, as long as its data directory goes on.
pub type Origin = u32;

/// One origin's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Whose.
    pub origin: Origin,
    /// All its entries up to this one.
    pub sequence: u64,
    /// The time of the last request in them.
    pub time: u64,
}

impl Row {
    /// Whether these two can't be of one stream: times grow with places.
    pub(super) fn contradicts(&self, other: &Row) -> bool {
        self.sequence.cmp(&other.sequence) != self.time.cmp(&other.time)
    }
}

/// Up to where someone has each origin's entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionVector {
    /// Ascending by origin.
    rows: Vec<Row>,
}

impl VersionVector {
    /// All rows, ascending by origin.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Whether it is laid out as all here relies on.
    pub(super) fn is_sorted(&self) -> bool {
        self.rows.windows(2).all(|pair| pair[0].origin < pair[1].origin)
    }

    /// One origin's row; of an origin of which there is nothing, zeroes.
    pub fn row(&self, origin: Origin) -> Row {
        match self.rows.binary_search_by_key(&origin, |row| row.origin) {
            Ok(place) => self.rows[place],
            Err(_) => Row { origin, ..Row::default() },
        }
    }

    /// The last sequence of an origin; 0 for none.
    pub fn sequence(&self, origin: Origin) -> u64 {
        self.row(origin).sequence
    }

    /// The row is raised to this one, if it is below it.
    pub fn raise(&mut self, to: Row) {
        match self.rows.binary_search_by_key(&to.origin, |row| row.origin) {
            Ok(place) if self.rows[place].sequence < to.sequence => self.rows[place] = to,
            Ok(_) => {}
            Err(place) => self.rows.insert(place, to),
        }
    }

    /// With all that the other has.
    pub fn merge(&mut self, other: &VersionVector) {
        other.rows.iter().for_each(|row| self.raise(*row));
    }

    /// Whether it has all that the other has.
    pub fn covers(&self, other: &VersionVector) -> bool {
        other.rows.iter().all(|row| self.sequence(row.origin) >= row.sequence)
    }

    /// Whether it has this write.
    pub fn has(&self, version: Version) -> bool {
        version.index <= self.row(version.ordinal).time
    }

    /// Of which streams two can't have the same entries, by the ends that they have come to.
    pub(super) fn contradicts<'a>(&'a self, other: &'a VersionVector) -> impl Iterator<Item = Origin> + 'a {
        let both = self.rows.iter().map(|row| (row, other.row(row.origin)));
        let both = both.filter(|(one, other)| one.sequence > 0 && other.sequence > 0);
        both.filter(|(one, other)| one.contradicts(other)).map(|(one, _)| one.origin)
    }

    /// Without what it has of an origin.
    pub(super) fn remove(&mut self, origin: Origin) {
        self.rows.retain(|row| row.origin != origin);
    }

    /// How many entries of the other it lacks.
    pub fn lacks(&self, other: &VersionVector) -> u64 {
        other.rows.iter().map(|row| row.sequence.saturating_sub(self.sequence(row.origin))).sum()
    }

    /// What it occupies beside its handle, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
    }

    /// The latest time in it.
    pub fn latest(&self) -> u64 {
        self.rows.iter().map(|row| row.time).max().unwrap_or(0)
    }

    /// The times alone.
    pub fn seen(&self) -> Seen {
        Seen::of(self.rows.iter().map(|row| (row.origin, row.time)))
    }

    /// As bytes: a count of 32 bits, then origin (32), sequence (64) and time (64) of each row.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32_le(self.rows.len() as u32);
        for row in &self.rows {
            out.put_u32_le(row.origin);
            out.put_u64_le(row.sequence);
            out.put_u64_le(row.time);
        }
    }

    /// Reads what [`VersionVector::encode`] wrote; `None` if it is none.
    pub fn decode(bytes: &mut impl Buf) -> Option<VersionVector> {
        let count = bytes.try_get_u32_le().ok()?;
        let mut rows: Vec<Row> = Vec::new();
        for _ in 0..count {
            let origin = bytes.try_get_u32_le().ok()?;
            let (sequence, time) = (bytes.try_get_u64_le().ok()?, bytes.try_get_u64_le().ok()?);
            if rows.last().is_some_and(|last| last.origin >= origin) {
                return None;
            }
            rows.push(Row { origin, sequence, time });
        }
        Some(VersionVector { rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(rows: &[(Origin, u64, u64)]) -> VersionVector {
        let mut vector = VersionVector::default();
        rows.iter().for_each(|&(origin, sequence, time)| vector.raise(Row { origin, sequence, time }));
        vector
    }

    #[test]
    fn it_covers_what_it_has_and_merges_to_the_higher_of_both() {
        let (one, other) = (vector(&[(1, 5, 50), (2, 1, 10)]), vector(&[(1, 4, 40), (3, 2, 20)]));
        assert!(!one.covers(&other) && !other.covers(&one));
        assert_eq!((one.lacks(&other), other.lacks(&one)), (2, 2));
        let mut both = one.clone();
        both.merge(&other);
        assert_eq!(both, vector(&[(1, 5, 50), (2, 1, 10), (3, 2, 20)]));
        assert!(both.covers(&one) && both.covers(&other));
        assert!(both.has(Version { index: 20, ordinal: 3 }) && !both.has(Version { index: 21, ordinal: 3 }));
        assert!(!both.has(Version { index: 1, ordinal: 9 }));
    }

    #[test]
    fn it_comes_back_from_bytes_and_anything_else_is_none() {
        let mut bytes = BytesMut::new();
        let written = vector(&[(7, 1, 2), (9, 3, u64::MAX)]);
        written.encode(&mut bytes);
        let whole = bytes.freeze();
        assert_eq!(VersionVector::decode(&mut whole.clone()), Some(written));
        for end in 0..whole.len() {
            assert_eq!(VersionVector::decode(&mut whole.slice(..end)), None);
        }
    }
}
