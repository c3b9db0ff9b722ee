//! What clients wait for in dynamo mode: copies of a write, a write of another node's,
//! the newest of several copies of a key, and a member that goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use datastore::engine::{Entry, Placement, SameVersion, Seen, Slice, Table, Version};
use datastore::error::{Code, Detail, Error};
use datastore::messaging::Copies;
use datastore::messaging::peer_frame_converging::Converging;
use datastore::replication::dynamo::entry::states;
use datastore::replication::dynamo::{Origin, Question, Questions, Replica, WriteWaiters};
use datastore::replication::message::NodeId;

use crate::Cast;
use crate::connection::{Connection, ConnectionMessage};
use crate::dynamo_cluster::DynamoCluster;
use crate::mailbox::Mailbox;
use crate::node::Node;
use crate::replication_messages::PeerMessage;
use crate::shard_messages::ShardMessage;

type AskedBy = (Mailbox<Connection>, u64);

/// Questions that wait for an answer.
pub(crate) struct Asks {
    cluster: Arc<DynamoCluster>,
    patience: Duration,
    /// Writes that so many members are to have.
    copies: WriteWaiters<Instant, AskedBy>,
    /// Writes that this node is to have, and the connections' names for the questions.
    versions: WriteWaiters<Instant, (Mailbox<Connection>, u64)>,
    /// `get`s that ask several members.
    reads: Questions<(AskedBy, Instant)>,
    evictions: Vec<(NodeId, AskedBy)>,
}

/// How many members these are.
fn counted(replica: &Replica, wanted: Copies) -> usize {
    let members = replica.members().node_ids().len();
    match wanted {
        Copies::Count(count) => count,
        Copies::Majority => members / 2 + 1,
        Copies::All => members,
    }
}

impl Asks {
    pub(crate) fn new(cluster: Arc<DynamoCluster>, request_timeout_ms: u64) -> Asks {
        Asks {
            reads: Questions::new(cluster.boot),
            cluster,
            // The request's own time would be over without a word of what was reached.
            patience: Duration::from_millis(request_timeout_ms / 2),
            copies: WriteWaiters::default(),
            versions: WriteWaiters::default(),
            evictions: Vec::new(),
        }
    }

    /// What those who wait occupy, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.reads.memory_bytes()
            + self.copies.memory_bytes()
            + self.versions.memory_bytes()
            + self.evictions.capacity() * size_of::<(NodeId, AskedBy)>()
    }

    fn until(&self) -> Instant {
        Instant::now() + self.patience
    }

    pub(crate) fn await_copies(
        &mut self,
        replica: &Replica,
        version: Version,
        wanted: Copies,
        asked_by: AskedBy,
    ) {
        let wanted = counted(replica, wanted);
        if replica.copies(version) >= wanted {
            let (connection, sequence) = asked_by;
            return connection.send(ConnectionMessage::Copied { sequence, outcome: Ok(()) });
        }
        self.copies.push(wanted, version, self.until(), asked_by);
    }

    pub(crate) fn await_version(
        &mut self,
        replica: &Replica,
        version: Version,
        reply_to: Mailbox<Connection>,
        round: u64,
    ) {
        if replica.vector().has(version) {
            return reply_to.send(ConnectionMessage::ReadReady { round, ready: Ok(()) });
        }
        self.versions.push(1, version, self.until(), (reply_to, round));
    }

    /// Asks this node's shard and all peers; those that answer first count.
    pub(crate) fn read_copies(
        &mut self,
        replica: &Replica,
        (node, cast): (&Arc<Node>, &Arc<Cast>),
        key: &Bytes,
        wanted: Copies,
        asked_by: AskedBy,
    ) {
        let peers = cast.peers.all_by_id();
        let asked = peers.iter().map(|(id, _)| *id).chain([self.cluster.place.node_id]);
        let asker = (asked_by, self.until());
        let number = self.reads.ask(key.clone(), counted(replica, wanted), asked, asker);
        let hash = node.placement.hash(key);
        let shard = node.placement.shard(hash);
        cast.shards[shard].send(ShardMessage::KeyWanted { key: key.clone(), hash, number, from: None });
        for (_, peer) in peers {
            peer.send(PeerMessage::Converging(Converging::KeyWanted { number, key: key.clone() }));
        }
    }

    /// A member's answer; this node's own is one, too.
    pub(crate) fn key_state(&mut self, from: NodeId, number: u64, state: Bytes) {
        if let Some(question) = self.reads.answered(from, number, state) {
            let entry = Ok(newest(&question.key, &question.came));
            let ((connection, sequence), _) = question.asker;
            connection.send(ConnectionMessage::CopiesRead { sequence, entry });
        }
    }

    pub(crate) fn evict(&mut self, replica: &mut Replica, node_id: NodeId, asked_by: AskedBy, now_ms: u64) {
        let refuse = |message: String| {
            let (connection, sequence) = &asked_by;
            let outcome = Err(Error::new(Code::BadRequest, message));
            connection.send(ConnectionMessage::MembersChanged { sequence: *sequence, outcome });
        };
        if node_id == self.cluster.place.node_id {
            return refuse(format!("`node_id` {node_id} is this node: ask another one to evict it"));
        }
        if replica.members().member(node_id).is_none() {
            let members = replica.members().node_ids();
            return refuse(format!("`node_id` {node_id} is no member; the members are {members:?}"));
        }
        // A member of an earlier version can't read a report, and takes nothing that this node writes behind one.
        let earlier: Vec<NodeId> =
            replica.earlier_versions().into_iter().filter(|member| *member != node_id).collect();
        if !earlier.is_empty() {
            return refuse(format!(
                "members {earlier:?} run an earlier version, which can't read what all members have to say of an \
                 evicted one: nothing was changed. Start them with this version first, and without --peer-protocol"
            ));
        }
        tracing::warn!(
            node_id,
            "evicting a node: it counts no more, and returns only with an empty directory"
        );
        replica.evict(node_id, now_ms);
        self.evictions.push((node_id, asked_by));
    }

    /// Answers what can be answered now.
    pub(crate) fn settle(&mut self, replica: &Replica) {
        self.settle_copies(replica);
        self.settle_versions(replica);
        self.evictions.retain(|(node_id, (connection, sequence))| {
            let is_gone = replica.members().member(*node_id).is_none();
            if is_gone {
                connection.send(ConnectionMessage::MembersChanged { sequence: *sequence, outcome: Ok(()) });
            }
            !is_gone
        });
    }

    /// Answers those that have waited for too long.
    pub(crate) fn settle_late(&mut self, replica: &Replica) {
        self.settle(replica);
        let now = Instant::now();
        self.give_up_late(replica, now);
        for Question { came, wanted, asker, .. } in self.reads.given_up(|(_, until)| now >= *until) {
            let ((connection, sequence), _) = asker;
            let entry = Err(too_few_answered(came.len(), wanted));
            connection.send(ConnectionMessage::CopiesRead { sequence, entry });
        }
    }

    fn settle_copies(&mut self, replica: &Replica) {
        for (connection, sequence) in
            self.copies.ready(origins(replica), |version, wanted| replica.copies(version) >= wanted)
        {
            connection.send(ConnectionMessage::Copied { sequence, outcome: Ok(()) });
        }
    }

    fn settle_versions(&mut self, replica: &Replica) {
        for (connection, round) in
            self.versions.ready(origins(replica), |version, _| replica.vector().has(version))
        {
            connection.send(ConnectionMessage::ReadReady { round, ready: Ok(()) });
        }
    }

    fn give_up_late(&mut self, replica: &Replica, now: Instant) {
        for (wanted, version, (connection, sequence)) in self.copies.late(now) {
            let copies = replica.copies(version);
            let message = format!(
                "the write is on {copies} disks and was to be on {wanted}; it stays, and goes on spreading"
            );
            let error =
                Error::new(Code::ReplicationTimeout, message).with_detail(Detail::Acknowledged(copies));
            connection.send(ConnectionMessage::Copied { sequence, outcome: Err(error) });
        }
        for (_, version, (connection, round)) in self.versions.late(now) {
            let error = Error::new(Code::TooStale, format!("the write of version {version} is not here yet"));
            connection.send(ConnectionMessage::ReadReady { round, ready: Err(error) });
        }
    }
}

/// Of whose writes this node has some.
fn origins(replica: &Replica) -> impl Iterator<Item = Origin> {
    replica.vector().rows().iter().map(|row| row.origin)
}

fn too_few_answered(came: usize, wanted: usize) -> Error {
    let message = format!("{came} members have said what they have of the key, and `r` wants {wanted}");
    Error::new(Code::TooStale, message)
}

/// The state of a key that its copies, merged, come to.
fn newest(key: &[u8], copies: &[Bytes]) -> Option<Entry> {
    let placement = Placement::new((0, 0), 1);
    let mut slice: Slice<()> = Slice::new(Table::new(placement, 0).with_tombstones(), 0);
    slice.converge(Seen::default());
    for copy in copies {
        // A copy that can't be read was counted for none.
        let entries = states(copy.clone()).flatten().map(|entry| {
            let hash = placement.hash(entry.key());
            (entry, hash)
        });
        slice.merge_states(0, entries, SameVersion::Greater, &Seen::default());
    }
    slice.table().get(key, placement.hash(key)).cloned()
}
