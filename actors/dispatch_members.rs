//! Requests about the cluster's members: who leads, who belongs to it.

use bytes::Bytes;
use datastore::error::{Code, Error};
use datastore::messaging::reply;
use datastore::persistence::Member;
use datastore::query::{Standing, members_body};

use crate::connection::{Connection, ConnectionMessage};
use crate::dispatch::Refusal;
use crate::founding::found_with;
use crate::replication_messages::{CoordinatorMessage, Wish};
use crate::slot::SlotState;
use crate::standing::{newcomer, standing};

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
                coordinator.send(CoordinatorMessage::Change { wish, asked_by });
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
            (self.node.clone(), self.cast.port, self.address.clone(), member.clone());
        let found = move || {
            let outcome = found_with(&node.settings, port, newcomer.clone());
            if outcome.is_ok() {
                tracing::info!("a node was added: this one begins anew, as the first of a cluster");
                node.begin_anew();
            }
            connection.send(ConnectionMessage::Founded { sequence, member: newcomer, outcome });
        };
        if let Err(error) = std::thread::Builder::new().name("founding".into()).spawn(found) {
            let error = Error::new(Code::Internal, format!("no thread: {error}"));
            self.first_added(sequence, &member, Err(error));
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
