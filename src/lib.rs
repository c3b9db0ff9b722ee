//! The pure core of `datastore-node`: protocol, keyspace, log, indexes and
//! queries. It has no threads, no sockets and no clock; files only through a
//! trait. The actors in `datastore-node` carry out what it decides.

pub mod engine;
pub mod error;
pub mod indexing;
pub mod limits;
pub mod messaging;
pub mod ordering;
pub mod persistence;
pub mod query;
pub mod settings;
pub mod version;
