//! What others may know of a replica.

use super::peer::{Cursor, Peer};
use super::replica::{Pending, Replica, SILENCE_TICKS};
use super::skew::Skew;
use super::stability::Stability;
use super::vector::VersionVector;
use super::{History, Members};
use crate::replication::message::NodeId;
use crate::version::Version;

/// A member as a replica sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Its number.
    pub node_id: NodeId,
    /// Something was heard of it lately.
    pub in_contact: bool,
    /// Entries that are here and, as far as is known, not there; `None`: it was never heard.
    pub lag_entries: Option<u64>,
    /// For how long it has lacked the oldest of them, in milliseconds.
    pub lag_ms: Option<u64>,
    /// It takes over a state, since no log reaches back to what it lacks.
    pub is_far_behind: bool,
}

/// What a replica keeps in memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The newest entries, and those on their way to the disk.
    pub entries: usize,
    /// From where in the log a peer can be served.
    pub marks: usize,
    /// What the peers have, and what is on its way to them.
    pub peers: usize,
}

impl Replica {
    /// What it keeps in memory. It looks at all marks: not to be asked at each entry.
    pub fn memory(&self) -> Memory {
        Memory {
            entries: self.cache.memory_bytes() + self.pending.capacity() * size_of::<Pending>(),
            marks: self.history.memory_bytes(),
            peers: self.peers.values().map(Peer::memory_bytes).sum(),
        }
    }

    /// All that is on this node's disk.
    pub fn vector(&self) -> &VersionVector {
        &self.history.vector
    }

    /// What a snapshot made now says.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Everyone.
    pub fn members(&self) -> &Members {
        &self.history.members
    }

    /// Whether there never was a key here.
    pub fn is_new(&self) -> bool {
        self.history.is_new()
    }

    /// How this node's clock stands.
    pub fn skew(&self) -> Skew {
        self.skew
    }

    /// Which deletes everyone is behind of, and who holds the others back.
    pub fn stability(&self) -> &Stability {
        &self.stable
    }

    /// How often all in contact had the same state.
    pub fn equal_roots(&self) -> u64 {
        self.roots.equal
    }

    /// The peers that were heard lately.
    pub fn in_contact(&self) -> Vec<NodeId> {
        let lately = |heard: u64| heard > 0 && heard + SILENCE_TICKS >= self.tick;
        self.peers.iter().filter(|(_, peer)| lately(peer.heard_tick)).map(|(id, _)| *id).collect()
    }

    /// How many members have this write on their disks, this node among them.
    pub fn copies(&self, version: Version) -> usize {
        let has = |vector: &VersionVector| vector.has(version);
        let peers = self.peers.values().filter(|peer| peer.vector.as_ref().is_some_and(has));
        usize::from(has(&self.history.vector)) + peers.count()
    }

    /// The other members; a tick has so many milliseconds.
    pub fn view(&self, tick_ms: u64) -> Vec<MemberView> {
        let in_contact = self.in_contact();
        let own = &self.history.vector;
        let views = self.peers.iter().map(|(id, peer)| {
            let lag = peer.vector.as_ref().map(|vector| {
                let entries = vector.lacks(own);
                (entries, if entries == 0 { 0 } else { self.lacks_since(peer) * tick_ms })
            });
            MemberView {
                node_id: *id,
                in_contact: in_contact.contains(id),
                lag_entries: lag.map(|(entries, _)| entries),
                lag_ms: lag.map(|(_, since)| since),
                is_far_behind: peer.cursor == Cursor::Behind,
            }
        });
        views.collect()
    }

    /// For how many ticks a peer has lacked the oldest of what it lacks, as far as that is
    /// known: since it was sent, or could have been, or at the longest since the peer was heard.
    fn lacks_since(&self, peer: &Peer) -> u64 {
        let next = match peer.cursor {
            Cursor::At(index) => self.cache.get(index).map(|cached| cached.since),
            Cursor::Unknown | Cursor::Fetching { .. } | Cursor::Behind => None,
        };
        let since = peer.oldest_sent().into_iter().chain(next).min().unwrap_or(peer.heard_tick);
        self.tick.saturating_sub(since)
    }

    /// Whether something waits to be done.
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }
}
