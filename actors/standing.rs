//! What `hello`, `cluster` and `stats` say of a node's place in its cluster.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use datastore::error::LeaderAddress;
use datastore::persistence::{Member, host_of, is_witness};
use datastore::query::{Alarm, MemberStanding, Standing};
use datastore::replication::health::INDEXED_ALL;
use datastore::replication::raft::Role;

use crate::cluster::{Cluster, MemberView, View};
use crate::conditions::{conflict_of, doubt_of};
use crate::node::{Node, lock};
use crate::standing_dynamo;

const PRIMARY: &str = "primary";
const SECONDARY: &str = "secondary";

/// How a client has reached this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reached {
    /// At this address of it, if the system tells.
    pub(crate) at: Option<IpAddr>,
    /// At the port that it listens on.
    pub(crate) port: u16,
}

/// Where a client is told that this node is: as it was told to say, where it listens, or, if that is
/// everywhere, where the client has reached it.
fn own_address(node: &Node, reached: Reached) -> LeaderAddress {
    let settings = &node.settings;
    let listens_at = Some(settings.host).filter(|host| !host.is_unspecified());
    let host = listens_at.or(reached.at).unwrap_or(settings.host).to_string();
    let (host, port) = settings.advertise.clone().unwrap_or((host, reached.port));
    LeaderAddress { node_id: settings.node_id, host, port }
}

/// The node's standing now, as it is told to a client.
pub(crate) fn standing(node: &Node, reached: Reached) -> Standing {
    let own = own_address(node, reached);
    let mut standing = match (&node.cluster, &node.dynamo) {
        (Some(cluster), _) => of_member(cluster, own),
        (None, Some(cluster)) => standing_dynamo::standing(node, cluster, own),
        (None, None) => alone(node, own),
    };
    standing.alarms.extend(node.unreadable_log.alarm(node.settings.node_id));
    standing
}

/// How a node is that nothing else keeps from serving, and for how long its disk has been at what it writes.
pub(crate) fn own_state(node: &Node) -> (&'static str, u64) {
    let oldest = node.disk_watch.oldest();
    let state = match node.disk_watch.is_stalled(oldest) {
        true => "stalled",
        false if node.indexed_per_mille() < INDEXED_ALL => "indexing",
        false => "serving",
    };
    (state, oldest.as_millis() as u64)
}

fn alone(node: &Node, own: LeaderAddress) -> Standing {
    let durable_index = lock(&node.log_figures).durable_index;
    let (state, oldest_sync_ms) = own_state(node);
    let member = MemberStanding {
        address: own.clone(),
        role: PRIMARY,
        votes: true,
        state,
        lag_entries: Some(0),
        lag_ms: Some(0),
        last_seen_ms: Some(0),
        oldest_sync_ms: Some(oldest_sync_ms),
    };
    Standing {
        role: PRIMARY,
        term: 1,
        leader: Some(own),
        members: vec![member],
        commit_index: durable_index,
        applied_index: durable_index,
        tolerates: 0,
        may_fail: Vec::new(),
        witness: None,
        epoch: 0,
        state_checked_index: None,
        state_differences: 0,
        alarms: Vec::new(),
        dynamo: None,
    }
}

/// One that was just added, and that nobody has heard of yet.
pub(crate) fn newcomer(member: &Member) -> MemberStanding {
    let address = LeaderAddress { node_id: member.node_id, host: member.host.clone(), port: member.port };
    let (role, votes, state) = (SECONDARY, false, "unreachable");
    let (lag_entries, lag_ms, last_seen_ms, oldest_sync_ms) = (None, None, None, None);
    MemberStanding { address, role, votes, state, lag_entries, lag_ms, last_seen_ms, oldest_sync_ms }
}

fn of_member(cluster: &Cluster, own: LeaderAddress) -> Standing {
    let view = cluster.view();
    let known = cluster.membership();
    let epoch = known.as_ref().map_or(0, |known| known.epochs.len());
    let voters = known.map_or(Vec::new(), |known| known.configuration.members.voters);
    let witness = voters.into_iter().find(|voter| is_witness(*voter)).map(host_of);
    let applied_index = cluster.applied_index.load(Ordering::Relaxed);
    let role = |node_id| if view.role.leader == Some(node_id) { PRIMARY } else { SECONDARY };
    let member = |member: &MemberView| MemberStanding {
        address: address(cluster, member.node_id, &own),
        role: role(member.node_id),
        votes: member.votes,
        state: member.state,
        lag_entries: member.lag_entries,
        lag_ms: member.lag_ms,
        last_seen_ms: member.last_seen.map(|seen| seen.elapsed().as_millis() as u64),
        oldest_sync_ms: member.disk.map(|disk| disk.oldest_sync_ms),
    };
    Standing {
        role: if view.role.role == Role::Leader { PRIMARY } else { SECONDARY },
        term: view.role.term,
        leader: view.role.leader.map(|leader| address(cluster, leader, &own)),
        members: view.members.iter().map(member).collect(),
        // The first is published at every tick, the second at every entry.
        commit_index: cluster.commit_index.load(Ordering::Relaxed).max(applied_index),
        applied_index,
        tolerates: view.tolerates,
        may_fail: view.may_fail.clone(),
        witness,
        epoch,
        state_checked_index: Some(cluster.state_checked_index.load(Ordering::Relaxed)),
        state_differences: cluster.state_differences.load(Ordering::Relaxed),
        alarms: alarms(cluster, &view),
        dynamo: None,
    }
}

fn alarms(cluster: &Cluster, view: &View) -> Vec<Alarm> {
    let mut alarms: Vec<Alarm> = view.members.iter().filter_map(alarm).collect();
    alarms.extend(view.members.iter().filter_map(full_disk));
    let refused = shut_out(cluster).map(|told| format!("members don't let this node in: {told}"));
    alarms.extend(refused.map(|message| Alarm::of("not_let_in", cluster.node_id, message)));
    let forgotten = cluster.conditions.forgotten();
    alarms.extend(forgotten.into_iter().map(|(node_id, why)| Alarm::of("forgotten_member", node_id, why)));
    alarms
}

/// What members say that don't let this node in, though it is a member by all that it knows.
fn shut_out(cluster: &Cluster) -> Option<String> {
    let known = cluster.membership()?;
    known.member(cluster.node_id)?;
    cluster.refusals.told(|peer| known.member(peer).map(|_| cluster.places_to_look(peer)))
}

/// What is to be said of a member, by its state.
fn alarm(member: &MemberView) -> Option<Alarm> {
    let (node_id, code) = (member.node_id, member.state);
    let message = match code {
        "stalled" => format!(
            "node {node_id}'s disk hasn't finished what it was told to write {} ms ago: it acknowledges nothing. Look at \
             the disk; a node that can't be mended is removed with remove_member",
            member.disk.map_or(0, |disk| disk.oldest_sync_ms)
        ),
        "in_doubt" => doubt_of(node_id),
        "conflicting" => conflict_of(node_id),
        _ => return None,
    };
    Some(Alarm::of(code, node_id, message))
}

/// One whose disk has no room says so however it is otherwise.
fn full_disk(member: &MemberView) -> Option<Alarm> {
    let node_id = member.node_id;
    member.disk.filter(|disk| disk.is_full && member.state != "unreachable")?;
    let message = format!(
        "node {node_id}'s disk has less room than a snapshot and a log segment need: as leader it refuses writes. Free some"
    );
    Some(Alarm::of("disk_full", node_id, message))
}

/// Where a member is.
fn address(cluster: &Cluster, node_id: u64, own: &LeaderAddress) -> LeaderAddress {
    if node_id == own.node_id {
        return own.clone();
    }
    let unknown = LeaderAddress { node_id, host: String::new(), port: 0 };
    cluster.told_address(node_id).unwrap_or(unknown)
}
