//! What a write does, as the log carries it: effects, not conditions.
//!
//! The payload of a log entry is a row of requests; a request's ordinal is its
//! place in that row, and together with the entry's index it is the version of
//! every key that it writes. All lengths are LEB128.
//!
//! ```text
//! payload = request*            request = effects:leb128  effect*
//! effect  = kind:u8  key_length:leb128  key  [body_length:leb128  body]
//!           0 delete          (no body)
//!           1 set             body = the value's JSON text
//!           2 add_vector      body = little-endian f32s
//! ```
//!
//! An effect is idempotent: applied again at the same version it changes nothing.

use std::fmt;

const KIND_DELETE: u8 = 0;
const KIND_SET: u8 = 1;
const KIND_ADD_VECTOR: u8 = 2;

/// One key's write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect<'a> {
    /// Removes value and vector.
    Delete {
        /// The key's UTF-8.
        key: &'a [u8],
    },
    /// Replaces the value, leaves the vector.
    Set {
        /// The key's UTF-8.
        key: &'a [u8],
        /// The value's JSON text.
        value: &'a [u8],
    },
    /// Replaces the vector, leaves the value.
    AddVector {
        /// The key's UTF-8.
        key: &'a [u8],
        /// Little-endian f32s, 4 bytes each.
        vector: &'a [u8],
    },
}

impl<'a> Effect<'a> {
    /// The key that the effect writes.
    pub fn key(&self) -> &'a [u8] {
        match *self {
            Effect::Delete { key } | Effect::Set { key, .. } | Effect::AddVector { key, .. } => key,
        }
    }
}

/// Begins a request of `effects` effects.
pub fn encode_request_header(out: &mut Vec<u8>, effects: usize) {
    encode_length(out, effects);
}

/// Appends one effect.
pub fn encode_effect(out: &mut Vec<u8>, effect: &Effect<'_>) {
    let (kind, key, body) = match *effect {
        Effect::Delete { key } => (KIND_DELETE, key, None),
        Effect::Set { key, value } => (KIND_SET, key, Some(value)),
        Effect::AddVector { key, vector } => (KIND_ADD_VECTOR, key, Some(vector)),
    };
    out.push(kind);
    encode_length(out, key.len());
    out.extend_from_slice(key);
    if let Some(body) = body {
        encode_length(out, body.len());
        out.extend_from_slice(body);
    }
}

fn encode_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// A payload that is not what this format allows. Its frame's checksum was
/// right, so this is a fault of the writer and never of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Where in the payload, in bytes.
    pub offset: usize,
    /// What was expected there.
    pub expected: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "log payload: expected {} at byte {}", self.expected, self.offset)
    }
}

impl std::error::Error for DecodeError {}

/// Reads a payload effect by effect, each with its request's ordinal.
pub struct Requests<'a> {
    payload: &'a [u8],
    offset: usize,
    ordinal: u32,
    effects_left: usize,
    started: bool,
}

impl<'a> Requests<'a> {
    /// Reads `payload` from its beginning.
    pub fn new(payload: &'a [u8]) -> Requests<'a> {
        Requests { payload, offset: 0, ordinal: 0, effects_left: 0, started: false }
    }

    fn fail<T>(&self, expected: &'static str) -> Result<T, DecodeError> {
        Err(DecodeError { offset: self.offset, expected })
    }

    fn length(&mut self) -> Result<usize, DecodeError> {
        let mut length = 0usize;
        for shift in (0..35).step_by(7) {
            let Some(&byte) = self.payload.get(self.offset) else {
                return self.fail("a length");
            };
            self.offset += 1;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(length);
            }
        }
        self.fail("a length of at most 5 bytes")
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.length()?;
        match self.payload.get(self.offset..self.offset + length) {
            Some(bytes) => {
                self.offset += length;
                Ok(bytes)
            }
            None => self.fail("as many bytes as the length says"),
        }
    }

    fn effect(&mut self) -> Result<Effect<'a>, DecodeError> {
        let Some(&kind) = self.payload.get(self.offset) else {
            return self.fail("an effect");
        };
        self.offset += 1;
        let key = self.bytes()?;
        match kind {
            KIND_DELETE => Ok(Effect::Delete { key }),
            KIND_SET => Ok(Effect::Set { key, value: self.bytes()? }),
            KIND_ADD_VECTOR => {
                let vector = self.bytes()?;
                if vector.len() % 4 != 0 {
                    return self.fail("a vector of whole numbers of 4 bytes");
                }
                Ok(Effect::AddVector { key, vector })
            }
            _ => self.fail("an effect of kind 0, 1 or 2"),
        }
    }

    fn step(&mut self) -> Result<Option<(u32, Effect<'a>)>, DecodeError> {
        while self.effects_left == 0 {
            if self.offset == self.payload.len() {
                return Ok(None);
            }
            if self.started {
                self.ordinal += 1;
            }
            self.started = true;
            self.effects_left = self.length()?;
        }
        self.effects_left -= 1;
        Ok(Some((self.ordinal, self.effect()?)))
    }
}

impl<'a> Iterator for Requests<'a> {
    type Item = Result<(u32, Effect<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            // After an error there is nothing sensible left to read.
            self.offset = self.payload.len();
            self.effects_left = 0;
        }
        step.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_comes_back_with_its_ordinals() {
        let long = vec![b'x'; 300];
        let vector: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        let requests: [&[Effect<'_>]; 3] = [
            &[Effect::Set { key: b"a", value: &long }],
            &[],
            &[Effect::Delete { key: b"b" }, Effect::AddVector { key: b"c", vector: &vector }],
        ];
        let mut payload = Vec::new();
        for effects in requests {
            encode_request_header(&mut payload, effects.len());
            effects.iter().for_each(|effect| encode_effect(&mut payload, effect));
        }
        let read: Result<Vec<_>, _> = Requests::new(&payload).collect();
        assert_eq!(read.unwrap(), vec![(0, requests[0][0]), (2, requests[2][0]), (2, requests[2][1])]);
    }

    #[test]
    fn every_cut_payload_is_an_error_or_ends_at_a_request() {
        let mut payload = Vec::new();
        encode_request_header(&mut payload, 1);
        encode_effect(&mut payload, &Effect::Set { key: b"key", value: b"12" });
        for end in 1..payload.len() {
            let last = Requests::new(&payload[..end]).last();
            assert!(matches!(last, Some(Err(_))), "cut at {end}: {last:?}");
        }
    }
}
