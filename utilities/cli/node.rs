//! Commands about the node itself, and any other request.

use std::collections::BTreeMap;

use datastore::connector::{DatastoreConnector, Request};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::output::{Format, Output, for_terminal};

pub async fn ping(client: &DatastoreConnector, output: &mut Output) -> Result<(), Failure> {
    let pong = client.ping().await?;
    match output.format {
        Format::Json => output.json(&json!({ "pong": pong })),
        _ => output.line("pong"),
    }
}

pub async fn snapshot(client: &DatastoreConnector, output: &mut Output) -> Result<(), Failure> {
    let made = client.snapshot().await?;
    let fields = json!({ "index": made.index, "bytes": made.bytes, "took_ms": made.took_ms });
    print_fields(&fields, output)
}

/// Sends a request as it is and prints the reply as it came.
pub async fn call(client: &DatastoreConnector, request: &str, output: &mut Output) -> Result<(), Failure> {
    let wanted = |why: &str| Failure::usage(format!("a request is a JSON object with an \"op\": {why}"));
    let mut fields: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(request).map_err(|error| wanted(&error.to_string()))?;
    let operation = fields.remove("op").ok_or_else(|| wanted("it has none"))?;
    let operation: String =
        serde_json::from_str(operation.get()).map_err(|_| wanted("its \"op\" is no string"))?;
    let mut request = Request::new(&operation);
    for (name, value) in &fields {
        request = request.with(name, value);
    }
    let reply: Box<RawValue> = client.send(request).await?.fields()?;
    output.line(reply.get().trim_end())
}

/// Prints an object: as JSON, or a line for each field, however deep.
pub fn print_fields(fields: &Value, output: &mut Output) -> Result<(), Failure> {
    if output.format == Format::Json {
        return output.json(fields);
    }
    let rows: Vec<_> = flattened(fields).into_iter().map(|(name, value)| vec![name, value]).collect();
    output.rows(&["field", "value"], &rows)
}

/// `{"a":{"b":1},"c":[2]}` → `a.b` 1, `c.0` 2. An object with a `name` in an
/// array goes by it.
pub fn flattened(value: &Value) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    flatten("", value, &mut rows);
    rows
}

fn flatten(path: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let inner = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| flatten(&inner(name), value, rows)),
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                match item.as_object().and_then(|fields| Some((fields, fields.get("name")?.as_str()?))) {
                    Some((fields, name)) => {
                        let rest: Map<String, Value> = fields
                            .iter()
                            .filter(|(field, _)| *field != "name")
                            .map(|(f, v)| (f.clone(), v.clone()))
                            .collect();
                        flatten(&inner(name), &Value::Object(rest), rows);
                    }
                    None => flatten(&inner(&place.to_string()), item, rows),
                }
            }
        }
        Value::String(text) => rows.push((path.to_string(), for_terminal(text).into_owned())),
        other => rows.push((path.to_string(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_by_their_path() {
        let value = json!({"a": {"b": 1}, "c": [2, {"name": "x", "d": null}], "e": "text"});
        let rows: Vec<String> =
            flattened(&value).iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(rows, ["a.b=1", "c.0=2", "c.x.d=null", "e=text"]);
    }
}
