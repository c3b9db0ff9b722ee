//! A request line's outer object, read in one pass: which fields there are and
//! where their values lie. Nothing is interpreted here but the `id`, which is
//! echoed even when the rest turns out to be wrong.
//!
//! Faults that leave the line readable (a field twice, a value too deep, a name
//! that no operation knows) don't end the pass, so that an `id` behind them is
//! still found. A field counts only once its delimiter has been seen: in a line
//! that is cut off within `"id":123…` the number read so far is no id.

use super::json::{self, JsonError, JsonErrorKind};
use super::request::Span;

macro_rules! fields {
    ($($name:ident $text:literal $wants:literal;)*) => {
        /// Every field that some operation knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Field { $($name,)* }

        const COUNT: usize = [$(Field::$name,)*].len();

        impl Field {
            /// The field of this name.
            #[inline]
            fn named(name: &[u8]) -> Option<Field> {
                match name { $($text => Some(Field::$name),)* _ => None }
            }

            /// Its name on the wire.
            pub(super) fn name(self) -> &'static str {
                let bytes: &'static [u8] = match self { $(Field::$name => $text,)* };
                std::str::from_utf8(bytes).unwrap_or_default()
            }

            /// What its value must be, for a person.
            pub(super) fn wants(self) -> &'static str {
                match self { $(Field::$name => $wants,)* }
            }

            /// All of them, in the order of their bits.
            const ALL: &'static [Field] = &[$(Field::$name,)*];
        }
    };
}

fields! {
    Op b"op" "a string";
    Id b"id" "a string, an integer or null";
    Key b"key" "a string that is not empty";
    Value b"value" "any JSON";
    IfVersion b"if_version" "a version as a string, or null for an absent key";
    IfAbsent b"if_absent" "true or false";
    Consistency b"consistency" "\"linearizable\", \"local\" or {\"max_staleness_ms\": an integer}";
    Records b"records" "an array of [key, value] pairs";
    Keys b"keys" "an array of keys";
    Limit b"limit" "a positive integer";
    After b"after" "a cursor as a string";
    Query b"query" "a string";
    Match b"match" "\"all\" or \"any\"";
    Vector b"vector" "an array of numbers";
    TopK b"top_k" "a positive integer";
    Prefix b"prefix" "a string";
    Start b"start" "a string";
    End b"end" "a string";
    Reverse b"reverse" "true or false";
    Values b"values" "true or false";
    Vectors b"vectors" "true or false";
    Section b"section" "a string";
    NodeId b"node_id" "a positive integer";
    Force b"force" "true or false";
    Host b"host" "a string that is not empty";
    Port b"port" "an integer from 1 to 65535";
    Protocol b"protocol" "an integer";
    Client b"client" "a string";
    WriteQuorum b"w" "an integer from 1 to 9, \"majority\" or \"all\"";
    ReadQuorum b"r" "an integer from 1 to 9, \"majority\" or \"all\"";
    AfterVersion b"after_version" "a version as a string, as a reply gave it";
}

const _: () = assert!(COUNT <= u32::BITS as usize);

/// A set of fields, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct FieldSet(u32);

impl FieldSet {
    /// These fields.
    pub(super) const fn of(fields: &[Field]) -> FieldSet {
        let mut bits = 0;
        let mut at = 0;
        while at < fields.len() {
            bits |= 1 << fields[at] as u32;
            at += 1;
        }
        FieldSet(bits)
    }

    pub(super) const fn union(self, other: FieldSet) -> FieldSet {
        FieldSet(self.0 | other.0)
    }

    pub(super) const fn without(self, other: FieldSet) -> FieldSet {
        FieldSet(self.0 & !other.0)
    }

    #[inline]
    pub(super) const fn is_disjoint(self, other: FieldSet) -> bool {
        self.0 & other.0 == 0
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(super) fn contains(self, field: Field) -> bool {
        self.0 & (1 << field as u32) != 0
    }

    #[inline]
    fn insert(&mut self, field: Field) {
        self.0 |= 1 << field as u32;
    }

    /// Its members in the order of [`Field`].
    pub(super) fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL.iter().copied().filter(move |&field| self.contains(field))
    }
}

/// Why a line that is JSON is refused all the same; the first one found counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The line is valid JSON but no object.
    NotAnObject,
    /// This field is there twice.
    Duplicate(Field),
    /// A value nests too deep.
    TooDeep,
    /// The `id` is of no kind that can be echoed.
    BadId,
}

/// What one line's outer object holds. Reused from line to line: only the spans
/// of the fields in `seen` mean anything.
#[derive(Default)]
pub(super) struct Envelope {
    /// The `id`'s raw JSON; empty when there is none that can be echoed.
    pub(super) id: Span,
    /// The fields that are there.
    pub(super) seen: FieldSet,
    /// Those whose value is a string with a backslash in it.
    escaped: FieldSet,
    /// The first fault found.
    pub(super) fault: Option<Fault>,
    /// The first field name that no operation knows, as it stands between its quotes.
    pub(super) unknown: Option<Span>,
    spans: [Span; COUNT],
}

impl Envelope {
    /// Where the raw value of a field lies. Only for fields in `seen`.
    #[inline]
    pub(super) fn span(&self, field: Field) -> Span {
        self.spans[field as usize]
    }

    /// Whether a field's value is a string that must be unescaped.
    #[inline]
    pub(super) fn is_escaped(&self, field: Field) -> bool {
        self.escaped.contains(field)
    }

    /// Reads the line from `start` to the end of `text`. Whatever was read
    /// before an error stays, so that the id can be echoed.
    #[inline]
    pub(super) fn read(&mut self, text: &[u8], start: usize) -> Result<(), JsonError> {
        self.id = Span::default();
        self.seen = FieldSet::default();
        self.escaped = FieldSet::default();
        self.fault = None;
        self.unknown = None;
        let start = json::skip_whitespace(text, start);
        if text.get(start) != Some(&b'{') {
            return self.read_other(text, start);
        }
        let mut at = json::skip_whitespace(text, start + 1);
        if text.get(at) != Some(&b'}') {
            at = self.read_fields(text, at)?;
        }
        expect_end(text, at + 1)
    }

    /// Reads from the first name to the closing brace, whose place it returns.
    #[inline]
    fn read_fields(&mut self, text: &[u8], mut at: usize) -> Result<usize, JsonError> {
        loop {
            if text.get(at) != Some(&b'"') {
                return fail(text, JsonErrorKind::NoName, at);
            }
            let name = json::skip_string(text, at)?;
            let inside = Span { start: at as u32 + 1, length: (name.end - at) as u32 - 2 };
            at = json::skip_whitespace(text, name.end);
            if text.get(at) != Some(&b':') {
                return fail(text, JsonErrorKind::NoColon, at);
            }
            let start = json::skip_whitespace(text, at + 1);
            let (end, escaped) = self.read_value(text, start)?;
            at = json::skip_whitespace(text, end);
            let delimiter = text.get(at);
            if !matches!(delimiter, Some(b',' | b'}')) {
                return fail(text, JsonErrorKind::NoComma, at);
            }
            let field =
                if name.escaped { named_escaped(inside.of(text)) } else { Field::named(inside.of(text)) };
            match field {
                Some(field) => self.record(text, field, start, end, escaped),
                None => self.unknown = self.unknown.or(Some(inside)),
            }
            if delimiter == Some(&b'}') {
                return Ok(at);
            }
            at = json::skip_whitespace(text, at + 1);
        }
    }

    /// Returns where the value ends and whether it is a string with escapes.
    #[inline]
    fn read_value(&mut self, text: &[u8], start: usize) -> Result<(usize, bool), JsonError> {
        if text.get(start) == Some(&b'"') {
            let string = json::skip_string(text, start)?;
            return Ok((string.end, string.escaped));
        }
        match json::skip_value(text, start, 1) {
            Ok(end) => Ok((end, false)),
            Err(error) if error.kind == JsonErrorKind::TooDeep => {
                let end = json::skip_deep_value(text, start)?;
                self.fault = self.fault.or(Some(Fault::TooDeep));
                Ok((end, false))
            }
            Err(error) => Err(error),
        }
    }

    #[inline]
    fn record(&mut self, text: &[u8], field: Field, start: usize, end: usize, escaped: bool) {
        if self.seen.contains(field) {
            self.fault = self.fault.or(Some(Fault::Duplicate(field)));
            return;
        }
        self.seen.insert(field);
        if escaped {
            self.escaped.insert(field);
        }
        let span = Span { start: start as u32, length: (end - start) as u32 };
        self.spans[field as usize] = span;
        if field == Field::Id {
            if is_id(span.of(text)) {
                self.id = span;
            } else {
                self.fault = self.fault.or(Some(Fault::BadId));
            }
        }
    }

    /// A line that doesn't begin with a brace: not a request, but JSON or not?
    #[cold]
    fn read_other(&mut self, text: &[u8], start: usize) -> Result<(), JsonError> {
        expect_end(text, json::skip_deep_value(text, start)?)?;
        self.fault = Some(Fault::NotAnObject);
        Ok(())
    }
}

#[cold]
fn fail<T>(text: &[u8], kind: JsonErrorKind, offset: usize) -> Result<T, JsonError> {
    let kind = if offset >= text.len() { JsonErrorKind::UnexpectedEnd } else { kind };
    Err(JsonError { kind, offset })
}

#[inline]
fn expect_end(text: &[u8], at: usize) -> Result<(), JsonError> {
    let end = json::skip_whitespace(text, at);
    if end == text.len() { Ok(()) } else { fail(text, JsonErrorKind::TrailingText, end) }
}

/// Whether a valid JSON value is a string, an integer or null.
fn is_id(raw: &[u8]) -> bool {
    match raw.first() {
        Some(b'"' | b'n') => true,
        Some(b'-' | b'0'..=b'9') => !raw.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')),
        _ => false,
    }
}

/// `"\u006fp"` is the name `op`.
#[cold]
fn named_escaped(inside: &[u8]) -> Option<Field> {
    let mut name = Vec::new();
    json::unescape(inside, &mut name).ok()?;
    Field::named(&name)
}
