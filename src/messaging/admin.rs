//! Operations on the node and its cluster. Those of one mode are checked here like
//! any other: whoever carries them out knows the mode.

use super::envelope::Field;
use super::fields::{Fields, Refusal, Shape, refuse};
use super::request::Operation;
use crate::error::Code;
use crate::limits::NODE_ID_MAX;

/// The only protocol there is.
const PROTOCOL: u64 = 1;

pub(super) static PING: Shape = Shape::new("ping", &[], &[], |_| Ok(Operation::Ping));
pub(super) static HELLO: Shape = Shape::new("hello", &[], &[Field::Protocol, Field::Client], hello);
pub(super) static STATS: Shape = Shape::new("stats", &[], &[Field::Section], stats);
pub(super) static CLUSTER: Shape = Shape::new("cluster", &[], &[], |_| Ok(Operation::Cluster));
pub(super) static PROMOTE: Shape = Shape::new("promote", &[], &[Field::NodeId, Field::Force], promote);
pub(super) static ADD_MEMBER: Shape =
    Shape::new("add_member", &[Field::NodeId, Field::Host, Field::Port], &[], add_member);
pub(super) static REMOVE_MEMBER: Shape = Shape::new("remove_member", &[Field::NodeId], &[], |fields| {
    Ok(Operation::RemoveMember { node_id: node_id(fields)? })
});
pub(super) static SNAPSHOT: Shape = Shape::new("snapshot", &[], &[], |_| Ok(Operation::Snapshot));
pub(super) static CONFLICTS: Shape = Shape::new("conflicts", &[], &[Field::Limit, Field::After], conflicts);
pub(super) static EVICT: Shape =
    Shape::new("evict", &[Field::NodeId], &[], |fields| Ok(Operation::Evict { node_id: node_id(fields)? }));

fn hello(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    fields.text(Field::Client)?;
    match fields.integer(Field::Protocol, 0..=u64::MAX)? {
        None | Some(PROTOCOL) => Ok(Operation::Hello),
        Some(other) => {
            let message = format!("`protocol` {other} is not spoken here; this node speaks {PROTOCOL}");
            Err(refuse(Code::UnsupportedProtocol, message))
        }
    }
}

fn stats(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    Ok(Operation::Stats { section: fields.text(Field::Section)? })
}

fn node_id(fields: &Fields<'_>) -> Result<u64, Refusal> {
    let given = fields.integer(Field::NodeId, 1..=NODE_ID_MAX)?;
    given.ok_or_else(|| fields.wrong(Field::NodeId))
}

fn promote(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    let node_id = fields.integer(Field::NodeId, 1..=NODE_ID_MAX)?;
    Ok(Operation::Promote { node_id, force: fields.flag(Field::Force, false)? })
}

fn add_member(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    let node_id = node_id(fields)?;
    let port = fields.integer(Field::Port, 1..=u64::from(u16::MAX))?;
    let port = port.and_then(|port| u16::try_from(port).ok()).ok_or_else(|| fields.wrong(Field::Port))?;
    let host = fields.required_text(Field::Host)?;
    if host.is_empty() {
        return Err(fields.wrong(Field::Host));
    }
    Ok(Operation::AddMember { node_id, host, port })
}

fn conflicts(fields: &mut Fields<'_>) -> Result<Operation, Refusal> {
    Ok(Operation::Conflicts { limit: fields.limit()?, after: fields.text(Field::After)? })
}
