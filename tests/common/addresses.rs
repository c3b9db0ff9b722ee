//! Addresses that a node can come back to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

/// A node's port on a loopback address of its own. Below the range that the system
/// chooses from: a port that the system chose and that was given back may stay taken
/// for a moment, by a process that another test started meanwhile.
const NODE_PORT: u16 = 20_000;

/// Addresses for this many nodes, on a loopback address of their own: a node that is
/// started again needs the same port again, and nobody else may have taken it in between.
pub fn own_addresses<const NODES: usize>() -> [SocketAddr; NODES] {
    let host = own_loopback_address();
    std::array::from_fn(|node| own_address(host, node as u64 + 1))
}

/// Where a node listens on a loopback address that is its cluster's own.
pub fn own_address(host: IpAddr, id: u64) -> SocketAddr {
    SocketAddr::new(host, NODE_PORT + u16::try_from(id).expect("a small number"))
}

/// A loopback address of its own for each caller, in this process and, as far as the
/// process id's lower 14 bits tell them apart, in any other.
pub fn own_loopback_address() -> IpAddr {
    static CALLERS: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let caller = CALLERS.fetch_add(1, Ordering::Relaxed);
    // Not 127.0: the addresses that anybody might use.
    Ipv4Addr::new(127, 1 + (high & 0x3f), low, caller).into()
}
