//! What the sockets between this node and its peers share.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use datastore::error::LeaderAddress;
use datastore::replication::handshake::Lane;
use datastore::replication::message::NodeId;
use tokio::sync::Notify;

use crate::mailbox::lock;
use crate::snapshot_receiver::Partial;

/// A refusal that doesn't change is said again after so long.
const REPEAT_AFTER: Duration = Duration::from_secs(30);
/// A process that has said nothing for so long has ended, if another one says that it is that node.
const ENDED_AFTER: Duration = Duration::from_secs(1);
/// Strangers could make up many different ones: no more of them than one in this time.
const STRANGERS_EVERY: Duration = Duration::from_secs(1);

/// Says the same thing once, and then rarely.
#[derive(Default)]
pub(crate) struct RarelySaid {
    last: Option<(String, Instant)>,
}

impl RarelySaid {
    /// Whether it is time to say this.
    pub(crate) fn is_due(&mut self, text: &str) -> bool {
        let is_due = self.last.as_ref().is_none_or(|(last, at)| last != text || at.elapsed() >= REPEAT_AFTER);
        if is_due {
            self.last = Some((text.to_string(), Instant::now()));
        }
        is_due
    }

    /// All is well again: the next trouble is news.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }
}

/// A session that a peer's frames come through.
pub(crate) struct SessionPlace {
    /// The peer's process.
    boot: u64,
    /// When something came.
    heard: Mutex<Instant>,
    /// Another session has taken its place, or another process of the peer is there.
    is_over: AtomicBool,
    /// Rung then.
    pub(crate) replaced: Notify,
}

impl SessionPlace {
    fn new(boot: u64) -> SessionPlace {
        let heard = Mutex::new(Instant::now());
        SessionPlace { boot, heard, is_over: AtomicBool::new(false), replaced: Notify::new() }
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.replaced.notify_one();
    }

    /// Whether what still comes through it is not to be heard.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Something came.
    pub(crate) fn hear(&self) {
        *lock(&self.heard) = Instant::now();
    }
}

/// What is known of the way to a peer.
#[derive(Clone, Default)]
struct Way {
    /// This node's heartbeats reach it.
    is_reached: bool,
    /// The version of the peers' protocol that both speak; 0 before they have met.
    protocol: u32,
    /// Where it was found.
    address: Option<(String, u16)>,
    /// Where it wants clients to be told that it is.
    advertised: Option<(String, u16)>,
}

/// Shared by ReplicatorPeers, the sessions of peers and the threads that carry snapshots.
#[derive(Default)]
pub(crate) struct PeerLinks {
    ways: Mutex<HashMap<NodeId, Way>>,
    /// The session that a peer's frames come through: the newest one of each lane.
    sessions: Mutex<HashMap<(NodeId, Lane), Arc<SessionPlace>>>,
    /// The process of each peer that has come last.
    boots: Mutex<HashMap<NodeId, u64>>,
    refused_members: Mutex<HashMap<NodeId, RarelySaid>>,
    refused_strangers: Mutex<Option<Instant>>,
    /// The snapshot that has come in part. Held by the thread that receives it.
    pub(crate) partial: Mutex<Option<Partial>>,
    /// The socket of that thread.
    snapshot_socket: Mutex<Option<TcpStream>>,
}

impl PeerLinks {
    /// Heartbeats reach a peer from now on, or don't any more.
    pub(crate) fn set_reached(&self, peer: NodeId, is_reached: bool) {
        lock(&self.ways).entry(peer).or_default().is_reached = is_reached;
    }

    /// Whether heartbeats reach a peer, as far as this node knows.
    pub(crate) fn is_reached(&self, peer: NodeId) -> bool {
        lock(&self.ways).get(&peer).is_some_and(|way| way.is_reached)
    }

    /// A peer was found there.
    pub(crate) fn found_at(&self, peer: NodeId, host: &str, port: u16) {
        lock(&self.ways).entry(peer).or_default().address = Some((host.to_string(), port));
    }

    /// Where a peer was found last.
    pub(crate) fn address(&self, peer: NodeId) -> Option<(String, u16)> {
        lock(&self.ways).get(&peer)?.address.clone()
    }

    /// Where a peer wants clients to be told that it is, if it says that.
    pub(crate) fn advertises(&self, peer: NodeId, place: Option<(String, u16)>) {
        lock(&self.ways).entry(peer).or_default().advertised = place;
    }

    /// Where clients are told that a peer is, if it says that itself.
    pub(crate) fn advertised(&self, node_id: NodeId) -> Option<LeaderAddress> {
        let (host, port) = lock(&self.ways).get(&node_id)?.advertised.clone()?;
        Some(LeaderAddress { node_id, host, port })
    }

    /// A member's process and this one have met, and both speak this version.
    pub(crate) fn speaks(&self, peer: NodeId, protocol: u32) {
        lock(&self.ways).entry(peer).or_default().protocol = protocol;
    }

    /// The version that both speak; 0 before they have met.
    pub(crate) fn protocol(&self, peer: NodeId) -> u32 {
        lock(&self.ways).get(&peer).map_or(0, |way| way.protocol)
    }

    /// A peer in contact that speaks no version as late as this one. One that isn't there will be
    /// told when it comes.
    pub(crate) fn speaks_earlier_than(&self, protocol: u32) -> Option<NodeId> {
        let ways = lock(&self.ways);
        ways.iter()
            .find(|(_, way)| way.is_reached && (1..protocol).contains(&way.protocol))
            .map(|(peer, _)| *peer)
    }

    /// It is no member any more: what it has to say is not heard.
    pub(crate) fn forget(&self, peer: NodeId) {
        lock(&self.ways).remove(&peer);
        lock(&self.refused_members).remove(&peer);
        lock(&self.boots).remove(&peer);
        lock(&self.sessions).retain(|(of, _), session| {
            let stays = *of != peer;
            if !stays {
                session.end();
            }
            stays
        });
    }

    /// A new session takes an older one's place: a peer that connects again has
    /// given up the connection before, whether or not this node has noticed. With
    /// another process of a peer all sessions of the one before end.
    pub(crate) fn begin_session(&self, peer: NodeId, lane: Lane, boot: u64) -> Arc<SessionPlace> {
        let place = Arc::new(SessionPlace::new(boot));
        let mut sessions = lock(&self.sessions);
        if let Some(older) = sessions.insert((peer, lane), place.clone()) {
            older.end();
        }
        sessions.retain(|(of, _), session| {
            let stays = *of != peer || session.boot == boot;
            if !stays {
                session.end();
            }
            stays
        });
        place
    }

    /// A peer's process is there. Says whether another one was there before.
    pub(crate) fn is_another_process(&self, peer: NodeId, boot: u64) -> bool {
        lock(&self.boots).insert(peer, boot).is_some_and(|before| before != boot)
    }

    /// Whether another process of that node is there: two that run on copies of
    /// one directory would each vote in its name. One that has ended says
    /// nothing more, and its sockets are closed.
    pub(crate) fn is_there_twice(&self, peer: NodeId, boot: u64) -> bool {
        let sessions = lock(&self.sessions);
        let lives = |place: &SessionPlace| lock(&place.heard).elapsed() < ENDED_AFTER;
        let others = sessions.iter().filter(|((node_id, _), place)| *node_id == peer && place.boot != boot);
        others.into_iter().any(|(_, place)| lives(place))
    }

    /// A session is over, unless another one has its place already.
    pub(crate) fn end_session(&self, peer: NodeId, lane: Lane, session: &Arc<SessionPlace>) {
        let mut sessions = lock(&self.sessions);
        if sessions.get(&(peer, lane)).is_some_and(|newest| Arc::ptr_eq(newest, session)) {
            sessions.remove(&(peer, lane));
        }
    }

    /// A snapshot comes through this socket: whatever came before is given up.
    pub(crate) fn begin_snapshot(&self, socket: TcpStream) {
        if let Some(older) = lock(&self.snapshot_socket).replace(socket) {
            // It may be closed already.
            let _ = older.shutdown(Shutdown::Both);
        }
    }

    /// Whether it is time to say that this node was refused.
    pub(crate) fn is_refusal_due(&self, node_id: NodeId, reason: &str) -> bool {
        if lock(&self.ways).contains_key(&node_id) {
            return lock(&self.refused_members).entry(node_id).or_default().is_due(reason);
        }
        let mut last = lock(&self.refused_strangers);
        let is_due = last.is_none_or(|at| at.elapsed() >= STRANGERS_EVERY);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_change_is_said_once() {
        let mut said = RarelySaid::default();
        assert!(said.is_due("a") && !said.is_due("a"));
        assert!(said.is_due("b"));
        said.forget();
        assert!(said.is_due("b"));
    }

    #[tokio::test]
    async fn a_newer_session_ends_the_older_one_and_keeps_its_place() {
        let links = PeerLinks::default();
        let older = links.begin_session(2, Lane::Log, 7);
        let other = links.begin_session(2, Lane::Heartbeat, 7);
        let newer = links.begin_session(2, Lane::Log, 7);
        older.replaced.notified().await;
        links.end_session(2, Lane::Log, &older);
        let newest = links.begin_session(2, Lane::Log, 7);
        newer.replaced.notified().await;
        let is_told = |session: Arc<SessionPlace>| async move {
            tokio::time::timeout(Duration::ZERO, session.replaced.notified()).await.is_ok()
        };
        assert!(!is_told(other).await && !is_told(newest).await);
    }

    #[test]
    fn with_another_process_of_a_peer_all_that_the_one_before_still_says_is_over() {
        let links = PeerLinks::default();
        assert!(!links.is_another_process(2, 7), "it is the first");
        let older = [Lane::Log, Lane::Heartbeat].map(|lane| links.begin_session(2, lane, 7));
        let other = links.begin_session(3, Lane::Log, 7);
        assert!(!links.is_another_process(2, 7));
        assert!(older.iter().all(|session| !session.is_over()));
        assert!(links.is_another_process(2, 8));
        let newer = links.begin_session(2, Lane::Heartbeat, 8);
        assert!(older.iter().all(|session| session.is_over()));
        assert!(!newer.is_over() && !other.is_over());
        assert!(!links.is_another_process(2, 8), "that was said");
    }

    #[test]
    fn a_process_that_is_heard_of_keeps_another_one_out_until_it_ends() {
        let links = PeerLinks::default();
        let session = links.begin_session(2, Lane::Log, 7);
        assert!(links.is_there_twice(2, 8));
        assert!(!links.is_there_twice(2, 7) && !links.is_there_twice(3, 8));
        *lock(&session.heard) -= ENDED_AFTER;
        assert!(!links.is_there_twice(2, 8), "it is silent");
        session.hear();
        assert!(links.is_there_twice(2, 8));
        links.end_session(2, Lane::Log, &session);
        assert!(!links.is_there_twice(2, 8), "its socket is closed");
    }
}
