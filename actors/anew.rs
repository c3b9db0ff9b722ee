//! Why a node begins anew with other members than it has run with, and that it stops to be what it was first.
//!
//! ```text
//!   who was told, or forces ─► thread of the members' file: the new file is synced, under another name
//!                              ─► WalWriter: does the reason still hold? ─► takes no more part
//!                              ─► the new file takes the old one's place ─► the process begins anew
//! ```
//!
//! The disk may take long for the first step, and the node goes on meanwhile: what it acknowledges then may be what
//! the reason said that it doesn't have. So the reason is judged again, in the same step in which the node stops to
//! acknowledge anything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};
use datastore::persistence::Membership;
use datastore::replication::handshake::{Decision, Hello, decide};

use crate::Cast;
use crate::cluster::Cluster;
use crate::peer_greeting::own;
use crate::replication_messages::ReplicationMessage;
use crate::wal_writer::WalMessage;

/// Why a node begins anew.
pub(crate) enum Anew {
    /// A member has told it of these members.
    Told {
        /// By this greeting.
        hello: Box<Hello>,
        /// The membership that the node was to take over by that greeting.
        membership: Box<Membership>,
    },
    /// Someone sets the voters by force, for a majority that is lost.
    Forced {
        /// The members of which it is lost.
        before: Box<Membership>,
        /// Whoever asked doesn't wait any longer.
        until: Instant,
    },
}

impl Anew {
    /// Whether it would be decided so now.
    pub(crate) fn still_holds(&self, cluster: &Cluster) -> bool {
        match self {
            Anew::Told { hello, membership } => {
                matches!(decide(&own(cluster), hello), Decision::Rejoin { membership: now } if now == **membership)
            }
            Anew::Forced { before, until } => {
                let is_as_before = cluster.membership().is_some_and(|now| now == **before);
                is_as_before && !cluster.has_quorum.load(Ordering::Relaxed) && Instant::now() < *until
            }
        }
    }

    /// To be asked by a thread that may wait: whether the node takes no more part, and the file may be changed.
    pub(crate) fn consent(self, cast: Arc<Cast>) -> impl FnOnce() -> bool + Send {
        move || {
            let (answer, is_given) = bounded(1);
            cast.wal_writer
                .send(WalMessage::Replication(ReplicationMessage::BeginsAnew(Request { why: self, answer })));
            // Without an answer there is no WalWriter any more, and nothing to change.
            is_given.recv().unwrap_or(false)
        }
    }
}

/// The question to the WalWriter whether the reason still holds.
pub struct Request {
    pub(crate) why: Anew,
    /// Told whether the node takes no more part.
    pub(crate) answer: Sender<bool>,
}
