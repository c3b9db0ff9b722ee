//! Operations on one key: `set`, `get`, `delete`, `add_vector`, `get_vector`.

use super::envelope::Field;
use super::fields::{Fields, Refusal, Shape};
use super::request::Operation;

pub(super) static SET: Shape = Shape::new(
    "set",
    &[Field::Key, Field::Value],
    &[Field::IfVersion, Field::IfAbsent, Field::WriteQuorum],
    set,
);
pub(super) static GET: Shape =
    Shape::new("get", &[Field::Key], &[Field::Consistency, Field::ReadQuorum, Field::AfterVersion], get);
pub(super) static DELETE: Shape =
    Shape::new("delete", &[Field::Key], &[Field::IfVersion, Field::WriteQuorum], delete);
pub(super) static ADD_VECTOR: Shape = Shape::new(
    "add_vector",
    &[Field::Key, Field::Vector],
    &[Field::IfVersion, Field::WriteQuorum],
    add_vector,
);
pub(super) static GET_VECTOR: Shape =
    Shape::new("get_vector", &[Field::Key], &[Field::Consistency, Field::AfterVersion], get_vector);

fn set(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    Ok(Operation::Set { key: fields.key()?, value: fields.value()?, condition: fields.condition()? })
}

fn get(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    Ok(Operation::Get { key: fields.key()?, consistency: fields.consistency()? })
}

fn delete(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    Ok(Operation::Delete { key: fields.key()?, condition: fields.condition()? })
}

fn add_vector(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    let (key, condition) = (fields.key()?, fields.condition()?);
    Ok(Operation::AddVector { key, vector: fields.vector()?, condition })
}

fn get_vector(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    Ok(Operation::GetVector { key: fields.key()?, consistency: fields.consistency()? })
}
