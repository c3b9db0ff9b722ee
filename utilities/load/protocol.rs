//! What a protocol has to do to be driven: write requests, and tell what a reply
//! says. Whether that is the right thing to say is judged here, once for all.

use std::borrow::Cow;

use super::data::Data;

/// Speaks to one kind of server. Each connection has a clone of its own.
pub trait Protocol: Clone {
    /// Whether the server says more than replies, of its own accord.
    const IS_CHATTY: bool = false;

    /// Writes a request that sets the key.
    fn set(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>);

    /// Writes a request that reads the key.
    fn get(&mut self, key: &[u8], out: &mut Vec<u8>);

    /// The reply at the beginning of the input, and the bytes it takes; `None`
    /// when it isn't there as a whole. The input isn't empty.
    fn reply<'a>(&mut self, input: &'a [u8]) -> Option<(Answer<'a>, usize)>;
}

/// What a reply says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The write happened.
    Stored,
    /// The value of the key.
    Found(Cow<'a, [u8]>),
    /// There is no such key.
    Missing,
    /// The request was refused.
    Refused(Refusal),
    /// Nothing that a set or a get is answered with.
    Unexpected(String),
}

/// An error that the server told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// The error's code.
    pub code: String,
    /// Whether the request happened, as far as the server says.
    pub outcome: String,
}

/// A request that has no reply yet.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The key's number.
    pub number: u64,
    /// Whether the key is read rather than written.
    pub is_read: bool,
}

/// A reply beside what was asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Right,
    /// A read that found no key.
    Missing,
    /// The server told an error.
    Refused(Refusal),
    /// The reply is not one to this request: what was wrong.
    Wrong(String),
}

/// Holds a reply against its request.
pub fn judge(asked: Asked, answer: Answer, data: &Data) -> Verdict {
    match answer {
        Answer::Stored if !asked.is_read => Verdict::Right,
        Answer::Found(value) if asked.is_read => {
            if data.is_value_of(asked.number, &value) {
                return Verdict::Right;
            }
            let shown = shown(&value);
            Verdict::Wrong(format!("key number {} was read as {shown}, which nobody wrote", asked.number))
        }
        Answer::Missing if asked.is_read => Verdict::Missing,
        Answer::Refused(refusal) => Verdict::Refused(refusal),
        Answer::Unexpected(text) => Verdict::Wrong(format!("not understood: {text}")),
        Answer::Stored => Verdict::Wrong("a read was answered as a write".into()),
        Answer::Found(_) | Answer::Missing => Verdict::Wrong("a write was answered as a read".into()),
    }
}

/// The beginning of what a server said, for a message.
pub fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES: usize = 200;
    format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::borrow::Cow;

    use super::{Answer, Asked, Protocol, Refusal, Verdict, judge};
    use crate::load::data::{Data, Values};

    /// All replies of a stream that comes in two parts, cut at every byte.
    pub fn cut_everywhere<P: Protocol>(protocol: &P, stream: &[u8], wanted: &[Answer]) {
        for cut in 0..=stream.len() {
            let mut protocol = protocol.clone();
            let mut answers = Vec::new();
            let mut start = 0;
            for end in [cut, stream.len()] {
                while start < end {
                    let Some((answer, taken)) = protocol.reply(&stream[start..end]) else { break };
                    assert!(taken > 0 && start + taken <= end, "cut at {cut}");
                    answers.push(answer);
                    start += taken;
                }
            }
            assert_eq!(start, stream.len(), "cut at {cut}");
            assert_eq!(answers, wanted, "cut at {cut}");
        }
    }

    #[test]
    fn a_reply_to_another_request_is_wrong() {
        let data = Data::new("key:", Values::Letters { value_bytes: 14 }).unwrap();
        let read = Asked { number: 5, is_read: true };
        let write = Asked { number: 5, is_read: false };
        let found = |text: &'static str| Answer::Found(Cow::Borrowed(text.as_bytes()));
        assert_eq!(judge(write, Answer::Stored, &data), Verdict::Right);
        assert_eq!(judge(read, found("000000000005ab"), &data), Verdict::Right);
        assert_eq!(judge(read, Answer::Missing, &data), Verdict::Missing);
        let refusal = Refusal { code: "overloaded".into(), outcome: "not_applied".into() };
        assert_eq!(judge(write, Answer::Refused(refusal.clone()), &data), Verdict::Refused(refusal));
        for (asked, answer) in [
            (read, found("000000000006ab")),
            (read, found("000000000005a")),
            (read, Answer::Stored),
            (write, found("000000000005ab")),
            (write, Answer::Missing),
            (write, Answer::Unexpected("PONG".into())),
        ] {
            let verdict = judge(asked, answer, &data);
            assert!(matches!(verdict, Verdict::Wrong(_)), "{verdict:?}");
        }
    }
}
