//! Holds a node to the ledger: every key by its name, by a scan, and by the searches.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::client::Client;
use super::fault::Fault;
use super::ledger::{Kind, Ledger, Number, Shown, State, Told};
use super::names::{Names, number_in_value, number_in_vector};

/// Searches of one kind that a verification makes at most.
const SEARCHES_MAX: usize = 400;
/// Requests sent before their replies are read, and keys of one `bulk_get`.
const CHUNK: usize = 100;

/// Reads all keys of a run in every way that the node's indexes allow, and
/// settles the ledger with them. Nothing may be written meanwhile.
///
/// # Errors
///
/// In words, when the node doesn't answer what it should.
pub fn verify(address: SocketAddr, names: &Names, ledger: &mut Ledger) -> Result<Vec<Fault>, String> {
    let client = Client::connect(address).map_err(|error| format!("no connection to {address}: {error}"))?;
    let mut verification = Verification { client, names, faults: Vec::new() };
    let features = verification.client.ok(&json!({"op": "hello"}))?["features"].clone();
    let has = |feature: &str| features.as_array().is_some_and(|all| all.contains(&json!(feature)));

    let state = verification.looked_up(ledger.keys())?;
    if has("scan") {
        verification.scan_agrees(&state)?;
    }
    verification.searches_agree(&state, ledger, has)?;
    if has("search_text") {
        verification.dead_writes_are_not_found(&state, ledger)?;
    }
    let mut faults = ledger.settle(state);
    faults.append(&mut verification.faults);
    ledger.figures.count(&faults);
    Ok(faults)
}

struct Verification<'a> {
    client: Client,
    names: &'a Names,
    faults: Vec<Fault>,
}

impl Verification<'_> {
    /// The keys as `bulk_get` and `get_vector` show them.
    fn looked_up(&mut self, keys: &BTreeSet<String>) -> Result<State, String> {
        let mut state = State::new();
        for chunk in keys.iter().collect::<Vec<_>>().chunks(CHUNK) {
            let reply = self.client.ok(&json!({"op": "bulk_get", "keys": chunk}))?;
            let get_vectors: Vec<Value> =
                chunk.iter().map(|key| json!({"op": "get_vector", "key": key})).collect();
            let vectors = self.client.all_ok(&get_vectors)?;
            let values = list(&reply, "values")?;
            for ((key, got), vector) in chunk.iter().zip(values).zip(&vectors) {
                if got["version"] != vector["version"] {
                    self.disagree(key, &got["version"], &vector["version"]);
                }
                if let Some(shown) = self.shown(key, got, &vector["vector"]) {
                    state.insert(key.to_string(), shown);
                }
            }
        }
        Ok(state)
    }

    /// What a key shows; nothing if there is no such key.
    fn shown(&mut self, key: &str, item: &Value, vector: &Value) -> Option<Shown> {
        let version = item["version"].as_str()?.to_string();
        let value = number_in_value(&item["value"]);
        let written = value.map_or(Value::Null, |number| self.names.value(number, key));
        if item["value"] != written {
            self.disagree(key, written, &item["value"]);
        }
        Some(Shown { value, vector: number_in_vector(vector), version })
    }

    fn disagree(&mut self, key: &str, expected: impl std::fmt::Display, found: impl std::fmt::Display) {
        self.faults.push(Fault::disagreement(key, expected, found));
    }

    /// The order index shows the same keys with the same registers.
    fn scan_agrees(&mut self, state: &State) -> Result<(), String> {
        let mut scanned = State::new();
        let mut request = json!({"op": "scan", "vectors": true, "prefix": self.names.prefix()});
        loop {
            let page = self.client.ok(&request)?;
            for item in list(&page, "items")? {
                let key = item["key"].as_str().unwrap_or_default();
                let shown = self.shown(key, item, &item["vector"]).unwrap_or_default();
                if scanned.insert(key.to_string(), shown).is_some() {
                    self.disagree(key, "one item of a scan", "two");
                }
            }
            if page["next"].is_null() {
                break;
            }
            request["after"] = page["next"].clone();
        }
        for key in state.keys().chain(scanned.keys()).collect::<BTreeSet<_>>() {
            let (looked_up, scanned) = (state.get(key), scanned.get(key));
            if looked_up != scanned {
                self.disagree(key, format!("{looked_up:?} in a scan"), format!("{scanned:?}"));
            }
        }
        let count = self.client.ok(&json!({"op": "count", "prefix": self.names.prefix()}))?["count"].clone();
        if count != state.len() {
            self.disagree(&self.names.prefix(), format!("a count of {}", state.len()), count);
        }
        Ok(())
    }

    /// What the round's keys show is found by value, by text and by vector, at its key alone.
    fn searches_agree(
        &mut self,
        state: &State,
        ledger: &Ledger,
        has: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        let touched = state.iter().filter(|(key, _)| ledger.touched(key));
        let mut searches = Vec::new();
        for (key, shown) in touched.take(SEARCHES_MAX) {
            if let Some(number) = shown.value {
                let value = self.names.value(number, key);
                searches.push((json!({"op": "search_by_value", "value": value}), vec![key.as_str()]));
                let holders = state.iter().filter(|(_, other)| other.value == Some(number));
                searches.push((self.search_text(number), holders.map(|(key, _)| key.as_str()).collect()));
            }
            if let Some(number) = shown.vector {
                let vector = self.names.vector(number);
                let query = json!({"op": "vector_search", "vector": vector, "prefix": key, "top_k": 2});
                searches.push((query, vec![key.as_str()]));
            }
        }
        searches.retain(|(query, _)| query["op"].as_str().is_some_and(&has));
        self.expect_found(&searches)
    }

    /// Neither what was refused nor what was overwritten is found by its word.
    fn dead_writes_are_not_found(&mut self, state: &State, ledger: &Ledger) -> Result<(), String> {
        let alive: BTreeSet<Number> = state.values().filter_map(|shown| shown.value).collect();
        let sets = ledger.writes().filter(|write| write.kind == Kind::SetValue);
        let mut dead: Vec<_> = sets.filter(|write| !alive.contains(&write.number)).collect();
        dead.sort_by_key(|write| (write.told != Told::Refused, write.number));
        let dead = dead.iter().take(SEARCHES_MAX);
        let searches: Vec<_> = dead.map(|write| (self.search_text(write.number), Vec::new())).collect();
        self.expect_found(&searches)
    }

    fn search_text(&self, number: Number) -> Value {
        json!({"op": "search_text", "query": self.names.word(number)})
    }

    /// Compares the keys that searches find with those that they should, in ascending order.
    fn expect_found(&mut self, searches: &[(Value, Vec<&str>)]) -> Result<(), String> {
        for chunk in searches.chunks(CHUNK) {
            let requests: Vec<Value> = chunk.iter().map(|(query, _)| query.clone()).collect();
            // The first one waits until the indexes are built.
            self.client.ok(&requests[0])?;
            for ((query, expected), reply) in chunk.iter().zip(self.client.all_ok(&requests)?) {
                let mut found: Vec<&str> = match &reply["matches"] {
                    Value::Array(matches) => {
                        matches.iter().filter_map(|found| found["key"].as_str()).collect()
                    }
                    _ => list(&reply, "keys")?.iter().filter_map(Value::as_str).collect(),
                };
                found.sort_unstable();
                if found != *expected {
                    let key = expected.first().or(found.first()).copied().unwrap_or_default();
                    self.disagree(key, format!("{expected:?} by {query}"), format!("{found:?}"));
                }
            }
        }
        Ok(())
    }
}

fn list<'r>(reply: &'r Value, field: &str) -> Result<&'r Vec<Value>, String> {
    reply[field].as_array().ok_or_else(|| format!("`{field}` is missing in {reply}"))
}
