//! Writes on their way to the disk, and who waits for them, key by key.
//!
//! Each write takes a ticket when it is handed to the log. A key's writes may
//! become durable out of ticket order (a part of a multi-shard write waits for
//! its other parts, a later single write doesn't), so a key remembers the
//! tickets that are outstanding, not a number.
//!
//! ```text
//! a read        waits for the tickets that were outstanding when it came
//! a condition   waits until no ticket is outstanding, then looks and decides
//! a write       waits only behind a waiting condition, so that the order in
//!               which one connection sent them is kept
//! a part        never waits: two multi-shard writes that each waited for the
//!               other's key on another shard would wait for ever
//! ```
//!
//! So a read behind another connection's waiting condition may see a part that came behind the read:
//! the condition waits for that part, too.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashTable;

use super::tickets::Tickets;
use crate::error::{Code, Detail, Error};
use crate::version::Version;

/// What a conditional write asks of the key before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Unconditional.
    None,
    /// `if_absent: true`: the key must have neither value nor vector.
    Absent,
    /// `if_version`: the key's version must be this one. `None` stands for
    /// `null`, the version of an absent key.
    Version(Option<Version>),
    /// `if_version` with a text that no version of this node ever reads: it
    /// matches nothing.
    NeverMatches,
}

/// Why a condition refuses, if it does, on a key of this version (`None`: absent).
pub(super) fn refusal(condition: Condition, current: Option<Version>) -> Option<Error> {
    let (code, wanted) = match condition {
        Condition::None => return None,
        Condition::Absent if current.is_none() => return None,
        Condition::Version(wanted) if wanted == current => return None,
        Condition::Absent => (Code::AlreadyExists, "if_absent wants a key that does not exist".to_string()),
        Condition::Version(Some(wanted)) => (Code::VersionMismatch, format!("if_version wants {wanted}")),
        Condition::Version(None) => {
            (Code::VersionMismatch, "if_version null wants a key that does not exist".to_string())
        }
        Condition::NeverMatches => {
            (Code::VersionMismatch, "if_version is no version that this key ever had".to_string())
        }
    };
    let is = match current {
        Some(version) => format!("the key's version is {version}"),
        None => "the key does not exist".to_string(),
    };
    Some(Error::new(code, format!("{wanted}; {is}")).with_detail(Detail::Current(current)))
}

/// What a write does to its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// Replaces the value with this JSON text.
    Set(Bytes),
    /// Replaces the vector with these little-endian f32s.
    AddVector(Bytes),
    /// Removes both.
    Delete,
}

/// A single-key write that waits behind a condition, or is one.
pub(super) struct WaitingWrite<T> {
    pub(super) token: T,
    pub(super) kind: WriteKind,
    pub(super) condition: Condition,
}

/// Someone who waits for a key.
pub(super) enum Waiter<T> {
    /// A `get` or `get_vector`; ready when no ticket below `before` is
    /// outstanding. `None` behind a waiting write, whose ticket isn't drawn yet:
    /// it is set when that is decided.
    Read { token: T, before: Option<u64> },
    /// One key of a `bulk_get`.
    GroupRead { group: usize, position: u32, before: Option<u64> },
    /// A conditional write, or one that came behind it.
    Write(WaitingWrite<T>),
}

/// What a key has in flight. It exists only while there is something.
pub(super) struct KeyState<T> {
    pub(super) key: Bytes,
    /// Writes handed to the log and not yet applied or refused.
    pub(super) outstanding: Tickets,
    /// First come, first served.
    pub(super) waiters: VecDeque<Waiter<T>>,
    /// How many of the waiters are writes.
    pub(super) waiting_writes: usize,
}

/// The keys that have something in flight.
pub(super) struct InFlightKeys<T> {
    keys: HashTable<(u64, KeyState<T>)>,
}

impl<T> InFlightKeys<T> {
    pub(super) fn new() -> InFlightKeys<T> {
        InFlightKeys { keys: HashTable::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// All of them, with their hashes; none is left.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (u64, KeyState<T>)> + use<T> {
        std::mem::take(&mut self.keys).into_iter()
    }

    pub(super) fn get_mut(&mut self, key: &[u8], hash: u64) -> Option<&mut KeyState<T>> {
        if self.keys.is_empty() {
            return None;
        }
        self.keys.find_mut(hash, |(_, state)| state.key == key).map(|(_, state)| state)
    }

    /// The key's state, made when there is none; `key` is only then asked for.
    pub(super) fn entry(&mut self, key: &[u8], hash: u64, owned: impl FnOnce() -> Bytes) -> &mut KeyState<T> {
        let slot =
            self.keys.entry(hash, |(_, state)| state.key == key, |(hash, _)| *hash).or_insert_with(|| {
                let state = KeyState {
                    key: owned(),
                    outstanding: Tickets::default(),
                    waiters: VecDeque::new(),
                    waiting_writes: 0,
                };
                (hash, state)
            });
        &mut slot.into_mut().1
    }

    /// Whether writes of this key are on their way to the log.
    pub(super) fn is_outstanding(&self, key: &[u8], hash: u64) -> bool {
        let found = self.keys.find(hash, |(_, state)| state.key == key);
        found.is_some_and(|(_, state)| !state.outstanding.is_empty())
    }

    /// Forgets a key that has nothing in flight any more.
    pub(super) fn forget_if_idle(&mut self, key: &[u8], hash: u64) {
        if let Ok(found) = self.keys.find_entry(hash, |(_, state)| state.key == key)
            && found.get().1.outstanding.is_empty()
            && found.get().1.waiters.is_empty()
        {
            found.remove();
        }
    }
}

impl<T> KeyState<T> {
    /// A write with this ticket is settled, either way.
    pub(super) fn settle(&mut self, ticket: u64) {
        self.outstanding.settle(ticket);
    }

    /// The write ahead of the first waiters is decided. Reads among these see it, and none that draws
    /// `next_ticket` or a later one, however long others keep them from the front.
    pub(super) fn decided(&mut self, next_ticket: u64) {
        for waiter in &mut self.waiters {
            match waiter {
                Waiter::Read { before, .. } | Waiter::GroupRead { before, .. } => *before = Some(next_ticket),
                Waiter::Write(_) => return,
            }
        }
    }

    /// Takes the first waiter if its time has come.
    pub(super) fn next_ready(&mut self) -> Option<Waiter<T>> {
        let oldest = self.outstanding.first().unwrap_or(u64::MAX);
        let ready = match self.waiters.front()? {
            Waiter::Read { before, .. } | Waiter::GroupRead { before, .. } => {
                before.is_none_or(|before| oldest >= before)
            }
            Waiter::Write(write) => write.condition == Condition::None || self.outstanding.is_empty(),
        };
        if !ready {
            return None;
        }
        let waiter = self.waiters.pop_front();
        if matches!(waiter, Some(Waiter::Write(_))) {
            self.waiting_writes -= 1;
        }
        waiter
    }
}
