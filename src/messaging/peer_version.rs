//! Frames as a peer of an earlier version of the peers' protocol may have them.

use super::peer_frame::{PRESENCE, PeerFrame};
use crate::replication::doubt::{Condition, for_earlier};
use crate::replication::protocol::PROTOCOL_DOUBT;

/// The kinds of the frames by which a node says how it is, far from those that dynamo mode has.
const PRESENCE_IN_DOUBT: u8 = 64;
const PRESENCE_CONFLICTING: u8 = 65;

/// The frame as a peer of this version of the protocol may have it; `None`: it may not.
pub fn for_version(frame: PeerFrame, protocol: u32) -> Option<PeerFrame> {
    match frame {
        frame if protocol >= PROTOCOL_DOUBT => Some(frame),
        PeerFrame::Message(message) => for_earlier(message).map(PeerFrame::Message),
        PeerFrame::Presence(_) => Some(PeerFrame::Presence(Condition::Well)),
        frame => Some(frame),
    }
}

/// The kind of the frame that says so.
pub(super) fn presence(condition: Condition) -> u8 {
    match condition {
        Condition::Well => PRESENCE,
        Condition::InDoubt => PRESENCE_IN_DOUBT,
        Condition::Conflicting => PRESENCE_CONFLICTING,
    }
}

/// What a frame of this kind says.
pub(super) fn present(kind: u8) -> Option<Condition> {
    [Condition::Well, Condition::InDoubt, Condition::Conflicting]
        .into_iter()
        .find(|condition| presence(*condition) == kind)
}
