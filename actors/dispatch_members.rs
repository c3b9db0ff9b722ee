//! Requests about the cluster's members: who leads, who belongs to it.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use datastore::error::{Code, Error, Outcome};
use datastore::messaging::reply;
use datastore::persistence::Member;
use datastore::query::{Standing, members_body};

use crate::connection::{Connection, ConnectionMessage};
use crate::dispatch::Refusal;
use crate::founding::found_with;
use crate::newcomer::{Asker, is_to_be_looked_for};
use crate::replication_messages::{CoordinatorMessage, Wish};
use crate::slot::SlotState;
use crate::standing::{newcomer, standing};

/// Changes of the members, asked for by any number of clients, that have a thread at once.
const CHANGES_AT_ONCE_MAX: usize = 8;

impl Connection {
    pub(crate) fn promote(&mut self, sequence: u64, node_id: Option<u64>, force: bool) -> Refusal {
        if self.node.dynamo.is_some() {
            let message = "in dynamo mode every node takes writes: there is nobody to promote";
            return Err(Error::new(Code::UnsupportedInMode, message));
        }
        let Some(coordinator) = self.cast.coordinator.clone() else {
            let message = "promote needs a cluster, and this node is on its own";
            return Err(Error::new(Code::UnsupportedInMode, message));
        };
        let own = self.node.settings.node_id;
        if force && node_id.is_some_and(|node_id| node_id != own) {
            let message =
                format!("`force` is for the node that is asked, and this is node {own}: ask the other one");
            return Err(Error::new(Code::BadRequest, message));
        }
        self.barrier_dispatched(sequence);
        let (node_id, asked_by) = (node_id.unwrap_or(own), (self.address.clone(), sequence));
        coordinator.send(if force {
            CoordinatorMessage::Force { asked_by }
        } else {
            CoordinatorMessage::Promote { node_id, asked_by }
        });
        Ok(())
    }

    /// What became of a `promote`.
    pub(crate) fn promoted(&mut self, sequence: u64, leader: Result<u64, Error>) {
        self.answer_later(sequence, leader.map(|leader| format!("{{\"leader\":{leader}}}")));
    }

    /// `add_member`, `remove_member`.
    pub(crate) fn change(&mut self, sequence: u64, wish: Wish) -> Refusal {
        if self.node.dynamo.is_some() {
            let message = "in dynamo mode a node joins by itself, started on an empty directory with --peers that name \
                           a member; `evict` removes one";
            return Err(Error::new(Code::UnsupportedInMode, message));
        }
        self.barrier_dispatched(sequence);
        match (self.cast.coordinator.clone(), wish) {
            (Some(coordinator), wish) => {
                let asked_by = (self.address.clone(), sequence);
                let newcomer = self.node.cluster.as_ref().and_then(|cluster| {
                    let member = is_to_be_looked_for(cluster, &wish)?.clone();
                    Some((Asker::member(cluster, self.node.settings.request_timeout_ms)?, member))
                });
                let Some((asker, member)) = newcomer else {
                    coordinator.send(CoordinatorMessage::Change { wish, asked_by });
                    return Ok(());
                };
                let connection = self.address.clone();
                self.on_a_thread(sequence, move || match asker.look_for(&member) {
                    Ok(()) => coordinator.send(CoordinatorMessage::Change { wish, asked_by }),
                    Err(error) => {
                        connection.send(ConnectionMessage::MembersChanged { sequence, outcome: Err(error) });
                    }
                });
            }
            (None, Wish::Add(member)) => {
                self.found_with(sequence, member);
            }
            (None, Wish::Remove(_)) => {
                let message = "this node is on its own: there is nobody to remove";
                self.members_changed(sequence, Err(Error::new(Code::UnsupportedInMode, message)));
            }
        }
        Ok(())
    }

    /// A node on its own becomes the first of a cluster, and begins anew as that. Other connections don't wait
    /// for the disk.
    fn found_with(&mut self, sequence: u64, member: Member) {
        let (node, port, connection, newcomer) =
            (self.node.clone(), self.cast.port, self.address.clone(), member);
        let found = move || {
            let outcome = found_with(&node.settings, port, newcomer.clone());
            if outcome.is_ok() {
                tracing::info!("a node was added: this one begins anew, as the first of a cluster");
                node.begin_anew();
            }
            connection.send(ConnectionMessage::Founded { sequence, member: newcomer, outcome });
        };
        self.on_a_thread(sequence, found);
    }

    /// What waits for a disk or a node elsewhere is done beside all that this thread has to do.
    fn on_a_thread(&mut self, sequence: u64, body: impl FnOnce() + Send + 'static) {
        static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
        if UNDER_WAY.fetch_add(1, Ordering::Relaxed) >= CHANGES_AT_ONCE_MAX {
            UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
            let error = Error::overloaded("other nodes are being looked for; ask again when that is done");
            return self.members_changed(sequence, Err(error));
        }
        let spawned = std::thread::Builder::new().name("members".into()).spawn(|| {
            body();
            UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = spawned {
            UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
            let error =
                Error::new(Code::Internal, format!("no thread: {error}")).with_outcome(Outcome::NotApplied);
            self.members_changed(sequence, Err(error));
        }
    }

    /// What became of a change.
    pub(crate) fn members_changed(&mut self, sequence: u64, outcome: Result<(), Error>) {
        self.answer_members(sequence, outcome.map(|()| standing(&self.node, self.reached)));
    }

    /// This node knows of its companion when it has begun anew.
    pub(crate) fn first_added(&mut self, sequence: u64, member: &Member, outcome: Result<(), Error>) {
        let mut standing = standing(&self.node, self.reached);
        standing.members.push(newcomer(member));
        standing.members.sort_by_key(|member| member.address.node_id);
        self.answer_members(sequence, outcome.map(|()| standing));
    }

    fn answer_members(&mut self, sequence: u64, outcome: Result<Standing, Error>) {
        self.answer_later(sequence, outcome.map(|standing| members_body(&standing)));
    }

    /// The answer of a request that waited for the coordinator.
    fn answer_later(&mut self, sequence: u64, body: Result<String, Error>) {
        let Some(slot) = self.slot(sequence) else { return };
        let mut line = Vec::new();
        match body {
            Ok(body) => reply::object(&mut line, slot.id(), body.as_bytes()),
            Err(error) => reply::error(&mut line, slot.id(), &error),
        }
        self.fill(sequence, line.len(), SlotState::Line(Bytes::from(line)));
    }
}
