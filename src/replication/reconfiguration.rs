//! How the members of a running cluster change: what is asked for, and what a
//! leader does next by itself.
//!
//! ```text
//!           add                      has caught up                    committed
//!   (no) ────────► learner ────────────────────────► both sets of voters ──────► voter
//!
//!           remove                                    committed
//!   voter ────────► both sets of voters ────────────────────────► (no)
//! ```
//!
//! While two sets of voters count, each decision needs a majority of both, so that
//! no two leaders are elected by sets that don't meet. A change is an entry of the
//! log: whoever leads next finds it there and goes on with it. One is under way at
//! a time.
//!
//! Two nodes have a witness (`persistence/configuration.rs`), and no other number
//! has: it comes and goes with the change that makes them two, or not.

use std::fmt;

use super::message::NodeId;
use super::quorum::is_quorum;
use super::raft::Status;
use crate::limits::{CAUGHT_UP_LAG_ENTRIES_MAX, MEMBERS_MAX, NODE_ID_MAX};
use crate::persistence::{
    Configuration, Forced, Member, Members, Membership, WITNESS, host_of, is_witness, voters_of,
};

/// Why members don't change so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// Another change is under way, or this leader is too new to know.
    Busy,
    /// Node ids are from 1 to 2^53 - 1, as every client can say them.
    NodeId,
    /// It is a member already, elsewhere.
    Elsewhere(Member),
    /// Another member has that address.
    AddressTaken(Member),
    /// There are as many as there may be.
    TooMany,
    /// No such member.
    NoMember {
        /// Which.
        node_id: NodeId,
        /// Those that there are.
        members: Vec<NodeId>,
    },
    /// It is the only one that votes.
    LastVoter,
    /// Those that answer now could decide nothing any more.
    NoQuorum {
        /// Who would vote and doesn't answer.
        silent: Vec<NodeId>,
        /// Who doesn't answer, and can be removed.
        instead: Vec<NodeId>,
    },
    /// They have changed, and the disk doesn't take that.
    NotStored,
    /// A node of the cluster runs an earlier version, which can't read such an entry.
    EarlierVersion(NodeId),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::Busy => {
                write!(formatter, "another change of the members is under way; ask again when it is done")
            }
            ChangeError::NodeId => write!(formatter, "`node_id`: wants a number from 1 to 9007199254740991"),
            ChangeError::Elsewhere(Member { node_id, host, port, .. }) => write!(
                formatter,
                "node {node_id} is a member already, at {host}:{port}; a node that moves is removed and added again"
            ),
            ChangeError::AddressTaken(Member { node_id, host, port, .. }) => {
                write!(formatter, "{host}:{port} is the address of node {node_id}")
            }
            ChangeError::TooMany => write!(formatter, "a cluster has at most {MEMBERS_MAX} nodes"),
            ChangeError::NoMember { node_id, members } => {
                write!(formatter, "node {node_id} is no member; the members are {members:?}")
            }
            ChangeError::LastVoter => {
                write!(formatter, "without this node nobody votes: add another one first and let it catch up")
            }
            ChangeError::NoQuorum { silent, instead } => {
                write!(
                    formatter,
                    "nothing was changed: of the nodes that would vote then {silent:?} don't answer, and without them \
                     there would be no majority; "
                )?;
                match instead[..] {
                    [] => write!(formatter, "bring one of them back first"),
                    _ => write!(
                        formatter,
                        "bring one of them back first, or remove one of {instead:?} instead"
                    ),
                }
            }
            ChangeError::NotStored => write!(
                formatter,
                "the node is out by the log, and this node can't store that (its log says why): keep the removed node's \
                 directory, mend the disk, and ask again"
            ),
            ChangeError::EarlierVersion(node_id) => write!(
                formatter,
                "node {node_id} speaks a version of the peers' protocol that knows no changes of members: upgrade it \
                 first, or start it without --peer-protocol"
            ),
        }
    }
}

impl std::error::Error for ChangeError {}

/// A node more, which only listens at first. `Ok(None)`: it is a member there already.
pub fn add(current: &Configuration, new: Member) -> Result<Option<Configuration>, ChangeError> {
    if new.node_id == 0 || new.node_id > NODE_ID_MAX {
        return Err(ChangeError::NodeId);
    }
    if let Some(known) = current.node(new.node_id) {
        let is_there = (&known.host, known.port) == (&new.host, new.port);
        return if is_there { Ok(None) } else { Err(ChangeError::Elsewhere(known.clone())) };
    }
    let has_address = |node: &&Member| (&node.host, node.port) == (&new.host, new.port);
    if let Some(other) = current.nodes.iter().find(has_address) {
        return Err(ChangeError::AddressTaken(other.clone()));
    }
    if current.nodes.len() >= MEMBERS_MAX {
        return Err(ChangeError::TooMany);
    }
    if current.members.is_joint() {
        return Err(ChangeError::Busy);
    }
    let mut to = current.clone();
    insert(&mut to.members.learners, new.node_id);
    to.nodes.push(Member { node: None, ..new });
    to.nodes.sort_by_key(|node| node.node_id);
    Ok(Some(to))
}

/// A node less.
pub fn remove(
    current: &Configuration,
    node_id: NodeId,
    leader: NodeId,
) -> Result<Configuration, ChangeError> {
    if current.node(node_id).is_none() {
        return Err(ChangeError::NoMember { node_id, members: current.node_ids() });
    }
    if current.members.is_joint() {
        return Err(ChangeError::Busy);
    }
    let mut to = current.clone();
    if current.members.learners.contains(&node_id) {
        to.members.learners.retain(|id| *id != node_id);
        to.nodes.retain(|node| node.node_id != node_id);
        return Ok(to);
    }
    let left: Vec<NodeId> = nodes_that_vote(current).into_iter().filter(|id| *id != node_id).collect();
    if left.is_empty() {
        return Err(ChangeError::LastVoter);
    }
    to.members = both(&current.members, voters_of(&left, leader));
    Ok(to)
}

/// Who answers a leader now, the leader included.
#[derive(Clone, Debug, Default)]
pub struct Answering {
    /// All of them.
    pub nodes: Vec<NodeId>,
    /// Those among them that may be older copies of themselves.
    pub doubted: Vec<NodeId>,
}

impl Answering {
    /// Whether these can decide while such members count: in a change that is under way by both sets.
    pub fn can_decide(&self, members: &Members) -> bool {
        let answers = |voter| self.nodes.contains(&host_of(voter));
        is_quorum(members, answers, |voter| self.doubted.contains(&host_of(voter)))
    }

    /// Refuses a change after which these, if they go on answering, could not decide: neither while it is under way
    /// nor when it has ended. `leader` is the node that asks.
    pub fn allows(
        &self,
        current: &Configuration,
        to: &Configuration,
        leader: NodeId,
    ) -> Result<(), ChangeError> {
        if self.can_decide(&to.members) {
            return Ok(());
        }
        let is_silent = |id: &NodeId| !self.nodes.contains(id);
        let silent = nodes_that_vote(to).into_iter().filter(is_silent).collect();
        let helps = |id: &NodeId| {
            is_silent(id)
                && remove(current, *id, leader).is_ok_and(|without| self.can_decide(&without.members))
        };
        let instead = nodes_that_vote(current).into_iter().filter(helps).collect();
        Err(ChangeError::NoQuorum { silent, instead })
    }
}

/// What a leader does next: ends the change that is under way, makes a voter of a
/// learner that has caught up, gives two nodes their witness, unless those that answer
/// could not decide then. `current` knows the directories that were met; `leader` is the
/// node that asks.
pub fn next(
    current: &Configuration,
    status: &Status,
    leader: NodeId,
    answering: &Answering,
) -> Option<Configuration> {
    let mut to = current.clone();
    if current.members.is_joint() {
        // Who leaves hands over first.
        if !current.members.voters.contains(&leader) {
            return None;
        }
        to.members.voters_outgoing.clear();
        let members = to.members.clone();
        to.nodes.retain(|node| members.has(node.node_id));
        return Some(to);
    }
    let mut nodes = nodes_that_vote(current);
    let has_caught_up = |&&(id, matched, is_active): &&(NodeId, u64, bool)| {
        let is_met = current.node(id).is_some_and(|node| node.node.is_some());
        // Of one that has nothing nothing was heard, however short the log is.
        is_active
            && is_met
            && matched > 0
            && status.last - matched.min(status.last) <= CAUGHT_UP_LAG_ENTRIES_MAX
    };
    if let Some(&(id, ..)) = status.learners.iter().find(has_caught_up) {
        insert(&mut nodes, id);
    }
    let voters = voters_of(&nodes, leader);
    let is_wanted = nodes.len() > nodes_that_vote(current).len()
        || voters.iter().any(|voter| is_witness(*voter))
            != current.members.voters.iter().any(|v| is_witness(*v));
    if !is_wanted {
        return None;
    }
    to.members = both(&current.members, voters);
    answering.can_decide(&to.members).then_some(to)
}

/// The membership after `force`: this node alone votes, the others listen, each on
/// whatever directory it comes with. What the log held is noted at the next start.
pub fn forced_by(mut membership: Membership, node_id: NodeId, epoch: String) -> Membership {
    let others = membership.node_ids().into_iter().filter(|id| *id != node_id).collect();
    let members = Members { voters: vec![node_id], learners: others, ..Members::default() };
    let mut nodes = membership.configuration.nodes.clone();
    nodes.iter_mut().filter(|node| node.node_id != node_id).for_each(|node| node.node = None);
    membership.epochs.push(epoch);
    membership.forced = Some(Forced::default());
    membership.base = Configuration { index: 0, members, nodes };
    membership.configuration = membership.base.clone();
    membership
}

/// The membership of a node that was on its own, and gets company: what it has
/// written so far is the beginning of the cluster's log.
pub fn founded_with(cluster: String, own: Member, new: Member) -> Result<Membership, ChangeError> {
    let node_id = own.node_id;
    let mut membership = Membership::new(cluster, node_id, vec![own]);
    if let Some(with) = add(&membership.base, new)? {
        (membership.base, membership.configuration) = (with.clone(), with);
        membership.forced = Some(Forced::default());
    }
    Ok(membership)
}

/// Voters without the witness.
pub fn nodes_that_vote(configuration: &Configuration) -> Vec<NodeId> {
    configuration.members.voters.iter().copied().filter(|voter| voter & WITNESS == 0).collect()
}

/// Both sets count, until the change has ended.
fn both(before: &Members, voters: Vec<NodeId>) -> Members {
    let learners = before.learners.iter().copied().filter(|id| !voters.contains(id)).collect();
    Members { voters, learners, voters_outgoing: before.voters.clone(), ..Members::default() }
}

fn insert(ids: &mut Vec<NodeId>, id: NodeId) {
    ids.push(id);
    ids.sort_unstable();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::{NodeUuid, witness_in};
    use crate::replication::raft::{Role, RoleChange};

    fn member(node_id: NodeId) -> Member {
        let node = Some(NodeUuid([node_id as u8; 16]));
        Member { node_id, host: "127.0.0.1".into(), port: 9000 + node_id as u16, node }
    }

    fn of(ids: &[NodeId]) -> Configuration {
        Configuration::founding(ids.iter().map(|id| member(*id)).collect(), 1)
    }

    fn leads(learners: &[(NodeId, u64, bool)]) -> Status {
        Status {
            role: RoleChange { role: Role::Leader, leader: Some(1), term: 5 },
            commit: 900,
            last: 900,
            applied: 900,
            was_handed_over: false,
            followers: vec![],
            learners: learners.to_vec(),
            hosts_witness: false,
            in_doubt: false,
        }
    }

    fn answer(nodes: &[NodeId]) -> Answering {
        Answering { nodes: nodes.to_vec(), doubted: vec![] }
    }

    /// From step to step until nothing is left to do.
    fn settle(mut configuration: Configuration, learners: &[(NodeId, u64, bool)]) -> Vec<Members> {
        let mut steps = vec![];
        loop {
            let there =
                learners.iter().copied().filter(|(id, ..)| configuration.members.learners.contains(id));
            let status = leads(&there.collect::<Vec<_>>());
            let Some(to) = next(&configuration, &status, 1, &answer(&[1, 2, 3])) else { return steps };
            steps.push(to.members.clone());
            configuration = to;
            configuration.nodes.iter_mut().for_each(|node| node.node = Some(NodeUuid([7; 16])));
        }
    }

    #[test]
    fn one_becomes_two_with_a_witness_and_three_without() {
        let mut two = add(&of(&[1]), member(2)).unwrap().unwrap();
        assert_eq!((&two.members.voters[..], &two.members.learners[..]), (&[1][..], &[2][..]));
        assert_eq!(two.node(2).unwrap().node, None, "not met yet");
        assert_eq!(settle(two.clone(), &[(2, 900, true)]), [], "and so it gets no vote");
        two.nodes[1].node = Some(NodeUuid([2; 16]));
        assert_eq!(settle(two.clone(), &[(2, 800, true)]), [], "it lags");
        let steps = settle(two.clone(), &[(2, 890, true)]);
        assert_eq!(
            (&steps[0].voters[..], &steps[0].voters_outgoing[..]),
            (&[1, 2, witness_in(2)][..], &[1][..])
        );
        assert_eq!((steps.len(), steps[1].is_joint(), &steps[1].learners[..]), (2, false, &[][..]));
        let mut three = add(&of(&[1, 2]), member(3)).unwrap().unwrap();
        three.nodes[2].node = Some(NodeUuid([3; 16]));
        let steps = settle(three, &[(3, 900, true)]);
        assert_eq!(steps.last().unwrap().voters, [1, 2, 3]);
    }

    #[test]
    fn nobody_is_removed_whom_those_that_answer_need() {
        // Members, who answers the leader, node 1; who may be removed, and who is named instead of the others.
        for (members, answering, may, instead) in [
            (&[1, 2, 3][..], &[1, 2][..], &[3][..], &[3][..]),
            (&[1, 2, 3], &[1, 2, 3], &[1, 2, 3], &[]),
            (&[1, 2, 3, 4, 5], &[1, 2, 3], &[4, 5], &[4, 5]),
            (&[1, 2, 3, 4, 5], &[1, 2, 3, 4], &[1, 2, 3, 4, 5], &[]),
            (&[1, 2, 3, 4], &[1, 2, 3], &[1, 2, 3, 4], &[]),
            (&[1, 2], &[1, 2], &[1, 2], &[]),
        ] {
            let current = of(members);
            for id in members {
                let to = remove(&current, *id, 1).unwrap();
                let allowed = answer(answering).allows(&current, &to, 1);
                if may.contains(id) {
                    assert_eq!(allowed, Ok(()), "{members:?} without {id}");
                } else {
                    let Err(ChangeError::NoQuorum { instead: named, .. }) = allowed else { panic!("{id}") };
                    assert_eq!(named, instead, "{members:?} without {id}");
                }
            }
        }
        let (current, mut doubtful) = (of(&[1, 2, 3, 4, 5]), answer(&[1, 2, 3, 4]));
        doubtful.doubted.push(4);
        let without = |id| doubtful.allows(&current, &remove(&current, id, 1).unwrap(), 1);
        assert!(without(3).is_err() && without(5).is_ok(), "who is in doubt answers for nobody");
    }

    #[test]
    fn a_node_less_and_two_that_are_left_get_a_witness_where_the_leader_is_not() {
        let to = remove(&of(&[1, 2, 3]), 2, 3).unwrap();
        assert_eq!((&to.members.voters[..], to.node(2).is_some()), (&[1, 3, witness_in(1)][..], true));
        let left = next(&to, &leads(&[]), 3, &answer(&[1, 3])).unwrap();
        assert_eq!((left.members.is_joint(), left.node_ids()), (false, vec![1, 3]));
        assert_eq!(next(&left, &leads(&[]), 3, &answer(&[1, 3])), None);
        assert_eq!(next(&to, &leads(&[]), 2, &answer(&[1, 2, 3])), None, "node 2 is about to leave");
        assert_eq!(remove(&of(&[1, 2]), 2, 1).unwrap().members.voters, [1]);
        assert_eq!(remove(&of(&[1]), 1, 1), Err(ChangeError::LastVoter));
    }

    #[test]
    fn two_nodes_from_before_there_were_witnesses_get_one() {
        let mut old = of(&[1, 2]);
        old.members.voters = vec![1, 2];
        assert_eq!(settle(old, &[]).last().unwrap().voters, [1, 2, witness_in(2)]);
    }

    #[test]
    fn what_can_t_be_is_refused() {
        let three = of(&[1, 2, 3]);
        assert_eq!(add(&three, member(3)), Ok(None), "it is there");
        let moved = Member { port: 1, ..member(3) };
        assert_eq!(add(&three, moved), Err(ChangeError::Elsewhere(member(3))));
        let same_address = Member { node_id: 4, ..member(3) };
        assert_eq!(add(&three, same_address), Err(ChangeError::AddressTaken(member(3))));
        assert_eq!(add(&three, Member { node_id: 0, ..member(4) }), Err(ChangeError::NodeId));
        assert!(matches!(remove(&three, 9, 1), Err(ChangeError::NoMember { node_id: 9, .. })));
        let joint = remove(&three, 2, 1).unwrap();
        assert_eq!(add(&joint, member(4)), Err(ChangeError::Busy));
        assert_eq!(remove(&joint, 3, 1), Err(ChangeError::Busy));
        let learner = add(&three, member(4)).unwrap().unwrap();
        assert_eq!(remove(&learner, 4, 1).unwrap().members, three.members, "who only listens goes at once");
    }

    #[test]
    fn who_was_forced_votes_alone_and_takes_the_others_as_they_come() {
        let membership = Membership::new("c".into(), 1, vec![member(1), member(2)]);
        let forced = forced_by(membership, 2, "f".into());
        let Membership { epochs, base, forced, .. } = &forced;
        assert_eq!((&base.members.voters[..], &base.members.learners[..]), (&[2][..], &[1][..]));
        assert_eq!((base.node(1).unwrap().node, base.node(2).unwrap().node), (None, member(2).node));
        assert_eq!((epochs.len(), forced.as_ref().unwrap().through), (1, None));
    }

    #[test]
    fn a_node_on_its_own_founds_a_cluster_with_the_first_that_is_added() {
        let founded = founded_with("c".into(), member(1), member(2)).unwrap();
        assert_eq!(founded.base.members.learners, [2]);
        assert!(founded.epochs.is_empty() && founded.forced.is_some());
        assert_eq!(founded_with("c".into(), member(1), member(1)).unwrap().node_ids(), [1]);
        let same_address = Member { node_id: 2, ..member(1) };
        assert!(matches!(
            founded_with("c".into(), member(1), same_address),
            Err(ChangeError::AddressTaken(_))
        ));
    }
}
