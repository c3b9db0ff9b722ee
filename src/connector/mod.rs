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
mod operations;
mod request;
mod results;
mod searches;

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub use call::{Call, Conditional, Operation, Read, Single};
pub use error::Error;
pub use operations::{
    AddMember, AddVector, BulkDelete, BulkGet, BulkSet, Cluster, Conflicts, Count, Delete, Evict, Get,
    GetEntry, GetVector, Hello, Ping, Promote, RemoveMember, Set, Snapshot, Stats,
};
pub use request::{Reply, Request};
pub use results::{BulkEntry, BulkWritten, Consistency, Entry, Item, SnapshotMade, TextMatch, VectorMatch};
pub use searches::{Paged, Pages, Scan, SearchByValue, SearchText, VectorSearch};

use connection::Target;

/// Calls that wait for the socket before the next one waits for room.
const WAITING_CALLS_MAX: usize = 1_024;

/// How long a connector waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// For a connection to be accepted. 5 s unless set.
    pub connect_timeout: Duration,
    /// For a reply, from the call on. 15 s unless set: more than the node's own
    /// `--request-timeout-ms`, so that its answer, which knows more, comes first.
    /// A connection on which no reply came in this time is closed.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { connect_timeout: Duration::from_secs(5), timeout: Duration::from_secs(15) }
    }
}

/// The results of a pipeline, in the order of its calls.
pub type Pipelined<'a, O> =
    Pin<Box<dyn Future<Output = Vec<Result<<O as Single>::Output, Error>>> + Send + 'a>>;

/// A client of one node. Cloning it is cheap; clones share the connection.
#[derive(Clone)]
pub struct DatastoreConnector {
    address: String,
    options: Options,
    calls: mpsc::Sender<connection::Call>,
}

impl DatastoreConnector {
    /// Connects to `host:port` and greets the node.
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
        let (calls, waiting) = mpsc::channel(WAITING_CALLS_MAX);
        let target = Target {
            address: address.to_string(),
            connect_timeout: options.connect_timeout,
            timeout: options.timeout,
        };
        tokio::spawn(connection::run(target, waiting));
        DatastoreConnector { address: address.to_string(), options, calls }
    }

    /// The node's address, as it was given.
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
        let changes = request.changes();
        let line = request.into_line()?;
        let reply = self.send_line(line.clone(), changes).await;
        match reply {
            // It may have been answered by a node that is gone: nothing was changed, so ask again.
            Err(error) if !changes && error.code == error::CONNECTION_LOST => {
                self.send_line(line, changes).await
            }
            reply => reply,
        }
    }

    /// Makes many calls at once, in this order over one connection, and gives
    /// their results in this order. One that fails doesn't keep the others back.
    ///
    /// The calls are collected before anything waits, so that what they were made
    /// of needn't outlive a wait, and the future may go to a task of its own.
    pub fn pipeline<O: Single>(&self, calls: impl IntoIterator<Item = Call<O>>) -> Pipelined<'_, O> {
        let requests: Vec<Request> = calls.into_iter().map(|call| call.request).collect();
        Box::pin(async move {
            let mut waiting = Vec::with_capacity(requests.len());
            for request in requests {
                let changes = request.changes();
                waiting.push(match request.into_line() {
                    Ok(line) => Ok((self.enqueue(line, changes).await, changes)),
                    Err(error) => Err(error),
                });
            }
            let mut results = Vec::with_capacity(waiting.len());
            for sent in waiting {
                results.push(match sent {
                    Ok((reply, changes)) => self.wait(reply, changes).await.and_then(|reply| O::read(&reply)),
                    Err(error) => Err(error),
                });
            }
            results
        })
    }

    async fn send_line(&self, line: bytes::Bytes, changes: bool) -> Result<Reply, Error> {
        let reply = async { self.wait(self.enqueue(line, changes).await, changes).await };
        tokio::time::timeout(self.options.timeout, reply).await.unwrap_or_else(|_| {
            let message =
                format!("{}: no reply within {} ms", self.address, self.options.timeout.as_millis());
            Err(Error::unanswered(error::CLIENT_TIMEOUT, message, changes))
        })
    }

    /// Hands a line to the connection's task, waiting for room.
    async fn enqueue(&self, line: bytes::Bytes, changes: bool) -> oneshot::Receiver<Result<Reply, Error>> {
        let (done, reply) = oneshot::channel();
        // A task that is gone drops `done`, which the receiver tells.
        self.calls.send(connection::Call { line, changes, done }).await.ok();
        reply
    }

    async fn wait(
        &self,
        reply: oneshot::Receiver<Result<Reply, Error>>,
        changes: bool,
    ) -> Result<Reply, Error> {
        reply.await.unwrap_or_else(|_| {
            let message = format!("{}: the runtime of this connector has ended", self.address);
            Err(Error::unanswered(error::CONNECTION_LOST, message, changes))
        })
    }
}
