//! Whether the replicas hold the same: each compares, at the same entries, the
//! hash of its own state with those of the others.
//!
//! ```text
//! entry 256, 512, …  ─► every shard: your hash behind it? ─► sum ─► to every peer
//!                       a peer's hash at the same entry ─► equal, or an alarm
//! ```
//!
//! Replicas apply the same entries, so that a difference is a fault: of a disk,
//! of memory, or of this program. It is counted, logged, and stays visible in
//! `stats` and `cluster`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use datastore::engine::StateHash;
use datastore::replication::message::NodeId;

use crate::cluster::Cluster;

/// Entries between two comparisons.
const ENTRIES_BETWEEN: u64 = 256;
/// Hashes kept to be compared with those of peers that are behind, or ahead.
const KEPT_MAX: usize = 64;

/// Own hashes and the peers'.
pub(crate) struct StateHashes {
    cluster: Arc<Cluster>,
    shards: usize,
    /// Of which shards have still to say theirs: how many have, and their sum.
    gathering: BTreeMap<u64, (usize, StateHash)>,
    own: BTreeMap<u64, u128>,
    peers: BTreeMap<(u64, NodeId), u128>,
}

impl StateHashes {
    pub(crate) fn new(shards: usize, cluster: Arc<Cluster>) -> StateHashes {
        let (gathering, own, peers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        StateHashes { cluster, shards, gathering, own, peers }
    }

    /// Whether the state behind this entry is compared.
    pub(crate) fn is_due(index: u64) -> bool {
        index.is_multiple_of(ENTRIES_BETWEEN)
    }

    /// A snapshot took the state's place: what was being gathered is no state any more.
    pub(crate) fn forget(&mut self) {
        self.gathering.clear();
    }

    /// A shard's hash; gives the whole state's when it is the last one.
    pub(crate) fn of_shard(&mut self, index: u64, hash: u128) -> Option<u128> {
        let (said, sum) = self.gathering.entry(index).or_default();
        *said += 1;
        *sum = sum.with(StateHash(hash));
        if *said < self.shards {
            return None;
        }
        let (_, StateHash(whole)) = self.gathering.remove(&index)?;
        self.own.insert(index, whole);
        if self.own.len() > KEPT_MAX {
            self.own.pop_first();
        }
        let others: Vec<(NodeId, u128)> = self
            .peers
            .range((index, 0)..=(index, NodeId::MAX))
            .map(|((_, peer), hash)| (*peer, *hash))
            .collect();
        for (peer, hash) in others {
            self.compare(peer, index, whole, hash);
        }
        Some(whole)
    }

    /// A peer's hash.
    pub(crate) fn of_peer(&mut self, peer: NodeId, index: u64, hash: u128) {
        if let Some(own) = self.own.get(&index).copied() {
            return self.compare(peer, index, own, hash);
        }
        self.peers.insert((index, peer), hash);
        if self.peers.len() > KEPT_MAX {
            self.peers.pop_first();
        }
    }

    fn compare(&mut self, peer: NodeId, index: u64, own: u128, other: u128) {
        self.peers.remove(&(index, peer));
        if own == other {
            self.cluster.state_checked_index.fetch_max(index, Ordering::Relaxed);
            return;
        }
        let before = self.cluster.state_differences.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            tracing::error!(
                index,
                peer,
                "STATES DIFFER: this node and the peer applied the same entries and hold different data; \
                 compare both with a third replica, and replace the one that is wrong"
            );
        }
    }
}
