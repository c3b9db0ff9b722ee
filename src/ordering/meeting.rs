//! Where the parts of a multi-key write meet.
//!
//! Each shard sends its part when the connection's request reaches it; the last
//! one to come lets all of them go to the log as one request of one entry. A
//! shard that can't take its part sends a refusal in its place, and then none
//! of them goes.

use std::collections::HashMap;

use crate::error::Error;

/// What the arrival of a part brought about.
#[derive(Debug, PartialEq)]
pub enum Arrival<P> {
    /// Others are still to come.
    Waiting,
    /// All are there, in the order in which they came: log them as one request.
    Complete(Vec<P>),
    /// All are there and one was refused: let them go.
    Refused(Vec<P>, Error),
}

struct Gathered<P> {
    parts: Vec<P>,
    refusal: Option<Error>,
}

/// The multi-key writes of which parts are still to come. `P` is a part.
pub struct Meeting<P> {
    waiting: HashMap<u64, Gathered<P>>,
}

impl<P> Default for Meeting<P> {
    fn default() -> Self {
        Meeting { waiting: HashMap::new() }
    }
}

impl<P> Meeting<P> {
    /// A part of write `multi`, which has `parts` of them, came.
    pub fn arrive(&mut self, multi: u64, parts: u32, part: P, refusal: Option<Error>) -> Arrival<P> {
        if parts == 1 {
            return match refusal {
                None => Arrival::Complete(vec![part]),
                Some(error) => Arrival::Refused(vec![part], error),
            };
        }
        let gathered =
            self.waiting.entry(multi).or_insert_with(|| Gathered { parts: Vec::new(), refusal: None });
        gathered.parts.push(part);
        if gathered.refusal.is_none() {
            gathered.refusal = refusal;
        }
        if gathered.parts.len() < parts as usize {
            return Arrival::Waiting;
        }
        match self.waiting.remove(&multi) {
            Some(Gathered { parts, refusal: None }) => Arrival::Complete(parts),
            Some(Gathered { parts, refusal: Some(error) }) => Arrival::Refused(parts, error),
            None => Arrival::Waiting,
        }
    }

    /// How many writes wait for parts.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn parts_of_two_writes_meet_each_their_own() {
        let mut meeting = Meeting::default();
        assert_eq!(meeting.arrive(1, 2, "1a", None), Arrival::Waiting);
        assert_eq!(meeting.arrive(2, 2, "2a", None), Arrival::Waiting);
        assert_eq!(meeting.arrive(3, 1, "3a", None), Arrival::Complete(vec!["3a"]));
        assert_eq!(meeting.arrive(2, 2, "2b", None), Arrival::Complete(vec!["2a", "2b"]));
        assert_eq!(meeting.arrive(1, 2, "1b", None), Arrival::Complete(vec!["1a", "1b"]));
        assert!(meeting.is_empty());
    }

    #[test]
    fn one_refusal_lets_all_go_but_only_when_all_are_there() {
        let mut meeting = Meeting::default();
        let error = Error::new(Code::OutOfMemory, "full");
        assert_eq!(meeting.arrive(1, 3, 'a', None), Arrival::Waiting);
        assert_eq!(meeting.arrive(1, 3, 'b', Some(error.clone())), Arrival::Waiting);
        assert_eq!(meeting.arrive(1, 3, 'c', None), Arrival::Refused(vec!['a', 'b', 'c'], error));
    }
}
