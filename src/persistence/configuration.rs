//! Who belongs to a cluster, who votes in it, and where each node is: one value,
//! the same in a log entry, in a snapshot and in "cluster.json".
//!
//! ```text
//! {"index":7,"members":{"voters":[1,2,9223372036854775810],"learners":[],"voters_outgoing":[],"learners_next":[],
//!  "auto_leave":false},"nodes":[{"node_id":1,"host":"127.0.0.1","port":9000,"node":"…"}, …]}
//! ```
//!
//! # The witness
//!
//! Two voters survive no failure: each one is needed for a majority. So a cluster
//! of two nodes has a third voter, which lives inside one of them, has a term and
//! a vote of its own and no data: the *witness*. Its number is its host's with
//! [`WITNESS`] added, so that whoever reads a number knows whose disk it stands for.
//!
//! ```text
//! node 1 ── voter 1          node 2 ── voter 2
//!                                   └─ voter 2^63 + 2, its witness
//! ```

use serde::{Deserialize, Serialize};

use super::membership::Member;

/// Added to a node's number, the number of the witness in it. Node ids are smaller.
pub const WITNESS: u64 = 1 << 63;

/// The voter inside this node, beside its own.
pub fn witness_in(host: u64) -> u64 {
    host | WITNESS
}

/// Whether a voter is a witness.
pub fn is_witness(voter: u64) -> bool {
    voter & WITNESS != 0
}

/// The node that a voter lives in: itself, or its host.
pub fn host_of(voter: u64) -> u64 {
    voter & !WITNESS
}

/// Who votes and who only listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// They elect, and their disks count towards a majority. Ascending.
    pub voters: Vec<u64>,
    /// They receive the log and count for nothing yet. Ascending.
    pub learners: Vec<u64>,
    /// While a change is under way: the voters before it, whose majority counts too.
    pub voters_outgoing: Vec<u64>,
    /// While a change is under way: who becomes a learner at its end.
    pub learners_next: Vec<u64>,
    /// Whether the change under way ends by itself.
    pub auto_leave: bool,
}

impl Members {
    /// Whether a change is under way, and two majorities count.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether it votes, now or until the change under way has ended.
    pub fn votes(&self, voter: u64) -> bool {
        self.voters.contains(&voter) || self.voters_outgoing.contains(&voter)
    }

    /// Whether it votes or listens.
    pub fn has(&self, id: u64) -> bool {
        self.votes(id) || self.learners.contains(&id) || self.learners_next.contains(&id)
    }
}

/// A cluster's members as of an entry of its log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The entry that made it so; 0: the cluster was founded so, or forced.
    pub index: u64,
    /// Who votes.
    pub members: Members,
    /// All nodes, ascending by node id.
    pub nodes: Vec<Member>,
}

impl Configuration {
    /// All these nodes vote from the start. Of two, the one that isn't the founder hosts a witness.
    pub fn founding(mut nodes: Vec<Member>, founder: u64) -> Configuration {
        nodes.sort_by_key(|node| node.node_id);
        let ids: Vec<u64> = nodes.iter().map(|node| node.node_id).collect();
        let members = Members { voters: voters_of(&ids, founder), ..Members::default() };
        Configuration { index: 0, members, nodes }
    }

    /// A node by its number.
    pub fn node(&self, node_id: u64) -> Option<&Member> {
        self.nodes.iter().find(|node| node.node_id == node_id)
    }

    /// The numbers of all nodes, ascending.
    pub fn node_ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.node_id).collect()
    }

    /// Whether a witness lives in this node.
    pub fn hosts_witness(&self, node_id: u64) -> bool {
        self.members.votes(witness_in(node_id))
    }

    /// Whether its directory counts: a voter's may not be another one than it was.
    pub fn binds(&self, node_id: u64) -> bool {
        self.members.votes(node_id)
    }

    /// The bytes for a log entry.
    pub fn encode(&self) -> Vec<u8> {
        // Writing plain fields into memory can't fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the entry of this index, which then names when it came to be so.
    pub fn of_entry(index: u64, payload: &[u8]) -> Option<Configuration> {
        Some(Configuration { index, ..Configuration::decode(payload)? })
    }

    /// Reads what [`Configuration::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Configuration> {
        serde_json::from_slice(bytes).ok()
    }
}

/// The voters of a cluster of these nodes: all of them, and with two a witness
/// in the one that doesn't lead, so that the other one's death leaves a majority.
pub fn voters_of(nodes: &[u64], leader: u64) -> Vec<u64> {
    let mut voters = nodes.to_vec();
    voters.sort_unstable();
    if let [first, second] = voters[..] {
        voters.push(witness_in(if second == leader { first } else { second }));
    }
    voters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> Vec<Member> {
        ids.iter()
            .map(|&node_id| Member { node_id, host: "127.0.0.1".into(), port: 9000, node: None })
            .collect()
    }

    #[test]
    fn two_nodes_have_three_voters_and_the_witness_is_not_in_the_founder() {
        assert_eq!(Configuration::founding(nodes(&[2, 1]), 1).members.voters, [1, 2, witness_in(2)]);
        assert_eq!(Configuration::founding(nodes(&[2, 1]), 2).members.voters, [1, 2, witness_in(1)]);
        for ids in [&[1][..], &[1, 2, 3]] {
            assert_eq!(Configuration::founding(nodes(ids), 1).members.voters, ids);
        }
        assert_eq!((host_of(witness_in(7)), host_of(7)), (7, 7));
        assert!(is_witness(witness_in(7)) && !is_witness(7));
    }

    #[test]
    fn it_comes_back_as_it_was_encoded() {
        let configuration = Configuration { index: 7, ..Configuration::founding(nodes(&[1, 2]), 1) };
        assert_eq!(Configuration::decode(&configuration.encode()), Some(configuration));
        assert_eq!(Configuration::decode(b"{}"), None);
    }
}
