//! How a connection's replies leave: in the order of their requests, as fast as
//! the client takes them, and no later than a request may take.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext, Context};
use bytes::{Buf, BytesMut};
use datastore::error::{Code, Error, Outcome};
use datastore::limits;
use datastore::messaging::reply;
use datastore::ordering::Class;
use datastore::query::BulkGetReply;

use crate::connection::Connection;
use crate::slot::{Slot, SlotState, error_line};

/// So much of a long reply is written at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// What is left of a long reply of which the beginning is in the output.
pub(crate) struct Rest {
    reply: BulkGetReply,
    /// What the gate counts for it.
    counted_bytes: usize,
}

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

    /// Sends what is ready and in order, as far as the socket takes it and as much as is one turn's.
    pub(crate) fn drain(&mut self, context: &mut Context<Self>) {
        let mut sent = 0;
        loop {
            let most = limits::CONNECTION_IN_FLIGHT_BYTES_MAX;
            while self.output.len() < most && (self.encode_rest() || self.encode_first()) {}
            if self.output.is_empty() || self.writing {
                break;
            }
            if sent >= most {
                self.go_on_later(context);
                break;
            }
            match self.socket.try_write(&self.output) {
                Ok(count) => {
                    sent += count;
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
        if self.read_ended && self.slots.is_empty() && self.output.is_empty() && self.rest.is_none() {
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
                if let Some(reply) = gathering.encode(&mut line, slot.id()) {
                    // What it still keeps alive counts until it is written.
                    let counted_bytes = std::mem::take(&mut slot.counted_bytes);
                    self.rest = Some(Rest { reply, counted_bytes });
                }
            }
        }
        self.gate.add(line.len());
        self.gate.remove(slot.counted_bytes);
        self.output.extend_from_slice(&line);
        true
    }

    /// Writes out more of a long reply; says whether there was one.
    fn encode_rest(&mut self) -> bool {
        let Some(mut rest) = self.rest.take() else { return false };
        let mut piece = Vec::new();
        let is_whole = rest.reply.write(&mut piece, PIECE_BYTES);
        self.gate.add(piece.len());
        self.output.extend_from_slice(&piece);
        if is_whole {
            self.gate.remove(rest.counted_bytes);
        } else {
            self.rest = Some(rest);
        }
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
        // Behind a reply of which a part is out nothing else goes out before its rest: then it is looked at again.
        let first = self.slots.front().filter(|first| first.may_time_out() && self.rest.is_none());
        let Some(first) = first else { return };
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
            if !first.may_time_out() || self.rest.is_some() || first.arrived.elapsed() < timeout {
                return;
            }
            let sequence = self.first_sequence;
            let error = timed_out(first, timeout_ms, self.turns.wait_for_indexes());
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
            let line = error_line(first.id(), &error);
            self.output_line(&line);
        }
    }
}

/// What a client is told whose request has no answer in time.
fn timed_out(slot: &Slot, timeout_ms: u64, waits_for_indexes: bool) -> Error {
    let is_write = matches!(slot.class, Class::SingleWrite | Class::MultiWrite);
    match (&slot.state, slot.class) {
        (SlotState::Queued, _) if is_write && waits_for_indexes => Error::overloaded(format!(
            "the write was not begun within {timeout_ms} ms: more writes are under way than are indexed in that time"
        )),
        (SlotState::Queued, _) => Error::new(
            Code::Timeout,
            format!("the request was not begun within {timeout_ms} ms, and will not be; try again"),
        ),
        (_, Class::KeyRead | Class::WideRead) => {
            Error::new(Code::Timeout, format!("no answer within {timeout_ms} ms; try again"))
        }
        _ => Error::new(
            Code::Timeout,
            format!("no answer within {timeout_ms} ms; read to find out what became of it"),
        )
        .with_outcome(Outcome::Unknown),
    }
}
