//! The pure core of `datastore-node`: protocol, keyspace, log, indexes and
//! queries. It has no threads, no sockets and no clock; files only through a
//! trait. The actors in `datastore-node` carry out what it decides.
//!
//! # The map
//!
//! Modules import in one direction; each knows only those above it here.
//!
//! - [`limits`]: every bound of the product, its unit in its name, the relations
//!   between them proved when compiling.
//! - [`version`]: the version of a key is the position of the write that made it,
//!   entry index and the request's ordinal in the entry.
//! - [`error`]: many things go wrong inside; a client sees a code, whether to try
//!   again, and whether the request happened. One table holds all three.
//! - [`engine`]: a shard's slice of the keyspace as a state machine. Requests go
//!   in; out come answers, effects for the log and changes for the indexes. It
//!   knows who waits for which write, and what may not be shown yet.
//! - [`ordering`]: two small machines. A barrier decides when a connection's next
//!   request may leave; a meeting holds the parts of a multi-key write until the
//!   last one is there.
//! - [`persistence`]: the write-ahead log (frames in segments, sealing after a
//!   failed sync), recovery, snapshots and the directory's identity, over a small
//!   trait of disk operations that the crash tests implement, too.
//! - [`messaging`]: the wire. All whole lines of a socket read become requests
//!   that point into its bytes; results become lines, written by hand.
//! - [`indexing`]: by value, by text, by vector and by key, over one slice. A
//!   change is in every index when `apply` returns.
//! - [`address`]: hosts and ports as people write them.
//! - [`settings`]: flags, checked once; what can't be is refused with the reason.
//! - [`query`]: what every shard is asked, how the answers gather and merge into
//!   one page, and the cursors between pages.
//!
//! - [`replication`]: leader mode. Who leads, which entries of the log are
//!   committed, what goes to which node: inputs in, effects out, and a simulation
//!   that runs it over a virtual clock, network and disk.
//! - `connector` (feature `client`): the Rust client, the one part that opens
//!   sockets. It shares the table of errors with the node, and nothing else.
//!
//! # A write, top to bottom
//!
//! ```text
//!  bytes ─► messaging ─► ordering ──► engine ────► ordering ──► persistence
//!           LineDecoder  Barrier      Slice::write Meeting      Log::append
//!           a line       may it       condition,   parts of a   one frame,
//!           becomes an   leave yet?   ticket,      multi-key    one sync
//!           Operation                 effects      write          │
//!                                                                 ▼ durable
//!  bytes ◄─ messaging ◄─────────────── engine ◄───────────── entry index
//!           reply        answers       Slice::committed
//!                                        │ changes, before the answers
//!                                        ▼
//!                                      indexing
//!                                      Indexes::apply
//! ```
//!
//! The arrows between the boxes are messages of actors; `docs/ARCHITECTURE.md`
//! names them. Nothing here blocks, and nothing here reads a clock.
//!
//! # Example
//!
//! The same path without an actor: a line is decoded, applied to a slice once a
//! log has made it durable, and found.
//!
//! ```
//! use datastore::engine::{Answer, Condition, Placement, Slice, Table, WriteKind};
//! use datastore::indexing::{Budget, Indexes, Kinds, TextAsked, TextStep, terms_of_query};
//! use datastore::messaging::{LineDecoder, Match, Operation};
//!
//! let read = concat!(r#"{"op":"set","key":"bio","value":"likes databases"}"#, "\n");
//! let mut decoded = LineDecoder::new(1024 * 1024).decode(read.as_bytes()).expect("a whole line");
//! let request = decoded.requests.remove(0);
//! let Ok(Operation::Set { key, value, .. }) = request.operation else { panic!("it is a set") };
//!
//! let placement = Placement::new((1, 2), 1);
//! let mut slice: Slice<&str> = Slice::new(Table::new(placement, 0), 0);
//! let arena = &decoded.arena;
//! let hash = placement.hash(key.of(arena));
//! slice.write("me", arena, key.of(arena), hash, WriteKind::Set(value.slice(arena)), Condition::None);
//! assert!(slice.output().answers.is_empty(), "nothing is said before it is durable");
//!
//! let writes = std::mem::take(&mut slice.output().append).writes;
//! slice.committed(1, &[(writes[0], 0)]); // entry 1, its request 0
//! let (_, answer) = slice.output().answers.remove(0);
//! assert!(matches!(answer, Answer::Written(version) if version.to_string() == "1.0"));
//!
//! let mut indexes = Indexes::new(Kinds::ALL, (1, 2));
//! slice.output().changes.iter().for_each(|change| indexes.apply(change));
//! let terms = terms_of_query("Databases").expect("few words");
//! let statistics = indexes.text_statistics(&terms);
//! let budget = Budget::unlimited();
//! let (terms, statistics, matching) = (&terms[..], &statistics, Match::All);
//! let asked = TextAsked { terms, matching, prefix: None, statistics, after: None, limit: 10 };
//! let Ok(TextStep::Done(page)) = indexes.search_text(&asked, None, &budget) else { panic!("it is short") };
//! assert_eq!(page.hits[0].entry.key(), b"bio");
//! ```

pub mod address;
#[cfg(feature = "client")]
pub mod connector;
pub mod engine;
pub mod error;
pub mod indexing;
pub mod limits;
pub mod messaging;
pub mod ordering;
pub mod persistence;
pub mod query;
pub mod replication;
pub mod settings;
pub mod version;
