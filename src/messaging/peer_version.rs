//! Frames as a peer of an earlier version of the peers' protocol may have them.

use super::peer_frame::PeerFrame;
use crate::replication::doubt::{Condition, for_earlier};
use crate::replication::protocol::{PROTOCOL_DOUBT, PROTOCOL_HEALTH};

/// The kinds of the frames by which a node says that it is there, and how: the later ones far from those
/// that dynamo mode has.
pub(super) const PRESENCE: u8 = 11;
pub(super) const IN_DOUBT: u8 = 64;
pub(super) const CONFLICTING: u8 = 65;

/// The frame as a peer of this version of the protocol may have it; `None`: it may not.
pub fn for_version(frame: PeerFrame, protocol: u32) -> Option<PeerFrame> {
    let frame = match frame {
        PeerFrame::Health(health) if protocol < PROTOCOL_HEALTH => PeerFrame::Presence(health.condition),
        frame => frame,
    };
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
        Condition::InDoubt => IN_DOUBT,
        Condition::Conflicting => CONFLICTING,
    }
}

/// What a frame of this kind says.
pub(super) fn present(kind: u8) -> Option<Condition> {
    [Condition::Well, Condition::InDoubt, Condition::Conflicting]
        .into_iter()
        .find(|condition| presence(*condition) == kind)
}
