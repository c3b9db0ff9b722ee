//! What a node must not forget: written into log frames, in front of the entries.
//!
//! ```text
//!  0       8       16      24            32            40
//! ┌───────┬───────┬───────┬─────────────┬─────────────┐
//! │ term  │ vote  │commit │witness' term│witness' vote│   little-endian; vote 0 for none
//! └───────┴───────┴───────┴─────────────┴─────────────┘
//! ```
//!
//! The last two are there once a witness of this node's has had a term: then for
//! ever, since one that comes back must not vote twice.

/// Its length in bytes while there has been no witness.
pub const HARD_STATE_BYTES: usize = 24;
/// And since.
pub const HARD_STATE_BYTES_WITNESS: usize = 40;

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
    /// The latest term that the witness in this node has seen; 0 for none.
    pub witness_term: u64,
    /// Whom the witness voted for in that term; 0 for nobody.
    pub witness_vote: u64,
}

impl HardState {
    /// The bytes for a log frame.
    pub fn encode(&self) -> Vec<u8> {
        let HardState { term, vote, commit, witness_term, witness_vote } = *self;
        let numbers = [term, vote, commit, witness_term, witness_vote];
        let length = if witness_term == 0 { HARD_STATE_BYTES } else { HARD_STATE_BYTES_WITNESS };
        let mut bytes = numbers.map(u64::to_le_bytes).concat();
        bytes.truncate(length);
        bytes
    }

    /// What a log begins with that begins anew behind a snapshot's entry: entries that come
    /// with the snapshot are not there yet, and a crash may come before them.
    pub fn at_restart(self, index: u64) -> HardState {
        HardState { commit: self.commit.min(index), ..self }
    }

    /// Reads what [`HardState::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<HardState> {
        matches!(bytes.len(), HARD_STATE_BYTES | HARD_STATE_BYTES_WITNESS).then_some(())?;
        let number = |at: usize| -> u64 {
            let bytes = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        let [term, vote, commit, witness_term, witness_vote] = [0, 8, 16, 24, 32].map(number);
        Some(HardState { term, vote, commit, witness_term, witness_vote })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_begins_anew_says_of_no_entry_behind_it_that_it_is_committed() {
        let state = HardState { term: 17, vote: 1, commit: 3_887, ..HardState::default() };
        assert_eq!(state.at_restart(3_880), HardState { commit: 3_880, ..state });
        assert_eq!(state.at_restart(3_900), state);
    }
}
