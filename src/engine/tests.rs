//! A slice under random requests, commits and refusals, against a plain map.
//!
//! The test plays the log: what the slice appends waits in a queue, and is
//! committed or refused in groups; parts of multi-key writes may come later
//! than single writes appended after them, as when another shard's part is late.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Answer, Condition, Entry, Placement, Slice, Table, Version, WriteKind, replay};
use crate::engine::{Append, Effect, Requests};
use crate::error::{Code, Detail, Error};

#[derive(Clone, Debug)]
enum Step {
    Get(u8),
    BulkGet(Vec<u8>),
    Set(u8),
    AddVector(u8),
    Delete(u8),
    SetIfAbsent(u8),
    /// `if_version` with what the key has now, which a write in flight may change.
    SetIfCurrent(u8),
    DeleteIfCurrent(u8),
    Part {
        keys: Vec<u8>,
        late: bool,
        single: bool,
    },
    /// The log takes so many of the appended requests, durable or not.
    Log {
        requests: u8,
        fails: bool,
    },
    LatePartsMeet,
    /// The node leads no more; of what is on its way to the log, another leader commits some.
    Abandon {
        committed: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..4;
    let keys = || prop::collection::vec(0u8..4, 1..4);
    prop_oneof![
        3 => key.clone().prop_map(Step::Get),
        1 => keys().prop_map(Step::BulkGet),
        4 => key.clone().prop_map(Step::Set),
        1 => key.clone().prop_map(Step::AddVector),
        2 => key.clone().prop_map(Step::Delete),
        2 => key.clone().prop_map(Step::SetIfAbsent),
        2 => key.clone().prop_map(Step::SetIfCurrent),
        1 => key.prop_map(Step::DeleteIfCurrent),
        2 => (keys(), any::<bool>(), any::<bool>()).prop_map(|(keys, late, single)| Step::Part { keys, late, single }),
        6 => (1u8..4, prop::bool::weighted(0.2)).prop_map(|(requests, fails)| Step::Log { requests, fails }),
        2 => Just(Step::LatePartsMeet),
        1 => any::<u8>().prop_map(|committed| Step::Abandon { committed }),
    ]
}

type Token = usize;

/// What a token asked for.
#[derive(Clone, Debug)]
enum Asked {
    Read(Vec<u8>),
    Write { key: u8, condition: Condition },
    Part,
}

/// What the map holds of a key: version, value, whether there is a vector.
type Cell = (Version, Option<Vec<u8>>, bool);

struct World {
    slice: Slice<Token>,
    placement: Placement,
    map: BTreeMap<u8, Cell>,
    /// Every durable payload, to be replayed at the end.
    log: Vec<(u64, Vec<u8>)>,
    queue: VecDeque<(u32, Vec<u8>)>,
    late: Vec<(u32, Vec<u8>)>,
    asked: Vec<Asked>,
    answered: HashSet<Token>,
    /// Unconditional single writes that are not settled, per key, in arrival order.
    unsettled: HashMap<u8, Vec<Token>>,
    /// For each read: the unconditional writes that it must not overtake.
    behind: HashMap<Token, Vec<Token>>,
    /// Acknowledged single writes: key, token, version.
    written: RefCell<Vec<(u8, Token, Version)>>,
    index: u64,
    changes: Vec<super::Change>,
}

fn key_bytes(key: u8) -> Bytes {
    Bytes::from(format!("key-{key}"))
}

impl World {
    fn new() -> World {
        let placement = Placement::new((1, 2), 1);
        World {
            slice: Slice::new(Table::new(placement, 0), 0),
            placement,
            map: BTreeMap::new(),
            log: Vec::new(),
            queue: VecDeque::new(),
            late: Vec::new(),
            asked: Vec::new(),
            answered: HashSet::new(),
            unsettled: HashMap::new(),
            behind: HashMap::new(),
            written: RefCell::default(),
            index: 0,
            changes: Vec::new(),
        }
    }

    fn ask(&mut self, asked: Asked) -> Token {
        self.asked.push(asked);
        self.asked.len() - 1
    }

    fn hash(&self, key: u8) -> u64 {
        self.placement.hash(&key_bytes(key))
    }

    fn take_step(&mut self, step: Step) {
        match step {
            Step::Get(key) => self.read(vec![key], false),
            Step::BulkGet(keys) => self.read(keys, true),
            Step::Set(key) => self.write(key, WriteKind::Set(self.fresh_value()), Condition::None),
            Step::AddVector(key) => {
                let vector = Bytes::copy_from_slice(&1.5f32.to_le_bytes());
                self.write(key, WriteKind::AddVector(vector), Condition::None);
            }
            Step::Delete(key) => self.write(key, WriteKind::Delete, Condition::None),
            Step::SetIfAbsent(key) => self.write(key, WriteKind::Set(self.fresh_value()), Condition::Absent),
            Step::SetIfCurrent(key) => {
                let condition = Condition::Version(self.map.get(&key).map(|cell| cell.0));
                self.write(key, WriteKind::Set(self.fresh_value()), condition);
            }
            Step::DeleteIfCurrent(key) => {
                let condition = Condition::Version(self.map.get(&key).map(|cell| cell.0));
                self.write(key, WriteKind::Delete, condition);
            }
            Step::Part { keys, late, single } => self.part(&keys, late, single),
            Step::Log { requests, fails } => self.log_some(usize::from(requests), fails),
            Step::LatePartsMeet => self.queue.extend(self.late.drain(..)),
            Step::Abandon { committed } => self.abandon(committed),
        }
        self.collect();
    }

    /// `committed`: a bit for each of the requests on their way.
    fn abandon(&mut self, committed: u8) {
        let lost = Error::new(Code::LeadershipLost, "on purpose");
        self.slice.abandon(&lost, &Error::new(Code::NoLeader, "on purpose"));
        assert!(self.slice.is_quiet());
        let under_way: Vec<Vec<u8>> =
            self.queue.drain(..).chain(self.late.drain(..)).map(|(_, payload)| payload).collect();
        for payload in under_way.iter().zip(0..8).filter(|(_, bit)| committed >> bit & 1 == 1) {
            self.decided_elsewhere(payload.0);
        }
    }

    fn decided_elsewhere(&mut self, payload: &[u8]) {
        self.index += 1;
        let effects: Vec<_> = Requests::new(payload).map(|item| item.expect("valid")).collect();
        for (ordinal, effect) in &effects {
            let version = Version { index: self.index, ordinal: *ordinal };
            apply_to_map(&mut self.map, version, effect);
        }
        self.log.push((self.index, payload.to_vec()));
        let placement = self.placement;
        let hashed =
            effects.iter().map(|(ordinal, effect)| (*ordinal, *effect, placement.hash(effect.key())));
        self.slice.apply_logged(self.index, hashed);
    }

    fn fresh_value(&self) -> Bytes {
        Bytes::from(self.asked.len().to_string())
    }

    fn read(&mut self, keys: Vec<u8>, bulk: bool) {
        let behind =
            keys.iter().flat_map(|key| self.unsettled.get(key).cloned().unwrap_or_default()).collect();
        let token = self.ask(Asked::Read(keys.clone()));
        self.behind.insert(token, behind);
        if bulk {
            let with_hash: Vec<_> = keys.iter().map(|&key| (key_bytes(key), self.hash(key))).collect();
            self.slice.bulk_get(token, with_hash.iter().map(|(key, hash)| (&key[..], *hash)));
        } else {
            self.slice.get(token, &key_bytes(keys[0]), self.hash(keys[0]));
        }
    }

    fn write(&mut self, key: u8, kind: WriteKind, condition: Condition) {
        let token = self.ask(Asked::Write { key, condition });
        self.unsettled.entry(key).or_default().push(token);
        let arena = key_bytes(key);
        self.slice.write(token, &arena, &arena, self.hash(key), kind, condition);
    }

    fn part(&mut self, keys: &[u8], late: bool, single: bool) {
        let token = self.ask(Asked::Part);
        let value = self.fresh_value();
        let writes: Vec<_> =
            keys.iter().map(|&key| (key_bytes(key), self.hash(key), WriteKind::Set(value.clone()))).collect();
        self.slice.write_part(token, token as u64, if single { 1 } else { 2 }, writes.into_iter());
        self.take_append(late);
    }

    /// Moves what was appended to the log's queue, one request each.
    fn take_append(&mut self, late: bool) {
        let Append { bytes, writes, parts } = std::mem::take(&mut self.slice.output().append);
        let mut requests = split_requests(&bytes).into_iter();
        for write in writes {
            self.queue.push_back((write, requests.next().expect("a request for each write")));
        }
        for part in parts {
            let mut payload = Vec::new();
            super::encode_request_header(&mut payload, part.effects);
            payload.extend_from_slice(&part.bytes);
            let Some(write) = part.write else { continue };
            if late { self.late.push((write, payload)) } else { self.queue.push_back((write, payload)) }
        }
    }

    fn log_some(&mut self, requests: usize, fails: bool) {
        let taken: Vec<(u32, Vec<u8>)> = self.queue.drain(..requests.min(self.queue.len())).collect();
        if taken.is_empty() {
            return;
        }
        if fails {
            let error = Error::new(Code::SyncFailed, "on purpose");
            self.slice.refused(taken.iter().map(|(write, _)| *write), &error);
            return;
        }
        self.index += 1;
        let payload: Vec<u8> = taken.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        // The map first: answers given while the slice applies may only show it, or what comes between.
        for item in Requests::new(&payload) {
            let (ordinal, effect) = item.expect("the slice's own encoding");
            apply_to_map(&mut self.map, Version { index: self.index, ordinal }, &effect);
        }
        self.log.push((self.index, payload));
        let numbered: Vec<_> = taken.iter().zip(0..).map(|((write, _), ordinal)| (*write, ordinal)).collect();
        self.slice.committed(self.index, &numbered);
    }

    /// Looks at every answer.
    fn collect(&mut self) {
        self.changes.append(&mut self.slice.output().changes);
        for (token, answer) in std::mem::take(&mut self.slice.output().answers) {
            assert!(self.answered.insert(token), "token {token} is answered twice");
            if let Asked::Write { key, .. } = self.asked[token] {
                self.unsettled.entry(key).or_default().retain(|&other| other != token);
            }
            if let Some(behind) = self.behind.remove(&token) {
                let overtaken: Vec<_> =
                    behind.iter().filter(|&other| !self.answered.contains(other)).collect();
                assert!(overtaken.is_empty(), "read {token} was answered before writes {overtaken:?}");
            }
            self.check_answer(token, answer);
        }
        self.take_append(false);
    }

    fn check_answer(&self, token: Token, answer: Answer) {
        match (&self.asked[token], answer) {
            (Asked::Read(keys), Answer::Entry(entry)) => self.check_shown(keys[0], entry.as_ref()),
            (Asked::Read(keys), Answer::Entries(entries)) => {
                keys.iter().zip(&entries).for_each(|(&key, entry)| self.check_shown(key, entry.as_ref()));
            }
            (Asked::Write { .. } | Asked::Part, Answer::Refused(error))
                if matches!(error.code, Code::SyncFailed | Code::LeadershipLost | Code::NoLeader) => {}
            (Asked::Write { condition, .. }, Answer::Refused(error)) => {
                assert_ne!(*condition, Condition::None, "{error}");
                let Detail::Current(current) = error.detail else { panic!("{error:?} names no version") };
                match condition {
                    Condition::Absent => assert!(current.is_some()),
                    Condition::Version(wanted) => assert_ne!(current, *wanted),
                    _ => {}
                }
            }
            (Asked::Write { key, condition }, Answer::Written(version)) => {
                self.check_order(*key, token, version);
                if let Some(wanted) = match condition {
                    Condition::Version(wanted) => Some(*wanted),
                    Condition::Absent => Some(None),
                    _ => None,
                } {
                    assert_eq!(
                        self.version_before(*key, version),
                        wanted,
                        "the condition of {token} didn't hold"
                    );
                }
                self.written.borrow_mut().push((*key, token, version));
            }
            (Asked::Write { .. }, Answer::Deleted(..)) | (Asked::Part, Answer::Part { .. }) => {}
            (asked, answer) => panic!("{asked:?} was answered {answer:?}"),
        }
    }

    /// Single writes of a key are logged in the order in which they came.
    fn check_order(&self, key: u8, token: Token, version: Version) {
        for &(_, other, other_version) in self.written.borrow().iter().filter(|(of, ..)| *of == key) {
            assert_eq!(other < token, other_version < version, "writes {other} and {token} of key {key}");
        }
    }

    /// The key's version just before the write that made `version`.
    fn version_before(&self, key: u8, version: Version) -> Option<Version> {
        let mut map = BTreeMap::new();
        for (index, payload) in &self.log {
            for item in Requests::new(payload) {
                let (ordinal, effect) = item.expect("valid");
                let at = Version { index: *index, ordinal };
                if at < version {
                    apply_to_map(&mut map, at, &effect);
                }
            }
        }
        map.get(&key).map(|cell| cell.0)
    }

    /// What is shown is durable: it is in the log at its version.
    fn check_shown(&self, key: u8, entry: Option<&Entry>) {
        let Some(entry) = entry else { return };
        let version = entry.version();
        let (_, payload) =
            self.log.iter().find(|(index, _)| *index == version.index).expect("a durable entry");
        let written = Requests::new(payload)
            .map(|item| item.expect("valid"))
            .any(|(ordinal, effect)| ordinal == version.ordinal && effect.key() == key_bytes(key));
        assert!(written, "key {key} at {version} is not in the log");
    }

    /// Lets everything settle; then all must agree.
    fn finish(mut self) {
        while !(self.queue.is_empty() && self.late.is_empty()) {
            self.take_step(Step::LatePartsMeet);
            self.take_step(Step::Log { requests: 3, fails: false });
        }
        assert!(self.slice.is_quiet(), "something is still in flight");
        assert_eq!(self.answered.len(), self.asked.len(), "every request has an answer");
        let table = self.slice.table();
        let mut replayed = Table::new(self.placement, 0);
        for (index, payload) in &self.log {
            for item in Requests::new(payload) {
                let (ordinal, effect) = item.expect("valid");
                replay(
                    &mut replayed,
                    Version { index: *index, ordinal },
                    &effect,
                    self.placement.hash(effect.key()),
                );
            }
        }
        let mut from_changes: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
        for change in &self.changes {
            let key = change.new.as_ref().or(change.old.as_ref()).expect("one side").key().to_vec();
            let before = from_changes.remove(&key);
            assert_eq!(
                before.as_ref().map(Entry::version),
                change.old.as_ref().map(Entry::version),
                "{change:?}"
            );
            change.new.iter().for_each(|new| drop(from_changes.insert(key.clone(), new.clone())));
        }
        for key in 0..4 {
            let expected = self.map.get(&key).cloned();
            let (bytes, hash) = (key_bytes(key), self.hash(key));
            assert_eq!(table.get(&bytes, hash).map(cell), expected, "key {key} in the table");
            assert_eq!(replayed.get(&bytes, hash).map(cell), expected, "key {key} replayed");
            assert_eq!(from_changes.get(&bytes[..]).map(cell), expected, "key {key} by its changes");
        }
        assert_eq!(table.len(), self.map.len());
        let entries = (0..table.walk_length()).flat_map(|bucket| table.walk(bucket));
        let vectors: usize = entries.filter_map(Entry::vector).map(size_of_val).sum();
        assert_eq!(table.vector_bytes(), vectors, "counted as they come and go");
    }
}

fn cell(entry: &Entry) -> Cell {
    (entry.version(), entry.value().map(<[u8]>::to_vec), entry.vector().is_some())
}

fn apply_to_map(map: &mut BTreeMap<u8, Cell>, version: Version, effect: &Effect<'_>) {
    let key = effect.key()[4] - b'0';
    let before = map.remove(&key);
    let (value, vector) = before.map_or((None, false), |(_, value, vector)| (value, vector));
    match effect {
        Effect::Delete { .. } => {}
        Effect::Set { value, .. } => drop(map.insert(key, (version, Some(value.to_vec()), vector))),
        Effect::AddVector { .. } => drop(map.insert(key, (version, value, true))),
    }
}

/// Cuts encoded requests apart, by reading them.
fn split_requests(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut requests: Vec<Vec<u8>> = Vec::new();
    let mut by_ordinal: BTreeMap<u32, Vec<Effect<'_>>> = BTreeMap::new();
    for item in Requests::new(bytes) {
        let (ordinal, effect) = item.expect("the slice's own encoding");
        by_ordinal.entry(ordinal).or_default().push(effect);
    }
    for effects in by_ordinal.values() {
        let mut payload = Vec::new();
        super::encode_request_header(&mut payload, effects.len());
        effects.iter().for_each(|effect| super::encode_effect(&mut payload, effect));
        requests.push(payload);
    }
    requests
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_slice_agrees_with_a_plain_map_and_with_its_log(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.take_step(step));
        world.finish();
    }
}

/// Two clients that read the same version and write on condition of it: one wins.
#[test]
fn of_two_conditions_on_one_version_the_second_is_refused() {
    let mut world = World::new();
    world.take_step(Step::SetIfAbsent(1));
    world.take_step(Step::SetIfAbsent(1));
    assert_eq!(world.queue.len(), 1, "the second waits for the first");
    world.take_step(Step::Log { requests: 1, fails: false });
    assert!(world.queue.is_empty(), "the second was refused, not logged");
    assert_eq!(world.answered.len(), 2);
    world.finish();
}

/// A failed sync leaves room for the one that waited.
#[test]
fn a_condition_behind_a_refused_write_goes_on() {
    let mut world = World::new();
    world.take_step(Step::SetIfAbsent(1));
    world.take_step(Step::SetIfAbsent(1));
    world.take_step(Step::Log { requests: 1, fails: true });
    assert_eq!(world.queue.len(), 1, "the key is still absent: the second goes to the log");
    world.finish();
}

/// Reads behind a condition see what it wrote, however many they are, and nothing that came behind them.
#[test]
fn a_read_behind_another_one_behind_a_condition_sees_no_later_write() {
    let placement = Placement::new((3, 4), 1);
    let mut slice: Slice<u32> = Slice::new(Table::new(placement, 0), 0);
    let key = Bytes::from_static(b"k");
    let hash = placement.hash(&key);
    let set = || WriteKind::Set(Bytes::from_static(b"1"));
    let appended = |slice: &mut Slice<u32>| std::mem::take(&mut slice.output().append).writes;
    slice.write(0, &key, &key, hash, WriteKind::Delete, Condition::None);
    slice.write(1, &key, &key, hash, set(), Condition::Absent);
    slice.get(2, &key, hash);
    slice.get(3, &key, hash);
    let delete = appended(&mut slice);
    slice.committed(1, &[(delete[0], 0)]);
    let written = appended(&mut slice);
    slice.write(4, &key, &key, hash, WriteKind::Delete, Condition::None);
    slice.get(5, &key, hash);
    let deleted = appended(&mut slice);
    slice.committed(2, &[(written[0], 0)]);
    slice.committed(3, &[(deleted[0], 0)]);
    let mut found = BTreeMap::new();
    for (token, answer) in std::mem::take(&mut slice.output().answers) {
        if let Answer::Entry(entry) = answer {
            found.insert(token, entry.is_some());
        }
    }
    assert_eq!(found, BTreeMap::from([(2, true), (3, true), (5, false)]));
    assert!(slice.is_quiet());
}
