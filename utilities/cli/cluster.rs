//! The cluster: who is in it, and who leads.

use datastore::connector::DatastoreConnector;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::node::print_fields;
use crate::output::{Format, Output, for_terminal, table};

/// The table of members; address stands for two fields.
const MEMBER_COLUMNS: [&str; 8] =
    ["node_id", "address", "role", "votes", "state", "lag_entries", "lag_ms", "last_seen_ms"];

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
    let leader = match fields.get("leader") {
        Some(leader @ Value::Object(_)) => {
            format!("node {} at {}", plain(&leader["node_id"]), address(leader))
        }
        _ => "none at the moment".to_string(),
    };
    let facts = [
        ("mode", field("mode")),
        ("asked", format!("node {}, {}", field("node_id"), field("role"))),
        ("leader", format!("{leader}, term {}", field("term"))),
        ("committed", format!("entry {}, applied {}", field("commit_index"), field("applied_index"))),
        ("tolerates", format!("{} more nodes failing, whichever they are", field("tolerates"))),
        ("may fail", any_one_of(fields.get("may_fail"))),
    ];
    let members = fields.get("members").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let facts = facts.map(|(name, fact)| format!("{name:9}  {fact}\n")).concat();
    facts + &member_table(members)
}

fn any_one_of(nodes: Option<&Value>) -> String {
    let nodes: Vec<String> = nodes.and_then(Value::as_array).into_iter().flatten().map(plain).collect();
    match &nodes[..] {
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
                "lag_entries": lag, "lag_ms": 2 * lag, "last_seen_ms": 0})
        };
        let mut reply = json!({"mode": "leader", "node_id": 2, "role": "secondary", "term": 7,
            "leader": {"node_id": 1, "host": "10.0.0.1", "port": 9001},
            "members": [member(1, "primary", "serving", 0), member(2, "secondary", "catching_up", 40)],
            "commit_index": 100, "applied_index": 60, "tolerates": 0, "may_fail": [1, 2]});
        let shown = readable(reply.as_object().unwrap());
        let row = "│ 2    ┆ 10.0.0.1:9002 ┆ secondary ┆ true  ┆ catching_up ┆ 40          ┆ 80     ┆ 0            │";
        for line in [
            "leader     node 1 at 10.0.0.1:9001, term 7",
            "asked      node 2, secondary",
            "may fail   any one of 1, 2",
            row,
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
        }
        reply["leader"] = Value::Null;
        assert!(readable(reply.as_object().unwrap()).contains("leader     none at the moment, term 7\n"));
        assert!(!readable(&Map::new()).is_empty(), "of a reply without fields nothing is shown");
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
