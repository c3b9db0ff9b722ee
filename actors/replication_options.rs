//! How a member's replica is set up.

use datastore::replication::doubt::Condition;
use datastore::replication::raft::{HardState, Options, Start, StartMembers};
use datastore::replication::recovered;

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

/// The options of this node's replica.
pub(crate) fn options(cluster: &Cluster) -> Options {
    Options {
        node_id: cluster.node_id,
        heartbeat_ticks: HEARTBEAT_TICKS,
        election_ticks: ELECTION_TICKS,
        message_bytes_max: MESSAGE_BYTES_MAX,
        in_flight_messages_max: IN_FLIGHT_MESSAGES_MAX,
        // The WalWriter holds writes back before the replica would have to drop them.
        uncommitted_bytes_max: u64::MAX,
        committed_bytes_max: COMMITTED_BYTES_MAX,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        doubt_seed: cluster.boot,
    }
}

/// Where a node begins that was just adopted.
pub(crate) fn first_start(cluster: &Cluster) -> Start {
    let membership = cluster.membership();
    let hard_state = first_hard_state(membership.as_ref().map_or((0, 0), |known| known.first_vote));
    let members =
        membership.map_or(StartMembers::default(), |known| recovered::members(&known, known.base.clone()));
    // A copy from before it was adopted has been adopted since, and voted.
    let in_doubt = cluster.conditions.own() == Condition::InDoubt;
    Start { hard_state, members, cut: (0, 0), applied: Vec::new(), tail: Vec::new(), in_doubt }
}

/// A number may have been another directory's, which voted. So a node that is adopted begins
/// in its leader's term, with its vote given to that leader; and so does its witness.
pub(crate) fn first_hard_state((term, vote): (u64, u64)) -> HardState {
    HardState { term, vote, commit: 0, witness_term: term, witness_vote: vote }
}
