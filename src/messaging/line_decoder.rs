//! From a connection's read buffer to requests: all complete lines at once.
//!
//! ```text
//!  read buffer   {"op":…}\n{"op":…}\n{"op":…}\n{"op":"se
//!                └──────── lines ────────────┘└─ rest ─┘ stays in the buffer
//!  arena         lines, then what was unescaped or converted (the tail)
//! ```
//!
//! The decoder is in one of two states. *Reading*: the buffer begins with a
//! line, of which the first `scanned` bytes are known to hold no newline, so
//! that a long line coming in many reads is looked at once. *Draining*: the
//! buffer begins within a line that was too long; it has been answered, and its
//! bytes are thrown away as they come until its newline.
//!
//! A caller only ever appends to the buffer between two calls.

use bytes::{Buf, BytesMut};

use super::decode::{Asked, Decoder};
use super::fields::refuse;
use super::request::{Decoded, Request, Span};
use crate::error::Code;
use crate::limits::{LINE_BYTES_MAX_LARGEST, SOCKET_READ_BYTES};

/// The lines of one arena. A vector's number grows from two bytes of text
/// (`1,`) to four and nothing else grows, so lines and tail together stay below
/// the 4 GiB that a span can point into.
const ARENA_LINE_BYTES_MAX: usize = LINE_BYTES_MAX_LARGEST + LINE_END_BYTES_MAX;
/// `\r\n`.
const LINE_END_BYTES_MAX: usize = 2;
const _: () = assert!(ARENA_LINE_BYTES_MAX as u64 * 3 + (1 << 20) < 1 << 32);

/// Lines longer than this together leave the read buffer with an allocation of
/// their own, so that a connection doesn't keep the memory of its largest request.
const KEPT_BUFFER_BYTES_MAX: usize = 4 * SOCKET_READ_BYTES;

/// Cuts a connection's bytes into lines and decodes them.
pub struct LineDecoder {
    line_bytes_max: usize,
    /// How much of the buffer's beginning is known to hold no newline.
    scanned: usize,
    /// Whether the buffer begins within a line that is thrown away.
    draining: bool,
    /// How many requests the last buffer held: the next one's will be as many.
    requests_expected: usize,
    decoder: Decoder,
}

impl LineDecoder {
    /// A decoder at the beginning of a connection. A line's length counts
    /// without its line end; more than [`LINE_BYTES_MAX_LARGEST`] is never accepted.
    pub fn new(line_bytes_max: usize) -> LineDecoder {
        LineDecoder {
            line_bytes_max: line_bytes_max.min(LINE_BYTES_MAX_LARGEST),
            scanned: 0,
            draining: false,
            requests_expected: 0,
            decoder: Decoder::default(),
        }
    }

    /// Takes all complete lines out of the buffer (of a buffer above 1 GiB a
    /// part: call until there is nothing more). `None` when no request is
    /// complete; what is left in the buffer is the beginning of a line.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Option<Decoded> {
        if self.draining {
            self.drain(buffer);
        }
        let searched = &buffer[..buffer.len().min(ARENA_LINE_BYTES_MAX)];
        let unsearched = searched.get(self.scanned..).unwrap_or_default();
        let lines_end = memchr::memrchr(b'\n', unsearched).map_or(0, |newline| self.scanned + newline + 1);
        self.take(buffer, lines_end)
    }

    /// At the end of the connection's input: like [`LineDecoder::decode`], and
    /// what stands behind the last newline is a line, too.
    pub fn finish(&mut self, buffer: &mut BytesMut) -> Option<Decoded> {
        if let Some(decoded) = self.decode(buffer) {
            // More may be left: a caller asks again until there is nothing.
            return Some(decoded);
        }
        let decoded = self.take(buffer, buffer.len());
        self.scanned = 0;
        self.draining = false;
        decoded
    }

    /// Whether the buffer begins within a line: at the end of input `false`
    /// means that nothing was cut off.
    pub fn is_within_line(&self, buffer: &BytesMut) -> bool {
        self.draining || !buffer.is_empty()
    }

    /// Throws away what belongs to a line that was too long.
    fn drain(&mut self, buffer: &mut BytesMut) {
        match memchr::memchr(b'\n', buffer) {
            Some(newline) => {
                buffer.advance(newline + 1);
                self.draining = false;
            }
            None => buffer.clear(),
        }
        self.scanned = 0;
    }

    /// Decodes the buffer's first `lines_end` bytes, which are whole lines, and
    /// looks whether what is left is too long already.
    fn take(&mut self, buffer: &mut BytesMut, lines_end: usize) -> Option<Decoded> {
        let mut lines = buffer.split_to(lines_end);
        if lines.len() > KEPT_BUFFER_BYTES_MAX {
            *buffer = BytesMut::from(&buffer[..]);
        }
        self.scanned = buffer.len();
        // As many as last time, but no more than these lines can hold: a short read behind a long
        // one must not reserve for the long one.
        let capacity = self.requests_expected.min(lines.len() / 3 + 1);
        let mut requests = Vec::with_capacity(if lines.is_empty() { 0 } else { capacity });
        self.decoder.tail.base = lines.len();
        self.decode_lines(&lines, &mut requests);
        if self.is_too_long(buffer) {
            requests.push(self.refuse_long_line(buffer, 0, buffer.len()));
            self.draining = true;
            self.drain(buffer);
            // The memory of a line that nobody wants goes back at once.
            *buffer = BytesMut::from(&buffer[..]);
        }
        if requests.is_empty() {
            return None;
        }
        self.requests_expected = requests.len();
        lines.extend_from_slice(&self.decoder.tail.bytes);
        self.decoder.tail.bytes.clear();
        self.decoder.tail.bytes.shrink_to(SOCKET_READ_BYTES);
        Some(Decoded { arena: lines.freeze(), requests })
    }

    fn decode_lines(&mut self, lines: &[u8], requests: &mut Vec<Request>) {
        // Once for all lines; only if that fails, which is rare, line by line.
        let is_utf8 = std::str::from_utf8(lines).is_ok();
        let mut start = 0;
        while start < lines.len() {
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
        if line.len() - start > self.line_bytes_max {
            return Some(self.refuse_long_line(line, start, text.len() - start));
        }
        if line[start..].iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            return None;
        }
        let (id, asked) =
            if is_utf8 { self.decoder.decode(line, start) } else { self.decode_doubtful(line, start) };
        Some(request(id, text.len() - start, asked))
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
    /// doesn't depend on how the network cut it. Of a line whose end hasn't come
    /// yet `bytes` is what has.
    #[cold]
    fn refuse_long_line(&mut self, text: &[u8], start: usize, bytes: usize) -> Request {
        let id = self.decoder.read_id(&text[..start + self.line_bytes_max], start);
        let message = format!("a line may have {} bytes", self.line_bytes_max);
        request(id, bytes, Err(refuse(Code::LineTooLong, message)))
    }
}

#[inline]
fn request(id: Span, bytes: usize, asked: Asked) -> Request {
    let line_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let (operation, asks) = match asked {
        Ok((operation, asks)) => (Ok(operation), asks),
        Err(refusal) => (Err(refusal), None),
    };
    Request { id, line_bytes, operation, asks }
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
