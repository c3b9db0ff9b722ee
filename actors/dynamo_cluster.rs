//! What the actors of a node of dynamo mode share: who else there is, what of it was
//! heard, and what the node may tell of itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use datastore::address::is_everywhere;
use datastore::engine::Conflict;
use datastore::error::{Code, Error, LeaderAddress};
use datastore::limits;
use datastore::persistence::NodeUuid;
use datastore::replication::dynamo::{
    Ahead, Fork, MemberView, Members, Place, Skew, Stability, VersionVector,
};
use datastore::replication::message::NodeId;
use datastore::settings::Peer;

use crate::dynamo_alarms;
use crate::mailbox::lock;
use crate::node::Permits;
use crate::peer_links::PeerLinks;
use crate::refusals::Refusals;

/// Shared by every actor of a node of dynamo mode.
pub struct DynamoCluster {
    /// This node, its directory and where it listens.
    pub place: Place,
    /// Drawn at the start of the process: tells two processes of one directory apart.
    pub boot: u64,
    /// The versions of the peers' protocol that it speaks, lowest and highest.
    pub protocol: (u32, u32),
    /// Where clients are told that this node is.
    pub advertise: Option<(String, u16)>,
    /// Where the others are, by this node's own flags.
    named: Vec<Peer>,
    /// What is added to the system's clock, to test what a wrong one does.
    clock_offset_ms: i64,
    view: Mutex<DynamoView>,
    /// Where peers have said they are, when they came here last.
    said: Mutex<BTreeMap<NodeId, (String, u16)>>,
    /// When something was last heard of each peer.
    heard: Mutex<BTreeMap<NodeId, Instant>>,
    /// Lost races, the newest last.
    conflicts: Mutex<ConflictLog>,
    /// What a snapshot says of its S.
    pub(crate) snapshot_state: Mutex<Vec<u8>>,
    /// This node takes no writes: its clock is wrong.
    pub is_clock_wrong: AtomicBool,
    /// This directory has lost entries, and no peer was heard since.
    pub awaits_contact: AtomicBool,
    /// This node was evicted.
    pub is_evicted: AtomicBool,
    /// This directory has more of an evicted node's writes than counts.
    pub has_excess: AtomicBool,
    /// Why peers don't let this node in.
    pub(crate) refusals: Refusals,
    /// It has never had a key.
    pub is_new: AtomicBool,
    /// The last entry handed to the shards.
    pub applied_index: AtomicU64,
    /// Entries on their way to this node's disk, in bytes.
    pub persisting_bytes: Arc<AtomicUsize>,
    /// How often the state of a peer that had had the same writes was another one.
    pub state_differences: AtomicU64,
    /// How often those of all in contact were the same.
    pub states_equal: AtomicU64,
    /// Keys' states taken over from peers, to repair or to catch up.
    pub states_taken: AtomicU64,
    /// Tombstones that were collected.
    pub tombstones_collected: AtomicU64,
    /// What the sockets to and from the peers share.
    pub(crate) links: PeerLinks,
}

/// How this node sees its cluster.
#[derive(Clone, Debug, Default)]
pub struct DynamoView {
    /// Everyone.
    pub members: Members,
    /// The other members.
    pub peers: Vec<MemberView>,
    /// What is on this node's disk.
    pub vector: VersionVector,
    /// Which deletes may be forgotten, and who holds the others back.
    pub stability: Stability,
    /// Numbers and directories that only a peer takes for members'.
    pub unknown_members: Vec<(NodeId, NodeUuid)>,
    /// How this node's clock stands.
    pub skew: Skew,
    /// Streams that two nodes have otherwise.
    pub forks: Vec<Fork>,
    /// Whose stamps are ahead of time.
    pub ahead: Vec<Ahead>,
}

/// A lost race, and when it was seen here.
#[derive(Clone, Debug)]
pub struct SeenConflict {
    /// Counts from 1.
    pub number: u64,
    /// Which writes.
    pub conflict: Conflict,
    /// Milliseconds since 1970.
    pub seen_at_ms: u64,
}

/// The last lost races.
#[derive(Default)]
struct ConflictLog {
    /// How many there were.
    count: u64,
    kept: VecDeque<(SeenConflict, usize)>,
    bytes: usize,
}

impl DynamoCluster {
    /// A node that has just started.
    pub(crate) fn new(
        place: Place,
        (boot, protocol): (u64, (u32, u32)),
        (named, advertise): (Vec<Peer>, Option<(String, u16)>),
        clock_offset_ms: i64,
    ) -> DynamoCluster {
        DynamoCluster {
            place,
            boot,
            protocol,
            advertise,
            named,
            clock_offset_ms,
            view: Mutex::default(),
            said: Mutex::default(),
            heard: Mutex::default(),
            conflicts: Mutex::default(),
            snapshot_state: Mutex::default(),
            is_clock_wrong: AtomicBool::new(false),
            awaits_contact: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            has_excess: AtomicBool::new(false),
            refusals: Refusals::default(),
            is_new: AtomicBool::new(false),
            applied_index: AtomicU64::new(0),
            persisting_bytes: Arc::default(),
            state_differences: AtomicU64::new(0),
            states_equal: AtomicU64::new(0),
            states_taken: AtomicU64::new(0),
            tombstones_collected: AtomicU64::new(0),
            links: PeerLinks::default(),
        }
    }

    /// This node's clock, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (since.as_millis() as u64).saturating_add_signed(self.clock_offset_ms)
    }

    /// How this node sees its cluster now.
    pub fn view(&self) -> DynamoView {
        lock(&self.view).clone()
    }

    /// Who belongs to it.
    pub fn members(&self) -> Members {
        lock(&self.view).members.clone()
    }

    pub(crate) fn seen(&self, view: DynamoView) {
        *lock(&self.view) = view;
    }

    /// Something was heard of a peer.
    pub(crate) fn heard(&self, peer: NodeId) {
        lock(&self.heard).insert(peer, Instant::now());
    }

    /// A peer has come, and says where it is.
    pub(crate) fn is_at(&self, place: &Place) {
        lock(&self.said).insert(place.node_id, (place.host.clone(), place.port));
    }

    /// When something was last heard of a peer.
    pub fn last_heard(&self, peer: NodeId) -> Option<Instant> {
        lock(&self.heard).get(&peer).copied()
    }

    /// Where a peer may be: as it has said when it came, by this node's flags, and as the members
    /// have it. It may have moved since any of them.
    pub(crate) fn places_to_look(&self, node_id: NodeId) -> Vec<LeaderAddress> {
        let at = |host: &str, port| LeaderAddress { node_id, host: host.to_string(), port };
        let named = self.named.iter().find(|peer| peer.node_id == node_id);
        let named = named.map(|peer| at(&peer.host, peer.port));
        let said = lock(&self.view).members.member(node_id).map(|place| at(&place.host, place.port));
        let came = lock(&self.said).get(&node_id).map(|(host, port)| at(host, *port));
        let mut places: Vec<LeaderAddress> = named.into_iter().chain(said).chain(came).collect();
        let mut seen = Vec::new();
        places.retain(|place| {
            let place = (place.host.clone(), place.port);
            let is_new = !seen.contains(&place);
            seen.push(place);
            is_new
        });
        // A node that listens on all its addresses says none that leads to it.
        places.retain(|place| !is_everywhere(&place.host));
        places
    }

    /// Where clients are told that a member is: as it says itself, or where this node finds it.
    pub fn told_address(&self, node_id: NodeId) -> Option<LeaderAddress> {
        self.links.advertised(node_id).or_else(|| self.address(node_id))
    }

    /// Where a member is.
    pub fn address(&self, node_id: NodeId) -> Option<LeaderAddress> {
        if let Some((host, port)) = self.links.address(node_id) {
            return Some(LeaderAddress { node_id, host, port });
        }
        self.places_to_look(node_id).into_iter().next()
    }

    /// Whether entries that peers send are left unread for now.
    pub(crate) fn holds_entries_back(&self, permits: &Permits) -> bool {
        permits.is_crowded() || self.persisting_bytes.load(Ordering::Relaxed) > limits::PERSISTING_BYTES_MAX
    }

    /// Why this node takes no writes, if so.
    pub(crate) fn write_refusal(&self) -> Option<Error> {
        let me = self.place.node_id;
        if self.is_evicted.load(Ordering::Relaxed) {
            let message = format!(
                "node {me} was evicted: what it takes would reach nobody. Start it on an empty directory, and it joins \
                 anew; reads go on"
            );
            return Some(Error::new(Code::ReadOnly, message));
        }
        if self.has_excess.load(Ordering::Relaxed) {
            return Some(Error::new(Code::ReadOnly, dynamo_alarms::excess_message(me)));
        }
        if let Some(told) = self.shut_out() {
            let message = format!(
                "node {me} takes no writes while every peer that it reaches refuses it: {told}; put that right, or write \
                 to another node. Reads go on, and writes as soon as one lets it in"
            );
            return Some(Error::new(Code::ReadOnly, message));
        }
        if self.awaits_contact.load(Ordering::Relaxed) {
            let message = format!(
                "node {me} has lost entries of its log, and takes writes when it has heard a peer: they must not be \
                 earlier than what the others have deleted meanwhile"
            );
            return Some(Error::new(Code::Starting, message));
        }
        if self.is_clock_wrong.load(Ordering::Relaxed) {
            let ahead_ms = lock(&self.view).skew.ahead_ms;
            let message = format!(
                "the clock of node {me} is {ahead_ms} ms ahead of its peers' median, and may be 500 at most: its writes \
                 would win or lose by that. Correct the clock, or write to another node"
            );
            return Some(Error::new(Code::ClockSkew, message));
        }
        None
    }

    /// What the peers say that this node reaches, where all of them refuse it: what it would take
    /// would reach no one.
    pub(crate) fn shut_out(&self) -> Option<String> {
        if self.refusals.is_empty() {
            return None;
        }
        let peers: Vec<NodeId> = lock(&self.view).peers.iter().map(|peer| peer.node_id).collect();
        if peers.iter().any(|peer| self.links.is_reached(*peer)) {
            return None;
        }
        self.refusals.told(|peer| peers.contains(&peer).then(|| self.places_to_look(peer)))
    }

    /// Races were lost, and more of them than are to be kept.
    pub(crate) fn lost(&self, conflicts: Vec<Conflict>, omitted: u64) {
        let now_ms = self.now_ms();
        let mut log = lock(&self.conflicts);
        for conflict in conflicts {
            log.count += 1;
            let bytes = conflict.memory_bytes() + size_of::<(SeenConflict, usize)>() - size_of::<Conflict>();
            let seen = SeenConflict { number: log.count, conflict, seen_at_ms: now_ms };
            log.bytes += bytes;
            log.kept.push_back((seen, bytes));
            while log.kept.len() > limits::CONFLICTS_KEPT_MAX
                || log.bytes > limits::CONFLICTS_KEPT_BYTES_MAX && log.kept.len() > 1
            {
                log.bytes -= log.kept.pop_front().map_or(0, |(_, bytes)| bytes);
            }
        }
        log.count += omitted;
    }

    /// How many races were lost since the start.
    pub fn conflicts_count(&self) -> u64 {
        lock(&self.conflicts).count
    }

    /// What those that are kept occupy, in bytes.
    pub fn conflicts_bytes(&self) -> usize {
        let log = lock(&self.conflicts);
        // A kept one's own size is in `bytes` already.
        log.bytes + (log.kept.capacity() - log.kept.len()) * size_of::<(SeenConflict, usize)>()
    }

    /// The races lost before number `before`, the newest first, at most so many.
    pub fn conflicts(&self, before: u64, limit: usize) -> Vec<SeenConflict> {
        let log = lock(&self.conflicts);
        let older = log.kept.iter().rev().map(|(seen, _)| seen).filter(|seen| seen.number < before);
        older.take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use datastore::engine::{Side, Version, Written};
    use datastore::replication::dynamo::PROTOCOL;

    use super::*;

    fn conflict(key: u32, bytes: usize) -> Conflict {
        let side = |index, written| Side { version: Version { index, ordinal: 1 }, written };
        Conflict {
            key: Bytes::from(key.to_string()),
            winner: side(2, Written::Value(vec![b'1'; bytes].into())),
            loser: side(1, Written::Deleted),
        }
    }

    #[test]
    fn lost_races_are_kept_newest_first_within_their_bounds_and_all_are_counted() {
        let place = Place { node_id: 1, directory: None, host: "h".into(), port: 1 };
        let cluster = DynamoCluster::new(place, (1, PROTOCOL), (Vec::new(), None), 0);
        let many = limits::CONFLICTS_KEPT_MAX as u32 + 10;
        (0..many).for_each(|key| cluster.lost(vec![conflict(key, 1)], 0));
        assert_eq!(cluster.conflicts_count(), u64::from(many));
        let page = cluster.conflicts(u64::MAX, 3);
        let numbers: Vec<u64> = page.iter().map(|seen| seen.number).collect();
        assert_eq!(numbers, [u64::from(many), u64::from(many) - 1, u64::from(many) - 2]);
        assert_eq!(cluster.conflicts(11, 5).len(), 0, "the oldest are gone");
        cluster.lost(vec![conflict(1, limits::CONFLICTS_KEPT_BYTES_MAX)], 0);
        assert_eq!(cluster.conflicts(u64::MAX, 9).len(), 1, "the newest stays, however large");
    }
}
