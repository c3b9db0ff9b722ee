//! What the tools share.

pub mod bench;
pub mod linearizability;
pub mod load;
pub mod proof;
pub mod random;
