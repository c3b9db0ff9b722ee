//! What a slice does on a member of a cluster beside its own writes: it lets go of
//! them when the node leads no more, applies what was decided elsewhere, and takes
//! over states that arrive whole.

use super::effect::Effect;
use super::entry::Change;
use super::in_flight::{Waiter, WaitingWrite};
use super::slice::{Answer, InFlight, Slice, applied};
use super::table::Table;
use crate::error::Error;
use crate::version::Version;

impl<T> Slice<T> {
    /// The node leads no more: nobody knows what becomes of the writes in flight
    /// (`lost` says so), those that wait for their turn never happen (`refused`),
    /// and reads see what is applied.
    pub fn abandon(&mut self, lost: &Error, refused: &Error) {
        for (_, InFlight { token, .. }) in std::mem::take(&mut self.writes) {
            self.output.answers.push((token, Answer::Refused(lost.clone())));
        }
        let parts = std::mem::take(&mut self.output.append).parts;
        // They still have to meet the others, which wait for them.
        self.output.append.parts = parts.into_iter().map(|part| part.refused(lost.clone())).collect();
        for (hash, state) in self.keys.take() {
            for waiter in state.waiters {
                match waiter {
                    Waiter::Read { token, .. } => {
                        let entry = self.table.get(&state.key, hash).cloned();
                        self.output.answers.push((token, Answer::Entry(entry)));
                    }
                    Waiter::GroupRead { group, position, .. } => {
                        self.read_for_group(group, position, &state.key, hash);
                    }
                    Waiter::Write(WaitingWrite { token, .. }) => {
                        self.output.answers.push((token, Answer::Refused(refused.clone())));
                    }
                }
            }
        }
    }

    /// Applies an entry of the log that was decided elsewhere: the effects that
    /// concern this slice, in their order, each with its ordinal and its key's hash.
    pub fn apply_logged<'a>(&mut self, index: u64, effects: impl Iterator<Item = (u32, Effect<'a>, u64)>) {
        assert!(index >= self.applied_index, "entry {index} after {}", self.applied_index);
        self.applied_index = index;
        for (ordinal, effect, hash) in effects {
            let version = Version { index, ordinal };
            let (old, new) = self.table.update(effect.key(), hash, |old| applied(&effect, version, old));
            if old.is_some() || new.is_some() {
                self.output.changes.push(Change { old, new });
            }
        }
    }

    /// Another state takes this one's place: that behind entry `applied_index`.
    /// Nothing may be in flight. Gives the old one.
    pub fn install(&mut self, table: Table, applied_index: u64) -> Table {
        assert!(self.is_quiet(), "a state is replaced below writes in flight");
        self.applied_index = applied_index;
        std::mem::replace(&mut self.table, table)
    }
}
