//! From a field's raw JSON to what an operation wants of it: the checks that
//! families of operations share, each refusing with a message that names the
//! field and what it must be.

use super::envelope::{Envelope, Field, FieldSet};
use super::json;
use super::request::{Consistency, Operation, Span};
use crate::engine::Condition;
use crate::engine::Version;
use crate::error::{Code, Error};
use crate::limits::{KEY_BYTES_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, VALUE_BYTES_MAX, VECTOR_LENGTH_MAX};

/// Why a line is refused; boxed, since most lines are not.
pub(super) type Refusal = Box<Error>;

/// How much of a client's own text an error repeats.
const SHOWN_BYTES_MAX: usize = 64;

#[cold]
pub(super) fn refuse(code: Code, message: impl Into<String>) -> Refusal {
    Box::new(Error::new(code, message))
}

/// A client's text as an error repeats it: clipped, and between backquotes.
pub(super) fn shown(text: &[u8]) -> String {
    match text.get(..SHOWN_BYTES_MAX) {
        Some(clipped) if text.len() > SHOWN_BYTES_MAX => {
            let clipped = String::from_utf8_lossy(clipped);
            format!("`{}…`", clipped.trim_end_matches(char::REPLACEMENT_CHARACTER))
        }
        _ => format!("`{}`", String::from_utf8_lossy(text)),
    }
}

/// What an operation is called, which fields it knows, and how it is decoded.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) required: FieldSet,
    /// Required and optional ones, `op` and `id` included.
    pub(super) known: FieldSet,
    pub(super) decode: fn(&mut Fields<'_>) -> Result<Operation, Refusal>,
}

impl Shape {
    pub(super) const fn new(
        name: &'static str,
        required: &[Field],
        optional: &[Field],
        decode: fn(&mut Fields<'_>) -> Result<Operation, Refusal>,
    ) -> Shape {
        let required = FieldSet::of(required);
        let known = required.union(FieldSet::of(optional)).union(FieldSet::of(&[Field::Op, Field::Id]));
        Shape { name, required, known, decode }
    }
}

/// What is appended behind an arena's lines: text that had to be unescaped, and
/// vectors' numbers. It is a buffer of its own until all lines are decoded, so
/// that the lines can be read meanwhile.
#[derive(Default)]
pub(super) struct Tail {
    /// How long the lines are: where the tail will begin in the arena.
    pub(super) base: usize,
    pub(super) bytes: Vec<u8>,
}

impl Tail {
    /// The place in the arena of all that was appended since the tail was `from` bytes long.
    pub(super) fn span_since(&self, from: usize) -> Span {
        // The line decoder bounds an arena's lines so that lines and tail stay below 4 GiB.
        Span { start: (self.base + from) as u32, length: (self.bytes.len() - from) as u32 }
    }

    /// Appends what the inside of a string stands for.
    pub(super) fn unescape(&mut self, inside: &[u8]) -> Result<Span, Refusal> {
        let from = self.bytes.len();
        json::unescape(inside, &mut self.bytes)
            .map_err(|error| refuse(Code::ParseError, error.to_string()))?;
        Ok(self.span_since(from))
    }
}

/// One request's fields. Spans are places in `text`, which is all lines of the
/// arena up to this request's end, or in the tail behind it.
pub(super) struct Fields<'a> {
    pub(super) text: &'a [u8],
    pub(super) envelope: &'a Envelope,
    pub(super) tail: &'a mut Tail,
}

impl Fields<'_> {
    /// The refusal of a field that isn't what it must be.
    #[cold]
    pub(super) fn wrong(&self, field: Field) -> Refusal {
        let raw = shown(self.envelope.span(field).of(self.text));
        refuse(Code::BadRequest, format!("`{}` must be {}, not {raw}", field.name(), field.wants()))
    }

    /// The raw JSON of a field, if it is there.
    #[inline]
    pub(super) fn raw(&self, field: Field) -> Option<&[u8]> {
        self.envelope.seen.contains(field).then(|| self.envelope.span(field).of(self.text))
    }

    /// A field that is there and must be a string: its unescaped text.
    #[inline]
    pub(super) fn required_text(&mut self, field: Field) -> Result<Span, Refusal> {
        let span = self.envelope.span(field);
        if self.text[span.start as usize] != b'"' {
            return Err(self.wrong(field));
        }
        let inside = Span { start: span.start + 1, length: span.length - 2 };
        if self.envelope.is_escaped(field) {
            return self.tail.unescape(inside.of(self.text));
        }
        Ok(inside)
    }

    /// A field that must be a string if it is there.
    #[inline]
    pub(super) fn text(&mut self, field: Field) -> Result<Option<Span>, Refusal> {
        if self.envelope.seen.contains(field) { self.required_text(field).map(Some) } else { Ok(None) }
    }

    /// The bytes of a text that [`Fields::required_text`] gave, in the lines or in the tail.
    #[inline]
    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        match (span.start as usize).checked_sub(self.tail.base) {
            Some(start) => &self.tail.bytes[start..start + span.length as usize],
            None => span.of(self.text),
        }
    }

    /// `key`, within its bounds.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Span, Refusal> {
        let key = self.required_text(Field::Key)?;
        check_key(key, || "`key`".to_string())?;
        Ok(key)
    }

    /// `value`: any JSON, within its bound.
    #[inline]
    pub(super) fn value(&self) -> Result<Span, Refusal> {
        let value = self.envelope.span(Field::Value);
        check_value(value, || "`value`".to_string())?;
        Ok(value)
    }

    /// A field that must be true or false if it is there.
    pub(super) fn flag(&self, field: Field, default: bool) -> Result<bool, Refusal> {
        match self.raw(field) {
            None => Ok(default),
            Some(b"true") => Ok(true),
            Some(b"false") => Ok(false),
            Some(_) => Err(self.wrong(field)),
        }
    }

    /// A field that must be an integer in this range if it is there. What is
    /// beyond 64 bits counts as the largest 64-bit integer.
    pub(super) fn integer(
        &self,
        field: Field,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, Refusal> {
        let Some(raw) = self.raw(field) else { return Ok(None) };
        match integer(raw) {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(field)),
        }
    }

    /// `limit` or `top_k`: positive, and capped rather than refused.
    pub(super) fn page_items(&self, field: Field, default: usize) -> Result<usize, Refusal> {
        let asked = self.integer(field, 1..=u64::MAX)?;
        Ok(asked.map_or(default, |asked| asked.min(PAGE_ITEMS_MAX as u64) as usize))
    }

    /// `limit`.
    pub(super) fn limit(&self) -> Result<usize, Refusal> {
        self.page_items(Field::Limit, PAGE_ITEMS_DEFAULT)
    }

    /// `if_version` and `if_absent`.
    #[inline]
    pub(super) fn condition(&mut self) -> Result<Condition, Refusal> {
        const CONDITIONS: FieldSet = FieldSet::of(&[Field::IfVersion, Field::IfAbsent]);
        if self.envelope.seen.is_disjoint(CONDITIONS) {
            return Ok(Condition::None);
        }
        let absent = self.flag(Field::IfAbsent, false)?;
        match (self.raw(Field::IfVersion).is_some(), absent) {
            (false, false) => Ok(Condition::None),
            (false, true) => Ok(Condition::Absent),
            (true, false) => self.if_version(),
            (true, true) => Err(refuse(
                Code::BadRequest,
                "`if_version` and `if_absent` exclude each other: send one of them \
                 (`\"if_version\": null` asks for an absent key, too)",
            )),
        }
    }

    fn if_version(&mut self) -> Result<Condition, Refusal> {
        if self.raw(Field::IfVersion) == Some(b"null") {
            return Ok(Condition::Version(None));
        }
        let span = self.required_text(Field::IfVersion)?;
        let version = std::str::from_utf8(self.bytes(span)).ok().and_then(Version::parse);
        Ok(version.map_or(Condition::NeverMatches, |version| Condition::Version(Some(version))))
    }

    /// `consistency`.
    #[inline]
    pub(super) fn consistency(&mut self) -> Result<Consistency, Refusal> {
        match self.raw(Field::Consistency) {
            None => Ok(Consistency::Default),
            Some([b'{', ..]) => self.staleness(),
            Some(_) => {
                let span = self.required_text(Field::Consistency)?;
                match self.bytes(span) {
                    b"linearizable" => Ok(Consistency::Linearizable),
                    b"local" => Ok(Consistency::Local),
                    _ => Err(self.wrong(Field::Consistency)),
                }
            }
        }
    }

    /// `{"max_staleness_ms": n}`: exactly this one field.
    fn staleness(&self) -> Result<Consistency, Refusal> {
        let raw = self.envelope.span(Field::Consistency).of(self.text);
        one_field(raw, b"max_staleness_ms")
            .and_then(integer)
            .map(Consistency::MaxStalenessMs)
            .ok_or_else(|| self.wrong(Field::Consistency))
    }

    /// `vector`: its numbers, as little-endian f32s in the tail.
    pub(super) fn vector(&mut self) -> Result<Span, Refusal> {
        let span = self.envelope.span(Field::Vector);
        let Some(mut elements) = Elements::new(self.text, span) else {
            return Err(self.wrong(Field::Vector));
        };
        let from = self.tail.bytes.len();
        let mut length = 0;
        let mut all_zero = true;
        while let Some(element) = elements.next()? {
            let number = vector_number(element.of(self.text), length)?;
            if length == VECTOR_LENGTH_MAX {
                return Err(bad_vector(format!("has more than {VECTOR_LENGTH_MAX} numbers")));
            }
            all_zero &= number == 0.0;
            length += 1;
            self.tail.bytes.extend_from_slice(&number.to_le_bytes());
        }
        match (length, all_zero) {
            (0, _) => Err(bad_vector(format!("is empty: it must have 1 to {VECTOR_LENGTH_MAX} numbers"))),
            (_, true) => Err(bad_vector("is all zero as 32-bit floats: it has no direction")),
            (_, false) => Ok(self.tail.span_since(from)),
        }
    }
}

#[cold]
fn bad_vector(fault: impl std::fmt::Display) -> Refusal {
    refuse(Code::BadVector, format!("`vector` {fault}"))
}

fn vector_number(raw: &[u8], position: usize) -> Result<f32, Refusal> {
    let number = match raw.first() {
        Some(b'-' | b'0'..=b'9') => std::str::from_utf8(raw).ok().and_then(|text| text.parse::<f32>().ok()),
        _ => None,
    };
    match number {
        Some(number) if number.is_finite() => Ok(number),
        Some(_) => Err(bad_vector(format!("[{position}] is beyond a 32-bit float: {}", shown(raw)))),
        None => Err(refuse(
            Code::BadRequest,
            format!("`vector`[{position}] must be a number, not {}", shown(raw)),
        )),
    }
}

/// A key's bounds. `name` says which key, for the message.
#[inline]
pub(super) fn check_key(key: Span, name: impl FnOnce() -> String) -> Result<(), Refusal> {
    match key.length as usize {
        0 => Err(refuse(Code::BadRequest, format!("{} must not be empty", name()))),
        length if length > KEY_BYTES_MAX => Err(refuse(
            Code::KeyTooLarge,
            format!("{} has {length} bytes; a key may have {KEY_BYTES_MAX}", name()),
        )),
        _ => Ok(()),
    }
}

/// A value's bound. `name` says which value, for the message.
#[inline]
pub(super) fn check_value(value: Span, name: impl FnOnce() -> String) -> Result<(), Refusal> {
    let length = value.length as usize;
    if length > VALUE_BYTES_MAX {
        let message = format!("{} has {length} bytes; a value may have {VALUE_BYTES_MAX}", name());
        return Err(refuse(Code::ValueTooLarge, message));
    }
    Ok(())
}

/// A non-negative integer written plainly (`10`, not `1e1`).
pub(super) fn integer(raw: &[u8]) -> Option<u64> {
    if raw.is_empty() || !raw.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let append = |number: u64, byte: &u8| number.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
    Some(raw.iter().fold(0, append))
}

/// The value of a valid object's only field, if that is its name.
fn one_field<'t>(object: &'t [u8], wanted: &[u8]) -> Option<&'t [u8]> {
    let start = json::skip_whitespace(object, 1);
    let name = (object.get(start) == Some(&b'"')).then(|| json::skip_string(object, start).ok())??;
    let mut plain = Vec::new();
    json::unescape(&object[start + 1..name.end - 1], &mut plain).ok()?;
    let colon = json::skip_whitespace(object, name.end);
    let start = json::skip_whitespace(object, colon + 1);
    let end = json::skip_value(object, start, 0).ok()?;
    let is_last = object.get(json::skip_whitespace(object, end)) == Some(&b'}');
    (is_last && plain == wanted).then_some(&object[start..end])
}

/// Walks the elements of an array that was found valid before.
pub(super) struct Elements<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Elements<'t> {
    /// `None` when the value at `span` is no array.
    pub(super) fn new(text: &'t [u8], span: Span) -> Option<Elements<'t>> {
        let start = span.start as usize;
        (text[start] == b'[').then(|| Elements { text, at: start + 1 })
    }

    /// Where the next element begins, `None` behind the last.
    pub(super) fn next_start(&mut self) -> Option<usize> {
        self.at = json::skip_whitespace(self.text, self.at);
        if self.text.get(self.at) == Some(&b',') {
            self.at = json::skip_whitespace(self.text, self.at + 1);
        }
        (self.text.get(self.at) != Some(&b']')).then_some(self.at)
    }

    /// The element that begins at `start`, which the walk then has behind it.
    pub(super) fn element(&mut self, start: usize) -> Result<Span, Refusal> {
        // Valid when it was scanned with its line, so this error is unreachable; were it not, refusing is right.
        self.at = json::skip_value(self.text, start, 0)
            .map_err(|error| refuse(Code::ParseError, error.to_string()))?;
        Ok(Span { start: start as u32, length: (self.at - start) as u32 })
    }

    /// Goes on behind an inner array whose walk has reached its end.
    pub(super) fn resume_behind(&mut self, inner: Elements<'_>) {
        self.at = inner.at + 1;
    }

    /// The next element.
    pub(super) fn next(&mut self) -> Result<Option<Span>, Refusal> {
        self.next_start().map(|start| self.element(start)).transpose()
    }
}
