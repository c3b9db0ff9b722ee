//! The list `alarms` of `cluster`: what a person should look at.

use serde_json::{Value, json};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What it is, for a program.
    pub code: &'static str,
    /// The node that it is about.
    pub node_id: u64,
    /// What it is and what to do, for a person.
    pub message: String,
}

/// As JSON.
pub(super) fn alarms_body(alarms: &[Alarm]) -> Value {
    let row =
        |alarm: &Alarm| json!({ "code": alarm.code, "node_id": alarm.node_id, "message": alarm.message });
    alarms.iter().map(row).collect()
}
