//! A 128-bit hash that two JSON texts share exactly when they are the same data.
//!
//! Two values are equal when they differ only in white space, in the order of
//! object members, in how a string is escaped or in how a number is written.
//! The hash is built upwards (a Merkle tree), so that nothing is rewritten:
//!
//! | data   | hashed |
//! |--------|--------|
//! | string | its unescaped bytes |
//! | number | sign, digits without zeros at either end, the power of ten that they are multiplied with |
//! | array  | the hashes of its items |
//! | object | the hashes of its names and values, ordered by the name's hash; of equal names the last counts |
//!
//! A tag per kind keeps them apart. The hash is keyed and 128 bits long: nobody
//! outside can aim two values at one hash, and chance won't, so equal hashes
//! are taken for equal values and no value is compared.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::json::{read_string, skip_space, unescape};
use crate::limits::JSON_DEPTH_MAX;

/// What equal JSON values share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CanonicalHash(pub u64, pub u64);

/// The hash of a value's JSON text under a key of the node.
pub fn canonical_hash(hash_key: (u64, u64), json: &[u8]) -> CanonicalHash {
    let mut walker = Walker { hash_key, json, position: 0 };
    // Text that isn't JSON can't come here; were it to, it equals only itself.
    walker.value(0).unwrap_or_else(|| walker.digest(b'!', json))
}

struct Walker<'a> {
    hash_key: (u64, u64),
    json: &'a [u8],
    position: usize,
}

impl<'a> Walker<'a> {
    fn hasher(&self, tag: u8) -> SipHasher13 {
        let mut hasher = SipHasher13::new_with_keys(self.hash_key.0, self.hash_key.1);
        hasher.write(&[tag]);
        hasher
    }

    fn digest(&self, tag: u8, bytes: &[u8]) -> CanonicalHash {
        let mut hasher = self.hasher(tag);
        hasher.write(bytes);
        finish(&hasher)
    }

    /// The next byte that isn't white space, not yet consumed.
    fn peek(&mut self) -> Option<u8> {
        self.position = skip_space(self.json, self.position);
        self.json.get(self.position).copied()
    }

    fn value(&mut self, depth: usize) -> Option<CanonicalHash> {
        match self.peek()? {
            b'"' => self.string(),
            b'{' if depth <= JSON_DEPTH_MAX => self.object(depth),
            b'[' if depth <= JSON_DEPTH_MAX => self.array(depth),
            b'-' | b'0'..=b'9' => Some(self.number()),
            first @ (b't' | b'f' | b'n') => {
                self.take(|byte| byte.is_ascii_lowercase());
                Some(self.digest(first, b""))
            }
            _ => None,
        }
    }

    fn string(&mut self) -> Option<CanonicalHash> {
        let string = read_string(self.json, self.position + 1)?;
        self.position = string.next;
        if !string.escaped {
            return Some(self.digest(b'"', string.content));
        }
        let mut unescaped = Vec::with_capacity(string.content.len());
        unescape(string.content, &mut unescaped);
        Some(self.digest(b'"', &unescaped))
    }

    fn array(&mut self, depth: usize) -> Option<CanonicalHash> {
        let mut hasher = self.hasher(b'[');
        self.position += 1;
        if self.peek()? == b']' {
            self.position += 1;
            return Some(finish(&hasher));
        }
        loop {
            write_hash(&mut hasher, self.value(depth + 1)?);
            let separator = self.peek()?;
            self.position += 1;
            match separator {
                b',' => {}
                b']' => return Some(finish(&hasher)),
                _ => return None,
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<CanonicalHash> {
        let mut members = Vec::new();
        self.position += 1;
        let mut next = self.peek()?;
        while next != b'}' {
            if self.peek()? != b'"' {
                return None;
            }
            let name = self.string()?;
            if self.peek()? != b':' {
                return None;
            }
            self.position += 1;
            members.push((name, self.value(depth + 1)?));
            next = self.peek()?;
            match next {
                b',' => self.position += 1,
                b'}' => {}
                _ => return None,
            }
        }
        self.position += 1;
        // A stable sort: of equal names the last one is the last of its run.
        members.sort_by_key(|&(name, _)| name);
        let mut hasher = self.hasher(b'{');
        for (index, &(name, value)) in members.iter().enumerate() {
            if members.get(index + 1).is_none_or(|&(following, _)| following != name) {
                write_hash(&mut hasher, name);
                write_hash(&mut hasher, value);
            }
        }
        Some(finish(&hasher))
    }

    /// Consumes bytes while `belongs` says so.
    fn take(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let start = self.position;
        while self.json.get(self.position).is_some_and(|&byte| belongs(byte)) {
            self.position += 1;
        }
        &self.json[start..self.position]
    }

    fn number(&mut self) -> CanonicalHash {
        let negative = self.json[self.position] == b'-';
        self.position += usize::from(negative);
        let whole = self.take(|byte| byte.is_ascii_digit());
        let mut fraction: &[u8] = b"";
        let mut exponent = Exponent { negative: false, digits: b"" };
        if self.json.get(self.position) == Some(&b'.') {
            self.position += 1;
            fraction = self.take(|byte| byte.is_ascii_digit());
        }
        if matches!(self.json.get(self.position), Some(b'e' | b'E')) {
            self.position += 1;
            let sign = self.take(|byte| byte == b'-' || byte == b'+');
            exponent.negative = sign.first() == Some(&b'-');
            exponent.digits = strip_leading_zeros(self.take(|byte| byte.is_ascii_digit()));
        }
        let joined: Vec<u8>;
        let digits = if fraction.is_empty() {
            whole
        } else {
            joined = [whole, fraction].concat();
            &joined
        };
        self.number_digest(negative, digits, fraction.len(), exponent)
    }

    /// The hash of ±`digits` · 10^(`exponent` − `fraction_digits`).
    fn number_digest(
        &self,
        negative: bool,
        digits: &[u8],
        fraction_digits: usize,
        exponent: Exponent<'_>,
    ) -> CanonicalHash {
        let significant = strip_leading_zeros(digits);
        let zeros = significant.iter().rev().take_while(|&&digit| digit == b'0').count();
        let significant = &significant[..significant.len() - zeros];
        if significant.is_empty() {
            return self.digest(b'#', b"0");
        }
        let mut hasher = self.hasher(b'#');
        hasher.write(if negative { b"-" } else { b"+" });
        hasher.write(significant);
        hasher.write(b"e");
        let shift = zeros as i64 - fraction_digits as i64;
        if exponent.digits.is_empty() && (0..10).contains(&shift) {
            hasher.write(&[b'0' + shift as u8]);
        } else {
            hasher.write(exponent.plus(shift).as_bytes());
        }
        finish(&hasher)
    }
}

/// An exponent of any size: a magnitude in decimal digits without leading zeros.
struct Exponent<'a> {
    negative: bool,
    digits: &'a [u8],
}

impl Exponent<'_> {
    /// The sum in decimal, without a plus sign or leading zeros.
    fn plus(&self, shift: i64) -> String {
        // Eighteen digits and a shift no longer than a value's text can't overflow.
        if self.digits.len() <= 18 {
            let magnitude = self.digits.iter().fold(0i64, |sum, &digit| sum * 10 + i64::from(digit - b'0'));
            return (if self.negative { shift - magnitude } else { shift + magnitude }).to_string();
        }
        // Longer ones are larger than any shift: the sign stays, and one carry or borrow runs upwards.
        let mut digits = self.digits.to_vec();
        let step: i64 = if self.negative { -shift } else { shift };
        let mut carry = step;
        for digit in digits.iter_mut().rev() {
            if carry == 0 {
                break;
            }
            let sum = i64::from(*digit - b'0') + carry;
            *digit = b'0' + sum.rem_euclid(10) as u8;
            carry = sum.div_euclid(10);
        }
        let mut text = String::from(if self.negative { "-" } else { "" });
        if carry > 0 {
            text.push_str(&carry.to_string());
        } else {
            digits.drain(..digits.len() - strip_leading_zeros(&digits).len());
        }
        text.extend(digits.iter().map(|&digit| char::from(digit)));
        text
    }
}

fn strip_leading_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    &digits[zeros..]
}

fn write_hash(hasher: &mut SipHasher13, hash: CanonicalHash) {
    hasher.write_u64(hash.0);
    hasher.write_u64(hash.1);
}

fn finish(hasher: &SipHasher13) -> CanonicalHash {
    let hash = hasher.finish128();
    CanonicalHash(hash.h1, hash.h2)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn hash(json: &str) -> CanonicalHash {
        canonical_hash((1, 2), json.as_bytes())
    }

    #[test]
    fn numbers_are_equal_by_their_exact_value() {
        let equal: &[&[&str]] = &[
            &["1", "1.0", "1e0", "10e-1", "0.1e1", "1E+0", "1.000", "0.001e3", "100e-2", "1e-0"],
            &["0", "-0", "0.0", "-0.0e5", "0e999999999999999999999", "0E-1"],
            &["100", "1e2", "1.0E2", "10e1", "1000e-1"],
            &["-2.5", "-25e-1", "-0.25e1", "-250e-2"],
            &["1e999999999999999999999", "10e999999999999999999998", "0.1e1000000000000000000000"],
            &["1e-999999999999999999999", "10e-1000000000000000000000", "0.1e-999999999999999999998"],
            &["10e999999999999999999", "1e1000000000000000000"],
            &["1e-1000000000000000000", "0.1e-999999999999999999"],
            &["123e0000000000000000000000000000001", "1230"],
            &["9007199254740993", "9007199254740993.0", "9.007199254740993e15"],
        ];
        for (index, group) in equal.iter().enumerate() {
            for text in *group {
                assert_eq!(hash(text), hash(group[0]), "{text} = {}", group[0]);
                for other in &equal[index + 1..] {
                    assert_ne!(hash(text), hash(other[0]), "{text} ≠ {}", other[0]);
                }
            }
        }
        let different =
            ["9007199254740993", "9007199254740992", "1e999999999999999999999", "1e999999999999999999998"];
        for (index, left) in different.iter().enumerate() {
            for right in &different[index + 1..] {
                assert_ne!(hash(left), hash(right), "{left} ≠ {right}");
            }
        }
    }

    #[test]
    fn kinds_and_shapes_are_kept_apart() {
        let different = [
            "1",
            "\"1\"",
            "[1]",
            "[[1]]",
            "{\"1\":1}",
            "null",
            "true",
            "false",
            "\"null\"",
            "[]",
            "{}",
            "\"\"",
            "[\"\"]",
            "[1,2]",
            "[2,1]",
            "[12]",
            "[[1],2]",
            "[[1,2]]",
            "{\"a\":\"b\"}",
            "{\"b\":\"a\"}",
            "[\"a\",\"b\"]",
            "-1",
            "0",
            "\"-1\"",
            "\"+1e0\"",
            "\"A\"",
            "\"a\"",
            "\"é\"",
            "\"e\u{301}\"",
        ];
        for (index, left) in different.iter().enumerate() {
            for right in &different[index + 1..] {
                assert_ne!(hash(left), hash(right), "{left} ≠ {right}");
            }
        }
    }

    #[test]
    fn objects_strings_and_white_space() {
        assert_eq!(
            hash(r#"{"a":1,"b":[true,null]}"#),
            hash(" { \"b\" : [ true ,\n null ] , \"\\u0061\" : 1.0 } ")
        );
        assert_eq!(hash(r#"{"a":1,"a":2}"#), hash(r#"{"a":2}"#));
        assert_ne!(hash(r#"{"a":1,"a":2}"#), hash(r#"{"a":1}"#));
        assert_eq!(hash(r#""\u00e9\/\ud83d\ude00""#), hash("\"é/😀\""));
        assert_ne!(canonical_hash((1, 2), b"1"), canonical_hash((1, 3), b"1"));
        let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
        assert_eq!(hash(&deep), hash(&format!(" {deep}")));
        hash(&"[".repeat(1_000_000));
    }

    #[test]
    fn long_numbers_take_linear_time() {
        let digits = "7".repeat(1_000_000);
        assert_eq!(hash(&format!("1e{digits}")), hash(&format!("10e{}6", &digits[1..])));
        assert_eq!(hash(&format!("{digits}.0")), hash(&format!("{digits}0e-1")));
    }

    /// A canonical text made the slow way: numbers as an integer of unlimited
    /// digits with an exponent, objects as sorted maps.
    fn slow(value: &Model) -> String {
        match value {
            Model::Null => "null".to_owned(),
            Model::Bool(value) => value.to_string(),
            Model::Number(digits, exponent) => {
                let mut digits = *digits;
                let mut exponent = *exponent;
                while digits != 0 && digits % 10 == 0 {
                    digits /= 10;
                    exponent += 1;
                }
                if digits == 0 { "0e0".to_owned() } else { format!("{digits}e{exponent}") }
            }
            Model::Text(text) => format!("{text:?}"),
            Model::Array(items) => format!("{:?}", items.iter().map(slow).collect::<Vec<_>>()),
            Model::Object(members) => {
                let map: BTreeMap<&String, String> =
                    members.iter().map(|(name, item)| (name, slow(item))).collect();
                format!("{map:?}")
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Model {
        Null,
        Bool(bool),
        Number(i32, i32),
        Text(String),
        Array(Vec<Model>),
        Object(Vec<(String, Model)>),
    }

    /// One of many spellings of the value, chosen by `style`.
    fn spell(value: &Model, style: u32) -> String {
        let space = ["", " ", "\n\t"][style as usize % 3];
        match value {
            Model::Null => format!("{space}null"),
            Model::Bool(value) => format!("{value}{space}"),
            Model::Number(digits, exponent) => match style % 3 {
                0 => format!("{digits}e{exponent}"),
                1 => format!("{digits}.00E{exponent:+}"),
                _ => format!("{digits}000e{}", exponent - 3),
            },
            Model::Text(text) if style.is_multiple_of(2) => {
                serde_json::Value::from(text.as_str()).to_string()
            }
            Model::Text(text) => {
                format!(
                    "\"{}\"",
                    text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<String>()
                )
            }
            Model::Array(items) => {
                format!(
                    "[{space}{}]",
                    items.iter().map(|item| spell(item, style / 2)).collect::<Vec<_>>().join(",")
                )
            }
            Model::Object(members) => {
                let mut parts: Vec<String> = members
                    .iter()
                    .enumerate()
                    // Of equal names the last counts, so only the last may move.
                    .filter(|(index, (name, _))| !members[index + 1..].iter().any(|(other, _)| other == name))
                    .map(|(_, (name, item))| {
                        format!(
                            "{}{space}:{}",
                            spell(&Model::Text(name.clone()), style / 3),
                            spell(item, style / 5)
                        )
                    })
                    .collect();
                if style % 2 == 1 {
                    parts.reverse();
                }
                format!("{{{}{space}}}", parts.join(","))
            }
        }
    }

    fn models() -> impl Strategy<Value = Model> {
        let leaf = prop_oneof![
            Just(Model::Null),
            any::<bool>().prop_map(Model::Bool),
            (-30i32..30, -3i32..3).prop_map(|(digits, exponent)| Model::Number(digits, exponent)),
            r#"[ab"\\é😀]{0,2}"#.prop_map(Model::Text),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Model::Array),
                prop::collection::vec(("[abé]{0,1}", inner), 0..3).prop_map(Model::Object),
            ]
        })
    }

    proptest! {
        #[test]
        fn hashes_are_equal_exactly_when_the_data_is(
            left in models(), right in models(), styles in any::<(u32, u32)>(),
        ) {
            let (one, other) = (spell(&left, styles.0), spell(&right, styles.1));
            prop_assert_eq!(hash(&one) == hash(&other), slow(&left) == slow(&right), "{} and {}", one, other);
            prop_assert_eq!(hash(&one), hash(&spell(&left, styles.1)));
        }

        #[test]
        fn nonsense_is_hashed_without_a_panic(text in r#"[\\"u0-9a-f{}\[\]:,. eE+-]{0,40}"#) {
            hash(&text);
        }
    }
}
