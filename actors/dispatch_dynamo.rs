//! Requests as dynamo mode has them: what they wait for before they are dispatched, how
//! many members shall have a write, or say what they have of a key.
//!
//! | request | waits for |
//! |---|---|
//! | unconditional write | nothing; with `w` its answer waits for copies |
//! | conditional write | `unsupported_in_mode`: another node may be writing the key |
//! | read | nothing; with `after_version` for that write |
//! | read, `linearizable` or `max_staleness_ms` | `unsupported_in_mode` |

use bytes::Bytes;
use datastore::engine::Condition;
use datastore::error::{Code, Error};
use datastore::messaging::{Asks, Consistency, Copies, Operation, Span, reply};
use datastore::query::{CopiedReply, Gathering, NextStage, conflicts_body};

use crate::connection::Connection;
use crate::converging_messages::ConvergingMessage;
use crate::dispatch::Refusal;
use crate::freshness::Freshness;
use crate::shard_messages::ShardOperation;
use crate::wal_writer::WalMessage;

/// What this request waits for.
pub(crate) fn freshness(operation: &Operation, asks: Option<&Asks>) -> Freshness {
    let unsupported = |message: &str| Freshness::Refused(Error::new(Code::UnsupportedInMode, message));
    match operation {
        Operation::Set { condition, .. }
        | Operation::AddVector { condition, .. }
        | Operation::Delete { condition, .. }
            if *condition != Condition::None =>
        {
            unsupported("`if_version` and `if_absent` need one node that decides: --mode leader has it")
        }
        Operation::Get { consistency, .. }
        | Operation::GetVector { consistency, .. }
        | Operation::BulkGet { consistency, .. }
        | Operation::SearchByValue { consistency, .. }
        | Operation::SearchText { consistency, .. }
        | Operation::VectorSearch { consistency, .. }
        | Operation::Scan { consistency, .. }
        | Operation::Count { consistency, .. }
            if !matches!(consistency, Consistency::Default | Consistency::Local) =>
        {
            unsupported(
                "in dynamo mode reads are `local`; `after_version` waits for a write, `r` asks several nodes",
            )
        }
        _ => asks.and_then(|asks| asks.after_version).map_or(Freshness::AsItIs, Freshness::Version),
    }
}

impl Connection {
    /// What the request in this slot asks for beyond its operation.
    fn asks(&mut self, sequence: u64) -> Option<Asks> {
        self.slot(sequence).and_then(|slot| slot.asks.as_deref().cloned())
    }

    /// How many copies this write's answer waits for; none, where its own is enough.
    pub(crate) fn copies_wanted(&mut self, sequence: u64) -> Result<Option<Copies>, Error> {
        let wanted = self.asks(sequence).and_then(|asks| asks.copies);
        self.check_copies("w", wanted)?;
        Ok(wanted.filter(|wanted| *wanted != Copies::Count(1)))
    }

    /// How many members are to say what they have of this key.
    pub(crate) fn read_copies_wanted(&mut self, sequence: u64) -> Result<Option<Copies>, Error> {
        let wanted = self.asks(sequence).and_then(|asks| asks.read_copies);
        self.check_copies("r", wanted)?;
        Ok(wanted.filter(|wanted| *wanted != Copies::Count(1)))
    }

    /// More copies than there are members never come.
    fn check_copies(&self, field: &str, wanted: Option<Copies>) -> Refusal {
        let (Some(Copies::Count(count)), Some(cluster)) = (wanted, &self.node.dynamo) else { return Ok(()) };
        let members = cluster.members().node_ids().len();
        if count <= members {
            return Ok(());
        }
        let message = format!("`{field}` is {count}, and the cluster has {members} members");
        Err(Error::new(Code::BadRequest, message))
    }

    /// A single-key write whose answer waits for copies.
    pub(crate) fn copied_write(
        &mut self,
        sequence: u64,
        id: Span,
        hash: u64,
        operation: ShardOperation,
    ) -> Refusal {
        let reply = match operation {
            ShardOperation::Delete { .. } => CopiedReply::Deleted,
            _ => CopiedReply::Written,
        };
        let operation = ShardOperation::Awaited(Box::new(operation));
        self.gather_one_shard(sequence, id, hash, operation, Gathering::copied(reply, 1))
    }

    /// A `get` that asks several members, once this node has applied what this connection wrote.
    pub(crate) fn copies_read(
        &mut self,
        arena: &Bytes,
        sequence: u64,
        id: Span,
        hash: u64,
        key: Span,
    ) -> Refusal {
        // It goes to the peers' lanes, which may keep it for longer than the request lives.
        let gathering = Gathering::read(Bytes::copy_from_slice(key.of(arena)));
        let operation = ShardOperation::BulkGet { keys: vec![(key, hash)] };
        self.gather_one_shard(sequence, id, hash, operation, gathering)
    }

    /// A gathering goes on: with a second question to the shards, or with members' copies.
    pub(crate) fn ask_copies(&mut self, sequence: u64, stage: NextStage) {
        let asked_by = (self.address.clone(), sequence);
        let message = match stage {
            NextStage::Query(query) => return self.search(sequence, query),
            NextStage::Copies(version) => {
                let wanted = self.asks(sequence).and_then(|asks| asks.copies).unwrap_or(Copies::Count(1));
                ConvergingMessage::AwaitCopies { version, wanted, asked_by }
            }
            NextStage::Key(key) => {
                let wanted =
                    self.asks(sequence).and_then(|asks| asks.read_copies).unwrap_or(Copies::Count(1));
                ConvergingMessage::ReadCopies { key, wanted, asked_by }
            }
        };
        self.cast.wal_writer.send(WalMessage::Converging(message));
    }

    /// `conflicts`: the races that were lost last.
    pub(crate) fn conflicts(&mut self, sequence: u64, limit: usize, after: Option<&[u8]>) -> Refusal {
        let Some(cluster) = self.node.dynamo.clone() else {
            return Err(Error::new(Code::UnsupportedInMode, "`conflicts` belongs to --mode dynamo"));
        };
        let before = match after {
            None => u64::MAX,
            Some(cursor) => std::str::from_utf8(cursor)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| Error::new(Code::BadRequest, "`after` is no cursor of `conflicts`"))?,
        };
        // One more shows whether there are more.
        let found = cluster.conflicts(before, limit.saturating_add(1));
        let rows = found.iter().map(|seen| (seen.number, &seen.conflict, seen.seen_at_ms));
        let body = conflicts_body(rows, limit);
        self.answer_now(sequence, |line, id| reply::object(line, id, body.as_bytes()));
        Ok(())
    }

    /// `evict`: a member is gone for good.
    pub(crate) fn evict(&mut self, sequence: u64, node_id: u64) -> Refusal {
        if self.node.dynamo.is_none() {
            return Err(Error::new(
                Code::UnsupportedInMode,
                "`evict` belongs to --mode dynamo; there is `remove_member`",
            ));
        }
        self.barrier_dispatched(sequence);
        let asked_by = (self.address.clone(), sequence);
        self.cast.wal_writer.send(WalMessage::Converging(ConvergingMessage::Evict { node_id, asked_by }));
        Ok(())
    }
}
