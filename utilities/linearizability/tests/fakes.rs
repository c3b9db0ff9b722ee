//! The whole way, over sockets: clients, recorder and checker against a store in
//! memory that keeps its word, and against ones that break it in one way each.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::linearizability::{Load, Place, Recorder, Report, STEPS_MAX, Workload, check, dial, read_back};
use crate::random::Random;

const SEED: u64 = 7;
const ANSWERS: usize = 1_500;
const PATIENCE: Duration = Duration::from_secs(60);

/// How a store breaks its word.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    StaleRead,
    LostWrite,
    RefusedYetApplied,
    AppliedTwice,
    IgnoredCondition,
    HalfOfABulk,
    ForgetfulDelete,
}

struct Store {
    flaw: Flaw,
    random: Random,
    last_version: u64,
    contents: HashMap<String, (Value, String)>,
    /// What each key had before.
    old: HashMap<String, Option<(Value, String)>>,
    /// What is applied once more, later.
    again: Option<Value>,
}

impl Store {
    fn happens(&mut self, one_in: u64, flaw: Flaw) -> bool {
        self.flaw == flaw && self.random.below(one_in) == 0
    }

    fn put(&mut self, key: &str, content: Option<(Value, String)>) {
        let old = match content {
            Some(content) => self.contents.insert(key.to_string(), content),
            None => self.contents.remove(key),
        };
        self.old.insert(key.to_string(), old);
    }

    fn next_version(&mut self) -> String {
        self.last_version += 1;
        format!("{}.0", self.last_version)
    }

    /// The reply, `None` for a closed connection.
    fn answer(&mut self, request: &Value) -> Option<Value> {
        if let Some(again) = self.again.take_if(|_| self.random.below(8) == 0) {
            self.apply(&again);
        }
        let is_write = !request["op"].as_str().unwrap_or_default().ends_with("get");
        match self.random.below(40) {
            0 | 1 => {
                if is_write && self.happens(2, Flaw::RefusedYetApplied) {
                    self.apply(request);
                }
                Some(json!({"ok": false, "error": {"code": "no_quorum", "outcome": "not_applied"}}))
            }
            2 => None,
            3 => {
                self.apply(request);
                None
            }
            _ if is_write && self.happens(30, Flaw::LostWrite) => {
                let version = self.next_version();
                Some(json!({"ok": true, "version": version, "deleted": true}))
            }
            _ => {
                if request["op"] == "set" && self.happens(10, Flaw::AppliedTwice) {
                    self.again = Some(request.clone());
                }
                Some(self.apply(request))
            }
        }
    }

    fn read(&mut self, key: &Value) -> Value {
        let key = key.as_str().expect("a key");
        let is_stale = self.happens(20, Flaw::StaleRead);
        let stale = self.old.get(key).filter(|_| is_stale).cloned().flatten();
        match stale.as_ref().or(self.contents.get(key)) {
            Some((value, version)) => {
                json!({"ok": true, "key": key, "found": true, "value": value, "version": version})
            }
            None => json!({"ok": true, "key": key, "found": false, "value": null, "version": null}),
        }
    }

    fn refusal(&mut self, request: &Value, current: &Value) -> Option<Value> {
        let code = if request["if_absent"] == true && !current.is_null() {
            "already_exists"
        } else if request.get("if_version").is_some_and(|wanted| wanted != current) {
            "version_mismatch"
        } else {
            return None;
        };
        let error = json!({"code": code, "outcome": "not_applied", "current": current});
        (!self.happens(5, Flaw::IgnoredCondition)).then(|| json!({"ok": false, "error": error}))
    }

    fn apply(&mut self, request: &Value) -> Value {
        let key = request["key"].as_str().unwrap_or_default().to_string();
        let current = self.contents.get(&key).map_or(Value::Null, |(_, version)| json!(version));
        match request["op"].as_str() {
            Some("get") => self.read(&request["key"]),
            Some("bulk_get") => {
                let keys = request["keys"].as_array().expect("keys").clone();
                let values: Vec<Value> = keys.iter().map(|key| self.read(key)).collect();
                json!({"ok": true, "values": values})
            }
            Some("bulk_set") => {
                let version = self.next_version();
                let records = request["records"].as_array().expect("records").clone();
                let is_torn = self.happens(4, Flaw::HalfOfABulk);
                for record in records.iter().take(if is_torn { 1 } else { records.len() }) {
                    self.put(record[0].as_str().expect("a key"), Some((record[1].clone(), version.clone())));
                }
                json!({"ok": true, "count": records.len(), "version": version})
            }
            Some("set") => self.refusal(request, &current).unwrap_or_else(|| {
                let version = self.next_version();
                self.put(&key, Some((request["value"].clone(), version.clone())));
                json!({"ok": true, "version": version})
            }),
            _ => self.refusal(request, &current).unwrap_or_else(|| {
                if !self.happens(5, Flaw::ForgetfulDelete) {
                    self.put(&key, None);
                }
                json!({"ok": true, "deleted": !current.is_null()})
            }),
        }
    }
}

fn serve(stream: TcpStream, store: &Mutex<Store>) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let Some(reply) = store.lock().unwrap().answer(&request) else { return Ok(()) };
        // In one write, or the kernel waits for more.
        writer.write_all(format!("{reply}\n").as_bytes())?;
    }
    Ok(())
}

/// A store that listens for as long as the tests run.
fn start(flaw: Flaw) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    let (contents, old, random) = (HashMap::new(), HashMap::new(), Random::new(SEED));
    let store = Arc::new(Mutex::new(Store { flaw, random, last_version: 0, contents, old, again: None }));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let store = store.clone();
            // A client that goes away ends its connection, and that is all.
            std::thread::spawn(move || drop(serve(stream, &store)));
        }
    });
    address
}

fn run(flaw: Flaw) -> Report {
    let places = [Place { node_id: 1, address: start(flaw) }];
    let load = Load { pause: Duration::from_micros(300), ..Load::on(&places, &dial(), "fake") };
    let recorder = Arc::new(Recorder::new());
    let workload = Workload::start(&load, &recorder, &mut Random::new(SEED));
    let deadline = std::time::Instant::now() + PATIENCE;
    while recorder.answered() < ANSWERS {
        assert!(std::time::Instant::now() < deadline, "{flaw:?}: {} answers", recorder.answered());
        std::thread::sleep(Duration::from_millis(5));
    }
    workload.stop();
    read_back(&load, &recorder, PATIENCE).expect("all is read back");
    check(&recorder.history(), STEPS_MAX)
}

#[test]
fn a_store_that_keeps_its_word_is_linearizable() {
    let report = run(Flaw::None);
    assert!(report.is_linearizable(), "{report}");
    let counts = report.counts;
    assert!(
        counts.answered >= ANSWERS && counts.reads > 0 && counts.refused > 0 && counts.unknown > 0,
        "{report}"
    );
    assert!(report.keys > 8, "keys are left for fresh ones: {report}");
}

#[test]
fn stores_that_break_their_word_are_caught() {
    for (flaw, text) in [
        (Flaw::StaleRead, "no order explains"),
        (Flaw::LostWrite, "no order explains"),
        (Flaw::RefusedYetApplied, "its write had been refused"),
        (Flaw::AppliedTwice, "applied twice"),
        (Flaw::IgnoredCondition, "no order explains"),
        (Flaw::HalfOfABulk, "no order explains"),
        (Flaw::ForgetfulDelete, "no order explains"),
    ] {
        let report = run(flaw);
        let is_told = report.violations.iter().any(|violation| violation.explanation.contains(text));
        assert!(is_told, "{flaw:?} was not found: {report}");
        println!(
            "{flaw:?}: {} violations, the first {}",
            report.violations.len(),
            report.violations[0].explanation
        );
    }
}
