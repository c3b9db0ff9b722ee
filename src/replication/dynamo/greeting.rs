//! How nodes of dynamo mode greet each other, and who is let in.
//!
//! ```text
//!   its number is a member's, and its directory that member's           welcome
//!   … or nobody has met that member's directory yet                     welcome
//!   … and its directory is another one                                  evict that member first
//!   its directory was evicted                                           it returns only wiped
//!   this node's own directory was evicted                               nobody is let in here
//!   it reads no reports, and some were heard here                       it is to be started with this version
//!   nobody knows it, and it has no data                                 it is admitted, and comes again
//!   … and there are nine members                                        evict one first
//!   nobody knows it, and it has data                                    who admitted it may still tell us
//! ```
//!
//! A node that nobody knows must not bring data: others may have forgotten tombstones
//! that what it has written is older than.

use serde::{Deserialize, Serialize};

use super::listing::PROTOCOL_LISTS;
use super::members::{Members, Place};
use crate::error::{Code, Error};
use crate::limits::MEMBERS_MAX;
use crate::replication::handshake::Lane;
use crate::replication::message::NodeId;

/// The versions of the peers' protocol in dynamo mode, lowest and highest.
pub const PROTOCOL: (u32, u32) = (1, 2);

/// A greeting, and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// `dynamo`.
    pub mode: String,
    /// The protocol versions that it speaks, lowest and highest.
    pub protocol: (u32, u32),
    /// What the connection is for.
    pub lane: Lane,
    /// Who it is, and where it is reached.
    pub from: Place,
    /// Its process.
    pub boot: u64,
    /// Whom it takes the other one for.
    pub to: NodeId,
    /// It has never had a key.
    pub is_new: bool,
    /// Where clients are told that it is, if it was told to say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<(String, u16)>,
}

/// What becomes of a greeting.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Frames follow.
    Accept,
    /// It is to be admitted, and told to come again.
    Admit,
    /// Nothing, and for good: its directory was evicted.
    Evicted(Error),
    /// Nothing.
    Refuse(Error),
}

fn refuse(code: Code, message: String) -> Decision {
    Decision::Refuse(Error::new(code, message))
}

/// What it takes would reach nobody.
fn no_place() -> Decision {
    let message = format!(
        "this cluster has {MEMBERS_MAX} members or more, and nobody joins beyond that: `evict` one that is lost, and \
         the node joins by itself"
    );
    refuse(Code::ReadOnly, message)
}

/// Decides about a greeting, or about an answer to one.
pub fn decide(me: &Place, members: &Members, greeting: &Greeting) -> Decision {
    let Greeting { mode, protocol, from, to, is_new, .. } = greeting;
    let node_id = from.node_id;
    let Some(directory) = from.directory.filter(|_| mode == "dynamo") else {
        return refuse(
            Code::BadRequest,
            format!("node {} runs with --mode dynamo, the other one doesn't", me.node_id),
        );
    };
    if protocol.0 > PROTOCOL.1 || protocol.1 < PROTOCOL.0 {
        let message = format!("dynamo peers speak protocol {} to {} here", PROTOCOL.0, PROTOCOL.1);
        return refuse(Code::UnsupportedProtocol, message);
    }
    if members.has_reports() && protocol.1 < PROTOCOL_LISTS {
        let message = format!(
            "members of this cluster have reported on streams that have ended, which versions before dynamo protocol \
             {PROTOCOL_LISTS} can't read: start node {node_id} with this version"
        );
        return refuse(Code::UnsupportedProtocol, message);
    }
    if *to != me.node_id {
        let message =
            format!("node {to} was meant, and this is node {}: correct the address in --peers", me.node_id);
        return refuse(Code::BadRequest, message);
    }
    if node_id == me.node_id {
        return refuse(Code::BadRequest, format!("two nodes have --node-id {node_id}: give each its own"));
    }
    if members.is_evicted(directory) {
        let message = format!(
            "node {node_id} was evicted: its directory may hold what all others have forgotten; start it on an empty one"
        );
        return Decision::Evicted(Error::new(Code::ReadOnly, message));
    }
    if me.directory.is_some_and(|own| members.is_evicted(own)) {
        let message =
            format!("node {} was evicted itself, and lets nobody in: greet another member", me.node_id);
        return refuse(Code::ReadOnly, message);
    }
    let count = members.node_ids().len();
    match members.member(node_id).map(|place| place.directory) {
        // The flags name it, and it has never been here.
        Some(None) if count > MEMBERS_MAX => no_place(),
        Some(None) => Decision::Accept,
        Some(Some(known)) if known == directory => Decision::Accept,
        Some(Some(known)) => {
            let message = format!(
                "node {node_id} comes with directory {directory}, and is known with {known}: if its data is lost, \
                 `evict` node {node_id}, and it joins anew"
            );
            // What it takes meanwhile would reach nobody.
            refuse(Code::ReadOnly, message)
        }
        None if *is_new && count >= MEMBERS_MAX => no_place(),
        None if *is_new => Decision::Admit,
        None => {
            let message = format!(
                "node {node_id} is no member here and has data: if another node has admitted it, this one hears of it; \
                 else start it on an empty directory"
            );
            refuse(Code::ReadOnly, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::NodeUuid;
    use crate::replication::dynamo::members::MemberChange;
    use crate::version::Version;

    fn place(node_id: NodeId, directory: u8) -> Place {
        Place { node_id, directory: Some(NodeUuid([directory; 16])), host: "h".into(), port: 1 }
    }

    fn greeting(from: Place) -> Greeting {
        let (mode, protocol, lane) = ("dynamo".to_string(), PROTOCOL, Lane::Log);
        Greeting { mode, protocol, lane, from, boot: 1, to: 1, is_new: false, advertise: None }
    }

    fn refused(members: &Members, greeting: &Greeting) -> Option<Code> {
        match decide(&place(1, 1), members, greeting) {
            Decision::Refuse(error) | Decision::Evicted(error) => Some(error.code),
            Decision::Accept | Decision::Admit => None,
        }
    }

    #[test]
    fn members_are_let_in_with_their_own_directories() {
        let mut members = Members::default();
        members.named(2, "h", 1);
        let decision = |members: &Members, greeting: &Greeting| decide(&place(1, 1), members, greeting);
        assert_eq!(decision(&members, &greeting(place(2, 2))), Decision::Accept, "not met yet");
        members
            .apply(&MemberChange::Begin { origin: 5, node: place(2, 2) }, Version { index: 1, ordinal: 5 });
        assert_eq!(decision(&members, &greeting(place(2, 2))), Decision::Accept);
        assert_eq!(refused(&members, &greeting(place(2, 3))), Some(Code::ReadOnly), "another directory");
        let evict = MemberChange::Evict { node_id: 2, directory: Some(NodeUuid([2; 16])) };
        members.apply(&evict, Version { index: 2, ordinal: 1 });
        assert_eq!(refused(&members, &greeting(place(2, 2))), Some(Code::ReadOnly));
        let new = Greeting { is_new: true, ..greeting(place(2, 3)) };
        assert_eq!(decision(&members, &new), Decision::Admit, "wiped");
        assert_eq!(refused(&members, &greeting(place(2, 3))), Some(Code::ReadOnly), "with data");
    }

    #[test]
    fn beyond_the_most_members_nobody_joins_and_those_that_are_there_stay() {
        let mut members = Members::default();
        let begin = |members: &mut Members, id: u8| {
            let node = place(id.into(), id);
            let version = Version { index: id.into(), ordinal: id.into() };
            members.apply(&MemberChange::Begin { origin: id.into(), node }, version);
        };
        (1..=8).for_each(|id| begin(&mut members, id));
        members.named(9, "h", 1);
        let decision = |members: &Members, id: u8| {
            let new = Greeting { is_new: true, ..greeting(place(id.into(), id)) };
            decide(&place(1, 1), members, &new)
        };
        assert_eq!(decision(&members, 9), Decision::Accept, "the ninth");
        assert!(matches!(decision(&members, 10), Decision::Refuse(error) if error.code == Code::ReadOnly));
        (10..=11).for_each(|id| begin(&mut members, id));
        assert_eq!(decision(&members, 11), Decision::Accept, "others have admitted it");
        assert!(matches!(decision(&members, 9), Decision::Refuse(_)), "it was never here");
    }

    #[test]
    fn strangers_are_told_what_is_wrong() {
        let members = Members::default();
        for wrong in [
            Greeting { mode: "leader".into(), ..greeting(place(2, 2)) },
            Greeting { to: 7, ..greeting(place(2, 2)) },
            greeting(place(1, 2)),
        ] {
            assert_eq!(refused(&members, &wrong), Some(Code::BadRequest), "{wrong:?}");
        }
        let later = Greeting { protocol: (3, 4), ..greeting(place(2, 2)) };
        assert_eq!(refused(&members, &later), Some(Code::UnsupportedProtocol));
    }
}
