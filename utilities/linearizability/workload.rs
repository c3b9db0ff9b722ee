//! Clients that work on a few keys at once, as rudely as real ones: they follow the
//! leader, knock elsewhere when there is none, and never wait for a reply for ever.
//!
//! Every attempt is a request of its own with a value of its own, so what a node has
//! refused can be told from what it has taken when the client tries again. The keys
//! are left for fresh ones after a number of operations, since a key's search grows
//! with what nobody knows of it. Refusals don't count: otherwise an election would
//! use the keys up, and nothing would happen to one key on both sides of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Client, Dial, Place};
use super::history::{Answer, ClientId, Condition, Operation, Outcome, Recorder, Version};
use super::wire;
use crate::random::Random;

/// What a client that was refused waits before it knocks again.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// One in so many requests goes to any node, whoever leads: deposed leaders must be
/// asked, or nobody would notice that they still answer.
const STRAYS: u64 = 8;
/// Keys of a bulk.
const BULK_KEYS: usize = 3;

/// What is to be done.
#[derive(Clone)]
pub struct Load {
    /// The nodes.
    pub places: Vec<Place>,
    /// How they are reached.
    pub dial: Dial,
    /// What the keys begin with.
    pub prefix: String,
    /// Clients at once.
    pub clients: usize,
    /// Keys at once.
    pub keys: usize,
    /// Operations on a key before all keys are left for fresh ones, about.
    pub operations_per_key: u64,
    /// Between two requests of a client, on average.
    pub pause: Duration,
    /// How long a client waits for a reply before it gives up on the connection.
    pub reply_timeout: Duration,
}

impl Load {
    /// Five clients on four keys, some 300 operations a second.
    pub fn on(places: &[Place], dial: &Dial, prefix: &str) -> Load {
        Load {
            places: places.to_vec(),
            dial: dial.clone(),
            prefix: prefix.to_string(),
            clients: 5,
            keys: 4,
            operations_per_key: 120,
            pause: Duration::from_millis(15),
            reply_timeout: Duration::from_secs(2),
        }
    }
}

/// Clients at work.
pub struct Workload {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Starts the clients.
    pub fn start(load: &Load, recorder: &Arc<Recorder>, random: &mut Random) -> Workload {
        let stop = Arc::new(AtomicBool::new(false));
        let settled = Arc::new(AtomicU64::new(0));
        let start = |number: usize| {
            let worker = Worker {
                knocking: Knocking::at(load, number),
                recorder: recorder.clone(),
                client: recorder.next_client(),
                load: load.clone(),
                random: random.fork(),
                versions: HashMap::new(),
                settled: settled.clone(),
            };
            let stop = stop.clone();
            std::thread::spawn(move || worker.run(&stop))
        };
        let threads = (0..load.clients).map(start).collect();
        Workload { stop, threads }
    }

    /// Asks the clients to end, and waits until all have: none of them has a request
    /// under way then, but the nodes may have some that they have given up on.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Notes that all is quiet, and reads every key that was named, from whoever leads.
///
/// # Errors
///
/// When a key wasn't answered within `patience`; what was said last.
pub fn read_back(load: &Load, recorder: &Recorder, patience: Duration) -> Result<(), String> {
    recorder.quiet();
    let client = recorder.next_client();
    let mut knocking = Knocking::at(load, 0);
    for key in recorder.history().keys() {
        let deadline = Instant::now() + patience;
        loop {
            let operation = Operation::Get { key: key.clone() };
            let request = wire::request(&operation);
            let told = match knocking.send(&request, || recorder.invoke(client, operation.clone())) {
                None => "no connection".to_string(),
                Some((ticket, reply)) => {
                    let outcome = match &reply {
                        Ok(reply) => wire::outcome(&operation, reply),
                        Err(error) => Outcome::Unknown(error.clone()),
                    };
                    recorder.complete(ticket, outcome.clone());
                    if matches!(outcome, Outcome::Ok(_)) {
                        break;
                    }
                    outcome.to_string()
                }
            };
            if Instant::now() > deadline {
                return Err(format!("{key} could not be read back: {told}"));
            }
            std::thread::sleep(REFUSED_PAUSE);
        }
    }
    Ok(())
}

/// The way from one node to the next until one answers.
struct Knocking {
    load: Load,
    place: usize,
    connection: Option<Client>,
}

impl Knocking {
    fn at(load: &Load, place: usize) -> Knocking {
        Knocking { load: load.clone(), place: place % load.places.len(), connection: None }
    }

    fn go_to(&mut self, place: usize) {
        if place != self.place {
            self.place = place;
            self.connection = None;
        }
    }

    fn go_on(&mut self) {
        self.connection = None;
        self.place = (self.place + 1) % self.load.places.len();
    }

    /// Sends a request; `None` when there was no connection to send it on. Goes where
    /// the answer says, or elsewhere when there is none.
    fn send<T>(&mut self, request: &Value, begin: impl FnOnce() -> T) -> Option<(T, Result<Value, String>)> {
        if self.connection.is_none() {
            let address = self.load.places[self.place].address;
            self.connection = Client::connect(&self.load.dial, address, self.load.reply_timeout).ok();
        }
        let Some(connection) = &mut self.connection else {
            self.go_on();
            return None;
        };
        let begun = begin();
        let reply = connection.call(request);
        match &reply {
            Ok(reply) if reply["error"]["outcome"] == "not_applied" => self.refused(&reply["error"]),
            Ok(_) => {}
            Err(_) => self.go_on(),
        }
        Some((begun, reply.map_err(|error| error.to_string())))
    }

    fn refused(&mut self, error: &Value) {
        match error["code"].as_str() {
            Some("version_mismatch" | "already_exists") => {}
            Some("not_leader") => {
                let leader = error["leader"]["node_id"].as_u64();
                let place = self.load.places.iter().position(|place| Some(place.node_id) == leader);
                match place {
                    Some(place) => self.go_to(place),
                    None => self.go_on(),
                }
            }
            _ => self.go_on(),
        }
    }
}

struct Worker {
    knocking: Knocking,
    recorder: Arc<Recorder>,
    client: ClientId,
    load: Load,
    random: Random,
    /// The version of a key when this worker last read or wrote it.
    versions: HashMap<String, Version>,
    /// Requests of all workers that were not refused.
    settled: Arc<AtomicU64>,
}

impl Worker {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let pause = self.load.pause.as_micros() as u64;
            std::thread::sleep(Duration::from_micros(self.random.below(2 * pause + 1)));
            if self.random.below(STRAYS) == 0 {
                let place = self.random.below(self.load.places.len() as u64) as usize;
                self.knocking.go_to(place);
            }
            let was_refused = if self.random.below(10) == 0 { self.read_several() } else { self.one() };
            if was_refused {
                std::thread::sleep(REFUSED_PAUSE);
            }
        }
    }

    /// One of the keys of the moment.
    fn key(&mut self) -> String {
        let keys = self.load.keys as u64;
        let epoch = self.settled.load(Ordering::Relaxed) / (keys * self.load.operations_per_key);
        format!("{}-{epoch}-{}", self.load.prefix, self.random.below(keys))
    }

    fn keys(&mut self) -> Vec<String> {
        let keys: std::collections::BTreeSet<String> = (0..BULK_KEYS).map(|_| self.key()).collect();
        keys.into_iter().collect()
    }

    fn next_operation(&mut self) -> Operation {
        let choice = self.random.below(20);
        let key = self.key();
        let known = self.versions.get(&key).cloned().map(Condition::IfVersion);
        let value = self.recorder.next_number();
        match choice {
            0..7 => Operation::Get { key },
            7..11 => Operation::Set { key, value, condition: Condition::Always },
            11..15 => Operation::Set { key, value, condition: known.unwrap_or(Condition::IfAbsent) },
            15 => Operation::Set { key, value, condition: Condition::IfAbsent },
            16 => Operation::Delete { key, condition: known.unwrap_or(Condition::Always) },
            17 => Operation::Delete { key, condition: Condition::Always },
            _ => {
                let keys = self.keys().into_iter();
                Operation::BulkSet { records: keys.map(|key| (key, self.recorder.next_number())).collect() }
            }
        }
    }

    /// Does one thing; tells whether it was refused.
    fn one(&mut self) -> bool {
        let operation = self.next_operation();
        let recorder = self.recorder.clone();
        let begin = || recorder.invoke(self.client, operation.clone());
        let Some((ticket, reply)) = self.knocking.send(&wire::request(&operation), begin) else {
            return true;
        };
        let outcome = match &reply {
            Ok(reply) => wire::outcome(&operation, reply),
            Err(error) => Outcome::Unknown(error.clone()),
        };
        recorder.complete(ticket, outcome.clone());
        self.learn(&operation, &outcome);
        self.settle(&outcome)
    }

    /// A `bulk_get`: each key is a read of its own.
    fn read_several(&mut self) -> bool {
        let keys = self.keys();
        let request = json!({"op": "bulk_get", "keys": keys, "consistency": "linearizable"});
        let recorder = self.recorder.clone();
        let get = |key: &String| Operation::Get { key: key.clone() };
        let begin = || keys.iter().map(|key| recorder.invoke(self.client, get(key))).collect::<Vec<_>>();
        let Some((tickets, reply)) = self.knocking.send(&request, begin) else { return true };
        let mut was_refused = false;
        for (place, (ticket, key)) in tickets.into_iter().zip(&keys).enumerate() {
            let outcome = match &reply {
                Ok(reply) if reply["ok"] == json!(true) => {
                    Outcome::Ok(Answer::Read(wire::read(&reply["values"][place])))
                }
                Ok(reply) => wire::outcome(&get(key), reply),
                Err(error) => Outcome::Unknown(error.clone()),
            };
            recorder.complete(ticket, outcome.clone());
            self.learn(&get(key), &outcome);
            was_refused |= self.settle(&outcome);
        }
        was_refused
    }

    fn learn(&mut self, operation: &Operation, outcome: &Outcome) {
        match (operation, outcome) {
            (Operation::Get { key }, Outcome::Ok(Answer::Read(Some((_, version)))))
            | (Operation::Set { key, .. }, Outcome::Ok(Answer::Written(version))) => {
                self.versions.insert(key.clone(), version.clone());
            }
            (Operation::Get { key } | Operation::Delete { key, .. }, Outcome::Ok(_)) => {
                self.versions.remove(key);
            }
            _ => {}
        }
    }

    fn settle(&mut self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Refused(_) => return true,
            // Whoever doesn't know what has become of its request has come to nothing: its
            // request may still be under way while a successor goes on.
            Outcome::Unknown(_) => self.client = self.recorder.next_client(),
            Outcome::Ok(_) => {}
        }
        self.settled.fetch_add(1, Ordering::Relaxed);
        false
    }
}
