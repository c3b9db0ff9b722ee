//! Who talks to whom: each node's "cluster.json", and the greeting that comes before
//! the first message. The decisions are the real ones, of `handshake.rs`.
//!
//! ```text
//! sender ─ hello ─► decide ─ welcome ─► judge ─► messages pass until either side is another one
//!             └─ introduces itself ─► adopted, or left behind and taken in again
//! ```

use super::Mutant;
use super::cluster::Cluster;
use crate::persistence::{Configuration, Member, Membership, NodeUuid};
use crate::replication::handshake::{Decision, Hello, Lane, Own, PROTOCOL, Verdict, Welcome, decide, judge};
use crate::replication::message::NodeId;
use crate::replication::raft::Status;

/// A node's directory, as far as its peers are concerned.
#[derive(Debug)]
pub struct Directory {
    pub uuid: NodeUuid,
    /// How often it was lost.
    pub wipes: u8,
    /// As the process knows it. `None`: it waits to be adopted.
    pub membership: Option<Membership>,
    /// As the disk has it: members that an entry names may be missing there.
    pub stored: Option<Membership>,
    /// The disk says that it may be an older copy.
    pub in_doubt: bool,
    /// Counts what a greeting depends on.
    version: u64,
}

impl Directory {
    pub fn new(id: NodeId) -> Directory {
        let (membership, stored, in_doubt) = (None, None, false);
        Directory { uuid: uuid(id, 0), wipes: 0, membership, stored, in_doubt, version: 0 }
    }

    /// Durable at once.
    pub fn store(&mut self, membership: Membership) {
        self.stored = Some(membership.clone());
        self.membership = Some(membership);
        self.version += 1;
    }

    /// An entry names the members. The file only follows the log: half of the time a crash comes first.
    pub fn configured(&mut self, to: Configuration) {
        let Some(membership) = &mut self.membership else { return };
        membership.changed(to);
        self.version += 1;
        if self.version.is_multiple_of(2) {
            self.stored = self.membership.clone();
        }
    }

    /// The file is written that lagged behind the log.
    pub fn catch_up(&mut self) {
        self.stored = self.membership.clone();
    }

    /// What the log says of the members, if the file lags behind it.
    pub fn started(&mut self, to: &Configuration) {
        if self.membership.as_ref().is_some_and(|known| known.configuration.index < to.index) {
            self.configured(to.clone());
        }
    }

    /// The process ends.
    pub fn crash(&mut self) {
        self.membership = self.stored.clone();
        self.version += 1;
    }

    /// It is what it was once, and its mark tells that.
    pub fn set_back(&mut self, stored: Option<Membership>, is_known: bool) {
        (self.membership, self.stored) = (stored.clone(), stored);
        self.in_doubt |= is_known;
        self.version += 1;
    }

    /// All is lost: from here on it is another directory.
    pub fn wipe(&mut self, id: NodeId) {
        self.wipes += 1;
        self.uuid = uuid(id, self.wipes);
        (self.membership, self.stored) = (None, None);
        self.in_doubt = false;
        self.version += 1;
    }

    fn meet(&mut self, id: NodeId, uuid: NodeUuid) {
        if let Some(mut membership) = self.membership.clone() {
            membership.meet(id, uuid);
            self.store(membership);
        }
    }
}

/// The identity of a node's directory after so many that were lost.
pub fn uuid(id: NodeId, wipes: u8) -> NodeUuid {
    let mut bytes = [wipes; 16];
    bytes[0] = id as u8;
    NodeUuid(bytes)
}

/// A machine as a member whose directory isn't known.
pub fn member(node_id: NodeId) -> Member {
    Member { node_id, host: "h".into(), port: node_id as u16, node: None }
}

/// A cluster of these nodes, which have met. The first one has founded it.
pub fn founded(ids: &[NodeId]) -> Membership {
    let met = |id: &NodeId| Member { node: Some(uuid(*id, 0)), ..member(*id) };
    Membership::new("c".into(), ids[0], ids.iter().map(met).collect())
}

impl Cluster {
    /// Whether what `from` says reaches `to`: both take each other for members.
    pub fn connects(&mut self, from: usize, to: usize) -> bool {
        let versions = (self.nodes[from].directory.version, self.nodes[to].directory.version);
        if self.greeted.get(&(from, to)) == Some(&versions) {
            return true;
        }
        let is_down = self.nodes[to].process.is_none() && self.nodes[to].directory.membership.is_some();
        let is_reached = !is_down && !self.faults.parts(self.nodes[from].id, self.nodes[to].id);
        if !is_reached || !self.greet(from, to) {
            self.greeted.remove(&(from, to));
            return false;
        }
        let versions = (self.nodes[from].directory.version, self.nodes[to].directory.version);
        self.greeted.insert((from, to), versions);
        true
    }

    fn own(&self, place: usize) -> Own {
        let node = &self.nodes[place];
        let process = node.process.as_ref();
        let applied = process.map_or(0, |process| process.notices.handed_over());
        let term = process.and_then(|process| process.replica.term_of(applied)).unwrap_or(0);
        Own {
            node_id: node.id,
            node: node.directory.uuid,
            membership: node
                .directory
                .membership
                .clone()
                .map(|known| Membership { epochs: self.epochs_of(Some(&known)), ..known }),
            protocol: PROTOCOL,
            leads: process.is_some_and(|process| process.leads()),
            has_all: process
                .is_some_and(|process| process.leads() && term == process.replica.status().role.term),
            applied: (applied, term),
            is_lost: process.is_none_or(|process| process.replica.status().role.leader.is_none()),
            in_doubt: process.is_some_and(|process| {
                let Status { role, in_doubt, .. } = process.replica.status();
                in_doubt && role.leader.is_none_or(|leader| leader == node.id)
            }),
        }
    }

    /// Both sides decide; what they note is durable before they go on.
    fn greet(&mut self, from: usize, to: usize) -> bool {
        let (greeter, greeted) = (self.own(from), self.own(to));
        let peer = greeted.node_id;
        let epochs = self.epochs_of(greeter.membership.as_ref());
        let hello = |membership: Option<Membership>| {
            let known = greeter.membership.as_ref();
            let epochs = epochs.clone();
            Hello {
                protocol: PROTOCOL,
                lane: Lane::Heartbeat,
                cluster: known.map(|known| known.cluster.clone()),
                epoch: epochs.len() as u64,
                epochs,
                configuration: known.map_or(0, |known| known.configuration.index),
                node_id: greeter.node_id,
                node: greeter.node,
                boot: 0,
                to: peer,
                in_doubt: false,
                advertise: None,
                membership,
            }
        };
        let mut welcome = Welcome {
            protocol: PROTOCOL.1,
            cluster: greeted.membership.as_ref().map(|known| known.cluster.clone()),
            epochs: self.epochs_of(greeted.membership.as_ref()),
            lags: false,
            node_id: peer,
            node: greeted.node,
            boot: 0,
            in_doubt: false,
            advertise: None,
        };
        match decide(&greeted, &hello(None)) {
            Decision::Accept { meet, .. } => {
                if meet {
                    self.nodes[to].directory.meet(greeter.node_id, greeter.node);
                }
                let Verdict::Connected { meet } = judge(&greeter, peer, &welcome) else { return false };
                if meet {
                    self.nodes[from].directory.meet(peer, greeted.node);
                }
                return true;
            }
            Decision::Introduce { .. } => {
                welcome.lags = greeted.membership.is_some();
                let Verdict::Adopt { meet } = judge(&greeter, peer, &welcome) else { return false };
                if meet {
                    self.nodes[from].directory.meet(peer, greeted.node);
                }
                let membership = self.membership_for(from, peer);
                match decide(&greeted, &hello(membership)) {
                    Decision::Adopt { membership, .. } => self.adopt(to, membership),
                    Decision::Rejoin { membership } => self.rejoin(to, membership),
                    _ => {}
                }
            }
            _ => {}
        }
        // Whoever was refused, or begins anew, hears the next message, or none.
        false
    }

    /// What a node is told that is adopted, or was left behind.
    fn membership_for(&self, from: usize, to: NodeId) -> Option<Membership> {
        let node = &self.nodes[from];
        let mut membership = node.directory.membership.clone()?;
        let term = node.process.as_ref()?.replica.status().role.term;
        let votes_from_the_start = membership.configuration.binds(to);
        membership.first_vote = if votes_from_the_start { (0, 0) } else { (term, node.id) };
        Some(membership)
    }

    fn adopt(&mut self, place: usize, membership: Membership) {
        self.faults.figures.adoptions += 1;
        self.nodes[place].directory.store(membership);
        self.start(place);
    }

    /// Left behind by force, and compatible: the process begins anew, with its data.
    fn rejoin(&mut self, place: usize, membership: Membership) {
        self.faults.figures.rejoined += 1;
        self.crash(place);
        self.nodes[place].directory.store(membership);
        self.start(place);
    }

    /// The disk is lost, and its directory with it.
    pub fn wipe(&mut self, place: usize) {
        self.faults.figures.wipes += 1;
        self.crash(place);
        let is_let_in = self.mutant == Some(Mutant::WipedVotes);
        self.nodes[place].wipe(is_let_in);
        if is_let_in {
            self.start(place);
        }
    }
}
