//! Greeting a peer: what every connection to one begins with, whether a lane
//! or a snapshot's thread opens it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use datastore::error::{Code, LeaderAddress};
use datastore::messaging::peer_hello::{Answer, hello_line, read_answer};
use datastore::persistence::{Membership, NodeUuid};
use datastore::replication::doubt::Condition;
use datastore::replication::handshake::{Hello, Lane, Own, Refusal, Verdict, founded_without, judge};
use datastore::replication::message::NodeId;
use datastore::replication::raft::Role;
use socket2::{SockRef, TcpKeepalive};

use crate::cluster::Cluster;
use crate::members_file::Stored;

/// How long connecting may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the other side may take for its line.
pub(crate) const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// A member that has heard of no leader for so long may have missed that the members changed.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// What became of a greeting.
pub(crate) enum Greeted {
    /// Frames may follow.
    Connected,
    /// It is to be adopted: greet it again with the membership.
    Adopt,
    /// One of the two waits to be adopted; try again.
    NotYet,
    /// Someone must act; why, for a person.
    Refused(String),
}

/// What this node knows of itself.
pub(crate) fn own(cluster: &Cluster) -> Own {
    let (node_id, node, membership) = (cluster.node_id, cluster.node, cluster.membership());
    let applied = cluster.applied_index.load(Ordering::Relaxed);
    let applied = (applied, cluster.term_of_committed(applied).unwrap_or_default());
    let role = cluster.role();
    let (protocol, leads) = (cluster.protocol, role.role == Role::Leader);
    let has_all = leads && applied.1 == role.term;
    let is_lost = cluster.leaderless_for().is_some_and(|time| time >= LOST_AFTER);
    let follows = role.leader.is_some_and(|leader| leader != node_id);
    let in_doubt = cluster.conditions.own() == Condition::InDoubt && !follows;
    Own { node_id, node, membership, protocol, leads, applied, has_all, is_lost, in_doubt }
}

/// The first line to a peer.
pub(crate) fn greeting(cluster: &Cluster, peer: NodeId, lane: Lane, adopting: bool) -> Vec<u8> {
    let Own { node_id, node, membership, protocol, .. } = own(cluster);
    let epochs = membership.as_ref().map_or(Vec::new(), |membership| membership.epochs.clone());
    let hello = Hello {
        protocol,
        lane,
        cluster: membership.as_ref().map(|membership| membership.cluster.clone()),
        epoch: epochs.len() as u64,
        epochs,
        configuration: membership.as_ref().map_or(0, |membership| membership.configuration.index),
        node_id,
        node,
        boot: cluster.boot,
        to: peer,
        in_doubt: cluster.conditions.own() == Condition::InDoubt,
        advertise: cluster.advertise.clone(),
        membership: membership.filter(|_| adopting).map(|membership| for_newcomer(cluster, peer, membership)),
    };
    hello_line(&hello)
}

/// One that votes from the start begins with nothing. Any other is told in which term
/// it begins, and has its vote in that given away: see `first_hard_state`.
fn for_newcomer(cluster: &Cluster, peer: NodeId, mut membership: Membership) -> Membership {
    membership.first_vote = (0, 0);
    if !membership.configuration.binds(peer) {
        membership.first_vote = (cluster.role().term, cluster.node_id);
    }
    membership
}

/// Takes a peer's answer. A directory that is met here is noted, durably, when this returns.
pub(crate) async fn answered(cluster: &Cluster, address: &LeaderAddress, line: &[u8]) -> Greeted {
    let answer = read_answer(line);
    if let Ok(Answer::Refused { message, retryable: false, .. }) = &answer {
        cluster.refusals.refused(address, Code::BadRequest.rule().0, message);
    }
    let (greeted, meets) = judged(cluster, address.node_id, answer);
    let greeted = match meets {
        Some(node) => met(cluster, address.node_id, line, cluster.members.meet(address.node_id, node).await),
        None => greeted,
    };
    match greeted {
        Greeted::Connected | Greeted::Adopt => cluster.refusals.let_in(address.node_id),
        Greeted::NotYet => cluster.refusals.is_silent(address),
        Greeted::Refused(_) => {}
    }
    greeted
}

/// As `answered`, of a peer whose lanes are connected, on a thread that may wait.
pub(crate) fn answered_again(cluster: &Cluster, peer: NodeId, line: &[u8]) -> Greeted {
    let (greeted, meets) = judged(cluster, peer, read_answer(line));
    match meets {
        Some(node) => met(cluster, peer, line, cluster.members.meet_on_thread(peer, node)),
        None => greeted,
    }
}

/// The directory is noted, or was not: what the answer comes to is judged by what is known now.
fn met(cluster: &Cluster, peer: NodeId, line: &[u8], stored: Stored) -> Greeted {
    match stored.map(|_| judged(cluster, peer, read_answer(line))) {
        Ok((greeted, None)) => greeted,
        Ok((_, Some(_))) => Greeted::NotYet,
        Err(error) => Greeted::Refused(error),
    }
}

/// What becomes of the answer; and the directory that is to be noted, durably, before it does.
fn judged(cluster: &Cluster, peer: NodeId, answer: Result<Answer, String>) -> (Greeted, Option<NodeUuid>) {
    let own = own(cluster);
    let greeted = match answer {
        Err(reason) => Greeted::Refused(reason),
        Ok(Answer::Refused { message, retryable, cluster: theirs }) => {
            let ours = own.membership.as_ref().map(|membership| &membership.cluster);
            if let (Some(theirs), Some(ours)) = (theirs, ours)
                && theirs != *ours
            {
                stop_if_lost(&own, peer, &theirs);
            }
            if retryable { Greeted::NotYet } else { Greeted::Refused(message) }
        }
        Ok(Answer::Welcome(welcome)) => {
            if welcome.node_id == peer {
                cluster.links.speaks(peer, welcome.protocol);
                cluster.links.advertises(peer, welcome.advertise.clone());
            }
            match judge(&own, peer, &welcome) {
                Verdict::Connected { meet } => {
                    cluster.conditions.peer_greets(peer, welcome.in_doubt);
                    return (Greeted::Connected, meet.then_some(welcome.node));
                }
                Verdict::Adopt { meet } => return (Greeted::Adopt, meet.then_some(welcome.node)),
                Verdict::NotAdoptedYet => Greeted::NotYet,
                Verdict::Refuse(refusal) => {
                    if let Refusal::OtherCluster { theirs, .. } = &refusal {
                        stop_if_lost(&own, peer, theirs);
                    }
                    if refusal.passes() { Greeted::NotYet } else { Greeted::Refused(refusal.to_string()) }
                }
            }
        }
    };
    (greeted, None)
}

/// A founder whose peer belongs to another cluster before it has met it was
/// a member of that cluster and has lost its directory: had it gone on, it would
/// wait for ever, and take for its own whoever else comes with an empty one.
fn stop_if_lost(own: &Own, peer: NodeId, theirs: &str) {
    if !founded_without(own, peer) {
        return;
    }
    tracing::error!(
        peer,
        cluster = theirs,
        "this node has just founded a cluster, and its peer belongs to another one: if this directory was lost, \
         bring it back; a directory that is new must start with --role secondary, or with peers that are new, too"
    );
    crate::logging::exit(1);
}

/// What every connection between peers is given. `unanswered_max` is how long
/// the other side's system may leave bytes unacknowledged.
pub(crate) fn prepare(socket: SockRef<'_>, unanswered_max: Duration) {
    const IDLE: Duration = Duration::from_secs(1);
    // A socket that refuses these still works.
    let _ = socket.set_tcp_nodelay(true);
    let _ =
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(IDLE).with_interval(IDLE).with_retries(2));
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(unanswered_max));
    #[cfg(not(target_os = "linux"))]
    let _ = unanswered_max;
}
