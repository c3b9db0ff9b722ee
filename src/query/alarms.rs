//! What `cluster` and `stats` say in words: what is wrong with a cluster and asks for a person.

use serde_json::{Value, json};

/// One thing that is wrong. It is there as long as it is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Which kind, for programs: never changes.
    pub code: &'static str,
    /// The member that it is about, if it is about one.
    pub node_id: Option<u64>,
    /// What is wrong, what follows from it and what to do, for people.
    pub message: String,
}

impl Alarm {
    /// About one member.
    pub fn of(code: &'static str, node_id: u64, message: String) -> Alarm {
        Alarm { code, node_id: Some(node_id), message }
    }
}

/// As `cluster` and `stats` show them.
pub fn alarms_body(alarms: &[Alarm]) -> Value {
    let row =
        |alarm: &Alarm| json!({ "code": alarm.code, "node_id": alarm.node_id, "message": alarm.message });
    alarms.iter().map(row).collect()
}
