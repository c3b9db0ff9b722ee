//! How a member's replica is set up.

use datastore::persistence::Membership;
use datastore::replication::message::{Members, NodeId};
use datastore::replication::raft::{HardState, Options, Start, election_timeout_ticks};

use crate::cluster::Cluster;

/// Time between two ticks of the replica's clock.
pub(crate) const TICK_MS: u64 = 50;
/// Between two heartbeats of a leader.
const HEARTBEAT_TICKS: usize = 2;
/// For so long a node that has heard of its leader refuses to vote for another.
pub(crate) const ELECTION_TICKS: usize = 10;
/// Bytes of entries in one message to a follower.
const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;
/// Messages to a follower that it hasn't answered.
const IN_FLIGHT_MESSAGES_MAX: usize = 64;
/// Committed entries handed out at once.
const COMMITTED_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Payloads kept in memory for followers that lag a little; the rest is read from the disk.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The voters of a membership.
pub(crate) fn members(membership: &Membership) -> Members {
    Members { voters: membership.node_ids(), ..Members::default() }
}

/// The options of this node's replica.
pub(crate) fn options(cluster: &Cluster) -> Options {
    let voters: Vec<NodeId> = cluster.membership().map_or(Vec::new(), |membership| membership.node_ids());
    let place = voters.iter().position(|voter| *voter == cluster.node_id).unwrap_or(voters.len());
    Options {
        node_id: cluster.node_id,
        heartbeat_ticks: HEARTBEAT_TICKS,
        election_ticks: ELECTION_TICKS,
        timeout_ticks: election_timeout_ticks(ELECTION_TICKS, place),
        message_bytes_max: MESSAGE_BYTES_MAX,
        in_flight_messages_max: IN_FLIGHT_MESSAGES_MAX,
        // The WalWriter holds writes back before the replica would have to drop them.
        uncommitted_bytes_max: u64::MAX,
        committed_bytes_max: COMMITTED_BYTES_MAX,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
    }
}

/// Where a node begins that was just adopted.
pub(crate) fn first_start(cluster: &Cluster) -> Start {
    let members = cluster.membership().as_ref().map_or(Members::default(), members);
    Start { hard_state: HardState::default(), members, cut: (0, 0), applied: Vec::new(), tail: Vec::new() }
}
