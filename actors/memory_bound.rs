//! `--max-memory`: whether what a write takes still fits.
//!
//! It is asked before: a write comes in only if there is room for what it takes, for what is
//! on its way already, and for the tables that grow by it, which double in one step. Where it
//! would fit if nothing else were on its way it is `overloaded`, and may be tried again;
//! else it is `out_of_memory`, with what fills the memory.
//!
//! ```text
//!   0                            used              on its way     growth        --max-memory
//!   ├─ entries ─┬─ indexes ──────┼─ times factor ──┼─ of tables ──┤ room ───────┤
//! ```

use std::sync::atomic::Ordering;

use datastore::error::{Code, Error};
use datastore::indexing::{Rooms, Sizes};

use crate::node::{Node, ShardFigures, lock};

/// A text's places in lists take about as much as the text, beside its words' tables.
const TEXT_FACTOR: u64 = 2;
/// No write on its way counts for less than this: each may be of another key.
const WRITE_BYTES_LEAST: u64 = 256;
/// Of so many bytes at least one is taken to be a word that is new.
const BYTES_PER_NEW_WORD: u64 = 64;

/// What fills the memory, as it is when a write is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Filled {
    entries: u64,
    indexes: Sizes,
}

/// What is known of the tables of all shards.
#[derive(Clone, Debug, Default)]
struct Tables {
    rooms: Vec<Rooms>,
    /// Words that are known, and of how many bytes of entries.
    words: u64,
    entries: u64,
}

impl Tables {
    fn of(shards: &[ShardFigures]) -> Tables {
        let rooms: Vec<Rooms> = shards.iter().map(|shard| lock(&shard.indexes).1).collect();
        let words = rooms.iter().map(|rooms| rooms.words.taken as u64).sum();
        let entries = shards.iter().map(|shard| shard.memory_bytes.load(Ordering::Relaxed)).sum();
        Tables { rooms, words, entries }
    }

    /// What they may grow by while so many bytes of writes come in.
    fn growth_bytes(&self, coming: u64) -> u64 {
        let keys = coming.div_ceil(WRITE_BYTES_LEAST);
        // New words come about as often as they did, or twice as often.
        let known = (2 * self.words as u128 * u128::from(coming) / u128::from(self.entries.max(1))) as u64;
        let words = known.max(coming / BYTES_PER_NEW_WORD);
        self.rooms.iter().map(|rooms| rooms.growth_bytes(keys as usize, words as usize)).sum()
    }
}

impl Filled {
    fn of(shards: &[ShardFigures]) -> Filled {
        let mut filled = Filled::default();
        for shard in shards {
            filled.entries += shard.memory_bytes.load(Ordering::Relaxed);
            let of_shard = lock(&shard.indexes).0;
            let pairs = [
                (&mut filled.indexes.value, of_shard.value),
                (&mut filled.indexes.text, of_shard.text),
                (&mut filled.indexes.vector, of_shard.vector),
                (&mut filled.indexes.order, of_shard.order),
            ];
            for (sum, size) in pairs {
                sum.entries += size.entries;
                sum.bytes += size.bytes;
            }
        }
        filled
    }

    /// The places, the fullest first.
    fn by_size(&self) -> Vec<(&'static str, u64)> {
        let indexes = &self.indexes;
        let mut places = vec![
            ("entries", self.entries),
            ("value index", indexes.value.bytes),
            ("text index", indexes.text.bytes),
            ("vector index", indexes.vector.bytes),
            ("order index", indexes.order.bytes),
        ];
        places.retain(|(_, bytes)| *bytes > 0);
        places.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        places
    }
}

/// What fills the memory, the fullest first, for `stats`.
pub(crate) fn used_by(node: &Node) -> Vec<(&'static str, u64)> {
    Filled::of(&node.shard_figures).by_size()
}

/// What the next write makes the tables grow by, for `stats`.
pub(crate) fn next_growth_bytes(node: &Node) -> u64 {
    Tables::of(&node.shard_figures).growth_bytes(WRITE_BYTES_LEAST)
}

/// Lets a write of so many bytes in, or a shard's part of one that has so many as a `whole`, and counts it as on its
/// way; or says why not.
pub(crate) fn admit(node: &Node, bytes: usize, whole: usize) -> Result<(), Error> {
    let permits = &node.permits;
    let in_flight = permits.admit(bytes) as u64;
    let Some(most) = node.settings.memory_bytes_max else { return Ok(()) };
    let used = permits.memory_bytes();
    let factor = if node.settings.indexes.text { TEXT_FACTOR } else { 1 };
    // No table has more than all of them together: far below the bound nobody has to look.
    if 2 * used + 2 * factor * in_flight <= most / 2 {
        return Ok(());
    }
    let tables = Tables::of(&node.shard_figures);
    let with = |coming: u64| used + factor * coming + tables.growth_bytes(coming);
    if with(in_flight) <= most {
        return Ok(());
    }
    permits.withdraw(bytes);
    if with(whole as u64) <= most {
        return Err(Error::overloaded(format!(
            "what is on its way fills the room that --max-memory ({most} bytes) leaves beside the {used} bytes of entries \
             and indexes; try again"
        )));
    }
    let growth = tables.growth_bytes(whole as u64);
    Err(refusal(most, used, (factor * whole as u64, growth), &Filled::of(&node.shard_figures)))
}

fn refusal(most: u64, used: u64, (takes, growth): (u64, u64), filled: &Filled) -> Error {
    let places = filled.by_size();
    let places: Vec<String> = places.iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
    let grows =
        if growth == 0 { String::new() } else { format!(" and tables that double by it take {growth}") };
    Error::new(
        Code::OutOfMemory,
        format!(
            "entries and indexes occupy {used} bytes ({}), this write takes up to {takes}{grows}, and --max-memory is \
             {most}; reads and deletes go on",
            if places.is_empty() { "nothing yet".to_string() } else { places.join(", ") }
        ),
    )
}

#[cfg(test)]
mod tests {
    use datastore::indexing::{Room, Size};

    use super::*;

    #[test]
    fn a_refusal_names_what_fills_the_memory_the_fullest_first() {
        let size = |bytes| Size { entries: 1, bytes };
        let indexes = Sizes { text: size(500), order: size(20), ..Sizes::default() };
        let message = refusal(1_000, 720, (300, 0), &Filled { entries: 200, indexes }).message;
        assert!(message.contains("720 bytes (text index 500, entries 200, order index 20)"), "{message}");
        assert!(message.contains("takes up to 300, and --max-memory is 1000"), "{message}");
        let message = refusal(1_000, 0, (300, 800), &Filled::default()).message;
        assert!(message.contains("(nothing yet)") && message.contains("double by it take 800"), "{message}");
    }

    #[test]
    fn tables_count_when_what_comes_may_fill_them() {
        let full = Room { taken: 99, places: 100, bytes: 1_000 };
        let rooms = Rooms { words: full, keys: [Room::default(), full, Room::default(), Room::default()] };
        let tables = Tables { rooms: vec![rooms, Rooms::default()], words: 99, entries: 9_900 };
        // A word in a hundred bytes so far: in 256 of them five may be new.
        assert_eq!(tables.growth_bytes(256), 1_000);
        assert_eq!(tables.growth_bytes(512), 2_000);
        assert_eq!(Tables::default().growth_bytes(1 << 20), 0);
    }
}
