//! What an entry of the log does to a shard's slice.

use super::entry::{Content, Decoded, forgotten, states};
use super::history::SnapshotVector;
use crate::engine::{Placement, Requests, Slice};

/// Applies an entry, as far as it is of this shard. An entry that this node wrote is
/// applied like any other when it comes back by recovery.
///
/// # Panics
///
/// If the entry can't be read. Checksums were right all the way: it is a fault of a
/// node's own.
pub fn apply<T>(slice: &mut Slice<T>, shard: usize, index: u64, entry: &Decoded) {
    let placement: Placement = *slice.table().placement();
    let unreadable = |what: &str| -> ! { panic!("entry {index}: {what}") };
    match entry {
        Decoded::Dotted(dotted) => {
            let last = dotted.row().time;
            let Content::Writes(body) = &dotted.content else { return slice.sees(dotted.origin, last) };
            let mut context = dotted.context.clone();
            // Its writer knew all that it had written before, and nothing later of it can be here.
            context.raise(dotted.origin, u64::MAX);
            let effects = Requests::new(body).map(|item| {
                let (ordinal, effect) = item.unwrap_or_else(|error| unreadable(&error.to_string()));
                (ordinal, effect, placement.hash(effect.key()))
            });
            let effects = effects.filter(|(_, _, hash)| placement.shard(*hash) == shard);
            slice.merge_logged(index, (dotted.stamp(), last), &context, effects);
        }
        Decoded::States { vector, same, states: bytes } => {
            let entries = states(bytes.clone()).map(|entry| {
                let entry = entry.unwrap_or_else(|| unreadable("a key's state can't be read"));
                let hash = placement.hash(entry.key());
                (entry, hash)
            });
            let entries = entries.filter(|(_, hash)| placement.shard(*hash) == shard);
            slice.merge_states(index, entries, *same, &vector.seen());
        }
        Decoded::Forgotten(bytes) => {
            let rows: Vec<_> = forgotten(bytes.clone())
                .map(|row| row.unwrap_or_else(|| unreadable("a forgotten part can't be read")))
                .map(|(key, version)| (placement.hash(&key), key, version))
                .filter(|(hash, ..)| placement.shard(*hash) == shard)
                .collect();
            slice.forget(index, rows.iter().map(|(hash, key, version)| (&key[..], *hash, *version)));
        }
        Decoded::Seen(state) => state.vector.rows().iter().for_each(|row| slice.sees(row.origin, row.time)),
    }
}

/// Begins a slice whose table has all that this says.
pub fn begin<T>(slice: &mut Slice<T>, state: &SnapshotVector) {
    slice.converge(state.vector.seen());
}
