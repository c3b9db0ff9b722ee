//! Reads that ask several members for a key, and which of the answers count.
//!
//! ```text
//!   question   number, key, who is asked      answer   who says it, number, the key's states
//! ```
//!
//! An answer counts for the question of its number, if its states are that key's, and once for
//! each member that was asked. A question that was answered, or given up, is none any more: what
//! comes late counts for nothing.
//!
//! An answer goes to the node that has asked, whichever process of it is there by then. So numbers
//! begin at the process's own random one: no two processes of a node ask under the same number.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::entry::states;
use crate::replication::message::{NodeId, payload_memory_bytes};

/// Questions that wait for answers; each with what its asker is known by.
pub struct Questions<T> {
    last: u64,
    open: BTreeMap<u64, Question<T>>,
}

/// What members have of a key.
pub struct Question<T> {
    /// The key's UTF-8.
    pub key: Bytes,
    /// How many answers are wanted.
    pub wanted: usize,
    /// The key's states, as those say that have answered; empty where there are none.
    pub came: Vec<Bytes>,
    /// Who wants to know.
    pub asker: T,
    /// Those that were asked, and haven't answered.
    awaited: BTreeSet<NodeId>,
}

impl<T> Questions<T> {
    /// Of the process that drew this number at its start.
    pub fn new(boot: u64) -> Questions<T> {
        Questions { last: boot, open: BTreeMap::new() }
    }

    /// These are asked for a key, of which so many shall answer. Gives the question's number.
    pub fn ask(
        &mut self,
        key: Bytes,
        wanted: usize,
        asked: impl IntoIterator<Item = NodeId>,
        asker: T,
    ) -> u64 {
        self.last = self.last.wrapping_add(1);
        let question =
            Question { key, wanted, came: Vec::new(), asker, awaited: asked.into_iter().collect() };
        self.open.insert(self.last, question);
        self.last
    }

    /// A member's answer. Gives the question with all its answers, if that was the last one wanted.
    pub fn answered(&mut self, from: NodeId, number: u64, state: Bytes) -> Option<Question<T>> {
        let question = self.open.get_mut(&number)?;
        let mut of_answer = states(state.clone());
        let is_of_key = of_answer.all(|entry| entry.is_some_and(|entry| entry.key() == &question.key[..]));
        if !is_of_key || !question.awaited.remove(&from) {
            return None;
        }
        question.came.push(state);
        if question.came.len() < question.wanted {
            return None;
        }
        self.open.remove(&number)
    }

    /// Takes out the questions that are given up.
    pub fn given_up(&mut self, is_given_up: impl Fn(&T) -> bool) -> Vec<Question<T>> {
        let open = std::mem::take(&mut self.open).into_iter();
        let (late, open) = open.partition(|(_, question)| is_given_up(&question.asker));
        self.open = open;
        let late: BTreeMap<u64, Question<T>> = late;
        late.into_values().collect()
    }

    /// What they occupy, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let of = |question: &Question<T>| {
            let came: usize = question.came.iter().map(payload_memory_bytes).sum();
            came + payload_memory_bytes(&question.key) + question.awaited.len() * size_of::<NodeId>()
        };
        self.open.values().map(|question| size_of::<(u64, Question<T>)>() + of(question)).sum()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::engine::Entry;
    use crate::replication::dynamo::entry::encode_state;
    use crate::version::Version;

    const BOOT: u64 = 7_000;

    fn state(key: &[u8]) -> Bytes {
        let mut state = BytesMut::new();
        encode_state(&mut state, &Entry::new(Version { index: 1, ordinal: 1 }, key, Some(b"1"), None));
        state.freeze()
    }

    /// A question that three are asked, and two shall answer.
    fn asked(questions: &mut Questions<()>) -> u64 {
        questions.ask(Bytes::from_static(b"k"), 2, [1, 2, 3], ())
    }

    #[test]
    fn so_many_members_answer_as_are_wanted_each_once() {
        let mut questions = Questions::new(BOOT);
        let number = asked(&mut questions);
        assert!(questions.answered(2, number, state(b"k")).is_none());
        assert!(questions.answered(2, number, state(b"k")).is_none(), "one member is one copy");
        assert!(questions.answered(4, number, state(b"k")).is_none(), "it wasn't asked");
        let question = questions.answered(3, number, Bytes::new()).expect("two have answered");
        assert_eq!(question.came, [state(b"k"), Bytes::new()]);
        assert!(questions.answered(1, number, state(b"k")).is_none(), "it was answered already");
        assert_eq!(questions.memory_bytes(), 0);
    }

    #[test]
    fn what_is_another_key_s_or_can_t_be_read_counts_for_nothing() {
        let mut questions = Questions::new(BOOT);
        let number = asked(&mut questions);
        let both = Bytes::from([state(b"k"), state(b"other")].concat());
        for wrong in [state(b"other"), both, state(b"k").slice(..3)] {
            assert!(questions.answered(2, number, wrong.clone()).is_none());
            assert!(questions.answered(3, number, wrong).is_none());
        }
        assert!(questions.answered(2, number, state(b"k")).is_none());
        assert!(questions.answered(3, number, state(b"k")).is_some());
    }

    #[test]
    fn a_late_answer_counts_for_no_later_question() {
        let mut questions = Questions::new(BOOT);
        let earlier = asked(&mut questions);
        assert!(questions.given_up(|()| false).is_empty());
        let [question] = &questions.given_up(|()| true)[..] else { panic!("it was given up") };
        assert_eq!((&question.key[..], question.came.len()), (&b"k"[..], 0));
        let later = asked(&mut questions);
        assert!([1, 2, 3].iter().all(|from| questions.answered(*from, earlier, state(b"k")).is_none()));
        questions.answered(1, later, state(b"k"));
        assert!(questions.answered(2, later, state(b"k")).is_some());
    }

    #[test]
    fn what_was_said_to_the_process_before_counts_for_nothing_in_this_one() {
        let (mut before, mut questions) = (Questions::new(BOOT), Questions::new(u64::MAX - 1));
        let numbers: Vec<(u64, u64)> = (0..3).map(|_| (asked(&mut before), asked(&mut questions))).collect();
        for (number, _) in numbers {
            assert!((1..=3).all(|from| questions.answered(from, number, state(b"k")).is_none()));
        }
    }
}
