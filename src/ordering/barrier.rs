//! When a connection may dispatch its next request.
//!
//! Requests leave in the order they came; the one at the head may have to wait:
//!
//! | class of the request | waits until, on this connection, |
//! |---|---|
//! | single-key write or read, `bulk_get` | no multi-key write ahead is still to meet |
//! | multi-key write | … and every single-key write ahead is answered |
//! | search, scan, count, snapshot | … and every write ahead is answered, which is when it is applied |
//! | anything else | … |
//!
//! Why so little: a single-key request follows its predecessors to the same
//! shard's mailbox, and the shard makes a read wait for its key's writes in
//! flight. A part of a multi-key write goes to the log at once, so it would
//! overtake a conditional write of this connection that still waits for its
//! turn; hence the second row. And the parts meet in the log's actor, so a later
//! single-key write could overtake *them*, until they have met; hence the first.

/// What matters about a request here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `set`, `delete`, `add_vector`.
    SingleWrite,
    /// `bulk_set`, `bulk_delete`.
    MultiWrite,
    /// A read that a shard answers key by key.
    KeyRead,
    /// A read over the indexes, or of the whole keyspace.
    WideRead,
    /// Neither reads nor writes keys.
    Other,
}

/// One connection's writes under way.
#[derive(Debug, Default)]
pub struct Barrier {
    single_writes: usize,
    multi_writes: usize,
    /// A dispatched multi-key write of which not all parts have met.
    meeting: bool,
}

impl Barrier {
    /// Whether a request of this class may leave now.
    pub fn may_dispatch(&self, class: Class) -> bool {
        !self.meeting
            && match class {
                Class::SingleWrite | Class::KeyRead | Class::Other => true,
                Class::MultiWrite => self.single_writes == 0,
                Class::WideRead => self.single_writes == 0 && self.multi_writes == 0,
            }
    }

    /// A request left.
    pub fn dispatched(&mut self, class: Class) {
        debug_assert!(self.may_dispatch(class));
        match class {
            Class::SingleWrite => self.single_writes += 1,
            Class::MultiWrite => {
                self.multi_writes += 1;
                self.meeting = true;
            }
            Class::KeyRead | Class::WideRead | Class::Other => {}
        }
    }

    /// The parts of the multi-key write that left last have met (or were refused).
    pub fn met(&mut self) {
        self.meeting = false;
    }

    /// A request that left has its answer.
    pub fn answered(&mut self, class: Class) {
        match class {
            Class::SingleWrite => self.single_writes -= 1,
            Class::MultiWrite => self.multi_writes -= 1,
            Class::KeyRead | Class::WideRead | Class::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_a_multi_key_write_until_it_has_met() {
        let mut barrier = Barrier::default();
        barrier.dispatched(Class::MultiWrite);
        for class in [Class::SingleWrite, Class::MultiWrite, Class::KeyRead, Class::WideRead, Class::Other] {
            assert!(!barrier.may_dispatch(class), "{class:?}");
        }
        barrier.met();
        assert!(barrier.may_dispatch(Class::SingleWrite));
        assert!(barrier.may_dispatch(Class::MultiWrite));
        assert!(!barrier.may_dispatch(Class::WideRead), "a search waits until the write is applied");
        barrier.answered(Class::MultiWrite);
        assert!(barrier.may_dispatch(Class::WideRead));
    }

    #[test]
    fn a_multi_key_write_and_a_search_wait_for_single_writes() {
        let mut barrier = Barrier::default();
        barrier.dispatched(Class::SingleWrite);
        assert!(barrier.may_dispatch(Class::SingleWrite) && barrier.may_dispatch(Class::KeyRead));
        assert!(!barrier.may_dispatch(Class::MultiWrite) && !barrier.may_dispatch(Class::WideRead));
        barrier.answered(Class::SingleWrite);
        assert!(barrier.may_dispatch(Class::MultiWrite) && barrier.may_dispatch(Class::WideRead));
    }
}
