//! The bodies of `hello` and `cluster`.

use serde_json::json;

use crate::limits;
use crate::settings::Settings;

/// What a client should know of the node it talks to.
pub fn hello_body(settings: &Settings, port: u16, version: &str) -> String {
    let leader = json!({ "node_id": settings.node_id, "host": settings.host.to_string(), "port": port });
    json!({
        "protocol": 1,
        "server": format!("datastore-node {version}"),
        "node_id": settings.node_id,
        "role": "primary",
        "mode": settings.mode.as_str(),
        "leader": leader,
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

/// A cluster of one.
pub fn cluster_body(settings: &Settings, port: u16, durable_index: u64) -> String {
    let leader = json!({ "node_id": settings.node_id, "host": settings.host.to_string(), "port": port });
    json!({
        "mode": settings.mode.as_str(),
        "node_id": settings.node_id,
        "role": "primary",
        "term": 1,
        "leader": leader,
        "members": [{
            "node_id": settings.node_id,
            "host": settings.host.to_string(),
            "port": port,
            "role": "primary",
            "state": "serving",
            "lag_entries": 0,
            "lag_ms": 0,
            "last_seen_ms": 0,
        }],
        "commit_index": durable_index,
        "applied_index": durable_index,
        "tolerates": 0,
    })
    .to_string()
}
