//! The bodies of `hello` and `cluster`.

use serde_json::{Value, json};

use super::alarms::{Alarm, alarms_body};
use crate::error::LeaderAddress;
use crate::indexing::TEXT_REVISION;
use crate::limits;
use crate::settings::Settings;

/// A node's standing in its cluster; one on its own is a cluster of one.
#[derive(Clone, Debug)]
pub struct Standing {
    /// `primary` or `secondary`.
    pub role: &'static str,
    /// The term that this is about.
    pub term: u64,
    /// Who leads, if that is known.
    pub leader: Option<LeaderAddress>,
    /// Ascending by node id.
    pub members: Vec<MemberStanding>,
    /// The last committed entry that this node knows of.
    pub commit_index: u64,
    /// The last entry that it has applied.
    pub applied_index: u64,
    /// How many more members may fail, whichever they are.
    pub tolerates: usize,
    /// Those of which any one may fail.
    pub may_fail: Vec<u64>,
    /// The node that hosts the witness; only two nodes have one.
    pub witness: Option<u64>,
    /// How often the voters were set by force.
    pub epoch: usize,
    /// The last entry behind which this node's state was found equal to a peer's; `None` on its own.
    pub state_checked_index: Option<u64>,
    /// How often a peer's state was another one.
    pub state_differences: u64,
    /// What a person should look at; normally nothing.
    pub alarms: Vec<Alarm>,
    /// In dynamo mode.
    pub dynamo: Option<DynamoStanding>,
}

/// What only a node of dynamo mode has to say.
#[derive(Clone, Debug, Default)]
pub struct DynamoStanding {
    /// Races that were lost, since the start.
    pub conflicts: u64,
    /// Versions of deletes that are kept.
    pub tombstones: u64,
    /// Those among them of keys that were not there.
    pub absent_tombstones: u64,
    /// What these occupy, in bytes.
    pub absent_tombstone_bytes: u64,
    /// What they may occupy; `None`: no bound.
    pub absent_tombstone_bytes_max: Option<u64>,
    /// Those that were forgotten, since the start.
    pub tombstones_collected: u64,
    /// The members that hold them back.
    pub tombstones_held_by: Vec<u64>,
    /// How long ago the deletes were made that everyone is behind of; `None`: not known.
    pub stable_behind_ms: Option<u64>,
    /// By how much this node's clock is ahead of the median.
    pub clock_ahead_ms: i64,
    /// It is so far from it that this node takes no writes.
    pub is_clock_wrong: bool,
    /// How often the states of all in contact were compared and the same.
    pub states_equal: u64,
    /// Batches of states that were taken over from peers.
    pub states_taken: u64,
    /// Streams on this node's disk: origin, whose it is, and up to which entry.
    pub vector: Vec<(u32, Option<u64>, u64)>,
}

/// What only dynamo mode shows.
pub fn dynamo_body(dynamo: &DynamoStanding) -> Value {
    let stream = |(origin, node_id, sequence): &(u32, Option<u64>, u64)| json!({ "origin": origin, "node_id": node_id, "sequence": sequence });
    json!({
        "conflicts": dynamo.conflicts,
        "tombstones": {
            "kept": dynamo.tombstones,
            "of_absent_keys": {
                "kept": dynamo.absent_tombstones,
                "bytes": dynamo.absent_tombstone_bytes,
                "bytes_max": dynamo.absent_tombstone_bytes_max,
            },
            "collected": dynamo.tombstones_collected,
            "held_by": dynamo.tombstones_held_by,
            "stable_behind_ms": dynamo.stable_behind_ms,
        },
        "clock": { "ahead_ms": dynamo.clock_ahead_ms, "is_wrong": dynamo.is_clock_wrong },
        "states_equal": dynamo.states_equal,
        "states_taken": dynamo.states_taken,
        "streams": dynamo.vector.iter().map(stream).collect::<Vec<_>>(),
    })
}

/// A member as this node sees it.
#[derive(Clone, Debug)]
pub struct MemberStanding {
    /// Its number, host and port.
    pub address: LeaderAddress,
    /// `primary` or `secondary`.
    pub role: &'static str,
    /// It votes; else it only listens.
    pub votes: bool,
    /// `serving`, `catching_up`, `indexing`, `stalled`, `in_doubt`, `conflicting`, `unreachable`, `not_adopted` or
    /// `unknown`.
    pub state: &'static str,
    /// What it lacks; `None` where this node can't know.
    pub lag_entries: Option<u64>,
    /// For how long it has lacked the oldest of those.
    pub lag_ms: Option<u64>,
    /// When it was last heard of; `None` for never.
    pub last_seen_ms: Option<u64>,
    /// For how long its oldest write has waited for its disk; `None` where this node can't know.
    pub oldest_sync_ms: Option<u64>,
}

fn address_body(address: &LeaderAddress) -> Value {
    json!({ "node_id": address.node_id, "host": address.host, "port": address.port })
}

/// What a client should know of the node it talks to.
pub fn hello_body(settings: &Settings, version: &str, standing: &Standing) -> String {
    json!({
        "protocol": 1,
        "server": format!("datastore-node {version}"),
        "node_id": settings.node_id,
        "role": standing.role,
        "mode": settings.mode.as_str(),
        "leader": standing.leader.as_ref().map(address_body),
        "limits": {
            "line_bytes": settings.line_bytes_max,
            "json_depth": limits::JSON_DEPTH_MAX,
            "key_bytes": limits::KEY_BYTES_MAX,
            "value_bytes": limits::VALUE_BYTES_MAX,
            "batch_records": limits::BATCH_RECORDS_MAX,
            "vector_length": limits::VECTOR_LENGTH_MAX,
            "page_items": limits::PAGE_ITEMS_MAX,
            "page_bytes": limits::PAGE_BYTES_MAX,
            "request_timeout_ms": settings.request_timeout_ms,
        },
        "features": features(settings),
        "text_revision": TEXT_REVISION,
    })
    .to_string()
}

fn features(settings: &Settings) -> Vec<&'static str> {
    let kinds = settings.indexes;
    let all = [
        (kinds.value, "search_by_value"),
        (kinds.text, "search_text"),
        (kinds.vector, "vector_search"),
        (kinds.order, "scan"),
    ];
    all.into_iter().filter_map(|(has, name)| has.then_some(name)).collect()
}

/// A member as `cluster` and `stats` show it.
pub fn member_body(member: &MemberStanding) -> Value {
    json!({
        "node_id": member.address.node_id,
        "host": member.address.host,
        "port": member.address.port,
        "role": member.role,
        "state": member.state,
        "votes": member.votes,
        "lag_entries": member.lag_entries,
        "lag_ms": member.lag_ms,
        "last_seen_ms": member.last_seen_ms,
        "oldest_sync_ms": member.oldest_sync_ms,
    })
}

/// The members, as a change of them is answered.
pub fn members_body(standing: &Standing) -> String {
    json!({ "members": standing.members.iter().map(member_body).collect::<Vec<_>>() }).to_string()
}

/// The members and who leads.
pub fn cluster_body(settings: &Settings, standing: &Standing) -> String {
    let mut body = json!({
        "mode": settings.mode.as_str(),
        "node_id": settings.node_id,
        "role": standing.role,
        "term": standing.term,
        "leader": standing.leader.as_ref().map(address_body),
        "members": standing.members.iter().map(member_body).collect::<Vec<_>>(),
        "commit_index": standing.commit_index,
        "applied_index": standing.applied_index,
        "tolerates": standing.tolerates,
        "may_fail": standing.may_fail,
        "witness": standing.witness,
        "epoch": standing.epoch,
        "state_checked_index": standing.state_checked_index,
        "state_differences": standing.state_differences,
        "alarms": alarms_body(&standing.alarms),
    });
    if let Some(dynamo) = &standing.dynamo {
        body["dynamo"] = dynamo_body(dynamo);
    }
    body.to_string()
}
