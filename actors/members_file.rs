//! The members as this node knows them: in memory, and in its directory.
//!
//! ```text
//!   who greets, who forces ── a change ──► thread ── writes the file ──► in memory ──► told
//!   WalWriter, by the log  ── in memory ─► thread ── writes the file, again until it succeeds
//! ```
//!
//! One thread writes the file. Heartbeats, connections and locks never wait for a disk: one that
//! hangs must not make its node look dead, or keep it from letting go of its leadership.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use datastore::persistence::{Configuration, FileDisk, IdentityError, Membership, NodeUuid};
use datastore::replication::message::NodeId;
use tokio::sync::oneshot;

use crate::mailbox::lock;

/// A file that could not be written is tried again after so long.
const STORED_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Changes that wait for the disk: peers greet again and again.
const CHANGES_MAX: usize = 64;

/// The outcome of a change that has to be durable before anyone hears of it: true if the change was news, and still
/// held when the disk had it; the error says why the file could not be written.
pub(crate) type Stored = Result<bool, String>;

/// Asked by the thread when the new file is on the disk, before it takes the old one's place.
pub(crate) type Consent = Box<dyn FnOnce() -> bool + Send>;

/// What follows from a change, whoever still waits for it: done by the thread before they are told. It is told
/// whether the file has the change.
pub(crate) type Then = Box<dyn FnOnce(bool) + Send>;

/// A change that has to be durable before anyone hears of it.
enum Change {
    /// The identity of a member's directory, as of the members that an entry named.
    Meet { node_id: NodeId, node: NodeUuid, as_of: u64 },
    /// This node is a member. Who has a membership keeps it.
    Adopted(Box<Membership>),
    /// What was decided while this node was left behind, or is set by force.
    Rejoins(Box<Membership>),
}

impl Change {
    /// Says whether it is news.
    fn apply(&self, known: &mut Option<Membership>) -> bool {
        match self {
            Change::Meet { node_id, node, as_of } => {
                // The number may be another directory's by now.
                let known = known.as_mut().filter(|known| known.configuration.index == *as_of);
                known.is_some_and(|known| known.meet(*node_id, *node))
            }
            Change::Adopted(_) if known.is_some() => false,
            Change::Adopted(by) | Change::Rejoins(by) => {
                *known = Some(Membership::clone(by));
                true
            }
        }
    }
}

/// A change with all that belongs to it.
struct Ordered {
    change: Change,
    consent: Option<Consent>,
    then: Option<Then>,
    done: oneshot::Sender<Stored>,
}

enum Job {
    Change(Box<Ordered>),
    /// The members in memory are newer than the file.
    Wake,
}

/// Shared by the thread and everyone who asks.
#[derive(Default)]
struct Shared {
    /// `None` until the cluster's founder has adopted this node.
    known: Mutex<Option<Membership>>,
    /// How often the log has changed them, and at which of these the file has them.
    changed: AtomicU64,
    stored: AtomicU64,
}

impl Shared {
    fn is_stored(&self) -> bool {
        self.stored.load(Ordering::Acquire) >= self.changed.load(Ordering::Acquire)
    }
}

/// The members of this node's cluster.
pub(crate) struct MembersFile {
    shared: Arc<Shared>,
    jobs: Sender<Job>,
}

impl MembersFile {
    /// As the directory has them.
    pub(crate) fn new(known: Option<Membership>, directory: FileDisk) -> MembersFile {
        let shared = Arc::new(Shared { known: Mutex::new(known), ..Shared::default() });
        let (jobs, received) = bounded(CHANGES_MAX);
        let writer = Writer { shared: shared.clone(), directory, jobs: received };
        let thread = std::thread::Builder::new().name("members-file".into());
        if let Err(error) = thread.spawn(move || writer.run()) {
            // Each change is refused from now on: nobody is met, and the log has the members.
            tracing::error!(%error, "the file of the members can't be written: no thread");
        }
        MembersFile { shared, jobs }
    }

    /// As this node knows them now.
    pub(crate) fn known(&self) -> Option<Membership> {
        lock(&self.shared.known).clone()
    }

    /// Looks at them.
    pub(crate) fn with<T>(&self, look: impl FnOnce(Option<&Membership>) -> T) -> T {
        look(lock(&self.shared.known).as_ref())
    }

    /// The log names these members from here on; gives the members before, and those of now, unless that counts no more.
    pub(crate) fn configured(&self, to: &Configuration) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
        let mut known = lock(&self.shared.known);
        let membership = known.as_mut()?;
        // Set by force a moment ago, for the next start: what the log says meanwhile counts no more.
        if membership.forced.as_ref().is_some_and(|forced| forced.through.is_none()) {
            return None;
        }
        let before = membership.node_ids();
        // What this node has stored may be newer than what it has read of its log.
        if to.index > membership.configuration.index {
            membership.changed(to.clone());
            self.shared.changed.fetch_add(1, Ordering::Release);
            // The log has it; the file is what the next start greets its peers by. A thread that has so much
            // to do writes these members with the next change.
            let _ = self.jobs.try_send(Job::Wake);
        }
        Some((before, membership.node_ids()))
    }

    /// Whether the file has the members as this node knows them; it is written again and again until then. Else a start
    /// might go by those before, and need one for its majority that was removed since.
    pub(crate) fn is_stored(&self) -> bool {
        self.shared.is_stored()
    }

    /// Notes the identity of a member's directory. Not news is one that is known, or whose number the log has
    /// given away meanwhile: whoever goes on by it has to look again.
    pub(crate) async fn meet(&self, node_id: NodeId, node: NodeUuid) -> Stored {
        self.order(self.meeting(node_id, node), None, None).await
    }

    /// As `meet`, on a thread that may wait.
    pub(crate) fn meet_on_thread(&self, node_id: NodeId, node: NodeUuid) -> Stored {
        self.try_order(self.meeting(node_id, node), None, None)?
            .blocking_recv()
            .unwrap_or_else(|_| Err(gone()))
    }

    fn meeting(&self, node_id: NodeId, node: NodeUuid) -> Change {
        let as_of = self.with(|known| known.map_or(0, |known| known.configuration.index));
        Change::Meet { node_id, node, as_of }
    }

    /// This node becomes a member, unless it is one; then something follows.
    pub(crate) fn adopted(&self, by: &Membership, then: Then) -> impl Future<Output = Stored> + use<> {
        self.order(Change::Adopted(Box::new(by.clone())), None, Some(then))
    }

    /// Takes over what was decided without this node, if that is still so when the disk has it. What follows is done
    /// once `consent` is given, even if the file then can't be changed.
    pub(crate) fn rejoins(
        &self,
        with: &Membership,
        consent: Consent,
        then: Then,
    ) -> impl Future<Output = Stored> + use<> {
        self.order(Change::Rejoins(Box::new(with.clone())), Some(consent), Some(then))
    }

    /// It is ordered when this returns.
    fn order(
        &self,
        change: Change,
        consent: Option<Consent>,
        then: Option<Then>,
    ) -> impl Future<Output = Stored> + use<> {
        let ordered = self.try_order(change, consent, then);
        async { ordered?.await.unwrap_or_else(|_| Err(gone())) }
    }

    fn try_order(
        &self,
        change: Change,
        consent: Option<Consent>,
        then: Option<Then>,
    ) -> Result<oneshot::Receiver<Stored>, String> {
        let (done, stored) = oneshot::channel();
        match self.jobs.try_send(Job::Change(Box::new(Ordered { change, consent, then, done }))) {
            Ok(()) => Ok(stored),
            Err(TrySendError::Full(_)) => {
                Err("the disk takes no file of the members; it is tried again".into())
            }
            Err(TrySendError::Disconnected(_)) => Err(gone()),
        }
    }
}

fn gone() -> String {
    "the file of the members can't be written: its thread is gone".into()
}

/// The thread.
struct Writer {
    shared: Arc<Shared>,
    directory: FileDisk,
    jobs: Receiver<Job>,
}

impl Writer {
    /// Works until nobody is left who could ask.
    fn run(self) {
        loop {
            let job = if self.shared.is_stored() {
                self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.jobs.recv_timeout(STORED_AGAIN_AFTER)
            };
            match job {
                Ok(Job::Change(ordered)) => {
                    let Ordered { change, consent, then, done } = *ordered;
                    let stored = self.change(&change, consent, then).map_err(|error| error.to_string());
                    // Whoever asked may have given up waiting.
                    let _ = done.send(stored);
                }
                Ok(Job::Wake) | Err(RecvTimeoutError::Timeout) => self.store_changed(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn change(
        &self,
        change: &Change,
        consent: Option<Consent>,
        then: Option<Then>,
    ) -> Result<bool, IdentityError> {
        let (changed, mut with) = self.now();
        if !change.apply(&mut with) {
            return Ok(false);
        }
        let Some(with) = with else { return Ok(false) };
        with.prepare(&self.directory)?;
        let must_follow = consent.is_some();
        if consent.is_some_and(|consent| !consent()) {
            return Ok(false);
        }
        let published = Membership::publish_prepared(&self.directory);
        if published.is_ok() {
            self.shared.stored.store(changed, Ordering::Release);
            // The log may have changed them meanwhile.
            change.apply(&mut lock(&self.shared.known));
        }
        if let Some(then) = then.filter(|_| must_follow || published.is_ok()) {
            then(published.is_ok());
        }
        published.map(|()| true)
    }

    fn store_changed(&self) {
        let (changed, known) = self.now();
        match known.map_or(Ok(()), |known| known.store(&self.directory)) {
            Ok(()) => self.shared.stored.store(changed, Ordering::Release),
            Err(error) => tracing::warn!(%error, "the members could not be stored; the log has them"),
        }
    }

    /// The members, and how often the log had changed them.
    fn now(&self) -> (u64, Option<Membership>) {
        let known = lock(&self.shared.known);
        (self.shared.changed.load(Ordering::Acquire), known.clone())
    }
}

#[cfg(test)]
mod tests {
    use datastore::persistence::Member;

    use super::*;

    fn members(ids: &[u64], index: u64) -> Configuration {
        let member = |node_id: &u64| Member { node_id: *node_id, host: "h".into(), port: 1, node: None };
        Configuration { index, ..Configuration::founding(ids.iter().map(member).collect(), 1) }
    }

    fn membership(ids: &[u64]) -> Membership {
        let Configuration { nodes, .. } = members(ids, 0);
        Membership::new("c".repeat(32), 1, nodes)
    }

    fn until_stored(file: &MembersFile) {
        while !file.is_stored() {
            std::thread::yield_now();
        }
    }

    fn now<T>(what: impl Future<Output = T>) -> T {
        actix_rt::System::new().block_on(what)
    }

    #[test]
    fn what_was_answered_is_in_the_file_and_what_the_log_changed_comes_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = FileDisk::open(directory.path()).expect("a disk");
        let file = MembersFile::new(None, disk.clone());
        let stored = || Membership::load(&disk).expect("it can be read").expect("a membership");
        assert_eq!(now(file.meet(2, NodeUuid([2; 16]))), Ok(false), "of nobody's cluster");
        assert_eq!(now(file.adopted(&membership(&[1, 2]), Box::new(|_| ()))), Ok(true));
        assert_eq!(stored().node_ids(), [1, 2]);
        assert_eq!(now(file.adopted(&membership(&[1, 3]), Box::new(|_| ()))), Ok(false), "it is a member");
        assert_eq!(now(file.meet(2, NodeUuid([2; 16]))), Ok(true));
        assert_eq!(stored().member(2).and_then(|member| member.node), Some(NodeUuid([2; 16])));
        assert_eq!(file.meet_on_thread(2, NodeUuid([2; 16])), Ok(false));
        assert_eq!(file.configured(&members(&[1, 2, 3], 9)), Some((vec![1, 2], vec![1, 2, 3])));
        until_stored(&file);
        assert_eq!(stored().node_ids(), [1, 2, 3]);
    }

    #[test]
    fn a_disk_that_refuses_is_said_and_tried_again_and_holds_nobody_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = FileDisk::open(directory.path()).expect("a disk");
        let file = MembersFile::new(Some(membership(&[1, 2])), disk.clone());
        // A directory in the place of the temporary file can't be written.
        let in_the_way = directory.path().join("cluster.new").join("x");
        std::fs::create_dir_all(&in_the_way).expect("a directory");
        assert!(now(file.meet(2, NodeUuid([2; 16]))).is_err());
        assert_eq!(file.known().and_then(|known| known.member(2)?.node), None, "it isn't durable");
        assert!(file.configured(&members(&[1, 2, 3], 9)).is_some() && !file.is_stored());
        std::fs::remove_dir_all(directory.path().join("cluster.new")).expect("it goes");
        until_stored(&file);
        let stored = Membership::load(&disk).expect("it can be read").expect("a membership");
        assert_eq!(stored.node_ids(), [1, 2, 3]);
    }
}
