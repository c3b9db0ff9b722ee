//! Every bound of the product in one place, its unit in its name, and the
//! relations between them proved at compile time.

/// The longest request line, without its newline, unless `--max-line-bytes` says otherwise.
pub const LINE_BYTES_MAX_DEFAULT: usize = 16 * MIB;
/// The smallest `--max-line-bytes` that is accepted: one key and a small value must fit.
pub const LINE_BYTES_MAX_SMALLEST: usize = 8 * KIB;
/// The largest `--max-line-bytes`: positions inside a line are 32-bit.
pub const LINE_BYTES_MAX_LARGEST: usize = GIB;
/// How deep JSON may nest; the request object itself is level 1.
pub const JSON_DEPTH_MAX: usize = 64;
/// The longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 4 * KIB;
/// The longest value, in bytes of its JSON text.
pub const VALUE_BYTES_MAX: usize = 8 * MIB;
/// How many records or keys one bulk request may carry.
pub const BATCH_RECORDS_MAX: usize = 10_000;
/// How many numbers a vector may have.
pub const VECTOR_LENGTH_MAX: usize = 4_096;
/// How many words a `search_text` may ask for; a run of Chinese or Japanese is one.
pub const QUERY_WORDS_MAX: usize = 1_024;
/// How long the `query` of a `search_text` may be, in bytes of UTF-8: it bounds the pairs of a run of Chinese or
/// Japanese, which is one word.
pub const QUERY_BYTES_MAX: usize = 64 * KIB;
/// How many characters of a word count, in the form that text is searched in.
pub const WORD_CHARACTERS_MAX: usize = 256;
/// How many matches `vector_search` gives when `top_k` is absent.
pub const TOP_K_DEFAULT: usize = 10;
/// How many items a page has when `limit` is absent.
pub const PAGE_ITEMS_DEFAULT: usize = 1_000;
/// How many items a page (or `top_k`) may ask for; a larger request is capped.
pub const PAGE_ITEMS_MAX: usize = 10_000;
/// A page ends at this many bytes of reply, whatever its `limit`.
pub const PAGE_BYTES_MAX: usize = 4 * MIB;
/// The largest reply of a `bulk_get`.
pub const BULK_GET_BYTES_MAX: usize = 32 * MIB;
/// Unanswered requests and unsent replies of one connection; beyond it the node stops reading that socket.
pub const CONNECTION_IN_FLIGHT_BYTES_MAX: usize = MIB;
/// While requests and replies of all connections together occupy this much, each of them may have only as much under way
/// as one read of its socket brings: a new one is served, and none takes all.
pub const REQUESTS_BYTES_CROWDED: usize = 256 * MIB;
/// Half-read lines over all connections, beyond what one read brings. Of those that would grow beyond it one goes on,
/// the others wait.
pub const HALF_LINES_BYTES_MAX: usize = 256 * MIB;
/// How much one read of a socket brings at most.
pub const SOCKET_READ_BYTES: usize = 64 * KIB;
/// Requests that need several shards (scans, searches, bulks) under way on one connection.
pub const CONNECTION_GATHERS_MAX: usize = 16;
/// Client connections unless the process may open fewer files.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Work admitted and not yet finished over all connections (requests, index hand-over) before writes answer `overloaded`.
pub const NODE_IN_FLIGHT_BYTES_MAX: usize = 512 * MIB;
/// A shard's writes that are let in and not yet indexed take its index this long, as far as can be estimated; further
/// ones wait. A search waits as long for what was acknowledged before it, and one by words up to three times as long: it may ask so often.
pub const INDEX_DEBT_MAX_MS: u64 = 250;
/// Buckets of the keyspace over all shards: the unit of table growth, of a walk and of anti-entropy.
pub const BUCKETS: usize = 4_096;
/// The most shards a node may have.
pub const SHARDS_MAX: usize = 256;
/// How much one log frame gathers before it is written.
pub const FRAME_BYTES_MAX: usize = 64 * MIB;
/// A replicated log's entry takes no more requests once it has so many bytes: entries are sent whole.
pub const ENTRY_BYTES_WANTED: usize = MIB;
/// How much of a replicated log may be proposed and not yet committed before further writes are held back.
pub const UNCOMMITTED_BYTES_MAX: usize = 64 * MIB;
/// A follower with more entries than this on their way to its disk reads no more of them from its peers.
pub const PERSISTING_BYTES_MAX: usize = 64 * MIB;
/// So long a log may be at least for the sake of peers that are being brought up to date by a snapshot or a state; the
/// newest snapshot's size, where that is more.
pub const LOG_HELD_BYTES_LEAST: u64 = 256 * MIB as u64;
/// The size of a log segment unless `--segment-bytes` says otherwise.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * MIB as u64;
/// The smallest `--segment-bytes`.
pub const SEGMENT_BYTES_MIN: u64 = 64 * KIB as u64;
/// The largest `--segment-bytes`.
pub const SEGMENT_BYTES_MAX: u64 = 4 * GIB as u64;
/// The log grows by this much before a snapshot is made, unless `--snapshot-every-bytes` says otherwise.
pub const SNAPSHOT_EVERY_BYTES_DEFAULT: u64 = 256 * MIB as u64;
/// A failed seal is tried again in another new file this many times before the node stops.
pub const SEAL_ATTEMPTS_MAX: u32 = 8;
/// How much of the entries that may still be replaced recovery keeps in memory; it reads the others again.
pub const RECOVERY_HELD_BYTES_MAX: usize = 64 * MIB;
/// Frames up to this length together are one place in the index of entries.
pub const PLACE_BYTES_MAX: u64 = 16 * KIB as u64;
/// The largest `--clock-offset-ms`, in either direction: an hour.
pub const CLOCK_OFFSET_MS_MAX: u64 = 3_600_000;
/// `--request-timeout-ms` unless given.
pub const REQUEST_TIMEOUT_MS_DEFAULT: u64 = 10_000;
/// A started line must make progress within this time while the node is reading.
pub const LINE_PROGRESS_TIMEOUT_MS: u64 = 10_000;
/// A client that doesn't read its replies is closed after this long without progress.
pub const WRITE_PROGRESS_TIMEOUT_MS: u64 = 10_000;
/// An idle log writes one empty frame after this long, so that its last entries are known to be durable.
pub const IDLE_FRAME_AFTER_MS: u64 = 100;

/// Members of a cluster. Every write waits for a majority: more of them make it slower, not safer.
pub const MEMBERS_MAX: usize = 9;
/// A node that lacks no more entries than this has caught up: it may lead, vote and be waited for.
pub const CAUGHT_UP_LAG_ENTRIES_MAX: u64 = 64;
/// In dynamo mode, tombstones of keys that were not there have this part of `--max-memory`. Nodes that
/// are parted may each fill it, and then have all of theirs together: of nine that is little more than half.
pub const ABSENT_TOMBSTONES_DIVISOR: u64 = 16;
/// Lost races that `conflicts` can still show.
pub const CONFLICTS_KEPT_MAX: usize = 1_000;
/// Bytes of their keys and values; the newest is kept, however large it is.
pub const CONFLICTS_KEPT_BYTES_MAX: usize = 8 * MIB;
/// What the node says on its standard error, and nobody has taken yet.
pub const LOGGING_QUEUE_BYTES_MAX: usize = MIB;
/// The highest node id: every client can say it, and a witness' number is never one.
pub const NODE_ID_MAX: u64 = 9_007_199_254_740_991;
/// The longest frame between peers. An entry is never cut, so whatever a log frame can hold fits.
pub const PEER_FRAME_BYTES_MAX: usize = 2_049 * MIB;
/// The longest first line of a peer: every member's name and address fits.
pub const PEER_HELLO_BYTES_MAX: usize = 64 * KIB;
/// Entries that wait for one peer's socket, beyond which they are dropped: Raft sends them again.
pub const PEER_LOG_QUEUE_BYTES_MAX: usize = 64 * MIB;
/// Heartbeats, votes and the like that wait for one peer's socket; newer ones push older ones out.
pub const PEER_HEARTBEAT_QUEUE_MAX: usize = 256;
/// How much of a snapshot's file travels in one frame.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 * KIB;
/// How much of the entries behind a snapshot travels in one frame, if they are not larger themselves.
pub const SNAPSHOT_ENTRIES_BYTES: usize = 4 * MIB;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;

// A value, its key and its envelope fit a line; a key's length fits 16 bits, a vector's too.
const _: () = assert!(VALUE_BYTES_MAX + KEY_BYTES_MAX + KIB <= LINE_BYTES_MAX_DEFAULT);
const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(VECTOR_LENGTH_MAX <= u16::MAX as usize);
const _: () = assert!(LINE_BYTES_MAX_LARGEST <= u32::MAX as usize / 2);
const _: () = assert!(LINE_BYTES_MAX_SMALLEST > KEY_BYTES_MAX);
// A page holds at least one value of the largest size beside others that were cut off.
const _: () = assert!(PAGE_ITEMS_DEFAULT <= PAGE_ITEMS_MAX);
const _: () = assert!(BULK_GET_BYTES_MAX >= VALUE_BYTES_MAX + KEY_BYTES_MAX);
const _: () = assert!(SHARDS_MAX <= BUCKETS);
// What gathers for one log frame fits a peer's frame; its length is 32-bit.
const _: () = assert!(FRAME_BYTES_MAX + LINE_BYTES_MAX_LARGEST <= PEER_FRAME_BYTES_MAX);
const _: () = assert!(PEER_FRAME_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(SNAPSHOT_CHUNK_BYTES + SNAPSHOT_ENTRIES_BYTES < PEER_FRAME_BYTES_MAX);
// A host's name has at most 255 bytes; the rest is for ids and braces.
// A membership may have them twice: as they were, and as they are.
const _: () = assert!(2 * MEMBERS_MAX * KIB < PEER_HELLO_BYTES_MAX);
// The largest request that a line can carry fits a frame.
const _: () = assert!(LINE_BYTES_MAX_DEFAULT * 2 <= FRAME_BYTES_MAX);
