//! The reply of `stats`: every actor's mailbox as its gauge measured it, and
//! the figures that the actors publish.

use std::sync::atomic::Ordering;

use datastore::indexing::{Size, Sizes};
use datastore::query::{alarms_body, dynamo_body, member_body};
use serde_json::{Map, Value, json};

use crate::logging;
use crate::mailbox::{Gauge, Percentiles, percentiles};
use crate::memory_bound::{next_growth_bytes, used_by};
use crate::memory_figures::Resident;
use crate::node::{Node, ShardFigures, lock};
use crate::standing::{Reached, standing};

/// The sections, in the order of the reply.
pub const SECTIONS: [&str; 8] =
    ["node", "actors", "connections", "wal", "keyspace", "indexes", "replication", "memory"];

/// The fields of a `stats` reply; one section's when `section` is given.
pub fn stats(node: &Node, reached: Reached, section: Option<&str>) -> Map<String, Value> {
    let wanted = |name: &&&str| section.is_none_or(|section| section == **name);
    SECTIONS.iter().filter(wanted).map(|name| (name.to_string(), one(node, reached, name))).collect()
}

fn one(node: &Node, reached: Reached, section: &str) -> Value {
    match section {
        "node" => node_section(node, reached),
        "actors" => node.gauges().iter().map(|gauge| actor(gauge)).collect(),
        "connections" => connections(node),
        "wal" => wal(node),
        "keyspace" => keyspace(node),
        "indexes" => indexes(node),
        "replication" => replication(node, reached),
        _ => memory(node),
    }
}

/// What `--max-memory` bounds, and what each kind of place keeps beside that.
fn memory(node: &Node) -> Value {
    let resident = Resident::now();
    let mut section = json!({
        "used_bytes": node.permits.memory_bytes(),
        "max_bytes": node.settings.memory_bytes_max,
        "used_by": used_by(node).into_iter().map(used).collect::<Vec<_>>(),
        "next_growth_bytes": next_growth_bytes(node),
        "resident_bytes": resident.map(|resident| resident.bytes),
    });
    let parts = memory_parts(node, resident.unwrap_or_default());
    section["explained_bytes"] = parts.iter().map(|(_, bytes)| bytes).sum::<u64>().into();
    for (name, bytes) in parts {
        section[name] = bytes.into();
    }
    section
}

fn used((place, bytes): (&'static str, u64)) -> Value {
    json!({ "place": place, "bytes": bytes })
}

/// Each kind of place, and what is kept there: they add up.
fn memory_parts(node: &Node, resident: Resident) -> [(&'static str, u64); 15] {
    let shards = &node.shard_figures;
    let of_shards = |figure: fn(&ShardFigures) -> u64| shards.iter().map(figure).sum::<u64>();
    let memory = &node.memory;
    let persisting = match (&node.cluster, &node.dynamo) {
        (Some(cluster), _) => cluster.persisting_bytes.load(Ordering::Relaxed),
        (_, Some(cluster)) => cluster.persisting_bytes.load(Ordering::Relaxed),
        (None, None) => 0,
    };
    [
        ("program_bytes", resident.program_bytes),
        ("base_bytes", memory.base.load(Ordering::Relaxed)),
        ("table_bytes", of_shards(|shard| shard.memory_bytes.load(Ordering::Relaxed))),
        ("table_spare_bytes", of_shards(|shard| shard.spare_bytes.load(Ordering::Relaxed))),
        ("indexes_bytes", of_shards(|shard| lock(&shard.indexes).0.bytes())),
        ("in_flight_bytes", node.permits.in_flight_bytes() as u64),
        ("requests_bytes", memory.requests.bytes() as u64),
        ("connections_bytes", memory.connections.bytes() as u64),
        ("log_entries_bytes", (memory.log_entries.bytes() + persisting) as u64),
        ("log_index_bytes", memory.log_index.bytes() as u64),
        ("log_buffer_bytes", memory.log_buffer.bytes() as u64),
        ("peers_bytes", memory.peers.bytes() as u64),
        ("snapshots_bytes", memory.snapshots.bytes() as u64),
        ("logging_bytes", logging::queued_bytes() as u64),
        ("conflicts_bytes", node.dynamo.as_ref().map_or(0, |dynamo| dynamo.conflicts_bytes()) as u64),
    ]
}

/// This node among its peers; of those, what it knows.
fn replication(node: &Node, reached: Reached) -> Value {
    let standing = standing(node, reached);
    let others = standing.members.iter().filter(|member| member.address.node_id != node.settings.node_id);
    let mut section = json!({
        "role": standing.role,
        "term": standing.term,
        "leader": standing.leader.as_ref().map(|leader| leader.node_id),
        "commit_index": standing.commit_index,
        "applied_index": standing.applied_index,
        "state_checked_index": standing.state_checked_index,
        "state_differences": standing.state_differences,
        "alarms": alarms_body(&standing.alarms),
        "peers": others.map(member_body).collect::<Vec<_>>(),
    });
    if let Some(dynamo) = &standing.dynamo {
        section["dynamo"] = dynamo_body(dynamo);
    }
    section
}

fn node_section(node: &Node, reached: Reached) -> Value {
    let settings = &node.settings;
    json!({
        "node_id": settings.node_id,
        "version": env!("CARGO_PKG_VERSION"),
        "mode": settings.mode.as_str(),
        "role": standing(node, reached).role,
        "shards": settings.shards,
        "uptime_ms": node.started.elapsed().as_millis() as u64,
        "drop_rate": settings.drop_rate,
        "disk_full": node.permits.is_disk_full(),
        "log_lines_dropped": logging::lines_dropped(),
    })
}

fn in_us(percentiles: Percentiles) -> Value {
    json!({ "p50": percentiles.p50, "p99": percentiles.p99, "max": percentiles.max })
}

fn actor(gauge: &Gauge) -> Value {
    let reading = gauge.read();
    json!({
        "name": gauge.name,
        "kind": gauge.kind,
        "mailbox": {
            "depth": reading.depth,
            "depth_max": reading.depth_max,
            "capacity": gauge.capacity,
            "enqueued": reading.enqueued,
            "processed": reading.processed,
            "rejected": reading.rejected,
            "oldest_age_us": reading.oldest_age_us,
        },
        "wait_us": in_us(reading.wait_us),
        "handle_us": in_us(reading.handle_us),
    })
}

fn connections(node: &Node) -> Value {
    let figures = &node.connections;
    json!({
        "open": figures.open.load(Ordering::Relaxed),
        "max": node.settings.connections_max,
        "accepted": figures.accepted.load(Ordering::Relaxed),
        "refused": figures.refused.load(Ordering::Relaxed),
        "closed_not_reading": figures.closed_not_reading.load(Ordering::Relaxed),
        "closed_half_line": figures.closed_half_line.load(Ordering::Relaxed),
        "closed_idle": figures.closed_idle.load(Ordering::Relaxed),
    })
}

fn wal(node: &Node) -> Value {
    let snapshots = lock(&node.snapshots).clone();
    let figures = lock(&node.log_figures);
    json!({
        "syncs": figures.syncs,
        "sync_us": in_us(percentiles(&figures.sync_us)),
        "records_per_sync": {
            "p50": figures.records_per_sync.value_at_quantile(0.5),
            "max": figures.records_per_sync.max(),
        },
        "bytes": figures.bytes,
        "segments": figures.segments,
        "durable_index": figures.durable_index,
        "sync_failures": figures.sync_failures,
        "held_for": figures.held_for,
        "oldest_sync_ms": node.disk_watch.oldest().as_millis() as u64,
        "snapshot": {
            "made": snapshots.made,
            "failed": snapshots.failed,
            "last_index": snapshots.last_index,
            "last_bytes": snapshots.last_bytes,
            "last_took_ms": snapshots.last_took_ms,
            "progress": snapshots.progress,
        },
    })
}

fn keyspace(node: &Node) -> Value {
    let per_shard: Vec<u64> =
        node.shard_figures.iter().map(|shard| shard.keys.load(Ordering::Relaxed)).collect();
    let bytes: u64 = node.shard_figures.iter().map(|shard| shard.memory_bytes.load(Ordering::Relaxed)).sum();
    json!({ "keys": per_shard.iter().sum::<u64>(), "bytes": bytes, "keys_per_shard": per_shard })
}

fn indexes(node: &Node) -> Value {
    let sizes: Vec<Sizes> = node.shard_figures.iter().map(|shard| lock(&shard.indexes).0).collect();
    let kinds = node.settings.indexes;
    let row = |enabled: bool, of: fn(&Sizes) -> Size| {
        let (entries, bytes) =
            sizes.iter().map(of).fold((0, 0), |sum, size| (sum.0 + size.entries, sum.1 + size.bytes));
        json!({ "enabled": enabled, "entries": entries, "bytes": bytes })
    };
    let sum = |of: fn(&ShardFigures) -> u64| node.shard_figures.iter().map(of).sum::<u64>();
    let progress = node.buckets_indexed() as f64 / datastore::limits::BUCKETS as f64;
    json!({
        "progress": progress,
        "expected_ms": node.shard_figures.iter().map(|shard| shard.build_expected_ms.load(Ordering::Relaxed)).max(),
        "searches_waiting": sum(|shard| shard.searches_waiting.load(Ordering::Relaxed) as u64),
        "searches_done": sum(|shard| shard.searches_done.load(Ordering::Relaxed)),
        "searches_dropped": sum(|shard| shard.searches_dropped.load(Ordering::Relaxed)),
        "value": row(kinds.value, |sizes| sizes.value),
        "text": row(kinds.text, |sizes| sizes.text),
        "vector": row(kinds.vector, |sizes| sizes.vector),
        "order": row(kinds.order, |sizes| sizes.order),
    })
}
