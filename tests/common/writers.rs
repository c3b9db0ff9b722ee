//! Clients that write the same few keys at all nodes of a cluster of dynamo mode, and what
//! must have become of what they were told.
//!
//! A write that was acknowledged is there at the end, or its key has a higher version, or
//! was deleted later. A delete's answer has no version: it lies between those of two writes
//! of the same client to the same node, one before it and one behind it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use datastore_utilities::linearizability::{Client, Dial};
use serde_json::{Value, json};

use super::Cluster;
use super::dynamo::{Contents, version};
use super::network::Id;
use crate::common::random::Random;

/// A node that doesn't answer within this time may have taken the write or not.
const REPLY_TIMEOUT: Duration = Duration::from_millis(500);
/// Before a node that takes no connection is tried again, or another one.
const PAUSE: Duration = Duration::from_millis(10);
/// Keys of each kind.
const KEYS: usize = 5;
/// What a client's own key begins with.
const OWN: &str = "own-";

type Version = (u64, u32);

/// What is known of a write of one key.
#[derive(Clone, Debug)]
struct Write {
    key: String,
    /// `None`: a delete.
    value: Option<Value>,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// It has this version.
    Written(Version),
    /// It is above the first, and below the second if there is one.
    Between(Version, Option<Version>),
    NotApplied,
    Unknown,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub acknowledged: usize,
    pub not_applied: usize,
    pub unknown: usize,
}

struct Shared {
    dial: Dial,
    nodes: Vec<(Id, SocketAddr)>,
    writes: Mutex<Vec<Write>>,
    acknowledged: AtomicUsize,
    /// Held by each request; whoever holds it alone has silence.
    gate: RwLock<()>,
    stops: AtomicBool,
}

/// The clients.
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// So many clients, at these nodes.
    pub fn start(cluster: &Cluster, nodes: &[Id], clients: usize, random: &mut Random) -> Writers {
        let shared = Arc::new(Shared {
            dial: cluster.network.dial(),
            nodes: nodes.iter().map(|id| (*id, cluster.network.address(*id))).collect(),
            writes: Mutex::default(),
            acknowledged: AtomicUsize::new(0),
            gate: RwLock::default(),
            stops: AtomicBool::new(false),
        });
        let start = |number| {
            let writer =
                Writer { shared: shared.clone(), random: random.fork(), number, sent: 0, client: None };
            std::thread::spawn(move || writer.run())
        };
        Writers { threads: (0..clients).map(start).collect(), shared }
    }

    /// Waits until so many more writes were acknowledged; or until all nodes that run are such as
    /// have lost entries and may take none before they have heard another one.
    pub fn wait_for_more(&self, cluster: &Cluster, more: usize) {
        let target = self.acknowledged() + more;
        // Of a node that was stopped nothing is heard.
        let state = |id| {
            let members = cluster.view(id)?["members"].as_array().cloned()?;
            let own = members.into_iter().find(|member| member["node_id"] == id)?;
            Some(own["state"] == "awaits_contact")
        };
        let all_wait = || {
            let running = cluster.ids().into_iter().filter(|id| cluster.is_started(*id));
            let heard: Vec<bool> = running.filter_map(state).collect();
            !heard.is_empty() && heard.into_iter().all(|waits| waits)
        };
        cluster.wait_until("writes are acknowledged", |_| self.acknowledged() >= target || all_wait());
    }

    fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// With nothing under way: starts, wakes and connects all nodes, waits until they hold
    /// the same, and holds every answer so far to it. Gives what they hold, and how long it
    /// took once nothing was in the way.
    pub fn settle_and_check(&self, cluster: &mut Cluster) -> (Contents, Duration) {
        self.settle_check_and(cluster, |_| ())
    }

    /// As `settle_and_check`; then does something, still with nothing under way.
    pub fn settle_check_and(
        &self,
        cluster: &mut Cluster,
        then: impl FnOnce(&mut Cluster),
    ) -> (Contents, Duration) {
        let _silence = self.shared.gate.write().unwrap_or_else(PoisonError::into_inner);
        cluster.mend();
        let begin = Instant::now();
        let contents = cluster.settled_among(&cluster.ids());
        let took = begin.elapsed();
        self.check(&contents);
        then(cluster);
        (contents, took)
    }

    /// Ends the clients.
    pub fn stop(&mut self) -> Counts {
        self.shared.stops.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("a client doesn't panic"));
        let mut counts = Counts::default();
        for write in self.shared.writes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            *match write.outcome {
                Outcome::Written(_) | Outcome::Between(..) => &mut counts.acknowledged,
                Outcome::NotApplied => &mut counts.not_applied,
                Outcome::Unknown => &mut counts.unknown,
            } += 1;
        }
        counts
    }

    /// Holds every answer so far to what the nodes hold.
    pub fn check(&self, contents: &Contents) {
        let wrong = self.wrong(contents);
        assert!(wrong.is_empty(), "{} keys are wrong:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// All that can't be, after what the clients were told.
    fn wrong(&self, contents: &Contents) -> Vec<String> {
        let writes = self.shared.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys: BTreeMap<&str, Vec<&Write>> = BTreeMap::new();
        writes.iter().for_each(|write| keys.entry(&write.key).or_default().push(write));
        let wrong = keys.into_iter().filter_map(|(key, writes)| {
            let wrong = match contents.get(key) {
                Some(item) => wrong_with(item, &writes),
                None => wrong_with_absence(&writes),
            };
            wrong.map(|wrong| format!("{key}: {wrong}; it is {:?}", contents.get(key)))
        });
        wrong.collect()
    }

    /// Holds that a lost write, an older one and one that was deleted would be found in this.
    pub fn would_find(&self, contents: &Contents) {
        let is_found = |doctored: &Contents, what: &str| {
            let wrong = self.wrong(doctored);
            assert!(wrong.len() == 1 && wrong[0].contains(what), "{what} isn't found: {wrong:?}");
        };
        let own = contents.keys().find(|key| key.starts_with(OWN)).expect("a client has deleted");
        let mut lost = contents.clone();
        lost.remove(own);
        is_found(&lost, "is lost");
        let mut older = contents.clone();
        older.entry(own.clone()).and_modify(|item| item["version"] = json!("1.1"));
        is_found(&older, "is lost");
        let writes = self.shared.writes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let delete = writes.iter().rev().find_map(|write| match write.outcome {
            Outcome::Between((time, origin), Some(_)) => Some((&write.key, format!("{time}.{origin}"))),
            _ => None,
        });
        let (key, version) = delete.expect("a client has deleted");
        let mut back = contents.clone();
        back.insert(key.clone(), json!({"key": key, "value": null, "version": version}));
        let wrong = self.wrong(&back);
        assert!(wrong.len() == 1, "a deleted key isn't found: {wrong:?}");
    }
}

/// What is wrong with a key that is there, after all these writes of it.
fn wrong_with(item: &Value, writes: &[&Write]) -> Option<String> {
    let held = version(&item["version"]);
    // A key of vectors shows no value.
    let shows = |value: &Option<Value>| value.as_ref() == Some(&item["value"]) || item["value"].is_null();
    let is_known = writes.iter().any(|write| shows(&write.value) && write.outcome != Outcome::NotApplied);
    let first_wrong = writes.iter().find(|write| match write.outcome {
        Outcome::Written(written) => written > held || written == held && !shows(&write.value),
        Outcome::Between(low, _) => held <= low,
        Outcome::NotApplied | Outcome::Unknown => false,
    });
    match first_wrong {
        Some(write) if write.value.is_none() => Some(format!("it is back behind {write:?}")),
        Some(write) => Some(format!("{write:?} is lost")),
        None if !is_known => Some("nobody wrote that".to_string()),
        None => None,
    }
}

/// What is wrong with a key that is not there.
fn wrong_with_absence(writes: &[&Write]) -> Option<String> {
    let newest = writes.iter().filter_map(|write| match write.outcome {
        Outcome::Written(written) => Some(written),
        _ => None,
    });
    let newest = newest.max()?;
    let is_deleted = writes.iter().filter(|write| write.value.is_none()).any(|write| match write.outcome {
        Outcome::Between(_, high) => high.is_none_or(|high| high > newest),
        Outcome::Unknown => true,
        Outcome::Written(_) | Outcome::NotApplied => false,
    });
    (!is_deleted).then(|| format!("{newest:?} is lost"))
}

struct Writer {
    shared: Arc<Shared>,
    random: Random,
    number: usize,
    sent: usize,
    client: Option<Client>,
}

impl Writer {
    fn run(mut self) {
        while !self.shared.stops.load(Ordering::Relaxed) {
            let shared = self.shared.clone();
            let silence = shared.gate.read().unwrap_or_else(PoisonError::into_inner);
            if self.client.is_none() || self.random.below(20) == 0 {
                let (_, address) = *self.random.pick(&self.shared.nodes);
                self.client = Client::connect(&self.shared.dial, address, REPLY_TIMEOUT).ok();
            }
            if self.client.is_some() {
                self.write();
            }
            drop(silence);
            if self.client.is_none() {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn write(&mut self) {
        let key = format!("k{}", self.random.below(KEYS));
        let value = self.next_value();
        match self.random.below(10) {
            0 | 1 => {
                let keys = vec![key];
                self.delete(json!({"op": "delete", "key": keys[0]}), keys);
            }
            2 => {
                let keys: Vec<String> =
                    (0..KEYS).filter(|at| at % 2 == 0).map(|at| format!("k{at}")).collect();
                self.delete(json!({"op": "bulk_delete", "keys": keys}), keys);
            }
            3 | 4 => {
                let other = format!("k{}", self.random.below(KEYS));
                let records = HashMap::from([(key, value.clone()), (other, value)]);
                let listed: Vec<Value> = records.iter().map(|(key, value)| json!([key, value])).collect();
                self.set(json!({"op": "bulk_set", "records": listed}), records);
            }
            5 => {
                let key = format!("vector-{}", self.random.below(KEYS));
                let request = json!({"op": "add_vector", "key": key, "vector": [1, self.sent]});
                self.set(request, HashMap::from([(key, value)]));
            }
            _ => {
                let request = json!({"op": "set", "key": key, "value": value});
                self.set(request, HashMap::from([(key, value)]));
            }
        }
    }

    fn next_value(&mut self) -> Value {
        self.sent += 1;
        json!(format!("{}-{}", self.number, self.sent))
    }

    /// One request's outcome, and its version if the answer has one.
    fn call(&mut self, request: &Value) -> (Outcome, Option<Version>) {
        let reply = self.client.as_mut().map(|client| client.call(request));
        match reply {
            Some(Ok(reply)) if reply["ok"] == true => {
                let version = (!reply["version"].is_null()).then(|| version(&reply["version"]));
                (version.map_or(Outcome::Unknown, Outcome::Written), version)
            }
            Some(Ok(reply)) if reply["error"]["outcome"] == "not_applied" => {
                // Its clock is wrong, mostly: another node may do.
                self.client = None;
                (Outcome::NotApplied, None)
            }
            _ => {
                self.client = None;
                (Outcome::Unknown, None)
            }
        }
    }

    fn set(&mut self, request: Value, records: HashMap<String, Value>) -> Option<Version> {
        let (outcome, version) = self.call(&request);
        self.record(records.into_iter().map(|(key, value)| (key, Some(value))), outcome);
        version
    }

    /// A write of this client's own key.
    fn set_own(&mut self) -> Option<Version> {
        let (key, value) = (format!("{OWN}{}", self.number), self.next_value());
        self.set(json!({"op": "set", "key": key, "value": value}), HashMap::from([(key, value)]))
    }

    fn delete(&mut self, request: Value, keys: Vec<String>) {
        let Some(low) = self.set_own() else { return };
        let reply = self.client.as_mut().map(|client| client.call(&request));
        let outcome = match reply {
            Some(Ok(reply)) if reply["ok"] == true => Outcome::Between(low, self.set_own()),
            Some(Ok(reply)) if reply["error"]["outcome"] == "not_applied" => Outcome::NotApplied,
            _ => {
                self.client = None;
                Outcome::Unknown
            }
        };
        self.record(keys.into_iter().map(|key| (key, None)), outcome);
    }

    fn record(&self, rows: impl Iterator<Item = (String, Option<Value>)>, outcome: Outcome) {
        let rows = rows.map(|(key, value)| Write { key, value, outcome });
        self.shared.writes.lock().unwrap_or_else(PoisonError::into_inner).extend(rows);
        if matches!(outcome, Outcome::Written(_) | Outcome::Between(..)) {
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}
