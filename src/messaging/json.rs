//! One strict JSON scanner over bytes: it checks the whole grammar and finds
//! where things end, and neither allocates nor builds anything. Values stay
//! the text they came as, so to find their end is all that decoding needs.
//!
//! - The grammar is RFC 8259's, with nothing added: no comments, no leading
//!   zeros, no control characters in strings.
//! - A lone surrogate escape (`"\ud800"`) stands for no character and is an
//!   error, so that every string has a UTF-8 form.
//! - Nesting is bounded by [`JSON_DEPTH_MAX`], the request object counting as
//!   level 1. Being too deep is an error of its own kind, since the protocol
//!   gives it another code. Containers are kept as one bit each in a `u64`, so
//!   that hostile nesting costs no stack.
//! - UTF-8 is not checked here: the line decoder checks a whole read at once,
//!   which is several times cheaper than byte by byte.
//!
//! Positions are offsets in the text that is passed in, so a caller scans a
//! line where it lies in its buffer. Only white space within a line is meant to
//! be met here; a newline counts as white space like RFC 8259 has it.

use std::fmt;

use super::json_open::{FewOpen, ManyOpen, Open};
use crate::limits::JSON_DEPTH_MAX;

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonErrorKind {
    /// Nested deeper than [`JSON_DEPTH_MAX`]; the text may be right otherwise.
    TooDeep,
    /// The text ends before the value does.
    UnexpectedEnd,
    /// No value begins here.
    NoValue,
    /// A number that JSON doesn't allow.
    BadNumber,
    /// A control character stands unescaped in a string.
    ControlCharacter,
    /// A backslash is followed by none of JSON's escapes.
    BadEscape,
    /// A surrogate escape without its other half.
    LoneSurrogate,
    /// A member of an object doesn't begin with a name in quotes.
    NoName,
    /// A name isn't followed by a colon.
    NoColon,
    /// Neither a comma nor the container's end follows a value.
    NoComma,
    /// Something follows the value.
    TrailingText,
}

/// What is wrong with a text, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Where in the text, in bytes.
    pub offset: usize,
}

impl JsonErrorKind {
    /// The fault in words.
    pub fn as_str(self) -> &'static str {
        match self {
            JsonErrorKind::TooDeep => "nested too deep",
            JsonErrorKind::UnexpectedEnd => "the text ends too early",
            JsonErrorKind::NoValue => "expected a value",
            JsonErrorKind::BadNumber => "not a JSON number",
            JsonErrorKind::ControlCharacter => "a control character in a string must be escaped",
            JsonErrorKind::BadEscape => "not a JSON escape",
            JsonErrorKind::LoneSurrogate => "a lone surrogate escape stands for no character",
            JsonErrorKind::NoName => "expected a field name in quotes",
            JsonErrorKind::NoColon => "expected a colon",
            JsonErrorKind::NoComma => "expected a comma or the end of the object or array",
            JsonErrorKind::TrailingText => "unexpected text behind the value",
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at byte {}", self.kind.as_str(), self.offset)
    }
}

impl std::error::Error for JsonError {}

#[cold]
fn fail<T>(kind: JsonErrorKind, offset: usize) -> Result<T, JsonError> {
    Err(JsonError { kind, offset })
}

/// The failure at a place where something else was wanted: a text that has
/// simply ended is told apart from a wrong character.
#[cold]
fn fail_at<T>(text: &[u8], kind: JsonErrorKind, offset: usize) -> Result<T, JsonError> {
    fail(if offset >= text.len() { JsonErrorKind::UnexpectedEnd } else { kind }, offset)
}

/// The position of the first byte from `at` on that is not white space.
#[inline(always)]
pub fn skip_whitespace(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = text.get(at) {
        at += 1;
    }
    at
}

/// Checks the value that begins at `start` (white space before it is skipped)
/// and returns where it ends. `depth` says how many containers already stand
/// around it: 0 for a text of its own, 1 for a field of a request.
#[inline]
pub fn skip_value(text: &[u8], start: usize, depth: usize) -> Result<usize, JsonError> {
    let start = skip_whitespace(text, start);
    match text.get(start) {
        Some(b'{' | b'[') => skip_container(text, start, depth),
        _ => skip_scalar(text, start),
    }
}

/// Checks that `text` is one value and nothing else.
pub fn validate(text: &[u8]) -> Result<(), JsonError> {
    let end = skip_whitespace(text, skip_value(text, 0, 0)?);
    if end == text.len() { Ok(()) } else { fail(JsonErrorKind::TrailingText, end) }
}

#[inline]
fn skip_scalar(text: &[u8], start: usize) -> Result<usize, JsonError> {
    match text.get(start) {
        Some(b'"') => Ok(skip_string(text, start)?.end),
        Some(b'-' | b'0'..=b'9') => skip_number(text, start),
        Some(b't') => skip_word(text, start, b"true"),
        Some(b'f') => skip_word(text, start, b"false"),
        Some(b'n') => skip_word(text, start, b"null"),
        _ => fail_at(text, JsonErrorKind::NoValue, start),
    }
}

fn skip_word(text: &[u8], start: usize, word: &[u8]) -> Result<usize, JsonError> {
    if text[start..].starts_with(word) {
        return Ok(start + word.len());
    }
    let cut_off = word.starts_with(&text[start..]);
    fail(if cut_off { JsonErrorKind::UnexpectedEnd } else { JsonErrorKind::NoValue }, start)
}

/// Checks the number that begins at `start` and returns where it ends.
fn skip_number(text: &[u8], start: usize) -> Result<usize, JsonError> {
    let mut at = start + usize::from(text[start] == b'-');
    match text.get(at) {
        Some(b'0') => at += 1,
        Some(b'1'..=b'9') => at = skip_digits(text, at),
        _ => return fail_at(text, JsonErrorKind::BadNumber, at),
    }
    if text.get(at) == Some(&b'.') {
        at = skip_digits_required(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = skip_digits_required(text, at)?;
    }
    match text.get(at) {
        // `01`, `1x`: named here, since "expected a comma" would mislead.
        Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'+' | b'-') => {
            fail(JsonErrorKind::BadNumber, at)
        }
        _ => Ok(at),
    }
}

fn skip_digits(text: &[u8], mut at: usize) -> usize {
    while let Some(b'0'..=b'9') = text.get(at) {
        at += 1;
    }
    at
}

fn skip_digits_required(text: &[u8], at: usize) -> Result<usize, JsonError> {
    let end = skip_digits(text, at);
    if end == at { fail_at(text, JsonErrorKind::BadNumber, at) } else { Ok(end) }
}

fn skip_container(text: &[u8], start: usize, depth: usize) -> Result<usize, JsonError> {
    let most = JSON_DEPTH_MAX.saturating_sub(depth);
    skip_container_with(text, start, FewOpen::at_most(most))
}

/// Checks an object or array. What is expected next follows from the last thing
/// read and from the innermost container.
#[inline(always)]
fn skip_container_with(text: &[u8], start: usize, mut open: impl Open) -> Result<usize, JsonError> {
    let mut at = start;
    loop {
        // A value begins at `at`.
        at = match text.get(at) {
            Some(&bracket @ (b'{' | b'[')) => {
                let is_object = bracket == b'{';
                if !open.push(is_object) {
                    return fail(JsonErrorKind::TooDeep, at);
                }
                at = skip_whitespace(text, at + 1);
                let is_empty = text.get(at) == Some(if is_object { &b'}' } else { &b']' });
                if !is_empty {
                    at = if is_object { skip_name(text, at)? } else { at };
                    continue;
                }
                at
            }
            _ => skip_whitespace(text, skip_scalar(text, at)?),
        };
        // A value (or an empty container's inside) has ended: close what ends here.
        loop {
            let is_object = open.innermost_is_object();
            match text.get(at) {
                Some(b'}') if is_object => {}
                Some(b']') if !is_object => {}
                Some(b',') => {
                    at = skip_whitespace(text, at + 1);
                    at = if is_object { skip_name(text, at)? } else { at };
                    break;
                }
                _ => return fail_at(text, JsonErrorKind::NoComma, at),
            }
            open.pop();
            at += 1;
            if open.is_empty() {
                return Ok(at);
            }
            at = skip_whitespace(text, at);
        }
    }
}

/// Checks a field's name and colon; returns where its value begins.
fn skip_name(text: &[u8], at: usize) -> Result<usize, JsonError> {
    if text.get(at) != Some(&b'"') {
        return fail_at(text, JsonErrorKind::NoName, at);
    }
    let at = skip_whitespace(text, skip_string(text, at)?.end);
    if text.get(at) != Some(&b':') {
        return fail_at(text, JsonErrorKind::NoColon, at);
    }
    Ok(skip_whitespace(text, at + 1))
}

/// Where a string ends, and whether it must be unescaped to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScannedString {
    /// Behind the closing quote.
    pub end: usize,
    /// Whether there is a backslash in it.
    pub escaped: bool,
}

/// Checks the string whose opening quote is at `start`.
#[inline]
pub fn skip_string(text: &[u8], start: usize) -> Result<ScannedString, JsonError> {
    let at = find_special(text, start + 1);
    match text.get(at) {
        Some(b'"') => Ok(ScannedString { end: at + 1, escaped: false }),
        _ => skip_string_rest(text, at),
    }
}

/// The rest of a string from its first backslash, control character or the
/// text's end on.
fn skip_string_rest(text: &[u8], mut at: usize) -> Result<ScannedString, JsonError> {
    loop {
        match text.get(at) {
            Some(b'"') => return Ok(ScannedString { end: at + 1, escaped: true }),
            Some(b'\\') => at = read_escape(text, at)?.1,
            _ => return fail_at(text, JsonErrorKind::ControlCharacter, at),
        }
        at = find_special(text, at);
    }
}

/// The first byte from `at` on that ends a run of plain text in a string: a
/// quote, a backslash or a control character; the text's length if there is none.
#[inline]
fn find_special(text: &[u8], mut at: usize) -> usize {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // Eight bytes at once. A borrow can only reach bytes above a true hit, so the lowest one is exact.
    while let Some(chunk) = text.get(at..at + 8).and_then(|chunk| <[u8; 8]>::try_from(chunk).ok()) {
        let word = u64::from_le_bytes(chunk);
        let quote = word ^ (LOW * b'"' as u64);
        let backslash = word ^ (LOW * b'\\' as u64);
        let hits = (quote.wrapping_sub(LOW) & !quote)
            | (backslash.wrapping_sub(LOW) & !backslash)
            | (word.wrapping_sub(LOW * 0x20) & !word);
        let hits = hits & HIGH;
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(&byte) = text.get(at) {
        if byte < 0x20 || byte == b'"' || byte == b'\\' {
            return at;
        }
        at += 1;
    }
    at
}

/// The character that the escape at `at` (its backslash) stands for, and where it ends.
fn read_escape(text: &[u8], at: usize) -> Result<(char, usize), JsonError> {
    let character = match text.get(at + 1) {
        Some(&byte @ (b'"' | b'\\' | b'/')) => byte as char,
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return read_unicode_escape(text, at),
        _ => return fail_at(text, JsonErrorKind::BadEscape, at + 1),
    };
    Ok((character, at + 2))
}

fn read_unicode_escape(text: &[u8], at: usize) -> Result<(char, usize), JsonError> {
    let first = read_hex(text, at + 2)?;
    if let Some(character) = char::from_u32(first) {
        return Ok((character, at + 6));
    }
    let is_pair = first < 0xdc00 && text.get(at + 6..at + 8) == Some(b"\\u");
    if is_pair {
        let second = read_hex(text, at + 8)?;
        if (0xdc00..0xe000).contains(&second) {
            let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            if let Some(character) = char::from_u32(code) {
                return Ok((character, at + 12));
            }
        }
    }
    fail(JsonErrorKind::LoneSurrogate, at)
}

fn read_hex(text: &[u8], at: usize) -> Result<u32, JsonError> {
    let mut code = 0;
    for offset in at..at + 4 {
        match text.get(offset).and_then(|&byte| (byte as char).to_digit(16)) {
            Some(digit) => code = code << 4 | digit,
            None => return fail_at(text, JsonErrorKind::BadEscape, offset),
        }
    }
    Ok(code)
}

/// Whether the inside of a string has an escape in it.
pub fn is_escaped(inside: &[u8]) -> bool {
    memchr::memchr(b'\\', inside).is_some()
}

/// Appends what the inside of a string (without its quotes) stands for.
pub fn unescape(inside: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
    let mut at = 0;
    while at < inside.len() {
        let plain_end = find_special(inside, at);
        out.extend_from_slice(&inside[at..plain_end]);
        at = plain_end;
        match inside.get(at) {
            Some(b'\\') => {
                let (character, end) = read_escape(inside, at)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at = end;
            }
            Some(_) => return fail(JsonErrorKind::ControlCharacter, at),
            None => {}
        }
    }
    Ok(())
}

/// As [`skip_value`], at any depth: for a value that is already refused for its
/// depth, so that a text that isn't JSON is told from one that is merely too deep,
/// and the fields behind it (the `id`) can still be read. One pass, a bit a level.
#[cold]
pub fn skip_deep_value(text: &[u8], start: usize) -> Result<usize, JsonError> {
    let start = skip_whitespace(text, start);
    match text.get(start) {
        Some(b'{' | b'[') => skip_container_with(text, start, ManyOpen::default()),
        _ => skip_scalar(text, start),
    }
}
