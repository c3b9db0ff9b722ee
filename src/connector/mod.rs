//! `DatastoreConnector`, the Rust client (feature `client`).
//!
//! Calls are builders: `client.set("k", &1)` is a call with nothing but what it
//! needs, `.if_absent()` narrows it, `.await` makes it. Whatever is called at the
//! same time, from any number of tasks, is pipelined over one connection; a
//! connection sees its own writes, so a search behind a write finds it.
//!
//! ```
//! use datastore::connector::DatastoreConnector;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), datastore::connector::Error> {
//! # // Set where a node runs: tests/connector.rs starts one for these examples.
//! # let Ok(address) = std::env::var("DATASTORE_ADDRESS") else { return Ok(()) };
//! let client = DatastoreConnector::connect(&address).await?; // "127.0.0.1:9000"
//! client.set("username", "alice").await?;
//! let username: Option<String> = client.get("username").await?;
//! assert_eq!(username.as_deref(), Some("alice"));
//!
//! client.bulk_set([("user:1", "Alice"), ("user:2", "Bob")]).await?;
//! client.add_vector("user:1", &[1.0, 0.2, 0.3]).await?;
//! let hits = client.search_text("alice").limit(10).await?;
//! assert_eq!(hits[0].key, "user:1");
//!
//! let mut pages = client.scan().prefix("user:").pages();
//! while let Some(items) = pages.next().await? {
//!     assert_eq!(items.len(), 2);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Several nodes
//!
//! `connect("10.0.0.1:9000,10.0.0.2:9000,10.0.0.3:9000")` takes the first address
//! that answers. Writes and linearizable reads find the leader: a request that is
//! answered `not_leader` goes to the node named, and while nobody leads
//! (`no_leader`, `no_quorum`, `starting`, a leader that is not known) around the addresses,
//! with growing pauses, up to [`Options::patience`]; then the last error is given
//! back. All of these say that nothing happened, so writes go on, too. A write
//! whose connection was lost is never sent again.
//!
//! Reads with [`Consistency::Local`] or [`Consistency::MaxStalenessMs`], and what
//! is about one node (`ping`, `hello`, `stats`, `cluster`, `snapshot`, `promote`
//! of no other), stay at the first address that can be reached and isn't `starting`. A read without a
//! consistency goes where writes go, and a replica answers it locally: until the
//! first write or linearizable read has found the leader it may be a replica's
//! answer.
//!
//! A node that is stopped, or whose machine is gone without a word, brings nothing and refuses
//! nothing. So where other nodes can be asked, one that has brought no byte for
//! [`Options::silence`], and answers no ping on a second connection either, is left for the next
//! address: reads are repeated there, a write is [`error::CONNECTION_LOST`] with an unknown
//! outcome. A connection to one of several nodes begins with a ping, so that nothing is handed to one
//! that only seems to be there. It is asked again once it has answered a ping. A node that is only slow answers pings,
//! and is waited for.
//!
//! The order of requests on a connection is the node's promise for that
//! connection. Order between requests that are in flight at the same time is not
//! promised across a change of leader: one that is sent again may come after
//! later ones. A request that begins after another one's reply comes after it.
//!
//! # What failed, and did it happen?
//!
//! An [`Error`] has the protocol's `code`, `retryable` and `outcome`. The client
//! adds codes of its own: [`error::NOT_CONNECTED`] (nothing was sent),
//! [`error::CONNECTION_LOST`], [`error::CLIENT_TIMEOUT`] and
//! [`error::BAD_REPLY`] (sent, and no answer to trust: a write's outcome is
//! unknown), [`error::BAD_ARGUMENT`]. A request that changes nothing is sent once
//! more when its connection is lost; a write never is.
//!
//! ```
//! use datastore::connector::DatastoreConnector;
//! use datastore::error::{Code, Outcome};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), datastore::connector::Error> {
//! # let Ok(address) = std::env::var("DATASTORE_ADDRESS") else { return Ok(()) };
//! let client = DatastoreConnector::connect(&address).await?;
//! let five = client.set("stock", &5).await?;
//! client.set("stock", &4).if_version(&five).await?;
//! match client.set("stock", &3).if_version(&five).await {
//!     Ok(version) => println!("now at {version}"),
//!     Err(error) if error.is(Code::VersionMismatch) => println!("it is at {}", error.details["current"]),
//!     Err(error) if error.outcome == Outcome::Unknown => println!("read it to find out: {error}"),
//!     Err(error) => println!("it did not happen: {error}"),
//! }
//! # assert_eq!(client.get::<u32>("stock").await?, Some(4));
//! # Ok(())
//! # }
//! ```

mod call;
mod connection;
pub mod error;
mod nodes;
mod operations;
mod request;
mod results;
mod searches;
mod silence;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use call::{Call, Conditional, Operation, Prefixed, Read, Single, Write};
pub use error::Error;
pub use operations::{
    AddMember, AddVector, BulkDelete, BulkGet, BulkSet, Cluster, Conflicts, Count, Delete, Evict, Get,
    GetEntry, GetVector, Hello, Ping, Promote, RemoveMember, Set, Snapshot, Stats,
};
pub use request::{Reply, Request};
pub use results::{
    BulkEntry, BulkWritten, Consistency, Copies, Entry, Item, SnapshotMade, TextMatch, VectorMatch,
};
pub use searches::{Page, Paged, Pages, Scan, SearchByValue, SearchText, VectorSearch};

use bytes::Bytes;
use nodes::{Link, Nodes, Route, Search};
use tokio::time::Instant;

use crate::error::Outcome;

/// Calls that wait for the socket before the next one waits for room.
const WAITING_CALLS_MAX: usize = 1_024;

/// How long a connector waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// For a connection to be accepted. 5 s unless set.
    pub connect_timeout: Duration,
    /// For a call, whatever it waits for: no call takes longer. 15 s unless set: more than the
    /// node's own `--request-timeout-ms`, so that its answer, which knows more, comes first. In
    /// a pipeline for each reply, from its request on. A connection on which no reply came in this
    /// time is closed.
    pub timeout: Duration,
    /// For a leader, from the first answer that names none or another one, within the call's
    /// `timeout`. 10 s unless set: more than `connect_timeout`, so that a leader whose machine is
    /// gone doesn't use it up. With none, such answers are given back as they come.
    pub patience: Duration,
    /// For a sign of life, where other nodes can be asked: a node that has brought no byte for this
    /// time, and answers no ping on a connection of its own either, is left for the next one until
    /// it answers a ping. 1 s unless set.
    pub silence: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(15),
            patience: Duration::from_secs(10),
            silence: Duration::from_secs(1),
        }
    }
}

/// The results of a pipeline, in the order of its calls.
pub type Pipelined<'a, O> =
    Pin<Box<dyn Future<Output = Vec<Result<<O as Single>::Output, Error>>> + Send + 'a>>;

/// A client of a node or a cluster. Cloning it is cheap; clones share the connections.
#[derive(Clone)]
pub struct DatastoreConnector {
    address: Arc<str>,
    timeout: Duration,
    nodes: Arc<Nodes>,
}

impl DatastoreConnector {
    /// Connects to `host:port`, or to the first that answers of several with
    /// commas between them, and greets the node.
    ///
    /// # Errors
    ///
    /// `not_connected` when nobody is there; `unsupported_protocol` or
    /// `bad_reply` when it isn't a node that this client can talk to.
    pub async fn connect(address: &str) -> Result<DatastoreConnector, Error> {
        DatastoreConnector::connect_with(address, Options::default()).await
    }

    /// [`DatastoreConnector::connect`] with other times.
    ///
    /// # Errors
    ///
    /// As [`DatastoreConnector::connect`].
    pub async fn connect_with(address: &str, options: Options) -> Result<DatastoreConnector, Error> {
        let connector = DatastoreConnector::lazy(address, options);
        connector.hello().await?;
        Ok(connector)
    }

    /// A connector that connects at its first call, and again at the first call
    /// after a connection was lost. Must be made inside a tokio runtime.
    pub fn lazy(address: &str, options: Options) -> DatastoreConnector {
        let timeout = options.timeout;
        DatastoreConnector { address: address.into(), timeout, nodes: Arc::new(Nodes::new(address, options)) }
    }

    /// The address or addresses, as they were given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends any request and gives its reply: for operations and fields that
    /// this version has no method for.
    ///
    /// # Errors
    ///
    /// The node's error, or one of the client's own.
    pub async fn send(&self, request: Request) -> Result<Reply, Error> {
        let (route, changes) = (request.route(), request.changes());
        let line = request.into_line()?;
        let until = Instant::now() + self.timeout;
        let mut search = Search::new(&self.nodes, route, until);
        loop {
            match self.send_line(&search.node, line.clone(), changes, until).await {
                Err(error) if search.may_help(&error) && search.go_on(&error).await => {}
                result => return result,
            }
        }
    }

    /// Makes many calls at once, in this order over one connection, and gives
    /// their results in this order. One that fails doesn't keep the others back.
    /// Those that a node didn't take because it doesn't lead go on together. A write behind one
    /// whose outcome is unknown is not sent again: it could be overtaken by that.
    ///
    /// The calls are collected before anything waits, so that what they were made
    /// of needn't outlive a wait, and the future may go to a task of its own.
    pub fn pipeline<O: Single>(&self, calls: impl IntoIterator<Item = Call<O>>) -> Pipelined<'_, O> {
        let requests: Vec<Request> = calls.into_iter().map(|call| call.request).collect();
        Box::pin(async move {
            let is_near = requests.iter().all(|request| request.route() == Route::Near);
            let route = if is_near { Route::Near } else { Route::Leader };
            let mut search = Search::new(&self.nodes, route, Instant::now() + self.timeout);
            let mut lines = Vec::with_capacity(requests.len());
            let mut results = Vec::with_capacity(requests.len());
            for (place, request) in requests.into_iter().enumerate() {
                let changes = request.changes();
                results.push(request.into_line().map(|line| {
                    lines.push((place, line, changes));
                    None
                }));
            }
            while !lines.is_empty() {
                let mut waiting = Vec::with_capacity(lines.len());
                let was_silent = search.is_silent();
                for (_, line, changes) in &lines {
                    // What is not sent yet when the node is left need not wait for it.
                    let is_left = search.is_silent() && !was_silent;
                    let sent =
                        if is_left { None } else { Some(search.node.enqueue(line.clone(), *changes).await) };
                    waiting.push(sent);
                }
                for ((place, _, changes), reply) in lines.iter().zip(waiting) {
                    results[*place] = match reply {
                        Some(reply) => search.node.wait(reply, *changes).await.map(Some),
                        None => Err(Error::not_connected(format!("{} was left", search.node.address))),
                    };
                }
                // A write behind one that may still happen could be overtaken by it.
                let is_unknown = |(place, ..): &(usize, Bytes, bool)| {
                    results[*place].as_ref().is_err_and(|error| error.outcome == Outcome::Unknown)
                };
                let unknown = lines.iter().find(|line| is_unknown(line)).map(|(place, ..)| *place);
                lines.retain(|(place, _, changes)| {
                    let is_behind = unknown.is_some_and(|unknown| *place > unknown);
                    results[*place].as_ref().is_err_and(|error| search.may_help(error))
                        && !(is_behind && *changes)
                });
                let first = lines.first().and_then(|(place, ..)| results[*place].as_ref().err());
                match first {
                    Some(error) if search.go_on(error).await => {}
                    _ => break,
                }
            }
            // Every line has its reply: `None` stood only for those still to be sent.
            results.into_iter().filter_map(Result::transpose).map(|reply| O::read(&reply?)).collect()
        })
    }

    async fn send_line(
        &self,
        node: &Link,
        line: bytes::Bytes,
        changes: bool,
        until: Instant,
    ) -> Result<Reply, Error> {
        let reply = async { node.wait(node.enqueue(line, changes).await, changes).await };
        tokio::time::timeout_at(until, reply).await.unwrap_or_else(|_| {
            let message = format!("{}: no reply within {} ms", node.address, self.timeout.as_millis());
            Err(Error::unanswered(error::CLIENT_TIMEOUT, message, changes))
        })
    }
}
