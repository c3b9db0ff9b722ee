//! What `hello`, `cluster` and `stats` say of a node of dynamo mode.

use std::sync::atomic::{AtomicU64, Ordering};

use datastore::engine::absent_tombstones_bytes_max;
use datastore::error::LeaderAddress;
use datastore::query::{DynamoStanding, MemberStanding, Standing};
use datastore::replication::dynamo::{MemberView, clock};

use crate::dynamo_alarms::alarms;
use crate::dynamo_cluster::{DynamoCluster, DynamoView};
use crate::node::{Node, ShardFigures};
use crate::standing;

/// Every node takes writes.
const ROLE: &str = "primary";

/// The node's standing now.
pub(crate) fn standing(node: &Node, cluster: &DynamoCluster, own: LeaderAddress) -> Standing {
    let view = cluster.view();
    let applied_index = cluster.applied_index.load(Ordering::Relaxed);
    let mut members: Vec<MemberStanding> = view.peers.iter().map(|peer| member(cluster, peer)).collect();
    let in_contact = view.peers.iter().filter(|peer| peer.in_contact).count();
    let (state, oldest_sync_ms) = standing::own_state(node);
    members.push(MemberStanding {
        address: own,
        role: ROLE,
        votes: true,
        state: own_state(cluster).unwrap_or(state),
        lag_entries: Some(0),
        lag_ms: Some(0),
        last_seen_ms: Some(0),
        oldest_sync_ms: Some(oldest_sync_ms),
    });
    members.sort_by_key(|member| member.address.node_id);
    Standing {
        role: ROLE,
        term: 0,
        leader: None,
        may_fail: members.iter().map(|member| member.address.node_id).filter(|_| in_contact > 0).collect(),
        members,
        commit_index: applied_index,
        applied_index,
        // Any one of them takes writes alone.
        tolerates: in_contact,
        witness: None,
        epoch: 0,
        state_checked_index: None,
        state_differences: cluster.state_differences.load(Ordering::Relaxed),
        alarms: alarms(cluster, &view),
        dynamo: Some(dynamo(node, cluster, &view)),
    }
}

/// What keeps it from serving.
fn own_state(cluster: &DynamoCluster) -> Option<&'static str> {
    match (cluster.is_evicted.load(Ordering::Relaxed), cluster.shut_out().is_some()) {
        (true, _) => Some("evicted"),
        (_, true) => Some("shut_out"),
        _ => cluster.awaits_contact.load(Ordering::Relaxed).then_some("awaits_contact"),
    }
}

fn member(cluster: &DynamoCluster, peer: &MemberView) -> MemberStanding {
    let unknown = LeaderAddress { node_id: peer.node_id, host: String::new(), port: 0 };
    let last_heard = cluster.last_heard(peer.node_id);
    MemberStanding {
        address: cluster.told_address(peer.node_id).unwrap_or(unknown),
        role: ROLE,
        votes: true,
        state: match (peer.in_contact, peer.is_far_behind, peer.lag_ms) {
            (false, ..) => "unreachable",
            (true, true, _) => "catching_up",
            (true, false, Some(lag_ms)) if lag_ms > 1_000 => "catching_up",
            (true, false, _) => "serving",
        },
        lag_entries: peer.lag_entries,
        lag_ms: peer.lag_ms,
        last_seen_ms: last_heard.map(|heard| heard.elapsed().as_millis() as u64),
        oldest_sync_ms: None,
    }
}

fn sum(node: &Node, figure: fn(&ShardFigures) -> &AtomicU64) -> u64 {
    node.shard_figures.iter().map(|shard| figure(shard).load(Ordering::Relaxed)).sum()
}

/// The members that hold tombstones back, where there are any.
pub(crate) fn tombstones_held_by(node: &Node, view: &DynamoView) -> Vec<u64> {
    match sum(node, |shard| &shard.tombstones) {
        0 => Vec::new(),
        _ => view.stability.held_by.clone(),
    }
}

fn dynamo(node: &Node, cluster: &DynamoCluster, view: &DynamoView) -> DynamoStanding {
    let sum = |figure| sum(node, figure);
    let stable_ms = clock::milliseconds(view.stability.through);
    DynamoStanding {
        conflicts: cluster.conflicts_count(),
        tombstones: sum(|shard| &shard.tombstones),
        absent_tombstones: sum(|shard| &shard.absent_tombstones),
        absent_tombstone_bytes: sum(|shard| &shard.absent_tombstone_bytes),
        absent_tombstone_bytes_max: node.settings.memory_bytes_max.map(absent_tombstones_bytes_max),
        tombstones_collected: cluster.tombstones_collected.load(Ordering::Relaxed),
        tombstones_held_by: tombstones_held_by(node, view),
        stable_behind_ms: (stable_ms > 0).then(|| cluster.now_ms().saturating_sub(stable_ms)),
        clock_ahead_ms: view.skew.ahead_ms,
        is_clock_wrong: view.skew.is_wrong,
        states_equal: cluster.states_equal.load(Ordering::Relaxed),
        states_taken: cluster.states_taken.load(Ordering::Relaxed),
        vector: view
            .vector
            .rows()
            .iter()
            .map(|row| {
                let stream = view.members.stream(row.origin);
                (row.origin, stream.map(|stream| stream.node_id), row.sequence)
            })
            .collect(),
    }
}
