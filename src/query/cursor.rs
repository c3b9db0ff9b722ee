//! Cursors: where the next page begins, as an opaque string.
//!
//! | pages ordered by | cursor |
//! |---|---|
//! | key | `k` and the last key |
//! | score, then key | `t`, what tells the search from others, the last score's 64 bits, the statistics that scores rest on, and the last key |
//!
//! A cursor says all that is needed: the node keeps nothing between pages, a
//! cursor outlives restarts, and a page goes on in the right place even when
//! the key it ended at is gone.
//!
//! Every write changes how common words are, and with that the scores of keys that stay as they are.
//! So a search's later pages are ranked by the statistics of its first one.

use std::fmt::Write as _;

use crate::error::{Code, Error};
use crate::indexing::TextStatistics;
use crate::limits::{KEY_BYTES_MAX, QUERY_BYTES_MAX};

/// Where a page of `search_text` ended.
#[derive(Clone, PartialEq, Debug)]
pub struct TextCursor<'a> {
    /// What the scores rest on.
    pub statistics: TextStatistics,
    /// The last hit's score, a finite number.
    pub score: f64,
    /// Its key.
    pub key: &'a [u8],
}

/// The cursor behind `key` in key order.
pub fn encode_key_cursor(key: &[u8]) -> String {
    format!("k{}", String::from_utf8_lossy(key))
}

/// The key that the page before ended with.
pub fn decode_key_cursor(cursor: &[u8]) -> Result<&[u8], Error> {
    cursor.strip_prefix(b"k").filter(|key| is_key(key)).ok_or_else(not_a_cursor)
}

impl<'a> TextCursor<'a> {
    /// `t`, then numbers in hexadecimal digits with points behind them: the search's fingerprint, the score's bits,
    /// documents, tokens, and the documents of each word with commas between them; then the key.
    pub fn encode(&self, fingerprint: u32) -> String {
        let TextStatistics { documents, tokens, document_frequency } = &self.statistics;
        let mut cursor = format!("t{fingerprint:x}.{:x}.{documents:x}.{tokens:x}.", self.score.to_bits());
        for (place, frequency) in document_frequency.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            // Writing to a string can't fail.
            let _ = write!(cursor, "{comma}{frequency:x}");
        }
        cursor.push('.');
        cursor.push_str(&String::from_utf8_lossy(self.key));
        cursor
    }

    /// Reads the cursor of the search that has this fingerprint.
    ///
    /// # Errors
    ///
    /// `bad_request`: it is none, or another search's.
    pub fn decode(cursor: &'a [u8], fingerprint: u32) -> Result<TextCursor<'a>, Error> {
        // A query has at most one term for two of its bytes.
        const CURSOR_BYTES_MAX: usize = KEY_BYTES_MAX + NUMBER_BYTES_MAX * (QUERY_BYTES_MAX / 2 + 4);
        let mut parts = cursor.strip_prefix(b"t").ok_or_else(not_a_cursor)?.splitn(2, |byte| *byte == b'.');
        let of = parts.next().and_then(hexadecimal).ok_or_else(not_a_cursor)?;
        let rest = parts.next().filter(|rest| rest.len() <= CURSOR_BYTES_MAX).ok_or_else(not_a_cursor)?;
        if of != u64::from(fingerprint) {
            let message = "`after` is the `next` of another `search_text`, or of a node of another version: `query`, \
                           `match` and `prefix` must be those of the page before";
            return Err(Error::new(Code::BadRequest, message));
        }
        TextCursor::parse(rest).ok_or_else(not_a_cursor)
    }

    /// What stands behind the fingerprint.
    fn parse(rest: &'a [u8]) -> Option<TextCursor<'a>> {
        let mut parts = rest.splitn(5, |byte| *byte == b'.');
        let mut number = || hexadecimal(parts.next()?);
        let score = f64::from_bits(number()?);
        let (documents, tokens) = (number()?, number()?);
        let frequencies = parts.next()?.split(|byte| *byte == b',').map(hexadecimal);
        let document_frequency = frequencies.collect::<Option<Vec<u64>>>()?;
        let key = parts.next().filter(|key| is_key(key) && score.is_finite())?;
        let statistics = TextStatistics { documents, tokens, document_frequency };
        Some(TextCursor { statistics, score, key })
    }
}

/// A number, and what stands behind it.
const NUMBER_BYTES_MAX: usize = 17;

/// Only what encoding writes: `from_str_radix` alone would take a plus sign and capitals.
fn hexadecimal(digits: &[u8]) -> Option<u64> {
    let is_digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    let digits = Some(digits).filter(|digits| digits.iter().all(is_digit))?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn is_key(key: &[u8]) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len()) && std::str::from_utf8(key).is_ok()
}

pub(super) fn not_a_cursor() -> Error {
    Error::new(Code::BadRequest, "`after` must be the `next` of an earlier page of the same operation")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn garbage_is_refused() {
        let long = format!("k{}", "x".repeat(KEY_BYTES_MAX + 1));
        let bad: &[&[u8]] =
            &[b"", b"k", b"x", b"kk\xff", b"key".strip_prefix(b"k").unwrap(), b"s1", long.as_bytes()];
        for cursor in bad {
            assert!(decode_key_cursor(cursor).is_err(), "{cursor:?}");
            assert!(TextCursor::decode(cursor, 1).is_err(), "{cursor:?}");
        }
        for cursor in [
            "t1.3ff0000000000000.2.9.1,1",
            "t1.3ff0000000000000.2.9.1,1.",
            "t1.3FF0000000000000.2.9.1,1.k",
            "t1.+ff0000000000000.2.9.1,1.k",
            "t1.7ff0000000000000.2.9.1,1.k",
            "t1.7ff8000000000000.2.9.1,1.k",
            "t1.3ff0000000000000.2.9.1,.k",
            "t1.3ff0000000000000.2.9..k",
            "t1.3ff0000000000000.2..1.k",
            "t1.3ff0000000000000.2.12345678901234567.1.k",
            "s3ff0000000000000k",
            "kkey",
        ] {
            assert!(TextCursor::decode(cursor.as_bytes(), 1).is_err(), "{cursor}");
        }
        let statistics = TextStatistics { documents: 2, tokens: 16, document_frequency: vec![1, 10] };
        let cursor = TextCursor { statistics, score: 1.0, key: b"k.1" };
        assert_eq!(TextCursor::decode(b"tff.3ff0000000000000.2.10.1,a.k.1", 255), Ok(cursor));
        let other = TextCursor::decode(b"tff.3ff0000000000000.2.10.1,a.k.1", 254).unwrap_err();
        assert!(other.message.contains("another `search_text`"), "{other:?}");
    }

    proptest! {
        #[test]
        fn a_cursor_says_what_it_was_made_of(
            key in "\\PC{1,20}", score in -1e300f64..1e300, numbers in prop::collection::vec(any::<u64>(), 3..9), fingerprint in any::<u32>(),
        ) {
            let cursor = encode_key_cursor(key.as_bytes());
            prop_assert_eq!(decode_key_cursor(cursor.as_bytes()).unwrap(), key.as_bytes());
            let (documents, tokens, document_frequency) = (numbers[0], numbers[1], numbers[2..].to_vec());
            let statistics = TextStatistics { documents, tokens, document_frequency };
            let cursor = TextCursor { statistics, score, key: key.as_bytes() };
            let encoded = cursor.encode(fingerprint);
            prop_assert_eq!(TextCursor::decode(encoded.as_bytes(), fingerprint), Ok(cursor.clone()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (decode_key_cursor(&bytes), TextCursor::decode(&bytes, 0));
        }
    }
}
