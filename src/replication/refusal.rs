//! Why two nodes don't talk, for a person who must do something about it. When is
//! decided in `handshake.rs`.

use std::fmt;

use super::message::NodeId;
use super::protocol::{PROTOCOL, PROTOCOL_MEMBERS};
use crate::persistence::NodeUuid;

/// Why two nodes don't talk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No version in common.
    Protocol {
        /// What the other one speaks.
        theirs: (u32, u32),
    },
    /// The address leads to another node.
    OtherNode {
        /// Who was meant.
        meant: NodeId,
        /// Who is there.
        found: NodeId,
    },
    /// Two nodes have one number.
    SameNodeId {
        /// Which.
        node_id: NodeId,
    },
    /// Two clusters.
    OtherCluster {
        /// The other one's.
        theirs: String,
        /// This node's.
        ours: String,
    },
    /// No member has this number.
    NoMember {
        /// The number.
        node_id: NodeId,
        /// Those of the members.
        members: Vec<NodeId>,
    },
    /// The member's directory is another one than it was.
    LostData {
        /// Which member.
        node_id: NodeId,
        /// Its directory as it is known.
        known: NodeUuid,
        /// The one that came.
        found: NodeUuid,
    },
    /// Who greets waits to be adopted.
    NotAdopted {
        /// Which node.
        node_id: NodeId,
    },
    /// It speaks a version that knows nothing of what this cluster has become.
    EarlierVersion {
        /// Which node.
        node_id: NodeId,
    },
    /// Its voters were set by force fewer times: it will be told.
    LeftBehind {
        /// Which node.
        node_id: NodeId,
    },
    /// The greeting node is a member by an entry that this leader's log doesn't have.
    Forgotten {
        /// The greeting node.
        node_id: NodeId,
        /// Who leads.
        leader: NodeId,
        /// The entry.
        index: u64,
    },
    /// It hasn't heard of the newest members yet, and will from its leader.
    Lags {
        /// Which node.
        node_id: NodeId,
    },
    /// It was left behind and has what the forced log has not.
    Diverged {
        /// Which node.
        node_id: NodeId,
        /// The last entry that it has applied.
        applied: u64,
        /// The last entry that was kept.
        through: u64,
    },
    /// Both sides were forced, each without the other.
    ForcedApart {
        /// Who greets, or is greeted.
        node_id: NodeId,
    },
    /// A membership that doesn't come from its founder, or isn't meant for this directory.
    NotForMe {
        /// From whom it came.
        from: NodeId,
    },
}

impl Refusal {
    /// Whether the same greeting may be accepted later without anyone acting.
    pub fn passes(&self) -> bool {
        matches!(self, Refusal::NotAdopted { .. } | Refusal::LeftBehind { .. } | Refusal::Lags { .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Protocol { theirs: (low, high) } => write!(
                formatter,
                "the other node speaks versions {low} to {high} of the peers' protocol, this one {} to {}",
                PROTOCOL.0, PROTOCOL.1
            ),
            Refusal::EarlierVersion { node_id } => write!(
                formatter,
                "node {node_id} speaks a version of the peers' protocol before {PROTOCOL_MEMBERS}, and this cluster's \
                 members have changed or have a witness: upgrade it"
            ),
            Refusal::LeftBehind { node_id } => write!(
                formatter,
                "the voters were set by force without node {node_id}; it will be told by the node that leads"
            ),
            Refusal::Lags { node_id } => {
                write!(
                    formatter,
                    "node {node_id} hasn't heard of the newest members yet, and will from its leader"
                )
            }
            Refusal::Forgotten { node_id, leader, index } => write!(
                formatter,
                "FORGOTTEN MEMBER: node {node_id} knows the members as of entry {index}, by which it is one, and the log of \
                 node {leader}, which leads, has no such entry. Acknowledged writes may be lost, since directories or disks \
                 were set back to states before that; node {node_id} may have them. If what node {leader} leads is to be \
                 kept, export what you need of node {node_id} (reads with \"consistency\":\"local\" go on), start it with \
                 --role secondary on an empty directory, and say add_member of it to node {leader}. If node {node_id} is right, \
                 do so with the nodes that were set back"
            ),
            Refusal::Diverged { node_id, applied, through } => write!(
                formatter,
                "LEFT BEHIND BY `promote` WITH `force`: node {node_id} has applied entries up to {applied} that are not \
                 in the log that was kept (up to {through}); what they hold is in its directory alone. Save what you \
                 need of it (`export`), then start the node with --role secondary on an empty directory: it is taken in by itself"
            ),
            Refusal::ForcedApart { node_id } => write!(
                formatter,
                "FORCED APART: `promote` with `force` was used on both sides, and this node and node {node_id} are two \
                 clusters by now, each with writes of its own. Choose the one to keep; export what you need of the \
                 other, stop its nodes and start them with --role secondary on empty directories: the kept one takes them in"
            ),
            Refusal::OtherNode { meant, found } => write!(
                formatter,
                "node {meant} was meant, and this is the address of node {found}: correct --peers or --node-id"
            ),
            Refusal::SameNodeId { node_id } => write!(
                formatter,
                "two nodes have node id {node_id}: every node of a cluster has its own (--node-id)"
            ),
            Refusal::OtherCluster { theirs, ours } => {
                write!(formatter, "a node of cluster {theirs} has nothing to say to one of cluster {ours}")
            }
            Refusal::NoMember { node_id, members } => {
                write!(
                    formatter,
                    "node {node_id} is no member of this cluster (any more), whose nodes are {members:?}: export what you need \
                     of it first, if anything; add_member takes it in, with an empty directory"
                )
            }
            Refusal::LostData { node_id, known, found } => write!(
                formatter,
                "node {node_id} had directory {known} and comes with {found}: it has lost its data, and has no vote \
                 any more; stop it and give it back the directory that it had, or, if that is gone, say remove_member \
                 and then add_member of node {node_id}, and start it with --role secondary on an empty directory"
            ),
            Refusal::NotAdopted { node_id } => {
                write!(formatter, "node {node_id} waits to be adopted by the founder of its cluster")
            }
            Refusal::NotForMe { from } => write!(
                formatter,
                "node {from} sent a membership that it didn't found, or that names another directory for this node"
            ),
        }
    }
}

impl std::error::Error for Refusal {}
