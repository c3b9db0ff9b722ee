//! How a connection's replies leave: in the order of their requests, as fast as
//! the client takes them, and no later than a request may take.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext, Context};
use bytes::{Buf, BytesMut};
use datastore::error::{Code, Error};
use datastore::limits;
use datastore::messaging::reply;

use crate::connection::Connection;
use crate::slot::{Slot, SlotState, error_line};

impl Connection {
    /// The first slot's reply goes out.
    pub(crate) fn output_line(&mut self, line: &[u8]) {
        if let Some(slot) = self.slots.pop_front() {
            self.first_sequence += 1;
            self.gate.add(line.len());
            self.gate.remove(slot.counted_bytes);
            self.output.extend_from_slice(line);
        }
    }

    /// Sends all that is ready and in order, as far as the socket takes it.
    pub(crate) fn drain(&mut self, context: &mut Context<Self>) {
        loop {
            while self.output.len() < limits::CONNECTION_IN_FLIGHT_BYTES_MAX && self.encode_first() {}
            if self.output.is_empty() || self.writing {
                break;
            }
            match self.socket.try_write(&self.output) {
                Ok(count) => {
                    self.output.advance(count);
                    self.gate.remove(count);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.wait_until_writable(context);
                    break;
                }
                Err(_) => return context.stop(),
            }
        }
        if self.output.is_empty() {
            self.output = BytesMut::new(); // an idle connection holds no buffer
        }
        if self.read_ended && self.slots.is_empty() && self.output.is_empty() {
            context.stop();
        }
        self.set_deadline(context);
    }

    /// Writes out the first slot's reply if it is ready; says whether it was.
    fn encode_first(&mut self) -> bool {
        if self.slots.front().is_none_or(Slot::is_unanswered) {
            return false;
        }
        let Some(mut slot) = self.slots.pop_front() else { return false };
        self.first_sequence += 1;
        let mut line = Vec::new();
        match std::mem::replace(&mut slot.state, SlotState::Queued) {
            SlotState::Queued | SlotState::Waiting | SlotState::Gathering(_) => {}
            SlotState::Line(ready) => {
                self.gate.add(ready.len());
                self.output.extend_from_slice(&ready);
            }
            SlotState::Large { entry, vector: true } => reply::get_vector(&mut line, slot.id(), Some(&entry)),
            SlotState::Large { entry, vector: false } => reply::get(&mut line, slot.id(), Some(&entry)),
            SlotState::Gathered(gathering) => {
                self.gatherings -= 1;
                gathering.encode(&mut line, slot.id());
            }
        }
        self.gate.add(line.len());
        self.gate.remove(slot.counted_bytes);
        self.output.extend_from_slice(&line);
        true
    }

    fn wait_until_writable(&mut self, context: &mut Context<Self>) {
        self.writing = true;
        let socket = self.socket.clone();
        let patience = Duration::from_millis(limits::WRITE_PROGRESS_TIMEOUT_MS);
        let wait = async move { tokio::time::timeout(patience, socket.writable()).await };
        context.spawn(wrap_future(wait).map(|waited, this: &mut Connection, context| {
            this.writing = false;
            if waited.is_err() {
                this.node.connections.closed_not_reading.fetch_add(1, Ordering::Relaxed);
                return context.stop();
            }
            this.go_on(context);
        }));
    }

    /// One timer per connection, for the request that has waited longest.
    fn set_deadline(&mut self, context: &mut Context<Self>) {
        if self.deadline_is_set {
            return;
        }
        let Some(first) = self.slots.front() else { return };
        self.deadline_is_set = true;
        let timeout = Duration::from_millis(self.node.settings.request_timeout_ms);
        let left = (first.arrived + timeout).saturating_duration_since(Instant::now());
        context.run_later(left, |this, context| {
            this.deadline_is_set = false;
            this.answer_timeouts();
            this.go_on(context);
        });
    }

    fn answer_timeouts(&mut self) {
        let timeout_ms = self.node.settings.request_timeout_ms;
        let timeout = Duration::from_millis(timeout_ms);
        while let Some(first) = self.slots.front() {
            if !first.is_unanswered() || first.arrived.elapsed() < timeout {
                return;
            }
            let sequence = self.first_sequence;
            match first.state {
                SlotState::Queued => {}
                SlotState::Gathering(_) => {
                    self.gatherings -= 1;
                    self.timed_out.insert(sequence, first.class);
                }
                _ => {
                    self.timed_out.insert(sequence, first.class);
                }
            }
            let message = format!("no answer within {timeout_ms} ms; read to find out what became of it");
            let line = error_line(first.id(), &Error::new(Code::Timeout, message));
            self.output_line(&line);
        }
    }
}
