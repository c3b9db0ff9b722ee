//! What the tables of the indexes will take when they grow.
//!
//! A hash table doubles in one step. So whoever bounds memory has to ask before: a write
//! that makes a table grow takes as much as the table has, however small it is itself.

use hashbrown::HashTable;

/// A table as its next growth sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Room {
    /// What it holds.
    pub taken: usize,
    /// What it can hold without growing.
    pub places: usize,
    /// What it occupies, in bytes.
    pub bytes: usize,
}

impl Room {
    pub(super) fn of<T>(table: &HashTable<T>) -> Room {
        Room { taken: table.len(), places: table.capacity(), bytes: table.allocation_size() }
    }

    /// What it occupies more when it holds so many more; it doubles until they fit.
    pub fn growth_bytes(&self, more: usize) -> u64 {
        let left = self.places - self.taken.min(self.places);
        if more <= left || self.places == 0 {
            return 0;
        }
        let times = (self.taken + more).div_ceil(self.places).next_power_of_two();
        self.bytes as u64 * (times as u64 - 1)
    }
}

/// The tables of a shard's indexes that may be large.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rooms {
    /// Words.
    pub words: Room,
    /// Those that have a place for each key: of values, alone and shared; of texts; of the vectors of
    /// the length that most have.
    pub keys: [Room; 4],
}

impl Rooms {
    /// What all of them occupy more with so many more keys and words.
    pub fn growth_bytes(&self, keys: usize, words: usize) -> u64 {
        let of_keys: u64 = self.keys.iter().map(|room| room.growth_bytes(keys)).sum();
        of_keys + self.words.growth_bytes(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_told_to_have_room_doesn_t_grow_and_one_that_hasn_t_grows_as_told() {
        let mut table: HashTable<u64> = HashTable::new();
        for number in 0..100_000_u64 {
            let room = Room::of(&table);
            table.insert_unique(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number, |number| {
                number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            });
            let grown = (table.allocation_size() - room.bytes) as u64;
            let told = room.growth_bytes(1);
            // The control bytes behind a table's end don't double.
            assert!(
                room.places < 16 || (told >= grown && told <= grown + 64),
                "{number}: {told}, not {grown}"
            );
        }
    }

    #[test]
    fn many_more_double_it_more_than_once() {
        let room = Room { taken: 90, places: 100, bytes: 1_000 };
        let told = [0, 10, 11, 110, 111, 311].map(|more| room.growth_bytes(more));
        assert_eq!(told, [0, 0, 1_000, 1_000, 3_000, 7_000]);
        assert_eq!(Room::default().growth_bytes(5), 0);
    }
}
