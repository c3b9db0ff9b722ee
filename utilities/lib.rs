//! What the tools share.

pub mod load;
pub mod proof;
