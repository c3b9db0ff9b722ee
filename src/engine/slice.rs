//! The state machine of one shard. See the module's header for the rules of
//! waiting, [`super::in_flight`].
//!
//! ```text
//! get ──────────► answered, or waits for the key's writes in flight
//! set ─► ticket ─► Append ─► (log: framed, synced) ─► committed ─► applied ─► change, answer
//!                                                └──► refused ───► nothing ──► answer
//! ```

use std::collections::HashMap;

use bytes::Bytes;
use slab::Slab;

use super::absent_deletes::AbsentDeletes;
use super::converge::{Conflict, Seen};
use super::effect::{Effect, encode_effect, encode_request_header};
use super::entry::{Change, Entry};
use super::in_flight::{Condition, InFlightKeys, KeyState, Waiter, WaitingWrite, WriteKind, refusal};
use super::table::Table;
use crate::error::Error;
use crate::version::Version;

/// What a slice has to say to someone who asked. `T` is the asker's token.
#[derive(Debug, Clone)]
pub enum Answer {
    /// `get`, `get_vector`: the key's entry.
    Entry(Option<Entry>),
    /// `bulk_get`: this shard's keys in the order they were asked for.
    Entries(Vec<Option<Entry>>),
    /// `set`, `add_vector`: done, at this version.
    Written(Version),
    /// `delete`: done at this version; whether there was something to delete.
    Deleted(bool, Version),
    /// This shard's part of a multi-key write is done.
    Part {
        /// How many of its keys existed before.
        existed: usize,
        /// The version that all keys of the request share.
        version: Version,
    },
    /// It did not happen, or (see the outcome) may not have.
    Refused(Error),
}

/// What goes to the log, from one shard: encoded requests in order, those that
/// write several keys of this shard alone among them, and parts of multi-key
/// writes that must first meet their other parts.
#[derive(Debug, Default)]
pub struct Append {
    /// One encoded request (header and effect) for each of `writes`, in order.
    pub bytes: Vec<u8>,
    /// The numbers by which the slice knows these writes.
    pub writes: Vec<u32>,
    /// Parts of multi-key writes.
    pub parts: Vec<PartAppend>,
}

impl Append {
    /// Whether there is nothing to log.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.parts.is_empty()
    }
}

/// One shard's part of a multi-key write.
#[derive(Debug)]
pub struct PartAppend {
    /// The number by which the slice knows the part; `None`: it has answered already.
    pub write: Option<u32>,
    /// The multi-key write's number, unique on the node.
    pub multi: u64,
    /// How many shards it touches.
    pub parts: u32,
    /// How many effects `bytes` holds.
    pub effects: usize,
    /// The encoded effects, without a request header.
    pub bytes: Vec<u8>,
    /// Why this shard refuses its part, if it does.
    pub refusal: Option<Error>,
}

impl PartAppend {
    pub(super) fn refused(self, error: Error) -> PartAppend {
        PartAppend { write: None, effects: 0, bytes: Vec::new(), refusal: Some(error), ..self }
    }
}

/// What came out of the slice since it was last emptied. Changes must be handed
/// on before the answers: that is what makes an acknowledged write searchable.
#[derive(Debug)]
pub struct Output<T> {
    /// For the indexes, in the order of application.
    pub changes: Vec<Change>,
    /// For those who asked.
    pub answers: Vec<(T, Answer)>,
    /// For the log.
    pub append: Append,
    /// In dynamo mode: writes that were lost to others, which didn't know of them.
    pub conflicts: Vec<Conflict>,
    /// Further ones, which are only counted.
    pub conflicts_omitted: u64,
}

impl<T> Default for Output<T> {
    fn default() -> Self {
        Output {
            changes: Vec::new(),
            answers: Vec::new(),
            append: Append::default(),
            conflicts: Vec::new(),
            conflicts_omitted: 0,
        }
    }
}

/// How many keys are looked up together, so that they wait for memory together.
pub const PREFETCH_WINDOW: usize = 32;

/// One key's write within a request.
struct KeyWrite {
    key: Bytes,
    hash: u64,
    kind: WriteKind,
    /// Held for it of the room for deletes of absent keys.
    reserved: u32,
}

/// A request handed to the log and not yet settled.
pub(super) struct InFlight<T> {
    pub(super) token: T,
    ticket: u64,
    body: Body,
}

enum Body {
    Single(KeyWrite),
    Part(Vec<KeyWrite>),
}

/// A `bulk_get` of which some keys wait.
struct ReadGroup<T> {
    token: T,
    entries: Vec<Option<Entry>>,
    missing: usize,
}

/// One shard's slice of the keyspace.
pub struct Slice<T> {
    pub(super) table: Table,
    pub(super) keys: InFlightKeys<T>,
    pub(super) writes: Slab<InFlight<T>>,
    groups: Slab<ReadGroup<T>>,
    next_ticket: u64,
    pub(super) applied_index: u64,
    pub(super) output: Output<T>,
    /// In dynamo mode: what was applied here of each other origin.
    pub(super) seen: Option<Seen>,
    pub(super) absent_deletes: AbsentDeletes,
}

impl<T> Slice<T> {
    /// A slice over a table that recovery filled up to `applied_index`.
    pub fn new(table: Table, applied_index: u64) -> Slice<T> {
        Slice {
            table,
            keys: InFlightKeys::new(),
            writes: Slab::new(),
            groups: Slab::new(),
            next_ticket: 0,
            applied_index,
            output: Output::default(),
            seen: None,
            absent_deletes: AbsentDeletes::default(),
        }
    }

    /// The entries.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The last log entry of which this slice applied something.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// What has come out; the caller empties it.
    pub fn output(&mut self) -> &mut Output<T> {
        &mut self.output
    }

    /// A read of one key.
    pub fn get(&mut self, token: T, key: &[u8], hash: u64) {
        let next_ticket = self.next_ticket;
        if let Some(state) = self.keys.get_mut(key, hash) {
            let before = (state.waiting_writes == 0).then_some(next_ticket);
            state.waiters.push_back(Waiter::Read { token, before });
            return;
        }
        let entry = self.table.get(key, hash).cloned();
        self.output.answers.push((token, Answer::Entry(entry)));
    }

    /// A read of several keys, answered together in their order.
    pub fn bulk_get<'a>(&mut self, token: T, keys: impl Iterator<Item = (&'a [u8], u64)>) {
        let group = self.groups.vacant_key();
        let mut entries = Vec::new();
        let mut missing = 0;
        for (position, (key, hash)) in keys.enumerate() {
            if let Some(state) = self.keys.get_mut(key, hash) {
                let before = (state.waiting_writes == 0).then_some(self.next_ticket);
                let position = position as u32;
                state.waiters.push_back(Waiter::GroupRead { group, position, before });
                missing += 1;
                entries.push(None);
            } else {
                entries.push(self.table.get(key, hash).cloned());
            }
        }
        if missing == 0 {
            self.output.answers.push((token, Answer::Entries(entries)));
        } else {
            self.groups.insert(ReadGroup { token, entries, missing });
        }
    }

    /// A single-key write. `key` lies within `arena`.
    pub fn write(
        &mut self,
        token: T,
        arena: &Bytes,
        key: &[u8],
        hash: u64,
        kind: WriteKind,
        condition: Condition,
    ) {
        let state = self.keys.entry(key, hash, || arena.slice_ref(key));
        let behind_a_condition = state.waiting_writes > 0;
        let must_wait_itself = condition != Condition::None && !state.outstanding.is_empty();
        if behind_a_condition || must_wait_itself {
            state.waiters.push_back(Waiter::Write(WaitingWrite { token, kind, condition }));
            state.waiting_writes += 1;
            return;
        }
        let key = state.key.clone();
        let waiting = WaitingWrite { token, kind, condition };
        if !self.decide(waiting, key.clone(), hash) {
            self.keys.forget_if_idle(&key, hash);
        }
    }

    /// A shard's part of a multi-key write: goes to the log at once. The same
    /// key twice: the last one wins. A part that is alone has no others to meet
    /// and keeps its place among the single writes: one that the same connection
    /// sent behind it must not overtake it.
    pub fn write_part(
        &mut self,
        token: T,
        multi: u64,
        parts: u32,
        writes: impl Iterator<Item = (Bytes, u64, WriteKind)>,
    ) {
        let mut kept: Vec<KeyWrite> = Vec::new();
        let mut places: HashMap<Bytes, usize> = HashMap::new();
        for (key, hash, kind) in writes {
            let place = *places.entry(key.clone()).or_insert(kept.len());
            let write = KeyWrite { key, hash, kind, reserved: 0 };
            if place < kept.len() {
                kept[place] = write;
            } else {
                kept.push(write);
            }
        }
        for write in &mut kept {
            write.reserved = self.reserve(&write.key, write.hash, &write.kind);
        }
        let ticket = self.draw_ticket();
        let effects = kept.len();
        let append = &mut self.output.append;
        let mut apart = Vec::new();
        let bytes = if parts == 1 { &mut append.bytes } else { &mut apart };
        if parts == 1 {
            encode_request_header(bytes, effects);
        }
        for write in &kept {
            encode_effect(bytes, &write.effect());
            self.keys.entry(&write.key, write.hash, || write.key.clone()).outstanding.push(ticket);
        }
        let write = self.writes.insert(InFlight { token, ticket, body: Body::Part(kept) }) as u32;
        if parts == 1 {
            append.writes.push(write);
        } else {
            let (write, bytes) = (Some(write), apart);
            append.parts.push(PartAppend { write, multi, parts, effects, bytes, refusal: None });
        }
    }

    /// A write that this shard can't take.
    pub fn refuse(&mut self, token: T, refusal: Error) {
        self.output.answers.push((token, Answer::Refused(refusal)));
    }

    /// A part that this shard can't take: it still has to meet the others, so
    /// that they are let go.
    pub fn refuse_part(&mut self, token: T, multi: u64, parts: u32, refusal: Error) {
        self.output.answers.push((token, Answer::Refused(refusal.clone())));
        if parts > 1 {
            let refusal = Some(refusal);
            let part = PartAppend { write: None, multi, parts, effects: 0, bytes: Vec::new(), refusal };
            self.output.append.parts.push(part);
        }
    }

    /// The log made these writes durable in entry `index`, each with the
    /// ordinal of its request. They are applied in this order.
    pub fn committed(&mut self, index: u64, writes: &[(u32, u32)]) {
        self.committed_as(index, writes, |ordinal| Version { index, ordinal });
    }

    pub(super) fn committed_as(
        &mut self,
        index: u64,
        writes: &[(u32, u32)],
        version: impl Fn(u32) -> Version,
    ) {
        assert!(index >= self.applied_index, "entry {index} after {}", self.applied_index);
        self.applied_index = index;
        for window in writes.chunks(PREFETCH_WINDOW) {
            for &(write, _) in window {
                if let Some(InFlight { body: Body::Single(write), .. }) = self.writes.get(write as usize) {
                    self.table.prefetch(write.hash);
                }
            }
            for &(write, ordinal) in window {
                self.apply(version(ordinal), write);
            }
        }
    }

    fn apply(&mut self, version: Version, write: u32) {
        let InFlight { token, ticket, body } = self.writes.remove(write as usize);
        match body {
            Body::Single(write) => {
                let existed = self.apply_one(version, &write);
                let answer = match write.kind {
                    WriteKind::Delete => Answer::Deleted(existed, version),
                    WriteKind::Set(_) | WriteKind::AddVector(_) => Answer::Written(version),
                };
                self.output.answers.push((token, answer));
                self.settle(&write.key, write.hash, ticket);
            }
            Body::Part(writes) => {
                let existed = writes.iter().filter(|write| self.apply_one(version, write)).count();
                self.output.answers.push((token, Answer::Part { existed, version }));
                for write in &writes {
                    self.settle(&write.key, write.hash, ticket);
                }
            }
        }
    }

    /// Applies one key's write and says whether the key existed before.
    fn apply_one(&mut self, version: Version, write: &KeyWrite) -> bool {
        self.release(write.reserved);
        let effect = write.effect();
        let (old, new) = match self.seen {
            Some(_) => self.merge_own(&effect, write.hash, version),
            None => self.table.update(&write.key, write.hash, |old| applied(&effect, version, old)),
        };
        let existed = old.is_some();
        if existed || new.is_some() {
            self.output.changes.push(Change { old, new });
        }
        existed
    }

    /// These writes did not become durable, or (see the error's outcome) may not have.
    pub fn refused(&mut self, writes: impl Iterator<Item = u32>, error: &Error) {
        for write in writes {
            let InFlight { token, ticket, body } = self.writes.remove(write as usize);
            self.output.answers.push((token, Answer::Refused(error.clone())));
            match body {
                Body::Single(write) => {
                    self.release(write.reserved);
                    self.settle(&write.key, write.hash, ticket);
                }
                Body::Part(writes) => {
                    for write in &writes {
                        self.release(write.reserved);
                        self.settle(&write.key, write.hash, ticket);
                    }
                }
            }
        }
    }

    fn draw_ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        ticket
    }

    /// Looks at a write's condition, which nothing in flight can change any
    /// more, and hands it to the log or refuses it. Says whether it was handed on.
    fn decide(&mut self, waiting: WaitingWrite<T>, key: Bytes, hash: u64) -> bool {
        let WaitingWrite { token, kind, condition } = waiting;
        if condition != Condition::None {
            let current = self.table.get(&key, hash).map(Entry::version);
            if let Some(refusal) = refusal(condition, current) {
                self.output.answers.push((token, Answer::Refused(refusal)));
                return false;
            }
        }
        let ticket = self.draw_ticket();
        let reserved = self.reserve(&key, hash, &kind);
        let write = KeyWrite { key, hash, kind, reserved };
        encode_request_header(&mut self.output.append.bytes, 1);
        encode_effect(&mut self.output.append.bytes, &write.effect());
        self.keys.entry(&write.key, hash, || write.key.clone()).outstanding.push(ticket);
        let number = self.writes.insert(InFlight { token, ticket, body: Body::Single(write) });
        self.output.append.writes.push(number as u32);
        true
    }

    /// A write of this key is settled: those whose time has come go on.
    fn settle(&mut self, key: &Bytes, hash: u64, ticket: u64) {
        if let Some(state) = self.keys.get_mut(key, hash) {
            state.settle(ticket);
        }
        while let Some(waiter) = self.keys.get_mut(key, hash).and_then(KeyState::next_ready) {
            match waiter {
                Waiter::Read { token, .. } => {
                    let entry = self.table.get(key, hash).cloned();
                    self.output.answers.push((token, Answer::Entry(entry)));
                }
                Waiter::GroupRead { group, position, .. } => self.read_for_group(group, position, key, hash),
                Waiter::Write(waiting) => {
                    self.decide(waiting, key.clone(), hash);
                    let next_ticket = self.next_ticket;
                    self.keys.get_mut(key, hash).into_iter().for_each(|state| state.decided(next_ticket));
                }
            }
        }
        self.keys.forget_if_idle(key, hash);
    }

    pub(super) fn read_for_group(&mut self, group: usize, position: u32, key: &[u8], hash: u64) {
        let entry = self.table.get(key, hash).cloned();
        let reading = &mut self.groups[group];
        reading.entries[position as usize] = entry;
        reading.missing -= 1;
        if reading.missing == 0 {
            let ReadGroup { token, entries, .. } = self.groups.remove(group);
            self.output.answers.push((token, Answer::Entries(entries)));
        }
    }

    /// Whether nothing is in flight and nobody waits.
    pub fn is_quiet(&self) -> bool {
        self.writes.is_empty() && self.keys.is_empty() && self.groups.is_empty()
    }
}

impl KeyWrite {
    fn effect(&self) -> Effect<'_> {
        let key = &self.key;
        match &self.kind {
            WriteKind::Delete => Effect::Delete { key },
            WriteKind::Set(value) => Effect::Set { key, value },
            WriteKind::AddVector(vector) => Effect::AddVector { key, vector },
        }
    }
}

/// What an effect makes of a key's entry (`None`: the key is absent).
pub(super) fn applied(effect: &Effect<'_>, version: Version, old: Option<&Entry>) -> Option<Entry> {
    match *effect {
        Effect::Delete { .. } => None,
        Effect::Set { key, value } => Some(match old {
            Some(old) => old.with_value(version, value),
            None => Entry::new(version, key, Some(value), None),
        }),
        Effect::AddVector { key, vector } => {
            let value = old.and_then(Entry::value);
            Some(Entry::with_little_endian_vector(version, key, value, vector))
        }
    }
}

/// Puts one effect of the log into a table during recovery, unless the key
/// already has a write at or behind this version (a snapshot may be ahead of
/// the log's earlier entries).
pub fn replay(table: &mut Table, version: Version, effect: &Effect<'_>, hash: u64) {
    table.update(effect.key(), hash, |old| match old {
        Some(later) if later.version() >= version => Some(later.clone()),
        old => applied(effect, version, old),
    });
}
