//! Cursors: where the next page begins, as an opaque string.
//!
//! | pages ordered by | cursor |
//! |---|---|
//! | key | `k` and the last key |
//! | score, then key | `s`, the score's 64 bits in 16 hexadecimal digits, and the last key |
//!
//! A cursor says all that is needed: the node keeps nothing between pages, a
//! cursor outlives restarts, and a page goes on in the right place even when
//! the key it ended at is gone.

use crate::error::{Code, Error};
use crate::limits::KEY_BYTES_MAX;

/// The last hit of a page of ranked results.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RankCursor<'a> {
    /// Its score, a finite number.
    pub score: f64,
    /// Its key.
    pub key: &'a [u8],
}

const SCORE_DIGITS: usize = 16;

/// The cursor behind `key` in key order.
pub fn encode_key_cursor(key: &[u8]) -> String {
    format!("k{}", String::from_utf8_lossy(key))
}

/// The key that the page before ended with.
pub fn decode_key_cursor(cursor: &[u8]) -> Result<&[u8], Error> {
    cursor.strip_prefix(b"k").filter(|key| is_key(key)).ok_or_else(not_a_cursor)
}

/// The cursor behind a hit in the order of ranked results.
pub fn encode_rank_cursor(score: f64, key: &[u8]) -> String {
    format!("s{:016x}{}", score.to_bits(), String::from_utf8_lossy(key))
}

/// The hit that the page before ended with.
pub fn decode_rank_cursor(cursor: &[u8]) -> Result<RankCursor<'_>, Error> {
    let parse = || {
        let (digits, key) = cursor.strip_prefix(b"s")?.split_at_checked(SCORE_DIGITS)?;
        // Only what encoding writes: `from_str_radix` alone would take a plus sign and capitals.
        if !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let score = f64::from_bits(u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        (score.is_finite() && is_key(key)).then_some(RankCursor { score, key })
    };
    parse().ok_or_else(not_a_cursor)
}

fn is_key(key: &[u8]) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len()) && std::str::from_utf8(key).is_ok()
}

fn not_a_cursor() -> Error {
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
            assert!(decode_rank_cursor(cursor).is_err(), "{cursor:?}");
        }
        for cursor in [
            "s3ff0000000000000",
            "s3FF0000000000000k",
            "s+ff0000000000000k",
            "s7ff0000000000000k",
            "s7ff8000000000000k",
            "s3ff000000000000é",
            "kkey",
        ] {
            assert!(decode_rank_cursor(cursor.as_bytes()).is_err(), "{cursor}");
        }
        assert_eq!(decode_rank_cursor(b"s3ff0000000000000k").unwrap(), RankCursor { score: 1.0, key: b"k" });
    }

    proptest! {
        #[test]
        fn a_cursor_says_what_it_was_made_of(key in "\\PC{1,20}", score in -1e300f64..1e300) {
            let cursor = encode_key_cursor(key.as_bytes());
            prop_assert_eq!(decode_key_cursor(cursor.as_bytes()).unwrap(), key.as_bytes());
            let cursor = encode_rank_cursor(score, key.as_bytes());
            prop_assert_eq!(decode_rank_cursor(cursor.as_bytes()).unwrap(), RankCursor { score, key: key.as_bytes() });
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (decode_key_cursor(&bytes), decode_rank_cursor(&bytes));
        }
    }
}
