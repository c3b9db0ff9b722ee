//! What the tools share.

pub mod load;
