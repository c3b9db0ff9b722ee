//! `w`, `r` and `after_version`: what a request may ask for beyond its operation,
//! whichever that is. They are decoded apart from the operations, which are the
//! same in every mode, while these are refused by a node that isn't in dynamo mode.

use super::envelope::{Field, FieldSet};
use super::fields::{Fields, Refusal, integer};
use super::request::{Asks, Copies};
use crate::limits::MEMBERS_MAX;
use crate::version::Version;

const ASKS: FieldSet = FieldSet::of(&[Field::WriteQuorum, Field::ReadQuorum, Field::AfterVersion]);

// What `w` and `r` must be says the number.
const _: () = assert!(MEMBERS_MAX == 9);

impl Asks {
    /// The name of the first field that is there.
    pub fn first_field(&self) -> Option<&'static str> {
        let fields = [
            (self.copies.is_some(), Field::WriteQuorum),
            (self.read_copies.is_some(), Field::ReadQuorum),
            (self.after_version.is_some(), Field::AfterVersion),
        ];
        fields.into_iter().find(|(is_there, _)| *is_there).map(|(_, field)| field.name())
    }
}

/// What the line asks for; nearly every one nothing.
#[inline]
pub(super) fn asks(fields: &mut Fields<'_>) -> Result<Option<Box<Asks>>, Refusal> {
    if fields.envelope.seen.is_disjoint(ASKS) { Ok(None) } else { decode(fields).map(Some) }
}

#[cold]
fn decode(fields: &mut Fields<'_>) -> Result<Box<Asks>, Refusal> {
    Ok(Box::new(Asks {
        copies: copies(fields, Field::WriteQuorum)?,
        read_copies: copies(fields, Field::ReadQuorum)?,
        after_version: after_version(fields)?,
    }))
}

fn copies(fields: &mut Fields<'_>, field: Field) -> Result<Option<Copies>, Refusal> {
    let Some(raw) = fields.raw(field) else { return Ok(None) };
    if let Some(count) = integer(raw) {
        let count = usize::try_from(count).ok().filter(|count| (1..=MEMBERS_MAX).contains(count));
        return count.map(|count| Some(Copies::Count(count))).ok_or_else(|| fields.wrong(field));
    }
    let word = fields.required_text(field)?;
    match fields.bytes(word) {
        b"majority" => Ok(Some(Copies::Majority)),
        b"all" => Ok(Some(Copies::All)),
        _ => Err(fields.wrong(field)),
    }
}

fn after_version(fields: &mut Fields<'_>) -> Result<Option<Version>, Refusal> {
    let Some(text) = fields.text(Field::AfterVersion)? else { return Ok(None) };
    let version = std::str::from_utf8(fields.bytes(text)).ok().and_then(Version::parse);
    version.map(Some).ok_or_else(|| fields.wrong(Field::AfterVersion))
}
