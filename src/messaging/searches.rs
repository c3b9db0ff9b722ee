//! Operations over many keys: `search_by_value`, `search_text`,
//! `vector_search`, `scan`, `count`.

use super::envelope::Field;
use super::fields::{Fields, Refusal, Shape};
use super::request::{Match, Operation, PageRequest, ScanRequest};
use crate::limits::TOP_K_DEFAULT;

pub(super) static SEARCH_BY_VALUE: Shape = Shape::new(
    "search_by_value",
    &[Field::Value],
    &[Field::Prefix, Field::Limit, Field::After, Field::Consistency, Field::AfterVersion],
    search_by_value,
);
pub(super) static SEARCH_TEXT: Shape = Shape::new(
    "search_text",
    &[Field::Query],
    &[Field::Match, Field::Prefix, Field::Limit, Field::After, Field::Consistency, Field::AfterVersion],
    search_text,
);
pub(super) static VECTOR_SEARCH: Shape = Shape::new(
    "vector_search",
    &[Field::Vector],
    &[Field::TopK, Field::Prefix, Field::Consistency, Field::AfterVersion],
    vector_search,
);
pub(super) static SCAN: Shape = Shape::new(
    "scan",
    &[],
    &[
        Field::Prefix,
        Field::Start,
        Field::End,
        Field::Reverse,
        Field::Limit,
        Field::After,
        Field::Values,
        Field::Vectors,
        Field::Consistency,
        Field::AfterVersion,
    ],
    scan,
);
pub(super) static COUNT: Shape =
    Shape::new("count", &[], &[Field::Prefix, Field::Consistency, Field::AfterVersion], count);

fn search_by_value(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    Ok(Operation::SearchByValue {
        value: fields.value()?,
        page: page(fields)?,
        consistency: fields.consistency()?,
    })
}

fn search_text(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    Ok(Operation::SearchText {
        query: fields.required_text(Field::Query)?,
        matching: matching(fields)?,
        page: page(fields)?,
        consistency: fields.consistency()?,
    })
}

fn page(fields: &mut Fields<'_>) -> Result<Box<PageRequest>, Refusal> {
    let (prefix, limit) = (fields.text(Field::Prefix)?, fields.limit()?);
    Ok(Box::new(PageRequest { prefix, limit, after: fields.text(Field::After)? }))
}

fn matching(fields: &mut Fields<'_>) -> Result<Match, Refusal> {
    let Some(span) = fields.text(Field::Match)? else { return Ok(Match::All) };
    match fields.bytes(span) {
        b"all" => Ok(Match::All),
        b"any" => Ok(Match::Any),
        _ => Err(fields.wrong(Field::Match)),
    }
}

fn vector_search(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    Ok(Operation::VectorSearch {
        vector: fields.vector()?,
        top_k: fields.page_items(Field::TopK, TOP_K_DEFAULT)?,
        prefix: fields.text(Field::Prefix)?,
        consistency: fields.consistency()?,
    })
}

fn scan(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    let range = ScanRequest {
        prefix: fields.text(Field::Prefix)?,
        start: fields.text(Field::Start)?,
        end: fields.text(Field::End)?,
        reverse: fields.flag(Field::Reverse, false)?,
        limit: fields.limit()?,
        after: fields.text(Field::After)?,
        values: fields.flag(Field::Values, true)?,
        vectors: fields.flag(Field::Vectors, false)?,
    };
    Ok(Operation::Scan { range: Box::new(range), consistency: fields.consistency()? })
}

fn count(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    Ok(Operation::Count { prefix: fields.text(Field::Prefix)?, consistency: fields.consistency()? })
}
