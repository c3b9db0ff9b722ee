//! Writers that load a node until it is killed, and note all that they are told.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::common::random::Random;
use crate::common::{Client, PATIENCE};
use crate::ledger::{Kind, Ledger, Number, Told, value_of, vector_of};

/// Connections that write at once.
const WRITERS: usize = 3;
/// Keys that only one connection writes to.
const OWN_KEYS: u64 = 150;
/// Keys that all connections write to.
const SHARED_KEYS: u64 = 60;
/// Keys of a bulk; with four shards nearly every bulk touches all of them.
const BULK_KEYS: u64 = 8;
/// Requests sent before their replies are read.
const PIPELINE_MAX: u64 = 17;

/// The book that all writers of a round keep.
#[derive(Default)]
pub struct Book {
    pub ledger: Ledger,
    /// Bulks of keys of their own that nobody has deleted yet.
    whole_bulks: Vec<Number>,
    /// Acknowledged writes of this round.
    acknowledged: u64,
}

/// The book, and a bell that rings at every acknowledged write.
#[derive(Default)]
pub struct SharedBook {
    book: Mutex<Book>,
    acknowledged: Condvar,
}

impl SharedBook {
    pub fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no writer has panicked")
    }

    /// Waits until so many writes of this round are acknowledged.
    pub fn wait_for(&self, acknowledged: u64) {
        let waiting = |book: &mut Book| book.acknowledged < acknowledged;
        let waited = self.acknowledged.wait_timeout_while(self.lock(), PATIENCE, waiting);
        let (book, timeout) = waited.expect("no writer has panicked");
        assert!(!timeout.timed_out(), "only {} writes were acknowledged", book.acknowledged);
    }
}

/// Starts the writers of a round; they end when the node does.
pub fn start_writers(
    address: SocketAddr,
    book: &Arc<SharedBook>,
    random: &mut Random,
) -> Vec<JoinHandle<()>> {
    book.lock().acknowledged = 0;
    (0..WRITERS)
        .map(|connection| {
            let (book, random) = (book.clone(), random.fork());
            std::thread::spawn(move || Writer { connection, random, book }.run(address))
        })
        .collect()
}

struct Writer {
    connection: usize,
    random: Random,
    book: Arc<SharedBook>,
}

impl Writer {
    fn run(mut self, address: SocketAddr) {
        let mut client = Client::connect(address);
        loop {
            let mut lines = String::new();
            let mut sent = Vec::new();
            for _ in 0..self.random.of(1..PIPELINE_MAX) {
                let (number, request) = self.next_request();
                lines.push_str(&format!("{request}\n"));
                sent.push(number);
            }
            if client.stream.write_all(lines.as_bytes()).is_err() {
                return; // killed: what is unanswered stays unknown
            }
            for number in sent {
                match client.try_receive_line() {
                    Some(line) if line.ends_with('\n') => self.note(number, &line),
                    _ => return,
                }
            }
        }
    }

    /// A request, and its number if it writes.
    fn next_request(&mut self) -> (Option<Number>, Value) {
        let book = self.book.clone();
        let mut book = book.lock();
        let number = book.ledger.next_number();
        let key = self.key();
        let (kind, keys, request) = match self.random.of(0..20) {
            0 | 1 => return (None, json!({"op": "get", "key": key})),
            2 | 3 => (Kind::Delete, vec![key.clone()], json!({"op": "delete", "key": key})),
            4 | 5 => {
                let request = json!({"op": "add_vector", "key": key, "vector": vector_of(number)});
                (Kind::AddVector, vec![key], request)
            }
            6 => bulk_set(number, self.shared_keys()),
            7 => bulk_delete(self.shared_keys()),
            8 | 9 => {
                book.whole_bulks.push(number);
                bulk_set(number, bulk_keys(number))
            }
            10 if !book.whole_bulks.is_empty() => {
                let place = self.random.of(0..book.whole_bulks.len() as u64);
                bulk_delete(bulk_keys(book.whole_bulks.swap_remove(place as usize)))
            }
            _ => {
                let request = json!({"op": "set", "key": key, "value": value_of(number, &key)});
                (Kind::SetValue, vec![key], request)
            }
        };
        book.ledger.begin(number, self.connection, kind, keys);
        (Some(number), request)
    }

    fn key(&mut self) -> String {
        if self.random.of(0..3) == 0 {
            return shared_key(self.random.of(0..SHARED_KEYS));
        }
        format!("own-{}-{:04}", self.connection, self.random.of(0..OWN_KEYS))
    }

    fn shared_keys(&mut self) -> Vec<String> {
        let keys: BTreeSet<String> =
            (0..BULK_KEYS).map(|_| shared_key(self.random.of(0..SHARED_KEYS))).collect();
        keys.into_iter().collect()
    }

    fn note(&self, number: Option<Number>, line: &str) {
        let reply: Value = serde_json::from_str(line).expect("a reply is JSON");
        let mut book = self.book.lock();
        let Some(number) = number else {
            return book.ledger.was_read(&reply["value"]);
        };
        let told = told(&reply);
        book.ledger.answered(number, told, reply["version"].as_str());
        if told == Told::Acknowledged {
            book.acknowledged += 1;
            self.book.acknowledged.notify_all();
        }
    }
}

fn told(reply: &Value) -> Told {
    match (reply["ok"].as_bool(), reply["error"]["outcome"].as_str()) {
        (Some(true), _) => Told::Acknowledged,
        (Some(false), Some("not_applied")) => Told::Refused,
        (Some(false), Some("unknown")) => Told::Unknown,
        _ => panic!("neither done, nor refused, nor unknown: {reply}"),
    }
}

fn shared_key(number: u64) -> String {
    format!("shared-{number:04}")
}

fn bulk_keys(number: Number) -> Vec<String> {
    (0..BULK_KEYS).map(|member| format!("bulk-{number:08}-{member}")).collect()
}

fn bulk_set(number: Number, keys: Vec<String>) -> (Kind, Vec<String>, Value) {
    let records: Vec<Value> = keys.iter().map(|key| json!([key, value_of(number, key)])).collect();
    (Kind::SetValue, keys, json!({"op": "bulk_set", "records": records}))
}

fn bulk_delete(keys: Vec<String>) -> (Kind, Vec<String>, Value) {
    let request = json!({"op": "bulk_delete", "keys": keys});
    (Kind::Delete, keys, request)
}
