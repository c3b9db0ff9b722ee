//! From what a connection's socket brings to requests: all complete lines of a read at once.
//!
//! ```text
//!  read     {"op":…}\n{"op":…}\n{"op":…}\n{"op":"se
//!           └──────── lines ────────────┘└─ half ─┘ stays with the decoder
//!  arena    lines, then what was unescaped or converted (the tail)
//! ```
//!
//! The read itself is the caller's, who uses its memory for the next one: the arena
//! is a copy of exactly what its requests need, and the half grows as its line does.
//!
//! Of very many short lines so many are decoded at once as are good for one turn; the
//! others wait as they came ([`LineDecoder::has_more`]).
//!
//! The decoder is in one of two states. *Reading*: what comes goes on with the
//! half, which holds no newline. *Draining*: what comes goes on with a line that was
//! too long; it has been answered, and its bytes are thrown away as they come until
//! its newline.
//!
//! A connection whose first line is another protocol's is in neither: it has no requests.

use std::borrow::Cow;

use bytes::Bytes;

use super::decode::{Asked, Decoder};
use super::fields::refuse;
use super::other_protocols::{self, OtherProtocol, TELLING_BYTES};
use super::request::{Decoded, Request, Span};
use crate::error::{Code, Error};
use crate::limits::{LINE_BYTES_MAX_LARGEST, SOCKET_READ_BYTES};

/// The lines of one arena: a line's beginning, and a read that ends it and holds others.
const ARENA_LINE_BYTES_MAX: usize = LINE_BYTES_MAX_LARGEST + LINE_END_BYTES_MAX + SOCKET_READ_BYTES;
/// `\r\n`.
const LINE_END_BYTES_MAX: usize = 2;
// A vector's number grows from two bytes of text (`1,`) to four and nothing else grows, so lines
// and tail together stay below the 4 GiB that a span can point into.
const _: () = assert!(ARENA_LINE_BYTES_MAX as u64 * 3 + (1 << 20) < 1 << 32);

/// Lines decoded at once. Each occupies several hundred bytes until it is answered, its line three
/// at least: so a read brings no more than its connection may have under way.
const REQUESTS_AT_ONCE: usize = 1_024;
/// The tail's memory that a decoder keeps between two reads.
const TAIL_BYTES_KEPT: usize = 1024;

/// Cuts a connection's bytes into lines and decodes them.
pub struct LineDecoder {
    line_bytes_max: usize,
    /// The beginning of a line whose end is still to come.
    half: Vec<u8>,
    /// Whole lines that are still to be decoded.
    rest: Vec<u8>,
    /// Whether what comes next goes on with a line that is thrown away.
    draining: bool,
    /// How many requests the last read held: the next one's will be as many.
    requests_expected: usize,
    /// No line has come yet that isn't blank and is this protocol's.
    is_undecided: bool,
    /// What the client speaks instead, by its first line.
    other: Option<OtherProtocol>,
    decoder: Decoder,
}

impl LineDecoder {
    /// A decoder at the beginning of a connection. A line's length counts
    /// without its line end; more than [`LINE_BYTES_MAX_LARGEST`] is never accepted.
    pub fn new(line_bytes_max: usize) -> LineDecoder {
        LineDecoder {
            line_bytes_max: line_bytes_max.min(LINE_BYTES_MAX_LARGEST),
            half: Vec::new(),
            rest: Vec::new(),
            draining: false,
            requests_expected: 0,
            is_undecided: true,
            other: None,
            decoder: Decoder::default(),
        }
    }

    /// Takes what a read has brought, of at most [`SOCKET_READ_BYTES`] where lines are as
    /// long as they can be set. `None` when no request is complete. Of an earlier read there is nothing more.
    pub fn decode(&mut self, read: &[u8]) -> Option<Decoded> {
        debug_assert!(!self.has_more());
        if self.is_undecided && self.begins_otherwise(read) {
            return None;
        }
        let read = if self.draining { self.drain(read) } else { read };
        let lines_end = memchr::memrchr(b'\n', read).map_or(0, |newline| newline + 1);
        let (lines, rest) = read.split_at(lines_end);
        let lines = match (lines.is_empty(), self.half.is_empty()) {
            (true, _) | (false, true) => Cow::Borrowed(lines),
            (false, false) => {
                let mut whole = std::mem::take(&mut self.half);
                whole.extend_from_slice(lines);
                Cow::Owned(whole)
            }
        };
        self.half.extend_from_slice(rest);
        self.take(lines)
    }

    /// Whether lines that came are still to be decoded, before anything else is read.
    pub fn has_more(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Decodes the next of them.
    pub fn more(&mut self) -> Option<Decoded> {
        let rest = std::mem::take(&mut self.rest);
        self.take(Cow::Owned(rest))
    }

    /// Refuses the line that has begun. It is answered now, and thrown away as it comes. `None`: there is none, or
    /// the client speaks another protocol.
    pub fn refuse_half(&mut self, error: Error) -> Option<Decoded> {
        if self.half.is_empty() {
            return None;
        }
        let half = std::mem::take(&mut self.half);
        if self.is_undecided {
            self.other = other_protocols::long_line_of(&half);
            self.is_undecided = self.other.is_some();
        }
        if self.other.is_some() {
            return None;
        }
        self.draining = true;
        self.decoder.tail.base = 0;
        // An id stands in front, or costs more than it is worth here.
        let id = self.decoder.read_id(&half[..half.len().min(SOCKET_READ_BYTES)], 0);
        let requests = vec![request(id, Err(Box::new(error)))];
        Some(Decoded { arena: self.arena(Cow::Borrowed(&[])), requests })
    }

    /// At the end of the connection's input: what stands behind the last newline
    /// is a line, too.
    pub fn finish(&mut self) -> Option<Decoded> {
        if self.other.is_some() {
            return None;
        }
        self.draining = false;
        let last = std::mem::take(&mut self.half);
        self.take(Cow::Owned(last))
    }

    /// What the client speaks instead of this protocol, if its first line has told that: it is
    /// to be answered that, and no line of it is a request.
    pub fn other_protocol(&self) -> Option<OtherProtocol> {
        self.other
    }

    /// What has come of a line whose end is still to come.
    pub fn half(&self) -> &[u8] {
        &self.half
    }

    /// What that occupies, and whole lines that are still to be decoded, in bytes.
    pub fn half_bytes(&self) -> usize {
        self.half.capacity() + self.rest.capacity()
    }

    /// Whether a line has begun and not ended: at the end of input `false`
    /// means that nothing was cut off.
    pub fn is_within_line(&self) -> bool {
        self.draining || !self.half.is_empty()
    }

    /// Whether the connection's first bytes are no line's at all.
    #[cold]
    fn begins_otherwise(&mut self, read: &[u8]) -> bool {
        let half = self.half.len();
        if half < TELLING_BYTES {
            let first: Vec<u8> = self.half.iter().chain(read).take(TELLING_BYTES).copied().collect();
            self.other = self.other.or(other_protocols::begun_as(&first));
        }
        self.other.is_some()
    }

    /// Throws away what belongs to a line that was too long; gives what is behind it.
    fn drain<'a>(&mut self, read: &'a [u8]) -> &'a [u8] {
        match memchr::memchr(b'\n', read) {
            Some(newline) => {
                self.draining = false;
                &read[newline + 1..]
            }
            None => &[],
        }
    }

    /// Decodes whole lines, and looks whether the half is too long already.
    fn take(&mut self, lines: Cow<'_, [u8]>) -> Option<Decoded> {
        let lines = self.as_many_as_may_be(lines);
        // As many as last time, but no more than these lines can hold: a short read behind a long
        // one must not reserve for the long one.
        let capacity = self.requests_expected.min(lines.len() / 3 + 1);
        let mut requests = Vec::with_capacity(if lines.is_empty() { 0 } else { capacity });
        self.decoder.tail.base = lines.len();
        self.decode_lines(&lines, &mut requests);
        if self.other.is_none() && self.rest.is_empty() && self.is_too_long(&self.half) {
            // The memory of a line that nobody wants goes back at once.
            let long = std::mem::take(&mut self.half);
            if self.is_undecided {
                self.other = other_protocols::long_line_of(&long);
                self.is_undecided = self.other.is_some();
            }
            if self.other.is_none() {
                requests.push(self.refuse_long_line(&long, 0));
                self.draining = true;
            }
        }
        if self.other.is_some() {
            self.half = Vec::new();
        }
        if requests.is_empty() {
            return None;
        }
        self.requests_expected = requests.len();
        Some(Decoded { arena: self.arena(lines), requests })
    }

    /// The lines that are decoded at once; the others stay here.
    fn as_many_as_may_be<'a>(&mut self, lines: Cow<'a, [u8]>) -> Cow<'a, [u8]> {
        if memchr::memchr_iter(b'\n', &lines).count() <= REQUESTS_AT_ONCE {
            return lines;
        }
        let last = memchr::memchr_iter(b'\n', &lines).nth(REQUESTS_AT_ONCE - 1);
        let end = last.map_or(lines.len(), |newline| newline + 1);
        self.rest = lines[end..].to_vec();
        match lines {
            Cow::Borrowed(lines) => Cow::Borrowed(&lines[..end]),
            Cow::Owned(mut lines) => {
                lines.truncate(end);
                Cow::Owned(lines)
            }
        }
    }

    /// The lines with the tail behind them, in memory of exactly their length.
    fn arena(&mut self, lines: Cow<'_, [u8]>) -> Bytes {
        let tail = &mut self.decoder.tail.bytes;
        let mut arena = match lines {
            Cow::Borrowed(lines) => {
                let mut arena = Vec::with_capacity(lines.len() + tail.len());
                arena.extend_from_slice(lines);
                arena
            }
            Cow::Owned(mut whole) => {
                whole.reserve_exact(tail.len());
                whole
            }
        };
        arena.extend_from_slice(tail);
        tail.clear();
        tail.shrink_to(TAIL_BYTES_KEPT);
        arena.shrink_to_fit();
        Bytes::from(arena)
    }

    fn decode_lines(&mut self, lines: &[u8], requests: &mut Vec<Request>) {
        // Once for all lines; only if that fails, which is rare, line by line.
        let is_utf8 = std::str::from_utf8(lines).is_ok();
        let mut start = 0;
        while start < lines.len() && self.other.is_none() {
            let newline = memchr::memchr(b'\n', &lines[start..]);
            let end = newline.map_or(lines.len(), |newline| start + newline + 1);
            if let Some(request) = self.decode_line(&lines[..end], start, is_utf8) {
                requests.push(request);
            }
            start = end;
        }
    }

    /// Decodes the line from `start` to the end of `text`; `None` when it is blank.
    #[inline]
    fn decode_line(&mut self, text: &[u8], start: usize, is_utf8: bool) -> Option<Request> {
        let line = without_line_end(text, start);
        if self.is_undecided && self.is_other(&line[start..]) {
            return None;
        }
        if line.len() - start > self.line_bytes_max {
            return Some(self.refuse_long_line(line, start));
        }
        if is_blank(&line[start..]) {
            return None;
        }
        let (id, asked) =
            if is_utf8 { self.decoder.decode(line, start) } else { self.decode_doubtful(line, start) };
        Some(request(id, asked))
    }

    /// Whether the connection's first line is another protocol's. Blank lines are not told from it.
    #[cold]
    fn is_other(&mut self, line: &[u8]) -> bool {
        let is_long = line.len() > self.line_bytes_max;
        self.other =
            if is_long { other_protocols::long_line_of(line) } else { other_protocols::line_of(line) };
        self.is_undecided = self.other.is_some() || is_blank(line);
        self.other.is_some()
    }

    /// A line among lines of which at least one isn't UTF-8.
    #[cold]
    fn decode_doubtful(&mut self, line: &[u8], start: usize) -> (Span, Asked) {
        match std::str::from_utf8(&line[start..]) {
            Ok(_) => self.decoder.decode(line, start),
            Err(error) => {
                let message = format!("not UTF-8 at byte {} of the line", error.valid_up_to());
                (self.decoder.read_id(line, start), Err(refuse(Code::ParseError, message)))
            }
        }
    }

    /// Whether the beginning of a line is longer than a line may be. Its last
    /// byte may turn out to belong to the line end.
    fn is_too_long(&self, rest: &[u8]) -> bool {
        let line_end = usize::from(rest.last() == Some(&b'\r'));
        rest.len() - line_end > self.line_bytes_max
    }

    /// Refuses the line that begins at `start`. Its id is looked for in as many
    /// bytes as a line may have, however much of it has come: so the answer
    /// doesn't depend on how the network cut it.
    #[cold]
    fn refuse_long_line(&mut self, text: &[u8], start: usize) -> Request {
        let id = self.decoder.read_id(&text[..start + self.line_bytes_max], start);
        let message = format!("a line may have {} bytes", self.line_bytes_max);
        request(id, Err(refuse(Code::LineTooLong, message)))
    }
}

#[inline]
fn request(id: Span, asked: Asked) -> Request {
    let (operation, asks) = match asked {
        Ok((operation, asks)) => (Ok(operation), asks),
        Err(refusal) => (Err(refusal), None),
    };
    Request { id, operation, asks }
}

#[inline]
fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

/// `text` without the line end behind the line that begins at `start`.
#[inline]
fn without_line_end(text: &[u8], start: usize) -> &[u8] {
    let mut end = text.len();
    if end > start && text[end - 1] == b'\n' {
        end -= 1;
        if end > start && text[end - 1] == b'\r' {
            end -= 1;
        }
    }
    &text[..end]
}
