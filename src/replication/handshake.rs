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
//! A node that is added later has no vote until the log says so, and names its
//! directory: it is adopted, in the same way, by whoever leads.
//!
//! # Epochs
//!
//! Each time the voters are set by force, the membership gets one name more, drawn
//! at random. Two nodes compare their lists:
//!
//! ```text
//!   mine      theirs
//!   a         a          members of one cluster
//!   a         a b        left behind: told the new membership by who leads, if all that this
//!                        node has applied is in the log that was forced; else it must be wiped
//!   a b       a          the other way round
//!   a b       a c        forced apart: there are two clusters by now, and someone must choose
//! ```
//!
//! # Who lags
//!
//! A member that was away doesn't know of nodes that came meanwhile, or came again on
//! another directory, and one of them may lead by now. So who greets says as of which
//! entry it knows the members; a node that would refuse it and knows less is told its
//! membership, and begins anew with that, unless it hears of a leader: then it learns
//! of them by the log. (It may not just let it in: by the members
//! that its log names it would count votes of a node that has forgotten its own.) A node that
//! may be an older copy of itself is told at once: it may have been the only one that votes.
//!
//! Both sides check everything that they can; all here is pure.

use serde::{Deserialize, Serialize};

use super::message::NodeId;
pub use super::protocol::{PROTOCOL, PROTOCOL_MEMBERS};
pub use super::refusal::Refusal;
use crate::persistence::{Membership, NodeUuid};

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
    /// How often the cluster's voters were set by force.
    pub epoch: u64,
    /// Each time's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub epochs: Vec<String>,
    /// The entry that named the members as it knows them.
    #[serde(default, skip_serializing_if = "is_founding")]
    pub configuration: u64,
    /// Its number.
    pub node_id: NodeId,
    /// Its directory.
    pub node: NodeUuid,
    /// Its process.
    pub boot: u64,
    /// Whom it takes the other one for.
    pub to: NodeId,
    /// It may be an older copy of itself: see [`super::doubt`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_doubt: bool,
    /// Where clients are told that it is, if it was told to say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<(String, u16)>,
    /// To a node that is adopted, or was left behind.
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
    /// Its epochs. Fewer than those of who greets: it was left behind, and the connection ends here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub epochs: Vec<String>,
    /// It knows fewer members, or other ones, than who greets: it is to be told, and the
    /// connection ends here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lags: bool,
    /// Its number.
    pub node_id: NodeId,
    /// Its directory.
    pub node: NodeUuid,
    /// Its process.
    pub boot: u64,
    /// It may be an older copy of itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_doubt: bool,
    /// Where clients are told that it is, if it was told to say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<(String, u16)>,
}

/// The members are those that there were from the start.
fn is_founding(index: &u64) -> bool {
    *index == 0
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
    /// The protocol versions that it speaks.
    pub protocol: (u32, u32),
    /// It leads.
    pub leads: bool,
    /// It leads, and has applied an entry of its own term: it has all that is committed.
    pub has_all: bool,
    /// Index and term of the last entry that it has applied; (0, 0) for none.
    pub applied: (u64, u64),
    /// It has heard of no leader for a while.
    pub is_lost: bool,
    /// It may be an older copy of itself, and follows nobody.
    pub in_doubt: bool,
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
    /// This node was left behind: the membership is to be stored, durably, and the
    /// node to start anew with it.
    Rejoin {
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
    /// It waits for the founder or the leader, and this node isn't that.
    NotAdoptedYet,
    /// It isn't the peer that it was taken for.
    Refuse(Refusal),
}

/// The highest version that both speak, if it knows all that this cluster is.
fn common_protocol(own: &Own, node_id: NodeId, theirs: (u32, u32)) -> Result<u32, Refusal> {
    let ours = own.protocol;
    let highest = ours.1.min(theirs.1);
    if highest < ours.0.max(theirs.0) {
        return Err(Refusal::Protocol { theirs });
    }
    let is_plain = own.membership.as_ref().is_none_or(Membership::is_plain);
    if highest < PROTOCOL_MEMBERS && !is_plain {
        return Err(Refusal::EarlierVersion { node_id });
    }
    Ok(highest)
}

/// How two lists of epochs stand to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lineage {
    Same,
    /// Mine is the beginning of theirs.
    Behind,
    Ahead,
    Apart,
}

fn lineage(mine: &[String], theirs: &[String]) -> Lineage {
    match (theirs.starts_with(mine), mine.starts_with(theirs)) {
        (true, true) => Lineage::Same,
        (true, false) => Lineage::Behind,
        (false, true) => Lineage::Ahead,
        (false, false) => Lineage::Apart,
    }
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
    let protocol = common_protocol(own, hello.node_id, hello.protocol)?;
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
            if membership.member(own.node_id).is_none()
                && hello.configuration > membership.configuration.index
            {
                // It was removed, and added again since: nobody may take its directory for that of a new
                // node. Those that don't know of the removal yet may still need its vote.
                return Err(Refusal::NoMember { node_id: own.node_id, members: membership.node_ids() });
            }
            let knows_less = hello.configuration > membership.configuration.index;
            match lineage(&membership.epochs, &hello.epochs) {
                Lineage::Same if knows_less && own.in_doubt => lags(own, membership, hello, protocol),
                Lineage::Same => match meets(membership, hello.node_id, hello.node) {
                    Err(_) if knows_less => lags(own, membership, hello, protocol),
                    met => Ok(Decision::Accept { protocol, meet: met? }),
                },
                Lineage::Behind => left_behind(own, hello, protocol),
                Lineage::Ahead => Err(Refusal::LeftBehind { node_id: hello.node_id }),
                Lineage::Apart => Err(Refusal::ForcedApart { node_id: hello.node_id }),
            }
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
                // Those that vote from the start are their founder's to adopt.
                let may_adopt = membership.founder == from || !membership.configuration.binds(own.node_id);
                if !may_adopt
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

/// The members have changed while this node was away: it begins anew with those that
/// it is told. What it has stays as it is.
fn lags(own: &Own, known: &Membership, hello: &Hello, protocol: u32) -> Result<Decision, Refusal> {
    if own.has_all && !own.in_doubt {
        // Its leader will never tell it of that entry: it leads itself, without it.
        let (node_id, index) = (hello.node_id, hello.configuration);
        return Err(Refusal::Forgotten { node_id, leader: own.node_id, index });
    }
    if !own.is_lost && !own.in_doubt {
        return Err(Refusal::Lags { node_id: own.node_id });
    }
    let Some(told) = &hello.membership else { return Ok(Decision::Introduce { protocol }) };
    let Some(member) = told.member(own.node_id) else {
        return Err(Refusal::NoMember { node_id: own.node_id, members: told.node_ids() });
    };
    let is_for_me = member.node.is_none_or(|node| node == own.node)
        && told.cluster == known.cluster
        && told.epochs == known.epochs
        && told.configuration.index == hello.configuration;
    if !is_for_me {
        return Err(Refusal::NotForMe { from: hello.node_id });
    }
    Ok(Decision::Rejoin {
        membership: Membership { configuration: told.configuration.clone(), ..known.clone() },
    })
}

/// The other side's voters were set by force, without this node: it begins anew as
/// one that listens, if nothing that it has applied was lost by that.
fn left_behind(own: &Own, hello: &Hello, protocol: u32) -> Result<Decision, Refusal> {
    let Some(membership) = &hello.membership else { return Ok(Decision::Introduce { protocol }) };
    let (node_id, (applied, term)) = (own.node_id, own.applied);
    if membership.member(node_id).is_none() {
        return Err(Refusal::NoMember { node_id, members: membership.node_ids() });
    }
    if let Some(known) =
        membership.member(node_id).and_then(|member| member.node).filter(|node| *node != own.node)
    {
        return Err(Refusal::LostData { node_id, known, found: own.node });
    }
    let forced = membership.forced.as_ref();
    if membership.epochs != hello.epochs || forced.is_none_or(|forced| forced.through.is_none()) {
        return Err(Refusal::NotForMe { from: hello.node_id });
    }
    // Of the force before the last one it isn't known any more what was kept.
    let missed = hello.epochs.len() - own.membership.as_ref().map_or(0, |known| known.epochs.len());
    if applied > 0 && (missed > 1 || forced.is_none_or(|forced| !forced.has(applied, term))) {
        let through = forced.and_then(|forced| forced.through).unwrap_or_default();
        return Err(Refusal::Diverged { node_id, applied, through });
    }
    Ok(Decision::Rejoin { membership: membership.clone() })
}

/// Judges the answer of a node that was taken for `peer`.
pub fn judge(own: &Own, peer: NodeId, welcome: &Welcome) -> Verdict {
    match try_judge(own, peer, welcome) {
        Ok(verdict) => verdict,
        Err(refusal) => Verdict::Refuse(refusal),
    }
}

fn try_judge(own: &Own, peer: NodeId, welcome: &Welcome) -> Result<Verdict, Refusal> {
    common_protocol(own, peer, (welcome.protocol, welcome.protocol))?;
    if welcome.node_id != peer {
        return Err(Refusal::OtherNode { meant: peer, found: welcome.node_id });
    }
    let Some(membership) = &own.membership else {
        return Err(Refusal::NotAdopted { node_id: own.node_id });
    };
    if let Some(theirs) = welcome.cluster.as_ref().filter(|theirs| **theirs != membership.cluster) {
        return Err(Refusal::OtherCluster { theirs: theirs.clone(), ours: membership.cluster.clone() });
    }
    if welcome.cluster.is_some() {
        match lineage(&membership.epochs, &welcome.epochs) {
            Lineage::Same => {}
            Lineage::Ahead if own.leads => return Ok(Verdict::Adopt { meet: false }),
            Lineage::Ahead => return Ok(Verdict::NotAdoptedYet),
            Lineage::Behind => return Err(Refusal::LeftBehind { node_id: own.node_id }),
            Lineage::Apart => return Err(Refusal::ForcedApart { node_id: peer }),
        }
    }
    let meet = meets(membership, peer, welcome.node)?;
    if welcome.cluster.is_some() && welcome.lags {
        return Ok(Verdict::Adopt { meet });
    }
    let adopts =
        if membership.configuration.binds(peer) { membership.founder == own.node_id } else { own.leads };
    Ok(match welcome.cluster {
        Some(_) => Verdict::Connected { meet },
        None if adopts => Verdict::Adopt { meet },
        None => Verdict::NotAdoptedYet,
    })
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
        let (protocol, applied) = (PROTOCOL, (0, 0));
        let (leads, has_all, is_lost, in_doubt) = (false, false, true, false);
        Own {
            node_id,
            node: uuid(node_id),
            membership: met.map(membership),
            protocol,
            leads,
            applied,
            has_all,
            is_lost,
            in_doubt,
        }
    }

    fn hello(node_id: NodeId, to: NodeId) -> Hello {
        Hello {
            protocol: PROTOCOL,
            lane: Lane::Log,
            cluster: Some(CLUSTER.into()),
            epoch: 0,
            epochs: vec![],
            configuration: 0,
            node_id,
            node: uuid(node_id),
            boot: 5,
            to,
            in_doubt: false,
            advertise: None,
            membership: None,
        }
    }

    fn welcome(node_id: NodeId, cluster: Option<&str>) -> Welcome {
        let cluster = cluster.map(String::from);
        let (protocol, node, epochs, lags, in_doubt) = (PROTOCOL.1, uuid(node_id), vec![], false, false);
        Welcome { protocol, cluster, epochs, lags, node_id, node, boot: 6, in_doubt, advertise: None }
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
        assert_eq!(decide(&me, &with((1, 7))), Decision::Accept { protocol: PROTOCOL.1, meet: false });
        assert_eq!(decide(&me, &with((1, 2))), Decision::Accept { protocol: 2, meet: false });
        assert_eq!(decide(&me, &with((0, 1))), Decision::Accept { protocol: 1, meet: false });
        for theirs in [(8, 9), (0, 0)] {
            assert_eq!(refusal(&me, &with(theirs)), Refusal::Protocol { theirs });
        }
        let mut changed = me;
        let mut configuration = membership(&[1, 2]).configuration;
        configuration.index = 7;
        changed.membership.as_mut().unwrap().changed(configuration);
        let earlier = Refusal::EarlierVersion { node_id: 2 };
        assert_eq!(refusal(&changed, &with((1, 1))), earlier, "it can't read how the members changed");
        let answer = Welcome { protocol: 1, ..welcome(2, Some(CLUSTER)) };
        assert_eq!(judge(&changed, 2, &answer), Verdict::Refuse(earlier));
    }

    #[test]
    fn a_member_is_accepted_and_noted_when_it_is_new() {
        let accept = |meet| Decision::Accept { protocol: PROTOCOL.1, meet };
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
        assert_eq!(decide(&new, &hello(1, 2)), Decision::Introduce { protocol: PROTOCOL.1 });
        assert_eq!(decide(&new, &hello(3, 2)), Decision::Introduce { protocol: PROTOCOL.1 });
        let adopting = |met: &[NodeId], from| Hello { membership: Some(membership(met)), ..hello(from, 2) };
        let membership = membership(&[1, 2]);
        assert_eq!(decide(&new, &adopting(&[1, 2], 1)), Decision::Adopt { protocol: PROTOCOL.1, membership });
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
        let newer = Welcome { protocol: PROTOCOL.1 + 1, ..welcome(2, Some(CLUSTER)) };
        assert_eq!(refused(2, newer), Refusal::Protocol { theirs: (PROTOCOL.1 + 1, PROTOCOL.1 + 1) });
    }

    #[test]
    fn a_founder_doubts_itself_for_members_that_it_has_never_met() {
        assert!(founded_without(&own(1, Some(&[1])), 2));
        assert!(founded_without(&own(1, Some(&[1, 3])), 2), "whoever else it has met");
        assert!(!founded_without(&own(1, Some(&[1, 2])), 2));
        assert!(!founded_without(&own(2, Some(&[2])), 3), "another founded it");
        assert!(!founded_without(&own(1, None), 2));
    }

    /// Nodes 1 and 2, and node 3 that was added, and only listens.
    fn with_learner(met: Option<NodeUuid>) -> Membership {
        let mut membership = membership(&[1, 2]);
        let mut to = membership.configuration.clone();
        to.members =
            crate::persistence::Members { voters: vec![1, 2], learners: vec![3], ..Default::default() };
        to.index = 7;
        membership.changed(to);
        met.map(|node| membership.meet(3, node));
        membership
    }

    #[test]
    fn a_node_that_was_added_is_adopted_by_whoever_leads() {
        let me = |leads| Own { membership: Some(with_learner(None)), leads, ..own(2, None) };
        assert_eq!(judge(&me(false), 3, &welcome(3, None)), Verdict::NotAdoptedYet);
        assert_eq!(judge(&me(true), 3, &welcome(3, None)), Verdict::Adopt { meet: true });
        assert_eq!(judge(&me(true), 1, &welcome(1, None)), Verdict::NotAdoptedYet, "its founder's to adopt");
        let adopting = Hello { membership: Some(with_learner(Some(uuid(3)))), ..hello(2, 3) };
        assert!(matches!(decide(&own(3, None), &adopting), Decision::Adopt { .. }));
        let wiped = Welcome { node: uuid(9), ..welcome(3, None) };
        let knows = Own { membership: Some(with_learner(Some(uuid(3)))), ..me(true) };
        assert!(matches!(judge(&knows, 3, &wiped), Verdict::Refuse(Refusal::LostData { .. })));
    }

    /// Node 1 was forced when its log ended with entry 70, of term 3; node 2 may listen.
    fn forced(name: &str) -> Membership {
        let mut membership = membership(&[1, 2, 3]);
        membership.epochs.push(name.into());
        membership.forced = Some(crate::persistence::Forced {
            through: Some(70),
            committed: 30,
            terms: vec![(31, 1), (40, 3)],
        });
        membership
    }

    #[test]
    fn who_was_left_behind_is_told_and_must_not_have_what_was_lost() {
        let forced = forced("f");
        let leader = Own { membership: Some(forced.clone()), leads: true, ..own(1, None) };
        let behind = |applied| Own { applied, ..own(2, Some(&[1, 2, 3])) };
        let greets = Hello { epochs: forced.epochs.clone(), ..hello(1, 2) };
        assert_eq!(decide(&behind((9, 1)), &greets), Decision::Introduce { protocol: PROTOCOL.1 });
        assert_eq!(judge(&leader, 2, &welcome(2, Some(CLUSTER))), Verdict::Adopt { meet: false });
        assert_eq!(refusal(&leader, &hello(2, 1)), Refusal::LeftBehind { node_id: 2 });
        let told = Hello { membership: Some(forced.clone()), ..greets };
        for applied in [(0, 0), (39, 1), (70, 3)] {
            let rejoin = Decision::Rejoin { membership: forced.clone() };
            assert_eq!(decide(&behind(applied), &told), rejoin, "{applied:?}");
        }
        let twice = vec!["f".to_string(), "g".to_string()];
        let told_late = Hello {
            epochs: twice.clone(),
            membership: Some(Membership { epochs: twice, ..forced.clone() }),
            ..hello(1, 2)
        };
        assert!(matches!(refusal(&behind((9, 1)), &told_late), Refusal::Diverged { applied: 9, .. }));
        assert!(matches!(decide(&behind((0, 0)), &told_late), Decision::Rejoin { .. }), "it has nothing");
        for (applied, term) in [(71, 3), (40, 1)] {
            let diverged = Refusal::Diverged { node_id: 2, applied, through: 70 };
            assert_eq!(refusal(&behind((applied, term)), &told), diverged);
        }
    }

    #[test]
    fn a_node_that_knows_that_it_was_removed_is_no_new_one_of_its_number() {
        let mut own = own(3, Some(&[1, 2, 3]));
        let known = own.membership.as_mut().unwrap();
        let mut without = known.configuration.clone();
        without.nodes.retain(|node| node.node_id != 3);
        without.index = 7;
        known.changed(without);
        let since = Hello { configuration: 8, ..hello(1, 3) };
        assert!(matches!(refusal(&own, &since), Refusal::NoMember { node_id: 3, .. }));
        assert!(matches!(decide(&own, &hello(1, 3)), Decision::Accept { .. }), "it doesn't know yet");
    }

    #[test]
    fn two_sides_that_were_forced_are_told_to_choose() {
        let me = Own { membership: Some(forced("f")), leads: true, ..own(1, None) };
        let greets = Hello { epochs: vec!["g".into()], ..hello(2, 1) };
        let apart = Refusal::ForcedApart { node_id: 2 };
        assert_eq!(refusal(&me, &greets), apart);
        assert!(apart.to_string().contains("Choose"));
        let answer = Welcome { epochs: vec!["g".into()], ..welcome(2, Some(CLUSTER)) };
        assert_eq!(judge(&me, 2, &answer), Verdict::Refuse(apart));
    }

    #[test]
    fn who_was_away_is_told_of_nodes_that_came_meanwhile() {
        let own = own(2, Some(&[1, 2, 3]));
        let mut now = membership(&[1, 2, 3]);
        now.configuration.index = 40;
        now.configuration.nodes.push(Member { node_id: 4, host: "h".into(), port: 1, node: Some(uuid(4)) });
        let greets = Hello { configuration: 40, ..hello(4, 2) };
        assert_eq!(decide(&own, &greets), Decision::Introduce { protocol: PROTOCOL.1 });
        let answer = Welcome { lags: true, ..welcome(2, Some(CLUSTER)) };
        let greeter = super::Own { node_id: 4, node: uuid(4), membership: Some(now.clone()), ..own.clone() };
        assert_eq!(judge(&greeter, 2, &answer), Verdict::Adopt { meet: false });
        let told = Hello { membership: Some(now.clone()), ..greets };
        assert_eq!(decide(&own, &told), Decision::Rejoin { membership: now.clone() });
        // The same number on another directory, as someone knows who was there.
        let follows = super::Own { is_lost: false, ..own.clone() };
        assert_eq!(refusal(&follows, &told), Refusal::Lags { node_id: 2 });
        assert!(Refusal::Lags { node_id: 2 }.passes(), "it learns of them by its leader");
        let leads = super::Own { leads: true, has_all: true, ..follows.clone() };
        let Refusal::Forgotten { node_id, leader: 2, index } = refusal(&leads, &told) else { panic!() };
        assert_eq!((node_id, index), (told.node_id, told.configuration), "it will never hear of it");
        let alone_in_doubt = super::Own { in_doubt: true, ..leads };
        assert!(matches!(decide(&alone_in_doubt, &told), Decision::Rejoin { .. }), "it is told");
        let replaced = Hello { configuration: 40, node: uuid(9), ..hello(3, 2) };
        assert_eq!(decide(&own, &replaced), Decision::Introduce { protocol: PROTOCOL.1 });
        let earlier = Hello { configuration: 0, ..replaced };
        assert!(matches!(decide(&own, &earlier), Decision::Refuse(Refusal::LostData { node_id: 3, .. })));
        now.configuration.nodes.retain(|node| node.node_id != 2);
        let without = Hello { membership: Some(now), ..told };
        assert!(matches!(decide(&own, &without), Decision::Refuse(Refusal::NoMember { node_id: 2, .. })));
    }

    #[test]
    fn who_may_be_an_older_copy_is_told_of_later_members_before_it_decides_anything() {
        let mut now = membership(&[1, 2, 3]);
        now.configuration.index = 40;
        let greets = Hello { configuration: 40, ..hello(2, 1) };
        let knows_all = own(1, Some(&[1, 2, 3]));
        assert_eq!(decide(&knows_all, &greets), Decision::Accept { protocol: PROTOCOL.1, meet: false });
        let doubted = super::Own { in_doubt: true, is_lost: false, ..knows_all };
        assert_eq!(decide(&doubted, &greets), Decision::Introduce { protocol: PROTOCOL.1 });
        let told = Hello { membership: Some(now.clone()), ..greets };
        assert_eq!(decide(&doubted, &told), Decision::Rejoin { membership: now });
        assert!(matches!(decide(&doubted, &hello(2, 1)), Decision::Accept { .. }), "who knows no more");
    }
}
