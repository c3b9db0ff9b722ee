//! What is written: the keys, the values, and whether a value read is one that
//! was written.
//!
//! Both protocols get the same bytes. Nothing in them needs an escape in JSON.

use std::collections::BTreeSet;

use memchr::memchr_iter;

use crate::random::Random;

/// Digits of a key's number.
const DIGITS: usize = 12;
/// More keys than any run has: what twelve digits can number.
pub const KEYS_MAX: u64 = 1_000_000_000_000;
/// Words to choose from: about as many as a person uses in writing.
const DICTIONARY_WORDS: usize = 10_000;
/// Random letters that values are cut from.
const POOL_BYTES: usize = 1 << 16;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// So many bytes: the key's number, then random letters. A reader can tell
    /// whose value it got.
    Letters {
        /// The length of the value.
        value_bytes: usize,
    },
    /// So many words from a dictionary, chosen anew at every write.
    Words {
        /// The number of words.
        words: usize,
    },
}

/// Keys and values, made from a number and a source of random numbers.
pub struct Data {
    prefix: String,
    values: Values,
    pool: Vec<u8>,
    dictionary: Vec<String>,
}

impl Data {
    /// Keys `<prefix>000000000000` and up. The prefix goes into JSON as it is,
    /// so it may hold only what needs no escape.
    pub fn new(prefix: &str, values: Values) -> Result<Data, String> {
        if prefix.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
            return Err("the prefix of keys may not hold quotes, backslashes or control characters".into());
        }
        let mut random = Random::new(0x6461_7461);
        let (value_bytes, words) = match values {
            Values::Letters { value_bytes } => (value_bytes, 0),
            Values::Words { .. } => (0, DICTIONARY_WORDS),
        };
        let pool = (0..POOL_BYTES + value_bytes).map(|_| b'a' + random.below(26) as u8).collect();
        Ok(Data { prefix: prefix.into(), values, pool, dictionary: dictionary(words, &mut random) })
    }

    /// Writes the key of this number.
    pub fn key(&self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(&digits(number));
    }

    /// Writes a new value for the key of this number.
    pub fn value(&self, number: u64, random: &mut Random, out: &mut Vec<u8>) {
        match self.values {
            Values::Letters { value_bytes } => {
                let digits = &digits(number)[..];
                let owner = if value_bytes < DIGITS { &[][..] } else { digits };
                out.extend_from_slice(owner);
                let start = random.below(POOL_BYTES as u64) as usize;
                out.extend_from_slice(&self.pool[start..start + value_bytes - owner.len()]);
            }
            Values::Words { words } => {
                for place in 0..words {
                    if place > 0 {
                        out.push(b' ');
                    }
                    let word = random.below(self.dictionary.len() as u64) as usize;
                    out.extend_from_slice(self.dictionary[word].as_bytes());
                }
            }
        }
    }

    /// Whether this may have been written for the key of this number. Words are
    /// only counted: which ones the last write chose, nobody has kept.
    pub fn is_value_of(&self, number: u64, value: &[u8]) -> bool {
        match self.values {
            Values::Letters { value_bytes } => {
                value.len() == value_bytes && (value_bytes < DIGITS || value.starts_with(&digits(number)))
            }
            Values::Words { words } => memchr_iter(b' ', value).count() + 1 == words.max(1),
        }
    }
}

/// The numbers below 100 as two digits each.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// The number, with leading zeroes: two digits at a time, since it is made twice
/// for each request.
fn digits(mut number: u64) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    for pair in digits.chunks_exact_mut(2).rev() {
        pair.copy_from_slice(&PAIRS[(number % 100) as usize]);
        number /= 100;
    }
    digits
}

/// Words of two to four syllables, none of them twice.
fn dictionary(words: usize, random: &mut Random) -> Vec<String> {
    const CONSONANTS: &[u8] = b"bcdfghjklmnprstvwz";
    const VOWELS: &[u8] = b"aeiou";
    let mut dictionary = BTreeSet::new();
    while dictionary.len() < words {
        let mut word = String::new();
        for _ in 0..2 + random.below(3) {
            for letters in [CONSONANTS, VOWELS] {
                word.push(char::from(letters[random.below(letters.len() as u64) as usize]));
            }
        }
        dictionary.insert(word);
    }
    dictionary.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::{Data, Values};
    use crate::random::Random;

    #[test]
    fn a_value_names_its_key() {
        let data = Data::new("key:", Values::Letters { value_bytes: 32 }).unwrap();
        let (mut key, mut value) = (Vec::new(), Vec::new());
        data.key(71, &mut key);
        data.value(71, &mut Random::new(1), &mut value);
        assert_eq!(key, b"key:000000000071");
        assert_eq!(value.len(), 32);
        assert!(value.starts_with(b"000000000071"));
        assert!(data.is_value_of(71, &value));
        assert!(!data.is_value_of(72, &value), "another key's value");
        assert!(!data.is_value_of(71, &value[..31]), "a short value");
    }

    #[test]
    fn numbers_have_twelve_digits() {
        for number in [0, 9, 10, 99, 100, 123_456_789, super::KEYS_MAX - 1] {
            assert_eq!(super::digits(number), format!("{number:012}").as_bytes());
        }
    }

    #[test]
    fn short_values_have_their_length() {
        for value_bytes in 0..40 {
            let data = Data::new("", Values::Letters { value_bytes }).unwrap();
            let mut value = Vec::new();
            data.value(3, &mut Random::new(1), &mut value);
            assert_eq!(value.len(), value_bytes);
            assert!(data.is_value_of(3, &value));
        }
    }

    #[test]
    fn words_change_at_every_write() {
        let data = Data::new("key:", Values::Words { words: 5 }).unwrap();
        let mut random = Random::new(1);
        let mut write = || {
            let mut value = Vec::new();
            data.value(1, &mut random, &mut value);
            String::from_utf8(value).unwrap()
        };
        let (first, second) = (write(), write());
        assert_ne!(first, second);
        for value in [first, second] {
            assert_eq!(value.split(' ').filter(|word| word.len() >= 4).count(), 5, "{value}");
            assert!(data.is_value_of(9, value.as_bytes()));
        }
        assert!(!data.is_value_of(9, b"four words are wrong"));
    }

    #[test]
    fn a_prefix_that_needs_an_escape_is_refused() {
        for prefix in ["a\"b", "a\\b", "a\nb"] {
            assert!(Data::new(prefix, Values::Words { words: 1 }).is_err(), "{prefix:?}");
        }
    }
}
