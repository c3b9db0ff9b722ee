//! How a member is, beside what its replica says: each node tells the others with its signs of life.
//!
//! A node whose disk hangs still answers heartbeats. Nothing that its replica says shows that no
//! write of it is ever safe; so it says it itself, and nobody gives it leadership.

use super::doubt::Condition;
use super::policy::DiskPause;

/// All of a node's indexes.
pub const INDEXED_ALL: u16 = 1_000;

/// A node's disk, as the node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskHealth {
    /// For so long the oldest write has waited for its sync, in milliseconds; 0 for none.
    pub oldest_sync_ms: u64,
    /// That is longer than by its own syncs before it should be.
    pub is_stalled: bool,
    /// Writes that need room are refused.
    pub is_full: bool,
}

impl DiskHealth {
    /// Whether a leader on it can take no writes.
    pub fn is_bad(&self) -> bool {
        self.is_stalled || self.is_full
    }
}

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// How it stands to its log.
    pub condition: Condition,
    /// Its disk.
    pub disk: DiskHealth,
    /// How much of its indexes is built, in thousandths.
    pub indexed_per_mille: u16,
    /// The last time that leadership left a bad disk, as far as it knows.
    pub pause: DiskPause,
}

impl Default for Health {
    /// As long as nobody says otherwise.
    fn default() -> Health {
        Health {
            condition: Condition::Well,
            disk: DiskHealth::default(),
            indexed_per_mille: INDEXED_ALL,
            pause: DiskPause::default(),
        }
    }
}
