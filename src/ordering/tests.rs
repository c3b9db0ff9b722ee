//! One connection over two shards and a log, every message delayed at random,
//! against a plain map that does one request after the other.
//!
//! ```text
//! program ─ Barrier ─► shard mailboxes ─► slices ─► log mailbox ─ Meeting ─► group ─► committed ─┐
//!                            ▲────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! With a single client the promise is the strongest there is: every answer is
//! the one that doing the requests in turn would have given.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Arrival, Barrier, Class, Meeting};
use crate::engine::{Answer, Append, Condition, Entry, PartAppend, Placement, Slice, Table, WriteKind};

const SHARDS: usize = 2;
const KEYS: u8 = 5;

#[derive(Clone, Debug)]
enum Request {
    Set(u8),
    Delete(u8),
    SetIfAbsent(u8),
    Bulk(Vec<u8>),
    Get(u8),
    Wide,
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        3 => (0..KEYS).prop_map(Request::Set),
        2 => (0..KEYS).prop_map(Request::Delete),
        2 => (0..KEYS).prop_map(Request::SetIfAbsent),
        3 => prop::collection::vec(0..KEYS, 1..4).prop_map(Request::Bulk),
        3 => (0..KEYS).prop_map(Request::Get),
        1 => Just(Request::Wide),
    ]
}

impl Request {
    fn class(&self) -> Class {
        match self {
            Request::Set(_) | Request::Delete(_) | Request::SetIfAbsent(_) => Class::SingleWrite,
            Request::Bulk(_) => Class::MultiWrite,
            Request::Get(_) => Class::KeyRead,
            Request::Wide => Class::WideRead,
        }
    }
}

/// What a request is answered with, as far as it tells.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Done,
    Refused,
    Existed(bool),
    Value(Option<String>),
    All(BTreeMap<u8, String>),
}

type Values = BTreeMap<u8, String>;

/// One request after the other.
fn in_turn(program: &[Request]) -> Vec<Seen> {
    let mut map = Values::new();
    let one = |(number, request): (usize, &Request)| match request {
        Request::Set(key) => {
            map.insert(*key, number.to_string());
            Seen::Done
        }
        Request::Delete(key) => Seen::Existed(map.remove(key).is_some()),
        Request::SetIfAbsent(key) if map.contains_key(key) => Seen::Refused,
        Request::SetIfAbsent(key) => {
            map.insert(*key, number.to_string());
            Seen::Done
        }
        Request::Bulk(keys) => {
            keys.iter().for_each(|&key| drop(map.insert(key, number.to_string())));
            Seen::Done
        }
        Request::Get(key) => Seen::Value(map.get(key).cloned()),
        Request::Wide => Seen::All(map.clone()),
    };
    program.iter().enumerate().map(one).collect()
}

enum ToShard {
    Request(usize, Request),
    Part { number: usize, keys: Vec<u8>, parts: u32 },
    Committed { index: u64, writes: Vec<(u32, u32)> },
}

struct World<'p> {
    program: &'p [Request],
    barrier: Barrier,
    next: usize,
    placement: Placement,
    mailboxes: Vec<VecDeque<ToShard>>,
    slices: Vec<Slice<usize>>,
    to_log: VecDeque<(usize, Append)>,
    meeting: Meeting<(usize, u32)>,
    /// Requests of the next entry: the writes of each, by shard.
    group: Vec<Vec<(usize, u32)>>,
    index: u64,
    seen: Vec<Option<Seen>>,
    parts_left: BTreeMap<usize, u32>,
}

fn name(key: u8) -> Bytes {
    Bytes::from(vec![b'k', b'0' + key])
}

fn value(entry: &Entry) -> String {
    String::from_utf8_lossy(entry.value().unwrap_or_default()).into_owned()
}

impl<'p> World<'p> {
    fn new(program: &'p [Request]) -> World<'p> {
        let placement = Placement::new((3, 4), SHARDS);
        World {
            program,
            barrier: Barrier::default(),
            next: 0,
            placement,
            mailboxes: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            slices: (0..SHARDS).map(|shard| Slice::new(Table::new(placement, shard), 0)).collect(),
            to_log: VecDeque::new(),
            meeting: Meeting::default(),
            group: Vec::new(),
            index: 0,
            seen: vec![None; program.len()],
            parts_left: BTreeMap::new(),
        }
    }

    fn shard(&self, key: u8) -> usize {
        self.placement.shard(self.placement.hash(&name(key)))
    }

    /// Something happens, or nothing if it can't.
    fn step(&mut self, choice: u8) {
        match choice {
            0 | 1 => self.dispatch(),
            2 | 3 => self.deliver(usize::from(choice) - 2),
            4 | 5 => self.flush(usize::from(choice) - 4),
            6 => self.gather(),
            _ => self.sync(),
        }
    }

    fn dispatch(&mut self) {
        let Some(request) = self.program.get(self.next) else { return };
        if !self.barrier.may_dispatch(request.class()) {
            return;
        }
        self.barrier.dispatched(request.class());
        let number = self.next;
        self.next += 1;
        match request {
            Request::Set(key) | Request::Delete(key) | Request::SetIfAbsent(key) | Request::Get(key) => {
                let shard = self.shard(*key);
                self.mailboxes[shard].push_back(ToShard::Request(number, request.clone()));
            }
            Request::Bulk(keys) => self.dispatch_bulk(number, keys),
            Request::Wide => {
                let tables = self.slices.iter().map(Slice::table);
                let entries = tables.flat_map(|table| (0..table.walk_length()).flat_map(|at| table.walk(at)));
                let all = entries.map(|entry| (entry.key()[1] - b'0', value(entry))).collect();
                self.answer(number, Seen::All(all));
            }
        }
    }

    fn dispatch_bulk(&mut self, number: usize, keys: &[u8]) {
        let mut per_shard: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        for &key in keys {
            per_shard.entry(self.shard(key)).or_default().push(key);
        }
        let parts = per_shard.len() as u32;
        self.parts_left.insert(number, parts);
        if parts == 1 {
            self.barrier.met();
        }
        for (shard, keys) in per_shard {
            self.mailboxes[shard].push_back(ToShard::Part { number, keys, parts });
        }
    }

    fn deliver(&mut self, shard: usize) {
        let Some(message) = self.mailboxes[shard].pop_front() else { return };
        let placement = self.placement;
        let slice = &mut self.slices[shard];
        let fresh = |number: usize| WriteKind::Set(Bytes::from(number.to_string()));
        match message {
            ToShard::Request(number, request) => {
                let (key, kind, condition) = match request {
                    Request::Set(key) => (key, fresh(number), Condition::None),
                    Request::SetIfAbsent(key) => (key, fresh(number), Condition::Absent),
                    Request::Delete(key) => (key, WriteKind::Delete, Condition::None),
                    Request::Get(key) => {
                        slice.get(number, &name(key), placement.hash(&name(key)));
                        return self.answers(shard);
                    }
                    Request::Bulk(_) | Request::Wide => return,
                };
                let arena = name(key);
                slice.write(number, &arena, &arena, placement.hash(&arena), kind, condition);
            }
            ToShard::Part { number, keys, parts } => {
                let writes = keys.iter().map(|&key| (name(key), placement.hash(&name(key)), fresh(number)));
                slice.write_part(number, number as u64, parts, writes);
            }
            ToShard::Committed { index, writes } => slice.committed(index, &writes),
        }
        self.answers(shard);
    }

    fn answers(&mut self, shard: usize) {
        for (number, answer) in std::mem::take(&mut self.slices[shard].output().answers) {
            let seen = match answer {
                Answer::Entry(entry) => Seen::Value(entry.as_ref().map(value)),
                Answer::Deleted(existed, _) => Seen::Existed(existed),
                Answer::Refused(_) => Seen::Refused,
                Answer::Written(_) => Seen::Done,
                Answer::Part { .. } => {
                    let left = self.parts_left.entry(number).or_default();
                    *left -= 1;
                    if *left > 0 {
                        continue;
                    }
                    Seen::Done
                }
                Answer::Entries(_) => continue,
            };
            self.answer(number, seen);
        }
    }

    fn answer(&mut self, number: usize, seen: Seen) {
        self.barrier.answered(self.program[number].class());
        assert!(self.seen[number].replace(seen).is_none(), "request {number} is answered twice");
    }

    /// A shard hands on what it has for the log.
    fn flush(&mut self, shard: usize) {
        let append = std::mem::take(&mut self.slices[shard].output().append);
        if !append.is_empty() {
            self.to_log.push_back((shard, append));
        }
    }

    /// The log's actor takes a message.
    fn gather(&mut self) {
        let Some((shard, Append { writes, parts, .. })) = self.to_log.pop_front() else { return };
        self.group.extend(writes.into_iter().map(|write| vec![(shard, write)]));
        for PartAppend { write, multi, parts, refusal, .. } in parts {
            match self.meeting.arrive(multi, parts, (shard, write.expect("nobody refuses")), refusal) {
                Arrival::Waiting => {}
                Arrival::Complete(parts) => {
                    self.group.push(parts);
                    self.barrier.met();
                }
                Arrival::Refused(..) => panic!("nobody refuses here"),
            }
        }
    }

    /// The disk makes one entry of what has gathered.
    fn sync(&mut self) {
        if self.group.is_empty() {
            return;
        }
        self.index += 1;
        let mut per_shard = vec![Vec::new(); SHARDS];
        for (ordinal, parts) in (0..).zip(std::mem::take(&mut self.group)) {
            parts.into_iter().for_each(|(shard, write)| per_shard[shard].push((write, ordinal)));
        }
        for (mailbox, writes) in self.mailboxes.iter_mut().zip(per_shard) {
            if !writes.is_empty() {
                mailbox.push_back(ToShard::Committed { index: self.index, writes });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_connection_sees_what_doing_its_requests_in_turn_would_show(
        program in prop::collection::vec(request(), 1..25),
        choices in prop::collection::vec(0u8..8, 0..300),
    ) {
        let mut world = World::new(&program);
        choices.into_iter().for_each(|choice| world.step(choice));
        // Whatever is left goes its way; each round moves something while anything is left.
        for _ in 0..program.len() * 20 {
            (0..8).for_each(|choice| world.step(choice));
        }
        let seen: Vec<Seen> = world.seen.into_iter().flatten().collect();
        prop_assert_eq!(seen, in_turn(&program));
    }
}
