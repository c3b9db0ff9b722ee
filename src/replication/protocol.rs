//! Versions of the peers' protocol. Two nodes speak the latest one that both know.
//!
//! ```text
//! 1   entries of writes, members that never change
//! 2   entries that name the members, a witness, epochs
//! ```

/// The versions of the peers' protocol that this version speaks, lowest and highest.
pub const PROTOCOL: (u32, u32) = (1, 2);

/// The first version that knows members that change, witnesses and epochs.
pub const PROTOCOL_MEMBERS: u32 = 2;
