//! Versions of the peers' protocol. Two nodes speak the latest one that both know.
//!
//! ```text
//! 1   entries of writes, members that never change
//! 2   entries that name the members, a witness, epochs
//! 3   nodes in doubt, and such whose logs conflict
//! 4   nodes that say how their disks and indexes are
//! ```

/// The versions of the peers' protocol that this version speaks, lowest and highest.
pub const PROTOCOL: (u32, u32) = (1, 4);

/// The first version that knows members that change, witnesses and epochs.
pub const PROTOCOL_MEMBERS: u32 = 2;

/// The first version that can read whether a node is in doubt.
pub const PROTOCOL_DOUBT: u32 = 3;

/// The first version that can read how a node's disk and indexes are.
pub const PROTOCOL_HEALTH: u32 = 4;
