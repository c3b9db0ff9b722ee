//! How fresh a read is on a member of a cluster.
//!
//! On the leader a read waits for a round of heartbeats that began after it
//! arrived, and sees at least what was committed then. While rounds are under
//! way, reads that arrive gather for the next one.
//!
//! ```text
//! Read ─► gathered ─► one round for all ─► index ─► handed over up to there ─► ReadReady
//! ```
//!
//! A replica is as fresh as the last *probe* that its leader answered: the leader
//! names, after a round, what was committed, and once that is applied here, all
//! that was acknowledged before the probe was **sent** is. An isolated old leader
//! answers no probe, since it completes no round.
//!
//! Nobody waits for a disk that hangs: a leader that has lost its office answers the reads that
//! still wait for entries to be applied, and a replica says that it is too stale at the bound that
//! it was given.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datastore::error::{Code, Error};
use datastore::replication::message::NodeId;
use datastore::replication::raft::Role;

use crate::Cast;
use crate::cluster::Cluster;
use crate::connection::{Connection, ConnectionMessage};
use crate::mailbox::Mailbox;
use crate::replication_messages::PeerMessage;

/// Rounds under way at once: more would share what one of them does.
const ROUNDS_MAX: usize = 2;
/// A leader that hasn't answered a probe by then isn't waited for.
const PROBE_PATIENCE: Duration = Duration::from_millis(1_000);

/// Who waits, and its name for the question.
type Asker = (Mailbox<Connection>, u64);

/// What waits for a round.
#[derive(Default)]
struct Round {
    askers: Vec<Asker>,
    /// Replicas' probes: who, and its name for the question.
    probes: Vec<(NodeId, u64)>,
}

/// Who wants no older state, and until when it waits for that.
struct StaleAsker {
    asker: Asker,
    until: Instant,
}

/// A question to the leader.
struct Probe {
    sent: Instant,
    askers: Vec<StaleAsker>,
}

impl Probe {
    fn answer(self, ready: &Result<(), Error>) {
        answer(self.askers.into_iter().map(|stale| stale.asker).collect(), ready);
    }

    /// Those that have waited for as long as they may.
    fn late(&mut self, now: Instant) -> Vec<Asker> {
        self.askers.extract_if(.., |stale| stale.until <= now).map(|stale| stale.asker).collect()
    }
}

/// What waits until entries are handed over.
enum Waiting {
    Askers(Vec<Asker>),
    Probe(Probe),
}

/// So long a replica may take to find out how fresh it is, however small the bound.
const STALENESS_WAIT_MIN: Duration = Duration::from_millis(100);

/// Reads that wait.
pub(crate) struct ReplicatedReads {
    cluster: Arc<Cluster>,
    gathered: Round,
    rounds: HashMap<u64, Round>,
    next_handle: u64,
    /// By the index that must be handed over first.
    waiting: BTreeMap<u64, Vec<Waiting>>,
    /// For the next probe.
    stale: Vec<StaleAsker>,
    probes: HashMap<u64, Probe>,
    next_probe: u64,
    /// All that was acknowledged before this is applied here.
    fresh_since: Option<Instant>,
}

impl ReplicatedReads {
    pub(crate) fn new(cluster: Arc<Cluster>) -> ReplicatedReads {
        ReplicatedReads {
            // An answer to a probe of an earlier process of this node must be none to a later one's.
            next_probe: cluster.boot,
            cluster,
            gathered: Round::default(),
            rounds: HashMap::new(),
            next_handle: 0,
            waiting: BTreeMap::new(),
            stale: Vec::new(),
            probes: HashMap::new(),
            fresh_since: None,
        }
    }

    /// A connection's read. With a `staleness_ms_max` a replica may answer it.
    pub(crate) fn ask(&mut self, reply_to: Mailbox<Connection>, round: u64, staleness_ms_max: Option<u64>) {
        let role = self.cluster.role();
        match staleness_ms_max {
            _ if role.role == Role::Leader => self.gathered.askers.push((reply_to, round)),
            None => answer(vec![(reply_to, round)], &Err(self.cluster.refusal())),
            Some(most) => {
                let allowed = Duration::from_millis(most);
                if self.fresh_since.is_some_and(|since| since.elapsed() <= allowed) {
                    answer(vec![(reply_to, round)], &Ok(()));
                } else if role.leader.is_some() {
                    let until = Instant::now() + allowed.max(STALENESS_WAIT_MIN);
                    self.stale.push(StaleAsker { asker: (reply_to, round), until });
                } else {
                    answer(vec![(reply_to, round)], &Err(too_stale("no leader is known")));
                }
            }
        }
    }

    /// A replica asks this node, which it believes to lead.
    pub(crate) fn probed(&mut self, from: NodeId, number: u64) {
        self.gathered.probes.push((from, number));
    }

    /// Whether something waits for a round that may begin.
    pub(crate) fn wants_round(&self) -> bool {
        let gathered = &self.gathered;
        !(gathered.askers.is_empty() && gathered.probes.is_empty()) && self.rounds.len() < ROUNDS_MAX
    }

    /// The handle of a round to begin now.
    pub(crate) fn begin_round(&mut self) -> Option<u64> {
        if !self.wants_round() {
            return None;
        }
        self.next_handle += 1;
        self.rounds.insert(self.next_handle, std::mem::take(&mut self.gathered));
        Some(self.next_handle)
    }

    /// A round is done, or (`None`) lost with the leader's office.
    pub(crate) fn round_done(&mut self, handle: u64, index: Option<u64>, cast: &Cast) {
        let Some(Round { askers, probes }) = self.rounds.remove(&handle) else { return };
        for (from, number) in probes {
            if let Some(peer) = cast.peer(from) {
                peer.send(PeerMessage::ReadAnswer { number, index });
            }
        }
        match index {
            Some(index) => self.waiting.entry(index).or_default().push(Waiting::Askers(askers)),
            None => answer(askers, &Err(self.cluster.refusal())),
        }
    }

    /// Everything up to `handed_over` has been handed to the shards, before any
    /// read that is let go now can reach them.
    pub(crate) fn applied(&mut self, handed_over: u64) {
        while let Some(first) = self.waiting.first_entry()
            && *first.key() <= handed_over
        {
            for waiting in first.remove() {
                match waiting {
                    Waiting::Askers(askers) => answer(askers, &Ok(())),
                    Waiting::Probe(probe) => {
                        self.fresh_since = self.fresh_since.max(Some(probe.sent));
                        probe.answer(&Ok(()));
                    }
                }
            }
        }
    }

    /// Asks the leader, for all that wait.
    pub(crate) fn begin_probe(&mut self, cast: &Cast) {
        if self.stale.is_empty() {
            return;
        }
        let leader = self.cluster.role().leader;
        let probe = Probe { sent: Instant::now(), askers: std::mem::take(&mut self.stale) };
        let Some(peer) = leader.and_then(|leader| cast.peer(leader)) else {
            return probe.answer(&Err(too_stale("no leader is known")));
        };
        self.next_probe = self.next_probe.wrapping_add(1);
        self.probes.insert(self.next_probe, probe);
        peer.send(PeerMessage::ReadProbe { number: self.next_probe });
    }

    /// The leader's answer; `None`: it doesn't lead any more.
    pub(crate) fn probe_answered(&mut self, number: u64, index: Option<u64>) {
        let Some(probe) = self.probes.remove(&number) else { return };
        match index {
            Some(index) => self.waiting.entry(index).or_default().push(Waiting::Probe(probe)),
            None => probe.answer(&Err(too_stale("the node asked leads no more"))),
        }
    }

    /// Probes are answered by the leader that was asked, or not at all. What was
    /// fresh stays so: applied entries are committed.
    pub(crate) fn leader_changed(&mut self, cast: &Cast) {
        if self.cluster.role().role != Role::Leader {
            let Round { mut askers, probes } = std::mem::take(&mut self.gathered);
            // What they wait for may never be applied here: it is why leadership went elsewhere, perhaps.
            for waiting in self.waiting.values_mut().flatten() {
                if let Waiting::Askers(waiting) = waiting {
                    askers.append(waiting);
                }
            }
            answer(askers, &Err(self.cluster.refusal()));
            for (from, number) in probes {
                if let Some(peer) = cast.peer(from) {
                    peer.send(PeerMessage::ReadAnswer { number, index: None });
                }
            }
        }
        for (_, probe) in self.probes.drain() {
            probe.answer(&Err(too_stale("the leader has changed")));
        }
    }

    /// There is no replica any more: nothing that is waited for will come.
    pub(crate) fn end(&mut self, cast: &Cast) {
        let handles: Vec<u64> = self.rounds.keys().copied().collect();
        handles.into_iter().for_each(|handle| self.round_done(handle, None, cast));
        self.leader_changed(cast);
        let stale = Probe { sent: Instant::now(), askers: std::mem::take(&mut self.stale) };
        let waiting = std::mem::take(&mut self.waiting).into_values().flatten();
        let waiting = waiting.filter_map(|waiting| match waiting {
            Waiting::Probe(probe) => Some(probe),
            // Answered above.
            Waiting::Askers(_) => None,
        });
        for probe in waiting.chain([stale]) {
            probe.answer(&Err(too_stale("this node takes no more part in its cluster")));
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        let late = self.probes.extract_if(|_, probe| probe.sent.elapsed() > PROBE_PATIENCE);
        for (_, probe) in late.collect::<Vec<_>>() {
            probe.answer(&Err(too_stale("the leader doesn't answer")));
        }
        let now = Instant::now();
        let late = self.probes.values_mut().flat_map(|probe| probe.late(now)).collect();
        answer(late, &Err(too_stale("the leader doesn't answer")));
        let mut late = Vec::new();
        self.waiting.retain(|_, waiting| {
            waiting.retain_mut(|waiting| match waiting {
                Waiting::Askers(_) => true,
                Waiting::Probe(probe) => {
                    late.append(&mut probe.late(now));
                    !probe.askers.is_empty()
                }
            });
            !waiting.is_empty()
        });
        answer(late, &Err(too_stale("its disk or its indexes are behind what the leader has committed")));
    }
}

fn too_stale(why: &str) -> Error {
    Error::new(Code::TooStale, format!("this replica can't tell how fresh it is: {why}"))
}

fn answer(askers: Vec<Asker>, ready: &Result<(), Error>) {
    for (reply_to, round) in askers {
        reply_to.send(ConnectionMessage::ReadReady { round, ready: ready.clone() });
    }
}
