//! Members that shall change: what clients have asked for, and what the node that
//! leads does by itself.
//!
//! ```text
//! Change ─► waits its turn ─► proposed ─► the log names them so ─► answered
//!                 └ refused: it can't be so; this node doesn't lead (any more)
//! ```
//!
//! `add_member` is answered when the node is one that listens, which lets it come;
//! it votes as soon as it has caught up, whoever leads then. `remove_member` is
//! answered when the node is out.

use std::time::{Duration, Instant};

use datastore::error::{Code, Error, Outcome};
use datastore::persistence::Configuration;
use datastore::replication::doubt::Condition;
use datastore::replication::handshake::PROTOCOL_MEMBERS;
use datastore::replication::message::NodeId;
use datastore::replication::raft::{Role, Status};
use datastore::replication::reconfiguration::{Answering, ChangeError, add, next, nodes_that_vote, remove};

use crate::cluster::{Cluster, MemberView};
use crate::connection::{Connection, ConnectionMessage};
use crate::mailbox::Mailbox;
use crate::replication_messages::Wish;

/// What a change may take, one before it included.
const CHANGE_MAX: Duration = Duration::from_secs(8);
/// Whoever hasn't been heard for so long after a node was to be removed doesn't answer: several heartbeats.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// The same time in beats of this node: a node that was held up itself has heard nobody meanwhile.
const ANSWERS_WITHIN_BEATS: u32 = 20;

struct Change {
    wish: Wish,
    asked_by: (Mailbox<Connection>, u64),
    asked: Instant,
    /// Beats of this node since this change came to the front of the queue.
    beats: u32,
    until: Instant,
    /// It may be in the log.
    is_proposed: bool,
}

/// What is to be done now.
pub(crate) enum Step {
    Propose(Configuration),
    /// The leader shall be removed: another one has to lead first.
    HandOver,
}

/// The changes that were asked for, the oldest first.
#[derive(Default)]
pub(crate) struct Changes {
    pending: Vec<Change>,
}

impl Changes {
    pub(crate) fn ask(&mut self, wish: Wish, asked_by: (Mailbox<Connection>, u64)) {
        let asked = Instant::now();
        self.pending.push(Change {
            wish,
            asked_by,
            asked,
            beats: 0,
            until: asked + CHANGE_MAX,
            is_proposed: false,
        });
    }

    /// Answers what is decided; says what to do next.
    pub(crate) fn tick(&mut self, cluster: &Cluster, status: &Status) -> Option<Step> {
        self.give_up_late();
        if status.role.role != Role::Leader {
            self.refuse_all(cluster);
            return None;
        }
        let known = cluster.membership()?.configuration;
        if !cluster.serves_as_primary() {
            return None;
        }
        let own = Some(cluster.node_id).filter(|_| cluster.protocol.1 < PROTOCOL_MEMBERS);
        let earlier = own.or_else(|| cluster.links.speaks_earlier_than(PROTOCOL_MEMBERS));
        while let Some(change) = self.pending.first_mut() {
            change.beats += 1;
            let step = match earlier {
                Some(node_id) if !change.is_proposed => Err(ChangeError::EarlierVersion(node_id)),
                _ => step(change, &known, cluster),
            };
            match step {
                // One is under way: this leader goes on with that below.
                Err(ChangeError::Busy) => break,
                Ok(Some(step)) => {
                    change.is_proposed |= matches!(step, Step::Propose(_));
                    return Some(step);
                }
                Ok(None) => self.answer_first(Ok(())),
                Err(error @ ChangeError::NotStored) => {
                    self.answer_first(Err(Error::new(Code::Internal, error.to_string())));
                }
                Err(error) => self.answer_first(Err(Error::new(Code::BadRequest, error.to_string()))),
            }
        }
        // What has begun is ended, whoever came meanwhile.
        let goes_on = earlier.is_none() || known.members.is_joint();
        let recently = Instant::now().checked_sub(ANSWERS_WITHIN);
        let answering = answering_since(cluster, recently);
        let by_itself = if goes_on { next(&known, status, cluster.node_id, &answering) } else { None };
        by_itself.map(Step::Propose)
    }

    fn give_up_late(&mut self) {
        let is_late = |change: &mut Change| Instant::now() > change.until;
        for change in self.pending.extract_if(.., is_late) {
            let message = "the members were not changed in time, and may be later: `cluster` shows them";
            answer(change, Err(Error::new(Code::Timeout, message).with_outcome(Outcome::Unknown)));
        }
    }

    /// This node doesn't lead (any more).
    pub(crate) fn refuse_all(&mut self, cluster: &Cluster) {
        for change in self.pending.drain(..) {
            let error = if change.is_proposed {
                let message =
                    "the leader lost its office meanwhile; `cluster` shows what became of the members";
                Error::new(Code::LeadershipLost, message)
            } else {
                cluster.refusal()
            };
            answer(change, Err(error));
        }
    }

    fn answer_first(&mut self, outcome: Result<(), Error>) {
        answer(self.pending.remove(0), outcome);
    }
}

fn answer(change: Change, outcome: Result<(), Error>) {
    let (connection, sequence) = change.asked_by;
    connection.send(ConnectionMessage::MembersChanged { sequence, outcome });
}

/// Members that this node has heard since then, and itself.
fn answering_since(cluster: &Cluster, then: Option<Instant>) -> Answering {
    let condition = |id: &NodeId| cluster.condition(*id);
    let is_heard = |member: &MemberView| {
        let is_recent = member.last_seen.is_some_and(|seen| then.is_none_or(|then| seen >= then));
        member.node_id == cluster.node_id || is_recent
    };
    let view = cluster.view();
    let nodes = view.members.iter().filter(|member| is_heard(member)).map(|member| member.node_id);
    let nodes: Vec<NodeId> = nodes.filter(|id| condition(id) != Condition::Conflicting).collect();
    let doubted = nodes.iter().copied().filter(|id| condition(id) == Condition::InDoubt).collect();
    Answering { nodes, doubted }
}

/// The step that brings the wish about. `Ok(None)` says that the wish is fulfilled, `Busy` that it has to wait.
fn step(change: &Change, known: &Configuration, cluster: &Cluster) -> Result<Option<Step>, ChangeError> {
    match &change.wish {
        Wish::Add(member) => Ok(add(known, member.clone())?.map(Step::Propose)),
        // Its directory may be emptied as soon as that is answered.
        Wish::Remove(node_id) if known.node(*node_id).is_none() && !cluster.members.is_stored() => {
            let waits = change.beats < ANSWERS_WITHIN_BEATS;
            Err(if waits { ChangeError::Busy } else { ChangeError::NotStored })
        }
        Wish::Remove(node_id) if change.is_proposed && known.node(*node_id).is_none() => Ok(None),
        Wish::Remove(node_id) => {
            let to = remove(known, *node_id, cluster.node_id)?;
            // What was heard before it was asked, or long ago, says nothing of now.
            let recently = Instant::now().checked_sub(ANSWERS_WITHIN);
            let since = recently.map_or(change.asked, |recently| recently.max(change.asked));
            let is_allowed = answering_since(cluster, Some(since)).allows(known, &to, cluster.node_id);
            if is_allowed.is_err() && change.beats < ANSWERS_WITHIN_BEATS {
                return Err(ChangeError::Busy);
            }
            is_allowed?;
            let removes_itself = *node_id == cluster.node_id && nodes_that_vote(known).len() > 1;
            Ok(Some(if removes_itself { Step::HandOver } else { Step::Propose(to) }))
        }
    }
}
