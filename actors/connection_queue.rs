//! Which requests of a connection may leave: in their order, as the barrier, the rounds that they
//! wait for and others' turns allow.

use actix::Context;
use bytes::Bytes;
use datastore::limits;
use datastore::messaging::{Operation, reply};
use datastore::ordering::Class;

use crate::connection::Connection;
use crate::slot::{class, gathers};

impl Connection {
    pub(crate) fn may_dispatch(&self, operation: &Operation, class: Class) -> bool {
        self.barrier.may_dispatch(class)
            && (!gathers(operation) || self.gatherings < limits::CONNECTION_GATHERS_MAX)
    }

    /// Whether the queue's first request may leave: the barrier lets it, and its round is done.
    pub(crate) fn front_may_leave(&mut self, context: &mut Context<Self>) -> bool {
        let Some(front) = self.queue.front() else { return false };
        if front.sequence < self.first_sequence {
            return true; // it timed out in the queue: it never happens
        }
        let may_leave = front.round.is_none_or(|round| self.rounds.outcome(round).is_some())
            && self.may_dispatch(&front.operation, class(&front.operation));
        if !may_leave {
            return false;
        }
        let Some(front) = self.queue.pop_front() else { return false };
        let has_turn = self.has_turn(&front.arena, front.sequence, &front.operation, context);
        self.queue.push_front(front);
        has_turn
    }

    /// Dispatches what may go now.
    pub(crate) fn dispatch_queued(&mut self, context: &mut Context<Self>) {
        let mut arena: Option<Bytes> = None;
        while self.front_may_leave(context) {
            let Some(next) = self.queue.pop_front() else { break };
            if next.sequence < self.first_sequence {
                continue;
            }
            if let Some(Err(error)) = next.round.and_then(|round| self.rounds.outcome(round)) {
                self.answer_now(next.sequence, |line, id| reply::error(line, id, &error));
                continue;
            }
            if let Some(previous) = arena.take()
                && previous.as_ptr() != next.arena.as_ptr()
            {
                self.send_outgoing(&previous);
            }
            self.dispatch(&next.arena, next.sequence, next.id, next.operation);
            arena = Some(next.arena);
        }
        if let Some(arena) = arena {
            self.send_outgoing(&arena);
        }
    }
}
