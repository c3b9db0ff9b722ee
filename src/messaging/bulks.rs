//! Operations on several keys at once: `bulk_set`, `bulk_get`, `bulk_delete`.
//! A record that is wrong is named by its place, counted from 0 as in JSON.

use super::envelope::Field;
use super::fields::{Elements, Fields, Refusal, Shape, check_key, check_value, refuse, shown};
use super::json;
use super::request::{Operation, Span};
use crate::error::Code;
use crate::limits::BATCH_RECORDS_MAX;

pub(super) static BULK_SET: Shape =
    Shape::new("bulk_set", &[Field::Records], &[Field::WriteQuorum], bulk_set);
pub(super) static BULK_GET: Shape =
    Shape::new("bulk_get", &[Field::Keys], &[Field::Consistency, Field::AfterVersion], bulk_get);
pub(super) static BULK_DELETE: Shape =
    Shape::new("bulk_delete", &[Field::Keys], &[Field::WriteQuorum], bulk_delete);

fn bulk_set(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    let Some(mut elements) = Elements::new(fields.text, fields.envelope.span(Field::Records)) else {
        return Err(fields.wrong(Field::Records));
    };
    let mut records = Vec::new();
    while let Some(start) = elements.next_start() {
        check_batch(Field::Records, records.len())?;
        records.push(record(fields, &mut elements, start, records.len())?);
    }
    Ok(Operation::BulkSet { records })
}

/// Reads one `[key, value]` in a single walk.
fn record(
    fields: &mut Fields<'_>,
    elements: &mut Elements<'_>,
    start: usize,
    position: usize,
) -> Result<(Span, Span), Refusal> {
    let text = fields.text;
    let pair = Span { start: start as u32, length: 1 };
    let Some(mut parts) = Elements::new(text, pair) else {
        return Err(not_a_pair(text, elements, start, position));
    };
    let Some(key) = parts.next()? else {
        return Err(not_a_pair(text, elements, start, position));
    };
    let Some(value) = parts.next()? else {
        return Err(not_a_pair(text, elements, start, position));
    };
    if parts.next_start().is_some() {
        return Err(not_a_pair(text, elements, start, position));
    }
    let name = || format!("`records`[{position}]");
    let key = key_element(fields, key, name)?;
    check_value(value, || format!("the value of {}", name()))?;
    elements.resume_behind(parts);
    Ok((key, value))
}

#[cold]
fn not_a_pair(text: &[u8], elements: &mut Elements<'_>, start: usize, position: usize) -> Refusal {
    match elements.element(start) {
        Ok(raw) => {
            let raw = shown(raw.of(text));
            refuse(Code::BadRequest, format!("`records`[{position}] must be a [key, value] pair, not {raw}"))
        }
        Err(refusal) => refusal,
    }
}

fn bulk_get(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    Ok(Operation::BulkGet { keys: keys(fields)?, consistency: fields.consistency()? })
}

fn bulk_delete(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    Ok(Operation::BulkDelete { keys: keys(fields)? })
}

fn keys(fields: &mut Fields<'_>) -> Result<Vec<Span>, Refusal> {
    let Some(mut elements) = Elements::new(fields.text, fields.envelope.span(Field::Keys)) else {
        return Err(fields.wrong(Field::Keys));
    };
    let mut keys = Vec::new();
    while let Some(raw) = elements.next()? {
        check_batch(Field::Keys, keys.len())?;
        let position = keys.len();
        keys.push(key_element(fields, raw, || format!("`keys`[{position}]"))?);
    }
    Ok(keys)
}

/// A key in a list, unescaped and within its bounds.
fn key_element(fields: &mut Fields<'_>, raw: Span, name: impl Fn() -> String) -> Result<Span, Refusal> {
    let text = raw.of(fields.text);
    if text.first() != Some(&b'"') {
        let message = format!("the key of {} must be a string, not {}", name(), shown(text));
        return Err(refuse(Code::BadRequest, message));
    }
    let inside = Span { start: raw.start + 1, length: raw.length - 2 };
    let is_escaped = json::is_escaped(inside.of(fields.text));
    let key = if is_escaped { fields.tail.unescape(inside.of(fields.text))? } else { inside };
    check_key(key, || format!("the key of {}", name()))?;
    Ok(key)
}

/// Refuses the record behind the last that fits.
fn check_batch(field: Field, records: usize) -> Result<(), Refusal> {
    if records < BATCH_RECORDS_MAX {
        return Ok(());
    }
    let message =
        format!("`{}` has more than {BATCH_RECORDS_MAX} elements: send several requests", field.name());
    Err(refuse(Code::BatchTooLarge, message))
}
