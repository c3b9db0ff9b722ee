//! The cluster: who is in it, and who leads.

use datastore::connector::DatastoreConnector;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::node::print_fields;
use crate::output::{Format, Output, for_terminal, table};

/// The table of members; address stands for two fields.
const MEMBER_COLUMNS: [&str; 9] = [
    "node_id",
    "address",
    "role",
    "votes",
    "state",
    "lag_entries",
    "lag_ms",
    "last_seen_ms",
    "oldest_sync_ms",
];

pub async fn print(client: &DatastoreConnector, output: &mut Output) -> Result<(), Failure> {
    let mut fields = client.cluster().await?;
    fields.remove("ok");
    match output.format {
        Format::Table => output.line(&readable(&fields)),
        _ => print_fields(&Value::Object(fields), output),
    }
}

pub async fn promote(
    client: &DatastoreConnector,
    node_id: Option<u64>,
    force: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut call = client.promote();
    if let Some(node_id) = node_id {
        call = call.node_id(node_id);
    }
    if force {
        call = call.force();
    }
    let leader = call.await?;
    match output.format {
        Format::Json => output.json(&json!({ "leader": leader })),
        _ => output.line(&leader.to_string()),
    }
}

pub async fn add(
    client: &DatastoreConnector,
    node_id: u64,
    address: &str,
    output: &mut Output,
) -> Result<(), Failure> {
    let (host, port) = host_and_port(address)
        .ok_or_else(|| Failure::usage(format!("{address}: wants HOST:PORT, where the new node listens")))?;
    let members = client.add_member(node_id, host, port).await?;
    print_members(members, output)
}

pub async fn remove(client: &DatastoreConnector, node_id: u64, output: &mut Output) -> Result<(), Failure> {
    let members = client.remove_member(node_id).await?;
    print_members(members, output)
}

pub async fn evict(client: &DatastoreConnector, node_id: u64, output: &mut Output) -> Result<(), Failure> {
    let members = client.evict(node_id).await?;
    print_members(members, output)
}

fn print_members(members: Value, output: &mut Output) -> Result<(), Failure> {
    match output.format {
        Format::Table => {
            output.line(&member_table(members.as_array().map(Vec::as_slice).unwrap_or_default()))
        }
        _ => print_fields(&json!({ "members": members }), output),
    }
}

/// An IPv6 address stands in brackets.
fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some(())?;
    Some((host, port.parse().ok().filter(|port| *port != 0)?))
}

/// What counts first, then a row for each member.
fn readable(fields: &Map<String, Value>) -> String {
    let field = |name: &str| fields.get(name).map(plain).unwrap_or_default();
    let both = [
        ("tolerates", format!("{} more nodes failing, whichever they are", field("tolerates"))),
        ("may fail", any_one_of(fields.get("may_fail"))),
    ];
    let facts: Vec<(&str, String)> = match fields.get("dynamo") {
        Some(dynamo) => everyone_writes(&field).into_iter().chain(both).chain(of_dynamo(dynamo)).collect(),
        None => one_leads(fields, &field).into_iter().chain(both).collect(),
    };
    let facts: Vec<(&str, String)> = facts.into_iter().chain(alarms(fields)).collect();
    let members = fields.get("members").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let facts: String = facts.iter().map(|(name, fact)| format!("{name:width$}  {fact}\n")).collect();
    facts + &member_table(members)
}

/// What is wrong, in the node's own words.
fn alarms(fields: &Map<String, Value>) -> Vec<(&'static str, String)> {
    let alarms = fields.get("alarms").and_then(Value::as_array);
    let words = |alarm: &Value| {
        let about = match &alarm["node_id"] {
            Value::Null => String::new(),
            node_id => format!(" at node {}", plain(node_id)),
        };
        format!("{}{about}: {}", plain(&alarm["code"]), plain(&alarm["message"]))
    };
    alarms.into_iter().flatten().map(|alarm| ("ALARM", words(alarm))).collect()
}

fn one_leads(fields: &Map<String, Value>, field: &impl Fn(&str) -> String) -> [(&'static str, String); 4] {
    let leader = match fields.get("leader") {
        Some(leader @ Value::Object(_)) => {
            format!("node {} at {}", plain(&leader["node_id"]), address(leader))
        }
        _ => "none at the moment".to_string(),
    };
    [
        ("mode", field("mode")),
        ("asked", format!("node {}, {}", field("node_id"), field("role"))),
        ("leader", format!("{leader}, term {}", field("term"))),
        ("committed", format!("entry {}, applied {}", field("commit_index"), field("applied_index"))),
    ]
}

/// Role, leader and term say nothing where nobody leads.
fn everyone_writes(field: &impl Fn(&str) -> String) -> [(&'static str, String); 3] {
    let (last, applied) = (field("commit_index"), field("applied_index"));
    [
        ("mode", format!("{}: every node takes writes", field("mode"))),
        ("asked", format!("node {}", field("node_id"))),
        ("committed", format!("entry {last} of its own log, applied {applied}")),
    ]
}

fn of_dynamo(dynamo: &Value) -> [(&'static str, String); 3] {
    let (tombstones, clock) = (&dynamo["tombstones"], &dynamo["clock"]);
    let kept = plain(&tombstones["kept"]);
    let held_by = match &numbers(Some(&tombstones["held_by"]))[..] {
        [] => String::new(),
        [one] => format!(", held back by node {one}"),
        several => format!(", held back by nodes {}", several.join(", ")),
    };
    let ahead = match clock["ahead_ms"].as_i64() {
        Some(ahead @ ..0) => format!("{} ms behind the median", ahead.unsigned_abs()),
        _ => format!("{} ms ahead of the median", plain(&clock["ahead_ms"])),
    };
    let wrong = if clock["is_wrong"] == true { ": wrong, this node takes no writes" } else { "" };
    [
        ("conflicts", format!("{} since the start", plain(&dynamo["conflicts"]))),
        ("tombstones", format!("{kept} kept{held_by}")),
        ("clock", ahead + wrong),
    ]
}

fn numbers(of: Option<&Value>) -> Vec<String> {
    of.and_then(Value::as_array).into_iter().flatten().map(plain).collect()
}

fn any_one_of(nodes: Option<&Value>) -> String {
    match &numbers(nodes)[..] {
        [] => "none".to_string(),
        [one] => format!("node {one}"),
        several => format!("any one of {}", several.join(", ")),
    }
}

fn member_table(members: &[Value]) -> String {
    let cell = |member: &Value, column: &str| match column {
        "address" => address(member),
        column => plain(&member[column]),
    };
    let rows: Vec<Vec<String>> = members
        .iter()
        .map(|member| MEMBER_COLUMNS.iter().map(|column| cell(member, column)).collect())
        .collect();
    table(&MEMBER_COLUMNS.map(|column| column.trim_end_matches("_id")), &rows)
}

fn address(node: &Value) -> String {
    format!("{}:{}", plain(&node["host"]), plain(&node["port"]))
}

/// A string's text, anything else as JSON, nothing for what isn't there.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => for_terminal(text).into_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_stand_in_a_table_and_no_leader_is_said() {
        let member = |node_id: u64, role: &str, state: &str, lag: u64| {
            json!({"node_id": node_id, "host": "10.0.0.1", "port": 9000 + node_id, "role": role, "votes": true, "state": state,
                "lag_entries": lag, "lag_ms": 2 * lag, "last_seen_ms": 0, "oldest_sync_ms": 7})
        };
        let mut reply = json!({"mode": "leader", "node_id": 2, "role": "secondary", "term": 7,
            "leader": {"node_id": 1, "host": "10.0.0.1", "port": 9001},
            "members": [member(1, "primary", "serving", 0), member(2, "secondary", "catching_up", 40)],
            "commit_index": 100, "applied_index": 60, "tolerates": 0, "may_fail": [1, 2],
            "alarms": [{"code": "in_doubt", "node_id": 2, "message": "node 2 may be an older copy"}]});
        let shown = readable(reply.as_object().unwrap());
        let row = "│ 2    ┆ 10.0.0.1:9002 ┆ secondary ┆ true  ┆ catching_up ┆ 40          ┆ 80     ┆ 0            ┆ 7              │";
        for line in [
            "leader     node 1 at 10.0.0.1:9001, term 7",
            "asked      node 2, secondary",
            "may fail   any one of 1, 2",
            "ALARM      in_doubt at node 2: node 2 may be an older copy",
            row,
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
        }
        reply["alarms"] = json!([{"code": "no_home", "node_id": null, "message": "nobody is meant"}]);
        let of_nobody = readable(reply.as_object().unwrap());
        assert!(of_nobody.contains("ALARM      no_home: nobody is meant\n"), "{of_nobody}");
        reply["alarms"] = json!([]);
        assert!(!readable(reply.as_object().unwrap()).contains("ALARM"));
        reply["leader"] = Value::Null;
        assert!(readable(reply.as_object().unwrap()).contains("leader     none at the moment, term 7\n"));
        assert!(!readable(&Map::new()).is_empty(), "of a reply without fields nothing is shown");
    }

    #[test]
    fn where_every_node_writes_no_leader_is_missed_and_what_the_mode_has_is_shown() {
        let mut reply = json!({"mode": "dynamo", "node_id": 1, "role": "primary", "term": 0, "leader": null,
            "members": [], "commit_index": 8, "applied_index": 8, "tolerates": 1, "may_fail": [1, 2],
            "dynamo": {"conflicts": 3, "tombstones": {"kept": 4, "held_by": [2]},
                "clock": {"ahead_ms": -7, "is_wrong": false}}});
        let shown = readable(reply.as_object().unwrap());
        for line in [
            "mode        dynamo: every node takes writes",
            "committed   entry 8 of its own log, applied 8",
            "conflicts   3 since the start",
            "tombstones  4 kept, held back by node 2",
            "clock       7 ms behind the median",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
        }
        assert!(!shown.contains("leader") && !shown.contains("term"), "{shown}");
        reply["dynamo"] = json!({"conflicts": 0, "tombstones": {"kept": 0, "held_by": []},
            "clock": {"ahead_ms": 900, "is_wrong": true}});
        let shown = readable(reply.as_object().unwrap());
        assert!(shown.contains("tombstones  0 kept\n"), "{shown}");
        assert!(shown.contains("900 ms ahead of the median: wrong, this node takes no writes\n"), "{shown}");
        reply["dynamo"] = Value::Null;
        assert!(!readable(reply.as_object().unwrap()).is_empty(), "of what isn't there nothing is shown");
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(host_and_port("127.0.0.1:9001"), Some(("127.0.0.1", 9001)));
        assert_eq!(host_and_port("[::1]:9001"), Some(("::1", 9001)));
        for wrong in ["", "host", ":9001", "host:", "host:0", "host:70000"] {
            assert_eq!(host_and_port(wrong), None, "{wrong}");
        }
    }
}
