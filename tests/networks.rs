//! The networks that tests of clusters part really part: what is cut is cut, in that
//! direction only, silently, and comes through when it is healed.

#![allow(clippy::expect_used, clippy::unwrap_used)] // a test stops where it fails

#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use cluster::namespaces::{Namespaces, within};
use cluster::network::Network;
use cluster::proxies::Proxies;
use common::PATIENCE;

/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(300);

/// What a test does in the place of a node.
trait Nodes: Network {
    fn listen(&self, id: u64) -> TcpListener;
    fn connect(&self, from: u64, to: SocketAddr, timeout: Duration) -> std::io::Result<TcpStream>;
}

impl Nodes for Proxies {
    fn listen(&self, id: u64) -> TcpListener {
        TcpListener::bind(self.address(id)).expect("the port is kept for it")
    }

    fn connect(&self, _: u64, to: SocketAddr, timeout: Duration) -> std::io::Result<TcpStream> {
        TcpStream::connect_timeout(&to, timeout)
    }
}

impl Nodes for Namespaces {
    fn listen(&self, id: u64) -> TcpListener {
        within(&self.namespace(id), || TcpListener::bind(self.address(id))).unwrap().expect("nobody has it")
    }

    fn connect(&self, from: u64, to: SocketAddr, timeout: Duration) -> std::io::Result<TcpStream> {
        within(&self.namespace(from), || TcpStream::connect_timeout(&to, timeout))?
    }
}

/// Node 2, and a connection of node 1 to it: both ends.
fn connected(network: &dyn Nodes) -> (TcpListener, TcpStream, TcpStream) {
    let listener = network.listen(2);
    let near = network.connect(1, network.route(1, 2), PATIENCE).expect("it listens");
    let (far, _) = listener.accept().expect("it was connected to");
    (listener, near, far)
}

fn passes(from: &mut TcpStream, to: &mut TcpStream, byte: u8) {
    from.write_all(&[byte]).expect("it is open");
    arrives(to, byte);
}

fn arrives(to: &mut TcpStream, byte: u8) {
    let mut read = [0];
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    to.read_exact(&mut read).expect("it arrives");
    assert_eq!(read, [byte]);
}

fn is_silent(to: &mut TcpStream) {
    to.set_read_timeout(Some(SILENCE)).unwrap();
    let error = to.read(&mut [0]).expect_err("nothing arrives");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
}

fn cuts_and_heals(network: &dyn Nodes) {
    let (listener, mut near, mut far) = connected(network);
    passes(&mut near, &mut far, 1);
    passes(&mut far, &mut near, 2);

    network.cut(1, 2);
    near.write_all(&[3]).expect("a cut is silent");
    is_silent(&mut far);
    network.heal();
    arrives(&mut far, 3);

    network.cut(2, 1);
    far.write_all(&[4]).expect("a cut is silent");
    is_silent(&mut near);
    network.heal();
    arrives(&mut near, 4);

    // Others are untouched.
    network.cut(1, 3);
    network.cut(3, 1);
    passes(&mut near, &mut far, 5);

    // No new connection comes through, and the end of an old one isn't told.
    network.cut(1, 2);
    drop(near);
    is_silent(&mut far);
    let mut late = network.connect(1, network.route(1, 2), SILENCE);
    if let Ok(late) = &mut late {
        late.write_all(&[6]).expect("a cut is silent");
        is_silent(late);
    }
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().expect_err("nobody comes through").kind(), ErrorKind::WouldBlock);
    network.heal();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(far.read(&mut [0]).expect("the end is told"), 0);
}

fn clients_reach_every_node(network: &dyn Nodes) {
    let listeners = [1, 2, 3].map(|id| (id, network.listen(id)));
    for (one, other) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        network.cut(one, other);
    }
    for (id, listener) in &listeners {
        let mut client = network.dial()(network.address(*id), PATIENCE).expect("it listens");
        let (mut node, _) = listener.accept().expect("it was connected to");
        passes(&mut client, &mut node, 1);
        passes(&mut node, &mut client, 2);
    }
}

#[test]
fn proxies_cut_and_heal() {
    cuts_and_heals(&Proxies::start(&[1, 2, 3]));
}

#[test]
fn clients_are_not_parted_by_proxies() {
    clients_reach_every_node(&Proxies::start(&[1, 2, 3]));
}

#[test]
fn namespaces_cut_and_heal() {
    match Namespaces::make(&[1, 2, 3]) {
        Ok(network) => cuts_and_heals(&network),
        Err(reason) => println!("skipped, there can be no namespaces: {reason}"),
    }
}

#[test]
fn clients_are_not_parted_by_namespaces() {
    match Namespaces::make(&[1, 2, 3]) {
        Ok(network) => clients_reach_every_node(&network),
        Err(reason) => println!("skipped, there can be no namespaces: {reason}"),
    }
}
