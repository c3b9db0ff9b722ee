//! A network of proxies in the test's own process: a node is told, for each other
//! node, the address of a proxy that stands on the way to it.
//!
//! ```text
//! node 1 ── connects ──► proxy 1→2 ── connects ──► node 2
//!           bytes of 1 ──── cut(1, 2)? ───►
//!           ◄──── cut(2, 1)? ──── bytes of 2
//! ```
//!
//! Bytes that are cut off are held, not dropped, and pass when the network is healed,
//! as a kernel sends again what was never acknowledged. No connection is made, closed
//! or reset across a cut, so neither side can tell it from silence.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use datastore_utilities::linearizability::{self, Dial};

use super::network::{Id, Network};
use crate::common::addresses::{own_address, own_loopback_address};

/// How often a thread that waits for bytes looks whether the test has ended.
const POLL: Duration = Duration::from_millis(100);

#[derive(Default)]
struct State {
    cuts: HashSet<(Id, Id)>,
    has_ended: bool,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    fn change(&self, act: impl FnOnce(&mut State)) {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until nothing is cut on these ways; false when the test has ended.
    fn pass(&self, ways: &[(Id, Id)]) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_cut = |state: &mut State| !state.has_ended && ways.iter().any(|way| state.cuts.contains(way));
        let state = self.changed.wait_while(state, is_cut).unwrap_or_else(PoisonError::into_inner);
        !state.has_ended
    }

    fn has_ended(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).has_ended
    }
}

/// The network.
pub struct Proxies {
    gate: Arc<Gate>,
    addresses: HashMap<Id, SocketAddr>,
    routes: HashMap<(Id, Id), SocketAddr>,
}

impl Proxies {
    pub fn start(ids: &[Id]) -> Proxies {
        let host = own_loopback_address();
        let addresses: HashMap<Id, SocketAddr> = ids.iter().map(|id| (*id, own_address(host, *id))).collect();
        let gate = Arc::new(Gate::default());
        let mut routes = HashMap::new();
        for from in ids {
            for to in ids.iter().filter(|to| *to != from) {
                let listener = TcpListener::bind((host, 0)).expect("a free port");
                routes.insert((*from, *to), listener.local_addr().expect("bound"));
                let way = Way { from: *from, to: *to, target: addresses[to], gate: gate.clone() };
                std::thread::spawn(move || way.accept(&listener));
            }
        }
        Proxies { gate, addresses, routes }
    }
}

impl Network for Proxies {
    fn address(&self, id: Id) -> SocketAddr {
        self.addresses[&id]
    }

    fn route(&self, from: Id, to: Id) -> SocketAddr {
        self.routes[&(from, to)]
    }

    fn way_in(&self, _: Id) -> (Vec<String>, Vec<String>) {
        (Vec::new(), Vec::new())
    }

    fn dial(&self) -> Dial {
        linearizability::dial()
    }

    fn cut(&self, from: Id, to: Id) {
        self.gate.change(|state| {
            state.cuts.insert((from, to));
        });
    }

    fn heal(&self) {
        self.gate.change(|state| state.cuts.clear());
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.gate.change(|state| state.has_ended = true);
        for route in self.routes.values() {
            // Wakes the thread that accepts there.
            drop(TcpStream::connect_timeout(route, POLL));
        }
    }
}

/// The proxy on the way from a node to another one.
#[derive(Clone)]
struct Way {
    from: Id,
    to: Id,
    target: SocketAddr,
    gate: Arc<Gate>,
}

impl Way {
    fn accept(self, listener: &TcpListener) {
        for near in listener.incoming() {
            if self.gate.has_ended() {
                return;
            }
            let way = self.clone();
            if let Ok(near) = near {
                std::thread::spawn(move || way.carry(near));
            }
        }
    }

    /// Carries a connection's bytes, both ways, until one side ends it.
    fn carry(self, near: TcpStream) {
        // A handshake needs both ways.
        if !self.gate.pass(&[(self.from, self.to), (self.to, self.from)]) {
            return;
        }
        let Ok(far) = TcpStream::connect(self.target) else { return };
        let sockets = near.try_clone().and_then(|near| Ok((near, far.try_clone()?)));
        let Ok((near_too, far_too)) = sockets else { return };
        let (back, gate) = ((self.to, self.from), self.gate.clone());
        let backwards = std::thread::spawn(move || pump(far_too, near_too, back, &gate));
        pump(near, far, (self.from, self.to), &self.gate);
        drop(backwards.join());
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, way: (Id, Id), gate: &Gate) {
    let mut buffer = vec![0; 64 * 1024];
    let prepared = from
        .set_read_timeout(Some(POLL))
        .and_then(|()| to.set_write_timeout(Some(POLL)))
        .and_then(|()| to.set_nodelay(true));
    let mut is_reset = prepared.is_err();
    while !is_reset {
        let read = match from.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if is_waiting(&error) && !gate.has_ended() => continue,
            Err(_) => {
                is_reset = true;
                break;
            }
        };
        if !gate.pass(&[way]) {
            return;
        }
        if read == 0 {
            break;
        }
        is_reset = send(&mut to, &buffer[..read], gate).is_err();
    }
    // The end of a connection is told like everything else: not across a cut.
    if gate.pass(&[way]) {
        drop(to.shutdown(Shutdown::Write));
    }
    if is_reset && gate.pass(&[way, (way.1, way.0)]) {
        drop((to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both)));
    }
}

/// As `write_all`, but for ever: a node that is stopped reads nothing, and loses nothing.
fn send(to: &mut TcpStream, mut bytes: &[u8], gate: &Gate) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if is_waiting(&error) && !gate.has_ended() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_waiting(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
