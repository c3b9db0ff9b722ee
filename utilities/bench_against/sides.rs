//! What is to be known of the two servers before they are compared: that they
//! sync every write, and who they are.

use datastore_utilities::bench::{ask_node, ask_redis};
use datastore_utilities::load::{Data, Plan};
use serde_json::json;

use crate::report::About;
use crate::server::{Kind, Server};

/// Asks a server for its version and makes sure that it syncs before it answers.
pub fn about(server: &Server) -> Result<About, String> {
    match server.kind {
        Kind::Node => {
            let node = ask_node(server.address, &json!({"op": "stats", "section": "node"}))?;
            if node["node"]["drop_rate"] != 0.0 {
                return Err(format!("the node drops syncs: {}", node["node"]));
            }
            let version = node["node"]["version"].as_str().unwrap_or_default().to_string();
            Ok(About { version, durability: "the log is synced before every acknowledgement".into() })
        }
        Kind::Redis => {
            for (setting, wanted) in [("appendonly", "yes"), ("appendfsync", "always")] {
                let real = ask_redis(server.address, &format!("CONFIG GET {setting}"))?;
                if real != [setting, wanted] {
                    return Err(format!("Redis has {real:?} and not {setting} {wanted}"));
                }
            }
            let info = ask_redis(server.address, "INFO server")?.concat();
            let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
            let version = version.ok_or("Redis doesn't say its version")?.trim().to_string();
            Ok(About { version, durability: "appendonly yes, appendfsync always".into() })
        }
    }
}

/// Writes each key once, and makes sure that they are all there.
pub fn fill(server: &Server, data: &Data, keys: u64, seed: u64) -> Result<(), String> {
    server.run(&Plan::fill(data, keys, seed))?;
    expect_keys(server, keys)
}

/// Makes sure that the server has so many keys.
pub fn expect_keys(server: &Server, keys: u64) -> Result<(), String> {
    let real = match server.kind {
        Kind::Node => {
            let stats = ask_node(server.address, &json!({"op": "stats", "section": "keyspace"}))?;
            stats["keyspace"]["keys"].to_string()
        }
        Kind::Redis => ask_redis(server.address, "DBSIZE")?.concat(),
    };
    if real == keys.to_string() {
        Ok(())
    } else {
        Err(format!("{} has {real} keys, not {keys}", server.kind.name()))
    }
}
