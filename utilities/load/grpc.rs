//! etcd's protocol, as far as a put needs it: gRPC, which is HTTP/2 with a message
//! of Protocol Buffers in each direction.
//!
//! ```text
//! connection   preface, SETTINGS, WINDOW_UPDATE        all ◄── SETTINGS, PING, WINDOW_UPDATE …
//! request n    HEADERS(2n+1), DATA(2n+1, end)
//! reply                                     HEADERS(s), DATA(s), HEADERS(s, end: the status)
//! ```
//!
//! Each request is a stream of its own, and replies come in any order. They are
//! told apart by their kind alone, which is enough: a put that failed is answered
//! with a status and no message. That as many puts happened as were answered can
//! be held to the revision of the store.

use std::collections::BTreeSet;

use super::protocol::{Answer, Protocol, Refusal, shown};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// What precedes a message of gRPC: whether it is compressed, and its length.
const MESSAGE_HEADER_BYTES: usize = 5;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Room for the replies of a connection's whole life: it never has to give any
/// back. The most that HTTP/2 allows, less the 65,535 bytes that it begins with.
const WINDOW_BYTES: u32 = 0x7fff_ffff - 65_535;

/// `:method: POST` and `:scheme: http`, which every HTTP/2 peer knows by number.
const METHOD_AND_SCHEME: [u8; 2] = [0x83, 0x86];
/// The four headers below by the numbers that the first request gave them.
const KNOWN_HEADERS: [u8; 4] = [0xc1, 0xc0, 0xbf, 0xbe];

/// Puts to etcd.
#[derive(Clone, Default)]
pub struct EtcdPuts {
    /// Requests so far.
    begun: u32,
    /// Streams that have had a message and not yet a status.
    with_message: BTreeSet<u32>,
}

impl EtcdPuts {
    /// The headers of the next request. The first one spells them out, and the
    /// server keeps them: from the second one on each is a byte.
    fn headers(&self) -> Vec<u8> {
        let mut headers = METHOD_AND_SCHEME.to_vec();
        if self.begun > 0 {
            headers.extend_from_slice(&KNOWN_HEADERS);
            return headers;
        }
        // A literal that is to be kept: the name by its number, or spelled out.
        let mut literal = |number: u8, name: &str, value: &str| {
            headers.push(0x40 | number);
            for text in [name, value].iter().filter(|text| !text.is_empty()) {
                headers.push(text.len() as u8);
                headers.extend_from_slice(text.as_bytes());
            }
        };
        literal(4, "", "/etcdserverpb.KV/Put");
        literal(1, "", "localhost");
        literal(31, "", "application/grpc");
        literal(0, "te", "trailers");
        headers
    }
}

impl Protocol for EtcdPuts {
    const IS_CHATTY: bool = true;

    fn set(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        if self.begun == 0 {
            out.extend_from_slice(PREFACE);
            frame(SETTINGS, 0, 0, &[], out);
            frame(WINDOW_UPDATE, 0, 0, &WINDOW_BYTES.to_be_bytes(), out);
        }
        let stream = self.begun * 2 + 1;
        frame(HEADERS, END_HEADERS, stream, &self.headers(), out);
        self.begun += 1;
        let mut message = vec![0; MESSAGE_HEADER_BYTES];
        for (field, bytes) in [(1, key), (2, value)] {
            const LENGTH_DELIMITED: u8 = 2;
            message.push(field << 3 | LENGTH_DELIMITED);
            push_varint(bytes.len(), &mut message);
            message.extend_from_slice(bytes);
        }
        let length = (message.len() - MESSAGE_HEADER_BYTES) as u32;
        message[1..MESSAGE_HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
        frame(DATA, END_STREAM, stream, &message, out);
    }

    /// Nothing: only writes are compared with etcd's. A run that reads ends with
    /// "no reply".
    fn get(&mut self, _: &[u8], _: &mut Vec<u8>) {}

    fn reply<'a>(&mut self, input: &'a [u8]) -> Option<(Answer<'a>, usize)> {
        let mut taken = 0;
        loop {
            let head = input.get(taken..taken + FRAME_HEADER_BYTES)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let start = taken + FRAME_HEADER_BYTES;
            let payload = input.get(start..start + length)?;
            taken = start + length;
            match kind {
                // Read again when the end of the reply wasn't there: the same comes out.
                DATA if length >= MESSAGE_HEADER_BYTES => {
                    self.with_message.insert(stream);
                }
                HEADERS if flags & END_STREAM != 0 => {
                    let has_message = self.with_message.remove(&stream);
                    return Some((if has_message { Answer::Stored } else { refused() }, taken));
                }
                RST_STREAM | GOAWAY => {
                    return Some((Answer::Unexpected(format!("frame {kind}: {}", shown(payload))), taken));
                }
                _ => {}
            }
        }
    }
}

/// The status is in compressed headers, and of no matter: the run is no figure.
fn refused() -> Answer<'static> {
    Answer::Refused(Refusal { code: "a status of gRPC".into(), outcome: "not told".into() })
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn push_varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::{DATA, END_HEADERS, END_STREAM, EtcdPuts, GOAWAY, HEADERS, SETTINGS, frame};
    use crate::load::protocol::tests::cut_everywhere;
    use crate::load::protocol::{Answer, Protocol};

    #[test]
    fn only_the_first_request_spells_its_headers_out() {
        let mut protocol = EtcdPuts::default();
        let mut out = Vec::new();
        protocol.set(b"k", b"v", &mut out);
        assert!(out.starts_with(b"PRI * HTTP/2.0") && out.ends_with(b"\0\0\0\0\x06\x0a\x01k\x12\x01v"));
        out.clear();
        protocol.set(b"k", &[b'v'; 200], &mut out);
        let head = b"\0\0\x06\x01\x04\0\0\0\x03\x83\x86\xc1\xc0\xbf\xbe\0\0\xd3\0\x01\0\0\0\x03\0\0\0\0\xce";
        assert!(out.starts_with(head), "{out:?}");
        assert!(out[head.len()..].starts_with(b"\x0a\x01k\x12\xc8\x01vvv"), "{out:?}");
    }

    #[test]
    fn replies_are_read_wherever_they_are_cut_and_in_any_order() {
        let mut stream = Vec::new();
        frame(SETTINGS, 0, 0, &[0; 6], &mut stream);
        for id in [3, 1] {
            frame(HEADERS, END_HEADERS, id, b"\x88", &mut stream);
            frame(DATA, 0, id, b"\0\0\0\0\x02ab", &mut stream);
        }
        for id in [1, 3] {
            frame(HEADERS, END_HEADERS | END_STREAM, id, b"\xbe", &mut stream);
        }
        cut_everywhere(&EtcdPuts::default(), &stream, &[Answer::Stored, Answer::Stored]);
    }

    #[test]
    fn a_status_without_a_message_is_a_refusal() {
        let mut input = Vec::new();
        frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88\xbe", &mut input);
        let (answer, taken) = EtcdPuts::default().reply(&input).unwrap();
        assert!(matches!(answer, Answer::Refused(_)) && taken == input.len(), "{answer:?}");
        input.clear();
        frame(GOAWAY, 0, 0, &[0; 8], &mut input);
        let (answer, _) = EtcdPuts::default().reply(&input).unwrap();
        assert!(matches!(answer, Answer::Unexpected(_)), "{answer:?}");
    }
}
