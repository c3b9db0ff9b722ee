//! The network between the nodes of a cluster, which a test can part.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

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

/// A loopback address of its own for each caller: a node that is started again needs
/// the same port again, and nobody else may have taken it in between.
pub fn own_loopback_address() -> IpAddr {
    static CALLERS: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 1 | high, low, CALLERS.fetch_add(1, Ordering::Relaxed)).into()
}
