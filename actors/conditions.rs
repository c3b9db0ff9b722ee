//! Who of a cluster may be an older copy of itself, and who has committed what its leader
//! hasn't: as this node knows of itself, and as its peers say of themselves.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use datastore::error::{Code, Error};
use datastore::replication::doubt::Condition;
use datastore::replication::message::NodeId;

use crate::mailbox::lock;
use crate::peer_links::RarelySaid;

/// What a leader has found of a peer holds for so long after the last time.
const FOUND_FOR: Duration = Duration::from_secs(3);

/// A leader that was paused, and doesn't lead any more, finds that out sooner than this: what came meanwhile it
/// hasn't forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5);

/// What is to be done about a log that contradicts its leader's.
const WAY_OUT: &str = "export what you need of it (reads with \"consistency\":\"local\" go on), stop it, say remove_member \
     and then add_member of it to the node that leads, and start it with --role secondary on an empty directory";

/// What is known of one peer.
#[derive(Default)]
struct Peer {
    /// As it says.
    says: Condition,
    /// When it has acknowledged what this leader hasn't got.
    conflicted: Option<Instant>,
    said: RarelySaid,
}

/// A node that is a member by an entry that this leader's log doesn't have.
struct Forgotten {
    since: Instant,
    greeted: Instant,
    said: RarelySaid,
    why: String,
}

impl Forgotten {
    fn is_sure(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= FORGOTTEN_AFTER
    }
}

/// What is known of all.
#[derive(Default)]
pub(crate) struct Conditions {
    own: Mutex<(Condition, String)>,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
    forgotten: Mutex<BTreeMap<NodeId, Forgotten>>,
}

impl Conditions {
    /// This node's own.
    pub(crate) fn own(&self) -> Condition {
        lock(&self.own).0
    }

    /// This node's own from now on. One whose log contradicts its leader's stays so.
    pub(crate) fn set_own(&self, condition: Condition) {
        let mut own = lock(&self.own);
        if own.0 != Condition::Conflicting {
            own.0 = condition;
        }
    }

    /// This node has committed another entry than its leader, or one that the leader hasn't.
    pub(crate) fn conflict(&self, node_id: NodeId, leader: NodeId, index: u64) -> String {
        let why = format!(
            "CONFLICTING LOGS: node {node_id} has committed an entry {index} that its leader, node {leader}, hasn't. \
             Acknowledged writes were lost, since directories or disks were set back to older states. Node {node_id} \
             takes no more part: {WAY_OUT}"
        );
        *lock(&self.own) = (Condition::Conflicting, why.clone());
        why
    }

    /// A follower has committed what this leader hasn't; gives what is to be said of it, if it is time for it.
    pub(crate) fn peer_conflicts(&self, peer: NodeId, index: u64, last: u64) -> Option<String> {
        let mut peers = lock(&self.peers);
        let known = peers.entry(peer).or_default();
        known.conflicted = Some(Instant::now());
        let why = format!("{}; its log reaches to entry {index}, the leader's to {last}", conflict_of(peer));
        known.said.is_due(&conflict_of(peer)).then_some(why)
    }

    /// A peer says how it is.
    pub(crate) fn peer_says(&self, peer: NodeId, condition: Condition) {
        let mut peers = lock(&self.peers);
        let known = peers.entry(peer).or_default();
        known.says = condition;
        if condition == Condition::Conflicting && known.said.is_due(&conflict_of(peer)) {
            tracing::error!(peer, "{}", conflict_of(peer));
        }
    }

    /// A peer greets, or answers a greeting.
    pub(crate) fn peer_greets(&self, peer: NodeId, in_doubt: bool) {
        let mut peers = lock(&self.peers);
        let known = peers.entry(peer).or_default();
        // Whether its log contradicts its leader's it finds out anew.
        if known.says != Condition::Conflicting {
            known.says = if in_doubt { Condition::InDoubt } else { Condition::Well };
        }
    }

    /// A peer's, as far as this node knows.
    pub(crate) fn of_peer(&self, peer: NodeId) -> Condition {
        let peers = lock(&self.peers);
        let Some(known) = peers.get(&peer) else { return Condition::Well };
        let is_found = known.conflicted.is_some_and(|at| at.elapsed() < FOUND_FOR);
        if is_found { Condition::Conflicting } else { known.says }
    }

    /// A node has greeted that is a member by an entry that this leader's log doesn't have, and so isn't let in:
    /// whether it has done so for long enough that this leader will never hear of that entry.
    pub(crate) fn is_forgotten(&self, node_id: NodeId, why: &str) -> bool {
        self.forgotten_at(Instant::now(), node_id, why)
    }

    fn forgotten_at(&self, now: Instant, node_id: NodeId, why: &str) -> bool {
        let mut forgotten = lock(&self.forgotten);
        forgotten.retain(|_, known| now.duration_since(known.greeted) < FOUND_FOR);
        let known = forgotten.entry(node_id).or_insert_with(|| Forgotten {
            since: now,
            greeted: now,
            said: RarelySaid::default(),
            why: String::new(),
        });
        (known.greeted, known.why) = (now, why.to_string());
        let is_sure = known.is_sure(now);
        if is_sure && known.said.is_due(why) {
            tracing::error!(peer = node_id, "{why}");
        }
        is_sure
    }

    /// Nodes that have greeted so until now, and why they aren't let in.
    pub(crate) fn forgotten(&self) -> Vec<(NodeId, String)> {
        let (now, forgotten) = (Instant::now(), lock(&self.forgotten));
        let counts = |known: &Forgotten| known.is_sure(now) && now.duration_since(known.greeted) < FOUND_FOR;
        let counting = forgotten.iter().filter(|(_, known)| counts(known));
        counting.map(|(node_id, known)| (*node_id, known.why.clone())).collect()
    }

    /// It is no member any more.
    pub(crate) fn forget(&self, peer: NodeId) {
        lock(&self.peers).remove(&peer);
    }

    /// Why a node that contradicts its leader answers nothing that only a primary may.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let own = lock(&self.own);
        let conflicts = own.0 == Condition::Conflicting;
        conflicts.then(|| Error::new(Code::NoQuorum, own.1.clone()))
    }
}

/// What is said of a member whose log contradicts that of who leads.
pub(crate) fn conflict_of(node_id: NodeId) -> String {
    format!(
        "CONFLICTING LOGS: node {node_id} has committed entries that the node that leads hasn't. Acknowledged writes \
         were lost, since directories or disks were set back to older states; node {node_id} may have them. It takes no \
         more part: {WAY_OUT}"
    )
}

/// What is said of a member that may be an older copy.
pub(crate) fn doubt_of(node_id: NodeId) -> String {
    format!(
        "node {node_id} may be an older copy of itself: it counts for no majority before a leader has brought it up to \
         date. That ends by itself once a majority of the others is there, or else all nodes that vote are"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_contradicts_its_leader_stays_so_and_what_it_says_of_itself_counts_last() {
        let conditions = Conditions::default();
        conditions.set_own(Condition::InDoubt);
        assert!(conditions.refusal().is_none());
        conditions.conflict(1, 2, 40);
        conditions.set_own(Condition::Well);
        assert_eq!(conditions.own(), Condition::Conflicting);
        let message = conditions.refusal().unwrap().message;
        assert!(message.contains("entry 40") && message.contains("remove_member"), "{message}");
        assert!(
            conditions.peer_conflicts(3, 50, 40).is_some() && conditions.peer_conflicts(3, 50, 40).is_none()
        );
        conditions.peer_says(3, Condition::Well);
        assert_eq!(conditions.of_peer(3), Condition::Conflicting, "it doesn't know yet");
        conditions.forget(3);
        assert_eq!(conditions.of_peer(3), Condition::Well);
    }

    #[test]
    fn who_was_forgotten_is_said_once_no_leader_would_still_believe_that_it_leads() {
        let (conditions, begin) = (Conditions::default(), Instant::now());
        let greets = |seconds| conditions.forgotten_at(begin + Duration::from_secs(seconds), 4, "why");
        assert_eq!([0, 2, 4, 6].map(greets), [false, false, false, true]);
        assert!(!greets(20), "it was away, or let in, meanwhile");
    }
}
