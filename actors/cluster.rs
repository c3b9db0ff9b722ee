//! What the actors of a replicated node share: its membership, and who leads.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use datastore::address::is_everywhere;
use datastore::error::{Code, Detail, Error, LeaderAddress};
use datastore::limits;
use datastore::persistence::{Configuration, FileDisk, Member, Membership, NodeUuid};
use datastore::replication::doubt::Condition;
use datastore::replication::health::DiskHealth;
use datastore::replication::message::NodeId;
use datastore::replication::raft::{Role, RoleChange};
use datastore::settings::Peer;

use crate::conditions::Conditions;
use crate::healths::Healths;
use crate::mailbox::lock;
use crate::members_file::MembersFile;
use crate::node::Permits;
use crate::peer_links::PeerLinks;
use crate::refusals::Refusals;

/// Shared by every actor of a node that is a member of a cluster.
pub struct Cluster {
    /// This node's number.
    pub node_id: NodeId,
    /// This node's directory.
    pub node: NodeUuid,
    /// Drawn at the start of the process: tells two processes of one directory apart.
    pub boot: u64,
    /// Where clients are told that this node is, if it was told to say so.
    pub advertise: Option<(String, u16)>,
    /// Where the others are, by this node's own flags: what was spread with the
    /// membership may be an address of another network.
    named: Vec<Peer>,
    /// Who belongs to it.
    pub(crate) members: MembersFile,
    /// The members as entries have named them since the start, for snapshots.
    configurations: Mutex<Vec<Configuration>>,
    /// The versions of the peers' protocol that this node speaks.
    pub protocol: (u32, u32),
    view: Mutex<View>,
    /// From which committed entry on which term.
    committed_terms: Mutex<Vec<(u64, u64)>>,
    /// This node leads, and has applied all that earlier leaders committed.
    serves_as_primary: AtomicBool,
    /// The voters were set by force without it, and it has what they have not.
    is_left_behind: AtomicBool,
    /// A majority is in contact, this node included.
    pub has_quorum: AtomicBool,
    /// This process takes no more part in the cluster: the next one begins with other members.
    pub begins_anew: AtomicBool,
    /// The last committed entry that this node knows of.
    pub commit_index: AtomicU64,
    /// The last entry handed to the shards.
    pub applied_index: AtomicU64,
    /// Entries on their way to this node's disk, in bytes.
    pub persisting_bytes: Arc<AtomicUsize>,
    /// The last index at which this node's state was found equal to a peer's.
    pub state_checked_index: AtomicU64,
    /// How often a peer's state at the same index was another one.
    pub state_differences: AtomicU64,
    /// Who may be an older copy of itself, and whose log contradicts who leads.
    pub(crate) conditions: Conditions,
    /// What the sockets to and from the peers share.
    pub(crate) links: PeerLinks,
    /// How each member's disk and indexes are.
    pub(crate) healths: Healths,
    /// Why peers don't let this node in.
    pub(crate) refusals: Refusals,
}

/// How this node sees its cluster.
#[derive(Clone, Debug)]
pub struct View {
    /// Role, leader and term.
    pub role: RoleChange,
    /// Since when it knows of no leader.
    pub leaderless_since: Option<Instant>,
    /// It follows, or followed last, a leader in this process: what it has is a replica's.
    pub is_replica: bool,
    /// One row for each member, ascending by id; kept by the ElectionCoordinator.
    pub members: Vec<MemberView>,
    /// How many more members may fail, whichever they are.
    pub tolerates: usize,
    /// Those of which any one may fail.
    pub may_fail: Vec<NodeId>,
}

/// A member as this node sees it.
#[derive(Clone, Debug)]
pub struct MemberView {
    /// Its number.
    pub node_id: NodeId,
    /// It votes; else it only listens.
    pub votes: bool,
    /// `serving`, `catching_up`, `indexing`, `stalled`, `in_doubt`, `conflicting`, `unreachable` or, where
    /// a replica can't know, `unknown`.
    pub state: &'static str,
    /// Entries that the leader has and it has not; `None` where only the leader knows.
    pub lag_entries: Option<u64>,
    /// For how long it has lacked the oldest of those, in milliseconds.
    pub lag_ms: Option<u64>,
    /// When it was last heard of; `None` for never.
    pub last_seen: Option<Instant>,
    /// Its disk, as it says; `None`: it doesn't.
    pub disk: Option<DiskHealth>,
}

impl MemberView {
    fn unknown(node_id: NodeId) -> MemberView {
        let (lag_entries, lag_ms, last_seen, disk) = (None, None, None, None);
        MemberView { node_id, votes: true, state: "unknown", lag_entries, lag_ms, last_seen, disk }
    }
}

impl Cluster {
    /// A member that has just started, of the cluster of these nodes.
    pub fn new(
        node_id: NodeId,
        node: NodeUuid,
        boot: u64,
        membership: Option<Membership>,
        (named, advertise): (Vec<Peer>, Option<(String, u16)>),
        (directory, protocol): (FileDisk, (u32, u32)),
    ) -> Cluster {
        let mut node_ids = membership.as_ref().map_or(Vec::new(), Membership::node_ids);
        if node_ids.is_empty() {
            node_ids = named.iter().map(|peer| peer.node_id).chain([node_id]).collect();
            node_ids.sort_unstable();
        }
        let view = View {
            role: RoleChange { role: Role::Follower, leader: None, term: 0 },
            leaderless_since: Some(Instant::now()),
            is_replica: false,
            members: node_ids.iter().copied().map(MemberView::unknown).collect(),
            tolerates: 0,
            may_fail: Vec::new(),
        };
        Cluster {
            node_id,
            node,
            boot,
            advertise,
            named,
            members: MembersFile::new(membership, directory),
            configurations: Mutex::default(),
            protocol,
            view: Mutex::new(view),
            committed_terms: Mutex::default(),
            serves_as_primary: AtomicBool::new(false),
            is_left_behind: AtomicBool::new(false),
            has_quorum: AtomicBool::new(false),
            begins_anew: AtomicBool::new(false),
            commit_index: AtomicU64::new(0),
            applied_index: AtomicU64::new(0),
            persisting_bytes: Arc::default(),
            state_checked_index: AtomicU64::new(0),
            state_differences: AtomicU64::new(0),
            conditions: Conditions::default(),
            links: PeerLinks::default(),
            healths: Healths::default(),
            refusals: Refusals::default(),
        }
    }

    /// The nodes beside this one, ascending.
    pub fn others(&self) -> Vec<NodeId> {
        let view = lock(&self.view);
        view.members.iter().map(|member| member.node_id).filter(|id| *id != self.node_id).collect()
    }

    /// The members as this node knows them; `None` until it is adopted.
    pub fn membership(&self) -> Option<Membership> {
        self.members.known()
    }

    /// Whether this node was adopted.
    pub fn membership_is_known(&self) -> bool {
        self.members.with(|known| known.is_some())
    }

    /// The log names these members from here on. Says whom it doesn't name any more.
    pub fn configured(&self, to: &Configuration) -> Vec<NodeId> {
        lock(&self.configurations).push(to.clone());
        let Some((before, now)) = self.members.configured(to) else { return Vec::new() };
        let mut view = lock(&self.view);
        view.members.retain(|member| now.contains(&member.node_id));
        for id in &now {
            if !view.members.iter().any(|member| member.node_id == *id) {
                view.members.push(MemberView::unknown(*id));
            }
        }
        view.members.sort_by_key(|member| member.node_id);
        before.into_iter().filter(|id| !now.contains(id)).collect()
    }

    /// The members as of an entry.
    pub fn configuration_at(&self, index: u64) -> Configuration {
        let since = lock(&self.configurations);
        let made = since.iter().rev().find(|configuration| configuration.index <= index);
        made.or(since.first()).cloned().unwrap_or_default()
    }

    /// This entry is committed, and those before it.
    pub fn committed(&self, index: u64, term: u64) {
        let mut terms = lock(&self.committed_terms);
        if terms.last().is_none_or(|(_, last)| *last != term) {
            terms.push((index, term));
        }
    }

    /// The term of an entry that was committed since the start.
    pub fn term_of_committed(&self, index: u64) -> Option<u64> {
        let terms = lock(&self.committed_terms);
        terms.iter().rev().find(|(from, _)| *from <= index).map(|(_, term)| *term)
    }

    /// Whether entries that peers send are left unread for now: the disk or the
    /// indexes have not caught up with those that came. Never on a leader: what it
    /// is sent are the acknowledgements that let go of what it has under way.
    pub fn holds_entries_back(&self, permits: &Permits) -> bool {
        self.role().role != Role::Leader
            && (permits.is_crowded()
                || self.persisting_bytes.load(Ordering::Relaxed) > limits::PERSISTING_BYTES_MAX)
    }

    /// Role, leader and term.
    pub fn role(&self) -> RoleChange {
        lock(&self.view).role
    }

    /// For how long it has known of no leader.
    pub fn leaderless_for(&self) -> Option<Duration> {
        lock(&self.view).leaderless_since.map(|since| since.elapsed())
    }

    /// Whether it follows, or followed last, a leader in this process.
    pub fn is_replica(&self) -> bool {
        lock(&self.view).is_replica
    }

    /// How this node sees its cluster now.
    pub fn view(&self) -> View {
        lock(&self.view).clone()
    }

    /// Role, leader or term have changed.
    pub fn role_changed(&self, role: RoleChange) {
        let mut view = lock(&self.view);
        view.role = role;
        view.leaderless_since = match role.leader {
            Some(_) => None,
            None => view.leaderless_since.or_else(|| Some(Instant::now())),
        };
        match role.role {
            Role::Leader => view.is_replica = false,
            Role::Follower if role.leader.is_some() => view.is_replica = true,
            Role::Follower | Role::Candidate => {}
        }
    }

    /// What the ElectionCoordinator found out about the members.
    pub fn members_seen(&self, members: Vec<MemberView>, tolerates: usize, may_fail: Vec<NodeId>) {
        let mut view = lock(&self.view);
        view.members = members;
        view.tolerates = tolerates;
        view.may_fail = may_fail;
    }

    /// Whether this node answers writes and linearizable reads.
    pub fn serves_as_primary(&self) -> bool {
        self.serves_as_primary.load(Ordering::Relaxed)
    }

    /// It does from now on, or doesn't any more.
    pub fn set_serves_as_primary(&self, serves: bool) {
        self.serves_as_primary.store(serves, Ordering::Relaxed);
    }

    /// Where clients are told that another member is: as it says itself, or where this node finds it.
    pub fn told_address(&self, node_id: NodeId) -> Option<LeaderAddress> {
        self.links.advertised(node_id).or_else(|| self.address(node_id))
    }

    /// Where another member is: where it was found, or the first place to look.
    pub fn address(&self, node_id: NodeId) -> Option<LeaderAddress> {
        if let Some((host, port)) = self.links.address(node_id) {
            return Some(LeaderAddress { node_id, host, port });
        }
        self.places_to_look(node_id).into_iter().next()
    }

    /// Where another member may be: by this node's flags, which know this node's network,
    /// and by what was spread with the membership, which knows where a node has moved.
    pub fn places_to_look(&self, node_id: NodeId) -> Vec<LeaderAddress> {
        let named = self.named.iter().find(|peer| peer.node_id == node_id);
        let named = named.map(|peer| LeaderAddress { node_id, host: peer.host.clone(), port: peer.port });
        let membership = self.members.known();
        let at = |member: &Member| LeaderAddress { node_id, host: member.host.clone(), port: member.port };
        let spread = membership.as_ref().and_then(|known| known.member(node_id)).map(at);
        let founding = membership.as_ref().and_then(|known| known.base.node(node_id)).map(at);
        let has_moved = spread != founding;
        let mut places: Vec<LeaderAddress> = named.into_iter().chain(spread).collect();
        places.dedup();
        // A node that listens on all its addresses has noted none that leads to it.
        places.retain(|place| !is_everywhere(&place.host));
        if has_moved {
            places.reverse();
        }
        places
    }

    /// Whether it takes no more part, by force.
    pub fn is_left_behind(&self) -> bool {
        self.is_left_behind.load(Ordering::Relaxed)
    }

    /// It takes no more part.
    pub fn set_left_behind(&self) {
        self.is_left_behind.store(true, Ordering::Relaxed);
        self.has_quorum.store(false, Ordering::Relaxed);
    }

    /// Whether it takes no more part, by force or since its log contradicts its leader's.
    pub fn is_out(&self) -> bool {
        self.is_left_behind() || self.conditions.own() == Condition::Conflicting
    }

    /// Whether the log has named the members without this node.
    pub fn is_removed(&self) -> bool {
        self.members.with(|known| known.is_some_and(|known| known.member(self.node_id).is_none()))
    }

    fn no_quorum(&self) -> String {
        let me = self.node_id;
        let others = self.others().into_iter().chain([me]);
        let is_doubted = |id: &NodeId| self.condition(*id) == Condition::InDoubt;
        let doubted: Vec<NodeId> = others.filter(is_doubted).collect();
        if doubted.is_empty() {
            return format!(
                "node {me} is not in contact with a majority of its cluster; nothing was changed"
            );
        }
        format!(
            "node {me} is not in contact with a majority of its cluster without {doubted:?}, which may be older copies \
             of themselves: start all nodes that vote; nothing was changed"
        )
    }

    /// How a member stands to its log, as far as this node knows.
    pub(crate) fn condition(&self, node_id: NodeId) -> Condition {
        if node_id == self.node_id { self.conditions.own() } else { self.conditions.of_peer(node_id) }
    }

    /// Why this node can't answer what only the primary may.
    pub fn refusal(&self) -> Error {
        let role = lock(&self.view).role;
        let me = self.node_id;
        if self.is_removed() {
            let message = format!("node {me} was removed from its cluster; nothing was changed");
            return Error::new(Code::NoQuorum, message);
        }
        if self.is_left_behind() {
            let message = format!(
                "node {me} was left behind by `promote` with `force` and has what the other side has not: export \
                 what you need of it (local reads go on), then start it on an empty directory"
            );
            return Error::new(Code::NoQuorum, message);
        }
        if let Some(error) = self.conditions.refusal() {
            return error;
        }
        let leader = role.leader.filter(|leader| *leader != me);
        if let Some(leader) = leader.and_then(|leader| self.told_address(leader)) {
            let message = format!(
                "node {me} is a replica; the leader is node {} at {}:{}",
                leader.node_id, leader.host, leader.port
            );
            return Error::new(Code::NotLeader, message).with_detail(Detail::Leader(Some(leader)));
        }
        if !self.has_quorum.load(Ordering::Relaxed) {
            return Error::new(Code::NoQuorum, self.no_quorum());
        }
        let message = match role.role {
            Role::Leader => "node {me} was just elected and applies what its predecessors committed",
            Role::Follower | Role::Candidate => "an election is running",
        };
        Error::new(Code::NoLeader, message.replace("{me}", &me.to_string()))
    }
}
