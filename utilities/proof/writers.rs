//! Connections that load a node until it is killed, and note all that they are told.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::book::Book;
use super::client::Client;
use super::ledger::{Kind, Number, Told};
use super::names::BULK_KEYS;
use crate::random::Random;

/// Requests sent before their replies are read.
const PIPELINE_MAX: u64 = 16;
/// Items of a scan among the writes.
const SCANNED: u64 = 5;

/// The writers of a round.
pub struct Writers {
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts them. They end with the node, when the book is closed, or when it is full.
    pub fn start(address: SocketAddr, connections: usize, book: &Arc<Book>, random: &mut Random) -> Writers {
        book.open();
        let start = |connection| {
            let (book, random) = (book.clone(), random.fork());
            let mut writer = Writer { connection, random, book, versions: HashMap::new() };
            // What is unanswered when the connection breaks stays unknown, and that is all about it.
            std::thread::spawn(move || drop(writer.run(address)))
        };
        Writers { threads: (0..connections).map(start).collect() }
    }

    /// Waits until all have ended.
    pub fn join(self) {
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// A request, and what it does to which keys if it writes.
struct Planned {
    request: Value,
    writes: Option<(Kind, Vec<String>)>,
}

struct Writer {
    connection: usize,
    random: Random,
    book: Arc<Book>,
    /// The version that a key had when this connection last wrote to it.
    versions: HashMap<String, String>,
}

impl Writer {
    fn run(&mut self, address: SocketAddr) -> std::io::Result<()> {
        let mut client = Client::connect(address)?;
        while !self.book.is_finished() {
            let mut requests = Vec::new();
            let mut sent = Vec::new();
            for _ in 0..=self.random.below(PIPELINE_MAX) {
                let (request, key, number) = self.next_request();
                requests.push(request);
                sent.push((key, number));
            }
            client.send(&requests)?;
            for (key, number) in sent {
                let reply = client.receive()?;
                match number {
                    Some(number) => self.note(key, number, &reply),
                    None => self.note_read(&reply),
                }
            }
        }
        Ok(())
    }

    /// A request, its first key, and its number if it writes.
    fn next_request(&mut self) -> (Value, String, Option<Number>) {
        let book = self.book.clone();
        let key = book.names.key(self.connection, self.random.bits());
        let number = book.with(|ledger| ledger.next_number());
        let planned = self.plan(number, &key);
        let Some((kind, keys)) = planned.writes else { return (planned.request, key, None) };
        let first_key = keys.first().cloned().unwrap_or_default();
        book.with(|ledger| ledger.begin(number, self.connection, kind, keys));
        (planned.request, first_key, Some(number))
    }

    fn plan(&mut self, number: Number, key: &str) -> Planned {
        let choice = self.random.below(24);
        let book = self.book.clone();
        let names = &book.names;
        let set = || json!({"op": "set", "key": key, "value": names.value(number, key)});
        let one = |kind, request| Planned { request, writes: Some((kind, vec![key.to_string()])) };
        let read = |request| Planned { request, writes: None };
        match choice {
            0 | 1 => read(json!({"op": "get", "key": key})),
            2 => read(json!({"op": "scan", "prefix": names.prefix(), "start": key, "limit": SCANNED})),
            3 => read(json!({"op": "search_text", "query": names.word(number / 2)})),
            4 | 5 => one(Kind::Delete, json!({"op": "delete", "key": key})),
            6 | 7 => {
                one(Kind::AddVector, json!({"op": "add_vector", "key": key, "vector": names.vector(number)}))
            }
            8 => {
                let keys = self.shared_keys();
                self.bulk_set(number, keys)
            }
            9 => bulk_delete(self.shared_keys()),
            10 | 11 => self.bulk_set(number, names.bulk_keys(self.connection, number)),
            12 => bulk_delete(names.bulk_keys(self.connection, number)),
            13 => one(Kind::SetValue, with(set(), "if_absent", json!(true))),
            // Right when nobody has written to the key since, and else refused.
            14 | 15 => one(Kind::SetValue, with(set(), "if_version", json!(self.versions.get(key)))),
            _ => one(Kind::SetValue, set()),
        }
    }

    fn bulk_set(&self, number: Number, keys: Vec<String>) -> Planned {
        let record = |key: &String| json!([key, self.book.names.value(number, key)]);
        let records: Vec<Value> = keys.iter().map(record).collect();
        let request = json!({"op": "bulk_set", "records": records});
        Planned { request, writes: Some((Kind::SetValue, keys)) }
    }

    fn shared_keys(&mut self) -> Vec<String> {
        let keys: BTreeSet<String> =
            (0..BULK_KEYS).map(|_| self.book.names.shared_key(self.random.bits())).collect();
        keys.into_iter().collect()
    }

    fn note(&mut self, key: String, number: Number, reply: &Value) {
        let version = reply["version"].as_str();
        self.book.note(number, told(reply), version);
        match version {
            Some(version) => self.versions.insert(key, version.to_string()),
            None => self.versions.remove(&key),
        };
    }

    /// What a client has read must be there after a crash. Reads may fail: the
    /// node may lack the index, or still be building it.
    fn note_read(&self, reply: &Value) {
        self.book.with(|ledger| {
            ledger.was_read(&reply["value"]);
            for item in reply["items"].as_array().into_iter().flatten() {
                ledger.was_read(&item["value"]);
            }
        });
    }
}

fn bulk_delete(keys: Vec<String>) -> Planned {
    let request = json!({"op": "bulk_delete", "keys": keys});
    Planned { request, writes: Some((Kind::Delete, keys)) }
}

fn with(mut request: Value, field: &str, value: Value) -> Value {
    request[field] = value;
    request
}

/// What a reply to a write says of it. What can't be understood says nothing.
fn told(reply: &Value) -> Told {
    match (reply["ok"].as_bool(), reply["error"]["outcome"].as_str()) {
        (Some(true), _) | (Some(false), Some("applied")) => Told::Acknowledged,
        (Some(false), Some("not_applied")) => Told::Refused,
        _ => Told::Unknown,
    }
}
