//! Mistakes that the tests must find: each can be switched on in a replica. Elsewhere none is made.

use super::replica::Replica;

/// A mistake.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The clock doesn't step above what it has seen.
    NoPlusOne,
    /// Tombstones go when they are old enough.
    TombstonesByTime,
    /// Tombstones go when all members have the tombstone itself.
    TombstonesWhenAllHaveThem,
    /// A directory that has lost entries goes on in its old stream.
    OriginReused,
    /// Of a stream that has ended all is taken, and tombstones don't wait for reports.
    EndedStreamsTaken,
    /// A node says that it has moved before the others have said what they have of its stream.
    SpeaksUnsure,
}

#[cfg(test)]
impl Replica {
    /// Switches a mistake on.
    pub fn mistaken(&mut self, mistake: Mistake) {
        self.mistake = Some(mistake);
    }

    pub(super) fn observes(&self) -> bool {
        self.mistake != Some(Mistake::NoPlusOne)
    }

    pub(super) fn stable_through(&self, tombstones: u64, now_ms: u64) -> u64 {
        let everyone = self.peers.values().map(|peer| peer.vector.as_ref());
        match self.mistake {
            Some(Mistake::TombstonesByTime) => now_ms.saturating_sub(5_000) << 16,
            Some(Mistake::TombstonesWhenAllHaveThem) => {
                let all_have = everyone.clone().all(|vector| {
                    vector.is_some_and(|vector| vector.rows().iter().any(|row| row.time >= tombstones))
                });
                if all_have { tombstones } else { self.stable.through }
            }
            _ => self.stable.through,
        }
    }

    pub(super) fn ends_streams(&self) -> bool {
        self.mistake != Some(Mistake::EndedStreamsTaken)
    }

    pub(super) fn speaks_unsure(&self) -> bool {
        self.mistake == Some(Mistake::SpeaksUnsure)
    }

    pub(super) fn reuses_origins(&self) -> bool {
        self.mistake == Some(Mistake::OriginReused)
    }
}

#[cfg(not(test))]
impl Replica {
    /// Up to which time tombstones may go.
    pub(super) fn stable_through(&self, _tombstones: u64, _now_ms: u64) -> u64 {
        self.stable.through
    }

    pub(super) fn speaks_unsure(&self) -> bool {
        false
    }

    pub(super) fn reuses_origins(&self) -> bool {
        false
    }

    pub(super) fn observes(&self) -> bool {
        true
    }

    pub(super) fn ends_streams(&self) -> bool {
        true
    }
}
