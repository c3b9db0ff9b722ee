//! A request line being put together, and a reply line being read.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{BAD_REPLY, Error};
use super::nodes::Route;

/// Operations that change nothing: sent again when their connection is lost,
/// and `not_applied` whenever they fail. Any other one counts as a write.
const READS: [&str; 13] = [
    "ping",
    "hello",
    "get",
    "bulk_get",
    "search_by_value",
    "search_text",
    "get_vector",
    "vector_search",
    "scan",
    "count",
    "stats",
    "cluster",
    "conflicts",
];

/// Operations about the node that is asked, whoever leads.
const ABOUT_THE_NODE: [&str; 7] = ["ping", "hello", "stats", "cluster", "snapshot", "promote", "conflicts"];

/// One request: an operation and its fields.
#[derive(Clone, Debug)]
pub struct Request {
    /// The line without its closing brace.
    line: Vec<u8>,
    changes: bool,
    route: Route,
    /// The first argument that can't be JSON: told when the request is sent.
    refused: Option<Error>,
}

impl Request {
    /// A request of an operation, by its name in the protocol.
    pub fn new(operation: &str) -> Request {
        let changes = !READS.contains(&operation);
        let route = if ABOUT_THE_NODE.contains(&operation) { Route::Near } else { Route::Leader };
        let mut request = Request { line: b"{".to_vec(), changes, route, refused: None };
        request.push("op", operation);
        request
    }

    /// The same request with one more field. A value that can't be JSON makes
    /// the call fail with `bad_argument`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Request {
        self.line.push(b',');
        self.push(name, value);
        match name {
            // What one node has is asked for.
            "consistency" if !self.line.ends_with(b":\"linearizable\"") => self.route = Route::Near,
            // Another node's office is the leader's matter.
            "node_id" => self.route = Route::Leader,
            _ => {}
        }
        self
    }

    /// Whether the operation may change something.
    pub fn changes(&self) -> bool {
        self.changes
    }

    /// Where it goes.
    pub(super) fn route(&self) -> Route {
        self.route
    }

    /// The whole line with its newline.
    pub(super) fn into_line(mut self) -> Result<Bytes, Error> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        self.line.extend_from_slice(b"}\n");
        Ok(self.line.into())
    }

    fn push(&mut self, name: &str, value: impl Serialize) {
        let begin = self.line.len();
        let written = serde_json::to_writer(&mut self.line, name).and_then(|()| {
            self.line.push(b':');
            serde_json::to_writer(&mut self.line, &value)
        });
        // A `RawValue` may hold newlines, which would cut the request in two.
        // Outside strings they are white space, and in strings JSON has none.
        for byte in &mut self.line[begin..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        if let Err(error) = written {
            let refused = || Error::bad_argument(format!("`{name}` can't be JSON: {error}"));
            self.refused.get_or_insert_with(refused);
        }
    }
}

/// One reply line that said `ok`.
#[derive(Clone, Debug)]
pub struct Reply {
    line: Bytes,
    changes: bool,
}

#[derive(Deserialize)]
struct Envelope {
    ok: bool,
    error: Option<Map<String, Value>>,
}

impl Reply {
    /// Takes a line apart as far as `ok` and `error`. `changes`: whether its request may change something.
    pub(super) fn read(line: Bytes, changes: bool) -> Result<Reply, Error> {
        match serde_json::from_slice::<Envelope>(&line) {
            Ok(Envelope { ok: true, .. }) => Ok(Reply { line, changes }),
            Ok(Envelope { ok: false, error: Some(fields) }) => {
                let error = Error::from_reply(fields);
                Err(error.unwrap_or_else(|| bad_reply(&line, "its `error` lacks a field", changes)))
            }
            Ok(_) => Err(bad_reply(&line, "it is neither `ok` nor an `error`", changes)),
            Err(error) => Err(bad_reply(&line, &error.to_string(), changes)),
        }
    }

    /// The reply's fields as a type of the caller's.
    ///
    /// # Errors
    ///
    /// `bad_reply` when the fields aren't there or are of another type.
    pub fn fields<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.line)
            .map_err(|error| bad_reply(&self.line, &error.to_string(), self.changes))
    }
}

fn bad_reply(line: &[u8], why: &str, changes: bool) -> Error {
    const SHOWN_BYTES_MAX: usize = 120;
    let shown = String::from_utf8_lossy(&line[..line.len().min(SHOWN_BYTES_MAX)]);
    Error::unanswered(BAD_REPLY, format!("the answer is no reply of this protocol ({why}): {shown}"), changes)
}
