//! A call: a request with the type of its result.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;

use super::results::{Consistency, Copies};
use super::{DatastoreConnector, Error, Reply, Request};

/// An operation: what it gives back, and how it is carried out.
pub trait Operation: Send + Sync + Sized + 'static {
    /// What the call gives.
    type Output: Send;

    /// Carries a call out.
    fn run(call: Call<Self>) -> impl Future<Output = Result<Self::Output, Error>> + Send;
}

/// An operation of one request and one reply.
pub trait Single: Send + Sync + Sized + 'static {
    /// What the call gives.
    type Output: Send;

    /// Reads it from a reply.
    ///
    /// # Errors
    ///
    /// `bad_reply` when the reply lacks it.
    fn read(reply: &Reply) -> Result<Self::Output, Error>;
}

impl<O: Single> Operation for O {
    type Output = <O as Single>::Output;

    async fn run(call: Call<O>) -> Result<Self::Output, Error> {
        O::read(&call.connector.send(call.request).await?)
    }
}

/// Writes, of which it may be said how many members must have them.
pub trait Write {}

/// Writes that may depend on the key's version.
pub trait Conditional {}

/// Reads, whose consistency may be chosen.
pub trait Read {}

/// Reads of many keys, which may be kept to those that begin with a prefix.
pub trait Prefixed {}

/// A call that is made by awaiting it.
#[must_use = "a call is made by awaiting it"]
pub struct Call<O> {
    pub(super) connector: DatastoreConnector,
    pub(super) request: Request,
    /// How many items a call of many pages may give; `None` for all.
    pub(super) limit: Option<usize>,
    operation: PhantomData<fn() -> O>,
}

impl<O> Call<O> {
    pub(super) fn new(connector: &DatastoreConnector, operation: &str) -> Call<O> {
        Call {
            connector: connector.clone(),
            request: Request::new(operation),
            limit: None,
            operation: PhantomData,
        }
    }

    /// The same call with one more field of the protocol.
    pub fn with(mut self, name: &str, value: impl serde::Serialize) -> Call<O> {
        self.request = self.request.with(name, value);
        self
    }
}

impl<O: Write> Call<O> {
    /// Acknowledged when so many members have it; else `replication_timeout` (dynamo mode).
    pub fn w(self, copies: Copies) -> Call<O> {
        self.with("w", copies)
    }
}

impl<O: Conditional> Call<O> {
    /// Only if the key has this version; else `version_mismatch`, with the current one.
    pub fn if_version(self, version: &str) -> Call<O> {
        self.with("if_version", version)
    }

    /// Only if the key doesn't exist; else `version_mismatch`, with the current version.
    pub fn if_missing(self) -> Call<O> {
        self.with("if_version", ())
    }
}

impl<O: Prefixed> Call<O> {
    /// Only keys that begin with this.
    pub fn prefix(self, prefix: &str) -> Call<O> {
        self.with("prefix", prefix)
    }
}

impl<O: Read> Call<O> {
    /// How fresh the answer must be.
    pub fn consistency(self, consistency: Consistency) -> Call<O> {
        self.with("consistency", consistency)
    }

    /// Sees at least the write that gave this version (dynamo mode).
    pub fn after_version(self, version: &str) -> Call<O> {
        self.with("after_version", version)
    }
}

impl<O: Operation> IntoFuture for Call<O> {
    type Output = Result<O::Output, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(O::run(self))
    }
}
