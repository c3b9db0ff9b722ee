//! What the tools share.

pub mod load;
pub mod proof;
pub mod random;
