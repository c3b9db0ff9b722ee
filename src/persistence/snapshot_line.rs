//! One entry as a line of a snapshot, written and read by hand.
//!
//! ```text
//! {"key":"k","version":[7,0],"vector":[1.5,-2.0],"value":{"a":1}}
//!                            └── absent without ──┘└─ absent w/o ┘
//! {"key":"k","version":[7,3],"value_version":[6,2],"vector":[1.5,-2.0],"value":1}
//! {"key":"k","version":[7,3]}
//! {"key":"k","version":[7,3],"value_version":[7,3]}
//! ```
//!
//! In dynamo mode the part that is older than the entry's version has one of its
//! own (`value_version` or `vector_version`), and a line with neither part is a
//! tombstone. One of a key that was not there has a `value_version` as well, without
//! a value: versions that don't count such tombstones read any.
//!
//! The line is JSON for everybody else. Here it is read as exactly what is
//! written: these fields in this order without white space, and in keys only the
//! escapes `\"`, `\\` and `\u00XX` (control characters). The value stands last
//! and as it came: it ends where the line does, and is not parsed. It has no
//! newline, for it came in a line itself.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use crate::engine::{Entry, Version};
use crate::limits::{KEY_BYTES_MAX, VECTOR_LENGTH_MAX};

const KEY: &[u8] = b"{\"key\":\"";
const VERSION: &[u8] = b"\",\"version\":[";
const VALUE_VERSION: &[u8] = b",\"value_version\":[";
const VECTOR_VERSION: &[u8] = b",\"vector_version\":[";
const VECTOR: &[u8] = b",\"vector\":[";
const VALUE: &[u8] = b",\"value\":";
const HEX: &[u8; 16] = b"0123456789abcdef";

/// An entry read from a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotLine<'a> {
    /// The key's UTF-8.
    pub key: Cow<'a, [u8]>,
    /// Its version.
    pub version: Version,
    /// The value's JSON text.
    pub value: Option<&'a [u8]>,
    /// The vector.
    pub vector: Option<Vec<f32>>,
    /// The value's own version, where it is older.
    pub value_version: Option<Version>,
    /// The vector's own version, where it is older.
    pub vector_version: Option<Version>,
}

impl SnapshotLine<'_> {
    /// The entry, or tombstone, that the line stands for.
    pub fn entry(&self) -> Entry {
        if self.value.is_none() && self.vector.is_none() && self.value_version.is_some() {
            return Entry::tombstone_of_absent(self.version, &self.key);
        }
        if self.value_version.is_none() && self.vector_version.is_none() {
            return Entry::new(self.version, &self.key, self.value, self.vector.as_deref());
        }
        let vector: Vec<u8> = self.vector.iter().flatten().flat_map(|number| number.to_ne_bytes()).collect();
        let of = |version: Option<Version>| version.unwrap_or(self.version);
        let value = self.value.map(|value| (of(self.value_version), value));
        let vector = self.vector.is_some().then_some((of(self.vector_version), &vector[..]));
        Entry::of_parts(&self.key, value, vector).unwrap_or_else(|| Entry::tombstone(self.version, &self.key))
    }
}

/// A line that no snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineError {
    /// Where in the line.
    pub offset: usize,
    /// What was expected there.
    pub expected: &'static str,
}

impl fmt::Display for LineError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "expected {} at byte {}", self.expected, self.offset)
    }
}

impl std::error::Error for LineError {}

/// Appends the entry's line with its newline.
pub(super) fn write_line(out: &mut Vec<u8>, entry: &Entry) {
    out.extend_from_slice(KEY);
    write_escaped(out, entry.key());
    out.extend_from_slice(VERSION);
    let version = entry.version();
    // Writing to a Vec can't fail.
    let _ = write!(out, "{},{}]", version.index, version.ordinal);
    if entry.is_tombstone_of_absent() {
        out.extend_from_slice(VALUE_VERSION);
        let _ = write!(out, "{},{}]", version.index, version.ordinal);
    }
    let parts = [(VALUE_VERSION, entry.value_part()), (VECTOR_VERSION, entry.vector_part())];
    for (name, part) in parts {
        if let Some((older, _)) = part.filter(|(part, _)| *part != version) {
            out.extend_from_slice(name);
            let _ = write!(out, "{},{}]", older.index, older.ordinal);
        }
    }
    if let Some(vector) = entry.vector() {
        out.extend_from_slice(VECTOR);
        for (place, number) in vector.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            // The shortest text that reads back as the same number.
            let _ = write!(out, "{number:?}");
        }
        out.push(b']');
    }
    if let Some(value) = entry.value() {
        out.extend_from_slice(VALUE);
        out.extend_from_slice(value);
    }
    out.extend_from_slice(b"}\n");
}

fn write_escaped(out: &mut Vec<u8>, key: &[u8]) {
    for &byte in key {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
}

/// Reads a line without its newline. Any bytes may be given; what is returned
/// keeps the limits of keys and vectors.
pub fn parse_line(line: &[u8]) -> Result<SnapshotLine<'_>, LineError> {
    let mut cursor = Cursor { line, offset: 0 };
    cursor.literal(KEY, "{\"key\":\"")?;
    let key = cursor.key()?;
    cursor.literal(VERSION, "\",\"version\":[")?;
    let version = cursor.version()?;
    let value_version = if cursor.skip(VALUE_VERSION) { Some(cursor.version()?) } else { None };
    let vector_version = if cursor.skip(VECTOR_VERSION) { Some(cursor.version()?) } else { None };
    let vector = if cursor.skip(VECTOR) { Some(cursor.vector()?) } else { None };
    let value = if cursor.skip(VALUE) { Some(cursor.value()?) } else { None };
    cursor.literal(b"}", "}")?;
    if cursor.offset != line.len() {
        return cursor.fail("the end of the line");
    }
    Ok(SnapshotLine { key, version, value, vector, value_version, vector_version })
}

struct Cursor<'a> {
    line: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn fail<T>(&self, expected: &'static str) -> Result<T, LineError> {
        Err(LineError { offset: self.offset, expected })
    }

    fn rest(&self) -> &'a [u8] {
        &self.line[self.offset..]
    }

    fn skip(&mut self, literal: &[u8]) -> bool {
        let found = self.rest().starts_with(literal);
        if found {
            self.offset += literal.len();
        }
        found
    }

    fn literal(&mut self, literal: &[u8], expected: &'static str) -> Result<(), LineError> {
        if self.skip(literal) { Ok(()) } else { self.fail(expected) }
    }

    /// The key up to its closing quote, which stays. Nearly always it has no escape and is not copied.
    fn key(&mut self) -> Result<Cow<'a, [u8]>, LineError> {
        let rest = self.rest();
        let Some(end) = rest.iter().position(|&byte| byte == b'"' || byte == b'\\') else {
            return self.fail("the end of the key");
        };
        self.offset += end;
        let mut key = Cow::Borrowed(&rest[..end]);
        while self.rest().first() == Some(&b'\\') {
            let byte = self.escaped()?;
            let rest = self.rest();
            let end = rest.iter().position(|&byte| byte == b'"' || byte == b'\\').unwrap_or(rest.len());
            key.to_mut().push(byte);
            key.to_mut().extend_from_slice(&rest[..end]);
            self.offset += end;
        }
        if key.len() > KEY_BYTES_MAX { self.fail("a shorter key") } else { Ok(key) }
    }

    fn escaped(&mut self) -> Result<u8, LineError> {
        let (length, byte) = match *self.rest() {
            [b'\\', byte @ (b'"' | b'\\'), ..] => (2, Some(byte)),
            [b'\\', b'u', b'0', b'0', high, low, ..] => {
                let digit = |digit| HEX.iter().position(|&hex| hex == digit).map(|value| value as u8);
                (6, digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low))
            }
            _ => (0, None),
        };
        match byte.filter(|&byte| length == 2 || byte < 0x20) {
            Some(byte) => {
                self.offset += length;
                Ok(byte)
            }
            None => self.fail("an escape of this format"),
        }
    }

    fn number(&mut self, expected: &'static str) -> Result<u64, LineError> {
        let start = self.offset;
        let mut number = 0u64;
        while let Some(digit) = self.rest().first().filter(|byte| byte.is_ascii_digit()) {
            let next = number.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(digit - b'0')));
            let Some(next) = next else { return self.fail(expected) };
            number = next;
            self.offset += 1;
        }
        if self.offset == start { self.fail(expected) } else { Ok(number) }
    }

    /// Index and ordinal, with the bracket behind them.
    fn version(&mut self) -> Result<Version, LineError> {
        let index = self.number("an index")?;
        self.literal(b",", "a comma")?;
        let ordinal = self.number("an ordinal")?;
        let ordinal = u32::try_from(ordinal).or_else(|_| self.fail("an ordinal of 32 bits"))?;
        self.literal(b"]", "]")?;
        Ok(Version { index, ordinal })
    }

    fn vector(&mut self) -> Result<Vec<f32>, LineError> {
        let rest = self.rest();
        let Some(end) = rest.iter().position(|&byte| byte == b']') else {
            return self.fail("the end of the vector");
        };
        let mut vector = Vec::with_capacity((end / 8).min(VECTOR_LENGTH_MAX));
        for text in rest[..end].split(|&byte| byte == b',') {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f32>().ok());
            let Some(number) = number.filter(|number| number.is_finite() && vector.len() < VECTOR_LENGTH_MAX)
            else {
                return self.fail("a vector of finite numbers");
            };
            vector.push(number);
        }
        self.offset += end + 1;
        Ok(vector)
    }

    /// All up to the line's last byte, which stays.
    fn value(&mut self) -> Result<&'a [u8], LineError> {
        let rest = self.rest();
        if rest.len() < 2 {
            return self.fail("a value");
        }
        self.offset = self.line.len() - 1;
        Ok(&rest[..rest.len() - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &[u8], value: Option<&[u8]>, vector: Option<&[f32]>) -> Entry {
        Entry::new(Version { index: u64::MAX, ordinal: u32::MAX }, key, value, vector)
    }

    #[test]
    fn every_entry_comes_back_and_its_line_is_json() {
        let keys: [&[u8]; 5] = [b"", b"k", "ключ".as_bytes(), b"a\"\\\x00\x1f\n/\x7f", b"\\\\\"\""];
        let extremes = [f32::MAX, f32::MIN_POSITIVE, 1e-45, -0.0, 0.1, 16_777_217.0, -1.0 / 3.0];
        for key in keys {
            for value in [None, Some(&b"\"x\""[..]), Some(b"{ \"vector\":[1],\r\t\"value\":2 }")] {
                for vector in [None, Some(&extremes[..]), Some(&[1.0f32][..])] {
                    if value.is_none() && vector.is_none() {
                        continue;
                    }
                    let entry = entry(key, value, vector);
                    let mut line = Vec::new();
                    write_line(&mut line, &entry);
                    let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
                    assert_eq!(json["key"].as_str().unwrap().as_bytes(), key);
                    let read = parse_line(&line[..line.len() - 1]).unwrap();
                    assert_eq!((&*read.key, read.version, read.value), (key, entry.version(), value));
                    let bits =
                        |numbers: &[f32]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
                    assert_eq!(read.vector.as_deref().map(bits), vector.map(bits));
                }
            }
        }
    }

    #[test]
    fn parts_that_were_written_apart_and_tombstones_come_back() {
        let (older, newer) = (Version { index: 5, ordinal: 7 }, Version { index: 6, ordinal: 1 });
        let vector = 1.5f32.to_ne_bytes();
        for (of_value, of_vector) in [(older, newer), (newer, older), (newer, newer)] {
            let entry = Entry::of_parts(b"k", Some((of_value, b"1")), Some((of_vector, &vector))).unwrap();
            let mut line = Vec::new();
            write_line(&mut line, &entry);
            let read = parse_line(&line[..line.len() - 1]).unwrap().entry();
            assert_eq!((read.value_part(), read.vector_part()), (entry.value_part(), entry.vector_part()));
        }
        let mut line = Vec::new();
        write_line(&mut line, &Entry::tombstone(older, b"k"));
        assert_eq!(line, b"{\"key\":\"k\",\"version\":[5,7]}\n");
        let read = parse_line(&line[..line.len() - 1]).unwrap().entry();
        assert!(read.is_tombstone() && read.version() == older && !read.is_tombstone_of_absent());
        let mut line = Vec::new();
        write_line(&mut line, &Entry::tombstone_of_absent(older, b"k"));
        assert_eq!(line, b"{\"key\":\"k\",\"version\":[5,7],\"value_version\":[5,7]}\n");
        let read = parse_line(&line[..line.len() - 1]).unwrap().entry();
        assert!(read.is_tombstone_of_absent() && read.version() == older);
    }

    #[test]
    fn a_changed_line_never_panics() {
        let mut line = Vec::new();
        write_line(&mut line, &entry(b"k\"\x01", Some(b"1"), Some(&[1.0, -2.5])));
        for place in 0..line.len() {
            let _ = parse_line(&line[..place]);
            for byte in 0..=255 {
                let mut changed = line.clone();
                changed[place] = byte;
                let _ = parse_line(&changed);
            }
        }
    }
}
