//! Queries over all shards: what each is asked, how the answers gather and
//! merge into one page, and the cursors between pages.

mod alarms;
mod bulk_get_reply;
mod conflicts;
mod cursor;
mod gathering;
mod merge;
mod node_info;
mod plan;
#[cfg(test)]
mod tests;
mod text_gathering;
mod text_query;
mod utc;

pub use alarms::{Alarm, alarms_body};
pub use bulk_get_reply::BulkGetReply;
pub use conflicts::conflicts_body;
pub use cursor::{TextCursor, decode_key_cursor, encode_key_cursor};
pub use gathering::{CopiedReply, Gathering, NextStage};
pub use merge::{
    KeysMerged, TextMerged, ValueMerged, merge_scan_pages, merge_text_pages, merge_value_pages,
    merge_vector_pages,
};
pub use node_info::{
    DynamoStanding, MemberStanding, Standing, cluster_body, dynamo_body, hello_body, member_body,
    members_body,
};
pub use plan::{Part, Progress, Query, Resume, ScanQuery, ValueQuery, VectorQuery};
pub use text_query::TextQuery;
pub use utc::utc;
