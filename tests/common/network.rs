//! The network between the nodes of a cluster, which a test can part.

use std::net::SocketAddr;

use datastore_utilities::linearizability::Dial;

use super::namespaces::Namespaces;
use super::proxies::Proxies;

/// A node's number in its cluster.
pub type Id = u64;

/// What lies between the nodes. Clients are never parted from any of them.
pub trait Network: Send + Sync {
    /// Where a node listens.
    fn address(&self, id: Id) -> SocketAddr;
    /// Where a node is told that another one is.
    fn route(&self, from: Id, to: Id) -> SocketAddr;
    /// The command that a node is started through, and the flags that it needs.
    fn way_in(&self, id: Id) -> (Vec<String>, Vec<String>);
    /// How clients reach the nodes' addresses.
    fn dial(&self) -> Dial;
    /// Nothing that one node sends reaches the other any more, and neither is told.
    fn cut(&self, from: Id, to: Id);
    /// All cuts are undone.
    fn heal(&self);
}

/// Says which network to use: `proxy` or `namespaces`. Namespaces where this process
/// may make them, unless given.
pub const PARTITIONS_VARIABLE: &str = "DATASTORE_PARTITIONS";

/// A network for these nodes.
pub fn network(ids: &[Id]) -> Box<dyn Network> {
    let wanted = std::env::var(PARTITIONS_VARIABLE).ok();
    let namespaces = || Namespaces::make(ids).map(|network| Box::new(network) as Box<dyn Network>);
    match wanted.as_deref() {
        Some("proxy") => Box::new(Proxies::start(ids)),
        Some("namespaces") => {
            namespaces().unwrap_or_else(|reason| panic!("{PARTITIONS_VARIABLE}=namespaces: {reason}"))
        }
        Some(other) => panic!("{PARTITIONS_VARIABLE} is proxy or namespaces, not {other}"),
        None => namespaces().unwrap_or_else(|reason| {
            println!("partitions by proxies, since there can be no network namespaces: {reason}");
            Box::new(Proxies::start(ids))
        }),
    }
}
