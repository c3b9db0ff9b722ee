//! The node's own protocol: one JSON object a line.

use std::borrow::Cow;

use memchr::memchr;
use serde::Deserialize;

use super::protocol::{Answer, Protocol, Refusal, shown};

/// JSON lines.
#[derive(Clone)]
pub struct JsonLines;

impl Protocol for JsonLines {
    fn set(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"op":"set","key":""#);
        out.extend_from_slice(key);
        out.extend_from_slice(br#"","value":""#);
        out.extend_from_slice(value);
        out.extend_from_slice(b"\"}\n");
    }

    fn get(&mut self, key: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"op":"get","key":""#);
        out.extend_from_slice(key);
        out.extend_from_slice(b"\"}\n");
    }

    fn reply<'a>(&mut self, input: &'a [u8]) -> Option<(Answer<'a>, usize)> {
        let end = memchr(b'\n', input)?;
        let line = &input[..end];
        Some((usual(line).unwrap_or_else(|| any(line)), end + 1))
    }
}

/// What the node answers to a read of no key.
const MISSING: &[u8] = br#"{"ok":true,"found":false,"value":null,"version":null}"#;

/// The replies that a good run consists of, in the order of fields that the node
/// writes; `None` for any other line, which may still be a good one.
fn usual(line: &[u8]) -> Option<Answer<'_>> {
    if line == MISSING {
        return Some(Answer::Missing);
    }
    let rest = line.strip_prefix(br#"{"ok":true,"#)?.strip_suffix(b"\"}")?;
    if let Some(version) = rest.strip_prefix(br#""version":""#) {
        return is_plain(version).then_some(Answer::Stored);
    }
    let rest = rest.strip_prefix(br#""found":true,"value":""#)?;
    let (value, rest) = rest.split_at(memchr(b'"', rest)?);
    let version = rest.strip_prefix(br#"","version":""#)?;
    let is_whole = is_plain(version) && memchr(b'\\', value).is_none();
    is_whole.then_some(Answer::Found(Cow::Borrowed(value)))
}

fn is_plain(version: &[u8]) -> bool {
    !version.is_empty() && version.iter().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(c))
}

#[derive(Deserialize)]
struct Line {
    ok: bool,
    found: Option<bool>,
    value: Option<serde_json::Value>,
    version: Option<serde_json::Value>,
    error: Option<LineError>,
}

#[derive(Deserialize)]
struct LineError {
    code: String,
    outcome: String,
}

/// Any reply, by its fields.
fn any(line: &[u8]) -> Answer<'static> {
    let unexpected = || Answer::Unexpected(shown(line));
    let Ok(reply) = serde_json::from_slice::<Line>(line) else { return unexpected() };
    match reply {
        Line { ok: false, error: Some(LineError { code, outcome }), .. } => {
            Answer::Refused(Refusal { code, outcome })
        }
        Line { ok: true, found: Some(true), value: Some(serde_json::Value::String(value)), .. } => {
            Answer::Found(Cow::Owned(value.into_bytes()))
        }
        Line { ok: true, found: Some(false), .. } => Answer::Missing,
        Line { ok: true, found: None, value: None, version: Some(_), .. } => Answer::Stored,
        _ => unexpected(),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::JsonLines;
    use crate::load::protocol::tests::cut_everywhere;
    use crate::load::protocol::{Answer, Protocol, Refusal};

    #[test]
    fn requests_are_lines() {
        let mut out = Vec::new();
        JsonLines.set(b"k", b"v", &mut out);
        JsonLines.get(b"k", &mut out);
        let wanted = "{\"op\":\"set\",\"key\":\"k\",\"value\":\"v\"}\n{\"op\":\"get\",\"key\":\"k\"}\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn replies_are_read_wherever_they_are_cut() {
        let stream = concat!(
            "{\"ok\":true,\"version\":\"12.3\"}\n",
            "{\"ok\":true,\"found\":true,\"value\":\"abc\",\"version\":\"12.3\"}\n",
            "{\"ok\":true,\"found\":false,\"value\":null,\"version\":null}\n",
            "{\"ok\":false,\"error\":{\"code\":\"overloaded\",\"message\":\"m\",\"retryable\":true,",
            "\"outcome\":\"not_applied\",\"retry_after_ms\":5}}\n",
            "{\"value\":\"a\\\"c\",\"found\":true,\"ok\":true,\"version\":\"1.0\"}\r\n",
        );
        let refusal = Refusal { code: "overloaded".into(), outcome: "not_applied".into() };
        let wanted = [
            Answer::Stored,
            Answer::Found(Cow::Borrowed(b"abc")),
            Answer::Missing,
            Answer::Refused(refusal),
            Answer::Found(Cow::Borrowed(b"a\"c")),
        ];
        cut_everywhere(&JsonLines, stream.as_bytes(), &wanted);
    }

    #[test]
    fn the_short_way_and_the_long_way_agree() {
        for line in [
            r#"{"ok":true,"version":"1.0"}"#,
            r#"{"ok":true,"found":true,"value":"five words are in here","version":"1.0"}"#,
            r#"{"ok":true,"found":true,"value":"","version":"1.0"}"#,
            r#"{"ok":true,"found":false,"value":null,"version":null}"#,
        ] {
            assert_eq!(super::usual(line.as_bytes()), Some(super::any(line.as_bytes())), "{line}");
        }
    }

    #[test]
    fn what_is_no_reply_is_said() {
        for line in [
            "",
            "+OK",
            "{}",
            "{\"ok\":true}",
            "{\"ok\":false}",
            "{\"ok\":true,\"pong\":true}",
            "{\"ok\":true,\"version\":\"\"x\"}",
            "{\"ok\":true,\"version\":\"1.0\"",
            "{\"ok\":true,\"found\":true,\"value\":7,\"version\":\"1.0\"}",
            "{\"ok\":true,\"found\":true,\"value\":\"a\\q\",\"version\":\"1.0\"}",
        ] {
            let input = format!("{line}\n");
            let (answer, taken) = JsonLines.reply(input.as_bytes()).unwrap();
            assert!(matches!(answer, Answer::Unexpected(_)), "{line} → {answer:?}");
            assert_eq!(taken, input.len());
        }
    }
}
