//! What a node must not forget: written into log frames, in front of the entries.
//!
//! ```text
//!  0       8       16      24
//! ┌───────┬───────┬───────┐
//! │ term  │ vote  │commit │   little-endian; vote 0 for none
//! └───────┴───────┴───────┘
//! ```

/// Its length in bytes.
pub const HARD_STATE_BYTES: usize = 24;

/// Term, vote and commit index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term that this node has seen.
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// The last entry that it knew to be committed. It may lag: what is
    /// committed is learned anew, what was committed stays so.
    pub commit: u64,
}

impl HardState {
    /// The bytes for a log frame.
    pub fn encode(&self) -> [u8; HARD_STATE_BYTES] {
        let mut bytes = [0; HARD_STATE_BYTES];
        bytes[..8].copy_from_slice(&self.term.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.vote.to_le_bytes());
        bytes[16..].copy_from_slice(&self.commit.to_le_bytes());
        bytes
    }

    /// Reads what [`HardState::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<HardState> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        (bytes.len() == HARD_STATE_BYTES).then_some(())?;
        Some(HardState { term: number(0)?, vote: number(8)?, commit: number(16)? })
    }
}
