//! Connections that load a node until it is killed, and note all that they are told.
//!
//! Those of a cluster go on at the next node, and to whoever leads. Each connection
//! has a number of its own in the ledger: only along one connection is it certain
//! which of two writes came first, when nobody knows what has become of the first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::book::Book;
use super::client::Client;
use super::ledger::{Kind, Number, Told};
use super::names::BULK_KEYS;
use super::route::{Route, is_sent_away, is_silence};
use crate::linearizability::Place;
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
        // What is unanswered when the connection breaks stays unknown, and that is all about it.
        Writers::spawn(connections, book, random, move |mut writer| drop(writer.run(address)))
    }

    /// Starts them on a cluster. They end when the book is closed or full, and what they were
    /// sent late has come, or can't come any more.
    pub fn follow(places: &[Place], connections: usize, book: &Arc<Book>, random: &mut Random) -> Writers {
        let places = places.to_vec();
        Writers::spawn(connections, book, random, move |mut writer| {
            let route = Route::new(places.clone(), writer.name);
            writer.follow(route, connections);
        })
    }

    fn spawn(
        connections: usize,
        book: &Arc<Book>,
        random: &mut Random,
        run: impl Fn(Writer) + Clone + Send + 'static,
    ) -> Writers {
        book.open();
        let start = |name| {
            let (book, random, run) = (book.clone(), random.fork(), run.clone());
            let writer = Writer { name, connection: name, random, book, versions: HashMap::new() };
            std::thread::spawn(move || run(writer))
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

/// A request that was sent: its first key, and its number if it writes.
type Sent = (String, Option<Number>);

struct Writer {
    /// What its own keys are called by.
    name: usize,
    /// Its connection's number in the ledger.
    connection: usize,
    random: Random,
    book: Arc<Book>,
    /// The version that a key had when this connection last wrote to it.
    versions: HashMap<String, String>,
}

impl Writer {
    fn run(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut client = Client::connect(address)?;
        while !self.book.is_finished() {
            let length = 1 + self.random.below(PIPELINE_MAX);
            let (requests, mut sent) = self.next_requests(length);
            self.exchange(&mut client, &requests, &mut sent)?;
        }
        Ok(())
    }

    fn follow(&mut self, mut route: Route, connections: usize) {
        let mut late = Vec::new();
        let mut is_welcome = false;
        while !self.book.is_finished() {
            let Some((client, is_new)) = route.connected() else { continue };
            if is_new {
                self.connection += connections;
            }
            // Nobody is told sixteen times that he is wrong here.
            let length = if is_welcome { 1 + self.random.below(PIPELINE_MAX) } else { 1 };
            let (requests, mut sent) = self.next_requests(length);
            let told = self.exchange(client, &requests, &mut sent);
            is_welcome = matches!(told, Ok(None));
            match told {
                Ok(None) => {}
                Ok(Some(refusal)) => route.follow(&refusal),
                Err(error) => {
                    let client = route.go_on().filter(|_| is_silence(&error));
                    let book = self.book.clone();
                    late.extend(client.map(|client| std::thread::spawn(|| hear_out(client, sent, book))));
                }
            }
        }
        Writers { threads: late }.join();
    }

    fn next_requests(&mut self, length: u64) -> (Vec<Value>, VecDeque<Sent>) {
        let next = |_| {
            let (request, key, number) = self.next_request();
            (request, (key, number))
        };
        (0..length).map(next).unzip()
    }

    /// Sends requests and takes their replies off `sent`. Gives the last error that sent the
    /// writer away.
    fn exchange(
        &mut self,
        client: &mut Client,
        requests: &[Value],
        sent: &mut VecDeque<Sent>,
    ) -> io::Result<Option<Value>> {
        client.send(requests)?;
        let mut refusal = None;
        while !sent.is_empty() {
            let reply = client.receive()?;
            match sent.pop_front() {
                Some((key, Some(number))) => self.note(key, number, &reply),
                _ => note_read(&self.book, &reply),
            }
            if is_sent_away(&reply["error"]) {
                refusal = Some(reply["error"].clone());
            }
        }
        Ok(refusal)
    }

    /// A request, its first key, and its number if it writes.
    fn next_request(&mut self) -> (Value, String, Option<Number>) {
        let book = self.book.clone();
        let key = book.names.key(self.name, self.random.bits());
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
            10 | 11 => self.bulk_set(number, names.bulk_keys(self.name, number)),
            12 => bulk_delete(names.bulk_keys(self.name, number)),
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
}

/// What a client has read must be there after a crash. Reads may fail: the
/// node may lack the index, or still be building it.
fn note_read(book: &Book, reply: &Value) {
    book.with(|ledger| {
        ledger.was_read(&reply["value"]);
        for item in reply["items"].as_array().into_iter().flatten() {
            ledger.was_read(&item["value"]);
        }
    });
}

/// Waits for what a silent node still owes. A round must not be settled while a write
/// may be on its way, and what a stopped leader says when it goes on must be true as well.
fn hear_out(mut client: Client, sent: VecDeque<Sent>, book: Arc<Book>) {
    // What stays unanswered stays unknown.
    drop(client.be_patient());
    for (_, number) in sent {
        let Ok(reply) = client.receive() else { return };
        match number {
            Some(number) => book.note(number, told(&reply), reply["version"].as_str()),
            None => note_read(&book, &reply),
        }
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
