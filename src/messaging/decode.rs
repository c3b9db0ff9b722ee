//! From one line to one request: the envelope is read in a single pass, then
//! the operation's own file decodes the fields it knows, and then `asks` those
//! that ask for something beyond the operation.
//!
//! What a line is refused for, when several things are wrong with it, in this
//! order: not JSON; not an object; a field twice or a value too deep; no `op`;
//! an unknown operation; an `id` of the wrong kind; an unknown field; a missing
//! field; and then each field's own bounds, those of `w`, `r` and
//! `after_version` last. A line that is sound may still be refused by the node
//! whose mode doesn't know its operation or these three: no mode is known here.

use super::envelope::{Envelope, Fault, Field, FieldSet};
use super::fields::{Fields, Refusal, Shape, Tail, refuse, shown};
use super::json::JsonError;
use super::request::{Asks, Operation, Span};
use super::{admin, asks, bulks, keys, searches};
use crate::error::Code;
use crate::limits::{JSON_DEPTH_MAX, KEY_BYTES_MAX};

/// A line's operation and what it asks for beyond, or why it is refused.
pub(super) type Asked = Result<(Operation, Option<Box<Asks>>), Refusal>;

/// Every operation, for the message that names them.
pub(super) static SHAPES: [&Shape; 23] = [
    &keys::SET,
    &keys::GET,
    &keys::DELETE,
    &bulks::BULK_SET,
    &bulks::BULK_GET,
    &bulks::BULK_DELETE,
    &searches::SEARCH_BY_VALUE,
    &searches::SEARCH_TEXT,
    &keys::ADD_VECTOR,
    &keys::GET_VECTOR,
    &searches::VECTOR_SEARCH,
    &searches::SCAN,
    &searches::COUNT,
    &admin::PING,
    &admin::HELLO,
    &admin::STATS,
    &admin::CLUSTER,
    &admin::PROMOTE,
    &admin::ADD_MEMBER,
    &admin::REMOVE_MEMBER,
    &admin::SNAPSHOT,
    &admin::CONFLICTS,
    &admin::EVICT,
];

/// The operation of this name. The frequent ones are found without a walk.
#[inline]
fn shape_named(name: &[u8]) -> Option<&'static Shape> {
    match name {
        b"get" => Some(&keys::GET),
        b"set" => Some(&keys::SET),
        b"delete" => Some(&keys::DELETE),
        _ => SHAPES.iter().find(|shape| shape.name.as_bytes() == name).copied(),
    }
}

/// Decodes lines; it holds what is used again from line to line.
#[derive(Default)]
pub(super) struct Decoder {
    envelope: Envelope,
    pub(super) tail: Tail,
}

impl Decoder {
    /// Decodes the line that begins at `start` and ends with `text`, which is
    /// the arena up to there. The id is read even from most refused lines.
    #[inline]
    pub(super) fn decode(&mut self, text: &[u8], start: usize) -> (Span, Asked) {
        let tail_bytes = self.tail.bytes.len();
        let asked = match self.envelope.read(text, start) {
            Ok(()) => interpret(text, &self.envelope, &mut self.tail),
            Err(error) => Err(refuse_json(error, start)),
        };
        if asked.is_err() {
            // Nothing points at what a refused request has left there.
            self.tail.bytes.truncate(tail_bytes);
        }
        (self.envelope.id, asked)
    }

    /// The id of a line that is refused unread: one that isn't UTF-8, or the
    /// beginning of one that is too long. It is copied behind the lines, since
    /// the line itself may not stay.
    #[cold]
    pub(super) fn read_id(&mut self, text: &[u8], start: usize) -> Span {
        // What follows the id doesn't matter, so neither does an error there.
        let _ = self.envelope.read(text, start);
        let id = self.envelope.id.of(text);
        if id.len() > KEY_BYTES_MAX || std::str::from_utf8(id).is_err() {
            return Span::default();
        }
        let from = self.tail.bytes.len();
        self.tail.bytes.extend_from_slice(id);
        self.tail.span_since(from)
    }
}

#[inline]
fn interpret(text: &[u8], envelope: &Envelope, tail: &mut Tail) -> Asked {
    match envelope.fault {
        None | Some(Fault::BadId) => {}
        Some(fault) => return Err(refuse_fault(fault)),
    }
    let mut fields = Fields { text, envelope, tail };
    let shape = find_shape(&mut fields)?;
    let foreign = envelope.seen.without(shape.known);
    let missing = shape.required.without(envelope.seen);
    let is_sound = foreign.is_empty() && missing.is_empty() && envelope.unknown.is_none();
    if !is_sound || envelope.fault.is_some() {
        return Err(refuse_fields(&fields, shape, foreign, missing));
    }
    Ok(((shape.decode)(&mut fields)?, asks::asks(&mut fields)?))
}

#[inline]
fn find_shape(fields: &mut Fields<'_>) -> Result<&'static Shape, Refusal> {
    if !fields.envelope.seen.contains(Field::Op) {
        return Err(refuse(Code::BadRequest, "`op` is missing: it names the operation, as a string"));
    }
    let name = fields.required_text(Field::Op)?;
    shape_named(fields.bytes(name)).ok_or_else(|| {
        let known: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
        let name = shown(fields.bytes(name));
        refuse(Code::UnknownOp, format!("no operation {name}; there are {}", known.join(", ")))
    })
}

#[cold]
fn refuse_json(error: JsonError, line_start: usize) -> Refusal {
    let (fault, offset) = (error.kind.as_str(), error.offset - line_start);
    refuse(Code::ParseError, format!("not JSON: {fault} at byte {offset} of the line"))
}

#[cold]
fn refuse_fault(fault: Fault) -> Refusal {
    let message = match fault {
        Fault::NotAnObject => "a request must be a JSON object".to_string(),
        Fault::Duplicate(field) => format!("`{}` is there twice", field.name()),
        Fault::TooDeep => format!("JSON may nest {JSON_DEPTH_MAX} levels deep, the request being the first"),
        Fault::BadId => format!("`id` must be {}", Field::Id.wants()),
    };
    refuse(Code::BadRequest, message)
}

/// Why these fields aren't what the operation wants.
#[cold]
fn refuse_fields(fields: &Fields<'_>, shape: &Shape, foreign: FieldSet, missing: FieldSet) -> Refusal {
    let envelope = fields.envelope;
    let operation = shape.name;
    if let Some(fault) = envelope.fault {
        return refuse_fault(fault);
    }
    let unknown = envelope.unknown.map(|name| shown(name.of(fields.text)));
    let unknown = unknown.or_else(|| foreign.iter().next().map(|field| format!("`{}`", field.name())));
    if let Some(unknown) = unknown {
        let known: Vec<&str> = shape.known.iter().map(Field::name).collect();
        let message = format!("`{operation}` has no field {unknown}; it knows {}", known.join(", "));
        return refuse(Code::BadRequest, message);
    }
    let missing: Vec<String> =
        missing.iter().map(|field| format!("`{}` ({})", field.name(), field.wants())).collect();
    refuse(Code::BadRequest, format!("`{operation}` wants {}", missing.join(" and ")))
}
