//! Replies, written by hand: each function appends one whole line to `out`.
//!
//! `id` is the request's raw JSON, echoed as it came; empty when it had none,
//! and then the reply has none either. Values are copied as the JSON text they
//! came as. All other text is escaped here.

use crate::engine::{Entry, Version};
use crate::error::{Detail, Error};

/// `ping`.
pub fn pong(out: &mut Vec<u8>, id: &[u8]) {
    begin(out, id);
    out.extend_from_slice(b",\"pong\":true}\n");
}

/// `set`, `add_vector`: the version written.
pub fn version(out: &mut Vec<u8>, id: &[u8], version: Version) {
    begin(out, id);
    out.extend_from_slice(b",\"version\":");
    write_version(out, Some(version));
    end(out);
}

/// `get`: `None` when the key is absent. A key that has only a vector is not
/// found, but has its version.
pub fn get(out: &mut Vec<u8>, id: &[u8], entry: Option<&Entry>) {
    begin(out, id);
    out.push(b',');
    write_found(out, entry);
    end(out);
}

/// `get_vector`: `None` when the key is absent. A key that has only a value is
/// not found, but has its version.
pub fn get_vector(out: &mut Vec<u8>, id: &[u8], entry: Option<&Entry>) {
    begin(out, id);
    match entry.and_then(Entry::vector) {
        Some(vector) => {
            out.extend_from_slice(b",\"found\":true,\"vector\":");
            write_vector(out, vector);
        }
        None => out.extend_from_slice(b",\"found\":false,\"vector\":null"),
    }
    out.extend_from_slice(b",\"version\":");
    write_version(out, entry.map(Entry::version));
    end(out);
}

/// `delete`: whether there was anything.
pub fn deleted(out: &mut Vec<u8>, id: &[u8], deleted: bool) {
    begin(out, id);
    out.extend_from_slice(if deleted { b",\"deleted\":true}\n" } else { b",\"deleted\":false}\n" });
}

/// `bulk_set`: how many records, and the version they share; `None` when there
/// were none.
pub fn bulk_set(out: &mut Vec<u8>, id: &[u8], count: u64, version: Option<Version>) {
    begin(out, id);
    out.extend_from_slice(b",\"count\":");
    write_integer(out, count);
    out.extend_from_slice(b",\"version\":");
    write_version(out, version);
    end(out);
}

/// `bulk_get`: the beginning; its items follow, and its end.
pub fn bulk_get_begin(out: &mut Vec<u8>, id: &[u8]) {
    begin(out, id);
    out.extend_from_slice(b",\"values\":[");
}

/// `bulk_get`: a key and its entry.
pub fn bulk_get_item(out: &mut Vec<u8>, is_first: bool, key: &[u8], entry: Option<&Entry>) {
    out.extend_from_slice(if is_first { b"{\"key\":" } else { b",{\"key\":" });
    write_string(out, key);
    out.push(b',');
    write_found(out, entry);
    out.push(b'}');
}

/// `bulk_get`: behind its last item.
pub fn bulk_get_end(out: &mut Vec<u8>) {
    out.push(b']');
    end(out);
}

/// `count`, `bulk_delete`: how many keys.
pub fn count(out: &mut Vec<u8>, id: &[u8], count: u64) {
    begin(out, id);
    out.extend_from_slice(b",\"count\":");
    write_integer(out, count);
    end(out);
}

/// `search_by_value`: a page of keys, how many there are over all pages, and
/// the next page's cursor.
pub fn keys_page<'a>(
    out: &mut Vec<u8>,
    id: &[u8],
    keys: impl IntoIterator<Item = &'a [u8]>,
    total: u64,
    next: Option<&[u8]>,
) {
    begin(out, id);
    out.extend_from_slice(b",\"keys\":");
    write_list(out, keys, write_string);
    write_total(out, total);
    write_next(out, next);
    end(out);
}

/// What a page of `search_text` says beside its matches.
#[derive(Clone, Copy, Debug)]
pub struct TextPage<'a> {
    /// How many there are over all pages.
    pub total: u64,
    /// Where none has all words: how many have any.
    pub total_any: Option<u64>,
    /// The next page's cursor.
    pub next: Option<&'a [u8]>,
}

/// `search_text`: like [`keys_page`], with a score for each key.
pub fn text_page<'a>(
    out: &mut Vec<u8>,
    id: &[u8],
    matches: impl IntoIterator<Item = (&'a [u8], f64), IntoIter: Clone>,
    page: TextPage<'_>,
) {
    let matches = matches.into_iter();
    begin(out, id);
    out.extend_from_slice(b",\"keys\":");
    write_list(out, matches.clone(), |out, (key, _)| write_string(out, key));
    out.extend_from_slice(b",\"scores\":");
    write_list(out, matches, |out, (_, score)| write_f64(out, score));
    write_total(out, page.total);
    if let Some(total_any) = page.total_any {
        out.extend_from_slice(b",\"total_any\":");
        write_integer(out, total_any);
    }
    write_next(out, page.next);
    end(out);
}

/// `vector_search`: keys with their similarity.
pub fn vector_matches<'a>(out: &mut Vec<u8>, id: &[u8], matches: impl IntoIterator<Item = (&'a [u8], f64)>) {
    begin(out, id);
    out.extend_from_slice(b",\"matches\":");
    write_list(out, matches, |out, (key, score)| {
        out.extend_from_slice(b"{\"key\":");
        write_string(out, key);
        out.extend_from_slice(b",\"score\":");
        write_f64(out, score);
        out.push(b'}');
    });
    end(out);
}

/// What `scan` shows of each key beside its name and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its value, null when it has only a vector.
    pub values: bool,
    /// Its vector, left out when it has none.
    pub vectors: bool,
}

/// `scan`: a page of entries and the next page's cursor.
pub fn scan_page<'a>(
    out: &mut Vec<u8>,
    id: &[u8],
    items: impl IntoIterator<Item = &'a Entry>,
    shown: Shown,
    next: Option<&[u8]>,
) {
    begin(out, id);
    out.extend_from_slice(b",\"items\":");
    write_list(out, items, |out, entry| write_item(out, entry, shown));
    write_next(out, next);
    end(out);
}

fn write_item(out: &mut Vec<u8>, entry: &Entry, shown: Shown) {
    out.extend_from_slice(b"{\"key\":");
    write_string(out, entry.key());
    if shown.values {
        out.extend_from_slice(b",\"value\":");
        out.extend_from_slice(entry.value().unwrap_or(b"null"));
    }
    out.extend_from_slice(b",\"version\":");
    write_version(out, Some(entry.version()));
    if let (true, Some(vector)) = (shown.vectors, entry.vector()) {
        out.extend_from_slice(b",\"vector\":");
        write_vector(out, vector);
    }
    out.push(b'}');
}

/// `snapshot`: the last log entry it holds, its size and how long it took.
pub fn snapshot(out: &mut Vec<u8>, id: &[u8], index: u64, bytes: u64, took_ms: u64) {
    begin(out, id);
    out.extend_from_slice(b",\"index\":");
    write_integer(out, index);
    out.extend_from_slice(b",\"bytes\":");
    write_integer(out, bytes);
    out.extend_from_slice(b",\"took_ms\":");
    write_integer(out, took_ms);
    end(out);
}

/// Any reply whose fields were put together elsewhere (`hello`, `cluster`,
/// `stats`, …): `fields` is a JSON object on one line, braces included, with
/// neither `id` nor `ok`.
pub fn object(out: &mut Vec<u8>, id: &[u8], fields: &[u8]) {
    begin(out, id);
    let inside = fields.trim_ascii();
    let inside = inside.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}"));
    // A broken invariant of the caller's, and no client can bring it about.
    assert!(inside.is_some(), "a reply's fields must be a JSON object");
    if let Some(inside) = inside.map(<[u8]>::trim_ascii).filter(|inside| !inside.is_empty()) {
        out.push(b',');
        out.extend_from_slice(inside);
    }
    end(out);
}

/// A refusal or a failure.
pub fn error(out: &mut Vec<u8>, id: &[u8], error: &Error) {
    write_id(out, id);
    out.extend_from_slice(b"\"ok\":false,\"error\":{\"code\":\"");
    out.extend_from_slice(error.code.rule().0.as_bytes());
    out.extend_from_slice(b"\",\"message\":");
    write_string(out, error.message.as_bytes());
    out.extend_from_slice(b",\"retryable\":");
    out.extend_from_slice(if error.retryable() { b"true" } else { b"false" });
    out.extend_from_slice(b",\"outcome\":\"");
    out.extend_from_slice(error.outcome.as_str().as_bytes());
    out.push(b'"');
    write_detail(out, &error.detail);
    out.extend_from_slice(b"}}\n");
}

fn write_detail(out: &mut Vec<u8>, detail: &Detail) {
    match detail {
        Detail::None => {}
        Detail::Current(version) => {
            out.extend_from_slice(b",\"current\":");
            write_version(out, *version);
        }
        Detail::Leader(None) => out.extend_from_slice(b",\"leader\":null"),
        Detail::Leader(Some(leader)) => {
            out.extend_from_slice(b",\"leader\":{\"node_id\":");
            write_integer(out, leader.node_id);
            out.extend_from_slice(b",\"host\":");
            write_string(out, leader.host.as_bytes());
            out.extend_from_slice(b",\"port\":");
            write_integer(out, u64::from(leader.port));
            out.push(b'}');
        }
        Detail::RetryAfterMs(wait) => {
            out.extend_from_slice(b",\"retry_after_ms\":");
            write_integer(out, *wait);
        }
        Detail::Progress(progress) => {
            out.extend_from_slice(b",\"progress\":");
            write_f64(out, *progress);
        }
        Detail::Indexing(progress, expected) => {
            out.extend_from_slice(b",\"progress\":");
            write_f64(out, *progress);
            if let Some(milliseconds) = expected {
                out.extend_from_slice(b",\"expected_ms\":");
                write_integer(out, *milliseconds);
            }
        }
        Detail::Lengths(lengths) => {
            out.extend_from_slice(b",\"lengths\":");
            write_list(out, lengths, |out, &length| write_integer(out, length as u64));
        }
        Detail::Acknowledged(nodes) => {
            out.extend_from_slice(b",\"acknowledged\":");
            write_integer(out, *nodes as u64);
        }
        Detail::HeldBy(members) => {
            out.extend_from_slice(b",\"held_by\":");
            write_list(out, members, |out, &member| write_integer(out, member));
        }
    }
}

/// `{"id":…,` or `{`.
#[inline]
fn write_id(out: &mut Vec<u8>, id: &[u8]) {
    out.push(b'{');
    if !id.is_empty() {
        out.extend_from_slice(b"\"id\":");
        out.extend_from_slice(id);
        out.push(b',');
    }
}

#[inline]
fn begin(out: &mut Vec<u8>, id: &[u8]) {
    write_id(out, id);
    out.extend_from_slice(b"\"ok\":true");
}

#[inline]
fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"}\n");
}

/// `"found":…,"value":…,"version":…`
#[inline]
fn write_found(out: &mut Vec<u8>, entry: Option<&Entry>) {
    match entry.and_then(Entry::value) {
        Some(value) => {
            out.extend_from_slice(b"\"found\":true,\"value\":");
            out.extend_from_slice(value);
        }
        None => out.extend_from_slice(b"\"found\":false,\"value\":null"),
    }
    out.extend_from_slice(b",\"version\":");
    write_version(out, entry.map(Entry::version));
}

fn write_total(out: &mut Vec<u8>, total: u64) {
    out.extend_from_slice(b",\"total\":");
    write_integer(out, total);
}

fn write_next(out: &mut Vec<u8>, next: Option<&[u8]>) {
    out.extend_from_slice(b",\"next\":");
    match next {
        Some(cursor) => write_string(out, cursor),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// A version as the string that [`Version::parse`] reads, or null.
#[inline]
fn write_version(out: &mut Vec<u8>, version: Option<Version>) {
    let Some(version) = version else {
        out.extend_from_slice(b"null");
        return;
    };
    out.push(b'"');
    write_integer(out, version.index);
    out.push(b'.');
    write_integer(out, u64::from(version.ordinal));
    out.push(b'"');
}

/// The most digits a `u64` has.
const DIGITS_MAX: usize = 20;

#[inline]
fn write_integer(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; DIGITS_MAX];
    let mut start = DIGITS_MAX;
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

fn write_vector(out: &mut Vec<u8>, vector: &[f32]) {
    write_list(out, vector, write_number);
}

fn write_f64(out: &mut Vec<u8>, number: f64) {
    write_number(out, &number);
}

/// The shortest text that reads back as the same number.
fn write_number(out: &mut Vec<u8>, number: &impl serde::Serialize) {
    // Writing a number to memory can't fail.
    let written = serde_json::to_writer(&mut *out, number);
    debug_assert!(written.is_ok());
}

/// A text as a JSON string. Quotes, backslashes and control characters are
/// escaped; all else stands as it is.
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut plain_start = 0;
    for (position, &byte) in text.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text[plain_start..position]);
        plain_start = position + 1;
        write_escape(out, byte);
    }
    out.extend_from_slice(&text[plain_start..]);
    out.push(b'"');
}

#[cold]
fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 0xf)]);
        }
    }
}
