//! Operations as requests, replies as outcomes.

use serde_json::{Value, json};

use super::history::{Answer, Condition, Number, Operation, Outcome, Version};

/// A value that nobody writes: what a read gave that is none of the workload's.
const FOREIGN: Number = Number::MAX;

/// The request's line.
pub(super) fn request(operation: &Operation) -> Value {
    match operation {
        Operation::Get { key } => json!({"op": "get", "key": key, "consistency": "linearizable"}),
        Operation::Set { key, value, condition } => {
            with(json!({"op": "set", "key": key, "value": value}), condition)
        }
        Operation::Delete { key, condition } => with(json!({"op": "delete", "key": key}), condition),
        Operation::BulkSet { records } => json!({"op": "bulk_set", "records": records}),
    }
}

fn with(mut request: Value, condition: &Condition) -> Value {
    match condition {
        Condition::Always => {}
        Condition::IfAbsent => request["if_absent"] = json!(true),
        Condition::IfVersion(version) => request["if_version"] = json!(version),
    }
    request
}

/// What a reply says of its request. What can't be understood says nothing.
pub(super) fn outcome(operation: &Operation, reply: &Value) -> Outcome {
    if reply["ok"] == json!(true) {
        let answer = match operation {
            Operation::Get { .. } => Some(Answer::Read(read(reply))),
            Operation::Set { .. } | Operation::BulkSet { .. } => {
                version(&reply["version"]).map(Answer::Written)
            }
            Operation::Delete { .. } => reply["deleted"].as_bool().map(Answer::Deleted),
        };
        return answer.map_or_else(|| Outcome::Unknown(format!("answered {reply}")), Outcome::Ok);
    }
    let error = &reply["error"];
    let code = error["code"].as_str().unwrap_or("no code").to_string();
    match (error["outcome"].as_str(), code.as_str()) {
        (Some("not_applied"), "version_mismatch" | "already_exists") if error.get("current").is_some() => {
            Outcome::Ok(Answer::Mismatch(version(&error["current"])))
        }
        (Some("not_applied"), _) => Outcome::Refused(code),
        _ => Outcome::Unknown(code),
    }
}

/// What a `get`, or an item of a `bulk_get`, has read.
pub(super) fn read(reply: &Value) -> Option<(Number, Version)> {
    if reply["found"] == json!(false) {
        return None;
    }
    let value = reply["value"].as_u64().unwrap_or(FOREIGN);
    Some((value, version(&reply["version"]).unwrap_or_default()))
}

fn version(version: &Value) -> Option<Version> {
    version.as_str().map(String::from)
}
