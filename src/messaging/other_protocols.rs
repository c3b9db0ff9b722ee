//! What isn't this protocol at all, told by the first line of a connection.
//!
//! Any web page can have a browser send `POST / HTTP/1.1`, and then lines of its choice as the
//! body. So a connection that begins as HTTP is answered in HTTP and closed, and nothing behind
//! its first line is executed. No request begins so: it begins with a brace.

use crate::error::{Code, Error};
use crate::messaging::reply;

/// Another protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherProtocol {
    /// HTTP, of any version that begins in clear text.
    Http,
    /// A client that wants to encrypt.
    Tls,
}

/// What a client is told, whatever it speaks.
const SPOKEN: &str = "this port speaks JSON over TCP, one object per line, and nothing else";

impl OtherProtocol {
    /// The one answer, in that protocol if that can be read there. The connection is closed behind it.
    pub fn answer(self) -> Vec<u8> {
        match self {
            OtherProtocol::Http => {
                let body = format!("400: {SPOKEN}; there is no HTTP here.\n");
                let length = body.len();
                format!(
                    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
                     X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{body}"
                )
                .into_bytes()
            }
            OtherProtocol::Tls => {
                let mut line = Vec::new();
                let message = format!("{SPOKEN}; there is no TLS here");
                reply::error(&mut line, b"", &Error::new(Code::UnsupportedProtocol, message));
                line
            }
        }
    }
}

/// Bytes of which [`begun_as`] can tell something.
pub(super) const TELLING_BYTES: usize = TLS_RECORD.len();
/// A handshake's record, of any version of TLS. It is not UTF-8's business what follows.
const TLS_RECORD: [u8; 2] = [0x16, 0x03];

/// The protocol that begins so, if it is told by its first bytes.
pub(super) fn begun_as(first: &[u8]) -> Option<OtherProtocol> {
    first.starts_with(&TLS_RECORD).then_some(OtherProtocol::Tls)
}

/// The protocol of which this is a first line, without its end: `GET / HTTP/1.1`, and HTTP/2's `PRI * HTTP/2.0`.
pub(super) fn line_of(line: &[u8]) -> Option<OtherProtocol> {
    let (begins, rest) = begins_as_method(line)?;
    debug_assert!(begins > 0);
    let version = rest.iter().rposition(|byte| *byte == b' ').map(|space| &rest[space + 1..])?;
    let is_http = matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit());
    is_http.then_some(OtherProtocol::Http)
}

/// The same of a line that is too long to be kept: its end is not looked at.
pub(super) fn long_line_of(beginning: &[u8]) -> Option<OtherProtocol> {
    begins_as_method(beginning).map(|_| OtherProtocol::Http)
}

/// How long the method is, and what stands behind it and its space.
fn begins_as_method(line: &[u8]) -> Option<(usize, &[u8])> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let length = line.iter().take_while(|byte| is_token(byte)).count();
    let rest = line.get(length..)?.strip_prefix(b" ")?;
    (length > 0).then_some((length, rest))
}

#[cfg(test)]
mod tests {
    use super::super::LineDecoder;
    use super::*;
    use crate::messaging::Decoded;

    #[test]
    fn a_first_line_of_http_is_told_whatever_its_method_and_target() {
        for line in [
            "GET / HTTP/1.1",
            "POST /any/where?x={\"op\":\"set\"} HTTP/1.0",
            "PRI * HTTP/2.0",
            "M-SEARCH http://a/b c HTTP/1.1",
            "x  HTTP/1.1",
            "{op} / HTTP/1.1",
        ] {
            let expected = (!line.starts_with('{')).then_some(OtherProtocol::Http);
            assert_eq!(line_of(line.as_bytes()), expected, "{line}");
        }
        for line in [
            "",
            " ",
            "GET",
            "GET /",
            "hello world",
            "{\"op\":\"ping\"}",
            "1 HTTP/11",
            "\"a\" HTTP/1.1",
            " GET / HTTP/1.1",
        ] {
            assert_eq!(line_of(line.as_bytes()), None, "{line}");
        }
    }

    /// How many requests are decoded, and what else it is taken for, when it comes in reads of this size.
    fn decoded(input: &[u8], at_once: usize, line_bytes_max: usize) -> (usize, Option<OtherProtocol>) {
        let mut decoder = LineDecoder::new(line_bytes_max);
        let mut count = 0;
        let mut keep = |decoded: Decoded| count += decoded.requests.len();
        for part in input.chunks(at_once) {
            decoder.decode(part).into_iter().for_each(&mut keep);
        }
        decoder.finish().into_iter().for_each(&mut keep);
        (count, decoder.other_protocol())
    }

    #[test]
    fn nothing_behind_another_protocols_first_line_becomes_a_request() {
        let set = "{\"op\":\"set\",\"key\":\"k\",\"value\":1}\n";
        let long = "x".repeat(10_000);
        let http = Some(OtherProtocol::Http);
        for (input, expected) in [
            (format!("POST / HTTP/1.1\r\nHost: a\r\n\r\n{set}"), (0, http)),
            (format!("\r\n \n\nPOST / HTTP/1.1\n{set}"), (0, http)),
            (format!("POST /{long} HTTP/1.1\r\n{set}{set}"), (0, http)),
            (format!("POST /{long}"), (0, http)),
            (format!("POST {long}\n{set}"), (0, http)),
            ("GET / HTTP/1.1".to_string(), (0, http)),
            (format!("\u{16}\u{3}\u{1}\n{set}"), (0, Some(OtherProtocol::Tls))),
            // Not told by its first line: each line is one by itself, as ever.
            (format!("hello you\n{set}"), (2, None)),
            (format!("{set}GET / HTTP/1.1\n{set}"), (3, None)),
            (format!("\u{16}\n{set}"), (2, None)),
            (format!("{{{long}\n{set}"), (2, None)),
        ] {
            for at_once in [1, 2, 3, 7, 100, 1_000_000] {
                let name = &input[..input.len().min(40)];
                assert_eq!(decoded(input.as_bytes(), at_once, 8_192), expected, "{name:?} by {at_once}");
            }
        }
    }

    #[test]
    fn the_answer_is_one_of_its_protocol() {
        let http = String::from_utf8(OtherProtocol::Http.answer()).unwrap();
        let (head, body) = http.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 ") && head.contains("Connection: close"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        let line = String::from_utf8(OtherProtocol::Tls.answer()).unwrap();
        assert!(line.contains("unsupported_protocol") && line.ends_with('\n'), "{line}");
    }
}
