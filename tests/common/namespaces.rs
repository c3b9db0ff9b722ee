//! A network of the kernel's: each node in a network namespace of its own, and a
//! router between them in one more, in which clients stand, too.
//!
//! ```text
//! namespace of node 1            router (and clients)             namespace of node 2
//! 10.213.1.2 ──────── 10.213.1.1 ── forwards ── 10.213.2.1 ──────── 10.213.2.2
//!                        rule: from 10.213.1.2 to 10.213.2.2 → blackhole
//! ```
//!
//! A cut is a rule of the router that drops packets of one node to another one
//! without a word. Nothing leaves the namespaces, and they go when the test ends. It
//! takes root and the `ip` of iproute2.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datastore_utilities::linearizability::Dial;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::network::{Id, Network};

/// What the names of all namespaces begin with; the test's process id follows.
const NAME: &str = "datastore";
/// Every node has an address of its own, so all have one port.
const PORT: u16 = 9000;
/// Rules are numbered from here, ahead of the router's own.
const FIRST_RULE: usize = 100;

/// The network.
pub struct Namespaces {
    prefix: String,
    ids: Vec<Id>,
    /// The cuts; a cut's rule has its place here for a number.
    cuts: Mutex<Vec<(Id, Id)>>,
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.map_err(|error| format!("ip can't be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn host(id: Id) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, id as u8, 2)
}

/// Removes the namespaces of tests that were killed before they could do so.
fn remove_leftovers() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.split('-');
        let is_ours = parts.next() == Some(NAME);
        let pid = parts.next().and_then(|pid| pid.parse::<u32>().ok());
        if let (true, Some(pid)) = (is_ours, pid)
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            // Another test may have been faster.
            drop(ip(&format!("netns del {name}")));
        }
    }
}

impl Namespaces {
    /// Makes them, or says why that can't be.
    pub fn make(ids: &[Id]) -> Result<Namespaces, String> {
        static NETWORKS: AtomicU32 = AtomicU32::new(0);
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        remove_leftovers();
        let prefix = format!("{NAME}-{}-{number}", std::process::id());
        // From here on it is dropped, and what was made goes, even if the rest fails.
        let network = Namespaces { prefix, ids: ids.to_vec(), cuts: Mutex::default() };
        let router = network.router();
        ip(&format!("netns add {router}"))?;
        ip(&format!("-n {router} link set lo up"))?;
        let forward = ["netns", "exec", &router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
        let status = Command::new("ip").args(forward).status().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err("the router may not forward".to_string());
        }
        for id in ids {
            let (node, router_host) = (network.namespace(*id), Ipv4Addr::new(10, 213, *id as u8, 1));
            ip(&format!("netns add {node}"))?;
            ip(&format!("-n {router} link add node{id} type veth peer name eth0 netns {node}"))?;
            ip(&format!("-n {router} addr add {router_host}/24 dev node{id}"))?;
            ip(&format!("-n {router} link set node{id} up"))?;
            ip(&format!("-n {node} addr add {}/24 dev eth0", host(*id)))?;
            ip(&format!("-n {node} link set eth0 up"))?;
            ip(&format!("-n {node} link set lo up"))?;
            ip(&format!("-n {node} route add default via {router_host}"))?;
        }
        // Else the first cut would be where it is found out that this kernel has no rules.
        network.try_cut(ids[0], ids[0])?;
        network.heal();
        Ok(network)
    }

    fn router(&self) -> String {
        format!("{}-router", self.prefix)
    }

    /// The namespace of a node.
    pub fn namespace(&self, id: Id) -> String {
        format!("{}-{id}", self.prefix)
    }

    fn try_cut(&self, from: Id, to: Id) -> Result<(), String> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        if cuts.contains(&(from, to)) {
            return Ok(());
        }
        let number = FIRST_RULE + cuts.len();
        let (from_host, to_host) = (host(from), host(to));
        ip(&format!("-n {} rule add from {from_host} to {to_host} blackhole pref {number}", self.router()))?;
        cuts.push((from, to));
        Ok(())
    }
}

/// Does something in a namespace. It takes a thread, since a thread is in one namespace;
/// a socket stays in that in which it was made.
pub fn within<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    let entered = || {
        let file = File::open(format!("/run/netns/{namespace}"))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(act())
    };
    std::thread::scope(|scope| scope.spawn(entered).join().expect("it doesn't panic"))
}

impl Network for Namespaces {
    fn address(&self, id: Id) -> SocketAddr {
        (host(id), PORT).into()
    }

    fn route(&self, _: Id, to: Id) -> SocketAddr {
        self.address(to)
    }

    fn way_in(&self, id: Id) -> (Vec<String>, Vec<String>) {
        let command = ["ip", "netns", "exec", &self.namespace(id)].map(String::from).to_vec();
        (command, vec!["--insecure".to_string()])
    }

    fn dial(&self) -> Dial {
        let router = self.router();
        Arc::new(move |address: SocketAddr, timeout: Duration| {
            within(&router, || TcpStream::connect_timeout(&address, timeout))?
        })
    }

    fn cut(&self, from: Id, to: Id) {
        self.try_cut(from, to).expect("the first cut went well, too");
    }

    fn heal(&self) {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        for number in 0..cuts.len() {
            ip(&format!("-n {} rule del pref {}", self.router(), FIRST_RULE + number)).expect("it was added");
        }
        cuts.clear();
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Some may not have been made. The links go with the namespaces.
        for id in &self.ids {
            drop(ip(&format!("netns del {}", self.namespace(*id))));
        }
        drop(ip(&format!("netns del {}", self.router())));
    }
}
