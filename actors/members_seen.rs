//! What a member knows of the others and of itself, beside what its replica knows: when each was heard of,
//! how its disk and indexes are. What `cluster` shows is put together of that.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use datastore::persistence::host_of;
use datastore::replication::doubt::Condition;
use datastore::replication::health::{DiskHealth, Health, INDEXED_ALL};
use datastore::replication::message::{Members, NodeId};
use datastore::replication::policy::{DiskPause, Seen};
use datastore::replication::quorum::is_quorum;
use datastore::replication::raft::{Role, Status};
use datastore::replication::tolerance::{Tolerance, tolerance};

use crate::cluster::{Cluster, MemberView};
use crate::node::Node;
use crate::replication_options::{ELECTION_TICKS, TICK_MS};

/// A peer of which nothing was heard for so long is not in contact.
const SILENCE_MAX: Duration = Duration::from_millis(TICK_MS * ELECTION_TICKS as u64);
/// A follower that lacks an entry for longer is catching up.
const LAG_SERVING: Duration = Duration::from_millis(1_000);
/// How far back the log's growth is remembered, to tell for how long a follower lags.
const GROWTH_KEPT: usize = 1_200;

/// What this node has seen of the members of its cluster.
pub(crate) struct MembersSeen {
    node: Arc<Node>,
    cluster: Arc<Cluster>,
    heard: BTreeMap<NodeId, Instant>,
    /// When the log was known to end where, oldest first; kept by a leader.
    growth: VecDeque<(Instant, u64)>,
}

impl MembersSeen {
    /// Nothing yet.
    pub(crate) fn new(node: Arc<Node>, cluster: Arc<Cluster>) -> MembersSeen {
        MembersSeen { node, cluster, heard: BTreeMap::new(), growth: VecDeque::new() }
    }

    /// Something came from it just now.
    pub(crate) fn hear(&mut self, id: NodeId) {
        self.heard.insert(id, Instant::now());
    }

    /// Where the log ends now.
    pub(crate) fn note_growth(&mut self, status: &Status) {
        if status.role.role != Role::Leader {
            return self.growth.clear();
        }
        if self.growth.back().is_none_or(|(_, last)| *last < status.last) {
            self.growth.push_back((Instant::now(), status.last));
        }
        if self.growth.len() > GROWTH_KEPT {
            self.growth.pop_front();
        }
    }

    /// What the others are told of this node.
    pub(crate) fn see_own(&self, pause: DiskPause) {
        let watch = &self.node.disk_watch;
        let oldest = watch.oldest();
        let disk = DiskHealth {
            oldest_sync_ms: oldest.as_millis() as u64,
            is_stalled: watch.is_stalled(oldest),
            is_full: self.node.permits.is_disk_full(),
        };
        let health = Health {
            condition: self.cluster.conditions.own(),
            disk,
            indexed_per_mille: self.node.indexed_per_mille(),
            pause,
        };
        let before = self.cluster.healths.set_own(health).disk;
        match (before.is_stalled, disk.is_stalled) {
            (false, true) => {
                tracing::warn!(
                    for_ms = disk.oldest_sync_ms,
                    "STALLED DISK: it has not finished what it was told to write"
                )
            }
            (true, false) => tracing::info!("the disk goes on"),
            _ => {}
        }
    }

    /// What the policy goes by.
    pub(crate) fn seen(&self) -> Seen {
        let voting = self.cluster.membership().map(|known| known.configuration.members).unwrap_or_default();
        let me = self.cluster.node_id;
        let is_doubted = |voter| self.cluster.condition(host_of(voter)) == Condition::InDoubt;
        let there = |voter| host_of(voter) != me && self.acknowledges(host_of(voter));
        let has_room = |voter| self.health(host_of(voter)).is_none_or(|health| !health.disk.is_full);
        Seen {
            own: self.cluster.healths.own(),
            peers: self.cluster.healths.peers(),
            others_decide: is_quorum(&voting, there, is_doubted),
            others_have_room: is_quorum(&voting, |voter| there(voter) && has_room(voter), is_doubted),
        }
    }

    /// Whether what a member says counts, and its disk takes what it is sent.
    fn acknowledges(&self, id: NodeId) -> bool {
        let is_here = id == self.cluster.node_id;
        let is_in_contact = is_here || self.is_in_contact(id);
        let disk = self.health(id).map(|health| health.disk).unwrap_or_default();
        is_in_contact && self.cluster.condition(id) != Condition::Conflicting && !disk.is_stalled
    }

    /// As it says; `None`: it doesn't.
    fn health(&self, id: NodeId) -> Option<Health> {
        let healths = &self.cluster.healths;
        if id == self.cluster.node_id { Some(healths.own()) } else { healths.of_peer(id) }
    }

    fn is_in_contact(&self, node_id: NodeId) -> bool {
        self.heard.get(&node_id).is_some_and(|heard| heard.elapsed() < SILENCE_MAX)
    }

    /// Puts together what `cluster` shows.
    pub(crate) fn see_members(&self, status: Option<&Status>) {
        let ids: Vec<NodeId> = self.cluster.view().members.iter().map(|member| member.node_id).collect();
        let voting = self.cluster.membership().map(|known| known.configuration.members).unwrap_or_default();
        let members: Vec<MemberView> = ids.iter().map(|id| self.member(*id, status, &voting)).collect();
        let condition = |id: NodeId| self.cluster.condition(id);
        let is_there = |id: &NodeId| {
            let is_in_contact = *id == self.cluster.node_id || self.is_in_contact(*id);
            is_in_contact && condition(*id) != Condition::Conflicting
        };
        let there: Vec<NodeId> = ids.into_iter().filter(is_there).collect();
        let doubted: Vec<NodeId> =
            there.iter().copied().filter(|id| condition(*id) == Condition::InDoubt).collect();
        let is_doubted = |voter| doubted.contains(&host_of(voter));
        let is_quorum = is_quorum(&voting, |voter| there.contains(&host_of(voter)), is_doubted);
        self.cluster.has_quorum.store(status.is_some() && is_quorum, Ordering::Relaxed);
        // Who is there and acknowledges nothing helps to elect; what is written now waits for others.
        let counts = |member: &&MemberView| {
            self.acknowledges(member.node_id)
                && member.lag_ms.is_none_or(|lag| lag <= LAG_SERVING.as_millis() as u64)
        };
        let acknowledging: Vec<NodeId> = members.iter().filter(counts).map(|member| member.node_id).collect();
        let Tolerance { any, single } = tolerance(&voting, &acknowledging, &doubted);
        self.cluster.members_seen(members, any, single);
    }

    fn member(&self, node_id: NodeId, status: Option<&Status>, voting: &Members) -> MemberView {
        let leads = status.is_some_and(|status| status.role.role == Role::Leader);
        let last_seen = self.heard.get(&node_id).copied();
        let is_here = node_id == self.cluster.node_id;
        let has = match status {
            Some(status) if is_here => Some((status.applied, status.commit.max(status.applied))),
            Some(status) if leads => {
                let mut followers = status.followers.iter().chain(&status.learners);
                let follower = followers.find(|(id, ..)| *id == node_id);
                follower.map(|(_, matched, _)| (*matched, status.last))
            }
            _ => None,
        };
        let lag_entries = has.map(|(has, last)| last.saturating_sub(has));
        let lag = has.filter(|_| leads).map(|(has, _)| if is_here { Duration::ZERO } else { self.lag(has) });
        let lag_ms = lag.map(|lag| lag.as_millis() as u64);
        let condition = self.cluster.condition(node_id);
        let health = self.health(node_id);
        let is_stalled = health.is_some_and(|health| health.disk.is_stalled);
        let is_indexing = health.is_some_and(|health| health.indexed_per_mille < INDEXED_ALL);
        let state = match (is_here || self.is_in_contact(node_id), lag) {
            (false, _) => "unreachable",
            _ if condition == Condition::Conflicting => "conflicting",
            _ if condition == Condition::InDoubt => "in_doubt",
            _ if is_stalled => "stalled",
            (true, Some(lag)) if lag > LAG_SERVING => "catching_up",
            (true, None) if !is_here && status.is_none_or(|s| s.role.leader != Some(node_id)) => "unknown",
            (true, _) if status.is_none() => "not_adopted",
            _ if is_indexing => "indexing",
            (true, _) => "serving",
        };
        MemberView {
            node_id,
            votes: status.is_none() || voting.votes(node_id),
            state,
            lag_entries,
            lag_ms,
            last_seen: last_seen.or(is_here.then(Instant::now)),
            disk: health.filter(|_| is_here || self.is_in_contact(node_id)).map(|health| health.disk),
        }
    }

    /// For how long a follower that has everything up to `index` has lacked what comes next.
    fn lag(&self, index: u64) -> Duration {
        let missing = self.growth.iter().find(|(_, last)| *last > index);
        missing.map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }
}
