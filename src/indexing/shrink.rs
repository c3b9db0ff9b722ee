//! Giving memory back after deletes.
//!
//! A table that has grown keeps its size by itself. The node counts what indexes
//! occupy against `--max-memory`, so one that was full once and is empty now
//! would refuse writes for ever.

use hashbrown::HashTable;

/// A table or vector of so many places is not worth shrinking.
const SMALL: usize = 1024;
/// Shrunk when fewer than one place in this many is taken, to twice what is
/// taken: between growing and shrinking, as many changes pass as it costs moves.
const SPARSE: usize = 8;

fn is_sparse(taken: usize, places: usize) -> bool {
    places > SMALL && taken < places / SPARSE
}

/// Shrinks a table that has become sparse.
pub(super) fn shrink_table<T>(table: &mut HashTable<T>, hash: impl Fn(&T) -> u64) {
    if is_sparse(table.len(), table.capacity()) {
        table.shrink_to(table.len() * 2, hash);
    }
}

/// Shrinks a vector that has become sparse.
pub(super) fn shrink_vector<T>(vector: &mut Vec<T>) {
    if is_sparse(vector.len(), vector.capacity()) {
        vector.shrink_to(vector.len() * 2);
    }
}
