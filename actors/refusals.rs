//! Why peers don't let this node in, as each place has answered last where a peer was looked for.
//!
//! ```text
//!   a peer lets it in                     nothing that this peer has said before counts
//!   refused for its directory             in dynamo mode it lasts: this node is no member, whether the peer is gone or not
//!   refused for mode, number, protocol    as long as somebody answers there
//! ```
//!
//! A node of dynamo mode that every peer it reaches refuses takes no writes: what it took would reach
//! nobody, and a newcomer that has taken any is let in no more. In leader mode it has no majority, and
//! its alarms say why.

use std::collections::BTreeMap;
use std::sync::Mutex;

use datastore::error::{Code, LeaderAddress};
use datastore::replication::message::NodeId;

use crate::mailbox::lock;

/// A peer's refusal is shown up to this number of characters: the peer may be a stranger that says anything.
const SHOWN_MAX: usize = 800;

/// A peer, and where it was looked for.
type At = (NodeId, String, u16);

struct Refusal {
    reason: String,
    /// It counts though nobody answers there any more.
    lasts: bool,
}

/// The last refusals.
#[derive(Default)]
pub(crate) struct Refusals {
    said: Mutex<BTreeMap<At, Refusal>>,
}

fn at(address: &LeaderAddress) -> At {
    (address.node_id, address.host.clone(), address.port)
}

impl Refusals {
    /// Whoever is there has refused this node for good, by a code and a message.
    pub(crate) fn refused(&self, address: &LeaderAddress, code: &str, message: &str) {
        let reason = message.chars().take(SHOWN_MAX).collect();
        let lasts = code == Code::ReadOnly.rule().0;
        lock(&self.said).insert(at(address), Refusal { reason, lasts });
    }

    /// Nobody answers there.
    pub(crate) fn is_silent(&self, address: &LeaderAddress) {
        let mut said = lock(&self.said);
        if said.get(&at(address)).is_some_and(|refusal| !refusal.lasts) {
            said.remove(&at(address));
        }
    }

    /// A peer has let this node in.
    pub(crate) fn let_in(&self, peer: NodeId) {
        lock(&self.said).retain(|(of, ..), _| *of != peer);
    }

    /// Whether no peer has said anything that could count.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.said).is_empty()
    }

    /// What the peers say, each reason once. `places` gives where a peer is looked for, and `None` for who is no peer:
    /// where nobody looks any more nobody answers, either.
    pub(crate) fn told(&self, places: impl Fn(NodeId) -> Option<Vec<LeaderAddress>>) -> Option<String> {
        let said = lock(&self.said);
        let mut by_reason: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
        for ((peer, host, port), refusal) in said.iter() {
            let is_there = |place: &LeaderAddress| place.host == *host && place.port == *port;
            let counts = |places: Vec<LeaderAddress>| refusal.lasts || places.iter().any(is_there);
            if places(*peer).is_some_and(counts) {
                let peers = by_reason.entry(&refusal.reason).or_default();
                if !peers.contains(peer) {
                    peers.push(*peer);
                }
            }
        }
        let told = |(reason, peers): (&str, Vec<NodeId>)| match &peers[..] {
            [peer] => format!("node {peer} says \"{reason}\""),
            _ => format!("nodes {peers:?} say \"{reason}\""),
        };
        let told: Vec<String> = by_reason.into_iter().map(told).collect();
        (!told.is_empty()).then(|| told.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(node_id: NodeId, port: u16) -> LeaderAddress {
        LeaderAddress { node_id, host: "h".into(), port }
    }

    fn all(peer: NodeId) -> Option<Vec<LeaderAddress>> {
        Some((1..=3).map(|port| address(peer, port)).collect())
    }

    #[test]
    fn a_refusal_counts_while_somebody_says_it_or_for_ever_if_the_directory_is_why() {
        let refusals = Refusals::default();
        assert_eq!(refusals.told(all), None);
        refusals.refused(&address(2, 1), "bad_request", "another mode");
        refusals.refused(&address(3, 2), "bad_request", "another mode");
        refusals.refused(&address(2, 3), "read_only", "no member");
        let told = refusals.told(all);
        assert_eq!(
            told.as_deref(),
            Some("nodes [2, 3] say \"another mode\", node 2 says \"no member\""),
            "each reason once"
        );
        for port in 1..=3 {
            refusals.is_silent(&address(2, port));
        }
        refusals.is_silent(&address(3, 2));
        assert_eq!(refusals.told(all).as_deref(), Some("node 2 says \"no member\""));
        assert_eq!(refusals.told(|peer| all(peer).filter(|_| peer != 2)), None, "it is no peer any more");
        refusals.let_in(2);
        assert!(refusals.is_empty());
    }

    #[test]
    fn what_a_stranger_says_is_not_shown_without_end() {
        let refusals = Refusals::default();
        refusals.refused(&address(2, 1), "bad_request", &"é".repeat(9_000));
        assert!(refusals.told(all).is_some_and(|told| told.chars().count() < SHOWN_MAX + 50));
    }
}
