//! An import's input: lines, and the records that they are.

use std::io::{self, BufRead};

use datastore::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX, VECTOR_LENGTH_MAX};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Longer than the line of any record that the node takes.
const LINE_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX;

/// A record as it stands on its line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub key: String,
    /// The value's text; `Some` for `null`, too.
    #[serde(default, deserialize_with = "present")]
    pub value: Option<Box<RawValue>>,
    pub vector: Option<Vec<f32>>,
    /// What an export says of it. The node gives its own.
    #[serde(default, rename = "version")]
    _version: Option<String>,
}

/// Keeps `null` as a value: an absent field is the `None`.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl Record {
    /// Reads a line; an error says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Record, String> {
        let record: Record = serde_json::from_slice(line).map_err(|error| {
            format!("expected {{\"key\":…,\"value\":…}}, with a \"vector\" beside the value or in its place: {error}")
        })?;
        record.check()?;
        Ok(record)
    }

    /// What the node would refuse, told before anything behind it is sent.
    fn check(&self) -> Result<(), String> {
        if self.key.is_empty() || self.key.len() > KEY_BYTES_MAX {
            return Err(format!("a key has 1 to {KEY_BYTES_MAX} bytes, this one {}", self.key.len()));
        }
        if let Some(value) = self.value.as_deref().filter(|value| value.get().len() > VALUE_BYTES_MAX) {
            return Err(format!(
                "a value has at most {VALUE_BYTES_MAX} bytes, this one {}",
                value.get().len()
            ));
        }
        match &self.vector {
            None if self.value.is_none() => Err("neither a value nor a vector".to_string()),
            Some(vector) if vector.is_empty() || vector.len() > VECTOR_LENGTH_MAX => {
                Err(format!("a vector has 1 to {VECTOR_LENGTH_MAX} numbers, this one {}", vector.len()))
            }
            Some(vector) if vector.iter().any(|number| !number.is_finite()) => {
                Err("a vector's number is too large for 32 bits".to_string())
            }
            Some(vector) if vector.iter().all(|number| *number == 0.0) => {
                Err("a vector's numbers are not all zero".to_string())
            }
            _ => Ok(()),
        }
    }
}

/// A place in the input: behind so many bytes and lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub offset: u64,
    pub line: u64,
}

/// The input line by line.
pub struct Lines<R> {
    input: R,
    place: Place,
}

impl<R: BufRead> Lines<R> {
    /// An input that stands at `place` already.
    pub fn new(input: R, place: Place) -> Lines<R> {
        Lines { input, place }
    }

    /// Behind the line that was read last.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The next line without its newline, or why it can't be one; `None` at the end.
    pub fn next_line(&mut self) -> io::Result<Option<Result<Vec<u8>, String>>> {
        let mut line = Vec::new();
        let mut too_long = false;
        let mut ended = false;
        let begin = self.place.offset;
        while !ended {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                break;
            }
            let newline = memchr::memchr(b'\n', available);
            let taken = newline.map_or(available.len(), |at| at + 1);
            ended = newline.is_some();
            too_long |= line.len() + taken > LINE_BYTES_MAX;
            if !too_long {
                line.extend_from_slice(&available[..taken]);
            }
            self.input.consume(taken);
            self.place.offset += taken as u64;
        }
        if self.place.offset == begin {
            return Ok(None);
        }
        self.place.line += 1;
        if too_long {
            return Ok(Some(Err(format!("the line is longer than {LINE_BYTES_MAX} bytes"))));
        }
        if ended {
            line.pop();
        }
        Ok(Some(Ok(line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_as_it_stands() {
        let record =
            Record::parse(br#"{"key":"k","value":{ "a":1.50 },"vector":[1],"version":"1.0"}"#).unwrap();
        assert_eq!(record.value.unwrap().get(), r#"{ "a":1.50 }"#);
        assert_eq!(record.vector.unwrap(), [1.0]);
        assert_eq!(Record::parse(br#"{"key":"k","value":null}"#).unwrap().value.unwrap().get(), "null");
    }

    #[test]
    fn what_is_no_record_is_refused_with_a_reason() {
        let cases: [(&str, &str); 7] = [
            ("{", "expected"),
            (r#"{"key":"k"}"#, "neither"),
            (r#"{"key":"","value":1}"#, "1 to 4096"),
            (r#"{"key":"k","valeu":1}"#, "valeu"),
            (r#"{"key":"k","vector":[]}"#, "1 to 4096"),
            (r#"{"key":"k","vector":[0,0]}"#, "all zero"),
            (r#"{"key":"k","vector":[1e60]}"#, "32 bits"),
        ];
        for (line, reason) in cases {
            let said = Record::parse(line.as_bytes()).unwrap_err();
            assert!(said.contains(reason), "{line}: {said}");
        }
    }

    #[test]
    fn lines_are_counted_and_a_long_one_is_passed_over() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let text = format!("a\n\n{long}\nend");
        let mut lines = Lines::new(text.as_bytes(), Place::default());
        assert_eq!(lines.next_line().unwrap(), Some(Ok(b"a".to_vec())));
        assert_eq!(lines.place(), Place { offset: 2, line: 1 });
        assert_eq!(lines.next_line().unwrap(), Some(Ok(Vec::new())));
        assert!(lines.next_line().unwrap().unwrap().is_err());
        assert_eq!(lines.next_line().unwrap(), Some(Ok(b"end".to_vec())));
        assert_eq!(lines.place(), Place { offset: text.len() as u64, line: 4 });
        assert_eq!(lines.next_line().unwrap(), None);
    }
}
