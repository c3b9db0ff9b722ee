//! Queries over all shards: pages merged from each shard's part, and the
//! cursors between pages.

mod cursor;
mod merge;
#[cfg(test)]
mod tests;

pub use cursor::{RankCursor, decode_key_cursor, decode_rank_cursor, encode_key_cursor, encode_rank_cursor};
pub use merge::{
    KeysMerged, TextMerged, ValueMerged, merge_scan_pages, merge_text_pages, merge_value_pages,
    merge_vector_pages,
};
