//! Which actor answers which request.

use std::sync::Arc;

use bytes::Bytes;
use datastore::address;
use datastore::error::{Code, Error};
use datastore::indexing::Kinds;
use datastore::messaging::{Operation, ScanRequest, Span, reply};
use datastore::persistence::Member;
use datastore::query::{
    CopiedReply, Gathering, Query, ScanQuery, TextQuery, ValueQuery, VectorQuery, cluster_body,
    decode_key_cursor, hello_body,
};

use crate::awaited::Awaited;
use crate::connection::Connection;
use crate::connection_turns::{part_work, permit_bytes};
use crate::index_manager::IndexMessage;
use crate::replication_messages::Wish;
use crate::shard_messages::{Batch, Search, ShardMessage, ShardOperation, ShardRequest};
use crate::slot::SlotState;
use crate::snapshot_writer::SnapshotMessage;
use crate::standing::standing;
use crate::stats;
use crate::wal_writer::WalMessage;

pub(crate) type Refusal = Result<(), Error>;

impl Connection {
    /// Hands a request to those who answer it, or answers it.
    pub(crate) fn dispatch(&mut self, arena: &Bytes, sequence: u64, id: Span, operation: Operation) {
        self.turns.dispatched(&operation);
        if let Err(error) = self.route(arena, sequence, id, operation) {
            self.answer_now(sequence, |line, id| reply::error(line, id, &error));
        }
    }

    fn route(&mut self, arena: &Bytes, sequence: u64, id: Span, operation: Operation) -> Refusal {
        let hash = |key: &Span| self.node.placement.hash(key.of(arena));
        match operation {
            Operation::Get { key, .. } => {
                let hash = hash(&key);
                if self.read_copies_wanted(sequence)?.is_some() {
                    return self.copies_read(arena, sequence, id, hash, key);
                }
                self.ask_one_shard(sequence, id, hash, ShardOperation::Get { key, hash })
            }
            Operation::GetVector { key, .. } => {
                let hash = hash(&key);
                self.ask_one_shard(sequence, id, hash, ShardOperation::GetVector { key, hash })
            }
            Operation::Set { key, value, condition } => {
                let hash = hash(&key);
                self.ask_for_write(sequence, id, hash, ShardOperation::Set { key, hash, value, condition })
            }
            Operation::AddVector { key, vector, condition } => {
                let hash = hash(&key);
                let operation = ShardOperation::AddVector { key, hash, vector, condition };
                self.ask_for_write(sequence, id, hash, operation)
            }
            Operation::Delete { key, condition } => {
                let hash = hash(&key);
                self.ask_for_write(sequence, id, hash, ShardOperation::Delete { key, hash, condition })
            }
            Operation::BulkGet { keys, .. } => self.bulk_get(arena, sequence, id, &keys),
            Operation::BulkSet { records } => {
                let writes = records.into_iter().map(|(key, value)| (key, Some(value)));
                self.bulk_write(arena, sequence, id, writes, true)
            }
            Operation::BulkDelete { keys } => {
                let writes = keys.into_iter().map(|key| (key, None));
                self.bulk_write(arena, sequence, id, writes, false)
            }
            Operation::SearchByValue { value, page, .. } => {
                self.needs_index(|kinds| kinds.value, "value")?;
                let after = page.after.map(|after| key_cursor(arena, after)).transpose()?;
                let prefix = prefix_of(arena, page.prefix);
                let (hash_key, json) = (self.cast.index_hash_key, value.slice(arena));
                let query = ValueQuery::new(hash_key, json, prefix, after, page.limit);
                self.ask_indexes(sequence, Query::Value(query))
            }
            Operation::SearchText { query, matching, page, .. } => {
                self.needs_index(|kinds| kinds.text, "text")?;
                let prefix = prefix_of(arena, page.prefix);
                let query = TextQuery::new(query.slice(arena), matching, prefix, page.limit);
                let query = match page.after {
                    Some(after) => query.behind(&after.slice(arena))?,
                    None => query,
                };
                self.ask_indexes(sequence, Query::text(query, self.node.settings.shards))
            }
            Operation::VectorSearch { vector, top_k, prefix, .. } => {
                self.needs_index(|kinds| kinds.vector, "vector")?;
                let prefix = prefix_of(arena, prefix);
                let vector = bytes_to_numbers(vector.of(arena));
                self.ask_indexes(sequence, Query::Vector(VectorQuery { vector, top_k, prefix }))
            }
            Operation::Scan { range, .. } => self.scan(arena, sequence, &range),
            Operation::Count { prefix: Some(prefix), .. } if !prefix.is_empty() => {
                self.needs_index(|kinds| kinds.order, "order")?;
                self.ask_indexes(sequence, Query::Count(prefix.slice(arena)))
            }
            Operation::Count { .. } => self.count_all(sequence, id),
            Operation::Snapshot => {
                self.begin_gathering(sequence, Gathering::snapshot());
                let asked_by = Some((self.address.clone(), sequence));
                self.cast.snapshot_writer.send(SnapshotMessage::Make { asked_by });
                Ok(())
            }
            other => self.answer_here(arena, sequence, other),
        }
    }

    fn answer_here(&mut self, arena: &Bytes, sequence: u64, operation: Operation) -> Refusal {
        let node = self.node.clone();
        let settings = &node.settings;
        match operation {
            Operation::Ping => self.answer_now(sequence, reply::pong),
            Operation::Hello => {
                let body = hello_body(settings, env!("CARGO_PKG_VERSION"), &standing(&node, self.reached));
                self.answer_now(sequence, |line, id| reply::object(line, id, body.as_bytes()));
            }
            Operation::Cluster => {
                let body = cluster_body(settings, &standing(&node, self.reached));
                self.answer_now(sequence, |line, id| reply::object(line, id, body.as_bytes()));
            }
            Operation::Promote { node_id, force } => return self.promote(sequence, node_id, force),
            Operation::AddMember { node_id, host, port } => {
                let host = address::reachable_host(&String::from_utf8_lossy(host.of(arena)));
                let host =
                    host.map_err(|reason| Error::new(Code::BadRequest, format!("`host`: {reason}")))?;
                return self.change(sequence, Wish::Add(Member { node_id, host, port, node: None }));
            }
            Operation::RemoveMember { node_id } => return self.change(sequence, Wish::Remove(node_id)),
            Operation::Stats { section } => {
                let section = section.map(|section| String::from_utf8_lossy(section.of(arena)).into_owned());
                if let Some(name) = section.as_deref().filter(|name| !stats::SECTIONS.contains(name)) {
                    let known = stats::SECTIONS.join(", ");
                    let message =
                        format!("stats: no section {name:?}; the field section wants one of {known}");
                    return Err(Error::new(Code::BadRequest, message));
                }
                let body = serde_json::Value::Object(stats::stats(&node, self.reached, section.as_deref()))
                    .to_string();
                self.answer_now(sequence, |line, id| reply::object(line, id, body.as_bytes()));
            }
            Operation::Conflicts { limit, after } => {
                let after = after.map(|after| after.of(arena));
                return self.conflicts(sequence, limit, after);
            }
            Operation::Evict { node_id } => return self.evict(sequence, node_id),
            _ => {
                let message = "this operation is answered elsewhere";
                return Err(Error::new(Code::Internal, message));
            }
        }
        Ok(())
    }

    fn needs_index(&self, has: impl Fn(&Kinds) -> bool, name: &str) -> Refusal {
        if has(&self.node.settings.indexes) {
            return Ok(());
        }
        let message = format!("this needs the {name} index, and --indexes is {}", self.node.settings.indexes);
        Err(Error::new(Code::IndexDisabled, message))
    }

    fn overloaded(what: &str) -> Error {
        Error::overloaded(format!("{what} has as many messages waiting as it may hold"))
    }

    fn ask_for_write(&mut self, sequence: u64, id: Span, hash: u64, operation: ShardOperation) -> Refusal {
        match self.copies_wanted(sequence)? {
            Some(_) => self.copied_write(sequence, id, hash, operation),
            None => self.ask_one_shard(sequence, id, hash, operation),
        }
    }

    /// Puts a request among those that go to a shard. A write holds its permit from here on.
    fn add_outgoing(&mut self, shard: usize, sequence: u64, id: Span, operation: ShardOperation) {
        let permit = self.let_in(shard, &operation);
        self.outgoing[shard].push(ShardRequest { sequence, id, operation, permit });
    }

    /// As [`Connection::ask_one_shard`], and others are asked when it has answered.
    pub(crate) fn gather_one_shard(
        &mut self,
        sequence: u64,
        id: Span,
        hash: u64,
        operation: ShardOperation,
        gathering: Gathering,
    ) -> Refusal {
        let shard = self.node.placement.shard(hash);
        if !self.cast.shards[shard].has_room() {
            return Err(Self::overloaded("the shard"));
        }
        self.begin_gathering(sequence, gathering);
        self.add_outgoing(shard, sequence, id, operation);
        Ok(())
    }

    fn ask_one_shard(&mut self, sequence: u64, id: Span, hash: u64, operation: ShardOperation) -> Refusal {
        let shard = self.node.placement.shard(hash);
        if self.outgoing[shard].is_empty() && !self.cast.shards[shard].has_room() {
            return Err(Self::overloaded("the shard"));
        }
        self.barrier_dispatched(sequence);
        self.add_outgoing(shard, sequence, id, operation);
        Ok(())
    }

    /// The request is on its way: its slot waits, and the barrier knows.
    pub(crate) fn barrier_dispatched(&mut self, sequence: u64) {
        let Some(slot) = self.slot(sequence) else { return };
        slot.state = SlotState::Waiting;
        let class = slot.class;
        self.barrier.dispatched(class);
    }

    pub(crate) fn begin_gathering(&mut self, sequence: u64, gathering: Gathering) {
        self.barrier_dispatched(sequence);
        self.gatherings += 1;
        if let Some(slot) = self.slot(sequence) {
            slot.state = SlotState::Gathering(Box::new(gathering));
        }
    }

    /// Sends each shard what gathered for it, in one message.
    pub(crate) fn send_outgoing(&mut self, arena: &Bytes) {
        for (shard, requests) in self.outgoing.iter_mut().enumerate() {
            if !requests.is_empty() {
                let (arena, requests) = (arena.clone(), std::mem::take(requests));
                let reply_to = self.address.clone();
                self.cast.shards[shard].send(ShardMessage::Batch(Batch { arena, requests, reply_to }));
            }
        }
    }

    fn bulk_get(&mut self, arena: &Bytes, sequence: u64, id: Span, keys: &[Span]) -> Refusal {
        let shards = self.node.settings.shards;
        let mut per_shard: Vec<Vec<(Span, u64)>> = vec![Vec::new(); shards];
        let mut shard_of_key = Vec::with_capacity(keys.len());
        for &key in keys {
            let hash = self.node.placement.hash(key.of(arena));
            let shard = self.node.placement.shard(hash);
            per_shard[shard].push((key, hash));
            shard_of_key.push(shard as u16);
        }
        let touched = per_shard.iter().filter(|keys| !keys.is_empty()).count();
        let asked = keys.iter().map(|key| key.slice(arena)).collect();
        self.begin_gathering(sequence, Gathering::bulk_get(asked, shard_of_key, shards, touched));
        for (shard, keys) in per_shard.into_iter().enumerate().filter(|(_, keys)| !keys.is_empty()) {
            self.add_outgoing(shard, sequence, id, ShardOperation::BulkGet { keys });
        }
        self.gather(sequence, |_| {}); // nothing was asked for: ready at once
        Ok(())
    }

    fn bulk_write(
        &mut self,
        arena: &Bytes,
        sequence: u64,
        id: Span,
        writes: impl Iterator<Item = (Span, Option<Span>)>,
        set: bool,
    ) -> Refusal {
        let shards = self.node.settings.shards;
        let mut per_shard: Vec<Vec<(Span, u64, Option<Span>)>> = vec![Vec::new(); shards];
        for (key, value) in writes {
            let hash = self.node.placement.hash(key.of(arena));
            per_shard[self.node.placement.shard(hash)].push((key, hash, value));
        }
        let touched = per_shard.iter().filter(|writes| !writes.is_empty()).count();
        let count = per_shard.iter().map(Vec::len).sum();
        let full =
            |(shard, writes): (usize, &Vec<_>)| !writes.is_empty() && !self.cast.shards[shard].has_room();
        if per_shard.iter().enumerate().any(full) {
            return Err(Self::overloaded("a shard"));
        }
        let gathering = match (self.copies_wanted(sequence)?, set) {
            (None, true) => Gathering::bulk_set(count, touched),
            (None, false) => Gathering::bulk_delete(touched),
            (Some(_), true) => Gathering::copied(CopiedReply::BulkSet(count), touched),
            (Some(_), false) => Gathering::copied(CopiedReply::BulkDelete, touched),
        };
        self.begin_gathering(sequence, gathering);
        let multi = self.node.next_multi();
        let whole_bytes = per_shard.iter().map(|writes| permit_bytes(part_work(writes))).sum();
        if touched > 1 {
            let reply_to = self.address.clone();
            self.cast.wal_writer.send(WalMessage::Expect { multi, reply_to });
        } else {
            self.barrier.met();
        }
        for (shard, writes) in per_shard.into_iter().enumerate().filter(|(_, writes)| !writes.is_empty()) {
            let operation = ShardOperation::Part { multi, parts: touched as u32, writes, whole_bytes };
            self.add_outgoing(shard, sequence, id, operation);
        }
        self.gather(sequence, |_| {}); // an empty bulk is ready at once
        Ok(())
    }

    fn scan(&mut self, arena: &Bytes, sequence: u64, range: &ScanRequest) -> Refusal {
        self.needs_index(|kinds| kinds.order, "order")?;
        let bytes = |span: Option<Span>| span.map(|span| span.slice(arena));
        let after = range.after.map(|after| key_cursor(arena, after)).transpose()?;
        let query = Query::Scan(ScanQuery {
            prefix: bytes(range.prefix),
            start: bytes(range.start),
            end: bytes(range.end),
            after,
            reverse: range.reverse,
            limit: range.limit,
            values: range.values,
            vectors: range.vectors,
        });
        self.ask_indexes(sequence, query)
    }

    fn count_all(&mut self, sequence: u64, id: Span) -> Refusal {
        self.begin_gathering(sequence, Gathering::count(self.node.settings.shards));
        for shard in 0..self.node.settings.shards {
            self.add_outgoing(shard, sequence, id, ShardOperation::Count);
        }
        Ok(())
    }

    fn ask_indexes(&mut self, sequence: u64, query: Query) -> Refusal {
        if !self.cast.index_managers.iter().all(|indexes| indexes.has_room()) {
            return Err(Self::overloaded("an index manager"));
        }
        self.begin_gathering(sequence, Gathering::search(&query, self.node.settings.shards));
        self.search(sequence, query);
        Ok(())
    }

    /// Asks every IndexManager. On a member by way of the shards: entries that a
    /// round has waited for are on their way through them.
    pub(crate) fn search(&mut self, sequence: u64, query: Query) {
        let Some(arrived) = self.slot(sequence).map(|slot| slot.arrived) else { return };
        let awaited = Awaited::new(&self.asker, arrived, self.node.settings.request_timeout_ms);
        let query = Arc::new(query);
        let search = |this: &Connection| Search {
            sequence,
            query: query.clone(),
            reply_to: this.address.clone(),
            awaited: awaited.clone(),
        };
        if self.node.cluster.is_some() || self.node.dynamo.is_some() {
            for shard in &self.cast.shards {
                shard.send(ShardMessage::Search(search(self)));
            }
            return;
        }
        for indexes in &self.cast.index_managers {
            indexes.send(IndexMessage::Search(search(self)));
        }
    }
}

/// A vector as the decoder left it in the arena.
fn bytes_to_numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Every key begins with an empty prefix.
fn prefix_of(arena: &Bytes, prefix: Option<Span>) -> Option<Bytes> {
    prefix.filter(|prefix| !prefix.is_empty()).map(|prefix| prefix.slice(arena))
}

fn key_cursor(arena: &Bytes, after: Span) -> Result<Bytes, Error> {
    decode_key_cursor(after.of(arena)).map(|key| arena.slice_ref(key))
}
