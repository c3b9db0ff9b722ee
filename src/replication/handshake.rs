//! Who is taken for a member: decided at the handshake, on both sides.
//!
//! A cluster is formed by its founder, the one node that adopts others:
//!
//! ```text
//!   founder                                     node on an empty directory
//!     │ hello, cluster c ─────────────────────────► │
//!     │ ◄──────────────── welcome, cluster null, u  │  it belongs to nobody yet
//!     │ notes, durably, that member 2 is u          │
//!     │ hello, cluster c, membership with u ──────► │
//!     │                                             │  stores the membership
//!     │ ◄───────────────────── welcome, cluster c   │  and is a member from here on
//! ```
//!
//! Because the founder notes whom it adopts before it does, a directory is
//! adopted once: a member that comes back with another one has lost its data,
//! and with it the entries that it said were safe and the votes that it gave.
//! Nobody lets it in: counted as a voter, it could make a majority of nodes that
//! have forgotten what was acknowledged. For the same reason the other members
//! note a directory when they first meet it.
//!
//! Both sides check everything that they can; all here is pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::message::NodeId;
use crate::persistence::{Membership, NodeUuid};

/// The versions of the peers' protocol that this version speaks, lowest and highest.
pub const PROTOCOL: (u32, u32) = (1, 1);

/// What a connection between peers carries. Each has its own, so that neither a
/// queue of entries nor a snapshot delays a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Entries and their acknowledgements.
    Log,
    /// All other messages.
    Heartbeat,
    /// One snapshot.
    Snapshot,
}

/// How a node that connects to another one greets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol versions that it speaks, lowest and highest.
    pub protocol: (u32, u32),
    /// What the connection is for.
    pub lane: Lane,
    /// Its cluster, `None` before it is adopted.
    pub cluster: Option<String>,
    /// Counts how often a cluster's members were set by force; 0 in this version.
    pub epoch: u64,
    /// Its number.
    pub node_id: NodeId,
    /// Its directory.
    pub node: NodeUuid,
    /// Its process.
    pub boot: u64,
    /// Whom it takes the other one for.
    pub to: NodeId,
    /// From the founder to a node that it adopts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership: Option<Membership>,
}

/// How a greeting is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both speak from here on.
    pub protocol: u32,
    /// The answering node's cluster. `None`: it waits to be adopted, and the connection ends here.
    pub cluster: Option<String>,
    /// Its number.
    pub node_id: NodeId,
    /// Its directory.
    pub node: NodeUuid,
    /// Its process.
    pub boot: u64,
}

/// What a node knows of itself when it decides.
#[derive(Clone, Debug)]
pub struct Own {
    /// Its number.
    pub node_id: NodeId,
    /// Its directory.
    pub node: NodeUuid,
    /// Its cluster, if it has one.
    pub membership: Option<Membership>,
}

/// What becomes of a greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is a member: frames follow.
    Accept {
        /// The version to speak.
        protocol: u32,
        /// Its directory isn't known yet: to be noted, durably, before the answer.
        meet: bool,
    },
    /// This node becomes a member: to be stored, durably, before the answer.
    Adopt {
        /// The version to speak.
        protocol: u32,
        /// Of what.
        membership: Membership,
    },
    /// This node waits to be adopted: it says who it is, and the connection ends.
    Introduce {
        /// The version to speak.
        protocol: u32,
    },
    /// Nothing.
    Refuse(Refusal),
}

/// What becomes of an answer to one's own greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Frames may follow.
    Connected {
        /// The peer's directory isn't known yet: to be noted, durably, first.
        meet: bool,
    },
    /// It is to be greeted again with the membership.
    Adopt {
        /// Its directory isn't known yet: to be noted, durably, first.
        meet: bool,
    },
    /// It waits for the founder, and this node isn't that.
    NotAdoptedYet,
    /// It isn't the peer that it was taken for.
    Refuse(Refusal),
}

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
    /// A membership that doesn't come from its founder, or isn't meant for this directory.
    NotForMe {
        /// From whom it came.
        from: NodeId,
    },
}

impl Refusal {
    /// Whether the same greeting may be accepted later without anyone acting.
    pub fn passes(&self) -> bool {
        matches!(self, Refusal::NotAdopted { .. })
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
                write!(formatter, "node {node_id} is no member of this cluster, whose nodes are {members:?}")
            }
            Refusal::LostData { node_id, known, found } => write!(
                formatter,
                "node {node_id} had directory {known} and comes with {found}: it has lost its data, and has no vote \
                 any more; stop it and give it back the directory that it had"
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

/// The highest version that both speak.
fn common_protocol(theirs: (u32, u32)) -> Result<u32, Refusal> {
    let highest = PROTOCOL.1.min(theirs.1);
    if highest >= PROTOCOL.0.max(theirs.0) { Ok(highest) } else { Err(Refusal::Protocol { theirs }) }
}

/// Whether a member's directory is still to be noted; refused if it is another
/// than the one known.
fn meets(membership: &Membership, node_id: NodeId, node: NodeUuid) -> Result<bool, Refusal> {
    let Some(member) = membership.member(node_id) else {
        return Err(Refusal::NoMember { node_id, members: membership.node_ids() });
    };
    match member.node {
        None => Ok(true),
        Some(known) if known == node => Ok(false),
        Some(known) => Err(Refusal::LostData { node_id, known, found: node }),
    }
}

/// Decides about a greeting.
pub fn decide(own: &Own, hello: &Hello) -> Decision {
    match try_decide(own, hello) {
        Ok(decision) => decision,
        Err(refusal) => Decision::Refuse(refusal),
    }
}

fn try_decide(own: &Own, hello: &Hello) -> Result<Decision, Refusal> {
    let protocol = common_protocol(hello.protocol)?;
    if hello.to != own.node_id {
        return Err(Refusal::OtherNode { meant: hello.to, found: own.node_id });
    }
    if hello.node_id == own.node_id {
        return Err(Refusal::SameNodeId { node_id: own.node_id });
    }
    match (&own.membership, &hello.cluster) {
        (Some(membership), Some(theirs)) => {
            if *theirs != membership.cluster {
                let (theirs, ours) = (theirs.clone(), membership.cluster.clone());
                return Err(Refusal::OtherCluster { theirs, ours });
            }
            let meet = meets(membership, hello.node_id, hello.node)?;
            Ok(Decision::Accept { protocol, meet })
        }
        (Some(membership), None) => {
            meets(membership, hello.node_id, hello.node)?;
            Err(Refusal::NotAdopted { node_id: hello.node_id })
        }
        (None, None) => Err(Refusal::NotAdopted { node_id: hello.node_id }),
        (None, Some(theirs)) => match &hello.membership {
            None => Ok(Decision::Introduce { protocol }),
            Some(membership) => {
                let is_as_known = |node_id, node| {
                    membership.member(node_id).is_some_and(|member| member.node == Some(node))
                };
                let from = hello.node_id;
                if membership.founder != from
                    || membership.cluster != *theirs
                    || !is_as_known(from, hello.node)
                    || !is_as_known(own.node_id, own.node)
                {
                    return Err(Refusal::NotForMe { from });
                }
                Ok(Decision::Adopt { protocol, membership: membership.clone() })
            }
        },
    }
}

/// Judges the answer of a node that was taken for `peer`.
pub fn judge(own: &Own, peer: NodeId, welcome: &Welcome) -> Verdict {
    match try_judge(own, peer, welcome) {
        Ok(verdict) => verdict,
        Err(refusal) => Verdict::Refuse(refusal),
    }
}

fn try_judge(own: &Own, peer: NodeId, welcome: &Welcome) -> Result<Verdict, Refusal> {
    common_protocol((welcome.protocol, welcome.protocol))?;
    if welcome.node_id != peer {
        return Err(Refusal::OtherNode { meant: peer, found: welcome.node_id });
    }
    let Some(membership) = &own.membership else {
        return Err(Refusal::NotAdopted { node_id: own.node_id });
    };
    if let Some(theirs) = welcome.cluster.as_ref().filter(|theirs| **theirs != membership.cluster) {
        return Err(Refusal::OtherCluster { theirs: theirs.clone(), ours: membership.cluster.clone() });
    }
    let meet = meets(membership, peer, welcome.node);
    match welcome.cluster {
        Some(_) => Ok(Verdict::Connected { meet: meet? }),
        None if membership.founder == own.node_id => Ok(Verdict::Adopt { meet: meet? }),
        // It may be a member that was wiped and waits as if it were new.
        None => meet.map(|_| Verdict::NotAdoptedYet),
    }
}

/// Whether this node founded its cluster and has never met this member: if that
/// belongs to another cluster, this directory was lost, and the cluster that it
/// founded is a second one of the same nodes.
pub fn founded_without(own: &Own, peer: NodeId) -> bool {
    own.membership.as_ref().is_some_and(|membership| {
        membership.founder == own.node_id
            && membership.member(peer).is_some_and(|member| member.node.is_none())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::Member;

    const CLUSTER: &str = "0123456789abcdef0123456789abcdef";

    fn uuid(node_id: NodeId) -> NodeUuid {
        NodeUuid([node_id as u8; 16])
    }

    /// Nodes 1 (the founder), 2 and 3, of whom these have been met.
    fn membership(met: &[NodeId]) -> Membership {
        let member = |node_id| Member {
            node_id,
            host: "127.0.0.1".into(),
            port: 9000,
            node: met.contains(&node_id).then(|| uuid(node_id)),
        };
        Membership::new(CLUSTER.into(), 1, vec![member(1), member(2), member(3)])
    }

    fn own(node_id: NodeId, met: Option<&[NodeId]>) -> Own {
        Own { node_id, node: uuid(node_id), membership: met.map(membership) }
    }

    fn hello(node_id: NodeId, to: NodeId) -> Hello {
        Hello {
            protocol: PROTOCOL,
            lane: Lane::Log,
            cluster: Some(CLUSTER.into()),
            epoch: 0,
            node_id,
            node: uuid(node_id),
            boot: 5,
            to,
            membership: None,
        }
    }

    fn welcome(node_id: NodeId, cluster: Option<&str>) -> Welcome {
        let cluster = cluster.map(String::from);
        Welcome { protocol: 1, cluster, node_id, node: uuid(node_id), boot: 6 }
    }

    fn refusal(own: &Own, hello: &Hello) -> Refusal {
        match decide(own, hello) {
            Decision::Refuse(refusal) => refusal,
            other => panic!("{hello:?} → {other:?}"),
        }
    }

    #[test]
    fn the_highest_version_that_both_speak_is_spoken() {
        let me = own(1, Some(&[1, 2]));
        let with = |protocol| Hello { protocol, ..hello(2, 1) };
        assert_eq!(decide(&me, &with((1, 7))), Decision::Accept { protocol: 1, meet: false });
        assert_eq!(decide(&me, &with((0, 1))), Decision::Accept { protocol: 1, meet: false });
        for theirs in [(2, 3), (0, 0)] {
            assert_eq!(refusal(&me, &with(theirs)), Refusal::Protocol { theirs });
        }
    }

    #[test]
    fn a_member_is_accepted_and_noted_when_it_is_new() {
        let accept = |meet| Decision::Accept { protocol: 1, meet };
        assert_eq!(decide(&own(1, Some(&[1, 2])), &hello(2, 1)), accept(false));
        assert_eq!(decide(&own(3, Some(&[1, 3])), &hello(2, 3)), accept(true));
        // The founder may not have heard that its adoption arrived.
        let again = Hello { membership: Some(membership(&[1, 2])), ..hello(1, 2) };
        assert_eq!(decide(&own(2, Some(&[1, 2])), &again), accept(false));
    }

    #[test]
    fn strangers_and_doubles_are_refused() {
        let me = own(1, Some(&[1, 2]));
        assert_eq!(refusal(&me, &hello(2, 3)), Refusal::OtherNode { meant: 3, found: 1 });
        assert_eq!(refusal(&me, &hello(1, 1)), Refusal::SameNodeId { node_id: 1 });
        assert_eq!(refusal(&me, &hello(4, 1)), Refusal::NoMember { node_id: 4, members: vec![1, 2, 3] });
        let other = Hello { cluster: Some("f".repeat(32)), ..hello(2, 1) };
        assert_eq!(
            refusal(&me, &other),
            Refusal::OtherCluster { theirs: "f".repeat(32), ours: CLUSTER.into() }
        );
    }

    #[test]
    fn a_member_without_its_data_is_no_member() {
        let me = own(1, Some(&[1, 2]));
        let lost = Refusal::LostData { node_id: 2, known: uuid(2), found: uuid(9) };
        let wiped = Hello { node: uuid(9), ..hello(2, 1) };
        assert_eq!(refusal(&me, &wiped), lost);
        let waiting = Hello { cluster: None, ..wiped };
        assert_eq!(refusal(&me, &waiting), lost);
        for cluster in [None, Some(CLUSTER)] {
            let answer = Welcome { node: uuid(9), ..welcome(2, cluster) };
            assert_eq!(judge(&me, 2, &answer), Verdict::Refuse(lost.clone()), "{cluster:?}");
            assert_eq!(judge(&own(3, Some(&[1, 2, 3])), 2, &answer), Verdict::Refuse(lost.clone()));
        }
    }

    #[test]
    fn who_waits_to_be_adopted_is_heard_later() {
        let waiting = Hello { cluster: None, ..hello(2, 3) };
        for me in [own(3, None), own(3, Some(&[1, 3])), own(3, Some(&[1, 2, 3]))] {
            let refusal = refusal(&me, &waiting);
            assert_eq!(refusal, Refusal::NotAdopted { node_id: 2 });
            assert!(refusal.passes());
        }
    }

    #[test]
    fn a_new_node_says_who_it_is_and_belongs_to_its_founder_only() {
        let new = own(2, None);
        assert_eq!(decide(&new, &hello(1, 2)), Decision::Introduce { protocol: 1 });
        assert_eq!(decide(&new, &hello(3, 2)), Decision::Introduce { protocol: 1 });
        let adopting = |met: &[NodeId], from| Hello { membership: Some(membership(met)), ..hello(from, 2) };
        let membership = membership(&[1, 2]);
        assert_eq!(decide(&new, &adopting(&[1, 2], 1)), Decision::Adopt { protocol: 1, membership });
        // Not its founder; not this directory; another cluster than it says.
        assert_eq!(refusal(&new, &adopting(&[1, 2, 3], 3)), Refusal::NotForMe { from: 3 });
        assert_eq!(refusal(&new, &adopting(&[1], 1)), Refusal::NotForMe { from: 1 });
        let other = Own { node: uuid(9), ..new.clone() };
        assert_eq!(refusal(&other, &adopting(&[1, 2], 1)), Refusal::NotForMe { from: 1 });
        let false_name = Hello { cluster: Some("f".repeat(32)), ..adopting(&[1, 2], 1) };
        assert_eq!(refusal(&new, &false_name), Refusal::NotForMe { from: 1 });
    }

    #[test]
    fn only_the_founder_adopts_and_notes_whom() {
        let answer = welcome(2, None);
        assert_eq!(judge(&own(1, Some(&[1])), 2, &answer), Verdict::Adopt { meet: true });
        // It crashed between noting and adopting.
        assert_eq!(judge(&own(1, Some(&[1, 2])), 2, &answer), Verdict::Adopt { meet: false });
        assert_eq!(judge(&own(3, Some(&[1, 3])), 2, &answer), Verdict::NotAdoptedYet);
    }

    #[test]
    fn an_answer_is_held_to_whom_it_should_come_from() {
        let me = own(1, Some(&[1, 2]));
        assert_eq!(judge(&me, 2, &welcome(2, Some(CLUSTER))), Verdict::Connected { meet: false });
        assert_eq!(judge(&me, 3, &welcome(3, Some(CLUSTER))), Verdict::Connected { meet: true });
        let refused = |peer, answer: Welcome| match judge(&me, peer, &answer) {
            Verdict::Refuse(refusal) => refusal,
            other => panic!("{answer:?} → {other:?}"),
        };
        assert_eq!(refused(3, welcome(2, Some(CLUSTER))), Refusal::OtherNode { meant: 3, found: 2 });
        assert!(matches!(refused(2, welcome(2, Some("f"))), Refusal::OtherCluster { .. }));
        let newer = Welcome { protocol: 2, ..welcome(2, Some(CLUSTER)) };
        assert_eq!(refused(2, newer), Refusal::Protocol { theirs: (2, 2) });
    }

    #[test]
    fn a_founder_doubts_itself_for_members_that_it_has_never_met() {
        assert!(founded_without(&own(1, Some(&[1])), 2));
        assert!(founded_without(&own(1, Some(&[1, 3])), 2), "whoever else it has met");
        assert!(!founded_without(&own(1, Some(&[1, 2])), 2));
        assert!(!founded_without(&own(2, Some(&[2])), 3), "another founded it");
        assert!(!founded_without(&own(1, None), 2));
    }
}
