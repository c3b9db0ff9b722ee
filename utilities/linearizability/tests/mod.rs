//! The checker on histories whose verdict is known.

mod fakes;
mod hand_written;
mod oracle;
mod shrinking;

use super::history::{Answer, ClientId, Condition, History, Number, Operation, Outcome, Record, Time};

/// A history put together by hand; every request is a client's own unless it says so.
#[derive(Default)]
struct Script {
    history: History,
}

fn get(key: &str) -> Operation {
    Operation::Get { key: key.to_string() }
}

fn set(key: &str, value: Number) -> Operation {
    Operation::Set { key: key.to_string(), value, condition: Condition::Always }
}

fn set_if_absent(key: &str, value: Number) -> Operation {
    Operation::Set { key: key.to_string(), value, condition: Condition::IfAbsent }
}

fn set_if(key: &str, value: Number, version: &str) -> Operation {
    Operation::Set { key: key.to_string(), value, condition: Condition::IfVersion(version.to_string()) }
}

fn delete(key: &str) -> Operation {
    Operation::Delete { key: key.to_string(), condition: Condition::Always }
}

fn bulk(records: &[(&str, Number)]) -> Operation {
    let records = records.iter().map(|(key, value)| (key.to_string(), *value)).collect();
    Operation::BulkSet { records }
}

fn read(value: Number, version: &str) -> Outcome {
    Outcome::Ok(Answer::Read(Some((value, version.to_string()))))
}

fn nothing() -> Outcome {
    Outcome::Ok(Answer::Read(None))
}

fn written(version: &str) -> Outcome {
    Outcome::Ok(Answer::Written(version.to_string()))
}

fn deleted(found: bool) -> Outcome {
    Outcome::Ok(Answer::Deleted(found))
}

fn mismatch(current: Option<&str>) -> Outcome {
    Outcome::Ok(Answer::Mismatch(current.map(String::from)))
}

fn refused() -> Outcome {
    Outcome::Refused("no_quorum".to_string())
}

fn unknown() -> Outcome {
    Outcome::Unknown("timeout".to_string())
}

impl Script {
    /// A request with an answer.
    fn then(mut self, invoked: Time, returned: Time, operation: Operation, outcome: Outcome) -> Script {
        let client = self.history.records.len() as ClientId;
        self.history.records.push(Record { client, operation, invoked, returned: Some(returned), outcome });
        self.history.records.sort_by_key(|record| record.invoked);
        self
    }

    fn quiet_at(mut self, time: Time) -> Script {
        self.history.quiet_at = Some(time);
        self
    }
}
